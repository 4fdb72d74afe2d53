/* Decisions without sockets: the agent's own check_answer() on NOTIFYs made once, over and over.
 *
 *   count    how many a second; how often memory was allocated for them. Run under callgrind for
 *            two numbers of requests, the difference is what a decision costs.
 *   keys     resident memory for each key
 *   pauses   a worker decides while another thread reloads, writes the state file, sweeps: the most
 *            CPU time of one decision beside it, and the longest that any lock was held
 *
 * Allocations and locks are counted where they happen: with COUNT_ALLOCATIONS this program defines
 * malloc() and its like over the C library's, with LOCK_WATCH the hooks of base/lock.h. That is
 * built twice, so that counting locks adds nothing to the instructions of a decision. */
#include "notify.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/lock.h"
#include "config/snapshot.h"
#include "server/check.h"
#include "store/disk.h"
#include "store/memory.h"
#include "store/state.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEND_MAX = 16380, NOTIFY_MAX = 65536, SWEEP_BUDGET = 256, READY_MAX = 4096 };

struct options {
	const char *mode;
	const char *files[CONFIG_FILES_MAX];
	size_t files_n;
	const char *state_path;
	long requests, clients, max_keys, milliseconds;
};

/* What every mode works with. */
struct bench {
	struct options o;
	struct notify_form form;
	uint8_t *ready; /* owned; the NOTIFYs of up to READY_MAX clients */
	struct hash_key hash_key;
	struct memory_store *store;
	struct snapshot *snapshot;
	struct metrics metrics;
	struct checker checker;
	struct now now;
	uint32_t next_client;
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "decide: %s: %s\n", what, why);
	exit(1);
}

/* --- every allocation --- */

static _Atomic(uint64_t) allocations;

#ifdef COUNT_ALLOCATIONS
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static void count_allocation(void)
{
	atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
}

void *malloc(size_t n)
{
	count_allocation();
	return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
	count_allocation();
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
	count_allocation();
	return __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
	count_allocation();
	return __libc_memalign(alignment, n);
}

int posix_memalign(void **p, size_t alignment, size_t n)
{
	count_allocation();
	*p = __libc_memalign(alignment, n);
	return *p ? 0 : ENOMEM;
}

void free(void *p)
{
	__libc_free(p);
}
#endif

/* --- every lock of the store, of threads that ask for it --- */

static _Thread_local struct {
	bool watching;
	unsigned depth;
	usec_t since, longest;
	uint64_t n;
} holds;

#ifdef LOCK_WATCH
void lock_watch_got(void)
{
	if (holds.watching && !holds.depth++)
		holds.since = clock_thread_cpu();
}

void lock_watch_puts(void)
{
	if (!holds.watching || --holds.depth)
		return;
	usec_t t = clock_thread_cpu() - holds.since;
	holds.n++;
	if (t > holds.longest)
		holds.longest = t;
}
#endif

/* --- one decision --- */

/* A NOTIFY of the next client. Of few clients they are all made beforehand: then a decision's
 * instructions hold nothing of making it. */
static const uint8_t *next_frame(struct bench *b)
{
	static uint8_t made[2][sizeof b->form.bytes]; /* this one and the one before */
	static unsigned turn;
	uint32_t client = b->next_client++;
	if (b->next_client == (uint32_t)b->o.clients)
		b->next_client = 0;
	if (b->o.clients <= READY_MAX)
		return b->ready + client * b->form.n;
	uint8_t *frame = made[turn ^= 1];
	notify_stamp(&b->form, frame, 0, client);
	return frame;
}

/* Time goes on by a microsecond for each request: runs under callgrind are repeatable. */
static void decide_on(struct bench *b, const uint8_t *frame)
{
	static uint8_t answer[32768];
	struct notify n = { NOTIFY_ID_MIN, 1, frame + b->form.payload_at,
		b->form.n - b->form.payload_at, false };
	struct wire_writer w = { answer, answer + sizeof answer, false };
	b->now.steady++;
	b->now.utc++;
	if (check_answer(&b->checker, b->snapshot, &n, SEND_MAX, b->now, &w, NULL) !=
		CHECK_ANSWERED)
		die("check_answer", "no answer");
}

