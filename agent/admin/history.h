/* What happened in each of the last minutes' seconds: for who begins to look only now. Pure. */
#ifndef ADMIN_HISTORY_H
#define ADMIN_HISTORY_H

#include "base/histogram.h"

#include <stdbool.h>

enum { HISTORY_SECONDS = 300 };

struct history_second {
	uint64_t allowed, denied, shadow;
	uint64_t timed;    /* how many have a latency */
	uint64_t p50, p99; /* us, not more than; 0 where nothing is timed */
};

/* Since the start. */
struct history_sums {
	uint64_t allowed, denied, shadow;
	struct histogram_sum time;
};

struct history {
	struct history_second second[HISTORY_SECONDS]; /* number i is at i % HISTORY_SECONDS */
	uint64_t n; /* all that there were; their numbers are 0 to n - 1 */
	struct history_sums last;
	bool begun;
};

/* Once a second. The first call only says from where it counts. */
void history_add(struct history *, const struct history_sums *);

/* The number of the first second that is still kept, of `after` and later. An `after` that is not
 * there yet is of an earlier run: all that is kept. */
uint64_t history_first(const struct history *, uint64_t after);
const struct history_second *history_at(const struct history *, uint64_t number);

#endif
