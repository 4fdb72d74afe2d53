/* What Redis says of changes (store/redis_changes.h), as it is read. Pure. */
#ifndef STORE_REDIS_CHANGES_READ_H
#define STORE_REDIS_CHANGES_READ_H

#include "base/hash.h"
#include "base/str.h"

struct redisReply;

/* By which a change is known again: a number that another one has means that Redis lost its data,
 * and has heard of so many since. */
struct redis_changes_mark {
	bool known;
	struct key name, text;
};

struct redis_changes_mark redis_changes_mark_of(struct str name, struct str text);

/* The number beside the changes; 0 where there is none. false: it is no number, and so of a format
 * that is not ours: what is there is to be left alone. */
bool redis_changes_read_version(const struct redisReply *, long long *version);

/* The log from the entry numbered `from` on, in order and without a gap, into `s`: names, then as
 * many texts (one without .p: taken away), which lie in the reply. How many; 0: it is nothing to go
 * by. Where `mark` is known it is that of the first, and *lost says that it is another one by now.
 */
size_t redis_changes_read_log(const struct redisReply *, long long from,
	const struct redis_changes_mark *mark, struct str *s, bool *lost);

#endif
