#include "config/explain.h"

#include "config/field.h"
#include "config/json.h"
#include "config/rate.h"
#include "limit/override.h"

#include <stdio.h>
#include <stdlib.h>

static bool fail(char *err, size_t size, const char *what, const char *name)
{
	(void)snprintf(err, size, "%.64s: %s", name, what);
	return false;
}

/* ---- fields -> view ---- */

/* What view_init() asks for. */
static size_t scratch_for(json_t *fields)
{
	size_t n = FIELDS_MAX * ADDR_TEXT_MAX;
	const char *name;
	json_t *v;

	json_object_foreach(fields, name, v)
	{
		n += 3 * (strlen(name) + json_string_length(v));
	}
	return n;
}

/* As server/check.c has it of a frame. */
static bool message_of(json_t *fields, struct str *message, char *err, size_t size)
{
	json_t *v = json_object_get(fields, "message");

	*message = v ? (struct str){ json_string_value(v), json_string_length(v) } : STR("check");
	if ((!v || json_is_string(v)) && message->n >= 5 && memcmp(message->p, "check", 5) == 0 &&
		(message->n == 5 || message->p[5] == '-'))
		return true;
	return fail(err, size, "want \"check\", or a name that begins with \"check-\"", "message");
}

/* Taken as a key it would find nobody, and say nothing of it. */
static bool key_is_said_well(const struct policy *p, json_t *fields, char *err, size_t size)
{
	json_t *v = json_object_get(fields, "key");
	struct str key = { json_string_value(v), json_string_length(v) };
	char hex[SHA256_HEX_BYTES];

	return !(p->secret >> FIELD_KEY & 1) || hash_said(key, hex) != HASH_SAID_BADLY ||
	       fail(err, size, HASH_SAID_WANTED, "key");
}

bool explain_init(
	struct explain *e, const struct policy *p, json_t *fields, char *err, size_t err_size)
{
	const char *name;
	struct str message;
	json_t *v;

	*e = (struct explain){ .policy = p, .fields = json_incref(fields) };
	if (!json_is_object(fields))
		return fail(err, err_size, "want an object: {\"ip\": \"192.0.2.1\"}", "fields");
	if (!message_of(fields, &message, err, err_size) ||
		!key_is_said_well(p, fields, err, err_size))
		return false;
	size_t size = scratch_for(fields);
	e->scratch = malloc(size);
	if (!e->scratch)
		return fail(err, err_size, "out of memory", "fields");
	view_init(&e->view, &p->layout, message, e->scratch, size);
	json_object_foreach(fields, name, v)
	{
		if (strcmp(name, "message") != 0 && !field_load_json(&e->view, p, str_of(name), v))
			return fail(err, err_size,
				"want a text, a whole number, true, false or null", name);
	}
	view_finish(&e->view);
	return true;
}

void explain_fini(struct explain *e)
{
	json_decref(e->fields);
	json_decref(e->ban);
	free(e->scratch);
	e->fields = NULL;
	e->ban = NULL;
	e->scratch = NULL;
}

/* ---- view -> plan ---- */

void explain_plan(struct explain *e, struct str tier)
{
	e->tier_by_store = tier.n != 0;
	if (e->tier_by_store)
		view_put_tier(&e->view, tier);
	e->why = policy_why(e->policy, &e->view);
	policy_plan(e->policy, &e->view, &e->plan);
	plan_ask(&e->plan, e->policy, &e->view, &e->known, e->fresh);
	e->planned = e->plan;
}

void explain_counters(struct explain *e, struct str tier, const char *rule, struct counters_at *at)
{
	unsigned kept = 0;

	if (tier.n)
		view_put_tier(&e->view, tier);
	do {
		policy_counters(e->policy, &e->view, at, &e->plan);
		if (!e->plan.n)
			return;
		plan_ask(&e->plan, e->policy, &e->view, &e->known, false);
		for (unsigned i = 0; i < e->plan.n; i++) {
			const struct rule *r = e->plan.take[i].limit->rule;
			if (rule ? strcmp(r->name, rule) == 0 : !rule_is_shared(r, &e->view))
				e->plan.take[kept++] = e->plan.take[i];
		}
		e->plan.n = kept;
	} while (!kept);
}

