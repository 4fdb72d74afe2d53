#include "server/backend.h"

#include "base/log.h"
#include "store/memory.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static_assert((int)SERVERS_MAX <= (int)REDIS_SERVERS_MAX, "all that can be configured");

struct redis_settings backend_redis_settings(
	const struct redis_backend *b, const struct settings *s, unsigned workers)
{
	struct redis_settings r = {
		.db = (int)s->redis.db,
		.timeout = s->redis.timeout,
		.tls = b->tls,
		.tiers = b->tiers,
		.workers = workers,
	};
	(void)snprintf(r.prefix, sizeof r.prefix, "%s", s->redis.prefix);
	(void)snprintf(r.username, sizeof r.username, "%s", s->redis.username);
	(void)snprintf(r.password, sizeof r.password, "%s", s->redis.password);
	return r;
}

static struct redis_tls *tls_new(const struct settings *s, char *err, size_t err_size)
{
	struct redis_tls_settings t = { 0 };
	(void)snprintf(t.ca, sizeof t.ca, "%s", s->redis.tls_ca);
	(void)snprintf(t.cert, sizeof t.cert, "%s", s->redis.tls_cert);
	(void)snprintf(t.key, sizeof t.key, "%s", s->redis.tls_key);
	(void)snprintf(t.name, sizeof t.name, "%s", s->redis.tls_name);
	return redis_tls_new(&t, err, err_size);
}

static struct redis_hub *hub_new(const struct settings *s, struct redis_tls *tls,
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

static struct redis_tiers *tiers_new(const struct settings *s, struct redis_tls *tls,
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

static struct redis_changes *changes_new(const struct settings *s, struct redis_tls *tls,
	struct redis_hub *hub, struct ev_loop *loop, const struct backend_ears *ears)
{
	struct redis_changes_settings c = { .db = (int)s->redis.db,
		.tls = tls,
		.told = ears->told,
		.news = ears->news,
		.missing = ears->missing,
		.moved = ears->moved,
		.owner = ears->owner };
	(void)snprintf(c.prefix, sizeof c.prefix, "%s", s->redis.prefix);
	(void)snprintf(c.username, sizeof c.username, "%s", s->redis.username);
	(void)snprintf(c.password, sizeof c.password, "%s", s->redis.password);
	struct redis_changes *changes = redis_changes_new(&c, hub, loop);
	explicit_bzero(&c, sizeof c);
	return changes;
}

bool backend_open(struct redis_backend *b, const struct settings *s, struct ev_loop *loop,
	_Atomic(uint64_t) *tiers_changed, const struct backend_ears *ears, char *err,
	size_t err_size)
{
	if (s->redis.tls && !(b->tls = tls_new(s, err, err_size)))
		return false;
	b->hub = hub_new(s, b->tls, loop, err, err_size);
	if (!b->hub)
		return false;
	b->tiers = tiers_new(s, b->tls, b->hub, loop, tiers_changed);
	if (!b->tiers) {
		(void)snprintf(err, err_size,
			"no memory for what is remembered of tiers: lower redis.tiers_cache");
		return false;
	}
	b->changes = changes_new(s, b->tls, b->hub, loop, ears);
	if (!b->changes)
		(void)snprintf(err, err_size, "no memory for the control thread: free some");
	return b->changes;
}

void backend_close(struct redis_backend *b)
{
	if (b->store)
		store_close(redis_store_base(b->store));
	redis_changes_free(b->changes);
	redis_tiers_free(b->tiers);
	redis_hub_free(b->hub);
	redis_tls_free(b->tls);
	*b = (struct redis_backend){ 0 };
}

bool backend_open_store(struct redis_backend *b, const struct redis_settings *redis,
	struct memory_store *memory, struct ev_loop *loop)
{
	b->store = redis_store_new(redis, b->hub, memory, loop);
	return b->store;
}

struct store *backend_store(const struct redis_backend *b, struct memory_store *memory)
{
	return b->store ? redis_store_base(b->store) : memory_store_base(memory);
}

bool backend_is_up(const struct redis_backend *b)
{
	return !b->store ||
	       !atomic_load_explicit(&redis_store_stats(b->store)->degraded, memory_order_relaxed);
}

bool backend_knows_changes(const struct redis_backend *b)
{
	return !b->changes || redis_changes_is_heard(b->changes);
}

void backend_apply(struct redis_backend *b, const struct settings *s)
{
	if (b->tiers)
		redis_tiers_set_age(b->tiers, s->redis.tiers_age);
	if (b->store)
		redis_store_set_timeout(b->store, s->redis.timeout);
}

bool backend_reload_tls(struct redis_backend *b, char *err, size_t err_size)
{
	return !b->tls || redis_tls_reload(b->tls, err, err_size);
}

uint64_t backend_share(struct redis_backend *b, const char *name, const char *text)
{
	uint64_t number = b->changes ? redis_changes_put(b->changes, name, text) : 0;
	if (b->changes && !number)
		log_warning_every(10 * USEC_PER_SEC, "change_not_shared", KV_Z("change", name),
			KV_Z("why", "too many wait for Redis, or no memory"));
	return number;
}

struct redis_changes_state backend_shared(const struct redis_backend *b)
{
	if (b->changes)
		return redis_changes_state(b->changes);
	return (struct redis_changes_state){ .away_since = 1 };
}

bool backend_changes_trouble(const struct redis_backend *b, struct redis_changes_trouble *t)
{
	return b->changes && redis_changes_trouble(b->changes, clock_steady(), t);
}
