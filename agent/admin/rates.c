#include "admin/rates.h"

void rates_add(struct rates *r, uint64_t allowed, uint64_t denied)
{
	r->sample[r->at] = (struct rates_sample){ allowed, denied };
	r->at = (r->at + 1) % RATES_KEPT;
	if (r->n < RATES_KEPT)
		r->n++;
}

static const struct rates_sample *back(const struct rates *r, unsigned n)
{
	return &r->sample[(r->at + RATES_KEPT - 1 - n) % RATES_KEPT];
}

struct rates_over rates_of(const struct rates *r, unsigned seconds)
{
	if (r->n < 2)
		return (struct rates_over){ 0 };
	if (seconds > r->n - 1)
		seconds = r->n - 1;
	const struct rates_sample *now = back(r, 0), *then = back(r, seconds);
	struct rates_over o = { now->allowed - then->allowed, now->denied - then->denied, seconds,
		0. };
	if (o.allowed + o.denied)
		o.denial_rate = (double)o.denied / (double)(o.allowed + o.denied);
	return o;
}
