/* Tables for people: columns as wide as what is in them. */
#ifndef CTL_TABLE_H
#define CTL_TABLE_H

#include "base/str.h"

#include <stdint.h>
#include <stdio.h>

struct column {
	const char *title;
	bool right; /* numbers */
};

struct table;

struct table *table_new(const struct column *, unsigned n); /* borrowed; NULL: out of memory */
void table_free(struct table *);                            /* NULL is fine */

/* The next cell, row by row, with whatever does not print escaped. A table of NULL takes it too. */
void table_add(struct table *, struct str);
void table_put(struct table *, const char *); /* NULL: an empty one */
void table_int(struct table *, int64_t);

/* Nothing but its titles is fine. Lines are cut after `columns`; 0: nowhere. false: memory ran out
 * on the way, and it is not whole. */
bool table_write(const struct table *, FILE *, size_t columns);

#endif
