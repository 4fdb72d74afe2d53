/* The arithmetic: calendar windows, clocks that step, rounding. The published tables are in
 * test/vectors. */
#include "limit/algorithm.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#define S USEC_PER_SEC

static usec_t date(const char *iso)
{
	struct tm tm = { 0 };
	int y, m, d, h = 0, min = 0, s = 0;
	sscanf(iso, "%d-%d-%dT%d:%d:%d", &y, &m, &d, &h, &min, &s);
	tm.tm_year = y - 1900;
	tm.tm_mon = m - 1;
	tm.tm_mday = d;
	tm.tm_hour = h;
	tm.tm_min = min;
	tm.tm_sec = s;
	return (usec_t)timegm(&tm) * S;
}

static void test_windows(void **state)
{
	static const struct window minute = { WINDOW_LENGTH, 60 * S },
				   day = { WINDOW_LENGTH, USEC_PER_DAY },
				   ten = { WINDOW_LENGTH, 10 * S },
				   week = { WINDOW_WEEK, 7 * USEC_PER_DAY },
				   month = { WINDOW_MONTH, 30 * USEC_PER_DAY },
				   from_first = { WINDOW_FROM_FIRST, USEC_PER_DAY };
	static const struct {
		const char *what;
		const struct window *w;
		const char *at, *start, *end;
	} rows[] = {
		{ "a minute", &minute, "2026-11-21T01:02:03", "2026-11-21T01:02:00",
			"2026-11-21T01:03:00" },
		{ "a window holds its start", &minute, "2026-11-21T01:02:00", "2026-11-21T01:02:00",
			"2026-11-21T01:03:00" },
		{ "ten seconds since the epoch", &ten, "2026-11-21T01:02:39", "2026-11-21T01:02:30",
			"2026-11-21T01:02:40" },
		{ "a day", &day, "2026-11-21T23:59:59", "2026-11-21", "2026-11-22" },
		{ "a week starts on Monday", &week, "2026-11-21", "2026-11-16", "2026-11-23" },
		{ "Monday is in its own week", &week, "2026-11-16", "2026-11-16", "2026-11-23" },
		{ "Sunday is in the week before", &week, "2026-11-15T23:59:59", "2026-11-09",
			"2026-11-16" },
		{ "the epoch's week began in 1969", &week, "1970-01-01", "1969-12-29",
			"1970-01-05" },
		{ "a month of 30 days", &month, "2026-11-21", "2026-11-01", "2026-12-01" },
		{ "a month at the end of a year", &month, "2026-12-31T23:59:59", "2026-12-01",
			"2027-01-01" },
		{ "February", &month, "2026-02-28T12:00:00", "2026-02-01", "2026-03-01" },
		{ "February of a leap year", &month, "2028-02-29", "2028-02-01", "2028-03-01" },
		{ "2000 was a leap year", &month, "2000-02-29", "2000-02-01", "2000-03-01" },
		{ "2100 is none", &month, "2100-02-28", "2100-02-01", "2100-03-01" },
		{ "before the epoch", &month, "1969-07-20", "1969-07-01", "1969-08-01" },
		{ "one that begins now", &from_first, "2026-11-21", "2026-11-21", "2026-11-22" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		usec_t start, end;
		window_bounds(rows[i].w, date(rows[i].at), &start, &end);
		if (start != date(rows[i].start) || end != date(rows[i].end))
			fail_msg("%s: [%lld, %lld)", rows[i].what, (long long)(start / S),
				(long long)(end / S));
	}
}

/* Every day of four centuries: months follow each other without gap, and agree with the C library.
 */
static void test_every_day_is_in_its_month(void **state)
{
	static const struct window month = { WINDOW_MONTH, 30 * USEC_PER_DAY };
	usec_t last_end = 0;

	(void)state;
	for (int64_t day = -11000; day < 146097; day++) {
		time_t t = (time_t)(day * 86400);
		struct tm tm;
		usec_t start, end;
		gmtime_r(&t, &tm);
		window_bounds(&month, day * USEC_PER_DAY, &start, &end);
		assert_int_equal(start, (day - tm.tm_mday + 1) * USEC_PER_DAY);
		if (tm.tm_mday == 1 && last_end)
			assert_int_equal(start, last_end);
		last_end = end;
	}
}

static const struct quota minute_10 = { ALGORITHM_FIXED_WINDOW, { WINDOW_LENGTH, 60 * S }, 10, 10 };
static const struct quota slide_10 = { ALGORITHM_SLIDING_WINDOW, { WINDOW_LENGTH, 60 * S }, 10,
	10 };
static const struct quota bucket_10 = { ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, 60 * S }, 10, 10 };

