#include "store/redis_node.h"

#include "base/log.h"
#include "store/redis_conn.h"
#include "store/redis_hints.h"
#include "store/redis_script.h"

#include <assert.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	/* Calls under way at once; what comes then gathers. With 1 to 4 Redis has to wait for
	 * calls, with 32 and all of what comes in small ones it has four times as many to do
	 * (measured with three limits a check: 8 was best, by a tenth and by half). */
	WINDOW = 8,
	WINDOW_OF_MANY = 64, /* each carries what is of one slot */
	SENT_MAX = 256,      /* replies that are still to come */
	SPARE = 16,          /* of these, for what is not asked from outside */
	FAILURES_MAX = 3,    /* in a row, and the breaker opens */
};
static_assert((int)REDIS_REPLY_MAX < (int)NODE_ASK_REPLY_MAX, "the largest reply is within bounds");

/* A server that says nothing for so long (or some timeouts) hangs. */
#define HANG_LEAST      (100 * USEC_PER_MSEC)
#define HANG_TIMEOUTS   5
#define OPEN_LEAST      (1 * USEC_PER_SEC)
#define IDLE_ASK_EVERY  (1 * USEC_PER_SEC)
#define ERROR_LOG_EVERY (10 * USEC_PER_SEC)
#define TOO_LARGE_PAUSE (10 * USEC_PER_SEC)
#define TOO_LARGE_HINT  "a value in the tiers hash may be no tier's name; HSTRLEN tells its length"

enum health {
	HEALTH_AWAY,   /* no connection */
	HEALTH_BROKEN, /* the breaker is open: only probes are sent */
	HEALTH_TRYING, /* probes come back; the next call of checks, alone, has to show that it
			  works */
	HEALTH_WELL,
};

enum kind { KIND_CHECKS, KIND_PROBE, KIND_SCRIPT, KIND_ASK, KIND_ASKING };

struct sent {
	enum kind kind;
	struct node_call *call; /* KIND_CHECKS, KIND_PROBE */
	struct node_ask *ask;   /* KIND_ASK; NULL: has ended */
	usec_t at;
};

struct redis_node {
	char prefix[64];
	usec_t timeout, patience, hang_after;
	struct redis_stats *stats;
	struct node_calls *pool;
	struct redis_node_events events;
	void *owner;
	struct ev_loop *loop;
	struct redis_conn *conn;

	struct node_call *first, *last;         /* that wait, by deadline */
	struct node_call *unsent, *last_unsent; /* of these, in the order to send them */
	struct node_ask *asks, *last_ask;
	struct sent sent[SENT_MAX];
	unsigned sent_at, sent_n, window_n; /* window_n: of kind KIND_CHECKS */

	bool one_of_many, fresh; /* fresh: its first connection is still being opened */
	enum health health;
	bool must_prove; /* it opened for an error in a reply, which probes do not meet */
	unsigned failures;
	unsigned probes;     /* in the ring */
	bool script_is_sent; /* in the ring */
	usec_t probe_at, probe_delay, heard_at;
	usec_t asks_from; /* nothing is to be asked before */
	uint64_t seed;

	struct redis_addresses addresses;
	unsigned address_at;
	ev_timer timer;
	usec_t timer_at;
	struct node_call probe;
};

/* ---- time: one timer for all that is to come ---- */

static usec_t due(const struct redis_node *n)
{
	usec_t at = INT64_MAX;

	if (n->first)
		at = n->first->taken_at + n->patience;
	if (n->asks && n->asks->at + n->patience < at)
		at = n->asks->at + n->patience;
	if (n->sent_n && n->sent[n->sent_at].at + n->hang_after < at)
		at = n->sent[n->sent_at].at + n->hang_after;
	if (redis_conn_is_ready(n->conn) && !n->probes && n->probe_at < at)
		at = n->probe_at;
	return at;
}

