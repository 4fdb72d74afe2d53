#include "store/redis_sentinel.h"

#include "base/log.h"
#include "store/redis_conn.h"
#include "store/redis_elect.h"
#include "store/redis_hints.h"
#include "store/redis_news.h"
#include "store/redis_resolver.h"

#include <ctype.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_WITHIN  USEC_PER_SEC
#define NEWS_SOONEST   (100 * USEC_PER_MSEC) /* after the last question */
#define NEWS_TICK      USEC_PER_SEC
#define COMPLAIN_EVERY (10 * USEC_PER_SEC)

struct sentinel {
	struct redis_sentinels *all;
	struct redis_host server;
	struct redis_addresses addresses;
	unsigned address_at;
	struct redis_conn *conn;
	struct redis_news *news;
	bool asked;  /* and has not answered yet */
	bool wanted; /* to be asked once more: it has news */
	usec_t asked_at;
	/* Who is master, by what it said last. */
	struct redis_host said;
	struct redis_opinion opinion;
	struct redis_resolver *resolver; /* NULL: it never said a name */
	unsigned answered;               /* by the resolver */
};

struct redis_sentinels {
	char master[64];
	struct redis_sentinels_events events;
	void *owner;
	struct ev_loop *loop;
	ev_async bell; /* sent by resolvers */
	ev_timer soon; /* for those that are `wanted` */
	usec_t asked_at, ticked_at;
	unsigned n;
	struct sentinel sentinel[];
};

void redis_sentinels_elect(struct redis_sentinels *all, usec_t now)
{
	const struct redis_opinion *opinion[REDIS_SERVERS_MAX];
	struct redis_addresses masters;

	for (unsigned i = 0; i < all->n; i++)
		opinion[i] = &all->sentinel[i].opinion;
	redis_elect(opinion, all->n, now, &masters);
	/* What is no master says so itself (ROLE), and the next in the list is tried. */
	if (masters.n)
		all->events.named(all->owner, &masters);
	/* Nobody has an opinion any more: what they said last is still the best guess. */
}

static void ask(struct sentinel *s, usec_t now)
{
	const char *argv[] = { "SENTINEL", "get-master-addr-by-name", s->all->master };
	size_t bytes[] = { 8, 23, strlen(s->all->master) };

	if (s->asked) {
		if (now - s->asked_at > ANSWER_WITHIN)
			redis_conn_give_up(s->conn, "it hangs");
		return;
	}
	if (!redis_conn_is_ready(s->conn) || !redis_conn_send(s->conn, 3, argv, bytes))
		return;
	s->asked = true;
	s->wanted = false;
	s->asked_at = now;
	redis_conn_flush(s->conn);
}

/* It has news: asked at once, but not more often than it is good for the others. */
static void ask_soon(struct sentinel *s, usec_t now)
{
	s->wanted = redis_conn_is_ready(s->conn); /* else it is asked when it is */
	if (s->wanted && !s->asked && now - s->asked_at >= NEWS_SOONEST)
		ask(s, now);
	if (s->wanted && !ev_is_active(&s->all->soon)) {
		ev_timer_set(&s->all->soon, (double)NEWS_SOONEST / (double)USEC_PER_SEC, 0);
		ev_timer_start(s->all->loop, &s->all->soon);
	}
}

static void on_soon(struct ev_loop *loop, ev_timer *soon, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_sentinels *all = soon->data;
	for (unsigned i = 0; i < all->n; i++)
		if (all->sentinel[i].wanted)
			ask_soon(&all->sentinel[i], clock_steady());
}

static void on_news(void *owner)
{
	ask_soon(owner, clock_steady());
}

void redis_sentinels_ask(struct redis_sentinels *all, usec_t now, usec_t soonest)
{
	if (now - all->asked_at < soonest)
		return;
	all->asked_at = now;
	bool tick = now - all->ticked_at >= NEWS_TICK;
	if (tick)
		all->ticked_at = now;
	for (unsigned i = 0; i < all->n; i++) {
		ask(&all->sentinel[i], now);
		if (tick)
			redis_news_tick(all->sentinel[i].news, now);
	}
}

