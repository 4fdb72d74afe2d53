/* What operators change, as agents of one Redis tell each other: who is told of what, how often,
 * and that nothing is lost on the way. */
#include "redis_rig.h"
#include "store/redis_changes.h"
#include "store/redis_changes_read.h"

#include <stdarg.h>

#define KEY     "rl:{changes}"
#define VERSION KEY ":version"
#define LOG     KEY ":log"

/* ---- an agent: what it has been told ---- */

enum { HEARD_MAX = 4096 };

struct agent {
	struct redis_changes *changes;
	unsigned told, news, missing, moved; /* times */
	char heard[HEARD_MAX];               /* all of it, as text */
};

static void hear(struct agent *a, const char *sign, const struct str *name, const struct str *text)
{
	size_t n = strlen(a->heard);

	(void)snprintf(a->heard + n, sizeof a->heard - n, "%s%.*s%s%.*s ", sign, (int)name->n,
		name->p, text->p ? "=" : "", (int)text->n, text->p ? text->p : "");
}

static void on_told(void *owner, const struct str *name, const struct str *text, size_t n)
{
	struct agent *a = owner;

	a->told++;
	a->heard[0] = '\0';
	for (size_t i = 0; i < n && n < 100; i++)
		hear(a, "", &name[i], &text[i]);
}

static void on_news(void *owner, const struct str *name, const struct str *text, size_t n)
{
	struct agent *a = owner;

	a->news++;
	for (size_t i = 0; i < n; i++)
		hear(a, text[i].p ? "+" : "-", &name[i], &text[i]);
}

static void on_missing(void *owner)
{
	((struct agent *)owner)->missing++;
}

static void on_moved(void *owner)
{
	((struct agent *)owner)->moved++;
}

static void start(struct agent *a)
{
	struct redis_changes_settings s = { .prefix = "rl:",
		.told = on_told,
		.news = on_news,
		.missing = on_missing,
		.moved = on_moved,
		.owner = a };

	*a = (struct agent){ 0 };
	a->changes = redis_changes_new(&s, hub, loop);
	assert_non_null(a->changes);
}

static struct agent one, other;

static void open_both(void)
{
	char err[200] = "";

	loop = ev_loop_new(EVFLAG_AUTO);
	hub = redis_hub_new(&where, loop, err, sizeof err);
	if (!hub)
		fail_msg("%s", err);
	ev_timer_init(&tick, on_nothing, 0.0005, 0.0005);
	ev_timer_start(loop, &tick);
	start(&one);
	start(&other);
}

static void both_are_told(void)
{
	UNTIL(one.told && other.told);
}

static void close_both(void)
{
	redis_changes_free(one.changes);
	redis_changes_free(other.changes);
	redis_hub_free(hub);
	ev_timer_stop(loop, &tick);
	ev_loop_destroy(loop);
}

/* Redis has it. */
static void put(struct agent *a, const char *name, const char *text)
{
	uint64_t number = redis_changes_put(a->changes, name, text);

	assert_true(number > 0);
	UNTIL(redis_changes_state(a->changes).had >= number);
}

static const char *heard_of(struct agent *a)
{
	static char text[HEARD_MAX];

	memcpy(text, a->heard, sizeof text);
	a->heard[0] = '\0';
	return text;
}

#define HEARS(a, what) \
	do { \
		UNTIL(strlen((a)->heard) >= strlen(what)); \
		assert_string_equal(heard_of(a), what); \
	} while (0)

static long long number_in_redis(const char *command)
{
	redisContext *c = admin();
	redisReply *r = redisCommand(c, command);
	long long n = r->type == REDIS_REPLY_INTEGER  ? r->integer
		      : r->type == REDIS_REPLY_STRING ? atoll(r->str)
						      : -1;
	freeReplyObject(r);
	redisFree(c);
	return n;
}

/* ---- tests ---- */

