/* A connection that goes where the hub says, and where a node sends it. Hub, connection and clock
 * are played here: no socket, and no time passes. */
#include "store/redis_follow.h"

#include "store/redis_hub.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { SLOT = 3999 };

/* ---- what is played ---- */

static struct redis_addresses said; /* by the hub */
static bool is_cluster;
static unsigned asked_again, listeners, moved;
static usec_t now;
static struct redis_address at; /* of the connection; "": none */
static bool at_master;

usec_t clock_steady(void)
{
	return now;
}

void redis_hub_listen(struct redis_hub *h, struct redis_listener *l)
{
	(void)h;
	listeners++;
	ev_async_send(l->loop, l->bell);
}

void redis_hub_leave(struct redis_hub *h, struct redis_listener *l)
{
	(void)h;
	(void)l;
	listeners--;
}

bool redis_hub_is_cluster(const struct redis_hub *h)
{
	(void)h;
	return is_cluster;
}

struct redis_addresses redis_hub_addresses_of(struct redis_hub *h, uint16_t slot)
{
	(void)h;
	assert_int_equal(slot, SLOT);
	return said;
}

void redis_hub_ask_again(struct redis_hub *h)
{
	(void)h;
	asked_again++;
}

bool redis_conn_use(struct redis_conn *c, const struct redis_address *a, bool master_only)
{
	(void)c;
	bool was = at.host[0];
	if (a && was && redis_address_eq(&at, a) && at_master == master_only)
		return false;
	at = a ? *a : (struct redis_address){ 0 };
	at_master = master_only;
	return a || was;
}

void redis_conn_aim(struct redis_conn *c, const struct redis_address *a, bool master_only)
{
	(void)redis_conn_use(c, a, master_only);
}

/* ---- whose it is ---- */

static struct ev_loop *loop;
static struct redis_follow f;

static void on_moved(void *owner)
{
	assert_ptr_equal(owner, &f);
	moved++;
}

static struct redis_address address(char letter)
{
	struct redis_address a = { .port = (uint16_t)letter };

	(void)snprintf(a.host, sizeof a.host, "10.0.0.1");
	return a;
}

/* The hub says these, a letter each, and rings. */
static void tell(const char *letters, bool master_only)
{
	said = (struct redis_addresses){ .generation = said.generation + 1,
		.master_only = master_only };
	for (; *letters; letters++)
		said.address[said.n++] = address(*letters);
	ev_async_send(loop, &f.bell);
	ev_run(loop, EVRUN_NOWAIT);
}

/* Where the connection is, and what redis_follow_place() says of it: '-' is nowhere. */
static void expect_at(char letter, unsigned moves)
{
	const struct redis_address *place = redis_follow_place(&f);

	assert_int_equal(at.host[0] ? at.port : '-', letter);
	assert_int_equal(place ? place->port : '-', letter);
	assert_int_equal(moved, moves);
}

static enum redis_redirect redirect(const char *kind, unsigned slot, char letter)
{
	char text[64];

	(void)snprintf(text, sizeof text, "%s %u 10.0.0.1:%d", kind, slot, letter);
	return redis_follow_redirect(&f, text);
}

