#include "ctl/table.h"

#include "ctl/text.h"

#include <stdlib.h>

enum { GAP = 2 };

struct table {
	const struct column *column;
	unsigned columns;
	char **cell; /* owned, each; row by row */
	size_t n, cap;
	bool lost;
};

struct table *table_new(const struct column *column, unsigned n)
{
	struct table *t = calloc(1, sizeof *t);

	if (!t)
		return NULL;
	t->column = column;
	t->columns = n;
	return t;
}

void table_free(struct table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n; i++)
		free(t->cell[i]);
	free(t->cell);
	free(t);
}

void table_add(struct table *t, struct str s)
{
	if (!t || t->lost)
		return;
	if (t->n == t->cap) {
		size_t cap = t->cap ? 2 * t->cap : 64;
		char **cell = realloc(t->cell, cap * sizeof *cell);
		if (!cell) {
			t->lost = true;
			return;
		}
		t->cell = cell;
		t->cap = cap;
	}
	char *clean = text_clean(s);
	if (clean)
		t->cell[t->n++] = clean;
	else
		t->lost = true;
}

void table_put(struct table *t, const char *z)
{
	table_add(t, str_of(z));
}

void table_int(struct table *t, int64_t n)
{
	char text[24];

	table_add(
		t, (struct str){ text, (size_t)snprintf(text, sizeof text, "%lld", (long long)n) });
}

static size_t column_width(const struct table *t, unsigned c)
{
	size_t width = text_width(t->column[c].title);

	for (size_t i = c; i < t->n; i += t->columns) {
		size_t w = text_width(t->cell[i]);
		if (w > width)
			width = w;
	}
	return width;
}

static void write_row(const struct table *t, const size_t *width, const char *const *cell, FILE *f,
	size_t columns)
{
	size_t left = columns ? columns : SIZE_MAX;
	unsigned last = t->columns;

	while (last && !*cell[last - 1]) /* no blanks at a line's end */
		last--;
	for (unsigned c = 0; c < last && left; c++) {
		const char *z = cell[c];
		size_t w = text_width(z), pad = width[c] - w;
		size_t before = t->column[c].right ? pad : 0;
		before = before < left ? before : left;
		left -= before;
		size_t n = text_fit(z, left);
		(void)fprintf(f, "%*s%.*s", (int)before, "", (int)n, z);
		left -= w < left ? w : left;
		size_t after = (t->column[c].right ? 0 : pad) + GAP;
		if (c + 1 == last || after >= left)
			break;
		(void)fprintf(f, "%*s", (int)after, "");
		left -= after;
	}
	(void)fputc('\n', f);
}

bool table_write(const struct table *t, FILE *f, size_t columns)
{
	const char **title = NULL;
	size_t *width = NULL;
	bool whole = false;

	if (!t)
		return false;
	title = calloc(t->columns, sizeof *title);
	width = calloc(t->columns, sizeof *width);
	if (!title || !width)
		goto end;
	for (unsigned c = 0; c < t->columns; c++) {
		title[c] = t->column[c].title;
		width[c] = column_width(t, c);
	}
	write_row(t, width, title, f, columns);
	for (size_t i = 0; i + t->columns <= t->n; i += t->columns)
		write_row(t, width, (const char *const *)t->cell + i, f, columns);
	whole = !t->lost;
end:
	free(title);
	free(width);
	return whole;
}
