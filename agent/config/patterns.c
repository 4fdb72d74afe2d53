/* Groups of fields and patterns: `match` of a rule, `allow`, `block`. */
#include "config/load.h"
#include "config/nearest.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { LISTED_MAX = 100000 };

/* A field that no request has is a rule that never applies, or a secret in clear. NULL: no field so
 * far is called so but for upper and lower case. */
static const char *all_but_case(const struct layout *layout, const char *name)
{
	for (unsigned i = 0; i < layout->n; i++)
		if (strcasecmp(layout->field[i].name, name) == 0)
			return layout->field[i].name;
	return NULL;
}

/* A built-in one that may be meant by a name that is new; NULL: none. */
static const char *built_in_like(const struct layout *layout, const char *name)
{
	static const char *const of_ip[] = { "ips", "ipp", "iip", "pi" }; /* too short for a slip */
	const char *names[FIELD_BUILTINS];

	for (unsigned i = 0; i < sizeof of_ip / sizeof *of_ip; i++)
		if (strcmp(name, of_ip[i]) == 0)
			return layout->field[FIELD_IP].name;
	for (unsigned i = 0; i < FIELD_BUILTINS; i++)
		names[i] = layout->field[i].name;
	return nearest_slip(name, names, FIELD_BUILTINS);
}

int field_slot(struct loader *l, struct place at, const char *what, const char *name)
{
	const struct layout *layout = &l->policy->layout;
	const char *like = all_but_case(layout, name);
	unsigned before = layout->n;
	int slot = layout_add(&l->policy->layout, str_of(name));

	if (like && layout->n > before)
		problem_warn(l->problems, at,
			"%s: field \"%s\" is another one than \"%s\": upper and lower case are told "
			"apart; did you mean \"%s\"?",
			what, name, like, like);
	else if (layout->n > before && (like = built_in_like(layout, name)))
		problem_warn(l->problems, at,
			"%s: field \"%s\" is none that the agent knows of itself, and absent unless "
			"HAProxy sends an argument of that name; did you mean \"%s\"?",
			what, name, like);

	if (slot < 0 && strlen(name) > FIELD_NAME_MAX)
		problem_add(l->problems, at, "%s: the field's name is longer than %d bytes", what,
			FIELD_NAME_MAX);
	else if (slot < 0)
		problem_add(l->problems, at,
			"%s: field \"%s\" is one too many: want at most %d in all", what, name,
			FIELDS_MAX);
	return slot;
}

int field_load(struct loader *l, const struct given *g, const char *what)
{
	char shown[SHOWN_MAX];

	if (!text_check(g, what, 1, FIELD_NAME_MAX, l->problems))
		return -1;
	if (!g->text[strcspn(g->text, BETWEEN_FIELDS "|")])
		return field_slot(l, g->at, what, g->text);
	problem_add(l->problems, g->at, "%s = %s: want the name of one field", what,
		given_show(g, shown));
	return -1;
}

/* What one file says of identity.secret. false: there may be more to it. */
static bool secrets_of(const struct tree *t, json_t *names)
{
	const config_setting_t *group = config_lookup(&t->config, "identity");
	const config_setting_t *setting = config_lookup(&t->config, "identity.secret");
	struct problems told_elsewhere = { 0 };
	struct givens g;
	bool whole = !group || config_setting_is_group(group);

	if (setting && givens_load(t, setting, "", &g, &told_elsewhere)) {
		for (size_t k = 0; k < g.n; k++)
			whole &= !g.v[k].text[strcspn(g.v[k].text, BETWEEN_FIELDS "|")] &&
				 json_object_set_new(names, g.v[k].text, json_true()) == 0;
		givens_free(&g);
	} else if (setting) {
		whole = false;
	}
	problems_free(&told_elsewhere);
	return whole;
}

/* Wherever that stands: it may not have been read yet. false: not all that is there is known. */
static bool secrets_find(struct loader *l)
{
	l->secrets = json_object();
	bool whole = l->secrets != NULL;

	for (size_t i = 0; i < l->inputs->n; i++) {
		const struct tree *t = &l->inputs->tree[i];
		whole &= t->good && !t->source.lacks && secrets_of(t, l->secrets);
	}
	return whole;
}

/* May it be? As policy_seal() has it, of method, path and endpoint each tells of the others. */
static bool is_secret(struct loader *l, const char *field)
{
	static const char *const together[] = { "endpoint", "method", "path" };
	bool found = strcmp(field, "key") == 0, is_one = false;

	if (!l->secrets)
		l->secrets_unknown = !secrets_find(l);
	for (unsigned i = 0; i < 3; i++)
		is_one |= strcmp(field, together[i]) == 0;
	for (unsigned i = 0; is_one && i < 3; i++)
		found |= json_object_get(l->secrets, together[i]) != NULL;
	return found || l->secrets_unknown || json_object_get(l->secrets, field);
}

