#include "limit/path.h"

#include <stdint.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool is_alpha(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* RFC 3986 section 2.3 */
static bool is_unreserved(int c)
{
	return is_alpha((char)c) || is_digit((char)c) || c == '-' || c == '.' || c == '_' ||
	       c == '~';
}

struct str path_without_authority(struct str s)
{
	size_t i = 0;
	if (s.n == 0 || !is_alpha(s.p[0]))
		return s;
	while (i < s.n && (is_alpha(s.p[i]) || is_digit(s.p[i]) || s.p[i] == '+' || s.p[i] == '-' ||
				  s.p[i] == '.'))
		i++;
	if (s.n - i < 3 || memcmp(s.p + i, "://", 3) != 0)
		return s;
	for (i += 3; i < s.n && s.p[i] != '/' && s.p[i] != '?' && s.p[i] != '#'; i++)
		;
	return (struct str){ s.p + i, s.n - i };
}

/* What asks for a closer look; most characters do not. */
enum { SLASH = 1, ESCAPE = 2, QUERY = 4, UPPER = 8, COLON = 16 };

static const uint8_t class_of[256] = {
	['/'] = SLASH,
	['%'] = ESCAPE,
	['?'] = QUERY,
	['#'] = QUERY,
	[':'] = COLON,
	['A'] = UPPER,
	['B'] = UPPER,
	['C'] = UPPER,
	['D'] = UPPER,
	['E'] = UPPER,
	['F'] = UPPER,
	['G'] = UPPER,
	['H'] = UPPER,
	['I'] = UPPER,
	['J'] = UPPER,
	['K'] = UPPER,
	['L'] = UPPER,
	['M'] = UPPER,
	['N'] = UPPER,
	['O'] = UPPER,
	['P'] = UPPER,
	['Q'] = UPPER,
	['R'] = UPPER,
	['S'] = UPPER,
	['T'] = UPPER,
	['U'] = UPPER,
	['V'] = UPPER,
	['W'] = UPPER,
	['X'] = UPPER,
	['Y'] = UPPER,
	['Z'] = UPPER,
};

static inline uint8_t class_at(struct str s, size_t i)
{
	return class_of[(uint8_t)s.p[i]];
}

/* Cuts query and fragment. *plain: no escape, no empty segment, none that begins with a dot. */
static struct str cut_query(struct str s, bool *plain)
{
	*plain = true;
	for (size_t i = 0; i < s.n; i++) {
		uint8_t class = class_at(s, i) & (SLASH | ESCAPE | QUERY);
		if (!class)
			continue;
		if (class == QUERY)
			return (struct str){ s.p, i };
		if (class == ESCAPE || (i + 1 < s.n && (s.p[i + 1] == '/' || s.p[i + 1] == '.')))
			*plain = false;
	}
	return s;
}

/* Sixteen bytes, compared at once. */
typedef uint8_t block __attribute__((vector_size(16)));

static inline block block_at(const char *p)
{
	block b;
	memcpy(&b, p, sizeof b);
	return b;
}

static inline block block_of_halves(const char *low, const char *high)
{
	uint64_t half[2];
	memcpy(&half[0], low, sizeof half[0]);
	memcpy(&half[1], high, sizeof half[1]);
	return (block)(uint64_t __attribute__((vector_size(16)))){ half[0], half[1] };
}

/* Of each byte and the one that follows it. */
static inline bool block_is_plain(block w, block after)
{
	block odd = (block)((w == '%') | (w == '?') | (w == '#') |
			    ((w == '/') & ((after == '/') | (after == '.'))));
	uint64_t half[2];
	memcpy(half, &odd, sizeof half);
	return !(half[0] | half[1]);
}

/* A sure sign that nothing is to be done, for a path of nine bytes or more; false says nothing.
 * Byte by byte that takes 50 instructions more for "/api/v1/orders", and more for longer ones. */
