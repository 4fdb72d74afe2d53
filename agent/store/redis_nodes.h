/* The servers of Redis that a worker asks: the one there is, or the masters of a cluster, and which
 * of them has which slot. Calls find their way here: each is for one slot, what comes for it in one
 * turn of the loop travels together, and one that came to the wrong node is sent on.
 *
 * A call is sent again only when a node has said that it did nothing: MOVED (the node that it names
 * has the slot, and the map is asked for anew), ASK (for this call alone), TRYAGAIN (its keys are
 * on their way between two nodes: a few milliseconds later, each plan by itself). All within the
 * deadline that it has from the beginning.
 *
 * One thread: that of its loop. */
#ifndef STORE_REDIS_NODES_H
#define STORE_REDIS_NODES_H

#include "store/redis_map.h"
#include "store/redis_node.h"

struct redis_nodes;

/* As redis_node_events.ended. */
typedef void redis_nodes_ended(void *owner, struct node_call *, bool answered, struct now);

/* Begins to connect as soon as the hub knows where to and rings. NULL: out of memory. */
struct redis_nodes *redis_nodes_new(const struct redis_settings *, struct redis_stats *,
	struct redis_hub *, redis_nodes_ended *, void *owner, struct ev_loop *);
/* Ends what waits as redis_nodes_end_all() does. NULL is fine. */
void redis_nodes_free(struct redis_nodes *);

void redis_nodes_set_timeout(struct redis_nodes *, usec_t timeout);

/* The hub has rung: it knows more. */
void redis_nodes_look(struct redis_nodes *);

/* The node that has the slot; NULL: not known, or no room for it. Without a cluster, whatever the
 * slot: the one. */
struct redis_node *redis_nodes_at(struct redis_nodes *, uint16_t slot);

/* A node has said that not it has the slot, but who is at that address: the node there, NULL if
 * there is no room for it. Of a MOVED it is remembered, and the map asked for anew. */
struct redis_node *redis_nodes_follow(
	struct redis_nodes *, uint16_t slot, enum redis_redirect, const struct redis_address *);

/* Adds a plan, all of whose takes lie in that slot. false: no call has room. `ended` follows, from
 * the loop. */
bool redis_nodes_add(struct redis_nodes *, uint16_t slot, struct plan *);
/* The same for what comes after; it is freed where there is no room. */
bool redis_nodes_add_after(struct redis_nodes *, struct redis_after *);

/* The same for what a ledger wants. false: there is no room, or nobody who works. */
bool redis_nodes_add_ask(struct redis_nodes *, const struct ledger_ask *);

/* How often a server was lost, or given up for a while, or its clock was set. */
uint64_t redis_nodes_lost(const struct redis_nodes *);

/* Before the loop sleeps. */
void redis_nodes_send(struct redis_nodes *);

/* Ends all that waits, unanswered, before it returns. Not from inside `ended`. */
void redis_nodes_end_all(struct redis_nodes *);

#endif
