#include "server/worker.h"

#include "base/thread.h"
#include "server/conn.h"
#include "server/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often deadlines are looked at, and how often while stopping. */
static const double EXPIRE_EVERY = 0.5, STOP_EVERY = 0.004;

enum { EVENTS_MAX = 1024 };

/* The thread's scheduling policy is not ours to change. */
enum { POLICY_GIVEN = -1 };

/* Also there where the rest of /proc is hidden (ProcSubset=pid), and right in a container. */
static const char schedstat_file[] = "/proc/thread-self/schedstat";

enum phase { PHASE_RUN, PHASE_DRAIN, PHASE_STOP, PHASE_STOP_NOW };

/* Counters that began anew, handed over. */
struct erased {
	struct erased *next;
	unsigned n;
	struct key key[];
};

struct worker {
	struct metrics metrics; /* the worker's own to write; first, for its alignment */
	/* The loop thread's own. */
	struct conns conns;
	struct snapshot *snapshot;
	struct redis_store *redis; /* NULL: the memory store, which is everyone's */
	struct ev_loop *loop;
	ev_async wake; /* the one thing that other threads touch, by ev_async_send() */
	ev_timer tick;
	bool conns_made, stopping;
	int policy; /* that it set: SCHED_OTHER at first, SCHED_BATCH; or POLICY_GIVEN */
	/* Between the threads. */
	struct mailbox *mailbox;
	struct event_ring *events;
	struct snapshot *_Atomic next; /* handed over by the control thread, reference included */
	struct erased *_Atomic erased; /* handed over likewise: the newest first */
	_Atomic(int) phase;            /* control writes; only ever rises */
	_Atomic(unsigned) ping, pong;
	_Atomic(bool) done;
	struct worker *_Atomic give_to; /* an order; NULL: done */
	_Atomic(unsigned) give_share;
	_Atomic(bool) may_busy_poll, is_batch;
	_Atomic(bool) may_be_batch; /* the worker writes it */
	_Atomic(int) schedstat;     /* the kernel's account of the thread; -1: not open */
	/* The control thread's own. */
	const char *schedstat_file;
	unsigned number;
	bool running;
	pthread_t thread;
	struct ev_loop *home;
	ev_async *bell;
};

/* The worker's side. */

static void change_snapshot(struct worker *w)
{
	struct snapshot *next = atomic_exchange(&w->next, NULL);
	if (!next)
		return;
	conns_use(&w->conns, next);
	(void)snapshot_unref(w->snapshot); /* never the last: worker_publish() */
	w->snapshot = next;
	if (w->redis)
		redis_store_set_timeout(w->redis, next->settings.redis.timeout);
}

static void forget_erased(struct worker *w)
{
	struct erased *all = atomic_exchange(&w->erased, NULL);

	for (struct erased *e; (e = all);) {
		all = e->next;
		redis_store_erased(w->redis, e->key, e->n);
		free(e);
	}
}

static void fetch_letters(struct worker *w)
{
	struct letter letter;
	struct now now = clock_read();
	while (mailbox_get(w->mailbox, &letter))
		conns_add(&w->conns, letter.fd, letter.peer, letter.beyond, now);
	conns_fetch(&w->conns, now);
}

static void set_policy(struct worker *w, int policy)
{
	if (w->policy == POLICY_GIVEN || policy == w->policy)
		return;
	/* Who started the process has chosen, or somebody since (chrt). */
	if (sched_getscheduler(0) != w->policy) {
		w->policy = POLICY_GIVEN;
		return;
	}
	if (sched_setscheduler(0, policy, &(struct sched_param){ 0 }) < 0) {
		log_debug(
			"scheduling", KV_INT("thread", w->number), KV_Z("error", strerror(errno)));
		w->policy = POLICY_GIVEN;
		return;
	}
	w->policy = policy;
	log_debug("scheduling", KV_INT("thread", w->number),
		KV_Z("policy", policy == SCHED_BATCH ? "batch" : "other"));
}

static void change_policy(struct worker *w)
{
	bool wanted = w->snapshot->settings.agent.batch_scheduling;
	set_policy(w, wanted && atomic_load(&w->is_batch) ? SCHED_BATCH : SCHED_OTHER);
	atomic_store(&w->may_be_batch, wanted && w->policy != POLICY_GIVEN);
}

static void obey(struct worker *w)
{
	struct worker *to = atomic_exchange(&w->give_to, NULL);
	if (to)
		conns_give(&w->conns, &to->conns, atomic_load(&w->give_share));
	bool may_busy_poll = atomic_load(&w->may_busy_poll);
	if (may_busy_poll != w->conns.may_busy_poll)
		conns_allow_busy_poll(&w->conns, may_busy_poll);
	change_policy(w);
}

