/* Typed values (SPOE.txt 3.1), and the messages of a NOTIFY. */
#ifndef SPOP_VALUE_H
#define SPOP_VALUE_H

#include "base/wire.h"

enum value_type {
	VALUE_NULL,
	VALUE_BOOL,
	VALUE_INT32,
	VALUE_UINT32,
	VALUE_INT64,
	VALUE_UINT64,
	VALUE_IPV4,
	VALUE_IPV6,
	VALUE_STRING,
	VALUE_BINARY,
};

enum { VALUE_TYPE_BITS = 0x0f }; /* of the byte that begins a value; flags above */

struct value {
	enum value_type type;
	uint64_t number;  /* of integers (two's complement for signed ones) and booleans */
	struct str bytes; /* of strings, binaries (borrowed) and addresses (4 or 16) */
};

/* On an unknown type (its length cannot be known) or a cut value: r->bad. */
struct value value_get(struct wire_reader *);

static inline bool value_is_integer(const struct value *v)
{
	return v->type >= VALUE_INT32 && v->type <= VALUE_UINT64;
}

/* { name u8 nb_args { argname typed }* }*  Use: while (message_next(&r, &m)) for each of
 * m.args: arg_next(&r, &name, &value). Whoever stops early must drain the rest with arg_next. */
struct message {
	struct str name;
	unsigned args;
};

/* false: the end (r->bad tells a clean end from a malformed message). */
bool message_next(struct wire_reader *, struct message *);
/* Any argument, and what is wrong with it; arg_next() is for the usual ones. */
bool arg_next_slow(struct wire_reader *, struct str *name, struct value *);

/* false with r->bad: malformed. Inline, and without cursors, for what HAProxy sends most: short
 * names with short strings and addresses; an answer to a request is mostly this. */
static inline bool arg_next(struct wire_reader *r, struct str *name, struct value *v)
{
	enum { SHORT_MAX = 239 }; /* of a varint of one byte */
	const uint8_t *p = r->p, *end = r->end;
	size_t n;

	if (r->bad || p == end || (n = *p) > SHORT_MAX || (size_t)(end - p) < n + 3)
		return arg_next_slow(r, name, v);
	*name = (struct str){ (const char *)p + 1, n };
	p += 1 + n;
	v->type = (enum value_type)(*p++ & VALUE_TYPE_BITS);
	if (v->type == VALUE_STRING)
		n = *p++;
	else if (v->type == VALUE_IPV4)
		n = 4;
	else
		return arg_next_slow(r, name, v);
	if (n > SHORT_MAX || n > (size_t)(end - p))
		return arg_next_slow(r, name, v);
	v->bytes = (struct str){ (const char *)p, n };
	v->number = 0;
	r->p = p + n;
	return true;
}

/* Actions of an ACK: set-var. `action_put_` are for who knows that there is room (action_size_
 * tells how much) and return where it ends; `action_set_` look, and are all or nothing: HAProxy
 * stops at an action that it cannot read. */
enum scope { SCOPE_PROC, SCOPE_SESS, SCOPE_TXN, SCOPE_REQ, SCOPE_RES };

enum { ACTION_SET_VAR = 1, ACTION_SET_VAR_ARGS = 3, VALUE_FLAG_TRUE = 0x10 };

static inline size_t action_size_head(struct str name)
{
	return 3 + varint_size(name.n) + name.n + 1; /* action, arguments, scope; name; type */
}

static inline uint8_t *action_put_head(uint8_t *p, enum scope scope, struct str name, uint8_t type)
{
	*p++ = ACTION_SET_VAR;
	*p++ = ACTION_SET_VAR_ARGS;
	*p++ = (uint8_t)scope;
	p = varint_put(p, name.n);
	if (name.n)
		memcpy(p, name.p, name.n);
	p += name.n;
	*p++ = type;
	return p;
}

static inline uint8_t *action_put_bool(uint8_t *p, enum scope scope, struct str name, bool v)
{
	return action_put_head(p, scope, name, (uint8_t)(VALUE_BOOL | (v ? VALUE_FLAG_TRUE : 0)));
}

static inline uint8_t *action_put_int(uint8_t *p, enum scope scope, struct str name, int64_t v)
{
	return varint_put(action_put_head(p, scope, name, VALUE_INT64), (uint64_t)v);
}

/* Without flags: with any HAProxy would take it for binary. The bytes go out as they are. */
static inline uint8_t *action_put_str(uint8_t *p, enum scope scope, struct str name, struct str v)
{
	p = varint_put(action_put_head(p, scope, name, VALUE_STRING), v.n);
	if (v.n)
		memcpy(p, v.p, v.n);
	return p + v.n;
}

void action_set_bool(struct wire_writer *, enum scope, struct str name, bool);
void action_set_int(struct wire_writer *, enum scope, struct str name, int64_t);
/* CR, LF and NUL go out as '_'. */
void action_set_str(struct wire_writer *, enum scope, struct str name, struct str);

/* What may end in a header must not split it: CR, LF and NUL become '_'. */
void text_clean(void *, size_t n);

#endif
