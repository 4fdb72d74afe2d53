#include "store/redis_node_inside.h"

#include "store/redis_conn.h"
#include "store/redis_hints.h"
#include "store/redis_script.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { FAILURES_MAX = 3 }; /* in a row, and the breaker opens */
static_assert((int)REDIS_REPLY_MAX < (int)NODE_ASK_REPLY_MAX, "the largest reply is within bounds");

/* A server that says nothing for so long (or some timeouts) hangs. */
#define HANG_LEAST      (100 * USEC_PER_MSEC)
#define HANG_TIMEOUTS   5
#define OPEN_LEAST      (1 * USEC_PER_SEC)
#define TELL_EVERY      (100 * USEC_PER_MSEC)
#define TOO_LARGE_PAUSE (10 * USEC_PER_SEC)
#define TOO_LARGE_HINT  "a value in the tiers hash may be no tier's name; HSTRLEN tells its length"

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
void node_set_timer(struct redis_node *n, usec_t now)
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

/* ---- health ---- */

void node_set_health(struct redis_node *n, enum health h)
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
	n->events.away(n->owner, n, why, hint, redis_node_address(n));
}

void node_probe_later(struct redis_node *n, usec_t now)
{
	n->probe_at = now + redis_backoff(&n->probe_delay, &n->seed);
}

static void open_breaker(struct redis_node *n, const char *why, const char *hint, usec_t now)
{
	if (n->health == HEALTH_WELL)
		redis_count(&n->stats->breaks, 1);
	node_set_health(n, HEALTH_BROKEN);
	node_probe_later(n, now);
	tell_away(n, why, hint);
}

void node_failed(struct redis_node *n, bool is_error, const char *why, const char *hint, usec_t now)
{
	n->failures++;
	if (is_error) {
		n->must_prove = true;
		n->refused_at = now;
	}
	if (n->health == HEALTH_WELL && n->failures < FAILURES_MAX)
		return;
	if (n->health >= HEALTH_TRYING)
		open_breaker(n, why, hint, now);
	else
		tell_away(n, why, hint);
}

void node_went_well(struct redis_node *n)
{
	redis_conn_is_good(n->conn);
	n->failures = 0;
	n->must_prove = false;
	n->probe_delay = 0;
	if (n->heard_at - n->told_at >= TELL_EVERY) {
		n->told_at = n->heard_at;
		n->events.works(n->owner, n);
	}
	if (n->health == HEALTH_TRYING)
		node_set_health(n, HEALTH_WELL);
}

/* ---- the connection comes and goes ---- */

/* What was sent may have been charged, and is not sent again. */
static void drop_all(struct redis_node *n, struct now now)
{
	while (n->sent_n) {
		struct sent sent = node_ring_take(n);
		struct node_call *c = sent.call;
		if (!c)
			continue;
		if (sent.kind == KIND_CHECKS && c->waits)
			node_call_fail(n, c, now);
		else
			node_call_put_back(n, c);
	}
	node_fail_unsent(n, now);
	node_give_up_asks(n);
}

static void on_ready(void *owner)
{
	struct redis_node *n = owner;
	usec_t now = clock_steady();

	redis_count(&n->stats->connects, 1);
	n->heard_at = now;
	n->knows_clock = false;
	node_set_health(n, HEALTH_BROKEN);
	node_send_probe(n, now);
	node_set_timer(n, now);
}

static void on_lost(void *owner, const char *why)
{
	struct redis_node *n = owner;
	struct now now = clock_read();
	/* Whoever asked may have given up since: it is what was asked that counts. */
	bool for_ask = redis_conn_was_too_large(n->conn) && n->sent_n &&
		       n->sent[n->sent_at].kind == KIND_ASK;
	const char *hint = redis_error_is_of_replica(why) ? node_error_hint(n, why) : NULL;

	if (for_ask)
		n->asks_from = now.steady + TOO_LARGE_PAUSE;
	node_set_health(n, HEALTH_AWAY);
	tell_away(n, why, for_ask ? TOO_LARGE_HINT : hint);
	drop_all(n, now);
}

