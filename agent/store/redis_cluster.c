#include "store/redis_cluster.h"

#include "store/redis_conn.h"
#include "store/redis_hints.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_WITHIN USEC_PER_SEC

/* 16384 slots in pieces, with replicas and what is said beside each: more than it ever is. */
enum { REPLY_MAX = 8 * 1024 * 1024 };

struct redis_cluster {
	struct redis_cluster_events events;
	void *owner;
	struct redis_conn *conn;
	struct redis_address at; /* whom it is connected to, or tries to be */
	unsigned next;           /* of seeds and nodes, who comes after */
	bool asked;              /* and has not answered yet */
	bool doubted;            /* since the map last changed */
	usec_t asked_at;
	struct redis_map *map; /* the last one; NULL: none yet */
	unsigned seed_n;
	struct redis_addresses seed[];
};

static bool is_somewhere(const struct redis_cluster *c)
{
	return c->at.host[0] != '\0';
}

/* The next of all that may know. false: nobody is known yet. */
static bool choose(struct redis_cluster *c)
{
	unsigned nodes = c->map ? c->map->node_n : 0, all = c->seed_n + nodes;

	for (unsigned tried = 0; tried < all; tried++) {
		unsigned i = c->next++ % all;
		if (i >= c->seed_n) {
			c->at = c->map->node[i - c->seed_n];
			return true;
		}
		struct redis_addresses *a = &c->seed[i];
		if (a->n) {
			c->at = a->address[c->next / all % a->n];
			return true;
		}
	}
	return false;
}

static void ask_another(struct redis_cluster *c)
{
	c->asked = false;
	if (choose(c))
		(void)redis_conn_use(c->conn, &c->at, false);
}

static void ask(struct redis_cluster *c, usec_t now)
{
	const char *argv[] = { "CLUSTER", "SLOTS" };
	size_t bytes[] = { 7, 5 };

	if (c->asked) {
		if (now - c->asked_at > ANSWER_WITHIN)
			redis_conn_give_up(c->conn, "it hangs");
		return;
	}
	if (!redis_conn_is_ready(c->conn) || !redis_conn_send(c->conn, 2, argv, bytes))
		return;
	c->asked = true;
	c->asked_at = now;
	redis_conn_flush(c->conn);
}

/* ---- what the connection says ---- */

static void on_ready(void *owner)
{
	struct redis_cluster *c = owner;

	c->asked = false;
	redis_conn_is_good(c->conn);
	ask(c, clock_steady());
}

static void on_failed(void *owner, const char *why, const char *hint)
{
	struct redis_cluster *c = owner;

	c->asked = false;
	c->events.failed(c->owner, why, hint, &c->at);
	if (choose(c))
		redis_conn_aim(c->conn, &c->at, false);
}

static void on_lost(void *owner, const char *why)
{
	on_failed(owner, why, NULL);
}

static void on_reply(void *owner, const struct redisReply *r)
{
	struct redis_cluster *c = owner;
	char why[160];

	c->asked = false;
	struct redis_map *m = redis_map_read(r, &c->at, why, sizeof why);
	if (!m) {
		const char *hint = r->type == REDIS_REPLY_ERROR ? redis_error_hint(why) : NULL;
		c->events.failed(c->owner, why, hint, &c->at);
		ask_another(c);
		return;
	}
	if (!c->map || !redis_map_eq(c->map, m))
		c->doubted = false;
	redis_map_unref(c->map);
	c->map = redis_map_ref(m);
	c->events.mapped(c->owner, m);
}

static const struct redis_conn_events conn_events = { on_ready, on_lost, on_failed, on_reply };

/* ---- what the hub calls ---- */

void redis_cluster_use(struct redis_cluster *c, unsigned i, const struct redis_addresses *a)
{
	c->seed[i] = *a;
	if (!is_somewhere(c))
		ask_another(c);
}

void redis_cluster_ask(struct redis_cluster *c, usec_t now, usec_t soonest, bool in_doubt)
{
	if (now - c->asked_at < soonest)
		return;
	if (in_doubt && c->doubted && redis_conn_is_ready(c->conn)) {
		c->asked_at = now;
		c->doubted = false;
		ask_another(c);
		return;
	}
	c->doubted |= in_doubt;
	ask(c, now);
}

struct redis_cluster *redis_cluster_new(const struct redis_hub_settings *settings,
	const struct redis_cluster_events *events, void *owner, struct ev_loop *loop)
{
	struct redis_cluster *c = calloc(1, sizeof *c + settings->server_n * sizeof c->seed[0]);
	if (!c)
		return NULL;
	c->events = *events;
	c->owner = owner;
	c->seed_n = settings->server_n;

	struct redis_conn_settings s = {
		.open_within = ANSWER_WITHIN,
		.reply_max = REPLY_MAX,
		.tls = settings->tls,
	};
	memcpy(s.username, settings->username, sizeof s.username);
	memcpy(s.password, settings->password, sizeof s.password);
	c->conn = redis_conn_new(&s, &conn_events, c, loop);
	explicit_bzero(&s, sizeof s);
	if (c->conn)
		return c;
	free(c);
	return NULL;
}

void redis_cluster_free(struct redis_cluster *c)
{
	if (!c)
		return;
	redis_conn_free(c->conn);
	redis_map_unref(c->map);
	free(c);
}
