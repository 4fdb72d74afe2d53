#include "ctl/replay_count.h"

#include "base/sketch.h"
#include "config/json.h"
#include "config/rate.h"

#include <assert.h>
#include <stdlib.h>

enum {
	SLOTS_MIN = 1024,
	SLOTS_MAX = 1 << 20,
	REASON_COUNT = REASON_DISABLED + 1,
	COST_MAX = 1000 * 1000 * 1000, /* more is in no quota */
	CLIENT_TEXT_MAX = SKETCH_NAME_MAX
};
static_assert(2 * REPLAY_CLIENTS_MAX <= SLOTS_MAX, "at most half full");

/* One descriptor by one limit. */
struct client {
	struct key key;
	usec_t window;   /* when the one began that `units` are of */
	uint64_t units;  /* asked for in it, admitted or not */
	uint64_t peak;   /* the most in any */
	uint32_t row;    /* its number + 1; 0: the slot is free */
	bool is_first;   /* of its rule's limits: the client is counted by it */
	bool was_denied; /* ditto */
};

/* What is told together: the limits of one rule that are equal, of whatever tiers. */
struct row {
	const struct limit *limit; /* the first of them */
	bool is_other;             /* also of tiers that the rule does not list */
};

struct row_of {
	const struct limit *limit;
	uint32_t row;
};

struct rule_count {
	uint64_t requests, denied, clients, clients_denied, bans;
	bool has_more; /* clients than there was room for */
};

struct replay_count {
	const struct policy *policy;
	uint64_t decided[REASON_COUNT][2]; /* by whether it was denied */
	struct rule_count *rule;
	struct row *row;       /* by rule, in the file's order */
	struct row_of *row_of; /* by address */
	uint32_t rows, limits;
	struct client *slot;
	uint32_t slots, clients;
	struct sketch *denied;
};

/* ---- limits and their rows ---- */

static uint32_t row_for(struct replay_count *c, const struct limit *limit, uint32_t from)
{
	uint32_t i = from;

	while (i < c->rows && !quota_eq(&c->row[i].limit->quota, &limit->quota))
		i++;
	if (i == c->rows)
		c->row[c->rows++].limit = limit;
	return i;
}

static void add_limits(
	struct replay_count *c, const struct limits *limits, bool is_other, uint32_t from)
{
	for (unsigned i = 0; i < limits->n; i++) {
		uint32_t row = row_for(c, &limits->limit[i], from);
		c->row[row].is_other |= is_other;
		c->row_of[c->limits++] = (struct row_of){ &limits->limit[i], row };
	}
}

static int by_address(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t)((const struct row_of *)a)->limit;
	uintptr_t y = (uintptr_t)((const struct row_of *)b)->limit;

	return (x > y) - (x < y);
}

static void list_limits(struct replay_count *c)
{
	const struct policy *p = c->policy;

	for (unsigned r = 0; r < p->rule_n; r++) {
		uint32_t from = c->rows;
		for (unsigned t = 0; t < p->tier_n; t++)
			add_limits(c, &p->rule[r].tier[t], false, from);
		add_limits(c, &p->rule[r].other, true, from);
	}
	qsort(c->row_of, c->limits, sizeof *c->row_of, by_address);
}

static size_t count_limits(const struct policy *p)
{
	size_t n = 0;

	for (unsigned r = 0; r < p->rule_n; r++) {
		for (unsigned t = 0; t < p->tier_n; t++)
			n += p->rule[r].tier[t].n;
		n += p->rule[r].other.n;
	}
	return n;
}

static uint32_t row_of(const struct replay_count *c, const struct limit *limit)
{
	const struct row_of wanted = { .limit = limit };
	const struct row_of *found = bsearch(
		&wanted, c->row_of, c->limits, sizeof *c->row_of, by_address);

	assert(found);
	return found->row;
}

/* ---- beginning and end ---- */

