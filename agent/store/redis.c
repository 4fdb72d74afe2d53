#include "store/redis.h"

#include "base/log.h"
#include "limit/fallback.h"
#include "store/deny_cache.h"
#include "store/redis_call.h"
#include "store/redis_conn.h"
#include "store/redis_script.h"

#include <assert.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	CALLS_MAX = 64, /* that gather, are under way, or are waited for by nobody any more */
	/* Calls under way at once; what comes then gathers. With 1 to 4 Redis has to wait for
	 * calls, with 32 and all of what comes in small ones it has four times as many to do
	 * (measured with three limits a check: 8 was best, by a tenth and by half). */
	WINDOW = 8,
	SENT_MAX = 2 * CALLS_MAX,
	FAILURES_MAX = 3, /* in a row, and the breaker opens */
};

/* A server that says nothing for so long (or some timeouts) hangs. */
#define HANG_LEAST      (100 * USEC_PER_MSEC)
#define HANG_TIMEOUTS   5
#define OPEN_LEAST      (1 * USEC_PER_SEC)
#define IDLE_ASK_EVERY  (1 * USEC_PER_SEC)
#define ERROR_LOG_EVERY (10 * USEC_PER_SEC)

enum health {
	HEALTH_AWAY,   /* no connection */
	HEALTH_BROKEN, /* the breaker is open: only probes are sent */
	HEALTH_TRYING, /* probes come back; the next call of checks, alone, has to show that it
			  works */
	HEALTH_WELL,
};

/* A call of the script. With checks it is in the list of those that wait, by deadline, until they
 * are answered, and in the ring of what was sent until its reply has come; it is free when it is in
 * neither. */
struct call {
	struct redis_call asked;
	struct call *next, *before; /* the list, or (next alone) the idle ones */
	usec_t taken_at;            /* the first of its checks: the deadline of all */
	bool waits, sent, resent;
};

enum kind { KIND_CHECKS, KIND_PROBE, KIND_SCRIPT };

struct sent {
	enum kind kind;
	struct call *call; /* KIND_SCRIPT: NULL */
	usec_t at;
};

struct redis_store {
	struct store base;
	struct redis_settings settings;
	struct redis_stats stats;
	struct redis_hub *hub;
	struct memory_store *local;
	struct deny_cache *denied; /* what Redis would deny again; owned */
	struct ev_loop *loop;
	struct redis_conn *conn;
	usec_t patience, hang_after;

	struct call *idle;
	unsigned calls, waiting_checks;
	struct call *first, *last; /* that wait; those not sent yet are the last of them */
	struct call *unsent;       /* the first of these */
	struct sent sent[SENT_MAX];
	unsigned sent_at, sent_n, window_n; /* window_n: of kind KIND_CHECKS */

	enum health health;
	bool must_prove; /* it opened for an error in a reply, which probes do not meet */
	unsigned failures;
	unsigned probes;     /* in the ring */
	bool script_is_sent; /* in the ring */
	usec_t probe_at, probe_delay, heard_at;
	uint64_t seed;

	struct redis_addresses addresses;
	unsigned address_at;
	bool settling; /* what plan->done takes now is refused */

	struct redis_listener listener;
	ev_async bell;
	ev_prepare prepare;
	ev_timer timer;
	usec_t timer_at;
	struct call probe;
};

static void count(_Atomic(uint64_t) *counter, uint64_t n)
{
	uint64_t was = atomic_load_explicit(counter, memory_order_relaxed);
	atomic_store_explicit(counter, was + n, memory_order_relaxed);
}

/* ---- time: one timer for all that is to come ---- */

static usec_t due(const struct redis_store *s)
{
	usec_t at = INT64_MAX;

	if (s->first)
		at = s->first->taken_at + s->patience;
	if (s->sent_n && s->sent[s->sent_at].at + s->hang_after < at)
		at = s->sent[s->sent_at].at + s->hang_after;
	if (redis_conn_is_ready(s->conn) && !s->probes && s->probe_at < at)
		at = s->probe_at;
	return at;
}

/* libev counts from when this turn of the loop began: it comes a little early then, and is set
 * again. */
