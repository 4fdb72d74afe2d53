/* When a node of Redis is any use, by the replies that it gets, with no server, and no time that
 * passes; and how much is under way at once. */
#include "redis_rig.h"
#include "store/redis_node_inside.h"

static unsigned went_away, came_back, answered_n, ended_n, stepped;
static const char *last_hint, *last_why;
static bool has_worked; /* for another worker */

static void on_ended(void *owner, struct node_call *c, bool answered, struct now now)
{
	(void)owner;
	(void)c;
	(void)now;
	answered_n += answered;
	ended_n++;
}

static void on_away(void *owner, struct redis_node *n, const char *why, const char *hint,
	const struct redis_address *address)
{
	(void)owner;
	(void)n;
	(void)address;
	last_why = why;
	last_hint = hint;
	went_away++;
}

static void on_back(void *owner, struct redis_node *n)
{
	(void)owner;
	(void)n;
	came_back++;
}

static void on_works(void *owner, struct redis_node *n)
{
	(void)owner;
	(void)n;
}

static bool on_has_worked(void *owner, struct redis_node *n, usec_t since)
{
	(void)owner;
	(void)n;
	(void)since;
	return has_worked;
}

static void on_stepped(void *owner, struct redis_node *n)
{
	(void)owner;
	(void)n;
	stepped++;
}

static const struct redis_node_events events = {
	.ended = on_ended,
	.away = on_away,
	.back = on_back,
	.works = on_works,
	.has_worked = on_has_worked,
	.stepped = on_stepped,
};

static struct redis_stats stats;

/* ---- what is sent, and what comes ---- */

static struct node_calls pool = { .most = 512 };

static usec_t ahead; /* the server's clock */

static void reply(struct redis_node *n, char kind)
{
	static char error[] = "OOM command not allowed", noscript[] = "NOSCRIPT No matching script";
	uint64_t told = (uint64_t)(clock_steady() + ahead);
	char good[8];

	for (unsigned i = 0; i < sizeof good; i++)
		good[i] = (char)(told >> 8 * i);
	struct redisReply r = { .type = REDIS_REPLY_STRING, .str = good, .len = 8 };

	if (kind == 'e' || kind == 'n')
		r = (struct redisReply){ .type = REDIS_REPLY_ERROR,
			.str = kind == 'e' ? error : noscript,
			.len = kind == 'e' ? sizeof error - 1 : sizeof noscript - 1 };
	node_on_reply(n, &r);
}

static void probe(struct redis_node *n, char kind)
{
	usec_t sent_at = clock_steady() - (kind == 'l' ? 2 * PATIENT : 0);

	node_ring_add(n, (struct sent){ .kind = KIND_PROBE, .call = &n->probe, .at = sent_at });
	reply(n, kind);
}

static void check(struct redis_node *n, char kind)
{
	struct node_call *c = node_calls_get(&pool);

	assert_non_null(c);
	c->taken_at = clock_steady();
	node_list_add(n, c);
	node_ring_add(n, (struct sent){ .kind = KIND_CHECKS, .call = c, .at = c->taken_at });
	redis_call_args(&c->asked, &pool.args, "rl:", "", NULL);
	reply(n, kind);
}

static void it_is_given_up_for_failures_in_a_row(void **state)
{
	/* Of a probe: p it is good, l late, e an error; of a call with checks: c, E; w: from then
	 * on another worker's go well. */
	static const struct {
		const char *title, *comes;
		bool well;
	} row[] = {
		{ "nothing comes", "", true },
		{ "two probes are late", "ll", true },
		{ "three are", "lll", false },
		{ "three are, with a good call between", "llcl", true },
		{ "three are, with a good probe between: nobody asks, and each counts alone",
			"lplpl", true },
		{ "so for weeks", "lplplplplpllpl", true },
		{ "three in a row after it", "llplll", false },
		{ "three checks meet an error", "EEE", false },
		{ "and a good probe does not make up for it: it does not meet it", "EpEpE", false },
		{ "a good call does", "EpEpcEpE", true },
		{ "a call that went well, then late probes far from each other", "Ecplplpl", true },
		{ "the breaker is open, and a good probe shuts it", "lllp", true },
		{ "not where it opened for an error", "EEEp", false },
		{ "but then a call does", "EEEpc", true },
		{ "or another worker's call", "EEEpwp", true },
		{ "which is not asked about where nothing was refused", "wlll", false },
		{ "and what was refused before is over then", "EEEwplplpl", true },
	};
	(void)state;

	loop = ev_loop_new(EVFLAG_AUTO);
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct redis_node *n = redis_node_new(
			&settings, false, &stats, &pool, &events, NULL, loop);
		assert_non_null(n);
		went_away = came_back = 0;
		has_worked = false;
		node_set_health(n, HEALTH_WELL);
		for (const char *p = row[i].comes; *p; p++) {
			has_worked |= *p == 'w';
			if (*p == 'w')
				continue;
			if (*p == 'c' || *p == 'E')
				check(n, *p == 'c' ? 'p' : 'e');
			else
				probe(n, *p);
		}
		if (redis_node_is_well(n) != row[i].well)
			fail_msg("%s (%s): it is %s", row[i].title, row[i].comes,
				row[i].well ? "given up" : "well");
		assert_int_equal(came_back, went_away + row[i].well);
		/* Who answers late is not told to be out of reach. */
		if (strcmp(row[i].comes, "lll") == 0) {
			assert_non_null(strstr(last_hint ? last_hint : "", "latency"));
			assert_non_null(strstr(last_why ? last_why : "", "later"));
		}
		redis_node_free(n);
	}
	node_calls_fini(&pool);
	ev_loop_destroy(loop);
}

