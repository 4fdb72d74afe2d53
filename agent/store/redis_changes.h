/* What the operator changes, shared by all agents of one Redis: the hash PREFIX "{changes}", name
 * -> text, and a number beside it that rises with each change, which every agent looks at twice a
 * second. The last thousand are in a stream besides, each under its number: so an agent reads what
 * has changed, and all only where it has just connected, or where a number is missing (it was away
 * for more, or an agent of an earlier release put something). Knows nothing of what the texts say.
 *
 * That number also tells of a Redis that has lost its data: agents then put again what they know.
 *
 * What is put while Redis is away is kept, bounded, and sent when it is back, before what is there
 * is read. The control thread's, on its loop. */
#ifndef STORE_REDIS_CHANGES_H
#define STORE_REDIS_CHANGES_H

#include "base/str.h"
#include "store/redis_hub.h"

struct redis_changes;

struct redis_changes_settings {
	char prefix[64];
	char username[128], password[256];
	int db;
	struct redis_tls *tls; /* NULL: none; borrowed */
	/* All that is there, in no order, whenever it may differ from what was told last: all that
	 * was put here before is in it. From the loop. */
	void (*told)(void *owner, const struct str *name, const struct str *text, size_t n);
	/* These have changed since, in that order; text.p NULL: it is no more. From the loop. */
	void (*news)(void *owner, const struct str *name, const struct str *text, size_t n);
	/* The number went back: data was lost, as when Redis came back empty, or a replica that had
	 * not heard of the last changes. What is known here is to be put again. From the loop. */
	void (*missing)(void *owner);
	/* redis_changes_state() is another one: Redis has more of what was put, or refuses it. From
	 * the loop. */
	void (*moved)(void *owner);
	void *owner;
};

/* NULL: out of memory. Settings are copied, the hub is borrowed. */
struct redis_changes *redis_changes_new(
	const struct redis_changes_settings *, struct redis_hub *, struct ev_loop *);
void redis_changes_free(struct redis_changes *); /* NULL is fine */

enum { REDIS_CHANGES_WAITING_MAX = 10000 };

/* Sets it for all agents, as soon as it can be; `text` NULL: takes it away. Its number: each has
 * one more than the one before. 0: out of memory, or too many wait for a Redis that is away. */
uint64_t redis_changes_put(struct redis_changes *, const char *name, const char *text);

struct redis_changes_state {
	uint64_t had;        /* Redis has all that was put, up to this number */
	unsigned waiting;    /* that it does not have yet */
	usec_t away_since;   /* steady; 0: it is there */
	const char *refused; /* what it says instead of doing what it is asked for; NULL: it does.
			      * Until the loop goes on */
};
struct redis_changes_state redis_changes_state(const struct redis_changes *);

/* What is there has been told, or cannot be had from this Redis as it is. */
bool redis_changes_is_heard(const struct redis_changes *);

struct redis_changes_trouble {
	usec_t since; /* steady */
	char why[256], hint[400];
};
/* Whether what others change is not heard here, or what is changed here not by them, and why. Not
 * of what passes in a few seconds, as a failover may. */
bool redis_changes_trouble(
	const struct redis_changes *, usec_t now, struct redis_changes_trouble *);

#endif
