/* Limits of one request on several nodes of a cluster, in virtual time: agents that ask at once,
 * parts that arrive in any order, are sent on, come again, or are lost on either way, nodes that
 * are away for a while, agents that die half way. Never more than a limit is admitted; and where
 * nothing was lost, nothing but what was admitted stays charged.
 *
 * A failure names its seed; `cluster_model SEED [COUNT]` runs that again. */
#include "chance.h"
#include "store/redis_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	RULES = 5,
	LIMITS = 2,
	CLIENTS = 3,
	NODES = 4,
	AGENTS = 4,
	REQUESTS = 80,
	EVENTS = 4096,
	SEEDS = 4000, /* where nothing else is said */
};

/* Mon 2026-01-05T00:00:00Z */
#define ORIGIN  (INT64_C(1767571200) * USEC_PER_SEC)
#define TIMEOUT (20 * USEC_PER_MSEC)
#define NOISE   2e-6

static uint64_t seed_now;
static unsigned failures;
static uint64_t admitted_n, denied_n, failed_n, split_n, refunds_n, lost_n, moved_n;

__attribute__((format(printf, 2, 3))) static void hold(bool ok, const char *format, ...)
{
	if (ok)
		return;
	va_list args;
	va_start(args, format);
	fprintf(stderr, "seed %" PRIu64 ": ", seed_now);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	failures++;
}

/* --- A world --- */

struct counter {
	struct bucket bucket;
	bool there;
	double may_leak; /* of a refund, what drained before it came: it is not given back */
};

enum kind { KIND_TAKE, KIND_REFUND, KIND_CHARGE };

/* A plan under way to where its slot is, or its answer on the way back. */
struct event {
	usec_t at;
	enum { EVENT_NONE, EVENT_ASK, EVENT_ARRIVES, EVENT_ANSWER, EVENT_DEADLINE } what;
	enum kind kind;
	unsigned request, node;
	struct plan *plan; /* a request's, or (a refund) owned */
};

struct request {
	unsigned agent;
	struct plan plan;
	struct redis_parts *parts; /* NULL: one */
	unsigned part_n;
	bool over, dead;
	bool arrived; /* a plan by itself */
	/* of each part, when it was charged; 0: it was not */
	usec_t charged_at[PLAN_MAX];
	struct plan charged[PLAN_MAX];
	bool admitted;
};

static struct rule rule[RULES];
static struct limit limit[RULES][LIMITS];
static struct key descriptor[RULES][CLIENTS];
static unsigned rules, limits[RULES], clients, nodes, agents;
static struct counter counter[RULES][LIMITS][CLIENTS];
static uint8_t owner[REDIS_SLOTS];
static usec_t away_until[NODES];
static struct event event[EVENTS];
static struct request request[REQUESTS];
static unsigned event_n, request_n;
static struct chance chance;
static bool clean; /* nothing was lost, and nobody died */
static bool faults;
static usec_t now;

static void random_world(uint64_t seed)
{
	static const usec_t windows[] = { USEC_PER_SEC / 4, USEC_PER_SEC, 60 * USEC_PER_SEC,
		3600 * USEC_PER_SEC };
	struct chance *c = &chance;

	chance.state = seed * UINT64_C(0x2545f4914f6cdd1d);
	rules = (unsigned)between(c, 1, RULES);
	clients = (unsigned)between(c, 1, CLIENTS);
	nodes = (unsigned)between(c, 1, NODES);
	agents = (unsigned)between(c, 1, AGENTS);
	memset(counter, 0, sizeof counter);
	memset(away_until, 0, sizeof away_until);
	event_n = request_n = 0;
	clean = true;
	faults = one_in(c, 2);
	now = ORIGIN + between(c, 0, 3600 * USEC_PER_SEC);
	for (unsigned i = 0; i < REDIS_SLOTS; i++)
		owner[i] = (uint8_t)between(c, 0, nodes - 1);
	for (unsigned r = 0; r < rules; r++) {
		rule[r] = (struct rule){ .mode = one_in(c, 5) ? MODE_SHADOW : MODE_ENFORCE,
			.count_denied = one_in(c, 6),
			.warn_at = 1,
			.algorithm = (enum algorithm)between(c, 0, 2) };
		limits[r] = (unsigned)between(c, 1, LIMITS);
		for (unsigned k = 0; k < clients; k++)
			descriptor[r][k] = r && one_in(c, 4) ? descriptor[r - 1][k]
							     : (struct key){ draw(c), draw(c) };
		for (unsigned i = 0; i < limits[r]; i++) {
			int64_t units = between(c, 1, 12);
			limit[r][i] = (struct limit){ .rule = &rule[r],
				.quota = { rule[r].algorithm,
					{ WINDOW_LENGTH, windows[between(c, 0, 3)] }, units,
					units },
				.salt = { draw(c), draw(c) } };
		}
	}
}

