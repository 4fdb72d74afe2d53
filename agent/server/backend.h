/* What the configuration says of Redis, as the Redis store wants to hear it. Control thread. */
#ifndef SERVER_BACKEND_H
#define SERVER_BACKEND_H

#include "config/snapshot.h"
#include "store/redis.h"
#include "store/redis_hub.h"

/* Of one worker's store. Holds the password: wipe it after use. */
struct redis_settings backend_redis_settings(const struct settings *);

/* The hub of this process; NULL: `err` says why. */
struct redis_hub *backend_hub_new(
	const struct settings *, struct ev_loop *, char *err, size_t err_size);

#endif
