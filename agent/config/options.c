/* The table of options at work: text -> value, checked; and back, as it counts. */
#include "config/options.h"

#include "config/address.h"
#include "config/file.h"
#include "config/load.h"
#include "config/nearest.h"
#include "config/words.h"
#include "limit/answer.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

const struct option_row option_table[OPTION_COUNT] = {
#define X(id, name, kind, text, min, max, change, words, member, help) \
	{ name, OPTION_##kind, text, min, max, OPTION_##change, words, \
		offsetof(struct values, member), sizeof(((struct values *)0)->member), help },
	OPTIONS(X)
#undef X
};

/* Words are stored as the enums that they stand for. */
static_assert(sizeof(enum backend) == sizeof(int) && sizeof(enum log_format) == sizeof(int) &&
		      sizeof(enum log_level) == sizeof(int) &&
		      sizeof(enum redis_kind) == sizeof(int) &&
		      sizeof(enum on_failure) == sizeof(int),
	"an enum is an int");

/* What is being set, for all the setters below. */
struct set {
	struct loader *l;
	const struct option_row *o;
	const struct givens *g;
	const struct given *one; /* of what is no list */
	void *member;
};

struct place option_place(const struct loader *l, enum option id)
{
	const struct source *first = l->inputs->n ? &l->inputs->tree[0].source : NULL;

	if (l->option_at[id].line)
		return l->option_at[id];
	if (l->has_admin && strncmp(option_table[id].name, "admin.", 6) == 0)
		return l->admin_at;
	return (struct place){ .file = first && first->file_n ? first->file[0] : NULL };
}

const char *option_said(const struct loader *l, enum option id, char out[OPTION_SAID_MAX])
{
	const struct option_row *o = &option_table[id];

	if (l->option_at[id].line || strncmp(o->text, "${", 2) != 0)
		snprintf(out, OPTION_SAID_MAX, "%s", o->name);
	else
		snprintf(out, OPTION_SAID_MAX, "%s (%.*s in the environment)", o->name,
			(int)strcspn(o->text + 2, ":}"), o->text + 2);
	return out;
}

static bool refuse(const struct set *s, const struct given *g, const char *want)
{
	char shown[SHOWN_MAX], said[OPTION_SAID_MAX];

	if (s->o->kind == OPTION_SECRET)
		problem_add(s->l->problems, g->at, "%s: want %s",
			option_said(s->l, (enum option)(s->o - option_table), said), want);
	else
		problem_add(s->l->problems, g->at, "%s = %s: want %s", s->o->name,
			given_show(g, shown), want);
	return false;
}

static void bytes_copy(void *to, const char *from, size_t n)
{
	memcpy(to, from, n);
}

/* ---- scalars: each returns whether the value was good, and puts its text into `out` ---- */

enum { OUT_MAX = 1200 };

static bool set_boolean(const struct set *s, char *out)
{
	bool v;

	if (!given_boolean(s->one, &v))
		return refuse(s, s->one, "true or false");
	*(bool *)s->member = v;
	snprintf(out, OUT_MAX, "%s", v ? "true" : "false");
	return true;
}

static bool set_integer(const struct set *s, char *out)
{
	char want[64];
	int64_t v;

	bool integer = given_integer(s->one, &v);
	if (!integer || v < s->o->min || v > s->o->max) {
		snprintf(want, sizeof want, "%s%" PRId64 "..%" PRId64, integer ? "" : "an integer ",
			s->o->min, s->o->max);
		return refuse(s, s->one, want);
	}
	*(int64_t *)s->member = v;
	snprintf(out, OUT_MAX, "%" PRId64, v);
	return true;
}

