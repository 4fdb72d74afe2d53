#include "server/denials.h"

#include <stdlib.h>
#include <string.h>

struct cell {
	bool used;
	unsigned logged;
	struct denials_more more;
};

struct denials {
	struct cell cell[DENIALS_TABLE]; /* by a hash of the rule's name; linear probing */
	unsigned used[DENIALS_RULES_MAX];
	unsigned used_n;
	struct denials_more others[2]; /* beyond the table; denied, and in shadow mode */
	unsigned at;                   /* of denials_next() */
};

struct denials *denials_new(void)
{
	return calloc(1, sizeof(struct denials));
}

void denials_free(struct denials *d)
{
	free(d);
}

static unsigned hash(const struct event *event)
{
	return str_fnv(str_of(event->rule), 2 * (uint32_t)event->reason + event->shadow);
}

/* NULL: the table is full. */
static struct cell *find(struct denials *d, const struct event *event)
{
	for (unsigned i = hash(event);; i++) {
		unsigned at = i % DENIALS_TABLE;
		struct cell *c = &d->cell[at];
		if (c->used && c->more.reason == event->reason && c->more.shadow == event->shadow &&
			strcmp(c->more.rule, event->rule) == 0)
			return c;
		if (c->used)
			continue;
		if (d->used_n == DENIALS_RULES_MAX)
			return NULL;
		d->used[d->used_n++] = at;
		*c = (struct cell){ .used = true,
			.more = { .reason = event->reason, .shadow = event->shadow } };
		memcpy(c->more.rule, event->rule, strnlen(event->rule, RULE_NAME_MAX));
		return c;
	}
}

bool denials_take(struct denials *d, const struct event *event)
{
	struct cell *c = find(d, event);
	if (c && c->logged < DENIALS_PER_SECOND) {
		c->logged++;
		return true;
	}
	struct denials_more *more = c ? &c->more : &d->others[event->shadow];
	more->count++;
	return false;
}

bool denials_next(struct denials *d, struct denials_more *out)
{
	while (d->at < d->used_n) {
		struct cell *c = &d->cell[d->used[d->at++]];
		c->used = false;
		if (!c->more.count)
			continue;
		*out = c->more;
		return true;
	}
	d->at = d->used_n = 0;
	for (unsigned i = 0; i < 2; i++)
		if (d->others[i].count) {
			*out = d->others[i];
			out->shadow = i;
			d->others[i].count = 0;
			return true;
		}
	return false;
}
