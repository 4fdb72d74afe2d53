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
	p->tier[p->tier_n] = (struct tier){ 0 };
	memcpy(p->tier[p->tier_n].name, name.p, name.n);
	p->tier[p->tier_n].name[name.n] = '\0';
	p->tier[p->tier_n].length = (uint8_t)name.n;
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

/* Hashed twice: what a client sends as a value is hashed once, so that none can be made to cancel
 * a name out, not even one that reads like it. */
static struct key hash_name(const struct policy *p, const char *text, int n)
{
	struct key once = hash_keyed(&p->hash_key, text, (size_t)n);
	return hash_keyed(&p->hash_key, &once, sizeof once);
}

/* What makes a counter the same (CONTRACT.md): the rule's name, algorithm and window here, the
 * descriptor in descriptor_hash(); position, mode, action and quota are no part of it. */
static struct key limit_salt(const struct policy *p, const struct limit *l)
{
	char text[RULE_NAME_MAX + 64];
	int n = snprintf(text, sizeof text, "limit %d %d %lld %s", l->quota.algorithm,
		l->quota.window.kind, (long long)l->quota.window.length, l->rule->name);
	return hash_name(p, text, n);
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

/* A descriptor's names are hashed here, once; its values with each request. */
static void seal_per(const struct policy *p, struct rule *r)
{
	char text[FIELD_NAME_MAX + 32];

	r->per_all = 0;
	r->per_salt = (struct key){ 0, 0 };
	r->per_is_plain = true;
	for (unsigned i = 0; i < r->per_n; i++) {
		for (unsigned a = 0; a < r->per[i].n; a++) {
			unsigned slot = r->per[i].slot[a];
			int n = snprintf(
				text, sizeof text, "per %u %s", i, p->layout.field[slot].name);
			r->per[i].salt[a] = hash_name(p, text, n);
		}
		r->per_is_plain &= r->per[i].n == 1;
		r->per_all |= 1ull << r->per[i].slot[0];
		r->per_salt.a ^= r->per[i].salt[0].a;
		r->per_salt.b ^= r->per[i].salt[0].b;
	}
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

/* Rules that count by the same fields share the hash of their values: a number for each such
 * group, 0 for who has nobody to share with. */
static void seal_shared(struct policy *p)
{
	uint8_t groups = 0;

	for (unsigned i = 0; i < p->rule_n; i++) {
		struct rule *r = &p->rule[i];
		r->per_shared = 0;
		for (unsigned j = 0; j < i && !r->per_shared; j++) {
			struct rule *other = &p->rule[j];
			if (!same_per(r, other))
				continue;
			if (!other->per_shared && groups < PER_SHARED_MAX)
				other->per_shared = ++groups;
			r->per_shared = other->per_shared;
		}
	}
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
	/* What one of them hides, none of the others may show. */
	const uint64_t told_together = 1ull << FIELD_METHOD | 1ull << FIELD_PATH |
				       1ull << FIELD_ENDPOINT;

	if (p->secret & told_together)
		p->secret |= told_together;
	p->hash_key = *key;
	p->layout.text_wanted = matches_slots(p->allow, p->allow_n) |
				matches_slots(p->block, p->block_n) | 1ull << FIELD_TIER |
				1ull << FIELD_USER | 1ull << FIELD_KEY;
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
		r->name_length = (uint8_t)strlen(r->name);
		seal_per(p, r);
	}
	if (p->layout.text_wanted >> FIELD_ENDPOINT & 1)
		p->layout.text_wanted |= 1ull << FIELD_METHOD | 1ull << FIELD_PATH;
	seal_shared(p);
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

static int64_t tier_of_client(const struct policy *p, const struct view *v)
{
	static const uint8_t by[] = { FIELD_KEY, FIELD_USER };
	int64_t tier = -1;

	for (unsigned i = 0; i < 2 && tier < 0; i++)
		if (view_has(v, by[i]))
			tier = tier_map_find(p->tier_map, v->text[by[i]], p->secret >> by[i] & 1);
	return tier;
}

/* A name that a client may have had a say in: cut, and clean of what would split a header. */
static void copy_tier(struct plan *plan, struct str name)
{
	size_t n = name.n < TIER_NAME_MAX ? name.n : TIER_NAME_MAX;

	for (size_t i = 0; i < n; i++) {
		bool control = (unsigned char)name.p[i] < ' ' || name.p[i] == 127;
		plan->tier[i] = control ? '_' : name.p[i];
	}
	plan->tier[n] = '\0';
	plan->tier_length = (uint8_t)n;
}

/* The message's tier, else by key, else by user, else the default. Returns its number, or -1 for a
 * name that no rule knows. */
static int find_tier(const struct policy *p, struct view *v, struct plan *plan)
{
	int64_t tier = -1;

	if (view_has(v, FIELD_TIER)) {
		tier = policy_tier_find(p, v->text[FIELD_TIER]);
		if (tier < 0) {
			copy_tier(plan, v->text[FIELD_TIER]);
			return -1;
		}
	} else if (p->tier_map) {
		tier = tier_of_client(p, v);
	}
	if (tier < 0)
		tier = p->default_tier;
	memcpy(plan->tier, p->tier[tier].name, sizeof plan->tier);
	plan->tier_length = p->tier[tier].length;
	v->text[FIELD_TIER] = (struct str){ p->tier[tier].name, p->tier[tier].length };
	v->present |= 1ull << FIELD_TIER;
	return (int)tier;
}

/* Which alternative of each `per` is there: 4 bits each. false: one has none. */
static inline bool find_per(const struct rule *r, const struct view *v, uint32_t *found)
{
	*found = 0;
	if (r->per_is_plain)
		return (v->present & r->per_all) == r->per_all;
	for (unsigned i = 0; i < r->per_n; i++) {
		unsigned a = 0;
		while (!view_has(v, r->per[i].slot[a]))
			if (++a == r->per[i].n)
				return false;
		*found |= a << 4 * i;
	}
	return true;
}

static inline unsigned alternative(uint32_t found, unsigned i)
{
	return found >> 4 * i & 15;
}

static inline unsigned slot_found(const struct rule *r, unsigned i, uint32_t found)
{
	return r->per[i].slot[alternative(found, i)];
}

/* The bytes by which a field counts; an address in its canonical form after the prefix. */
static struct str value_of(
	const struct policy *p, const struct view *v, unsigned slot, struct addr *room)
{
	if (slot != FIELD_IP)
		return v->text[slot];
	if (v->ip.len == 4 && p->ipv4_prefix == 32)
		return (struct str){ (const char *)v->ip.bytes, 4 };
	*room = addr_mask(&v->ip, p->ipv4_prefix, p->ipv6_prefix);
	return (struct str){ (const char *)room->bytes, room->len };
}

/* Long values go in as their own hash, so that the buffer is bounded; a value of one length always
 * goes in the same way, so no two descriptors look alike. */
enum { VALUE_INLINE_MAX = 48, VALUE_LONG = 255 };

static struct key hash_several(
	const struct policy *p, const struct rule *r, const struct view *v, uint32_t found)
{
	uint8_t bytes[PER_MAX * (1 + VALUE_INLINE_MAX)], *w = bytes;
	struct addr room;

	for (unsigned i = 0; i < r->per_n; i++) {
		struct str s = value_of(p, v, slot_found(r, i, found), &room);
		if (s.n <= VALUE_INLINE_MAX) {
			*w++ = (uint8_t)s.n;
			memcpy(w, s.p, s.n);
			w += s.n;
		} else {
			struct key h = hash_keyed(&p->hash_key, s.p, s.n);
			*w++ = VALUE_LONG;
			memcpy(w, &h, sizeof h);
			w += sizeof h;
		}
	}
	return hash_keyed(&p->hash_key, bytes, (size_t)(w - bytes));
}

static struct key hash_values(
	const struct policy *p, const struct rule *r, const struct view *v, uint32_t found)
{
	struct addr room;

	if (r->per_n == 0)
		return (struct key){ 0, 0 };
	if (r->per_n > 1)
		return hash_several(p, r, v, found);
	struct str s = value_of(p, v, slot_found(r, 0, found), &room);
	return hash_keyed(&p->hash_key, s.p, s.n);
}

/* What has been hashed for this request, by rule->per_shared. */
struct memo {
	uint64_t have;
	struct key hash[PER_SHARED_MAX + 1];
};

/* The descriptor: what its names and its values hash to. Each part is a keyed hash of a text of its
 * own kind, so that their sum is as hard to steer as any of them; a name is hashed with its place,
 * so `user` and `key` of one value differ, and so does the order. */
static inline struct key descriptor_of(const struct policy *p, const struct rule *r,
	const struct view *v, uint32_t found, struct memo *memo)
{
	struct key k;

	if (!r->per_shared) {
		k = hash_values(p, r, v, found);
	} else {
		if (!(memo->have >> r->per_shared & 1)) {
			memo->have |= 1ull << r->per_shared;
			memo->hash[r->per_shared] = hash_values(p, r, v, found);
		}
		k = memo->hash[r->per_shared];
	}
	if (!found)
		return (struct key){ k.a ^ r->per_salt.a, k.b ^ r->per_salt.b };
	for (unsigned i = 0; i < r->per_n; i++) {
		const struct key *salt = &r->per[i].salt[alternative(found, i)];
		k.a ^= salt->a;
		k.b ^= salt->b;
	}
	return k;
}

/* The lowest bit tells a store which time line the bucket lives on. */
static inline struct key limit_key(const struct limit *l, struct key descriptor)
{
	struct key k = { descriptor.a ^ l->salt.a, descriptor.b ^ l->salt.b };
	k.b = (k.b & ~1ull) | (l->quota.algorithm != ALGORITHM_TOKEN_BUCKET);
	return k;
}

static void plan_rule(const struct policy *p, const struct rule *r, const struct limits *limits,
	const struct view *v, struct memo *memo, struct plan *plan)
{
	uint32_t found;

	if ((r->match && !match_holds(r->match, v)) || !find_per(r, v, &found))
		return;
	struct key descriptor = descriptor_of(p, r, v, found, memo);
	int64_t cost = view_cost(v, r->cost_slot);
	for (unsigned i = 0; i < limits->n; i++) {
		assert(plan->n < PLAN_MAX); /* config counts them */
		struct take *t = &plan->take[plan->n++];
		t->limit = &limits->limit[i];
		t->key = limit_key(t->limit, descriptor);
		t->cost = cost;
		t->per_found = found;
	}
}

void policy_plan(const struct policy *p, struct view *v, struct plan *plan)
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
		if (r->mode != MODE_OFF && limits->n)
			plan_rule(p, r, limits, v, &memo, plan);
	}
}

/* ---- what a store asks ---- */

/* "1/366d burst 1000000" takes a million years to refill: who is not seen for two is forgotten. */
#define KEEP_MAX (2 * 365 * USEC_PER_DAY)

usec_t limit_keep_for(const struct limit *l, const struct bucket *state, struct now now)
{
	if (l->quota.algorithm != ALGORITHM_TOKEN_BUCKET)
		return bucket_full_after(&l->quota, state, now);
	/* The slowest of all tiers, this one among them. */
	double slowest = state->used * l->slowest_interval;
	if (slowest > l->slowest_refill)
		slowest = l->slowest_refill;
	if (slowest > (double)KEEP_MAX)
		return KEEP_MAX;
	usec_t keep = (usec_t)slowest;
	return keep + ((double)keep < slowest);
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
