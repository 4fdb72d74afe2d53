/* `rules`: settings of a rule into struct rule. Rates have a file of their own. */
#include "config/load.h"
#include "config/nearest.h"
#include "config/words.h"

#include <stdlib.h>

static const struct {
	const char *name;
	bool reserved;
} rule_setting[] = {
#define X(name, text, help) { #name, (help) == NULL },
	RULE_SETTINGS(X)
#undef X
};

enum { RULE_SETTINGS_N = sizeof rule_setting / sizeof *rule_setting, TAG_MAX = 255 };

/* One rule on its way. */
struct reading {
	struct loader *l;
	const config_setting_t *group;
	struct rule *rule;
	char title[RULE_NAME_MAX + 32]; /* `rule "api"`, or `rule 3` while it has no name */
	char key[KEY_NAME_MAX];
	char what[256];
};

/* What messages call a setting of this rule. */
static const char *called(struct reading *r, const char *name)
{
	snprintf(r->what, sizeof r->what, "%s: %s", r->title, name);
	return r->what;
}

/* A setting that holds one value; false: it is not there, or problems were added. */
static bool scalar(struct reading *r, const char *name, struct givens *g)
{
	const config_setting_t *s = config_setting_get_member(r->group, name);

	return s && givens_load_one(r->l->tree, s, called(r, name), g, r->l->problems);
}

static struct place place_of(const struct reading *r, const char *name)
{
	const config_setting_t *s = config_setting_get_member(r->group, name);
	return tree_place(r->l->tree, s ? s : r->group);
}

static void line(struct reading *r, const char *name, const char *value)
{
	const config_setting_t *s = config_setting_get_member(r->group, name);
	lines_add(&r->l->lines, s ? tree_place(r->l->tree, s) : (struct place){ 0 },
		"rules.%s.%s = %s", r->key, name, value);
}

static bool is_ascii(const char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			return false;
	return true;
}

static void name_load(struct reading *r)
{
	struct problems *problems = r->l->problems;
	struct policy *p = r->l->policy;
	unsigned self = (unsigned)(r->rule - p->rule);
	char shown[SHOWN_MAX];
	struct givens g;

	if (!config_setting_get_member(r->group, "name"))
		problem_add(problems, tree_place(r->l->tree, r->group),
			"%s: has no name: want name = \"…\"", r->title);
	if (!scalar(r, "name", &g))
		return;
	size_t n = strlen(g.v->text);
	/* It goes out in HTTP fields, as a string of RFC 9651: printable ASCII. */
	if (g.v->type != GIVEN_STRING || n < 1 || n > RULE_NAME_MAX || !is_ascii(g.v->text)) {
		problem_add(problems, g.v->at, "%s = %s: want 1 to %d printable ASCII characters",
			r->what, given_show(g.v, shown), RULE_NAME_MAX);
		givens_free(&g);
		return;
	}
	memcpy(r->rule->name, g.v->text, n + 1);
	snprintf(r->title, sizeof r->title, "rule \"%s\"", r->rule->name);
	key_name(r->rule->name, r->key);
	for (unsigned i = 0; i < self; i++)
		if (strcmp(p->rule[i].name, r->rule->name) == 0) {
			struct place first = r->l->draft[i].at;
			problem_add(problems, g.v->at, "%s: there is a rule of this name in %s:%u",
				r->title, first.file, first.line);
			break;
		}
	givens_free(&g);
}

/* One of a few words; `first` when it is not there. -1: problems. */
static int word_setting(struct reading *r, const char *name, const char *words)
{
	char text[32];
	struct givens g;
	int v = 0;

	if (config_setting_get_member(r->group, name)) {
		if (!scalar(r, name, &g))
			return -1;
		v = word_load(g.v, r->what, words, r->l->problems);
		givens_free(&g);
	}
	if (v >= 0)
		line(r, name, word_at(words, v, text, sizeof text));
	return v;
}

