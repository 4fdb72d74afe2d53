#include "limit/plan.h"

#include "limit/override.h"

#include <assert.h>

static bool one_matches(struct match *const *list, unsigned n, const struct view *v)
{
	for (unsigned i = 0; i < n; i++)
		if (match_holds(list[i], v))
			return true;
	return false;
}

static int64_t tier_by_slot(const struct policy *p, const struct view *v, unsigned slot)
{
	if (!view_has(v, slot))
		return -1;
	if (v->hashed >> slot & 1)
		return tier_map_find_hash(p->tier_map, v->text[slot]);
	return tier_map_find(p->tier_map, v->text[slot], p->secret >> slot & 1);
}

static int64_t tier_of_client(const struct policy *p, const struct view *v)
{
	int64_t tier = tier_by_slot(p, v, FIELD_KEY);

	return tier < 0 ? tier_by_slot(p, v, FIELD_USER) : tier;
}

struct plan_why policy_why(const struct policy *p, const struct view *v)
{
	struct plan_why w = { .tier = TIER_BY_DEFAULT };

	w.override = p->overrides ? overrides_find(p->overrides, v) : NULL;
	w.blocks = one_matches(p->block, p->block_n, v);
	w.allows = one_matches(p->allow, p->allow_n, v);
	if (w.override && w.override->kind == OVERRIDE_TIER)
		w.tier = TIER_BY_OVERRIDE;
	else if (view_has(v, FIELD_TIER))
		w.tier = TIER_BY_MESSAGE;
	else if (p->tier_map && tier_by_slot(p, v, FIELD_KEY) >= 0)
		w.tier = TIER_BY_KEY;
	else if (p->tier_map && tier_by_slot(p, v, FIELD_USER) >= 0)
		w.tier = TIER_BY_USER;
	return w;
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

/* An override's tier, else the message's, else by key, else by user, else the default. Returns its
 * number, or -1 for a name that no rule knows. */
static int find_tier(
	const struct policy *p, const struct override *o, struct view *v, struct plan *plan)
{
	int64_t tier = -1;

	if (o && o->kind == OVERRIDE_TIER) {
		v->text[FIELD_TIER] = str_of(o->tier);
		v->present |= 1ull << FIELD_TIER;
	}

	if (view_has(v, FIELD_TIER)) {
		tier = policy_tier_find(p, v->text[FIELD_TIER]);
		if (tier < 0) {
			copy_tier(plan, v->text[FIELD_TIER]);
			plan->tally = 0;
			plan->tier_number = -1;
			return -1;
		}
	} else if (p->tier_map) {
		tier = tier_of_client(p, v);
	}
	if (tier < 0)
		tier = p->default_tier;
	memcpy(plan->tier, p->tier[tier].name, sizeof plan->tier);
	plan->tier_length = p->tier[tier].length;
	plan->tally = p->tier[tier].tally;
	plan->tier_number = (int16_t)tier;
	view_put_tier(v, (struct str){ p->tier[tier].name, p->tier[tier].length });
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

static inline unsigned slot_found(const struct rule *r, unsigned i, uint32_t found)
{
	return r->per[i].slot[per_alternative(found, i)];
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

static_assert((int)VALUE_INLINE_MAX <= (int)STR_SHORT_MAX, "copied so");

static void per_found_in_order(const struct rule *r, uint32_t found, uint8_t slot[PER_MAX])
{
	uint8_t element[PER_MAX];

	per_in_order(r, found, element);
	for (unsigned i = 0; i < r->per_n; i++)
		slot[i] = (uint8_t)slot_found(r, element[i], found);
}

static struct key hash_several(
	const struct policy *p, const struct rule *r, const struct view *v, uint32_t found)
{
	char bytes[PER_MAX * (1 + VALUE_INLINE_MAX)], *w = bytes;
	const uint8_t *slot = r->per_slot;
	uint8_t found_slot[PER_MAX];
	struct addr room;

	if (!r->per_is_plain) {
		per_found_in_order(r, found, found_slot);
		slot = found_slot;
	}
	for (const uint8_t *end = slot + r->per_n; slot < end; slot++) {
		struct str s = value_of(p, v, *slot, &room);
		if (s.n <= VALUE_INLINE_MAX) {
			*w++ = (char)s.n;
			w = str_put_short(w, s);
		} else {
			struct key h = hasher_of(&p->hasher, s.p, s.n);
			*w++ = (char)VALUE_LONG;
			key_put(&h, w);
			w += KEY_BYTES;
		}
	}
	return hasher_of(&p->hasher, bytes, (size_t)(w - bytes));
}

static inline struct key hash_values(
	const struct policy *p, const struct rule *r, const struct view *v, uint32_t found)
{
	struct addr room;

	if (r->per_n == 0)
		return (struct key){ 0, 0 };
	if (r->per_n > 1)
		return hash_several(p, r, v, found);
	struct str s = value_of(p, v, slot_found(r, 0, found), &room);
	return hasher_of(&p->hasher, s.p, s.n);
}

/* What has been hashed for this request, by rule->per_shared; and which rules apply. */
struct memo {
	uint64_t have, marks;
	struct key hash[PER_SHARED_MAX + 1];
};

/* The descriptor: what its names and its values hash to. Each part is a keyed hash of a text of its
 * own kind, so that their sum is as hard to steer as any of them: `user` and `key` of one value
 * differ. The order in which a rule names its fields is no part of it. */
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
		return key_sum(k, r->per_salt);
	for (unsigned i = 0; i < r->per_n; i++)
		k = key_sum(k, r->per[i].salt[per_alternative(found, i)]);
	return k;
}

/* The lowest bit tells a store which time line the bucket lives on: that of the salt, by
 * policy_seal(); the descriptor's was cleared. */
static inline struct key limit_key(const struct limit *l, struct key descriptor)
{
	return (struct key){ descriptor.a ^ l->salt.a, descriptor.b ^ l->salt.b };
}

/* Adds the rule's takes from `t` on; returns where they end. */
static inline struct take *plan_rule(const struct policy *p, const struct rule *r,
	const struct limits *limits, const struct view *v, struct memo *memo, struct take *t)
{
	uint32_t found;

	if ((r->match && !match_holds(r->match, v)) || !find_per(r, v, &found))
		return t;
	memo->marks += r->mark;
	struct key descriptor = descriptor_of(p, r, v, found, memo);
	descriptor.b &= ~1ull;
	int64_t cost = view_cost(v, r->cost_slot);
	const struct limit *l = limits->limit;
	for (unsigned n = limits->n; n; n--, l++, t++) {
		t->limit = l;
		t->key = limit_key(l, descriptor);
		t->cost = cost;
		t->per_found = found;
	}
	return t;
}

/* The limits of rule `i` for this client, where his override has some; else NULL. */
static const struct limits *special_limits(
	const struct policy *p, const struct override *o, unsigned i)
{
	for (unsigned k = 0; k < o->rates_n; k++)
		if (o->rates[k].rule == i)
			return &p->rule[i].special[o->rates[k].special];
	return NULL;
}

static enum outcome find_outcome(
	const struct policy *p, const struct override *o, const struct view *v)
{
	if (!p->enabled)
		return OUTCOME_DISABLED;
	/* Who sets something for one client knows of the lists. */
	if (o && o->kind == OVERRIDE_BLOCK)
		return OUTCOME_BLOCKED;
	if (o && o->kind == OVERRIDE_BYPASS)
		return OUTCOME_BYPASSED;
	if (one_matches(p->block, p->block_n, v))
		return OUTCOME_BLOCKED;
	if (one_matches(p->allow, p->allow_n, v))
		return OUTCOME_BYPASSED;
	return OUTCOME_LIMITS;
}

static inline void plan_begin(struct plan *plan)
{
	plan->n = 0;
	plan->marks = 0;
	plan->degraded = plan->closed = plan->prefetched = false;
	plan->begun = 0;
	plan->done = NULL;
}

static inline __attribute__((always_inline)) void plan_limits(const struct policy *p,
	const struct override *o, const struct view *v, int tier, struct plan *plan)
{
	struct memo memo;
	struct take *t = plan->take;

	memo.have = memo.marks = 0;
	const struct rule *r = p->rule; /* NULL where there are none */
	for (unsigned left = p->rule_n; left; left--, r++) {
		const struct limits *limits = tier >= 0 ? &r->tier[tier] : &r->other;
		if (o && o->kind == OVERRIDE_RATES) {
			const struct limits *own = special_limits(p, o, (unsigned)(r - p->rule));
			limits = own ? own : limits;
		}
		if (r->mode == MODE_OFF || !limits->n)
			continue;
		assert(t + limits->n <= plan->take + PLAN_MAX); /* config counts them */
		t = plan_rule(p, r, limits, v, &memo, t);
	}
	plan->n = (unsigned)(t - plan->take);
	plan->marks = memo.marks;
}

void policy_plan(const struct policy *p, struct view *v, struct plan *plan)
{
	const struct override *o = p->overrides ? overrides_find(p->overrides, v) : NULL;

	plan_begin(plan);
	int tier = find_tier(p, o, v, plan);
	plan->outcome = find_outcome(p, o, v);
	if (plan->outcome == OUTCOME_LIMITS)
		plan_limits(p, o, v, tier, plan);
}

/* ---- all counters of a client ---- */

/* The sets of limits that a rule has, those of this client first: his override's, his tier's,
 * `default`, and then those of all tiers. NULL: there are no more. */
static const struct limits *limits_in_turn(
	const struct policy *p, const struct override *o, int tier, unsigned rule, unsigned i)
{
	static const struct limits none;
	const struct rule *r = &p->rule[rule];
	const struct limits *own;

	switch (i) {
	case 0:
		own = o && o->kind == OVERRIDE_RATES ? special_limits(p, o, rule) : NULL;
		return own ? own : &none;
	case 1:
		return tier >= 0 ? &r->tier[tier] : &none;
	case 2:
		return &r->other;
	default:
		return i - 3 < p->tier_n ? &r->tier[i - 3] : NULL;
	}
}

/* Which counters of a rule were met: one for each window. */
struct met {
	struct key salt[RULE_WINDOWS_MAX];
	unsigned n;
};

static bool is_met(struct met *m, const struct key *salt)
{
	for (unsigned i = 0; i < m->n; i++)
		if (m->salt[i].a == salt->a && m->salt[i].b == salt->b)
			return true;
	assert(m->n < RULE_WINDOWS_MAX); /* policy_seal() counts them */
	m->salt[m->n++] = *salt;
	return false;
}

/* From at->limit on, those of one rule. false: there was no room for all. */
static bool add_counters(const struct policy *p, const struct override *o, int tier,
	const struct view *v, uint32_t found, struct counters_at *at, struct plan *plan)
{
	const struct rule *r = &p->rule[at->rule];
	struct memo memo = { 0 };
	struct key descriptor = descriptor_of(p, r, v, found, &memo);
	const struct limits *limits;
	struct met met;
	unsigned place = 0;

	met.n = 0;
	descriptor.b &= ~1ull;
	for (unsigned i = 0; (limits = limits_in_turn(p, o, tier, at->rule, i)); i++)
		for (unsigned k = 0; k < limits->n; k++) {
			const struct limit *l = &limits->limit[k];
			if (is_met(&met, &l->salt) || place++ < at->limit)
				continue;
			if (plan->n == PLAN_MAX)
				return false;
			plan->take[plan->n++] = (struct take){
				.limit = l, .key = limit_key(l, descriptor), .per_found = found
			};
			at->limit = place;
		}
	return true;
}

void policy_counters(
	const struct policy *p, struct view *v, struct counters_at *at, struct plan *plan)
{
	const struct override *o = p->overrides ? overrides_find(p->overrides, v) : NULL;
	uint32_t found;

	plan_begin(plan);
	int tier = find_tier(p, o, v, plan);
	plan->outcome = OUTCOME_LIMITS;
	for (; at->rule < p->rule_n; at->rule++, at->limit = 0) {
		const struct rule *r = &p->rule[at->rule];
		if (r->mode == MODE_OFF || (r->match && !match_holds(r->match, v)) ||
			!find_per(r, v, &found))
			continue;
		if (!add_counters(p, o, tier, v, found, at, plan))
			return;
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

/* What clients say: its NUL would be the end of a text that people are shown, and make two clients
 * one to them, or a client another. */
static void say_free(struct text *t, struct str s)
{
	size_t from = t->n;

	say(t, s.p, s.n);
	for (char *z; t->n > from && (z = memchr(t->p + from, '\0', t->n - from));)
		*z = '?';
}

static void say_value(struct text *t, const struct policy *p, const struct view *v, unsigned slot)
{
	char hex[SHA256_HEX_BYTES], ip[ADDR_TEXT_MAX];
	struct str s = v->text[slot];

	if (!view_has(v, slot))
		return; /* read once more from a NOTIFY that was kept in part */
	if (slot == FIELD_IP) {
		struct addr a = addr_mask(&v->ip, p->ipv4_prefix, p->ipv6_prefix);
		s = (struct str){ ip, addr_format(&a, ip) };
	}
	if (p->secret >> slot & 1) {
		if (!(v->hashed >> slot & 1)) {
			hash_sha256_hex(s, hex);
			s.p = hex;
		}
		say(t, "sha256:", 7);
		s.n = SECRET_HEX_SHOWN;
	}
	say_free(t, s);
}

/* The fields that a take counts by, joined by +; with their values where there is a view. */
static size_t say_fields(const struct policy *p, const struct take *take, const struct view *v,
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
		if (!v)
			continue;
		say(&t, "=", 1);
		say_value(&t, p, v, slot);
	}
	return t.n;
}

size_t take_scope(const struct policy *p, const struct take *take, char *out, size_t size)
{
	return say_fields(p, take, NULL, out, size);
}

size_t take_describe(const struct policy *p, const struct take *take, const struct view *v,
	char *out, size_t size)
{
	return say_fields(p, take, v, out, size);
}

static void say_field(struct text *t, const struct policy *p, const struct view *v, unsigned slot)
{
	if (t->n)
		say(t, "+", 1);
	say(t, p->layout.field[slot].name, p->layout.field[slot].length);
	say(t, "=", 1);
	say_value(t, p, v, slot);
}

size_t view_describe(const struct policy *p, const struct view *v, char *out, size_t size)
{
	struct text t = { out, 0, size };

	if (view_has(v, FIELD_USER))
		say_field(&t, p, v, FIELD_USER);
	if (view_has(v, FIELD_KEY))
		say_field(&t, p, v, FIELD_KEY);
	return t.n ? t.n : view_describe_address(p, v, out, size);
}

size_t view_describe_address(const struct policy *p, const struct view *v, char *out, size_t size)
{
	struct text t = { out, 0, size };

	if (view_has(v, FIELD_IP))
		say_field(&t, p, v, FIELD_IP);
	return t.n;
}
