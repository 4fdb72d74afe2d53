/* What libconfig 1.5 does wrong, and what files may be: every one of these once ended the process,
 * lost a setting in silence, or named the wrong line. */
#include "load_helper.h"

static void texts(void **state)
{
	static const struct {
		const char *title, *text, *want;
	} row[] = {
		{ "an empty file is all defaults", "", "" },
		{ "no newline at the end", "enabled = true;", "" },
		{ "a comment without a newline at the end", "enabled = true; # yes", "" },
		{ "lines that end in CR LF", "agent: {\r\n threads = 2;\r\n};\r\n", "" },
		{ "a comment that another one closes",
			"enabled = true;\n/* one\nagent: { threads = 2; };\n\t/* two */\n",
			"t.cfg:4: warning: this is in the comment that begins in t.cfg:2: what stands "
			"between is not read; is a */ missing?\n" },
		{ "patterns in a comment close none",
			"/* path = \"/api/*\";\n \"/v2/*\" */ enabled = true; /* x /* y */\n", "" },
		{ "a line that ends in CR alone hides nothing in a comment",
			"# one\renabled = false;\n// two\r\r\nenabled = true; # three\r",
			"t.cfg:1: this comment goes on behind a CR: a line ends in LF, or CR LF\n" },
		{ "nor anything that is wrong besides, but remarks",
			"# one\r # two\r// three\r\t\n# for web1\r (all of it)\n# a\r\rb : 1\nbogus = 1;\n",
			"t.cfg:2: warning: this comment goes on behind a CR: a line ends in LF, or CR LF\n"
			"t.cfg:3: this comment goes on behind a CR: a line ends in LF, or CR LF\n"
			"t.cfg:4: unknown setting \"bogus\"\n" },
		{ "nor behind a remark that is hidden as well",
			"# one\rtwo\r\rb : 1\r# three\r\n# a = 1\r{ }\r// b = 1\n",
			"t.cfg:1: this comment goes on behind a CR: a line ends in LF, or CR LF\n"
			"t.cfg:2: warning: this comment goes on behind a CR: a line ends in LF, or CR LF\n" },
		{ "a byte order mark",
			"\xef\xbb\xbf"
			"enabled = true;",
			"" },
		{ "an unclosed comment hides nothing",
			"enabled = true;\n/* here\nagent: { threads = 2; };\n",
			"t.cfg:2: the comment that begins here is never closed\n" },
		{ "a comment within a string is none", "log: { target = \"/a/*b\"; };\n", "" },
		{ "an include within a comment is none",
			"/*\n@include \"no\"\n*/\n# @include \"no\"\n", "" },
		{ "a string ends on its line",
			"log: {\n target = \"stderr;\n level = \"info\";\n};\n",
			"t.cfg:2: a string that begins on this line is not closed on it\n" },
		{ "and at the end of the file", "log: {\n target = \"stderr",
			"t.cfg:2: a string that begins on this line is not closed on it\n"
			"t.cfg:1: '{' is never closed\n" },
		{ "a password is not told: not closed", "redis: { password = \"hunter2; };\n",
			"t.cfg:1: a string that begins on this line is not closed on it\n"
			"t.cfg:1: '{' is never closed\n" },
		{ "nor without quotes", "redis: { password = hunter2; };\n",
			"t.cfg:1: password: want a value, found a word: strings stand in quotes\n" },
		{ "nor beginning with a digit", "redis: { password = 2hunters; };\n",
			"t.cfg:1: what begins like a number here is none (a string stands in quotes)\n" },
		{ "nor without its sign", "redis: { password \"hunter2\"; };\n",
			"t.cfg:1: want '=' after password, found a string\n" },
		{ "nor behind a quote in it", "redis: { password = \"abc\"hunter2\"def\"; };\n",
			"t.cfg:1: a string ends in the middle of a word here: a '\"' within a string is "
			"written \\\"\n" },
		{ "nor behind one and a sign", "redis: { password = \"abc\"hunter2 = 5; };\n",
			"t.cfg:1: a string ends in the middle of a word here: a '\"' within a string is "
			"written \\\"\n" },
		{ "nor behind one and a blank", "redis: { password = \"abc\" hunter2 \"def\"; };\n",
			"t.cfg:1: want '=' after the word behind a string (a '\"' within one is written "
			"\\\"), found a string\n" },
		{ "nor behind one and two words",
			"redis: { password = \"abc\" hunter2 more \"def\"; };\n",
			"t.cfg:1: want '=' after the word behind a string (a '\"' within one is written "
			"\\\"), found a word\n" },
		{ "nor behind one and a word with its sign",
			"redis: { password = \"abc\" hunter2 = more\"; };\n",
			"t.cfg:1: the word behind a string (a '\"' within one is written \\\"): want a "
			"value, found a word: strings stand in quotes\n"
			"t.cfg:1: a string that begins on this line is not closed on it\n" },
		{ "a setting behind a sign is told", "redis: { prefix = \"abc\"; db 2; };\n",
			"t.cfg:1: want '=' after db, found a number\n" },
		{ "a setting in the line below is told", "redis: { password = \"abc\"\n db 2; };\n",
			"t.cfg:2: want '=' after db, found a number\n" },
		{ "nor as a default", "redis: { password = \"${REDIS-PW:-hunter2}\"; };\n",
			"t.cfg:1: redis.password: \"${\" begins no reference: want ${NAME} or "
			"${NAME:-default}\n" },
		{ "an escaped quote closes nothing", "log: { target = \"x\\\"; };\n",
			"t.cfg:1: a string that begins on this line is not closed on it\n"
			"t.cfg:1: '{' is never closed\n" },
		{ "a backslash does not hide where the line ends",
			"log: { target = \"x\\\n\"; };\nagent: { threads = 333; };\n",
			"t.cfg:1: a string that begins on this line is not closed on it\n"
			"t.cfg:2: a string that begins on this line is not closed on it\n"
			"t.cfg:1: '{' is never closed\n" },
		{ "a NUL that is written as an escape", "log: {\n target = \"a\\x00b\"; };\n",
			"t.cfg:2: a string may not hold a NUL (\\x00)\n" },
		{ "more than 32 bits do not wrap", "store: { max_keys = 4294967297; };\n",
			"t.cfg:1: store.max_keys = 4294967297: want 1..1000000000\n" },
		{ "nor in hexadecimal", "store: { max_keys = 0x100000001; };\n",
			"t.cfg:1: store.max_keys = 4294967297: want 1..1000000000\n" },
		{ "nor below zero", "store: { max_keys = -4294967297; };\n",
			"t.cfg:1: store.max_keys = -4294967297: want 1..1000000000\n" },
		{ "0xffffffff is not -1", "store: { max_keys = 0xffffffff; };\n",
			"t.cfg:1: store.max_keys = 4294967295: want 1..1000000000\n" },
		{ "the last of 32 bits", "store: { max_keys = -2147483648; };\n",
			"t.cfg:1: store.max_keys = -2147483648: want 1..1000000000\n" },
		{ "and the first beyond", "store: { max_keys = 2147483648; };\n",
			"t.cfg:1: store.max_keys = 2147483648: want 1..1000000000\n" },
		{ "the last of 64 bits", "store: { max_keys = -9223372036854775808; };\n",
			"t.cfg:1: store.max_keys = -9223372036854775808: want 1..1000000000\n" },
		{ "an L was there already", "store: { max_keys = 4294967297L; };\n",
			"t.cfg:1: store.max_keys = 4294967297: want 1..1000000000\n" },
		{ "64 bits are the end", "store: {\n max_keys = 9223372036854775808; };\n",
			"t.cfg:2: an integer has more than 64 bits\n" },
		{ "also in hexadecimal", "store: {\n max_keys = 0x8000000000000000; };\n",
			"t.cfg:2: an integer has more than 64 bits\n" },
		{ "and far beyond", "store: {\n max_keys = 99999999999999999999999; };\n",
			"t.cfg:2: an integer has more than 64 bits\n" },
		{ "no binary numbers, whatever the version", "agent: { threads = 0b11; };\n",
			"t.cfg:1: what begins like a number here is none (a string stands in quotes)\n" },
		{ "an error names its line", "enabled = true;\n\nagent: { threads 2; };\n",
			"t.cfg:3: want '=' after threads, found a number\n" },
		{ "of a setting it is its name's", "agent: {\n threads\n =\n 333;\n};\n",
			"t.cfg:2: agent.threads = 333: want 0..64\n" },
		{ "also behind comments of many lines",
			"/*\n\n*/ enabled = true; /*\n*/\nagent: { threads 2; };\n",
			"t.cfg:5: want '=' after threads, found a number\n" },
		{ "a setting twice", "enabled = true;\nenabled = false;\n",
			"t.cfg:2: duplicate setting name: its group has one already: leave out one of "
			"them\n" },
		{ "a bracket that is never closed", "agent: {\n threads = 2;\n",
			"t.cfg:1: '{' is never closed\n" },
		{ "a bracket that closes nothing", "enabled = true;\n};\n",
			"t.cfg:2: '}' closes nothing\n" },
		{ "a bracket that closes another", "rules = (\n{ name = \"a\"; );\n",
			"t.cfg:2: ')' where '{' of t.cfg:2 is still open\n" },
		{ "characters that mean nothing", "a % 2;\nb $ c;\n\xc3\xa4 = 1;\n",
			"t.cfg:1: unexpected character '%'\n"
			"t.cfg:2: unexpected character '$'\n"
			"t.cfg:3: unexpected byte 0xc3 (text other than ASCII stands in strings and "
			"comments)\n" },
		{ "an @ in the middle of a line", "enabled = true; @include \"x\"\n",
			"t.cfg:1: '@' here: want @include \"FILE\" at the beginning of a line\n" },
		{ "nor behind a comment of many lines", "/*\n*/ @include \"x\"\n",
			"t.cfg:2: '@' here: want @include \"FILE\" at the beginning of a line\n" },
		{ "an include of nothing", "@include\n@include \"\"\n@include \"x\n@include x\n",
			"t.cfg:1: want @include \"FILE\"\n"
			"t.cfg:2: want @include \"FILE\"\n"
			"t.cfg:3: want @include \"FILE\"\n"
			"t.cfg:4: want @include \"FILE\"\n" },
		{ "nesting has an end", "a = ((((((((((((((((((((((((((((((((((((((((\n",
			"t.cfg:1: groups and lists nested too deeply: want at most 32\n" },
		{ "a word without quotes", "log: {\n level = info; };\n",
			"t.cfg:2: level: want a value, found a word: strings stand in quotes\n" },
		{ "a word without quotes in a list", "a = [ x ];\n",
			"t.cfg:1: want an element or ']', found a word: strings stand in quotes\n" },
		{ "an address without quotes", "block = ( { ip = 10.0.0.0/8; } );\n",
			"t.cfg:1: what begins like a number here is none (a string stands in quotes)\n"
			"t.cfg:1: unexpected character '/'\n" },
		{ "a duration without quotes", "agent: { drain = 2s; };\n",
			"t.cfg:1: what begins like a number here is none (a string stands in quotes)\n" },
		{ "no value", "enabled = ;\n", "t.cfg:1: enabled: want a value, found ;\n" },
		{ "no value at the end", "agent: { threads = };\n",
			"t.cfg:1: threads: want a value, found }\n" },
		{ "a name alone", "agent: { threads };\n",
			"t.cfg:1: threads: want = and a value, found }\n" },
		{ "a name alone in a file", "\nenabled",
			"t.cfg:2: enabled: want = and a value, found the "
			"end of the file\n" },
		{ "no value in a file", "\nenabled =",
			"t.cfg:2: enabled: want a value, found the end of "
			"the file\n" },
		{ "a value without a name", "5;\n",
			"t.cfg:1: want the name of a setting, found a number\n" },
		{ "a sign too many", "enabled = true;;\n",
			"t.cfg:1: want the name of a setting, found ;\n" },
		{ "two values", "enabled = true false;\n",
			"t.cfg:1: want ';' after the value of enabled, found false\n" },
		{ "no comma",
			"rules = (\n{ name = \"a\"; per = []; rate = \"1/hour\"; }\n{ name = \"b\"; "
			"} );\n",
			"t.cfg:3: want ',' or ')' after an element, found {\n" },
		{ "a comma too many", "rules = ( , );\n",
			"t.cfg:1: want an element or ')', found ,\n" },
		{ "a group in an array", "allow = [ { user = \"a\"; } ];\n",
			"t.cfg:1: '{' in an array [ ], which holds single values only: want a list ( )\n" },
		{ "a comma after the last",
			"allow = ( { user = \"a\"; }, );\nagent: { listen = [ \":1\", "
			"\":2\", ] };\n",
			"" },
		{ "no signs between settings",
			"enabled = true agent: { threads = 1 drain = \"1s\" }\n", "" },
		{ "commas between settings",
			"enabled = true, agent: { threads = 1, drain = \"1s\", },\n", "" },
		{ "an array of integers of any width",
			"block = ( { n = [ 5, -7L, 3000000000, 0x80000000 ]; } );\n", "" },
		{ "an array of different types", "agent: { listen = [ \":1\", 2 ]; };\n",
			"t.cfg:1: mismatched element type in array: want values of one kind, or a list "
			"( )\n" },
		{ "a point at the very beginning", ".5",
			"t.cfg:1: want the name of a setting, found a number\n" },
		{ "numbers that are none", "a = 1.2.3; b = 1e; c = -.; d = 1.5x;\n",
			"t.cfg:1: what begins like a number here is none (a string stands in quotes)\n"
			"t.cfg:1: what begins like a number here is none (a string stands in quotes)\n"
			"t.cfg:1: what begins like a number here is none (a string stands in quotes)\n"
			"t.cfg:1: what begins like a number here is none (a string stands in quotes)\n" },
		{ "mistakes of several kinds", "agent: { threads 2; };\n/* never\n",
			"t.cfg:1: want '=' after threads, found a number\n"
			"t.cfg:2: the comment that begins here is never closed\n" },
		{ "strings that follow each other are one", "log: { level = \"in\"\n \"fo\"; };\n",
			"" },
		{ "a number beside a name with digits", "agent: { thread2 = 1; };\n",
			"t.cfg:1: unknown setting \"agent.thread2\"; did you mean \"threads\"?\n" },
		{ "numbers of every shape",
			"rules = ( { name = \"a\"; per = []; rate = \"1/m\"; warn_at = 1e-1; } );\n",
			"t.cfg:1: rule \"a\": rate = \"1/m\": unknown window \"m\": want a duration "
			"like \"5m\", or second, minute, hour, day, week, month; did you mean \"1m\"?\n" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		drop(load_text(row[i].title, row[i].text, row[i].want));
}

static void nul_bytes(void **state)
{
	static const char text[] = "enabled = true;\nagent: { threads = 1; };\0 rules = 5;\n";
	struct problems p = { 0 };
	(void)state;
	assert_null(config_load_text("t.cfg", text, sizeof text - 1, &test_key, 1, &p));
	assert_int_equal(p.n, 1);
	assert_string_equal(p.message[0], "t.cfg:2: a NUL byte: this is no text file");
	problems_free(&p);
}

static void includes(void **state)
{
	(void)state;
	mkdir("sub", 0700);
	mkdir("sub/deep", 0700);
	put_file("main.cfg",
		"enabled = false;\n  @include \"sub/agent.cfg\"   # and on\nstore: { max_keys = 7; };\n");
	put_file("sub/agent.cfg", "agent: {\n@include \"deep/inner.cfg\"\n drain = \"3s\";\n};");
	put_file("sub/deep/inner.cfg", "threads = 3;");
	struct snapshot *s = load_file("main.cfg", "");
	assert_false(s->policy->enabled);
	assert_int_equal(s->settings.agent.threads, 3);
	assert_int_equal(s->settings.agent.drain, 3 * USEC_PER_SEC);
	assert_int_equal(s->settings.store.max_keys, 7);
	drop(s);

	/* every problem in the file and line where it stands */
	put_file("sub/deep/inner.cfg", "\nthreads = 333;\n");
	put_file("main.cfg",
		"enabled = 5;\n@include \"sub/agent.cfg\"\nstore: { max_keys = 0; };\n");
	put_file("sub/agent.cfg", "agent: {\n@include \"deep/inner.cfg\"\n drain = 3;\n};");
	drop(load_file("main.cfg",
		"main.cfg:1: enabled = 5: want true or false\n"
		"sub/deep/inner.cfg:2: agent.threads = 333: want 0..64\n"
		"sub/agent.cfg:3: agent.drain = 3: want a duration with its unit: "
		"\"3s\" or \"3ms\"\n"
		"main.cfg:3: store.max_keys = 0: want 1..1000000000\n"));

	/* libconfig's own error too */
	put_file("sub/deep/inner.cfg", "\n\nthreads 3;\n");
	drop(load_file(
		"main.cfg", "sub/deep/inner.cfg:3: want '=' after threads, found a number\n"));
	put_file("sub/deep/inner.cfg", "# nothing");
	put_file("main.cfg", "@include \"sub/deep/inner.cfg\" enabled 5;\n");
	drop(load_file("main.cfg", "main.cfg:1: want '=' after enabled, found a number\n"));
	/* what stands behind an include can be no other */
	put_file("main.cfg", "@include \"sub/deep/inner.cfg\" @include \"sub\"\n");
	drop(load_file("main.cfg", "main.cfg:1: '@' here: want @include \"FILE\" at the beginning "
				   "of a line\n"));
	/* twice is fine, and the environment may choose */
	put_file("main.cfg", "@include \"sub/deep/inner.cfg\"\n@include "
			     "\"${NO_SUCH_FOLDER:-sub}/deep/inner.cfg\"\n");
	drop(load_file("main.cfg", ""));
	put_file("main.cfg", "\n@include \"${NO_SUCH_FOLDER}/inner.cfg\"\n");
	drop(load_file("main.cfg", "main.cfg:2: @include: the environment variable NO_SUCH_FOLDER "
				   "is not set (${NO_SUCH_FOLDER:-default} gives a default)\n"));
}

static void includes_that_end_a_process(void **state)
{
	(void)state;
	mkdir("folder", 0700);
	mkfifo("fifo", 0600);
	put_file("a.cfg", "enabled = true;\n@include \"folder\"\n@include \"none.cfg\"\n@include "
			  "\"fifo\"\n@include \"/dev/zero\"\n");
	drop(load_file("a.cfg",
		"a.cfg:2: @include \"folder\": folder is a folder: want a file\n"
		"a.cfg:3: @include \"none.cfg\": none.cfg cannot be opened: No such file or directory\n"
		"a.cfg:4: @include \"fifo\": fifo is not a regular file (a pipe, socket or device)\n"
		"a.cfg:5: @include \"/dev/zero\": /dev/zero is not a regular file (a pipe, socket or "
		"device)\n"));
	put_file("self.cfg", "\n@include \"self.cfg\"\n");
	drop(load_file(
		"self.cfg", "self.cfg:2: @include \"self.cfg\": self.cfg includes itself\n"));
	put_file("x.cfg", "@include \"y.cfg\"\n");
	put_file("y.cfg", "\n\n@include \"./x.cfg\"\n");
	drop(load_file("x.cfg", "y.cfg:3: @include \"./x.cfg\": ./x.cfg includes itself\n"));
	for (int i = 0; i < 11; i++) {
		char name[32], text[64];
		snprintf(name, sizeof name, "deep%d.cfg", i);
		snprintf(text, sizeof text, "@include \"deep%d.cfg\"\n", i + 1);
		put_file(name, i == 10 ? "enabled = false;\n" : text);
	}
	drop(load_file("deep0.cfg", ""));
	put_file("deep10.cfg", "@include \"deep11.cfg\"\n");
	put_file("deep11.cfg", "enabled = false;\n");
	drop(load_file("deep0.cfg",
		"deep10.cfg:1: @include \"deep11.cfg\": more than 10 files within each other\n"));

	/* an unclosed comment in an included file ends with it: named at its beginning */
	put_file("open.cfg", "\n/* for ever\n");
	put_file("a.cfg", "@include \"open.cfg\"\nenabled = false; */\n");
	drop(load_file("a.cfg", "open.cfg:2: the comment that begins here is never closed\n"));
}

static void files(void **state)
{
	char *big = malloc((4 << 20) + 2);
	(void)state;
	mkdir("folder", 0700);
	mkfifo("fifo2", 0600);
	drop(load_file(
		"none.cfg", "none.cfg:1: this file cannot be opened: No such file or directory\n"));
	drop(load_file("folder", "folder:1: this file is a folder: want a file\n"));
	drop(load_file(
		"fifo2", "fifo2:1: this file is not a regular file (a pipe, socket or device)\n"));
	assert_non_null(big);
	memset(big, '\n', (4 << 20) + 1);
	put_bytes("big.cfg", big, (4 << 20) + 1);
	drop(load_file(
		"big.cfg", "big.cfg:1: this file is too large: want at most 4194304 bytes\n"));
	put_bytes("big.cfg", big, 4 << 20);
	drop(load_file("big.cfg", ""));
	put_file("thrice.cfg", "@include \"big.cfg\"\n@include \"big.cfg\"\n");
	drop(load_file("thrice.cfg",
		"big.cfg:1: too much text: want at most 4194304 bytes in a file, "
		"8388608 in all\n"));
	free(big);
	if (geteuid() != 0) {
		put_file("secret.cfg", "");
		chmod("secret.cfg", 0);
		drop(load_file("secret.cfg",
			"secret.cfg:1: this file cannot be opened: Permission denied\n"));
	}
}

/* Every cut of a good configuration is read to its end, without a crash, and a bad one is told. */
static void every_cut(void **state)
{
	static const char text[] =
		"/* c */ enabled = \"${X:-true}\"; agent: { threads = 0x2; drain = \"2s\"; };\n"
		"rules = ( { name = \"a\\\"b\"; match = { path = [ \"/a\", \"!/b\" ]; }; per = [ \"key|ip\" ];\n"
		" rate = ( { tier = \"x\"; rate = [ \"1/minute\", \"2/hour\" ]; } ); warn_at = 1e-1; } );\n";
	(void)state;
	for (size_t cut = 0; cut < sizeof text; cut++) {
		struct problems p = { 0 };
		char *copy = malloc(cut ? cut : 1); /* exactly so long: no byte behind it is read */
		assert_non_null(copy);
		memcpy(copy, text, cut);
		struct snapshot *s = config_load_text("t.cfg", copy, cut, &test_key, 1, &p);
		assert_true((s != NULL) == (p.n == p.warnings));
		drop(s);
		problems_free(&p);
		free(copy);
	}
}

static void many(void **state)
{
	enum { N = 300000 };
	char *text = malloc(N * 8);
	struct problems p = { 0 };
	size_t n = 0;
	(void)state;
	assert_non_null(text);
	/* more settings than can be shown as problems: the last message says so */
	for (int i = 0; i < 4999; i++)
		n += (size_t)sprintf(text + n, "a%d=1;\n", i);
	assert_null(config_load_text("t.cfg", text, n, &test_key, 1, &p));
	assert_int_equal(p.n, 4097);
	assert_string_equal(p.message[4096], "there are more problems than can be shown");
	problems_free(&p);
	for (n = 0; n < 5001 * 5; n += 5)
		memcpy(text + n, "a=1;\n", 5);
	assert_null(config_load_text("t.cfg", text, n, &test_key, 1, &p));
	assert_string_equal(p.message[0], "t.cfg:5001: more than 5000 settings in one group");
	problems_free(&p);
	n = (size_t)sprintf(text, "a = [");
	for (int i = 0; i < N; i++)
		n += (size_t)sprintf(text + n, "%s1", i ? "," : "");
	assert_null(config_load_text("t.cfg", text, n, &test_key, 1, &p));
	assert_string_equal(p.message[0], "t.cfg:1: more than 200000 settings");
	problems_free(&p);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts),
		cmocka_unit_test(nul_bytes),
		cmocka_unit_test(includes),
		cmocka_unit_test(includes_that_end_a_process),
		cmocka_unit_test(files),
		cmocka_unit_test(every_cut),
		cmocka_unit_test(many),
	};
	return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
