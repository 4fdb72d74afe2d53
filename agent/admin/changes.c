/* /api/v1/overrides, /api/v1/enabled: what the operator changes (config/changes.h). */
#include "admin/body.h"
#include "admin/keeping.h"
#include "admin/routes.h"
#include "base/addr.h"
#include "config/changes.h"
#include "config/json.h"
#include "config/nearest.h"
#include "config/rate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FOR_DAYS = 3660 };
#define FOR_MAX (FOR_DAYS * USEC_PER_DAY)

static const struct admin *admin_of(struct request *r)
{
	return request_context(r);
}

static struct desk *desk_of(struct request *r)
{
	return control_desk(admin_of(r)->control);
}

/* A duration as a text, or whole seconds. */
static bool length_of(const json_t *v, usec_t *out)
{
	if (json_is_integer(v)) {
		json_int_t s = json_integer_value(v);
		bool fits = s > 0 && s <= FOR_MAX / USEC_PER_SEC;
		*out = fits ? s * USEC_PER_SEC : 0;
		return fits;
	}
	return json_is_string(v) && duration_parse(str_of(json_string_value(v)), out);
}

/* "for": "10m" or 600, or "until": SECONDS, as `until` of the change. false: the request has its
 * answer. */
static bool take_end(struct request *r, json_t *body, json_t *change)
{
	json_t *length = json_object_get(body, "for"), *until = json_object_get(body, "until");
	int64_t now = clock_read().utc / USEC_PER_SEC;
	usec_t v;

	if (length && until) {
		request_problem(r, 422, "\"for\" and \"until\": want one of them");
		return false;
	}
	if (length) {
		if (!length_of(length, &v) || v < USEC_PER_SEC || v > FOR_MAX) {
			request_problem(r, 422,
				"for: want a duration of 1s to %dd, like \"10m\", or a number of seconds",
				FOR_DAYS);
			return false;
		}
		json_t *end = json_integer(now + (v + USEC_PER_SEC - 1) / USEC_PER_SEC);
		if (json_object_set_new(change, "until", end) == 0)
			return true;
		request_problem(r, 503, "no memory"); /* without an end it would never end */
		return false;
	}
	if (until && (!json_is_integer(until) || json_integer_value(until) <= now ||
			     json_integer_value(until) - now > FOR_MAX / USEC_PER_SEC)) {
		request_problem(r, 422,
			"until: want an instant in the future, %d days from now at most, in Unix seconds",
			FOR_DAYS);
		return false;
	}
	if (!until || json_object_set(change, "until", until) == 0)
		return true;
	request_problem(r, 503, "no memory");
	return false;
}

static struct act act_of(struct request *r, const char *reason)
{
	return (struct act){ .who = request_who(r), .reason = *reason ? reason : NULL };
}

/* What the desk has refused. */
static void refuse(struct request *r, int status, const char *why)
{
	request_problem(r, desk_asks_to_wait(desk_of(r)) ? 503 : status, "%s", why);
}

/* ---- overrides ---- */

static const char *const subject_by[] = { "user", "key", "ip" };

/* The one for whom it is: "override:user:alice". false: the request has its answer. */
static bool take_subject(struct request *r, json_t *body, char name[CHANGE_NAME_MAX + 16])
{
	const char *found = NULL;
	char subject[CHANGE_NAME_MAX], err[256];
	json_t *value = NULL;

	for (unsigned i = 0; i < 3; i++) {
		json_t *v = json_object_get(body, subject_by[i]);
		if (!v)
			continue;
		if (found) {
			request_problem(r, 422, "\"%s\" and \"%s\": want one of user, key, ip",
				found, subject_by[i]);
			return false;
		}
		found = subject_by[i];
		value = v;
	}
	if (!found || !json_is_string(value)) {
		request_problem(r, 422, "want one of \"user\", \"key\" or \"ip\", with a text");
		return false;
	}
	struct str text = { json_string_value(value), json_string_length(value) };
	unsigned slot = strcmp(found, "ip") == 0 ? FIELD_IP : FIELD_USER;
	bool secret = control_snapshot(admin_of(r)->control)->policy->secret >> slot & 1;
	if (!change_subject(found, text, secret, subject, err, sizeof err)) {
		request_problem(r, 422, "%s", err);
		return false;
	}
	snprintf(name, CHANGE_NAME_MAX + 16, "override:%s", subject);
	return true;
}

