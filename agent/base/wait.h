/* Waiting for another thread until an instant of the steady clock: a wall clock that is set makes
 * no wait longer. */
#ifndef BASE_WAIT_H
#define BASE_WAIT_H

#include "base/clock.h"

#include <pthread.h>
#include <time.h>

static inline void cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t monotonic;

	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(cond, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
}

/* Of a condition by cond_init(), with the lock held: for `length`, or until somebody signals. */
static inline void cond_wait_for(pthread_cond_t *cond, pthread_mutex_t *lock, usec_t length)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	usec_t usec = until.tv_nsec / 1000 + length;
	until.tv_sec += (time_t)(usec / USEC_PER_SEC);
	until.tv_nsec = (long)(usec % USEC_PER_SEC) * 1000;
	(void)pthread_cond_timedwait(cond, lock, &until);
}

#endif