static bool set_duration(const struct set *s, char *out)
{
	char a[DURATION_TEXT_MAX], b[DURATION_TEXT_MAX], want[160];
	usec_t v;

	if (s->one->type == GIVEN_INTEGER) { /* of what? nothing is guessed */
		snprintf(want, sizeof want, "a duration with its unit: \"%.20ss\" or \"%.20sms\"",
			s->one->text, s->one->text);
		return refuse(s, s->one, want);
	}
	if (s->one->type != GIVEN_STRING || !duration_parse(str_of(s->one->text), &v) ||
		v < s->o->min || v > s->o->max) {
		snprintf(want, sizeof want,
			"a duration from \"%s\" to \"%s\" (units: us, ms, s, m, h, d)",
			duration_format(s->o->min, a), duration_format(s->o->max, b));
		return refuse(s, s->one, want);
	}
	*(usec_t *)s->member = v;
	duration_format(v, out);
	return true;
}

static bool set_word(const struct set *s, char *out)
{
	int v = word_load(s->one, s->o->name, s->o->words, s->l->problems);

	if (v < 0)
		return false;
	assert(s->o->size == sizeof v);
	memcpy(s->member, &v, sizeof v);
	word_at(s->o->words, v, out, OUT_MAX);
	return true;
}

static bool is_text(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 127)
			return false;
	return true;
}

static bool set_text(const struct set *s, char *out)
{
	size_t n = strlen(s->one->text);
	char want[96];

	if (s->one->type != GIVEN_STRING || n < (size_t)s->o->min || n >= s->o->size ||
		!is_text(s->one->text)) {
		snprintf(want, sizeof want,
			"a string of %d to %zu bytes without control characters", (int)s->o->min,
			s->o->size - 1);
		return refuse(s, s->one, want);
	}
	bytes_copy(s->member, s->one->text, n + 1);
	snprintf(out, OUT_MAX, "%s", s->one->text);
	return true;
}

static bool set_secret(const struct set *s, char *out)
{
	if (!set_text(s, out))
		return false;
	snprintf(out, OUT_MAX, "%s", s->one->text[0] ? "(set)" : "(not set)");
	return true;
}

static bool set_path(const struct set *s, char *out)
{
	char full[OUT_MAX], want[64];
	const char *from = s->one->at.file ? s->one->at.file : "";
	bool empty = s->one->text[0] == '\0';

	if (s->one->type != GIVEN_STRING || !is_text(s->one->text) ||
		!path_from(empty ? "" : from, s->one->text, full, sizeof full) ||
		strlen(full) >= s->o->size) {
		snprintf(want, sizeof want, "a path of at most %zu bytes, or \"\"", s->o->size - 1);
		return refuse(s, s->one, want);
	}
	bytes_copy(s->member, full, strlen(full) + 1);
	snprintf(out, OUT_MAX, "%s", full);
	return true;
}

static bool set_mode(const struct set *s, char *out)
{
	unsigned mode = 0;
	size_t n = strlen(s->one->text);

	bool good = s->one->type == GIVEN_STRING && n >= 3 && n <= 4;
	for (size_t i = 0; i < n && good; i++) {
		good = s->one->text[i] >= '0' && s->one->text[i] <= '7';
		mode = 8 * mode + (unsigned)(s->one->text[i] - '0');
	}
	if (!good || mode > (unsigned)s->o->max)
		return refuse(s, s->one, "an octal mode as a string, like \"0660\"");
	*(mode_t *)s->member = (mode_t)mode;
	snprintf(out, OUT_MAX, "%04o", mode);
	return true;
}

static bool set_target(const struct set *s, char *out)
{
	static const char *const names[] = { "stderr", "syslog", "journal" };
	struct log_settings *log = &s->l->values.settings.log;
	size_t n = strlen(s->one->text);
	char hint[HINT_MAX], want[256];

	snprintf(out, OUT_MAX, "%.300s", s->one->text);
	for (int i = 0; i < 3 && s->one->type == GIVEN_STRING; i++)
		if (strcmp(s->one->text, names[i]) == 0) {
			log->target = (enum log_target)i;
			return true;
		}
	if (s->one->type != GIVEN_STRING || s->one->text[0] != '/' || n >= sizeof log->path ||
		!is_text(s->one->text)) {
		snprintf(want, sizeof want,
			"\"stderr\", \"syslog\", \"journal\" or an absolute path of at most %zu "
			"bytes%s",
			sizeof log->path - 1, nearest_hint(s->one->text, names, 3, hint));
		return refuse(s, s->one, want);
	}
	log->target = LOG_TARGET_FILE;
	bytes_copy(log->path, s->one->text, n + 1);
	return true;
}

