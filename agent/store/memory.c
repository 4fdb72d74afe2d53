#include "store/memory_inside.h"

#include "limit/fallback.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__GNUC__)
#define prefetch(p) __builtin_prefetch(p)
#else
#define prefetch(p) ((void)(p))
#endif

/* ---- locks ---- */

/* Walking the set bits locks in ascending order, each shard once, so two plans can never wait for
 * each other. */
static void lock_all(struct shard *shard, uint64_t mask)
{
	for (; mask; mask &= mask - 1)
		lock_get(&shard[__builtin_ctzll(mask)].lock);
}

static void unlock_all(struct shard *shard, uint64_t mask)
{
	for (; mask; mask &= mask - 1)
		lock_put(&shard[__builtin_ctzll(mask)].lock);
}

/* ---- take ---- */

void memory_count_room(struct shard *s, enum room room, bool newcomer_limited)
{
	switch (room) {
	case ROOM_EXPIRED:
		s->expired++;
		break;
	case ROOM_EVICTED_LIMITED:
		s->evicted_limited++;
		s->evicted++;
		break;
	case ROOM_EVICTED:
		s->evicted++;
		break;
	case ROOM_NONE: /* the newcomer itself is who had to go */
		s->evicted_limited += newcomer_limited;
		s->evicted++;
		break;
	}
}

/* Numbers of entries of one shard that the plan holds: no newcomer may take their place. */
struct spared {
	uint32_t entry[PLAN_MAX];
	unsigned n;
};

static void spare(struct spared *spared, const struct shard *s, struct shard *const shard[],
	const uint32_t found[], unsigned n)
{
	spared->n = 0;
	for (unsigned i = 0; i < n; i++)
		if (shard[i] == s && found[i] != ENTRY_NONE)
			spared->entry[spared->n++] = found[i];
}

static inline struct times times_of(const struct take *t, struct now now, struct now lines)
{
	const struct verdict *v = &t->verdict;
	usec_t line = line_of(&t->key, lines);
	usec_t full_after = limit_keep_for(t->limit, &v->state, now);
	if (v->left < 1)
		return times_after(line, full_after, limit_open_after(t->limit, &v->state, now));
	/* It is open, as it nearly always is. */
	return (struct times){ tick_ceil(line + clamp(full_after, 0, LIFE_MAX)), tick_floor(line) };
}

/* Returns its number; ENTRY_NONE: every place in its shard is this plan's own, and the newcomer
 * goes uncounted this once. */
static uint32_t add_entry(struct memory_store *m, struct shard *s, const struct entry *e,
	const struct spared *spared, const struct ticks *t)
{
	s->inserted++;
	if (!memory_room_get(m, s, ROOMS_BATCH_MAX)) {
		enum room room = shard_make_room(s, t, spared->entry, spared->n, NULL);
		memory_count_room(s, room, entry_is_limited(e, t));
		if (room == ROOM_NONE)
			return ENTRY_NONE;
	}
	return shard_add(s, e, t);
}

/* Whose bucket this is, in the table. */
static inline struct entry *entry_of(const struct bucket *b)
{
	return (struct entry *)((char *)(uintptr_t)b - offsetof(struct entry, bucket));
}

static inline bool is_of(const struct bucket *b, const struct key *k)
{
	const struct key *found = &entry_of(b)->key;
	return found->a == k->a && found->b == k->b;
}

/* Out of line: rare, as most keys are where they were guessed to be. */
static __attribute__((noinline)) const struct bucket *find_bucket(
	const struct shard *s, const struct key *key)
{
	uint32_t found = shard_find(s, key);
	return found == ENTRY_NONE ? NULL : &s->entry[found].bucket;
}

