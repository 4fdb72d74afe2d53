/* Requests of the past, and what is told of them. */
#include "ctl/replay_run.h"

#include "ctl/replay_count.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define DAY ((usec_t)86400 * USEC_PER_SEC)
#define AT  (20000 * DAY) /* midnight, in 2024 */

struct world {
	struct snapshot *snapshot;
	struct replay_run *run;
};

static struct world begin(const char *config)
{
	static const struct hash_key key = { .bytes = { 1 } };
	struct problems problems = { 0 };
	struct world w;

	w.snapshot = config_load_text("t.cfg", config, strlen(config), &key, 1, &problems);
	if (!w.snapshot && problems.n)
		print_message("%s\n", problems.message[0]);
	problems_free(&problems);
	assert_non_null(w.snapshot);
	w.run = replay_run_new(w.snapshot, &key);
	assert_non_null(w.run);
	return w;
}

static json_t *end(struct world *w)
{
	json_t *o = replay_run_json(w->run, 10);

	assert_non_null(o);
	replay_run_free(w->run);
	assert_true(snapshot_unref(w->snapshot));
	snapshot_free(w->snapshot);
	return o;
}

static void ask(struct world *w, usec_t at, unsigned field, const char *value, int64_t cost)
{
	char scratch[4096];
	struct view v;

	view_init(&v, &w->snapshot->policy->layout, STR("check"), scratch, sizeof scratch);
	v.seen &= ~(1ull << FIELD_MESSAGE); /* the line does not say it */
	view_set_text(&v, field, str_of(value));
	view_set_integer(&v, FIELD_COST, cost);
	view_finish(&v);
	assert_true(replay_run_take(w->run, &v, at));
}

static int64_t number(const json_t *o, const char *name)
{
	const json_t *n = json_object_get(o, name);

	assert_true(json_is_integer(n));
	return json_integer_value(n);
}

static const json_t *rule(const json_t *o, size_t i)
{
	return json_array_get(json_object_get(o, "rules"), i);
}

static const json_t *limit(const json_t *o, size_t r, size_t i)
{
	return json_array_get(json_object_get(rule(o, r), "limits"), i);
}

static void each_rule_is_told_of(void **state)
{
	struct world w = begin(
		"block = ( { user = \"eve\"; } );\n"
		"rules = (\n"
		"{ name = \"a\"; per = [ \"user\" ]; algorithm = \"fixed-window\"; rate = \"2/day\"; },\n"
		"{ name = \"s\"; rate = \"3/day\"; algorithm = \"fixed-window\"; mode = \"shadow\"; },\n"
		"{ name = \"t\"; rate = \"1/day\"; algorithm = \"fixed-window\"; action = \"tag\"; "
		"tag = \"x\"; },\n"
		"{ name = \"o\"; rate = \"1/day\"; mode = \"off\"; } );\n");

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		ask(&w, AT + i, FIELD_USER, "al", 1); /* the third is denied */
	ask(&w, AT + 3, FIELD_USER, "bo", 1);
	ask(&w, AT + 4, FIELD_USER, "bo", 1); /* the fourth that passes */
	ask(&w, AT + 5, FIELD_USER, "eve", 1);
	ask(&w, AT + DAY, FIELD_USER, "al", 1);
	json_t *o = end(&w);
	assert_int_equal(number(o, "requests"), 7);
	assert_int_equal(number(o, "admitted"), 5);
	assert_int_equal(number(o, "denied"), 2);
	const json_t *reasons = json_object_get(o, "reasons");
	assert_int_equal(number(reasons, "limited"), 1);
	assert_int_equal(number(reasons, "blocked"), 1);
	static const struct {
		const char *name, *mode;
		int64_t requests, denied, clients, clients_denied;
	} want[] = { { "a", "enforce", 6, 1, 2, 1 }, { "s", "shadow", 6, 1, 1, 1 },
		{ "t", "enforce", 6, 4, 1, 1 }, { "o", "off", 0, 0, 0, 0 } };
	for (size_t i = 0; i < 4; i++) {
		const json_t *r = rule(o, i);
		assert_string_equal(json_string_value(json_object_get(r, "name")), want[i].name);
		assert_string_equal(json_string_value(json_object_get(r, "mode")), want[i].mode);
		assert_int_equal(number(r, "requests"), want[i].requests);
		assert_int_equal(number(r, "denied"), want[i].denied);
		assert_int_equal(number(r, "clients"), want[i].clients);
		assert_int_equal(number(r, "clients_denied"), want[i].clients_denied);
	}
	assert_int_equal(number(limit(o, 0, 0), "max"), 3); /* denied ones were asked for, too */
	assert_int_equal(number(limit(o, 1, 0), "max"), 5); /* on the first day */
	assert_int_equal(json_array_size(json_object_get(rule(o, 3), "limits")), 0);
	assert_int_equal(number(json_object_get(o, "top"), "total"), 6);
	assert_int_equal(number(o, "to") - number(o, "from"), 86400);
	json_decref(o);
}

