#include "spop/value.h"

enum { TYPE_BITS = 0x0f, FLAG_TRUE = 0x10 }; /* of the byte that begins a value */
enum { ACTION_SET_VAR = 1, SET_VAR_ARGS = 3 };

struct value value_get(struct wire_reader *r)
{
	uint8_t head = wire_get_u8(r);
	struct value v = { .type = (enum value_type)(head & TYPE_BITS) };

	switch (v.type) {
	case VALUE_NULL:
		break;
	case VALUE_BOOL:
		v.number = (head & FLAG_TRUE) != 0;
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

bool arg_next(struct wire_reader *r, struct str *name, struct value *v)
{
	*name = wire_get_str(r);
	*v = value_get(r);
	if (r->bad)
		*name = (struct str){ 0 };
	return !r->bad;
}

static uint8_t *action_begin(struct wire_writer *w, enum scope scope, struct str name)
{
	uint8_t *start = w->p;

	wire_put_u8(w, ACTION_SET_VAR);
	wire_put_u8(w, SET_VAR_ARGS);
	wire_put_u8(w, (uint8_t)scope);
	wire_put_str(w, name);
	return start;
}

/* HAProxy stops at an action that it cannot read: half of one must not stay. */
static void action_end(struct wire_writer *w, uint8_t *start)
{
	if (w->bad)
		w->p = start;
}

void action_set_bool(struct wire_writer *w, enum scope scope, struct str name, bool v)
{
	uint8_t *start = action_begin(w, scope, name);

	wire_put_u8(w, VALUE_BOOL | (v ? FLAG_TRUE : 0));
	action_end(w, start);
}

void action_set_int(struct wire_writer *w, enum scope scope, struct str name, int64_t v)
{
	uint8_t *start = action_begin(w, scope, name);

	wire_put_u8(w, VALUE_INT64);
	wire_put_varint(w, (uint64_t)v);
	action_end(w, start);
}

void action_set_str(struct wire_writer *w, enum scope scope, struct str name, struct str v)
{
	uint8_t *start = action_begin(w, scope, name);

	wire_put_u8(w, VALUE_STRING); /* with flags HAProxy would take it for binary */
	wire_put_str(w, v);
	if (!w->bad) {
		/* It may end in a header: what would split one is replaced where it now lies. */
		for (uint8_t *p = w->p - v.n; p < w->p; p++) {
			if (*p == '\r' || *p == '\n' || *p == '\0')
				*p = '_';
		}
	}
	action_end(w, start);
}
