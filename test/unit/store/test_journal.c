/* The changes file: what was put comes back in its order, the last of a name last; what is not
 * exactly what was written is set aside, and what came before it holds. */
#include "store/journal.h"

#include "broken_disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <sodium.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct hash_key ours = { .bytes = { 1 } }, others = { .bytes = { 2 } },
			     of_another_kind = { .bytes = { 1 }, .kind = HASH_AES };
static char folder[64], state[128], path[160], err[512];

int fdatasync(int fd)
{
	return fsync(fd);
}

static int setup(void **with)
{
	(void)with;
	return hash_init() ? 0 : -1;
}

static int make_folder(void **with)
{
	(void)with;
	(void)snprintf(folder, sizeof folder, "/tmp/store-journal-XXXXXX");
	assert_non_null(mkdtemp(folder));
	(void)snprintf(state, sizeof state, "%s/state", folder);
	(void)snprintf(path, sizeof path, "%s/state.changes", folder);
	return 0;
}

/* Removes what is there; returns how many whose name has `part`. */
static unsigned clear(const char *part)
{
	char name[512];
	unsigned n = 0;
	DIR *d = opendir(folder);

	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		n += strstr(e->d_name, part) != NULL;
		(void)snprintf(name, sizeof name, "%s/%s", folder, e->d_name);
		if (unlink(name) < 0)
			(void)rmdir(name);
	}
	closedir(d);
	return n;
}

static int remove_folder(void **with)
{
	(void)with;
	(void)clear("");
	return rmdir(folder);
}

/* "name=text;" of each record, "name-;" of one that is no more. */
struct seen {
	char text[4096];
	bool same;
};

static void see(void *with, struct str name, struct str text, bool same)
{
	struct seen *s = with;
	size_t n = strlen(s->text);

	assert_int_equal(strlen(name.p), name.n);
	if (text.p)
		(void)snprintf(
			s->text + n, sizeof s->text - n, "%s=%.*s;", name.p, (int)text.n, text.p);
	else
		(void)snprintf(s->text + n, sizeof s->text - n, "%s-;", name.p);
	s->same = same;
}

static struct seen load(const struct hash_key *key, enum journal_rc want)
{
	struct seen s = { 0 };
	struct journal *j = journal_new(state, key);
	enum journal_rc rc = journal_load(j, 0, see, &s, err, sizeof err);

	if (rc != want)
		fail_msg("got %d, want %d: %s", (int)rc, (int)want, err);
	journal_free(j);
	return s;
}

static struct journal *begun(void)
{
	struct journal *j = journal_new(state, &ours);

	assert_true(journal_begin(j, err, sizeof err));
	return j;
}

static void put(struct journal *j, const char *name, const char *text)
{
	journal_put(j, str_of(name), str_of(text));
}

/* Three records in the whole, three appended. */
static void write_six(void)
{
	struct journal *j = begun();

	put(j, "a", "1");
	put(j, "b", "two");
	put(j, "c", "");
	assert_true(journal_replace(j, err, sizeof err));
	put(j, "a", "one");
	assert_true(journal_sync(j, err, sizeof err));
	put(j, "b", NULL);
	put(j, "d", "4");
	assert_true(journal_sync(j, err, sizeof err));
	journal_free(j);
}

static const char six[] = "a=1;b=two;c=;a=one;b-;d=4;";

static void what_was_put_comes_back(void **with)
{
	struct stat st;
	(void)with;

	(void)load(&ours, JOURNAL_NONE);
	write_six();
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	struct seen s = load(&ours, JOURNAL_LOADED);
	assert_string_equal(s.text, six);
	assert_true(s.same);
	s = load(&others, JOURNAL_LOADED);
	assert_string_equal(s.text, six);
	assert_false(s.same);
	assert_false(load(&of_another_kind, JOURNAL_LOADED).same);
	assert_int_equal(clear("tmp"), 0);
}

