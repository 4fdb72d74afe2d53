/* Texts of unknown make as JSON: jansson takes only UTF-8, and says NULL to all else. */
#ifndef CONFIG_JSON_H
#define CONFIG_JSON_H

#include "base/str.h"

#include <jansson.h>

/* What is no UTF-8 has `?` for every byte beyond ASCII. NULL: out of memory. */
json_t *json_of(struct str);

#endif
