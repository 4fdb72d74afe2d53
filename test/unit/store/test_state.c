/* The state file: what was saved comes back, by the time that has passed; what is not exactly what
 * was saved is refused, set aside, and never stops the agent. */
#include "broken_disk.h"
#include "rig.h"

#include "store/state.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sodium.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_BYTES = 56, ENTRY_BYTES = 48, TRAILER_BYTES = 40, SUM_BYTES = 32 };

#define SEC USEC_PER_SEC

static struct rig_limit tokens, day_tokens, fixed, sliding;

static char folder[64], path[128], err[512];

static int setup(void **state)
{
	(void)state;
	rig_limit(&tokens, ALGORITHM_TOKEN_BUCKET, 10, 100 * SEC, 10);
	rig_limit(&day_tokens, ALGORITHM_TOKEN_BUCKET, 100, USEC_PER_DAY, 100);
	rig_limit(&fixed, ALGORITHM_FIXED_WINDOW, 10, USEC_PER_DAY, 10);
	rig_limit(&sliding, ALGORITHM_SLIDING_WINDOW, 10, USEC_PER_DAY, 10);
	return hash_init() ? 0 : -1;
}

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof folder, "/tmp/store-state-XXXXXX");
	assert_non_null(mkdtemp(folder));
	(void)snprintf(path, sizeof path, "%s/state", folder);
	return 0;
}

static unsigned each_file(void (*what)(const char *))
{
	char name[512];
	unsigned n = 0;
	DIR *d = opendir(folder);
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		n++;
		(void)snprintf(name, sizeof name, "%s/%s", folder, e->d_name);
		if (what)
			what(name);
	}
	closedir(d);
	return n;
}

static void remove_file(const char *name)
{
	if (unlink(name) < 0)
		(void)rmdir(name);
}

static int remove_folder(void **state)
{
	(void)state;
	(void)chmod(folder, 0700);
	each_file(remove_file);
	return rmdir(folder);
}

static void save(struct memory_store *m, struct now now)
{
	if (state_save(m, path, now, err, sizeof err) != 0)
		fail_msg("%s", err);
}

static struct memory_store *load(uint64_t max_keys, struct now now, enum state_rc want)
{
	struct memory_store *m;
	enum state_rc rc = state_load(path, max_keys, now, &m, err, sizeof err);
	if (rc != want)
		fail_msg("got %d, want %d: %s", (int)rc, (int)want, err);
	assert_true((m != NULL) == (want != STATE_UNUSABLE));
	return m;
}

static size_t read_file(uint8_t *out, size_t max)
{
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	size_t n = fread(out, 1, max, f);
	fclose(f);
	return n;
}

static void write_file(const void *p, size_t n)
{
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(p, 1, n, f), n);
	fclose(f);
}

/* A small store of each kind of counter, and its file. */
static size_t small_file(uint8_t *out, size_t max)
{
	struct memory_store *m = rig_store(100, now_at(0));
	rig_take(m, &tokens, 1, 10, now_at(0));
	rig_take(m, &tokens, 2, 3, now_at(SEC));
	rig_take(m, &fixed, 3, 4, now_at(SEC));
	rig_take(m, &sliding, 4, 5, now_at(SEC));
	save(m, now_at(2 * SEC));
	rig_close(m);
	return read_file(out, max);
}

static void seal(uint8_t *bytes, size_t n)
{
	crypto_generichash(bytes + n - SUM_BYTES, SUM_BYTES, bytes, n - SUM_BYTES, NULL, 0);
}

/* ---- round trips ---- */

