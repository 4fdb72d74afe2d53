#include "store/redis_node_inside.h"

#include <assert.h>
#include <stdlib.h>

/* ---- calls ---- */

struct node_call *node_calls_get(struct node_calls *pool)
{
	struct node_call *c = pool->idle;

	if (c) {
		pool->idle = c->next;
	} else {
		if (pool->n == pool->most || !(c = calloc(1, sizeof *c)))
			return NULL;
		pool->n++;
	}
	c->waits = c->gathers = c->sent = c->asking = false;
	c->resent = 0;
	c->redirects = c->retries = 0;
	return c;
}

void node_calls_put(struct node_calls *pool, struct node_call *c)
{
	redis_call_clear(&c->asked);
	c->next = pool->idle;
	pool->idle = c;
}

void node_calls_fini(struct node_calls *pool)
{
	for (struct node_call *c; (c = pool->idle); pool->n--) {
		pool->idle = c->next;
		free(c);
	}
	assert(pool->n == 0);
}

void node_call_put_back(struct redis_node *n, struct node_call *c)
{
	if (!c->waits && !c->sent && c != &n->probe)
		node_calls_put(n->pool, c);
}

/* By deadline: nearly always it is the last. (One that comes from another node began earlier.) */
void node_list_add(struct redis_node *n, struct node_call *c)
{
	struct node_call *after = n->last;

	while (after && after->taken_at > c->taken_at)
		after = after->before;
	c->before = after;
	c->next = after ? after->next : n->first;
	*(c->next ? &c->next->before : &n->last) = c;
	*(after ? &after->next : &n->first) = c;
	c->waits = true;
}

void node_list_remove(struct redis_node *n, struct node_call *c)
{
	*(c->before ? &c->before->next : &n->first) = c->next;
	*(c->next ? &c->next->before : &n->last) = c->before;
	c->waits = false;
}

void node_queue_add(struct redis_node *n, struct node_call *c)
{
	c->next_unsent = NULL;
	c->before_unsent = n->last_unsent;
	*(n->last_unsent ? &n->last_unsent->next_unsent : &n->unsent) = c;
	n->last_unsent = c;
	c->gathers = true;
}

void node_queue_remove(struct redis_node *n, struct node_call *c)
{
	*(c->before_unsent ? &c->before_unsent->next_unsent : &n->unsent) = c->next_unsent;
	*(c->next_unsent ? &c->next_unsent->before_unsent : &n->last_unsent) = c->before_unsent;
	c->gathers = false;
}

/* Its place may be taken only after: who hears of it may give further calls. */
void node_call_end(struct redis_node *n, struct node_call *c, bool answered, struct now now)
{
	assert(c->waits);
	node_list_remove(n, c);
	if (c->gathers)
		node_queue_remove(n, c);
	n->events.ended(n->owner, c, answered, now);
	node_call_put_back(n, c);
}

void node_call_fail(struct redis_node *n, struct node_call *c, struct now now)
{
	redis_count(&n->stats->failed, c->asked.plan_n);
	node_call_end(n, c, false, now);
}

/* What comes meanwhile is not gathered: nobody is asked. */
void node_fail_unsent(struct redis_node *n, struct now now)
{
	while (n->unsent)
		node_call_fail(n, n->unsent, now);
}

/* ---- other commands ---- */

void node_ask_add(struct redis_node *n, struct node_ask *a)
{
	struct node_ask *after = n->last_ask;

	while (after && after->at > a->at)
		after = after->before;
	a->before = after;
	a->next = after ? after->next : n->asks;
	*(a->next ? &a->next->before : &n->last_ask) = a;
	*(after ? &after->next : &n->asks) = a;
}

void node_ask_end(struct redis_node *n, struct node_ask *a, const struct redisReply *r)
{
	if (a->before)
		a->before->next = a->next;
	else
		n->asks = a->next;
	if (a->next)
		a->next->before = a->before;
	else
		n->last_ask = a->before;
	a->done(a, r);
}

void node_ask_give_up(struct redis_node *n, struct node_ask *a)
{
	for (unsigned i = 0; i < n->sent_n; i++) {
		struct sent *sent = &n->sent[(n->sent_at + i) % SENT_MAX];
		if (sent->ask == a)
			sent->ask = NULL;
	}
	node_ask_end(n, a, NULL);
}

void node_give_up_asks(struct redis_node *n)
{
	while (n->asks)
		node_ask_give_up(n, n->asks);
}
