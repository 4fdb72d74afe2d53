/* How many workers carry the connections, and what moves between them. Pure: loads and a time in,
 * moves out; knows no thread, no socket and no clock.
 *
 * As few workers as carry them: each that is awake is one more thread that wants a core, is woken
 * for a share of the requests, and answers fewer with each send. One more is tried when one is
 * saturated, and kept if it pays: whether the machine has a core for it, no number tells in every
 * container, but who waits for a core, and what is answered, do. */
#ifndef SERVER_BALANCE_H
#define SERVER_BALANCE_H

#include "base/clock.h"

#include <stdbool.h>
#include <stdint.h>

enum { WORKERS_MAX = 256 };

/* Of one worker, since the last step; times in thousandths of that. */
struct balance_load {
	unsigned connections; /* now */
	unsigned busy;        /* it worked: neither asleep nor polling */
	unsigned wait;        /* it could have run, and had no core */
	bool full;            /* all checks that may wait for the store do */
};

/* So much of what its connections ask, in thousandths: 1000 is all of them, the idle ones included.
 */
struct balance_move {
	unsigned from, to, share;
};

enum balance_trial { TRIAL_NONE, TRIAL_MORE, TRIAL_FEWER };

struct balance {
	unsigned workers, active; /* the first `active` of them get connections */
	/* Since when; 0: it is not so. Steady time, as all here. */
	usec_t saturated, loose;
	unsigned loose_needed;    /* the most that were, since `loose` */
	usec_t evened;            /* the last time that connections moved between two active ones */
	usec_t more_at, fewer_at; /* no trial before */
	usec_t more_rest, fewer_rest; /* after the next that fails */
	/* The trial. */
	enum balance_trial trial;
	unsigned active_before;
	unsigned grown_to; /* by the last trial of more */
	uint64_t rate_before;
	usec_t began, measured; /* `measured`: from when on it counts; 0: to come */
	uint64_t waited, wanted;
	usec_t doubted; /* since when it is compared what fewer would answer; 0: not */
	/* What was answered when these began. */
	uint64_t answered_saturated, answered_doubted, answered_measured;
};

/* One worker is active. 1 .. WORKERS_MAX workers. */
void balance_init(struct balance *, unsigned workers);

/* `load`: of each worker; `answered`: what all have answered since the start. Fills `move` (room
 * for one for each worker), and returns how many. */
unsigned balance_step(struct balance *, const struct balance_load *load, uint64_t answered,
	usec_t now, struct balance_move *move);

/* When the next step should be, from the last one on: soon in a trial, so that one that costs much
 * ends at once. */
usec_t balance_interval(const struct balance *);

#endif
