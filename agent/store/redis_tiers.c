#include "store/redis_tiers.h"

#include "base/log.h"
#include "store/redis_follow.h"
#include "store/redis_hints.h"
#include "store/redis_map.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK           0.25 /* seconds */
#define FORGET_EVERY   (250 * USEC_PER_MSEC)
#define PING_EVERY     (500 * USEC_PER_MSEC)
#define POLL_EVERY     (500 * USEC_PER_MSEC)
#define ANSWER_WITHIN  USEC_PER_SEC
#define REFUSED_ASK    USEC_PER_SEC
#define PROBE_FIRST    USEC_PER_SEC
#define PROBE_MOST     (30 * USEC_PER_SEC)
#define PROBE_WITHIN   (5 * USEC_PER_SEC)
#define COMPLAIN_EVERY (10 * USEC_PER_SEC)

enum { REPLY_MAX = 64 * 1024 };

/* Where Redis itself says what has changed, to who asked for it by CLIENT TRACKING. */
#define INVALIDATE "__redis__:invalidate"

enum watching {
	WATCHING_NOTHING,  /* no connection */
	WATCHING_ID,       /* asked for its number, */
	WATCHING_TRACKING, /* then to be told of changes under that number, */
	WATCHING_WAITS,    /* then for the channels */
	WATCHING_ALL,
	WATCHING_REFUSED, /* the ACL */
};

/* Whether an ACL that refused tracking refuses it still. */
enum probing { PROBING_NOT, PROBING_ASKS, PROBING_REFUSED, PROBING_ALLOWED };

struct redis_tiers {
	struct redis_tiers_settings settings;
	struct redis_hub *hub;
	struct ev_loop *loop;
	struct tier_cache *cache;
	char key[64 + 5]; /* and the channel */
	uint16_t slot;
	struct redis_conn *conn;
	struct redis_follow follow;
	ev_timer tick;

	enum watching watching;
	bool tracking;     /* on this connection */
	bool denied;       /* it is not, as the ACL has it */
	unsigned channels; /* that were confirmed */
	bool changed;      /* and not told yet */
	usec_t forgot_at, asked_at, heard_at, polled_at;

	struct redis_conn *probe; /* idle, but while it asks */
	enum probing probing;
	unsigned probe_answers;
	usec_t probe_at, probe_delay; /* the next one, or the end of this one; 0: none yet */

	_Atomic(bool) there_wanted, was_refused /* and warned of */;
};

/* ---- changes ---- */

static void want_there(struct redis_tiers *t, usec_t now)
{
	t->polled_at = now;
	redis_tiers_want_there(t);
	redis_hub_ring(t->hub);
}

/* A load of many changes does not make every request look everything up again for each of them. */
static void forget(struct redis_tiers *t, usec_t now)
{
	t->changed = now - t->forgot_at < FORGET_EVERY;
	if (t->changed)
		return;
	t->forgot_at = now;
	tier_cache_forget(t->cache);
	want_there(t, now);
	uint64_t n = atomic_load_explicit(t->settings.changes, memory_order_relaxed);
	atomic_store_explicit(t->settings.changes, n + 1, memory_order_relaxed);
}

/* ---- the subscription ---- */

static bool is_text(const redisReply *r, const char *text)
{
	return (r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS) &&
	       (size_t)r->len == strlen(text) && memcmp(r->str, text, (size_t)r->len) == 0;
}

static bool is_refusal(const redisReply *r)
{
	return r->type == REDIS_REPLY_ERROR && strncmp(r->str, "NOPERM", 6) == 0;
}

/* Neither a refusal nor a server that cannot: it is busy, or loads its data. */
static bool passes(const redisReply *r)
{
	return r->type == REDIS_REPLY_ERROR && !is_refusal(r) && strncmp(r->str, "ERR", 3) != 0;
}

static void send(struct redis_tiers *t, enum watching watching, unsigned argc, const char *argv[])
{
	size_t bytes[8];

	for (unsigned i = 0; i < argc; i++)
		bytes[i] = strlen(argv[i]);
	t->watching = watching;
	t->asked_at = clock_steady();
	if (redis_conn_send(t->conn, argc, argv, bytes))
		redis_conn_flush(t->conn);
}

