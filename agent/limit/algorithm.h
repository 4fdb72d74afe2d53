/* Token bucket, sliding window, fixed window: the arithmetic, and nothing else. Time comes in as
 * an argument; state comes in and goes out. Levels are IEEE doubles in units (a script in another
 * language does the same operations in the same order and agrees bit for bit: no contraction, see
 * -ffp-contract=off); instants are integer microseconds.
 *
 * Token bucket: kept as the units *used* and when that was so; it drains by quota/window. That is
 * GCRA's state in units, so that a changed rate changes nothing that was consumed.
 * Sliding window: two counters, `current + previous * (1 - elapsed/window)`.
 * Fixed window: one counter, aligned to the calendar, or (WINDOW_FROM_FIRST) to what it counted
 * first. */
#ifndef LIMIT_ALGORITHM_H
#define LIMIT_ALGORITHM_H

#include "base/clock.h"

#include <stdbool.h>
#include <stdint.h>

enum algorithm { ALGORITHM_TOKEN_BUCKET, ALGORITHM_SLIDING_WINDOW, ALGORITHM_FIXED_WINDOW };

enum window_kind { WINDOW_LENGTH, WINDOW_WEEK, WINDOW_MONTH, WINDOW_FROM_FIRST };

/* A week starts on Monday and is always WINDOW_WEEK (also when written "7d"); a month is a
 * calendar month, its `length` nominal (30 days). All in UTC. WINDOW_FROM_FIRST, of fixed windows
 * alone and in no configuration, begins with the first unit that it counts, and the one after it
 * with the first that comes when it is over: so in any `length` it admits 2N - 1 at most, and at an
 * even pace of no more than N none too few (limit/penalty.h). */
struct window {
	enum window_kind kind;
	usec_t length;
};

struct quota {
	enum algorithm algorithm;
	struct window window;
	int64_t units;    /* N of "N/WINDOW", 0..1e9 */
	int64_t capacity; /* burst of a token bucket, else N */
};

bool quota_eq(const struct quota *, const struct quota *);

/* 16 bytes; all zero (and any instant long past) is "never seen": full. */
struct bucket {
	union {
		double used; /* token bucket: units, as of `at` */
		struct {
			uint32_t current, previous; /* windows: of the window that starts at `at` */
		};
	};
	/* token bucket: steady time; windows: start of the window, UTC, or an instant within it and
	 * BUCKET_WITHIN, where only who knows the quota can tell where it starts */
	usec_t at;
};

/* Further ahead than any instant: reading a bucket finds out with no look at it. */
#define BUCKET_WITHIN ((usec_t)1 << 62)

/* `at` of a bucket of windows, without the mark. */
static inline usec_t bucket_instant(const struct bucket *b)
{
	return b->at > BUCKET_WITHIN / 2 ? b->at - BUCKET_WITHIN : b->at;
}

/* Clocks are read a moment apart: what began this little "ahead" of now is of now. */
#define BUCKET_AHEAD_MAX USEC_PER_SEC

/* What lies in the future is read as of when the clock went back, where that is no longer ago; else
 * as of now. By then whoever keeps buckets has them anchored for good (store/memory.h), and what is
 * ahead of who reads it is so because he was held up for long after he had read the clock. */
#define BUCKET_ANCHOR_MAX (600 * USEC_PER_SEC)

/* Rounding may admit this much of a unit early, never more (ARCHITECTURE: a millionth). */
#define UNIT_SLACK 5e-7

/* The window that `utc` lies in: [start, end). Of WINDOW_FROM_FIRST: that which begins then. */
void window_bounds(const struct window *, usec_t utc, usec_t *start, usec_t *end);

/* `b` as it stands now: drained, rotated, clamped to the capacity, read by CONTRACT.md's rules for
 * clocks that stepped back and for instants in the future. `at` becomes now / this window. Where
 * that is earlier than it was, a window of the future has been anchored anew (now.anchor_age; by
 * Redis' clock, of whose steps nobody knows, in the window of now): whoever keeps `b` has to store
 * that even for a request that is denied, or it would be of the future until UTC comes to it. */
struct bucket bucket_read(const struct quota *, const struct bucket *b, struct now now);

/* The rest take a bucket as bucket_read() returned it, for the same `now`. */

double bucket_used(const struct quota *, const struct bucket *, struct now);
/* Units left: capacity - used, at least 0; may have a fraction. */
double bucket_left(const struct quota *, const struct bucket *, struct now);
/* The usual case in one: reads `stored` into *state, and if it admits `cost` (0: if it would admit
 * 1) charges that, and says what is left. The same operations in the same order as by
 * bucket_read(), bucket_admits(), bucket_charge(), bucket_left(). false: it does not, and neither
 * counts. */
bool bucket_take(const struct quota *, const struct bucket *stored, int64_t cost, struct now,
	struct bucket *state, double *left);
/* What is left as a whole number, as it is told. Of a sliding window what the previous one still
 * weighs is rounded down first, as others publish it (VECTORS: 125 s, 3 left); above 0 only if one
 * unit would pass. */
int64_t bucket_remaining(const struct quota *, const struct bucket *, struct now);
/* Would a take of `cost` >= 1 pass? false also when it could never. */
bool bucket_admits(const struct quota *, const struct bucket *, int64_t cost, struct now);
/* Charges `cost` (which must be admitted). */
void bucket_charge(const struct quota *, struct bucket *, int64_t cost);
/* count_denied's charge: min(cost, what is there), never into debt. false: nothing was there. */
bool bucket_charge_denied(const struct quota *, struct bucket *, int64_t cost);
/* Takes back `cost` that was charged before, when the bucket's `at` became `charged_at`: unless it
 * has gone with its window; of a token bucket, less what has drained since (all of that may have
 * been of this charge: others' charges may have been taken back as well). So never less is used
 * than had it not been charged. false: there is nothing to take back. */
bool bucket_refund(
	const struct quota *, struct bucket *, int64_t cost, usec_t charged_at, struct now now);
/* Microseconds until `cost` would pass, 0 when it does now. `cost` must be 1..capacity. */
usec_t bucket_retry_after(const struct quota *, const struct bucket *, int64_t cost, struct now);
/* Microseconds until full again (fixed window: until the window ends, whatever is used). */
usec_t bucket_reset_after(const struct quota *, const struct bucket *, struct now);
/* When the window ends that the bucket is of: UTC. Windows only. */
usec_t bucket_window_end(const struct quota *, const struct bucket *);
/* Microseconds until it equals one never seen: what a store needs to know. */
usec_t bucket_full_after(const struct quota *, const struct bucket *, struct now);

#endif
