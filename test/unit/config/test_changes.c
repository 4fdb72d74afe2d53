/* What the operator changes while the agent runs: which changes there can be, when they end, and
 * what a policy does with them. */
#include "load_helper.h"

#include "config/changes.h"
#include "config/problems.h"
#include "limit/plan.h"

/* Of 192.0.2.9, 10.0.0.0/30 and 2001:db8::/32. */
#define IP_HEX        "d27fb1b45c2670fa64c03d01d426156940ddb94b545556c84f544abb737f0e76"
#define NET_HEX       "257425f2c266f752ab57a39a138e101a5ada9286aa03dfc0a552145f52f7d22c"
#define NET6_HEX      "90c2cbc21bd13638677561694710bb1dd826aefd0c5b8509b09a84fcc78557ff"
#define KEY_HEX_UPPER "2C70E12B7A0646F92279F427C7B38E7334D8E5389CFF167A1DC30E73F826B683"
#define KEY_HEX       "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683" /* of "key" */

static const char config[] =
	"block = ( { ip = \"192.0.2.0/24\"; } );\n"
	"allow = ( { ip = \"203.0.113.0/24\"; } );\n"
	"identity: { default_tier = \"free\"; };\n"
	"rules = (\n"
	"  { name = \"api\"; per = [ \"user|ip\" ]; rate = { free = \"10/minute\"; gold = \"50/minute\"; }; },\n"
	"  { name = \"day\"; per = [ \"ip\" ]; algorithm = \"fixed-window\"; rate = \"100/day\"; },\n"
	"  { name = \"seen\"; per = []; rate = \"5/hour\"; mode = \"shadow\"; }\n"
	");\n";

/* `put`: NAME JSON lines. The snapshot's messages must be exactly `want`. */
static struct snapshot *rebuilt(struct snapshot *old, const char *put, const char *want)
{
	struct changes *c = changes_new();
	struct problems p = { 0 };
	char name[CHANGE_NAME_MAX], err[512];

	assert_non_null(c);
	while (*put) {
		size_t n = strcspn(put, " "), line = strcspn(put, "\n");
		memcpy(name, put, n);
		name[n] = '\0';
		if (!changes_put_text(c, name, (struct str){ put + n, line - n }, err, sizeof err))
			fail_msg("%s: %s", name, err);
		put += line + (put[line] == '\n');
	}
	json_t *idle = json_object(), *list, *text;
	const char *idle_name;
	size_t i;
	struct snapshot *s = config_rebuild(old, c, old->generation + 1, &p, idle);
	json_object_foreach(idle, idle_name, list)
	{
		json_array_foreach(list, i, text)
		{
			problem_warn(
				&p, (struct place){ idle_name, 0 }, "%s", json_string_value(text));
		}
	}
	json_decref(idle);
	char *got = problems_text(&p);
	if (strcmp(got, want) != 0)
		fail_msg("--- got\n%s--- want\n%s", got, want);
	free(got);
	problems_free(&p);
	changes_free(c);
	return s;
}

/* "api 10/60 seen 5/3600", or "blocked" and the like, and the tier after it. */
static const char *planned(
	const struct snapshot *s, const char *user, const char *key, const char *ip, char out[512])
{
	static const char *const outcome[] = { "limits", "disabled", "blocked", "bypassed" };
	static char scratch[4096];
	struct view v;
	struct plan plan;
	size_t n = 0;

	view_init(&v, &s->policy->layout, STR("check"), scratch, sizeof scratch);
	view_set_text(&v, FIELD_USER, str_of(user));
	view_set_text(&v, FIELD_KEY, str_of(key));
	view_set_text(&v, FIELD_IP, str_of(ip));
	view_finish(&v);
	policy_plan(s->policy, &v, &plan);
	n += (size_t)sprintf(out, "%s:", outcome[plan.outcome]);
	for (unsigned i = 0; i < plan.n; i++) {
		const struct limit *l = plan.take[i].limit;
		static const char *const mode[] = { "", "(shadow)", "(off)" };
		n += (size_t)sprintf(out + n, " %s%s %d/%d", l->rule->name, mode[l->rule->mode],
			(int)l->quota.capacity, (int)(l->quota.window.length / USEC_PER_SEC));
	}
	sprintf(out + n, " %s", plan.tier);
	return out;
}

