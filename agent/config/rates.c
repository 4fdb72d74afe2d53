/* `rate` of rules: by tier as it is written, then for every tier as it counts. */
#include "config/load.h"
#include "config/nearest.h"

#include <stdlib.h>

/* struct limit is not small, and every tier of every rule has its own. */
enum { LIMITS_MAX = 1 << 20 };

struct rates_context {
	struct loader *l;
	struct rule_draft *draft;
	enum algorithm algorithm;
	bool checked; /* the algorithm is known */
};

static bool rate_of(
	const struct rates_context *c, const struct given *g, const char *what, struct rate *rate)
{
	char why[320], shown[SHOWN_MAX];

	if (g->type != GIVEN_STRING) {
		problem_add(c->l->problems, g->at, "%s = %s: want a string like \"%s/minute\"",
			what, given_show(g, shown), g->type == GIVEN_INTEGER ? g->text : "10");
		return false;
	}
	if (!rate_parse(str_of(g->text), rate, why, sizeof why)) {
		problem_add(c->l->problems, g->at, "%s = %s: %s", what, given_show(g, shown), why);
		return false;
	}
	if (rate->window.kind == WINDOW_MONTH && c->checked &&
		c->algorithm != ALGORITHM_FIXED_WINDOW) {
		problem_add(c->l->problems, g->at,
			"%s = %s: month is for algorithm = \"fixed-window\" only: want a length, "
			"like \"30d\"",
			what, given_show(g, shown));
		return false;
	}
	if (rate->burst && c->checked && c->algorithm != ALGORITHM_TOKEN_BUCKET) {
		problem_add(c->l->problems, g->at,
			"%s = %s: burst is for algorithm = \"token-bucket\" only", what,
			given_show(g, shown));
		return false;
	}
	return true;
}

/* A string, or a list of them, into `out`. */
static void quotas_load(const struct rates_context *c, struct tier_rates *out,
	const config_setting_t *setting, const char *what)
{
	struct problems *problems = c->l->problems;
	struct givens g;

	if (!givens_load(c->l->tree, setting, what, &g, problems))
		return;
	if (g.n < 1 || g.n > PLAN_MAX)
		problem_add(problems, out->at, "%s: %zu rates: want 1..%d", what, g.n, PLAN_MAX);
	else if (!(out->quota = calloc(g.n, sizeof *out->quota)))
		problem_out_of_memory(problems);
	for (size_t i = 0; i < g.n && out->quota; i++) {
		struct rate rate;
		char shown[SHOWN_MAX], window[DURATION_TEXT_MAX];
		if (!rate_of(c, &g.v[i], what, &rate))
			continue;
		if (rate.unlimited && g.n > 1)
			problem_add(problems, g.v[i].at,
				"%s: \"unlimited\" beside other rates: want it alone", what);
		if (rate.unlimited)
			continue;
		for (unsigned j = 0; j < out->n; j++)
			if (window_equal(&out->quota[j].window, &rate.window)) {
				problem_add(problems, g.v[i].at,
					"%s = %s: a second rate for one window (%s)", what,
					given_show(&g.v[i], shown),
					window_format(&rate.window, window));
				break;
			}
		out->quota[out->n++] = (struct quota){ .algorithm = c->algorithm,
			.window = rate.window,
			.units = rate.units,
			.capacity = rate.burst ? rate.burst : rate.units };
	}
	givens_free(&g);
}

static struct tier_rates *add_rates(
	const struct rates_context *c, struct place at, int tier, const char *what)
{
	struct rule_draft *d = c->draft;

	for (unsigned i = 0; i < d->rates_n; i++)
		if (d->rates[i].tier == tier) {
			problem_add(c->l->problems, at,
				"%s: this tier is listed twice: first in %s:%u", what,
				d->rates[i].at.file, d->rates[i].at.line);
			return NULL;
		}
	if (d->rates_n == d->rates_cap) {
		unsigned cap = d->rates_cap ? 2 * d->rates_cap : 4;
		struct tier_rates *grown = realloc(d->rates, cap * sizeof *grown);
		if (!grown) {
			problem_out_of_memory(c->l->problems);
			return NULL;
		}
		d->rates = grown;
		d->rates_cap = cap;
	}
	d->rates[d->rates_n] = (struct tier_rates){ .at = at, .tier = tier };
	return &d->rates[d->rates_n++];
}

/* -1 with *good: `default`. */
static int tier_number(const struct rates_context *c, struct place at, const char *name,
	const char *what, bool *good)
{
	*good = true;
	if (strcmp(name, "default") == 0)
		return -1;
	int tier = policy_tier_add(c->l->policy, str_of(name));
	if (tier < 0) {
		*good = false;
		problem_add(c->l->problems, at,
			"%s: want a tier of 1 to %d bytes, and at most %d tiers in all", what,
			TIER_NAME_MAX, TIERS_MAX);
	} else {
		c->l->tier_listed[tier] = true;
		tier_say(c->l, at, str_of(name), true);
	}
	return tier;
}