static void set_timer(struct redis_store *s, usec_t now)
{
	usec_t at = due(s);

	if (at == INT64_MAX || (ev_is_active(&s->timer) && s->timer_at <= at))
		return;
	usec_t after = at > now ? at - now : 0;
	ev_timer_stop(s->loop, &s->timer);
	ev_timer_set(&s->timer, (double)after / (double)USEC_PER_SEC, 0);
	ev_timer_start(s->loop, &s->timer);
	s->timer_at = at;
}

/* ---- calls ---- */

static struct call *call_get(struct redis_store *s)
{
	struct call *c = s->idle;

	if (c) {
		s->idle = c->next;
	} else {
		if (s->calls == CALLS_MAX || !(c = malloc(sizeof *c)))
			return NULL;
		s->calls++;
	}
	redis_call_clear(&c->asked);
	c->waits = c->sent = c->resent = false;
	return c;
}

static void call_put_back_if_done(struct redis_store *s, struct call *c)
{
	if (c->waits || c->sent || c == &s->probe)
		return;
	c->next = s->idle;
	s->idle = c;
}

static void list_append(struct redis_store *s, struct call *c)
{
	c->waits = true;
	c->next = NULL;
	c->before = s->last;
	if (s->last)
		s->last->next = c;
	else
		s->first = c;
	s->last = c;
	if (!s->unsent)
		s->unsent = c;
}

static void list_remove(struct redis_store *s, struct call *c)
{
	if (s->unsent == c)
		s->unsent = c->next;
	if (c->before)
		c->before->next = c->next;
	else
		s->first = c->next;
	if (c->next)
		c->next->before = c->before;
	else
		s->last = c->before;
	c->waits = false;
}

/* ---- answers ---- */

static void fall_back(struct redis_store *s, struct plan *plan, struct now now)
{
	plan_fall_back(plan);
	plan->now = now;
	(void)store_take(memory_store_base(s->local), plan, now);
}

static void warm(struct redis_store *s, const struct plan *plan, struct now now)
{
	struct plan heard;

	if (plan_mirror(plan, &heard))
		memory_store_mirror(s->local, &heard, now);
}

/* Ends the waiting of a call: by the failure policy, or (`answered`) as its plans now say. Its
 * place may be taken only after: plan->done may take again. */
static void call_finish(struct redis_store *s, struct call *c, bool answered, struct now now)
{
	assert(c->waits);
	list_remove(s, c);
	for (unsigned i = 0; i < c->asked.plan_n; i++) {
		struct plan *plan = c->asked.plan[i];
		c->asked.plan[i] = NULL;
		s->waiting_checks--;
		if (answered) {
			warm(s, plan, now);
			deny_cache_note(s->denied, plan, c->taken_at);
		} else {
			fall_back(s, plan, now);
		}
		plan->done(plan);
	}
}

static void finish_all_unsent(struct redis_store *s, struct now now)
{
	/* What comes meanwhile is not gathered: nobody is asked. */
	while (s->unsent) {
		struct call *c = s->unsent;
		count(&s->stats.failed, c->asked.plan_n);
		call_finish(s, c, false, now);
		call_put_back_if_done(s, c);
	}
}

/* ---- health ---- */

static const struct redis_address *address_now(const struct redis_store *s)
{
	return s->addresses.n ? &s->addresses.address[s->address_at] : NULL;
}

static void set_health(struct redis_store *s, enum health h)
{
	s->health = h;
	atomic_store_explicit(&s->stats.degraded, h != HEALTH_WELL, memory_order_relaxed);
	if (h == HEALTH_WELL) {
		s->failures = 0;
		redis_hub_back(s->hub, &s->listener);
	}
}

static void tell_away(struct redis_store *s, const char *why, const char *hint)
{
	redis_hub_away(s->hub, &s->listener, why, hint, address_now(s));
	redis_hub_ask_again(s->hub);
}

static void probe_later(struct redis_store *s, usec_t now)
{
	s->probe_at = now + redis_backoff(&s->probe_delay, &s->seed);
}

static void open_breaker(struct redis_store *s, const char *why, const char *hint, usec_t now)
{
	if (s->health == HEALTH_WELL)
		count(&s->stats.breaks, 1);
	set_health(s, HEALTH_BROKEN);
	probe_later(s, now);
	tell_away(s, why, hint);
}

