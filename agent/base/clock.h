/* Instants are integer microseconds. Two time lines:
 *
 *   steady   follows the monotonic clock; token buckets refill by it. Its zero is set once at
 *            start so that it reads like UTC, which makes both lines comparable in magnitude.
 *   utc      the wall clock: calendar windows and reset_at follow it, steps included.
 *
 * Only base/clock.c reads a clock; everything below server/ takes `struct now` as an argument. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

typedef int64_t usec_t;

#define USEC_PER_MSEC ((usec_t)1000)
#define USEC_PER_SEC  ((usec_t)1000000)
#define USEC_PER_DAY  (86400 * USEC_PER_SEC)

struct now {
	usec_t steady;
	usec_t utc;
	/* Windows are read at utc + held: after a small step back their clock stands still until
	 * UTC has caught up (base/timeline.h). Else 0. */
	usec_t held;
	/* How long ago that clock went back with UTC, by more than a small step, by itself: what
	 * was charged before then and lies in the future is read as of then. Since 1970: it never
	 * did. 0: just now, or it is another machine's, of whose steps nothing is known. */
	usec_t anchor_age;
};

/* Both clocks, by vDSO: no system call. Any thread. */
struct now clock_read(void);

/* The same `steady`, alone. By vDSO as well; any thread. */
usec_t clock_steady(void);

/* CPU time of the calling thread, for benchmarks and watchdogs of pauses. */
usec_t clock_thread_cpu(void);

#endif
