/* Asks the nodes of a cluster who has which slot: one of them at a time, from those that were
 * configured and those that the last map named, on a connection that stays.
 *
 * The control thread's, on its loop. */
#ifndef STORE_REDIS_CLUSTER_H
#define STORE_REDIS_CLUSTER_H

#include "store/redis_hub.h"
#include "store/redis_map.h"

struct redis_cluster;

struct redis_cluster_events {
	/* A map that can be gone by, whose reference is the callee's; maybe the same as before. */
	void (*mapped)(void *owner, struct redis_map *);
	/* One could not be reached, or has told no map. */
	void (*failed)(
		void *owner, const char *why, const char *hint, const struct redis_address *);
};

/* Of `settings`, server_n, username, password and tls are used. NULL: out of memory. */
struct redis_cluster *redis_cluster_new(const struct redis_hub_settings *,
	const struct redis_cluster_events *, void *owner, struct ev_loop *);
void redis_cluster_free(struct redis_cluster *); /* NULL is fine */

/* Where the configured node `i` is. */
void redis_cluster_use(struct redis_cluster *, unsigned i, const struct redis_addresses *);

/* Asks, unless that was less than `soonest` ago. `in_doubt`: the last map has led astray; where the
 * same node has told it twice, another one is asked. */
void redis_cluster_ask(struct redis_cluster *, usec_t now, usec_t soonest, bool in_doubt);

#endif
