/* The command line: what may be said, in two tables, from which come its reading, the help, and a
 * test that the completions and the manual have the same. */
#ifndef CTL_OPTIONS_H
#define CTL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ratelimitctl's exit status. */
enum {
	CTL_DONE = 0,
	CTL_REFUSED = 1, /* the agent says no, or there is no such thing */
	CTL_USAGE = 2,
	CTL_AWAY = 3, /* no agent answers */
};

/* X(NAME, long name, letter or 0, what it takes or NULL, help) */
#define CTL_OPTIONS(X) \
	X(HELP, "help", 'h', NULL, "this help; with a command, its own") \
	X(VERSION, "version", 'v', NULL, "as the command version") \
	X(JSON, "json", 'j', NULL, "print what the agent says, as JSON") \
	X(SOCKET, "socket", 's', "PATH", "the agent's admin socket") \
	X(URL, "url", 'u', "URL", "the agent's admin address, like http://127.0.0.1:9601") \
	X(TOKEN_FILE, "token-file", 't', "FILE", \
		"holds the token; else $RATELIMIT_ADMIN_TOKEN does") \
	X(FILE, "file", 'f', "FILE", "the agent's configuration; may be given several times") \
	X(WATCH, "watch", 'w', NULL, "show it anew every two seconds") \
	X(BY, "by", 0, "WHAT", "denied (if not given), checked, cost or shadow") \
	X(RULE, "rule", 'r', "NAME", "of this rule") \
	X(NUMBER, "number", 'n', "N", "so many lines") \
	X(ALL, "all", 'a', NULL, "of all rules") \
	X(TIER, "tier", 0, "NAME", "is on this tier") \
	X(RATE, "rate", 0, "RULE=RATE", "has this rate in that rule; may be given several times") \
	X(BYPASS, "bypass", 0, NULL, "is not limited at all") \
	X(BLOCK, "block", 0, NULL, "is denied, always") \
	X(FOR, "for", 0, "TIME", "ends after this time: 90s, 10m, 8h, 2d") \
	X(UNTIL, "until", 0, "WHEN", \
		"ends then: 18:30, 2026-11-30, \"2026-11-30 18:00\", or Unix seconds") \
	X(REASON, "reason", 0, "TEXT", "why, for the audit log and whoever looks at it later") \
	X(SHADOW, "shadow", 0, NULL, "count and report, but deny nobody") \
	X(ENFORCE, "enforce", 0, NULL, "whatever the configuration says") \
	X(TYPES, "types", 0, "TYPE,...", \
		"only these: denied, shadow, warning, reload, store, change, ban") \
	X(CAPTURES, "captures", 0, "FIELD,...", \
		"what HAProxy's log has in braces, like user,key; - passes one over")

enum ctl_option {
#define X(NAME, name, letter, takes, help) CTL_##NAME,
	CTL_OPTIONS(X)
#undef X
		CTL_OPTION_COUNT
};

#define CTL_BIT(NAME) (1u << CTL_##NAME)
#define CTL_ANYWHERE  (CTL_BIT(HELP) | CTL_BIT(JSON))
#define CTL_AGENT \
	(CTL_ANYWHERE | CTL_BIT(SOCKET) | CTL_BIT(URL) | CTL_BIT(TOKEN_FILE) | CTL_BIT(FILE))
#define CTL_ENDS   (CTL_BIT(FOR) | CTL_BIT(UNTIL))
#define CTL_CHANGE (CTL_AGENT | CTL_BIT(REASON))

/* X(name, handler, its options, the other words, least and most of them, help) */
#define CTL_COMMANDS(X) \
	X("status", status, CTL_AGENT, "", 0, 0, "what the agent does now, and how much of it") \
	X("rules", rules, CTL_AGENT, "[NAME]", 0, 1, \
		"all rules with their counts, or one of them") \
	X("top", top, CTL_AGENT | CTL_BIT(WATCH) | CTL_BIT(BY) | CTL_BIT(RULE) | CTL_BIT(NUMBER), \
		"", 0, 0, "who is denied most, checked most, or costs most") \
	X("explain", explain, CTL_AGENT, "FIELD=VALUE...", 1, 64, \
		"what a request would get, and why; consumes nothing; with -f for a fresh client, " \
		"without an agent") \
	X("reset", reset, CTL_CHANGE | CTL_BIT(RULE) | CTL_BIT(ALL), "[FIELD=VALUE...]", 0, 64, \
		"let counters begin anew: of one client, of a rule, or all") \
	X("override", override, \
		CTL_CHANGE | CTL_ENDS | CTL_BIT(TIER) | CTL_BIT(RATE) | CTL_BIT(BYPASS) | \
			CTL_BIT(BLOCK), \
		"add|list|remove [user=NAME | key=- | ip=ADDRESS]", 1, 2, \
		"for one client: another tier, other rates, bypass or block") \
	X("ban", ban, CTL_CHANGE, "list|lift [ID]", 1, 2, \
		"whom penalties have banned; let one of them in again") \
	X("enable", enable, CTL_CHANGE | CTL_ENDS | CTL_BIT(SHADOW) | CTL_BIT(ENFORCE), "[RULE]", \
		0, 1, "take the emergency switch back, of all rules or of one") \
	X("disable", disable, CTL_CHANGE | CTL_ENDS | CTL_BIT(SHADOW), "[RULE]", 0, 1, \
		"the emergency switch: limit nobody, by any rule or by one") \
	X("reload", reload, CTL_AGENT, "", 0, 0, "let the agent read its configuration again") \
	X("events", events, CTL_AGENT | CTL_BIT(TYPES), "", 0, 0, \
		"denials, warnings, reloads, changes, as they happen") \
	X("replay", replay, CTL_ANYWHERE | CTL_BIT(FILE) | CTL_BIT(NUMBER) | CTL_BIT(CAPTURES), \
		"[LOG...]", 0, 64, \
		"what a configuration would have done with the requests of a log; needs no agent") \
	X("check-config", check_config, CTL_ANYWHERE | CTL_BIT(FILE), "", 0, 0, \
		"check a configuration; needs no agent") \
	X("version", version, CTL_AGENT, "", 0, 0, "of this program, and of the agent")

enum { CTL_FILES_MAX = 32, CTL_RATES_MAX = 32, CTL_WORDS_MAX = 64 };

struct ctl;

struct command {
	const char *name;
	int (*run)(struct ctl *);
	uint32_t options;
	const char *words;
	unsigned least, most;
	const char *help;
};

struct ctl_options {
	const struct command *command; /* NULL: only help was asked for */
	uint32_t given;
	const char *value[CTL_OPTION_COUNT]; /* the last one given */
	const char *file[CTL_FILES_MAX], *rate[CTL_RATES_MAX];
	size_t files, rates;
	const char *word[CTL_WORDS_MAX];
	unsigned words;
};

static inline bool ctl_given(const struct ctl_options *o, enum ctl_option id)
{
	return o->given >> id & 1;
}

/* What is in argv is borrowed. false: said why, on stderr. */
bool ctl_options_load(struct ctl_options *, int argc, char **argv);

/* Of one command, or of all where it is NULL. */
void ctl_help(const struct command *);

#endif
