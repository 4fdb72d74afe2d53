/* Rules, lists and tiers: what is refused and how it is told, and what comes out. */
#include "load_helper.h"

#include "limit/plan.h"

#define BYTES_63 "123456789012345678901234567890123456789012345678901234567890123"

static void mistakes(void **state)
{
	static const struct {
		const char *title;
		const char *rule; /* what follows `name = "a"; per = []; ` in a rule */
		const char *want; /* after `t.cfg:1: rule "a": ` */
	} row[] = {
		{ "no rate", "", "has no rate: want rate = \"10/minute\", or \"unlimited\"" },
		{ "an unknown setting", "rate = \"1/minute\"; warn = 0.8;",
			"unknown setting \"warn\"; did you mean \"warn_at\"?" },
		{ "an unknown setting, near none", "rate = \"1/minute\"; xyzzy = 1;",
			"unknown setting \"xyzzy\"" },
		{ "as others call it", "rate = \"1/minute\"; burst = 5;",
			"unknown setting \"burst\"; it is said with the rate: rate = \"10/minute burst "
			"20\"" },
		{ "or switch it", "rate = \"1/minute\"; dry_run = true;",
			"unknown setting \"dry_run\"; did you mean mode = \"shadow\"?" },
		{ "a field outside of match", "rate = \"1/minute\"; path = \"/x\";",
			"unknown setting \"path\"; a field stands in per = [ \"path\" ] or in match = { "
			"path = \"…\"; }" },
		{ "a lease is a share", "rate = \"1/minute\"; lease = \"5m\";",
			"lease = \"5m\": want 0..0.5, like 0.05" },
		{ "a lease is at most half", "rate = \"1/minute\"; lease = 0.51;",
			"lease = 0.51: want 0..0.5, like 0.05" },
		{ "a lease is not negative", "rate = \"1/minute\"; lease = -0.1;",
			"lease = -0.1: want 0..0.5, like 0.05" },
		{ "no lease with count_denied",
			"rate = \"1/minute\"; count_denied = true; lease = 0.05;",
			"lease and count_denied: a rule that counts what is denied has to ask Redis "
			"for each request: leave one of them out" },
		{ "a penalty for everyone", "rate = \"1/minute\"; penalty = { after = \"5/1m\"; };",
			"penalty: a rule with per = [] counts everyone together: it would ban everyone; "
			"want per = [ \"ip\" ] or the like" },
		{ "a penalty that is no group", "rate = \"1/minute\"; penalty = \"5m\";",
			"penalty: found a string, want a group: { after = \"10/1m\"; ban = \"10m\"; }" },
		{ "a penalty after nothing", "rate = \"1/minute\"; penalty = { ban = \"5m\"; };",
			"penalty has no after: want after = \"10/1m\": so many denials in that time" },
		{ "a penalty after no rate",
			"rate = \"1/minute\"; penalty = { after = \"0/1m\"; };",
			"penalty.after = \"0/1m\": want a number of denials and a time, like \"10/1m\"" },
		{ "a ban of no length",
			"rate = \"1/minute\"; penalty = { after = \"5/1m\"; ban = \"long\"; };",
			"penalty.ban = \"long\": want 1s..366d, like \"10m\"" },
		{ "a ban that shrinks",
			"rate = \"1/minute\"; penalty = { after = \"5/1m\"; factor = 0.5; };",
			"penalty.factor = 0.5: want 1..1000, like 2" },
		{ "the longest ban is shorter than the first",
			"rate = \"1/minute\"; penalty = { after = \"5/1m\"; ban = \"2h\"; max = "
			"\"1h\"; };",
			"penalty.max = \"1h\" is less than penalty.ban = \"2h\"" },
		{ "a penalty after what a calendar counts",
			"rate = \"1/minute\"; penalty = { after = \"5/month\"; };",
			"penalty.after = \"5/month\": want a number of denials and a time, like "
			"\"10/1m\"" },
		{ "a penalty after a burst",
			"rate = \"1/minute\"; penalty = { after = \"5/1m burst 6\"; };",
			"penalty.after = \"5/1m burst 6\": want a number of denials and a time, like "
			"\"10/1m\"" },
		{ "a ban too short to be one",
			"rate = \"1/minute\"; penalty = { after = \"5/1m\"; ban = \"999ms\"; };",
			"penalty.ban = \"999ms\": want 1s..366d, like \"10m\"" },
		{ "a ban for longer than a year",
			"rate = \"1/minute\"; penalty = { after = \"5/1m\"; max = \"367d\"; };",
			"penalty.max = \"367d\": want 1s..366d, like \"10m\"" },
		{ "a ban that grows too fast",
			"rate = \"1/minute\"; penalty = { after = \"5/1m\"; factor = 1001; };",
			"penalty.factor = 1001: want 1..1000, like 2" },
		{ "an unknown setting of a penalty",
			"rate = \"1/minute\"; penalty = { after = \"5/1m\"; bann = \"1h\"; };",
			"penalty: unknown setting \"bann\"; did you mean \"ban\"?" },
		{ "an on_failure that nobody knows", "rate = \"1/minute\"; on_failure = \"opne\";",
			"on_failure = \"opne\": want \"local\", \"open\" or \"closed\"; did you mean "
			"\"open\"?" },
		{ "concurrency is reserved", "rate = \"1/minute\"; algorithm = \"concurrency\";",
			"algorithm = \"concurrency\" is reserved for a later version: this one does not "
			"know it" },
		{ "an unknown algorithm", "rate = \"1/minute\"; algorithm = \"token_bucket\";",
			"algorithm = \"token_bucket\": want \"token-bucket\", \"sliding-window\" or "
			"\"fixed-window\"; did you mean \"token-bucket\"?" },
		{ "an unknown mode", "rate = \"1/minute\"; mode = \"shadwo\";",
			"mode = \"shadwo\": want \"enforce\", \"shadow\" or \"off\"; did you mean "
			"\"shadow\"?" },
		{ "an unknown action", "rate = \"1/minute\"; action = \"allow\";",
			"action = \"allow\": want \"deny\" or \"tag\"" },
		{ "a mode that is a list", "rate = \"1/minute\"; mode = [ \"off\" ];",
			"mode: found an array [ ], want a single value" },
		{ "count_denied", "rate = \"1/minute\"; count_denied = \"maybe\";",
			"count_denied = \"maybe\": want true or false" },
		{ "warn_at above 1", "rate = \"1/minute\"; warn_at = 1.1;",
			"warn_at = 1.1: want 0..1, like 0.8" },
		{ "warn_at below 0", "rate = \"1/minute\"; warn_at = -0.1;",
			"warn_at = -0.1: want 0..1, like 0.8" },
		{ "warn_at in per cent", "rate = \"1/minute\"; warn_at = \"80%\";",
			"warn_at = \"80%\": want 0..1, like 0.8" },
		{ "warn_at that is no number", "rate = \"1/minute\"; warn_at = \"nan\";",
			"warn_at = \"nan\": want 0..1, like 0.8" },
		{ "an empty tag", "rate = \"1/minute\"; action = \"tag\"; tag = \"\";",
			"tag = \"\": want a string of 1 to 255 bytes without control characters" },
		{ "a number for a cost", "rate = \"1/minute\"; cost = 5;",
			"cost = 5: want the name of a field that says what a request costs: HAProxy sends "
			"it, as with args cost=int(5)" },
		{ "and as a string", "rate = \"1/minute\"; cost = \"5\";",
			"cost = \"5\": want the name of a field that says what a request costs: HAProxy "
			"sends it, as with args cost=int(5)" },
		{ "an empty cost", "rate = \"1/minute\"; cost = \"\";",
			"cost = \"\": want a string of 1 to 63 bytes without control characters" },
		/* ---- rate ---- */
		{ "a bare number", "rate = 10;", "rate = 10: want a string like \"10/minute\"" },
		{ "no rates", "rate = [];", "rate: 0 rates: want 1..32" },
		{ "a rate that is none", "rate = \"often\";",
			"rate = \"often\": want \"N/WINDOW\", \"N/WINDOW burst B\", \"N per WINDOW\" or "
			"\"unlimited\"" },
		{ "two of one window", "rate = [ \"1/hour\", \"2/1h\" ];",
			"rate = \"2/1h\": a second rate for one window (hour)" },
		{ "two of one window, with another between",
			"rate = [ \"1/hour\", \"1/day\", \"2/60m\" ];",
			"rate = \"2/60m\": a second rate for one window (hour)" },
		{ "a week is 7 days", "rate = [ \"1/week\", \"2/7d\" ];",
			"rate = \"2/7d\": a second rate for one window (week)" },
		{ "unlimited is alone", "rate = [ \"1/hour\", \"unlimited\" ];",
			"rate: \"unlimited\" beside other rates: want it alone" },
		{ "month is for fixed windows", "rate = \"1/month\";",
			"rate = \"1/month\": month is for algorithm = \"fixed-window\" only: want a "
			"length, like \"30d\"" },
		{ "also in sliding windows", "rate = \"1/month\"; algorithm = \"sliding-window\";",
			"rate = \"1/month\": month is for algorithm = \"fixed-window\" only: want a "
			"length, like \"30d\"" },
		{ "whichever tier's it is",
			"rate = { free = \"1/day\"; gold = [ \"2/day\", \"3/month\" ]; };",
			"rate.gold = \"3/month\": month is for algorithm = \"fixed-window\" only: want "
			"a length, like \"30d\"" },
		{ "burst is for token buckets",
			"rate = \"1/hour burst 2\"; algorithm = \"fixed-window\";",
			"rate = \"1/hour burst 2\": burst is for algorithm = \"token-bucket\" only" },
		{ "no tiers", "rate = {};", "rate: want at least one tier" },
		{ "a tier's rate that is none", "rate = { free = \"10/minutes\"; };",
			"rate.free = \"10/minutes\": unknown window \"minutes\": want a duration like "
			"\"5m\", or second, minute, hour, day, week, month; did you mean \"minute\"?" },
		{ "a tier's rate that is a group", "rate = { free = { a = 1; }; };",
			"rate.free: found a group { }, want a string, a number or a boolean" },
		{ "a tier twice",
			"rate = ( { tier = \"x\"; rate = \"1/hour\"; }, { tier = \"x\"; rate = "
			"\"2/hour\"; } );",
			"rate.x: this tier is listed twice: first in t.cfg:1" },
		{ "default twice",
			"rate = ( { tier = \"default\"; rate = \"1/hour\"; }, { tier = "
			"\"default\"; rate = \"2/hour\"; } );",
			"rate.default: this tier is listed twice: first in t.cfg:1" },
		{ "a list of groups and others",
			"rate = ( { tier = \"x\"; rate = \"1/hour\"; }, \"2/hour\" );",
			"rate: found a string, want { tier = \"NAME\"; rate = \"10/minute\"; }" },
		{ "a group without its tier", "rate = ( { rate = \"1/hour\"; } );",
			"rate: want { tier = \"NAME\"; rate = \"10/minute\"; }" },
		{ "a group without its rate", "rate = ( { tier = \"x\"; } );",
			"rate: want { tier = \"NAME\"; rate = \"10/minute\"; }" },
		{ "a group with more",
			"rate = ( { tier = \"x\"; rate = \"1/hour\"; rates = 1; } );",
			"rate: unknown setting \"rates\"; did you mean \"rate\"?" },
		{ "a tier without a name", "rate = ( { tier = \"\"; rate = \"1/hour\"; } );",
			"rate: tier = \"\": want a string of 1 to 63 bytes without control characters" },
		/* ---- match ---- */
		{ "a match that is no group", "rate = \"1/hour\"; match = \"/api/*\";",
			"match: found a string, want a group of fields: { path = \"/api/*\"; }" },
		{ "no patterns", "rate = \"1/hour\"; match = { path = []; };",
			"match.path: want at least one pattern" },
		{ "a group for patterns", "rate = \"1/hour\"; match = { path = { a = 1; }; };",
			"match.path: found a group { }, want a string, a number or a boolean" },
		{ "a path that never comes", "rate = \"1/hour\"; match = { path = \"/a/../b\"; };",
			"match.path: pattern \"/a/../b\" can never match, since paths are normalised "
			"first: write \"/b\"" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		char text[512], want[512];
		snprintf(text, sizeof text, "rules = ( { name = \"a\"; per = []; %s } );\n",
			row[i].rule);
		snprintf(want, sizeof want, "t.cfg:1: rule \"a\": %s\n", row[i].want);
		drop(load_text(row[i].title, text, want));
	}
}

static void mistakes_elsewhere(void **state)
{
	static const struct {
		const char *title, *text, *want;
	} row[] = {
		{ "rules that are a group", "rules = { name = \"a\"; };\n",
			"t.cfg:1: rules: found a group { }, want a list of groups: ( { name = \"api\"; "
			"rate = \"10/minute\"; } )\n" },
		{ "a rule that is none",
			"rules = (\n{ name = \"a\"; per = []; rate = \"1/hour\"; },\n5 );\n",
			"t.cfg:3: rule 2: found an integer, want a group { name = \"…\"; rate = \"…\"; }\n" },
		{ "no rules", "rules = ();\n", "" },
		{ "no rules, as an array", "rules = []; allow = []; block = [];\n", "" },
		{ "a name twice",
			"rules = (\n{ name = \"a\"; per = []; rate = \"1/hour\"; },\n"
			"{ name = \"b\"; per = []; rate = \"1/hour\"; },\n"
			"{ per = [];\n name = \"a\"; rate = \"1/hour\"; } );\n",
			"t.cfg:5: rule \"a\": there is a rule of this name in t.cfg:2\n" },
		{ "names that cannot be",
			"rules = ( { name = \"\"; per = []; rate = \"1/hour\"; },\n"
			"{ name = \"\xc3\xa4\"; per = []; rate = \"1/hour\"; },\n"
			"{ name = 5; per = []; rate = \"1/hour\"; },\n"
			"{ name = \"" BYTES_63 "x\"; per = []; rate = \"1/hour\"; } );\n",
			"t.cfg:1: rule 1: name = \"\": want 1 to 63 printable ASCII characters\n"
			"t.cfg:2: rule 2: name = \"\xc3\xa4\": want 1 to 63 printable ASCII characters\n"
			"t.cfg:3: rule 3: name = 5: want 1 to 63 printable ASCII characters\n"
			"t.cfg:4: rule 4: name = \"" BYTES_63 "x\": want 1 to 63 printable ASCII "
			"characters\n" },
		{ "nor one with the last character of ASCII",
			"rules = ( { name = \"a\x7f\"; per = []; rate = \"1/hour\"; } );\n",
			"t.cfg:1: rule 1: name = \"a?\": want 1 to 63 printable ASCII characters\n" },
		{ "the longest name",
			"rules = ( { name = \"" BYTES_63 "\"; per = []; rate = \"1/hour\"; } );\n",
			"" },
		{ "a number for a field",
			"rules = ( { name = \"a\"; per = [ 5 ]; rate = \"1/hour\"; } );\n",
			"t.cfg:1: rule \"a\": per = 5: want the name of a field\n" },
		{ "a first ban that is longer than a day",
			"rules = ( { name = \"a\"; per = \"ip\"; rate = \"1/hour\";\n"
			" penalty = { after = \"5/1m\"; ban = \"2d\"; }; } );\n",
			"" },
		{ "every printable character is fine in a name",
			"rules = ( { name = \"a \\\"b\\\" \\\\ = .c\"; per = []; rate = \"1/hour\"; } );\n",
			"" },
		{ "without per it is one counter, which is said",
			"rules = (\n{ name = \"a\"; rate = \"1/hour\"; } );\n",
			"t.cfg:2: warning: rule \"a\": has no per: one counter for all requests together "
			"(per = [] says so)\n" },
		{ "a tag that sets nothing is said",
			"rules = ( { name = \"a\"; per = []; rate = \"1/hour\";\n tag = \"t\"; } );\n",
			"t.cfg:2: warning: rule \"a\": tag: sets nothing without action = \"tag\"\n" },
		{ "per with an empty name",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ \"\" ]; } );\n",
			"t.cfg:1: rule \"a\": per = \"\": want the name of a field; [] is one counter for "
			"all\n" },
		{ "per with an empty alternative",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ \"key|\" ]; } );\n",
			"t.cfg:1: rule \"a\": per = \"key|\": want the name of a field; [] is one counter "
			"for all\n" },
		{ "per with one field twice",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ \"ip\", \"ip\" ]; } );\n",
			"t.cfg:1: rule \"a\": per = \"ip\": is there twice\n" },
		{ "per with an alternative twice",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ \"ip|user|ip\" ]; } );\n",
			"t.cfg:1: rule \"a\": per = \"ip|user|ip\": \"ip\" is there twice\n" },
		{ "per with a number",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ 5 ]; } );\n",
			"t.cfg:1: rule \"a\": per = 5: want the name of a field\n" },
		{ "per with as many as there may be",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ \"a\", \"b\", \"c\", \"d\", "
			"\"e\", \"f\", \"g\", \"a|b|c|d|e|f|g|h\" ]; } );\n",
			"" },
		{ "per with too many",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ \"a\", \"b\", \"c\", \"d\", "
			"\"e\", \"f\", \"g\", \"h\", \"i\" ]; } );\n",
			"t.cfg:1: rule \"a\": per: 9 fields: want at most 8\n" },
		{ "per with too many alternatives",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ \"a|b|c|d|e|f|g|h|i\" ]; } );\n",
			"t.cfg:1: rule \"a\": per = \"a|b|c|d|e|f|g|h|i\": more than 8 alternatives\n" },
		{ "a pattern with a control character",
			"block = ( { key = [ \"hunter2\\r\", \"a\\tb\" ]; } );\n",
			"t.cfg:1: warning: block.1.key: a pattern has a control character in it, and "
			"matches only what has it, too (of the environment: the end of a line?)\n" },
		{ "per with a control character",
			"rules = (\n{ name = \"a\"; per = [ \"ip\\r\", \"us\\x7fer\" ]; rate = "
			"\"1/hour\"; } );\n",
			"t.cfg:2: rule \"a\": per = \"ip?\": want names of fields without control "
			"characters (a '?' here)\n"
			"t.cfg:2: rule \"a\": per = \"us?er\": want names of fields without control "
			"characters (a '?' here)\n" },
		{ "per with two fields in one string",
			"rules = ( { name = \"a\"; rate = \"1/hour\";\n per = [ \"ip+user\" ]; } );\n",
			"t.cfg:2: rule \"a\": per = \"ip+user\": want each field by itself: per = [ "
			"\"ip\", \"user\" ]\n" },
		{ "per with a list in a string",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = \" ip, user ,\"; } );\n",
			"t.cfg:1: rule \"a\": per = \" ip, user ,\": want each field by itself: per = [ "
			"\"ip\", \"user\" ]\n" },
		{ "per with a blank between",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = \"key | user ip\"; } );\n",
			"t.cfg:1: rule \"a\": per = \"key | user ip\": want each field by itself: per = [ "
			"\"key|user\", \"ip\" ]\n" },
		{ "each is told",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ \"a;b\", \"c&d\", "
			"\"e=f\" ]; } );\n",
			"t.cfg:1: rule \"a\": per = \"a;b\": want each field by itself: per = [ \"a\", "
			"\"b\" ]\n"
			"t.cfg:1: rule \"a\": per = \"c&d\": want each field by itself: per = [ \"c\", "
			"\"d\" ]\n"
			"t.cfg:1: rule \"a\": per = \"e=f\": want each field by itself: per = [ \"e\", "
			"\"f\" ]\n" },
		{ "per as it is meant, and names as HAProxy may have them",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ \"key|user|ip\", \" a | b\", "
			"\"x-y_z.0:1\", \"t/u@v\", \"\xc3\xa4\" ]; } );\n",
			"" },
		{ "a field that is another one but for upper and lower case, told once",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ \"Ip\", \"user\" ]; },\n"
			"{ name = \"b\"; rate = \"1/hour\"; per = [ \"Ip\" ];\n"
			"match = { Path = \"/a\"; path = \"/b\"; };\n cost = \"Tokens\"; },\n"
			"{ name = \"c\"; rate = \"1/hour\"; per = [ \"tokens\" ]; } );\n",
			"t.cfg:1: warning: rule \"a\": per: field \"Ip\" is another one than \"ip\": upper "
			"and lower case are told apart; did you mean \"ip\"?\n"
			"t.cfg:3: warning: rule \"b\": match: field \"Path\" is another one than \"path\": "
			"upper and lower case are told apart; did you mean \"path\"?\n"
			"t.cfg:5: warning: rule \"c\": per: field \"tokens\" is another one than "
			"\"Tokens\": upper and lower case are told apart; did you mean \"Tokens\"?\n" },
		{ "a cost of more than one field",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [];\n cost = \"a b\"; },\n"
			"{ name = \"b\"; rate = \"1/hour\"; per = []; cost = \"a|b\"; } );\n",
			"t.cfg:2: rule \"a\": cost = \"a b\": want the name of one field\n"
			"t.cfg:3: rule \"b\": cost = \"a|b\": want the name of one field\n" },
		{ "secrets that are not, each told",
			"identity: { secret = [ \"key,user\", \"User\",\n \"ip user\" ]; };\n",
			"t.cfg:1: identity.secret = \"key,user\": want the name of one field\n"
			"t.cfg:1: warning: identity.secret: field \"User\" is another one than \"user\": "
			"upper and lower case are told apart; did you mean \"user\"?\n"
			"t.cfg:2: identity.secret = \"ip user\": want the name of one field\n" },
		{ "per with a long name",
			"rules = ( { name = \"a\"; rate = \"1/hour\"; per = [ "
			"\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff1234\" ]; } );\n",
			"t.cfg:1: rule \"a\": per: the field's name is longer than 63 bytes\n" },
		{ "a list entry that matches everything",
			"allow = ( {} );\nblock = ( { user = \"x\"; },\n{} );\n",
			"t.cfg:1: allow.1: an empty group would match every request: want at least one "
			"field\n"
			"t.cfg:3: block.2: an empty group would match every request: want at least one "
			"field\n" },
		{ "a list of strings", "allow = [ \"10.0.0.0/8\" ];\n",
			"t.cfg:1: allow: found an array [ ], want a list of groups: ( { ip = "
			"\"192.0.2.0/24\"; } )\n" },
		{ "an entry that is no group", "block = ( \"10.0.0.0/8\" );\n",
			"t.cfg:1: block.1: found a string, want a group of fields: { path = \"/api/*\"; "
			"}\n" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		drop(load_text(row[i].title, row[i].text, row[i].want));
}

