/* replay: what a configuration would have done with the requests of a log. */
#include "base/sketch.h"
#include "config/json.h"
#include "ctl/ctl.h"
#include "ctl/lines.h"
#include "ctl/replay_run.h"
#include "ctl/replay_show.h"
#include "ctl/request_line.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOP_USUAL = 10 };

struct replay {
	struct replay_run *run;
	struct request_line line;
	uint64_t lines, left_out, too_long;
	char first[1024]; /* FILE:LINE of the first that was left out; "": none was */
};

static void leave_out(struct replay *r, const char *name, uint64_t number)
{
	if (!r->left_out++)
		(void)snprintf(
			r->first, sizeof r->first, "%s:%llu", name, (unsigned long long)number);
}

static bool is_packed(struct str first_line)
{
	return first_line.n >= 2 && memcmp(first_line.p, "\x1f\x8b", 2) == 0;
}

static int take_line(struct replay *r, const char *name, uint64_t number, struct str line)
{
	struct view view;
	usec_t utc;

	r->lines++;
	if (number == 1 && is_packed(line))
		return ctl_fail(CTL_USAGE,
			"%s is compressed: zcat LOG.gz | ratelimitctl replay -f CONFIG", name);
	if (!request_line_load(&r->line, line, &view, &utc))
		leave_out(r, name, number);
	else if (!replay_run_take(r->run, &view, utc))
		return ctl_fail(CTL_REFUSED, "out of memory");
	return CTL_DONE;
}

static int take_lines(struct replay *r, const char *name, struct lines *lines)
{
	struct str line;

	for (uint64_t number = 1;; number++) {
		int status = CTL_DONE;
		switch (lines_next(lines, &line)) {
		case LINES_ONE:
			status = take_line(r, name, number, line);
			break;
		case LINES_TOO_LONG:
			r->lines++;
			r->too_long++;
			leave_out(r, name, number);
			break;
		case LINES_END:
			return CTL_DONE;
		case LINES_FAILED:
			return ctl_fail(CTL_REFUSED, "%s: %s", name, strerror(errno));
		}
		if (status != CTL_DONE)
			return status;
	}
}

static int take_log(struct replay *r, const char *name)
{
	bool is_input = strcmp(name, "-") == 0;
	int fd = is_input ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
	struct lines lines;
	int status = CTL_REFUSED;

	if (fd < 0)
		return ctl_fail(CTL_REFUSED, "%s: %s", name, strerror(errno));
	if (is_input && isatty(fd))
		(void)ctl_fail(0, "reads a log from standard input");
	if (lines_init(&lines, fd, REQUEST_LINE_MAX))
		status = take_lines(r, is_input ? "standard input" : name, &lines);
	else
		(void)ctl_fail(0, "out of memory");
	lines_fini(&lines);
	if (!is_input)
		(void)close(fd);
	return status;
}

static int tell(const struct ctl_options *o, const struct replay *r, unsigned most)
{
	json_t *answer = replay_run_json(r->run, most);
	bool whole = answer != NULL;

	if (whole) {
		(void)json_object_set_new(answer, "lines", json_integer((json_int_t)r->lines));
		(void)json_object_set_new(
			answer, "left_out", json_integer((json_int_t)r->left_out));
		(void)json_object_set_new(answer, "left_out_first",
			*r->first ? json_of(str_of(r->first)) : json_null());
		(void)json_object_set_new(
			answer, "too_long", json_integer((json_int_t)r->too_long));
		if (ctl_given(o, CTL_JSON))
			(void)ctl_print_json(answer, false);
		else
			whole = replay_show(answer);
	}
	json_decref(answer);
	if (!whole)
		return ctl_fail(CTL_REFUSED, "out of memory");
	if (!r->lines)
		return ctl_fail(CTL_REFUSED, "there is no line in the log: is it the right one?");
	if (r->left_out == r->lines)
		return ctl_fail(CTL_REFUSED,
			"none of %llu lines is a request that it understands: "
			"want HAProxy's HTTP log, CLF, or an object of JSON "
			"with \"time\" a line (man ratelimitctl)",
			(unsigned long long)r->lines);
	return CTL_DONE;
}

static int replay(const struct ctl_options *o, struct replay *r, unsigned most)
{
	int status = CTL_DONE;

	if (!o->words)
		status = take_log(r, "-");
	for (unsigned i = 0; i < o->words && status == CTL_DONE; i++)
		status = take_log(r, o->word[i]);
	return status == CTL_DONE ? tell(o, r, most) : status;
}

int ctl_replay(struct ctl *c)
{
	const struct ctl_options *o = c->o;
	long most = ctl_number(o, TOP_USUAL, SKETCH_ITEMS);
	struct replay r = { 0 };
	struct hash_key key;
	char why[256];
	int status;

	if (most < 0)
		return CTL_USAGE;
	hash_key_random(&key);
	struct snapshot *s = ctl_load_config(o, &key);
	if (!s)
		return CTL_REFUSED;
	r.run = replay_run_new(s, &key);
	if (!r.run)
		status = ctl_fail(CTL_REFUSED, "out of memory");
	else if (!request_line_init(&r.line, s->policy, o->value[CTL_CAPTURES], why, sizeof why))
		status = ctl_fail(CTL_USAGE, "--captures: %s", why);
	else
		status = replay(o, &r, (unsigned)most);
	request_line_fini(&r.line);
	replay_run_free(r.run);
	if (snapshot_unref(s))
		snapshot_free(s);
	return status;
}
