#include "limit/policy.h"

#include "limit/names.h"
#include "limit/override.h"
#include "limit/penalty.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- tiers ---- */

int policy_tier_find(const struct policy *p, struct str name)
{
	return (int)names_find(p->tier_names, name);
}

bool policy_matches_tier(const struct policy *p, struct str name)
{
	struct view v; /* no more of it is looked at */

	if (!p->tiers_matched)
		return false;
	v.present = 1ull << FIELD_TIER;
	v.text[FIELD_TIER] = name;
	return match_holds(p->tiers_matched, &v);
}

bool policy_misses_tier(const struct policy *p, struct str name)
{
	return p->lists_tiers && !policy_matches_tier(p, name);
}

static bool hides(const struct policy *p, const char *name)
{
	for (unsigned slot = 0; slot < p->layout.n; slot++)
		if (p->secret >> slot & 1 && strcmp(p->layout.field[slot].name, name) == 0)
			return true;
	return false;
}

bool policy_hides_more(const struct policy *now, const struct policy *before)
{
	for (unsigned slot = 0; slot < now->layout.n; slot++)
		if (now->secret >> slot & 1 && !hides(before, now->layout.field[slot].name))
			return true;
	return false;
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

static void limits_free(struct limits *l)
{
	free(l->limit);
	free(l->share);
}

static void rule_free(struct rule *r, unsigned tiers)
{
	match_free(r->match);
	free(r->tag);
	for (unsigned t = 0; r->tier && t < tiers; t++)
		limits_free(&r->tier[t]);
	free(r->tier);
	limits_free(&r->other);
	for (unsigned i = 0; i < r->special_n; i++)
		limits_free(&r->special[i]);
	free(r->special);
	free(r->penalty);
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
	match_free(p->tiers_matched);
	matches_free(p->allow, p->allow_n);
	matches_free(p->block, p->block_n);
	overrides_free(p->overrides);
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
	struct key once = hasher_of(&p->hasher, text, (size_t)n);
	uint8_t bytes[KEY_BYTES];

	key_put(&once, bytes);
	return hasher_of(&p->hasher, bytes, sizeof bytes);
}

/* What makes a counter the same (CONTRACT.md): the rule's name, algorithm and window here, the
 * descriptor in plan.c; position, mode, action and quota are no part of it. */
struct key policy_salt(const struct policy *p, const char *kind, const struct limit *l)
{
	char text[RULE_NAME_MAX + 96];
	int n = snprintf(text, sizeof text, "%s %d %d %lld %s", kind, l->quota.algorithm,
		l->quota.window.kind, (long long)l->quota.window.length, l->rule->name);
	/* No name holds a line's end. */
	if (l->rule->epoch)
		n += snprintf(text + n, sizeof text - (size_t)n, "\n%" PRIu32, l->rule->epoch);
	struct key salt = hash_name(p, text, n);
	/* A store tells by the lowest bit of a key which time line its bucket lives on. */
	salt.b = (salt.b & ~1ull) | (l->quota.algorithm != ALGORITHM_TOKEN_BUCKET);
	return salt;
}

static long long whole_seconds(usec_t t)
{
	return (t + USEC_PER_SEC - 1) / USEC_PER_SEC;
}

/* "api:3600". Of windows that are as long in whole seconds, those that are not those seconds go by
 * another name: a month beside 30 days, 1500 milliseconds beside two seconds. */
static void label_of_several(const struct rule *r, const struct limits *limits, struct limit *l)
{
	const struct window *w = &l->quota.window;
	long long seconds = whole_seconds(w->length);
	bool is_alone = true;

	for (unsigned i = 0; i < limits->n; i++)
		is_alone &= &limits->limit[i] == l ||
			    whole_seconds(limits->limit[i].quota.window.length) != seconds;
	if (!is_alone && w->kind == WINDOW_MONTH)
		snprintf(l->label, sizeof l->label, "%s:month", r->name);
	else if (!is_alone && w->length % USEC_PER_SEC)
		snprintf(l->label, sizeof l->label, "%s:%lldus", r->name, (long long)w->length);
	else
		snprintf(l->label, sizeof l->label, "%s:%lld", r->name, seconds);
}

static void seal_limits(const struct policy *p, struct rule *r, struct limits *limits)
{
	for (unsigned i = 0; i < limits->n; i++) {
		struct limit *l = &limits->limit[i];
		l->rule = r;
		l->local = l;
		l->whole = NULL;
		/* What never refills lets nothing pass, burst or not. */
		if (l->quota.units == 0)
			l->quota.capacity = 0;
		l->salt = policy_salt(p, "limit", l);
		l->slowest_refill = 0;
		l->slowest_interval = 0;
		if (limits->n > 1)
			label_of_several(r, limits, l);
		else
			snprintf(l->label, sizeof l->label, "%s", r->name);
	}
}

/* All that a rule has: of each tier, of all others, of overrides. */
static unsigned limits_count(const struct rule *r, unsigned tiers)
{
	return tiers + 1 + r->special_n;
}

static struct limits *limits_at(struct rule *r, unsigned tiers, unsigned i)
{
	return i < tiers ? &r->tier[i] : i == tiers ? &r->other : &r->special[i - tiers - 1];
}

/* The limits of all tiers with one window share a counter: the slowest of them counts. */
struct slowest {
	struct window window;
	double refill, interval; /* microseconds: from empty to full; for one unit */
};
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

/* Of the limits, or of their shares. */
static bool seal_slowest(struct rule *r, unsigned tiers, bool shares)
{
	struct slowest list[RULE_WINDOWS_MAX];
	unsigned n = 0;

	for (unsigned t = 0; t < limits_count(r, tiers); t++) {
		struct limits *limits = limits_at(r, tiers, t);
		for (unsigned i = 0; i < limits->n; i++) {
			const struct quota *q = shares ? &limits->share[i].quota
						       : &limits->limit[i].quota;
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
	for (unsigned t = 0; t < limits_count(r, tiers); t++) {
		struct limits *limits = limits_at(r, tiers, t);
		for (unsigned i = 0; i < limits->n; i++) {
			struct limit *l = shares ? &limits->share[i] : &limits->limit[i];
			const struct slowest *s = slowest_of(list, &n, &l->quota.window);
			l->slowest_refill = s->refill;
			l->slowest_interval = s->interval;
		}
	}
	return true;
}

static int64_t share_of(int64_t n, unsigned instances)
{
	return n < instances ? n > 0 : n / instances;
}

/* What each of several agents enforces for itself while the store is away: the same counter, so
 * the same salt, of a smaller limit. false: out of memory. */
static bool seal_shares(struct rule *r, unsigned tiers, unsigned instances)
{
	for (unsigned t = 0; t < limits_count(r, tiers); t++) {
		struct limits *limits = limits_at(r, tiers, t);
		if (limits->n == 0)
			continue;
		limits->share = calloc(limits->n, sizeof *limits->share);
		if (!limits->share)
			return false;
		for (unsigned i = 0; i < limits->n; i++) {
			struct limit *l = &limits->limit[i], *share = &limits->share[i];
			*share = *l;
			share->quota.units = share_of(l->quota.units, instances);
			share->quota.capacity = share_of(l->quota.capacity, instances);
			share->whole = l;
			share->local = share;
			l->local = share;
		}
	}
	(void)seal_slowest(r, tiers, true); /* the same windows: they have been counted */
	return true;
}

static bool stands_before(const struct key *x, const struct key *y)
{
	return x->a != y->a ? x->a < y->a : x->b < y->b;
}

void per_in_order(const struct rule *r, uint32_t found, uint8_t element[PER_MAX])
{
	const struct key *salt[PER_MAX];

	for (unsigned i = 0, k; i < r->per_n; i++) {
		const struct key *this = &r->per[i].salt[per_alternative(found, i)];
		for (k = i; k && stands_before(this, salt[k - 1]); k--) {
			salt[k] = salt[k - 1];
			element[k] = element[k - 1];
		}
		salt[k] = this;
		element[k] = (uint8_t)i;
	}
}

/* A descriptor's names are hashed here, once; its values with each request. */
static void seal_per(const struct policy *p, struct rule *r)
{
	char text[FIELD_NAME_MAX + 32];
	uint8_t element[PER_MAX];

	r->per_all = 0;
	r->per_salt = (struct key){ 0, 0 };
	r->per_is_plain = true;
	for (unsigned i = 0; i < r->per_n; i++) {
		for (unsigned a = 0; a < r->per[i].n; a++) {
			unsigned slot = r->per[i].slot[a];
			int n = snprintf(text, sizeof text, "per %s", p->layout.field[slot].name);
			r->per[i].salt[a] = hash_name(p, text, n);
		}
		r->per_is_plain &= r->per[i].n == 1;
		r->per_all |= 1ull << r->per[i].slot[0];
		r->per_salt = key_sum(r->per_salt, r->per[i].salt[0]);
	}
	per_in_order(r, 0, element);
	for (unsigned i = 0; i < r->per_n; i++)
		r->per_slot[i] = r->per[element[i]].slot[0];
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
	hasher_init(&p->hasher, key);
	p->layout.text_wanted = matches_slots(p->allow, p->allow_n) |
				matches_slots(p->block, p->block_n) | 1ull << FIELD_TIER |
				1ull << FIELD_USER | 1ull << FIELD_KEY;
	for (unsigned i = 0; i < p->rule_n; i++) {
		struct rule *r = &p->rule[i];
		for (unsigned t = 0; t < limits_count(r, p->tier_n); t++) {
			struct limits *limits = limits_at(r, p->tier_n, t);
			if (limits->n > PLAN_MAX) {
				snprintf(why, size,
					"rule \"%s\": %u limits for one tier: at most %d", r->name,
					limits->n, PLAN_MAX);
				return false;
			}
			seal_limits(p, r, limits);
		}
		if (!seal_slowest(r, p->tier_n, false)) {
			snprintf(why, size, "rule \"%s\": more than %d different windows", r->name,
				RULE_WINDOWS_MAX);
			return false;
		}
		if (p->instances > 1 && !seal_shares(r, p->tier_n, p->instances)) {
			snprintf(why, size, "out of memory");
			return false;
		}
		if (r->match)
			p->layout.text_wanted |= match_slots(r->match);
		for (unsigned e = 0; e < r->per_n; e++)
			for (unsigned a = 0; a < r->per[e].n; a++)
				p->layout.text_wanted |= 1ull << r->per[e].slot[a];
		r->name_length = (uint8_t)strlen(r->name);
		seal_per(p, r);
		if (r->penalty) {
			penalty_seal(p, r);
			p->has_penalties = true;
		}
	}
	if (p->layout.text_wanted >> FIELD_ENDPOINT & 1)
		p->layout.text_wanted |= 1ull << FIELD_METHOD | 1ull << FIELD_PATH;
	seal_shared(p);
	return true;
}
