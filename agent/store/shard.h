/* One shard of the memory store: entries of constant size, the index that finds them, and the order
 * in which they go when there is no room. Knows no plans and no clocks: ticks come in as an
 * argument. Not safe for threads: memory*.c hold `lock` around every call but
 * shard_hint() and shard_near().
 *
 *   slot    open addressing with linear probing; a slot is 0, or a tag of the key's hash above the
 *           entry's number + 1, so that a miss hardly ever looks at an entry. Deleting shifts
 *           what follows back: no tombstones, nothing degrades. Few keys use few of the slots,
 *           which then lie close together: how many are in use grows with them, and never shrinks.
 *   heaps   every entry is in exactly one of two: `open`, by when it is full again, and `limited`
 *           (at its limit when last looked at), by when it opens. A charge does not touch them:
 *           both times only ever move later, so what a heap knows is a lower bound, and is
 *           mended when it comes to the top. They share one array, from both of its ends. */
#ifndef STORE_SHARD_H
#define STORE_SHARD_H

#include "base/hash.h"
#include "base/lock.h"
#include "limit/algorithm.h"

#include <assert.h>
#include <stdatomic.h>

/* Instants of an entry are ticks of 2^15 us of its own time line, modulo 2^32, compared by their
 * signed difference: half the range is 814 days. */
enum { TICK_BITS = 15 };
#define TICK_USEC ((usec_t)1 << TICK_BITS)

/* The lowest bit of key.b tells the time line. */
enum { LINE_STEADY, LINE_WINDOWS };

/* Now, on both lines. `ahead` is by how much windows are ahead of steady: the heaps hold both
 * kinds, ordered on the steady line. */
struct ticks {
	uint32_t at[2];
	uint32_t ahead;
};

struct entry {
	struct key key;
	struct bucket bucket;
	uint32_t full_at; /* rounded up: nothing is forgotten early */
	uint32_t open_at; /* not after full_at (in a free entry it is: that is its mark) */
};
static_assert(sizeof(struct entry) == 40, "what a million of them cost");

/* `entry` carries the time line in its highest bit, so that a step of the clock can be followed
 * without looking at entries. */
struct node {
	uint32_t entry, at;
};

struct heap {
	struct node *base;
	int step; /* +1 or -1: which way it grows */
	uint32_t n;
};

#define ENTRY_NONE UINT32_MAX

struct shard {
	/* readable without the lock: set once, but for what is atomic, which is written under it */
	_Alignas(64) struct entry *entry;
	_Atomic(uint32_t) *slot;
	_Atomic(uint32_t) slot_n; /* those in use */
	uint32_t entry_max, slot_max;
	uint32_t tag_mask; /* the bits of a slot that are its tag */

	/* under the lock; on the same line: who reads the ones wants the other next */
	struct lock lock;
	uint32_t fresh;     /* entries from here on were never used: their memory is untouched */
	uint32_t free_next; /* the first of the free ones before that, + 1; 0: none */
	uint32_t rooms;     /* how many entries it may add before it has to ask for more */
	uint32_t ahead;     /* as in struct ticks: what the heaps were ordered by */
	struct heap open, limited;
	uint64_t inserted, expired, evicted, evicted_limited;
};
static_assert(sizeof(struct shard) == 128, "found by a shift");

/* Bytes of memory, zeroed and aligned as their types want, that shard_init() is given. */
struct shard_sizes {
	uint32_t entry_max, slot_max;
};

/* For a shard of `mean` keys on average; `spread`: it may come to hold more than that. */
struct shard_sizes shard_sizes(uint64_t mean, bool spread);

void shard_init(struct shard *, struct shard_sizes, struct entry *, _Atomic(uint32_t) *slot,
	struct node *, struct ticks);

static inline uint32_t shard_keys(const struct shard *s)
{
	return s->open.n + s->limited.n;
}

static inline bool entry_is_free(const struct entry *e)
{
	return (int32_t)(e->open_at - e->full_at) > 0;
}

static inline unsigned key_line(const struct key *k)
{
	return k->b & 1;
}

static inline bool entry_is_full(const struct entry *e, const struct ticks *now)
{
	return (int32_t)(e->full_at - now->at[key_line(&e->key)]) <= 0;
}

static inline bool entry_is_limited(const struct entry *e, const struct ticks *now)
{
	return (int32_t)(e->open_at - now->at[key_line(&e->key)]) > 0;
}

