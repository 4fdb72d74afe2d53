#include "limit/match.h"

#include "limit/path.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* A pattern is cut at its stars: "a*b*c" is the parts a, b, c. One part: equality. Else the first
 * is a prefix, the last a suffix, and those between follow each other, each as early as it can:
 * linear in the text, however many stars.
 *
 * Most texts that do not fit are told by their first eight bytes, and short patterns such as "GET"
 * and "/api/" have no more to look at. */
struct pattern {
	uint64_t head, mask; /* of the first part: str_head(), and which of its bits there are */
	size_t first;        /* bytes of the first part */
	size_t more_max;     /* that may follow it: none, or any number */
	bool is_short;       /* head and length say it all */
	char *bytes;         /* owned: all parts, one after another, escapes resolved */
	size_t *end;         /* owned: where each part ends */
	unsigned parts;
};

struct field {
	unsigned slot;
	struct pattern *some, *none; /* owned: one of these must match; none of those may */
	unsigned some_n, none_n;
	struct cidr_set *some_ip, *none_ip; /* owned; FIELD_IP only */
	bool any_ip;                        /* "*" */
};

struct match {
	struct field *field; /* owned */
	unsigned n;
};

struct match *match_new(void)
{
	return calloc(1, sizeof(struct match));
}

static void patterns_free(struct pattern *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		free(p[i].bytes);
		free(p[i].end);
	}
	free(p);
}

void match_free(struct match *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < m->n; i++) {
		struct field *f = &m->field[i];
		patterns_free(f->some, f->some_n);
		patterns_free(f->none, f->none_n);
		cidr_set_free(f->some_ip);
		cidr_set_free(f->none_ip);
	}
	free(m->field);
	free(m);
}

__attribute__((format(printf, 3, 4))) static bool refuse(char *why, size_t size, const char *f, ...)
{
	va_list ap;
	va_start(ap, f);
	vsnprintf(why, size, f, ap);
	va_end(ap);
	return false;
}

static struct field *field_of(struct match *m, unsigned slot)
{
	for (unsigned i = 0; i < m->n; i++)
		if (m->field[i].slot == slot)
			return &m->field[i];
	struct field *grown = realloc(m->field, (m->n + 1) * sizeof *grown);
	if (!grown)
		return NULL;
	m->field = grown;
	m->field[m->n] = (struct field){ .slot = slot };
	return &m->field[m->n++];
}

static bool is_escape(struct str s, size_t i)
{
	return s.p[i] == '\\' && i + 1 < s.n &&
	       (s.p[i + 1] == '*' || s.p[i + 1] == '\\' || (i == 0 && s.p[i + 1] == '!'));
}

static void seal_pattern(struct pattern *p)
{
	size_t in_head = p->end[0] < STR_HEAD_BYTES ? p->end[0] : STR_HEAD_BYTES;

	p->first = p->end[0];
	p->head = str_head((struct str){ p->bytes, p->first });
	p->mask = in_head ? UINT64_MAX >> 8 * (STR_HEAD_BYTES - in_head) : 0;
	p->more_max = p->parts == 1 ? 0 : SIZE_MAX;
	/* Nothing after the first part, or only a star. */
	p->is_short = p->first <= STR_HEAD_BYTES && p->parts <= 2 &&
		      p->end[p->parts - 1] == p->first;
}

static bool compile(struct str s, bool lower, struct pattern *out)
{
	size_t n = 0, parts = 1;

	for (size_t i = 0; i < s.n; i++)
		parts += s.p[i] == '*';
	*out = (struct pattern){ .bytes = malloc(s.n + 1), .end = calloc(parts, sizeof(size_t)) };
	if (!out->bytes || !out->end) {
		free(out->bytes);
		free(out->end);
		return false;
	}
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '*') {
			out->end[out->parts++] = n;
			continue;
		}
		char c = is_escape(s, i) ? s.p[++i] : s.p[i];
		if (lower && c >= 'A' && c <= 'Z')
			c |= 0x20;
		out->bytes[n++] = c;
	}
	out->end[out->parts++] = n;
	seal_pattern(out);
	return true;
}

static bool add_pattern(struct pattern **list, unsigned *n, struct str s, bool lower)
{
	struct pattern *grown = realloc(*list, (*n + 1) * sizeof *grown);
	if (!grown)
		return false;
	*list = grown;
	if (!compile(s, lower, &grown[*n]))
		return false;
	++*n;
	return true;
}

