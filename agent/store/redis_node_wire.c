#include "store/redis_node_inside.h"

#include "base/log.h"
#include "store/redis_conn.h"
#include "store/redis_hints.h"
#include "store/redis_map.h"
#include "store/redis_script.h"

#include <assert.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

enum {
	/* Calls under way at once; what comes then gathers. With 1 to 4 Redis has to wait for
	 * calls, with 32 and all of what comes in small ones it has four times as many to do
	 * (measured with three limits a check: 8 was best, by a tenth and by half). */
	WINDOW = 8,
	WINDOW_OF_MANY = 64, /* each carries what is of one slot */
	/* The script may be gone again when the call comes behind it: somebody flushes scripts all
	 * the time, or many agents find it missing after a restart. */
	RESENT_MAX = 5,
};

#define ERROR_LOG_EVERY (10 * USEC_PER_SEC)
#define CLOCK_STEP      USEC_PER_SEC /* by less it is set by and by */

/* ---- sending ---- */

void node_ring_add(struct redis_node *n, struct sent sent)
{
	assert(n->sent_n < SENT_MAX);
	n->sent[(n->sent_at + n->sent_n++) % SENT_MAX] = sent;
	n->window_n += sent.kind == KIND_CHECKS;
	n->probes += sent.kind == KIND_PROBE;
	if (sent.call)
		sent.call->sent = true;
}

struct sent node_ring_take(struct redis_node *n)
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
	node_ring_add(n, (struct sent){ .kind = kind, .call = c, .at = now });
	return true;
}

bool node_send_asking(struct redis_node *n, usec_t now)
{
	const char *argv[] = { "ASKING" };
	size_t bytes[] = { 6 };

	if (!redis_conn_send(n->conn, 1, argv, bytes))
		return false;
	node_ring_add(n, (struct sent){ .kind = KIND_ASKING, .at = now });
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
	node_ring_add(n, (struct sent){ .kind = KIND_SCRIPT, .at = now });
	n->script_is_sent = true;
	return true;
}

void node_send_probe(struct redis_node *n, usec_t now)
{
	if (n->probes)
		return;
	n->probe.resent = 0;
	n->probe_at = INT64_MAX;
	(void)send_call(n, KIND_PROBE, &n->probe, now);
}

unsigned node_window(const struct redis_node *n)
{
	if (n->health == HEALTH_WELL)
		return n->one_of_many ? WINDOW_OF_MANY : WINDOW;
	return n->health == HEALTH_TRYING ? 1 : 0;
}

/* (Two commands, where ASKING comes first.) */
bool node_may_send(const struct redis_node *n)
{
	return n->window_n < node_window(n) && n->sent_n + 2 <= SENT_MAX - SPARE_FOR_NODE;
}

void node_send_gathered(struct redis_node *n, usec_t now)
{
	while (n->unsent && node_may_send(n)) {
		struct node_call *c = n->unsent;
		if ((c->asking && !node_send_asking(n, now)) || !send_call(n, KIND_CHECKS, c, now))
			return; /* `lost` follows */
		redis_count(&n->stats->calls, 1);
		redis_count(&n->stats->checks, c->asked.plan_n);
		node_queue_remove(n, c);
	}
}

/* ---- replies ---- */

/* The call had no effect: once more, after the script. false: it is not to be sent again. */
static bool call_again(struct redis_node *n, struct sent sent, usec_t now)
{
	struct node_call *c = sent.call;
	bool wanted = sent.kind == KIND_PROBE || c->waits;

	if (c->resent == RESENT_MAX || !wanted || !send_script(n, now))
		return false;
	c->resent++;
	if (c->asking && !node_send_asking(n, now))
		return false;
	return send_call(n, sent.kind, c, now);
}

static void log_error_reply(struct redis_node *n, const char *error, const char *hint)
{
	char text[REDIS_ADDRESS_TEXT_MAX];
	const struct redis_address *a = redis_node_address(n);

	log_warning_every(ERROR_LOG_EVERY, "redis_error", KV_Z("error", error),
		KV_Z("server", a ? redis_address_text(a, text) : ""), KV_Z("hint", hint));
}

/* Who is a replica was the master as he was connected to, where sentinels name him. */
const char *node_error_hint(const struct redis_node *n, const char *error)
{
	const char *hint = redis_error_is_of_replica(error) && n->addresses.master_only
				   ? "a failover may be under way"
				   : redis_error_hint(error);

	return hint ? hint : REDIS_SEE_LOG;
}

/* It told the time after it was asked, and before now. */
static void look_at_clock(struct redis_node *n, const struct sent *sent, usec_t steady)
{
	usec_t told = sent->call->asked.now.utc, least = told - steady, most = told - sent->at;
	bool stepped = n->knows_clock &&
		       (least > n->ahead_most + CLOCK_STEP || most < n->ahead_least - CLOCK_STEP);

	n->knows_clock = true;
	n->ahead_least = least;
	n->ahead_most = most;
	if (stepped)
		n->events.stepped(n->owner, n);
}

