/* Text and JSON. Whatever bytes a client sends, they stay within the value that they belong to. */
#include "base/log_line.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

enum {
	LINE_TAIL_BYTES = 16, /* kept for what closes a line, however full it is */
	VALUE_BYTES = 1024,   /* of one value: a client's long path leaves room for the rest */
	NAME_BYTES = 64,      /* of a field; also the journal's bound */
};

const char *log_level_name(enum log_level level)
{
	static const char *const name[] = { "debug", "info", "warning", "error" };

	return name[level];
}

/* A piece goes in whole or not at all, and after one that did not fit none does. */
struct text {
	char *p, *end;
	bool cut;
};

static void put_piece(struct text *t, const char *p, size_t n)
{
	if (t->cut || n > (size_t)(t->end - t->p)) {
		t->cut = true;
		return;
	}
	if (n == 0)
		return; /* p may be NULL */
	memcpy(t->p, p, n);
	t->p += n;
}

static void put_text(struct text *t, const char *z)
{
	put_piece(t, z, strlen(z));
}

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-' || c == '.';
}

/* Names are ours, but one may come from a configuration some day: it cannot forge either. */
static void put_name(struct text *t, const char *z)
{
	char name[NAME_BYTES];
	size_t n = 0;

	for (; z[n] && n < sizeof name; n++)
		name[n] = (char)(is_name_char(z[n]) ? z[n] : '_');
	put_piece(t, name, n);
}

/* Length of the well-formed UTF-8 sequence at p, and what it encodes; 0: there is none. */
static size_t utf8_next(const unsigned char *p, size_t n, uint32_t *code)
{
	uint32_t c = p[0], least;
	size_t length;

	if (c < 0x80) {
		*code = c;
		return 1;
	}
	if ((c & 0xe0) == 0xc0) {
		length = 2;
		least = 0x80;
		c &= 0x1f;
	} else if ((c & 0xf0) == 0xe0) {
		length = 3;
		least = 0x800;
		c &= 0x0f;
	} else if ((c & 0xf8) == 0xf0) {
		length = 4;
		least = 0x10000;
		c &= 0x07;
	} else {
		return 0;
	}
	if (length > n)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3fu);
	}
	if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*code = c;
	return length;
}

/* Control characters of both kinds, what ends a line in some viewers, and what reorders or hides
 * text in a terminal. All of them lie below U+10000. */
static bool must_escape(uint32_t c)
{
	return c < 0x20 || c == '"' || c == '\\' || (c >= 0x7f && c <= 0x9f) || c == 0x061c ||
	       (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || c == 0xfffe || c == 0xffff;
}

static void put_escape(struct text *t, uint32_t c, enum log_format format)
{
	char escape[8];

	switch (c) {
	case '"':
		put_text(t, "\\\"");
		return;
	case '\\':
		put_text(t, "\\\\");
		return;
	case '\n':
		put_text(t, "\\n");
		return;
	case '\r':
		put_text(t, "\\r");
		return;
	case '\t':
		put_text(t, "\\t");
		return;
	}
	(void)snprintf(escape, sizeof escape,
		c < 0x80 && format == LOG_FORMAT_TEXT ? "\\x%02x" : "\\u%04x",
		(unsigned)c & 0xffff);
	put_text(t, escape);
}

static void put_escaped(struct text *t, struct str s, enum log_format format)
{
	const unsigned char *p = (const unsigned char *)s.p;

	for (size_t i = 0; i < s.n && !t->cut;) {
		uint32_t code;
		size_t n = utf8_next(p + i, s.n - i, &code);

		if (n == 0) {
			/* JSON has no way to write such a byte. */
			char escape[8];
			(void)snprintf(escape, sizeof escape, "\\x%02x", p[i]);
			put_text(t, format == LOG_FORMAT_TEXT ? escape : "\\ufffd");
			i++;
			continue;
		}
		if (must_escape(code))
			put_escape(t, code, format);
		else
			put_piece(t, s.p + i, n);
		i += n;
	}
}

/* Printable ASCII without what could end a value or begin another. */
static bool is_bare(struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=')
			return false;
	}
	return s.n > 0;
}

static void put_quoted(struct text *t, struct str s, enum log_format format)
{
	put_text(t, "\"\""); /* what is opened is closed, however little of it goes in */
	if (t->cut)
		return;
	t->p--;
	t->end--;
	put_escaped(t, s, format);
	t->end++;
	*t->p++ = '"';
}

/* In JSON these keys say what the line is: a field cannot take their place. */
static bool is_taken(const char *name)
{
	return strcmp(name, "time") == 0 || strcmp(name, "level") == 0 ||
	       strcmp(name, "event") == 0;
}

/* A value as bare text or quoted; false: only the beginning of it, or nothing. */
static bool put_value(struct text *t, const struct log_field *f, enum log_format format)
{
	char number[24];

	if (f->is_number) {
		(void)snprintf(number, sizeof number, "%" PRId64, f->number);
		put_text(t, number);
	} else if (format == LOG_FORMAT_JSON || !is_bare(f->text)) {
		put_quoted(t, f->text, format);
	} else if (f->text.n <= (size_t)(t->end - t->p)) {
		put_piece(t, f->text.p, f->text.n);
	} else {
		put_piece(t, f->text.p, (size_t)(t->end - t->p));
		t->cut = true;
	}
	return !t->cut;
}

