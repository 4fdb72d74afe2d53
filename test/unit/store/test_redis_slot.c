/* In which slot of a cluster a counter lies: CRC-16 by its published values, and hash tags by
 * Redis' own rule for names. */
#include "rig.h"

#include "store/redis_call.h"

static void test_crc16_and_slots_as_published(void **state)
{
	(void)state;
	static const struct {
		const char *key;
		unsigned slot;
	} rows[] = {
		{ "foo", 12182 },
		{ "bar", 5061 },
		{ "somekey", 11058 },
		{ "hash_tag", 2515 },
		{ "123456789", 0x31c3 % REDIS_SLOTS },
		{ "", 0 },
	};
	assert_int_equal(redis_crc16("123456789", 9), 0x31c3);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		assert_int_equal(
			redis_crc16(rows[i].key, strlen(rows[i].key)) % REDIS_SLOTS, rows[i].slot);
}

/* As Redis finds the slot of any key: by what is between the first "{" and the next "}". */
static unsigned slot_of_name(const char *name, size_t n)
{
	const char *open = memchr(name, '{', n);
	const char *end = open ? memchr(open, '}', n - (size_t)(open - name)) : NULL;

	if (end && end > open + 1)
		return redis_crc16(open + 1, (size_t)(end - open - 1)) % REDIS_SLOTS;
	return redis_crc16(name, n) % REDIS_SLOTS;
}

static void test_the_slot_is_that_of_the_name(void **state)
{
	(void)state;
	static struct redis_call call;
	static struct redis_args args;
	static uint8_t seen[REDIS_SLOTS];
	struct rig_limit limit;
	unsigned slots = 0;

	rig_limit(&limit, ALGORITHM_FIXED_WINDOW, 1, USEC_PER_SEC, 1);
	for (unsigned i = 0; i < 100000; i++) {
		struct plan plan = { 0 };
		limit.limit.salt = (struct key){ rig_mix(i % 7), rig_mix(i % 5) };
		rig_plan_add(&plan, &limit, i, 1);
		unsigned slot = redis_slot(&plan.take[0]);
		redis_call_clear(&call);
		assert_true(redis_call_add(&call, &plan));
		redis_call_args(&call, &args, i % 2 ? "rl:" : "a}b:", "SHA", NULL);
		assert_int_equal(slot, slot_of_name(args.argv[3], args.bytes[3]));
		slots += !seen[slot];
		seen[slot] = 1;
	}
	assert_true(slots > REDIS_SLOTS * 98 / 100); /* 99.8 by chance */
}

static void test_limits_of_one_descriptor_share_a_slot(void **state)
{
	(void)state;
	struct rig_limit limit;
	struct plan plan = { 0 };
	unsigned others = 0;

	rig_limit(&limit, ALGORITHM_FIXED_WINDOW, 1, USEC_PER_SEC, 1);
	for (unsigned i = 0; i < 1000; i++) {
		struct key descriptor = { rig_mix(i), rig_mix(~i) };
		unsigned slot[2];
		for (unsigned k = 0; k < 2; k++) {
			limit.limit.salt = (struct key){ rig_mix(i + k), rig_mix(i - k) };
			plan.n = 0;
			rig_plan_add(&plan, &limit, 0, 1);
			plan.take[0].key = (struct key){ descriptor.a ^ limit.limit.salt.a,
				descriptor.b ^ limit.limit.salt.b };
			slot[k] = redis_slot(&plan.take[0]);
		}
		assert_int_equal(slot[0], slot[1]);
		plan.take[0].key.a ^= 0xff;
		others += redis_slot(&plan.take[0]) != slot[0];
	}
	assert_true(others > 990);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc16_and_slots_as_published),
		cmocka_unit_test(test_the_slot_is_that_of_the_name),
		cmocka_unit_test(test_limits_of_one_descriptor_share_a_slot),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
