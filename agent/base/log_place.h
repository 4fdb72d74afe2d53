/* Where lines of the log go: stderr, a file, syslog or the journal. Not safe for threads: one at a
 * time has a place. */
#ifndef BASE_LOG_PLACE_H
#define BASE_LOG_PLACE_H

#include "base/log_line.h"

struct log_place {
	enum log_target kind;
	int fd;    /* -1: the journal's library has its own, or syslog is away just now */
	int error; /* errno of the last write, 0 if it did not fail */
	bool is_socket;
	bool is_journal; /* stderr, and systemd reads it for the journal */
	bool torn; /* a file's last line was written in part: the next one begins on a new line */
	char path[256];
};

/* 0, or -1: `err` says why. */
int log_place_open(
	struct log_place *, const struct log_settings *settings, char *err, size_t err_size);
void log_place_close(struct log_place *);

/* A file once more under its name, as after a rotation; other places stay as they are. false: it
 * cannot be opened, errno says why, and the old one stays. */
bool log_place_reopen(struct log_place *);

/* What a line of stderr begins with where systemd reads it for the journal ($JOURNAL_STREAM,
 * systemd.exec(5)): its priority, "<4>" (sd-daemon(3)), so that `journalctl -p` finds it; it is not
 * shown. Elsewhere "". */
const char *log_place_priority(enum log_level);

enum log_write { LOG_WRITE_DONE, LOG_WRITE_FAILED, LOG_WRITE_INTERRUPTED };

/* One record (log_line.h). While the place takes nothing, `waits` is asked ten times a second
 * whether to wait on; its false ends it, interrupted. */
enum log_write log_place_write(struct log_place *, const char *record, bool (*waits)(void));

/* To stderr, where there is no place yet or any more. One that stays full loses the line: a program
 * that is about to end must not hang on its last words. */
void log_place_write_stderr(const char *record);

#endif
