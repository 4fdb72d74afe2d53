/* The script against plan_charge(), in random worlds: whatever the limits, the clock (backwards and
 * years apart), what lies in Redis already, and how requests share a call, what the script wrote is
 * what C would have kept, bit for bit; what it did not write was not to be charged; and it lives as
 * long as it must. A failure names its seed; `redis_properties SEED [COUNT]` runs that again. */
#include "redis/store.h"

#include "base/clock.h"
#include "limit/split.h"
#include "chance.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	RULES = 6,
	LIMITS = 3, /* of a rule, for one tier */
	TIERS = 2,  /* which share their counters */
	CLIENTS = 3,
	ENTRIES = RULES * LIMITS * CLIENTS,
	EARLIER = 4,
	CALLS = 10,   /* for each seed */
	SEEDS = 3000, /* where nothing else is said */
};

/* Mon 2026-01-05T00:00:00Z */
#define ORIGIN (INT64_C(1767571200) * USEC_PER_SEC)
#define YEAR   (365 * USEC_PER_DAY)

static uint64_t seed_now;
static unsigned failures;

__attribute__((format(printf, 2, 3))) static bool hold(bool ok, const char *format, ...)
{
	if (ok)
		return true;
	va_list args;
	va_start(args, format);
	fprintf(stderr, "seed %" PRIu64 ": ", seed_now);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	failures++;
	return false;
}

/* --- A world: rules, and what Redis should hold --- */

/* A value of Redis: `n` bytes, or none, or none that is a string. */
struct entry {
	struct key key;
	enum algorithm algorithm;
	uint8_t bytes[REDIS_VALUE_BYTES + 8];
	int n; /* -1: no string */
	bool is_there, is_bucket;
	/* By this call: the limit that charged it last, and with what. */
	const struct limit *charged;
	struct leased state;
	/* Since it was given a life: how long, and when that ends. */
	int64_t life_ms;
	usec_t gone_at;
};

struct world {
	struct chance chance;
	struct rule rule[RULES];
	struct limit limit[RULES][TIERS][LIMITS];
	unsigned rules, limits[RULES];
	bool all_cost_1, one_tier; /* so calls are sent in sum, too */
	bool all_tokens;           /* the script has loops of its own for those */
	struct entry entry[RULES][LIMITS][CLIENTS];
	usec_t now;
	struct plan earlier[EARLIER]; /* of the call before */
	unsigned earlier_n;
};

static const struct window windows[] = {
	{ WINDOW_LENGTH, USEC_PER_SEC },
	{ WINDOW_LENGTH, 1500 * USEC_PER_MSEC },
	{ WINDOW_LENGTH, 7 * USEC_PER_SEC + 1 },
	{ WINDOW_LENGTH, 60 * USEC_PER_SEC },
	{ WINDOW_LENGTH, 90 * USEC_PER_SEC },
	{ WINDOW_LENGTH, 3600 * USEC_PER_SEC },
	{ WINDOW_LENGTH, USEC_PER_DAY },
	{ WINDOW_LENGTH, 366 * USEC_PER_DAY },
	{ WINDOW_WEEK, 7 * USEC_PER_DAY },
	/* fixed windows only */
	{ WINDOW_MONTH, 30 * USEC_PER_DAY },
	{ WINDOW_FROM_FIRST, 6 * USEC_PER_SEC },
	{ WINDOW_FROM_FIRST, 3600 * USEC_PER_SEC },
};
enum { WINDOWS = sizeof windows / sizeof *windows };

static struct quota random_quota(struct chance *c, enum algorithm algorithm, struct window w)
{
	struct quota q = { .algorithm = algorithm, .window = w };

	q.units = one_in(c, 20) ? 0 : one_in(c, 2) ? between(c, 1, 20) : magnitude(c, 1000000000);
	q.capacity = q.units;
	if (algorithm == ALGORITHM_TOKEN_BUCKET && q.units && one_in(c, 2))
		q.capacity = magnitude(c, one_in(c, 2) ? 50 : 1000000000);
	return q;
}

static void slowest(struct limit *l, const struct quota *q)
{
	double interval = q->units ? (double)q->window.length / (double)q->units : 0;
	double refill = interval * (double)q->capacity;
	if (l->slowest_interval < interval)
		l->slowest_interval = interval;
	if (l->slowest_refill < refill)
		l->slowest_refill = refill;
}

