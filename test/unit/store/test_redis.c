/* The Redis store against a real redis-server, and against fake ones that misbehave. Every check is
 * answered exactly once, never from inside store_take(), and within its deadline.
 *
 * How long a machine takes is no matter of these tests. A deadline is kept where the turn of the
 * loop that begins after it leaves nobody waiting (turn()); whoever is to be answered by Redis has
 * a deadline that no machine misses (PATIENT); and what is to come is waited for (UNTIL()). */
#include "base/log.h"
#include "rig.h"
#include "ports.h"
#include "store/redis.h"
#include "store/redis_hub.h"
#include "store/redis_script.h"

#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT (20 * USEC_PER_MSEC) /* where it is to pass */
#define PATIENT (60 * USEC_PER_SEC)  /* where it is not */
#define BOUND   (120 * USEC_PER_SEC) /* of what has to come */

/* ---- servers ---- */

static char folder[] = "/tmp/test-redis-store-XXXXXX", path[64];
static pid_t server;

static pid_t child(void (*run)(void))
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

static void run_server(void)
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

static redisContext *admin(void)
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

__attribute__((format(printf, 1, 2))) static void tell(const char *format, ...)
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

static void server_start(void)
{
	server = child(run_server);
	redisFree(admin());
}

static void server_stop(void)
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
static struct asked *ask(uint64_t id, int64_t cost);

static void on_done(struct plan *plan)
{
	struct asked *a = (struct asked *)plan;
	assert_false(in_take);
	a->done++;
	if (chain) {
		chain--;
		(void)ask(chain, 1);
	}
}

static struct asked *ask(uint64_t id, int64_t cost)
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

static void on_nothing(struct ev_loop *l, ev_timer *t, int revents)
{
	(void)l;
	(void)t;
	(void)revents;
}

/* One turn of the loop. Whose deadline was over when it began is not left waiting by it, however
 * long it takes. */
static void turn(void)
{
	usec_t began = clock_steady();

	ev_run(loop, EVRUN_ONCE);
	while (oldest < asked_n && asked[oldest].done)
		oldest++;
	if (oldest < asked_n && asked[oldest].at + settings.timeout <= began)
		fail_msg("check %u waits for longer than its deadline", oldest);
}

static void run_for(usec_t time)
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

static bool is_well(void)
{
	return !atomic_load(&redis_store_stats(store)->degraded);
}

static void wait_well(void)
{
	UNTIL(is_well());
}

/* Nobody waits any more, and nobody is answered twice. */
static void settle(void)
{
	UNTIL(redis_store_waiting(store) == 0);
	run_for(2 * USEC_PER_MSEC);
}

/* All were answered, once. Returns how many by Redis. */
static unsigned all_answered(void)
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
static void ask_until(bool well)
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
static void set_timeout(usec_t timeout)
{
	assert_int_equal(redis_store_waiting(store), 0);
	settings.timeout = timeout;
	redis_store_set_timeout(store, timeout);
}

#define COUNT(name) atomic_load(&redis_store_stats(store)->name)

static void open_store(void)
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

static void close_store(void)
{
	store_close(redis_store_base(store));
	redis_hub_free(hub);
	rig_close(memory);
	ev_timer_stop(loop, &tick);
	ev_loop_destroy(loop);
}

static int begin(void **state)
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

static int end(void **state)
{
	(void)state;
	server_stop();
	release_ports();
	return 0;
}

static void set_limit(int64_t units)
{
	rig_limit(&limit, ALGORITHM_TOKEN_BUCKET, units, 3600 * USEC_PER_SEC, units);
	limit.limit.local = &limit.limit;
}

/* ---- it works ---- */

