#include "server/tally.h"

#include "limit/names.h"

#include <assert.h>
#include <stdlib.h>

enum { ROW_NONE, ROW_OTHER, ROWS_RESERVED };

static_assert(2 * (REASON_DEGRADED + 1) <= TALLY_OUTCOMES, "room for every reason");

struct tally_names {
	char rule[TALLY_RULES][RULE_NAME_MAX + 1];
	char tier[TALLY_TIERS][TIER_NAME_MAX + 1];
	unsigned rule_n, tier_n;
	struct names *rules, *tiers; /* owned: name -> place */
};

struct tally *tally_new(void)
{
	struct tally *t = calloc(1, sizeof *t);
	if (t)
		t->last = &t->none;
	return t;
}

void tally_free(struct tally *t)
{
	free(t);
}

/* The places of the rules of a plan, whose takes follow each other. */
static unsigned places_of(const struct plan *plan, uint16_t place[PLAN_MAX])
{
	const struct rule *last = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < plan->n; i++) {
		const struct rule *r = plan->take[i].limit->rule;
		if (r != last)
			place[n++] = (uint16_t)(r->tally / TALLY_ROW);
		last = r;
	}
	return n;
}

/* Where it is, or is to be; NULL: no place is left. */
static struct tally_set *find_set(struct tally *t, uint64_t marks)
{
	struct tally_set *set;

	if (marks == 0)
		return &t->none;
	for (uint64_t i = marks; (set = &t->set[i % TALLY_SETS])->marks; i++)
		if (set->marks == marks)
			return set;
	return t->set_n < TALLY_SETS_MAX ? set : NULL;
}

void tally_other_set(struct tally *t, const struct plan *plan)
{
	struct tally_set *set = find_set(t, plan->marks);
	uint16_t place[PLAN_MAX];

	/* A set that is new is learnt from the takes, and of a degraded plan some are gone. */
	if (!set || (set->marks != plan->marks && plan->degraded)) {
		for (unsigned i = places_of(plan, place); i; i--)
			tally_add(&t->applied[place[i - 1]]);
		return;
	}
	if (set->marks != plan->marks) {
		unsigned n = places_of(plan, set->rule);
		set->marks = plan->marks;
		t->set_n++;
		atomic_store_explicit(&set->rule_n, n, memory_order_release);
	}
	t->last = set;
	tally_add(&set->n);
}

void tally_shadowed(struct tally *t, const struct plan *plan, const struct decision *d)
{
	const struct rule *last = NULL;
	bool first_has_take = false;

	for (unsigned i = 0; i < plan->n; i++) {
		const struct rule *r = plan->take[i].limit->rule;
		if (r == last || r->mode != MODE_SHADOW || plan->take[i].verdict.admits)
			continue;
		tally_add(&t->shadowed[r->tally / TALLY_ROW]);
		first_has_take |= r == d->shadow;
		last = r;
	}
	/* Not asked: the failure policy decided for it. */
	if (!first_has_take)
		tally_add(&t->shadowed[d->shadow->tally / TALLY_ROW]);
}

struct tally_names *tally_names_new(void)
{
	struct tally_names *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	t->rules = names_new();
	t->tiers = names_new();
	if (!t->rules || !t->tiers) {
		tally_names_free(t);
		return NULL;
	}
	/* No rule has this name by right: a real `other` shares its place. */
	memcpy(t->rule[ROW_OTHER], "other", sizeof "other");
	memcpy(t->tier[0], "other", sizeof "other");
	t->rule_n = ROWS_RESERVED;
	t->tier_n = 1;
	if (!names_add(t->rules, STR("other"), ROW_OTHER) ||
		!names_add(t->tiers, STR("other"), 0)) {
		tally_names_free(t);
		return NULL;
	}
	return t;
}

void tally_names_free(struct tally_names *t)
{
	if (!t)
		return;
	names_free(t->rules);
	names_free(t->tiers);
	free(t);
}

/* The place of `name`; a new one while there is room, else `other`. */
static unsigned place_of(struct names *names, const char *name, char *slot, unsigned *n,
	unsigned max, unsigned other)
{
	int64_t place = names_find(names, str_of(name));
	if (place >= 0)
		return (unsigned)place;
	if (*n == max || !names_add(names, str_of(name), *n))
		return other;
	memcpy(slot, name, strlen(name) + 1);
	return (*n)++;
}

