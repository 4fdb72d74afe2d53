/* Keeps a text and its origins. Knows no grammar. */
#include "config/source.h"

#include <stdlib.h>

/* Room for one more in an array of `size`-byte elements. */
static bool grow(void **array, size_t n, size_t *cap, size_t size)
{
	if (n < *cap)
		return true;
	size_t bigger = *cap ? 2 * *cap : 16;
	void *grown = realloc(*array, bigger * size);
	if (!grown)
		return false;
	*array = grown;
	*cap = bigger;
	return true;
}

bool source_put(struct source *s, const char *p, size_t n)
{
	if (s->cap - s->n < n + 1) {
		size_t cap = 2 * s->cap > s->n + n + 1 ? 2 * s->cap : s->n + n + 256;
		char *grown = realloc(s->text, cap);
		if (!grown)
			return false;
		s->text = grown;
		s->cap = cap;
	}
	for (size_t i = 0; i < n; i++)
		s->flat_lines += p[i] == '\n';
	memcpy(s->text + s->n, p, n);
	s->n += n;
	s->text[s->n] = '\0';
	return true;
}

bool source_add_segment(struct source *s, struct segment g)
{
	if (!grow((void **)&s->segment, s->segment_n, &s->segment_cap, sizeof *s->segment))
		return false;
	s->segment[s->segment_n++] = g;
	return true;
}

bool source_add_value(struct source *s, uint32_t flat_line)
{
	if (!grow((void **)&s->value_line, s->value_n, &s->value_cap, sizeof *s->value_line))
		return false;
	s->value_line[s->value_n++] = flat_line;
	return true;
}

int source_add_file(struct source *s, const char *name)
{
	if (!grow((void **)&s->file, s->file_n, &s->file_cap, sizeof *s->file))
		return -1;
	s->file[s->file_n] = strdup(name);
	return s->file[s->file_n] ? (int)s->file_n++ : -1;
}

struct place source_place(const struct source *s, uint32_t flat_line)
{
	size_t low = 0, high = s->segment_n;

	if (s->segment_n == 0)
		return (struct place){ 0 };
	if (s->flat_lines > 0 && flat_line >= s->flat_lines)
		flat_line = s->flat_lines - 1;
	while (high - low > 1) { /* the last one that begins at or before it */
		size_t middle = low + (high - low) / 2;
		if (s->segment[middle].flat_line <= flat_line)
			low = middle;
		else
			high = middle;
	}
	const struct segment *g = &s->segment[low];
	return (struct place){ s->file[g->file], g->line + (flat_line - g->flat_line) };
}

void source_free(struct source *s)
{
	for (size_t i = 0; i < s->file_n; i++)
		free(s->file[i]);
	free(s->file);
	free(s->text);
	free(s->segment);
	free(s->value_line);
	*s = (struct source){ 0 };
}
