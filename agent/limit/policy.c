#include "limit/policy.h"

#include "limit/names.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- tiers ---- */

/* Two tables, so that a client who has learnt of a hash in the file cannot send it as if it were
 * the key. */
struct tier_map {
	struct names *plain, *hashed; /* owned; hashed: by the hex after "sha256:" */
	size_t hashed_n;
};

static const struct str sha256_prefix = { "sha256:", 7 };

static bool has_prefix(struct str s, struct str prefix)
{
	return s.n >= prefix.n && memcmp(s.p, prefix.p, prefix.n) == 0;
}

struct tier_map *tier_map_new(size_t lines)
{
	struct tier_map *m = calloc(1, sizeof *m);
	(void)lines;
	if (!m)
		return NULL;
	m->plain = names_new();
	m->hashed = names_new();
	if (!m->plain || !m->hashed) {
		tier_map_free(m);
		return NULL;
	}
	return m;
}

void tier_map_free(struct tier_map *m)
{
	if (!m)
		return;
	names_free(m->plain);
	names_free(m->hashed);
	free(m);
}

bool tier_map_add(struct tier_map *m, struct str name, unsigned tier)
{
	if (!has_prefix(name, sha256_prefix))
		return names_add(m->plain, name, tier);
	m->hashed_n++;
	return names_add(m->hashed,
		(struct str){ name.p + sha256_prefix.n, name.n - sha256_prefix.n }, tier);
}

static int64_t tier_map_find(const struct tier_map *m, struct str name, bool secret)
{
	int64_t tier = names_find(m->plain, name);
	if (tier >= 0 || !secret || m->hashed_n == 0)
		return tier;
	char hex[SHA256_HEX_BYTES];
	hash_sha256_hex(name, hex);
	return names_find(m->hashed, (struct str){ hex, sizeof hex });
}

int policy_tier_find(const struct policy *p, struct str name)
{
	return (int)names_find(p->tier_names, name);
}

int policy_tier_add(struct policy *p, struct str name)
{
	int tier = policy_tier_find(p, name);
	if (tier >= 0)
		return tier;
	if (p->tier_n == TIERS_MAX || name.n == 0 || name.n > TIER_NAME_MAX)
		return -1;
	void *grown = realloc(p->tier, (p->tier_n + 1) * sizeof *p->tier);
	if (!grown)
		return -1;
	p->tier = grown;
	memcpy(p->tier[p->tier_n].name, name.p, name.n);
	p->tier[p->tier_n].name[name.n] = '\0';
	if (!names_add(p->tier_names, name, p->tier_n))
		return -1;
	return (int)p->tier_n++;
}

/* ---- life ---- */

struct policy *policy_new(void)
{
	struct policy *p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	p->enabled = true;
	layout_init(&p->layout);
	p->tier_names = names_new();
	if (!p->tier_names) {
		policy_free(p);
		return NULL;
	}
	return p;
}

static void matches_free(struct match **list, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		match_free(list[i]);
	free(list);
}

static void rule_free(struct rule *r, unsigned tiers)
{
	match_free(r->match);
	free(r->tag);
	for (unsigned t = 0; r->tier && t < tiers; t++)
		free(r->tier[t].limit);
	free(r->tier);
	free(r->other.limit);
}

void policy_free(struct policy *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < p->rule_n; i++)
		rule_free(&p->rule[i], p->tier_n);
	free(p->rule);
	free(p->tier);
	names_free(p->tier_names);
	tier_map_free(p->tier_map);
	matches_free(p->allow, p->allow_n);
	matches_free(p->block, p->block_n);
	free(p);
}

/* ---- sealing ---- */

static bool same_window(const struct window *a, const struct window *b)
{
	return a->kind == b->kind && a->length == b->length;
}

/* What makes a counter the same (CONTRACT.md): the rule's name, algorithm and window here, the
 * descriptor in descriptor_hash(); position, mode, action and quota are no part of it. */
static struct key limit_salt(const struct policy *p, const struct limit *l)
{
	char text[RULE_NAME_MAX + 64];
	int n = snprintf(text, sizeof text, "limit %d %d %lld %s", l->quota.algorithm,
		l->quota.window.kind, (long long)l->quota.window.length, l->rule->name);
	return hash_keyed(&p->hash_key, text, (size_t)n);
}

static long long whole_seconds(usec_t t)
{
	return (t + USEC_PER_SEC - 1) / USEC_PER_SEC;
}

static void seal_limits(const struct policy *p, struct rule *r, struct limits *limits)
{
	for (unsigned i = 0; i < limits->n; i++) {
		struct limit *l = &limits->limit[i];
		l->rule = r;
		if (l->quota.units == 0)
			l->quota.capacity =
				0; /* what never refills lets nothing pass, burst or not */
		l->salt = limit_salt(p, l);
		l->slowest_refill = 0;
		l->slowest_interval = 0;
		if (limits->n > 1)
			snprintf(l->label, sizeof l->label, "%s:%lld", r->name,
				whole_seconds(l->quota.window.length));
		else
			snprintf(l->label, sizeof l->label, "%s", r->name);
	}
}

