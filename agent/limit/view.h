/* What a request says of itself, as fields in slots. A layout gives every field name that the
 * policy knows its slot; a view holds one request's values. Knows nothing of SPOP: server/check.c
 * hands over typed values, this file makes them canonical (CONTRACT.md section 4, Semantics).
 *
 * A view borrows: texts point into the request's bytes or into the view's scratch memory, and all
 * of it ends with view_init() for the next request. One thread. */
#ifndef LIMIT_VIEW_H
#define LIMIT_VIEW_H

#include "base/addr.h"
#include "base/str.h"

#include <stdint.h>

enum { FIELDS_MAX = 64, FIELD_NAME_MAX = 63 };

/* The slots that every layout has. */
enum field_slot {
	FIELD_MESSAGE, /* the message's whole name */
	FIELD_IP,      /* an address, in view.ip; no text */
	FIELD_USER,
	FIELD_KEY,
	FIELD_TIER,
	FIELD_METHOD,
	FIELD_PATH, /* normalised, where some rule looks at it (text_wanted) */
	FIELD_HOST, /* lower case, without port and final dot; likewise */
	FIELD_COST,
	FIELD_ENDPOINT, /* derived: METHOD:/path; an arg of that name is ignored */
	FIELD_BUILTINS
};

struct layout {
	struct {
		char name[FIELD_NAME_MAX + 1]; /* padded with zeros */
		uint8_t length;
	} field[FIELDS_MAX];
	unsigned n;
	uint64_t text_wanted; /* slots that some rule matches or counts by: their text is needed */
	uint8_t bucket[128];  /* slot + 1 by a hash of the name; 0 is none; linear probing */
};

void layout_init(struct layout *); /* with the built-in names */

/* The slot of `name`, added if new. -1: FIELDS_MAX slots are taken, or the name is too long. */
int layout_add(struct layout *, struct str name);

/* -1: no rule knows this name. `endpoint` and `message` are never filled by an arg: -1 too. */
int layout_find_arg(const struct layout *, struct str name);

struct view {
	const struct layout *layout;
	uint64_t seen;    /* slots that an arg has named, whatever it held: the first one counts */
	uint64_t present; /* slots that hold something: not NULL, not "", not a wrong address */
	uint64_t integer; /* slots whose `number` counts */
	uint64_t normalised; /* slots whose text is not taken as it is */
	uint64_t hashed; /* slots whose text is the hex SHA-256 of a value that is not known: never
			  * of a request, of a question about one or a log's line */
	struct str text[FIELDS_MAX];
	int64_t number[FIELDS_MAX];
	struct addr ip;
	char *scratch, *scratch_end; /* the caller's; what is left of it */
};

/* `scratch` must hold 3 x the request's bytes + FIELDS_MAX x ADDR_TEXT_MAX: then nothing is ever
 * cut. With less, a value that does not fit counts as absent. */
void view_init(
	struct view *, const struct layout *, struct str message, char *scratch, size_t size);

/* One for each type of value. The slot must not be FIELD_MESSAGE or FIELD_ENDPOINT. In line is what
 * HAProxy sends most. */
void view_set_null(struct view *, unsigned slot);
void view_set_normalised(struct view *, unsigned slot, struct str); /* of view.normalised */

/* For who knows that it is the first of its name, and taken as it is. `bit` is 1 << slot. */
static inline void view_put_text(struct view *v, unsigned slot, uint64_t bit, struct str s)
{
	v->seen |= bit;
	v->text[slot] = s;
	v->present |= s.n ? bit : 0;
}

static inline void view_set_text(struct view *v, unsigned slot, struct str s)
{
	uint64_t bit = 1ull << slot;

	if (bit & v->normalised) {
		view_set_normalised(v, slot, s);
	} else if (!(v->seen & bit)) {
		view_put_text(v, slot, bit, s);
	}
}

void view_set_binary(struct view *, unsigned slot, struct str); /* `ip`: 4 or 16 are an address */
void view_set_integer(struct view *, unsigned slot, int64_t);
void view_set_unsigned(struct view *, unsigned slot, uint64_t); /* as a cost at most INT64_MAX */
void view_set_boolean(struct view *, unsigned slot, bool);
/* Of a secret value only its SHA-256: "sha256:" and 64 hex digits. false: `s` is not that, and
 * nothing was set. */
bool view_set_hash(struct view *, unsigned slot, struct str s);
void view_set_other_addr(struct view *, unsigned slot, const uint8_t *bytes, size_t n);

static inline void view_set_addr(struct view *v, unsigned slot, const uint8_t *bytes, size_t n)
{
	if (slot != FIELD_IP || n != 4 || v->seen >> FIELD_IP & 1) {
		view_set_other_addr(v, slot, bytes, n);
		return;
	}
	v->seen |= 1ull << FIELD_IP;
	v->present |= 1ull << FIELD_IP;
	v->ip = (struct addr){ .len = 4 };
	memcpy(v->ip.bytes, bytes, 4);
}

/* After the last set: derives what is derived (endpoint). */
void view_finish(struct view *);

static inline bool view_has(const struct view *v, unsigned slot)
{
	return v->present >> slot & 1;
}

/* The tier of who has brought none. `tier` is borrowed as all texts are. */
static inline void view_put_tier(struct view *v, struct str tier)
{
	v->text[FIELD_TIER] = tier;
	v->present |= 1ull << FIELD_TIER;
}

/* What the field says as a cost: CONTRACT.md: no integer, or below 0, counts as 1. */
int64_t view_cost(const struct view *, unsigned slot);

#endif
