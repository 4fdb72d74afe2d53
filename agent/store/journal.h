/* The changes file, STATE.changes beside the state file: texts under names, of which the last one
 * of a name holds. What is appended is on disk before anyone is told that it is done, however large
 * the state file is; now and then the whole is written anew, in its place. Versioned, each record
 * with a checksum that also covers those before it, mode 0600. Knows nothing of what texts say.
 *
 * All functions may block on the disk, and are for one thread at a time. */
#ifndef STORE_JOURNAL_H
#define STORE_JOURNAL_H

#include "base/clock.h"
#include "base/hash.h"

enum {
	JOURNAL_NAME_MAX = 1024,
	JOURNAL_TEXT_MAX = 64 << 10,
	JOURNAL_BYTES_MAX = 512 << 20, /* of the file: more cannot be of ours */
};

struct journal;

/* The file beside `state_file`; nothing on disk is touched yet. `counters`: the key that counters
 * are hashed with, of which the file keeps a hash. NULL: out of memory. */
struct journal *journal_new(const char *state_file, const struct hash_key *counters);
/* NULL is fine. What journal_load() set aside and nothing has replaced is there as before. */
void journal_free(struct journal *);
const char *journal_path(const struct journal *);

enum journal_rc {
	JOURNAL_LOADED,
	JOURNAL_NONE,      /* there is no such file */
	JOURNAL_SET_ASIDE, /* a part of it could not be read (its end, as when power failed while it
			    * was written): what came before was told, and it has another name
			    * besides, which it keeps when journal_replace() takes its place;
			    * `message` says which and why */
	JOURNAL_UNUSABLE,  /* it could not be renamed, or is no file, or there was no memory or no
			    * descriptor to read it; `message` says so */
};

/* Tells of each record, the oldest first; text.p NULL: that name is no more. `same_counters`: it
 * was written by who hashed counters with the same key. Both texts are the call's. */
typedef void journal_each(void *with, struct str name, struct str text, bool same_counters);
enum journal_rc journal_load(struct journal *, usec_t utc, journal_each *each, void *with,
	char *message, size_t message_size);

/* Who was told of `records` that are whole could not take them (no memory, or another release's):
 * the file gets another name besides, as where a part of it could not be read.
 * JOURNAL_LOADED: it has one already. */
enum journal_rc journal_refuse(
	struct journal *, usec_t utc, uint64_t records, char *message, size_t message_size);

/* ---- writing ---- */

/* The whole anew: journal_put() goes to a file beside it until journal_replace(), which makes that
 * durable and renames it. Where that fails the old file is as it was. false: `err` says why not. */
bool journal_begin(struct journal *, char *err, size_t err_size);
bool journal_replace(struct journal *, char *err, size_t err_size);

/* One more record; text.p NULL: that name is no more. What is longer than it may be is left out. An
 * error is told by journal_replace() or journal_sync(). */
void journal_put(struct journal *, struct str name, struct str text);
/* There was no memory to put one: that is an error, told as others are. */
void journal_spoil(struct journal *);

/* All that was put is on disk. false: `err` says why not; nothing that is put after this is,
 * either, until the whole was written anew. */
bool journal_sync(struct journal *, char *err, size_t err_size);

/* Bytes that were appended since the whole was written, and of that. Any thread. */
uint64_t journal_appended(const struct journal *);
uint64_t journal_whole(const struct journal *);

/* The parser on its own, for fuzzing: false with `err` where a part of it is not what is written
 * here; what came before was told. */
bool journal_parse(const uint8_t *bytes, size_t n, const struct hash_key *counters,
	journal_each *each, void *with, char *err, size_t err_size);

#endif
