/* Busy polling: after traffic a loop asks for more, for a few microseconds, before it falls asleep.
 * Falling asleep and being woken costs more than a decision, and a request that comes at the next
 * moment would pay for it.
 *
 * It takes only what nobody else wants: it yields between any two polls, and where another thread
 * has used that, or where what it waits for does not come, it leaves off for a while. It delays
 * nothing: sockets, timers and other threads' calls are looked at with every poll, and come first.
 *
 * All functions: on the loop's thread, or before it runs. Times are of the steady clock. */
#ifndef SERVER_BUSY_POLL_H
#define SERVER_BUSY_POLL_H

#include "base/clock.h"
#include "server/metrics.h"

#include <ev.h>
#include <stdatomic.h>
#include <stdbool.h>

struct busy_poll {
	struct ev_loop *loop;
	ev_idle idle;          /* runs while nothing else does, and keeps the loop from sleeping */
	usec_t longest;        /* of one stretch of polling; 0: never */
	usec_t since;          /* the first poll of this stretch; 0: to come */
	usec_t polled;         /* the last poll */
	usec_t again_at;       /* no polling before */
	usec_t tick_at;        /* when another thread last had the core for a tick; 0: never */
	usec_t tick_rest;      /* how long was then left off */
	int credit;            /* how often it paid off, less how often it did not */
	_Atomic(usec_t) spent; /* polling, in all; any thread may read it */
	struct metrics *metrics;
};

/* Polls never, until busy_poll_set(). The metrics are the loop's own, and borrowed. */
void busy_poll_init(struct busy_poll *, struct ev_loop *, struct metrics *);
void busy_poll_stop(struct busy_poll *);

/* Polls up to `longest` after traffic from now on; 0: never. */
void busy_poll_set(struct busy_poll *, usec_t longest);

/* There was traffic at `now`: what comes next is waited for. */
void busy_poll_note(struct busy_poll *, usec_t now);

/* One poll, at `now`, has brought nothing. false: the loop may sleep. The loop's idle watcher calls
 * it; else only tests. */
bool busy_poll_step(struct busy_poll *, usec_t now);

#endif
