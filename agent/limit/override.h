/* Overrides: what the operator has set for one client while the agent runs. Part of a policy:
 * filled by config/, sealed with it, then only read. Pure. */
#ifndef LIMIT_OVERRIDE_H
#define LIMIT_OVERRIDE_H

#include "limit/policy.h"

enum { OVERRIDES_MAX = 10000 };

/* Whom it is for; a client's are looked for in this order, and the first found holds. */
enum override_by {
	OVERRIDE_KEY,
	OVERRIDE_USER,
	OVERRIDE_USER_HASH,
	OVERRIDE_IP,
	OVERRIDE_IP_HASH,
};
enum { OVERRIDE_KINDS_OF_NAMES = OVERRIDE_IP_HASH + 1 };

enum override_kind {
	OVERRIDE_TIER,   /* he is on another tier */
	OVERRIDE_RATES,  /* other rates of some rules */
	OVERRIDE_BYPASS, /* no limit is applied */
	OVERRIDE_BLOCK,  /* always denied */
};

/* Its limits are the rule's, for this client alone: rule->special[special]. */
struct override_rates {
	uint16_t rule, special;
};

struct override {
	enum override_by by; /* with the next: by overrides_add() */
	struct cidr cidr;    /* OVERRIDE_IP: whom it is for; OVERRIDE_IP_HASH: its length alone */
	enum override_kind kind;
	char tier[TIER_NAME_MAX + 1];
	struct override_rates *rates; /* owned */
	unsigned rates_n;
};

struct overrides;

struct overrides *overrides_new(void);   /* empty; NULL: out of memory */
void overrides_free(struct overrides *); /* NULL is fine */

/* For a user by name; for a key, or a user whose name is secret, by the hex SHA-256 of that. Of
 * several for one the first counts. Takes over what `o` owns, also on false: out of memory, or
 * OVERRIDES_MAX are there. */
bool overrides_add(struct overrides *, enum override_by, struct str who, struct override *o);
/* For the addresses of a prefix; of several the longest holds. */
bool overrides_add_ip(struct overrides *, const struct cidr *, struct override *o);
/* The same, where addresses are secret: by override_ip_hash() and the prefix's length. A client's
 * is then hashed once for each length that occurs. */
bool overrides_add_ip_hash(
	struct overrides *, uint8_t length, const char hex[SHA256_HEX_BYTES], struct override *o);
/* The hex SHA-256 of a prefix as it is written: of a single address without its length. */
void override_ip_hash(const struct cidr *, char hex[SHA256_HEX_BYTES]);

unsigned overrides_count(const struct overrides *);

/* NULL: there is none for this client. */
const struct override *overrides_find(const struct overrides *, const struct view *);

#endif
