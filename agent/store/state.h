/* The state file: counters that survive a restart. Versioned, with a checksum over all of it,
 * written beside its place and renamed over it, mode 0600 (it holds the hash key). */
#ifndef STORE_STATE_H
#define STORE_STATE_H

#include "store/memory.h"

/* Writes all entries. 0, or -1 with `err`. May take long and blocks on the disk: a thread of its
 * own; holds a shard's lock only for some hundred entries at a time. */
int state_save(struct memory_store *, const char *path, struct now, char *err, size_t err_size);

enum state_rc {
	STATE_LOADED,
	STATE_NONE,      /* there is no such file: a first start */
	STATE_SET_ASIDE, /* it could not be read back and was renamed; `message` says to what and
			    why */
	STATE_UNUSABLE,  /* its folder cannot be written, or it could not be renamed: exit status 2
			  */
};

/* Only the hash key, which the store is made with; random where there is no (good) file. */
enum state_rc state_load(const char *path, uint64_t max_keys, struct now, struct memory_store **out,
	char *message, size_t message_size);

/* The parser on its own, for fuzzing and for state_load: false with `err` on anything that is not
 * exactly what state_save writes. Makes *out (also where the file says more keys than max_keys). */
bool state_parse(const uint8_t *bytes, size_t n, uint64_t max_keys, struct now,
	struct memory_store **out, char *err, size_t err_size);

#endif
