/* The redis group: what it says, what rules have of it, what a reload may change of it. */
#include "load_helper.h"

#define REDIS  "store: { backend = \"redis\"; };\n"
#define A_RULE "rules = ( { name = \"r\"; per = [ \"ip\" ]; rate = \"10/minute\"; } );\n"

static void all_settings(void **state)
{
	(void)state;
	struct snapshot *s = load_text("all",
		REDIS "redis: { mode = \"sentinel\"; master = \"m\"; username = \"u\"; password = "
		      "\"hunter2\"; db = 3;\n"
		      " servers = [ \"a.example:26379\", \"[::1]:26380\", \"/run/s.sock\" ];\n"
		      " prefix = \"x:\"; timeout = \"5ms\"; hash_secret = \"topsecret\"; "
		      "on_failure = \"closed\"; instances = 4; };\n",
		"");
	const struct settings *v = &s->settings;
	assert_int_equal(v->store.backend, BACKEND_REDIS);
	assert_int_equal(v->redis.mode, REDIS_KIND_SENTINEL);
	assert_int_equal(v->redis.server_n, 3);
	assert_string_equal(v->redis.server[0].host, "a.example");
	assert_string_equal(v->redis.server[0].port, "26379");
	assert_string_equal(v->redis.server[1].host, "::1");
	assert_string_equal(v->redis.server[1].port, "26380");
	assert_true(v->redis.server[2].is_unix);
	assert_string_equal(v->redis.server[2].text, "/run/s.sock");
	assert_string_equal(v->redis.master, "m");
	assert_string_equal(v->redis.username, "u");
	assert_string_equal(v->redis.password, "hunter2");
	assert_int_equal(v->redis.db, 3);
	assert_string_equal(v->redis.prefix, "x:");
	assert_int_equal(v->redis.timeout, 5000);
	assert_string_equal(v->redis.hash_secret, "topsecret");
	assert_int_equal(v->redis.on_failure, ON_FAILURE_CLOSED);
	assert_int_equal(v->redis.instances, 4);
	assert_int_equal(s->policy->instances, 4);
	for (size_t i = 0; i < s->line_n; i++) {
		assert_null(strstr(s->line[i], "hunter2"));
		assert_null(strstr(s->line[i], "topsecret"));
	}
	drop(s);

	s = load_text("none", REDIS, "");
	v = &s->settings;
	assert_int_equal(v->redis.mode, REDIS_KIND_SINGLE);
	assert_int_equal(v->redis.server_n, 1);
	assert_string_equal(v->redis.server[0].host, "127.0.0.1");
	assert_string_equal(v->redis.server[0].port, "6379");
	assert_string_equal(v->redis.master, "mymaster");
	assert_string_equal(v->redis.username, "");
	assert_string_equal(v->redis.password, "");
	assert_int_equal(v->redis.db, 0);
	assert_string_equal(v->redis.prefix, "rl:");
	assert_int_equal(v->redis.timeout, 20 * 1000);
	assert_string_equal(v->redis.hash_secret, "");
	assert_int_equal(v->redis.on_failure, ON_FAILURE_LOCAL);
	assert_int_equal(s->policy->instances, 1);
	drop(s);
}

