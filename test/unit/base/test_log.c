#include "base/log.h"

#define SD_JOURNAL_SUPPRESS_LOCATION

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include <cmocka.h>

enum { LINE_BYTES = 4096 };

static char folder[] = "/tmp/spoa-ratelimit-log.XXXXXX";

static struct log_settings settings_of(
	enum log_target target, enum log_format format, const char *name)
{
	struct log_settings s = { .target = target, .format = format, .level = LOG_LEVEL_INFO };

	if (name)
		(void)snprintf(s.path, sizeof s.path, "%s/%s", folder, name);
	return s;
}

static void open_log(const struct log_settings *s)
{
	char err[256] = "";

	if (log_open(s, err, sizeof err) != 0)
		fail_msg("%s", err);
}

/* The whole file, with a NUL after it; the caller's to free. */
static char *read_file(const char *name)
{
	char path[256];
	size_t n = 0, cap = 1 << 22;
	char *text = malloc(cap);

	(void)snprintf(path, sizeof path, "%s/%s", folder, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	for (;;) {
		assert_true(n + 1 < cap);
		ssize_t got = read(fd, text + n, cap - 1 - n);
		assert_true(got >= 0);
		if (got == 0)
			break;
		n += (size_t)got;
	}
	(void)close(fd);
	text[n] = '\0';
	assert_int_equal(strlen(text), n); /* no NUL in a log */
	return text;
}

static void unlink_file(const char *name)
{
	char path[256];

	(void)snprintf(path, sizeof path, "%s/%s", folder, name);
	(void)unlink(path);
}

/* ---- stderr as a file or a pipe ---- */

static int stderr_kept = -1;

static void stderr_to(int fd)
{
	(void)fflush(stderr);
	stderr_kept = dup(STDERR_FILENO);
	assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
	(void)close(fd);
}

static void stderr_to_file(const char *name)
{
	char path[256];

	(void)snprintf(path, sizeof path, "%s/%s", folder, name);
	stderr_to(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
}

static void stderr_back(void)
{
	assert_int_equal(dup2(stderr_kept, STDERR_FILENO), STDERR_FILENO);
	(void)close(stderr_kept);
}

/* ---- is it one line, and what it claims to be? ---- */

static const char *skip_json_string(const char *p)
{
	if (*p++ != '"')
		return NULL;
	while (*p != '"') {
		unsigned char c = (unsigned char)*p;

		if (c < 0x20)
			return NULL;
		if (c == '\\') {
			p++;
			if (*p == 'u') {
				for (int i = 1; i <= 4; i++) {
					if (!strchr("0123456789abcdef", p[i]) || !p[i])
						return NULL;
				}
				p += 5;
			} else if (*p && strchr("\"\\/bfnrt", *p)) {
				p++;
			} else {
				return NULL;
			}
			continue;
		}
		if (c < 0x80) {
			p++;
			continue;
		}
		/* UTF-8: by its lead byte; over-long forms and surrogates are refused. */
		int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
		unsigned char second = (unsigned char)p[1];
		if (c < 0xc2 || c > 0xf4 || (c == 0xe0 && second < 0xa0) ||
			(c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) ||
			(c == 0xf4 && second > 0x8f))
			return NULL;
		p++;
		for (; more; more--) {
			if (((unsigned char)*p++ & 0xc0) != 0x80)
				return NULL;
		}
	}
	return p + 1;
}

/* An object of strings, integers and true, without spaces. `names` gets the keys. */
static bool is_json_line(const char *p, char *names, size_t names_n)
{
	names[0] = '\0';
	if (*p++ != '{')
		return false;
	for (;;) {
		const char *name = p;

		p = skip_json_string(p);
		if (!p || *p != ':' || strlen(names) + (size_t)(p - name) + 2 > names_n)
			return false;
		strncat(names, name + 1, (size_t)(p - name) - 2);
		strcat(names, " ");
		p++;
		if (*p == '"') {
			p = skip_json_string(p);
			if (!p)
				return false;
		} else if (strncmp(p, "true", 4) == 0) {
			p += 4;
		} else {
			size_t digits = strspn(p, "-0123456789");
			if (digits == 0)
				return false;
			p += digits;
		}
		if (*p == '}')
			return p[1] == '\0';
		if (*p++ != ',')
			return false;
	}
}

/* time level event { name=bare | name="escaped" }* */
static bool is_text_line(const char *p, char *names, size_t names_n)
{
	names[0] = '\0';
	for (int i = 0; i < 2; i++) {
		p = strchr(p, ' ');
		if (!p)
			return false;
		p++;
	}
	p += strcspn(p, " ");
	while (*p) {
		if (*p++ != ' ')
			return false;
		const char *name = p;
		p += strcspn(p, " =\"");
		if (*p != '=' || strlen(names) + (size_t)(p - name) + 2 > names_n)
			return false;
		strncat(names, name, (size_t)(p - name));
		strcat(names, " ");
		p++;
		if (*p != '"') {
			size_t bare = strcspn(p, " =\"\\");
			if (bare == 0)
				return false;
			p += bare;
			continue;
		}
		for (p++; *p != '"'; p++) {
			if ((unsigned char)*p < 0x20 || *p == 0x7f)
				return false;
			if (*p == '\\' && !*++p)
				return false;
		}
		p++;
	}
	return true;
}

/* ---- forms ---- */

#define CONTROL "\x01\x1b[31m\x7f"
#define BIDI    "\xe2\x80\xae" /* U+202E */

static const struct {
	const char *what;
	struct str value;
	const char *text, *json;
} forms[] = {
	{ "plain", { "10.0.0.1:9600", 13 }, "10.0.0.1:9600", "10.0.0.1:9600" },
	{ "punctuation", { "a/b?c&d;e'f", 11 }, "a/b?c&d;e'f", "a/b?c&d;e'f" },
	{ "empty", { "", 0 }, "\"\"", "" },
	{ "absent", { NULL, 0 }, "\"\"", "" },
	{ "space", { "a b", 3 }, "\"a b\"", "a b" },
	{ "a line", { "x\n2026-01-01T00:00:00.000Z info forged", 38 },
		"\"x\\n2026-01-01T00:00:00.000Z info forged\"",
		"x\\n2026-01-01T00:00:00.000Z info forged" },
	{ "a key", { "x deny=0", 8 }, "\"x deny=0\"", "x deny=0" },
	{ "a key without a space", { "x=0", 3 }, "\"x=0\"", "x=0" },
	{ "quotes", { "\" a=\"1", 6 }, "\"\\\" a=\\\"1\"", "\\\" a=\\\"1" },
	{ "a backslash", { "\\", 1 }, "\"\\\\\"", "\\\\" },
	{ "a JSON key", { "\",\"deny\":\"", 10 }, "\"\\\",\\\"deny\\\":\\\"\"",
		"\\\",\\\"deny\\\":\\\"" },
	{ "return and tab", { "\r\t", 2 }, "\"\\r\\t\"", "\\r\\t" },
	{ "control bytes", { CONTROL, 7 }, "\"\\x01\\x1b[31m\\x7f\"", "\\u0001\\u001b[31m\\u007f" },
	{ "a NUL", { "a\0b", 3 }, "\"a\\x00b\"", "a\\u0000b" },
	{ "UTF-8", { "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9 },
		"\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"",
		"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
	{ "no UTF-8", { "\xff\xc3", 2 }, "\"\\xff\\xc3\"", "\\ufffd\\ufffd" },
	{ "over-long", { "\xc0\x8a", 2 }, "\"\\xc0\\x8a\"", "\\ufffd\\ufffd" },
	{ "a surrogate", { "\xed\xa0\x80", 3 }, "\"\\xed\\xa0\\x80\"", "\\ufffd\\ufffd\\ufffd" },
	{ "beyond Unicode", { "\xf4\x90\x80\x80", 4 }, "\"\\xf4\\x90\\x80\\x80\"",
		"\\ufffd\\ufffd\\ufffd\\ufffd" },
	{ "C1 control", { "\xc2\x85", 2 }, "\"\\u0085\"", "\\u0085" },
	{ "right to left", { BIDI, 3 }, "\"\\u202e\"", "\\u202e" },
	{ "line separator", { "\xe2\x80\xa8", 3 }, "\"\\u2028\"", "\\u2028" },
};

static void values_cannot_forge(void **state)
{
	(void)state;
	for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
		struct log_settings s = settings_of(
			LOG_TARGET_FILE, (enum log_format)format, "forms");

		open_log(&s);
		for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
			log_info("event", KV_STR("v", forms[i].value), KV_INT("n", -7));
		log_close();

		char *all = read_file("forms"), *rest = all;
		for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
			char want[256];
			char *line = strsep(&rest, "\n");

			if (format == LOG_FORMAT_TEXT)
				(void)snprintf(
					want, sizeof want, "Z info event v=%s n=-7", forms[i].text);
			else
				(void)snprintf(want, sizeof want,
					"Z\",\"level\":\"info\",\"event\":\"event\",\"v\":\"%s\",\"n\":-7}",
					forms[i].json);
			const char *after = strchr(line, 'Z');
			if (!after || strcmp(after, want) != 0)
				fail_msg("%s: %s", forms[i].what, line);
		}
		assert_string_equal(rest, "");
		free(all);
		unlink_file("forms");
	}
}

static uint64_t random_next(uint64_t *seed)
{
	uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* Whatever bytes come in: a line for each call, in its format, with the keys that were given. */
static void any_bytes_make_one_line(void **state)
{
	(void)state;
	enum { LINES = 2000 };
	static const char special[] = "\n\r\0\"\\=, {}:\xc3\xa9\xe2\x80\xae\xff\x1b ";
	uint64_t seed = 6;

	for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
		struct log_settings s = settings_of(
			LOG_TARGET_FILE, (enum log_format)format, "random");

		for (int i = 0; i < LINES; i++) {
			char value[3][1500];
			struct str v[3];

			for (int k = 0; k < 3; k++) {
				size_t n = random_next(&seed) % (i % 10 ? 40 : sizeof value[k]);
				for (size_t j = 0; j < n; j++) {
					uint64_t r = random_next(&seed);
					value[k][j] = r & 256 ? (char)r
							      : special[r % (sizeof special - 1)];
				}
				v[k] = (struct str){ value[k], n };
			}
			/* Closed now and then: the queue is bounded, and none is to be lost here.
			 */
			if (i % 50 == 0) {
				log_close();
				open_log(&s);
			}
			log_info("e", KV_STR("a", v[0]), KV_STR("b", v[1]), KV_STR("c", v[2]));
		}
		log_close();

		char *all = read_file("random"), *rest = all, *line;
		int lines = 0;
		while ((line = strsep(&rest, "\n")) && *line) {
			char names[64];
			bool good = format == LOG_FORMAT_TEXT
					    ? is_text_line(line, names, sizeof names)
					    : is_json_line(line, names, sizeof names);
			const char *want = format == LOG_FORMAT_TEXT ? "a b c "
								     : "time level event a b c ";

			if (!good || strncmp(names, want, strlen(want)) != 0)
				fail_msg("%s: %s", names, line);
			const char *more = names + strlen(want);
			assert_true(*more == '\0' || strcmp(more, "cut ") == 0);
			assert_true(strlen(line) < LINE_BYTES);
			lines++;
		}
		assert_int_equal(lines, LINES);
		free(all);
		unlink_file("random");
	}
}

static void long_lines_are_cut_and_say_so(void **state)
{
	(void)state;
	static char many[8000];

	/* Of several bytes each, so that a cut may fall into one. */
	for (size_t i = 0; i < sizeof many; i++)
		many[i] = "\xe2\x82\xac"[i % 3];
	for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
		struct log_settings s = settings_of(
			LOG_TARGET_FILE, (enum log_format)format, "cut");

		open_log(&s);
		for (size_t n = 0; n < 1030; n++) {
			struct str v = { many, n }, quotes = { "\"\"\"\"\"\"\"\"\"\"\"\"", 12 };

			if (n % 40 == 0) {
				log_close();
				open_log(&s);
			}
			log_info("e", KV_STR("a", v), KV_STR("b", v), KV_STR("c", v),
				KV_STR("d", v), KV_STR("e", quotes), KV_INT("f", INT64_MIN),
				KV_INT("g", 1));
		}
		log_info("e", KV_STR("long", ((struct str){ many, sizeof many })));
		log_close();

		char *all = read_file("cut"), *rest = all, *line;
		unsigned lines = 0, cut = 0;
		while ((line = strsep(&rest, "\n")) && *line) {
			char names[64];
			bool good = format == LOG_FORMAT_TEXT
					    ? is_text_line(line, names, sizeof names)
					    : is_json_line(line, names, sizeof names);

			if (!good)
				fail_msg("%s", line);
			assert_true(strlen(line) < LINE_BYTES);
			lines++;
			if (strstr(names, "cut ")) {
				cut++;
				assert_string_equal(names + strlen(names) - 4, "cut ");
				assert_non_null(
					strstr(line, format == LOG_FORMAT_TEXT ? " cut=true"
									       : ",\"cut\":true}"));
			} else if (lines <= 1030) {
				assert_non_null(strstr(names, " g "));
			}
		}
		assert_int_equal(lines, 1031);
		/* Those whose last character was cut in two at 1 KiB aside, it begins with 4 KiB.
		 */
		assert_true(cut > 10 && cut < 100);
		free(all);
		unlink_file("cut");
	}
}

static void names_cannot_forge_either(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_FILE, LOG_FORMAT_JSON, "names");

	open_log(&s);
	log_info("a\"b", KV_INT("x\":1,\"y", 1), KV_INT("level", 2), KV_INT("time", 3));
	log_close();
	char *all = read_file("names");
	assert_non_null(strstr(all, "\"event\":\"a_b\",\"x__1__y\":1,\"level_\":2,\"time_\":3}\n"));
	free(all);
	unlink_file("names");
}