void explain_as_fresh(struct explain *e, struct now now)
{
	e->fresh = true;
	explain_plan(e, (struct str){ 0 });
	for (unsigned i = 0; i < e->plan.n; i++)
		e->plan.take[i].verdict = (struct verdict){ 0 };
	e->plan.now = now;
}

static struct str hash_of(const struct view *v, unsigned slot, char hex[SHA256_HEX_BYTES])
{
	if (v->hashed >> slot & 1)
		return v->text[slot];
	hash_sha256_hex(v->text[slot], hex);
	return (struct str){ hex, SHA256_HEX_BYTES };
}

bool explain_override(const struct explain *e, char out[EXPLAIN_NAME_MAX])
{
	const struct override *o = e->why.override;
	char hex[SHA256_HEX_BYTES], ip[ADDR_TEXT_MAX];
	uint8_t length;
	struct str s;

	if (!o)
		return false;
	switch (o->by) {
	case OVERRIDE_USER:
		s = e->view.text[FIELD_USER];
		(void)snprintf(out, EXPLAIN_NAME_MAX, "user:%.*s", (int)s.n, s.p);
		break;
	case OVERRIDE_USER_HASH:
		s = hash_of(&e->view, FIELD_USER, hex);
		(void)snprintf(out, EXPLAIN_NAME_MAX, "user:sha256:%.*s", (int)s.n, s.p);
		break;
	case OVERRIDE_KEY:
		s = hash_of(&e->view, FIELD_KEY, hex);
		(void)snprintf(out, EXPLAIN_NAME_MAX, "key:sha256:%.*s", (int)s.n, s.p);
		break;
	case OVERRIDE_IP:
		(void)snprintf(out, EXPLAIN_NAME_MAX, "ip:%.*s/%u",
			(int)addr_format(&o->cidr.addr, ip), ip, (unsigned)o->cidr.prefix);
		break;
	case OVERRIDE_IP_HASH:
		length = o->cidr.prefix;
		override_ip_hash(&(struct cidr){ .addr = addr_mask(&e->view.ip, length, length),
					 .prefix = length },
			hex);
		(void)snprintf(out, EXPLAIN_NAME_MAX, "ip:sha256:%.*s/%u", SHA256_HEX_BYTES, hex,
			(unsigned)length);
		break;
	}
	return true;
}

/* ---- in words ---- */

static json_int_t seconds(usec_t t)
{
	return (t + USEC_PER_SEC - 1) / USEC_PER_SEC;
}

static void put(json_t *o, const char *name, json_t *v)
{
	(void)json_object_set_new(o, name, v);
}

static const char *algorithm_name(enum algorithm a)
{
	static const char *const name[] = { [ALGORITHM_TOKEN_BUCKET] = "token-bucket",
		[ALGORITHM_SLIDING_WINDOW] = "sliding-window",
		[ALGORITHM_FIXED_WINDOW] = "fixed-window" };
	return name[a];
}

static json_t *limit_json(const struct take *t, int64_t before, struct now now)
{
	const struct quota *q = &t->limit->quota;
	const struct verdict *v = &t->verdict;
	char rate[RATE_TEXT_MAX], window[DURATION_TEXT_MAX];

	return json_pack("{s:o, s:s, s:s, s:s, s:I, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I}",
		"label", json_of(str_of(t->limit->label)), "rate", quota_format(q, false, rate),
		"algorithm", algorithm_name(q->algorithm), "window",
		window_format(&q->window, window), "cost", (json_int_t)t->cost, "admits", v->admits,
		"oversize", v->oversize, "charged", v->charged, "limit", (json_int_t)q->capacity,
		"remaining_now", (json_int_t)before, "remaining",
		(json_int_t)bucket_remaining(q, &v->state, now), "reset",
		seconds(bucket_reset_after(q, &v->state, now)), "retry_after",
		seconds(v->retry_after));
}

/* "key", or "key|user" of alternatives. */
static void say_per(const struct per *per, const struct layout *l, char *out, size_t size)
{
	int n = 0;

	for (unsigned a = 0; a < per->n && n >= 0 && (size_t)n < size; a++)
		n += snprintf(out + n, size - (size_t)n, "%s%s", a ? "|" : "",
			l->field[per->slot[a]].name);
}

