/* config_load(): files -> trees -> values and a policy -> a snapshot. */
#include "config/load.h"

#include "config/nearest.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const top_name[] = {
#define X(name) #name,
	TOP_SETTINGS(X)
#undef X
};

enum { TOP_NAMES = sizeof top_name / sizeof *top_name };

/* ---- names ---- */

/* An option by "GROUP.NAME", or "NAME" at the top; -1: there is none. */
static int option_find(const char *group, const char *name)
{
	size_t group_n = group ? strlen(group) : 0;

	for (int i = 0; i < OPTION_COUNT; i++) {
		const char *full = option_table[i].name;
		if (!group && strcmp(full, name) == 0)
			return i;
		if (group && strncmp(full, group, group_n) == 0 && full[group_n] == '.' &&
			strcmp(full + group_n + 1, name) == 0)
			return i;
	}
	return -1;
}

/* A setting of that name that lives elsewhere: "threads" at the top is "agent.threads". */
static const char *find_elsewhere(const char *name)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		const char *dot = strchr(option_table[i].name, '.');
		if (strcmp(dot ? dot + 1 : option_table[i].name, name) == 0)
			return option_table[i].name;
	}
	return NULL;
}

static void unknown(struct loader *l, const config_setting_t *s, const char *group)
{
	const char *name = config_setting_name(s), *known[OPTION_COUNT + TOP_NAMES];
	const char *elsewhere = find_elsewhere(name);
	size_t group_n = group ? strlen(group) : 0, n = 0;
	char hint[HINT_MAX];

	for (int i = 0; i < OPTION_COUNT && group; i++)
		if (strncmp(option_table[i].name, group, group_n) == 0 &&
			option_table[i].name[group_n] == '.')
			known[n++] = option_table[i].name + group_n + 1;
	for (size_t i = 0; i < TOP_NAMES && !group; i++)
		known[n++] = top_name[i];
	nearest_hint(name, known, n, hint);
	if (elsewhere && !(hint[0] && group))
		snprintf(hint, sizeof hint, "; did you mean \"%s\"?", elsewhere);
	problem_add(l->problems, tree_place(l->tree, s), "unknown setting \"%s%s%s\"%s",
		group ? group : "", group ? "." : "", name, hint);
}

/* ---- one file ---- */

static void group_load(struct loader *l, const config_setting_t *group)
{
	const char *name = config_setting_name(group);

	if (config_setting_type(group) != CONFIG_TYPE_GROUP) {
		problem_add(l->problems, tree_place(l->tree, group),
			"%s: found %s, want a group: %s: { … };", name, tree_type_name(group),
			name);
		return;
	}
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *s = config_setting_get_elem(group, (unsigned)i);
		int id = option_find(name, config_setting_name(s));
		if (id >= 0)
			option_load(l, (enum option)id, s);
		else
			unknown(l, s, name);
	}
}

static bool is_group(const char *name)
{
	size_t n = strlen(name);

	for (int i = 0; i < OPTION_COUNT; i++)
		if (strncmp(option_table[i].name, name, n) == 0 && option_table[i].name[n] == '.')
			return true;
	return false;
}

static void tree_load(struct loader *l, const struct tree *tree)
{
	const config_setting_t *root = config_root_setting(&tree->config);

	l->tree = tree;
	for (int i = 0; i < config_setting_length(root); i++) {
		const config_setting_t *s = config_setting_get_elem(root, (unsigned)i);
		const char *name = config_setting_name(s);
		int id = option_find(NULL, name);
		if (id >= 0)
			option_load(l, (enum option)id, s);
		else if (is_group(name)) {
			if (!l->has_admin && strcmp(name, "admin") == 0) {
				l->has_admin = true;
				l->admin_at = tree_place(tree, s);
			}
			group_load(l, s);
		} else if (strcmp(name, "rules") == 0)
			rules_load(l, s);
		else if (strcmp(name, "allow") == 0 || strcmp(name, "block") == 0)
			lists_load(l, s, name[0] == 'b');
		else
			unknown(l, s, NULL);
	}
}

/* ---- the whole ---- */

static void policy_fill(struct loader *l)
{
	struct policy *p = l->policy;

	p->enabled = l->values.enabled;
	p->secret = l->values.secret;
	p->ipv4_prefix = (uint8_t)l->values.ipv4_prefix;
	p->ipv6_prefix = (uint8_t)l->values.ipv6_prefix;
	if (!l->values.default_tier[0])
		return; /* that was refused */
	int tier = policy_tier_add(p, str_of(l->values.default_tier));
	if (tier < 0)
		problem_add(l->problems, l->option_at[OPTION_ID_identity_default_tier],
			"identity.default_tier: more than %d tiers in all", TIERS_MAX);
	else
		p->default_tier = (unsigned)tier;
	if (l->option_at[OPTION_ID_identity_default_tier].line)
		tier_say(l, l->option_at[OPTION_ID_identity_default_tier],
			str_of(l->values.default_tier), false);
	p->tier_named = p->tier_n; /* what comes now comes from the tiers file */
}

