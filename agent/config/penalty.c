/* `penalty` of a rule: { after = "10/1m"; ban = "10m"; factor = 2; max = "1d"; } */
#include "limit/penalty.h"

#include "config/load.h"
#include "config/nearest.h"

#include <stdlib.h>

#define BAN_DEFAULT    (10 * 60 * USEC_PER_SEC)
#define BAN_MAX        (366 * USEC_PER_DAY)
#define FACTOR_DEFAULT 2.0
#define FACTOR_MAX     1000.0

static const char *const names[] = { "after", "ban", "factor", "max" };

enum { NAMES_N = sizeof names / sizeof *names };

struct reading {
	struct loader *l;
	const config_setting_t *group;
	const char *title;
	char what[256];
};

static bool scalar(struct reading *r, const char *name, struct givens *g)
{
	const config_setting_t *s = config_setting_get_member(r->group, name);

	snprintf(r->what, sizeof r->what, "%s: penalty.%s", r->title, name);
	return s && givens_load_one(r->l->tree, s, r->what, g, r->l->problems);
}

static void after_load(struct reading *r, struct penalty *p)
{
	char why[320], shown[SHOWN_MAX];
	struct rate rate;
	struct givens g;

	if (!config_setting_get_member(r->group, "after"))
		problem_add(r->l->problems, tree_place(r->l->tree, r->group),
			"%s: penalty has no after: want after = \"10/1m\": so many denials in that time",
			r->title);
	if (!scalar(r, "after", &g))
		return;
	if (!rate_parse(str_of(g.v->text), &rate, why, sizeof why))
		problem_add(r->l->problems, g.v->at, "%s = %s: %s", r->what, given_show(g.v, shown),
			why);
	else if (rate.unlimited || rate.burst || rate.units < 1 || rate.window.kind == WINDOW_MONTH)
		problem_add(r->l->problems, g.v->at,
			"%s = %s: want a number of denials and a time, like \"10/1m\"", r->what,
			given_show(g.v, shown));
	else
		p->after = (struct quota){ .algorithm = ALGORITHM_FIXED_WINDOW,
			.window = { WINDOW_FROM_FIRST, rate.window.length },
			.units = rate.units,
			.capacity = rate.units };
	givens_free(&g);
}

static void duration_load(struct reading *r, const char *name, usec_t *out)
{
	char shown[SHOWN_MAX];
	struct givens g;
	usec_t v;

	if (!scalar(r, name, &g))
		return;
	if (duration_parse(str_of(g.v->text), &v) && v >= USEC_PER_SEC && v <= BAN_MAX)
		*out = v;
	else
		problem_add(r->l->problems, g.v->at, "%s = %s: want 1s..366d, like \"10m\"",
			r->what, given_show(g.v, shown));
	givens_free(&g);
}

static void factor_load(struct reading *r, struct penalty *p)
{
	char shown[SHOWN_MAX];
	struct givens g;
	double v;

	if (!scalar(r, "factor", &g))
		return;
	if (given_number(g.v, &v) && v >= 1 && v <= FACTOR_MAX)
		p->factor = v;
	else
		problem_add(r->l->problems, g.v->at, "%s = %s: want 1..%g, like 2", r->what,
			given_show(g.v, shown), FACTOR_MAX);
	givens_free(&g);
}

static void names_check(struct reading *r)
{
	for (int i = 0; i < config_setting_length(r->group); i++) {
		const config_setting_t *s = config_setting_get_elem(r->group, (unsigned)i);
		const char *name = config_setting_name(s);
		char hint[HINT_MAX];
		unsigned known = 0;
		while (known < NAMES_N && strcmp(name, names[known]) != 0)
			known++;
		if (known == NAMES_N)
			problem_add(r->l->problems, tree_place(r->l->tree, s),
				"%s: penalty: unknown setting \"%s\"%s", r->title, name,
				nearest_hint(name, names, NAMES_N, hint));
	}
}

/* Does it make sense for this rule? */
static void rule_check(struct reading *r, const struct rule *rule)
{
	struct place at = tree_place(r->l->tree, r->group);

	if (rule->per_n == 0)
		problem_add(r->l->problems, at,
			"%s: penalty: a rule with per = [] counts everyone together: it would ban "
			"everyone; want per = [ \"ip\" ] or the like",
			r->title);
	if (rule->action == ACTION_TAG)
		problem_warn(r->l->problems, at,
			"%s: penalty: a rule with action = \"tag\" denies nothing, so it bans nobody",
			r->title);
}

void penalty_load(struct loader *l, const config_setting_t *group, struct rule *rule,
	const char *title, const char *key)
{
	struct reading r = { .l = l, .group = group, .title = title };
	size_t errors = problem_errors(l->problems);
	char after[RATE_TEXT_MAX], ban[DURATION_TEXT_MAX], max[DURATION_TEXT_MAX];
	struct place at = tree_place(l->tree, group);

	if (config_setting_type(group) != CONFIG_TYPE_GROUP) {
		problem_add(l->problems, at,
			"%s: penalty: found %s, want a group: { after = \"10/1m\"; ban = \"10m\"; }",
			title, tree_type_name(group));
		return;
	}
	struct penalty *p = rule->penalty = calloc(1, sizeof *p);
	if (!p) {
		problem_out_of_memory(l->problems);
		return;
	}
	*p = (struct penalty){ .ban = BAN_DEFAULT, .factor = FACTOR_DEFAULT };
	names_check(&r);
	after_load(&r, p);
	duration_load(&r, "ban", &p->ban);
	factor_load(&r, p);
	p->max = p->ban > USEC_PER_DAY ? p->ban : USEC_PER_DAY;
	duration_load(&r, "max", &p->max);
	if (p->max < p->ban)
		problem_add(l->problems, at,
			"%s: penalty.max = \"%s\" is less than penalty.ban = \"%s\"", title,
			duration_format(p->max, max), duration_format(p->ban, ban));
	if (problem_errors(l->problems) != errors)
		return;
	rule_check(&r, rule);
	lines_add(&l->lines, at, "rules.%s.penalty = after %s, ban %s, factor %.6g, max %s", key,
		quota_format(&p->after, false, after), duration_format(p->ban, ban), p->factor,
		duration_format(p->max, max));
}
