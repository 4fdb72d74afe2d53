/* No file that is read may be one that the agent writes: counters or lines of the log would take
 * its place. */
#include "config/load.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

struct written {
	enum option id;
	const char *path;
	const char *beside; /* it is written besides, under the path with this behind it; "" */
};

static bool is_same(const char *a, const char *b)
{
	struct stat x, y;

	return strcmp(a, b) == 0 || (stat(a, &x) == 0 && stat(b, &y) == 0 && S_ISREG(x.st_mode) &&
					    x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

static void check(struct loader *l, struct written w, const char *read, const char *what)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof path, "%s%s", w.path, w.beside);

	if (read[0] && n < (int)sizeof path && is_same(path, read))
		problem_add(l->problems, l->option_at[w.id],
			"%s = \"%s\": %s is %s, which would be written over: want a file of its own",
			option_table[w.id].name, w.path, w.beside[0] ? path : "that", what);
}

static void check_inputs(struct loader *l, struct written w)
{
	const struct settings *s = &l->values.settings;

	for (size_t i = 0; i < l->inputs->n; i++) {
		const struct source *source = &l->inputs->tree[i].source;
		for (size_t k = 0; k < source->file_n; k++)
			check(l, w, source->file[k], "a file of this configuration");
	}
	check(l, w, l->values.tiers_file, "identity.tiers_file");
	check(l, w, s->redis.tls_ca, "redis.tls_ca");
	check(l, w, s->redis.tls_cert, "redis.tls_cert");
	check(l, w, s->redis.tls_key, "redis.tls_key");
}

void written_check(struct loader *l)
{
	const struct settings *s = &l->values.settings;
	static const char *const beside[] = { "", ".tmp", ".changes", ".changes.tmp", ".lock" };
	struct written log = { OPTION_ID_log_target, s->log.path, "" };
	bool has_log = s->log.target == LOG_TARGET_FILE;

	if (l->changes) /* that was looked at when the files were read */
		return;
	if (has_log)
		check_inputs(l, log);
	for (unsigned i = 0; s->store.state_file[0] && i < sizeof beside / sizeof *beside; i++) {
		struct written state = { OPTION_ID_store_state_file, s->store.state_file,
			beside[i] };
		check_inputs(l, state);
		if (has_log)
			check(l, state, log.path, "log.target");
	}
}
