#include "store/redis_news.h"

#include "base/log.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PONG_WITHIN    USEC_PER_SEC
#define DENIED_FOR     (60 * USEC_PER_SEC)
#define COMPLAIN_EVERY (10 * USEC_PER_SEC)

/* Between two ticks; what it has to say in a failover is one line for each master it knows. */
enum { SAID_MOST = 256 };

static const char channel[] = "+switch-master";

struct redis_news {
	char master[64];
	void (*heard)(void *owner);
	void *owner;
	struct redis_conn *conn;
	struct redis_address address;
	usec_t denied_at; /* 0: it has not */
	unsigned said;    /* since the last tick */
	usec_t pinged_at; /* 0: all is answered */
};

static void on_ready(void *owner)
{
	struct redis_news *n = owner;
	const char *argv[] = { channel };

	n->said = 0;
	n->pinged_at = clock_steady(); /* what SUBSCRIBE begins with is a PONG */
	if (redis_conn_subscribe(n->conn, 1, argv))
		redis_conn_flush(n->conn);
}

/* The sentinel's other connection says what is wrong with it. */
static void on_lost(void *owner, const char *why)
{
	(void)owner;
	(void)why;
}

static void on_failed(void *owner, const char *why, const char *hint)
{
	(void)owner;
	(void)why;
	(void)hint;
}

static bool is_text(const struct redisReply *r, const char *text)
{
	return r->type == REDIS_REPLY_STRING && (size_t)r->len == strlen(text) &&
	       memcmp(r->str, text, (size_t)r->len) == 0;
}

/* "NAME OLD-IP OLD-PORT NEW-IP NEW-PORT" */
static bool is_about(const struct redisReply *r, const char *master)
{
	size_t n = strlen(master);
	return r->type == REDIS_REPLY_STRING && (size_t)r->len > n && r->str[n] == ' ' &&
	       memcmp(r->str, master, n) == 0;
}

/* It will not tell, and says so: that does not change by asking again and again. */
static void rest(struct redis_news *n, const char *why)
{
	char text[REDIS_ADDRESS_TEXT_MAX];

	log_warning_every(COMPLAIN_EVERY, "redis_sentinel_silent",
		KV_Z("sentinel", redis_address_text(&n->address, text)), KV_Z("why", why),
		KV_Z("hint",
			"its ACL denies SUBSCRIBE to +switch-master: it is asked once a second "
			"only; see conf/README.md"));
	n->denied_at = clock_steady();
	(void)redis_conn_use(n->conn, NULL, false);
}

static void on_reply(void *owner, const struct redisReply *r)
{
	struct redis_news *n = owner;

	if (++n->said > SAID_MOST) {
		redis_conn_give_up(n->conn, "it says too much");
		return;
	}
	if (r->type == REDIS_REPLY_ERROR) {
		if (strncmp(r->str, "NOPERM", 6) == 0)
			rest(n, r->str);
		else
			redis_conn_give_up(n->conn, r->str);
		return;
	}
	n->pinged_at = 0; /* whatever it is, it lives */
	if (r->type == REDIS_REPLY_ARRAY && r->elements == 3 && is_text(r->element[0], "message") &&
		is_text(r->element[1], channel) && is_about(r->element[2], n->master))
		n->heard(n->owner);
}

static const struct redis_conn_events news_events = { on_ready, on_lost, on_failed, on_reply };

void redis_news_tick(struct redis_news *n, usec_t now)
{
	const char *argv[] = { "PING" };
	size_t bytes[] = { 4 };

	n->said = 0;
	if (n->denied_at && now - n->denied_at > DENIED_FOR) {
		n->denied_at = 0;
		(void)redis_conn_use(n->conn, &n->address, false);
	}
	if (!redis_conn_is_ready(n->conn))
		return;
	if (n->pinged_at) {
		if (now - n->pinged_at > PONG_WITHIN)
			redis_conn_give_up(n->conn, "it hangs");
		return;
	}
	redis_conn_is_good(n->conn);
	n->pinged_at = now;
	if (redis_conn_send(n->conn, 1, argv, bytes))
		redis_conn_flush(n->conn);
}

void redis_news_use(struct redis_news *n, const struct redis_address *address)
{
	if (!redis_address_eq(&n->address, address))
		n->denied_at = 0;
	n->address = *address;
	if (!n->denied_at)
		(void)redis_conn_use(n->conn, address, false);
}

struct redis_news *redis_news_new(const struct redis_conn_settings *settings, const char *master,
	void (*heard)(void *owner), void *owner, struct ev_loop *loop)
{
	struct redis_news *n = calloc(1, sizeof *n);
	if (!n)
		return NULL;
	snprintf(n->master, sizeof n->master, "%s", master);
	n->heard = heard;
	n->owner = owner;
	n->conn = redis_conn_new(settings, &news_events, n, loop);
	if (!n->conn) {
		free(n);
		return NULL;
	}
	return n;
}

void redis_news_free(struct redis_news *n)
{
	if (!n)
		return;
	redis_conn_free(n->conn);
	free(n);
}
