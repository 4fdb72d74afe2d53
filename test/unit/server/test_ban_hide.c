/* What stays of a ban's client where fields of it are secret now. */
#include "server/ban_hide.h"

#include "loaded.h"

#include <stdio.h>

static const struct hash_key test_key = { .bytes = { 1 } };

#define ALICE "sha256:2bd806c97f0e"

static void only_hashes_stay(void **state)
{
	static const struct {
		const char *title, *secret, *client, *hidden; /* NULL: as it is */
	} row[] = {
		{ "nothing is secret but keys", "\"key\"", "user=alice+host=a", NULL },
		{ "one of two", "\"user\"", "user=alice+host=a", "user=" ALICE "+host=a" },
		{ "the other", "\"host\"", "user=b+host=alice", "user=b+host=" ALICE },
		{ "hidden already", "\"user\"", "user=" ALICE "+host=a", NULL },
		{ "what only looks hidden", "\"user\"", "user=sha256:alice+host=a",
			"user=sha256:20fab5f88774+host=a" },
		{ "who says a + himself: all of it", "\"user\"", "user=alice+x+host=a",
			"user=sha256:4dac38a91e2e" },
		{ "who says one in front", "\"host\"", "user=a+b+host=alice",
			"user=a+b+host=" ALICE },
		{ "no field of that name", "\"user\"", "username=alice", NULL },
		{ "nothing", "\"user\"", "", NULL },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		char text[512];
		snprintf(text, sizeof text,
			"identity: { secret = [ %s ]; }; rules = ( { name = \"r\"; "
			"rate = \"1/minute\"; per = [ \"user\", \"host\" ]; } );",
			row[i].secret);
		struct snapshot *s = loaded(text, &test_key, 1);
		struct ban b = { .rule = "r" };
		snprintf(b.client, sizeof b.client, "%s", row[i].client);
		bool any = ban_hide(s->policy, &b);
		if (any != (row[i].hidden != NULL) ||
			strcmp(b.client, any ? row[i].hidden : row[i].client) != 0)
			fail_msg("%s: %s", row[i].title, b.client);
		assert_false(ban_hide(s->policy, &b));
		drop(s);
	}
}

/* The rule is another agent's, or the text was cut: all that may be of the value goes. */
static void what_is_not_certain_goes(void **state)
{
	struct snapshot *s = loaded(
		"identity: { secret = [ \"user\" ]; }; rules = ( { name = \"r\"; "
		"rate = \"1/minute\"; per = [ \"user\", \"host\" ]; } );",
		&test_key, 1);
	struct ban b = { .rule = "unknown", .client = "host=a+user=alice+ip=10.0.0.1" };

	(void)state;
	assert_true(ban_hide(s->policy, &b));
	assert_memory_equal(b.client, "host=a+user=sha256:", 19);
	assert_int_equal(strlen(b.client), 19 + 12);

	memset(b.client, 'x', BAN_CLIENT_MAX);
	memcpy(b.client, "host=", 5);
	memcpy(b.client + BAN_CLIENT_MAX - 8, "+user=al", 8);
	assert_true(ban_hide(s->policy, &b));
	assert_int_equal(strlen(b.client), BAN_CLIENT_MAX);
	assert_null(strstr(b.client, "user=al"));
	/* Agents tell each other: what is hidden is left alone, also where its hash was cut. */
	assert_false(ban_hide(s->policy, &b));
	drop(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_hashes_stay),
		cmocka_unit_test(what_is_not_certain_goes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
