/* Every message names its place, the setting, what was found and what is wanted. */
#include "load_helper.h"

#include "config/address.h"
#include "limit/answer.h"

#define TEN      "ääääääääää"
#define BYTES_63 "123456789012345678901234567890123456789012345678901234567890123"

static void settings(void **state)
{
	static const struct {
		const char *title, *text, *want;
	} row[] = {
		/* ---- names ---- */
		{ "unknown at the top", "\nrule = ();\n",
			"t.cfg:2: unknown setting \"rule\"; did you mean \"rules\"?\n" },
		{ "unknown, and like nothing", "zzzzz = 1;\n",
			"t.cfg:1: unknown setting \"zzzzz\"\n" },
		{ "unknown in a group", "agent: {\n\n thread = 1; };\n",
			"t.cfg:3: unknown setting \"agent.thread\"; did you mean \"threads\"?\n" },
		{ "an abbreviation", "log: { lvl = \"info\"; };\nagent: { frame_size = 1; };\n",
			"t.cfg:1: unknown setting \"log.lvl\"; did you mean \"level\"?\n"
			"t.cfg:2: unknown setting \"agent.frame_size\"; did you mean "
			"\"max_frame_size\"?\n" },
		{ "one that lives elsewhere", "threads = 1;\n",
			"t.cfg:1: unknown setting \"threads\"; did you mean \"agent.threads\"?\n" },
		{ "one of another group, and like one of its own", "agent: { format = 1; };\n",
			"t.cfg:1: unknown setting \"agent.format\"; did you mean \"header_format\"?\n" },
		{ "one of another group", "agent: { max_keys = 1; };\n",
			"t.cfg:1: unknown setting \"agent.max_keys\"; did you mean "
			"\"store.max_keys\"?\n" },
		{ "unknown in redis, which is not used", "redis: { server = [ \"a:1\" ]; };\n",
			"t.cfg:1: unknown setting \"redis.server\"; did you mean \"servers\"?\n" },
		{ "admin for this machine alone",
			"admin: { listen = [ \"[::1]:1\", \"/a.sock\", \"localhost:1\", "
			"\"127.8.9.2:1\" ]; };\n",
			"" },
		{ "admin that other machines can reach",
			"admin: {\n listen = \"192.0.2.1:9601\"; };\n",
			"t.cfg:2: admin.listen = \"192.0.2.1:9601\": other machines can reach it: set "
			"admin.token, or listen on 127.0.0.1, [::1] or a UNIX socket\n" },
		{ "admin that others can reach at its second address",
			"admin: { listen = [ \"127.0.0.1:9601\", \"192.0.2.1:9601\" ]; };\n",
			"t.cfg:1: admin.listen = \"192.0.2.1:9601\": other machines can reach it: set "
			"admin.token, or listen on 127.0.0.1, [::1] or a UNIX socket\n" },
		{ "admin on all addresses", "admin: { listen = \":9601\"; };\n",
			"t.cfg:1: admin.listen = \":9601\": other machines can reach it: set "
			"admin.token, or listen on 127.0.0.1, [::1] or a UNIX socket\n" },
		{ "admin on all addresses, with a token",
			"admin: { listen = \":9601\"; token = \"0123456789abcdef\"; };\n", "" },
		{ "admin where the agent listens",
			"agent: { listen = [ \"127.0.0.1:9600\", \"/run/a\" ]; };\n"
			"admin: { listen = [ \"127.0.0.1:9600\", \"/run/a\" ]; };\n",
			"t.cfg:2: admin.listen = \"127.0.0.1:9600\": agent.listen has \"127.0.0.1:9600\": "
			"want another port, or path\n"
			"t.cfg:2: admin.listen = \"/run/a\": agent.listen has \"/run/a\": want another "
			"port, or path\n" },
		{ "admin where the agent listens at all addresses",
			"agent: { listen = \":9600\"; };\nadmin: { listen = \"127.0.0.1:9600\"; };\n",
			"t.cfg:2: admin.listen = \"127.0.0.1:9600\": agent.listen has \":9600\": want "
			"another port, or path\n" },
		{ "admin where the agent listens at all addresses of both families",
			"agent: { listen = \"[::]:9600\"; };\nadmin: { listen = [ \"127.0.0.1:9600\", "
			"\"127.0.0.1:9601\" ]; };\n",
			"t.cfg:2: admin.listen = \"127.0.0.1:9600\": agent.listen has \"[::]:9600\": want "
			"another port, or path\n" },
		{ "admin at another port, address or family",
			"agent: { listen = [ \"127.0.0.1:1\", \"0.0.0.0:2\", \"127.0.0.1:0\" ]; };\n"
			"admin: { listen = [ \"127.0.0.2:1\", \"[::1]:2\", \"127.0.0.1:0\" ]; };\n",
			"" },
		{ "patterns of a field that is secret, wherever that stands",
			"block = ( { ip = \"10.77.77.77/8\"; }, { path = \"/hunter//2\"; } );\n"
			"rules = ( { name = \"r\"; per = []; rate = \"1/day\"; match = { user = \"\"; }; } "
			");\nidentity: { secret = [ \"ip\", \"${FIELD:-path}\" ]; };\n",
			"t.cfg:1: warning: block.1.ip: a pattern is not as this field wants it; which and "
			"why is not shown, as the field is secret, or may be (identity.secret)\n"
			"t.cfg:1: block.2.path: a pattern is not as this field wants it; which and why is "
			"not shown, as the field is secret, or may be (identity.secret)\n"
			"t.cfg:2: rule \"r\": match.user: an empty pattern can never match: an empty "
			"field counts as absent\n" },
		{ "of one that tells of another",
			"block = ( { endpoint = \"GET:/hunter//2\"; } );\nidentity: { secret = \"path\"; "
			"};\n",
			"t.cfg:1: block.1.endpoint: a pattern is not as this field wants it; which and why "
			"is not shown, as the field is secret, or may be (identity.secret)\n" },
		{ "of any where it cannot be told which are secret",
			"block = ( { host = \"hunter2:80\"; } );\n@include \"no.cfg\"\n",
			"t.cfg:2: @include \"no.cfg\": no.cfg cannot be opened: No such file or directory\n"
			"t.cfg:1: block.1.host: a pattern is not as this field wants it; which and why is "
			"not shown, as the field is secret, or may be (identity.secret)\n" },
		{ "or where the names are one text",
			"block = ( { host = \"hunter2:80\"; } );\nidentity: { secret = \"user,host\"; };\n",
			"t.cfg:1: block.1.host: a pattern is not as this field wants it; which and why is "
			"not shown, as the field is secret, or may be (identity.secret)\n"
			"t.cfg:2: identity.secret = \"user,host\": want the name of one field\n" },
		{ "and where a name is not known",
			"block = ( { host = \"hunter2:80\"; } );\nidentity: { secret = [ \"host\", "
			"\"${NOT_SET_X}\" ]; };\n",
			"t.cfg:1: block.1.host: a pattern is not as this field wants it; which and why is "
			"not shown, as the field is secret, or may be (identity.secret)\n"
			"t.cfg:2: identity.secret: the environment variable NOT_SET_X is not set "
			"(${NOT_SET_X:-default} gives a default)\n" },
		{ "a short token", "admin: { token = \"0123456789abcde\"; };\n",
			"t.cfg:1: warning: admin.token is short: a guess may hit it; `openssl rand -hex "
			"32` makes a good one\n" },
		{ "a token with a blank", "admin: { token = \"0123 56789abcdef\"; };\n",
			"t.cfg:1: admin.token: want visible ASCII characters without blanks: "
			"`openssl rand -hex 32` makes a good one\n" },
		/* ---- types ---- */
		{ "a scalar for a group", "agent = 5;\n",
			"t.cfg:1: agent: found an integer, want a group: agent: { … };\n" },
		{ "a group for a scalar", "agent: { threads = { a = 1; }; };\n",
			"t.cfg:1: agent.threads: found a group { }, want a string, a number or a boolean\n" },
		{ "a list for a scalar", "agent: { threads = [ 1, 2 ]; };\n",
			"t.cfg:1: agent.threads: found a list, want a single value\n" },
		{ "text for a number", "agent: { threads = \"many\"; };\n",
			"t.cfg:1: agent.threads = \"many\": want an integer 0..64\n" },
		{ "a fraction for an integer", "agent: { threads = 1.5; };\n",
			"t.cfg:1: agent.threads = 1.5: want an integer 0..64\n" },
		{ "a boolean for a number", "agent: { threads = true; };\n",
			"t.cfg:1: agent.threads = true: want an integer 0..64\n" },
		{ "a number for a boolean", "enabled = 1;\n",
			"t.cfg:1: enabled = 1: want true or false\n" },
		{ "an integer for a string", "redis: { prefix = 5; };\n",
			"t.cfg:1: redis.prefix = 5: want a string of 0 to 63 bytes without control "
			"characters\n" },
		{ "numbers and booleans as strings",
			"enabled = \"false\"; agent: { threads = \"8\"; };\n", "" },
		{ "what people put into the environment",
			"enabled = \"${NO_SUCH_VARIABLE:-off}\";\n", "" },
		{ "an empty string is no boolean", "enabled = \"${NO_SUCH_VARIABLE:-}\";\n",
			"t.cfg:1: enabled = \"\": want true or false\n" },
		{ "a variable that is not set", "\nenabled = \"${NO_SUCH_VARIABLE}\";\n",
			"t.cfg:2: enabled: the environment variable NO_SUCH_VARIABLE is not set "
			"(${NO_SUCH_VARIABLE:-default} gives a default)\n" },
		{ "a variable as in a shell", "redis: {\n password = \"$PASSWORD\"; };\n",
			"t.cfg:2: warning: redis.password: begins with \"$\" and is taken as it stands: "
			"to take it from the environment, write ${NAME}\n" },
		{ "and where that is refused anyway", "enabled = \"$ENABLED\";\n",
			"t.cfg:1: warning: enabled: begins with \"$\" and is taken as it stands: to take "
			"it from the environment, write ${NAME}\n"
			"t.cfg:1: enabled = \"$ENABLED\": want true or false\n" },
		/* ---- ranges ---- */
		{ "below", "agent: { threads = -1; };\n",
			"t.cfg:1: agent.threads = -1: want 0..64\n" },
		{ "above", "agent: { threads = 500; };\n",
			"t.cfg:1: agent.threads = 500: want 0..64\n" },
		{ "connections", "agent: { max_connections = 0; };\n",
			"t.cfg:1: agent.max_connections = 0: want 1..1000000\n" },
		{ "frame size", "agent: { max_frame_size = 255; };\n",
			"t.cfg:1: agent.max_frame_size = 255: want 256..1048576\n" },
		{ "prefixes of addresses", "identity: { ipv4_prefix = 0; ipv6_prefix = 129; };\n",
			"t.cfg:1: identity.ipv4_prefix = 0: want 1..32\n"
			"t.cfg:1: identity.ipv6_prefix = 129: want 1..128\n" },
		{ "the ends of ranges",
			"agent: { threads = 64; max_connections = 1000000; max_frame_size = 256; drain = "
			"\"1h\"; };\n"
			"store: { max_keys = 1; state_interval = \"0s\"; };\n"
			"identity: { ipv4_prefix = 1; ipv6_prefix = 128; };\n",
			"" },
		/* ---- durations ---- */
		{ "a bare number says nothing", "agent: { drain = 2; };\n",
			"t.cfg:1: agent.drain = 2: want a duration with its unit: \"2s\" or \"2ms\"\n" },
		{ "in a string neither", "agent: { drain = \"2\"; };\n",
			"t.cfg:1: agent.drain = \"2\": want a duration from \"0s\" to \"1h\" (units: "
			"us, ms, s, m, h, d)\n" },
		{ "too long",
			"agent: { drain = \"61m\"; }; store: { state_interval = \"25h\"; };\n",
			"t.cfg:1: agent.drain = \"61m\": want a duration from \"0s\" to \"1h\" (units: "
			"us, ms, s, m, h, d)\n"
			"t.cfg:1: store.state_interval = \"25h\": want a duration from \"0s\" to \"1d\" "
			"(units: us, ms, s, m, h, d)\n" },
		{ "microseconds", "agent: { busy_poll = \"1000us\"; };\n", "" },
		{ "off", "agent: { busy_poll = \"0s\"; };\n", "" },
		{ "too long a poll", "agent: { busy_poll = \"1001us\"; };\n",
			"t.cfg:1: agent.busy_poll = \"1001us\": want a duration from \"0s\" to "
			"\"1ms\" (units: us, ms, s, m, h, d)\n" },
		/* ---- words ---- */
		{ "a word that is near another", "log: { level = \"warn\"; format = \"jsn\"; };\n",
			"t.cfg:1: log.level = \"warn\": want \"debug\", \"info\", \"warning\" or "
			"\"error\"; did you mean \"warning\"?\n"
			"t.cfg:1: log.format = \"jsn\": want \"text\" or \"json\"; did you mean "
			"\"json\"?\n" },
		{ "a backend that nobody knows", "store: { backend = \"memcached\"; };\n",
			"t.cfg:1: store.backend = \"memcached\": want \"memory\" or \"redis\"\n" },
		{ "a draft that nobody knows", "agent: { header_format = \"ietf-10\"; };\n",
			"t.cfg:1: agent.header_format = \"ietf-10\": want \"ietf-11\"; did you mean "
			"\"ietf-11\"?\n" },
		{ "a log target", "log: { target = \"stdout\"; };\n",
			"t.cfg:1: log.target = \"stdout\": want \"stderr\", \"syslog\", \"journal\" or "
			"an absolute path of at most 255 bytes\n" },
		{ "a tier's name that is none", "identity: { default_tier = \"\"; };\n",
			"t.cfg:1: identity.default_tier = \"\": want a string of 1 to 63 bytes without "
			"control characters\n" },
		{ "the longest text", "redis: { prefix = \"" BYTES_63 "\"; };\n", "" },
		{ "a text that is too long", "redis: { prefix = \"" BYTES_63 "x\"; };\n",
			"t.cfg:1: redis.prefix = \"" BYTES_63 "x\": want a string of 0 to 63 bytes "
			"without control characters\n" },
		{ "a control character", "redis: { prefix = \"a\x7f\"; };\n",
			"t.cfg:1: redis.prefix = \"a?\": want a string of 0 to 63 bytes without control "
			"characters\n" },
		/* ---- lists ---- */
		{ "variables", "agent: { variables = [ \"deny\",\n \"resaon\", \"token\" ]; };\n",
			"t.cfg:2: agent.variables: unknown variable \"resaon\"; did you mean "
			"\"reason\"?\n"
			"t.cfg:2: agent.variables: \"token\" is reserved for a later version: it cannot "
			"be chosen yet\n" },
		{ "no variables", "agent: { variables = []; };\n",
			"t.cfg:1: agent.variables: 0 elements: want 1..64\n" },
		{ "a variable twice does no harm",
			"agent: { variables = [ \"deny\", \"deny\" ]; };\n", "" },
		{ "prefixes that may connect",
			"agent: { allow_from = [ \"10.0.0.0/8\", \"::1\", \"10.0.0.0/33\", \"x\" ]; };\n",
			"*t.cfg:1: agent.allow_from = \"10.0.0.0/33\": want an address or a prefix like "
			"\"10.0.0.0/8\"" },
		{ "secret fields", "identity: { secret = [ \"\" ]; };\n",
			"t.cfg:1: identity.secret = \"\": want a string of 1 to 63 bytes without control "
			"characters\n" },
		{ "a mode as an integer is ambiguous", "agent: { socket_mode = 0660; };\n",
			"t.cfg:1: agent.socket_mode = 660: want an octal mode as a string, like "
			"\"0660\"\n" },
		{ "a mode that is none", "agent: { socket_mode = \"0680\"; };\n",
			"t.cfg:1: agent.socket_mode = \"0680\": want an octal mode as a string, like "
			"\"0660\"\n" },
		{ "a mode with more than permissions", "agent: { socket_mode = \"4755\"; };\n",
			"t.cfg:1: agent.socket_mode = \"4755\": want an octal mode as a string, like "
			"\"0660\"\n" },
		/* ---- listen ---- */
		{ "nowhere to listen", "agent: { listen = []; };\n",
			"t.cfg:1: agent.listen: 0 elements: want 1..16\n" },
		{ "more addresses than there is room for",
			"agent: { listen = [ \":1\", \":2\", \":3\", \":4\", \":5\", \":6\", "
			"\":7\", \":8\", \":9\", \":10\", \":11\", \":12\", \":13\", \":14\", "
			"\":15\", \":16\", \":17\" ]; };\n",
			"t.cfg:1: agent.listen: 17 elements: want 1..16\n" },
		{ "an address twice, written differently",
			"agent: { listen = [ \"127.0.0.1:9600\", \"127.0.0.1:09600\",\n"
			"\"[::1]:9600\", \"[0::1]:9600\", \"[::ffff:127.0.0.1]:9600\" ]; };\n",
			"t.cfg:1: agent.listen = \"127.0.0.1:09600\": want another port: "
			"\"127.0.0.1:9600\" before it has this one\n"
			"t.cfg:2: agent.listen = \"[0::1]:9600\": want another port: \"[::1]:9600\" "
			"before it has this one\n"
			"t.cfg:2: agent.listen = \"[::ffff:127.0.0.1]:9600\": want another port: "
			"\"127.0.0.1:9600\" before it has this one\n" },
		{ "all of IPv4, and one of it",
			"agent: { listen = [ \"127.0.0.1:9600\", \":9600\" ]; };\n"
			"admin: { listen = [ \"127.0.0.1:1\", \"127.0.0.1:2\", \"0.0.0.0:2\" ]; "
			"token = \"0123456789abcdef\"; };\n",
			"t.cfg:1: agent.listen = \":9600\": want another port: \"127.0.0.1:9600\" "
			"before it has this one\n"
			"t.cfg:2: admin.listen = \"0.0.0.0:2\": want another port: \"127.0.0.1:2\" "
			"before it has this one\n" },
		{ "all of IPv6, and of IPv4 what may be left to it",
			"agent: { listen = [ \"[::]:1\", \":1\", \"[::]:2\", \"127.0.0.1:2\", "
			"\"127.0.0.1:0\", \"0.0.0.0:0\" ]; };\n",
			"" },
		{ "servers may be the same in other words",
			"redis: { mode = \"sentinel\"; servers = [ \"127.0.0.1:1\", "
			"\"127.0.0.1:01\" ]; };\n",
			"" },
		{ "a long value is cut between characters",
			"log: { level = \"x" TEN TEN TEN TEN TEN "\"; };\n",
			"t.cfg:1: log.level = \"x" TEN TEN TEN
			"äääääääää…\": want \"debug\", \"info\", "
			"\"warning\" or \"error\"\n" },
		{ "an address twice", "agent: { listen = [ \":9600\",\n\":9600\" ]; };\n",
			"t.cfg:2: agent.listen = \":9600\": want each address once\n" },
		{ "one address needs no list", "agent: { listen = \"127.0.0.1:9600\"; };\n", "" },
		{ "several wrong ones, each named",
			"agent: { listen = [ \"x\", \"1.2.3:80\" ]; };\n",
			"t.cfg:1: agent.listen = \"x\": want host:port, [v6]:port, or an absolute path "
			"for a UNIX socket\n"
			"t.cfg:1: agent.listen = \"1.2.3:80\": want an IPv4 address or a host's name\n" },
		/* ---- secrets ---- */
		{ "a password is never shown", "redis: { password = 12345; };\n",
			"t.cfg:1: redis.password: want a string of 0 to 255 bytes without control "
			"characters\n" },
		/* ---- all of them, not only the first ---- */
		{ "all problems in one run",
			"enabled = 3;\nagent: {\n threads = 99;\n thread = 1;\n drain = 5;\n};\nfoo = 1;\n"
			"rules = ( { name = \"a\"; per = []; },\n { per = []; rate = \"1/minute\"; } );\n",
			"t.cfg:1: enabled = 3: want true or false\n"
			"t.cfg:3: agent.threads = 99: want 0..64\n"
			"t.cfg:4: unknown setting \"agent.thread\"; did you mean \"threads\"?\n"
			"t.cfg:5: agent.drain = 5: want a duration with its unit: \"5s\" or \"5ms\"\n"
			"t.cfg:7: unknown setting \"foo\"\n"
			"t.cfg:8: rule \"a\": has no rate: want rate = \"10/minute\", or \"unlimited\"\n"
			"t.cfg:9: rule 2: has no name: want name = \"…\"\n" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		if (row[i].want[0] != '*') {
			drop(load_text(row[i].title, row[i].text, row[i].want));
			continue;
		}
		struct problems p = { 0 };
		assert_null(config_load_text(
			"t.cfg", row[i].text, strlen(row[i].text), &test_key, 1, &p));
		char *got = problems_text(&p);
		if (strncmp(got, row[i].want + 1, strlen(row[i].want + 1)) != 0)
			fail_msg("%s: %s", row[i].title, got);
		assert_int_equal(p.n, 2);
		free(got);
		problems_free(&p);
	}
}

static void addresses(void **state)
{
	char path[160] = "/";
	const struct {
		const char *text, *host, *port; /* host NULL: refused, port: how `why` begins */
	} row[] = {
		{ "127.0.0.1:9600", "127.0.0.1", "9600" },
		{ "[::1]:9600", "::1", "9600" },
		{ "[fe80::1%eth0]:9600", "fe80::1%eth0", "9600" },
		{ ":9600", "", "9600" },
		{ "*:9600", "", "9600" },
		{ "[::]:80", "::", "80" },
		{ "localhost:09600", "localhost", "9600" },
		{ "agent-1.example_x:1", "agent-1.example_x", "1" },
		{ "127.0.0.1:0", "127.0.0.1", "0" },
		{ "127.0.0.1:65535", "127.0.0.1", "65535" },
		{ "", NULL, "want host:port" },
		{ "9600", NULL, "want host:port" },
		{ "localhost", NULL, "want host:port" },
		{ "relative/path", NULL, "want host:port" },
		{ "a b:80", NULL, "want host:port" },
		{ "::1:9600", NULL, "want an IPv6 address in brackets" },
		{ "::1", NULL, "want an IPv6 address in brackets" },
		{ "[::1]", NULL, "want host:port" },
		{ "[::1", NULL, "want host:port" },
		{ "[]:1", NULL, "want an IPv6 address between" },
		{ "[127.0.0.1]:1", NULL, "want an IPv6 address between" },
		{ "[x]:1", NULL, "want an IPv6 address between" },
		{ "1.2.3.400:1", NULL, "want an IPv4 address" },
		{ "127.0.0.1:", NULL, "want a port" },
		{ "tcp://127.0.0.1:9600", NULL, "want it without \"tcp://\"" },
		{ "127.0.0.1:65536", NULL, "want a port" },
		{ "127.0.0.1:-1", NULL, "want a port" },
		{ "127.0.0.1:+1", NULL, "want a port" },
		{ "127.0.0.1:80x", NULL, "want a port" },
		{ "127.0.0.1:http", NULL, "want a port" },
		{ path, NULL, "want a path of at most 107 bytes" },
	};
	(void)state;
	memset(path + 1, 'x', 107); /* one more than sun_path holds with its NUL */
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct listen_address a;
		char why[160] = "";
		bool good = listen_parse(row[i].text, &a, why, sizeof why);
		if (row[i].host ? !good || strcmp(a.host, row[i].host) != 0 ||
					  strcmp(a.port, row[i].port) != 0 || a.is_unix
				: good || strncmp(why, row[i].port, strlen(row[i].port)) != 0)
			fail_msg("\"%s\": %s %s %s", row[i].text, a.host, a.port, why);
	}
	path[107] = '\0';
	struct listen_address a;
	char why[160];
	assert_true(listen_parse(path, &a, why, sizeof why));
	assert_true(a.is_unix);
	assert_string_equal(a.text, path);
}

