#include "base/lock.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { THREADS = 4, TURNS = 20000 };

struct shared {
	struct lock lock;
	uint64_t n; /* under the lock */
};

static void *count(void *arg)
{
	struct shared *s = arg;

	for (unsigned i = 0; i < TURNS; i++) {
		lock_get(&s->lock);
		uint64_t n = s->n;
		/* Held across a sleep now and then: the others fall asleep, too, and must be woken.
		 */
		if (i % 512 == 0)
			sched_yield();
		s->n = n + 1;
		lock_put(&s->lock);
	}
	return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
	static struct shared s;
	pthread_t thread[THREADS];

	(void)state;
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, count, &s), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	assert_int_equal(s.n, THREADS * TURNS);
	assert_int_equal(atomic_load(&s.lock.state), LOCK_FREE);
}

static void *put_later(void *arg)
{
	struct shared *s = arg;

	while (atomic_load(&s->lock.state) != LOCK_AWAITED) /* the other sleeps, or is about to */
		sched_yield();
	s->n = 1;
	lock_put(&s->lock);
	return NULL;
}

static void who_sleeps_is_woken(void **state)
{
	static struct shared s;
	pthread_t thread;

	(void)state;
	lock_get(&s.lock);
	assert_int_equal(pthread_create(&thread, NULL, put_later, &s), 0);
	lock_get(&s.lock); /* held by this thread itself, given back by the other */
	assert_int_equal(s.n, 1);
	lock_put(&s.lock);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(atomic_load(&s.lock.state), LOCK_FREE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost_between_threads),
		cmocka_unit_test(who_sleeps_is_woken),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