static void sentinel_is_away(struct sentinel *s, const char *why, const char *hint)
{
	char text[REDIS_ADDRESS_TEXT_MAX];
	const struct redis_address *a = s->addresses.n ? &s->addresses.address[s->address_at]
						       : NULL;
	s->asked = false;
	if (!hint)
		hint = redis_reach_hint(a);
	if (!hint)
		hint = "see whether that sentinel runs, and can be reached from here; the others are "
		       "asked meanwhile";
	log_warning_every(COMPLAIN_EVERY, "redis_sentinel_away",
		KV_Z("sentinel", a ? redis_address_text(a, text) : s->server.host),
		KV_Z("why", why), KV_Z("hint", hint));
}

static void on_sentinel_ready(void *owner)
{
	struct sentinel *s = owner;
	s->asked = false;
	redis_conn_is_good(s->conn);
	redis_news_use(s->news, &s->addresses.address[s->address_at]);
	ask(s, clock_steady());
}

static void on_sentinel_lost(void *owner, const char *why)
{
	sentinel_is_away(owner, why, NULL);
}

static void on_sentinel_failed(void *owner, const char *why, const char *hint)
{
	struct sentinel *s = owner;

	sentinel_is_away(s, why, hint);
	if (!s->addresses.n)
		return;
	s->address_at = (s->address_at + 1) % s->addresses.n;
	redis_conn_aim(s->conn, &s->addresses.address[s->address_at], false);
	s->all->events.failed(s->all->owner);
}

/* An address, or a name as hosts have them. */
static bool is_host(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)p[i]) && !strchr("-_.:", p[i]))
			return false;
	return n > 0;
}

static bool read_master(const struct redisReply *r, struct redis_host *out)
{
	char port[8];
	char *end;

	if (r->type != REDIS_REPLY_ARRAY || r->elements != 2)
		return false;
	const struct redisReply *host = r->element[0], *number = r->element[1];
	if (host->type != REDIS_REPLY_STRING || number->type != REDIS_REPLY_STRING ||
		(size_t)host->len >= sizeof out->host || (size_t)number->len >= sizeof port ||
		number->len == 0 || !is_host(host->str, (size_t)host->len))
		return false;
	memset(out, 0, sizeof *out);
	memcpy(out->host, host->str, (size_t)host->len);
	memcpy(port, number->str, (size_t)number->len);
	port[number->len] = '\0';
	unsigned long value = strtoul(port, &end, 10);
	if (*end || value == 0 || value > UINT16_MAX)
		return false;
	out->port = (uint16_t)value;
	return true;
}

/* It says another one than before. */
static void change_mind(struct sentinel *s, const struct redis_host *said, usec_t now)
{
	s->said = *said;
	s->opinion.masters = (struct redis_addresses){ 0 };
	s->opinion.changed_at = now;
	if (redis_address_of(said, &s->opinion.masters.address[0])) {
		s->opinion.masters.n = 1;
		return;
	}
	if (s->resolver)
		redis_resolver_change(s->resolver, 0, said);
	else
		s->resolver = redis_resolver_new(said, 1, s->all->loop, &s->all->bell);
	if (!s->resolver)
		s->said = (struct redis_host){ 0 }; /* no thread: with the next answer */
}

static void on_bell(struct ev_loop *loop, ev_async *bell, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_sentinels *all = bell->data;

	for (unsigned i = 0; i < all->n; i++) {
		struct sentinel *s = &all->sentinel[i];
		if (!s->resolver)
			continue;
		struct redis_resolved r = redis_resolver_get(s->resolver, 0);
		if (r.answered == s->answered || !redis_host_eq(&r.server, &s->said))
			continue;
		s->answered = r.answered;
		if (!r.why[0]) {
			s->opinion.masters = r.addresses;
			continue;
		}
		/* What it was found to be before is better than nothing. */
		log_warning_every(COMPLAIN_EVERY, "redis_name_unknown", KV_Z("name", s->said.host),
			KV_Z("why", r.why),
			KV_Z("hint", "sentinels name the master so: see the resolver of this "
				     "machine, or set announce-hostnames no"));
	}
	redis_sentinels_elect(all, clock_steady());
}

