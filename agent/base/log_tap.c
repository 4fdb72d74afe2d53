#include "base/log_tap.h"

#include "base/log_line.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static log_tap_wants *_Atomic wants;

static struct {
	pthread_mutex_t lock;
	char bytes[LOG_TAP_BYTES];
	size_t n;
	uint64_t lost;
} tap = { .lock = PTHREAD_MUTEX_INITIALIZER };

void log_tap(log_tap_wants *new_wants)
{
	(void)pthread_mutex_lock(&tap.lock);
	tap.n = 0;
	tap.lost = 0;
	atomic_store(&wants, new_wants);
	(void)pthread_mutex_unlock(&tap.lock);
}

bool log_tap_is_wanted(enum log_level level, const char *event)
{
	log_tap_wants *asked = atomic_load_explicit(&wants, memory_order_relaxed);
	return asked && asked(level, event);
}

void log_tap_put(enum log_level level, const char *event, const struct log_field *fields,
	uint64_t suppressed)
{
	char record[LOG_RECORD_BYTES], head[64];
	usec_t utc = clock_read().utc;
	struct log_record r;

	(void)log_line_format(
		record, LOG_FORMAT_JSON, false, utc, level, event, fields, suppressed);
	memcpy(&r, record, sizeof r);
	/* {"time":"…", is first, and has no other comma. */
	const char *line = record + sizeof r, *rest = memchr(line, ',', r.line_n);
	if (!rest)
		return;
	size_t rest_n = r.line_n - (size_t)(rest - line);
	size_t head_n = (size_t)snprintf(head, sizeof head, "{\"time\":%" PRId64 ".%03d",
		utc / USEC_PER_SEC, (int)(utc / USEC_PER_MSEC % 1000));
	(void)pthread_mutex_lock(&tap.lock);
	if (head_n + rest_n > sizeof tap.bytes - tap.n) {
		tap.lost++;
	} else {
		memcpy(tap.bytes + tap.n, head, head_n);
		memcpy(tap.bytes + tap.n + head_n, rest, rest_n);
		tap.n += head_n + rest_n;
	}
	(void)pthread_mutex_unlock(&tap.lock);
}

size_t log_tap_take(char *out, uint64_t *lost)
{
	(void)pthread_mutex_lock(&tap.lock);
	size_t n = tap.n;
	memcpy(out, tap.bytes, n);
	*lost = tap.lost;
	tap.n = 0;
	tap.lost = 0;
	(void)pthread_mutex_unlock(&tap.lock);
	return n;
}
