/* Measures the workers, has connections moved as balance.h says, and names the worker for a new
 * one. Control thread. */
#ifndef SERVER_BALANCER_H
#define SERVER_BALANCER_H

#include "server/balance.h"
#include "server/worker.h"

struct balancer;

/* Of 1 .. WORKERS_MAX workers, which run, and are borrowed. `cores`: of the machine; where fewer
 * workers than that are active, they may poll (busy_poll.h). NULL: out of memory. */
struct balancer *balancer_new(struct worker *const *, unsigned n, unsigned cores);
void balancer_free(struct balancer *); /* NULL is fine */

/* Not while stopping. Returns after how long it wants to be called again. */
usec_t balancer_tick(struct balancer *, usec_t now);

/* For a new connection. NULL: all mailboxes are full. */
struct worker *balancer_choose(const struct balancer *);

#endif
