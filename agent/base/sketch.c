#include "base/sketch.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
	NAME_WORDS = SKETCH_NAME_MAX / 8,
	BUCKETS = 4 * SKETCH_ITEMS,
	READ_TRIES = 100, /* an item that its writer changes all the while is the least anyway */
};

static_assert(SKETCH_NAME_MAX % 8 == 0, "names are words");
static_assert((BUCKETS & (BUCKETS - 1)) == 0, "a power of two");

/* What readers look at. Each word is stored with release and loaded with acquire, so that who sees
 * a new word also sees the version, or the epoch, that was stored before it (and on x86 that costs
 * nothing). */
struct shown {
	_Atomic(uint32_t) version; /* odd: being replaced */
	_Atomic(uint32_t) group;
	_Atomic(uint64_t) count, error;
	_Atomic(uint64_t) name[NAME_WORDS];
};

struct sketch {
	_Atomic(uint64_t) epoch, total;
	_Atomic(uint32_t) shown_n;
	struct shown shown[SKETCH_ITEMS];
	/* The writer's own from here on. */
	unsigned n;
	struct key key[SKETCH_ITEMS];
	struct {
		uint64_t count;
		uint16_t item;
	} heap[SKETCH_ITEMS];         /* the least on top */
	uint16_t place[SKETCH_ITEMS]; /* in the heap */
	uint16_t bucket[BUCKETS];     /* item + 1 by its key; 0 is none; linear probing */
};

struct sketch *sketch_new(void)
{
	return calloc(1, sizeof(struct sketch));
}

void sketch_free(struct sketch *s)
{
	free(s);
}

#define SHOW(word, value) atomic_store_explicit(&(word), (value), memory_order_release)
#define LOOK(word)        atomic_load_explicit(&(word), memory_order_acquire)

void sketch_begin(struct sketch *s, uint64_t epoch)
{
	SHOW(s->epoch, epoch);
	SHOW(s->total, 0);
	SHOW(s->shown_n, 0);
	s->n = 0;
	memset(s->bucket, 0, sizeof s->bucket);
}

/* ---- the heap ---- */

static void put_in_heap(struct sketch *s, unsigned at, uint64_t count, unsigned item)
{
	s->heap[at].count = count;
	s->heap[at].item = (uint16_t)item;
	s->place[item] = (uint16_t)at;
}

/* `item` has grown: those that are less come up. */
static void sink(struct sketch *s, unsigned at, uint64_t count, unsigned item)
{
	for (;;) {
		unsigned child = 2 * at + 1;
		if (child >= s->n)
			break;
		if (child + 1 < s->n && s->heap[child + 1].count < s->heap[child].count)
			child++;
		if (s->heap[child].count >= count)
			break;
		put_in_heap(s, at, s->heap[child].count, s->heap[child].item);
		at = child;
	}
	put_in_heap(s, at, count, item);
}

static void rise(struct sketch *s, unsigned at, uint64_t count, unsigned item)
{
	while (at && s->heap[(at - 1) / 2].count > count) {
		unsigned parent = (at - 1) / 2;
		put_in_heap(s, at, s->heap[parent].count, s->heap[parent].item);
		at = parent;
	}
	put_in_heap(s, at, count, item);
}

/* ---- which item is whose ---- */

static unsigned home(struct key k)
{
	return (unsigned)k.a % BUCKETS;
}

/* The bucket that has it, or the empty one where it would be. */
static unsigned find(const struct sketch *s, struct key k)
{
	unsigned at = home(k);
	while (s->bucket[at]) {
		const struct key *other = &s->key[s->bucket[at] - 1];
		if (other->a == k.a && other->b == k.b)
			break;
		at = (at + 1) % BUCKETS;
	}
	return at;
}