static void what_was_saved_comes_back(void **state)
{
	(void)state;
	enum { KEYS = 20000 };
	static struct memory_entry was[KEYS], is[KEYS];
	const struct rig_limit *limits[] = { &tokens, &day_tokens, &fixed, &sliding };
	struct memory_store *m = rig_store(KEYS, now_at(0));
	for (uint64_t i = 0; i < KEYS; i++)
		rig_take(m, limits[i % 4], i, 1 + (int64_t)(i % 10), now_at((usec_t)i));
	save(m, now_at(KEYS));
	struct memory_store *back = load(KEYS, now_at(KEYS), STATE_LOADED);
	assert_string_equal(err, "");
	assert_memory_equal(memory_store_key(m), memory_store_key(back), 16);
	size_t n = rig_dump(m, was, KEYS, now_at(KEYS));
	assert_int_equal(n, KEYS);
	assert_int_equal(rig_dump(back, is, KEYS, now_at(KEYS)), n);
	assert_memory_equal(was, is, sizeof was);
	assert_int_equal(memory_store_stats(back).inserted, 0);
	assert_int_equal(memory_store_stats(back).evicted, 0);

	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_size, HEADER_BYTES + KEYS * ENTRY_BYTES + TRAILER_BYTES);
	assert_int_equal(each_file(NULL), 1);
	rig_close(m);
	rig_close(back);
}

static void notes_come_back_with_the_counters(void **state)
{
	(void)state;
	char *notes;
	size_t n;
	struct memory_store *m = rig_store(10, now_at(0));
	notes = memory_store_notes(m, &n);
	assert_int_equal(n, 0);
	free(notes);
	rig_take(m, &tokens, 1, 10, now_at(0));
	assert_true(memory_store_set_notes(m, "first", 5));
	assert_true(memory_store_set_notes(m, "sec\0nd", 6));
	save(m, now_at(0));
	rig_close(m);

	m = load(10, now_at(0), STATE_LOADED);
	assert_int_equal(memory_store_stats(m).keys, 1);
	notes = memory_store_notes(m, &n);
	assert_int_equal(n, 6);
	assert_memory_equal(notes, "sec\0nd", 7);
	free(notes);
	assert_true(memory_store_set_notes(m, NULL, 0));
	save(m, now_at(0));
	rig_close(m);

	/* without notes it is a file as older releases read it */
	uint8_t bytes[1024];
	assert_int_equal(
		read_file(bytes, sizeof bytes), HEADER_BYTES + ENTRY_BYTES + TRAILER_BYTES);
	assert_int_equal(bytes[12], 1);
}

