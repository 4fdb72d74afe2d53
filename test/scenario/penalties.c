/* When a penalty bans, by what its `after` promises, at random paces on a virtual clock: the N-th
 * denial less than T after the first of its count; so never for fewer than N in T, always at an
 * even pace of N in T or more, and never later than at the (2N - 2)-th in T. With --redis the
 * denials are counted in a Redis of its own. A failure names its seed; `penalties [--redis] SEED`
 * runs that again. */
#include "redis/store.h"

#include "chance.h"
#include "config/snapshot.h"
#include "limit/penalty.h"
#include "store/memory.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS = 300, DENIALS = 200, MOST = 7 };

/* Mon 2026-01-05T00:00:00Z */
#define ORIGIN (INT64_C(1767571200) * USEC_PER_SEC)

static const struct hash_key hash_key = { .bytes = { 7 } };

/* One client of one rule. */
struct world {
	uint64_t seed;
	struct chance chance;
	int64_t n;     /* so many denials */
	usec_t length; /* in so long a time */
	struct snapshot *snapshot;
	struct store *store;
	uint32_t bans;
	usec_t denied_at[DENIALS]; /* since the last ban */
	unsigned denials;
};

static void must(const struct world *w, bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "seed %" PRIu64 ", after %" PRId64 " in %" PRId64 " us: %s; denied at",
		w->seed, w->n, w->length, what);
	for (unsigned i = 0; i < w->denials; i++)
		fprintf(stderr, " %" PRId64, w->denied_at[i] - w->denied_at[0]);
	fputc('\n', stderr);
	exit(1);
}

static void world_open(struct world *w, uint64_t seed)
{
	static const int64_t lengths_ms[] = { 1000, 1500, 6000, 7000, 60000, 3600000, 604800000 };
	char text[256];
	struct problems problems = { 0 };

	*w = (struct world){ .seed = seed, .chance.state = seed };
	w->n = between(&w->chance, 1, MOST);
	w->length = lengths_ms[between(&w->chance, 0, 6)] * USEC_PER_MSEC;
	int size = snprintf(text, sizeof text,
		"rules = ( { name = \"r\"; per = [ \"user\" ]; rate = \"1/day\"; "
		"penalty = { after = \"%" PRId64 "/%" PRId64 "ms\"; }; } );",
		w->n, w->length / USEC_PER_MSEC);
	w->snapshot = config_load_text("penalties", text, (size_t)size, &hash_key, 1, &problems);
	must(w, w->snapshot, "a good configuration was expected");
	problems_free(&problems);
}

static void world_close(struct world *w)
{
	if (snapshot_unref(w->snapshot))
		snapshot_free(w->snapshot);
}

/* One denial: did it ban? */
static bool is_banned(struct world *w, usec_t at)
{
	static struct plan denied, strikes;
	uint8_t of[PLAN_MAX];
	struct now now = { .steady = at - ORIGIN + 1, .utc = at };

	denied = (struct plan){ .n = 1, .denied = true };
	denied.take[0] = (struct take){ .limit = &w->snapshot->policy->rule[0].other.limit[0],
		.key = { w->seed, 2 * w->seed },
		.cost = 1 };
	must(w, plan_strikes(&denied, &strikes, of), "that counts");
	strikes_begin_anew(&strikes.take[0], w->bans);
	must(w, store_take(w->store, &strikes, now) == STORE_DONE, "a store that answers at once");
	return take_is_out(&strikes.take[0]);
}

/* Since the last ban, how many of the last were less than T ago? */
static int64_t lately(const struct world *w, usec_t at)
{
	int64_t n = 0;

	for (unsigned i = 0; i < w->denials; i++)
		n += at - w->denied_at[i] < w->length;
	return n;
}

/* The count's own words: where its first one was, and how many there are. */
static int64_t counted(const struct world *w)
{
	usec_t first = 0;
	int64_t n = 0;

	for (unsigned i = 0; i < w->denials; i++) {
		if (n == 0 || w->denied_at[i] - first >= w->length) {
			first = w->denied_at[i];
			n = 0;
		}
		n++;
	}
	return n;
}

static bool denial(struct world *w, usec_t at)
{
	w->denied_at[w->denials++] = at;
	bool banned = is_banned(w, at);
	must(w, !banned || lately(w, at) >= w->n, "banned for fewer");
	must(w, banned || w->n == 1 || lately(w, at) < 2 * w->n - 2, "so many are no ban");
	must(w, banned == (counted(w) == w->n), "not what was promised");
	if (banned) {
		w->denials = 0;
		w->bans++;
	}
	return banned;
}

static usec_t gap(struct world *w)
{
	struct chance *c = &w->chance;

	switch (between(c, 0, 7)) {
	case 0:
		return 0;
	case 1:
		return w->length / w->n;
	case 2:
		return w->length - 1;
	case 3:
		return w->length + between(c, 0, 1);
	case 4:
		return between(c, 0, 3 * w->length);
	default:
		return between(c, 0, 2 * w->length / w->n);
	}
}

/* Who keeps on as often as that, or more often, is banned; who never comes so often, is not. */
static void even_paces(struct world *w, usec_t at)
{
	w->denials = 0;
	at += 2 * w->length;
	for (unsigned i = 0; i < 6; i++) {
		usec_t pace = w->n > 1 ? between(&w->chance, 0, (w->length - 1) / (w->n - 1)) : 0;
		if (i == 0 && w->n > 1)
			pace = (w->length - 1) / (w->n - 1);
		for (int64_t k = 1; k <= w->n; k++, at += pace)
			must(w, denial(w, at) == (k == w->n), "at an even pace");
	}
	if (w->n == 1)
		return;
	usec_t slow = (w->length + w->n - 2) / (w->n - 1);
	for (unsigned i = 0; i < 50; i++, at += slow)
		must(w, !denial(w, at), "at a slower pace");
}

static void run_seed(uint64_t seed, struct waiting_store *redis)
{
	static struct world w;
	struct memory_store *memory = NULL;
	usec_t at;

	world_open(&w, seed);
	at = ORIGIN + between(&w.chance, 0, 30 * USEC_PER_DAY);
	if (redis)
		w.store = &redis->base;
	else if ((memory = memory_store_new(
			  1000, &hash_key, (struct now){ .steady = 1, .utc = at })))
		w.store = memory_store_base(memory);
	must(&w, w.store, "no memory");
	for (unsigned i = 0; i < DENIALS; i++, at += gap(&w))
		(void)denial(&w, at);
	even_paces(&w, at);
	if (memory)
		store_close(w.store);
	world_close(&w);
}

int main(int argc, char **argv)
{
	static struct redis_server server;
	static struct waiting_store redis;
	bool with_redis = argc > 1 && strcmp(argv[1], "--redis") == 0;
	const char *seed = argc > 1 + with_redis ? argv[1 + with_redis] : NULL;

	if (!hash_init())
		return 2;
	if (with_redis) {
		redis_server_start(&server);
		waiting_store_init(&redis, &server, "p:");
	}
	uint64_t first = seed ? strtoull(seed, NULL, 10) : 1, last = seed ? first : SEEDS;
	for (uint64_t s = first; s <= last; s++)
		run_seed(s, with_redis ? &redis : NULL);
	if (with_redis)
		redis_server_stop(&server);
	printf("%" PRIu64 " clients\n", last - first + 1);
	return 0;
}
