/* Samples stand for all that there was, at every rate and through changes of it; and the interval
 * that is told of the true number holds. */
#include "server/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { LOOK_EVERY = SAMPLER_LOOK_MS * 1000 };

struct run {
	uint64_t n, sum, samples, most;
};

/* One that is looked at in time, as server/top.c does; in microseconds. */
struct timed {
	struct sampler s;
	int64_t now, looked_at;
};

static uint64_t take(struct timed *t, int64_t n)
{
	if (t->now - t->looked_at >= LOOK_EVERY) {
		sampler_look(&t->s, (double)(t->now - t->looked_at) / 1e6, false);
		t->looked_at = t->now;
	}
	return sampler_pass(&t->s, n) ? sampler_turn(&t->s) : 0;
}

/* `n` things, one each `apart` microseconds (0: 64 in each). */
static struct run feed(struct timed *t, uint64_t n, int64_t apart)
{
	struct run r = { .n = n };
	for (uint64_t i = 0; i < n; i++) {
		t->now += apart ? apart : i % 64 == 0;
		uint64_t weight = take(t, 1);
		r.sum += weight;
		r.samples += weight > 0;
		r.most = weight > r.most ? weight : r.most;
	}
	return r;
}

static struct timed begin(uint64_t seed)
{
	struct timed t = { .now = 1 };
	sampler_init(&t.s, seed);
	return t;
}

static void below_the_rate_all_are_taken(void **state)
{
	(void)state;
	struct timed t = begin(1);
	struct run r = feed(&t, 200000, 505); /* 1,980 a second */
	assert_int_equal(r.samples, r.n);
	assert_int_equal(r.sum, r.n);
}

/* So that what people try, and a busy moment, is counted and not estimated. */
static void a_few_more_now_and_then_are_taken_too(void **state)
{
	(void)state;
	struct timed t = begin(3);
	for (unsigned i = 0; i < 10; i++) {
		struct run r = feed(&t, 4000, 60); /* 16,667 a second, for a quarter of one */
		assert_int_equal(r.samples, r.n);
		(void)feed(&t, 10, 250000);
	}
	struct run r = feed(&t, 50000, 60);
	assert_true(r.samples >= SAMPLER_ALL_BURST);
	assert_true(r.samples < SAMPLER_ALL_BURST + 2000 + 4 * SAMPLER_SAMPLES_PER_SECOND);
}

static void above_it_they_stand_for_all(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct timed t = begin(seed);
		struct run r = feed(&t, 10000000, 5); /* 200,000 a second, 50 seconds */
		double off = (double)r.sum / (double)r.n - 1.;
		assert_true(off > -.03 && off < .03); /* five deviations are 2.2 % */
		assert_true(r.samples < 60 * SAMPLER_SAMPLES_PER_SECOND);
		assert_true(r.samples > 40 * SAMPLER_SAMPLES_PER_SECOND);
	}
}

static void rates_that_change(void **state)
{
	(void)state;
	struct timed t = begin(5);
	double sum = 0, n = 0;
	for (unsigned i = 0; i < 300; i++) {
		struct run fast = feed(&t, 100000, 2), slow = feed(&t, 100, 10000);
		sum += (double)(fast.sum + slow.sum);
		n += (double)(fast.n + slow.n);
		/* Within a tenth of a second it is slow again. */
		assert_true(slow.samples > 80);
	}
	assert_true(sum / n > .95 && sum / n < 1.05);
}

static void a_burst_is_not_taken_whole(void **state)
{
	(void)state;
	struct timed t = begin(7);
	(void)feed(&t, 100, 10000);
	struct run r = feed(&t, 1000000, 0); /* 64 a microsecond */
	assert_true(r.samples < 4000);
	assert_true(r.most > 100);
}

/* Some of a million units at once: each unit has the same chance, and what one brings with it in
 * plenty is counted. */
