/* Of whom no more than a hash is shown: which counters are his. People have the SHA-256 of a key
 * from HAProxy's log, or 12 digits of it from the list of who has most, or from a denial's line;
 * here stands which descriptors went with it, of the keys that were seen last. Nothing of it leads
 * back to a key, and none of it is kept beyond the process.
 *
 * A bounded table that all workers share; any thread. Who is named in a line or a list is put there
 * with that, not each request. */
#ifndef SERVER_KNOWN_H
#define SERVER_KNOWN_H

#include "limit/by_hash.h"

enum {
	KNOWN_MAX = 8192
}; /* in sets; a full one lets go whom it has known for longest, until he is named again */

struct known;

struct known *known_new(void); /* about 1 MiB; NULL: out of memory */
void known_free(struct known *);

/* The plan's client is named: remembers him, if any of its takes counts by a secret key. `view` is
 * of the same request. */
void known_learn(struct known *, const struct policy *, const struct plan *, const struct view *);

/* by_hash.find. */
bool known_find(void *known, const struct key *name, struct key *descriptor);

/* The hash of the key that begins with these digits, in lower case: how many there are of that
 * beginning, `hex` is one of them. */
unsigned known_hash(struct known *, struct str digits, char hex[SHA256_HEX_BYTES]);

#endif