/* The line of each element, not of its list. */
static void lines_of_elements(void **state)
{
	(void)state;
	drop(load_text("elements",
		"rules = (\n"                         /* 1 */
		"  { name = \"a\"; per = [];\n"       /* 2 */
		"    rate = [ \"1/hour\",\n"          /* 3 */
		"             \"x\",\n"               /* 4 */
		"             \"y\" ];\n"             /* 5 */
		"    match = { path = [ \"/ok\",\n"   /* 6 */
		"       \"/a/./b\" ]; }; },\n"        /* 7 */
		"  { name = \"b\"; per = [ \"ip\",\n" /* 8 */
		"      \"\" ];\n"                     /* 9 */
		"    rate = (\n"                      /* 10 */
		"      { tier = \"t\"; rate = \"1/hour\"; },\n"
		"      { tier = \"u\"; rate = 5; } ); } );\n",
		"t.cfg:7: rule \"a\": match.path: pattern \"/a/./b\" can never match, since paths are "
		"normalised first: write \"/a/b\"\n"
		"t.cfg:4: rule \"a\": rate = \"x\": want \"N/WINDOW\", \"N/WINDOW burst B\", \"N per "
		"WINDOW\" or \"unlimited\"\n"
		"t.cfg:5: rule \"a\": rate = \"y\": want \"N/WINDOW\", \"N/WINDOW burst B\", \"N per "
		"WINDOW\" or \"unlimited\"\n"
		"t.cfg:9: rule \"b\": per = \"\": want the name of a field; [] is one counter for all\n"
		"t.cfg:12: rule \"b\": rate.u = 5: want a string like \"5/minute\"\n"));
}

