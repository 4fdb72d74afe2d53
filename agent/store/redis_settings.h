/* What a worker's Redis store needs to know of the configuration, and what it counts. */
#ifndef STORE_REDIS_SETTINGS_H
#define STORE_REDIS_SETTINGS_H

#include "base/histogram.h"

#include <stdbool.h>

struct redis_tiers;

/* Copied. */
struct redis_settings {
	char prefix[64];
	char username[128], password[256]; /* "": none */
	int db;
	struct redis_tls *tls; /* NULL: none; borrowed */
	unsigned workers;      /* of the agent, each with a store: they share what it may lease */
	usec_t timeout;        /* of a check, from store_take() to plan->done(); 1 ms at least */
	struct redis_tiers *tiers; /* borrowed; NULL: the store knows of none */
};

/* Counters of one store, over all its nodes; one writer, read by anyone. */
#define REDIS_COUNTERS(X) \
	X(calls, COUNTER, "calls of the script") \
	X(checks, COUNTER, "checks that they carried") \
	X(answered, COUNTER, "checks that Redis answered") \
	X(remembered, COUNTER, "checks denied for what Redis denied before, without asking") \
	X(leased, COUNTER, "checks allowed from blocks in hand, without asking") \
	X(lease_blocks, COUNTER, "blocks of units that were taken ahead") \
	X(lease_refused, COUNTER, "blocks that were asked for, and not to be had") \
	X(lease_granted, COUNTER, "units of blocks that were taken ahead") \
	X(lease_spent, COUNTER, "of these, spent") \
	X(lease_returned, COUNTER, "of these, given back") \
	X(lease_dropped, COUNTER, "of these, neither spent nor given back") \
	X(lease_held, GAUGE, "of these, in hand now") \
	X(timed_out, COUNTER, "checks that waited longer than redis.timeout") \
	X(failed, COUNTER, "checks that met an error or a lost connection") \
	X(refused, COUNTER, \
		"checks that were not sent: no connection, breaker open, or too many in flight") \
	X(redirected, COUNTER, "calls sent again: MOVED, ASK, TRYAGAIN") \
	X(split, COUNTER, "checks whose limits lie in several slots of a cluster") \
	X(refunds, COUNTER, \
		"parts of checks that were refunded, or charged as denied, after the fact") \
	X(refunds_lost, COUNTER, "of these, such as are not known to have got there") \
	X(scripts_sent, COUNTER, "times the script had to be sent (NOSCRIPT)") \
	X(connects, COUNTER, "connections that were opened") \
	X(connects_failed, COUNTER, "connections that could not be opened") \
	X(breaks, COUNTER, "times the breaker opened") \
	X(tiers_asked, COUNTER, "names that Redis was asked the tier of") \
	X(tiers_remembered, COUNTER, \
		"checks whose client's tier, or that he has none, was remembered") \
	X(tiers_old, COUNTER, \
		"checks that nobody could be asked for: what was known before had to do") \
	X(tiers_failed, COUNTER, "checks that got no answer to that: likewise")

struct redis_stats {
#define X(name, kind, help) _Atomic(uint64_t) name;
	REDIS_COUNTERS(X)
#undef X
	struct histogram call_time; /* of a call of the script, from sent to answered */
	_Atomic(bool) degraded;     /* the failure policy answers */
};

static inline void redis_count(_Atomic(uint64_t) *counter, uint64_t n)
{
	uint64_t was = atomic_load_explicit(counter, memory_order_relaxed);
	atomic_store_explicit(counter, was + n, memory_order_relaxed);
}

#endif
