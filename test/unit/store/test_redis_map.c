/* What nodes of a cluster say of their slots, and where they send a call: as it is meant, and as
 * garbage or a lie. */
#include "rig.h"

#include "store/redis_map.h"

#include <hiredis/hiredis.h>

static const struct redis_address asked = { .host = "10.0.0.9", .port = 7000 };

static struct redis_map *read_map(const char *resp, char *why, size_t why_size)
{
	redisReader *reader = redisReaderCreate();
	void *reply = NULL;

	why[0] = '\0';
	assert_int_equal(redisReaderFeed(reader, resp, strlen(resp)), REDIS_OK);
	assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
	if (!reply)
		fail_msg("no whole reply: %s", resp);
	struct redis_map *m = redis_map_read(reply, &asked, why, why_size);
	freeReplyObject(reply);
	redisReaderFree(reader);
	return m;
}

#define RANGE(first, last, node) "*3\r\n:" #first "\r\n:" #last "\r\n" node
#define NODE(n, host, port)      "*3\r\n$" #n "\r\n" host "\r\n:" #port "\r\n$2\r\nid\r\n"
#define A                        NODE(8, "10.0.0.1", 7001)
#define B                        NODE(8, "10.0.0.2", 7002)

static void test_a_map(void **state)
{
	(void)state;
	char why[160];
	struct redis_map *m = read_map("*3\r\n" RANGE(0, 5460, A) RANGE(5461, 10000, B)
					       RANGE(16383, 16383, A),
		why, sizeof why);
	assert_non_null(m);
	assert_int_equal(m->node_n, 2);
	assert_string_equal(m->node[0].host, "10.0.0.1");
	assert_int_equal(m->node[0].port, 7001);
	assert_string_equal(m->node[1].host, "10.0.0.2");
	static const struct {
		unsigned slot, node;
	} rows[] = { { 0, 0 }, { 5460, 0 }, { 5461, 1 }, { 10000, 1 }, { 10001, REDIS_NO_NODE },
		{ 16382, REDIS_NO_NODE }, { 16383, 0 } };
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		assert_int_equal(m->slot[rows[i].slot], rows[i].node);

	/* The same, told by another node in another order. */
	struct redis_map *same = read_map("*3\r\n" RANGE(5461, 10000, B) RANGE(0, 5460, A)
						  RANGE(16383, 16383, A),
		why, sizeof why);
	assert_true(redis_map_eq(m, same));
	struct redis_map *other = read_map("*3\r\n" RANGE(5461, 10000, B) RANGE(0, 5460, A)
						   RANGE(16383, 16383, B),
		why, sizeof why);
	assert_false(redis_map_eq(m, other));
	assert_ptr_equal(redis_map_ref(m), m);
	redis_map_unref(m);
	redis_map_unref(m);
	redis_map_unref(same);
	redis_map_unref(other);
	redis_map_unref(NULL);
}

static void test_replicas_are_left_out(void **state)
{
	(void)state;
	char why[160];
	struct redis_map *m = read_map("*1\r\n*4\r\n:0\r\n:16383\r\n" A B, why, sizeof why);
	assert_non_null(m);
	assert_int_equal(m->node_n, 1);
	redis_map_unref(m);
}

static void test_addresses(void **state)
{
	(void)state;
	static const struct {
		const char *what, *node, *host, *why;
	} rows[] = {
		{ "IPv6", "*2\r\n$3\r\n::1\r\n:7001\r\n", "::1", NULL },
		{ "none: who was asked", "*2\r\n$0\r\n\r\n:7001\r\n", "10.0.0.9", NULL },
		{ "nil: who was asked", "*2\r\n$-1\r\n:7001\r\n", "10.0.0.9", NULL },
		{ "not known there: who was asked", "*2\r\n$1\r\n?\r\n:7001\r\n", "10.0.0.9",
			NULL },
		{ "a name, and its address beside it",
			"*4\r\n$5\r\nredis\r\n:7001\r\n$2\r\nid\r\n*2\r\n$2\r\nip\r\n$8\r\n10.0.0.3\r\n",
			"10.0.0.3", NULL },
		{ "a name alone", "*3\r\n$5\r\nredis\r\n:7001\r\n$2\r\nid\r\n", NULL,
			"it names a node without an address: set cluster-preferred-endpoint-type ip" },
		{ "no port", "*2\r\n$3\r\n::1\r\n:0\r\n", NULL, "" },
		{ "a port that is none", "*2\r\n$3\r\n::1\r\n:65536\r\n", NULL, "" },
		{ "a port in letters", "*2\r\n$3\r\n::1\r\n$4\r\n7001\r\n", NULL, "" },
		{ "nothing", "*0\r\n", NULL, "" },
		{ "a number", ":1\r\n", NULL, "" },
		{ "a host that is a number", "*2\r\n:1\r\n:7001\r\n", NULL, "" },
	};
	char text[512], why[160];
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		const char *host = rows[i].host;
		snprintf(text, sizeof text, "*1\r\n*3\r\n:0\r\n:16383\r\n%s", rows[i].node);
		struct redis_map *m = read_map(text, why, sizeof why);
		if (host && (!m || strcmp(m->node[0].host, host) != 0))
			fail_msg("%s: %s", rows[i].what, m ? m->node[0].host : why);
		if (!host && (m || !why[0] || (rows[i].why[0] && strcmp(why, rows[i].why) != 0)))
			fail_msg("%s: %s", rows[i].what, m ? m->node[0].host : why);
		redis_map_unref(m);
	}
}