static void is_planned(const char *title, const struct snapshot *s, const char *user,
	const char *key, const char *ip, const char *want)
{
	char got[512];

	assert_non_null(s);
	if (strcmp(planned(s, user, key, ip, got), want) != 0)
		fail_msg("%s: got %s, want %s", title, got, want);
}

static void an_override_holds_for_its_client(void **state)
{
	static const struct {
		const char *title, *put, *user, *key, *ip, *want;
	} row[] = {
		{ "nothing changed", "", "alice", "", "10.0.0.1",
			"limits: api 10/60 day 100/86400 seen(shadow) 5/3600 free" },
		{ "another tier", "override:user:alice {\"tier\":\"gold\"}", "alice", "",
			"10.0.0.1", "limits: api 50/60 day 100/86400 seen(shadow) 5/3600 gold" },
		{ "not for others", "override:user:alice {\"tier\":\"gold\"}", "bob", "",
			"10.0.0.1", "limits: api 10/60 day 100/86400 seen(shadow) 5/3600 free" },
		{ "a tier that no rule knows", "override:user:alice {\"tier\":\"new\"}", "alice",
			"", "10.0.0.1", "limits: day 100/86400 seen(shadow) 5/3600 new" },
		{ "another rate of one rule, the others as they are",
			"override:user:alice {\"rates\":{\"api\":\"70/minute burst 80\"}}", "alice",
			"", "10.0.0.1",
			"limits: api 80/60 day 100/86400 seen(shadow) 5/3600 free" },
		{ "several rates",
			"override:user:alice {\"rates\":{\"api\":[\"7/minute\",\"70/hour\"]}}",
			"alice", "", "10.0.0.1",
			"limits: api 7/60 api 70/3600 day 100/86400 seen(shadow) 5/3600 free" },
		{ "unlimited by one rule",
			"override:user:alice {\"rates\":{\"api\":\"unlimited\"}}", "alice", "",
			"10.0.0.1", "limits: day 100/86400 seen(shadow) 5/3600 free" },
		{ "bypass", "override:user:alice {\"bypass\":true}", "alice", "", "10.0.0.1",
			"bypassed: free" },
		{ "block", "override:user:alice {\"block\":true}", "alice", "", "10.0.0.1",
			"blocked: free" },
		{ "an override goes before the block list",
			"override:ip:192.0.2.7/32 {\"bypass\":true}", "", "", "192.0.2.7",
			"bypassed: free" },
		{ "and before the allow list", "override:ip:203.0.113.7/32 {\"block\":true}", "",
			"", "203.0.113.7", "blocked: free" },
		{ "a tier is no way around the block list",
			"override:ip:192.0.2.7/32 {\"tier\":\"gold\"}", "", "", "192.0.2.7",
			"blocked: gold" },
		{ "by key", "override:key:sha256:" KEY_HEX " {\"block\":true}", "", "key",
			"10.0.0.1", "blocked: free" },
		{ "its hash is not the key", "override:key:sha256:" KEY_HEX " {\"block\":true}", "",
			"sha256:" KEY_HEX, "10.0.0.1",
			"limits: api 10/60 day 100/86400 seen(shadow) 5/3600 free" },
		{ "by the hash of a user", "override:user:sha256:" KEY_HEX " {\"block\":true}",
			"key", "", "10.0.0.1", "blocked: free" },
		{ "its hash is not the user", "override:user:sha256:" KEY_HEX " {\"block\":true}",
			"sha256:" KEY_HEX, "", "10.0.0.1",
			"limits: api 10/60 day 100/86400 seen(shadow) 5/3600 free" },
		{ "key before user",
			"override:key:sha256:" KEY_HEX " {\"tier\":\"gold\"}\n"
			"override:user:alice {\"block\":true}",
			"alice", "key", "10.0.0.1",
			"limits: api 50/60 day 100/86400 seen(shadow) 5/3600 gold" },
		{ "user before address",
			"override:ip:10.0.0.0/8 {\"block\":true}\n"
			"override:user:alice {\"bypass\":true}",
			"alice", "", "10.0.0.1", "bypassed: free" },
		{ "the longest prefix",
			"override:ip:10.0.0.0/8 {\"block\":true}\n"
			"override:ip:10.0.0.0/30 {\"bypass\":true}\n"
			"override:ip:0.0.0.0/0 {\"tier\":\"gold\"}",
			"", "", "10.0.0.3", "bypassed: free" },
		{ "the shorter one outside it",
			"override:ip:10.0.0.0/8 {\"block\":true}\n"
			"override:ip:10.0.0.0/30 {\"bypass\":true}",
			"", "", "10.0.0.4", "blocked: free" },
		{ "a prefix of IPv6", "override:ip:2001:db8::/32 {\"block\":true}", "", "",
			"2001:db8:1::2", "blocked: free" },
		{ "0.0.0.0/0 is not ::/0", "override:ip:0.0.0.0/0 {\"block\":true}", "", "", "::2",
			"limits: api 10/60 day 100/86400 seen(shadow) 5/3600 free" },
		{ "the hash of an address", "override:ip:sha256:" IP_HEX "/32 {\"bypass\":true}",
			"", "", "192.0.2.9", "bypassed: free" },
		{ "is of no other", "override:ip:sha256:" IP_HEX "/32 {\"bypass\":true}", "", "",
			"10.0.0.9", "limits: api 10/60 day 100/86400 seen(shadow) 5/3600 free" },
		{ "nor of its prefix", "override:ip:sha256:" IP_HEX "/24 {\"bypass\":true}", "", "",
			"10.0.0.9", "limits: api 10/60 day 100/86400 seen(shadow) 5/3600 free" },
		{ "the hash of a prefix, and the longest, by hash or not",
			"override:ip:sha256:" NET_HEX "/30 {\"bypass\":true}\n"
			"override:ip:10.0.0.0/8 {\"block\":true}",
			"", "", "10.0.0.1", "bypassed: free" },
		{ "beside it the shorter one holds",
			"override:ip:sha256:" NET_HEX "/30 {\"bypass\":true}\n"
			"override:ip:10.0.0.0/8 {\"block\":true}",
			"", "", "10.0.0.4", "blocked: free" },
		{ "the hash of a prefix of IPv6",
			"override:ip:sha256:" NET6_HEX "/32 {\"block\":true}", "", "",
			"2001:db8:1::2", "blocked: free" },
		{ "a length of IPv6 is nothing to IPv4",
			"override:ip:sha256:" IP_HEX "/128 {\"block\":true}", "", "", "10.0.0.9",
			"limits: api 10/60 day 100/86400 seen(shadow) 5/3600 free" },
		{ "all rules off", "switch: {\"mode\":\"off\"}", "alice", "", "10.0.0.1",
			"disabled: free" },
		{ "off is off for a blocked one, too",
			"switch: {\"mode\":\"off\"}\noverride:user:alice {\"block\":true}", "alice",
			"", "10.0.0.1", "disabled: free" },
		{ "all rules in shadow", "switch: {\"mode\":\"shadow\"}", "alice", "", "10.0.0.1",
			"limits: api(shadow) 10/60 day(shadow) 100/86400 seen(shadow) 5/3600 free" },
		{ "one rule off", "switch:api {\"mode\":\"off\"}", "alice", "", "10.0.0.1",
			"limits: day 100/86400 seen(shadow) 5/3600 free" },
		{ "one rule enforced", "switch:seen {\"mode\":\"enforce\"}", "alice", "",
			"10.0.0.1", "limits: api 10/60 day 100/86400 seen 5/3600 free" },
		/* ':' sorts before names: the whole first, then the one */
		{ "one enforced in a global shadow",
			"switch: {\"mode\":\"shadow\"}\nswitch:api {\"mode\":\"enforce\"}", "alice",
			"", "10.0.0.1",
			"limits: api 10/60 day(shadow) 100/86400 seen(shadow) 5/3600 free" },
	};
	struct snapshot *s = load_text("base", config, "");
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct snapshot *fresh = rebuilt(s, row[i].put, "");
		is_planned(row[i].title, fresh, row[i].user, row[i].key, row[i].ip, row[i].want);
		drop(fresh);
	}
	drop(s);
}