/* ---- lists ---- */

/* A text that was seen before in the list; NULL: this one is the first. */
static const struct given *seen_before(const struct givens *g, size_t i)
{
	for (size_t j = 0; j < i; j++)
		if (strcmp(g->v[j].text, g->v[i].text) == 0)
			return &g->v[j];
	return NULL;
}

/* Where the addresses of an option go, and how many there are. */
static struct listen_address *addresses_of(const struct set *s, unsigned **n)
{
	struct settings *settings = &s->l->values.settings;

	switch ((enum option)(s->o - option_table)) {
	case OPTION_ID_redis_servers:
		*n = &settings->redis.server_n;
		break;
	case OPTION_ID_admin_listen:
		*n = &settings->admin.listen_n;
		break;
	default:
		*n = &settings->agent.listen_n;
		break;
	}
	return s->member;
}

/* One before it in a list of listeners that has its place; NULL: none. */
static const struct listen_address *taken_by(
	const struct listen_address *list, size_t i, const struct listen_address *a)
{
	for (size_t j = 0; j < i; j++)
		if (listen_clashes_surely(&list[j], a))
			return &list[j];
	return NULL;
}

/* At the start it would look as if another process had the address. */
static bool refuse_taken(
	const struct set *s, const struct given *g, const struct listen_address *by)
{
	char want[sizeof by->text + 64];

	snprintf(want, sizeof want, "another port: \"%s\" before it has this one", by->text);
	return refuse(s, g, want);
}

/* "redis://:password@host:6379", as other programs have it: not shown, for what is in it. */
static bool looks_like_url(const char *text)
{
	return text[0] != '/' && (strstr(text, "://") || strchr(text, '@'));
}

static bool refuse_url(const struct set *s, const struct given *g)
{
	problem_add(s->l->problems, g->at,
		"%s: found a URL, want \"host:port\": what else it says have redis.username, "
		"redis.password, redis.db and redis.tls",
		s->o->name);
	return false;
}

static bool set_addresses(const struct set *s)
{
	bool servers = s->o->kind == OPTION_SERVERS, good = true;
	unsigned *n;
	struct listen_address *to = addresses_of(s, &n);
	struct listen_address address;
	char why[160];

	for (size_t i = 0; i < s->g->n; i++) {
		const struct given *g = &s->g->v[i];
		if (g->type != GIVEN_STRING) {
			good = refuse(s, g, "a string: \"host:port\" or an absolute path");
		} else if (servers && looks_like_url(g->text)) {
			good = refuse_url(s, g);
		} else if (!listen_parse(g->text, &address, why, sizeof why)) {
			good = refuse(s, g, why + strlen("want "));
		} else if (servers && !address.is_unix && !address.host[0]) {
			good = refuse(s, g, "a host before the port");
		} else if (servers && strcmp(address.port, "0") == 0) {
			good = refuse(s, g, "a port from 1 to 65535 after the colon");
		} else if (seen_before(s->g, i)) {
			good = refuse(s, g, "each address once");
		} else {
			const struct listen_address *by = servers ? NULL
								  : taken_by(to, i, &address);
			good = by ? refuse_taken(s, g, by) : good;
			to[i] = address; /* what comes is compared with it, in any case */
			*n = good ? (unsigned)i + 1 : *n;
		}
	}
	return good;
}

