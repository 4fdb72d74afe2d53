/* What somebody may have meant. */
#ifndef CONFIG_NEAREST_H
#define CONFIG_NEAREST_H

#include <stdbool.h>
#include <stddef.h>

/* The name nearest to `word` by edits (a swap of neighbours is one), the first of equals, or else
 * the first that `word` abbreviates; NULL: none is near enough to be worth saying. */
const char *nearest(const char *word, const char *const *names, size_t n);

/* Whether two names differ by one slip: a letter too many, too few, another one, two in each
 * other's place, or upper and lower case. Names that are short, or numbered (tier1, plan-b), differ
 * by intent. The first of `names` that is not `word` and so; NULL: none. */
const char *nearest_slip(const char *word, const char *const *names, size_t n);
bool is_slip(const char *a, const char *b);

enum { HINT_MAX = 160 };

/* `; did you mean "NAME"?`, or "" where nothing is near. Returns `out`. */
const char *nearest_hint(const char *word, const char *const *names, size_t n, char out[HINT_MAX]);

/* The same, of a policy's rules. */
struct policy;
const char *nearest_rule_hint(const struct policy *, const char *name, char out[HINT_MAX]);

#endif
