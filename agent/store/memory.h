/* The memory store: sharded, bounded, of constant-size entries that hold no key material.
 *
 * Full table: a new key takes the place of one in its shard that is full again, or else of the one
 * that has least to lose (is full again soonest; of windows that end together one of which least
 * was used, as a look at five of them tells), never of one at its limit while there is one that is
 * not. Nothing is ever denied for want of room. */
#ifndef STORE_MEMORY_H
#define STORE_MEMORY_H

#include "store/store.h"

struct memory_store;

struct memory_stats {
	uint64_t keys, keys_max;
	uint64_t inserted;
	uint64_t expired;         /* freed because full again */
	uint64_t evicted;         /* live entries that had to go for a new key (or the new key
				   * itself, where its plan has taken every place) */
	uint64_t evicted_limited; /* of these, at their limit: there was no other */
};

/* NULL: out of memory. `max_keys` 1..1e9; its memory is reserved, not touched. `key` is what
 * descriptors are hashed with: kept here for the state file, handed to policies by the caller. */
struct memory_store *memory_store_new(uint64_t max_keys, const struct hash_key *key, struct now);

struct store *memory_store_base(struct memory_store *);
const struct hash_key *memory_store_key(const struct memory_store *);

/* A plan of plan_mirror() (limit/fallback.h), which another store has answered, into the local
 * counters that stand in while that store is away: each is charged min(cost, what is there).
 * `now` is this agent's. The plan's verdicts are scratch afterwards. Any worker thread. */
void memory_store_mirror(struct memory_store *, struct plan *, struct now);

/* The counter of this key is as one never seen; its entry goes when it would have gone. true:
 * something was counted there. Any thread. */
bool memory_store_erase(struct memory_store *, const struct key *);

/* Frees what is full again, and anchors windows of the future when their clock went back: at most
 * `budget` entries (and never more than some dozens) of one shard for each time its lock is held.
 * Returns how many it freed. Any thread; the keeper thread calls it every second or so: it is also
 * what keeps up with steps of the clock. */
size_t memory_store_sweep(struct memory_store *, struct now, size_t budget);

/* A reload made some refill slower by up to `factor` (> 1; else nothing happens): token buckets are
 * kept that much longer. Any thread; some hundred entries for each time a lock is held. */
void memory_store_stretch(struct memory_store *, double factor, struct now);

/* Sums over the shards; may be a little out of date. Any thread. */
struct memory_stats memory_store_stats(const struct memory_store *);

struct memory_entry {
	struct key key; /* the lowest bit of .b tells the time line: 1 UTC (windows), 0 steady */
	struct bucket bucket; /* windows: `at` is any instant within, with no mark */
	usec_t full_at;       /* on its own time line */
	usec_t open_at; /* when one unit passes again; not after full_at; not after now: it does */
};

/* How long an entry of windows is kept from its `at` on, where that becomes another: it may have
 * been February's. */
static inline usec_t window_life(usec_t life)
{
	bool is_month = life >= 28 * USEC_PER_DAY && life < 31 * USEC_PER_DAY;
	return is_month ? 31 * USEC_PER_DAY : life < 0 ? 0 : life;
}

/* Entry by entry, for the state file: copies up to `n` entries from `*cursor` on (0 at first),
 * holding a shard's lock for some hundred of them at most. Returns how many; 0: the end. What
 * is charged meanwhile may or may not be in it, and a key that comes and goes may be there twice:
 * the later one counts. Any thread. */
size_t memory_store_copy(
	struct memory_store *, uint64_t *cursor, struct memory_entry *, size_t n, struct now);

/* Puts one entry back (at start), in the place of one with less to lose if there is no room; an
 * entry that is already there is replaced. Counted only where something has to go for it. false: it
 * is full again already, and left out. */
bool memory_store_put(struct memory_store *, const struct memory_entry *, struct now);

/* Bytes that earlier releases kept in the state file beside the counters and that the store knows
 * nothing of, in the place of those before; at most NOTES_BYTES_MAX. false: out of memory. Any
 * thread. */
enum { NOTES_BYTES_MAX = 64 << 20 };
bool memory_store_set_notes(struct memory_store *, const void *, size_t);
/* A copy, with a NUL after it, for the caller to free; NULL: out of memory. Any thread. */
char *memory_store_notes(struct memory_store *, size_t *n);

#endif
