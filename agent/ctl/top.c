/* top: who is denied most, checked most, or costs most; once, or again and again. */
#include "ctl/ctl.h"
#include "ctl/table.h"
#include "ctl/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { PAUSE_SECONDS = 2, LINES_USUAL = 10, LINES_MAX = 1000 };

/* free() it; NULL: said why, and `*status` says what kind. */
static char *path_of(const struct ctl_options *o, int *status)
{
	const char *by = ctl_given(o, CTL_BY) ? o->value[CTL_BY] : "denied";
	const char *rule = o->value[CTL_RULE];
	char *escaped = rule ? http_escape(rule) : NULL, *path = NULL;
	long lines = ctl_number(o, LINES_USUAL, LINES_MAX);

	*status = CTL_USAGE;
	if (strcmp(by, "denied") != 0 && strcmp(by, "checked") != 0 && strcmp(by, "cost") != 0 &&
		strcmp(by, "shadow") != 0) {
		(void)ctl_fail(0, "--by %s: want denied, checked, cost or shadow", by);
	} else if (lines > 0 && asprintf(&path, "/api/v1/top?by=%s&n=%ld%s%s", by, lines,
					escaped ? "&rule=" : "", escaped ? escaped : "") < 0) {
		*status = ctl_fail(CTL_REFUSED, "out of memory");
		path = NULL;
	}
	free(escaped);
	return path;
}

/* One list: of clients, or of endpoints. */
static bool show_list(const json_t *list, const char *what, const char *title, size_t columns)
{
	const struct column column[] = { { "AT LEAST", true }, { "AT MOST", true },
		{ "RULE", false }, { title, false } };
	const json_t *items = json_object_get(list, "items"), *item;
	int64_t one_in = ctl_int(list, "one_in");
	char over[TEXT_MAX], sample[64] = "";
	size_t i;

	if (!json_array_size(items) && !ctl_int(list, "error")) {
		(void)printf("no %s in the last %s\n", what,
			text_seconds(ctl_int(list, "seconds"), over));
		return true;
	}
	if (one_in > 1)
		(void)snprintf(sample, sizeof sample, "; sampled: one in %lld", (long long)one_in);
	(void)printf("%s%lld in %s%s; who is not here has at most %lld\n",
		one_in > 1 ? "about " : "", (long long)ctl_int(list, "total"),
		text_seconds(ctl_int(list, "seconds"), over), sample,
		(long long)ctl_int(list, "error"));
	struct table *t = table_new(column, sizeof column / sizeof *column);
	json_array_foreach(items, i, item)
	{
		int64_t count = ctl_int(item, "count"), error = ctl_int(item, "error");
		/* It is too high by `error` at most. */
		table_int(t, count > error ? count - error : 0);
		table_int(t, count);
		table_put(t, ctl_text(item, "rule"));
		table_put(t, ctl_text(item, what));
	}
	bool whole = table_write(t, stdout, columns);
	table_free(t);
	return whole;
}

static int show(const json_t *answer, size_t columns)
{
	const json_t *endpoints = json_object_get(answer, "endpoints");
	bool whole = show_list(json_object_get(answer, "clients"), "client", "CLIENT", columns);

	if (endpoints) {
		(void)putchar('\n');
		whole = show_list(endpoints, "endpoint", "ENDPOINT", columns) && whole;
	}
	return whole ? CTL_DONE : ctl_fail(CTL_REFUSED, "out of memory");
}

/* Of the terminal; 0: it is none. */
static size_t width_of_terminal(void)
{
	struct winsize size;

	if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
		return 0;
	return size.ws_col;
}

static int once(struct ctl *c, const char *path, bool again)
{
	size_t width = width_of_terminal();
	char at[TEXT_MAX];
	json_t *answer;
	int status = ctl_ask(c, "GET", path, NULL, &answer);

	if (status != CTL_DONE)
		return status;
	if (ctl_given(c->o, CTL_JSON)) {
		status = ctl_print_json(answer, again);
	} else {
		if (again && width)
			(void)fputs("\033[H\033[2J", stdout); /* the upper left corner; clear */
		if (again)
			(void)printf("%s  %s\n\n", text_instant((int64_t)time(NULL), at),
				place_text(&c->place));
		status = show(answer, again ? width : 0);
	}
	json_decref(answer);
	return status;
}

int ctl_top(struct ctl *c)
{
	bool again = ctl_given(c->o, CTL_WATCH);
	int status;
	char *path = path_of(c->o, &status);

	if (!path)
		return status;
	/* Until it is interrupted, nobody reads it, or the agent is away. */
	do {
		status = once(c, path, again);
		if (fflush(stdout) != 0)
			status = CTL_REFUSED;
	} while (again && status == CTL_DONE &&
		 nanosleep(&(struct timespec){ .tv_sec = PAUSE_SECONDS }, NULL) == 0);
	free(path);
	return status;
}