/* A path pattern that no normal path can match would fail in silence: it is refused, and told its
 * normal form. Escaped stars look like stars here: neither has a say in what is normal. */
static bool check_path(struct str path, struct str shown, char *why, size_t size)
{
	char *plain = malloc(2 * path.n + 2);
	if (!plain)
		return refuse(why, size, "out of memory");
	size_t n = 0;
	for (size_t i = 0; i < path.n; i++) {
		if (is_escape(path, i))
			i++;
		plain[n++] = path.p[i];
	}
	struct str normal = path_normalise((struct str){ plain, n }, plain + n);
	bool good = str_eq(normal, (struct str){ plain, n });
	if (!good)
		refuse(why, size,
			"pattern \"%.*s\" can never match, since paths are normalised first: write \"%.*s%.*s\"",
			(int)shown.n, shown.p, (int)(shown.n - path.n), shown.p, (int)normal.n,
			normal.p);
	free(plain);
	return good;
}

/* "POST /x", as the line of a request has it. A star before the blank might stand for the colon. */
static bool check_method(struct str s, char *why, size_t size)
{
	size_t method = 0;

	while (method < s.n && !strchr(" \t*:/", s.p[method]))
		method++;
	if (method == s.n || !strchr(" \t", s.p[method]))
		return true;
	size_t rest = method;
	while (rest < s.n && strchr(" \t:", s.p[rest]))
		rest++;
	if (method && rest < s.n && (s.p[rest] == '/' || s.p[rest] == '*'))
		return refuse(why, size,
			"pattern \"%.*s\" can never match: an endpoint is METHOD:/path, without a "
			"blank: write \"%.*s:%.*s\"",
			(int)s.n, s.p, (int)method, s.p, (int)(s.n - rest), s.p + rest);
	return refuse(why, size,
		"pattern \"%.*s\" can never match: an endpoint is METHOD:/path, without a blank "
		"(several are a list of patterns)",
		(int)s.n, s.p);
}

static bool check_text(unsigned slot, struct str s, char *why, size_t size)
{
	if (slot == FIELD_PATH && s.p[0] == '/')
		return check_path(s, s, why, size);
	if (slot == FIELD_ENDPOINT) {
		if (s.p[0] == '/')
			return refuse(why, size,
				"pattern \"%.*s\" can never match: an endpoint is METHOD:/path; write "
				"\"*:%.*s\", or use the field path",
				(int)s.n, s.p, (int)s.n, s.p);
		if (!check_method(s, why, size))
			return false;
		const char *colon = memchr(s.p, ':', s.n);
		if (!colon && !memchr(s.p, '*', s.n))
			return refuse(why, size,
				"pattern \"%.*s\" can never match: an endpoint is METHOD:/path",
				(int)s.n, s.p);
		size_t skip = colon ? (size_t)(colon + 1 - s.p) : s.n;
		if (skip < s.n && s.p[skip] == '/')
			return check_path((struct str){ s.p + skip, s.n - skip }, s, why, size);
	}
	if (slot == FIELD_HOST && memchr(s.p, '/', s.n))
		return refuse(why, size,
			"pattern \"%.*s\" can never match: a host has no scheme before it and no path "
			"behind it: write \"api.example.com\" or \"*.example.com\"",
			(int)s.n, s.p);
	if (slot == FIELD_HOST) {
		char *out = malloc(s.n);
		if (!out)
			return refuse(why, size, "out of memory");
		size_t n = host_normalise(s, out).n;
		free(out);
		if (n != s.n)
			return refuse(why, size,
				"pattern \"%.*s\" can never match, since a host is matched without its port "
				"and final dot: write \"%.*s\"",
				(int)s.n, s.p, (int)n, s.p);
	}
	return true;
}

static bool add_ip(struct field *f, bool excludes, struct str s, char *why, size_t size)
{
	struct cidr_set **set = excludes ? &f->none_ip : &f->some_ip;
	struct cidr cidr;
	const char *reason = "";

	if (str_eq(s, STR("*")) && !excludes) {
		f->any_ip = true;
		return true;
	}
	if (str_eq(s, STR("*")))
		return add_ip(f, true, STR("0.0.0.0/0"), why, size) &&
		       add_ip(f, true, STR("::/0"), why, size);
	if (!cidr_parse(s, &cidr, &reason))
		return refuse(why, size, "\"%.*s\" is no address or prefix: %s", (int)s.n, s.p,
			cidr_looks_several(s) ? CIDR_SEVERAL : reason);
	if (!*set)
		*set = cidr_set_new();
	if (!*set || !cidr_set_add(*set, &cidr))
		return refuse(why, size, "out of memory");
	return true;
}