/* ---- levels and suppression ---- */

static unsigned count_of(const char *text, const char *what)
{
	unsigned n = 0;

	for (; (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}

static void levels_are_kept(void **state)
{
	(void)state;
	for (int level = LOG_LEVEL_DEBUG; level <= LOG_LEVEL_ERROR; level++) {
		struct log_settings s = settings_of(LOG_TARGET_FILE, LOG_FORMAT_TEXT, "levels");
		static struct log_site site;

		s.level = (enum log_level)level;
		open_log(&s);
		log_debug("e", KV_INT("n", 1));
		log_info("e", KV_INT("n", 1));
		log_warning("e", KV_INT("n", 1));
		log_error("e", KV_INT("n", 1));
		log_put_always(LOG_LEVEL_DEBUG, "always", LOG_FIELDS(KV_INT("n", 1)));
		for (int l = LOG_LEVEL_DEBUG; l <= LOG_LEVEL_ERROR; l++)
			assert_int_equal(log_enabled((enum log_level)l), l >= level);
		/* What is not enabled is not counted as suppressed. */
		if (level > LOG_LEVEL_DEBUG)
			log_put_every(&site, USEC_PER_SEC, LOG_LEVEL_DEBUG, "e",
				LOG_FIELDS(KV_INT("n", 1)));
		assert_int_equal(atomic_load(&site.next), 0);
		log_close();
		char *all = read_file("levels");
		assert_int_equal(count_of(all, " e n=1\n"), 4 - level);
		assert_int_equal(count_of(all, " debug always n=1\n"), 1);
		free(all);
		unlink_file("levels");
	}
}

static void a_site_is_suppressed_and_counted(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_FILE, LOG_FORMAT_TEXT, "sites");
	static struct log_site site;

	open_log(&s);
	for (int i = 0; i < 10; i++)
		log_put_every(
			&site, USEC_PER_DAY, LOG_LEVEL_WARNING, "hot", LOG_FIELDS(KV_INT("i", i)));
	atomic_store(&site.next, 0); /* a day later */
	for (int i = 10; i < 12; i++)
		log_put_every(
			&site, USEC_PER_DAY, LOG_LEVEL_WARNING, "hot", LOG_FIELDS(KV_INT("i", i)));
	atomic_store(&site.next, 0);
	log_put_every(&site, 0, LOG_LEVEL_WARNING, "hot", LOG_FIELDS(KV_INT("i", 12)));
	log_put_every(&site, 0, LOG_LEVEL_WARNING, "hot", LOG_FIELDS(KV_INT("i", 13)));
	log_close();

	char *all = read_file("sites");
	assert_int_equal(count_of(all, "\n"), 4);
	assert_non_null(strstr(all, " warning hot i=0\n"));
	assert_non_null(strstr(all, " warning hot i=10 suppressed=9\n"));
	assert_non_null(strstr(all, " warning hot i=12 suppressed=1\n"));
	assert_non_null(strstr(all, " warning hot i=13\n"));
	free(all);
	unlink_file("sites");
}

/* ---- files ---- */

static void without_a_writer_lines_go_to_stderr(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_FILE, LOG_FORMAT_TEXT, "file");
	struct log_settings bad = settings_of(LOG_TARGET_FILE, LOG_FORMAT_TEXT, "none/file");
	char err[512] = "";

	stderr_to_file("stderr");
	log_info("before", KV_INT("n", 1));
	assert_int_equal(log_open(&bad, err, sizeof err), -1);
	assert_non_null(strstr(err, "none/file"));
	assert_non_null(strstr(err, strerror(ENOENT)));
	log_info("failed", KV_INT("n", 2));
	open_log(&s);
	log_info("during", KV_INT("n", 3));
	log_close();
	log_close();
	log_reopen();
	log_info("after", KV_INT("n", 4));
	stderr_back();

	char *all = read_file("stderr"), *file = read_file("file");
	assert_int_equal(count_of(all, "\n"), 3);
	assert_non_null(strstr(all, " info before n=1\n"));
	assert_non_null(strstr(all, " info failed n=2\n"));
	assert_non_null(strstr(all, " info after n=4\n"));
	assert_int_equal(count_of(file, "\n"), 1);
	assert_non_null(strstr(file, " info during n=3\n"));
	struct stat st;
	char path[256];
	(void)snprintf(path, sizeof path, "%s/file", folder);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0137, 0); /* 0640 at most */
	free(all);
	free(file);
	unlink_file("stderr");
	unlink_file("file");
}

