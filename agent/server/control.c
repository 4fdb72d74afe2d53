#include "server/control_inside.h"

#include "server/acceptor.h"
#include "server/balancer.h"
#include "server/keeper.h"
#include "server/known.h"
#include "server/loop_memory.h"
#include "server/notices.h"
#include "server/service.h"

#include <errno.h>
#include <signal.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TICKS_A_SECOND = 10 };

#define CHANGES_WITHIN USEC_PER_SEC          /* at a stop, after the counters */
#define REDIS_WITHIN   (500 * USEC_PER_MSEC) /* at the start; then it serves without */

struct log_settings log_settings_for(const struct settings *s, enum verbosity verbosity)
{
	struct log_settings log = s->log;
	switch (verbosity) {
	case VERBOSITY_CONFIGURED:
		break;
	case VERBOSITY_QUIET:
		log.level = LOG_LEVEL_ERROR;
		break;
	case VERBOSITY_DEBUG:
		log.level = LOG_LEVEL_DEBUG;
		log.target = LOG_TARGET_STDERR;
		break;
	}
	return log;
}

/* What is said. */

static void log_stats(struct control *c, enum log_level level, const char *event)
{
	struct report r;
	if (!log_enabled(level))
		return;
	control_report(c, &r);
	report_log(&r, level, event);
}

static void read_events(struct control *c)
{
	if (c->phase == CONTROL_RUN)
		desk_tell_bans(c->desk); /* then who was denied for them */
	notices_read(c->notices, c->crew.worker, c->crew.n);
}

static void sum_up_denials(struct control *c)
{
	notices_sum_up(c->notices, c->crew.worker, c->crew.n);
}

/* Callbacks. */

static void on_stop_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
	(void)loop;
	(void)revents;
	control_stop(signal->data);
}

static void on_drained(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	control_stop(timer->data);
}

/* A worker is done. */
static void on_bell(struct ev_loop *loop, ev_async *async, int revents)
{
	(void)revents;
	struct control *c = async->data;
	if (crew_is_done(&c->crew))
		ev_break(loop, EVBREAK_ALL);
}

static void on_reload_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
	(void)loop;
	(void)revents;
	struct reload r;
	(void)control_reload(signal->data, (struct act){ .who = "SIGHUP" }, &r);
	reload_fini(&r);
}

static void on_reopen_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
	(void)loop;
	(void)signal;
	(void)revents;
	log_reopen();
}

static void on_tick(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct control *c = timer->data;
	struct now now = clock_read();
	read_events(c);
	if (++c->ticks % TICKS_A_SECOND)
		return;
	sum_up_denials(c);
	notices_look_at_table(c->notices, c->snapshot, now);
	notices_look_at_bans(c->notices, c->bans, now);
	notices_look_at_clock(c->notices, now);
	if (c->phase == CONTROL_RUN)
		desk_tick(c->desk, now);
	control_free_retired(c);
	if (notices_stats_are_due(c->notices, now))
		log_stats(c, LOG_LEVEL_DEBUG, "stats");
}

static void on_balance(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)revents;
	struct control *c = timer->data;
	if (c->phase != CONTROL_RUN && c->phase != CONTROL_DRAIN) {
		ev_timer_stop(loop, timer);
		return;
	}
	usec_t next = balancer_tick(c->balancer, clock_read().steady);
	timer->repeat = (double)next / (double)USEC_PER_SEC;
	ev_timer_again(loop, timer);
}

/* Four times in the interval: one late answer of a worker is not the end yet. */
static void on_watchdog(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct control *c = timer->data;
	if (crew_ping(&c->crew))
		service_alive();
}

/* Creation and end. */

static bool start_workers(struct control *c)
{
	unsigned n = crew_size(&c->snapshot->settings);
	struct redis_settings redis = backend_redis_settings(&c->redis, &c->snapshot->settings, n);
	bool all = crew_make(&c->crew, n,
		&(struct worker_args){
			.snapshot = c->snapshot,
			.memory = c->args.store,
			.bans = c->bans,
			.known = c->known,
			.hub = c->redis.hub,
			.redis = &redis,
			.home = c->loop,
			.bell = &c->bell,
		});
	if (all && c->redis.hub && c->snapshot->settings.admin.listen_n)
		all = backend_open_store(&c->redis, &redis, c->args.store, c->loop);
	explicit_bzero(&redis, sizeof redis);
	return all && crew_start(&c->crew);
}

