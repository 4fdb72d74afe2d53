/* Texts for a terminal: what came from clients never steers it. */
#ifndef CTL_TEXT_H
#define CTL_TEXT_H

#include "base/str.h"

#include <stdarg.h>
#include <stdint.h>

/* Before the others: from here on texts are UTF-8, whatever the user's locale. */
void text_init(void);

/* A copy in which whatever does not print is escaped: control characters and what turns the
 * direction of a line as \u{HEX}, bytes that are no UTF-8 as \xHH. free() it; NULL: out of memory.
 */
char *text_clean(struct str);
/* The same of what vprintf() would print. */
char *text_clean_format(const char *format, va_list) __attribute__((format(printf, 1, 0)));

/* Columns that a text takes, which text_clean() gave. */
size_t text_width(const char *);
/* How many of its bytes fit into so many columns, with no character cut. */
size_t text_fit(const char *, size_t columns);

enum { TEXT_MAX = 64 };

/* Each returns `out`. */
const char *text_seconds(int64_t seconds, char out[TEXT_MAX]); /* "3d 4h", "12m 5s", "0s" */
const char *text_instant(
	int64_t unix_seconds, char out[TEXT_MAX]);        /* local, "2026-11-21 10:00:03" */
const char *text_share(double share, char out[TEXT_MAX]); /* "2.5 %" */

/* "1795251600", "2026-11-21 10:00", "2026-11-21T10:00:30Z", "18:30" (the next one): Unix seconds.
 * Local time where there is no Z. -1: none of these. */
int64_t instant_parse(const char *, int64_t now);

#endif
