#include "limit/view.h"

#include "base/hash.h"
#include "limit/path.h"

#include <assert.h>

static const char *const builtin[FIELD_BUILTINS] = {
	[FIELD_MESSAGE] = "message",
	[FIELD_IP] = "ip",
	[FIELD_USER] = "user",
	[FIELD_KEY] = "key",
	[FIELD_TIER] = "tier",
	[FIELD_METHOD] = "method",
	[FIELD_PATH] = "path",
	[FIELD_HOST] = "host",
	[FIELD_COST] = "cost",
	[FIELD_ENDPOINT] = "endpoint",
};

enum { BUCKETS = sizeof(((struct layout *)0)->bucket) };
static_assert(BUCKETS >= 2 * FIELDS_MAX, "at most half full");

/* Names differ in length or at an end more often than not; the rest is a probe away. */
static unsigned bucket_of(struct str name)
{
	if (name.n == 0)
		return 0;
	return (unsigned)(name.n * 7 + (uint8_t)name.p[0] * 3 + (uint8_t)name.p[name.n - 1]) %
	       BUCKETS;
}

/* Names are a few bytes long: a call would take longer than the comparison. */
static inline bool is_name(const struct layout *l, unsigned slot, struct str name)
{
	if (l->field[slot].length != name.n)
		return false;
	for (size_t i = 0; i < name.n; i++)
		if (l->field[slot].name[i] != name.p[i])
			return false;
	return true;
}

/* Where the name is, or the empty bucket where it belongs. */
static inline unsigned find(const struct layout *l, struct str name)
{
	unsigned b = bucket_of(name);
	while (l->bucket[b] && !is_name(l, l->bucket[b] - 1u, name))
		b = (b + 1) % BUCKETS;
	return b;
}

void layout_init(struct layout *l)
{
	*l = (struct layout){ 0 };
	for (unsigned i = 0; i < FIELD_BUILTINS; i++)
		layout_add(l, str_of(builtin[i]));
}

int layout_add(struct layout *l, struct str name)
{
	unsigned b = find(l, name);
	if (l->bucket[b])
		return l->bucket[b] - 1;
	if (l->n == FIELDS_MAX || name.n == 0 || name.n > FIELD_NAME_MAX)
		return -1;
	memcpy(l->field[l->n].name, name.p, name.n);
	l->field[l->n].length = (uint8_t)name.n;
	l->bucket[b] = (uint8_t)++l->n;
	return (int)l->n - 1;
}

int layout_find_arg(const struct layout *l, struct str name)
{
	int slot = l->bucket[find(l, name)] - 1;
	return slot == FIELD_MESSAGE || slot == FIELD_ENDPOINT ? -1 : slot;
}

void view_init(
	struct view *v, const struct layout *l, struct str message, char *scratch, size_t size)
{
	v->layout = l;
	v->seen = 1ull << FIELD_MESSAGE | 1ull << FIELD_ENDPOINT; /* no argument fills them */
	v->present = 0;
	v->integer = 0;
	v->hashed = 0;
	/* What no rule looks at stays as it came: at most the log will. */
	v->normalised = 1ull << FIELD_IP |
			(l->text_wanted & (1ull << FIELD_PATH | 1ull << FIELD_HOST));
	v->scratch = scratch;
	v->scratch_end = scratch + size;
	v->text[FIELD_MESSAGE] = message;
	if (message.n)
		v->present |= 1ull << FIELD_MESSAGE;
}

/* n bytes of scratch; NULL: there are not so many left. */
static char *take_scratch(struct view *v, size_t n)
{
	if (n > (size_t)(v->scratch_end - v->scratch))
		return NULL;
	char *p = v->scratch;
	v->scratch += n;
	return p;
}

/* true: this arg is the first of its name. */
static bool claim(struct view *v, unsigned slot)
{
	assert(slot < v->layout->n && slot != FIELD_MESSAGE && slot != FIELD_ENDPOINT);
	uint64_t bit = 1ull << slot;
	if (v->seen & bit)
		return false;
	v->seen |= bit;
	return true;
}

static void put(struct view *v, unsigned slot, struct str s)
{
	v->text[slot] = s;
	if (s.n)
		v->present |= 1ull << slot;
}

static void put_ip(struct view *v, struct addr a)
{
	v->ip = a;
	if (a.len)
		v->present |= 1ull << FIELD_IP;
}

/* Of what is no text by itself. A number is no address. */
static bool wants_text(const struct view *v, unsigned slot)
{
	return slot != FIELD_IP && (v->layout->text_wanted >> slot & 1);
}

void view_set_null(struct view *v, unsigned slot)
{
	claim(v, slot);
}

