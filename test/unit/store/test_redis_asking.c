/* When sentinels are asked, by whom they are reached, and what of their answers is believed.
 * Connections, news, resolvers and the clock are played here: no socket, and no time passes. */
#include "base/clock.h"

static usec_t its_time;

static usec_t played_clock(void)
{
	return its_time;
}

#define clock_steady played_clock
#include "store/redis_sentinel.c" /* its timer and its bell: NOLINT(bugprone-suspicious-include) */
#undef clock_steady

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- what is played ---- */

enum { SENTINELS = 3 };

struct redis_conn {
	struct sentinel *owner;
	struct redis_address at;
	bool is_ready, refuses;
	unsigned sent, flushed, given_up, used, good;
};

struct redis_news {
	struct sentinel *owner;
	void (*heard)(void *owner);
	struct redis_address at;
	unsigned ticks;
};

struct redis_resolver {
	struct redis_resolved r;
	unsigned changes, wakes;
};

static struct redis_conn conn[SENTINELS];
static struct redis_news news[SENTINELS];
static struct redis_resolver resolver[SENTINELS];
static unsigned conns, news_n, resolvers;
static bool has_threads;

struct redis_conn *redis_conn_new(const struct redis_conn_settings *s,
	const struct redis_conn_events *events, void *owner, struct ev_loop *loop)
{
	(void)events;
	(void)loop;
	assert_true(s->auth_if_asked);
	assert_string_equal(s->password, "secret");
	conn[conns] = (struct redis_conn){ .owner = owner };
	return &conn[conns++];
}

void redis_conn_free(struct redis_conn *c)
{
	(void)c;
}

bool redis_conn_use(struct redis_conn *c, const struct redis_address *a, bool master_only)
{
	assert_false(master_only);
	c->at = *a;
	c->used++;
	return true;
}

void redis_conn_aim(struct redis_conn *c, const struct redis_address *a, bool master_only)
{
	assert_false(master_only);
	c->at = *a;
}

bool redis_conn_is_ready(const struct redis_conn *c)
{
	return c->is_ready;
}

bool redis_conn_send(struct redis_conn *c, unsigned argc, const char *argv[], size_t argv_bytes[])
{
	assert_int_equal(argc, 3);
	assert_string_equal(argv[1], "get-master-addr-by-name");
	assert_string_equal(argv[2], "mine");
	for (unsigned i = 0; i < argc; i++)
		assert_int_equal(argv_bytes[i], strlen(argv[i]));
	if (!c->refuses)
		c->sent++;
	return !c->refuses;
}

void redis_conn_flush(struct redis_conn *c)
{
	c->flushed++;
}

void redis_conn_give_up(struct redis_conn *c, const char *why)
{
	assert_string_equal(why, "it hangs");
	c->given_up++;
}

void redis_conn_is_good(struct redis_conn *c)
{
	c->good++;
}

struct redis_news *redis_news_new(const struct redis_conn_settings *s, const char *master,
	void (*heard)(void *owner), void *owner, struct ev_loop *loop)
{
	(void)s;
	(void)loop;
	assert_string_equal(master, "mine");
	news[news_n] = (struct redis_news){ .owner = owner, .heard = heard };
	return &news[news_n++];
}

void redis_news_free(struct redis_news *n)
{
	(void)n;
}

void redis_news_use(struct redis_news *n, const struct redis_address *a)
{
	n->at = *a;
}

void redis_news_tick(struct redis_news *n, usec_t now)
{
	assert_int_equal(now, its_time);
	n->ticks++;
}

struct redis_resolver *redis_resolver_new(
	const struct redis_host *server, unsigned n, struct ev_loop *loop, ev_async *bell)
{
	(void)loop;
	(void)bell;
	assert_int_equal(n, 1);
	if (!has_threads)
		return NULL;
	resolver[resolvers] = (struct redis_resolver){ .r.server = *server };
	return &resolver[resolvers++];
}

void redis_resolver_wake(struct redis_resolver *r)
{
	r->wakes++;
}

void redis_resolver_change(struct redis_resolver *r, unsigned i, const struct redis_host *server)
{
	assert_int_equal(i, 0);
	r->r = (struct redis_resolved){ .server = *server, .answered = r->r.answered };
	r->changes++;
}

struct redis_resolved redis_resolver_get(struct redis_resolver *r, unsigned i)
{
	assert_int_equal(i, 0);
	return r->r;
}

void redis_resolver_free(struct redis_resolver *r)
{
	(void)r;
}

/* ---- whose they are ---- */

