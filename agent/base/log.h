/* Log lines: an event, then keys and values. Formatted by the caller's thread, written by a thread
 * of its own, so that a target that blocks (a full pipe, a slow journal) never stops a worker. The
 * queue between them is bounded; what does not fit is dropped, counted, and the count is logged.
 *
 *   text:  2026-11-21T01:23:45.678Z info listening addr=127.0.0.1:9600 threads=2
 *   json:  {"time":"…","level":"info","event":"listening","addr":"127.0.0.1:9600","threads":2}
 *
 * Values that hold spaces, quotes, `=`, control characters or anything but ASCII are quoted and
 * escaped: nothing that a client sends can forge a line or a key. A value is cut at 1 KiB and a
 * line at 4 KiB, marked by a last field cut=true. Bytes that are no UTF-8 are \xNN in text, U+FFFD
 * in JSON. Syslog and journal get the line without its time and level, which they have of their
 * own; the journal also gets each field, its name in upper case, and RATELIMIT_EVENT. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/clock.h"
#include "base/str.h"

#include <stdatomic.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };
enum log_target { LOG_TARGET_STDERR, LOG_TARGET_SYSLOG, LOG_TARGET_JOURNAL, LOG_TARGET_FILE };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log_settings {
	enum log_target target;
	enum log_format format;
	enum log_level level;
	char path[256]; /* LOG_TARGET_FILE; of syslog and journal another socket than the system's,
			 * "" for that one */
};

struct log_field {
	const char *name; /* NULL ends a list */
	struct str text;
	int64_t number;
	bool is_number; /* which of the two counts */
};

#define KV_STR(name, value) \
	{ \
		(name), (value), 0, false \
	}
#define KV_Z(name, value) \
	{ \
		(name), str_of(value), 0, false \
	}
#define KV_INT(name, value) \
	{ \
		(name), { 0 }, (int64_t)(value), true \
	}

/* Starts the writing thread (signals blocked in it). Before this, and when it fails, lines go to
 * stderr at once, from level info on. Returns 0, or -1 with `err` saying which target and why.
 * log_open, log_change and log_close are the control thread's. */
int log_open(const struct log_settings *, char *err, size_t err_size);

/* New settings (a reload); the same errors, and then the old settings stay. */
int log_change(const struct log_settings *, char *err, size_t err_size);

/* Opens the file of LOG_TARGET_FILE again (after it was renamed). Any thread. */
void log_reopen(void);

/* Writes what is queued, bounded to about a second (two where the target blocks inside a call), and
 * ends the thread. After this lines go to stderr at once again. */
void log_close(void);

bool log_enabled(enum log_level);
void log_put(enum log_level, const char *event, const struct log_field *fields);

/* Whatever the level of the settings is: what has to be written down. */
void log_put_always(enum log_level, const char *event, const struct log_field *fields);

/* At most one line of a site in `every`; the next one carries suppressed=N. */
struct log_site {
	_Atomic(usec_t) next;
	_Atomic(uint64_t) suppressed;
};
void log_put_every(struct log_site *, usec_t every, enum log_level, const char *event,
	const struct log_field *fields);

/* At least one field: an event without any says nothing that its name does not. */
#define LOG_FIELDS(...) ((const struct log_field[]){ __VA_ARGS__, { 0 } })

#define log_debug(event, ...)   log_put(LOG_LEVEL_DEBUG, event, LOG_FIELDS(__VA_ARGS__))
#define log_info(event, ...)    log_put(LOG_LEVEL_INFO, event, LOG_FIELDS(__VA_ARGS__))
#define log_warning(event, ...) log_put(LOG_LEVEL_WARNING, event, LOG_FIELDS(__VA_ARGS__))
#define log_error(event, ...)   log_put(LOG_LEVEL_ERROR, event, LOG_FIELDS(__VA_ARGS__))

#define log_warning_every(every, event, ...) \
	do { \
		static struct log_site site_; \
		log_put_every(&site_, every, LOG_LEVEL_WARNING, event, LOG_FIELDS(__VA_ARGS__)); \
	} while (0)

#endif
