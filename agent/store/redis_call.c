#include "store/redis_call.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static_assert(REDIS_CALL_TAKES <= 256, "their places are bytes");
static_assert((int)REDIS_CALL_TAKES >= (int)PLAN_MAX, "one plan always fits");

enum { FIRST_OF_RULE = 1, LAST_OF_REQUEST = 2, ASKS = 4, REFUND = 8, DENIED = 16, COSTS = 32 };

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
	char text[24], *p = text;

	(void)put_u64(put_u64(bytes, k->a), k->b);
	for (unsigned i = 0; i < 18; i += 3) {
		unsigned three = (unsigned)bytes[i] << 16 | (unsigned)bytes[i + 1] << 8 |
				 bytes[i + 2];
		*p++ = redis_base64url[three >> 18];
		*p++ = redis_base64url[three >> 12 & 63];
		*p++ = redis_base64url[three >> 6 & 63];
		*p++ = redis_base64url[three & 63];
	}
	memcpy(out, text, 22);
}

/* Where a key is; a new one in keys[] wants its tag and its characters. */
static unsigned key_place(struct redis_call *c, struct redis_args *a, const struct key *k,
	unsigned algorithm, bool *is_new)
{
	for (unsigned at = (unsigned)k->a;; at++) {
		uint16_t *place = &a->key_at[at % (2 * REDIS_CALL_TAKES)];
		*is_new = *place == 0;
		if (*is_new) {
			c->algorithm[a->key_n] = (uint8_t)algorithm;
			a->sums[a->key_n * REDIS_SUM_BYTES + 1] = 0;
			a->key[a->key_n++] = *k;
			*place = (uint16_t)a->key_n;
		}
		const struct key *found = &a->key[*place - 1];
		if (found->a == k->a && found->b == k->b)
			return *place - 1;
	}
}