static void on_moment(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)timer;
	(void)revents;
}

/* For all who ask it: the workers, the admin interface, and who hears of changes. */
static bool has_redis(const struct control *c)
{
	return crew_has_redis(&c->crew) && backend_is_up(&c->redis) &&
	       backend_knows_changes(&c->redis);
}

/* Who starts beside a Redis that works should not begin by doing without it, nor by letting in whom
 * an operator has blocked there. */
static void await_redis(struct control *c)
{
	usec_t end = clock_steady() + REDIS_WITHIN;
	ev_timer moment;
	ev_timer_init(&moment, on_moment, 0.001, 0.001);
	ev_timer_start(c->loop, &moment);
	while (!has_redis(c) && clock_steady() < end)
		ev_run(c->loop, EVRUN_ONCE);
	ev_timer_stop(c->loop, &moment);
}

static void mask_signals(int how)
{
	sigset_t set;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGUSR1);
	(void)pthread_sigmask(how, &set, NULL);
}

void control_hold_signals(void)
{
	mask_signals(SIG_BLOCK);
}

static void watch_signal(struct control *c, ev_signal *watcher, int number,
	void (*callback)(struct ev_loop *, ev_signal *, int))
{
	ev_signal_init(watcher, callback, number);
	watcher->data = c;
	ev_signal_start(c->loop, watcher);
}

static void watch_all(struct control *c)
{
	watch_signal(c, &c->on_term, SIGTERM, on_stop_signal);
	watch_signal(c, &c->on_int, SIGINT, on_stop_signal);
	watch_signal(c, &c->on_hup, SIGHUP, on_reload_signal);
	watch_signal(c, &c->on_usr1, SIGUSR1, on_reopen_signal);
	ev_timer_init(&c->tick, on_tick, 1. / TICKS_A_SECOND, 1. / TICKS_A_SECOND);
	c->tick.data = c;
	ev_timer_start(c->loop, &c->tick);
	ev_timer_init(&c->balance, on_balance, 1. / TICKS_A_SECOND, 1. / TICKS_A_SECOND);
	c->balance.data = c;
	ev_timer_start(c->loop, &c->balance);
	ev_timer_init(&c->drain, on_drained, 0., 0.);
	c->drain.data = c;
	double watchdog = (double)service_watchdog() / (double)USEC_PER_SEC / 4.;
	ev_timer_init(&c->watchdog, on_watchdog, watchdog, watchdog);
	c->watchdog.data = c;
	if (watchdog > 0.)
		ev_timer_start(c->loop, &c->watchdog);
}

