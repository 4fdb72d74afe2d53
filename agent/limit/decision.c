#include "limit/decision.h"

#include <math.h>

const char *reason_name(enum reason reason)
{
	static const char *const name[] = {
#define X(name, text) [REASON_##name] = text,
		REASONS(X)
#undef X
	};
	return name[reason];
}

static bool enforces(const struct rule *r)
{
	return r->mode == MODE_ENFORCE && r->action == ACTION_DENY;
}

static bool denies(const struct take *t)
{
	return enforces(t->limit->rule) && !t->verdict.admits;
}

/* Cost 0 asks what a request of cost 1 would get. */
static int64_t cost_asked(const struct take *t)
{
	return t->cost ? t->cost : 1;
}

/* The takes of one rule follow each other: [first, returned). */
static unsigned rule_end(const struct plan *plan, unsigned first)
{
	unsigned end = first + 1;
	while (end < plan->n && plan->take[end].limit->rule == plan->take[first].limit->rule)
		end++;
	return end;
}

static void evaluate(struct take *t, const struct bucket *stored, struct now now)
{
	static const struct bucket never_seen;
	const struct quota *q = &t->limit->quota;
	struct verdict *v = &t->verdict;
	int64_t cost = cost_asked(t);

	v->state = bucket_read(q, stored ? stored : &never_seen, now);
	v->oversize = cost > q->capacity;
	v->admits = !v->oversize && bucket_admits(q, &v->state, cost, now);
	/* A bucket of the future, from before the clock was set back, is anchored anew once: were
	 * it left as it is, every later window would inherit it, and tokens would not begin to
	 * come back before that instant. (Clocks that are read a moment apart are no such case.) */
	usec_t at = q->algorithm == ALGORITHM_TOKEN_BUCKET ? now.steady : now.utc + now.held;
	v->charged = t->cost && stored && bucket_instant(stored) - at > BUCKET_AHEAD_MAX;
	v->retry_after = 0;
}

static void charge(struct take *t, bool denied)
{
	const struct quota *q = &t->limit->quota;
	struct verdict *v = &t->verdict;

	if (t->cost == 0)
		return;
	if (denied) {
		v->charged |= bucket_charge_denied(q, &v->state, t->cost);
	} else {
		bucket_charge(q, &v->state, t->cost);
		v->charged = true;
	}
}

/* A rule is charged whole or not at all: of an admitted request if it admits it itself (of those
 * that enforce, all do), of a denied one if it counts those. */
static void charge_by_rule(struct plan *plan)
{
	for (unsigned first = 0, end; first < plan->n; first = end) {
		bool admits = true;
		end = rule_end(plan, first);
		for (unsigned i = first; i < end; i++)
			admits &= plan->take[i].verdict.admits;
		if (plan->denied ? !plan->take[first].limit->rule->count_denied : !admits)
			continue;
		for (unsigned i = first; i < end; i++)
			charge(&plan->take[i], plan->denied);
	}
}

/* Nearly always nobody is denied, and one walk over the takes does it all: 200 instructions less
 * for three. Where somebody is, it has written nothing but verdicts, and plan_charge() begins anew.
 */
static inline bool charge_all(
	struct plan *plan, const struct bucket *const stored[], struct now now)
{
	static const struct bucket never_seen;

	for (unsigned i = 0; i < plan->n; i++) {
		struct take *t = &plan->take[i];
		struct verdict *v = &t->verdict;
		if (!bucket_take(&t->limit->quota, stored[i] ? stored[i] : &never_seen, t->cost,
			    now, &v->state, &v->left))
			return false;
		v->admits = true;
		v->oversize = false;
		v->charged = t->cost != 0;
		v->retry_after = 0;
	}
	return true;
}

void plan_charge(struct plan *plan, const struct bucket *const stored[], struct now now)
{
	plan->denied = plan->closed;
	if (!plan->closed && charge_all(plan, stored, now))
		return;
	for (unsigned i = 0; i < plan->n; i++) {
		struct take *t = &plan->take[i];
		evaluate(t, stored[i], now);
		if (!t->verdict.admits)
			plan->denied |= enforces(t->limit->rule);
	}
	charge_by_rule(plan);
	for (unsigned i = 0; i < plan->n; i++) {
		struct take *t = &plan->take[i];
		struct verdict *v = &t->verdict;
		v->left = bucket_left(&t->limit->quota, &v->state, now);
		/* Also of one that admitted, but was charged for what another denied: the same
		 * request would have to wait for it, too. */
		if (!v->oversize && (!v->admits || plan->denied))
			v->retry_after = bucket_retry_after(
				&t->limit->quota, &v->state, cost_asked(t), now);
	}
}

static double share_left(const struct take *t)
{
	return t->limit->quota.capacity ? t->verdict.left / (double)t->limit->quota.capacity : 0;
}

static bool is_warning(const struct take *t)
{
	double warn_at = t->limit->rule->warn_at;
	double capacity = (double)t->limit->quota.capacity;

	return warn_at < 1 && capacity - t->verdict.left > warn_at * capacity + UNIT_SLACK;
}

/* Could it never pass? What is too much for a share alone could, once the store is back. */
static bool is_oversize(const struct take *t)
{
	const struct limit *whole = t->limit->whole;

	return t->verdict.oversize && !(whole && cost_asked(t) <= whole->quota.capacity);
}

/* Of a request that is denied: is `t` to be reported rather than `best`, which comes before it in
 * the file? */
