/* Replies to whoever has changed something: when the change is on disk, and in Redis. */
#ifndef ADMIN_KEEPING_H
#define ADMIN_KEEPING_H

#include "admin/http.h"

/* 200 with `answer` (takes the reference), as soon as all that was changed so far is kept
 * (desk_when_kept()). Where it is not, the answer gets a member `warnings` that says so: it holds
 * all the same. The request's context is a struct admin. */
void reply_when_kept(struct request *, json_t *answer);

#endif