static void the_whole_takes_the_place_of_all_before(void **with)
{
	(void)with;
	write_six();
	struct journal *j = begun();
	put(j, "z", "26");
	assert_string_equal(load(&ours, JOURNAL_LOADED).text, six); /* not yet */
	assert_int_equal(journal_appended(j), 0);
	assert_true(journal_replace(j, err, sizeof err));
	assert_string_equal(load(&ours, JOURNAL_LOADED).text, "z=26;");
	uint64_t whole = journal_whole(j);
	put(j, "y", "25");
	assert_true(journal_sync(j, err, sizeof err));
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, whole + journal_appended(j));
	assert_true(journal_begin(j, err, sizeof err));
	put(j, "x", "24");
	assert_true(journal_replace(j, err, sizeof err));
	assert_int_equal(journal_appended(j), 0); /* all of it is of the whole */
	journal_free(j);
}

static size_t read_file(uint8_t *out, size_t max)
{
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	size_t n = fread(out, 1, max, f);
	fclose(f);
	return n;
}

static void write_file(const uint8_t *p, size_t n)
{
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(p, 1, n, f), n);
	fclose(f);
}

/* Where a record ends nobody can see that more came after it; anywhere else it is told. */
static void cut_anywhere_what_came_before_holds(void **with)
{
	uint8_t bytes[1024], *exact;
	unsigned whole = 0;
	(void)with;

	write_six();
	size_t n = read_file(bytes, sizeof bytes);
	for (size_t cut = 0; cut < n; cut++) {
		struct seen s = { 0 };
		exact = malloc(cut ? cut : 1);
		memcpy(exact, bytes, cut);
		bool good = journal_parse(exact, cut, &ours, see, &s, err, sizeof err);
		free(exact);
		assert_memory_equal(s.text, six, strlen(s.text));
		whole += good;
		if (good && *s.text)
			assert_int_equal(s.text[strlen(s.text) - 1], ';');
	}
	assert_int_equal(whole, 6); /* after the header, and after each record but the last */
}

static void no_bit_changes_unseen(void **with)
{
	uint8_t bytes[1024];
	(void)with;

	write_six();
	size_t n = read_file(bytes, sizeof bytes);
	for (size_t bit = 0; bit < 8 * n; bit++) {
		struct seen s = { 0 };
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(journal_parse(bytes, n, &ours, see, &s, err, sizeof err));
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_memory_equal(s.text, six, strlen(s.text));
		assert_true(strlen(s.text) < strlen(six));
	}
}

/* A block of an older file in the middle of this one is as whole as can be, and no part of it. */
static void records_of_another_file_are_none(void **with)
{
	uint8_t old[1024], bytes[1024];
	struct seen s = { 0 };
	(void)with;

	write_six();
	size_t n = read_file(old, sizeof old);
	write_six();
	assert_int_equal(read_file(bytes, sizeof bytes), n);
	memcpy(bytes + 64, old + 64, n - 64);
	assert_false(journal_parse(bytes, n, &ours, see, &s, err, sizeof err));
	assert_string_equal(s.text, "");
}

/* "a" and "bc" is not "ab" and "c". */
static void lengths_are_summed_up_too(void **with)
{
	enum { HEADER = 64 };
	uint8_t bytes[1024];
	uint32_t length[2];
	struct seen s = { 0 };
	(void)with;

	struct journal *j = begun();
	put(j, "ab", "c");
	assert_true(journal_replace(j, err, sizeof err));
	journal_free(j);
	size_t n = read_file(bytes, sizeof bytes);
	memcpy(length, bytes + HEADER, sizeof length);
	assert_int_equal(length[0]--, 2);
	assert_int_equal(length[1]++, 1);
	memcpy(bytes + HEADER, length, sizeof length);
	assert_false(journal_parse(bytes, n, &ours, see, &s, err, sizeof err));
	assert_string_equal(s.text, "");
}

static void what_is_damaged_is_set_aside(void **with)
{
	uint8_t bytes[1024];
	(void)with;

	write_six();
	size_t n = read_file(bytes, sizeof bytes);
	bytes[n - 1] ^= 1;
	write_file(bytes, n);
	assert_string_equal(load(&ours, JOURNAL_SET_ASIDE).text, "a=1;b=two;c=;a=one;b-;");
	assert_non_null(strstr(err, "damaged after 5 records"));
	write_file(bytes, n - 1);
	(void)load(&ours, JOURNAL_SET_ASIDE);
	write_file((const uint8_t *)"nonsense", 8);
	assert_string_equal(load(&ours, JOURNAL_SET_ASIDE).text, "");
	write_file(bytes, 0);
	(void)load(&ours, JOURNAL_SET_ASIDE);
	(void)clear("");

	assert_int_equal(mkdir(path, 0700), 0);
	(void)load(&ours, JOURNAL_UNUSABLE);
	assert_non_null(strstr(err, path));
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	(void)load(&ours, JOURNAL_UNUSABLE); /* and nobody waits for a writer */
}