/* A call with checks, or the store's own, met an error or its deadline. */
static void call_failed(
	struct redis_store *s, bool is_error, const char *why, const char *hint, usec_t now)
{
	s->failures++;
	if (is_error)
		s->must_prove = true;
	if (s->health == HEALTH_WELL && s->failures < FAILURES_MAX)
		return;
	if (s->health >= HEALTH_TRYING)
		open_breaker(s, why, hint, now);
	else
		tell_away(s, why, hint);
}

static void call_went_well(struct redis_store *s)
{
	redis_conn_is_good(s->conn);
	s->failures = 0;
	s->must_prove = false;
	s->probe_delay = 0;
	if (s->health == HEALTH_TRYING)
		set_health(s, HEALTH_WELL);
}

/* ---- sending ---- */

static void ring_add(struct redis_store *s, enum kind kind, struct call *c, usec_t now)
{
	assert(s->sent_n < SENT_MAX);
	s->sent[(s->sent_at + s->sent_n++) % SENT_MAX] = (struct sent){ kind, c, now };
	s->window_n += kind == KIND_CHECKS;
	s->probes += kind == KIND_PROBE;
	if (c)
		c->sent = true;
}

static struct sent ring_take(struct redis_store *s)
{
	struct sent sent = s->sent[s->sent_at];

	assert(s->sent_n);
	s->sent_at = (s->sent_at + 1) % SENT_MAX;
	s->sent_n--;
	s->window_n -= sent.kind == KIND_CHECKS;
	s->probes -= sent.kind == KIND_PROBE;
	if (sent.kind == KIND_SCRIPT)
		s->script_is_sent = false;
	if (sent.call)
		sent.call->sent = false;
	return sent;
}

static bool send_call(struct redis_store *s, enum kind kind, struct call *c, usec_t now)
{
	const char *argv[REDIS_CALL_ARGS];
	size_t bytes[REDIS_CALL_ARGS];
	unsigned n = redis_call_args(
		&c->asked, s->settings.prefix, redis_script_sha1, NULL, argv, bytes);

	if (!redis_conn_send(s->conn, n, argv, bytes))
		return false;
	ring_add(s, kind, c, now);
	return true;
}

static bool send_script(struct redis_store *s, usec_t now)
{
	const char *argv[] = { "SCRIPT", "LOAD", redis_script };
	size_t bytes[] = { 6, 4, redis_script_bytes };

	if (s->script_is_sent)
		return true;
	if (!redis_conn_send(s->conn, 3, argv, bytes))
		return false;
	count(&s->stats.scripts_sent, 1);
	ring_add(s, KIND_SCRIPT, NULL, now);
	s->script_is_sent = true;
	return true;
}

/* The call without checks: Redis tells the time. */
static void send_probe(struct redis_store *s, usec_t now)
{
	if (s->probes)
		return;
	redis_call_clear(&s->probe.asked);
	s->probe.resent = false;
	s->probe_at = INT64_MAX;
	(void)send_call(s, KIND_PROBE, &s->probe, now);
}

static unsigned window(const struct redis_store *s)
{
	return s->health == HEALTH_WELL ? WINDOW : s->health == HEALTH_TRYING ? 1 : 0;
}

static void send_gathered(struct redis_store *s, usec_t now)
{
	while (s->unsent && s->window_n < window(s)) {
		struct call *c = s->unsent;
		if (!send_call(s, KIND_CHECKS, c, now))
			return; /* `lost` follows */
		count(&s->stats.calls, 1);
		count(&s->stats.checks, c->asked.plan_n);
		s->unsent = c->next;
	}
}

/* ---- replies ---- */

/* The call had no effect: once more, after the script. false: it is not to be sent again. */
static bool call_again(struct redis_store *s, struct sent sent, usec_t now)
{
	struct call *c = sent.call;
	bool wanted = sent.kind == KIND_PROBE || c->waits;

	if (c->resent || !wanted || !send_script(s, now))
		return false;
	c->resent = true;
	return send_call(s, sent.kind, c, now);
}

static void log_error_reply(struct redis_store *s, const char *error, const char *hint)
{
	char text[REDIS_ADDRESS_TEXT_MAX];
	const struct redis_address *a = address_now(s);

	log_warning_every(ERROR_LOG_EVERY, "redis_error", KV_Z("error", error),
		KV_Z("server", a ? redis_address_text(a, text) : ""),
		KV_Z("hint", hint ? hint : "see the log of Redis"));
}

