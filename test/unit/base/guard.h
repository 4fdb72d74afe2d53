/* Bytes that end where a page begins that nobody may touch: reading or writing one too many ends
 * the test, whatever the allocator rounds up to. */
#ifndef TEST_GUARD_H
#define TEST_GUARD_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct guard {
	uint8_t *map;
	size_t map_n;
	uint8_t *end; /* the first byte that may not be touched */
};

static inline struct guard guard_new(size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (n / page + 1) * page;
	struct guard g = { .map_n = body + page };

	g.map = mmap(NULL, g.map_n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (g.map == MAP_FAILED || mprotect(g.map + body, page, PROT_NONE) != 0)
		abort();
	g.end = g.map + body;
	return g;
}

static inline void guard_free(struct guard *g)
{
	(void)munmap(g->map, g->map_n);
}

/* A copy of `n` bytes that ends at the page. */
static inline uint8_t *guard_copy(struct guard *g, const void *p, size_t n)
{
	if (n)
		memcpy(g->end - n, p, n);
	return g->end - n;
}

#endif
