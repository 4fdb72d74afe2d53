/* spoa-ratelimit: rate limiting for HAProxy over SPOP. */
#include "admin/admin.h"
#include "base/log_place.h"
#include "config/snapshot.h"
#include "server/control.h"
#include "server/turn.h"
#include "store/disk.h"
#include "store/redis_tls.h"
#include "store/state.h"
#include "store/state_lock.h"

#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <getopt.h>
#include <hiredis/hiredis.h>
#include <libconfig.h>
#include <microhttpd.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_CONFIG = 1, EXIT_START = 2, EXIT_LOST = 3 };

#define DEFAULT_FILE "/etc/spoa-ratelimit/ratelimit.cfg"

/* The command line. */

enum task { TASK_RUN, TASK_CHECK, TASK_VERSION, TASK_HELP, TASK_FULL_CONFIG };

struct options {
	const char *file[CONFIG_FILES_MAX];
	size_t files;
	enum task task;
	unsigned version; /* how many -v */
	enum verbosity verbosity;
};

static const char usage[] =
	"usage: spoa-ratelimit [-f FILE]... [-c] [-d | -q] [-v | -vv] [-h] [--full-config]\n"
	"\n"
	"  -f FILE        configuration file (default " DEFAULT_FILE ");\n"
	"                 several are read in order\n"
	"  -c             check the configuration and exit\n"
	"  -d             debug: log everything, to stderr\n"
	"  -q             quiet: log errors and the audit log only\n"
	"  -v, -vv        version; with build options and library versions\n"
	"  -h             this help\n"
	"  --full-config  print a configuration with every setting, its default and its meaning\n"
	"\n"
	"It stays in the foreground. SIGTERM and SIGINT drain and stop (a second one does not wait),\n"
	"SIGHUP reads the configuration again, SIGUSR1 opens log files again.\n"
	"Exit status: 0 stopped as asked, 1 bad command line or configuration, 2 could not start,\n"
	"3 stopped, but counters or changes could not be kept: the log says why.\n";

/* false: said why, on stderr. */
static bool load_options(int argc, char **argv, struct options *o)
{
	static const struct option names[] = {
		{ "full-config", no_argument, NULL, 'F' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ 0 },
	};
	*o = (struct options){ .task = TASK_RUN };
	for (int c; (c = getopt_long(argc, argv, "f:cdqvh", names, NULL)) != -1;) {
		switch (c) {
		case 'f':
			if (o->files == CONFIG_FILES_MAX) {
				(void)fprintf(stderr,
					"spoa-ratelimit: more than %d files: @include some of them in "
					"others\n",
					CONFIG_FILES_MAX);
				return false;
			}
			o->file[o->files++] = optarg;
			break;
		case 'c':
			o->task = TASK_CHECK;
			break;
		case 'd':
			o->verbosity = VERBOSITY_DEBUG;
			break;
		case 'q':
			o->verbosity = VERBOSITY_QUIET;
			break;
		case 'v':
			o->task = TASK_VERSION;
			o->version++;
			break;
		case 'h':
			o->task = TASK_HELP;
			return true;
		case 'F':
			o->task = TASK_FULL_CONFIG;
			break;
		default: /* getopt has said what is wrong */
			(void)fputs(usage, stderr);
			return false;
		}
	}
	if (optind < argc) {
		(void)fprintf(stderr,
			"spoa-ratelimit: \"%s\" is no option: configuration files are named with -f\n",
			argv[optind]);
		return false;
	}
	if (!o->files)
		o->file[o->files++] = DEFAULT_FILE;
	return true;
}

static bool fail(const char *why)
{
	(void)fprintf(stderr, "%sspoa-ratelimit: %s\n", log_place_priority(LOG_LEVEL_ERROR), why);
	return false;
}

/* The short tasks. */

/* What was to be said was said: half a file of `--full-config >FILE` is no success. */
static int end_printing(void)
{
	char why[128];
	if (fflush(stdout) == 0 && !ferror(stdout))
		return EXIT_SUCCESS;
	(void)snprintf(why, sizeof why, "cannot write to standard output: %s: see where it goes",
		strerror(errno));
	(void)fail(why);
	return EXIT_START;
}

static int print_version(unsigned how_often)
{
	(void)printf("spoa-ratelimit %s\n", VERSION);
	if (how_often < 2)
		return end_printing();
	(void)printf("Built with: %s\n", __VERSION__);
	(void)printf("Flags: %s\n", BUILD_FLAGS);
	(void)printf("Libraries: libev %d.%d, libconfig %d.%d.%d, libsodium %s, libsystemd %s, "
		     "hiredis %d.%d.%d, libmicrohttpd %s, jansson %s\n",
		ev_version_major(), ev_version_minor(), LIBCONFIG_VER_MAJOR, LIBCONFIG_VER_MINOR,
		LIBCONFIG_VER_REVISION, sodium_version_string(), SYSTEMD_VERSION, HIREDIS_MAJOR,
		HIREDIS_MINOR, HIREDIS_PATCH, MHD_get_version(), JANSSON_VERSION);
	(void)printf(
		"Stores: memory, redis\nTLS to Redis: %s\nSPOP: 2.0, pipelining, fragmentation\n",
		redis_tls_version());
	return end_printing();
}

