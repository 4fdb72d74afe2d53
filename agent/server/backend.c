#include "server/backend.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static_assert((int)SERVERS_MAX <= (int)REDIS_SERVERS_MAX, "all that can be configured");

struct redis_settings backend_redis_settings(const struct settings *s, struct redis_tls *tls)
{
	struct redis_settings r = {
		.db = (int)s->redis.db, .timeout = s->redis.timeout, .tls = tls
	};
	(void)snprintf(r.prefix, sizeof r.prefix, "%s", s->redis.prefix);
	(void)snprintf(r.username, sizeof r.username, "%s", s->redis.username);
	(void)snprintf(r.password, sizeof r.password, "%s", s->redis.password);
	return r;
}

struct redis_tls *backend_tls_new(const struct settings *s, char *err, size_t err_size)
{
	struct redis_tls_settings t = { 0 };
	(void)snprintf(t.ca, sizeof t.ca, "%s", s->redis.tls_ca);
	(void)snprintf(t.cert, sizeof t.cert, "%s", s->redis.tls_cert);
	(void)snprintf(t.key, sizeof t.key, "%s", s->redis.tls_key);
	(void)snprintf(t.name, sizeof t.name, "%s", s->redis.tls_name);
	return redis_tls_new(&t, err, err_size);
}

struct redis_hub *backend_hub_new(const struct settings *s, struct redis_tls *tls,
	struct ev_loop *loop, char *err, size_t err_size)
{
	struct redis_host server[SERVERS_MAX];
	struct redis_hub_settings h = {
		.mode = s->redis.mode == REDIS_KIND_SENTINEL  ? REDIS_SENTINEL
			: s->redis.mode == REDIS_KIND_CLUSTER ? REDIS_CLUSTER
							      : REDIS_SINGLE,
		.server = server,
		.server_n = s->redis.server_n,
		.tls = tls,
	};
	for (unsigned i = 0; i < s->redis.server_n; i++) {
		const struct listen_address *from = &s->redis.server[i];
		server[i] = (struct redis_host){
			.port = (uint16_t)strtoul(from->port, NULL, 10) /* checked; "": a path */
		};
		(void)snprintf(server[i].host, sizeof server[i].host, "%s",
			from->is_unix ? from->text : from->host);
	}
	(void)snprintf(h.master, sizeof h.master, "%s", s->redis.master);
	(void)snprintf(h.username, sizeof h.username, "%s", s->redis.username);
	(void)snprintf(h.password, sizeof h.password, "%s", s->redis.password);
	struct redis_hub *hub = redis_hub_new(&h, loop, err, err_size);
	explicit_bzero(&h, sizeof h);
	return hub;
}

struct redis_tiers *backend_tiers_new(const struct settings *s, struct redis_tls *tls,
	struct redis_hub *hub, struct ev_loop *loop, _Atomic(uint64_t) *changes)
{
	struct redis_tiers_settings t = {
		.tls = tls,
		.entries = (uint64_t)s->redis.tiers_cache,
		.age = s->redis.tiers_age,
		.changes = changes,
	};
	(void)snprintf(t.prefix, sizeof t.prefix, "%s", s->redis.prefix);
	(void)snprintf(t.username, sizeof t.username, "%s", s->redis.username);
	(void)snprintf(t.password, sizeof t.password, "%s", s->redis.password);
	struct redis_tiers *tiers = redis_tiers_new(&t, hub, loop);
	explicit_bzero(&t, sizeof t);
	return tiers;
}

struct redis_changes *backend_changes_new(const struct settings *s, struct redis_tls *tls,
	struct redis_hub *hub, struct ev_loop *loop,
	void (*told)(void *owner, const struct str *name, const struct str *text, size_t n),
	void (*news)(void *owner, const struct str *name, const struct str *text, size_t n),
	void (*missing)(void *owner), void *owner)
{
	struct redis_changes_settings c = { .db = (int)s->redis.db,
		.tls = tls,
		.told = told,
		.news = news,
		.missing = missing,
		.owner = owner };
	(void)snprintf(c.prefix, sizeof c.prefix, "%s", s->redis.prefix);
	(void)snprintf(c.username, sizeof c.username, "%s", s->redis.username);
	(void)snprintf(c.password, sizeof c.password, "%s", s->redis.password);
	struct redis_changes *changes = redis_changes_new(&c, hub, loop);
	explicit_bzero(&c, sizeof c);
	return changes;
}
