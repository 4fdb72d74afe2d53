/* The ledger from inside: ledger.c is what is spent, ledger_blocks.c what there is, ledger_ask.c
 * what is asked for and given back. Only for these. */
#ifndef LIMIT_LEDGER_INSIDE_H
#define LIMIT_LEDGER_INSIDE_H

#include "limit/ledger.h"

enum {
	SETS = 512,
	WAYS = 4,
	BLOCKS = 2, /* in hand: the one that is spent, and the next */
	MARKS = 2,  /* of which there is something to report */
	NONE = UINT32_MAX,
};

/* How much is wanted is counted over this, and a block is to last as long: many times what Redis
 * takes to answer. */
#define PERIOD (LEASE_LIFE / 16)

struct block {
	uint32_t units;   /* out, as far as is known there; 0: there is no block */
	uint32_t left;    /* in hand */
	uint32_t pending; /* spent for plans that may still be denied */
	int64_t mark;
	usec_t since, until; /* steady */
	bool disowned;
};

struct entry {
	struct quota quota;
	double slowest_refill, slowest_interval;
	struct key salt;
	uint32_t id;     /* which key has this place: changes with it */
	uint32_t serial; /* which block is first: changes with it */
	uint32_t most;   /* units in hand */
	/* Units spent for plans that may still be denied, of blocks that have ended; and which of
	 * such can come back: changes where none can. */
	uint32_t adrift, adrift_id;
	uint32_t wanted, wanted_before;
	int64_t period; /* of `wanted` */
	struct block block[BLOCKS];
	struct lease_ask owed[MARKS]; /* done 0: nothing; want is unused */
	usec_t ask_after;
	bool asked, queued;
	bool quiet;          /* nobody wants it now: what was spent is told by itself */
	bool leaving;        /* everything goes back, and the place is free then */
	uint32_t next;       /* in the queue */
	struct bucket known; /* as it was when it was last heard of */
};

struct ledger {
	struct key key[SETS * WAYS]; /* zero: free */
	struct entry entry[SETS * WAYS];
	uint32_t first, last; /* the queue */
	uint32_t under_way;
	uint32_t ids; /* of blocks that were first, and of what is adrift: none is given twice */
	unsigned parts;
	uint64_t held;
	usec_t ahead; /* the shared counters' clock, less this machine's */
	bool closed, news;
	struct ledger_stats stats;
};

/* ---- ledger_blocks.c ---- */

/* Entries with something to ask. */
void ledger_queue(struct ledger *, struct entry *);
struct entry *ledger_unqueue(struct ledger *); /* there must be one */

/* The first block has come to its end. */
void ledger_end_block(struct ledger *, struct entry *, usec_t steady);
void ledger_end_all(struct ledger *, struct entry *, usec_t steady);
/* A plan is decided for which `units` were spent of a block that had this mark, and has ended: they
 * were kept, or go back. */
void ledger_end_adrift(struct ledger *, struct entry *, int64_t mark, uint32_t units, bool back);
/* What is adrift is not known any more where it came from. */
void ledger_lose_adrift(struct ledger *, struct entry *);
/* What is spent of the first block is out no longer, once it is told. */
void ledger_report_spent(struct ledger *, struct entry *);

struct entry *ledger_find(struct ledger *, const struct key *); /* NULL: it has no place */
/* A place for a key that has none: one that is free, or that of the key that is wanted least; NULL:
 * all are busy. */
struct entry *ledger_make_place(struct ledger *, const struct key *, usec_t steady);
void ledger_free_place(struct ledger *, struct entry *);

/* ---- ledger_ask.c ---- */

/* Units to ask for now; 0: none. */
uint32_t ledger_to_ask(const struct ledger *, struct entry *, usec_t steady);

/* ---- entries ---- */

static inline uint32_t place_of(const struct ledger *l, const struct entry *e)
{
	return (uint32_t)(e - l->entry);
}

static inline uint32_t entry_in_hand(const struct entry *e)
{
	return e->block[0].left + e->block[1].left;
}

static inline uint32_t entry_out(const struct entry *e)
{
	return e->block[0].units + e->block[1].units + e->adrift;
}

static inline uint32_t block_spent(const struct block *b)
{
	return b->units - b->left - b->pending;
}

/* So that what is first can be spent, if there is anything. */
static inline void ledger_settle(struct ledger *l, struct entry *e, usec_t steady)
{
	while (e->block[0].units &&
		(e->block[0].until <= steady || (!e->block[0].left && e->block[1].units)))
		ledger_end_block(l, e, steady);
}

static inline void entry_age(struct entry *e, usec_t steady)
{
	int64_t period = steady / PERIOD;

	if (e->period == period)
		return;
	e->wanted_before = e->period + 1 == period ? e->wanted : 0;
	e->wanted = 0;
	e->period = period;
}

static inline uint32_t entry_wanted(const struct entry *e)
{
	return e->wanted > e->wanted_before ? e->wanted : e->wanted_before;
}

static inline bool entry_is_busy(const struct entry *e)
{
	return e->block[0].units || e->adrift || e->asked || e->queued || e->leaving;
}

#endif
