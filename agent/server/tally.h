/* How checks were decided, by rule, tier, decision and reason. A worker counts; control gives rules
 * and tiers their places, the same ones through all reloads, and sums up. Bounded, whatever clients
 * send: a tier that no rule and no default_tier names is `other`, and so is a rule for which no
 * place is left. */
#ifndef SERVER_TALLY_H
#define SERVER_TALLY_H

#include "limit/decision.h"

#include <stdatomic.h>

enum {
	TALLY_RULES = 2 * RULES_MAX, /* of all generations; the first two: no rule, and others */
	TALLY_TIERS = 32,            /* the first: others */
	TALLY_OUTCOMES = 16,         /* 2 * reason + deny */
	TALLY_ROW = TALLY_TIERS * TALLY_OUTCOMES,
	TALLY_SETS = 256, /* of rules that applied together; a power of two */
	TALLY_SETS_MAX = TALLY_SETS / 4 * 3,
};

/* The rules that applied to a check, known by the sum of their marks: mostly they are those of the
 * check before, and one number counts for all of them. */
struct tally_set {
	uint64_t marks;
	_Atomic(uint64_t) n;
	_Atomic(unsigned) rule_n; /* the last that is written */
	uint16_t rule[PLAN_MAX];  /* their places */
};

/* A worker's own to write. A rule's `tally` and a plan's add up to where an outcome is counted. */
struct tally {
	_Atomic(uint64_t) checks[TALLY_RULES * TALLY_ROW];
	struct tally_set *last;           /* the owner's: what the last check counted in */
	struct tally_set set[TALLY_SETS]; /* found by marks, linear probing; never emptied */
	struct tally_set none;            /* of no rule */
	unsigned set_n;
	/* Of sets for which there was no place, each rule by itself. */
	_Atomic(uint64_t) applied[TALLY_RULES];
	_Atomic(uint64_t) warned[TALLY_RULES], shadowed[TALLY_RULES], tagged[TALLY_RULES];
};

struct tally *tally_new(void); /* all 0; memory is touched where it is used. NULL: no memory */
void tally_free(struct tally *);

/* Only the owner writes: a plain load and store is enough. */
static inline void tally_add(_Atomic(uint64_t) *at)
{
	uint64_t v = atomic_load_explicit(at, memory_order_relaxed);
	atomic_store_explicit(at, v + 1, memory_order_relaxed);
}

/* The rule that each is said of: `warned` of the one reported. */
static inline void tally_warned(struct tally *t, const struct take *reported)
{
	tally_add(&t->warned[reported ? reported->limit->rule->tally / TALLY_ROW : 0]);
}

/* Of all rules in shadow mode that would have denied: the decision names the first of them. */
void tally_shadowed(struct tally *, const struct plan *, const struct decision *);

static inline void tally_tagged(struct tally *t, const struct rule *tag)
{
	tally_add(&t->tagged[tag->tally / TALLY_ROW]);
}

static inline void tally_count(struct tally *t, const struct plan *plan, const struct decision *d)
{
	uint32_t rule = d->reported ? d->reported->limit->rule->tally : 0;
	tally_add(&t->checks[rule + plan->tally + 2 * (unsigned)d->reason + d->deny]);
}

/* Counts by another set than the last check's. */
void tally_other_set(struct tally *, const struct plan *);

/* How many checks each rule applied to, whichever was reported. A walk over the takes would cost 20
 * instructions for each. */
static inline void tally_applied(struct tally *t, const struct plan *plan)
{
	if (__builtin_expect(t->last->marks == plan->marks, 1))
		tally_add(&t->last->n);
	else
		tally_other_set(t, plan);
}

/* ---- control's side ---- */

struct tally_names; /* which rule and which tier has which place */

struct tally_names *tally_names_new(void); /* NULL: out of memory */
void tally_names_free(struct tally_names *);

/* Gives the rules and tiers of a policy their places, before any worker has it. */
void tally_names_apply(struct tally_names *, struct policy *);

/* The rule that has this place (its `tally` / TALLY_ROW), "" for none; as long as the names. */
const char *tally_rule_at(const struct tally_names *, uint32_t place);

/* What was counted at one place, by all workers. */
struct tally_line {
	const char *rule, *tier; /* "": no rule was reported; borrowed from the names */
	enum reason reason;
	bool deny;
	uint64_t n;
};

struct tally_rule {
	const char *rule;
	uint64_t applied, warned, shadowed, tagged;
};

struct tally_sum {
	struct tally_line *line; /* owned; what is not 0 */
	size_t line_n;
	struct tally_rule *rule; /* owned; every rule that has a place */
	size_t rule_n;
};

/* false: out of memory. */
bool tally_sum(
	const struct tally_names *, const struct tally *const of[], unsigned n, struct tally_sum *);
void tally_sum_free(struct tally_sum *);

#endif
