/* A connection, and a peer that says what a test tells it to say: what becomes of either's words,
 * and when it ends. No server, no other process. */
#include "redis_rig.h"
#include "store/redis_conn.h"

#include <sys/socket.h>
#include <sys/un.h>

enum { REPLY_MAX = 4096 };

/* ---- the peer ---- */

static int listener = -1, peer = -1;
static char heard[65536];
static size_t heard_n;
static unsigned accepted;

static struct redis_address address_of(const char *name)
{
	struct redis_address a = { 0 };

	snprintf(a.host, sizeof a.host, "%s/%s", folder, name);
	return a;
}

static int listen_at(const char *name)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(a.sun_path, sizeof a.sun_path, "%s/%s", folder, name);
	(void)unlink(a.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

static void hang_up(void)
{
	if (peer >= 0)
		close(peer);
	peer = -1;
}

static bool comes(void)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);

	if (fd < 0)
		return false;
	hang_up();
	peer = fd;
	accepted++;
	heard_n = 0;
	heard[0] = '\0';
	return true;
}

/* Also what came before. */
static bool has_heard(const char *word)
{
	ssize_t n = peer < 0 ? 0 : read(peer, heard + heard_n, sizeof heard - 1 - heard_n);

	heard_n += n > 0 ? (size_t)n : 0;
	heard[heard_n] = '\0';
	return strstr(heard, word);
}

static void say(const char *text)
{
	size_t n = strlen(text);
	assert_int_equal(write(peer, text, n), n);
}

static bool is_hung_up_on(void)
{
	char c;
	ssize_t n;

	while ((n = read(peer, &c, 1)) > 0)
		continue;
	return n == 0;
}

/* ---- whose connection it is ---- */

static struct redis_conn *conn;
static unsigned ready, lost, failed, replies;
static char why[200], replied[4096];
static bool inside; /* some function of it: nothing is called back */
static const struct redis_address *aim_at;

static void on_ready(void *owner)
{
	(void)owner;
	assert_false(inside);
	ready++;
}

static void on_lost(void *owner, const char *reason)
{
	(void)owner;
	assert_false(inside);
	lost++;
	snprintf(why, sizeof why, "%s", reason);
}

static void on_failed(void *owner, const char *reason, const char *hint)
{
	(void)owner;
	assert_false(inside);
	failed++;
	snprintf(why, sizeof why, "%s; %s", reason, hint ? hint : "");
	if (aim_at)
		redis_conn_aim(conn, aim_at, false);
}

static void note(const redisReply *r)
{
	size_t n = strlen(replied);

	if (r->type == REDIS_REPLY_ARRAY)
		for (size_t i = 0; i < r->elements; i++)
			note(r->element[i]);
	else
		snprintf(replied + n, sizeof replied - n, "%.20s ",
			r->type == REDIS_REPLY_INTEGER ? "number" : r->str);
}

static void on_reply(void *owner, const redisReply *r)
{
	(void)owner;
	assert_false(inside);
	replies++;
	note(r);
}

static const struct redis_conn_events conn_events = { on_ready, on_lost, on_failed, on_reply };

static struct redis_conn_settings cs;

static void start(void)
{
	loop = ev_loop_new(EVFLAG_AUTO);
	ev_timer_init(&tick, on_nothing, 0.0005, 0.0005);
	ev_timer_start(loop, &tick);
	listener = listen_at("one");
	ready = lost = failed = replies = accepted = 0;
	why[0] = replied[0] = '\0';
	aim_at = NULL;
	conn = redis_conn_new(&cs, &conn_events, NULL, loop);
	assert_non_null(conn);
}

static bool use(const char *name)
{
	struct redis_address a = name ? address_of(name) : (struct redis_address){ 0 };

	inside = true;
	bool is_other = redis_conn_use(conn, name ? &a : NULL, false);
	inside = false;
	return is_other;
}

static void end_of_it(void)
{
	inside = true;
	redis_conn_free(conn);
	inside = false;
	hang_up();
	close(listener);
	ev_timer_stop(loop, &tick);
	ev_loop_destroy(loop);
	char file[100];
	snprintf(file, sizeof file, "%s/one", folder);
	(void)unlink(file);
}

static void open_it(void)
{
	unsigned before = ready;

	UNTIL(comes());
	UNTIL(has_heard("PING"));
	say("+PONG\r\n");
	UNTIL(ready > before);
}

