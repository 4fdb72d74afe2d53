/* A check whose limits lie in several slots of a cluster: each slot's node decides on a part of it,
 * at the same time, and what one has charged for nothing is refunded (limit/split.h). Pure but for
 * malloc(): no sockets, no clocks. */
#ifndef STORE_REDIS_PARTS_H
#define STORE_REDIS_PARTS_H

#include "limit/split.h"
#include "store/redis_call.h"

/* Which part each take is in, by the slot of its rule, and the slot of each part. Returns how many
 * parts there are. */
unsigned redis_parts_of(const struct plan *, uint8_t part_of[PLAN_MAX], uint16_t slot[PLAN_MAX]);

struct redis_parts;

/* `whole` is borrowed until it is over, and its limits are held (plan->holders) until all parts
 * are. NULL: no memory. */
struct redis_parts *redis_parts_new(struct plan *whole, const uint8_t part_of[], unsigned part_n);
/* The plan of a part. It is recognized by redis_parts_whose(). */
struct plan *redis_parts_at(struct redis_parts *, unsigned i);

/* NULL: it is a plan by itself. */
struct redis_parts *redis_parts_whose(const struct plan *part);

/* A part has come back. Returns the whole when it is over: with its verdicts, or (*failed) because
 * this is the first part that was not answered; then whoever asked need not wait for the others.
 * NULL: it is not, or was before. */
struct plan *redis_parts_back(struct redis_parts *, bool answered, bool *failed);
/* Was that the last part? Then: what has still to be done, one at a time, NULL at the end; the
 * caller's. (No memory: *lost counts it.) And then it is to be freed. */
bool redis_parts_is_over(const struct redis_parts *);
struct redis_after *redis_parts_next_after(struct redis_parts *, unsigned *lost);
void redis_parts_free(struct redis_parts *); /* NULL is fine */

/* Instead of redis_parts_back() for all parts from `first` on, which were never sent. Returns
 * whether any was: the whole is not over by itself then, and the caller answers it. */
bool redis_parts_drop(struct redis_parts *, unsigned first);

#endif
