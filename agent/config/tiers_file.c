/* identity.tiers_file: lines "KEY-OR-USER TIER" as HAProxy's maps have them. What stands before
 * the tier may be an API key: it never goes into a message. */
#include "config/load.h"
#include "config/nearest.h"

#include <stdlib.h>

enum { TIERS_FILE_MAX = 256 << 20, LINES_TOLD = 20 /* of a kind */ };

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static struct str trim(struct str s)
{
	while (s.n && is_blank(s.p[0]))
		s = (struct str){ s.p + 1, s.n - 1 };
	while (s.n && is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

/* "sha256:HEX" in lower case, into `out`; anything else as it is. false: no good HEX. */
static bool name_canonical(struct str *name, char out[7 + SHA256_HEX_BYTES])
{
	switch (hash_said(*name, out + 7)) {
	case HASH_NOT_SAID:
		return true;
	case HASH_SAID_BADLY:
		return false;
	case HASH_SAID:
		break;
	}
	memcpy(out, "sha256:", 7);
	name->p = out;
	return true;
}

static bool has_control(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 127)
			return true;
	return false;
}

struct tiers_reading {
	struct loader *l;
	struct place at;
	bool *told; /* by tier: one that no rule lists was warned of */
	bool warn;
	size_t entries, hashes, twice, commented, swapped;
};

static void warn_unlisted(struct tiers_reading *t, int tier)
{
	const char *name = t->l->policy->tier[tier].name, *meant;
	char hint[HINT_MAX] = "";

	if (t->told[tier])
		return;
	t->told[tier] = true;
	if (t->l->tier_listed[tier] || policy_matches_tier(t->l->policy, str_of(name))) {
		tier_say(t->l, t->at, str_of(name), false);
		return;
	}
	if (!t->warn)
		return;
	meant = tier_meant(t->l, name);
	if (meant)
		snprintf(hint, sizeof hint, "; did you mean \"%s\"?", meant);
	problem_warn(t->l->problems, t->at,
		"tier \"%s\" is listed by no rule: `default` holds for it where a rule has "
		"one, else no limit by tier%s",
		name, hint);
}

/* "premium # ours": a comment is a line that begins with #, as in HAProxy's maps. A tier that a
 * rule lists so is meant. Where the comment begins; tier.n: there is none. */
static size_t comment_at(const struct loader *l, struct str tier)
{
	size_t i = 0;

	while (i < tier.n && !(tier.p[i] == '#' && (i == 0 || is_blank(tier.p[i - 1]))))
		i++;
	int known = i < tier.n ? policy_tier_find(l->policy, tier) : -1;
	return known >= 0 && l->tier_listed[known] ? tier.n : i;
}

/* A line that was valid stays so: only that it is surely not what is meant is told. */
static void warn_comment(struct tiers_reading *t, struct str tier, size_t at)
{
	struct str before = trim((struct str){ tier.p, at });

	if (++t->commented > LINES_TOLD)
		return;
	problem_warn(t->l->problems, t->at,
		"\"%.*s\" is the tier, for HAProxy too: a comment is a line of its own; want "
		"KEY-OR-USER %.*s",
		(int)tier.n, tier.p, before.n ? (int)before.n : 4, before.n ? before.p : "TIER");
}

/* "premium KEY": a tier first, and behind it what is none that a rule lists. It may be a key. */
static bool is_swapped(const struct loader *l, struct str name, struct str tier)
{
	int first = policy_tier_find(l->policy, name), second = policy_tier_find(l->policy, tier);

	return first >= 0 && l->tier_listed[first] && !(second >= 0 && l->tier_listed[second]);
}

static void warn_swapped(struct tiers_reading *t, struct str name)
{
	if (++t->swapped <= LINES_TOLD)
		problem_warn(t->l->problems, t->at,
			"\"%.*s\" is a tier, and what is behind it is listed by no rule: want "
			"KEY-OR-USER TIER",
			(int)name.n, name.p);
}

/* The name may be a key: it is not told. */
static void warn_twice(struct tiers_reading *t)
{
	if (++t->twice <= LINES_TOLD)
		problem_warn(t->l->problems, t->at,
			"this key or user has a line before: that one holds, and this one does not");
}

static void warn_in_clear(struct tiers_reading *t)
{
	if (++t->twice <= LINES_TOLD)
		problem_warn(t->l->problems, t->at,
			"this key has a line before, by its hash: this one holds, in clear, and that "
			"one does not");
}

/* Of so many: a long file is not to take the room of other warnings. */
static void warn_more(const struct tiers_reading *t, size_t n, const char *what)
{
	if (n > LINES_TOLD)
		problem_warn(t->l->problems, (struct place){ .file = t->at.file },
			"%zu more lines %s", n - LINES_TOLD, what);
}

/* false: there is no point in going on. */
static bool entry_load(struct tiers_reading *t, struct str line)
{
	struct problems *problems = t->l->problems;
	char canonical[7 + SHA256_HEX_BYTES];
	size_t n = 0;

	while (n < line.n && !is_blank(line.p[n]))
		n++;
	struct str name = { line.p, n };
	struct str tier = trim((struct str){ line.p + n, line.n - n });
	if (tier.n == 0) {
		problem_add(problems, t->at, "no tier on this line: want KEY-OR-USER TIER");
		return true;
	}
	if (!name_canonical(&name, canonical)) {
		problem_add(problems, t->at,
			"want %d hexadecimal digits after sha256:", SHA256_HEX_BYTES);
		return true;
	}
	if (tier.n > TIER_NAME_MAX || has_control(tier) || has_control(name)) {
		problem_add(problems, t->at,
			"want a tier of at most %d bytes, and no control characters",
			TIER_NAME_MAX);
		return true;
	}
	size_t comment = comment_at(t->l, tier);
	bool swapped = is_swapped(t->l, name, tier);
	int number = policy_tier_add(t->l->policy, tier);
	if (number < 0) {
		problem_add(problems, t->at, "more than %d tiers in all", TIERS_MAX);
		return false;
	}
	if (swapped)
		warn_swapped(t, name);
	else if (comment < tier.n)
		warn_comment(t, tier, comment);
	else
		warn_unlisted(t, number);
	t->entries++;
	if (tier_map_has(t->l->policy->tier_map, name)) {
		warn_twice(t);
		return true;
	}
	if (name.p == canonical)
		t->hashes++;
	else if (t->hashes && tier_map_find(t->l->policy->tier_map, name, true) >= 0)
		warn_in_clear(t);
	if (!tier_map_add(t->l->policy->tier_map, name, (unsigned)number)) {
		problem_out_of_memory(problems);
		return false;
	}
	return true;
}

static void lines_read(struct tiers_reading *t, const struct file *file)
{
	const char *p = file->bytes, *end = file->bytes + file->n;

	if (file->n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
		p += 3;
	for (; p < end; t->at.line++) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((newline ? newline : end) - p);
		struct str line = trim((struct str){ p, n });
		p += n + (newline != NULL);
		bool comment = line.n && line.p[0] == '#';
		if (comment && t->warn && comment_hides(line).n)
			problem_warn(t->l->problems, t->at,
				"this comment goes on behind a CR: a line ends in LF, or CR LF");
		if (line.n && !comment && !entry_load(t, line))
			return;
	}
}

static void text_update(struct loader *l, const struct file *file, size_t entries)
{
	char hex[SHA256_HEX_BYTES], *text;
	size_t size = strlen(l->values.tiers_file) + 96;

	hash_sha256_hex((struct str){ file->bytes, file->n }, hex);
	text = malloc(size);
	if (!text) {
		problem_out_of_memory(l->problems);
		return;
	}
	snprintf(text, size, "%s (%zu lines, checksum %.16s)", l->values.tiers_file, entries, hex);
	free(l->option_text[OPTION_ID_identity_tiers_file]);
	l->option_text[OPTION_ID_identity_tiers_file] = text;
}

void tiers_file_load(struct loader *l)
{
	struct tiers_reading t = {
		.l = l, .at = { l->values.tiers_file, 1 }, .warn = !loader_failed(l)
	};
	char why[256];
	struct file *file = &l->inputs->tiers;

	if (!l->values.tiers_file[0])
		return;
	if (!file->bytes &&
		!file_read(l->values.tiers_file, TIERS_FILE_MAX, file, why, sizeof why)) {
		problem_add(l->problems, l->option_at[OPTION_ID_identity_tiers_file],
			"identity.tiers_file: %s %s", l->values.tiers_file, why);
		return;
	}
	t.told = calloc(TIERS_MAX, sizeof *t.told);
	l->policy->tier_map = tier_map_new();
	if (t.told && l->policy->tier_map) {
		lines_read(&t, file);
		warn_more(&t, t.twice, "are of a key or user that has one before");
		warn_more(&t, t.commented, "have a comment behind the tier");
		warn_more(&t, t.swapped, "begin with a tier");
		text_update(l, file, t.entries);
	} else {
		problem_out_of_memory(l->problems);
	}
	free(t.told);
}
