/* Formats on the caller's thread, writes on its own. Between them are two buffers: callers fill
 * one under a lock that is held for a copy, the writer empties the other without it. */
#include "base/log.h"

#include "base/log_line.h"
#include "base/log_tap.h"

#define SD_JOURNAL_SUPPRESS_LOCATION /* it would name this file, for every line */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <syslog.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

enum {
	QUEUE_BYTES = 256 * 1024,
	BLOCKED_POLL_MS = 100, /* how soon a writer that waits for its target sees a change */
};

#define CLOSE_WITHIN   USEC_PER_SEC
#define COMPLAIN_EVERY (10 * USEC_PER_SEC)
#define NO_MARK        SIZE_MAX
#define SYSLOG_SOCKET  "/dev/log"
#define JOURNAL_SOCKET "/run/systemd/journal/socket"

static const int level_priority[] = { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERR };

/* What callers look at without the lock. */
static _Atomic(int) now_level = LOG_LEVEL_INFO;
static _Atomic(int) now_format = LOG_FORMAT_TEXT;
static _Atomic(int) now_target = LOG_TARGET_STDERR;

static size_t format_record(char out[LOG_RECORD_BYTES], enum log_level level, const char *event,
	const struct log_field *fields, uint64_t suppressed)
{
	int format = atomic_load_explicit(&now_format, memory_order_relaxed);
	int target = atomic_load_explicit(&now_target, memory_order_relaxed);

	return log_line_format(out, (enum log_format)format, target == LOG_TARGET_JOURNAL,
		clock_read().utc, level, event, fields, suppressed);
}

/* ---- where lines go ------------------------------------------------------------------------ */

struct target {
	enum log_target kind;
	int fd; /* -1: the journal's library has its own, or syslog is away just now */
	bool is_socket;
	bool torn; /* a file's last line was written in part: the next one begins on a new line */
	char path[256];
};

enum write_rc { WRITE_DONE, WRITE_FAILED, WRITE_INTERRUPTED };

/* Shared by callers, the control thread and the writer, under the lock. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t work;  /* for the writer */
	pthread_cond_t ended; /* for log_close() */
	pthread_t thread;
	bool running; /* between log_open() and log_close() */
	bool stop, finished;
	bool left;      /* log_close() did not wait for the thread any longer */
	usec_t stop_by; /* steady */
	char *fill;     /* QUEUE_BYTES; callers add records at fill_n */
	size_t fill_n;
	uint64_t lost;      /* records that had no room in `fill` */
	struct target next; /* of log_change() */
	size_t change_at;   /* where in `fill` it holds from; NO_MARK: no change */
	size_t reopen_at;   /* of log_reopen() */
} shared = { .lock = PTHREAD_MUTEX_INITIALIZER, .change_at = NO_MARK, .reopen_at = NO_MARK };

/* The writer's own, while there is one. */
static struct {
	struct target target;
	char *batch;      /* the other buffer */
	size_t change_at; /* where in it `next` holds from; NO_MARK: no change */
	size_t reopen_at;
	struct target next;
	uint64_t lost;         /* not yet told */
	uint64_t failed;       /* in a row; told on stderr */
	usec_t complain_after; /* steady */
	int error;             /* errno of the last failure */
} writer;

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

static void target_close(struct target *t)
{
	if (t->fd >= 0 && t->fd != STDERR_FILENO)
		(void)close(t->fd);
	t->fd = -1;
}

static int target_open(
	struct target *t, const struct log_settings *settings, char *err, size_t err_size)
{
	const char *path = settings->path;

	*t = (struct target){ .kind = settings->target, .fd = -1 };
	switch (settings->target) {
	case LOG_TARGET_STDERR:
		t->fd = STDERR_FILENO;
		t->is_socket = is_socket(t->fd);
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
		(void)snprintf(err, err_size, "log.target \"%s\": cannot open it: %s", path,
			strerror(errno));
		return -1;
	}
	(void)snprintf(t->path, sizeof t->path, "%s", path);
	return 0;
}

/* false: stop waiting, there is a new target or the time to close is over. */
static bool wait_writable(int fd)
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		if (poll(&p, 1, BLOCKED_POLL_MS) != 0)
			return true; /* or an error, which the write will name */
		(void)pthread_mutex_lock(&shared.lock);
		bool go = shared.change_at == NO_MARK && writer.change_at == NO_MARK &&
			  !(shared.stop && clock_read().steady > shared.stop_by);
		(void)pthread_mutex_unlock(&shared.lock);
		if (!go)
			return false;
	}
}

/* All of it or an error. Stderr may be shared with other processes, so it is not made
 * non-blocking: after poll() a pipe takes a line without blocking, as that is one page at most. */
static enum write_rc write_all(struct target *t, const char *p, size_t n)
{
	size_t all = n;

