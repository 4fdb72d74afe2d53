/* The Redis store while its redis-server hangs, dies, comes back, or says no. */
#include "redis_rig.h"

/* ---- it is away ---- */

static void test_client_kill(void **state)
{
	(void)state;
	server_start();
	open_store();
	for (unsigned i = 0; i < 5; i++) {
		wait_well();
		(void)ask(i, 1);
		tell("CLIENT KILL TYPE normal SKIPME yes");
		(void)ask(i, 1);
		settle();
		(void)ask(i, 1);
		settle();
		(void)all_answered();
	}
	wait_well();
	assert_true(COUNT(connects) >= 6);
	close_store();
}

static void test_stopped(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	for (unsigned round = 0; round < 2; round++) {
		set_timeout(TIMEOUT);
		kill(server, SIGSTOP);
		for (unsigned i = 0; i < 300; i++) {
			(void)ask(i, 1);
			run_for(USEC_PER_MSEC);
		}
		assert_false(is_well());
		/* The breaker is open: nobody waits. */
		struct asked *a = ask(1, 1);
		assert_int_equal(a->done, 1);
		assert_true(a->plan.degraded);
		settle();
		assert_int_equal(all_answered(), 0);
		set_timeout(PATIENT);
		kill(server, SIGCONT);
		wait_well();
		(void)ask(1000 + round, 1);
		settle();
		assert_int_equal(all_answered(), 1);
	}
	assert_true(COUNT(breaks) >= 2);
	/* What hangs is given up for another. */
	assert_true(COUNT(connects) >= 3);
	close_store();
}

static void test_killed(void **state)
{
	(void)state;
	server_start();
	open_store();
	for (unsigned round = 0; round < 3; round++) {
		wait_well();
		for (unsigned i = 0; i < 50; i++)
			(void)ask(i, 1);
		run_for(50);
		server_stop();
		for (unsigned i = 0; i < 100; i++) {
			(void)ask(i, 1);
			run_for(USEC_PER_MSEC);
		}
		assert_false(is_well());
		settle();
		(void)all_answered();
		server_start();
	}
	wait_well();
	(void)ask(1, 1);
	settle();
	assert_int_equal(all_answered(), 1);
	close_store();
}

/* Those who ask again as soon as they are answered, whatever answers them. */
static void test_chained(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	for (unsigned round = 0; round < 4; round++) {
		if (round == 1)
			set_timeout(TIMEOUT);
		chain = 300;
		for (unsigned i = 0; i < 100; i++)
			(void)ask(1000 + i, 1);
		run_for(100);
		if (round == 1) /* deadlines, and the breaker */
			kill(server, SIGSTOP);
		if (round == 2) /* lost */
			server_stop();
		run_for(200 * USEC_PER_MSEC);
		chain = 0;
		settle();
		(void)all_answered();
		set_timeout(PATIENT);
		if (round == 1)
			kill(server, SIGCONT);
		if (round == 2)
			server_start();
		wait_well();
	}
	chain = 50;
	for (unsigned i = 0; i < 100; i++)
		(void)ask(2000 + i, 1);
	unsigned first = asked_n;
	close_store();
	assert_int_equal(asked_n, first + 50);
	for (unsigned i = 0; i < asked_n; i++)
		assert_int_equal(asked[i].done, 1);
}

static void test_away_at_start(void **state)
{
	(void)state;
	open_store();
	run_for(200 * USEC_PER_MSEC);
	(void)ask(1, 1);
	assert_int_equal(all_answered(), 0);
	server_start();
	wait_well();
	close_store();
}

/* What was charged before the failure is known after it. */
static void test_kept_warm(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	for (unsigned i = 0; i < 3; i++)
		(void)ask(5, 1);
	settle();
	assert_int_equal(all_answered(), 3);
	server_stop();
	UNTIL(!is_well());
	struct asked *a = ask(5, 1);
	assert_true(a->plan.degraded);
	assert_true(a->plan.denied);
	assert_false(ask(6, 1)->plan.denied);
	(void)all_answered();
	close_store();
}

static void test_closed_in_flight(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	kill(server, SIGSTOP);
	for (unsigned i = 0; i < 300; i++)
		(void)ask(i, 1);
	run_for(2 * USEC_PER_MSEC);
	for (unsigned i = 0; i < 300; i++)
		(void)ask(i, 1);
	assert_int_equal(redis_store_waiting(store), 600);
	close_store();
	for (unsigned i = 0; i < 600; i++) {
		assert_int_equal(asked[i].done, 1);
		assert_true(asked[i].plan.degraded);
	}
	/* Settled first, replies that come later harm nobody. */
	asked_n = oldest = 0;
	kill(server, SIGCONT);
	open_store();
	wait_well();
	kill(server, SIGSTOP);
	for (unsigned i = 0; i < 100; i++)
		(void)ask(i, 1);
	run_for(USEC_PER_MSEC);
	redis_store_settle(store);
	assert_int_equal(all_answered(), 0);
	kill(server, SIGCONT);
	settle();
	(void)ask(1000, 1);
	settle();
	assert_int_equal(all_answered(), 1);
	close_store();
}

