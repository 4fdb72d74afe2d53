/* A tokenizer for libconfig's files that keeps its traps away. Knows nothing of what settings
 * mean. */
#include "config/prescan.h"

#include "config/env.h"
#include "config/file.h"
#include "config/grammar.h"
#include "config/tree.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <strings.h>

enum { PATH_TEXT_MAX = 4096 };

struct scan {
	struct source *source;
	struct problems *problems;
	bool failed;
	bool stopped; /* what follows would only repeat what was said */
	struct grammar grammar;
	bool comma;         /* of a list, held back: it is dropped where no element follows */
	uint32_t name_line; /* of the last name */
	struct {
		dev_t device;
		ino_t inode;
	} chain[INCLUDE_DEPTH_MAX + 1]; /* files being read, the outermost first */
	unsigned chain_n;
	size_t total;
};

/* One file on its way through the scan. */
struct cursor {
	const char *p, *end;
	unsigned file;
	uint32_t line;
	bool line_begins;
};

/* ---- putting the source together ---- */

/* `kept`: there was memory for it. */
static bool keep(struct scan *s, bool kept)
{
	if (kept)
		return true;
	if (!s->stopped)
		problem_out_of_memory(s->problems);
	s->failed = s->stopped = true;
	return false;
}

static void put(struct scan *s, const char *p, size_t n)
{
	if (!s->stopped)
		keep(s, source_put(s->source, p, n));
}

static void put_segment(struct scan *s, const struct cursor *c)
{
	struct segment g = { s->source->flat_lines, c->line, c->file };
	keep(s, source_add_segment(s->source, g));
}

static struct place here(const struct scan *s, const struct cursor *c)
{
	return (struct place){ s->source->file[c->file], c->line };
}

static void stop(struct scan *s)
{
	s->failed = s->stopped = true;
}

/* A token of n bytes at `p`, for the grammar: before it is put. */
static void token(struct scan *s, const struct cursor *c, enum token t, const char *p, size_t n)
{
	struct source *o = s->source;
	bool begins = grammar_take(&s->grammar, t, (struct str){ p, n }, here(s, c));

	s->failed = s->failed || s->grammar.broken;
	if (t == TOKEN_NAME)
		s->name_line = o->flat_lines;
	if (t == TOKEN_CLOSE)
		s->comma = false;
	if (!begins)
		return;
	if (s->comma)
		put(s, ",", 1);
	s->comma = false;
	if (o->value_n == SETTINGS_MAX) {
		problem_add(s->problems, here(s, c), "more than %d settings", SETTINGS_MAX);
		stop(s);
		return;
	}
	keep(s, source_add_value(o, s->grammar.value_named ? s->name_line : o->flat_lines));
}

/* ---- tokens ---- */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_name_char(char c)
{
	return is_letter(c) || is_digit(c) || c == '-' || c == '_' || c == '*';
}