static void boolean_setting(struct reading *r, const char *name, bool *out)
{
	char shown[SHOWN_MAX];
	struct givens g;

	if (scalar(r, name, &g)) {
		if (!given_boolean(g.v, out))
			problem_add(r->l->problems, g.v->at, "%s = %s: want true or false", r->what,
				given_show(g.v, shown));
		givens_free(&g);
	}
	line(r, name, *out ? "true" : "false");
}

/* 0..`most`; `like`: an example. */
static void share_setting(
	struct reading *r, const char *name, double most, const char *like, double *out)
{
	char shown[SHOWN_MAX], text[32];
	struct givens g;
	double v;

	if (scalar(r, name, &g)) {
		if (given_number(g.v, &v) && v >= 0 && v <= most)
			*out = v;
		else
			problem_add(r->l->problems, g.v->at, "%s = %s: want 0..%g, like %s",
				r->what, given_show(g.v, shown), most, like);
		givens_free(&g);
	}
	snprintf(text, sizeof text, "%.6g", *out);
	line(r, name, text);
}

/* Who counts what is denied has to hear of each request, wherever it was denied. */
static void lease_load(struct reading *r)
{
	share_setting(r, "lease", 0.5, "0.05", &r->rule->lease);
	if (r->rule->lease > 0 && r->rule->count_denied)
		problem_add(r->l->problems, place_of(r, "lease"),
			"%s: lease and count_denied: a rule that counts what is denied has to ask "
			"Redis for each request: leave one of them out",
			r->title);
}

static void cost_load(struct reading *r)
{
	char shown[SHOWN_MAX];
	struct givens g;

	r->rule->cost_slot = FIELD_COST;
	if (scalar(r, "cost", &g)) {
		bool is_number = g.v->type != GIVEN_BOOLEAN && g.v->text[0] &&
				 !g.v->text[strspn(g.v->text, "0123456789.-")];
		int slot = FIELD_COST;
		if (is_number)
			problem_add(r->l->problems, g.v->at,
				"%s = %s: want the name of a field that says what a request costs: HAProxy "
				"sends it, as with args cost=int(%s)",
				r->what, given_show(g.v, shown), g.v->text);
		else
			slot = field_load(r->l, g.v, r->what);
		r->rule->cost_slot = (uint8_t)(slot < 0 ? FIELD_COST : slot);
		givens_free(&g);
	}
	line(r, "cost", r->l->policy->layout.field[r->rule->cost_slot].name);
}

static void tag_load(struct reading *r)
{
	struct givens g;
	bool given = scalar(r, "tag", &g);

	if (given && text_check(g.v, r->what, 1, TAG_MAX, r->l->problems)) {
		r->rule->tag = strdup(g.v->text);
		if (r->rule->action != ACTION_TAG)
			problem_warn(r->l->problems, g.v->at,
				"%s: sets nothing without action = \"tag\"", r->what);
	} else {
		r->rule->tag = strdup(r->rule->name);
	}
	if (!r->rule->tag)
		problem_out_of_memory(r->l->problems);
	else if (given || r->rule->action == ACTION_TAG)
		line(r, "tag", r->rule->tag);
	if (given)
		givens_free(&g);
}

/* "ip + key | user" -> "ip", "key|user". "": it does not fit. */
static void per_apart(const char *text, char *out, size_t size)
{
	size_t n = 0;
	bool ended = false;

	while (*text) {
		size_t gap = strspn(text, BETWEEN_FIELDS);
		bool beside_bar = (n && out[n - 1] == '|') || text[gap] == '|';
		/* Blanks around | are just that. */
		ended |= gap && n && !(beside_bar && strspn(text, " \t") == gap);
		text += gap;
		if (!*text)
			break;
		if (n + 6 > size) {
			out[0] = '\0';
			return;
		}
		if (ended)
			n += (size_t)sprintf(out + n, "\", \"");
		out[n++] = *text++;
		ended = false;
	}
	out[n] = '\0';
}