static void one_that_cannot_be_opened_is_set_aside(void **with)
{
	(void)with;
	assert_int_equal(symlink(path, path), 0); /* it leads to itself */
	(void)load(&ours, JOURNAL_SET_ASIDE);
	assert_non_null(strstr(err, "cannot open"));
}

/* As whole as can be, but for its version. */
static void one_of_a_later_version_is_set_aside(void **with)
{
	enum { VERSION_AT = 12, SUM_AT = 48, HEADER_BYTES = 64 };
	uint8_t bytes[HEADER_BYTES];
	(void)with;

	struct journal *j = begun();
	assert_true(journal_replace(j, err, sizeof err));
	journal_free(j);
	assert_int_equal(read_file(bytes, sizeof bytes), HEADER_BYTES);
	bytes[VERSION_AT]++;
	(void)crypto_generichash(bytes + SUM_AT, HEADER_BYTES - SUM_AT, bytes, SUM_AT, NULL, 0);
	write_file(bytes, sizeof bytes);
	(void)load(&ours, JOURNAL_SET_ASIDE);
	assert_non_null(strstr(err, "format version 2, want 1"));
}

static unsigned count(const char *part)
{
	unsigned n = 0;
	DIR *d = opendir(folder);

	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		n += strstr(e->d_name, part) != NULL;
	closedir(d);
	return n;
}

