/* /healthz and /readyz: for load balancers, orchestrators, and whoever waits for a start. */
#include "admin/routes.h"

void health_alive(struct request *r)
{
	request_reply_json(r, 200, json_pack("{s:s}", "status", "alive"));
}

static const char *phase_name(enum control_phase phase)
{
	switch (phase) {
	case CONTROL_RUN:
		return "serving";
	case CONTROL_DRAIN:
		return "draining";
	case CONTROL_STOP:
	case CONTROL_STOP_NOW:
		break;
	}
	return "stopping";
}

/* Who is served here has its configuration loaded and its listeners open; and a store that is away
 * has its failure policy. What is left is the drain. */
void health_ready(struct request *r)
{
	const struct admin *a = request_context(r);
	enum control_phase phase = control_phase(a->control);
	struct report report;
	control_report(a->control, &report);
	request_reply_json(r, phase == CONTROL_RUN ? 200 : 503,
		json_pack("{s:s, s:b, s:I, s:s}", "status", phase_name(phase), "ready",
			phase == CONTROL_RUN, "generation",
			(json_int_t)control_snapshot(a->control)->generation, "store",
			!report.has_redis ? "memory"
			: report.degraded ? "redis, away: the failure policy decides"
					  : "redis"));
}