/* In an emergency: what counts already, denies; what is off was never seen at work. */
static void who_enforces_all_means_what_is_counted(void **state)
{
	static const char emergency[] =
		"enabled = false;\n"
		"identity: { default_tier = \"free\"; };\n"
		"rules = ( { name = \"api\"; per = [ \"user\" ]; rate = \"1/hour\"; },\n"
		"  { name = \"seen\"; per = []; rate = \"5/hour\"; mode = \"shadow\"; },\n"
		"  { name = \"idle\"; per = []; rate = \"6/hour\"; mode = \"off\"; } );\n";
	static const struct {
		const char *title, *put, *want;
	} row[] = {
		{ "nothing changed", "", "disabled: free" },
		{ "all enforced", "switch: {\"mode\":\"enforce\"}",
			"limits: api 1/3600 seen 5/3600 free" },
		{ "but for one", "switch: {\"mode\":\"enforce\"}\nswitch:api {\"mode\":\"shadow\"}",
			"limits: api(shadow) 1/3600 seen 5/3600 free" },
		{ "and one that is off, by its name",
			"switch: {\"mode\":\"enforce\"}\nswitch:idle {\"mode\":\"enforce\"}",
			"limits: api 1/3600 seen 5/3600 idle 6/3600 free" },
		{ "all counted", "switch: {\"mode\":\"shadow\"}",
			"limits: api(shadow) 1/3600 seen(shadow) 5/3600 free" },
	};
	struct snapshot *s = load_text("emergency", emergency, "");
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct snapshot *fresh = rebuilt(s, row[i].put, "");
		is_planned(row[i].title, fresh, "alice", "", "10.0.0.1", row[i].want);
		drop(fresh);
	}
	drop(s);
}