/* Those that were pushed on by it move back, so that no search ends too early. */
static void forget(struct sketch *s, struct key k)
{
	unsigned hole = find(s, k), at = hole;

	for (;;) {
		at = (at + 1) % BUCKETS;
		if (!s->bucket[at])
			break;
		unsigned from_home = (at - home(s->key[s->bucket[at] - 1])) % BUCKETS;
		if (from_home < (at - hole) % BUCKETS)
			continue;
		s->bucket[hole] = s->bucket[at];
		hole = at;
	}
	s->bucket[hole] = 0;
}

/* ---- adding ---- */

static void add_total(struct sketch *s, uint64_t weight)
{
	SHOW(s->total, atomic_load_explicit(&s->total, memory_order_relaxed) + weight);
}

bool sketch_count(struct sketch *s, struct key k, uint64_t weight)
{
	unsigned at = find(s, k);
	if (!s->bucket[at])
		return false;
	unsigned item = s->bucket[at] - 1u, place = s->place[item];
	uint64_t count = s->heap[place].count + weight;
	add_total(s, weight);
	SHOW(s->shown[item].count, count);
	sink(s, place, count, item);
	return true;
}

static void show(struct shown *w, uint32_t group, uint64_t count, uint64_t error, struct str name)
{
	uint32_t version = atomic_load_explicit(&w->version, memory_order_relaxed);
	uint64_t word[NAME_WORDS] = { 0 };

	if (name.n)
		memcpy(word, name.p, name.n < sizeof word ? name.n : sizeof word);
	SHOW(w->version, version + 1);
	SHOW(w->group, group);
	SHOW(w->count, count);
	SHOW(w->error, error);
	for (unsigned i = 0; i < NAME_WORDS; i++)
		SHOW(w->name[i], word[i]);
	SHOW(w->version, version + 2);
}

void sketch_put(struct sketch *s, struct key k, uint64_t weight, uint32_t group, struct str name)
{
	bool full = s->n == SKETCH_ITEMS;
	unsigned item = full ? s->heap[0].item : s->n;
	uint64_t least = full ? s->heap[0].count : 0;

	if (full)
		forget(s, s->key[item]);
	s->key[item] = k;
	s->bucket[find(s, k)] = (uint16_t)(item + 1);
	add_total(s, weight);
	show(&s->shown[item], group, least + weight, least, name);
	if (full) {
		sink(s, 0, least + weight, item);
	} else {
		s->n++;
		rise(s, item, weight, item);
		SHOW(s->shown_n, s->n);
	}
}

/* ---- reading ---- */

static bool look(const struct shown *w, struct sketch_item *to)
{
	uint64_t word[NAME_WORDS];

	for (unsigned i = 0; i < READ_TRIES; i++) {
		uint32_t version = LOOK(w->version);
		to->group = LOOK(w->group);
		to->count = LOOK(w->count);
		to->error = LOOK(w->error);
		for (unsigned k = 0; k < NAME_WORDS; k++)
			word[k] = LOOK(w->name[k]);
		if (version % 2 == 0 &&
			atomic_load_explicit(&w->version, memory_order_relaxed) == version) {
			memcpy(to->name, word, sizeof word);
			to->name[SKETCH_NAME_MAX] = '\0';
			return true;
		}
	}
	return false;
}

bool sketch_read(const struct sketch *s, uint64_t epoch, struct sketch_item item[SKETCH_ITEMS],
	struct sketch_sum *sum)
{
	if (LOOK(s->epoch) != epoch)
		return false;
	unsigned n = LOOK(s->shown_n);
	*sum = (struct sketch_sum){ .least = n == SKETCH_ITEMS ? UINT64_MAX : 0 };
	for (unsigned i = 0; i < n; i++) {
		if (!look(&s->shown[i], &item[sum->n]))
			continue;
		if (item[sum->n].count < sum->least)
			sum->least = item[sum->n].count;
		sum->n++;
	}
	if (!sum->n)
		sum->least = 0;
	sum->total = LOOK(s->total);
	return atomic_load_explicit(&s->epoch, memory_order_relaxed) == epoch;
}
