#include "limit/split.h"

#include <assert.h>

/* The takes of one rule follow each other: [first, returned). */
static unsigned rule_end(const struct plan *plan, unsigned first)
{
	unsigned end = first + 1;
	while (end < plan->n && plan->take[end].limit->rule == plan->take[first].limit->rule)
		end++;
	return end;
}

void split_part(
	const struct plan *whole, const uint8_t part_of[], unsigned number, struct plan *part)
{
	part->n = 0;
	part->outcome = OUTCOME_LIMITS;
	part->denied = part->degraded = part->closed = part->prefetched = false;
	part->done = NULL;
	for (unsigned i = 0; i < whole->n; i++) {
		assert(i == 0 || whole->take[i].limit->rule != whole->take[i - 1].limit->rule ||
			part_of[i] == part_of[i - 1]);
		if (part_of[i] == number)
			part->take[part->n++] = whole->take[i];
	}
}

/* ---- what was done in a part ---- */

static bool rule_admits(const struct plan *part, unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++)
		if (!part->take[i].verdict.admits)
			return false;
	return true;
}

/* Takes of those rules of `part`, in which nothing denied, that admitted it and do not count what
 * is denied, or else of those that did not and do. */
static bool pick(const struct plan *part, bool admitted, bool count_denied, struct plan *out)
{
	out->n = 0;
	out->outcome = OUTCOME_LIMITS;
	out->denied = out->degraded = out->closed = out->prefetched = false;
	out->done = NULL;
	for (unsigned first = 0, end; !part->denied && first < part->n; first = end) {
		end = rule_end(part, first);
		if (part->take[first].limit->rule->count_denied != count_denied ||
			rule_admits(part, first, end) != admitted)
			continue;
		for (unsigned i = first; i < end; i++)
			if (part->take[i].cost)
				out->take[out->n++] = part->take[i];
	}
	return out->n > 0;
}

bool split_refund(const struct plan *part, struct plan *refund)
{
	return pick(part, true, false, refund);
}

bool split_charge(const struct plan *part, struct plan *charge)
{
	bool any = pick(part, false, true, charge);

	charge->closed = true;
	return any;
}

/* ---- the verdicts of the whole ---- */

/* The state as of another instant, of clocks that were read a moment apart. Not drained by that:
 * token buckets may be of time lines that have nothing to do with each other. */
void split_carry_over(const struct quota *q, struct bucket *state, struct now to)
{
	if (q->algorithm == ALGORITHM_TOKEN_BUCKET)
		state->at = to.steady;
	else
		*state = bucket_read(q, state, to);
}

/* Of a part that did not deny, as it is when all is done that is left to do. */
static void undo(struct take *t, bool rule_admits, struct now then)
{
	const struct quota *q = &t->limit->quota;
	struct verdict *v = &t->verdict;
	bool count_denied = t->limit->rule->count_denied;

	if (t->cost == 0 || rule_admits == count_denied)
		return;
	if (rule_admits) {
		(void)bucket_refund(q, &v->state, t->cost, v->state.at, then);
		v->charged = false;
	} else {
		v->charged |= bucket_charge_denied(q, &v->state, t->cost);
	}
}

static void join_part(
	struct plan *whole, const uint8_t part_of[], unsigned number, const struct plan *part)
{
	bool undone = whole->denied && !part->denied;
	bool admits = false; /* the rule that take k is of */
	bool later = part->now.utc != whole->now.utc || part->now.steady != whole->now.steady;

	for (unsigned i = 0, k = 0, end = 0; i < whole->n; i++) {
		if (part_of[i] != number)
			continue;
		if (k == end) {
			end = rule_end(part, k);
			admits = rule_admits(part, k, end);
		}
		struct take *t = &whole->take[i];
		struct verdict *v = &t->verdict;
		const struct quota *q = &t->limit->quota;
		*v = part->take[k++].verdict;
		if (undone)
			undo(t, admits, part->now);
		if (later)
			split_carry_over(q, &v->state, whole->now);
		if (!undone && !later)
			continue;
		v->left = bucket_left(q, &v->state, whole->now);
		v->retry_after = 0;
		if (!v->oversize && (!v->admits || whole->denied))
			v->retry_after = bucket_retry_after(
				q, &v->state, t->cost ? t->cost : 1, whole->now);
	}
}

void split_join(struct plan *whole, const uint8_t part_of[], const struct plan *const part[])
{
	whole->denied = false;
	for (unsigned i = 0; i < whole->n; i++) {
		const struct plan *p = part[part_of[i]];
		whole->denied |= p->denied;
		if (i == 0 || p->now.utc > whole->now.utc)
			whole->now = p->now;
	}
	uint64_t joined = 0;
	for (unsigned i = 0; i < whole->n; i++) {
		unsigned number = part_of[i];
		assert(number < PLAN_MAX);
		if (!(joined >> number & 1))
			join_part(whole, part_of, number, part[number]);
		joined |= 1ull << number;
	}
}

void split_take_back(struct plan *refund, const struct bucket *const stored[], struct now now)
{
	static const struct bucket never_seen;

	for (unsigned i = 0; i < refund->n; i++) {
		const struct take *t = &refund->take[i];
		const struct quota *q = &t->limit->quota;
		struct verdict *v = &refund->take[i].verdict;
		struct bucket b = bucket_read(q, stored[i] ? stored[i] : &never_seen, now);

		v->charged = bucket_refund(q, &b, t->cost, v->state.at, now);
		v->state = b;
		v->left = bucket_left(q, &b, now);
	}
}
