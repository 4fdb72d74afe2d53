#include "ctl/request_line.h"

#include "config/field.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

enum { METHOD_MAX = 32 };

/* ---- pieces of a line ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Cut off the front; `n` is at most what is there. */
static struct str cut(struct str *s, size_t n)
{
	struct str front = { s->p, n };

	if (n) /* there may be nothing at all */
		*s = (struct str){ s->p + n, s->n - n };
	return front;
}

static void skip_blanks(struct str *s)
{
	while (s->n && is_blank(s->p[0]))
		(void)cut(s, 1);
}

static size_t word_length(struct str s)
{
	size_t n = 0;

	while (n < s.n && !is_blank(s.p[n]))
		n++;
	return n;
}

static size_t find(struct str s, char c)
{
	const char *at = s.n ? memchr(s.p, c, s.n) : NULL;

	return at ? (size_t)(at - s.p) : s.n;
}

/* Cut off the end. */
static struct str last_word(struct str *s)
{
	while (s->n && is_blank(s->p[s->n - 1]))
		s->n--;
	size_t from = s->n;
	while (from && !is_blank(s->p[from - 1]))
		from--;
	struct str word = { s->p + from, s->n - from };
	s->n = from;
	return word;
}

/* What stands between `open`, which is the first byte, and `close`, or the line's end: a long line
 * may be cut. */
static struct str enclosed(struct str *s, char close)
{
	(void)cut(s, 1);
	struct str inside = cut(s, find(*s, close));
	if (s->n)
		(void)cut(s, 1);
	return inside;
}

/* ---- escapes ---- */

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'         ? c - '0'
	       : isxdigit((unsigned char)c) ? (c | 0x20) - 'a' + 10
					    : -1;
}

/* Two of them at `at`; -1: there are not. */
static int hex_at(struct str s, size_t at)
{
	if (s.n < 2 || at > s.n - 2)
		return -1;
	int high = hex_digit(s.p[at]), low = hex_digit(s.p[at + 1]);
	return high < 0 || low < 0 ? -1 : 16 * high + low;
}

/* HAProxy writes #22; the others \x22, \" and \\. */
static size_t unescape_one(struct str s, size_t at, char escape, char *out)
{
	bool has_x = escape == '\\' && at + 1 < s.n && s.p[at + 1] == 'x';
	int byte = hex_at(s, at + 1 + has_x);

	*out = s.p[at];
	if (s.p[at] != escape)
		return 1;
	if (byte >= 0 && (has_x || escape == '#')) {
		*out = (char)byte;
		return 3u + has_x;
	}
	if (escape == '\\' && at + 1 < s.n && (s.p[at + 1] == '"' || s.p[at + 1] == '\\')) {
		*out = s.p[at + 1];
		return 2;
	}
	return 1;
}

static struct str unescape(struct request_line *l, struct str s, char escape)
{
	struct str plain = { l->unused, 0 };

	if (find(s, escape) == s.n)
		return s;
	for (size_t at = 0; at < s.n; plain.n++)
		at += unescape_one(s, at, escape, l->unused++);
	return plain;
}

/* ---- what they hold ---- */

static bool is_method(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!isalpha((unsigned char)s.p[i]) && s.p[i] != '-' && s.p[i] != '_')
			return false;
	return s.n && s.n <= METHOD_MAX;
}

/* "/x", or of HTTP/2 and proxies "https://host/x"; *host: where there is one. As in HAProxy, "*"
 * and what CONNECT has are no path. */
