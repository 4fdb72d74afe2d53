/* The sentinels: asks each of them who is master, and elects whom most of them name. Dead and lying
 * ones are outvoted. Asked is once in a while, and who says by itself that the master is another
 * one now, at once (redis_news.h). Where they name the master by a name, each of them has a
 * resolver of its own: a name that is made up to hang holds nobody else up.
 *
 * The control thread's, on its loop. */
#ifndef STORE_REDIS_SENTINEL_H
#define STORE_REDIS_SENTINEL_H

#include "store/redis_hub.h"

struct redis_sentinels;

struct redis_sentinels_events {
	/* Whom they name, the one that most of them do first. Again with every answer. */
	void (*named)(void *owner, const struct redis_addresses *);
	/* One could not be reached: its name may have come to mean another address. */
	void (*failed)(void *owner);
};

/* Of `settings`, master, server (copied), username and password are used. NULL: out of memory. */
struct redis_sentinels *redis_sentinels_new(const struct redis_hub_settings *settings,
	const struct redis_sentinels_events *, void *owner, struct ev_loop *);
void redis_sentinels_free(struct redis_sentinels *); /* NULL is fine */

/* Where sentinel `i` is. One that is connected stays so. */
void redis_sentinels_use(struct redis_sentinels *, unsigned i, const struct redis_addresses *);

/* Asks them all, unless they were less than `soonest` ago. */
void redis_sentinels_ask(struct redis_sentinels *, usec_t now, usec_t soonest);
/* The names of masters once more: they may have come to mean other addresses. */
void redis_sentinels_resolve(struct redis_sentinels *);
/* `named`, by what is still fresh of what they said. */
void redis_sentinels_elect(struct redis_sentinels *, usec_t now);

#endif
