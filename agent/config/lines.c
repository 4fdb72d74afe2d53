/* The effective configuration as lines, and the texts that go into them. */
#include "config/load.h"

#include "base/hash.h"
#include "limit/plan.h"

#include <stdarg.h>
#include <stdlib.h>

static char *format_new(const char *format, va_list args)
{
	va_list again;

	va_copy(again, args);
	int n = vsnprintf(NULL, 0, format, again);
	va_end(again);
	char *text = n < 0 ? NULL : malloc((size_t)n + 1);
	if (text)
		vsnprintf(text, (size_t)n + 1, format, args);
	return text;
}

void lines_add(struct lines *l, struct place at, const char *format, ...)
{
	struct line line = { .slot = -1 };
	va_list args;

	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 64;
		struct line *grown = realloc(l->v, cap * sizeof *grown);
		if (!grown) {
			l->lost = true;
			return;
		}
		l->v = grown;
		l->cap = cap;
	}
	va_start(args, format);
	line.text = format_new(format, args);
	va_end(args);
	if (at.file && at.line) {
		size_t size = strlen(at.file) + 16;
		line.at = malloc(size);
		if (line.at)
			snprintf(line.at, size, "%s:%u", at.file, at.line);
	}
	if (!line.text || (at.file && at.line && !line.at)) {
		free(line.text);
		free(line.at);
		l->lost = true;
		return;
	}
	l->v[l->n++] = line;
}

void lines_add_patterns(
	struct lines *l, struct place at, const char *key, unsigned slot, const char *patterns)
{
	lines_add(l, at, "%s = %s", key, patterns);
	if (l->lost)
		return;
	l->v[l->n - 1].slot = (int)slot;
	l->v[l->n - 1].value_at = strlen(key) + strlen(" = ");
}

/* "!KEY" as "!sha256:…"; a pattern of stars tells nothing, and stays. Returns the end. */
static char *hide_pattern(char *out, struct str s)
{
	char hex[SHA256_HEX_BYTES];

	if (s.n && s.p[0] == '!') {
		*out++ = '!';
		s.p++;
		s.n--;
	}
	if (strspn(s.p, "*") >= s.n) {
		memcpy(out, s.p, s.n);
		return out + s.n;
	}
	hash_sha256_hex(s, hex);
	return out + sprintf(out, "sha256:%.*s", SECRET_HEX_SHOWN, hex);
}

static void line_hide(struct lines *l, struct line *line)
{
	const char *end, *p = line->text + line->value_at;
	size_t n = 1;

	for (const char *c = p; *c; c++)
		n += *c == ',';
	char *text = malloc(strlen(line->text) + n * (SECRET_HEX_SHOWN + sizeof "!sha256:, "));
	if (!text) {
		l->lost = true;
		return;
	}
	memcpy(text, line->text, line->value_at);
	char *out = text + line->value_at;
	for (;; p = end + 2) { /* one with ", " in it becomes two: no part of it is shown */
		end = strstr(p, ", ");
		out = hide_pattern(out, (struct str){ p, end ? (size_t)(end - p) : strlen(p) });
		if (!end)
			break;
		out += sprintf(out, ", ");
	}
	*out = '\0';
	free(line->text);
	line->text = text;
}

void lines_hide(struct lines *l, uint64_t secret)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].slot >= 0 && secret >> l->v[i].slot & 1)
			line_hide(l, &l->v[i]);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(((const struct line *)a)->text, ((const struct line *)b)->text);
}

void lines_sort(struct lines *l)
{
	if (l->n)
		qsort(l->v, l->n, sizeof *l->v, by_text);
}

void lines_free(struct lines *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->v[i].text);
		free(l->v[i].at);
	}
	free(l->v);
	*l = (struct lines){ 0 };
}

const char *key_name(const char *name, char out[KEY_NAME_MAX])
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-_*";
	size_t n = 0;

	if (*name && strspn(name, plain) == strlen(name)) {
		snprintf(out, KEY_NAME_MAX, "%s", name);
		return out;
	}
	out[n++] = '"';
	for (; *name && n + 4 < KEY_NAME_MAX; name++) {
		if (*name == '"' || *name == '\\')
			out[n++] = '\\';
		out[n++] = *name;
	}
	out[n++] = '"';
	out[n] = '\0';
	return out;
}

char *givens_join(const struct givens *g)
{
	size_t size = 1, n = 0;

	for (size_t i = 0; i < g->n; i++)
		size += strlen(g->v[i].text) + 2;
	char *out = malloc(size);
	if (!out)
		return NULL;
	out[0] = '\0';
	for (size_t i = 0; i < g->n; i++)
		n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", g->v[i].text);
	for (char *c = out; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?'; /* a line is one line */
	return out;
}

bool text_check(
	const struct given *g, const char *what, size_t min, size_t max, struct problems *problems)
{
	size_t n = strlen(g->text);
	bool good = g->type == GIVEN_STRING && n >= min && n <= max;
	char shown[SHOWN_MAX];

	for (const char *c = g->text; *c && good; c++)
		good = (unsigned char)*c >= ' ' && *c != 127;
	if (!good)
		problem_add(problems, g->at,
			"%s = %s: want a string of %zu to %zu bytes without control characters",
			what, given_show(g, shown), min, max);
	return good;
}
