#include "store/state.h"

#include "base/err.h"
#include "store/disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* header notes { entry }* trailer, in the machine's own byte order (`order` says which):
 *
 *   header    what is needed to understand the rest, the hash key, both clocks at saving
 *   notes     what others kept beside the counters in earlier releases (memory_store_set_notes();
 *             now store/journal.h)
 *   entry     struct memory_entry, times as they were; token buckets by the steady clock
 *   trailer   how many entries there are, and a checksum over all that comes before it
 *
 * Keys that are hashed by SipHash make a file of version 1, or 2 with notes, which earlier releases
 * read; by AES, of version 3.
 *
 * The count comes last because keys come and go while the file is written. */
struct header {
	char magic[8];
	uint32_t order, version, entry_bytes, notes_bytes;
	uint8_t key[16];
	usec_t utc, steady;
};

struct trailer {
	uint64_t count;
	uint8_t sum[32];
};

static_assert(sizeof(struct header) == 56, "no padding: these are bytes of a file");
static_assert(sizeof(struct memory_entry) == 48, "no padding: these are bytes of a file");
static_assert(sizeof(struct trailer) == 40, "no padding: these are bytes of a file");
static_assert(sizeof(((struct trailer *)0)->sum) == crypto_generichash_BYTES, "the checksum");

static const char magic[8] = { 'R', 'L', 'S', 'T', 'A', 'T', 'E', '\n' };
enum { ORDER = 0x01020304, ORDER_OTHER = 0x04030201 };
enum { VERSION = 1, VERSION_NOTES = 2, VERSION_AES = 3 };

enum {
	CHUNK = 1024,     /* entries read or written at once */
	SAVE_BATCH = 256, /* entries copied for each time a shard's lock is held */
};

/* What no counter ever reaches: a quota is at most 1e9 units, an instant is of this age. */
#define UNITS_MAX   2e9
#define INSTANT_MAX ((usec_t)1 << 53)

/* ---- writing ---- */

struct sink {
	int fd;
	crypto_generichash_state sum;
};

static bool put(struct sink *out, const void *p, size_t n)
{
	crypto_generichash_update(&out->sum, p, n);
	return disk_write(out->fd, p, n);
}

static bool write_state(struct memory_store *m, int fd, struct now now)
{
	struct memory_entry *chunk = malloc(CHUNK * sizeof *chunk);
	size_t notes_n;
	char *notes = memory_store_notes(m, &notes_n);
	if (!chunk || !notes) {
		free(chunk);
		free(notes);
		return false;
	}
	struct sink out = { .fd = fd };
	crypto_generichash_init(&out.sum, NULL, 0, crypto_generichash_BYTES);

	const struct hash_key *key = memory_store_key(m);
	struct header h = {
		.order = ORDER,
		.version = key->kind == HASH_AES ? VERSION_AES
			   : notes_n             ? VERSION_NOTES
						 : VERSION,
		.entry_bytes = sizeof(struct memory_entry),
		.notes_bytes = (uint32_t)notes_n,
		.utc = now.utc,
		.steady = now.steady,
	};
	memcpy(h.magic, magic, sizeof magic);
	memcpy(h.key, key->bytes, sizeof h.key);
	bool ok = put(&out, &h, sizeof h) && put(&out, notes, notes_n);
	free(notes);

	struct trailer t = { 0 };
	uint64_t cursor = 0;
	bool end = false;
	while (ok && !end) {
		size_t n = 0;
		while (!end && n + SAVE_BATCH <= CHUNK) {
			size_t got = memory_store_copy(m, &cursor, chunk + n, SAVE_BATCH, now);
			end = got == 0;
			n += got;
		}
		t.count += n;
		ok = put(&out, chunk, n * sizeof *chunk);
	}
	if (ok) {
		crypto_generichash_update(&out.sum, (const uint8_t *)&t.count, sizeof t.count);
		crypto_generichash_final(&out.sum, t.sum, sizeof t.sum);
		ok = disk_write(fd, &t, sizeof t);
	}
	free(chunk);
	return ok;
}

int state_save(struct memory_store *m, const char *path, struct now now, char *err, size_t err_size)
{
	char tmp[DISK_PATH_BYTES];
	int fd = disk_open_beside(path, tmp);
	if (fd < 0) {
		err_say(err, err_size, "%s: cannot create: %s", tmp, strerror(errno));
		return -1;
	}
	bool ok = write_state(m, fd, now) && fsync(fd) == 0;
	int why = errno;
	if (close(fd) < 0 && ok) {
		why = errno;
		ok = false;
	}
	if (!ok) {
		err_say(err, err_size, "%s: cannot write: %s", tmp, strerror(why));
		(void)unlink(tmp);
		return -1;
	}
	if (rename(tmp, path) < 0) {
		err_say(err, err_size, "%s: cannot rename %s to it: %s", path, tmp,
			strerror(errno));
		(void)unlink(tmp);
		return -1;
	}
	disk_sync_folder(path);
	return 0;
}