/* A hash key of either kind comes back as it was: else no counter would be found again. */
static void the_kind_of_hash_comes_back(void **state)
{
	(void)state;
	static const struct {
		enum hash_kind kind;
		const char *notes;
		uint8_t version;
	} rows[] = {
		{ HASH_SIPHASH, "", 1 },
		{ HASH_SIPHASH, "n", 2 },
		{ HASH_AES, "", 3 },
		{ HASH_AES, "n", 3 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		const struct hash_key key = { .bytes = { 1, 2, 3 }, (uint8_t)rows[i].kind };
		uint8_t bytes[1024];
		struct memory_store *m = memory_store_new(10, &key, now_at(0));
		assert_true(memory_store_set_notes(m, rows[i].notes, strlen(rows[i].notes)));
		rig_take(m, &tokens, 1, 10, now_at(0));
		save(m, now_at(0));
		rig_close(m);
		read_file(bytes, sizeof bytes);
		assert_int_equal(bytes[12], rows[i].version);
		if (rows[i].kind == HASH_AES && !cmac_is_there()) {
			rig_close(load(10, now_at(0), STATE_SET_ASIDE));
			continue;
		}
		m = load(10, now_at(0), STATE_LOADED);
		assert_memory_equal(memory_store_key(m), &key, sizeof key);
		assert_int_equal(memory_store_stats(m).keys, 1);
		rig_close(m);
	}
}

static void an_empty_store_comes_back(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	save(m, now_at(0));
	struct memory_store *back = load(10, now_at(0), STATE_LOADED);
	assert_memory_equal(memory_store_key(m), memory_store_key(back), 16);
	assert_int_equal(memory_store_stats(back).keys, 0);
	rig_close(m);
	rig_close(back);
}

static void a_save_replaces_the_one_before(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	char tmp[160];
	(void)snprintf(tmp, sizeof tmp, "%s.tmp", path);
	assert_int_equal(symlink("/nowhere/else", tmp), 0); /* left behind, or laid there */
	save(m, now_at(0));
	rig_take(m, &tokens, 1, 1, now_at(0));
	save(m, now_at(0));
	struct memory_store *back = load(10, now_at(0), STATE_LOADED);
	assert_int_equal(memory_store_stats(back).keys, 1);
	assert_int_equal(each_file(NULL), 1);
	rig_close(m);
	rig_close(back);
}

/* Saved at 0 with 10 of 10 used, 10 s to refill one; the new process' steady clock begins anew. */
static void a_restart_refills_by_the_time_that_has_passed(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		usec_t utc_passed;
		double left;
	} rows[] = {
		{ "at once: nothing", 0, 0 },
		{ "half a minute: three units", 30 * SEC, 3 },
		{ "long enough: full", 200 * SEC, 10 },
		{ "a clock that went back: nothing", -3600 * SEC, 0 },
		{ "a clock that went back by years: nothing", -5000 * USEC_PER_DAY, 0 },
		{ "a clock that went ahead by years: full", 5000 * USEC_PER_DAY, 10 },
	};
	struct memory_store *m = rig_store(10, now_at(0));
	rig_take(m, &tokens, 1, 10, now_at(0));
	save(m, now_at(0));
	rig_close(m);
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		static const usec_t steadies[] = { 0, 5 * SEC, (usec_t)1 << 50, (usec_t)1 << 51 };
		for (unsigned k = 0; k < 4; k++) {
			struct now now = { .steady = steadies[k],
				.utc = now_at(0).utc + rows[i].utc_passed };
			struct memory_store *back = load(10, now, STATE_LOADED);
			struct memory_entry e;
			/* At its limit for who has to make room, for as long as it is. */
			if (rows[i].left == 0 &&
				(rig_dump(back, &e, 1, now) != 1 ||
					e.open_at < now.steady + 10 * SEC ||
					e.open_at > now.steady + 10 * SEC + 2 * TICK))
				fail_msg("%s: open when %lld", rows[i].what,
					(long long)(e.open_at - now.steady));
			struct verdict v = rig_take(back, &tokens, 1, 0, now);
			if (fabs(v.left - rows[i].left) > 1e-6)
				fail_msg("%s: %g left", rows[i].what, v.left);
			/* And from there on as usual. */
			now.steady += 20 * SEC;
			now.utc += 20 * SEC;
			memory_store_sweep(back, now, 64);
			v = rig_take(back, &tokens, 1, 0, now);
			assert_true(fabs(v.left - fmin(10, rows[i].left + 2)) < 1e-6);
			rig_close(back);
		}
	}
}

static void charges_after_the_moment_of_saving_are_read_as_of_it(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	rig_take(m, &tokens, 1, 10, now_at(5 * SEC));
	save(m, now_at(0));
	struct memory_store *back = load(10, now_at(0), STATE_LOADED);
	assert_true(rig_take(back, &tokens, 1, 0, now_at(0)).left == 0);
	assert_true(fabs(rig_take(back, &tokens, 1, 0, now_at(10 * SEC)).left - 1) < 1e-6);
	rig_close(m);
	rig_close(back);
}

static void windows_stay_where_they_are(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	rig_take(m, &fixed, 1, 10, now_at(0));
	rig_take(m, &sliding, 2, 10, now_at(0));
	save(m, now_at(0));
	rig_close(m);
	static const usec_t kept[] = { 0, 1, -60 * SEC, -40 * USEC_PER_DAY, -9000 * USEC_PER_DAY };
	for (unsigned i = 0; i < 5; i++) {
		struct now now = { .steady = 77, .utc = now_at(0).utc + kept[i] };
		struct memory_store *back = load(10, now, STATE_LOADED);
		assert_false(rig_take(back, &fixed, 1, 1, now).admits);
		assert_false(rig_take(back, &sliding, 2, 1, now).admits);
		/* What lay far ahead does not stay until then. */
		now.steady += 40 * USEC_PER_DAY;
		now.utc += 40 * USEC_PER_DAY;
		memory_store_sweep(back, now, 64);
		assert_int_equal(memory_store_stats(back).keys, 0);
		rig_close(back);
	}
	struct now now = { .steady = 77, .utc = now_at(0).utc + 3 * USEC_PER_DAY };
	struct memory_store *back = load(10, now, STATE_LOADED);
	assert_int_equal(memory_store_stats(back).keys, 0);
	rig_close(back);
}