static bool is_hex(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool begins(const struct cursor *c, const char *with)
{
	size_t n = strlen(with);
	return (size_t)(c->end - c->p) >= n && memcmp(c->p, with, n) == 0;
}

static char peek(const struct cursor *c, size_t ahead)
{
	return (size_t)(c->end - c->p) > ahead ? c->p[ahead] : '\0';
}

static void newline(struct scan *s, struct cursor *c)
{
	put(s, "\n", 1);
	c->p++;
	c->line++;
	c->line_begins = true;
}

static void skip_line(struct cursor *c)
{
	while (c->p < c->end && *c->p != '\n')
		c->p++;
}

/* A comment to the end of the line. */
static void skip_comment_line(struct scan *s, struct cursor *c)
{
	static const char message[] =
		"this comment goes on behind a CR: a line ends in LF, or CR LF";
	const char *begin = c->p;
	bool any = false, setting = false;

	skip_line(c);
	for (struct str line;
		(line = comment_hides((struct str){ begin, (size_t)(c->p - begin) })).n;
		begin = line.p + line.n) {
		any = true;
		setting |= memchr(line.p, '=', line.n) || memchr(line.p, ':', line.n);
	}
	/* A remark may hold a CR by accident; settings may not be hidden. */
	if (setting)
		problem_add(s->problems, here(s, c), message);
	else if (any)
		problem_warn(s->problems, here(s, c), message);
}

/* A comment that begins a line, within another one: that was to be closed before, and the settings
 * in between are none. (In the middle of a line it is a pattern, as "/api/" and a star.) */
static void warn_nested(struct scan *s, struct cursor *c, struct place at)
{
	while (peek(c, 0) == ' ' || peek(c, 0) == '\t')
		c->p++;
	if (begins(c, "/*"))
		problem_warn(s->problems, here(s, c),
			"this is in the comment that begins in %s:%u: what stands between is not read; is "
			"a */ missing?",
			at.file, at.line);
}

static void skip_comment(struct scan *s, struct cursor *c)
{
	struct place at = here(s, c);

	c->p += 2;
	put(s, " ", 1);
	while (c->p < c->end && !begins(c, "*/")) {
		if (*c->p == '\n') {
			newline(s, c);
			warn_nested(s, c, at);
		} else {
			c->p++;
		}
	}
	if (c->p == c->end) {
		problem_add(s->problems, at, "the comment that begins here is never closed");
		stop(s);
		return;
	}
	c->p += 2;
	c->line_begins = false; /* `@include` after a comment is none for libconfig either */
}

static void take_string(struct scan *s, struct cursor *c)
{
	const char *begin = c->p;

	c->p++;
	while (c->p < c->end && *c->p != '"' && *c->p != '\n') {
		if (*c->p == '\\' && (peek(c, 1) == 'x' || peek(c, 1) == 'X') &&
			peek(c, 2) == '0' && peek(c, 3) == '0') {
			problem_add(s->problems, here(s, c), "a string may not hold a NUL (\\x00)");
			s->failed = true;
		}
		c->p += *c->p == '\\' && c->p + 1 < c->end && c->p[1] != '\n' ? 2 : 1;
	}
	if (c->p == c->end || *c->p == '\n') {
		/* Not what is in it: it may be a password. */
		problem_add(s->problems, here(s, c),
			"a string that begins on this line is not closed on it");
		s->failed = true;
		token(s, c, TOKEN_STRING, begin, (size_t)(c->p - begin));
		return; /* what follows is read as usual */
	}
	c->p++;
	token(s, c, TOKEN_STRING, begin, (size_t)(c->p - begin));
	put(s, begin, (size_t)(c->p - begin));
	if (!is_name_char(peek(c, 0)))
		return;
	problem_add(s->problems, here(s, c),
		"a string ends in the middle of a word here: a '\"' within a string is written \\\"");
	s->failed = s->grammar.broken = true; /* the rest of the word is told by nobody */
	skip_line(c);
}

/* `magnitude` of the digits at [p, end); false: beyond 64 bits without sign. */
static bool magnitude_of(const char *p, const char *end, unsigned base, uint64_t *out)
{
	uint64_t v = 0;

	for (; p < end; p++) {
		unsigned digit = is_digit(*p) ? (unsigned)(*p - '0')
					      : (unsigned)((*p | 0x20) - 'a' + 10);
		if (v > (UINT64_MAX - digit) / base)
			return false;
		v = v * base + digit;
	}
	*out = v;
	return true;
}

/* What goes on behind a number makes it none: 2s, 1.2.3, 0b101 (which newer versions know). */
static bool number_ends(struct scan *s, struct cursor *c, bool good)
{
	if (good && !is_name_char(peek(c, 0)) && peek(c, 0) != '.')
		return true;
	while (is_name_char(peek(c, 0)) || peek(c, 0) == '.')
		c->p++;
	problem_add(s->problems, here(s, c),
		"what begins like a number here is none (a string stands in quotes)");
	s->failed = true;
	return false;
}

/* digits, with a point or an exponent or both; `c` is behind the digits before these. */
static void take_float(struct scan *s, struct cursor *c, const char *begin)
{
	const char *after = c->p;
	bool dot = peek(c, 0) == '.', digits = c->p > begin && is_digit(c->p[-1]), good = true;

	if (dot)
		for (c->p++; is_digit(peek(c, 0)); c->p++)
			digits = true;
	if ((peek(c, 0) | 0x20) == 'e') {
		c->p += peek(c, 1) == '+' || peek(c, 1) == '-' ? 2 : 1;
		good = is_digit(peek(c, 0));
		while (is_digit(peek(c, 0)))
			c->p++;
	}
	token(s, c, TOKEN_NUMBER, begin, (size_t)(c->p - begin));
	if (!number_ends(s, c, digits && good))
		return;
	put(s, begin, (size_t)(after - begin));
	if (!dot)
		put(s, ".0", 2); /* 1.5 knows no exponent without a point */
	put(s, after, (size_t)(c->p - after));
	put(s, " ", 1);
}

/* Integers go out in decimal and with an L where they need more than 32 bits: 1.5 wraps them
 * otherwise, and takes hexadecimal ones for unsigned. */
static void take_number(struct scan *s, struct cursor *c)
{
	const char *begin = c->p, *digits, *after;
	bool negative = *c->p == '-', hex;
	uint64_t v = 0;
	char text[32];

	c->p += negative || *c->p == '+';
	hex = c->p == begin && *c->p == '0' && (peek(c, 1) | 0x20) == 'x' && is_hex(peek(c, 2));
	c->p += hex ? 2 : 0;
	digits = c->p;
	while (c->p < c->end && (hex ? is_hex(*c->p) : is_digit(*c->p)))
		c->p++;
	after = c->p;
	if (!hex && (peek(c, 0) == '.' || (peek(c, 0) | 0x20) == 'e')) {
		take_float(s, c, begin);
		return;
	}
	for (int i = 0; i < 2 && peek(c, 0) == 'L'; i++)
		c->p++;
	token(s, c, TOKEN_NUMBER, begin, (size_t)(c->p - begin));
	if (!number_ends(s, c, true))
		return;
	uint64_t limit = (uint64_t)INT64_MAX + negative;
	if (!magnitude_of(digits, after, hex ? 16 : 10, &v) || v > limit) {
		problem_add(s->problems, here(s, c), "an integer has more than 64 bits");
		s->failed = true;
		return;
	}
	/* In an array libconfig wants all of one width. */
	bool small = v <= (uint64_t)INT32_MAX + negative && !grammar_in_array(&s->grammar);
	int n = snprintf(
		text, sizeof text, "%s%" PRIu64 "%s ", negative ? "-" : "", v, small ? "" : "L");
	put(s, text, (size_t)n);
}

static void take_name(struct scan *s, struct cursor *c)
{
	const char *begin = c->p;

	while (c->p < c->end && is_name_char(*c->p))
		c->p++;
	size_t n = (size_t)(c->p - begin);
	bool boolean = (n == 4 && strncasecmp(begin, "true", 4) == 0) ||
		       (n == 5 && strncasecmp(begin, "false", 5) == 0);
	token(s, c, boolean ? TOKEN_BOOLEAN : TOKEN_NAME, begin, n);
	put(s, begin, n);
}

static void unexpected(struct scan *s, struct cursor *c)
{
	if (*c->p == '@')
		problem_add(s->problems, here(s, c),
			"'@' here: want @include \"FILE\" at the beginning of a line");
	else if (*c->p > ' ' && *c->p < 127)
		problem_add(s->problems, here(s, c), "unexpected character '%c'", *c->p);
	else
		problem_add(s->problems, here(s, c),
			"unexpected byte 0x%02x (text other than ASCII stands in strings and comments)",
			(unsigned char)*c->p);
	s->failed = s->grammar.broken = true;
	skip_line(c); /* once for each line; brackets go with it */
}

/* ---- includes ---- */

static void scan_text(struct scan *s, unsigned file, const char *text, size_t n);

/* What cannot be included is a problem, and the rest is looked at as if it were empty. */
static void include(struct scan *s, struct place at, const char *path)
{
	struct source *o = s->source;
	bool was_lacking = o->lacks;
	char full[PATH_TEXT_MAX], why[256];
	struct file file;

	o->lacks = true;
	if (s->chain_n == INCLUDE_DEPTH_MAX + 1) {
		problem_add(s->problems, at,
			"@include \"%s\": more than %d files within each other", path,
			INCLUDE_DEPTH_MAX);
		return;
	}
	if (o->file_n == SOURCE_FILES_MAX) {
		problem_add(s->problems, at, "@include \"%s\": more than %d files", path,
			SOURCE_FILES_MAX);
		stop(s);
		return;
	}
	if (!path[0] || !path_from(at.file, path, full, sizeof full)) {
		problem_add(s->problems, at, "@include: the path is %s",
			path[0] ? "too long" : "empty");
		return;
	}
	if (!file_read(full, SOURCE_FILE_MAX, &file, why, sizeof why)) {
		problem_add(s->problems, at, "@include \"%s\": %s %s", path, full, why);
		return;
	}
	for (unsigned i = 0; i < s->chain_n; i++)
		if (s->chain[i].device == file.device && s->chain[i].inode == file.inode) {
			problem_add(
				s->problems, at, "@include \"%s\": %s includes itself", path, full);
			file_free(&file);
			return;
		}
	o->lacks = was_lacking;
	int index = source_add_file(o, full);
	if (keep(s, index >= 0)) {
		s->chain[s->chain_n].device = file.device;
		s->chain[s->chain_n++].inode = file.inode;
		scan_text(s, (unsigned)index, file.bytes, file.n);
		s->chain_n--;
	}
	file_free(&file);
}

/* The path between the quotes; `c` is moved past it. false: it is no include as it should be. */
static bool include_path(struct cursor *c, char *out, size_t size)
{
	size_t n = 0;

	while (peek(c, 0) == ' ' || peek(c, 0) == '\t')
		c->p++;
	if (peek(c, 0) != '"')
		return false;
	for (c->p++; c->p < c->end && *c->p != '"'; c->p++) {
		if (*c->p == '\\' && (peek(c, 1) == '\\' || peek(c, 1) == '"'))
			c->p++;
		if (*c->p == '\n' || *c->p == '\0' || n + 1 == size)
			return false;
		out[n++] = *c->p;
	}
	out[n] = '\0';
	if (c->p == c->end || n == 0)
		return false;
	c->p++;
	return true;
}

/* Blanks, then @include: it is read here, and what follows it goes on as a line of its own. */
static bool take_include(struct scan *s, struct cursor *c)
{
	struct cursor at = *c;
	char path[PATH_TEXT_MAX], why[320];

	while (peek(&at, 0) == ' ' || peek(&at, 0) == '\t')
		at.p++;
	if (!begins(&at, "@include"))
		return false;
	at.p += strlen("@include");
	if (!include_path(&at, path, sizeof path)) {
		problem_add(s->problems, here(s, c), "want @include \"FILE\"");
		s->failed = true;
		while (at.p < at.end && *at.p != '\n')
			at.p++;
	} else {
		char *expanded = env_expand(path, why, sizeof why);
		if (expanded) {
			include(s, here(s, c), expanded);
		} else if (why[0]) {
			problem_add(s->problems, here(s, c), "@include: %s", why);
			s->source->lacks = true;
		} else {
			keep(s, false);
		}
		free(expanded);
		put_segment(s, c);
	}
	*c = at;
	c->line_begins = false;
	return true;
}

/* ---- the scan ---- */

static void scan_sign(struct scan *s, struct cursor *c)
{
	static const struct {
		char sign;
		enum token token;
	} table[] = { { '=', TOKEN_EQUALS }, { ':', TOKEN_EQUALS }, { ';', TOKEN_SEMICOLON },
		{ ',', TOKEN_COMMA }, { '{', TOKEN_OPEN }, { '[', TOKEN_OPEN }, { '(', TOKEN_OPEN },
		{ '}', TOKEN_CLOSE }, { ']', TOKEN_CLOSE }, { ')', TOKEN_CLOSE } };

	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		if (table[i].sign != *c->p)
			continue;
		token(s, c, table[i].token, c->p, 1);
		if (*c->p == ',' && grammar_in_list(&s->grammar))
			s->comma = true;
		else
			put(s, c->p, 1);
		c->p++;
		return;
	}
	unexpected(s, c);
}

