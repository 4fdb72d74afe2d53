#include "ctl/stamp.h"

#include <time.h>

enum { ZONE_MINUTES_MAX = 14 * 60, YEAR_MIN = 1970, YEAR_MAX = 9999, FRACTION_DIGITS = 6 };

struct cursor {
	const char *p, *end;
	bool bad;
};

static bool at(const struct cursor *c, char what)
{
	return c->p < c->end && *c->p == what;
}

static bool skip(struct cursor *c, char what)
{
	if (!at(c, what))
		return false;
	c->p++;
	return true;
}

static void want(struct cursor *c, char what)
{
	c->bad |= !skip(c, what);
}

static bool at_digit(const struct cursor *c)
{
	return c->p < c->end && *c->p >= '0' && *c->p <= '9';
}

/* Just so many digits, of a number from `least` to `most`. */
static int number(struct cursor *c, int digits, int least, int most)
{
	int n = 0;

	for (int i = 0; i < digits; i++) {
		if (!at_digit(c)) {
			c->bad = true;
			return least;
		}
		n = 10 * n + *c->p++ - '0';
	}
	c->bad |= n < least || n > most;
	return n;
}

static int month_by_name(struct cursor *c)
{
	static const char names[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug",
		"Sep", "Oct", "Nov", "Dec" };

	if (c->end - c->p >= 3)
		for (int i = 0; i < 12; i++)
			if (memcmp(c->p, names[i], 3) == 0) {
				c->p += 3;
				return i + 1;
			}
	c->bad = true;
	return 1;
}

static void time_of_day(struct cursor *c, struct stamp *s)
{
	s->hour = number(c, 2, 0, 23);
	want(c, ':');
	s->minute = number(c, 2, 0, 59);
	want(c, ':');
	s->second = number(c, 2, 0, 60);
	s->fraction = 0;
	if (c->bad || !skip(c, '.'))
		return;
	usec_t unit = USEC_PER_SEC;
	for (int i = 0; i < FRACTION_DIGITS && at_digit(c); i++) {
		unit /= 10;
		s->fraction += unit * (*c->p++ - '0');
	}
	c->bad |= unit == USEC_PER_SEC;
	while (at_digit(c))
		c->p++;
}

/* "+0100" or, in ISO 8601, "+01:00". */
static void zone(struct cursor *c, struct stamp *s)
{
	bool west = at(c, '-');

	s->zone = STAMP_LOCAL;
	if (!skip(c, '+') && !skip(c, '-'))
		return;
	int hours = number(c, 2, 0, ZONE_MINUTES_MAX / 60);
	(void)skip(c, ':');
	s->zone = 60 * hours + number(c, 2, 0, 59);
	c->bad |= s->zone > ZONE_MINUTES_MAX;
	if (west)
		s->zone = -s->zone;
}

size_t stamp_parse_log(struct str text, struct stamp *s)
{
	struct cursor c = { text.p, text.p + text.n, false };

	s->day = number(&c, 2, 1, 31);
	want(&c, '/');
	s->month = month_by_name(&c);
	want(&c, '/');
	s->year = number(&c, 4, YEAR_MIN, YEAR_MAX);
	want(&c, ':');
	time_of_day(&c, s);
	s->zone = STAMP_LOCAL;
	if (skip(&c, ' ')) {
		zone(&c, s);
		c.bad |= s->zone == STAMP_LOCAL;
	}
	return c.bad ? 0 : (size_t)(c.p - text.p);
}

size_t stamp_parse_iso(struct str text, struct stamp *s)
{
	struct cursor c = { text.p, text.p + text.n, false };

	s->year = number(&c, 4, YEAR_MIN, YEAR_MAX);
	want(&c, '-');
	s->month = number(&c, 2, 1, 12);
	want(&c, '-');
	s->day = number(&c, 2, 1, 31);
	c.bad |= !skip(&c, 'T') && !skip(&c, 't') && !skip(&c, ' ');
	time_of_day(&c, s);
	if (skip(&c, 'Z') || skip(&c, 'z'))
		s->zone = 0;
	else
		zone(&c, s);
	return c.bad ? 0 : (size_t)(c.p - text.p);
}

static bool same_minute(const struct stamp *a, const struct stamp *b)
{
	return a->minute == b->minute && a->hour == b->hour && a->day == b->day &&
	       a->month == b->month && a->year == b->year && a->zone == b->zone;
}

static int64_t minute_to_unix(const struct stamp *s)
{
	struct tm tm = {
		.tm_year = s->year - 1900,
		.tm_mon = s->month - 1,
		.tm_mday = s->day,
		.tm_hour = s->hour,
		.tm_min = s->minute,
		.tm_isdst = -1,
	};

	if (s->zone == STAMP_LOCAL)
		return (int64_t)mktime(&tm);
	return (int64_t)timegm(&tm) - (int64_t)60 * s->zone;
}

usec_t stamp_to_utc(struct stamp_clock *c, const struct stamp *s)
{
	if (!c->known || !same_minute(&c->minute, s)) {
		c->known = true;
		c->minute = *s;
		c->seconds = minute_to_unix(s);
	}
	if (c->seconds < 0)
		return -1;
	return (c->seconds + s->second) * USEC_PER_SEC + s->fraction;
}
