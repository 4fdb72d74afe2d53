#include "store/redis_hub.h"

#include "base/log.h"
#include "store/redis_conn.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK           0.5 /* seconds */
#define RESOLVE_EVERY  USEC_PER_SEC
#define ASK_EVERY      USEC_PER_SEC          /* the sentinels */
#define ASK_SOONEST    (100 * USEC_PER_MSEC) /* when a store wants to know */
#define ANSWER_WITHIN  USEC_PER_SEC
#define NAMED_WITHIN   USEC_PER_SEC
#define OPINION_LASTS  (5 * USEC_PER_SEC)
#define BACK_AFTER     USEC_PER_SEC
#define COMPLAIN_EVERY (10 * USEC_PER_SEC)

/* ---- addresses ---- */

bool redis_address_eq(const struct redis_address *a, const struct redis_address *b)
{
	return a->port == b->port && strcmp(a->host, b->host) == 0;
}

const char *redis_address_text(const struct redis_address *a, char out[REDIS_ADDRESS_TEXT_MAX])
{
	if (!a->port)
		snprintf(out, REDIS_ADDRESS_TEXT_MAX, "%s", a->host);
	else if (strchr(a->host, ':'))
		snprintf(out, REDIS_ADDRESS_TEXT_MAX, "[%s]:%u", a->host, (unsigned)a->port);
	else
		snprintf(out, REDIS_ADDRESS_TEXT_MAX, "%s:%u", a->host, (unsigned)a->port);
	return out;
}

static bool is_numeric(const char *host)
{
	struct in6_addr any;
	return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

/* What needs no looking up. */
static bool address_of(const struct redis_host *s, struct redis_address *out)
{
	size_t n = strlen(s->host);

	if ((s->host[0] != '/' && !is_numeric(s->host)) || n >= sizeof out->host)
		return false;
	memcpy(out->host, s->host, n + 1);
	out->port = s->port;
	return true;
}

static bool addresses_eq(const struct redis_addresses *a, const struct redis_addresses *b)
{
	if (a->n != b->n)
		return false;
	for (unsigned i = 0; i < a->n; i++)
		if (!redis_address_eq(&a->address[i], &b->address[i]))
			return false;
	return true;
}

/* ---- the resolver: a thread that may hang in getaddrinfo(), and then is left behind ---- */

struct resolved {
	struct redis_addresses addresses;
	char why[96];      /* "": found */
	unsigned answered; /* times */
};

struct resolver {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* under the lock */
	unsigned refs; /* the hub's, the thread's */
	bool stop, wanted;
	struct ev_loop *loop;
	ev_async *bell;
	struct resolved result[REDIS_SERVERS_MAX];
	/* set once */
	struct redis_host server[REDIS_SERVERS_MAX];
	unsigned server_n;
};

static void resolve(const struct redis_host *s, struct resolved *out)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG
	};
	struct addrinfo *found = NULL;
	struct redis_addresses *a = &out->addresses;

	*out = (struct resolved){ 0 };
	int rc = getaddrinfo(s->host, NULL, &hints, &found);
	if (rc) {
		snprintf(out->why, sizeof out->why, "%s",
			rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
		return;
	}
	for (struct addrinfo *i = found; i && a->n < REDIS_ADDRESSES_MAX; i = i->ai_next) {
		struct redis_address *next = &a->address[a->n];
		if (getnameinfo(i->ai_addr, i->ai_addrlen, next->host, sizeof next->host, NULL, 0,
			    NI_NUMERICHOST) != 0)
			continue;
		next->port = s->port;
		a->n++;
	}
	freeaddrinfo(found);
	if (!a->n)
		snprintf(out->why, sizeof out->why, "it has no address");
}

static void resolver_unref(struct resolver *r) /* with the lock held */
{
	bool last = --r->refs == 0;
	pthread_mutex_unlock(&r->lock);
	if (!last)
		return;
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static void *resolver_run(void *arg)
{
	struct resolver *r = arg;
	struct redis_address plain;
	struct resolved found;

	(void)pthread_setname_np(pthread_self(), "resolver");
	pthread_mutex_lock(&r->lock);
	while (!r->stop) {
		if (!r->wanted) {
			pthread_cond_wait(&r->wake, &r->lock);
			continue;
		}
		r->wanted = false;
		for (unsigned i = 0; i < r->server_n && !r->stop; i++) {
			if (address_of(&r->server[i], &plain))
				continue;
			pthread_mutex_unlock(&r->lock);
			resolve(&r->server[i], &found);
			pthread_mutex_lock(&r->lock);
			found.answered = r->result[i].answered + 1;
			r->result[i] = found;
			if (!r->stop)
				ev_async_send(r->loop, r->bell);
		}
	}
	resolver_unref(r);
	return NULL;
}

static struct resolver *resolver_new(
	const struct redis_hub_settings *s, struct ev_loop *loop, ev_async *bell)
{
	struct resolver *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->wake, NULL);
	r->loop = loop;
	r->bell = bell;
	r->server_n = s->server_n;
	memcpy(r->server, s->server, s->server_n * sizeof r->server[0]);
	r->refs = 2;
	r->wanted = true;

	pthread_t thread;
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(&thread, NULL, resolver_run, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc) {
		r->refs = 1;
		pthread_mutex_lock(&r->lock);
		resolver_unref(r);
		return NULL;
	}
	pthread_detach(thread);
	return r;
}