static void decide_once(struct bench *b)
{
	decide_on(b, next_frame(b));
}

/* Each check is told what comes next, as in a batch. */
static void decide_ahead(struct bench *b, long n)
{
	const uint8_t *next = next_frame(b);
	for (; n; n--) {
		const uint8_t *frame = next;
		next = next_frame(b);
		check_expect(
			&b->checker, next + b->form.payload_at, b->form.n - b->form.payload_at);
		decide_on(b, frame);
	}
	check_expect_nothing(&b->checker);
}

static uint64_t metric_sum(const struct bench *b, enum metric id)
{
	return atomic_load_explicit(&b->metrics.value[id], memory_order_relaxed);
}

static struct snapshot *load_files(const struct bench *b)
{
	struct problems p = { 0 };
	struct snapshot *s = config_load(b->o.files, b->o.files_n, &b->hash_key, 1, &p);
	for (size_t i = 0; !s && i < p.n; i++)
		fprintf(stderr, "decide: %s\n", p.message[i]);
	problems_free(&p);
	if (!s)
		die("configuration", "not usable");
	return s;
}

static void bench_init(struct bench *b)
{
	if (!hash_init() || !notify_form_init(&b->form, "check"))
		die("start", "cannot");
	b->ready = malloc(READY_MAX * b->form.n);
	if (!b->ready)
		die("start", "out of memory");
	for (uint32_t i = 0; i < READY_MAX; i++)
		notify_stamp(&b->form, b->ready + i * b->form.n, 0, i);
	hash_key_random(&b->hash_key);
	b->now = clock_read();
	b->snapshot = load_files(b);
	b->store = memory_store_new((uint64_t)b->o.max_keys, &b->hash_key, b->now);
	if (!b->store || !checker_init(&b->checker, NOTIFY_MAX, memory_store_base(b->store),
				 &b->metrics, NULL))
		die("start", "out of memory");
}

static void bench_fini(struct bench *b)
{
	free(b->ready);
	checker_fini(&b->checker);
	store_close(memory_store_base(b->store));
	if (snapshot_unref(b->snapshot))
		snapshot_free(b->snapshot);
}

/* --- count --- */

static void mode_count(struct bench *b)
{
	bench_init(b);
	uint64_t before = allocations;
	for (long i = 0; i < b->o.clients; i++) /* new keys: counted, not timed */
		decide_once(b);
	struct now start = clock_read();
	if (check_looks_ahead(&b->checker))
		decide_ahead(b, b->o.requests);
	else
		for (long i = 0; i < b->o.requests; i++)
			decide_once(b);
	double seconds = (double)(clock_read().steady - start.steady) / 1e6;
	uint64_t allocated = allocations - before;
	printf("requests=%ld\n", b->o.requests);
	printf("per_second=%.0f\n", seconds > 0 ? (double)b->o.requests / seconds : 0.0);
#ifdef COUNT_ALLOCATIONS
	printf("allocations=%" PRIu64 "\n", allocated);
#else
	(void)allocated;
#endif
	printf("denied=%" PRIu64 "\n", metric_sum(b, METRIC_checks_denied));
	printf("keys=%" PRIu64 "\n", memory_store_stats(b->store).keys);
	bench_fini(b);
}

/* --- keys --- */

