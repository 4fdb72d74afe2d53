#include "server/control.h"

#include "config/problems.h"
#include "server/acceptor.h"
#include "server/backend.h"
#include "server/balancer.h"
#include "server/crew.h"
#include "server/desk.h"
#include "server/keeper.h"
#include "server/notices.h"
#include "server/service.h"

#include <ev.h>
#include <signal.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	RETIRED_MAX = 16, /* snapshots of the past that some worker still has */
	TICKS_A_SECOND = 10,
};

#define REDIS_WITHIN (500 * USEC_PER_MSEC) /* at the start; then it serves without */

struct control {
	struct metrics metrics; /* the control thread's own to write; first, for its alignment */
	struct control_args args;
	struct ev_loop *loop;
	ev_signal on_term, on_int, on_hup, on_usr1;
	ev_timer tick, balance, drain, watchdog;
	ev_async bell; /* a worker is done */
	enum control_phase phase;
	struct snapshot *snapshot;
	struct snapshot *retired[RETIRED_MAX]; /* control's references keep them from being freed
						* on a worker's thread */
	unsigned retired_n;
	struct crew crew;
	struct balancer *balancer;
	struct acceptor *acceptor;
	struct keeper *keeper;
	struct notices *notices;
	struct desk *desk; /* what the operator changed */
	struct bans *bans; /* by penalties */
	struct tally_names *tally_names;
	struct redis_backend redis; /* empty: the store is the memory store */
	unsigned ticks;
	usec_t started_at; /* UTC */
};

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

void control_report(struct control *c, struct report *r)
{
	report_sum(r, &(struct report_of){ &c->metrics, c->crew.worker, c->crew.n, c->args.store,
			      c->redis.hub != NULL });
}

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
	notices_read(c->notices, c->crew.worker, c->crew.n);
}

static void sum_up_denials(struct control *c)
{
	notices_sum_up(c->notices, c->crew.worker, c->crew.n);
}

/* Snapshots. */

static void drop(struct snapshot *s)
{
	if (s && snapshot_unref(s))
		snapshot_free(s);
}

/* Frees those that no worker has any more. */
static void free_retired(struct control *c)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < c->retired_n; i++) {
		struct snapshot *s = c->retired[i];
		/* Nobody can take a new reference: only control hands this one out, and it has
		 * stopped doing so. */
		if (atomic_load_explicit(&s->refs, memory_order_acquire) > 1)
			c->retired[kept++] = s;
		else
			drop(s);
	}
	c->retired_n = kept;
}

static bool has_room_to_publish(struct control *c)
{
	free_retired(c);
	return c->retired_n < RETIRED_MAX;
}

static void publish(struct control *c, struct snapshot *fresh)
{
	tally_names_apply(c->tally_names, fresh->policy);
	double slower = snapshot_slower_by(c->snapshot, fresh);
	if (slower > 1.0)
		memory_store_stretch(c->args.store, slower, clock_read());
	crew_publish(&c->crew, fresh);
	acceptor_raise_limit(&fresh->settings, c->crew.n);
	if (c->acceptor) /* not yet, where Redis told of changes while it was waited for */
		acceptor_use(c->acceptor, fresh);
	backend_apply(&c->redis, &fresh->settings);
	keeper_change_interval(c->keeper, fresh->settings.store.state_interval);
	c->retired[c->retired_n++] = c->snapshot;
	c->snapshot = fresh;
}

/* For the desk. */

static struct snapshot *current(void *with)
{
	return ((struct control *)with)->snapshot;
}

static void share(void *with, const char *name, const char *text)
{
	backend_share(&((struct control *)with)->redis, name, text);
}

static bool has_shared(void *with)
{
	struct control *c = with;
	return c->redis.changes && redis_changes_has_all(c->redis.changes);
}

static void erased(void *with, const struct key *key, unsigned n)
{
	struct control *c = with;
	for (unsigned i = 0; i < n; i++)
		memory_store_erase(c->args.store, &key[i]);
	if (!crew_erased(&c->crew, key, n))
		log_error("reset_not_everywhere",
			KV_Z("why", "out of memory: what workers remember holds for a while"));
}

