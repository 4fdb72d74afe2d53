/* The commented full configuration, from the same tables that parse it. */
#include "config/load.h"

#include "limit/answer.h"

#include <inttypes.h>

enum { COLUMNS = 98, TAB = 8 };

/* `text` as comment lines behind `indent`, broken between words; `lead` stands before the first
 * line, and as much room before the others. */
static void put_comment(FILE *f, const char *indent, const char *lead, const char *text)
{
	size_t room = COLUMNS - strlen(indent) * TAB - 2 - strlen(lead);

	for (bool first = true; *text; first = false) {
		size_t n = strlen(text);
		if (n > room) {
			n = room;
			while (n > 1 && text[n] != ' ')
				n--;
		}
		fprintf(f, "%s# %*s%.*s\n", indent, (int)strlen(lead), first ? lead : "", (int)n,
			text);
		text += n;
		while (*text == ' ')
			text++;
	}
}

static void range_text(const struct option_row *o, char *out, size_t size)
{
	char a[DURATION_TEXT_MAX], b[DURATION_TEXT_MAX], words[128];
	size_t n = 0;

	out[0] = '\0';
	switch (o->kind) {
	case OPTION_INTEGER:
		snprintf(out, size, " (%" PRId64 "..%" PRId64 ")", o->min, o->max);
		break;
	case OPTION_DURATION:
		snprintf(out, size, " (%s..%s)", duration_format(o->min, a),
			duration_format(o->max, b));
		break;
	case OPTION_WORD:
		/* without what is reserved, which stands last */
		n = strcspn(o->words, "!");
		snprintf(words, sizeof words, "%.*s", (int)n, o->words);
		n = strlen(words);
		if (n && words[n - 1] == '|')
			words[n - 1] = '\0';
		snprintf(out, size, " (%s)", words);
		break;
	default:
		break;
	}
}

/* One element of a list, on a new line where there is no room left on this one. */
static void put_element(FILE *f, const char *element, size_t n, size_t *column)
{
	bool first = *column == 0, wraps = *column + n + 4 > COLUMNS - 2 * TAB;

	if (!first && wraps)
		*column = 0;
	*column += n + 4;
	fprintf(f, "%s%s\"%.*s\"", first ? "" : ",", !first && wraps ? "\n\t\t" : " ", (int)n,
		element);
}

static void put_list(FILE *f, const struct option_row *o)
{
	size_t column = 0;

	fprintf(f, "[");
	if (o->kind == OPTION_VARIABLES) {
#define X(name, type, by_default, meaning) \
	if (by_default) \
		put_element(f, #name, strlen(#name), &column);
		ANSWER_VARS(X)
#undef X
	}
	for (const char *p = o->text; *p;) {
		size_t n = strcspn(p, " ");
		put_element(f, p, n, &column);
		p += n + (p[n] == ' ');
	}
	fprintf(f, column ? " ]" : "]");
}

/* `begin` stands before what is no comment anyway. */
static void put_option(FILE *f, const struct option_row *o, const char *begin, const char *indent)
{
	const char *dot = strchr(o->name, '.');
	char text[512], range[160];

	range_text(o, range, sizeof range);
	snprintf(text, sizeof text, "%s%s%s", o->help, range,
		o->reload ? "" : "; needs a restart to change");
	put_comment(f, indent, "", text);
	fprintf(f, "%s%s%s = ", begin, indent, dot ? dot + 1 : o->name);
	if (option_is_list(o))
		put_list(f, o);
	else if (o->kind == OPTION_BOOLEAN || o->kind == OPTION_INTEGER)
		fprintf(f, "%s", o->text);
	else
		fprintf(f, "\"%s\"", o->text);
	fprintf(f, ";\n");
}

static const struct {
	const char *name, *help;
} group_help[] = {
	{ "agent", "The agent itself: where it listens, and what it answers." },
	{ "store", "Where counters are kept." },
	{ "redis", "Used when store.backend = \"redis\", checked always." },
	{ "log", "Where events go." },
	{ "admin",
		"To see and change what the agent does while it runs, over HTTP. Without this group "
		"there is no such interface: take the #~ away to have one." },
	{ "identity", "Who a client is." },
};

static void put_options(FILE *f)
{
	char group[32] = "";
	const char *begin = "";

	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option_row *o = &option_table[i];
		size_t n = strchr(o->name, '.') ? strcspn(o->name, ".") : 0;
		if (strlen(group) != n || strncmp(group, o->name, n) != 0) {
			if (group[0])
				fprintf(f, "%s};\n", begin);
			snprintf(group, sizeof group, "%.*s", (int)n, o->name);
			fprintf(f, "\n");
			for (size_t g = 0; g < sizeof group_help / sizeof *group_help; g++)
				if (strcmp(group, group_help[g].name) == 0)
					put_comment(f, "", "", group_help[g].help);
			begin = strcmp(group, "admin") == 0 ? "#~ " : "";
			fprintf(f, "%s%s: {\n", begin, group);
		} else if (i) {
			fprintf(f, "\n");
		}
		put_option(f, o, begin, n ? "\t" : "");
	}
	if (group[0])
		fprintf(f, "%s};\n", begin);
}