void replay_count_free(struct replay_count *c)
{
	if (!c)
		return;
	sketch_free(c->denied);
	free(c->slot);
	free(c->row_of);
	free(c->row);
	free(c->rule);
	free(c);
}

struct replay_count *replay_count_new(const struct policy *p)
{
	struct replay_count *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->policy = p;
	size_t limits = count_limits(p) + 1;
	c->rule = calloc(p->rule_n + 1, sizeof *c->rule);
	c->row = calloc(limits, sizeof *c->row);
	c->row_of = calloc(limits, sizeof *c->row_of);
	c->slots = SLOTS_MIN;
	c->slot = calloc(c->slots, sizeof *c->slot);
	c->denied = sketch_new();
	if (!c->rule || !c->row || !c->row_of || !c->slot || !c->denied) {
		replay_count_free(c);
		return NULL;
	}
	list_limits(c);
	return c;
}

/* ---- clients ---- */

/* The key's slot, or the free one where it belongs. Keys are hashes already. */
static struct client *find_slot(struct client *slot, uint32_t slots, struct key k)
{
	uint32_t at = (uint32_t)k.a & (slots - 1);

	while (slot[at].row && (slot[at].key.a != k.a || slot[at].key.b != k.b))
		at = (at + 1) & (slots - 1);
	return &slot[at];
}

/* false: there is no room for more. */
static bool grow(struct replay_count *c)
{
	struct client *larger;

	if (2 * c->clients < c->slots)
		return true;
	if (c->slots == SLOTS_MAX || !(larger = calloc(2 * c->slots, sizeof *larger)))
		return false;
	for (uint32_t i = 0; i < c->slots; i++)
		if (c->slot[i].row)
			*find_slot(larger, 2 * c->slots, c->slot[i].key) = c->slot[i];
	free(c->slot);
	c->slot = larger;
	c->slots *= 2;
	return true;
}

/* NULL: it is a new one, and there is no room. */
static struct client *find_client(struct replay_count *c, const struct take *t, bool *is_new)
{
	struct client *found = find_slot(c->slot, c->slots, t->key);

	*is_new = !found->row;
	if (!*is_new)
		return found;
	if (c->clients == REPLAY_CLIENTS_MAX || !grow(c))
		return NULL;
	found = find_slot(c->slot, c->slots, t->key); /* growing has moved them */
	*found = (struct client){ .key = t->key, .row = row_of(c, t->limit) + 1 };
	c->clients++;
	return found;
}

static void add_units(struct client *client, const struct take *t, usec_t utc)
{
	usec_t begin, end;

	window_bounds(&t->limit->quota.window, utc, &begin, &end);
	if (begin != client->window) {
		client->window = begin;
		client->units = 0;
	}
	client->units += (uint64_t)(t->cost < COST_MAX ? t->cost : COST_MAX);
	if (client->units > client->peak)
		client->peak = client->units;
}

static void add_take(struct replay_count *c, struct rule_count *rule, const struct take *t,
	bool is_first, bool denied, usec_t utc)
{
	bool is_new;
	struct client *client = find_client(c, t, &is_new);

	if (!client) {
		rule->has_more |= is_first;
		return;
	}
	add_units(client, t, utc);
	if (!is_first)
		return;
	/* Where tiers differ in windows, one may be first of another tier only later. */
	rule->clients += !client->is_first;
	rule->clients_denied += denied && !client->was_denied;
	client->is_first = true;
	client->was_denied |= denied;
}

static void add_denied(
	struct replay_count *c, uint32_t rule, const struct take *t, const struct view *v)
{
	char name[CLIENT_TEXT_MAX];

	if (sketch_count(c->denied, t->key, 1))
		return;
	size_t n = take_describe(c->policy, t, v, name, sizeof name);
	sketch_put(c->denied, t->key, 1, rule, (struct str){ name, n });
}

