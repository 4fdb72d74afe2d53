/* Why a request gets what it gets, rule by rule, and what it would get: a plan is asked for with
 * cost 0, which consumes nothing, and charged on the side. Pure. */
#ifndef LIMIT_EXPLAIN_H
#define LIMIT_EXPLAIN_H

#include "limit/by_hash.h"
#include "limit/decision.h"

enum rule_part {
	PART_APPLIES,
	PART_OFF,
	PART_NO_MATCH, /* `slot` does not fit, or is not there */
	PART_NO_FIELD, /* no alternative of per[slot] is there */
	PART_NO_TIER,  /* this tier is not limited */
	PART_UNKNOWN,  /* it looks at `slot`, of which only the hash is known */
};

struct rule_why {
	enum rule_part part;
	unsigned slot;
};

/* Of a rule in the plan of this view, or not in it; where plan->outcome is OUTCOME_LIMITS. `fresh`:
 * as for plan_ask(). */
struct rule_why rule_explain(
	const struct rule *, const struct view *, const struct plan *, bool fresh);

/* Which alternatives before the one that the take counts by the view does not have, as slots: with
 * one of these a request is counted elsewhere. */
uint64_t take_counts_without(const struct take *);

/* Does the rule count this view's requests by nothing that says who sends them? One global counter,
 * or one for each path: a counter that its clients share. Of a rule that has all it counts by. */
bool rule_is_shared(const struct rule *, const struct view *);

/* A plan that asks: each cost is 0. Takes of rules that look at a field of which only the hash is
 * known get the counters that `known` remembers, and are left out where it remembers none, or where
 * it is what they match by: nobody can tell. `fresh`: nobody came before, so counters need not be
 * told apart. */
void plan_ask(struct plan *, const struct policy *, const struct view *,
	const struct by_hash *known, bool fresh);

/* Of a rule with PART_UNKNOWN: are its counters known all the same? */
bool rule_is_known(const struct rule *, const struct policy *, const struct view *,
	const struct by_hash *known);

/* Of a plan that a store has answered with these costs of 0: verdicts as they will be once the
 * request comes with its costs. before[i] is what is left of take i now. */
void plan_foresee(struct plan *, const struct view *, int64_t before[PLAN_MAX]);

#endif