static void on_wake(struct ev_loop *loop, ev_async *async, int revents)
{
	(void)revents;
	struct worker *w = async->data;
	/* The phase first: what was mailed before it was set is then seen too. */
	int phase = atomic_load(&w->phase);
	unsigned ping = atomic_load(&w->ping);
	change_snapshot(w);
	forget_erased(w);
	if (phase >= PHASE_DRAIN && !w->conns.draining) {
		conns_drain(&w->conns);
		if (w->redis)
			redis_store_drain(w->redis);
	}
	fetch_letters(w);
	if (phase < PHASE_STOP)
		obey(w);
	if (phase >= PHASE_STOP && !w->stopping) {
		w->stopping = true;
		conns_shut(&w->conns, true);
		w->tick.repeat = STOP_EVERY;
		ev_timer_again(loop, &w->tick);
	}
	if (phase == PHASE_STOP_NOW)
		ev_break(loop, EVBREAK_ALL);
	atomic_store(&w->pong, ping);
}

static void on_tick(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)revents;
	struct worker *w = timer->data;
	struct now now = clock_read();
	if (!w->stopping) {
		conns_expire(&w->conns, now);
	} else if (conns_stop(&w->conns, now)) {
		/* What nobody waits for any more is not waited for for ever. */
		bool late = now.steady - w->conns.stopping_since >= STOP_STORE_MAX + USEC_PER_SEC;
		if (late || !w->redis || !redis_store_waiting(w->redis))
			ev_break(loop, EVBREAK_ALL);
	}
}

static void *run(void *arg)
{
	struct worker *w = arg;
	const char *file = w->schedstat_file ? w->schedstat_file : schedstat_file;
	atomic_store(&w->schedstat, open(file, O_RDONLY | O_CLOEXEC));
	ev_run(w->loop, 0);
	atomic_store(&w->done, true);
	ev_async_send(w->home, w->bell);
	return NULL;
}

/* Control's side. */

struct worker *worker_new(const struct worker_args *a)
{
	struct worker *w = aligned_alloc(alignof(struct worker), sizeof *w);
	if (!w)
		return NULL;
	*w = (struct worker){ .number = a->number,
		.home = a->home,
		.bell = a->bell,
		.schedstat_file = a->schedstat,
		.schedstat = -1 };
	w->snapshot = snapshot_ref(a->snapshot);
	w->may_be_batch = w->snapshot->settings.agent.batch_scheduling;
	w->loop = ev_loop_new(EVFLAG_AUTO);
	w->mailbox = mailbox_new();
	w->events = event_ring_new(EVENTS_MAX);
	if (!w->loop || !w->mailbox || !w->events)
		goto fail;
	int epoll = loop_epoll(w->loop);
	if (a->hub && !(w->redis = redis_store_new(a->redis, a->hub, a->memory, w->loop)))
		goto fail;
	w->conns_made = true;
	struct store *store = w->redis ? redis_store_base(w->redis) : memory_store_base(a->memory);
	if (!conns_init(&w->conns, w->loop, w->snapshot, store, &w->metrics, w->events))
		goto fail;
	w->conns.checker.penalties.bans = a->bans;
	w->conns.checker.known = a->known;
	w->conns.bell = &w->wake;
	w->conns.epoll = epoll;
	ev_async_init(&w->wake, on_wake);
	w->wake.data = w;
	ev_async_start(w->loop, &w->wake);
	ev_timer_init(&w->tick, on_tick, EXPIRE_EVERY, EXPIRE_EVERY);
	w->tick.data = w;
	/* After the sockets: nothing has timed out that lies there unread. */
	ev_set_priority(&w->tick, -1);
	ev_timer_start(w->loop, &w->tick);
	return w;
fail:
	worker_free(w);
	return NULL;
}

void worker_free(struct worker *w)
{
	if (!w)
		return;
	if (w->running) {
		worker_stop_now(w);
		(void)pthread_join(w->thread, NULL);
	}
	/* What still waits for the store comes back from it before what it belongs to goes. */
	if (w->conns_made)
		conns_close(&w->conns);
	if (w->redis)
		store_close(redis_store_base(w->redis));
	if (w->conns_made)
		conns_fini(&w->conns);
	if (w->loop)
		ev_loop_destroy(w->loop);
	int schedstat = atomic_load(&w->schedstat);
	if (schedstat >= 0)
		(void)close(schedstat);
	for (struct erased *e; (e = atomic_load(&w->erased));) {
		atomic_store(&w->erased, e->next);
		free(e);
	}
	mailbox_free(w->mailbox);
	event_ring_free(w->events);
	struct snapshot *next = atomic_load(&w->next);
	if (next && snapshot_unref(next))
		snapshot_free(next);
	if (snapshot_unref(w->snapshot))
		snapshot_free(w->snapshot);
	free(w);
}

