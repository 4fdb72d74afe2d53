/* Which node of a cluster has which slot, as one of them told it (CLUSTER SLOTS). Immutable once it
 * is read, and shared by all threads. */
#ifndef STORE_REDIS_MAP_H
#define STORE_REDIS_MAP_H

#include "store/redis_address.h"
#include "store/redis_slot.h"

#include <stdatomic.h>
#include <stddef.h>

enum { REDIS_NODES_MAX = 128, REDIS_NO_NODE = 255 };

struct redis_map {
	_Atomic(unsigned) refs;
	uint64_t generation; /* rises with every one that is published */
	unsigned node_n;
	struct redis_address node[REDIS_NODES_MAX]; /* masters, in the order of their first slots */
	uint8_t slot[REDIS_SLOTS];                  /* which node; REDIS_NO_NODE */
};

struct redisReply;

/* `asked`: who answered; an address that it does not tell is its own. A new map with one reference.
 * NULL: this is no map to go by, and `why` says so (one without a slot, with names that come
 * without an address, with more nodes than REDIS_NODES_MAX, or garbage); or out of memory. */
struct redis_map *redis_map_read(
	const struct redisReply *, const struct redis_address *asked, char *why, size_t why_size);

/* The same slots at the same places? (However the nodes are numbered.) */
bool redis_map_eq(const struct redis_map *, const struct redis_map *);

struct redis_map *redis_map_ref(struct redis_map *);
void redis_map_unref(struct redis_map *); /* NULL is fine */

/* What a node says instead of an answer when a slot is not its own: "MOVED 3999 127.0.0.1:6381",
 * "ASK 3999 ...". */
enum redis_redirect { REDIRECT_NONE, REDIRECT_MOVED, REDIRECT_ASK, REDIRECT_TRYAGAIN };

/* MOVED and ASK: *slot, and *to; to->host is "" for one whose address is a name, or missing where
 * `asked` has none. An error that only looks like one is none. */
enum redis_redirect redis_redirect_read(const char *error, const struct redis_address *asked,
	uint16_t *slot, struct redis_address *to);

#endif
