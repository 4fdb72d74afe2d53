/* A check: one NOTIFY, one decision, one ACK. The only place where spop, limit and store meet.
 * Knows nothing of sockets and loops: server/conn.c and the scenario tests both drive it. */
#ifndef SERVER_CHECK_H
#define SERVER_CHECK_H

#include "config/snapshot.h"
#include "server/answer.h"
#include "server/args.h"
#include "server/check_pool.h"
#include "server/metrics.h"
#include "server/penalties.h"
#include "server/tally.h"
#include "server/top.h"
#include "spop/session.h"
#include "store/store.h"

/* A denial or a warning for the log, copied: what it came from is gone when it is written. */
struct event {
	usec_t utc;
	enum reason reason;
	int64_t limit, retry_after;
	char rule[RULE_NAME_MAX + 1], tier[TIER_NAME_MAX + 1];
	char client[128]; /* the descriptor: "ip=10.0.0.1", secrets hashed */
	char ip[ADDR_TEXT_MAX + 1];
	char endpoint[96]; /* METHOD:/path, cut */
};

/* One writer (a worker), one reader (control): never blocks; what does not fit is counted. */
struct event_ring;
struct event_ring *event_ring_new(unsigned capacity); /* a power of two */
void event_ring_free(struct event_ring *);
bool event_ring_put(struct event_ring *, const struct event *); /* false: full; counted */
/* Is there room? So that a flood of denials does not compose what would be dropped; where there is
 * none, that counts as one dropped. The writer. */
bool event_ring_has_room(struct event_ring *);
bool event_ring_get(struct event_ring *, struct event *); /* false: empty */
uint64_t event_ring_dropped(const struct event_ring *);   /* since the start; reader's side */

/* What a worker brings to every check: no allocation after checker_init(). */
struct checker {
	struct view view;
	struct plan plan;
	struct tier_ask ask;
	struct shapes shapes;
	struct answer_forms answers;
	uint64_t shaped_by; /* the generation that both are of */
	char *scratch;      /* owned */
	size_t scratch_n;
	struct store *store;
	struct metrics *metrics;    /* the worker's own */
	struct tally *tally;        /* owned; decisions by rule and tier */
	struct top *top;            /* owned; who has most of them */
	struct event_ring *events;  /* NULL: denials are not logged */
	struct penalties penalties; /* .bans NULL: nobody is ever banned */
	struct check_pool pool;     /* of checks whose store answers later */
	/* Such a check is decided, and its owner is still there: check_write() it, now or later.
	 * Called from the loop, never from within check_answer(). */
	void (*decided)(struct check *);
};

/* `notify_max`: the longest NOTIFY (reassembled ones included). false: out of memory. */
bool checker_init(
	struct checker *, size_t notify_max, struct store *, struct metrics *, struct event_ring *);
/* No check may be waiting any more: close the store first. */
void checker_fini(struct checker *);
/* Longer NOTIFYs from now on. false: out of memory, and nothing has changed. */
bool checker_grow(struct checker *, size_t notify_max);

enum check_rc { CHECK_ANSWERED, CHECK_PENDING, CHECK_MALFORMED, CHECK_NO_ROOM };

/* Decides on `notify` by `snapshot` and writes one whole ACK frame (never empty, at most `send_max`
 * bytes after its length word) to `out`. CHECK_PENDING: nothing written yet; `*pending` is the
 * caller's to own (set its owner) until it has written or abandoned it. CHECK_MALFORMED: nothing
 * written; disconnect with SPOP_INVALID. CHECK_NO_ROOM: nothing written and nothing charged: `out`
 * had less than check_room(send_max) bytes. */
enum check_rc check_answer(struct checker *, struct snapshot *, const struct notify *,
	uint32_t send_max, struct now, struct wire_writer *out, struct check **pending);

/* Writes the ACK of a check that is decided, and ends it. false: `out` has less than
 * check_room(check->send_max) bytes; nothing has happened. */
bool check_write(struct check *, struct wire_writer *out);
/* Nobody wants its answer any more; its owner may go. */
void check_abandon(struct check *);

/* The room an ACK may need. */
size_t check_room(uint32_t send_max);

#endif
