/* /api/v1, /api/v1/status and /api/v1/history. */
#include "admin/routes.h"

#include "config/json.h"

#include <ctype.h>
#include <stdlib.h>

void api_index(struct request *r)
{
	static const char *const method[] = { "GET", "POST", "PUT", "DELETE" };
	static const char *const right[] = { "anyone", "read", "change" };
	const struct http_settings *s = request_settings(r);
	json_t *list = json_array();
	for (unsigned i = 0; list && i < s->route_n; i++)
		(void)json_array_append_new(
			list, json_pack("{s:s, s:s, s:s, s:s}", "method",
				      method[s->route[i].method], "path", s->route[i].path, "needs",
				      right[s->route[i].right], "help", s->route[i].help));
	request_reply_json(r, 200, json_pack("{s:o}", "routes", list));
}

static json_t *rates_json(const struct rates *rates, unsigned seconds)
{
	struct rates_over o = rates_of(rates, seconds);
	return json_pack("{s:I, s:I, s:f, s:i}", "allowed", (json_int_t)o.allowed, "denied",
		(json_int_t)o.denied, "denial_rate", o.denial_rate, "seconds", (int)o.seconds);
}

/* Unix time of an instant of the steady clock. */
static json_int_t unix_of(usec_t steady, struct now now)
{
	return (json_int_t)((now.utc - (now.steady - steady)) / USEC_PER_SEC);
}

static void add_away(json_t *store, struct control *c)
{
	struct redis_hub_away away;

	if (!control_store_away(c, &away))
		return;
	json_t *o = json_pack("{s:o, s:o, s:o, s:I}", "reason", json_of(str_of(away.why)), "server",
		json_of(str_of(away.server)), "hint", json_of(str_of(away.hint)), "since",
		unix_of(away.since, clock_read()));
	if (o)
		(void)json_object_update(store, o);
	json_decref(o);
}

static void add_trouble(json_t *store, struct control *c)
{
	const char *file = control_snapshot(c)->settings.store.state_file;
	struct keeper_trouble t;

	if (!*file)
		return;
	json_t *o = json_pack("{s:o}", "file", json_of(str_of(file)));
	bool bad = control_state_trouble(c, &t);
	(void)json_object_set_new(o, "state", json_string(bad ? "not written" : "well"));
	if (bad) {
		(void)json_object_set_new(o, "reason", json_of(str_of(t.why)));
		(void)json_object_set_new(o, "since", json_integer(unix_of(t.since, clock_read())));
	}
	(void)json_object_set_new(store, "state_file", o);
}

static void add_changes(json_t *store, struct control *c)
{
	struct redis_changes_trouble t;
	bool bad = control_changes_trouble(c, &t);
	json_t *o = json_pack("{s:s}", "state", bad ? "not shared" : "well");

	if (bad) {
		(void)json_object_set_new(o, "reason", json_of(str_of(t.why)));
		(void)json_object_set_new(o, "hint", json_of(str_of(t.hint)));
		(void)json_object_set_new(o, "since", json_integer(unix_of(t.since, clock_read())));
	}
	(void)json_object_set_new(store, "changes", o);
}

static json_t *store_json(struct control *c, const struct report *r)
{
	json_t *store = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "backend",
		r->has_redis ? "redis" : "memory", "state", r->degraded ? "degraded" : "well",
		"keys", (json_int_t)r->memory.keys, "keys_max", (json_int_t)r->memory.keys_max,
		"keys_evicted", (json_int_t)r->memory.evicted, "keys_evicted_at_their_limit",
		(json_int_t)r->memory.evicted_limited);
	if (store && r->has_redis)
		(void)json_object_set_new(store, "threads_degraded", json_integer(r->degraded));
	if (store && r->degraded)
		add_away(store, c);
	if (store && r->has_redis)
		add_changes(store, c);
	if (store)
		add_trouble(store, c);
	return store;
}

void api_status(struct request *r)
{
	struct admin *a = request_context(r);
	const struct snapshot *s = control_snapshot(a->control);
	struct report report;
	control_report(a->control, &report);
	const uint64_t *m = report.metric;
	request_reply_json(r, 200,
		json_pack("{s:s, s:I, s:I, s:I, s:b, s:b, s:I, s:I, s:o, s:{s:I, s:I, s:I}, "
			  "s:{s:I, s:I, s:I, s:I, s:I, s:I}, s:o, s:o, s:o}",
			"version", control_args(a->control)->version, "started",
			(json_int_t)(control_started_at(a->control) / USEC_PER_SEC), "uptime",
			(json_int_t)(control_uptime(a->control) / USEC_PER_SEC), "generation",
			(json_int_t)s->generation, "enabled", (int)s->policy->enabled, "draining",
			control_phase(a->control) != CONTROL_RUN, "threads",
			(json_int_t)report.workers, "rules", (json_int_t)s->policy->rule_n, "store",
			store_json(a->control, &report), /* */
			"connections", "open", (json_int_t)m[METRIC_connections_open], "accepted",
			(json_int_t)m[METRIC_connections_accepted], "admin",
			(json_int_t)http_connections(a->http), /* */
			"checks", "allowed", (json_int_t)m[METRIC_checks_allowed], "denied",
			(json_int_t)m[METRIC_checks_denied], "shadow",
			(json_int_t)m[METRIC_checks_shadow], "warned",
			(json_int_t)m[METRIC_checks_warned], "tagged",
			(json_int_t)m[METRIC_checks_tagged], "degraded",
			(json_int_t)m[METRIC_checks_degraded], /* */
			"last_second", rates_json(&a->rates, 1), "last_minute",
			rates_json(&a->rates, 60), "switches", switches_json(a, true)));
}

/* Columns: each a list with one number for each second, the oldest first. */
void history_show(struct request *r)
{
	const struct admin *a = request_context(r);
	const struct history *h = &a->history;
	const char *text = request_query(r, "after");
	char *end = NULL;
	uint64_t after = text ? strtoull(text, &end, 10) : 0;
	if (text && (!isdigit((unsigned char)*text) || *end)) {
		request_problem(r, 400, "after: want a number, `next` of an earlier answer");
		return;
	}
	json_t *allowed = json_array(), *denied = json_array(), *shadow = json_array();
	json_t *p50 = json_array(), *p99 = json_array();
	uint64_t first = history_first(h, after);
	for (uint64_t i = first; i < h->n; i++) {
		const struct history_second *s = history_at(h, i);
		(void)json_array_append_new(allowed, json_integer((json_int_t)s->allowed));
		(void)json_array_append_new(denied, json_integer((json_int_t)s->denied));
		(void)json_array_append_new(shadow, json_integer((json_int_t)s->shadow));
		(void)json_array_append_new(
			p50, s->timed ? json_integer((json_int_t)s->p50) : json_null());
		(void)json_array_append_new(
			p99, s->timed ? json_integer((json_int_t)s->p99) : json_null());
	}
	request_reply_json(r, 200,
		json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "started",
			(json_int_t)(control_started_at(a->control) / USEC_PER_SEC), "first",
			(json_int_t)first, "next", (json_int_t)h->n, "allowed", allowed, "denied",
			denied, "shadow", shadow, "p50_us", p50, "p99_us", p99));
}
