/* Counters in Redis that begin anew: each key of a plan is written over, at the node that has it.
 * What is written is no bucket, which the script takes for one never seen, and is gone after a
 * millisecond: so no more is asked of the ACL than what charging needs. SET says what was there
 * (GET; from Redis 6.2 on). */
#ifndef STORE_REDIS_ERASE_H
#define STORE_REDIS_ERASE_H

#include "store/redis_nodes.h"

/* The plan must stay until plan->done is called: once, from the loop or by redis_nodes_end_all();
 * plan->degraded says then that it is not certain of all of them. false: nothing was sent (nobody
 * who works, or no memory), and `done` is not called. One thread: that of the nodes' loop. */
bool redis_erase(struct redis_nodes *, const char *prefix, struct plan *);

#endif
