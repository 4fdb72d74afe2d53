/* What an operator can do about an error that Redis answered, or about no answer. Pure. */
#ifndef STORE_REDIS_HINTS_H
#define STORE_REDIS_HINTS_H

#include <stdbool.h>

struct redis_address;

const char *redis_error_hint(const char *error); /* NULL: no idea */
/* Of such an error: whoever says something runs, and can be reached. */
#define REDIS_SEE_LOG "see the log of Redis"
/* The error itself: before Redis 7 what a script's own command met has words of the script's around
 * it. */
const char *redis_error_core(const char *error);
/* Whether it is one that a replica answers. */
bool redis_error_is_of_replica(const char *error);

/* Of a server or sentinel that cannot be reached (NULL: some one), where its address is a reason;
 * else NULL. */
const char *redis_reach_hint(const struct redis_address *);

#endif
