/* What there is to ask for: one table, from which come the routing, Allow, the index at /api/v1 and
 * the table in conf/admin.md. */
#ifndef ADMIN_ROUTES_H
#define ADMIN_ROUTES_H

#include "admin/history.h"
#include "admin/http.h"
#include "admin/rates.h"
#include "server/control.h"

/* X(method, path, right, handler, help) */
#define ROUTES(X) \
	X(GET, "/", READ, page_show, "the page: all of this for people, live, in any browser") \
	X(GET, "/healthz", ANYONE, health_alive, "200 while the agent lives") \
	X(GET, "/readyz", ANYONE, health_ready, \
		"200 while requests are decided; 503 from the beginning of a drain") \
	X(GET, "/metrics", READ, metrics_show, \
		"everything that is counted, for Prometheus: text 0.0.4, or OpenMetrics by Accept") \
	X(GET, "/api/v1", READ, api_index, "this list") \
	X(GET, "/api/v1/status", READ, api_status, \
		"version, uptime, generation, store, how much is decided and denied") \
	X(GET, "/api/v1/history", READ, history_show, \
		"each of the last 300 seconds: allowed, denied, shadow, latency; ?after=N: from " \
		"number N on, `next` of the last answer") \
	X(GET, "/api/v1/rules", READ, rules_show, \
		"all rules with their settings and counts; ?rule=NAME: one of them") \
	X(GET, "/api/v1/top", READ, top_show, \
		"who is denied most, and where: ?by=denied, checked, cost or shadow, &rule=NAME, " \
		"&n=NUMBER") \
	X(GET, "/api/v1/events", READ, events_show, \
		"what happens, as it happens: server-sent events; ?types=denied,shadow,warning," \
		"reload,store,change,ban: only these") \
	X(GET, "/api/v1/config", READ, config_show, \
		"the active configuration with where each setting comes from, secrets redacted; as " \
		"lines with Accept: text/plain") \
	X(GET, "/api/v1/overrides", READ, overrides_show, "what is set for single clients") \
	X(PUT, "/api/v1/overrides", CHANGE, overrides_put, \
		"{user | key | ip, tier | rates | bypass | block, for | until, reason}: sets it for one") \
	X(DELETE, "/api/v1/overrides", CHANGE, overrides_remove, \
		"{user | key | ip, reason}: takes it away") \
	X(GET, "/api/v1/bans", READ, bans_show, "whom penalties have banned") \
	X(DELETE, "/api/v1/bans", CHANGE, bans_remove, "{id, reason}: lifts a ban") \
	X(GET, "/api/v1/enabled", READ, enabled_show, "which switches are set") \
	X(PUT, "/api/v1/enabled", CHANGE, enabled_put, \
		"{mode, rule, for | until, reason}: enforce, shadow or off, for all rules or one; " \
		"configured: as the configuration says") \
	X(POST, "/api/v1/explain", READ, explain_now, \
		"{fields: {ip, user, key, ...}}: what such a request would get, and why; consumes " \
		"nothing") \
	X(POST, "/api/v1/reset", CHANGE, reset_now, \
		"{fields, rule | rule | all, reason}: counters begin anew: of one client, of a rule, " \
		"or all") \
	X(POST, "/api/v1/reload", CHANGE, reload_now, \
		"{reason}, or no body; as SIGHUP: 200 with what changed, or 422 with every error")

/* What handlers have as their request_context(). */
struct admin {
	struct control *control;
	struct http *http;
	struct rates rates;
	struct history history;
	struct events *events; /* NULL: nobody has listened yet */
	unsigned asking;       /* requests that wait for the store */
	ev_timer sampler;
};

extern const struct route admin_routes[];
extern const unsigned admin_route_n;

/* The switches that are set, as in `switches` of /api/v1/enabled; `in_force`: without those of
 * rules that the configuration does not have. */
json_t *switches_json(const struct admin *, bool in_force);

/* A ban as in `bans` of /api/v1/bans. */
json_t *ban_json(const struct ban *);

void events_free(struct events *); /* after http_free(): nobody listens then. NULL is fine */

#define X(method, path, right, handler, help) void handler(struct request *);
ROUTES(X)
#undef X

#endif
