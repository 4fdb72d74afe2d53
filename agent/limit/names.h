/* A table from names to numbers, filled once and then only read. The names are the operator's, so a
 * plain hash will do: a client chooses what is looked up, not what is stored. */
#ifndef LIMIT_NAMES_H
#define LIMIT_NAMES_H

#include "base/str.h"

#include <stdint.h>

struct names;

struct names *names_new(void); /* NULL: out of memory */
void names_free(struct names *);

/* Of equal names the first counts. Copies `name`. false: out of memory. */
bool names_add(struct names *, struct str name, uint32_t number);

/* -1: not there. */
int64_t names_find(const struct names *, struct str name);

#endif
