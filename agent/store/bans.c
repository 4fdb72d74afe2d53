#include "store/bans.h"

#include "base/lock.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { WAYS = 8, SETS = BANS_MAX / WAYS, LOCKS = 64, FORGET_SETS = SETS / 8 };

#define CLOCKS_APART (60 * USEC_PER_SEC)

/* `until` of a ban that was lifted: it ended long ago, and is known for its epoch. */
#define LIFTED 1

/* What is to be told of; the next one is of[at]. What does not fit is missing. */
struct ring {
	struct lock lock;
	struct ban of[BANS_BEGUN_MAX]; /* under it */
	unsigned at, n;
};

struct bans {
	_Atomic(uint64_t) n, evicted;
	struct lock lock[LOCKS];
	struct ring begun;
	struct ring ended;          /* that others have taken the place of before it was told */
	_Atomic(usec_t) next_end;   /* none ends before, of which that is to be told */
	struct ban ban[SETS][WAYS]; /* under lock[set % LOCKS]; until 0: nothing is here */
};

struct bans *bans_new(void)
{
	struct bans *b = calloc(1, sizeof *b);

	if (b)
		atomic_init(&b->next_end, INT64_MAX);
	return b;
}

void bans_free(struct bans *b)
{
	free(b);
}

/* Keys are keyed hashes already. */
static unsigned set_of(const struct key *k)
{
	return (unsigned)(k->a % SETS);
}

static struct lock *lock_of(struct bans *b, unsigned set)
{
	return &b->lock[set % LOCKS];
}

static struct ban *find(struct bans *b, unsigned set, const struct key *k)
{
	for (unsigned i = 0; i < WAYS; i++) {
		struct ban *ban = &b->ban[set][i];
		if (ban->until && ban->key.a == k->a && ban->key.b == k->b)
			return ban;
	}
	return NULL;
}

static void add(_Atomic(uint64_t) *counter, uint64_t n)
{
	(void)atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void ring_put(struct ring *r, const struct ban *ban)
{
	lock_get(&r->lock);
	if (r->n < BANS_BEGUN_MAX)
		r->of[(r->at + r->n++) % BANS_BEGUN_MAX] = *ban;
	lock_put(&r->lock);
}

static bool ring_next(struct ring *r, struct ban *ban)
{
	lock_get(&r->lock);
	bool any = r->n > 0;
	if (any) {
		*ban = r->of[r->at];
		r->at = (r->at + 1) % BANS_BEGUN_MAX;
		r->n--;
	}
	lock_put(&r->lock);
	return any;
}

static bool end_is_news(const struct ban *ban, usec_t utc)
{
	return ban->until > LIFTED && ban->until <= utc && !ban->end_told;
}

static void ends_at(struct bans *b, usec_t until)
{
	usec_t next = atomic_load(&b->next_end);

	while (until < next && !atomic_compare_exchange_weak(&b->next_end, &next, until))
		;
}

static void drop(struct bans *b, struct ban *ban)
{
	ban->until = 0;
	add(&b->n, UINT64_MAX);
}

/* Room for one more: a free place, one to be forgotten, or that of who is free soonest. */
static struct ban *make_room(struct bans *b, unsigned set, usec_t utc)
{
	struct ban *best = &b->ban[set][0];

	for (unsigned i = 0; i < WAYS; i++) {
		struct ban *ban = &b->ban[set][i];
		if (!ban->until)
			return ban;
		if (ban->forget_at <= utc) {
			drop(b, ban);
			return ban;
		}
		if (ban->until < best->until)
			best = ban;
	}
	if (best->until > utc)
		add(&b->evicted, 1);
	if (end_is_news(best, utc))
		ring_put(&b->ended, best);
	drop(b, best);
	return best;
}

static void put(struct bans *b, struct ban *place, const struct ban *ban, usec_t utc)
{
	if (!place->until)
		add(&b->n, 1);
	else if (end_is_news(place, utc))
		ring_put(&b->ended, place);
	*place = *ban;
	place->end_told = ban->until <= utc;
	place->told_again = false;
	if (!place->end_told)
		ends_at(b, ban->until);
}

/* Until when it holds; 0: it is over, also where the clock has gone back since it ended. Where it
 * has, one that begins in the future begins now: nobody is banned for longer than he would have
 * been. (Clocks of agents that share bans may be a little apart.) */
static usec_t holds_until(struct bans *b, struct ban *ban, usec_t utc)
{
	usec_t back = ban->end_told ? ban->until - utc : ban->since - utc;

	if (ban->until <= utc)
		return 0;
	if (ban->end_told || back > CLOCKS_APART) {
		ban->since -= back;
		ban->until -= back;
		ban->forget_at -= back;
	}
	if (!ban->end_told)
		ends_at(b, ban->until);
	return ban->until > utc ? ban->until : 0;
}

static usec_t later(usec_t a, usec_t b)
{
	return a > b ? a : b;
}

usec_t bans_find(struct bans *b, const struct plan *plan, usec_t utc, unsigned *take)
{
	usec_t last = 0;

	if (atomic_load_explicit(&b->n, memory_order_relaxed) == 0)
		return 0;
	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		const struct rule *r = t->limit->rule;
		if (!r->penalty || r->mode != MODE_ENFORCE ||
			(i && plan->take[i - 1].limit->rule == r))
			continue;
		struct key k = take_ban_key(t);
		unsigned set = set_of(&k);
		lock_get(lock_of(b, set));
		struct ban *ban = find(b, set, &k);
		usec_t until = ban ? holds_until(b, ban, utc) : 0;
		lock_put(lock_of(b, set));
		if (until > last) {
			*take = i;
			last = until;
		}
	}
	return last;
}