static void print_problems(const struct problems *p, const struct options *o)
{
	bool warnings = o->verbosity != VERBOSITY_QUIET;
	for (size_t i = 0; i < p->n; i++) {
		enum log_level level = p->is_warning[i] ? LOG_LEVEL_WARNING : LOG_LEVEL_ERROR;
		if (warnings || !p->is_warning[i])
			(void)fprintf(stderr, "%s%s\n", log_place_priority(level), p->message[i]);
	}
}

static void drop(struct snapshot *s)
{
	if (s && snapshot_unref(s))
		snapshot_free(s);
}

static int check_configuration(const struct options *o)
{
	struct problems problems = { 0 };
	struct hash_key key;
	hash_key_random(&key);
	struct snapshot *s = config_load(o->file, o->files, &key, 1, &problems);
	print_problems(&problems, o);
	problems_free(&problems);
	if (!s)
		return EXIT_CONFIG;
	drop(s);
	if (o->verbosity != VERBOSITY_QUIET)
		(void)puts("Configuration file is valid");
	return end_printing();
}

/* Running. */

struct agent {
	const struct options *options;
	struct snapshot *snapshot;
	struct problems problems; /* of the configuration: warnings, once it is loaded */
	struct memory_store *store;
	char state_file[256]; /* "": none */
	int state_lock;       /* -1: none */
	struct inherited inherited;
	struct listeners listeners, admin_listeners;
	bool log_is_open;
	bool is_stopped; /* before it has served */
};

static bool load_snapshot(struct agent *a, const struct hash_key *key)
{
	drop(a->snapshot);
	problems_free(&a->problems);
	a->problems = (struct problems){ 0 };
	a->snapshot = config_load(a->options->file, a->options->files, key, 1, &a->problems);
	if (!a->snapshot)
		print_problems(&a->problems, a->options);
	return a->snapshot;
}

/* With the backend memory, the counters' hash key comes with the state file, and where that is the
 * configuration says. */
static bool load_configuration(struct agent *a)
{
	struct hash_key key;
	hash_key_random(&key);
	return load_snapshot(a, &key);
}

static bool open_log(struct agent *a)
{
	char err[512];
	struct log_settings log = log_settings_for(&a->snapshot->settings, a->options->verbosity);
	if (log_open(&log, err, sizeof err) < 0)
		return fail(err);
	a->log_is_open = true;
	for (size_t i = 0; i < a->problems.n; i++)
		log_warning("config_warning", KV_Z("problem", a->problems.message[i]));
	return true;
}

/* The process before this one has the admin address until it gives up the state file. */
static struct listen_plan admin_plan(struct agent *a)
{
	struct listen_plan plan = listen_plan_admin(&a->snapshot->settings);
	plan.inherited = &a->inherited;
	plan.may_wait = a->snapshot->settings.store.state_file[0] != '\0';
	return plan;
}

static bool open_listeners(struct agent *a)
{
	char err[512];
	struct listen_plan agent = listen_plan_agent(&a->snapshot->settings), admin = admin_plan(a);
	agent.inherited = &a->inherited;
	return (inherited_init(&a->inherited, err, sizeof err) &&
		       listeners_open(&a->listeners, &agent, err, sizeof err) &&
		       listeners_open(&a->admin_listeners, &admin, err, sizeof err) &&
		       inherited_all_taken(&a->inherited, err, sizeof err)) ||
	       fail(err);
}

/* As long as the process before this one may take to stop. */
static bool await_turn(struct agent *a)
{
	char err[1024];
	usec_t within = a->snapshot->settings.agent.drain + CONTROL_STOP_WITHIN;
	switch (turn_await(a->state_file, within, &a->state_lock, err, sizeof err)) {
	case TURN_OURS:
		return true;
	case TURN_STOPPED:
		log_info("stopped", KV_Z("why", "while another process had the state file"));
		a->is_stopped = true;
		return false;
	case TURN_NEVER:
		break;
	}
	return fail(err);
}

static bool open_awaited(struct agent *a)
{
	char err[512];
	struct listen_plan admin = admin_plan(a);
	return listeners_open_rest(&a->admin_listeners, &admin, err, sizeof err) || fail(err);
}

/* So that the key of its counters is there: who is banned from now on is known by that. */
static bool save_first(struct agent *a)
{
	char why[DISK_PATH_BYTES + 256], text[sizeof why + 256];
	if (state_save(a->store, a->state_file, clock_read(), why, sizeof why) == 0)
		return true;
	(void)snprintf(text, sizeof text,
		"%s; make room there, or let this user write it; or name another file as "
		"store.state_file (\"\": counters do not survive a restart)",
		why);
	return fail(text);
}