static void started(void)
{
	start();
	assert_true(use("one"));
	open_it();
}

static bool sends(const char *word)
{
	const char *argv[] = { word };
	size_t bytes[] = { strlen(word) };

	inside = true;
	bool sent = redis_conn_send(conn, 1, argv, bytes);
	redis_conn_flush(conn);
	inside = false;
	return sent;
}

static int set_up(void **state)
{
	(void)begin(state);
	cs = (struct redis_conn_settings){ .open_within = PATIENT, .reply_max = REPLY_MAX };
	return 0;
}

/* ---- tests ---- */

static void replies_come_in_order(void **state)
{
	(void)state;
	start();
	assert_false(redis_conn_is_ready(conn));
	assert_false(sends("EARLY"));
	assert_true(use("one"));
	assert_false(sends("EARLY"));
	open_it();
	assert_true(redis_conn_is_ready(conn));
	assert_true(sends("ONE") && sends("TWO") && sends("THREE"));
	/* All of it was written at once. */
	assert_true(has_heard("THREE") && !has_heard("EARLY"));
	say("+1\r\n-2\r\n*2\r\n$1\r\n3\r\n:4\r\n");
	UNTIL(replies == 3);
	assert_string_equal(replied, "1 2 3 number ");
	assert_int_equal(ready, 1);
	assert_int_equal(lost + failed, 0);
	end_of_it();
}

static void what_ends_it(void **state)
{
	static const struct {
		const char *title, *asks, *says, *why; /* says NULL: it hangs up */
		unsigned replies;
		bool too_large;
	} row[] = {
		{ "it hangs up", "X", NULL, "closed", 0, false },
		{ "a reply that nobody asked for", NULL, "+OK\r\n", "nobody asked for", 0, false },
		{ "one too many", "X", "+OK\r\n+OK\r\n", "nobody asked for", 1, false },
		{ "no reply", "X", "HTTP/1.1 400\r\n", "rotocol", 0, false },
		{ "elements that are too many", "X", "*4097\r\n:1\r\n", "larger", 0, true },
		{ "elements that would be too large", "X", "*200\r\n:1\r\n", "larger", 0, true },
	};
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		started();
		if (row[i].asks) {
			assert_true(sends(row[i].asks));
			UNTIL(has_heard(row[i].asks));
		}
		if (row[i].says)
			say(row[i].says);
		else
			hang_up();
		UNTIL(lost);
		if (!strstr(why, row[i].why))
			fail_msg("%s: %s", row[i].title, why);
		if (replies != row[i].replies)
			fail_msg("%s: %u replies", row[i].title, replies);
		assert_false(redis_conn_is_ready(conn));
		assert_false(sends("X"));
		if (redis_conn_was_too_large(conn) != row[i].too_large)
			fail_msg("%s: too large?", row[i].title);
		assert_int_equal(lost, 1);
		assert_int_equal(failed, 0);
		/* And again, until the next time. */
		open_it();
		assert_false(redis_conn_was_too_large(conn));
		assert_int_equal(ready, 2);
		/* What was to come of the first is nothing of the second's. */
		say("+OK\r\n");
		UNTIL(lost == 2);
		assert_int_equal(replies, row[i].replies);
		end_of_it();
	}
}

/* What each of them may be, and not their sum. */
static void replies_that_are_just_small_enough(void **state)
{
	static char text[REPLY_MAX + 64];
	size_t n = REPLY_MAX - sizeof(redisReply);
	(void)state;

	started();
	for (unsigned i = 0; i < 5; i++) {
		assert_true(sends("X"));
		int at = snprintf(text, sizeof text, "$%zu\r\n", n);
		memset(text + at, 'x', n);
		memcpy(text + at + n, "\r\n", 3);
		say(text);
		UNTIL(replies == i + 1);
	}
	/* Several strings of one reply share it. */
	assert_true(sends("X"));
	int at = snprintf(text, sizeof text, "*2\r\n");
	for (unsigned i = 0; i < 2; i++) {
		at += snprintf(text + at, sizeof text - (size_t)at, "$%zu\r\n", n / 2);
		memset(text + at, 'x', n / 2);
		at += (int)(n / 2);
		at += snprintf(text + at, sizeof text - (size_t)at, "\r\n");
	}
	say(text);
	UNTIL(lost);
	assert_true(redis_conn_was_too_large(conn));
	assert_int_equal(replies, 5);
	end_of_it();
}

