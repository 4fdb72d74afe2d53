#include "store/redis.h"

#include "limit/fallback.h"
#include "store/deny_cache.h"
#include "store/leases.h"
#include "store/redis_erase.h"
#include "store/redis_hub.h"
#include "store/redis_lookup.h"
#include "store/redis_nodes.h"
#include "store/redis_parts.h"

#include <stdlib.h>
#include <string.h>

enum { CHECKS_MAX = 8192 }; /* that wait: what they are in parts is bounded by it */

struct redis_store {
	struct store base;
	struct redis_settings settings;
	struct redis_stats stats;
	struct redis_hub *hub;
	struct memory_store *local;
	struct deny_cache *denied; /* what Redis would deny again; owned */
	struct ledger *ledger;     /* what was taken ahead; owned */
	struct leases *leases;     /* owned */
	uint64_t lost;             /* redis_nodes_lost() of which ledger and denials know */
	struct ev_loop *loop;

	bool of_cluster;
	struct redis_nodes *nodes;
	struct redis_lookup *lookup; /* of tiers; NULL: there are none */
	usec_t erased_at;            /* steady: what was asked before may be of before */
	unsigned waiting_checks;
	bool settling; /* what plan->done takes now is refused */

	struct redis_listener listener;
	ev_async bell;
	ev_prepare prepare;
	ev_timer idle; /* what lies in hand for long goes back */
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

static void show(_Atomic(uint64_t) *counter, uint64_t value)
{
	atomic_store_explicit(counter, value, memory_order_relaxed);
}

static void show_leases(struct redis_store *s)
{
	const struct ledger_stats *l = ledger_stats(s->ledger);

	show(&s->stats.lease_blocks, l->blocks);
	show(&s->stats.lease_refused, l->refused);
	show(&s->stats.lease_granted, l->granted);
	show(&s->stats.lease_spent, l->spent);
	show(&s->stats.lease_returned, l->returned);
	show(&s->stats.lease_dropped, l->dropped);
	show(&s->stats.lease_held, ledger_held(s->ledger));
}

/* What is spent from a block is not heard of by Redis either; the memory that stands in for it need
 * hear of a block only once: it counts as spent then. */
static void on_news(void *owner, const struct plan *here)
{
	warm(owner, here, clock_read());
}

/* Who answers next may not know what is in hand, nor what was denied; or has another window. */
static void look_for_losses(struct redis_store *s)
{
	uint64_t lost = redis_nodes_lost(s->nodes);

	if (lost == s->lost)
		return;
	s->lost = lost;
	ledger_disown(s->ledger);
	deny_cache_clear(s->denied);
}

/* What the ledger asked for has come, or it is not known what became of it. */
static void hear_asks(
	struct redis_store *s, const struct node_call *c, bool answered, usec_t steady)
{
	look_for_losses(s);
	for (unsigned i = 0; i < c->asked.ask_n; i++) {
		const struct redis_ask *a = &c->asked.ask[i];
		if (answered)
			ledger_heard(s->ledger, &a->asked, a->granted, &a->state, c->asked.now,
				c->taken_at, steady);
		else
			ledger_lost(s->ledger, &a->asked, steady);
	}
	show_leases(s);
}

/* By the failure policy, or (`answered`) as the plan now says. plan->done may take again. */
static void plan_ended(
	struct redis_store *s, struct plan *plan, bool answered, usec_t taken_at, struct now now)
{
	s->waiting_checks--;
	if (!answered) {
		fall_back(s, plan, now);
	} else if (taken_at > s->erased_at) {
		warm(s, plan, now);
		deny_cache_note(s->denied, plan, taken_at);
	}
	plan->done(plan);
}

/* The first part that fails decides for the whole: what others have charged stays charged. */
static void part_ended(struct redis_store *s, struct redis_parts *parts, bool answered,
	usec_t taken_at, struct now now)
{
	bool failed;
	struct plan *whole = redis_parts_back(parts, answered, &failed);

	if (redis_parts_is_over(parts)) {
		struct redis_after *after;
		unsigned lost = 0;
		while ((after = redis_parts_next_after(parts, &lost))) {
			redis_count(&s->stats.refunds, 1);
			lost += !redis_nodes_add_after(s->nodes, after);
		}
		redis_count(&s->stats.refunds_lost, lost);
		redis_parts_free(parts);
	}
	if (whole)
		plan_ended(s, whole, !failed, taken_at, now);
}

static void on_ended(void *owner, struct node_call *c, bool answered, struct now now)
{
	struct redis_store *s = owner;

	if (answered && c->taken_at > s->erased_at)
		for (unsigned i = 0; i < c->asked.plan_n; i++)
			ledger_note(s->ledger, c->asked.plan[i]);
	if (c->asked.ask_n)
		hear_asks(s, c, answered, now.steady);
	for (unsigned i = 0; i < c->asked.plan_n; i++) {
		struct plan *plan = c->asked.plan[i];
		struct redis_parts *parts = redis_parts_whose(plan);
		c->asked.plan[i] = NULL;
		if (parts)
			part_ended(s, parts, answered, c->taken_at, now);
		else
			plan_ended(s, plan, answered, c->taken_at, now);
	}
}

/* ---- the loop ---- */

static void on_bell(struct ev_loop *loop, ev_async *bell, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_store *s = bell->data;
	redis_nodes_look(s->nodes);
}

/* What the ledger wants travels with what was taken, if there is anything. */
static void ask_for_blocks(struct redis_store *s)
{
	struct ledger_ask ask;
	usec_t now = clock_steady();

	look_for_losses(s);
	while (ledger_next(s->ledger, &ask, now))
		if (!redis_nodes_add_ask(s->nodes, &ask))
			ledger_lost(s->ledger, &ask, now);
}

static void on_idle(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)revents;
	struct redis_store *s = timer->data;
	ledger_tick(s->ledger, clock_steady());
	show_leases(s);
	if (!ledger_holds(s->ledger))
		ev_timer_stop(loop, timer);
}

