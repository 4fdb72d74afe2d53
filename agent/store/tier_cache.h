/* Who is on which tier, as Redis has said it: remembered for a while, "on none" as well. One for
 * the process, shared by its workers. Knows nothing of Redis, and reads no clock.
 *
 * What is remembered is found by a keyed hash, with a key of this process alone: no name of anybody
 * is kept. Bounded: the new takes the place of what was not asked for since. Any thread, but where
 * something else is said; a lock is held while a hundred bytes are copied. */
#ifndef STORE_TIER_CACHE_H
#define STORE_TIER_CACHE_H

#include "base/clock.h"
#include "store/store.h"

struct tier_cache;

/* Room for `entries` names, rounded up; `age`: how long what was heard holds, at most. Control
 * thread. NULL: out of memory. */
struct tier_cache *tier_cache_new(uint64_t entries, usec_t age);
void tier_cache_free(struct tier_cache *); /* nobody may be using it. NULL is fine */

/* By what a name is found. What was said of a secret one is not said of the same text in clear. */
struct key tier_cache_key(const struct tier_cache *, struct str name, bool secret);

/* TIER_STALE: `out` is what was heard, and may have changed since. TIER_NEW: nothing is known. */
enum tier_known { TIER_FRESH, TIER_STALE, TIER_NEW };
enum tier_known tier_cache_get(
	struct tier_cache *, struct key, usec_t steady, struct tier_text *out);

/* `epoch` and `asked`: as of when the question was sent; what was forgotten since is stale. */
void tier_cache_put(
	struct tier_cache *, struct key, const struct tier_text *, uint64_t epoch, usec_t asked);

/* From now on all that is remembered is stale. */
void tier_cache_forget(struct tier_cache *);
uint64_t tier_cache_epoch(const struct tier_cache *); /* rises with each tier_cache_forget() */

/* Nobody tells of changes (`watched` false, as at the start): then what is older than half a second
 * is stale, or than `age` if that is less. */
void tier_cache_set_watched(struct tier_cache *, bool watched);
void tier_cache_set_age(struct tier_cache *, usec_t age);

/* Is there anything to ask for? TIERS_NONE: nobody has a tier, and nobody needs to ask.
 * TIERS_REFUSED: Redis does not say (its ACL, or what stands there is something else). Begins as
 * TIERS_NOT_KNOWN. */
enum tiers_there { TIERS_NOT_KNOWN, TIERS_NONE, TIERS_SOME, TIERS_REFUSED };
enum tiers_there tier_cache_there(const struct tier_cache *);
/* `epoch`: as of when the question was sent; an answer from before a change says nothing, and is
 * left out. */
void tier_cache_set_there(struct tier_cache *, enum tiers_there, uint64_t epoch);

#endif
