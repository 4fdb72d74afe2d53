/* Which tiers a configuration names, and what of it looks like a typing error: one that is misspelt
 * has no limit, and nobody is told by what the agent decides. */
#include "config/load.h"
#include "config/nearest.h"
#include "limit/names.h"

#include <stdlib.h>

enum { SAID_MAX = 1024 }; /* different ones; with more nothing is said of any */

struct tiers_said {
	struct names *names; /* owned; name -> its place here */
	struct said {
		char name[TIER_NAME_MAX + 1];
		struct place at; /* first */
		unsigned times;
		bool in_rate, told;
	} said[SAID_MAX];
	unsigned n;
	bool too_many;
};

void tiers_said_free(struct tiers_said *t)
{
	if (!t)
		return;
	names_free(t->names);
	free(t);
}

static struct tiers_said *tiers_said_of(struct loader *l)
{
	if (l->said)
		return l->said;
	l->said = calloc(1, sizeof *l->said);
	if (l->said && !(l->said->names = names_new())) {
		free(l->said);
		l->said = NULL;
	}
	if (!l->said)
		problem_out_of_memory(l->problems);
	return l->said;
}

void tier_say(struct loader *l, struct place at, struct str name, bool in_rate)
{
	struct tiers_said *t = tiers_said_of(l);

	if (!t || name.n == 0 || name.n > TIER_NAME_MAX)
		return;
	int64_t found = names_find(t->names, name);
	if (found < 0 && t->n == SAID_MAX) {
		t->too_many = true;
		return;
	}
	if (found < 0) {
		if (!names_add(t->names, name, t->n)) {
			problem_out_of_memory(l->problems);
			return;
		}
		found = t->n++;
		memcpy(t->said[found].name, name.p, name.n);
		t->said[found].at = at;
	}
	t->said[found].times++;
	t->said[found].in_rate |= in_rate;
}

void tier_say_pattern(struct loader *l, struct place at, struct str pattern)
{
	bool excludes = pattern.n && pattern.p[0] == '!';
	struct str s = { pattern.p + excludes, pattern.n - excludes };
	char why[64];

	if (!memchr(s.p, '*', s.n) && !memchr(s.p, '\\', s.n))
		tier_say(l, at, s, false);
	if (excludes)
		return;
	struct policy *p = l->policy;
	if (!p->tiers_matched)
		p->tiers_matched = match_new();
	if (!p->tiers_matched || !match_add(p->tiers_matched, FIELD_TIER, pattern, why, sizeof why))
		problem_out_of_memory(l->problems);
	l->tiers_matched_n++;
}

/* One that could be meant by `tier`, and is better known. NULL: none. */
static const struct said *meant_by(const struct tiers_said *t, const struct said *tier)
{
	unsigned known = 2 * tier->times + tier->in_rate;

	for (unsigned i = 0; i < t->n; i++) {
		const struct said *other = &t->said[i];
		unsigned others = 2 * other->times + other->in_rate;
		if (other->told || others < known || (others == known && other > tier))
			continue; /* then that one is the misspelt one */
		if (is_slip(tier->name, other->name))
			return other;
	}
	return NULL;
}

static void slips_check(struct loader *l)
{
	const struct tiers_said *t = l->said;

	for (unsigned i = 0; t && !t->too_many && i < t->n; i++) {
		const struct said *tier = &t->said[i];
		const struct said *other = tier->times == 1 && !tier->told ? meant_by(t, tier)
									   : NULL;
		if (other && other->times == 1 && other->in_rate == tier->in_rate)
			problem_warn(l->problems, tier->at,
				"tier \"%s\" is named here and nowhere else, and so is \"%s\" elsewhere: is "
				"one of them misspelt?",
				tier->name, other->name);
		else if (other)
			problem_warn(l->problems, tier->at,
				"tier \"%s\" is named here and nowhere else; did you mean \"%s\"?",
				tier->name, other->name);
	}
}

static bool is_by_tier(const struct rule_draft *d)
{
	for (unsigned i = 0; i < d->rates_n; i++)
		if (d->rates[i].tier >= 0)
			return true;
	return false;
}

static bool has_default(const struct rule_draft *d)
{
	for (unsigned i = 0; i < d->rates_n; i++)
		if (d->rates[i].tier < 0)
			return true;
	return false;
}

const char *tier_meant(const struct loader *l, const char *name)
{
	const struct policy *p = l->policy;

	for (unsigned i = 0; i < p->tier_named; i++)
		if (is_slip(name, p->tier[i].name))
			return p->tier[i].name;
	return NULL;
}

/* Who has no other tier is most who are to be limited. */
static void default_check(struct loader *l)
{
	const struct policy *p = l->policy;
	const struct tier *tier = &p->tier[p->default_tier];
	const struct rule_draft *first = NULL;
	struct place at = l->option_at[OPTION_ID_identity_default_tier];
	const char *meant = tier_meant(l, tier->name);
	unsigned n = 0;
	bool has_other = false; /* a rule that limits him: the rest are for who is listed */

	for (unsigned r = 0; r < l->draft_n; r++) {
		const struct rule_draft *d = &l->draft[r];
		if (p->rule[r].mode == MODE_OFF || !is_by_tier(d))
			continue;
		if (has_default(d)) {
			has_other = true;
			continue;
		}
		first = first ? first : d;
		n++;
	}
	if (!first || (has_other && !meant) || l->tier_listed[p->default_tier] ||
		policy_matches_tier(p, str_of(tier->name)))
		return;
	char more[48] = "", hint[HINT_MAX] = "";
	if (n > 1)
		snprintf(more, sizeof more, " (nor have %u others)", n - 1);
	if (meant)
		snprintf(hint, sizeof hint, "; did you mean \"%s\"?", meant);
	problem_warn(l->problems, at.line ? at : first->at,
		"identity.default_tier: no rule lists \"%s\", and rule \"%s\" has no `default`%s: "
		"clients without another tier are not limited by it (\"unlimited\" says that it is "
		"meant)%s",
		tier->name, p->rule[first - l->draft].name, more, hint);
	int64_t said = l->said ? names_find(l->said->names, str_of(tier->name)) : -1;
	if (said >= 0)
		l->said->said[said].told = true;
}

void tiers_check(struct loader *l)
{
	for (unsigned r = 0; r < l->draft_n; r++)
		l->policy->lists_tiers |= is_by_tier(&l->draft[r]);
	if (loader_failed(l))
		return;
	default_check(l);
	slips_check(l);
}
