#include "ctl/replay_show.h"

#include "ctl/ctl.h"
#include "ctl/table.h"
#include "ctl/text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { JOINED_MAX = 256 };

static void put_share(struct table *t, int64_t part, int64_t of)
{
	char share[TEXT_MAX];

	table_put(t, text_share(of ? (double)part / (double)of : 0, share));
}

/* "tag" is what such a rule does instead. */
static const char *mode_of(const json_t *rule)
{
	const char *mode = ctl_text(rule, "mode");
	bool tags = strcmp(mode, "enforce") == 0 && strcmp(ctl_text(rule, "action"), "tag") == 0;

	return tags ? "tag" : mode;
}

static void show_sum(const json_t *a)
{
	const json_t *n;
	const char *reason, *sign = ": ";
	int64_t requests = ctl_int(a, "requests"), denied = ctl_int(a, "denied");
	char from[TEXT_MAX], to[TEXT_MAX], length[TEXT_MAX], share[TEXT_MAX];

	(void)printf("%lld requests", (long long)requests);
	if (requests)
		(void)printf(" in %s, %s to %s",
			text_seconds(ctl_int(a, "to") - ctl_int(a, "from"), length),
			text_instant(ctl_int(a, "from"), from), text_instant(ctl_int(a, "to"), to));
	(void)printf("\nadmitted %lld, denied %lld (%s)", (long long)ctl_int(a, "admitted"),
		(long long)denied,
		text_share(requests ? (double)denied / (double)requests : 0, share));
	json_object_foreach(json_object_get(a, "reasons"), reason, n)
	{
		if (strcmp(reason, "ok") == 0)
			continue;
		(void)printf("%s%s %lld", sign, reason, (long long)json_integer_value(n));
		sign = ", ";
	}
	(void)puts("\n");
}

static bool show_rules(const json_t *rules)
{
	static const struct column column[] = { { "RULE", false }, { "MODE", false },
		{ "REQUESTS", true }, { "DENIED", true }, { "SHARE", true }, { "CLIENTS", true },
		{ "EVER DENIED", true } };
	struct table *t = table_new(column, sizeof column / sizeof *column);
	const json_t *rule;
	char clients[TEXT_MAX];
	size_t i;

	json_array_foreach(rules, i, rule)
	{
		int64_t requests = ctl_int(rule, "requests"), denied = ctl_int(rule, "denied");
		bool more = json_is_true(json_object_get(rule, "more_clients"));
		table_put(t, ctl_text(rule, "name"));
		table_put(t, mode_of(rule));
		table_int(t, requests);
		table_int(t, denied);
		put_share(t, denied, requests);
		(void)snprintf(clients, sizeof clients, "%s%lld", more ? "at least " : "",
			(long long)ctl_int(rule, "clients"));
		table_put(t, clients);
		(void)snprintf(clients, sizeof clients, "%s%lld", more ? "at least " : "",
			(long long)ctl_int(rule, "clients_denied"));
		table_put(t, clients);
	}
	bool whole = table_write(t, stdout, 0);
	table_free(t);
	return whole;
}

/* Does the rule tell tiers apart, as far as any was seen? */
static bool has_tiers(const json_t *limits)
{
	const json_t *limit;
	size_t i;

	json_array_foreach(limits, i, limit)
	{
		if (!json_is_null(json_object_get(limit, "tiers")))
			return true;
	}
	return false;
}

/* Of a list that is longer than the room the beginning. */
static const char *join(const json_t *names, const char *between, char text[JOINED_MAX])
{
	const json_t *name;
	size_t i, n = 0;

	text[0] = '\0';
	json_array_foreach(names, i, name)
	{
		if (n < JOINED_MAX)
			n += (size_t)snprintf(text + n, JOINED_MAX - n, "%s%s", i ? between : "",
				json_string_value(name));
	}
	return text;
}

static void put_tiers(struct table *t, const json_t *tiers, const char *others)
{
	char text[JOINED_MAX];

	table_put(t, json_is_null(tiers) ? others : join(tiers, ",", text));
}

static void add_limits(struct table *t, const json_t *rule)
{
	static const char *const number[] = { "clients", "p50", "p90", "p99", "max" };
	const json_t *limits = json_object_get(rule, "limits"), *limit;
	const char *others = has_tiers(limits) ? "default" : "";
	size_t i;

	json_array_foreach(limits, i, limit)
	{
		table_put(t, ctl_text(rule, "name"));
		put_tiers(t, json_object_get(limit, "tiers"), others);
		for (unsigned k = 0; k < sizeof number / sizeof *number; k++)
			table_int(t, ctl_int(limit, number[k]));
		table_put(t, ctl_text(limit, "rate"));
	}
}

static bool show_limits(const json_t *rules)
{
	static const struct column column[] = { { "RULE", false }, { "TIER", false },
		{ "CLIENTS", true }, { "P50", true }, { "P90", true }, { "P99", true },
		{ "MAX", true }, { "OF", false } };
	struct table *t = table_new(column, sizeof column / sizeof *column);
	const json_t *rule;
	size_t i;

	(void)puts(
		"\nWhat half, 90 %, 99 % and all of the clients stayed within, each in its busiest "
		"window:");
	json_array_foreach(rules, i, rule) add_limits(t, rule);
	bool whole = table_write(t, stdout, 0);
	table_free(t);
	return whole;
}

