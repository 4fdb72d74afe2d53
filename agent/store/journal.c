#include "store/journal.h"

#include "base/err.h"
#include "store/disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* header { record name text }*, in the machine's own byte order (`order` says which). A record's
 * sum is over the sum before it, its lengths, its name and its text; the first one follows the
 * header's, which is over the header. So what is left on the disk of an older file, and what was
 * written in another order, is never taken for a record. */
struct header {
	char magic[8];
	uint32_t order, version;
	uint8_t counters[16]; /* a hash of the key that counters are hashed with */
	uint8_t salt[16];     /* random */
	uint8_t sum[16];
};

struct record {
	uint32_t name_n, text_n; /* text_n NO_TEXT: the name is no more */
	uint8_t sum[16];
};

static_assert(sizeof(struct header) == 64, "no padding: these are bytes of a file");
static_assert(sizeof(struct record) == 24, "no padding: these are bytes of a file");

static const char magic[8] = { 'R', 'L', 'C', 'H', 'A', 'N', 'G', '\n' };
enum { ORDER = 0x01020304, ORDER_OTHER = 0x04030201, VERSION = 1, SUM_BYTES = 16 };
#define NO_TEXT UINT32_MAX

enum { BUFFER_BYTES = 64 << 10 };

/* A file that is being written. */
struct sink {
	int fd; /* -1: none */
	uint64_t bytes;
	int error; /* errno of what failed; 0: nothing did */
	uint8_t sum[SUM_BYTES];
	size_t n;
	uint8_t buffer[BUFFER_BYTES];
};

struct journal {
	char path[DISK_PATH_BYTES], tmp[DISK_PATH_BYTES];
	char aside[DISK_PATH_BYTES]; /* the other name of what is at `path`; "": it has none */
	uint8_t counters[16];
	struct sink file, anew;
	struct sink *to; /* where records go */
	_Atomic(uint64_t) appended, whole;
};

static void hash_counters(const struct hash_key *key, uint8_t out[16])
{
	char purpose[] = "whose counters?";
	purpose[sizeof purpose - 2] = (char)('0' + key->kind);
	(void)crypto_generichash(
		out, 16, (const uint8_t *)purpose, sizeof purpose, key->bytes, sizeof key->bytes);
}

static void sum_header(struct header *h)
{
	(void)crypto_generichash(
		h->sum, SUM_BYTES, (const uint8_t *)h, offsetof(struct header, sum), NULL, 0);
}

static void sum_record(
	struct record *r, const uint8_t before[SUM_BYTES], struct str name, struct str text)
{
	crypto_generichash_state sum;
	crypto_generichash_init(&sum, NULL, 0, SUM_BYTES);
	crypto_generichash_update(&sum, before, SUM_BYTES);
	crypto_generichash_update(&sum, (const uint8_t *)r, offsetof(struct record, sum));
	crypto_generichash_update(&sum, (const uint8_t *)name.p, name.n);
	if (text.n)
		crypto_generichash_update(&sum, (const uint8_t *)text.p, text.n);
	crypto_generichash_final(&sum, r->sum, SUM_BYTES);
}

/* ---- creation and end ---- */

static void sink_close(struct sink *s)
{
	if (s->fd >= 0)
		(void)close(s->fd);
	s->fd = -1;
}

struct journal *journal_new(const char *state_file, const struct hash_key *counters)
{
	struct journal *j = calloc(1, sizeof *j);
	if (!j)
		return NULL;
	j->file.fd = j->anew.fd = -1;
	j->file.error = EBADF; /* until it is written */
	j->to = &j->file;
	hash_counters(counters, j->counters);
	(void)snprintf(j->path, sizeof j->path, "%s.changes", state_file);
	return j;
}

void journal_free(struct journal *j)
{
	if (!j)
		return;
	sink_close(&j->file);
	sink_close(&j->anew);
	/* Each start would leave one more. (Who was renamed has no other name: it is the only one.)
	 */
	if (j->aside[0] && access(j->path, F_OK) == 0)
		(void)unlink(j->aside);
	free(j);
}

const char *journal_path(const struct journal *j)
{
	return j->path;
}