static void test_a_window_of_the_future_is_now(void **state)
{
	struct bucket b = { .current = 10, .at = 600 * S };
	struct now now = { .utc = 300 * S + 1 };
	struct bucket was = bucket_read(&minute_10, &b, now);

	(void)state;
	assert_int_equal(was.current, 10);
	assert_int_equal(was.at, 300 * S);
	assert_false(bucket_admits(&minute_10, &was, 1, now));
	assert_int_equal(bucket_retry_after(&minute_10, &was, 1, now), 60 * S - 1);
}

/* At its limit in the minute from 6000; then UTC went back, to 310. */
static void test_a_window_of_the_future_is_of_the_anchor(void **state)
{
	static const struct {
		const char *what;
		usec_t now, age;
		uint32_t left;
	} rows[] = {
		{ "at once", 310, 0, 0 },
		{ "in the anchor's window", 359, 49, 0 },
		{ "that is over", 360, 50, 10 },
		{ "ten minutes later, still", 910, 600, 10 },
		{ "who keeps it has stored it by then", 911, 601, 0 },
	};
	const struct bucket fixed = { .current = 10, .at = 6000 * S };

	(void)state;
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct now now = { .utc = rows[i].now * S, .anchor_age = rows[i].age * S };
		struct bucket was = bucket_read(&minute_10, &fixed, now);
		if (bucket_left(&minute_10, &was, now) != rows[i].left ||
			was.at != rows[i].now / 60 * 60 * S)
			fail_msg("%s: %u used from %lld", rows[i].what, was.current,
				(long long)was.at);
	}
	/* A clock that was read a moment apart is no other clock. */
	struct now apart = { .utc = 6000 * S - BUCKET_AHEAD_MAX, .anchor_age = 50 * S };
	assert_int_equal(bucket_read(&minute_10, &fixed, apart).at, 6000 * S);
}

static void test_an_instant_within_is_of_its_window(void **state)
{
	struct quota sliding = minute_10;
	struct bucket b = { .current = 10, .previous = 4, .at = 615 * S + BUCKET_WITHIN };
	struct bucket was = bucket_read(&minute_10, &b, (struct now){ .utc = 659 * S });

	(void)state;
	assert_int_equal(bucket_instant(&b), 615 * S);
	assert_int_equal(was.current, 10);
	assert_int_equal(was.at, 600 * S);
	was = bucket_read(&minute_10, &b, (struct now){ .utc = 660 * S });
	assert_int_equal(was.current, 0);
	sliding.algorithm = ALGORITHM_SLIDING_WINDOW;
	was = bucket_read(&sliding, &b, (struct now){ .utc = 615 * S });
	assert_int_equal(was.previous, 4);
	was = bucket_read(&sliding, &b, (struct now){ .utc = 719 * S });
	assert_int_equal(was.previous, 10);
	assert_int_equal(was.at, 660 * S);
	/* The clock went back once more. */
	was = bucket_read(&sliding, &b, (struct now){ .utc = 130 * S, .anchor_age = 20 * S });
	assert_int_equal(was.previous, 10);
	assert_int_equal(was.at, 120 * S);
	b.at = -1 + BUCKET_WITHIN; /* a clock not yet set */
	was = bucket_read(&minute_10, &b, (struct now){ .utc = -1 });
	assert_int_equal(was.at, -60 * S);
	assert_int_equal(was.current, 10);
}