static void on_probe_reply(struct redis_store *s, const struct sent *sent, bool good,
	const char *why, const char *hint, struct now now)
{
	bool in_time = now.steady - sent->at <= s->settings.timeout;

	if (good && in_time) {
		if (s->health == HEALTH_BROKEN)
			set_health(s, s->must_prove ? HEALTH_TRYING : HEALTH_WELL);
		s->probe_at = now.steady + IDLE_ASK_EVERY;
		return;
	}
	if (good)
		why = "it answers later than redis.timeout";
	call_failed(s, !good, why, hint, now.steady);
	if (s->health == HEALTH_WELL)
		s->probe_at = now.steady + IDLE_ASK_EVERY;
	else if (s->probe_at == INT64_MAX)
		probe_later(s, now.steady);
}

static void on_checks_reply(struct redis_store *s, const struct sent *sent, bool good,
	const char *why, const char *hint, struct now now)
{
	struct call *c = sent->call;

	if (!c->waits) { /* it came too late; the failure was counted then */
		call_put_back_if_done(s, c);
		return;
	}
	if (good)
		call_went_well(s);
	else
		call_failed(s, true, why, hint, now.steady);
	count(good ? &s->stats.answered : &s->stats.failed, c->asked.plan_n);
	call_finish(s, c, good, now);
	call_put_back_if_done(s, c);
}

static void on_reply(void *owner, const struct redisReply *r)
{
	struct redis_store *s = owner;
	struct sent sent = ring_take(s);
	struct now now = clock_read();
	const char *why = NULL, *hint = NULL;
	char error[160];

	s->heard_at = now.steady;
	bool is_error = r->type == REDIS_REPLY_ERROR;
	if (is_error) {
		snprintf(error, sizeof error, "%s", r->str);
		why = error;
		hint = redis_error_hint(error);
		if (sent.call && strncmp(error, "NOSCRIPT", 8) == 0 &&
			call_again(s, sent, now.steady))
			return;
		log_error_reply(s, error, hint);
	}
	/* A script that did not get there shows in the call that follows it. */
	if (sent.kind == KIND_SCRIPT)
		return;
	bool good = !is_error && r->type == REDIS_REPLY_STRING &&
		    redis_call_read(&sent.call->asked, r->str, (size_t)r->len);
	if (!good && !is_error)
		why = "a reply that the script does not give";
	if (sent.kind == KIND_PROBE)
		on_probe_reply(s, &sent, good, why, hint, now);
	else
		on_checks_reply(s, &sent, good, why, hint, now);
	if (!good && !is_error)
		redis_conn_give_up(s->conn, why); /* who knows what the next one belongs to */
	set_timer(s, now.steady);
}

/* ---- the connection comes and goes ---- */

/* What was sent may have been charged, and is not sent again. */
static void drop_all(struct redis_store *s, struct now now)
{
	while (s->sent_n) {
		struct sent sent = ring_take(s);
		struct call *c = sent.call;
		if (!c)
			continue;
		if (sent.kind == KIND_CHECKS && c->waits) {
			count(&s->stats.failed, c->asked.plan_n);
			call_finish(s, c, false, now);
		}
		call_put_back_if_done(s, c);
	}
	finish_all_unsent(s, now);
}

static void on_ready(void *owner)
{
	struct redis_store *s = owner;
	usec_t now = clock_steady();

	count(&s->stats.connects, 1);
	s->heard_at = now;
	set_health(s, HEALTH_BROKEN);
	send_probe(s, now);
	set_timer(s, now);
}

static void on_lost(void *owner, const char *why)
{
	struct redis_store *s = owner;

	set_health(s, HEALTH_AWAY);
	tell_away(s, why, NULL);
	drop_all(s, clock_read());
}

/* The next address in the list, when it has been tried in vain. */
static void on_failed(void *owner, const char *why, const char *hint)
{
	struct redis_store *s = owner;

	count(&s->stats.connects_failed, 1);
	tell_away(s, why, hint);
	s->address_at = (s->address_at + 1) % s->addresses.n;
	redis_conn_aim(s->conn, address_now(s), s->addresses.master_only);
}

