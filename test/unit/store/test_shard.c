/* One shard from inside: its index holds exactly its entries, however it has grown. */
#include "store/shard.h"

#include "../../chance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MEAN = 4000 };

struct rig {
	struct shard *shard;
	void *memory[3];
};

static struct rig rig_new(void)
{
	struct shard_sizes z = shard_sizes(MEAN, true);
	struct rig r = { .shard = aligned_alloc(64, sizeof *r.shard) };
	r.memory[0] = calloc(z.entry_max, sizeof(struct entry));
	r.memory[1] = calloc(z.slot_max, sizeof(_Atomic(uint32_t)));
	r.memory[2] = calloc(z.entry_max, sizeof(struct node));
	memset(r.shard, 0, sizeof *r.shard);
	shard_init(r.shard, z, r.memory[0], r.memory[1], r.memory[2], (struct ticks){ 0 });
	return r;
}

static void rig_free(struct rig *r)
{
	for (unsigned i = 0; i < 3; i++)
		free(r->memory[i]);
	free(r->shard);
}

static struct entry entry_of(uint32_t i)
{
	struct chance c = { i };
	uint64_t a = draw(&c), b = draw(&c);
	return (struct entry){
		.key = { a, b & ~UINT64_C(1) },
		.full_at = 1 + i % 100,
		.open_at = i % 3 ? 0 : 1 + i % 100, /* every third is at its limit */
	};
}

static uint32_t slots_taken(const struct shard *s)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < s->slot_max; i++)
		n += slot_get(s, i) != 0;
	return n;
}

static void the_index_holds_each_entry_once(void **state)
{
	(void)state;
	struct ticks now = { { 0 }, 0 };
	struct rig r = rig_new();
	struct shard *s = r.shard;
	uint32_t before = 0, steps = 0;

	/* Each of these is a page fault under the lock, in a table for very many. */
	enum { RELINKED_MAX = 300 };
	for (uint32_t i = 0; i < MEAN; i++) {
		struct entry e = entry_of(i);
		uint32_t number = shard_add(s, &e, &now);
		assert_int_equal(shard_find(s, &e.key), number);
		if (i % 5 == 4)
			(void)shard_make_room(s, &now, &number, 1, NULL);
		if (slots_in_use(s) != before) {
			assert_int_equal(slots_taken(s), shard_keys(s));
			assert_true(shard_keys(s) <= RELINKED_MAX);
			before = slots_in_use(s);
			steps++;
		}
		assert_true(shard_keys(s) <= slots_in_use(s) / 4 || before == s->slot_max);
	}
	assert_true(steps > 2);
	assert_int_equal(before, s->slot_max);
	assert_int_equal(slots_taken(s), shard_keys(s));

	/* And as many are found as there are. */
	uint32_t found = 0;
	for (uint32_t i = 0; i < MEAN; i++) {
		struct entry e = entry_of(i);
		found += shard_find(s, &e.key) != ENTRY_NONE;
	}
	assert_int_equal(found, shard_keys(s));

	now.at[LINE_STEADY] = 1000;
	unsigned looks = 10 * MEAN;
	(void)shard_sweep(s, &now, &looks, false);
	assert_int_equal(shard_keys(s), 0);
	assert_int_equal(slots_taken(s), 0);
	rig_free(&r);
}

static void a_guess_is_right_where_nobody_is_in_the_way(void **state)
{
	(void)state;
	struct ticks now = { { 0 }, 0 };
	for (uint32_t i = 0; i < 1000; i++) {
		struct rig r = rig_new();
		struct entry e = entry_of(i), other = entry_of(i + 1000);
		uint32_t number = shard_add(r.shard, &e, &now);
		assert_ptr_equal(shard_near(r.shard, &e.key), &r.shard->entry[number]);
		assert_null(shard_near(r.shard, &other.key));
		rig_free(&r);
	}
}

/* What a newcomer would have to put right is right after a tidy sweep: it looks at one entry then.
 */
static void a_tidy_sweep_mends_the_order(void **state)
{
	enum { ENTRIES = 100 };
	(void)state;
	struct ticks now = { { 0 }, 0 };
	struct rig r = rig_new();
	struct shard *s = r.shard;
	for (uint32_t i = 0; i < ENTRIES; i++) {
		struct entry e = entry_of(i);
		e.open_at = 0;
		uint32_t number = shard_add(s, &e, &now);
		/* Charged since: at its limit, and full later. */
		s->entry[number].full_at += 1000;
		s->entry[number].open_at = 500;
	}
	unsigned looks = 10 * ENTRIES;
	assert_int_equal(shard_sweep(s, &now, &looks, false), 0);
	assert_int_equal(s->open.n, ENTRIES);
	assert_int_equal(shard_sweep(s, &now, &looks, true), 0);
	assert_int_equal(s->open.n, 0);
	assert_int_equal(s->limited.n, ENTRIES);
	assert_true(looks > 0);
	rig_free(&r);
}

static void few_entries_lie_close_together(void **state)
{
	(void)state;
	struct ticks now = { { 0 }, 0 };
	struct rig r = rig_new();
	for (uint32_t i = 0; i < 40; i++) {
		struct entry e = entry_of(i);
		(void)shard_add(r.shard, &e, &now);
	}
	assert_true(slots_in_use(r.shard) <= 256); /* 1 KB */
	rig_free(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_index_holds_each_entry_once),
		cmocka_unit_test(a_guess_is_right_where_nobody_is_in_the_way),
		cmocka_unit_test(few_entries_lie_close_together),
		cmocka_unit_test(a_tidy_sweep_mends_the_order),
	};
	return cmocka_run_group_tests_name("store/shard", tests, NULL, NULL);
}
