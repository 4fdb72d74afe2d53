/* Bodies of requests: JSON objects, checked member by member. */
#ifndef ADMIN_BODY_H
#define ADMIN_BODY_H

#include "admin/http.h"

/* The body as an object, to be given back with json_decref(); NULL: the request has its answer. */
json_t *body_of(struct request *);

/* A member that holds a text, borrowed; "" where it is not there. NULL: the request has its answer.
 */
const char *body_text(struct request *, json_t *body, const char *name);
/* Why somebody wants a change, as body_text(); it is in the log whole. */
const char *body_reason(struct request *, json_t *body);

/* Members that nobody knows are told: a typing error must not pass for something else. false: the
 * request has its answer. */
bool body_knows(struct request *, json_t *body, const char *const *known, size_t n);

/* The fields of a request: the member `fields`, or where there is none, all members but the `known`
 * ones. To be given back with json_decref(); NULL: there are none. */
json_t *body_fields(json_t *body, const char *const *known, size_t n);

#endif
