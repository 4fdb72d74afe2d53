/* /api/v1 and /api/v1/status. */
#include "admin/routes.h"

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

static json_t *store_json(const struct report *r)
{
	json_t *store = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "backend",
		r->has_redis ? "redis" : "memory", "state", r->degraded ? "degraded" : "well",
		"keys", (json_int_t)r->memory.keys, "keys_max", (json_int_t)r->memory.keys_max,
		"keys_evicted", (json_int_t)r->memory.evicted, "keys_evicted_at_their_limit",
		(json_int_t)r->memory.evicted_limited);
	if (store && r->has_redis)
		(void)json_object_set_new(store, "threads_degraded", json_integer(r->degraded));
	return store;
}

void api_status(struct request *r)
{
	struct admin *a = request_context(r);
	const struct snapshot *s = control_snapshot(a->control);
	struct report report;
	control_report(a->control, &report);
	const uint64_t *m = report.metric;
	usec_t up = clock_read().utc - control_started_at(a->control);
	request_reply_json(r, 200,
		json_pack("{s:s, s:I, s:I, s:I, s:b, s:b, s:I, s:I, s:o, s:{s:I, s:I, s:I}, "
			  "s:{s:I, s:I, s:I, s:I, s:I, s:I}, s:o, s:o}",
			"version", control_args(a->control)->version, "started",
			(json_int_t)(control_started_at(a->control) / USEC_PER_SEC), "uptime",
			(json_int_t)((up > 0 ? up : 0) / USEC_PER_SEC), "generation",
			(json_int_t)s->generation, "enabled", (int)s->policy->enabled, "draining",
			control_phase(a->control) != CONTROL_RUN, "threads",
			(json_int_t)report.workers, "rules", (json_int_t)s->policy->rule_n, "store",
			store_json(&report), /* */
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
			rates_json(&a->rates, 60)));
}