static struct ev_loop *loop;
static struct redis_sentinels *all;
static struct redis_addresses said;
static unsigned named, failed;

static void on_named(void *owner, const struct redis_addresses *a)
{
	assert_ptr_equal(owner, &said);
	said = *a;
	named++;
}

static void on_failed(void *owner)
{
	assert_ptr_equal(owner, &said);
	failed++;
}

static struct redis_address address(const char *host, uint16_t port)
{
	struct redis_address a = { .port = port };

	(void)snprintf(a.host, sizeof a.host, "%s", host);
	return a;
}

static int setup(void **state)
{
	(void)state;
	static const struct redis_host server[SENTINELS] = { { "a", 1 }, { "b", 2 }, { "c", 3 } };
	static const struct redis_sentinels_events events = { on_named, on_failed };
	static const struct redis_hub_settings settings = { .mode = REDIS_SENTINEL,
		.server = server,
		.server_n = SENTINELS,
		.master = "mine",
		.password = "secret" };

	conns = news_n = resolvers = named = failed = 0;
	has_threads = true;
	said = (struct redis_addresses){ 0 };
	its_time = 100 * USEC_PER_SEC;
	loop = ev_loop_new(EVFLAG_AUTO);
	all = redis_sentinels_new(&settings, &events, &said, loop);
	return loop && all ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	redis_sentinels_free(all);
	ev_loop_destroy(loop);
	return 0;
}

static void connect_one(unsigned i)
{
	const struct redis_addresses a = { .address = { address("192.0.2.1", 1) }, .n = 1 };

	redis_sentinels_use(all, i, &a);
	conn[i].is_ready = true;
	sentinel_events.ready(&all->sentinel[i]);
}

static void lose(unsigned i)
{
	conn[i].is_ready = false;
	sentinel_events.lost(&all->sentinel[i], "gone");
}

static void later(usec_t by)
{
	its_time += by;
	redis_sentinels_ask(all, its_time, 0);
}

/* One says that the master is at `host` and `port`, both as they come over the wire. */
static void answer(unsigned i, const char *host, const char *port)
{
	redisReply h = { .type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)host };
	redisReply p = { .type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)port };
	redisReply *element[] = { &h, &p };
	redisReply r = { .type = REDIS_REPLY_ARRAY, .elements = 2, .element = element };

	h.len = strlen(host);
	p.len = strlen(port);
	sentinel_events.reply(&all->sentinel[i], &r);
}

/* ---- the tests ---- */

static void who_is_ready_is_asked_at_once(void **state)
{
	(void)state;
	connect_one(1);
	assert_int_equal(conn[1].sent, 1);
	assert_int_equal(conn[1].flushed, 1);
	assert_int_equal(conn[1].good, 1);
	assert_true(redis_address_eq(&news[1].at, &conn[1].at));

	redis_sentinels_ask(all, its_time, 0);
	assert_int_equal(conn[0].sent + conn[2].sent, 0);
}

static void all_are_asked_and_not_more_often_than_wanted(void **state)
{
	(void)state;
	static const struct {
		usec_t after, soonest;
		unsigned sent;
	} row[] = {
		{ 0, 500, 1 },
		{ 499, 500, 1 },
		{ 1, 500, 2 },
		{ 499, 500, 2 },
		{ 0, 0, 3 }, /* it is wanted now */
		{ 499, 500, 3 },
		{ 1, 500, 4 },
	};

	for (unsigned i = 0; i < SENTINELS; i++)
		conn[i].is_ready = true;
	for (unsigned k = 0; k < sizeof row / sizeof *row; k++) {
		its_time += row[k].after * USEC_PER_MSEC;
		redis_sentinels_ask(all, its_time, row[k].soonest * USEC_PER_MSEC);
		for (unsigned i = 0; i < SENTINELS; i++) {
			assert_int_equal(conn[i].sent, row[k].sent);
			if (all->sentinel[i].asked)
				answer(i, "192.0.2.9", "6379");
		}
	}
}

static void news_tick_once_a_second(void **state)
{
	(void)state;
	unsigned before;

	redis_sentinels_ask(all, its_time, 0);
	before = news[0].ticks;
	for (unsigned k = 0; k < 10; k++)
		later(100 * USEC_PER_MSEC);
	for (unsigned i = 0; i < SENTINELS; i++)
		assert_int_equal(news[i].ticks, before + 1);
}