static void on_bell(struct ev_loop *loop, ev_async *bell, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_store *s = bell->data;
	struct redis_addresses a = redis_hub_addresses(s->hub);
	struct redis_addresses before = s->addresses;
	const struct redis_address *was = before.n ? &before.address[s->address_at] : NULL;
	unsigned at = 0;

	if (a.generation == s->addresses.generation)
		return;
	/* Of a name's addresses one is as good as another; of masters the first is the best. */
	for (unsigned i = 0; was && i < a.n && !a.master_only; i++)
		if (redis_address_eq(was, &a.address[i]))
			at = i;
	s->addresses = a;
	s->address_at = at;
	if (redis_conn_use(s->conn, address_now(s), a.master_only)) {
		if (s->health != HEALTH_AWAY) {
			set_health(s, HEALTH_AWAY);
			tell_away(s, "it has moved", NULL);
		}
		drop_all(s, clock_read());
	}
}

/* ---- the loop ---- */

/* Before the loop sleeps: what came in this turn goes. */
static void on_prepare(struct ev_loop *loop, ev_prepare *prepare, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_store *s = prepare->data;
	if (s->unsent && s->window_n < window(s)) {
		usec_t now = clock_steady();
		send_gathered(s, now);
		set_timer(s, now);
	}
	redis_conn_flush(s->conn);
}

static void expire(struct redis_store *s, struct now now)
{
	while (s->first && s->first->taken_at + s->patience <= now.steady) {
		struct call *c = s->first;
		count(&s->stats.timed_out, c->asked.plan_n);
		call_failed(s, false, "it does not answer within redis.timeout",
			"see its latency (redis-cli --latency), or raise redis.timeout",
			now.steady);
		call_finish(s, c, false, now);
		call_put_back_if_done(s, c);
	}
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_store *s = timer->data;
	struct now now = clock_read();
	expire(s, now);
	if (s->health == HEALTH_BROKEN)
		finish_all_unsent(s, now);
	if (s->sent_n && s->sent[s->sent_at].at + s->hang_after <= now.steady) {
		redis_conn_give_up(s->conn, "it hangs");
	} else if (redis_conn_is_ready(s->conn) && !s->probes && s->probe_at <= now.steady) {
		if (s->health == HEALTH_BROKEN || now.steady - s->heard_at >= IDLE_ASK_EVERY)
			send_probe(s, now.steady);
		else
			s->probe_at = s->heard_at + IDLE_ASK_EVERY;
	}
	set_timer(s, now.steady);
}

/* ---- the store ---- */

static enum store_rc take(struct store *base, struct plan *plan, struct now now)
{
	struct redis_store *s = (struct redis_store *)base;
	unsigned most = window(s);
	if (plan->n == 0) { /* nothing to ask */
		plan_charge(plan, NULL, now);
		plan->now = now;
		return STORE_DONE;
	}
	struct call *c = s->unsent ? s->last : NULL;

	/* While it is being tried, one call is enough: the others need not wait to learn. */
	if (most == 0 || (s->health == HEALTH_TRYING && s->window_n) || s->settling)
		goto refuse;
	/* (What is remembered does not show whether it works again.) */
	if (s->health == HEALTH_WELL && deny_cache_answer(s->denied, plan, now.steady)) {
		count(&s->stats.remembered, 1);
		return STORE_DONE;
	}
	if (!c || !redis_call_add(&c->asked, plan)) {
		c = call_get(s);
		if (!c)
			goto refuse;
		c->taken_at = clock_steady();
		bool added = redis_call_add(&c->asked, plan);
		assert(added);
		(void)added;
		list_append(s, c);
		set_timer(s, c->taken_at);
	}
	s->waiting_checks++;
	return STORE_PENDING;
refuse:
	count(&s->stats.refused, 1);
	fall_back(s, plan, now);
	return STORE_DONE;
}

static void forget(struct store *base)
{
	deny_cache_clear(((struct redis_store *)base)->denied);
}

static void take_fall_back(struct store *base, struct plan *plan, struct now now)
{
	fall_back((struct redis_store *)base, plan, now);
}

unsigned redis_store_waiting(const struct redis_store *s)
{
	return s->waiting_checks;
}