/* A typing error that would match nothing, in silence. */
static void patterns_that_match_no_path(void **state)
{
	(void)state;
	drop(load_text("vain",
		"rules = ( { name = \"a\"; per = []; rate = \"1/hour\";\n"
		" match = { path = [ \"http://x/y\", \"/ok\", \"*.php\", \"\\\\*\", \"*\",\n"
		"   \"!api/*\", \"https://*\" ];\n"
		"   endpoint = [ \"GET:http://x/y\", \"GET:api\", \"GET:*\", \"*:api\", \"G*:/x\",\n"
		"     \"GET:/x\", \"OPTIONS:\\\\*\", \"GET*\" ];\n"
		"   host = \"x\"; }; } );\n",
		"t.cfg:2: warning: rule \"a\": match.path: pattern \"http://x/y\" matches no path, of "
		"which scheme and host are cut: use \"/y\", and the field host\n"
		"t.cfg:3: warning: rule \"a\": match.path: pattern \"!api/*\" matches no path, which "
		"begins with \"/\"\n"
		"t.cfg:3: warning: rule \"a\": match.path: pattern \"https://*\" matches no path, of "
		"which scheme and host are cut: use \"/\", and the field host\n"
		"t.cfg:4: warning: rule \"a\": match.endpoint: pattern \"GET:http://x/y\" matches no "
		"path, of which scheme and host are cut: use \"/y\", and the field host\n"
		"t.cfg:4: warning: rule \"a\": match.endpoint: pattern \"GET:api\" matches no path, "
		"which begins with \"/\"\n"));
}