static void turn_of(struct redis_node *n)
{
	redis_node_send(n);
	ev_run(loop, EVRUN_ONCE);
}

#define NODE_UNTIL(n, it_is_so) \
	for (usec_t give_up = clock_steady() + BOUND; !(it_is_so); turn_of(n)) \
		if (clock_steady() > give_up) \
			fail_msg("never: %s", #it_is_so);

/* Nobody has to ask a server to know that it is not the one that refused. */
static void what_one_refused_the_next_need_not_prove(void **state)
{
	struct redis_addresses at = { .n = 1 };
	(void)state;

	has_worked = false;
	server_start();
	loop = ev_loop_new(EVFLAG_AUTO);
	struct redis_node *n = redis_node_new(&settings, false, &stats, &pool, &events, NULL, loop);
	assert_non_null(n);
	strcpy(at.address[0].host, "/nonexistent/redis.sock");
	redis_node_use(n, &at);
	node_set_health(n, HEALTH_WELL);
	for (unsigned i = 0; i < 3; i++)
		check(n, 'e');
	probe(n, 'p');
	assert_false(redis_node_is_well(n));
	memcpy(at.address[0].host, path, sizeof path);
	redis_node_use(n, &at);
	NODE_UNTIL(n, redis_node_is_well(n));
	redis_node_free(n);
	node_calls_fini(&pool);
	ev_loop_destroy(loop);
}

/* One that is well is asked once a second, one that is not ever more seldom; never at once. */
static void a_probe_comes_after_a_while(void **state)
{
	static const struct {
		const char *title;
		enum health health;
		char kind;
		double least, most; /* seconds */
	} row[] = {
		{ "well, a good one", HEALTH_WELL, 'p', 1, 1 },
		{ "well, a late one", HEALTH_WELL, 'l', 1, 1 },
		{ "well, an error", HEALTH_WELL, 'e', 1, 1 },
		{ "given up, a late one", HEALTH_BROKEN, 'l', .025, .05 },
		{ "given up, an error", HEALTH_BROKEN, 'e', .025, .05 },
		{ "tried, an error", HEALTH_TRYING, 'e', .025, .05 },
		{ "given up, a good one", HEALTH_BROKEN, 'p', 1, 1 },
	};
	(void)state;

	loop = ev_loop_new(EVFLAG_AUTO);
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct redis_node *n = redis_node_new(
			&settings, false, &stats, &pool, &events, NULL, loop);
		assert_non_null(n);
		node_set_health(n, row[i].health);
		n->probe_at = 0;
		node_send_probe(n, clock_steady()); /* it is due no more (and cannot be sent) */
		usec_t before = clock_steady();
		probe(n, row[i].kind);
		usec_t after = clock_steady();
		if (n->probe_at < before + (usec_t)(row[i].least * (double)USEC_PER_SEC) ||
			n->probe_at > after + (usec_t)(row[i].most * (double)USEC_PER_SEC))
			fail_msg("%s: the next one after %lld us", row[i].title,
				(long long)(n->probe_at - after));
		redis_node_free(n);
	}
	ev_loop_destroy(loop);
}

