#include "base/addr.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>

enum { IPV4_BYTES = 4, IPV6_BYTES = 16, MAPPED_BITS = 96 };

static bool is_mapped(const uint8_t *p)
{
	static const uint8_t prefix[MAPPED_BITS / 8] = { [10] = 0xff, [11] = 0xff };

	return memcmp(p, prefix, sizeof prefix) == 0;
}

struct addr addr_from_bytes(const void *p, size_t n)
{
	struct addr a = { .len = 0 };
	const uint8_t *bytes = p;

	if (n == IPV6_BYTES && is_mapped(bytes)) {
		bytes += MAPPED_BITS / 8;
		n = IPV4_BYTES;
	}
	if (n != IPV4_BYTES && n != IPV6_BYTES)
		return a;
	memcpy(a.bytes, bytes, n);
	a.len = (uint8_t)n;
	return a;
}

/* `*mapped`: it was written as an IPv6 address, so a prefix after it counts from 128 bits. */
static bool parse(struct str s, struct addr *out, bool *mapped)
{
	char text[ADDR_TEXT_MAX];
	uint8_t bytes[IPV6_BYTES];

	*out = (struct addr){ .len = 0 };
	*mapped = false;
	/* inet_pton() wants a NUL, and would stop at one that is part of the text. */
	if (s.n == 0 || s.n >= sizeof text || memchr(s.p, '\0', s.n))
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	if (!memchr(text, ':', s.n)) {
		if (inet_pton(AF_INET, text, bytes) != 1)
			return false;
		*out = addr_from_bytes(bytes, IPV4_BYTES);
		return true;
	}
	if (inet_pton(AF_INET6, text, bytes) != 1)
		return false;
	*out = addr_from_bytes(bytes, IPV6_BYTES);
	*mapped = out->len == IPV4_BYTES;
	return true;
}

bool addr_parse(struct str s, struct addr *out)
{
	bool mapped;

	return parse(s, out, &mapped);
}

static char *put_decimal(char *p, unsigned v)
{
	if (v >= 100)
		*p++ = (char)('0' + v / 100);
	if (v >= 10)
		*p++ = (char)('0' + v / 10 % 10);
	*p++ = (char)('0' + v % 10);
	return p;
}

static char *put_hex(char *p, unsigned v)
{
	bool begun = false;

	for (int shift = 12; shift >= 0; shift -= 4) {
		unsigned digit = v >> shift & 15;

		if (digit == 0 && !begun && shift != 0)
			continue;
		begun = true;
		*p++ = "0123456789abcdef"[digit];
	}
	return p;
}

static size_t format_ipv6(const uint8_t *bytes, char *out)
{
	unsigned group[8], longest = 8, longest_n = 1;
	char *p = out;

	for (unsigned i = 0; i < 8; i++)
		group[i] = (unsigned)bytes[(size_t)2 * i] << 8 | bytes[(size_t)2 * i + 1];
	/* RFC 5952 4.2: the longest run of zero groups is cut, the first of equals, never a
	 * single group. */
	for (unsigned i = 0; i < 8; i++) {
		unsigned n = 0;

		while (i + n < 8 && group[i + n] == 0)
			n++;
		if (n > longest_n) {
			longest = i;
			longest_n = n;
		}
	}
	for (unsigned i = 0; i < 8; i++) {
		if (i == longest) {
			*p++ = ':';
			*p++ = ':';
			i += longest_n - 1;
			continue;
		}
		if (i > 0 && i != longest + longest_n)
			*p++ = ':';
		p = put_hex(p, group[i]);
	}
	return (size_t)(p - out);
}

size_t addr_format(const struct addr *a, char out[ADDR_TEXT_MAX])
{
	if (a->len == IPV6_BYTES)
		return format_ipv6(a->bytes, out);
	if (a->len != IPV4_BYTES)
		return 0;
	char *p = put_decimal(out, a->bytes[0]);
	for (unsigned i = 1; i < IPV4_BYTES; i++) {
		*p++ = '.';
		p = put_decimal(p, a->bytes[i]);
	}
	return (size_t)(p - out);
}

/* Bits of byte `i` that a prefix of `bits` covers. */
static uint8_t byte_mask(unsigned bits, unsigned i)
{
	if (bits >= 8 * (i + 1))
		return 0xff;
	if (bits <= 8 * i)
		return 0;
	return (uint8_t)(0xff << (8 - (bits - 8 * i)));
}

bool addr_is_loopback(const struct addr *a)
{
	static const uint8_t one[16] = { [15] = 1 };
	return a->len == 4 ? a->bytes[0] == 127 : a->len == 16 && memcmp(a->bytes, one, 16) == 0;
}

struct addr addr_mask(const struct addr *a, unsigned ipv4_prefix, unsigned ipv6_prefix)
{
	struct addr masked = *a;
	unsigned bits = a->len == IPV4_BYTES ? ipv4_prefix : ipv6_prefix;

	for (unsigned i = 0; i < a->len; i++)
		masked.bytes[i] &= byte_mask(bits, i);
	return masked;
}

