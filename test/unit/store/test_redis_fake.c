/* The Redis store against peers that are no Redis, or a slow one. */
#include "redis_fake.h"

static void lives_with(const char *connect, const char *load, const char *call, size_t call_bytes)
{
	server_stop();
	fake_start(connect, load, call, call_bytes);
	settings.timeout = TIMEOUT;
	open_store();
	for (unsigned i = 0; i < 150; i++) {
		(void)ask(i, 1);
		run_for(USEC_PER_MSEC);
	}
	settle();
	(void)all_answered();
	close_store();
}

#define EIGHT "$8\r\n\0\0\0\0\0\0\6\0\r\n"

static void test_nonsense(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t n;
	} say_this[] = {
#define SAY(text) { text, sizeof(text) - 1 }
		SAY(""),
		SAY("HTTP/1.1 400 Bad Request\r\n\r\n"),
		SAY("+OK\r\n"),
		SAY("+OK\r\n+OK\r\n+OK\r\n"),
		SAY("*2147483647\r\n"),
		SAY("*1000000\r\n"),
		SAY("*64\r\n*64\r\n*64\r\n*64\r\n*64\r\n*64\r\n"),
		SAY("$999999999999\r\nxxxx"),
		SAY("$-1\r\n"),
		SAY("*-1\r\n"),
		SAY("*0\r\n"),
		SAY(":1\r\n"),
		SAY("$0\r\n\r\n"),
		SAY("-LOADING Redis is loading the dataset in memory\r\n"),
		SAY("-NOSCRIPT No matching script\r\n"),
		SAY("-\r\n"),
		SAY("\0\0\0\0"),
		SAY(EIGHT "+OK\r\n"),
		SAY(EIGHT EIGHT EIGHT),
		SAY("$8\r\n\xff\xff\xff\xff\xff\xff\xff\xff\r\n"),
	};

	for (unsigned i = 0; i < sizeof say_this / sizeof *say_this; i++) {
		const char *text = say_this[i].text;
		if (strlen(text) == say_this[i].n) {
			lives_with(text, sha_reply, EIGHT, sizeof EIGHT - 1);
			lives_with(NULL, text, EIGHT, sizeof EIGHT - 1);
		}
		lives_with(NULL, sha_reply, text, say_this[i].n);
	}
	lives_with(NULL, NULL, NULL, 0);                      /* never a word */
	lives_with(NULL, sha_reply, NULL, 0);                 /* none after the handshake */
	lives_with(NULL, sha_reply, EIGHT, sizeof EIGHT - 1); /* to probes only */

	/* An endless line, an endless string. */
	static char flood[300000];
	memset(flood, 'x', sizeof flood - 1);
	flood[0] = '-';
	lives_with(NULL, sha_reply, flood, sizeof flood - 1);
	memcpy(flood, "$290000\r\n", 9);
	lives_with(NULL, sha_reply, flood, sizeof flood - 1);
	lives_with(NULL, flood, NULL, 0);
}

/* One that answers well, but later than anyone waits for, is as good as away. */
static void test_slow(void **state)
{
	(void)state;
	settings.timeout = TIMEOUT;
	for (on_call_after = 40000; on_call_after <= 160000; on_call_after += 120000) {
		server_stop();
		fake_start(NULL, sha_reply, EIGHT, sizeof EIGHT - 1);
		open_store();
		for (unsigned i = 0; i < 500; i++) {
			assert_int_equal(ask(i, 1)->done, 1);
			run_for(USEC_PER_MSEC);
			assert_false(is_well());
		}
		UNTIL(COUNT(connects) >= 1);
		assert_false(is_well());
		assert_int_equal(all_answered(), 0);
		close_store();
	}
	on_call_after = 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		REDIS_TEST(test_nonsense),
		REDIS_TEST(test_slow),
	};
	if (!tests_begin(argc, argv) || !fakes_begin())
		return 2;
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	tests_end();
	return rc;
}
