#include "ctl/options.h"

#include "config/nearest.h"
#include "ctl/ctl.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name, *takes, *help;
	char letter;
} option_table[] = {
#define X(NAME, name, letter, takes, help) { name, takes, help, letter },
	CTL_OPTIONS(X)
#undef X
};

static const struct command command_table[] = {
#define X(name, handler, options, words, least, most, help) \
	{ name, ctl_##handler, options, words, least, most, help },
	CTL_COMMANDS(X)
#undef X
};

enum { COMMANDS = sizeof command_table / sizeof *command_table, LETTERLESS = 256 };

static const struct command *find_command(const char *word)
{
	const char *names[COMMANDS];
	char hint[HINT_MAX];

	for (unsigned i = 0; i < COMMANDS; i++) {
		if (strcmp(word, command_table[i].name) == 0)
			return &command_table[i];
		names[i] = command_table[i].name;
	}
	(void)fprintf(stderr, "ratelimitctl: there is no command \"%s\"%s (ratelimitctl -h)\n",
		word, nearest_hint(word, names, COMMANDS, hint));
	return NULL;
}

static bool take(struct ctl_options *o, enum ctl_option id)
{
	o->given |= 1u << id;
	o->value[id] = optarg;
	if (id == CTL_FILE) {
		if (o->files == CTL_FILES_MAX)
			return false;
		o->file[o->files++] = optarg;
	}
	if (id == CTL_RATE) {
		if (o->rates == CTL_RATES_MAX)
			return false;
		o->rate[o->rates++] = optarg;
	}
	return true;
}

/* Of getopt_long(): names, and letters with a colon after those that take something. */
static void describe(struct option names[CTL_OPTION_COUNT + 1], char letters[])
{
	for (unsigned i = 0; i < CTL_OPTION_COUNT; i++) {
		int takes = option_table[i].takes ? required_argument : no_argument;
		names[i] = (struct option){ option_table[i].name, takes, NULL,
			LETTERLESS + (int)i };
		if (!option_table[i].letter)
			continue;
		*letters++ = option_table[i].letter;
		if (takes == required_argument)
			*letters++ = ':';
	}
	names[CTL_OPTION_COUNT] = (struct option){ 0 };
	*letters = '\0';
}

static bool load(struct ctl_options *o, int argc, char **argv)
{
	struct option names[CTL_OPTION_COUNT + 1];
	char letters[2 * CTL_OPTION_COUNT + 1];

	describe(names, letters);
	for (int c; (c = getopt_long(argc, argv, letters, names, NULL)) != -1;) {
		unsigned id = 0;
		while (id < CTL_OPTION_COUNT && c != LETTERLESS + (int)id &&
			(!option_table[id].letter || c != option_table[id].letter))
			id++;
		if (id == CTL_OPTION_COUNT) { /* getopt has said what is wrong */
			(void)fputs("ratelimitctl -h tells what there is\n", stderr);
			return false;
		}
		if (!take(o, (enum ctl_option)id)) {
			(void)fprintf(
				stderr, "ratelimitctl: --%s: too many\n", option_table[id].name);
			return false;
		}
	}
	return true;
}

/* A command; or `help`, which is -h, and -v, which is `version`: as people type them elsewhere. */
static bool find_task(struct ctl_options *o, int argc, char **argv)
{
	const char *word = optind < argc ? argv[optind] : NULL;

	if (word && strcmp(word, "help") == 0) {
		o->given |= CTL_BIT(HELP);
		word = ++optind < argc ? argv[optind] : NULL;
	}
	if (!word && ctl_given(o, CTL_VERSION)) {
		o->given &= ~CTL_BIT(VERSION);
		word = "version";
	} else if (word) {
		optind++;
	} else if (!ctl_given(o, CTL_HELP)) {
		(void)fputs("ratelimitctl: what shall it do? ratelimitctl -h tells what there is\n",
			stderr);
		return false;
	}
	o->command = word ? find_command(word) : NULL;
	return !word || o->command;
}

static bool options_go_with(const struct ctl_options *o)
{
	uint32_t odd = o->given & ~o->command->options;

	for (unsigned i = 0; i < CTL_OPTION_COUNT; i++) {
		if (!(odd >> i & 1))
			continue;
		(void)fprintf(stderr, "ratelimitctl: --%s is not for %s (ratelimitctl %s -h)\n",
			option_table[i].name, o->command->name, o->command->name);
		return false;
	}
	return true;
}

bool ctl_options_load(struct ctl_options *o, int argc, char **argv)
{
	*o = (struct ctl_options){ 0 };
	if (!load(o, argc, argv) || !find_task(o, argc, argv))
		return false;
	if (ctl_given(o, CTL_HELP))
		return true;
	while (optind < argc && o->words < CTL_WORDS_MAX)
		o->word[o->words++] = argv[optind++];
	if (o->words < o->command->least || o->words > o->command->most || optind < argc) {
		(void)fprintf(stderr, "ratelimitctl: want: ratelimitctl %s %s\n", o->command->name,
			o->command->words);
		return false;
	}
	return options_go_with(o);
}

static void help_options(uint32_t options)
{
	for (unsigned i = 0; i < CTL_OPTION_COUNT; i++) {
		const char *takes = option_table[i].takes;
		char left[40] = "";
		if (!(options >> i & 1))
			continue;
		if (option_table[i].letter)
			(void)snprintf(left, sizeof left, "-%c, ", option_table[i].letter);
		size_t n = strlen(left);
		(void)snprintf(left + n, sizeof left - n, "--%s%s%s", option_table[i].name,
			takes ? " " : "", takes ? takes : "");
		(void)printf("  %-22s  %s\n", left, option_table[i].help);
	}
}

void ctl_help(const struct command *command)
{
	if (command) {
		(void)printf("usage: ratelimitctl %s [OPTIONS]%s%s\n\n%s\n\n", command->name,
			*command->words ? " " : "", command->words, command->help);
		help_options(command->options);
		return;
	}
	(void)puts("usage: ratelimitctl COMMAND [OPTIONS] ...\n");
	for (unsigned i = 0; i < COMMANDS; i++)
		(void)printf("  %-13s %s\n", command_table[i].name, command_table[i].help);
	(void)puts("");
	help_options(CTL_AGENT | CTL_BIT(VERSION));
	(void)puts(
		"\nThe agent is the one of --socket or --url, else of the admin group of -f FILE, "
		"else of\n$RATELIMIT_ADMIN (a socket, or HOST:PORT), else the one at\n" DEFAULT_SOCKET
		", else that of\n" DEFAULT_CONFIG ".\n"
		"Exit status: 0 done, 1 refused or not found, 2 wrong usage, 3 no agent "
		"answers.");
}
