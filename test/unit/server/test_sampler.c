/* Samples stand for all that there was, at every rate and through changes of it. */
#include "server/sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct run {
	uint64_t n, sum, samples, most;
};

/* `n` things, one each `apart` microseconds (0: 64 in each). */
static struct run feed(struct sampler *s, usec_t *now, uint64_t n, usec_t apart)
{
	struct run r = { .n = n };
	for (uint64_t i = 0; i < n; i++) {
		*now += apart ? apart : i % 64 == 0;
		uint64_t weight = sampler_take(s, *now);
		r.sum += weight;
		r.samples += weight > 0;
		r.most = weight > r.most ? weight : r.most;
	}
	return r;
}

static void below_the_rate_all_are_taken(void **state)
{
	(void)state;
	struct sampler s;
	usec_t now = 0;
	sampler_init(&s, 1);
	struct run r = feed(&s, &now, 20000, 1100);
	assert_int_equal(r.samples, r.n);
	assert_int_equal(r.sum, r.n);
}

static void above_it_they_stand_for_all(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct sampler s;
		usec_t now = 1;
		sampler_init(&s, seed);
		struct run r = feed(&s, &now, 10000000, 5); /* 200,000 a second, 50 seconds */
		double off = (double)r.sum / (double)r.n - 1.;
		assert_true(off > -.03 && off < .03); /* five deviations are 2.2 % */
		assert_true(r.samples < 60 * SAMPLES_PER_SECOND);
		assert_true(r.samples > 40 * SAMPLES_PER_SECOND);
	}
}

static void rates_that_change(void **state)
{
	(void)state;
	struct sampler s;
	usec_t now = 1;
	double sum = 0, n = 0;
	sampler_init(&s, 5);
	for (unsigned i = 0; i < 300; i++) {
		struct run fast = feed(&s, &now, 100000, 2), slow = feed(&s, &now, 100, 10000);
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
	struct sampler s;
	usec_t now = 1;
	sampler_init(&s, 7);
	(void)feed(&s, &now, 100, 10000);
	struct run r = feed(&s, &now, 1000000, 0); /* 64 a microsecond */
	assert_true(r.samples < 2000);
	assert_true(r.most > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(below_the_rate_all_are_taken),
		cmocka_unit_test(above_it_they_stand_for_all),
		cmocka_unit_test(rates_that_change),
		cmocka_unit_test(a_burst_is_not_taken_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
