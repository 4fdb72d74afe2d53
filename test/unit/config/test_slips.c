/* Typing errors that would remove a limit, or make a rule that never applies, without a word. */
#include "load_helper.h"

#include "config/nearest.h"

static void slips(void **state)
{
	static const struct {
		const char *title, *a, *b;
		bool is_slip;
	} row[] = {
		{ "one letter less", "premum", "premium", true },
		{ "two in each other's place", "preimum", "premium", true },
		{ "another letter", "premiun", "premium", true },
		{ "upper and lower case", "Gold", "gold", true },
		{ "three letters of four", "usr", "user", true },
		{ "three letters of three", "id", "uid", false },
		{ "the same", "free", "free", false },
		{ "both short", "id", "ip", false },
		{ "another letter of a short word", "cust", "cost", false },
		{ "another letter at the end of a short one", "plana", "planb", false },
		{ "numbers", "tier1", "tier2", false },
		{ "a number more", "premium", "premium2", false },
		{ "a sign more", "premium", "premium+", false },
		{ "a letter of its own", "my-plan-a", "my-plan-b", false },
		{ "two letters", "premiu", "premiumm", false },
		{ "other words", "gold", "silver", false },
		{ "nothing", "", "a", false },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		if (is_slip(row[i].a, row[i].b) != row[i].is_slip ||
			is_slip(row[i].b, row[i].a) != row[i].is_slip)
			fail_msg("%s: %s, %s", row[i].title, row[i].a, row[i].b);
}

/* A file's text, and what is said of it. */
struct row {
	const char *title, *text, *want;
};

static void try_rows(const struct row *row, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct snapshot *s = load_text(row[i].title, row[i].text, row[i].want);
		if (s)
			drop(s);
	}
}

#define TRY(rows) try_rows(rows, sizeof(rows) / sizeof *(rows))

#define RULE(match) \
	"rules = ( { name = \"a\"; match = { " match " }; per = []; rate = \"1/hour\"; } );"
#define PER(per) "rules = ( { name = \"a\"; per = " per "; rate = \"1/hour\"; } );"
#define AT       "t.cfg:1: warning: rule \"a\": "
#define UNKNOWN(name) \
	"field \"" name "\" is none that the agent knows of itself, and absent unless " \
	"HAProxy sends an argument of that name; did you mean "

static void fields(void **state)
{
	static const struct row row[] = {
		{ "per", PER("[ \"usr\" ]"), AT "per: " UNKNOWN("usr") "\"user\"?\n" },
		{ "an alternative", PER("[ \"key|uesr|ip\" ]"),
			AT "per: " UNKNOWN("uesr") "\"user\"?\n" },
		{ "a short one", PER("[ \"ips\" ]"), AT "per: " UNKNOWN("ips") "\"ip\"?\n" },
		{ "in each other's place", PER("[ \"user|pi\" ]"),
			AT "per: " UNKNOWN("pi") "\"ip\"?\n" },
		{ "a short one that is none", PER("[ \"id\" ]"), "" },
		{ "match", RULE("pth = \"/x\";"), AT "match: " UNKNOWN("pth") "\"path\"?\n" },
		{ "once for each name", RULE("pth = \"/x\"; metod = \"GET\";"),
			AT "match: " UNKNOWN("pth") "\"path\"?\n" AT
						    "match: " UNKNOWN("metod") "\"method\"?\n" },
		{ "what is secret", "identity: { secret = [ \"kkey\" ]; };" PER("[]"),
			"t.cfg:1: warning: identity.secret: " UNKNOWN("kkey") "\"key\"?\n" },
		{ "arguments of one's own",
			RULE("tenant = \"x\"; id = \"y\"; load = \"high\"; cust = \"z\"; name = \"n\"; "
			     "plan = \"p\"; user_id = \"u\"; sni = \"s\";"),
			"" },
		{ "one of many", PER("[ \"users\" ]"), AT "per: " UNKNOWN("users") "\"user\"?\n" },
	};
	(void)state;
	TRY(row);
}

