/* One line of the log as bytes: what log.c queues, formatted. Pure: no clock, no target. */
#ifndef BASE_LOG_LINE_H
#define BASE_LOG_LINE_H

#include "base/log.h"

/* A queued line: this, its bytes with the newline, then for the journal each field as a length of
 * two bytes and NAME=value. Not aligned: copied out and in. */
struct log_record {
	uint32_t size;     /* of all of it */
	uint16_t prefix_n; /* time and level, which syslog and the journal have of their own */
	uint16_t line_n;
	uint8_t level;
	uint8_t fields;
};

enum {
	LOG_LINE_BYTES = 4096,    /* no more than PIPE_BUF: one write, one whole line */
	LOG_JOURNAL_BYTES = 4096, /* fields for the journal, beside the line */
	LOG_JOURNAL_FIELDS = 32,
	LOG_RECORD_BYTES = sizeof(struct log_record) + LOG_LINE_BYTES + LOG_JOURNAL_BYTES,
};

const char *log_level_name(enum log_level);

/* Builds the whole record in `out` and returns its size. `suppressed` > 0 is a field of its own;
 * the journal's fields are there only where `journal` asks for them. */
size_t log_line_format(char out[LOG_RECORD_BYTES], enum log_format, bool journal, usec_t utc,
	enum log_level, const char *event, const struct log_field *, uint64_t suppressed);

#endif
