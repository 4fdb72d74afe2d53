#include "store/redis_nodes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
	CALLS_MAX = 64,           /* of one server */
	CALLS_OF_MANY_MAX = 1024, /* of a cluster: each is for one slot */
	GATHERING = 256,
	REDIRECTS_MAX = 8, /* of one call: what goes round longer has no place */
};

#define AGAIN_AFTER (3 * USEC_PER_MSEC) /* TRYAGAIN; twice that the next time, and so on */
#define AGAIN_MOST  (50 * USEC_PER_MSEC)

/* A server, and the hub's word on it. */
struct member {
	struct redis_node *node; /* NULL: a free place */
	struct redis_listener listener;
	bool listed; /* by the last map; one that is not goes as soon as nothing waits there */
	bool is_back;
};

struct redis_nodes {
	struct redis_settings settings;
	struct redis_stats *stats;
	struct redis_hub *hub;
	redis_nodes_ended *ended;
	void *owner;
	struct ev_loop *loop;

	bool of_cluster;
	uint64_t generation; /* of what the hub said */
	bool knows;          /* where they are */
	uint64_t lost;       /* times that one was, or that its clock was set */
	bool leaving;        /* some are not in the map, and may go when nothing waits there */
	struct member member[REDIS_NODES_MAX];
	unsigned member_n;         /* places, free ones among them */
	uint8_t slot[REDIS_SLOTS]; /* which member; REDIS_NO_NODE */

	struct node_calls calls;
	/* By slot, the call that gathers for it: while it does, and still is for that slot. */
	struct node_call *gathering[GATHERING];
	/* Those that go again when `again` is due, or have reached their deadline then. */
	struct node_call *parked;
	ev_timer again;
};

/* ---- health: the hub logs for all, the counter says how it is here ---- */

static void tell_degraded(struct redis_nodes *s)
{
	bool degraded = !s->knows;

	for (unsigned i = 0; i < s->member_n; i++)
		degraded |= s->member[i].node && s->member[i].listed && !s->member[i].is_back;
	atomic_store_explicit(&s->stats->degraded, degraded, memory_order_relaxed);
}

static struct member *member_of(struct redis_nodes *s, const struct redis_node *node)
{
	for (unsigned i = 0; i < s->member_n; i++)
		if (s->member[i].node == node)
			return &s->member[i];
	return NULL;
}

static void on_away(void *owner, struct redis_node *node, const char *why, const char *hint,
	const struct redis_address *address)
{
	struct redis_nodes *s = owner;
	struct member *m = member_of(s, node);

	if (!m)
		return;
	m->is_back = false;
	s->lost++;
	tell_degraded(s);
	/* One that has left the cluster is missed by nobody. */
	if (m->listed)
		redis_hub_away(s->hub, &m->listener, why, hint, address);
	else
		s->leaving = true;
	redis_hub_ask_again(s->hub);
}

static void on_back(void *owner, struct redis_node *node)
{
	struct redis_nodes *s = owner;
	struct member *m = member_of(s, node);

	if (!m)
		return;
	m->is_back = true;
	tell_degraded(s);
	redis_hub_back(s->hub, &m->listener);
}

static void on_works(void *owner, struct redis_node *node)
{
	struct redis_nodes *s = owner;

	redis_hub_works(s->hub, redis_node_address(node));
}

static bool on_has_worked(void *owner, struct redis_node *node, usec_t since)
{
	struct redis_nodes *s = owner;

	return redis_hub_has_worked(s->hub, redis_node_address(node), since);
}

/* A window that denied may be over, or begin anew: who remembers it asks again. */
static void on_stepped(void *owner, struct redis_node *node)
{
	struct redis_nodes *s = owner;

	(void)node;
	s->lost++;
}

/* ---- members ---- */

static bool on_redirected(
	void *owner, struct redis_node *node, struct node_call *c, const char *error);

static void on_ended(void *owner, struct node_call *c, bool answered, struct now now)
{
	struct redis_nodes *s = owner;

	if (!answered && c->asked.after_n)
		redis_count(&s->stats->refunds_lost, c->asked.after_n);
	s->ended(s->owner, c, answered, now);
}

