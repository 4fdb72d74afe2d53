#include "server/loop_memory.h"

#include <ev.h>
#include <poll.h>
#include <stdlib.h>

void *loop_memory_get(void *p, long n, void *(*get)(void *p, size_t n), void (*wait)(void))
{
	for (unsigned i = 0; n > 0; i++) {
		void *got = get(p, (size_t)n);
		if (got || i == LOOP_MEMORY_TRIES)
			return got;
		wait();
	}
	free(p);
	return NULL;
}

static void wait_a_moment(void)
{
	(void)poll(NULL, 0, 1);
}

static void *allocate(void *p, long n)
{
	return loop_memory_get(p, n, realloc, wait_a_moment);
}

void loop_memory_init(void)
{
	ev_set_allocator(allocate);
}