static void test_answers(void **state)
{
	(void)state;
	server_start();
	open_store();
	assert_int_equal(ask(7, 1)->done, 1); /* nobody there yet: answered at once */
	assert_true(asked[0].plan.degraded);
	asked_n = oldest = 0;
	wait_well();
	for (unsigned i = 0; i < 5; i++) {
		struct asked *a = ask(7, 1);
		settle();
		assert_int_equal(a->done, 1);
		assert_false(a->plan.degraded);
		assert_int_equal(a->plan.denied, i >= 3);
		assert_true(a->plan.now.utc > 1600000000 * USEC_PER_SEC);
	}
	assert_int_equal(all_answered(), 5);
	/* In one turn: in order, and all in one call. */
	uint64_t calls = COUNT(calls);
	for (unsigned i = 0; i < 5; i++)
		(void)ask(8, 1);
	settle();
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(asked[i].plan.denied, i >= 3);
	assert_int_equal(all_answered(), 5);
	assert_int_equal(COUNT(calls), calls + 1);
	/* A plan without takes asks nobody. */
	struct plan empty = { .done = on_done };
	assert_int_equal(store_take(redis_store_base(store), &empty, clock_read()), STORE_DONE);
	assert_false(empty.denied);
	close_store();
}

static void test_many(void **state)
{
	(void)state;
	server_start();
	set_limit(1000);
	open_store();
	wait_well();
	unsigned denied = 0;
	for (unsigned i = 0; i < 4000; i++)
		(void)ask(i % 2, 1);
	settle();
	for (unsigned i = 0; i < 4000; i++) {
		assert_int_equal(asked[i].done, 1);
		denied += asked[i].plan.denied;
	}
	assert_int_equal(denied, 2000);
	assert_int_equal(COUNT(answered), 4000);
	assert_int_equal(COUNT(refused), 0);
	/* More than can wait: the rest is answered at once. */
	asked_n = oldest = 0;
	for (unsigned i = 0; i < 6000; i++)
		(void)ask(i, 1);
	assert_true(COUNT(refused) > 0);
	settle();
	for (unsigned i = 0; i < 6000; i++)
		assert_int_equal(asked[i].done, 1);
	close_store();
}

static void test_script_flush(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	for (unsigned i = 0; i < 20; i++) {
		tell("SCRIPT FLUSH");
		(void)ask(i, 1);
		if (i % 2) /* several calls under way */
			run_for(100);
		(void)ask(i, 1);
		settle();
	}
	assert_int_equal(all_answered(), 40);
	assert_true(COUNT(scripts_sent) >= 20);
	assert_int_equal(COUNT(breaks), 0);
	close_store();
}

static void test_who(void **state)
{
	(void)state;
	server_start();
	tell("ACL SETUSER rl on >secret resetkeys ~rl:* -@all +evalsha +script|load +time +mget +set +setrange "
	     "+auth +select +ping");
	tell("ACL SETUSER default on >other");
	snprintf(settings.username, sizeof settings.username, "rl");
	snprintf(settings.password, sizeof settings.password, "secret");
	settings.db = 3;
	open_store();
	wait_well();
	(void)ask(1, 1);
	settle();
	assert_int_equal(all_answered(), 1);
	close_store();

	redisContext *c = admin();
	freeReplyObject(redisCommand(c, "AUTH other"));
	freeReplyObject(redisCommand(c, "SELECT 3"));
	redisReply *r = redisCommand(c, "DBSIZE");
	assert_int_equal(r->integer, 1);
	freeReplyObject(r);
	redisFree(c);

	/* The wrong one, and none. */
	for (unsigned i = 0; i < 2; i++) {
		snprintf(settings.password, sizeof settings.password, i ? "" : "wrong");
		settings.username[0] = '\0';
		open_store();
		UNTIL(COUNT(connects_failed) >= 2);
		assert_false(is_well());
		assert_int_equal(COUNT(connects), 0);
		assert_int_equal(ask(1, 1)->done, 1);
		assert_int_equal(all_answered(), 0);
		close_store();
	}
}

/* ---- it is away ---- */

static void test_client_kill(void **state)
{
	(void)state;
	server_start();
	open_store();
	for (unsigned i = 0; i < 5; i++) {
		wait_well();
		(void)ask(i, 1);
		tell("CLIENT KILL TYPE normal SKIPME yes");
		(void)ask(i, 1);
		settle();
		(void)ask(i, 1);
		settle();
		(void)all_answered();
	}
	wait_well();
	assert_true(COUNT(connects) >= 6);
	close_store();
}

