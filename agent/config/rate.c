/* Durations and rates, text to numbers and back. Knows no settings. */
#include "config/rate.h"

#include "config/nearest.h"

#include <inttypes.h>
#include <stdio.h>

enum { UNITS_MAX = 1000000000, WINDOW_MAX_DAYS = 366, WEEK_DAYS = 7, MONTH_DAYS = 30 };

static const struct {
	const char *name;
	usec_t length;
} duration_unit[] = {
	/* from the largest: duration_format() takes the first that divides */
	{ "d", USEC_PER_DAY },
	{ "h", 3600 * USEC_PER_SEC },
	{ "m", 60 * USEC_PER_SEC },
	{ "s", USEC_PER_SEC },
	{ "ms", USEC_PER_MSEC },
	{ "us", 1 },
};

static const struct {
	const char *name;
	struct window window;
} named_window[] = {
	{ "second", { WINDOW_LENGTH, USEC_PER_SEC } },
	{ "minute", { WINDOW_LENGTH, 60 * USEC_PER_SEC } },
	{ "hour", { WINDOW_LENGTH, 3600 * USEC_PER_SEC } },
	{ "day", { WINDOW_LENGTH, USEC_PER_DAY } },
	{ "week", { WINDOW_WEEK, WEEK_DAYS *USEC_PER_DAY } },
	{ "month", { WINDOW_MONTH, MONTH_DAYS *USEC_PER_DAY } },
};

