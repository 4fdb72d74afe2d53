/* The Redis store with a cluster whose nodes send it elsewhere, come too late, lie, or go: every
 * check is answered once and in time, and sent again only where a node has said that it did
 * nothing. How long a machine takes is no matter of these tests; redis_rig.h says how. */
#include "base/log_tap.h"
#include "fake_cluster.h"
#include "store/redis.h"
#include "store/redis_hub.h"

#define TIMEOUT (100 * USEC_PER_MSEC) /* where it is to pass */
#define PATIENT (60 * USEC_PER_SEC)   /* where it is not */
#define BOUND   (120 * USEC_PER_SEC)  /* of what has to come */

static usec_t timeout;
static struct ev_loop *loop;
static ev_timer tick; /* no turn of the loop sleeps for longer */
static struct redis_hub *hub;
static struct memory_store *memory;
static struct redis_store *store;
static struct redis_host host;

enum { LOW, HIGH, CLIENTS };
/* Limits whose clients lie on both sides of the border. */
static struct rig_limit limit[2], shadow;
static struct key descriptor[CLIENTS];

struct asked {
	struct plan plan;
	usec_t at;
	unsigned done;
};

static void on_done(struct plan *plan)
{
	struct asked *a = (struct asked *)plan;
	a->done++;
}

static void add(struct asked *a, const struct rig_limit *l, unsigned client)
{
	struct key k = { descriptor[client].a ^ l->limit.salt.a,
		descriptor[client].b ^ l->limit.salt.b };
	a->plan.take[a->plan.n++] = (struct take){ .limit = &l->limit, .key = k, .cost = 1 };
}

static void ask(struct asked *a)
{
	a->plan.done = on_done;
	a->at = clock_steady();
	if (store_take(redis_store_base(store), &a->plan, clock_read()) == STORE_DONE)
		on_done(&a->plan);
}

static void on_nothing(struct ev_loop *l, ev_timer *t, int revents)
{
	(void)l;
	(void)t;
	(void)revents;
}

static void run_for(usec_t time)
{
	usec_t end = clock_steady() + time;

	do
		ev_run(loop, EVRUN_ONCE);
	while (clock_steady() < end);
}

