#include "store/redis_changes.h"

#include "base/log.h"
#include "store/redis_follow.h"
#include "store/redis_changes_read.h"
#include "store/redis_hints.h"
#include "store/redis_script.h"
#include "store/redis_slot.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK           0.5 /* seconds */
#define ANSWER_WITHIN  (2 * USEC_PER_SEC)
#define RETRY_SOONEST  0.2 /* seconds */
#define RETRY_LATEST   1.
#define MOVES_WITHIN   (10 * USEC_PER_SEC)
#define UNREAD_FOR     (5 * USEC_PER_SEC)
#define COMPLAIN_EVERY (60 * USEC_PER_SEC)

enum { REPLY_MAX = 96 << 20 }; /* of as many as there may be (config/changes.h), and bans */

/* One change on its way; in the list until Redis has it. */
struct put {
	struct put *next;
	char *name, *text; /* owned; text NULL: to be taken away */
};

enum asked { ASKED_NOTHING, ASKED_VERSION, ASKED_NEWS, ASKED_ALL, ASKED_PUT };

#define NEWS_AT_ONCE "1000"

#define UNREAD_HINT \
	"checks are answered, on other connections: see the log of Redis, its maxclients and " \
	"client-output-buffer-limit"
#define OTHER_FORMAT "what is there is of a format that this release does not know"

struct redis_changes {
	struct redis_changes_settings settings;
	struct ev_loop *loop;
	char key[64 + 10], version_key[64 + 18], log_key[64 + 14];
	uint16_t slot;
	struct redis_conn *conn;
	struct redis_follow follow;
	ev_timer tick;

	struct put *first, *last;
	unsigned puts;
	uint64_t handed;  /* the last number that was given */
	enum asked asked; /* one thing at a time */
	bool ready;
	long long version,
		seen; /* as it was asked for; up to which all was told; -1: nothing was */
	struct redis_changes_mark mark;               /* of the one that is numbered so */
	long long latest;                             /* that was ever seen */
	usec_t asked_at, refused_since, moving_since; /* 0: it is not */
	char refused[200];                            /* in whose words, if refused_since */
	usec_t away_since;                            /* 0: ready */
	usec_t unread_since; /* what is there has not been read, and the store is well; 0: it has */
	char lost_why[160];  /* the last time */
	const char *lost_hint;
};

/* ---- sending ---- */

static void ask(struct redis_changes *c, enum asked what, unsigned argc, const char *argv[])
{
	size_t bytes[8];

	for (unsigned i = 0; i < argc; i++)
		bytes[i] = strlen(argv[i]);
	if (!redis_conn_send(c->conn, argc, argv, bytes))
		return;
	c->asked = what;
	c->asked_at = clock_steady();
	redis_conn_flush(c->conn);
}

static void ask_version(struct redis_changes *c)
{
	const char *argv[] = { "GET", c->version_key };
	ask(c, ASKED_VERSION, 2, argv);
}

static void ask_all(struct redis_changes *c)
{
	const char *argv[] = { "HGETALL", c->key };
	ask(c, ASKED_ALL, 2, argv);
}

/* From the last one on that is known. */
static void ask_news(struct redis_changes *c)
{
	char from[32];
	const char *argv[] = { "XRANGE", c->log_key, from, "+", "COUNT", NEWS_AT_ONCE };

	snprintf(from, sizeof from, "%lld-0", c->seen + !c->mark.known);
	ask(c, ASKED_NEWS, 6, argv);
}

/* The oldest, and only that: of the next one it is known then whether it is to be sent. */
static void send_put(struct redis_changes *c)
{
	const struct put *p = c->first;
	const char *argv[] = { "EVALSHA", redis_changes_script_sha1, "3", c->key, c->version_key,
		c->log_key, p->name, p->text };

	ask(c, ASKED_PUT, p->text ? 8 : 7, argv);
}