uint64_t journal_appended(const struct journal *j)
{
	return atomic_load_explicit(&j->appended, memory_order_relaxed);
}

uint64_t journal_whole(const struct journal *j)
{
	return atomic_load_explicit(&j->whole, memory_order_relaxed);
}

/* ---- writing ---- */

static void sink_flush(struct sink *s)
{
	if (!s->error && !disk_write(s->fd, s->buffer, s->n))
		s->error = errno;
	s->n = 0;
}

static void sink_put(struct sink *s, const void *p, size_t n)
{
	s->bytes += n;
	while (n && !s->error) {
		size_t part = n < BUFFER_BYTES - s->n ? n : BUFFER_BYTES - s->n;
		memcpy(s->buffer + s->n, p, part);
		s->n += part;
		p = (const char *)p + part;
		n -= part;
		if (s->n == BUFFER_BYTES)
			sink_flush(s);
	}
}

bool journal_begin(struct journal *j, char *err, size_t err_size)
{
	struct header h = { .order = ORDER, .version = VERSION };
	struct sink *s = &j->anew;

	s->fd = disk_open_beside(j->path, j->tmp);
	if (s->fd < 0)
		return err_say(err, err_size, "%s: cannot create: %s", j->tmp, strerror(errno));
	memcpy(h.magic, magic, sizeof magic);
	memcpy(h.counters, j->counters, sizeof h.counters);
	randombytes_buf(h.salt, sizeof h.salt);
	sum_header(&h);
	s->bytes = s->n = 0;
	s->error = 0;
	memcpy(s->sum, h.sum, SUM_BYTES);
	sink_put(s, &h, sizeof h);
	j->to = s;
	return true;
}

bool journal_replace(struct journal *j, char *err, size_t err_size)
{
	struct sink *s = &j->anew;

	j->to = &j->file;
	sink_flush(s);
	if (!s->error && fsync(s->fd) < 0)
		s->error = errno;
	if (!s->error && rename(j->tmp, j->path) < 0)
		s->error = errno;
	if (s->error) {
		(void)unlink(j->tmp);
		sink_close(s);
		return err_say(err, err_size, "%s: cannot write: %s", j->tmp, strerror(s->error));
	}
	disk_sync_folder(j->path);
	j->aside[0] = '\0';
	sink_close(&j->file);
	j->file = *s;
	s->fd = -1;
	atomic_store_explicit(&j->whole, j->file.bytes, memory_order_relaxed);
	atomic_store_explicit(&j->appended, 0, memory_order_relaxed);
	return true;
}

void journal_put(struct journal *j, struct str name, struct str text)
{
	struct sink *s = j->to;
	struct record r = { .name_n = (uint32_t)name.n,
		.text_n = text.p ? (uint32_t)text.n : NO_TEXT };

	if (!name.n || name.n > JOURNAL_NAME_MAX || (text.p && text.n > JOURNAL_TEXT_MAX))
		return;
	if (!text.p)
		text.n = 0;
	if (s->bytes + sizeof r + name.n + text.n > JOURNAL_BYTES_MAX)
		s->error = s->error ? s->error : EFBIG;
	sum_record(&r, s->sum, name, text);
	memcpy(s->sum, r.sum, SUM_BYTES);
	sink_put(s, &r, sizeof r);
	sink_put(s, name.p, name.n);
	if (text.n)
		sink_put(s, text.p, text.n);
	if (s == &j->file)
		(void)atomic_fetch_add_explicit(
			&j->appended, sizeof r + name.n + text.n, memory_order_relaxed);
}

void journal_spoil(struct journal *j)
{
	if (!j->to->error)
		j->to->error = ENOMEM;
}

/* Who clears a folder away under a running agent leaves it a file that has no name any more: what
 * is written there nobody ever reads. */