static const struct limits *limits_of(const struct snapshot *s, unsigned rule, const char *tier)
{
	int t = policy_tier_find(s->policy, str_of(tier));
	return t < 0 ? &s->policy->rule[rule].other : &s->policy->rule[rule].tier[t];
}

static void tiers(void **state)
{
	(void)state;
	struct snapshot *s = load_text("tiers",
		"rules = (\n"
		"{ name = \"some\"; per = []; rate = { free = \"10/minute\"; gold = [ \"20/minute burst "
		"40\", \"30/hour\" ]; none = \"unlimited\"; }; },\n"
		"{ name = \"default\"; per = []; rate = ( { tier = \"2024-gold\"; rate = \"5/hour\"; }, {\n"
		" tier = \"default\"; rate = [ \"1/hour\", \"2/day\" ]; } ); },\n"
		"{ name = \"all\"; per = []; algorithm = \"fixed-window\"; rate = \"7/month\"; } );\n",
		"");
	assert_int_equal(s->policy->tier_n, 5); /* free gold none 2024-gold anonymous */
	const struct limits *l = limits_of(s, 0, "gold");
	assert_int_equal(l->n, 2);
	assert_int_equal(l->limit[0].quota.units, 20);
	assert_int_equal(l->limit[0].quota.capacity, 40);
	assert_int_equal(l->limit[1].quota.capacity, 30);
	assert_ptr_equal(l->limit[1].rule, &s->policy->rule[0]);
	assert_int_equal(limits_of(s, 0, "free")->n, 1);
	assert_int_equal(limits_of(s, 0, "none")->n, 0);
	assert_int_equal(limits_of(s, 0, "2024-gold")->n, 0); /* not listed: not limited */
	assert_int_equal(limits_of(s, 0, "unknown")->n, 0);
	assert_int_equal(limits_of(s, 1, "2024-gold")->n, 1);
	assert_int_equal(limits_of(s, 1, "free")->n, 2); /* by default */
	assert_int_equal(limits_of(s, 1, "unknown")->n, 2);
	assert_int_equal(limits_of(s, 2, "gold")->n, 1);
	assert_int_equal(limits_of(s, 2, "unknown")->limit->quota.window.kind, WINDOW_MONTH);
	/* tiers that share a rate each have their own copy of it */
	assert_ptr_not_equal(limits_of(s, 2, "gold")->limit, limits_of(s, 2, "free")->limit);
	assert_string_equal(value_of(s, "rules.default.rate.2024-gold"), "5/hour");
	assert_string_equal(value_of(s, "rules.default.rate.default"), "1/hour, 2/day");
	assert_string_equal(value_of(s, "rules.some.rate.gold"), "20/minute burst 40, 30/hour");
	drop(s);
}

