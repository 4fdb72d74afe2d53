#include "store/memory_inside.h"

#include <sys/mman.h>

enum {
	SHARDS_MAX = 64,       /* one bit each in a mask */
	SHARD_KEYS_MIN = 1024, /* fewer shards rather than fewer keys in each */
};

/* ---- the line of windows ---- */

usec_t memory_mend_line(struct memory_store *m, usec_t utc)
{
	lock_get(&m->line_lock);
	usec_t seen = atomic_load_explicit(&m->seen, memory_order_relaxed);
	usec_t w = utc + atomic_load_explicit(&m->shift, memory_order_relaxed);
	if (w < seen - STEP_BACK_MAX)
		w = seen; /* goes on as if nothing had happened: who was counted stays counted */
	else if (w > seen + JUMP_MAX)
		w = seen + JUMP_MAX;
	if (w > seen)
		atomic_store_explicit(&m->seen, w, memory_order_relaxed);
	atomic_store_explicit(&m->shift, w - utc, memory_order_relaxed);
	lock_put(&m->line_lock);
	return w;
}

/* ---- rooms ---- */

/* How many entries a shard may have in hand. It gets less as fewer are left, far below what the
 * shard is sure to need itself: so none is left over in one shard while another has to evict. */
static int64_t rooms_batch(const struct memory_store *m, int64_t left)
{
	return clamp(left / (16 * (int64_t)m->shards), 0, ROOMS_BATCH_MAX);
}

bool memory_room_get(struct memory_store *m, struct shard *s, int64_t batch_max)
{
	if (shard_keys(s) == s->entry_max)
		return false;
	if (!s->rooms) {
		int64_t left = atomic_load_explicit(&m->rooms, memory_order_relaxed);
		int64_t n;
		do {
			if (left <= 0)
				return false;
			n = clamp(rooms_batch(m, left), 1, batch_max);
		} while (!atomic_compare_exchange_weak_explicit(
			&m->rooms, &left, left - n, memory_order_relaxed, memory_order_relaxed));
		s->rooms = (uint32_t)n;
	}
	s->rooms--;
	return true;
}

void memory_rooms_put(struct memory_store *m, struct shard *s, uint32_t n)
{
	s->rooms += n;
	int64_t keep = rooms_batch(m, atomic_load_explicit(&m->rooms, memory_order_relaxed));
	if (s->rooms <= 2 * keep)
		return;
	atomic_fetch_add_explicit(&m->rooms, s->rooms - keep, memory_order_relaxed);
	s->rooms = (uint32_t)keep;
}

/* ---- memory ---- */

/* Parts of one mapping, each on cache lines of its own. */
static uint64_t part(uint64_t *total, uint64_t n, size_t size)
{
	uint64_t at = *total;
	*total += (n * size + 63) / 64 * 64;
	return at;
}

bool memory_map_table(struct memory_store *m, struct now now)
{
	m->shards = 1;
	while (m->shards < SHARDS_MAX && m->keys_max / (m->shards * 2) >= SHARD_KEYS_MIN)
		m->shards *= 2;

	uint64_t mean = (m->keys_max + m->shards - 1) / m->shards;
	struct shard_sizes z = shard_sizes(mean, m->shards > 1);
	uint64_t total = 0;
	uint64_t shards_at = part(&total, m->shards, sizeof *m->shard);
	uint64_t slots_at = part(
		&total, (uint64_t)z.slot_max * m->shards, sizeof(_Atomic(uint32_t)));
	uint64_t nodes_at = part(&total, (uint64_t)z.entry_max * m->shards, sizeof(struct node));
	uint64_t entries_at = part(&total, (uint64_t)z.entry_max * m->shards, sizeof(struct entry));
	/* More than a 32-bit process can have, let alone address by differences of pointers. */
	if (total > PTRDIFF_MAX)
		return false;
	m->map_bytes = (size_t)total;
	m->map = mmap(NULL, m->map_bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->map == MAP_FAILED)
		return false;

	/* No large pages: a thousand keys would touch all of the table, and where the kernel joins
	 * small ones later, whoever comes to them meanwhile waits for milliseconds, and spins. They
	 * would save a twentieth of a worker's time at a million keys. */
	(void)madvise(m->map, m->map_bytes, MADV_NOHUGEPAGE);
	char *map = m->map;
	struct ticks t = ticks_at(now);
	m->shard = (struct shard *)(map + shards_at);
	for (unsigned i = 0; i < m->shards; i++)
		shard_init(&m->shard[i], z,
			(struct entry *)(map + entries_at) + (size_t)i * z.entry_max,
			(_Atomic(uint32_t) *)(map + slots_at) + (size_t)i * z.slot_max,
			(struct node *)(map + nodes_at) + (size_t)i * z.entry_max, t);
	return true;
}