/* The takes of one rule stand together. Returns where its end is. */
static unsigned add_rule(struct replay_count *c, const struct plan *plan, unsigned from,
	const struct view *v, usec_t utc)
{
	const struct rule *rule = plan->take[from].limit->rule;
	struct rule_count *count = &c->rule[rule - c->policy->rule];
	unsigned end = from;
	bool denied = false;

	for (; end < plan->n && plan->take[end].limit->rule == rule; end++)
		denied |= !plan->take[end].verdict.admits;
	for (unsigned i = from; i < end; i++)
		add_take(c, count, &plan->take[i], i == from, denied, utc);
	count->requests++;
	count->denied += denied;
	if (denied)
		add_denied(c, (uint32_t)(rule - c->policy->rule), &plan->take[from], v);
	return end;
}

void replay_count_add(struct replay_count *c, const struct plan *plan, const struct decision *d,
	const struct view *v, usec_t utc)
{
	c->decided[d->reason][d->deny]++;
	if (plan->outcome == OUTCOME_LIMITS)
		for (unsigned i = 0; i < plan->n;)
			i = add_rule(c, plan, i, v, utc);
}

void replay_count_ban(struct replay_count *c, const struct rule *r)
{
	c->rule[r - c->policy->rule].bans++;
}

/* ---- what came of it ---- */

struct peak {
	uint64_t units;
	uint32_t row;
};

static int by_row_and_units(const void *a, const void *b)
{
	const struct peak *x = a, *y = b;

	if (x->row != y->row)
		return x->row < y->row ? -1 : 1;
	return (x->units > y->units) - (x->units < y->units);
}

/* Sorted; free() it. */
static struct peak *list_peaks(const struct replay_count *c)
{
	struct peak *list = malloc((c->clients + 1) * sizeof *list), *at = list;

	if (!list)
		return NULL;
	for (uint32_t i = 0; i < c->slots; i++)
		if (c->slot[i].row)
			*at++ = (struct peak){ c->slot[i].peak, c->slot[i].row - 1 };
	qsort(list, c->clients, sizeof *list, by_row_and_units);
	return list;
}

/* The least that so many of a hundred stay within. */
static json_int_t percentile(const struct peak *p, uint32_t n, unsigned hundredth)
{
	uint32_t at = (uint32_t)(((uint64_t)n * hundredth + 99) / 100);

	return (json_int_t)p[at ? at - 1 : 0].units;
}

/* Whom it is for; null: all that the rule does not list. */
static json_t *tiers_json(const struct policy *p, const struct row *row)
{
	const struct rule *rule = row->limit->rule;
	json_t *list;

	if (row->is_other)
		return json_null();
	list = json_array();
	for (unsigned t = 0; t < p->tier_n; t++)
		for (unsigned i = 0; i < rule->tier[t].n; i++)
			if (quota_eq(&rule->tier[t].limit[i].quota, &row->limit->quota))
				(void)json_array_append_new(list, json_of(str_of(p->tier[t].name)));
	return list;
}

static json_t *row_json(
	const struct policy *policy, const struct row *row, const struct peak *p, uint32_t n)
{
	const struct quota *q = &row->limit->quota;
	char rate[RATE_TEXT_MAX], window[DURATION_TEXT_MAX];

	return json_pack("{s:o, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "tiers",
		tiers_json(policy, row), "rate", quota_format(q, false, rate), "window",
		window_format(&q->window, window), "units", (json_int_t)q->units, "limit",
		(json_int_t)q->capacity, "clients", (json_int_t)n, "p50", percentile(p, n, 50),
		"p90", percentile(p, n, 90), "p99", percentile(p, n, 99), "max",
		percentile(p, n, 100));
}

/* Peaks, and how far they are told of: both they and the rows stand in the order of the rules. */
struct peaks {
	struct peak *list;
	uint32_t at, n;
};

