#include "store/redis_lookup.h"

#include "base/log.h"

#include <assert.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

enum {
	NAMES_MAX = 64,   /* of one HMGET */
	VALUE_MAX = 3900, /* bytes of a value that fits there whatever the others are */
	BYTES_MAX = 16 * 1024,
	BATCHES_MAX = 16,
	WINDOW = 8,        /* so many under way, and the next names gather until one is back */
	REDIRECTS_MAX = 8, /* of one HMGET */
	NOWHERE = 255,     /* no place in the batch: on no tier */
};
static_assert(NAMES_MAX <= NOWHERE, "a place is a byte");
static_assert((int)NAMES_MAX * ((int)VALUE_MAX + 2 * (int)sizeof(redisReply) + 16) <=
		      (int)NODE_ASK_REPLY_MAX,
	"no value that is far too long for a tier ends the connection");
static_assert(
	(int)BYTES_MAX > 2 * (int)REDIS_LOOKUP_NAME_MAX, "an empty batch has room for anybody");

#define ERROR_LOG_EVERY (10 * USEC_PER_SEC)

static const struct str sha256_prefix = { "sha256:", 7 };

struct name {
	struct key key; /* in the cache */
	uint16_t at, n; /* in `bytes` */
};

/* One HMGET, and who waits for it. */
struct batch {
	struct node_ask asked; /* first: its reply finds the batch by it */
	struct redis_lookup *lookup;
	struct batch *next;
	struct tier_ask *first, *last;
	struct redis_node *node; /* whom it was sent to */
	uint64_t epoch;          /* when it was sent first, as `asked.at` */
	unsigned redirects;
	unsigned n;
	size_t used;
	struct name name[NAMES_MAX];
	struct tier_text tier[NAMES_MAX]; /* when it was answered */
	char bytes[BYTES_MAX];
};

struct redis_lookup {
	struct redis_tiers *tiers;
	struct tier_cache *cache;
	struct redis_nodes *nodes;
	struct redis_stats *stats;
	struct ev_loop *loop;
	struct batch *gathering; /* NULL: nothing was asked for in this turn */
	struct batch *sent, *unsendable, *idle;
	unsigned batches, waiting, sent_n;
	ev_timer work; /* ends the unsendable, in a turn that is still to come */
	struct node_ask there;
	bool there_is_asked;
	usec_t there_again_at; /* not before, after an error */
	uint64_t there_epoch;
};

/* ---- batches ---- */

static struct batch *batch_get(struct redis_lookup *l)
{
	struct batch *b = l->idle;

	if (b) {
		l->idle = b->next;
	} else {
		if (l->batches == BATCHES_MAX || !(b = malloc(sizeof *b)))
			return NULL;
		l->batches++;
	}
	b->asked = (struct node_ask){ 0 };
	b->lookup = l;
	b->next = NULL;
	b->first = b->last = NULL;
	b->redirects = 0;
	b->n = 0;
	b->used = 0;
	return b;
}

static unsigned place_of(const struct batch *b, struct key k)
{
	unsigned i = 0;

	while (i < b->n && (b->name[i].key.a != k.a || b->name[i].key.b != k.b))
		i++;
	return i < b->n ? i : NOWHERE;
}

static void add_bytes(struct batch *b, struct str s)
{
	memcpy(b->bytes + b->used, s.p, s.n);
	b->used += s.n;
}

static uint8_t add_name(struct batch *b, struct key k, struct str name, bool secret)
{
	unsigned place = place_of(b, k);
	char hex[SHA256_HEX_BYTES];

	if (place != NOWHERE)
		return (uint8_t)place;
	struct name *to = &b->name[b->n];
	to->key = k;
	to->at = (uint16_t)b->used;
	if (secret) {
		hash_sha256_hex(name, hex);
		add_bytes(b, sha256_prefix);
		add_bytes(b, (struct str){ hex, sizeof hex });
	} else {
		add_bytes(b, name);
	}
	to->n = (uint16_t)(b->used - to->at);
	return (uint8_t)b->n++;
}

static void wait_for(struct batch *b, struct tier_ask *ask)
{
	ask->next = NULL;
	if (b->last)
		b->last->next = ask;
	else
		b->first = ask;
	b->last = ask;
	b->lookup->waiting++;
}

/* ---- asking ---- */

/* A name in clear that begins as hashes do may be one that a client has learnt of. */
static bool can_be_there(struct str name, bool secret)
{
	if (secret)
		return true;
	return name.n <= REDIS_LOOKUP_NAME_MAX &&
	       (name.n < sha256_prefix.n || memcmp(name.p, sha256_prefix.p, sha256_prefix.n) != 0);
}