static void resolver_wake(struct resolver *r)
{
	pthread_mutex_lock(&r->lock);
	r->wanted = true;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
}

static void resolver_free(struct resolver *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_signal(&r->wake);
	resolver_unref(r);
}

/* ---- the hub ---- */

struct sentinel {
	struct redis_hub *hub;
	struct redis_host server;
	struct redis_addresses addresses;
	unsigned address_at, answered;
	struct redis_conn *conn;
	bool asked; /* and has not answered yet */
	usec_t asked_at;
	/* Who is master, by what it said last. */
	struct redis_address master;
	usec_t heard_at, changed_at; /* heard_at 0: never */
};

struct redis_hub {
	/* the control thread's own */
	struct redis_hub_settings settings;
	struct ev_loop *loop;
	ev_async bell; /* sent by stores and the resolver */
	ev_timer tick;
	struct resolver *resolver; /* NULL: there are no names */
	usec_t started_at, resolved_at, asked_at;
	struct sentinel *sentinel; /* server_n of them, or of a single server's */
	struct redis_listener self;

	_Atomic(bool) wants_to_know; /* some store does */

	pthread_mutex_t lock;
	/* under the lock */
	struct redis_addresses addresses;
	struct redis_listener *listeners;
	unsigned away_n;
	usec_t away_since, back_since; /* 0: not told / not all are back */
};

static usec_t hub_now(void)
{
	return clock_steady();
}

static void publish(struct redis_hub *h, const struct redis_addresses *a)
{
	pthread_mutex_lock(&h->lock);
	if (!addresses_eq(&h->addresses, a)) {
		uint64_t generation = h->addresses.generation + 1;
		h->addresses = *a;
		h->addresses.generation = generation;
		h->addresses.master_only = h->settings.mode == REDIS_SENTINEL;
		for (struct redis_listener *l = h->listeners; l; l = l->next)
			ev_async_send(l->loop, l->bell);
	}
	pthread_mutex_unlock(&h->lock);
	if (a->n)
		redis_hub_back(h, &h->self);
}

static void copy_resolved(struct redis_hub *h)
{
	if (!h->resolver)
		return;
	pthread_mutex_lock(&h->resolver->lock);
	for (unsigned i = 0; i < h->settings.server_n; i++) {
		struct sentinel *s = &h->sentinel[i];
		const struct resolved *r = &h->resolver->result[i];
		if (r->answered == s->answered)
			continue;
		s->answered = r->answered;
		if (!r->why[0]) {
			s->addresses = r->addresses;
			s->address_at = 0;
			continue;
		}
		/* What it was found to be before is better than nothing. */
		log_warning_every(COMPLAIN_EVERY, "redis_name_unknown",
			KV_Z("name", s->server.host), KV_Z("why", r->why));
		if (!s->addresses.n && h->settings.mode == REDIS_SINGLE)
			redis_hub_away(h, &h->self, "its name is not known",
				"see redis.servers, and the resolver of this machine", NULL);
	}
	pthread_mutex_unlock(&h->resolver->lock);
}

static void resolve_again(struct redis_hub *h, usec_t now)
{
	if (!h->resolver || now - h->resolved_at < RESOLVE_EVERY)
		return;
	h->resolved_at = now;
	resolver_wake(h->resolver);
}

static bool all_resolved(const struct redis_hub *h)
{
	for (unsigned i = 0; i < h->settings.server_n; i++)
		if (!h->sentinel[i].addresses.n)
			return false;
	return true;
}

/* ---- sentinels ---- */

