/* What Redis has denied, remembered for as long as it would deny it again: a flood of one client
 * then costs Redis nothing. What denied with what was counted then denies with what is counted now,
 * until time has drained it, as long as others only add to a counter: the arithmetic is
 * limit/algorithm.h's own, on the bucket as Redis knew it. They also give back, and then it may be
 * wrong for DENIAL_DOUBTED at most, after which Redis is asked again:
 *
 *   lease     of a rule with a lease, blocks that were not spent
 *   refund    in a cluster, of any limit, what a request was charged that another node denied
 *
 * What else makes a counter less is told by deny_cache_clear(): a reload, a reset, an override, a
 * lost connection, since who answers next may have been emptied, or lack the last writes, and a
 * clock of Redis that was set: its window may be another one. (Not told is who deletes keys by
 * hand.)
 *
 * Not where a rule of the plan counts denied requests: those have to be told. Bounded: a new denial
 * takes an old one's place. One thread. */
#ifndef STORE_DENY_CACHE_H
#define STORE_DENY_CACHE_H

#include "limit/decision.h"

struct deny_cache;

#define DENIAL_DOUBTED USEC_PER_SEC

/* `refunds`: others may give back what any limit was charged. NULL: out of memory. */
struct deny_cache *deny_cache_new(bool refunds);
void deny_cache_free(struct deny_cache *);

/* Nothing is remembered. */
void deny_cache_clear(struct deny_cache *);

/* Of this key alone. */
void deny_cache_forget(struct deny_cache *, const struct key *);

/* Hears of `plan`, that Redis has answered: remembers which limits denied it, and how those stood
 * that have a say beside (`shadow`, `tag`, `warn`); and, of any plan, what it left of those that
 * are remembered. `asked`: steady time of this machine, no later than plan->now was read by the
 * server: the server is then never thought to be earlier than it is, and nobody waits too long. */
void deny_cache_note(struct deny_cache *, const struct plan *, usec_t asked);

/* true: `plan` is denied for what is remembered, its verdicts and plan->now filled in: of limits
 * beside it as they stood then, drained since, and if they are not remembered as if they were full
 * (what denies is reported). So `shadow`, `tag` and `warn` may be late by what others took since.
 * false: `plan` is untouched; ask Redis. `steady`: now, on this machine. */
bool deny_cache_answer(struct deny_cache *, struct plan *, usec_t steady);

#endif