static struct limits *limits_at(struct rule *r, unsigned tiers, unsigned i)
{
	return i < tiers ? &r->tier[i] : &r->other;
}

/* The limits of all tiers with one window share a counter: the slowest of them counts. */
struct slowest {
	struct window window;
	double refill, interval; /* microseconds: from empty to full; for one unit */
};

enum { RULE_WINDOWS_MAX = 64 };

static struct slowest *slowest_of(struct slowest *list, unsigned *n, const struct window *w)
{
	for (unsigned i = 0; i < *n; i++)
		if (same_window(&list[i].window, w))
			return &list[i];
	if (*n == RULE_WINDOWS_MAX)
		return NULL;
	list[*n] = (struct slowest){ .window = *w };
	return &list[(*n)++];
}

static bool seal_slowest(struct rule *r, unsigned tiers)
{
	struct slowest list[RULE_WINDOWS_MAX];
	unsigned n = 0;

	for (unsigned t = 0; t <= tiers; t++) {
		struct limits *limits = limits_at(r, tiers, t);
		for (unsigned i = 0; i < limits->n; i++) {
			const struct quota *q = &limits->limit[i].quota;
			struct slowest *s = slowest_of(list, &n, &q->window);
			if (!s)
				return false;
			if (q->units == 0)
				continue;
			double interval = (double)q->window.length / (double)q->units;
			s->interval = fmax(s->interval, interval);
			s->refill = fmax(s->refill, interval * (double)q->capacity);
		}
	}
	for (unsigned t = 0; t <= tiers; t++) {
		struct limits *limits = limits_at(r, tiers, t);
		for (unsigned i = 0; i < limits->n; i++) {
			struct limit *l = &limits->limit[i];
			const struct slowest *s = slowest_of(list, &n, &l->quota.window);
			l->slowest_refill = s->refill;
			l->slowest_interval = s->interval;
		}
	}
	return true;
}

static bool same_per(const struct rule *a, const struct rule *b)
{
	if (a->per_n != b->per_n)
		return false;
	for (unsigned i = 0; i < a->per_n; i++)
		if (a->per[i].n != b->per[i].n ||
			memcmp(a->per[i].slot, b->per[i].slot, a->per[i].n) != 0)
			return false;
	return true;
}

static uint64_t matches_slots(struct match *const *list, unsigned n)
{
	uint64_t slots = 0;
	for (unsigned i = 0; i < n; i++)
		slots |= match_slots(list[i]);
	return slots;
}

bool policy_seal(struct policy *p, const struct hash_key *key, char *why, size_t size)
{
	p->hash_key = *key;
	p->layout.text_wanted = matches_slots(p->allow, p->allow_n) |
				matches_slots(p->block, p->block_n) | 1ull << FIELD_TIER |
				1ull << FIELD_USER | 1ull << FIELD_KEY | 1ull << FIELD_METHOD |
				1ull << FIELD_PATH;
	for (unsigned i = 0; i < p->rule_n; i++) {
		struct rule *r = &p->rule[i];
		for (unsigned t = 0; t <= p->tier_n; t++) {
			struct limits *limits = limits_at(r, p->tier_n, t);
			if (limits->n > PLAN_MAX) {
				snprintf(why, size,
					"rule \"%s\": %u limits for one tier: at most %d", r->name,
					limits->n, PLAN_MAX);
				return false;
			}
			seal_limits(p, r, limits);
		}
		if (!seal_slowest(r, p->tier_n)) {
			snprintf(why, size, "rule \"%s\": more than %d different windows", r->name,
				RULE_WINDOWS_MAX);
			return false;
		}
		if (r->match)
			p->layout.text_wanted |= match_slots(r->match);
		for (unsigned e = 0; e < r->per_n; e++)
			for (unsigned a = 0; a < r->per[e].n; a++)
				p->layout.text_wanted |= 1ull << r->per[e].slot[a];
		r->per_id = (uint16_t)i;
		for (unsigned j = 0; j < i; j++) {
			if (same_per(r, &p->rule[j])) {
				r->per_id = p->rule[j].per_id;
				break;
			}
		}
	}
	return true;
}

/* ---- planning ---- */

static bool one_matches(struct match *const *list, unsigned n, const struct view *v)
{
	for (unsigned i = 0; i < n; i++)
		if (match_holds(list[i], v))
			return true;
	return false;
}

/* The message's tier, else by key, else by user, else the default. Returns its number, or -1 for a
 * name that no rule knows. */
