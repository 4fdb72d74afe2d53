#include "admin/metrics.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The families whose numbers are not in a table of their own. */
#define FAMILIES(X) \
	X(build, "build_info", GAUGE, "always 1; the version is a label") \
	X(generation, "generation", GAUGE, "number of the configuration that counts") \
	X(rules, "rules", GAUGE, "rules of the configuration") \
	X(enabled, "enabled", GAUGE, "0: limiting is switched off") \
	X(switched, "switch", GAUGE, \
		"1: this switch is set; rule \"\": of all rules that have none of their own") \
	X(draining, "draining", GAUGE, "1 from the beginning of a drain") \
	X(threads, "threads", GAUGE, "threads that decide") \
	X(checks, "checks", COUNTER, \
		"checks by the rule that was reported (none: \"\"), tier, decision and reason; tiers " \
		"that no rule names are \"other\"") \
	X(applied, "rule_applied", COUNTER, \
		"checks that a rule applied to, whichever was reported; 0: it never did") \
	X(warned, "rule_warned", COUNTER, "checks answered with warn, by the rule reported") \
	X(shadowed, "rule_shadow", COUNTER, "checks that a rule in shadow mode would have denied") \
	X(tagged, "rule_tagged", COUNTER, "checks tagged by a rule with action = \"tag\"") \
	X(check_time, "check_duration_seconds", HISTOGRAM, \
		"from recv to the answer written; of a batch each check has the time of all") \
	X(disconnects, "disconnects", COUNTER, \
		"DISCONNECT frames by who sent them and their status code") \
	X(keys, "keys", GAUGE, "counters in memory now") \
	X(keys_max, "keys_max", GAUGE, "store.max_keys") \
	X(keys_inserted, "keys_inserted", COUNTER, "counters that were new") \
	X(keys_expired, "keys_expired", COUNTER, "counters that were full again, and freed") \
	X(keys_evicted, "keys_evicted", COUNTER, \
		"counters that had to go for want of room, with what was consumed") \
	X(keys_evicted_limited, "keys_evicted_limited", COUNTER, \
		"of the evicted: at their limit; such a client got it once more") \
	X(bans_evicted, "bans_evicted", COUNTER, \
		"bans that held and had to go for want of room: such a client is let in again") \
	X(store_up, "store_up", GAUGE, \
		"share of the threads whose store answers; of the others the failure policy decides") \
	X(state_file_up, "state_file_up", GAUGE, \
		"0: store.state_file, or what stands beside it, cannot be written; 1 also without one") \
	X(changes_up, "redis_changes_up", GAUGE, \
		"0: what operators change elsewhere is not heard here, or the other way round") \
	X(call_time, "redis_call_duration_seconds", HISTOGRAM, \
		"of a call of the script, from sent to answered") \
	X(admin_connections, "admin_connections", GAUGE, "admin connections open now") \
	X(admin_requests, "admin_requests", COUNTER, "admin requests")

enum kind { KIND_COUNTER, KIND_GAUGE, KIND_HISTOGRAM };

struct family {
	const char *name, *help;
	enum kind kind;
};

enum family_id {
#define X(id, name, kind, help) FAMILY_##id,
	FAMILIES(X)
#undef X
};

static const struct family families[] = {
#define X(id, name, kind, help) { name, help, KIND_##kind },
	FAMILIES(X)
#undef X
};

static const struct family metric_families[] = {
#define X(name, kind, help) { #name, help, KIND_##kind },
	METRICS(X)
#undef X
};

static const struct family redis_families[] = {
#define X(name, kind, help) { "redis_" #name, help, KIND_##kind },
	REDIS_COUNTERS(X)
#undef X
};

struct out {
	FILE *f;
	enum exposition_format format;
};

static void put_escaped(const struct out *o, const char *text, bool quotes)
{
	for (; *text; text++) {
		if (*text == '\\' || (quotes && *text == '"'))
			(void)fputc('\\', o->f);
		if (*text == '\n')
			(void)fputs("\\n", o->f);
		else
			(void)fputc(*text, o->f);
	}
}

/* Families of counters have no _total in OpenMetrics, and have it in the older format; samples have
 * it in both. */
static void put_head(const struct out *o, const struct family *fam)
{
	static const char *const kind[] = { "counter", "gauge", "histogram" };
	const char *total = fam->kind == KIND_COUNTER && o->format == FORMAT_PROMETHEUS ? "_total"
											: "";
	(void)fprintf(o->f, "# HELP ratelimit_%s%s ", fam->name, total);
	put_escaped(o, fam->help, o->format == FORMAT_OPENMETRICS);
	(void)fprintf(o->f, "\n# TYPE ratelimit_%s%s %s\n", fam->name, total, kind[fam->kind]);
}

