#include "server/balancer.h"

#include "base/log.h"
#include "server/scheduling.h"

#include <stdlib.h>

/* What the kernel and the worker say of it now. */
struct reading {
	unsigned connections;
	struct worker_time time;
	bool known; /* `time` is one: not of a worker without connections, which sleeps */
};

struct member {
	struct worker *worker;
	struct worker_time time; /* as of the last tick */
	uint64_t unpooled;
	bool known; /* `time` is one */
	struct scheduling scheduling;
	bool has_mail;  /* it had some at the last tick */
	bool is_behind; /* and had at the one before */
};

#define MAIL_EVERY (100 * USEC_PER_MSEC)

struct balancer {
	struct balance balance;
	unsigned n, cores;
	bool measures; /* false: connections are spread over all, and stay */
	bool may_busy_poll;
	usec_t measured_at, mail_at;
	struct member member[];
};

static void allow_busy_poll(struct balancer *b)
{
	/* Where workers take every core, whom they answer needs what they leave. */
	bool allow = b->cores > b->balance.active;
	if (allow == b->may_busy_poll)
		return;
	b->may_busy_poll = allow;
	for (unsigned i = 0; i < b->n; i++)
		worker_allow_busy_poll(b->member[i].worker, allow);
}

struct balancer *balancer_new(struct worker *const *workers, unsigned n, unsigned cores)
{
	struct balancer *b = calloc(1, sizeof *b + n * sizeof *b->member);
	if (!b)
		return NULL;
	b->n = n;
	b->cores = cores;
	for (unsigned i = 0; i < n; i++)
		b->member[i].worker = workers[i];
	balance_init(&b->balance, n);
	b->measures = worker_time_is_known();
	if (!b->measures) {
		b->balance.active = n;
		log_debug("active_threads", KV_INT("from", 0), KV_INT("to", n),
			KV_Z("why", "the kernel keeps no account of threads (schedstat)"));
	}
	allow_busy_poll(b);
	return b;
}

void balancer_free(struct balancer *b)
{
	free(b);
}

static unsigned share(uint64_t part, usec_t whole)
{
	uint64_t n = part * 1000 / (uint64_t)whole;
	return n > 1000 ? 1000 : (unsigned)n;
}

static uint64_t value(struct worker *w, enum metric id)
{
	return atomic_load_explicit(&worker_metrics(w)->value[id], memory_order_relaxed);
}

static struct reading read_of(const struct member *m)
{
	struct reading r = { .connections = worker_connections(m->worker) };
	r.known = r.connections && worker_time(m->worker, &r.time);
	return r;
}

static struct balance_load measure(struct member *m, const struct reading *r, usec_t since)
{
	struct balance_load load = { .connections = r->connections };
	uint64_t unpooled = value(m->worker, METRIC_checks_unpooled);
	if (r->known && m->known) {
		uint64_t ran = r->time.ran - m->time.ran, polled = r->time.polled - m->time.polled;
		load.busy = share(ran > polled ? ran - polled : 0, since);
		load.wait = share(r->time.waited - m->time.waited, since);
		load.full = unpooled != m->unpooled;
	}
	m->time = r->time;
	m->known = r->known;
	m->unpooled = unpooled;
	return load;
}

static void look_at_mail(struct member *m)
{
	bool has_mail = !worker_mailbox_empty(m->worker);
	m->is_behind = m->has_mail && has_mail;
	m->has_mail = has_mail;
}

static void move_connections(struct balancer *b, const struct reading *reading, usec_t now)
{
	struct balance_load load[WORKERS_MAX];
	struct balance_move move[WORKERS_MAX];
	uint64_t answered = 0;
	usec_t since = now - b->measured_at;
	if (since <= 0)
		return;
	for (unsigned i = 0; i < b->n; i++) {
		load[i] = measure(&b->member[i], &reading[i], since);
		answered += value(b->member[i].worker, METRIC_notifies);
	}
	b->measured_at = now;
	unsigned before = b->balance.active;
	unsigned n = balance_step(&b->balance, load, answered, now, move);
	for (unsigned i = 0; i < n; i++)
		worker_give(b->member[move[i].from].worker, b->member[move[i].to].worker,
			move[i].share);
	if (b->balance.active != before)
		log_debug(
			"active_threads", KV_INT("from", before), KV_INT("to", b->balance.active));
}

static void choose_scheduling(struct member *m, const struct reading *r, usec_t now)
{
	const struct worker_time *t = &r->time;
	struct scheduling_account a = { t->ran, t->polled, t->waited, t->turns,
		value(m->worker, METRIC_notifies) };
	bool is_ours = r->known && worker_may_be_batch(m->worker);
	bool was_batch = m->scheduling.is_batch;
	if (scheduling_step(&m->scheduling, is_ours ? &a : NULL, now) != was_batch)
		worker_set_batch(m->worker, !was_batch);
}

usec_t balancer_tick(struct balancer *b, usec_t now)
{
	if (now - b->mail_at >= MAIL_EVERY) {
		b->mail_at = now;
		for (unsigned i = 0; i < b->n; i++)
			look_at_mail(&b->member[i]);
	}
	if (!b->measures)
		return MAIL_EVERY;
	struct reading reading[WORKERS_MAX];
	for (unsigned i = 0; i < b->n; i++) {
		reading[i] = read_of(&b->member[i]);
		choose_scheduling(&b->member[i], &reading[i], now);
	}
	if (b->n == 1)
		return MAIL_EVERY;
	move_connections(b, reading, now);
	allow_busy_poll(b);
	return balance_interval(&b->balance);
}

/* The one with the fewest connections of [from, to). */
static struct worker *fewest(const struct balancer *b, unsigned from, unsigned to)
{
	struct worker *best = NULL;
	for (unsigned i = from; i < to; i++) {
		struct worker *w = b->member[i].worker;
		if (!b->member[i].is_behind && !worker_mailbox_full(w) &&
			(!best || worker_connections(w) < worker_connections(best)))
			best = w;
	}
	return best;
}

struct worker *balancer_choose(const struct balancer *b)
{
	struct worker *w = fewest(b, 0, b->balance.active);
	if (w)
		return w;
	/* A burst, or a worker that hangs: better anyone than nobody. */
	if ((w = fewest(b, b->balance.active, b->n)))
		return w;
	for (unsigned i = 0; i < b->n; i++)
		if (!worker_mailbox_full(b->member[i].worker))
			return b->member[i].worker;
	return NULL;
}