static int find_tier(const struct policy *p, const struct view *v, struct plan *plan)
{
	static const uint8_t by[] = { FIELD_KEY, FIELD_USER };
	struct str name = { 0 };
	int64_t tier = -1;

	if (view_has(v, FIELD_TIER)) {
		name = v->text[FIELD_TIER];
		tier = policy_tier_find(p, name);
	} else {
		for (unsigned i = 0; i < 2 && tier < 0 && p->tier_map; i++)
			if (view_has(v, by[i]))
				tier = tier_map_find(
					p->tier_map, v->text[by[i]], p->secret >> by[i] & 1);
		if (tier < 0)
			tier = p->default_tier;
		name = str_of(p->tier[tier].name);
	}
	plan->tier_length = (uint8_t)(name.n < TIER_NAME_MAX ? name.n : TIER_NAME_MAX);
	memcpy(plan->tier, name.p, plan->tier_length);
	plan->tier[plan->tier_length] = '\0';
	return (int)tier;
}

/* Which alternative of each `per` is there: 4 bits each. false: one has none. */
static bool find_per(const struct rule *r, const struct view *v, uint32_t *found)
{
	*found = 0;
	for (unsigned i = 0; i < r->per_n; i++) {
		unsigned a = 0;
		while (a < r->per[i].n && !view_has(v, r->per[i].slot[a]))
			a++;
		if (a == r->per[i].n)
			return false;
		*found |= a << 4 * i;
	}
	return true;
}

static unsigned slot_found(const struct rule *r, unsigned i, uint32_t found)
{
	return r->per[i].slot[found >> 4 * i & 15];
}

struct gather {
	char bytes[1024];
	size_t n;
};

static void gather_put(struct gather *g, const void *p, size_t n)
{
	memcpy(g->bytes + g->n, p, n);
	g->n += n;
}

/* Long values go in as their own hash, so that the buffer is bounded; a value of one length always
 * goes in the same way, so no two descriptors look alike. */
enum { VALUE_INLINE_MAX = 48 };
static_assert(PER_MAX * (1 + FIELD_NAME_MAX + 1 + VALUE_INLINE_MAX) + 1 <=
		      sizeof(((struct gather *)0)->bytes),
	"a descriptor fits");

static void gather_value(const struct policy *p, struct gather *g, const void *value, size_t n)
{
	uint8_t length = n <= VALUE_INLINE_MAX ? (uint8_t)n : 255;
	gather_put(g, &length, 1);
	if (n <= VALUE_INLINE_MAX) {
		gather_put(g, value, n);
	} else {
		struct key h = hash_keyed(&p->hash_key, value, n);
		gather_put(g, &h, sizeof h);
	}
}

static struct key descriptor_hash(
	const struct policy *p, const struct rule *r, const struct view *v, uint32_t found)
{
	struct gather g = { .n = 0 };

	gather_put(&g, "d", 1); /* never the hash of a salt */
	for (unsigned i = 0; i < r->per_n; i++) {
		unsigned slot = slot_found(r, i, found);
		uint8_t length = p->layout.field[slot].length;
		gather_put(&g, &length, 1);
		gather_put(&g, p->layout.field[slot].name, length);
		if (slot == FIELD_IP) {
			struct addr a = addr_mask(&v->ip, p->ipv4_prefix, p->ipv6_prefix);
			gather_value(p, &g, a.bytes, a.len);
		} else {
			gather_value(p, &g, v->text[slot].p, v->text[slot].n);
		}
	}
	return hash_keyed(&p->hash_key, g.bytes, g.n);
}

/* Rules that count by the same fields share the descriptor, and its hash. */
struct memo {
	uint64_t have;
	struct {
		struct key hash;
		uint32_t found;
		bool absent;
	} per[64];
};

static bool descriptor_of(const struct policy *p, const struct rule *r, const struct view *v,
	struct memo *memo, uint32_t *found, struct key *hash)
{
	unsigned id = r->per_id;
	if (id < 64 && memo->have >> id & 1) {
		*found = memo->per[id].found;
		*hash = memo->per[id].hash;
		return !memo->per[id].absent;
	}
	bool there = find_per(r, v, found);
	if (there)
		*hash = descriptor_hash(p, r, v, *found);
	if (id < 64) {
		memo->have |= 1ull << id;
		memo->per[id].absent = !there;
		memo->per[id].found = *found;
		if (there)
			memo->per[id].hash = *hash;
	}
	return there;
}

static struct key limit_key(const struct limit *l, struct key descriptor)
{
	/* Both are keyed hashes, of texts that never coincide: their sum is as hard to steer as
	 * either. The lowest bit tells a store which time line the bucket lives on. */
	struct key k = { descriptor.a ^ l->salt.a, descriptor.b ^ l->salt.b };
	k.b = (k.b & ~1ull) | (l->quota.algorithm != ALGORITHM_TOKEN_BUCKET);
	return k;
}