static void things_that_come_many_at_once(void **state)
{
	(void)state;
	static const int64_t many[] = { 1, 7, 1000, 0, 300, 1000000 };
	double sum = 0, n = 0;
	uint64_t samples = 0;
	struct timed t = begin(11);
	for (unsigned i = 0; i < 600000; i++, t.now += 10) {
		int64_t c = many[i % 6];
		uint64_t weight = take(&t, i % 6 == 5 && i % 60 != 5 ? 0 : c);
		if (i % 6 == 5 && i % 60 != 5)
			c = 0;
		assert_true(c > 0 || weight == 0);
		sum += (double)weight;
		n += (double)c;
		samples += weight > 0;
	}
	assert_true(sum / n > .95 && sum / n < 1.05);
	assert_true(samples < 12 * SAMPLER_SAMPLES_PER_SECOND);
	t.s.every = 1;
	t.s.left = t.s.gap = 1;
	assert_true(sampler_pass(&t.s, 1000000000));
	assert_int_equal(sampler_turn(&t.s), 1000000000);
}

/* ---- the interval ---- */

static void ends_of_the_interval(void **state)
{
	(void)state;
	static const struct {
		uint64_t sum, every, least, most;
	} row[] = {
		{ 0, 1, 0, 0 },
		{ 77, 1, 77, 77 },
		{ 1, 1000, 1, 7611 }, /* of what was seen once, there was one */
		{ 0, 100, 0, 761 },   /* e^-7.601 = 1/2000 */
		{ 100, 100, 1, 1100 },
		{ 10000, 100, 6590, 14422 },
		{ 1000000, 100, 961515, 1039498 },
	};
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		assert_int_equal(sampler_at_least(row[i].sum, row[i].every), row[i].least);
		assert_int_equal(sampler_at_most(row[i].sum, row[i].every), row[i].most);
	}
	for (uint64_t every = 2; every < 1u << 20; every *= 3) {
		for (uint64_t sum = 0, d = 1; sum < 1u << 30; sum += d *= 2) {
			uint64_t least = sampler_at_least(sum, every);
			uint64_t most = sampler_at_most(sum, every);
			double x = (double)sum / (double)every;
			double m = ((double)most - 1) / (double)every;
			assert_true(least <= sum && sum < most);
			/* One less at the one end, one more at the other, would be within. */
			assert_true(m - x + (sum ? x * log(x / m) : 0) < 7.601);
			m = ((double)least + 1) / (double)every;
			assert_true(m > x || m - x + (sum ? x * log(x / m) : 0) < 7.601);
		}
	}
}

/* Of many clients in one stream, each with a share of its own, at rates that go up and down: at
 * most one in a thousand is outside its interval. */
static void the_interval_holds(void **state)
{
	(void)state;
	enum { CLIENTS = 200, RUNS = 60 };
	unsigned outside = 0;
	double width = 0;
	for (unsigned run = 0; run < RUNS; run++) {
		static uint64_t truth[CLIENTS], sum[CLIENTS];
		uint64_t every = 1, total = 100000 + 20000 * run, random = run;
		struct timed t = begin(1000 + run);
		for (unsigned i = 0; i < CLIENTS; i++)
			truth[i] = sum[i] = 0;
		for (uint64_t i = 0; i < total; i++) {
			random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
			unsigned a = random >> 33 & 0xff, b = random >> 41 & 0xff;
			unsigned client = (a < b ? a : b) % CLIENTS; /* some have more */
			t.now += 1 + (i / 30000 % 3) * 20;
			every = t.s.every > every ? t.s.every : every;
			truth[client]++;
			sum[client] += take(&t, 1);
			every = t.s.every > every ? t.s.every : every;
		}
		for (unsigned i = 0; i < CLIENTS; i++) {
			uint64_t least = sampler_at_least(sum[i], every);
			uint64_t most = sampler_at_most(sum[i], every);
			outside += truth[i] < least || truth[i] > most;
			width += (double)(most - least) / (double)every;
		}
	}
	assert_true(outside <= CLIENTS * RUNS / 1000);
	assert_true(width / (CLIENTS * RUNS) < 40); /* samples */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(below_the_rate_all_are_taken),
		cmocka_unit_test(a_few_more_now_and_then_are_taken_too),
		cmocka_unit_test(above_it_they_stand_for_all),
		cmocka_unit_test(rates_that_change),
		cmocka_unit_test(a_burst_is_not_taken_whole),
		cmocka_unit_test(things_that_come_many_at_once),
		cmocka_unit_test(ends_of_the_interval),
		cmocka_unit_test(the_interval_holds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
