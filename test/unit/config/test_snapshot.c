/* Whole configurations: the documented example, the full one, and what a reload makes of two. */
#include "load_helper.h"

#include <fcntl.h>

/* The example of the documentation, without what is reserved. */
static const char example[] =
	"enabled = true;\n"
	"agent: {\n"
	"  listen          = [ \"127.0.0.1:9600\" ];\n"
	"  threads         = 0;\n"
	"  max_connections = 1024;\n"
	"  max_frame_size  = 16380;\n"
	"  allow_from      = [];\n"
	"  socket_mode     = \"0660\";\n"
	"  drain           = \"2s\";\n"
	"  header_format   = \"ietf-11\";\n"
	"  variables       = [ \"deny\", \"reason\", \"limit\" ];\n"
	"};\n"
	"store: {\n"
	"  backend    = \"memory\";\n"
	"  max_keys   = 1000000;\n"
	"  state_file = \"/var/lib/spoa-ratelimit/state\";\n"
	"};\n"
	"redis: {\n"
	"  mode       = \"single\";\n"
	"  servers    = [ \"127.0.0.1:6379\" ];\n"
	"  master     = \"mymaster\";\n"
	"  username   = \"\"; password = \"${REDIS_PASSWORD:-}\"; db = 0;\n"
	"  prefix     = \"rl:\";\n"
	"  timeout    = \"20ms\";\n"
	"  hash_secret = \"\";\n"
	"  on_failure = \"local\";\n"
	"  instances  = 1;\n"
	"};\n"
	"log: {\n"
	"  target = \"stderr\";\n"
	"  format = \"text\";\n"
	"  level  = \"info\";\n"
	"};\n"
	"identity: {\n"
	"  ipv4_prefix  = 32;   ipv6_prefix = 64;\n"
	"  secret       = [ \"key\" ];\n"
	"  tiers_file   = \"tiers.map\";\n"
	"  default_tier = \"anonymous\";\n"
	"};\n"
	"allow = ( { ip = [ \"10.0.0.0/8\", \"::1\" ]; }, { user = \"monitor\"; } );     # bypass\n"
	"block = ( { ip = \"192.0.2.0/24\"; } );                                     # always deny\n"
	"rules = (\n"
	"  { name = \"login\";\n"
	"    match     = { endpoint = \"POST:/auth/*\"; };\n"
	"    per       = [ \"ip\" ];\n"
	"    algorithm = \"fixed-window\";\n"
	"    rate      = [ \"5/5m\", \"10/hour\" ]; },\n"
	"\n"
	"  { name = \"api\";\n"
	"    match     = { path = [ \"/api/*\", \"/v2/*\" ]; };\n"
	"    per       = [ \"key|user|ip\" ];\n"
	"    algorithm = \"token-bucket\";\n"
	"    rate      = { anonymous = \"5/minute\"; free = \"10/minute\"; premium = \"50/minute burst 100\";\n"
	"                  enterprise = [ \"200/minute burst 500\", \"10000/hour\" ]; };\n"
	"    warn_at   = 0.8; },\n"
	"\n"
	"  { name = \"everything\"; per = []; rate = \"10000/minute\"; mode = \"shadow\"; }\n"
	");\n";

