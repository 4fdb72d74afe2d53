#include "server/args.h"

static void load_value(struct view *v, unsigned slot, const struct value *value)
{
	switch (value->type) {
	case VALUE_NULL:
		view_set_null(v, slot);
		return;
	case VALUE_BOOL:
		view_set_boolean(v, slot, value->number != 0);
		return;
	case VALUE_INT32:
	case VALUE_INT64:
		view_set_integer(v, slot, (int64_t)value->number);
		return;
	case VALUE_UINT32:
	case VALUE_UINT64:
		view_set_unsigned(v, slot, value->number);
		return;
	case VALUE_IPV4:
	case VALUE_IPV6:
		view_set_addr(v, slot, (const uint8_t *)value->bytes.p, value->bytes.n);
		return;
	case VALUE_STRING:
		view_set_text(v, slot, value->bytes);
		return;
	case VALUE_BINARY:
		view_set_binary(v, slot, value->bytes);
		return;
	}
}

void shapes_clear(struct shapes *shapes)
{
	memset(shapes, 0, sizeof *shapes);
	for (unsigned i = 0; i < SHAPES_MAX; i++)
		shapes->shape[i].bytes[0] = 1;
}

static void shape_learn(struct shape *sh, const uint8_t *at, size_t n, unsigned slot)
{
	memset(sh, 0, sizeof *sh);
	memcpy(sh->bytes, at, n);
	memset(sh->mask, 0xff, n);
	sh->n = (uint8_t)n;
	sh->slot = (uint8_t)slot;
	sh->bit = 1ull << slot;
}

static inline bool shape_fits(const struct shape *sh, const uint8_t *at)
{
	uint64_t word[2];

	memcpy(word, at, sizeof word);
	return !(((word[0] & sh->mask[0]) ^ sh->bytes[0]) |
		 ((word[1] & sh->mask[1]) ^ sh->bytes[1]));
}

/* The argument at `p`, if it looks as `sh` and its value is one of the usual, whole and short.
 * Returns where it ends; NULL: it is another one. */
static inline const uint8_t *load_known(
	const struct shape *sh, const uint8_t *p, const uint8_t *end, struct view *v)
{
	enum { SHORT_MAX = 239 }; /* of a varint of one byte */

	/* Then a type and a length are there, too: a name is shorter. */
	if ((size_t)(end - p) <= SHAPE_BYTES || !shape_fits(sh, p))
		return NULL;
	p += sh->n;
	unsigned type = *p++ & VALUE_TYPE_BITS;
	if (type == VALUE_STRING) {
		size_t n = *p++;
		if (n > SHORT_MAX || n > (size_t)(end - p))
			return NULL;
		struct str s = { (const char *)p, n };
		if (!(sh->bit & (v->seen | v->normalised)))
			view_put_text(v, sh->slot, sh->bit, s);
		else if (!(sh->bit & v->seen))
			view_set_normalised(v, sh->slot, s);
		return p + n;
	}
	if (type == VALUE_IPV4) {
		if (4 > (size_t)(end - p))
			return NULL;
		if (!(sh->bit & v->seen))
			view_set_addr(v, sh->slot, p, 4);
		return p + 4;
	}
	if (type != VALUE_NULL)
		return NULL;
	v->seen |= sh->bit;
	return p;
}

/* Any argument. Returns where it ends; NULL: it is malformed. `sh`: what is remembered of it, or
 * NULL. */
static __attribute__((noinline)) const uint8_t *load_any(
	struct shape *sh, struct wire_reader *r, struct view *v)
{
	const uint8_t *at = r->p;
	struct str name;
	struct value value;

	if (!arg_next(r, &name, &value))
		return NULL;
	int slot = layout_find_arg(v->layout, name);
	if (slot >= 0)
		load_value(v, (unsigned)slot, &value);
	if (sh && name.n < SHAPE_BYTES - 1)
		shape_learn(sh, at, 1 + name.n, slot >= 0 ? (unsigned)slot : FIELD_MESSAGE);
	return r->p;
}

void args_load(struct shapes *shapes, struct wire_reader *r, unsigned n, struct view *v)
{
	const unsigned known = n < SHAPES_MAX ? n : SHAPES_MAX;
	const uint8_t *p = r->p, *next;

	for (struct shape *sh = shapes->shape; sh < shapes->shape + known; sh++, p = next) {
		next = load_known(sh, p, r->end, v);
		if (next)
			continue;
		r->p = p;
		next = load_any(sh, r, v);
		if (!next)
			return;
	}
	r->p = p;
	for (unsigned i = known; i < n; i++)
		if (!load_any(NULL, r, v))
			return;
}
