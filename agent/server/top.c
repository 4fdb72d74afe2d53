#include "server/top.h"

#include "server/describe.h"
#include "server/tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COST_MAX = 1000 * 1000 * 1000 }; /* more is in no quota */

static const enum top_stream stream_of[] = {
	[TOP_DENIED] = TOP_OF_DENIALS,
	[TOP_ENDPOINTS] = TOP_OF_DENIALS,
	[TOP_CHECKED] = TOP_OF_CHECKS,
	[TOP_COST] = TOP_OF_UNITS,
	[TOP_SHADOW] = TOP_OF_SHADOWS,
};

struct top *top_new(void)
{
	struct top *t = calloc(1, sizeof *t);

	if (!t)
		return NULL;
	for (unsigned i = 0; i < 2 * TOP_KINDS; i++) {
		t->sketch[i / 2][i % 2] = sketch_new();
		if (!t->sketch[i / 2][i % 2]) {
			top_free(t);
			return NULL;
		}
	}
	for (unsigned i = 0; i < TOP_STREAMS; i++) {
		struct hash_key seed;
		uint64_t word;
		hash_key_random(&seed);
		memcpy(&word, &seed, sizeof word);
		sampler_init(&t->sampler[i], word);
	}
	return t;
}

void top_free(struct top *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < 2 * TOP_KINDS; i++)
		sketch_free(t->sketch[i / 2][i % 2]);
	free(t);
}

/* ---- a worker ---- */

static uint64_t epoch_at(usec_t now)
{
	return (uint64_t)(now / TOP_HALF) + 1;
}

static void begin_half(struct top *t, uint64_t epoch)
{
	t->epoch = epoch;
	for (unsigned i = 0; i < TOP_STREAMS; i++)
		atomic_store_explicit(&t->one_in[i][epoch % 2], 1, memory_order_relaxed);
	for (unsigned i = 0; i < TOP_KINDS; i++)
		sketch_begin(t->sketch[i][epoch % 2], epoch);
}

void top_forget(struct top *t)
{
	if (!t->epoch)
		return;
	for (unsigned i = 0; i < TOP_KINDS; i++) {
		sketch_begin(t->sketch[i][t->epoch % 2], t->epoch);
		sketch_begin(t->sketch[i][(t->epoch + 1) % 2], 0);
	}
}

static void note_rates(struct top *t)
{
	for (unsigned i = 0; i < TOP_STREAMS; i++) {
		_Atomic(uint64_t) *most = &t->one_in[i][t->epoch % 2];
		uint64_t every = t->sampler[i].every;
		if (every > atomic_load_explicit(most, memory_order_relaxed))
			atomic_store_explicit(most, every, memory_order_relaxed);
		atomic_store_explicit(&t->one_in_now[i], every, memory_order_relaxed);
	}
}

static void look_at_rates(struct top *t, usec_t now)
{
	const usec_t pause = SAMPLER_LOOK_MS * USEC_PER_MSEC;
	usec_t past = now - t->looked_at;
	double seconds = (double)(past > pause ? past : pause) / (double)USEC_PER_SEC;
	struct sampler *s = t->sampler;

	sampler_look(&s[TOP_OF_CHECKS], seconds, false);
	sampler_look(&s[TOP_OF_DENIALS], seconds, false);
	sampler_look(&s[TOP_OF_SHADOWS], seconds, false);
	sampler_look(&s[TOP_OF_UNITS], seconds, s[TOP_OF_CHECKS].every == 1);
	t->looked_at = now;
	atomic_store_explicit(&t->look_next, now + pause, memory_order_relaxed);
}

/* Its descriptor and its rule, whatever the limit. */
static struct key key_of(const struct take *t)
{
	const struct key *salt = &t->limit->salt;
	uint64_t rule = t->limit->rule->tally * UINT64_C(0x9e3779b97f4a7c15);

	return (struct key){ t->key.a ^ salt->a ^ rule, (t->key.b ^ salt->b) | 1 };
}

static uint32_t place_of(const struct rule *r)
{
	return r ? r->tally / TALLY_ROW : 0;
}

static const struct rule *rule_of(const struct take *t)
{
	return t ? t->limit->rule : NULL;
}

/* false: `weight` is left for when there is a name. */
static bool count(struct top *t, enum top_kind kind, const struct take *take, uint64_t weight)
{
	return !weight ||
	       (take && sketch_count(t->sketch[kind][t->epoch % 2], key_of(take), weight));
}

/* What they stand for, each stream of its own. What has come is put back first: where it is time
 * for other rates, it comes by these. */