static void defaults(void **state)
{
	(void)state;
	unsetenv("REDIS_PASSWORD");
	struct snapshot *s = load_text("nothing", "", "");
	const struct settings *v = &s->settings;
	uint32_t variables = 0;
#define X(name, type, by_default, meaning) variables |= (by_default ? 1u : 0u) << ANSWER_##name;
	ANSWER_VARS(X)
#undef X
	assert_int_equal(v->agent.listen_n, 1);
	assert_string_equal(v->agent.listen[0].text, "127.0.0.1:9600");
	assert_string_equal(v->agent.listen[0].host, "127.0.0.1");
	assert_string_equal(v->agent.listen[0].port, "9600");
	assert_int_equal(v->agent.threads, 0);
	assert_int_equal(v->agent.max_connections, 1024);
	assert_int_equal(v->agent.max_frame_size, 16380);
	assert_null(v->agent.allow_from);
	assert_int_equal(v->agent.socket_mode, 0660);
	assert_string_equal(v->agent.socket_owner, "");
	assert_int_equal(v->agent.drain, 2 * USEC_PER_SEC);
	assert_int_equal(v->agent.variables, variables);
	assert_int_equal(v->store.backend, BACKEND_MEMORY);
	assert_int_equal(v->store.max_keys, 1000000);
	assert_string_equal(v->store.state_file, "");
	assert_int_equal(v->store.state_interval, 60 * USEC_PER_SEC);
	assert_int_equal(v->log.target, LOG_TARGET_STDERR);
	assert_int_equal(v->log.format, LOG_FORMAT_TEXT);
	assert_int_equal(v->log.level, LOG_LEVEL_INFO);
	assert_true(s->policy->enabled);
	assert_int_equal(s->policy->ipv4_prefix, 32);
	assert_int_equal(s->policy->ipv6_prefix, 64);
	assert_int_equal(s->policy->secret, 1ull << FIELD_KEY);
	assert_int_equal(s->policy->rule_n, 0);
	assert_int_equal(s->policy->tier_n, 1);
	assert_string_equal(s->policy->tier[s->policy->default_tier].name, "anonymous");
	assert_null(s->policy->tier_map);
	assert_int_equal(s->generation, 7);
	assert_string_equal(value_of(s, "redis.password"), "(not set)");
	drop(s);
}