static void say_journal_stream(int off)
{
	struct stat st;
	char stream[64];
	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	(void)snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)st.st_dev,
		(uintmax_t)st.st_ino + (uintmax_t)off);
	assert_int_equal(setenv("JOURNAL_STREAM", stream, 1), 0);
}

/* As systemd tells by its variable; that another one's stderr is, which was handed on, is no
 * reason. */
static void stderr_has_priorities_where_it_is_the_journal(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
	struct log_settings json = settings_of(LOG_TARGET_STDERR, LOG_FORMAT_JSON, NULL);
	s.level = LOG_LEVEL_DEBUG;
	stderr_to_file("stderr");
	say_journal_stream(0);
	log_warning("before", KV_INT("n", 1));
	open_log(&s);
	log_debug("it", KV_INT("n", 2));
	log_info("it", KV_INT("n", 3));
	log_warning("it", KV_INT("n", 4));
	log_error("it", KV_INT("n", 5));
	log_close();
	open_log(&json);
	log_error("it", KV_INT("n", 6));
	log_close();
	say_journal_stream(1);
	log_warning("after", KV_INT("n", 7));
	open_log(&s);
	log_error("it", KV_INT("n", 8));
	log_close();
	assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
	stderr_back();

	static const char *const wanted[] = { "<4>2", "<7>2", "<6>2", "<4>2", "<3>2", "<3>{", "{",
		"2" };
	char *all = read_file("stderr"), *line = all;
	for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		assert_int_equal(strncmp(line, wanted[i], strlen(wanted[i])), 0);
		line = strchr(line, '\n') + 1;
	}
	assert_int_equal(*line, '\0');
	free(all);
	unlink_file("stderr");
}