static struct counter *counter_of(const struct take *t)
{
	for (unsigned r = 0; r < rules; r++)
		for (unsigned i = 0; i < limits[r]; i++)
			for (unsigned k = 0; k < clients && t->limit == &limit[r][i]; k++)
				if (t->key.a == (descriptor[r][k].a ^ limit[r][i].salt.a))
					return &counter[r][i][k];
	abort();
}

static void add_event(struct event e)
{
	if (event_n == EVENTS)
		abort();
	event[event_n++] = e;
}

static struct event next_event(void)
{
	unsigned first = 0;

	for (unsigned i = 1; i < event_n; i++)
		if (event[i].at < event[first].at)
			first = i;
	struct event e = event[first];
	event[first] = event[--event_n];
	return e;
}

/* --- The way there and back --- */

static usec_t delay(void)
{
	return one_in(&chance, 10) ? between(&chance, 0, 15 * USEC_PER_MSEC)
				   : between(&chance, 50, 1000);
}

static bool is_lost(void)
{
	if (!faults || !one_in(&chance, 20))
		return false;
	clean = false;
	lost_n++;
	return true;
}

/* To the node that this agent thinks has the slot; now and then it is behind. */
static void send(enum kind kind, unsigned q, struct plan *plan)
{
	unsigned node = owner[redis_slot(&plan->take[0])];

	if (one_in(&chance, 8))
		node = (unsigned)between(&chance, 0, nodes - 1);
	if (is_lost()) {
		if (kind != KIND_TAKE)
			free(plan);
		return;
	}
	add_event((struct event){ .at = now + delay(),
		.what = EVENT_ARRIVES,
		.kind = kind,
		.request = q,
		.node = node,
		.plan = plan });
}

static void apply(enum kind kind, struct plan *plan)
{
	const struct bucket *stored[PLAN_MAX];
	struct now at = { .steady = now, .utc = now };

	for (unsigned i = 0; i < plan->n; i++) {
		struct counter *c = counter_of(&plan->take[i]);
		stored[i] = c->there ? &c->bucket : NULL;
		if (kind == KIND_REFUND) {
			const struct take *t = &plan->take[i];
			c->may_leak += (double)(now - t->verdict.state.at) *
				       (double)t->limit->quota.units /
				       (double)t->limit->quota.window.length;
		}
	}
	plan->now = at;
	if (kind == KIND_REFUND)
		split_take_back(plan, stored, at);
	else
		plan_charge(plan, stored, at);
	for (unsigned i = 0; i < plan->n; i++) {
		struct counter *c = counter_of(&plan->take[i]);
		if (!plan->take[i].verdict.charged)
			continue;
		c->bucket = plan->take[i].verdict.state;
		c->there = true;
	}
}

/* Which part of its request a plan is. */
static unsigned part_number(struct request *q, const struct plan *plan)
{
	for (unsigned i = 0; q->parts && i < q->part_n; i++)
		if (redis_parts_at(q->parts, i) == plan)
			return i;
	return 0;
}

static void arrives(struct event e)
{
	struct request *q = &request[e.request];
	unsigned has_it = owner[redis_slot(&e.plan->take[0])];

	if (away_until[e.node] > now) { /* and with it, what came over that connection */
		clean = false;
		lost_n++;
		if (e.kind != KIND_TAKE)
			free(e.plan);
		return;
	}
	if (e.node != has_it || one_in(&chance, 30)) { /* MOVED, ASK; TRYAGAIN */
		moved_n++;
		e.node = has_it;
		e.at = now + delay() + delay();
		add_event(e);
		return;
	}
	if (e.kind != KIND_TAKE) {
		apply(e.kind, e.plan);
		free(e.plan);
		return;
	}
	/* What is charged after its asker has given up is charged all the same, but this must not
	 * write to what he has already freed. */
	static struct plan late;
	unsigned i = part_number(q, e.plan);
	late = *e.plan;
	apply(KIND_TAKE, &late);
	q->charged_at[i] = now;
	q->charged[i] = late;
	if (is_lost())
		return;
	e.what = EVENT_ANSWER;
	e.at = now + delay();
	add_event(e);
}

