/* A Redis store on a loop of its own, a real redis-server, and those who ask it: what the tests of
 * the store share. Every check is answered exactly once, never from inside store_take(), and within
 * its deadline.
 *
 * How long a machine takes is no matter of these tests. A deadline is kept where the turn of the
 * loop that begins after it leaves nobody waiting (turn()); whoever is to be answered by Redis has
 * a deadline that no machine misses (PATIENT); and what is to come is waited for (UNTIL()). */
#ifndef TEST_STORE_REDIS_RIG_H
#define TEST_STORE_REDIS_RIG_H

#include "rig.h"
#include "ports.h"
#include "store/redis.h"
#include "store/redis_hub.h"

#include <ev.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT (20 * USEC_PER_MSEC) /* where it is to pass */
#define PATIENT (60 * USEC_PER_SEC)  /* where it is not */
#define BOUND   (120 * USEC_PER_SEC) /* of what has to come */

/* ---- servers ---- */

static char folder[] = "/tmp/test-redis-store-XXXXXX", path[64];
static pid_t server;

static inline pid_t child(void (*run)(void))
{
	pid_t parent = getpid(), pid = fork();
	assert_true(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent)
		run();
	_exit(127);
}

static const char *server_args[8]; /* beyond the usual ones */

static inline void run_server(void)
{
	const char *argv[32] = { "redis-server", "--port", "0", "--unixsocket", path, "--dir",
		folder, "--save", "", "--appendonly", "no", "--loglevel", "warning" };
	unsigned n = 13;
	int null = open("/dev/null", O_RDWR);

	for (unsigned i = 0; server_args[i]; i++)
		argv[n++] = server_args[i];
	dup2(null, 0);
	dup2(null, 1);
	execvp(argv[0], (char **)(uintptr_t)argv);
}

static inline redisContext *admin(void)
{
	for (usec_t end = clock_steady() + BOUND; clock_steady() < end; usleep(2000)) {
		redisContext *c = redisConnectUnix(path);
		if (c && !c->err)
			return c;
		redisFree(c);
	}
	fail_msg("nobody listens on %s", path);
	return NULL;
}

__attribute__((format(printf, 1, 2))) static inline void tell(const char *format, ...)
{
	redisContext *c = admin();
	va_list args;
	va_start(args, format);
	redisReply *r = redisvCommand(c, format, args);
	va_end(args);
	assert_non_null(r);
	if (r->type == REDIS_REPLY_ERROR)
		fail_msg("%s: %s", format, r->str);
	freeReplyObject(r);
	redisFree(c);
}

static inline void server_start(void)
{
	server = child(run_server);
	redisFree(admin());
}

static inline void server_stop(void)
{
	if (server) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	server = 0;
	(void)unlink(path);
}

/* ---- a store and those who ask it ---- */

static struct ev_loop *loop;
static ev_timer tick; /* no turn of the loop sleeps for longer */
static struct redis_hub *hub;
static struct memory_store *memory;
static struct redis_store *store;
static struct redis_settings settings;
static struct redis_hub_settings where;
static struct redis_host hosts[4];

static struct rig_limit limit;
static bool in_take;

struct asked {
	struct plan plan;
	usec_t at;
	unsigned done;
};

enum { ASKED_MAX = 8192 };
static struct asked asked[ASKED_MAX];
static unsigned asked_n, oldest; /* oldest: all before it are answered */

static unsigned chain; /* how many answers are followed by another question at once */
static inline struct asked *ask(uint64_t id, int64_t cost);

static inline void on_done(struct plan *plan)
{
	struct asked *a = (struct asked *)plan;
	assert_false(in_take);
	a->done++;
	if (chain) {
		chain--;
		(void)ask(chain, 1);
	}
}

static inline struct asked *ask(uint64_t id, int64_t cost)
{
	assert_true(asked_n < ASKED_MAX);
	struct asked *a = &asked[asked_n++];
	*a = (struct asked){ .plan.done = on_done };
	rig_plan_add(&a->plan, &limit, id, cost);
	a->at = clock_steady();
	in_take = true;
	if (store_take(redis_store_base(store), &a->plan, clock_read()) == STORE_DONE)
		a->done++;
	in_take = false;
	return a;
}

static inline void on_nothing(struct ev_loop *l, ev_timer *t, int revents)
{
	(void)l;
	(void)t;
	(void)revents;
}

/* One turn of the loop. Whose deadline was over when it began is not left waiting by it, however
 * long it takes. */