static void test_stopped(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	for (unsigned round = 0; round < 2; round++) {
		set_timeout(TIMEOUT);
		kill(server, SIGSTOP);
		for (unsigned i = 0; i < 300; i++) {
			(void)ask(i, 1);
			run_for(USEC_PER_MSEC);
		}
		assert_false(is_well());
		/* The breaker is open: nobody waits. */
		struct asked *a = ask(1, 1);
		assert_int_equal(a->done, 1);
		assert_true(a->plan.degraded);
		settle();
		assert_int_equal(all_answered(), 0);
		set_timeout(PATIENT);
		kill(server, SIGCONT);
		wait_well();
		(void)ask(1000 + round, 1);
		settle();
		assert_int_equal(all_answered(), 1);
	}
	assert_true(COUNT(breaks) >= 2);
	/* What hangs is given up for another. */
	assert_true(COUNT(connects) >= 3);
	close_store();
}

static void test_killed(void **state)
{
	(void)state;
	server_start();
	open_store();
	for (unsigned round = 0; round < 3; round++) {
		wait_well();
		for (unsigned i = 0; i < 50; i++)
			(void)ask(i, 1);
		run_for(50);
		server_stop();
		for (unsigned i = 0; i < 100; i++) {
			(void)ask(i, 1);
			run_for(USEC_PER_MSEC);
		}
		assert_false(is_well());
		settle();
		(void)all_answered();
		server_start();
	}
	wait_well();
	(void)ask(1, 1);
	settle();
	assert_int_equal(all_answered(), 1);
	close_store();
}

/* Those who ask again as soon as they are answered, whatever answers them. */
static void test_chained(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	for (unsigned round = 0; round < 4; round++) {
		if (round == 1)
			set_timeout(TIMEOUT);
		chain = 300;
		for (unsigned i = 0; i < 100; i++)
			(void)ask(1000 + i, 1);
		run_for(100);
		if (round == 1) /* deadlines, and the breaker */
			kill(server, SIGSTOP);
		if (round == 2) /* lost */
			server_stop();
		run_for(200 * USEC_PER_MSEC);
		chain = 0;
		settle();
		(void)all_answered();
		set_timeout(PATIENT);
		if (round == 1)
			kill(server, SIGCONT);
		if (round == 2)
			server_start();
		wait_well();
	}
	chain = 50;
	for (unsigned i = 0; i < 100; i++)
		(void)ask(2000 + i, 1);
	unsigned first = asked_n;
	close_store();
	assert_int_equal(asked_n, first + 50);
	for (unsigned i = 0; i < asked_n; i++)
		assert_int_equal(asked[i].done, 1);
}

static void test_away_at_start(void **state)
{
	(void)state;
	open_store();
	run_for(200 * USEC_PER_MSEC);
	(void)ask(1, 1);
	assert_int_equal(all_answered(), 0);
	server_start();
	wait_well();
	close_store();
}

/* What was charged before the failure is known after it. */
static void test_kept_warm(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	for (unsigned i = 0; i < 3; i++)
		(void)ask(5, 1);
	settle();
	assert_int_equal(all_answered(), 3);
	server_stop();
	UNTIL(!is_well());
	struct asked *a = ask(5, 1);
	assert_true(a->plan.degraded);
	assert_true(a->plan.denied);
	assert_false(ask(6, 1)->plan.denied);
	(void)all_answered();
	close_store();
}

static void test_closed_in_flight(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	kill(server, SIGSTOP);
	for (unsigned i = 0; i < 300; i++)
		(void)ask(i, 1);
	run_for(2 * USEC_PER_MSEC);
	for (unsigned i = 0; i < 300; i++)
		(void)ask(i, 1);
	assert_int_equal(redis_store_waiting(store), 600);
	close_store();
	for (unsigned i = 0; i < 600; i++) {
		assert_int_equal(asked[i].done, 1);
		assert_true(asked[i].plan.degraded);
	}
	/* Settled first, replies that come later harm nobody. */
	asked_n = oldest = 0;
	kill(server, SIGCONT);
	open_store();
	wait_well();
	kill(server, SIGSTOP);
	for (unsigned i = 0; i < 100; i++)
		(void)ask(i, 1);
	run_for(USEC_PER_MSEC);
	redis_store_settle(store);
	assert_int_equal(all_answered(), 0);
	kill(server, SIGCONT);
	settle();
	(void)ask(1000, 1);
	settle();
	assert_int_equal(all_answered(), 1);
	close_store();
}

