#include "store/leases.h"

#include "limit/split.h"

#include <stddef.h>
#include <stdlib.h>

/* Plans that are split at once; more are asked for as a whole. */
enum { SPLITS_MAX = 4096 };

enum { ELSEWHERE, HERE };

struct split {
	struct plan rest;
	struct plan *whole;
	struct leases *leases;
	struct ledger_spent spent;
	uint8_t part_of[PLAN_MAX];
	struct split *next; /* of those that are idle */
};

struct leases {
	struct ledger *ledger;
	void (*news)(void *owner, const struct plan *here);
	void *owner;
	struct split *idle;
	unsigned n;
};

struct leases *leases_new(
	struct ledger *ledger, void (*news)(void *owner, const struct plan *here), void *owner)
{
	struct leases *l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	l->ledger = ledger;
	l->news = news;
	l->owner = owner;
	return l;
}

void leases_free(struct leases *l)
{
	if (!l)
		return;
	for (struct split *s; (s = l->idle);) {
		l->idle = s->next;
		free(s);
	}
	free(l);
}

static struct split *split_get(struct leases *l)
{
	struct split *s = l->idle;

	if (s)
		l->idle = s->next;
	else if (l->n < SPLITS_MAX && (s = malloc(sizeof *s)))
		l->n++;
	return s;
}

static void on_done(struct plan *rest)
{
	struct plan *whole = ((struct split *)rest)->whole;

	leases_join(rest);
	whole->done(whole);
}

static void tell(struct leases *l, const struct plan *plan, uint32_t spent)
{
	uint8_t part_of[PLAN_MAX];
	struct plan here;

	for (unsigned i = 0; i < plan->n; i++)
		part_of[i] = spent >> i & 1 ? HERE : ELSEWHERE;
	split_part(plan, part_of, HERE, &here);
	here.now = plan->now;
	l->news(l->owner, &here);
}

struct plan *leases_spend(struct leases *l, struct plan *plan, usec_t steady)
{
	uint32_t spent = ledger_spend(l->ledger, plan, steady);
	uint32_t all = (uint32_t)((UINT64_C(1) << plan->n) - 1);

	if (!spent)
		return plan;
	plan->now = ledger_now(l->ledger, steady);
	if (l->news && ledger_had_news(l->ledger))
		tell(l, plan, spent);
	if (spent == all) {
		plan->denied = false;
		return NULL;
	}
	struct split *s = split_get(l);
	struct ledger_spent held = ledger_hold(l->ledger, plan, spent);
	if (!s) {
		ledger_unspend(l->ledger, plan, &held, steady);
		return plan;
	}
	s->whole = plan;
	s->leases = l;
	s->spent = held;
	for (unsigned i = 0; i < plan->n; i++)
		s->part_of[i] = spent >> i & 1 ? HERE : ELSEWHERE;
	split_part(plan, s->part_of, ELSEWHERE, &s->rest);
	s->rest.done = on_done;
	return &s->rest;
}

static bool same_key(const struct key *a, const struct key *b)
{
	return a->a == b->a && a->b == b->b;
}

/* The failure policy has left out takes of the rest, and changed others. */
static void join_degraded(struct split *s)
{
	struct plan *whole = s->whole, *rest = &s->rest;
	unsigned kept = 0, k = 0;

	whole->degraded = true;
	whole->denied = rest->denied;
	whole->closed = rest->closed;
	whole->closed_shadow = rest->closed_shadow;
	whole->closed_tag = rest->closed_tag;
	whole->now = rest->now;
	for (unsigned i = 0; i < whole->n; i++) {
		struct take *t = &whole->take[i];
		if (s->part_of[i] == HERE) {
			split_carry_over(&t->limit->quota, &t->verdict.state, whole->now);
			whole->take[kept++] = *t;
		} else if (k < rest->n && same_key(&rest->take[k].key, &t->key)) {
			whole->take[kept++] = rest->take[k++];
		}
	}
	whole->n = kept;
}

void leases_join(struct plan *rest)
{
	struct split *s = (struct split *)rest;
	struct leases *l = s->leases;
	struct plan *whole = s->whole;

	if (rest->denied)
		ledger_unspend(l->ledger, whole, &s->spent, clock_steady());
	else
		ledger_keep(l->ledger, whole, &s->spent);
	if (rest->degraded) {
		join_degraded(s);
	} else {
		struct plan here;
		split_part(whole, s->part_of, HERE, &here);
		here.now = whole->now;
		const struct plan *const part[] = { [ELSEWHERE] = rest, [HERE] = &here };
		split_join(whole, s->part_of, part);
	}
	s->next = l->idle;
	l->idle = s;
}
