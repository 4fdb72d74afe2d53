/* Runs scenarios: text files that say what HAProxy asks, when, and what it must be answered
 * (README.md has the grammar). The clock is virtual and there are no sockets: NOTIFY bytes go into
 * check_answer() and ACK bytes come out, as they would for a worker. With --redis, counters are in
 * a Redis of its own. */
#include "talk.h"

#include "redis/store.h"

#include "base/timeline.h"
#include "config/changes.h"
#include "config/explain.h"
#include "limit/answer.h"
#include "server/ban_ends.h"
#include "server/check.h"
#include "store/memory.h"
#include "store/state.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	TOKENS_MAX = 256,
	LINE_MAX_BYTES = 16384,
	NOTIFY_MAX = 65536,
	FRAME_SIZE = 16380,
	EVENTS_MAX = 256,
};

/* Mon 2026-01-05T00:00:00Z */
#define DEFAULT_UTC (INT64_C(1767571200) * USEC_PER_SEC)

/* --- What a line is made of --- */

struct token {
	struct str name;  /* all of it where there is no operator */
	char op;          /* 0 none, '=', '<' for <=, '>' for >=, '~' for ~=, '!' for != */
	struct str value; /* decoded; a NUL follows it */
	bool quoted;
};

struct runner {
	const char *path;
	char folder[512];
	struct str text;
	const char *next; /* in text: the line after this one */
	unsigned line;
	unsigned checks, failures;

	struct token token[TOKENS_MAX];
	unsigned tokens, at; /* `at`: the next one to look at */
	char memory[2 * LINE_MAX_BYTES];
	size_t memory_n;

	/* The world. UTC is utc_zero + elapsed + stepped; steady is steady_zero + elapsed. */
	usec_t utc_next, utc_zero, steady_zero, elapsed, stepped;
	struct timeline timeline; /* what the process makes of both */
	uint32_t send_max;
	struct hash_key hash_key;
	struct snapshot *snapshot;
	char *config; /* text or file name of what is loaded: a restart loads it again */
	bool config_is_file;
	uint64_t generation;
	struct memory_store *store;
	struct waiting_store *redis; /* NULL: the memory store counts */
	char prefix[16];             /* there, of this world */
	unsigned worlds;
	struct metrics metrics;
	/* Of this world; a restart keeps both, as the journal does. */
	struct bans *bans;
	struct changes *changes; /* an operator's */
	unsigned resets;         /* how often he reset a rule's counters */
	struct event_ring *events;
	struct event last_event;
	bool has_event;
	struct checker checker;
	bool checker_ready;
	uint64_t asked; /* NOTIFYs so far, for ids that differ */
};

__attribute__((format(printf, 2, 3))) static void fail(struct runner *r, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fprintf(stderr, "%s:%u: ", r->path, r->line);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	r->failures++;
}

/* The scenario itself is wrong: nothing after it would mean anything. */
__attribute__((format(printf, 2, 3), noreturn)) static void refuse(
	struct runner *r, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fprintf(stderr, "%s:%u: cannot read this: ", r->path, r->line);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(2);
}

static void *must(void *p)
{
	if (p)
		return p;
	fputs("out of memory\n", stderr);
	exit(2);
}

static char *copy(struct str s)
{
	char *out = must(malloc(s.n + 1));
	if (s.n)
		memcpy(out, s.p, s.n);
	out[s.n] = 0;
	return out;
}

static bool next_line(struct runner *r, struct str *line)
{
	const char *end = r->text.p + r->text.n;
	if (r->next >= end)
		return false;
	const char *stop = memchr(r->next, '\n', (size_t)(end - r->next));
	if (!stop)
		stop = end;
	*line = (struct str){ r->next, (size_t)(stop - r->next) };
	r->next = stop + 1;
	r->line++;
	return true;
}