static const char *outcome_text(enum outcome o)
{
	switch (o) {
	case OUTCOME_DISABLED:
		return "is not asked: limiting is switched off";
	case OUTCOME_BLOCKED:
		return "is not asked: the request is blocked";
	case OUTCOME_BYPASSED:
		return "is not asked: the request bypasses all limits";
	case OUTCOME_BANNED:
		return "is not asked: the request is banned";
	case OUTCOME_LIMITS:
		break;
	}
	return "is not asked";
}

/* Why a rule has no say. */
static json_t *why_json(const struct explain *e, const struct rule *r, struct rule_why w)
{
	const struct layout *l = &e->policy->layout;
	char text[1024], per[PER_ALT_MAX * (FIELD_NAME_MAX + 1) + 1] = "";

	switch (w.part) {
	case PART_OFF:
		return json_string("is off");
	case PART_NO_MATCH:
		(void)snprintf(text, sizeof text, "does not match: %s %s", l->field[w.slot].name,
			view_has(&e->view, w.slot) ? "is another" : "is not there");
		break;
	case PART_NO_FIELD:
		say_per(&r->per[w.slot], l, per, sizeof per);
		(void)snprintf(text, sizeof text, "counts by %s, which is not there", per);
		break;
	case PART_NO_TIER:
		return json_string("does not limit this tier");
	case PART_UNKNOWN:
		(void)snprintf(text, sizeof text,
			r->match && match_slots(r->match) >> w.slot & 1
				? "matches by %s, of which only the hash is given: nobody can tell"
				: "counts by %s, of which only the hash is given, and no request with "
				  "it was seen by this agent lately: its counters are found by the %s "
				  "itself",
			l->field[w.slot].name, l->field[w.slot].name);
		break;
	case PART_APPLIES:
		return json_string("is not counted while its store is away");
	}
	return json_of(str_of(text));
}

static json_t *limits_json(const struct explain *e, const struct rule *r, const int64_t *before)
{
	json_t *limits = json_array();

	for (unsigned i = 0; i < e->plan.n; i++)
		if (e->plan.take[i].limit->rule == r)
			(void)json_array_append_new(
				limits, limit_json(&e->plan.take[i], before[i], e->plan.now));
	return limits;
}

/* ["key"]: a request that has one of these is counted by that. */
static json_t *without_json(const struct explain *e, const struct take *t)
{
	uint64_t slots = take_counts_without(t);
	json_t *list = json_array();

	for (unsigned i = 0; i < e->policy->layout.n; i++)
		if (slots >> i & 1)
			(void)json_array_append_new(
				list, json_of(str_of(e->policy->layout.field[i].name)));
	return list;
}

static void put_scope(const struct explain *e, const struct rule *r, json_t *o)
{
	enum { BYTES = 1024 };
	char text[BYTES];

	for (unsigned i = 0; i < e->planned.n; i++) {
		const struct take *t = &e->planned.take[i];
		if (t->limit->rule != r)
			continue;
		size_t n = take_scope(e->policy, t, text, BYTES);
		put(o, "scope", json_of((struct str){ text, n }));
		n = take_describe(e->policy, t, &e->view, text, BYTES);
		put(o, "counts_by", json_of((struct str){ text, n }));
		put(o, "only_without", without_json(e, t));
		return;
	}
}

static json_t *rule_json(const struct explain *e, const struct rule *r, const int64_t *before)
{
	static const char *const mode[] = { "enforce", "shadow", "off" };
	json_t *o = json_pack("{s:o, s:s, s:s}", "name", json_of(str_of(r->name)), "mode",
		mode[r->mode], "action", r->action == ACTION_TAG ? "tag" : "deny");
	bool asked = e->plan.outcome == OUTCOME_LIMITS;
	struct rule_why w = { .part = PART_OFF };
	json_t *limits = asked ? limits_json(e, r, before) : json_array();

	if (asked) {
		w = rule_explain(r, &e->view, &e->planned, e->fresh);
		put_scope(e, r, o);
	}
	/* null: nobody can tell */
	put(o, "applies",
		asked && w.part == PART_UNKNOWN ? json_null()
						: json_boolean(asked && w.part == PART_APPLIES));
	if (!asked)
		put(o, "why", json_string(outcome_text(e->plan.outcome)));
	else if (!json_array_size(limits))
		put(o, "why", why_json(e, r, w));
	put(o, "limits", limits);
	if (asked && w.part == PART_UNKNOWN)
		put(o, "state", json_null());
	return o;
}

