/* Penalties: whom a rule has denied too often, it bans for a while, longer each time. Pure: what
 * counts as a denial, how many are too many, how long a ban is. Who is banned: store/bans.h.
 *
 * Denials are counted by a limit of their own, a window of the penalty's `after` that begins with
 * the first of them, in the store as any other: so agents that share a store count together. Of
 * `after = "N/T"` the N-th denial bans if it comes less than T after the first of its count; one
 * that comes at T or later begins a new count. So nobody is banned for fewer than N in T, and
 * whoever keeps on at any pace of N in T or more is; of a burst that falls into two counts up to
 * 2N - 3 in T may not be enough. (A bucket that refills at N/T would never be empty at that pace.)
 */
#ifndef LIMIT_PENALTY_H
#define LIMIT_PENALTY_H

#include "limit/decision.h"

struct penalty {
	struct quota after; /* so many denials in so long a time */
	usec_t ban, max;    /* the first ban, and the longest */
	double factor;      /* each next one is so many times as long; 1 at least */
	/* by policy_seal() */
	struct rule strikes; /* no rule of the policy: what `limit` belongs to */
	struct limit limit;  /* that counts denials */
	struct key salt;     /* of the keys of bans */
};

/* Of the policy's rule `r`, which has one. By policy_seal(). */
void penalty_seal(const struct policy *, struct rule *r);

/* The ban after `level` others (0: the first). */
usec_t penalty_length(const struct penalty *, unsigned level);

/* What a ban of this take's client is found by. Its rule has a penalty. */
struct key take_ban_key(const struct take *);

/* What a plan that was denied counts as denials: `to` takes 1 from the `after` of each rule with a
 * penalty that denied it, and of[i] is the take of `from` that to->take[i] is for. Cost 0 only
 * asks, and is no denial to be counted. false: there is none. */
bool plan_strikes(const struct plan *from, struct plan *to, uint8_t of[PLAN_MAX]);

/* After a ban, and after a lift, counting begins anew: of another ban.epoch it is another counter.
 */
void strikes_begin_anew(struct take *strike, uint32_t epoch);

/* The last one was one too many. */
bool take_is_out(const struct take *strike);

#endif