static bool load_target(struct view *v, struct str method, struct str target, struct str *host)
{
	const char *scheme_end = memmem(target.p, target.n, "://", 3);
	size_t n = 0;

	if (target.p[0] == '/') {
		view_set_text(v, FIELD_PATH, target);
	} else if (scheme_end) {
		size_t before = (size_t)(scheme_end + 3 - target.p);
		*host = (struct str){ target.p + before, target.n - before };
		while (n < host->n && !strchr("/?#", host->p[n]))
			n++;
		host->n = n;
		const char *at = memrchr(host->p, '@', host->n); /* a password comes before it */
		if (at)
			(void)cut(host, (size_t)(at + 1 - host->p));
		view_set_text(v, FIELD_PATH, target);
	} else if (!str_eq(target, STR("*")) && !str_eq(method, STR("CONNECT"))) {
		return false;
	}
	view_set_text(v, FIELD_METHOD, method);
	return true;
}

/* "GET /x HTTP/1.1"; false for "<BADREQ>" and the like. */
static bool load_request(
	struct request_line *l, struct str s, char escape, struct view *v, struct str *host)
{
	struct str method = cut(&s, word_length(s));

	skip_blanks(&s);
	struct str target = cut(&s, word_length(s));
	return is_method(method) && target.n &&
	       load_target(v, method, unescape(l, target, escape), host);
}

static void load_captures(struct request_line *l, struct str block, struct view *v)
{
	for (unsigned i = 0; i < l->captures; i++) {
		struct str value = cut(&block, find(block, '|'));
		if (l->capture[i].n && value.n)
			field_load_text(v, l->policy, l->capture[i], unescape(l, value, '#'));
		if (!block.n)
			return;
		(void)cut(&block, 1);
	}
}

/* What the log has as `tier` is what the agent answered. Where it was the default one, a
 * configuration may know better by now. */
static bool is_default_tier(const struct policy *p, struct str name, struct str value)
{
	return str_eq(name, STR("tier")) && str_eq(value, str_of(p->tier[p->default_tier].name));
}

/* What HAProxy writes of a sample that is not there; and of its hash. */
static bool is_none(struct str value)
{
	return str_eq(value, STR("-")) || str_eq(value, STR("sha256:-"));
}

/* VALUE, "VALUE", or of captured headers {VALUE|...}, where what the client wrote is escaped. */
static struct str load_value(struct request_line *l, struct str *s)
{
	if (s->n && s->p[0] == '"')
		return enclosed(s, '"');
	if (!s->n || s->p[0] != '{')
		return cut(s, word_length(*s));
	struct str all = enclosed(s, '}');
	return unescape(l, cut(&all, find(all, '|')), '#');
}

/* With what HAProxy has asked, the line may not say: most ask with `check` alone. */
static void begin_view(struct request_line *l, struct view *v)
{
	view_init(v, &l->policy->layout, STR("check"), l->scratch, l->scratch_n);
	v->seen &= ~(1ull << FIELD_MESSAGE);
}

/* Others have their text under this name. The first counts. */
static void load_message(struct view *v, struct str value)
{
	const uint64_t bit = 1ull << FIELD_MESSAGE;
	bool check = value.n >= 5 && memcmp(value.p, "check", 5) == 0 &&
		     (value.n == 5 || value.p[5] == '-');

	if (!check || v->seen & bit)
		return;
	v->seen |= bit;
	v->text[FIELD_MESSAGE] = value;
}

/* NAME=VALUE. */
static void load_word(struct request_line *l, struct str *s, struct view *v)
{
	size_t n = 0;

	while (n < s->n && !is_blank(s->p[n]) && s->p[n] != '=')
		n++;
	struct str name = cut(s, n);
	if (!s->n || s->p[0] != '=')
		return;
	(void)cut(s, 1);
	struct str value = load_value(l, s);
	if (str_eq(name, STR("message")))
		load_message(v, value);
	else if (!is_none(value) && !is_default_tier(l->policy, name, value))
		field_load_text(v, l->policy, name, value);
}

/* ---- HAProxy ---- */

static bool is_address(struct str s)
{
	struct addr a;

	return addr_parse(s, &a);
}

/* From what stands before the time. HAProxy's own formats have ADDRESS:PORT there, and the frontend
 * after it; in haproxy/ the verified address stands before that; in conf/examples there is nothing
 * but that, and no frontend but BACKEND/SERVER after it. (2001:db8::1:80 could be either.) */