static void a_renamed_file_is_reopened(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_FILE, LOG_FORMAT_TEXT, "now");
	char from[256], to[256];

	(void)snprintf(from, sizeof from, "%s/now", folder);
	(void)snprintf(to, sizeof to, "%s/old", folder);
	open_log(&s);
	log_info("first", KV_INT("n", 1));
	assert_int_equal(rename(from, to), 0);
	log_info("second", KV_INT("n", 2)); /* until it is told, it writes where it wrote */
	log_reopen();
	log_info("third", KV_INT("n", 3));
	log_close();

	char *old = read_file("old"), *now = read_file("now");
	assert_int_equal(count_of(old, "\n"), 2);
	assert_non_null(strstr(old, " second n=2\n"));
	assert_int_equal(count_of(now, "\n"), 1);
	assert_non_null(strstr(now, " third n=3\n"));
	free(old);
	free(now);
	unlink_file("old");
	unlink_file("now");
}

/* Also where a program has to say that it may: in 32 bits. */
static void a_file_of_more_than_two_gibibytes_is_written_on(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_FILE, LOG_FORMAT_TEXT, "large");
	int64_t size = INT64_C(5) << 29;
	char path[256], line[256] = "";

	(void)snprintf(path, sizeof path, "%s/large", folder);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0); /* all of it a hole */
	open_log(&s);
	log_info("behind", KV_INT("n", 1));
	log_close();
	assert_true(pread(fd, line, sizeof line - 1, (off_t)size) > 0);
	assert_non_null(strstr(line, " behind n=1\n"));
	(void)close(fd);
	unlink_file("large");
}