/* libev counts from when this turn of the loop began: it comes a little early then, and is set
 * again. */
static void set_timer(struct redis_node *n, usec_t now)
{
	usec_t at = due(n);

	if (at == INT64_MAX || (ev_is_active(&n->timer) && n->timer_at <= at))
		return;
	usec_t after = at > now ? at - now : 0;
	ev_timer_stop(n->loop, &n->timer);
	ev_timer_set(&n->timer, (double)after / (double)USEC_PER_SEC, 0);
	ev_timer_start(n->loop, &n->timer);
	n->timer_at = at;
}

/* ---- calls ---- */

struct node_call *node_calls_get(struct node_calls *pool)
{
	struct node_call *c = pool->idle;

	if (c) {
		pool->idle = c->next;
	} else {
		if (pool->n == pool->most || !(c = calloc(1, sizeof *c)))
			return NULL;
		pool->n++;
	}
	c->waits = c->gathers = c->sent = c->resent = c->asking = false;
	c->redirects = c->retries = 0;
	return c;
}

void node_calls_put(struct node_calls *pool, struct node_call *c)
{
	redis_call_clear(&c->asked);
	c->next = pool->idle;
	pool->idle = c;
}

void node_calls_fini(struct node_calls *pool)
{
	for (struct node_call *c; (c = pool->idle); pool->n--) {
		pool->idle = c->next;
		free(c);
	}
	assert(pool->n == 0);
}

static void put_back_if_done(struct redis_node *n, struct node_call *c)
{
	if (!c->waits && !c->sent && c != &n->probe)
		node_calls_put(n->pool, c);
}

/* By deadline: nearly always it is the last. (One that comes from another node began earlier.) */
static void list_add(struct redis_node *n, struct node_call *c)
{
	struct node_call *after = n->last;

	while (after && after->taken_at > c->taken_at)
		after = after->before;
	c->before = after;
	c->next = after ? after->next : n->first;
	*(c->next ? &c->next->before : &n->last) = c;
	*(after ? &after->next : &n->first) = c;
	c->waits = true;
}

static void list_remove(struct redis_node *n, struct node_call *c)
{
	*(c->before ? &c->before->next : &n->first) = c->next;
	*(c->next ? &c->next->before : &n->last) = c->before;
	c->waits = false;
}

static void queue_add(struct redis_node *n, struct node_call *c)
{
	c->next_unsent = NULL;
	c->before_unsent = n->last_unsent;
	*(n->last_unsent ? &n->last_unsent->next_unsent : &n->unsent) = c;
	n->last_unsent = c;
	c->gathers = true;
}

static void queue_remove(struct redis_node *n, struct node_call *c)
{
	*(c->before_unsent ? &c->before_unsent->next_unsent : &n->unsent) = c->next_unsent;
	*(c->next_unsent ? &c->next_unsent->before_unsent : &n->last_unsent) = c->before_unsent;
	c->gathers = false;
}

/* Its place may be taken only after: who hears of it may give further calls. */
static void end_call(struct redis_node *n, struct node_call *c, bool answered, struct now now)
{
	assert(c->waits);
	list_remove(n, c);
	if (c->gathers)
		queue_remove(n, c);
	n->events.ended(n->owner, c, answered, now);
	put_back_if_done(n, c);
}

static void fail_call(struct redis_node *n, struct node_call *c, struct now now)
{
	redis_count(&n->stats->failed, c->asked.plan_n);
	end_call(n, c, false, now);
}

/* What comes meanwhile is not gathered: nobody is asked. */
static void fail_all_unsent(struct redis_node *n, struct now now)
{
	while (n->unsent)
		fail_call(n, n->unsent, now);
}

/* ---- other commands ---- */

/* By deadline, as calls are. */
static void ask_add(struct redis_node *n, struct node_ask *a)
{
	struct node_ask *after = n->last_ask;

	while (after && after->at > a->at)
		after = after->before;
	a->before = after;
	a->next = after ? after->next : n->asks;
	*(a->next ? &a->next->before : &n->last_ask) = a;
	*(after ? &after->next : &n->asks) = a;
}