static void values(void **state)
{
	(void)state;
	setenv("REDIS_PASSWORD", "hunter2", 1);
	struct snapshot *s = load_text("many values",
		"agent: { listen = [ \"[::1]:1\", \"/run/x.sock\", \"*:2\" ]; allow_from = [ "
		"\"10.0.0.0/8\" ];\n"
		" socket_mode = \"0600\"; socket_owner = \"haproxy\"; variables = [ \"deny\", "
		"\"ratelimit\" ]; };\n"
		"store: { state_file = \"/s\"; };\n"
		"log: { target = \"/var/log/x\"; format = \"json\"; level = \"debug\"; };\n"
		"identity: { secret = [ \"user\", \"token_x\" ]; default_tier = \"free\"; };\n"
		"redis: { hash_secret = \"topsecret\"; timeout = \"100ms\"; servers = [ \"/r.sock\" ]; };\n",
		"");
	const struct settings *v = &s->settings;
	struct addr in, out;
	assert_int_equal(v->agent.listen_n, 3);
	assert_string_equal(v->agent.listen[0].host, "::1");
	assert_true(v->agent.listen[1].is_unix);
	assert_string_equal(v->agent.listen[2].host, "");
	assert_true(addr_parse(STR("10.1.2.3"), &in) && addr_parse(STR("11.1.2.3"), &out));
	assert_true(cidr_set_has(v->agent.allow_from, &in));
	assert_false(cidr_set_has(v->agent.allow_from, &out));
	assert_int_equal(v->agent.socket_mode, 0600);
	assert_string_equal(v->agent.socket_owner, "haproxy");
	assert_int_equal(v->agent.variables, 1u << ANSWER_deny | 1u << ANSWER_ratelimit);
	assert_string_equal(v->store.state_file, "/s");
	assert_int_equal(v->log.target, LOG_TARGET_FILE);
	assert_string_equal(v->log.path, "/var/log/x");
	assert_int_equal(v->log.format, LOG_FORMAT_JSON);
	assert_int_equal(v->log.level, LOG_LEVEL_DEBUG);
	int slot = layout_find_arg(&s->policy->layout, STR("token_x"));
	assert_true(slot >= 0);
	assert_int_equal(s->policy->secret, 1ull << FIELD_KEY | 1ull << FIELD_USER | 1ull << slot);
	assert_string_equal(s->policy->tier[s->policy->default_tier].name, "free");
	assert_string_equal(value_of(s, "redis.password"), "(set)");
	assert_string_equal(value_of(s, "redis.hash_secret"), "(set)");
	assert_string_equal(value_of(s, "redis.timeout"), "100ms");
	for (size_t i = 0; i < s->line_n; i++) {
		assert_null(strstr(s->line[i], "hunter2"));
		assert_null(strstr(s->line[i], "topsecret"));
		if (i)
			assert_true(strcmp(s->line[i - 1], s->line[i]) <= 0);
	}
	drop(s);
	unsetenv("REDIS_PASSWORD");
}

