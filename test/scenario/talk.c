/* SPOP's bytes once more, independent of agent/spop: an encoder of NOTIFYs, a reader of ACKs. */
#include "talk.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* --- NOTIFY --- */

struct sink {
	uint8_t *p; /* NULL: only count */
	size_t n;
};

static void put(struct sink *s, const void *p, size_t n)
{
	if (s->p && n)
		memcpy(s->p + s->n, p, n);
	s->n += n;
}

static void put_byte(struct sink *s, uint8_t v)
{
	put(s, &v, 1);
}

/* Below 240 one byte; else four bits beside 240, then seven bits a byte, lowest first. */
static void put_varint(struct sink *s, uint64_t v)
{
	if (v < 240) {
		put_byte(s, (uint8_t)v);
		return;
	}
	put_byte(s, (uint8_t)(v | 240));
	v = (v - 240) >> 4;
	while (v >= 128) {
		put_byte(s, (uint8_t)(v | 128));
		v = (v - 128) >> 7;
	}
	put_byte(s, (uint8_t)v);
}

static void put_name(struct sink *s, struct str name)
{
	put_varint(s, name.n);
	put(s, name.p, name.n);
}

static void put_value(struct sink *s, const struct value *v)
{
	uint8_t flags = v->type == VALUE_BOOL && v->number ? 0x10 : 0;
	put_byte(s, (uint8_t)(flags | v->type));
	switch (v->type) {
	case VALUE_NULL:
	case VALUE_BOOL:
		break;
	case VALUE_INT32:
	case VALUE_UINT32:
	case VALUE_INT64:
	case VALUE_UINT64:
		put_varint(s, v->number);
		break;
	case VALUE_IPV4:
	case VALUE_IPV6:
		put(s, v->bytes.p, v->bytes.n);
		break;
	case VALUE_STRING:
	case VALUE_BINARY:
		put_name(s, v->bytes);
		break;
	}
}

static void put_messages(struct sink *s, const struct talk_message *m, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		put_name(s, m[i].name);
		put_byte(s, (uint8_t)m[i].n);
		for (unsigned a = 0; a < m[i].n; a++) {
			put_name(s, m[i].arg[a].name);
			put_value(s, &m[i].arg[a].value);
		}
	}
}

uint8_t *talk_notify(const struct talk_message *m, unsigned messages, size_t *size)
{
	struct sink count = { 0 };
	put_messages(&count, m, messages);
	struct sink s = { malloc(count.n ? count.n : 1), 0 };
	if (!s.p)
		return NULL;
	put_messages(&s, m, messages);
	*size = s.n;
	return s.p;
}

/* --- ACK --- */

struct source {
	const uint8_t *p, *end;
	bool cut;
};

static uint8_t get_byte(struct source *s)
{
	if (s->p == s->end) {
		s->cut = true;
		return 0;
	}
	return *s->p++;
}

static uint32_t get_word(struct source *s)
{
	uint32_t v = 0;
	for (int i = 0; i < 4; i++)
		v = v << 8 | get_byte(s);
	return v;
}

static uint64_t get_varint(struct source *s)
{
	uint64_t v = get_byte(s);
	if (v < 240)
		return v;
	for (unsigned shift = 4; shift < 64; shift += 7) {
		uint8_t b = get_byte(s);
		v += (uint64_t)b << shift;
		if (b < 128)
			return v;
	}
	s->cut = true;
	return 0;
}

static struct str get_str(struct source *s)
{
	uint64_t n = get_varint(s);
	if (s->cut || n > (uint64_t)(s->end - s->p)) {
		s->cut = true;
		return (struct str){ 0 };
	}
	struct str out = { (const char *)s->p, (size_t)n };
	s->p += n;
	return out;
}

/* What each variable's type is, by CONTRACT.md section 3. */
enum kind { KIND_BOOL, KIND_INTEGER, KIND_STRING };

static const struct {
	const char *name;
	enum kind kind;
} known[] = {
	{ "ack", KIND_BOOL },
	{ "deny", KIND_BOOL },
	{ "reason", KIND_STRING },
	{ "limit", KIND_INTEGER },
	{ "remaining", KIND_INTEGER },
	{ "reset", KIND_INTEGER },
	{ "reset_at", KIND_INTEGER },
	{ "retry_after", KIND_INTEGER },
	{ "rule", KIND_STRING },
	{ "tier", KIND_STRING },
	{ "scope", KIND_STRING },
	{ "algorithm", KIND_STRING },
	{ "warn", KIND_BOOL },
	{ "shadow", KIND_STRING },
	{ "tag", KIND_STRING },
	{ "policy", KIND_STRING },
	{ "ratelimit", KIND_STRING },
};

__attribute__((format(printf, 3, 4))) static bool bad(
	char *why, size_t size, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(why, size, format, args);
	va_end(args);
	return false;
}

