#include "store/redis_changes.h"

#include "base/log.h"
#include "store/redis_follow.h"
#include "store/redis_map.h"
#include "store/redis_slot.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK           0.5 /* seconds */
#define ANSWER_WITHIN  (2 * USEC_PER_SEC)
#define REFUSED_ASK    (10 * USEC_PER_SEC)
#define COMPLAIN_EVERY (60 * USEC_PER_SEC)

enum {
	PUTS_MAX = 10000,
	REPLY_MAX = 96 << 20, /* of as many as there may be (config/changes.h), and bans */
};

/* One change on its way; in the list until Redis has it. */
struct put {
	struct put *next;
	char *name, *text; /* owned; text NULL: to be taken away */
};

/* What was asked, in order: a put is two commands. */
enum asked { ASKED_VERSION, ASKED_ALL, ASKED_SET, ASKED_RISE };

enum { ASKED_MAX = 64 };

struct redis_changes {
	struct redis_changes_settings settings;
	struct ev_loop *loop;
	char key[64 + 10], version_key[64 + 18];
	uint16_t slot;
	struct redis_conn *conn;
	struct redis_follow follow;
	ev_timer tick;

	struct put *first, *last;
	unsigned puts;
	enum asked asked[ASKED_MAX]; /* the oldest first; replies come in that order */
	unsigned asked_n;
	bool ready, failed;      /* failed: the put under way */
	long long version, seen; /* as it was asked for; as it was told; -1: never */
	long long latest;        /* that was ever seen */
	usec_t asked_at, refused_at;
};

/* ---- sending ---- */

static bool ask(struct redis_changes *c, enum asked what, unsigned argc, const char *argv[])
{
	size_t bytes[4];

	if (!c->ready || c->asked_n == ASKED_MAX)
		return false;
	for (unsigned i = 0; i < argc; i++)
		bytes[i] = strlen(argv[i]);
	if (!redis_conn_send(c->conn, argc, argv, bytes))
		return false;
	c->asked[c->asked_n++] = what;
	c->asked_at = clock_steady();
	redis_conn_flush(c->conn);
	return true;
}

static void ask_version(struct redis_changes *c)
{
	const char *argv[] = { "GET", c->version_key };
	(void)ask(c, ASKED_VERSION, 2, argv);
}

static void ask_all(struct redis_changes *c)
{
	const char *argv[] = { "HGETALL", c->key };
	(void)ask(c, ASKED_ALL, 2, argv);
}

/* The oldest, and only that: of the next one it is known then whether it is to be sent. */
static void send_put(struct redis_changes *c)
{
	const struct put *p = c->first;
	const char *set[] = { "HSET", c->key, p->name, p->text };
	const char *take[] = { "HDEL", c->key, p->name };
	const char *rise[] = { "INCR", c->version_key };

	c->failed = false;
	if (p->text ? ask(c, ASKED_SET, 4, set) : ask(c, ASKED_SET, 3, take))
		(void)ask(c, ASKED_RISE, 2, rise);
}

static void go_on(struct redis_changes *c)
{
	if (c->asked_n)
		return;
	if (c->first)
		send_put(c);
	else
		ask_version(c);
}

static void drop_first(struct redis_changes *c)
{
	struct put *p = c->first;

	c->first = p->next;
	if (!c->first)
		c->last = NULL;
	c->puts--;
	free(p->name);
	free(p->text);
	free(p);
}

/* ---- replies ---- */

static void refused(struct redis_changes *c, const char *error)
{
	char hint[320];

	c->refused_at = clock_steady();
	snprintf(hint, sizeof hint,
		"overrides, switches and bans are this agent's alone: ACL SETUSER %s ~%s* +get "
		"+hgetall +hset +hdel +incr",
		c->settings.username[0] ? c->settings.username : "default", c->settings.prefix);
	log_warning_every(COMPLAIN_EVERY, "changes_not_shared", KV_Z("error", error),
		KV_Z("hint", strncmp(error, "NOPERM", 6) == 0 ? hint : "see the log of Redis"));
}

/* It only rises: where it went back, Redis has lost its data, or the last of it. */
static void look_for_loss(struct redis_changes *c, long long version)
{
	bool lost = version < c->latest;

	c->latest = version;
	if (lost)
		c->settings.missing(c->settings.owner);
}

static void on_version(struct redis_changes *c, const redisReply *r)
{
	c->refused_at = 0;
	c->version = r->type == REDIS_REPLY_STRING ? strtoll(r->str, NULL, 10) : 0;
	look_for_loss(c, c->version);
	if (c->first)
		return; /* they are being sent */
	if (c->version != c->seen)
		ask_all(c);
}

