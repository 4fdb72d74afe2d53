/* Patterns and matches: predicates over a view. A pattern is text where `*` stands for any run of
 * characters and `\*` for a star; a leading `!` excludes. The field `ip` takes CIDRs instead. */
#ifndef LIMIT_MATCH_H
#define LIMIT_MATCH_H

#include "limit/view.h"

struct match; /* fields, each with patterns; all must match */

struct match *match_new(void); /* matches everything; NULL: out of memory */
void match_free(struct match *);

/* One more pattern for the field in `slot`. On false `why` says what is wrong and what is wanted
 * (a path pattern that is not in normal form is told its normal form). */
bool match_add(struct match *, unsigned slot, struct str pattern, char *why, size_t why_size);

/* Whether a pattern that was added is, as a rule, a typing error: it matches no request of
 * HAProxy's (a path that does not begin with a slash, a method in lower case), or more than it says
 * (10.0.0.1/8). `why` says what is wrong, and what may be meant. */
bool match_is_odd(unsigned slot, struct str pattern, char *why, size_t why_size);

/* After the last add; false: out of memory. */
bool match_seal(struct match *);

bool match_holds(const struct match *, const struct view *);
/* The slot of the first field that does not fit; -1: it holds. */
int match_misfit(const struct match *, const struct view *);

/* The slots it looks at. */
uint64_t match_slots(const struct match *);

bool match_is_empty(const struct match *);

#endif
