/* The only file that has libconfig parse. Knows no settings. */
#include "config/tree.h"

#include "config/env.h"
#include "config/rate.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

static size_t count_values(const config_setting_t *s)
{
	size_t n = 0;

	for (int i = 0; config_setting_is_aggregate(s) && i < config_setting_length(s); i++)
		n += 1 + count_values(config_setting_get_elem(s, (unsigned)i));
	return n;
}

/* Gives every value its flat line as a hook: `line` in the order of the text, or NULL for what
 * libconfig says itself (a list's element then carries its list's line). */
static size_t hook_lines(config_setting_t *s, const uint32_t *line, size_t next)
{
	for (int i = 0; config_setting_is_aggregate(s) && i < config_setting_length(s); i++) {
		config_setting_t *child = config_setting_get_elem(s, (unsigned)i);
		uintptr_t flat = line ? line[next] : config_setting_source_line(child) - 1;
		config_setting_set_hook(child, (void *)flat);
		next = hook_lines(child, line, next + 1);
	}
	return next;
}

/* What libconfig's words leave out. */
static const char *explained(const char *text)
{
	if (strcmp(text, "syntax error") == 0)
		return " (here, or at the end of what stands before)";
	if (strcmp(text, "duplicate setting name") == 0)
		return ": its group has one already: leave out one of them";
	if (strcmp(text, "mismatched element type in array") == 0)
		return ": want values of one kind, or a list ( )";
	return "";
}

bool tree_has_memory(size_t text_n)
{
	/* It takes some thirty bytes for each of a text of short settings. */
	enum { FOR_EACH_BYTE = 64, AT_LEAST = 256 * 1024 };
	void *volatile probe = malloc(AT_LEAST + FOR_EACH_BYTE * text_n);

	free(probe);
	return probe != NULL;
}

/* Where another thread took the memory meanwhile, names and texts are missing. */
static bool is_whole(const config_setting_t *s)
{
	for (int i = 0; config_setting_is_aggregate(s) && i < config_setting_length(s); i++) {
		const config_setting_t *child = config_setting_get_elem(s, (unsigned)i);
		if (!child || (config_setting_is_group(s) && !config_setting_name(child)) ||
			(config_setting_type(child) == CONFIG_TYPE_STRING &&
				!config_setting_get_string(child)) ||
			!is_whole(child))
			return false;
	}
	return true;
}

static bool parse(struct tree *t, struct problems *problems)
{
	if (!tree_has_memory(strlen(t->source.text))) {
		problem_out_of_memory(problems);
		return false;
	}
	config_init(&t->config);
	t->initialised = true;
	if (config_read_string(&t->config, t->source.text) == CONFIG_FALSE) {
		const char *text = config_error_text(&t->config);
		int line = config_error_line(&t->config);
		struct place at = source_place(&t->source, line > 0 ? (uint32_t)line - 1 : 0);
		if (!text)
			text = "cannot be read";
		problem_add(problems, at, "%s%s", text, explained(text));
		return false;
	}
	config_setting_t *root = config_root_setting(&t->config);
	if (!root || !is_whole(root)) {
		problem_out_of_memory(problems);
		return false;
	}
	bool agree = count_values(root) == t->source.value_n;
	hook_lines(root, agree ? t->source.value_line : NULL, 0);
	return true;
}

bool tree_read(struct tree *t, const char *path, struct problems *problems)
{
	*t = (struct tree){ 0 };
	return source_read(&t->source, path, problems) && parse(t, problems);
}

bool tree_parse(
	struct tree *t, const char *name, const char *text, size_t n, struct problems *problems)
{
	*t = (struct tree){ 0 };
	return source_scan(&t->source, name, text, n, problems) && parse(t, problems);
}

void tree_free(struct tree *t)
{
	if (t->initialised)
		config_destroy(&t->config);
	source_free(&t->source);
	t->initialised = false;
}

struct place tree_place(const struct tree *t, const config_setting_t *s)
{
	return source_place(&t->source, (uint32_t)(uintptr_t)config_setting_get_hook(s));
}

const char *tree_type_name(const config_setting_t *s)
{
	switch (config_setting_type(s)) {
	case CONFIG_TYPE_GROUP:
		return "a group { }";
	case CONFIG_TYPE_LIST:
		return "a list ( )";
	case CONFIG_TYPE_ARRAY:
		return "an array [ ]";
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		return "an integer";
	case CONFIG_TYPE_FLOAT:
		return "a number";
	case CONFIG_TYPE_BOOL:
		return "a boolean";
	default:
		return "a string";
	}
}

static bool given_load(const struct tree *t, const config_setting_t *s, const char *what,
	struct given *out, struct problems *problems)
{
	char text[64], why[320];