bool worker_start(struct worker *w)
{
	char name[16];
	(void)snprintf(name, sizeof name, "worker-%u", w->number % 10000);
	w->running = thread_start(&w->thread, name, run, w) == 0;
	return w->running;
}

unsigned worker_connections(const struct worker *w)
{
	return atomic_load_explicit(&w->conns.open, memory_order_relaxed);
}

bool worker_mailbox_full(const struct worker *w)
{
	return mailbox_full(w->mailbox);
}

void worker_mail(struct worker *w, const struct letter *letter)
{
	atomic_fetch_add_explicit(&w->conns.open, 1, memory_order_relaxed);
	(void)mailbox_put(w->mailbox, letter);
	ev_async_send(w->loop, &w->wake);
}

void worker_make_room(struct worker *w)
{
	conns_make_room(&w->conns);
}

bool worker_mailbox_empty(const struct worker *w)
{
	return mailbox_empty(w->mailbox);
}

void worker_give(struct worker *w, struct worker *to, unsigned share)
{
	atomic_store(&w->give_share, share);
	atomic_store(&w->give_to, to);
	ev_async_send(w->loop, &w->wake);
}

void worker_allow_busy_poll(struct worker *w, bool allow)
{
	atomic_store(&w->may_busy_poll, allow);
	ev_async_send(w->loop, &w->wake);
}

void worker_set_batch(struct worker *w, bool is_batch)
{
	atomic_store(&w->is_batch, is_batch);
	ev_async_send(w->loop, &w->wake);
}

bool worker_may_be_batch(const struct worker *w)
{
	return atomic_load(&w->may_be_batch);
}

bool worker_may_busy_poll(const struct worker *w)
{
	return atomic_load(&w->may_busy_poll);
}

static bool read_schedstat(int fd, struct worker_time *t)
{
	char text[64], *end;
	ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
	if (n <= 0)
		return false;
	text[n] = '\0';
	uint64_t ran = strtoull(text, &end, 10); /* "RAN WAITED SLICES", nanoseconds */
	if (end == text || *end != ' ')
		return false;
	t->ran = ran / 1000;
	t->waited = strtoull(end, &end, 10) / 1000;
	t->turns = strtoull(end, NULL, 10);
	return true;
}

bool worker_time(const struct worker *w, struct worker_time *t)
{
	t->polled = (uint64_t)atomic_load_explicit(&w->conns.busy_poll.spent, memory_order_relaxed);
	return read_schedstat(atomic_load(&w->schedstat), t);
}

bool worker_time_is_known(void)
{
	struct worker_time t = { 0 };
	int fd = open(schedstat_file, O_RDONLY | O_CLOEXEC);
	bool known = read_schedstat(fd, &t) && t.ran; /* all zero: there, and not kept */
	if (fd >= 0)
		(void)close(fd);
	return known;
}

void worker_publish(struct worker *w, struct snapshot *s)
{
	struct snapshot *unread = atomic_exchange(&w->next, snapshot_ref(s));
	if (unread)
		(void)snapshot_unref(unread);
	ev_async_send(w->loop, &w->wake);
}

bool worker_erased(struct worker *w, const struct key *key, unsigned n)
{
	struct erased *e = w->redis ? malloc(sizeof *e + n * sizeof *key) : NULL;

	if (!e)
		return !w->redis;
	e->n = n;
	memcpy(e->key, key, n * sizeof *key);
	e->next = atomic_load(&w->erased);
	while (!atomic_compare_exchange_weak(&w->erased, &e->next, e))
		;
	ev_async_send(w->loop, &w->wake);
	return true;
}

static void set_phase(struct worker *w, int phase)
{
	atomic_store(&w->phase, phase);
	ev_async_send(w->loop, &w->wake);
}

void worker_drain(struct worker *w)
{
	set_phase(w, PHASE_DRAIN);
}

void worker_stop(struct worker *w)
{
	set_phase(w, PHASE_STOP);
}

void worker_stop_now(struct worker *w)
{
	set_phase(w, PHASE_STOP_NOW);
}

bool worker_is_done(const struct worker *w)
{
	return atomic_load(&w->done);
}

void worker_ping(struct worker *w)
{
	atomic_fetch_add(&w->ping, 1);
	ev_async_send(w->loop, &w->wake);
}

bool worker_has_answered(const struct worker *w)
{
	return atomic_load(&w->pong) == atomic_load(&w->ping);
}

struct metrics *worker_metrics(struct worker *w)
{
	return &w->metrics;
}

struct event_ring *worker_events(struct worker *w)
{
	return w->events;
}

const struct redis_stats *worker_redis(const struct worker *w)
{
	return w->redis ? redis_store_stats(w->redis) : NULL;
}

const struct tally *worker_tally(const struct worker *w)
{
	return w->conns.checker.tally;
}

const struct top *worker_top(const struct worker *w)
{
	return w->conns.checker.top;
}