static void test_a_held_clock_keeps_the_window_shut(void **state)
{
	/* Used up in the minute from 600; then UTC went back by 45 s, from 610 to 565. */
	struct bucket b = { .current = 10, .at = 600 * S };
	struct now now = { .utc = 565 * S, .held = 45 * S };
	struct bucket was = bucket_read(&minute_10, &b, now);

	(void)state;
	assert_int_equal(was.at, 600 * S);
	assert_false(bucket_admits(&minute_10, &was, 1, now));
	/* the truth for the client, who waits by UTC */
	assert_int_equal(bucket_retry_after(&minute_10, &was, 1, now), 95 * S);
}

/* Two clocks that are read a moment apart: the later one's window has begun for the other, too, and
 * what the one before weighs in it is all that it held, never more. */
static void test_a_moment_before_its_window_all_of_the_last_one_weighs(void **state)
{
	static const struct quota q = { ALGORITHM_SLIDING_WINDOW, { WINDOW_LENGTH, S }, 12, 12 };
	struct bucket b = { .previous = 6, .at = 600 * S };
	struct now now = { .utc = 600 * S - S / 2 };
	struct bucket was = bucket_read(&q, &b, now);

	(void)state;
	assert_int_equal(was.at, 600 * S);
	assert_true(bucket_left(&q, &was, now) == 6);
	assert_true(bucket_admits(&q, &was, 6, now));
}

static void test_a_window_from_its_first(void **state)
{
	static const struct quota q = { ALGORITHM_FIXED_WINDOW, { WINDOW_FROM_FIRST, 60 * S }, 10,
		10 };
	static const struct {
		const char *what;
		struct bucket stored;
		usec_t now, held;
		uint32_t current;
		usec_t at, full_after;
	} rows[] = {
		{ "never seen", { .at = 0 }, 630 * S, 0, 0, 630 * S, 0 },
		{ "never seen, in 1970", { .at = 0 }, 30 * S, 0, 0, 30 * S, 0 },
		{ "the moment it began", { .current = 1, .at = 605 * S }, 605 * S, 0, 1, 605 * S,
			60 * S },
		{ "until it is over", { .current = 9, .at = 605 * S }, 665 * S - 1, 0, 9, 605 * S,
			1 },
		{ "over", { .current = 9, .at = 605 * S }, 665 * S, 0, 0, 665 * S, 0 },
		{ "long over", { .current = 9, .at = 605 * S }, 9000 * S + 1, 0, 0, 9000 * S + 1,
			0 },
		{ "nothing of it is left: another is the first", { .at = 605 * S }, 630 * S, 0, 0,
			630 * S, 0 },
		{ "more than there may be now", { .current = 90, .at = 605 * S }, 630 * S, 0, 10,
			605 * S, 35 * S },
		{ "a moment ahead", { .current = 3, .at = 605 * S }, 605 * S - 1000, 0, 3, 605 * S,
			60 * S + 1000 },
		{ "of the future: as long again", { .current = 3, .at = 605 * S }, 300 * S, 0, 3,
			300 * S, 60 * S },
		{ "held", { .current = 3, .at = 605 * S }, 565 * S, 45 * S, 3, 605 * S, 100 * S },
		{ "held, and over", { .current = 3, .at = 605 * S }, 620 * S, 45 * S, 0, 665 * S,
			0 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct now now = { .utc = rows[i].now, .held = rows[i].held };
		struct bucket b = bucket_read(&q, &rows[i].stored, now);
		usec_t full_after = bucket_full_after(&q, &b, now);
		if (b.current != rows[i].current || b.at != rows[i].at || b.previous ||
			full_after != rows[i].full_after)
			fail_msg("%s: %u at %lld, full after %lld", rows[i].what, b.current,
				(long long)b.at, (long long)full_after);
	}
}

static void test_tokens_of_the_future_are_now(void **state)
{
	struct bucket b = { .used = 4, .at = 600 * S };
	struct now now = { .steady = 10 * S };
	struct bucket was = bucket_read(&bucket_10, &b, now);

	(void)state;
	assert_true(was.used == 4);
	assert_int_equal(was.at, 10 * S);
}

static void test_a_lower_capacity_is_the_most_that_is_owed(void **state)
{
	struct quota low = bucket_10;
	struct bucket b = { .used = 10, .at = 0 };
	struct now now = { 0 };
	struct bucket was = bucket_read(&low, &b, now);

	(void)state;
	low.units = low.capacity = 3;
	was = bucket_read(&low, &b, now);
	assert_true(was.used == 3);
	low = slide_10;
	low.units = low.capacity = 3;
	b = (struct bucket){ .current = 9, .previous = 8, .at = 0 };
	was = bucket_read(&low, &b, now);
	assert_int_equal(was.current, 3);
	assert_int_equal(was.previous, 3);
}

static void test_counting_denied_ends_at_exactly_nothing(void **state)
{
	struct bucket b = { .used = 9.75 };
	(void)state;
	assert_true(bucket_charge_denied(&bucket_10, &b, 1));
	assert_true(b.used == 10);
	assert_false(bucket_charge_denied(&bucket_10, &b, 1));
	b = (struct bucket){ .current = 8, .previous = 10 };
	assert_true(bucket_charge_denied(&slide_10, &b, 5));
	assert_int_equal(b.current, 10);
	assert_false(bucket_charge_denied(&slide_10, &b, 5));
}

/* What is remembered by a quota holds for no other. */
static void test_quotas_are_equal_in_all(void **state)
{
	static const struct {
		const char *what;
		struct quota q;
		bool equal;
	} rows[] = {
		{ "the same", { ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, 60 * S }, 10, 10 }, true },
		{ "more at once", { ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, 60 * S }, 10, 20 },
			false },
		{ "faster", { ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, 60 * S }, 20, 10 }, false },
		{ "in less time", { ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, 30 * S }, 10, 10 },
			false },
		{ "of another kind of window",
			{ ALGORITHM_TOKEN_BUCKET, { WINDOW_FROM_FIRST, 60 * S }, 10, 10 }, false },
		{ "of another algorithm",
			{ ALGORITHM_FIXED_WINDOW, { WINDOW_LENGTH, 60 * S }, 10, 10 }, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (quota_eq(&bucket_10, &rows[i].q) != rows[i].equal)
			fail_msg("%s", rows[i].what);
}