static void messages(void **state)
{
	static const struct {
		const char *title, *text, *want;
	} row[] = {
		{ "clusters are known", "redis: { mode = \"cluster\"; };", "" },
		{ "a cluster has no databases", "redis: { mode = \"cluster\"; db = 3; };",
			"t.cfg:1: redis.db: 3: a cluster has no database but 0\n" },
		{ "of a cluster, slots are in braces",
			"redis: { mode = \"cluster\"; prefix = \"{rl}:\"; };",
			"t.cfg:1: redis.prefix: \"{rl}:\": want no \"{\" with mode = \"cluster\": all keys "
			"would lie in one slot\n" },
		{ "a cluster has no sockets",
			"redis: { mode = \"cluster\"; servers = [ \"/run/redis.sock\" ]; };",
			"t.cfg:1: redis.servers: \"/run/redis.sock\": want host:port with mode = "
			"\"cluster\"\n" },
		{ "one server alone", "redis: { servers = [ \"a:1\", \"b:2\" ]; };",
			"t.cfg:1: redis.servers: 2 elements: want one with mode = \"single\" (several are "
			"for \"sentinel\" or \"cluster\")\n" },
		{ "a server has a port", "redis: { servers = [ \"a:0\" ]; };",
			"t.cfg:1: redis.servers = \"a:0\": want a port from 1 to 65535 after the colon\n" },
		{ "and a host", "redis: { servers = [ \":1\" ]; };",
			"t.cfg:1: redis.servers = \":1\": want a host before the port\n" },
		{ "no URL, and no password is shown",
			"redis: { servers = [ \"redis://:hunter2@db:6379/3\" ]; };",
			"t.cfg:1: redis.servers: found a URL, want \"host:port\": what else it says have "
			"redis.username, redis.password, redis.db and redis.tls\n" },
		{ "nor where only that is there",
			"redis: { servers = [ \"me:hunter2@db:6379\", \"db:6380\" ]; };",
			"t.cfg:1: redis.servers: found a URL, want \"host:port\": what else it says have "
			"redis.username, redis.password, redis.db and redis.tls\n" },
		{ "nor where it would pass for a name",
			"redis: { servers = [ \"hunter2@db:6379\" ]; };",
			"t.cfg:1: redis.servers: found a URL, want \"host:port\": what else it says have "
			"redis.username, redis.password, redis.db and redis.tls\n" },
		{ "too short a timeout", "redis: { timeout = \"0s\"; };",
			"t.cfg:1: redis.timeout = \"0s\": want a duration from \"1ms\" to \"1m\" (units: "
			"us, ms, s, m, h, d)\n" },
		{ "no such policy", "redis: { on_failure = \"deny\"; };",
			"t.cfg:1: redis.on_failure = \"deny\": want \"local\", \"open\" or \"closed\"\n" },
		{ "none of no agents", "redis: { instances = 0; };",
			"t.cfg:1: redis.instances = 0: want 1..10000\n" },
		{ "a state file is not used with Redis",
			"store: { backend = \"redis\";\n state_file = \"/s\"; };",
			"t.cfg:2: warning: store.state_file: not used with backend = \"redis\": counters "
			"are kept there, and what stands in while it is away is not kept\n" },
		{ "a secret is counted by, and anyone can hash",
			REDIS
			"rules = ( { name = \"a\"; per = [ \"ip\" ]; rate = \"1/hour\"; },\n"
			"{ name = \"b\"; per = [ \"ip\", \"user|key\" ]; rate = \"1/hour\"; } );",
			"t.cfg:3: warning: rule \"b\" counts by \"key\", which is secret, and "
			"redis.hash_secret is empty: who can read Redis can try out which values are "
			"counted there; set it, the same for all agents\n" },
		{ "not with a secret of its own",
			REDIS
			"redis: { hash_secret = \"x\"; };\n"
			"rules = ( { name = \"b\"; per = [ \"key\" ]; rate = \"1/hour\"; } );",
			"" },
		{ "nor in memory",
			"rules = ( { name = \"b\"; per = [ \"key\" ]; rate = \"1/hour\"; } );",
			"" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct snapshot *s = load_text(row[i].title, row[i].text, row[i].want);
		if (s)
			drop(s);
	}
}

/* What is wrong with a build that has TLS is wrong with one that has none, which also says so. */
static void tls(void **state)
{
#if REDIS_TLS
#define NONE(where)
#else
#define NONE(where) \
	where ": redis.tls = true: this build has no TLS, as its hiredis had none: use one for " \
	      "Debian 13 or newer, or let stunnel do it beside the agent (conf/README.md)\n"
#endif
	static const struct {
		const char *title, *text, *want;
	} row[] = {
		{ "asked for", "redis: {\n tls = true; };", "" NONE("t.cfg:2") },
		{ "not asked for", "redis: { tls = false; };", "" },
		{ "nor used",
			"redis: {\n tls_ca = \"/nowhere/ca\";\n tls_cert = \"/nowhere/c\";\n"
			" tls_name = \"n\"; };",
			"t.cfg:2: warning: redis.tls_ca: not used without redis.tls = true\n"
			"t.cfg:3: warning: redis.tls_cert: not used without redis.tls = true\n"
			"t.cfg:4: warning: redis.tls_name: not used without redis.tls = true\n" },
		{ "files that are not there",
			"redis: { tls = true;\n tls_ca = \"/nowhere/ca\";\n"
			" tls_cert = \"/nowhere/c\";\n tls_key = \"/nowhere/k\"; };",
			"" NONE("t.cfg:1") "t.cfg:2: redis.tls_ca = \"/nowhere/ca\": No such file or directory\n"
					   "t.cfg:3: redis.tls_cert = \"/nowhere/c\": No such file or directory\n"
					   "t.cfg:4: redis.tls_key = \"/nowhere/k\": No such file or directory\n" },
		{ "a certificate without its key",
			"redis: { tls = true;\n tls_cert = \"/dev/null\"; };",
			"" NONE("t.cfg:1") "t.cfg:2: redis.tls_cert and redis.tls_key: want both or none\n" },
		{ "a key without its certificate",
			"redis: { tls = true;\n tls_key = \"/dev/null\"; };",
			"" NONE("t.cfg:1") "t.cfg:2: redis.tls_cert and redis.tls_key: want both or none\n" },
		{ "a UNIX socket", "redis: { tls = true;\n servers = [ \"/run/redis.sock\" ]; };",
			"" NONE("t.cfg:1") "t.cfg:2: redis.servers: \"/run/redis.sock\": want host:port with redis.tls = "
					   "true: Redis has no TLS on a UNIX socket\n" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct snapshot *s = load_text(row[i].title, row[i].text, row[i].want);
		if (s)
			drop(s);
	}
}

/* The state file is named in the configuration as it counts, but nobody may write it. */
static void no_state_file(void **state)
{
	(void)state;
	struct problems p = { 0 };
	const char *text = "store: { backend = \"redis\"; state_file = \"/s\"; };";
	struct snapshot *s = config_load_text("t.cfg", text, strlen(text), &test_key, 1, &p);
	assert_non_null(s);
	assert_string_equal(s->settings.store.state_file, "");
	assert_string_equal(value_of(s, "store.state_file"), "/s");
	problems_free(&p);
	drop(s);
}

static const struct rule *rule_of(const struct snapshot *s, const char *name)
{
	for (unsigned i = 0; i < s->policy->rule_n; i++)
		if (strcmp(s->policy->rule[i].name, name) == 0)
			return &s->policy->rule[i];
	fail_msg("no rule %s", name);
	return NULL;
}

static void failure_policies(void **state)
{
	static const char rules[] =
		"rules = ( { name = \"none\"; per = []; rate = \"1/hour\"; },\n"
		"{ name = \"local\"; per = []; rate = \"1/hour\"; on_failure = \"local\"; },\n"
		"{ name = \"open\"; per = []; rate = \"1/hour\"; on_failure = \"open\"; },\n"
		"{ name = \"closed\"; per = []; rate = \"1/hour\"; on_failure = \"closed\"; } );\n";
	static const struct {
		const char *group;
		enum on_failure none;
	} row[] = {
		{ "", ON_FAILURE_LOCAL },
		{ "redis: { on_failure = \"local\"; };", ON_FAILURE_LOCAL },
		{ "redis: { on_failure = \"open\"; };", ON_FAILURE_OPEN },
		{ "redis: { on_failure = \"closed\"; };", ON_FAILURE_CLOSED },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		char text[1024];
		/* the default comes after the rules, as it may from another file */
		snprintf(text, sizeof text, REDIS "%s%s", rules, row[i].group);
		struct snapshot *s = load_text("policies", text, "");
		assert_int_equal(rule_of(s, "none")->on_failure, row[i].none);
		assert_int_equal(rule_of(s, "local")->on_failure, ON_FAILURE_LOCAL);
		assert_int_equal(rule_of(s, "open")->on_failure, ON_FAILURE_OPEN);
		assert_int_equal(rule_of(s, "closed")->on_failure, ON_FAILURE_CLOSED);
		drop(s);
	}
}

static void shares(void **state)
{
	static const struct {
		const char *rate;
		int instances;
		int64_t units, capacity;
	} row[] = {
		{ "100/minute", 4, 25, 25 },
		{ "10/minute", 4, 2, 2 },
		{ "3/minute", 4, 1, 1 },
		{ "1/minute", 10000, 1, 1 },
		{ "0/minute", 4, 0, 0 },
		{ "10/minute burst 30", 4, 2, 7 },
		{ "10/minute burst 1", 4, 2, 1 },
		{ "1/minute burst 100", 4, 1, 25 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		char text[512];
		snprintf(text, sizeof text,
			REDIS "redis: { instances = %d; };\n"
			      "rules = ( { name = \"r\"; per = []; rate = { a = \"%s\"; default = "
			      "\"%s\"; }; } );",
			row[i].instances, row[i].rate, row[i].rate);
		struct snapshot *s = load_text(row[i].rate, text, "");
		const struct rule *r = rule_of(s, "r");
		const struct limit *of[] = { r->tier[policy_tier_find(s->policy, STR("a"))].limit,
			r->other.limit };
		for (int k = 0; k < 2; k++) {
			const struct limit *l = of[k], *share = l->local;
			if (share->quota.units != row[i].units ||
				share->quota.capacity != row[i].capacity)
				fail_msg("%s / %d: %d burst %d", row[i].rate, row[i].instances,
					(int)share->quota.units, (int)share->quota.capacity);
			assert_ptr_equal(share->whole, l);
			assert_ptr_equal(share->local, share);
			assert_ptr_equal(share->rule, r);
			assert_memory_equal(&share->salt, &l->salt, sizeof l->salt);
			assert_string_equal(share->label, l->label);
			if (row[i].units) {
				double interval = 60e6 / (double)row[i].units;
				assert_true(share->slowest_interval == interval);
				assert_true(share->slowest_refill ==
					    interval * (double)row[i].capacity);
			}
		}
		drop(s);
	}

	/* alone, or in memory, a limit is its own share */
	const char *alone[] = { REDIS A_RULE, "redis: { instances = 4; };\n" A_RULE };
	for (int i = 0; i < 2; i++) {
		struct snapshot *s = load_text("alone", alone[i], "");
		const struct limits *limits = &rule_of(s, "r")->other;
		assert_null(limits->share);
		assert_ptr_equal(limits->limit->local, limits->limit);
		assert_null(limits->limit->whole);
		drop(s);
	}
}

/* Agents agree without talking; the key that the caller brings has no part in it. */
static void hash_keys(void **state)
{
	static const struct {
		const char *title, *text;
		int group; /* rows of one group have one key */
	} row[] = {
		{ "of the default prefix", REDIS, 1 },
		{ "written out", REDIS "redis: { prefix = \"rl:\"; };", 1 },
		{ "whatever else", REDIS "redis: { password = \"x\"; db = 2; instances = 3; };",
			1 },
		{ "another prefix", REDIS "redis: { prefix = \"r:\"; };", 2 },
		{ "a secret", REDIS "redis: { hash_secret = \"s\"; };", 3 },
		{ "a secret, whatever the prefix",
			REDIS "redis: { hash_secret = \"s\"; prefix = \"r:\"; };", 3 },
		{ "a secret that reads like the prefix", REDIS "redis: { hash_secret = \"rl:\"; };",
			4 },
	};
	enum { N = sizeof row / sizeof *row };
	struct hash_key key[N], got;
	(void)state;
	for (size_t i = 0; i < N; i++) {
		struct snapshot *s = load_text(row[i].title, row[i].text, "");
		key[i] = s->policy->hasher.key;
		redis_hash_key(&s->settings, &got);
		assert_memory_equal(&key[i], &got, sizeof got);
		assert_memory_not_equal(&key[i], &test_key, sizeof test_key);
		drop(s);
		for (size_t j = 0; j < i; j++)
			if ((memcmp(&key[i], &key[j], sizeof got) == 0) !=
				(row[i].group == row[j].group))
				fail_msg("%s, %s", row[i].title, row[j].title);
	}
	/* for ever: computed apart, BLAKE2b-128 of "spoa-ratelimit 1 redis.prefix\0rl:" */
	static const uint8_t of_rl[16] = { 0x67, 0x9e, 0xb1, 0x9e, 0xbe, 0x4d, 0x3f, 0x14, 0x1b,
		0xd3, 0x00, 0x2f, 0x27, 0xa2, 0x27, 0x2a };
	assert_memory_equal(key[0].bytes, of_rl, sizeof of_rl);

	struct snapshot *s = load_text("in memory", "redis: { hash_secret = \"s\"; };", "");
	assert_memory_equal(&s->policy->hasher.key, &test_key, sizeof test_key);
	drop(s);
}

static void reloads(void **state)
{
	static const struct {
		const char *title, *was, *is, *want;
	} row[] = {
		{ "what may change",
			REDIS
			"redis: { timeout = \"5ms\"; on_failure = \"open\"; instances = 2; };",
			REDIS
			"redis: { timeout = \"6ms\"; on_failure = \"closed\"; instances = 3; };",
			"" },
		{ "what may not", REDIS,
			REDIS "redis: { mode = \"sentinel\"; servers = [ \"a:1\" ]; master = \"m\";"
			      " username = \"u\"; db = 1; prefix = \"p\"; };",
			"t.cfg:2: redis.mode cannot change while running (was single, is sentinel): "
			"restart to change it\n"
			"t.cfg:2: redis.servers cannot change while running (was 127.0.0.1:6379, is a:1): "
			"restart to change it\n"
			"t.cfg:2: redis.master cannot change while running (was mymaster, is m): restart "
			"to change it\n"
			"t.cfg:2: redis.username cannot change while running (was \"\", is u): restart to "
			"change it\n"
			"t.cfg:2: redis.db cannot change while running (was 0, is 1): restart to change "
			"it\n"
			"t.cfg:2: redis.prefix cannot change while running (was rl:, is p): restart to "
			"change it\n" },
		{ "how many tiers are remembered", REDIS, REDIS "redis: { tiers_cache = 64; };",
			"t.cfg:2: redis.tiers_cache cannot change while running (was 65536, is 64): "
			"restart to change it\n" },
#if REDIS_TLS
		{ "TLS", REDIS, REDIS "redis: { tls = true; };",
			"t.cfg:2: redis.tls cannot change while running (was false, is true): restart to "
			"change it\n" },
		{ "whom TLS trusts", REDIS "redis: { tls = true; };",
			REDIS "redis: { tls = true;\n tls_ca = \"/dev/null\";\n tls_name = \"n\";\n"
			      " tls_cert = \"/dev/null\"; tls_key = \"/dev/null\"; };",
			"t.cfg:3: redis.tls_ca cannot change while running (was \"\", is /dev/null): "
			"restart to change it\n"
			"t.cfg:5: redis.tls_cert cannot change while running (was \"\", is /dev/null): "
			"restart to change it\n"
			"t.cfg:5: redis.tls_key cannot change while running (was \"\", is /dev/null): "
			"restart to change it\n"
			"t.cfg:4: redis.tls_name cannot change while running (was \"\", is n): restart to "
			"change it\n" },
#endif
		{ "secrets that come", REDIS,
			REDIS "redis: { password = \"hunter2\"; hash_secret = \"topsecret\"; };",
			"t.cfg:2: redis.password cannot change while running (was (not set), is (set)): "
			"restart to change it\n"
			"t.cfg:2: redis.hash_secret cannot change while running (was (not set), is (set)): "
			"restart to change it\n" },
		{ "secrets that change are seen, and not shown",
			REDIS "redis: { password = \"hunter2\"; hash_secret = \"topsecret\"; };",
			REDIS "redis: { password = \"hunter3\"; hash_secret = \"topsecreT\"; };",
			"t.cfg:2: redis.password cannot change while running (was (set), is another): "
			"restart to change it\n"
			"t.cfg:2: redis.hash_secret cannot change while running (was (set), is another): "
			"restart to change it\n" },
		{ "a group that is not used", "",
			"redis: { prefix = \"p\"; password = \"hunter2\"; };", "" },
		{ "the backend", "", REDIS,
			"t.cfg:1: store.backend cannot change while running (was memory, is redis): "
			"restart to change it\n" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct snapshot *was = load_text(row[i].title, row[i].was, "");
		struct snapshot *is = load_text(row[i].title, row[i].is, "");
		struct problems p = { 0 };
		bool can = snapshot_can_replace(was, is, &p);
		char *got = problems_text(&p);
		if (strcmp(got, row[i].want) != 0)
			fail_msg("%s: %s", row[i].title, got);
		assert_int_equal(can, p.n == 0);
		free(got);
		problems_free(&p);
		drop(was);
		drop(is);
	}
}

static void in_words(void **state)
{
	static const struct {
		const char *group, *setting, *rule, *changed;
	} row[] = {
		{ "", "", "r: 10 per minute for each ip", "nothing" },
		{ "redis: { instances = 4; };", "",
			"r: 10 per minute for each ip, 1/4 of it from memory while Redis is away",
			"redis.instances 1 -> 4" },
		{ "redis: { on_failure = \"open\"; };", "",
			"r: 10 per minute for each ip, not limited while Redis is away",
			"redis.on_failure local -> open" },
		{ "", "match = { path = [ \"/a*\", \"!/a/b\", \"/c\" ]; host = [ \"!x\", \"!y\" ]; };",
			"r: 10 per minute for each ip, on host not x or y and path /a* or /c but not /a/b",
			"rules: r changed (+match.host !x, !y, +match.path /a*, !/a/b, /c)" },
		{ "", "on_failure = \"closed\";",
			"r: 10 per minute for each ip, all denied while Redis is away",
			"rules: r changed (+on_failure closed)" },
	};
	(void)state;
	struct snapshot *was = load_text("before", REDIS A_RULE, "");
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		char text[512], got[256];
		snprintf(text, sizeof text,
			REDIS
			"%srules = ( { name = \"r\"; per = [ \"ip\" ]; rate = \"10/minute\"; %s } "
			");",
			row[i].group, row[i].setting);
		struct snapshot *s = load_text(row[i].rule, text, "");
		snapshot_describe_rule(s, s->policy->rule, got, sizeof got);
		assert_string_equal(got, row[i].rule);
		snapshot_describe_changes(was, s, got, sizeof got);
		assert_string_equal(got, row[i].changed);
		drop(s);
	}
	drop(was);

	/* in memory Redis is never away */
	char got[256];
	struct snapshot *s = load_text("memory", "redis: { on_failure = \"open\"; };" A_RULE, "");
	snapshot_describe_rule(s, s->policy->rule, got, sizeof got);
	assert_string_equal(got, "r: 10 per minute for each ip");
	drop(s);
}

/* Memory holds shares: a smaller one refills slower. */
static void slower_by_instances(void **state)
{
	(void)state;
	struct snapshot *one = load_text("one", REDIS A_RULE, "");
	struct snapshot *five = load_text("five", REDIS "redis: { instances = 5; };" A_RULE, "");
	assert_true(snapshot_slower_by(one, five) == 5.0);
	assert_true(snapshot_slower_by(five, one) == 1.0);
	assert_true(snapshot_slower_by(five, five) == 1.0);
	drop(one);
	drop(five);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_settings),
		cmocka_unit_test(messages),
		cmocka_unit_test(tls),
		cmocka_unit_test(no_state_file),
		cmocka_unit_test(failure_policies),
		cmocka_unit_test(shares),
		cmocka_unit_test(hash_keys),
		cmocka_unit_test(reloads),
		cmocka_unit_test(in_words),
		cmocka_unit_test(slower_by_instances),
	};
	return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
