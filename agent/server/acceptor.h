/* Accepts connections on all listeners and mails them to the workers. Control thread. */
#ifndef SERVER_ACCEPTOR_H
#define SERVER_ACCEPTOR_H

#include "server/balancer.h"
#include "server/listener.h"

struct acceptor;

/* All is borrowed. NULL: out of memory or descriptors. Starts at once. */
struct acceptor *acceptor_new(struct ev_loop *, const struct listeners *, struct worker *const *,
	unsigned workers_n, const struct balancer *, struct metrics *, const struct snapshot *);
void acceptor_free(struct acceptor *); /* stops; NULL is fine */

/* The snapshot of a reload: max_connections and allow_from follow it. */
void acceptor_use(struct acceptor *, const struct snapshot *);

/* Raises the soft limit of open files to what the settings need; warns where it cannot. */
void acceptor_raise_limit(const struct settings *, unsigned workers_n);

#endif