struct control *control_new(const struct control_args *args, char *err, size_t err_size)
{
	struct control *c = aligned_alloc(alignof(struct control), sizeof *c);
	if (!c) {
		(void)snprintf(err, err_size, "no memory for the control thread: free some");
		return NULL;
	}
	memset(c, 0, sizeof *c);
	c->args = *args;
	c->snapshot = snapshot_ref(args->snapshot);
	struct now now = clock_read();
	c->started_at = now.utc;
	c->up_since = now.steady;
	(void)signal(SIGPIPE, SIG_IGN);
	acceptor_raise_limit(&c->snapshot->settings, crew_size(&c->snapshot->settings));
	if (!crew_has_descriptors(crew_size(&c->snapshot->settings) + 1)) {
		(void)snprintf(err, err_size,
			"too few open files are allowed for %u threads: raise the limit "
			"(LimitNOFILE= of the service), or lower agent.threads",
			crew_size(&c->snapshot->settings));
		goto fail;
	}
	if (!crew_has_watches(crew_size(&c->snapshot->settings) + 1)) {
		(void)snprintf(err, err_size,
			"the kernel does not watch the descriptors of %u threads: %s: raise "
			"fs.epoll.max_user_watches, or give it memory",
			crew_size(&c->snapshot->settings), strerror(errno));
		goto fail;
	}
	loop_memory_init();
	c->loop = ev_default_loop(EVFLAG_AUTO);
	c->notices = notices_new(args->store, now);
	c->tally_names = tally_names_new();
	if (!c->loop || !c->notices || !c->tally_names) {
		(void)snprintf(err, err_size, "no memory for the control thread: free some");
		goto fail;
	}
	ev_async_init(&c->bell, on_bell);
	c->bell.data = c;
	ev_async_start(c->loop, &c->bell);
	watch_all(c);
	if (!control_open_desk(c, err, err_size))
		goto fail;
	tally_names_apply(c->tally_names, c->snapshot->policy);
	const struct settings *s = &c->snapshot->settings;
	const struct backend_ears ears = control_ears(c);
	if (s->store.backend == BACKEND_REDIS &&
		!backend_open(&c->redis, s, c->loop, &c->metrics.value[METRIC_tiers_changed], &ears,
			err, err_size))
		goto fail;
	if (!start_workers(c)) {
		(void)snprintf(err, err_size,
			"cannot start worker %u of %u: no memory, threads or descriptors left: lower "
			"agent.threads, or raise the limits of the service (TasksMax=, LimitNOFILE=, "
			"MemoryMax=)",
			c->crew.n, crew_size(&c->snapshot->settings));
		goto fail;
	}
	c->balancer = balancer_new(c->crew.worker, c->crew.n, crew_cores());
	if (!c->balancer) {
		(void)snprintf(err, err_size, "%s", CONTROL_NOTHING_LEFT);
		goto fail;
	}
	if (c->redis.hub)
		await_redis(c);
	c->acceptor = acceptor_new(c->loop, args->listeners, c->crew.worker, c->crew.n, c->balancer,
		&c->metrics, c->snapshot);
	if (!c->acceptor) {
		(void)snprintf(err, err_size, "%s", CONTROL_NOTHING_LEFT);
		goto fail;
	}
	return c;
fail:
	control_free(c);
	return NULL;
}

/* The counters, then what operators changed, which is little. */
static enum control_end save_all(struct control *c)
{
	enum keeper_end counters = keeper_finish(c->keeper, c->stop_by);
	enum desk_end changes = desk_settle(c->desk, counters == KEEPER_HANGS
							     ? clock_steady() + CHANGES_WITHIN
							     : c->stop_by + CHANGES_WITHIN);
	if (counters == KEEPER_HANGS || changes == DESK_HANGS)
		return CONTROL_HANGS;
	return counters == KEEPER_LOST || changes == DESK_LOST ? CONTROL_LOST : CONTROL_ENDED;
}

enum control_end control_run(struct control *c)
{
	notices_start(c->notices, &(struct notices_started){
					  .version = c->args.version,
					  .snapshot = c->snapshot,
					  .listeners = c->args.listeners,
					  .threads = c->crew.n,
					  .has_redis = c->redis.hub != NULL,
				  });
	service_ready("serving");
	mask_signals(SIG_UNBLOCK);
	ev_run(c->loop, 0);
	desk_tick(c->desk, clock_read());
	read_events(c);
	sum_up_denials(c);
	log_stats(c, LOG_LEVEL_INFO, "stopped");
	return save_all(c);
}

/* Who asks again while the last things are written is asked to wait. */
static void unwatch_signal(struct control *c, ev_signal *watcher)
{
	ev_signal_stop(c->loop, watcher);
	if (watcher->signum)
		(void)signal(watcher->signum, SIG_IGN);
}

void control_free(struct control *c)
{
	if (!c)
		return;
	acceptor_free(c->acceptor);
	balancer_free(c->balancer);
	desk_free(c->desk);
	keeper_free(c->keeper);
	crew_free(&c->crew);
	bans_free(c->bans);
	known_free(c->known);
	backend_close(&c->redis);
	control_drop_served(c);
	notices_free(c->notices);
	tally_names_free(c->tally_names);
	if (c->loop) {
		unwatch_signal(c, &c->on_term);
		unwatch_signal(c, &c->on_int);
		unwatch_signal(c, &c->on_hup);
		unwatch_signal(c, &c->on_usr1);
		ev_loop_destroy(c->loop);
	}
	free(c);
}
