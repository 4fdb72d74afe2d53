#include "server/sampler.h"

#include <math.h>

#define EVERY_MAX (INT64_C(1) << 39)

enum {
	LOOKS_PER_SECOND = 1000 / SAMPLER_LOOK_MS,
	ALL_MAX = 2000, /* between two looks */
	TAKEN_MAX = 2 * SAMPLER_SAMPLES_PER_SECOND / LOOKS_PER_SECOND,
	TAKEN_MORE = 40, /* and after so many more again: a burst is soon at its rate */
	EVERY_FIRST = ALL_MAX * LOOKS_PER_SECOND / SAMPLER_SAMPLES_PER_SECOND,
};

/* splitmix64 */
static uint64_t next_random(struct sampler *s)
{
	uint64_t z = s->random += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* Geometric: each thing has the same chance whatever came before, so that traffic of a pattern is
 * not met at the same place of it each time, and a gap may be given up for another rate's. */
static uint64_t draw_gap(struct sampler *s)
{
	if (s->every == 1)
		return 1;
	double u = (double)((next_random(s) >> 11) + 1) * 0x1p-53; /* above 0, to 1 */
	return 1 + (uint64_t)(log(u) / log1p(-1. / (double)s->every));
}

static void begin_gap(struct sampler *s, uint64_t gap)
{
	s->gap = gap;
	s->left = (int64_t)gap;
}

void sampler_init(struct sampler *s, uint64_t seed)
{
	*s = (struct sampler){ .random = seed, .every = 1, .credit = SAMPLER_ALL_BURST };
	begin_gap(s, draw_gap(s));
}

/* Of `n` things, where the one before them was taken; `gap`: to the next sample, after them. */
static uint64_t weigh(struct sampler *s, uint64_t n, uint64_t *gap)
{
	uint64_t sum = 0;

	/* As many as one sample stands for are counted, and none of them by chance. */
	if (n >= s->every) {
		sum = n;
		n = 0;
	}
	while ((*gap = draw_gap(s)) <= n) {
		sum += s->every;
		n -= *gap;
	}
	*gap -= n;
	return sum;
}

/* They have come too fast to wait for the time. */
static void raise_rate(struct sampler *s)
{
	s->every = s->every == 1 ? EVERY_FIRST : 2 * s->every;
	s->taken = TAKEN_MAX - TAKEN_MORE;
}

uint64_t sampler_turn(struct sampler *s)
{
	uint64_t gap, sum;

	if (s->left > 0)
		return 0;
	s->seen += s->gap - (uint64_t)s->left;
	s->taken++;
	sum = s->every + weigh(s, (uint64_t)-s->left, &gap);
	if (s->taken >= (s->every == 1 ? ALL_MAX : TAKEN_MAX) && s->every < EVERY_MAX) {
		raise_rate(s);
		gap = draw_gap(s);
	}
	begin_gap(s, gap);
	return sum;
}

void sampler_look(struct sampler *s, double seconds, bool all)
{
	double rate = (double)(s->seen + s->gap - (uint64_t)s->left) / seconds;
	double every = ceil(rate / SAMPLER_SAMPLES_PER_SECOND);

	s->credit += (SAMPLER_ALL_PER_SECOND - rate) * seconds;
	s->credit = fmin(fmax(s->credit, 0), SAMPLER_ALL_BURST);
	if (all || s->credit > 0)
		s->every = 1;
	else
		s->every = every > (double)EVERY_MAX ? EVERY_MAX : (uint64_t)every;
	s->seen = s->taken = 0;
	begin_gap(s, draw_gap(s));
}

/* ---- the interval ---- */

#define LOG_OF_ONE_IN 7.600902459542082 /* ln 2000 */

enum { NEWTON_STEPS = 6 };

/* D is convex in m: from the far side of the end, each step stays there. */
static double newton(double x, double m)
{
	for (unsigned i = 0; i < NEWTON_STEPS; i++) {
		double slope = 1 - x / m;
		double over = m - x + (x > 0 ? x * log(x / m) : 0) - LOG_OF_ONE_IN;
		if (over <= 0 || slope == 0)
			break;
		m -= over / slope;
	}
	return m;
}

uint64_t sampler_at_most(uint64_t sum, uint64_t every)
{
	const double l = LOG_OF_ONE_IN;
	double x = (double)sum / (double)every;

	if (every <= 1)
		return sum;
	/* D(x, m) >= (m - x)^2 / 2 m for m > x. */
	return (uint64_t)ceil((double)every * newton(x, x + l + sqrt(l * l + 2 * l * x)));
}

uint64_t sampler_at_least(uint64_t sum, uint64_t every)
{
	const double l = LOG_OF_ONE_IN;
	double x = (double)sum / (double)every;

	if (every <= 1 || sum == 0)
		return sum;
	/* D(x, m) >= (x - m)^2 / 2 x, and >= x ln(x / m) - x, for m < x. */
	double m = fmax(x - sqrt(2 * l * x), x * exp(-1 - l / x));
	if (m > 0)
		m = (double)every * newton(x, m);
	return m > 1 ? (uint64_t)m : 1; /* something was there */
}
