/* /api/v1/rules and /api/v1/config: what is in force, and where it comes from. */
#include "config/json.h"
#include "admin/routes.h"
#include "config/load.h"
#include "config/nearest.h"

#include <stdlib.h>

/* ---- lines of the effective configuration: "KEY = VALUE" ---- */

/* Where " = " stands outside of quotes. */
static struct str line_key(const char *line)
{
	bool quoted = false;
	size_t n = 0;
	while (line[n] && (quoted || strncmp(line + n, " = ", 3) != 0)) {
		if (quoted && line[n] == '\\' && line[n + 1])
			n++;
		else if (line[n] == '"')
			quoted = !quoted;
		n++;
	}
	return (struct str){ line, n };
}

static const char *line_value(const char *line, struct str key)
{
	return line[key.n] ? line + key.n + 3 : "";
}

/* An object's key has to be UTF-8 as well. */
static void set(json_t *object, struct str key, json_t *value)
{
	json_t *name = json_of(key);
	if (!name || !value || json_object_set(object, json_string_value(name), value) < 0)
		log_warning_every(USEC_PER_SEC, "no_memory", KV_Z("for", "an admin reply"));
	json_decref(name);
	json_decref(value);
}

static json_t *settings_of(const struct snapshot *s, const char *rule)
{
	char quoted[KEY_NAME_MAX], prefix[KEY_NAME_MAX + 16];
	json_t *settings = json_object();
	size_t n = (size_t)snprintf(prefix, sizeof prefix, "rules.%s.", key_name(rule, quoted));
	for (size_t i = 0; settings && i < s->line_n; i++) {
		const char *line = s->line[i];
		if (strncmp(line, prefix, n) != 0)
			continue;
		struct str key = line_key(line);
		set(settings, (struct str){ key.p + n, key.n - n },
			json_of(str_of(line_value(line, key))));
	}
	return settings;
}

/* ---- rules ---- */

static void add(json_t *object, const char *name, uint64_t n)
{
	json_int_t had = json_integer_value(json_object_get(object, name));
	(void)json_object_set_new(object, name, json_integer(had + (json_int_t)n));
}

static json_t *counts_of(const struct tally_sum *sum, const char *rule)
{
	json_t *counts = json_pack("{s:i, s:i}", "allowed", 0, "denied", 0);
	json_t *tiers = json_object(), *reasons = json_object();
	if (!counts || !tiers || !reasons)
		goto fail;
	for (size_t i = 0; i < sum->line_n; i++) {
		const struct tally_line *l = &sum->line[i];
		if (strcmp(l->rule, rule) != 0)
			continue;
		const char *what = l->deny ? "denied" : "allowed";
		struct str tier_name = str_of(l->tier);
		json_t *name = json_of(tier_name);
		json_t *tier = name ? json_object_get(tiers, json_string_value(name)) : NULL;
		if (name && !tier) {
			tier = json_pack("{s:i, s:i}", "allowed", 0, "denied", 0);
			(void)json_object_set_new(tiers, json_string_value(name), tier);
		}
		json_decref(name);
		if (tier)
			add(tier, what, l->n);
		add(counts, what, l->n);
		add(reasons, reason_name(l->reason), l->n);
	}
	for (size_t i = 0; i < sum->rule_n; i++)
		if (strcmp(sum->rule[i].rule, rule) == 0) {
			add(counts, "applied", sum->rule[i].applied);
			add(counts, "warned", sum->rule[i].warned);
			add(counts, "shadow", sum->rule[i].shadowed);
			add(counts, "tagged", sum->rule[i].tagged);
		}
	(void)json_object_set_new(counts, "reasons", reasons);
	(void)json_object_set_new(counts, "tiers", tiers);
	return counts;
fail:
	json_decref(counts);
	json_decref(tiers);
	json_decref(reasons);
	return NULL;
}

static json_t *rule_json(
	const struct snapshot *s, const struct rule *rule, const struct tally_sum *sum)
{
	static const char *const mode[] = { "enforce", "shadow", "off" };
	char text[1024];
	size_t n = snapshot_describe_rule(s, rule, text, sizeof text);
	return json_pack("{s:o, s:o, s:s, s:o, s:o}", "name", json_of(str_of(rule->name)), "text",
		json_of((struct str){ text, n }), "mode", mode[rule->mode], "settings",
		settings_of(s, rule->name), "counts", counts_of(sum, rule->name));
}

static void reply_no_rule(struct request *r, const struct policy *p, const char *name)
{
	char hint[HINT_MAX];
	request_problem(
		r, 404, "there is no rule \"%.64s\"%s", name, nearest_rule_hint(p, name, hint));
}

void rules_show(struct request *r)
{
	const struct admin *a = request_context(r);
	const struct snapshot *s = control_snapshot(a->control);
	const struct policy *p = s->policy;
	const char *only = request_query(r, "rule");
	struct tally_sum sum;
	json_t *list = json_array(), *one = NULL;
	if (!control_tally(a->control, &sum))
		sum = (struct tally_sum){ 0 };
	for (unsigned i = 0; i < p->rule_n; i++) {
		if (!only)
			(void)json_array_append_new(list, rule_json(s, &p->rule[i], &sum));
		else if (strcmp(p->rule[i].name, only) == 0)
			one = rule_json(s, &p->rule[i], &sum);
	}
	tally_sum_free(&sum);
	if (only && !one) {
		json_decref(list);
		reply_no_rule(r, p, only);
	} else if (only) {
		json_decref(list);
		request_reply_json(r, 200, one);
	} else {
		request_reply_json(r, 200,
			json_pack("{s:I, s:o}", "generation", (json_int_t)s->generation, "rules",
				list));
	}
}

/* ---- the configuration ---- */

static void reply_lines(struct request *r, const struct snapshot *s)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);
	for (size_t i = 0; f && i < s->line_n; i++)
		(void)fprintf(f, "%s\n", s->line[i]);
	if (f && fclose(f) != 0) {
		free(text);
		text = NULL;
	}
	request_reply(r, 200, "text/plain; charset=utf-8", text, n);
}

void config_show(struct request *r)
{
	const struct admin *a = request_context(r);
	const struct snapshot *s = control_snapshot(a->control);
	const struct control_args *args = control_args(a->control);
	const char *accept = request_header(r, "Accept");
	if (accept && strncmp(accept, "text/plain", 10) == 0) {
		reply_lines(r, s);
		return;
	}
	json_t *settings = json_array(), *files = json_array();
	for (size_t i = 0; i < args->files_n; i++)
		(void)json_array_append_new(files, json_of(str_of(args->files[i])));
	for (size_t i = 0; i < s->line_n; i++) {
		struct str key = line_key(s->line[i]);
		(void)json_array_append_new(settings,
			json_pack("{s:o, s:o, s:o}", "name", json_of(key), "value",
				json_of(str_of(line_value(s->line[i], key))), "from",
				s->line_at[i] ? json_of(str_of(s->line_at[i])) : json_null()));
	}
	request_reply_json(r, 200,
		json_pack("{s:I, s:o, s:o}", "generation", (json_int_t)s->generation, "files",
			files, "settings", settings));
}
