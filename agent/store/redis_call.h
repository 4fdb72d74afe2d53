/* One call of redis_script.lua: the arguments for up to REDIS_CALL_PLANS requests, and what its
 * reply means. Pure: no sockets, no clocks; strings and bytes in, strings and bytes out.
 *
 * Redis answers with its clock and with every bucket as it was before the request that takes from
 * it. plan_charge() then finds here what the script found there, bit for bit: it does the same
 * operations in the same order.
 *
 * A key in Redis is PREFIX "1:" and take.key in base64url (22 characters); its value is a bucket
 * in 16 bytes, little-endian: `used` (double) and `at`, or `current`, `previous` and `at`; while
 * blocks of a token bucket are out, 8 more: `fresh` and `stale` (limit/lease.h). The 1 is the
 * number of this format. Nothing else is there: no value of a request, in clear or otherwise.
 *
 * No locks: a call belongs to one thread at a time. */
#ifndef STORE_REDIS_CALL_H
#define STORE_REDIS_CALL_H

#include "limit/decision.h"
#include "limit/ledger.h"

enum {
	REDIS_CALL_PLANS = 64,
	REDIS_CALL_TAKES = 256, /* of all its plans: what Redis does without a pause; one plan
				 * always fits (PLAN_MAX) */
	REDIS_CALL_ASKS = 64,   /* for blocks; they count as takes, too */
	REDIS_CALL_ARGS = REDIS_CALL_TAKES + 7,
	REDIS_PREFIX_MAX = 63,
	REDIS_KEY_MAX = REDIS_PREFIX_MAX + 2 + 22,

	REDIS_BUCKET_BYTES = 16,
	REDIS_OUT_BYTES = 8,
	REDIS_LEASED_BYTES = REDIS_BUCKET_BYTES + REDIS_OUT_BYTES,
	REDIS_REPLY_MAX = 8 + REDIS_CALL_TAKES * REDIS_BUCKET_BYTES +
			  REDIS_CALL_ASKS * REDIS_OUT_BYTES,

	/* What one limit and one take are in the arguments. */
	REDIS_LIMIT_BYTES = 36,
	REDIS_TAKE_BYTES = 7,
	REDIS_ASK_BYTES = 16,
};

/* The script counts in doubles, and all sums of instants must be exact: from 1827 to 2112. A reply
 * with anything else is none of the script's. */
#define REDIS_INSTANT_MAX (INT64_C(1) << 52)

/* Begins zeroed, or by redis_call_clear(). What is below plan[] is redis_call.c's own. */
struct redis_call {
	/* In order; a later one sees what an earlier one was charged. NULL, once in the call: its
	 * asker has gone; Redis charges it all the same, and redis_call_read() leaves it out. */
	struct plan *plan[REDIS_CALL_PLANS];
	unsigned plan_n;
	unsigned take_n, key_n, limit_n; /* takes and asks; different keys; different limits */

	/* What is asked for, in order, after all plans; and by redis_call_read(), what came. */
	struct redis_ask {
		struct ledger_ask asked;
		uint32_t granted;
		struct leased state; /* as Redis keeps it */
	} ask[REDIS_CALL_ASKS];
	unsigned ask_n;
	struct now now; /* Redis' clock, by redis_call_read() */

	uint8_t plan_takes[REDIS_CALL_PLANS];
	const struct limit *limit[REDIS_CALL_TAKES];
	struct key key[REDIS_CALL_TAKES];
	uint16_t limit_at[2 * REDIS_CALL_TAKES], key_at[2 * REDIS_CALL_TAKES]; /* hash tables */
	uint8_t limits[REDIS_CALL_TAKES * REDIS_LIMIT_BYTES];
	uint8_t takes[REDIS_CALL_TAKES * REDIS_TAKE_BYTES];
	uint8_t asks[REDIS_CALL_ASKS * REDIS_ASK_BYTES];
	char keys[REDIS_CALL_TAKES][REDIS_KEY_MAX];
	char key_count[12], virtual_now[24];
};

void redis_call_clear(struct redis_call *);

/* Appends a plan, which is borrowed and must stay as it is until redis_call_read(), or until its
 * place in plan[] is NULL. One that takes nothing is welcome. false: there is no room for it, send
 * the call first; nothing has changed. */
bool redis_call_add(struct redis_call *, struct plan *);

/* Appends what a ledger wants. No plan can be added after. false: there is no room for it. */
bool redis_call_ask(struct redis_call *, const struct ledger_ask *);

/* EVALSHA and its arguments, at most REDIS_CALL_ARGS; returns how many. They point into the call,
 * `sha` and string literals; they hold until the next redis_call_add() or redis_call_clear(). May
 * be asked for again (to send the call once more after NOSCRIPT). `prefix` has at most
 * REDIS_PREFIX_MAX bytes. `virtual_now`, for tests: the instant to go by, below REDIS_INSTANT_MAX;
 * NULL: Redis' TIME. A call without takes is a good one: Redis only tells the time. */
unsigned redis_call_args(struct redis_call *, const char *prefix, const char *sha,
	const usec_t *virtual_now, const char *argv[], size_t argv_bytes[]);

/* Reads the reply's one bulk string: plan_charge() for each plan, whose plan->now is Redis' then,
 * and lease_apply() for each ask.
 * false: not what the script answers to this call; nothing has changed. */
bool redis_call_read(struct redis_call *, const void *reply, size_t n);

#endif
