/* The grammar of durations and rates. Pure. */
#ifndef CONFIG_RATE_H
#define CONFIG_RATE_H

#include "base/str.h"
#include "limit/algorithm.h"

/* "500ms", "10s", "5m", "1h", "1d": a whole number and its unit, nothing else. */
bool duration_parse(struct str s, usec_t *out);

enum { DURATION_TEXT_MAX = 32, RATE_TEXT_MAX = 96 };

/* In the largest unit that it is a whole number of. Returns `out`. */
const char *duration_format(usec_t, char out[DURATION_TEXT_MAX]);

/* A decimal integer with nothing around it. */
bool integer_parse(struct str s, int64_t *out);

struct rate {
	bool unlimited; /* then the rest is 0 */
	int64_t units;  /* 0..1e9 */
	struct window window;
	int64_t burst; /* 1..1e9; 0: not given */
};

/* "N/WINDOW", "N per WINDOW", either with "burst B", or "unlimited". On false `why` says what is
 * wrong and what is wanted. */
bool rate_parse(struct str s, struct rate *out, char *why, size_t why_size);

bool window_equal(const struct window *, const struct window *);

/* "minute", "5m", "week": as it would be written. Returns `out`. */
const char *window_format(const struct window *, char out[DURATION_TEXT_MAX]);

/* "10/minute", "50/minute burst 100": as it would be written; with `per` "10 per minute". A burst
 * that is N is not shown. Returns `out`. */
const char *quota_format(const struct quota *, bool per, char out[RATE_TEXT_MAX]);

#endif