/* A line without an end has no length that it announces. */
static void a_line_without_an_end(void **state)
{
	static char text[2 * REPLY_MAX];
	(void)state;

	started();
	assert_true(sends("X"));
	memset(text, 'x', sizeof text - 1);
	text[0] = '-';
	say(text);
	UNTIL(lost);
	assert_true(redis_conn_was_too_large(conn));
	end_of_it();
}

static void where_to(void **state)
{
	(void)state;
	started();
	/* It is there. */
	assert_false(use("one"));
	assert_true(redis_conn_is_ready(conn));
	/* Elsewhere: what is open is closed, and nobody is told. */
	assert_true(sends("X"));
	int first = listener;
	listener = listen_at("two");
	assert_true(use("two"));
	assert_false(redis_conn_is_ready(conn));
	UNTIL(is_hung_up_on());
	open_it();
	assert_int_equal(accepted, 2);
	assert_int_equal(ready, 2);
	/* A master is asked who he is. */
	struct redis_address two = address_of("two");
	assert_true(redis_conn_use(conn, &two, true));
	assert_false(redis_conn_use(conn, &two, true));
	UNTIL(comes());
	UNTIL(has_heard("ROLE") && has_heard("PING"));
	say("*1\r\n$5\r\nslave\r\n");
	UNTIL(failed);
	assert_string_equal(why, "it is no master; a failover may be under way");
	UNTIL(comes());
	UNTIL(has_heard("ROLE") && has_heard("PING"));
	say("*1\r\n$6\r\nmaster\r\n+PONG\r\n");
	UNTIL(ready == 3);
	/* Nowhere. */
	assert_true(use(NULL));
	assert_false(use(NULL));
	UNTIL(is_hung_up_on());
	assert_false(redis_conn_is_ready(conn));
	assert_false(comes());
	/* And back: it is another connection, though the place is the same. */
	assert_true(use("two"));
	open_it();
	assert_int_equal(lost, 0);
	assert_int_equal(failed, 1);
	close(first);
	end_of_it();
	char file[100];
	snprintf(file, sizeof file, "%s/two", folder);
	(void)unlink(file);
}

static void one_that_does_not_answer(void **state)
{
	(void)state;
	cs.open_within = 20 * USEC_PER_MSEC;
	start();
	(void)use("one");
	UNTIL(failed >= 2);
	assert_string_equal(why, "it does not answer in time; ");
	assert_int_equal(ready + lost, 0);
	end_of_it();
}

static void one_that_cannot_be_opened(void **state)
{
	(void)state;
	start();
	(void)use("nobody");
	UNTIL(failed >= 2);
	assert_true(why[0]);
	(void)use("one");
	failed = 0;
	UNTIL(comes());
	hang_up();
	UNTIL(failed == 1);
	UNTIL(comes());
	say("+OK\r\n");
	UNTIL(failed == 2);
	assert_int_equal(ready + lost, 0);
	open_it();
	assert_int_equal(failed, 2);
	end_of_it();
}

static void who_gives_it_up(void **state)
{
	(void)state;
	start();
	redis_conn_give_up(conn, "not begun");
	run_for(USEC_PER_MSEC);
	assert_int_equal(lost + failed, 0);
	(void)use("one");
	inside = true;
	redis_conn_give_up(conn, "early");
	redis_conn_give_up(conn, "again");
	inside = false;
	UNTIL(failed);
	assert_string_equal(why, "early; ");
	UNTIL(comes());
	UNTIL(is_hung_up_on());
	open_it();
	inside = true;
	redis_conn_give_up(conn, "late");
	redis_conn_give_up(conn, "again");
	inside = false;
	assert_false(redis_conn_is_ready(conn));
	UNTIL(lost);
	assert_string_equal(why, "late");
	assert_int_equal(failed, 1);
	assert_int_equal(lost, 1);
	end_of_it();
}

