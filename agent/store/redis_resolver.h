/* Looks names up on a thread of its own, which may hang in getaddrinfo() and then is left behind:
 * nothing else has a resolver that does not block. */
#ifndef STORE_REDIS_RESOLVER_H
#define STORE_REDIS_RESOLVER_H

#include "store/redis_address.h"

#include <ev.h>

struct redis_resolver;

struct redis_resolved {
	struct redis_host server; /* of which this is the answer */
	struct redis_addresses addresses;
	char why[96];      /* "": found */
	unsigned answered; /* times; 0: not yet */
};

/* Looks up those of `server` (copied; 1..REDIS_SERVERS_MAX) that are names, once; `bell` is sent
 * for each answer. NULL: out of memory, or no thread. */
struct redis_resolver *redis_resolver_new(
	const struct redis_host *server, unsigned server_n, struct ev_loop *, ev_async *bell);
/* Once more. */
void redis_resolver_wake(struct redis_resolver *);
/* Another server in place of `i`: looked up next, and what is known of the one before forgotten. */
void redis_resolver_change(struct redis_resolver *, unsigned i, const struct redis_host *);
/* What is known of server `i` now. */
struct redis_resolved redis_resolver_get(struct redis_resolver *, unsigned i);
/* Never waits. NULL is fine. */
void redis_resolver_free(struct redis_resolver *);

#endif