/* ---- reading ---- */

/* Bytes in memory, or a file: read in pieces, so that it is never in memory as a whole. */
struct source {
	const uint8_t *bytes; /* NULL: the file */
	int fd;
	uint64_t size;
};

static bool source_read(const struct source *from, uint64_t at, void *out, size_t n)
{
	assert(at <= from->size && n <= from->size - at);
	if (from->bytes) {
		memcpy(out, from->bytes + at, n);
		return true;
	}
	while (n) {
		ssize_t did = pread(from->fd, out, n, (off_t)at);
		if (did < 0 && errno == EINTR)
			continue;
		if (did <= 0) {
			errno = did ? errno : EIO;
			return false;
		}
		out = (char *)out + did;
		at += (uint64_t)did;
		n -= (size_t)did;
	}
	return true;
}

static bool is_instant(usec_t t)
{
	return t >= -INSTANT_MAX && t <= INSTANT_MAX;
}

/* A checksum says that nothing was damaged, not that it is sane. */
static bool is_sane(const struct memory_entry *e)
{
	if (!is_instant(e->bucket.at) || !is_instant(e->full_at) || !is_instant(e->open_at))
		return false;
	if (e->key.b & 1)
		return e->bucket.current <= UNITS_MAX && e->bucket.previous <= UNITS_MAX;
	return isfinite(e->bucket.used) && e->bucket.used >= 0 && e->bucket.used <= UNITS_MAX;
}

static bool check_header(const struct header *h, char *err, size_t err_size)
{
	if (memcmp(h->magic, magic, sizeof magic) != 0)
		return err_say(err, err_size, "not a state file");
	if (h->order == ORDER_OTHER)
		return err_say(err, err_size, "written on a machine of the other byte order");
	if (h->order != ORDER)
		return err_say(err, err_size, "damaged in its header");
	if (h->version < VERSION || h->version > VERSION_AES)
		return err_say(err, err_size, "format version %" PRIu32 ", want %d to %d",
			h->version, (int)VERSION, (int)VERSION_AES);
	if (h->version == VERSION_AES && !cmac_is_there())
		return err_say(err, err_size,
			"its keys are hashed by AES instructions, which this processor has not");
	if (h->entry_bytes != sizeof(struct memory_entry) ||
		(h->version == VERSION && h->notes_bytes) ||
		(h->version == VERSION_NOTES && !h->notes_bytes) ||
		h->notes_bytes > NOTES_BYTES_MAX || !is_instant(h->utc) || !is_instant(h->steady))
		return err_say(err, err_size, "damaged in its header");
	return true;
}

static uint64_t entries_at(const struct header *h)
{
	return sizeof *h + h->notes_bytes;
}

static bool read_header(const struct source *from, struct header *h, char *err, size_t err_size)
{
	if (from->size < sizeof *h + sizeof(struct trailer))
		return err_say(err, err_size, "cut short at %" PRIu64 " bytes", from->size);
	if (!source_read(from, 0, h, sizeof *h))
		return err_say(err, err_size, "cannot read: %s", strerror(errno));
	if (!check_header(h, err, err_size))
		return false;
	if (h->notes_bytes > from->size - sizeof *h - sizeof(struct trailer))
		return err_say(err, err_size, "cut short at %" PRIu64 " bytes", from->size);
	return true;
}

/* The first pass: everything is looked at before anything is made of it. `notes` has room for
 * h->notes_bytes. */