static void a_change_holds_from_the_next_line_on(void **state)
{
	(void)state;
	struct log_settings one = settings_of(LOG_TARGET_FILE, LOG_FORMAT_TEXT, "one");
	struct log_settings two = settings_of(LOG_TARGET_FILE, LOG_FORMAT_JSON, "two");
	struct log_settings bad = settings_of(LOG_TARGET_FILE, LOG_FORMAT_JSON, "none/x");
	char err[512] = "";

	open_log(&one);
	log_info("first", KV_INT("n", 1));
	bad.level = LOG_LEVEL_ERROR;
	assert_int_equal(log_change(&bad, err, sizeof err), -1);
	assert_non_null(strstr(err, "none/x"));
	log_info("second", KV_INT("n", 2)); /* all of the old settings stay */
	assert_int_equal(log_change(&two, err, sizeof err), 0);
	log_info("third", KV_INT("n", 3));
	log_close();

	char *a = read_file("one"), *b = read_file("two");
	assert_int_equal(count_of(a, "\n"), 2);
	assert_non_null(strstr(a, " second n=2\n"));
	assert_int_equal(count_of(b, "\n"), 1);
	assert_non_null(strstr(b, "\"event\":\"third\",\"n\":3}\n"));
	free(a);
	free(b);
	unlink_file("one");
	unlink_file("two");
}

