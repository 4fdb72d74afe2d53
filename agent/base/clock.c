#include "base/clock.h"

#include "base/timeline.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static usec_t steady_zero; /* written once, before anyone reads it */

/* The process' timeline, shared: every worker has to follow the same windows. Two threads that
 * store at one moment have read their clocks a moment apart; whichever stays is right to within
 * that, and the next read mends it. The mark is moved in steps, so that the line is mostly only
 * read. */
static _Atomic(usec_t) shared_offset, shared_high;
/* Written before the mark that goes back with it, and read after it: who sees that mark must not
 * take an older anchor for its own. */
static _Atomic(usec_t) shared_anchor;

static usec_t read_usec(clockid_t id)
{
	struct timespec t = { 0 };

	/* Cannot fail for these clocks and this pointer. */
	(void)clock_gettime(id, &t);
	return (usec_t)t.tv_sec * USEC_PER_SEC + t.tv_nsec / 1000;
}

static void anchor(void)
{
	usec_t utc = read_usec(CLOCK_REALTIME), monotonic = read_usec(CLOCK_MONOTONIC);

	steady_zero = utc - monotonic;
	atomic_store(&shared_offset, 0);
	atomic_store(&shared_high, utc);
}

#define MARK_STEP USEC_PER_MSEC

static void store_if_new(_Atomic(usec_t) *shared, usec_t old, usec_t fresh)
{
	if (fresh - old > MARK_STEP || old - fresh > MARK_STEP)
		atomic_store_explicit(shared, fresh, memory_order_release);
}

/* Both clocks as of one moment. Who stood still between the two reads (a frozen group, a virtual
 * machine that is moved) has a UTC that is later than it was: the windows would run ahead by that
 * long, and then wait as for a clock that was set back. So what looks like a step forward is read
 * again: one that was is still there. */
static void read_both(usec_t offset, usec_t *steady, usec_t *utc)
{
	for (int tries = 0; tries < 2; tries++) {
		*steady = read_usec(CLOCK_MONOTONIC) + steady_zero;
		*utc = read_usec(CLOCK_REALTIME);
		if (*utc - *steady - offset <= MARK_STEP)
			return;
	}
}

struct now clock_read(void)
{
	usec_t steady, utc;

	(void)pthread_once(&once, anchor);
	struct timeline before = {
		.offset = atomic_load_explicit(&shared_offset, memory_order_relaxed),
		.high = atomic_load_explicit(&shared_high, memory_order_acquire),
	};
	before.anchor = atomic_load_explicit(&shared_anchor, memory_order_relaxed);
	struct timeline t = before;
	read_both(before.offset, &steady, &utc);
	struct now now = timeline_follow(&t, steady, utc);
	store_if_new(&shared_offset, before.offset, t.offset);
	store_if_new(&shared_anchor, before.anchor, t.anchor);
	store_if_new(&shared_high, before.high, t.high);
	return now;
}

usec_t clock_steady(void)
{
	(void)pthread_once(&once, anchor);
	return read_usec(CLOCK_MONOTONIC) + steady_zero;
}

usec_t clock_thread_cpu(void)
{
	return read_usec(CLOCK_THREAD_CPUTIME_ID);
}
