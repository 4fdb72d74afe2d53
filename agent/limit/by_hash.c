#include "limit/by_hash.h"

bool take_has_name_by_hash(const struct policy *p, const struct take *t, const struct view *v)
{
	const struct rule *r = t->limit->rule;
	uint64_t slots = 0;

	for (unsigned i = 0; i < r->per_n; i++)
		slots |= 1ull << r->per[i].slot[per_alternative(t->per_found, i)];
	return (slots & p->secret) >> FIELD_KEY & 1 && (slots & v->present) == slots;
}

/* As long as the key's hash, whatever the field's value is. */
static struct key hash_of(const struct policy *p, const struct view *v, unsigned slot,
	const char hex[SHA256_HEX_BYTES])
{
	struct str s = v->text[slot];
	struct addr a;

	if (slot == FIELD_KEY) {
		s = (struct str){ hex, SHA256_HEX_BYTES };
	} else if (slot == FIELD_IP) {
		a = addr_mask(&v->ip, p->ipv4_prefix, p->ipv6_prefix);
		s = (struct str){ (const char *)a.bytes, a.len };
	}
	return hasher_of(&p->hasher, s.p, s.n);
}

struct key take_name_by_hash(const struct policy *p, const struct take *t, const struct view *v,
	const char hex[SHA256_HEX_BYTES])
{
	const struct rule *r = t->limit->rule;
	char bytes[2 * PER_MAX * KEY_BYTES], *w = bytes;
	uint8_t element[PER_MAX];

	per_in_order(r, t->per_found, element);
	for (unsigned k = 0; k < r->per_n; k++, w += 2 * KEY_BYTES) {
		unsigned i = element[k], a = per_alternative(t->per_found, i);
		struct key value = hash_of(p, v, r->per[i].slot[a], hex);
		key_put(&r->per[i].salt[a], w);
		key_put(&value, w + KEY_BYTES);
	}
	return hasher_of(&p->hasher, bytes, (size_t)(w - bytes));
}

struct key take_descriptor(const struct take *t)
{
	const struct key *salt = &t->limit->salt;

	return (struct key){ t->key.a ^ salt->a, t->key.b ^ salt->b };
}

void take_set_descriptor(struct take *t, struct key descriptor)
{
	const struct key *salt = &t->limit->salt;

	t->key = (struct key){ descriptor.a ^ salt->a, descriptor.b ^ salt->b };
}
