/* Names looked up in the hash of tiers, for one worker, on the connection of its node: those of one
 * turn of the loop in one HMGET, each name once. What comes back is remembered for all workers
 * (store/redis_tiers.h), "nobody's" too.
 *
 * Bounded: so many names under way at once, none longer than REDIS_LOOKUP_NAME_MAX (such a one is
 * on no tier); beyond that, what is remembered has to do, however old. Nothing secret leaves: of a
 * secret field its SHA-256 is asked for, and a value that looks like one is never asked for in
 * clear.
 *
 * One thread: its loop's. */
#ifndef STORE_REDIS_LOOKUP_H
#define STORE_REDIS_LOOKUP_H

#include "store/redis_nodes.h"
#include "store/redis_tiers.h"
#include "store/store.h"

enum { REDIS_LOOKUP_NAME_MAX = 1024 };

struct redis_lookup;

/* All borrowed. NULL: out of memory. */
struct redis_lookup *redis_lookup_new(
	struct redis_tiers *, struct redis_nodes *, struct redis_stats *, struct ev_loop *);
/* After the nodes; nobody waits any more. NULL is fine. */
void redis_lookup_free(struct redis_lookup *);

/* As store_ops.find_tier. `may_ask`: else what is remembered has to do. */
enum store_rc redis_lookup_find(struct redis_lookup *, struct tier_ask *, bool may_ask);

/* Before the loop sleeps, and before redis_nodes_send(): asks for what was gathered, and whether
 * there is a hash at all, if somebody is to find that out. */
void redis_lookup_send(struct redis_lookup *);

unsigned redis_lookup_waiting(const struct redis_lookup *); /* asks */
/* Ends what was gathered and not sent, as if it had failed. (What was sent, the node ends.) */
void redis_lookup_end_all(struct redis_lookup *);

#endif