static void on_all(struct redis_changes *c, const redisReply *r)
{
	if (r->type != REDIS_REPLY_ARRAY || r->elements % 2 || c->first)
		return; /* what was put meanwhile is not in it: it is asked for again */
	size_t n = r->elements / 2;
	struct str *s = calloc(2 * n + 1, sizeof *s);
	if (!s)
		return;
	for (size_t i = 0; i < n; i++) {
		const redisReply *name = r->element[2 * i], *text = r->element[2 * i + 1];
		if (name->type != REDIS_REPLY_STRING || text->type != REDIS_REPLY_STRING)
			continue;
		s[i] = (struct str){ name->str, (size_t)name->len };
		s[n + i] = (struct str){ text->str, (size_t)text->len };
	}
	c->seen = c->version;
	c->settings.told(c->settings.owner, s, s + n, n);
	free(s);
}

static void on_reply(void *owner, const redisReply *r)
{
	struct redis_changes *c = owner;

	if (!c->asked_n)
		return;
	enum asked what = c->asked[0];
	memmove(c->asked, c->asked + 1, --c->asked_n * sizeof c->asked[0]);
	if (r->type == REDIS_REPLY_ERROR) {
		refused(c, r->str);
		c->failed = true;
		return; /* the next tick tries again */
	}
	redis_conn_is_good(c->conn);
	switch (what) {
	case ASKED_VERSION:
		on_version(c, r);
		return;
	case ASKED_ALL:
		on_all(c, r);
		return;
	case ASKED_SET:
		return;
	case ASKED_RISE:
		if (c->failed)
			return;
		if (c->first)
			drop_first(c);
		if (r->type == REDIS_REPLY_INTEGER)
			look_for_loss(c, r->integer - 1);
		go_on(c);
		return;
	}
}

static void forget_asked(void *owner)
{
	struct redis_changes *c = owner;

	c->ready = false;
	c->asked_n = 0;
	c->seen = -1; /* it may be another one that comes back */
}

static void on_ready(void *owner)
{
	struct redis_changes *c = owner;

	forget_asked(c);
	c->ready = true;
	c->refused_at = 0;
	go_on(c);
}

static void on_lost(void *owner, const char *why)
{
	(void)why; /* the stores meet the same, and tell */
	forget_asked(owner);
}

static void on_failed(void *owner, const char *why, const char *hint)
{
	struct redis_changes *c = owner;
	(void)why;
	(void)hint;

	redis_follow_failed(&c->follow);
}

static const struct redis_conn_events conn_events = { on_ready, on_lost, on_failed, on_reply };

/* ---- the loop ---- */

static void on_tick(struct ev_loop *loop, ev_timer *tick, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_changes *c = tick->data;
	usec_t now = clock_steady();

	if (!c->ready || (c->refused_at && now - c->refused_at < REFUSED_ASK))
		return;
	if (c->asked_n && now - c->asked_at > ANSWER_WITHIN)
		redis_conn_give_up(c->conn, "it hangs");
	else
		go_on(c);
}

/* ---- what others call ---- */

struct redis_changes *redis_changes_new(
	const struct redis_changes_settings *settings, struct redis_hub *hub, struct ev_loop *loop)
{
	struct redis_changes *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	struct redis_conn_settings s = { .db = settings->db,
		.tls = settings->tls,
		.open_within = ANSWER_WITHIN,
		.reply_max = REPLY_MAX };
	memcpy(s.username, settings->username, sizeof s.username);
	memcpy(s.password, settings->password, sizeof s.password);
	c->settings = *settings;
	c->loop = loop;
	c->seen = -1;
	/* In a cluster both have to lie together: what is in braces tells where. */
	snprintf(c->key, sizeof c->key, "%s{changes}", settings->prefix);
	snprintf(c->version_key, sizeof c->version_key, "%s{changes}:version", settings->prefix);
	c->slot = redis_crc16("changes", 7) % REDIS_SLOTS;
	c->conn = redis_conn_new(&s, &conn_events, c, loop);
	explicit_bzero(&s, sizeof s);
	if (!c->conn) {
		free(c);
		return NULL;
	}
	ev_timer_init(&c->tick, on_tick, TICK, TICK);
	ev_timer_start(loop, &c->tick);
	c->tick.data = c;
	redis_follow_start(&c->follow, hub, c->conn, c->slot, loop, forget_asked, c);
	return c;
}

void redis_changes_free(struct redis_changes *c)
{
	if (!c)
		return;
	redis_follow_stop(&c->follow);
	ev_timer_stop(c->loop, &c->tick);
	redis_conn_free(c->conn);
	while (c->first)
		drop_first(c);
	explicit_bzero(&c->settings, sizeof c->settings);
	free(c);
}

bool redis_changes_put(struct redis_changes *c, const char *name, const char *text)
{
	struct put *p = c->puts < PUTS_MAX ? calloc(1, sizeof *p) : NULL;

	if (!p)
		return false;
	p->name = strdup(name);
	p->text = text ? strdup(text) : NULL;
	if (!p->name || (text && !p->text)) {
		free(p->name);
		free(p->text);
		free(p);
		return false;
	}
	if (c->last)
		c->last->next = p;
	else
		c->first = p;
	c->last = p;
	c->puts++;
	if (c->ready && !c->refused_at)
		go_on(c);
	return true;
}
