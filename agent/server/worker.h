/* A worker: one thread with one loop, its connections and its counters. All functions here are
 * for the control thread; the worker's own side is in worker.c. */
#ifndef SERVER_WORKER_H
#define SERVER_WORKER_H

#include "server/check.h"
#include "server/mailbox.h"
#include "store/redis.h"

#include <ev.h>

struct worker;

struct worker_args {
	unsigned number; /* from 1; the thread's name has it */
	struct snapshot *snapshot;
	struct memory_store *memory;
	struct bans *bans;
	struct known *known;   /* NULL: nobody asks by a hash */
	struct redis_hub *hub; /* NULL: the memory store is the store, not only its understudy */
	const struct redis_settings *redis; /* with a hub; copied */
	struct ev_loop *home; /* the control loop, and what is sent there when the thread is done */
	ev_async *bell;
	const char *schedstat; /* what worker_time() reads, for tests; NULL: the kernel's file */
};

/* NULL: out of memory, or no descriptors left. */
struct worker *worker_new(const struct worker_args *);
/* Ends the thread at once if it runs. NULL is fine. */
void worker_free(struct worker *);

bool worker_start(struct worker *); /* false: no thread */

/* Connections, those on their way to it included. */
unsigned worker_connections(const struct worker *);

bool worker_mailbox_empty(const struct worker *);
bool worker_mailbox_full(const struct worker *);
/* Hands over a connection. The mailbox must not be full. */
void worker_mail(struct worker *, const struct letter *);

/* Within a second: connections that are idle go. */
void worker_make_room(struct worker *);

/* Asks it to hand over so much, in thousandths, of what its connections ask (handover.h). What was
 * asked before and is not done yet is forgotten. */
void worker_give(struct worker *, struct worker *to, unsigned share);

/* May it poll (busy_poll.h)? It may not until this says so. */
void worker_allow_busy_poll(struct worker *, bool allow);
bool worker_may_busy_poll(const struct worker *);

/* Is it to be SCHED_BATCH (scheduling.h)? It is not until this says so, and never where it may not:
 * where agent.batch_scheduling is off, the thread has been given a policy by others, before or
 * since its start, or the kernel has refused. */
void worker_set_batch(struct worker *, bool is_batch);
bool worker_may_be_batch(const struct worker *);

/* What its thread has done since the start, in microseconds. */
struct worker_time {
	uint64_t ran;    /* on a core; up to some milliseconds old */
	uint64_t polled; /* a part of that, about */
	uint64_t waited; /* it could have run, and had no core */
	uint64_t turns;  /* how often it got one */
};
/* false: the kernel does not tell, or the thread has not begun. */
bool worker_time(const struct worker *, struct worker_time *);
bool worker_time_is_known(void); /* does the kernel tell? */

/* Hands a snapshot over; the worker changes to it between two batches of frames. It takes a
 * reference of its own and gives that of the old one back, but never the last one of any: the
 * control thread keeps every snapshot until no worker has it, and frees it. */
void worker_publish(struct worker *, struct snapshot *);

/* These counters began anew: redis_store_erased(), soon. Nothing without Redis. false: out of
 * memory. */
bool worker_erased(struct worker *, const struct key *, unsigned n);

void worker_drain(struct worker *);         /* health checks fail */
void worker_stop(struct worker *);          /* answer what was received, say DISCONNECT, end */
void worker_stop_now(struct worker *);      /* just end */
bool worker_is_done(const struct worker *); /* the loop has ended; the bell was sent */

/* A question that only a living loop answers, for the watchdog. */
void worker_ping(struct worker *);
bool worker_has_answered(const struct worker *); /* the last one */

struct metrics *worker_metrics(struct worker *);
const struct redis_stats *worker_redis(const struct worker *); /* NULL: there is none */
struct event_ring *worker_events(struct worker *);
const struct tally *worker_tally(const struct worker *);
const struct top *worker_top(const struct worker *);

#endif