static struct member *member_new(struct redis_nodes *s)
{
	static const struct redis_node_events single = { on_ended, NULL, on_away, on_back, on_works,
		on_has_worked, on_stepped };
	static const struct redis_node_events many = { on_ended, on_redirected, on_away, on_back,
		on_works, on_has_worked, on_stepped };
	unsigned i = 0;

	while (i < s->member_n && s->member[i].node)
		i++;
	if (i == REDIS_NODES_MAX)
		return NULL;
	struct member *m = &s->member[i];
	*m = (struct member){ 0 };
	m->node = redis_node_new(&s->settings, s->of_cluster, s->stats, &s->calls,
		s->of_cluster ? &many : &single, s, s->loop);
	if (!m->node)
		return NULL;
	if (i == s->member_n)
		s->member_n++;
	return m;
}

static void member_free(struct redis_nodes *s, struct member *m)
{
	redis_hub_leave(s->hub, &m->listener);
	redis_node_free(m->node);
	m->node = NULL;
}

/* The member at that address, a new one if there is none. NULL: no room, no memory. */
static struct member *member_at(struct redis_nodes *s, const struct redis_address *a)
{
	for (unsigned i = 0; i < s->member_n; i++) {
		struct member *m = &s->member[i];
		const struct redis_address *at = m->node ? redis_node_address(m->node) : NULL;
		if (at && redis_address_eq(at, a))
			return m;
	}
	struct member *m = member_new(s);
	if (m) {
		struct redis_addresses one = { .n = 1, .address = { *a } };
		redis_node_use(m->node, &one);
	}
	return m;
}

/* Not from inside a callback of one of them. */
static void drop_unlisted(struct redis_nodes *s)
{
	s->leaving = false;
	for (unsigned i = 0; i < s->member_n; i++) {
		struct member *m = &s->member[i];
		if (!m->node || m->listed || memchr(s->slot, (int)i, sizeof s->slot))
			continue;
		if (redis_node_is_idle(m->node))
			member_free(s, m);
		else
			s->leaving = true;
	}
}

static void use_map(struct redis_nodes *s, const struct redis_map *map)
{
	uint8_t place[REDIS_NODES_MAX];

	for (unsigned i = 0; i < s->member_n; i++)
		s->member[i].listed = false;
	for (unsigned k = 0; k < map->node_n; k++) {
		struct member *m = member_at(s, &map->node[k]);
		place[k] = m ? (uint8_t)(m - s->member) : REDIS_NO_NODE;
		if (m)
			m->listed = true;
	}
	for (unsigned i = 0; i < REDIS_SLOTS; i++)
		s->slot[i] = map->slot[i] == REDIS_NO_NODE ? REDIS_NO_NODE : place[map->slot[i]];
	for (unsigned i = 0; i < s->member_n; i++)
		if (!s->member[i].listed)
			redis_hub_leave(s->hub, &s->member[i].listener);
	s->knows = true;
	drop_unlisted(s);
	tell_degraded(s);
}

void redis_nodes_look(struct redis_nodes *s)
{
	if (s->of_cluster) {
		struct redis_map *map = redis_hub_map(s->hub);
		if (map && map->generation != s->generation) {
			s->generation = map->generation;
			use_map(s, map);
		}
		redis_map_unref(map);
		return;
	}
	struct redis_addresses a = redis_hub_addresses(s->hub);
	if (a.generation == s->generation)
		return;
	s->generation = a.generation;
	s->knows = true;
	redis_node_use(s->member[0].node, &a);
}

struct redis_node *redis_nodes_at(struct redis_nodes *s, uint16_t slot)
{
	uint8_t i = s->slot[slot];
	return i == REDIS_NO_NODE ? NULL : s->member[i].node;
}

/* ---- calls that gather ---- */

static struct node_call *gathering(struct redis_nodes *s, uint16_t slot)
{
	struct node_call *c = s->gathering[slot % GATHERING];
	return c && c->gathers && c->slot == slot && !(c->redirects | c->retries) ? c : NULL;
}

/* `to`: one that takes calls. */
static struct node_call *new_call(
	struct redis_nodes *s, struct redis_node *to, uint16_t slot, usec_t taken_at)
{
	struct node_call *c = node_calls_get(&s->calls);

	if (!c)
		return NULL;
	c->slot = slot;
	c->taken_at = taken_at;
	redis_node_give(to, c);
	s->gathering[slot % GATHERING] = c;
	return c;
}

