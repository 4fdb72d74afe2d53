/* I/O buffers of one worker. A connection borrows one while it has bytes in it, and an idle
 * connection holds none: some few buffers, warm in the cache, serve thousands of connections. */
#ifndef SERVER_BUFFER_H
#define SERVER_BUFFER_H

#include <stddef.h>
#include <stdint.h>

/* 0 .. begin   .. end      .. size
 *   | done     | waiting   | free | */
struct buffer {
	struct buffer *next; /* the pool's, while it is there */
	size_t size, begin, end;
	uint8_t bytes[];
};

enum { BUFFERS_IDLE_MAX = 64 }; /* what is given back beyond this goes to the system */

struct buffer_pool {
	struct buffer *idle; /* the last one put is the first to be taken: it is still warm */
	unsigned idle_n;
	size_t size;
};

void buffer_pool_init(struct buffer_pool *, size_t size);
void buffer_pool_fini(struct buffer_pool *);

/* New buffers are at least so large from now on; smaller ones end as they are given back. */
void buffer_pool_grow(struct buffer_pool *, size_t size);

/* Empty. NULL: out of memory. */
struct buffer *buffer_get(struct buffer_pool *);
void buffer_put(struct buffer_pool *, struct buffer *); /* NULL is fine */

static inline size_t buffer_waiting(const struct buffer *b)
{
	return b ? b->end - b->begin : 0;
}

/* Moves what is waiting to the front, so that all that is free is at the end. */
void buffer_pack(struct buffer *);

#endif
