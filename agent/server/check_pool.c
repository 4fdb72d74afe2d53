#include "server/check_pool.h"

#include "spop/session.h"

#include <stdlib.h>
#include <string.h>

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
	check->long_payload = NULL;
	return check;
}

void check_put_back(struct check_pool *pool, struct check *check)
{
	if (check->long_payload) {
		pool->long_bytes -= check->payload_n;
		free(check->long_payload);
		check->long_payload = NULL;
	}
	check->next = pool->idle;
	pool->idle = check;
}

bool check_keep_payload(struct check_pool *pool, struct check *check, const struct notify *notify,
	enum check_keep keep)
{
	size_t n = notify->payload_n;
	uint8_t *room = check->payload;

	if (check->long_payload)
		return true;
	check->truncated = notify->truncated;
	if (n > CHECK_PAYLOAD_MAX && keep == KEEP_ALL) {
		if (n > LONG_PAYLOADS_MAX - pool->long_bytes || !(room = malloc(n)))
			return false;
		pool->long_bytes += n;
		check->long_payload = room;
	} else if (n > CHECK_PAYLOAD_MAX) {
		n = CHECK_PAYLOAD_MAX;
		check->truncated = true;
	}
	memcpy(room, notify->payload, n);
	check->payload_n = (uint32_t)n;
	return true;
}
