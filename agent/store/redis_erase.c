#include "store/redis_erase.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

enum { REDIRECTS_MAX = 8 }; /* of one key */

struct erasing;

struct erased {
	struct node_ask asked; /* first: its reply finds it by that */
	struct erasing *all;
	struct redis_node *node; /* whom it was sent to */
	uint16_t slot;
	unsigned redirects;
	bool plain; /* it is not asked what was there: Redis before 6.2, or no string */
	size_t name_n;
	char name[REDIS_KEY_MAX];
};

struct erasing {
	struct redis_nodes *nodes;
	struct plan *plan;
	unsigned under_way;
	bool failed;
	struct erased key[];
};

static void on_reply(struct node_ask *asked, const struct redisReply *r);

static bool send_key(struct erased *k, struct redis_node *to)
{
	const char *argv[] = { "SET", k->name, "", "PX", "1", "GET" };
	size_t bytes[] = { 3, k->name_n, 0, 2, 1, 3 };

	k->asked.done = on_reply;
	k->node = to;
	return to && redis_node_ask(to, &k->asked, k->plain ? 5 : 6, argv, bytes);
}

/* Its slot is at another node of the cluster, or about to be. */
static bool is_sent_on(struct erased *k, const redisReply *r)
{
	struct redis_address to;
	uint16_t slot;

	if (!r || r->type != REDIS_REPLY_ERROR)
		return false;
	enum redis_redirect how = redis_redirect_read(
		r->str, redis_node_address(k->node), &slot, &to);
	if ((how != REDIRECT_MOVED && how != REDIRECT_ASK) || slot != k->slot ||
		++k->redirects > REDIRECTS_MAX)
		return false;
	k->asked.asking = how == REDIRECT_ASK;
	return send_key(k, redis_nodes_follow(k->all->nodes, slot, how, &to));
}

/* What stood there, as SET tells it: a bucket (redis_script.lua) with units used, or out in blocks.
 */
static enum held held_of(const redisReply *r)
{
	static const char none[8];
	enum { BLOCKS_AT = 16, BYTES = 28 };

	if (r->type == REDIS_REPLY_STATUS)
		return HELD_UNKNOWN;
	if (r->type == REDIS_REPLY_NIL || (size_t)r->len != BYTES)
		return HELD_NOTHING;
	return memcmp(r->str, none, sizeof none) != 0 ||
			       memcmp(r->str + BLOCKS_AT, none, sizeof none) != 0
		       ? HELD_SOME
		       : HELD_NOTHING;
}

/* false: it failed. */
static bool is_read(struct erased *k, const redisReply *r)
{
	if (!r || (r->type != REDIS_REPLY_STATUS && r->type != REDIS_REPLY_NIL &&
			  r->type != REDIS_REPLY_STRING))
		return false;
	k->all->plan->take[k - k->all->key].held = held_of(r);
	return true;
}

/* Its SET knows no GET, or what stands there is no string, which only a plain SET replaces: then
 * without. Neither has changed anything. */
static bool is_asked_plainly(struct erased *k, const redisReply *r)
{
	if (k->plain || !r || r->type != REDIS_REPLY_ERROR)
		return false;
	if (!strstr(r->str, "syntax") && strncmp(r->str, "WRONGTYPE", 9) != 0)
		return false;
	k->plain = true;
	return send_key(k, k->node);
}

static void on_reply(struct node_ask *asked, const struct redisReply *r)
{
	struct erased *k = (struct erased *)asked;
	struct erasing *all = k->all;
	struct plan *plan = all->plan;

	if (is_sent_on(k, r) || is_asked_plainly(k, r))
		return;
	all->failed |= !is_read(k, r);
	if (--all->under_way)
		return;
	plan->degraded = all->failed;
	free(all);
	plan->done(plan);
}

bool redis_erase(struct redis_nodes *nodes, const char *prefix, struct plan *plan)
{
	struct erasing *all = calloc(1, sizeof *all + plan->n * sizeof all->key[0]);

	if (!all)
		return false;
	all->nodes = nodes;
	all->plan = plan;
	for (unsigned i = 0; i < plan->n; i++) {
		struct erased *k = &all->key[i];
		k->all = all;
		k->slot = redis_slot(&plan->take[i]);
		k->name_n = redis_call_key(prefix, &plan->take[i], k->name);
		if (send_key(k, redis_nodes_at(nodes, k->slot)))
			all->under_way++;
		else
			all->failed = true;
	}
	if (all->under_way)
		return true;
	free(all);
	return false;
}