static void an_epoch_makes_other_counters(void **state)
{
	struct snapshot *s = load_text("base", config, "");
	const char *const put[] = { "", "epoch:api {\"epoch\":1}", "epoch: {\"epoch\":1}",
		"epoch: {\"epoch\":1}\nepoch:api {\"epoch\":1}" };
	struct key api[4], day[4];
	(void)state;

	for (unsigned i = 0; i < 4; i++) {
		struct snapshot *fresh = rebuilt(s, put[i], "");
		api[i] = fresh->policy->rule[0].tier[0].limit->salt;
		day[i] = fresh->policy->rule[1].other.limit->salt;
		drop(fresh);
	}
	assert_memory_not_equal(&api[0], &api[1], sizeof api[0]);
	assert_memory_equal(&day[0], &day[1], sizeof day[0]);
	assert_memory_equal(&api[1], &api[2], sizeof api[0]); /* once, in either way */
	assert_memory_not_equal(&day[0], &day[2], sizeof day[0]);
	assert_memory_not_equal(&api[2], &api[3], sizeof api[0]);
	drop(s);
}

/* Counters of a rule are shared by its tiers and its overrides: who waits longest counts. */
static void an_override_counts_for_how_long_a_counter_is_kept(void **state)
{
	struct snapshot *s = load_text("base", config, "");
	struct snapshot *fresh = rebuilt(
		s, "override:user:alice {\"rates\":{\"api\":\"1/minute burst 9\"}}", "");
	(void)state;

	assert_true(s->policy->rule[0].tier[0].limit->slowest_interval == 6e6);
	assert_true(fresh->policy->rule[0].tier[0].limit->slowest_interval == 60e6);
	drop(fresh);
	drop(s);
}

static void what_does_not_go_with_the_configuration_is_told_and_the_rest_holds(void **state)
{
	struct snapshot *s = load_text("base", config, "");
	char got[512];
	struct snapshot *fresh = rebuilt(s,
		"override:user:alice {\"rates\":{\"gone\":\"1/minute\",\"day\":\"5/day burst 7\",\"api\":\"3/minute\"}}\n"
		"override:user:bob {\"rates\":{\"api\":[\"1/minute\",\"unlimited\"],\"day\":\"7/day\"}}\n"
		"switch:ap {\"mode\":\"off\"}\n"
		"switch:gone {\"mode\":\"off\"}",
		"switch:ap: warning: there is no rule \"ap\"; did you mean \"api\"?\n"
		"switch:gone: warning: there is no rule \"gone\"\n"
		"override:user:alice: warning: there is no rule \"gone\"\n"
		"override:user:alice: warning: rule \"day\": \"5/day burst 7\" does not go with its "
		"algorithm\n"
		"override:user:bob: warning: rule \"api\": \"unlimited\" beside other rates: want "
		"it alone\n");
	(void)state;

	assert_string_equal(planned(fresh, "alice", "", "10.0.0.1", got),
		"limits: api 3/60 day 100/86400 seen(shadow) 5/3600 free");
	assert_string_equal(planned(fresh, "bob", "", "10.0.0.1", got),
		"limits: api 10/60 day 7/86400 seen(shadow) 5/3600 free");
	drop(fresh);
	drop(s);
}

