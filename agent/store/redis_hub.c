#include "store/redis_hub.h"

#include "base/log.h"
#include "store/redis_hints.h"
#include "store/redis_map.h"
#include "store/redis_cluster.h"
#include "store/redis_resolver.h"
#include "store/redis_sentinel.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK             0.5 /* seconds */
#define RESOLVE_EVERY    USEC_PER_SEC
#define ASK_EVERY        USEC_PER_SEC          /* sentinels, nodes */
#define ASK_SOONEST      (100 * USEC_PER_MSEC) /* when a store wants to know */
#define NAMED_WITHIN     USEC_PER_SEC
#define BACK_AFTER       USEC_PER_SEC
#define TELL_AGAIN_AFTER (60 * USEC_PER_SEC)
#define COMPLAIN_EVERY   (10 * USEC_PER_SEC)

/* ---- the hub ---- */

/* As configured, and what it was found to be. */
struct seed {
	struct redis_host server;
	struct redis_addresses addresses;
	unsigned answered; /* by the resolver */
};

struct redis_hub {
	/* the control thread's own */
	struct redis_hub_settings settings;
	struct ev_loop *loop;
	ev_async bell; /* sent by stores and the resolver */
	ev_timer tick;
	struct redis_resolver *resolver;   /* NULL: there are no names */
	struct redis_sentinels *sentinels; /* REDIS_SENTINEL */
	struct redis_cluster *cluster;     /* REDIS_CLUSTER */
	usec_t started_at, resolved_at;
	struct seed *seed; /* settings.server_n of them */
	struct redis_listener self;
	bool in_doubt; /* the map has been asked for by a store */

	_Atomic(bool) wants_to_know; /* some store does */

	pthread_mutex_t lock;
	/* under the lock */
	struct redis_addresses addresses;
	struct redis_map *map; /* REDIS_CLUSTER; NULL: none yet */
	struct redis_listener *listeners;
	unsigned away_n;
	usec_t away_since, back_since; /* 0: not told / not all are back */
	struct redis_hub_away away;    /* but for its `since` */
	/* What is to be done changes while it is away: first nobody listens, then the password is
	 * a wrong one. The first such change is told at once, others after a while. */
	char told_hint[sizeof((struct redis_hub_away *)0)->hint];
	usec_t told_again_at; /* 0: not yet */
	struct {
		struct redis_address address;
		usec_t at;
	} worked[REDIS_NODES_MAX];
	unsigned worked_n;
};

static usec_t hub_now(void)
{
	return clock_steady();
}

static void ring_all(struct redis_hub *h) /* with the lock held */
{
	for (struct redis_listener *l = h->listeners; l; l = l->next)
		ev_async_send(l->loop, l->bell);
}

static void publish(struct redis_hub *h, const struct redis_addresses *a)
{
	pthread_mutex_lock(&h->lock);
	if (!redis_addresses_eq(&h->addresses, a)) {
		uint64_t generation = h->addresses.generation + 1;
		h->addresses = *a;
		h->addresses.generation = generation;
		h->addresses.master_only = h->settings.mode == REDIS_SENTINEL;
		ring_all(h);
	}
	pthread_mutex_unlock(&h->lock);
	if (a->n)
		redis_hub_back(h, &h->self);
}

static void publish_map(struct redis_hub *h, struct redis_map *m)
{
	struct redis_map *old = m;

	pthread_mutex_lock(&h->lock);
	/* Also the same once more, to who has been led elsewhere since. */
	if (!h->map || h->in_doubt || !redis_map_eq(h->map, m)) {
		h->in_doubt = false;
		old = h->map;
		m->generation = old ? old->generation + 1 : 1;
		h->map = m;
		ring_all(h);
	}
	pthread_mutex_unlock(&h->lock);
	redis_map_unref(old);
	redis_hub_back(h, &h->self);
}

static void copy_resolved(struct redis_hub *h)
{
	for (unsigned i = 0; h->resolver && i < h->settings.server_n; i++) {
		struct seed *s = &h->seed[i];
		struct redis_resolved r = redis_resolver_get(h->resolver, i);
		if (r.answered == s->answered)
			continue;
		s->answered = r.answered;
		if (!r.why[0]) {
			s->addresses = r.addresses;
			continue;
		}
		/* What it was found to be before is better than nothing. */
		log_warning_every(COMPLAIN_EVERY, "redis_name_unknown",
			KV_Z("name", s->server.host), KV_Z("why", r.why));
		if (!s->addresses.n && h->settings.mode == REDIS_SINGLE)
			redis_hub_away(h, &h->self, "its name is not known",
				"see redis.servers, and the resolver of this machine", NULL);
	}
}

static void resolve_again(struct redis_hub *h, usec_t now)
{
	if (now - h->resolved_at < RESOLVE_EVERY)
		return;
	h->resolved_at = now;
	if (h->resolver)
		redis_resolver_wake(h->resolver);
	if (h->sentinels)
		redis_sentinels_resolve(h->sentinels);
}

static bool all_resolved(const struct redis_hub *h)
{
	for (unsigned i = 0; i < h->settings.server_n; i++)
		if (!h->seed[i].addresses.n)
			return false;
	return true;
}

