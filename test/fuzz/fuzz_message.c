/* The messages of a NOTIFY: what is read lies within the payload; and what is answered with it
 * holds nothing that could end a header, is whole or not there, and stays in its room. */
#include "spop/value.h"

#include <stdlib.h>

static void require(bool so)
{
	if (!so)
		abort();
}

static void require_within(struct str s, const uint8_t *data, size_t size)
{
	const uint8_t *p = (const uint8_t *)s.p;

	require(s.n == 0 || (p >= data && s.n <= size && p <= data + size - s.n));
}

static void answer(struct str name, const struct value *v, size_t room)
{
	uint8_t bytes[512];
	struct wire_writer w = { bytes, bytes + (room < sizeof bytes ? room : sizeof bytes),
		false };

	if (value_is_integer(v))
		action_set_int(&w, SCOPE_TXN, name, (int64_t)v->number);
	else if (v->type == VALUE_BOOL)
		action_set_bool(&w, SCOPE_TXN, name, v->number != 0);
	else
		action_set_str(&w, SCOPE_TXN, name, v->bytes);
	if (w.bad) {
		require(w.p == bytes);
		return;
	}
	struct wire_reader r = { bytes, w.p, false };
	require(wire_get_u8(&r) == 1 && wire_get_u8(&r) == 3 && wire_get_u8(&r) == SCOPE_TXN);
	struct str name_back;
	struct value back;
	require(arg_next(&r, &name_back, &back) && wire_left(&r) == 0);
	require(str_eq(name, name_back));
	require(back.number == v->number);
	for (size_t i = 0; i < back.bytes.n; i++)
		require(!memchr("\r\n", back.bytes.p[i], 3)); /* 3: the NUL too */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_reader r = { data, data + size, false };
	struct message m;
	size_t messages = 0;

	while (message_next(&r, &m)) {
		require_within(m.name, data, size);
		require(m.args <= 255 && ++messages <= size);
		for (unsigned i = 0; i < m.args; i++) {
			struct str name;
			struct value v;

			if (!arg_next(&r, &name, &v)) {
				require(r.bad && !name.p && !v.bytes.p);
				break;
			}
			require(v.type <= VALUE_BINARY);
			require_within(name, data, size);
			require_within(v.bytes, data, size);
			answer(name, &v, size);
		}
	}
	require(r.bad || r.p == data + size);
	return 0;
}
