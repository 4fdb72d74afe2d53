/* The charge of a whole plan (all or nothing, shadow, tag, count_denied, cost 0) and the decision
 * that follows from the verdicts. Pure: a store brings the buckets, this file has the semantics. */
#ifndef LIMIT_DECISION_H
#define LIMIT_DECISION_H

#include "limit/plan.h"

#define REASONS(X) \
	X(OK, "ok") \
	X(LIMITED, "limited") \
	X(OVERSIZE, "oversize") \
	X(BLOCKED, "blocked") \
	X(BANNED, "banned") \
	X(BYPASSED, "bypassed") \
	X(DISABLED, "disabled") \
	X(DEGRADED, "degraded")

enum reason {
#define X(name, text) REASON_##name,
	REASONS(X)
#undef X
};

const char *reason_name(enum reason);

/* Evaluates every take against its bucket and charges what CONTRACT.md says is to be charged.
 * stored[i] is take i's bucket, or NULL for a key never seen; none is written: what has changed is
 * in verdict.state, where verdict.charged is set. */
void plan_charge(struct plan *, const struct bucket *const stored[], struct now);

struct decision {
	bool deny;
	enum reason reason;
	const struct take *reported; /* NULL: no limit to report */
	const struct take *banned;   /* by whose descriptor its client is; NULL: he is not */
	bool warn;
	const struct rule *shadow; /* first shadow rule that would have denied, or NULL */
	const struct rule *tag;    /* first tag rule that was exceeded, or NULL */
	int64_t limit, remaining, reset, retry_after; /* seconds, rounded up; of `reported` */
	usec_t reset_at;                              /* UTC */
};

/* The take that a denial is known by to people: of the limit that is reported, or of the ban. NULL:
 * there is none. */
static inline const struct take *decision_known_by(const struct decision *d)
{
	return d->reported ? d->reported : d->banned;
}

/* By which the rule `d->shadow` would have denied; NULL: there is no such rule, or the failure
 * policy decided for it. */
const struct take *decision_shadow(const struct plan *, const struct decision *d);

/* After plan_charge(), or without it where plan->outcome is not OUTCOME_LIMITS. */
struct decision decide(const struct plan *, struct now);

/* By this denial its client is banned `until` then (UTC; 0: he is not): the same request would not
 * pass before. */
void decision_wait_for_ban(struct decision *, usec_t until, struct now);

#endif
