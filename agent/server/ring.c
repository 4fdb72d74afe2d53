#include "server/ring.h"

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* head and tail only ever grow (and wrap around as unsigned do); the slot is their remainder. Each
 * has one writer. Apart on two cache lines, so that the two sides do not take them from each other
 * at every item. */
struct ring {
	alignas(64) _Atomic(unsigned) head; /* the putting side writes it */
	alignas(64) _Atomic(unsigned) tail; /* the getting side writes it */
	alignas(64) unsigned mask;
	size_t item_bytes;
	uint8_t *items;
};

struct ring *ring_new(unsigned capacity, size_t item_bytes)
{
	assert(capacity && (capacity & (capacity - 1)) == 0);
	struct ring *r = aligned_alloc(64, sizeof *r);
	if (!r)
		return NULL;
	memset(r, 0, sizeof *r);
	r->mask = capacity - 1;
	r->item_bytes = item_bytes;
	r->items = calloc(capacity, item_bytes);
	if (!r->items) {
		ring_free(r);
		return NULL;
	}
	return r;
}

void ring_free(struct ring *r)
{
	if (!r)
		return;
	free(r->items);
	free(r);
}

static uint8_t *slot(struct ring *r, unsigned at)
{
	return r->items + (size_t)(at & r->mask) * r->item_bytes;
}

unsigned ring_room(const struct ring *r)
{
	unsigned head = atomic_load_explicit(&r->head, memory_order_relaxed);
	unsigned tail = atomic_load_explicit(&r->tail, memory_order_acquire);
	return r->mask + 1 - (head - tail);
}

bool ring_full(const struct ring *r)
{
	return ring_room(r) == 0;
}

bool ring_empty(const struct ring *r)
{
	unsigned head = atomic_load_explicit(&r->head, memory_order_relaxed);
	return head == atomic_load_explicit(&r->tail, memory_order_acquire);
}

bool ring_put(struct ring *r, const void *item)
{
	if (ring_full(r))
		return false;
	unsigned head = atomic_load_explicit(&r->head, memory_order_relaxed);
	memcpy(slot(r, head), item, r->item_bytes);
	atomic_store_explicit(&r->head, head + 1, memory_order_release);
	return true;
}

bool ring_get(struct ring *r, void *item)
{
	unsigned tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	unsigned head = atomic_load_explicit(&r->head, memory_order_acquire);
	if (head == tail)
		return false;
	memcpy(item, slot(r, tail), r->item_bytes);
	atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
	return true;
}
