/* Snapshots in words, from their lines: what a reload changes, what a rule does. */
#include "config/load.h"

#include <stdarg.h>

/* A text that is cut where its room ends. */
struct out {
	char *p;
	size_t n, size;
	bool cut;
};

static void say(struct out *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct out *o, const char *format, ...)
{
	va_list args;

	if (o->n + 1 >= o->size) {
		o->cut = true;
		return;
	}
	va_start(args, format);
	int n = vsnprintf(o->p + o->n, o->size - o->n, format, args);
	va_end(args);
	if (n <= 0)
		return;
	o->cut |= (size_t)n >= o->size - o->n;
	o->n += (size_t)n < o->size - o->n ? (size_t)n : o->size - o->n - 1;
}

/* What was cut says so. */
static void end(struct out *o)
{
	static const char more[] = "…";

	if (!o->cut || o->size < sizeof more)
		return;
	size_t most = o->size - sizeof more;
	o->n = text_whole(o->p, o->n < most ? o->n : most);
	memcpy(o->p + o->n, more, sizeof more);
	o->n += sizeof more - 1;
}

/* ---- lines ---- */

struct range {
	char *const *line;
	size_t n;
};

/* The key ends where " = " stands outside of quotes. */
static struct str line_key(const char *line)
{
	size_t n = 0;
	bool quoted = false;

	while (line[n] && (quoted || strncmp(line + n, " = ", 3) != 0)) {
		if (line[n] == '\\' && quoted && line[n + 1])
			n++;
		else if (line[n] == '"')
			quoted = !quoted;
		n++;
	}
	return (struct str){ line, n };
}

static const char *line_value(const char *line)
{
	size_t n = line_key(line).n;
	return line[n] ? line + n + 3 : "";
}