static void documented_example(void **state)
{
	char text[256];
	(void)state;
	unsetenv("REDIS_PASSWORD");
	put_file("example.cfg", example);
	put_file("tiers.map", "alice premium\n");
	struct snapshot *s = load_file("example.cfg", "");
	assert_int_equal(s->policy->rule_n, 3);
	assert_int_equal(s->policy->allow_n, 2);
	assert_int_equal(s->policy->block_n, 1);
	assert_string_equal(s->settings.store.state_file, "/var/lib/spoa-ratelimit/state");
	static const struct {
		const char *key, *value;
	} row[] = {
		{ "agent.threads", "0" },
		{ "agent.drain", "2s" },
		{ "agent.variables", "deny, reason, limit" },
		{ "allow.1.ip", "10.0.0.0/8, ::1" },
		{ "allow.2.user", "monitor" },
		{ "block.1.ip", "192.0.2.0/24" },
		{ "rules", "login, api, everything" },
		{ "rules.login.rate", "5/5m, 10/hour" },
		{ "rules.login.match.endpoint", "POST:/auth/*" },
		{ "rules.login.algorithm", "fixed-window" },
		{ "rules.api.match.path", "/api/*, /v2/*" },
		{ "rules.api.per", "key|user|ip" },
		{ "rules.api.rate.premium", "50/minute burst 100" },
		{ "rules.api.rate.enterprise", "200/minute burst 500, 10000/hour" },
		{ "rules.api.warn_at", "0.8" },
		{ "rules.everything.mode", "shadow" },
		{ "rules.everything.per", "" },
	};
	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		if (strcmp(value_of(s, row[i].key), row[i].value) != 0)
			fail_msg("%s = %s", row[i].key, value_of(s, row[i].key));
	/* lines say where they come from; defaults come from nowhere */
	for (size_t i = 0; i < s->line_n; i++) {
		if (strncmp(s->line[i], "agent.threads = ", 16) == 0)
			assert_string_equal(s->line_at[i], "example.cfg:4");
		if (strncmp(s->line[i], "rules.api.rate.free = ", 22) == 0)
			assert_string_equal(s->line_at[i], "example.cfg:53");
		if (strncmp(s->line[i], "store.state_interval = ", 23) == 0)
			assert_null(s->line_at[i]);
	}
	static const char *const described[] = {
		"login: 5 per 5m and 10 per hour for each ip, on endpoint POST:/auth/*, in a fixed window",
		"api: anonymous 5 per minute, enterprise 200 per minute burst 500 and 10000 per hour, "
		"free 10 per minute, premium 50 per minute burst 100 for each key|user|ip, on path "
		"/api/* or /v2/*",
		"everything: 10000 per minute for all together (shadow: nothing is denied)",
	};
	for (unsigned i = 0; i < 3; i++) {
		size_t n = snapshot_describe_rule(s, &s->policy->rule[i], text, sizeof text);
		assert_string_equal(text, described[i]);
		assert_int_equal(n, strlen(text));
		/* cut where there is no room, at any size */
		for (size_t size = 0; size < n; size += 7) {
			char *small = malloc(size ? size : 1);
			assert_non_null(small);
			size_t m = snapshot_describe_rule(s, &s->policy->rule[i], small, size);
			assert_int_equal(m, size ? size - 1 : 0);
			assert_memory_equal(small, text, m);
			free(small);
		}
	}
	drop(s);
}

static char *read_file(const char *path, size_t *n)
{
	FILE *f = fopen(path, "r");
	char *text = calloc(1, 1 << 16);
	assert_non_null(f);
	assert_non_null(text);
	*n = fread(text, 1, (1 << 16) - 1, f);
	fclose(f);
	return text;
}

static void full_configuration(void **state)
{
	size_t n, m;
	(void)state;
	unsetenv("REDIS_PASSWORD");
	FILE *f = fopen("full.cfg", "w");
	assert_non_null(f);
	config_write_full(f);
	fclose(f);
	/* the one in the tree is what the tables say */
	char *fresh = read_file("full.cfg", &n), *kept = read_file(SOURCE_DIR "/conf/full.cfg", &m);
	if (n != m || memcmp(fresh, kept, n) != 0)
		fail_msg("conf/full.cfg is not what config_write_full() writes");
	/* it is good, and says the defaults */
	struct snapshot *s = load_file("full.cfg", ""), *nothing = load_text("nothing", "", "");
	assert_int_equal(s->line_n, nothing->line_n);
	for (size_t i = 0; i < s->line_n; i++)
		assert_string_equal(s->line[i], nothing->line[i]);
	drop(s);
	drop(nothing);
	/* and so are its examples, without their comment signs */
	char *begin = strstr(fresh, "# rules = (\n");
	assert_non_null(begin);
	char *plain = calloc(1, n + 512), *to = plain;
	assert_non_null(plain);
	for (char *line = begin; line && *line;) {
		line += *line == '#';
		char *end = strchr(line, '\n');
		memcpy(to, line, (size_t)(end - line) + 1);
		to += end - line + 1;
		line = end + 1;
	}
	static const char *const lists[] = { "# allow = (", "# block = (" };
	for (int i = 0; i < 2; i++) {
		char *line = strstr(fresh, lists[i]);
		assert_non_null(line);
		char *end = strchr(line, '\n');
		memcpy(to, line + 2, (size_t)(end - line) - 1);
		to += end - line - 1;
	}
	s = load_text("the examples", plain, "");
	assert_int_equal(s->policy->rule_n, 3);
	assert_int_equal(s->policy->allow_n, 2);
	drop(s);
	free(plain);
	free(fresh);
	free(kept);
}