static json_t *held_json(const struct take *t)
{
	return t->held == HELD_UNKNOWN ? json_null() : json_boolean(t->held == HELD_SOME);
}

void explain_add_counters(const struct explain *e, json_t *list)
{
	enum { BYTES = 1024 };
	char scope[BYTES], by[BYTES], rate[RATE_TEXT_MAX];

	for (unsigned i = 0; i < e->plan.n; i++) {
		const struct take *t = &e->plan.take[i];
		size_t scope_n = take_scope(e->policy, t, scope, BYTES);
		size_t by_n = take_describe(e->policy, t, &e->view, by, BYTES);
		(void)json_array_append_new(
			list, json_pack("{s:o, s:o, s:o, s:o, s:s, s:o, s:o}", "rule",
				      json_of(str_of(t->limit->rule->name)), "scope",
				      json_of((struct str){ scope, scope_n }), "counts_by",
				      json_of((struct str){ by, by_n }), "limit",
				      json_of(str_of(t->limit->label)), "rate",
				      quota_format(&t->limit->quota, false, rate), "only_without",
				      without_json(e, t), "held", held_json(t)));
	}
}

/* Of any tier. */
static bool has_limits(const struct policy *p, const struct rule *r)
{
	for (unsigned i = 0; i < p->tier_n; i++)
		if (r->tier[i].n)
			return true;
	return r->other.n || r->special_n;
}

/* The rule has counters of such a client; false: `w` says why not. */
static bool counts(const struct explain *e, const struct rule *r, struct rule_why *w)
{
	static const struct plan none;

	*w = rule_explain(r, &e->view, &none, false);
	if (w->part == PART_UNKNOWN && rule_is_known(r, e->policy, &e->view, &e->known))
		w->part = PART_NO_TIER;
	return w->part == PART_NO_TIER && has_limits(e->policy, r);
}

json_t *explain_left_json(const struct explain *e, const char *rule)
{
	const struct policy *p = e->policy;
	json_t *list = json_array();
	struct rule_why w;

	for (unsigned i = 0; !rule && i < p->rule_n; i++) {
		const struct rule *r = &p->rule[i];
		if (counts(e, r, &w) && rule_is_shared(r, &e->view))
			(void)json_array_append_new(list,
				json_pack("{s:o, s:s}", "rule", json_of(str_of(r->name)), "why",
					"is shared by all: name the rule to reset it"));
	}
	return list;
}

json_t *explain_untouched_json(const struct explain *e, const char *rule)
{
	const struct policy *p = e->policy;
	json_t *list = json_array();
	struct rule_why w;

	for (unsigned i = 0; i < p->rule_n; i++) {
		const struct rule *r = &p->rule[i];
		if (counts(e, r, &w) || (rule && strcmp(r->name, rule) != 0))
			continue;
		(void)json_array_append_new(
			list, json_pack("{s:o, s:o}", "rule", json_of(str_of(r->name)), "why",
				      why_json(e, r, w)));
	}
	return list;
}

static json_t *decision_json(const struct explain *e)
{
	struct decision d = decide(&e->plan, e->plan.now);
	json_t *o = json_pack(
		"{s:b, s:s, s:b}", "deny", d.deny, "reason", reason_name(d.reason), "warn", d.warn);
	if (d.reported) {
		put(o, "rule", json_of(str_of(d.reported->limit->rule->name)));
		put(o, "limit", json_integer(d.limit));
		put(o, "remaining", json_integer(d.remaining));
		put(o, "reset", json_integer(d.reset));
	}
	if (d.reported || d.retry_after)
		put(o, "retry_after", json_integer(d.retry_after));
	if (d.shadow)
		put(o, "shadow", json_of(str_of(d.shadow->name)));
	if (d.tag)
		put(o, "tag", json_of(str_of(d.tag->tag)));
	return o;
}

