#include "store/redis_call.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static_assert(REDIS_CALL_TAKES <= 256, "their places are bytes");
static_assert((int)REDIS_CALL_TAKES >= (int)PLAN_MAX, "one plan always fits");

enum { FIRST_OF_RULE = 1, LAST_OF_REQUEST = 2, ASKS = 4 };

/* ---- bytes: little-endian, on any machine ---- */

static uint8_t *put_u32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		*p++ = (uint8_t)(v >> 8 * i);
	return p;
}

static uint8_t *put_u64(uint8_t *p, uint64_t v)
{
	for (unsigned i = 0; i < 8; i++)
		*p++ = (uint8_t)(v >> 8 * i);
	return p;
}

static uint8_t *put_double(uint8_t *p, double d)
{
	uint64_t v;
	memcpy(&v, &d, sizeof v);
	return put_u64(p, v);
}

static uint64_t get_u64(const uint8_t *p)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < 8; i++)
		v |= (uint64_t)p[i] << 8 * i;
	return v;
}

/* ---- what a call holds ---- */

void redis_call_clear(struct redis_call *c)
{
	c->plan_n = c->take_n = c->key_n = c->limit_n = c->ask_n = 0;
	memset(c->key_at, 0, sizeof c->key_at);
	memset(c->limit_at, 0, sizeof c->limit_at);
}

static bool enforces(const struct rule *r)
{
	return r->mode == MODE_ENFORCE && r->action == ACTION_DENY;
}

/* "<BBBBI4I4ddd" */
static void put_limit(struct redis_call *c, const struct quota *q, const struct rule *r,
	double slowest_interval, double slowest_refill)
{
	uint8_t *p = c->limits + (size_t)c->limit_n++ * REDIS_LIMIT_BYTES;

	*p++ = (uint8_t)q->algorithm;
	*p++ = (uint8_t)q->window.kind;
	*p++ = r && enforces(r);
	*p++ = r && r->count_denied;
	p = put_u32(p, (uint32_t)q->units);
	p = put_u32(p, (uint32_t)q->capacity);
	p = put_double(p, (double)q->window.length);
	p = put_double(p, slowest_interval);
	(void)put_double(p, slowest_refill);
}

/* Where it is among those that differ, added if new. As many places as twice what can come, so a
 * search ends. */
static unsigned limit_place(struct redis_call *c, const struct limit *l)
{
	unsigned at = (unsigned)((uintptr_t)l * UINT64_C(0x9e3779b97f4a7c15) >> 32);

	for (;; at++) {
		uint16_t *place = &c->limit_at[at % (2 * REDIS_CALL_TAKES)];
		if (*place == 0) {
			c->limit[c->limit_n] = l;
			put_limit(c, &l->quota, l->rule, l->slowest_interval, l->slowest_refill);
			*place = (uint16_t)c->limit_n;
		}
		if (c->limit[*place - 1] == l)
			return *place - 1;
	}
}

static unsigned key_place(struct redis_call *c, const struct key *k)
{
	for (unsigned at = (unsigned)k->a;; at++) {
		uint16_t *place = &c->key_at[at % (2 * REDIS_CALL_TAKES)];
		if (*place == 0) {
			c->key[c->key_n++] = *k;
			*place = (uint16_t)c->key_n;
		}
		const struct key *found = &c->key[*place - 1];
		if (found->a == k->a && found->b == k->b)
			return *place - 1;
	}
}

/* "<BBBI4". A cost that is more than any capacity needs no more than to stay so. */
static void put_take(
	struct redis_call *c, const struct key *key, unsigned limit, unsigned flags, int64_t cost)
{
	uint8_t *p = c->takes + (size_t)c->take_n++ * REDIS_TAKE_BYTES;

	*p++ = (uint8_t)key_place(c, key);
	*p++ = (uint8_t)limit;
	*p++ = (uint8_t)flags;
	(void)put_u32(p, cost > UINT32_MAX ? UINT32_MAX : (uint32_t)cost);
}

