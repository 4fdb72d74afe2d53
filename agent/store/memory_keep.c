#include "store/memory_inside.h"

#include <stdlib.h>
#include <string.h>

enum {
	SWEEP_LOOKS = 32, /* for each time a lock is held */
	COPY_LOOKS = 512, /* ditto: entries passed over, free ones included */
	WALK_LOOKS = 256, /* ditto: of a walk over all entries */
};

/* ---- a walk over all ---- */

typedef void visit_fn(struct entry *, const void *with);

/* All entries of one time line, some hundred for each time a lock is held. */
static void walk(struct memory_store *m, unsigned line, visit_fn *visit, const void *with)
{
	for (unsigned i = 0; i < m->shards; i++) {
		struct shard *s = &m->shard[i];
		uint32_t next = 0, end;
		do {
			lock_get(&s->lock);
			end = s->fresh;
			for (unsigned looks = WALK_LOOKS; looks && next < end; looks--, next++) {
				struct entry *e = &s->entry[next];
				if (!entry_is_free(e) && key_line(&e->key) == line)
					visit(e, with);
			}
			lock_put(&s->lock);
		} while (next < end);
	}
}

/* ---- the keeper: a clock that went back ---- */

/* Between two sweeps, as a rule. */
#define SWEPT_AGO_MAX (2 * USEC_PER_SEC)

struct step_back {
	usec_t latest, anchor; /* of the windows' clock: now, and where it went back to */
	usec_t shift;          /* of the line of windows, before */
	uint32_t to;           /* the anchor, on that line */
	uint32_t was;          /* that line when it went back, or a little later */
};

static bool is_after(uint32_t tick, uint32_t other)
{
	return (int32_t)(tick - other) > 0;
}

/* What an entry is kept for begins elsewhere on its line. That is never sooner than the heaps know
 * where the line went back by so much: it had begun by then. */
static void move_times(struct entry *e, uint32_t from, uint32_t to)
{
	usec_t life = (usec_t)(int32_t)(e->full_at - from) * TICK_USEC;
	uint32_t by = to + tick_floor(window_life(life)) - e->full_at;

	e->full_at += by;
	if (is_after(e->open_at, to))
		e->open_at += by;
}

/* One that is open is known by when it was last charged: of a time that is ahead now it would look
 * as if it were at its limit until then, and stay while those go that are. */
static void open_anew(struct entry *e, const struct step_back *b)
{
	if (!is_after(e->open_at, b->was) && is_after(e->open_at, b->to))
		e->open_at = b->to;
}

static void anchor_entry(struct entry *e, const void *with)
{
	const struct step_back *b = with;
	usec_t at = bucket_instant(&e->bucket);

	open_anew(e, b);
	if (at <= b->latest + BUCKET_AHEAD_MAX)
		return;
	e->bucket.at = b->anchor + BUCKET_WITHIN;
	move_times(e, tick_floor(at + b->shift), b->to);
}

/* When the clock of windows went back, those of the future became windows of its anchor. They are
 * read so for a while (BUCKET_ANCHOR_MAX), and now stored so: else they would be there again when
 * UTC comes to them, and keep others out until then. (One to whose beginning UTC has come since,
 * within the second or so, cannot be told from one that began now, and stays.) */
static void anchor_windows(struct memory_store *m, struct now now, struct now lines)
{
	usec_t latest = now.utc + now.held, anchor = latest - now.anchor_age;
	struct step_back b = {
		.latest = latest,
		.anchor = anchor,
		.shift = atomic_load_explicit(&m->swept_shift, memory_order_relaxed),
		.to = tick_ceil(anchor + lines.utc - now.utc),
		.was = tick_ceil(
			SWEPT_AGO_MAX + atomic_load_explicit(&m->swept_line, memory_order_relaxed)),
	};

	walk(m, LINE_WINDOWS, anchor_entry, &b);
}

/* Also of the first sweep after a step: what it frees goes by the new times. */
static void follow_anchor(struct memory_store *m, struct now now, struct now lines)
{
	usec_t anchor = now.utc + now.held - now.anchor_age;

	if (now.anchor_age == 0)
		return;
	if (atomic_exchange_explicit(&m->anchor, anchor, memory_order_relaxed) != anchor)
		anchor_windows(m, now, lines);
	atomic_store_explicit(&m->swept_shift, lines.utc - now.utc, memory_order_relaxed);
	atomic_store_explicit(&m->swept_line, lines.utc + now.held, memory_order_relaxed);
}

/* ---- the keeper: what is full again ---- */

size_t memory_store_sweep(struct memory_store *m, struct now now, size_t budget)
{
	struct now lines = lines_at(m, now);
	if (lines.utc > atomic_load_explicit(&m->seen, memory_order_relaxed))
		lines.utc = memory_mend_line(m, now.utc);
	follow_anchor(m, now, lines);
	struct ticks t = ticks_at(lines);

	/* Nearly full: also mend what the next newcomers would have to. */
	bool tidy = atomic_load_explicit(&m->rooms, memory_order_relaxed) <=
		    (int64_t)(m->keys_max / 16);

	unsigned most = budget < SWEEP_LOOKS ? (unsigned)budget : SWEEP_LOOKS;
	size_t freed = 0;
	uint64_t busy = most ? UINT64_MAX >> (64 - m->shards) : 0;
	while (busy) {
		/* Round and round, so that nobody who waits for a lock finds it taken again. */
		for (unsigned i = 0; i < m->shards; i++) {
			if (!(busy >> i & 1))
				continue;
			struct shard *s = &m->shard[i];
			unsigned looks = most;
			lock_get(&s->lock);
			uint32_t n = shard_sweep(s, &t, &looks, tidy);
			if (n)
				memory_rooms_put(m, s, n);
			lock_put(&s->lock);
			freed += n;
			if (looks)
				busy &= ~(1ull << i);
		}
	}
	return freed;
}

