/* The Redis store against a real redis-server: what it answers, to whom it talks, and how. */
#include "redis_rig.h"

static void test_answers(void **state)
{
	(void)state;
	server_start();
	open_store();
	assert_int_equal(ask(7, 1)->done, 1); /* nobody there yet: answered at once */
	assert_true(asked[0].plan.degraded);
	asked_n = oldest = 0;
	wait_well();
	for (unsigned i = 0; i < 5; i++) {
		struct asked *a = ask(7, 1);
		settle();
		assert_int_equal(a->done, 1);
		assert_false(a->plan.degraded);
		assert_int_equal(a->plan.denied, i >= 3);
		assert_true(a->plan.now.utc > 1600000000 * USEC_PER_SEC);
	}
	assert_int_equal(all_answered(), 5);
	/* In one turn: in order, and all in one call. */
	uint64_t calls = COUNT(calls);
	for (unsigned i = 0; i < 5; i++)
		(void)ask(8, 1);
	settle();
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(asked[i].plan.denied, i >= 3);
	assert_int_equal(all_answered(), 5);
	assert_int_equal(COUNT(calls), calls + 1);
	/* A plan without takes asks nobody. */
	struct plan empty = { .done = on_done };
	assert_int_equal(store_take(redis_store_base(store), &empty, clock_read()), STORE_DONE);
	assert_false(empty.denied);
	close_store();
}

static void test_many(void **state)
{
	(void)state;
	server_start();
	set_limit(1000);
	open_store();
	wait_well();
	unsigned denied = 0;
	for (unsigned i = 0; i < 4000; i++)
		(void)ask(i % 2, 1);
	settle();
	for (unsigned i = 0; i < 4000; i++) {
		assert_int_equal(asked[i].done, 1);
		denied += asked[i].plan.denied;
	}
	assert_int_equal(denied, 2000);
	assert_int_equal(COUNT(answered), 4000);
	assert_int_equal(COUNT(refused), 0);
	/* More than can wait: the rest is answered at once. */
	asked_n = oldest = 0;
	for (unsigned i = 0; i < 6000; i++)
		(void)ask(i, 1);
	assert_true(COUNT(refused) > 0);
	settle();
	for (unsigned i = 0; i < 6000; i++)
		assert_int_equal(asked[i].done, 1);
	close_store();
}

static void test_script_flush(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	for (unsigned i = 0; i < 20; i++) {
		tell("SCRIPT FLUSH");
		(void)ask(i, 1);
		if (i % 2) /* several calls under way */
			run_for(100);
		(void)ask(i, 1);
		settle();
	}
	assert_int_equal(all_answered(), 40);
	assert_true(COUNT(scripts_sent) >= 20);
	assert_int_equal(COUNT(breaks), 0);
	close_store();
}

static void test_who(void **state)
{
	(void)state;
	server_start();
	tell("ACL SETUSER rl on >secret resetkeys ~rl:* -@all +evalsha +script|load +time +mget +set +setrange "
	     "+auth +select +ping");
	tell("ACL SETUSER default on >other");
	snprintf(settings.username, sizeof settings.username, "rl");
	snprintf(settings.password, sizeof settings.password, "secret");
	settings.db = 3;
	open_store();
	wait_well();
	(void)ask(1, 1);
	settle();
	assert_int_equal(all_answered(), 1);
	close_store();

	redisContext *c = admin();
	freeReplyObject(redisCommand(c, "AUTH other"));
	freeReplyObject(redisCommand(c, "SELECT 3"));
	redisReply *r = redisCommand(c, "DBSIZE");
	assert_int_equal(r->integer, 1);
	freeReplyObject(r);
	redisFree(c);

	/* The wrong one, and none. */
	for (unsigned i = 0; i < 2; i++) {
		snprintf(settings.password, sizeof settings.password, i ? "" : "wrong");
		settings.username[0] = '\0';
		open_store();
		UNTIL(COUNT(connects_failed) >= 2);
		assert_false(is_well());
		assert_int_equal(COUNT(connects), 0);
		assert_int_equal(ask(1, 1)->done, 1);
		assert_int_equal(all_answered(), 0);
		close_store();
	}
}

static void test_names(void **state)
{
	(void)state;
	char port[8];

	/* One that nobody knows: nothing waits for it. */
	snprintf(hosts[0].host, sizeof hosts[0].host, "no-such-name.invalid");
	hosts[0].port = 6379;
	open_store();
	run_for(50 * USEC_PER_MSEC);
	assert_int_equal(ask(1, 1)->done, 1);
	assert_int_equal(all_answered(), 0);
	close_store();

	/* localhost has one address or two, and only one of them has a server. */
	hosts[0].port = reserve_port();
	snprintf(port, sizeof port, "%u", hosts[0].port);
	snprintf(hosts[0].host, sizeof hosts[0].host, "localhost");
	server_args[0] = "--port";
	server_args[1] = port;
	server_args[2] = "--bind";
	server_args[3] = "127.0.0.1";
	server_start();
	open_store();
	wait_well();
	(void)ask(1, 1);
	settle();
	assert_int_equal(all_answered(), 1);
	close_store();

	/* Refused: two servers, no port. */
	char err[200];
	loop = ev_loop_new(EVFLAG_AUTO);
	where.server_n = 2;
	assert_null(redis_hub_new(&where, loop, err, sizeof err));
	where.server_n = 1;
	hosts[0].port = 0;
	assert_null(redis_hub_new(&where, loop, err, sizeof err));
	ev_loop_destroy(loop);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		REDIS_TEST(test_answers),
		REDIS_TEST(test_many),
		REDIS_TEST(test_script_flush),
		REDIS_TEST(test_who),
		REDIS_TEST(test_names),
	};
	if (!tests_begin(argc, argv))
		return 2;
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	tests_end();
	return rc;
}
