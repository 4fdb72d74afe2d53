#include "limit/explain.h"

/* The first hashed slot that the rule looks at; -1: none. Where nobody came before, all counters
 * are alike, and what it counts by does not matter. */
static int hashed_slot(const struct rule *r, const struct view *v, bool fresh)
{
	uint64_t looks = r->match ? match_slots(r->match) : 0;

	for (unsigned i = 0; i < r->per_n && !fresh; i++)
		for (unsigned a = 0; a < r->per[i].n; a++) {
			unsigned slot = r->per[i].slot[a];
			looks |= 1ull << slot;
			if (view_has(v, slot))
				break;
		}
	looks &= v->hashed;
	return looks ? __builtin_ctzll(looks) : -1;
}

static int absent_per(const struct rule *r, const struct view *v)
{
	for (unsigned i = 0; i < r->per_n; i++) {
		unsigned a = 0;
		while (a < r->per[i].n && !view_has(v, r->per[i].slot[a]))
			a++;
		if (a == r->per[i].n)
			return (int)i;
	}
	return -1;
}

/* A field of which the hash is known may fit, or not; any other that does not decides. */
static int misfit(const struct rule *r, const struct view *v)
{
	int slot = r->match ? match_misfit(r->match, v) : -1;

	return slot >= 0 && v->hashed >> slot & 1 ? -1 : slot;
}

bool rule_is_shared(const struct rule *r, const struct view *v)
{
	const uint64_t what = 1ull << FIELD_MESSAGE | 1ull << FIELD_TIER | 1ull << FIELD_METHOD |
			      1ull << FIELD_PATH | 1ull << FIELD_HOST | 1ull << FIELD_COST |
			      1ull << FIELD_ENDPOINT;

	for (unsigned i = 0; i < r->per_n; i++) {
		const struct per *per = &r->per[i];
		unsigned a = 0;
		while (a + 1 < per->n && !view_has(v, per->slot[a]))
			a++;
		if (!(what >> per->slot[a] & 1))
			return false;
	}
	return true;
}

static bool has_rule(const struct plan *plan, const struct rule *r)
{
	for (unsigned i = 0; i < plan->n; i++)
		if (plan->take[i].limit->rule == r)
			return true;
	return false;
}

struct rule_why rule_explain(
	const struct rule *r, const struct view *v, const struct plan *plan, bool fresh)
{
	int slot;

	if (r->mode == MODE_OFF)
		return (struct rule_why){ .part = PART_OFF };
	if (has_rule(plan, r))
		return (struct rule_why){ .part = PART_APPLIES };
	if ((slot = misfit(r, v)) >= 0)
		return (struct rule_why){ PART_NO_MATCH, (unsigned)slot };
	if ((slot = absent_per(r, v)) >= 0)
		return (struct rule_why){ PART_NO_FIELD, (unsigned)slot };
	if ((slot = hashed_slot(r, v, fresh)) >= 0)
		return (struct rule_why){ PART_UNKNOWN, (unsigned)slot };
	return (struct rule_why){ .part = PART_NO_TIER };
}

uint64_t take_counts_without(const struct take *t)
{
	const struct rule *r = t->limit->rule;
	uint64_t slots = 0;

	for (unsigned i = 0; i < r->per_n; i++)
		for (unsigned a = 0; a < (t->per_found >> 4 * i & 15); a++)
			slots |= 1ull << r->per[i].slot[a];
	return slots;
}

/* true: its counter is known. */
static bool find_counter(struct take *t, const struct policy *p, const struct view *v,
	const struct by_hash *known, bool fresh)
{
	const struct rule *r = t->limit->rule;
	struct key name, descriptor;

	if (hashed_slot(r, v, fresh) < 0)
		return true;
	if (!known->find || (r->match && match_slots(r->match) & v->hashed))
		return false;
	name = take_name_by_hash(p, t, v, v->text[FIELD_KEY].p);
	if (!known->find(known->with, &name, &descriptor))
		return false;
	take_set_descriptor(t, descriptor);
	return true;
}

bool rule_is_known(const struct rule *r, const struct policy *p, const struct view *v,
	const struct by_hash *known)
{
	const struct limit any = { .rule = r };
	struct take t = { .limit = &any };

	for (unsigned i = 0; i < r->per_n; i++) {
		unsigned a = 0;
		while (a < r->per[i].n && !view_has(v, r->per[i].slot[a]))
			a++;
		if (a == r->per[i].n)
			return false;
		t.per_found |= a << 4 * i;
	}
	return find_counter(&t, p, v, known, false);
}

void plan_ask(struct plan *plan, const struct policy *p, const struct view *v,
	const struct by_hash *known, bool fresh)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < plan->n; i++) {
		if (!find_counter(&plan->take[i], p, v, known, fresh))
			continue;
		if (kept != i)
			plan->take[kept] = plan->take[i];
		plan->take[kept++].cost = 0;
	}
	plan->n = kept;
}

void plan_foresee(struct plan *plan, const struct view *v, int64_t before[PLAN_MAX])
{
	struct bucket now_is[PLAN_MAX];
	const struct bucket *stored[PLAN_MAX];

	for (unsigned i = 0; i < plan->n; i++) {
		struct take *t = &plan->take[i];
		now_is[i] = bucket_read(&t->limit->quota, &t->verdict.state, plan->now);
		stored[i] = &now_is[i];
		before[i] = bucket_remaining(&t->limit->quota, &now_is[i], plan->now);
		t->cost = view_cost(v, t->limit->rule->cost_slot);
	}
	plan_charge(plan, stored, plan->now);
}
