#include "limit/ledger_inside.h"

#include <assert.h>
#include <stdlib.h>

static_assert(PLAN_MAX <= 32, "a bit for each take");

struct ledger *ledger_new(unsigned parts)
{
	struct ledger *l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	l->parts = parts ? parts : 1;
	l->first = l->last = NONE;
	return l;
}

void ledger_free(struct ledger *l)
{
	free(l);
}

const struct ledger_stats *ledger_stats(const struct ledger *l)
{
	return &l->stats;
}

uint64_t ledger_held(const struct ledger *l)
{
	return l->held;
}

bool ledger_holds(const struct ledger *l)
{
	return l->held || l->under_way || l->first != NONE;
}

bool ledger_wants(const struct ledger *l)
{
	return l->first != NONE;
}

uint32_t ledger_under_way(const struct ledger *l)
{
	return l->under_way;
}

bool ledger_had_news(struct ledger *l)
{
	bool news = l->news;

	l->news = false;
	return news;
}

struct now ledger_now(const struct ledger *l, usec_t steady)
{
	return (struct now){ .steady = steady + l->ahead, .utc = steady + l->ahead };
}

/* ---- places ---- */

static uint32_t most_of(const struct ledger *l, const struct limit *limit)
{
	return (uint32_t)(limit->rule->lease * (double)limit->quota.capacity / l->parts);
}

static void set_limit(const struct ledger *l, struct entry *e, const struct limit *limit)
{
	e->quota = limit->quota;
	e->salt = limit->salt;
	e->slowest_refill = limit->slowest_refill;
	e->slowest_interval = limit->slowest_interval;
	e->most = most_of(l, limit);
}

/* NULL: it cannot be leased now. */
static struct entry *entry_of(struct ledger *l, const struct take *t, usec_t steady)
{
	struct entry *e = ledger_find(l, &t->key);

	if (!e) {
		if (l->closed || !(e = ledger_make_place(l, &t->key, steady)))
			return NULL;
		set_limit(l, e, t->limit);
	}
	if (e->leaving)
		return NULL;
	/* Another tier of the same counter; or a check from before a reload that changed the lease.
	 */
	if (!quota_eq(&e->quota, &t->limit->quota) || e->most != most_of(l, t->limit)) {
		if (entry_is_busy(e))
			return NULL;
		set_limit(l, e, t->limit);
	}
	return e;
}

/* ---- spending ---- */

static inline void want(struct entry *e, int64_t cost, usec_t steady)
{
	entry_age(e, steady);
	if (cost <= e->most)
		e->wanted += (uint32_t)cost;
}

static void fill_verdict(
	const struct ledger *l, const struct entry *e, struct take *t, usec_t steady)
{
	struct verdict *v = &t->verdict;
	struct now now = ledger_now(l, steady);
	uint32_t left = 0;

	/* What is in hand was debited, and is still there for who asks here. */
	for (unsigned k = 0; k < BLOCKS; k++)
		left += e->block[k].disowned ? 0 : e->block[k].left;
	v->state = bucket_read(&e->quota, &e->known, now);
	if (e->quota.algorithm == ALGORITHM_TOKEN_BUCKET)
		v->state.used = v->state.used > left ? v->state.used - left : 0;
	else
		v->state.current -= left < v->state.current ? left : v->state.current;
	v->left = bucket_left(&e->quota, &v->state, now);
	v->admits = true;
	v->oversize = v->charged = false;
	v->retry_after = 0;
}

static bool spend(struct ledger *l, struct entry *e, int64_t cost, usec_t steady)
{
	ledger_settle(l, e, steady);
	if ((cost ? cost : 1) > entry_in_hand(e))
		return false;
	if (cost > e->block[0].left) {
		cost -= e->block[0].left;
		l->held -= e->block[0].left;
		l->stats.spent += e->block[0].left;
		e->block[0].left = 0;
		ledger_end_block(l, e, steady);
	}
	l->news |= e->block[0].left == e->block[0].units;
	e->block[0].left -= (uint32_t)cost;
	l->held -= (uint64_t)cost;
	l->stats.spent += (uint64_t)cost;
	return true;
}

static uint32_t at_most(int64_t cost, uint32_t most)
{
	return cost < most ? (uint32_t)cost : most;
}

/* No more than what its first block has lost: the rest is dropped. */
static void unspend(struct ledger *l, struct entry *e, int64_t cost)
{
	struct block *b = &e->block[0];
	uint32_t back = at_most(cost, block_spent(b));

	b->left += back;
	l->held += back;
	l->stats.dropped += (uint64_t)cost - back;
}

