#include "limit/ledger.h"

#include <assert.h>
#include <stdlib.h>

static_assert(PLAN_MAX <= 32, "a bit for each take");

enum {
	SETS = 512,
	WAYS = 4,
	BLOCKS = 2,    /* in hand: the one that is spent, and the next */
	MARKS = 2,     /* of which there is something to report */
	HOT_LEAST = 8, /* units wanted in one period: below, asking each time is cheap enough */
	NONE = UINT32_MAX,
};

/* How much is wanted is counted over this, and a block is to last as long: many times what Redis
 * takes to answer. */
#define PERIOD        (LEASE_LIFE / 16)
#define IDLE_MAX      (LEASE_LIFE / 2)
#define REFUSED_PAUSE (5 * USEC_PER_MSEC)

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
	unsigned parts;
	uint64_t held;
	usec_t ahead; /* the shared counters' clock, less this machine's */
	bool closed, news;
	struct ledger_stats stats;
};

struct ledger *ledger_new(unsigned parts)
{
	struct ledger *l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	l->parts = parts ? parts : 1;
	l->first = l->last = NONE;
	return l;
}

void ledger_free(struct ledger *l)
{
	free(l);
}

const struct ledger_stats *ledger_stats(const struct ledger *l)
{
	return &l->stats;
}

uint64_t ledger_held(const struct ledger *l)
{
	return l->held;
}

bool ledger_holds(const struct ledger *l)
{
	return l->held || l->under_way || l->first != NONE;
}

bool ledger_wants(const struct ledger *l)
{
	return l->first != NONE;
}

uint32_t ledger_under_way(const struct ledger *l)
{
	return l->under_way;
}

bool ledger_had_news(struct ledger *l)
{
	bool news = l->news;

	l->news = false;
	return news;
}

struct now ledger_now(const struct ledger *l, usec_t steady)
{
	return (struct now){ .steady = steady + l->ahead, .utc = steady + l->ahead };
}

static uint32_t place_of(const struct ledger *l, const struct entry *e)
{
	return (uint32_t)(e - l->entry);
}

/* ---- the queue: entries with something to ask ---- */

static void queue(struct ledger *l, struct entry *e)
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

static struct entry *unqueue(struct ledger *l)
{
	struct entry *e = &l->entry[l->first];

	l->first = e->next;
	e->queued = false;
	return e;
}

/* ---- blocks ---- */

static uint32_t in_hand(const struct entry *e)
{
	return e->block[0].left + e->block[1].left;
}

static uint32_t out(const struct entry *e)
{
	return e->block[0].units + e->block[1].units;
}

/* `done` units of a block, of which `back` were not spent. Of two marks one report each; of a third
 * the older one's is forgotten: its turn is over. */
static void owe(
	struct ledger *l, struct entry *e, const struct block *b, uint32_t done, uint32_t back)
{
	struct lease_ask *to = NULL;

	for (unsigned i = 0; i < MARKS && !to; i++)
		if (e->owed[i].done && e->owed[i].mark == b->mark)
			to = &e->owed[i];
	for (unsigned i = 0; i < MARKS && !to; i++)
		if (!e->owed[i].done)
			to = &e->owed[i];
	if (!to) {
		to = e->owed[0].mark < e->owed[1].mark ? &e->owed[0] : &e->owed[1];
		l->stats.dropped += to->back;
		*to = (struct lease_ask){ 0 };
	}
	to->mark = b->mark;
	to->done += done;
	to->back += back;
	if (to->back)
		queue(l, e);
}

/* The first block has come to its end. */
static void end_block(struct ledger *l, struct entry *e, usec_t steady)
{
	struct block b = e->block[0];
	bool ended = b.until <= steady && e->quota.algorithm != ALGORITHM_TOKEN_BUCKET;

	l->held -= b.left;
	e->block[0] = e->block[1];
	e->block[1] = (struct block){ 0 };
	e->serial++;
	if (b.disowned || ended)
		l->stats.dropped += b.left;
	else
		owe(l, e, &b, b.units, b.left);
}

static uint32_t spent_for_certain(const struct block *b)
{
	return b->units - b->left - b->pending;
}

