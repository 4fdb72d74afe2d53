#include "store/redis_call.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static_assert(REDIS_CALL_TAKES <= 256, "their places are bytes");
static_assert((int)REDIS_CALL_TAKES >= (int)PLAN_MAX, "one plan always fits");

enum { FIRST_OF_RULE = 1, LAST_OF_REQUEST = 2, ASKS = 4, REFUND = 8, DENIED = 16 };

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

/* Of its own, to the last byte: the policy that its limits are of may be gone. */
struct after_take {
	struct key key;
	int64_t cost;
	unsigned flags;
	uint8_t limit[REDIS_LIMIT_BYTES];
	usec_t charged_at; /* REFUND */
	char tag[REDIS_TAG_BYTES];
};

struct redis_after {
	struct redis_after *next;
	uint16_t slot; /* of the first */
	unsigned n;
	struct after_take take[];
};

void redis_call_clear(struct redis_call *c)
{
	for (struct redis_after *a; (a = c->after);) {
		c->after = a->next;
		redis_after_free(a);
	}
	c->last_after = NULL;
	c->plan_n = c->take_n = c->after_n = c->after_takes = c->ask_n = 0;
}

bool redis_call_add(struct redis_call *c, struct plan *plan)
{
	assert(plan->n <= PLAN_MAX);
	if (c->plan_n == REDIS_CALL_PLANS || plan->n > REDIS_CALL_TAKES - c->take_n)
		return false;
	c->take_n += plan->n;
	c->plan_takes[c->plan_n] = (uint8_t)plan->n;
	c->plan[c->plan_n++] = plan;
	return true;
}

struct plan *redis_call_take_last(struct redis_call *c)
{
	assert(c->plan_n);
	c->take_n -= c->plan_takes[--c->plan_n];
	return c->plan[c->plan_n];
}

bool redis_call_add_after(struct redis_call *c, struct redis_after *a)
{
	if (a->n > REDIS_CALL_TAKES - c->take_n)
		return false;
	c->take_n += a->n;
	c->after_takes += a->n;
	c->after_n++;
	if (c->last_after)
		c->last_after->next = a;
	else
		c->after = a;
	c->last_after = a;
	return true;
}

bool redis_call_ask(struct redis_call *c, const struct ledger_ask *a)
{
	if (c->ask_n == REDIS_CALL_ASKS || c->take_n == REDIS_CALL_TAKES)
		return false;
	c->take_n++;
	c->ask[c->ask_n++].asked = *a;
	return true;
}

/* ---- limits and takes, as bytes ---- */

static bool enforces(const struct rule *r)
{
	return r->mode == MODE_ENFORCE && r->action == ACTION_DENY;
}

