#include "notify.h"

#include "base/wire.h"
#include "spop/frame.h"

static const char hex[] = "0123456789abcdef";

enum { VALUE_STRING_BYTE = 8, VALUE_IPV4_BYTE = 6, DIGITS = 6 };

static void put_id(uint8_t *p, uint32_t id)
{
	uint32_t n = NOTIFY_ID_MIN + id;
	p[0] = (uint8_t)(n | 240);
	n = (n - 240) >> 4;
	p[1] = (uint8_t)(n | 128);
	p[2] = (uint8_t)((n - 128) >> 7);
}

static void put_digits(uint8_t *p, uint32_t v)
{
	for (int i = DIGITS - 1; i >= 0; i--, v >>= 4)
		p[i] = (uint8_t)hex[v & 15];
}

static void put_arg(struct wire_writer *w, const char *name, const char *value)
{
	wire_put_str(w, str_of(name));
	wire_put_u8(w, VALUE_STRING_BYTE);
	wire_put_str(w, str_of(value));
}

bool notify_form_init(struct notify_form *f, const char *message)
{
	struct wire_writer w = { f->bytes, f->bytes + sizeof f->bytes, false };
	wire_put_u32(&w, 0);
	wire_put_u8(&w, FRAME_NOTIFY);
	wire_put_u32(&w, FRAME_FLAG_FIN);
	f->id_at = (size_t)(w.p - f->bytes);
	wire_put_varint(&w, NOTIFY_ID_MIN);
	wire_put_varint(&w, 1);
	f->payload_at = (size_t)(w.p - f->bytes);
	if (strlen(message) > 64)
		return false;
	wire_put_str(&w, str_of(message));
	wire_put_u8(&w, 6);
	wire_put_str(&w, STR("ip"));
	wire_put_u8(&w, VALUE_IPV4_BYTE);
	f->ip_at = (size_t)(w.p - f->bytes);
	wire_put_bytes(&w, "\x0a\0\0", 4);
	put_arg(&w, "key", "sk-live-7f3a90-000000");
	f->key_at = (size_t)(w.p - f->bytes) - DIGITS;
	put_arg(&w, "user", "user-000000");
	f->user_at = (size_t)(w.p - f->bytes) - DIGITS;
	put_arg(&w, "method", "GET");
	put_arg(&w, "path", "/api/v1/orders");
	put_arg(&w, "host", "api.example.org");
	if (w.bad)
		return false;
	f->n = (size_t)(w.p - f->bytes);
	w = (struct wire_writer){ f->bytes, f->bytes + FRAME_LENGTH_BYTES, false };
	wire_put_u32(&w, (uint32_t)(f->n - FRAME_LENGTH_BYTES));
	return true;
}

void notify_stamp(const struct notify_form *f, uint8_t *out, uint32_t id, uint32_t client)
{
	memcpy(out, f->bytes, f->n);
	put_id(out + f->id_at, id);
	out[f->ip_at + 1] = (uint8_t)(client >> 16);
	out[f->ip_at + 2] = (uint8_t)(client >> 8);
	out[f->ip_at + 3] = (uint8_t)client;
	put_digits(out + f->key_at, client);
	put_digits(out + f->user_at, client);
}