static bool is_in_place(const struct journal *j)
{
	struct stat open, named;

	return fstat(j->file.fd, &open) == 0 && stat(j->path, &named) == 0 &&
	       open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

/* A write or a sync that failed leaves nobody knows what: what follows it could not be read. */
bool journal_sync(struct journal *j, char *err, size_t err_size)
{
	struct sink *s = &j->file;

	if (!s->error)
		sink_flush(s);
	if (!s->error && fdatasync(s->fd) < 0)
		s->error = errno;
	if (!s->error && !is_in_place(j))
		s->error = ENOENT;
	s->n = 0;
	return s->error
		       ? err_say(err, err_size, "%s: cannot write: %s", j->path, strerror(s->error))
		       : true;
}

/* ---- reading ---- */

struct reading {
	FILE *in;
	uint64_t left; /* bytes */
	uint8_t sum[SUM_BYTES];
	const uint8_t *counters; /* ours */
	journal_each *each;
	void *with;
	uint64_t records;
	char *err;
	size_t err_size;
	char name[JOURNAL_NAME_MAX + 1], text[JOURNAL_TEXT_MAX + 1];
};

static bool read_bytes(struct reading *r, void *out, size_t n)
{
	if (n > r->left || (n && fread(out, 1, n, r->in) != n))
		return false;
	r->left -= n;
	return true;
}

static bool read_header(struct reading *r, struct header *h)
{
	uint8_t sum[SUM_BYTES];

	if (!read_bytes(r, h, sizeof *h))
		return err_say(r->err, r->err_size, "cut short in its header");
	if (memcmp(h->magic, magic, sizeof magic) != 0)
		return err_say(r->err, r->err_size, "not a file of changes");
	if (h->order == ORDER_OTHER)
		return err_say(r->err, r->err_size, "written on a machine of the other byte order");
	memcpy(sum, h->sum, SUM_BYTES);
	sum_header(h);
	if (memcmp(sum, h->sum, SUM_BYTES) != 0 || h->order != ORDER)
		return err_say(r->err, r->err_size, "damaged in its header");
	if (h->version != VERSION)
		return err_say(r->err, r->err_size, "format version %" PRIu32 ", want %d",
			h->version, (int)VERSION);
	memcpy(r->sum, sum, SUM_BYTES);
	return true;
}

/* false: `err` says what is wrong with it. A length that is damaged looks like a record that was
 * not written to its end: both are one to us. */
static bool read_record(struct reading *r, bool same_counters)
{
	struct record record, want;
	bool whole = read_bytes(r, &record, sizeof record);
	struct str name = { r->name, whole ? record.name_n : 0 };
	struct str text = { r->text, whole && record.text_n != NO_TEXT ? record.text_n : 0 };

	if (whole && record.text_n == NO_TEXT)
		text.p = NULL;
	if (whole && (!name.n || name.n > JOURNAL_NAME_MAX || text.n > JOURNAL_TEXT_MAX))
		return err_say(
			r->err, r->err_size, "damaged after %" PRIu64 " records", r->records);
	if (!whole || !read_bytes(r, r->name, name.n) || !read_bytes(r, r->text, text.n))
		return err_say(
			r->err, r->err_size, "cut short after %" PRIu64 " records", r->records);
	want = record;
	sum_record(&want, r->sum, name, text);
	if (memcmp(want.sum, record.sum, SUM_BYTES) != 0)
		return err_say(
			r->err, r->err_size, "damaged after %" PRIu64 " records", r->records);
	memcpy(r->sum, record.sum, SUM_BYTES);
	r->name[name.n] = r->text[text.n] = '\0'; /* for who takes them for C strings */
	r->each(r->with, name, text, same_counters);
	r->records++;
	return true;
}

static bool read_all(struct reading *r)
{
	struct header h;

	if (r->left > JOURNAL_BYTES_MAX)
		return err_say(r->err, r->err_size, "of %" PRIu64 " bytes, more than any of ours",
			r->left);
	if (!read_header(r, &h))
		return false;
	bool same = memcmp(h.counters, r->counters, sizeof h.counters) == 0;
	while (r->left)
		if (!read_record(r, same))
			return false;
	return true;
}

static struct reading *reading_new(FILE *in, uint64_t bytes, const uint8_t *counters,
	journal_each *each, void *with, char *err, size_t err_size)
{
	struct reading *r = in ? malloc(sizeof *r) : NULL;
	if (!r)
		return NULL;
	r->in = in;
	r->left = bytes;
	r->counters = counters;
	r->each = each;
	r->with = with;
	r->records = 0;
	r->err = err;
	r->err_size = err_size;
	return r;
}

bool journal_parse(const uint8_t *bytes, size_t n, const struct hash_key *counters,
	journal_each *each, void *with, char *err, size_t err_size)
{
	uint8_t ours[16];
	/* (No file of no bytes can be opened.) */
	FILE *in = fmemopen((void *)(uintptr_t)(n ? bytes : (const uint8_t *)""), n ? n : 1, "r");
	hash_counters(counters, ours);
	struct reading *r = reading_new(in, n, ours, each, with, err, err_size);
	bool good = r ? read_all(r) : err_say(err, err_size, "out of memory");
	free(r);
	if (in)
		(void)fclose(in);
	return good;
}

/* The file, of `bytes`; NULL: errno says why, or `message` that it is none. */
static FILE *open_file(struct journal *j, uint64_t *bytes, char *message, size_t message_size)
{
	struct stat st;
	/* O_NONBLOCK: a FIFO there must not make the start wait. */
	int fd = open(j->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return NULL;
	bool known = fstat(fd, &st) == 0;
	if (known && !S_ISREG(st.st_mode))
		(void)err_say(
			message, message_size, "%s: is not a regular file: move it away", j->path);
	FILE *in = known && !message[0] ? fdopen(fd, "r") : NULL;
	int why = errno;
	if (in)
		*bytes = (uint64_t)st.st_size;
	else
		(void)close(fd);
	errno = why;
	return in;
}

/* Of this process, not of the file: that is as it was at the next start. */
static bool is_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM;
}

static bool link_aside(
	struct journal *j, usec_t utc, const char *why, char *message, size_t message_size)
{
	if (disk_link_aside(j->path, utc, j->aside))
		return true;
	j->aside[0] = '\0';
	return err_say(message, message_size,
		"%s: %s, and it cannot be renamed out of the way: %s; move it away", j->path, why,
		strerror(errno));
}

static enum journal_rc put_aside(struct journal *j, usec_t utc, const char *why, uint64_t records,
	char *message, size_t message_size)
{
	if (!link_aside(j, utc, why, message, message_size))
		return JOURNAL_UNUSABLE;
	(void)err_say(message, message_size,
		"%s: %s; set aside as %s, going on with the %" PRIu64 " records before that",
		j->path, why, j->aside, records);
	return JOURNAL_SET_ASIDE;
}

enum journal_rc journal_refuse(
	struct journal *j, usec_t utc, uint64_t records, char *message, size_t message_size)
{
	char why[64];

	if (j->aside[0])
		return JOURNAL_LOADED;
	(void)snprintf(why, sizeof why, "%" PRIu64 " of its records could not be taken", records);
	if (!link_aside(j, utc, why, message, message_size))
		return JOURNAL_UNUSABLE;
	(void)err_say(message, message_size,
		"%s: %s; set aside as %s, going on without them: to have them, stop, and move it "
		"back",
		j->path, why, j->aside);
	return JOURNAL_SET_ASIDE;
}

enum journal_rc journal_load(struct journal *j, usec_t utc, journal_each *each, void *with,
	char *message, size_t message_size)
{
	char why[256];
	uint64_t bytes = 0;

	message[0] = '\0';
	FILE *in = open_file(j, &bytes, message, message_size);
	if (!in && message[0])
		return JOURNAL_UNUSABLE;
	if (!in && errno == ENOENT)
		return JOURNAL_NONE;
	if (!in && is_shortage(errno)) {
		(void)err_say(
			message, message_size, "%s: cannot open: %s", j->path, strerror(errno));
		return JOURNAL_UNUSABLE;
	}
	if (!in) {
		(void)snprintf(why, sizeof why, "cannot open: %s", strerror(errno));
		return put_aside(j, utc, why, 0, message, message_size);
	}
	struct reading *r = reading_new(in, bytes, j->counters, each, with, why, sizeof why);
	if (!r) {
		(void)fclose(in);
		(void)err_say(message, message_size, "%s: no memory to read it", j->path);
		return JOURNAL_UNUSABLE;
	}
	bool good = read_all(r);
	uint64_t records = r->records;
	free(r);
	(void)fclose(in);
	return good ? JOURNAL_LOADED : put_aside(j, utc, why, records, message, message_size);
}