/* They are the windows of when they were loaded from then on, in the next file as well. */
static void windows_of_the_future_become_those_of_now(void **state)
{
	(void)state;
	static const usec_t back[] = { 30 * SEC, 3600 * SEC, USEC_PER_DAY, 40 * USEC_PER_DAY };
	static struct rig_limit minute, sliding_minute;
	rig_limit(&minute, ALGORITHM_FIXED_WINDOW, 3, 60 * SEC, 3);
	rig_limit(&sliding_minute, ALGORITHM_SLIDING_WINDOW, 3, 60 * SEC, 3);
	struct now was = now_at(0);
	was.utc = was.utc / (60 * SEC) * 60 * SEC + 10 * SEC;
	for (unsigned i = 0; i < sizeof back / sizeof *back; i++) {
		struct memory_store *m = rig_store(10, was);
		rig_take(m, &minute, 1, 3, was);
		rig_take(m, &minute, 2, 3, was);
		rig_take(m, &sliding_minute, 3, 3, was);
		save(m, was);
		rig_close(m);
		struct now now = { .steady = 77, .utc = was.utc - back[i] }, then = now;
		m = load(10, now, STATE_LOADED);
		for (unsigned again = 0; again < 2; again++) {
			usec_t left = 60 * SEC - now.utc % (60 * SEC);
			struct verdict v = rig_take(m, &minute, 1, 0, then);
			assert_false(v.admits);
			assert_int_equal(then.utc + bucket_retry_after(
							    &minute.limit.quota, &v.state, 1, then),
				now.utc + left);
			assert_false(rig_take(m, &sliding_minute, 3, 0, then).admits);
			/* Who is silent meanwhile is let in after it. */
			struct now over = now;
			over.steady += left;
			over.utc += left;
			memory_store_sweep(m, over, 64);
			assert_true(rig_take(m, &minute, 1, 0, over).left == 3);
			over.steady += 20 * SEC;
			over.utc += 20 * SEC;
			assert_true(rig_take(m, &sliding_minute, 3, 0, over).left == 1);
			then.steady += SEC;
			then.utc += SEC;
			if (again)
				break;
			save(m, then);
			rig_close(m);
			m = load(10, then, STATE_LOADED);
		}
		/* Where it was charged is a window like any other. */
		now.steady += back[i];
		now.utc += back[i];
		if (back[i] > 120 * SEC) {
			assert_true(rig_take(m, &minute, 2, 0, now).left == 3);
			assert_true(rig_take(m, &sliding_minute, 3, 0, now).left == 3);
		}
		rig_close(m);
	}
}

static void more_keys_than_there_is_room_for(void **state)
{
	(void)state;
	static struct memory_entry e[1000];
	struct memory_store *m = rig_store(1000, now_at(0));
	for (uint64_t i = 0; i < 1000; i++)
		rig_take(m, &day_tokens, i, 1 + (int64_t)(i % 100), now_at(0));
	save(m, now_at(0));
	struct memory_store *back = load(100, now_at(0), STATE_LOADED);
	assert_non_null(strstr(err, "900 keys more than store.max_keys = 100"));
	size_t n = rig_dump(back, e, 1000, now_at(0));
	assert_int_equal(n, 100);
	unsigned limited = 0;
	for (size_t i = 0; i < n; i++) {
		assert_true(e[i].bucket.used >= 91);
		limited += e[i].open_at > now_at(0).steady;
	}
	assert_int_equal(limited, 10);
	assert_int_equal(memory_store_stats(back).evicted, 900);
	rig_close(m);
	rig_close(back);
}