/* `n` rates of as many windows, as a JSON list. */
static const char *rates_json(unsigned n, char out[512])
{
	size_t at = 0;

	for (unsigned i = 1; i <= n; i++)
		at += (size_t)sprintf(out + at, "%c\"9/%us\"", i == 1 ? '[' : ',', i);
	sprintf(out + at, "]");
	return out;
}

/* However they are spread over the rules: a plan has room for so many limits, and no more. */
static void no_client_gets_more_limits_than_a_plan_has(void **state)
{
	static const struct {
		unsigned api, day, want; /* the last with that of `seen` */
	} row[] = { { 1, 1, 3 }, { 16, 15, PLAN_MAX }, { 15, 16, PLAN_MAX }, { 30, 1, PLAN_MAX },
		{ 1, 30, PLAN_MAX }, { 16, 16, 18 }, { 20, 20, 22 }, { 31, 1, 3 },
		{ 30, 30, PLAN_MAX } };
	struct snapshot *s = load_text("base", config, "");
	char api[512], day[512], json[1200], err[512];
	static char scratch[4096];
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct changes *c = changes_new();
		struct problems p = { 0 };
		struct view v;
		struct plan plan;
		sprintf(json, "{\"rates\":{\"api\":%s,\"day\":%s}}", rates_json(row[i].api, api),
			rates_json(row[i].day, day));
		assert_true(
			changes_put_text(c, "override:user:alice", str_of(json), err, sizeof err));
		struct snapshot *fresh = config_rebuild(s, c, 2, &p, NULL);
		view_init(&v, &fresh->policy->layout, STR("check"), scratch, sizeof scratch);
		view_set_text(&v, FIELD_USER, STR("alice"));
		view_set_text(&v, FIELD_IP, STR("10.0.0.1"));
		view_finish(&v);
		policy_plan(fresh->policy, &v, &plan);
		if (plan.n != row[i].want)
			fail_msg("%u and %u: %u limits, want %u", row[i].api, row[i].day, plan.n,
				row[i].want);
		problems_free(&p);
		changes_free(c);
		drop(fresh);
	}
	drop(s);
}

/* However many they are: one that is not told would be taken to hold. */
static void each_that_is_without_effect_is_told(void **state)
{
	enum { MANY = 5000 };
	struct snapshot *s = load_text("base", config, "");
	struct changes *c = changes_new();
	struct problems p = { 0 };
	json_t *idle = json_object();
	char name[64], err[512];
	(void)state;

	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof name, "override:user:u%u", i);
		assert_true(changes_put_text(c, name,
			STR("{\"rates\":{\"nosuch\":\"1/day\",\"nor\":\"1/day\"}}"), err,
			sizeof err));
	}
	struct snapshot *fresh = config_rebuild(s, c, 2, &p, idle);
	assert_non_null(fresh);
	assert_int_equal(json_object_size(idle), MANY);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof name, "override:user:u%u", i);
		assert_int_equal(json_array_size(json_object_get(idle, name)), 2);
	}
	json_decref(idle);
	drop(fresh);

	/* Of one that is for many rules which are not there, so many that it can be seen. */
	assert_true(changes_put_text(c, "override:user:u0",
		STR("{\"rates\":{\"a\":\"1/day\",\"b\":\"1/day\",\"c\":\"1/day\",\"d\":\"1/day\","
		    "\"e\":\"1/day\",\"f\":\"1/day\",\"g\":\"1/day\",\"h\":\"1/day\",\"i\":\"1/day\","
		    "\"j\":\"1/day\"}}"),
		err, sizeof err));
	idle = json_object();
	fresh = config_rebuild(s, c, 2, &p, idle);
	json_t *said = json_object_get(idle, "override:user:u0");
	assert_int_equal(json_array_size(said), 9);
	assert_string_equal(json_string_value(json_array_get(said, 8)), "and more");
	json_decref(idle);
	problems_free(&p);
	changes_free(c);
	drop(fresh);
	drop(s);
}

