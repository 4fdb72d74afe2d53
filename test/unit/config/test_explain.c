/* What a request would get: foreseen by what a store says to a cost of 0, and why each rule has a
 * say or none. */
#include "load_helper.h"

#include "../../chance.h"
#include "base/hash.h"
#include "config/explain.h"

static const char config[] =
	"block = ( { ip = \"192.0.2.0/24\"; } );\n"
	"allow = ( { user = \"root\"; } );\n"
	"rules = (\n"
	"  { name = \"api\"; per = [ \"user\" ]; rate = { gold = \"unlimited\"; free = [ \"6/minute\", "
	"\"20/hour\" ]; default = \"4/minute\"; }; warn_at = 0.5; },\n"
	"  { name = \"path\"; match = { path = \"/v1/*\"; method = \"POST\"; }; per = [ \"ip\" ]; "
	"rate = \"5/minute\"; algorithm = \"sliding-window\"; count_denied = true; },\n"
	"  { name = \"keys\"; per = [ \"key|user\" ]; rate = \"9/hour\"; algorithm = \"fixed-window\"; },\n"
	"  { name = \"spy\"; per = []; match = { key = \"sk-*\"; }; rate = \"3/hour\"; mode = \"shadow\"; },\n"
	"  { name = \"idle\"; per = []; rate = \"1/day\"; mode = \"off\"; }\n"
	");\n";

static const struct now start = { .utc = 1800000000 * USEC_PER_SEC, .steady = 5 * USEC_PER_SEC };

/* A store as small as they come. */
enum { STORED_MAX = 256 };
static struct {
	struct key key;
	struct bucket bucket;
} stored[STORED_MAX];
static unsigned stored_n;

static struct bucket *find(struct key k)
{
	for (unsigned i = 0; i < stored_n; i++)
		if (stored[i].key.a == k.a && stored[i].key.b == k.b)
			return &stored[i].bucket;
	return NULL;
}

static void take(struct plan *plan, struct now now)
{
	const struct bucket *of[PLAN_MAX];

	for (unsigned i = 0; i < plan->n; i++)
		of[i] = find(plan->take[i].key);
	plan_charge(plan, of, now);
	plan->now = now;
	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		if (!t->verdict.charged)
			continue;
		assert_true(t->cost != 0);
		struct bucket *b = find(t->key);
		if (!b) {
			assert_true(stored_n < STORED_MAX);
			stored[stored_n].key = t->key;
			b = &stored[stored_n++].bucket;
		}
		*b = t->verdict.state;
	}
}

static json_t *explained(struct explain *e, const struct policy *p, const char *fields, bool fresh)
{
	json_t *o = json_loads(fields, 0, NULL);
	char err[256];

	assert_non_null(o);
	if (!explain_init(e, p, o, err, sizeof err))
		fail_msg("%s: %s", fields, err);
	json_decref(o);
	if (fresh) {
		explain_as_fresh(e, start);
	} else {
		explain_plan(e, (struct str){ 0 });
		take(&e->plan, start);
	}
	return explain_json(e);
}

static const char *why(const json_t *answer, const char *rule)
{
	json_t *list = json_object_get(answer, "rules"), *r;
	size_t i;

	json_array_foreach(list, i, r)
	{
		if (strcmp(json_string_value(json_object_get(r, "name")), rule) != 0)
			continue;
		const char *text = json_string_value(json_object_get(r, "why"));
		return text ? text : "";
	}
	return "no such rule";
}

#define HASH \
	"sha256:2C70E12B7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683" /* of "key" */

#define UNSEEN \
	"counts by key, of which only the hash is given, and no request with it was seen by this " \
	"agent lately: its counters are found by the key itself"
#define UNMATCHED "matches by key, of which only the hash is given: nobody can tell"

static void test_why(void **state)
{
	static const struct {
		const char *fields, *rule, *why;
		bool fresh;
	} rows[] = {
		{ "{\"user\":\"a\"}", "api", "", false },
		{ "{}", "api", "counts by user, which is not there", false },
		{ "{\"user\":\"a\",\"tier\":\"gold\"}", "api", "does not limit this tier", false },
		{ "{\"ip\":\"::1\",\"path\":\"/v1/x\",\"method\":\"POST\"}", "path", "", false },
		{ "{\"ip\":\"::1\",\"path\":\"/v2\",\"method\":\"POST\"}", "path",
			"does not match: path is another", false },
		{ "{\"ip\":\"::1\",\"path\":\"/v1/x\"}", "path",
			"does not match: method is not there", false },
		{ "{\"path\":\"/v1/x\",\"method\":\"POST\"}", "path",
			"counts by ip, which is not there", false },
		{ "{}", "keys", "counts by key|user, which is not there", false },
		{ "{\"key\":\"" HASH "\"}", "keys", UNSEEN, false },
		{ "{\"key\":\"" HASH "\"}", "spy", UNMATCHED, false },
		{ "{\"key\":\"" HASH "\"}", "keys", "", true },
		{ "{\"key\":\"" HASH "\"}", "spy", UNMATCHED, true },
		{ "{\"key\":\"sk-1\"}", "spy", "", false },
		{ "{\"user\":\"a\"}", "idle", "is off", false },
		{ "{\"user\":\"root\"}", "api", "is not asked: the request bypasses all limits",
			false },
		{ "{\"ip\":\"192.0.2.1\"}", "idle", "is not asked: the request is blocked", false },
	};
	struct snapshot *s = load_text("explain", config, "");

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct explain e;
		json_t *a = explained(&e, s->policy, rows[i].fields, rows[i].fresh);
		if (strcmp(why(a, rows[i].rule), rows[i].why) != 0)
			fail_msg("%s, %s: %s", rows[i].fields, rows[i].rule, why(a, rows[i].rule));
		json_decref(a);
		explain_fini(&e);
	}
	drop(s);
}