	*out = (struct given){ .at = tree_place(t, s) };
	switch (config_setting_type(s)) {
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		out->type = GIVEN_INTEGER;
		snprintf(text, sizeof text, "%lld", (long long)config_setting_get_int64(s));
		break;
	case CONFIG_TYPE_FLOAT:
		out->type = GIVEN_NUMBER;
		snprintf(text, sizeof text, "%.15g", config_setting_get_float(s));
		break;
	case CONFIG_TYPE_BOOL:
		out->type = GIVEN_BOOLEAN;
		snprintf(text, sizeof text, "%s", config_setting_get_bool(s) ? "true" : "false");
		break;
	case CONFIG_TYPE_STRING: {
		const char *string = config_setting_get_string(s);
		out->type = GIVEN_STRING;
		why[0] = '\0';
		/* NULL: libconfig had no memory for it. */
		out->text = string ? env_expand(string, why, sizeof why) : NULL;
		if (out->text && env_is_bare(string)) /* not what it is: it may be a secret */
			problem_warn(problems, out->at,
				"%s: begins with \"$\" and is taken as it stands: to take it from the "
				"environment, write ${NAME}",
				what);
		if (!out->text && why[0])
			problem_add(problems, out->at, "%s: %s", what, why);
		else if (!out->text)
			problem_out_of_memory(problems);
		return out->text != NULL;
	}
	default:
		problem_add(problems, out->at, "%s: found %s, want a string, a number or a boolean",
			what, tree_type_name(s));
		return false;
	}
	out->text = strdup(text);
	if (!out->text)
		problem_out_of_memory(problems);
	return out->text != NULL;
}

bool givens_load(const struct tree *t, const config_setting_t *s, const char *what,
	struct givens *out, struct problems *problems)
{
	int type = config_setting_type(s);
	bool good = true;

	*out = (struct givens){ .list = type == CONFIG_TYPE_LIST || type == CONFIG_TYPE_ARRAY };
	size_t n = out->list ? (size_t)config_setting_length(s) : 1;
	out->v = calloc(n ? n : 1, sizeof *out->v);
	if (!out->v) {
		problem_out_of_memory(problems);
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		const config_setting_t *one = out->list ? config_setting_get_elem(s, (unsigned)i)
							: s;
		if (given_load(t, one, what, &out->v[out->n], problems))
			out->n++;
		else
			good = false;
	}
	if (!good)
		givens_free(out);
	return good;
}

bool givens_load_one(const struct tree *t, const config_setting_t *s, const char *what,
	struct givens *out, struct problems *problems)
{
	if (!givens_load(t, s, what, out, problems))
		return false;
	if (!out->list)
		return true;
	problem_add(problems, tree_place(t, s), "%s: found %s, want a single value", what,
		tree_type_name(s));
	givens_free(out);
	return false;
}

void givens_free(struct givens *g)
{
	for (size_t i = 0; i < g->n; i++)
		free(g->v[i].text);
	free(g->v);
	*g = (struct givens){ 0 };
}

size_t text_whole(const char *text, size_t n)
{
	while (n && ((unsigned char)text[n] & 0xc0) == 0x80)
		n--;
	return n;
}

struct str comment_hides(struct str comment)
{
	const char *p = comment.p, *end = p + comment.n;

	while ((p = memchr(p, '\r', (size_t)(end - p)))) {
		while (p < end && strchr("\r \t", *p))
			p++;
		const char *cr = memchr(p, '\r', (size_t)(end - p));
		struct str line = { p, (size_t)((cr ? cr : end) - p) };
		bool remark = line.n && (*p == '#' || (line.n > 1 && memcmp(p, "//", 2) == 0));
		if (line.n && !remark)
			return line;
	}
	return (struct str){ end, 0 };
}

const char *given_show(const struct given *g, char out[SHOWN_MAX])
{
	const char *quote = g->type == GIVEN_STRING ? "\"" : "";
	size_t n = strlen(g->text);
	bool cut = n > SHOWN_MAX - 16;

	n = cut ? text_whole(g->text, SHOWN_MAX - 16) : n;
	snprintf(out, SHOWN_MAX, "%s%.*s%s%s", quote, (int)n, g->text, cut ? "…" : "", quote);
	return out;
}

bool given_integer(const struct given *g, int64_t *out)
{
	return (g->type == GIVEN_INTEGER || g->type == GIVEN_STRING) &&
	       integer_parse(str_of(g->text), out);
}

bool given_number(const struct given *g, double *out)
{
	char *end;

	if (g->type == GIVEN_BOOLEAN || !strchr("0123456789.+-", g->text[0]) || !g->text[0])
		return false; /* strtod would take blanks and names */
	*out = strtod(g->text, &end);
	return *end == '\0' && isfinite(*out);
}

bool given_boolean(const struct given *g, bool *out)
{
	/* what people put into environment variables */
	static const char *const yes[] = { "true", "on", "yes", "1" };
	static const char *const no[] = { "false", "off", "no", "0" };

	if (g->type != GIVEN_STRING && g->type != GIVEN_BOOLEAN)
		return false;
	for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
		if (strcasecmp(g->text, yes[i]) == 0 || strcasecmp(g->text, no[i]) == 0) {
			*out = strcasecmp(g->text, yes[i]) == 0;
			return true;
		}
	return false;
}
