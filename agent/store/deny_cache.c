#include "store/deny_cache.h"

#include <stdlib.h>

/* Four places for each key: the newest denial comes first, and moves the others back. With many
 * clients of a flood remembered the denials are megabytes (touched where there are some), and
 * nearly all that is asked is of limits that are not denied: tags that lie close together say so
 * first. */
enum { SETS = 8192, WAYS = 4 };

struct denial {
	struct key key;
	struct quota quota; /* two tiers share a counter, and not what they allow */
	struct bucket state;
	int64_t cost; /* that it denied; 0: none, another limit denied the request */
	usec_t at;    /* the server's clock */
	usec_t asked; /* this machine's */
};

struct deny_cache {
	bool refunds;
	uint32_t tag[SETS][WAYS]; /* of a denial's key; 0: nothing is here */
	struct denial denial[SETS][WAYS];
};

struct deny_cache *deny_cache_new(bool refunds)
{
	struct deny_cache *c = calloc(1, sizeof *c);

	if (c)
		c->refunds = refunds;
	return c;
}

void deny_cache_free(struct deny_cache *c)
{
	free(c);
}

void deny_cache_clear(struct deny_cache *c)
{
	memset(c->tag, 0, sizeof c->tag);
}

void deny_cache_forget(struct deny_cache *c, const struct key *key)
{
	size_t set = key->a % SETS;

	for (unsigned i = 0; i < WAYS; i++)
		if (c->denial[set][i].key.a == key->a && c->denial[set][i].key.b == key->b)
			c->tag[set][i] = 0;
}

static int64_t cost_asked(const struct take *t)
{
	return t->cost ? t->cost : 1;
}

static bool enforces(const struct take *t)
{
	return t->limit->rule->mode == MODE_ENFORCE && t->limit->rule->action == ACTION_DENY;
}

static bool denies(const struct take *t)
{
	return enforces(t) && !t->verdict.admits;
}

/* It denies; or a request that another limit denies hears of it all the same, by `shadow`, `tag` or
 * `warn`. */
static bool has_a_say(const struct take *t)
{
	return !t->verdict.admits ||
	       (t->limit->rule->warn_at < 1 && t->verdict.left < (double)t->limit->quota.capacity);
}

static uint32_t tag_of(const struct key *key)
{
	return (uint32_t)(key->b >> 32) | 1;
}

static bool holds(const struct denial *d, const struct take *t)
{
	return d->key.a == t->key.a && d->key.b == t->key.b &&
	       quota_eq(&d->quota, &t->limit->quota);
}

/* Where among the set's ways; WAYS: it is not there. */
static unsigned find(const struct deny_cache *c, size_t set, const struct take *t)
{
	uint32_t tag = tag_of(&t->key);

	for (unsigned i = 0; i < WAYS; i++)
		if (c->tag[set][i] == tag && holds(&c->denial[set][i], t))
			return i;
	return WAYS;
}

/* The first way, emptied: those before the first that is free move back, or the last is dropped. */
static void make_place(struct deny_cache *c, size_t set)
{
	unsigned i = 0;

	while (i < WAYS - 1 && c->tag[set][i])
		i++;
	for (; i > 0; i--) {
		c->tag[set][i] = c->tag[set][i - 1];
		c->denial[set][i] = c->denial[set][i - 1];
	}
}

static void note(struct deny_cache *c, const struct take *t, bool denied, usec_t at, usec_t asked)
{
	size_t set = t->key.a % SETS;
	unsigned i = find(c, set, t);
	int64_t cost = i < WAYS ? c->denial[set][i].cost : 0;

	if (i < WAYS && at < c->denial[set][i].at)
		return;
	if (i == WAYS) {
		if (!denied || !has_a_say(t))
			return;
		make_place(c, set);
		i = 0;
	}
	c->tag[set][i] = tag_of(&t->key);
	c->denial[set][i] = (struct denial){
		.key = t->key,
		.quota = t->limit->quota,
		.state = t->verdict.state,
		.cost = denies(t) && !t->verdict.oversize ? cost_asked(t) : cost,
		.at = at,
		.asked = asked,
	};
}

static bool counts_denied(const struct plan *plan)
{
	for (unsigned i = 0; i < plan->n; i++)
		if (plan->take[i].limit->rule->count_denied)
			return true;
	return false;
}

void deny_cache_note(struct deny_cache *c, const struct plan *plan, usec_t asked)
{
	bool denied = plan->denied && !counts_denied(plan);

	if (plan->degraded)
		return;
	for (unsigned i = 0; i < plan->n; i++)
		note(c, &plan->take[i], denied, plan->now.utc, asked);
}

/* What is remembered of it, unless units may have come back before time has drained them; or NULL.
 */
static struct denial *recall(struct deny_cache *c, const struct take *t, usec_t steady)
{
	size_t set = t->key.a % SETS;
	unsigned way = find(c, set, t);

	if (way == WAYS)
		return NULL;
	struct denial *d = &c->denial[set][way];
	bool may_be_less = c->refunds || t->limit->rule->lease > 0;
	if (steady < d->asked || (may_be_less && steady - d->asked > DENIAL_DOUBTED))
		return NULL;
	return d;
}

static struct now now_of(const struct denial *d, usec_t steady)
{
	usec_t at = d->at + (steady - d->asked);

	return (struct now){ .steady = at, .utc = at };
}

static void fill_in(struct take *t, const struct bucket *state, struct now now)
{
	const struct quota *q = &t->limit->quota;
	int64_t cost = cost_asked(t);
	bool oversize = cost > q->capacity, admits = bucket_admits(q, state, cost, now);

	t->verdict = (struct verdict){
		.admits = admits,
		.oversize = oversize,
		.state = *state,
		.left = bucket_left(q, state, now),
		.retry_after = admits || oversize ? 0 : bucket_retry_after(q, state, cost, now),
	};
}

/* Is what is remembered of one limit a denial, and does it still deny this cost? */
static bool still_denies(const struct take *t, struct denial *d, usec_t steady)
{
	if (!d->cost || !enforces(t) || cost_asked(t) < d->cost)
		return false;
	struct now now = now_of(d, steady);
	struct bucket state = bucket_read(&t->limit->quota, &d->state, now);
	if (bucket_admits(&t->limit->quota, &state, d->cost, now)) {
		d->cost = 0; /* over */
		return false;
	}
	return true;
}

/* As it is remembered, or as if it were full. */
static void answer(struct take *t, const struct denial *d, struct now now)
{
	static const struct bucket never_seen;
	struct bucket state = bucket_read(&t->limit->quota, d ? &d->state : &never_seen, now);

	fill_in(t, &state, now);
}

bool deny_cache_answer(struct deny_cache *c, struct plan *plan, usec_t steady)
{
	struct denial *known[PLAN_MAX];
	bool denied = false;
	struct now now = { 0 };

	if (counts_denied(plan))
		return false;
	for (unsigned i = 0; i < plan->n; i++) {
		struct take *t = &plan->take[i];
		known[i] = recall(c, t, steady);
		/* What could never pass is what is reported: it has to be known. */
		if (!known[i] && enforces(t) && cost_asked(t) > t->limit->quota.capacity)
			return false;
		if (known[i] && still_denies(t, known[i], steady)) {
			denied = true;
			now = now_of(known[i], steady);
		}
	}
	if (!denied)
		return false;
	for (unsigned i = 0; i < plan->n; i++)
		answer(&plan->take[i], known[i], now);
	plan->denied = true;
	plan->now = now;
	return true;
}
