/* A plan whose counters are kept in several places (nodes of a cluster; here and there). Each place
 * decides on its part, all or nothing by itself and as plan_charge() does; joined, the parts say
 * what plan_charge() says of the whole where all clocks agree. Pure.
 *
 * Where one part denies, another one may have been charged for nothing: that is to be refunded. So
 * never more than a limit is admitted, but somebody may be denied for what another one is about to
 * get back, and of a token bucket what drained in between is not given back. A rule whose counters
 * lie in two parts would be charged in one of them and not in the other: all takes of a rule belong
 * in one part.
 *
 *   split_part()     the part of each place
 *   (each place)     plan_charge(), or what does the same
 *   split_join()     the verdicts of the whole
 *   split_refund(),  what has still to be done in each place, should the whole be denied; nobody
 *   split_charge()   has to wait for it */
#ifndef LIMIT_SPLIT_H
#define LIMIT_SPLIT_H

#include "limit/decision.h"

/* Copies the takes of `whole` whose part_of[] is `number`, in their order. `part` is then a plan of
 * its own, without a `done`. */
void split_part(
	const struct plan *whole, const uint8_t part_of[], unsigned number, struct plan *part);

/* All parts were decided, part[k] being that of number k: fills in the verdicts of `whole`, its
 * `denied` and its `now` (the latest of theirs; states are carried over to it). The parts stay as
 * they are. */
void split_join(struct plan *whole, const uint8_t part_of[], const struct plan *const part[]);

/* A verdict's state that was found by one clock, as of another one that was read a moment apart. */
void split_carry_over(const struct quota *, struct bucket *state, struct now to);

/* `part` was decided, and the whole is denied. Takes that were charged there and are not to stay so
 * (no count_denied; for those that count it, what they were charged is min(cost, what was there)):
 * a plan for split_take_back(), each verdict.state.at being that which the charge left. false:
 * there are none. */
bool split_refund(const struct plan *part, struct plan *refund);

/* The same: takes of count_denied rules that were not charged there, because a shadow or tag rule
 * was exceeded and nothing denied. A plan that is `closed`, for plan_charge(). false: there are
 * none. */
bool split_charge(const struct plan *part, struct plan *charge);

/* Instead of plan_charge(), for a plan of split_refund(): verdict.state as it has to be kept where
 * verdict.charged is set. (See bucket_refund().) Decides nothing. */
void split_take_back(struct plan *refund, const struct bucket *const stored[], struct now);

#endif
