/* Keyed and plain hashes, by libsodium (SipHash-2-4 with 128 bits, SHA-256). */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/str.h"

#include <stdint.h>

struct hash_key {
	uint8_t bytes[16];
};

/* 128 bits that stand for a counter: no collision to be had on purpose, no secret in clear. */
struct key {
	uint64_t a, b;
};

enum { SHA256_HEX_BYTES = 64 };

/* Must run before anything else here; false when libsodium cannot start. Main thread. */
bool hash_init(void);

void hash_key_random(struct hash_key *k);

/* The same key from the same two strings, everywhere. `purpose` keeps keys apart that are made of
 * one secret for different ends. */
void hash_key_derive(struct hash_key *k, const char *purpose, struct str secret);

struct key hash_keyed(const struct hash_key *k, const void *p, size_t n);

/* In lower-case hex. */
enum { KEY_HEX_BYTES = 32 };
void key_format(const struct key *, char out[KEY_HEX_BYTES + 1]);
bool key_parse(const char *hex, struct key *); /* NULL is none */

/* Lower-case hex of SHA-256, without a terminating NUL. */
void hash_sha256_hex(struct str s, char hex[SHA256_HEX_BYTES]);

#endif