static void who_does_not_answer_is_given_up(void **state)
{
	(void)state;
	connect_one(0);
	later(ANSWER_WITHIN);
	assert_int_equal(conn[0].given_up, 0);
	later(1);
	assert_int_equal(conn[0].given_up, 1);
	assert_int_equal(conn[0].sent, 1); /* and never twice without an answer */

	/* Who comes back is asked anew, with a time of its own. */
	lose(0);
	later(ANSWER_WITHIN);
	assert_int_equal(conn[0].given_up, 1);
	connect_one(0);
	assert_int_equal(conn[0].sent, 2);
	later(ANSWER_WITHIN);
	assert_int_equal(conn[0].given_up, 1);
	later(1);
	assert_int_equal(conn[0].given_up, 2);
}

static void who_could_not_be_written_to_owes_no_answer(void **state)
{
	(void)state;
	conn[0].refuses = true;
	connect_one(0);
	later(2 * ANSWER_WITHIN);
	assert_int_equal(conn[0].given_up, 0);
	conn[0].refuses = false;
	later(1);
	assert_int_equal(conn[0].sent, 1);
}

static void who_has_news_is_asked_at_once(void **state)
{
	(void)state;
	connect_one(0);
	answer(0, "192.0.2.9", "6379");
	its_time += NEWS_SOONEST;
	news[0].heard(news[0].owner);
	assert_int_equal(conn[0].sent, 2);
	assert_false(ev_is_active(&all->soon));
}

static void who_has_news_all_the_time_is_asked_now_and_then(void **state)
{
	(void)state;
	connect_one(0);
	answer(0, "192.0.2.9", "6379");
	for (unsigned k = 0; k < 5; k++)
		news[0].heard(news[0].owner);
	assert_int_equal(conn[0].sent, 1);
	assert_true(ev_is_active(&all->soon));

	/* The timer has it asked, once. */
	ev_timer_stop(loop, &all->soon);
	its_time += NEWS_SOONEST;
	ev_invoke(loop, &all->soon, EV_TIMER);
	assert_int_equal(conn[0].sent, 2);
	assert_false(ev_is_active(&all->soon));
	answer(0, "192.0.2.9", "6379");
	its_time += NEWS_SOONEST;
	ev_invoke(loop, &all->soon, EV_TIMER);
	assert_int_equal(conn[0].sent, 2);
}

static void news_while_it_is_asked_are_asked_for_once_more(void **state)
{
	(void)state;
	connect_one(0);
	its_time += NEWS_SOONEST;
	news[0].heard(news[0].owner);
	assert_int_equal(conn[0].sent, 1); /* what it answers may be older than its news */
	assert_true(ev_is_active(&all->soon));
	answer(0, "192.0.2.9", "6379");
	ev_timer_stop(loop, &all->soon);
	ev_invoke(loop, &all->soon, EV_TIMER);
	assert_int_equal(conn[0].sent, 2);
}

static void news_of_who_cannot_be_asked_wait_for_it(void **state)
{
	(void)state;
	connect_one(0);
	lose(0);
	its_time += NEWS_SOONEST;
	news[0].heard(news[0].owner);
	assert_false(ev_is_active(&all->soon));
	connect_one(0);
	assert_int_equal(conn[0].sent, 2);
}

static void each_address_of_a_name_is_tried_in_turn(void **state)
{
	(void)state;
	const struct redis_addresses two = {
		.address = { address("192.0.2.1", 1), address("192.0.2.2", 1) }, .n = 2
	};
	const struct redis_addresses one = { .address = { address("192.0.2.3", 1) }, .n = 1 };
	static const char *const tried[] = { "192.0.2.2", "192.0.2.1", "192.0.2.2" };

	/* A name that is not known yet. */
	sentinel_events.failed(&all->sentinel[0], "unknown", NULL);
	assert_int_equal(failed, 0);

	redis_sentinels_use(all, 0, &two);
	assert_string_equal(conn[0].at.host, "192.0.2.1");
	for (unsigned k = 0; k < 3; k++) {
		sentinel_events.failed(&all->sentinel[0], "refused", NULL);
		assert_string_equal(conn[0].at.host, tried[k]);
		assert_int_equal(failed, k + 1);
	}
	redis_sentinels_use(all, 0, &two); /* nothing new: it goes on where it is */
	assert_string_equal(conn[0].at.host, "192.0.2.2");
	redis_sentinels_use(all, 0, &one);
	assert_string_equal(conn[0].at.host, "192.0.2.3");

	/* Who is connected stays, and goes elsewhere when that ends. */
	conn[0].is_ready = true;
	redis_sentinels_use(all, 0, &two);
	assert_string_equal(conn[0].at.host, "192.0.2.3");
	conn[0].is_ready = false;
	redis_sentinels_use(all, 0, &two);
	assert_string_equal(conn[0].at.host, "192.0.2.1");
}