/* What is wrong with a pattern, in words that may be shown. */
static const char *shown(struct loader *l, const char *field, const char *why)
{
	return is_secret(l, field)
		       ? "a pattern is not as this field wants it; which and why is not shown, as the "
			 "field is secret, or may be (identity.secret)"
		       : why;
}

/* The line end of a file of variables, for instance. */
static bool has_control(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 127)
			return true;
	return false;
}

static void patterns_load(struct loader *l, struct match *m, const config_setting_t *setting,
	const char *what, const char *key)
{
	const char *name = config_setting_name(setting);
	struct place at = tree_place(l->tree, setting);
	char member[320], quoted[KEY_NAME_MAX], line_key[KEY_NAME_MAX + 320], why[1024];
	struct givens g;

	snprintf(member, sizeof member, "%s.%s", what, name);
	if (!givens_load(l->tree, setting, member, &g, l->problems))
		return;
	int slot = field_slot(l, at, what, name);
	if (g.n == 0)
		problem_add(l->problems, at, "%s: want at least one pattern", member);
	for (size_t i = 0; i < g.n && slot >= 0; i++) {
		struct str pattern = str_of(g.v[i].text);
		if (!match_add(m, (unsigned)slot, pattern, why, sizeof why))
			problem_add(l->problems, g.v[i].at, "%s: %s", member, shown(l, name, why));
		else if (match_is_odd((unsigned)slot, pattern, why, sizeof why))
			problem_warn(l->problems, g.v[i].at, "%s: %s", member, shown(l, name, why));
		else if (has_control(pattern))
			problem_warn(l->problems, g.v[i].at,
				"%s: a pattern has a control character in it, and matches only what "
				"has it, too (of the environment: the end of a line?)",
				member);
		if (slot == FIELD_TIER && pattern.n)
			tier_say_pattern(l, g.v[i].at, pattern);
	}
	char *joined = givens_join(&g);
	snprintf(line_key, sizeof line_key, "%s.%s", key, key_name(name, quoted));
	if (joined && slot >= 0)
		lines_add_patterns(&l->lines, at, line_key, (unsigned)slot, joined);
	else if (!joined)
		problem_out_of_memory(l->problems);
	free(joined);
	givens_free(&g);
}

struct match *match_load(
	struct loader *l, const config_setting_t *setting, const char *what, const char *key)
{
	if (config_setting_type(setting) != CONFIG_TYPE_GROUP) {
		problem_add(l->problems, tree_place(l->tree, setting),
			"%s: found %s, want a group of fields: { path = \"/api/*\"; }", what,
			tree_type_name(setting));
		return NULL;
	}
	struct match *m = match_new();
	if (!m) {
		problem_out_of_memory(l->problems);
		return NULL;
	}
	for (int i = 0; i < config_setting_length(setting); i++)
		patterns_load(l, m, config_setting_get_elem(setting, (unsigned)i), what, key);
	if (!match_seal(m)) {
		problem_out_of_memory(l->problems);
		match_free(m);
		return NULL;
	}
	return m;
}

static void entry_load(struct loader *l, const config_setting_t *setting, bool block)
{
	struct match ***list = block ? &l->policy->block : &l->policy->allow;
	unsigned *n = block ? &l->policy->block_n : &l->policy->allow_n;
	const char *name = block ? "block" : "allow";
	struct place at = tree_place(l->tree, setting);
	char key[32];

	snprintf(key, sizeof key, "%s.%u", name, *n + 1);
	if (config_setting_type(setting) == CONFIG_TYPE_GROUP &&
		config_setting_length(setting) == 0) {
		problem_add(l->problems, at,
			"%s: an empty group would match every request: want at least one field",
			key);
		return;
	}
	struct match *m = match_load(l, setting, key, key);
	if (!m)
		return;
	if (*n == LISTED_MAX) {
		problem_add(l->problems, at, "%s: more than %d entries", name, LISTED_MAX);
		match_free(m);
		return;
	}
	struct match **grown = *list;
	if ((*n & (*n - 1)) == 0) /* at powers of two */
		grown = realloc(*list, (*n ? 2 * (size_t)*n : 1) * sizeof **list);
	if (!grown) {
		problem_out_of_memory(l->problems);
		match_free(m);
		return;
	}
	*list = grown;
	grown[(*n)++] = m;
}

void lists_load(struct loader *l, const config_setting_t *setting, bool block)
{
	int type = config_setting_type(setting);

	if (type == CONFIG_TYPE_GROUP) { /* the brackets around a single one may be left out */
		entry_load(l, setting, block);
		return;
	}
	if (type != CONFIG_TYPE_LIST &&
		!(type == CONFIG_TYPE_ARRAY && config_setting_length(setting) == 0)) {
		problem_add(l->problems, tree_place(l->tree, setting),
			"%s: found %s, want a list of groups: ( { ip = \"192.0.2.0/24\"; } )",
			block ? "block" : "allow", tree_type_name(setting));
		return;
	}
	for (int i = 0; i < config_setting_length(setting); i++)
		entry_load(l, config_setting_get_elem(setting, (unsigned)i), block);
}
