/* Runs the tables of this folder (README.md) against the functions of limit/algorithm.h, with the
 * clocks as a process sees them (base/timeline.h). With --redis, each row is also asked of the
 * script in a Redis of its own, whose word must be the same, bit for bit. */
#include "redis/store.h"

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
	unsigned number; /* its own counter in Redis */
};

struct row {
	usec_t t;
	int64_t cost;
	bool admits;
	double left;
	usec_t reset, retry;
};

static const char *path;
static unsigned line_number, rows, failures, asked_of_redis;
static struct waiting_store *redis; /* NULL: without */

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
		*t = (struct table){
			.origin = DEFAULT_ORIGIN, .begun = true, .number = t->number + 1
		};
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
	} else if (strcmp(name, "begins") == 0) {
		if (strcmp(value, "first") != 0)
			refuse(value);
		q->window.kind = WINDOW_FROM_FIRST;
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

static void same(const char *what, bool is)
{
	if (is)
		return;
	fprintf(stderr, "%s:%u: Redis: another `%s` than C's\n", path, line_number, what);
	failures++;
}

/* Once the wall clock has been stepped, a process and Redis have different clocks. `want` is what C
 * says; oversize where it never passes. */
static void ask_redis(const struct table *t, int64_t cost, usec_t now, const struct verdict *want)
{
	static struct rule rule;
	static struct limit limit;
	static struct plan plan;
	struct plan *list[] = { &plan };
	const struct verdict *got = &plan.take[0].verdict;

	if (!redis || t->stepped)
		return;
	rule = (struct rule){ .count_denied = t->count_denied };
	limit = (struct limit){ .rule = &rule, .quota = t->quota };
	if (t->quota.units) {
		limit.slowest_interval = (double)t->quota.window.length / (double)t->quota.units;
		limit.slowest_refill = limit.slowest_interval * (double)t->quota.capacity;
	}
	plan.n = 1;
	plan.take[0] = (struct take){ .limit = &limit, .key = { t->number, 0 }, .cost = cost };
	if (!waiting_store_take(redis, list, 1, NULL, 0, now)) {
		failures++;
		return;
	}
	asked_of_redis++;
	same("admits", got->admits == want->admits);
	same("never", got->oversize == want->oversize);
	same("left", memcmp(&got->left, &want->left, sizeof got->left) == 0);
	same("retry", got->retry_after == want->retry_after);
	same("reset", bucket_reset_after(&t->quota, &got->state, plan.now) ==
			      bucket_reset_after(&t->quota, &want->state, plan.now));
	same("bucket", memcmp(&got->state, &want->state, sizeof got->state) == 0);

	/* And what is there now. */
	redisReply *reply = redisCommand(
		redis->server->redis, "GET %b", redis->args.keys[0], (size_t)redis->args.key_bytes);
	if (want->charged)
		same("stored bucket",
			reply && reply->len == REDIS_VALUE_BYTES &&
				memcmp(reply->str, &want->state, sizeof want->state) == 0);
	else if (t->bucket.at == 0)
		same("nothing stored", reply && reply->type == REDIS_REPLY_NIL);
	else
		same("stored bucket",
			reply && reply->len == REDIS_VALUE_BYTES &&
				memcmp(reply->str, &t->bucket, sizeof t->bucket) == 0);
	freeReplyObject(reply);
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
	usec_t retry = never ? RETRY_NEVER : admits ? 0 : bucket_retry_after(q, &b, asked, now);
	usec_t reset = bucket_reset_after(q, &b, now);
	double left = bucket_left(q, &b, now);
	ask_redis(t, row->cost, now.utc,
		&(struct verdict){ .admits = admits,
			.oversize = never,
			.charged = charged,
			.state = b,
			.left = left,
			.retry_after = never ? 0 : retry });
	if (charged)
		t->bucket = b;
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
	static struct redis_server server;
	static struct waiting_store store;
	int first = 1;

	if (argc > 1 && strcmp(argv[1], "--redis") == 0) {
		redis_server_start(&server);
		waiting_store_init(&store, &server, "vector:");
		redis = &store;
		first++;
	}
	if (argc == first) {
		fprintf(stderr, "usage: %s [--redis] FILE...\n", argv[0]);
		return 2;
	}
	struct table table = { 0 };
	for (int i = first; i < argc; i++) {
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
	printf("%u rows, %u asked of Redis, %u failures\n", rows, asked_of_redis, failures);
	if (redis && !asked_of_redis)
		return 1;
	return failures != 0;
}