static void what_most_of_them_say_is_told(void **state)
{
	(void)state;
	connect_one(0);
	connect_one(1);
	connect_one(2);
	answer(0, "192.0.2.8", "6379");
	answer(1, "192.0.2.9", "6380");
	answer(2, "192.0.2.9", "6380");
	assert_int_equal(named, 3);
	assert_int_equal(said.n, 2);
	assert_string_equal(said.address[0].host, "192.0.2.9");
	assert_int_equal(said.address[0].port, 6380);

	/* Who said it last has no word any more, in the end. */
	its_time += REDIS_OPINION_LASTS + 1;
	redis_sentinels_elect(all, its_time);
	assert_int_equal(named, 3);
	answer(0, "192.0.2.8", "6379");
	assert_int_equal(named, 4);
	assert_int_equal(said.n, 1);
	assert_string_equal(said.address[0].host, "192.0.2.8");
}

static void of_as_many_the_one_who_changed_his_mind_last(void **state)
{
	(void)state;
	answer(0, "192.0.2.8", "6379");
	its_time += 1;
	answer(1, "192.0.2.9", "6379");
	its_time += 1;
	answer(0, "192.0.2.8", "6379"); /* as before: no news */
	assert_string_equal(said.address[0].host, "192.0.2.9");
	its_time += 1;
	answer(0, "192.0.2.7", "6379");
	assert_string_equal(said.address[0].host, "192.0.2.7");
}

static void what_is_no_host_and_port_is_no_answer(void **state)
{
	(void)state;
	static const struct {
		const char *host, *port;
		bool is_one;
	} row[] = {
		{ "192.0.2.9", "6379", true },
		{ "::1", "1", true },
		{ "192.0.2.9", "65535", true },
		{ "192.0.2.9", "0", false },
		{ "192.0.2.9", "65536", false },
		{ "192.0.2.9", "", false },
		{ "192.0.2.9", "63x", false },
		{ "192.0.2.9", "1234567", false },
		{ "192.0.2.9", "12345678", false },
		{ "", "6379", false },
		{ "192.0.2.9 ", "6379", false },
		{ "a/b", "6379", false },
		{ "a\r\nb", "6379", false },
	};

	for (unsigned k = 0; k < sizeof row / sizeof *row; k++) {
		unsigned sent, before = named;

		if (!conn[0].is_ready)
			connect_one(0);
		else
			later(1);
		sent = conn[0].sent;
		answer(0, row[k].host, row[k].port);

		assert_int_equal(named - before, row[k].is_one);
		assert_int_equal(resolvers, 0);
		later(1); /* whatever it was, it was an answer */
		assert_int_equal(conn[0].sent, sent + 1);
	}
}

static void what_is_no_list_of_two_texts_is_no_answer(void **state)
{
	(void)state;
	static char host[] = "192.0.2.9", port[] = "6379", error[] = "ERR no", longest[257];
	redisReply h = { .type = REDIS_REPLY_STRING, .str = host, .len = sizeof host - 1 };
	redisReply p = { .type = REDIS_REPLY_STRING, .str = port, .len = sizeof port - 1 };
	redisReply n = { .type = REDIS_REPLY_INTEGER, .integer = 6379 };
	redisReply status = { .type = REDIS_REPLY_STATUS, .str = port, .len = sizeof port - 1 };
	redisReply l = { .type = REDIS_REPLY_STRING, .str = longest, .len = sizeof longest - 1 };
	redisReply *good[] = { &h, &p, &p }, *number[] = { &h, &n }, *no_host[] = { &n, &p },
		   *large[] = { &l, &p }, *statuses[] = { &h, &status },
		   *of_status[] = { &status, &p };
	redisReply row[] = {
		{ .type = REDIS_REPLY_NIL },
		{ .type = REDIS_REPLY_ERROR, .str = error, .len = sizeof error - 1 },
		{ .type = REDIS_REPLY_INTEGER, .integer = 1 },
		{ .type = REDIS_REPLY_ARRAY, .elements = 0, .element = good },
		{ .type = REDIS_REPLY_ARRAY, .elements = 1, .element = good },
		{ .type = REDIS_REPLY_ARRAY, .elements = 3, .element = good },
		{ .type = REDIS_REPLY_ARRAY, .elements = 2, .element = number },
		{ .type = REDIS_REPLY_ARRAY, .elements = 2, .element = no_host },
		{ .type = REDIS_REPLY_ARRAY, .elements = 2, .element = large },
		{ .type = REDIS_REPLY_ARRAY, .elements = 2, .element = statuses },
		{ .type = REDIS_REPLY_ARRAY, .elements = 2, .element = of_status },
		{ .type = REDIS_REPLY_ARRAY, .elements = 2, .element = good },
	};

	memset(longest, 'a', sizeof longest - 1);
	for (unsigned k = 0; k < sizeof row / sizeof *row; k++) {
		sentinel_events.reply(&all->sentinel[0], &row[k]);
		assert_int_equal(named, k + 1 == sizeof row / sizeof *row);
		assert_int_equal(resolvers, 0);
	}
}

