#include "spop/value.h"

struct value value_get(struct wire_reader *r)
{
	uint8_t head = wire_get_u8(r);
	struct value v = { .type = (enum value_type)(head & VALUE_TYPE_BITS) };

	switch (v.type) {
	case VALUE_NULL:
		break;
	case VALUE_BOOL:
		v.number = (head & VALUE_FLAG_TRUE) != 0;
		break;
	case VALUE_INT32:
	case VALUE_UINT32:
	case VALUE_INT64:
	case VALUE_UINT64:
		v.number = wire_get_varint(r);
		break;
	case VALUE_IPV4:
		v.bytes = wire_get_bytes(r, 4);
		break;
	case VALUE_IPV6:
		v.bytes = wire_get_bytes(r, 16);
		break;
	case VALUE_STRING:
	case VALUE_BINARY:
		v.bytes = wire_get_str(r);
		break;
	default:
		r->bad = true; /* reserved: nothing says where it ends */
	}
	return r->bad ? (struct value){ .type = VALUE_NULL } : v;
}

bool message_next(struct wire_reader *r, struct message *m)
{
	*m = (struct message){ .args = 0 };
	if (r->bad || wire_left(r) == 0)
		return false;
	struct str name = wire_get_str(r);
	unsigned args = wire_get_u8(r);
	if (r->bad)
		return false;
	m->name = name;
	m->args = args;
	return true;
}

bool arg_next_slow(struct wire_reader *r, struct str *name, struct value *v)
{
	*name = wire_get_str(r);
	*v = value_get(r);
	if (r->bad)
		*name = (struct str){ 0 };
	return !r->bad;
}

static bool has_room(struct wire_writer *w, size_t n)
{
	if (n > wire_room(w))
		w->bad = true;
	return !w->bad;
}

void action_set_bool(struct wire_writer *w, enum scope scope, struct str name, bool v)
{
	if (has_room(w, action_size_head(name)))
		w->p = action_put_bool(w->p, scope, name, v);
}

void action_set_int(struct wire_writer *w, enum scope scope, struct str name, int64_t v)
{
	if (has_room(w, action_size_head(name) + varint_size((uint64_t)v)))
		w->p = action_put_int(w->p, scope, name, v);
}

void action_set_str(struct wire_writer *w, enum scope scope, struct str name, struct str v)
{
	/* A peer's length may be anything: what has no room is not added to anything. */
	if (v.n > wire_room(w) || !has_room(w, action_size_head(name) + varint_size(v.n) + v.n)) {
		w->bad = true;
		return;
	}
	w->p = action_put_str(w->p, scope, name, v);
	text_clean(w->p - v.n, v.n);
}

void text_clean(void *text, size_t n)
{
	char *c = text;
	for (size_t i = 0; i < n; i++)
		if (c[i] == '\r' || c[i] == '\n' || c[i] == '\0')
			c[i] = '_';
}
