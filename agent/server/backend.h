/* What the configuration says of Redis, as the Redis store wants to hear it. Control thread. */
#ifndef SERVER_BACKEND_H
#define SERVER_BACKEND_H

#include "config/snapshot.h"
#include "store/redis.h"
#include "store/redis_hub.h"
#include "store/redis_changes.h"
#include "store/redis_tiers.h"
#include "store/redis_tls.h"

/* Of one worker's store, which borrows the TLS. Holds the password: wipe it after use. */
struct redis_settings backend_redis_settings(const struct settings *, struct redis_tls *);

/* What connections to Redis share, where redis.tls is true; NULL: `err` says why. */
struct redis_tls *backend_tls_new(const struct settings *, char *err, size_t err_size);

/* The hub of this process, which borrows the TLS; NULL: `err` says why. */
struct redis_hub *backend_hub_new(
	const struct settings *, struct redis_tls *, struct ev_loop *, char *err, size_t err_size);

/* The tiers that stand there; `changes` counts theirs. NULL: out of memory. */
struct redis_tiers *backend_tiers_new(const struct settings *, struct redis_tls *,
	struct redis_hub *, struct ev_loop *, _Atomic(uint64_t) *changes);

/* What the operator changes, shared; NULL: out of memory. */
struct redis_changes *backend_changes_new(const struct settings *, struct redis_tls *,
	struct redis_hub *, struct ev_loop *,
	void (*told)(void *owner, const struct str *name, const struct str *text, size_t n),
	void (*news)(void *owner, const struct str *name, const struct str *text, size_t n),
	void (*missing)(void *owner), void *owner);

#endif
