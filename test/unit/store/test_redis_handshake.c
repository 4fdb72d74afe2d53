/* What is said first to Redis, and which answers are good. */
#include "store/redis_conn.h"
#include "store/redis_handshake.h"
#include "store/redis_hints.h"

#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct redis_conn_settings settings(
	const char *username, const char *password, int db, const char *script, bool auth_if_asked)
{
	struct redis_conn_settings s = { .db = db,
		.script = script,
		.sha1 = "abc",
		.script_bytes = script ? strlen(script) : 0,
		.auth_if_asked = auth_if_asked };

	snprintf(s.username, sizeof s.username, "%s", username);
	snprintf(s.password, sizeof s.password, "%s", password);
	return s;
}

/* All that is said, commands apart by a comma. */
static const char *said(const struct redis_handshake *h, const struct redis_conn_settings *s)
{
	static char text[200];
	size_t n = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < h->n; i++) {
		struct handshake_command c;
		redis_handshake_command(h, s, i, &c);
		for (unsigned k = 0; k < c.argc; k++)
			n += (size_t)snprintf(text + n, sizeof text - n, "%s%.*s",
				k   ? " "
				: i ? ","
				    : "",
				(int)c.bytes[k], c.argv[k]);
	}
	return text;
}

static void what_is_said(void **state)
{
	static const struct {
		const char *username, *password;
		int db;
		const char *script;
		bool auth_if_asked, asked_who, master_only;
		const char *said;
	} row[] = {
		{ "", "", 0, NULL, 0, 0, 0, "PING" },
		{ "", "", 0, "return 1", 0, 0, 0, "SCRIPT LOAD return 1" },
		{ "", "p", 0, NULL, 0, 0, 0, "AUTH p,PING" },
		{ "u", "p", 3, "s", 0, 0, 1, "AUTH u p,SELECT 3,ROLE,SCRIPT LOAD s" },
		{ "u", "", 0, NULL, 0, 0, 0, "AUTH u ,PING" },
		{ "u", "p", 0, NULL, 1, 0, 0, "PING" },
		{ "u", "p", 0, NULL, 1, 1, 0, "AUTH u p,PING" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct redis_conn_settings s = settings(row[i].username, row[i].password, row[i].db,
			row[i].script, row[i].auth_if_asked);
		struct redis_handshake h = { .asked_who = row[i].asked_who };
		redis_handshake_begin(&h, &s, row[i].master_only);
		assert_string_equal(said(&h, &s), row[i].said);
	}
}

/* Steps of "AUTH u p,SELECT 3,ROLE,SCRIPT LOAD s": those before `at` went well. */
static void what_is_answered(void **state)
{
	static const struct {
		unsigned at;
		int type;
		const char *text, *why; /* why NULL: it goes well */
		bool hint;
	} row[] = {
		{ 0, REDIS_REPLY_STATUS, "OK", NULL, false },
		{ 0, REDIS_REPLY_STATUS, "PONG", "it does not answer as Redis does", true },
		{ 0, REDIS_REPLY_ERROR, "WRONGPASS no", "WRONGPASS no", true },
		{ 0, REDIS_REPLY_ERROR, "ERR unknown command `AUTH`, with args beginning with: `p`",
			"ERR unknown command ", true },
		{ 1, REDIS_REPLY_ERROR, "ERR of tomorrow", "ERR of tomorrow", true },
		{ 1, REDIS_REPLY_STATUS, "OK", NULL, false },
		{ 1, REDIS_REPLY_ERROR, "ERR DB index is out of range",
			"ERR DB index is out of range", true },
		{ 2, REDIS_REPLY_ARRAY, "master", NULL, false },
		{ 2, REDIS_REPLY_ARRAY, "slave", "it is no master", true },
		{ 2, REDIS_REPLY_ARRAY, NULL, "it does not answer as Redis does", true },
		{ 3, REDIS_REPLY_STRING, "abc", NULL, false },
		{ 3, REDIS_REPLY_STRING, "abcd", "it does not answer as Redis does", true },
		{ 3, REDIS_REPLY_INTEGER, NULL, "it does not answer as Redis does", true },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct redis_conn_settings s = settings("u", "p", 3, "s", false);
		struct redis_handshake h = { .at = 0 };
		char why[80], text[80];
		const char *hint = NULL;
		snprintf(text, sizeof text, "%s", row[i].text ? row[i].text : "");
		redisReply role = { .type = REDIS_REPLY_STRING, .str = text };
		role.len = strlen(text);
		redisReply *elements[] = { &role };
		redisReply r = { .type = row[i].type, .str = text };
		r.len = strlen(text);
		if (row[i].type == REDIS_REPLY_ARRAY && row[i].text) {
			r.elements = 1;
			r.element = elements;
		}
		redis_handshake_begin(&h, &s, true);
		h.at = row[i].at;
		bool good = redis_handshake_reply(&h, &s, &r, why, sizeof why, &hint);
		if (good != !row[i].why || (!good && strcmp(why, row[i].why) != 0))
			fail_msg("row %zu: %s", i, good ? "good" : why);
		if (!good)
			assert_int_equal(hint != NULL, row[i].hint);
		assert_int_equal(redis_handshake_is_done(&h), row[i].at == 3);
	}
}

/* A sentinel without a password is not told one; one that asks is, the next time. */
static void who_asks_is_told(void **state)
{
	struct redis_conn_settings s = settings("", "p", 0, NULL, true);
	struct redis_handshake h = { .at = 0 };
	char why[80], text[] = "NOAUTH Authentication required.";
	const char *hint;
	redisReply r = { .type = REDIS_REPLY_ERROR, .str = text };
	(void)state;
	r.len = strlen(text);
	redis_handshake_begin(&h, &s, false);
	assert_false(redis_handshake_reply(&h, &s, &r, why, sizeof why, &hint));
	redis_handshake_begin(&h, &s, false);
	assert_string_equal(said(&h, &s), "AUTH p,PING");
}

/* Of one that is away: an address that the unit's IPAddressAllow= does not have says so. */
static void the_hint_names_the_unit(void **state)
{
	static const struct {
		const char *host;
		bool unit;
	} row[] = {
		{ "10.0.0.5", true },
		{ "2001:db8::5", true },
		{ "127.0.0.1", false },
		{ "127.9.9.9", false },
		{ "::1", false },
		{ "::ffff:127.0.0.1", false },
		{ "/run/redis/redis.sock", false },
	};
	(void)state;
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		struct redis_address a = { .port = 6379 };
		snprintf(a.host, sizeof a.host, "%s", row[i].host);
		const char *hint = redis_reach_hint(&a);
		assert_int_equal(hint && strstr(hint, "IPAddressAllow="), row[i].unit);
	}
	assert_null(redis_reach_hint(NULL));
}