static bool is_surely_plain(struct str s)
{
	const char *last = s.p + s.n - 1; /* nothing follows it */

	if (*last == '%' || *last == '?' || *last == '#')
		return false;
	if (s.n <= sizeof(block)) /* both halves, which may overlap */
		return block_is_plain(
			block_of_halves(s.p, last - 8), block_of_halves(s.p + 1, last - 7));
	for (const char *p = s.p;; p += sizeof(block)) {
		if (p > last - sizeof(block))
			p = last - sizeof(block);
		if (!block_is_plain(block_at(p), block_at(p + 1)))
			return false;
		if (p == last - sizeof(block))
			return true;
	}
}

static size_t decode(struct str s, char *out)
{
	static const char upper[] = "0123456789ABCDEF";
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++) {
		int high = s.p[i] == '%' && s.n - i > 2 ? hex_digit(s.p[i + 1]) : -1;
		int low = high >= 0 ? hex_digit(s.p[i + 2]) : -1;
		if (low < 0) {
			out[n++] = s.p[i];
			continue;
		}
		if (is_unreserved(high << 4 | low)) {
			out[n++] = (char)(high << 4 | low);
		} else {
			out[n++] = '%';
			out[n++] = upper[high];
			out[n++] = upper[low];
		}
		i += 2;
	}
	return n;
}

/* The segment that ends at out[n]; out[start - 1] is the slash before it. Returns the new n: a dot
 * segment goes, and with ".." the one before it. */
static size_t end_segment(const char *out, size_t n)
{
	size_t start = n;
	while (out[start - 1] != '/')
		start--;
	if (n - start == 1 && out[start] == '.')
		return start;
	if (n - start == 2 && out[start] == '.' && out[start + 1] == '.') {
		if (start == 1)
			return start;
		for (start--; out[start - 1] != '/'; start--)
			;
		return start;
	}
	return n;
}

/* In place: merges slashes, then resolves dot segments. The result ends with a slash where a dot
 * segment was the last. `s` begins with a slash. */
static size_t resolve(char *s, size_t n)
{
	size_t w = 1;
	for (size_t i = 1; i < n; i++) {
		if (s[i] != '/') {
			s[w++] = s[i];
			continue;
		}
		if (s[w - 1] == '/')
			continue;
		w = end_segment(s, w);
		if (s[w - 1] != '/')
			s[w++] = '/';
	}
	return s[w - 1] == '/' ? w : end_segment(s, w);
}

struct str path_normalise(struct str raw, char *out)
{
	bool plain;
	if (raw.n > 8 && raw.p[0] == '/' && is_surely_plain(raw))
		return raw;
	bool absolute = raw.n && raw.p[0] != '/';
	struct str s = cut_query(absolute ? path_without_authority(raw) : raw, &plain);
	if (s.n == 0)
		return STR("/");
	if (plain)
		return s;
	size_t n = decode(s, out);
	if (out[0] == '/')
		n = resolve(out, n);
	return (struct str){ out, n };
}

static struct str cut_port(struct str s)
{
	size_t colon = s.n, colons = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == ']') {
			colon = s.n;
			colons = 0;
		} else if (s.p[i] == ':') {
			colon = i;
			colons++;
		}
	}
	/* More than one colon outside brackets: an IPv6 address without them, not a port. */
	if (colons == 1)
		s.n = colon;
	return s;
}

struct str host_normalise(struct str raw, char *out)
{
	struct str s = raw;
	uint8_t seen = 0;

	for (size_t i = 0; i < s.n; i++)
		seen |= class_at(s, i);
	if (seen & COLON)
		s = cut_port(s);
	if (s.n && s.p[s.n - 1] == '.')
		s.n--;
	if (!(seen & UPPER))
		return s;
	for (size_t i = 0; i < s.n; i++)
		out[i] = class_at(s, i) == UPPER ? (char)(s.p[i] | 0x20) : s.p[i];
	return (struct str){ out, s.n };
}