/* What is to be looked up of an ask: names from `from` on. */
struct wanted {
	struct key key[2];
	bool there[2]; /* can be */
	unsigned from;
};

/* true: it is answered by what is remembered. Else ask->tier is what was. */
static bool is_remembered(
	struct redis_lookup *l, struct tier_ask *ask, usec_t now, struct wanted *w)
{
	bool fresh = true;

	w->from = ask->n;
	ask->tier.length = 0;
	for (unsigned i = 0; i < ask->n; i++) {
		struct tier_text tier;
		w->there[i] = (ask->is_hash && i == 0) ||
			      can_be_there(ask->name[i], ask->secret[i]);
		if (!w->there[i])
			continue;
		w->key[i] = tier_cache_key(l->cache, ask->name[i], ask->secret[i]);
		if (tier_cache_get(l->cache, w->key[i], now, &tier) != TIER_FRESH && fresh) {
			fresh = false;
			w->from = i;
		}
		if (tier.length && !ask->tier.length) {
			ask->tier = tier;
			if (fresh)
				return true;
		}
	}
	return fresh;
}

/* Whether all that is wanted is under way, and was asked for after the last change. */
static struct batch *under_way(
	const struct redis_lookup *l, const struct tier_ask *ask, const struct wanted *w)
{
	uint64_t epoch = tier_cache_epoch(l->cache);

	for (struct batch *b = l->sent; b; b = b->next) {
		bool all = b->epoch == epoch;
		for (unsigned i = w->from; i < ask->n && all; i++)
			all = !w->there[i] || place_of(b, w->key[i]) != NOWHERE;
		if (all)
			return b;
	}
	return NULL;
}

static struct redis_node *node_now(struct redis_lookup *l)
{
	return redis_nodes_at(l->nodes, redis_tiers_slot(l->tiers));
}

static void send_gathered(struct redis_lookup *l);

static struct batch *gathering(struct redis_lookup *l, usec_t now)
{
	struct batch *b = l->gathering;

	if (b && (b->n + 2 > NAMES_MAX || b->used + 2 * REDIS_LOOKUP_NAME_MAX > BYTES_MAX)) {
		send_gathered(l);
		b = NULL;
	}
	if (!b) {
		l->gathering = b = batch_get(l);
		if (b)
			b->asked.at = now; /* its deadline is that of the first */
	}
	return b;
}

enum store_rc redis_lookup_find(struct redis_lookup *l, struct tier_ask *ask, bool may_ask)
{
	enum tiers_there there = tier_cache_there(l->cache);
	usec_t now = clock_steady();
	struct wanted w;

	if (there == TIERS_NONE)
		return STORE_DONE;
	if (is_remembered(l, ask, now, &w)) {
		redis_count(&l->stats->tiers_remembered, 1);
		return STORE_DONE;
	}
	struct batch *b = NULL;
	struct redis_node *node = node_now(l);
	if (may_ask && ask->done && there != TIERS_REFUSED && node && redis_node_takes(node)) {
		b = under_way(l, ask, &w);
		if (!b)
			b = gathering(l, now);
	}
	if (!b) {
		redis_count(&l->stats->tiers_old, 1);
		return STORE_DONE;
	}
	ask->begun = now;
	for (unsigned i = 0; i < ask->n; i++)
		ask->place[i] = i >= w.from && w.there[i]
					? add_name(b, w.key[i], ask->name[i], ask->secret[i])
					: NOWHERE;
	wait_for(b, ask);
	return STORE_PENDING;
}

/* ---- sending ---- */

static void on_reply(struct node_ask *asked, const struct redisReply *r);

/* false: nobody is there to be asked. */
static bool send_batch(struct batch *b, struct redis_node *to)
{
	struct redis_lookup *l = b->lookup;
	const char *argv[2 + NAMES_MAX] = { "HMGET", redis_tiers_key(l->tiers) };
	size_t bytes[2 + NAMES_MAX] = { 5, strlen(argv[1]) };

	for (unsigned i = 0; i < b->n; i++) {
		argv[2 + i] = b->bytes + b->name[i].at;
		bytes[2 + i] = b->name[i].n;
	}
	b->asked.done = on_reply;
	if (!to || !redis_node_ask(to, &b->asked, 2 + b->n, argv, bytes))
		return false;
	b->node = to;
	b->next = l->sent;
	l->sent = b;
	l->sent_n++;
	return true;
}