static void methods(void **state)
{
	static const struct row row[] = {
		{ "lower case", RULE("method = [ \"post\", \"!Get\", \"P*\" ];"),
			AT
			"match.method: pattern \"post\" matches no method of HTTP's, which are in upper "
			"case: did you mean \"POST\"?\n" AT
			"match.method: pattern \"!Get\" matches no method of HTTP's, which are in upper "
			"case: did you mean \"!GET\"?\n" },
		{ "of an endpoint",
			RULE("endpoint = [ \"post:/x*\", \"*:/lower\", \"GET*/lower\" ];"),
			AT
			"match.endpoint: pattern \"post:/x*\" matches no method of HTTP's, which are in "
			"upper case: did you mean \"POST:/x*\"?\n" },
		{ "several", RULE("method = [ \"GET|POST\", \"GET, POST\" ];"),
			AT
			"match.method: pattern \"GET|POST\" matches no method: want one, without a blank "
			"(several are a list of patterns)\n" AT
			"match.method: pattern \"GET, POST\" matches no method: want one, without a blank "
			"(several are a list of patterns)\n" },
		{ "a blank after a star", RULE("endpoint = \"* /x\";"),
			AT
			"match.endpoint: pattern \"* /x\" matches no method: want one, without a blank "
			"(several are a list of patterns)\n" },
		{ "a request's first line", RULE("endpoint = [ \"POST /api/*\", \"GET /x\" ];"),
			"t.cfg:1: rule \"a\": match.endpoint: pattern \"POST /api/*\" can never match: an "
			"endpoint is METHOD:/path, without a blank: write \"POST:/api/*\"\n"
			"t.cfg:1: rule \"a\": match.endpoint: pattern \"GET /x\" can never match: an "
			"endpoint is METHOD:/path, without a blank: write \"GET:/x\"\n" },
		{ "a blank beside the colon",
			RULE("endpoint = [ \"POST : /api\", \"!POST :/x\" ];"),
			"t.cfg:1: rule \"a\": match.endpoint: pattern \"POST : /api\" can never match: an "
			"endpoint is METHOD:/path, without a blank: write \"POST:/api\"\n"
			"t.cfg:1: rule \"a\": match.endpoint: pattern \"POST :/x\" can never match: an "
			"endpoint is METHOD:/path, without a blank: write \"POST:/x\"\n" },
		{ "two methods of an endpoint", RULE("endpoint = \"GET POST:/x\";"),
			"t.cfg:1: rule \"a\": match.endpoint: pattern \"GET POST:/x\" can never match: an "
			"endpoint is METHOD:/path, without a blank (several are a list of patterns)\n" },
		{ "a blank in a path", RULE("endpoint = [ \"GET:/a b\", \"GET*/a b\", \"*b c\" ];"),
			AT
			"match.endpoint: pattern \"*b c\" matches no method: want one, without a blank "
			"(several are a list of patterns)\n" },
		{ "messages",
			RULE("message = [ \"login\", \"!check_x\", \"che\", \"check\", \"check-x\", \"c*\", "
			     "\"check*\", \"*x\", \"check-*\" ];"),
			AT
			"match.message: pattern \"login\" matches no message: they are called check, or "
			"check-NAME\n" AT
			"match.message: pattern \"!check_x\" matches no message: they are called check, "
			"or check-NAME\n" AT
			"match.message: pattern \"che\" matches no message: they are called check, or "
			"check-NAME\n" },
	};
	(void)state;
	TRY(row);
}

#define SEVERAL \
	"want one: two are two elements of the list, [ \"10.0.0.1\", \"10.0.0.2\" ] (of the " \
	"environment: two variables)\n"

