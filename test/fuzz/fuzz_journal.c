/* Changes files from any bytes: what is told of them are records that were written, within their
 * bounds. As they are, and with all sums put right, so that the fuzzer gets past them. */
#include "store/journal.h"

#include <sodium.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { HEADER_BYTES = 64, RECORD_BYTES = 24, SUM_BYTES = 16 };

static const struct hash_key ours = { .bytes = { 1 } };

static void each(void *with, struct str name, struct str text, bool same_counters)
{
	size_t *bytes = with;
	(void)same_counters;

	if (!name.n || name.n > JOURNAL_NAME_MAX || name.p[name.n])
		abort();
	if (text.p && (text.n > JOURNAL_TEXT_MAX || text.p[text.n]))
		abort();
	*bytes += RECORD_BYTES + name.n + text.n;
}

static void parse(const uint8_t *data, size_t n)
{
	char err[256] = "";
	size_t bytes = HEADER_BYTES;
	bool good = journal_parse(data, n, &ours, each, &bytes, err, sizeof err);

	if (good ? bytes != n : !err[0] || (bytes > n && bytes != HEADER_BYTES))
		abort();
}

static void mend(uint8_t *bytes, size_t n)
{
	static const uint32_t order = 0x01020304, version = 1;
	uint8_t before[SUM_BYTES];
	uint32_t length[2];

	memcpy(bytes, "RLCHANG\n", 8);
	memcpy(bytes + 8, &order, 4);
	memcpy(bytes + 12, &version, 4);
	crypto_generichash(bytes + 48, SUM_BYTES, bytes, 48, NULL, 0);
	memcpy(before, bytes + 48, SUM_BYTES);
	for (size_t at = HEADER_BYTES; n - at >= RECORD_BYTES;) {
		crypto_generichash_state sum;
		uint8_t *r = bytes + at;
		r[1] &= 3; /* lengths that a file of this size may have */
		r[2] = r[3] = 0;
		if (r[7] != 0xff)
			r[6] = r[7] = 0;
		memcpy(length, r, sizeof length);
		size_t text_n = length[1] == UINT32_MAX ? 0 : length[1];
		if (length[0] > n - at - RECORD_BYTES || text_n > n - at - RECORD_BYTES - length[0])
			return;
		crypto_generichash_init(&sum, NULL, 0, SUM_BYTES);
		crypto_generichash_update(&sum, before, SUM_BYTES);
		crypto_generichash_update(&sum, r, 8);
		crypto_generichash_update(&sum, r + RECORD_BYTES, length[0] + text_n);
		crypto_generichash_final(&sum, r + 8, SUM_BYTES);
		memcpy(before, r + 8, SUM_BYTES);
		at += RECORD_BYTES + length[0] + text_n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static bool started;
	if (!started && !hash_init())
		abort();
	started = true;

	parse(data, n);
	if (n < HEADER_BYTES)
		return 0;
	uint8_t *bytes = malloc(n);
	memcpy(bytes, data, n);
	mend(bytes, n);
	parse(bytes, n);
	free(bytes);
	return 0;
}
