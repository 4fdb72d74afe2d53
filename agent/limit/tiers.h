/* Who is on which tier, as the tiers file says it: a key, a user, or sha256:HEX of a secret one. */
#ifndef LIMIT_TIERS_H
#define LIMIT_TIERS_H

#include "base/str.h"

#include <stdint.h>

struct tier_map; /* KEY-OR-USER -> tier, from the tiers file; may hold sha256:HEX of keys */

struct tier_map *tier_map_new(void); /* NULL: out of memory */
/* `name` is KEY, USER or sha256:HEX. Of equal names the first counts (as HAProxy's maps have it).
 * false: out of memory. */
bool tier_map_add(struct tier_map *, struct str name, unsigned tier);
/* Whether it was added already. */
bool tier_map_has(const struct tier_map *, struct str name);
void tier_map_free(struct tier_map *);

/* The tier of a key or user, -1: it is not there. Only a `secret` value is also looked for by its
 * hash. */
int64_t tier_map_find(const struct tier_map *, struct str name, bool secret);
/* By the hash of a secret value, 64 digits in lower case: where the file has it so. -1: it has not.
 */
int64_t tier_map_find_hash(const struct tier_map *, struct str hex);

#endif
