/* The text that libconfig gets, and where each of its lines and values comes from. */
#ifndef CONFIG_SOURCE_H
#define CONFIG_SOURCE_H

#include "config/problems.h"

#include <stdint.h>

/* From `flat_line` on, lines are those of `file` from `line` on. */
struct segment {
	uint32_t flat_line, line;
	unsigned file;
};

struct source {
	char *text; /* owned; NUL-terminated; for libconfig */
	size_t n, cap;
	uint32_t flat_lines;     /* newlines in `text` */
	struct segment *segment; /* owned, by flat_line */
	size_t segment_n, segment_cap;
	/* For each value in the order of the text, groups and lists included: the flat line of its
	 * name, or of itself where it has none. What libconfig does not know of list elements. */
	uint32_t *value_line; /* owned */
	size_t value_n, value_cap;
	bool lacks;  /* something that it includes could not be read */
	char **file; /* owned; names as they go into messages */
	size_t file_n, file_cap;
};

void source_free(struct source *);

/* Borrowed from `s`. Lines beyond the end are the last one. */
struct place source_place(const struct source *s, uint32_t flat_line);

/* Appending; false: out of memory. */
bool source_put(struct source *, const char *p, size_t n);
bool source_add_segment(struct source *, struct segment);
bool source_add_value(struct source *, uint32_t flat_line);
/* The file's number, or -1. */
int source_add_file(struct source *, const char *name);

#endif
