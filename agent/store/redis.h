/* The Redis store: every limit of a request charged in one round trip, atomically, by a script
 * (redis_script.lua) with the server's clock. What it brings back are the buckets as they were and
 * the instant; plan_charge() then finds here what the script found there, bit for bit.
 *
 * A worker has one of these, on its own loop: all functions on that loop's thread, except where it
 * is said. What all workers share (addresses, tiers) is in redis_hub.h. */
#ifndef STORE_REDIS_H
#define STORE_REDIS_H

#include "store/memory.h"
#include "store/store.h"

#include <ev.h>

/* What a store needs to know of the configuration; copied. */
struct redis_settings {
	char prefix[64];
	char username[128], password[256];
	int db;
	usec_t timeout; /* of a check, from store_take() to plan->done() */
};

/* Counters of one store; one writer, read by anyone. */
#define REDIS_COUNTERS(X) \
	X(calls, "calls of the script") \
	X(checks, "checks that they carried") \
	X(answered, "checks that Redis answered") \
	X(timed_out, "checks that waited longer than redis.timeout") \
	X(failed, "checks that met an error or a lost connection") \
	X(refused, \
		"checks that were not sent: no connection, breaker open, or too many in flight") \
	X(scripts_sent, "times the script had to be sent (NOSCRIPT)") \
	X(connects, "connections that were opened") \
	X(connects_failed, "connections that could not be opened") \
	X(breaks, "times the breaker opened")

struct redis_stats {
#define X(name, help) _Atomic(uint64_t) name;
	REDIS_COUNTERS(X)
#undef X
	_Atomic(bool) degraded; /* the failure policy answers */
};

struct redis_store;
struct redis_hub;

/* `local` answers while Redis is away (on_failure "local") and is kept warm; borrowed, as is the
 * hub. NULL: out of memory. */
struct redis_store *redis_store_new(const struct redis_settings *, struct redis_hub *,
	struct memory_store *local, struct ev_loop *);
struct store *redis_store_base(struct redis_store *);
const struct redis_stats *redis_store_stats(const struct redis_store *); /* any thread */

#endif
