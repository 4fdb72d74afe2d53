#include "server/balancer.h"

#include "base/log.h"
#include "server/scheduling.h"

#include <stdlib.h>

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

static struct balance_load measure(struct member *m, usec_t since)
{
	struct balance_load load = { .connections = worker_connections(m->worker) };
	struct worker_time t = m->time;
	uint64_t unpooled = value(m->worker, METRIC_checks_unpooled);
	bool known = load.connections && worker_time(m->worker, &t);
	if (known && m->known) {
		uint64_t ran = t.ran - m->time.ran, polled = t.polled - m->time.polled;
		load.busy = share(ran > polled ? ran - polled : 0, since);
		load.wait = share(t.waited - m->time.waited, since);
		load.full = unpooled != m->unpooled;
	}
	m->time = t;
	m->known = known;
	m->unpooled = unpooled;
	return load;
}

static void look_at_mail(struct member *m)
{
	bool has_mail = !worker_mailbox_empty(m->worker);
	m->is_behind = m->has_mail && has_mail;
	m->has_mail = has_mail;
}

static void move_connections(struct balancer *b, usec_t now)
{
	struct balance_load load[WORKERS_MAX];
	struct balance_move move[WORKERS_MAX];
	uint64_t answered = 0;
	usec_t since = now - b->measured_at;
	if (since <= 0)
		return;
	for (unsigned i = 0; i < b->n; i++) {
		load[i] = measure(&b->member[i], since);
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

/* Not of one without connections: it sleeps. */
static void choose_scheduling(struct member *m, usec_t now)
{
	struct worker_time t;
	if (!worker_connections(m->worker) || !worker_time(m->worker, &t))
		return;
	bool was_batch = m->scheduling.is_batch;
	struct scheduling_account a = { t.ran, t.waited, t.turns,
		value(m->worker, METRIC_notifies) };
	if (scheduling_step(&m->scheduling, &a, now) != was_batch)
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
	for (unsigned i = 0; i < b->n; i++)
		choose_scheduling(&b->member[i], now);
	if (b->n == 1)
		return MAIL_EVERY;
	move_connections(b, now);
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
