#include "limit/ledger_inside.h"

/* ---- the queue: entries with something to ask ---- */

void ledger_queue(struct ledger *l, struct entry *e)
{
	if (e->queued)
		return;
	e->queued = true;
	e->next = NONE;
	if (l->first == NONE)
		l->first = place_of(l, e);
	else
		l->entry[l->last].next = place_of(l, e);
	l->last = place_of(l, e);
}

struct entry *ledger_unqueue(struct ledger *l)
{
	struct entry *e = &l->entry[l->first];

	l->first = e->next;
	e->queued = false;
	return e;
}

/* ---- blocks ---- */

/* `done` units of a block, of which `back` were not spent. Of two marks one report each; of a third
 * the older one's is forgotten: its turn is over. */
static void owe(struct ledger *l, struct entry *e, int64_t mark, uint32_t done, uint32_t back)
{
	struct lease_ask *to = NULL;

	if (!done)
		return;
	for (unsigned i = 0; i < MARKS && !to; i++)
		if (e->owed[i].done && e->owed[i].mark == mark)
			to = &e->owed[i];
	for (unsigned i = 0; i < MARKS && !to; i++)
		if (!e->owed[i].done)
			to = &e->owed[i];
	if (!to) {
		to = e->owed[0].mark < e->owed[1].mark ? &e->owed[0] : &e->owed[1];
		l->stats.dropped += to->back;
		*to = (struct lease_ask){ 0 };
	}
	to->mark = mark;
	to->done += done;
	to->back += back;
	if (to->back)
		ledger_queue(l, e);
}

void ledger_end_block(struct ledger *l, struct entry *e, usec_t steady)
{
	struct block b = e->block[0];
	bool ended = b.until <= steady && e->quota.algorithm != ALGORITHM_TOKEN_BUCKET;

	l->held -= b.left;
	e->block[0] = e->block[1];
	e->block[1] = (struct block){ 0 };
	e->serial = ++l->ids;
	if (ended)
		ledger_lose_adrift(l, e);
	if (b.disowned || ended) {
		l->stats.dropped += b.left;
		return;
	}
	e->adrift += b.pending;
	owe(l, e, b.mark, b.units - b.pending, b.left);
}

void ledger_end_adrift(struct ledger *l, struct entry *e, int64_t mark, uint32_t units, bool back)
{
	e->adrift -= units;
	owe(l, e, mark, units, back ? units : 0);
	if (e->leaving)
		ledger_queue(l, e);
}

void ledger_lose_adrift(struct ledger *l, struct entry *e)
{
	e->adrift = 0;
	e->adrift_id = ++l->ids;
}

void ledger_report_spent(struct ledger *l, struct entry *e)
{
	struct block *b = &e->block[0];
	uint32_t spent = block_spent(b);

	if (spent == 0 || spent == b->units || b->disowned)
		return;
	owe(l, e, b->mark, spent, 0);
	b->units -= spent;
}

void ledger_end_all(struct ledger *l, struct entry *e, usec_t steady)
{
	while (e->block[0].units)
		ledger_end_block(l, e, steady);
}

/* ---- places ---- */

static bool same_key(const struct key *a, const struct key *b)
{
	return a->a == b->a && a->b == b->b;
}

void ledger_free_place(struct ledger *l, struct entry *e)
{
	uint32_t id = e->id + 1, serial = ++l->ids, adrift_id = ++l->ids;

	l->key[place_of(l, e)] = (struct key){ 0, 0 };
	*e = (struct entry){ .id = id, .serial = serial, .adrift_id = adrift_id };
}

struct entry *ledger_find(struct ledger *l, const struct key *k)
{
	uint32_t at = (uint32_t)(k->a % SETS) * WAYS;

	for (uint32_t i = at; i < at + WAYS; i++)
		if (same_key(&l->key[i], k))
			return &l->entry[i];
	return NULL;
}

struct entry *ledger_make_place(struct ledger *l, const struct key *k, usec_t steady)
{
	uint32_t at = (uint32_t)(k->a % SETS) * WAYS;
	struct entry *best = NULL;

	for (uint32_t i = at; i < at + WAYS; i++) {
		struct entry *e = &l->entry[i];
		if (entry_is_busy(e))
			continue;
		entry_age(e, steady);
		if (!best || entry_wanted(e) < entry_wanted(best))
			best = e;
	}
	if (best) {
		ledger_free_place(l, best);
		l->key[place_of(l, best)] = *k;
	}
	return best;
}
