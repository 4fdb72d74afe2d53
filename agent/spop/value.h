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
/* false with r->bad: malformed. */
bool arg_next(struct wire_reader *, struct str *name, struct value *);

/* Actions of an ACK. */
enum scope { SCOPE_PROC, SCOPE_SESS, SCOPE_TXN, SCOPE_REQ, SCOPE_RES };
void action_set_bool(struct wire_writer *, enum scope, struct str name, bool);
void action_set_int(struct wire_writer *, enum scope, struct str name, int64_t);
/* CR, LF and NUL go out as '_'. */
void action_set_str(struct wire_writer *, enum scope, struct str name, struct str);

#endif