/* stored[i] is NULL for those who are not there yet. */
static __attribute__((noinline)) void add_newcomers(struct memory_store *m, const struct plan *plan,
	const struct bucket *const stored[], struct now now, struct now lines)
{
	struct shard *shard[PLAN_MAX];
	uint32_t found[PLAN_MAX];
	for (unsigned i = 0; i < plan->n; i++) {
		shard[i] = shard_of(m, &plan->take[i].key);
		found[i] = stored[i] ? (uint32_t)(entry_of(stored[i]) - shard[i]->entry)
				     : ENTRY_NONE;
	}
	struct ticks ticks = ticks_at(lines);
	struct spared spared;
	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		if (!t->verdict.charged || found[i] != ENTRY_NONE)
			continue;
		struct times times = times_of(t, now, lines);
		struct entry e = { t->key, t->verdict.state, times.full_at, times.open_at };
		/* Full already: nothing that an absent one would not say as well. */
		if (entry_is_full(&e, &ticks))
			continue;
		found[i] = shard_find(shard[i], &e.key);
		if (found[i] != ENTRY_NONE) { /* the plan has this key twice */
			rewrite(&shard[i]->entry[found[i]], &e.bucket, times);
			continue;
		}
		spare(&spared, shard[i], shard, found, plan->n);
		found[i] = add_entry(m, shard[i], &e, &spared, &ticks);
	}
}

/* The index of a small table lies close together: prefetched_near() is all that it wants. */
static inline bool fits_cache(const struct memory_store *m)
{
	enum { CACHED_KEYS = 8192 };
	int64_t left = atomic_load_explicit(&m->rooms, memory_order_relaxed);
	return (int64_t)m->keys_max - left < CACHED_KEYS;
}

/* Memory is waited for twice, not twice for each key, and before any lock is held: first all slots,
 * then all entries that they seem to point to; where both were asked for ahead of the plan's turn,
 * it has come by then. Inlined: a function that does nothing but prefetch has no effect for GCC,
 * which leaves out the calls of it. */
static inline __attribute__((always_inline)) void prefetch_slots(
	struct memory_store *m, const struct plan *plan)
{
	for (unsigned i = 0; i < plan->n; i++) {
		const struct key *k = &plan->take[i].key;
		const struct shard *s = &m->shard[shard_number(m, k)];
		prefetch(&s->slot[shard_home(k, slots_in_use(s))]);
		prefetch(&s->lock);
	}
}

static inline __attribute__((always_inline)) void prefetch_entry(const struct entry *e)
{
	prefetch(e);
	prefetch(&e->open_at); /* may lie on the next cache line */
}

static inline __attribute__((always_inline)) void prefetch_entries(
	struct memory_store *m, const struct plan *plan)
{
	for (unsigned i = 0; i < plan->n; i++) {
		const struct key *k = &plan->take[i].key;
		const struct shard *s = &m->shard[shard_number(m, k)];
		uint32_t hint = shard_hint(s, k);
		if (hint != ENTRY_NONE)
			prefetch_entry(&s->entry[hint]);
	}
}

static bool memory_is_large(struct store *base)
{
	return !fits_cache((struct memory_store *)base);
}

static void memory_prefetch(struct store *base, struct plan *plan, enum prefetch what)
{
	struct memory_store *m = (struct memory_store *)base;

	if (what == PREFETCH_FIRST)
		prefetch_slots(m, plan);
	else
		prefetch_entries(m, plan);
	plan->prefetched = true;
}

/* The bucket that is probably this key's, or NULL; nobody may look at it yet. Asked for before the
 * locks, all of a plan's come from memory at once. */
static inline __attribute__((always_inline)) const struct bucket *prefetched_near(
	const struct shard *s, const struct key *k)
{
	const struct entry *e = shard_near(s, k);
	if (!e)
		return NULL;
	prefetch_entry(e);
	return &e->bucket;
}

typedef void charge_fn(struct plan *, const struct bucket *const stored[], struct now);

/* What `charge` says of the plan's buckets is kept. Of none, too: the failure policy may deny what
 * takes nothing. Inlined, so that it is a direct call, and the only one. */
