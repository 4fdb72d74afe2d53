/* /api/v1/top: who is denied most, asks most, uses most, and where what is denied goes. */
#include "config/json.h"
#include "admin/routes.h"
#include "config/nearest.h"

#include <stdlib.h>
#include <string.h>

enum { ITEMS_SHOWN = 10 };

/* Up to as many as there can be; 0: no number. */
static size_t number_of(const char *text)
{
	char *end;
	if (!text || !*text)
		return ITEMS_SHOWN;
	if (*text < '0' || *text > '9')
		return 0;
	unsigned long n = strtoul(text, &end, 10);
	return *end ? 0 : n;
}

static json_t *items_json(const struct control *c, const struct top_list *list, const char *rule,
	const char *what, size_t n)
{
	json_t *items = json_array();
	for (size_t i = 0; i < list->n && json_array_size(items) < n; i++) {
		const struct top_item *item = &list->item[i];
		const char *of = control_rule_at(c, item->rule);
		if (rule && strcmp(rule, of) != 0)
			continue;
		(void)json_array_append_new(
			items, json_pack("{s:o, s:o, s:I, s:I}", "rule", json_of(str_of(of)), what,
				       json_of(str_of(item->name)), "count",
				       (json_int_t)item->count, "error", (json_int_t)item->error));
	}
	return items;
}

/* NULL: out of memory. */
static json_t *list_json(struct control *c, enum top_kind kind, const char *rule, size_t n)
{
	const char *what = kind == TOP_ENDPOINTS ? "endpoint" : "client";
	struct top_list list;
	if (!control_top(c, kind, &list))
		return NULL;
	usec_t now = clock_steady(), up = control_uptime(c);
	usec_t covered = now - list.since < up ? now - list.since : up;
	json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:o}", "seconds",
		(json_int_t)((covered > 0 ? covered : 0) / USEC_PER_SEC), "total",
		(json_int_t)list.total, "error", (json_int_t)list.error, "one_in",
		(json_int_t)list.one_in, "items", items_json(c, &list, rule, what, n));
	top_list_free(&list);
	return json;
}

static bool has_rule(const struct control *c, const char *name)
{
	const struct policy *p = control_snapshot(c)->policy;
	for (unsigned i = 0; i < p->rule_n; i++)
		if (strcmp(p->rule[i].name, name) == 0)
			return true;
	return false;
}

void top_show(struct request *r)
{
	static const char *const by_name[] = { [TOP_DENIED] = "denied",
		[TOP_CHECKED] = "checked",
		[TOP_COST] = "cost",
		[TOP_SHADOW] = "shadow" };
	struct admin *a = request_context(r);
	const char *by = request_query(r, "by"), *rule = request_query(r, "rule");
	size_t n = number_of(request_query(r, "n"));
	unsigned kind = TOP_DENIED;

	/* "?rule=&n=" asks for nothing by these. */
	if (by && !*by)
		by = NULL;
	if (rule && !*rule)
		rule = NULL;
	while (by && kind < TOP_KINDS && (!by_name[kind] || strcmp(by, by_name[kind]) != 0))
		kind++;
	if (kind == TOP_KINDS) {
		request_problem(r, 400, "by=%.32s: want denied, checked, cost or shadow", by);
	} else if (!n) {
		request_problem(r, 400, "n: want a number, from 1");
	} else if (rule && !has_rule(a->control, rule)) {
		char hint[HINT_MAX];
		const struct policy *p = control_snapshot(a->control)->policy;
		request_problem(r, 404, "there is no rule \"%.64s\"%s", rule,
			nearest_rule_hint(p, rule, hint));
	} else {
		json_t *answer = json_pack("{s:s, s:o?}", "by", by_name[kind], "clients",
			list_json(a->control, kind, rule, n));
		if (answer && kind == TOP_DENIED)
			(void)json_object_set_new(
				answer, "endpoints", list_json(a->control, TOP_ENDPOINTS, rule, n));
		request_reply_json(r, 200, answer);
	}
}