static void booleans_as_strings(void **state)
{
	static const struct {
		const char *text;
		bool want;
	} row[] = { { "true", true }, { "on", true }, { "yes", true }, { "1", true },
		{ "True", true }, { "ON", true }, { "false", false }, { "off", false },
		{ "no", false }, { "0", false }, { "FALSE", false }, { "No", false } };
	char text[64];
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		snprintf(text, sizeof text, "enabled = \"%s\";\n", row[i].text);
		struct snapshot *s = load_text(row[i].text, text, "");
		assert_int_equal(s->policy->enabled, row[i].want);
		drop(s);
	}
}

/* What no file has, and who mends it has to know where it comes from. */
static void defaults_of_the_environment(void **state)
{
	(void)state;
	setenv("REDIS_PASSWORD", "hunter\n2", 1);
	load_text("a password", "enabled = true;\n",
		"t.cfg: redis.password (REDIS_PASSWORD in the environment): want a string of 0 to 255 "
		"bytes without control characters\n");
	unsetenv("REDIS_PASSWORD");
	setenv("RATELIMIT_ADMIN_TOKEN", "hunter 2", 1);
	load_text("a token", "enabled = true;\nadmin: { };\n",
		"t.cfg:2: admin.token (RATELIMIT_ADMIN_TOKEN in the environment): want visible ASCII "
		"characters without blanks: `openssl rand -hex 32` makes a good one\n");
	setenv("RATELIMIT_ADMIN_TOKEN", "hunter2", 1);
	drop(load_text("a short token", "enabled = true;\nadmin: { };\n",
		"t.cfg:2: warning: admin.token (RATELIMIT_ADMIN_TOKEN in the environment) is short: a "
		"guess may hit it; `openssl rand -hex 32` makes a good one\n"));
	unsetenv("RATELIMIT_ADMIN_TOKEN");
	load_text("an address", "agent: { listen = \":9601\"; };\nadmin: { };\n",
		"t.cfg:2: admin.listen = \"127.0.0.1:9601\": agent.listen has \":9601\": want another "
		"port, or path\n");
}

