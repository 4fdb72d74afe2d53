/* Who has the core when a worker is woken: the worker at once, as the kernel does by itself
 * (SCHED_OTHER), or first whoever runs there, until he sleeps (SCHED_BATCH).
 *
 * Where HAProxy and the agent share busy cores, each request that wakes the agent would interrupt
 * HAProxy in the middle of the work that brings the next ones; the agent would answer few with
 * each send, and HAProxy lose its caches. It pays only there, and only while who runs sleeps soon,
 * on average: one that computes all the time keeps the core for milliseconds. So it goes by what
 * the kernel says of the worker. Pure: knows no thread and no clock. */
#ifndef SERVER_SCHEDULING_H
#define SERVER_SCHEDULING_H

#include "base/clock.h"

#include <stdbool.h>

/* Of one worker, since its start. */
struct scheduling_account {
	uint64_t ran;      /* on a core, in microseconds */
	uint64_t polled;   /* a part of that (busy_poll.h) */
	uint64_t waited;   /* it could have run, and had no core; in microseconds */
	uint64_t turns;    /* how often it got one */
	uint64_t answered; /* requests */
};

struct scheduling {
	bool is_batch;
	struct scheduling_account last; /* as of `at` */
	usec_t at;                      /* steady time, as all here; 0: nothing is known yet */
	usec_t again_at;                /* not before */
	usec_t rest;                    /* after the last time that it cost too much */
};

/* All zero is a good beginning. At `now` the worker's account is this: shall it be SCHED_BATCH from
 * now on? What comes sooner than a tenth of a second after the last one changes nothing. NULL: it
 * has none, as nobody is connected to it, or the choice is not ours; that is never SCHED_BATCH. */
bool scheduling_step(struct scheduling *, const struct scheduling_account *, usec_t now);

#endif