static void limit_files(rlim_t bytes)
{
	struct rlimit limit;

	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* The disk was full while it was written, and is at the next start: what could be read of it is
 * there for the start after that. */
static void what_is_damaged_stays_until_another_is_there(void **with)
{
	uint8_t bytes[1024];
	struct seen s = { 0 };
	(void)with;

	write_six();
	size_t n = read_file(bytes, sizeof bytes);
	write_file(bytes, n - 1);
	struct journal *j = journal_new(state, &ours);
	assert_int_equal(journal_load(j, 0, see, &s, err, sizeof err), JOURNAL_SET_ASIDE);
	assert_true(journal_begin(j, err, sizeof err));
	limit_files(16);
	assert_false(journal_replace(j, err, sizeof err));
	limit_files(RLIM_INFINITY);
	journal_free(j);
	assert_int_equal(count(".bad-"), 0); /* or each start would leave one */

	memset(&s, 0, sizeof s);
	j = journal_new(state, &ours);
	assert_int_equal(journal_load(j, 0, see, &s, err, sizeof err), JOURNAL_SET_ASIDE);
	assert_string_equal(s.text, "a=1;b=two;c=;a=one;b-;");
	assert_true(journal_begin(j, err, sizeof err));
	put(j, "z", "26");
	assert_true(journal_replace(j, err, sizeof err));
	journal_free(j);
	assert_string_equal(load(&ours, JOURNAL_LOADED).text, "z=26;");
	assert_int_equal(count(".bad-"), 1);
}

/* Its other name stays where it is the only one: not every file system has two names for a file. */
static void what_is_damaged_stays_where_it_was_renamed(void **with)
{
	struct seen s = { 0 };
	(void)with;

	write_file((const uint8_t *)"nonsense", 8);
	struct journal *j = journal_new(state, &ours);
	assert_int_equal(journal_load(j, 0, see, &s, err, sizeof err), JOURNAL_SET_ASIDE);
	assert_int_equal(unlink(path), 0); /* as rename() leaves it */
	journal_free(j);
	assert_int_equal(count(".bad-"), 1);
}

/* After an error nothing counts as kept until the whole is written, even if there is room again. */
static void a_full_disk_is_told_until_the_whole_is_written(void **with)
{
	(void)with;
	write_six();
	struct journal *j = begun();
	put(j, "a", "1");
	limit_files(64);
	assert_false(journal_replace(j, err, sizeof err));
	assert_non_null(strstr(err, "state.changes"));
	assert_string_equal(load(&ours, JOURNAL_LOADED).text, six); /* the old one is as it was */
	limit_files(RLIM_INFINITY);
	assert_true(journal_begin(j, err, sizeof err));
	put(j, "a", "1");
	assert_true(journal_replace(j, err, sizeof err));

	limit_files(journal_whole(j) + 30);
	put(j, "b", "2");
	assert_true(journal_sync(j, err, sizeof err));
	put(j, "c", "3");
	assert_false(journal_sync(j, err, sizeof err));
	limit_files(RLIM_INFINITY);
	put(j, "d", "4");
	assert_false(journal_sync(j, err, sizeof err));
	assert_string_equal(load(&ours, JOURNAL_SET_ASIDE).text, "a=1;b=2;");
	assert_true(journal_begin(j, err, sizeof err));
	put(j, "e", "5");
	assert_true(journal_replace(j, err, sizeof err));
	put(j, "f", "6");
	assert_true(journal_sync(j, err, sizeof err));
	assert_string_equal(load(&ours, JOURNAL_LOADED).text, "e=5;f=6;");
	journal_free(j);
}

/* What the disk did not take is not kept, whatever write() has said. */
static void what_is_not_on_disk_is_not_kept(void **with)
{
	(void)with;
	write_six();
	struct journal *j = begun();
	put(j, "a", "1");
	disk_is_broken = true;
	assert_false(journal_replace(j, err, sizeof err));
	assert_string_equal(load(&ours, JOURNAL_LOADED).text, six);
	disk_is_broken = false;
	assert_true(journal_begin(j, err, sizeof err));
	synced = 0;
	assert_true(journal_replace(j, err, sizeof err));
	assert_int_equal(synced, 2); /* the file, and its name */

	put(j, "b", "2");
	assert_true(journal_sync(j, err, sizeof err));
	assert_int_equal(synced, 3);
	put(j, "c", "3");
	disk_is_broken = true;
	assert_false(journal_sync(j, err, sizeof err));
	disk_is_broken = false;
	assert_false(journal_sync(j, err, sizeof err));
	journal_free(j);
}

/* A hole is no bytes to write, but as many to read. */
static void one_that_is_larger_than_any_of_ours_is_set_aside(void **with)
{
	struct seen s = { 0 };
	(void)with;

	write_six();
	assert_int_equal(truncate(path, (off_t)JOURNAL_BYTES_MAX + 1), 0);
	struct journal *j = journal_new(state, &ours);
	assert_int_equal(journal_load(j, 0, see, &s, err, sizeof err), JOURNAL_SET_ASIDE);
	assert_non_null(strstr(err, "more than any of ours"));
	assert_string_equal(s.text, "");
	journal_free(j);
}

/* What is written to a file that has no name any more is kept by nobody. */
static void a_file_that_is_gone_is_told_until_the_whole_is_written(void **with)
{
	char other[sizeof path + 8];
	(void)with;
	write_six();

	for (unsigned replaced = 0; replaced < 2; replaced++) {
		struct journal *j = begun();
		assert_true(journal_replace(j, err, sizeof err));
		put(j, "a", "1");
		assert_true(journal_sync(j, err, sizeof err));
		snprintf(other, sizeof other, "%s.other", path);
		assert_int_equal(rename(path, other), 0);
		if (replaced)
			write_file((const uint8_t *)"", 0);
		put(j, "b", "2");
		assert_false(journal_sync(j, err, sizeof err));
		assert_non_null(strstr(err, "state.changes: cannot write"));
		assert_true(journal_begin(j, err, sizeof err));
		put(j, "c", "3");
		assert_true(journal_replace(j, err, sizeof err));
		assert_true(journal_sync(j, err, sizeof err));
		assert_string_equal(load(&ours, JOURNAL_LOADED).text, "c=3;");
		assert_int_equal(unlink(other), 0);
		journal_free(j);
	}
}

/* Synced, and not where the next start looks for it. */
static void a_whole_that_cannot_take_its_place_is_told(void **with)
{
	(void)with;
	struct journal *j = begun();
	put(j, "a", "1");
	assert_int_equal(mkdir(path, 0700), 0);
	assert_false(journal_replace(j, err, sizeof err));
	assert_non_null(strstr(err, "cannot write: Is a directory"));
	assert_false(journal_sync(j, err, sizeof err));
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(clear(""), 0); /* nor does it stay beside it */
	journal_free(j);
}

static void what_could_not_be_put_is_told(void **with)
{
	(void)with;
	write_six();
	struct journal *j = begun();
	put(j, "a", "1");
	journal_spoil(j);
	assert_false(journal_replace(j, err, sizeof err));
	assert_string_equal(load(&ours, JOURNAL_LOADED).text, six);
	journal_free(j);
}

static void what_is_too_long_is_left_out(void **with)
{
	static char text[JOURNAL_TEXT_MAX + 1], name[JOURNAL_NAME_MAX + 1];
	struct seen s = { 0 };
	(void)with;

	memset(text, 'x', sizeof text);
	memset(name, 'n', sizeof name);
	struct journal *j = begun();
	journal_put(j, (struct str){ name, sizeof name }, STR("1"));
	journal_put(j, STR("a"), (struct str){ text, sizeof text });
	journal_put(j, STR(""), STR("1"));
	put(j, "b", "2");
	assert_true(journal_replace(j, err, sizeof err));
	s = load(&ours, JOURNAL_LOADED);
	assert_string_equal(s.text, "b=2;");
	journal_put(
		j, (struct str){ name, JOURNAL_NAME_MAX }, (struct str){ text, JOURNAL_TEXT_MAX });
	assert_true(journal_sync(j, err, sizeof err));
	journal_free(j);
	(void)load(&ours, JOURNAL_LOADED);
}

/* It is of this process, and no fault of the file's: another start reads it. */
static void too_few_descriptors_are_no_reason_to_set_it_aside(void **with)
{
	struct rlimit was, none;
	(void)with;

	write_six();
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	none = (struct rlimit){ 0, was.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	struct seen s = { 0 };
	struct journal *j = journal_new(state, &ours);
	enum journal_rc rc = journal_load(j, 0, see, &s, err, sizeof err);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	journal_free(j);
	assert_int_equal(rc, JOURNAL_UNUSABLE);
	assert_non_null(strstr(err, "Too many open files"));
	assert_int_equal(count(".bad-"), 0);
	assert_string_equal(load(&ours, JOURNAL_LOADED).text, six);
}

static void what_nobody_could_take_keeps_another_name(void **with)
{
	uint8_t before[1024], after[1024];
	struct seen s = { 0 };
	(void)with;

	write_six();
	size_t n = read_file(before, sizeof before);
	struct journal *j = journal_new(state, &ours);
	assert_int_equal(journal_load(j, 0, see, &s, err, sizeof err), JOURNAL_LOADED);
	assert_int_equal(journal_refuse(j, 0, 2, err, sizeof err), JOURNAL_SET_ASIDE);
	assert_non_null(strstr(err, "2 of its records"));
	assert_int_equal(journal_refuse(j, 0, 2, err, sizeof err), JOURNAL_LOADED); /* once */
	assert_true(journal_begin(j, err, sizeof err));
	assert_true(journal_replace(j, err, sizeof err));
	journal_free(j);
	assert_string_equal(load(&ours, JOURNAL_LOADED).text, "");
	assert_int_equal(count(".bad-"), 1);
	(void)snprintf(err, sizeof err, "%s.bad-19700101T000000Z", path);
	assert_int_equal(rename(err, path), 0);
	assert_int_equal(read_file(after, sizeof after), n);
	assert_memory_equal(after, before, n);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
	const struct CMUnitTest tests[] = {
		T(what_was_put_comes_back),
		T(the_whole_takes_the_place_of_all_before),
		T(cut_anywhere_what_came_before_holds),
		T(no_bit_changes_unseen),
		T(records_of_another_file_are_none),
		T(lengths_are_summed_up_too),
		T(what_is_damaged_is_set_aside),
		T(one_that_cannot_be_opened_is_set_aside),
		T(one_of_a_later_version_is_set_aside),
		T(what_is_damaged_stays_until_another_is_there),
		T(what_is_damaged_stays_where_it_was_renamed),
		T(a_full_disk_is_told_until_the_whole_is_written),
		T(what_is_not_on_disk_is_not_kept),
		T(one_that_is_larger_than_any_of_ours_is_set_aside),
		T(a_file_that_is_gone_is_told_until_the_whole_is_written),
		T(a_whole_that_cannot_take_its_place_is_told),
		T(what_could_not_be_put_is_told),
		T(what_is_too_long_is_left_out),
		T(too_few_descriptors_are_no_reason_to_set_it_aside),
		T(what_nobody_could_take_keeps_another_name),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
