/* A queue of constant-size items between exactly two threads, one that puts and one that gets:
 * bounded, never blocks. Knows nothing of what the items are. */
#ifndef SERVER_RING_H
#define SERVER_RING_H

#include <stdbool.h>
#include <stddef.h>

struct ring;

/* `capacity`: a power of two. NULL: out of memory. */
struct ring *ring_new(unsigned capacity, size_t item_bytes);
void ring_free(struct ring *);

/* The putting thread's side. false: full. */
bool ring_put(struct ring *, const void *item);
bool ring_full(const struct ring *);
unsigned ring_room(const struct ring *); /* how many more it takes, at least */
bool ring_empty(const struct ring *);

/* The getting thread's side. false: empty. */
bool ring_get(struct ring *, void *item);

#endif
