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
	return calloc(1, sizeof(struct tally));
}

void tally_free(struct tally *t)
{
	free(t);
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

void tally_names_apply(struct tally_names *t, struct policy *p)
{
	for (unsigned i = 0; i < p->rule_n; i++)
		p->rule[i].tally = TALLY_ROW * place_of(t->rules, p->rule[i].name,
						       t->rule[t->rule_n % TALLY_RULES], &t->rule_n,
						       TALLY_RULES, ROW_OTHER);
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
	size_t room = 0;

	*sum = (struct tally_sum){ .rule = calloc(t->rule_n, sizeof *sum->rule) };
	if (!sum->rule)
		return false;
	for (unsigned row = 0; row < t->rule_n; row++) {
		size_t each = row * sizeof(uint64_t);
		struct tally_rule rule = { t->rule[row],
			sum_at(of, n, offsetof(struct tally, warned) + each),
			sum_at(of, n, offsetof(struct tally, shadowed) + each),
			sum_at(of, n, offsetof(struct tally, tagged) + each) };
		if (row >= ROWS_RESERVED || rule.warned || rule.shadowed || rule.tagged)
			sum->rule[sum->rule_n++] = rule;
		for (unsigned i = 0; i < t->tier_n * TALLY_OUTCOMES; i++) {
			struct tally_line line = { t->rule[row], t->tier[i / TALLY_OUTCOMES],
				(enum reason)(i % TALLY_OUTCOMES / 2), i % 2,
				sum_at(of, n,
					offsetof(struct tally, checks) +
						(row * TALLY_ROW + i) * sizeof(uint64_t)) };
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