/* false: it is not there as a whole, which the line has to say. */
static bool put_field(struct text *t, const struct log_field *f, enum log_format format)
{
	struct text before = *t;

	put_text(t, format == LOG_FORMAT_JSON ? ",\"" : " ");
	put_name(t, f->name);
	if (format == LOG_FORMAT_JSON)
		put_text(t, is_taken(f->name) ? "_\":" : "\":");
	else
		put_text(t, "=");

	/* One value fills a part of the line only, as it is written: the next ones have room. */
	struct text value = *t;
	if ((size_t)(value.end - value.p) > VALUE_BYTES)
		value.end = value.p + VALUE_BYTES;
	bool whole = put_value(&value, f, format);
	if (!whole && value.p == t->p) {
		*t = before; /* a name without its value would be no field */
		t->cut = true;
		return false;
	}
	t->cut = t->cut || (!whole && value.end == t->end);
	t->p = value.p;
	return whole;
}

/* RFC 3339, UTC, milliseconds. */
static void put_time(struct text *t, usec_t utc)
{
	time_t sec = (time_t)(utc / USEC_PER_SEC);
	struct tm tm;
	char text[64];

	if (!gmtime_r(&sec, &tm))
		memset(&tm, 0, sizeof tm);
	(void)snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900,
		tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		(int)(utc % USEC_PER_SEC / USEC_PER_MSEC));
	put_text(t, text);
}

/* The first VALUE_BYTES at most, whole characters. */
static struct str shorten(struct str s)
{
	if (s.n <= VALUE_BYTES)
		return s;
	s.n = VALUE_BYTES;
	for (int back = 0; back < 3 && ((unsigned char)s.p[s.n] & 0xc0) == 0x80; back++)
		s.n--;
	return s;
}

static void put_journal(struct text *t, struct log_record *r, const char *name, struct str value)
{
	struct text before = *t;

	put_piece(t, "\0\0", 2); /* its length */
	put_text(t, name);
	put_text(t, "=");
	put_piece(t, value.p, value.n);
	if (t->cut || r->fields == LOG_JOURNAL_FIELDS) {
		*t = before; /* left out; the next one may be short enough */
		return;
	}
	uint16_t length = (uint16_t)(t->p - before.p - 2);
	memcpy(before.p, &length, sizeof length);
	r->fields++;
}

/* The name as the journal wants it: A-Z, 0-9 and _, not beginning with a digit or _, and none that
 * has a meaning there. */
static void put_journal_field(struct text *t, struct log_record *r, const struct log_field *f)
{
	static const char *const reserved[] = { "_", "0", "1", "2", "3", "4", "5", "6", "7", "8",
		"9", "MESSAGE", "PRIORITY", "SYSLOG_", "CODE_", "OBJECT_", "COREDUMP_", "UNIT",
		"USER_UNIT", "ERRNO", "INVOCATION_ID", "DOCUMENTATION", "TID", "RATELIMIT_EVENT" };
	static const char prefix[] = "RATELIMIT_";
	char buffer[sizeof prefix + NAME_BYTES], *name = buffer + sizeof prefix - 1, number[24];
	size_t n = 0;

	memcpy(buffer, prefix, sizeof prefix - 1);
	for (; f->name[n] && n < NAME_BYTES - sizeof prefix; n++) {
		char c = f->name[n];

		if (c >= 'a' && c <= 'z')
			c = (char)(c - 'a' + 'A');
		name[n] = (char)(is_name_char(c) && c != '-' && c != '.' ? c : '_');
	}
	name[n] = '\0';
	for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
		if (strncmp(name, reserved[i], strlen(reserved[i])) == 0) {
			name = buffer;
			break;
		}
	}
	if (!f->is_number) {
		put_journal(t, r, name, shorten(f->text));
		return;
	}
	(void)snprintf(number, sizeof number, "%" PRId64, f->number);
	put_journal(t, r, name, str_of(number));
}

size_t log_line_format(char out[LOG_RECORD_BYTES], enum log_format format, bool journal, usec_t utc,
	enum log_level level, const char *event, const struct log_field *fields,
	uint64_t suppressed)
{
	struct log_record r = { .level = (uint8_t)level };
	char *line = out + sizeof r;
	struct text t = { line, line + LOG_LINE_BYTES - LINE_TAIL_BYTES, false };
	const struct log_field extra[] = { KV_INT("suppressed", suppressed), { 0 } };
	bool whole = true;

	if (format == LOG_FORMAT_JSON)
		put_text(&t, "{\"time\":\"");
	put_time(&t, utc);
	put_text(&t, format == LOG_FORMAT_JSON ? "\",\"level\":\"" : " ");
	put_text(&t, log_level_name(level));
	if (format == LOG_FORMAT_JSON) {
		put_text(&t, "\",\"event\":\"");
		put_name(&t, event);
		put_text(&t, "\"");
	} else {
		put_text(&t, " ");
		r.prefix_n = (uint16_t)(t.p - line);
		put_name(&t, event);
	}
	for (const struct log_field *f = fields; f && f->name; f++)
		whole = put_field(&t, f, format) && whole;
	if (suppressed)
		whole = put_field(&t, extra, format) && whole;

	whole = whole && !t.cut;
	t = (struct text){ t.p, line + LOG_LINE_BYTES, false };
	if (!whole)
		put_text(&t, format == LOG_FORMAT_JSON ? ",\"cut\":true" : " cut=true");
	put_text(&t, format == LOG_FORMAT_JSON ? "}\n" : "\n");
	r.line_n = (uint16_t)(t.p - line);

	if (journal) {
		t.end = t.p + LOG_JOURNAL_BYTES;
		put_journal(&t, &r, "RATELIMIT_EVENT", str_of(event));
		for (const struct log_field *f = fields; f && f->name; f++)
			put_journal_field(&t, &r, f);
		if (suppressed)
			put_journal_field(&t, &r, extra);
	}
	r.size = (uint32_t)(t.p - out);
	memcpy(out, &r, sizeof r);
	return r.size;
}
