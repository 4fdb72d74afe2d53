/* A table from names to numbers, filled once and then only read. The names are the operator's, so a
 * plain hash will do: a client chooses what is looked up, not what is stored. */
#ifndef LIMIT_NAMES_H
#define LIMIT_NAMES_H

#include "base/str.h"

#include <stdint.h>

struct names;

struct names *names_new(void); /* NULL: out of memory */
void names_free(struct names *);

/* The same of names that are each the SHA-256 of a secret, 64 digits in lower case. Numbers are
 * below NAMES_OF_HASHES_MAX. */
enum { NAMES_OF_HASHES_MAX = 65534 };
struct names *names_new_of_hashes(void);

/* Of equal names the first counts. Copies `name`. false: out of memory. */
bool names_add(struct names *, struct str name, uint32_t number);

/* -1: not there. */
int64_t names_find(const struct names *, struct str name);

/* Of hashes, by the secret itself. What was found for it is remembered for the next time, since its
 * SHA-256 takes more than a decision: by 59 bits of a keyed hash, of a key of its own. Any thread.
 */
int64_t names_find_secret(const struct names *, struct str secret);

#endif