static bool set_prefixes(const struct set *s)
{
	struct cidr_set **set = &s->l->values.settings.agent.allow_from;
	bool good = true;

	if (s->g->n == 0)
		return true;
	*set = cidr_set_new();
	for (size_t i = 0; i < s->g->n && *set; i++) {
		const struct given *g = &s->g->v[i];
		struct cidr cidr;
		const char *why = "";
		char shown[SHOWN_MAX];
		if (g->type != GIVEN_STRING || !cidr_parse(str_of(g->text), &cidr, &why)) {
			problem_add(s->l->problems, g->at,
				"%s = %s: want an address or a prefix like \"10.0.0.0/8\"%s%s",
				s->o->name, given_show(g, shown), *why ? ": " : "",
				g->type == GIVEN_STRING && cidr_looks_several(str_of(g->text))
					? CIDR_SEVERAL
					: why);
			good = false;
			continue;
		}
		if (cidr_was_cut(str_of(g->text), &cidr))
			problem_warn(s->l->problems, g->at,
				"%s = %s: all of its first %u bits: write the bits after them as 0, or "
				"leave the slash out where the one address is meant",
				s->o->name, given_show(g, shown), cidr.prefix);
		if (!cidr_set_add(*set, &cidr)) {
			problem_out_of_memory(s->l->problems);
			return false;
		}
	}
	if (!*set) {
		problem_out_of_memory(s->l->problems);
		return false;
	}
	cidr_set_seal(*set);
	return good;
}

static const char *const variable_name[ANSWER_COUNT] = {
#define X(name, type, by_default, meaning) #name,
	ANSWER_VARS(X)
#undef X
};

/* The same variable twice does no harm and is no error. */
static bool set_variables(const struct set *s)
{
	uint32_t *mask = &s->l->values.settings.agent.variables;
	bool good = true;

	*mask = 0;
	for (size_t i = 0; i < s->g->n; i++) {
		const struct given *g = &s->g->v[i];
		char shown[SHOWN_MAX], hint[HINT_MAX];
		unsigned v = 0;
		while (v < ANSWER_COUNT &&
			(g->type != GIVEN_STRING || strcmp(g->text, variable_name[v]) != 0))
			v++;
		if (v < ANSWER_COUNT) {
			*mask |= 1u << v;
			continue;
		}
		good = false;
		if (strcmp(g->text, "token") == 0)
			problem_add(s->l->problems, g->at,
				"%s: \"token\" is reserved for a later version: it cannot be chosen yet",
				s->o->name);
		else
			problem_add(s->l->problems, g->at, "%s: unknown variable %s%s", s->o->name,
				given_show(g, shown),
				nearest_hint(g->text, variable_name, ANSWER_COUNT, hint));
	}
	return good;
}

static bool set_fields(const struct set *s)
{
	bool good = true;

	/* A key is never shown or stored in clear, whatever the list says. */
	s->l->values.secret = 1ull << FIELD_KEY;
	for (size_t i = 0; i < s->g->n; i++) {
		int slot = field_load(s->l, &s->g->v[i], s->o->name);
		if (slot < 0)
			good = false;
		else
			s->l->values.secret |= 1ull << slot;
	}
	return good;
}

/* ---- any of them ---- */

static bool set_scalar(const struct set *s, char *out)
{
	switch (s->o->kind) {
	case OPTION_BOOLEAN:
		return set_boolean(s, out);
	case OPTION_INTEGER:
		return set_integer(s, out);
	case OPTION_DURATION:
		return set_duration(s, out);
	case OPTION_WORD:
		return set_word(s, out);
	case OPTION_TEXT:
		return set_text(s, out);
	case OPTION_SECRET:
		return set_secret(s, out);
	case OPTION_PATH:
		return set_path(s, out);
	case OPTION_MODE:
		return set_mode(s, out);
	case OPTION_TARGET:
		return set_target(s, out);
	case OPTION_LISTEN:
	case OPTION_SERVERS:
	case OPTION_PREFIXES:
	case OPTION_VARIABLES:
	case OPTION_FIELDS:
		break;
	}
	return false;
}

