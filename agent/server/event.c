#include "server/event.h"

#include "server/ring.h"

#include <stdatomic.h>
#include <stdlib.h>

struct event_ring {
	struct ring *ring;
	unsigned half; /* of its places: those of shadow mode leave as many to denials */
	_Atomic(uint64_t) dropped[2]; /* denials, and of shadow mode; the putting side writes it */
};

struct event_ring *event_ring_new(unsigned capacity)
{
	struct event_ring *e = calloc(1, sizeof *e);
	if (!e)
		return NULL;
	e->half = capacity / 2;
	e->ring = ring_new(capacity, sizeof(struct event));
	if (!e->ring) {
		event_ring_free(e);
		return NULL;
	}
	return e;
}

void event_ring_free(struct event_ring *e)
{
	if (!e)
		return;
	ring_free(e->ring);
	free(e);
}

static void count_dropped(struct event_ring *e, bool shadow)
{
	uint64_t n = atomic_load_explicit(&e->dropped[shadow], memory_order_relaxed);
	atomic_store_explicit(&e->dropped[shadow], n + 1, memory_order_relaxed);
}

bool event_ring_put(struct event_ring *e, const struct event *event)
{
	if (ring_put(e->ring, event))
		return true;
	count_dropped(e, event->shadow);
	return false;
}

bool event_ring_has_room(struct event_ring *e, bool shadow)
{
	if (ring_room(e->ring) > (shadow ? e->half : 0))
		return true;
	count_dropped(e, shadow);
	return false;
}

bool event_ring_get(struct event_ring *e, struct event *event)
{
	return ring_get(e->ring, event);
}

uint64_t event_ring_dropped(const struct event_ring *e, bool shadow)
{
	return atomic_load_explicit(&e->dropped[shadow], memory_order_relaxed);
}
