#include "store/redis.h"

#include "limit/fallback.h"
#include "store/deny_cache.h"
#include "store/redis_hub.h"
#include "store/redis_node.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { CALLS_MAX = 64 };

struct redis_store {
	struct store base;
	struct redis_settings settings;
	struct redis_stats stats;
	struct redis_hub *hub;
	struct memory_store *local;
	struct deny_cache *denied; /* what Redis would deny again; owned */
	struct ev_loop *loop;

	struct redis_node *node;
	struct node_calls calls;
	unsigned waiting_checks;
	uint64_t generation; /* of the addresses that the node has */
	bool settling;       /* what plan->done takes now is refused */

	struct redis_listener listener;
	ev_async bell;
	ev_prepare prepare;
};

/* ---- answers ---- */

static void fall_back(struct redis_store *s, struct plan *plan, struct now now)
{
	plan_fall_back(plan);
	plan->now = now;
	(void)store_take(memory_store_base(s->local), plan, now);
}

static void warm(struct redis_store *s, const struct plan *plan, struct now now)
{
	struct plan heard;

	if (plan_mirror(plan, &heard))
		memory_store_mirror(s->local, &heard, now);
}

/* By the failure policy, or (`answered`) as its plans now say. plan->done may take again. */
static void on_ended(void *owner, struct node_call *c, bool answered, struct now now)
{
	struct redis_store *s = owner;

	for (unsigned i = 0; i < c->asked.plan_n; i++) {
		struct plan *plan = c->asked.plan[i];
		c->asked.plan[i] = NULL;
		s->waiting_checks--;
		if (answered) {
			warm(s, plan, now);
			deny_cache_note(s->denied, plan, c->taken_at);
		} else {
			fall_back(s, plan, now);
		}
		plan->done(plan);
	}
}

/* ---- health ---- */

static void on_away(void *owner, struct redis_node *node, const char *why, const char *hint,
	const struct redis_address *address)
{
	struct redis_store *s = owner;

	(void)node;
	atomic_store_explicit(&s->stats.degraded, true, memory_order_relaxed);
	redis_hub_away(s->hub, &s->listener, why, hint, address);
	redis_hub_ask_again(s->hub);
}

static void on_back(void *owner, struct redis_node *node)
{
	struct redis_store *s = owner;

	(void)node;
	atomic_store_explicit(&s->stats.degraded, false, memory_order_relaxed);
	redis_hub_back(s->hub, &s->listener);
}

static const struct redis_node_events node_events = { on_ended, on_away, on_back };

/* ---- the loop ---- */

static void on_bell(struct ev_loop *loop, ev_async *bell, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_store *s = bell->data;
	struct redis_addresses a = redis_hub_addresses(s->hub);

	if (a.generation == s->generation)
		return;
	s->generation = a.generation;
	redis_node_use(s->node, &a);
}

/* Before the loop sleeps: what came in this turn goes. */
static void on_prepare(struct ev_loop *loop, ev_prepare *prepare, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_store *s = prepare->data;
	redis_node_send(s->node);
}

/* ---- the store ---- */

static enum store_rc take(struct store *base, struct plan *plan, struct now now)
{
	struct redis_store *s = (struct redis_store *)base;
	if (plan->n == 0) { /* nothing to ask */
		plan_charge(plan, NULL, now);
		plan->now = now;
		return STORE_DONE;
	}
	struct node_call *c = redis_node_gathering(s->node);

	if (!redis_node_takes(s->node) || s->settling)
		goto refuse;
	/* (What is remembered does not show whether it works again.) */
	if (redis_node_is_well(s->node) && deny_cache_answer(s->denied, plan, now.steady)) {
		redis_count(&s->stats.remembered, 1);
		return STORE_DONE;
	}
	if (!c || !redis_call_add(&c->asked, plan)) {
		c = node_calls_get(&s->calls);
		if (!c)
			goto refuse;
		c->taken_at = clock_steady();
		bool added = redis_call_add(&c->asked, plan);
		assert(added);
		(void)added;
		redis_node_give(s->node, c);
	}
	s->waiting_checks++;
	return STORE_PENDING;
refuse:
	redis_count(&s->stats.refused, 1);
	fall_back(s, plan, now);
	return STORE_DONE;
}

static void forget(struct store *base)
{
	deny_cache_clear(((struct redis_store *)base)->denied);
}

static void take_fall_back(struct store *base, struct plan *plan, struct now now)
{
	fall_back((struct redis_store *)base, plan, now);
}

unsigned redis_store_waiting(const struct redis_store *s)
{
	return s->waiting_checks;
}

void redis_store_settle(struct redis_store *s)
{
	s->settling = true;
	redis_node_end_all(s->node);
	s->settling = false;
}

static void store_free(struct redis_store *s)
{
	redis_node_free(s->node);
	node_calls_fini(&s->calls);
	deny_cache_free(s->denied);
	explicit_bzero(&s->settings, sizeof s->settings);
	free(s);
}

static void close_store(struct store *base)
{
	struct redis_store *s = (struct redis_store *)base;

	redis_store_settle(s);
	redis_hub_leave(s->hub, &s->listener);
	ev_async_stop(s->loop, &s->bell);
	ev_prepare_stop(s->loop, &s->prepare);
	store_free(s);
}

static const struct store_ops redis_ops = {
	.take = take, .fall_back = take_fall_back, .forget = forget, .close = close_store
};

void redis_store_set_timeout(struct redis_store *s, usec_t timeout)
{
	s->settings.timeout = timeout;
	redis_node_set_timeout(s->node, timeout);
}

struct redis_store *redis_store_new(const struct redis_settings *settings, struct redis_hub *hub,
	struct memory_store *local, struct ev_loop *loop)
{
	struct redis_store *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->base.ops = &redis_ops;
	s->settings = *settings;
	s->hub = hub;
	s->local = local;
	s->loop = loop;
	s->calls.most = CALLS_MAX;
	atomic_init(&s->stats.degraded, true);
	s->node = redis_node_new(settings, &s->stats, &s->calls, &node_events, s, loop);
	s->denied = deny_cache_new();
	if (!s->node || !s->denied) {
		store_free(s);
		return NULL;
	}
	ev_prepare_init(&s->prepare, on_prepare);
	/* After whatever else gathers until the loop sleeps. */
	ev_set_priority(&s->prepare, EV_MINPRI);
	ev_prepare_start(loop, &s->prepare);
	ev_async_init(&s->bell, on_bell);
	ev_async_start(loop, &s->bell);
	s->prepare.data = s->bell.data = s;
	s->listener = (struct redis_listener){ .loop = loop, .bell = &s->bell };
	redis_hub_listen(hub, &s->listener);
	return s;
}

struct store *redis_store_base(struct redis_store *s)
{
	return &s->base;
}

const struct redis_stats *redis_store_stats(const struct redis_store *s)
{
	return &s->stats;
}