bool bans_next_begun(struct bans *b, struct ban *ban)
{
	return ring_next(&b->begun, ban);
}

static size_t ended_in_set(struct bans *b, unsigned set, struct ban *out, usec_t utc)
{
	size_t got = 0;

	lock_get(lock_of(b, set));
	for (unsigned i = 0; i < WAYS; i++) {
		struct ban *ban = &b->ban[set][i];
		if (!ban->until || ban->end_told)
			continue;
		if (ban->until > utc)
			ends_at(b, ban->until);
		if (!end_is_news(ban, utc))
			continue;
		ban->end_told = true;
		out[got++] = *ban;
	}
	lock_put(lock_of(b, set));
	return got;
}

size_t bans_ended(struct bans *b, uint64_t *cursor, struct ban *out, size_t n, usec_t utc)
{
	size_t got = 0;

	while (got < n && ring_next(&b->ended, &out[got]))
		got++;
	if (got)
		return got;
	if (*cursor == 0) {
		if (atomic_load(&b->next_end) > utc)
			return 0;
		/* Whoever puts one from here on lowers it again. */
		atomic_store(&b->next_end, INT64_MAX);
	}
	for (; *cursor < SETS && n - got >= WAYS; ++*cursor)
		got += ended_in_set(b, (unsigned)*cursor, out + got, utc);
	return got;
}

bool bans_begin(struct bans *b, const struct penalty *p, struct ban *ban, usec_t utc)
{
	unsigned set = set_of(&ban->key);

	lock_get(lock_of(b, set));
	struct ban *place = find(b, set, &ban->key);
	bool banned = place && holds_until(b, place, utc);
	if (!banned) {
		const struct ban *last = place && place->forget_at > utc ? place : NULL;
		bool is_next = last && last->until != LIFTED && last->until + p->max > utc;
		ban->level = is_next ? last->level + 1 : 0;
		ban->epoch = last ? last->epoch + 1 : 1;
		ban->since = utc;
		ban->until = utc + penalty_length(p, ban->level);
		ban->forget_at = ban->until + later(p->max, p->after.window.length);
		put(b, place ? place : make_room(b, set, utc), ban, utc);
	}
	lock_put(lock_of(b, set));
	if (!banned)
		ring_put(&b->begun, ban);
	return !banned;
}

bool bans_put(struct bans *b, const struct ban *ban, usec_t utc)
{
	unsigned set = set_of(&ban->key);

	if (ban->forget_at <= utc || ban->until <= 0)
		return false;
	lock_get(lock_of(b, set));
	struct ban *place = find(b, set, &ban->key);
	/* Who has forgotten what this one has not counts its epochs from the beginning. */
	bool is_later = place && place->until <= utc && ban->until > utc &&
			ban->since > place->since + CLOCKS_APART;
	bool taken = !place || is_later || place->epoch < ban->epoch ||
		     (place->epoch == ban->epoch && place->until < ban->until);
	if (taken)
		put(b, place ? place : make_room(b, set, utc), ban, utc);
	lock_put(lock_of(b, set));
	return taken;
}

