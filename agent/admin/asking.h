/* A question about the requests of one client: by the fields in its body, whose tier the store may
 * have to tell first. For explain and reset. */
#ifndef ADMIN_ASKING_H
#define ADMIN_ASKING_H

#include "admin/routes.h"
#include "config/explain.h"

/* From the request until its answer, even if its peer is gone by then. Begins zeroed. */
struct asking {
	struct explain explain; /* first: its plan is its first, and plan->done finds it by that */
	struct tier_ask ask;
	struct admin *admin;
	struct snapshot *snapshot; /* a reference */
	struct request *request;   /* NULL: its peer is gone */
	void (*ready)(struct asking *, struct str tier, struct now);
};

/* One of `size` bytes, which begins with a struct asking. NULL: the request has its answer. */
struct asking *asking_new(struct request *, size_t size);
/* true: `ready` follows, or was called already. false: the request has its answer. Either way
 * asking_end() is the caller's. */
bool asking_begin(struct asking *, json_t *fields,
	void (*ready)(struct asking *, struct str tier, struct now));
void asking_end(struct asking *);

#endif
