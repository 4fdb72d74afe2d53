/* Several agents and one Redis, in virtual time: what must hold of the limits that they share,
 * whatever the rules, the delays, the clocks, and what is lost. The agents are the real ledger, the
 * real codec and the real arithmetic; Redis is what redis/properties holds the script to; sockets
 * and timers are a queue of events. `leases SEED [COUNT]` runs one again, or as many from there. */
#include "admitted.h"
#include "chance.h"
#include "limit/ledger.h"
#include "limit/split.h"
#include "store/redis_call.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	AGENTS = 8,
	WORKERS = 2, /* of an agent, each with a ledger */
	RULES = 3,
	LIMITS = 2, /* of a rule */
	KEYS = RULES * LIMITS,
	EVENTS = 8192,
	ADMITTED = 1 << 15,
	CALLS = 512,
	CALL_PLANS = 8,
	UNDER_WAY = 8, /* calls of a worker */
	STEPS = 3000,  /* of a seed */
	SEEDS = 2000,
};

static void give_out(const char *what)
{
	fprintf(stderr, "seed %" PRIu64 ": out of %s\n", seed_now, what);
	exit(2);
}

/* --- The world --- */

enum what { REQUEST, SEND, ARRIVES, ANSWERED, TICK };

struct worker;

struct event {
	usec_t at;
	uint64_t order; /* of those at one instant */
	enum what what;
	struct worker *worker;
	struct call *call;
};

/* A check that waits: those of its takes that Redis decides, and what was spent for the others. */
struct waiting {
	struct plan whole, part;
	uint8_t part_of[PLAN_MAX];
	struct ledger_spent spent;
	struct admitted when[2]; /* its parts were charged: by Redis, and here */
	bool denied_there;
};

struct call {
	struct call *next;
	struct redis_call asked;
	struct waiting waiting[CALL_PLANS];
	struct worker *worker;
	unsigned life; /* of the worker that sent it */
	bool is_sent;
	bool is_gone;                     /* so is the connection that it was sent by */
	usec_t sent;                      /* by its clock */
	struct key key[REDIS_CALL_TAKES]; /* asked.key_n of them */
	uint8_t reply[REDIS_REPLY_MAX];
	size_t reply_n;
};

struct worker {
	struct ledger *ledger;
	struct call *gathers;
	usec_t clock; /* what it reads at the beginning */
	double rate;  /* of its clock */
	unsigned life, under_way;
	usec_t pause;
};

struct counter {
	struct limit *limit;
	struct leased stored;
	bool is_there;
	struct admitted admitted[ADMITTED];
	unsigned n;
};

struct world {
	struct chance chance;
	struct rule rule[RULES];
	struct limit limit[KEYS];
	struct counter counter[KEYS];
	unsigned rules, limits; /* limits of each rule */
	unsigned agents, workers;
	struct worker worker[AGENTS * WORKERS];
	struct event heap[EVENTS];
	unsigned events;
	uint64_t order;
	usec_t now, begin, end;
	usec_t busy, quiet; /* in turns */
	usec_t latest_tick; /* a busy loop is late */
	usec_t redis_ahead, redis_latest;
	double most; /* that one ledger may hold */
	unsigned losses_in_1000, fault_every;
	usec_t delay;
	bool strict, faults, ones;
	bool wipes;      /* once, Redis comes back empty */
	uint64_t wiped;  /* then; 0: not yet */
	bool all_tokens; /* of windows nobody could say in which of two somebody was */
	struct call *idle;
	unsigned calls;
};

static uint64_t requests, by_hand, by_redis, denied, blocks, lost, redis_calls;

static usec_t clock_of(const struct world *w, const struct worker *worker)
{
	return worker->clock + (usec_t)((double)(w->now - ORIGIN) * worker->rate);
}

static struct now redis_now(struct world *w)
{
	usec_t t = w->now + w->redis_ahead;
	return (struct now){ .steady = t, .utc = t };
}

/* --- Events --- */

