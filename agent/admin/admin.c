#include "admin/admin.h"

#include "admin/routes.h"

#include <stdlib.h>

const struct route admin_routes[] = {
#define X(method, path, right, handler, help) \
	{ METHOD_##method, path, RIGHT_##right, handler, help },
	ROUTES(X)
#undef X
};

const unsigned admin_route_n = sizeof admin_routes / sizeof *admin_routes;

static const char *token_now(void *context)
{
	const struct admin *a = context;
	return control_snapshot(a->control)->settings.admin.token;
}

static void on_sample(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct admin *a = timer->data;
	struct report r;
	control_report(a->control, &r);
	rates_add(&a->rates, r.metric[METRIC_checks_allowed], r.metric[METRIC_checks_denied]);
	history_add(&a->history, &(struct history_sums){
					 .allowed = r.metric[METRIC_checks_allowed],
					 .denied = r.metric[METRIC_checks_denied],
					 .shadow = r.metric[METRIC_checks_shadow],
					 .time = r.check_time,
				 });
}

struct admin *admin_new(struct control *control, struct listeners *listeners)
{
	struct admin *a = calloc(1, sizeof *a);
	if (!a)
		return NULL;
	a->control = control;
	a->http = http_new(&(struct http_settings){
		.loop = control_loop(control),
		.listeners = listeners,
		.address = control_snapshot(control)->settings.admin.listen,
		.route = admin_routes,
		.route_n = admin_route_n,
		.token = token_now,
		.context = a,
	});
	if (!a->http) {
		free(a);
		return NULL;
	}
	ev_timer_init(&a->sampler, on_sample, 0., 1.);
	a->sampler.data = a;
	ev_timer_start(control_loop(control), &a->sampler);
	for (unsigned i = 0; i < listeners->n; i++)
		log_info("admin_listening", KV_Z("addr", listeners->at[i].text));
	return a;
}

void admin_free(struct admin *a)
{
	if (!a)
		return;
	ev_timer_stop(control_loop(a->control), &a->sampler);
	http_free(a->http);
	events_free(a->events);
	control_settle_store(a->control); /* who still waits for it is not waited for any more */
	free(a);
}