/* Also rules that share the counters of the one before: the same key twice in a plan. */
static void random_rule(struct world *w, unsigned r)
{
	struct chance *c = &w->chance;
	struct rule *rule = &w->rule[r];
	bool twin = r > 0 && one_in(c, 6);
	unsigned window = (unsigned)between(c, 0, WINDOWS - 1);

	rule->algorithm = twin            ? w->rule[r - 1].algorithm
			  : w->all_tokens ? ALGORITHM_TOKEN_BUCKET
					  : (enum algorithm)between(c, 0, 2);
	rule->mode = one_in(c, 4) ? MODE_SHADOW : MODE_ENFORCE;
	rule->action = one_in(c, 5) ? ACTION_TAG : ACTION_DENY;
	rule->count_denied = one_in(c, 3);
	w->limits[r] = twin ? w->limits[r - 1] : (unsigned)between(c, 1, LIMITS);
	for (unsigned i = 0; i < w->limits[r]; i++) {
		struct window as = windows[(window + i) % WINDOWS];
		if (twin)
			as = w->limit[r - 1][0][i].quota.window;
		else if (as.kind >= WINDOW_MONTH && rule->algorithm != ALGORITHM_FIXED_WINDOW)
			as = windows[0];
		for (unsigned t = 0; t < TIERS; t++) {
			struct limit *l = &w->limit[r][t][i];
			l->rule = rule;
			l->quota = random_quota(c, rule->algorithm, as);
		}
		for (unsigned t = 0; t < TIERS; t++)
			for (unsigned other = 0; other < TIERS; other++)
				slowest(&w->limit[r][t][i], &w->limit[r][other][i].quota);
		for (unsigned k = 0; k < CLIENTS; k++) {
			struct entry *e = &w->entry[r][i][k];
			e->key = twin ? w->entry[r - 1][i][k].key
				      : (struct key){ draw(c), draw(c) };
			e->algorithm = rule->algorithm;
		}
	}
}

static void random_world(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof *w);
	w->chance.state = seed * UINT64_C(0x2545f4914f6cdd1d);
	w->now = ORIGIN + between(&w->chance, 0, 400 * USEC_PER_DAY);
	w->rules = (unsigned)between(&w->chance, 1, RULES);
	w->all_cost_1 = one_in(&w->chance, 2);
	w->one_tier = one_in(&w->chance, 2);
	w->all_tokens = one_in(&w->chance, 2);
	for (unsigned r = 0; r < w->rules; r++)
		random_rule(w, r);
}

static void time_moves(struct world *w)
{
	static const usec_t lengths[] = { 1, 1000, USEC_PER_SEC, 20 * USEC_PER_SEC,
		300 * USEC_PER_SEC, 7200 * USEC_PER_SEC, 3 * USEC_PER_DAY, 70 * USEC_PER_DAY,
		20 * YEAR };
	struct chance *c = &w->chance;

	if (one_in(c, 4))
		return;
	usec_t by = between(c, 0, lengths[between(c, 0, 8)]);
	w->now += one_in(c, 4) ? -by : by;
	if (one_in(c, 6)) {
		/* To where a window begins, or just before. */
		const struct window *as = &windows[between(c, 0, WINDOWS - 1)];
		usec_t start, end;
		window_bounds(as, w->now, &start, &end);
		w->now = start - between(c, 0, 1);
	}
	if (w->now < -60 * YEAR || w->now > 140 * YEAR)
		w->now = ORIGIN;
}

static struct entry *entry_of(struct world *w, const struct key *k)
{
	/* A twin's entries are those of the rule before it: the first one found. */
	for (unsigned r = 0; r < w->rules; r++)
		for (unsigned i = 0; i < w->limits[r]; i++)
			for (unsigned n = 0; n < CLIENTS; n++)
				if (w->entry[r][i][n].key.a == k->a &&
					w->entry[r][i][n].key.b == k->b)
					return &w->entry[r][i][n];
	abort();
}

/* --- Requests --- */

static int64_t random_cost(struct chance *c, const struct quota *q)
{
	switch (between(c, 0, 9)) {
	case 0:
		return 0;
	case 1:
		return between(c, 0, q->capacity + 2);
	case 2:
		return one_in(c, 3) ? INT64_MAX - between(c, 0, 1) : magnitude(c, INT64_C(1) << 40);
	case 3:
	case 4:
		return between(c, 1, q->capacity / 2 + 1);
	default:
		return 1;
	}
}