static void a_full_disk_is_counted_and_told(void **state)
{
	(void)state;
	struct log_settings full = settings_of(LOG_TARGET_FILE, LOG_FORMAT_TEXT, NULL);
	struct log_settings good = settings_of(LOG_TARGET_FILE, LOG_FORMAT_TEXT, "good");
	char err[256] = "";

	if (access("/dev/full", W_OK) != 0)
		skip();
	(void)snprintf(full.path, sizeof full.path, "/dev/full");
	stderr_to_file("stderr");
	open_log(&full);
	for (int i = 0; i < 100; i++)
		log_info("e", KV_INT("i", i));
	assert_int_equal(log_change(&good, err, sizeof err), 0);
	log_info("e", KV_INT("i", 100));
	log_close();
	stderr_back();

	char *complaint = read_file("stderr"), *all = read_file("good");
	assert_int_equal(count_of(complaint, "\n"), 1); /* not one for each line */
	assert_non_null(strstr(complaint, " error log_write_failed path=/dev/full error="));
	assert_non_null(strstr(all, " info e i=100\n"));
	assert_non_null(strstr(all, " warning log_lost lines=100\n"));
	free(complaint);
	free(all);
	unlink_file("stderr");
	unlink_file("good");
}

/* ---- a target that blocks ---- */

static void fill_pipe(int fd)
{
	static const char newlines[4096] = { 0 };
	int flags = fcntl(fd, F_GETFL);

	(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	for (size_t n = sizeof newlines; n; n = n / 2) {
		while (write(fd, newlines, n) > 0)
			;
	}
	(void)fcntl(fd, F_SETFL, flags);
}

enum { FLOOD = 20000 }; /* times 100 bytes: several times what the queue holds */

static void flood(void)
{
	for (int i = 0; i < FLOOD; i++)
		log_info("flood",
			KV_Z("padding", "0123456789012345678901234567890123456789012345"
					"6789"),
			KV_INT("i", i));
}

/* If a caller blocked, or the end did, this would not end. */
static void a_full_pipe_stops_nobody(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
	int fd[2];

	assert_int_equal(pipe(fd), 0);
	fill_pipe(fd[1]);
	stderr_to(fd[1]);
	open_log(&s);
	flood();
	log_close();
	log_info("last", KV_Z("words", "are lost"));
	stderr_back();
	(void)close(fd[0]);
}

struct reader {
	int fd;
	sem_t lost_seen;
	long lines, lost, last;
	bool in_order;
};

static void *read_pipe(void *arg)
{
	struct reader *r = arg;
	FILE *f = fdopen(r->fd, "r");
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while ((n = getline(&line, &cap, f)) > 0) {
		/* The filling is NULs, before the first line. */
		char *p = line;
		while (p < line + n && *p == '\0')
			p++;
		char *i = strstr(p, " i="), *lines = strstr(p, " warning log_lost lines=");
		if (i) {
			long now = strtol(i + 3, NULL, 10);
			r->in_order = r->in_order && now > r->last;
			r->last = now;
			r->lines++;
		}
		if (lines) {
			r->lost += strtol(strstr(lines, "lines=") + 6, NULL, 10);
			(void)sem_post(&r->lost_seen);
		}
	}
	free(line);
	(void)fclose(f);
	return NULL;
}

static void what_was_lost_is_counted(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
	struct reader r = { .in_order = true, .last = -1 };
	pthread_t thread;
	int fd[2];

	assert_int_equal(pipe(fd), 0);
	assert_int_equal(sem_init(&r.lost_seen, 0, 0), 0);
	fill_pipe(fd[1]);
	stderr_to(fd[1]);
	open_log(&s);
	flood();
	r.fd = fd[0];
	assert_int_equal(pthread_create(&thread, NULL, read_pipe, &r), 0);
	(void)sem_wait(&r.lost_seen);
	log_close();
	stderr_back(); /* closes the pipe: the reader comes to its end */
	assert_int_equal(pthread_join(thread, NULL), 0);
	(void)sem_destroy(&r.lost_seen);
	assert_true(r.in_order);
	assert_true(r.lost > 0);
	assert_true(r.lines > 1000);
	assert_int_equal(r.lines + r.lost, FLOOD);
}

static void a_blocked_target_can_be_changed(void **state)
{
	(void)state;
	struct log_settings blocked = settings_of(LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
	struct log_settings file = settings_of(LOG_TARGET_FILE, LOG_FORMAT_TEXT, "rescue");
	char err[256] = "";
	int fd[2];

	assert_int_equal(pipe(fd), 0);
	fill_pipe(fd[1]);
	stderr_to(fd[1]);
	open_log(&blocked);
	for (int i = 0; i < 10; i++)
		log_info("e", KV_INT("i", i));
	assert_int_equal(log_change(&file, err, sizeof err), 0);
	log_info("e", KV_INT("i", 10));
	log_close();
	stderr_back();
	(void)close(fd[0]);

	char *all = read_file("rescue");
	assert_int_equal(count_of(all, " info e i="), 11); /* none of them was lost */
	free(all);
	unlink_file("rescue");
}

/* ---- many threads ---- */

enum { THREADS = 4, EACH = 4000 };

static void *put_many(void *arg)
{
	for (int i = 0; i < EACH; i++)
		log_info("many", KV_INT("thread", (intptr_t)arg), KV_INT("i", i),
			KV_Z("text", "some words"));
	return NULL;
}

static void threads_do_not_mix_lines(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_FILE, LOG_FORMAT_TEXT, "many");
	pthread_t thread[THREADS];
	char err[256] = "";
	long last[THREADS], lines = 0, lost = 0;

	open_log(&s);
	for (intptr_t i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_create(&thread[i], NULL, put_many, (void *)i), 0);
		last[i] = -1;
	}
	for (int i = 0; i < 50; i++) {
		log_reopen();
		assert_int_equal(log_change(&s, err, sizeof err), 0);
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	log_close();

	char *all = read_file("many"), *rest = all, *line;
	while ((line = strsep(&rest, "\n")) && *line) {
		char *at = strstr(line, " log_lost lines=");
		long t, i;

		if (at) {
			lost += strtol(at + 16, NULL, 10);
			continue;
		}
		at = strstr(line, "Z info many thread=");
		assert_non_null(at);
		assert_int_equal(
			sscanf(at, "Z info many thread=%ld i=%ld text=\"some words\"", &t, &i), 2);
		assert_true(t >= 0 && t < THREADS && i > last[t]);
		last[t] = i;
		lines++;
	}
	assert_int_equal(lines + lost, THREADS * EACH);
	free(all);
	unlink_file("many");
}

/* ---- syslog and the journal ---- */

static int bind_socket(const char *name)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)snprintf(at.sun_path, sizeof at.sun_path, "%s/%s", folder, name);
	(void)unlink(at.sun_path);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
	return fd;
}