bool redis_call_add(struct redis_call *c, struct plan *plan)
{
	assert(plan->n <= PLAN_MAX);
	if (c->plan_n == REDIS_CALL_PLANS || c->ask_n || plan->n > REDIS_CALL_TAKES - c->take_n)
		return false;
	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		unsigned flags = 0;
		if (i == 0 || t->limit->rule != t[-1].limit->rule)
			flags |= FIRST_OF_RULE;
		if (i == plan->n - 1)
			flags |= LAST_OF_REQUEST;
		put_take(c, &t->key, limit_place(c, t->limit), flags, t->cost);
	}
	c->plan_takes[c->plan_n] = (uint8_t)plan->n;
	c->plan[c->plan_n++] = plan;
	return true;
}

bool redis_call_ask(struct redis_call *c, const struct ledger_ask *a)
{
	if (c->ask_n == REDIS_CALL_ASKS || c->take_n == REDIS_CALL_TAKES)
		return false;
	uint8_t *p = c->asks + (size_t)c->ask_n * REDIS_ASK_BYTES;
	p = put_u32(p, a->ask.done);
	p = put_u32(p, a->ask.back);
	(void)put_u64(p, (uint64_t)a->ask.mark);
	c->limit[c->limit_n] = NULL; /* it is not to be found: its policy may go */
	put_take(c, &a->key, c->limit_n, ASKS, a->ask.want);
	put_limit(c, &a->quota, NULL, a->slowest_interval, a->slowest_refill);
	c->ask[c->ask_n++].asked = *a;
	return true;
}

/* ---- arguments ---- */

/* Base64url, 16 bytes to 22 characters. */
static char *put_key(char *out, const struct key *k)
{
	static const char digit[64] = { "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
					"0123456789-_" };
	uint8_t bytes[18] = { 0 };

	(void)put_u64(put_u64(bytes, k->a), k->b);
	for (unsigned i = 0; i < 22; i++) {
		unsigned bit = 6 * i;
		unsigned two = (unsigned)bytes[bit / 8] << 8 | bytes[bit / 8 + 1];
		*out++ = digit[two >> (10 - bit % 8) & 63];
	}
	return out;
}

unsigned redis_call_args(struct redis_call *c, const char *prefix, const char *sha,
	const usec_t *virtual_now, const char *argv[], size_t argv_bytes[])
{
	size_t prefix_n = strlen(prefix);
	unsigned n = 0;

	assert(prefix_n <= REDIS_PREFIX_MAX);
	(void)snprintf(c->key_count, sizeof c->key_count, "%u", c->key_n);
	c->virtual_now[0] = '\0';
	if (virtual_now)
		(void)snprintf(
			c->virtual_now, sizeof c->virtual_now, "%lld", (long long)*virtual_now);

#define ARG(p, bytes) (argv[n] = (const char *)(p), argv_bytes[n++] = (bytes))
	ARG("EVALSHA", 7);
	ARG(sha, strlen(sha));
	ARG(c->key_count, strlen(c->key_count));
	for (unsigned i = 0; i < c->key_n; i++) {
		char *p = c->keys[i];
		memcpy(p, prefix, prefix_n);
		memcpy(p + prefix_n, "1:", 2);
		ARG(p, (size_t)(put_key(p + prefix_n + 2, &c->key[i]) - p));
	}
	ARG(c->limits, (size_t)c->limit_n * REDIS_LIMIT_BYTES);
	ARG(c->takes, (size_t)c->take_n * REDIS_TAKE_BYTES);
	ARG(c->virtual_now, strlen(c->virtual_now));
	if (c->ask_n)
		ARG(c->asks, (size_t)c->ask_n * REDIS_ASK_BYTES);
#undef ARG
	return n;
}

/* ---- the reply ---- */

