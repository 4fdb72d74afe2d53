/* What a node of a cluster says of its slots, and where it sends a call, from any bytes as they
 * come from the wire: refused with a word on why, or a map of which every place is one. */
#include "store/redis_map.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct redis_address asked = { .host = "127.0.0.1", .port = 6379 };

static void check_map(const struct redis_map *m)
{
	bool served = false;

	if (m->node_n == 0 || m->node_n > REDIS_NODES_MAX || !redis_map_eq(m, m))
		abort();
	for (unsigned i = 0; i < REDIS_SLOTS; i++) {
		if (m->slot[i] != REDIS_NO_NODE && m->slot[i] >= m->node_n)
			abort();
		served |= m->slot[i] != REDIS_NO_NODE;
	}
	for (unsigned i = 0; i < m->node_n; i++)
		if (!redis_address_is_numeric(m->node[i].host) || m->node[i].port == 0)
			abort();
	if (!served)
		abort();
}

static void check_redirect(const char *error)
{
	uint16_t slot;
	struct redis_address to;

	switch (redis_redirect_read(error, &asked, &slot, &to)) {
	case REDIRECT_NONE:
	case REDIRECT_TRYAGAIN:
		break;
	case REDIRECT_MOVED:
	case REDIRECT_ASK:
		if (slot >= REDIS_SLOTS || to.port == 0 ||
			(to.host[0] && !redis_address_is_numeric(to.host)))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	redisReader *reader = redisReaderCreate();
	void *reply = NULL;
	char why[160] = "";

	/* What arrays announce is bounded in redis_conn.c; here by what hiredis would allocate. */
	for (size_t i = 0; i + 6 < n; i++)
		if (data[i] == '*' && memchr(data + i, '\n', 6) == NULL)
			n = i;
	redisReaderFeed(reader, (const char *)data, n);
	if (redisReaderGetReply(reader, &reply) == REDIS_OK && reply) {
		const redisReply *r = reply;
		struct redis_map *m = redis_map_read(reply, &asked, why, sizeof why);
		if (m)
			check_map(m);
		else if (!why[0] && !(r->type == REDIS_REPLY_ERROR && !r->str[0]))
			abort();
		redis_map_unref(m);
		if (r->type == REDIS_REPLY_ERROR)
			check_redirect(r->str);
		freeReplyObject(reply);
	}
	redisReaderFree(reader);
	return 0;
}