static void limits_for_one_tier(void **state)
{
	char text[8192];
	(void)state;
	size_t n = (size_t)sprintf(text, "rules = (\n");
	for (int i = 0; i < 32; i++)
		n += (size_t)sprintf(text + n,
			"{ name = \"r%d\"; per = []; rate = { gold = \"1/minute\"; free = \"1/hour\"; }; },\n",
			i);
	char *end = text + n;
	sprintf(end, "{ name = \"last\"; per = []; rate = { silver = \"1/minute\"; }; } );\n");
	drop(load_text("32 for each", text, ""));
	sprintf(end, "{ name = \"last\"; per = []; rate = { gold = \"1/minute\"; }; } );\n");
	drop(load_text("one more for gold", text,
		"t.cfg:34: rule \"last\" brings tier \"gold\" to 33 limits: want at most 32 for one tier, "
		"counted over all rules\n"));
	sprintf(end, "{ name = \"last\"; per = []; mode = \"off\"; rate = \"1/minute\"; } );\n");
	drop(load_text("one more for two, also when it is off", text,
		"t.cfg:34: rule \"last\" brings tier \"gold\" to 33 limits: want at most 32 for one tier, "
		"counted over all rules\n"
		"t.cfg:34: the same holds for 1 more tier\n"));
	sprintf(end,
		"{ name = \"last\"; per = []; mode = \"of\"; rate = { gold = \"1/minute\"; }; } );\n");
	drop(load_text("and what else is wrong", text,
		"t.cfg:34: rule \"last\": mode = \"of\": want \"enforce\", \"shadow\" or \"off\"; did "
		"you mean \"off\"?\n"
		"t.cfg:34: rule \"last\" brings tier \"gold\" to 33 limits: want at most 32 for one tier, "
		"counted over all rules\n"));

	/* All of one rule; and for those that only `default` is for. */
	n = (size_t)sprintf(text, "rules = ( { name = \"a\"; per = []; rate = {\n"
				  "anonymous = \"1/minute\"; default = [");
	for (int i = 1; i <= 32; i++)
		n += (size_t)sprintf(text + n, "%s\"1/%ds\"", i == 1 ? "" : ", ", i);
	n += (size_t)sprintf(text + n, "]; }; }");
	end = text + n;
	sprintf(end, " );\n");
	drop(load_text("32 in one list", text, ""));
	sprintf(end, ",\n{ name = \"b\"; per = []; rate = { default = \"1/minute\"; anonymous = "
		     "\"1/minute\"; }; } );\n");
	drop(load_text("one more for who has no tier of his own", text,
		"t.cfg:3: rule \"b\" brings tier \"(any other)\" to 33 limits: want at most 32 for one "
		"tier, counted over all rules\n"));
}