static void test_no_map_to_go_by(void **state)
{
	(void)state;
	static const struct {
		const char *what, *text, *why;
	} rows[] = {
		{ "no cluster", "-ERR This instance has cluster support disabled\r\n",
			"ERR This instance has cluster support disabled" },
		{ "no slots", "*0\r\n", "it knows of no slot that is served" },
		{ "nothing", "$-1\r\n", "" },
		{ "text", "$2\r\nhi\r\n", "" },
		{ "a range of nobody", "*1\r\n*2\r\n:0\r\n:1\r\n", "" },
		{ "a slot too many", "*1\r\n" RANGE(0, 16384, A), "" },
		{ "one before the first", "*1\r\n" RANGE(-1, 5, A), "" },
		{ "backwards", "*1\r\n" RANGE(7, 6, A), "" },
		{ "far away", "*1\r\n" RANGE(9223372036854775807, 9223372036854775807, A), "" },
		{ "slots in letters", "*1\r\n*3\r\n$1\r\n0\r\n$1\r\n1\r\n" A, "" },
		{ "good, and then not", "*2\r\n" RANGE(0, 5, A) "*0\r\n", "" },
	};
	char why[160];
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct redis_map *m = read_map(rows[i].text, why, sizeof why);
		if (m || !why[0] || (rows[i].why[0] && strcmp(why, rows[i].why) != 0))
			fail_msg("%s: %s", rows[i].what, m ? "a map" : why);
	}
}

static void test_128_nodes_and_no_more(void **state)
{
	(void)state;
	static char text[64 * 1024];
	char why[160];
	for (unsigned nodes = 128; nodes <= 129; nodes++) {
		int n = snprintf(text, sizeof text, "*%u\r\n", nodes);
		for (unsigned i = 0; i < nodes; i++)
			n += snprintf(text + n, sizeof text - (size_t)n,
				"*3\r\n:%u\r\n:%u\r\n*2\r\n$8\r\n10.0.0.1\r\n:%u\r\n", i, i,
				7000 + i);
		struct redis_map *m = read_map(text, why, sizeof why);
		if (nodes == 128) {
			assert_non_null(m);
			assert_int_equal(m->slot[127], 127);
		} else {
			assert_null(m);
			assert_string_equal(why, "it has more than 128 masters");
		}
		redis_map_unref(m);
	}
}

static void test_redirects(void **state)
{
	(void)state;
	static const struct {
		const char *error;
		enum redis_redirect how;
		unsigned slot;
		const char *host;
		unsigned port;
	} rows[] = {
		{ "MOVED 3999 127.0.0.1:6381", REDIRECT_MOVED, 3999, "127.0.0.1", 6381 },
		{ "ASK 16383 127.0.0.1:6381", REDIRECT_ASK, 16383, "127.0.0.1", 6381 },
		{ "MOVED 0 ::1:6381", REDIRECT_MOVED, 0, "::1", 6381 },
		{ "MOVED 0 :6381", REDIRECT_MOVED, 0, "10.0.0.9", 6381 },
		{ "MOVED 0 redis.example:6381", REDIRECT_MOVED, 0, "", 6381 },
		{ "TRYAGAIN Multiple keys request during rehashing of slot", REDIRECT_TRYAGAIN, 0,
			NULL, 0 },
		{ "CLUSTERDOWN Hash slot not served", REDIRECT_NONE, 0, NULL, 0 },
		{ "CROSSSLOT Keys in request don't hash to the same slot", REDIRECT_NONE, 0, NULL,
			0 },
		{ "MOVED", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED ", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED 3999", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED 3999 ", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED 3999 127.0.0.1", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED 3999 127.0.0.1:", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED 3999 127.0.0.1:0", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED 3999 127.0.0.1:65536", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED 3999 127.0.0.1:6381 ", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED 3999 127.0.0.1:-1", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED 16384 127.0.0.1:6381", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED -1 127.0.0.1:6381", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED  3999 127.0.0.1:6381", REDIRECT_NONE, 0, NULL, 0 },
		{ "MOVED 99999999999999999999 127.0.0.1:6381", REDIRECT_NONE, 0, NULL, 0 },
		{ "ASKING", REDIRECT_NONE, 0, NULL, 0 },
		{ "", REDIRECT_NONE, 0, NULL, 0 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		uint16_t slot = 0;
		struct redis_address to = { .host = "x" };
		enum redis_redirect how = redis_redirect_read(rows[i].error, &asked, &slot, &to);
		if (how != rows[i].how ||
			(rows[i].host && (slot != rows[i].slot || to.port != rows[i].port ||
						 strcmp(to.host, rows[i].host) != 0)))
			fail_msg("\"%s\": %d, slot %u, \"%s\", port %u", rows[i].error, how, slot,
				to.host, to.port);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_map),
		cmocka_unit_test(test_replicas_are_left_out),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_no_map_to_go_by),
		cmocka_unit_test(test_128_nodes_and_no_more),
		cmocka_unit_test(test_redirects),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