static void random_plan(struct world *w, struct plan *p)
{
	struct chance *c = &w->chance;
	unsigned tier = w->one_tier ? 0 : (unsigned)between(c, 0, TIERS - 1);
	unsigned client = (unsigned)between(c, 0, CLIENTS - 1);

	memset(p, 0, sizeof *p);
	for (unsigned r = 0; r < w->rules; r++) {
		if (one_in(c, 4))
			continue;
		int64_t cost = w->all_cost_1 ? 1 : random_cost(c, &w->limit[r][tier][0].quota);
		for (unsigned i = 0; i < w->limits[r]; i++)
			p->take[p->n++] = (struct take){ .limit = &w->limit[r][tier][i],
				.key = w->entry[r][i][client].key,
				.cost = cost };
	}
}

static bool same_bits(const void *a, const void *b, size_t n)
{
	return memcmp(a, b, n) == 0;
}

/* What the model says, and what came back by way of Redis. */
static void compare_plans(const struct plan *want, const struct plan *got)
{
	hold(want->denied == got->denied, "denied %d, want %d", got->denied, want->denied);
	for (unsigned i = 0; i < want->n; i++) {
		const struct verdict *a = &want->take[i].verdict, *b = &got->take[i].verdict;
		hold(a->admits == b->admits && a->oversize == b->oversize &&
				a->charged == b->charged && a->retry_after == b->retry_after &&
				same_bits(&a->left, &b->left, sizeof a->left) &&
				same_bits(&a->state, &b->state, sizeof a->state),
			"take %u of %u: another verdict than C's", i, want->n);
	}
}

/* The bytes of a bucket, and of what is out: this machine's own, which is little-endian. */
static_assert(sizeof(struct bucket) == REDIS_BUCKET_BYTES, "as it lies in Redis");
static_assert(sizeof(struct leased) == REDIS_BUCKET_BYTES + REDIS_OUT_BYTES, "as it lies in Redis");

static struct now now_of(const struct world *w)
{
	return (struct now){ .steady = w->now, .utc = w->now };
}

/* false: never seen. */
static bool model_read(
	const struct world *w, const struct entry *e, const struct quota *q, struct leased *state)
{
	static const struct bucket zero;

	memset(state, 0, sizeof *state);
	if (!e->is_bucket)
		return false;
	memcpy(state, e->bytes, sizeof *state);
	*state = lease_read(q, state, now_of(w));
	return !same_bits(&state->bucket, &zero, sizeof zero);
}

static uint64_t lives, stays;

static void model_keeps(struct entry *e, const struct limit *l, const struct leased *state)
{
	e->charged = l;
	e->state = *state;
	e->is_there = e->is_bucket = true;
	e->n = REDIS_VALUE_BYTES;
	memcpy(e->bytes, state, sizeof *state);
}

static void model_charges(struct world *w, struct plan *p,
	void (*how)(struct plan *, const struct bucket *const[], struct now))
{
	const struct bucket *stored[PLAN_MAX];
	struct leased state[PLAN_MAX];

	for (unsigned i = 0; i < p->n; i++) {
		const struct take *t = &p->take[i];
		bool seen = model_read(w, entry_of(w, &t->key), &t->limit->quota, &state[i]);
		stored[i] = seen ? &state[i].bucket : NULL;
	}
	how(p, stored, now_of(w));
	for (unsigned i = 0; i < p->n; i++) {
		const struct take *t = &p->take[i];
		if (!t->verdict.charged)
			continue;
		state[i].bucket = t->verdict.state;
		model_keeps(entry_of(w, &t->key), t->limit, &state[i]);
	}
}

/* --- Blocks --- */

