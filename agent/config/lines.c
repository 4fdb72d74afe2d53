/* The effective configuration as lines, and the texts that go into them. */
#include "config/load.h"

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
	struct line line = { 0 };
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
