/* One connection to Redis on a libev loop, by hiredis' asynchronous interface: connects, says who
 * it is, and comes back by itself after a loss. Sends commands in order and brings their replies in
 * that order. Knows nothing of limits.
 *
 * hiredis is kept on a short lead, because it trusts its peer: a reply that nobody asked for ends
 * the process (an assertion), and an announced length is believed. Here either ends the connection.
 *
 * One thread: that of its loop. Nothing here blocks. */
#ifndef STORE_REDIS_CONN_H
#define STORE_REDIS_CONN_H

#include "store/redis_hub.h"

#include <stddef.h>

struct redisReply;
struct redis_conn;
struct redis_tls;

/* What is called back; from the loop, never from inside a function below. */
struct redis_conn_events {
	/* It is open, and has answered its handshake well. */
	void (*ready)(void *owner);
	/* It was ready and is no more: of what was sent no reply will come. */
	void (*lost)(void *owner, const char *why);
	/* It could not be opened. Like `lost`, followed by another attempt, after a while. `hint`
	 * says what to do about it; NULL: nothing that this knows. */
	void (*failed)(void *owner, const char *why, const char *hint);
	/* The reply to the oldest command that has none yet. Never NULL; freed after. */
	void (*reply)(void *owner, const struct redisReply *);
};

/* Copied, but for the script. */
struct redis_conn_settings {
	char username[128], password[256];
	int db;
	bool auth_if_asked; /* only where the server says NOAUTH (sentinels) */
	usec_t open_within; /* from connect() to the end of the handshake, that of TLS included */
	struct redis_tls *tls; /* NULL: none; borrowed */
	/* Loaded in the handshake, which goes well only if Redis calls it `sha1`. NULL: a PING
	 * takes its place. */
	const char *script, *sha1;
	size_t script_bytes;
	size_t reply_max; /* bytes of one reply and its elements: more than it needs to be */
};

/* Idle until it is told where to. NULL: out of memory. */
struct redis_conn *redis_conn_new(const struct redis_conn_settings *,
	const struct redis_conn_events *, void *owner, struct ev_loop *);
/* No event comes any more. Not from inside one. NULL is fine. */
void redis_conn_free(struct redis_conn *);

/* Where to, from now on: what is open (or opening) to another place is closed, without an event,
 * and the new place tried at once. NULL: nowhere. `master_only`: ask for its ROLE first, and take
 * nothing but a master. false: it was there already, or on its way. */
bool redis_conn_use(struct redis_conn *, const struct redis_address *, bool master_only);
/* The same for the next attempt, which comes when it would have come. For use in `failed`. */
void redis_conn_aim(struct redis_conn *, const struct redis_address *, bool master_only);

bool redis_conn_is_ready(const struct redis_conn *);
/* It was given up for a reply beyond `reply_max`: the one to the oldest command that has none.
 * Until the next attempt. */
bool redis_conn_was_too_large(const struct redis_conn *);

/* Appends a command; redis_conn_flush() writes what was appended as far as the socket takes it now
 * (the rest follows by itself). false: it is not ready, or out of memory, and then the connection
 * is given up (`lost` follows). */
bool redis_conn_send(struct redis_conn *, unsigned argc, const char *argv[], size_t argv_bytes[]);
void redis_conn_flush(struct redis_conn *);

/* SUBSCRIBE to the channels. From then on whatever the server says comes as a `reply`, asked for or
 * not: first a PONG, then what SUBSCRIBE and PUBLISH bring. (What may be sent then is PING.) Ends
 * with the connection. false: as redis_conn_send(). */
bool redis_conn_subscribe(struct redis_conn *, unsigned channel_n, const char *channel[]);

/* Gives the connection up (a peer that hangs, or talks nonsense): `lost` or `failed` follows, and
 * another attempt, after a while that doubles with each (50 ms to 2 s, half of it by chance) until
 * redis_conn_is_good() says that all is well. */
void redis_conn_give_up(struct redis_conn *, const char *why);
void redis_conn_is_good(struct redis_conn *);

/* For whoever waits and comes back: the next delay, between half of *last doubled and all of it. */
usec_t redis_backoff(usec_t *last, uint64_t *seed);

#endif