/* Nobody has heard of it yet. */
static void take_back(struct ledger *l, struct entry *e, int64_t cost)
{
	l->stats.spent -= (uint64_t)cost;
	unspend(l, e, cost);
}

static unsigned rule_end(const struct plan *plan, unsigned first)
{
	unsigned end = first + 1;
	while (end < plan->n && plan->take[end].limit->rule == plan->take[first].limit->rule)
		end++;
	return end;
}

static bool spend_rule(
	struct ledger *l, struct plan *plan, unsigned first, unsigned end, usec_t steady)
{
	struct entry *entry[PLAN_MAX];
	unsigned spent = first;
	bool all = true;

	for (unsigned i = first; i < end; i++) {
		entry[i] = entry_of(l, &plan->take[i], steady);
		if (entry[i])
			want(entry[i], plan->take[i].cost, steady);
		all &= entry[i] != NULL;
	}
	while (all && spent < end && spend(l, entry[spent], plan->take[spent].cost, steady))
		spent++;
	all = spent == end;
	while (!all && spent-- > first)
		take_back(l, entry[spent], plan->take[spent].cost);
	for (unsigned i = first; i < end; i++) {
		if (all)
			fill_verdict(l, entry[i], &plan->take[i], steady);
		if (entry[i] && ledger_to_ask(l, entry[i], steady))
			ledger_queue(l, entry[i]);
	}
	return all;
}

uint32_t ledger_spend(struct ledger *l, struct plan *plan, usec_t steady)
{
	uint32_t spent = 0;

	for (unsigned first = 0, end; first < plan->n; first = end) {
		end = rule_end(plan, first);
		if (plan->take[first].limit->rule->lease > 0 &&
			spend_rule(l, plan, first, end, steady))
			spent |= (uint32_t)((UINT64_C(1) << end) - (UINT64_C(1) << first));
	}
	return spent;
}

struct ledger_spent ledger_hold(struct ledger *l, const struct plan *plan, uint32_t which)
{
	struct ledger_spent s = { .which = which };

	for (unsigned i = 0; i < plan->n; i++) {
		if (!(which >> i & 1))
			continue;
		struct entry *e = ledger_find(l, &plan->take[i].key);
		l->stats.spent -= (uint64_t)plan->take[i].cost; /* it is not certain yet */
		if (!e)
			continue;
		/* Of a cost that two blocks gave, the first has ended, and counts as spent. */
		struct block *b = &e->block[0];
		s.serial[i] = e->serial;
		s.pending[i] = at_most(plan->take[i].cost, block_spent(b));
		s.mark[i] = b->mark;
		s.adrift_id[i] = b->disowned ? 0 : e->adrift_id;
		b->pending += s.pending[i];
	}
	return s;
}

/* What was spent for take i is pending no longer: of the block that is first still, of one that has
 * ended since, or of one that is not known any more. */
static void end_hold(struct ledger *l, const struct take *t, const struct ledger_spent *s,
	unsigned i, bool denied, usec_t steady)
{
	struct entry *e = ledger_find(l, &t->key);
	uint64_t dropped = (uint64_t)t->cost;

	if (e && denied)
		ledger_settle(l, e, steady); /* its time may be over: it is not first then */
	if (e && e->serial == s->serial[i] && e->block[0].units) {
		e->block[0].pending -= s->pending[i];
		if (denied) {
			unspend(l, e, t->cost);
			dropped = 0;
		}
	} else if (e && e->adrift_id == s->adrift_id[i]) {
		ledger_end_adrift(l, e, s->mark[i], s->pending[i], denied);
		dropped -= s->pending[i];
	}
	if (denied)
		l->stats.dropped += dropped;
	else
		l->stats.spent += (uint64_t)t->cost;
}

void ledger_keep(struct ledger *l, const struct plan *plan, const struct ledger_spent *s)
{
	for (unsigned i = 0; i < plan->n; i++)
		if (s->which >> i & 1)
			end_hold(l, &plan->take[i], s, i, false, 0);
}

void ledger_unspend(
	struct ledger *l, const struct plan *plan, const struct ledger_spent *s, usec_t steady)
{
	for (unsigned i = 0; i < plan->n; i++)
		if (s->which >> i & 1)
			end_hold(l, &plan->take[i], s, i, true, steady);
}
