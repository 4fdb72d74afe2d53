#include "store/redis_changes_read.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool redis_changes_read_version(const redisReply *r, long long *version)
{
	char *end;

	*version = 0;
	if (r->type != REDIS_REPLY_STRING)
		return r->type == REDIS_REPLY_NIL;
	errno = 0;
	*version = strtoll(r->str, &end, 10);
	return end == r->str + r->len && end > r->str && !errno && *version >= 0;
}

static bool is_text(const redisReply *r)
{
	return r->type == REDIS_REPLY_STRING;
}

/* One entry of the log: [ "NUMBER-0", [ "name", NAME, "text", TEXT ] ]; without a text, two less.
 * false: it is none, or not of that number. */
static bool read_entry(const redisReply *r, long long number, struct str *name, struct str *text)
{
	char id[32];
	const redisReply *fields = r->type == REDIS_REPLY_ARRAY && r->elements == 2 ? r->element[1]
										    : NULL;
	snprintf(id, sizeof id, "%lld-0", number);
	if (!fields || !is_text(r->element[0]) || strcmp(r->element[0]->str, id) != 0 ||
		fields->type != REDIS_REPLY_ARRAY ||
		(fields->elements != 2 && fields->elements != 4))
		return false;
	for (size_t i = 0; i < fields->elements; i++)
		if (!is_text(fields->element[i]))
			return false;
	*name = (struct str){ fields->element[1]->str, (size_t)fields->element[1]->len };
	*text = (struct str){ 0 };
	if (fields->elements == 4)
		*text = (struct str){ fields->element[3]->str, (size_t)fields->element[3]->len };
	return true;
}

struct redis_changes_mark redis_changes_mark_of(struct str name, struct str text)
{
	static const struct hash_key key;

	return (struct redis_changes_mark){ true, hash_keyed(&key, name.p, name.n),
		hash_keyed(&key, text.p ? text.p : "", text.n) };
}

static bool is_same(const struct redis_changes_mark *a, const struct redis_changes_mark *b)
{
	return memcmp(&a->name, &b->name, sizeof a->name) == 0 &&
	       memcmp(&a->text, &b->text, sizeof a->text) == 0;
}

size_t redis_changes_read_log(const redisReply *r, long long from,
	const struct redis_changes_mark *mark, struct str *s, bool *lost)
{
	size_t n = r->elements, i = 0;

	while (i < n && read_entry(r->element[i], from + (long long)i, &s[i], &s[n + i]))
		i++;
	if (i < n || n <= mark->known)
		return 0;
	if (mark->known) {
		struct redis_changes_mark first = redis_changes_mark_of(s[0], s[n]);
		*lost = !is_same(&first, mark);
	}
	return n;
}
