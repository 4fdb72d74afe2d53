/* changes_apply(): what the operator changed, into a policy that is being built. */
#include "config/changes.h"
#include "config/json.h"
#include "config/load.h"
#include "config/nearest.h"
#include "limit/override.h"

#include <stdio.h>
#include <stdlib.h>

struct applying {
	struct loader *l;
	const char *name;                /* of the change */
	unsigned limits_most[RULES_MAX]; /* that a rule has for any tier */
	unsigned limits_all;
	unsigned limits_now; /* with those of the override that is being built */
};

enum { SAID_MAX = 8 }; /* of one change; then one more says that there are others */

/* It goes with another configuration than this one: the rest of it holds. */
static void warn(const struct applying *a, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void warn(const struct applying *a, const char *format, ...)
{
	json_t *said = json_object_get(a->l->idle, a->name);
	char text[480];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (!said && a->l->idle) {
		(void)json_object_set_new(a->l->idle, a->name, json_array());
		said = json_object_get(a->l->idle, a->name);
	}
	if (json_array_size(said) <= SAID_MAX)
		(void)json_array_append_new(said,
			json_of(json_array_size(said) < SAID_MAX ? str_of(text) : STR("and more")));
}

/* -1: there is no such rule. */
static int rule_find(const struct policy *p, const char *name)
{
	for (unsigned i = 0; i < p->rule_n; i++)
		if (strcmp(p->rule[i].name, name) == 0)
			return (int)i;
	return -1;
}

static void warn_of_no_rule(const struct applying *a, const char *name)
{
	char hint[HINT_MAX];
	warn(a, "there is no rule \"%s\"%s", name, nearest_rule_hint(a->l->policy, name, hint));
}

static void apply_switch(void *with, const char *name, json_t *value)
{
	struct applying *a = with;
	struct policy *p = a->l->policy;
	enum rule_mode mode = (enum rule_mode)change_mode(
		json_string_value(json_object_get(value, "mode")));
	int at = name[7] ? rule_find(p, name + 7) : -1;

	a->name = name;
	if (at >= 0) {
		p->rule[at].mode = mode;
		return;
	}
	if (name[7]) {
		warn_of_no_rule(a, name + 7);
		return;
	}
	p->enabled = mode != MODE_OFF;
	/* What is off counts nothing, so nobody has seen what it would do: it is switched on by its
	 * name alone. */
	for (unsigned i = 0; mode != MODE_OFF && i < p->rule_n; i++)
		if (p->rule[i].mode != MODE_OFF)
			p->rule[i].mode = mode;
}

static void apply_epoch(void *with, const char *name, json_t *value)
{
	struct applying *a = with;
	struct policy *p = a->l->policy;
	uint32_t epoch = (uint32_t)json_integer_value(json_object_get(value, "epoch"));

	a->name = name;
	if (name[6] && rule_find(p, name + 6) < 0)
		warn_of_no_rule(a, name + 6);
	/* Those of all and of one count together: each rises, so no sum comes twice. */
	for (unsigned i = 0; i < p->rule_n; i++)
		if (!name[6] || strcmp(p->rule[i].name, name + 6) == 0)
			p->rule[i].epoch += epoch;
}

/* One more group of limits for the rule. NULL: out of memory. */
static struct limits *special_add(struct rule *r, unsigned n)
{
	struct limits *grown = realloc(r->special, (r->special_n + 1) * sizeof *grown);

	if (!grown)
		return NULL;
	r->special = grown;
	grown[r->special_n] = (struct limits){ 0 };
	if (n && !(grown[r->special_n].limit = calloc(n, sizeof(struct limit))))
		return NULL;
	return &grown[r->special_n++];
}

/* The rate as a quota of the rule; false: it does not go with the rule's algorithm. */
static bool quota_of(const struct applying *a, const struct rule *r, json_t *v,
	const struct limits *so_far, struct quota *out, bool *unlimited)
{
	struct rate rate;
	char why[320];

	(void)rate_parse((struct str){ json_string_value(v), json_string_length(v) }, &rate, why,
		sizeof why); /* checked */
	*unlimited = rate.unlimited;
	if (rate.unlimited)
		return true;
	if ((rate.window.kind == WINDOW_MONTH && r->algorithm != ALGORITHM_FIXED_WINDOW) ||
		(rate.burst && r->algorithm != ALGORITHM_TOKEN_BUCKET)) {
		warn(a, "rule \"%s\": \"%s\" does not go with its algorithm", r->name,
			json_string_value(v));
		return false;
	}
	for (unsigned i = 0; i < so_far->n; i++)
		if (window_equal(&so_far->limit[i].quota.window, &rate.window)) {
			warn(a, "rule \"%s\": a second rate for one window", r->name);
			return false;
		}
	*out = (struct quota){ .algorithm = r->algorithm,
		.window = rate.window,
		.units = rate.units,
		.capacity = rate.burst ? rate.burst : rate.units };
	return true;
}

/* Its limits for this client; false: left as the rule has them. */
static bool special_build(struct applying *a, struct rule *r, json_t *rates)
{
	unsigned n = json_is_array(rates) ? (unsigned)json_array_size(rates) : 1;
	unsigned without = a->limits_now - a->limits_most[r - a->l->policy->rule];

	if (without + n > PLAN_MAX) {
		warn(a, "rule \"%s\": more than %d limits for one request", r->name, PLAN_MAX);
		return false;
	}
	struct limits *limits = special_add(r, n);
	if (!limits) {
		problem_out_of_memory(a->l->problems);
		return false;
	}
	for (unsigned i = 0; i < n; i++) {
		struct limit *l = &limits->limit[limits->n];
		bool unlimited = false;
		json_t *v = json_is_array(rates) ? json_array_get(rates, i) : rates;
		bool good = quota_of(a, r, v, limits, &l->quota, &unlimited);
		if (good && unlimited && n > 1) {
			warn(a, "rule \"%s\": \"unlimited\" beside other rates: want it alone",
				r->name);
			good = false;
		}
		if (!good) {
			free(limits->limit);
			r->special_n--;
			return false;
		}
		l->rule = r;
		limits->n += !unlimited;
	}
	a->limits_now = without + n;
	return true;
}

static void build_rates(struct applying *a, struct override *o, json_t *rates)
{
	struct policy *p = a->l->policy;
	const char *name;
	json_t *v;

	a->limits_now = a->limits_all;
	o->rates = calloc(json_object_size(rates), sizeof *o->rates);
	if (!o->rates) {
		problem_out_of_memory(a->l->problems);
		return;
	}
	json_object_foreach(rates, name, v)
	{
		int at = rule_find(p, name);
		if (at < 0)
			warn_of_no_rule(a, name);
		else if (special_build(a, &p->rule[at], v))
			o->rates[o->rates_n++] = (struct override_rates){ (uint16_t)at,
				(uint16_t)(p->rule[at].special_n - 1) };
	}
}

static struct override override_of(struct applying *a, json_t *value)
{
	json_t *tier = json_object_get(value, "tier"), *rates = json_object_get(value, "rates");
	struct override o = { .kind = json_object_get(value, "block") ? OVERRIDE_BLOCK
								      : OVERRIDE_BYPASS };

	if (tier) {
		o.kind = OVERRIDE_TIER;
		(void)snprintf(o.tier, sizeof o.tier, "%s", json_string_value(tier));
	} else if (rates) {
		o.kind = OVERRIDE_RATES;
		build_rates(a, &o, rates);
	}
	return o;
}

static void apply_override(void *with, const char *name, json_t *value)
{
	struct applying *a = with;
	struct overrides *s = a->l->policy->overrides;
	const char *by = name + 9, *who = strchr(by, ':') + 1, *why;
	char hex[SHA256_HEX_BYTES];
	bool added = false;

	a->name = name;
	struct override o = override_of(a, value);
	if (*by == 'i' && strncmp(who, "sha256:", 7) == 0) {
		added = overrides_add_ip_hash(
			s, (uint8_t)strtoul(strchr(who, '/') + 1, NULL, 10), who + 7, &o);
	} else if (*by == 'i') {
		struct cidr c;
		added = cidr_parse(str_of(who), &c, &why) && overrides_add_ip(s, &c, &o);
	} else if (hash_said(str_of(who), hex) == HASH_SAID) {
		added = overrides_add(s, *by == 'u' ? OVERRIDE_USER_HASH : OVERRIDE_KEY,
			(struct str){ hex, sizeof hex }, &o);
	} else {
		added = overrides_add(s, OVERRIDE_USER, str_of(who), &o);
	}
	free(o.rates); /* nobody's, where it was not added */
	if (!added)
		problem_out_of_memory(a->l->problems);
}

static unsigned limits_of_any_tier(const struct policy *p, const struct rule *r)
{
	unsigned most = r->other.n;

	for (unsigned t = 0; t < p->tier_n; t++)
		most = r->tier[t].n > most ? r->tier[t].n : most;
	return most;
}

void changes_apply(struct loader *l)
{
	const struct changes *c = l->changes;
	struct policy *p = l->policy;
	struct applying *a = calloc(1, sizeof *a);

	p->overrides = overrides_new();
	if (!a || !p->overrides) {
		problem_out_of_memory(l->problems);
		free(a);
		return;
	}
	a->l = l;
	for (unsigned i = 0; i < p->rule_n; i++)
		a->limits_all += a->limits_most[i] = limits_of_any_tier(p, &p->rule[i]);
	changes_each(c, "switch:", apply_switch, a);
	changes_each(c, "epoch:", apply_epoch, a);
	changes_each(c, "override:", apply_override, a);
	if (overrides_count(p->overrides) == 0) {
		overrides_free(p->overrides);
		p->overrides = NULL;
	}
	free(a);
}