static const char head[] =
	"# Every setting of spoa-ratelimit, with its default. Written from the agent's own table of\n"
	"# options; a file needs only what differs. Check one with: spoa-ratelimit -c -f FILE\n"
	"#\n"
	"# Any string may hold ${NAME} or ${NAME:-default} from the environment (the default also\n"
	"# stands where NAME is empty; any other $ is just that), and a number or a boolean may be\n"
	"# written as such a string: threads = \"${THREADS:-0}\";\n"
	"# Durations are \"30us\", \"500ms\", \"10s\", \"5m\", \"1h\", \"1d\". Relative paths start from the\n"
	"# folder of the file that names them. @include \"FILE\" at the beginning of a line reads\n"
	"# another file there. With several -f, rules, allow and block are appended in order; any\n"
	"# other setting may be given once.\n"
	"\n";

static const char lists[] =
	"\n"
	"# Requests that bypass every limit: a list of groups of fields, each with a pattern or a list\n"
	"# of patterns, as `match` of a rule has them. A group without fields is an error.\n"
	"# allow = ( { ip = [ \"10.0.0.0/8\", \"::1\" ]; }, { user = \"monitor\"; } );\n"
	"\n"
	"# Requests that are always denied; this comes before `allow`.\n"
	"# block = ( { ip = \"192.0.2.0/24\"; } );\n"
	"\n"
	"# Rules, in order. All that match count; one that is exceeded is enough to deny. Settings:\n"
	"#\n";

static const char patterns[] =
	"#\n"
	"# Fields: message, ip, user, key, tier, method, path, host, cost, endpoint (METHOD:/path), and\n"
	"# any other argument of the message. In a pattern `*` is any run of characters (\\* a star), a\n"
	"# leading `!` excludes; ip takes addresses and prefixes. Paths are normalised first.\n"
	"# WINDOW is a duration of 1s to 366d, or second, minute, hour, day, week, month (a calendar\n"
	"# month, for fixed-window only). A tier whose name cannot be a setting is written\n"
	"# rate = ( { tier = \"2024-gold\"; rate = \"100/minute\"; } );\n"
	"#\n";

static const char rules[] =
	"# rules = (\n"
	"#\t{ name = \"login\";                        # whoever guesses passwords\n"
	"#\t  match = { endpoint = \"POST:/auth/*\"; };\n"
	"#\t  per = [ \"ip\" ];\n"
	"#\t  algorithm = \"fixed-window\";\n"
	"#\t  rate = [ \"5/5m\", \"10/hour\" ]; },       # both hold\n"
	"#\n"
	"#\t{ name = \"api\";\n"
	"#\t  match = { path = [ \"/api/*\", \"/v2/*\" ]; };\n"
	"#\t  per = [ \"key|user|ip\" ];               # the first of these that the request has\n"
	"#\t  algorithm = \"token-bucket\";\n"
	"#\t  rate = { default = \"5/minute\";       # a tier that is not listed: unlimited without this\n"
	"#\t           free = \"10/minute\"; premium = \"50/minute burst 100\";\n"
	"#\t           enterprise = [ \"200/minute burst 500\", \"10000/hour\" ]; };\n"
	"#\t  warn_at = 0.8; },\n"
	"#\n"
	"#\t{ name = \"everything\";                   # what it would do, before it does\n"
	"#\t  per = []; rate = \"10000/minute\"; mode = \"shadow\"; }\n"
	"# );\n";

void config_write_full(FILE *f)
{
	static const struct {
		const char *name, *text, *help;
	} rule_row[] = {
#define X(name, text, help) { #name, text, help },
		RULE_SETTINGS(X)
#undef X
	};

	fputs(head, f);
	put_options(f);
	fputs(lists, f);
	for (size_t i = 0; i < sizeof rule_row / sizeof *rule_row; i++) {
		char lead[32], text[512];
		if (!rule_row[i].help)
			continue;
		snprintf(lead, sizeof lead, "  %-12s  ", rule_row[i].name);
		snprintf(text, sizeof text, "%s%s%s%s", rule_row[i].help,
			rule_row[i].text[0] ? " (default: " : "", rule_row[i].text,
			rule_row[i].text[0] ? ")" : "");
		put_comment(f, "", lead, text);
	}
	fputs(patterns, f);
	fputs(rules, f);
}
