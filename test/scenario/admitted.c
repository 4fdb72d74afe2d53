#include "admitted.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t seed_now;
unsigned failures;

bool hold(bool ok, const char *format, ...)
{
	if (ok)
		return true;
	va_list args;
	va_start(args, format);
	fprintf(stderr, "seed %" PRIu64 ": ", seed_now);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	failures++;
	return false;
}

static int by_time(const void *a, const void *b)
{
	const struct admitted *x = a, *y = b;
	return x->at != y->at ? (x->at < y->at ? -1 : 1) : x->order < y->order ? -1 : 1;
}

static int by_redis_time(const void *a, const void *b)
{
	const struct admitted *x = a, *y = b;
	return x->redis_at != y->redis_at ? (x->redis_at < y->redis_at ? -1 : 1)
	       : x->order < y->order      ? -1
					  : 1;
}

/* A millionth of a unit: rounding may admit that much early, and no more. */
#define EARLY 1e-6

static void check_denial(const struct quota *q, double leases, double left)
{
	hold(left < 1 + EARLY + leases,
		"denied with %.9g units left of %" PRId64 " (%" PRId64 " a %" PRId64
		" ms), and leases are %g",
		left, q->capacity, q->units, q->window.length / MS, leases);
}

static void check_tokens(
	const struct quota *q, struct admitted *list, unsigned n, double leases, double besides)
{
	double used = 0, capacity = (double)q->capacity;
	usec_t at = 0;

	qsort(list, n, sizeof *list, by_time);
	for (unsigned i = 0; i < n && !failures; i++) {
		const struct admitted *a = &list[i];
		used -= (double)(a->at - at) * (double)q->units / (double)q->window.length;
		used = used > 0 ? used : 0;
		at = a->at;
		if (a->cost == DENIED) {
			check_denial(q, leases, capacity - used);
			continue;
		}
		used += (double)a->cost;
		hold(used <= capacity + besides + EARLY,
			"token bucket: %.9g units at once of %" PRId64 " (%" PRId64 " a %" PRId64
			" ms, leases %g)",
			used, q->capacity, q->units, q->window.length / MS, leases);
	}
}

static void check_windows(
	const struct quota *q, struct admitted *list, unsigned n, double leases, double besides)
{
	usec_t length = q->window.length, start = 0;
	int64_t current = 0, previous = 0;

	qsort(list, n, sizeof *list, by_redis_time);
	for (unsigned i = 0; i < n && !failures; i++) {
		const struct admitted *a = &list[i];
		usec_t of = a->redis_at / length * length;
		if (of != start) {
			previous = of == start + length ? current : 0;
			current = 0;
			start = of;
		}
		double estimate = (double)current;
		if (q->algorithm == ALGORITHM_SLIDING_WINDOW)
			estimate += (double)previous * (double)(length - (a->redis_at - of)) /
				    (double)length;
		if (a->cost == DENIED) {
			check_denial(q, leases, (double)q->units - estimate);
			continue;
		}
		current += a->cost;
		hold(estimate + (double)a->cost <= (double)q->units + besides + EARLY,
			"window: %.9g units of %" PRId64 " (leases %g)", estimate + (double)a->cost,
			q->units, leases);
	}
}

void admitted_check(
	const struct quota *q, struct admitted *list, unsigned n, double leases, double besides)
{
	if (q->algorithm == ALGORITHM_TOKEN_BUCKET)
		check_tokens(q, list, n, leases, besides);
	else
		check_windows(q, list, n, leases, besides);
}
