/* Connections go from one loop to another as they are: half-read frames, what their peer has not
 * taken yet, deadlines and all. One waits only until the store has answered what it asked. Each has
 * one owner at a time: the loop it is attached to, or the list of arrivals. */
#ifndef SERVER_HANDOVER_H
#define SERVER_HANDOVER_H

#include "server/conn.h"

enum { MOVES_MAX = 256 }; /* of one call: the loop has its requests to answer, too */

/* Hands over so much of what is asked, in thousandths of the last second's bytes, as whole
 * connections and never more than that; 1000: all of them, the idle ones included. On the thread of
 * `from`; `to` may be any other loop, until both have ended. */
void conns_give(struct conns *from, struct conns *to, unsigned share);

/* Takes in what has been handed over. On the loop's thread, after its bell. */
void conns_fetch(struct conns *, struct now);

/* The epoll descriptor of a loop that has nothing to do yet, for conns->epoll; -1: it has none.
 * libev forgets a descriptor that is stopped, and epoll does not: an event of it would come to a
 * loop that no longer owns it, which then removes what is another's by now. */
int loop_epoll(struct ev_loop *);

/* Nothing comes in any more: who tries keeps its own. What came until now is taken in, and answered
 * with `serve`; without it is only there, to be closed. */
void conns_shut(struct conns *, bool serve);

#endif
