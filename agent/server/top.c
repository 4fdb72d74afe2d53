#include "server/top.h"

#include "server/describe.h"
#include "server/tally.h"

#include <stdlib.h>
#include <string.h>

enum { COST_MAX = 1000 * 1000 * 1000 }; /* more is in no quota */

struct top *top_new(void)
{
	struct top *t = calloc(1, sizeof *t);
	struct hash_key seed[2];

	if (!t)
		return NULL;
	for (unsigned i = 0; i < 2 * TOP_KINDS; i++) {
		t->sketch[i / 2][i % 2] = sketch_new();
		if (!t->sketch[i / 2][i % 2]) {
			top_free(t);
			return NULL;
		}
	}
	for (unsigned i = 0; i < 2; i++)
		hash_key_random(&seed[i]);
	uint64_t word[2];
	memcpy(&word[0], &seed[0], sizeof word[0]);
	memcpy(&word[1], &seed[1], sizeof word[1]);
	sampler_init(&t->checks, word[0]);
	sampler_init(&t->denials, word[1]);
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
	for (unsigned i = 0; i < TOP_KINDS; i++) {
		atomic_store_explicit(&t->one_in[i][epoch % 2], 1, memory_order_relaxed);
		sketch_begin(t->sketch[i][epoch % 2], epoch);
	}
}

static void note_weight(struct top *t, enum top_kind kind, uint64_t stands_for)
{
	_Atomic(uint32_t) *most = &t->one_in[kind][t->epoch % 2];

	if (stands_for > atomic_load_explicit(most, memory_order_relaxed))
		atomic_store_explicit(most, (uint32_t)stands_for, memory_order_relaxed);
}

/* Its descriptor and its rule, whatever the limit. */
static struct key key_of(const struct take *t)
{
	const struct key *salt = &t->limit->salt;
	uint64_t rule = t->limit->rule->tally * UINT64_C(0x9e3779b97f4a7c15);

	return (struct key){ t->key.a ^ salt->a ^ rule, (t->key.b ^ salt->b) | 1 };
}

static uint32_t rule_of(const struct decision *d)
{
	return d->reported ? d->reported->limit->rule->tally / TALLY_ROW : 0;
}

/* false: `weight` is left for when there is a name. */
static bool count(struct top *t, enum top_kind kind, const struct take *take, uint64_t weight)
{
	return !weight ||
	       (take && sketch_count(t->sketch[kind][t->epoch % 2], key_of(take), weight));
}

static uint64_t units(const struct take *t)
{
	return t->cost < COST_MAX ? (uint64_t)t->cost : COST_MAX;
}

bool top_add(struct top *t, const struct plan *plan, const struct decision *d, uint64_t checks,
	uint64_t denials, struct top_rest *rest)
{
	const struct take *take = d->reported;
	bool asked = take && take->cost == 0; /* and nobody was refused */
	uint64_t weight[TOP_KINDS] = {
		[TOP_DENIED] = asked ? 0 : denials,
		[TOP_ENDPOINTS] = asked ? 0 : denials,
		[TOP_CHECKED] = take ? checks : 0,
		[TOP_COST] = take && !d->deny ? checks * units(take) : 0,
	};
	uint64_t epoch = epoch_at(plan->now.steady);
	bool more = false;

	if (epoch != t->epoch)
		begin_half(t, epoch);
	note_weight(t, TOP_DENIED, denials);
	note_weight(t, TOP_ENDPOINTS, denials);
	note_weight(t, TOP_CHECKED, checks);
	note_weight(t, TOP_COST, checks);
	for (unsigned i = 0; i < TOP_KINDS; i++) {
		bool done = i != TOP_ENDPOINTS && count(t, i, take, weight[i]);
		rest->weight[i] = done ? 0 : weight[i];
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

void top_add_rest(struct top *t, const struct policy *p, const struct decision *d,
	const struct view *v, const struct top_rest *rest)
{
	char name[SKETCH_NAME_MAX];
	uint32_t rule = rule_of(d);
	bool of_client = false;

	for (unsigned i = 0; i < TOP_KINDS; i++)
		of_client |= i != TOP_ENDPOINTS && rest->weight[i];
	if (of_client) {
		size_t n = describe_client(p, d->reported, v, name, sizeof name);
		struct str s = { name, n };
		struct key k = d->reported ? key_of(d->reported) : hasher_of(&p->hasher, name, n);
		for (unsigned i = 0; i < TOP_KINDS; i++)
			if (i != TOP_ENDPOINTS && rest->weight[i])
				add(t, i, k, rest->weight[i], rule, s);
	}
	if (rest->weight[TOP_ENDPOINTS]) {
		size_t n = describe_endpoint(p, v, name, sizeof name);
		struct key k = hasher_of(&p->hasher, name, n);
		k.a ^= rule * UINT64_C(0x9e3779b97f4a7c15);
		if (n)
			add(t, TOP_ENDPOINTS, k, rest->weight[TOP_ENDPOINTS], rule,
				(struct str){ name, n });
	}
}

/* ---- control ---- */

/* An item of one sketch, and what a key that it does not have may have had there. */
struct found {
	struct sketch_item item;
	unsigned of;
	uint64_t least;
};

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
 * least of it. */
static void join(struct top_list *list, struct found *found, size_t n)
{
	qsort(found, n, sizeof *found, by_name_and_sketch);
	for (size_t i = 0; i < n;) {
		struct top_item *to = &list->item[list->n++];
		uint64_t absent = list->error;
		*to = (struct top_item){ .rule = found[i].item.group };
		memcpy(to->name, found[i].item.name, sizeof to->name);
		size_t first = i;
		for (; i < n && by_name(&found[first], &found[i]) == 0; i++) {
			to->count += found[i].item.count;
			to->error += found[i].item.error;
			if (i == first || found[i].of != found[i - 1].of)
				absent -= found[i].least;
		}
		to->count += absent;
		to->error += absent;
	}
	qsort(list->item, list->n, sizeof *list->item, by_count);
}

bool top_list(const struct top *const of[], unsigned n, enum top_kind kind, usec_t now,
	struct top_list *list)
{
	uint64_t epoch = epoch_at(now);
	struct sketch_item *item = malloc(SKETCH_ITEMS * sizeof *item);
	struct found *found = malloc(2 * n * SKETCH_ITEMS * sizeof *found);
	size_t found_n = 0;

	*list = (struct top_list){ .one_in = 1, .since = (usec_t)(epoch - 2) * TOP_HALF };
	list->item = malloc(2 * n * SKETCH_ITEMS * sizeof *list->item);
	bool good = item && found && list->item;
	for (unsigned i = 0; good && i < 2 * n; i++) {
		unsigned half = i % 2;
		uint64_t of_epoch = epoch % 2 == half ? epoch : epoch - 1;
		const struct top *t = of[i / 2];
		struct sketch_sum sum;
		if (!sketch_read(t->sketch[kind][half], of_epoch, item, &sum))
			continue;
		uint32_t one_in = atomic_load_explicit(
			&t->one_in[kind][half], memory_order_relaxed);
		list->one_in = one_in > list->one_in ? one_in : list->one_in;
		list->total += sum.total;
		list->error += sum.least;
		for (unsigned k = 0; k < sum.n; k++)
			found[found_n++] = (struct found){ item[k], i, sum.least };
	}
	if (good)
		join(list, found, found_n);
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
