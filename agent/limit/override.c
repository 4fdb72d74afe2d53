#include "limit/override.h"

#include "limit/names.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { PREFIXES_MAX = 33 + 129 + 129 };

struct overrides {
	struct override *of; /* owned */
	unsigned n, cap;
	/* by override_by; those of addresses by ip_name() and ip_hash_name() */
	struct names *by[OVERRIDE_KINDS_OF_NAMES]; /* owned */
	unsigned by_n[OVERRIDE_KINDS_OF_NAMES];
	/* The lengths of prefixes that occur, longest first: each is looked for on its own. */
	struct {
		uint8_t family; /* 0: of hashes, of either */
		uint8_t length;
	} prefix[PREFIXES_MAX];
	unsigned prefix_n;
};

/* A prefix as a name: its length, and its bytes after it. */
enum { IP_NAME_MAX = 1 + 16 };

static struct str ip_name(const struct addr *a, uint8_t length, char out[IP_NAME_MAX])
{
	out[0] = (char)length;
	memcpy(out + 1, a->bytes, a->len);
	return (struct str){ out, 1u + a->len };
}

void override_ip_hash(const struct cidr *c, char hex[SHA256_HEX_BYTES])
{
	char text[ADDR_TEXT_MAX + 4];
	size_t n = addr_format(&c->addr, text);

	if (c->prefix < 8u * c->addr.len)
		n += (size_t)sprintf(text + n, "/%u", (unsigned)c->prefix);
	hash_sha256_hex((struct str){ text, n }, hex);
}

enum { IP_HASH_NAME_MAX = 1 + SHA256_HEX_BYTES };

static struct str ip_hash_name(
	const char hex[SHA256_HEX_BYTES], uint8_t length, char out[IP_HASH_NAME_MAX])
{
	out[0] = (char)length;
	memcpy(out + 1, hex, SHA256_HEX_BYTES);
	return (struct str){ out, IP_HASH_NAME_MAX };
}

static bool is_by_secret(enum override_by by)
{
	return by == OVERRIDE_KEY || by == OVERRIDE_USER_HASH;
}

static_assert((int)OVERRIDES_MAX <= (int)NAMES_OF_HASHES_MAX, "they are numbers of names");

struct overrides *overrides_new(void)
{
	struct overrides *s = calloc(1, sizeof *s);

	for (unsigned i = 0; s && i < OVERRIDE_KINDS_OF_NAMES; i++)
		if (!(s->by[i] = is_by_secret(i) ? names_new_of_hashes() : names_new())) {
			overrides_free(s);
			return NULL;
		}
	return s;
}

void overrides_free(struct overrides *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->n; i++)
		free(s->of[i].rates);
	free(s->of);
	for (unsigned i = 0; i < OVERRIDE_KINDS_OF_NAMES; i++)
		names_free(s->by[i]);
	free(s);
}

static bool add(struct overrides *s, enum override_by by, struct str who, struct override *o)
{
	if (s->n == s->cap) {
		unsigned cap = s->cap ? 2 * s->cap : 16;
		void *grown = cap <= 2 * OVERRIDES_MAX ? realloc(s->of, cap * sizeof *s->of) : NULL;
		if (!grown)
			return false;
		s->of = grown;
		s->cap = cap;
	}
	if (s->n == OVERRIDES_MAX || !names_add(s->by[by], who, s->n))
		return false;
	o->by = by;
	s->of[s->n++] = *o;
	s->by_n[by]++;
	o->rates = NULL;
	return true;
}

bool overrides_add(struct overrides *s, enum override_by by, struct str who, struct override *o)
{
	bool added = add(s, by, who, o);

	free(o->rates);
	o->rates = NULL;
	return added;
}

static void add_prefix(struct overrides *s, uint8_t family, uint8_t length)
{
	unsigned at = 0;

	while (at < s->prefix_n && s->prefix[at].length > length)
		at++;
	for (unsigned i = at; i < s->prefix_n && s->prefix[i].length == length; i++)
		if (s->prefix[i].family == family)
			return;
	memmove(&s->prefix[at + 1], &s->prefix[at], (s->prefix_n - at) * sizeof s->prefix[0]);
	s->prefix[at].family = family;
	s->prefix[at].length = length;
	s->prefix_n++;
}

bool overrides_add_ip(struct overrides *s, const struct cidr *c, struct override *o)
{
	char name[IP_NAME_MAX];
	o->cidr = *c;
	bool added = overrides_add(s, OVERRIDE_IP, ip_name(&c->addr, c->prefix, name), o);

	if (added)
		add_prefix(s, c->addr.len, c->prefix);
	return added;
}

bool overrides_add_ip_hash(
	struct overrides *s, uint8_t length, const char hex[SHA256_HEX_BYTES], struct override *o)
{
	char name[IP_HASH_NAME_MAX];
	o->cidr = (struct cidr){ .prefix = length };
	bool added = overrides_add(s, OVERRIDE_IP_HASH, ip_hash_name(hex, length, name), o);

	if (added)
		add_prefix(s, 0, length);
	return added;
}

unsigned overrides_count(const struct overrides *s)
{
	return s->n;
}

static const struct override *by_name(
	const struct overrides *s, enum override_by by, struct str name)
{
	int64_t at = s->by_n[by] ? names_find(s->by[by], name) : -1;

	return at < 0 ? NULL : &s->of[at];
}

static const struct override *by_hash(
	const struct overrides *s, enum override_by by, const struct view *v, unsigned slot)
{
	if (v->hashed >> slot & 1)
		return by_name(s, by, v->text[slot]);
	int64_t at = names_find_secret(s->by[by], v->text[slot]);
	return at < 0 ? NULL : &s->of[at];
}

static const struct override *by_prefix(
	const struct overrides *s, const struct addr *ip, uint8_t family, uint8_t length)
{
	char name[IP_NAME_MAX], hash_name[IP_HASH_NAME_MAX], hex[SHA256_HEX_BYTES];
	struct cidr c = { .addr = addr_mask(ip, length, length), .prefix = length };

	if (family)
		return by_name(s, OVERRIDE_IP, ip_name(&c.addr, length, name));
	override_ip_hash(&c, hex);
	return by_name(s, OVERRIDE_IP_HASH, ip_hash_name(hex, length, hash_name));
}

static const struct override *by_ip(const struct overrides *s, const struct addr *ip)
{
	for (unsigned i = 0; i < s->prefix_n; i++) {
		uint8_t family = s->prefix[i].family, length = s->prefix[i].length;
		if (family ? family != ip->len : length > 8u * ip->len)
			continue;
		const struct override *o = by_prefix(s, ip, family, length);
		if (o)
			return o;
	}
	return NULL;
}

const struct override *overrides_find(const struct overrides *s, const struct view *v)
{
	const struct override *o = NULL;

	if (view_has(v, FIELD_KEY))
		o = by_hash(s, OVERRIDE_KEY, v, FIELD_KEY);
	if (!o && view_has(v, FIELD_USER))
		o = by_name(s, OVERRIDE_USER, v->text[FIELD_USER]);
	if (!o && view_has(v, FIELD_USER))
		o = by_hash(s, OVERRIDE_USER_HASH, v, FIELD_USER);
	if (!o && view_has(v, FIELD_IP))
		o = by_ip(s, &v->ip);
	return o;
}