static void files_are_not_read_again(void **state)
{
	char got[512];
	(void)state;

	put_file("c.cfg",
		"identity: { tiers_file = \"t.map\"; };\nrules = ( { name = \"r\"; per = []; "
		"rate = { gold = \"7/minute\"; }; } );\n");
	put_file("t.map", "alice gold\n");
	struct snapshot *s = load_file("c.cfg", "");
	put_file("c.cfg", "broken");
	put_file("t.map", "broken");
	struct snapshot *fresh = rebuilt(s, "", "");
	drop(s); /* what it was read from lives on */
	assert_non_null(fresh);
	assert_int_equal(fresh->generation, 8);
	assert_string_equal(planned(fresh, "alice", "", "10.0.0.1", got), "limits: r 7/60 gold");
	struct snapshot *again = rebuilt(fresh, "switch: {\"mode\":\"off\"}", "");
	drop(fresh);
	assert_string_equal(planned(again, "alice", "", "10.0.0.1", got), "disabled: gold");
	drop(again);
}

#define R8 "\"1/1s\",\"1/2s\",\"1/3s\",\"1/4s\",\"1/5s\",\"1/6s\",\"1/7s\",\"1/8s\""

static void what_is_no_change_is_refused(void **state)
{
	static const struct {
		const char *name, *json, *want;
	} row[] = {
		{ "override:user:a", "{", "no JSON" },
		{ "override:user:a", "[]", "want a JSON object" },
		{ "override:user:a", "{}", "want one of \"tier\"" },
		{ "override:user:a", "{\"tier\":\"x\",\"block\":true}", "want one of \"tier\"" },
		{ "override:user:a", "{\"bypass\":false}", "want one of \"tier\"" },
		{ "override:user:a", "{\"tier\":\"\"}", "tier: want a name" },
		{ "override:user:a", "{\"tier\":\"a\\u0000b\"}", "" },
		{ "override:user:a", "{\"tier\":\"a\\nb\"}", "tier: control characters" },
		{ "override:user:a", "{\"tier\":\"a\\u007f\"}", "tier: control characters" },
		{ "override:user:a", "{\"rates\":{}}", "rates: want" },
		{ "override:user:a", "{\"rates\":{\"api\":10}}", "want a rate" },
		{ "override:user:a", "{\"rates\":{\"api\":\"10\"}}", "rate \"10\"" },
		{ "override:user:a", "{\"rates\":{\"api\":[]}}",
			"rule \"api\": 0 rates, want 1 to 32" },
		{ "override:user:a", "{\"rates\":{\"api\":[" R8 "," R8 "," R8 "," R8 ",\"9/1d\"]}}",
			"rule \"api\": 33 rates, want 1 to 32" },
		{ "override:user:a", "{\"block\":true,\"until\":\"tomorrow\"}", "until: want" },
		{ "override:user:a", "{\"block\":true,\"reason\":5}", "reason: want" },
		{ "override:user:", "{\"block\":true}", "user: want 1 to 255 bytes" },
		{ "override:user:a\nb", "{\"block\":true}", "control characters" },
		{ "override:group:a", "{\"block\":true}", "want user, key or ip" },
		{ "override:key:plain", "{\"block\":true}", "want override:key:sha256:" },
		{ "override:key:sha256:2C70E12B", "{\"block\":true}", "key: want 64 hex digits" },
		{ "override:ip:10.0.0.1", "{\"block\":true}", "want override:ip:10.0.0.1/32" },
		{ "override:ip:10.0.0.1/8", "{\"block\":true}", "want override:ip:10.0.0.0/8" },
		{ "override:ip:nowhere", "{\"block\":true}", "ip: " },
		{ "override:ip:sha256:" KEY_HEX, "{\"block\":true}", "ip: want 64 hex digits" },
		{ "override:ip:sha256:2c70e12b/32", "{\"block\":true}", "ip: want 64 hex digits" },
		{ "override:ip:sha256:" KEY_HEX "/", "{\"block\":true}", "ip: want 64 hex digits" },
		{ "override:ip:sha256:" KEY_HEX "/129", "{\"block\":true}",
			"ip: want 64 hex digits" },
		{ "override:ip:sha256:" KEY_HEX "/+8", "{\"block\":true}",
			"ip: want 64 hex digits" },
		{ "override:ip:sha256:" KEY_HEX "/08", "{\"block\":true}",
			"ip: want 64 hex digits" },
		{ "override:ip:sha256:" KEY_HEX "/8888", "{\"block\":true}",
			"ip: want 64 hex digits" },
		{ "override", "{\"block\":true}", "no change is called so" },
		{ "switch:", "{\"mode\":\"on\"}", "mode: want enforce" },
		{ "epoch:", "{\"epoch\":-1}", "epoch: want" },
		{ "reset:x", "{\"keys\":[],\"at\":1}", "want \"keys\"" },
		{ "reset:x", "{\"keys\":[\"0f\"],\"at\":1}", "want \"keys\"" },
		{ "", "{}", "no change is called so" },
		{ "override:user:a", "{\"block\":true,\"format\":2}", "its format is not 1" },
		{ "override:user:a", "{\"block\":true,\"format\":\"1\"}", "its format is not 1" },
		{ "switch:", "{\"mode\":[\"off\"],\"format\":2}", "its format is not 1" },
		{ "spell:a", "{\"format\":2}", "its format is not 1" },
	};
	struct changes *c = changes_new();
	char err[512];
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		if (changes_put_text(c, row[i].name, str_of(row[i].json), err, sizeof err))
			fail_msg("%s %s: was taken", row[i].name, row[i].json);
		if (!strstr(err, row[i].want))
			fail_msg("%s %s: says %s", row[i].name, row[i].json, err);
	}
	assert_int_equal(changes_count(c), 0);
	changes_free(c);
}

