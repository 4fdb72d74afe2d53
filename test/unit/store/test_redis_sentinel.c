/* The Redis store and sentinels, of which some are dead, and some lie. */
#include "redis_fake.h"

static const char *tcp_args[16];

static void run_tcp(void)
{
	int null = open("/dev/null", O_RDWR);
	dup2(null, 0);
	dup2(null, 1);
	execvp(tcp_args[0], (char **)(uintptr_t)tcp_args);
}

static pid_t tcp_start(const char *port, const char *master_port)
{
	char of[32];
	snprintf(of, sizeof of, "127.0.0.1 %s", master_port ? master_port : "");
	const char *args[] = { "redis-server", "--bind", "127.0.0.1", "--port", port, "--dir",
		folder, "--save", "", "--repl-diskless-sync-delay", "0",
		master_port ? "--replicaof" : NULL, of, NULL };
	memcpy(tcp_args, args, sizeof args);
	return child(run_tcp);
}

static pid_t sentinel_start(const char *port, const char *master_port, const char *config)
{
	FILE *f = fopen(config, "w");
	assert_non_null(f);
	fprintf(f,
		"bind 127.0.0.1\nport %s\ndir %s\nsentinel monitor mine 127.0.0.1 %s 1\n"
		/* On a busy machine nobody is taken for dead: it fails over when it is told to. */
		"sentinel down-after-milliseconds mine 120000\n"
		"sentinel failover-timeout mine 120000\n",
		port, folder, master_port);
	fclose(f);
	const char *args[] = { "redis-server", config, "--sentinel", NULL };
	memcpy(tcp_args, args, sizeof args);
	return child(run_tcp);
}

static void kill_child(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Asks until it says so. */
static void wait_for_word(unsigned port, const char *command, const char *word)
{
	for (usec_t end = clock_steady() + BOUND; clock_steady() < end; usleep(10000)) {
		redisContext *c = redisConnect("127.0.0.1", (int)port);
		redisReply *r = c->err ? NULL : redisCommand(c, command);
		bool found = r && r->type != REDIS_REPLY_ERROR && r->str && strstr(r->str, word);
		freeReplyObject(r);
		redisFree(c);
		if (found)
			return;
	}
	fail_msg("%s never says %s", command, word);
}

/* One sentinel that works, one that is dead, one that names a server that is none, one that names
 * no address at all. */
static void test_sentinels(void **state)
{
	(void)state;
	static const char nowhere[] = "*2\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n";
	char port[4][8], config[80];
	uint16_t number[4];

	for (unsigned i = 0; i < 4; i++) {
		number[i] = reserve_port();
		snprintf(port[i], sizeof port[i], "%u", (unsigned)number[i]);
	}
	snprintf(config, sizeof config, "%s/sentinel.conf", folder);
	pid_t master = tcp_start(port[0], NULL), replica = tcp_start(port[1], port[0]);
	wait_for_word(number[1], "INFO replication", "master_link_status:up");
	pid_t sentinel = sentinel_start(port[2], port[0], config);
	wait_for_word(number[2], "INFO sentinel", "slaves=1");
	fake_start(NULL, NULL, nowhere, sizeof nowhere - 1);

	where.mode = REDIS_SENTINEL;
	where.server_n = 3;
	snprintf(where.master, sizeof where.master, "mine");
	memcpy(hosts[1].host, "127.0.0.1", 10);
	hosts[1].port = number[2];
	memcpy(hosts[2].host, "127.0.0.1", 10);
	hosts[2].port = number[3]; /* nobody there */
	open_store();
	/* Who is asked once more has been heard: whom they name changes no more, for now. */
	UNTIL(*asked_for_master >= 2);
	wait_well();
	for (unsigned i = 0; i < 3; i++)
		(void)ask(1, 1);
	settle();
	assert_int_equal(all_answered(), 3);
	wait_for_word(number[1], "INFO keyspace", "keys=1");

	/* The master dies: nobody waits, and who was counted there is known to its successor. */
	kill_child(master);
	uint64_t connects = COUNT(connects);
	UNTIL(!is_well());
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(ask(2, 1)->done, 1);
		run_for(USEC_PER_MSEC);
	}
	assert_int_equal(all_answered(), 0);
	wait_for_word(number[2], "SENTINEL FAILOVER mine", "OK");
	UNTIL(COUNT(connects) > connects);
	wait_well();
	struct asked *a = ask(1, 1);
	settle();
	assert_true(a->plan.denied);
	assert_int_equal(all_answered(), 1);

	/* The old one comes back as what it is now. */
	master = tcp_start(port[0], port[1]);
	wait_for_word(number[0], "INFO replication", "master_link_status:up");
	close_store();

	/* Only one that names a replica: it is not taken. */
	server_stop();
	char lie[80];
	memset(lie, 0, sizeof lie);
	int n = snprintf(lie, sizeof lie, "*2\r\n$9\r\n127.0.0.1\r\n$%zu\r\n%s\r\n",
		strlen(port[0]), port[0]);
	fake_start(NULL, NULL, lie, (size_t)n);
	where.server_n = 1;
	open_store();
	UNTIL(COUNT(connects_failed) >= 2);
	assert_false(is_well());
	assert_int_equal(COUNT(connects), 0);
	close_store();

	kill_child(sentinel);
	kill_child(replica);
	kill_child(master);
	(void)unlink(config);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		REDIS_TEST(test_sentinels),
	};
	if (!tests_begin(argc, argv) || !fakes_begin())
		return 2;
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	tests_end();
	return rc;
}
