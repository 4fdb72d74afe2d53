#include "limit/fallback.h"

static bool enforces(const struct rule *r)
{
	return r->mode == MODE_ENFORCE && r->action == ACTION_DENY;
}

/* A rule that only watches says what it would have done. */
static void close_rule(struct plan *plan, const struct rule *r)
{
	if (enforces(r))
		plan->closed = true;
	else if (r->mode == MODE_SHADOW && !plan->closed_shadow)
		plan->closed_shadow = r;
	else if (r->mode == MODE_ENFORCE && !plan->closed_tag)
		plan->closed_tag = r;
}

/* That is so whatever the store would say. */
static bool never_passes(const struct take *t)
{
	return (t->cost ? t->cost : 1) > t->limit->quota.capacity;
}

static void keep(struct plan *plan, unsigned *kept, unsigned i)
{
	if (*kept != i)
		plan->take[*kept] = plan->take[i];
	(*kept)++;
}

void plan_fall_back(struct plan *plan)
{
	unsigned kept = 0;

	plan->degraded = true;
	plan->closed = false;
	plan->closed_shadow = plan->closed_tag = NULL;
	for (unsigned i = 0; i < plan->n; i++) {
		const struct limit *l = plan->take[i].limit;
		switch (l->rule->on_failure) {
		case ON_FAILURE_CLOSED:
			close_rule(plan, l->rule);
			/* fall through */
		case ON_FAILURE_OPEN:
			if (never_passes(&plan->take[i]))
				keep(plan, &kept, i);
			break;
		case ON_FAILURE_LOCAL:
			plan->take[i].limit = l->local;
			keep(plan, &kept, i);
			break;
		}
	}
	plan->n = kept;
}

/* Was rule [first, end) charged? As plan_charge() has it: verdict.charged is no answer, a window
 * may have been anchored anew and nothing else. */
static bool was_charged(const struct plan *plan, unsigned first, unsigned end)
{
	if (plan->denied)
		return plan->take[first].limit->rule->count_denied;
	for (unsigned i = first; i < end; i++)
		if (!plan->take[i].verdict.admits)
			return false;
	return true;
}

bool plan_mirror(const struct plan *from, struct plan *to)
{
	to->outcome = OUTCOME_LIMITS;
	to->prefetched = false;
	to->n = 0;
	for (unsigned first = 0, end; first < from->n; first = end) {
		const struct rule *r = from->take[first].limit->rule;
		for (end = first + 1; end < from->n && from->take[end].limit->rule == r;)
			end++;
		if (r->on_failure != ON_FAILURE_LOCAL || from->take[first].cost == 0)
			continue;
		bool charged = was_charged(from, first, end);
		for (unsigned i = first; i < end; i++) {
			struct take *t = &to->take[to->n++];
			*t = from->take[i];
			if (t->limit->quota.window.kind == WINDOW_FROM_FIRST)
				t->verdict.state.at -= from->now.utc;
			t->limit = t->limit->local;
			if (!charged)
				t->cost = 0;
		}
	}
	return to->n > 0;
}

static uint32_t more(uint32_t count, double share)
{
	uint32_t whole = (uint32_t)(share + 0.5); /* windows count whole units */
	return count > whole ? count : whole;
}

/* The count that is further on, with the time that it began: by the whole's clock, of which is
 * known how long ago that is. */
static bool raise_from_first(
	struct bucket *b, const struct bucket *of_whole, double part, struct now now)
{
	uint32_t was = b->current;

	b->current = more(was, of_whole->current * part);
	if (b->current == was)
		return false;
	b->at = now.utc + now.held + of_whole->at;
	return true;
}

/* At least as much of the share is used as of the whole. A fresh share here would be a second one
 * for who has had his through another agent. */
static bool raise(
	const struct limit *l, struct bucket *b, const struct bucket *of_whole, struct now now)
{
	const struct quota *q = &l->quota, *whole = l->whole ? &l->whole->quota : q;
	struct bucket was = *b;

	if (whole->capacity == 0)
		return false;
	double part = (double)q->capacity / (double)whole->capacity;
	if (q->algorithm == ALGORITHM_TOKEN_BUCKET) {
		if (of_whole->used * part <= b->used)
			return false;
		b->used = of_whole->used * part;
		return true;
	}
	if (q->window.kind == WINDOW_FROM_FIRST)
		return raise_from_first(b, of_whole, part, now);
	if (of_whole->at != b->at) /* by another clock it is another window: nothing is known */
		return false;
	b->current = more(b->current, of_whole->current * part);
	b->previous = more(b->previous, of_whole->previous * part);
	return b->current != was.current || b->previous != was.previous;
}

void plan_warm(struct plan *plan, const struct bucket *const stored[], struct now now)
{
	static const struct bucket never_seen;

	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		const struct quota *q = &t->limit->quota;
		struct verdict *v = &plan->take[i].verdict;
		struct bucket b = bucket_read(q, stored[i] ? stored[i] : &never_seen, now);

		/* cost 0 charges nothing */
		v->charged = t->cost > 0 && bucket_charge_denied(q, &b, t->cost);
		v->charged |= raise(t->limit, &b, &v->state, now);
		v->state = b;
		v->left = bucket_left(q, &b, now);
	}
}
