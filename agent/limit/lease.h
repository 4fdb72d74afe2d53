/* Leases: an agent takes a block of units ahead, spends it without asking, and says later what has
 * become of it. Here is what happens to the shared counter; what an agent holds: limit/ledger.h.
 * Pure, and the same operations in the same order as in store/redis_script.lua.
 *
 * A block is debited before any of it is spent, so windows need nothing else: it ends with its
 * window. A token bucket would refill while a block lies unspent, and then both could be had at
 * once; so it refills only to capacity less what is out: `used` never falls below that.
 *
 * A dead agent does not say what has become of its blocks. Time is cut into turns of LEASE_LIFE,
 * and units out are kept for two of them: those of this turn and those of the one before. A block
 * lives for no more than LEASE_LIFE, so what was taken in a turn is spent or dropped when the next
 * one ends, whoever goes on taking blocks meanwhile. */
#ifndef LIMIT_LEASE_H
#define LIMIT_LEASE_H

#include "limit/algorithm.h"

#define LEASE_LIFE (2 * USEC_PER_SEC)

enum {
	LEASE_LEAST = 2, /* units: a smaller block is worth no more than a take */
	LEASE_PART = 4,  /* a block is at most this part of what is left: */
	LEASE_OUT = 2,   /* and all that are out at most this part of a token bucket */
};

/* A counter while blocks are out. */
struct leased {
	struct bucket bucket;
	/* Token bucket: units out, of the turn that bucket.at lies in, and of the one before. */
	uint32_t fresh, stale;
};

/* What an agent asks for, and what it says of one block that it had. */
struct lease_ask {
	uint32_t want; /* units of the next block, at most; 0: none */
	uint32_t done; /* the block that is spent, or given back: all its units */
	uint32_t back; /* those of them that were not spent */
	int64_t mark;  /* the block's, by lease_mark() */
};

/* By what a counter knows its blocks again: the turn, or the start of the window. `state` as
 * lease_apply() left it. */
int64_t lease_mark(const struct quota *, const struct leased *state, struct now);

/* `stored` as it stands now: drained, but not below what was out. What ordinary takes find is its
 * `bucket` (limit/decision.h), and what they leave is kept with its `fresh` and `stale`. */
struct leased lease_read(const struct quota *, const struct leased *stored, struct now);

/* Does as `ask` says; `state` is then what is to be kept. Returns the units granted: at most
 * ask->want, less the nearer the limit, 0 or at least LEASE_LEAST. What it is told of a block that
 * it does not know any more is left aside. */
uint32_t lease_apply(const struct quota *, const struct leased *stored, const struct lease_ask *ask,
	struct now, struct leased *state);

/* How long a block that is granted now may be spent, from when it was asked for: less than
 * LEASE_LIFE (two clocks do not run alike), and until a little before its window ends; not above 0:
 * not at all. */
usec_t lease_life(const struct quota *, const struct leased *state, struct now);

#endif
