/* The workers of this process: made, started, told and asked together. Control thread. */
#ifndef SERVER_CREW_H
#define SERVER_CREW_H

#include "server/balance.h"
#include "server/tally.h"
#include "server/worker.h"

struct crew {
	struct worker *worker[WORKERS_MAX]; /* owned */
	unsigned n;
};

/* Of the machine, also those that this process is kept off: whom it answers may have them. */
unsigned crew_cores(void);

/* How many workers these settings mean. */
unsigned crew_size(const struct settings *);

/* Are there descriptors for so many event loops? libev ends the process where it finds none. */
bool crew_has_descriptors(unsigned loops);
/* Will the kernel watch what so many event loops wake up by? Where libev hears that it does not, it
 * ends the process by an assertion. false: errno says why. */
bool crew_has_watches(unsigned loops);

/* Fills an empty crew; `args` but for the number. They do not run yet. false: not all could be
 * made; those that could are there. */
bool crew_make(struct crew *, unsigned n, const struct worker_args *args);
bool crew_start(struct crew *); /* false: not all run */
void crew_free(struct crew *);  /* ends those that run at once */

void crew_publish(struct crew *, struct snapshot *);
bool crew_erased(struct crew *, const struct key *, unsigned n); /* false: not all are told */
void crew_drain(struct crew *);
void crew_stop(struct crew *);
void crew_stop_now(struct crew *);

/* Asks all for a sign of life. false: one has not answered the last time (a line of the log tells,
 * now and then), and nobody was asked. */
bool crew_ping(struct crew *);

bool crew_is_done(const struct crew *);
bool crew_has_redis(const struct crew *); /* no worker does without it */

uint64_t crew_metric(const struct crew *, enum metric); /* the sum */
bool crew_tally(const struct crew *, const struct tally_names *, struct tally_sum *);
bool crew_top(const struct crew *, enum top_kind, usec_t now, struct top_list *);

#endif