/* From then on it may say what it likes. */
static void who_subscribes(void **state)
{
	const char *channel[] = { "a", "b" };
	(void)state;

	start();
	assert_false(redis_conn_subscribe(conn, 2, channel));
	(void)use("one");
	open_it();
	inside = true;
	assert_true(redis_conn_subscribe(conn, 2, channel));
	redis_conn_flush(conn);
	inside = false;
	UNTIL(has_heard("SUBSCRIBE\r\n$1\r\na\r\n$1\r\nb\r\n"));
	say("+PONG\r\n");
	for (unsigned i = 0; i < 20; i++)
		say("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n");
	UNTIL(replies == 21);
	assert_true(sends("PING"));
	say("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
	UNTIL(replies == 22);
	assert_int_equal(lost, 0);
	hang_up();
	UNTIL(lost);
	/* The next one has not subscribed. */
	open_it();
	say("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n");
	UNTIL(lost == 2);
	assert_int_equal(replies, 22);
	end_of_it();
}

/* Who he is, he says where he is asked, and to nobody else: neither to the next in the list, nor
 * where he is sent. */
static void who_is_asked_says_who_he_is(void **state)
{
	struct redis_address two = address_of("two");
	(void)state;

	cs.auth_if_asked = true;
	snprintf(cs.password, sizeof cs.password, "secret");
	for (unsigned is_sent = 0; is_sent < 2; is_sent++) {
		start();
		(void)use("one");
		UNTIL(comes());
		UNTIL(has_heard("PING"));
		assert_false(has_heard("AUTH"));
		say("-NOAUTH Authentication required.\r\n");
		UNTIL(failed == 1);
		UNTIL(comes());
		UNTIL(has_heard("AUTH\r\n$6\r\nsecret") && has_heard("PING"));
		int first = listener;
		listener = listen_at("two");
		if (is_sent) {
			(void)use("two");
		} else {
			aim_at = &two;
			hang_up();
			UNTIL(failed == 2);
		}
		UNTIL(comes());
		UNTIL(has_heard("PING"));
		assert_false(has_heard("AUTH"));
		say("+PONG\r\n");
		UNTIL(ready);
		close(first);
		end_of_it();
		char file[100];
		snprintf(file, sizeof file, "%s/two", folder);
		(void)unlink(file);
	}
}

/* Whatever was to come, nothing comes. */
static void it_can_end_at_any_time(void **state)
{
	(void)state;
	cs.open_within = USEC_PER_MSEC;
	for (unsigned i = 0; i < 6; i++) {
		start();
		if (i > 0)
			(void)use(i == 1 ? "nobody" : "one");
		if (i == 2)
			UNTIL(failed); /* it waits to try again */
		if (i == 3)
			redis_conn_give_up(conn, "this is still to be told");
		if (i == 4)
			UNTIL(comes());
		if (i == 5)
			(void)use(NULL);
		unsigned before = failed;
		redis_conn_free(conn);
		conn = NULL;
		run_for(5 * USEC_PER_MSEC);
		assert_int_equal(ready + lost, 0);
		assert_int_equal(failed, before);
		end_of_it();
	}
}

static void delays_double_up_to_a_bound(void **state)
{
	static const usec_t want_ms[] = { 50, 100, 200, 400, 800, 1600, 2000, 2000, 2000 };
	uint64_t seed = 1, other = 2;
	(void)state;

	usec_t last = 0, last_of_other = 0;
	unsigned same = 0;
	for (size_t i = 0; i < sizeof want_ms / sizeof *want_ms; i++) {
		usec_t want = want_ms[i] * USEC_PER_MSEC, got = redis_backoff(&last, &seed);
		assert_int_equal(last, want);
		if (got < want / 2 || got >= want)
			fail_msg("%lld after %lld", (long long)got, (long long)want);
		same += redis_backoff(&last_of_other, &other) == got;
	}
	assert_true(same < 2); /* not all come back at once */
}

#define CONN_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, end)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CONN_TEST(replies_come_in_order),
		CONN_TEST(what_ends_it),
		CONN_TEST(replies_that_are_just_small_enough),
		CONN_TEST(a_line_without_an_end),
		CONN_TEST(where_to),
		CONN_TEST(one_that_does_not_answer),
		CONN_TEST(one_that_cannot_be_opened),
		CONN_TEST(who_gives_it_up),
		CONN_TEST(who_subscribes),
		CONN_TEST(who_is_asked_says_who_he_is),
		CONN_TEST(it_can_end_at_any_time),
		cmocka_unit_test(delays_double_up_to_a_bound),
	};
	if (!tests_begin(argc, argv))
		return 2;
	int rc = cmocka_run_group_tests_name("store/redis_conn", tests, NULL, NULL);
	tests_end();
	return rc;
}
