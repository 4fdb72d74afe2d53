/* IP addresses, prefixes and sets of prefixes. An IPv4-mapped IPv6 address is that IPv4 address,
 * everywhere: it is turned into one on the way in. */
#ifndef BASE_ADDR_H
#define BASE_ADDR_H

#include "base/str.h"

#include <stdint.h>

struct addr {
	uint8_t bytes[16]; /* the first `len` hold the address, network order; the rest are 0 */
	uint8_t len;       /* 4, 16, or 0 for none */
};

struct cidr {
	struct addr addr; /* bits after the prefix are 0 */
	uint8_t prefix;   /* 0..32 or 0..128 */
};

enum { ADDR_TEXT_MAX = 46 };

/* false: `s` is no address (surrounding space, zones and ports are not accepted). */
bool addr_parse(struct str s, struct addr *out);

/* From 4 or 16 bytes in network order; any other length gives len 0. */
struct addr addr_from_bytes(const void *p, size_t n);

/* Canonical text (RFC 5952), without NUL; returns its length. */
size_t addr_format(const struct addr *a, char out[ADDR_TEXT_MAX]);

bool addr_is_loopback(const struct addr *a); /* 127.0.0.0/8, ::1 */

/* Zeroes what comes after the prefix that goes with the address' family. */
struct addr addr_mask(const struct addr *a, unsigned ipv4_prefix, unsigned ipv6_prefix);

/* "ADDR" or "ADDR/BITS"; bits after the prefix are cut. On false `*why` is a static sentence. */
bool cidr_parse(struct str s, struct cidr *out, const char **why);

/* Whether that cut any: "10.0.0.1/8". */
bool cidr_was_cut(struct str s, const struct cidr *);
/* Whether what is no address looks like several: "10.0.0.1, 10.0.0.2". In a list: */
bool cidr_looks_several(struct str s);
#define CIDR_SEVERAL \
	"want one: two are two elements of the list, [ \"10.0.0.1\", \"10.0.0.2\" ] (of the " \
	"environment: two variables)"

/* A sorted, merged set: lookups are a binary search, however many prefixes it holds. */
struct cidr_set;

struct cidr_set *cidr_set_new(void); /* NULL: out of memory */
void cidr_set_free(struct cidr_set *);
bool cidr_set_add(struct cidr_set *, const struct cidr *); /* false: out of memory */
void cidr_set_seal(struct cidr_set *);                     /* once, after the last add */
bool cidr_set_has(const struct cidr_set *, const struct addr *);

#endif
