/* What the store's tests share: limits built by hand, keys from small numbers, one-key plans, and a
 * seeded generator. */
#ifndef TEST_STORE_RIG_H
#define TEST_STORE_RIG_H

#include "store/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TICK = 1 << 15 };

/* Both lines on whole ticks, and apart: neither may be taken for the other. */
static inline struct now now_at(usec_t t)
{
	const usec_t start = (usec_t)1 << 50;
	return (struct now){ .steady = start + t, .utc = start + 7000 * (usec_t)TICK + t };
}

struct rig_limit {
	struct rule rule;
	struct limit limit;
};

static inline struct rig_limit *rig_limit(
	struct rig_limit *r, enum algorithm algorithm, int64_t units, usec_t length, int64_t burst)
{
	memset(r, 0, sizeof *r);
	r->rule.algorithm = algorithm;
	r->rule.mode = MODE_ENFORCE;
	r->rule.warn_at = 1;
	r->limit.rule = &r->rule;
	r->limit.quota = (struct quota){ algorithm, { WINDOW_LENGTH, length }, units,
		algorithm == ALGORITHM_TOKEN_BUCKET ? burst : units };
	r->limit.slowest_interval = (double)length / (double)units;
	r->limit.slowest_refill = (usec_t)(r->limit.slowest_interval * (double)burst) + 1;
	return r;
}

static inline uint64_t rig_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static inline uint64_t rig_random(uint64_t *seed)
{
	return rig_mix(++*seed);
}

static inline struct key rig_key(uint64_t id, const struct rig_limit *r)
{
	uint64_t line = r->rule.algorithm != ALGORITHM_TOKEN_BUCKET;
	return (struct key){ rig_mix(2 * id), (rig_mix(2 * id + 1) & ~1ull) | line };
}

static inline void rig_plan_add(
	struct plan *p, const struct rig_limit *r, uint64_t id, int64_t cost)
{
	p->take[p->n++] = (struct take){ .limit = &r->limit, .key = rig_key(id, r), .cost = cost };
}

/* A take of one key. */
static inline struct verdict rig_take(struct memory_store *m, const struct rig_limit *r,
	uint64_t id, int64_t cost, struct now now)
{
	static _Thread_local struct plan p;
	p.n = 0;
	rig_plan_add(&p, r, id, cost);
	assert_int_equal(store_take(memory_store_base(m), &p, now), STORE_DONE);
	return p.take[0].verdict;
}

static inline struct memory_store *rig_store(uint64_t max_keys, struct now now)
{
	struct hash_key key = { .bytes = { 1, 2, 3 } };
	struct memory_store *m = memory_store_new(max_keys, &key, now);
	assert_non_null(m);
	return m;
}

static inline void rig_close(struct memory_store *m)
{
	store_close(memory_store_base(m));
}

static inline int rig_entry_order(const void *a, const void *b)
{
	const struct memory_entry *x = a, *y = b;
	if (x->key.a != y->key.a)
		return x->key.a < y->key.a ? -1 : 1;
	return x->key.b < y->key.b ? -1 : x->key.b > y->key.b;
}

/* All entries, by key. */
static inline size_t rig_dump(
	struct memory_store *m, struct memory_entry *out, size_t max, struct now now)
{
	uint64_t cursor = 0;
	size_t n = 0, got;
	while (n < max && (got = memory_store_copy(m, &cursor, out + n, max - n, now)))
		n += got;
	qsort(out, n, sizeof *out, rig_entry_order);
	assert_int_equal(n, memory_store_stats(m).keys);
	return n;
}

static inline const struct memory_entry *rig_find(
	const struct memory_entry *e, size_t n, const struct key *k)
{
	struct memory_entry wanted = { .key = *k };
	return n ? bsearch(&wanted, e, n, sizeof *e, rig_entry_order) : NULL;
}

#endif
