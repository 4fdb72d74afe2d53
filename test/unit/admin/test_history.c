#include "admin/history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void the_first_call_is_where_it_begins(void **state)
{
	(void)state;
	struct history h = { 0 };
	history_add(&h, &(struct history_sums){ .allowed = 1000 });
	assert_int_equal(h.n, 0);
	assert_int_equal(history_first(&h, 0), 0);
	history_add(&h, &(struct history_sums){ .allowed = 1007, .denied = 2, .shadow = 1 });
	assert_int_equal(h.n, 1);
	assert_int_equal(history_at(&h, 0)->allowed, 7);
	assert_int_equal(history_at(&h, 0)->denied, 2);
	assert_int_equal(history_at(&h, 0)->shadow, 1);
}

static void the_last_minutes_are_kept(void **state)
{
	(void)state;
	struct history h = { 0 };
	uint64_t sum = 0;
	history_add(&h, &(struct history_sums){ 0 });
	for (uint64_t i = 0; i < 3 * HISTORY_SECONDS; i++) {
		sum += i; /* so second number i has i */
		history_add(&h, &(struct history_sums){ .allowed = sum });
		uint64_t kept = i + 1 < HISTORY_SECONDS ? 0 : i + 1 - HISTORY_SECONDS;
		assert_int_equal(history_first(&h, 0), kept);
		assert_int_equal(history_first(&h, i), i);
		assert_int_equal(history_first(&h, i + 1), i + 1); /* nothing new */
		assert_int_equal(history_first(&h, i + 2), kept);  /* of an earlier run */
		for (uint64_t k = kept; k <= i; k++)
			assert_int_equal(history_at(&h, k)->allowed, k);
	}
}

static void latency_is_of_that_second(void **state)
{
	(void)state;
	struct history h = { 0 };
	struct history_sums sums = { 0 };
	sums.time.count[histogram_bucket(1000)] = 5000; /* before it began */
	history_add(&h, &sums);
	sums.time.count[histogram_bucket(3)] += 98;
	sums.time.count[histogram_bucket(64)] += 2;
	history_add(&h, &sums);
	assert_int_equal(history_at(&h, 0)->timed, 100);
	assert_int_equal(history_at(&h, 0)->p50, 3);
	assert_int_equal(history_at(&h, 0)->p99, 64);
	history_add(&h, &sums);
	assert_int_equal(history_at(&h, 1)->timed, 0);
	assert_int_equal(history_at(&h, 1)->p99, 0);
	sums.time.count[HISTOGRAM_BOUNDS] += 1; /* beyond all bounds */
	history_add(&h, &sums);
	assert_int_equal(history_at(&h, 2)->p50, histogram_bound(HISTOGRAM_BOUNDS - 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_call_is_where_it_begins),
		cmocka_unit_test(the_last_minutes_are_kept),
		cmocka_unit_test(latency_is_of_that_second),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
