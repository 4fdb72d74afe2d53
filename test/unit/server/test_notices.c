/* What is said of a table that is full. */
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

static void each_warning_is_of_those_since_the_last(void **state)
{
	struct fixture *f = *state;
	char text[4096];

	ask(f, 0, KEYS_MAX + 30, 2, now_at(0));
	notices_look_at_table(f->notices, f->snapshot, now_at(0));
	/* A day on, all are full again; of these nobody is at his limit. */
	struct now later = now_at(USEC_PER_DAY);
	ask(f, 1000, 2 * KEYS_MAX, 1, later);
	notices_look_at_table(f->notices, f->snapshot, later);
	log_close();

	FILE *lines = fopen(f->log.path, "r");
	assert_non_null(lines);
	text[fread(text, 1, sizeof text - 1, lines)] = '\0';
	assert_int_equal(fclose(lines), 0);
	assert_non_null(strstr(text, "evicted=30 evicted_at_their_limit=30 "));
	assert_non_null(strstr(text, "evicted=50 evicted_at_their_limit=0 "));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			each_warning_is_of_those_since_the_last, setup, teardown),
	};
	return hash_init() ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
