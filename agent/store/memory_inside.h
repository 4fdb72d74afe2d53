/* The memory store from inside: memory.c is what is charged, memory_table.c where entries lie and
 * how many there may be, memory_keep.c what goes on beside it. Only for these. */
#ifndef STORE_MEMORY_INSIDE_H
#define STORE_MEMORY_INSIDE_H

#include "store/memory.h"

#include "store/shard.h"

#include <stdatomic.h>

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
	size_t map_bytes;

	/* Entries that no shard has in hand: together with those in the shards, exactly keys_max.
	 */
	_Alignas(64) _Atomic(int64_t) rooms;

	/* The line of windows is UTC + `shift`, where `shift` is 0 unless UTC took leaps that ticks
	 * cannot bear. `seen`: the latest instant on it that a sweep has seen. */
	_Alignas(64) _Atomic(usec_t) shift;
	_Atomic(usec_t) seen;
	/* Of the clock that windows are read by, and the shift, as the last sweep saw them. */
	_Atomic(usec_t) anchor, swept_shift;
	_Atomic(usec_t) swept_line; /* the line of windows, ditto, where they are read */
	struct lock line_lock;

	struct lock notes_lock;
	char *notes; /* owned; under that lock */
	size_t notes_n;
};

/* ---- memory.c ---- */

/* Counted as it is: one that was full again is no loss. The shard is locked. */
void memory_count_room(struct shard *, enum room, bool newcomer_limited);

/* ---- memory_table.c ---- */

/* Where the shards and all that is theirs lie. false: no memory. */
bool memory_map_table(struct memory_store *, struct now);
/* The instant on the line of windows that `utc` is, after a leap or from the keeper. */
usec_t memory_mend_line(struct memory_store *, usec_t utc);
enum { ROOMS_BATCH_MAX = 64 }; /* entries a shard may have in hand */
/* Room for one more entry; `batch_max`: how many may be taken in hand at once. false: the table, or
 * this shard, is full. The shard is locked. */
bool memory_room_get(struct memory_store *, struct shard *, int64_t batch_max);
void memory_rooms_put(struct memory_store *, struct shard *, uint32_t n);

/* ---- time ---- */

static inline struct now lines_at(struct memory_store *m, struct now now)
{
	usec_t w = now.utc + atomic_load_explicit(&m->shift, memory_order_relaxed);
	usec_t seen = atomic_load_explicit(&m->seen, memory_order_relaxed);
	if (w < seen - STEP_BACK_MAX || w > seen + JUMP_MAX)
		w = memory_mend_line(m, now.utc);
	return (struct now){ .steady = now.steady, .utc = w };
}

static inline uint32_t tick_floor(usec_t t)
{
	return (uint32_t)((uint64_t)t >> TICK_BITS);
}

static inline uint32_t tick_ceil(usec_t t)
{
	return tick_floor(t + TICK_USEC - 1);
}

static inline struct ticks ticks_at(struct now lines)
{
	struct ticks t = { { tick_floor(lines.steady), tick_floor(lines.utc) }, 0 };
	t.ahead = t.at[LINE_WINDOWS] - t.at[LINE_STEADY];
	return t;
}

static inline usec_t line_of(const struct key *k, struct now lines)
{
	return key_line(k) == LINE_WINDOWS ? lines.utc : lines.steady;
}

static inline int64_t clamp(int64_t v, int64_t least, int64_t most)
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

static inline uint32_t later(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0 ? a : b;
}

/* The heaps rely on times that only move later; they would move back only where a limit was made
 * faster, and then this entry is kept a little longer than it has to be. */
static inline void rewrite(struct entry *e, const struct bucket *state, struct times t)
{
	e->bucket = *state;
	e->full_at = later(e->full_at, t.full_at);
	e->open_at = later(e->open_at, t.open_at);
}

/* ---- shards ---- */

static inline unsigned shard_number(const struct memory_store *m, const struct key *k)
{
	return (unsigned)(k->a >> 58) & (m->shards - 1);
}

static inline struct shard *shard_of(const struct memory_store *m, const struct key *k)
{
	return &m->shard[shard_number(m, k)];
}

#endif