/* ---- it says no ---- */

static void fails_until(const char *cure)
{
	ask_until(false);
	/* Every few tries one check asks; the others do not wait. */
	for (unsigned i = 0; i < 300; i++) {
		(void)ask(1, 1);
		run_for(USEC_PER_MSEC);
		assert_false(is_well());
	}
	settle();
	assert_int_equal(all_answered(), 0);
	redisContext *c = admin();
	redisReply *r = redisCommand(c, cure);
	assert_non_null(r);
	freeReplyObject(r);
	redisFree(c);
	ask_until(true);
	(void)ask(3, 1);
	settle();
	assert_int_equal(all_answered(), 1);
}

static void test_errors(void **state)
{
	(void)state;
	static const struct {
		const char *ill, *cure;
	} row[] = {
		{ "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0" },
		{ "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE" },
		{ "ACL SETUSER default -evalsha", "ACL SETUSER default +evalsha" },
		{ "ACL SETUSER default resetkeys ~other:*", "ACL SETUSER default ~*" },
		{ "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0" },
	};
	server_start();
	open_store();
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		wait_well();
		redisContext *c = admin();
		redisReply *r = redisCommand(c, row[i].ill);
		assert_non_null(r);
		assert_int_not_equal(r->type, REDIS_REPLY_ERROR);
		freeReplyObject(r);
		redisFree(c);
		fails_until(row[i].cure);
	}
	close_store();
}

/* Who was refused and is not asked any more hears from another store that it is over. */
static void test_whom_nobody_asks(void **state)
{
	(void)state;
	server_start();
	open_store();
	struct redis_store *first = store;
	struct redis_store *second = redis_store_new(&settings, hub, memory, loop);
	assert_non_null(second);
	wait_well();
	tell("CONFIG SET maxmemory 1");
	ask_until(false);
	store = second;
	wait_well();
	ask_until(false);
	tell("CONFIG SET maxmemory 0");
	/* Its own calls come back, and it does not know what that is worth. */
	run_for(3 * USEC_PER_SEC);
	assert_false(is_well());
	store = first;
	ask_until(true);
	store = second;
	wait_well();
	(void)ask(1, 1);
	settle();
	assert_int_equal(all_answered(), 1);
	store_close(redis_store_base(second));
	store = first;
	close_store();
}

static void run_slow_script(void)
{
	redisContext *c = admin();
	redisReply *r = redisCommand(c, "EVAL %s 0", "while true do end");
	freeReplyObject(r);
	_exit(0);
}

static void test_busy(void **state)
{
	(void)state;
	server_args[0] = "--lua-time-limit";
	server_args[1] = "50";
	server_start();
	open_store();
	wait_well();
	pid_t slow = child(run_slow_script);
	ask_until(false);
	for (unsigned i = 0; i < 300; i++) {
		(void)ask(1, 1);
		run_for(USEC_PER_MSEC);
	}
	settle();
	(void)all_answered();
	assert_false(is_well());
	tell("SCRIPT KILL");
	waitpid(slow, NULL, 0);
	ask_until(true);
	close_store();
}

/* Whatever lies at a key that is no bucket counts as never seen, and is overwritten. */
static void test_wrong_type(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	(void)ask(9, 1);
	settle();
	redisContext *c = admin();
	redisReply *keys = redisCommand(c, "KEYS *");
	assert_int_equal(keys->elements, 1);
	freeReplyObject(redisCommand(c, "DEL %s", keys->element[0]->str));
	freeReplyObject(redisCommand(c, "LPUSH %s x", keys->element[0]->str));
	for (unsigned i = 0; i < 4; i++)
		(void)ask(9, 1);
	settle();
	assert_true(asked[4].plan.denied);
	assert_int_equal(all_answered(), 5);
	redisReply *type = redisCommand(c, "TYPE %s", keys->element[0]->str);
	assert_string_equal(type->str, "string");
	freeReplyObject(type);
	freeReplyObject(keys);
	redisFree(c);
	close_store();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		REDIS_TEST(test_client_kill),
		REDIS_TEST(test_stopped),
		REDIS_TEST(test_killed),
		REDIS_TEST(test_chained),
		REDIS_TEST(test_away_at_start),
		REDIS_TEST(test_kept_warm),
		REDIS_TEST(test_closed_in_flight),
		REDIS_TEST(test_errors),
		REDIS_TEST(test_whom_nobody_asks),
		REDIS_TEST(test_busy),
		REDIS_TEST(test_wrong_type),
	};
	if (!tests_begin(argc, argv))
		return 2;
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	tests_end();
	return rc;
}
