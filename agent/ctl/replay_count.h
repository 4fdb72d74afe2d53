/* What replayed requests came to: in all, by rule, and by client, in bounded memory. A client is
 * here what a rule counts: a descriptor. */
#ifndef CTL_REPLAY_COUNT_H
#define CTL_REPLAY_COUNT_H

#include "limit/decision.h"

#include <jansson.h>

enum { REPLAY_CLIENTS_MAX = 500000 }; /* of all limits together */

struct replay_count;

struct replay_count *replay_count_new(const struct policy *); /* borrowed; NULL: out of memory */
void replay_count_free(struct replay_count *);                /* NULL is fine */

/* One request, decided; `view` is that of policy_plan(). */
void replay_count_add(struct replay_count *, const struct plan *, const struct decision *,
	const struct view *, usec_t utc);
/* This rule has banned somebody. */
void replay_count_ban(struct replay_count *, const struct rule *);

/* "requests", "admitted", "denied", "reasons", "rules" and "top", the last with at most `most`
 * clients. NULL: out of memory. */
json_t *replay_count_json(const struct replay_count *, unsigned most);

#endif
