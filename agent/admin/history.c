#include "admin/history.h"

/* Within which bucket the quantile `share` lies, as its bound. */
static uint64_t quantile(const struct histogram_sum *h, uint64_t all, double share)
{
	double want = (double)all * share;
	uint64_t seen = 0;

	for (unsigned i = 0; i < HISTOGRAM_BOUNDS; i++) {
		seen += h->count[i];
		if ((double)seen >= want)
			return histogram_bound(i);
	}
	return histogram_bound(HISTOGRAM_BOUNDS - 1);
}

void history_add(struct history *h, const struct history_sums *now)
{
	const struct history_sums *last = &h->last;
	struct histogram_sum time = { 0 };
	struct history_second s = { .allowed = now->allowed - last->allowed,
		.denied = now->denied - last->denied,
		.shadow = now->shadow - last->shadow };

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		time.count[i] = now->time.count[i] - last->time.count[i];
		s.timed += time.count[i];
	}
	if (s.timed) {
		s.p50 = quantile(&time, s.timed, 0.5);
		s.p99 = quantile(&time, s.timed, 0.99);
	}
	if (h->begun)
		h->second[h->n++ % HISTORY_SECONDS] = s;
	h->begun = true;
	h->last = *now;
}

uint64_t history_first(const struct history *h, uint64_t after)
{
	uint64_t kept = h->n < HISTORY_SECONDS ? 0 : h->n - HISTORY_SECONDS;

	return after < kept || after > h->n ? kept : after;
}

const struct history_second *history_at(const struct history *h, uint64_t number)
{
	return &h->second[number % HISTORY_SECONDS];
}
