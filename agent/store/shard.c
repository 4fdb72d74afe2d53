#include "store/shard.h"

#include "limit/policy.h"

/* ---- heaps: four children to a node, of which the smallest `at` comes to the top ---- */

enum { CHILDREN = 4 };
#define NODE_WINDOWS (1u << 31)

/* Steps of the clock up to so many ticks are not followed: two clocks cannot be read at once, and
 * their distance seems to jitter. */
enum { JITTER = 4 };

static struct node *node_at(const struct heap *h, uint32_t i)
{
	return h->base + (ptrdiff_t)h->step * (ptrdiff_t)i;
}

static bool sooner(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static void sift_down(struct heap *h, uint32_t i, struct node node)
{
	for (;;) {
		uint64_t first = (uint64_t)i * CHILDREN + 1;
		if (first >= h->n)
			break;
		uint32_t least = (uint32_t)first;
		for (uint32_t c = least + 1; c < h->n && c < first + CHILDREN; c++)
			if (sooner(node_at(h, c)->at, node_at(h, least)->at))
				least = c;
		if (!sooner(node_at(h, least)->at, node.at))
			break;
		*node_at(h, i) = *node_at(h, least);
		i = least;
	}
	*node_at(h, i) = node;
}

static void heap_push(struct heap *h, struct node node)
{
	uint32_t i = h->n++;
	while (i) {
		uint32_t parent = (i - 1) / CHILDREN;
		if (!sooner(node.at, node_at(h, parent)->at))
			break;
		*node_at(h, i) = *node_at(h, parent);
		i = parent;
	}
	*node_at(h, i) = node;
}

/* The top, or one that is as soon as it: of which none above is later than any other. */
static void heap_remove(struct heap *h, uint32_t i)
{
	struct node last = *node_at(h, --h->n);
	if (i < h->n)
		sift_down(h, i, last);
}

static void heap_pop(struct heap *h)
{
	heap_remove(h, 0);
}

/* Windows moved ahead by `ticks`: what is left of their entries' time is that much less. */
static void heap_follow(struct heap *h, uint32_t ticks)
{
	for (uint32_t i = 0; i < h->n; i++)
		if (node_at(h, i)->entry & NODE_WINDOWS)
			node_at(h, i)->at -= ticks;
	for (uint32_t i = h->n / CHILDREN + 1; i--;)
		if (i < h->n)
			sift_down(h, i, *node_at(h, i));
}

/* UTC that stepped forward ends windows earlier than the heaps know, so they have to be told; this
 * goes over nodes alone. Stepped back it makes what they know too early: no harm, a lower bound. */
static void follow_clock(struct shard *s, const struct ticks *now)
{
	int32_t step = (int32_t)(now->ahead - s->ahead);
	if (step >= -JITTER && step <= JITTER)
		return;
	if (step > 0) {
		heap_follow(&s->open, (uint32_t)step);
		heap_follow(&s->limited, (uint32_t)step);
	}
	s->ahead = now->ahead;
}

/* ---- entries and their nodes ---- */

static struct node node_for(const struct shard *s, uint32_t entry, uint32_t at)
{
	if (key_line(&s->entry[entry].key) == LINE_STEADY)
		return (struct node){ entry, at };
	return (struct node){ entry | NODE_WINDOWS, at - s->ahead };
}

static struct node node_of_open(const struct shard *s, uint32_t entry)
{
	return node_for(s, entry, s->entry[entry].full_at);
}

static struct node node_of_limited(const struct shard *s, uint32_t entry)
{
	return node_for(s, entry, s->entry[entry].open_at);
}

static uint32_t top_entry(const struct heap *h)
{
	return h->base->entry & ~NODE_WINDOWS;
}

static void put_in_heap(struct shard *s, uint32_t entry, const struct ticks *now)
{
	if (entry_is_limited(&s->entry[entry], now))
		heap_push(&s->limited, node_of_limited(s, entry));
	else
		heap_push(&s->open, node_of_open(s, entry));
}

/* true: what the heap knew of its top was out of date; it is put right, and in its place. */
static bool top_mended(struct heap *h, struct node now)
{
	if (h->base->at == now.at)
		return false;
	sift_down(h, 0, now);
	return true;
}

/* ---- slots ---- */

/* In use at first, and by how much more as soon as a quarter is taken. All at once is the last
 * step: in a table for very many keys each entry that it links anew is a page fault under the lock,
 * and 256 of them take a few hundred microseconds. */
enum { SLOTS_FIRST = 64, SLOTS_GROWTH = 4, SLOTS_GROWN_MAX = 1024 };

static uint32_t distance(uint32_t from, uint32_t to, uint32_t slot_n)
{
	return to >= from ? to - from : to + slot_n - from;
}

static void unlink_slot(struct shard *s, uint32_t entry)
{
	const uint32_t n = slots_in_use(s);
	uint32_t hole = shard_home(&s->entry[entry].key, n);
	while ((slot_get(s, hole) & ~s->tag_mask) != entry + 1)
		hole = slot_after(hole, n);

	for (uint32_t i = slot_after(hole, n);; i = slot_after(i, n)) {
		uint32_t v = slot_get(s, i);
		if (!v)
			break;
		/* It may move to the hole unless that lies before its home. */
		uint32_t home = shard_home(&s->entry[(v & ~s->tag_mask) - 1].key, n);
		if (distance(home, i, n) < distance(hole, i, n))
			continue;
		slot_set(s, hole, v);
		hole = i;
	}
	slot_set(s, hole, 0);
}

static void free_entry(struct shard *s, uint32_t entry)
{
	struct entry *e = &s->entry[entry];
	unlink_slot(s, entry);
	memset(e, 0, sizeof *e);
	e->open_at = 1;
	e->bucket.at = s->free_next;
	s->free_next = entry + 1;
}

static void link_slot(struct shard *s, uint32_t entry)
{
	const struct key *k = &s->entry[entry].key;
	const uint32_t n = slots_in_use(s);
	uint32_t i = shard_home(k, n);
	while (slot_get(s, i))
		i = slot_after(i, n);
	slot_set(s, i, shard_tag(s, k) | (entry + 1));
}

/* Among slots that may never have been touched: what is only read first is a page fault more. */
static void relink_slot(struct shard *s, uint32_t entry)
{
	uint32_t home = shard_home(&s->entry[entry].key, slots_in_use(s));
	(void)atomic_fetch_or_explicit(&s->slot[home], 0, memory_order_relaxed);
	link_slot(s, entry);
}

static void link_all(struct shard *s, const struct heap *h)
{
	for (uint32_t i = 0; i < h->n; i++)
		relink_slot(s, node_at(h, i)->entry & ~NODE_WINDOWS);
}

/* More slots, and every entry where it belongs among them. */
static void grow_slots(struct shard *s)
{
	uint32_t n = slots_in_use(s), more = n * SLOTS_GROWTH;
	for (uint32_t i = 0; i < n; i++)
		slot_set(s, i, 0);
	if (more > SLOTS_GROWN_MAX || more > s->slot_max)
		more = s->slot_max;
	atomic_store_explicit(&s->slot_n, more, memory_order_relaxed);
	link_all(s, &s->open);
	link_all(s, &s->limited);
}

uint32_t shard_add(struct shard *s, const struct entry *e, const struct ticks *now)
{
	assert(shard_keys(s) < s->entry_max);
	follow_clock(s, now);

	uint32_t entry;
	if (s->free_next) {
		entry = s->free_next - 1;
		s->free_next = (uint32_t)s->entry[entry].bucket.at;
	} else {
		entry = s->fresh++;
	}
	s->entry[entry] = *e;

	if (shard_keys(s) >= slots_in_use(s) / 4 && slots_in_use(s) < s->slot_max)
		grow_slots(s);
	link_slot(s, entry);
	put_in_heap(s, entry, now);
	return entry;
}

/* Among `limited`, one whose time has come goes back among the open ones. false: there is none. */
static bool reopen_one(struct shard *s, const struct ticks *now)
{
	struct heap *h = &s->limited;
	if (!h->n || sooner(now->at[LINE_STEADY], h->base->at))
		return false;
	uint32_t entry = top_entry(h);
	if (top_mended(h, node_of_limited(s, entry)))
		return true;
	if (entry_is_limited(&s->entry[entry], now))
		return false;
	heap_pop(h);
	heap_push(&s->open, node_of_open(s, entry));
	return true;
}

static bool is_spared(uint32_t entry, const uint32_t *spared, unsigned spared_n)
{
	for (unsigned i = 0; i < spared_n; i++)
		if (spared[i] == entry)
			return true;
	return false;
}

/* Of a counter of windows; of a token bucket its time tells it. */
static uint64_t used(const struct entry *e)
{
	if (key_line(&e->key) == LINE_STEADY)
		return 0;
	return (uint64_t)e->bucket.current + e->bucket.previous;
}

/* Windows end together, however much was used of them: of the top of `open` and of those below it
 * that are as soon, the place of one that has used least. Who has used little is put there by every
 * removal where many are alike, so that it is seldom another one who goes. */
static uint32_t least_used(
	const struct shard *s, const struct ticks *now, const uint32_t *spared, unsigned spared_n)
{
	const struct heap *h = &s->open;
	uint64_t least = used(&s->entry[top_entry(h)]);
	uint32_t place = 0;

	for (uint32_t i = 1; i <= CHILDREN && i < h->n && (h->base->entry & NODE_WINDOWS); i++) {
		const struct node *node = node_at(h, i);
		uint32_t entry = node->entry & ~NODE_WINDOWS;
		const struct entry *e = &s->entry[entry];
		if (node->at != h->base->at || !(node->entry & NODE_WINDOWS) || used(e) >= least)
			continue;
		/* What the heap knows of it may be out of date. */
		if (node_of_open(s, entry).at != node->at || entry_is_limited(e, now) ||
			is_spared(entry, spared, spared_n))
			continue;
		least = used(e);
		place = i;
	}
	return place;
}

/* Both on the steady line of the heaps; of what is alike there, by what was used. */
static bool has_less_to_lose(const struct shard *s, const struct entry *e, bool limited,
	const struct node *than, const struct entry *other)
{
	uint32_t at = limited ? e->open_at : e->full_at;
	if (key_line(&e->key) == LINE_WINDOWS)
		at -= s->ahead;
	return at == than->at ? used(e) <= used(other) : !sooner(than->at, at);
}

/* `rival` would be the next to go in the place of `e`, which is at the top of its heap, or as soon.
 */
static bool goes_first(const struct shard *s, const struct entry *rival, const struct entry *e,
	bool limited, const struct ticks *now)
{
	bool rival_limited = entry_is_limited(rival, now);
	const struct heap *h = limited ? &s->limited : &s->open;

	return limited > rival_limited ||
	       (limited == rival_limited && has_less_to_lose(s, rival, limited, h->base, e));
}

enum room shard_make_room(struct shard *s, const struct ticks *now, const uint32_t *spared,
	unsigned spared_n, const struct entry *rival)
{
	assert(spared_n <= PLAN_MAX);
	uint32_t aside[PLAN_MAX];
	unsigned aside_n = 0;
	enum room room = ROOM_NONE;

	follow_clock(s, now);
	for (;;) {
		if (reopen_one(s, now))
			continue;

		struct heap *h = s->open.n ? &s->open : &s->limited;
		if (!h->n)
			break;
		bool limited = h == &s->limited;
		uint32_t entry = top_entry(h), place = 0;
		const struct entry *e = &s->entry[entry];
		if (top_mended(h, limited ? node_of_limited(s, entry) : node_of_open(s, entry)))
			continue;
		if (is_spared(entry, spared, spared_n)) {
			aside[aside_n++] = entry;
			heap_pop(h);
			continue;
		}
		if (entry_is_full(e, now)) {
			room = ROOM_EXPIRED;
		} else if (!limited && entry_is_limited(e, now)) {
			heap_pop(h);
			heap_push(&s->limited, node_of_limited(s, entry));
			continue;
		} else {
			place = limited ? 0 : least_used(s, now, spared, spared_n);
			entry = node_at(h, place)->entry & ~NODE_WINDOWS;
			if (rival && goes_first(s, rival, &s->entry[entry], limited, now))
				break;
			room = limited ? ROOM_EVICTED_LIMITED : ROOM_EVICTED;
		}
		heap_remove(h, place);
		free_entry(s, entry);
		break;
	}
	while (aside_n)
		put_in_heap(s, aside[--aside_n], now);
	return room;
}

uint32_t shard_sweep(struct shard *s, const struct ticks *now, unsigned *looks, bool tidy)
{
	uint32_t freed = 0;
	follow_clock(s, now);
	for (; *looks; --*looks) {
		if (reopen_one(s, now))
			continue;
		struct heap *h = &s->open;
		if (!h->n || (!tidy && sooner(now->at[LINE_STEADY], h->base->at)))
			break;
		uint32_t entry = top_entry(h);
		if (top_mended(h, node_of_open(s, entry)))
			continue;
		if (entry_is_full(&s->entry[entry], now)) {
			heap_pop(h);
			free_entry(s, entry);
			freed++;
		} else if (tidy && entry_is_limited(&s->entry[entry], now)) {
			heap_pop(h);
			heap_push(&s->limited, node_of_limited(s, entry));
		} else {
			break;
		}
	}
	s->expired += freed;
	return freed;
}

/* ---- sizes ---- */

struct shard_sizes shard_sizes(uint64_t mean, bool spread)
{
	/* Keys are hashes, so a shard's share is spread as a Poisson distribution is: eight
	 * deviations more than the mean do not happen by chance. The memory is only reserved. */
	uint64_t root = 1;
	while (root * root < mean)
		root++;
	uint64_t most = spread ? mean + 8 * root + 64 : mean;

	/* Half full on average; never full. */
	uint64_t slots = 2 * mean + 8;
	if (slots < most + most / 4 + 8)
		slots = most + most / 4 + 8;
	return (struct shard_sizes){ (uint32_t)most, (uint32_t)slots };
}

void shard_init(struct shard *s, struct shard_sizes z, struct entry *entry, _Atomic(uint32_t) *slot,
	struct node *node, struct ticks now)
{
	s->entry = entry;
	s->slot = slot;
	s->entry_max = z.entry_max;
	s->slot_max = z.slot_max;
	atomic_init(&s->slot_n, z.slot_max < SLOTS_FIRST ? z.slot_max : SLOTS_FIRST);
	s->tag_mask = UINT32_MAX;
	while ((~s->tag_mask) < z.entry_max)
		s->tag_mask <<= 1;
	s->open = (struct heap){ .base = node, .step = 1 };
	s->limited = (struct heap){ .base = node + z.entry_max - 1, .step = -1 };
	s->ahead = now.ahead;
}