static struct plan *copy(const struct plan *plan)
{
	struct plan *p = malloc(sizeof *p);
	if (!p)
		abort();
	*p = *plan;
	return p;
}

static void whole_over(struct request *q, bool answered)
{
	q->over = true;
	q->admitted = answered && !q->plan.denied;
	admitted_n += q->admitted;
	denied_n += answered && q->plan.denied;
	failed_n += !answered;
	if (!answered)
		clean = false;
}

static void part_back(struct request *q, bool answered)
{
	static struct plan after;
	bool failed;
	struct plan *whole = redis_parts_back(q->parts, answered, &failed);

	if (redis_parts_is_over(q->parts) && whole && !failed && whole->denied) {
		for (unsigned i = 0; i < q->part_n; i++) {
			const struct plan *part = redis_parts_at(q->parts, i);
			if (split_refund(part, &after)) {
				refunds_n++;
				send(KIND_REFUND, (unsigned)(q - request), copy(&after));
			}
			if (split_charge(part, &after))
				send(KIND_CHARGE, (unsigned)(q - request), copy(&after));
		}
	}
	if (whole)
		whole_over(q, !failed);
}

static void answer(struct event e)
{
	struct request *q = &request[e.request];

	if (q->dead || q->over)
		return;
	unsigned i = part_number(q, e.plan);
	*e.plan = q->charged[i];
	if (q->parts)
		part_back(q, true);
	else
		whole_over(q, true);
}

static void deadline(struct request *q)
{
	if (q->dead || q->over)
		return;
	/* All parts began at once, and have one deadline. */
	while (q->parts && !redis_parts_is_over(q->parts))
		part_back(q, false);
	if (!q->parts)
		whole_over(q, false);
}

static void ask(unsigned agent)
{
	struct request *q = &request[request_n];
	uint8_t part_of[PLAN_MAX];
	uint16_t slot[PLAN_MAX];
	struct chance *c = &chance;

	memset(q, 0, sizeof *q);
	q->agent = agent;
	for (unsigned r = 0; r < rules; r++) {
		unsigned k = (unsigned)between(c, 0, clients - 1);
		if (one_in(c, 4))
			continue;
		int64_t cost = one_in(c, 5) ? between(c, 0, 4) : 1;
		for (unsigned i = 0; i < limits[r]; i++)
			q->plan.take[q->plan.n++] = (struct take){ .limit = &limit[r][i],
				.key = { descriptor[r][k].a ^ limit[r][i].salt.a,
					descriptor[r][k].b ^ limit[r][i].salt.b },
				.cost = cost };
	}
	if (!q->plan.n)
		return;
	request_n++;
	q->part_n = redis_parts_of(&q->plan, part_of, slot);
	if (q->part_n > 1) {
		split_n++;
		q->parts = redis_parts_new(&q->plan, part_of, q->part_n);
	}
	for (unsigned i = 0; i < q->part_n; i++)
		send(KIND_TAKE, request_n - 1, q->parts ? redis_parts_at(q->parts, i) : &q->plan);
	add_event((struct event){
		.at = now + TIMEOUT, .what = EVENT_DEADLINE, .request = request_n - 1 });
}

static void something_happens(void)
{
	struct chance *c = &chance;

	if (one_in(c, 6)) { /* resharding */
		unsigned r = (unsigned)between(c, 0, rules - 1);
		struct take t = { .limit = &limit[r][0] };
		struct key *d = &descriptor[r][between(c, 0, clients - 1)];
		t.key.a = d->a ^ t.limit->salt.a;
		owner[redis_slot(&t)] = (uint8_t)between(c, 0, nodes - 1);
	}
	if (faults && one_in(c, 25))
		away_until[between(c, 0, nodes - 1)] = now + between(c, 0, 200 * USEC_PER_MSEC);
	if (faults && one_in(c, 25)) { /* an agent dies: its requests are nobody's */
		unsigned agent = (unsigned)between(c, 0, agents - 1);
		for (unsigned i = 0; i < request_n; i++)
			if (request[i].agent == agent && !request[i].over) {
				request[i].dead = true;
				clean = false;
			}
	}
}

/* --- What must hold --- */

struct admission {
	usec_t at;
	int64_t cost;
	const struct limit *limit;
};

static int by_time(const void *a, const void *b)
{
	const struct admission *x = a, *y = b;
	return x->at < y->at ? -1 : x->at > y->at;
}