static bool kind_fits(enum kind kind, enum value_type type)
{
	switch (kind) {
	case KIND_BOOL:
		return type == VALUE_BOOL;
	case KIND_INTEGER:
		return type >= VALUE_INT32 && type <= VALUE_UINT64;
	case KIND_STRING:
		return type == VALUE_STRING;
	}
	return false;
}

static bool variable_read(struct source *s, const struct talk_ack *so_far, struct talk_variable *v,
	char *why, size_t size)
{
	uint8_t action = get_byte(s), args = get_byte(s), scope = get_byte(s);
	struct str name = get_str(s);
	uint8_t type = get_byte(s);
	if (s->cut)
		return bad(why, size, "an action is cut");
	if (action != 1 || args != 3)
		return bad(why, size, "action %u with %u arguments: want set-var (1) with 3",
			action, args);
	if (scope != 2)
		return bad(why, size, "scope %u: want txn (2)", scope);
	if (name.n == 0 || name.n > TALK_NAME_MAX)
		return bad(why, size, "a variable's name of %zu bytes", name.n);
	memcpy(v->name, name.p, name.n);
	v->name[name.n] = 0;
	if (talk_ack_find(so_far, v->name))
		return bad(why, size, "%s is set twice", v->name);
	if ((type & 15) != VALUE_BOOL && type >> 4)
		return bad(why, size, "%s: flags 0x%x on a type that has none", v->name, type >> 4);
	v->type = (enum value_type)(type & 15);
	switch (v->type) {
	case VALUE_BOOL:
		if (type & ~0x11)
			return bad(why, size, "%s: unknown flags 0x%x", v->name, type >> 4);
		v->number = type >> 4;
		break;
	case VALUE_INT32:
	case VALUE_UINT32:
	case VALUE_INT64:
	case VALUE_UINT64:
		v->number = (int64_t)get_varint(s);
		break;
	case VALUE_STRING:
		v->text = get_str(s);
		for (size_t i = 0; i < v->text.n; i++)
			if (memchr("\r\n", v->text.p[i], 3)) /* with the NUL that ends it */
				return bad(why, size, "%s holds CR, LF or NUL", v->name);
		break;
	case VALUE_NULL:
	case VALUE_IPV4:
	case VALUE_IPV6:
	case VALUE_BINARY:
	default:
		return bad(why, size, "%s has type %u", v->name, type);
	}
	if (s->cut)
		return bad(why, size, "%s is cut", v->name);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (strcmp(known[i].name, v->name) != 0)
			continue;
		if (!kind_fits(known[i].kind, v->type))
			return bad(why, size, "%s has type %u", v->name, type);
		return true;
	}
	return bad(why, size, "%s is no variable of the contract", v->name);
}

bool talk_ack_read(const uint8_t *bytes, size_t size, uint64_t stream_id, uint64_t frame_id,
	uint32_t send_max, struct talk_ack *ack, char *why, size_t why_size)
{
	struct source s = { bytes, bytes + size, false };
	ack->n = 0;
	uint32_t length = get_word(&s);
	uint8_t type = get_byte(&s);
	uint32_t flags = get_word(&s);
	uint64_t sid = get_varint(&s), fid = get_varint(&s);
	if (s.cut)
		return bad(why, why_size, "a frame of %zu bytes is too short", size);
	if (length != size - 4)
		return bad(
			why, why_size, "length word %u, but %zu bytes follow it", length, size - 4);
	if (length > send_max)
		return bad(
			why, why_size, "%u bytes: more than the frame size %u", length, send_max);
	if (type != 103)
		return bad(why, why_size, "frame type %u: want 103", type);
	if (flags != 1)
		return bad(why, why_size, "flags %u: want 1 (FIN)", flags);
	if (sid != stream_id || fid != frame_id)
		return bad(why, why_size, "answers another NOTIFY");
	while (s.p != s.end) {
		if (ack->n == TALK_VARIABLES_MAX)
			return bad(why, why_size, "more than %d actions", TALK_VARIABLES_MAX);
		struct talk_variable *v = &ack->variable[ack->n];
		*v = (struct talk_variable){ 0 };
		if (!variable_read(&s, ack, v, why, why_size))
			return false;
		ack->n++;
	}
	if (!ack->n)
		return bad(why, why_size, "an empty ACK");
	if (talk_ack_find(ack, "deny") && strcmp(ack->variable[0].name, "deny") != 0)
		return bad(why, why_size, "%s comes before the decision", ack->variable[0].name);
	return true;
}

const struct talk_variable *talk_ack_find(const struct talk_ack *ack, const char *name)
{
	for (unsigned i = 0; i < ack->n; i++)
		if (strcmp(ack->variable[i].name, name) == 0)
			return &ack->variable[i];
	return NULL;
}