static void check_cluster(struct loader *l)
{
	const struct settings *s = &l->values.settings;

	if (s->redis.mode != REDIS_KIND_CLUSTER)
		return;
	if (s->redis.db)
		problem_add(l->problems, l->option_at[OPTION_ID_redis_db],
			"redis.db: %d: a cluster has no database but 0", (int)s->redis.db);
	if (strchr(s->redis.prefix, '{'))
		problem_add(l->problems, l->option_at[OPTION_ID_redis_prefix],
			"redis.prefix: \"%s\": want no \"{\" with mode = \"cluster\": all keys would lie "
			"in one slot",
			s->redis.prefix);
	for (unsigned i = 0; i < s->redis.server_n; i++)
		if (s->redis.server[i].is_unix)
			problem_add(l->problems, l->option_at[OPTION_ID_redis_servers],
				"redis.servers: \"%s\": want host:port with mode = \"cluster\"",
				s->redis.server[i].text);
}

/* What rules have of the redis group, once all files were read. */
static void redis_fill(struct loader *l)
{
	struct settings *s = &l->values.settings;
	struct policy *p = l->policy;

	for (unsigned i = 0; i < p->rule_n; i++)
		if (!l->draft[i].on_failure_given)
			p->rule[i].on_failure = s->redis.on_failure;
	p->instances = s->store.backend == BACKEND_REDIS ? (unsigned)s->redis.instances : 1;
	if (s->redis.mode == REDIS_KIND_SINGLE && s->redis.server_n > 1)
		problem_add(l->problems, l->option_at[OPTION_ID_redis_servers],
			"redis.servers: %u elements: want one with mode = \"single\" (several are for "
			"\"sentinel\" or \"cluster\")",
			s->redis.server_n);
	if (s->store.backend == BACKEND_REDIS && s->store.state_file[0]) {
		problem_warn(l->problems, l->option_at[OPTION_ID_store_state_file],
			"store.state_file: not used with backend = \"redis\": counters are kept there, and "
			"what stands in while it is away is not kept");
		s->store.state_file[0] = '\0';
	}
}

/* A file that is named has to be there; what is in it OpenSSL finds out at the start. Not asked
 * again where operators' changes are put upon what holds: one that is missing meanwhile must not
 * refuse them. */
static void check_tls_file(struct loader *l, enum option id, const char *path)
{
	if (!l->changes && path[0] && access(path, R_OK) != 0)
		problem_add(l->problems, l->option_at[id], "%s = \"%s\": %s", option_table[id].name,
			path, strerror(errno));
}

static void warn_unused(struct loader *l, enum option id, const char *value)
{
	if (value[0])
		problem_warn(l->problems, l->option_at[id], "%s: not used without redis.tls = true",
			option_table[id].name);
}

static void check_tls(struct loader *l)
{
	const struct settings *s = &l->values.settings;
	struct place at = l->option_at[OPTION_ID_redis_tls];

	if (!s->redis.tls) {
		warn_unused(l, OPTION_ID_redis_tls_ca, s->redis.tls_ca);
		warn_unused(l, OPTION_ID_redis_tls_cert, s->redis.tls_cert);
		warn_unused(l, OPTION_ID_redis_tls_key, s->redis.tls_key);
		warn_unused(l, OPTION_ID_redis_tls_name, s->redis.tls_name);
		return;
	}
	if (!REDIS_TLS)
		problem_add(l->problems, at,
			"redis.tls = true: this build has no TLS, as its hiredis had none: use one for "
			"Debian 13 or newer, or let stunnel do it beside the agent (conf/README.md)");
	check_tls_file(l, OPTION_ID_redis_tls_ca, s->redis.tls_ca);
	check_tls_file(l, OPTION_ID_redis_tls_cert, s->redis.tls_cert);
	check_tls_file(l, OPTION_ID_redis_tls_key, s->redis.tls_key);
	if (!s->redis.tls_cert[0] != !s->redis.tls_key[0])
		problem_add(l->problems,
			l->option_at[s->redis.tls_cert[0] ? OPTION_ID_redis_tls_cert
							  : OPTION_ID_redis_tls_key],
			"redis.tls_cert and redis.tls_key: want both or none");
	for (unsigned i = 0; i < s->redis.server_n; i++)
		if (s->redis.server[i].is_unix)
			problem_add(l->problems, l->option_at[OPTION_ID_redis_servers],
				"redis.servers: \"%s\": want host:port with redis.tls = true: Redis has no "
				"TLS on a UNIX socket",
				s->redis.server[i].text);
}