/* For random quotas and states: after retry_after it passes, and a millionth of a unit earlier it
 * does not. */
static void test_waiting_is_enough_and_needed(void **state)
{
	static const usec_t windows[] = { S, 60 * S, 3600 * S, USEC_PER_DAY, 366 * USEC_PER_DAY,
		1500000 };
	uint64_t seed = 88172645463325252ull;

	(void)state;
	for (int i = 0; i < 300000; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		struct quota q = { (enum algorithm)(seed % 3),
			{ WINDOW_LENGTH, windows[seed / 3 % 6] }, 0, 0 };
		q.units = 1 + (int64_t)(seed >> 8) % (seed & 64 ? 20 : 1000000000);
		q.capacity = q.algorithm == ALGORITHM_TOKEN_BUCKET
				     ? 1 + (int64_t)(seed >> 20) % (seed & 128 ? 20 : 1000000000)
				     : q.units;
		if (q.algorithm == ALGORITHM_FIXED_WINDOW && seed & 256)
			q.window.kind = WINDOW_FROM_FIRST;
		int64_t cost = 1 + (int64_t)(seed >> 30) % q.capacity;
		struct now at = { .steady = 1000 * USEC_PER_DAY + (usec_t)(seed % 1000000007) };
		at.utc = at.steady;
		struct bucket b = { .at = at.steady };
		if (q.algorithm == ALGORITHM_TOKEN_BUCKET) {
			b.used = (double)q.capacity * ((double)(seed >> 11 & 0xffff) / 65535.0);
		} else {
			usec_t end;
			b.current = (uint32_t)((int64_t)(seed >> 13) % (q.units + 1));
			b.previous = (uint32_t)((int64_t)(seed >> 17) % (q.units + 1));
			window_bounds(&q.window, at.utc, &b.at, &end);
		}
		struct bucket now = bucket_read(&q, &b, at);
		usec_t wait = bucket_retry_after(&q, &now, cost, at);
		if ((wait == 0) != bucket_admits(&q, &now, cost, at))
			fail_msg("case %d: waits %lld", i, (long long)wait);
		struct now later = { .steady = at.steady + wait, .utc = at.utc + wait };
		struct bucket then = bucket_read(&q, &now, later);
		if (wait < 1000 * 366 * USEC_PER_DAY && !bucket_admits(&q, &then, cost, later))
			fail_msg("case %d: waiting %lld us is not enough", i, (long long)wait);
		if (wait > 1) {
			struct now early = { .steady = later.steady - 1, .utc = later.utc - 1 };
			struct bucket soon = bucket_read(&q, &now, early);
			double used = bucket_used(&q, &soon, early);
			if (bucket_admits(&q, &soon, cost, early) &&
				used + (double)cost > (double)q.capacity + 1e-6)
				fail_msg("case %d: more than a millionth early", i);
		}
		usec_t reset = bucket_full_after(&q, &now, at);
		struct now at_last = { .steady = at.steady + reset, .utc = at.utc + reset };
		struct bucket full = bucket_read(&q, &now, at_last);
		if (reset < 1000 * 366 * USEC_PER_DAY && bucket_used(&q, &full, at_last) > 1e-6)
			fail_msg("case %d: not full after %lld us", i, (long long)reset);
	}
}