	while (n) {
		if (!wait_writable(t->fd))
			break;
		ssize_t done = t->is_socket ? send(t->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL)
					    : write(t->fd, p, n);
		if (done >= 0) {
			p += done;
			n -= (size_t)done;
		} else if (errno == EAGAIN) {
			(void)poll(NULL, 0, 1); /* writable and yet not: no busy loop */
		} else if (errno != EINTR) {
			writer.error = errno;
			break;
		}
	}
	if (n == 0) {
		t->torn = false;
		return WRITE_DONE;
	}
	t->torn = t->torn || n < all;
	return n < all || writer.error ? WRITE_FAILED : WRITE_INTERRUPTED;
}

static enum write_rc write_syslog(struct target *t, const struct log_record *r, const char *line)
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
			writer.error = errno;
			continue;
		}
		writer.error = 0;
		enum write_rc rc = write_all(t, datagram, (size_t)n);
		if (rc != WRITE_FAILED || writer.error == EMSGSIZE)
			return rc;
		target_close(t);
	}
	return WRITE_FAILED;
}

static enum write_rc write_journal(const struct log_record *r, const char *line)
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
		return WRITE_DONE;
	writer.error = -rc;
	return WRITE_FAILED;
}

static enum write_rc write_record(struct target *t, const char *bytes)
{
	const char *line = bytes + sizeof(struct log_record);
	struct log_record r;

	memcpy(&r, bytes, sizeof r);
	writer.error = 0;
	switch (t->kind) {
	case LOG_TARGET_STDERR:
	case LOG_TARGET_FILE:
		if (t->torn) {
			enum write_rc rc = write_all(t, "\n", 1);
			if (rc != WRITE_DONE)
				return rc;
		}
		return write_all(t, line, r.line_n);
	case LOG_TARGET_SYSLOG:
		return write_syslog(t, &r, line);
	case LOG_TARGET_JOURNAL:
		return write_journal(&r, line);
	}
	return WRITE_FAILED;
}

/* Lines that have no writer: before log_open(), after log_close(). A stderr that stays full loses
 * them: a program that is about to end must not hang on its last words. */