/* What an agent might say of a block: that it is one which is out, or anything. */
static void random_ask(struct world *w, struct ledger_ask *a)
{
	struct chance *c = &w->chance;
	unsigned r = (unsigned)between(c, 0, w->rules - 1);
	unsigned i = (unsigned)between(c, 0, w->limits[r] - 1);
	const struct limit *l = &w->limit[r][between(c, 0, TIERS - 1)][i];
	const struct entry *e = entry_of(w, &w->entry[r][i][between(c, 0, CLIENTS - 1)].key);
	struct leased there;

	(void)model_read(w, e, &l->quota, &there);
	*a = (struct ledger_ask){ .key = e->key,
		.quota = l->quota,
		.slowest_interval = l->slowest_interval,
		.slowest_refill = l->slowest_refill };
	if (!one_in(c, 4))
		a->ask.want = (uint32_t)magnitude(c, one_in(c, 2) ? 20 : UINT32_MAX);
	if (one_in(c, 3))
		return;
	uint32_t out = one_in(c, 2) ? there.fresh : there.stale;
	a->ask.mark = lease_mark(&l->quota, &there, now_of(w)) - between(c, 0, 2);
	a->ask.done = (uint32_t)(one_in(c, 4) ? magnitude(c, UINT32_MAX) : between(c, 0, out + 1));
	a->ask.back = (uint32_t)between(c, 0, a->ask.done);
	if (!e->is_bucket || l->quota.algorithm == ALGORITHM_TOKEN_BUCKET)
		return;
	a->ask.mark = there.bucket.at + (one_in(c, 4) ? between(c, -1, 1) : 0);
	a->ask.done = (uint32_t)between(c, 1, (int64_t)there.bucket.current + 1);
	a->ask.back = (uint32_t)between(c, 0, a->ask.done);
}

static bool is_known(
	const struct lease_ask *ask, const struct quota *q, const struct leased *l, struct now now)
{
	int64_t mark = lease_mark(q, l, now);

	if (ask->done == 0)
		return false;
	if (q->algorithm != ALGORITHM_TOKEN_BUCKET)
		return ask->mark == mark;
	return (ask->mark == mark && ask->done <= l->fresh) ||
	       (ask->mark == mark - 1 && ask->done <= l->stale);
}

static uint64_t asks, grants, reports;

static uint32_t model_grants(struct world *w, const struct ledger_ask *a, struct leased *state)
{
	static struct limit kept[REDIS_CALL_ASKS];
	static unsigned kept_n;
	struct entry *e = entry_of(w, &a->key);
	struct leased stored;

	(void)model_read(w, e, &a->quota, &stored);
	uint32_t granted = lease_apply(&a->quota, &stored, &a->ask, now_of(w), state);
	stored.bucket = bucket_read(&a->quota, &stored.bucket, now_of(w));
	bool known = is_known(&a->ask, &a->quota, &stored, now_of(w));
	asks++;
	grants += granted > 0;
	reports += known;
	if (granted || known) {
		struct limit *l = &kept[kept_n++ % REDIS_CALL_ASKS];
		*l = (struct limit){ .quota = a->quota,
			.slowest_interval = a->slowest_interval,
			.slowest_refill = a->slowest_refill };
		model_keeps(e, l, state);
	}
	return granted;
}

/* --- What is in Redis --- */

static redisReply *next_reply(struct redis_server *s)
{
	void *reply = NULL;
	if (redisGetReply(s->redis, &reply) != REDIS_OK) {
		fprintf(stderr, "redis: %s\n", s->redis->errstr);
		exit(2);
	}
	return reply;
}

static void command(struct redis_server *s, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	redisReply *reply = redisvCommand(s->redis, format, args);
	va_end(args);
	if (!reply || reply->type == REDIS_REPLY_ERROR) {
		fprintf(stderr, "redis: %s\n", reply ? reply->str : s->redis->errstr);
		exit(2);
	}
	freeReplyObject(reply);
}

static uint32_t until_of(const uint8_t *value)
{
	uint32_t until;
	memcpy(&until, value + sizeof(struct leased), sizeof until);
	return until;
}

static uint32_t seconds_of(usec_t t)
{
	return (uint32_t)(t / USEC_PER_SEC - (t % USEC_PER_SEC < 0));
}

/* It was given a new life of `ms` (true), or has the one that it had; which one of them, it says
 * itself. */
static bool follow_life(struct entry *e, usec_t now, usec_t keep, int64_t ms, uint32_t until)
{
	bool tokens = e->charged->quota.algorithm == ALGORITHM_TOKEN_BUCKET;
	usec_t out = e->state.fresh | e->state.stale ? 2 * LEASE_LIFE : 0;
	int64_t least = (keep + 999) / 1000;
	int64_t wanted = (keep + (tokens ? (keep - out) / 4 : 0) + 999) / 1000 + 1;

	/* (C counts whole microseconds, the script does so last.) */
	if (until == seconds_of(now + (ms - 1) * 1000) && llabs(ms - wanted) <= 1) {
		e->life_ms = ms;
		e->gone_at = now + ms * 1000;
		lives++;
		return true;
	}
	stays++;
	hold(until == until_of(e->bytes) && ms == e->life_ms,
		"lives %" PRId64 " ms until %u; %" PRId64 " ms were wanted at least", ms, until,
		least);
	usec_t left = e->gone_at - now;
	hold(left >= keep && left <= 2 * keep - out,
		"has %" PRId64 " us left of its life, wanted %" PRId64, left, keep);
	return false;
}