static bool per_is_one(struct reading *r, const struct given *g, const char *name, size_t n)
{
	char shown[SHOWN_MAX], apart[256];

	for (size_t i = 0; i < n; i++) {
		if (!strchr(BETWEEN_FIELDS, name[i]))
			continue;
		per_apart(g->text, apart, sizeof apart);
		problem_add(r->l->problems, g->at,
			"%s = %s: want each field by itself: per = [ \"%s\" ]", r->what,
			given_show(g, shown), apart[0] ? apart : "ip\", \"user");
		return false;
	}
	return true;
}

/* The line end of a file of variables, for instance: a rule that counts by "ip\r" never applies. */
static bool per_is_text(struct reading *r, const struct given *g)
{
	char shown[SHOWN_MAX];

	for (const char *c = g->text; *c; c++)
		if (((unsigned char)*c < ' ' && *c != '\t') || *c == 127) {
			problem_add(r->l->problems, g->at,
				"%s = %s: want names of fields without control characters (a '?' "
				"here)",
				r->what, given_show(g, shown));
			return false;
		}
	return true;
}

/* "key|user|ip" */
static bool per_parse(struct reading *r, const struct given *g, struct per *out)
{
	struct problems *problems = r->l->problems;
	const char *p = g->text;
	char shown[SHOWN_MAX];

	for (;;) {
		char name[FIELD_NAME_MAX + 2];
		size_t n = strcspn(p, "|"), skip = strspn(p, " \t"), end = n;
		skip = skip < n ? skip : n;
		while (end > skip && (p[end - 1] == ' ' || p[end - 1] == '\t'))
			end--;
		snprintf(name, sizeof name, "%.*s",
			(int)(end - skip > sizeof name ? sizeof name : end - skip), p + skip);
		if (end == skip) {
			problem_add(problems, g->at,
				"%s = %s: want the name of a field; [] is one counter for all",
				r->what, given_show(g, shown));
			return false;
		}
		if (out->n == PER_ALT_MAX) {
			problem_add(problems, g->at, "%s = %s: more than %d alternatives", r->what,
				given_show(g, shown), PER_ALT_MAX);
			return false;
		}
		if (!per_is_one(r, g, p + skip, end - skip))
			return false;
		int slot = field_slot(r->l, g->at, r->what, name);
		if (slot < 0)
			return false;
		if (memchr(out->slot, slot, out->n)) {
			problem_add(problems, g->at, "%s = %s: \"%s\" is there twice", r->what,
				given_show(g, shown), name);
			return false;
		}
		out->slot[out->n++] = (uint8_t)slot;
		if (!p[n])
			return true;
		p += n + 1;
	}
}

static void per_load(struct reading *r)
{
	const config_setting_t *s = config_setting_get_member(r->group, "per");
	struct problems *problems = r->l->problems;
	struct rule *rule = r->rule;
	char shown[SHOWN_MAX];
	struct givens g;

	if (!s) {
		problem_warn(problems, tree_place(r->l->tree, r->group),
			"%s: has no per: one counter for all requests together (per = [] says so)",
			r->title);
		line(r, "per", "");
		return;
	}
	if (!givens_load(r->l->tree, s, called(r, "per"), &g, problems))
		return;
	if (g.n > PER_MAX)
		problem_add(problems, tree_place(r->l->tree, s), "%s: %zu fields: want at most %d",
			r->what, g.n, PER_MAX);
	for (size_t i = 0; i < g.n && g.n <= PER_MAX; i++) {
		struct per *per = &rule->per[rule->per_n];
		*per = (struct per){ 0 };
		if (g.v[i].type != GIVEN_STRING) {
			problem_add(problems, g.v[i].at, "%s = %s: want the name of a field",
				r->what, given_show(&g.v[i], shown));
			continue;
		}
		if (!per_is_text(r, &g.v[i]) || !per_parse(r, &g.v[i], per))
			continue;
		for (unsigned j = 0; j < rule->per_n; j++)
			if (per->n == rule->per[j].n &&
				memcmp(per->slot, rule->per[j].slot, per->n) == 0)
				problem_add(problems, g.v[i].at, "%s = %s: is there twice", r->what,
					given_show(&g.v[i], shown));
		rule->per_n++;
	}
	char *joined = givens_join(&g);
	if (joined)
		line(r, "per", joined);
	else
		problem_out_of_memory(problems);
	free(joined);
	givens_free(&g);
}

