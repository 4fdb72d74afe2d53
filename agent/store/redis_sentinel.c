#include "store/redis_sentinel.h"

#include "base/log.h"
#include "store/redis_conn.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_WITHIN  USEC_PER_SEC
#define OPINION_LASTS  (5 * USEC_PER_SEC)
#define COMPLAIN_EVERY (10 * USEC_PER_SEC)

struct sentinel {
	struct redis_sentinels *all;
	struct redis_host server;
	struct redis_addresses addresses;
	unsigned address_at;
	struct redis_conn *conn;
	bool asked; /* and has not answered yet */
	usec_t asked_at;
	/* Who is master, by what it said last. */
	struct redis_address master;
	usec_t heard_at, changed_at; /* heard_at 0: never */
};

struct redis_sentinels {
	char master[64];
	struct redis_sentinels_events events;
	void *owner;
	usec_t asked_at;
	unsigned n;
	struct sentinel sentinel[];
};

void redis_sentinels_elect(struct redis_sentinels *all, usec_t now)
{
	struct redis_addresses a = { 0 };
	unsigned votes[REDIS_ADDRESSES_MAX] = { 0 };
	usec_t changed_at[REDIS_ADDRESSES_MAX] = { 0 };

	for (unsigned i = 0; i < all->n; i++) {
		const struct sentinel *s = &all->sentinel[i];
		unsigned k = 0;
		if (!s->heard_at || now - s->heard_at > OPINION_LASTS)
			continue;
		while (k < a.n && !redis_address_eq(&a.address[k], &s->master))
			k++;
		if (k == REDIS_ADDRESSES_MAX)
			continue;
		if (k == a.n)
			a.address[a.n++] = s->master;
		votes[k]++;
		if (s->changed_at > changed_at[k])
			changed_at[k] = s->changed_at;
	}
	/* Whom most of them name first; of as many, whom one has come to name last. What is no
	 * master says so itself (ROLE), and the next in the list is tried. */
	struct redis_addresses sorted = { .n = a.n };
	for (unsigned n = 0; n < a.n; n++) {
		unsigned best = REDIS_ADDRESSES_MAX;
		for (unsigned k = 0; k < a.n; k++)
			if (votes[k] && (best == REDIS_ADDRESSES_MAX || votes[k] > votes[best] ||
						(votes[k] == votes[best] &&
							changed_at[k] > changed_at[best])))
				best = k;
		sorted.address[n] = a.address[best];
		votes[best] = 0;
	}
	if (sorted.n)
		all->events.named(all->owner, &sorted);
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
	s->asked_at = now;
	redis_conn_flush(s->conn);
}

void redis_sentinels_ask(struct redis_sentinels *all, usec_t now, usec_t soonest)
{
	if (now - all->asked_at < soonest)
		return;
	all->asked_at = now;
	for (unsigned i = 0; i < all->n; i++)
		ask(&all->sentinel[i], now);
}

static void sentinel_is_away(struct sentinel *s, const char *why, const char *hint)
{
	char text[REDIS_ADDRESS_TEXT_MAX];
	s->asked = false;
	log_warning_every(COMPLAIN_EVERY, "redis_sentinel_away",
		KV_Z("sentinel",
			s->addresses.n
				? redis_address_text(&s->addresses.address[s->address_at], text)
				: s->server.host),
		KV_Z("why", why), KV_Z("hint", hint ? hint : ""));
}

static void on_sentinel_ready(void *owner)
{
	struct sentinel *s = owner;
	s->asked = false;
	redis_conn_is_good(s->conn);
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

static bool read_master(const struct redisReply *r, struct redis_address *out)
{
	char port[8];
	char *end;

	if (r->type != REDIS_REPLY_ARRAY || r->elements != 2)
		return false;
	const struct redisReply *ip = r->element[0], *number = r->element[1];
	if (ip->type != REDIS_REPLY_STRING || number->type != REDIS_REPLY_STRING ||
		(size_t)ip->len >= sizeof out->host || (size_t)number->len >= sizeof port ||
		number->len == 0 || memchr(ip->str, '\0', (size_t)ip->len))
		return false;
	memset(out, 0, sizeof *out);
	memcpy(out->host, ip->str, (size_t)ip->len);
	memcpy(port, number->str, (size_t)number->len);
	port[number->len] = '\0';
	unsigned long value = strtoul(port, &end, 10);
	if (*end || value == 0 || value > UINT16_MAX || !redis_address_is_numeric(out->host))
		return false;
	out->port = (uint16_t)value;
	return true;
}

static void on_sentinel_reply(void *owner, const struct redisReply *r)
{
	struct sentinel *s = owner;
	struct redis_address master;
	usec_t now = clock_steady();

	s->asked = false;
	if (!read_master(r, &master)) {
		sentinel_is_away(s,
			r->type == REDIS_REPLY_ERROR ? r->str
			: r->type == REDIS_REPLY_NIL
				? "it knows no master of that name"
				: "what it says of the master is no address and port",
			r->type == REDIS_REPLY_NIL
				? "see redis.master"
				: "names in place of addresses are not followed: set "
				  "announce-hostnames no");
		return;
	}
	if (!s->heard_at || !redis_address_eq(&s->master, &master))
		s->changed_at = now;
	s->master = master;
	s->heard_at = now;
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
	all->n = settings->server_n;

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
		good = s->conn != NULL;
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
	for (unsigned i = 0; i < all->n; i++)
		redis_conn_free(all->sentinel[i].conn);
	free(all);
}