/* How long a bucket has to be there, at least and at most: from what it is, not from
 * limit_keep_for(). */
static void check_life(struct entry *e, usec_t now, int64_t ms, uint32_t until)
{
	const struct quota *q = &e->charged->quota;
	const struct bucket *b = &e->state.bucket;
	usec_t least = 0, most = 0, out = 0, start, end;

	switch (q->algorithm) {
	case ALGORITHM_TOKEN_BUCKET: {
		/* Of what rounding admitted beyond the capacity nothing is owed. */
		double used = fmin(b->used, (double)q->capacity);
		double full = used > 0 ? used * (double)q->window.length / (double)q->units : 0;
		least = full > (double)(2 * YEAR) ? 2 * YEAR : (usec_t)full;
		double slow = e->charged->slowest_refill;
		most = 2 * (slow > (double)(2 * YEAR) ? 2 * YEAR : (usec_t)slow + 1);
		/* What is out may be so for two turns, and drains then. */
		if (e->state.fresh | e->state.stale)
			out = 2 * LEASE_LIFE;
		break;
	}
	case ALGORITHM_SLIDING_WINDOW:
		least = b->current ? q->window.length : 0;
		most = 2 * q->window.length + USEC_PER_SEC;
		break;
	case ALGORITHM_FIXED_WINDOW:
		window_bounds(&q->window, q->window.kind == WINDOW_FROM_FIRST ? b->at : now, &start,
			&end);
		least = b->current && b->at == start ? end - now : 0;
		most = 2 * q->window.length + USEC_PER_SEC;
		break;
	}
	least += out;
	usec_t keep = out +
		      limit_keep_for(e->charged, b, (struct now){ .steady = now, .utc = now });
	bool is_new = follow_life(e, now, keep, ms, until);
	usec_t left = e->gone_at - now;
	hold(left >= least - 1, "lives %" PRId64 " us, and is full after %" PRId64, left, least);
	/* Twice the window or the time to refill, in milliseconds that are rounded up twice. (The
	 * clock may have gone back since one was given.) */
	hold(!is_new || left <= most + out + 2000, "lives %" PRId64 " us, at most wanted %" PRId64,
		left, most + out);
}

/* Every key of the call: written as the model says, or as it was. */
static void check_values(struct world *w, struct waiting_store *s)
{
	const struct redis_args *call = &s->args;
	size_t n = call->key_bytes;

	if (!call->key_n)
		return;
	for (unsigned i = 0; i < call->key_n; i++) {
		redisAppendCommand(s->server->redis, "MGET %b", call->keys[i], n);
		redisAppendCommand(s->server->redis, "PTTL %b", call->keys[i], n);
	}
	for (unsigned i = 0; i < call->key_n; i++) {
		struct entry *e = entry_of(w, &call->key[i]);
		redisReply *value = next_reply(s->server), *life = next_reply(s->server);
		const redisReply *v = value->elements == 1 ? value->element[0] : value;
		if (!e->is_there || e->n < 0)
			hold(v->type == REDIS_REPLY_NIL, "a key that is not to be there");
		else if (hold(v->type == REDIS_REPLY_STRING && v->len == (size_t)e->n,
				 "no value of %d bytes", e->n))
			hold(same_bits(
				     v->str, e->bytes, e->charged ? sizeof(struct leased) : v->len),
				"other bytes than C keeps");
		if (e->charged && v->type == REDIS_REPLY_STRING && v->len == REDIS_VALUE_BYTES) {
			const uint8_t *bytes = (const uint8_t *)v->str;
			check_life(e, w->now, (life->integer + REDIS_STRETCH - 1) / REDIS_STRETCH,
				until_of(bytes));
			memcpy(e->bytes, bytes, REDIS_VALUE_BYTES);
		}
		e->charged = NULL;
		freeReplyObject(value);
		freeReplyObject(life);
	}
}