static void on_told(void *owner, const struct str *name, const struct str *text, size_t n)
{
	struct control *c = owner;
	if (c->phase == CONTROL_RUN)
		desk_told(c->desk, name, text, n);
}

static void on_news(void *owner, const struct str *name, const struct str *text, size_t n)
{
	struct control *c = owner;
	if (c->phase == CONTROL_RUN)
		desk_news(c->desk, name, text, n);
}

static void on_missing(void *owner)
{
	struct control *c = owner;
	if (c->phase == CONTROL_RUN)
		desk_tell_again(c->desk);
}

static bool publish_change(void *with, struct snapshot *fresh)
{
	struct control *c = with;
	if (!has_room_to_publish(c))
		return false;
	publish(c, fresh);
	return true;
}

static void log_problems(const struct problems *p, bool refused)
{
	for (size_t i = 0; i < p->n; i++) {
		bool warning = strstr(p->message[i], ": warning: ");
		if (refused && !warning)
			log_error("reload_refused", KV_Z("problem", p->message[i]));
		else
			log_warning("config_warning", KV_Z("problem", p->message[i]));
	}
}

/* Everything that can fail, before anything has changed. NULL: `problems` says why. */
static struct snapshot *load_fresh(struct control *c, struct problems *problems)
{
	struct snapshot *fresh = config_load(c->args.files, c->args.files_n,
		memory_store_key(c->args.store), c->snapshot->generation + 1, problems);
	if (fresh && snapshot_can_replace(c->snapshot, fresh, problems)) {
		char err[512];
		struct log_settings log = log_settings_for(&fresh->settings, c->args.verbosity);
		if (backend_reload_tls(&c->redis, err, sizeof err) &&
			log_change(&log, err, sizeof err) == 0)
			return desk_apply(c->desk, fresh);
		problem_add(problems, (struct place){ 0 }, "%s", err);
	}
	drop(fresh);
	return NULL;
}

static const char *cannot_reload(struct control *c)
{
	if (c->phase != CONTROL_RUN)
		return "the agent is stopping";
	if (!has_room_to_publish(c))
		return "workers have not taken over the last ones yet: try again";
	return NULL;
}

bool control_reload(struct control *c, struct reload *r)
{
	*r = (struct reload){ 0 };
	struct snapshot *fresh = NULL;
	const char *why = cannot_reload(c);
	if (why) {
		problem_add(&r->problems, (struct place){ 0 }, "%s", why);
	} else {
		service_reloading();
		fresh = load_fresh(c, &r->problems);
	}
	log_problems(&r->problems, !fresh);
	metric_add(&c->metrics, fresh ? METRIC_reloads : METRIC_reloads_refused, 1);
	if (fresh) {
		size_t n = snapshot_describe_changes(
			c->snapshot, fresh, r->changed, sizeof r->changed);
		publish(c, fresh);
		log_info("reloaded", KV_INT("generation", fresh->generation),
			KV_STR("changed", ((struct str){ r->changed, n })));
	}
	if (!why)
		service_ready(fresh ? "serving" : "serving; the last reload was refused");
	r->generation = c->snapshot->generation;
	return fresh;
}

void reload_fini(struct reload *r)
{
	problems_free(&r->problems);
}

/* What others may know. */

struct ev_loop *control_loop(struct control *c)
{
	return c->loop;
}

struct desk *control_desk(struct control *c)
{
	return c->desk;
}

const struct snapshot *control_snapshot(const struct control *c)
{
	return c->snapshot;
}

struct snapshot *control_hold_snapshot(struct control *c)
{
	return snapshot_ref(c->snapshot);
}

void control_drop_snapshot(struct snapshot *s)
{
	drop(s);
}

struct store *control_store(struct control *c)
{
	return backend_store(&c->redis, c->args.store);
}

void control_settle_store(struct control *c)
{
	if (c->redis.store)
		redis_store_settle(c->redis.store);
}

enum control_phase control_phase(const struct control *c)
{
	return c->phase;
}

const struct control_args *control_args(const struct control *c)
{
	return &c->args;
}

usec_t control_started_at(const struct control *c)
{
	return c->started_at;
}

bool control_tally(struct control *c, struct tally_sum *sum)
{
	return crew_tally(&c->crew, c->tally_names, sum);
}