/* A bucket as the script sends it: one that it would not take for a bucket is none of its. */
static bool get_bucket(const uint8_t *p, enum algorithm algorithm, struct bucket *b)
{
	uint64_t level = get_u64(p);

	*b = (struct bucket){ .at = (usec_t)get_u64(p + 8) };
	if (b->at < -REDIS_INSTANT_MAX || b->at > REDIS_INSTANT_MAX)
		return false;
	if (algorithm != ALGORITHM_TOKEN_BUCKET) {
		b->current = (uint32_t)level;
		b->previous = (uint32_t)(level >> 32);
		return true;
	}
	memcpy(&b->used, &level, sizeof level);
	return b->used >= 0 && b->used <= (double)REDIS_INSTANT_MAX; /* and not NaN */
}

static bool never_seen(const uint8_t *p)
{
	return (get_u64(p) | get_u64(p + 8)) == 0;
}

static bool reply_holds(const struct redis_call *c, const uint8_t *p)
{
	struct bucket b;
	usec_t now = (usec_t)get_u64(p);

	if (now < -REDIS_INSTANT_MAX || now > REDIS_INSTANT_MAX)
		return false;
	p += 8;
	for (unsigned i = 0; i < c->plan_n; i++) {
		for (unsigned k = 0; c->plan[i] && k < c->plan_takes[i]; k++)
			if (!get_bucket(p + (size_t)k * REDIS_BUCKET_BYTES,
				    c->plan[i]->take[k].limit->quota.algorithm, &b))
				return false;
		p += (size_t)c->plan_takes[i] * REDIS_BUCKET_BYTES;
	}
	for (unsigned i = 0; i < c->ask_n; i++, p += REDIS_BUCKET_BYTES + REDIS_OUT_BYTES)
		if (!get_bucket(p, c->ask[i].asked.quota.algorithm, &b))
			return false;
	return true;
}

/* `p`: the buckets of its takes. */
static void charge(struct plan *plan, const uint8_t *p, struct now now)
{
	struct bucket bucket[PLAN_MAX];
	const struct bucket *stored[PLAN_MAX];

	for (unsigned i = 0; i < plan->n; i++, p += REDIS_BUCKET_BYTES) {
		(void)get_bucket(p, plan->take[i].limit->quota.algorithm, &bucket[i]);
		stored[i] = never_seen(p) ? NULL : &bucket[i];
	}
	plan->now = now;
	plan_charge(plan, stored, now);
}

/* `p`: the bucket, and what is out. */
static void apply(struct redis_ask *a, const uint8_t *p, struct now now)
{
	const struct quota *q = &a->asked.quota;
	struct leased stored;

	(void)get_bucket(p, q->algorithm, &stored.bucket);
	uint64_t out = get_u64(p + REDIS_BUCKET_BYTES);
	stored.fresh = (uint32_t)out;
	stored.stale = (uint32_t)(out >> 32);
	a->granted = lease_apply(q, &stored, &a->asked.ask, now, &a->state);
}

bool redis_call_read(struct redis_call *c, const void *reply, size_t n)
{
	const uint8_t *p = reply;

	if (n != 8 + (size_t)c->take_n * REDIS_BUCKET_BYTES + (size_t)c->ask_n * REDIS_OUT_BYTES ||
		!reply_holds(c, p))
		return false;
	usec_t at = (usec_t)get_u64(p);
	struct now now = { .steady = at, .utc = at };
	c->now = now;
	p += 8;
	for (unsigned i = 0; i < c->plan_n; i++) {
		if (c->plan[i])
			charge(c->plan[i], p, now);
		p += (size_t)c->plan_takes[i] * REDIS_BUCKET_BYTES;
	}
	for (unsigned i = 0; i < c->ask_n; i++, p += REDIS_BUCKET_BYTES + REDIS_OUT_BYTES)
		apply(&c->ask[i], p, now);
	return true;
}
