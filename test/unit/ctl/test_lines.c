/* Lines of a file, however they arrive. */
#include "ctl/lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST = 8 };

/* What lines_next() tells, as text: those that were too long in parentheses. */
static void tell(int fd, char *out, size_t size)
{
	struct lines l;
	struct str line;
	size_t n = 0;

	out[0] = '\0';
	assert_true(lines_init(&l, fd, MOST));
	for (;;) {
		enum lines_rc rc = lines_next(&l, &line);
		if (rc == LINES_END)
			break;
		assert_true(rc == LINES_ONE || rc == LINES_TOO_LONG);
		assert_true(n < size);
		n += (size_t)snprintf(out + n, size - n, rc == LINES_ONE ? "[%.*s]" : "(%.*s)",
			(int)line.n, line.p);
	}
	assert_int_equal(lines_next(&l, &line), LINES_END); /* and so it stays */
	lines_fini(&l);
}

/* All at once, or a byte with each read(). */
static void send_text(int fd[2], const char *text, bool bytewise)
{
	size_t n = strlen(text);

	assert_int_equal(bytewise ? socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd) : pipe(fd), 0);
	for (size_t at = 0; at < n; at += bytewise ? 1 : n)
		assert_true(write(fd[1], text + at, bytewise ? 1 : n) > 0);
	(void)close(fd[1]);
}

static void each_is_told_once(void **state)
{
	static const struct {
		const char *text, *want;
	} row[] = {
		{ "", "" },
		{ "\n", "[]" },
		{ "a", "[a]" },
		{ "a\n\nb", "[a][][b]" },
		{ "12345678\n", "[12345678]" },
		{ "12345678", "[12345678]" },
		{ "123456789\n", "(123456789)" },
		{ "123456789", "(123456789)" },
		{ "1234567890\nx\n", "(123456789)[x]" },
		{ "1234567890123456789012345\nx", "(123456789)[x]" },
		{ "a\n123456789012345678\n\nb\n", "[a](123456789)[][b]" },
		{ "123456789012345678", "(123456789)" },
	};
	char got[256];

	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		for (unsigned bytewise = 0; bytewise < 2; bytewise++) {
			int fd[2];
			send_text(fd, row[i].text, bytewise);
			tell(fd[0], got, sizeof got);
			assert_string_equal(got, row[i].want);
			(void)close(fd[0]);
		}
}

static void what_cannot_be_read_fails(void **state)
{
	struct lines l;
	struct str line;

	(void)state;
	assert_true(lines_init(&l, -1, MOST));
	assert_int_equal(lines_next(&l, &line), LINES_FAILED);
	lines_fini(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_is_told_once),
		cmocka_unit_test(what_cannot_be_read_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
