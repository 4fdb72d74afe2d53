/* What the clerk says is on disk is there, whatever the disk refuses meanwhile. */
#include "server/clerk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	char folder[64], state[80], blocked[112];
	struct hash_key key;
	struct ev_loop *loop;
	struct journal *journal;
	struct clerk *clerk;
};

static void kept(void *with)
{
	(void)with;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	char err[256];

	assert_true(hash_init());
	(void)snprintf(f->folder, sizeof f->folder, "/tmp/clerk-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	(void)snprintf(f->state, sizeof f->state, "%s/state", f->folder);
	(void)snprintf(f->blocked, sizeof f->blocked, "%s.changes.tmp", f->state);
	f->loop = ev_loop_new(EVFLAG_AUTO);
	f->journal = journal_new(f->state, &f->key);
	assert_true(journal_begin(f->journal, err, sizeof err));
	assert_true(journal_replace(f->journal, err, sizeof err));
	f->clerk = clerk_new(
		&(struct clerk_args){ .journal = f->journal, .kept = kept, .loop = f->loop });
	assert_non_null(f->clerk);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[112];

	clerk_free(f->clerk);
	journal_free(f->journal);
	ev_loop_destroy(f->loop);
	(void)snprintf(path, sizeof path, "%s.changes", f->state);
	(void)unlink(path);
	(void)rmdir(f->blocked);
	assert_int_equal(rmdir(f->folder), 0);
	free(f);
	return 0;
}

static struct clerk_state settled(struct fixture *f)
{
	struct clerk_state s;

	assert_true(clerk_settle(f->clerk, clock_steady() + USEC_PER_DAY));
	clerk_state(f->clerk, &s);
	return s;
}

static uint64_t put_whole(struct fixture *f, const char *name)
{
	struct pile pile = { 0 };

	pile_put(&pile, str_of(name), STR("{}"));
	return clerk_replace(f->clerk, &pile);
}

static void what_is_put_is_there(void **state)
{
	struct fixture *f = *state;
	uint64_t number = clerk_put(f->clerk, STR("a"), STR("{}"));
	struct clerk_state s = settled(f);

	assert_int_equal(s.good, number);
	assert_int_equal(s.tried, number);
	number = put_whole(f, "a");
	s = settled(f);
	assert_int_equal(s.good, number);
}

/* What it was to have may be nowhere; a change after it that could be appended does not make it be
 * there. */
static void a_whole_that_failed_is_missed_until_the_next(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(mkdir(f->blocked, 0700), 0); /* a file of that name cannot be made */
	uint64_t whole = put_whole(f, "a");
	uint64_t single = clerk_put(f->clerk, STR("b"), STR("{}"));
	struct clerk_state s = settled(f);

	assert_int_equal(s.tried, single);
	assert_true(s.good < whole);
	assert_string_not_equal(s.why, "");
	single = clerk_put(f->clerk, STR("c"), STR("{}"));
	s = settled(f);
	assert_int_equal(s.tried, single);
	assert_true(s.good < whole);

	assert_int_equal(rmdir(f->blocked), 0);
	whole = put_whole(f, "a");
	s = settled(f);
	assert_int_equal(s.good, whole);
	single = clerk_put(f->clerk, STR("d"), STR("{}"));
	s = settled(f);
	assert_int_equal(s.good, single);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_put_is_there, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_whole_that_failed_is_missed_until_the_next, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