static void what_an_error_tells_to_do(void **state)
{
	static const struct {
		const char *error;
		bool master_only;
		const char *hint;
	} row[] = {
		{ "READONLY You can't write", false, "redis.servers names a replica" },
		{ "READONLY You can't write", true, "a failover may be under way" },
		{ "MASTERDOWN Link with MASTER is down", true, "a failover may be under way" },
		{ "NOREPLICAS Not enough", true, "min-replicas-to-write" },
		{ "OOM command not allowed", true, "maxmemory" },
		{ "XYZ of another release", false, "the log of Redis" },
		{ "XYZ of another release", true, "the log of Redis" },
	};
	(void)state;

	loop = ev_loop_new(EVFLAG_AUTO);
	struct redis_node *n = redis_node_new(&settings, false, &stats, &pool, &events, NULL, loop);
	assert_non_null(n);
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		n->addresses.master_only = row[i].master_only;
		if (!strstr(node_error_hint(n, row[i].error), row[i].hint))
			fail_msg("%s: %s", row[i].error, node_error_hint(n, row[i].error));
	}
	redis_node_free(n);
	ev_loop_destroy(loop);
}

/* What it tells is of some instant between the question and the answer: nothing is known closer. */
static void a_clock_that_is_set_is_told_once(void **state)
{
	static const struct {
		const char *title;
		double ahead; /* seconds */
		char kind;    /* of probe(): l was sent two minutes ago */
		unsigned stepped;
	} row[] = {
		{ "the first that it tells", 1e9, 'p', 0 },
		{ "the same", 1e9, 'p', 0 },
		{ "slewed", 1e9 + .5, 'p', 0 },
		{ "an hour later", 1e9 + 3600, 'p', 1 },
		{ "an hour later still", 1e9 + 3600, 'p', 0 },
		{ "a day earlier", 1e9 - 86400, 'p', 1 },
		{ "two seconds back", 1e9 - 86402, 'p', 1 },
		{ "an answer that took long, told at its beginning", 1e9 - 86402 - 119, 'l', 0 },
		{ "and the next one at once", 1e9 - 86402, 'p', 0 },
		{ "one that took long, and an hour more", 1e9 - 82802, 'l', 1 },
	};
	(void)state;

	loop = ev_loop_new(EVFLAG_AUTO);
	struct redis_node *n = redis_node_new(&settings, false, &stats, &pool, &events, NULL, loop);
	assert_non_null(n);
	node_set_health(n, HEALTH_WELL);
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		stepped = 0;
		ahead = (usec_t)(row[i].ahead * (double)USEC_PER_SEC);
		probe(n, row[i].kind);
		if (stepped != row[i].stepped)
			fail_msg("%s: told %u times", row[i].title, stepped);
	}
	redis_node_free(n);
	node_calls_fini(&pool);
	ev_loop_destroy(loop);
}

/* ---- under way at once ---- */

static unsigned pongs;

static void on_pong(struct node_ask *a, const struct redisReply *r)
{
	(void)a;
	pongs += r && r->type == REDIS_REPLY_STATUS;
}

static struct redis_node *connected(void)
{
	struct redis_addresses at = { .n = 1 };

	loop = ev_loop_new(EVFLAG_AUTO);
	ev_timer_init(&tick, on_nothing, 0.0005, 0.0005);
	ev_timer_start(loop, &tick);
	memcpy(at.address[0].host, path, sizeof path);
	struct redis_node *n = redis_node_new(&settings, false, &stats, &pool, &events, NULL, loop);
	assert_non_null(n);
	redis_node_use(n, &at);
	NODE_UNTIL(n, redis_node_is_well(n) && !n->sent_n);
	return n;
}

static void disconnect(struct redis_node *n)
{
	redis_node_end_all(n);
	redis_node_free(n);
	node_calls_fini(&pool);
	ev_timer_stop(loop, &tick);
	ev_loop_destroy(loop);
}

static struct node_call *given(struct redis_node *n)
{
	struct node_call *c = node_calls_get(&pool);

	assert_non_null(c);
	c->taken_at = clock_steady();
	redis_node_give(n, c);
	return c;
}

#define SCRIPTS_SENT atomic_load(&stats.scripts_sent)

/* However many calls find it missing: they all come behind it, and nobody notices. */
static void a_script_that_is_gone_is_sent_once(void **state)
{
	enum { CALLS = 20, TIMES = 8 }; /* more often than one call is sent again */
	(void)state;

	server_start();
	struct redis_node *n = connected();
	for (unsigned k = 0; k < TIMES; k++) {
		uint64_t sent = SCRIPTS_SENT;
		kill(server, SIGSTOP);
		answered_n = ended_n = 0;
		for (unsigned i = 0; i < CALLS; i++)
			(void)given(n);
		redis_node_send(n);
		assert_int_equal(n->window_n, 8); /* the others gather */
		kill(server, SIGCONT);
		NODE_UNTIL(n, ended_n == CALLS);
		assert_int_equal(SCRIPTS_SENT - sent, 0);
		tell("SCRIPT FLUSH");
		for (unsigned i = 0; i < CALLS; i++)
			(void)given(n);
		NODE_UNTIL(n, ended_n == 2 * CALLS);
		assert_int_equal(answered_n, 2 * CALLS);
		assert_int_equal(SCRIPTS_SENT - sent, 1);
		/* So it is where nobody asks. */
		tell("SCRIPT FLUSH");
		NODE_UNTIL(n, !n->probes);
		node_send_probe(n, clock_steady());
		NODE_UNTIL(n, !n->probes);
		assert_int_equal(SCRIPTS_SENT - sent, 2);
		assert_true(redis_node_is_well(n) && !n->failures);
	}
	disconnect(n);
}