/* A rule that counts by a field whose values are secret; NULL: there is none. */
static const struct rule *counts_secret(const struct policy *p, unsigned *slot)
{
	for (unsigned i = 0; i < p->rule_n; i++)
		for (unsigned e = 0; e < p->rule[i].per_n; e++)
			for (unsigned a = 0; a < p->rule[i].per[e].n; a++) {
				*slot = p->rule[i].per[e].slot[a];
				if (p->secret >> *slot & 1)
					return &p->rule[i];
			}
	return NULL;
}

static void warn_of_secrets(struct loader *l)
{
	const struct settings *s = &l->values.settings;
	const struct policy *p = l->policy;
	unsigned slot;

	if (s->store.backend != BACKEND_REDIS)
		return;
	const struct rule *r = s->redis.hash_secret[0] ? NULL : counts_secret(p, &slot);
	if (r)
		problem_warn(l->problems, l->draft[r - p->rule].at,
			"rule \"%s\" counts by \"%s\", which is secret, and redis.hash_secret is "
			"empty: who can read Redis can try out which values are counted there; set it, "
			"the same for all agents",
			r->name, p->layout.field[slot].name);
}

static void rules_check(struct loader *l)
{
	const struct source *s = l->inputs->n ? &l->inputs->tree[0].source : NULL;
	const char *file = s && s->file_n ? s->file[0] : NULL;

	if (!l->policy->rule_n && !loader_failed(l))
		problem_warn(l->problems, (struct place){ .file = file },
			"there is no rule: no request is limited");
}

static void options_lines(struct loader *l)
{
	for (int i = 0; i < OPTION_COUNT; i++)
		lines_add(&l->lines, l->option_at[i], "%s = %s", option_table[i].name,
			l->option_text[i] ? l->option_text[i] : "");
}

/* The order of rules counts on ties: it is a line of its own. */
static void order_line(struct loader *l)
{
	struct policy *p = l->policy;
	char *text = malloc((size_t)p->rule_n * (KEY_NAME_MAX + 2) + 1), name[KEY_NAME_MAX];
	size_t n = 0;

	if (!text) {
		problem_out_of_memory(l->problems);
		return;
	}
	text[0] = '\0';
	for (unsigned i = 0; i < p->rule_n; i++)
		n += (size_t)sprintf(
			text + n, "%s%s", i ? ", " : "", key_name(p->rule[i].name, name));
	lines_add(&l->lines, (struct place){ 0 }, "rules = %s", text);
	free(text);
}

static struct snapshot *snapshot_build(struct loader *l, uint64_t generation)
{
	struct snapshot *s = calloc(1, sizeof *s);

	options_lines(l);
	order_line(l);
	rates_lines(l);
	lines_hide(&l->lines, l->policy->secret);
	lines_sort(&l->lines);
	if (!s || l->lines.lost || loader_failed(l)) {
		problem_out_of_memory(l->problems);
		free(s);
		return NULL;
	}
	s->line = calloc(l->lines.n, sizeof *s->line);
	s->line_at = calloc(l->lines.n, sizeof *s->line_at);
	if (!s->line || !s->line_at) {
		problem_out_of_memory(l->problems);
		snapshot_free(s);
		return NULL;
	}
	for (size_t i = 0; i < l->lines.n; i++) {
		s->line[i] = l->lines.v[i].text;
		s->line_at[i] = l->lines.v[i].at;
	}
	s->line_n = l->lines.n;
	l->lines.n = 0;
	if (l->admin_at.line &&
		asprintf(&s->admin_at, "%s:%u", l->admin_at.file, l->admin_at.line) < 0)
		s->admin_at = NULL; /* only a message has it */
	atomic_init(&s->refs, 1);
	s->generation = generation;
	s->settings = l->values.settings;
	l->values.settings.agent.allow_from = NULL;
	s->policy = l->policy;
	l->policy = NULL;
	s->inputs = l->inputs;
	l->inputs->refs++;
	return s;
}

static void loader_free(struct loader *l)
{
	for (unsigned i = 0; i < l->draft_n; i++)
		rates_free(&l->draft[i]);
	free(l->draft);
	policy_free(l->policy);
	tiers_said_free(l->said);
	cidr_set_free(l->values.settings.agent.allow_from);
	for (int i = 0; i < OPTION_COUNT; i++)
		free(l->option_text[i]);
	lines_free(&l->lines);
	json_decref(l->secrets);
	explicit_bzero(&l->values, sizeof l->values); /* passwords */
	free(l);
}

