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
	const char *argv[] = { "SET", k->name, "", "PX", "1" };
	size_t bytes[] = { 3, k->name_n, 0, 2, 1 };

	k->asked.done = on_reply;
	k->node = to;
	return to && redis_node_ask(to, &k->asked, 5, argv, bytes);
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

static void on_reply(struct node_ask *asked, const struct redisReply *r)
{
	struct erased *k = (struct erased *)asked;
	struct erasing *all = k->all;
	struct plan *plan = all->plan;

	if (is_sent_on(k, r))
		return;
	all->failed |= !r || r->type != REDIS_REPLY_STATUS;
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