static void ask_end(struct redis_node *n, struct node_ask *a, const struct redisReply *r)
{
	if (a->before)
		a->before->next = a->next;
	else
		n->asks = a->next;
	if (a->next)
		a->next->before = a->before;
	else
		n->last_ask = a->before;
	a->done(a, r);
}

static void ask_give_up(struct redis_node *n, struct node_ask *a)
{
	for (unsigned i = 0; i < n->sent_n; i++) {
		struct sent *sent = &n->sent[(n->sent_at + i) % SENT_MAX];
		if (sent->ask == a)
			sent->ask = NULL;
	}
	ask_end(n, a, NULL);
}

static void give_up_all_asks(struct redis_node *n)
{
	while (n->asks)
		ask_give_up(n, n->asks);
}

/* ---- health ---- */

static const struct redis_address *address_now(const struct redis_node *n)
{
	return n->addresses.n ? &n->addresses.address[n->address_at] : NULL;
}

static void set_health(struct redis_node *n, enum health h)
{
	n->health = h;
	if (h == HEALTH_WELL) {
		n->fresh = false;
		n->failures = 0;
		n->events.back(n->owner, n);
	}
}

static void tell_away(struct redis_node *n, const char *why, const char *hint)
{
	n->fresh = false;
	n->events.away(n->owner, n, why, hint, address_now(n));
}

static void probe_later(struct redis_node *n, usec_t now)
{
	n->probe_at = now + redis_backoff(&n->probe_delay, &n->seed);
}

static void open_breaker(struct redis_node *n, const char *why, const char *hint, usec_t now)
{
	if (n->health == HEALTH_WELL)
		redis_count(&n->stats->breaks, 1);
	set_health(n, HEALTH_BROKEN);
	probe_later(n, now);
	tell_away(n, why, hint);
}

/* A call with checks, or the node's own, met an error or its deadline. */
static void call_failed(
	struct redis_node *n, bool is_error, const char *why, const char *hint, usec_t now)
{
	n->failures++;
	if (is_error)
		n->must_prove = true;
	if (n->health == HEALTH_WELL && n->failures < FAILURES_MAX)
		return;
	if (n->health >= HEALTH_TRYING)
		open_breaker(n, why, hint, now);
	else
		tell_away(n, why, hint);
}

static void call_went_well(struct redis_node *n)
{
	redis_conn_is_good(n->conn);
	n->failures = 0;
	n->must_prove = false;
	n->probe_delay = 0;
	if (n->health == HEALTH_TRYING)
		set_health(n, HEALTH_WELL);
}

/* ---- sending ---- */

static void ring_add(struct redis_node *n, struct sent sent)
{
	assert(n->sent_n < SENT_MAX);
	n->sent[(n->sent_at + n->sent_n++) % SENT_MAX] = sent;
	n->window_n += sent.kind == KIND_CHECKS;
	n->probes += sent.kind == KIND_PROBE;
	if (sent.call)
		sent.call->sent = true;
}

static struct sent ring_take(struct redis_node *n)
{
	struct sent sent = n->sent[n->sent_at];

	assert(n->sent_n);
	n->sent_at = (n->sent_at + 1) % SENT_MAX;
	n->sent_n--;
	n->window_n -= sent.kind == KIND_CHECKS;
	n->probes -= sent.kind == KIND_PROBE;
	if (sent.kind == KIND_SCRIPT)
		n->script_is_sent = false;
	if (sent.call)
		sent.call->sent = false;
	return sent;
}