/* ---- what is refused ---- */

static void refused(const uint8_t *bytes, size_t n, const char *what, size_t where)
{
	struct memory_store *m;
	/* A copy of exactly this size: a sanitizer sees what is read behind its end. */
	uint8_t *copy = malloc(n ? n : 1);
	if (n)
		memcpy(copy, bytes, n);
	err[0] = '\0';
	if (state_parse(copy, n, 10, now_at(0), &m, err, sizeof err))
		fail_msg("%s %zu was taken", what, where);
	assert_null(m);
	assert_true(err[0] != '\0');
	free(copy);
}

static void try_every_cut_and_every_byte(uint8_t *bytes, size_t n)
{
	struct memory_store *m;
	assert_true(state_parse(bytes, n, 10, now_at(0), &m, err, sizeof err));
	assert_int_equal(memory_store_stats(m).keys, 4);
	rig_close(m);

	for (size_t cut = 0; cut < n; cut++)
		refused(bytes, cut, "a file cut at", cut);
	for (size_t i = 0; i < n; i++)
		for (unsigned bit = 0; bit < 8; bit++) {
			bytes[i] ^= (uint8_t)(1u << bit);
			refused(bytes, n, "a wrong bit in byte", i);
			bytes[i] ^= (uint8_t)(1u << bit);
		}
	for (size_t more = 1; more <= 2 * ENTRY_BYTES; more++)
		refused(bytes, n + more, "garbage behind the end, bytes", more);
}

static void every_cut_and_every_byte(void **state)
{
	(void)state;
	uint8_t bytes[1024];
	size_t n = small_file(bytes, sizeof bytes);
	assert_int_equal(n, HEADER_BYTES + 4 * ENTRY_BYTES + TRAILER_BYTES);
	try_every_cut_and_every_byte(bytes, n);

	struct memory_store *m = load(100, now_at(2 * SEC), STATE_LOADED);
	assert_true(memory_store_set_notes(m, "seven\0!", 7));
	save(m, now_at(2 * SEC));
	rig_close(m);
	n = read_file(bytes, sizeof bytes);
	assert_int_equal(n, HEADER_BYTES + 7 + 4 * ENTRY_BYTES + TRAILER_BYTES);
	try_every_cut_and_every_byte(bytes, n);
	refused(NULL, 0, "no file", 0);
}

/* No checksum is over what lies between the last entry and what comes last. */
static void something_before_the_trailer(void **state)
{
	(void)state;
	uint8_t bytes[1024];
	size_t n = small_file(bytes, sizeof bytes), end = n - TRAILER_BYTES;

	for (size_t more = 1; more <= 2 * ENTRY_BYTES; more++) {
		memmove(bytes + end + 1, bytes + end, TRAILER_BYTES);
		bytes[end++] = 0;
		refused(bytes, n + more, "garbage before the trailer, bytes", more);
	}
}

/* With the right checksum: notes make a file of version 2. */
static void notes_that_are_none_of_ours(void **state)
{
	(void)state;
	enum { VERSION_AT = 12 };
	uint8_t bytes[1024];
	size_t n = small_file(bytes, sizeof bytes);

	bytes[VERSION_AT] = 2;
	seal(bytes, n);
	refused(bytes, n, "no notes in version", 2);

	struct memory_store *m = rig_store(10, now_at(0));
	assert_true(memory_store_set_notes(m, "notes", 5));
	save(m, now_at(0));
	rig_close(m);
	n = read_file(bytes, sizeof bytes);
	assert_int_equal(bytes[VERSION_AT], 2);
	bytes[VERSION_AT] = 1;
	seal(bytes, n);
	refused(bytes, n, "notes in version", 1);
}

static void put_double(uint8_t *p, double v)
{
	memcpy(p, &v, sizeof v);
}