/* Decimal without sign, spaces or leading zeros; at most three digits, so it cannot overflow. */
static bool parse_bits(struct str s, unsigned *out)
{
	unsigned v = 0;

	if (s.n == 0 || s.n > 3 || (s.n > 1 && s.p[0] == '0'))
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		v = 10 * v + (unsigned)(s.p[i] - '0');
	}
	*out = v;
	return true;
}

bool cidr_parse(struct str s, struct cidr *out, const char **why)
{
	const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
	struct str text = s;
	bool mapped;
	unsigned bits;

	*out = (struct cidr){ .prefix = 0 };
	if (slash)
		text.n = (size_t)(slash - s.p);
	if (!parse(text, &out->addr, &mapped)) {
		*why = "want an IPv4 or IPv6 address, or one with /BITS";
		return false;
	}
	bits = out->addr.len * 8u;
	if (slash) {
		struct str after = { slash + 1, s.n - text.n - 1 };

		if (!parse_bits(after, &bits)) {
			*why = "want a number of bits after the slash";
			return false;
		}
		if (mapped) {
			/* Such a range would hold all of IPv4 and more: nobody means that. */
			if (bits < MAPPED_BITS) {
				*why = "an IPv4-mapped prefix has at least 96 bits";
				return false;
			}
			bits -= MAPPED_BITS;
		}
		if (bits > out->addr.len * 8u) {
			*why = out->addr.len == IPV4_BYTES ? "an IPv4 prefix has at most 32 bits"
							   : "an IPv6 prefix has at most 128 bits";
			return false;
		}
	}
	out->addr = addr_mask(&out->addr, bits, bits);
	out->prefix = (uint8_t)bits;
	return true;
}

bool cidr_was_cut(struct str s, const struct cidr *c)
{
	const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
	struct addr whole;

	if (!slash || !addr_parse((struct str){ s.p, (size_t)(slash - s.p) }, &whole))
		return false;
	return memcmp(whole.bytes, c->addr.bytes, sizeof whole.bytes) != 0;
}

bool cidr_looks_several(struct str s)
{
	for (size_t i = 1; i + 1 < s.n; i++)
		if (s.p[i] == ',' || s.p[i] == ';' || s.p[i] == ' ' || s.p[i] == '\t')
			return true;
	return false;
}

/* Both ends included; of IPv4 only the first four bytes are not 0. */
struct range {
	uint8_t first[IPV6_BYTES], last[IPV6_BYTES];
};

struct ranges {
	struct range *v;
	size_t n, cap;
};

struct cidr_set {
	struct ranges ipv4, ipv6; /* apart: ::/0 holds no IPv4 address */
	bool sealed;
};

struct cidr_set *cidr_set_new(void)
{
	return calloc(1, sizeof(struct cidr_set));
}

void cidr_set_free(struct cidr_set *set)
{
	if (!set)
		return;
	free(set->ipv4.v);
	free(set->ipv6.v);
	free(set);
}

bool cidr_set_add(struct cidr_set *set, const struct cidr *c)
{
	struct ranges *r = c->addr.len == IPV4_BYTES ? &set->ipv4 : &set->ipv6;

	assert(!set->sealed && c->addr.len != 0);
	if (r->n == r->cap) {
		size_t cap = r->cap ? 2 * r->cap : 16;
		struct range *v = realloc(r->v, cap * sizeof *v);

		if (!v)
			return false;
		r->v = v;
		r->cap = cap;
	}
	struct range *range = &r->v[r->n++];
	*range = (struct range){ { 0 }, { 0 } };
	for (unsigned i = 0; i < c->addr.len; i++) {
		uint8_t mask = byte_mask(c->prefix, i);

		range->first[i] = c->addr.bytes[i] & mask;
		range->last[i] = (uint8_t)(range->first[i] | (uint8_t)~mask);
	}
	return true;
}

/* By their first address; of two that begin together the wider one comes first. */
static int compare_ranges(const void *a, const void *b)
{
	const struct range *x = a, *y = b;
	int order = memcmp(x->first, y->first, sizeof x->first);

	return order ? order : memcmp(y->last, x->last, sizeof x->last);
}

static void seal_ranges(struct ranges *r)
{
	size_t kept = 0;

	if (r->n == 0)
		return;
	qsort(r->v, r->n, sizeof *r->v, compare_ranges);
	/* Of two prefixes one holds the other or they have nothing in common: after sorting, what
	 * lies in the last one kept is dropped, and what is kept is disjoint. */
	for (size_t i = 1; i < r->n; i++) {
		if (memcmp(r->v[i].first, r->v[kept].last, sizeof r->v[i].first) > 0)
			r->v[++kept] = r->v[i];
	}
	r->n = kept + 1;
}

void cidr_set_seal(struct cidr_set *set)
{
	seal_ranges(&set->ipv4);
	seal_ranges(&set->ipv6);
	set->sealed = true;
}

bool cidr_set_has(const struct cidr_set *set, const struct addr *a)
{
	const struct ranges *r = a->len == IPV4_BYTES ? &set->ipv4 : &set->ipv6;
	size_t low = 0, high = r->n;

	assert(set->sealed);
	if (a->len == 0)
		return false;
	/* low: how many ranges begin at or before the address. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (memcmp(r->v[middle].first, a->bytes, sizeof a->bytes) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && memcmp(a->bytes, r->v[low - 1].last, sizeof a->bytes) <= 0;
}
