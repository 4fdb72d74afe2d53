/* Edit distance over short names. Pure. */
#include "config/nearest.h"

#include "limit/policy.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { WORD_MAX = 64 };

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;
	return m < c ? m : c;
}

static unsigned distance(const char *a, size_t an, const char *b, size_t bn)
{
	unsigned row[3][WORD_MAX + 1]; /* the last three rows of the table */

	for (size_t j = 0; j <= bn; j++)
		row[0][j] = (unsigned)j;
	for (size_t i = 1; i <= an; i++) {
		unsigned *now = row[i % 3], *before = row[(i + 2) % 3], *older = row[(i + 1) % 3];
		now[0] = (unsigned)i;
		for (size_t j = 1; j <= bn; j++) {
			unsigned same = a[i - 1] == b[j - 1] ? 0 : 1;
			now[j] = min3(before[j] + 1, now[j - 1] + 1, before[j - 1] + same);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
				older[j - 2] + 1 < now[j])
				now[j] = older[j - 2] + 1;
		}
	}
	return row[an % 3][bn];
}

static char small(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

/* "lvl" for "level", "maxconn" for "max_connections", "keys" for "max_keys": from the beginning of
 * a word of the name on, its letters in their order. */
static bool abbreviates(const char *word, size_t length, const char *name)
{
	for (const char *start = name; length >= 3 && start; start = strchr(start, '_')) {
		start += *start == '_';
		size_t i = 0;
		for (const char *c = start; *c && (i || c == start); c++)
			i += small(word[i]) == small(*c);
		if (i == length)
			return true;
	}
	return false;
}

const char *nearest(const char *word, const char *const *names, size_t n)
{
	size_t length = strlen(word);
	const char *best = NULL;
	unsigned best_distance = length < 4 ? 2 : length < 8 ? 3 : 4; /* one more than allowed */

	if (length == 0 || length > WORD_MAX)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		size_t name_n = strlen(names[i]);
		if (name_n == 0 || name_n > WORD_MAX)
			continue;
		unsigned d = strcasecmp(word, names[i]) == 0
				     ? 0
				     : distance(word, length, names[i], name_n);
		/* "minutes" for "minute", "max_conn" for "max_connections" */
		size_t shorter = length < name_n ? length : name_n;
		if (d > 2 && shorter >= 4 && strncmp(word, names[i], shorter) == 0)
			d = 2;
		if (d < best_distance && d < name_n) {
			best = names[i];
			best_distance = d;
		}
	}
	for (size_t i = 0; i < n && !best; i++)
		if (abbreviates(word, length, names[i]))
			best = names[i];
	return best;
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80);
}

/* "b" in "plan-b" */
static bool stands_alone(const char *word, size_t at)
{
	return (at == 0 || !is_letter(word[at - 1])) && !is_letter(word[at + 1]);
}

bool is_slip(const char *a, const char *b)
{
	size_t an = strlen(a), bn = strlen(b), i = 0, j = 0;

	if (strcasecmp(a, b) == 0)
		return strcmp(a, b) != 0;
	if (an < bn)
		return is_slip(b, a); /* `a` is the longer one */
	while (a[i] == b[i])
		i++;
	while (j < bn - i && a[an - 1 - j] == b[bn - 1 - j])
		j++;
	size_t a_rest = an - i - j, b_rest = bn - i - j;
	if (an < 4 || !is_letter(a[i]))
		return false;
	if (a_rest == 1 && b_rest == 0)
		return true;
	if (a_rest == 2 && b_rest == 2)
		return a[i] == b[i + 1] && a[i + 1] == b[i] && is_letter(b[i]);
	return a_rest == 1 && b_rest == 1 && is_letter(b[i]) && an >= (a[i + 1] ? 5 : 6) &&
	       !stands_alone(a, i);
}

const char *nearest_slip(const char *word, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (is_slip(word, names[i]))
			return names[i];
	return NULL;
}

const char *nearest_hint(const char *word, const char *const *names, size_t n, char out[HINT_MAX])
{
	const char *name = nearest(word, names, n);

	out[0] = '\0';
	if (name)
		snprintf(out, HINT_MAX, "; did you mean \"%s\"?", name);
	return out;
}

const char *nearest_rule_hint(const struct policy *p, const char *name, char out[HINT_MAX])
{
	const char *known[RULES_MAX];
	unsigned n = 0;

	for (; n < p->rule_n && n < RULES_MAX; n++)
		known[n] = p->rule[n].name;
	return nearest_hint(name, known, n, out);
}