#define UNTIL(it_is_so) \
	for (usec_t give_up = clock_steady() + BOUND; !(it_is_so); ev_run(loop, EVRUN_ONCE)) \
		if (clock_steady() > give_up) \
			fail_msg("never: %s", #it_is_so);

/* In time: no turn of the loop that begins after the deadline leaves it waiting. */
static void wait_for(struct asked *a)
{
	while (!a->done) {
		usec_t began = clock_steady();
		ev_run(loop, EVRUN_ONCE);
		if (!a->done && a->at + timeout <= began)
			fail_msg("it waits for longer than its deadline");
	}
	assert_int_equal(a->done, 1);
}

/* One check of one limit: true, if Redis has answered it. */
static bool ask_one(unsigned client)
{
	static struct asked a;
	memset(&a, 0, sizeof a);
	add(&a, &limit[0], client);
	ask(&a);
	wait_for(&a);
	run_for(2 * USEC_PER_MSEC);
	assert_int_equal(a.done, 1);
	return !a.plan.degraded;
}

#define COUNT(name) atomic_load(&redis_store_stats(store)->name)

static bool is_well(void)
{
	return !atomic_load(&redis_store_stats(store)->degraded);
}

static void wait_well(void)
{
	UNTIL(is_well());
}

/* Asks until Redis answers. */
static void wait_answered(unsigned client)
{
	for (usec_t give_up = clock_steady() + BOUND; !ask_one(client);)
		if (clock_steady() > give_up)
			fail_msg("Redis never answers");
}

/* Nobody waits when it changes. */
static void set_timeout(usec_t t)
{
	assert_int_equal(redis_store_waiting(store), 0);
	timeout = t;
	redis_store_set_timeout(store, t);
}

static void find_clients(void)
{
	struct take t = { .limit = &limit[0].limit };
	bool found[CLIENTS] = { false };
	for (uint64_t i = 1; !found[LOW] || !found[HIGH]; i++) {
		t.key = (struct key){ rig_mix(i), rig_mix(~i) };
		unsigned side = redis_slot(&t) < REDIS_SLOTS / 2 ? LOW : HIGH;
		descriptor[side] = t.key;
		found[side] = true;
	}
}

static int begin(void **state)
{
	(void)state;
	char err[200] = "";
	struct redis_settings settings = { .prefix = "rl:", .timeout = PATIENT };

	for (unsigned i = 0; i < 2; i++) {
		rig_limit(&limit[i], ALGORITHM_TOKEN_BUCKET, 3, 3600 * USEC_PER_SEC, 3);
		limit[i].limit.local = &limit[i].limit;
	}
	rig_limit(&shadow, ALGORITHM_TOKEN_BUCKET, 3, 3600 * USEC_PER_SEC, 3);
	shadow.limit.local = &shadow.limit;
	shadow.rule.mode = MODE_SHADOW;
	shadow.rule.count_denied = true;
	find_clients();
	fake_start();
	fake->low = 0;
	fake->high = 1;
	fake->border = REDIS_SLOTS / 2;
	host = (struct redis_host){ .host = "127.0.0.1", .port = fake->node[0].port };
	struct redis_hub_settings where = { .mode = REDIS_CLUSTER, .server = &host, .server_n = 1 };
	timeout = PATIENT;
	loop = ev_loop_new(EVFLAG_AUTO);
	ev_timer_init(&tick, on_nothing, 0.0005, 0.0005);
	ev_timer_start(loop, &tick);
	hub = redis_hub_new(&where, loop, err, sizeof err);
	assert_non_null(hub);
	memory = rig_store(10000, clock_read());
	store = redis_store_new(&settings, hub, memory, loop);
	assert_non_null(store);
	wait_well();
	return 0;
}

static int end(void **state)
{
	(void)state;
	store_close(redis_store_base(store));
	redis_hub_free(hub);
	rig_close(memory);
	ev_timer_stop(loop, &tick);
	ev_loop_destroy(loop);
	fake_stop();
	return 0;
}

/* ---- one slot ---- */

static void test_each_slot_at_its_node(void **state)
{
	(void)state;
	assert_true(ask_one(LOW));
	assert_int_equal(fake->node[0].calls, 1);
	assert_true(ask_one(HIGH));
	assert_int_equal(fake->node[0].calls, 1);
	assert_int_equal(fake->node[1].calls, 1);
}

static void test_moved(void **state)
{
	(void)state;
	fake->node[0].other = 1;
	fake->node[0].mode = FAKE_MOVED;
	assert_true(ask_one(LOW));
	assert_int_equal(fake->node[1].calls, 1);
	assert_int_equal(COUNT(redirected), 1);
	/* From now on there at once. */
	assert_true(ask_one(LOW));
	assert_int_equal(fake->node[0].calls, 1);
	assert_int_equal(fake->node[1].calls, 2);
	assert_true(is_well());
}

static unsigned errors_told;

static bool counts_errors(enum log_level level, const char *event)
{
	(void)level;
	errors_told += strcmp(event, "redis_error") == 0;
	return false;
}

/* A slot that is elsewhere is no error, also where nobody waits for its word any more. */
static void test_moved_says_who_is_late(void **state)
{
	(void)state;
	assert_true(ask_one(LOW));
	fake->node[0].other = 1;
	fake->node[0].mode = FAKE_MOVED;
	errors_told = 0;
	log_tap(counts_errors);
	set_timeout(TIMEOUT);
	kill(fake->node[0].pid, SIGSTOP);
	assert_false(ask_one(LOW));
	kill(fake->node[0].pid, SIGCONT);
	set_timeout(PATIENT);
	assert_true(ask_one(LOW)); /* which comes behind it */
	assert_int_equal(fake->node[1].calls, 1);
	log_tap(NULL);
	assert_int_equal(errors_told, 0);
}

static void test_moved_to_a_node_that_nobody_knew(void **state)
{
	(void)state;
	fake->node[0].other = 2;
	fake->node[0].mode = FAKE_MOVED;
	assert_true(ask_one(LOW));
	assert_int_equal(fake->node[2].calls, 1);
	/* And the map says so, before long. */
	fake->low = 2;
	for (usec_t give_up = clock_steady() + BOUND; fake->node[2].calls < 3;) {
		assert_true(clock_steady() < give_up);
		(void)ask_one(LOW);
	}
	assert_int_equal(fake->node[0].calls, 1);
}

static void test_ask(void **state)
{
	(void)state;
	fake->node[0].other = 2;
	fake->node[0].mode = FAKE_ASK;
	fake->node[2].other = 0;
	fake->node[2].mode = FAKE_IMPORTS;
	for (unsigned i = 1; i <= 3; i++) {
		assert_true(ask_one(LOW));
		assert_int_equal(fake->node[0].calls, i); /* the slot is still its own */
		assert_int_equal(fake->node[2].calls, i);
		assert_int_equal(fake->node[2].askings, i);
	}
}

static void test_tryagain(void **state)
{
	(void)state;
	fake->node[0].times = 2;
	fake->node[0].mode = FAKE_TRYAGAIN;
	assert_true(ask_one(LOW));
	assert_int_equal(fake->node[0].calls, 3);
	assert_true(is_well());
	/* Not for ever, and the node is none the worse for it. */
	set_timeout(TIMEOUT);
	fake->node[0].times = 1000000;
	assert_false(ask_one(LOW));
	assert_true(fake->node[0].calls < 60);
	assert_true(is_well());
	assert_true(COUNT(timed_out) >= 1);
}

static void test_several_plans_come_again_one_by_one(void **state)
{
	(void)state;
	static struct asked a[3];
	memset(a, 0, sizeof a);
	fake->node[0].times = 1;
	fake->node[0].mode = FAKE_TRYAGAIN;
	for (unsigned i = 0; i < 3; i++) {
		add(&a[i], &limit[i % 2], LOW);
		ask(&a[i]);
	}
	for (unsigned i = 0; i < 3; i++) {
		wait_for(&a[i]);
		assert_false(a[i].plan.degraded);
	}
	assert_int_equal(fake->node[0].calls, 1 + 3);
}

static void test_round_in_circles(void **state)
{
	(void)state;
	fake->node[0].other = 1;
	fake->node[1].other = 0;
	fake->node[0].mode = fake->node[1].mode = FAKE_MOVED;
	assert_false(ask_one(LOW));
	assert_true(fake->node[0].calls + fake->node[1].calls < 12);
	assert_true(is_well());
}

static void test_sent_to_where_nobody_is(void **state)
{
	(void)state;
	fake_node_stop(&fake->node[2]);
	fake->node[0].other = 2;
	fake->node[0].mode = FAKE_MOVED;
	for (unsigned i = 0; i < 5; i++)
		assert_false(ask_one(LOW));
	/* Who sends it there is not to blame, and others are served. */
	for (unsigned i = 0; i < 5; i++)
		assert_true(ask_one(HIGH));
	/* The map has been right all the time. */
	fake->node[0].mode = FAKE_SERVES;
	wait_answered(LOW);
	assert_true(ask_one(LOW));
}

static void test_lies(void **state)
{
	(void)state;
	static const char *const lies[] = { "MOVED 1 127.0.0.1:1", "MOVED 16384 127.0.0.1:1",
		"MOVED", "ASK", "MOVED x y:z", "ASK 99999999999999 127.0.0.1:99999",
		"CLUSTERDOWN The cluster is down", "CROSSSLOT Keys in request don't hash" };
	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
		fake->node[0].mode = FAKE_SERVES;
		wait_well();
		wait_answered(LOW);
		snprintf(fake->node[0].error, sizeof fake->node[0].error, "%s", lies[i]);
		unsigned calls = fake->node[0].calls;
		fake->node[0].mode = FAKE_SAYS;
		assert_false(ask_one(LOW));
		assert_int_equal(fake->node[0].calls, calls + 1);
	}
}