static void windows_of_one_rule(void **state)
{
	char text[8192];
	(void)state;
	size_t n = (size_t)sprintf(text, "rules = (");
	for (int r = 0; r < 2; r++) {
		n += (size_t)sprintf(text + n,
			"%s\n{ name = \"r%d\"; per = []; rate = { anonymous = \"1/minute\";\n",
			r ? "," : "", r);
		for (int i = 1; i <= 64; i++)
			n += (size_t)sprintf(text + n, "t%d = \"1/%dm\";\n", i, i);
		n += (size_t)sprintf(text + n, "%s}; }", r ? "t65 = \"1/65m\"; " : "");
	}
	sprintf(text + n, " );\n");
	drop(load_text(
		"65 of them", text, "t.cfg:133: rule \"r1\": more than 64 different windows\n"));
}

static void rules(void **state)
{
	(void)state;
	struct snapshot *s = load_text("rules",
		"rules = ( { name = \"a\"; match = { path = \"/x\"; port = 443; secure = true; };\n"
		" per = [ \" key | user|ip\", \"endpoint\" ]; rate = \"1/hour\"; action = \"tag\"; mode = "
		"\"shadow\";\n"
		" count_denied = \"true\"; warn_at = \"0.8\"; cost = \"bytes\"; },\n"
		" { name = \"b\"; match = {}; per = \"ip\"; rate = \"1/hour\"; mode = \"off\"; warn_at = 1;\n"
		"   action = \"tag\"; tag = \"slow\"; algorithm = \"sliding-window\"; lease = 0.05; } );\n",
		"");
	const struct policy *p = s->policy;
	const struct rule *a = &p->rule[0], *b = &p->rule[1];
	assert_int_equal(p->rule_n, 2);
	assert_non_null(a->match);
	assert_int_equal(a->per_n, 2);
	assert_int_equal(a->per[0].n, 3);
	assert_int_equal(a->per[0].slot[0], FIELD_KEY);
	assert_int_equal(a->per[0].slot[1], FIELD_USER);
	assert_int_equal(a->per[0].slot[2], FIELD_IP);
	assert_int_equal(a->per[1].slot[0], FIELD_ENDPOINT);
	assert_int_equal(a->action, ACTION_TAG);
	assert_string_equal(a->tag, "a");
	assert_int_equal(a->mode, MODE_SHADOW);
	assert_true(a->count_denied);
	assert_true(a->warn_at > 0.799 && a->warn_at < 0.801);
	assert_int_equal(a->cost_slot, layout_find_arg(&p->layout, STR("bytes")));
	assert_null(b->match);
	assert_int_equal(b->per_n, 1);
	assert_int_equal(b->mode, MODE_OFF);
	assert_true(b->warn_at >= 1.0);
	assert_true(a->lease <= 0);
	assert_true(b->lease > 0.0499 && b->lease < 0.0501);
	assert_int_equal(b->cost_slot, FIELD_COST);
	assert_string_equal(b->tag, "slow");
	assert_int_equal(b->algorithm, ALGORITHM_SLIDING_WINDOW);
	assert_string_equal(value_of(s, "rules"), "a, b");
	assert_string_equal(value_of(s, "rules.a.match.port"), "443");
	assert_string_equal(value_of(s, "rules.a.match.secure"), "true");
	drop(s);
}