/* Of a reply that it was not there: what is sent is the script and the call. */
static void who_is_sent_once_more(void **state)
{
	static const struct {
		const char *title;
		bool waits;
		uint8_t resent;
		unsigned sent;
	} row[] = {
		{ "who waits", true, 0, 2 },
		{ "who has been sent so a few times", true, 4, 2 },
		{ "and once more", true, 5, 0 },
		{ "nobody waits: it was decided otherwise, and is not to be charged now", false, 0,
			0 },
	};
	(void)state;

	server_start();
	struct redis_node *n = connected();
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct node_call *c = node_calls_get(&pool);
		assert_non_null(c);
		c->taken_at = clock_steady();
		c->resent = row[i].resent;
		if (row[i].waits)
			node_list_add(n, c);
		node_ring_add(
			n, (struct sent){ .kind = KIND_CHECKS, .call = c, .at = c->taken_at });
		answered_n = ended_n = 0;
		reply(n, 'n');
		if (n->sent_n != row[i].sent)
			fail_msg("%s: %u are sent", row[i].title, n->sent_n);
		NODE_UNTIL(n, !n->sent_n);
		assert_int_equal(ended_n, row[i].waits);
		assert_int_equal(answered_n, row[i].sent > 0);
	}
	disconnect(n);
}

/* Of what others ask and of checks no more is under way than the node can tell apart, whatever came
 * first; the rest waits. */
static void no_more_is_sent_than_it_keeps_account_of(void **state)
{
	enum { CALLS = 2 * SENT_MAX };
	static struct node_ask asks[2 * SENT_MAX];
	const char *argv[] = { "PING" };
	size_t bytes[] = { 4 };
	struct redis_addresses at = { .n = 1 };
	unsigned asks_n = 0;
	(void)state;

	server_start();
	loop = ev_loop_new(EVFLAG_AUTO);
	ev_timer_init(&tick, on_nothing, 0.0005, 0.0005);
	ev_timer_start(loop, &tick);
	memcpy(at.address[0].host, path, sizeof path);
	struct redis_node *n = redis_node_new(&settings, true, &stats, &pool, &events, NULL, loop);
	assert_non_null(n);
	redis_node_use(n, &at);
	NODE_UNTIL(n, redis_node_is_well(n));

	kill(server, SIGSTOP);
	answered_n = pongs = 0;
	do
		asks[asks_n] = (struct node_ask){ .done = on_pong };
	while (redis_node_ask(n, &asks[asks_n], 1, argv, bytes) && ++asks_n < 2 * SENT_MAX);
	assert_in_range(asks_n, SENT_MAX / 2, SENT_MAX);
	for (unsigned i = 0; i < CALLS; i++) {
		struct node_call *c = node_calls_get(&pool);
		assert_non_null(c);
		c->taken_at = clock_steady();
		c->asking = true;
		redis_node_give(n, c);
	}
	redis_node_send(n);
	node_send_probe(n, clock_steady());
	assert_true(n->sent_n <= SENT_MAX);
	assert_true(n->window_n > 0);
	kill(server, SIGCONT);
	NODE_UNTIL(n, pongs == asks_n && answered_n == CALLS);

	redis_node_end_all(n);
	redis_node_free(n);
	node_calls_fini(&pool);
	ev_timer_stop(loop, &tick);
	ev_loop_destroy(loop);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		REDIS_TEST(it_is_given_up_for_failures_in_a_row),
		REDIS_TEST(what_one_refused_the_next_need_not_prove),
		REDIS_TEST(a_probe_comes_after_a_while),
		REDIS_TEST(what_an_error_tells_to_do),
		REDIS_TEST(a_clock_that_is_set_is_told_once),
		REDIS_TEST(a_script_that_is_gone_is_sent_once),
		REDIS_TEST(who_is_sent_once_more),
		REDIS_TEST(no_more_is_sent_than_it_keeps_account_of),
	};
	if (!tests_begin(argc, argv))
		return 2;
	int rc = cmocka_run_group_tests_name("store/redis_node", tests, NULL, NULL);
	tests_end();
	return rc;
}