static void put(struct waiting_store *s, const struct entry *e)
{
	/* A call that takes it says what it is called. */
	static struct redis_call call;
	static struct redis_args args;
	struct rule rule = { 0 };
	struct limit limit = { .rule = &rule };
	struct plan plan = { .n = 1, .take = { { .limit = &limit, .key = e->key } } };

	redis_call_clear(&call);
	redis_call_add(&call, &plan);
	redis_call_args(&call, &args, s->prefix, s->sha, NULL);
	command(s->server, "DEL %b", args.argv[3], args.bytes[3]);
	if (e->n < 0)
		command(s->server, "RPUSH %b x", args.argv[3], args.bytes[3]);
	else
		command(s->server, "SET %b %b", args.argv[3], args.bytes[3], e->bytes,
			(size_t)e->n);
}

/* Somebody else writes there: what is no bucket counts as never seen, and any that is one is read
 * as C reads it. */
static void someone_meddles(struct world *w, struct waiting_store *s)
{
	struct chance *c = &w->chance;
	unsigned r = (unsigned)between(c, 0, w->rules - 1);
	unsigned i = (unsigned)between(c, 0, w->limits[r] - 1);
	struct entry *e = entry_of(w, &w->entry[r][i][between(c, 0, CLIENTS - 1)].key);
	bool tokens = e->algorithm == ALGORITHM_TOKEN_BUCKET;
	double used = (double)between(c, 0, INT64_C(1) << 52) / (double)(draw(c) % 1000 + 1);
	int64_t at = between(c, -(INT64_C(1) << 52), INT64_C(1) << 52);

	for (size_t k = 0; k < sizeof e->bytes; k++)
		e->bytes[k] = (uint8_t)draw(c);
	memset(e->bytes + REDIS_BUCKET_BYTES, 0, REDIS_OUT_BYTES);
	/* Whoever else writes gives it no life: it must not say that it has one. */
	memset(e->bytes + sizeof(struct leased), one_in(c, 2) ? 0 : 0xff, sizeof(uint32_t));
	e->n = REDIS_VALUE_BYTES;
	e->is_there = true;
	e->is_bucket = false;
	switch (w->all_tokens && one_in(c, 2) ? 9 : between(c, 0, 9)) {
	case 0:
		e->n = -1;
		break;
	case 8:
		/* Blocks are out. Of a window, none ever is: this is no bucket then. */
		e->is_bucket = tokens;
		at = w->now + between(c, -3 * LEASE_LIFE, LEASE_LIFE);
		memcpy(e->bytes, &used, sizeof used);
		memcpy(e->bytes + 8, &at, sizeof at);
		for (unsigned k = 0; k < 2; k++) {
			uint32_t out = (uint32_t)magnitude(c, one_in(c, 2) ? 10 : UINT32_MAX);
			memcpy(e->bytes + 16 + 4 * k, &out, sizeof out);
		}
		break;
	case 1:
		do
			e->n = (int)between(c, 0, sizeof e->bytes);
		while (e->n == REDIS_VALUE_BYTES);
		break;
	case 2:
		if (tokens) {
			static const double none[] = { -1e-300, 1e300, 4503599627370497., 0. / 0.,
				1. / 0., -1. / 0. };
			memcpy(e->bytes, &none[between(c, 0, 5)], sizeof *none);
			memcpy(e->bytes + 8, &at, sizeof at);
			break;
		}
		/* fall through */
	case 3: {
		static const int64_t none[] = { INT64_MIN, INT64_MAX, -(INT64_C(1) << 52) - 1,
			(INT64_C(1) << 52) + 1, INT64_C(1) << 60 };
		memcpy(e->bytes, &used, sizeof used);
		memcpy(e->bytes + 8, &none[between(c, 0, 4)], sizeof *none);
		break;
	}
	case 4: {
		/* What is left is whole, but for about as much as rounding may admit. */
		int64_t capacity = w->limit[r][between(c, 0, TIERS - 1)][i].quota.capacity;
		used = (double)(capacity - between(c, 0, capacity < 9 ? capacity : 9)) +
		       (double)between(c, 0, 10) * 1e-7;
		at = w->now;
		e->is_bucket = true;
		if (tokens)
			memcpy(e->bytes, &used, sizeof used);
		memcpy(e->bytes + 8, &at, sizeof at);
		break;
	}
	case 9: {
		/* More than its capacity, which was lowered since, and a part of the time to refill
		 * ago. */
		const struct quota *q = &w->limit[r][between(c, 0, TIERS - 1)][i].quota;
		used = (double)q->capacity + (double)between(c, 0, 128) / 64;
		at = w->now -
		     between(c, 0, q->window.length / (q->units ? (int64_t)q->units : 1) * 4);
		e->is_bucket = true;
		if (tokens)
			memcpy(e->bytes, &used, sizeof used);
		memcpy(e->bytes + 8, &at, sizeof at);
		break;
	}
	case 5:
		at = w->now + between(c, -2 * USEC_PER_SEC, 2 * USEC_PER_SEC);
		/* fall through */
	default:
		e->is_bucket = true;
		if (tokens)
			memcpy(e->bytes, &used, sizeof used);
		memcpy(e->bytes + 8, &at, sizeof at);
	}
	put(s, e);
}