static void write_direct(const char *bytes)
{
	const char *p = bytes + sizeof(struct log_record);
	struct pollfd full = { .fd = STDERR_FILENO, .events = POLLOUT };
	struct log_record r;

	memcpy(&r, bytes, sizeof r);
	for (size_t n = r.line_n; n;) {
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

/* To stderr about a target that is not stderr, where it takes a line at once. */
static void complain(const char *event, const char *why, uint64_t lines)
{
	char bytes[LOG_RECORD_BYTES];
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };

	if (writer.target.kind == LOG_TARGET_STDERR || poll(&p, 1, 0) != 1)
		return;
	(void)format_record(bytes, LOG_LEVEL_ERROR, event,
		LOG_FIELDS(KV_Z("path", writer.target.path), KV_Z("error", why),
			KV_INT("lines", lines)),
		0);
	write_direct(bytes);
}

/* ---- the writing thread -------------------------------------------------------------------- */

static void count_failure(void)
{
	usec_t now = clock_read().steady;

	writer.lost++;
	writer.failed++;
	if (now < writer.complain_after)
		return;
	writer.complain_after = now + COMPLAIN_EVERY;
	complain("log_write_failed", strerror(writer.error), writer.failed);
	writer.failed = 0;
}

static void reopen(void)
{
	struct target *t = &writer.target;

	if (t->kind != LOG_TARGET_FILE)
		return;
	int fd = open_file(t->path);
	if (fd < 0) {
		/* The old file is better than none. */
		complain("log_reopen_failed", strerror(errno), 0);
		return;
	}
	target_close(t);
	t->fd = fd;
	t->torn = false;
}

static void change(void)
{
	target_close(&writer.target);
	writer.target = writer.next;
	writer.change_at = NO_MARK;
	writer.complain_after = 0;
	writer.failed = 0;
}

/* The old target blocks: is there a new one? Then lines of before the change go there, too. */
static bool change_early(void)
{
	(void)pthread_mutex_lock(&shared.lock);
	if (shared.change_at != NO_MARK) {
		if (writer.change_at != NO_MARK)
			target_close(&writer.next);
		writer.next = shared.next;
		writer.change_at = 0;
		shared.change_at = NO_MARK;
	}
	(void)pthread_mutex_unlock(&shared.lock);
	if (writer.change_at == NO_MARK)
		return false;
	change();
	return true;
}

/* false: the time to close is over. */
static bool write_or_count(const char *bytes)
{
	for (;;) {
		switch (write_record(&writer.target, bytes)) {
		case WRITE_DONE:
			return true;
		case WRITE_FAILED:
			count_failure();
			return true;
		case WRITE_INTERRUPTED:
			if (!change_early()) {
				writer.lost++;
				return false;
			}
		}
	}
}

static void tell_lost(void)
{
	char bytes[LOG_RECORD_BYTES];

	if (writer.lost == 0)
		return;
	(void)format_record(
		bytes, LOG_LEVEL_WARNING, "log_lost", LOG_FIELDS(KV_INT("lines", writer.lost)), 0);
	if (write_record(&writer.target, bytes) == WRITE_DONE)
		writer.lost = 0;
}

/* With the lock held: what callers filled is the writer's now, and they get the empty one. */
static size_t take_batch(void)
{
	char *filled = shared.fill;
	size_t n = shared.fill_n;

	shared.fill = writer.batch;
	writer.batch = filled;
	writer.next = shared.next;
	writer.change_at = shared.change_at;
	writer.reopen_at = shared.reopen_at;
	writer.lost += shared.lost;
	shared.fill_n = 0;
	shared.lost = 0;
	shared.change_at = NO_MARK;
	shared.reopen_at = NO_MARK;
	return n;
}

/* false: the time to close is over; what is left is counted as lost. */
static bool write_batch(size_t n)
{
	bool go = true;

	for (size_t at = 0;;) {
		struct log_record r;

		if (at >= writer.change_at)
			change();
		if (at >= writer.reopen_at) {
			reopen();
			writer.reopen_at = NO_MARK;
		}
		if (at == n)
			return go;
		memcpy(&r, writer.batch + at, sizeof r);
		if (go)
			go = write_or_count(writer.batch + at);
		else
			writer.lost++;
		at += r.size;
	}
}

static void *writer_main(void *unused)
{
	bool go = true;

	(void)unused;
	(void)pthread_setname_np(pthread_self(), "log");
	(void)pthread_mutex_lock(&shared.lock);
	while (go) {
		while (!shared.stop && shared.fill_n == 0 && shared.change_at == NO_MARK &&
			shared.reopen_at == NO_MARK)
			(void)pthread_cond_wait(&shared.work, &shared.lock);
		bool last = shared.stop;
		size_t n = take_batch();
		(void)pthread_mutex_unlock(&shared.lock);

		go = write_batch(n);
		if (go)
			tell_lost();
		go = go && !last;
		(void)pthread_mutex_lock(&shared.lock);
	}
	shared.finished = true;
	(void)pthread_cond_signal(&shared.ended);
	(void)pthread_mutex_unlock(&shared.lock);
	return NULL;
}

/* ---- what others call ---------------------------------------------------------------------- */

static void keep_settings(const struct log_settings *s)
{
	atomic_store_explicit(&now_level, (int)s->level, memory_order_relaxed);
	atomic_store_explicit(&now_format, (int)s->format, memory_order_relaxed);
	atomic_store_explicit(&now_target, (int)s->target, memory_order_relaxed);
}

static bool is_running(void)
{
	(void)pthread_mutex_lock(&shared.lock);
	bool running = shared.running;
	(void)pthread_mutex_unlock(&shared.lock);
	return running;
}

/* Signals are the control thread's; SIGPIPE, blocked too, becomes an error of write(). */
static int start_thread(void)
{
	sigset_t all, before;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	int rc = pthread_create(&shared.thread, NULL, writer_main, NULL);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

static void free_all(void)
{
	free(shared.fill);
	free(writer.batch);
	shared.fill = NULL;
	writer.batch = NULL;
	target_close(&writer.target);
	(void)pthread_cond_destroy(&shared.work);
	(void)pthread_cond_destroy(&shared.ended);
}

/* After it has finished: this waits no longer than it takes to return. */
static void end_thread(void)
{
	(void)pthread_join(shared.thread, NULL);
	if (writer.lost)
		complain("log_lost", writer.error ? strerror(writer.error) : "not written in time",
			writer.lost);
	if (shared.change_at != NO_MARK)
		target_close(&shared.next);
	shared.change_at = NO_MARK;
	free_all();
}

int log_open(const struct log_settings *settings, char *err, size_t err_size)
{
	pthread_condattr_t attr;
	struct target target;

	if (is_running())
		return log_change(settings, err, err_size);
	if (shared.left) {
		(void)pthread_mutex_lock(&shared.lock);
		bool finished = shared.finished;
		(void)pthread_mutex_unlock(&shared.lock);
		if (!finished) {
			(void)snprintf(err, err_size, "log: what was logged before still blocks");
			return -1;
		}
		end_thread();
		shared.left = false;
	}
	if (target_open(&target, settings, err, err_size) != 0)
		return -1;

	memset(&writer, 0, sizeof writer);
	writer.target = target;
	writer.change_at = writer.reopen_at = NO_MARK;
	writer.batch = malloc(QUEUE_BYTES);
	shared.fill = malloc(QUEUE_BYTES);
	shared.fill_n = 0;
	shared.lost = 0;
	shared.stop = shared.finished = false;
	shared.change_at = shared.reopen_at = NO_MARK;
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&shared.work, &attr);
	(void)pthread_cond_init(&shared.ended, &attr);
	(void)pthread_condattr_destroy(&attr);
	int rc = shared.fill && writer.batch ? start_thread() : ENOMEM;
	if (rc != 0) {
		(void)snprintf(err, err_size, "log: cannot start its thread: %s", strerror(rc));
		free_all();
		return -1;
	}
	keep_settings(settings);
	(void)pthread_mutex_lock(&shared.lock);
	shared.running = true; /* from here on callers queue */
	(void)pthread_mutex_unlock(&shared.lock);
	return 0;
}

int log_change(const struct log_settings *settings, char *err, size_t err_size)
{
	struct target next;

	if (!is_running())
		return log_open(settings, err, err_size);
	if (target_open(&next, settings, err, err_size) != 0)
		return -1;
	(void)pthread_mutex_lock(&shared.lock);
	if (shared.change_at != NO_MARK)
		target_close(&shared.next); /* the writer never came to it */
	shared.next = next;
	shared.change_at = shared.fill_n;
	keep_settings(settings);
	(void)pthread_cond_signal(&shared.work);
	(void)pthread_mutex_unlock(&shared.lock);
	return 0;
}

void log_reopen(void)
{
	(void)pthread_mutex_lock(&shared.lock);
	if (shared.running) {
		shared.reopen_at = shared.fill_n;
		(void)pthread_cond_signal(&shared.work);
	}
	(void)pthread_mutex_unlock(&shared.lock);
}

void log_close(void)
{
	(void)pthread_mutex_lock(&shared.lock);
	if (!shared.running) {
		(void)pthread_mutex_unlock(&shared.lock);
		return;
	}
	shared.running = false; /* who logs from here on writes to stderr */
	shared.stop = true;
	shared.stop_by = clock_read().steady + CLOSE_WITHIN;
	(void)pthread_cond_signal(&shared.work);

	struct timespec by;
	(void)clock_gettime(CLOCK_MONOTONIC, &by);
	by.tv_sec += 2 * (CLOSE_WITHIN / USEC_PER_SEC);
	int rc = 0;
	while (!shared.finished && rc == 0)
		rc = pthread_cond_timedwait(&shared.ended, &shared.lock, &by);
	bool finished = shared.finished;
	(void)pthread_mutex_unlock(&shared.lock);
	if (!finished) {
		/* The target blocks inside a call, though poll() said that it would not. The thread
		 * and what it uses are left alone; the program is about to end. */
		shared.left = true;
		return;
	}
	end_thread();
}

bool log_enabled(enum log_level level)
{
	return (int)level >= atomic_load_explicit(&now_level, memory_order_relaxed);
}

static void put_line(enum log_level level, const char *event, const struct log_field *fields,
	uint64_t suppressed)
{
	char bytes[LOG_RECORD_BYTES];
	size_t n = format_record(bytes, level, event, fields, suppressed);

	(void)pthread_mutex_lock(&shared.lock);
	bool direct = !shared.running;
	if (!direct && n > QUEUE_BYTES - shared.fill_n) {
		shared.lost++;
	} else if (!direct) {
		/* The writer waits only while there is nothing. */
		if (shared.fill_n == 0)
			(void)pthread_cond_signal(&shared.work);
		memcpy(shared.fill + shared.fill_n, bytes, n);
		shared.fill_n += n;
	}
	(void)pthread_mutex_unlock(&shared.lock);
	if (direct)
		write_direct(bytes);
}

static void say(enum log_level level, const char *event, const struct log_field *fields,
	uint64_t suppressed, bool tapped)
{
	if (log_enabled(level))
		put_line(level, event, fields, suppressed);
	if (tapped)
		log_tap_put(level, event, fields, suppressed);
}

void log_put(enum log_level level, const char *event, const struct log_field *fields)
{
	say(level, event, fields, 0, log_tap_is_wanted(level, event));
}

void log_put_every(struct log_site *site, usec_t every, enum log_level level, const char *event,
	const struct log_field *fields)
{
	bool tapped = log_tap_is_wanted(level, event);
	if (!log_enabled(level) && !tapped)
		return;
	usec_t now = clock_read().steady;
	usec_t next = atomic_load_explicit(&site->next, memory_order_relaxed);
	if (now < next || !atomic_compare_exchange_strong_explicit(&site->next, &next, now + every,
				  memory_order_relaxed, memory_order_relaxed)) {
		(void)atomic_fetch_add_explicit(&site->suppressed, 1, memory_order_relaxed);
		return;
	}
	say(level, event, fields,
		atomic_exchange_explicit(&site->suppressed, 0, memory_order_relaxed), tapped);
}