bool redis_nodes_add(struct redis_nodes *s, uint16_t slot, struct plan *plan)
{
	struct redis_node *to = redis_nodes_at(s, slot);
	struct node_call *c = gathering(s, slot);

	/* Of one that has waited before the deadline comes before that of the others. */
	bool in_time = c && (!plan->begun || c->taken_at <= plan->begun);
	if (in_time && redis_call_add(&c->asked, plan))
		return true;
	c = to ? new_call(s, to, slot, plan->begun ? plan->begun : clock_steady()) : NULL;
	return c && redis_call_add(&c->asked, plan);
}

bool redis_nodes_add_after(struct redis_nodes *s, struct redis_after *a)
{
	uint16_t slot = s->of_cluster ? redis_after_slot(a) : 0;
	struct redis_node *to = redis_nodes_at(s, slot);
	struct node_call *c = gathering(s, slot);

	if (c && redis_call_add_after(&c->asked, a))
		return true;
	c = to && redis_node_takes(to) ? new_call(s, to, slot, clock_steady()) : NULL;
	if (c && redis_call_add_after(&c->asked, a))
		return true;
	redis_after_free(a);
	return false;
}

bool redis_nodes_add_ask(struct redis_nodes *s, const struct ledger_ask *a)
{
	uint16_t slot = s->of_cluster ? redis_slot_of(&a->key, &a->salt) : 0;
	struct redis_node *to = redis_nodes_at(s, slot);
	struct node_call *c = gathering(s, slot);

	if (!to || !redis_node_takes(to) || !redis_node_is_well(to))
		return false;
	if (c && redis_call_ask(&c->asked, a))
		return true;
	c = new_call(s, to, slot, clock_steady());
	return c && redis_call_ask(&c->asked, a);
}

uint64_t redis_nodes_lost(const struct redis_nodes *s)
{
	return s->lost;
}

/* ---- calls that are sent on ---- */

static void end_call(
	struct redis_nodes *s, struct node_call *c, _Atomic(uint64_t) *counter, struct now now)
{
	redis_count(counter, c->asked.plan_n);
	on_ended(s, c, false, now);
	node_calls_put(&s->calls, c);
}

static usec_t deadline(const struct redis_nodes *s, const struct node_call *c)
{
	return c->taken_at + redis_node_patience(s->settings.timeout);
}

static void set_again(struct redis_nodes *s, usec_t after)
{
	double seconds = (double)(after > 0 ? after : 0) / (double)USEC_PER_SEC;

	if (ev_is_active(&s->again) && ev_timer_remaining(s->loop, &s->again) <= seconds)
		return;
	ev_timer_stop(s->loop, &s->again);
	ev_timer_set(&s->again, seconds, 0);
	ev_timer_start(s->loop, &s->again);
}

static void park(struct redis_nodes *s, struct node_call *c)
{
	unsigned times = (unsigned)c->retries + c->redirects;
	usec_t after = AGAIN_AFTER << (times < 5 ? times : 5),
	       left = deadline(s, c) - clock_steady();

	c->next = s->parked;
	s->parked = c;
	if (after > AGAIN_MOST)
		after = AGAIN_MOST;
	set_again(s, after < left ? after : left);
}

/* Several keys of which some have moved are refused; one by one they are served, unless they are of
 * one plan. */
static void park_one_by_one(struct redis_nodes *s, struct node_call *c)
{
	while (c->asked.plan_n > 1) {
		struct node_call *one = node_calls_get(&s->calls);
		if (!one)
			break;
		one->slot = c->slot;
		one->taken_at = c->taken_at;
		one->retries = c->retries;
		bool added = redis_call_add(&one->asked, redis_call_take_last(&c->asked));
		assert(added);
		(void)added;
		park(s, one);
	}
	park(s, c);
}

static void on_again(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_nodes *s = timer->data;
	struct now now = clock_read();
	struct node_call *all = s->parked;

	s->parked = NULL;
	for (struct node_call *c; (c = all);) {
		all = c->next;
		struct redis_node *to = redis_nodes_at(s, c->slot);
		if (deadline(s, c) <= now.steady)
			end_call(s, c, &s->stats->timed_out, now);
		else if (to && redis_node_takes(to))
			redis_node_give(to, c);
		else
			end_call(s, c, &s->stats->failed, now);
	}
}

