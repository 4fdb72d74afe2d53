/* What a request with these fields would get from a policy, for a client never seen before. */
#ifndef CTL_EXPLAIN_H
#define CTL_EXPLAIN_H

#include "base/clock.h"
#include "limit/policy.h"

#include <jansson.h>

/* `fields`: an object of texts; `message` is the message's name, "check" if it is not there. The
 * same answer as that of POST /api/v1/explain. NULL: out of memory. */
json_t *explain_fresh(const struct policy *, const json_t *fields, struct now);

#endif