static const char *tier_from(const struct explain *e)
{
	static const char *const from[] = {
		[TIER_BY_OVERRIDE] = "override",
		[TIER_BY_MESSAGE] = "message",
		[TIER_BY_KEY] = "key in tiers_file",
		[TIER_BY_USER] = "user in tiers_file",
		[TIER_BY_DEFAULT] = "default_tier",
	};
	if (e->tier_by_store && e->why.tier == TIER_BY_MESSAGE)
		return "redis";
	return from[e->why.tier];
}

/* By its kind; whoever keeps them knows the rest. */
static json_t *override_json(const struct explain *e)
{
	static const char *const sets[] = { [OVERRIDE_TIER] = "tier",
		[OVERRIDE_RATES] = "rates",
		[OVERRIDE_BYPASS] = "bypass",
		[OVERRIDE_BLOCK] = "block" };
	char name[EXPLAIN_NAME_MAX];

	if (!explain_override(e, name))
		return json_null();
	return json_pack(
		"{s:o, s:s}", "for", json_of(str_of(name)), "sets", sets[e->why.override->kind]);
}

/* A typing error, as a rule. */
static bool says_nothing(const struct policy *p, const char *field)
{
	return strcmp(field, "message") != 0 && layout_find_arg(&p->layout, str_of(field)) < 0;
}

static json_t *ignored_json(const struct explain *e)
{
	json_t *list = json_array(), *v;
	const char *name;

	json_object_foreach(e->fields, name, v)
	{
		if (says_nothing(e->policy, name))
			(void)json_array_append_new(list, json_string(name));
	}
	return list;
}

const char *explain_unknown_field(const struct policy *p, json_t *fields)
{
	const char *name;
	json_t *v;

	json_object_foreach(fields, name, v)
	{
		if (says_nothing(p, name))
			return name;
	}
	return NULL;
}

/* By which an override is set for it. */
static json_t *key_json(const struct explain *e)
{
	char hex[SHA256_HEX_BYTES], text[7 + SHA256_HEX_BYTES] = "sha256:";

	if (!view_has(&e->view, FIELD_KEY) || !(e->policy->secret >> FIELD_KEY & 1))
		return json_null();
	memcpy(text + 7, hash_of(&e->view, FIELD_KEY, hex).p, SHA256_HEX_BYTES);
	return json_of((struct str){ text, sizeof text });
}

/* Is there a rule of which nobody can tell whether it denies? */
static bool is_certain(const struct explain *e)
{
	for (unsigned i = 0; i < e->policy->rule_n && e->plan.outcome == OUTCOME_LIMITS; i++) {
		const struct rule *r = &e->policy->rule[i];
		if (r->mode == MODE_ENFORCE && r->action == ACTION_DENY &&
			rule_explain(r, &e->view, &e->planned, e->fresh).part == PART_UNKNOWN)
			return false;
	}
	return true;
}

json_t *explain_json(struct explain *e)
{
	int64_t before[PLAN_MAX];
	const struct policy *p = e->policy;
	json_t *rules = json_array();

	if (e->plan.outcome == OUTCOME_LIMITS)
		plan_foresee(&e->plan, &e->view, before);
	for (unsigned i = 0; i < p->rule_n; i++)
		(void)json_array_append_new(rules, rule_json(e, &p->rule[i], before));
	json_t *decision = decision_json(e);
	bool certain = json_is_true(json_object_get(decision, "deny")) || is_certain(e);
	return json_pack("{s:o, s:b, s:o, s:o, s:s, s:o, s:b, s:b, s:o, s:b, s:o, s:o}", "decision",
		decision, "certain", certain, "key", key_json(e), "tier",
		json_of((struct str){ e->plan.tier, e->plan.tier_length }), "tier_from",
		tier_from(e), "override", override_json(e), "on_block_list", e->why.blocks,
		"on_allow_list", e->why.allows, "banned",
		e->ban ? json_incref(e->ban) : json_null(), "degraded", e->plan.degraded, "ignored",
		ignored_json(e), "rules", rules);
}
