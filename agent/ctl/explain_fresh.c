#include "base/hash.h"
#include "config/rate.h"
#include "ctl/explain.h"
#include "limit/decision.h"

#include <stdlib.h>

/* Room for a view's scratch: view_init() says how much. */
static size_t scratch_for(const json_t *fields)
{
	size_t n = FIELDS_MAX * ADDR_TEXT_MAX;
	const char *name;
	json_t *v;

	json_object_foreach((json_t *)fields, name, v)
	{
		n += 3 * (strlen(name) + json_string_length(v));
	}
	return n;
}

/* Of a secret that is known by its hash alone: the hash itself stands for its value. */
struct hashed {
	struct str text; /* "sha256:HEX"; .p NULL: there is none */
	int64_t tier;    /* that the tiers file has for it; -1: none */
};

static bool is_hash(struct str s)
{
	return s.n == 7 + SHA256_HEX_BYTES && memcmp(s.p, "sha256:", 7) == 0;
}

static void load(
	const struct policy *p, struct view *v, const json_t *fields, struct hashed *hashed)
{
	const char *name;
	json_t *value;

	*hashed = (struct hashed){ .tier = -1 };
	json_object_foreach((json_t *)fields, name, value)
	{
		struct str text = { json_string_value(value), json_string_length(value) };
		int slot = layout_find_arg(&p->layout, str_of(name));
		if (slot < 0)
			continue;
		view_set_text(v, (unsigned)slot, text);
		if (slot != FIELD_KEY || !(p->secret >> slot & 1) || !is_hash(text))
			continue;
		hashed->text = text;
		if (p->tier_map)
			hashed->tier = tier_map_find_hash(
				p->tier_map, (struct str){ text.p + 7, text.n - 7 });
	}
	view_finish(v);
	if (hashed->tier >= 0 && !view_has(v, FIELD_TIER)) {
		v->text[FIELD_TIER] = str_of(p->tier[hashed->tier].name);
		v->present |= 1ull << FIELD_TIER;
	}
}

/* A description hashes what stood for the value: what it gave in place of it is put right. */
static void mend(struct str hashed, char *text)
{
	enum { SHOWN = 12 };
	char hex[SHA256_HEX_BYTES + 1] = "";

	if (!hashed.p)
		return;
	hash_sha256_hex(hashed, hex);
	hex[SHOWN] = '\0';
	char *at = strstr(text, hex);
	if (at)
		memcpy(at, hashed.p + 7, SHOWN);
}

/* ---- in words ---- */

static json_t *limit_json(const struct take *t)
{
	const struct verdict *v = &t->verdict;
	char rate[RATE_TEXT_MAX];

	(void)quota_format(&t->limit->quota, false, rate);
	return json_pack("{s:s, s:s, s:b, s:b, s:I, s:I, s:I}", "label", t->limit->label, "rate",
		rate, "admits", v->admits, "oversize", v->oversize, "limit",
		(json_int_t)t->limit->quota.capacity, "remaining",
		(json_int_t)(v->left > 0 ? v->left : 0), "retry_after",
		(json_int_t)((v->retry_after + USEC_PER_SEC - 1) / USEC_PER_SEC));
}

/* Why a rule has no part in the plan. */
static const char *why_not(const struct rule *r, const struct view *v, char out[160])
{
	if (r->mode == MODE_OFF)
		return "is off";
	if (r->match && !match_holds(r->match, v))
		return "does not match";
	for (unsigned i = 0; i < r->per_n; i++) {
		unsigned a = 0;
		while (a < r->per[i].n && !view_has(v, r->per[i].slot[a]))
			a++;
		if (a < r->per[i].n)
			continue;
		int n = snprintf(out, 160, "counts by ");
		for (a = 0; a < r->per[i].n && n < 160; a++)
			n += snprintf(out + n, (size_t)(160 - n), "%s%s", a ? "|" : "",
				v->layout->field[r->per[i].slot[a]].name);
		if (n < 160)
			(void)snprintf(out + n, (size_t)(160 - n), ", which is not there");
		return out;
	}
	return "does not limit this tier";
}

static json_t *rule_json(const struct policy *p, const struct rule *r, const struct plan *plan,
	const struct view *v, struct str hashed)
{
	static const char *const mode[] = { "enforce", "shadow", "off" };
	char by[512], room[160];
	json_t *limits = json_array();
	json_t *o = json_pack("{s:s, s:s}", "name", r->name, "mode", mode[r->mode]);

	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		if (t->limit->rule != r)
			continue;
		size_t n = take_describe(p, t, v, by, sizeof by - 1);
		by[n] = '\0';
		mend(hashed, by);
		(void)json_object_set_new(o, "counts_by", json_stringn(by, n));
		(void)json_array_append_new(limits, limit_json(t));
	}
	bool applies = json_array_size(limits) > 0;
	(void)json_object_set_new(o, "applies", json_boolean(applies));
	if (!applies)
		(void)json_object_set_new(o, "why",
			json_string(plan->outcome == OUTCOME_LIMITS ? why_not(r, v, room)
								    : "is not asked"));
	(void)json_object_set_new(o, "limits", limits);
	return o;
}

static json_t *decision_json(const struct plan *plan, struct now now)
{
	struct decision d = decide(plan, now);
	json_t *o = json_pack(
		"{s:b, s:s, s:b}", "deny", d.deny, "reason", reason_name(d.reason), "warn", d.warn);

	if (d.reported) {
		(void)json_object_set_new(o, "rule", json_string(d.reported->limit->rule->name));
		(void)json_object_set_new(o, "limit", json_integer(d.limit));
		(void)json_object_set_new(o, "remaining", json_integer(d.remaining));
		(void)json_object_set_new(o, "reset", json_integer(d.reset));
		(void)json_object_set_new(o, "retry_after", json_integer(d.retry_after));
	}
	if (d.shadow)
		(void)json_object_set_new(o, "shadow", json_string(d.shadow->name));
	if (d.tag)
		(void)json_object_set_new(o, "tag", json_string(d.tag->tag));
	return o;
}

json_t *explain_fresh(const struct policy *p, const json_t *fields, struct now now)
{
	const struct bucket *none[PLAN_MAX] = { NULL };
	const json_t *message = json_object_get(fields, "message");
	size_t size = scratch_for(fields);
	char *scratch = malloc(size);
	struct view v;
	struct plan plan;
	struct hashed hashed;

	if (!scratch)
		return NULL;
	view_init(&v, &p->layout, message ? str_of(json_string_value(message)) : STR("check"),
		scratch, size);
	load(p, &v, fields, &hashed);
	policy_plan(p, &v, &plan);
	plan.now = now;
	if (plan.outcome == OUTCOME_LIMITS)
		plan_charge(&plan, none, now);
	json_t *rules = json_array();
	for (unsigned i = 0; i < p->rule_n; i++)
		(void)json_array_append_new(
			rules, rule_json(p, &p->rule[i], &plan, &v, hashed.text));
	json_t *answer = json_pack("{s:o, s:s%, s:o}", "decision", decision_json(&plan, now),
		"tier", plan.tier, (size_t)plan.tier_length, "rules", rules);
	free(scratch);
	return answer;
}