static void send_gathered(struct redis_lookup *l)
{
	struct batch *b = l->gathering;

	if (!b)
		return;
	l->gathering = NULL;
	b->epoch = tier_cache_epoch(l->cache);
	if (send_batch(b, node_now(l))) {
		redis_count(&l->stats->tiers_asked, b->n);
		return;
	}
	b->next = l->unsendable;
	l->unsendable = b;
	ev_timer_start(l->loop, &l->work);
}

/* ---- answers ---- */

static void batch_end(struct batch *b, bool answered)
{
	struct redis_lookup *l = b->lookup;
	struct now now = clock_read();

	for (struct tier_ask *ask; (ask = b->first);) {
		b->first = ask->next;
		l->waiting--;
		ask->now = now;
		if (!answered)
			redis_count(&l->stats->tiers_failed, 1);
		else
			ask->tier.length = 0;
		for (unsigned i = 0; answered && i < ask->n && !ask->tier.length; i++)
			if (ask->place[i] != NOWHERE)
				ask->tier = b->tier[ask->place[i]];
		ask->done(ask);
	}
	b->next = l->idle;
	l->idle = b;
}

static void unlink_sent(struct batch *b)
{
	struct batch **at = &b->lookup->sent;

	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
	b->lookup->sent_n--;
}

/* The ACL, or something else stands there. */
static bool is_final(const redisReply *r)
{
	return strncmp(r->str, "NOPERM", 6) == 0 || strncmp(r->str, "WRONGTYPE", 9) == 0;
}

static void on_error(struct redis_lookup *l, const redisReply *r, uint64_t epoch)
{
	if (is_final(r)) {
		tier_cache_set_there(l->cache, TIERS_REFUSED, epoch);
		redis_tiers_refused(l->tiers, r->str);
	} else {
		log_warning_every(ERROR_LOG_EVERY, "redis_error", KV_Z("error", r->str),
			KV_Z("key", redis_tiers_key(l->tiers)));
	}
}

static bool read_tier(const redisReply *r, struct tier_text *out)
{
	out->length = 0;
	if (r->type == REDIS_REPLY_NIL)
		return true;
	if (r->type != REDIS_REPLY_STRING)
		return false;
	out->length = (uint8_t)((size_t)r->len < TIER_TEXT_MAX ? (size_t)r->len : TIER_TEXT_MAX);
	memcpy(out->text, r->str, out->length);
	return true;
}

/* It is no tier that a rule could know. */
static void tell_of_long(const struct batch *b, unsigned i, size_t bytes)
{
	struct str name = { b->bytes + b->name[i].at, b->name[i].n };

	log_warning_every(ERROR_LOG_EVERY, "tier_too_long",
		KV_Z("key", redis_tiers_key(b->lookup->tiers)), KV_STR("field", name),
		KV_INT("bytes", bytes), KV_INT("most", TIER_NAME_MAX));
}

static bool read_tiers(struct batch *b, const redisReply *r)
{
	if (r->type != REDIS_REPLY_ARRAY || r->elements != b->n)
		return false;
	for (unsigned i = 0; i < b->n; i++)
		if (!read_tier(r->element[i], &b->tier[i]))
			return false;
	for (unsigned i = 0; i < b->n; i++)
		if (b->tier[i].length > TIER_NAME_MAX)
			tell_of_long(b, i, (size_t)r->element[i]->len);
	return true;
}

/* The hash is on another node of the cluster, or about to be. */
static bool is_sent_on(struct batch *b, const redisReply *r)
{
	struct redis_lookup *l = b->lookup;
	struct redis_address to;
	uint16_t slot;

	if (!r || r->type != REDIS_REPLY_ERROR)
		return false;
	enum redis_redirect how = redis_redirect_read(
		r->str, redis_node_address(b->node), &slot, &to);
	if ((how != REDIRECT_MOVED && how != REDIRECT_ASK) || slot != redis_tiers_slot(l->tiers) ||
		++b->redirects > REDIRECTS_MAX)
		return false;
	b->asked.asking = how == REDIRECT_ASK;
	return send_batch(b, redis_nodes_follow(l->nodes, slot, how, &to));
}

