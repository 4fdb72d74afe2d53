/* What a request would get from a policy, and why, as JSON: for POST /api/v1/explain, and for
 * ratelimitctl on a configuration file. No store, no clock: whoever explains asks the one and reads
 * the other in between. */
#ifndef CONFIG_EXPLAIN_H
#define CONFIG_EXPLAIN_H

#include "limit/explain.h"

#include <jansson.h>

struct explain {
	struct plan plan; /* what the store is asked, and then has answered; costs are 0 */
	const struct policy *policy; /* borrowed */
	json_t *fields;              /* a reference: the view borrows of it */
	char *scratch;               /* owned */
	struct view view;
	struct plan planned; /* before a store had a say in it */
	struct plan_why why;
	struct by_hash
		known; /* the caller's, after explain_init(): who remembers counters by hash */
	json_t *ban; /* owned; what is told of it where plan.outcome is OUTCOME_BANNED, else NULL */
	bool tier_by_store;
	bool fresh; /* no store is asked */
};

/* `fields`: an object of texts, numbers, booleans and nulls; `message` is the message's name,
 * "check" if it is not there. `key` may be sha256:HEX where keys are secret. false: `err` says what
 * is wrong. explain_fini() either way. */
bool explain_init(struct explain *, const struct policy *, json_t *fields, char *err, size_t size);
void explain_fini(struct explain *);

/* Fills e->plan; its outcome is OUTCOME_LIMITS if a store is to be asked. `tier` is what the store
 * has for who says none; of length 0: nothing. */
void explain_plan(struct explain *, struct str tier);

/* Instead of explain_plan(): fills e->plan with the next counters of a client with these fields
 * (policy_counters()), of any tier, whatever the lists and the switch say, but for those that he
 * shares with others; where `rule` is not NULL, with all of that rule alone. An empty plan: that
 * was all. */
void explain_counters(struct explain *, struct str tier, const char *rule, struct counters_at *);
/* Adds what is in e->plan then to an array. */
void explain_add_counters(const struct explain *, json_t *list);
/* Which rules (or that rule) have no counters of such a client, with why. NULL: out of memory. */
json_t *explain_untouched_json(const struct explain *, const char *rule);
/* Which rules have such a client's requests in counters that others share: explain_counters() left
 * them out, unless `rule` is named. NULL: out of memory. */
json_t *explain_left_json(const struct explain *, const char *rule);
/* The first field that says nothing to this policy; NULL: there is none. */
const char *explain_unknown_field(const struct policy *, json_t *fields);

/* Instead of explain_plan() and a store's answer: as if nobody had come before. */
void explain_as_fresh(struct explain *, struct now);

/* By e->plan, now that it is answered. Once. NULL: out of memory. */
json_t *explain_json(struct explain *);

/* The name of the override that holds, as config/changes.h has it after "override:". false: none
 * does. */
enum { EXPLAIN_NAME_MAX = 320 };
bool explain_override(const struct explain *, char out[EXPLAIN_NAME_MAX]);

#endif
