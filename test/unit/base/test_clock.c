#include "base/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void steady_never_steps_back(void **state)
{
	(void)state;
	usec_t before = clock_read().steady;

	for (int i = 0; i < 100000; i++) {
		usec_t now = clock_read().steady;
		assert_true(now >= before);
		before = now;
	}
}

static void steady_reads_like_utc(void **state)
{
	(void)state;
	struct now now = clock_read();
	usec_t apart = now.utc - now.steady;

	assert_true(now.utc > 0 && now.steady > 0);
	/* Unless someone sets the clock during the test, they agree; a day covers even that. */
	assert_true(apart < USEC_PER_DAY && apart > -USEC_PER_DAY);
}

static void cpu_time_grows_with_work(void **state)
{
	(void)state;
	usec_t before = clock_thread_cpu();
	volatile unsigned work = 0;

	while (clock_thread_cpu() == before)
		work++;
	(void)work;
	assert_true(clock_thread_cpu() > before);
}

/* All see the same zero: what one thread read before is not after what another reads later. */
static void *read_later(void *before)
{
	return clock_read().steady >= *(usec_t *)before ? before : NULL;
}

static void threads_share_one_zero(void **state)
{
	(void)state;
	pthread_t thread[8];
	usec_t before = clock_read().steady;

	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, read_later, &before), 0);
	for (int i = 0; i < 8; i++) {
		void *good;
		assert_int_equal(pthread_join(thread[i], &good), 0);
		assert_non_null(good);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_share_one_zero),
		cmocka_unit_test(steady_never_steps_back),
		cmocka_unit_test(steady_reads_like_utc),
		cmocka_unit_test(cpu_time_grows_with_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