static void put_i64(uint8_t *p, int64_t v)
{
	memcpy(p, &v, sizeof v);
}

/* With the right checksum: written by a program that is not ours, or not in its senses. */
static void what_no_counter_can_hold(void **state)
{
	(void)state;
	static const double used[] = { NAN, -NAN, INFINITY, -INFINITY, -1, -1e-300, 1e300, 2.1e9 };
	static const int64_t instants[] = { INT64_MIN, INT64_MAX, -((int64_t)1 << 54),
		(int64_t)1 << 54 };
	uint8_t good[1024], bytes[1024];
	size_t n = small_file(good, sizeof good);
	struct memory_store *m;
	for (unsigned i = 0; i < 4; i++) {
		uint8_t *entry = bytes + HEADER_BYTES + i * ENTRY_BYTES;
		bool windows = good[HEADER_BYTES + i * ENTRY_BYTES + 8] & 1;
		for (unsigned k = 0; k < 8; k++) {
			memcpy(bytes, good, n);
			if (windows)
				memset(entry + 16 + 4 * (k & 1), 0xff, 4);
			else
				put_double(entry + 16, used[k]);
			seal(bytes, n);
			refused(bytes, n, "an absurd count", k);
		}
		for (unsigned k = 0; k < 12; k++) {
			memcpy(bytes, good, n);
			put_i64(entry + 24 + 8 * (k / 4), instants[k % 4]);
			seal(bytes, n);
			refused(bytes, n, "an absurd instant", k);
		}
	}
	for (unsigned k = 0; k < 8; k++) {
		memcpy(bytes, good, n);
		put_i64(bytes + 40 + 8 * (k / 4), instants[k % 4]);
		seal(bytes, n);
		refused(bytes, n, "an absurd clock", k);
	}
	for (size_t field = 0; field < 24; field += 4) {
		memcpy(bytes, good, n);
		bytes[field] ^= 4;
		seal(bytes, n);
		refused(bytes, n, "a wrong header at", field);
	}
	memcpy(bytes, good, n);
	bytes[n - TRAILER_BYTES]++;
	seal(bytes, n);
	refused(bytes, n, "a wrong count", 0);

	/* Odd, but harmless: times in no order, far ahead, a key that is nothing, one twice. */
	memcpy(bytes, good, n);
	memset(bytes + HEADER_BYTES, 0, 16);
	memcpy(bytes + HEADER_BYTES + ENTRY_BYTES, bytes + HEADER_BYTES, 16);
	for (unsigned i = 0; i < 4; i++) {
		put_i64(bytes + HEADER_BYTES + i * ENTRY_BYTES + 32, (int64_t)1 << 53);
		put_i64(bytes + HEADER_BYTES + i * ENTRY_BYTES + 40, ((int64_t)1 << 53) - 1);
	}
	put_i64(bytes + HEADER_BYTES + 40, (int64_t)1 << 53);
	seal(bytes, n);
	assert_true(state_parse(bytes, n, 10, now_at(0), &m, err, sizeof err));
	assert_int_equal(memory_store_stats(m).keys, 3);
	assert_int_equal(memory_store_sweep(m, now_at(741 * USEC_PER_DAY), 64), 3);
	rig_close(m);
}

/* ---- the file in its folder ---- */

static void no_file_is_a_first_start(void **state)
{
	(void)state;
	struct memory_store *a = load(10, now_at(0), STATE_NONE);
	struct memory_store *b = load(10, now_at(0), STATE_NONE);
	assert_memory_not_equal(memory_store_key(a), memory_store_key(b), 16);
	assert_int_equal(each_file(NULL), 0);
	rig_close(a);
	rig_close(b);
}