void view_set_normalised(struct view *v, unsigned slot, struct str s)
{
	char *out;

	if (!claim(v, slot))
		return;
	switch (slot) {
	case FIELD_IP: {
		struct addr a;
		if (addr_parse(s, &a))
			put_ip(v, a);
		return;
	}
	case FIELD_PATH:
		out = take_scratch(v, s.n + 1);
		if (out)
			put(v, slot, path_normalise(s, out));
		return;
	case FIELD_HOST:
		out = take_scratch(v, s.n);
		if (out)
			put(v, slot, host_normalise(s, out));
		return;
	default:
		assert(!"one of view.normalised");
	}
}

void view_set_binary(struct view *v, unsigned slot, struct str s)
{
	if (slot == FIELD_IP && (s.n == 4 || s.n == 16))
		view_set_addr(v, slot, (const uint8_t *)s.p, s.n);
	else
		view_set_text(v, slot, s);
}

static void put_digits(struct view *v, unsigned slot, bool negative, uint64_t n)
{
	enum { DIGITS = 21 };
	char *out = take_scratch(v, DIGITS);
	if (!out)
		return;
	char *end = out + DIGITS, *p = end;
	do
		*--p = (char)('0' + n % 10);
	while (n /= 10);
	if (negative)
		*--p = '-';
	put(v, slot, (struct str){ p, (size_t)(end - p) });
}

void view_set_integer(struct view *v, unsigned slot, int64_t n)
{
	if (!claim(v, slot))
		return;
	v->integer |= 1ull << slot;
	v->number[slot] = n;
	if (wants_text(v, slot))
		put_digits(v, slot, n < 0, n < 0 ? 0 - (uint64_t)n : (uint64_t)n);
}

void view_set_unsigned(struct view *v, unsigned slot, uint64_t n)
{
	if (!claim(v, slot))
		return;
	v->integer |= 1ull << slot;
	v->number[slot] = n > INT64_MAX ? INT64_MAX : (int64_t)n;
	if (wants_text(v, slot))
		put_digits(v, slot, false, n);
}

void view_set_boolean(struct view *v, unsigned slot, bool b)
{
	if (claim(v, slot) && slot != FIELD_IP)
		put(v, slot, b ? STR("true") : STR("false"));
}

bool view_set_hash(struct view *v, unsigned slot, struct str s)
{
	char hex[SHA256_HEX_BYTES], *out;

	if (hash_said(s, hex) != HASH_SAID)
		return false;
	if (!claim(v, slot) || !(out = take_scratch(v, sizeof hex)))
		return true;
	memcpy(out, hex, sizeof hex);
	put(v, slot, (struct str){ out, sizeof hex });
	v->hashed |= 1ull << slot;
	return true;
}

void view_set_other_addr(struct view *v, unsigned slot, const uint8_t *bytes, size_t n)
{
	if (!claim(v, slot))
		return;
	struct addr a = addr_from_bytes(bytes, n);
	if (slot == FIELD_IP) {
		put_ip(v, a);
		return;
	}
	char *out = wants_text(v, slot) && a.len ? take_scratch(v, ADDR_TEXT_MAX) : NULL;
	if (out)
		put(v, slot, (struct str){ out, addr_format(&a, out) });
}

static inline char *put_text(char *out, struct str s)
{
	if (s.n <= STR_SHORT_MAX)
		return str_put_short(out, s);
	memcpy(out, s.p, s.n);
	return out + s.n;
}

void view_finish(struct view *v)
{
	if (!wants_text(v, FIELD_ENDPOINT) || !view_has(v, FIELD_METHOD) ||
		!view_has(v, FIELD_PATH))
		return;
	struct str method = v->text[FIELD_METHOD], path = v->text[FIELD_PATH];
	size_t n = method.n + 1 + path.n;
	char *out = take_scratch(v, n);
	if (!out)
		return;
	char *w = put_text(out, method);
	*w++ = ':';
	put_text(w, path);
	put(v, FIELD_ENDPOINT, (struct str){ out, n });
}

/* The text of a decimal integer; one that is too large for 64 bits is the largest. */
static bool parse_integer(struct str s, int64_t *out)
{
	bool negative = s.n && s.p[0] == '-';
	int64_t n = 0;

	if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
		s = (struct str){ s.p + 1, s.n - 1 };
	if (s.n == 0)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		if (__builtin_mul_overflow(n, 10, &n) ||
			__builtin_add_overflow(n, s.p[i] - '0', &n))
			n = INT64_MAX;
	}
	*out = negative ? -n : n;
	return true;
}

int64_t view_cost(const struct view *v, unsigned slot)
{
	int64_t cost;
	if (v->integer >> slot & 1)
		cost = v->number[slot];
	else if (!view_has(v, slot) || !parse_integer(v->text[slot], &cost))
		return 1;
	return cost < 0 ? 1 : cost;
}
