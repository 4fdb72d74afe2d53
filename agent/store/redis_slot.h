/* In which slot of a cluster a counter lies. Its key names the slot by a hash tag, made of the
 * descriptor alone: so all limits of a rule, and of all rules that count by the same fields, lie in
 * one slot for one client. Pure. */
#ifndef STORE_REDIS_SLOT_H
#define STORE_REDIS_SLOT_H

#include "limit/plan.h"

enum { REDIS_SLOTS = 16384, REDIS_TAG_BYTES = 3 };

/* Three characters of base64url, of a key without its limit's salt. */
void redis_tag(const struct key *, const struct key *salt, char tag[REDIS_TAG_BYTES]);

/* CRC-16/XMODEM, as Redis has it. */
uint16_t redis_crc16(const void *p, size_t n);

/* The slot of the take's key, whatever the prefix (that must not hold a "{"). */
uint16_t redis_slot(const struct take *);
/* Of a key and its limit's salt. */
uint16_t redis_slot_of(const struct key *, const struct key *salt);

/* The digits of base64url (RFC 4648), without padding. */
extern const char redis_base64url[65]; /* 64 digits */

#endif