static void relative_paths(void **state)
{
	(void)state;
	mkdir("conf", 0700);
	mkdir("conf/parts", 0700);
	put_file("conf/main.cfg",
		"store: { state_file = \"state\"; };\n@include \"parts/identity.cfg\"\n");
	put_file("conf/parts/identity.cfg", "identity: { tiers_file = \"../tiers.map\"; };\n");
	put_file("conf/tiers.map", "");
	struct snapshot *s = load_file("conf/main.cfg", "");
	assert_string_equal(s->settings.store.state_file, "conf/state");
	drop(s);
	unlink("conf/tiers.map");
	drop(load_file("conf/main.cfg",
		"conf/parts/identity.cfg:1: identity.tiers_file: conf/parts/../tiers.map cannot be "
		"opened: No such file or directory\n"));
}

static void paths_start_from_their_file(void **state)
{
	static const struct {
		const char *path, *want;
	} row[] = { { "state", "etc/state" }, { "../state", "etc/../state" },
		{ "/s/state", "/s/state" }, { "", "" } };
	char text[128];
	(void)state;
	mkdir("etc", 0700);
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		snprintf(text, sizeof text, "store: { state_file = \"%s\"; };\n", row[i].path);
		put_file("etc/a.cfg", text);
		struct snapshot *s = load_file("etc/a.cfg", "");
		assert_string_equal(s->settings.store.state_file, row[i].want);
		drop(s);
	}
}