/* It is out no longer. */
static void report_spent(struct ledger *l, struct entry *e)
{
	struct block *b = &e->block[0];
	uint32_t spent = spent_for_certain(b);

	if (spent == 0 || spent == b->units || b->disowned)
		return;
	owe(l, e, b, spent, 0);
	b->units -= spent;
}

/* So that what is first can be spent, if there is anything. */
static inline void settle(struct ledger *l, struct entry *e, usec_t steady)
{
	while (e->block[0].units &&
		(e->block[0].until <= steady || (!e->block[0].left && e->block[1].units)))
		end_block(l, e, steady);
}

static void end_all(struct ledger *l, struct entry *e, usec_t steady)
{
	while (e->block[0].units)
		end_block(l, e, steady);
}

/* ---- how much is wanted ---- */

static inline void age(struct entry *e, usec_t steady)
{
	int64_t period = steady / PERIOD;

	if (e->period == period)
		return;
	e->wanted_before = e->period + 1 == period ? e->wanted : 0;
	e->wanted = 0;
	e->period = period;
}

static inline uint32_t wanted(const struct entry *e)
{
	return e->wanted > e->wanted_before ? e->wanted : e->wanted_before;
}

/* ---- places ---- */

static bool same_key(const struct key *a, const struct key *b)
{
	return a->a == b->a && a->b == b->b;
}

static bool is_busy(const struct entry *e)
{
	return e->block[0].units || e->asked || e->queued || e->leaving;
}

static void free_place(struct ledger *l, struct entry *e)
{
	uint32_t id = e->id + 1, serial = e->serial + 1;

	l->key[place_of(l, e)] = (struct key){ 0, 0 };
	*e = (struct entry){ .id = id, .serial = serial };
}

static struct entry *find(struct ledger *l, const struct key *k)
{
	uint32_t at = (uint32_t)(k->a % SETS) * WAYS;

	for (uint32_t i = at; i < at + WAYS; i++)
		if (same_key(&l->key[i], k))
			return &l->entry[i];
	return NULL;
}

/* A place for a key that has none: one that is free, or that of the key that is wanted least. */
static struct entry *make_place(struct ledger *l, const struct key *k, usec_t steady)
{
	uint32_t at = (uint32_t)(k->a % SETS) * WAYS;
	struct entry *best = NULL;

	for (uint32_t i = at; i < at + WAYS; i++) {
		struct entry *e = &l->entry[i];
		if (is_busy(e))
			continue;
		age(e, steady);
		if (!best || wanted(e) < wanted(best))
			best = e;
	}
	if (best) {
		free_place(l, best);
		l->key[place_of(l, best)] = *k;
	}
	return best;
}

static uint32_t most_of(const struct ledger *l, const struct limit *limit)
{
	return (uint32_t)(limit->rule->lease * (double)limit->quota.capacity / l->parts);
}

static void set_limit(const struct ledger *l, struct entry *e, const struct limit *limit)
{
	e->quota = limit->quota;
	e->salt = limit->salt;
	e->slowest_refill = limit->slowest_refill;
	e->slowest_interval = limit->slowest_interval;
	e->most = most_of(l, limit);
}

/* NULL: it cannot be leased now. */
static struct entry *entry_of(struct ledger *l, const struct take *t, usec_t steady)
{
	struct entry *e = find(l, &t->key);

	if (!e) {
		if (l->closed || !(e = make_place(l, &t->key, steady)))
			return NULL;
		set_limit(l, e, t->limit);
	}
	if (e->leaving)
		return NULL;
	/* Another tier of the same counter; or a check from before a reload that changed the lease.
	 */
	if (!quota_eq(&e->quota, &t->limit->quota) || e->most != most_of(l, t->limit)) {
		if (is_busy(e))
			return NULL;
		set_limit(l, e, t->limit);
	}
	return e;
}

/* ---- when to ask, and for how much ---- */

static inline void want(struct entry *e, int64_t cost, usec_t steady)
{
	age(e, steady);
	if (cost <= e->most)
		e->wanted += (uint32_t)cost;
}