/* --- --- */

static uint64_t calls, sums, sums_admitted, requests, takes, charges, denials, refunds;

/* Some of what was charged before is refunded, or was denied elsewhere; with a charge that is made
 * up now and then. */
static void random_afters(struct world *w, struct waiting_store *s, unsigned room)
{
	static struct plan after;
	struct chance *c = &w->chance;

	for (unsigned i = 0; i < w->earlier_n && s->after_n < WAITING_AFTERS; i++) {
		const struct plan *p = &w->earlier[i];
		bool refund = one_in(c, 2);
		if (one_in(c, 2) || !(refund ? split_refund : split_charge)(p, &after) ||
			after.n > room)
			continue;
		if (refund && one_in(c, 4)) {
			struct verdict *v = &after.take[between(c, 0, after.n - 1)].verdict;
			v->state.at += between(c, -USEC_PER_SEC, USEC_PER_SEC);
		}
		s->after[s->after_n++] = redis_after_new(&after);
		room -= after.n;
		model_charges(w, &after, refund ? split_take_back : plan_charge);
		for (unsigned k = 0; k < after.n; k++)
			(*(refund ? &refunds : &charges)) += after.take[k].verdict.charged;
	}
}

static void run_call(struct world *w, struct waiting_store *s)
{
	static struct plan plan[REDIS_CALL_PLANS], want[REDIS_CALL_PLANS];
	struct plan *list[REDIS_CALL_PLANS] = { 0 };
	unsigned n = (unsigned)between(&w->chance, 0, one_in(&w->chance, 10) ? 64 : 6), room;
	static struct ledger_ask ask[REDIS_CALL_ASKS];
	struct leased left[REDIS_CALL_ASKS];
	uint32_t granted[REDIS_CALL_ASKS];
	unsigned ask_n = one_in(&w->chance, 2) ? (unsigned)between(&w->chance, 1, 6) : 0;

	room = REDIS_CALL_TAKES;
	for (unsigned i = 0; i < n; i++) {
		random_plan(w, &plan[i]);
		if (plan[i].n > room) {
			n = i;
			break;
		}
		room -= plan[i].n;
		list[i] = &plan[i];
		want[i] = plan[i];
		model_charges(w, &want[i], plan_charge);
	}
	ask_n = ask_n < room ? ask_n : room;
	random_afters(w, s, room - ask_n);
	for (unsigned i = 0; i < ask_n; i++) {
		random_ask(w, &ask[i]);
		granted[i] = model_grants(w, &ask[i], &left[i]);
	}
	calls++;
	uint64_t before = denials;
	if (!hold(waiting_store_take(s, list, n, ask, ask_n, w->now), "no good reply"))
		return;
	for (unsigned i = 0; i < ask_n; i++)
		hold(s->call.ask[i].granted == granted[i] &&
				same_bits(&s->call.ask[i].state, &left[i], sizeof left[i]),
			"ask %u of %u: %u units granted, C grants %u", i, ask_n,
			s->call.ask[i].granted, granted[i]);
	for (unsigned i = 0; i < n; i++) {
		requests++;
		takes += plan[i].n;
		denials += want[i].denied;
		for (unsigned k = 0; k < want[i].n; k++)
			charges += want[i].take[k].verdict.charged;
		hold(plan[i].now.steady == w->now && plan[i].now.utc == w->now && !plan[i].now.held,
			"another instant");
		compare_plans(&want[i], &plan[i]);
	}
	if (!s->args.one_by_one && n) {
		sums++;
		sums_admitted += denials == before;
	}
	check_values(w, s);
	w->earlier_n = n < EARLIER ? n : EARLIER;
	memcpy(w->earlier, want, w->earlier_n * sizeof want[0]);
}