static void note(void *with, const char *name, json_t *value)
{
	(void)value;
	strcat(strcat(with, name), " ");
}

static void changes_end_and_are_replaced(void **state)
{
	struct changes *c = changes_new();
	char err[256], seen[256] = "";
	(void)state;

	assert_int_equal(changes_next_end(c), INT64_MAX);
	assert_true(changes_put_text(
		c, "override:user:b", STR("{\"block\":true,\"until\":200}"), err, sizeof err));
	assert_true(changes_put_text(
		c, "override:user:a", STR("{\"block\":true,\"until\":100}"), err, sizeof err));
	assert_true(
		changes_put_text(c, "override:user:c", STR("{\"block\":true}"), err, sizeof err));
	assert_true(changes_put_text(c, "switch:", STR("{\"mode\":\"off\"}"), err, sizeof err));
	assert_int_equal(changes_next_end(c), 100);
	assert_int_equal(changes_end(c, 99, note, seen), 0);
	assert_int_equal(changes_end(c, 100, note, seen), 1);
	assert_string_equal(seen, "override:user:a ");
	assert_true(
		changes_put_text(c, "override:user:b", STR("{\"bypass\":true}"), err, sizeof err));
	assert_int_equal(changes_next_end(c), INT64_MAX);
	seen[0] = '\0';
	changes_each(c, "override:", note, seen);
	assert_string_equal(seen, "override:user:b override:user:c ");
	seen[0] = '\0';
	assert_int_equal(changes_after(c, "", 2, note, seen), 2);
	assert_int_equal(changes_after(c, "override:user:c", 2, note, seen), 1);
	assert_int_equal(changes_after(c, "switch:", 2, note, seen), 0);
	assert_string_equal(seen, "override:user:b override:user:c switch: ");
	seen[0] = '\0'; /* after one that is there no more */
	assert_int_equal(changes_after(c, "override:user:bb", 1, note, seen), 1);
	assert_string_equal(seen, "override:user:c ");
	assert_non_null(json_object_get(changes_get(c, "override:user:b"), "bypass"));
	assert_true(changes_remove(c, "override:user:b"));
	assert_false(changes_remove(c, "override:user:b"));
	assert_null(changes_get(c, "override:user:b"));
	changes_free(c);
}

