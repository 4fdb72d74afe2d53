/* Which of many things are looked at closer: all of them, up to so many a second, and so many more
 * now and then; beyond that few, chosen by chance, each standing for as many as were passed over
 * for one on average. What is then known of the true number is an interval. Pure: time comes in.
 * One thread. */
#ifndef SERVER_SAMPLER_H
#define SERVER_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

enum {
	SAMPLER_ALL_PER_SECOND = 2000, /* up to here all are taken: less than a 100th of a core */
	SAMPLER_ALL_BURST = 5000, /* and so many more, after which less have come for a while */
	SAMPLER_SAMPLES_PER_SECOND = 1000, /* beyond */
	SAMPLER_LOOK_MS = 100,             /* how often sampler_look() wants to be called */
};

struct sampler {
	int64_t left;   /* things until the next sample; above 0 but between pass and turn */
	uint64_t every; /* each thing is taken with a chance of one in so many */
	uint64_t gap, seen;
	uint32_t taken; /* since the rate was looked at */
	double credit;  /* of things beyond SAMPLER_ALL_PER_SECOND that are all taken nonetheless */
	uint64_t random;
};

void sampler_init(struct sampler *, uint64_t seed);

/* n things have come, from 0 on. true: sampler_turn() is to be called; it may be anyway. */
static inline bool sampler_pass(struct sampler *s, int64_t n)
{
	return (s->left -= n) <= 0;
}

/* How many the things that were passed last stand for; 0: none of them was taken. */
uint64_t sampler_turn(struct sampler *);

/* A rate for what comes next, by what came in the last `seconds`. `all`: there are so few that all
 * are to be taken, however much they weigh. */
void sampler_look(struct sampler *, double seconds, bool all);

/* How many things there were, of which samples stand for `sum`, and no sample for more than
 * `every`: too much, or too little, with a probability of at most 0.0005 each, so that the interval
 * holds with 99.9 %, whatever the order, the rates and their changes.
 *
 * A thing is taken with probability 1/k, by a coin of its own, and then counts k, where k <= K =
 * `every` is known before the coin falls. So for any a > 0, with g(y) = (e^y - 1) / y, which rises,
 *
 *     E e^(a k B)  = 1 + (e^(a k) - 1) / k   <= e^(a g(a k))   <= e^(a g(a K))
 *     E e^(-a k B) = 1 - (1 - e^(-a k)) / k  <= e^(-a g(-a k)) <= e^(-a g(-a K))
 *
 * and for the sum S of n things E e^(+-a S) is at most what it is for K times a Poisson variable of
 * mean m = n / K (by induction over the things). The Chernoff bound of that (Mitzenmacher and
 * Upfal, Probability and Computing, Theorem 5.4), with x = S / K:
 *
 *     P(S >= x K) <= e^(-D(x, m)) for x > m,  P(S <= x K) <= e^(-D(x, m)) for x < m,
 *     D(x, m) = m - x + x ln(x / m)
 *
 * The ends of the interval are the m at which D is ln 2000. */
uint64_t sampler_at_least(uint64_t sum, uint64_t every);
uint64_t sampler_at_most(uint64_t sum, uint64_t every);

#endif
