/* The Redis store: every limit of a request charged in one round trip, atomically, by a script
 * (redis_script.lua) with the server's clock. What it brings back are the buckets as they were and
 * the instant; plan_charge() then finds here what the script found there, bit for bit.
 *
 * A worker has one of these, on its own loop. A server of Redis as it sees it, with the connection
 * and what is under way on it, is in redis_node.h. What all workers share (where Redis is, the log
 * lines of its absence) is in redis_hub.h.
 *
 *   take      gathers: what comes in one turn of the loop travels in one call, sent before the
 *             loop sleeps, so nothing is waited for. Behind a bounded number of calls under way
 *             the next one gathers for longer.
 *   answer    within redis_settings.timeout of store_take(), whatever happens: from Redis, or by
 *             the failure policy (limit/fallback.h). A call that met an error, a lost connection
 *             or its deadline is never sent again: it may have been charged. (NOSCRIPT alone says
 *             that it was not.)
 *   breaker   after some failures in a row nobody waits any more: checks are answered by the
 *             failure policy inside store_take(), until a call of the store's own comes back in
 *             time.
 *
 *   clock     the server's, of whose steps nobody can know: a window that lies in the future is
 *             read as of now each time, until somebody is charged.
 *
 * Lifetimes: redis_store_new() before the worker's thread runs its loop, store_close() after the
 * loop has ended and before it is destroyed; in between all functions on that loop's thread, but
 * for redis_store_stats(). The hub, the memory store and the loop are borrowed, and outlive it. */
#ifndef STORE_REDIS_H
#define STORE_REDIS_H

#include "store/memory.h"
#include "store/redis_settings.h"
#include "store/store.h"

#include <ev.h>

struct redis_store;
struct redis_hub;

/* Begins to connect as soon as the loop runs and the hub knows where to. `local` answers while
 * Redis is away (on_failure "local") and is kept warm. NULL: out of memory. */
struct redis_store *redis_store_new(const struct redis_settings *, struct redis_hub *,
	struct memory_store *local, struct ev_loop *);

/* Its take() answers STORE_DONE by the failure policy where nobody is to be asked, else
 * STORE_PENDING, and never calls plan->done from inside itself. Its fall_back() asks nobody. Its
 * close() ends what waits as redis_store_settle() does, and frees the store. */
struct store *redis_store_base(struct redis_store *);

/* A reload: of checks from now on. */
void redis_store_set_timeout(struct redis_store *, usec_t timeout);

/* These counters began anew, at least once, before now: nothing of what is remembered or in hand of
 * them holds, nor what Redis answers to calls that are under way. (The memory store is told by
 * itself.) */
void redis_store_erased(struct redis_store *, const struct key *, unsigned n);

/* How many checks wait for an answer, and blocks to be taken or given back. In a drain the loop
 * goes on until it is 0: redis.timeout at most. */
unsigned redis_store_waiting(const struct redis_store *);

/* The beginning of a drain: blocks in hand go back, and no more are taken. */
void redis_store_drain(struct redis_store *);

/* For a stop that does not wait: every check that waits gets the failure policy's answer, its
 * plan->done called before this returns. Not from inside a plan->done. */
void redis_store_settle(struct redis_store *);

const struct redis_stats *redis_store_stats(const struct redis_store *); /* any thread */

#endif