/* ---- it says no ---- */

static void fails_until(const char *cure)
{
	ask_until(false);
	/* Every few tries one check asks; the others do not wait. */
	for (unsigned i = 0; i < 300; i++) {
		(void)ask(1, 1);
		run_for(USEC_PER_MSEC);
		assert_false(is_well());
	}
	settle();
	assert_int_equal(all_answered(), 0);
	redisContext *c = admin();
	redisReply *r = redisCommand(c, cure);
	assert_non_null(r);
	freeReplyObject(r);
	redisFree(c);
	ask_until(true);
	(void)ask(3, 1);
	settle();
	assert_int_equal(all_answered(), 1);
}

static void test_errors(void **state)
{
	(void)state;
	static const struct {
		const char *ill, *cure;
	} row[] = {
		{ "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0" },
		{ "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE" },
		{ "ACL SETUSER default -evalsha", "ACL SETUSER default +evalsha" },
		{ "ACL SETUSER default resetkeys ~other:*", "ACL SETUSER default ~*" },
		{ "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0" },
	};
	server_start();
	open_store();
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		wait_well();
		redisContext *c = admin();
		redisReply *r = redisCommand(c, row[i].ill);
		assert_non_null(r);
		assert_int_not_equal(r->type, REDIS_REPLY_ERROR);
		freeReplyObject(r);
		redisFree(c);
		fails_until(row[i].cure);
	}
	close_store();
}

static void run_slow_script(void)
{
	redisContext *c = admin();
	redisReply *r = redisCommand(c, "EVAL %s 0", "while true do end");
	freeReplyObject(r);
	_exit(0);
}

static void test_busy(void **state)
{
	(void)state;
	server_args[0] = "--lua-time-limit";
	server_args[1] = "50";
	server_start();
	open_store();
	wait_well();
	pid_t slow = child(run_slow_script);
	ask_until(false);
	for (unsigned i = 0; i < 300; i++) {
		(void)ask(1, 1);
		run_for(USEC_PER_MSEC);
	}
	settle();
	(void)all_answered();
	assert_false(is_well());
	tell("SCRIPT KILL");
	waitpid(slow, NULL, 0);
	ask_until(true);
	close_store();
}

/* Whatever lies at a key that is no bucket counts as never seen, and is overwritten. */
static void test_wrong_type(void **state)
{
	(void)state;
	server_start();
	open_store();
	wait_well();
	(void)ask(9, 1);
	settle();
	redisContext *c = admin();
	redisReply *keys = redisCommand(c, "KEYS *");
	assert_int_equal(keys->elements, 1);
	freeReplyObject(redisCommand(c, "DEL %s", keys->element[0]->str));
	freeReplyObject(redisCommand(c, "LPUSH %s x", keys->element[0]->str));
	for (unsigned i = 0; i < 4; i++)
		(void)ask(9, 1);
	settle();
	assert_true(asked[4].plan.denied);
	assert_int_equal(all_answered(), 5);
	redisReply *type = redisCommand(c, "TYPE %s", keys->element[0]->str);
	assert_string_equal(type->str, "string");
	freeReplyObject(type);
	freeReplyObject(keys);
	redisFree(c);
	close_store();
}

/* ---- peers that are no Redis ---- */

static const char *on_connect, *on_load, *on_call; /* NULL: silence; "": closes */
static size_t on_call_bytes;
static useconds_t on_call_after;
static _Atomic(unsigned) *asked_for_master; /* times; it is shared with the fake */

static bool has(const char *p, size_t n, const char *word)
{
	return memmem(p, n, word, strlen(word)) != NULL;
}

static bool say(int fd, const char *text, size_t n)
{
	if (!text)
		return true;
	return n && write(fd, text, n) == (ssize_t)n;
}

