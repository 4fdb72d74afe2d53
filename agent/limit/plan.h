/* The plan: what one request is to be charged by a policy. Pure: (policy, view) -> plan. A store
 * fills in the verdicts (limit/decision.h). */
#ifndef LIMIT_PLAN_H
#define LIMIT_PLAN_H

#include "limit/policy.h"

enum outcome {
	OUTCOME_LIMITS,
	OUTCOME_DISABLED,
	OUTCOME_BLOCKED,
	OUTCOME_BYPASSED,
	OUTCOME_BANNED, /* by a penalty: whoever knows the bans sets it, and banned_until */
};

/* A store's word on one take. */
struct verdict {
	bool admits;
	bool oversize;
	bool charged;        /* `state` differs from what was stored and has to be kept */
	struct bucket state; /* as it is after the request */
	double left;
	usec_t retry_after; /* until the cost would pass, as things are after the request; 0: now,
			     * or never (oversize) */
};

/* What a store found where a counter was erased. */
enum held { HELD_UNKNOWN, HELD_NOTHING, HELD_SOME };

struct take {
	const struct limit *limit;
	struct key key;
	int64_t cost;       /* as asked; 0 asks without consuming */
	uint32_t per_found; /* which alternative each `per` found, 4 bits each: for the scope */
	enum held held;     /* by store->erase() alone */
	struct verdict verdict;
};

struct plan {
	struct take take[PLAN_MAX];
	unsigned n;
	enum outcome outcome;
	uint64_t marks; /* the sum of those of the rules that apply; 0: none does, or nobody asks */
	bool denied;    /* by plan_charge(): some rule that enforces does not admit it */
	bool degraded;  /* its store is away: limit/fallback.h says what is left of it */
	bool closed;    /* degraded, and a rule that enforces wants it denied then */
	/* degraded: the first rules in shadow mode, and with action "tag", that are `closed` */
	const struct rule *closed_shadow, *closed_tag;
	bool prefetched;     /* its store has been told that it comes: the store's own */
	usec_t banned_until; /* OUTCOME_BANNED: UTC */
	unsigned banned;     /* OUTCOME_BANNED: the take by whose descriptor he is */
	usec_t begun;        /* steady time: since when its check has been waiting; 0: not yet */
	struct now now;      /* by whose clock the verdicts were found; set by the store */
	char tier[TIER_NAME_MAX + 1]; /* copied: the view dies before an asynchronous answer */
	uint8_t tier_length;
	int16_t tier_number;         /* the policy's; -1: it knows no such name */
	uint16_t tally;              /* that of the tier; 0: of one that the policy does not know */
	void (*done)(struct plan *); /* after STORE_PENDING */
	/* How many hold what the limits are of. Set by who gives the plan to a store that may
	 * answer later, and holds it himself until `done`: a store that looks at them after that
	 * counts itself in, and is never the last. NULL: they outlive the store. */
	_Atomic(unsigned) *holders;
};

/* What `view` is to be charged. Copies all that the plan keeps: the view may die after. A client
 * whose message brings no tier gets his from the tiers file, or the default one: rules see it as
 * the field `tier` then. */
void policy_plan(const struct policy *, struct view *, struct plan *);

/* The same, but of all counters that this client has by the rules that match, those of limits of
 * other tiers included, and whatever the lists, an override or the switch say of what they are
 * asked: its outcome is OUTCOME_LIMITS. The next of them from `*at` on (zero at first), as many as
 * the plan has room for; of none: that was all. (Those of one rule and window are one counter, for
 * all tiers: it is there once, by the limit of the client's own tier where that has one.) */
struct counters_at {
	unsigned rule, limit;
};
void policy_counters(const struct policy *, struct view *, struct counters_at *at, struct plan *);

/* Where a client's tier and his outcome come from, for people. */
struct override;
struct plan_why {
	enum {
		TIER_BY_OVERRIDE,
		TIER_BY_MESSAGE,
		TIER_BY_KEY, /* in the tiers file */
		TIER_BY_USER,
		TIER_BY_DEFAULT
	} tier;
	const struct override *override; /* that holds; NULL: none */
	bool blocks, allows;             /* the list matches, whether it is asked or not */
};

/* Of a view that policy_plan() has not had yet. */
struct plan_why policy_why(const struct policy *, const struct view *);

/* How long a store has to keep `state` (as it is after the request): until it equals one never
 * seen for every tier that shares the counter, whatever its rate. At most two years. */
usec_t limit_keep_for(const struct limit *, const struct bucket *state, struct now);

/* How long until one unit passes again; 0: now. A counter for which this is not 0 is "at its
 * limit": what a full table lets go last. */
usec_t limit_open_after(const struct limit *, const struct bucket *state, struct now);

/* Of a secret only so much of its SHA-256 is shown that two can be told apart. */
enum { SECRET_HEX_SHOWN = 12 };

/* The scope of a take ("ip", "ip+endpoint", "global"), and its descriptor for people
 * ("ip=10.0.0.1", secret fields as sha256:… cut short). Both return the length written, cut at
 * `size`. */
size_t take_scope(const struct policy *, const struct take *, char *out, size_t size);
size_t take_describe(
	const struct policy *, const struct take *, const struct view *, char *out, size_t size);
/* Whom no take tells of, as one who is blocked: user and key, or else the address, written as by
 * take_describe(). */
size_t view_describe(const struct policy *, const struct view *, char *out, size_t size);
size_t view_describe_address(const struct policy *, const struct view *, char *out, size_t size);

#endif
