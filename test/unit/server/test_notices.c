/* What is said of a table that is full, of one of bans, and of a clock that was set: how often, and
 * of what. */
#include "server/notices.h"

#include "loaded.h"
#include "../store/rig.h"
#include "base/log.h"

#include <unistd.h>

enum { KEYS_MAX = 50 };

struct fixture {
	struct log_settings log;
	struct snapshot *snapshot;
	struct memory_store *memory;
	struct notices *notices;
};

static int setup(void **state)
{
	static struct fixture f;
	static const struct hash_key key = { .bytes = { 1 } };
	char err[512];

	f = (struct fixture){ .log = { .target = LOG_TARGET_FILE, .level = LOG_LEVEL_INFO } };
	(void)snprintf(f.log.path, sizeof f.log.path, "/tmp/notices-%ld.log", (long)getpid());
	if (log_open(&f.log, err, sizeof err) != 0)
		fail_msg("%s", err);
	f.snapshot = loaded("rules = ();", &key, 1);
	f.memory = rig_store(KEYS_MAX, now_at(0));
	f.notices = notices_new(f.memory, now_at(0));
	assert_non_null(f.notices);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	log_close();
	notices_free(f->notices);
	rig_close(f->memory);
	drop(f->snapshot);
	return unlink(f->log.path);
}

/* So many that were not seen before, of a limit of two an hour. */
static void ask(struct fixture *f, uint64_t first, unsigned n, int64_t cost, struct now now)
{
	struct rig_limit limit;

	rig_limit(&limit, ALGORITHM_TOKEN_BUCKET, 2, 3600 * USEC_PER_SEC, 2);
	for (unsigned i = 0; i < n; i++)
		assert_true(rig_take(f->memory, &limit, first + i, cost, now).admits);
}

/* All that was logged. */
static const char *logged(const struct fixture *f)
{
	static char text[8192];

	log_close();
	FILE *lines = fopen(f->log.path, "r");
	assert_non_null(lines);
	text[fread(text, 1, sizeof text - 1, lines)] = '\0';
	assert_int_equal(fclose(lines), 0);
	return text;
}

static unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	while ((text = strstr(text, what))) {
		text += strlen(what);
		n++;
	}
	return n;
}

static void each_warning_is_of_those_since_the_last(void **state)
{
	struct fixture *f = *state;

	ask(f, 0, KEYS_MAX + 30, 2, now_at(0));
	notices_look_at_table(f->notices, f->snapshot, now_at(0));
	/* A day on, all are full again; of these nobody is at his limit. */
	struct now later = now_at(USEC_PER_DAY);
	ask(f, 1000, 2 * KEYS_MAX, 1, later);
	notices_look_at_table(f->notices, f->snapshot, later);

	const char *text = logged(f);
	assert_non_null(strstr(text, "evicted=30 evicted_at_their_limit=30 "));
	assert_non_null(strstr(text, "evicted=50 evicted_at_their_limit=0 "));
}

/* Who had to go while the state file was read is no news; and a minute is between two warnings. */
static void a_full_table_is_told_once_a_minute(void **state)
{
	struct fixture *f = *state;

	ask(f, 0, KEYS_MAX + 30, 2, now_at(0));
	notices_free(f->notices);
	f->notices = notices_new(f->memory, now_at(0));
	assert_non_null(f->notices);
	notices_look_at_table(f->notices, f->snapshot, now_at(0));
	for (unsigned s = 0; s < 120; s++) {
		ask(f, 1000 + s, 1, 1, now_at(s * USEC_PER_SEC));
		notices_look_at_table(f->notices, f->snapshot, now_at(s * USEC_PER_SEC));
	}

	const char *text = logged(f);
	assert_int_equal(count(text, "table_full"), 2);
	assert_non_null(strstr(text, "evicted=1 evicted_at_their_limit=1 "));
	assert_non_null(strstr(text, "evicted=60 "));
}

static void full_of_bans_is_told_of_those_since_the_last(void **state)
{
	struct fixture *f = *state;
	struct bans *bans = bans_new();
	uint64_t id = 0;

	assert_non_null(bans);
	for (unsigned minute = 0; minute < 2; minute++) {
		const struct now now = now_at(minute * 60 * USEC_PER_SEC);
		for (unsigned i = 0; i < 3 || (minute == 0 && bans_evicted(bans) < 3); i++) {
			struct ban ban = { .key = { BANS_MAX, ++id },
				.since = now.utc,
				.until = now.utc + USEC_PER_DAY,
				.forget_at = now.utc + USEC_PER_DAY,
				.epoch = 1 };
			assert_true(bans_put(bans, &ban, now.utc));
		}
		notices_look_at_bans(f->notices, bans, now);
		notices_look_at_bans(f->notices, bans, now);
	}
	bans_free(bans);

	const char *text = logged(f);
	assert_int_equal(count(text, "bans_full"), 2);
	assert_int_equal(count(text, "evicted=3 "), 2);
}

/* Each step once, in whole seconds as they are nearest; what the two clocks are apart otherwise not
 * at all. */
static void a_step_of_the_clock_is_told_once(void **state)
{
	static const usec_t step[] = { 0, 999999, -999999, 3600 * USEC_PER_SEC, -1600000,
		-1400000 };
	struct fixture *f = *state;
	struct now now = now_at(0);

	for (unsigned i = 0; i < sizeof step / sizeof *step; i++)
		for (unsigned again = 0; again < 3; again++) {
			now.steady += USEC_PER_SEC;
			now.utc += USEC_PER_SEC + (again ? 0 : step[i]);
			notices_look_at_clock(f->notices, now);
		}

	const char *text = logged(f);
	assert_int_equal(count(text, "clock_stepped"), 3);
	assert_int_equal(count(text, "by_seconds=3600 "), 1);
	assert_int_equal(count(text, "by_seconds=-2 "), 1);
	assert_int_equal(count(text, "by_seconds=-1 "), 1);
}

static void totals_are_due_once_a_minute(void **state)
{
	struct fixture *f = *state;
	unsigned due = 0;

	for (unsigned s = 1; s <= 180; s++)
		due += notices_stats_are_due(f->notices, now_at(s * USEC_PER_SEC));
	assert_int_equal(due, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			each_warning_is_of_those_since_the_last, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_full_table_is_told_once_a_minute, setup, teardown),
		cmocka_unit_test_setup_teardown(
			full_of_bans_is_told_of_those_since_the_last, setup, teardown),
		cmocka_unit_test_setup_teardown(a_step_of_the_clock_is_told_once, setup, teardown),
		cmocka_unit_test_setup_teardown(totals_are_due_once_a_minute, setup, teardown),
	};
	return hash_init() ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
