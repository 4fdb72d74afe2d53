/* A lock of four bytes for what is held for a microsecond: getting and giving it back are one
 * atomic instruction each, in line, where a call of pthread_mutex_lock() and its like takes forty
 * (a decision with three rules holds three: 240 instructions less). By futex, after the second
 * mutex of Drepper, "Futexes Are Tricky".
 *
 * All zero is free: there is nothing to init or to destroy. Not recursive; no fairness. */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <stdatomic.h>

enum { LOCK_FREE, LOCK_HELD, LOCK_AWAITED /* held, and somebody may sleep for it */ };

struct lock {
	_Atomic(int) state;
};

#ifdef LOCK_WATCH
/* The benchmark of pauses compiles these in, to measure how long locks are held. */
void lock_watch_got(void);
void lock_watch_puts(void);
#else
#define lock_watch_got()  ((void)0)
#define lock_watch_puts() ((void)0)
#endif

void lock_wait(struct lock *);     /* the rest of lock_get(), where somebody has it */
void lock_wake_one(struct lock *); /* of lock_put(), where somebody may sleep */

static inline void lock_get(struct lock *l)
{
	int state = LOCK_FREE;

	if (!atomic_compare_exchange_strong_explicit(
		    &l->state, &state, LOCK_HELD, memory_order_acquire, memory_order_relaxed))
		lock_wait(l);
	lock_watch_got();
}

static inline void lock_put(struct lock *l)
{
	lock_watch_puts();
	if (atomic_exchange_explicit(&l->state, LOCK_FREE, memory_order_release) == LOCK_AWAITED)
		lock_wake_one(l);
}

#endif