static void who_changes_something_is_heard_by_the_other_and_once(void **state)
{
	(void)state;
	server_start();
	open_both();
	both_are_told();
	assert_string_equal(heard_of(&one), "");
	put(&one, "a", "1");
	HEARS(&other, "+a=1 ");
	put(&other, "b", "2");
	HEARS(&one, "+b=2 ");
	put(&one, "a", NULL);
	put(&one, "c", "");
	HEARS(&other, "-a +c= ");
	/* Who has said it is told no more of it, and nobody reads all once more. */
	put(&other, "d", "4");
	HEARS(&one, "+d=4 ");
	assert_int_equal(one.told + other.told, 2);
	assert_int_equal(one.missing + other.missing, 0);
	assert_string_equal(heard_of(&other), "");
	assert_int_equal(number_in_redis("GET " VERSION), 5);
	assert_int_equal(number_in_redis("HLEN " KEY), 3);
	assert_int_equal(number_in_redis("XLEN " LOG), 5);
	close_both();
}

/* All that one puts is there, in its order, before it reads what is there. */
static void what_is_put_before_redis_is_there_waits_for_it(void **state)
{
	char name[16];
	(void)state;

	open_both();
	for (unsigned i = 0; i < REDIS_CHANGES_WAITING_MAX; i++) {
		snprintf(name, sizeof name, "n%u", i % 7);
		assert_int_equal(redis_changes_put(one.changes, name, i % 2 ? "odd" : NULL), i + 1);
	}
	assert_int_equal(redis_changes_put(one.changes, "x", "1"), 0);
	struct redis_changes_state s = redis_changes_state(one.changes);
	assert_int_equal(s.waiting, REDIS_CHANGES_WAITING_MAX);
	assert_int_equal(s.had, 0);
	assert_true(s.away_since > 0);
	server_start();
	UNTIL(redis_changes_state(one.changes).had == REDIS_CHANGES_WAITING_MAX);
	assert_int_equal(redis_changes_state(one.changes).waiting, 0);
	assert_int_equal(redis_changes_state(one.changes).away_since, 0);
	both_are_told();
	assert_int_equal(redis_changes_put(one.changes, "x", "1"), REDIS_CHANGES_WAITING_MAX + 1);
	UNTIL(number_in_redis("GET " VERSION) == REDIS_CHANGES_WAITING_MAX + 1);
	/* 9999 is n3 and odd, and so are 9993 to 9998 of the others, every second of them. */
	assert_int_equal(number_in_redis("HLEN " KEY), 4 + 1);
	assert_int_equal(number_in_redis("XLEN " LOG), 1000);
	close_both();
}

/* Changes that are not the agents' own words, as others of any release may put them. */
static void what_cannot_be_read_as_news_is_read_whole(void **state)
{
	static const struct {
		const char *title, *command[3];
		const char *told; /* of these */
		unsigned missing;
	} row[] = {
		{ "an agent that keeps no log", { "HSET " KEY " b 2", "INCR " VERSION }, "b=2 ",
			0 },
		{ "a log that was lost", { "DEL " LOG, "HSET " KEY " c 3", "INCR " VERSION },
			"c=3 ", 0 },
		{ "a number that is missing",
			{ "XADD " LOG " 9-0 name d text 4", "SET " VERSION " 9",
				"HSET " KEY " d 4" },
			"d=4 ", 0 },
		{ "an entry that is none",
			{ "HSET " KEY " e 5", "XADD " LOG " 2-0 nonsense x y z u v",
				"INCR " VERSION },
			"e=5 ", 0 },
		/* A replica that had not heard of the last one took over, and went on. */
		{ "another one under the number that is known",
			{ "DEL " LOG, "XADD " LOG " 1-0 name f text 6", "EVAL %s 0" },
			"a=1 f=6 g=7 ", 1 },
		{ "the number went back", { "DEL " KEY, "SET " VERSION " 0" }, "", 1 },
		{ "all is gone", { "FLUSHALL" }, "", 1 },
	};
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		server_start();
		open_both();
		both_are_told();
		put(&one, "a", "1");
		HEARS(&other, "+a=1 ");
		unsigned told = other.told;
		other.missing = 0;
		for (unsigned k = 0; k < 3 && row[i].command[k]; k++)
			tell(row[i].command[k], /* for the one that has a %s */
				"redis.call('HSET', '" KEY "', 'f', '6', 'g', '7') "
				"redis.call('XADD', '" LOG "', '2-0', 'name', 'g', 'text', '7') "
				"redis.call('INCR', '" VERSION "')");
		UNTIL(other.told > told || other.missing > row[i].missing);
		UNTIL(other.missing >= row[i].missing);
		if (other.missing != row[i].missing)
			fail_msg("%s: missing %u times", row[i].title, other.missing);
		if (!strstr(other.heard, row[i].told))
			fail_msg("%s: it heard %s", row[i].title, other.heard);
		/* From then on by news again. */
		put(&one, "z", "26");
		UNTIL(strstr(other.heard, "z=26"));
		close_both();
		server_stop();
	}
}