static struct str find_client(struct str before, struct str after)
{
	struct str last = last_word(&before), verified = last_word(&before);
	struct str host = last;

	skip_blanks(&after);
	bool has_frontend = find((struct str){ after.p, word_length(after) }, '/') ==
			    word_length(after);
	while (host.n && host.p[host.n - 1] != ':')
		host.n--;
	host.n -= host.n != 0;
	if (has_frontend && is_address(verified))
		return verified;
	if (!has_frontend && is_address(last))
		return last;
	return is_address(host) ? host : last;
}

static bool load_haproxy(
	struct request_line *l, struct str before, struct str after, struct view *v)
{
	struct str client = find_client(before, after), inside, host = { 0 };
	bool found = false, captured = false;

	for (skip_blanks(&after); after.n; skip_blanks(&after))
		switch (after.p[0]) {
		case '"':
			inside = enclosed(&after, '"');
			found = found || load_request(l, inside, '#', v, &host);
			break;
		case '{': /* of requests, then of responses; no } inside that is not escaped */
			inside = enclosed(&after, '}');
			if (!captured)
				load_captures(l, inside, v);
			captured = true;
			break;
		default:
			load_word(l, &after, v);
		}
	view_set_text(v, FIELD_IP, client);
	if (host.n)
		view_set_text(v, FIELD_HOST, host);
	return found;
}

/* ---- the others ---- */

/* In quotes, where \" is none. */
static struct str quoted(struct str s)
{
	size_t n = 1;

	if (!s.n || s.p[0] != '"')
		return (struct str){ 0 };
	while (n < s.n && s.p[n] != '"')
		n += s.p[n] == '\\' && s.n - n > 1 ? 2 : 1;
	return (struct str){ s.p + 1, n - 1 };
}

/* ADDRESS IDENTITY USER [TIME] "REQUEST" ... */
static bool load_clf(struct request_line *l, struct str before, struct str after, struct view *v)
{
	struct str user = last_word(&before), host = { 0 };

	(void)last_word(&before);
	view_set_text(v, FIELD_IP, last_word(&before));
	if (!str_eq(user, STR("-")))
		view_set_text(v, FIELD_USER, user);
	skip_blanks(&after);
	bool found = load_request(l, quoted(after), '\\', v, &host);
	if (host.n)
		view_set_text(v, FIELD_HOST, host);
	return found;
}

static bool load_json_time(struct request_line *l, const json_t *at, usec_t *utc)
{
	static const double most = 253402300800; /* the year 10000 */
	struct str text = { json_string_value(at), json_string_length(at) };
	struct stamp s;

	if (json_is_number(at)) {
		double seconds = json_number_value(at);
		if (!(seconds >= 0 && seconds < most))
			return false;
		*utc = json_is_integer(at) ? json_integer_value(at) * USEC_PER_SEC
					   : (usec_t)(seconds * (double)USEC_PER_SEC);
		return true;
	}
	if (!text.n || stamp_parse_iso(text, &s) != text.n)
		return false;
	*utc = stamp_to_utc(&l->clock, &s);
	return *utc >= 0;
}

/* Does the line have a field that the configuration looks at? A cost may be a number only. */
static bool has_field(const struct view *v)
{
	const uint64_t message = 1ull << FIELD_MESSAGE; /* always there; seen: the line says it */

	return ((v->present & ~message) | v->integer | (v->seen & message)) != 0;
}

/* Requests have none of these by themselves. Programs' own messages do, the agent's among them, and
 * what Docker wraps lines of text in; those have a time, too. */
static bool is_message_of_program(const json_t *o)
{
	static const char *const telling[] = { "level", "severity", "msg", "message", "log" };

	for (unsigned i = 0; i < sizeof telling / sizeof *telling; i++)
		if (json_object_get(o, telling[i]))
			return true;
	return false;
}