static void turn_samplers(struct top *t, const struct plan *plan, const struct decision *d,
	uint64_t stands_for[TOP_STREAMS])
{
	usec_t now = plan->now.steady;
	usec_t next = atomic_load_explicit(&t->look_next, memory_order_relaxed);
	int64_t units = top_units(d);
	int64_t n[] = { 1, d->deny, units < COST_MAX ? units : COST_MAX, d->shadow != NULL };

	for (unsigned i = 0; i < TOP_STREAMS; i++)
		t->sampler[i].left += i == TOP_OF_UNITS ? units : n[i];
	/* By the rates till now some may have been passed over in this half: so they are known,
	 * also where nothing was taken. */
	if (next > (usec_t)(t->epoch - 1) * TOP_HALF)
		note_rates(t);
	if (now >= next)
		look_at_rates(t, now);
	for (unsigned i = 0; i < TOP_STREAMS; i++) {
		(void)sampler_pass(&t->sampler[i], n[i]);
		stands_for[i] = sampler_turn(&t->sampler[i]);
	}
	note_rates(t);
}

bool top_add(
	struct top *t, const struct plan *plan, const struct decision *d, struct top_rest *rest)
{
	bool only_asks = d->reported && d->reported->cost == 0; /* and nobody was refused */
	uint64_t epoch = epoch_at(plan->now.steady), stands_for[TOP_STREAMS];
	bool more = false;

	if (epoch != t->epoch)
		begin_half(t, epoch);
	turn_samplers(t, plan, d, stands_for);
	rest->shadow = decision_shadow(plan, d);
	for (unsigned i = 0; i < TOP_KINDS; i++) {
		const struct take *take = i == TOP_SHADOW ? rest->shadow : decision_known_by(d);
		bool of_all = stream_of[i] == TOP_OF_CHECKS || stream_of[i] == TOP_OF_UNITS;
		bool asked = i == TOP_SHADOW ? take && take->cost == 0 : only_asks;
		bool counts = of_all ? d->reported != NULL : !asked;
		uint64_t weight = counts ? stands_for[stream_of[i]] : 0;
		bool done = i != TOP_ENDPOINTS && count(t, i, take, weight);
		rest->weight[i] = done ? 0 : weight;
		more |= rest->weight[i] > 0;
	}
	return more;
}

static void add(struct top *t, enum top_kind kind, struct key k, uint64_t weight, uint32_t rule,
	struct str name)
{
	struct sketch *s = t->sketch[kind][t->epoch % 2];

	if (!sketch_count(s, k, weight))
		sketch_put(s, k, weight, rule, name);
}

/* Of names that begin alike for longer than is kept of them, each is one of its own. */
static size_t tell_apart(char name[SKETCH_NAME_MAX], size_t n, struct key k)
{
	enum { DIGITS = 8 };
	char end[2 + DIGITS + 1];

	if (n < SKETCH_NAME_MAX)
		return n;
	(void)snprintf(end, sizeof end, "..%08x", (unsigned)(k.b >> 32));
	n = SKETCH_NAME_MAX - (2 + DIGITS);
	while (n && ((uint8_t)name[n] & 0xc0) == 0x80) /* not within a character */
		n--;
	memcpy(name + n, end, 2 + DIGITS);
	return n + 2 + DIGITS;
}

/* Its client, to those of the lists `kinds` (a bit each) that want one. */
static void add_client(struct top *t, const struct policy *p, const struct take *take,
	const struct rule *rule, const struct view *v, const struct top_rest *rest, unsigned kinds)
{
	char name[SKETCH_NAME_MAX];
	bool is_wanted = false;

	for (unsigned i = 0; i < TOP_KINDS; i++)
		is_wanted |= (kinds >> i & 1) && rest->weight[i];
	if (!is_wanted)
		return;
	struct str s = { name, describe_client(p, take, v, name, sizeof name) };
	struct key k = take ? key_of(take) : hasher_of(&p->hasher, s.p, s.n);
	s.n = tell_apart(name, s.n, k);
	for (unsigned i = 0; i < TOP_KINDS; i++)
		if ((kinds >> i & 1) && rest->weight[i])
			add(t, i, k, rest->weight[i], place_of(rule), s);
}

void top_add_rest(struct top *t, const struct policy *p, const struct decision *d,
	const struct view *v, const struct top_rest *rest)
{
	enum { OF_SHADOW = 1 << TOP_SHADOW, OF_NO_CLIENT = 1 << TOP_ENDPOINTS | OF_SHADOW };
	const struct take *known_by = decision_known_by(d);
	const struct rule *reported = rule_of(known_by);
	char name[SKETCH_NAME_MAX];

	add_client(t, p, known_by, reported, v, rest, ~(unsigned)OF_NO_CLIENT);
	add_client(t, p, rest->shadow, d->shadow, v, rest, OF_SHADOW);
	if (rest->weight[TOP_ENDPOINTS]) {
		size_t n = describe_endpoint(p, v, name, sizeof name);
		struct key k = hasher_of(&p->hasher, name, n);
		k.a ^= place_of(reported) * UINT64_C(0x9e3779b97f4a7c15);
		if (n)
			add(t, TOP_ENDPOINTS, k, rest->weight[TOP_ENDPOINTS], place_of(reported),
				(struct str){ name, n });
	}
}

/* ---- control ---- */

/* An item of one sketch, and what a key that it does not have may have had there. */
struct found {
	struct sketch_item item;
	unsigned of;
	uint64_t least;
	bool sampled;
};