/* Of 64 bits that look like chance (splitmix64), so that no two sets have the same sum: not once
 * in the life of 2^64 / TALLY_SETS_MAX^2 agents. The same in all generations. */
static uint64_t mark_of(unsigned place)
{
	uint64_t z = (place + 1) * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

void tally_names_apply(struct tally_names *t, struct policy *p)
{
	for (unsigned i = 0; i < p->rule_n; i++) {
		unsigned place = place_of(t->rules, p->rule[i].name,
			t->rule[t->rule_n % TALLY_RULES], &t->rule_n, TALLY_RULES, ROW_OTHER);
		p->rule[i].tally = TALLY_ROW * place;
		p->rule[i].mark = mark_of(place);
	}
	for (unsigned i = 0; i < p->tier_n; i++)
		p->tier[i].tally =
			(uint16_t)(i >= p->tier_named
					   ? 0
					   : TALLY_OUTCOMES *
						     place_of(t->tiers, p->tier[i].name,
							     t->tier[t->tier_n % TALLY_TIERS],
							     &t->tier_n, TALLY_TIERS, 0));
}

const char *tally_rule_at(const struct tally_names *t, uint32_t place)
{
	return place < t->rule_n ? t->rule[place] : "";
}

static uint64_t sum_at(const struct tally *const of[], unsigned n, size_t offset)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < n; i++)
		sum += atomic_load_explicit(
			(const _Atomic(uint64_t) *)((const char *)of[i] + offset),
			memory_order_relaxed);
	return sum;
}

static uint64_t sum_checks(const struct tally *const of[], unsigned n, size_t cell)
{
	return sum_at(of, n, offsetof(struct tally, checks) + cell * sizeof(uint64_t));
}

/* Of each rule: in sets, and by itself. */
static void sum_applied(const struct tally *const of[], unsigned n, uint64_t applied[TALLY_RULES])
{
	memset(applied, 0, TALLY_RULES * sizeof *applied);
	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < TALLY_RULES; k++)
			applied[k] += atomic_load_explicit(
				&of[i]->applied[k], memory_order_relaxed);
		for (unsigned k = 0; k < TALLY_SETS; k++) {
			const struct tally_set *s = &of[i]->set[k];
			unsigned rules = atomic_load_explicit(&s->rule_n, memory_order_acquire);
			uint64_t checks = atomic_load_explicit(&s->n, memory_order_relaxed);
			for (unsigned r = 0; r < rules; r++)
				applied[s->rule[r]] += checks;
		}
	}
}

static bool add_line(struct tally_sum *sum, size_t *room, const struct tally_line *line)
{
	if (sum->line_n == *room) {
		size_t more = *room ? 2 * *room : 64;
		void *grown = realloc(sum->line, more * sizeof *sum->line);
		if (!grown)
			return false;
		sum->line = grown;
		*room = more;
	}
	sum->line[sum->line_n++] = *line;
	return true;
}

bool tally_sum(const struct tally_names *t, const struct tally *const of[], unsigned n,
	struct tally_sum *sum)
{
	uint64_t applied[TALLY_RULES];
	size_t room = 0;

	sum_applied(of, n, applied);
	*sum = (struct tally_sum){ .rule = calloc(t->rule_n, sizeof *sum->rule) };
	if (!sum->rule)
		return false;
	for (unsigned row = 0; row < t->rule_n; row++) {
		size_t each = row * sizeof(uint64_t);
		struct tally_rule rule = { t->rule[row], applied[row],
			sum_at(of, n, offsetof(struct tally, warned) + each),
			sum_at(of, n, offsetof(struct tally, shadowed) + each),
			sum_at(of, n, offsetof(struct tally, tagged) + each) };
		if (row >= ROWS_RESERVED || rule.applied || rule.warned || rule.shadowed ||
			rule.tagged)
			sum->rule[sum->rule_n++] = rule;
		for (unsigned i = 0; i < t->tier_n * TALLY_OUTCOMES; i++) {
			struct tally_line line = { t->rule[row], t->tier[i / TALLY_OUTCOMES],
				(enum reason)(i % TALLY_OUTCOMES / 2), i % 2,
				sum_checks(of, n, row * TALLY_ROW + i) };
			if (line.n && !add_line(sum, &room, &line)) {
				tally_sum_free(sum);
				return false;
			}
		}
	}
	return true;
}

void tally_sum_free(struct tally_sum *sum)
{
	free(sum->line);
	free(sum->rule);
	*sum = (struct tally_sum){ 0 };
}