static bool send_call(struct redis_node *n, enum kind kind, struct node_call *c, usec_t now)
{
	struct redis_args *args = &n->pool->args;

	redis_call_args(&c->asked, args, n->prefix, redis_script_sha1, NULL);
	if (!redis_conn_send(n->conn, args->n, args->argv, args->bytes))
		return false;
	ring_add(n, (struct sent){ .kind = kind, .call = c, .at = now });
	return true;
}

/* The node is about to get the slot: only who says so is served. */
static bool send_asking(struct redis_node *n, usec_t now)
{
	const char *argv[] = { "ASKING" };
	size_t bytes[] = { 6 };

	if (!redis_conn_send(n->conn, 1, argv, bytes))
		return false;
	ring_add(n, (struct sent){ .kind = KIND_ASKING, .at = now });
	return true;
}

static bool send_script(struct redis_node *n, usec_t now)
{
	const char *argv[] = { "SCRIPT", "LOAD", redis_script };
	size_t bytes[] = { 6, 4, redis_script_bytes };

	if (n->script_is_sent)
		return true;
	if (!redis_conn_send(n->conn, 3, argv, bytes))
		return false;
	redis_count(&n->stats->scripts_sent, 1);
	ring_add(n, (struct sent){ .kind = KIND_SCRIPT, .at = now });
	n->script_is_sent = true;
	return true;
}

/* The call without checks: Redis tells the time. */
static void send_probe(struct redis_node *n, usec_t now)
{
	if (n->probes)
		return;
	n->probe.resent = false;
	n->probe_at = INT64_MAX;
	(void)send_call(n, KIND_PROBE, &n->probe, now);
}

static unsigned window(const struct redis_node *n)
{
	if (n->health == HEALTH_WELL)
		return n->one_of_many ? WINDOW_OF_MANY : WINDOW;
	return n->health == HEALTH_TRYING ? 1 : 0;
}

static void send_gathered(struct redis_node *n, usec_t now)
{
	while (n->unsent && n->window_n < window(n)) {
		struct node_call *c = n->unsent;
		if ((c->asking && !send_asking(n, now)) || !send_call(n, KIND_CHECKS, c, now))
			return; /* `lost` follows */
		redis_count(&n->stats->calls, 1);
		redis_count(&n->stats->checks, c->asked.plan_n);
		queue_remove(n, c);
	}
}

/* ---- replies ---- */

/* The call had no effect: once more, after the script. false: it is not to be sent again. */
static bool call_again(struct redis_node *n, struct sent sent, usec_t now)
{
	struct node_call *c = sent.call;
	bool wanted = sent.kind == KIND_PROBE || c->waits;

	if (c->resent || !wanted || !send_script(n, now))
		return false;
	c->resent = true;
	if (c->asking && !send_asking(n, now))
		return false;
	return send_call(n, sent.kind, c, now);
}

static void log_error_reply(struct redis_node *n, const char *error, const char *hint)
{
	char text[REDIS_ADDRESS_TEXT_MAX];
	const struct redis_address *a = address_now(n);

	log_warning_every(ERROR_LOG_EVERY, "redis_error", KV_Z("error", error),
		KV_Z("server", a ? redis_address_text(a, text) : ""),
		KV_Z("hint", hint ? hint : "see the log of Redis"));
}

static void on_probe_reply(struct redis_node *n, const struct sent *sent, bool good,
	const char *why, const char *hint, struct now now)
{
	bool in_time = now.steady - sent->at <= n->timeout;

	if (good && in_time) {
		if (n->health == HEALTH_BROKEN)
			set_health(n, n->must_prove ? HEALTH_TRYING : HEALTH_WELL);
		n->probe_at = now.steady + IDLE_ASK_EVERY;
		return;
	}
	if (good)
		why = "it answers later than redis.timeout";
	call_failed(n, !good, why, hint, now.steady);
	if (n->health == HEALTH_WELL)
		n->probe_at = now.steady + IDLE_ASK_EVERY;
	else if (n->probe_at == INT64_MAX)
		probe_later(n, now.steady);
}