/* What is not said, what a text may say as well, and the first and last of what is taken. */
static void penalties(void **state)
{
	static const struct {
		const char *said, *want;
	} row[] = {
		{ "", "after 5/1m, ban 10m, factor 2, max 1d" },
		{ "ban = \"2d\";", "after 5/1m, ban 2d, factor 2, max 2d" },
		{ "factor = \"1.5\"; max = \"2h\";", "after 5/1m, ban 10m, factor 1.5, max 2h" },
		{ "ban = \"1s\"; factor = 1; max = \"1s\";",
			"after 5/1m, ban 1s, factor 1, max 1s" },
		{ "ban = \"366d\"; factor = \"1000\"; max = \"366d\";",
			"after 5/1m, ban 366d, factor 1000, max 366d" },
	};
	char text[256];
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		snprintf(text, sizeof text,
			"rules = ( { name = \"r\"; per = \"ip\"; rate = \"1/hour\";\n"
			" penalty = { after = \"5/1m\"; %s }; } );\n",
			row[i].said);
		struct snapshot *s = load_text(row[i].want, text, "");
		assert_string_equal(value_of(s, "rules.r.penalty"), row[i].want);
		drop(s);
	}
}

static void too_many_fields(void **state)
{
	char text[8192];
	struct problems p = { 0 };
	(void)state;
	size_t n = (size_t)sprintf(text, "block = (\n");
	for (int i = 0; i < 60; i++)
		n += (size_t)sprintf(text + n, "%s{ field%d = \"x\"; }\n", i ? "," : "", i);
	n += (size_t)sprintf(text + n, ");\n");
	assert_null(config_load_text("t.cfg", text, n, &test_key, 1, &p));
	assert_string_equal(p.message[0],
		"t.cfg:56: block.55: field \"field54\" is one too many: want at most 64 in all");
	problems_free(&p);
}

/* ---- the tiers file ---- */

