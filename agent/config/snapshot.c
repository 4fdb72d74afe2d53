/* A snapshot's life, and what a reload may change of it. */
#include "config/snapshot.h"

#include "config/load.h"
#include "config/problems.h"

#include <stdlib.h>

struct snapshot *snapshot_ref(struct snapshot *s)
{
	/* whoever takes another reference holds one: nothing has to be seen first */
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

bool snapshot_unref(struct snapshot *s)
{
	return s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1;
}

void snapshot_free(struct snapshot *s)
{
	if (!s)
		return;
	cidr_set_free(s->settings.agent.allow_from);
	policy_free(s->policy);
	for (size_t i = 0; i < s->line_n; i++) {
		free(s->line[i]);
		free(s->line_at[i]);
	}
	free(s->line);
	free(s->line_at);
	free(s->admin_at);
	inputs_unref(s->inputs);
	explicit_bzero(s, sizeof *s); /* passwords */
	free(s);
}

void redis_hash_key(const struct settings *s, struct hash_key *key)
{
	/* Constant for ever: agents of different releases share counters. */
	if (s->redis.hash_secret[0])
		hash_key_derive(
			key, "spoa-ratelimit 1 redis.hash_secret", str_of(s->redis.hash_secret));
	else
		hash_key_derive(key, "spoa-ratelimit 1 redis.prefix", str_of(s->redis.prefix));
}

/* The line of an option: there is one for each. `*value` is what stands after " = ". */
static size_t option_line(const struct snapshot *s, const char *name, const char **value)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < s->line_n; i++)
		if (strncmp(s->line[i], name, n) == 0 && strncmp(s->line[i] + n, " = ", 3) == 0) {
			*value = s->line[i] + n + 3;
			return i;
		}
	*value = "";
	return s->line_n;
}

/* They all are in `settings`. */
const char *option_secret(const struct snapshot *s, const struct option_row *o)
{
	return (const char *)&s->settings + (o->offset - offsetof(struct values, settings));
}

/* The group `admin` is what a listener that nobody has named comes with. */
const char *snapshot_option_at(const struct snapshot *s, const char *name)
{
	const char *value;
	size_t line = option_line(s, name, &value);
	const char *at = line < s->line_n ? s->line_at[line] : NULL;

	return at || strcmp(name, "admin.listen") != 0 ? at : s->admin_at;
}

bool snapshot_can_replace(
	const struct snapshot *old, const struct snapshot *fresh, struct problems *problems)
{
	bool same = true;

	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option_row *o = &option_table[i];
		const char *was, *is, *name = o->name;
		if (o->reload)
			continue;
		/* Nothing runs by a group that is not used. (A change of backend is told.) */
		if (old->settings.store.backend != BACKEND_REDIS && strncmp(name, "redis.", 6) == 0)
			continue;
		option_line(old, name, &was);
		option_line(fresh, name, &is);
		bool changed = strcmp(was, is) != 0;
		if (!changed && o->kind == OPTION_SECRET) {
			changed = strcmp(option_secret(old, o), option_secret(fresh, o)) != 0;
			is = "another";
		}
		if (!changed)
			continue;
		const char *at = snapshot_option_at(fresh, name);
		if (!at) /* it is gone: where it stood */
			at = snapshot_option_at(old, name);
		problem_add(problems, (struct place){ at, 0 },
			"%s cannot change while running (was %s, is %s): restart to change it",
			name, *was ? was : "\"\"", *is ? is : "\"\"");
		same = false;
	}
	return same;
}

/* ---- how much slower a counter refills ---- */

static const struct limits *limits_at(const struct policy *p, const struct rule *r, unsigned tier)
{
	return tier < p->tier_n ? &r->tier[tier] : &r->other;
}

/* All limits of a rule with one window share a counter, whatever the tier: any of them tells. */
static const struct limit *find_window(
	const struct policy *p, const struct rule *r, const struct window *w)
{
	for (unsigned t = 0; t <= p->tier_n; t++) {
		const struct limits *limits = limits_at(p, r, t);
		for (unsigned i = 0; i < limits->n; i++)
			if (limits->limit[i].quota.window.kind == w->kind &&
				limits->limit[i].quota.window.length == w->length)
				return limits->limit[i].local;
	}
	return NULL;
}

static double ratio(double was, double is)
{
	return was > 0 && is > was ? is / was : 1.0;
}

static double rule_slower_by(const struct policy *old, const struct rule *was,
	const struct policy *fresh, const struct rule *is)
{
	const struct window *last = NULL;
	double most = 1.0;

	for (unsigned t = 0; t <= fresh->tier_n; t++) {
		const struct limits *limits = limits_at(fresh, is, t);
		for (unsigned i = 0; i < limits->n; i++) {
			const struct limit *l = limits->limit[i].local; /* what memory has */
			if (last && last->kind == l->quota.window.kind &&
				last->length == l->quota.window.length)
				continue; /* tiers mostly repeat the one before */
			last = &l->quota.window;
			const struct limit *before = find_window(old, was, last);
			if (!before)
				continue;
			double interval = ratio(before->slowest_interval, l->slowest_interval);
			double refill = ratio(
				(double)before->slowest_refill, (double)l->slowest_refill);
			most = interval > most ? interval : most;
			most = refill > most ? refill : most;
		}
	}
	return most;
}

double snapshot_slower_by(const struct snapshot *old, const struct snapshot *fresh)
{
	double most = 1.0;

	for (unsigned i = 0; i < fresh->policy->rule_n; i++)
		for (unsigned j = 0; j < old->policy->rule_n; j++) {
			const struct rule *is = &fresh->policy->rule[i],
					  *was = &old->policy->rule[j];
			if (is->algorithm != was->algorithm || strcmp(is->name, was->name) != 0)
				continue;
			double slower = rule_slower_by(old->policy, was, fresh->policy, is);
			most = slower > most ? slower : most;
		}
	return most;
}
