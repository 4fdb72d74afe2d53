/* status, rules: what there is to see. */
#include "ctl/ctl.h"
#include "ctl/table.h"
#include "ctl/text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void line(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void line(const char *name, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	char *clean = text_clean_format(format, args);
	va_end(args);
	(void)printf("%-12s %s\n", name, clean ? clean : "?");
	free(clean);
}

/* ---- status ---- */

static void line_of_rates(const char *name, const json_t *r)
{
	char share[TEXT_MAX];

	line(name, "%lld allowed, %lld denied (%s)", (long long)ctl_int(r, "allowed"),
		(long long)ctl_int(r, "denied"), text_share(ctl_real(r, "denial_rate"), share));
}

static void line_of_store(const json_t *s)
{
	char degraded[64] = "";

	if (ctl_int(s, "threads_degraded"))
		(void)snprintf(degraded, sizeof degraded, " on %lld threads",
			(long long)ctl_int(s, "threads_degraded"));
	line("store", "%s, %s%s; %lld of %lld keys in memory, %lld evicted (%lld at their limit)",
		ctl_text(s, "backend"), ctl_text(s, "state"), degraded,
		(long long)ctl_int(s, "keys"), (long long)ctl_int(s, "keys_max"),
		(long long)ctl_int(s, "keys_evicted"),
		(long long)ctl_int(s, "keys_evicted_at_their_limit"));
}

/* Of a store that the failure policy stands in for. */
static void line_of_away(const json_t *s)
{
	char since[TEXT_MAX];
	const char *server = ctl_text(s, "server"), *hint = ctl_text(s, "hint");

	if (*ctl_text(s, "reason"))
		line("degraded", "since %s: %s%s%s%s%s", text_instant(ctl_int(s, "since"), since),
			ctl_text(s, "reason"), *server ? "; server " : "", server,
			*hint ? "; " : "", hint);
}

static void line_of_state_file(const json_t *s)
{
	const json_t *file = json_object_get(s, "state_file");
	char since[TEXT_MAX];

	if (*ctl_text(file, "reason"))
		line("state file", "NOT WRITTEN since %s: %s; a restart would lose what came since",
			text_instant(ctl_int(file, "since"), since), ctl_text(file, "reason"));
}

static void line_of_changes(const json_t *s)
{
	const json_t *changes = json_object_get(s, "changes");
	char since[TEXT_MAX];

	if (*ctl_text(changes, "reason"))
		line("changes", "NOT SHARED with the other agents since %s: %s; %s",
			text_instant(ctl_int(changes, "since"), since), ctl_text(changes, "reason"),
			ctl_text(changes, "hint"));
}

/* The switch of all rules, which none may miss; a rule's own goes before it. */
static const char *limiting(const json_t *a)
{
	const json_t *list = json_object_get(a, "switches"), *s;
	bool shadow = false, enforced = false;
	size_t i;

	if (!json_is_true(json_object_get(a, "enabled")))
		return "OFF";
	json_array_foreach(list, i, s)
	{
		bool all = !*ctl_text(s, "rule");
		shadow |= all && strcmp(ctl_text(s, "mode"), "shadow") == 0;
		enforced |= !all && strcmp(ctl_text(s, "mode"), "enforce") == 0;
	}
	if (!shadow)
		return "on";
	return enforced ? "SHADOW, but for rules with a switch of their own"
			: "SHADOW, no limit denies";
}

static void lines_of_switches(const json_t *list)
{
	char at[TEXT_MAX];
	const json_t *s;
	size_t i;

	json_array_foreach(list, i, s)
	{
		const char *rule = ctl_text(s, "rule"), *reason = ctl_text(s, "reason");
		int64_t until = ctl_int(s, "until");
		line("switched", "%s%s: %s%s%s%s%s", *rule ? "rule " : "all rules", rule,
			ctl_text(s, "mode"), until ? " until " : ", without an end",
			until ? text_instant(until, at) : "", *reason ? "; " : "", reason);
	}
}

int ctl_status(struct ctl *c)
{
	json_t *a;
	char up[TEXT_MAX], since[TEXT_MAX];
	int status = ctl_ask(c, "GET", "/api/v1/status", NULL, &a);

	if (status != CTL_DONE)
		return status;
	if (ctl_given(c->o, CTL_JSON)) {
		(void)ctl_print_json(a, false);
		json_decref(a);
		return CTL_DONE;
	}
	const json_t *checks = json_object_get(a, "checks"),
		     *conns = json_object_get(a, "connections");
	line("agent", "%s at %s%s", ctl_text(a, "version"), place_text(&c->place),
		json_is_true(json_object_get(a, "draining")) ? ", draining" : "");
	line("up", "%s, since %s", text_seconds(ctl_int(a, "uptime"), up),
		text_instant(ctl_int(a, "started"), since));
	int64_t rules = ctl_int(a, "rules");
	line("limiting", "%s; %lld rule%s, generation %lld", limiting(a), (long long)rules,
		rules == 1 ? "" : "s", (long long)ctl_int(a, "generation"));
	lines_of_switches(json_object_get(a, "switches"));
	line_of_store(json_object_get(a, "store"));
	line_of_away(json_object_get(a, "store"));
	line_of_changes(json_object_get(a, "store"));
	line_of_state_file(json_object_get(a, "store"));
	line("connections", "%lld open, %lld accepted; %lld admin; %lld threads",
		(long long)ctl_int(conns, "open"), (long long)ctl_int(conns, "accepted"),
		(long long)ctl_int(conns, "admin"), (long long)ctl_int(a, "threads"));
	line("checks",
		"%lld allowed, %lld denied, %lld warned, %lld shadow, %lld tagged, %lld degraded",
		(long long)ctl_int(checks, "allowed"), (long long)ctl_int(checks, "denied"),
		(long long)ctl_int(checks, "warned"), (long long)ctl_int(checks, "shadow"),
		(long long)ctl_int(checks, "tagged"), (long long)ctl_int(checks, "degraded"));
	line_of_rates("last second", json_object_get(a, "last_second"));
	line_of_rates("last minute", json_object_get(a, "last_minute"));
	json_decref(a);
	return CTL_DONE;
}

