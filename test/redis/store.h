/* A store that asks a test's own Redis, and waits: redis_call and the script, without all that the
 * real one has to do about time and failure. The clock is the caller's. */
#ifndef TEST_REDIS_STORE_H
#define TEST_REDIS_STORE_H

#include "redis/server.h"

#include "store/redis_call.h"
#include "store/store.h"

enum { WAITING_AFTERS = 8 };

struct waiting_store {
	struct store base;
	struct redis_server *server;
	const char *prefix;
	char sha[41];
	struct redis_call call;
	struct redis_args args;                    /* of the last one */
	struct redis_after *after[WAITING_AFTERS]; /* that the next one takes along */
	unsigned after_n;
};

/* `prefix` is borrowed: stores with different ones share nothing. */
void waiting_store_init(struct waiting_store *, struct redis_server *, const char *prefix);

/* One call of `n` plans, and what `ask_n` ledgers want, at `now`; false, with a line on stderr: no
 * good answer. What came of an ask is in call.ask[]. */
bool waiting_store_take(struct waiting_store *, struct plan *const plan[], unsigned n,
	const struct ledger_ask *, unsigned ask_n, usec_t now);

#endif
