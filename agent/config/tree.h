/* What one -f file says, as libconfig's tree with a place for every value; and settings as text,
 * whatever way they were written. */
#ifndef CONFIG_TREE_H
#define CONFIG_TREE_H

#include "config/prescan.h"

#include <libconfig.h>

struct tree {
	struct source source;
	config_t config;
	bool initialised;
	bool good; /* it was read without a problem */
};

/* libconfig takes no heed of memory that it does not get, and writes where it is not: before it is
 * called this says whether there is enough for a text of `n` bytes. */
bool tree_has_memory(size_t n);

/* false: problems were added; `t` is to be freed all the same, and after its places. */
bool tree_read(struct tree *t, const char *path, struct problems *);
bool tree_parse(struct tree *t, const char *name, const char *text, size_t n, struct problems *);
void tree_free(struct tree *);

struct place tree_place(const struct tree *, const config_setting_t *);

/* "a group { }", "an integer": for messages. */
const char *tree_type_name(const config_setting_t *);

/* A scalar as it was given. */
struct given {
	struct place at;
	enum { GIVEN_STRING, GIVEN_INTEGER, GIVEN_NUMBER, GIVEN_BOOLEAN } type;
	char *text; /* owned; references to the environment replaced; "true" or "false" */
};

struct givens {
	struct given *v; /* owned */
	size_t n;
	bool list; /* was written as a list or an array */
};

/* A scalar, or a list or array of scalars. `what` is what messages call it. false: problems. */
bool givens_load(const struct tree *, const config_setting_t *, const char *what,
	struct givens *out, struct problems *);
/* A scalar and nothing else: out->v[0]. */
bool givens_load_one(const struct tree *, const config_setting_t *, const char *what,
	struct givens *out, struct problems *);
void givens_free(struct givens *);

/* How much of a text is its first `n` bytes at most in whole characters (UTF-8). */
size_t text_whole(const char *text, size_t n);

/* What a comment that goes on to the end of its line holds behind a CR alone, where most editors
 * show a line of its own: the first such line that is neither blank nor a comment; empty: none. */
struct str comment_hides(struct str comment);

enum { SHOWN_MAX = 96 };

/* The value for a message: strings in quotes, cut. Returns `out`. */
const char *given_show(const struct given *, char out[SHOWN_MAX]);

/* Numbers and booleans may be written as strings. false: it is none. */
bool given_integer(const struct given *, int64_t *out);
bool given_number(const struct given *, double *out);
bool given_boolean(const struct given *, bool *out);

#endif