/* The next address in the list, when it has been tried in vain. */
static void on_failed(void *owner, const char *why, const char *hint)
{
	struct redis_node *n = owner;

	redis_count(&n->stats->connects_failed, 1);
	tell_away(n, why, hint);
	node_fail_unsent(n, clock_read());
	n->address_at = (n->address_at + 1) % n->addresses.n;
	redis_conn_aim(n->conn, redis_node_address(n), n->addresses.master_only);
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
	if (redis_conn_use(n->conn, redis_node_address(n), a->master_only)) {
		n->must_prove = false; /* that error was another's */
		if (n->health != HEALTH_AWAY) {
			node_set_health(n, HEALTH_AWAY);
			tell_away(n, "it has moved",
				a->master_only
					? "a failover: by the sentinels this is the master now"
					: "its name has this address now");
		}
		drop_all(n, clock_read());
	}
}

static const struct redis_conn_events conn_events = { on_ready, on_lost, on_failed, node_on_reply };

/* ---- deadlines ---- */

#define TOO_LATE "it does not answer within redis.timeout"

static void expire(struct redis_node *n, struct now now)
{
	while (n->first && n->first->taken_at + n->patience <= now.steady) {
		struct node_call *c = n->first;
		redis_count(&n->stats->timed_out, c->asked.plan_n);
		node_failed(n, false, TOO_LATE, TOO_LATE_HINT, now.steady);
		node_call_end(n, c, false, now);
	}
	while (n->asks && n->asks->at + n->patience <= now.steady) {
		node_failed(n, false, TOO_LATE, TOO_LATE_HINT, now.steady);
		node_ask_give_up(n, n->asks);
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
		node_fail_unsent(n, now);
	if (n->sent_n && n->sent[n->sent_at].at + n->hang_after <= now.steady) {
		redis_conn_give_up(n->conn, "it hangs");
	} else if (redis_conn_is_ready(n->conn) && !n->probes && n->probe_at <= now.steady) {
		if (n->health == HEALTH_BROKEN || now.steady - n->heard_at >= IDLE_ASK_EVERY)
			node_send_probe(n, now.steady);
		else
			n->probe_at = n->heard_at + IDLE_ASK_EVERY;
	}
	node_set_timer(n, now.steady);
}

/* ---- what the owner calls ---- */

bool redis_node_takes(const struct redis_node *n)
{
	if (n->fresh)
		return true;
	/* While it is being tried, one call is enough: the others need not wait to learn. */
	return node_window(n) > 0 && !(n->health == HEALTH_TRYING && n->window_n);
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
	return n->addresses.n ? &n->addresses.address[n->address_at] : NULL;
}

void redis_node_give(struct redis_node *n, struct node_call *c)
{
	node_list_add(n, c);
	node_queue_add(n, c);
	node_set_timer(n, clock_steady()); /* it may have begun before */
}

void redis_node_send(struct redis_node *n)
{
	if (n->unsent && node_may_send(n)) {
		usec_t now = clock_steady();
		node_send_gathered(n, now);
		node_set_timer(n, now);
	}
	redis_conn_flush(n->conn);
}

bool redis_node_ask(struct redis_node *n, struct node_ask *a, unsigned argc, const char *argv[],
	size_t argv_bytes[])
{
	usec_t now = clock_steady();

	if (node_window(n) == 0 || n->sent_n > SENT_MAX - SPARE_FOR_CHECKS || now < n->asks_from)
		return false;
	if ((a->asking && !node_send_asking(n, now)) ||
		!redis_conn_send(n->conn, argc, argv, argv_bytes))
		return false;
	node_ring_add(n, (struct sent){ .kind = KIND_ASK, .ask = a, .at = now });
	if (!a->at)
		a->at = now;
	node_ask_add(n, a);
	node_set_timer(n, now);
	return true;
}

void redis_node_end_all(struct redis_node *n)
{
	struct now now = clock_read();

	while (n->first)
		node_call_fail(n, n->first, now);
	node_give_up_asks(n);
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
		struct sent sent = node_ring_take(n);
		if (sent.call)
			node_call_put_back(n, sent.call);
	}
	free(n);
}
