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
	int64_t cost;
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

static void note(struct deny_cache *c, const struct take *t, usec_t at, usec_t asked)
{
	size_t set = t->key.a % SETS;
	unsigned i = find(c, set, t);

	if (i == WAYS) {
		make_place(c, set);
		i = 0;
	}
	c->tag[set][i] = tag_of(&t->key);
	c->denial[set][i] = (struct denial){
		.key = t->key,
		.quota = t->limit->quota,
		.state = t->verdict.state,
		.cost = cost_asked(t),
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
	if (!plan->denied || plan->degraded || counts_denied(plan))
		return;
	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		/* What could never pass is found without a store: for that, there is none. */
		if (enforces(t) && !t->verdict.admits && !t->verdict.oversize)
			note(c, t, plan->now.utc, asked);
	}
}

/* Units may have come back before time has drained it. */
static bool is_doubtful(
	const struct deny_cache *c, const struct denial *d, const struct take *t, usec_t steady)
{
	return (c->refunds || t->limit->rule->lease > 0) && steady - d->asked > DENIAL_DOUBTED;
}

/* The remembered denial of one limit, if it still denies this cost: then its verdict. */
static bool answer(struct deny_cache *c, struct take *t, usec_t steady, struct now *now)
{
	size_t set = t->key.a % SETS;
	unsigned way = find(c, set, t);
	int64_t cost = cost_asked(t);

	if (way == WAYS)
		return false;
	const struct denial *d = &c->denial[set][way];
	if (!enforces(t) || cost < d->cost)
		return false;
	const struct quota *q = &t->limit->quota;
	usec_t at = d->at + (steady - d->asked);
	struct now then = { .steady = at, .utc = at };
	struct bucket state = bucket_read(q, &d->state, then);
	if (is_doubtful(c, d, t, steady) || steady < d->asked ||
		bucket_admits(q, &state, d->cost, then)) {
		c->tag[set][way] = 0; /* over */
		return false;
	}
	bool oversize = cost > q->capacity;
	t->verdict = (struct verdict){
		.oversize = oversize,
		.state = state,
		.left = bucket_left(q, &state, then),
		.retry_after = oversize ? 0 : bucket_retry_after(q, &state, cost, then),
	};
	*now = then;
	return true;
}

static void answer_full(struct take *t, struct now now)
{
	static const struct bucket never_seen;
	const struct quota *q = &t->limit->quota;
	bool oversize = cost_asked(t) > q->capacity;

	t->verdict = (struct verdict){
		.admits = !oversize,
		.oversize = oversize,
		.state = bucket_read(q, &never_seen, now),
		.left = (double)q->capacity,
	};
}

bool deny_cache_answer(struct deny_cache *c, struct plan *plan, usec_t steady)
{
	uint64_t denied = 0;
	struct now now = { 0 };

	if (counts_denied(plan))
		return false;
	for (unsigned i = 0; i < plan->n; i++) {
		struct now then;
		if (answer(c, &plan->take[i], steady, &then)) {
			denied |= 1ull << i;
			now = then;
		}
	}
	if (!denied)
		return false;
	for (unsigned i = 0; i < plan->n; i++)
		if (!(denied >> i & 1))
			answer_full(&plan->take[i], now);
	plan->denied = true;
	plan->now = now;
	return true;
}
