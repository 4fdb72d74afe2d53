/* SPOP connections of one loop: one recv, then all frames that it brought, in place, then one
 * send of all their answers. Knows nothing of mailboxes and listeners, and of other threads only
 * that they may hand connections over (handover.h).
 *
 * All functions: on the loop's thread. */
#ifndef SERVER_CONN_H
#define SERVER_CONN_H

#include "server/buffer.h"
#include "server/busy_poll.h"
#include "server/check.h"
#include "server/unread.h"

#include <ev.h>

/* Timeouts. HAProxy decides how long it keeps idle connections, but where it is crowded. */
#define CONN_HELLO_TIMEOUT (5 * USEC_PER_SEC)  /* from accept to the end of HELLO */
#define CONN_FRAME_TIMEOUT (5 * USEC_PER_SEC)  /* from a frame's first bytes to its last */
#define CONN_CHECK_TIMEOUT (5 * USEC_PER_SEC)  /* from a health check's answer to its end */
#define CONN_WRITE_TIMEOUT (10 * USEC_PER_SEC) /* of a peer that reads nothing at all */
/* Beyond agent.max_connections there are few places, which are for checks. */
#define CONN_BEYOND_TIMEOUT USEC_PER_SEC
#define CONN_LINGER_TIMEOUT (500 * USEC_PER_MSEC)

struct conn;

/* What the connections of one loop share. */
struct conns {
	struct ev_loop *loop;
	struct snapshot *snapshot; /* borrowed; swapped by the owner between callbacks */
	struct metrics *metrics;
	struct checker checker;
	struct session_settings settings; /* of connections that are opened from now on */
	struct buffer_pool pool;
	struct busy_poll busy_poll;
	bool may_busy_poll;
	struct conn *head;
	struct conn *_Atomic arrivals; /* from other loops' threads: handover.h */
	int epoll;                     /* of the loop: loop_epoll(); -1: not known */
	ev_async *bell;     /* of this loop, rung when there are any; NULL: nobody hands over */
	struct conn *dirty; /* those with answers that came later than their requests' turn */
	ev_prepare flusher; /* sends them, before the loop sleeps; runs while there are any */
	unsigned n;
	_Atomic(unsigned) open; /* n and what was promised: who mails or hands over adds before,
				 * each that ends or leaves here takes one off */
	_Atomic(bool) crowded;  /* those that are idle go */
	struct unread unread;
	unsigned looks; /* rounds of conns_expire() */
	bool draining;
	usec_t stopping_since; /* steady; 0: not */
	bool reads_no_more;    /* a stop has gone on for long */
};

/* The store, metrics and events are borrowed, and outlive it. false: out of memory. */
bool conns_init(struct conns *, struct ev_loop *, struct snapshot *, struct store *,
	struct metrics *, struct event_ring *);
/* Closes what is left; checks that wait for the store are abandoned. Then close the store, which
 * ends them, and then conns_fini(). */
void conns_close(struct conns *);
void conns_fini(struct conns *); /* copes with the half-built */

/* Does agent.busy_poll count, before the loop sleeps? Only where a core is left for those who ask.
 */
void conns_allow_busy_poll(struct conns *, bool allow);

/* The next snapshot (the caller keeps it alive, and the old one until this returns). */
void conns_use(struct conns *, struct snapshot *);

/* Takes the non-blocking `fd` over. `conns->open` has been counted up for it. `beyond`
 * agent.max_connections only a health check is answered: HAProxy would take an agent for DOWN that
 * serves all the others. */
void conns_add(struct conns *, int fd, const char *peer, bool beyond, struct now);

/* Counts and logs one that is turned away because agent.max_connections are open. Any thread. */
void conn_refused(struct metrics *, const char *peer, int64_t max_connections);

/* Somebody came who found no room, or nearly none: those that are idle go, some with each
 * conns_expire(). (HAProxy up to 3.0 opens a connection for each request of a burst, and keeps it.)
 * Any thread. */
void conns_make_room(struct conns *);

/* Health checks fail from now on; all else is served. */
void conns_drain(struct conns *);

/* Every half second or so: closes what is beyond its deadline. */
void conns_expire(struct conns *, struct now);

/* Call it every few milliseconds until it returns true: answers what has been received, says
 * DISCONNECT(0) (to HAProxy 3.1 and newer 10 ms after the last ACK), lingers. Bounded to about a
 * second, and by redis.timeout, at most STOP_STORE_MAX, where checks wait for the store. */
#define STOP_STORE_MAX (5 * USEC_PER_SEC)
bool conns_stop(struct conns *, struct now);

#endif