static bool check_source(const struct source *from, struct memory_entry *chunk,
	const struct header *h, char *notes, uint64_t *count, char *err, size_t err_size)
{
	uint64_t body = from->size - entries_at(h) - sizeof(struct trailer);
	struct trailer t;
	if (!source_read(from, sizeof *h, notes, h->notes_bytes))
		return err_say(err, err_size, "cannot read: %s", strerror(errno));
	if (!source_read(from, from->size - sizeof t, &t, sizeof t))
		return err_say(err, err_size, "cannot read: %s", strerror(errno));
	*count = body / sizeof *chunk;
	if (body % sizeof *chunk != 0 || t.count != *count)
		return err_say(err, err_size, "cut short, or with something behind its end");

	crypto_generichash_state sum;
	crypto_generichash_init(&sum, NULL, 0, crypto_generichash_BYTES);
	crypto_generichash_update(&sum, (const uint8_t *)h, sizeof *h);
	crypto_generichash_update(&sum, (const uint8_t *)notes, h->notes_bytes);
	uint64_t insane = 0;
	for (uint64_t i = 0; i < *count;) {
		size_t n = *count - i < CHUNK ? (size_t)(*count - i) : CHUNK;
		if (!source_read(from, entries_at(h) + i * sizeof *chunk, chunk, n * sizeof *chunk))
			return err_say(err, err_size, "cannot read: %s", strerror(errno));
		crypto_generichash_update(&sum, (const uint8_t *)chunk, n * sizeof *chunk);
		for (size_t k = 0; k < n; k++)
			insane += !is_sane(&chunk[k]);
		i += n;
	}
	uint8_t want[crypto_generichash_BYTES];
	crypto_generichash_update(&sum, (const uint8_t *)&t.count, sizeof t.count);
	crypto_generichash_final(&sum, want, sizeof want);
	if (sodium_memcmp(want, t.sum, sizeof want) != 0)
		return err_say(err, err_size, "damaged: its checksum does not match");
	if (insane)
		return err_say(err, err_size, "%" PRIu64 " of its entries hold what no counter can",
			insane);
	return true;
}

static usec_t at_least(usec_t t, usec_t least)
{
	return t > least ? t : least;
}

/* Token buckets: the steady clock has a new zero, so what UTC says has passed since the saving
 * refills them; instants in the future are read as the saving's now. Windows follow UTC anyway;
 * those of the future become the ones of now, for good. */
static void reseat(struct memory_entry *e, const struct header *h, struct now now)
{
	usec_t passed = at_least(now.utc - h->utc, 0);
	if (!(e->key.b & 1)) {
		usec_t moved = now.steady - h->steady - passed;
		if (e->bucket.at > h->steady)
			e->bucket.at = h->steady;
		e->bucket.at += moved;
		e->full_at += moved;
		e->open_at += moved;
	} else if (e->bucket.at > now.utc + now.held + BUCKET_AHEAD_MAX) {
		usec_t life = window_life(e->full_at - e->bucket.at);
		e->open_at += now.utc + now.held - e->bucket.at;
		e->bucket.at = now.utc + now.held;
		e->full_at = e->bucket.at + life;
	}
	/* Also what a store's entry has to hold to. */
	if (e->open_at > e->full_at)
		e->open_at = e->full_at;
}

enum load_rc { LOAD_OK, LOAD_BAD, LOAD_NO_MEMORY };

/* Reads the whole source. `*lost`: entries that max_keys had no room for. */
static enum load_rc load(const struct source *from, uint64_t max_keys, struct now now,
	struct memory_store **out, uint64_t *lost, char *err, size_t err_size)
{
	enum load_rc rc = LOAD_NO_MEMORY;
	struct memory_store *m = NULL;
	struct header h;
	uint64_t count = 0, kept = 0;
	char *notes = NULL;
	struct memory_entry *chunk = malloc(CHUNK * sizeof *chunk);
	if (!chunk)
		goto failed;
	if (!read_header(from, &h, err, err_size)) {
		rc = LOAD_BAD;
		goto failed;
	}
	notes = malloc(h.notes_bytes + 1u);
	if (!notes)
		goto failed;
	rc = LOAD_BAD;
	if (!check_source(from, chunk, &h, notes, &count, err, err_size))
		goto failed;
	struct hash_key key = { .kind = h.version == VERSION_AES ? HASH_AES : HASH_SIPHASH };
	memcpy(key.bytes, h.key, sizeof key.bytes);
	m = memory_store_new(max_keys, &key, now);
	if (!m || !memory_store_set_notes(m, notes, h.notes_bytes)) {
		rc = LOAD_NO_MEMORY;
		goto failed;
	}
	for (uint64_t i = 0; i < count;) {
		size_t n = count - i < CHUNK ? (size_t)(count - i) : CHUNK;
		if (!source_read(
			    from, entries_at(&h) + i * sizeof *chunk, chunk, n * sizeof *chunk)) {
			err_say(err, err_size, "cannot read: %s", strerror(errno));
			goto failed;
		}
		for (size_t k = 0; k < n; k++) {
			/* It was sane a moment ago; but a file is not ours alone. */
			if (!is_sane(&chunk[k]))
				continue;
			reseat(&chunk[k], &h, now);
			kept += memory_store_put(m, &chunk[k], now);
		}
		i += n;
	}
	uint64_t keys = memory_store_stats(m).keys;
	*lost = keys == max_keys ? kept - keys : 0;
	*out = m;
	free(notes);
	free(chunk);
	return LOAD_OK;
failed:
	if (rc == LOAD_NO_MEMORY)
		err_say(err, err_size, "out of memory for %" PRIu64 " keys", max_keys);
	if (m)
		store_close(memory_store_base(m));
	free(notes);
	free(chunk);
	return rc;
}

