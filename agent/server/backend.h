/* What this process has of Redis, where that is the store: what its workers share, what the control
 * thread asks and is told. Made from what the configuration says of Redis. Control thread. */
#ifndef SERVER_BACKEND_H
#define SERVER_BACKEND_H

#include "config/snapshot.h"
#include "store/redis.h"
#include "store/redis_changes.h"
#include "store/redis_hub.h"
#include "store/redis_tiers.h"
#include "store/redis_tls.h"

/* All NULL: the store is the memory store. */
struct redis_backend {
	struct redis_tls *tls; /* NULL: none */
	struct redis_hub *hub;
	struct redis_tiers *tiers;
	struct redis_changes *changes; /* what the operators of all agents change */
	struct redis_store *store;     /* for the admin interface: NULL without one */
};

/* Who hears of what was changed, here or at another agent (redis_changes_settings). */
struct backend_ears {
	void (*told)(void *owner, const struct str *name, const struct str *text, size_t n);
	void (*news)(void *owner, const struct str *name, const struct str *text, size_t n);
	void (*missing)(void *owner);
	void (*moved)(void *owner);
	void *owner;
};

/* All but `store`; `tiers_changed` counts. false: `err` says why, and backend_close() follows. */
bool backend_open(struct redis_backend *, const struct settings *, struct ev_loop *,
	_Atomic(uint64_t) *tiers_changed, const struct backend_ears *, char *err, size_t err_size);
void backend_close(struct redis_backend *);

/* For the stores of `workers` workers, which borrow what is in it. Holds the password: wipe it
 * after use. */
struct redis_settings backend_redis_settings(
	const struct redis_backend *, const struct settings *, unsigned workers);

/* A store of the control thread's own, beside which `memory` is the local one. */
bool backend_open_store(struct redis_backend *, const struct redis_settings *,
	struct memory_store *memory, struct ev_loop *);

/* The store of the control thread: `memory` where there is no other. */
struct store *backend_store(const struct redis_backend *, struct memory_store *memory);

/* Whether that one, if there is one, is answered by Redis. */
bool backend_is_up(const struct redis_backend *);

/* Whether what operators have changed is known here, or it is refused to tell. */
bool backend_knows_changes(const struct redis_backend *);

/* What of the settings may change while it runs, and has. */
void backend_apply(struct redis_backend *, const struct settings *);
bool backend_reload_tls(struct redis_backend *, char *err, size_t err_size);

/* Tells the other agents; text NULL: it is gone. Its number, as redis_changes_put(). */
uint64_t backend_share(struct redis_backend *, const char *name, const char *text);
struct redis_changes_state backend_shared(const struct redis_backend *);
bool backend_changes_trouble(const struct redis_backend *, struct redis_changes_trouble *);

#endif