static void addresses(void **state)
{
	static const struct row row[] = {
		{ "two in one", "allow = ( { ip = \"10.0.0.1,::1\"; } );",
			"t.cfg:1: allow.1.ip: \"10.0.0.1,::1\" is no address or prefix: " SEVERAL },
		{ "who may connect", "agent: { allow_from = [ \"10.0.0.1 10.0.0.2\" ]; };",
			"t.cfg:1: agent.allow_from = \"10.0.0.1 10.0.0.2\": want an address or a prefix "
			"like \"10.0.0.0/8\": " SEVERAL },
		{ "one that is none", "allow = ( { ip = \"10.0.0.1 \"; } );",
			"t.cfg:1: allow.1.ip: \"10.0.0.1 \" is no address or prefix: want an IPv4 or IPv6 "
			"address, or one with /BITS\n" },
		{ "bits after the prefix",
			"allow = ( { ip = [ \"10.0.0.1/8\", \"10.0.0.0/8\", \"10.0.0.1\", "
			"\"10.0.0.1/32\", \"!2001:db8::1/32\", \"::ffff:10.0.0.1/104\" ]; } );",
			"t.cfg:1: warning: allow.1.ip: \"10.0.0.1/8\" is all of 10.0.0.0/8: write that, or "
			"without the slash where the one address is meant\n"
			"t.cfg:1: warning: allow.1.ip: \"!2001:db8::1/32\" is all of 2001:db8::/32: write "
			"that, or without the slash where the one address is meant\n"
			"t.cfg:1: warning: allow.1.ip: \"::ffff:10.0.0.1/104\" is all of 10.0.0.0/8: write "
			"that, or without the slash where the one address is meant\n" },
		{ "of who may connect", "agent: { allow_from = [ \"10.1.0.0/8\" ]; };",
			"t.cfg:1: warning: agent.allow_from = \"10.1.0.0/8\": all of its first 8 bits: write "
			"the bits after them as 0, or leave the slash out where the one address is meant\n" },
	};
	(void)state;
	TRY(row);
}

static void no_rule(void **state)
{
	static const char *const text[] = { "", "rules = ();", "block = ( { ip = \"::1\"; } );" };
	(void)state;
	for (size_t i = 0; i < sizeof text / sizeof *text; i++)
		drop(load_text("no rule", text[i],
			"t.cfg: warning: there is no rule: no request is limited\n"));
}

#define TIERS(more) \
	"rules = ( { name = \"a\"; per = []; rate = { anonymous = \"1/hour\"; premium = \"2/hour\"; " \
	"}; }" more " );"
#define UNLISTED(tier, rule) \
	"warning: identity.default_tier: no rule lists \"" tier "\", and rule \"" rule \
	"\" has no `default`: clients without another tier are not limited by it (\"unlimited\" says " \
	"that it is meant)"
#define DEFAULT(tier) "identity: { default_tier = \"" tier "\"; };\n"

static void default_tier(void **state)
{
	static const struct row row[] = {
		{ "listed", DEFAULT("premium") TIERS(""), "" },
		{ "misspelt", DEFAULT("anonymus") TIERS(""),
			"t.cfg:1: " UNLISTED("anonymus", "a") "; did you mean \"anonymous\"?\n" },
		{ "of none of several rules",
			DEFAULT("nobody")
				TIERS(",\n{ name = \"b\"; per = []; rate = { x = \"1/hour\"; }; }"),
			"t.cfg:1: warning: identity.default_tier: no rule lists \"nobody\", and rule \"a\" "
			"has no `default` (nor have 1 others): clients without another tier are not "
			"limited by it (\"unlimited\" says that it is meant)\n" },
		{ "not given",
			"\nrules = ( { name = \"b\"; per = []; rate = { free = \"1/hour\"; }; } );",
			"t.cfg:2: " UNLISTED("anonymous", "b") "\n" },
		{ "a rule for others too",
			DEFAULT("nobody") TIERS(
				", { name = \"b\"; per = []; rate = { x = \"1/hour\"; default = \"2/hour\"; }; }"),
			"" },
		{ "a rule that is off",
			DEFAULT("nobody") "rules = ( { name = \"b\"; per = []; mode = \"off\"; rate = { x "
					  "= \"1/hour\"; }; } );",
			"" },
		{ "rates without tiers", DEFAULT("nobody") PER("[]"), "" },
		{ "a rule of its own",
			DEFAULT("nobody") TIERS(
				", { name = \"b\"; match = { tier = \"no*\"; }; per = []; rate = \"1/hour\"; }"),
			"" },
		{ "a rule for all but it",
			DEFAULT("nobody") TIERS(
				", { name = \"b\"; match = { tier = \"!nobody\"; }; per = []; rate = \"1/hour\"; }"),
			"t.cfg:1: " UNLISTED("nobody", "a") "\n" },
	};
	(void)state;
	TRY(row);
}