static void a_bad_one_is_set_aside(void **state)
{
	(void)state;
	/* 2026-11-21 01:23:45 UTC; twice in a second does not lose the first. */
	struct now now = { .steady = 5, .utc = 1795224225 * SEC };
	static const char *const names[] = { "", "-2", "-3" };
	for (unsigned i = 0; i < 3; i++) {
		write_file("nonsense", 8);
		struct memory_store *m = load(10, now, STATE_SET_ASIDE);
		assert_int_equal(memory_store_stats(m).keys, 0);
		char name[256];
		(void)snprintf(name, sizeof name, "%s.bad-20261121T012345Z%s", path, names[i]);
		assert_non_null(strstr(err, path));
		assert_non_null(strstr(err, name));
		assert_int_equal(access(name, F_OK), 0);
		assert_int_not_equal(access(path, F_OK), 0);
		assert_int_equal(each_file(NULL), i + 1);
		save(m, now);
		rig_close(m);
		m = load(10, now, STATE_LOADED);
		rig_close(m);
	}
}

static void an_empty_file_is_set_aside(void **state)
{
	(void)state;
	write_file("", 0);
	rig_close(load(10, now_at(0), STATE_SET_ASIDE));
}

static void one_that_cannot_be_opened_is_set_aside(void **state)
{
	(void)state;
	assert_int_equal(symlink(path, path), 0); /* it leads to itself */
	rig_close(load(10, now_at(0), STATE_SET_ASIDE));
	assert_int_equal(each_file(NULL), 1);
}

/* Its name is as long as one may be, and so there is no other name for it: what may still be of use
 * to somebody is not lost by the next save. */
static void one_that_cannot_be_set_aside_stays_and_nothing_starts(void **state)
{
	(void)state;
	enum { LONGEST = 255 };
	struct memory_store *m;
	char name[LONGEST + 1] = "", file[sizeof folder + sizeof name];
	memset(name, 'x', LONGEST - strlen(".tmp"));
	(void)snprintf(file, sizeof file, "%s/%s", folder, name);

	FILE *f = fopen(file, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite("nonsense", 1, 8, f), 8);
	fclose(f);
	assert_int_equal(state_load(file, 10, now_at(0), &m, err, sizeof err), STATE_UNUSABLE);
	assert_null(m);
	assert_non_null(strstr(err, "cannot be renamed out of the way"));
	assert_int_equal(access(file, F_OK), 0);
	assert_int_equal(each_file(NULL), 1);
}

static void what_is_no_file_is_not_touched(void **state)
{
	(void)state;
	assert_int_equal(mkdir(path, 0700), 0);
	load(10, now_at(0), STATE_UNUSABLE);
	assert_non_null(strstr(err, "not a regular file"));
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	load(10, now_at(0), STATE_UNUSABLE);
	assert_int_equal(each_file(NULL), 1);
}

static void a_folder_that_cannot_be_written_is_told_at_the_start(void **state)
{
	(void)state;
	char was[sizeof path];
	memcpy(was, path, sizeof path);
	(void)snprintf(path, sizeof path, "%s/none/state", folder);
	load(10, now_at(0), STATE_UNUSABLE);
	assert_non_null(strstr(err, path));
	struct memory_store *m = rig_store(10, now_at(0));
	assert_int_equal(state_save(m, path, now_at(0), err, sizeof err), -1);
	assert_non_null(strstr(err, path));

	memcpy(path, was, sizeof path);
	if (geteuid() != 0) { /* root may write anywhere */
		assert_int_equal(chmod(folder, 0500), 0);
		load(10, now_at(0), STATE_UNUSABLE);
		assert_int_equal(chmod(folder, 0700), 0);
	}
	rig_close(m);
}

static void a_failed_save_leaves_the_old_file(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	rig_take(m, &tokens, 1, 1, now_at(0));
	save(m, now_at(0));
	/* Its place beside cannot be had: a folder with something in it is there. */
	char tmp[160], in[200];
	(void)snprintf(tmp, sizeof tmp, "%s.tmp", path);
	(void)snprintf(in, sizeof in, "%s/x", tmp);
	assert_int_equal(mkdir(tmp, 0700), 0);
	assert_int_equal(mkdir(in, 0700), 0);
	rig_take(m, &tokens, 2, 1, now_at(0));
	assert_int_equal(state_save(m, path, now_at(0), err, sizeof err), -1);
	assert_int_equal(rmdir(in), 0);
	assert_int_equal(rmdir(tmp), 0);
	struct memory_store *back = load(10, now_at(0), STATE_LOADED);
	assert_int_equal(memory_store_stats(back).keys, 1);
	rig_close(m);
	rig_close(back);
}