/* A change as it is shown: with whom it is for. */
static json_t *override_json(const char *name, json_t *value)
{
	json_t *o = json_copy(value);
	const char *subject = name + strlen("override:"), *colon = strchr(subject, ':');
	char by[8] = "";

	if (!o || (size_t)(colon - subject) >= sizeof by)
		return o;
	memcpy(by, subject, (size_t)(colon - subject));
	(void)json_object_set_new(o, by, json_string(colon + 1));
	return o;
}

struct listing {
	const struct desk *desk;
	json_t *list;
};

/* One more in the list, with what of it is without effect. */
static void add_shown(const struct listing *l, const char *name, json_t *shown)
{
	json_t *warnings = desk_warnings(l->desk, name);

	if (warnings)
		(void)json_object_set_new(shown, "warnings", warnings);
	(void)json_array_append_new(l->list, shown);
}

static void add_override(void *with, const char *name, json_t *value)
{
	add_shown(with, name, override_json(name, value));
}

void overrides_show(struct request *r)
{
	json_t *list = json_array();

	changes_each(desk_changes(desk_of(r)), "override:", add_override,
		&(struct listing){ desk_of(r), list });
	request_reply_json(r, 200, json_pack("{s:o}", "overrides", list));
}

/* A tier that no rule names is as a rule a typing error, and who is on it has no limit by tier. */
static void warn_of_tier(struct request *r, json_t *warnings, const char *tier)
{
	const struct policy *p = control_snapshot(admin_of(r)->control)->policy;
	int at = policy_tier_find(p, str_of(tier));
	const char **names;
	char hint[HINT_MAX], text[128 + HINT_MAX];

	if ((at >= 0 && (unsigned)at < p->tier_named) || policy_matches_tier(p, str_of(tier)))
		return;
	names = calloc(p->tier_named + 1, sizeof *names);
	for (unsigned i = 0; names && i < p->tier_named; i++)
		names[i] = p->tier[i].name;
	(void)snprintf(text, sizeof text,
		"this tier is listed by no rule: `default` holds for it where a rule has one, else no "
		"limit by tier%s",
		nearest_hint(tier, names, names ? p->tier_named : 0, hint));
	(void)json_array_append_new(warnings, json_of(str_of(text)));
	free(names);
}

/* "10.0.0.1/8" is as a rule one address, or a net that was meant smaller. "2001:db8:0:7::" is as a
 * rule a client as rules count him, and the log and the rest show him: by the first bits. */
static void warn_of_prefix(struct request *r, json_t *warnings, const json_t *ip)
{
	const struct policy *p = control_snapshot(admin_of(r)->control)->policy;
	struct str text = { json_string_value(ip), json_string_length(ip) };
	struct cidr cidr;
	const char *why;

	if (!text.p || !cidr_parse(text, &cidr, &why))
		return;
	if (cidr_was_cut(text, &cidr))
		(void)json_array_append_new(warnings,
			json_sprintf("this holds for all of its first %u bits: leave the slash out "
				     "where the one address is meant",
				(unsigned)cidr.prefix));
	unsigned counted = cidr.addr.len == 4 ? p->ipv4_prefix : p->ipv6_prefix;
	struct addr masked = addr_mask(&cidr.addr, p->ipv4_prefix, p->ipv6_prefix);
	if (!memchr(text.p, '/', text.n) && counted < 8u * cidr.addr.len &&
		memcmp(masked.bytes, cidr.addr.bytes, cidr.addr.len) == 0)
		(void)json_array_append_new(warnings,
			json_sprintf("this is the one address; rules count by the first %u bits: "
				     "%.*s/%u for the client that is shown so",
				counted, (int)text.n, text.p, counted));
}