/* Weights: what was counted for certain, and [1] what samples stand for. */
struct sums {
	uint64_t least[2], most[2];
};

static uint64_t at_most(const struct sums *s, uint64_t one_in)
{
	return s->most[0] + sampler_at_most(s->most[1], one_in);
}

static uint64_t at_least(const struct sums *s, uint64_t one_in)
{
	return s->least[0] + sampler_at_least(s->least[1], one_in);
}

static int by_name(const void *a, const void *b)
{
	const struct found *x = a, *y = b;
	if (x->item.group != y->item.group)
		return x->item.group < y->item.group ? -1 : 1;
	return strcmp(x->item.name, y->item.name);
}

static int by_name_and_sketch(const void *a, const void *b)
{
	const struct found *x = a, *y = b;
	int order = by_name(a, b);
	return order ? order : (x->of > y->of) - (x->of < y->of);
}

static int by_count(const void *a, const void *b)
{
	const struct top_item *x = a, *y = b;
	if (x->count != y->count)
		return x->count > y->count ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* One item of all that have its name. The sketches that do not have it may have had up to their
 * least of it: all of them, `absent`. */
static void join(struct top_list *list, struct found *found, size_t n, const struct sums *absent)
{
	qsort(found, n, sizeof *found, by_name_and_sketch);
	for (size_t i = 0; i < n;) {
		struct top_item *to = &list->item[list->n++];
		struct sums sum = *absent;
		*to = (struct top_item){ .rule = found[i].item.group };
		memcpy(to->name, found[i].item.name, sizeof to->name);
		size_t first = i;
		for (; i < n && by_name(&found[first], &found[i]) == 0; i++) {
			const struct found *f = &found[i];
			sum.most[f->sampled] += f->item.count;
			sum.least[f->sampled] += f->item.count - f->item.error;
			if (i == first || f->of != found[i - 1].of)
				sum.most[f->sampled] -= f->least;
		}
		to->count = at_most(&sum, list->one_in);
		to->error = to->count - at_least(&sum, list->one_in);
	}
	qsort(list->item, list->n, sizeof *list->item, by_count);
}

/* The most that one sample of this worker stood for since then. Also where a half has no turn at
 * all: then what was in effect is so still, or was at the first turn after. */
static uint64_t one_in_of(
	const struct top *t, enum top_stream stream, const bool half[2], usec_t since)
{
	uint64_t most = 1;

	if (atomic_load_explicit(&t->look_next, memory_order_relaxed) > since)
		most = atomic_load_explicit(&t->one_in_now[stream], memory_order_relaxed);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t n = atomic_load_explicit(&t->one_in[stream][i], memory_order_relaxed);
		if (half[i] && n > most)
			most = n;
	}
	return most;
}

/* What one worker has counted goes behind found[found_n]; how many there are then. */
static size_t find(const struct top *t, enum top_kind kind, uint64_t epoch,
	struct sketch_item item[SKETCH_ITEMS], struct found *found, size_t found_n, unsigned of,
	struct top_list *list, struct sums *absent)
{
	size_t begin = found_n;
	bool good[2];
	uint64_t least = 0;

	for (unsigned half = 0; half < 2; half++) {
		uint64_t of_epoch = epoch % 2 == half ? epoch : epoch - 1;
		struct sketch_sum sum;
		good[half] = sketch_read(t->sketch[kind][half], of_epoch, item, &sum);
		if (!good[half])
			continue;
		list->total += sum.total;
		least += sum.least;
		for (unsigned k = 0; k < sum.n; k++)
			found[found_n++] = (struct found){ item[k], of + half, sum.least, false };
	}
	uint64_t one_in = one_in_of(t, stream_of[kind], good, list->since);
	bool sampled = one_in > 1;
	for (size_t i = begin; i < found_n; i++)
		found[i].sampled = sampled;
	absent->most[sampled] += least;
	list->one_in = one_in > list->one_in ? one_in : list->one_in;
	return found_n;
}

bool top_list(const struct top *const of[], unsigned n, enum top_kind kind, usec_t now,
	struct top_list *list)
{
	uint64_t epoch = epoch_at(now);
	struct sketch_item *item = malloc(SKETCH_ITEMS * sizeof *item);
	struct found *found = malloc(2 * n * SKETCH_ITEMS * sizeof *found);
	struct sums absent = { 0 };
	size_t found_n = 0;

	*list = (struct top_list){ .one_in = 1, .since = (usec_t)(epoch - 2) * TOP_HALF };
	list->item = malloc(2 * n * SKETCH_ITEMS * sizeof *list->item);
	bool good = item && found && list->item;
	for (unsigned i = 0; good && i < n; i++)
		found_n = find(of[i], kind, epoch, item, found, found_n, 2 * i, list, &absent);
	list->error = at_most(&absent, list->one_in);
	if (good)
		join(list, found, found_n, &absent);
	else
		top_list_free(list);
	free(item);
	free(found);
	return good;
}

void top_list_free(struct top_list *list)
{
	free(list->item);
	*list = (struct top_list){ 0 };
}