static void serve(int fd)
{
	static char in[65536];
	ssize_t n;

	if (on_connect && !say(fd, on_connect, strlen(on_connect)))
		return;
	while ((n = read(fd, in, sizeof in)) > 0) {
		if (has(in, (size_t)n, "PING") && !say(fd, "+PONG\r\n", 7))
			return;
		if (has(in, (size_t)n, "SCRIPT") &&
			!say(fd, on_load, on_load ? strlen(on_load) : 0))
			return;
		if (has(in, (size_t)n, "EVALSHA"))
			usleep(on_call_after);
		*asked_for_master += has(in, (size_t)n, "get-master-addr");
		if ((has(in, (size_t)n, "EVALSHA") || has(in, (size_t)n, "get-master-addr")) &&
			!say(fd, on_call, on_call_bytes))
			return;
	}
}

static void run_fake(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(a.sun_path, path, sizeof path);
	(void)unlink(path);
	if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 100))
		_exit(1);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		serve(fd);
		close(fd);
	}
}

static char sha_reply[64];

static void fake_start(const char *connect, const char *load, const char *call, size_t call_bytes)
{
	snprintf(sha_reply, sizeof sha_reply, "$40\r\n%s\r\n", redis_script_sha1);
	on_connect = connect;
	on_load = load;
	on_call = call;
	on_call_bytes = call_bytes;
	*asked_for_master = 0;
	server = child(run_fake);
	redisFree(admin());
}

static void lives_with(const char *connect, const char *load, const char *call, size_t call_bytes)
{
	server_stop();
	fake_start(connect, load, call, call_bytes);
	settings.timeout = TIMEOUT;
	open_store();
	for (unsigned i = 0; i < 150; i++) {
		(void)ask(i, 1);
		run_for(USEC_PER_MSEC);
	}
	settle();
	(void)all_answered();
	close_store();
}

#define EIGHT "$8\r\n\0\0\0\0\0\0\6\0\r\n"

static void test_nonsense(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t n;
	} say_this[] = {
#define SAY(text) { text, sizeof(text) - 1 }
		SAY(""),
		SAY("HTTP/1.1 400 Bad Request\r\n\r\n"),
		SAY("+OK\r\n"),
		SAY("+OK\r\n+OK\r\n+OK\r\n"),
		SAY("*2147483647\r\n"),
		SAY("*1000000\r\n"),
		SAY("*64\r\n*64\r\n*64\r\n*64\r\n*64\r\n*64\r\n"),
		SAY("$999999999999\r\nxxxx"),
		SAY("$-1\r\n"),
		SAY("*-1\r\n"),
		SAY("*0\r\n"),
		SAY(":1\r\n"),
		SAY("$0\r\n\r\n"),
		SAY("-LOADING Redis is loading the dataset in memory\r\n"),
		SAY("-NOSCRIPT No matching script\r\n"),
		SAY("-\r\n"),
		SAY("\0\0\0\0"),
		SAY(EIGHT "+OK\r\n"),
		SAY(EIGHT EIGHT EIGHT),
		SAY("$8\r\n\xff\xff\xff\xff\xff\xff\xff\xff\r\n"),
	};

	for (unsigned i = 0; i < sizeof say_this / sizeof *say_this; i++) {
		const char *text = say_this[i].text;
		if (strlen(text) == say_this[i].n) {
			lives_with(text, sha_reply, EIGHT, sizeof EIGHT - 1);
			lives_with(NULL, text, EIGHT, sizeof EIGHT - 1);
		}
		lives_with(NULL, sha_reply, text, say_this[i].n);
	}
	lives_with(NULL, NULL, NULL, 0);                      /* never a word */
	lives_with(NULL, sha_reply, NULL, 0);                 /* none after the handshake */
	lives_with(NULL, sha_reply, EIGHT, sizeof EIGHT - 1); /* to probes only */

	/* An endless line, an endless string. */
	static char flood[300000];
	memset(flood, 'x', sizeof flood - 1);
	flood[0] = '-';
	lives_with(NULL, sha_reply, flood, sizeof flood - 1);
	memcpy(flood, "$290000\r\n", 9);
	lives_with(NULL, sha_reply, flood, sizeof flood - 1);
	lives_with(NULL, flood, NULL, 0);
}

