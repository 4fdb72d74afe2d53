/* Formats on the caller's thread, writes on its own. Between them are two buffers: callers fill
 * one under a lock that is held for a copy, the writer empties the other without it. */
#include "base/log.h"

#include "base/log_place.h"
#include "base/log_tap.h"
#include "base/thread.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { QUEUE_BYTES = 256 * 1024 };

#define CLOSE_WITHIN   USEC_PER_SEC
#define COMPLAIN_EVERY (10 * USEC_PER_SEC)
#define NO_MARK        SIZE_MAX

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
	uint64_t lost;         /* records that had no room in `fill` */
	struct log_place next; /* of log_change() */
	size_t change_at;      /* where in `fill` it holds from; NO_MARK: no change */
	size_t reopen_at;      /* of log_reopen() */
} shared = { .lock = PTHREAD_MUTEX_INITIALIZER, .change_at = NO_MARK, .reopen_at = NO_MARK };

/* The writer's own, while there is one. */
static struct {
	struct log_place target;
	char *batch;      /* the other buffer */
	size_t change_at; /* where in it `next` holds from; NO_MARK: no change */
	size_t reopen_at;
	struct log_place next;
	uint64_t lost;         /* not yet told */
	uint64_t failed;       /* in a row; told on stderr */
	usec_t complain_after; /* steady */
} writer;

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
	log_place_write_stderr(bytes);
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
	complain("log_write_failed", strerror(writer.target.error), writer.failed);
	writer.failed = 0;
}

static void reopen(void)
{
	/* The old file is better than none. */
	if (!log_place_reopen(&writer.target))
		complain("log_reopen_failed", strerror(errno), 0);
}

static void change(void)
{
	log_place_close(&writer.target);
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
			log_place_close(&writer.next);
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

/* While a place takes nothing: not when there is a new one, or the time to close is over. */
static bool waits(void)
{
	(void)pthread_mutex_lock(&shared.lock);
	bool on = shared.change_at == NO_MARK && writer.change_at == NO_MARK &&
		  !(shared.stop && clock_read().steady > shared.stop_by);
	(void)pthread_mutex_unlock(&shared.lock);
	return on;
}

/* false: the time to close is over. */
static bool write_or_count(const char *bytes)
{
	for (;;) {
		switch (log_place_write(&writer.target, bytes, waits)) {
		case LOG_WRITE_DONE:
			return true;
		case LOG_WRITE_FAILED:
			count_failure();
			return true;
		case LOG_WRITE_INTERRUPTED:
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
	if (log_place_write(&writer.target, bytes, waits) == LOG_WRITE_DONE)
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

static void free_all(void)
{
	free(shared.fill);
	free(writer.batch);
	shared.fill = NULL;
	writer.batch = NULL;
	log_place_close(&writer.target);
	(void)pthread_cond_destroy(&shared.work);
	(void)pthread_cond_destroy(&shared.ended);
}

/* After it has finished: this waits no longer than it takes to return. */
static void end_thread(void)
{
	(void)pthread_join(shared.thread, NULL);
	if (writer.lost)
		complain("log_lost",
			writer.target.error ? strerror(writer.target.error) : "not written in time",
			writer.lost);
	if (shared.change_at != NO_MARK)
		log_place_close(&shared.next);
	shared.change_at = NO_MARK;
	free_all();
}

int log_open(const struct log_settings *settings, char *err, size_t err_size)
{
	pthread_condattr_t attr;
	struct log_place target;

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
	if (log_place_open(&target, settings, err, err_size) != 0)
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
	int rc = shared.fill && writer.batch
			 ? thread_start(&shared.thread, "log", writer_main, NULL)
			 : ENOMEM;
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
	struct log_place next;

	if (!is_running())
		return log_open(settings, err, err_size);
	if (log_place_open(&next, settings, err, err_size) != 0)
		return -1;
	(void)pthread_mutex_lock(&shared.lock);
	if (shared.change_at != NO_MARK)
		log_place_close(&shared.next); /* the writer never came to it */
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
		log_place_write_stderr(bytes);
}

static void say(enum log_level level, const char *event, const struct log_field *fields,
	uint64_t suppressed, bool tapped)
{
	if (log_enabled(level))
		put_line(level, event, fields, suppressed);
	if (tapped)
		log_tap_put(level, event, fields, suppressed);
}

void log_put_always(enum log_level level, const char *event, const struct log_field *fields)
{
	put_line(level, event, fields, 0);
	if (log_tap_is_wanted(level, event))
		log_tap_put(level, event, fields, 0);
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