static void keep_byte(struct runner *r, char c)
{
	if (r->memory_n == sizeof r->memory)
		refuse(r, "the line is too long");
	r->memory[r->memory_n++] = c;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* After the opening quote; returns what follows the closing one. */
static const char *read_quoted(struct runner *r, const char *p, const char *end)
{
	while (p < end && *p != '"') {
		char c = *p++;
		if (c != '\\') {
			keep_byte(r, c);
			continue;
		}
		if (p == end)
			break;
		switch (c = *p++) {
		case 'n':
			keep_byte(r, '\n');
			break;
		case 'r':
			keep_byte(r, '\r');
			break;
		case 't':
			keep_byte(r, '\t');
			break;
		case '0':
			keep_byte(r, 0);
			break;
		case 'x': {
			int a = p < end ? hex_digit(p[0]) : -1,
			    b = p + 1 < end ? hex_digit(p[1]) : -1;
			if (a < 0 || b < 0)
				refuse(r, "\\x wants two hex digits");
			keep_byte(r, (char)(a * 16 + b));
			p += 2;
			break;
		}
		default:
			keep_byte(r, c);
		}
	}
	if (p == end)
		refuse(r, "a quote is not closed");
	return p + 1;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static void split(struct runner *r, struct str line)
{
	const char *p = line.p, *end = p + line.n;
	r->tokens = r->at = 0;
	r->memory_n = 0;
	for (;;) {
		while (p < end && is_blank(*p))
			p++;
		if (p == end || *p == ';' || *p == '#')
			return;
		if (r->tokens == TOKENS_MAX)
			refuse(r, "more than %d words", TOKENS_MAX);
		struct token *t = &r->token[r->tokens++];
		*t = (struct token){ 0 };
		const char *word = p;
		while (p < end && !is_blank(*p) && *p != '=' && *p != '"')
			p++;
		t->name = (struct str){ word, (size_t)(p - word) };
		if (p < end && *p == '=') {
			t->op = '=';
			if (t->name.n && strchr("<>~!", p[-1])) {
				t->op = p[-1];
				t->name.n--;
			}
			p++;
		} else if (p == end || *p != '"') {
			continue;
		}
		size_t start = r->memory_n;
		if (p < end && *p == '"') {
			t->quoted = true;
			p = read_quoted(r, p + 1, end);
			if (p < end && !is_blank(*p))
				refuse(r, "text after a closing quote");
		} else {
			while (p < end && !is_blank(*p))
				keep_byte(r, *p++);
		}
		t->value = (struct str){ r->memory + start, r->memory_n - start };
		keep_byte(r, 0);
	}
}

static const struct token *peek(const struct runner *r)
{
	return r->at < r->tokens ? &r->token[r->at] : NULL;
}

static bool is_word(const struct token *t, const char *word)
{
	return t && !t->op && !t->quoted && str_eq(t->name, str_of(word));
}

static bool take_word(struct runner *r, const char *word)
{
	if (!is_word(peek(r), word))
		return false;
	r->at++;
	return true;
}

static const struct token *take_any(struct runner *r, const char *wanted)
{
	const struct token *t = peek(r);
	if (!t)
		refuse(r, "%s is missing", wanted);
	r->at++;
	return t;
}

static void no_more(struct runner *r)
{
	const struct token *t = peek(r);
	if (t)
		refuse(r, "unknown word \"%.*s\"", (int)t->name.n, t->name.p);
}

/* --- Numbers and times --- */

static bool whole_number(struct str s, int64_t *out)
{
	char text[32], *end;
	if (s.n == 0 || s.n >= sizeof text)
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = 0;
	errno = 0;
	*out = strtoll(text, &end, 10);
	return !errno && !*end && !isspace((unsigned char)*text);
}

/* Days since 1970-01-01 of a proleptic Gregorian date. */
static int64_t days_of(int64_t y, int64_t m, int64_t d)
{
	y -= m <= 2;
	int64_t era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
	int64_t of_year = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* "2026-01-05T00:00:00Z", with a fraction of up to six digits before the Z. */
static bool parse_utc(struct str s, usec_t *out)
{
	char text[40];
	int y, mo, d, h, mi, sec, used = 0;
	if (s.n >= sizeof text)
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = 0;
	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &y, &mo, &d, &h, &mi, &sec, &used) != 6)
		return false;
	usec_t fraction = 0;
	const char *p = text + used;
	if (*p == '.') {
		usec_t unit = USEC_PER_SEC;
		for (p++; isdigit((unsigned char)*p) && unit > 1; p++)
			fraction += (*p - '0') * (unit /= 10);
	}
	*out = (days_of(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec) * USEC_PER_SEC + fraction;
	return strcmp(p, "Z") == 0;
}

/* "3334ms", "-45s", "1h30m", "119.999s": parts of a number and a unit, after an optional sign. */
static bool parse_duration(struct str s, usec_t *out)
{
	static const struct {
		const char *name;
		usec_t length;
	} units[] = {
		{ "us", 1 },
		{ "ms", USEC_PER_MSEC },
		{ "s", USEC_PER_SEC },
		{ "m", 60 * USEC_PER_SEC },
		{ "h", 3600 * USEC_PER_SEC },
		{ "d", USEC_PER_DAY },
	};
	const char *p = s.p, *end = p + s.n;
	bool minus = p < end && *p == '-';
	if (p < end && (*p == '-' || *p == '+'))
		p++;
	if (p == end)
		return false;
	usec_t sum = 0;
	while (p < end) {
		usec_t whole = 0, part = 0, scale = 1;
		const char *digits = p;
		for (; p < end && isdigit((unsigned char)*p); p++)
			whole = whole * 10 + (*p - '0');
		if (p == digits)
			return false;
		if (p < end && *p == '.')
			for (p++; p < end && isdigit((unsigned char)*p) && scale < 1000000; p++) {
				part = part * 10 + (*p - '0');
				scale *= 10;
			}
		const char *name = p;
		while (p < end && isalpha((unsigned char)*p))
			p++;
		struct str unit = { name, (size_t)(p - name) };
		size_t i = 0;
		while (i < sizeof units / sizeof *units && !str_eq(unit, str_of(units[i].name)))
			i++;
		if (i == sizeof units / sizeof *units)
			return false;
		sum += whole * units[i].length + part * units[i].length / scale;
	}
	*out = minus ? -sum : sum;
	return true;
}

static usec_t utc_of(const struct runner *r)
{
	return r->utc_zero + r->elapsed + r->stepped;
}

static struct now now_of(struct runner *r)
{
	return timeline_follow(&r->timeline, r->steady_zero + r->elapsed, utc_of(r));
}

/* At the start of a process both clocks read the same. */
static void clock_start(struct runner *r)
{
	usec_t utc = utc_of(r);
	r->steady_zero = utc - r->elapsed;
	r->timeline = timeline_start(utc, utc);
}

/* --- The world: configuration, store, checker --- */

static void world_close(struct runner *r)
{
	if (r->checker_ready)
		checker_fini(&r->checker);
	r->checker_ready = false;
	if (r->store)
		store_close(memory_store_base(r->store));
	r->store = NULL;
	event_ring_free(r->events);
	r->events = NULL;
}

static void snapshot_drop(struct snapshot *s)
{
	if (s && snapshot_unref(s))
		snapshot_free(s);
}

static void world_open(struct runner *r, struct memory_store *store)
{
	r->store = store;
	r->events = must(event_ring_new(EVENTS_MAX));
	r->has_event = false;
	struct store *counts = r->redis ? &r->redis->base : memory_store_base(store);
	if (!checker_init(&r->checker, NOTIFY_MAX, counts, &r->metrics, r->events))
		must(NULL);
	r->checker.penalties.bans = r->bans;
	r->checker_ready = true;
}

/* The lines up to `end`, after as many empty ones as bring line numbers in messages in step with
 * the scenario's own. */
static char *read_block(struct runner *r)
{
	unsigned first = r->line;
	const char *start = r->next, *stop = start;
	struct str line;
	for (;;) {
		stop = r->next;
		if (!next_line(r, &line)) {
			r->line = first;
			refuse(r, "this block has no `end`");
		}
		const char *p = line.p, *end = p + line.n;
		while (p < end && is_blank(*p))
			p++;
		while (end > p && is_blank(end[-1]))
			end--;
		if (end - p == 3 && memcmp(p, "end", 3) == 0)
			break;
	}
	size_t n = (size_t)(stop - start);
	char *out = must(malloc(first + n + 1));
	memset(out, '\n', first);
	memcpy(out + first, start, n);
	out[first + n] = 0;
	return out;
}

struct wanted {
	bool refused;
	struct str text[8];
	unsigned n;
};

/* `refused "text"…` or `warns "text"…` */
static struct wanted read_wanted(struct runner *r)
{
	struct wanted w = { .refused = take_word(r, "refused") };
	if (w.refused || take_word(r, "warns"))
		while (peek(r) && peek(r)->quoted && w.n < 8)
			w.text[w.n++] = r->token[r->at++].value;
	return w;
}

static void check_messages(
	struct runner *r, unsigned line, const struct problems *p, const struct wanted *w)
{
	unsigned here = r->line;
	r->line = line;
	for (unsigned i = 0; i < w->n; i++) {
		bool found = false;
		for (size_t m = 0; m < p->n; m++)
			found |= strstr(p->message[m], w->text[i].p) != NULL;
		if (found)
			continue;
		fail(r, "expected a message with \"%s\", got %zu:", w->text[i].p, p->n);
		for (size_t m = 0; m < p->n; m++)
			fprintf(stderr, "\t%s\n", p->message[m]);
	}
	r->line = here;
}

/* `config` is the text, or where `is_file` the paths, each ended by a newline. */
static struct snapshot *load(
	struct runner *r, const char *config, bool is_file, struct problems *problems)
{
	r->generation++;
	if (!is_file)
		return config_load_text(
			r->path, config, strlen(config), &r->hash_key, r->generation, problems);
	char *paths = copy(str_of(config)), *save = NULL;
	const char *file[CONFIG_FILES_MAX];
	size_t n = 0;
	for (char *p = strtok_r(paths, "\n", &save); p && n < CONFIG_FILES_MAX;
		p = strtok_r(NULL, "\n", &save))
		file[n++] = p;
	struct snapshot *s = config_load(file, n, &r->hash_key, r->generation, problems);
	free(paths);
	return s;
}

/* `config` or `reload`: the rest of its line, and its block. */
struct configuration {
	unsigned line;
	struct wanted wanted;
	char *text;
	bool is_file;
	struct problems problems;
	struct snapshot *snapshot; /* NULL: refused */
};

static void configuration_read(struct runner *r, struct configuration *c)
{
	*c = (struct configuration){ .line = r->line };
	char paths[4096];
	size_t n = 0;
	for (const struct token *t = peek(r);
		t && !t->op && !t->quoted && !is_word(t, "refused") && !is_word(t, "warns");
		t = peek(r)) {
		r->at++;
		n += (size_t)snprintf(paths + n, sizeof paths - n, "%s/%.*s\n", r->folder,
			(int)t->name.n, t->name.p);
		if (n >= sizeof paths)
			refuse(r, "too many files");
		c->is_file = true;
	}
	if (c->is_file)
		c->text = copy((struct str){ paths, n });
	c->wanted = read_wanted(r);
	no_more(r);
	if (!c->is_file)
		c->text = read_block(r);
	c->snapshot = load(r, c->text, c->is_file, &c->problems);
}

/* false: it was refused, as wanted or not, and that has been told. */
static bool configuration_holds(struct runner *r, struct configuration *c)
{
	check_messages(r, c->line, &c->problems, &c->wanted);
	if (c->snapshot && !c->wanted.refused)
		return true;
	unsigned here = r->line;
	r->line = c->line;
	if (c->wanted.refused && c->snapshot) {
		fail(r, "expected that this is refused, got a good configuration");
	} else if (!c->wanted.refused) {
		fail(r, "expected a good configuration, got %zu problems:", c->problems.n);
		for (size_t m = 0; m < c->problems.n; m++)
			fprintf(stderr, "\t%s\n", c->problems.message[m]);
	}
	r->line = here;
	return false;
}

static void configuration_done(struct runner *r, struct configuration *c, bool taken)
{
	problems_free(&c->problems);
	if (!taken) {
		snapshot_drop(c->snapshot);
		free(c->text);
		return;
	}
	snapshot_drop(r->snapshot);
	free(r->config);
	r->snapshot = c->snapshot;
	r->config = c->text;
	r->config_is_file = c->is_file;
}

static void on_config(struct runner *r)
{
	struct configuration c;
	configuration_read(r, &c);
	bool good = configuration_holds(r, &c);
	if (!good && !c.wanted.refused)
		exit(1);
	configuration_done(r, &c, good);
	if (!good)
		return;
	world_close(r);
	bans_free(r->bans);
	r->bans = must(bans_new());
	changes_free(r->changes);
	r->changes = must(changes_new());
	r->utc_zero = r->utc_next;
	r->elapsed = r->stepped = 0;
	clock_start(r);
	r->send_max = FRAME_SIZE;
	memset(&r->metrics, 0, sizeof r->metrics);
	snprintf(r->prefix, sizeof r->prefix, "%u:", ++r->worlds);
	uint64_t max_keys = (uint64_t)r->snapshot->settings.store.max_keys;
	world_open(r, must(memory_store_new(max_keys, &r->hash_key, now_of(r))));
}

static void need_world(struct runner *r)
{
	if (!r->store)
		refuse(r, "there was no good `config` before this");
}

/* What was just loaded, with what the operator has changed. */
static struct snapshot *with_changes(struct runner *r, struct snapshot *s)
{
	struct problems problems = { 0 };
	if (!changes_count(r->changes))
		return s;
	struct snapshot *fresh = config_rebuild(s, r->changes, ++r->generation, &problems, NULL);
	if (!fresh)
		refuse(r, "the changes do not go with the configuration: %s",
			problems.n ? problems.message[0] : "out of memory");
	problems_free(&problems);
	snapshot_drop(s);
	return fresh;
}

static void prepare(struct runner *r, const struct snapshot *fresh)
{
	double slower = snapshot_slower_by(r->snapshot, fresh);
	if (slower > 1)
		memory_store_stretch(r->store, slower, now_of(r));
}

/* What was changed holds from now on. */
static void rebuild(struct runner *r)
{
	struct problems problems = { 0 };
	struct snapshot *fresh = config_rebuild(
		r->snapshot, r->changes, ++r->generation, &problems, NULL);
	if (!fresh)
		refuse(r, "this change does not go with the configuration: %s",
			problems.n ? problems.message[0] : "out of memory");
	problems_free(&problems);
	prepare(r, fresh);
	snapshot_drop(r->snapshot);
	r->snapshot = fresh;
}

/* Lifts the bans that `ends` says. */
static void lift_bans(struct runner *r, bool (*ends)(void *with, const struct ban *), void *with)
{
	struct ban ban[16];
	uint64_t cursor = 0;
	usec_t utc = now_of(r).utc;
	for (size_t n; (n = bans_copy(r->bans, &cursor, ban, 16, utc)) > 0;)
		for (size_t i = 0; i < n; i++)
			if (ends(with, &ban[i]))
				bans_lift(r->bans, &ban[i].key, utc);
}

struct policies {
	const struct policy *now, *before; /* `before` NULL: a start */
};

static bool is_unknown(void *with, const struct ban *ban)
{
	const struct policies *p = with;
	return ban_ends(p->now, p->before, ban) != NULL;
}

static bool is_of_rule(void *with, const struct ban *ban)
{
	return str_eq(*(const struct str *)with, str_of(ban->rule));
}

/* What the control thread does on SIGHUP. */
static void on_reload(struct runner *r)
{
	need_world(r);
	struct configuration c;
	configuration_read(r, &c);
	bool can = c.snapshot && snapshot_can_replace(r->snapshot, c.snapshot, &c.problems);
	if (c.snapshot && !can) {
		snapshot_drop(c.snapshot);
		c.snapshot = NULL;
	}
	bool good = configuration_holds(r, &c);
	if (good) {
		c.snapshot = with_changes(r, c.snapshot);
		prepare(r, c.snapshot);
		struct policies both = { c.snapshot->policy, r->snapshot->policy };
		lift_bans(r, is_unknown, &both);
	}
	configuration_done(r, &c, good);
}

static void flip_byte(struct runner *r, const char *path)
{
	FILE *f = fopen(path, "r+b");
	long size;
	int c;
	if (!f || fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) <= 0 ||
		fseek(f, size / 2, SEEK_SET) != 0 || (c = fgetc(f)) == EOF ||
		fseek(f, size / 2, SEEK_SET) != 0 || fputc(c ^ 1, f) == EOF)
		refuse(r, "no state file to break");
	fclose(f);
}

/* Removes a folder of files; returns how many there were. */
static unsigned remove_folder(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;
	for (struct dirent *e; d && (e = readdir(d)) != NULL;)
		if (*e->d_name != '.')
			n += unlinkat(dirfd(d), e->d_name, 0) == 0;
	if (d)
		closedir(d);
	rmdir(path);
	return n;
}

/* `restart [after DURATION] [broken] [config]`: the process ends and starts again. */
static void on_restart(struct runner *r)
{
	need_world(r);
	usec_t pause = 0;
	if (take_word(r, "after") && !parse_duration(take_any(r, "a duration")->name, &pause))
		refuse(r, "after what?");
	bool broken = take_word(r, "broken"), fresh = take_word(r, "config");
	struct configuration c = { 0 };
	char folder[] = "/tmp/scenario-XXXXXX", path[64], err[512] = "";
	if (!mkdtemp(folder))
		refuse(r, "no temporary folder: %s", strerror(errno));
	snprintf(path, sizeof path, "%s/state", folder);
	if (state_save(r->store, path, now_of(r), err, sizeof err) != 0)
		fail(r, "state_save: %s", err);
	if (broken)
		flip_byte(r, path);
	world_close(r);

	r->elapsed += pause;
	clock_start(r);
	if (!r->redis)
		memset(&r->hash_key, 0xee, sizeof r->hash_key); /* it comes from the file */
	memset(&r->metrics, 0, sizeof r->metrics);
	if (fresh) {
		configuration_read(r, &c);
		if (!configuration_holds(r, &c))
			exit(1);
		configuration_done(r, &c, true);
	} else {
		no_more(r);
	}
	struct memory_store *store = NULL;
	uint64_t max_keys = (uint64_t)r->snapshot->settings.store.max_keys;
	enum state_rc rc = state_load(path, max_keys, now_of(r), &store, err, sizeof err);
	enum state_rc want = broken ? STATE_SET_ASIDE : STATE_LOADED;
	if (rc != want || !store) {
		fail(r, "state_load: expected %d, got %d: %s", want, rc, err);
		exit(1);
	}
	if (broken && (access(path, F_OK) == 0 || !*err))
		fail(r, "a broken state file was not set aside under another name, with a message");
	if (remove_folder(folder) != 1)
		fail(r, "expected one file to be left of the state");
	if (!r->redis)
		r->hash_key = *memory_store_key(store);
	struct problems problems = { 0 };
	struct snapshot *s = load(r, r->config, r->config_is_file, &problems);
	if (!s)
		refuse(r, "the configuration cannot be loaded again");
	problems_free(&problems);
	snapshot_drop(r->snapshot);
	r->snapshot = with_changes(r, s);
	lift_bans(r, is_unknown, &(struct policies){ r->snapshot->policy, NULL });
	world_open(r, store);
}

/* --- One check --- */

static bool typed(struct str v, const char *prefix, struct str *rest)
{
	size_t n = strlen(prefix);
	if (v.n < n || memcmp(v.p, prefix, n) != 0)
		return false;
	*rest = (struct str){ v.p + n, v.n - n };
	return true;
}

static struct str read_hex(struct runner *r, struct str digits)
{
	size_t start = r->memory_n;
	if (digits.n % 2)
		refuse(r, "an odd number of hex digits");
	for (size_t i = 0; i < digits.n; i += 2) {
		int a = hex_digit(digits.p[i]), b = hex_digit(digits.p[i + 1]);
		if (a < 0 || b < 0)
			refuse(r, "no hex digit");
		keep_byte(r, (char)(a * 16 + b));
	}
	return (struct str){ r->memory + start, r->memory_n - start };
}

/* "N:TEXT" is TEXT N times. */
static struct str read_repeated(struct runner *r, struct str s)
{
	const char *colon = memchr(s.p, ':', s.n);
	int64_t times;
	if (!colon || !whole_number((struct str){ s.p, (size_t)(colon - s.p) }, &times))
		refuse(r, "want rep:N:TEXT");
	struct str text = { colon + 1, s.n - (size_t)(colon + 1 - s.p) };
	size_t start = r->memory_n;
	while (times-- > 0)
		for (size_t i = 0; i < text.n; i++)
			keep_byte(r, text.p[i]);
	return (struct str){ r->memory + start, r->memory_n - start };
}

static struct value integer_value(struct runner *r, enum value_type type, struct str text)
{
	char z[32], *end;
	if (text.n == 0 || text.n >= sizeof z)
		refuse(r, "no integer");
	memcpy(z, text.p, text.n);
	z[text.n] = 0;
	errno = 0;
	uint64_t number = *z == '-' ? (uint64_t)strtoll(z, &end, 10) : strtoull(z, &end, 10);
	if (errno || *end)
		refuse(r, "no integer: %s", z);
	return (struct value){ .type = type, .number = number };
}

static struct value address_value(struct runner *r, enum value_type type, struct str text)
{
	char z[64];
	uint8_t bytes[16];
	snprintf(z, sizeof z, "%.*s", (int)text.n, text.p);
	if (inet_pton(type == VALUE_IPV4 ? AF_INET : AF_INET6, z, bytes) != 1)
		refuse(r, "no address: %s", z);
	size_t start = r->memory_n, n = type == VALUE_IPV4 ? 4 : 16;
	for (size_t i = 0; i < n; i++)
		keep_byte(r, (char)bytes[i]);
	return (struct value){ .type = type, .bytes = { r->memory + start, n } };
}

static struct value read_value(struct runner *r, const struct token *t)
{
	struct str rest;
	struct str v = t->value;
	if (t->quoted)
		return (struct value){ .type = VALUE_STRING, .bytes = v };
	if (str_eq(v, STR("null")))
		return (struct value){ .type = VALUE_NULL };
	if (typed(v, "int:", &rest))
		return integer_value(r, VALUE_INT64, rest);
	if (typed(v, "int32:", &rest))
		return integer_value(r, VALUE_INT32, rest);
	if (typed(v, "uint:", &rest))
		return integer_value(r, VALUE_UINT64, rest);
	if (typed(v, "uint32:", &rest))
		return integer_value(r, VALUE_UINT32, rest);
	if (typed(v, "bool:", &rest))
		return (struct value){ .type = VALUE_BOOL, .number = str_eq(rest, STR("true")) };
	if (typed(v, "ipv4:", &rest))
		return address_value(r, VALUE_IPV4, rest);
	if (typed(v, "ipv6:", &rest))
		return address_value(r, VALUE_IPV6, rest);
	if (typed(v, "rep:", &rest))
		return (struct value){ .type = VALUE_STRING, .bytes = read_repeated(r, rest) };
	if (typed(v, "hex:", &rest))
		return (struct value){ .type = VALUE_BINARY, .bytes = read_hex(r, rest) };
	return (struct value){ .type = VALUE_STRING, .bytes = v };
}

struct ask {
	struct talk_message message[TALK_MESSAGES_MAX];
	unsigned messages;
	bool raw;
	struct str raw_bytes;
	unsigned times;
};

static void read_ask(struct runner *r, struct ask *a)
{
	memset(a, 0, sizeof *a);
	a->times = 1;
	a->messages = 1;
	struct talk_message *m = &a->message[0];
	m->name = STR("check");
	while (peek(r) && !is_word(peek(r), "->")) {
		const struct token *t = take_any(r, "an argument");
		int64_t times;
		if (t->op == '=' && str_eq(t->name, STR("message"))) {
			m->name = t->value;
		} else if (t->op == '=') {
			if (m->n == TALK_ARGS_MAX)
				refuse(r, "more than %d arguments", TALK_ARGS_MAX);
			m->arg[m->n++] = (struct talk_arg){ t->name, read_value(r, t) };
		} else if (is_word(t, "+")) {
			if (a->messages == TALK_MESSAGES_MAX)
				refuse(r, "more than %d messages", TALK_MESSAGES_MAX);
			m = &a->message[a->messages++];
			m->name = STR("check");
		} else if (is_word(t, "nothing")) {
			a->messages = 0;
		} else if (is_word(t, "raw")) {
			a->raw = true;
			t = take_any(r, "hex digits");
			a->raw_bytes = read_hex(r, is_word(t, "-") ? (struct str){ 0 } : t->name);
		} else if (!t->op && t->name.n > 1 && *t->name.p == 'x' &&
			   whole_number((struct str){ t->name.p + 1, t->name.n - 1 }, &times) &&
			   times > 0) {
			a->times = (unsigned)times;
		} else {
			refuse(r, "unknown word \"%.*s\"", (int)t->name.n, t->name.p);
		}
	}
	if (!take_word(r, "->"))
		refuse(r, "`->` and what is expected are missing");
	if (!peek(r))
		refuse(r, "nothing is expected");
}

struct expected {
	enum { OUTCOME_ANY, OUTCOME_ALLOW, OUTCOME_DENY, OUTCOME_MALFORMED } outcome;
	bool only;
	struct {
		char name[TALK_NAME_MAX + 1];
		bool absent;
		char op;
		struct str value;
	} variable[TALK_VARIABLES_MAX];
	unsigned n;
};

static void read_expected(struct runner *r, struct expected *e)
{
	memset(e, 0, sizeof *e);
	for (const struct token *t; (t = peek(r)); r->at++) {
		if (is_word(t, "allow")) {
			e->outcome = OUTCOME_ALLOW;
		} else if (is_word(t, "deny")) {
			e->outcome = OUTCOME_DENY;
		} else if (is_word(t, "malformed")) {
			e->outcome = OUTCOME_MALFORMED;
		} else if (is_word(t, "only")) {
			e->only = true;
		} else {
			struct str name = t->name;
			bool absent = !t->op && name.n > 1 && *name.p == '!';
			if (absent)
				name = (struct str){ name.p + 1, name.n - 1 };
			if ((!t->op && !absent) || name.n == 0 || name.n > TALK_NAME_MAX)
				refuse(r, "unknown word \"%.*s\"", (int)t->name.n, t->name.p);
			if (e->n == TALK_VARIABLES_MAX)
				refuse(r, "more than %d expectations", TALK_VARIABLES_MAX);
			memcpy(e->variable[e->n].name, name.p, name.n);
			e->variable[e->n].absent = absent;
			e->variable[e->n].op = t->op;
			e->variable[e->n++].value = t->value;
		}
	}
}

static void print_ack(const struct talk_ack *ack)
{
	fputs("\tanswer:", stderr);
	for (unsigned i = 0; i < ack->n; i++) {
		const struct talk_variable *v = &ack->variable[i];
		if (v->type == VALUE_STRING)
			fprintf(stderr, " %s=\"%.*s\"", v->name, (int)v->text.n, v->text.p);
		else if (v->type == VALUE_BOOL)
			fprintf(stderr, " %s=%s", v->name, v->number ? "true" : "false");
		else
			fprintf(stderr, " %s=%" PRId64, v->name, v->number);
	}
	fputc('\n', stderr);
}

static bool compare_number(char op, int64_t got, int64_t want)
{
	return op == '<'   ? got <= want
	       : op == '>' ? got >= want
	       : op == '!' ? got != want
			   : got == want;
}

static bool compare_text(char op, struct str got, struct str want)
{
	if (op == '~')
		return want.n == 0 || (got.n && memmem(got.p, got.n, want.p, want.n));
	return str_eq(got, want) == (op != '!');
}

static const char *op_name(char op)
{
	return op == '<'   ? "at most "
	       : op == '>' ? "at least "
	       : op == '~' ? "something with "
	       : op == '!' ? "other than "
			   : "";
}

static bool variable_as_wanted(const struct talk_variable *v, char op, struct str want)
{
	int64_t number;
	if (v->type == VALUE_STRING)
		return compare_text(op, v->text, want);
	if (v->type == VALUE_BOOL)
		return str_eq(want, v->number ? STR("true") : STR("false")) == (op != '!');
	return whole_number(want, &number) && compare_number(op, v->number, number);
}

static void compare(struct runner *r, const struct expected *e, const struct talk_ack *ack)
{
	unsigned before = r->failures;
	for (unsigned i = 0; i < e->n; i++) {
		const char *name = e->variable[i].name;
		const struct talk_variable *v = talk_ack_find(ack, name);
		struct str want = e->variable[i].value;
		if (e->variable[i].absent) {
			if (v)
				fail(r, "%s: expected that it is not set, got it", name);
		} else if (!v) {
			fail(r, "%s: expected %s\"%s\", got it not set", name,
				op_name(e->variable[i].op), want.p);
		} else if (!variable_as_wanted(v, e->variable[i].op, want)) {
			char got[32];
			snprintf(got, sizeof got, "%" PRId64, v->number);
			if (v->type == VALUE_BOOL)
				snprintf(got, sizeof got, "%s", v->number ? "true" : "false");
			bool text = v->type == VALUE_STRING;
			fail(r, "%s: expected %s\"%s\", got \"%.*s\"", name,
				op_name(e->variable[i].op), want.p,
				text ? (int)v->text.n : (int)strlen(got), text ? v->text.p : got);
		}
	}
	for (unsigned i = 0; e->only && i < ack->n; i++) {
		bool named = strcmp(ack->variable[i].name, "deny") == 0 &&
			     e->outcome != OUTCOME_ANY;
		for (unsigned k = 0; k < e->n; k++)
			named |= strcmp(ack->variable[i].name, e->variable[k].name) == 0;
		if (!named)
			fail(r, "%s: expected that nothing else is set, got it",
				ack->variable[i].name);
	}
	if (r->failures != before)
		print_ack(ack);
}

static int64_t number_of(const struct talk_ack *ack, const char *name, int64_t otherwise)
{
	const struct talk_variable *v = talk_ack_find(ack, name);
	return v ? v->number : otherwise;
}

static bool chosen(const struct runner *r, const char *name)
{
	static const char *const names[] = {
#define X(name, type, by_default, meaning) #name,
		ANSWER_VARS(X)
#undef X
	};
	for (unsigned i = 0; i < ANSWER_COUNT; i++)
		if (strcmp(names[i], name) == 0)
			return r->snapshot->settings.agent.variables >> i & 1;
	return false;
}

/* What CONTRACT.md section 3 says of every answer, whatever the scenario looks at. */
static void check_sense(struct runner *r, const struct talk_ack *ack)
{
	unsigned before = r->failures;
	const struct talk_variable *deny = talk_ack_find(ack, "deny");
	const struct talk_variable *reason = talk_ack_find(ack, "reason");
	int64_t limit = number_of(ack, "limit", INT64_MAX), left = number_of(ack, "remaining", 0);
	int64_t reset = number_of(ack, "reset", 0), reset_at = number_of(ack, "reset_at", -1);
	int64_t retry = number_of(ack, "retry_after", -1);

	for (unsigned i = 0; i < ack->n; i++)
		if (strcmp(ack->variable[i].name, "ack") != 0 && !chosen(r, ack->variable[i].name))
			fail(r, "%s is set, but agent.variables does not name it",
				ack->variable[i].name);
	if (talk_ack_find(ack, "ack") && (ack->n > 1 || !number_of(ack, "ack", 0)))
		fail(r, "ack: expected true, and alone");
	if (left < 0 || left > limit)
		fail(r, "remaining %" PRId64 " of %" PRId64, left, limit);
	if (reset < 0)
		fail(r, "reset %" PRId64, reset);
	if (deny && !deny->number && retry > 0)
		fail(r, "retry_after %" PRId64 " on a request that is allowed", retry);
	if (reset_at >= 0 && talk_ack_find(ack, "reset")) {
		usec_t utc = utc_of(r);
		int64_t floor_s = utc / USEC_PER_SEC,
			ceil_s = (utc + USEC_PER_SEC - 1) / USEC_PER_SEC;
		if (reset_at < floor_s + reset || reset_at > ceil_s + reset)
			fail(r, "reset_at %" PRId64 " is not %" PRId64 " after now", reset_at,
				reset);
	}
	if (!reason) {
		if (r->failures != before)
			print_ack(ack);
		return;
	}
	static const struct {
		const char *name;
		bool deny, reports;
	} reasons[] = {
		{ "ok", false, true },
		{ "limited", true, true },
		{ "oversize", true, true },
		{ "blocked", true, false },
		{ "banned", true, false },
		{ "bypassed", false, false },
		{ "disabled", false, false },
	};
	size_t i = 0, n = sizeof reasons / sizeof *reasons;
	while (i < n && !str_eq(reason->text, str_of(reasons[i].name)))
		i++;
	if (i == n)
		fail(r, "reason \"%.*s\"", (int)reason->text.n, reason->text.p);
	else if (deny && (bool)deny->number != reasons[i].deny)
		fail(r, "deny %" PRId64 " for the reason %s", deny->number, reasons[i].name);
	else if (!reasons[i].reports)
		for (unsigned k = 0; k < ack->n; k++) {
			const char *name = ack->variable[k].name;
			if (strcmp(name, "deny") && strcmp(name, "reason") &&
				strcmp(name, "tier") && strcmp(name, "shadow") &&
				strcmp(name, "tag") && strcmp(name, "warn") &&
				(strcmp(name, "retry_after") || retry < 1 ||
					!str_eq(reason->text, STR("banned"))))
				fail(r, "%s is set for the reason %s", name, reasons[i].name);
		}
	if (retry >= 0 && str_eq(reason->text, STR("limited")) && retry < 1)
		fail(r, "retry_after %" PRId64 " on a denial", retry);
	if (retry >= 0 && str_eq(reason->text, STR("oversize")) && retry != 0)
		fail(r, "retry_after %" PRId64 ", but waiting does not help", retry);
	if (talk_ack_find(ack, "limit") && r->send_max == FRAME_SIZE) {
		static const char *const with_limit[] = { "deny", "reason", "remaining", "reset",
			"retry_after", "rule", "tier", "scope", "warn", "shadow", "tag", "reset_at",
			"algorithm" };
		for (size_t k = 0; k < sizeof with_limit / sizeof *with_limit; k++)
			if (chosen(r, with_limit[k]) && !talk_ack_find(ack, with_limit[k]))
				fail(r, "%s is not set, though a limit is reported", with_limit[k]);
	}
	if (r->failures != before)
		print_ack(ack);
}

static void drain_events(struct runner *r)
{
	struct event e;
	while (event_ring_get(r->events, &e)) {
		r->last_event = e;
		r->has_event = true;
	}
}

/* `{n}` in the text of an argument is the number of the repetition, from 1. Returns what to free.
 */
static char *number_text(struct value *v, unsigned n)
{
	const char *mark = v->type == VALUE_STRING && v->bytes.n
				   ? memmem(v->bytes.p, v->bytes.n, "{n}", 3)
				   : NULL;
	if (!mark)
		return NULL;
	size_t before = (size_t)(mark - v->bytes.p), after = v->bytes.n - before - 3;
	char *out = must(malloc(v->bytes.n + 16));
	memcpy(out, v->bytes.p, before);
	size_t digits = (size_t)sprintf(out + before, "%u", n);
	memcpy(out + before + digits, mark + 3, after);
	v->bytes = (struct str){ out, before + digits + after };
	return out;
}

static uint8_t *encode(const struct ask *a, unsigned repetition, size_t *size)
{
	static struct ask numbered;
	char *texts[TALK_MESSAGES_MAX * TALK_ARGS_MAX];
	unsigned n = 0;
	numbered = *a;
	for (unsigned m = 0; m < numbered.messages; m++)
		for (unsigned i = 0; i < numbered.message[m].n; i++)
			texts[n++] = number_text(&numbered.message[m].arg[i].value, repetition);
	uint8_t *bytes = must(talk_notify(numbered.message, numbered.messages, size));
	while (n)
		free(texts[--n]);
	return bytes;
}

static void check_once(
	struct runner *r, const struct ask *a, const struct expected *e, unsigned repetition)
{
	bool last = repetition == a->times;
	struct notify notify = { .stream_id = r->asked % 3 ? r->asked * 1000 : 0,
		.frame_id = r->asked % 2 ? 1 : 5000000000 + r->asked };
	uint8_t *payload;
	if (a->raw) {
		notify.payload_n = a->raw_bytes.n;
		payload = must(malloc(a->raw_bytes.n ? a->raw_bytes.n : 1));
		if (a->raw_bytes.n)
			memcpy(payload, a->raw_bytes.p, a->raw_bytes.n);
	} else {
		payload = encode(a, repetition, &notify.payload_n);
	}
	notify.payload = payload;
	r->asked++;
	r->checks++;

	size_t room = check_room(r->send_max);
	uint8_t *bytes = must(malloc(room));
	struct wire_writer out = { bytes, bytes + room, false };
	r->has_event = false;
	enum check_rc rc = check_answer(
		&r->checker, r->snapshot, &notify, r->send_max, now_of(r), &out, NULL);
	drain_events(r);

	struct talk_ack ack;
	char why[256];
	if (rc == CHECK_NO_ROOM) {
		fail(r, "no room for an answer in check_room() bytes");
	} else if (rc == CHECK_MALFORMED || e->outcome == OUTCOME_MALFORMED) {
		if (rc != CHECK_MALFORMED)
			fail(r, "expected malformed, got an answer");
		else if (e->outcome != OUTCOME_MALFORMED)
			fail(r, "expected an answer, got malformed");
		else if (out.p != bytes)
			fail(r, "malformed, yet %zu bytes were written", (size_t)(out.p - bytes));
	} else if (out.bad) {
		fail(r, "the writer of the answer is bad");
	} else if (!talk_ack_read(bytes, (size_t)(out.p - bytes), notify.stream_id, notify.frame_id,
			   r->send_max, &ack, why, sizeof why)) {
		fail(r, "the ACK: %s", why);
	} else {
		const struct talk_variable *deny = talk_ack_find(&ack, "deny");
		if (e->outcome != OUTCOME_ANY && !deny) {
			fail(r, "deny is not set");
			print_ack(&ack);
		} else if (e->outcome != OUTCOME_ANY &&
			   !deny->number != (e->outcome == OUTCOME_ALLOW)) {
			fail(r, "expected %s, got %s", deny->number ? "allow" : "deny",
				deny->number ? "deny" : "allow");
			print_ack(&ack);
		}
		check_sense(r, &ack);
		if (last)
			compare(r, e, &ack);
	}
	free(bytes);
	free(payload);
}

/* Time goes on, and what an operator has set ends. */
static void on_wait(struct runner *r)
{
	need_world(r);
	const struct token *t = take_any(r, "a time");
	usec_t when;
	if (parse_utc(t->name, &when))
		when -= r->utc_zero + r->stepped;
	else if (!parse_duration(t->name, &when))
		refuse(r, "no time: %.*s", (int)t->name.n, t->name.p);
	else if (*t->name.p == '+')
		when += r->elapsed;
	if (when < r->elapsed)
		refuse(r, "time runs backwards here; `step` does that to UTC");
	r->elapsed = when;
	if (changes_end(r->changes, now_of(r).utc / USEC_PER_SEC, NULL, NULL))
		rebuild(r);
}

static void on_at(struct runner *r)
{
	on_wait(r);

	static struct ask ask;
	static struct expected expected;
	read_ask(r, &ask);
	read_expected(r, &expected);
	unsigned before = r->failures;
	for (unsigned i = 1; i <= ask.times && r->failures == before; i++) {
		check_once(r, &ask, &expected, i);
		if (r->failures != before && ask.times > 1)
			fprintf(stderr, "\t(request %u of %u)\n", i, ask.times);
	}
}

/* --- The other lines --- */

/* For the next `config`. */
static void on_utc(struct runner *r)
{
	if (!parse_utc(take_any(r, "an instant")->name, &r->utc_next))
		refuse(r, "want an instant as 2026-01-05T00:00:00Z");
}

/* `env NAME=value` sets a variable of the environment, `env NAME` takes it away. */
static void on_env(struct runner *r)
{
	const struct token *t = take_any(r, "NAME=value");
	char *name = copy(t->name);
	if (t->op ? setenv(name, t->value.p, 1) : unsetenv(name))
		refuse(r, "no environment: %s", strerror(errno));
	free(name);
}

static void on_step(struct runner *r)
{
	usec_t by;
	if (!parse_duration(take_any(r, "a duration")->name, &by))
		refuse(r, "want a duration as -45s");
	r->stepped += by;
	if (r->store)
		(void)now_of(r); /* a running process looks at its clocks all the time */
}

/* `change NAME "JSON"` is what an operator changes, by the names and texts that Redis has of it;
 * `change NAME` takes it back. */
static void on_change(struct runner *r)
{
	need_world(r);
	const struct token *t = take_any(r, "the change's name"), *value = peek(r);
	char *name = copy(t->quoted ? t->value : t->name), err[512];
	if (!value) {
		if (!changes_remove(r->changes, name))
			refuse(r, "there is no change %s", name);
	} else {
		r->at++;
		if (!changes_put_text(r->changes, name, value->value, err, sizeof err))
			refuse(r, "%s", err);
	}
	free(name);
	rebuild(r);
}

static void erase(struct runner *r, struct plan *plan)
{
	struct store *store = r->checker.store;
	if (!store->ops->erase)
		refuse(r, "this store cannot do that here");
	if (plan->n && store->ops->erase(store, plan) != STORE_DONE)
		fail(r, "a store that answers at once was expected");
}

/* What the penalties of these counters' rules have counted, as the desk does. */
static void erase_strikes(struct runner *r, struct plan *counters)
{
	static struct plan strikes;
	uint8_t of[PLAN_MAX];
	counters->denied = true;
	for (unsigned i = 0; i < counters->n; i++) {
		counters->take[i].cost = 1;
		counters->take[i].verdict.admits = false;
	}
	if (!plan_strikes(counters, &strikes, of))
		return;
	for (unsigned i = 0; i < strikes.n; i++) {
		struct key key = take_ban_key(&counters->take[of[i]]);
		strikes_begin_anew(&strikes.take[i], bans_epoch(r->bans, &key, now_of(r).utc));
	}
	erase(r, &strikes);
}

/* The counters of one client begin anew; `rule` NULL: of all rules. */
static void reset_client(struct runner *r, const char *rule)
{
	static struct explain e;
	struct counters_at at = { 0 };
	char err[512];
	json_t *fields = must(json_object());
	while (peek(r)) {
		const struct token *t = take_any(r, "a field");
		char *name = copy(t->name);
		json_object_set_new(fields, name, json_stringn(t->value.p, t->value.n));
		free(name);
	}
	if (!explain_init(&e, r->snapshot->policy, fields, err, sizeof err))
		refuse(r, "%s", err);
	for (;;) {
		explain_counters(&e, (struct str){ 0 }, rule, &at);
		if (!e.plan.n)
			break;
		erase(r, &e.plan);
		erase_strikes(r, &e.plan);
	}
	explain_fini(&e);
	json_decref(fields);
}

/* `reset [RULE]`: all counters of a rule, or of all, begin anew; `reset [RULE] for FIELDS` those of
 * one client. */
static void on_reset(struct runner *r)
{
	need_world(r);
	char name[RULE_NAME_MAX + 8], value[32], err[512];
	struct str rule = { 0 };
	if (peek(r) && !is_word(peek(r), "for"))
		rule = take_any(r, "a rule")->name;
	if (take_word(r, "for")) {
		char *of = copy(rule);
		reset_client(r, rule.n ? of : NULL);
		free(of);
		return;
	}
	snprintf(name, sizeof name, "epoch:%.*s", (int)rule.n, rule.n ? rule.p : "");
	snprintf(value, sizeof value, "{\"epoch\":%u}", ++r->resets);
	if (!changes_put_text(r->changes, name, str_of(value), err, sizeof err))
		refuse(r, "%s", err);
	rebuild(r);
}

/* `lift RULE`: all its bans. */
static void on_lift(struct runner *r)
{
	need_world(r);
	struct str rule = take_any(r, "a rule")->name;
	lift_bans(r, is_of_rule, &rule);
}

static void on_frame_size(struct runner *r)
{
	int64_t n;
	if (!whole_number(take_any(r, "a size")->name, &n) || n < 256 || n > FRAME_SIZE)
		refuse(r, "want a size from 256 to %d", FRAME_SIZE);
	r->send_max = (uint32_t)n;
}

static void on_sweep(struct runner *r)
{
	need_world(r);
	usec_t ahead = 0;
	if (peek(r) && !parse_duration(take_any(r, "a time")->name, &ahead))
		refuse(r, "want a time");
	if (ahead < r->elapsed && ahead)
		refuse(r, "time runs backwards here");
	if (ahead)
		r->elapsed = ahead;
	/* It works through the table in turns; this many are enough for all of a small one. */
	for (unsigned i = 0; i < 1024; i++)
		memory_store_sweep(r->store, now_of(r), 4096);
}

static void compare_named(struct runner *r, const char *what, const char *const names[],
	const int64_t values[], size_t n)
{
	for (const struct token *t; (t = peek(r)); r->at++) {
		size_t i = 0;
		while (i < n && !str_eq(t->name, str_of(names[i])))
			i++;
		int64_t want;
		if (i == n || !t->op || !whole_number(t->value, &want))
			refuse(r, "%s: no such number \"%.*s\"", what, (int)t->name.n, t->name.p);
		if (!compare_number(t->op, values[i], want))
			fail(r, "%s %s: expected %s%" PRId64 ", got %" PRId64, what, names[i],
				op_name(t->op), want, values[i]);
	}
}

static void on_store(struct runner *r)
{
	need_world(r);
	if (r->redis) {
		r->at = r->tokens;
		return;
	}
	struct memory_stats s = memory_store_stats(r->store);
	static const char *const names[] = { "keys", "keys_max", "inserted", "expired", "evicted",
		"evicted_limited" };
	const int64_t values[] = { (int64_t)s.keys, (int64_t)s.keys_max, (int64_t)s.inserted,
		(int64_t)s.expired, (int64_t)s.evicted, (int64_t)s.evicted_limited };
	compare_named(r, "store", names, values, sizeof names / sizeof *names);
}

static void on_metric(struct runner *r)
{
	need_world(r);
	static const char *const names[] = {
#define X(name, kind, help) #name,
		METRICS(X)
#undef X
	};
	int64_t values[METRIC_COUNT];
	for (unsigned i = 0; i < METRIC_COUNT; i++)
		values[i] = (int64_t)atomic_load(&r->metrics.value[i]);
	compare_named(r, "metric", names, values, METRIC_COUNT);
}

/* `event none`, or what the last check put into the ring for the log. */
static void on_event(struct runner *r)
{
	need_world(r);
	if (take_word(r, "none")) {
		if (r->has_event)
			fail(r, "expected no event, got one of rule \"%s\"", r->last_event.rule);
		return;
	}
	if (!r->has_event) {
		fail(r, "expected an event, got none");
		r->at = r->tokens;
		return;
	}
	const struct event *e = &r->last_event;
	const struct {
		const char *name;
		const char *text;
	} texts[] = {
		{ "reason", reason_name(e->reason) },
		{ "rule", e->rule },
		{ "tier", e->tier },
		{ "client", e->client },
		{ "ip", e->ip },
		{ "endpoint", e->endpoint },
	};
	for (const struct token *t; (t = peek(r)); r->at++) {
		size_t i = 0, n = sizeof texts / sizeof *texts;
		int64_t want, got = str_eq(t->name, STR("limit")) ? e->limit : e->retry_after;
		while (i < n && !str_eq(t->name, str_of(texts[i].name)))
			i++;
		if (i < n && t->op) {
			if (!compare_text(t->op, str_of(texts[i].text), t->value))
				fail(r, "event %s: expected %s\"%s\", got \"%s\"", texts[i].name,
					op_name(t->op), t->value.p, texts[i].text);
		} else if (t->op && whole_number(t->value, &want) &&
			   (str_eq(t->name, STR("limit")) || str_eq(t->name, STR("retry_after")))) {
			if (!compare_number(t->op, got, want))
				fail(r, "event %.*s: expected %s%" PRId64 ", got %" PRId64,
					(int)t->name.n, t->name.p, op_name(t->op), want, got);
		} else {
			refuse(r, "an event has no \"%.*s\"", (int)t->name.n, t->name.p);
		}
	}
}

static const struct {
	const char *word;
	void (*run)(struct runner *);
} lines[] = {
	{ "utc", on_utc },
	{ "config", on_config },
	{ "reload", on_reload },
	{ "restart", on_restart },
	{ "env", on_env },
	{ "step", on_step },
	{ "at", on_at },
	{ "wait", on_wait },
	{ "frame_size", on_frame_size },
	{ "change", on_change },
	{ "reset", on_reset },
	{ "lift", on_lift },
	{ "sweep", on_sweep },
	{ "store", on_store },
	{ "metric", on_metric },
	{ "event", on_event },
};

/* `memory LINE` and `redis LINE` are for one of the two; `memory only` is for the whole file. */
static bool is_for_the_other(struct runner *r)
{
	if (take_word(r, "redis"))
		return !r->redis;
	if (!take_word(r, "memory"))
		return false;
	if (take_word(r, "only")) {
		if (r->redis)
			r->next = r->text.p + r->text.n;
		return true;
	}
	return r->redis;
}

static void run_line(struct runner *r, struct str line)
{
	split(r, line);
	if (!r->tokens || is_for_the_other(r))
		return;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		if (take_word(r, lines[i].word)) {
			bool block = lines[i].run == on_config || lines[i].run == on_reload;
			lines[i].run(r);
			if (!block)
				no_more(r);
			return;
		}
	refuse(r, "unknown line \"%.*s\"", (int)r->token[0].name.n, r->token[0].name.p);
}

static char *read_file(const char *path, size_t *n)
{
	FILE *f = fopen(path, "rb");
	size_t cap = 1 << 20;
	if (!f) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(2);
	}
	char *text = must(malloc(cap));
	*n = fread(text, 1, cap, f);
	fclose(f);
	if (*n == cap) {
		fprintf(stderr, "%s: longer than %zu bytes\n", path, cap);
		exit(2);
	}
	return text;
}