static bool before(const struct event *a, const struct event *b)
{
	return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void happen(
	struct world *w, usec_t at, enum what what, struct worker *worker, struct call *call)
{
	struct event e = { at, w->order++, what, worker, call };
	unsigned i = w->events++;

	if (w->events > EVENTS)
		give_out("events");
	for (; i && before(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = e;
}

static struct event next_event(struct world *w)
{
	struct event first = w->heap[0], last = w->heap[--w->events];
	unsigned i = 0;

	for (unsigned k; (k = 2 * i + 1) < w->events; i = k) {
		if (k + 1 < w->events && before(&w->heap[k + 1], &w->heap[k]))
			k++;
		if (!before(&w->heap[k], &last))
			break;
		w->heap[i] = w->heap[k];
	}
	w->heap[i] = last;
	return first;
}

/* --- Calls --- */

static struct call *call_get(struct world *w, struct worker *worker)
{
	struct call *c = w->idle;

	if (c)
		w->idle = c->next;
	else if (w->calls++ == CALLS || !(c = calloc(1, sizeof *c)))
		give_out("calls");
	redis_call_clear(&c->asked);
	c->worker = worker;
	c->life = worker->life;
	c->is_gone = c->is_sent = false;
	return c;
}

static void call_put(struct world *w, struct call *c)
{
	if (c->is_sent)
		c->worker->under_way--;
	c->next = w->idle;
	w->idle = c;
}

static usec_t travel(struct world *w)
{
	return one_in(&w->chance, 20) ? between(&w->chance, 0, 20 * w->delay)
				      : between(&w->chance, 0, w->delay);
}

static bool is_lost(struct world *w)
{
	return w->losses_in_1000 && between(&w->chance, 0, 999) < w->losses_in_1000;
}

/* --- What was admitted --- */

static struct counter *counter_of(struct world *w, const struct key *k)
{
	return &w->counter[k->a - 1];
}

static struct admitted now_is(struct world *w)
{
	usec_t redis = w->now + w->redis_ahead;

	if (w->redis_latest < redis)
		w->redis_latest = redis;
	return (struct admitted){ w->now, w->redis_latest, w->order++, 0 };
}

static void note(struct world *w, const struct take *t, struct admitted when, int64_t cost)
{
	struct counter *c = counter_of(w, &t->key);

	if (c->n == ADMITTED)
		give_out("room for what was admitted");
	when.cost = cost;
	c->admitted[c->n++] = when;
}

static void admit(struct world *w, const struct take *t, struct admitted when)
{
	if (t->cost)
		note(w, t, when, t->cost);
}

/* --- An agent --- */

static void send_soon(struct world *w, struct worker *worker)
{
	if (worker->gathers)
		return;
	worker->gathers = call_get(w, worker);
	happen(w, w->now + between(&w->chance, 0, MS), SEND, worker, worker->gathers);
}

static void make_plan(struct world *w, struct plan *p)
{
	struct chance *c = &w->chance;

	memset(p, 0, offsetof(struct plan, tier));
	int64_t cost = w->ones ? 1 : one_in(c, 10) ? between(c, 0, 30) : between(c, 1, 4);
	for (unsigned r = 0; r < w->rules; r++) {
		if (w->rules > 1 && !w->ones && one_in(c, 3))
			continue;
		for (unsigned i = 0; i < w->limits; i++) {
			unsigned k = r * LIMITS + i;
			p->take[p->n++] = (struct take){
				.limit = &w->limit[k], .key = { k + 1, k + 1 }, .cost = cost
			};
		}
	}
}

/* As store/redis.c does: what is in hand is spent, for the others Redis is asked. */
static void on_request(struct world *w, struct worker *worker)
{
	static struct plan plan;
	usec_t steady = clock_of(w, worker);

	make_plan(w, &plan);
	requests++;
	uint32_t spent = ledger_spend(worker->ledger, &plan, steady);
	uint32_t all = (uint32_t)((UINT64_C(1) << plan.n) - 1);
	if (spent == all) {
		by_hand++;
		for (unsigned i = 0; i < plan.n; i++)
			admit(w, &plan.take[i], now_is(w));
	} else {
		send_soon(w, worker);
		struct call *c = worker->gathers;
		if (c->asked.plan_n == CALL_PLANS) {
			/* It is denied for want of room. */
			struct ledger_spent s = ledger_hold(worker->ledger, &plan, spent);
			ledger_unspend(worker->ledger, &plan, &s, steady);
		} else {
			struct waiting *x = &c->waiting[c->asked.plan_n];
			x->whole = plan;
			x->spent = ledger_hold(worker->ledger, &plan, spent);
			x->when[1] = now_is(w);
			for (unsigned i = 0; i < plan.n; i++)
				x->part_of[i] = spent >> i & 1;
			split_part(&x->whole, x->part_of, 0, &x->part);
			(void)redis_call_add(&c->asked, &x->part);
		}
	}
	if (ledger_wants(worker->ledger))
		send_soon(w, worker);
}

static void on_send(struct world *w, struct call *c)
{
	struct worker *worker = c->worker;
	static struct redis_args args;
	struct ledger_ask ask;

	if (c->life != worker->life) { /* it died before */
		call_put(w, c);
		return;
	}
	if (worker->under_way == UNDER_WAY) {
		happen(w, w->now + MS, SEND, worker, c);
		return;
	}
	usec_t steady = clock_of(w, worker);
	worker->gathers = NULL;
	c->is_sent = true;
	worker->under_way++;
	while (c->asked.ask_n < REDIS_CALL_ASKS && ledger_next(worker->ledger, &ask, steady))
		(void)redis_call_ask(&c->asked, &ask);
	c->sent = steady;
	redis_call_args(&c->asked, &args, "rl:", "", NULL);
	memcpy(c->key, args.key, args.key_n * sizeof args.key[0]);
	happen(w, w->now + travel(w), ARRIVES, worker, c);
	redis_calls++;
}

/* It is not known what became of the call: who waits is denied. */
static void give_up(struct world *w, struct call *c)
{
	struct worker *worker = c->worker;

	if (c->life != worker->life || c->is_gone)
		return;
	c->is_gone = true;
	usec_t steady = clock_of(w, worker);
	for (unsigned i = 0; i < c->asked.plan_n; i++)
		ledger_unspend(worker->ledger, &c->waiting[i].whole, &c->waiting[i].spent, steady);
	for (unsigned i = 0; i < c->asked.ask_n; i++)
		ledger_lost(worker->ledger, &c->asked.ask[i].asked, steady);
	lost++;
}

static void admit_whole(struct world *w, const struct waiting *x)
{
	by_redis++;
	for (unsigned i = 0; i < x->whole.n; i++)
		admit(w, &x->whole.take[i], x->when[x->part_of[i]]);
}

static void on_answered(struct world *w, struct call *c)
{
	struct worker *worker = c->worker;

	if (c->life != worker->life || c->is_gone) {
		call_put(w, c);
		return;
	}
	usec_t steady = clock_of(w, worker);
	hold(redis_call_read(&c->asked, c->reply, c->reply_n), "no good reply");
	for (unsigned i = 0; i < c->asked.plan_n; i++) {
		struct waiting *x = &c->waiting[i];
		hold(x->part.denied == x->denied_there, "another word than that of Redis");
		if (x->part.denied) {
			if (w->ones && !w->faults)
				note(w, &x->whole.take[0], x->when[0], DENIED);
			ledger_unspend(worker->ledger, &x->whole, &x->spent, steady);
		} else {
			ledger_keep(worker->ledger, &x->whole, &x->spent);
			admit_whole(w, x);
		}
	}
	for (unsigned i = 0; i < c->asked.ask_n; i++) {
		const struct redis_ask *a = &c->asked.ask[i];
		blocks += a->granted > 0;
		ledger_heard(worker->ledger, &a->asked, a->granted, &a->state, c->asked.now,
			c->sent, steady);
	}
	call_put(w, c);
	if (ledger_wants(worker->ledger))
		send_soon(w, worker);
}

/* --- Redis --- */

static uint8_t *put(uint8_t *to, const void *from, size_t n)
{
	memcpy(to, from, n);
	return to + n;
}

static uint8_t *put_value(uint8_t *to, const struct leased *l)
{
	const uint32_t until = 0; /* nobody looks at it */

	return put(put(to, l, sizeof *l), &until, sizeof until);
}

static void charge(struct world *w, struct waiting *x)
{
	static struct plan plan;
	struct leased read[PLAN_MAX];
	const struct bucket *stored[PLAN_MAX];
	struct now now = redis_now(w);

	plan = x->part;
	for (unsigned i = 0; i < plan.n; i++) {
		const struct take *t = &plan.take[i];
		struct counter *c = counter_of(w, &t->key);
		read[i] = lease_read(&t->limit->quota, &c->stored, now);
		stored[i] = c->is_there ? &read[i].bucket : NULL;
	}
	plan_charge(&plan, stored, now);
	x->denied_there = plan.denied;
	for (unsigned i = 0; i < plan.n; i++) {
		struct counter *c = counter_of(w, &plan.take[i].key);
		if (!plan.take[i].verdict.charged)
			continue;
		c->stored = read[i];
		c->stored.bucket = plan.take[i].verdict.state;
		c->is_there = true;
	}
}

static uint8_t *grant(struct world *w, struct redis_ask *a, uint8_t *to)
{
	struct counter *c = counter_of(w, &a->asked.key);
	struct now now = redis_now(w);
	struct leased read = lease_read(&a->asked.quota, &c->stored, now), state;

	to = put_value(to, &read);
	(void)lease_apply(&a->asked.quota, &read, &a->asked.ask, now, &state);
	c->stored = state;
	c->is_there = true;
	return to;
}

static void on_arrives(struct world *w, struct call *c)
{
	/* What was sent before the connection was lost may come all the same. */
	if (is_lost(w) || (c->is_gone && one_in(&w->chance, 2))) {
		give_up(w, c);
		call_put(w, c);
		return;
	}
	struct now now = redis_now(w);
	uint8_t *to = put(c->reply, &now.utc, sizeof now.utc);
	for (unsigned i = 0; i < c->asked.key_n; i++) {
		const struct counter *there = counter_of(w, &c->key[i]);
		to = put_value(to, &there->stored);
	}
	for (unsigned i = 0; i < c->asked.plan_n; i++) {
		struct waiting *x = &c->waiting[i];
		charge(w, x);
		denied += x->denied_there;
		x->when[0] = now_is(w);
	}
	for (unsigned i = 0; i < c->asked.ask_n; i++)
		to = grant(w, &c->asked.ask[i], to);
	c->reply_n = (size_t)(to - c->reply);
	if (is_lost(w)) {
		give_up(w, c);
		call_put(w, c);
		return;
	}
	happen(w, w->now + travel(w), ANSWERED, c->worker, c);
}

/* --- What goes wrong --- */

static void lose_connection(struct world *w, struct worker *worker, bool reached)
{
	for (unsigned i = 0; i < w->events; i++) {
		struct event *e = &w->heap[i];
		if (e->worker != worker || (e->what != ARRIVES && e->what != ANSWERED))
			continue;
		give_up(w, e->call);
		if (!reached)
			e->what = ANSWERED; /* and nobody hears it */
	}
	ledger_disown(worker->ledger);
}

/* kill -9, and a new one in its place. */
static void crash(struct worker *worker)
{
	ledger_free(worker->ledger);
	worker->ledger = ledger_new(WORKERS);
	if (!worker->ledger)
		give_out("memory");
	worker->life++;
	worker->gathers = NULL;
}

/* A replica with all that was written, and a clock that is a little behind. */
static void fail_over(struct world *w)
{
	for (unsigned i = 0; i < w->workers; i++)
		lose_connection(w, &w->worker[i], false);
	if (w->all_tokens)
		w->redis_ahead -= between(&w->chance, 0, LEASE_LIFE);
}

/* Another in its place, or the same without its data: nobody but the agents knows of the blocks. */
static void come_back_empty(struct world *w)
{
	for (unsigned i = 0; i < w->workers; i++)
		lose_connection(w, &w->worker[i], false);
	for (unsigned k = 0; k < KEYS; k++) {
		w->counter[k].stored = (struct leased){ 0 };
		w->counter[k].is_there = false;
	}
	w->wiped = ++w->order;
}

static void something_happens(struct world *w)
{
	struct worker *worker = &w->worker[between(&w->chance, 0, w->workers - 1)];

	switch (between(&w->chance, 0, w->wipes && !w->wiped ? 4 : 3)) {
	case 4:
		come_back_empty(w);
		break;
	case 0:
		crash(worker);
		break;
	case 1:
		lose_connection(w, worker, true);
		break;
	case 2:
		fail_over(w);
		break;
	case 3:
		ledger_return_all(worker->ledger, clock_of(w, worker));
		if (ledger_wants(worker->ledger))
			send_soon(w, worker);
		break;
	}
}

/* What all agents may hold of it at once. */
static double all_leases(const struct world *w, const struct limit *l)
{
	return w->workers * floor(l->rule->lease * (double)l->quota.capacity / WORKERS);
}

/* What was lost with Redis could be had once more, and besides what was in hand then; no more. */
static void check_counter(const struct world *w, struct counter *k)
{
	const struct quota *q = &k->limit->quota;
	static struct admitted then[ADMITTED];
	unsigned before = 0, after = 0;
	double leases = all_leases(w, k->limit);

	for (unsigned i = 0; i < k->n; i++)
		if (k->admitted[i].order < w->wiped)
			then[before++] = k->admitted[i];
		else
			k->admitted[after++] = k->admitted[i];
	admitted_check(q, then, before, leases, 0);
	admitted_check(q, k->admitted, after, leases, before ? leases : 0);
}

/* --- A seed --- */

static void random_rules(struct world *w)
{
	static const usec_t windows[] = { 1000 * MS, 1000 * MS, 3000 * MS, 10000 * MS,
		3600000 * MS };
	struct chance *c = &w->chance;

	w->rules = w->ones ? 1 : (unsigned)between(c, 1, RULES);
	w->limits = w->ones ? 1 : (unsigned)between(c, 1, LIMITS);
	for (unsigned r = 0; r < w->rules; r++) {
		struct rule *rule = &w->rule[r];
		rule->lease = w->strict || one_in(c, 6) ? 0 : (double)between(c, 1, 50) / 100;
		rule->algorithm = w->all_tokens ? ALGORITHM_TOKEN_BUCKET
						: (enum algorithm)between(c, 0, 2);
		for (unsigned i = 0; i < w->limits; i++) {
			unsigned k = r * LIMITS + i;
			struct limit *l = &w->limit[k];
			usec_t window = windows[between(c, 0, 4)];
			int64_t units = between(c, 10, one_in(c, 3) ? 10000 : 500);
			*l = (struct limit){ .rule = rule,
				.quota = { rule->algorithm, { WINDOW_LENGTH, window }, units,
					units } };
			if (rule->algorithm == ALGORITHM_TOKEN_BUCKET && one_in(c, 2))
				l->quota.capacity = between(c, 1, 2 * units);
			l->slowest_interval = (double)window / (double)units;
			l->slowest_refill = l->slowest_interval * (double)l->quota.capacity;
			w->counter[k].limit = l;
			w->counter[k].is_there = false;
			w->counter[k].stored = (struct leased){ 0 };
			w->counter[k].n = 0;
		}
	}
}

static void random_world(struct world *w, uint64_t seed)
{
	struct call *idle = w->idle;
	unsigned calls = w->calls;
	struct chance *c = &w->chance;

	memset(w, 0, offsetof(struct world, counter));
	w->chance.state = seed * UINT64_C(0x2545f4914f6cdd1d);
	w->strict = one_in(c, 4);
	w->faults = one_in(c, 2);
	w->wipes = w->faults && one_in(c, 2);
	w->wiped = 0;
	w->ones = one_in(c, 3);
	w->all_tokens = one_in(c, 3);
	w->fault_every = (unsigned)between(c, 20, 1000);
	w->losses_in_1000 = w->faults ? (unsigned)between(c, 0, 50) : 0;
	w->delay = one_in(c, 3) ? between(c, 0, 50 * MS) : between(c, 0, MS);
	random_rules(w);
	for (unsigned i = 0; i < w->rules * w->limits; i++) {
		const struct limit *l = &w->limit[i / w->limits * LIMITS + i % w->limits];
		w->most += floor(l->rule->lease * (double)l->quota.capacity / WORKERS);
	}
	w->idle = idle;
	w->calls = calls;
	w->events = 0;
	w->order = 0;
	w->now = ORIGIN + between(c, 0, 10000 * MS);
	w->begin = w->now;
	w->end = w->now + between(c, 500 * MS, 12000 * MS);
	w->busy = between(c, 20 * MS, one_in(c, 2) ? 300 * MS : 2000 * MS);
	w->quiet = one_in(c, 3) ? 0 : between(c, 0, one_in(c, 2) ? 1500 * MS : 5000 * MS);
	w->latest_tick = one_in(c, 4) ? 3 * LEASE_LIFE : LEASE_LIFE / 6;
	w->redis_ahead = between(c, -300 * MS, 300 * MS);
	w->redis_latest = 0;
	w->agents = (unsigned)between(c, 1, AGENTS);
	w->workers = w->agents * WORKERS;
	usec_t pause = between(c, MS / 10, one_in(c, 2) ? MS : 10 * MS);
	for (unsigned i = 0; i < w->workers; i++) {
		struct worker *worker = &w->worker[i];
		*worker = (struct worker){ .ledger = ledger_new(WORKERS),
			.clock = between(c, 0, 1000000 * MS),
			.rate = 1 + (double)between(c, -10, 10) / 1000,
			.pause = one_in(c, 4) ? between(c, 1, 10 * MS) : pause };
		if (!worker->ledger)
			give_out("memory");
		happen(w, w->now + between(c, 0, worker->pause), REQUEST, worker, NULL);
		happen(w, w->now + between(c, 0, LEASE_LIFE / 8), TICK, worker, NULL);
	}
}

/* All are busy at once, and quiet at once: so blocks lie in hand while buckets refill, and are
 * spent then in one go with what is there. */
static void request_again(struct world *w, struct worker *worker)
{
	usec_t at = w->now + between(&w->chance, 1, 2 * worker->pause);
	usec_t cycle = w->busy + w->quiet, since = (at - w->begin) % cycle;

	if (since >= w->busy)
		at += cycle - since;
	happen(w, at, REQUEST, worker, NULL);
}

static void on_tick(struct world *w, struct worker *worker)
{
	ledger_tick(worker->ledger, clock_of(w, worker));
	if (ledger_wants(worker->ledger))
		send_soon(w, worker);
	happen(w, w->now + between(&w->chance, LEASE_LIFE / 8, w->latest_tick), TICK, worker, NULL);
}

static void run_seed(struct world *w, uint64_t seed)
{
	unsigned steps = 0;

	seed_now = seed;
	random_world(w, seed);
	while (w->events) {
		struct event e = next_event(w);
		w->now = e.at;
		if (++steps == STEPS)
			w->end = w->now;
		if (w->faults && one_in(&w->chance, w->fault_every))
			something_happens(w);
		switch (e.what) {
		case REQUEST:
			if (w->now < w->end) {
				on_request(w, e.worker);
				request_again(w, e.worker);
			}
			break;
		case SEND:
			on_send(w, e.call);
			break;
		case ARRIVES:
			on_arrives(w, e.call);
			break;
		case ANSWERED:
			on_answered(w, e.call);
			break;
		case TICK:
			if (w->now < w->end)
				on_tick(w, e.worker);
			break;
		}
		hold((double)ledger_held(e.worker->ledger) <= w->most,
			"a worker holds %" PRIu64 " units, at most %g wanted",
			ledger_held(e.worker->ledger), w->most);
	}
	for (unsigned i = 0; i < w->workers; i++) {
		const struct ledger_stats *l = ledger_stats(w->worker[i].ledger);
		uint64_t held = ledger_held(w->worker[i].ledger);
		/* What is to be given back, and was not yet, is none of these. */
		hold(l->granted >= l->spent + l->returned + l->dropped + held,
			"granted %" PRIu64 " units; spent %" PRIu64 ", returned %" PRIu64
			", dropped %" PRIu64 ", held %" PRIu64,
			l->granted, l->spent, l->returned, l->dropped, held);
		ledger_free(w->worker[i].ledger);
	}
	for (unsigned r = 0; r < w->rules; r++)
		for (unsigned i = 0; i < w->limits; i++) {
			check_counter(w, &w->counter[r * LIMITS + i]);
		}
}

int main(int argc, char **argv)
{
	static struct world w;
	uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : SEEDS;

	for (uint64_t i = 0; i < 10 * count && !failures; i++)
		holders_run(first + i);
	for (uint64_t i = 0; i < count && !failures; i++)
		run_seed(&w, first + i);
	printf("%" PRIu64 " requests, %" PRIu64 " served from blocks, %" PRIu64
	       " admitted by Redis, %" PRIu64 " denied by it; %" PRIu64 " blocks, %" PRIu64
	       " calls, %" PRIu64 " lost; %u failures\n",
		requests, by_hand, by_redis, denied, blocks, redis_calls, lost, failures);
	for (struct call *c; (c = w.idle);) {
		w.idle = c->next;
		free(c);
	}
	return failures != 0;
}