static void test_a_lost_call_is_not_sent_again(void **state)
{
	(void)state;
	fake->node[0].mode = FAKE_CLOSES;
	assert_false(ask_one(LOW));
	assert_int_equal(fake->node[0].calls, 1);
	assert_int_equal(fake->node[1].calls, 0);
	assert_true(ask_one(HIGH)); /* another node's */
}

static void test_a_node_away_is_missed_by_its_own(void **state)
{
	(void)state;
	fake_node_stop(&fake->node[0]);
	for (unsigned i = 0; i < 20; i++) {
		assert_false(ask_one(LOW));
		assert_true(ask_one(HIGH));
	}
	assert_false(is_well());
	fake_node_start(&fake->node[0]);
	wait_well();
	assert_true(ask_one(LOW));
}

/* ---- several ---- */

static void ask_both(struct asked *a, bool with_shadow)
{
	memset(a, 0, sizeof *a);
	add(a, &limit[0], LOW);
	add(a, &limit[1], HIGH);
	if (with_shadow)
		add(a, &shadow, LOW);
	ask(a);
	wait_for(a);
	run_for(10 * USEC_PER_MSEC);
}

static void test_two_slots_admit(void **state)
{
	(void)state;
	static struct asked a;
	ask_both(&a, false);
	assert_false(a.plan.degraded);
	assert_false(a.plan.denied);
	assert_true(a.plan.take[0].verdict.charged && a.plan.take[1].verdict.charged);
	assert_int_equal(fake->node[0].calls, 1);
	assert_int_equal(fake->node[1].calls, 1);
	assert_int_equal(COUNT(split), 1);
	assert_int_equal(COUNT(refunds), 0);
}

static void test_one_denies(void **state)
{
	(void)state;
	static struct asked a;
	fake->node[1].mode = FAKE_DENIES;
	ask_both(&a, false);
	assert_true(a.plan.denied && !a.plan.degraded);
	assert_true(a.plan.take[0].verdict.admits && !a.plan.take[0].verdict.charged);
	assert_false(a.plan.take[1].verdict.admits);
	UNTIL(fake->node[0].refunds == 1);
	assert_int_equal(fake->node[1].refunds, 0);
	assert_int_equal(COUNT(refunds), 1);
	assert_int_equal(COUNT(refunds_lost), 0);
}