/* "<BBBBI4I4ddd" */
static void put_quota(uint8_t *p, const struct quota *q, const struct rule *r,
	double slowest_interval, double slowest_refill)
{
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

static void put_limit(uint8_t *p, const struct limit *l)
{
	put_quota(p, &l->quota, l->rule, l->slowest_interval, l->slowest_refill);
}

/* Where it is among those that differ, added if new. As many places as twice what can come, so a
 * search ends. */
static unsigned limit_place(struct redis_args *a, const struct limit *l)
{
	unsigned at = (unsigned)((uintptr_t)l * UINT64_C(0x9e3779b97f4a7c15) >> 32);

	for (;; at++) {
		uint16_t *place = &a->limit_at[at % (2 * REDIS_CALL_TAKES)];
		if (*place == 0) {
			put_limit(a->limits + (size_t)a->limit_n * REDIS_LIMIT_BYTES, l);
			a->limit[a->limit_n++] = l;
			*place = (uint16_t)a->limit_n;
		}
		if (a->limit[*place - 1] == l)
			return *place - 1;
	}
}

/* Base64url, 16 bytes to 22 characters. */
static void put_key(char *out, const struct key *k)
{
	uint8_t bytes[18] = { 0 };

	(void)put_u64(put_u64(bytes, k->a), k->b);
	for (unsigned i = 0; i < 22; i++) {
		unsigned bit = 6 * i;
		unsigned two = (unsigned)bytes[bit / 8] << 8 | bytes[bit / 8 + 1];
		*out++ = redis_base64url[two >> (10 - bit % 8) & 63];
	}
}

/* Where a key is; a new one in keys[] wants its tag and its characters. */
static unsigned key_place(struct redis_args *a, const struct key *k, bool *is_new)
{
	for (unsigned at = (unsigned)k->a;; at++) {
		uint16_t *place = &a->key_at[at % (2 * REDIS_CALL_TAKES)];
		*is_new = *place == 0;
		if (*is_new) {
			a->key[a->key_n++] = *k;
			*place = (uint16_t)a->key_n;
		}
		const struct key *found = &a->key[*place - 1];
		if (found->a == k->a && found->b == k->b)
			return *place - 1;
	}
}

/* PREFIX "1:{TAG}" and the key; `tag` is where the tag begins. */
static void key_name(
	char *p, const struct key *k, const char *prefix, size_t prefix_n, const char *tag)
{
	memcpy(p, prefix, prefix_n);
	p += prefix_n;
	memcpy(p, "1:{", 3);
	memcpy(p + 3, tag, REDIS_TAG_BYTES);
	p[3 + REDIS_TAG_BYTES] = '}';
	put_key(p + 4 + REDIS_TAG_BYTES, k);
}

static void put_key_name(
	struct redis_args *a, unsigned place, const char *prefix, size_t prefix_n, const char *tag)
{
	key_name(a->keys[place], &a->key[place], prefix, prefix_n, tag);
}

size_t redis_call_key(const char *prefix, const struct take *t, char out[REDIS_KEY_MAX])
{
	char tag[REDIS_TAG_BYTES];
	size_t n = strlen(prefix);

	assert(n <= REDIS_PREFIX_MAX);
	redis_tag(&t->key, &t->limit->salt, tag);
	key_name(out, &t->key, prefix, n, tag);
	return n + REDIS_KEY_MAX - REDIS_PREFIX_MAX;
}

/* "<BBBI4". A cost that is more than any capacity needs no more than to stay so. */
static void put_take(
	struct redis_args *a, unsigned key, unsigned limit, unsigned flags, int64_t cost)
{
	uint8_t *p = a->takes + (size_t)a->take_n++ * REDIS_TAKE_BYTES;

	*p++ = (uint8_t)key;
	*p++ = (uint8_t)limit;
	*p++ = (uint8_t)flags;
	(void)put_u32(p, cost > UINT32_MAX ? UINT32_MAX : (uint32_t)cost);
}

static uint8_t *put_more(struct redis_args *a)
{
	return a->more + (size_t)a->more_n++ * REDIS_MORE_BYTES;
}

static unsigned flags_of(const struct plan *plan, unsigned i)
{
	const struct take *t = &plan->take[i];
	unsigned flags = 0;

	if (i == 0 || t->limit->rule != t[-1].limit->rule)
		flags |= FIRST_OF_RULE;
	if (i == plan->n - 1)
		flags |= LAST_OF_REQUEST;
	return flags;
}

static void put_plan(
	struct redis_args *a, const struct plan *plan, const char *prefix, size_t prefix_n)
{
	char tag[REDIS_TAG_BYTES];
	bool is_new;

	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		unsigned key = key_place(a, &t->key, &is_new);
		if (is_new) {
			redis_tag(&t->key, &t->limit->salt, tag);
			put_key_name(a, key, prefix, prefix_n, tag);
		}
		put_take(a, key, limit_place(a, t->limit), flags_of(plan, i), t->cost);
	}
}

/* ---- what comes after ---- */

struct redis_after *redis_after_new(const struct plan *plan)
{
	struct redis_after *a = malloc(sizeof *a + plan->n * sizeof a->take[0]);

	if (!a)
		return NULL;
	a->next = NULL;
	a->n = plan->n;
	a->slot = plan->n ? redis_slot(&plan->take[0]) : 0;
	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *from = &plan->take[i];
		struct after_take *to = &a->take[i];
		*to = (struct after_take){ .key = from->key, .cost = from->cost };
		to->flags = flags_of(plan, i) | (plan->closed ? DENIED : REFUND);
		put_limit(to->limit, from->limit);
		to->charged_at = from->verdict.state.at;
		redis_tag(&from->key, &from->limit->salt, to->tag);
	}
	return a;
}

void redis_after_free(struct redis_after *a)
{
	free(a);
}

uint16_t redis_after_slot(const struct redis_after *a)
{
	return a->slot;
}

static void put_after(
	struct redis_args *a, const struct redis_after *after, const char *prefix, size_t prefix_n)
{
	bool is_new;