bool state_parse(const uint8_t *bytes, size_t n, uint64_t max_keys, struct now now,
	struct memory_store **out, char *err, size_t err_size)
{
	/* Never NULL, not even for no bytes: that would mean the file. */
	struct source from = { .bytes = bytes ? bytes : (const uint8_t *)"", .fd = -1, .size = n };
	uint64_t lost;
	*out = NULL;
	return load(&from, max_keys, now, out, &lost, err, err_size) == LOAD_OK;
}

/* ---- the file at the start ---- */

static bool start_empty(uint64_t max_keys, struct now now, struct memory_store **out)
{
	struct hash_key key;
	hash_key_random(&key);
	*out = memory_store_new(max_keys, &key, now);
	sodium_memzero(&key, sizeof key);
	return *out != NULL;
}

static bool folder_is_writable(const char *path, char *message, size_t message_size)
{
	char tmp[DISK_PATH_BYTES];
	int fd = disk_open_beside(path, tmp);
	if (fd < 0)
		return err_say(message, message_size,
			"%s: cannot create: %s; the state file's folder must be there and writable "
			"(store.state_file = \"\" runs without)",
			tmp, strerror(errno));
	(void)close(fd);
	if (unlink(tmp) < 0)
		return err_say(
			message, message_size, "%s: cannot remove: %s", tmp, strerror(errno));
	return true;
}

static enum state_rc load_file(int fd, const char *path, uint64_t max_keys, struct now now,
	struct memory_store **out, char *message, size_t message_size)
{
	char why[256];
	uint64_t lost = 0;
	struct stat st;
	if (fd < 0) {
		(void)snprintf(why, sizeof why, "cannot open: %s", strerror(errno));
	} else if (fstat(fd, &st) < 0) {
		(void)snprintf(why, sizeof why, "cannot read: %s", strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		err_say(message, message_size,
			"%s: is not a regular file: move it away, or change store.state_file",
			path);
		return STATE_UNUSABLE;
	} else {
		struct source from = { .fd = fd, .size = (uint64_t)st.st_size };
		switch (load(&from, max_keys, now, out, &lost, why, sizeof why)) {
		case LOAD_OK:
			if (lost)
				err_say(message, message_size,
					"%s: holds %" PRIu64
					" keys more than store.max_keys = %" PRIu64
					": those with least to lose were left out",
					path, lost, max_keys);
			return STATE_LOADED;
		case LOAD_NO_MEMORY:
			err_say(message, message_size, "%s: %s", path, why);
			return STATE_UNUSABLE;
		case LOAD_BAD:
			break;
		}
	}

	char aside[DISK_PATH_BYTES];
	if (!disk_set_aside(path, now.utc, aside)) {
		err_say(message, message_size,
			"%s: %s, and it cannot be renamed out of the way: %s; move it away", path,
			why, strerror(errno));
		return STATE_UNUSABLE;
	}
	if (!start_empty(max_keys, now, out)) {
		err_say(message, message_size, "out of memory for %" PRIu64 " keys", max_keys);
		return STATE_UNUSABLE;
	}
	err_say(message, message_size, "%s: %s; set aside as %s, starting with empty counters",
		path, why, aside);
	return STATE_SET_ASIDE;
}

enum state_rc state_load(const char *path, uint64_t max_keys, struct now now,
	struct memory_store **out, char *message, size_t message_size)
{
	*out = NULL;
	if (message_size)
		message[0] = '\0';
	if (!folder_is_writable(path, message, message_size))
		return STATE_UNUSABLE;

	/* O_NONBLOCK: a FIFO there must not make the start wait. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && errno == ENOENT) {
		if (start_empty(max_keys, now, out))
			return STATE_NONE;
		err_say(message, message_size, "out of memory for %" PRIu64 " keys", max_keys);
		return STATE_UNUSABLE;
	}
	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
		err_say(message, message_size, "%s: cannot open: %s", path, strerror(errno));
		return STATE_UNUSABLE;
	}
	enum state_rc rc = load_file(fd, path, max_keys, now, out, message, message_size);
	if (fd >= 0)
		(void)close(fd);
	return rc;
}
