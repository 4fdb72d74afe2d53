#include "server/check_pool.h"

#include <stdlib.h>

void check_pool_init(struct check_pool *pool)
{
	*pool = (struct check_pool){ 0 };
}

void check_pool_fini(struct check_pool *pool)
{
	while (pool->idle) {
		struct check *next = pool->idle->next;
		free(pool->idle);
		pool->idle = next;
		pool->n--;
	}
}

struct check *check_get(struct check_pool *pool)
{
	struct check *check = pool->idle;
	if (check) {
		pool->idle = check->next;
	} else {
		if (pool->n == CHECKS_MAX || !(check = malloc(sizeof *check)))
			return NULL;
		pool->n++;
	}
	check->next = NULL;
	check->link = NULL;
	return check;
}

void check_put_back(struct check_pool *pool, struct check *check)
{
	check->next = pool->idle;
	pool->idle = check;
}