static size_t lower_bound(const struct snapshot *s, const char *prefix)
{
	size_t low = 0, high = s->line_n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (strcmp(s->line[middle], prefix) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Lines are sorted: those that begin alike stand together. */
static struct range lines_with(const struct snapshot *s, const char *prefix)
{
	size_t first = lower_bound(s, prefix), n = 0;

	while (first + n < s->line_n && strncmp(s->line[first + n], prefix, strlen(prefix)) == 0)
		n++;
	return (struct range){ s->line + first, n };
}

/* The value of "KEY = …"; NULL: there is no such line. */
static const char *value_of(const struct snapshot *s, const char *key)
{
	char prefix[KEY_NAME_MAX + 128];
	int n = snprintf(prefix, sizeof prefix, "%s = ", key);

	if (n < 0 || (size_t)n >= sizeof prefix)
		return NULL; /* keys are shorter */
	struct range r = lines_with(s, prefix);
	return r.n ? r.line[0] + strlen(prefix) : NULL;
}

/* ---- changes ---- */

enum { VALUE_SHOWN = 120, VALUE_BEFORE = 40 /* of what is the same, at least that may be shown */ };

static int compare_keys(struct str a, struct str b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = memcmp(a.p, b.p, n);
	return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* What has a pass of its own: say_rules(), say_entries(). */
static bool is_of_a_list(const char *line)
{
	static const char *const list[] = { "rules", "allow", "block" };

	for (size_t i = 0; i < sizeof list / sizeof *list; i++)
		if (strncmp(line, list[i], 5) == 0 && (line[5] == '.' || line[5] == ' '))
			return true;
	return false;
}

/* Of a long value what stands from `skip` on. */
static void say_value(struct out *o, const char *value, size_t skip)
{
	const char *p = value + skip;
	size_t n = strlen(p);
	bool cut = n > VALUE_SHOWN;

	say(o, "%s%.*s%s", skip ? "…" : "", (int)(cut ? text_whole(p, VALUE_SHOWN) : n), p,
		cut ? "…" : "");
}

/* Where two values begin to differ, or the element of the list there; 0: both fit as they are, or
 * it is near the beginning. */
static size_t differs_at(const char *a, const char *b)
{
	size_t n = 0, before;

	if (strlen(a) <= VALUE_SHOWN && strlen(b) <= VALUE_SHOWN)
		return 0;
	while (a[n] && a[n] == b[n])
		n++;
	if (n <= VALUE_BEFORE)
		return 0;
	for (before = n; n - before < VALUE_BEFORE; before--)
		if (memcmp(a + before - 2, ", ", 2) == 0)
			return before;
	return text_whole(a, before);
}

/* Two sorted ranges side by side: what differs, keys without their first `cut` bytes. Lines of
 * lists only where `lists` asks for them. Returns how many differ. */
static unsigned say_differences(struct out *o, struct range was, struct range is, size_t cut,
	bool lists, const char *between)
{
	size_t i = 0, j = 0;
	unsigned n = 0;

	while (i < was.n || j < is.n) {
		const char *a = i < was.n ? was.line[i] : NULL, *b = j < is.n ? is.line[j] : NULL;
		int c = !a ? 1 : !b ? -1 : compare_keys(line_key(a), line_key(b));
		i += c <= 0;
		j += c >= 0;
		const char *line = c <= 0 ? a : b;
		if ((c == 0 && strcmp(a, b) == 0) || (!lists && is_of_a_list(line)))
			continue;
		struct str key = line_key(line);
		say(o, "%s%s%.*s ", n++ ? between : "",
			c == 0  ? ""
			: c < 0 ? "-"
				: "+",
			(int)(key.n - cut), key.p + cut);
		const char *from = c <= 0 ? line_value(a) : "", *to = c >= 0 ? line_value(b) : "";
		size_t skip = c == 0 ? differs_at(from, to) : 0;
		if (c <= 0)
			say_value(o, *from || c ? from : "\"\"", skip);
		if (c == 0)
			say(o, " -> ");
		if (c >= 0)
			say_value(o, *to || c ? to : "\"\"", skip);
	}
	return n;
}

static const struct rule *find_rule(const struct policy *p, const char *name)
{
	for (unsigned i = 0; i < p->rule_n; i++)
		if (strcmp(p->rule[i].name, name) == 0)
			return &p->rule[i];
	return NULL;
}

static void say_rules(struct out *o, const struct snapshot *old, const struct snapshot *fresh)
{
	unsigned n = 0, moved = 0;

	for (unsigned i = 0; i < fresh->policy->rule_n; i++) {
		const char *name = fresh->policy->rule[i].name;
		char quoted[KEY_NAME_MAX], prefix[KEY_NAME_MAX + 16], changes[1024] = "";
		struct out inner = { .p = changes, .size = sizeof changes };
		key_name(name, quoted);
		if (!find_rule(old->policy, name)) {
			say(o, "%s+%s", n++ ? ", " : "rules: ", quoted);
			moved++;
			continue;
		}
		snprintf(prefix, sizeof prefix, "rules.%s.", quoted);
		if (say_differences(&inner, lines_with(old, prefix), lines_with(fresh, prefix),
			    strlen(prefix), true, ", ")) {
			end(&inner);
			say(o, "%s%s changed (%s)", n++ ? ", " : "rules: ", quoted, changes);
		}
	}
	for (unsigned i = 0; i < old->policy->rule_n; i++) {
		const char *name = old->policy->rule[i].name;
		char quoted[KEY_NAME_MAX];
		if (find_rule(fresh->policy, name))
			continue;
		say(o, "%s-%s", n++ ? ", " : "rules: ", key_name(name, quoted));
		moved++;
	}
	const char *was = value_of(old, "rules"), *is = value_of(fresh, "rules");
	if (!moved && was && is && strcmp(was, is) != 0)
		say(o, "%sorder changed", n++ ? ", " : "rules: ");
}

/* The same as one more part, if anything differs. */
static void say_part(struct out *o, struct range was, struct range is, bool lists)
{
	struct out before = *o;

	if (o->n)
		say(o, "; ");
	if (say_differences(o, was, is, 0, lists, "; "))
		return;
	*o = before;
	if (o->size)
		o->p[o->n] = '\0';
}

/* An entry of `allow` or `block`, from 1 on, without what its lines begin with. */
struct entry {
	struct range lines;
	size_t prefix;
};

static struct entry entry_of(const struct snapshot *s, const char *list, unsigned number)
{
	char prefix[32];

	snprintf(prefix, sizeof prefix, "%s.%u.", list, number);
	return (struct entry){ lines_with(s, prefix), strlen(prefix) };
}

static unsigned count_entries(const struct snapshot *s, const char *list)
{
	unsigned n = 0;

	while (entry_of(s, list, n + 1).lines.n)
		n++;
	return n;
}

static bool is_same_entry(struct entry a, struct entry b)
{
	if (a.lines.n != b.lines.n)
		return false;
	for (size_t i = 0; i < a.lines.n; i++)
		if (strcmp(a.lines.line[i] + a.prefix, b.lines.line[i] + b.prefix) != 0)
			return false;
	return true;
}

/* Entries have no names. What is alike at the beginning and at the end is left out, so that one
 * that goes does not change all behind it. */
static void say_entries(
	struct out *o, const struct snapshot *old, const struct snapshot *fresh, const char *list)
{
	unsigned n = count_entries(old, list), m = count_entries(fresh, list), first = 1;

	while (first <= n && first <= m &&
		is_same_entry(entry_of(old, list, first), entry_of(fresh, list, first)))
		first++;
	for (; n >= first && m >= first; n--, m--)
		if (!is_same_entry(entry_of(old, list, n), entry_of(fresh, list, m)))
			break;
	for (unsigned i = first; i <= n || i <= m; i++) {
		struct range none = { 0 };
		say_part(o, i <= n ? entry_of(old, list, i).lines : none,
			i <= m ? entry_of(fresh, list, i).lines : none, true);
	}
}

size_t snapshot_describe_changes(
	const struct snapshot *old, const struct snapshot *fresh, char *out, size_t size)
{
	struct out o = { .p = out, .size = size };

	if (size)
		out[0] = '\0';
	say_rules(&o, old, fresh);

	say_part(&o, (struct range){ old->line, old->line_n },
		(struct range){ fresh->line, fresh->line_n }, false);
	say_entries(&o, old, fresh, "allow");
	say_entries(&o, old, fresh, "block");
	/* Of two secrets that are set, lines do not tell. */
	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option_row *row = &option_table[i];
		if (row->kind != OPTION_SECRET)
			continue;
		const char *was = option_secret(old, row), *is = option_secret(fresh, row);
		if (was[0] && is[0] && strcmp(was, is) != 0)
			say(&o, "%s%s changed", o.n ? "; " : "", row->name);
	}
	if (o.n == 0)
		say(&o, "nothing");
	end(&o);
	return o.n;
}

/* ---- a rule ---- */

/* "a, !b" as "a but not b". */
static void say_patterns(struct out *o, const char *list)
{
	bool any = false;

	for (int excluding = 0; excluding < 2; excluding++) {
		const char *before = !excluding ? "" : any ? " but not " : "not ";
		for (const char *p = list, *next; p; p = next) {
			const char *end = strstr(p, ", ");
			size_t n = end ? (size_t)(end - p) : strlen(p);
			next = end ? end + 2 : NULL;
			if ((*p == '!') != excluding)
				continue;
			say(o, "%s%.*s", before, (int)n - excluding, p + excluding);
			before = " or ";
			any = true;
		}
	}
}

/* "5/5m, 10/hour" as "5 per 5m and 10 per hour". */
static void say_list(struct out *o, const char *list, const char *between, bool rates)
{
	for (const char *p = list; *p; p++) {
		if (p[0] == ',' && p[1] == ' ') {
			say(o, "%s", between);
			p++;
		} else if (rates && *p == '/') {
			say(o, " per ");
		} else {
			say(o, "%c", *p);
		}
	}
}

static void say_rates(struct out *o, const struct snapshot *s, const char *key)
{
	char name[KEY_NAME_MAX + 64];

	snprintf(name, sizeof name, "%s.rate", key);
	const char *only = value_of(s, name);
	if (only) {
		say_list(o, only, " and ", true);
		return;
	}
	strcat(name, ".");
	struct range r = lines_with(s, name);
	for (size_t i = 0; i < r.n; i++) {
		struct str tier = line_key(r.line[i]);
		size_t skip = strlen(name);
		say(o, "%s%.*s ", i ? ", " : "", (int)(tier.n - skip), tier.p + skip);
		say_list(o, line_value(r.line[i]), " and ", true);
	}
}

static void say_on_failure(struct out *o, const struct snapshot *s, const struct rule *rule)
{
	switch (rule->on_failure) {
	case ON_FAILURE_LOCAL:
		if (s->policy->instances > 1)
			say(o, ", 1/%u of it from memory while Redis is away",
				s->policy->instances);
		break;
	case ON_FAILURE_OPEN:
		say(o, ", not limited while Redis is away");
		break;
	case ON_FAILURE_CLOSED:
		say(o, ", all denied while Redis is away");
		break;
	}
}

size_t snapshot_describe_rule(
	const struct snapshot *s, const struct rule *rule, char *out, size_t size)
{
	char quoted[KEY_NAME_MAX], key[KEY_NAME_MAX + 16], name[KEY_NAME_MAX + 64];
	struct out o = { .p = out, .size = size };

	if (size)
		out[0] = '\0';
	snprintf(key, sizeof key, "rules.%s", key_name(rule->name, quoted));
	say(&o, "%s: ", rule->name);
	say_rates(&o, s, key);
	snprintf(name, sizeof name, "%s.per", key);
	const char *per = value_of(s, name);
	if (per && *per) {
		say(&o, " for each ");
		say_list(&o, per, " and ", false);
	} else {
		say(&o, " for all together");
	}
	snprintf(name, sizeof name, "%s.match.", key);
	struct range match = lines_with(s, name);
	for (size_t i = 0; i < match.n; i++) {
		struct str field = line_key(match.line[i]);
		size_t skip = strlen(name);
		say(&o, "%s%.*s ", i ? " and " : ", on ", (int)(field.n - skip), field.p + skip);
		say_patterns(&o, line_value(match.line[i]));
	}
	if (rule->algorithm != ALGORITHM_TOKEN_BUCKET)
		say(&o, ", in a %s window",
			rule->algorithm == ALGORITHM_FIXED_WINDOW ? "fixed" : "sliding");
	if (rule->count_denied)
		say(&o, ", denied requests counted too");
	if (s->settings.store.backend == BACKEND_REDIS) {
		if (rule->lease > 0)
			say(&o, ", up to %g%% of it taken ahead", 100 * rule->lease);
		say_on_failure(&o, s, rule);
	}
	if (rule->mode == MODE_SHADOW)
		say(&o, " (shadow: nothing is denied)");
	else if (rule->mode == MODE_OFF)
		say(&o, " (off)");
	else if (rule->action == ACTION_TAG)
		say(&o, " (nothing is denied: sets tag \"%s\")", rule->tag);
	return o.n;
}
