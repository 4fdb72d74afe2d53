#include "limit/ledger_inside.h"

enum { HOT_LEAST = 8 }; /* units wanted in one period: below, asking each time is cheap enough */

#define IDLE_MAX      (LEASE_LIFE / 2)
#define REFUSED_PAUSE (5 * USEC_PER_MSEC)

/* ---- asking ---- */

uint32_t ledger_to_ask(const struct ledger *l, struct entry *e, usec_t steady)
{
	entry_age(e, steady);
	uint32_t units = entry_wanted(e);
	uint32_t left = entry_in_hand(e);

	if (e->asked || e->leaving || l->closed || e->block[1].units || units < HOT_LEAST ||
		steady < e->ask_after)
		return 0;
	if (units > e->most)
		units = e->most;
	if (units < left + LEASE_LEAST || left > units / 2)
		return 0;
	return units - left;
}

/* Which report goes first: one that gives something back. */
static struct lease_ask *most_owed(struct entry *e)
{
	return e->owed[1].back > e->owed[0].back || !e->owed[0].done ? &e->owed[1] : &e->owed[0];
}

static void leave_if_done(struct ledger *l, struct entry *e)
{
	if (e->leaving && !e->asked && !e->queued && !e->block[0].units && !e->adrift)
		ledger_free_place(l, e);
}

bool ledger_next(struct ledger *l, struct ledger_ask *a, usec_t steady)
{
	while (l->first != NONE) {
		struct entry *e = ledger_unqueue(l);
		ledger_settle(l, e, steady);
		if (e->block[0].units && !e->block[0].left && !e->block[0].pending)
			ledger_end_block(l, e, steady);
		uint32_t units = ledger_to_ask(l, e, steady);
		if (units)
			ledger_report_spent(l, e);
		units = units < e->most - entry_out(e) ? units : e->most - entry_out(e);
		struct lease_ask *owed = most_owed(e);
		bool is_wanted = units || owed->back || (owed->done && (e->quiet || e->leaving));
		if (is_wanted) {
			*a = (struct ledger_ask){
				.key = l->key[place_of(l, e)],
				.salt = e->salt,
				.quota = e->quota,
				.slowest_refill = e->slowest_refill,
				.slowest_interval = e->slowest_interval,
				.ask = *owed,
				.place = place_of(l, e),
				.serial = e->id,
			};
			a->ask.want = units;
			e->asked |= units > 0;
			*owed = (struct lease_ask){ 0 };
			if (most_owed(e)->done)
				ledger_queue(l, e);
		}
		leave_if_done(l, e);
		if (is_wanted) {
			l->under_way++;
			return true;
		}
	}
	return false;
}

/* Whose this was, unless its place is another's now. */
static struct entry *entry_of_ask(struct ledger *l, const struct ledger_ask *a)
{
	struct entry *e = &l->entry[a->place];

	return e->id == a->serial ? e : NULL;
}

static struct entry *entry_that_waits(struct ledger *l, const struct ledger_ask *a)
{
	struct entry *e = entry_of_ask(l, a);

	return e && a->ask.want && e->asked ? e : NULL;
}

void ledger_note(struct ledger *l, const struct plan *plan)
{
	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		struct entry *e = t->limit->rule->lease > 0 ? ledger_find(l, &t->key) : NULL;
		/* Another tier reads no more than its own capacity, and that is kept if it is
		 * charged. */
		if (e && (t->verdict.charged || quota_eq(&e->quota, &t->limit->quota)))
			e->known = t->verdict.state;
	}
}

void ledger_heard(struct ledger *l, const struct ledger_ask *a, uint32_t granted,
	const struct leased *state, struct now now, usec_t sent, usec_t steady)
{
	struct entry *e = entry_of_ask(l, a);

	l->under_way--;
	l->stats.returned += a->ask.back;
	l->ahead = now.utc - sent;
	if (e)
		e->known = state->bucket;
	e = entry_that_waits(l, a);
	if (!e)
		return;
	e->asked = false;
	if (granted == 0) {
		l->stats.refused++;
		e->ask_after = steady + REFUSED_PAUSE;
		leave_if_done(l, e);
		return;
	}
	if (e->block[0].units && !e->block[0].left && !e->block[0].pending)
		ledger_end_block(l, e, steady);
	struct block *b = &e->block[e->block[0].units != 0];
	*b = (struct block){
		.units = granted,
		.left = granted,
		.mark = lease_mark(&e->quota, state, now),
		.since = sent,
		.until = sent + lease_life(&e->quota, state, now),
	};
	l->held += granted;
	l->stats.granted += granted;
	l->stats.blocks++;
	if (e->leaving) {
		ledger_end_all(l, e, steady);
		ledger_queue(l, e);
	}
	ledger_settle(l, e, steady);
	leave_if_done(l, e);
}

void ledger_lost(struct ledger *l, const struct ledger_ask *a, usec_t steady)
{
	struct entry *e = entry_that_waits(l, a);

	l->under_way--;
	l->stats.dropped += a->ask.back;
	if (!e)
		return;
	e->asked = false;
	e->ask_after = steady + REFUSED_PAUSE;
	leave_if_done(l, e);
}

/* ---- ends ---- */

static bool is_free(const struct ledger *l, uint32_t i)
{
	return (l->key[i].a | l->key[i].b) == 0;
}

void ledger_tick(struct ledger *l, usec_t steady)
{
	for (uint32_t i = 0; i < SETS * WAYS; i++) {
		struct entry *e = &l->entry[i];
		if (is_free(l, i))
			continue;
		ledger_settle(l, e, steady);
		while (e->block[0].units && steady - e->block[0].since >= IDLE_MAX)
			ledger_end_block(l, e, steady);
		entry_age(e, steady);
		e->quiet = !e->block[0].units && entry_wanted(e) == 0;
		if (e->quiet && most_owed(e)->done)
			ledger_queue(l, e);
	}
}

void ledger_return_all(struct ledger *l, usec_t steady)
{
	for (uint32_t i = 0; i < SETS * WAYS; i++) {
		struct entry *e = &l->entry[i];
		if (is_free(l, i))
			continue;
		e->leaving = true;
		ledger_end_all(l, e, steady);
		if (most_owed(e)->done)
			ledger_queue(l, e);
		leave_if_done(l, e);
	}
}

void ledger_close(struct ledger *l)
{
	l->closed = true;
}

static void disown(struct ledger *l, struct entry *e)
{
	for (unsigned k = 0; k < BLOCKS; k++)
		e->block[k].disowned = true;
	for (unsigned k = 0; k < MARKS; k++) {
		l->stats.dropped += e->owed[k].back;
		e->owed[k] = (struct lease_ask){ 0 };
	}
	ledger_lose_adrift(l, e);
}

void ledger_disown(struct ledger *l)
{
	for (uint32_t i = 0; i < SETS * WAYS; i++)
		if (!is_free(l, i)) {
			disown(l, &l->entry[i]);
			leave_if_done(
				l, &l->entry[i]); /* what was adrift is not waited for any more */
		}
}

void ledger_forget(struct ledger *l, const struct key *k, usec_t steady)
{
	struct entry *e = ledger_find(l, k);

	if (!e)
		return;
	disown(l, e);
	ledger_end_all(l, e, steady);
	e->id++; /* nobody waits for what was asked */
	e->asked = false;
	e->leaving = true;
	leave_if_done(l, e);
}
