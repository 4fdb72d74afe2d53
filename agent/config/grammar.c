/* A state for each bracket that is open. Knows no characters, and nothing of what settings mean. */
#include "config/grammar.h"

#include <stdarg.h>

void grammar_init(struct grammar *g, struct problems *problems)
{
	*g = (struct grammar){ .problems = problems };
}

static bool mistake(struct grammar *g, struct place at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static bool mistake(struct grammar *g, struct place at, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	problem_add(g->problems, at, "%s", text);
	g->broken = true;
	return false;
}

bool grammar_in_list(const struct grammar *g)
{
	return g->level[g->depth].open == '(' || g->level[g->depth].open == '[';
}

bool grammar_in_array(const struct grammar *g)
{
	return g->level[g->depth].open == '[';
}

static char closing(char open)
{
	return open == '{' ? '}' : open == '(' ? ')' : ']';
}

enum { FOUND_MAX = 60 };

/* "found X", of a value only what it is: it may be a password. */
static const char *found(enum token t, struct str text, char out[FOUND_MAX])
{
	switch (t) {
	case TOKEN_NAME:
		return "found a word";
	case TOKEN_STRING:
		return "found a string";
	case TOKEN_NUMBER:
		return "found a number";
	case TOKEN_BOOLEAN:
	case TOKEN_EQUALS:
	case TOKEN_OPEN:
	case TOKEN_CLOSE:
	case TOKEN_COMMA:
	case TOKEN_SEMICOLON:
		break;
	}
	snprintf(out, FOUND_MAX, "found %.*s", (int)(text.n < 8 ? text.n : 8), text.p);
	return out;
}

/* The last name, as it may be shown. */
static const char *named(const struct grammar *g)
{
	return g->is_doubtful ? "the word behind a string (a '\"' within one is written \\\")"
			      : g->name;
}

/* What a value stands in; false: the token begins none here. */
static bool value(struct grammar *g, enum token t, struct str text, struct place at)
{
	struct level *l = &g->level[g->depth];
	char what[FOUND_MAX];

	if (t == TOKEN_NAME && l->expect == EXPECT_VALUE)
		return mistake(g, at, "%s: want a value, %s: strings stand in quotes", named(g),
			found(t, text, what));
	if (t == TOKEN_NAME)
		return mistake(g, at, "want an element or '%c', %s: strings stand in quotes",
			closing(l->open), found(t, text, what));
	if (t != TOKEN_BOOLEAN && t != TOKEN_STRING && t != TOKEN_NUMBER && t != TOKEN_OPEN)
		return l->expect == EXPECT_VALUE ? mistake(g, at, "%s: want a value, %s", named(g),
							   found(t, text, what))
						 : mistake(g, at, "want an element or '%c', %s",
							   closing(l->open), found(t, text, what));
	if (l->open == '[' && t == TOKEN_OPEN)
		return mistake(g, at,
			"'%c' in an array [ ], which holds single values only: want a list ( )",
			text.p[0]);
	g->value_named = l->expect == EXPECT_VALUE;
	l->expect = g->value_named ? EXPECT_SETTING_END : EXPECT_ELEMENT_END;
	if (t != TOKEN_OPEN)
		return true;
	if (g->depth == NESTING_MAX)
		return mistake(
			g, at, "groups and lists nested too deeply: want at most %d", NESTING_MAX);
	g->level[++g->depth] = (struct level){ .open = text.p[0],
		.expect = text.p[0] == '{' ? EXPECT_NAME : EXPECT_ELEMENT,
		.at = at };
	return true;
}

static bool name(struct grammar *g, struct str text, struct place at)
{
	struct level *l = &g->level[g->depth];

	snprintf(g->name, sizeof g->name, "%.*s", (int)(text.n < 63 ? text.n : 63), text.p);
	l->expect = EXPECT_EQUALS;
	if (++l->settings > GROUP_SETTINGS_MAX)
		return mistake(g, at, "more than %d settings in one group", GROUP_SETTINGS_MAX);
	return false;
}

static bool close(struct grammar *g, enum token t, struct str text, struct place at)
{
	const struct level *l = &g->level[g->depth];
	char what[FOUND_MAX];

	if (g->depth == 0)
		return mistake(g, at, "'%c' closes nothing", text.p[0]);
	if (text.p[0] != closing(l->open))
		return mistake(g, at, "'%c' where '%c' of %s:%u is still open", text.p[0], l->open,
			l->at.file, l->at.line);
	if (l->expect == EXPECT_EQUALS || l->expect == EXPECT_VALUE)
		return mistake(g, at, "%s: want %s, %s", named(g),
			l->expect == EXPECT_EQUALS ? "= and a value" : "a value",
			found(t, text, what));
	g->depth--;
	return false;
}

bool grammar_take(struct grammar *g, enum token t, struct str text, struct place at)
{
	struct level *l = &g->level[g->depth];
	bool goes_on = g->was_string && t == TOKEN_STRING;
	bool is_behind_string = g->was_string && g->string_at.file == at.file &&
				g->string_at.line == at.line;
	char what[FOUND_MAX];

	if (g->broken)
		return false;
	g->was_string = t == TOKEN_STRING;
	g->string_at = at;
	if (goes_on)
		return false;
	if (t == TOKEN_CLOSE)
		return close(g, t, text, at);
	switch (l->expect) {
	case EXPECT_SETTING_END:
		if (t == TOKEN_SEMICOLON || t == TOKEN_COMMA) {
			l->expect = EXPECT_NAME;
			return false;
		}
		if (t != TOKEN_NAME) /* the sign between two settings may be left out */
			return mistake(g, at, "want ';' after the value of %s, %s", named(g),
				found(t, text, what));
		g->is_doubtful = is_behind_string;
		return name(g, text, at);
	case EXPECT_NAME:
		if (t != TOKEN_NAME)
			return mistake(
				g, at, "want the name of a setting, %s", found(t, text, what));
		g->is_doubtful = false;
		return name(g, text, at);
	case EXPECT_EQUALS:
		if (t != TOKEN_EQUALS)
			return mistake(
				g, at, "want '=' after %s, %s", named(g), found(t, text, what));
		l->expect = EXPECT_VALUE;
		return false;
	case EXPECT_ELEMENT_END:
		if (t != TOKEN_COMMA)
			return mistake(g, at, "want ',' or '%c' after an element, %s",
				closing(l->open), found(t, text, what));
		l->expect = EXPECT_ELEMENT;
		return false;
	case EXPECT_VALUE:
	case EXPECT_ELEMENT:
		break;
	}
	return value(g, t, text, at);
}

void grammar_end(struct grammar *g, struct place at)
{
	if (g->broken)
		return;
	for (unsigned i = 1; i <= g->depth; i++)
		mistake(g, g->level[i].at, "'%c' is never closed", g->level[i].open);
	enum grammar_expect e = g->level[g->depth].expect;
	if (g->depth == 0 && (e == EXPECT_EQUALS || e == EXPECT_VALUE))
		mistake(g, at, "%s: want %s, found the end of the file", named(g),
			e == EXPECT_EQUALS ? "= and a value" : "a value");
}
