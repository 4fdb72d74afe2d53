/* Where a server is: as it was configured, and as it can be connected to without looking anything
 * up. Pure. */
#ifndef STORE_REDIS_ADDRESS_H
#define STORE_REDIS_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

enum { REDIS_SERVERS_MAX = 64, REDIS_ADDRESSES_MAX = 8 };

/* As configured: a name, a numeric address (without brackets), or an absolute path with port 0. */
struct redis_host {
	char host[256];
	uint16_t port;
};

bool redis_host_eq(const struct redis_host *, const struct redis_host *);

/* Where to connect, without any name left to look up: never blocks. */
struct redis_address {
	char host[108]; /* numeric, or an absolute path */
	uint16_t port;  /* 0: a path */
	char name[256]; /* by which it was found, for its certificate; "": by what stands above */
};

/* The same place, whatever its name. */
bool redis_address_eq(const struct redis_address *, const struct redis_address *);
const char *redis_address_name(const struct redis_address *);
/* "127.0.0.1:6379", "[::1]:6379", or the path. */
enum { REDIS_ADDRESS_TEXT_MAX = 120 };
const char *redis_address_text(const struct redis_address *, char out[REDIS_ADDRESS_TEXT_MAX]);

/* An IPv4 or IPv6 address in text? */
bool redis_address_is_numeric(const char *host);
/* false: a name, that has to be looked up. */
bool redis_address_of(const struct redis_host *, struct redis_address *);

/* In the order to try them. A store stays with the one it has while that is in the list. */
struct redis_addresses {
	struct redis_address address[REDIS_ADDRESSES_MAX];
	unsigned n;          /* 0: not known yet, or not any more */
	uint64_t generation; /* rises with every change */
	bool master_only;    /* a server that says it is a replica is not the one (sentinel) */
};

/* The same addresses in the same order. */
bool redis_addresses_eq(const struct redis_addresses *, const struct redis_addresses *);

#endif