#define NOWHERE(tier, meant) \
	"warning: tier \"" tier "\" is named here and nowhere else; did you mean \"" meant "\"?\n"

#define EITHER(tier, other) \
	"warning: tier \"" tier "\" is named here and nowhere else, and so is \"" other \
	"\" elsewhere: is one of them misspelt?\n"

static void tiers_misspelt(void **state)
{
	static const struct row row[] = {
		{ "in a match",
			TIERS(",\n{ name = \"b\"; match = { tier = \"preimum\"; }; per = []; rate = "
			      "\"1/hour\"; }"),
			"t.cfg:2: " NOWHERE("preimum", "premium") },
		{ "in a match before the rate",
			"rules = ( { name = \"b\"; match = { tier = [ \"!preimum\" ]; }; per = []; rate = { "
			"premium = \"1/hour\";\nanonymous = \"2/hour\"; }; } );",
			"t.cfg:1: " NOWHERE("preimum", "premium") },
		{ "in one rate",
			TIERS(",\n{ name = \"b\"; per = []; rate = { premum = \"1/hour\"; "
			      "premium = \"2/hour\"; }; }"),
			"t.cfg:2: " NOWHERE("premum", "premium") },
		{ "in the same rate",
			DEFAULT("free") "rules = ( { name = \"b\"; per = []; rate = { free = "
					"\"1/hour\"; Free = \"2/hour\"; }; } );",
			"t.cfg:2: " NOWHERE("Free", "free") },
		{ "the right one below",
			DEFAULT("free") "rules = ( { name = \"a\"; per = []; rate = { free = \"1/hour\"; "
					"premum = \"1/hour\"; }; },\n{ name = \"b\"; per = []; rate = { "
					"free = \"1/hour\"; premium = \"2/hour\"; }; } );",
			"t.cfg:3: " EITHER("premium", "premum") },
		{ "in a list", "allow = ( { tier = \"premum\"; } );\n" TIERS(""),
			"t.cfg:1: " NOWHERE("premum", "premium") },
		{ "twice is meant",
			TIERS(", { name = \"b\"; per = []; rate = { premum = \"1/hour\"; }; }, { name = "
			      "\"c\"; per = []; rate = { premum = \"1/hour\"; }; }"),
			"t.cfg:1: " NOWHERE("premium", "premum") },
		{ "numbered",
			TIERS(", { name = \"b\"; per = []; rate = { tier1 = \"1/hour\"; tier2 = "
			      "\"2/hour\"; premium2 = \"3/hour\"; }; }"),
			"" },
		{ "a pattern is none",
			TIERS(", { name = \"b\"; match = { tier = \"premum*\"; }; per = []; "
			      "rate = \"1/hour\"; }"),
			"" },
	};
	(void)state;
	TRY(row);
}

static void tiers_file(void **state)
{
	(void)state;
	put_file("t.cfg",
		"identity: { tiers_file = \"tiers.map\"; };\nallow = ( { tier = \"intern*\"; } );\n" TIERS(
			", { name = \"b\"; per = []; rate = ( { tier = \"gold # 1\"; rate = "
			"\"1/hour\"; } ); }"));
	put_file("tiers.map", "u1 premum\nu2 internal\nu3 gold # 1\nu4 premium#1\nu5 silver\n");
	drop(load_file("t.cfg",
		"tiers.map:1: warning: tier \"premum\" is listed by no rule: `default` holds for it where "
		"a rule has one, else no limit by tier; did you mean \"premium\"?\n"
		"tiers.map:4: warning: tier \"premium#1\" is listed by no rule: `default` holds for it "
		"where a rule has one, else no limit by tier\n"
		"tiers.map:5: warning: tier \"silver\" is listed by no rule: `default` holds for it where "
		"a rule has one, else no limit by tier\n"));
	put_file("tiers.map", "tina premium # ours\nu #1 # x\nk a#b #c");
	drop(load_file("t.cfg",
		"tiers.map:1: warning: \"premium # ours\" is the tier, for HAProxy too: a comment is a line "
		"of its own; want KEY-OR-USER premium\n"
		"tiers.map:2: warning: \"#1 # x\" is the tier, for HAProxy too: a comment is a line of its "
		"own; want KEY-OR-USER TIER\n"
		"tiers.map:3: warning: \"a#b #c\" is the tier, for HAProxy too: a comment is a line of its "
		"own; want KEY-OR-USER a#b\n"));
}

