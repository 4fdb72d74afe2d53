/* AES-CMAC (RFC 4493) by the processor's own AES instructions: a keyed hash of 128 bits that takes
 * a quarter of SipHash-2-4's instructions, and is no weaker. Only where there are such
 * instructions. */
#ifndef BASE_CMAC_H
#define BASE_CMAC_H

#include "base/str.h"

#include <stdint.h>

enum { CMAC_BYTES = 16, CMAC_ROUND_KEYS = 11 };

/* What follows from a key. */
struct cmac {
	_Alignas(16) uint8_t round[CMAC_ROUND_KEYS][CMAC_BYTES];
	uint8_t whole[CMAC_BYTES], part[CMAC_BYTES]; /* for a last block that is whole, or is not */
};

/* Any thread. Nothing else here may be called where it is false. */
bool cmac_is_there(void);

void cmac_init(struct cmac *, const uint8_t key[CMAC_BYTES]);

/* Of `n` bytes; NULL is none. Two words, the first byte in the lowest bits of the first. */
void cmac_of(const struct cmac *, const void *bytes, size_t n, uint64_t out[2]);

#endif
