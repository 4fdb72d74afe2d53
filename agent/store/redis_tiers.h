/* Tiers in Redis, as seen by the whole process: the hash PREFIX "tiers", user or sha256:HEX ->
 * tier. Here is what is remembered of it (store/tier_cache.h), and the subscription that tells when
 * it changes. Workers look names up on connections of their own (store/redis_lookup.h).
 *
 *   change     the server tells by itself (CLIENT TRACKING, Redis 6 and newer) or is told by
 *              PUBLISH PREFIX "tiers" with whatever: all that is remembered is stale then, at most
 *              four times a second. (Which name has changed, the server does not say.)
 *   lost       while there is no subscription, nothing is believed for longer than half a second;
 *              and with a new one, all is stale once.
 *   no hash    whether there is one at all is asked for at the start, after every change, and
 *              twice a second where the server does not tell. Where there is none, no request
 *              waits.
 *   refused    by an ACL of before: one warning for each connection of the subscription, and it is
 *              as if there were none; asked again every second. Where only the server's own word
 *              is refused, a connection beside it asks whether it is allowed by now, after a
 * second, then after twice as long, up to half a minute. What is watched and remembered stays
 *              meanwhile.
 *   error      another one (it is busy, or loads its data): the connection ends, and begins anew.
 *
 * redis_tiers_new() and _free() are the control thread's, on its loop; the rest is any thread's. It
 * outlives the stores, and not the hub. */
#ifndef STORE_REDIS_TIERS_H
#define STORE_REDIS_TIERS_H

#include "store/redis_hub.h"
#include "store/redis_slot.h"
#include "store/tier_cache.h"

struct redis_tiers_settings {
	char prefix[64];
	char username[128], password[256];
	struct redis_tls *tls;      /* NULL: none; borrowed */
	uint64_t entries;           /* that are remembered, of the whole process */
	usec_t age;                 /* for how long, at most */
	_Atomic(uint64_t) *changes; /* counts them; this loop's thread alone writes it */
};

struct redis_tiers;

/* NULL: out of memory. Settings are copied, the hub is borrowed. */
struct redis_tiers *redis_tiers_new(
	const struct redis_tiers_settings *, struct redis_hub *, struct ev_loop *);
void redis_tiers_free(struct redis_tiers *); /* NULL is fine */

void redis_tiers_set_age(struct redis_tiers *, usec_t age); /* a reload */

struct tier_cache *redis_tiers_cache(struct redis_tiers *);
const char *redis_tiers_key(const struct redis_tiers *); /* PREFIX "tiers" */
uint16_t redis_tiers_slot(const struct redis_tiers *);   /* of a cluster */

/* Somebody has to ask whether the hash exists. _take_there() is true for one caller: it is he. All
 * bells of the hub are rung for it. Who then cannot, says so by _want_there(). */
bool redis_tiers_is_there_wanted(const struct redis_tiers *);
bool redis_tiers_take_there(struct redis_tiers *);
void redis_tiers_want_there(struct redis_tiers *);

/* Redis does not let us: warned of. */
void redis_tiers_refused(struct redis_tiers *, const char *error);

#endif