static void what_clients_stay_within(void **state)
{
	struct world w = begin(
		"rules = ( { name = \"a\"; per = [ \"user\" ]; algorithm = \"fixed-window\";\n"
		"rate = { gold = [ \"5/minute\", \"200/day\" ]; default = \"5/minute\"; }; } );\n");
	char name[32];

	(void)state;
	/* In its busiest minute the i-th asks for i; in all others for less. */
	for (unsigned minute = 0; minute < 3; minute++)
		for (unsigned i = 1; i <= 100; i++) {
			(void)snprintf(name, sizeof name, "u%u", i);
			ask(&w, AT + minute * 60 * USEC_PER_SEC, FIELD_USER, name,
				minute == 1 ? i : i / 2);
		}
	json_t *o = end(&w);
	const json_t *l = limit(o, 0, 0);
	assert_int_equal(json_array_size(json_object_get(rule(o, 0), "limits")), 1);
	assert_true(json_is_null(json_object_get(l, "tiers")));
	assert_string_equal(json_string_value(json_object_get(l, "rate")), "5/minute");
	assert_int_equal(number(l, "clients"), 100);
	assert_int_equal(number(l, "p50"), 50);
	assert_int_equal(number(l, "p90"), 90);
	assert_int_equal(number(l, "p99"), 99);
	assert_int_equal(number(l, "max"), 100);
	assert_int_equal(number(rule(o, 0), "clients_denied"), 95);
	json_decref(o);
}

static void tiers_are_told_apart(void **state)
{
	struct world w = begin(
		"rules = ( { name = \"a\"; algorithm = \"fixed-window\";\n"
		"rate = { gold = \"9/day\"; silver = \"3/day\"; tin = \"3/day\"; }; } );\n");

	(void)state;
	ask(&w, AT, FIELD_TIER, "gold", 1);
	ask(&w, AT, FIELD_TIER, "lead", 1); /* not limited */
	json_t *o = end(&w);
	assert_int_equal(number(rule(o, 0), "requests"), 1);
	assert_int_equal(json_array_size(json_object_get(limit(o, 0, 0), "tiers")), 1);
	json_decref(o);

	w = begin("rules = ( { name = \"a\"; algorithm = \"fixed-window\"; per = [ \"tier\" ];\n"
		  "rate = { gold = \"9/day\"; silver = \"3/day\"; tin = \"3/day\"; }; } );\n");
	ask(&w, AT, FIELD_TIER, "tin", 1);
	ask(&w, AT, FIELD_TIER, "silver", 2);
	ask(&w, AT, FIELD_TIER, "gold", 3);
	o = end(&w);
	assert_int_equal(json_array_size(json_object_get(rule(o, 0), "limits")), 2);
	for (size_t i = 0; i < 2; i++) {
		const json_t *l = limit(o, 0, i);
		size_t tiers = json_array_size(json_object_get(l, "tiers"));
		assert_int_equal(number(l, "clients"), tiers);
		assert_int_equal(number(l, "limit"), tiers == 1 ? 9 : 3);
	}
	json_decref(o);
}