/* PREFIX "2:{TAG}" and the key; `tag` is where the tag begins. */
static void key_name(
	char *p, const struct key *k, const char *prefix, size_t prefix_n, const char *tag)
{
	memcpy(p, prefix, prefix_n);
	p += prefix_n;
	memcpy(p, "2:{", 3);
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

/* "<BB" for each key, as far as that says it all. */
static void add_to_sum(struct redis_args *a, unsigned key, unsigned limit, int64_t cost)
{
	uint8_t *sum = a->sums + (size_t)key * REDIS_SUM_BYTES;

	if (sum[1] == 0)
		sum[0] = (uint8_t)limit;
	if (cost != 1 || sum[0] != limit || sum[1] == UINT8_MAX)
		a->one_by_one = true;
	else
		sum[1]++;
}

/* "<BBB", or "<BBBI4". A cost that is more than any capacity needs no more than to stay so. */
static void put_take(
	struct redis_args *a, unsigned key, unsigned limit, unsigned flags, int64_t cost)
{
	uint8_t *p = a->takes + a->take_bytes;

	a->take_n++;
	*p++ = (uint8_t)key;
	*p++ = (uint8_t)limit;
	*p++ = (uint8_t)(cost == 1 ? flags : flags | COSTS);
	if (cost != 1)
		p = put_u32(p, cost > UINT32_MAX ? UINT32_MAX : (uint32_t)cost);
	a->take_bytes = (unsigned)(p - a->takes);
	add_to_sum(a, key, limit, cost);
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

static void put_plan(struct redis_call *c, struct redis_args *a, const struct plan *plan,
	const char *prefix, size_t prefix_n)
{
	char tag[REDIS_TAG_BYTES];
	bool is_new;

	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		unsigned key = key_place(
			c, a, &t->key, (unsigned)t->limit->quota.algorithm, &is_new);
		if (is_new) {
			redis_tag(&t->key, &t->limit->salt, tag);
			put_key_name(a, key, prefix, prefix_n, tag);
		}
		c->key_of[a->take_n] = (uint8_t)key;
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

static void put_after(struct redis_call *c, struct redis_args *a, const struct redis_after *after,
	const char *prefix, size_t prefix_n)
{
	bool is_new;

	for (unsigned i = 0; i < after->n; i++) {
		const struct after_take *t = &after->take[i];
		unsigned key = key_place(c, a, &t->key, t->limit[0], &is_new), limit = a->limit_n++;
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
static void put_ask(struct redis_call *c, struct redis_args *args, const struct ledger_ask *a,
	const char *prefix, size_t prefix_n)
{
	char tag[REDIS_TAG_BYTES];
	bool is_new;
	unsigned key = key_place(c, args, &a->key, (unsigned)a->quota.algorithm, &is_new),
		 limit = args->limit_n++;

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
	a->key_n = a->limit_n = a->take_n = a->take_bytes = a->more_n = 0;
	a->one_by_one = c->after || c->ask_n;
	a->key_bytes = (uint8_t)(prefix_n + REDIS_KEY_MAX - REDIS_PREFIX_MAX);
	memset(a->key_at, 0, sizeof a->key_at);
	memset(a->limit_at, 0, sizeof a->limit_at);
	for (unsigned i = 0; i < c->plan_n; i++) {
		if (c->plan[i])
			put_plan(c, a, c->plan[i], prefix, prefix_n);
		else
			c->plan_takes[i] = 0;
	}
	for (const struct redis_after *after = c->after; after; after = after->next)
		put_after(c, a, after, prefix, prefix_n);
	for (unsigned i = 0; i < c->ask_n; i++)
		put_ask(c, a, &c->ask[i].asked, prefix, prefix_n);
	c->take_n = a->take_n;
	c->key_n = a->key_n;
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
	ARG(a->takes, a->take_bytes);
	ARG(a->sums, a->one_by_one ? 0 : (size_t)a->key_n * REDIS_SUM_BYTES);
	ARG(a->now, strlen(a->now));
	if (a->more_n)
		ARG(a->more, (size_t)a->more_n * REDIS_MORE_BYTES);
#undef ARG
}

/* ---- the reply ---- */

/* A bucket and what is out, as the script sends them: what it would not take for a bucket is none
 * of its. */
static bool get_leased(const uint8_t *p, unsigned algorithm, struct leased *l)
{
	uint64_t level = get_u64(p), out = get_u64(p + REDIS_BUCKET_BYTES);

	*l = (struct leased){ .bucket.at = (usec_t)get_u64(p + 8) };
	if (l->bucket.at < -REDIS_INSTANT_MAX || l->bucket.at > REDIS_INSTANT_MAX)
		return false;
	if (algorithm != ALGORITHM_TOKEN_BUCKET) {
		l->bucket.current = (uint32_t)level;
		l->bucket.previous = (uint32_t)(level >> 32);
		return out == 0;
	}
	l->fresh = (uint32_t)out;
	l->stale = (uint32_t)(out >> 32);
	memcpy(&l->bucket.used, &level, sizeof level);
	return l->bucket.used >= 0 && l->bucket.used <= (double)REDIS_INSTANT_MAX; /* and not NaN */
}

static bool never_seen(const struct bucket *b)
{
	/* Of a token bucket, too: these two are the bits of `used`. */
	return b->current == 0 && b->previous == 0 && b->at == 0;
}

/* What lies at the keys, and what lay there before each ask. */
static bool get_reply(const struct redis_call *c, const uint8_t *p, usec_t *now,
	struct leased key[], struct leased asked[])
{
	*now = (usec_t)get_u64(p);
	if (*now < -REDIS_INSTANT_MAX || *now > REDIS_INSTANT_MAX)
		return false;
	p += 8;
	for (unsigned i = 0; i < c->key_n; i++, p += REDIS_VALUE_BYTES)
		if (!get_leased(p, c->algorithm[i], &key[i]))
			return false;
	for (unsigned i = 0; i < c->ask_n; i++, p += REDIS_VALUE_BYTES)
		if (!get_leased(p, (unsigned)c->ask[i].asked.quota.algorithm, &asked[i]))
			return false;
	return true;
}

/* `key_of`: of its takes. What it is charged is what the next one finds. */
static void charge(struct plan *plan, const uint8_t *key_of, struct leased key[], struct now now)
{
	const struct bucket *stored[PLAN_MAX];
	struct leased read[PLAN_MAX];

	for (unsigned i = 0; i < plan->n; i++) {
		struct leased *l = &key[key_of[i]];
		if (l->fresh | l->stale) {
			read[i] = lease_read(&plan->take[i].limit->quota, l, now);
			l = &read[i];
		}
		stored[i] = never_seen(&l->bucket) ? NULL : &l->bucket;
	}
	plan->now = now;
	plan_charge(plan, stored, now);
	for (unsigned i = 0; i < plan->n; i++) {
		struct leased *l = &key[key_of[i]];
		if (!plan->take[i].verdict.charged)
			continue;
		if (l->fresh | l->stale)
			*l = read[i];
		l->bucket = plan->take[i].verdict.state;
	}
}

bool redis_call_read(struct redis_call *c, const void *reply, size_t n)
{
	struct leased key[REDIS_CALL_TAKES], asked[REDIS_CALL_ASKS];
	const uint8_t *key_of = c->key_of;
	usec_t at;

	if (n != 8 + ((size_t)c->key_n + c->ask_n) * REDIS_VALUE_BYTES ||
		!get_reply(c, reply, &at, key, asked))
		return false;
	struct now now = { .steady = at, .utc = at };
	c->now = now;
	for (unsigned i = 0; i < c->plan_n; i++) {
		if (c->plan[i])
			charge(c->plan[i], key_of, key, now);
		key_of += c->plan_takes[i];
	}
	for (unsigned i = 0; i < c->ask_n; i++) {
		struct redis_ask *a = &c->ask[i];
		a->granted = lease_apply(&a->asked.quota, &asked[i], &a->asked.ask, now, &a->state);
	}
	return true;
}