static void on_checks_reply(struct redis_node *n, const struct sent *sent, bool good,
	const char *why, const char *hint, struct now now)
{
	struct node_call *c = sent->call;

	if (!c->waits) { /* it came too late; the failure was counted then */
		put_back_if_done(n, c);
		return;
	}
	if (!good) {
		call_failed(n, true, why, hint, now.steady);
		fail_call(n, c, now);
		return;
	}
	call_went_well(n);
	redis_count(&n->stats->answered, c->asked.plan_n);
	end_call(n, c, true, now);
}

/* It has done nothing, and says who would. */
static bool call_goes_on(struct redis_node *n, struct node_call *c, const char *error)
{
	if (!c->waits || !n->events.redirected)
		return false;
	list_remove(n, c);
	if (n->events.redirected(n->owner, n, c, error)) {
		call_went_well(n);
		return true;
	}
	list_add(n, c);
	return false;
}

static void on_script_reply(
	struct redis_node *n, const struct sent *sent, const struct redisReply *r, struct now now)
{
	const char *why = NULL, *hint = NULL;
	char error[160];

	bool is_error = r->type == REDIS_REPLY_ERROR;
	if (is_error) {
		snprintf(error, sizeof error, "%s", r->str);
		why = error;
		hint = redis_error_hint(error);
		if (sent->call && strncmp(error, "NOSCRIPT", 8) == 0 &&
			call_again(n, *sent, now.steady))
			return;
		if (sent->kind == KIND_CHECKS && call_goes_on(n, sent->call, error))
			return;
		log_error_reply(n, error, hint);
	}
	/* What did not get there shows in the call that follows it. */
	if (sent->kind == KIND_SCRIPT || sent->kind == KIND_ASKING)
		return;
	bool good = !is_error && r->type == REDIS_REPLY_STRING &&
		    redis_call_read(&sent->call->asked, r->str, (size_t)r->len);
	if (!good && !is_error)
		why = "a reply that the script does not give";
	if (sent->kind == KIND_PROBE)
		on_probe_reply(n, sent, good, why, hint, now);
	else
		on_checks_reply(n, sent, good, why, hint, now);
	if (!good && !is_error)
		redis_conn_give_up(n->conn, why); /* who knows what the next one belongs to */
}

static void on_reply(void *owner, const struct redisReply *r)
{
	struct redis_node *n = owner;
	struct sent sent = ring_take(n);
	struct now now = clock_read();

	n->heard_at = now.steady;
	if (sent.kind == KIND_CHECKS)
		histogram_add(&n->stats->call_time, now.steady - sent.at, 1);
	if (sent.kind != KIND_ASK)
		on_script_reply(n, &sent, r, now);
	else if (sent.ask)
		ask_end(n, sent.ask, r);
	set_timer(n, now.steady);
}

/* ---- the connection comes and goes ---- */

/* What was sent may have been charged, and is not sent again. */
static void drop_all(struct redis_node *n, struct now now)
{
	while (n->sent_n) {
		struct sent sent = ring_take(n);
		struct node_call *c = sent.call;
		if (!c)
			continue;
		if (sent.kind == KIND_CHECKS && c->waits)
			fail_call(n, c, now);
		else
			put_back_if_done(n, c);
	}
	fail_all_unsent(n, now);
	give_up_all_asks(n);
}

static void on_ready(void *owner)
{
	struct redis_node *n = owner;
	usec_t now = clock_steady();

	redis_count(&n->stats->connects, 1);
	n->heard_at = now;
	set_health(n, HEALTH_BROKEN);
	send_probe(n, now);
	set_timer(n, now);
}