static void scan_token(struct scan *s, struct cursor *c)
{
	char t = *c->p;

	if (t == '\n') {
		newline(s, c);
		return;
	}
	if (t == ' ' || t == '\t' || t == '\r' || t == '\f') {
		put(s, " ", 1);
		c->p++;
		return;
	}
	if (t == '#' || begins(c, "//")) {
		skip_comment_line(s, c);
		return;
	}
	if (begins(c, "/*")) {
		skip_comment(s, c);
		return;
	}
	if (t == '"') {
		take_string(s, c);
		return;
	}
	if (is_digit(t) ||
		((t == '-' || t == '+') && (is_digit(peek(c, 1)) || peek(c, 1) == '.')) ||
		(t == '.' && is_digit(peek(c, 1)))) {
		take_number(s, c);
		return;
	}
	if (is_letter(t) || t == '*') {
		take_name(s, c);
		return;
	}
	scan_sign(s, c);
}

static void scan_text(struct scan *s, unsigned file, const char *text, size_t n)
{
	struct cursor c = { text, text + n, file, 1, true };
	const char *nul = n ? memchr(text, '\0', n) : NULL;

	if (n > SOURCE_FILE_MAX || s->total + n > SOURCE_TOTAL_MAX) {
		problem_add(s->problems, here(s, &c),
			"too much text: want at most %d bytes in a file, %d in all",
			SOURCE_FILE_MAX, SOURCE_TOTAL_MAX);
		stop(s);
		return;
	}
	s->total += n;
	put_segment(s, &c);
	if (nul) {
		for (const char *p = text; p < nul; p++)
			c.line += *p == '\n';
		problem_add(s->problems, here(s, &c), "a NUL byte: this is no text file");
		s->failed = true;
		return;
	}
	if (begins(&c, "\xef\xbb\xbf")) /* what some editors put at the beginning of a file */
		c.p += 3;
	while (c.p < c.end && !s->stopped) {
		if (c.line_begins) {
			c.line_begins = false;
			if (take_include(s, &c))
				continue;
		}
		scan_token(s, &c);
	}
	put(s, "\n", 1);
}

