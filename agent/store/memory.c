#include "store/memory.h"

#include "limit/fallback.h"
#include "store/shard.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__GNUC__)
#define prefetch(p) __builtin_prefetch(p)
#else
#define prefetch(p) ((void)(p))
#endif

enum {
	SHARDS_MAX = 64,       /* one bit each in a mask */
	SHARD_KEYS_MIN = 1024, /* fewer shards rather than fewer keys in each */
	ROOMS_BATCH_MAX = 64,  /* entries a shard may have in hand */
	SWEEP_LOOKS = 32,      /* for each time a lock is held */
	COPY_LOOKS = 512,      /* ditto: entries passed over, free ones included */
	STRETCH_LOOKS = 256    /* ditto */
};

/* What the ticks of shard.h can bear. No entry lives longer than two windows of 366 days; UTC may
 * step back by STEP_BACK_MAX in all before the line of windows lets go of it; and it never jumps
 * ahead by more than JUMP_MAX at once: by then every entry is over, and still seen to be. */
#define LIFE_MAX      (740 * USEC_PER_DAY)
#define STEP_BACK_MAX (30 * USEC_PER_DAY)
#define JUMP_MAX      (790 * USEC_PER_DAY)

struct memory_store {
	struct store base;
	struct hash_key key;
	uint64_t keys_max;
	unsigned shards; /* a power of two */
	struct shard *shard;
	void *map; /* the shards, their slots, their nodes and entries */
	size_t map_bytes, slots_end;
	_Atomic(size_t) large_end; /* so much of it may lie in large pages */

	/* Entries that no shard has in hand: together with those in the shards, exactly keys_max.
	 */
	_Alignas(64) _Atomic(int64_t) rooms;

	/* The line of windows is UTC + `shift`, where `shift` is 0 unless UTC took leaps that ticks
	 * cannot bear. `seen`: the latest instant on it that a sweep has seen. */
	_Alignas(64) _Atomic(usec_t) shift;
	_Atomic(usec_t) seen;
	struct lock line_lock;

	struct lock notes_lock;
	char *notes; /* owned; under that lock */
	size_t notes_n;
};

/* ---- time ---- */

static usec_t line_is_mended(struct memory_store *m, usec_t utc)
{
	lock_get(&m->line_lock);
	usec_t seen = atomic_load_explicit(&m->seen, memory_order_relaxed);
	usec_t w = utc + atomic_load_explicit(&m->shift, memory_order_relaxed);
	if (w < seen - STEP_BACK_MAX)
		w = seen; /* goes on as if nothing had happened: who was counted stays counted */
	else if (w > seen + JUMP_MAX)
		w = seen + JUMP_MAX;
	if (w > seen)
		atomic_store_explicit(&m->seen, w, memory_order_relaxed);
	atomic_store_explicit(&m->shift, w - utc, memory_order_relaxed);
	lock_put(&m->line_lock);
	return w;
}

static inline struct now lines_at(struct memory_store *m, struct now now)
{
	usec_t w = now.utc + atomic_load_explicit(&m->shift, memory_order_relaxed);
	usec_t seen = atomic_load_explicit(&m->seen, memory_order_relaxed);
	if (w < seen - STEP_BACK_MAX || w > seen + JUMP_MAX)
		w = line_is_mended(m, now.utc);
	return (struct now){ .steady = now.steady, .utc = w };
}

static uint32_t tick_floor(usec_t t)
{
	return (uint32_t)((uint64_t)t >> TICK_BITS);
}

static uint32_t tick_ceil(usec_t t)
{
	return tick_floor(t + TICK_USEC - 1);
}

static struct ticks ticks_at(struct now lines)
{
	struct ticks t = { { tick_floor(lines.steady), tick_floor(lines.utc) }, 0 };
	t.ahead = t.at[LINE_WINDOWS] - t.at[LINE_STEADY];
	return t;
}

static usec_t line_of(const struct key *k, struct now lines)
{
	return key_line(k) == LINE_WINDOWS ? lines.utc : lines.steady;
}