static void tiers_file(void **state)
{
	(void)state;
	put_file("t.cfg", "identity: { tiers_file = \"tiers.map\"; };\n"
			  "rules = ( { name = \"a\"; per = []; rate = { gold = \"5/hour\"; free = "
			  "\"1/hour\"; }; } );\n");
	put_file("tiers.map",
		"# comment\n\n  \t\n  alice   gold  \r\n\tbob\tfree\n"
		"SHA256:2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B gold\n"
		"carol two words\nalice free\n   # alice none\nlast free");
	struct snapshot *s = load_file("t.cfg",
		"tiers.map:7: warning: tier \"two words\" is listed by no rule: `default` holds for it "
		"where a rule has one, else no limit by tier\n"
		"tiers.map:8: warning: this key or user has a line before: that one holds, and this "
		"one does not\n");
	struct view v;
	struct plan plan;
	char scratch[4096];
	static const struct {
		unsigned slot;
		const char *value, *tier;
	} row[] = {
		{ FIELD_USER, "alice", "gold" }, /* the first of equal names */
		{ FIELD_USER, "bob", "free" },
		{ FIELD_KEY, "bob", "free" },
		{ FIELD_KEY, "secret", "gold" }, /* by its hash */
		{ FIELD_USER, "carol", "two words" },
		{ FIELD_USER, "last", "free" },
		{ FIELD_USER, "#", "anonymous" },
		{ FIELD_USER, "nobody", "anonymous" },
	};
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		view_init(&v, &s->policy->layout, STR("check"), scratch, sizeof scratch);
		view_set_text(&v, row[i].slot, str_of(row[i].value));
		view_finish(&v);
		policy_plan(s->policy, &v, &plan);
		if (strcmp(plan.tier, row[i].tier) != 0)
			fail_msg("%s is %s", row[i].value, plan.tier);
	}
	assert_int_equal(
		strncmp(value_of(s, "identity.tiers_file"), "tiers.map (6 lines, checksum ", 29),
		0);
	/* a tier that only the file names has limits too, where there is a default */
	assert_int_equal(limits_of(s, 0, "two words")->n, 0);
	drop(s);

	put_file("tiers.map", "# ours\ralice gold\n# theirs\r\nbob free\n");
	drop(load_file("t.cfg",
		"tiers.map:1: warning: this comment goes on behind a CR: a line ends in "
		"LF, or CR LF\n"));

	put_file("tiers.map",
		"alice gold\nSECRETKEY\nSha256:12 gold\n"
		"sha256:zzb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b gold\n"
		"x aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff1234\n"
		"x g\x01ld\nx\x01y gold\n");
	drop(load_file("t.cfg", "tiers.map:2: no tier on this line: want KEY-OR-USER TIER\n"
				"tiers.map:3: want 64 hexadecimal digits after sha256:\n"
				"tiers.map:4: want 64 hexadecimal digits after sha256:\n"
				"tiers.map:5: want a tier of at most 63 bytes, and no control "
				"characters\n"
				"tiers.map:6: want a tier of at most 63 bytes, and no control "
				"characters\n"
				"tiers.map:7: want a tier of at most 63 bytes, and no control "
				"characters\n"));
	/* After a byte order mark; each tier that is in no rule is told once. */
	put_file("tiers.map",
		"\xef\xbb\xbf"
		"alice gold\n"
		"x aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff123\ndan tin\neve tin\n");
	s = load_file("t.cfg",
		"tiers.map:2: warning: tier "
		"\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff123\" is listed by no "
		"rule: `default` holds for it where a rule has one, else no limit by tier\n"
		"tiers.map:3: warning: tier \"tin\" is listed by no rule: `default` holds for it "
		"where a rule has one, else no limit by tier\n");
	assert_int_equal(tier_map_find(s->policy->tier_map, STR("alice"), false),
		policy_tier_find(s->policy, STR("gold")));
	drop(s);
	mkdir("tiers", 0700);
	put_file("t.cfg", "\nidentity: { tiers_file = \"tiers\"; };\n");
	drop(load_file("t.cfg", "t.cfg:2: identity.tiers_file: tiers is a folder: want a file\n"));
}

static void large_tiers_file(void **state)
{
	FILE *f = fopen("large.map", "w");
	(void)state;
	assert_non_null(f);
	for (int i = 0; i < 100000; i++)
		fprintf(f, "user-%d %s\n", i, i % 3 ? "free" : "gold");
	fclose(f);
	put_file("t.cfg", "identity: { tiers_file = \"large.map\"; };\n"
			  "rules = ( { name = \"a\"; per = []; rate = { gold = \"5/hour\"; free = "
			  "\"1/hour\"; }; } );\n");
	struct snapshot *s = load_file("t.cfg", "");
	assert_int_equal(
		strncmp(value_of(s, "identity.tiers_file"), "large.map (100000 lines, ", 25), 0);
	drop(s);
	f = fopen("large.map", "w");
	assert_non_null(f);
	for (int i = 0; i < 5000; i++)
		fprintf(f, "user-%d tier-%d\n", i, i);
	fclose(f);
	struct problems p = { 0 };
	const char *const file = "t.cfg";
	assert_null(config_load(&file, 1, &test_key, 1, &p));
	/* gold, free and anonymous are there already */
	assert_string_equal(p.message[p.n - 1], "large.map:4094: more than 4096 tiers in all");
	problems_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mistakes),
		cmocka_unit_test(mistakes_elsewhere),
		cmocka_unit_test(lines_of_elements),
		cmocka_unit_test(patterns_that_match_no_path),
		cmocka_unit_test(tiers),
		cmocka_unit_test(limits_for_one_tier),
		cmocka_unit_test(windows_of_one_rule),
		cmocka_unit_test(rules),
		cmocka_unit_test(penalties),
		cmocka_unit_test(too_many_fields),
		cmocka_unit_test(tiers_file),
		cmocka_unit_test(large_tiers_file),
	};
	return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