/* Before the loop sleeps: what came in this turn goes. */
static void on_prepare(struct ev_loop *loop, ev_prepare *prepare, int revents)
{
	(void)revents;
	struct redis_store *s = prepare->data;
	if (ledger_wants(s->ledger))
		ask_for_blocks(s);
	if (ledger_holds(s->ledger) && !ev_is_active(&s->idle))
		ev_timer_again(loop, &s->idle);
	if (s->lookup)
		redis_lookup_send(s->lookup);
	redis_nodes_send(s->nodes);
}

/* ---- the store ---- */

/* What of a plan is for which node; without a cluster all of it is one part. */
struct way {
	unsigned parts;
	uint16_t slot[PLAN_MAX]; /* of each part */
	uint8_t part_of[PLAN_MAX];
};

static void find_way(const struct redis_store *s, const struct plan *plan, struct way *w)
{
	w->parts = 1;
	w->slot[0] = 0;
	if (s->of_cluster)
		w->parts = redis_parts_of(plan, w->part_of, w->slot);
}

/* Whether all its nodes are to be asked; *well: they are known to work. */
static bool is_open(struct redis_store *s, const struct way *w, bool *well)
{
	*well = true;
	for (unsigned i = 0; i < w->parts; i++) {
		const struct redis_node *node = redis_nodes_at(s->nodes, w->slot[i]);
		if (!node || !redis_node_takes(node))
			return false;
		*well &= redis_node_is_well(node);
	}
	return true;
}

static bool send_parts(struct redis_store *s, struct plan *plan, const struct way *w)
{
	struct redis_parts *parts = redis_parts_new(plan, w->part_of, w->parts);

	if (!parts)
		return false;
	for (unsigned i = 0; i < w->parts; i++) {
		if (redis_nodes_add(s->nodes, w->slot[i], redis_parts_at(parts, i)))
			continue;
		(void)redis_parts_drop(parts, i);
		return false;
	}
	redis_count(&s->stats.split, 1);
	return true;
}

/* A check that has waited for its tier already waits no longer for it all than another. */
static bool is_late(const struct redis_store *s, const struct plan *plan)
{
	return plan->begun &&
	       plan->begun + redis_node_patience(s->settings.timeout) <= clock_steady();
}

static enum store_rc ask(struct redis_store *s, struct plan *plan, struct now now)
{
	struct way way;
	bool well;

	find_way(s, plan, &way);
	if (!is_open(s, &way, &well) || s->settling || s->waiting_checks == CHECKS_MAX ||
		is_late(s, plan))
		goto refuse;
	look_for_losses(s);
	/* (What is remembered does not show whether it works again.) */
	if (well && deny_cache_answer(s->denied, plan, now.steady)) {
		redis_count(&s->stats.remembered, 1);
		return STORE_DONE;
	}
	if (way.parts > 1 ? !send_parts(s, plan, &way)
			  : !redis_nodes_add(s->nodes, way.slot[0], plan))
		goto refuse;
	s->waiting_checks++;
	return STORE_PENDING;
refuse:
	redis_count(&s->stats.refused, 1);
	fall_back(s, plan, now);
	return STORE_DONE;
}

static enum store_rc find_tier(struct store *base, struct tier_ask *ask, struct now now)
{
	struct redis_store *s = (struct redis_store *)base;

	(void)now;
	return redis_lookup_find(s->lookup, ask, !s->settling);
}

