/* What is counted by a key is found by its hash, of the keys that were named last. */
#include "server/known.h"

#include "loaded.h"

#include <stdio.h>

static const struct hash_key test_key = { .bytes = { 1 } };
static const char config[] =
	"rules = ( { name = \"any\"; per = [ \"key|user|ip\" ]; rate = [ \"9/minute\", \"20/day\" ]; },"
	"{ name = \"key\"; per = [ \"key\" ]; rate = \"9/hour\"; },"
	"{ name = \"both\"; per = [ \"host\", \"user|key\" ]; rate = \"9/hour\"; },"
	"{ name = \"user\"; per = [ \"user\" ]; rate = \"9/hour\"; } );";

struct request {
	struct view view;
	struct plan plan;
	char scratch[4096];
};

static void request(struct request *r, const struct policy *p, const char *key, const char *host)
{
	view_init(&r->view, &p->layout, STR("check"), r->scratch, sizeof r->scratch);
	view_set_text(&r->view, FIELD_KEY, str_of(key));
	view_set_text(&r->view, FIELD_HOST, str_of(host));
	view_finish(&r->view);
	policy_plan(p, &r->view, &r->plan);
}

/* How many of the plan's takes are found by the key's hash, and as what they are. */
static unsigned found(struct known *k, const struct policy *p, const struct request *r)
{
	char hex[SHA256_HEX_BYTES];
	unsigned n = 0;

	hash_sha256_hex(r->view.text[FIELD_KEY], hex);
	for (unsigned i = 0; i < r->plan.n; i++) {
		struct take t = r->plan.take[i];
		struct key name = take_name_by_hash(p, &t, &r->view, hex), descriptor;
		if (!known_find(k, &name, &descriptor))
			continue;
		t.key = (struct key){ 0, 0 };
		take_set_descriptor(&t, descriptor);
		assert_true(t.key.a == r->plan.take[i].key.a && t.key.b == r->plan.take[i].key.b);
		n++;
	}
	return n;
}

static void all_that_a_key_is_counted_by_is_found(void **state)
{
	struct snapshot *s = loaded(config, &test_key, 1), *reloaded = loaded(config, &test_key, 2);
	struct known *k = known_new();
	static struct request r, other;
	(void)state;

	request(&r, s->policy, "secret", "a");
	assert_int_equal(r.plan.n, 4); /* not by user */
	assert_int_equal(found(k, s->policy, &r), 0);
	known_learn(k, s->policy, &r.plan, &r.view);
	assert_int_equal(found(k, s->policy, &r), 4);
	request(&r, reloaded->policy, "secret", "a");
	assert_int_equal(found(k, reloaded->policy, &r), 4);
	/* With another host only what does not count by that. */
	request(&other, s->policy, "secret", "b");
	assert_int_equal(found(k, s->policy, &other), 3);
	request(&other, s->policy, "other", "a");
	assert_int_equal(found(k, s->policy, &other), 0);
	known_free(k);
	drop(s);
	drop(reloaded);
}

static void nothing_is_known_of_who_has_no_key(void **state)
{
	struct snapshot *s = loaded(config, &test_key, 1);
	struct known *k = known_new();
	static struct request r;
	char hex[SHA256_HEX_BYTES];
	(void)state;

	view_init(&r.view, &s->policy->layout, STR("check"), r.scratch, sizeof r.scratch);
	view_set_text(&r.view, FIELD_USER, STR("alice"));
	view_finish(&r.view);
	policy_plan(s->policy, &r.view, &r.plan);
	known_learn(k, s->policy, &r.plan, &r.view);
	known_learn(NULL, s->policy, &r.plan, &r.view);
	assert_int_equal(known_hash(k, STR(""), hex), 0);
	known_free(k);
	drop(s);
}

