/* Leased rules, in front of a store: what is in hand (limit/ledger.h) is spent at once, and only
 * the rest of a plan is asked for there; then the two are one plan again.
 *
 * Where the rest gets the failure policy's answer, what is in hand is spent all the same, unless
 * that denies. One thread; the ledger is the owner's to feed. */
#ifndef STORE_LEASES_H
#define STORE_LEASES_H

#include "limit/ledger.h"

struct leases;

/* Borrows the ledger. `news`, which may be NULL, hears of the takes that were spent here when a
 * block is spent from for the first time: who keeps something up to date by verdicts needs no more.
 * NULL: out of memory. */
struct leases *leases_new(
	struct ledger *, void (*news)(void *owner, const struct plan *here), void *owner);
/* After all that was asked for has been joined. */
void leases_free(struct leases *);

/* What of `plan` has still to be asked for. NULL: nothing, it has its verdicts. `plan` itself: all
 * of it. Else a plan to be asked for as any other, with a `done` that joins it and then calls that
 * of `plan`; without a wait, leases_join() does. */
struct plan *leases_spend(struct leases *, struct plan *plan, usec_t steady);

/* `rest`, of leases_spend(), has its verdicts: so has the plan that it is the rest of. */
void leases_join(struct plan *rest);

#endif