/* Numbers begin anew, and the log with them: an entry of a lower number it would not take. */
static void a_number_that_was_lost_begins_the_log_anew(void **state)
{
	(void)state;
	server_start();
	open_both();
	both_are_told();
	put(&one, "a", "1");
	put(&one, "b", "2");
	redis_changes_free(one.changes);
	redis_changes_free(other.changes);
	tell("DEL " VERSION);
	start(&one);
	start(&other);
	both_are_told();
	assert_string_equal(heard_of(&one), "a=1 b=2 ");
	put(&one, "c", "3");
	assert_int_equal(number_in_redis("GET " VERSION), 1);
	assert_int_equal(number_in_redis("XLEN " LOG), 1);
	other.heard[0] = '\0';
	HEARS(&other, "+c=3 ");
	close_both();
}

static void a_script_that_is_gone_is_sent_again(void **state)
{
	(void)state;
	server_start();
	open_both();
	both_are_told();
	tell("SCRIPT FLUSH");
	put(&one, "a", "1");
	UNTIL(strstr(other.heard, "a=1"));
	assert_int_equal(number_in_redis("GET " VERSION), 1);
	close_both();
}

/* It is told while it lasts, with what to do, and puts go through when it is over. */
static void a_refusal_is_told_while_it_lasts(void **state)
{
	static const struct {
		const char *title, *begins, *why, *hint, *ends;
		bool reads; /* it is reading that is refused, and not only writing */
	} row[] = {
		{ "no memory", "CONFIG SET maxmemory 1", "OOM", "maxmemory",
			"CONFIG SET maxmemory 0", false },
		{ "another format", "SET " VERSION " odd",
			"of a format that this release does not know", "redis.prefix",
			"DEL " VERSION, true },
		{ "no right", "ACL SETUSER default -evalsha", "NOPERM", "ACL SETUSER default ~rl:*",
			"ACL SETUSER default +evalsha", false },
		{ "a replica", "REPLICAOF 127.0.0.1 1", "READONLY", "replica", "REPLICAOF NO ONE",
			false },
	};
	struct redis_changes_trouble t;
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		server_start();
		open_both();
		both_are_told();
		assert_false(redis_changes_trouble(one.changes, INT64_MAX, &t));
		tell(row[i].begins, "");
		unsigned moved = one.moved;
		uint64_t number = redis_changes_put(one.changes, "a", "1");
		UNTIL(redis_changes_state(one.changes).refused);
		assert_true(one.moved > moved);
		struct redis_changes_state s = redis_changes_state(one.changes);
		assert_int_equal(s.waiting, 1);
		if (!strstr(s.refused, row[i].why))
			fail_msg("%s: %s", row[i].title, s.refused);
		/* At once: it is not only late. */
		assert_true(redis_changes_trouble(one.changes, clock_steady(), &t));
		assert_string_equal(t.why, s.refused);
		if (!strstr(t.hint, row[i].hint))
			fail_msg("%s: hint %s", row[i].title, t.hint);
		/* Who wants nothing of it notices where it could not read either. */
		if (row[i].reads)
			UNTIL(redis_changes_trouble(other.changes, clock_steady(), &t));
		tell(row[i].ends, "");
		UNTIL(redis_changes_state(one.changes).had == number);
		UNTIL(!redis_changes_trouble(one.changes, clock_steady(), &t));
		assert_null(redis_changes_state(one.changes).refused);
		UNTIL(strstr(other.heard, "a=1"));
		UNTIL(!redis_changes_trouble(other.changes, INT64_MAX, &t));
		close_both();
		server_stop();
	}
}

