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