static void ask_for_id(struct redis_tiers *t)
{
	const char *argv[] = { "CLIENT", "ID" };

	t->denied = false;
	send(t, WATCHING_ID, 2, argv);
}

/* To be told here, on this connection, of all that begins like the hash. */
static void track(struct redis_tiers *t, long long id)
{
	char number[24];
	const char *argv[] = { "CLIENT", "TRACKING", "ON", "REDIRECT", number, "BCAST", "PREFIX",
		t->key };

	snprintf(number, sizeof number, "%lld", id);
	send(t, WATCHING_TRACKING, 8, argv);
}

static void subscribe(struct redis_tiers *t)
{
	const char *channel[] = { t->key, INVALIDATE };

	t->watching = WATCHING_WAITS;
	t->channels = 0;
	t->asked_at = clock_steady();
	if (redis_conn_subscribe(t->conn, t->tracking ? 2 : 1, channel))
		redis_conn_flush(t->conn);
}

/* Redis takes the same CLIENT TRACKING only once. */
static void ask_again(struct redis_tiers *t)
{
	if (t->tracking)
		subscribe(t);
	else
		ask_for_id(t);
}

static void refuse(struct redis_tiers *t, const char *error)
{
	t->watching = WATCHING_REFUSED;
	t->asked_at = clock_steady();
	tier_cache_set_watched(t->cache, false);
	redis_tiers_refused(t, error);
}

static void on_subscribed(struct redis_tiers *t, usec_t now)
{
	if (++t->channels < (t->tracking ? 2u : 1u))
		return;
	t->watching = WATCHING_ALL;
	t->probe_delay = t->probe_delay ? t->probe_delay : PROBE_FIRST;
	t->probe_at = now + t->probe_delay;
	t->forgot_at = 0; /* what was missed */
	tier_cache_set_watched(t->cache, true);
	forget(t, now);
	redis_conn_is_good(t->conn);
	log_info("tiers_watched", KV_Z("key", t->key),
		KV_Z("told_by", t->tracking ? "the server" : "PUBLISH alone"));
}

static void on_message(struct redis_tiers *t, const redisReply *r, usec_t now)
{
	/* (One that is subscribed takes no other command: it is asked anew on another connection.)
	 */
	if (r->type == REDIS_REPLY_ERROR) {
		if (t->watching == WATCHING_ALL)
			redis_conn_give_up(t->conn, r->str);
		else
			refuse(t, r->str);
		return;
	}
	if (r->type != REDIS_REPLY_ARRAY || r->elements < 2)
		return; /* the PONG before */
	if (t->watching == WATCHING_WAITS && is_text(r->element[0], "subscribe"))
		on_subscribed(t, now);
	else if (is_text(r->element[0], "message"))
		forget(t, now);
}

static void deny(struct redis_tiers *t, const redisReply *r)
{
	if (!is_refusal(r))
		return;
	t->denied = true;
	redis_tiers_refused(t, r->str);
}

static void on_reply(void *owner, const redisReply *r)
{
	struct redis_tiers *t = owner;

	t->heard_at = clock_steady();
	if (passes(r)) {
		redis_conn_give_up(t->conn, r->str); /* and tried again, from the beginning */
		return;
	}
	switch (t->watching) {
	case WATCHING_NOTHING:
	case WATCHING_REFUSED:
		return;
	case WATCHING_ID:
		deny(t, r);
		if (r->type == REDIS_REPLY_INTEGER)
			track(t, r->integer);
		else
			subscribe(t);
		return;
	case WATCHING_TRACKING: /* servers before Redis 6 cannot */
		deny(t, r);
		t->tracking = is_text(r, "OK");
		subscribe(t);
		return;
	case WATCHING_WAITS:
	case WATCHING_ALL:
		on_message(t, r, t->heard_at);
		return;
	}
}

static void end_probe(struct redis_tiers *t)
{
	t->probing = PROBING_NOT;
	(void)redis_conn_use(t->probe, NULL, false);
}

static void stop_watching(void *owner)
{
	struct redis_tiers *t = owner;

	end_probe(t);
	t->watching = WATCHING_NOTHING;
	tier_cache_set_watched(t->cache, false);
}

static void on_ready(void *owner)
{
	struct redis_tiers *t = owner;

	t->heard_at = clock_steady();
	t->tracking = false;
	ask_for_id(t);
}