static void on_lost(void *owner, const char *why)
{
	struct redis_node *n = owner;
	struct now now = clock_read();
	/* Whoever asked may have given up since: it is what was asked that counts. */
	bool for_ask = redis_conn_was_too_large(n->conn) && n->sent_n &&
		       n->sent[n->sent_at].kind == KIND_ASK;

	if (for_ask)
		n->asks_from = now.steady + TOO_LARGE_PAUSE;
	set_health(n, HEALTH_AWAY);
	tell_away(n, why, for_ask ? TOO_LARGE_HINT : NULL);
	drop_all(n, now);
}

/* The next address in the list, when it has been tried in vain. */
static void on_failed(void *owner, const char *why, const char *hint)
{
	struct redis_node *n = owner;

	redis_count(&n->stats->connects_failed, 1);
	tell_away(n, why, hint);
	fail_all_unsent(n, clock_read());
	n->address_at = (n->address_at + 1) % n->addresses.n;
	redis_conn_aim(n->conn, address_now(n), n->addresses.master_only);
}

void redis_node_use(struct redis_node *n, const struct redis_addresses *a)
{
	struct redis_addresses before = n->addresses;
	const struct redis_address *was = before.n ? &before.address[n->address_at] : NULL;
	unsigned at = 0;

	/* Of a name's addresses one is as good as another; of masters the first is the best. */
	for (unsigned i = 0; was && i < a->n && !a->master_only; i++)
		if (redis_address_eq(was, &a->address[i]))
			at = i;
	n->addresses = *a;
	n->address_at = at;
	if (redis_conn_use(n->conn, address_now(n), a->master_only)) {
		if (n->health != HEALTH_AWAY) {
			set_health(n, HEALTH_AWAY);
			tell_away(n, "it has moved", NULL);
		}
		drop_all(n, clock_read());
	}
}

static const struct redis_conn_events conn_events = { on_ready, on_lost, on_failed, on_reply };

/* ---- deadlines ---- */

#define TOO_LATE      "it does not answer within redis.timeout"
#define TOO_LATE_HINT "see its latency (redis-cli --latency), or raise redis.timeout"

static void expire(struct redis_node *n, struct now now)
{
	while (n->first && n->first->taken_at + n->patience <= now.steady) {
		struct node_call *c = n->first;
		redis_count(&n->stats->timed_out, c->asked.plan_n);
		call_failed(n, false, TOO_LATE, TOO_LATE_HINT, now.steady);
		end_call(n, c, false, now);
	}
	while (n->asks && n->asks->at + n->patience <= now.steady) {
		call_failed(n, false, TOO_LATE, TOO_LATE_HINT, now.steady);
		ask_give_up(n, n->asks);
	}
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_node *n = timer->data;
	struct now now = clock_read();
	expire(n, now);
	if (n->health == HEALTH_BROKEN && !n->fresh)
		fail_all_unsent(n, now);
	if (n->sent_n && n->sent[n->sent_at].at + n->hang_after <= now.steady) {
		redis_conn_give_up(n->conn, "it hangs");
	} else if (redis_conn_is_ready(n->conn) && !n->probes && n->probe_at <= now.steady) {
		if (n->health == HEALTH_BROKEN || now.steady - n->heard_at >= IDLE_ASK_EVERY)
			send_probe(n, now.steady);
		else
			n->probe_at = n->heard_at + IDLE_ASK_EVERY;
	}
	set_timer(n, now.steady);
}

/* ---- what the owner calls ---- */

bool redis_node_takes(const struct redis_node *n)
{
	if (n->fresh)
		return true;
	/* While it is being tried, one call is enough: the others need not wait to learn. */
	return window(n) > 0 && !(n->health == HEALTH_TRYING && n->window_n);
}

bool redis_node_is_well(const struct redis_node *n)
{
	return n->health == HEALTH_WELL;
}

bool redis_node_is_idle(const struct redis_node *n)
{
	return !n->first && !n->asks;
}

const struct redis_address *redis_node_address(const struct redis_node *n)
{
	return address_now(n);
}

void redis_node_give(struct redis_node *n, struct node_call *c)
{
	list_add(n, c);
	queue_add(n, c);
	set_timer(n, clock_steady()); /* it may have begun before */
}

