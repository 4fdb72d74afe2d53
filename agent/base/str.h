/* A borrowed run of bytes: pointer and length, never NUL-terminated, may hold any byte. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
	const char *p;
	size_t n;
};

#define STR(literal) ((struct str){ (literal), sizeof(literal) - 1 })

static inline struct str str_of(const char *z)
{
	return (struct str){ z, z ? strlen(z) : 0 };
}

static inline bool str_eq(struct str a, struct str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* FNV-1a, for small tables of names that an operator chose: who may choose them to collide wants
 * base/hash.h. `begin`: 0, or what is to tell them apart besides. */
static inline uint32_t str_fnv(struct str s, uint32_t begin)
{
	uint32_t h = UINT32_C(2166136261) ^ begin;

	for (size_t i = 0; i < s.n; i++)
		h = (h ^ (uint8_t)s.p[i]) * UINT32_C(16777619);
	return h;
}

/* Its first eight bytes, the first of them in the lowest bits; zeros where it is shorter. */
enum { STR_HEAD_BYTES = 8 };

static inline uint64_t str_head(struct str s)
{
	uint64_t all;
	uint32_t low, high; /* may overlap: then both have the same there */

	if (s.n >= sizeof all) {
		memcpy(&all, s.p, sizeof all);
		return le64toh(all);
	}
	if (s.n >= sizeof low) {
		memcpy(&low, s.p, sizeof low);
		memcpy(&high, s.p + s.n - sizeof high, sizeof high);
		return (uint64_t)le32toh(high) << 8 * (s.n - sizeof high) | le32toh(low);
	}
	if (s.n == 0)
		return 0;
	return (uint64_t)(uint8_t)s.p[s.n - 1] << 8 * (s.n - 1) |
	       (uint64_t)(uint8_t)s.p[s.n / 2] << 8 * (s.n / 2) | (uint8_t)s.p[0];
}

/* Copies what is short by blocks that may overlap: a call of memcpy() takes longer. Returns where
 * it ends. */
enum { STR_SHORT_MAX = 48 };

static inline char *str_put_short(char *to, struct str s)
{
	enum { BLOCK = 16, WORD = 8, HALF = 4 };
	char *end = to + s.n;
	const char *from_end = s.p + s.n;

	if (s.n >= BLOCK) {
		memcpy(to, s.p, BLOCK);
		if (s.n > 2 * BLOCK)
			memcpy(to + BLOCK, s.p + BLOCK, BLOCK);
		memcpy(end - BLOCK, from_end - BLOCK, BLOCK);
	} else if (s.n >= WORD) {
		memcpy(to, s.p, WORD);
		memcpy(end - WORD, from_end - WORD, WORD);
	} else if (s.n >= HALF) {
		memcpy(to, s.p, HALF);
		memcpy(end - HALF, from_end - HALF, HALF);
	} else if (s.n) {
		to[0] = s.p[0];
		to[s.n / 2] = s.p[s.n / 2];
		end[-1] = from_end[-1];
	}
	return end;
}

#endif