static unsigned run_file(const char *path, struct waiting_store *redis)
{
	struct runner *r = must(calloc(1, sizeof *r));
	size_t n;
	char *text = read_file(path, &n);
	const char *slash = strrchr(path, '/');
	r->path = path;
	snprintf(r->folder, sizeof r->folder, "%.*s", slash ? (int)(slash - path) : 1,
		slash ? path : ".");
	r->text = (struct str){ text, n };
	r->next = text;
	r->utc_next = DEFAULT_UTC;
	r->redis = redis;
	if (redis)
		redis->prefix = r->prefix;
	/* Always the same: what shares a shard must not differ from run to run. */
	memset(&r->hash_key, 0x5c, sizeof r->hash_key);

	struct str line;
	while (next_line(r, &line))
		run_line(r, line);

	unsigned failures = r->failures;
	printf("%s: %u checks, %u failures\n", path, r->checks, failures);
	world_close(r);
	bans_free(r->bans);
	changes_free(r->changes);
	snapshot_drop(r->snapshot);
	free(r->config);
	free(text);
	free(r);
	return failures;
}

int main(int argc, char **argv)
{
	static struct redis_server server;
	static struct waiting_store redis;
	unsigned failures = 0;
	bool with_redis = argc > 1 && strcmp(argv[1], "--redis") == 0;
	if (argc < 2 + with_redis) {
		fprintf(stderr, "usage: %s [--redis] FILE...\n", argv[0]);
		return 2;
	}
	if (!hash_init()) {
		fputs("libsodium cannot start\n", stderr);
		return 2;
	}
	if (with_redis) {
		redis_server_start(&server);
		waiting_store_init(&redis, &server, "");
	}
	for (int i = 1 + with_redis; i < argc; i++) {
		if (with_redis)
			freeReplyObject(redisCommand(server.redis, "FLUSHALL"));
		failures += run_file(argv[i], with_redis ? &redis : NULL);
	}
	return failures != 0;
}
