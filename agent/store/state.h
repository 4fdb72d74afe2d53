/* The state file: counters that survive a restart. Versioned, with a checksum over all of it,
 * written beside its place and renamed over it, mode 0600 (it holds the hash key). */
#ifndef STORE_STATE_H
#define STORE_STATE_H

#include "store/memory.h"

/* Writes all entries. 0, or -1 with `err`, and then the file is as it was. May take long and blocks
 * on the disk: a thread of its own; holds a shard's lock only for some hundred entries at a time.
 * Not twice at once for one path. */
int state_save(struct memory_store *, const char *path, struct now now, char *err, size_t err_size);

enum state_rc {
	STATE_LOADED,    /* `message` is empty, or says that not all keys found room */
	STATE_NONE,      /* there is no such file: a first start */
	STATE_SET_ASIDE, /* it could not be read back and was renamed; `message` says to what and
			  * why */
	STATE_UNUSABLE,  /* its folder cannot be written, it could not be renamed, or there is not
			  * enough memory; `message` says which: exit status 2 */
};

/* Makes the store with what is in the file, or empty with a random hash key (STATE_NONE,
 * STATE_SET_ASIDE); *out is NULL only with STATE_UNUSABLE. Where the file holds more than
 * `max_keys`, those with most to lose are kept. After hash_init(). */
enum state_rc state_load(const char *path, uint64_t max_keys, struct now now,
	struct memory_store **out, char *message, size_t message_size);

/* The parser on its own, for fuzzing: false with `err` on anything that is not exactly what
 * state_save writes, and then *out is NULL. */
bool state_parse(const uint8_t *bytes, size_t n, uint64_t max_keys, struct now now,
	struct memory_store **out, char *err, size_t err_size);

#endif