static void on_lost(void *owner, const char *why)
{
	struct redis_tiers *t = owner;

	stop_watching(t);
	t->probe_delay = 0;
	atomic_store(&t->was_refused, false); /* it may be another one that comes back */
	log_warning_every(
		COMPLAIN_EVERY, "tiers_not_watched", KV_Z("key", t->key), KV_Z("why", why));
}

static void on_failed(void *owner, const char *why, const char *hint)
{
	struct redis_tiers *t = owner;
	(void)why;
	(void)hint; /* the stores meet the same, and tell */

	stop_watching(t);
	redis_follow_failed(&t->follow);
}

static const struct redis_conn_events conn_events = { on_ready, on_lost, on_failed, on_reply };

/* ---- is tracking allowed by now? ----
 *
 * Who is subscribed may not ask; and a subscription that begins anew has missed what came between,
 * so that all that is remembered would be stale. */

static void on_probe_ready(void *owner)
{
	struct redis_tiers *t = owner;
	const char *id[] = { "CLIENT", "ID" }, *off[] = { "CLIENT", "TRACKING", "OFF" };
	size_t id_bytes[] = { 6, 2 }, off_bytes[] = { 6, 8, 3 };

	t->probe_answers = 0;
	if (redis_conn_send(t->probe, 2, id, id_bytes) &&
		redis_conn_send(t->probe, 3, off, off_bytes))
		redis_conn_flush(t->probe);
}

static void on_probe_reply(void *owner, const redisReply *r)
{
	struct redis_tiers *t = owner;

	if (t->probing != PROBING_ASKS)
		return;
	if (r->type == REDIS_REPLY_ERROR)
		t->probing = PROBING_REFUSED;
	else if (++t->probe_answers == 2)
		t->probing = PROBING_ALLOWED;
}

static void on_probe_lost(void *owner, const char *why)
{
	(void)owner;
	(void)why; /* it comes back, or PROBE_WITHIN ends it */
}

static void on_probe_failed(void *owner, const char *why, const char *hint)
{
	(void)owner;
	(void)why;
	(void)hint;
}

static const struct redis_conn_events probe_events = { on_probe_ready, on_probe_lost,
	on_probe_failed, on_probe_reply };

static void ask_whether_allowed(struct redis_tiers *t, usec_t now)
{
	const struct redis_address *to = redis_follow_place(&t->follow);
	bool allowed = t->probing == PROBING_ALLOWED;

	if (t->probing <= PROBING_ASKS && now < t->probe_at)
		return;
	if (t->probing == PROBING_NOT && to) {
		t->probing = PROBING_ASKS;
		t->probe_at = now + PROBE_WITHIN;
		(void)redis_conn_use(t->probe, to, false);
		return;
	}
	end_probe(t);
	t->probe_delay = 2 * t->probe_delay < PROBE_MOST ? 2 * t->probe_delay : PROBE_MOST;
	t->probe_at = now + t->probe_delay;
	if (allowed)
		redis_follow_anew(&t->follow);
}

/* ---- the loop ---- */

/* Alive? A connection that hangs tells of no change. */
static void ask_whether_alive(struct redis_tiers *t, usec_t now)
{
	const char *argv[] = { "PING" };

	if (t->watching == WATCHING_NOTHING || t->watching == WATCHING_REFUSED)
		return;
	if (t->asked_at > t->heard_at) {
		if (now - t->asked_at > ANSWER_WITHIN)
			redis_conn_give_up(t->conn, "it hangs");
	} else if (t->watching == WATCHING_ALL && now - t->asked_at >= PING_EVERY) {
		send(t, WATCHING_ALL, 1, argv);
	}
}

static void on_tick(struct ev_loop *loop, ev_timer *tick, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_tiers *t = tick->data;
	usec_t now = clock_steady();
	bool refused = tier_cache_there(t->cache) == TIERS_REFUSED;
	bool told = t->watching == WATCHING_ALL && t->tracking;

	if (t->changed)
		forget(t, now);
	if ((refused || !told) && now - t->polled_at >= (refused ? REFUSED_ASK : POLL_EVERY))
		want_there(t, now);
	if (redis_tiers_is_there_wanted(t))
		redis_hub_ring(t->hub); /* those whom it was rung for before could not */
	if (t->watching == WATCHING_REFUSED && now - t->asked_at >= REFUSED_ASK)
		ask_again(t);
	if (t->watching == WATCHING_ALL && t->denied)
		ask_whether_allowed(t, now);
	ask_whether_alive(t, now);
}