static void put_override(struct request *r, json_t *body, json_t *change)
{
	static const char *const known[] = { "user", "key", "ip", "tier", "rates", "bypass",
		"block", "for", "until", "reason" };
	char name[CHANGE_NAME_MAX + 16], err[512];
	const char *reason = body_reason(r, body);

	if (!reason || !body_knows(r, body, known, sizeof known / sizeof *known) ||
		!take_subject(r, body, name) || !take_end(r, body, change))
		return;
	for (unsigned i = 3; i < 7; i++) {
		json_t *v = json_object_get(body, known[i]);
		if (v && !json_is_null(v) && !json_is_false(v))
			(void)json_object_set(change, known[i], v);
	}
	if (!desk_put(desk_of(r), name, change, act_of(r, reason), err, sizeof err)) {
		refuse(r, 422, err);
		return;
	}
	json_t *answer = override_json(name, change), *warnings = json_array();
	if (json_object_get(change, "tier"))
		warn_of_tier(r, warnings, json_string_value(json_object_get(change, "tier")));
	warn_of_prefix(r, warnings, json_object_get(body, "ip"));
	if (json_array_size(warnings))
		(void)json_object_set(answer, "warnings", warnings);
	json_decref(warnings);
	reply_when_kept(r, answer);
}

void overrides_put(struct request *r)
{
	json_t *body = body_of(r), *change = json_object();

	if (body && change)
		put_override(r, body, change);
	else if (body)
		request_problem(r, 503, "out of memory");
	json_decref(body);
	json_decref(change);
}

void overrides_remove(struct request *r)
{
	static const char *const known[] = { "user", "key", "ip", "reason" };
	char name[CHANGE_NAME_MAX + 16], err[256];
	json_t *body = body_of(r);
	const char *reason = body ? body_reason(r, body) : NULL;

	if (reason && body_knows(r, body, known, sizeof known / sizeof *known) &&
		take_subject(r, body, name)) {
		if (desk_remove(desk_of(r), name, act_of(r, reason), err, sizeof err))
			reply_when_kept(
				r, json_pack("{s:s}", "removed", name + strlen("override:")));
		else
			refuse(r, 404, err);
	}
	json_decref(body);
}

/* ---- the emergency switch ---- */

static void add_switch(void *with, const char *name, json_t *value)
{
	json_t *o = json_copy(value);
	const char *rule = name + strlen("switch:");

	(void)json_object_set_new(o, "rule", *rule ? json_string(rule) : json_null());
	add_shown(with, name, o);
}

static bool has_rule(const struct policy *p, const char *name)
{
	for (unsigned i = 0; i < p->rule_n; i++)
		if (strcmp(p->rule[i].name, name) == 0)
			return true;
	return false;
}

json_t *switches_json(const struct admin *a, bool in_force)
{
	const struct policy *p = control_snapshot(a->control)->policy;
	const struct desk *desk = control_desk(a->control);
	json_t *list = json_array();

	changes_each(desk_changes(desk), "switch:", add_switch, &(struct listing){ desk, list });
	for (size_t i = json_array_size(list); in_force && i--;) {
		const char *rule = json_string_value(
			json_object_get(json_array_get(list, i), "rule"));
		if (rule && !has_rule(p, rule))
			(void)json_array_remove(list, i);
	}
	return list;
}

static json_t *enabled_json(struct request *r)
{
	const struct policy *p = control_snapshot(admin_of(r)->control)->policy;

	return json_pack(
		"{s:b, s:o}", "enabled", p->enabled, "switches", switches_json(admin_of(r), false));
}

void enabled_show(struct request *r)
{
	request_reply_json(r, 200, enabled_json(r));
}