void redis_sentinels_resolve(struct redis_sentinels *all)
{
	struct redis_address plain;

	for (unsigned i = 0; i < all->n; i++)
		if (all->sentinel[i].resolver && !redis_address_of(&all->sentinel[i].said, &plain))
			redis_resolver_wake(all->sentinel[i].resolver);
}

static void on_sentinel_reply(void *owner, const struct redisReply *r)
{
	struct sentinel *s = owner;
	struct redis_host said;
	usec_t now = clock_steady();

	s->asked = false;
	if (!read_master(r, &said)) {
		sentinel_is_away(s,
			r->type == REDIS_REPLY_ERROR ? r->str
			: r->type == REDIS_REPLY_NIL
				? "it knows no master of that name"
				: "what it says of the master is no host and port",
			r->type == REDIS_REPLY_NIL     ? "see redis.master"
			: r->type == REDIS_REPLY_ERROR ? redis_error_hint(r->str)
						       : "is it a sentinel that listens there?");
		return;
	}
	if (!redis_host_eq(&s->said, &said))
		change_mind(s, &said, now);
	s->opinion.heard_at = now;
	redis_sentinels_elect(s->all, now);
}

static const struct redis_conn_events sentinel_events = {
	on_sentinel_ready,
	on_sentinel_lost,
	on_sentinel_failed,
	on_sentinel_reply,
};

void redis_sentinels_use(
	struct redis_sentinels *all, unsigned i, const struct redis_addresses *addresses)
{
	struct sentinel *s = &all->sentinel[i];

	if (!redis_addresses_eq(&s->addresses, addresses)) {
		s->addresses = *addresses;
		s->address_at = 0;
	}
	if (s->addresses.n && !redis_conn_is_ready(s->conn))
		redis_conn_use(s->conn, &s->addresses.address[s->address_at], false);
}

struct redis_sentinels *redis_sentinels_new(const struct redis_hub_settings *settings,
	const struct redis_sentinels_events *events, void *owner, struct ev_loop *loop)
{
	struct redis_sentinels *all = calloc(
		1, sizeof *all + settings->server_n * sizeof all->sentinel[0]);
	if (!all)
		return NULL;
	memcpy(all->master, settings->master, sizeof all->master);
	all->events = *events;
	all->owner = owner;
	all->loop = loop;
	all->n = settings->server_n;
	ev_async_init(&all->bell, on_bell);
	ev_init(&all->soon, on_soon);
	all->bell.data = all->soon.data = all;
	ev_async_start(loop, &all->bell);

	struct redis_conn_settings c = {
		.auth_if_asked = true,
		.tls = settings->tls,
		.open_within = ANSWER_WITHIN,
		.reply_max = 4096,
	};
	memcpy(c.username, settings->username, sizeof c.username);
	memcpy(c.password, settings->password, sizeof c.password);
	bool good = true;
	for (unsigned i = 0; i < all->n && good; i++) {
		struct sentinel *s = &all->sentinel[i];
		s->all = all;
		s->server = settings->server[i];
		s->conn = redis_conn_new(&c, &sentinel_events, s, loop);
		s->news = redis_news_new(&c, settings->master, on_news, s, loop);
		good = s->conn && s->news;
	}
	explicit_bzero(&c, sizeof c);
	if (good)
		return all;
	redis_sentinels_free(all);
	return NULL;
}

void redis_sentinels_free(struct redis_sentinels *all)
{
	if (!all)
		return;
	for (unsigned i = 0; i < all->n; i++) {
		struct sentinel *s = &all->sentinel[i];
		redis_conn_free(s->conn);
		redis_news_free(s->news);
		redis_resolver_free(s->resolver);
	}
	ev_async_stop(all->loop, &all->bell);
	ev_timer_stop(all->loop, &all->soon);
	free(all);
}
