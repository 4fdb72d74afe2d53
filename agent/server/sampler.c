#include "server/sampler.h"

#include <math.h>

#define LOOK_EVERY (100 * USEC_PER_MSEC)

enum { TAKEN_MAX = SAMPLES_PER_SECOND / 10, EVERY_MAX = 1 << 20 };

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
static void draw_gap(struct sampler *s)
{
	double u = (double)((next_random(s) >> 11) + 1) * 0x1p-53; /* above 0, to 1 */
	s->gap = s->every == 1 ? 1 : 1 + (uint64_t)(log(u) / log1p(-1. / s->every));
	s->left = s->gap;
}

void sampler_init(struct sampler *s, uint64_t seed)
{
	*s = (struct sampler){ .random = seed, .every = 1 };
	draw_gap(s);
}

static void look_at_rate(struct sampler *s, usec_t now)
{
	usec_t past = now - s->since;
	double seconds = (double)(past > LOOK_EVERY ? past : LOOK_EVERY) / (double)USEC_PER_SEC;
	double every = ceil((double)s->seen / (seconds * SAMPLES_PER_SECOND));
	s->every = every > EVERY_MAX ? EVERY_MAX : every > 1. ? (uint32_t)every : 1;
	s->since = now;
	s->until = now + LOOK_EVERY;
	s->seen = s->taken = 0;
}

uint64_t sampler_turn(struct sampler *s, usec_t now)
{
	uint64_t stands_for = s->left ? 0 : s->every;

	s->seen += s->gap - s->left;
	if (stands_for)
		s->taken++;
	if (now >= s->until) {
		look_at_rate(s, now);
	} else if (s->taken >= TAKEN_MAX && s->every < EVERY_MAX) {
		s->every *= 2; /* it has come too fast to wait for the time */
		s->taken = 0;
	}
	draw_gap(s);
	return stands_for;
}
