/* What an agent holds of leased limits: the blocks that it took ahead (limit/lease.h), and how fast
 * they are spent. Pure: takes and instants in, verdicts and the next things to ask for out. Who
 * asks, and what is lost on the way, is the caller's (store/redis.h).
 *
 * - A take of a leased rule is spent from the blocks in hand, where they hold its cost. Where not,
 * it goes where all others go.
 * - The next block is asked for before this one is empty, by the takes themselves: nobody waits for
 *   it. As much as was wanted of the key in the last eighth of a second, at most what the rule's
 *   lease allows for. A key that is not hot gets none.
 * - What was spent is reported when the next block is asked for. What is not spent in LEASE_LIFE /
 * 2 goes back; so does everything at a reload and a stop. What could not be given back in time is
 *   dropped.
 *
 * What is out, in hand or spent and not yet reported, is at most `lease` of the limit, over all
 * ledgers of an agent.
 *
 * `steady` is this machine's clock. Bounded; where there is no room for a key, it has no blocks. No
 * locks: one thread. */
#ifndef LIMIT_LEDGER_H
#define LIMIT_LEDGER_H

#include "limit/lease.h"
#include "limit/plan.h"

struct ledger;

struct ledger_stats {
	uint64_t spent;    /* units spent from blocks */
	uint64_t granted;  /* units of blocks that came */
	uint64_t returned; /* units that went back */
	uint64_t dropped;  /* units that were neither spent nor given back */
	uint64_t blocks;   /* that came */
	uint64_t refused;  /* that were asked for, and did not come */
};

/* What is to be asked of the shared counter, with all that is needed for it: copies, no rule has to
 * outlive it. */
struct ledger_ask {
	struct key key, salt; /* the salt of its limit */
	struct quota quota;
	double slowest_refill, slowest_interval;
	struct lease_ask ask;
	uint32_t place, serial; /* the ledger's own */
};

/* `parts`: how many ledgers (workers) share what an agent may hold; 0 is 1. NULL: out of memory. */
struct ledger *ledger_new(unsigned parts);
void ledger_free(struct ledger *);

/* Spends what the takes of leased rules cost, as far as it is in hand: a rule's takes all, or none.
 * Bit i of what is returned: take i was, and has its verdict. Cost 0 only looks. */
uint32_t ledger_spend(struct ledger *, struct plan *, usec_t steady);

/* Was a block spent from for the first time since this was asked last? */
bool ledger_had_news(struct ledger *);

/* The shared counters' clock, as far as it is known here: what the verdicts of ledger_spend() are
 * to be read by. */
struct now ledger_now(const struct ledger *, usec_t steady);

/* A plan of which only the takes `which` were spent here waits for a word from elsewhere: that may
 * deny it. It ends in ledger_keep() or ledger_unspend(). */
struct ledger_spent {
	uint32_t which;
	uint32_t serial[PLAN_MAX];
	uint32_t pending[PLAN_MAX]; /* of the block that is first now */
	uint32_t adrift_id[PLAN_MAX];
	int64_t mark[PLAN_MAX]; /* that block's */
};
struct ledger_spent ledger_hold(struct ledger *, const struct plan *, uint32_t which);
void ledger_keep(struct ledger *, const struct plan *, const struct ledger_spent *);
/* It was denied: what was spent for it is in hand again, or goes back if its block has ended. */
void ledger_unspend(
	struct ledger *, const struct plan *, const struct ledger_spent *, usec_t steady);

/* The next thing to ask for, to be sent now: false, there is none. Each that is handed out ends in
 * ledger_heard() or ledger_lost(), in any order. */
bool ledger_next(struct ledger *, struct ledger_ask *, usec_t steady);
bool ledger_wants(const struct ledger *); /* is there one? */
uint32_t ledger_under_way(const struct ledger *);

/* Redis did as asked: `state` is what it keeps, by its clock `now`. `sent`: steady time when it was
 * sent, or before. */
void ledger_heard(struct ledger *, const struct ledger_ask *, uint32_t granted,
	const struct leased *state, struct now now, usec_t sent, usec_t steady);
/* The shared counters' verdicts on takes of leased rules that were asked for there. To be told in
 * the order in which they were found, and before ledger_heard() of what was asked for after them:
 * without, what is left would be told as if these had taken nothing. */
void ledger_note(struct ledger *, const struct plan *);
/* It is not known what became of it. It must not be asked again: it may have been done. */
void ledger_lost(struct ledger *, const struct ledger_ask *, usec_t steady);

/* Every LEASE_LIFE / 8 or so, while ledger_holds(): what has lain too long goes back. */
void ledger_tick(struct ledger *, usec_t steady);
bool ledger_holds(const struct ledger *); /* are there units in hand, or asked for? */

/* A reload, a stop: everything goes back. Nothing is spent from what is in hand now. */
void ledger_return_all(struct ledger *, usec_t steady);
/* A stop: from now on none is asked for. */
void ledger_close(struct ledger *);
/* The counter of this key began anew: what was debited from the old one is neither spent, reported
 * nor given back, a block that is under way included. */
void ledger_forget(struct ledger *, const struct key *, usec_t steady);
/* The connection was lost. Who answers next may not know of the blocks in hand: they are spent, but
 * neither reported nor given back. */
void ledger_disown(struct ledger *);

uint64_t ledger_held(const struct ledger *); /* units in hand */
const struct ledger_stats *ledger_stats(const struct ledger *);

#endif