static void go_on(struct redis_changes *c)
{
	if (!c->ready || c->asked)
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

/* When it is asked the next time, and how often from then on. */
static void pace(struct redis_changes *c, double seconds)
{
	c->tick.repeat = seconds;
	ev_timer_again(c->loop, &c->tick);
}

static void is_refused_no_more(struct redis_changes *c)
{
	if (!c->refused_since)
		return;
	c->refused_since = 0;
	pace(c, TICK);
}

static void is_well(struct redis_changes *c)
{
	c->moving_since = 0;
	is_refused_no_more(c);
}

static const char *hint_of(const struct redis_changes *c, const char *error, char *out, size_t room)
{
	const char *hint = redis_error_hint(error);

	if (strcmp(error, OTHER_FORMAT) == 0)
		return "another release keeps them there: give this one's agents a redis.prefix of "
		       "their own, or that release";
	if (strncmp(error, "NOPERM", 6) != 0)
		return hint ? hint : REDIS_SEE_LOG;
	snprintf(out, room,
		"overrides, switches and bans are this agent's alone: ACL SETUSER %s ~%s* +evalsha "
		"+script|load +get +hgetall +hset +hdel +incr +xadd +xrange +del",
		c->settings.username[0] ? c->settings.username : "default", c->settings.prefix);
	return out;
}

/* What passes in a moment is not waited for longer than it takes; what lasts is asked once a
 * second. */
static void refused(struct redis_changes *c, const char *error)
{
	usec_t now = clock_steady();
	char hint[400];

	if (!c->refused_since)
		c->refused_since = now;
	double wait = (double)(now - c->refused_since) / (double)USEC_PER_SEC / 4;
	pace(c, wait < RETRY_SOONEST ? RETRY_SOONEST : wait > RETRY_LATEST ? RETRY_LATEST : wait);
	/* (As INCR has it, in whatever release's words.) */
	snprintf(c->refused, sizeof c->refused, "%s",
		strstr(error, "value is not an integer") ? OTHER_FORMAT : error);
	log_warning_every(COMPLAIN_EVERY, "changes_not_shared", KV_Z("error", c->refused),
		KV_Z("hint", hint_of(c, c->refused, hint, sizeof hint)));
	c->settings.moved(c->settings.owner);
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
	if (!redis_changes_read_version(r, &c->version)) {
		c->seen = -1;
		refused(c, OTHER_FORMAT);
		return;
	}
	is_well(c);
	look_for_loss(c, c->version);
	if (c->first)
		go_on(c);
	else if (c->seen < 0 || c->version < c->seen)
		ask_all(c);
	else if (c->version > c->seen)
		ask_news(c);
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
	c->mark.known = false;
	c->unread_since = 0;
	c->lost_why[0] = '\0';
	c->lost_hint = NULL;
	c->settings.told(c->settings.owner, s, s + n, n);
	free(s);
}

/* What was put here meanwhile is newer than what is read: it is asked for again when that is there.
 */
static void on_news(struct redis_changes *c, const redisReply *r)
{
	size_t n = r->type == REDIS_REPLY_ARRAY ? r->elements : 0, known = c->mark.known;
	struct str *s = c->first || !n ? NULL : calloc(2 * n, sizeof *s);
	bool lost = false;

	if (c->first) {
		go_on(c);
		return;
	}
	if (!s || !redis_changes_read_log(r, c->seen + !known, &c->mark, s, &lost) || lost) {
		c->seen = -1;
		if (lost)
			c->settings.missing(c->settings.owner);
		if (!c->asked)
			ask_all(c);
	} else {
		c->seen += (long long)(n - known);
		c->mark = redis_changes_mark_of(s[n - 1], s[2 * n - 1]);
		c->settings.news(c->settings.owner, s + known, s + n + known, n - known);
		if (c->seen < c->version && !c->asked)
			ask_news(c);
	}
	free(s);
}

/* Where nobody else has put anything since, it is all known here. */
static void on_put(struct redis_changes *c, const redisReply *r)
{
	if (r->type != REDIS_REPLY_INTEGER) {
		redis_conn_give_up(c->conn, "it talks nonsense");
		return;
	}
	if (c->first && c->seen >= 0 && r->integer == c->seen + 1) {
		const struct put *p = c->first;
		c->seen = r->integer;
		c->mark = redis_changes_mark_of(str_of(p->name), str_of(p->text));
	}
	if (c->first)
		drop_first(c);
	look_for_loss(c, r->integer - 1);
	c->latest = r->integer;
	is_well(c);
	go_on(c);
	c->settings.moved(c->settings.owner);
}

/* Its slot is at another node, to which the connection goes, or on its way there. */
static bool is_moving(struct redis_changes *c, const char *error)
{
	usec_t now = clock_steady();

	if (redis_follow_redirect(&c->follow, error) == REDIRECT_NONE)
		return false;
	if (!c->moving_since)
		c->moving_since = now;
	return now - c->moving_since < MOVES_WITHIN;
}

/* It has no such log, or does not let us read it; other errors pass. */
static bool lacks_log(const char *error)
{
	return strncmp(error, "NOPERM", 6) == 0 || strncmp(error, "ERR", 3) == 0 ||
	       strncmp(error, "WRONGTYPE", 9) == 0;
}

/* The next tick tries again. */
static void on_error(struct redis_changes *c, enum asked what, const char *error)
{
	if (strncmp(error, "NOSCRIPT", 8) == 0) {
		redis_conn_give_up(c->conn, "it has lost its scripts"); /* and is given it again */
	} else if (what == ASKED_NEWS && lacks_log(error)) {
		log_warning_every(COMPLAIN_EVERY, "changes_read_whole", KV_Z("error", error),
			KV_Z("hint", "all are read for each that changes: +xadd +xrange +del"));
		ask_all(c);
	} else if (!is_moving(c, error)) {
		refused(c, error);
		if (redis_error_is_of_replica(error)) /* who connects anew may come to another */
			redis_conn_give_up(c->conn, error);
	}
}

static void on_reply(void *owner, const redisReply *r)
{
	struct redis_changes *c = owner;

	enum asked what = c->asked;
	c->asked = ASKED_NOTHING;
	if (r->type == REDIS_REPLY_ERROR) {
		on_error(c, what, r->str);
		return;
	}
	switch (what) {
	case ASKED_NOTHING:
		break;
	case ASKED_VERSION:
		on_version(c, r);
		break;
	case ASKED_NEWS:
		on_news(c, r);
		break;
	case ASKED_ALL:
		on_all(c, r);
		break;
	case ASKED_PUT:
		on_put(c, r);
		break;
	}
	/* Not before: where all of it is what ends the connection each time, it is read anew ever
	 * more seldom. */
	if (!c->asked && redis_conn_is_ready(c->conn))
		redis_conn_is_good(c->conn);
}

static void forget_asked(void *owner)
{
	struct redis_changes *c = owner;

	c->ready = false;
	if (!c->away_since)
		c->away_since = clock_steady();
	if (!c->unread_since)
		c->unread_since = clock_steady();
	c->asked = ASKED_NOTHING;
	c->seen = -1; /* it may be another one that comes back */
}

static void on_ready(void *owner)
{
	struct redis_changes *c = owner;

	forget_asked(c);
	c->ready = true;
	c->away_since = 0;
	is_refused_no_more(c);
	go_on(c);
}

/* (Mostly the stores meet the same, and tell.) */
static void keep_why(struct redis_changes *c, const char *why, const char *hint)
{
	snprintf(c->lost_why, sizeof c->lost_why, "%s", why);
	c->lost_hint = hint;
}

static void on_lost(void *owner, const char *why)
{
	keep_why(owner, why, NULL);
	forget_asked(owner);
}

static void on_failed(void *owner, const char *why, const char *hint)
{
	struct redis_changes *c = owner;

	keep_why(c, why, hint);
	redis_follow_failed(&c->follow);
}

static const struct redis_conn_events conn_events = { on_ready, on_lost, on_failed, on_reply };

/* ---- the loop ---- */

static const char *why_unread(const struct redis_changes *c)
{
	return c->lost_why[0] ? c->lost_why : "they are not answered";
}

static const char *hint_unread(const struct redis_changes *c)
{
	return c->lost_hint ? c->lost_hint : UNREAD_HINT;
}

/* Where checks go well, and a refusal is not told of, nobody else would say so. */
static void look_for_unread(struct redis_changes *c, usec_t now)
{
	struct redis_hub_away away;

	if (!c->unread_since)
		return;
	if (c->refused_since || c->moving_since || redis_hub_is_away(c->follow.hub, &away))
		c->unread_since = now;
	if (now - c->unread_since < UNREAD_FOR)
		return;
	log_warning_every(COMPLAIN_EVERY, "changes_not_shared", KV_Z("error", why_unread(c)),
		KV_Z("hint", hint_unread(c)));
}

static void on_tick(struct ev_loop *loop, ev_timer *tick, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_changes *c = tick->data;
	usec_t now = clock_steady();

	look_for_unread(c, now);
	if (!c->ready)
		return;
	if (c->asked && now - c->asked_at > ANSWER_WITHIN)
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
		.script = redis_changes_script,
		.sha1 = redis_changes_script_sha1,
		.script_bytes = redis_changes_script_bytes,
		.reply_max = REPLY_MAX };
	memcpy(s.username, settings->username, sizeof s.username);
	memcpy(s.password, settings->password, sizeof s.password);
	c->settings = *settings;
	c->loop = loop;
	c->seen = -1;
	c->away_since = c->unread_since = clock_steady();
	/* In a cluster all have to lie together: what is in braces tells where. */
	snprintf(c->key, sizeof c->key, "%s{changes}", settings->prefix);
	snprintf(c->version_key, sizeof c->version_key, "%s{changes}:version", settings->prefix);
	snprintf(c->log_key, sizeof c->log_key, "%s{changes}:log", settings->prefix);
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

uint64_t redis_changes_put(struct redis_changes *c, const char *name, const char *text)
{
	struct put *p = c->puts < REDIS_CHANGES_WAITING_MAX ? calloc(1, sizeof *p) : NULL;

	if (!p)
		return 0;
	p->name = strdup(name);
	p->text = text ? strdup(text) : NULL;
	if (!p->name || (text && !p->text)) {
		free(p->name);
		free(p->text);
		free(p);
		return 0;
	}
	if (c->last)
		c->last->next = p;
	else
		c->first = p;
	c->last = p;
	c->puts++;
	if (!c->refused_since)
		go_on(c);
	return ++c->handed;
}

struct redis_changes_state redis_changes_state(const struct redis_changes *c)
{
	return (struct redis_changes_state){
		.had = c->handed - c->puts,
		.waiting = c->puts,
		.away_since = c->away_since,
		.refused = c->refused_since ? c->refused : NULL,
	};
}

bool redis_changes_is_heard(const struct redis_changes *c)
{
	return !c->unread_since || c->refused_since;
}

bool redis_changes_trouble(
	const struct redis_changes *c, usec_t now, struct redis_changes_trouble *t)
{
	const char *why = c->refused, *hint;
	struct redis_hub_away away;

	if (c->refused_since) {
		t->since = c->refused_since;
		hint = hint_of(c, why, t->hint, sizeof t->hint);
	} else {
		t->since = c->away_since ? c->away_since : c->unread_since;
		if (!t->since || now - t->since < UNREAD_FOR)
			return false;
		bool is_away = redis_hub_is_away(c->follow.hub, &away);
		why = is_away ? away.why : why_unread(c);
		hint = is_away ? away.hint : hint_unread(c);
	}
	snprintf(t->why, sizeof t->why, "%s", why);
	if (hint != t->hint)
		snprintf(t->hint, sizeof t->hint, "%s", hint);
	return true;
}
