/* Patterns that are allowed, and as a rule typing errors. */
#include "limit/match.h"

#include "limit/path.h"

#include <stdio.h>

/* The part of a pattern that is a path; of an endpoint what follows METHOD: (before which a star
 * might stand for that colon, too). Empty: there is none. */
static struct str path_part(unsigned slot, struct str s)
{
	const char *colon;

	if (slot == FIELD_PATH)
		return s;
	if (slot != FIELD_ENDPOINT || !(colon = memchr(s.p, ':', s.n)) ||
		memchr(s.p, '*', (size_t)(colon - s.p)))
		return (struct str){ 0 };
	return (struct str){ colon + 1, s.n - (size_t)(colon + 1 - s.p) };
}

/* A star stands for the slash, too, and "*" itself is what OPTIONS asks for. */
static bool path_is_odd(unsigned slot, struct str pattern, struct str s, char *why, size_t size)
{
	struct str path = path_part(slot, s);

	if (!path.n || path.p[0] == '/' || path.p[0] == '*' || path.p[0] == '\\')
		return false;
	struct str rest = path_without_authority(path);
	if (rest.p == path.p)
		snprintf(why, size, "pattern \"%.*s\" matches no path, which begins with \"/\"",
			(int)pattern.n, pattern.p);
	else
		snprintf(why, size,
			"pattern \"%.*s\" matches no path, of which scheme and host are cut: use \"%.*s\", "
			"and the field host",
			(int)pattern.n, pattern.p, rest.n ? (int)rest.n : 1, rest.n ? rest.p : "/");
	return true;
}

/* How many bytes there are before any of `ends`. */
static size_t bytes_before(struct str s, const char *ends)
{
	size_t n = 0;

	while (n < s.n && !strchr(ends, s.p[n]))
		n++;
	return n;
}

static bool has_any(const char *p, size_t n, const char *set)
{
	return bytes_before((struct str){ p, n }, set) < n;
}

/* What is written out of a method, whatever follows it. */
static bool method_is_odd(unsigned slot, struct str pattern, struct str s, char *why, size_t size)
{
	size_t n = bytes_before(s, slot == FIELD_ENDPOINT ? "*\\:/" : "*\\");
	size_t whole = slot == FIELD_ENDPOINT ? bytes_before(s, ":/") : s.n;
	char upper[32];
	bool lower = false;

	if (has_any(s.p, n, ",;|") || has_any(s.p, whole, " \t")) {
		snprintf(why, size,
			"pattern \"%.*s\" matches no method: want one, without a blank (several are a "
			"list of patterns)",
			(int)pattern.n, pattern.p);
		return true;
	}
	if (n > sizeof upper)
		n = sizeof upper;
	for (size_t i = 0; i < n; i++) {
		bool is_lower = s.p[i] >= 'a' && s.p[i] <= 'z';
		lower = lower || is_lower;
		upper[i] = (char)(is_lower ? s.p[i] & ~0x20 : s.p[i]);
	}
	if (lower)
		snprintf(why, size,
			"pattern \"%.*s\" matches no method of HTTP's, which are in upper case: did you "
			"mean \"%.*s%.*s%.*s\"?",
			(int)pattern.n, pattern.p, (int)(pattern.n - s.n), pattern.p, (int)n, upper,
			(int)(s.n - n), s.p + n);
	return lower;
}

/* A message is `check`, or `check-` and a name: no other is decided on. */
static bool message_is_odd(struct str pattern, struct str s, char *why, size_t size)
{
	static const struct str begin = { "check-", 6 };
	size_t n = bytes_before(s, "*\\");
	size_t common = n < begin.n ? n : begin.n;

	if (memcmp(s.p, begin.p, common) == 0 && (n >= begin.n || n < s.n || n == 5))
		return false;
	snprintf(why, size,
		"pattern \"%.*s\" matches no message: they are called check, or check-NAME",
		(int)pattern.n, pattern.p);
	return true;
}

static bool ip_is_odd(struct str pattern, struct str s, char *why, size_t size)
{
	struct cidr cidr;
	const char *reason;
	char text[ADDR_TEXT_MAX];

	if (!cidr_parse(s, &cidr, &reason) || !cidr_was_cut(s, &cidr))
		return false;
	size_t n = addr_format(&cidr.addr, text);
	snprintf(why, size,
		"\"%.*s\" is all of %.*s/%u: write that, or without the slash where the one address "
		"is meant",
		(int)pattern.n, pattern.p, (int)n, text, cidr.prefix);
	return true;
}

bool match_is_odd(unsigned slot, struct str pattern, char *why, size_t size)
{
	size_t no = pattern.n && pattern.p[0] == '!';
	struct str s = { pattern.p + no, pattern.n - no };

	switch (slot) {
	case FIELD_IP:
		return ip_is_odd(pattern, s, why, size);
	case FIELD_MESSAGE:
		return message_is_odd(pattern, s, why, size);
	case FIELD_METHOD:
		return method_is_odd(slot, pattern, s, why, size);
	case FIELD_ENDPOINT:
		return method_is_odd(slot, pattern, s, why, size) ||
		       path_is_odd(slot, pattern, s, why, size);
	case FIELD_PATH:
		return path_is_odd(slot, pattern, s, why, size);
	default:
		return false;
	}
}
