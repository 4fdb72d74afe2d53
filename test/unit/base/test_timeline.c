/* What windows follow when the wall clock is set. */
#include "base/timeline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define S USEC_PER_SEC

struct step {
	usec_t steady, utc; /* as read; seconds */
	usec_t windows;     /* where windows are read then; seconds */
};

static void follow(const struct step *step, size_t n)
{
	struct timeline t = timeline_start(step[0].steady * S, step[0].utc * S);
	usec_t anchor = 0;
	for (size_t i = 0; i < n; i++) {
		struct now now = timeline_follow(&t, step[i].steady * S, step[i].utc * S);
		assert_int_equal(now.steady, step[i].steady * S);
		assert_int_equal(now.utc, step[i].utc * S);
		assert_true(now.held >= 0 && now.held <= TIMELINE_STEP_MAX);
		if ((now.utc + now.held) / S != step[i].windows)
			fail_msg("step %zu: windows are read at %lld", i,
				(long long)((now.utc + now.held) / S));
		/* It is anchored where it goes back. */
		if (i && step[i].windows < step[i - 1].windows)
			anchor = step[i].windows;
		if ((now.utc + now.held - now.anchor_age) / S != anchor)
			fail_msg("step %zu: anchored %lld us ago", i, (long long)now.anchor_age);
	}
}

#define FOLLOW(...) \
	do { \
		static const struct step steps[] = { __VA_ARGS__ }; \
		follow(steps, sizeof steps / sizeof *steps); \
	} while (0)

static void test_an_undisturbed_clock(void **state)
{
	(void)state;
	FOLLOW({ 0, 1000, 1000 }, { 5, 1005, 1005 }, { 3605, 4605, 4605 });
}

static void test_forward_is_followed_at_once(void **state)
{
	(void)state;
	FOLLOW({ 0, 1000, 1000 }, { 1, 9000, 9000 }, { 2, 9001, 9001 });
}

static void test_a_small_step_back_stands_still(void **state)
{
	(void)state;
	FOLLOW({ 0, 1000, 1000 }, { 1, 956, 1000 + 1 }, { 31, 986, 1001 }, { 46, 1001, 1001 },
		{ 50, 1005, 1005 });
	/* a minute exactly */
	FOLLOW({ 0, 1000, 1000 }, { 1, 941, 1001 }, { 60, 1000, 1001 }, { 62, 1002, 1002 });
}

static void test_a_small_step_back_after_long_silence(void **state)
{
	(void)state;
	FOLLOW({ 0, 1000, 1000 }, { 500, 1460, 1500 }, { 541, 1501, 1501 });
}

static void test_a_long_step_back_anchors_anew(void **state)
{
	(void)state;
	FOLLOW({ 0, 1000, 1000 }, { 1, 939, 939 }, { 2, 940, 940 }, { 4000, 4938, 4938 },
		{ 4001, 1000, 1000 });
}

static void test_small_steps_add_up(void **state)
{
	(void)state;
	FOLLOW({ 0, 1000, 1000 }, { 0, 960, 1000 }, { 0, 920, 920 });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_undisturbed_clock),
		cmocka_unit_test(test_forward_is_followed_at_once),
		cmocka_unit_test(test_a_small_step_back_stands_still),
		cmocka_unit_test(test_a_small_step_back_after_long_silence),
		cmocka_unit_test(test_a_long_step_back_anchors_anew),
		cmocka_unit_test(test_small_steps_add_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
