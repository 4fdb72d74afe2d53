/* explain: what a request would get, and why. */
#include "base/addr.h"
#include "config/explain.h"
#include "config/snapshot.h"
#include "ctl/ctl.h"
#include "ctl/table.h"
#include "ctl/text.h"

#include <stdlib.h>
#include <string.h>

static void put_clean(const char *before, const char *z, const char *after)
{
	char *clean = text_clean(str_of(z));

	(void)printf("%s%s%s", before, clean ? clean : "?", after);
	free(clean);
}

/* Where the tier comes from, and what else has a say. */
static void show_client(const json_t *a)
{
	const json_t *override = json_object_get(a, "override");
	const json_t *ignored = json_object_get(a, "ignored"), *name;
	size_t i;

	if (*ctl_text(a, "key"))
		put_clean("key: ", ctl_text(a, "key"), "\n");
	put_clean("tier: ", ctl_text(a, "tier"), "");
	if (*ctl_text(a, "tier_from"))
		put_clean(", by ", ctl_text(a, "tier_from"), "");
	(void)putchar('\n');
	if (*ctl_text(override, "for")) {
		put_clean("override: ", ctl_text(override, "for"), "");
		put_clean(" sets ", ctl_text(override, "sets"), "\n");
	}
	json_array_foreach(ignored, i, name)
	{
		const char *field = json_string_value(name) ? json_string_value(name) : "";
		put_clean("ignored: ", field,
			strcmp(field, "endpoint") == 0
				? ", which is made of method and path: give these\n"
				: ", which no rule looks at\n");
	}
}

/* What nobody can tell goes before what the others say. */
static void show_unknown(const json_t *a)
{
	const json_t *list = json_object_get(a, "rules"), *r;
	size_t i;

	json_array_foreach(list, i, r)
	{
		if (!json_is_null(json_object_get(r, "applies")))
			continue;
		put_clean("not known: rule ", ctl_text(r, "name"), "");
		put_clean(" ", ctl_text(r, "why"), "\n");
	}
	(void)printf("without that, ");
}

/* Whose requests are counted elsewhere. */
static void show_counted_elsewhere(const json_t *a)
{
	const json_t *list = json_object_get(a, "rules"), *r, *name;
	size_t i, k;

	json_array_foreach(list, i, r)
	{
		const json_t *without = json_object_get(r, "only_without");
		if (!json_array_size(json_object_get(r, "limits")) || !json_array_size(without))
			continue;
		put_clean("note: rule ", ctl_text(r, "name"), "");
		put_clean(" counts by ", ctl_text(r, "counts_by"), " only requests without ");
		json_array_foreach(without, k, name)
		{
			put_clean(k ? " or " : "",
				json_string_value(name) ? json_string_value(name) : "", "");
		}
		(void)printf(": any other is counted by that\n");
	}
}

static void show_ban(const json_t *ban)
{
	if (!json_is_object(ban))
		return;
	put_clean(" by rule ", ctl_text(ban, "rule"), "");
	put_clean(" as ", ctl_text(ban, "client"), "");
}

/* Where the agent asked Redis, and its checks are answered without it. */
static void show_degraded(const json_t *a)
{
	int64_t n = ctl_int(a, "threads_degraded");

	if (n > 0 && !json_is_true(json_object_get(a, "degraded")))
		(void)printf("note: %lld of the threads that decide %s by the failure policy, and "
			     "may say otherwise: see ratelimitctl status\n",
			(long long)n, n == 1 ? "does so" : "do so");
}

static void show_decision(const json_t *a)
{
	const json_t *d = json_object_get(a, "decision");
	bool deny = json_is_true(json_object_get(d, "deny"));
	char after[TEXT_MAX];

	if (json_is_false(json_object_get(a, "certain")))
		show_unknown(a);
	put_clean(deny ? "denied: " : "allowed: ", ctl_text(d, "reason"), "");
	if (*ctl_text(d, "rule"))
		put_clean(", rule ", ctl_text(d, "rule"), "");
	show_ban(json_object_get(a, "banned"));
	/* Limits are not asked while a ban holds: they may deny when it has ended. */
	if (deny && ctl_int(d, "retry_after"))
		(void)printf("; %s in %s",
			strcmp(ctl_text(d, "reason"), "banned") == 0 ? "the ban ends"
								     : "the same would pass",
			text_seconds(ctl_int(d, "retry_after"), after));
	(void)putchar('\n');
	if (*ctl_text(json_object_get(a, "banned"), "id"))
		put_clean("ends with: ratelimitctl ban lift ",
			ctl_text(json_object_get(a, "banned"), "id"), "\n");
	show_degraded(a);
	show_client(a);
}