/* ---- a refill became slower ---- */

struct stretch {
	double factor;
	uint32_t now; /* steady */
};

/* A tick of before, made longer, never shorter and never beyond what ticks bear. */
static uint32_t stretched(uint32_t at, const struct stretch *s)
{
	int32_t left = (int32_t)(at - s->now);
	if (left <= 0)
		return at;
	const double most = (double)(LIFE_MAX >> TICK_BITS);
	double longer = (double)left * s->factor + 1;
	if (longer > most)
		longer = most;
	return later(s->now + (uint32_t)longer, at);
}

static void stretch_entry(struct entry *e, const void *with)
{
	e->full_at = stretched(e->full_at, with);
	e->open_at = stretched(e->open_at, with);
}

void memory_store_stretch(struct memory_store *m, double factor, struct now now)
{
	struct stretch s = { factor, tick_floor(now.steady) };

	/* A window ends when it ends, whatever its quota. */
	if (factor > 1)
		walk(m, LINE_STEADY, stretch_entry, &s);
}

/* ---- out to the state file, and back ---- */

static usec_t tick_usec(uint32_t tick, usec_t now)
{
	int64_t at = (now >> TICK_BITS) + (int32_t)(tick - tick_floor(now));
	return at * TICK_USEC;
}

static struct bucket unmarked(const struct entry *e)
{
	struct bucket b = e->bucket;
	if (key_line(&e->key) == LINE_WINDOWS)
		b.at = bucket_instant(&b);
	return b;
}

/* By how much the line of windows is ahead of UTC for this entry: one that is of the future was
 * charged before the clock went back, and has not been anchored yet. */
static usec_t shift_of(struct memory_store *m, const struct entry *e, usec_t latest, usec_t shift)
{
	bool is_anchored = bucket_instant(&e->bucket) <= latest + BUCKET_AHEAD_MAX;

	return is_anchored ? shift : atomic_load_explicit(&m->swept_shift, memory_order_relaxed);
}

size_t memory_store_copy(struct memory_store *m, uint64_t *cursor, struct memory_entry *out,
	size_t n, struct now now)
{
	struct now lines = lines_at(m, now);
	usec_t shift = lines.utc - now.utc;
	unsigned number = (unsigned)(*cursor >> 32);
	uint32_t next = (uint32_t)*cursor;
	size_t got = 0;
	while (!got && n && number < m->shards) {
		struct shard *s = &m->shard[number];
		lock_get(&s->lock);
		unsigned looks = COPY_LOOKS;
		for (; looks && got < n && next < s->fresh; looks--, next++) {
			const struct entry *e = &s->entry[next];
			if (entry_is_free(e))
				continue;
			usec_t line = line_of(&e->key, lines);
			usec_t back = key_line(&e->key) == LINE_WINDOWS
					      ? shift_of(m, e, now.utc + now.held, shift)
					      : 0;
			out[got++] = (struct memory_entry){
				.key = e->key,
				.bucket = unmarked(e),
				.full_at = tick_usec(e->full_at, line) - back,
				.open_at = tick_usec(e->open_at, line) - back,
			};
		}
		bool end = next >= s->fresh;
		lock_put(&s->lock);
		if (end) {
			number++;
			next = 0;
		}
	}
	*cursor = (uint64_t)number << 32 | next;
	return got;
}

bool memory_store_put(struct memory_store *m, const struct memory_entry *from, struct now now)
{
	struct now lines = lines_at(m, now);
	struct ticks t = ticks_at(lines);
	usec_t begin = line_of(&from->key, now);
	if (from->full_at <= begin)
		return false;
	struct times times = times_after(
		line_of(&from->key, lines), from->full_at - begin, from->open_at - begin);
	struct entry e = { from->key, from->bucket, times.full_at, times.open_at };
	if (key_line(&e.key) == LINE_WINDOWS)
		e.bucket.at += BUCKET_WITHIN;

	struct shard *s = shard_of(m, &e.key);
	lock_get(&s->lock);
	uint32_t found = shard_find(s, &e.key);
	if (found != ENTRY_NONE) {
		rewrite(&s->entry[found], &e.bucket, times);
	} else if (memory_room_get(m, s, 1)) {
		/* One by one: a file brings all of a shard's keys before any of the next's. */
		shard_add(s, &e, &t);
	} else {
		enum room room = shard_make_room(s, &t, NULL, 0, &e);
		memory_count_room(s, room, entry_is_limited(&e, &t));
		if (room != ROOM_NONE)
			shard_add(s, &e, &t);
	}
	lock_put(&s->lock);
	return true;
}

/* ---- notes ---- */

bool memory_store_set_notes(struct memory_store *m, const void *bytes, size_t n)
{
	assert(n <= NOTES_BYTES_MAX);
	char *fresh = malloc(n + 1);
	if (!fresh)
		return false;
	if (n)
		memcpy(fresh, bytes, n);
	fresh[n] = '\0';
	lock_get(&m->notes_lock);
	char *old = m->notes;
	m->notes = fresh;
	m->notes_n = n;
	lock_put(&m->notes_lock);
	free(old);
	return true;
}

char *memory_store_notes(struct memory_store *m, size_t *n)
{
	lock_get(&m->notes_lock);
	*n = m->notes_n;
	char *copy = malloc(*n + 1);
	if (copy && *n)
		memcpy(copy, m->notes, *n);
	lock_put(&m->notes_lock);
	if (copy)
		copy[*n] = '\0';
	return copy;
}
