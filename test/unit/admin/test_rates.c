#include "admin/rates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void nothing_is_known_at_first(void **state)
{
	(void)state;
	struct rates r = { 0 };
	assert_int_equal(rates_of(&r, 60).seconds, 0);
	rates_add(&r, 5, 5);
	assert_int_equal(rates_of(&r, 1).seconds, 0);
	assert_int_equal(rates_of(&r, 1).allowed, 0);
}

static void a_second_and_a_minute(void **state)
{
	(void)state;
	struct rates r = { 0 };
	for (unsigned i = 0; i <= 200; i++) {
		rates_add(&r, 3 * i, i);
		struct rates_over second = rates_of(&r, 1), minute = rates_of(&r, 60);
		unsigned known = i < 60 ? i : 60;
		assert_int_equal(minute.seconds, known);
		assert_int_equal(minute.allowed, 3 * known);
		assert_int_equal(minute.denied, known);
		assert_int_equal(second.denied, i ? 1 : 0);
		if (i)
			assert_true(minute.denial_rate == 0.25);
	}
	rates_add(&r, 600, 200);
	assert_true(rates_of(&r, 1).denial_rate == 0.); /* nothing was decided */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_known_at_first),
		cmocka_unit_test(a_second_and_a_minute),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
