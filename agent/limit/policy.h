/* The policy: all rules of a snapshot. Built by config/, sealed, then immutable and shared by all
 * threads. What a request is charged by it: limit/plan.h. */
#ifndef LIMIT_POLICY_H
#define LIMIT_POLICY_H

#include "base/hash.h"
#include "limit/algorithm.h"
#include "limit/match.h"
#include "limit/tiers.h"
#include "limit/view.h"

enum {
	PLAN_MAX = 32, /* limits for one request: config refuses more for one tier */
	RULES_MAX = 1024,
	RULE_WINDOWS_MAX = 64, /* different ones, of all tiers */
	TIERS_MAX = 4096,
	PER_MAX = 8,         /* fields a rule counts by */
	PER_SHARED_MAX = 31, /* groups of rules that share the hash of their values */
	PER_ALT_MAX = 8,     /* alternatives of one field */
	TIER_NAME_MAX = 63,
	RULE_NAME_MAX = 63,
};

enum rule_mode { MODE_ENFORCE, MODE_SHADOW, MODE_OFF };
enum rule_action { ACTION_DENY, ACTION_TAG };
enum on_failure { ON_FAILURE_LOCAL, ON_FAILURE_OPEN, ON_FAILURE_CLOSED };

struct limit {
	const struct rule *rule;
	struct quota quota;
	const struct limit *local; /* this agent's share of it while the store is away; may be
				    * itself. By policy_seal() */
	const struct limit *whole; /* of a share: what it is the share of; else NULL */
	struct key salt;           /* hash of rule name, algorithm and window; the lowest bit of .b
				    * is that of its keys */
	double slowest_refill;     /* microseconds from empty to full, and */
	double slowest_interval;   /* for one unit: the longest of all tiers that share this counter
				    */
	char label[RULE_NAME_MAX + 20]; /* "api", or "api:3600" where the rule has several; no two
					 * of a rule are the same */
};

/* The limits of one rule for one tier. */
struct limits {
	struct limit *limit;
	unsigned n;          /* 0: not limited */
	struct limit *share; /* owned; n of them, or NULL: every limit is its own */
};

/* One element of `per`: the first present of its alternatives. */
struct per {
	uint8_t slot[PER_ALT_MAX];
	uint8_t n;
	struct key salt[PER_ALT_MAX]; /* hashes of the names; by policy_seal() */
};

struct rule {
	char name[RULE_NAME_MAX + 1];
	uint8_t name_length; /* by policy_seal(), as that of tiers */
	struct match *match; /* owned; NULL: every request */
	struct per per[PER_MAX];
	uint8_t per_n; /* 0: one global counter */
	/* by policy_seal(): without alternatives, its fields are `per_all`, its names hash to
	 * `per_salt` (the salt of all first alternatives), and its values are hashed in the order
	 * of `per_slot` */
	bool per_is_plain;
	uint8_t per_slot[PER_MAX];
	uint8_t per_shared; /* a number that is not 0: rules that count by the same fields */
	uint64_t per_all;
	struct key per_salt;
	enum algorithm algorithm;
	enum rule_mode mode;
	enum rule_mode configured; /* whatever a switch has made of it */
	enum rule_action action;
	enum on_failure on_failure;
	char *tag; /* owned; never NULL when action is ACTION_TAG */
	bool count_denied;
	double lease;   /* share of a limit that this agent takes ahead; 0: none */
	double warn_at; /* 1.0: never */
	uint8_t cost_slot;
	uint32_t tally;         /* where what it decides is counted: who counts sets it, and */
	uint64_t mark;          /* a number by which it is known in a sum of such */
	struct limits *tier;    /* owned; policy->tier_n of them, by tier */
	struct limits other;    /* `default`, or the only rate: for every tier not listed */
	struct limits *special; /* owned; of overrides (limit/override.h) */
	unsigned special_n;
	struct penalty *penalty; /* owned; limit/penalty.h; NULL: none */
	uint32_t epoch; /* how often all its counters were reset: they are other ones then */
};

struct tier {
	char name[TIER_NAME_MAX + 1];
	uint8_t length;
	uint16_t tally; /* as a rule's */
};

struct policy {
	bool enabled;
	struct layout layout;
	uint64_t secret; /* slots that are only ever shown hashed */
	uint8_t ipv4_prefix, ipv6_prefix;
	struct rule *rule; /* owned */
	unsigned rule_n;
	struct tier *tier; /* owned; every tier that a rule, the tiers file or default_tier names */
	unsigned tier_n;
	unsigned tier_named;      /* the first of them: a rule or default_tier names these */
	struct names *tier_names; /* owned; the same, for looking up */
	unsigned default_tier;
	bool lists_tiers; /* some rule's rate or match does */
	struct match
		*tiers_matched;    /* owned; what matches and lists name of tiers; NULL: nothing */
	struct tier_map *tier_map; /* owned; NULL: none */
	struct match **allow, **block; /* owned */
	unsigned allow_n, block_n;
	struct overrides *overrides; /* owned; NULL: there are none */
	struct hasher hasher;        /* of descriptors */
	bool has_penalties;          /* by policy_seal() */
	unsigned instances; /* that share the store: limit->local is this part of each. 0 is 1 */
};

struct policy *policy_new(void);   /* empty; NULL: out of memory */
void policy_free(struct policy *); /* copes with the half-built */

/* The tier's number, added if new; -1: TIERS_MAX reached or too long. Before policy_seal(). */
int policy_tier_add(struct policy *, struct str name);
int policy_tier_find(const struct policy *, struct str name); /* -1: none of that name */

/* Whether some `match`, `allow` or `block` names this tier. */
bool policy_matches_tier(const struct policy *, struct str name);
/* Whether a name that no rate has (policy_tier_find() finds none, or a tier of the tiers file's
 * own) is as a rule a typing error: rules list tiers, and nothing names this one. */
bool policy_misses_tier(const struct policy *, struct str name);
/* Is a field secret by `now` that `before` showed? */
bool policy_hides_more(const struct policy *now, const struct policy *before);

/* After everything is in its place: computes salts, labels, slowest refills, the layout's
 * text_wanted. Checks what only the whole can tell; on false `why` says it. */
bool policy_seal(struct policy *, const struct hash_key *, char *why, size_t why_size);

/* Which alternative each element of `per` found: 4 bits each, the first element's lowest. */
static inline unsigned per_alternative(uint32_t found, unsigned element)
{
	return found >> 4 * element & 15;
}

/* In what order the elements' values are hashed: by their names' hashes, so that it is no matter in
 * which order a rule has them. */
void per_in_order(const struct rule *, uint32_t found, uint8_t element[PER_MAX]);

/* What the keys of one kind of counter have in common, for penalty_seal(). */
struct key policy_salt(const struct policy *, const char *kind, const struct limit *);

#endif