static inline void turn(void)
{
	usec_t began = clock_steady();

	ev_run(loop, EVRUN_ONCE);
	while (oldest < asked_n && asked[oldest].done)
		oldest++;
	if (oldest < asked_n && asked[oldest].at + settings.timeout <= began)
		fail_msg("check %u waits for longer than its deadline", oldest);
}

static inline void run_for(usec_t time)
{
	usec_t end = clock_steady() + time;

	do
		turn();
	while (clock_steady() < end);
}

#define UNTIL(it_is_so) \
	for (usec_t give_up = clock_steady() + BOUND; !(it_is_so); turn()) \
		if (clock_steady() > give_up) \
			fail_msg("never: %s", #it_is_so);

static inline bool is_well(void)
{
	return !atomic_load(&redis_store_stats(store)->degraded);
}

static inline void wait_well(void)
{
	UNTIL(is_well());
}

/* Nobody waits any more, and nobody is answered twice. */
static inline void settle(void)
{
	UNTIL(redis_store_waiting(store) == 0);
	run_for(2 * USEC_PER_MSEC);
}

/* All were answered, once. Returns how many by Redis. */
static inline unsigned all_answered(void)
{
	unsigned by_redis = 0;
	for (unsigned i = 0; i < asked_n; i++) {
		struct asked *a = &asked[i];
		if (a->done != 1)
			fail_msg("check %u was answered %u times", i, a->done);
		by_redis += !a->plan.degraded;
	}
	assert_int_equal(redis_store_waiting(store), 0);
	asked_n = oldest = 0;
	return by_redis;
}

/* Others ask, one after the other, until Redis is seen to work or not to work. (What is remembered
 * of one who was denied would not show it.) */
static inline void ask_until(bool well)
{
	static uint64_t other = 1000000;

	for (usec_t give_up = clock_steady() + BOUND; is_well() != well;) {
		if (clock_steady() > give_up)
			fail_msg("it never is %s", well ? "well" : "away");
		(void)ask(other++, 1);
		settle();
		(void)all_answered();
	}
}

/* Nobody waits when it changes. */
static inline void set_timeout(usec_t timeout)
{
	assert_int_equal(redis_store_waiting(store), 0);
	settings.timeout = timeout;
	redis_store_set_timeout(store, timeout);
}

#define COUNT(name) atomic_load(&redis_store_stats(store)->name)

static inline void open_store(void)
{
	char err[200] = "";
	loop = ev_loop_new(EVFLAG_AUTO);
	hub = redis_hub_new(&where, loop, err, sizeof err);
	if (!hub)
		fail_msg("%s", err);
	memory = rig_store(10000, clock_read());
	store = redis_store_new(&settings, hub, memory, loop);
	assert_non_null(store);
	ev_timer_init(&tick, on_nothing, 0.0005, 0.0005);
	ev_timer_start(loop, &tick);
}

static inline void close_store(void)
{
	store_close(redis_store_base(store));
	redis_hub_free(hub);
	rig_close(memory);
	ev_timer_stop(loop, &tick);
	ev_loop_destroy(loop);
}

static inline int begin(void **state)
{
	(void)state;
	asked_n = oldest = chain = 0;
	memset(server_args, 0, sizeof server_args);
	settings = (struct redis_settings){ .prefix = "rl:", .timeout = PATIENT };
	memset(hosts, 0, sizeof hosts);
	memcpy(hosts[0].host, path, sizeof path);
	where = (struct redis_hub_settings){ .server = hosts, .server_n = 1 };
	rig_limit(&limit, ALGORITHM_TOKEN_BUCKET, 3, 3600 * USEC_PER_SEC, 3);
	limit.limit.local = &limit.limit;
	return 0;
}

static inline int end(void **state)
{
	(void)state;
	server_stop();
	release_ports();
	return 0;
}

static inline void set_limit(int64_t units)
{
	rig_limit(&limit, ALGORITHM_TOKEN_BUCKET, units, 3600 * USEC_PER_SEC, units);
	limit.limit.local = &limit.limit;
}

/* ---- a program of tests ---- */

#define REDIS_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

/* A folder for the servers, and whoever writes to one that has gone does not end by it. */
static inline bool tests_begin(int argc, char **argv)
{
	(void)signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(folder))
		return false;
	snprintf(path, sizeof path, "%s/redis", folder);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return true;
}

static inline void tests_end(void)
{
	server_stop();
	char dump[80]; /* what a replica gets from its master goes by way of the disk */
	snprintf(dump, sizeof dump, "%s/dump.rdb", folder);
	(void)unlink(dump);
	(void)rmdir(folder);
}

#endif
