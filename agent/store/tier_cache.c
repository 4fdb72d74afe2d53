#include "store/tier_cache.h"

#include "base/lock.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { WAYS = 4, LOCKS = 256, THERE_BITS = 2, THERE_MASK = 3 };

#define UNWATCHED_AGE (500 * USEC_PER_MSEC)

struct entry {
	struct key key;
	usec_t asked;
	uint64_t epoch; /* 0: nothing is here */
	struct tier_text tier;
	bool used; /* asked for since it came, or since its set was full of such */
};

struct set {
	struct entry entry[WAYS];
};

struct tier_cache {
	struct hash_key hash_key;
	struct lock lock[LOCKS]; /* of the sets whose number modulo LOCKS it is */
	struct set *set;
	uint64_t sets;
	_Atomic(uint64_t)
		state; /* epoch, from 1, and in the lowest bits whether there is anything */
	_Atomic(int64_t) age;
	_Atomic(bool) watched;
};

struct tier_cache *tier_cache_new(uint64_t entries, usec_t age)
{
	struct tier_cache *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->sets = (entries + WAYS - 1) / WAYS;
	/* Zeroed by the system: what is never used takes no memory. */
	c->set = calloc(c->sets, sizeof *c->set);
	if (!c->set) {
		free(c);
		return NULL;
	}
	hash_key_random(&c->hash_key);
	atomic_init(&c->state, (uint64_t)1 << THERE_BITS | TIERS_NOT_KNOWN);
	atomic_init(&c->age, age);
	return c;
}

void tier_cache_free(struct tier_cache *c)
{
	if (!c)
		return;
	free(c->set);
	free(c);
}

struct key tier_cache_key(const struct tier_cache *c, struct str name, bool secret)
{
	struct key k = hash_keyed(&c->hash_key, name.p, name.n);
	/* The highest bit says which kind: the others do as well as all of them. */
	k.b = (k.b & ~(UINT64_C(1) << 63)) | (uint64_t)secret << 63;
	return k;
}

static struct set *set_get(struct tier_cache *c, struct key k, struct lock **lock)
{
	uint64_t at = k.a % c->sets;

	*lock = &c->lock[at % LOCKS];
	lock_get(*lock);
	return &c->set[at];
}

static struct entry *find(struct set *set, struct key k)
{
	for (unsigned i = 0; i < WAYS; i++) {
		struct entry *e = &set->entry[i];
		if (e->epoch && e->key.a == k.a && e->key.b == k.b)
			return e;
	}
	return NULL;
}

static bool is_fresh(const struct tier_cache *c, const struct entry *e, usec_t steady)
{
	usec_t age = atomic_load_explicit(&c->age, memory_order_relaxed);

	if (!atomic_load_explicit(&c->watched, memory_order_relaxed) && age > UNWATCHED_AGE)
		age = UNWATCHED_AGE;
	return e->epoch == tier_cache_epoch(c) && steady - e->asked < age;
}

enum tier_known tier_cache_get(
	struct tier_cache *c, struct key k, usec_t steady, struct tier_text *out)
{
	struct lock *lock;
	struct set *set = set_get(c, k, &lock);
	struct entry *e = find(set, k);
	enum tier_known known = TIER_NEW;

	out->length = 0;
	if (e) {
		e->used = true;
		*out = e->tier;
		known = is_fresh(c, e, steady) ? TIER_FRESH : TIER_STALE;
	}
	lock_put(lock);
	return known;
}

/* Who floods with names that are never seen again takes the places of those alone. */
static struct entry *place_for(struct set *set)
{
	struct entry *unused = NULL, *oldest = &set->entry[0];

	for (unsigned i = 0; i < WAYS; i++) {
		struct entry *e = &set->entry[i];
		if (!e->epoch)
			return e;
		if (e->asked < oldest->asked)
			oldest = e;
		if (!e->used && (!unused || e->asked < unused->asked))
			unused = e;
	}
	if (unused)
		return unused;
	for (unsigned i = 0; i < WAYS; i++)
		set->entry[i].used = false;
	return oldest;
}

void tier_cache_put(struct tier_cache *c, struct key k, const struct tier_text *tier,
	uint64_t epoch, usec_t asked)
{
	struct lock *lock;
	struct set *set = set_get(c, k, &lock);
	struct entry *e = find(set, k);

	if (!e) {
		e = place_for(set);
		*e = (struct entry){ .key = k };
	}
	/* Two workers may have asked: what was asked for later counts. */
	if (epoch > e->epoch || (epoch == e->epoch && asked >= e->asked)) {
		e->epoch = epoch;
		e->asked = asked;
		e->tier = *tier;
	}
	lock_put(lock);
}

void tier_cache_forget(struct tier_cache *c)
{
	atomic_fetch_add(&c->state, (uint64_t)1 << THERE_BITS);
}

uint64_t tier_cache_epoch(const struct tier_cache *c)
{
	return atomic_load(&c->state) >> THERE_BITS;
}

void tier_cache_set_watched(struct tier_cache *c, bool watched)
{
	atomic_store(&c->watched, watched);
}

void tier_cache_set_age(struct tier_cache *c, usec_t age)
{
	atomic_store(&c->age, age);
}

enum tiers_there tier_cache_there(const struct tier_cache *c)
{
	return (enum tiers_there)(
		atomic_load_explicit(&c->state, memory_order_relaxed) & THERE_MASK);
}

void tier_cache_set_there(struct tier_cache *c, enum tiers_there there, uint64_t epoch)
{
	uint64_t state = atomic_load(&c->state);

	while (state >> THERE_BITS == epoch && !atomic_compare_exchange_weak(&c->state, &state,
						       epoch << THERE_BITS | (uint64_t)there))
		;
}
