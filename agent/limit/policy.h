/* The policy: all rules of a snapshot, and what a request is to be charged by them. Pure:
 * (policy, view) -> plan. Built by config/, then immutable and shared by all threads. */
#ifndef LIMIT_POLICY_H
#define LIMIT_POLICY_H

#include "base/hash.h"
#include "limit/algorithm.h"
#include "limit/match.h"
#include "limit/view.h"

enum {
	PLAN_MAX = 32, /* limits for one request: config refuses more for one tier */
	RULES_MAX = 1024,
	TIERS_MAX = 4096,
	PER_MAX = 8, /* fields a rule counts by */
	PER_SHARED_MAX = 31,
	PER_ALT_MAX = 8, /* alternatives of one field */
	TIER_NAME_MAX = 63,
	RULE_NAME_MAX = 63,
};

enum rule_mode { MODE_ENFORCE, MODE_SHADOW, MODE_OFF };
enum rule_action { ACTION_DENY, ACTION_TAG };

struct limit {
	const struct rule *rule;
	struct quota quota;
	struct key salt;         /* hash of rule name, algorithm and window */
	double slowest_refill;   /* microseconds from empty to full, and */
	double slowest_interval; /* for one unit: the longest of all tiers that share this counter
				  */
	char label[RULE_NAME_MAX + 16]; /* "api", or "api:3600" where the rule has several */
};

/* The limits of one rule for one tier. */
struct limits {
	struct limit *limit;
	unsigned n; /* 0: not limited */
};

/* One element of `per`: the first present of its alternatives. */
struct per {
	uint8_t slot[PER_ALT_MAX];
	uint8_t n;
	struct key salt[PER_ALT_MAX]; /* hashes of place and name; by policy_seal() */
};

struct rule {
	char name[RULE_NAME_MAX + 1];
	uint8_t name_length; /* by policy_seal(), as that of tiers */
	struct match *match; /* owned; NULL: every request */
	struct per per[PER_MAX];
	uint8_t per_n; /* 0: one global counter */
	/* by policy_seal(): without alternatives, its fields are `per_all` and its names hash to
	 * `per_salt` (the salt of all first alternatives) */
	bool per_is_plain;
	uint8_t per_shared; /* a number that is not 0: rules that count by the same fields */
	uint64_t per_all;
	struct key per_salt;
	enum algorithm algorithm;
	enum rule_mode mode;
	enum rule_action action;
	char *tag; /* owned; never NULL when action is ACTION_TAG */
	bool count_denied;
	double warn_at; /* 1.0: never */
	uint8_t cost_slot;
	struct limits *tier; /* owned; policy->tier_n of them, by tier */
	struct limits other; /* `default`, or the only rate: for every tier not listed */
};

struct tier {
	char name[TIER_NAME_MAX + 1];
	uint8_t length;
};

struct tier_map; /* KEY-OR-USER -> tier, from the tiers file; may hold sha256:HEX of keys */

struct tier_map *tier_map_new(size_t lines);
/* `name` is KEY, USER or sha256:HEX. Of equal names the first counts (as HAProxy's maps have it).
 * false: out of memory. */
bool tier_map_add(struct tier_map *, struct str name, unsigned tier);
void tier_map_free(struct tier_map *);

struct policy {
	bool enabled;
	struct layout layout;
	uint64_t secret; /* slots that are only ever shown hashed */
	uint8_t ipv4_prefix, ipv6_prefix;
	struct rule *rule; /* owned */
	unsigned rule_n;
	struct tier *tier; /* owned; every tier that a rule, the tiers file or default_tier names */
	unsigned tier_n;
	struct names *tier_names; /* owned; the same, for looking up */
	unsigned default_tier;
	struct tier_map *tier_map;     /* owned; NULL: none */
	struct match **allow, **block; /* owned */
	unsigned allow_n, block_n;
	struct hash_key hash_key;
};

struct policy *policy_new(void);   /* empty; NULL: out of memory */
void policy_free(struct policy *); /* copes with the half-built */

/* The tier's number, added if new; -1: TIERS_MAX reached or too long. Before policy_seal(). */
int policy_tier_add(struct policy *, struct str name);
int policy_tier_find(const struct policy *, struct str name); /* -1: none of that name */

/* After everything is in its place: computes salts, labels, slowest refills, the layout's
 * text_wanted. Checks what only the whole can tell; on false `why` says it. */
bool policy_seal(struct policy *, const struct hash_key *, char *why, size_t why_size);

enum outcome { OUTCOME_LIMITS, OUTCOME_DISABLED, OUTCOME_BLOCKED, OUTCOME_BYPASSED };

/* A store's word on one take. */
struct verdict {
	bool admits;
	bool oversize;
	bool charged;        /* `state` differs from what was stored and has to be kept */
	struct bucket state; /* as it is after the request */
	double left;
	usec_t retry_after; /* until the cost would pass, as things are after the request; 0: now,
			     * or never (oversize) */
};

struct take {
	const struct limit *limit;
	struct key key;
	int64_t cost;       /* as asked; 0 asks without consuming */
	uint32_t per_found; /* which alternative each `per` found, 4 bits each: for the scope */
	struct verdict verdict;
};

struct plan {
	struct take take[PLAN_MAX];
	unsigned n;
	enum outcome outcome;
	bool denied; /* by plan_charge(): some rule that enforces does not admit it */
	char tier[TIER_NAME_MAX + 1]; /* copied: the view dies before an asynchronous answer */
	uint8_t tier_length;
	void (*done)(struct plan *); /* after STORE_PENDING */
};

/* What `view` is to be charged. Copies all that the plan keeps: the view may die after. A client
 * whose message brings no tier gets his from the tiers file, or the default one: rules see it as
 * the field `tier` then. */
void policy_plan(const struct policy *, struct view *, struct plan *);

/* How long a store has to keep `state` (as it is after the request): until it equals one never
 * seen for every tier that shares the counter, whatever its rate. At most two years. */
usec_t limit_keep_for(const struct limit *, const struct bucket *state, struct now);

/* How long until one unit passes again; 0: now. A counter for which this is not 0 is "at its
 * limit": what a full table lets go last. */
usec_t limit_open_after(const struct limit *, const struct bucket *state, struct now);

/* The scope of a take ("ip", "ip+endpoint", "global"), and its descriptor for people
 * ("ip=10.0.0.1", secret fields as sha256:… cut short). Both return the length written, cut at
 * `size`. */
size_t take_scope(const struct policy *, const struct take *, char *out, size_t size);
size_t take_describe(
	const struct policy *, const struct take *, const struct view *, char *out, size_t size);

#endif
