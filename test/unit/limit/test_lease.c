/* What blocks do to a counter: granted, reported, given back, forgotten; and what a token bucket
 * refills meanwhile. */
#include "limit/lease.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define SEC  USEC_PER_SEC
#define ZERO (1000 * LEASE_LIFE) /* a turn begins */

/* One unit a second, or none that comes back within a window of an hour. */
static const struct quota tokens = { ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, 100 * SEC }, 100,
	100 };
static const struct quota fixed = { ALGORITHM_FIXED_WINDOW, { WINDOW_LENGTH, 3600 * SEC }, 100,
	100 };
static const struct quota sliding = { ALGORITHM_SLIDING_WINDOW, { WINDOW_LENGTH, 3600 * SEC }, 100,
	100 };

static struct now at(usec_t t)
{
	return (struct now){ .steady = ZERO + t, .utc = ZERO + t };
}

static struct leased bucket_of(double used, uint32_t fresh, uint32_t stale)
{
	return (struct leased){ { .used = used, .at = ZERO }, fresh, stale };
}

static void test_what_is_granted(void **state)
{
	(void)state;
	static const struct {
		const char *title;
		double used;
		uint32_t fresh, stale, want, granted;
	} row[] = {
		{ "as much as is wanted", 0, 0, 0, 10, 10 },
		{ "at most a quarter of what is left", 0, 0, 0, 50, 25 },
		{ "less the nearer the limit", 60, 0, 0, 50, 10 },
		{ "a part of a unit is none", 61, 0, 0, 50, 9 },
		{ "two are the least", 92, 0, 0, 50, 2 },
		{ "and one is not worth it", 93, 0, 0, 50, 0 },
		{ "nor is it if no more is wanted", 0, 0, 0, 1, 0 },
		{ "nothing is wanted", 0, 0, 0, 0, 0 },
		{ "nothing is left", 100, 0, 0, 50, 0 },
		{ "at most half is out, of this turn", 45, 45, 0, 50, 5 },
		{ "and of the one before", 45, 20, 25, 50, 5 },
		{ "and no more than that", 50, 25, 25, 50, 0 },
	};
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		struct leased stored = bucket_of(row[i].used, row[i].fresh, row[i].stale), after;
		struct lease_ask ask = { .want = row[i].want };
		uint32_t granted = lease_apply(&tokens, &stored, &ask, at(0), &after);
		if (granted != row[i].granted || after.bucket.used != row[i].used + granted ||
			after.fresh != row[i].fresh + granted || after.stale != row[i].stale)
			fail_msg("%s: %u", row[i].title, granted);
	}
}

static void test_a_window_grants_what_is_left_of_it(void **state)
{
	(void)state;
	struct leased stored = { .bucket = { .current = 60, .previous = 40, .at = ZERO } }, after;
	struct lease_ask ask = { .want = 50 };

	stored.bucket.at = ZERO / (3600 * SEC) * (3600 * SEC);
	struct now now = { .steady = 0, .utc = stored.bucket.at + 1800 * SEC };
	assert_int_equal(lease_apply(&fixed, &stored, &ask, now, &after), 10);
	assert_int_equal(after.bucket.current, 70);
	/* Half of the previous one still counts. */
	assert_int_equal(lease_apply(&sliding, &stored, &ask, now, &after), 5);
	assert_int_equal(after.bucket.current, 65);
	assert_int_equal(after.fresh | after.stale, 0);
}

static void test_what_refills_while_blocks_are_out(void **state)
{
	(void)state;
	static const struct {
		const char *title;
		double used;
		uint32_t fresh, stale;
		usec_t after;
		double used_then;
		uint32_t fresh_then, stale_then;
	} row[] = {
		{ "nothing is out: all", 10, 0, 0, 20 * SEC, 0, 0, 0 },
		{ "down to what is out", 11, 10, 0, 3 * SEC / 2, 10, 10, 0 },
		{ "far above it, as ever", 50, 10, 0, 3 * SEC / 2, 48.5, 10, 0 },
		{ "of the turn before, until this one ends", 10, 0, 10, 2 * SEC - 1, 10, 0, 10 },
		{ "and from then on it does", 10, 0, 10, 3 * SEC, 9, 0, 0 },
		{ "of this turn, also in the next", 10, 10, 0, 3 * SEC, 10, 0, 10 },
		{ "until that ends", 10, 10, 0, 5 * SEC, 9, 0, 0 },
		{ "both: one after the other", 20, 10, 10, 3 * SEC, 19, 0, 10 },
		{ "long after, all", 20, 10, 10, 100 * SEC, 0, 0, 0 },
		{ "a clock set back: all are of this turn", 20, 10, 10, -3 * SEC, 20, 20, 0 },
	};
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		struct leased stored = bucket_of(row[i].used, row[i].fresh, row[i].stale);
		struct leased l = lease_read(&tokens, &stored, at(row[i].after));
		struct bucket b = bucket_read(&tokens, &l.bucket, at(row[i].after));
		if (b.used < row[i].used_then - 1e-5 || b.used > row[i].used_then + 1e-5 ||
			l.fresh != row[i].fresh_then || l.stale != row[i].stale_then)
			fail_msg("%s: used %g, out %u and %u", row[i].title, b.used, l.fresh,
				l.stale);
		/* To read it once more changes nothing. */
		struct leased again = lease_read(&tokens, &l, at(row[i].after));
		assert_memory_equal(&again, &l, sizeof l);
	}
}