static void a_subject_has_one_name(void **state)
{
	static const struct {
		const char *by, *value, *want;
		bool secret;
	} row[] = {
		{ "user", "alice", "user:alice", false },
		{ "user", "a b:c", "user:a b:c", false },
		{ "user", "key", "user:sha256:" KEY_HEX, true },
		{ "user", "sha256:" KEY_HEX, "user:sha256:" KEY_HEX, true },
		{ "user", "sha256:" KEY_HEX, "user:sha256:" KEY_HEX, false },
		{ "user", "sha256:" KEY_HEX_UPPER, "user:sha256:" KEY_HEX, true },
		{ "user", "sha256:abc", "user:sha256:abc", false },
		{ "key", "key", "key:sha256:" KEY_HEX, false },
		{ "key", "sha256:" KEY_HEX, "key:sha256:" KEY_HEX, false },
		{ "key", "sha256:" KEY_HEX_UPPER, "key:sha256:" KEY_HEX, false },
		{ "ip", "10.1.2.3", "ip:10.1.2.3/32", false },
		{ "ip", "10.1.2.3/8", "ip:10.0.0.0/8", false },
		{ "ip", "::ffff:10.1.2.3", "ip:10.1.2.3/32", false },
		{ "ip", "2001:DB8:0::1/64", "ip:2001:db8::/64", false },
	};
	char got[CHANGE_NAME_MAX], err[256];
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		assert_true(change_subject(
			row[i].by, str_of(row[i].value), row[i].secret, got, err, sizeof err));
		assert_string_equal(got, row[i].want);
	}
}

static void what_is_no_subject_is_refused(void **state)
{
	static const struct {
		const char *by, *value, *want;
	} row[] = {
		{ "key", "sha256:", "key: want 64 hex digits after sha256:" },
		{ "key", "sha256:abc", "key: want 64 hex digits after sha256:" },
		{ "key", "sha256:" KEY_HEX "0", "key: want 64 hex digits after sha256:" },
		{ "key", "sha256:g" KEY_HEX_UPPER, "key: want 64 hex digits after sha256:" },
		{ "user", "sha256:abc", "user: want 64 hex digits after sha256:" },
		{ "group", "a", "\"group\": want user, key or ip" },
	};
	char got[CHANGE_NAME_MAX], err[256];
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		assert_false(change_subject(
			row[i].by, str_of(row[i].value), true, got, err, sizeof err));
		if (strncmp(err, row[i].want, strlen(row[i].want)) != 0)
			fail_msg("%s: says %s", row[i].value, err);
	}
}

static unsigned until_starved; /* 0: never */

static void *starved_malloc(size_t n)
{
	return until_starved && --until_starved == 0 ? NULL : malloc(n);
}

/* A counter that it lacks would be back after a restart. */
static void a_reset_has_all_its_counters_or_is_none(void **state)
{
	const struct key key[] = { { 1, 2 }, { 3, 4 }, { 5, 6 } };
	struct key found[RESET_KEYS_MAX];
	unsigned failed = 0;
	(void)state;

	json_set_alloc_funcs(starved_malloc, free);
	for (unsigned n = 1; n < 60; n++) {
		until_starved = n;
		json_t *value = change_reset(key, 3, 1);
		until_starved = 0;
		failed += !value;
		if (value)
			assert_int_equal(change_reset_keys(value, found), 3);
		json_decref(value);
	}
	assert_true(failed);
	json_set_alloc_funcs(malloc, free);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reset_has_all_its_counters_or_is_none),
		cmocka_unit_test(an_override_holds_for_its_client),
		cmocka_unit_test(who_enforces_all_means_what_is_counted),
		cmocka_unit_test(an_epoch_makes_other_counters),
		cmocka_unit_test(an_override_counts_for_how_long_a_counter_is_kept),
		cmocka_unit_test(
			what_does_not_go_with_the_configuration_is_told_and_the_rest_holds),
		cmocka_unit_test(no_client_gets_more_limits_than_a_plan_has),
		cmocka_unit_test(each_that_is_without_effect_is_told),
		cmocka_unit_test(files_are_not_read_again),
		cmocka_unit_test(what_is_no_change_is_refused),
		cmocka_unit_test(changes_end_and_are_replaced),
		cmocka_unit_test(a_subject_has_one_name),
		cmocka_unit_test(what_is_no_subject_is_refused),
	};
	return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
