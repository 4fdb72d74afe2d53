/* A check: one NOTIFY, one decision, one ACK. The only place where spop, limit and store meet.
 * Knows nothing of sockets and loops: server/conn.c and the scenario tests both drive it. */
#ifndef SERVER_CHECK_H
#define SERVER_CHECK_H

#include "config/snapshot.h"
#include "server/answer.h"
#include "server/args.h"
#include "server/check_pool.h"
#include "server/event.h"
#include "server/metrics.h"
#include "server/penalties.h"
#include "server/tally.h"
#include "server/top.h"
#include "spop/session.h"
#include "store/store.h"

/* What became of a NOTIFY's bytes. */
enum load_rc { LOAD_CHECK, LOAD_NOTHING, LOAD_MALFORMED };

/* A NOTIFY as it was read, and what is to be charged; nothing is decided. */
struct draft {
	struct view view;
	struct plan plan;
	char *scratch; /* the checker's, scratch_n bytes of it */
	enum load_rc loaded;
	unsigned ignored; /* messages */
};

/* What a worker brings to every check: no allocation after checker_init(). */
struct checker {
	struct draft draft[2];
	struct draft *now, *next; /* of these: whose turn it is, and the one made ahead */
	const uint8_t *expected;  /* what comes after the check that is next; NULL: not known */
	const uint8_t *ahead;     /* the payload that *next was made of; NULL: it was not */
	size_t expected_n, ahead_n;
	struct tier_ask ask;
	struct shapes shapes;
	struct answer_forms answers;
	uint64_t shaped_by; /* the generation that both are of */
	char *scratch;      /* owned; of both drafts */
	size_t scratch_n;   /* of each */
	struct store *store;
	struct metrics *metrics;    /* the worker's own */
	struct tally *tally;        /* owned; decisions by rule and tier */
	struct top *top;            /* owned; who has most of them */
	struct event_ring *events;  /* NULL: denials are not logged */
	struct known *known;        /* shared; NULL: nobody asks by a hash */
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

/* With a store whose memory is waited for, it pays to tell a check what comes after it. */
static inline bool check_looks_ahead(const struct checker *c)
{
	return c->store && c->store->ops->is_large && c->store->ops->is_large(c->store);
}

/* The check_answer() after the next gets this payload, whole, with the same snapshot. No more than
 * a hint: what comes is answered as if nothing had been told. But the bytes must stay as they are
 * until then, or until check_expect_nothing(). */
void check_expect(struct checker *, const uint8_t *payload, size_t);
static inline void check_expect_nothing(struct checker *c)
{
	c->expected = c->ahead = NULL;
}

/* Writes the ACK of a check that is decided, and ends it. false: `out` has less than
 * check_room(check->send_max) bytes; nothing has happened. */
bool check_write(struct check *, struct wire_writer *out);
/* Nobody wants its answer any more; its owner may go. */
void check_abandon(struct check *);

/* The room an ACK may need. */
size_t check_room(uint32_t send_max);

#endif
