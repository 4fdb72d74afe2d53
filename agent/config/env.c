/* Expansion of references to the environment. Knows nothing of settings. */
#include "config/env.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_name_char(char c, bool first)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
	       (!first && c >= '0' && c <= '9');
}

struct out {
	char *text;
	size_t n, cap;
};

enum put_rc { PUT_OK, PUT_TOO_LONG, PUT_NO_MEMORY };

static enum put_rc put(struct out *o, const char *p, size_t n)
{
	if (n > ENV_TEXT_MAX - o->n)
		return PUT_TOO_LONG;
	if (o->cap < o->n + n + 1) {
		size_t cap = 2 * (o->n + n + 1);
		char *grown = realloc(o->text, cap);
		if (!grown)
			return PUT_NO_MEMORY;
		o->text = grown;
		o->cap = cap;
	}
	memcpy(o->text + o->n, p, n);
	o->n += n;
	o->text[o->n] = '\0';
	return PUT_OK;
}

/* The value of the reference that begins at `p` ("${"), borrowed; NULL: `why`. */
static const char *reference(
	const char *p, const char **end, size_t *value_n, char *why, size_t why_size)
{
	const char *name = p + 2, *name_end = name;
	char copy[256];

	while (is_name_char(*name_end, name_end == name))
		name_end++;
	const char *close = strchr(name_end, '}');
	if (!close) {
		snprintf(why, why_size, "\"${\" without its \"}\"");
		return NULL;
	}
	size_t name_n = (size_t)(name_end - name);
	if (name_n == 0 || name_n >= sizeof copy ||
		!(name_end == close || (name_end[0] == ':' && name_end[1] == '-'))) {
		/* Not what is in it: a default may be a password. */
		snprintf(why, why_size,
			"\"${\" begins no reference: want ${NAME} or ${NAME:-default}");
		return NULL;
	}
	memcpy(copy, name, name_n);
	copy[name_n] = '\0';
	*end = close + 1;

	const char *value = getenv(copy);
	if (name_end == close) {
		if (!value) {
			snprintf(why, why_size,
				"the environment variable %s is not set (${%s:-default} gives a default)",
				copy, copy);
			return NULL;
		}
		*value_n = strlen(value);
		return value;
	}
	const char *fallback = name_end + 2;
	*value_n = (size_t)(close - fallback);
	for (const char *c = fallback; c + 1 < close; c++)
		if (c[0] == '$' && c[1] == '{') {
			snprintf(why, why_size,
				"the default of ${%s:-…} holds another reference: that is not "
				"supported",
				copy);
			return NULL;
		}
	if (!value || !*value)
		return fallback;
	*value_n = strlen(value);
	return value;
}

char *env_expand(const char *text, char *why, size_t why_size)
{
	struct out o = { 0 };
	enum put_rc rc = put(&o, "", 0);

	why[0] = '\0';
	for (const char *p = text; *p && rc == PUT_OK;) {
		if (p[0] == '$' && p[1] == '{') {
			size_t n = 0;
			const char *value = reference(p, &p, &n, why, why_size);
			if (!value)
				goto fail;
			rc = put(&o, value, n);
			continue;
		}
		size_t n = 1 + strcspn(p + 1, "$");
		rc = put(&o, p, n);
		p += n;
	}
	if (rc == PUT_OK)
		return o.text;
	if (rc == PUT_TOO_LONG)
		snprintf(why, why_size, "longer than %d bytes", ENV_TEXT_MAX);
fail:
	free(o.text);
	return NULL;
}

bool env_is_bare(const char *text)
{
	size_t n = *text == '$' ? strspn(text + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") : 0;
	return n && is_name_char(text[1], true) && !text[1 + n];
}
