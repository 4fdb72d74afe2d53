/* One line of a request log -> when it was, and the request as a view. What it understands:
 *
 *   HAProxy   `option httplog`, `option httpslog`, and formats of one's own that begin with the
 *             client and [%tr] and have the request in quotes (%{+Q}r): those of haproxy/ and
 *             conf/examples. Words NAME=VALUE are fields, NAME=%hr the first captured header, and
 *             so are captured headers that have a name by `captures`. Local time.
 *             message=check-NAME says with which message HAProxy has asked.
 *   CLF       the Common and the Combined Log Format of others, with its zone.
 *   JSON      an object a line: its members are fields, `time` is Unix seconds or ISO 8601. It is a
 *             request where none of them is looked at, too, but not where it has what programs
 *             give messages of their own.
 *
 * With or without what syslog puts before it. Any bytes may come. */
#ifndef CTL_REQUEST_LINE_H
#define CTL_REQUEST_LINE_H

#include "ctl/stamp.h"
#include "limit/policy.h"

#include <jansson.h>

enum {
	REQUEST_LINE_MAX = 65536, /* bytes; HAProxy's are at most that */
	CAPTURES_MAX = 32,
};

struct request_line {
	const struct policy *policy; /* borrowed */
	struct str capture[CAPTURES_MAX];
	unsigned captures;
	struct stamp_clock clock;
	json_t *object; /* a reference: what the view borrows of */
	char *room;     /* owned: texts of a line as they were before they were escaped, and */
	char *unused;
	char *scratch; /* in it: that of the view */
	size_t scratch_n;
};

/* `captures`: "user,key,-,host" names the captured request headers in their order, - none; NULL is
 * none; borrowed. false: `why` says why. */
bool request_line_init(struct request_line *, const struct policy *, const char *captures,
	char *why, size_t why_size);
void request_line_fini(struct request_line *); /* copes with one that is all zero */

/* The view's message is `check` where the line says no other; view->seen has it only where the line
 * says it. The view borrows of the line, which is of at most REQUEST_LINE_MAX bytes, and of what is
 * here, until the next one. false: it is no request. */
bool request_line_load(struct request_line *, struct str line, struct view *, usec_t *utc);

#endif
