/* Lines of the log for one more reader, inside the process: those that it wants, whatever the log's
 * level, as JSON. Bounded: what is not taken in time is left out, and counted. */
#ifndef BASE_LOG_TAP_H
#define BASE_LOG_TAP_H

#include "base/log.h"

enum { LOG_TAP_BYTES = 32 * 1024 };

/* Any thread calls it, for every line: quick, and without state. */
typedef bool log_tap_wants(enum log_level, const char *event);

/* From now on; NULL: no more. One reader at a time. */
void log_tap(log_tap_wants *);

/* Moves what there is to `out` (LOG_TAP_BYTES) and returns its length: whole lines,
 * {"time":1763688225.678,"level":"info","event":"denied",…} and a newline each. `*lost`: how many
 * had no room since the last call. The reader's thread. */
size_t log_tap_take(char *out, uint64_t *lost);

/* For log.c. */
bool log_tap_is_wanted(enum log_level, const char *event);
void log_tap_put(enum log_level, const char *event, const struct log_field *, uint64_t suppressed);

#endif