static const struct column columns[] = { { "RULE", false }, { "MODE", false }, { "LIMIT", false },
	{ "COUNTS BY", false }, { "OF", true }, { "LEFT", true }, { "SAYS", false } };
enum { COLUMNS = sizeof columns / sizeof *columns };

static void add_limit(struct table *t, const json_t *rule, const json_t *l)
{
	char says[TEXT_MAX + 16], after[TEXT_MAX];

	if (json_is_true(json_object_get(l, "admits")))
		(void)snprintf(says, sizeof says, "passes");
	else if (json_is_true(json_object_get(l, "oversize")))
		(void)snprintf(says, sizeof says, "never passes");
	else
		(void)snprintf(says, sizeof says, "passes in %s",
			text_seconds(ctl_int(l, "retry_after"), after));
	table_put(t, ctl_text(rule, "name"));
	table_put(t, ctl_text(rule, "mode"));
	table_put(t, ctl_text(l, "rate"));
	table_put(t, ctl_text(rule, "counts_by"));
	table_int(t, ctl_int(l, "limit"));
	table_int(t, ctl_int(l, "remaining"));
	table_put(t, says);
}

static int show(const json_t *answer)
{
	const json_t *list = json_object_get(answer, "rules"), *r, *l;
	struct table *t = table_new(columns, COLUMNS);
	size_t i, k;

	show_decision(answer);
	show_counted_elsewhere(answer);
	json_array_foreach(list, i, r)
	{
		const json_t *limits = json_object_get(r, "limits");
		json_array_foreach(limits, k, l) add_limit(t, r, l);
		if (json_array_size(limits))
			continue;
		table_put(t, ctl_text(r, "name"));
		table_put(t, ctl_text(r, "mode"));
		for (unsigned blank = 0; blank < COLUMNS - 3; blank++)
			table_put(t, "");
		table_put(t, ctl_text(r, "why"));
	}
	(void)putchar('\n');
	bool whole = table_write(t, stdout, 0);
	table_free(t);
	return whole ? CTL_DONE : ctl_fail(CTL_REFUSED, "out of memory");
}

/* As if no request had come before. */
static int explain_fresh(const struct policy *p, json_t *fields, json_t **answer)
{
	struct explain e;
	char err[256];
	int status = CTL_REFUSED;

	*answer = NULL;
	if (!explain_init(&e, p, fields, err, sizeof err)) {
		(void)ctl_fail(0, "%s", err);
	} else {
		explain_as_fresh(&e, clock_read());
		*answer = explain_json(&e);
		status = *answer ? CTL_DONE : ctl_fail(CTL_REFUSED, "out of memory");
	}
	explain_fini(&e);
	return status;
}

/* By a configuration. */
static int explain_files(const struct ctl_options *o, json_t *fields, json_t **answer)
{
	struct hash_key key;

	hash_key_random(&key);
	struct snapshot *s = ctl_load_config(o, &key);
	if (!s)
		return CTL_REFUSED;
	int status = explain_fresh(s->policy, fields, answer);
	if (snapshot_unref(s))
		snapshot_free(s);
	return status;
}

/* HAProxy sends nothing else there; to the agent it would be absent. */
static bool has_good_address(const json_t *fields)
{
	const char *ip = json_string_value(json_object_get(fields, "ip"));
	struct addr address;

	if (!ip || addr_parse(str_of(ip), &address))
		return true;
	(void)ctl_fail(0, "ip=%s: want an IPv4 or IPv6 address", ip);
	return false;
}

int ctl_explain(struct ctl *c)
{
	json_t *fields = ctl_fields(c->o, 0, true), *answer = NULL;
	int status;

	if (!fields || !has_good_address(fields)) {
		json_decref(fields);
		return CTL_USAGE;
	}
	if (c->o->files)
		status = explain_files(c->o, fields, &answer);
	else
		status = ctl_ask(c, "POST", "/api/v1/explain", json_pack("{s:O}", "fields", fields),
			&answer);
	json_decref(fields);
	if (status != CTL_DONE)
		return status;
	status = ctl_given(c->o, CTL_JSON) ? ctl_print_json(answer, false) : show(answer);
	json_decref(answer);
	return status;
}