/* bucket_take() against the four functions that it stands for: the same bits. */
static void test_a_take_is_its_parts(void **state)
{
	(void)state;
	srand(4);
	for (int i = 0; i < 200000; i++) {
		static const int64_t some[] = { 0, 1, 3, 7, 100, 1000000000 };
		struct quota q = {
			.algorithm = (enum algorithm)(rand() % 3),
			.window = { WINDOW_LENGTH, (1 + rand() % 90000) * S },
			.units = some[rand() % 6],
		};
		q.capacity = q.units;
		if (q.algorithm == ALGORITHM_TOKEN_BUCKET)
			q.capacity += rand() % 20;
		if (q.algorithm == ALGORITHM_FIXED_WINDOW && rand() % 2)
			q.window.kind = WINDOW_FROM_FIRST;
		struct now now = { .steady = date("2026-11-21") + rand(),
			.utc = date("2026-11-21") + rand(),
			.held = rand() % 2 * (rand() % S) };
		struct bucket stored = { .at = now.utc - rand() % 4 * (rand() % 100000) * S };
		if (q.algorithm == ALGORITHM_TOKEN_BUCKET)
			stored.used = rand() % 3 ? (double)q.capacity * rand() / RAND_MAX * 1.1 : 0;
		else
			stored = (struct bucket){ .current = (uint32_t)(rand() % 9),
				.previous = (uint32_t)(rand() % 9),
				.at = stored.at };
		int64_t cost = rand() % 4;

		struct bucket want = bucket_read(&q, &stored, now), got;
		bool admits = bucket_admits(&q, &want, cost ? cost : 1, now);
		double left = -1;
		assert_int_equal(bucket_take(&q, &stored, cost, now, &got, &left), admits);
		if (!admits)
			continue;
		if (cost)
			bucket_charge(&q, &want, cost);
		assert_memory_equal(&got, &want, sizeof got);
		assert_true(left == bucket_left(&q, &want, now));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_windows),
		cmocka_unit_test(test_every_day_is_in_its_month),
		cmocka_unit_test(test_a_window_of_the_future_is_now),
		cmocka_unit_test(test_a_window_of_the_future_is_of_the_anchor),
		cmocka_unit_test(test_an_instant_within_is_of_its_window),
		cmocka_unit_test(test_a_held_clock_keeps_the_window_shut),
		cmocka_unit_test(test_a_moment_before_its_window_all_of_the_last_one_weighs),
		cmocka_unit_test(test_a_window_from_its_first),
		cmocka_unit_test(test_tokens_of_the_future_are_now),
		cmocka_unit_test(test_a_lower_capacity_is_the_most_that_is_owed),
		cmocka_unit_test(test_counting_denied_ends_at_exactly_nothing),
		cmocka_unit_test(test_quotas_are_equal_in_all),
		cmocka_unit_test(test_waiting_is_enough_and_needed),
		cmocka_unit_test(test_a_take_is_its_parts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
