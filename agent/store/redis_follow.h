/* A connection that goes where the hub says a slot is: for what control keeps in Redis, with a
 * connection of its own. One thread: that of its loop. */
#ifndef STORE_REDIS_FOLLOW_H
#define STORE_REDIS_FOLLOW_H

#include "store/redis_conn.h"
#include "store/redis_map.h"

#include <ev.h>

/* The owner's; its fields are this file's. */
struct redis_follow {
	struct redis_hub *hub;
	struct redis_conn *conn;
	struct ev_loop *loop;
	uint16_t slot;
	struct redis_listener listener;
	ev_async bell;
	struct redis_addresses addresses;
	unsigned address_at;
	struct redis_address sent_to; /* by MOVED, and not by the hub; "" */
	usec_t sent_at;
	unsigned sent_n; /* since then */
	/* Another place, or none: what was open is closed, and nothing that was asked is answered.
	 */
	void (*moved)(void *owner);
	void *owner;
};

/* Hub and connection are borrowed, and outlive redis_follow_stop(). */
void redis_follow_start(struct redis_follow *, struct redis_hub *, struct redis_conn *,
	uint16_t slot, struct ev_loop *, void (*moved)(void *owner), void *owner);
void redis_follow_stop(struct redis_follow *);

/* What a node of the cluster says instead of an answer, if `error` is that, of this slot. MOVED:
 * the connection goes to whom it names, and `moved` is called; else, and where it may not (more
 * than a few in a second), the same is to be asked again in a while. REDIRECT_NONE: it is a
 * refusal. */
enum redis_redirect redis_follow_redirect(struct redis_follow *, const char *error);

/* Where the connection is, or tries to be; NULL: nobody knows where. Borrowed, until the loop goes
 * on.
 */
const struct redis_address *redis_follow_place(const struct redis_follow *);

/* Another connection to where it is; `moved` is called. */
void redis_follow_anew(struct redis_follow *);

/* For the connection's `failed`: the next address in the list, when it tries again. */
void redis_follow_failed(struct redis_follow *);

#endif