/* ---- what others call ---- */

bool redis_tiers_is_there_wanted(const struct redis_tiers *t)
{
	return atomic_load_explicit(&t->there_wanted, memory_order_relaxed);
}

bool redis_tiers_take_there(struct redis_tiers *t)
{
	return atomic_exchange(&t->there_wanted, false);
}

void redis_tiers_want_there(struct redis_tiers *t)
{
	atomic_store(&t->there_wanted, true);
}

void redis_tiers_refused(struct redis_tiers *t, const char *error)
{
	const char *known = redis_error_hint(error);
	char hint[512];

	if (atomic_exchange(&t->was_refused, true))
		return;
	if (strncmp(error, "WRONGTYPE", 9) == 0)
		snprintf(hint, sizeof hint,
			"tiers stand in a hash, and %s is none: DEL %s, or another redis.prefix",
			t->key, t->key);
	else if (strncmp(error, "NOPERM", 6) != 0)
		snprintf(hint, sizeof hint, "%s",
			known ? known : "this server cannot tell of changes: see its log");
	else
		snprintf(hint, sizeof hint,
			"tiers in Redis are seen late, or not at all; where they are wanted: ACL SETUSER "
			"%s ~%s &%s &" INVALIDATE
			" +hmget +exists +subscribe +client|id +client|tracking",
			t->settings.username[0] ? t->settings.username : "default", t->key, t->key);
	log_warning("tiers_refused", KV_Z("key", t->key), KV_Z("error", error), KV_Z("hint", hint));
}

struct tier_cache *redis_tiers_cache(struct redis_tiers *t)
{
	return t->cache;
}

const char *redis_tiers_key(const struct redis_tiers *t)
{
	return t->key;
}

uint16_t redis_tiers_slot(const struct redis_tiers *t)
{
	return t->slot;
}

void redis_tiers_set_age(struct redis_tiers *t, usec_t age)
{
	tier_cache_set_age(t->cache, age);
}

static struct redis_conn *conn_new(struct redis_tiers *t, const struct redis_conn_events *events)
{
	struct redis_conn_settings c = {
		.tls = t->settings.tls, .open_within = ANSWER_WITHIN, .reply_max = REPLY_MAX
	};

	memcpy(c.username, t->settings.username, sizeof c.username);
	memcpy(c.password, t->settings.password, sizeof c.password);
	struct redis_conn *conn = redis_conn_new(&c, events, t, t->loop);
	explicit_bzero(&c, sizeof c);
	return conn;
}

struct redis_tiers *redis_tiers_new(
	const struct redis_tiers_settings *settings, struct redis_hub *hub, struct ev_loop *loop)
{
	struct redis_tiers *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	t->settings = *settings;
	t->hub = hub;
	t->loop = loop;
	snprintf(t->key, sizeof t->key, "%stiers", settings->prefix);
	t->slot = redis_crc16(t->key, strlen(t->key)) % REDIS_SLOTS;
	t->there_wanted = true;
	t->cache = tier_cache_new(settings->entries, settings->age);
	t->conn = conn_new(t, &conn_events);
	t->probe = conn_new(t, &probe_events);
	if (!t->cache || !t->conn || !t->probe) {
		redis_conn_free(t->probe);
		redis_conn_free(t->conn);
		tier_cache_free(t->cache);
		free(t);
		return NULL;
	}
	ev_timer_init(&t->tick, on_tick, TICK, TICK);
	ev_timer_start(loop, &t->tick);
	t->tick.data = t;
	redis_follow_start(&t->follow, hub, t->conn, t->slot, loop, stop_watching, t);
	return t;
}

void redis_tiers_free(struct redis_tiers *t)
{
	if (!t)
		return;
	redis_follow_stop(&t->follow);
	ev_timer_stop(t->loop, &t->tick);
	redis_conn_free(t->probe);
	redis_conn_free(t->conn);
	tier_cache_free(t->cache);
	explicit_bzero(&t->settings, sizeof t->settings);
	free(t);
}