/* What other limiters call it, and a field outside of `match`; or a name that is near. */
static const char *rule_hint(
	const struct reading *r, const char *name, const char *const *names, unsigned n, char *out)
{
	static const struct {
		const char *word, *hint;
	} elsewhere[] = {
		{ "burst", "; it is said with the rate: rate = \"10/minute burst 20\"" },
		{ "limit", "; it is said by the rate: rate = \"10/minute\"" },
		{ "requests", "; it is said by the rate: rate = \"10/minute\"" },
		{ "window", "; it is said by the rate: rate = \"10/minute\"" },
		{ "period", "; it is said by the rate: rate = \"10/minute\"" },
		{ "by", "; did you mean \"per\"?" },
		{ "dry_run", "; did you mean mode = \"shadow\"?" },
		{ "enabled", "; did you mean mode = \"off\"?" },
	};
	const struct layout *layout = &r->l->policy->layout;

	for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
		if (strcmp(name, elsewhere[i].word) == 0)
			return elsewhere[i].hint;
	for (unsigned i = 0; i < FIELD_BUILTINS; i++)
		if (strcmp(name, layout->field[i].name) == 0) {
			(void)snprintf(out, HINT_MAX,
				"; a field stands in per = [ \"%s\" ] or in match = { %s = \"…\"; }",
				name, name);
			return out;
		}
	return nearest_hint(name, names, n, out);
}

static void names_check(struct reading *r)
{
	const char *names[RULE_SETTINGS_N];
	unsigned names_n = 0;

	for (unsigned i = 0; i < RULE_SETTINGS_N; i++)
		if (!rule_setting[i].reserved)
			names[names_n++] = rule_setting[i].name;
	for (int i = 0; i < config_setting_length(r->group); i++) {
		const config_setting_t *s = config_setting_get_elem(r->group, (unsigned)i);
		const char *name = config_setting_name(s);
		char hint[HINT_MAX];
		unsigned known = 0;
		while (known < RULE_SETTINGS_N && strcmp(name, rule_setting[known].name) != 0)
			known++;
		if (known == RULE_SETTINGS_N)
			problem_add(r->l->problems, tree_place(r->l->tree, s),
				"%s: unknown setting \"%s\"%s", r->title, name,
				rule_hint(r, name, names, names_n, hint));
		else if (rule_setting[known].reserved)
			problem_add(r->l->problems, tree_place(r->l->tree, s),
				"%s: %s is reserved for a later version: this one does not know it",
				r->title, name);
	}
}

static void match_setting(struct reading *r)
{
	const config_setting_t *s = config_setting_get_member(r->group, "match");
	char key[KEY_NAME_MAX + 16];

	if (!s)
		return;
	unsigned before = r->l->tiers_matched_n;
	snprintf(key, sizeof key, "rules.%s.match", r->key);
	r->rule->match = match_load(r->l, s, called(r, "match"), key);
	r->l->policy->lists_tiers |= r->l->tiers_matched_n > before;
	if (r->rule->match && match_is_empty(r->rule->match)) {
		match_free(r->rule->match); /* as if it were not there: every request */
		r->rule->match = NULL;
	}
}

static void rule_load(struct loader *l, const config_setting_t *group, struct rule *rule,
	struct rule_draft *draft, int position)
{
	struct reading r = { .l = l, .group = group, .rule = rule };

