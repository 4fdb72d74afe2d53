/* State files from any bytes: refused, or made into a store that works. As they are, and with the
 * header and checksum put right, so that the fuzzer gets past them to the entries. */
#include "store/state.h"

#include <sodium.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { HEADER_BYTES = 56, ENTRY_BYTES = 48, TRAILER_BYTES = 40, SUM_BYTES = 32, KEYS_MAX = 8 };

static const usec_t year = 365 * USEC_PER_DAY;

/* Whatever came in, the store holds to its bounds. */
static void use(struct memory_store *m, struct now now)
{
	static struct rule rule;
	static struct limit limit = { .rule = &rule,
		.quota = { ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, USEC_PER_SEC }, 1, 1 },
		.slowest_refill = USEC_PER_SEC,
		.slowest_interval = USEC_PER_SEC };
	static struct plan plan;
	struct memory_entry entry[KEYS_MAX + 1];
	uint64_t cursor = 0;
	size_t n = 0, got;

	while (n <= KEYS_MAX &&
		(got = memory_store_copy(m, &cursor, entry + n, KEYS_MAX + 1 - n, now)))
		n += got;
	if (n > KEYS_MAX || n != memory_store_stats(m).keys)
		abort();
	for (size_t i = 0; i < n; i++) {
		usec_t line = entry[i].key.b & 1 ? now.utc : now.steady;
		if (entry[i].full_at <= line || entry[i].open_at > entry[i].full_at)
			abort();
	}
	/* Every entry is found, as what it is: token buckets are charged (or denied), windows read
	 * with a cost of 0. */
	limit.quota.algorithm = ALGORITHM_TOKEN_BUCKET;
	for (size_t i = 0; i < n; i++) {
		limit.quota.algorithm = entry[i].key.b & 1 ? ALGORITHM_SLIDING_WINDOW
							   : ALGORITHM_TOKEN_BUCKET;
		plan.n = 1;
		plan.take[0] = (struct take){
			.limit = &limit, .key = entry[i].key, .cost = (int64_t)(~entry[i].key.b & 1)
		};
		(void)store_take(memory_store_base(m), &plan, now);
	}
	if (memory_store_stats(m).inserted != 0)
		abort();
	limit.quota.algorithm = ALGORITHM_TOKEN_BUCKET;
	for (uint64_t i = 0; i < 2 * KEYS_MAX; i++) {
		plan.take[0] = (struct take){
			.limit = &limit, .key = { i << 58 | i, 2 }, .cost = 1
		};
		(void)store_take(memory_store_base(m), &plan, now);
		if (memory_store_stats(m).keys > KEYS_MAX)
			abort();
	}
	memory_store_stretch(m, 1.5, now);
	(void)memory_store_sweep(m, now, 64);
	for (unsigned i = 0; i < 5; i++) {
		now.steady += year / 2;
		now.utc += year / 2;
		(void)memory_store_sweep(m, now, 64);
	}
	if (memory_store_stats(m).keys != 0)
		abort();
}

static void parse(const uint8_t *data, size_t n)
{
	struct now now = { .steady = 50 * year, .utc = 56 * year };
	struct memory_store *m;
	char err[256] = "";
	if (!state_parse(data, n, KEYS_MAX, now, &m, err, sizeof err)) {
		if (m || !err[0])
			abort();
		return;
	}
	use(m, now);
	store_close(memory_store_base(m));
}

static void mend(uint8_t *bytes, size_t n)
{
	static const uint32_t order = 0x01020304, entry_bytes = ENTRY_BYTES;
	size_t body = n - HEADER_BYTES - TRAILER_BYTES;
	/* What is left over of whole entries is notes. */
	uint32_t notes = (uint32_t)(body % ENTRY_BYTES), version = notes ? 2 : 1;
	if (bytes[HEADER_BYTES - 16] & 1) /* of the clock, any value of which is good */
		version = 3;
	uint64_t count = body / ENTRY_BYTES;
	memcpy(bytes, "RLSTATE\n", 8);
	memcpy(bytes + 8, &order, 4);
	memcpy(bytes + 12, &version, 4);
	memcpy(bytes + 16, &entry_bytes, 4);
	memcpy(bytes + 20, &notes, 4);
	memcpy(bytes + n - TRAILER_BYTES, &count, 8);
	crypto_generichash(bytes + n - SUM_BYTES, SUM_BYTES, bytes, n - SUM_BYTES, NULL, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static bool started;
	if (!started && !hash_init())
		abort();
	started = true;

	parse(data, n);
	if (n < HEADER_BYTES + TRAILER_BYTES)
		return 0;
	uint8_t *bytes = malloc(n);
	memcpy(bytes, data, n);
	mend(bytes, n);
	parse(bytes, n);
	free(bytes);
	return 0;
}