static void syslog_gets_datagrams(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_SYSLOG, LOG_FORMAT_TEXT, "syslog");
	char err[512] = "", text[8192], want[128];

	assert_int_equal(log_open(&s, err, sizeof err), -1);
	assert_non_null(strstr(err, "syslog"));

	int fd = bind_socket("syslog");
	open_log(&s);
	log_warning("careful", KV_Z("with", "a\nb"));
	ssize_t n = recv(fd, text, sizeof text - 1, 0);
	assert_true(n > 0);
	text[n] = '\0';
	(void)snprintf(
		want, sizeof want, " spoa-ratelimit[%ld]: careful with=\"a\\nb\"", (long)getpid());
	assert_int_equal(strncmp(text, "<28>", 4), 0); /* daemon.warning */
	assert_string_equal(text + n - strlen(want), want);

	/* The daemon starts again: its socket is another one. */
	(void)close(fd);
	fd = bind_socket("syslog");
	s.level = LOG_LEVEL_DEBUG;
	log_error("again", KV_INT("n", 1));
	n = recv(fd, text, sizeof text - 1, 0);
	assert_true(n > 4);
	assert_int_equal(strncmp(text, "<27>", 4), 0);
	log_close();
	(void)close(fd);
	unlink_file("syslog");
}

/* Stands in for the library's. */
static char journal_text[65536];
static size_t journal_n;
static int journal_blocks = -1; /* a pipe that nothing ever comes from */

int sd_journal_sendv(const struct iovec *iov, int n)
{
	if (journal_blocks >= 0) {
		char c;
		return read(journal_blocks, &c, 1) < 0 ? -errno : 0;
	}
	for (int i = 0; i < n; i++) {
		if (journal_n + iov[i].iov_len + 1 > sizeof journal_text)
			return -EMSGSIZE;
		memcpy(journal_text + journal_n, iov[i].iov_base, iov[i].iov_len);
		journal_n += iov[i].iov_len;
		journal_text[journal_n++] = '|';
	}
	journal_text[journal_n++] = '\n';
	return 0;
}