static void a_disk_that_is_full_is_an_error(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(1000, now_at(0));
	save(m, now_at(0));
	for (uint64_t i = 0; i < 1000; i++)
		rig_take(m, &tokens, i, 1, now_at(0));
	/* A bound on the size of files stands in for the disk. */
	struct rlimit was, few = { 4096, 4096 };
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	few.rlim_max = was.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
	int rc = state_save(m, path, now_at(0), err, sizeof err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_int_equal(rc, -1);
	assert_int_equal(each_file(NULL), 1); /* nothing half written is left */
	struct memory_store *back = load(10, now_at(0), STATE_LOADED);
	assert_int_equal(memory_store_stats(back).keys, 0);
	rig_close(m);
	rig_close(back);
}

/* Renamed before it is on disk, it would be there after a power failure with nothing in it. */
static void what_is_not_on_disk_does_not_take_the_old_ones_place(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	synced = 0;
	save(m, now_at(0));
	assert_int_equal(synced, 2); /* the file, and its name */
	rig_take(m, &tokens, 1, 1, now_at(0));
	disk_is_broken = true;
	int rc = state_save(m, path, now_at(0), err, sizeof err);
	disk_is_broken = false;
	assert_int_equal(rc, -1);
	assert_non_null(strstr(err, "cannot write: "));
	assert_int_equal(each_file(NULL), 1);
	struct memory_store *back = load(10, now_at(0), STATE_LOADED);
	assert_int_equal(memory_store_stats(back).keys, 0);
	rig_close(m);
	rig_close(back);
}

static void a_path_that_is_too_long_is_an_error(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0)), *none;
	char long_path[5000];
	memset(long_path, 'a', sizeof long_path - 1);
	long_path[sizeof long_path - 1] = '\0';
	assert_int_equal(state_save(m, long_path, now_at(0), err, sizeof err), -1);
	assert_int_equal(
		state_load(long_path, 10, now_at(0), &none, err, sizeof err), STATE_UNUSABLE);
	rig_close(m);
}

#define in_folder(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_folder(what_was_saved_comes_back),
		in_folder(notes_come_back_with_the_counters),
		in_folder(the_kind_of_hash_comes_back),
		in_folder(an_empty_store_comes_back),
		in_folder(a_save_replaces_the_one_before),
		in_folder(a_restart_refills_by_the_time_that_has_passed),
		in_folder(charges_after_the_moment_of_saving_are_read_as_of_it),
		in_folder(windows_stay_where_they_are),
		in_folder(windows_of_the_future_become_those_of_now),
		in_folder(more_keys_than_there_is_room_for),
		in_folder(every_cut_and_every_byte),
		in_folder(something_before_the_trailer),
		in_folder(notes_that_are_none_of_ours),
		in_folder(what_no_counter_can_hold),
		in_folder(no_file_is_a_first_start),
		in_folder(a_bad_one_is_set_aside),
		in_folder(an_empty_file_is_set_aside),
		in_folder(one_that_cannot_be_opened_is_set_aside),
		in_folder(one_that_cannot_be_set_aside_stays_and_nothing_starts),
		in_folder(what_is_no_file_is_not_touched),
		in_folder(a_folder_that_cannot_be_written_is_told_at_the_start),
		in_folder(a_failed_save_leaves_the_old_file),
		in_folder(a_disk_that_is_full_is_an_error),
		in_folder(what_is_not_on_disk_does_not_take_the_old_ones_place),
		in_folder(a_path_that_is_too_long_is_an_error),
	};
	return cmocka_run_group_tests_name("store/state", tests, setup, NULL);
}