/* As the agent has it: three denials, ten minutes outside, and counted anew. */
static void penalties_hold(void **state)
{
	struct world w = begin(
		"rules = ( { name = \"a\"; per = [ \"ip\" ]; algorithm = \"fixed-window\";\n"
		"rate = \"1/minute\"; penalty = { after = \"3/1h\"; ban = \"10m\"; }; } );\n");

	(void)state;
	for (unsigned i = 0; i < 10; i++)
		ask(&w, AT, FIELD_IP, "192.0.2.1", 1);
	ask(&w, AT + 599 * USEC_PER_SEC, FIELD_IP, "192.0.2.1", 1);
	ask(&w, AT + 599 * USEC_PER_SEC, FIELD_IP, "192.0.2.2", 1);
	for (unsigned i = 0; i < 3; i++) /* one passes; two denials are no ban */
		ask(&w, AT + 601 * USEC_PER_SEC, FIELD_IP, "192.0.2.1", 1);
	json_t *o = end(&w);
	const json_t *reasons = json_object_get(o, "reasons");
	assert_int_equal(number(reasons, "ok"), 3);
	assert_int_equal(number(reasons, "limited"), 5);
	assert_int_equal(number(reasons, "banned"), 7);
	assert_int_equal(number(rule(o, 0), "requests"), 8); /* who is banned is not asked of */
	assert_int_equal(number(rule(o, 0), "bans"), 1);
	json_decref(o);
}

static void time_never_goes_back(void **state)
{
	struct world w = begin("rules = ( { name = \"a\"; algorithm = \"fixed-window\"; rate = "
			       "\"1/minute\"; } );\n");

	(void)state;
	ask(&w, AT + 90 * USEC_PER_SEC, FIELD_USER, "al", 1);
	ask(&w, AT, FIELD_USER, "al", 1); /* of the minute before, but it was told of too late */
	ask(&w, AT + 30 * USEC_PER_SEC, FIELD_USER, "al", 1);
	ask(&w, AT + 120 * USEC_PER_SEC, FIELD_USER, "al", 1);
	json_t *o = end(&w);
	assert_int_equal(number(o, "denied"), 2);
	assert_int_equal(number(o, "late"), 2);
	assert_int_equal(number(o, "late_seconds"), 90);
	assert_int_equal(number(o, "to") - number(o, "from"), 30);
	json_decref(o);
}

/* So many new clients, who each ask twice. */
static void ask_twice(struct world *w, usec_t at, unsigned clients)
{
	static unsigned last;
	char name[32];

	for (unsigned k = 0; k < 2 * clients; k++) {
		(void)snprintf(name, sizeof name, "%u", last + k / 2);
		ask(w, at, FIELD_USER, name, 1);
	}
	last += clients;
}

/* The ticks of the store's clock come round: what was full again long ago would seem to be in use,
 * after a pause that is longer than it may jump, or after several. */
static void a_log_may_have_long_pauses(void **state)
{
	enum { KEYS = 1000 };
	static const char config[] =
		"store: { max_keys = 1000; };\n"
		"rules = ( { name = \"a\"; per = [ \"user\" ]; rate = \"1/day\"; } );\n";
	struct world w = begin(config);

	(void)state;
	for (unsigned i = 0; i < 10; i++)
		ask_twice(&w, i * 1000 * DAY, KEYS);
	json_t *o = end(&w);
	assert_int_equal(number(o, "admitted"), 10 * KEYS);
	assert_int_equal(number(o, "evicted"), 0);
	json_decref(o);

	w = begin(config);
	for (unsigned i = 0; i < 4; i++)
		ask_twice(&w, i * 400 * DAY, KEYS / 10);
	ask_twice(&w, 4 * 400 * DAY, KEYS);
	o = end(&w);
	assert_int_equal(number(o, "evicted"), 0);
	json_decref(o);
}

