/* When a node of Redis is any use, by the replies that it gets, with no server, and no time that
 * passes; and how much is under way at once. */
#include "redis_rig.h"
#include "store/redis_node_inside.h"

static unsigned went_away, came_back, answered_n, stepped;
static const char *last_hint;

static void on_ended(void *owner, struct node_call *c, bool answered, struct now now)
{
	(void)owner;
	(void)c;
	(void)now;
	answered_n += answered;
}

static void on_away(void *owner, struct redis_node *n, const char *why, const char *hint,
	const struct redis_address *address)
{
	(void)owner;
	(void)n;
	(void)why;
	(void)address;
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
	return false;
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
	static char error[] = "OOM command not allowed";
	uint64_t told = (uint64_t)(clock_steady() + ahead);
	char good[8];

	for (unsigned i = 0; i < sizeof good; i++)
		good[i] = (char)(told >> 8 * i);
	struct redisReply r = { .type = REDIS_REPLY_STRING, .str = good, .len = 8 };

	if (kind == 'e')
		r = (struct redisReply){
			.type = REDIS_REPLY_ERROR, .str = error, .len = sizeof error - 1
		};
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
	/* Of a probe: p it is good, l late, e an error; of a call with checks: c, E. */
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
	};
	(void)state;

	loop = ev_loop_new(EVFLAG_AUTO);
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct redis_node *n = redis_node_new(
			&settings, false, &stats, &pool, &events, NULL, loop);
		assert_non_null(n);
		went_away = came_back = 0;
		node_set_health(n, HEALTH_WELL);
		for (const char *p = row[i].comes; *p; p++) {
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
		if (strcmp(row[i].comes, "lll") == 0)
			assert_non_null(strstr(last_hint ? last_hint : "", "latency"));
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
		REDIS_TEST(a_clock_that_is_set_is_told_once),
		REDIS_TEST(no_more_is_sent_than_it_keeps_account_of),
	};
	if (!tests_begin(argc, argv))
		return 2;
	int rc = cmocka_run_group_tests_name("store/redis_node", tests, NULL, NULL);
	tests_end();
	return rc;
}