static void tier_load(const struct rates_context *c, const config_setting_t *setting,
	struct place at, const char *name, const char *what)
{
	char member[320];
	bool good;

	snprintf(member, sizeof member, "%s.%s", what, name);
	int tier = tier_number(c, at, name, member, &good);
	struct tier_rates *rates = good ? add_rates(c, at, tier, member) : NULL;
	if (rates)
		quotas_load(c, rates, setting, member);
}

/* One { tier = "…"; rate = "…"; } of a list. */
static void tier_group_load(
	const struct rates_context *c, const config_setting_t *setting, const char *what)
{
	static const char *const names[] = { "tier", "rate" };
	struct place at = tree_place(c->l->tree, setting);
	struct problems *problems = c->l->problems;
	char member[320], hint[HINT_MAX];
	struct givens g;

	if (config_setting_type(setting) != CONFIG_TYPE_GROUP) {
		problem_add(problems, at,
			"%s: found %s, want { tier = \"NAME\"; rate = \"10/minute\"; }", what,
			tree_type_name(setting));
		return;
	}
	for (int i = 0; i < config_setting_length(setting); i++) {
		const config_setting_t *s = config_setting_get_elem(setting, (unsigned)i);
		const char *name = config_setting_name(s);
		if (strcmp(name, "tier") != 0 && strcmp(name, "rate") != 0)
			problem_add(problems, tree_place(c->l->tree, s),
				"%s: unknown setting \"%s\"%s", what, name,
				nearest_hint(name, names, 2, hint));
	}
	const config_setting_t *tier = config_setting_get_member(setting, "tier");
	const config_setting_t *rate = config_setting_get_member(setting, "rate");
	if (!tier || !rate) {
		problem_add(
			problems, at, "%s: want { tier = \"NAME\"; rate = \"10/minute\"; }", what);
		return;
	}
	snprintf(member, sizeof member, "%s: tier", what);
	if (!givens_load(c->l->tree, tier, member, &g, problems))
		return;
	if (g.n != 1 || g.list)
		problem_add(problems, at, "%s: want one tier's name", member);
	else if (text_check(g.v, member, 1, TIER_NAME_MAX, problems))
		tier_load(c, rate, at, g.v->text, what);
	givens_free(&g);
}

static bool holds_group(const config_setting_t *list)
{
	for (int i = 0; i < config_setting_length(list); i++)
		if (config_setting_type(config_setting_get_elem(list, (unsigned)i)) ==
			CONFIG_TYPE_GROUP)
			return true;
	return false;
}

void rates_load(struct loader *l, struct rule_draft *draft, const config_setting_t *setting,
	const char *what, enum algorithm algorithm, bool checked)
{
	struct rates_context c = { l, draft, algorithm, checked };
	struct place at = tree_place(l->tree, setting);
	int type = config_setting_type(setting);

	if (type == CONFIG_TYPE_GROUP) {
		for (int i = 0; i < config_setting_length(setting); i++) {
			const config_setting_t *s = config_setting_get_elem(setting, (unsigned)i);
			tier_load(&c, s, tree_place(l->tree, s), config_setting_name(s), what);
		}
		if (config_setting_length(setting) == 0)
			problem_add(l->problems, at, "%s: want at least one tier", what);
	} else if (type == CONFIG_TYPE_LIST && holds_group(setting)) {
		for (int i = 0; i < config_setting_length(setting); i++)
			tier_group_load(&c, config_setting_get_elem(setting, (unsigned)i), what);
	} else {
		struct tier_rates *rates = add_rates(&c, at, -1, what);
		if (rates) {
			rates->only = true;
			quotas_load(&c, rates, setting, what);
		}
	}
}

void rates_free(struct rule_draft *d)
{
	for (unsigned i = 0; i < d->rates_n; i++)
		free(d->rates[i].quota);
	free(d->rates);
	d->rates = NULL;
	d->rates_n = d->rates_cap = 0;
}

/* ---- for every tier ---- */

static const struct tier_rates *rates_of(
	const struct rule_draft *d, const int *index, unsigned tier)
{
	return index[tier] >= 0 ? &d->rates[index[tier]] : NULL;
}

/* index[t]: which of the draft's rates holds for tier t; the last is for tiers nobody knows. */
static void index_rates(const struct rule_draft *d, int *index, unsigned tiers)
{
	int other = -1;

	for (unsigned i = 0; i < d->rates_n; i++)
		if (d->rates[i].tier < 0)
			other = (int)i;
	for (unsigned t = 0; t <= tiers; t++)
		index[t] = other;
	for (unsigned i = 0; i < d->rates_n; i++)
		if (d->rates[i].tier >= 0)
			index[d->rates[i].tier] = (int)i;
}

