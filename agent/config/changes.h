/* What the operator changes while the agent runs: switches, resets, overrides. It is kept beside
 * the configuration, through reloads and restarts, and applied by config_rebuild().
 *
 * A change is a JSON object under a name. That is what the state file, Redis and the admin
 * interface have of it:
 *
 *   switch:            {"mode":"off"}                     all rules; "enforce" and "shadow" where
 *                                                         the configuration has enabled = false,
 *                                                         too, but not of rules that are off
 *   switch:RULE        {"mode":"shadow"}                  one of them
 *   epoch:             {"epoch":3}                        all counters begin anew with each
 *   epoch:RULE         {"epoch":1}                        those of one rule
 *   override:user:NAME {"tier":"premium"}                 what is set for one client: another
 *   override:key:sha256:HEX {"rates":{"api":"100/minute"}}  tier, other rates (a string or a list
 *   override:ip:CIDR   {"bypass":true}, {"block":true}    for each rule), no limit, or none passes
 *   override:user:sha256:HEX                              where users are secret
 *   override:ip:sha256:HEX/24                             where addresses are: override_ip_hash()
 *   reset:HEX          {"keys":["HEX",…],"at":1}          counters that began anew; soon forgotten
 *
 * and in each, where it is known: "until" (Unix seconds; it ends then), "since", "who", "reason".
 * That is format 1. One with another "format" is a newer release's, who writes it where this one
 * would misread what it says: it is refused, and left alone where it stands.
 *
 * One thread: control. */
#ifndef CONFIG_CHANGES_H
#define CONFIG_CHANGES_H

#include "base/addr.h"
#include "base/str.h"
#include "limit/policy.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	CHANGES_MAX = 10000,
	CHANGE_NAME_MAX = 320,
	CHANGE_REASON_MAX = 500,
	CHANGE_TEXT_MAX = 4096, /* of one, as JSON */
	RESET_KEYS_MAX = 2 * PLAN_MAX,
	CHANGE_FORMAT = 1,
};

struct changes;

struct changes *changes_new(void); /* NULL: out of memory */
void changes_free(struct changes *);

/* In the place of one of that name. Takes its own reference of `value`. false: `err` says what is
 * wrong with it and what is wanted, and nothing has changed. */
bool changes_put(struct changes *, const char *name, json_t *value, char *err, size_t err_size);
bool changes_put_text(
	struct changes *, const char *name, struct str json, char *err, size_t err_size);
/* false: there is none of that name. */
bool changes_remove(struct changes *, const char *name);

/* Takes one out, if it is there, until it is put back in the place of what is there by then, or
 * freed. Neither wants memory. */
struct change_out {
	char *name; /* NULL: there was none */
	json_t *value;
};
void changes_take(struct changes *, const char *name, struct change_out *);
void changes_put_back(struct changes *, const char *name, struct change_out *);
void change_out_fini(struct change_out *);

/* In the order of their names, where `name` begins with `prefix`: calls `each` for all of them.
 * `value` is borrowed. */
void changes_each(const struct changes *, const char *prefix,
	void (*each)(void *with, const char *name, json_t *value), void *with);
/* The same for the next `n` of all of them, after `name` (which need not be there any more; "":
 * from the first on). Returns how many there were; less than `n`: there are no more. */
size_t changes_after(const struct changes *, const char *name, size_t n,
	void (*each)(void *with, const char *name, json_t *value), void *with);
/* Borrowed; NULL: there is none. */
json_t *changes_get(const struct changes *, const char *name);
size_t changes_count(const struct changes *);

/* When the next one ends, in Unix seconds; INT64_MAX: none does. */
int64_t changes_next_end(const struct changes *);
/* Takes out those that end at `now` or did before, after a call of `ended` for each (NULL: none).
 * Returns how many. */
size_t changes_end(struct changes *, int64_t now,
	void (*ended)(void *with, const char *name, json_t *value), void *with);

/* The name of an override's subject, "user:alice", "key:sha256:HEX", "ip:192.0.2.0/24", from what a
 * person says: `by` is user, key or ip; each is its value or sha256:HEX (of a prefix with its
 * length after it). A key is hashed in any case, the others where they are `secret`. false: `err`
 * says why.
 */
bool change_subject(const char *by, struct str value, bool secret, char out[CHANGE_NAME_MAX],
	char *err, size_t err_size);

/* The name of the reset of these counters, of which there is one at least, and it as a change; at
 * most RESET_KEYS_MAX. */
void change_reset_name(const struct key *, unsigned n, char out[CHANGE_NAME_MAX]);
json_t *change_reset(const struct key *, unsigned n, usec_t at); /* NULL: out of memory */
/* The other way; returns how many. `value` is one that was put. */
unsigned change_reset_keys(json_t *value, struct key out[RESET_KEYS_MAX]);

/* Of what is kept under a name, a ban's too: whether this release can read it. false: `err` says
 * why. */
bool change_format_is_known(json_t *value, char *err, size_t err_size);

/* enum rule_mode by its name; -1: there is none so called. NULL is none. */
int change_mode(const char *text);

#endif
