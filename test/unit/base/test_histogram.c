#include "base/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void buckets(void **state)
{
	(void)state;
	static const struct {
		usec_t took;
		uint64_t bound; /* of the bucket that it falls into; 0: the last */
	} row[] = {
		{ -5, 1 },
		{ 0, 1 },
		{ 1, 1 },
		{ 2, 2 },
		{ 3, 3 },
		{ 4, 4 },
		{ 5, 6 },
		{ 6, 6 },
		{ 7, 8 },
		{ 9, 12 },
		{ 1000, 1024 },
		{ 1025, 1536 },
		{ 16777216, 16777216 },
		{ 16777217, 0 },
		{ INT64_MAX, 0 },
	};
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		unsigned b = histogram_bucket(row[i].took);
		assert_int_equal(b < HISTOGRAM_BOUNDS ? histogram_bound(b) : 0, row[i].bound);
	}
}

static void bounds_grow_and_hold_what_is_put_there(void **state)
{
	(void)state;
	for (unsigned i = 1; i < HISTOGRAM_BOUNDS; i++) {
		assert_true(histogram_bound(i) > histogram_bound(i - 1));
		assert_int_equal(histogram_bucket((usec_t)histogram_bound(i)), i);
		assert_int_equal(histogram_bucket((usec_t)histogram_bound(i - 1) + 1), i);
	}
}

static void sums(void **state)
{
	(void)state;
	struct histogram a = { 0 }, b = { 0 };
	struct histogram_sum sum = { 0 };
	histogram_add(&a, 10, 3);
	histogram_add(&a, -1, 2);
	histogram_add(&b, 12, 1);
	histogram_read(&sum, &a);
	histogram_read(&sum, &b);
	assert_int_equal(sum.sum, 42);
	assert_int_equal(sum.count[histogram_bucket(10)], 4);
	assert_int_equal(sum.count[0], 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buckets),
		cmocka_unit_test(bounds_grow_and_hold_what_is_put_there),
		cmocka_unit_test(sums),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