static inline __attribute__((always_inline)) void charge_with(
	charge_fn *charge, struct memory_store *m, struct plan *plan, struct now now)
{
	const struct bucket *stored[PLAN_MAX]; /* each that of an entry; NULL: never seen */
	const unsigned n = plan->n;
	uint64_t mask = 0;
	assert(n <= PLAN_MAX);
	plan->now = now;
	if (!plan->prefetched && !fits_cache(m)) {
		prefetch_slots(m, plan);
		prefetch_entries(m, plan);
	}
	plan->prefetched = false;
	for (unsigned i = 0; i < n; i++) {
		const struct key *key = &plan->take[i].key;
		unsigned number = shard_number(m, key);
		mask |= 1ull << number;
		stored[i] = prefetched_near(&m->shard[number], key);
	}
	struct now lines = lines_at(m, now);

	lock_all(m->shard, mask);
	for (unsigned i = 0; i < n; i++) {
		const struct key *key = &plan->take[i].key;
		if (!stored[i] || !is_of(stored[i], key))
			stored[i] = find_bucket(shard_of(m, key), key);
	}
	charge(plan, stored, now);

	bool newcomers = false;
	for (unsigned i = 0; i < n; i++) {
		const struct take *t = &plan->take[i];
		if (!t->verdict.charged)
			continue;
		if (stored[i])
			rewrite(entry_of(stored[i]), &t->verdict.state, times_of(t, now, lines));
		else
			newcomers = true;
	}
	/* Last, when nothing points into the table any more: what has to go for them may be
	 * anywhere. */
	if (newcomers)
		add_newcomers(m, plan, stored, now, lines);
	unlock_all(m->shard, mask);
}

static enum store_rc memory_take(struct store *base, struct plan *plan, struct now now)
{
	charge_with(plan_charge, (struct memory_store *)base, plan, now);
	return STORE_DONE;
}

void memory_store_mirror(struct memory_store *m, struct plan *plan, struct now now)
{
	charge_with(plan_warm, m, plan, now);
}

bool memory_store_erase(struct memory_store *m, const struct key *key)
{
	struct shard *s = shard_of(m, key);
	bool held = false;

	lock_get(&s->lock);
	uint32_t found = shard_find(s, key);
	/* Its times stay: the heaps rely on it. */
	if (found != ENTRY_NONE) {
		struct bucket *b = &s->entry[found].bucket;
		held = b->current || b->previous; /* or what a token bucket has used */
		*b = (struct bucket){ 0 };
	}
	lock_put(&s->lock);
	return held;
}

static enum store_rc memory_erase(struct store *base, struct plan *plan)
{
	for (unsigned i = 0; i < plan->n; i++)
		plan->take[i].held = memory_store_erase(
					     (struct memory_store *)base, &plan->take[i].key)
					     ? HELD_SOME
					     : HELD_NOTHING;
	plan->degraded = false;
	return STORE_DONE;
}

/* ---- life ---- */

static void memory_close(struct store *base)
{
	struct memory_store *m = (struct memory_store *)base;
	munmap(m->map, m->map_bytes);
	free(m->notes);
	free(m);
}

static const struct store_ops memory_ops = { .take = memory_take,
	.erase = memory_erase,
	.is_large = memory_is_large,
	.prefetch = memory_prefetch,
	.close = memory_close };

struct memory_store *memory_store_new(uint64_t max_keys, const struct hash_key *key, struct now now)
{
	assert(max_keys >= 1 && max_keys <= 1000000000);
	struct memory_store *m = aligned_alloc(64, (sizeof *m + 63) / 64 * 64);
	if (!m)
		return NULL;
	memset(m, 0, sizeof *m);
	m->base.ops = &memory_ops;
	m->key = *key;
	m->keys_max = max_keys;
	if (!memory_map_table(m, now)) {
		free(m);
		return NULL;
	}
	atomic_init(&m->rooms, (int64_t)max_keys);
	atomic_init(&m->shift, 0);
	atomic_init(&m->seen, now.utc);
	atomic_init(&m->anchor, now.utc + now.held - now.anchor_age);
	atomic_init(&m->swept_shift, 0);
	atomic_init(&m->swept_line, now.utc);
	return m;
}

struct store *memory_store_base(struct memory_store *m)
{
	return &m->base;
}

const struct hash_key *memory_store_key(const struct memory_store *m)
{
	return &m->key;
}

struct memory_stats memory_store_stats(const struct memory_store *m)
{
	struct memory_stats sum = { .keys_max = m->keys_max };
	for (unsigned i = 0; i < m->shards; i++) {
		struct shard *s = &m->shard[i];
		lock_get(&s->lock);
		sum.keys += shard_keys(s);
		sum.inserted += s->inserted;
		sum.expired += s->expired;
		sum.evicted += s->evicted;
		sum.evicted_limited += s->evicted_limited;
		lock_put(&s->lock);
	}
	return sum;
}