static inline uint32_t slots_in_use(const struct shard *s)
{
	return atomic_load_explicit(&s->slot_n, memory_order_relaxed);
}

/* Where a key's slot would be, were it alone: bits 0..31 of the hash; the tag comes from bits 26
 * up, shard_number()'s choice of the shard from the highest 6. */
static inline uint32_t shard_home(const struct key *k, uint32_t slot_n)
{
	return (uint32_t)(((k->a & UINT32_MAX) * slot_n) >> 32);
}

static inline uint32_t shard_tag(const struct shard *s, const struct key *k)
{
	return (uint32_t)(k->a >> 26) & s->tag_mask;
}

static inline uint32_t slot_get(const struct shard *s, uint32_t i)
{
	return atomic_load_explicit(&s->slot[i], memory_order_relaxed);
}

static inline void slot_set(struct shard *s, uint32_t i, uint32_t v)
{
	atomic_store_explicit(&s->slot[i], v, memory_order_relaxed);
}

static inline uint32_t slot_after(uint32_t i, uint32_t slot_n)
{
	return i + 1 == slot_n ? 0 : i + 1;
}

/* A guess, without the lock: the entry that is probably this key's, or ENTRY_NONE. It may be
 * another's by now: good for a prefetch, and for nothing else. */
static inline uint32_t shard_hint(const struct shard *s, const struct key *k)
{
	enum { TRIES = 4 };
	uint32_t slot_n = slots_in_use(s), tag = shard_tag(s, k), i = shard_home(k, slot_n);
	for (unsigned n = 0; n < TRIES; n++, i = slot_after(i, slot_n)) {
		uint32_t v = slot_get(s, i);
		if (!v)
			break;
		if ((v & s->tag_mask) == tag)
			return (v & ~s->tag_mask) - 1;
	}
	return ENTRY_NONE;
}

/* The same, from where its slot would be and no further; NULL: it does not say. */
static inline struct entry *shard_near(const struct shard *s, const struct key *k)
{
	uint32_t v = slot_get(s, shard_home(k, slots_in_use(s)));
	uint32_t number = v ^ shard_tag(s, k); /* + 1, if the tag is the same */
	return v && !(number & s->tag_mask) ? &s->entry[number - 1] : NULL;
}

/* The entry of this key, or ENTRY_NONE. What the loop needs is read once: after an atomic load
 * compilers read all anew. */
static inline uint32_t shard_find(const struct shard *s, const struct key *k)
{
	const struct key key = *k;
	const uint32_t mask = s->tag_mask, tag = shard_tag(s, &key), n = slots_in_use(s);
	const struct entry *entry = s->entry;

	for (uint32_t i = shard_home(&key, n);; i = slot_after(i, n)) {
		uint32_t v = slot_get(s, i);
		uint32_t number = v ^ tag; /* + 1, if the tag is the same */
		if (!v)
			return ENTRY_NONE;
		if (number & mask)
			continue;
		const struct key *found = &entry[number - 1].key;
		if (found->a == key.a && found->b == key.b)
			return number - 1;
	}
}

/* A new entry, whose key must not be there yet and for which there must be room
 * (shard_keys() < entry_max). Returns its number. */
uint32_t shard_add(struct shard *, const struct entry *, const struct ticks *now);

enum room {
	ROOM_EXPIRED, /* one that was full again has gone */
	ROOM_EVICTED, /* one that was not full again had to go, the one with least to lose */
	ROOM_EVICTED_LIMITED, /* all were at their limit: the one that would open first has gone */
	ROOM_NONE,            /* every one is spared, or has more to lose than `rival` */
};

/* Lets one entry go. `spared` are numbers of entries that must stay (at most PLAN_MAX). `rival`, if
 * not NULL, is who wants the place, and gets it only from one with less to lose. Amortised
 * O(log n): a step either ends the search, or does what no later call will have to do again; where
 * nothing was mended for long, one search may look at every entry of the shard (some hundred
 * microseconds, and the sweep of a table that is nearly full sees to it that it does not). */
enum room shard_make_room(struct shard *, const struct ticks *now, const uint32_t *spared,
	unsigned spared_n, const struct entry *rival);

/* Frees what is full again, looking at no more than *looks entries, which it counts down: what is
 * left of them says that it came to an end. `tidy`: also mends what make_room() would have to.
 * Returns how many it freed. */
uint32_t shard_sweep(struct shard *, const struct ticks *now, unsigned *looks, bool tidy);

#endif
