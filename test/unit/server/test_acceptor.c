/* A listener that its loop cannot watch for a while, or that gives nobody. (What it accepts, whom
 * it refuses and what it does without descriptors: system tests.) */
#include "server/acceptor.h"

#include "loaded.h"
#include "server/balancer.h"
#include "store/memory.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* In the place of libc's: how often it has refused one as where no memory is left. */
static unsigned refusals, refused;

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	if (op == EPOLL_CTL_ADD && refused < refusals) {
		refused++;
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, epfd, op, fd, event);
}

/* So is accept4(): how often it gives nobody, as where a security module forbids it. */
static unsigned forbidden, first_turn, last_turn, turns;

int accept4(int fd, struct sockaddr *from, socklen_t *n, int flags)
{
	if (forbidden) {
		forbidden--;
		first_turn = first_turn ? first_turn : turns;
		last_turn = turns;
		errno = EPERM;
		return -1;
	}
	return (int)syscall(SYS_accept4, fd, from, n, flags);
}

/* An address of the kernel's choice. */
static int listen_somewhere(struct sockaddr_un *at, socklen_t *n)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*at = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*n = sizeof *at;
	assert_int_equal(bind(fd, (struct sockaddr *)at, sizeof at->sun_family), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)at, n), 0);
	return fd;
}

static void wait_until_accepted(void)
{
	static const struct hash_key key = { .bytes = { 1 } };
	struct snapshot *s = loaded("log: { level = \"error\"; };", &key, 1);
	struct memory_store *store = memory_store_new(1000, &key, clock_read());
	struct metrics *m = aligned_alloc(64, (sizeof *m + 63) / 64 * 64);
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	struct listeners ls = { .n = 1, .at = { { .text = "here", .path = "here" } } };
	struct sockaddr_un at;
	socklen_t n;
	ev_async bell;

	memset(m, 0, sizeof *m);
	ls.at[0].fd = listen_somewhere(&at, &n);
	struct worker *w = worker_new(&(struct worker_args){
		.number = 1, .snapshot = s, .memory = store, .home = loop, .bell = &bell });
	assert_non_null(w);
	struct balancer *b = balancer_new(&w, 1, 1);
	struct acceptor *a = acceptor_new(loop, &ls, &w, 1, b, m, s);
	assert_non_null(a);
	int peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(peer, (struct sockaddr *)&at, n), 0);
	for (turns = 1; turns < 10000 && worker_mailbox_empty(w); turns++) {
		(void)ev_run(loop, EVRUN_NOWAIT);
		(void)poll(NULL, 0, 1);
	}
	assert_false(worker_mailbox_empty(w));
	(void)close(peer);
	acceptor_free(a);
	balancer_free(b);
	worker_free(w);
	store_close(memory_store_base(store));
	(void)close(ls.at[0].fd);
	drop(s);
	ev_loop_destroy(loop);
	free(m);
}

static void it_is_watched_again(void **state)
{
	(void)state;
	refusals = 2;
	wait_until_accepted();
	assert_int_equal(refused, 2);
}

/* It must not turn and turn for that. */
static void it_is_left_alone_for_a_while(void **state)
{
	enum { A_TURN = 64 };
	(void)state;
	forbidden = 2 * A_TURN;
	wait_until_accepted();
	assert_int_equal(forbidden, 0);
	assert_true(last_turn - first_turn > 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(it_is_watched_again),
		cmocka_unit_test(it_is_left_alone_for_a_while) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