static struct snapshot *finish(struct loader *l, const struct hash_key *key, uint64_t generation)
{
	char why[512] = "";

	options_default(l);
	policy_fill(l);
	redis_fill(l);
	check_cluster(l);
	check_tls(l);
	written_check(l);
	admin_fill(l);
	tiers_file_load(l);
	tiers_check(l);
	rules_check(l);
	rates_check(l);
	if (loader_failed(l))
		return NULL;
	rates_build(l);
	if (!loader_failed(l) && l->changes)
		changes_apply(l);
	if (loader_failed(l))
		return NULL;
	struct hash_key shared;
	if (l->values.settings.store.backend == BACKEND_REDIS) {
		redis_hash_key(&l->values.settings, &shared);
		key = &shared;
	}
	if (!policy_seal(l->policy, key, why, sizeof why)) {
		problem_add(l->problems, (struct place){ 0 }, "%s", why);
		return NULL;
	}
	warn_of_secrets(l);
	return snapshot_build(l, generation);
}

/* ---- what is read, and built ---- */

struct input {
	const char *name, *text; /* text NULL: of the file */
	size_t n;
};

void inputs_unref(struct inputs *in)
{
	if (!in || --in->refs)
		return;
	for (size_t i = 0; i < in->n; i++)
		tree_free(&in->tree[i]);
	free(in->tree);
	file_free(&in->tiers);
	free(in);
}

/* Files that could not be read are problems, and the others are there: all is told in one run. */
static struct inputs *inputs_read(const struct input *input, size_t n, struct problems *problems)
{
	struct inputs *in = calloc(1, sizeof *in);

	if (n > CONFIG_FILES_MAX) {
		problem_add(problems, (struct place){ 0 }, "%zu files: want at most %d", n,
			CONFIG_FILES_MAX);
		n = 0;
	}
	if (in) {
		in->refs = 1;
		in->tree = calloc(n ? n : 1, sizeof *in->tree);
	}
	if (!in || !in->tree) {
		problem_out_of_memory(problems);
		free(in);
		return NULL;
	}
	in->n = n;
	for (size_t i = 0; i < n; i++) {
		const struct input *one = &input[i];
		in->tree[i].good = one->text ? tree_parse(&in->tree[i], one->name, one->text,
						       one->n, problems)
					     : tree_read(&in->tree[i], one->name, problems);
	}
	return in;
}

static struct snapshot *build(struct inputs *in, const struct changes *changes, json_t *idle,
	const struct hash_key *key, uint64_t generation, size_t errors_before,
	struct problems *problems)
{
	struct loader *l = calloc(1, sizeof *l);
	struct snapshot *snapshot = NULL;

	if (l) {
		l->problems = problems;
		l->errors_before = errors_before;
		l->inputs = in;
		l->changes = changes;
		l->idle = idle;
		l->policy = policy_new();
	}
	if (!l || !l->policy) {
		problem_out_of_memory(problems);
	} else {
		for (size_t i = 0; i < in->n; i++)
			if (in->tree[i].good)
				tree_load(l, &in->tree[i]);
		snapshot = finish(l, key, generation);
	}
	if (l)
		loader_free(l);
	return snapshot;
}

static struct snapshot *load(const struct input *input, size_t n, const struct hash_key *key,
	uint64_t generation, struct problems *problems)
{
	size_t errors_before = problem_errors(problems);
	struct inputs *in = inputs_read(input, n, problems);
	struct snapshot *s = in ? build(in, NULL, NULL, key, generation, errors_before, problems)
				: NULL;

	inputs_unref(in);
	return s;
}

struct snapshot *config_load(const char *const *files, size_t files_n, const struct hash_key *key,
	uint64_t generation, struct problems *problems)
{
	struct input *input = calloc(files_n ? files_n : 1, sizeof *input);

	if (!input) {
		problem_out_of_memory(problems);
		return NULL;
	}
	for (size_t i = 0; i < files_n; i++)
		input[i].name = files[i];
	struct snapshot *s = load(input, files_n, key, generation, problems);
	free(input);
	return s;
}

struct snapshot *config_load_text(const char *name, const char *text, size_t n,
	const struct hash_key *key, uint64_t generation, struct problems *problems)
{
	struct input input = { name, text ? text : "", n };
	return load(&input, 1, key, generation, problems);
}

struct snapshot *config_rebuild(const struct snapshot *old, const struct changes *changes,
	uint64_t generation, struct problems *problems, json_t *idle)
{
	return build(old->inputs, changes, idle, &old->policy->hasher.key, generation,
		problem_errors(problems), problems);
}