struct redis_node *redis_nodes_follow(struct redis_nodes *s, uint16_t slot, enum redis_redirect how,
	const struct redis_address *to)
{
	struct member *m = s->of_cluster && to->host[0] ? member_at(s, to) : NULL;

	redis_hub_ask_again(s->hub);
	if (how == REDIRECT_MOVED && m)
		s->slot[slot] = (uint8_t)(m - s->member);
	return m ? m->node : NULL;
}

/* To the node that `error` names. Its own word on that may come later: it is not to blame. */
static void send_on(struct redis_nodes *s, struct node_call *c, enum redis_redirect how,
	const struct redis_address *address)
{
	struct redis_node *to = redis_nodes_follow(s, c->slot, how, address);

	c->asking = how == REDIRECT_ASK && to;
	if (++c->redirects > REDIRECTS_MAX || (to && !redis_node_takes(to)))
		end_call(s, c, &s->stats->failed, clock_read());
	else if (to)
		redis_node_give(to, c);
	else
		park(s, c); /* a name, or no room: until the map says more */
}

static bool on_redirected(
	void *owner, struct redis_node *node, struct node_call *c, const char *error)
{
	struct redis_nodes *s = owner;
	struct redis_address to;
	uint16_t slot = c->slot;
	enum redis_redirect how = redis_redirect_read(error, redis_node_address(node), &slot, &to);

	if (how == REDIRECT_NONE || slot != c->slot)
		return false;
	redis_count(&s->stats->redirected, 1);
	c->resent = 0;
	if (how != REDIRECT_TRYAGAIN) {
		send_on(s, c, how, &to);
		return true;
	}
	c->asking = false;
	c->redirects = 0;
	c->retries += c->retries < UINT8_MAX;
	park_one_by_one(s, c);
	return true;
}

/* ---- all of them ---- */

void redis_nodes_send(struct redis_nodes *s)
{
	if (s->leaving)
		drop_unlisted(s);
	for (unsigned i = 0; i < s->member_n; i++)
		if (s->member[i].node)
			redis_node_send(s->member[i].node);
}

void redis_nodes_end_all(struct redis_nodes *s)
{
	struct now now = clock_read();

	for (struct node_call *c; (c = s->parked);) {
		s->parked = c->next;
		end_call(s, c, &s->stats->failed, now);
	}
	for (unsigned i = 0; i < s->member_n; i++)
		if (s->member[i].node)
			redis_node_end_all(s->member[i].node);
}

void redis_nodes_set_timeout(struct redis_nodes *s, usec_t timeout)
{
	s->settings.timeout = timeout;
	for (unsigned i = 0; i < s->member_n; i++)
		if (s->member[i].node)
			redis_node_set_timeout(s->member[i].node, timeout);
}

struct redis_nodes *redis_nodes_new(const struct redis_settings *settings,
	struct redis_stats *stats, struct redis_hub *hub, redis_nodes_ended *ended, void *owner,
	struct ev_loop *loop)
{
	struct redis_nodes *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->settings = *settings;
	s->stats = stats;
	s->hub = hub;
	s->ended = ended;
	s->owner = owner;
	s->loop = loop;
	s->of_cluster = redis_hub_is_cluster(hub);
	s->calls.most = s->of_cluster ? CALLS_OF_MANY_MAX : CALLS_MAX;
	ev_init(&s->again, on_again);
	s->again.data = s;
	if (s->of_cluster) {
		memset(s->slot, REDIS_NO_NODE, sizeof s->slot);
		return s;
	}
	struct member *only = member_new(s);
	if (!only) {
		redis_nodes_free(s);
		return NULL;
	}
	only->listed = true;
	return s;
}

void redis_nodes_free(struct redis_nodes *s)
{
	if (!s)
		return;
	redis_nodes_end_all(s);
	ev_timer_stop(s->loop, &s->again);
	for (unsigned i = 0; i < s->member_n; i++)
		if (s->member[i].node)
			member_free(s, &s->member[i]);
	node_calls_fini(&s->calls);
	explicit_bzero(&s->settings, sizeof s->settings);
	free(s);
}
