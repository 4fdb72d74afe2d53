/* What somebody may have meant. */
#ifndef CONFIG_NEAREST_H
#define CONFIG_NEAREST_H

#include <stddef.h>

/* The name nearest to `word` by edits (a swap of neighbours is one), the first of equals; NULL:
 * none is near enough to be worth saying. */
const char *nearest(const char *word, const char *const *names, size_t n);

enum { HINT_MAX = 160 };

/* `; did you mean "NAME"?`, or "" where nothing is near. Returns `out`. */
const char *nearest_hint(const char *word, const char *const *names, size_t n, char out[HINT_MAX]);

#endif