static void on_reply(struct node_ask *asked, const struct redisReply *r)
{
	struct batch *b = (struct batch *)asked;
	struct redis_lookup *l = b->lookup;

	unlink_sent(b);
	if (is_sent_on(b, r))
		return;
	if (r && r->type == REDIS_REPLY_ERROR)
		on_error(l, r, b->epoch);
	bool answered = r && read_tiers(b, r);
	for (unsigned i = 0; answered && i < b->n; i++)
		tier_cache_put(l->cache, b->name[i].key, &b->tier[i], b->epoch, asked->at);
	batch_end(b, answered);
}

static void on_work(struct ev_loop *loop, ev_timer *work, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_lookup *l = work->data;
	for (struct batch *b; (b = l->unsendable);) {
		l->unsendable = b->next;
		batch_end(b, false);
	}
}

void redis_lookup_end_all(struct redis_lookup *l)
{
	struct batch *b = l->gathering;

	l->gathering = NULL;
	if (b)
		batch_end(b, false);
	on_work(l->loop, &l->work, 0);
}

unsigned redis_lookup_waiting(const struct redis_lookup *l)
{
	return l->waiting;
}

/* ---- is there a hash? ---- */

/* Who answers with an error, or with nothing, is not asked again in the next turn; less than the
 * clock of redis_tiers.c takes, which rings four times a second. */
#define THERE_PAUSE (200 * USEC_PER_MSEC)

/* Who asks again asks the one that has it now. */
static bool has_moved(struct redis_lookup *l, const redisReply *r)
{
	struct redis_node *asked = node_now(l);
	struct redis_address to;
	uint16_t slot = redis_tiers_slot(l->tiers);

	if (!asked)
		return false;
	enum redis_redirect how = redis_redirect_read(
		r->str, redis_node_address(asked), &slot, &to);
	if (how == REDIRECT_NONE || slot != redis_tiers_slot(l->tiers))
		return false;
	if (how != REDIRECT_TRYAGAIN)
		(void)redis_nodes_follow(l->nodes, slot, how, &to);
	return true;
}

static void on_there(struct node_ask *asked, const struct redisReply *r)
{
	struct redis_lookup *l = (struct redis_lookup *)((char *)asked -
							 offsetof(struct redis_lookup, there));

	l->there_is_asked = false;
	if (r && r->type == REDIS_REPLY_INTEGER) {
		tier_cache_set_there(
			l->cache, r->integer ? TIERS_SOME : TIERS_NONE, l->there_epoch);
		return;
	}
	if (r && r->type == REDIS_REPLY_ERROR && !has_moved(l, r))
		on_error(l, r, l->there_epoch);
	if (!r || r->type != REDIS_REPLY_ERROR || !is_final(r)) {
		l->there_again_at = clock_steady() + THERE_PAUSE;
		redis_tiers_want_there(l->tiers); /* whose clock rings for it again */
	}
}

static void ask_there(struct redis_lookup *l, struct redis_node *to)
{
	const char *argv[] = { "EXISTS", redis_tiers_key(l->tiers) };
	size_t bytes[] = { 6, strlen(argv[1]) };

	l->there = (struct node_ask){ .done = on_there };
	l->there_epoch = tier_cache_epoch(l->cache);
	l->there_is_asked = redis_node_ask(to, &l->there, 2, argv, bytes);
	if (!l->there_is_asked)
		redis_tiers_want_there(l->tiers);
}

void redis_lookup_send(struct redis_lookup *l)
{
	/* What is under way ends by its deadline, which is before that of what gathers meanwhile.
	 */
	if (l->sent_n < WINDOW)
		send_gathered(l);
	if (l->there_is_asked || !redis_tiers_is_there_wanted(l->tiers) ||
		clock_steady() < l->there_again_at)
		return;
	struct redis_node *to = node_now(l);
	if (to && redis_node_takes(to) && redis_tiers_take_there(l->tiers))
		ask_there(l, to);
}

/* ---- creation and end ---- */

struct redis_lookup *redis_lookup_new(struct redis_tiers *tiers, struct redis_nodes *nodes,
	struct redis_stats *stats, struct ev_loop *loop)
{
	struct redis_lookup *l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	l->tiers = tiers;
	l->cache = redis_tiers_cache(tiers);
	l->nodes = nodes;
	l->stats = stats;
	l->loop = loop;
	ev_timer_init(&l->work, on_work, 0, 0);
	l->work.data = l;
	return l;
}

void redis_lookup_free(struct redis_lookup *l)
{
	if (!l)
		return;
	assert(!l->waiting);
	ev_timer_stop(l->loop, &l->work);
	for (struct batch *b; (b = l->idle);) {
		l->idle = b->next;
		free(b);
	}
	free(l);
}