static void run_seed(struct waiting_store *s, uint64_t seed)
{
	static struct world w;
	long long there = 0;

	seed_now = seed;
	random_world(&w, seed);
	command(s->server, "FLUSHALL");
	for (unsigned i = 0; i < CALLS && !failures; i++) {
		time_moves(&w);
		if (one_in(&w.chance, w.all_tokens ? 2 : 5))
			someone_meddles(&w, s);
		run_call(&w, s);
	}
	for (unsigned r = 0; r < w.rules; r++)
		for (unsigned i = 0; i < w.limits[r]; i++)
			for (unsigned k = 0; k < CLIENTS; k++)
				there += w.entry[r][i][k].is_there;
	redisReply *size = redisCommand(s->server->redis, "DBSIZE");
	hold(size && size->integer == there, "%lld keys, want %lld", size ? size->integer : -1,
		there);
	freeReplyObject(size);
}

/* As in production: the script as it is, by the server's clock, and keys that live as long as they
 * say. */
static void by_the_servers_clock(struct redis_server *server)
{
	static struct redis_call call;
	static struct redis_args args;
	static struct plan plan;
	struct rule rule = { 0 };
	struct limit limit = { .rule = &rule,
		.quota = { ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, 3600 * USEC_PER_SEC }, 60, 60 },
		.slowest_interval = 60e6,
		.slowest_refill = 3600e6 };
	char sha[41];
	usec_t before = clock_read().utc;

	seed_now = 0;
	command(server, "FLUSHALL");
	redis_server_load(server, false, sha);
	redis_call_clear(&call);
	plan.n = 1;
	plan.take[0] = (struct take){ .limit = &limit, .key = { 1, 2 }, .cost = 10 };
	redis_call_add(&call, &plan);
	redis_call_args(&call, &args, "rl:", sha, NULL);
	redisReply *reply = redis_server_ask(server, args.n, args.argv, args.bytes);
	usec_t after = clock_read().utc;
	if (hold(reply->type == REDIS_REPLY_STRING &&
			    redis_call_read(&call, reply->str, reply->len),
		    "no good reply"))
		hold(plan.now.utc >= before && plan.now.utc <= after,
			"the server's time is not now");
	freeReplyObject(reply);
	/* A quarter more than the 600 s that it takes to refill; and as long as that is enough, the
	 * life that it has is left to it. */
	static const int64_t costs[] = { 0, 1, 1, 20 }, least[] = { 700, 700, 700, 1900 },
			     most[] = { 750, 750, 750, 2400 };
	for (unsigned i = 0; i < 4; i++) {
		plan.take[0].cost = costs[i];
		redis_call_args(&call, &args, "rl:", sha, NULL);
		freeReplyObject(redis_server_ask(server, args.n, args.argv, args.bytes));
		reply = redisCommand(server->redis, "PTTL %b", args.argv[3], args.bytes[3]);
		hold(reply && reply->integer <= most[i] * 1000 + 1 &&
				reply->integer > least[i] * 1000,
			"lives %lld ms, want up to %" PRId64 " s", reply ? reply->integer : -1,
			most[i]);
		freeReplyObject(reply);
	}
}

int main(int argc, char **argv)
{
	static struct redis_server server;
	static struct waiting_store store;
	uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : SEEDS;

	redis_server_start(&server);
	waiting_store_init(&store, &server, "rl:");
	for (uint64_t i = 0; i < count && !failures; i++)
		run_seed(&store, first + i);
	by_the_servers_clock(&server);
	printf("%" PRIu64 " calls (%" PRIu64 " in sum, %" PRIu64 " with no denial), %" PRIu64
	       " requests (%" PRIu64 " denied), %" PRIu64 " takes (%" PRIu64 " charged, %" PRIu64
	       " refunded), %" PRIu64 " asks for a block (%" PRIu64 " granted; of %" PRIu64
	       " blocks it was heard), %" PRIu64 " lives given, %" PRIu64 " left, %u failures\n",
		calls, sums, sums_admitted, requests, denials, takes, charges, refunds, asks,
		grants, reports, lives, stays, failures);
	redis_server_stop(&server);
	return failures != 0;
}