/* Redis 5 and 6 put words of the script's around it, 7.0 and newer have others for NOPERM. */
static void the_hint_is_for_what_a_script_met(void **state)
{
	(void)state;
#define AROUND "ERR Error running script (call to f_b2): @user_script:151: @user_script: 151: "
	static const struct {
		const char *error, *core, *hint;
	} row[] = {
		{ "OOM command not allowed", "OOM command not allowed", "raise its maxmemory" },
		{ AROUND "-OOM command not allowed", "OOM command not allowed",
			"raise its maxmemory" },
		{ AROUND "-READONLY You can't write", "READONLY You can't write", "a replica" },
		{ AROUND "-NOPERM The user", "NOPERM The user", "its ACL denies" },
		{ AROUND "attempt to index", AROUND "attempt to index", NULL },
		{ "ERR The user executing the script can't run this command or subcommand",
			"ERR The user executing the script can't run this command or subcommand",
			"its ACL denies" },
		{ "ERR ACL failure in script: User ratelimit has no permissions",
			"ERR ACL failure in script: User ratelimit has no permissions",
			"its ACL denies" },
		{ "ERR unknown command `EVALSHA`, with args beginning with: `5d`",
			"ERR unknown command `EVALSHA`, with args beginning with: `5d`",
			"renamed or disabled" },
		{ "ERR unknown command `SELECT`", "ERR unknown command `SELECT`", "a sentinel" },
		{ "", "", NULL },
	};
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		const char *hint = redis_error_hint(row[i].error);
		assert_string_equal(redis_error_core(row[i].error), row[i].core);
		assert_int_equal(hint != NULL, row[i].hint != NULL);
		if (hint)
			assert_non_null(strstr(hint, row[i].hint));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_said),
		cmocka_unit_test(what_is_answered),
		cmocka_unit_test(who_asks_is_told),
		cmocka_unit_test(the_hint_names_the_unit),
		cmocka_unit_test(the_hint_is_for_what_a_script_met),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
