/* What the tests of config/ share: loading texts, and files in a folder of their own. */
#ifndef LOAD_HELPER_H
#define LOAD_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct hash_key test_key = { .bytes = { 1, 2, 3 } };

/* What most texts here are warned of, and are not about: told where `want` has it. */
static const char *const told_if_wanted[] = {
	"warning: there is no rule: no request is limited",
	"warning: identity.default_tier: no rule lists",
};

static inline bool is_told(const char *message, const char *want)
{
	for (size_t i = 0; i < sizeof told_if_wanted / sizeof *told_if_wanted; i++)
		if (strstr(message, told_if_wanted[i]) && !strstr(want, told_if_wanted[i]))
			return false;
	return true;
}

/* All messages, each with its newline; to be freed. */
static inline char *problems_text_for(const struct problems *p, const char *want)
{
	size_t n = 1, used = 0;
	for (size_t i = 0; i < p->n; i++)
		n += strlen(p->message[i]) + 1;
	char *out = calloc(1, n);
	assert_non_null(out);
	for (size_t i = 0; i < p->n; i++)
		if (is_told(p->message[i], want))
			used += (size_t)sprintf(out + used, "%s\n", p->message[i]);
	return out;
}

static inline char *problems_text(const struct problems *p)
{
	return problems_text_for(p, "");
}

static inline void drop(struct snapshot *s)
{
	if (snapshot_unref(s))
		snapshot_free(s);
}

/* Loads `text` as a file "t.cfg"; its messages must be exactly `want`. NULL when refused. */
static inline struct snapshot *load_text(const char *title, const char *text, const char *want)
{
	struct problems p = { 0 };
	size_t n = strlen(text);
	char *copy = malloc(n ? n : 1); /* exactly so long: nothing around it may be read */
	assert_non_null(copy);
	memcpy(copy, text, n);
	struct snapshot *s = config_load_text("t.cfg", copy, n, &test_key, 7, &p);
	free(copy);
	char *got = problems_text_for(&p, want);
	if (strcmp(got, want) != 0)
		fail_msg("%s:\n--- text\n%s\n--- got\n%s--- want\n%s", title, text, got, want);
	if ((s != NULL) != (p.n == p.warnings))
		fail_msg("%s: errors and the result disagree", title);
	free(got);
	problems_free(&p);
	return s;
}

/* The value of a line of the snapshot; "?" where there is none. */
static inline const char *value_of(const struct snapshot *s, const char *key)
{
	size_t n = strlen(key);
	for (size_t i = 0; i < s->line_n; i++)
		if (strncmp(s->line[i], key, n) == 0 && strncmp(s->line[i] + n, " = ", 3) == 0)
			return s->line[i] + n + 3;
	return "?";
}

/* ---- files ---- */

static char test_folder[64];

static inline int folder_make(void **state)
{
	(void)state;
	strcpy(test_folder, "/tmp/config-test-XXXXXX");
	if (!mkdtemp(test_folder) || chdir(test_folder) != 0)
		return -1;
	return hash_init() ? 0 : -1;
}

static inline int folder_remove(void **state)
{
	char command[128];
	(void)state;
	if (chdir("/") != 0)
		return -1;
	snprintf(command, sizeof command, "rm -rf %s", test_folder);
	return system(command);
}

static inline void put_bytes(const char *path, const char *bytes, size_t n)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static inline void put_file(const char *path, const char *text)
{
	put_bytes(path, text, strlen(text));
}

/* Loads files; their messages must be exactly `want`. */
static inline struct snapshot *load_files(const char *const *files, size_t n, const char *want)
{
	struct problems p = { 0 };
	struct snapshot *s = config_load(files, n, &test_key, 7, &p);
	char *got = problems_text_for(&p, want);
	if (strcmp(got, want) != 0)
		fail_msg("%s:\n--- got\n%s--- want\n%s", files[0], got, want);
	if ((s != NULL) != (p.n == p.warnings))
		fail_msg("%s: errors and the result disagree", files[0]);
	free(got);
	problems_free(&p);
	return s;
}

static inline struct snapshot *load_file(const char *file, const char *want)
{
	return load_files(&file, 1, want);
}

#endif