bool control_top(struct control *c, enum top_kind kind, struct top_list *list)
{
	return crew_top(&c->crew, kind, clock_steady(), list);
}

const char *control_rule_at(const struct control *c, uint32_t place)
{
	return tally_rule_at(c->tally_names, place);
}

/* Stopping. */

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

static void on_stop_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
	(void)loop;
	(void)revents;
	struct control *c = signal->data;
	switch (c->phase) {
	case CONTROL_RUN:
		start_drain(c);
		return;
	case CONTROL_DRAIN: /* the second one: what is left of the drain is skipped */
		stop_workers(c);
		return;
	case CONTROL_STOP:
	case CONTROL_STOP_NOW:
		c->phase = CONTROL_STOP_NOW;
		crew_stop_now(&c->crew);
		return;
	}
}

static void on_drained(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	stop_workers(timer->data);
}

static void on_bell(struct ev_loop *loop, ev_async *async, int revents)
{
	(void)revents;
	struct control *c = async->data;
	if (crew_is_done(&c->crew))
		ev_break(loop, EVBREAK_ALL);
}

/* The other callbacks. */

static void on_reload_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
	(void)loop;
	(void)revents;
	struct reload r;
	(void)control_reload(signal->data, &r);
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
	if (c->phase == CONTROL_RUN)
		desk_tick(c->desk, now);
	free_retired(c);
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

/* For all who ask it: the workers, and the admin interface. */
static bool has_redis(const struct control *c)
{
	return crew_has_redis(&c->crew) && backend_is_up(&c->redis);
}

/* Who starts beside a Redis that works should not begin by doing without it. */
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

static const char nothing_left[] =
	"no memory, threads or descriptors left: raise the limits of the service";

/* What the operator changed in an earlier run holds from the first check on. */
static bool open_desk(struct control *c, char *err, size_t err_size)
{
	const struct settings *s = &c->snapshot->settings;
	c->keeper = keeper_start(c->args.store, s->store.state_file, s->store.state_interval);
	c->bans = bans_new();
	(void)snprintf(err, err_size, "%s", nothing_left);
	if (!c->keeper || !c->bans)
		return false;
	c->desk = desk_new(
		&(struct desk_args){
			.store = c->args.store,
			.bans = c->bans,
			.keeper = c->keeper,
			.state_file = s->store.state_file,
			.loop = c->loop,
			.share = s->store.backend == BACKEND_REDIS ? share : NULL,
			.has_shared = s->store.backend == BACKEND_REDIS ? has_shared : NULL,
			.erased = erased,
			.current = current,
			.publish = publish_change,
			.with = c,
		},
		err, err_size);
	if (c->desk)
		c->snapshot = desk_apply(c->desk, c->snapshot);
	return c->desk != NULL;
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
	(void)signal(SIGPIPE, SIG_IGN);
	acceptor_raise_limit(&c->snapshot->settings, crew_size(&c->snapshot->settings));
	if (!crew_has_descriptors(crew_size(&c->snapshot->settings) + 1)) {
		(void)snprintf(err, err_size,
			"too few open files are allowed for %u threads: raise the limit "
			"(LimitNOFILE= of the service), or lower agent.threads",
			crew_size(&c->snapshot->settings));
		goto fail;
	}
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
	if (!open_desk(c, err, err_size))
		goto fail;
	tally_names_apply(c->tally_names, c->snapshot->policy);
	const struct settings *s = &c->snapshot->settings;
	const struct backend_ears ears = { on_told, on_news, on_missing, c };
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
		(void)snprintf(err, err_size, "%s", nothing_left);
		goto fail;
	}
	if (c->redis.hub)
		await_redis(c);
	c->acceptor = acceptor_new(c->loop, args->listeners, c->crew.worker, c->crew.n, c->balancer,
		&c->metrics, c->snapshot);
	if (!c->acceptor) {
		(void)snprintf(err, err_size, "%s", nothing_left);
		goto fail;
	}
	return c;
fail:
	control_free(c);
	return NULL;
}

void control_run(struct control *c)
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
	keeper_finish(c->keeper);
	desk_settle(c->desk);
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
	backend_close(&c->redis);
	for (unsigned i = 0; i < c->retired_n; i++)
		drop(c->retired[i]);
	drop(c->snapshot);
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