/* Every tier's limits over all rules: more than a plan holds is an error that names the tier. */
static void count_limits(struct loader *l, int *index, unsigned *count)
{
	struct policy *p = l->policy;
	unsigned refused = 0, total = 0;
	struct place last = { 0 };

	for (unsigned r = 0; r < p->rule_n; r++) {
		index_rates(&l->draft[r], index, p->tier_n);
		for (unsigned t = 0; t <= p->tier_n; t++) {
			const struct tier_rates *rates = rates_of(&l->draft[r], index, t);
			unsigned before = count[t], n = rates ? rates->n : 0;
			count[t] += n;
			total += n;
			if (before > PLAN_MAX || count[t] <= PLAN_MAX)
				continue;
			last = l->draft[r].at;
			if (refused++)
				continue;
			problem_add(l->problems, l->draft[r].at,
				"rule \"%s\" brings tier \"%s\" to %u limits: want at most %d for one "
				"tier, counted over all rules",
				p->rule[r].name, t < p->tier_n ? p->tier[t].name : "(any other)",
				count[t], PLAN_MAX);
		}
		if (total > LIMITS_MAX) {
			problem_add(l->problems, l->draft[r].at,
				"%u rules for %u tiers make more than %d limits", p->rule_n,
				p->tier_n, LIMITS_MAX);
			return;
		}
	}
	if (refused > 1)
		problem_add(l->problems, last, "the same holds for %u more tier%s", refused - 1,
			refused > 2 ? "s" : "");
}

/* Is there room for the window among those of its rule? */
static bool window_add(struct window *list, unsigned *n, const struct window *w)
{
	for (unsigned i = 0; i < *n; i++)
		if (window_equal(&list[i], w))
			return true;
	if (*n == RULE_WINDOWS_MAX)
		return false;
	list[(*n)++] = *w;
	return true;
}

/* policy_seal() would refuse the first of these, and knows no places. */
static void check_windows(struct loader *l, unsigned r)
{
	const struct rule_draft *d = &l->draft[r];
	struct window list[RULE_WINDOWS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < d->rates_n; i++)
		for (unsigned q = 0; q < d->rates[i].n; q++)
			if (!window_add(list, &n, &d->rates[i].quota[q].window)) {
				problem_add(l->problems, d->rates[i].at,
					"rule \"%s\": more than %d different windows",
					l->policy->rule[r].name, RULE_WINDOWS_MAX);
				return;
			}
}

static bool limits_build(
	struct limits *out, const struct rule *rule, const struct tier_rates *rates)
{
	if (!rates || rates->n == 0)
		return true;
	out->limit = calloc(rates->n, sizeof *out->limit);
	if (!out->limit)
		return false;
	for (unsigned i = 0; i < rates->n; i++) {
		out->limit[i].rule = rule;
		out->limit[i].quota = rates->quota[i];
	}
	out->n = rates->n;
	return true;
}

static bool rule_build(struct loader *l, unsigned r, int *index)
{
	struct policy *p = l->policy;
	struct rule *rule = &p->rule[r];

	index_rates(&l->draft[r], index, p->tier_n);
	rule->tier = calloc(p->tier_n ? p->tier_n : 1, sizeof *rule->tier);
	if (!rule->tier)
		return false;
	for (unsigned t = 0; t < p->tier_n; t++)
		if (!limits_build(&rule->tier[t], rule, rates_of(&l->draft[r], index, t)))
			return false;
	return limits_build(&rule->other, rule, rates_of(&l->draft[r], index, p->tier_n));
}

void rates_check(struct loader *l)
{
	size_t n = l->policy->tier_n + 1;
	int *index = calloc(n, sizeof *index);
	unsigned *count = calloc(n, sizeof *count);

	for (unsigned r = 0; r < l->policy->rule_n; r++)
		check_windows(l, r);
	if (index && count)
		count_limits(l, index, count);
	else
		problem_out_of_memory(l->problems);
	free(index);
	free(count);
}

void rates_build(struct loader *l)
{
	int *index = calloc(l->policy->tier_n + 1, sizeof *index);
	bool good = index != NULL;

	for (unsigned r = 0; r < l->policy->rule_n && good; r++)
		good = rule_build(l, r, index);
	if (!good)
		problem_out_of_memory(l->problems);
	free(index);
}

void rates_lines(struct loader *l)
{
	for (unsigned r = 0; r < l->policy->rule_n; r++) {
		char rule[KEY_NAME_MAX], tier[KEY_NAME_MAX], one[RATE_TEXT_MAX];
		key_name(l->policy->rule[r].name, rule);
		for (unsigned i = 0; i < l->draft[r].rates_n; i++) {
			const struct tier_rates *t = &l->draft[r].rates[i];
			char all[PLAN_MAX * RATE_TEXT_MAX] = "unlimited";
			size_t used = 0;
			for (unsigned q = 0; q < t->n; q++)
				used += (size_t)snprintf(all + used, sizeof all - used, "%s%s",
					q ? ", " : "", quota_format(&t->quota[q], false, one));
			const char *name = t->tier < 0 ? "default" : l->policy->tier[t->tier].name;
			if (t->only)
				lines_add(&l->lines, t->at, "rules.%s.rate = %s", rule, all);
			else
				lines_add(&l->lines, t->at, "rules.%s.rate.%s = %s", rule,
					key_name(name, tier), all);
		}
	}
}
