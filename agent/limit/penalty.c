#include "limit/penalty.h"

#include <stddef.h>
#include <string.h>

static struct key xor_keys(struct key a, struct key b)
{
	return (struct key){ a.a ^ b.a, a.b ^ b.b };
}

void penalty_seal(const struct policy *p, struct rule *r)
{
	struct penalty *n = r->penalty;

	n->strikes = (struct rule){
		.name_length = r->name_length, .algorithm = n->after.algorithm, .warn_at = 1.0
	};
	memcpy(n->strikes.name, r->name, sizeof r->name);
	n->limit = (struct limit){ .rule = &n->strikes, .quota = n->after };
	memcpy(n->limit.label, r->name, sizeof r->name);
	n->limit.local = &n->limit;
	n->limit.slowest_interval = (double)n->after.window.length / (double)n->after.units;
	n->limit.slowest_refill = (double)n->after.window.length;
	/* A ban is known by how denials were counted at first, in a bucket: those of earlier
	 * releases hold, and agents of both share them. */
	n->salt = policy_salt(p, "ban",
		&(struct limit){ .rule = &n->strikes,
			.quota = { .algorithm = ALGORITHM_TOKEN_BUCKET,
				.window = { WINDOW_LENGTH, n->after.window.length } } });
	n->strikes.epoch = r->epoch; /* a reset forgets denials, and lifts no ban */
	n->limit.salt = policy_salt(p, "strikes", &n->limit);
}

usec_t penalty_length(const struct penalty *n, unsigned level)
{
	double length = (double)n->ban;

	for (unsigned i = 0; i < level && length < (double)n->max; i++) {
		if (n->factor <= 1)
			break;
		length *= n->factor;
	}
	return length < (double)n->max ? (usec_t)length : n->max;
}

/* A take's key is its descriptor and its limit's salt, each of which the other does not know. */
static struct key descriptor_of(const struct take *t)
{
	return xor_keys(t->key, t->limit->salt);
}

struct key take_ban_key(const struct take *t)
{
	return xor_keys(descriptor_of(t), t->limit->rule->penalty->salt);
}

bool plan_strikes(const struct plan *from, struct plan *to, uint8_t of[PLAN_MAX])
{
	const struct rule *last = NULL;

	memset(&to->n, 0, sizeof *to - offsetof(struct plan, n));
	for (unsigned i = 0; i < from->n; i++) {
		const struct take *t = &from->take[i];
		const struct rule *r = t->limit->rule;
		if (!r->penalty || t->verdict.admits || t->cost == 0 || r == last ||
			r->mode != MODE_ENFORCE || r->action != ACTION_DENY)
			continue;
		last = r;
		of[to->n] = (uint8_t)i;
		to->take[to->n++] = (struct take){
			.limit = &r->penalty->limit,
			.key = xor_keys(descriptor_of(t), r->penalty->limit.salt),
			.cost = 1,
			.per_found = t->per_found,
		};
	}
	return to->n > 0;
}

void strikes_begin_anew(struct take *strike, uint32_t epoch)
{
	strike->key.a ^= UINT64_C(0x9e3779b97f4a7c15) * epoch;
}

bool take_is_out(const struct take *strike)
{
	return !strike->verdict.admits || strike->verdict.left < 1;
}
