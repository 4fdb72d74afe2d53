#include "redis/store.h"

#include <stdio.h>
#include <stdlib.h>

bool waiting_store_take(struct waiting_store *s, struct plan *const plan[], unsigned n,
	const struct ledger_ask *ask, unsigned ask_n, usec_t now)
{
	redis_call_clear(&s->call);
	for (unsigned i = 0; i < n; i++) {
		if (!redis_call_add(&s->call, plan[i])) {
			fprintf(stderr, "no room for %u plans in one call\n", n);
			return false;
		}
	}
	for (unsigned i = 0; i < ask_n; i++) {
		if (!redis_call_ask(&s->call, &ask[i])) {
			fprintf(stderr, "no room for %u asks in one call\n", ask_n);
			return false;
		}
	}
	for (unsigned i = 0; i < s->after_n; i++)
		if (!redis_call_add_after(&s->call, s->after[i]))
			abort();
	s->after_n = 0;
	redis_call_args(&s->call, &s->args, s->prefix, s->sha, &now);
	redisReply *reply = redis_server_ask(s->server, s->args.n, s->args.argv, s->args.bytes);
	bool good = reply->type == REDIS_REPLY_STRING &&
		    redis_call_read(&s->call, reply->str, reply->len);
	if (!good)
		fprintf(stderr, "the script: %s\n",
			reply->type == REDIS_REPLY_ERROR ? reply->str : "not its reply");
	freeReplyObject(reply);
	return good;
}

static enum store_rc take(struct store *store, struct plan *plan, struct now now)
{
	struct waiting_store *s = (struct waiting_store *)store;

	if (!waiting_store_take(s, &plan, 1, NULL, 0, now.utc))
		exit(2);
	return STORE_DONE;
}

static void do_nothing(struct store *s)
{
	(void)s;
}

void waiting_store_init(struct waiting_store *s, struct redis_server *server, const char *prefix)
{
	static const struct store_ops ops = { .take = take, .close = do_nothing };

	s->base.ops = &ops;
	s->server = server;
	s->prefix = prefix;
	redis_server_load(server, true, s->sha);
}