void redis_node_send(struct redis_node *n)
{
	if (n->unsent && n->window_n < window(n)) {
		usec_t now = clock_steady();
		send_gathered(n, now);
		set_timer(n, now);
	}
	redis_conn_flush(n->conn);
}

bool redis_node_ask(struct redis_node *n, struct node_ask *a, unsigned argc, const char *argv[],
	size_t argv_bytes[])
{
	usec_t now = clock_steady();

	if (window(n) == 0 || n->sent_n > SENT_MAX - SPARE || now < n->asks_from)
		return false;
	if ((a->asking && !send_asking(n, now)) ||
		!redis_conn_send(n->conn, argc, argv, argv_bytes))
		return false;
	ring_add(n, (struct sent){ .kind = KIND_ASK, .ask = a, .at = now });
	if (!a->at)
		a->at = now;
	ask_add(n, a);
	set_timer(n, now);
	return true;
}

void redis_node_end_all(struct redis_node *n)
{
	struct now now = clock_read();

	while (n->first)
		fail_call(n, n->first, now);
	give_up_all_asks(n);
}

/* Timers come up to a millisecond late, and the answer has to be out by then. */
usec_t redis_node_patience(usec_t timeout)
{
	usec_t margin = timeout / 10 > USEC_PER_MSEC ? timeout / 10 : USEC_PER_MSEC;

	return margin < timeout / 2 ? timeout - margin : timeout / 2;
}

void redis_node_set_timeout(struct redis_node *n, usec_t timeout)
{
	n->timeout = timeout;
	n->patience = redis_node_patience(timeout);
	n->hang_after = HANG_TIMEOUTS * timeout;
	if (n->hang_after < HANG_LEAST)
		n->hang_after = HANG_LEAST;
}

struct redis_node *redis_node_new(const struct redis_settings *settings, bool one_of_many,
	struct redis_stats *stats, struct node_calls *pool, const struct redis_node_events *events,
	void *owner, struct ev_loop *loop)
{
	struct redis_node *n = calloc(1, sizeof *n);
	if (!n)
		return NULL;
	memcpy(n->prefix, settings->prefix, sizeof n->prefix);
	n->one_of_many = n->fresh = one_of_many;
	n->stats = stats;
	n->pool = pool;
	n->events = *events;
	n->owner = owner;
	n->loop = loop;
	redis_node_set_timeout(n, settings->timeout);
	n->probe_at = INT64_MAX;
	n->seed = (uint64_t)clock_steady() ^ (uint64_t)(uintptr_t)n;
	ev_init(&n->timer, on_timer);
	/* After the sockets: nothing is late that lies there unread. */
	ev_set_priority(&n->timer, EV_MINPRI);
	n->timer.data = n;

	struct redis_conn_settings c = {
		.db = settings->db,
		.open_within = n->hang_after > OPEN_LEAST ? n->hang_after : OPEN_LEAST,
		.tls = settings->tls,
		.script = redis_script,
		.script_bytes = redis_script_bytes,
		.sha1 = redis_script_sha1,
		.reply_max = NODE_ASK_REPLY_MAX,
	};
	memcpy(c.username, settings->username, sizeof c.username);
	memcpy(c.password, settings->password, sizeof c.password);
	n->conn = redis_conn_new(&c, &conn_events, n, loop);
	explicit_bzero(&c, sizeof c);
	if (!n->conn) {
		free(n);
		return NULL;
	}
	return n;
}

void redis_node_free(struct redis_node *n)
{
	if (!n)
		return;
	assert(!n->first && !n->asks);
	redis_conn_free(n->conn);
	ev_timer_stop(n->loop, &n->timer);
	while (n->sent_n) {
		struct sent sent = ring_take(n);
		if (sent.call)
			put_back_if_done(n, sent.call);
	}
	free(n);
}