bool match_add(struct match *m, unsigned slot, struct str pattern, char *why, size_t size)
{
	bool excludes = pattern.n && pattern.p[0] == '!';
	struct str s = pattern;

	if (excludes)
		s = (struct str){ s.p + 1, s.n - 1 };
	if (s.n == 0)
		return refuse(why, size,
			"an empty pattern can never match: an empty field counts as absent");
	struct field *f = field_of(m, slot);
	if (!f)
		return refuse(why, size, "out of memory");
	if (slot == FIELD_IP)
		return add_ip(f, excludes, s, why, size);
	if (!check_text(slot, s, why, size))
		return false;
	if (!add_pattern(excludes ? &f->none : &f->some, excludes ? &f->none_n : &f->some_n, s,
		    slot == FIELD_HOST))
		return refuse(why, size, "out of memory");
	return true;
}

bool match_seal(struct match *m)
{
	for (unsigned i = 0; i < m->n; i++) {
		if (m->field[i].some_ip)
			cidr_set_seal(m->field[i].some_ip);
		if (m->field[i].none_ip)
			cidr_set_seal(m->field[i].none_ip);
	}
	return true;
}

/* Of a pattern whose head fits, and whose first part is not longer than the text. Never in line, as
 * ip_holds(): what is, would want registers saved for each match. */
static __attribute__((noinline)) bool parts_hold(const struct pattern *p, struct str s)
{
	size_t first = p->first;
	if (memcmp(s.p, p->bytes, first) != 0)
		return false;
	if (p->parts == 1)
		return true;
	size_t last_begin = p->end[p->parts - 2];
	size_t last = p->end[p->parts - 1] - last_begin;
	if (last > s.n - first || memcmp(s.p + s.n - last, p->bytes + last_begin, last) != 0)
		return false;
	const char *at = s.p + first, *end = s.p + s.n - last;
	for (unsigned i = 1; i + 1 < p->parts; i++) {
		size_t n = p->end[i] - p->end[i - 1];
		at = n ? memmem(at, (size_t)(end - at), p->bytes + p->end[i - 1], n) : at;
		if (!at)
			return false;
		at += n;
	}
	return true;
}

static inline bool one_holds(const struct pattern *p, unsigned n, struct str s)
{
	const uint64_t head = str_head(s);

	for (const struct pattern *end = p + n; p < end; p++) {
		if ((head & p->mask) != p->head || s.n < p->first || s.n - p->first > p->more_max)
			continue;
		if (p->is_short || parts_hold(p, s))
			return true;
	}
	return false;
}

static __attribute__((noinline)) bool ip_holds(const struct field *f, const struct view *v)
{
	bool wants = f->some_ip || f->any_ip;
	if (!view_has(v, FIELD_IP))
		return !wants;
	if (f->none_ip && cidr_set_has(f->none_ip, &v->ip))
		return false;
	return !wants || f->any_ip || cidr_set_has(f->some_ip, &v->ip);
}

static bool field_holds(const struct field *f, const struct view *v)
{
	if (f->slot == FIELD_IP)
		return ip_holds(f, v);
	if (!view_has(v, f->slot))
		return f->some_n == 0;
	struct str s = v->text[f->slot];
	if (f->none_n && one_holds(f->none, f->none_n, s))
		return false;
	return f->some_n == 0 || one_holds(f->some, f->some_n, s);
}

bool match_holds(const struct match *m, const struct view *v)
{
	for (unsigned i = 0; i < m->n; i++)
		if (!field_holds(&m->field[i], v))
			return false;
	return true;
}

int match_misfit(const struct match *m, const struct view *v)
{
	for (unsigned i = 0; i < m->n; i++)
		if (!field_holds(&m->field[i], v))
			return (int)m->field[i].slot;
	return -1;
}

uint64_t match_slots(const struct match *m)
{
	uint64_t slots = 0;
	for (unsigned i = 0; i < m->n; i++)
		slots |= 1ull << m->field[i].slot;
	return slots;
}

bool match_is_empty(const struct match *m)
{
	return m->n == 0;
}