/* Units to ask for now; 0: none. */
static uint32_t to_ask(const struct ledger *l, struct entry *e, usec_t steady)
{
	age(e, steady);
	uint32_t units = wanted(e);
	uint32_t left = in_hand(e);

	if (e->asked || e->leaving || l->closed || e->block[1].units || units < HOT_LEAST ||
		steady < e->ask_after)
		return 0;
	if (units > e->most)
		units = e->most;
	if (units < left + LEASE_LEAST || left > units / 2)
		return 0;
	return units - left;
}

/* ---- spending ---- */

static void fill_verdict(
	const struct ledger *l, const struct entry *e, struct take *t, usec_t steady)
{
	struct verdict *v = &t->verdict;
	struct now now = ledger_now(l, steady);
	uint32_t left = 0;

	/* What is in hand was debited, and is still there for who asks here. */
	for (unsigned k = 0; k < BLOCKS; k++)
		left += e->block[k].disowned ? 0 : e->block[k].left;
	v->state = bucket_read(&e->quota, &e->known, now);
	if (e->quota.algorithm == ALGORITHM_TOKEN_BUCKET)
		v->state.used = v->state.used > left ? v->state.used - left : 0;
	else
		v->state.current -= left < v->state.current ? left : v->state.current;
	v->left = bucket_left(&e->quota, &v->state, now);
	v->admits = true;
	v->oversize = v->charged = false;
	v->retry_after = 0;
}

static bool spend(struct ledger *l, struct entry *e, int64_t cost, usec_t steady)
{
	settle(l, e, steady);
	if ((cost ? cost : 1) > in_hand(e))
		return false;
	if (cost > e->block[0].left) {
		cost -= e->block[0].left;
		l->held -= e->block[0].left;
		l->stats.spent += e->block[0].left;
		e->block[0].left = 0;
		end_block(l, e, steady);
	}
	l->news |= e->block[0].left == e->block[0].units;
	e->block[0].left -= (uint32_t)cost;
	l->held -= (uint64_t)cost;
	l->stats.spent += (uint64_t)cost;
	return true;
}

static uint32_t at_most(int64_t cost, uint32_t most)
{
	return cost < most ? (uint32_t)cost : most;
}

/* No more than what its first block has lost: the rest is dropped. */
static void unspend(struct ledger *l, struct entry *e, int64_t cost)
{
	struct block *b = &e->block[0];
	uint32_t back = at_most(cost, spent_for_certain(b));

	b->left += back;
	l->held += back;
	l->stats.dropped += (uint64_t)cost - back;
}

/* Nobody has heard of it yet. */
static void take_back(struct ledger *l, struct entry *e, int64_t cost)
{
	l->stats.spent -= (uint64_t)cost;
	unspend(l, e, cost);
}

static unsigned rule_end(const struct plan *plan, unsigned first)
{
	unsigned end = first + 1;
	while (end < plan->n && plan->take[end].limit->rule == plan->take[first].limit->rule)
		end++;
	return end;
}

static bool spend_rule(
	struct ledger *l, struct plan *plan, unsigned first, unsigned end, usec_t steady)
{
	struct entry *entry[PLAN_MAX];
	unsigned spent = first;
	bool all = true;

	for (unsigned i = first; i < end; i++) {
		entry[i] = entry_of(l, &plan->take[i], steady);
		if (entry[i])
			want(entry[i], plan->take[i].cost, steady);
		all &= entry[i] != NULL;
	}
	while (all && spent < end && spend(l, entry[spent], plan->take[spent].cost, steady))
		spent++;
	all = spent == end;
	while (!all && spent-- > first)
		take_back(l, entry[spent], plan->take[spent].cost);
	for (unsigned i = first; i < end; i++) {
		if (all)
			fill_verdict(l, entry[i], &plan->take[i], steady);
		if (entry[i] && to_ask(l, entry[i], steady))
			queue(l, entry[i]);
	}
	return all;
}

uint32_t ledger_spend(struct ledger *l, struct plan *plan, usec_t steady)
{
	uint32_t spent = 0;

	for (unsigned first = 0, end; first < plan->n; first = end) {
		end = rule_end(plan, first);
		if (plan->take[first].limit->rule->lease > 0 &&
			spend_rule(l, plan, first, end, steady))
			spent |= (uint32_t)((UINT64_C(1) << end) - (UINT64_C(1) << first));
	}
	return spent;
}

struct ledger_spent ledger_hold(struct ledger *l, const struct plan *plan, uint32_t which)
{
	struct ledger_spent s = { .which = which };

