/* What changes something: reset, enable, disable, reload. */
#include "ctl/ctl.h"
#include "ctl/text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static bool ends(const struct ctl_options *o)
{
	return ctl_given(o, CTL_FOR) || ctl_given(o, CTL_UNTIL);
}

/* " until 2026-11-21 18:30:00", or "". */
static void say_end(const json_t *change, char out[TEXT_MAX + 8])
{
	char at[TEXT_MAX];
	int64_t until = ctl_int(change, "until");

	out[0] = '\0';
	if (until)
		(void)snprintf(out, TEXT_MAX + 8, " until %s", text_instant(until, at));
}

static void say(const struct ctl *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(const struct ctl *c, const char *format, ...)
{
	va_list args;

	if (ctl_given(c->o, CTL_JSON))
		return;
	va_start(args, format);
	char *clean = text_clean_format(format, args);
	va_end(args);
	(void)puts(clean ? clean : "done");
	free(clean);
}

/* ---- reset ---- */

/* Of requests without a field that goes before the one counted by. */
static void say_without(const json_t *l, char *out, size_t size)
{
	const json_t *list = json_object_get(l, "only_without"), *name;
	size_t i, n = 0;

	out[0] = '\0';
	json_array_foreach(list, i, name)
	{
		int more = snprintf(out + n, size - n, "%s%s",
			i ? " or " : ", of requests without ",
			json_string_value(name) ? json_string_value(name) : "");
		if (more < 0 || (size_t)more >= size - n)
			return;
		n += (size_t)more;
	}
}

/* "forgotten: api, 10/minute, by user=alice" for each counter, then what goes on. */
static void say_counters(const struct ctl *c, const json_t *answer)
{
	const json_t *counters = json_object_get(answer, "counters"), *l;
	char until[TEXT_MAX], without[256];
	size_t i;

	json_array_foreach(counters, i, l)
	{
		const json_t *held = json_object_get(l, "held");
		say_without(l, without, sizeof without);
		say(c, "%s: %s, %s, by %s%s",
			json_is_false(held)  ? "nothing was counted"
			: json_is_true(held) ? "forgotten"
					     : "forgotten, if it was there",
			ctl_text(l, "rule"), ctl_text(l, "rate"), ctl_text(l, "counts_by"),
			without);
	}
	const json_t *left = json_object_get(answer, "left");
	json_array_foreach(left, i, l)
	{
		say(c, "left: %s, which %s", ctl_text(l, "rule"), ctl_text(l, "why"));
	}
	const json_t *untouched = json_object_get(answer, "untouched");
	json_array_foreach(untouched, i, l)
	{
		say(c, "untouched: %s, which %s", ctl_text(l, "rule"), ctl_text(l, "why"));
	}
	const json_t *ban = json_object_get(answer, "banned");
	if (ctl_int(ban, "until"))
		say(c, "still banned by rule %s, as %s, until %s: `ratelimitctl ban lift %s` ends that",
			ctl_text(ban, "rule"), ctl_text(ban, "client"),
			text_instant(ctl_int(ban, "until"), until), ctl_text(ban, "id"));
}

static int reset_client(struct ctl *c, json_t *body)
{
	json_t *fields = ctl_fields(c->o, 0, true), *answer;
	const char *rule = c->o->value[CTL_RULE];

	if (!fields) {
		json_decref(body);
		return CTL_USAGE;
	}
	(void)json_object_set_new(body, "fields", fields);
	if (rule)
		(void)json_object_set_new(body, "rule", json_string(rule));
	int status = ctl_ask(c, "POST", "/api/v1/reset", body, &answer);
	if (status != CTL_DONE)
		return status;
	ctl_warn(answer);
	if (ctl_given(c->o, CTL_JSON))
		(void)ctl_print_json(answer, false);
	say_counters(c, answer);
	json_decref(answer);
	return CTL_DONE;
}

static int reset_rules(struct ctl *c, json_t *body)
{
	const char *rule = c->o->value[CTL_RULE];

	if (rule)
		(void)json_object_set_new(body, "rule", json_string(rule));
	else
		(void)json_object_set_new(body, "all", json_true());
	int status = ctl_do(c, "POST", "/api/v1/reset", body);
	if (status != CTL_DONE)
		return status;
	if (rule)
		say(c, "all counters of rule %s begin anew", rule);
	else
		say(c, "all counters of all rules begin anew");
	return CTL_DONE;
}

int ctl_reset(struct ctl *c)
{
	const struct ctl_options *o = c->o;
	bool rule = ctl_given(o, CTL_RULE), all = ctl_given(o, CTL_ALL);

	if ((o->words && all) || (!o->words && rule == all))
		return ctl_fail(CTL_USAGE,
			"reset: want FIELD=VALUE, like user=alice path=/api/, for one client, --rule "
			"NAME or --all");
	json_t *body = ctl_change_body(o);
	if (!body)
		return CTL_USAGE;
	return o->words ? reset_client(c, body) : reset_rules(c, body);
}

/* ---- the emergency switch ---- */

static const json_t *find_switch(const json_t *enabled, const char *rule)
{
	const json_t *list = json_object_get(enabled, "switches"), *s;
	size_t i;

	json_array_foreach(list, i, s) if (strcmp(ctl_text(s, "rule"), rule) == 0) return s;
	return NULL;
}

/* rule: "" for all. NULL in `mode`: as the configuration has it. */
static int set_switch(struct ctl *c, const char *rule, const char *mode)
{
	json_t *body = ctl_change_body(c->o), *answer;
	char end[TEXT_MAX + 8];

	if (!body)
		return CTL_USAGE;
	if (*rule)
		(void)json_object_set_new(body, "rule", json_string(rule));
	(void)json_object_set_new(body, "mode", json_string(mode ? mode : "configured"));
	int status = ctl_ask(c, "PUT", "/api/v1/enabled", body, &answer);
	if (status != CTL_DONE)
		return status;
	ctl_warn(answer);
	if (ctl_given(c->o, CTL_JSON))
		(void)ctl_print_json(answer, false);
	const json_t *now = find_switch(answer, rule);
	say_end(now, end);
	if (mode)
		say(c, "%s%s: %s%s", *rule ? "rule " : "all rules", rule, mode, end);
	else
		say(c, "%s%s: as the configuration has it", *rule ? "rule " : "all rules", rule);
	json_decref(answer);
	return CTL_DONE;
}

/* Is it the configuration itself that has it off? -1: a problem was told. */
static int configured_off(struct ctl *c, const json_t *enabled, const char *rule)
{
	json_t *answer;
	char *escaped = http_escape(rule), path[512];

	if (!*rule) {
		free(escaped);
		return !json_is_true(json_object_get(enabled, "enabled"));
	}
	(void)snprintf(path, sizeof path, "/api/v1/rules?rule=%s", escaped ? escaped : "");
	free(escaped);
	if (ctl_ask(c, "GET", path, NULL, &answer) != CTL_DONE)
		return -1;
	bool off = strcmp(ctl_text(answer, "mode"), "off") == 0;
	json_decref(answer);
	return off;
}

/* Nothing was switched: there is nothing to take back. */
static int not_switched(struct ctl *c, const json_t *enabled, const char *rule)
{
	int off = configured_off(c, enabled, rule);
	const char *what = *rule ? rule : "limiting";

	if (off < 0)
		return CTL_REFUSED;
	if (off)
		return ctl_fail(CTL_REFUSED,
			"the configuration has %s off: change it there, or enable it with --enforce",
			what);
	if (ctl_given(c->o, CTL_JSON))
		return ctl_print_json(enabled, false);
	say(c, "%s: was not switched", what);
	return CTL_DONE;
}

/* The one that is named; "": all of them. NULL: an empty name, which all must not be taken for. */
static const char *switched_rule(const struct ctl *c)
{
	if (c->o->words && !*c->o->word[0])
		return (void)ctl_fail(0, "want the name of a rule, not empty (all rules: no name)"),
		       NULL;
	return c->o->words ? c->o->word[0] : "";
}

int ctl_enable(struct ctl *c)
{
	const char *rule = switched_rule(c);
	bool shadow = ctl_given(c->o, CTL_SHADOW), enforce = ctl_given(c->o, CTL_ENFORCE);
	json_t *enabled;

	if (!rule)
		return CTL_USAGE;
	if (shadow && enforce)
		return ctl_fail(CTL_USAGE, "--shadow and --enforce: want one of them");
	if (shadow || enforce)
		return set_switch(c, rule, shadow ? "shadow" : "enforce");
	if (ends(c->o))
		return ctl_fail(CTL_USAGE,
			"enable takes the switch back, and nothing is left to end: --for and --until "
			"go with --shadow or --enforce");
	int status = ctl_ask(c, "GET", "/api/v1/enabled", NULL, &enabled);
	if (status != CTL_DONE)
		return status;
	if (find_switch(enabled, rule))
		status = set_switch(c, rule, NULL);
	else
		status = not_switched(c, enabled, rule);
	json_decref(enabled);
	return status;
}

int ctl_disable(struct ctl *c)
{
	const char *rule = switched_rule(c);

	return rule ? set_switch(c, rule, ctl_given(c->o, CTL_SHADOW) ? "shadow" : "off")
		    : CTL_USAGE;
}

/* ---- reload ---- */

int ctl_reload(struct ctl *c)
{
	json_t *answer;
	int status = ctl_ask(c, "POST", "/api/v1/reload", NULL, &answer);

	if (status != CTL_DONE)
		return status;
	if (ctl_given(c->o, CTL_JSON))
		(void)ctl_print_json(answer, false);
	ctl_tell_problems(answer, "warnings", "warning: ");
	const char *changed = ctl_text(answer, "changed");
	say(c, "generation %lld: %s%s", (long long)ctl_int(answer, "generation"), changed,
		strcmp(changed, "nothing") == 0 ? " has changed" : "");
	json_decref(answer);
	return CTL_DONE;
}