/* One that answers well, but later than anyone waits for, is as good as away. */
static void test_slow(void **state)
{
	(void)state;
	settings.timeout = TIMEOUT;
	for (on_call_after = 40000; on_call_after <= 160000; on_call_after += 120000) {
		server_stop();
		fake_start(NULL, sha_reply, EIGHT, sizeof EIGHT - 1);
		open_store();
		for (unsigned i = 0; i < 500; i++) {
			assert_int_equal(ask(i, 1)->done, 1);
			run_for(USEC_PER_MSEC);
			assert_false(is_well());
		}
		UNTIL(COUNT(connects) >= 1);
		assert_false(is_well());
		assert_int_equal(all_answered(), 0);
		close_store();
	}
	on_call_after = 0;
}

/* ---- names ---- */

static void test_names(void **state)
{
	(void)state;
	char port[8];

	/* One that nobody knows: nothing waits for it. */
	snprintf(hosts[0].host, sizeof hosts[0].host, "no-such-name.invalid");
	hosts[0].port = 6379;
	open_store();
	run_for(50 * USEC_PER_MSEC);
	assert_int_equal(ask(1, 1)->done, 1);
	assert_int_equal(all_answered(), 0);
	close_store();

	/* localhost has one address or two, and only one of them has a server. */
	hosts[0].port = reserve_port();
	snprintf(port, sizeof port, "%u", hosts[0].port);
	snprintf(hosts[0].host, sizeof hosts[0].host, "localhost");
	server_args[0] = "--port";
	server_args[1] = port;
	server_args[2] = "--bind";
	server_args[3] = "127.0.0.1";
	server_start();
	open_store();
	wait_well();
	(void)ask(1, 1);
	settle();
	assert_int_equal(all_answered(), 1);
	close_store();

	/* Refused: two servers, no port. */
	char err[200];
	loop = ev_loop_new(EVFLAG_AUTO);
	where.server_n = 2;
	assert_null(redis_hub_new(&where, loop, err, sizeof err));
	where.server_n = 1;
	hosts[0].port = 0;
	assert_null(redis_hub_new(&where, loop, err, sizeof err));
	ev_loop_destroy(loop);
}

/* ---- sentinels ---- */

static const char *tcp_args[16];

static void run_tcp(void)
{
	int null = open("/dev/null", O_RDWR);
	dup2(null, 0);
	dup2(null, 1);
	execvp(tcp_args[0], (char **)(uintptr_t)tcp_args);
}

static pid_t tcp_start(const char *port, const char *master_port)
{
	char of[32];
	snprintf(of, sizeof of, "127.0.0.1 %s", master_port ? master_port : "");
	const char *args[] = { "redis-server", "--bind", "127.0.0.1", "--port", port, "--dir",
		folder, "--save", "", "--repl-diskless-sync-delay", "0",
		master_port ? "--replicaof" : NULL, of, NULL };
	memcpy(tcp_args, args, sizeof args);
	return child(run_tcp);
}

static pid_t sentinel_start(const char *port, const char *master_port, const char *config)
{
	FILE *f = fopen(config, "w");
	assert_non_null(f);
	fprintf(f,
		"bind 127.0.0.1\nport %s\ndir %s\nsentinel monitor mine 127.0.0.1 %s 1\n"
		/* On a busy machine nobody is taken for dead: it fails over when it is told to. */
		"sentinel down-after-milliseconds mine 120000\n"
		"sentinel failover-timeout mine 120000\n",
		port, folder, master_port);
	fclose(f);
	const char *args[] = { "redis-server", config, "--sentinel", NULL };
	memcpy(tcp_args, args, sizeof args);
	return child(run_tcp);
}

