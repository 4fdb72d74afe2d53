/* What is done with a plan whose store is away (on_failure of its rules), and how the memory that
 * stands in then is kept warm while the store is there. Pure: buckets come in, verdicts go out.
 *
 * "local" enforces each limit's share (limit->local) from memory, "open" leaves the rule out,
 * "closed" denies. Memory hears of every request that the store has answered: so who has had his
 * share already gets no second one at the moment of the failure. */
#ifndef LIMIT_FALLBACK_H
#define LIMIT_FALLBACK_H

#include "limit/decision.h"

/* The store does not answer `plan`, which is as policy_plan() made it: takes of rules that are
 * `open` or `closed` go, but for those that could never pass, which no store is needed for; those
 * that are `local` are from now on of the limit's share. The caller has what is
 * left taken from memory (also where that is nothing), and then decides by plan->now. A rule that
 * enforces and is `closed` denies: plan->closed, and only rules that count denied requests are
 * charged then. */
void plan_fall_back(struct plan *plan);

/* What memory has to hear of `from`, a plan with the store's verdicts: its `local` takes, of the
 * limits' shares, with cost 0 where nothing was charged and the store's bucket as the verdict's
 * state (of a WINDOW_FROM_FIRST its `at` counts from the store's now: clocks differ). `from` stays
 * as it is. false: there is nothing to tell; `to` is empty then. */
bool plan_mirror(const struct plan *from, struct plan *to);

/* Instead of plan_charge() for a plan of plan_mirror(): each bucket is charged min(cost, what is
 * there), and then counts at least that part of its share which the store's bucket counted of the
 * whole. Fills in verdict.state, .left and .charged, as far as a store needs them to keep the
 * buckets; decides nothing. */
void plan_warm(struct plan *plan, const struct bucket *const stored[], struct now now);

#endif