/* ---- rules ---- */

static void put_share(struct table *t, int64_t denied, int64_t allowed)
{
	char share[TEXT_MAX];

	if (denied + allowed == 0)
		table_put(t, "");
	else
		table_put(t, text_share((double)denied / (double)(denied + allowed), share));
}

/* How many it would have denied, and of a rule in shadow mode of how many. */
static void put_shadow(struct table *t, const char *mode, const json_t *counts)
{
	int64_t n = ctl_int(counts, "shadow"), of = ctl_int(counts, "applied");
	char text[2 * TEXT_MAX], share[TEXT_MAX];

	if (strcmp(mode, "shadow") != 0 || of == 0)
		(void)snprintf(text, sizeof text, "%lld", (long long)n);
	else
		(void)snprintf(text, sizeof text, "%lld %s", (long long)n,
			text_share((double)n / (double)of, share));
	table_put(t, text);
}

static int show_rules(const json_t *list)
{
	static const struct column column[] = { { "RULE", false }, { "MODE", false },
		{ "APPLIED", true }, { "ALLOWED", true }, { "DENIED", true }, { "SHARE", true },
		{ "SHADOW", true }, { "WHAT IT SAYS", false } };
	struct table *t = table_new(column, sizeof column / sizeof *column);
	const json_t *r;
	size_t i;

	json_array_foreach(list, i, r)
	{
		const json_t *n = json_object_get(r, "counts");
		const char *text = ctl_text(r, "text"), *name = ctl_text(r, "name");
		size_t len = strlen(name);
		if (strncmp(text, name, len) == 0 && strncmp(text + len, ": ", 2) == 0)
			text += len + 2;
		table_put(t, name);
		table_put(t, ctl_text(r, "mode"));
		table_int(t, ctl_int(n, "applied"));
		table_int(t, ctl_int(n, "allowed"));
		table_int(t, ctl_int(n, "denied"));
		put_share(t, ctl_int(n, "denied"), ctl_int(n, "allowed"));
		put_shadow(t, ctl_text(r, "mode"), n);
		table_put(t, text);
	}
	bool whole = table_write(t, stdout, 0);
	table_free(t);
	return whole ? CTL_DONE : ctl_fail(CTL_REFUSED, "out of memory");
}

static int show_tiers(const json_t *tiers)
{
	static const struct column column[] = { { "TIER", false }, { "ALLOWED", true },
		{ "DENIED", true }, { "SHARE", true } };
	struct table *t = table_new(column, sizeof column / sizeof *column);
	const char *name;
	json_t *n;

	json_object_foreach((json_t *)tiers, name, n)
	{
		table_put(t, name);
		table_int(t, ctl_int(n, "allowed"));
		table_int(t, ctl_int(n, "denied"));
		put_share(t, ctl_int(n, "denied"), ctl_int(n, "allowed"));
	}
	bool whole = table_write(t, stdout, 0);
	table_free(t);
	return whole ? CTL_DONE : ctl_fail(CTL_REFUSED, "out of memory");
}

static int show_rule(const json_t *r)
{
	const json_t *counts = json_object_get(r, "counts");
	const char *name;
	json_t *v;

	line("rule", "%s", ctl_text(r, "text"));
	/* With the switch; the settings below have the mode that the configuration says. */
	line("mode now", "%s", ctl_text(r, "mode"));
	(void)puts("");
	json_object_foreach(json_object_get(r, "settings"), name, v)
	{
		line(name, "%s", json_string_value(v) ? json_string_value(v) : "");
	}
	(void)puts("");
	json_object_foreach((json_t *)counts, name, v)
	{
		if (json_is_integer(v))
			line(name, "%lld", (long long)json_integer_value(v));
	}
	json_object_foreach(json_object_get(counts, "reasons"), name, v)
	{
		line("reason", "%s: %lld", name, (long long)json_integer_value(v));
	}
	if (!json_object_size(json_object_get(counts, "tiers")))
		return CTL_DONE;
	(void)puts("");
	return show_tiers(json_object_get(counts, "tiers"));
}

int ctl_rules(struct ctl *c)
{
	const char *only = c->o->words ? c->o->word[0] : NULL;
	char *path = NULL, *escaped = only ? http_escape(only) : NULL;
	json_t *a;

	if (asprintf(&path, "/api/v1/rules%s%s", only ? "?rule=" : "", escaped ? escaped : "") <
		0) {
		free(escaped);
		return ctl_fail(CTL_REFUSED, "out of memory");
	}
	int status = ctl_ask(c, "GET", path, NULL, &a);
	free(escaped);
	free(path);
	if (status != CTL_DONE)
		return status;
	if (ctl_given(c->o, CTL_JSON))
		status = ctl_print_json(a, false);
	else
		status = only ? show_rule(a) : show_rules(json_object_get(a, "rules"));
	json_decref(a);
	return status;
}