/* Not what a failover takes. */
static void who_is_away_for_a_while_is_told(void **state)
{
	struct redis_changes_trouble t;
	(void)state;

	server_start();
	open_both();
	usec_t since = redis_changes_state(one.changes).away_since;
	assert_false(redis_changes_trouble(one.changes, since + 4900 * USEC_PER_MSEC, &t));
	assert_true(redis_changes_trouble(one.changes, since + 5 * USEC_PER_SEC, &t));
	assert_true(t.since == since && t.why[0] && t.hint[0]);
	both_are_told();
	UNTIL(!redis_changes_trouble(one.changes, INT64_MAX, &t));
	server_stop();
	UNTIL((since = redis_changes_state(one.changes).away_since));
	assert_false(redis_changes_trouble(one.changes, since + 4900 * USEC_PER_MSEC, &t));
	assert_true(redis_changes_trouble(one.changes, since + 5 * USEC_PER_SEC, &t));
	assert_true(t.since == since && t.why[0] && t.hint[0]);
	server_start();
	UNTIL(!redis_changes_trouble(one.changes, INT64_MAX, &t));
	close_both();
}

/* ---- what is read ---- */

static redisReply text_reply(const char *text)
{
	return (redisReply){
		.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)text, .len = strlen(text)
	};
}

static void a_number_is_read_whole_or_not_at_all(void **state)
{
	static const struct {
		const char *text;
		bool good;
		long long is;
	} row[] = {
		{ "0", true, 0 },
		{ "12", true, 12 },
		{ "9223372036854775807", true, INT64_MAX },
		{ "9223372036854775808", false, 0 },
		{ "-1", false, 0 },
		{ "", false, 0 },
		{ "x", false, 0 },
		{ "12x", false, 0 },
		{ "1.5", false, 0 },
	};
	long long version;
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		redisReply r = text_reply(row[i].text);
		if (redis_changes_read_version(&r, &version) != row[i].good)
			fail_msg("\"%s\"", row[i].text);
		if (row[i].good)
			assert_true(version == row[i].is);
	}
	redisReply nil = { .type = REDIS_REPLY_NIL }, number = { .type = REDIS_REPLY_INTEGER };
	version = 7;
	assert_true(redis_changes_read_version(&nil, &version));
	assert_int_equal(version, 0); /* nobody ever put anything */
	assert_false(redis_changes_read_version(&number, &version));
	redisReply longer = text_reply("12");
	longer.len = 3; /* a NUL in it */
	assert_false(redis_changes_read_version(&longer, &version));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		REDIS_TEST(who_changes_something_is_heard_by_the_other_and_once),
		REDIS_TEST(what_is_put_before_redis_is_there_waits_for_it),
		REDIS_TEST(what_cannot_be_read_as_news_is_read_whole),
		REDIS_TEST(a_number_that_was_lost_begins_the_log_anew),
		REDIS_TEST(a_script_that_is_gone_is_sent_again),
		REDIS_TEST(a_refusal_is_told_while_it_lasts),
		REDIS_TEST(who_is_away_for_a_while_is_told),
		cmocka_unit_test(a_number_is_read_whole_or_not_at_all),
	};
	if (!tests_begin(argc, argv))
		return 2;
	int rc = cmocka_run_group_tests_name("store/redis_changes", tests, NULL, NULL);
	tests_end();
	return rc;
}