static void ring(void)
{
	ev_invoke(loop, &all->bell, EV_ASYNC);
}

static void a_master_by_name_is_looked_up(void **state)
{
	(void)state;
	answer(0, "redis-1", "6379");
	assert_int_equal(resolvers, 1);
	assert_int_equal(named, 0);
	ring(); /* for somebody else */
	assert_int_equal(named, 0);

	resolver[0].r.addresses = (struct redis_addresses){
		.address = { address("192.0.2.9", 6379) }, .n = 1
	};
	resolver[0].r.answered = 1;
	ring();
	assert_int_equal(named, 1);
	assert_string_equal(said.address[0].host, "192.0.2.9");

	/* It is not found any more: what it was before is better than nothing. */
	resolver[0].r.addresses.n = 0;
	(void)snprintf(resolver[0].r.why, sizeof resolver[0].r.why, "no such name");
	resolver[0].r.answered = 2;
	said.n = 0;
	ring();
	assert_int_equal(said.n, 1);

	/* The same again, and another one: whose address is not taken for that of the first. */
	answer(0, "redis-1", "6379");
	assert_int_equal(resolver[0].changes, 0);
	answer(0, "redis-2", "6379");
	assert_int_equal(resolver[0].changes, 1);
	assert_int_equal(resolvers, 1);
	said.n = 0;
	(void)snprintf(resolver[0].r.server.host, sizeof resolver[0].r.server.host, "redis-1");
	resolver[0].r.addresses.n = 1;
	resolver[0].r.answered = 3;
	ring();
	assert_int_equal(said.n, 0);
}

static void only_names_are_looked_up_once_more(void **state)
{
	(void)state;
	redis_sentinels_resolve(all);
	answer(0, "redis-1", "6379");
	answer(1, "192.0.2.9", "6379");
	redis_sentinels_resolve(all);
	assert_int_equal(resolver[0].wakes, 1);
	answer(0, "192.0.2.9", "6379");
	redis_sentinels_resolve(all);
	assert_int_equal(resolver[0].wakes, 1);
}

static void without_a_thread_it_is_tried_with_the_next_answer(void **state)
{
	(void)state;
	has_threads = false;
	answer(0, "redis-1", "6379");
	assert_int_equal(resolvers, 0);
	has_threads = true;
	answer(0, "redis-1", "6379");
	assert_int_equal(resolvers, 1);
}

#define SENTINEL_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SENTINEL_TEST(who_is_ready_is_asked_at_once),
		SENTINEL_TEST(all_are_asked_and_not_more_often_than_wanted),
		SENTINEL_TEST(news_tick_once_a_second),
		SENTINEL_TEST(who_does_not_answer_is_given_up),
		SENTINEL_TEST(who_could_not_be_written_to_owes_no_answer),
		SENTINEL_TEST(who_has_news_is_asked_at_once),
		SENTINEL_TEST(who_has_news_all_the_time_is_asked_now_and_then),
		SENTINEL_TEST(news_while_it_is_asked_are_asked_for_once_more),
		SENTINEL_TEST(news_of_who_cannot_be_asked_wait_for_it),
		SENTINEL_TEST(each_address_of_a_name_is_tried_in_turn),
		SENTINEL_TEST(what_most_of_them_say_is_told),
		SENTINEL_TEST(of_as_many_the_one_who_changed_his_mind_last),
		SENTINEL_TEST(what_is_no_host_and_port_is_no_answer),
		SENTINEL_TEST(what_is_no_list_of_two_texts_is_no_answer),
		SENTINEL_TEST(a_master_by_name_is_looked_up),
		SENTINEL_TEST(only_names_are_looked_up_once_more),
		SENTINEL_TEST(without_a_thread_it_is_tried_with_the_next_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
