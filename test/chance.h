/* Numbers by chance, the same for the same seed on every machine: what random worlds are made of.
 */
#ifndef TEST_CHANCE_H
#define TEST_CHANCE_H

#include <stdbool.h>
#include <stdint.h>

struct chance {
	uint64_t state;
};

static inline uint64_t draw(struct chance *c)
{
	uint64_t z = c->state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* lo..hi */
static inline int64_t between(struct chance *c, int64_t lo, int64_t hi)
{
	return lo + (int64_t)(draw(c) % (uint64_t)(hi - lo + 1));
}

static inline bool one_in(struct chance *c, unsigned n)
{
	return draw(c) % n == 0;
}

/* 1..most, of any magnitude. */
static inline int64_t magnitude(struct chance *c, int64_t most)
{
	int64_t top = most;
	for (int64_t n = between(c, 0, 9); n > 0 && top > 10; n--)
		top /= 10;
	return between(c, 1, top);
}

#endif
