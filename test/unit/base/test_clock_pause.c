/* The process' clock, where the process stands still between the reads of its two clocks. */
#include <time.h>

static int paused_gettime(clockid_t id, struct timespec *t);

#define clock_gettime paused_gettime
#include "base/clock.c" /* NOLINT(bugprone-suspicious-include) */
#undef clock_gettime

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static time_t clock_s = 1000, stepped_s;
static clockid_t pause_before = -1;
static time_t pause_s;

static int paused_gettime(clockid_t id, struct timespec *t)
{
	if (id == pause_before) {
		clock_s += pause_s;
		pause_before = -1;
	}
	*t = (struct timespec){ .tv_sec = clock_s + (id == CLOCK_REALTIME ? stepped_s : 0) };
	return 0;
}

static void a_pause_between_the_reads_is_no_step(void **state)
{
	(void)state;
	(void)clock_read();
	pause_before = CLOCK_REALTIME;
	pause_s = 30;

	for (int i = 0; i < 2; i++) {
		struct now now = clock_read();
		assert_int_equal(now.utc, clock_s * USEC_PER_SEC);
		assert_int_equal(now.steady, clock_s * USEC_PER_SEC);
		assert_int_equal(now.held, 0);
	}
}

static void a_step_forward_is_followed_at_once(void **state)
{
	(void)state;
	(void)clock_read();
	stepped_s += 3600;
	struct now now = clock_read();

	assert_int_equal(now.utc - now.steady, 3600 * USEC_PER_SEC);
	assert_int_equal(now.held, 0);
}

static void a_step_back_is_waited_for(void **state)
{
	(void)state;
	(void)clock_read();
	stepped_s -= 20;

	assert_int_equal(clock_read().held, 20 * USEC_PER_SEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pause_between_the_reads_is_no_step),
		cmocka_unit_test(a_step_forward_is_followed_at_once),
		cmocka_unit_test(a_step_back_is_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
