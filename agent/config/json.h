/* Texts of unknown make as JSON: jansson takes only UTF-8, and says NULL to all else. And JSON as
 * text. */
#ifndef CONFIG_JSON_H
#define CONFIG_JSON_H

#include "base/str.h"

#include <jansson.h>

/* What is no UTF-8 has `?` for every byte beyond ASCII. NULL: out of memory. */
json_t *json_of(struct str);
/* Its text, to be freed; `flags` as jansson's. NULL: out of memory. (jansson's json_dumps() leaves
 * out a member's name for which its buffer could not grow, and calls that a text.) */
char *json_text(const json_t *, size_t flags);

#endif