static void digits_are_of_one_of_nobody_or_of_several(void **state)
{
	struct snapshot *s = loaded(config, &test_key, 1);
	struct known *k = known_new();
	static struct request r;
	char hex[SHA256_HEX_BYTES], wanted[SHA256_HEX_BYTES], text[32];
	unsigned with_two = 0;
	(void)state;

	for (unsigned i = 0; i < 300; i++) {
		snprintf(text, sizeof text, "key %u", i);
		request(&r, s->policy, text, "a");
		known_learn(k, s->policy, &r.plan, &r.view);
		request(&r, s->policy, text, "b"); /* the same key once more */
		known_learn(k, s->policy, &r.plan, &r.view);
	}
	for (unsigned i = 0; i < 300; i++) {
		snprintf(text, sizeof text, "key %u", i);
		hash_sha256_hex(str_of(text), wanted);
		assert_int_equal(known_hash(k, (struct str){ wanted, 12 }, hex), 1);
		assert_memory_equal(hex, wanted, sizeof hex);
		with_two += known_hash(k, (struct str){ wanted, 2 }, hex) > 1;
	}
	assert_in_range(with_two, 100, 300); /* 256 beginnings, 300 keys */
	hash_sha256_hex(STR("nobody"), wanted);
	assert_int_equal(known_hash(k, (struct str){ wanted, 12 }, hex), 0);
	known_free(k);
	drop(s);
}

/* Of a long request whose check waited the beginning is kept: what is behind that is not in the
 * view that is read from it, and in its place may be what an earlier request has left. */
static void what_is_not_there_any_more_is_not_looked_at(void **state)
{
	struct snapshot *s = loaded(config, &test_key, 1);
	struct known *k = known_new();
	static struct request whole, kept, other;
	(void)state;

	request(&whole, s->policy, "secret", "a");
	request(&kept, s->policy, "secret", "");
	kept.view.text[FIELD_HOST] = STR("b");
	known_learn(k, s->policy, &whole.plan, &kept.view);
	assert_int_equal(found(k, s->policy, &whole), 3); /* but by the host */
	request(&other, s->policy, "secret", "b");
	assert_int_equal(found(k, s->policy, &other), 3);
	known_free(k);
	drop(s);
}

/* However many come, the last ones are there. */
static void it_is_bounded_and_knows_the_last(void **state)
{
	enum { MANY = 3 * KNOWN_MAX, LAST = KNOWN_MAX / 8 };
	struct snapshot *s = loaded(config, &test_key, 1);
	struct known *k = known_new();
	static struct request r;
	unsigned lost = 0, old = 0;
	char text[32];
	(void)state;

	for (unsigned i = 0; i < MANY + LAST; i++) {
		snprintf(text, sizeof text, "key %u", i);
		request(&r, s->policy, text, "");
		known_learn(k, s->policy, &r.plan, &r.view);
	}
	for (unsigned i = 0; i < LAST; i++) {
		snprintf(text, sizeof text, "key %u", MANY + i);
		request(&r, s->policy, text, "");
		lost += found(k, s->policy, &r) != r.plan.n;
		snprintf(text, sizeof text, "key %u", i);
		request(&r, s->policy, text, "");
		old += found(k, s->policy, &r) != 0;
	}
	assert_in_range(lost, 0, LAST / 50);
	assert_in_range(old, 0, LAST / 10);
	/* Who was let go, or will be, is learnt whenever he is named. */
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(text, sizeof text, "key %u", i);
		request(&r, s->policy, text, "");
		known_learn(k, s->policy, &r.plan, &r.view);
		assert_int_equal(found(k, s->policy, &r), r.plan.n);
	}
	known_free(k);
	drop(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_a_key_is_counted_by_is_found),
		cmocka_unit_test(nothing_is_known_of_who_has_no_key),
		cmocka_unit_test(digits_are_of_one_of_nobody_or_of_several),
		cmocka_unit_test(what_is_not_there_any_more_is_not_looked_at),
		cmocka_unit_test(it_is_bounded_and_knows_the_last),
	};
	return hash_init() ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