/* Also what was forgotten before a pause after which another store counts. */
static void what_was_forgotten_is_told(void **state)
{
	struct world w = begin(
		"store: { max_keys = 1000; };\n"
		"rules = ( { name = \"a\"; per = [ \"user\" ]; rate = \"1/day\"; } );\n");

	(void)state;
	ask_twice(&w, AT, 3000);
	ask_twice(&w, AT + 1000 * DAY, 1);
	json_t *o = end(&w);
	assert_true(number(o, "evicted") >= 2000);
	json_decref(o);
}

static void a_cost_that_no_quota_has_is_not_added_up(void **state)
{
	struct world w = begin("rules = ( { name = \"a\"; algorithm = \"fixed-window\"; rate = "
			       "\"1/minute\"; } );\n");

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		ask(&w, AT, FIELD_USER, "al", INT64_MAX);
	json_t *o = end(&w);
	assert_int_equal(number(limit(o, 0, 0), "max"), 2000000000);
	json_decref(o);
}

static void nothing_was_asked(void **state)
{
	struct world w = begin("rules = ();\n");

	(void)state;
	json_t *o = end(&w);
	assert_int_equal(number(o, "requests"), 0);
	assert_true(json_is_null(json_object_get(o, "from")));
	json_decref(o);
}

static void what_is_absent_is_named(void **state)
{
	struct world w = begin(
		"store: { backend = \"redis\"; };\n"
		"rules = ( { name = \"a\"; per = [ \"key|user\" ]; match = { host = \"x\"; endpoint = "
		"\"GET:/x\"; }; rate = \"1/day\"; } );\n");

	(void)state;
	ask(&w, AT, FIELD_USER, "al", 1);
	json_t *o = end(&w);
	char *text = json_dumps(json_object_get(o, "unseen"), JSON_COMPACT);
	assert_string_equal(text, "[\"key\",\"method\",\"path\",\"host\"]");
	free(text);
	assert_string_equal(json_string_value(json_object_get(o, "store")), "redis");
	json_decref(o);
}

static void what_nobody_looks_at_is_not_missed(void **state)
{
	struct world w = begin(
		"rules = ( { name = \"a\"; per = [ \"user\" ]; cost = \"tokens\"; rate = \"9/day\"; },\n"
		"  { name = \"b\"; cost = \"bytes\"; per = []; rate = \"9/day\"; } );\n");
	unsigned bytes = (unsigned)layout_find_arg(&w.snapshot->policy->layout, STR("bytes"));
	char scratch[4096];
	struct view v;

	(void)state;
	view_init(&v, &w.snapshot->policy->layout, STR("check"), scratch, sizeof scratch);
	view_set_text(&v, FIELD_USER, STR("al"));
	view_set_integer(&v, bytes, 3);
	view_finish(&v);
	assert_true(replay_run_take(w.run, &v, AT));
	json_t *o = end(&w);
	char *text = json_dumps(json_object_get(o, "unseen"), JSON_COMPACT);
	assert_string_equal(
		text, "[\"tokens\"]"); /* no key; and a cost that is a number was seen */
	free(text);
	json_decref(o);
}

static void check_list(const json_t *o, const char *name, const char *want)
{
	char *text = json_dumps(json_object_get(o, name), JSON_COMPACT);

	assert_string_equal(text, want);
	free(text);
}

/* What a rule cannot do without: of alternatives one is enough, and a tier there always is. */
static void a_rule_that_cannot_be_judged_says_what_is_missing(void **state)
{
	static const char config[] =
		"rules = ( { name = \"a\"; per = [ \"key|user\" ]; rate = \"9/day\"; },\n"
		"  { name = \"b\"; match = { message = \"check-grpc\"; }; per = []; rate = \"0/day\"; },\n"
		"  { name = \"c\"; match = { message = \"!check\"; }; per = [ \"key|app\", \"user\" ]; "
		"rate = \"9/day\"; },\n"
		"  { name = \"d\"; match = { endpoint = \"GET:/\"; tier = \"gold\"; }; cost = \"tokens\"; "
		"per = [ \"app|tier\" ]; rate = \"9/day\"; } );\n";
	struct world w = begin(config);

	(void)state;
	ask(&w, AT, FIELD_USER, "al", 1);
	json_t *o = end(&w);
	check_list(rule(o, 0), "missing", "[]");
	check_list(rule(o, 1), "missing", "[\"message\"]");
	check_list(rule(o, 2), "missing", "[\"message\",\"key\",\"app\"]");
	check_list(rule(o, 3), "missing", "[\"method\",\"path\",\"tokens\"]");
	check_list(o, "unseen", "[\"message\",\"key\",\"method\",\"path\",\"app\",\"tokens\"]");
	json_decref(o);
}