void policy_plan(const struct policy *p, const struct view *v, struct plan *plan)
{
	struct memo memo;

	memo.have = 0;
	plan->n = 0;
	plan->done = NULL;
	int tier = find_tier(p, v, plan);
	if (!p->enabled) {
		plan->outcome = OUTCOME_DISABLED;
		return;
	}
	if (one_matches(p->block, p->block_n, v)) {
		plan->outcome = OUTCOME_BLOCKED;
		return;
	}
	if (one_matches(p->allow, p->allow_n, v)) {
		plan->outcome = OUTCOME_BYPASSED;
		return;
	}
	plan->outcome = OUTCOME_LIMITS;
	for (unsigned i = 0; i < p->rule_n; i++) {
		const struct rule *r = &p->rule[i];
		const struct limits *limits = tier >= 0 ? &r->tier[tier] : &r->other;
		struct key hash;
		uint32_t found;

		if (r->mode == MODE_OFF || limits->n == 0 ||
			(r->match && !match_holds(r->match, v)))
			continue;
		if (!descriptor_of(p, r, v, &memo, &found, &hash))
			continue;
		int64_t cost = view_cost(v, r->cost_slot);
		for (unsigned l = 0; l < limits->n; l++) {
			assert(plan->n < PLAN_MAX); /* config counts them */
			struct take *t = &plan->take[plan->n++];
			t->limit = &limits->limit[l];
			t->key = limit_key(t->limit, hash);
			t->cost = cost;
			t->per_found = found;
		}
	}
}

/* ---- what a store asks ---- */

/* "1/366d burst 1000000" takes a million years to refill: who is not seen for two is forgotten. */
#define KEEP_MAX (2 * 365 * USEC_PER_DAY)

usec_t limit_keep_for(const struct limit *l, const struct bucket *state, struct now now)
{
	double keep = (double)bucket_full_after(&l->quota, state, now);
	if (l->quota.algorithm == ALGORITHM_TOKEN_BUCKET)
		keep = fmax(keep, fmin(state->used * l->slowest_interval, l->slowest_refill));
	return keep < (double)KEEP_MAX ? (usec_t)ceil(keep) : KEEP_MAX;
}

usec_t limit_open_after(const struct limit *l, const struct bucket *state, struct now now)
{
	usec_t open = l->quota.capacity ? bucket_retry_after(&l->quota, state, 1, now) : 0;
	return open < KEEP_MAX ? open : KEEP_MAX;
}

/* ---- in words ---- */

struct text {
	char *p;
	size_t n, size;
};

static void say(struct text *t, const void *p, size_t n)
{
	if (n > t->size - t->n)
		n = t->size - t->n;
	if (n)
		memcpy(t->p + t->n, p, n);
	t->n += n;
}

size_t take_scope(const struct policy *p, const struct take *take, char *out, size_t size)
{
	const struct rule *r = take->limit->rule;
	struct text t = { out, 0, size };

	if (r->per_n == 0)
		say(&t, "global", 6);
	for (unsigned i = 0; i < r->per_n; i++) {
		unsigned slot = slot_found(r, i, take->per_found);
		if (i)
			say(&t, "+", 1);
		say(&t, p->layout.field[slot].name, p->layout.field[slot].length);
	}
	return t.n;
}

/* Of a secret only so much of its hash that two can be told apart. */
enum { SECRET_HEX_SHOWN = 12 };

static void say_value(struct text *t, const struct policy *p, const struct view *v, unsigned slot)
{
	char hex[SHA256_HEX_BYTES], ip[ADDR_TEXT_MAX];
	struct str s = v->text[slot];

	if (slot == FIELD_IP) {
		struct addr a = addr_mask(&v->ip, p->ipv4_prefix, p->ipv6_prefix);
		s = (struct str){ ip, addr_format(&a, ip) };
	}
	if (p->secret >> slot & 1) {
		hash_sha256_hex(s, hex);
		say(t, sha256_prefix.p, sha256_prefix.n);
		s = (struct str){ hex, SECRET_HEX_SHOWN };
	}
	say(t, s.p, s.n);
}

size_t take_describe(const struct policy *p, const struct take *take, const struct view *v,
	char *out, size_t size)
{
	const struct rule *r = take->limit->rule;
	struct text t = { out, 0, size };

	if (r->per_n == 0)
		say(&t, "global", 6);
	for (unsigned i = 0; i < r->per_n; i++) {
		unsigned slot = slot_found(r, i, take->per_found);
		if (i)
			say(&t, "+", 1);
		say(&t, p->layout.field[slot].name, p->layout.field[slot].length);
		say(&t, "=", 1);
		say_value(&t, p, v, slot);
	}
	return t.n;
}
