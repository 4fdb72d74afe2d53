/* libconfig's grammar, token by token, so that a mistake is told as what it is and where it is:
 * libconfig says "syntax error", often a line too late, and 1.5 leaks then. A comma after the last
 * element of a list is allowed, as newer versions do. */
#ifndef CONFIG_GRAMMAR_H
#define CONFIG_GRAMMAR_H

#include "config/problems.h"

enum {
	NESTING_MAX = 32,         /* groups and lists within each other */
	GROUP_SETTINGS_MAX = 5000 /* in one group: libconfig compares each with each */
};

enum token {
	TOKEN_NAME,
	TOKEN_BOOLEAN,
	TOKEN_STRING,
	TOKEN_NUMBER,
	TOKEN_EQUALS,
	TOKEN_OPEN,  /* one of { [ ( */
	TOKEN_CLOSE, /* one of } ] ) */
	TOKEN_COMMA,
	TOKEN_SEMICOLON,
};

enum grammar_expect {
	EXPECT_NAME,        /* in a group: a setting, or its end */
	EXPECT_EQUALS,      /* after a name */
	EXPECT_VALUE,       /* after `=` */
	EXPECT_SETTING_END, /* after its value */
	EXPECT_ELEMENT,     /* in a list: an element, or its end */
	EXPECT_ELEMENT_END, /* after one */
};

struct grammar {
	struct problems *problems;
	struct level {
		char open; /* '\0': the whole file */
		enum grammar_expect expect;
		struct place at;
		unsigned settings;
	} level[NESTING_MAX + 1];
	unsigned depth;
	bool broken;            /* a mistake was told: what follows would only repeat it */
	bool was_string;        /* strings that follow each other are one */
	struct place string_at; /* of the last token, where that was a string */
	char name[64];          /* the last one, cut */
	bool is_doubtful; /* the name came behind a string on its line, with no sign between them:
			   * it may be a part of that */
	bool value_named; /* after a value began: it is that of `name` */
};

void grammar_init(struct grammar *, struct problems *);

/* Takes the next token. true: a value begins with it. A mistake is a problem, once, and sets
 * `broken`. */
bool grammar_take(struct grammar *, enum token, struct str text, struct place);

/* The end of all text: what is not closed is a problem. */
void grammar_end(struct grammar *, struct place);

bool grammar_in_list(const struct grammar *);  /* ( or [ */
bool grammar_in_array(const struct grammar *); /* [ */

#endif