static void on_probe_reply(struct redis_node *n, const struct sent *sent, bool good,
	const char *why, const char *hint, struct now now)
{
	bool in_time = now.steady - sent->at <= n->timeout;

	if (good && in_time) {
		/* Where nobody asks, two late ones with good ones between are not in a row. */
		if (n->health == HEALTH_WELL && !n->must_prove)
			n->failures = 0;
		if (n->health == HEALTH_BROKEN)
			node_set_health(n, n->must_prove ? HEALTH_TRYING : HEALTH_WELL);
		/* Perhaps nobody asks here any more. */
		if (n->health == HEALTH_TRYING && !n->window_n &&
			n->events.has_worked(n->owner, n, n->refused_at)) {
			n->must_prove = false;
			node_set_health(n, HEALTH_WELL);
		}
		n->probe_at = now.steady + IDLE_ASK_EVERY;
		return;
	}
	if (good) {
		why = "it answers later than redis.timeout";
		hint = TOO_LATE_HINT; /* so it can be reached */
	}
	node_failed(n, !good, why, hint, now.steady);
	if (n->health == HEALTH_WELL)
		n->probe_at = now.steady + IDLE_ASK_EVERY;
	else if (n->probe_at == INT64_MAX)
		node_probe_later(n, now.steady);
}

static void on_checks_reply(struct redis_node *n, const struct sent *sent, bool good,
	const char *why, const char *hint, struct now now)
{
	struct node_call *c = sent->call;

	if (!c->waits) { /* it came too late; the failure was counted then */
		node_call_put_back(n, c);
		return;
	}
	if (!good) {
		node_failed(n, true, why, hint, now.steady);
		node_call_fail(n, c, now);
		return;
	}
	node_went_well(n);
	redis_count(&n->stats->answered, c->asked.plan_n);
	node_call_end(n, c, true, now);
}

/* It has done nothing, and says who would. */
static bool call_goes_on(struct redis_node *n, struct node_call *c, const char *error)
{
	if (!c->waits || !n->events.redirected)
		return false;
	node_list_remove(n, c);
	if (n->events.redirected(n->owner, n, c, error)) {
		node_went_well(n);
		return true;
	}
	node_list_add(n, c);
	return false;
}

/* Nobody waits for the call any more, so nobody follows: but that is no error of the node's. */
static bool is_moved_late(const struct redis_node *n, const struct sent *sent, const char *error)
{
	struct redis_address to;
	uint16_t slot;

	return sent->kind == KIND_CHECKS && !sent->call->waits && n->events.redirected &&
	       redis_redirect_read(error, NULL, &slot, &to) != REDIRECT_NONE;
}

/* Behind one address there may be another one by now, to which only those come who connect anew: a
 * balancer leaves alone what it has carried to the former master. */
static bool is_left_behind(const struct redis_node *n, const char *error)
{
	return !n->one_of_many && n->health != HEALTH_WELL && redis_error_is_of_replica(error);
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
		hint = node_error_hint(n, error);
		if (sent->call && strncmp(error, "NOSCRIPT", 8) == 0 &&
			call_again(n, *sent, now.steady))
			return;
		if (sent->kind == KIND_CHECKS && call_goes_on(n, sent->call, error))
			return;
		if (!is_moved_late(n, sent, error))
			log_error_reply(n, error, hint);
	}
	/* What did not get there shows in the call that follows it. */
	if (sent->kind == KIND_SCRIPT || sent->kind == KIND_ASKING)
		return;
	bool good = !is_error && r->type == REDIS_REPLY_STRING &&
		    redis_call_read(&sent->call->asked, r->str, (size_t)r->len);
	if (good)
		look_at_clock(n, sent, now.steady);
	else if (!is_error)
		why = "a reply that the script does not give";
	if (sent->kind == KIND_PROBE)
		on_probe_reply(n, sent, good, why, hint, now);
	else
		on_checks_reply(n, sent, good, why, hint, now);
	if (!good && !is_error)
		redis_conn_give_up(n->conn, why); /* who knows what the next one belongs to */
	else if (is_error && is_left_behind(n, error))
		redis_conn_give_up(n->conn, why);
}

void node_on_reply(void *owner, const struct redisReply *r)
{
	struct redis_node *n = owner;
	struct sent sent = node_ring_take(n);
	struct now now = clock_read();

	n->heard_at = now.steady;
	if (sent.kind == KIND_CHECKS)
		histogram_add(&n->stats->call_time, now.steady - sent.at, 1);
	if (sent.kind != KIND_ASK)
		on_script_reply(n, &sent, r, now);
	else if (sent.ask)
		node_ask_end(n, sent.ask, r);
	node_set_timer(n, now.steady);
}