/* ---- the control loop ---- */

static void on_named(void *owner, const struct redis_addresses *masters)
{
	publish(owner, masters);
}

static void on_sentinel_failed(void *owner)
{
	struct redis_hub *h = owner;
	atomic_store(&h->wants_to_know, true);
}

static const struct redis_sentinels_events sentinel_events = { on_named, on_sentinel_failed };

static void on_mapped(void *owner, struct redis_map *m)
{
	publish_map(owner, m);
}

static void on_node_failed(
	void *owner, const char *why, const char *hint, const struct redis_address *node)
{
	struct redis_hub *h = owner;
	char text[REDIS_ADDRESS_TEXT_MAX];

	atomic_store(&h->wants_to_know, true);
	log_warning_every(COMPLAIN_EVERY, "redis_node_away",
		KV_Z("server", redis_address_text(node, text)), KV_Z("why", why),
		KV_Z("hint", hint ? hint : "another node is asked for the slots"));
}

static const struct redis_cluster_events cluster_events = { on_mapped, on_node_failed };

static void look(struct redis_hub *h)
{
	copy_resolved(h);
	for (unsigned i = 0; i < h->settings.server_n; i++) {
		const struct redis_addresses *a = &h->seed[i].addresses;
		switch (h->settings.mode) {
		case REDIS_SINGLE:
			if (a->n)
				publish(h, a);
			break;
		case REDIS_SENTINEL:
			redis_sentinels_use(h->sentinels, i, a);
			break;
		case REDIS_CLUSTER:
			redis_cluster_use(h->cluster, i, a);
			break;
		}
	}
}

static void ask_nodes(struct redis_hub *h, usec_t now, usec_t soonest, bool in_doubt)
{
	h->in_doubt |= in_doubt;
	redis_cluster_ask(h->cluster, now, soonest, in_doubt);
}

