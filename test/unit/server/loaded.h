/* What the tests of server/ share: a snapshot of a configuration's text, and its end. */
#ifndef LOADED_H
#define LOADED_H

#include "config/snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Fails the test with the first problem. */
static inline struct snapshot *loaded(
	const char *text, const struct hash_key *key, uint64_t generation)
{
	struct problems problems = { 0 };
	struct snapshot *s = config_load_text(
		"t.cfg", text, strlen(text), key, generation, &problems);

	if (!s)
		fail_msg("%s", problems.n ? problems.message[0] : "no snapshot");
	problems_free(&problems);
	return s;
}

static inline void drop(struct snapshot *s)
{
	if (snapshot_unref(s))
		snapshot_free(s);
}

#endif