struct label {
	const char *name, *value;
};

static void put_sample(
	const struct out *o, const struct family *fam, const struct label *label, uint64_t value)
{
	(void)fprintf(o->f, "ratelimit_%s%s", fam->name, fam->kind == KIND_COUNTER ? "_total" : "");
	for (unsigned i = 0; label && label[i].name; i++) {
		(void)fprintf(o->f, "%c%s=\"", i ? ',' : '{', label[i].name);
		put_escaped(o, label[i].value, true);
		(void)fputc('"', o->f);
	}
	(void)fprintf(o->f, "%s %" PRIu64 "\n", label ? "}" : "", value);
}

static void put_one(const struct out *o, const struct family *fam, uint64_t value)
{
	put_head(o, fam);
	put_sample(o, fam, NULL, value);
}

static void put_histogram(
	const struct out *o, const struct family *fam, const struct histogram_sum *h)
{
	uint64_t n = 0;
	put_head(o, fam);
	for (unsigned i = 0; i < HISTOGRAM_BOUNDS; i++) {
		uint64_t bound = histogram_bound(i);
		n += h->count[i];
		(void)fprintf(o->f,
			"ratelimit_%s_bucket{le=\"%" PRIu64 ".%06" PRIu64 "\"} %" PRIu64 "\n",
			fam->name, bound / 1000000, bound % 1000000, n);
	}
	n += h->count[HISTOGRAM_BOUNDS];
	(void)fprintf(o->f, "ratelimit_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", fam->name, n);
	(void)fprintf(o->f, "ratelimit_%s_sum %" PRIu64 ".%06" PRIu64 "\n", fam->name,
		h->sum / 1000000, h->sum % 1000000);
	(void)fprintf(o->f, "ratelimit_%s_count %" PRIu64 "\n", fam->name, n);
}

/* Those of all rules always, of one rule where it is set. */
static void put_switches(const struct out *o, const struct exposition *e)
{
	static const char *const mode[] = { "enforce", "shadow", "off" };
	const struct family *fam = &families[FAMILY_switched];

	put_head(o, fam);
	for (unsigned m = 0; m < sizeof mode / sizeof *mode; m++) {
		bool set = false;
		for (size_t i = 0; i < e->switch_n; i++)
			set |= !*e->switches[i].rule && strcmp(e->switches[i].mode, mode[m]) == 0;
		put_sample(o, fam, (struct label[]){ { "rule", "" }, { "mode", mode[m] }, { 0 } },
			set);
	}
	for (size_t i = 0; i < e->switch_n; i++)
		if (*e->switches[i].rule)
			put_sample(o, fam,
				(struct label[]){ { "rule", e->switches[i].rule },
					{ "mode", e->switches[i].mode }, { 0 } },
				1);
}

static void put_checks(const struct out *o, const struct tally_sum *tally)
{
	put_head(o, &families[FAMILY_checks]);
	for (size_t i = 0; i < tally->line_n; i++) {
		const struct tally_line *l = &tally->line[i];
		put_sample(o, &families[FAMILY_checks],
			(struct label[]){ { "rule", l->rule }, { "tier", l->tier },
				{ "decision", l->deny ? "deny" : "allow" },
				{ "reason", reason_name(l->reason) }, { 0 } },
			l->n);
	}
}

static void put_of_rules(const struct out *o, const struct tally_sum *tally)
{
	static const struct {
		enum family_id family;
		size_t offset;
	} each[] = {
		{ FAMILY_applied, offsetof(struct tally_rule, applied) },
		{ FAMILY_warned, offsetof(struct tally_rule, warned) },
		{ FAMILY_shadowed, offsetof(struct tally_rule, shadowed) },
		{ FAMILY_tagged, offsetof(struct tally_rule, tagged) },
	};
	for (unsigned k = 0; k < sizeof each / sizeof *each; k++) {
		const struct family *fam = &families[each[k].family];
		put_head(o, fam);
		for (size_t i = 0; i < tally->rule_n; i++) {
			const struct tally_rule *rule = &tally->rule[i];
			uint64_t n;
			memcpy(&n, (const char *)rule + each[k].offset, sizeof n);
			put_sample(o, fam, (struct label[]){ { "rule", rule->rule }, { 0 } }, n);
		}
	}
}

static void put_disconnects(const struct out *o, const struct report *r)
{
	static const char *const by[] = { "agent", "haproxy" };
	static const struct {
		const char *code, *text;
	} row[] = {
#define X(name, code, text) { #code, text },
		SPOP_STATUS(X)
#undef X
	};
	const struct family *fam = &families[FAMILY_disconnects];
	put_head(o, fam);
	for (unsigned b = 0; b < 2; b++)
		for (unsigned i = 0; i < DISCONNECT_CODES; i++)
			put_sample(o, fam,
				(struct label[]){ { "by", by[b] }, { "code", row[i].code },
					{ "text", row[i].text }, { 0 } },
				r->disconnects[b][i]);
}