static double resident_bytes(void)
{
	unsigned long size, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	if (!f || fscanf(f, "%lu %lu", &size, &resident) != 2)
		die("/proc/self/statm", "cannot be read");
	fclose(f);
	return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static void mode_keys(struct bench *b)
{
	double before = resident_bytes();
	bench_init(b);
	double made = resident_bytes();
	for (long i = 0; i < b->o.clients; i++)
		decide_once(b);
	double filled = resident_bytes();
	struct memory_stats s = memory_store_stats(b->store);
	printf("keys=%" PRIu64 "\n", s.keys);
	printf("evicted=%" PRIu64 "\n", s.evicted);
	printf("empty_bytes=%.0f\n", made - before);
	printf("filled_bytes=%.0f\n", filled - before);
	printf("bytes_per_key=%.1f\n", (filled - before) / (double)(s.keys ? s.keys : 1));
	bench_fini(b);
}

/* --- pauses --- */

/* What goes on beside the worker. Returns when one turn of it is done. */
struct chore {
	const char *name;
	void (*turn)(struct bench *);
	bool fills; /* every turn wants the keys in their place again */
};

static void turn_nothing(struct bench *b)
{
	(void)b;
	usleep(10000);
}

static void turn_reload(struct bench *b)
{
	struct snapshot *s = load_files(b);
	if (snapshot_unref(s))
		snapshot_free(s);
}

static void turn_save(struct bench *b)
{
	char err[256];
	if (state_save(b->store, b->o.state_path, b->now, err, sizeof err))
		die("state file", err);
}

/* As much to the disk, and nothing of the store: what is then the machine's own. */
static void turn_write(struct bench *b)
{
	static const char bytes[65536];
	char path[DISK_PATH_BYTES];
	struct stat state;
	if (stat(b->o.state_path, &state) < 0)
		die(b->o.state_path, strerror(errno));
	int fd = disk_open_beside(b->o.state_path, path);
	if (fd < 0)
		die(b->o.state_path, strerror(errno));
	bool ok = true;
	for (off_t left = state.st_size; ok && left > 0; left -= (off_t)sizeof bytes)
		ok = disk_write(fd, bytes, sizeof bytes);
	if (!ok || fsync(fd) < 0)
		die(path, strerror(errno));
	close(fd);
	unlink(path);
}

static void turn_sweep(struct bench *b)
{
	while (memory_store_sweep(b->store, b->now, SWEEP_BUDGET))
		;
}

static const struct chore chores[] = {
	{ "nothing", turn_nothing, false },
	{ "reload", turn_reload, false },
	{ "save", turn_save, false },
	{ "write", turn_write, false },
	{ "sweep", turn_sweep, true },
};

struct keeper {
	struct bench *b;
	const struct chore *chore;
	usec_t longest_hold, longest_turn;
	uint64_t holds;
	_Atomic(bool) done;
};

static void *keeper_main(void *arg)
{
	struct keeper *k = arg;
	usec_t end = clock_read().steady + k->b->o.milliseconds * USEC_PER_MSEC;
	holds.watching = true;
	do {
		usec_t start = clock_read().steady;
		k->chore->turn(k->b);
		usec_t t = clock_read().steady - start;
		if (t > k->longest_turn)
			k->longest_turn = t;
	} while (!k->chore->fills && clock_read().steady < end);
	k->longest_hold = holds.longest;
	k->holds = holds.n;
	k->done = true;
	return NULL;
}

/* Days go by, so that all that is there is full again and a sweep finds it. */
static void fill(struct bench *b)
{
	b->next_client = 0;
	for (long i = 0; i < b->o.clients; i++)
		decide_once(b);
	b->now.steady += 3 * USEC_PER_DAY;
	b->now.utc += 3 * USEC_PER_DAY;
}

static int by_value(const void *a, const void *b)
{
	usec_t x = *(const usec_t *)a, y = *(const usec_t *)b;
	return (x > y) - (x < y);
}

static void run_chore(struct bench *b, const struct chore *chore)
{
	enum { SAMPLES = 1 << 22 };
	usec_t *sample = malloc(SAMPLES * sizeof *sample), longest = 0;
	size_t n = 0;
	if (!sample)
		die(chore->name, "out of memory");
	if (chore->fills)
		fill(b);
	struct bench *beside = malloc(sizeof *beside);
	if (!beside)
		die(chore->name, "out of memory");
	*beside = *b; /* its own time; the store is shared */
	struct keeper k = { .b = beside, .chore = chore };
	pthread_t thread;
	if (pthread_create(&thread, NULL, keeper_main, &k))
		die(chore->name, "no thread");
	do {
		usec_t start = clock_thread_cpu();
		decide_once(b);
		usec_t t = clock_thread_cpu() - start;
		if (t > longest)
			longest = t;
		if (n < SAMPLES)
			sample[n++] = t;
	} while (!k.done);
	pthread_join(thread, NULL);
	qsort(sample, n, sizeof *sample, by_value);
	printf("%s.turn_ms=%.1f\n", chore->name, (double)k.longest_turn / 1000);
#ifdef LOCK_WATCH
	printf("%s.lock_holds=%" PRIu64 "\n", chore->name, k.holds);
	printf("%s.lock_hold_max_us=%" PRId64 "\n", chore->name, k.longest_hold);
#endif
	printf("%s.decisions=%zu\n", chore->name, n);
	printf("%s.decision_cpu_p9999_us=%" PRId64 "\n", chore->name, sample[n - 1 - n / 10000]);
	printf("%s.decision_cpu_max_us=%" PRId64 "\n", chore->name, longest);
	free(beside);
	free(sample);
}

static void mode_pauses(struct bench *b)
{
	bench_init(b);
	fill(b);
	printf("keys=%" PRIu64 "\n", memory_store_stats(b->store).keys);
	for (size_t i = 0; i < sizeof chores / sizeof *chores; i++)
		run_chore(b, &chores[i]);
	bench_fini(b);
}

/* --- the command line --- */

static const char usage[] =
	"usage: decide count|keys|pauses --file CONFIG [--file CONFIG...] [options]\n"
	"  --requests N      count: how many (100000)\n"
	"  --clients N       distinct clients, in turn (1000)\n"
	"  --max-keys N      of the store (1000000)\n"
	"  --state PATH      pauses: the state file to write\n"
	"  --ms N            pauses: how long each goes on (2000)\n";

static long number(const char *option, const char *text, long min, long max)
{
	char *end;
	errno = 0;
	long v = strtol(text, &end, 10);
	if (errno || end == text || *end || v < min || v > max) {
		fprintf(stderr, "decide: --%s %s: want %ld..%ld\n", option, text, min, max);
		exit(1);
	}
	return v;
}

static struct options options_read(int argc, char **argv)
{
	static const struct option known[] = { { "file", 1, 0, 'f' }, { "requests", 1, 0, 'n' },
		{ "clients", 1, 0, 'k' }, { "max-keys", 1, 0, 'm' }, { "state", 1, 0, 's' },
		{ "ms", 1, 0, 't' }, { 0 } };
	struct options o = { NULL, { 0 }, 0, NULL, 100000, 1000, 1000000, 2000 };
	int c, i;
	while ((c = getopt_long(argc, argv, "", known, &i)) != -1) {
		switch (c) {
		case 'f':
			if (o.files_n < CONFIG_FILES_MAX)
				o.files[o.files_n++] = optarg;
			break;
		case 'n':
			o.requests = number(known[i].name, optarg, 1, 1000000000);
			break;
		case 'k':
			o.clients = number(known[i].name, optarg, 1, NOTIFY_CLIENTS_MAX);
			break;
		case 'm':
			o.max_keys = number(known[i].name, optarg, 1, 100000000);
			break;
		case 's':
			o.state_path = optarg;
			break;
		case 't':
			o.milliseconds = number(known[i].name, optarg, 1, 60000);
			break;
		default:
			optind = argc;
		}
	}
	if (optind == argc - 1 && o.files_n)
		o.mode = argv[optind];
	return o;
}

int main(int argc, char **argv)
{
	static struct bench b;
	static const struct {
		const char *name;
		void (*run)(struct bench *);
	} modes[] = { { "count", mode_count }, { "keys", mode_keys }, { "pauses", mode_pauses } };
	b.o = options_read(argc, argv);
	for (size_t i = 0; b.o.mode && i < sizeof modes / sizeof *modes; i++) {
		if (!strcmp(modes[i].name, b.o.mode)) {
			if (!b.o.state_path && modes[i].run == mode_pauses)
				die("pauses", "want --state PATH");
			modes[i].run(&b);
			return 0;
		}
	}
	fputs(usage, stderr);
	return 1;
}