/* Whoever enforces all may think that these are among them. */
static void warn_of_rules_off(struct request *r, json_t *answer)
{
	const struct policy *p = control_snapshot(admin_of(r)->control)->policy;
	json_t *list = json_array();

	for (unsigned i = 0; i < p->rule_n; i++)
		if (p->rule[i].mode == MODE_OFF)
			(void)json_array_append_new(list,
				json_sprintf(
					"rule \"%s\" is off, and stays so: name it to switch it on",
					p->rule[i].name));
	if (json_array_size(list))
		(void)json_object_set(answer, "warnings", list);
	json_decref(list);
}

/* "mode", or what "enabled": true, false or "shadow" means. NULL: the request has its answer. */
static const char *mode_of(struct request *r, json_t *body)
{
	json_t *enabled = json_object_get(body, "enabled");
	const char *text = json_string_value(enabled);

	if (!enabled)
		return body_text(r, body, "mode");
	if (json_object_get(body, "mode"))
		request_problem(r, 422, "\"mode\" and \"enabled\": want one of them");
	else if (json_is_boolean(enabled))
		return json_is_true(enabled) ? "configured" : "off";
	else if (text && *text)
		return text;
	else
		request_problem(r, 422,
			"enabled: want true, false, or what \"mode\" takes, like \"shadow\"");
	return NULL;
}

/* Is there no such switch to be taken away, and limiting on? */
static bool is_on(struct request *r, const char *name)
{
	const struct policy *p = control_snapshot(admin_of(r)->control)->policy;
	const char *rule = name + strlen("switch:");

	if (changes_get(desk_changes(desk_of(r)), name) || !p->enabled)
		return false;
	for (unsigned i = 0; *rule && i < p->rule_n; i++)
		if (strcmp(p->rule[i].name, rule) == 0)
			return p->rule[i].mode != MODE_OFF;
	return !*rule;
}

static void put_switch(struct request *r, json_t *body, json_t *change)
{
	static const char *const known[] = { "rule", "mode", "enabled", "for", "until", "reason" };
	char name[CHANGE_NAME_MAX], err[512];
	const char *rule = body_text(r, body, "rule");
	const char *mode = rule ? mode_of(r, body) : NULL;
	const char *reason = mode ? body_reason(r, body) : NULL;
	bool good;

	if (!reason || !body_knows(r, body, known, sizeof known / sizeof *known) ||
		!take_end(r, body, change))
		return;
	if (!*rule && json_is_string(json_object_get(body, "rule"))) {
		request_problem(r, 422, "rule: want a name, not empty; leave it out for all rules");
		return;
	}
	if (strlen(rule) > RULE_NAME_MAX) {
		request_problem(r, 422, "rule: no rule has so long a name");
		return;
	}
	if (strcmp(mode, "configured") == 0 && json_object_get(change, "until")) {
		request_problem(r, 422,
			"mode configured takes the switch back, and nothing is left to end: \"for\" and "
			"\"until\" go with enforce, shadow or off");
		return;
	}
	snprintf(name, sizeof name, "switch:%s", rule);
	if (json_is_true(json_object_get(body, "enabled")) && is_on(r, name)) {
		request_reply_json(r, 200, enabled_json(r));
		return;
	}
	if (strcmp(mode, "configured") == 0) {
		good = desk_remove(desk_of(r), name, act_of(r, reason), err, sizeof err);
	} else if (change_mode(mode) < 0) {
		request_problem(r, 422,
			"mode: want enforce, shadow or off, or configured for what the configuration says");
		return;
	} else {
		(void)json_object_set_new(change, "mode", json_string(mode));
		good = desk_put(desk_of(r), name, change, act_of(r, reason), err, sizeof err);
	}
	if (!good) {
		refuse(r, 422, err);
		return;
	}
	json_t *answer = enabled_json(r);
	if (!*rule && strcmp(mode, "enforce") == 0)
		warn_of_rules_off(r, answer);
	reply_when_kept(r, answer);
}

void enabled_put(struct request *r)
{
	json_t *body = body_of(r), *change = json_object();

	if (body && change)
		put_switch(r, body, change);
	else if (body)
		request_problem(r, 503, "out of memory");
	json_decref(body);
	json_decref(change);
}
