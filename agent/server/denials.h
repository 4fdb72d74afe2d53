/* Which denials, and which of those that shadow mode would have denied, become a line in the log:
 * so many for each rule in each second, and of the rest the number. A flood of denied requests must
 * not become a flood of lines. Knows no threads. */
#ifndef SERVER_DENIALS_H
#define SERVER_DENIALS_H

#include "server/event.h"

enum {
	DENIALS_PER_SECOND = 20,  /* lines for each rule and reason, denied or in shadow mode */
	DENIALS_RULES_MAX = 4096, /* of one second; what comes in beyond is counted as one */
	DENIALS_TABLE = 8192,
};

struct denials;

struct denials *denials_new(void); /* NULL: out of memory */
void denials_free(struct denials *);

/* true: log this one. */
bool denials_take(struct denials *, const struct event *);

struct denials_more {
	char rule[RULE_NAME_MAX + 1];
	bool shadow; /* would have been denied */
	enum reason reason;
	uint64_t count; /* that were not logged */
};

/* At the end of a second: what was left out, one at a time; false: no more, and a new second has
 * begun. */
bool denials_next(struct denials *, struct denials_more *);

#endif
