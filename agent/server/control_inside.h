/* The control thread from inside: only for control*.c. */
#ifndef SERVER_CONTROL_INSIDE_H
#define SERVER_CONTROL_INSIDE_H

#include "server/control.h"

#include "server/backend.h"
#include "server/crew.h"

#include <ev.h>

struct acceptor;
struct balancer;
struct notices;

enum { RETIRED_MAX = 16 }; /* snapshots of the past that some worker still has */

struct control {
	struct metrics metrics; /* the control thread's own to write; first, for its alignment */
	struct control_args args;
	struct ev_loop *loop;
	ev_signal on_term, on_int, on_hup, on_usr1;
	ev_timer tick, balance, drain, watchdog;
	ev_async bell; /* a worker is done */
	enum control_phase phase;
	struct snapshot *snapshot;
	struct snapshot *retired[RETIRED_MAX]; /* control's references keep them from being freed
						* on a worker's thread */
	unsigned retired_n;
	struct crew crew;
	struct balancer *balancer;
	struct acceptor *acceptor;
	struct keeper *keeper;
	struct notices *notices;
	struct desk *desk; /* what the operator changed */
	struct bans *bans; /* by penalties */
	struct known *known;
	struct tally_names *tally_names;
	struct redis_backend redis; /* empty: the store is the memory store */
	unsigned ticks;
	usec_t stop_by;    /* steady; when the disk has to have answered */
	usec_t started_at; /* UTC */
	usec_t up_since;   /* steady */
};

#define CONTROL_NOTHING_LEFT \
	"no memory, threads or descriptors left: raise the limits of the service"

/* ---- control_served.c ---- */

/* Makes the keeper, the bans and the desk: what the operator changed in an earlier run holds from
 * the first check on. false: `err` says what is missing, or cannot be written. */
bool control_open_desk(struct control *, char *err, size_t err_size);
/* Frees the snapshots that no worker has any more. */
void control_free_retired(struct control *);
/* All of them, and the one that is served: when there are no workers any more. */
void control_drop_served(struct control *);
/* What other agents tell goes to the desk. */
struct backend_ears control_ears(struct control *);

/* ---- control_stop.c ---- */

/* Begins the drain; while it lasts, ends it; after that, hurries what is left of the stop. */
void control_stop(struct control *);

#endif
