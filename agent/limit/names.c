#include "limit/names.h"

#include "base/hash.h"

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

struct entry {
	char *name; /* owned by `chunk` */
	uint32_t length, number, hash;
};

/* Names lie one after another in chunks, so that freeing ten thousand of them is a handful of
 * calls. */
struct chunk {
	struct chunk *next;
	size_t used, size;
	char bytes[];
};

enum { CHUNK_BYTES = 1 << 16 };

/* What was found for secrets: a word each, most of it of the secret's hash, and in its lowest bits
 * the number and 2, so that also -1 is not 0. */
enum { MEMO_SETS = 2048, MEMO_WAYS = 4, NUMBER_BITS = 16, NUMBER_FROM = 2 };

static_assert(NAMES_OF_HASHES_MAX + NUMBER_FROM == 1 << NUMBER_BITS, "it fits into its bits");

struct memo {
	struct hasher hasher;
	_Atomic(uint64_t) word[MEMO_SETS][MEMO_WAYS]; /* 0: nothing */
};

struct names {
	struct entry *entry; /* open addressing, linear probing, at most half full */
	size_t cap, n;       /* cap: a power of two */
	struct chunk *chunk;
	struct memo *memo; /* owned; of hashes only */
};

static uint32_t hash_of(struct str s)
{
	uint32_t h = str_fnv(s, 0);

	return h ^ h >> 15;
}

struct names *names_new(void)
{
	struct names *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	t->cap = 16;
	t->entry = calloc(t->cap, sizeof *t->entry);
	if (!t->entry) {
		free(t);
		return NULL;
	}
	return t;
}

struct names *names_new_of_hashes(void)
{
	struct names *t = names_new();
	struct memo *memo = aligned_alloc(alignof(struct memo), sizeof *memo);
	struct hash_key key;

	if (!t || !memo) {
		names_free(t);
		free(memo);
		return NULL;
	}
	memset(memo, 0, sizeof *memo);
	hash_key_random(&key);
	hasher_init(&memo->hasher, &key);
	t->memo = memo;
	return t;
}

void names_free(struct names *t)
{
	if (!t)
		return;
	free(t->memo);
	for (struct chunk *c = t->chunk, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	free(t->entry);
	free(t);
}

/* The entry of that name, or the empty one where it belongs. */
static struct entry *slot_of(struct entry *entry, size_t cap, struct str s, uint32_t hash)
{
	size_t i = hash & (cap - 1);
	while (entry[i].name) {
		if (entry[i].hash == hash &&
			str_eq((struct str){ entry[i].name, entry[i].length }, s))
			break;
		i = (i + 1) & (cap - 1);
	}
	return &entry[i];
}

static bool grow(struct names *t)
{
	size_t cap = t->cap * 2;
	struct entry *entry = calloc(cap, sizeof *entry);
	if (!entry)
		return false;
	for (size_t i = 0; i < t->cap; i++) {
		struct entry *e = &t->entry[i];
		if (e->name)
			*slot_of(entry, cap, (struct str){ e->name, e->length }, e->hash) = *e;
	}
	free(t->entry);
	t->entry = entry;
	t->cap = cap;
	return true;
}

static char *keep(struct names *t, struct str s)
{
	if (!t->chunk || s.n + 1 > t->chunk->size - t->chunk->used) {
		size_t size = s.n + 1 > CHUNK_BYTES ? s.n + 1 : CHUNK_BYTES;
		struct chunk *c = malloc(sizeof *c + size);
		if (!c)
			return NULL;
		*c = (struct chunk){ .next = t->chunk, .size = size };
		t->chunk = c;
	}
	char *p = t->chunk->bytes + t->chunk->used;
	if (s.n)
		memcpy(p, s.p, s.n);
	p[s.n] = '\0';
	t->chunk->used += s.n + 1;
	return p;
}

bool names_add(struct names *t, struct str name, uint32_t number)
{
	if (t->n + 1 > t->cap / 2 && !grow(t))
		return false;
	uint32_t hash = hash_of(name);
	struct entry *e = slot_of(t->entry, t->cap, name, hash);
	if (e->name)
		return true;
	char *kept = keep(t, name);
	if (!kept)
		return false;
	*e = (struct entry){
		.name = kept, .length = (uint32_t)name.n, .number = number, .hash = hash
	};
	t->n++;
	return true;
}

int64_t names_find(const struct names *t, struct str name)
{
	if (t->n == 0)
		return -1;
	const struct entry *e = slot_of(t->entry, t->cap, name, hash_of(name));
	return e->name ? (int64_t)e->number : -1;
}

int64_t names_find_secret(const struct names *t, struct str secret)
{
	char hex[SHA256_HEX_BYTES];

	if (t->n == 0)
		return -1; /* most files list no hash */
	struct key k = hasher_of(&t->memo->hasher, secret.p, secret.n);
	_Atomic(uint64_t) *set = t->memo->word[k.a % MEMO_SETS], *place = &set[k.b % MEMO_WAYS];
	for (unsigned i = 0; i < MEMO_WAYS; i++) {
		uint64_t word = atomic_load_explicit(&set[i], memory_order_relaxed);
		if (!word) {
			place = &set[i];
			break;
		}
		if ((word ^ k.b) >> NUMBER_BITS == 0)
			return (int64_t)(word & ((1u << NUMBER_BITS) - 1)) - NUMBER_FROM;
	}
	hash_sha256_hex(secret, hex);
	int64_t number = names_find(t, (struct str){ hex, sizeof hex });
	assert(number < NAMES_OF_HASHES_MAX);
	atomic_store_explicit(place,
		k.b >> NUMBER_BITS << NUMBER_BITS | (uint64_t)(number + NUMBER_FROM),
		memory_order_relaxed);
	return number;
}
