/* A node from inside: redis_node.c is whether it is any use, redis_node_calls.c who waits for it,
 * redis_node_wire.c what is sent and what comes back. Only for these, and their test. */
#ifndef STORE_REDIS_NODE_INSIDE_H
#define STORE_REDIS_NODE_INSIDE_H

#include "store/redis_node.h"

struct redis_conn;

enum {
	SENT_MAX = 256, /* replies that are still to come */
	/* Of these, room that others' commands leave to checks; and that both leave to what the
	 * node sends by itself: a probe, the script, and a call once more. */
	SPARE_FOR_CHECKS = 16,
	SPARE_FOR_NODE = 4,
};

#define IDLE_ASK_EVERY (1 * USEC_PER_SEC)
#define TOO_LATE_HINT  "see its latency (redis-cli --latency), or raise redis.timeout"

enum health {
	HEALTH_AWAY,   /* no connection */
	HEALTH_BROKEN, /* the breaker is open: only probes are sent */
	HEALTH_TRYING, /* probes come back; the next call of checks, alone, has to show that it
			  works */
	HEALTH_WELL,
};

enum kind { KIND_CHECKS, KIND_PROBE, KIND_SCRIPT, KIND_ASK, KIND_ASKING };

struct sent {
	enum kind kind;
	struct node_call *call; /* KIND_CHECKS, KIND_PROBE */
	struct node_ask *ask;   /* KIND_ASK; NULL: has ended */
	usec_t at;
};

struct redis_node {
	char prefix[64];
	usec_t timeout, patience, hang_after;
	struct redis_stats *stats;
	struct node_calls *pool;
	struct redis_node_events events;
	void *owner;
	struct ev_loop *loop;
	struct redis_conn *conn;

	struct node_call *first, *last;         /* that wait, by deadline */
	struct node_call *unsent, *last_unsent; /* of these, in the order to send them */
	struct node_ask *asks, *last_ask;
	struct sent sent[SENT_MAX];
	unsigned sent_at, sent_n, window_n; /* window_n: of kind KIND_CHECKS */

	bool one_of_many, fresh; /* fresh: its first connection is still being opened */
	enum health health;
	bool must_prove;   /* some call met an error, as probes do not, and none went well since */
	usec_t refused_at; /* the last such error */
	usec_t told_at;    /* that it works */
	unsigned failures;
	unsigned probes;     /* in the ring */
	bool script_is_sent; /* in the ring */
	usec_t probe_at, probe_delay, heard_at;
	usec_t asks_from;               /* nothing is to be asked before */
	usec_t ahead_least, ahead_most; /* by how much its clock is, of our steady one */
	bool knows_clock;
	uint64_t seed;

	struct redis_addresses addresses;
	unsigned address_at;
	ev_timer timer;
	usec_t timer_at;
	struct node_call probe;
};

/* ---- redis_node.c ---- */

/* For the next of all that is to come; after whatever may have made it earlier. */
void node_set_timer(struct redis_node *, usec_t now);
void node_set_health(struct redis_node *, enum health);
void node_probe_later(struct redis_node *, usec_t now);
/* A call with checks, or the node's own, met an error or its deadline. */
void node_failed(struct redis_node *, bool is_error, const char *why, const char *hint, usec_t now);
void node_went_well(struct redis_node *);

/* ---- redis_node_calls.c ---- */

/* Those that wait, by deadline. */
void node_list_add(struct redis_node *, struct node_call *);
void node_list_remove(struct redis_node *, struct node_call *);
/* Those that gather, in the order to send them. */
void node_queue_add(struct redis_node *, struct node_call *);
void node_queue_remove(struct redis_node *, struct node_call *);
/* Nobody waits for it any more. */
void node_call_end(struct redis_node *, struct node_call *, bool answered, struct now);
void node_call_fail(struct redis_node *, struct node_call *, struct now);
void node_fail_unsent(struct redis_node *, struct now);
/* If nobody waits for it, and no reply is to come. */
void node_call_put_back(struct redis_node *, struct node_call *);

/* Other commands: by deadline, as calls are. */
void node_ask_add(struct redis_node *, struct node_ask *);
void node_ask_end(struct redis_node *, struct node_ask *, const struct redisReply *);
void node_ask_give_up(struct redis_node *, struct node_ask *);
void node_give_up_asks(struct redis_node *);

/* ---- redis_node_wire.c ---- */

/* What has been sent, in order, until its reply has come. */
void node_ring_add(struct redis_node *, struct sent);
struct sent node_ring_take(struct redis_node *);

/* How many calls of checks may be under way. */
unsigned node_window(const struct redis_node *);
bool node_may_send(const struct redis_node *); /* one more */
void node_send_gathered(struct redis_node *, usec_t now);
/* The call without checks: Redis tells the time. */
void node_send_probe(struct redis_node *, usec_t now);
/* The node is about to get the slot: only who says so is served. */
bool node_send_asking(struct redis_node *, usec_t now);
void node_on_reply(void *owner, const struct redisReply *);
/* Of an error that it has answered; never NULL. */
const char *node_error_hint(const struct redis_node *, const char *error);

#endif