static bool load_state(struct agent *a)
{
	const struct settings *s = &a->snapshot->settings;
	const char *file = a->state_file;
	char message[512] = "";
	switch (state_load(file, (uint64_t)s->store.max_keys, clock_read(), &a->store, message,
		sizeof message)) {
	case STATE_LOADED:
		log_info("state_loaded", KV_Z("file", file),
			KV_INT("keys", memory_store_stats(a->store).keys));
		if (message[0])
			log_warning("state_loaded_in_part", KV_Z("why", message),
				KV_Z("hint", "copy the file now, raise store.max_keys, and start "
					     "again with the copy in its place: it is written anew "
					     "soon"));
		return true;
	case STATE_NONE:
		log_info("state_new", KV_Z("file", file));
		return save_first(a);
	case STATE_SET_ASIDE:
		log_warning("state_set_aside", KV_Z("file", file), KV_Z("why", message));
		return save_first(a);
	case STATE_UNUSABLE:
		break;
	}
	return fail(message);
}

/* The store, and the configuration again with the store's hash key where it has its own. With
 * Redis this is what stands in while that is away: it has no state file, and the configuration's
 * key. */
static bool open_store(struct agent *a)
{
	const struct settings *s = &a->snapshot->settings;
	memcpy(a->state_file, s->store.state_file, sizeof a->state_file);
	if (a->state_file[0]) {
		if (!await_turn(a) || !open_awaited(a) || !load_state(a))
			return false;
	} else {
		a->store = memory_store_new((uint64_t)s->store.max_keys,
			&a->snapshot->policy->hasher.key, clock_read());
	}
	if (!a->store)
		return fail("no memory for store.max_keys: lower it, or give the agent more");
	const struct hash_key *key = memory_store_key(a->store);
	return memcmp(key, &a->snapshot->policy->hasher.key, sizeof *key) == 0 ||
	       load_snapshot(a, key);
}

static void close_agent(struct agent *a)
{
	listeners_close(&a->listeners);
	listeners_close(&a->admin_listeners);
	inherited_fini(&a->inherited);
	state_unlock(a->state_lock);
	if (a->store)
		store_close(memory_store_base(a->store));
	if (a->log_is_open)
		log_close();
	problems_free(&a->problems);
	drop(a->snapshot);
}

static int run(const struct options *o)
{
	struct agent a = { .options = o, .state_lock = -1 };
	int status = EXIT_CONFIG;
	control_hold_signals();
	if (!load_configuration(&a))
		goto end;
	status = EXIT_START;
	if (!open_log(&a) || !open_listeners(&a) || !open_store(&a)) {
		status = a.is_stopped ? EXIT_SUCCESS : EXIT_START;
		goto end;
	}
	char err[512];
	struct control *control = control_new(
		&(struct control_args){
			.files = o->file,
			.files_n = o->files,
			.verbosity = o->verbosity,
			.snapshot = a.snapshot,
			.listeners = &a.listeners,
			.store = a.store,
			.version = VERSION,
		},
		err, sizeof err);
	if (!control) {
		(void)fail(err);
		goto end;
	}
	struct admin *admin = NULL;
	if (a.admin_listeners.n && !(admin = admin_new(control, &a.admin_listeners))) {
		(void)fail("no memory or descriptors for the admin interface: raise the limits of "
			   "the service");
		control_free(control);
		goto end;
	}
	drop(a.snapshot); /* control has it now, until a reload replaces it */
	a.snapshot = NULL;
	enum control_end ended = control_run(control); /* until SIGTERM, and the drain after it */
	if (ended == CONTROL_HANGS) {
		log_close();
		_exit(EXIT_LOST); /* not exit(): some threads still use what that would free */
	}
	admin_free(admin);
	control_free(control);
	status = ended == CONTROL_LOST ? EXIT_LOST : EXIT_SUCCESS;
end:
	close_agent(&a);
	return status;
}

/* Who started this may have closed them: what is opened next, as the state file or a listener,
 * would be written to for stderr. */
static void fill_standard(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		(void)close(fd);
}

int main(int argc, char **argv)
{
	struct options o;
	fill_standard();
	if (!load_options(argc, argv, &o))
		return EXIT_CONFIG;
	switch (o.task) {
	case TASK_HELP:
		(void)fputs(usage, stdout);
		return end_printing();
	case TASK_VERSION:
		return print_version(o.version);
	case TASK_FULL_CONFIG:
		config_write_full(stdout);
		return end_printing();
	case TASK_CHECK:
	case TASK_RUN:
		break;
	}
	if (!hash_init()) {
		(void)fail("libsodium cannot start: does this system give random numbers?");
		return EXIT_START;
	}
	return o.task == TASK_CHECK ? check_configuration(&o) : run(&o);
}