/* Of this rule those that somebody was counted by. */
static json_t *limits_json(const struct replay_count *c, const struct rule *rule, struct peaks *p)
{
	json_t *list = json_array();

	while (p->at < p->n && c->row[p->list[p->at].row].limit->rule == rule) {
		const struct peak *first = &p->list[p->at];
		uint32_t n = 0;
		while (p->at < p->n && p->list[p->at].row == first->row) {
			p->at++;
			n++;
		}
		(void)json_array_append_new(
			list, row_json(c->policy, &c->row[first->row], first, n));
	}
	return list;
}

static json_t *rule_json(const struct replay_count *c, const struct rule *rule, struct peaks *p)
{
	static const char *const mode[] = { "enforce", "shadow", "off" };
	const struct rule_count *n = &c->rule[rule - c->policy->rule];

	return json_pack("{s:o, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:I, s:o}", "name",
		json_of(str_of(rule->name)), "mode", mode[rule->mode], "action",
		rule->action == ACTION_TAG ? "tag" : "deny", "requests", (json_int_t)n->requests,
		"denied", (json_int_t)n->denied, "clients", (json_int_t)n->clients,
		"clients_denied", (json_int_t)n->clients_denied, "more_clients", n->has_more,
		"bans", (json_int_t)n->bans, "limits", limits_json(c, rule, p));
}

static int by_count(const void *a, const void *b)
{
	const struct sketch_item *x = a, *y = b;

	return (x->count < y->count) - (x->count > y->count);
}

static json_t *top_json(const struct replay_count *c, unsigned most)
{
	struct sketch_item *item = calloc(SKETCH_ITEMS, sizeof *item);
	struct sketch_sum sum;
	json_t *items = json_array();

	if (!item || !sketch_read(c->denied, 0, item, &sum)) {
		free(item);
		json_decref(items);
		return NULL;
	}
	qsort(item, sum.n, sizeof *item, by_count);
	for (unsigned i = 0; i < sum.n && i < most; i++)
		(void)json_array_append_new(items,
			json_pack("{s:o, s:o, s:I, s:I}", "rule",
				json_of(str_of(c->policy->rule[item[i].group].name)), "client",
				json_of(str_of(item[i].name)), "count", (json_int_t)item[i].count,
				"error", (json_int_t)item[i].error));
	free(item);
	return json_pack("{s:I, s:I, s:o}", "total", (json_int_t)sum.total, "error",
		(json_int_t)sum.least, "items", items);
}

static json_t *reasons_json(const struct replay_count *c, uint64_t sum[2])
{
	json_t *o = json_object();

	sum[0] = sum[1] = 0;
	for (unsigned i = 0; i < REASON_COUNT; i++) {
		uint64_t n = c->decided[i][0] + c->decided[i][1];
		sum[0] += c->decided[i][0];
		sum[1] += c->decided[i][1];
		if (n)
			(void)json_object_set_new(
				o, reason_name((enum reason)i), json_integer((json_int_t)n));
	}
	return o;
}

json_t *replay_count_json(const struct replay_count *c, unsigned most)
{
	struct peaks peaks = { .list = list_peaks(c), .n = c->clients };
	json_t *rules = json_array(), *top = top_json(c, most);
	uint64_t sum[2];

	for (unsigned i = 0; peaks.list && i < c->policy->rule_n; i++)
		(void)json_array_append_new(rules, rule_json(c, &c->policy->rule[i], &peaks));
	json_t *reasons = reasons_json(c, sum);
	bool whole = peaks.list && top && json_array_size(rules) == c->policy->rule_n;
	free(peaks.list);
	if (!whole) {
		json_decref(rules);
		json_decref(top);
		json_decref(reasons);
		return NULL;
	}
	return json_pack("{s:I, s:I, s:I, s:o, s:o, s:o}", "requests",
		(json_int_t)sum[0] + (json_int_t)sum[1], "admitted", (json_int_t)sum[0], "denied",
		(json_int_t)sum[1], "reasons", reasons, "rules", rules, "top", top);
}