/* One that says it is enough: the others were asked with `check`. */
static void a_message_is_seen_where_a_line_says_it(void **state)
{
	struct world w = begin(
		"rules = ( { name = \"b\"; match = { message = \"check-grpc\"; }; per "
		"= []; rate = \"0/day\"; } );\n");
	char scratch[4096];
	struct view v;

	(void)state;
	ask(&w, AT, FIELD_USER, "al", 1);
	view_init(&v, &w.snapshot->policy->layout, STR("check-grpc"), scratch, sizeof scratch);
	view_finish(&v);
	assert_true(replay_run_take(w.run, &v, AT));
	json_t *o = end(&w);
	check_list(rule(o, 0), "missing", "[]");
	check_list(o, "unseen", "[]");
	assert_int_equal(number(rule(o, 0), "requests"), 1);
	assert_int_equal(number(rule(o, 0), "denied"), 1);
	json_decref(o);
}

static void secrets_are_told_as_hashes(void **state)
{
	struct world w = begin(
		"rules = ( { name = \"a\"; per = [ \"key\" ]; rate = \"0/day\"; } );\n");

	(void)state;
	ask(&w, AT, FIELD_KEY, "open-sesame", 1);
	json_t *o = end(&w);
	char *text = json_dumps(o, 0);
	assert_null(strstr(text, "sesame"));
	assert_non_null(strstr(text, "key=sha256:"));
	free(text);
	json_decref(o);
}

static void clients_are_bounded(void **state)
{
	enum { MORE = 1000 };
	struct world w = begin(
		"store: { max_keys = 1000; };\n"
		"rules = ( { name = \"a\"; per = [ \"user\" ]; rate = \"1/day\"; },\n"
		"{ name = \"b\"; rate = \"1/day\"; mode = \"shadow\"; } );\n");
	char name[32];

	(void)state;
	for (unsigned i = 0; i < REPLAY_CLIENTS_MAX + MORE; i++) {
		(void)snprintf(name, sizeof name, "u%u", i);
		ask(&w, AT, FIELD_USER, name, 1);
	}
	json_t *o = end(&w);
	assert_int_equal(number(rule(o, 0), "clients"), REPLAY_CLIENTS_MAX - 1);
	assert_true(json_is_true(json_object_get(rule(o, 0), "more_clients")));
	assert_true(json_is_false(json_object_get(rule(o, 1), "more_clients")));
	assert_int_equal(number(rule(o, 0), "requests"), REPLAY_CLIENTS_MAX + MORE);
	assert_int_equal(number(limit(o, 1, 0), "max"), REPLAY_CLIENTS_MAX + MORE);
	assert_true(number(o, "evicted") > 0);
	json_decref(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_rule_is_told_of),
		cmocka_unit_test(what_clients_stay_within),
		cmocka_unit_test(tiers_are_told_apart),
		cmocka_unit_test(penalties_hold),
		cmocka_unit_test(time_never_goes_back),
		cmocka_unit_test(a_log_may_have_long_pauses),
		cmocka_unit_test(what_was_forgotten_is_told),
		cmocka_unit_test(a_cost_that_no_quota_has_is_not_added_up),
		cmocka_unit_test(nothing_was_asked),
		cmocka_unit_test(what_is_absent_is_named),
		cmocka_unit_test(what_nobody_looks_at_is_not_missed),
		cmocka_unit_test(a_rule_that_cannot_be_judged_says_what_is_missing),
		cmocka_unit_test(a_message_is_seen_where_a_line_says_it),
		cmocka_unit_test(secrets_are_told_as_hashes),
		cmocka_unit_test(clients_are_bounded),
	};

	(void)hash_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
