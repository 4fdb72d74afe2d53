#include "base/lock.h"

#include <linux/futex.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A lock is held for less than it takes to fall asleep: so often it is tried again first. */
enum { TRIES = 100 };

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Its results do not matter: who wakes, for whatever reason, looks again. */
static void futex(struct lock *l, int operation, int value)
{
	(void)syscall(SYS_futex, &l->state, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static bool try_again(struct lock *l)
{
	for (unsigned i = 0; i < TRIES; i++) {
		int state = LOCK_FREE;
		if (atomic_load_explicit(&l->state, memory_order_relaxed) == LOCK_FREE &&
			atomic_compare_exchange_strong_explicit(&l->state, &state, LOCK_HELD,
				memory_order_acquire, memory_order_relaxed))
			return true;
		pause_briefly();
	}
	return false;
}

/* Who has slept cannot know whether others still do, and so leaves the lock as one that is awaited:
 * at worst that wakes nobody, once. */
void lock_wait(struct lock *l)
{
	if (try_again(l))
		return;
	while (atomic_exchange_explicit(&l->state, LOCK_AWAITED, memory_order_acquire) != LOCK_FREE)
		futex(l, FUTEX_WAIT, LOCK_AWAITED);
}

void lock_wake_one(struct lock *l)
{
	futex(l, FUTEX_WAKE, 1);
}
