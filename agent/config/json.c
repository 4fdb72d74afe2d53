#include "config/json.h"

#include <stdlib.h>

json_t *json_of(struct str s)
{
	json_t *j = json_stringn(s.n ? s.p : "", s.n);
	if (j)
		return j;
	char *ascii = malloc(s.n + 1);
	if (!ascii)
		return NULL;
	for (size_t i = 0; i < s.n; i++)
		ascii[i] = (signed char)s.p[i] < 0 ? '?' : s.p[i];
	j = json_stringn(ascii, s.n);
	free(ascii);
	return j;
}

char *json_text(const json_t *value, size_t flags)
{
	size_t n = json_dumpb(value, NULL, 0, flags);
	char *text = n ? malloc(n + 1) : NULL;
	if (!text)
		return NULL;
	if (json_dumpb(value, text, n, flags) != n) {
		free(text);
		return NULL;
	}
	text[n] = '\0';
	return text;
}