/* What may be a key is not shown. */
static void tiers_file_swapped(void **state)
{
	(void)state;
	put_file("t.cfg", "identity: { tiers_file = \"tiers.map\"; };\n" TIERS(""));
	put_file("tiers.map",
		"premium sk-live-1\nanonymous sk-live-2 # ours\npremium anonymous\nsk-live-3 premium\n");
	drop(load_file("t.cfg",
		"tiers.map:1: warning: \"premium\" is a tier, and what is behind it is listed by no rule: "
		"want KEY-OR-USER TIER\n"
		"tiers.map:2: warning: \"anonymous\" is a tier, and what is behind it is listed by no rule: "
		"want KEY-OR-USER TIER\n"
		"tiers.map:3: warning: this key or user has a line before: that one holds, and this one "
		"does not\n"));
}

static void tiers_file_in_clear_and_by_hash(void **state)
{
	(void)state;
	put_file("t.cfg", "identity: { tiers_file = \"tiers.map\"; };\n" TIERS(""));
	put_file("tiers.map",
		"sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD premium\n"
		"ab premium\nabc anonymous\n");
	struct snapshot *s = load_file("t.cfg",
		"tiers.map:3: warning: this key has a line before, by its hash: this one holds, in "
		"clear, and that one does not\n");
	const struct policy *p = s->policy;
	assert_int_equal(tier_map_find(p->tier_map, STR("abc"), true),
		policy_tier_find(p, STR("anonymous")));
	drop(s);
}

static void tiers_file_twice(void **state)
{
	char text[1024] = "a premium\n";
	const char *const file = "t.cfg";
	struct problems p = { 0 };
	(void)state;
	put_file("t.cfg", "identity: { tiers_file = \"tiers.map\"; };\n" TIERS(""));
	for (int i = 0; i < 23; i++)
		strcat(text, i % 2 ? "a premium\n" : "a anonymous\n");
	put_file("tiers.map", text);
	struct snapshot *s = config_load(&file, 1, &test_key, 1, &p);
	assert_non_null(s);
	drop(s);
	assert_int_equal(p.n, 21);
	assert_string_equal(p.message[0],
		"tiers.map:2: warning: this key or user has a line before: that one holds, and this one "
		"does not");
	assert_string_equal(p.message[20],
		"tiers.map: warning: 3 more lines are of a key or user that has one before");
	problems_free(&p);
}

/* A warning has room only so long: a file of thousands leaves it to the others. */
static void tiers_file_of_comments(void **state)
{
	enum { LINES = 3000 };
	char *text = malloc(LINES * 24), *at = text;
	const char *const file = "t.cfg";
	struct problems p = { 0 };
	(void)state;

	assert_non_null(text);
	for (int i = 0; i < LINES; i++)
		at += sprintf(at, "u%d premium # ours\n", i);
	put_file("t.cfg",
		"identity: { tiers_file = \"tiers.map\"; default_tier = \"anonymus\"; };\n" TIERS(
			""));
	put_file("tiers.map", text);
	free(text);
	struct snapshot *s = config_load(&file, 1, &test_key, 1, &p);
	assert_non_null(s);
	drop(s);
	assert_int_equal(p.n, 22);
	assert_string_equal(p.message[20],
		"tiers.map: warning: 2980 more lines have a comment behind the tier");
	assert_non_null(strstr(p.message[21], "did you mean \"anonymous\"?"));
	problems_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slips),
		cmocka_unit_test(fields),
		cmocka_unit_test(methods),
		cmocka_unit_test(addresses),
		cmocka_unit_test(no_rule),
		cmocka_unit_test(default_tier),
		cmocka_unit_test(tiers_misspelt),
		cmocka_unit_test(tiers_file),
		cmocka_unit_test(tiers_file_swapped),
		cmocka_unit_test(tiers_file_in_clear_and_by_hash),
		cmocka_unit_test(tiers_file_twice),
		cmocka_unit_test(tiers_file_of_comments),
	};
	return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