static int setup(void **state)
{
	(void)state;
	loop = ev_loop_new(EVFLAG_AUTO);
	assert_non_null(loop);
	said = (struct redis_addresses){ 0 };
	at = (struct redis_address){ 0 };
	is_cluster = at_master = false;
	asked_again = listeners = moved = 0;
	now = 1000 * USEC_PER_SEC;
	redis_follow_start(&f, NULL, NULL, SLOT, loop, on_moved, &f);
	ev_run(loop, EVRUN_NOWAIT);
	assert_int_equal(listeners, 1);
	expect_at('-', 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	redis_follow_stop(&f);
	assert_int_equal(listeners, 0);
	ev_loop_destroy(loop);
	return 0;
}

/* ---- tests ---- */

static void it_goes_where_the_hub_says(void **state)
{
	(void)state;
	tell("ab", true);
	expect_at('a', 1);
	assert_true(at_master);
	tell("ac", true); /* it is there */
	expect_at('a', 1);
	tell("ac", false);
	expect_at('a', 2);
	assert_false(at_master);
	tell("c", false);
	expect_at('c', 3);
	tell("", false);
	expect_at('-', 4);
	assert_int_equal(asked_again, 0);
}

static void where_one_fails_the_next_is_tried(void **state)
{
	(void)state;
	redis_follow_failed(&f); /* nowhere: there is no next */
	expect_at('-', 0);
	tell("abc", true);
	static const char tried[] = "bcab";
	for (unsigned i = 0; tried[i]; i++) {
		redis_follow_failed(&f);
		expect_at(tried[i], 1);
		assert_true(at_master);
		assert_int_equal(asked_again, i + 2);
	}
	/* The bell rings for another slot: what is tried is tried on. */
	ev_async_send(loop, &f.bell);
	ev_run(loop, EVRUN_NOWAIT);
	expect_at('b', 1);
	tell("xy", true); /* from the first on */
	expect_at('x', 2);
}

static void it_goes_where_a_node_sends_it(void **state)
{
	(void)state;
	is_cluster = true;
	tell("a", false);
	assert_int_equal(redirect("MOVED", SLOT, 'b'), REDIRECT_MOVED);
	expect_at('b', 2);
	assert_int_equal(asked_again, 1);
	/* Until the hub has something else to say. */
	tell("c", false);
	expect_at('c', 3);
	assert_int_equal(redirect("MOVED", SLOT, 'b'), REDIRECT_MOVED);
	expect_at('b', 4);
	/* Or nobody is there. */
	redis_follow_failed(&f);
	expect_at('c', 4);
	/* To where it is: nothing is closed. */
	assert_int_equal(redirect("MOVED", SLOT, 'c'), REDIRECT_MOVED);
	expect_at('c', 4);
	assert_int_equal(asked_again, 4);
}

static void what_sends_it_nowhere(void **state)
{
	(void)state;
	tell("a", false);
	assert_int_equal(redirect("MOVED", SLOT, 'b'), REDIRECT_NONE); /* it is no cluster */
	is_cluster = true;
	assert_int_equal(redirect("MOVED", SLOT + 1, 'b'), REDIRECT_NONE);
	assert_int_equal(redirect("ERR", SLOT, 'b'), REDIRECT_NONE);
	assert_int_equal(asked_again, 0);
	assert_int_equal(redirect("ASK", SLOT, 'b'), REDIRECT_ASK);
	assert_int_equal(redis_follow_redirect(&f, "TRYAGAIN x"), REDIRECT_TRYAGAIN);
	assert_int_equal(redis_follow_redirect(&f, "MOVED 3999 node.example:7"), REDIRECT_MOVED);
	assert_int_equal(asked_again, 1);
	expect_at('a', 1);
}

/* Two nodes may each say that the other has it. */
static void it_is_sent_a_few_times_a_second(void **state)
{
	(void)state;
	is_cluster = true;
	tell("a", false);
	for (unsigned second = 0; second < 3; second++, now += USEC_PER_SEC + 1) {
		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(
				redirect("MOVED", SLOT, i % 2 ? 'a' : 'b'), REDIRECT_MOVED);
		expect_at('a', 5 + 4 * second);
		assert_int_equal(redirect("MOVED", SLOT, 'b'), REDIRECT_MOVED);
		expect_at('a', 5 + 4 * second);
	}
}

static void it_is_opened_anew_where_it_is(void **state)
{
	(void)state;
	redis_follow_anew(&f);
	expect_at('-', 1);
	is_cluster = true;
	tell("ab", true);
	redis_follow_failed(&f);
	redis_follow_anew(&f);
	expect_at('b', 3);
	assert_true(at_master);
	(void)redirect("MOVED", SLOT, 'z');
	redis_follow_anew(&f);
	expect_at('z', 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_goes_where_the_hub_says, setup, teardown),
		cmocka_unit_test_setup_teardown(where_one_fails_the_next_is_tried, setup, teardown),
		cmocka_unit_test_setup_teardown(it_goes_where_a_node_sends_it, setup, teardown),
		cmocka_unit_test_setup_teardown(what_sends_it_nowhere, setup, teardown),
		cmocka_unit_test_setup_teardown(it_is_sent_a_few_times_a_second, setup, teardown),
		cmocka_unit_test_setup_teardown(it_is_opened_anew_where_it_is, setup, teardown),
	};
	return cmocka_run_group_tests_name("store/redis_follow", tests, NULL, NULL);
}