static bool outranks(const struct take *t, const struct take *best)
{
	if (!denies(t))
		return false;
	if (!best)
		return true;
	if (best->verdict.oversize || t->verdict.oversize) {
		bool never = is_oversize(t), best_never = is_oversize(best);
		if (never || best_never)
			return never && !best_never;
	}
	return t->verdict.retry_after > best->verdict.retry_after;
}

static const struct take *find_denying(const struct plan *plan)
{
	const struct take *best = NULL;

	for (unsigned i = 0; i < plan->n; i++)
		if (outranks(&plan->take[i], best))
			best = &plan->take[i];
	return best;
}

static int64_t whole_seconds(usec_t t)
{
	/* Never below 0; unsigned takes 4 instructions less. */
	return (int64_t)(((uint64_t)t + USEC_PER_SEC - 1) / USEC_PER_SEC);
}

static void report(struct decision *d, const struct take *t, struct now now)
{
	const struct verdict *v = &t->verdict;
	usec_t reset = bucket_reset_after(&t->limit->quota, &v->state, now);

	d->reported = t;
	d->limit = t->limit->quota.capacity;
	d->remaining = bucket_remaining(&t->limit->quota, &v->state, now);
	d->reset = whole_seconds(reset);
	d->reset_at = now.utc + reset;
	if (d->deny)
		d->reason = is_oversize(t) ? REASON_OVERSIZE : REASON_LIMITED;
}

/* Until the same request would pass every limit, also one that admitted it but was charged for what
 * another denied. */
static int64_t seconds_to_wait(const struct plan *plan)
{
	usec_t longest = 1; /* never 0 for who is denied */

	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		if (enforces(t->limit->rule) && t->verdict.retry_after > longest)
			longest = t->verdict.retry_after;
	}
	return whole_seconds(longest);
}

/* Of a rule that would deny, or tag. The first of each counts. */
static inline void note_exceeded(struct decision *d, const struct rule *r)
{
	if (r->mode == MODE_SHADOW)
		d->shadow = d->shadow ? d->shadow : r;
	else if (r->action == ACTION_TAG)
		d->tag = d->tag ? d->tag : r;
}

static struct decision decide_limits(const struct plan *plan, struct now now)
{
	struct decision d = { .reason = REASON_OK, .deny = plan->n && plan->denied };
	const struct take *best = NULL;
	double bound = HUGE_VAL; /* below that, more is used than of `best` */

	for (const struct take *t = plan->take, *end = t + plan->n; t < end; t++) {
		const struct rule *r = t->limit->rule;

		if (__builtin_expect(!t->verdict.admits, 0))
			note_exceeded(&d, r);
		if (r->mode == MODE_SHADOW)
			continue;
		d.warn |= is_warning(t);
		double share = share_left(t);
		if (share < bound) {
			best = t;
			bound = share - 1e-12; /* less than noise is a tie */
		}
	}
	if (d.deny)
		best = find_denying(plan);
	if (best)
		report(&d, best, now);
	if (d.reason == REASON_LIMITED)
		d.retry_after = seconds_to_wait(plan);
	return d;
}

/* The first of two rules, either of which may be missing: they stand in one array. */
static const struct rule *first_of(const struct rule *a, const struct rule *b)
{
	return !a || (b && b < a) ? b : a;
}

/* The store was away. A denial by a limit's share is one like any other, and what could never pass
 * is denied for that; the rest was decided by the failure policy, and where that denies there is no
 * limit to tell of. */
static struct decision decide_degraded(const struct plan *plan, struct decision by_shares)
{
	struct decision d = by_shares;
	bool closed = plan->closed && by_shares.reason != REASON_OVERSIZE;

	if (closed)
		d = (struct decision){ .deny = true,
			.warn = by_shares.warn,
			.shadow = by_shares.shadow,
			.tag = by_shares.tag };
	if (closed || !d.deny)
		d.reason = REASON_DEGRADED;
	d.shadow = first_of(d.shadow, plan->closed_shadow);
	d.tag = first_of(d.tag, plan->closed_tag);
	return d;
}

const struct take *decision_shadow(const struct plan *plan, const struct decision *d)
{
	for (unsigned i = 0; d->shadow && i < plan->n; i++)
		if (plan->take[i].limit->rule == d->shadow && !plan->take[i].verdict.admits)
			return &plan->take[i];
	return NULL;
}

static usec_t at_least_1(usec_t t)
{
	return t > 1 ? t : 1;
}

struct decision decide(const struct plan *plan, struct now now)
{
	switch (plan->outcome) {
	case OUTCOME_DISABLED:
		return (struct decision){ .reason = REASON_DISABLED };
	case OUTCOME_BLOCKED:
		return (struct decision){ .deny = true, .reason = REASON_BLOCKED };
	case OUTCOME_BYPASSED:
		return (struct decision){ .reason = REASON_BYPASSED };
	case OUTCOME_BANNED:
		return (struct decision){ .deny = true,
			.reason = REASON_BANNED,
			.banned = &plan->take[plan->banned],
			.retry_after = whole_seconds(at_least_1(plan->banned_until - now.utc)) };
	case OUTCOME_LIMITS:
		break;
	}
	struct decision d = decide_limits(plan, now);
	return plan->degraded ? decide_degraded(plan, d) : d;
}

void decision_wait_for_ban(struct decision *d, usec_t until, struct now now)
{
	int64_t wait = until > now.utc ? whole_seconds(until - now.utc) : 0;

	/* 0: waiting does not help, the ban's end neither. */
	if (d->retry_after && d->retry_after < wait)
		d->retry_after = wait;
}
