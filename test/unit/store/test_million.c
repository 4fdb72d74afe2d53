/* What max_keys promises: a million keys are a million keys, each found again, for at most 64 bytes
 * of memory each. */
#include "rig.h"

#include <inttypes.h>
#include <unistd.h>

static struct rig_limit tokens, fixed;

static size_t resident_bytes(void)
{
	unsigned long size, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu %lu", &size, &resident), 2);
	fclose(f);
	return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static const struct rig_limit *limit_of(uint64_t id)
{
	return id & 1 ? &tokens : &fixed;
}

static void a_million_keys(void **state)
{
	(void)state;
	enum { KEYS = 1000000, MORE = 50000, BYTES_MAX = 64 };
	struct memory_store *m = rig_store(KEYS, now_at(0));
	size_t before = resident_bytes();
	for (uint64_t i = 0; i < KEYS; i++)
		(void)rig_take(m, limit_of(i), i, 1 + (int64_t)(i % 5), now_at(0));
	size_t bytes = resident_bytes() - before;
	struct memory_stats s = memory_store_stats(m);
	assert_int_equal(s.keys, KEYS);
	assert_int_equal(s.evicted, 0);
	print_message("%.1f bytes a key\n", (double)bytes / KEYS);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_true(bytes <= (size_t)KEYS * BYTES_MAX);
#endif

	for (uint64_t i = 0; i < KEYS; i++)
		if (rig_take(m, limit_of(i), i, 0, now_at(0)).left != 9 - (double)(i % 5))
			fail_msg("key %u is lost", (unsigned)i);
	assert_int_equal(memory_store_stats(m).inserted, KEYS);

	/* Each more takes the place of one. */
	for (uint64_t i = KEYS; i < KEYS + MORE; i++)
		(void)rig_take(m, limit_of(i), i, 5, now_at(0));
	s = memory_store_stats(m);
	assert_int_equal(s.keys, KEYS);
	assert_int_equal(s.evicted, MORE);
	assert_int_equal(s.evicted_limited, 0);

	/* And when all are full again, all of the room is there again, once more for everyone. */
	usec_t later = 2 * USEC_PER_DAY;
	assert_int_equal(memory_store_sweep(m, now_at(later), 256), KEYS);
	for (uint64_t i = 0; i < KEYS; i++)
		(void)rig_take(m, limit_of(i), 5000000 + i, 1, now_at(later));
	s = memory_store_stats(m);
	assert_int_equal(s.keys, KEYS);
	assert_int_equal(s.evicted, MORE);
	rig_close(m);
}

static void few_keys_touch_little(void **state)
{
	(void)state;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	/* in 32 bits there is no place for more */
	uint64_t most = SIZE_MAX > UINT32_MAX ? 1000000000 : 20000000;
	struct memory_store *m = rig_store(most, now_at(0));
	size_t before = resident_bytes();
	for (uint64_t i = 0; i < 1000; i++)
		(void)rig_take(m, limit_of(i), i, 1, now_at(0));
	size_t bytes = resident_bytes() - before;
	print_message("%zu KB for a thousand keys of %" PRIu64 " million\n", bytes / 1024,
		most / 1000000);
	assert_true(bytes < 2 * 1024 * 1024);
	rig_close(m);
#endif
}

/* Bytes of this process that have this flag in VmFlags of /proc/self/smaps. */
static size_t flagged_bytes(const char *flag)
{
	char line[512], word[8];
	size_t kilobytes = 0, sum = 0;
	FILE *f = fopen("/proc/self/smaps", "r");
	assert_non_null(f);
	(void)snprintf(word, sizeof word, " %s ", flag);
	while (fgets(line, sizeof line, f)) {
		(void)sscanf(line, "Size: %zu kB", &kilobytes);
		if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, word))
			sum += kilobytes * 1024;
	}
	fclose(f);
	return sum;
}

/* Never: one key would make 2 MB resident, and whoever comes to a page while the kernel joins it
 * with others waits for it, and spins. */
static void no_large_pages(void **state)
{
	(void)state;
	enum { KEYS = 1000000 };
	if (access("/sys/kernel/mm/transparent_hugepage/enabled", R_OK) != 0)
		skip();
	size_t large = flagged_bytes("hg"), small = flagged_bytes("nh");
	struct memory_store *m = rig_store(KEYS, now_at(0));
	size_t all = flagged_bytes("nh") - small;
	assert_true(all > KEYS * 52);
	for (uint64_t i = 0; i < KEYS; i++)
		(void)rig_take(m, limit_of(i), i, 1, now_at(0));
	(void)memory_store_sweep(m, now_at(0), 256);
	assert_int_equal(flagged_bytes("hg"), large);
	assert_int_equal(flagged_bytes("nh"), small + all);
	rig_close(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_million_keys),
		cmocka_unit_test(few_keys_touch_little),
		cmocka_unit_test(no_large_pages),
	};
	rig_limit(&tokens, ALGORITHM_TOKEN_BUCKET, 10, USEC_PER_DAY, 10);
	rig_limit(&fixed, ALGORITHM_FIXED_WINDOW, 10, USEC_PER_DAY, 10);
	return cmocka_run_group_tests_name("store/million", tests, NULL, NULL);
}