static void test_what_is_no_question(void **state)
{
	static const char *const rows[] = { "[]", "5", "{\"ip\":[]}", "{\"cost\":1.5}",
		"{\"message\":\"chec\"}", "{\"message\":1}", "{\"nothing\":{}}",
		"{\"key\":\"sha256:1\"}" };
	struct snapshot *s = load_text("explain", config, "");
	char err[256];

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct explain e;
		json_t *o = json_loads(rows[i], JSON_DECODE_ANY, NULL);
		if (explain_init(&e, s->policy, o, err, sizeof err))
			fail_msg("%s", rows[i]);
		explain_fini(&e);
		json_decref(o);
	}
	drop(s);
}

/* ---- foreseen as it comes ---- */

static void real(const struct policy *p, const char *fields, struct now now, json_t *foreseen)
{
	struct explain e; /* only for its view */
	json_t *o = json_loads(fields, 0, NULL);
	char err[64];
	struct plan plan;

	assert_true(explain_init(&e, p, o, err, sizeof err));
	policy_plan(p, &e.view, &plan);
	if (plan.outcome == OUTCOME_LIMITS)
		take(&plan, now);
	struct decision d = decide(&plan, now);
	json_t *want = json_pack(
		"{s:b, s:s, s:b}", "deny", d.deny, "reason", reason_name(d.reason), "warn", d.warn);
	if (d.reported)
		json_object_update_new(want,
			json_pack("{s:s, s:I, s:I, s:I, s:I}", "rule",
				d.reported->limit->rule->name, "limit", (json_int_t)d.limit,
				"remaining", (json_int_t)d.remaining, "reset", (json_int_t)d.reset,
				"retry_after", (json_int_t)d.retry_after));
	if (d.shadow)
		json_object_set_new(want, "shadow", json_string(d.shadow->name));
	json_t *got = json_object_get(foreseen, "decision");
	if (!json_equal(got, want))
		fail_msg("%s: %s, not %s", fields, json_dumps(got, JSON_SORT_KEYS),
			json_dumps(want, JSON_SORT_KEYS));
	json_decref(want);
	json_decref(o);
	explain_fini(&e);
}

static json_t *foresee(const struct policy *p, const char *fields, struct now now)
{
	struct explain e;
	json_t *o = json_loads(fields, 0, NULL);
	char err[64];

	assert_true(explain_init(&e, p, o, err, sizeof err));
	explain_plan(&e, (struct str){ 0 });
	unsigned had = stored_n;
	take(&e.plan, now);
	assert_int_equal(stored_n, had);
	json_t *a = explain_json(&e);
	json_decref(o);
	explain_fini(&e);
	return a;
}

static void test_it_comes_as_foreseen(void **state)
{
	static const char *const users[] = { "a", "b", "root" };
	static const char *const tiers[] = { "gold", "free", "x" };
	struct snapshot *s = load_text("explain", config, "");
	struct chance chance = { 7 };
	struct now now = start;
	char fields[256];

	(void)state;
	stored_n = 0;
	for (unsigned i = 0; i < 5000; i++) {
		usec_t step = between(&chance, 0, 19) * USEC_PER_SEC / 3;
		now.utc += step;
		now.steady += step;
		snprintf(fields, sizeof fields,
			"{\"user\":\"%s\",\"ip\":\"10.0.0.%u\",\"tier\":\"%s\",\"path\":\"/v%u/x\","
			"\"method\":\"POST\",\"key\":\"sk-%u\",\"cost\":%u}",
			users[between(&chance, 0, 2)], (unsigned)between(&chance, 0, 1),
			tiers[between(&chance, 0, 2)], (unsigned)between(&chance, 0, 1),
			(unsigned)between(&chance, 0, 1), (unsigned)between(&chance, 0, 6));
		json_t *a = foresee(s->policy, fields, now);
		real(s->policy, fields, now, a);
		json_decref(a);
	}
	drop(s);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_why),
		cmocka_unit_test(test_what_is_no_question),
		cmocka_unit_test(test_it_comes_as_foreseen),
	};
	return hash_init() ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
