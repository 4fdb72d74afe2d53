#include "server/buffer.h"

#include <stdlib.h>
#include <string.h>

void buffer_pool_init(struct buffer_pool *pool, size_t size)
{
	*pool = (struct buffer_pool){ .size = size };
}

void buffer_pool_fini(struct buffer_pool *pool)
{
	while (pool->idle) {
		struct buffer *b = pool->idle;
		pool->idle = b->next;
		free(b);
	}
	pool->idle_n = 0;
}

void buffer_pool_grow(struct buffer_pool *pool, size_t size)
{
	if (size <= pool->size)
		return;
	buffer_pool_fini(pool);
	pool->size = size;
}

struct buffer *buffer_get(struct buffer_pool *pool)
{
	struct buffer *b = pool->idle;
	if (b) {
		pool->idle = b->next;
		pool->idle_n--;
	} else {
		b = malloc(sizeof *b + pool->size);
		if (!b)
			return NULL;
		b->size = pool->size;
	}
	b->next = NULL;
	b->begin = b->end = 0;
	return b;
}

void buffer_put(struct buffer_pool *pool, struct buffer *b)
{
	if (!b)
		return;
	if (b->size < pool->size || pool->idle_n == BUFFERS_IDLE_MAX) {
		free(b);
		return;
	}
	b->next = pool->idle;
	pool->idle = b;
	pool->idle_n++;
}

void buffer_pack(struct buffer *b)
{
	if (!b->begin)
		return;
	memmove(b->bytes, b->bytes + b->begin, b->end - b->begin);
	b->end -= b->begin;
	b->begin = 0;
}
