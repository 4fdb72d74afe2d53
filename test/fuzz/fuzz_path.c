/* Paths, hosts and patterns from any bytes: never longer than promised, stable, no memory touched
 * that is not theirs. */
#include "limit/match.h"
#include "limit/path.h"

#include <ctype.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* A broken escape is left as it is, and what follows it may make it whole: "/%3%30" is "/%30". It
 * is decoded once, as a server does. */
static bool has_broken_escape(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '%' && (s.n - i < 3 || !isxdigit((unsigned char)s.p[i + 1]) ||
					     !isxdigit((unsigned char)s.p[i + 2])))
			return true;
	return false;
}

static void check_normal(struct str raw)
{
	char *once = malloc(raw.n + 1), *twice = malloc(raw.n + 2);
	struct str a = path_normalise(raw, once);
	if (a.n > raw.n + 1 || a.n == 0)
		abort();
	struct str b = path_normalise(a, twice);
	if (a.p[0] == '/' && !has_broken_escape(raw) && !str_eq(a, b))
		abort();
	free(once);
	free(twice);

	char *host = malloc(raw.n ? raw.n : 1);
	if (host_normalise(raw, host).n > raw.n)
		abort();
	free(host);
}

/* The first byte cuts the rest in two: a pattern and a text. */
static void check_match(struct str pattern, struct str text)
{
	static const unsigned slots[] = { FIELD_USER, FIELD_PATH, FIELD_HOST, FIELD_IP };
	struct layout layout;
	char why[512];

	layout_init(&layout);
	layout.text_wanted = ~0ull;
	for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
		struct match *m = match_new();
		size_t room = 3 * text.n + FIELDS_MAX * ADDR_TEXT_MAX;
		char *scratch = malloc(room);
		struct view v;
		if (match_add(m, slots[i], pattern, why, sizeof why) && match_seal(m)) {
			view_init(&v, &layout, STR("check"), scratch, room);
			view_set_text(&v, slots[i], text);
			view_finish(&v);
			(void)match_holds(m, &v);
		}
		match_free(m);
		free(scratch);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct str all = { (const char *)data, n };
	check_normal(all);
	if (n > 1) {
		size_t cut = 1 + data[0] % (n - 1);
		check_match(
			(struct str){ all.p + 1, cut - 1 }, (struct str){ all.p + cut, n - cut });
	}
	return 0;
}