static void test_what_is_heard_of_a_block(void **state)
{
	(void)state;
	const int64_t turn = ZERO / LEASE_LIFE;
	static const struct {
		const char *title;
		int mark; /* less this turn */
		uint32_t done, back;
		double used;
		uint32_t fresh, stale;
	} row[] = {
		{ "all was spent", 0, 10, 0, 50, 10, 15 },
		{ "some comes back", 0, 10, 4, 46, 10, 15 },
		{ "a part was spent", 0, 3, 0, 50, 17, 15 },
		{ "of the turn before", -1, 15, 15, 35, 20, 0 },
		{ "of one that is over", -2, 10, 10, 50, 20, 15 },
		{ "of one that has not begun", 1, 10, 10, 50, 20, 15 },
		{ "more than is out", 0, 21, 21, 50, 20, 15 },
		{ "nothing", 0, 0, 7, 50, 20, 15 },
	};
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		struct leased stored = bucket_of(50, 20, 15), after;
		struct lease_ask ask = {
			.done = row[i].done, .back = row[i].back, .mark = turn + row[i].mark
		};
		(void)lease_apply(&tokens, &stored, &ask, at(0), &after);
		if (after.bucket.used != row[i].used || after.fresh != row[i].fresh ||
			after.stale != row[i].stale)
			fail_msg("%s: used %g, out %u and %u", row[i].title, after.bucket.used,
				after.fresh, after.stale);
	}
}

static void test_units_of_a_window_come_back_only_to_it(void **state)
{
	(void)state;
	usec_t start = ZERO / (3600 * SEC) * (3600 * SEC);
	struct now now = { .utc = start + SEC };
	struct leased stored = { .bucket = { .current = 60, .at = start } }, after;
	struct lease_ask ask = { .done = 10, .back = 4, .mark = start };

	assert_int_equal(lease_mark(&fixed, &stored, now), start);
	(void)lease_apply(&fixed, &stored, &ask, now, &after);
	assert_int_equal(after.bucket.current, 56);
	ask.mark = start - 3600 * SEC;
	(void)lease_apply(&fixed, &stored, &ask, now, &after);
	assert_int_equal(after.bucket.current, 60);
	/* And never more than is there. */
	ask = (struct lease_ask){ .done = 100, .back = 100, .mark = start };
	(void)lease_apply(&fixed, &stored, &ask, now, &after);
	assert_int_equal(after.bucket.current, 0);
}

static void test_how_long_a_block_lives(void **state)
{
	(void)state;
	usec_t start = ZERO / (3600 * SEC) * (3600 * SEC);
	struct leased l = { .bucket = { .at = start } };
	struct now early = { .utc = start }, late = { .utc = start + 3600 * SEC - SEC };
	struct now last = { .utc = start + 3600 * SEC - 1 };

	assert_true(lease_life(&tokens, &l, early) < LEASE_LIFE);
	assert_true(lease_life(&fixed, &l, early) < LEASE_LIFE);
	assert_true(lease_life(&fixed, &l, late) < SEC && lease_life(&fixed, &l, late) > SEC / 2);
	assert_true(lease_life(&fixed, &l, last) <= 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_granted),
		cmocka_unit_test(test_a_window_grants_what_is_left_of_it),
		cmocka_unit_test(test_what_refills_while_blocks_are_out),
		cmocka_unit_test(test_what_is_heard_of_a_block),
		cmocka_unit_test(test_units_of_a_window_come_back_only_to_it),
		cmocka_unit_test(test_how_long_a_block_lives),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