static void elect(struct redis_hub *h, usec_t now)
{
	struct redis_addresses a = { 0 };
	unsigned votes[REDIS_ADDRESSES_MAX] = { 0 };
	usec_t changed_at[REDIS_ADDRESSES_MAX] = { 0 };

	for (unsigned i = 0; i < h->settings.server_n; i++) {
		const struct sentinel *s = &h->sentinel[i];
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
		publish(h, &sorted);
	/* Nobody has an opinion any more: what they said last is still the best guess. */
}

static void ask(struct sentinel *s, usec_t now)
{
	const char *argv[] = { "SENTINEL", "get-master-addr-by-name", s->hub->settings.master };
	size_t bytes[] = { 8, 23, strlen(s->hub->settings.master) };

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

static void ask_all(struct redis_hub *h, usec_t now, usec_t soonest)
{
	if (now - h->asked_at < soonest)
		return;
	h->asked_at = now;
	for (unsigned i = 0; i < h->settings.server_n; i++)
		ask(&h->sentinel[i], now);
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
	ask(s, hub_now());
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
	atomic_store(&s->hub->wants_to_know, true);
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
	if (*end || value == 0 || value > UINT16_MAX || !is_numeric(out->host))
		return false;
	out->port = (uint16_t)value;
	return true;
}

static void on_sentinel_reply(void *owner, const struct redisReply *r)
{
	struct sentinel *s = owner;
	struct redis_address master;
	usec_t now = hub_now();

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
	elect(s->hub, now);
}

static const struct redis_conn_events sentinel_events = {
	on_sentinel_ready,
	on_sentinel_lost,
	on_sentinel_failed,
	on_sentinel_reply,
};

/* ---- the control loop ---- */

static void look(struct redis_hub *h)
{
	copy_resolved(h);
	if (h->settings.mode == REDIS_SINGLE) {
		if (h->sentinel[0].addresses.n)
			publish(h, &h->sentinel[0].addresses);
		return;
	}
	for (unsigned i = 0; i < h->settings.server_n; i++) {
		struct sentinel *s = &h->sentinel[i];
		if (s->addresses.n && !redis_conn_is_ready(s->conn))
			redis_conn_use(s->conn, &s->addresses.address[s->address_at], false);
	}
}

static void on_bell(struct ev_loop *loop, ev_async *bell, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_hub *h = bell->data;
	usec_t now = hub_now();
	if (atomic_load(&h->wants_to_know)) {
		if (h->settings.mode == REDIS_SENTINEL)
			ask_all(h, now, ASK_SOONEST);
		resolve_again(h, now);
	}
	look(h);
}

static void tell_back(struct redis_hub *h, usec_t now)
{
	pthread_mutex_lock(&h->lock);
	usec_t since = h->away_since, back = h->back_since;
	bool tell = since && !h->away_n && now - back >= BACK_AFTER;
	if (tell)
		h->away_since = 0;
	pthread_mutex_unlock(&h->lock);
	if (tell)
		log_info("store_recovered", KV_INT("away_s", (back - since) / USEC_PER_SEC));
}

static void on_tick(struct ev_loop *loop, ev_timer *tick, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_hub *h = tick->data;
	usec_t now = hub_now();
	if (atomic_exchange(&h->wants_to_know, false) || !all_resolved(h))
		resolve_again(h, now);
	if (h->settings.mode == REDIS_SENTINEL) {
		ask_all(h, now, ASK_EVERY);
		elect(h, now);
		if (!h->addresses.n && now - h->started_at > NAMED_WITHIN)
			redis_hub_away(h, &h->self, "no sentinel has named the master yet",
				"see redis.servers and redis.master", NULL);
	}
	look(h);
	tell_back(h, now);
}

/* ---- what others call ---- */

void redis_hub_listen(struct redis_hub *h, struct redis_listener *l)
{
	pthread_mutex_lock(&h->lock);
	l->away = false;
	l->next = h->listeners;
	l->link = &h->listeners;
	if (l->next)
		l->next->link = &l->next;
	h->listeners = l;
	if (h->addresses.n)
		ev_async_send(l->loop, l->bell);
	pthread_mutex_unlock(&h->lock);
}

void redis_hub_leave(struct redis_hub *h, struct redis_listener *l)
{
	pthread_mutex_lock(&h->lock);
	if (l->link) {
		*l->link = l->next;
		if (l->next)
			l->next->link = l->link;
		l->link = NULL;
	}
	if (l->away && --h->away_n == 0)
		h->back_since = hub_now();
	l->away = false;
	pthread_mutex_unlock(&h->lock);
}

struct redis_addresses redis_hub_addresses(struct redis_hub *h)
{
	pthread_mutex_lock(&h->lock);
	struct redis_addresses a = h->addresses;
	pthread_mutex_unlock(&h->lock);
	return a;
}

void redis_hub_ask_again(struct redis_hub *h)
{
	if (!h->resolver && h->settings.mode == REDIS_SINGLE)
		return;
	if (!atomic_exchange(&h->wants_to_know, true))
		ev_async_send(h->loop, &h->bell);
}

void redis_hub_away(struct redis_hub *h, struct redis_listener *l, const char *why,
	const char *hint, const struct redis_address *address)
{
	char text[REDIS_ADDRESS_TEXT_MAX];

	pthread_mutex_lock(&h->lock);
	bool tell = !l->away && !h->away_since;
	if (!l->away) {
		l->away = true;
		h->away_n++;
	}
	if (tell)
		h->away_since = hub_now();
	pthread_mutex_unlock(&h->lock);
	if (!tell)
		return;
	log_warning("store_degraded", KV_Z("why", why),
		KV_Z("server", address ? redis_address_text(address, text) : ""),
		KV_Z("hint", hint ? hint : "see whether Redis runs, and can be reached from here"));
}

void redis_hub_back(struct redis_hub *h, struct redis_listener *l)
{
	pthread_mutex_lock(&h->lock);
	if (l->away && --h->away_n == 0)
		h->back_since = hub_now();
	l->away = false;
	pthread_mutex_unlock(&h->lock);
}

static bool servers_init(struct redis_hub *h, const struct redis_host *server)
{
	bool names = false;

	h->sentinel = calloc(h->settings.server_n, sizeof *h->sentinel);
	if (!h->sentinel)
		return false;
	for (unsigned i = 0; i < h->settings.server_n; i++) {
		struct sentinel *s = &h->sentinel[i];
		s->hub = h;
		s->server = server[i];
		if (address_of(&server[i], &s->addresses.address[0]))
			s->addresses.n = 1;
		else
			names = true;
	}
	if (names) {
		h->resolver = resolver_new(&h->settings, h->loop, &h->bell);
		if (!h->resolver)
			return false;
	}
	h->settings.server = NULL;
	if (h->settings.mode == REDIS_SINGLE)
		return true;
	struct redis_conn_settings c = {
		.auth_if_asked = true,
		.open_within = ANSWER_WITHIN,
		.reply_max = 4096,
	};
	memcpy(c.username, h->settings.username, sizeof c.username);
	memcpy(c.password, h->settings.password, sizeof c.password);
	bool good = true;
	for (unsigned i = 0; i < h->settings.server_n && good; i++) {
		struct sentinel *s = &h->sentinel[i];
		s->conn = redis_conn_new(&c, &sentinel_events, s, h->loop);
		good = s->conn != NULL;
	}
	explicit_bzero(&c, sizeof c);
	return good;
}

struct redis_hub *redis_hub_new(
	const struct redis_hub_settings *settings, struct ev_loop *loop, char *err, size_t err_size)
{
	if (settings->server_n < 1 || settings->server_n > REDIS_SERVERS_MAX) {
		snprintf(err, err_size, "redis.servers: want 1 to %d", REDIS_SERVERS_MAX);
		return NULL;
	}
	if (settings->mode == REDIS_SINGLE && settings->server_n != 1) {
		snprintf(err, err_size,
			"redis.servers: mode \"single\" wants exactly one server, here are %u",
			settings->server_n);
		return NULL;
	}
	for (unsigned i = 0; i < settings->server_n; i++) {
		const struct redis_host *s = &settings->server[i];
		if (s->host[0] && (s->host[0] == '/') == (s->port == 0))
			continue;
		snprintf(err, err_size, "redis.servers: \"%s\": want host:port or an absolute path",
			s->host);
		return NULL;
	}
	struct redis_hub *h = calloc(1, sizeof *h);
	if (!h) {
		snprintf(err, err_size, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&h->lock, NULL);
	h->settings = *settings;
	h->loop = loop;
	ev_async_init(&h->bell, on_bell);
	ev_timer_init(&h->tick, on_tick, TICK, TICK);
	h->bell.data = h->tick.data = h;
	ev_async_start(loop, &h->bell);
	ev_timer_start(loop, &h->tick);
	h->started_at = h->resolved_at = hub_now();
	if (!servers_init(h, settings->server)) {
		snprintf(err, err_size, "out of memory, or no thread for the resolver");
		redis_hub_free(h);
		return NULL;
	}
	look(h);
	return h;
}

void redis_hub_free(struct redis_hub *h)
{
	if (!h)
		return;
	assert(!h->listeners);
	resolver_free(h->resolver);
	for (unsigned i = 0; h->sentinel && i < h->settings.server_n; i++)
		redis_conn_free(h->sentinel[i].conn);
	free(h->sentinel);
	ev_async_stop(h->loop, &h->bell);
	ev_timer_stop(h->loop, &h->tick);
	pthread_mutex_destroy(&h->lock);
	explicit_bzero(&h->settings, sizeof h->settings);
	free(h);
}