	draft->at = tree_place(l->tree, group);
	snprintf(r.title, sizeof r.title, "rule %d", position + 1);
	snprintf(r.key, sizeof r.key, "%d", position + 1);
	name_load(&r);
	names_check(&r);
	match_setting(&r);
	per_load(&r);
	/* in the order of the enums; the first is the default */
	int algorithm = word_setting(
		&r, "algorithm", "token-bucket|sliding-window|fixed-window|!concurrency");
	int mode = word_setting(&r, "mode", "enforce|shadow|off");
	int action = word_setting(&r, "action", "deny|tag");
	rule->algorithm = (enum algorithm)(algorithm < 0 ? 0 : algorithm);
	rule->mode = rule->configured = (enum rule_mode)(mode < 0 ? 0 : mode);
	rule->action = (enum rule_action)(action < 0 ? 0 : action);
	draft->on_failure_given = config_setting_get_member(group, "on_failure");
	if (draft->on_failure_given) {
		int on_failure = word_setting(&r, "on_failure", "local|open|closed");
		rule->on_failure = (enum on_failure)(on_failure < 0 ? 0 : on_failure);
	}
	boolean_setting(&r, "count_denied", &rule->count_denied);
	rule->warn_at = 1.0;
	share_setting(&r, "warn_at", 1.0, "0.8", &rule->warn_at);
	lease_load(&r);
	cost_load(&r);
	tag_load(&r);
	const config_setting_t *penalty = config_setting_get_member(group, "penalty");
	if (penalty)
		penalty_load(l, penalty, rule, r.title, r.key);
	const config_setting_t *rate = config_setting_get_member(group, "rate");
	if (rate)
		rates_load(l, draft, rate, called(&r, "rate"), rule->algorithm, algorithm >= 0);
	else
		problem_add(l->problems, place_of(&r, "rate"),
			"%s: has no rate: want rate = \"10/minute\", or \"unlimited\"", r.title);
}

/* Room for one more rule and its draft. */
static bool room(struct loader *l)
{
	unsigned n = l->policy->rule_n;

	if (n < l->rules_cap)
		return true;
	unsigned cap = l->rules_cap ? 2 * l->rules_cap : 16;
	struct rule *rules = realloc(l->policy->rule, cap * sizeof *rules);
	if (rules)
		l->policy->rule = rules;
	struct rule_draft *drafts = realloc(l->draft, cap * sizeof *drafts);
	if (drafts)
		l->draft = drafts;
	if (!rules || !drafts) {
		problem_out_of_memory(l->problems);
		return false;
	}
	l->rules_cap = cap;
	return true;
}

void rules_load(struct loader *l, const config_setting_t *setting)
{
	int type = config_setting_type(setting), n = config_setting_length(setting);

	if (type != CONFIG_TYPE_LIST && !(type == CONFIG_TYPE_ARRAY && n == 0)) {
		problem_add(l->problems, tree_place(l->tree, setting),
			"rules: found %s, want a list of groups: ( { name = \"api\"; rate = "
			"\"10/minute\"; } )",
			tree_type_name(setting));
		return;
	}
	for (int i = 0; i < n; i++) {
		const config_setting_t *s = config_setting_get_elem(setting, (unsigned)i);
		struct policy *p = l->policy;
		if (config_setting_type(s) != CONFIG_TYPE_GROUP) {
			problem_add(l->problems, tree_place(l->tree, s),
				"rule %d: found %s, want a group { name = \"…\"; rate = \"…\"; }",
				i + 1, tree_type_name(s));
			continue;
		}
		if (p->rule_n == RULES_MAX) {
			problem_add(l->problems, tree_place(l->tree, s), "more than %d rules",
				RULES_MAX);
			return;
		}
		if (!room(l))
			return;
		p->rule[p->rule_n] = (struct rule){ 0 };
		l->draft[p->rule_n] = (struct rule_draft){ 0 };
		p->rule_n++;
		l->draft_n++;
		rule_load(l, s, &p->rule[p->rule_n - 1], &l->draft[p->rule_n - 1], i);
	}
}