enum {
	DURATION_UNITS = sizeof duration_unit / sizeof *duration_unit,
	NAMED_WINDOWS = sizeof named_window / sizeof *named_window,
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Digits at the beginning of `*s`, which is moved past them. false: none, or too many. */
static bool take_digits(struct str *s, int64_t *out)
{
	int64_t v = 0;
	size_t n = 0;

	for (; n < s->n && is_digit(s->p[n]); n++) {
		int64_t digit = s->p[n] - '0';
		if (v > (INT64_MAX - digit) / 10)
			return false;
		v = 10 * v + digit;
	}
	if (n == 0)
		return false;
	*s = (struct str){ s->p + n, s->n - n };
	*out = v;
	return true;
}

bool integer_parse(struct str s, int64_t *out)
{
	bool negative = s.n > 0 && s.p[0] == '-';
	int64_t v;

	if (str_eq(s, STR("-9223372036854775808"))) { /* its digits alone do not fit */
		*out = INT64_MIN;
		return true;
	}
	if (negative || (s.n > 0 && s.p[0] == '+'))
		s = (struct str){ s.p + 1, s.n - 1 };
	if (!take_digits(&s, &v) || s.n != 0)
		return false;
	*out = negative ? -v : v;
	return true;
}

bool duration_parse(struct str s, usec_t *out)
{
	int64_t v;

	if (!take_digits(&s, &v))
		return false;
	for (size_t i = 0; i < DURATION_UNITS; i++)
		if (str_eq(s, str_of(duration_unit[i].name))) {
			if (v > INT64_MAX / duration_unit[i].length)
				return false;
			*out = v * duration_unit[i].length;
			return true;
		}
	return false;
}

const char *duration_format(usec_t d, char out[DURATION_TEXT_MAX])
{
	for (size_t i = 0; i < DURATION_UNITS; i++)
		if (d != 0 && d % duration_unit[i].length == 0) {
			snprintf(out, DURATION_TEXT_MAX, "%" PRId64 "%s",
				d / duration_unit[i].length, duration_unit[i].name);
			return out;
		}
	snprintf(out, DURATION_TEXT_MAX, "0s");
	return out;
}

bool window_equal(const struct window *a, const struct window *b)
{
	return a->kind == b->kind && a->length == b->length;
}

const char *window_format(const struct window *w, char out[DURATION_TEXT_MAX])
{
	for (size_t i = 0; i < NAMED_WINDOWS; i++)
		if (window_equal(w, &named_window[i].window)) {
			snprintf(out, DURATION_TEXT_MAX, "%s", named_window[i].name);
			return out;
		}
	return duration_format(w->length, out);
}

const char *quota_format(const struct quota *q, bool per, char out[RATE_TEXT_MAX])
{
	char window[DURATION_TEXT_MAX];
	int n = snprintf(out, RATE_TEXT_MAX, "%" PRId64 "%s%s", q->units, per ? " per " : "/",
		window_format(&q->window, window));

	if (q->capacity != q->units)
		snprintf(out + n, (size_t)(RATE_TEXT_MAX - n), " burst %" PRId64, q->capacity);
	return out;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static void skip_blanks(struct str *s)
{
	while (s->n > 0 && is_blank(s->p[0]))
		*s = (struct str){ s->p + 1, s->n - 1 };
}

/* Up to the next blank or slash. */
static struct str take_word(struct str *s)
{
	size_t n = 0;

	while (n < s->n && !is_blank(s->p[n]) && s->p[n] != '/')
		n++;
	struct str word = { s->p, n };
	*s = (struct str){ s->p + n, s->n - n };
	return word;
}

/* What may be meant: a unit wants its number, other words are near a name. */
static const char *window_hint(const char *word, char out[HINT_MAX])
{
	const char *names[NAMED_WINDOWS];

	for (size_t i = 0; i < DURATION_UNITS; i++)
		if (strcmp(word, duration_unit[i].name) == 0 &&
			duration_unit[i].length >= USEC_PER_SEC) {
			snprintf(out, HINT_MAX, "; did you mean \"1%s\"?", word);
			return out;
		}
	for (size_t i = 0; i < NAMED_WINDOWS; i++)
		names[i] = named_window[i].name;
	return nearest_hint(word, names, NAMED_WINDOWS, out);
}

static bool window_parse(struct str s, struct window *out, char *why, size_t why_size)
{
	usec_t length;

	for (size_t i = 0; i < NAMED_WINDOWS; i++)
		if (str_eq(s, str_of(named_window[i].name))) {
			*out = named_window[i].window;
			return true;
		}
	if (duration_parse(s, &length)) {
		if (length < USEC_PER_SEC || length > WINDOW_MAX_DAYS * USEC_PER_DAY) {
			snprintf(why, why_size, "window \"%.*s\": want 1s to %dd", (int)s.n, s.p,
				WINDOW_MAX_DAYS);
			return false;
		}
		/* weeks start on Monday, however they are written */
		*out = (struct window){
			length == WEEK_DAYS * USEC_PER_DAY ? WINDOW_WEEK : WINDOW_LENGTH, length
		};
		return true;
	}
	char word[65], hint[HINT_MAX];
	snprintf(word, sizeof word, "%.*s", (int)(s.n < 64 ? s.n : 64), s.p);
	snprintf(why, why_size,
		"unknown window \"%s\": want a duration like \"5m\", or second, minute, hour, day, "
		"week, month%s",
		word, window_hint(word, hint));
	return false;
}

static bool want_rate(char *why, size_t why_size)
{
	snprintf(why, why_size,
		"want \"N/WINDOW\", \"N/WINDOW burst B\", \"N per WINDOW\" or \"unlimited\"");
	return false;
}

bool rate_parse(struct str s, struct rate *out, char *why, size_t why_size)
{
	*out = (struct rate){ 0 };
	while (s.n > 0 && is_blank(s.p[s.n - 1]))
		s.n--;
	skip_blanks(&s);
	if (str_eq(s, STR("unlimited"))) {
		out->unlimited = true;
		return true;
	}
	if (s.n == 0 || !is_digit(s.p[0]))
		return want_rate(why, why_size);
	if (!take_digits(&s, &out->units) || out->units > UNITS_MAX) {
		snprintf(why, why_size, "N: want 0..%d", UNITS_MAX);
		return false;
	}
	bool blank = s.n > 0 && is_blank(s.p[0]);
	skip_blanks(&s);
	if (s.n > 0 && s.p[0] == '/')
		s = (struct str){ s.p + 1, s.n - 1 };
	else if (!blank || !str_eq(take_word(&s), STR("per")) || s.n == 0 || !is_blank(s.p[0]))
		return want_rate(why, why_size);
	skip_blanks(&s);
	struct str window = take_word(&s);
	if (window.n == 0)
		return want_rate(why, why_size);
	if (!window_parse(window, &out->window, why, why_size))
		return false;
	skip_blanks(&s);
	if (s.n == 0)
		return true;
	if (!str_eq(take_word(&s), STR("burst")))
		return want_rate(why, why_size);
	skip_blanks(&s);
	if (!take_digits(&s, &out->burst) || s.n != 0 || out->burst < 1 || out->burst > UNITS_MAX) {
		snprintf(why, why_size, "burst: want 1..%d", UNITS_MAX);
		return false;
	}
	if (out->units == 0) {
		snprintf(why, why_size,
			"a rate of 0 lets nothing pass and has no burst: leave out one of them");
		return false;
	}
	return true;
}