static bool set_list(const struct set *s)
{
	switch (s->o->kind) {
	case OPTION_LISTEN:
	case OPTION_SERVERS:
		return set_addresses(s);
	case OPTION_PREFIXES:
		return set_prefixes(s);
	case OPTION_VARIABLES:
		return set_variables(s);
	default:
		return set_fields(s);
	}
}

static void option_set(struct loader *l, enum option id, const struct givens *g, struct place at)
{
	const struct option_row *o = &option_table[id];
	struct set s = { l, o, g, g->n == 1 ? g->v : NULL, (char *)&l->values + o->offset };
	char out[OUT_MAX];

	if (option_is_list(o)) {
		if (g->n < (size_t)o->min || g->n > (size_t)o->max) {
			problem_add(l->problems, at, "%s: %zu elements: want %" PRId64 "..%" PRId64,
				o->name, g->n, o->min, o->max);
			return;
		}
		if (!set_list(&s))
			return;
		l->option_text[id] = givens_join(g);
	} else {
		if (g->list) {
			problem_add(
				l->problems, at, "%s: found a list, want a single value", o->name);
			return;
		}
		if (!set_scalar(&s, out))
			return;
		l->option_text[id] = strdup(out);
	}
	if (!l->option_text[id])
		problem_out_of_memory(l->problems);
}

void option_load(struct loader *l, enum option id, const config_setting_t *setting)
{
	struct place at = tree_place(l->tree, setting), *first = &l->option_at[id];
	struct givens g;

	if (first->line) {
		problem_add(l->problems, at, "%s is set twice: first in %s:%u",
			option_table[id].name, first->file, first->line);
		return;
	}
	*first = at;
	if (givens_load(l->tree, setting, option_table[id].name, &g, l->problems)) {
		option_set(l, id, &g, at);
		givens_free(&g);
	}
}

/* A default goes the way of what is written in a file, references to the environment included. */
static config_setting_t *put_default(config_setting_t *root, const struct option_row *o)
{
	config_setting_t *s = config_setting_add(
		root, "x", option_is_list(o) ? CONFIG_TYPE_ARRAY : CONFIG_TYPE_STRING);

	if (!s)
		return NULL;
	if (!option_is_list(o))
		return config_setting_set_string(s, o->text) ? s : NULL;
	if (o->kind == OPTION_VARIABLES) {
#define X(name, type, by_default, meaning) \
	if (by_default && !config_setting_set_string_elem(s, -1, #name)) \
		return NULL;
		ANSWER_VARS(X)
#undef X
	}
	for (const char *p = o->text; *p;) {
		char word[128];
		size_t n = strcspn(p, " ");
		snprintf(word, sizeof word, "%.*s", (int)n, p);
		if (!config_setting_set_string_elem(s, -1, word))
			return NULL;
		p += n + (p[n] == ' ');
	}
	return s;
}

void options_default(struct loader *l)
{
	static const struct tree nowhere = { 0 };

	if (!tree_has_memory(0)) {
		problem_out_of_memory(l->problems);
		return;
	}
	for (unsigned id = 0; id < OPTION_COUNT; id++) {
		struct givens g;
		config_t config;
		if (l->option_at[id].line)
			continue;
		config_init(&config);
		config_setting_t *s = put_default(config_root_setting(&config), &option_table[id]);
		if (!s) {
			problem_out_of_memory(l->problems);
		} else if (givens_load(&nowhere, s, option_table[id].name, &g, l->problems)) {
			for (size_t i = 0; i < g.n; i++)
				g.v[i].at = option_place(l, (enum option)id);
			option_set(l, (enum option)id, &g, (struct place){ 0 });
			givens_free(&g);
		}
		config_destroy(&config);
	}
}
