/* Which bans a configuration leaves to be found, and which it ends. */
#include "server/ban_ends.h"

#include "loaded.h"

#include <stdio.h>

static const struct hash_key test_key = { .bytes = { 1 } };

/* A configuration with one rule, `rule` in its braces. */
static struct snapshot *with_rule(const char *rule, const char *identity)
{
	char text[1024];

	snprintf(text, sizeof text,
		"identity: { %s }; rules = ( { name = \"r\"; rate = \"1/minute\"; %s } );",
		identity, rule);
	return loaded(text, &test_key, 1);
}

#define PENALTY "penalty = { after = \"3/1m\"; }; "

static void what_nothing_finds_ends(void **state)
{
	static const char user[] = PENALTY "per = [ \"user\" ];";
	static const char off[] = PENALTY "per = [ \"user\" ]; mode = \"off\";";
	static const char any[] = PENALTY "per = [ \"key|user|ip\" ];";
	static const char ip[] = PENALTY "per = [ \"ip\" ];";
	static const char both[] = PENALTY "per = [ \"user\", \"host\" ];";
	static const char none[] = "per = [ \"user\" ];";
	static const char who[] = PENALTY "per = [ \"user\", \"ip\" ];";
	static const char cut4[] = "ipv4_prefix = 24;", cut6[] = "ipv6_prefix = 48;";
	static const struct {
		const char *title, *before, *now, *client;
		const char *cut_before, *cut; /* identity */
		bool ends;
		bool ends_at_a_start; /* where it is not known what was before */
	} row[] = {
		{ "nothing has changed", user, user, "user=a", "", "", false, false },
		{ "another rate of its penalty's bans", user,
			"penalty = { after = \"3/1m\"; ban = \"1h\"; }; per = [ \"user\" ];",
			"user=a", "", "", false, false },
		{ "its penalty is gone", user, "per = [ \"user\" ];", "user=a", "", "", true,
			true },
		{ "another agent's, of which neither knows the penalty", none, none, "user=a", "",
			"", false, true },
		{ "another agent's, whose rule is not off", off, off, "user=a", "", "", false,
			true },
		{ "and is none's here either way", off, none, "user=a", "", "", false, true },
		{ "another agent's, of other fields", ip, ip, "user=a", "", "", false, true },
		{ "of other fields than both", ip, both, "user=a", "", "", false, true },
		{ "of another prefix", ip, ip, "ip=10.0.0.1", cut4, cut4, false, true },
		{ "its rule is off", user, off, "user=a", "", "", true, true },
		{ "its rule is in shadow: it may be back", user,
			PENALTY "per = [ \"user\" ]; mode = \"shadow\";", "user=a", "", "", false,
			false },
		{ "by user no more", user, ip, "user=a", "", "", true, true },
		{ "by user still, if there is no key", user, any, "user=a", "", "", false, false },
		{ "by one of the alternatives that is left", any, ip, "ip=10.0.0.1", "", "", false,
			false },
		{ "by one that is not", any, ip, "key=sha256:0123456789ab", "", "", true, true },
		{ "by more than before", user, both, "user=a", "", "", true, true },
		{ "by less than before", both, user, "user=a+host=b", "", "", true, false },
		{ "by both still", both, both, "user=a+b+host=c", "", "", false, false },
		{ "who says himself what looks like an address", who, who,
			"user=a+ip=2001:db8::1+ip=10.0.0.1", "", "", false, false },
		{ "and then no prefix is certain", who, who, "user=a+ip=2001:db8::1+ip=10.0.0.1",
			"", cut4, false, false },
		{ "a + that is no field's", who, who, "user=a+b+ip=10.0.0.1", "", "", false,
			false },
		{ "an address behind a user", who, who, "user=a+ip=10.0.0.1", "", cut4, true,
			true },
		{ "a shorter prefix", ip, ip, "ip=10.0.0.1", "", cut4, true, true },
		{ "a longer one", ip, ip, "ip=10.0.0.0", cut4, "", true, false },
		{ "that of the other family", ip, ip, "ip=10.0.0.1", "", cut6, false, false },
		{ "IPv6 of a shorter one", ip, ip, "ip=2001:db8:0:1::", "", cut6, true, true },
		{ "IPv6 and the other one", ip, ip, "ip=2001:db8:0:1::", "", cut4, false, false },
		{ "an address that is hashed", ip, ip, "ip=sha256:0123456789ab", "", cut4, true,
			false },
	};
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct snapshot *before = with_rule(row[i].before, row[i].cut_before);
		struct snapshot *now = with_rule(row[i].now, row[i].cut);
		struct ban b = { .rule = "r" };
		snprintf(b.client, sizeof b.client, "%s", row[i].client);
		const char *why = ban_ends(now->policy, before->policy, &b);
		const char *why_at_start = ban_ends(now->policy, NULL, &b);
		if ((why != NULL) != row[i].ends ||
			(why_at_start != NULL) != row[i].ends_at_a_start)
			fail_msg("%s: %s, at a start: %s", row[i].title, why ? why : "holds",
				why_at_start ? why_at_start : "holds");
		drop(before);
		drop(now);
	}
}

/* A switch ends by itself, and is no word on bans. */
static void a_switch_ends_none(void **state)
{
	struct snapshot *s = with_rule(PENALTY "per = [ \"user\" ];", "");
	struct ban b = { .rule = "r", .client = "user=a" };
	(void)state;

	s->policy->rule[0].mode = MODE_OFF;
	assert_null(ban_ends(s->policy, s->policy, &b));
	drop(s);
}

static void what_was_cut_is_left(void **state)
{
	struct snapshot *s = with_rule(PENALTY "per = [ \"user\", \"host\" ];", "");
	struct ban b = { .rule = "r" };
	(void)state;

	memset(b.client, 'x', BAN_CLIENT_MAX);
	memcpy(b.client, "user=", 5);
	assert_null(ban_ends(s->policy, s->policy, &b));
	drop(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_nothing_finds_ends),
		cmocka_unit_test(a_switch_ends_none),
		cmocka_unit_test(what_was_cut_is_left),
	};
	return hash_init() ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