	for (unsigned i = 0; i < plan->n; i++) {
		if (!(which >> i & 1))
			continue;
		struct entry *e = find(l, &plan->take[i].key);
		l->stats.spent -= (uint64_t)plan->take[i].cost; /* it is not certain yet */
		if (!e)
			continue;
		/* Of a cost that two blocks gave, the first has ended, and counts as spent. */
		s.serial[i] = e->serial;
		s.pending[i] = at_most(plan->take[i].cost, spent_for_certain(&e->block[0]));
		e->block[0].pending += s.pending[i];
	}
	return s;
}

/* The entry whose first block is still the one that take i was spent from; its cost is pending no
 * longer. */
static struct entry *release(
	struct ledger *l, const struct take *t, const struct ledger_spent *s, unsigned i)
{
	struct entry *e = s->which >> i & 1 ? find(l, &t->key) : NULL;

	if (!e || e->serial != s->serial[i] || !e->block[0].units)
		return NULL;
	e->block[0].pending -= s->pending[i];
	return e;
}

void ledger_keep(struct ledger *l, const struct plan *plan, const struct ledger_spent *s)
{
	for (unsigned i = 0; i < plan->n; i++)
		if (s->which >> i & 1) {
			l->stats.spent += (uint64_t)plan->take[i].cost;
			(void)release(l, &plan->take[i], s, i);
		}
}

void ledger_unspend(
	struct ledger *l, const struct plan *plan, const struct ledger_spent *s, usec_t steady)
{
	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		if (!(s->which >> i & 1))
			continue;
		struct entry *e = release(l, t, s, i);
		if (e && e->block[0].until > steady) {
			unspend(l, e, t->cost);
		} else {
			l->stats.dropped += (uint64_t)t->cost;
		}
	}
}

/* ---- asking ---- */

/* Which report goes first: one that gives something back. */
static struct lease_ask *most_owed(struct entry *e)
{
	return e->owed[1].back > e->owed[0].back || !e->owed[0].done ? &e->owed[1] : &e->owed[0];
}

static void leave_if_done(struct ledger *l, struct entry *e)
{
	if (e->leaving && !e->asked && !e->queued && !e->block[0].units)
		free_place(l, e);
}

bool ledger_next(struct ledger *l, struct ledger_ask *a, usec_t steady)
{
	while (l->first != NONE) {
		struct entry *e = unqueue(l);
		settle(l, e, steady);
		if (e->block[0].units && !e->block[0].left && !e->block[0].pending)
			end_block(l, e, steady);
		uint32_t units = to_ask(l, e, steady);
		if (units)
			report_spent(l, e);
		units = units < e->most - out(e) ? units : e->most - out(e);
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
				queue(l, e);
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
		struct entry *e = t->limit->rule->lease > 0 ? find(l, &t->key) : NULL;
		if (e)
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
		end_block(l, e, steady);
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
		end_all(l, e, steady);
		queue(l, e);
	}
	settle(l, e, steady);
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
		settle(l, e, steady);
		while (e->block[0].units && steady - e->block[0].since >= IDLE_MAX)
			end_block(l, e, steady);
		age(e, steady);
		e->quiet = !e->block[0].units && wanted(e) == 0;
		if (e->quiet && most_owed(e)->done)
			queue(l, e);
	}
}

void ledger_return_all(struct ledger *l, usec_t steady)
{
	for (uint32_t i = 0; i < SETS * WAYS; i++) {
		struct entry *e = &l->entry[i];
		if (is_free(l, i))
			continue;
		e->leaving = true;
		end_all(l, e, steady);
		if (most_owed(e)->done)
			queue(l, e);
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
}

void ledger_disown(struct ledger *l)
{
	for (uint32_t i = 0; i < SETS * WAYS; i++)
		if (!is_free(l, i))
			disown(l, &l->entry[i]);
}

void ledger_forget(struct ledger *l, const struct key *k, usec_t steady)
{
	struct entry *e = find(l, k);

	if (!e)
		return;
	disown(l, e);
	end_all(l, e, steady);
	e->id++; /* nobody waits for what was asked */
	e->asked = false;
	e->leaving = true;
	leave_if_done(l, e);
}
