#include "store/redis_elect.h"

struct ballot {
	struct redis_addresses named;
	unsigned votes[REDIS_ADDRESSES_MAX];
	usec_t changed_at[REDIS_ADDRESSES_MAX];
};

static void vote(struct ballot *b, const struct redis_address *master, usec_t since)
{
	struct redis_addresses *a = &b->named;
	unsigned k = 0;

	while (k < a->n && !redis_address_eq(&a->address[k], master))
		k++;
	if (k == REDIS_ADDRESSES_MAX)
		return;
	if (k == a->n)
		a->address[a->n++] = *master;
	b->votes[k]++;
	if (since > b->changed_at[k])
		b->changed_at[k] = since;
}

static bool goes_before(const struct ballot *b, unsigned k, unsigned other)
{
	return b->votes[k] > b->votes[other] ||
	       (b->votes[k] == b->votes[other] && b->changed_at[k] > b->changed_at[other]);
}

void redis_elect(const struct redis_opinion *const opinion[], unsigned n, usec_t now,
	struct redis_addresses *out)
{
	struct ballot b = { 0 };

	for (unsigned i = 0; i < n; i++) {
		const struct redis_opinion *o = opinion[i];
		if (o->heard_at && now - o->heard_at <= REDIS_OPINION_LASTS)
			for (unsigned m = 0; m < o->masters.n; m++)
				vote(&b, &o->masters.address[m], o->changed_at);
	}
	*out = (struct redis_addresses){ .n = b.named.n };
	for (unsigned at = 0; at < out->n; at++) {
		unsigned best = REDIS_ADDRESSES_MAX;
		for (unsigned k = 0; k < out->n; k++)
			if (b.votes[k] && (best == REDIS_ADDRESSES_MAX || goes_before(&b, k, best)))
				best = k;
		out->address[at] = b.named.address[best];
		b.votes[best] = 0;
	}
}
