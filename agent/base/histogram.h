/* How long things took: counts in fixed buckets whose width grows with what they hold, two to each
 * power of two of microseconds. One writer, relaxed, readers anywhere. */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include "base/clock.h"

#include <stdatomic.h>

/* Bounds 1, 2, 3, 4, 6, 8, 12, … 2^24 us (16.8 s); the last bucket has what is beyond. */
enum { HISTOGRAM_BOUNDS = 48, HISTOGRAM_BUCKETS = HISTOGRAM_BOUNDS + 1 };

struct histogram {
	_Atomic(uint64_t) count[HISTOGRAM_BUCKETS];
	_Atomic(uint64_t) sum; /* us */
};

/* The largest value of bucket `i` < HISTOGRAM_BOUNDS, in us. */
static inline uint64_t histogram_bound(unsigned i)
{
	return i < 2 ? i + 1u : (i & 1 ? 4ull : 3ull) << (i / 2 - 1);
}

static inline unsigned histogram_bucket(usec_t took)
{
	if (took <= 1)
		return 0;
	uint64_t below = (uint64_t)took - 1;
	unsigned octave = 63u - (unsigned)__builtin_clzll(below);
	unsigned i = octave ? 2 * octave + (unsigned)(below >> (octave - 1) & 1) : 1;
	return i < HISTOGRAM_BOUNDS ? i : HISTOGRAM_BOUNDS;
}

/* `n` things took so long each. Only the owner writes: a plain load and store is enough. */
static inline void histogram_add(struct histogram *h, usec_t took, uint64_t n)
{
	_Atomic(uint64_t) *bucket = &h->count[histogram_bucket(took)];
	uint64_t had = atomic_load_explicit(bucket, memory_order_relaxed);
	uint64_t sum = atomic_load_explicit(&h->sum, memory_order_relaxed);
	atomic_store_explicit(bucket, had + n, memory_order_relaxed);
	atomic_store_explicit(
		&h->sum, sum + n * (took > 0 ? (uint64_t)took : 0), memory_order_relaxed);
}

/* What several writers have, together. */
struct histogram_sum {
	uint64_t count[HISTOGRAM_BUCKETS], sum;
};

static inline void histogram_read(struct histogram_sum *to, const struct histogram *h)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		to->count[i] += atomic_load_explicit(&h->count[i], memory_order_relaxed);
	to->sum += atomic_load_explicit(&h->sum, memory_order_relaxed);
}

#endif