static void the_journal_gets_fields(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_JOURNAL, LOG_FORMAT_TEXT, "journal");
	char err[512] = "";

	assert_int_equal(log_open(&s, err, sizeof err), -1);
	assert_non_null(strstr(err, "journal"));
	int fd = bind_socket("journal");
	journal_n = 0;
	open_log(&s);
	log_error("denied", KV_STR("client", STR("a b\nPRIORITY=0")), KV_INT("n", -1),
		KV_Z("message", "m"), KV_Z("priority", "p"), KV_Z("_pid", "1"), KV_Z("4xx", "z"),
		KV_Z("a-b.c", "y"));
	log_close();
	journal_text[journal_n] = '\0';
	assert_string_equal(journal_text,
		"MESSAGE=denied client=\"a b\\nPRIORITY=0\" n=-1 message=m priority=p _pid=1 4xx=z "
		"a-b.c=y|PRIORITY=3|RATELIMIT_EVENT=denied|CLIENT=a b\nPRIORITY=0|N=-1|"
		"RATELIMIT_MESSAGE=m|RATELIMIT_PRIORITY=p|RATELIMIT__PID=1|RATELIMIT_4XX=z|A_B_C=y|\n");

	/* As JSON it is the whole line; and no number of fields is too many. */
	struct log_field many[100] = { { 0 } };
	char names[99][16];
	for (int i = 0; i < 99; i++) {
		(void)snprintf(names[i], sizeof names[i], "f%d", i);
		many[i] = (struct log_field)KV_INT(names[i], i);
	}
	journal_n = 0;
	s.format = LOG_FORMAT_JSON;
	open_log(&s);
	log_put(LOG_LEVEL_INFO, "many", many);
	log_close();
	journal_text[journal_n] = '\0';
	assert_int_equal(strncmp(journal_text, "MESSAGE={\"time\":\"", 17), 0);
	assert_non_null(strstr(journal_text, "\"f98\":98}|PRIORITY=6|RATELIMIT_EVENT=many|F0=0|"));
	assert_int_equal(count_of(journal_text, "|"), 34);
	(void)close(fd);
	unlink_file("journal");
}

/* A call that blocks for ever does not keep the program from ending. */
static void a_blocked_journal_is_left(void **state)
{
	(void)state;
	struct log_settings s = settings_of(LOG_TARGET_JOURNAL, LOG_FORMAT_TEXT, "journal");
	int fd = bind_socket("journal"), silent[2];
	char err[256] = "";

	assert_int_equal(pipe(silent), 0);
	journal_blocks = silent[0];
	stderr_to_file("stderr");
	open_log(&s);
	flood();
	log_close();
	assert_int_equal(log_open(&s, err, sizeof err), -1);
	assert_non_null(strstr(err, "blocks"));
	/* It comes back: then what was left is cleared away, and all is as before. */
	(void)close(silent[1]);
	while (log_open(&s, err, sizeof err) != 0)
		sched_yield();
	log_close();
	stderr_back();
	journal_blocks = -1;
	(void)close(silent[0]);
	(void)close(fd);
	unlink_file("journal");
	unlink_file("stderr");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_cannot_forge),
		cmocka_unit_test(any_bytes_make_one_line),
		cmocka_unit_test(long_lines_are_cut_and_say_so),
		cmocka_unit_test(names_cannot_forge_either),
		cmocka_unit_test(levels_are_kept),
		cmocka_unit_test(a_site_is_suppressed_and_counted),
		cmocka_unit_test(without_a_writer_lines_go_to_stderr),
		cmocka_unit_test(stderr_has_priorities_where_it_is_the_journal),
		cmocka_unit_test(a_renamed_file_is_reopened),
		cmocka_unit_test(a_file_of_more_than_two_gibibytes_is_written_on),
		cmocka_unit_test(a_change_holds_from_the_next_line_on),
		cmocka_unit_test(a_full_disk_is_counted_and_told),
		cmocka_unit_test(a_full_pipe_stops_nobody),
		cmocka_unit_test(what_was_lost_is_counted),
		cmocka_unit_test(a_blocked_target_can_be_changed),
		cmocka_unit_test(threads_do_not_mix_lines),
		cmocka_unit_test(syslog_gets_datagrams),
		cmocka_unit_test(the_journal_gets_fields),
		cmocka_unit_test(a_blocked_journal_is_left),
	};

	if (!mkdtemp(folder))
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	(void)rmdir(folder);
	return failed;
}