static enum store_rc take(struct store *base, struct plan *plan, struct now now)
{
	struct redis_store *s = (struct redis_store *)base;
	if (plan->n == 0) { /* nothing to ask */
		plan_charge(plan, NULL, now);
		plan->now = now;
		return STORE_DONE;
	}
	struct plan *rest = leases_spend(s->leases, plan, now.steady);
	if (!rest) {
		redis_count(&s->stats.leased, 1);
		return STORE_DONE;
	}
	rest->begun = plan->begun;
	rest->holders = plan->holders;
	enum store_rc rc = ask(s, rest, now);
	if (rc == STORE_DONE && rest != plan)
		leases_join(rest);
	return rc;
}

/* Blocks of rules that are other ones now go back. */
static void forget(struct store *base)
{
	struct redis_store *s = (struct redis_store *)base;

	deny_cache_clear(s->denied);
	ledger_return_all(s->ledger, clock_steady());
}

static enum store_rc erase(struct store *base, struct plan *plan)
{
	struct redis_store *s = (struct redis_store *)base;

	if (!s->settling && redis_erase(s->nodes, s->settings.prefix, plan))
		return STORE_PENDING;
	plan->degraded = true;
	return STORE_DONE;
}

void redis_store_erased(struct redis_store *s, const struct key *key, unsigned n)
{
	s->erased_at = clock_steady();
	for (unsigned i = 0; i < n; i++) {
		deny_cache_forget(s->denied, &key[i]);
		ledger_forget(s->ledger, &key[i], s->erased_at);
	}
	show_leases(s);
}

static void take_fall_back(struct store *base, struct plan *plan, struct now now)
{
	fall_back((struct redis_store *)base, plan, now);
}

unsigned redis_store_waiting(const struct redis_store *s)
{
	unsigned lookups = s->lookup ? redis_lookup_waiting(s->lookup) : 0;
	return s->waiting_checks + lookups + ledger_under_way(s->ledger) + ledger_wants(s->ledger);
}

void redis_store_drain(struct redis_store *s)
{
	ledger_close(s->ledger);
	ledger_return_all(s->ledger, clock_steady());
}

void redis_store_settle(struct redis_store *s)
{
	s->settling = true;
	if (s->lookup)
		redis_lookup_end_all(s->lookup);
	redis_nodes_end_all(s->nodes);
	s->settling = false;
}

static void store_free(struct redis_store *s)
{
	redis_nodes_free(s->nodes);
	redis_lookup_free(s->lookup);
	deny_cache_free(s->denied);
	leases_free(s->leases);
	ledger_free(s->ledger);
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
	ev_timer_stop(s->loop, &s->idle);
	store_free(s);
}

static const struct store_ops redis_ops = {
	.take = take,
	.fall_back = take_fall_back,
	.forget = forget,
	.erase = erase,
	.close = close_store,
};
static const struct store_ops redis_ops_with_tiers = {
	.take = take,
	.fall_back = take_fall_back,
	.find_tier = find_tier,
	.forget = forget,
	.erase = erase,
	.close = close_store,
};

void redis_store_set_timeout(struct redis_store *s, usec_t timeout)
{
	s->settings.timeout = timeout;
	redis_nodes_set_timeout(s->nodes, timeout);
}

struct redis_store *redis_store_new(const struct redis_settings *settings, struct redis_hub *hub,
	struct memory_store *local, struct ev_loop *loop)
{
	struct redis_store *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->base.ops = settings->tiers ? &redis_ops_with_tiers : &redis_ops;
	s->settings = *settings;
	s->hub = hub;
	s->local = local;
	s->loop = loop;
	s->of_cluster = redis_hub_is_cluster(hub);
	atomic_init(&s->stats.degraded, true);
	s->nodes = redis_nodes_new(settings, &s->stats, hub, on_ended, s, loop);
	s->denied = deny_cache_new(s->of_cluster);
	s->ledger = ledger_new(settings->workers);
	s->leases = s->ledger ? leases_new(s->ledger, on_news, s) : NULL;
	if (s->nodes && settings->tiers)
		s->lookup = redis_lookup_new(settings->tiers, s->nodes, &s->stats, loop);
	bool has_all = s->nodes && s->denied && s->leases && (s->lookup || !settings->tiers);
	if (!has_all) {
		store_free(s);
		return NULL;
	}
	ev_prepare_init(&s->prepare, on_prepare);
	/* After whatever else gathers until the loop sleeps. */
	ev_set_priority(&s->prepare, EV_MINPRI);
	ev_prepare_start(loop, &s->prepare);
	ev_async_init(&s->bell, on_bell);
	ev_async_start(loop, &s->bell);
	ev_init(&s->idle, on_idle);
	s->idle.repeat = (double)LEASE_LIFE / 8 / (double)USEC_PER_SEC;
	s->prepare.data = s->bell.data = s->idle.data = s;
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