	for (unsigned i = 0; i < after->n; i++) {
		const struct after_take *t = &after->take[i];
		unsigned key = key_place(a, &t->key, &is_new), limit = a->limit_n++;
		if (is_new)
			put_key_name(a, key, prefix, prefix_n, t->tag);
		a->limit[limit] = NULL;
		memcpy(a->limits + (size_t)limit * REDIS_LIMIT_BYTES, t->limit, REDIS_LIMIT_BYTES);
		put_take(a, key, limit, t->flags, t->cost);
		if (t->flags & REFUND)
			(void)put_u64(put_u64(put_more(a), (uint64_t)t->charged_at), 0);
	}
}

/* ---- blocks that are asked for ---- */

/* Its limit is not to be found by others: its policy may go. */
static void put_ask(
	struct redis_args *args, const struct ledger_ask *a, const char *prefix, size_t prefix_n)
{
	char tag[REDIS_TAG_BYTES];
	bool is_new;
	unsigned key = key_place(args, &a->key, &is_new), limit = args->limit_n++;

	if (is_new) {
		redis_tag(&a->key, &a->salt, tag);
		put_key_name(args, key, prefix, prefix_n, tag);
	}
	args->limit[limit] = NULL;
	put_quota(args->limits + (size_t)limit * REDIS_LIMIT_BYTES, &a->quota, NULL,
		a->slowest_interval, a->slowest_refill);
	put_take(args, key, limit, ASKS, a->ask.want);
	uint8_t *p = put_more(args);
	p = put_u32(p, a->ask.done);
	p = put_u32(p, a->ask.back);
	(void)put_u64(p, (uint64_t)a->ask.mark);
}

/* ---- arguments ---- */

static void put_all(struct redis_call *c, struct redis_args *a, const char *prefix)
{
	size_t prefix_n = strlen(prefix);

	assert(prefix_n <= REDIS_PREFIX_MAX);
	a->key_n = a->limit_n = a->take_n = a->more_n = 0;
	a->key_bytes = (uint8_t)(prefix_n + REDIS_KEY_MAX - REDIS_PREFIX_MAX);
	memset(a->key_at, 0, sizeof a->key_at);
	memset(a->limit_at, 0, sizeof a->limit_at);
	for (unsigned i = 0; i < c->plan_n; i++) {
		if (c->plan[i])
			put_plan(a, c->plan[i], prefix, prefix_n);
		else
			c->plan_takes[i] = 0;
	}
	for (const struct redis_after *after = c->after; after; after = after->next)
		put_after(a, after, prefix, prefix_n);
	for (unsigned i = 0; i < c->ask_n; i++)
		put_ask(a, &c->ask[i].asked, prefix, prefix_n);
	c->take_n = a->take_n;
}

void redis_call_args(struct redis_call *c, struct redis_args *a, const char *prefix,
	const char *sha, const usec_t *virtual_now)
{
	put_all(c, a, prefix);
	(void)snprintf(a->key_count, sizeof a->key_count, "%u", a->key_n);
	a->now[0] = '\0';
	if (virtual_now)
		(void)snprintf(a->now, sizeof a->now, "%lld", (long long)*virtual_now);

	a->n = 0;
#define ARG(p, size) (a->argv[a->n] = (const char *)(p), a->bytes[a->n++] = (size))
	ARG("EVALSHA", 7);
	ARG(sha, strlen(sha));
	ARG(a->key_count, strlen(a->key_count));
	for (unsigned i = 0; i < a->key_n; i++)
		ARG(a->keys[i], a->key_bytes);
	ARG(a->limits, (size_t)a->limit_n * REDIS_LIMIT_BYTES);
	ARG(a->takes, (size_t)a->take_n * REDIS_TAKE_BYTES);
	ARG(a->now, strlen(a->now));
	if (a->more_n)
		ARG(a->more, (size_t)a->more_n * REDIS_MORE_BYTES);
#undef ARG
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
	p += (size_t)c->after_takes * REDIS_BUCKET_BYTES; /* nobody wants to know */
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
	p += (size_t)c->after_takes * REDIS_BUCKET_BYTES;
	for (unsigned i = 0; i < c->ask_n; i++, p += REDIS_BUCKET_BYTES + REDIS_OUT_BYTES)
		apply(&c->ask[i], p, now);
	return true;
}
