/* Who takes most of a stream of (key, weight), in constant memory: a space-saving sketch (Metwally,
 * Agrawal, El Abbadi 2005). Of all that was added since sketch_begin(), of weight `total`:
 *
 *   - every key whose weight is more than total / SKETCH_ITEMS has an item;
 *   - an item's count is at least its key's weight, and beyond it by at most its error;
 *   - a key without an item has a weight of at most `least`, which is at most total / SKETCH_ITEMS.
 *
 * One thread writes, any may read meanwhile; neither waits. No allocation after sketch_new(). */
#ifndef BASE_SKETCH_H
#define BASE_SKETCH_H

#include "base/hash.h"

#include <stdbool.h>

enum { SKETCH_ITEMS = 256, SKETCH_NAME_MAX = 128 };

struct sketch;

struct sketch *sketch_new(void); /* about 50 KiB; of epoch 0. NULL: out of memory */
void sketch_free(struct sketch *);

/* ---- the writer ---- */

/* Forgets everything, and is of that epoch from now on. */
void sketch_begin(struct sketch *, uint64_t epoch);
/* Adds to the key's item. false: it has none, nothing was added, and sketch_put() is to be called
 * with its name. Keys are hashes already. */
bool sketch_count(struct sketch *, struct key, uint64_t weight);
/* A key without an item gets one, if need be that of the key with the least count. `name` is cut.
 */
void sketch_put(struct sketch *, struct key, uint64_t weight, uint32_t group, struct str name);

/* ---- readers ---- */

struct sketch_item {
	char name[SKETCH_NAME_MAX + 1];
	uint32_t group; /* what the writer says */
	uint64_t count, error;
};

struct sketch_sum {
	unsigned n;
	uint64_t total;
	uint64_t least; /* 0 while there is room */
};

/* Each item is whole; what is added meanwhile may be in it or not. false: not of that epoch (any
 * more). */
bool sketch_read(const struct sketch *, uint64_t epoch, struct sketch_item item[SKETCH_ITEMS],
	struct sketch_sum *);

#endif
