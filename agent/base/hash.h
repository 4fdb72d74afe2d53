/* Keyed and plain hashes: SipHash-2-4 with 128 bits and SHA-256 by libsodium, AES-CMAC by the
 * processor. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/cmac.h"
#include "base/str.h"

#include <stdint.h>

/* What a hasher makes of a key. Whoever shares counters must have the same. */
enum hash_kind {
	HASH_SIPHASH, /* on every machine */
	HASH_AES,     /* where cmac_is_there() */
};

struct hash_key {
	uint8_t bytes[16];
	uint8_t kind; /* enum hash_kind */
};

/* 128 bits that stand for a counter: no collision to be had on purpose, no secret in clear. */
struct key {
	uint64_t a, b;
};

enum { SHA256_HEX_BYTES = 64 };

/* Must run before anything else here; false when libsodium cannot start. Main thread. */
bool hash_init(void);

/* Of the kind that takes least here. */
void hash_key_random(struct hash_key *k);

/* The same key from the same two strings, everywhere, of HASH_SIPHASH. `purpose` keeps keys apart
 * that are made of one secret for different ends. */
void hash_key_derive(struct hash_key *k, const char *purpose, struct str secret);

/* SipHash, whatever the key's kind. */
struct key hash_keyed(const struct hash_key *k, const void *p, size_t n);

/* A key made ready to hash with often, by its kind. */
struct hasher {
	struct hash_key key;
	struct cmac cmac; /* HASH_AES only */
};

void hasher_init(struct hasher *, const struct hash_key *);

static inline struct key hasher_of(const struct hasher *h, const void *p, size_t n)
{
	uint64_t word[2];

	if (h->key.kind != HASH_AES)
		return hash_keyed(&h->key, p, n);
	cmac_of(&h->cmac, p, n, word);
	return (struct key){ word[0], word[1] };
}

/* Of hashes that are each as good as random. Unlike by exclusive or, one that is there twice stays.
 */
static inline struct key key_sum(struct key x, struct key y)
{
	return (struct key){ x.a + y.a, x.b + y.b };
}

/* Where a key is hashed in turn: in one byte order, so that agents on different machines agree. */
enum { KEY_BYTES = 16 };
static inline void key_put(const struct key *k, void *out)
{
	const uint64_t word[2] = { htole64(k->a), htole64(k->b) };

	memcpy(out, word, sizeof word);
}

/* In lower-case hex. */
enum { KEY_HEX_BYTES = 32 };
void key_format(const struct key *, char out[KEY_HEX_BYTES + 1]);
bool key_parse(const char *hex, struct key *); /* NULL is none */

/* Lower-case hex of SHA-256, without a terminating NUL. */
void hash_sha256_hex(struct str s, char hex[SHA256_HEX_BYTES]);

/* A secret of which only the hash is said: "sha256:" and 64 hex digits, all in either
 * case. */
enum hash_said {
	HASH_NOT_SAID, /* it does not begin so */
	HASH_SAID,     /* `hex` has the digits, in lower case */
	HASH_SAID_BADLY,
};
enum hash_said hash_said(struct str s, char hex[SHA256_HEX_BYTES]);
/* The hex digits of one that is said in part, as it is shown: 12 to 63 of them after "sha256:", all
 * in either case, and nothing else; of length 0: `s` is no such thing. */
struct str hash_said_in_part(struct str s);
#define HASH_SAID_WANTED "want 64 hex digits after sha256: (printf %s \"$KEY\" | sha256sum)"

#endif