static int64_t clamp(int64_t v, int64_t least, int64_t most)
{
	return v < least ? least : v > most ? most : v;
}

/* When an entry is full again and when it opens, from how long either takes. */
struct times {
	uint32_t full_at, open_at;
};

static inline struct times times_after(usec_t now, usec_t full_after, usec_t open_after)
{
	full_after = clamp(full_after, 0, LIFE_MAX);
	open_after = clamp(open_after, 0, full_after);
	return (struct times){ tick_ceil(now + full_after),
		open_after ? tick_ceil(now + open_after) : tick_floor(now) };
}

static uint32_t later(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0 ? a : b;
}

/* The heaps rely on times that only move later; they would move back only where a limit was made
 * faster, and then this entry is kept a little longer than it has to be. */
static void rewrite(struct entry *e, const struct bucket *state, struct times t)
{
	e->bucket = *state;
	e->full_at = later(e->full_at, t.full_at);
	e->open_at = later(e->open_at, t.open_at);
}

/* ---- shards and their locks ---- */

static unsigned shard_number(const struct memory_store *m, const struct key *k)
{
	return (unsigned)(k->a >> 58) & (m->shards - 1);
}

static struct shard *shard_of(const struct memory_store *m, const struct key *k)
{
	return &m->shard[shard_number(m, k)];
}

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

/* How many entries a shard may have in hand. It gets less as fewer are left, far below what the
 * shard is sure to need itself: so none is left over in one shard while another has to evict. */
static int64_t rooms_batch(const struct memory_store *m, int64_t left)
{
	return clamp(left / (16 * (int64_t)m->shards), 0, ROOMS_BATCH_MAX);
}

/* Room for one more entry; `batch_max`: how many may be taken in hand at once. false: the table, or
 * this shard, is full. */
static bool room_get(struct memory_store *m, struct shard *s, int64_t batch_max)
{
	if (shard_keys(s) == s->entry_max)
		return false;
	if (!s->rooms) {
		int64_t left = atomic_load_explicit(&m->rooms, memory_order_relaxed);
		int64_t n;
		do {
			if (left <= 0)
				return false;
			n = clamp(rooms_batch(m, left), 1, batch_max);
		} while (!atomic_compare_exchange_weak_explicit(
			&m->rooms, &left, left - n, memory_order_relaxed, memory_order_relaxed));
		s->rooms = (uint32_t)n;
	}
	s->rooms--;
	return true;
}

static void rooms_put(struct memory_store *m, struct shard *s, uint32_t n)
{
	s->rooms += n;
	int64_t keep = rooms_batch(m, atomic_load_explicit(&m->rooms, memory_order_relaxed));
	if (s->rooms <= 2 * keep)
		return;
	atomic_fetch_add_explicit(&m->rooms, s->rooms - keep, memory_order_relaxed);
	s->rooms = (uint32_t)keep;
}

/* Counted as it is: one that was full again is no loss. */
static void count_room(struct shard *s, enum room room, bool newcomer_limited)
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

