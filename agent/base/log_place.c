#include "base/log_place.h"

#define SD_JOURNAL_SUPPRESS_LOCATION /* it would name this file, for every line */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <syslog.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

enum { BLOCKED_POLL_MS = 100 }; /* how soon a writer that waits for its place sees a change */

#define SYSLOG_SOCKET  "/dev/log"
#define JOURNAL_SOCKET "/run/systemd/journal/socket"

static const int level_priority[] = { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERR };

static int connect_socket(const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t n = strlen(path);

	if (n >= sizeof to.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(to.sun_path, path, n + 1);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
		int error = errno;
		(void)close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

/* O_NONBLOCK: a FIFO that nobody reads is an error here, not a thread that hangs. */
static int open_file(const char *path)
{
	return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
}

static bool is_socket(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	struct stat st;
	char here[48];

	if (!stream || fstat(STDERR_FILENO, &st) != 0)
		return false;
	(void)snprintf(here, sizeof here, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	return strcmp(stream, here) == 0;
}

static const char *priority_text(enum log_level level)
{
	static const char *const text[] = { "<7>", "<6>", "<4>", "<3>" };
	return text[level];
}

const char *log_place_priority(enum log_level level)
{
	return stderr_is_journal() ? priority_text(level) : "";
}

void log_place_close(struct log_place *t)
{
	if (t->fd >= 0 && t->fd != STDERR_FILENO)
		(void)close(t->fd);
	t->fd = -1;
}

int log_place_open(
	struct log_place *t, const struct log_settings *settings, char *err, size_t err_size)
{
	const char *path = settings->path;

	*t = (struct log_place){ .kind = settings->target, .fd = -1 };
	switch (settings->target) {
	case LOG_TARGET_STDERR:
		t->fd = STDERR_FILENO;
		t->is_socket = is_socket(t->fd);
		t->is_journal = stderr_is_journal();
		return 0;
	case LOG_TARGET_SYSLOG:
		path = *path ? path : SYSLOG_SOCKET;
		t->fd = connect_socket(path);
		t->is_socket = true;
		if (t->fd >= 0)
			break;
		(void)snprintf(err, err_size,
			"log.target \"syslog\": cannot connect to %s: %s; is a "
			"syslog daemon running?",
			path, strerror(errno));
		return -1;
	case LOG_TARGET_JOURNAL:
		/* The library says nothing when nobody listens. */
		path = *path ? path : JOURNAL_SOCKET;
		if (access(path, W_OK) == 0)
			break;
		(void)snprintf(err, err_size,
			"log.target \"journal\": cannot write to %s: %s; is "
			"systemd-journald running?",
			path, strerror(errno));
		return -1;
	case LOG_TARGET_FILE:
		t->fd = open_file(path);
		t->is_socket = false;
		if (t->fd >= 0)
			break;
		(void)snprintf(err, err_size,
			"log.target \"%s\": cannot open it: %s; its folder must be there, and the "
			"file the agent's to write",
			path, strerror(errno));
		return -1;
	}
	(void)snprintf(t->path, sizeof t->path, "%s", path);
	return 0;
}

bool log_place_reopen(struct log_place *t)
{
	if (t->kind != LOG_TARGET_FILE)
		return true;
	int fd = open_file(t->path);
	if (fd < 0)
		return false;
	log_place_close(t);
	t->fd = fd;
	t->torn = false;
	return true;
}

/* false: stop waiting. */
static bool wait_writable(int fd, bool (*waits)(void))
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		if (poll(&p, 1, BLOCKED_POLL_MS) != 0)
			return true; /* or an error, which the write will name */
		if (!waits())
			return false;
	}
}

/* All of it or an error. Stderr may be shared with other processes, so it is not made
 * non-blocking: after poll() a pipe takes a line without blocking, as that is one page at most. */
static enum log_write write_all(struct log_place *t, const char *p, size_t n, bool (*waits)(void))
{
	size_t all = n;

	while (n) {
		if (!wait_writable(t->fd, waits))
			break;
		ssize_t done = t->is_socket ? send(t->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL)
					    : write(t->fd, p, n);
		if (done >= 0) {
			p += done;
			n -= (size_t)done;
		} else if (errno == EAGAIN) {
			(void)poll(NULL, 0, 1); /* writable and yet not: no busy loop */
		} else if (errno != EINTR) {
			t->error = errno;
			break;
		}
	}
	if (n == 0) {
		t->torn = false;
		return LOG_WRITE_DONE;
	}
	t->torn = t->torn || n < all;
	return n < all || t->error ? LOG_WRITE_FAILED : LOG_WRITE_INTERRUPTED;
}

static enum log_write write_line(
	struct log_place *t, const struct log_record *r, const char *line, bool (*waits)(void))
{
	char with_priority[LOG_LINE_BYTES + 4];

	if (t->torn) {
		enum log_write rc = write_all(t, "\n", 1, waits);
		if (rc != LOG_WRITE_DONE)
			return rc;
	}
	if (!t->is_journal)
		return write_all(t, line, r->line_n, waits);
	int n = snprintf(with_priority, sizeof with_priority, "%s%.*s", priority_text(r->level),
		(int)r->line_n, line);
	return write_all(t, with_priority, (size_t)n, waits);
}

static enum log_write write_syslog(
	struct log_place *t, const struct log_record *r, const char *line, bool (*waits)(void))
{
	char datagram[LOG_LINE_BYTES + 128], stamp[32];
	time_t sec = (time_t)(clock_read().utc / USEC_PER_SEC);
	struct tm tm;

	/* RFC 3164, as libc's syslog() writes it: local time, and C names of the months. */
	if (!localtime_r(&sec, &tm) || !strftime(stamp, sizeof stamp, "%h %e %T", &tm))
		stamp[0] = '\0';
	int n = snprintf(datagram, sizeof datagram, "<%d>%s spoa-ratelimit[%ld]: %.*s",
		LOG_DAEMON | level_priority[r->level], stamp, (long)getpid(),
		(int)(r->line_n - r->prefix_n - 1), line + r->prefix_n);

	/* A syslog daemon that was started again has a new socket: connect once more. */
	for (int attempt = 0; attempt < 2; attempt++) {
		if (t->fd < 0)
			t->fd = connect_socket(t->path);
		if (t->fd < 0) {
			t->error = errno;
			continue;
		}
		t->error = 0;
		enum log_write rc = write_all(t, datagram, (size_t)n, waits);
		if (rc != LOG_WRITE_FAILED || t->error == EMSGSIZE)
			return rc;
		log_place_close(t);
	}
	return LOG_WRITE_FAILED;
}

static enum log_write write_journal(
	struct log_place *t, const struct log_record *r, const char *line)
{
	char message[LOG_LINE_BYTES + 16], priority[16];
	struct iovec iov[LOG_JOURNAL_FIELDS + 2];
	const char *p = line + r->line_n;
	int n = 0;

	int length = snprintf(message, sizeof message, "MESSAGE=%.*s",
		(int)(r->line_n - r->prefix_n - 1), line + r->prefix_n);
	iov[n++] = (struct iovec){ message, (size_t)length };
	length = snprintf(priority, sizeof priority, "PRIORITY=%d", level_priority[r->level]);
	iov[n++] = (struct iovec){ priority, (size_t)length };
	for (unsigned i = 0; i < r->fields; i++) {
		uint16_t size;

		memcpy(&size, p, sizeof size);
		p += sizeof size;
		/* The library takes what it does not change as not const. */
		iov[n++] = (struct iovec){ (void *)(uintptr_t)p, size };
		p += size;
	}
	int rc = sd_journal_sendv(iov, n);
	if (rc >= 0)
		return LOG_WRITE_DONE;
	t->error = -rc;
	return LOG_WRITE_FAILED;
}

enum log_write log_place_write(struct log_place *t, const char *record, bool (*waits)(void))
{
	const char *line = record + sizeof(struct log_record);
	struct log_record r;

	memcpy(&r, record, sizeof r);
	t->error = 0;
	switch (t->kind) {
	case LOG_TARGET_STDERR:
	case LOG_TARGET_FILE:
		return write_line(t, &r, line, waits);
	case LOG_TARGET_SYSLOG:
		return write_syslog(t, &r, line, waits);
	case LOG_TARGET_JOURNAL:
		return write_journal(t, &r, line);
	}
	return LOG_WRITE_FAILED;
}

void log_place_write_stderr(const char *record)
{
	struct pollfd full = { .fd = STDERR_FILENO, .events = POLLOUT };
	char line[LOG_LINE_BYTES + 4];
	const char *p = line;
	struct log_record r;

	memcpy(&r, record, sizeof r);
	int length = snprintf(line, sizeof line, "%s%.*s", log_place_priority(r.level),
		(int)r.line_n, record + sizeof r);
	for (size_t n = (size_t)length; n;) {
		if (poll(&full, 1, BLOCKED_POLL_MS) == 0)
			return;
		ssize_t done = write(STDERR_FILENO, p, n);
		if (done < 0 && errno != EINTR)
			return; /* nowhere left to say so */
		if (done > 0) {
			p += done;
			n -= (size_t)done;
		}
	}
}