static void put_store(const struct out *o, const struct exposition *e)
{
	const struct report *r = e->report;
	const struct memory_stats *m = &r->memory;
	put_one(o, &families[FAMILY_keys], m->keys);
	put_one(o, &families[FAMILY_keys_max], m->keys_max);
	put_one(o, &families[FAMILY_keys_inserted], m->inserted);
	put_one(o, &families[FAMILY_keys_expired], m->expired);
	put_one(o, &families[FAMILY_keys_evicted], m->evicted);
	put_one(o, &families[FAMILY_keys_evicted_limited], m->evicted_limited);
	put_one(o, &families[FAMILY_bans_evicted], r->bans_evicted);
	put_head(o, &families[FAMILY_store_up]);
	(void)fprintf(o->f, "ratelimit_%s %.3f\n", families[FAMILY_store_up].name,
		r->workers ? (double)(r->workers - r->degraded) / r->workers : 1.);
	if (!r->has_redis)
		return;
	for (unsigned i = 0; i < REDIS_COUNTER_COUNT; i++)
		put_one(o, &redis_families[i], r->redis[i]);
	put_histogram(o, &families[FAMILY_call_time], &r->call_time);
	put_one(o, &families[FAMILY_changes_up], e->changes_up);
}

/* Names and meanings that all of Prometheus' own clients share. */
static void put_process(const struct out *o, const struct exposition *e)
{
	bool old = o->format == FORMAT_PROMETHEUS;
	(void)fprintf(o->f,
		"# HELP process_start_time_seconds when it was started, in Unix time\n"
		"# TYPE process_start_time_seconds gauge\n"
		"process_start_time_seconds %.3f\n"
		"# HELP process_cpu_seconds%s CPU time, user and system\n"
		"# TYPE process_cpu_seconds%s counter\n"
		"process_cpu_seconds_total %.3f\n"
		"# HELP process_resident_memory_bytes memory that it has\n"
		"# TYPE process_resident_memory_bytes gauge\n"
		"process_resident_memory_bytes %" PRIu64 "\n",
		e->started, old ? "_total" : "", old ? "_total" : "", e->cpu_seconds,
		e->resident_bytes);
}

void exposition_write(FILE *f, const struct exposition *e, enum exposition_format format)
{
	const struct out o = { f, format };
	put_head(&o, &families[FAMILY_build]);
	put_sample(&o, &families[FAMILY_build],
		(struct label[]){ { "version", e->version }, { 0 } }, 1);
	put_one(&o, &families[FAMILY_generation], e->generation);
	put_one(&o, &families[FAMILY_rules], e->rules);
	put_one(&o, &families[FAMILY_enabled], e->enabled);
	put_switches(&o, e);
	put_one(&o, &families[FAMILY_draining], e->draining);
	put_one(&o, &families[FAMILY_threads], e->report->workers);
	put_checks(&o, e->tally);
	put_of_rules(&o, e->tally);
	for (unsigned i = 0; i < METRIC_COUNT; i++)
		put_one(&o, &metric_families[i], e->report->metric[i]);
	put_disconnects(&o, e->report);
	put_histogram(&o, &families[FAMILY_check_time], &e->report->check_time);
	put_one(&o, &families[FAMILY_state_file_up], e->state_file_up);
	put_store(&o, e);
	put_one(&o, &families[FAMILY_admin_connections], e->admin_connections);
	put_one(&o, &families[FAMILY_admin_requests], e->admin_requests);
	put_process(&o, e);
	if (format == FORMAT_OPENMETRICS)
		(void)fputs("# EOF\n", f);
}

const char *exposition_type(enum exposition_format format)
{
	return format == FORMAT_OPENMETRICS
		       ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
		       : "text/plain; version=0.0.4; charset=utf-8";
}

/* The weight that a list of types gives to `type`; -1: it does not name it. */
static double weight_of(const char *accept, const char *type)
{
	const char *at = strstr(accept, type);
	if (!at)
		return -1;
	size_t n = strcspn(at, ",");
	const char *q = memmem(at, n, ";q=", 3);
	return q ? strtod(q + 3, NULL) : 1.;
}

enum exposition_format exposition_format_for(const char *accept)
{
	double open = accept ? weight_of(accept, "application/openmetrics-text") : -1;
	return open > 0 && open >= weight_of(accept, "text/plain") ? FORMAT_OPENMETRICS
								   : FORMAT_PROMETHEUS;
}
