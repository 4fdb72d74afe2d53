/* Where Redis is: what all workers share. Has names looked up (redis_resolver.h), the
 * sentinels asked who is master (redis_sentinel.h), the nodes of a cluster who has which slot
 * (redis_cluster.h), and tells every store that listens. It also
 * keeps the log lines of Redis' absence to one when it begins and one when it ends, however many
 * workers there are.
 *
 * One for each process, on the control loop. redis_hub_new() and _free() are the control
 * thread's; what workers call is safe on any thread. It outlives the stores. */
#ifndef STORE_REDIS_HUB_H
#define STORE_REDIS_HUB_H

#include "base/clock.h"
#include "store/redis_address.h"

#include <ev.h>

enum redis_mode { REDIS_SINGLE, REDIS_SENTINEL, REDIS_CLUSTER };

struct redis_hub_settings {
	enum redis_mode mode;
	const struct redis_host *server; /* copied. REDIS_SINGLE: exactly one; REDIS_SENTINEL: the
					  * sentinels; REDIS_CLUSTER: some nodes */
	unsigned server_n;               /* 1..REDIS_SERVERS_MAX */
	char master[64];                 /* REDIS_SENTINEL: its name */
	/* For sentinels that ask for it, and for nodes. */
	char username[128], password[256];
	struct redis_tls *tls; /* to these; NULL: none; borrowed */
};

struct redis_hub;
struct redis_map;

/* Starts looking; returns at once. NULL: out of memory, no descriptors or no thread, or settings
 * that cannot be (`err` says which). */
struct redis_hub *redis_hub_new(
	const struct redis_hub_settings *, struct ev_loop *, char *err, size_t err_size);
/* After the last store was closed; the loop must still be there. NULL is fine. Never waits for a
 * resolver that hangs. */
void redis_hub_free(struct redis_hub *);

/* ---- what stores call: any thread ---- */

/* A store that wants to know: `bell` is sent with every change, on its own loop. */
struct redis_listener {
	struct ev_loop *loop;
	ev_async *bell;
	struct redis_listener *next, **link; /* the hub's */
	bool away;                           /* the hub's */
};

void redis_hub_listen(struct redis_hub *, struct redis_listener *);
void redis_hub_leave(struct redis_hub *, struct redis_listener *);

/* Sends every bell: there is something else to look for. */
void redis_hub_ring(struct redis_hub *);

/* REDIS_SINGLE, REDIS_SENTINEL. */
struct redis_addresses redis_hub_addresses(struct redis_hub *);

/* REDIS_CLUSTER: with a reference of the caller's; NULL: not known yet. */
struct redis_map *redis_hub_map(struct redis_hub *);
bool redis_hub_is_cluster(const struct redis_hub *);

/* Where a key of that slot is: of a cluster its node, else as redis_hub_addresses(). */
struct redis_addresses redis_hub_addresses_of(struct redis_hub *, uint16_t slot);

/* What the hub said leads nowhere (refused, timed out, a replica): it looks again, at most once a
 * second. */
void redis_hub_ask_again(struct redis_hub *);

/* This store's checks get the failure policy from now on / Redis answers again. Logged once for
 * all: `store_degraded why=… server=…` when the first one goes, `store_recovered away_s=…` when the
 * last one has been back for a second; `store_still_degraded why=… server=…` where meanwhile
 * something else is to be done about it, at most once a minute but for the first time. `hint` (may
 * be NULL): what that is. */
void redis_hub_away(struct redis_hub *, struct redis_listener *, const char *why, const char *hint,
	const struct redis_address *);
void redis_hub_back(struct redis_hub *, struct redis_listener *);

/* What the log said of it, and since when; `why` is the latest that some store has met. */
struct redis_hub_away {
	usec_t since; /* steady */
	char why[256], hint[320];
	char server[REDIS_ADDRESS_TEXT_MAX]; /* "": none in particular */
};
/* false: none is away, as far as is known. */
bool redis_hub_is_away(struct redis_hub *, struct redis_hub_away *);

/* What one store knows of a server, for the others: calls with checks go well there now / have they
 * since that steady time? */
void redis_hub_works(struct redis_hub *, const struct redis_address *);
bool redis_hub_has_worked(struct redis_hub *, const struct redis_address *, usec_t since);

#endif
