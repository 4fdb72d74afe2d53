/* A check for people: whose it is and where it goes; secret fields as short hashes, or left out.
 * Pure. */
#ifndef SERVER_DESCRIBE_H
#define SERVER_DESCRIBE_H

#include "server/event.h"

/* Each returns the length written, at most `size`; no NUL, neither behind it nor in it. */

/* The descriptor that the take counts by, or without one the address: who is blocked and names
 * himself anew each time is one all the same. "" where there is neither. */
size_t describe_client(
	const struct policy *, const struct take *, const struct view *, char *out, size_t size);
/* METHOD:/path, "" where the request has neither. */
size_t describe_endpoint(const struct policy *, const struct view *, char *out, size_t size);

/* The line of a denial. */
void describe_event(const struct policy *, const struct plan *, const struct decision *,
	const struct view *, struct event *);
/* The line of what the rule d->shadow would have denied. */
void describe_shadow(const struct policy *, const struct plan *, const struct decision *,
	const struct view *, struct event *);

#endif
