/* Which of many things are looked at closer: so many a second, chosen by chance, each standing for
 * as many as were passed over for one on average. Below that rate it is all of them. Pure: time
 * comes in. One thread. */
#ifndef SERVER_SAMPLER_H
#define SERVER_SAMPLER_H

#include "base/clock.h"

enum { SAMPLES_PER_SECOND = 1000 };

struct sampler {
	uint64_t left;  /* until the next one */
	usec_t until;   /* when the rate is looked at again; steady */
	uint32_t every; /* one in so many */
	uint32_t taken; /* since the rate was looked at */
	uint64_t gap, seen;
	usec_t since;
	uint64_t random;
};

void sampler_init(struct sampler *, uint64_t seed);

uint64_t sampler_turn(struct sampler *, usec_t now);

/* For every thing, once: for how many it stands; 0: passed over. */
static inline uint64_t sampler_take(struct sampler *s, usec_t now)
{
	if (__builtin_expect(--s->left && now < s->until, 1))
		return 0;
	return sampler_turn(s, now);
}

#endif