/* ---- take ---- */

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
	if (!room_get(m, s, ROOMS_BATCH_MAX)) {
		enum room room = shard_make_room(s, t, spared->entry, spared->n, NULL);
		count_room(s, room, entry_is_limited(e, t));
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

/* A small table is in the cache anyway. */
static inline bool fits_cache(const struct memory_store *m)
{
	enum { CACHED_KEYS = 8192 };
	int64_t left = atomic_load_explicit(&m->rooms, memory_order_relaxed);
	return (int64_t)m->keys_max - left < CACHED_KEYS;
}

/* Memory is waited for twice, not twice for each key, and before any lock is held: first all slots,
 * then all entries that they seem to point to; or not at all, where both were asked for ahead of
 * the plan's turn. Inlined: a function that does nothing but prefetch has no effect for GCC, which
 * leaves out the calls of it. */
static inline __attribute__((always_inline)) void prefetch_slots(
	struct memory_store *m, const struct plan *plan)
{
	for (unsigned i = 0; i < plan->n; i++) {
		const struct key *k = &plan->take[i].key;
		const struct shard *s = &m->shard[shard_number(m, k)];
		prefetch(&s->slot[shard_home(s, k)]);
		prefetch(&s->lock);
	}
}

static inline __attribute__((always_inline)) void prefetch_entries(
	struct memory_store *m, const struct plan *plan)
{
	for (unsigned i = 0; i < plan->n; i++) {
		const struct key *k = &plan->take[i].key;
		const struct shard *s = &m->shard[shard_number(m, k)];
		uint32_t hint = shard_hint(s, k);
		if (hint == ENTRY_NONE)
			continue;
		const struct entry *e = &s->entry[hint];
		prefetch(e);
		prefetch(&e->open_at); /* may lie on the next cache line */
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

typedef void charge_fn(struct plan *, const struct bucket *const stored[], struct now);

/* What `charge` says of the plan's buckets is kept. Inlined, so that it is a direct call. */
static inline __attribute__((always_inline)) void charge_with(
	charge_fn *charge, struct memory_store *m, struct plan *plan, struct now now)
{
	const struct bucket *stored[PLAN_MAX]; /* each that of an entry; NULL: never seen */
	const unsigned n = plan->n;
	uint64_t mask = 0;
	assert(n <= PLAN_MAX);
	plan->now = now;
	if (n == 0)
		return;

	for (unsigned i = 0; i < n; i++)
		mask |= 1ull << shard_number(m, &plan->take[i].key);
	if (!plan->prefetched && !fits_cache(m)) {
		prefetch_slots(m, plan);
		prefetch_entries(m, plan);
	}
	plan->prefetched = false;
	struct now lines = lines_at(m, now);

	lock_all(m->shard, mask);
	for (unsigned i = 0; i < n; i++) {
		const struct key *key = &plan->take[i].key;
		const struct shard *s = shard_of(m, key);
		uint32_t found = shard_find(s, key);
		stored[i] = found == ENTRY_NONE ? NULL : &s->entry[found].bucket;
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

void memory_store_erase(struct memory_store *m, const struct key *key)
{
	struct shard *s = shard_of(m, key);

	lock_get(&s->lock);
	uint32_t found = shard_find(s, key);
	/* Its times stay: the heaps rely on it. */
	if (found != ENTRY_NONE)
		s->entry[found].bucket = (struct bucket){ 0 };
	lock_put(&s->lock);
}

static enum store_rc memory_erase(struct store *base, struct plan *plan)
{
	for (unsigned i = 0; i < plan->n; i++)
		memory_store_erase((struct memory_store *)base, &plan->take[i].key);
	plan->degraded = false;
	return STORE_DONE;
}

/* ---- the keeper's work ---- */

/* Large pages are found faster, but each of them is 2 MB: what is nearly all in use may lie in
 * them, the slots when keys have come to all of their pages, the rest when the table is nearly
 * full; the kernel joins what is there when it finds time. All else is in small pages, also where
 * the kernel would have given large ones unasked: a thousand keys would touch all of the table. Of
 * a kernel that knows none of this nothing is wanted. */
static void use_large_pages(struct memory_store *m, int64_t left)
{
	int64_t keys_max = (int64_t)m->keys_max;
	size_t end = left <= keys_max / 16              ? m->map_bytes
		     : left <= keys_max - keys_max / 64 ? m->slots_end
							: 0;

	if (end <= atomic_load_explicit(&m->large_end, memory_order_relaxed))
		return;
	atomic_store_explicit(&m->large_end, end, memory_order_relaxed);
	(void)madvise(m->map, end, MADV_HUGEPAGE);
}

size_t memory_store_sweep(struct memory_store *m, struct now now, size_t budget)
{
	struct now lines = lines_at(m, now);
	if (lines.utc > atomic_load_explicit(&m->seen, memory_order_relaxed))
		lines.utc = line_is_mended(m, now.utc);
	struct ticks t = ticks_at(lines);

	/* Nearly full: also mend what the next newcomers would have to. */
	int64_t left = atomic_load_explicit(&m->rooms, memory_order_relaxed);
	bool tidy = left <= (int64_t)(m->keys_max / 16);
	use_large_pages(m, left);

	unsigned most = budget < SWEEP_LOOKS ? (unsigned)budget : SWEEP_LOOKS;
	size_t freed = 0;
	uint64_t busy = most ? UINT64_MAX >> (64 - m->shards) : 0;
	while (busy) {
		/* Round and round, so that nobody who waits for a lock finds it taken again. */
		for (unsigned i = 0; i < m->shards; i++) {
			if (!(busy >> i & 1))
				continue;
			struct shard *s = &m->shard[i];
			unsigned looks = most;
			lock_get(&s->lock);
			uint32_t n = shard_sweep(s, &t, &looks, tidy);
			if (n)
				rooms_put(m, s, n);
			lock_put(&s->lock);
			freed += n;
			if (looks)
				busy &= ~(1ull << i);
		}
	}
	return freed;
}

/* `ticks` from now on, made longer by `factor`, never shorter and never beyond what ticks bear. */
static uint32_t stretched(uint32_t at, uint32_t now, double factor)
{
	int32_t left = (int32_t)(at - now);
	if (left <= 0)
		return at;
	const double most = (double)(LIFE_MAX >> TICK_BITS);
	double longer = (double)left * factor + 1;
	if (longer > most)
		longer = most;
	return later(now + (uint32_t)longer, at);
}

void memory_store_stretch(struct memory_store *m, double factor, struct now now)
{
	if (!(factor > 1))
		return;
	uint32_t steady = tick_floor(now.steady);
	for (unsigned i = 0; i < m->shards; i++) {
		struct shard *s = &m->shard[i];
		uint32_t next = 0, end;
		do {
			lock_get(&s->lock);
			end = s->fresh;
			for (unsigned looks = STRETCH_LOOKS; looks && next < end; looks--, next++) {
				struct entry *e = &s->entry[next];
				/* A window ends when it ends, whatever its quota. */
				if (entry_is_free(e) || key_line(&e->key) == LINE_WINDOWS)
					continue;
				e->full_at = stretched(e->full_at, steady, factor);
				e->open_at = stretched(e->open_at, steady, factor);
			}
			lock_put(&s->lock);
		} while (next < end);
	}
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

/* ---- out to the state file, and back ---- */

static usec_t tick_usec(uint32_t tick, usec_t now)
{
	int64_t at = (now >> TICK_BITS) + (int32_t)(tick - tick_floor(now));
	return at * TICK_USEC;
}

size_t memory_store_copy(struct memory_store *m, uint64_t *cursor, struct memory_entry *out,
	size_t n, struct now now)
{
	struct now lines = lines_at(m, now);
	usec_t shift = lines.utc - now.utc;
	unsigned number = (unsigned)(*cursor >> 32);
	uint32_t next = (uint32_t)*cursor;
	size_t got = 0;
	while (!got && n && number < m->shards) {
		struct shard *s = &m->shard[number];
		lock_get(&s->lock);
		unsigned looks = COPY_LOOKS;
		for (; looks && got < n && next < s->fresh; looks--, next++) {
			const struct entry *e = &s->entry[next];
			if (entry_is_free(e))
				continue;
			usec_t line = line_of(&e->key, lines);
			usec_t back = key_line(&e->key) == LINE_WINDOWS ? shift : 0;
			out[got++] = (struct memory_entry){
				.key = e->key,
				.bucket = e->bucket,
				.full_at = tick_usec(e->full_at, line) - back,
				.open_at = tick_usec(e->open_at, line) - back,
			};
		}
		bool end = next >= s->fresh;
		lock_put(&s->lock);
		if (end) {
			number++;
			next = 0;
		}
	}
	*cursor = (uint64_t)number << 32 | next;
	return got;
}

bool memory_store_put(struct memory_store *m, const struct memory_entry *from, struct now now)
{
	struct now lines = lines_at(m, now);
	struct ticks t = ticks_at(lines);
	usec_t begin = line_of(&from->key, now);
	if (from->full_at <= begin)
		return false;
	struct times times = times_after(
		line_of(&from->key, lines), from->full_at - begin, from->open_at - begin);
	struct entry e = { from->key, from->bucket, times.full_at, times.open_at };

	struct shard *s = shard_of(m, &e.key);
	lock_get(&s->lock);
	uint32_t found = shard_find(s, &e.key);
	if (found != ENTRY_NONE) {
		rewrite(&s->entry[found], &e.bucket, times);
	} else if (room_get(m, s, 1)) {
		/* One by one: a file brings all of a shard's keys before any of the next's. */
		shard_add(s, &e, &t);
	} else {
		enum room room = shard_make_room(s, &t, NULL, 0, &e);
		if (room != ROOM_NONE)
			shard_add(s, &e, &t);
	}
	lock_put(&s->lock);
	return true;
}

/* ---- life ---- */

static void memory_close(struct store *base)
{
	struct memory_store *m = (struct memory_store *)base;
	munmap(m->map, m->map_bytes);
	free(m->notes);
	free(m);
}

bool memory_store_set_notes(struct memory_store *m, const void *bytes, size_t n)
{
	assert(n <= NOTES_BYTES_MAX);
	char *fresh = malloc(n + 1);
	if (!fresh)
		return false;
	if (n)
		memcpy(fresh, bytes, n);
	fresh[n] = '\0';
	lock_get(&m->notes_lock);
	char *old = m->notes;
	m->notes = fresh;
	m->notes_n = n;
	lock_put(&m->notes_lock);
	free(old);
	return true;
}

char *memory_store_notes(struct memory_store *m, size_t *n)
{
	lock_get(&m->notes_lock);
	*n = m->notes_n;
	char *copy = malloc(*n + 1);
	if (copy && *n)
		memcpy(copy, m->notes, *n);
	lock_put(&m->notes_lock);
	if (copy)
		copy[*n] = '\0';
	return copy;
}

static const struct store_ops memory_ops = { .take = memory_take,
	.erase = memory_erase,
	.is_large = memory_is_large,
	.prefetch = memory_prefetch,
	.close = memory_close };

/* Parts of one mapping, each on cache lines of its own. */
static size_t part(size_t *total, uint64_t n, size_t size)
{
	size_t at = *total;
	*total += (n * size + 63) / 64 * 64;
	return at;
}

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
	m->shards = 1;
	while (m->shards < SHARDS_MAX && max_keys / (m->shards * 2) >= SHARD_KEYS_MIN)
		m->shards *= 2;

	uint64_t mean = (max_keys + m->shards - 1) / m->shards;
	struct shard_sizes z = shard_sizes(mean, m->shards > 1);
	size_t total = 0;
	size_t shards_at = part(&total, m->shards, sizeof *m->shard);
	size_t slots_at = part(&total, (uint64_t)z.slot_n * m->shards, sizeof(_Atomic(uint32_t)));
	size_t nodes_at = part(&total, (uint64_t)z.entry_max * m->shards, sizeof(struct node));
	size_t entries_at = part(&total, (uint64_t)z.entry_max * m->shards, sizeof(struct entry));
	m->map_bytes = total;
	m->slots_end = nodes_at;
	m->map = mmap(NULL, total, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->map == MAP_FAILED) {
		free(m);
		return NULL;
	}

	(void)madvise(m->map, total, MADV_NOHUGEPAGE); /* use_large_pages() */
	char *map = m->map;
	struct ticks t = ticks_at(now);
	m->shard = (struct shard *)(map + shards_at);
	for (unsigned i = 0; i < m->shards; i++)
		shard_init(&m->shard[i], z,
			(struct entry *)(map + entries_at) + (size_t)i * z.entry_max,
			(_Atomic(uint32_t) *)(map + slots_at) + (size_t)i * z.slot_n,
			(struct node *)(map + nodes_at) + (size_t)i * z.entry_max, t);
	atomic_init(&m->rooms, (int64_t)max_keys);
	atomic_init(&m->large_end, 0);
	atomic_init(&m->shift, 0);
	atomic_init(&m->seen, now.utc);
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
