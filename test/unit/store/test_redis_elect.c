/* Who is master, where sentinels differ: a majority, the latest word, and how long one counts. */
#include "store/redis_elect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NOW (1000 * USEC_PER_SEC)

enum { SENTINELS = 10 };

static struct redis_opinion said[SENTINELS];

static struct redis_address at(char letter)
{
	struct redis_address a = { .port = (uint16_t)letter };

	snprintf(a.host, sizeof a.host, "10.0.0.1");
	return a;
}

/* Each of them names the letters of a word: how long ago it was heard, and had come to say so. */
static const char *elected(const char *const names[], const int heard_s[], const int changed_s[])
{
	static char text[REDIS_ADDRESSES_MAX + 1];
	const struct redis_opinion *opinion[SENTINELS];
	struct redis_addresses out;
	unsigned n = 0;

	for (; n < SENTINELS && names[n]; n++) {
		said[n] = (struct redis_opinion){ .heard_at = NOW - heard_s[n] * USEC_PER_SEC,
			.changed_at = NOW - changed_s[n] * USEC_PER_SEC };
		for (const char *p = names[n]; *p; p++)
			said[n].masters.address[said[n].masters.n++] = at(*p);
		opinion[n] = &said[n];
	}
	redis_elect(opinion, n, NOW, &out);
	for (unsigned i = 0; i < out.n; i++)
		text[i] = (char)out.address[i].port;
	text[out.n] = '\0';
	return text;
}

static void whom_most_name_is_first(void **state)
{
	static const struct {
		const char *title, *names[SENTINELS];
		int heard[SENTINELS], changed[SENTINELS];
		const char *elected;
	} row[] = {
		{ "nobody", { NULL }, { 0 }, { 0 }, "" },
		{ "one", { "a" }, { 0 }, { 9 }, "a" },
		{ "all the same", { "a", "a", "a" }, { 0 }, { 9, 9, 9 }, "a" },
		{ "two of three, whoever came to it later", { "a", "b", "b" }, { 0 }, { 1, 9, 9 },
			"ba" },
		{ "wherever they stand", { "b", "a", "b" }, { 0 }, { 9, 1, 9 }, "ba" },
		{ "one each: the latest word", { "a", "b", "c" }, { 0 }, { 7, 5, 6 }, "bca" },
		{ "two each: the latest of them", { "a", "a", "b", "b" }, { 0 }, { 1, 9, 5, 5 },
			"ab" },
		{ "in that order, too", { "b", "b", "a", "a" }, { 0 }, { 5, 5, 9, 1 }, "ab" },
		{ "the same word at the same time: the first", { "a", "b" }, { 0 }, { 5, 5 },
			"ab" },
		{ "who was heard five seconds ago counts", { "a", "b", "b" }, { 0, 5, 5 },
			{ 9, 9, 9 }, "ba" },
		{ "who was heard before that does not", { "a", "b", "b" }, { 0, 6, 6 }, { 9, 9, 9 },
			"a" },
		{ "nobody was", { "a", "b", "b" }, { 6, 6, 7 }, { 9, 9, 9 }, "" },
		{ "who never said anything", { "a", "b" }, { 0, 1000 }, { 9, 1 }, "a" },
		{ "who says a name that is not looked up yet", { "", "b" }, { 0 }, { 1, 9 }, "b" },
		{ "a name with two addresses", { "ab", "b" }, { 0 }, { 1, 9 }, "ba" },
		{ "as many as there are places", { "a", "b", "c", "d", "e", "f", "g", "h", "h" },
			{ 0 }, { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, "habcdefg" },
		{ "more than that", { "a", "b", "c", "d", "e", "f", "g", "h", "i", "a" }, { 0 },
			{ 9, 2, 3, 4, 5, 6, 7, 8, 1, 9 }, "abcdefgh" },
	};
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		const char *got = elected(row[i].names, row[i].heard, row[i].changed);
		if (strcmp(got, row[i].elected) != 0)
			fail_msg("%s: \"%s\", not \"%s\"", row[i].title, got, row[i].elected);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whom_most_name_is_first),
	};
	return cmocka_run_group_tests_name("store/redis_elect", tests, NULL, NULL);
}