#define MANY \
	"\"user-1-of-many\", \"user-2-of-many\", \"user-3-of-many\", \"user-4-of-many\", " \
	"\"user-5-of-many\", \"user-6-of-many\", \"user-7-of-many\", \"user-8-of-many\", "
#define TWENTY     "éééééééééééééééééééé"
#define LONG       TWENTY TWENTY TWENTY TWENTY
#define LONG_BEGIN TWENTY TWENTY "ééééééééééééééééééé"

static void changes(void **state)
{
	static const struct {
		const char *title, *was, *is, *want;
	} row[] = {
		{ "nothing", "", "", "nothing" },
		{ "written or not is the same", "", "agent: { drain = \"2000ms\"; };", "nothing" },
		{ "an option", "agent: { drain = \"2s\"; };", "agent: { drain = \"3s\"; };",
			"agent.drain 2s -> 3s" },
		{ "from nothing", "", "log: { target = \"/l\"; }; redis: { username = \"u\"; };",
			"log.target stderr -> /l; redis.username \"\" -> u" },
		{ "a secret is not told, only that it is set", "",
			"redis: { hash_secret = \"xyz\"; };",
			"redis.hash_secret (not set) -> (set)" },
		{ "nor one for another", "redis: { password = \"xyz\"; username = \"u\"; };",
			"redis: { password = \"zyx\"; username = \"u\"; };",
			"redis.password changed" },
		{ "a rate, a new rule, an option",
			"rules = ( { name = \"api\"; per = []; rate = { free = \"10/minute\"; }; } );",
			"rules = ( { name = \"api\"; per = []; rate = { free = \"20/minute\"; }; },\n"
			"{ name = \"uploads\"; per = []; rate = \"1/minute\"; } ); agent: { drain = "
			"\"3s\"; };",
			"rules: api changed (rate.free 10/minute -> 20/minute), +uploads; agent.drain 2s "
			"-> 3s" },
		{ "a rule that is gone",
			"rules = ( { name = \"a\"; per = []; rate = \"1/hour\"; }, { name = \"b\"; per = "
			"[]; rate = \"1/hour\"; } );",
			"rules = ( { name = \"b\"; per = []; rate = \"1/hour\"; } );",
			"rules: -a" },
		{ "the order",
			"rules = ( { name = \"a\"; per = []; rate = \"1/hour\"; }, { name = \"b\"; per = "
			"[]; rate = \"1/hour\"; } );",
			"rules = ( { name = \"b\"; per = []; rate = \"1/hour\"; }, { name = \"a\"; per = "
			"[]; rate = \"1/hour\"; } );",
			"rules: order changed" },
		{ "a tier more and one less, a mode",
			"rules = ( { name = \"a\"; per = []; rate = { x = \"1/hour\"; }; } );",
			"rules = ( { name = \"a\"; per = []; rate = { y = \"1/hour\"; }; mode = \"shadow\"; "
			"} );",
			"rules: a changed (mode enforce -> shadow, -rate.x 1/hour, +rate.y 1/hour)" },
		{ "one name that begins another",
			"rules = ( { name = \"a\"; per = []; rate = \"1/hour\"; }, { name = \"a.rate\"; "
			"per = []; rate = \"1/hour\"; } );",
			"rules = ( { name = \"a\"; per = []; rate = \"1/hour\"; }, { name = \"a.rate\"; "
			"per = []; rate = \"2/hour\"; } );",
			"rules: \"a.rate\" changed (rate 1/hour -> 2/hour)" },
		{ "lists", "allow = ( { user = \"a\"; } );",
			"allow = ( { user = \"b\"; } ); block = ( { ip = "
			"\"10.0.0.1\"; } );",
			"allow.1.user a -> b; +block.1.ip 10.0.0.1" },
		{ "keys in patterns, as the log shows those of clients",
			"block = ( { key = \"hunter2\"; } );",
			"block = ( { key = \"hunter3\"; }, { key = [ \"!a, b*\", \"*\", \"!*\" ]; } );",
			"block.1.key sha256:f52fbd32b2b3 -> sha256:fb8c2e2b85ca; +block.2.key "
			"!sha256:ca978112ca1b, sha256:49fcabc41e6a, *, !*" },
		{ "and of other fields that are secret, wherever that stands",
			"rules = ( { name = \"a = b\"; per = []; rate = \"1/hour\"; } );",
			"rules = ( { name = \"a = b\"; per = []; rate = \"1/hour\"; match = { card = "
			"\"hunter2\"; user = \"alice\"; }; } ); identity: { secret = \"card\"; };",
			"rules: \"a = b\" changed (+match.card sha256:f52fbd32b2b3, +match.user "
			"alice); identity.secret key -> card" },
		{ "the first of a list goes",
			"block = ( { user = \"a\"; ip = \"10.0.0.1\"; }, { user = \"b\"; }, { user = \"c\"; "
			"} );",
			"block = ( { user = \"b\"; }, { user = \"c\"; } ); allow = ( { user = \"d\"; } );",
			"+allow.1.user d; -block.1.ip 10.0.0.1; -block.1.user a" },
		{ "an entry that is of fewer", "block = ( { ip = \"10.0.0.1\"; } );",
			"block = ( { ip = \"10.0.0.1\"; user = \"a\"; } );", "+block.1.user a" },
		{ "and of more", "block = ( { ip = \"10.0.0.1\"; user = \"a\"; } );",
			"block = ( { ip = \"10.0.0.1\"; } );", "-block.1.user a" },
		{ "one more in the middle of ten",
			"block = ( { user = \"1\"; }, { user = \"2\"; }, { user = \"3\"; }, { user = \"4\"; "
			"}, { user = \"5\"; }, { user = \"6\"; }, { user = \"7\"; }, { user = \"8\"; }, { "
			"user = \"9\"; }, { user = \"a\"; } );",
			"block = ( { user = \"1\"; }, { user = \"2\"; }, { user = \"3\"; }, { user = \"4\"; "
			"}, { user = \"5\"; }, { user = \"6\"; }, { user = \"7\"; }, { user = \"x\"; }, { "
			"user = \"8\"; }, { user = \"9\"; }, { user = \"a\"; } );",
			"+block.8.user x" },
		{ "one more that is like its neighbour", "block = ( { user = \"a\"; } );",
			"block = ( { user = \"a\"; }, { user = \"a\"; } );", "+block.2.user a" },
		{ "one more behind many", "block = ( { user = [ " MANY "] } );",
			"block = ( { user = [ " MANY "\"new\" ] } );",
			"block.1.user …user-8-of-many -> …user-8-of-many, new" },
		{ "another one of many", "block = ( { user = [ " MANY "\"a\", " MANY "] } );",
			"block = ( { user = [ " MANY "\"b\", " MANY "] } );",
			"block.1.user …a, user-1-of-many, user-2-of-many, user-3-of-many, user-4-of-many, "
			"user-5-of-many, user-6-of-many, user-7-of-many, user-… -> …b, user-1-of-many, "
			"user-2-of-many, user-3-of-many, user-4-of-many, user-5-of-many, user-6-of-many, "
			"user-7-of-many, user-…" },
		{ "a long one that is new", "", "block = ( { user = \"x" LONG "\" } );",
			"+block.1.user x" LONG_BEGIN "…" },
		{ "long ones that differ late, as characters",
			"block = ( { user = \"" LONG "x\" } );",
			"block = ( { user = \"" LONG "y\" } );",
			"block.1.user …" TWENTY "x -> …" TWENTY "y" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct snapshot *was = load_text(row[i].title, row[i].was, "");
		struct snapshot *is = load_text(row[i].title, row[i].is, "");
		char text[512];
		size_t n = snapshot_describe_changes(was, is, text, sizeof text);
		if (strcmp(text, row[i].want) != 0)
			fail_msg("%s: %s", row[i].title, text);
		assert_int_equal(n, strlen(text));
		for (size_t size = 0; size <= n; size++) {
			char *small = malloc(size ? size : 1);
			assert_non_null(small);
			size_t m = snapshot_describe_changes(was, is, small, size);
			assert_true(m <= n && (size == 0 || m < size));
			free(small);
		}
		drop(was);
		drop(is);
	}
}

/* What has no room is not left out in silence. */
static void many_changes(void **state)
{
	char rules[4096] = "rules = (", text[2048], short_text[200];
	size_t n = strlen(rules);

	(void)state;
	for (int i = 0; i < 30; i++)
		n += (size_t)snprintf(rules + n, sizeof rules - n,
			"{ name = \"rule-%d\"; per = []; rate = \"1/day\"; },", i);
	snprintf(rules + n, sizeof rules - n, ");");
	struct snapshot *was = load_text("none", "", ""), *is = load_text("many", rules, "");
	n = snapshot_describe_changes(was, is, text, sizeof text);
	assert_string_equal(text + n - strlen("+rule-29"), "+rule-29");
	n = snapshot_describe_changes(was, is, short_text, sizeof short_text);
	assert_int_equal(n, strlen(short_text));
	assert_string_equal(short_text + n - strlen("…"), "…");
	assert_memory_equal(short_text, text, n - strlen("…"));
	drop(was);
	drop(is);
}

/* Of one rule, too. */
static void many_changes_of_a_rule(void **state)
{
	static const char head[] = "rules = ( { name = \"a\"; per = []; rate = { t = \"1/day\"; ";
	char rules[4096], text[2048];
	size_t n = (size_t)snprintf(rules, sizeof rules, "%s", head);

	(void)state;
	for (int i = 0; i < 60; i++)
		n += (size_t)snprintf(
			rules + n, sizeof rules - n, "tier-number-%d = \"10/day\"; ", i);
	snprintf(rules + n, sizeof rules - n, "}; } );");
	struct snapshot *is = load_text("many", rules, "");
	snprintf(rules, sizeof rules, "%s}; } );", head);
	struct snapshot *was = load_text("one", rules, "");
	n = snapshot_describe_changes(was, is, text, sizeof text);
	assert_string_equal(text + n - strlen("…)"), "…)");
	drop(was);
	drop(is);
}

static void what_cannot_change(void **state)
{
	static const struct {
		const char *was, *is, *want;
	} row[] = {
		{ "", "", "" },
		{ "agent: { drain = \"1s\"; };", "agent: { drain = \"2s\"; max_connections = 5; };",
			"" },
		{ "", "rules = ( { name = \"a\"; per = []; rate = \"1/hour\"; } );", "" },
		{ "", "\nagent: { threads = 3; };",
			"t.cfg:2: agent.threads cannot change while running (was 0, is 3): restart to "
			"change it\n" },
		{ "store: { state_file = \"/a\"; max_keys = 5; };", "",
			"t.cfg:1: store.max_keys cannot change while running (was 5, is 1000000): restart "
			"to change it\n"
			"t.cfg:1: store.state_file cannot change while running (was /a, is \"\"): restart to "
			"change it\n" },
		{ "",
			"agent: { listen = \":1\"; socket_mode = \"0600\"; socket_owner = \"x\"; socket_group = "
			"\"y\"; };",
			"t.cfg:1: agent.listen cannot change while running (was 127.0.0.1:9600, is :1): "
			"restart to change it\n"
			"t.cfg:1: agent.socket_mode cannot change while running (was 0660, is 0600): "
			"restart to change it\n"
			"t.cfg:1: agent.socket_owner cannot change while running (was \"\", is x): restart "
			"to change it\n"
			"t.cfg:1: agent.socket_group cannot change while running (was \"\", is y): restart "
			"to change it\n" },
		{ "", "\n\nadmin: { token = \"a-token-of-some-length\"; };",
			"t.cfg:3: admin.listen cannot change while running (was \"\", is "
			"127.0.0.1:9601): restart to change it\n" },
		{ "\nadmin: { };", "",
			"t.cfg:2: admin.listen cannot change while running (was 127.0.0.1:9601, is "
			"\"\"): restart to change it\n" },
		{ "\nadmin: {\n listen = \"127.0.0.1:1\"; };", "",
			"t.cfg:3: admin.listen cannot change while running (was 127.0.0.1:1, is \"\"): "
			"restart to change it\n" },
		{ "admin: { listen = \"/a\"; };",
			"admin: {\n listen = \"/a\";\n socket_mode = \"0600\";\n socket_owner = \"x\";\n "
			"socket_group = \"y\"; };",
			"t.cfg:3: admin.socket_mode cannot change while running (was 0660, is 0600): "
			"restart to change it\n"
			"t.cfg:4: admin.socket_owner cannot change while running (was \"\", is x): restart "
			"to change it\n"
			"t.cfg:5: admin.socket_group cannot change while running (was \"\", is y): restart "
			"to change it\n" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct snapshot *was = load_text("was", row[i].was, "");
		struct snapshot *is = load_text("is", row[i].is, "");
		struct problems p = { 0 };
		bool can = snapshot_can_replace(was, is, &p);
		char *got = problems_text(&p);
		assert_string_equal(got, row[i].want);
		assert_int_equal(can, p.n == 0);
		free(got);
		problems_free(&p);
		drop(was);
		drop(is);
	}
}

static void slower(void **state)
{
	static const struct {
		const char *title, *was, *is;
		double want;
	} row[] = {
		{ "the same", "rate = \"10/hour\";", "rate = \"10/hour\";", 1.0 },
		{ "half the rate", "rate = \"10/hour burst 10\";", "rate = \"5/hour burst 5\";",
			2.0 },
		{ "faster is not slower", "rate = \"5/hour\";", "rate = \"10/hour\";", 1.0 },
		{ "another window is another counter", "rate = \"10/hour\";", "rate = \"1/day\";",
			1.0 },
		{ "another algorithm too", "rate = \"10/hour\";",
			"rate = \"1/hour\"; algorithm = \"fixed-window\";", 1.0 },
		{ "the slowest tier counts", "rate = { a = \"10/hour\"; b = \"20/hour\"; };",
			"rate = { a = \"20/hour\"; b = \"2/hour\"; };", 5.0 },
		{ "a larger burst takes longer to fill", "rate = \"10/hour burst 10\";",
			"rate = \"10/hour burst 40\";", 4.0 },
		{ "to nothing at all", "rate = \"10/hour\";", "rate = \"0/hour\";", 1.0 },
		{ "from nothing at all", "rate = \"0/hour\";", "rate = \"10/hour\";", 1.0 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		char was[256], is[256];
		snprintf(
			was, sizeof was, "rules = ( { name = \"r\"; per = []; %s } );", row[i].was);
		snprintf(is, sizeof is,
			"rules = ( { name = \"new\"; per = []; rate = \"1/day\"; }, { name = \"r\"; per "
			"= []; %s } );",
			row[i].is);
		struct snapshot *a = load_text("was", was, ""), *b = load_text("is", is, "");
		double got = snapshot_slower_by(a, b);
		if (got < row[i].want * 0.999 || got > row[i].want * 1.001)
			fail_msg("%s: %f", row[i].title, got);
		drop(a);
		drop(b);
	}
}

static void references(void **state)
{
	(void)state;
	struct snapshot *s = load_text("one", "", "");
	assert_ptr_equal(snapshot_ref(s), s);
	assert_false(snapshot_unref(s));
	assert_true(snapshot_unref(s));
	snapshot_free(s);
	assert_false(snapshot_unref(NULL));
	snapshot_free(NULL);
}

/* What a caller had collected before neither refuses a good file nor is lost. */
static void earlier_problems(void **state)
{
	struct problems p = { 0 };
	(void)state;
	assert_null(config_load_text("a", "x = 1;", 6, &test_key, 1, &p));
	struct snapshot *s = config_load_text("b", "", 0, &test_key, 1, &p);
	assert_non_null(s);
	assert_int_equal(p.n - p.warnings, 1);
	drop(s);
	problems_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(documented_example),
		cmocka_unit_test(full_configuration),
		cmocka_unit_test(changes),
		cmocka_unit_test(many_changes),
		cmocka_unit_test(many_changes_of_a_rule),
		cmocka_unit_test(what_cannot_change),
		cmocka_unit_test(slower),
		cmocka_unit_test(references),
		cmocka_unit_test(earlier_problems),
	};
	return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