static void test_what_counts_denials_is_charged_after(void **state)
{
	(void)state;
	static struct asked a;
	/* The shadow rule asks for more than there ever is, so its part does not charge it. */
	shadow.limit.quota.capacity = shadow.limit.quota.units = 0;
	fake->node[1].mode = FAKE_DENIES;
	ask_both(&a, true);
	assert_true(a.plan.denied);
	UNTIL(fake->node[0].refunds == 1 && fake->node[0].denied == 1);
}

static void test_a_refund_that_is_lost(void **state)
{
	(void)state;
	static struct asked a;
	memset(&a, 0, sizeof a);
	fake->node[1].mode = FAKE_DENIES;
	/* Its first call is served, and the next one is the refund. */
	fake->node[0].times = 1;
	fake->node[0].mode = FAKE_CLOSES;
	add(&a, &limit[0], LOW);
	add(&a, &limit[1], HIGH);
	ask(&a);
	wait_for(&a);
	assert_true(a.plan.denied && !a.plan.degraded);
	UNTIL(COUNT(refunds_lost) == 1);
	assert_int_equal(fake->node[0].refunds, 1);
	assert_int_equal(fake->node[0].calls, 2);
}

static void test_one_of_two_fails(void **state)
{
	(void)state;
	static struct asked a;
	fake->node[1].mode = FAKE_CLOSES;
	ask_both(&a, false);
	assert_true(a.plan.degraded);
	UNTIL(fake->node[0].calls == 1 && redis_store_waiting(store) == 0);
	run_for(5 * USEC_PER_MSEC);
	assert_int_equal(fake->node[0].refunds, 0);
	/* Nobody asks the one for what the other cannot decide. */
	run_for(5 * USEC_PER_MSEC);
	fake_node_stop(&fake->node[1]);
	unsigned before = fake->node[0].calls;
	for (unsigned i = 0; i < 10; i++)
		ask_both(&a, false);
	assert_true(a.plan.degraded);
	assert_true(fake->node[0].calls <= before + 1);
}

/* The one that does not fail answers when the check is over, and its policy may have been replaced.
 */
static void test_limits_are_there_until_all_parts_are_over(void **state)
{
	(void)state;
	static struct asked a;
	_Atomic(unsigned) holders = 2; /* control, and who asks */
	struct rig_limit *mine[2];

	memset(&a, 0, sizeof a);
	for (unsigned i = 0; i < 2; i++) {
		mine[i] = malloc(sizeof *mine[i]);
		assert_non_null(mine[i]);
		rig_limit(mine[i], ALGORITHM_TOKEN_BUCKET, 3, 3600 * USEC_PER_SEC, 3);
		mine[i]->limit.local = &mine[i]->limit;
		add(&a, mine[i], i ? HIGH : LOW);
	}
	a.plan.holders = &holders;
	kill(fake->node[0].pid, SIGSTOP);
	fake->node[1].mode = FAKE_CLOSES;
	ask(&a);
	assert_int_equal(holders, 3);
	wait_for(&a);
	assert_true(a.plan.degraded);
	holders--;
	assert_int_equal(holders, 2);
	kill(fake->node[0].pid, SIGCONT);
	UNTIL(holders == 1);
	assert_int_equal(fake->node[0].calls, 1);
	free(mine[0]);
	free(mine[1]);
}

static void test_ends_while_all_waits(void **state)
{
	(void)state;
	static struct asked a[50];
	memset(a, 0, sizeof a);
	fake->node[0].times = 1000000;
	fake->node[0].mode = FAKE_TRYAGAIN;
	for (unsigned i = 0; i < 50; i++) {
		add(&a[i], &limit[0], LOW);
		if (i % 2)
			add(&a[i], &limit[1], HIGH);
		ask(&a[i]);
		if (i % 10 == 0)
			run_for(USEC_PER_MSEC);
	}
	redis_store_settle(store);
	assert_int_equal(redis_store_waiting(store), 0);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(a[i].done, 1);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, begin, end)
	const struct CMUnitTest tests[] = {
		T(test_each_slot_at_its_node),
		T(test_moved),
		T(test_moved_says_who_is_late),
		T(test_moved_to_a_node_that_nobody_knew),
		T(test_ask),
		T(test_tryagain),
		T(test_several_plans_come_again_one_by_one),
		T(test_round_in_circles),
		T(test_sent_to_where_nobody_is),
		T(test_lies),
		T(test_a_lost_call_is_not_sent_again),
		T(test_a_node_away_is_missed_by_its_own),
		T(test_two_slots_admit),
		T(test_one_denies),
		T(test_what_counts_denials_is_charged_after),
		T(test_a_refund_that_is_lost),
		T(test_one_of_two_fails),
		T(test_limits_are_there_until_all_parts_are_over),
		T(test_ends_while_all_waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