static void kill_child(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Asks until it says so. */
static void wait_for_word(unsigned port, const char *command, const char *word)
{
	for (usec_t end = clock_steady() + BOUND; clock_steady() < end; usleep(10000)) {
		redisContext *c = redisConnect("127.0.0.1", (int)port);
		redisReply *r = c->err ? NULL : redisCommand(c, command);
		bool found = r && r->type != REDIS_REPLY_ERROR && r->str && strstr(r->str, word);
		freeReplyObject(r);
		redisFree(c);
		if (found)
			return;
	}
	fail_msg("%s never says %s", command, word);
}

/* One sentinel that works, one that is dead, one that names a server that is none, one that names
 * no address at all. */
static void test_sentinels(void **state)
{
	(void)state;
	static const char nowhere[] = "*2\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n";
	char port[4][8], config[80];
	uint16_t number[4];

	for (unsigned i = 0; i < 4; i++) {
		number[i] = reserve_port();
		snprintf(port[i], sizeof port[i], "%u", (unsigned)number[i]);
	}
	snprintf(config, sizeof config, "%s/sentinel.conf", folder);
	pid_t master = tcp_start(port[0], NULL), replica = tcp_start(port[1], port[0]);
	wait_for_word(number[1], "INFO replication", "master_link_status:up");
	pid_t sentinel = sentinel_start(port[2], port[0], config);
	wait_for_word(number[2], "INFO sentinel", "slaves=1");
	fake_start(NULL, NULL, nowhere, sizeof nowhere - 1);

	where.mode = REDIS_SENTINEL;
	where.server_n = 3;
	snprintf(where.master, sizeof where.master, "mine");
	memcpy(hosts[1].host, "127.0.0.1", 10);
	hosts[1].port = number[2];
	memcpy(hosts[2].host, "127.0.0.1", 10);
	hosts[2].port = number[3]; /* nobody there */
	open_store();
	/* Who is asked once more has been heard: whom they name changes no more, for now. */
	UNTIL(*asked_for_master >= 2);
	wait_well();
	for (unsigned i = 0; i < 3; i++)
		(void)ask(1, 1);
	settle();
	assert_int_equal(all_answered(), 3);
	wait_for_word(number[1], "INFO keyspace", "keys=1");

	/* The master dies: nobody waits, and who was counted there is known to its successor. */
	kill_child(master);
	uint64_t connects = COUNT(connects);
	UNTIL(!is_well());
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(ask(2, 1)->done, 1);
		run_for(USEC_PER_MSEC);
	}
	assert_int_equal(all_answered(), 0);
	wait_for_word(number[2], "SENTINEL FAILOVER mine", "OK");
	UNTIL(COUNT(connects) > connects);
	wait_well();
	struct asked *a = ask(1, 1);
	settle();
	assert_true(a->plan.denied);
	assert_int_equal(all_answered(), 1);

	/* The old one comes back as what it is now. */
	master = tcp_start(port[0], port[1]);
	wait_for_word(number[0], "INFO replication", "master_link_status:up");
	close_store();

	/* Only one that names a replica: it is not taken. */
	server_stop();
	char lie[80];
	memset(lie, 0, sizeof lie);
	int n = snprintf(lie, sizeof lie, "*2\r\n$9\r\n127.0.0.1\r\n$%zu\r\n%s\r\n",
		strlen(port[0]), port[0]);
	fake_start(NULL, NULL, lie, (size_t)n);
	where.server_n = 1;
	open_store();
	UNTIL(COUNT(connects_failed) >= 2);
	assert_false(is_well());
	assert_int_equal(COUNT(connects), 0);
	close_store();

	kill_child(sentinel);
	kill_child(replica);
	kill_child(master);
	(void)unlink(config);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)
		T(test_answers),
		T(test_many),
		T(test_script_flush),
		T(test_who),
		T(test_client_kill),
		T(test_stopped),
		T(test_killed),
		T(test_chained),
		T(test_away_at_start),
		T(test_kept_warm),
		T(test_closed_in_flight),
		T(test_errors),
		T(test_busy),
		T(test_wrong_type),
		T(test_nonsense),
		T(test_slow),
		T(test_names),
		T(test_sentinels),
	};
	(void)signal(SIGPIPE, SIG_IGN);
	asked_for_master = mmap(NULL, sizeof *asked_for_master, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (asked_for_master == MAP_FAILED || !mkdtemp(folder))
		return 2;
	snprintf(path, sizeof path, "%s/redis", folder);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	server_stop();
	char dump[80]; /* what a replica gets from its master goes by way of the disk */
	snprintf(dump, sizeof dump, "%s/dump.rdb", folder);
	(void)unlink(dump);
	(void)rmdir(folder);
	return rc;
}