static bool show_top(const json_t *top)
{
	static const struct column column[] = { { "AT LEAST", true }, { "AT MOST", true },
		{ "RULE", false }, { "CLIENT", false } };
	const json_t *items = json_object_get(top, "items"), *item;
	struct table *t;
	size_t i;

	if (!json_array_size(items))
		return true;
	(void)fputs("\nDenied most", stdout);
	if (ctl_int(top, "error"))
		(void)printf(" (who is not counted here: at most %lld)",
			(long long)ctl_int(top, "error"));
	(void)puts(":");
	t = table_new(column, sizeof column / sizeof *column);
	json_array_foreach(items, i, item)
	{
		int64_t count = ctl_int(item, "count");
		table_int(t, count - ctl_int(item, "error"));
		table_int(t, count);
		table_put(t, ctl_text(item, "rule"));
		table_put(t, ctl_text(item, "client"));
	}
	bool whole = table_write(t, stdout, 0);
	table_free(t);
	return whole;
}

/* ---- in words ---- */

/* A line of its own, under an empty one where it is the first. */
static void say(bool *begun, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(bool *begun, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	char *clean = text_clean_format(format, args);
	va_end(args);
	(void)printf("%s%s\n", *begun ? "" : "\n", clean ? clean : "out of memory");
	*begun = true;
	free(clean);
}

/* It may have applied to all of them, or to none. */
static void say_missing(bool *begun, const json_t *rule)
{
	const json_t *missing = json_object_get(rule, "missing");
	char text[JOINED_MAX];

	if (json_array_size(missing) && strcmp(mode_of(rule), "off") != 0)
		say(begun, "not judged: %s wants %s, which no request in this log has",
			ctl_text(rule, "name"), join(missing, ", ", text));
}

static void say_rule(bool *begun, const json_t *rule)
{
	const char *mode = mode_of(rule), *name = ctl_text(rule, "name");
	long long denied = ctl_int(rule, "denied"), requests = ctl_int(rule, "requests");

	if (strcmp(mode, "shadow") == 0)
		say(begun, "%s (shadow) would have denied %lld of %lld", name, denied, requests);
	if (strcmp(mode, "tag") == 0)
		say(begun, "%s would have tagged %lld of %lld", name, denied, requests);
	if (ctl_int(rule, "bans"))
		say(begun, "%s would have banned %lld times", name,
			(long long)ctl_int(rule, "bans"));
}

static void say_lines(bool *begun, const json_t *a)
{
	long long too_long = ctl_int(a, "too_long");

	if (!ctl_int(a, "left_out"))
		return;
	say(begun, "left out: %lld of %lld lines, which are no requests; the first is %s",
		(long long)ctl_int(a, "left_out"), (long long)ctl_int(a, "lines"),
		ctl_text(a, "left_out_first"));
	if (too_long)
		say(begun, "too long: %lld of these", too_long);
}

static void say_unseen(bool *begun, const json_t *list)
{
	char text[JOINED_MAX];
	const json_t *name;
	size_t i;

	if (!json_array_size(list))
		return;
	say(begun, "absent: no request in this log has %s, which rules look at",
		join(list, ", ", text));
	json_array_foreach(list, i, name)
	{
		if (strcmp(json_string_value(name), "message") == 0)
			say(begun, "message: all were taken for \"check\"; log it as "
				   "message=check-NAME, where HAProxy asks with another one");
	}
}

/* What one should know before one believes it. */
static void say_notes(bool *begun, const json_t *a)
{
	enum { USUALLY_LATE = 60 };
	char by[TEXT_MAX];
	const json_t *rule;
	size_t i;

	say_lines(begun, a);
	if (ctl_int(a, "requests")) {
		say_unseen(begun, json_object_get(a, "unseen"));
		json_array_foreach(json_object_get(a, "rules"), i, rule) say_missing(begun, rule);
	}
	if (ctl_int(a, "late_seconds") >= USUALLY_LATE)
		say(begun,
			"out of order: %lld requests, by up to %s, were taken at the latest time "
			"before them: are the logs in order?",
			(long long)ctl_int(a, "late"),
			text_seconds(ctl_int(a, "late_seconds"), by));
	if (ctl_int(a, "evicted"))
		say(begun, "forgotten: %lld counters, as store.max_keys is too small",
			(long long)ctl_int(a, "evicted"));
	if (strcmp(ctl_text(a, "store"), "redis") == 0)
		say(begun, "Redis was not asked: one memory counted instead, and tiers that stand "
			   "there alone were not known");
}

bool replay_show(const json_t *a)
{
	const json_t *rules = json_object_get(a, "rules"), *rule;
	bool begun = false;
	size_t i;

	show_sum(a);
	bool whole = show_rules(rules) && show_limits(rules) && show_top(json_object_get(a, "top"));
	json_array_foreach(rules, i, rule) say_rule(&begun, rule);
	say_notes(&begun, a);
	return whole;
}
