/* One run of config_load(): what its parts share. */
#ifndef CONFIG_LOAD_H
#define CONFIG_LOAD_H

#include "config/file.h"
#include "config/options.h"
#include "config/rate.h"
#include "config/tree.h"

#include <jansson.h>

/* The effective configuration, line by line, with where each line comes from. */
struct lines {
	struct line {
		char *text, *at; /* owned; `at` NULL: a default */
		int slot;        /* the field that its values are patterns of; -1: of none */
		size_t value_at; /* where these begin in `text` */
	} * v;
	size_t n, cap;
	bool lost; /* memory ran out */
};

/* The rates of a rule for one tier, before all tiers are known. */
struct tier_rates {
	struct place at;
	int tier;            /* -1: `default`, or the only rate */
	bool only;           /* written without a tier */
	struct quota *quota; /* owned */
	unsigned n;          /* 0: unlimited */
};

struct rule_draft {
	struct place at;
	struct tier_rates *rates; /* owned */
	unsigned rates_n, rates_cap;
	bool on_failure_given; /* else redis.on_failure, which may come in a later file */
};

/* What was read: kept with the snapshot, so that it can be built again as it was read. */
struct inputs {
	unsigned refs;     /* control thread */
	struct tree *tree; /* owned; of each file */
	size_t n;
	struct file tiers; /* the tiers file; .bytes NULL: none, or not read yet */
};

struct loader {
	struct problems *problems;
	struct inputs *inputs;
	const struct changes *changes; /* NULL: none */
	json_t *idle;                  /* config_rebuild()'s */
	size_t errors_before;    /* that the caller had collected already: no matter of this run */
	const struct tree *tree; /* of the file that is being read */
	struct values values;
	struct policy *policy;                /* being built */
	struct place option_at[OPTION_COUNT]; /* .line 0: not given */
	char *option_text[OPTION_COUNT];      /* owned; as it counts, secrets redacted */
	struct lines lines;
	struct rule_draft *draft; /* owned; for each of policy->rule */
	unsigned draft_n, rules_cap;
	bool tier_listed[TIERS_MAX]; /* by number: the rate of some rule lists it */
	struct tiers_said *said;     /* owned; NULL: no tier yet */
	unsigned tiers_matched_n;    /* patterns of policy->tiers_matched */
	json_t *secrets;             /* owned; names in identity.secret; NULL: nobody asked yet */
	bool secrets_unknown;        /* there may be others */
	bool has_admin;              /* some file has the group */
	struct place admin_at;       /* where that begins */
};

/* Whoever is the last one frees them. NULL is fine. */
void inputs_unref(struct inputs *);

static inline bool loader_failed(const struct loader *l)
{
	return problem_errors(l->problems) > l->errors_before;
}

/* Adds "KEY = VALUE". */
void lines_add(struct lines *, struct place, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* "KEY = PATTERNS", of the field in `slot`. */
void lines_add_patterns(
	struct lines *, struct place, const char *key, unsigned slot, const char *patterns);
/* Of patterns for fields that are secret only their hashes stay, as those of values in the log. */
void lines_hide(struct lines *, uint64_t secret);
void lines_sort(struct lines *);
void lines_free(struct lines *);

/* Names in keys: as they are, or quoted where they would be ambiguous. Returns `out`. */
enum { KEY_NAME_MAX = 140 };
const char *key_name(const char *name, char out[KEY_NAME_MAX]);

/* Texts of a list, joined by ", ". NULL: out of memory. */
char *givens_join(const struct givens *);

/* A string that has to be there: not empty, at most `max` bytes, printable. false: problems. */
bool text_check(const struct given *, const char *what, size_t min, size_t max, struct problems *);

/* A setting of the table; a second one in another file is an error that names both. */
void option_load(struct loader *, enum option, const config_setting_t *);
/* Where a problem of an option is told: where it is set, else its group (`admin`), else the first
 * file as a whole: a default may come from the environment. */
struct place option_place(const struct loader *, enum option);
/* Its name and, where its value comes from the environment by default, from which variable. */
enum { OPTION_SAID_MAX = 128 };
const char *option_said(const struct loader *, enum option, char out[OPTION_SAID_MAX]);
/* Defaults for all that were not given. */
void options_default(struct loader *);

/* `rules`, `allow` (or `block`) of one file: appended to what is there. */
void rules_load(struct loader *, const config_setting_t *);
void lists_load(struct loader *, const config_setting_t *, bool block);

/* A group of fields and patterns, with a line "KEY.FIELD = PATTERNS" for each. `what` is what
 * messages call it. NULL: problems. */
struct match *match_load(
	struct loader *, const config_setting_t *, const char *what, const char *key);

/* `rate` of a rule, whose algorithm is known unless `checked` is false. */
void rates_load(struct loader *, struct rule_draft *, const config_setting_t *, const char *what,
	enum algorithm, bool checked);
void rates_free(struct rule_draft *);

/* `penalty` of a rule. `title` is what messages call the rule, `key` its lines. */
void penalty_load(struct loader *, const config_setting_t *, struct rule *, const char *title,
	const char *key);

/* The slot of a field; -1: a problem was added. */
int field_slot(struct loader *, struct place, const char *what, const char *name);
/* The same of a text that is to name one field and nothing else. */
int field_load(struct loader *, const struct given *, const char *what);
/* What other programs put between fields. In no name here: what HAProxy calls an argument may hold
 * anything but '=', but `scope` joins names by '+', and "ip+user" would be a field that no request
 * has. */
#define BETWEEN_FIELDS " \t,;+&="

/* A tier is named: by a rate, or by who is said to be on it. Once for each place. */
void tier_say(struct loader *, struct place, struct str name, bool in_rate);
/* By a pattern of `match`, `allow` or `block`. */
void tier_say_pattern(struct loader *, struct place, struct str pattern);
void tiers_said_free(struct tiers_said *); /* NULL is fine */
/* One of the rules, or default_tier, that may be meant by a name; NULL: none. */
const char *tier_meant(const struct loader *, const char *name);
/* After all tiers were named: warnings of those that look misspelt. */
void tiers_check(struct loader *);

/* identity.tiers_file, after the rules: it may bring tiers of its own. */
void tiers_file_load(struct loader *);

/* After the options: no file that is written is one that is read. */
void written_check(struct loader *);

/* After the options: there is an admin interface only where some file has the group. */
void admin_fill(struct loader *);

/* After all tiers are known, and whatever else is wrong: bounds over all rules and tiers. */
void rates_check(struct loader *);
/* Where all was good: the limits of every rule for every tier. */
void rates_build(struct loader *);
/* What the operator changed (config/changes.h), after the limits of every rule are there. */
void changes_apply(struct loader *);
/* The lines of all rates. */
void rates_lines(struct loader *);

#endif
