/* One call of redis_script.lua: the arguments for up to REDIS_CALL_PLANS requests, and what its
 * reply means. Pure: no sockets, no clocks; strings and bytes in, strings and bytes out.
 *
 * Redis answers with its clock and with every bucket as it was before the call. plan_charge() then
 * finds here what the script found there, request by request and bit for bit: it does the same
 * operations in the same order.
 *
 * A key in Redis is PREFIX "2:{TAG}" and take.key in base64url (22 characters); TAG says in which
 * slot of a cluster it lies (redis_slot.h). Its value is a bucket in 28 bytes, as redis_script.lua
 * says: what is used, of what instant, the units out in blocks, and until when the key is there at
 * least. The 2 is the number of this format.
 * Nothing else is there: no value of a request, in clear or otherwise.
 *
 * No locks: a call belongs to one thread at a time. */
#ifndef STORE_REDIS_CALL_H
#define STORE_REDIS_CALL_H

#include "limit/decision.h"
#include "limit/ledger.h"
#include "store/redis_slot.h"

enum {
	REDIS_CALL_PLANS = 64,
	REDIS_CALL_TAKES = 256, /* of all its plans: what Redis does without a pause; one plan
				 * always fits (PLAN_MAX) */
	REDIS_CALL_ASKS = 64,   /* for blocks; they count as takes, too */
	REDIS_CALL_ARGS = REDIS_CALL_TAKES + 8,
	REDIS_PREFIX_MAX = 63,
	REDIS_KEY_MAX = REDIS_PREFIX_MAX + 2 + REDIS_TAG_BYTES + 2 + 22,

	REDIS_BUCKET_BYTES = 16,
	REDIS_OUT_BYTES = 8,
	REDIS_UNTIL_BYTES = 4,
	REDIS_VALUE_BYTES = REDIS_BUCKET_BYTES + REDIS_OUT_BYTES + REDIS_UNTIL_BYTES,
	REDIS_REPLY_MAX = 8 + 2 * REDIS_CALL_TAKES * REDIS_VALUE_BYTES,

	/* What one limit and one take are in the arguments. */
	REDIS_LIMIT_BYTES = 36,
	REDIS_TAKE_BYTES = 3,
	REDIS_COST_BYTES = 4, /* of a take that costs anything but 1 */
	REDIS_SUM_BYTES = 2,
	REDIS_MORE_BYTES = 16, /* of a take that asks for a block, or is to be refunded */
};

/* The script counts in doubles, and all sums of instants must be exact: from 1827 to 2112. A reply
 * with anything else is none of the script's. */
#define REDIS_INSTANT_MAX (INT64_C(1) << 52)

/* Takes that nobody waits for, of a request that was decided elsewhere: to be refunded, or charged
 * for what was denied (limit/split.h). */
struct redis_after;

/* Of a plan of split_refund() or (its `closed` is set) split_charge(); keeps nothing of it. NULL:
 * no memory. */
struct redis_after *redis_after_new(const struct plan *);
void redis_after_free(struct redis_after *); /* NULL is fine */
uint16_t redis_after_slot(const struct redis_after *);

/* Begins zeroed. */
struct redis_call {
	/* In order; a later one sees what an earlier one was charged. NULL, once in the call: its
	 * asker has gone. It is left out of what is sent then; once sent, Redis charges it all the
	 * same, so all go or none: redis_call_read() finds no verdicts for those then, and would
	 * for others without what these were charged. */
	struct plan *plan[REDIS_CALL_PLANS];
	unsigned plan_n;
	unsigned take_n;                        /* of all plans, of what comes after, and asks */
	struct redis_after *after, *last_after; /* owned; they come after all plans */
	unsigned after_n, after_takes;
	/* What is asked for, in order, after all of these; and by redis_call_read(), what came. */
	struct redis_ask {
		struct ledger_ask asked;
		uint32_t granted;
		struct leased state; /* as Redis keeps it */
	} ask[REDIS_CALL_ASKS];
	unsigned ask_n;
	struct now now; /* Redis' clock, by redis_call_read() */
	uint8_t plan_takes[REDIS_CALL_PLANS];
	/* As it was sent: how many keys, the algorithm of each, and which of them a take of a plan
	 * has. */
	unsigned key_n;
	uint8_t algorithm[REDIS_CALL_TAKES], key_of[REDIS_CALL_TAKES];
};

/* Empties it, and frees what comes after. */
void redis_call_clear(struct redis_call *);

/* Appends a plan, which is borrowed and must stay as it is until redis_call_read(), or until its
 * place in plan[] is NULL. One that takes nothing is welcome. false: there is no room for it, send
 * the call first; nothing has changed. */
bool redis_call_add(struct redis_call *, struct plan *);
/* The last plan out of it again; there must be one. */
struct plan *redis_call_take_last(struct redis_call *);
/* The same as redis_call_add(); it is the call's then. */
bool redis_call_add_after(struct redis_call *, struct redis_after *);
/* Appends what a ledger wants. false: there is no room for it. */
bool redis_call_ask(struct redis_call *, const struct ledger_ask *);

/* What is sent: EVALSHA and its arguments. They point into this, and what they were made from but
 * the call. Large, and of use again for the next call as soon as they are written. */
struct redis_args {
	unsigned n;
	const char *argv[REDIS_CALL_ARGS];
	size_t bytes[REDIS_CALL_ARGS];

	unsigned key_n, limit_n, take_n, more_n; /* different keys; different limits */
	unsigned take_bytes;
	const struct limit *limit[REDIS_CALL_TAKES]; /* NULL: not to be found */
	struct key key[REDIS_CALL_TAKES];
	uint16_t limit_at[2 * REDIS_CALL_TAKES], key_at[2 * REDIS_CALL_TAKES]; /* hash tables */
	uint8_t limits[REDIS_CALL_TAKES * REDIS_LIMIT_BYTES];
	uint8_t takes[REDIS_CALL_TAKES * (REDIS_TAKE_BYTES + REDIS_COST_BYTES)];
	/* For each key the limit that reads it and the takes that cost 1; `one_by_one`: that does
	 * not say all. */
	uint8_t sums[REDIS_CALL_TAKES * REDIS_SUM_BYTES];
	bool one_by_one;
	uint8_t more[REDIS_CALL_TAKES * REDIS_MORE_BYTES];
	char keys[REDIS_CALL_TAKES][REDIS_KEY_MAX];
	uint8_t key_bytes;
	char key_count[12], now[24];
};

/* May be asked for again (to send the call once more after NOSCRIPT). `prefix` has at most
 * REDIS_PREFIX_MAX bytes; `sha` is borrowed. `virtual_now`, for tests: the instant to go by, below
 * REDIS_INSTANT_MAX; NULL: Redis' TIME. A call without takes is a good one: Redis only tells the
 * time. */
void redis_call_args(struct redis_call *, struct redis_args *, const char *prefix, const char *sha,
	const usec_t *virtual_now);

/* The name of the take's key there. Returns its length. */
size_t redis_call_key(const char *prefix, const struct take *, char out[REDIS_KEY_MAX]);

/* Reads the reply's one bulk string to what was sent last: plan_charge() for each plan, whose
 * plan->now is Redis' then, and lease_apply() for each ask. false: not what the script answers to
 * this call; nothing has changed. */
bool redis_call_read(struct redis_call *, const void *reply, size_t n);

#endif
