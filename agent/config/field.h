/* A request's fields that are told from outside, in a question or in a log, into a view. */
#ifndef CONFIG_FIELD_H
#define CONFIG_FIELD_H

#include "limit/policy.h"

#include <jansson.h>

/* Both pass over a name that the policy does not know, and take sha256:HEX as a value for `key`
 * where keys are secret. What they are given is borrowed as long as the view is used. */
void field_load_text(struct view *, const struct policy *, struct str name, struct str value);

/* false: it is an object, an array, or a number with a fraction. */
bool field_load_json(struct view *, const struct policy *, struct str name, const json_t *);

#endif