bool bans_lift(struct bans *b, const struct key *k, usec_t utc)
{
	unsigned set = set_of(k);

	lock_get(lock_of(b, set));
	struct ban *ban = find(b, set, k);
	bool holds = ban && holds_until(b, ban, utc);
	if (holds) {
		ban->until = LIFTED;
		ban->epoch++;
		ban->told_again = false;
	}
	lock_put(lock_of(b, set));
	return holds;
}

bool bans_rename(struct bans *b, const struct key *k, const char client[BAN_CLIENT_MAX + 1])
{
	unsigned set = set_of(k);

	lock_get(lock_of(b, set));
	struct ban *ban = find(b, set, k);
	if (ban)
		memcpy(ban->client, client, sizeof ban->client);
	lock_put(lock_of(b, set));
	return ban != NULL;
}

bool bans_get(struct bans *b, const struct key *k, struct ban *out)
{
	unsigned set = set_of(k);

	lock_get(lock_of(b, set));
	const struct ban *ban = find(b, set, k);
	if (ban)
		*out = *ban;
	lock_put(lock_of(b, set));
	return ban != NULL;
}

/* ban.epoch, which is not forgotten before `kept_until` then. */
static uint32_t epoch_of(struct bans *b, const struct key *k, usec_t utc, usec_t kept_until)
{
	unsigned set = set_of(k);
	uint32_t epoch = 0;

	if (bans_count(b) == 0)
		return 0;
	lock_get(lock_of(b, set));
	struct ban *ban = find(b, set, k);
	if (ban && ban->forget_at > utc) {
		epoch = ban->epoch;
		ban->forget_at = later(ban->forget_at, kept_until);
	}
	lock_put(lock_of(b, set));
	return epoch;
}

uint32_t bans_epoch(struct bans *b, const struct key *k, usec_t utc)
{
	return epoch_of(b, k, utc, 0);
}

uint32_t bans_epoch_to_count(
	struct bans *b, const struct key *k, const struct penalty *p, usec_t utc)
{
	return epoch_of(b, k, utc, utc + p->after.window.length);
}

size_t bans_copy(struct bans *b, uint64_t *cursor, struct ban *out, size_t n, usec_t utc)
{
	size_t got = 0;

	/* A set at a time, whole: the cursor counts sets. */
	for (; *cursor < SETS && n - got >= WAYS; ++*cursor) {
		unsigned set = (unsigned)*cursor;
		lock_get(lock_of(b, set));
		for (unsigned i = 0; i < WAYS; i++) {
			struct ban *ban = &b->ban[set][i];
			if (!ban->until || ban->forget_at <= utc)
				continue;
			(void)holds_until(b, ban, utc);
			out[got++] = *ban;
		}
		lock_put(lock_of(b, set));
	}
	return got;
}

static size_t forget_in_set(struct bans *b, unsigned set, struct key *out, usec_t utc)
{
	size_t got = 0;

	lock_get(lock_of(b, set));
	for (unsigned i = 0; i < WAYS; i++) {
		struct ban *ban = &b->ban[set][i];
		if (!ban->until || ban->forget_at > utc)
			continue;
		out[got++] = ban->key;
		drop(b, ban);
	}
	lock_put(lock_of(b, set));
	return got;
}

size_t bans_forget(struct bans *b, uint64_t *cursor, struct key *out, size_t n, usec_t utc)
{
	size_t got = 0;

	if (bans_count(b) == 0)
		return 0;
	for (unsigned i = 0; i < FORGET_SETS && n - got >= WAYS; i++, ++*cursor)
		got += forget_in_set(b, (unsigned)(*cursor % SETS), out + got, utc);
	return got;
}

bool bans_forget_one(struct bans *b, const struct key *k, usec_t utc, struct ban *out)
{
	unsigned set = set_of(k);
	bool again = false;

	lock_get(lock_of(b, set));
	struct ban *ban = find(b, set, k);
	if (ban && ban->forget_at <= utc + CLOCKS_APART) {
		drop(b, ban);
	} else if (ban && !ban->told_again) {
		ban->told_again = again = true;
		*out = *ban;
	}
	lock_put(lock_of(b, set));
	return again;
}

uint64_t bans_count(const struct bans *b)
{
	return atomic_load_explicit(&b->n, memory_order_relaxed);
}

uint64_t bans_evicted(const struct bans *b)
{
	return atomic_load_explicit(&b->evicted, memory_order_relaxed);
}
