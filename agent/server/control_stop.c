/* The end of the control thread's service: drain, then stop. */
#include "server/control_inside.h"

#include "base/log.h"
#include "server/acceptor.h"
#include "server/service.h"

/* Of the time for a stop: for what comes after the state file, of which the last thing is the log.
 */
#define CONTROL_STOP_MARGIN (3 * USEC_PER_SEC)

static void stop_workers(struct control *c)
{
	c->phase = CONTROL_STOP;
	ev_timer_stop(c->loop, &c->drain);
	acceptor_free(c->acceptor);
	c->acceptor = NULL;
	listeners_close(c->args.listeners);
	log_info("stopping", KV_INT("connections", crew_metric(&c->crew, METRIC_connections_open)));
	crew_stop(&c->crew);
}

static void start_drain(struct control *c)
{
	/* Nobody need go elsewhere where the next process takes over what listens: what connects
	 * from now on waits for it, and the sooner it comes the better. */
	usec_t drain = listeners_are_inherited(c->args.listeners)
			       ? 0
			       : c->snapshot->settings.agent.drain;
	c->phase = CONTROL_DRAIN;
	c->stop_by = clock_steady() + drain + CONTROL_STOP_WITHIN - CONTROL_STOP_MARGIN;
	service_stopping(drain + CONTROL_STOP_WITHIN);
	log_info("draining", KV_INT("for_ms", drain / USEC_PER_MSEC),
		KV_INT("connections", crew_metric(&c->crew, METRIC_connections_open)));
	if (drain <= 0) {
		stop_workers(c);
		return;
	}
	crew_drain(&c->crew);
	ev_timer_set(&c->drain, (double)drain / (double)USEC_PER_SEC, 0.);
	ev_timer_start(c->loop, &c->drain);
}

void control_stop(struct control *c)
{
	switch (c->phase) {
	case CONTROL_RUN:
		start_drain(c);
		return;
	case CONTROL_DRAIN:
		stop_workers(c);
		return;
	case CONTROL_STOP:
	case CONTROL_STOP_NOW:
		c->phase = CONTROL_STOP_NOW;
		crew_stop_now(&c->crew);
		return;
	}
}