/* Of one counter, what was charged for admitted requests, in order: each fits by itself. And what
 * is there now, if only that were. */
static void check_counter(const struct counter *c)
{
	static struct admission list[REQUESTS];
	const struct limit *l = NULL;
	unsigned n = 0;
	struct bucket b = { 0 };
	bool others = false; /* charges of requests that were not admitted stay, rightly */

	for (unsigned i = 0; i < request_n; i++) {
		const struct request *q = &request[i];
		for (unsigned k = 0; k < q->part_n; k++) {
			const struct plan *p = &q->charged[k];
			for (unsigned t = 0; q->charged_at[k] && t < p->n; t++) {
				const struct take *take = &p->take[t];
				if (counter_of(take) != c || !take->cost)
					continue;
				l = take->limit;
				bool whole_rule = true;
				for (unsigned o = 0; o < p->n; o++)
					whole_rule &= p->take[o].limit->rule != l->rule ||
						      p->take[o].verdict.admits;
				others |= !q->admitted && l->rule->count_denied;
				if (q->admitted && whole_rule)
					list[n++] = (struct admission){ q->charged_at[k],
						take->cost, l };
			}
		}
	}
	qsort(list, n, sizeof list[0], by_time);
	for (unsigned i = 0; i < n; i++) {
		struct now at = { .steady = list[i].at, .utc = list[i].at };
		b = bucket_read(&l->quota, &b, at);
		double used = bucket_used(&l->quota, &b, at) + (double)list[i].cost;
		hold(used <= (double)l->quota.capacity + NOISE,
			"more than the limit: %.9g of %" PRId64 " (algorithm %d)", used,
			l->quota.capacity, (int)l->quota.algorithm);
		bucket_charge(&l->quota, &b, list[i].cost);
	}
	if (!l)
		return;
	struct now at = { .steady = now, .utc = now };
	struct bucket is = bucket_read(&l->quota, &c->bucket, at);
	b = bucket_read(&l->quota, &b, at);
	double there = bucket_used(&l->quota, &is, at), due = bucket_used(&l->quota, &b, at);
	hold(there >= due - NOISE, "%.9g is charged, but %.9g was admitted", there, due);
	double leak = l->quota.algorithm == ALGORITHM_TOKEN_BUCKET ? c->may_leak : 0;
	if (clean && !others)
		hold(there <= due + leak + NOISE,
			"%.9g is charged, but only %.9g was admitted, and nothing was lost", there,
			due);
}

static void run_seed(uint64_t seed)
{
	seed_now = seed;
	random_world(seed);
	usec_t at = now;
	for (unsigned i = 0; i < REQUESTS; i++) {
		add_event((struct event){ .at = at,
			.what = EVENT_ASK,
			.request = (unsigned)between(&chance, 0, agents - 1) });
		if (!one_in(&chance, 3))
			at += between(&chance, 0, one_in(&chance, 10) ? USEC_PER_SEC : 2000);
	}
	while (event_n) {
		struct event e = next_event();
		now = e.at;
		switch (e.what) {
		case EVENT_ASK:
			something_happens();
			ask(e.request);
			break;
		case EVENT_ARRIVES:
			arrives(e);
			break;
		case EVENT_ANSWER:
			answer(e);
			break;
		case EVENT_DEADLINE:
			deadline(&request[e.request]);
			break;
		case EVENT_NONE:
			abort();
		}
	}
	for (unsigned i = 0; i < request_n; i++)
		hold(request[i].over || request[i].dead, "a request without an answer");
	for (unsigned r = 0; r < rules; r++)
		for (unsigned i = 0; i < limits[r]; i++)
			for (unsigned k = 0; k < clients; k++)
				check_counter(&counter[r][i][k]);
	for (unsigned i = 0; i < request_n; i++)
		redis_parts_free(request[i].parts);
}

int main(int argc, char **argv)
{
	uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : SEEDS;

	for (uint64_t i = 0; i < count && !failures; i++)
		run_seed(first + i);
	printf("%" PRIu64 " admitted, %" PRIu64 " denied, %" PRIu64 " failed, %" PRIu64
	       " in parts, %" PRIu64 " refunds, %" PRIu64 " sent on, %" PRIu64
	       " lost; %u failures\n",
		admitted_n, denied_n, failed_n, split_n, refunds_n, moved_n, lost_n, failures);
	return failures != 0;
}