static bool load_json(struct request_line *l, struct str text, struct view *v, usec_t *utc)
{
	const char *name;
	json_t *value;

	json_decref(l->object);
	l->object = json_loadb(text.p, text.n, JSON_ALLOW_NUL, NULL);
	if (!json_is_object(l->object) ||
		!load_json_time(l, json_object_get(l->object, "time"), utc))
		return false;
	begin_view(l, v);
	json_object_foreach(l->object, name, value)
	{
		struct str said = { json_string_value(value), json_string_length(value) };
		if (strcmp(name, "message") == 0)
			load_message(v, said);
		else if (strcmp(name, "time") != 0 && !(said.p && is_none(said)))
			(void)field_load_json(v, l->policy, str_of(name), value);
	}
	view_finish(v);
	return has_field(v) || !is_message_of_program(l->object);
}

/* ---- a line ---- */

/* `s` begins with a bracket. */
static bool load_text(struct request_line *l, struct str before, struct str s, struct view *v,
	usec_t *utc, bool *found)
{
	struct stamp stamp;
	struct str inside = { s.p + 1, s.n - 1 };
	size_t n = stamp_parse_log(inside, &stamp);

	if (!n || n == inside.n || inside.p[n] != ']')
		return false;
	(void)cut(&inside, n + 1);
	begin_view(l, v);
	*utc = stamp_to_utc(&l->clock, &stamp);
	*found = stamp.zone == STAMP_LOCAL ? load_haproxy(l, before, inside, v)
					   : load_clf(l, before, inside, v);
	*found = *found && *utc >= 0;
	view_finish(v);
	return true;
}

bool request_line_load(struct request_line *l, struct str line, struct view *v, usec_t *utc)
{
	bool found;

	assert(line.n <= REQUEST_LINE_MAX);
	l->unused = l->room;
	while (line.n && is_blank(line.p[line.n - 1]))
		line.n--;
	/* What syslog writes has neither of them in it. */
	for (size_t at = 0; at < line.n; at++) {
		struct str rest = { line.p + at, line.n - at };
		if (rest.p[0] == '{')
			return load_json(l, rest, v, utc);
		if (rest.p[0] == '[' &&
			load_text(l, (struct str){ line.p, at }, rest, v, utc, &found))
			return found;
	}
	return false;
}

/* ---- beginning and end ---- */

static bool name_captures(struct request_line *l, struct str names, char *why, size_t size)
{
	while (names.n) {
		struct str name = cut(&names, find(names, ','));
		if (names.n)
			(void)cut(&names, 1);
		if (l->captures == CAPTURES_MAX) {
			(void)snprintf(why, size, "want at most %d names", CAPTURES_MAX);
			return false;
		}
		if (str_eq(name, STR("-")))
			name.n = 0;
		else if (layout_find_arg(&l->policy->layout, name) < 0) {
			(void)snprintf(why, size,
				"\"%.*s\" is no field that a rule looks at (- passes one over)",
				(int)name.n, name.p);
			return false;
		}
		l->capture[l->captures++] = name;
	}
	return true;
}

bool request_line_init(struct request_line *l, const struct policy *p, const char *captures,
	char *why, size_t why_size)
{
	*l = (struct request_line){ .policy = p };
	if (!name_captures(l, str_of(captures), why, why_size))
		return false;
	l->scratch_n = 3 * REQUEST_LINE_MAX + FIELDS_MAX * ADDR_TEXT_MAX;
	l->room = malloc(REQUEST_LINE_MAX + l->scratch_n);
	if (!l->room) {
		(void)snprintf(why, why_size, "out of memory");
		return false;
	}
	l->scratch = l->room + REQUEST_LINE_MAX;
	return true;
}

void request_line_fini(struct request_line *l)
{
	json_decref(l->object);
	free(l->room);
	*l = (struct request_line){ 0 };
}
