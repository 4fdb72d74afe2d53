/* Runs the tables of this folder (README.md) against the functions of limit/algorithm.h, with the
 * clocks as a process sees them (base/timeline.h). */
#include "base/timeline.h"
#include "limit/algorithm.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Mon 2026-01-05T00:00:00Z */
#define DEFAULT_ORIGIN INT64_C(1767571200000000)

enum { RETRY_NEVER = -1 };

struct table {
	struct quota quota;
	bool count_denied;
	struct bucket bucket;
	usec_t origin, stepped;
	struct timeline timeline;
	bool begun, started;
};

struct row {
	usec_t t;
	int64_t cost;
	bool admits;
	double left;
	usec_t reset, retry;
};

static const char *path;
static unsigned line_number, rows, failures;

static void fail(const char *what, double want, double got)
{
	fprintf(stderr, "%s:%u: %s: expected %.9g, got %.9g\n", path, line_number, what, want, got);
	failures++;
}

static _Noreturn void refuse(const char *why)
{
	fprintf(stderr, "%s:%u: cannot read this: %s\n", path, line_number, why);
	exit(2);
}

static int64_t number(const char *text)
{
	char *end;
	errno = 0;
	int64_t v = strtoll(text, &end, 10);
	if (errno || *end || end == text)
		refuse(text);
	return v;
}

static void set(struct table *t, const char *name, const char *value)
{
	struct quota *q = &t->quota;
	if (strcmp(name, "algorithm") == 0) {
		*t = (struct table){ .origin = DEFAULT_ORIGIN, .begun = true };
		if (strcmp(value, "token-bucket") == 0)
			q->algorithm = ALGORITHM_TOKEN_BUCKET;
		else if (strcmp(value, "sliding-window") == 0)
			q->algorithm = ALGORITHM_SLIDING_WINDOW;
		else if (strcmp(value, "fixed-window") == 0)
			q->algorithm = ALGORITHM_FIXED_WINDOW;
		else
			refuse(value);
	} else if (strcmp(name, "units") == 0) {
		q->units = number(value);
	} else if (strcmp(name, "capacity") == 0) {
		q->capacity = number(value);
	} else if (strcmp(name, "window") == 0) {
		if (strcmp(value, "week") == 0)
			q->window = (struct window){ WINDOW_WEEK, 7 * USEC_PER_DAY };
		else if (strcmp(value, "month") == 0)
			q->window = (struct window){ WINDOW_MONTH, 30 * USEC_PER_DAY };
		else
			q->window = (struct window){ WINDOW_LENGTH, number(value) };
	} else if (strcmp(name, "origin") == 0) {
		t->origin = number(value);
	} else if (strcmp(name, "count_denied") == 0) {
		t->count_denied = strcmp(value, "yes") == 0;
	} else if (strcmp(name, "utc") == 0) {
		t->stepped += number(value);
	} else {
		refuse(name);
	}
}

static void run_row(struct table *t, const struct row *row)
{
	const struct quota *q = &t->quota;
	usec_t steady = t->origin + row->t;
	if (!t->started)
		t->timeline = timeline_start(steady, steady);
	t->started = true;
	struct now now = timeline_follow(&t->timeline, steady, steady + t->stepped);
	struct bucket b = bucket_read(q, &t->bucket, now);
	int64_t asked = row->cost ? row->cost : 1;
	bool never = asked > q->capacity;
	bool admits = !never && bucket_admits(q, &b, asked, now);
	bool charged = false;

	if (row->cost && admits) {
		bucket_charge(q, &b, row->cost);
		charged = true;
	} else if (row->cost && t->count_denied) {
		charged = bucket_charge_denied(q, &b, row->cost);
	}
	if (charged)
		t->bucket = b;

	usec_t retry = never ? RETRY_NEVER : admits ? 0 : bucket_retry_after(q, &b, asked, now);
	usec_t reset = bucket_reset_after(q, &b, now);
	double left = bucket_left(q, &b, now);
	/* What a millionth of a unit takes. */
	double early = q->units ? 1e-6 * (double)q->window.length / (double)q->units + 1 : 0;

	rows++;
	if (admits != row->admits)
		fail("admits", row->admits, admits);
	if (fabs(left - row->left) > 1e-6)
		fail("left", row->left, left);
	if (reset > row->reset || (double)(row->reset - reset) > early)
		fail("reset", (double)row->reset, (double)reset);
	if (row->retry == RETRY_NEVER || row->retry == 0 || retry == RETRY_NEVER) {
		if (retry != row->retry)
			fail("retry", (double)row->retry, (double)retry);
	} else if (retry > row->retry || (double)(row->retry - retry) > early) {
		fail("retry", (double)row->retry, (double)retry);
	}
}

static void read_row(char **word, unsigned n, struct row *row)
{
	if (n != 7 || strcmp(word[2], "->") != 0)
		refuse("want `t cost -> admits left reset retry`");
	bool yes = strcmp(word[3], "yes") == 0;
	if (!yes && strcmp(word[3], "no") != 0)
		refuse(word[3]);
	*row = (struct row){
		.t = number(word[0]),
		.cost = number(word[1]),
		.admits = yes,
		.left = strtod(word[4], NULL),
		.reset = number(word[5]),
		.retry = strcmp(word[6], "never") == 0 ? RETRY_NEVER : number(word[6]),
	};
}

static void run_line(struct table *t, char *line)
{
	char *word[16], *save = NULL;
	unsigned n = 0;
	line[strcspn(line, ";\r\n")] = 0;
	for (char *p = strtok_r(line, " \t", &save); p && n < 16; p = strtok_r(NULL, " \t", &save))
		word[n++] = p;
	if (n == 0)
		return;
	unsigned first = strcmp(word[0], "quota") == 0;
	if (first || strchr(word[0], '=')) {
		for (unsigned i = first; i < n; i++) {
			char *equals = strchr(word[i], '=');
			if (!equals)
				refuse(word[i]);
			*equals = 0;
			set(t, word[i], equals + 1);
		}
		return;
	}
	if (!t->begun)
		refuse("a row before the first table");
	struct row row;
	read_row(word, n, &row);
	run_row(t, &row);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: %s FILE...\n", argv[0]);
		return 2;
	}
	for (int i = 1; i < argc; i++) {
		struct table table = { 0 };
		char line[256];
		path = argv[i];
		line_number = 0;
		FILE *f = fopen(path, "r");
		if (!f) {
			fprintf(stderr, "%s: %s\n", path, strerror(errno));
			return 2;
		}
		while (fgets(line, sizeof line, f)) {
			line_number++;
			run_line(&table, line);
		}
		fclose(f);
	}
	printf("%u rows, %u failures\n", rows, failures);
	return failures != 0;
}
