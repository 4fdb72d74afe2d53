/* One Redis server as one worker sees it: its connection, the calls of the script that gather, are
 * under way and wait, and whether it is any use to ask it.
 *
 *   gather    calls that were given to it are sent when the loop is about to sleep
 *             (redis_node_send()), at most a bounded number at once; behind those the next ones
 *             gather for longer.
 *   end       each call ends once: answered, or not, and that within redis_settings.timeout of
 *             when it began. One that met an error, a lost connection or its deadline is never
 *             sent again: it may have been charged. (NOSCRIPT alone says that it was not.)
 *   breaker   after some failures in a row nobody is to be sent any more (redis_node_takes()),
 *             until a call of the node's own comes back in time; where errors were among them, also
 *             a call with checks has to go well, here or for another worker. (What
 *             shuts it ends a row of failures, too.)
 *
 * Besides the script it carries any other command (redis_node_ask()), on the same connection.
 *
 * All of it on its loop's thread. What is called back comes from the loop, or from where it is said
 * so. */
#ifndef STORE_REDIS_NODE_H
#define STORE_REDIS_NODE_H

#include "store/redis_call.h"
#include "store/redis_hub.h"
#include "store/redis_settings.h"

struct redisReply;
struct redis_node;

/* ---- calls of the script ---- */

/* From a pool; its plans are the owner's. It is with one node at a time. */
struct node_call {
	struct redis_call asked;
	usec_t taken_at; /* steady; the first of its checks: the deadline of all counts from it */
	/* the owner's, of a cluster */
	uint16_t slot;
	uint8_t redirects; /* times in a row that it was sent elsewhere */
	uint8_t retries;   /* times that it was to come again */
	bool asking;       /* a node that is about to get the slot is asked: ASKING comes first */
	/* the node's: in the list of those that wait, by deadline, until it has ended; in the queue
	 * until it is sent (`gathers`), and then in the ring until its reply has come. Free when it
	 * is in none. */
	struct node_call *next, *before;
	struct node_call *next_unsent, *before_unsent;
	bool waits, gathers, sent;
	uint8_t resent; /* times, for want of the script */
};

/* For all nodes of a worker. Begins zeroed, with `most`. */
struct node_calls {
	struct node_call *idle;
	unsigned n, most; /* that gather, are under way, or are waited for by nobody any more */
	struct redis_args args; /* of the one that is being sent */
};

struct node_call *node_calls_get(struct node_calls *); /* NULL: as many as may be, or no memory */
/* One that is with no node, and ended. */
void node_calls_put(struct node_calls *, struct node_call *);
void node_calls_fini(struct node_calls *); /* after all are back */

/* ---- other commands ---- */

/* Bytes of a reply to one, and its elements in memory. */
enum { NODE_ASK_REPLY_MAX = 256 * 1024 };

/* The asker's: zeroed, with `done`. It must stay until that is called. */
struct node_ask {
	usec_t at; /* steady: since when it has been waiting; 0: from now on, and then it says so */
	bool asking; /* as that of a call */
	/* Once. NULL: no answer came in time, or the connection was lost, or given up. The reply
	 * (an error, too) is freed after. */
	void (*done)(struct node_ask *, const struct redisReply *);
	/* the node's */
	struct node_ask *next, *before;
};

/* ---- the node ---- */

struct redis_node_events {
	/* The waiting of a call is over: its plans have their verdicts (`answered`), or are to get
	 * them elsewhere. The call goes back to its pool after. May give the node further calls. */
	void (*ended)(void *owner, struct node_call *, bool answered, struct now);
	/* It has answered that the call is not for it, and has done nothing (MOVED, ASK, TRYAGAIN:
	 * `error`). true: the owner has the call now, to give it to another node, or once more to
	 * this one. NULL: every error ends the call. */
	bool (*redirected)(void *owner, struct redis_node *, struct node_call *, const char *error);
	/* Nobody should be sent there / it works again. `away` also comes again, with a newer
	 * reason. `hint` and the address may be NULL. */
	void (*away)(void *owner, struct redis_node *, const char *why, const char *hint,
		const struct redis_address *);
	void (*back)(void *owner, struct redis_node *);
	/* Calls with checks go well: told now and then. And have those of others, to the same
	 * server, since that steady time? */
	void (*works)(void *owner, struct redis_node *);
	bool (*has_worked)(void *owner, struct redis_node *, usec_t since);
	/* Its clock was set: what was foreseen by it does not hold. */
	void (*stepped)(void *owner, struct redis_node *);
};

/* Away until it is told where to go and has been there. `one_of_many`: of a cluster. Its calls are
 * small, so that more are under way at once, and it takes them while its first connection is still
 * being opened. The pool and the counters are borrowed. NULL: out of memory. */
struct redis_node *redis_node_new(const struct redis_settings *, bool one_of_many,
	struct redis_stats *, struct node_calls *, const struct redis_node_events *, void *owner,
	struct ev_loop *);
/* After redis_node_end_all(). Nothing is called back any more. NULL is fine. */
void redis_node_free(struct redis_node *);

void redis_node_set_timeout(struct redis_node *, usec_t timeout);
/* How long a call waits, so that its checks are answered within `timeout`. */
usec_t redis_node_patience(usec_t timeout);

/* Where it is, from now on: the first of them that lets itself be reached, or the one that it has
 * if that is among them. Calls that are with it end, before this returns, where that means to go.
 */
void redis_node_use(struct redis_node *, const struct redis_addresses *);

/* Is a call worth giving? false: no connection, or the breaker is open, or the one call that has to
 * show whether it works again is under way. */
bool redis_node_takes(const struct redis_node *);
bool redis_node_is_well(const struct redis_node *);
bool redis_node_is_idle(const struct redis_node *);                        /* nothing waits */
const struct redis_address *redis_node_address(const struct redis_node *); /* NULL: none yet */

/* A call of the pool with taken_at set. `ended` follows, from the loop. While it `gathers`, more
 * plans may be added to it. */
void redis_node_give(struct redis_node *, struct node_call *);
/* Sends what has gathered. For the loop's prepare. */
void redis_node_send(struct redis_node *);

/* Sends a command, ended as a call of the script is: within redis_settings.timeout (which counts as
 * a failure, towards the breaker), and by a loss of the connection. false: not sent, `done` is not
 * called. A reply beyond NODE_ASK_REPLY_MAX ends the connection, and for ten seconds nothing is
 * sent: who asks the same again would end the next one. redis_node_send() flushes it. */
bool redis_node_ask(struct redis_node *, struct node_ask *, unsigned argc, const char *argv[],
	size_t argv_bytes[]);

/* Ends all that waits, unanswered, before it returns. Not from inside `ended` or `done`. */
void redis_node_end_all(struct redis_node *);

#endif
