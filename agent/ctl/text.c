#include "ctl/text.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <wchar.h>

void text_init(void)
{
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		(void)setlocale(LC_CTYPE, "");
}

/* Marks that turn the direction of what follows, or begin a line where nobody sees it. */
static bool is_unseen(wchar_t c)
{
	return c == 0x061c || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

enum { ESCAPED_MAX = 10 }; /* "\u{10FFFF}"; no character has so many from fewer than one byte */

char *text_clean(struct str s)
{
	char *out = malloc(s.n * ESCAPED_MAX + ESCAPED_MAX + 1), *w = out;
	mbstate_t state = { 0 };

	if (!out)
		return NULL;
	for (size_t i = 0; i < s.n;) {
		wchar_t c;
		size_t n = mbrtowc(&c, s.p + i, s.n - i, &state);
		if (n == 0) /* NUL */
			n = 1;
		if (n > s.n - i) { /* no UTF-8, or cut */
			w += sprintf(w, "\\x%02X", (unsigned)(unsigned char)s.p[i]);
			memset(&state, 0, sizeof state);
			i++;
			continue;
		}
		if (wcwidth(c) < 0 || c == 0 || is_unseen(c)) {
			w += sprintf(w, "\\u{%X}", (unsigned)c);
		} else {
			memcpy(w, s.p + i, n);
			w += n;
		}
		i += n;
	}
	*w = '\0';
	return out;
}

char *text_clean_format(const char *format, va_list args)
{
	char *text, *clean;
	int n = vasprintf(&text, format, args);

	if (n < 0)
		return NULL;
	clean = text_clean((struct str){ text, (size_t)n });
	free(text);
	return clean;
}

/* The bytes of the next character, and its columns. */
static size_t next_char(const char *z, size_t *columns)
{
	mbstate_t state = { 0 };
	wchar_t c;
	size_t n = mbrtowc(&c, z, MB_CUR_MAX, &state);

	if (n == (size_t)-1 || n == (size_t)-2 || n == 0) {
		*columns = 1;
		return 1;
	}
	int w = wcwidth(c);
	*columns = w < 0 ? 0 : (size_t)w;
	return n;
}

size_t text_width(const char *z)
{
	size_t width = 0, w;

	while (*z) {
		z += next_char(z, &w);
		width += w;
	}
	return width;
}

size_t text_fit(const char *z, size_t columns)
{
	size_t n = 0, w;

	while (z[n]) {
		size_t bytes = next_char(z + n, &w);
		if (w > columns)
			break;
		columns -= w;
		n += bytes;
	}
	return n;
}

const char *text_seconds(int64_t s, char out[TEXT_MAX])
{
	static const struct {
		char unit;
		int64_t seconds;
	} unit[] = { { 'd', 86400 }, { 'h', 3600 }, { 'm', 60 }, { 's', 1 } };
	unsigned i = 0;

	if (s < 0)
		s = 0;
	while (i < 3 && s < unit[i].seconds)
		i++;
	int n = snprintf(out, TEXT_MAX, "%lld%c", (long long)(s / unit[i].seconds), unit[i].unit);
	s %= unit[i].seconds;
	if (i < 3 && s / unit[i + 1].seconds)
		(void)snprintf(out + n, TEXT_MAX - (size_t)n, " %lld%c",
			(long long)(s / unit[i + 1].seconds), unit[i + 1].unit);
	return out;
}

const char *text_instant(int64_t unix_seconds, char out[TEXT_MAX])
{
	struct tm tm;
	time_t t = (time_t)unix_seconds;

	if (!localtime_r(&t, &tm) || !strftime(out, TEXT_MAX, "%Y-%m-%d %H:%M:%S", &tm))
		(void)snprintf(out, TEXT_MAX, "%lld", (long long)unix_seconds);
	return out;
}

const char *text_share(double share, char out[TEXT_MAX])
{
	(void)snprintf(out, TEXT_MAX, "%.1f %%", isfinite(share) ? share * 100 : 0.0);
	return out;
}

/* mktime() takes the 30th of February for the 2nd of March. */
static bool has_day(const struct tm *tm)
{
	struct tm noon = {
		.tm_year = tm->tm_year,
		.tm_mon = tm->tm_mon,
		.tm_mday = tm->tm_mday,
		.tm_hour = 12,
	};

	(void)timegm(&noon);
	return noon.tm_mday == tm->tm_mday;
}

int64_t instant_parse(const char *z, int64_t now)
{
	static const char *const format[] = { "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S",
		"%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d", "%H:%M" };
	enum { FORMATS = sizeof format / sizeof *format, CLOCK = FORMATS - 1 };
	size_t digits = strspn(z, "0123456789");
	time_t t = (time_t)now;

	if (digits && digits < 16 && !z[digits])
		return strtoll(z, NULL, 10);
	for (unsigned i = 0; i < FORMATS; i++) {
		struct tm tm = { 0 };
		if (i == CLOCK && !localtime_r(&t, &tm))
			continue;
		tm.tm_sec = 0;
		const char *end = strptime(z, format[i], &tm);
		if (!end || (*end && (strcmp(end, "Z") != 0 || i >= CLOCK - 1)))
			continue;
		if (!has_day(&tm))
			return -1;
		tm.tm_isdst = -1;
		int64_t at = *end ? (int64_t)timegm(&tm) : (int64_t)mktime(&tm);
		if (i == CLOCK && at <= now) {
			tm.tm_mday++;
			tm.tm_isdst = -1;
			at = (int64_t)mktime(&tm);
		}
		return at;
	}
	return -1;
}