static void several_files(void **state)
{
	static const char *const files[] = { "one.cfg", "two.cfg" };
	(void)state;
	put_file("one.cfg", "agent: { threads = 1; };\nallow = ( { user = \"a\"; } );\n"
			    "rules = ( { name = \"r1\"; per = []; rate = \"1/minute\"; } );\n");
	put_file("two.cfg", "agent: { drain = \"3s\"; };\nallow = ( { user = \"b\"; } );\n"
			    "block = { ip = \"192.0.2.1\"; };\n"
			    "rules = ( { name = \"r2\"; per = []; rate = \"2/minute\"; } );\n");
	struct snapshot *s = load_files(files, 2, "");
	assert_int_equal(s->settings.agent.threads, 1);
	assert_int_equal(s->settings.agent.drain, 3 * USEC_PER_SEC);
	assert_int_equal(s->policy->allow_n, 2);
	assert_int_equal(s->policy->block_n, 1);
	assert_int_equal(s->policy->rule_n, 2);
	assert_string_equal(s->policy->rule[0].name, "r1");
	assert_string_equal(s->policy->rule[1].name, "r2");
	assert_string_equal(value_of(s, "allow.2.user"), "b");
	drop(s);

	put_file("two.cfg", "enabled = true;\nagent: {\n threads = 2; };\n"
			    "rules = ( { name = \"r1\"; per = []; rate = \"2/minute\"; } );\n");
	drop(load_files(files, 2,
		"two.cfg:3: agent.threads is set twice: first in one.cfg:1\n"
		"two.cfg:4: rule \"r1\": there is a rule of this name in one.cfg:3\n"));

	/* the grammar of one file does not hide what is wrong in another */
	put_file("one.cfg", "agent: { threads 1; };\n");
	put_file("two.cfg", "agent: {\n threads = 200; };\n");
	drop(load_files(files, 2,
		"one.cfg:1: want '=' after threads, found a number\n"
		"two.cfg:2: agent.threads = 200: want 0..64\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(settings),
		cmocka_unit_test(addresses),
		cmocka_unit_test(defaults),
		cmocka_unit_test(values),
		cmocka_unit_test(booleans_as_strings),
		cmocka_unit_test(defaults_of_the_environment),
		cmocka_unit_test(relative_paths),
		cmocka_unit_test(paths_start_from_their_file),
		cmocka_unit_test(several_files),
	};
	return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