static void on_bell(struct ev_loop *loop, ev_async *bell, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_hub *h = bell->data;
	usec_t now = hub_now();
	if (atomic_load(&h->wants_to_know)) {
		if (h->settings.mode == REDIS_SENTINEL)
			redis_sentinels_ask(h->sentinels, now, ASK_SOONEST);
		if (h->settings.mode == REDIS_CLUSTER)
			ask_nodes(h, now, ASK_SOONEST, true);
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
	bool wanted = atomic_exchange(&h->wants_to_know, false);
	if (wanted || !all_resolved(h))
		resolve_again(h, now);
	if (h->settings.mode == REDIS_SENTINEL) {
		redis_sentinels_ask(h->sentinels, now, ASK_EVERY);
		redis_sentinels_elect(h->sentinels, now);
		if (!h->addresses.n && now - h->started_at > NAMED_WITHIN)
			redis_hub_away(h, &h->self, "no sentinel has named the master yet",
				"see redis.servers and redis.master", NULL);
	}
	if (h->settings.mode == REDIS_CLUSTER) {
		ask_nodes(h, now, wanted ? ASK_SOONEST : ASK_EVERY, wanted);
		if (!h->map && now - h->started_at > NAMED_WITHIN)
			redis_hub_away(h, &h->self, "no node has told the slots yet",
				"see redis.servers, and the log line redis_node_away", NULL);
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
	if (h->addresses.n || h->map)
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

void redis_hub_ring(struct redis_hub *h)
{
	pthread_mutex_lock(&h->lock);
	for (struct redis_listener *l = h->listeners; l; l = l->next)
		ev_async_send(l->loop, l->bell);
	pthread_mutex_unlock(&h->lock);
}

struct redis_addresses redis_hub_addresses(struct redis_hub *h)
{
	pthread_mutex_lock(&h->lock);
	struct redis_addresses a = h->addresses;
	pthread_mutex_unlock(&h->lock);
	return a;
}

struct redis_map *redis_hub_map(struct redis_hub *h)
{
	pthread_mutex_lock(&h->lock);
	struct redis_map *m = h->map ? redis_map_ref(h->map) : NULL;
	pthread_mutex_unlock(&h->lock);
	return m;
}

bool redis_hub_is_cluster(const struct redis_hub *h)
{
	return h->settings.mode == REDIS_CLUSTER;
}

struct redis_addresses redis_hub_addresses_of(struct redis_hub *h, uint16_t slot)
{
	if (!redis_hub_is_cluster(h))
		return redis_hub_addresses(h);
	struct redis_addresses a = { 0 };
	struct redis_map *map = redis_hub_map(h);
	if (map) {
		uint8_t node = map->slot[slot];
		a.generation = map->generation;
		a.n = node != REDIS_NO_NODE;
		if (a.n)
			a.address[0] = map->node[node];
	}
	redis_map_unref(map);
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
	char text[REDIS_ADDRESS_TEXT_MAX] = "";

	if (!hint)
		hint = redis_reach_hint(address);
	if (!hint)
		hint = "see whether Redis runs, and can be reached from here";
	if (address)
		(void)redis_address_text(address, text);
	pthread_mutex_lock(&h->lock);
	bool tell = !l->away && !h->away_since;
	usec_t now = hub_now();
	bool tell_again = !tell && h->away_since &&
			  strncmp(h->told_hint, hint, sizeof h->told_hint - 1) != 0 &&
			  (!h->told_again_at || now - h->told_again_at >= TELL_AGAIN_AFTER);
	if (!l->away) {
		l->away = true;
		h->away_n++;
	}
	if (tell)
		h->away_since = now;
	if (tell || tell_again) {
		h->told_again_at = tell ? 0 : now;
		snprintf(h->told_hint, sizeof h->told_hint, "%s", hint);
	}
	snprintf(h->away.why, sizeof h->away.why, "%s", why);
	snprintf(h->away.hint, sizeof h->away.hint, "%s", hint);
	memcpy(h->away.server, text, sizeof text);
	pthread_mutex_unlock(&h->lock);
	if (tell || tell_again)
		log_warning(tell ? "store_degraded" : "store_still_degraded", KV_Z("why", why),
			KV_Z("server", text), KV_Z("hint", hint));
}

bool redis_hub_is_away(struct redis_hub *h, struct redis_hub_away *out)
{
	pthread_mutex_lock(&h->lock);
	bool is = h->away_n > 0;
	if (is) {
		*out = h->away;
		out->since = h->away_since;
	}
	pthread_mutex_unlock(&h->lock);
	return is;
}

void redis_hub_back(struct redis_hub *h, struct redis_listener *l)
{
	pthread_mutex_lock(&h->lock);
	if (l->away && --h->away_n == 0)
		h->back_since = hub_now();
	l->away = false;
	pthread_mutex_unlock(&h->lock);
}

/* With the lock held; worked_n: it is not there. */
static unsigned find_worked(const struct redis_hub *h, const struct redis_address *a)
{
	unsigned i = 0;

	while (i < h->worked_n && !redis_address_eq(&h->worked[i].address, a))
		i++;
	return i;
}

void redis_hub_works(struct redis_hub *h, const struct redis_address *a)
{
	pthread_mutex_lock(&h->lock);
	unsigned at = find_worked(h, a);
	if (at == h->worked_n && h->worked_n < REDIS_NODES_MAX) {
		h->worked_n++;
	} else if (at == h->worked_n) {
		at = 0; /* the one that was heard of longest ago */
		for (unsigned i = 1; i < h->worked_n; i++)
			if (h->worked[i].at < h->worked[at].at)
				at = i;
	}
	h->worked[at].address = *a;
	h->worked[at].at = hub_now();
	pthread_mutex_unlock(&h->lock);
}

bool redis_hub_has_worked(struct redis_hub *h, const struct redis_address *a, usec_t since)
{
	pthread_mutex_lock(&h->lock);
	unsigned at = find_worked(h, a);
	bool has = at < h->worked_n && h->worked[at].at > since;
	pthread_mutex_unlock(&h->lock);
	return has;
}

static bool servers_init(struct redis_hub *h, const struct redis_hub_settings *settings)
{
	bool names = false;

	h->seed = calloc(settings->server_n, sizeof *h->seed);
	if (!h->seed)
		return false;
	for (unsigned i = 0; i < settings->server_n; i++) {
		struct seed *s = &h->seed[i];
		s->server = settings->server[i];
		if (redis_address_of(&s->server, &s->addresses.address[0]))
			s->addresses.n = 1;
		else
			names = true;
	}
	if (names) {
		h->resolver = redis_resolver_new(
			settings->server, settings->server_n, h->loop, &h->bell);
		if (!h->resolver)
			return false;
	}
	switch (settings->mode) {
	case REDIS_SINGLE:
		return true;
	case REDIS_SENTINEL:
		h->sentinels = redis_sentinels_new(settings, &sentinel_events, h, h->loop);
		return h->sentinels != NULL;
	case REDIS_CLUSTER:
		h->cluster = redis_cluster_new(settings, &cluster_events, h, h->loop);
		return h->cluster != NULL;
	}
	return false;
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
		if (settings->mode == REDIS_CLUSTER && s->host[0] == '/') {
			snprintf(err, err_size,
				"redis.servers: \"%s\": the nodes of a cluster want host:port",
				s->host);
			return NULL;
		}
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
	h->settings.server = NULL;
	h->loop = loop;
	ev_async_init(&h->bell, on_bell);
	ev_timer_init(&h->tick, on_tick, TICK, TICK);
	h->bell.data = h->tick.data = h;
	ev_async_start(loop, &h->bell);
	ev_timer_start(loop, &h->tick);
	h->started_at = h->resolved_at = hub_now();
	if (!servers_init(h, settings)) {
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
	redis_resolver_free(h->resolver);
	redis_sentinels_free(h->sentinels);
	redis_cluster_free(h->cluster);
	redis_map_unref(h->map);
	free(h->seed);
	ev_async_stop(h->loop, &h->bell);
	ev_timer_stop(h->loop, &h->tick);
	pthread_mutex_destroy(&h->lock);
	explicit_bzero(&h->settings, sizeof h->settings);
	free(h);
}