/* `file`: what the text was read from; NULL: nothing that could be included again. */
static bool scan_source(struct source *source, const char *name, const char *text, size_t n,
	const struct file *file, struct problems *problems)
{
	struct scan s = { .source = source, .problems = problems };

	grammar_init(&s.grammar, problems);
	int index = source_add_file(source, name);
	if (!keep(&s, index >= 0))
		return false;
	if (file) {
		s.chain[0].device = file->device;
		s.chain[0].inode = file->inode;
		s.chain_n = 1;
	}
	put(&s, "", 0);
	scan_text(&s, (unsigned)index, text, n);
	if (!s.stopped)
		grammar_end(&s.grammar, source_place(source, source->flat_lines));
	s.failed = s.failed || s.grammar.broken;
	return !s.failed;
}

bool source_scan(struct source *source, const char *name, const char *text, size_t n,
	struct problems *problems)
{
	*source = (struct source){ 0 };
	return scan_source(source, name, text, n, NULL, problems);
}

bool source_read(struct source *source, const char *path, struct problems *problems)
{
	char why[256];
	struct file file;

	*source = (struct source){ 0 };
	if (!file_read(path, SOURCE_FILE_MAX, &file, why, sizeof why)) {
		problem_add(problems, (struct place){ path, 1 }, "this file %s", why);
		return false;
	}
	bool good = scan_source(source, path, file.bytes, file.n, &file, problems);
	file_free(&file);
	return good;
}