void redis_store_settle(struct redis_store *s)
{
	struct now now = clock_read();

	s->settling = true;
	while (s->first) {
		struct call *c = s->first;
		count(&s->stats.failed, c->asked.plan_n);
		call_finish(s, c, false, now);
		call_put_back_if_done(s, c);
	}
	s->settling = false;
}

static void store_free(struct redis_store *s)
{
	redis_conn_free(s->conn);
	deny_cache_free(s->denied);
	while (s->sent_n) {
		struct sent sent = ring_take(s);
		if (sent.call)
			call_put_back_if_done(s, sent.call);
	}
	for (struct call *c; (c = s->idle);) {
		s->idle = c->next;
		free(c);
	}
	explicit_bzero(&s->settings, sizeof s->settings);
	free(s);
}

static void close_store(struct store *base)
{
	struct redis_store *s = (struct redis_store *)base;

	redis_store_settle(s);
	redis_hub_leave(s->hub, &s->listener);
	ev_async_stop(s->loop, &s->bell);
	ev_prepare_stop(s->loop, &s->prepare);
	ev_timer_stop(s->loop, &s->timer);
	store_free(s);
}

static const struct store_ops redis_ops = {
	.take = take, .fall_back = take_fall_back, .forget = forget, .close = close_store
};
static const struct redis_conn_events conn_events = { on_ready, on_lost, on_failed, on_reply };

/* Timers come up to a millisecond late, and the answer has to be out by then. */
static usec_t patience(usec_t timeout)
{
	usec_t margin = timeout / 10 > USEC_PER_MSEC ? timeout / 10 : USEC_PER_MSEC;

	return margin < timeout / 2 ? timeout - margin : timeout / 2;
}

void redis_store_set_timeout(struct redis_store *s, usec_t timeout)
{
	s->settings.timeout = timeout;
	s->patience = patience(timeout);
	s->hang_after = HANG_TIMEOUTS * timeout;
	if (s->hang_after < HANG_LEAST)
		s->hang_after = HANG_LEAST;
}

struct redis_store *redis_store_new(const struct redis_settings *settings, struct redis_hub *hub,
	struct memory_store *local, struct ev_loop *loop)
{
	struct redis_store *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->base.ops = &redis_ops;
	s->settings = *settings;
	s->hub = hub;
	s->local = local;
	s->loop = loop;
	redis_store_set_timeout(s, settings->timeout);
	s->probe_at = INT64_MAX;
	s->seed = (uint64_t)clock_steady() ^ (uint64_t)(uintptr_t)s;
	atomic_init(&s->stats.degraded, true);

	struct redis_conn_settings c = {
		.db = settings->db,
		.open_within = s->hang_after > OPEN_LEAST ? s->hang_after : OPEN_LEAST,
		.script = redis_script,
		.script_bytes = redis_script_bytes,
		.sha1 = redis_script_sha1,
		.reply_max = 16 * 1024,
	};
	static_assert(REDIS_REPLY_MAX < 16 * 1024 - 1024, "the largest reply is within bounds");
	memcpy(c.username, settings->username, sizeof c.username);
	memcpy(c.password, settings->password, sizeof c.password);
	s->conn = redis_conn_new(&c, &conn_events, s, loop);
	explicit_bzero(&c, sizeof c);
	s->denied = deny_cache_new();
	if (!s->conn || !s->denied) {
		store_free(s);
		return NULL;
	}
	ev_prepare_init(&s->prepare, on_prepare);
	/* After whatever else gathers until the loop sleeps. */
	ev_set_priority(&s->prepare, EV_MINPRI);
	ev_prepare_start(loop, &s->prepare);
	ev_init(&s->timer, on_timer);
	/* After the sockets: nothing is late that lies there unread. */
	ev_set_priority(&s->timer, EV_MINPRI);
	ev_async_init(&s->bell, on_bell);
	ev_async_start(loop, &s->bell);
	s->prepare.data = s->timer.data = s->bell.data = s;
	s->listener = (struct redis_listener){ .loop = loop, .bell = &s->bell };
	redis_hub_listen(hub, &s->listener);
	return s;
}

struct store *redis_store_base(struct redis_store *s)
{
	return &s->base;
}

const struct redis_stats *redis_store_stats(const struct redis_store *s)
{
	return &s->stats;
}
