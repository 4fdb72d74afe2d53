/* Peers at the socket of a Redis that are none: they say what a test tells them to say. */
#ifndef TEST_STORE_REDIS_FAKE_H
#define TEST_STORE_REDIS_FAKE_H

#include "redis_rig.h"
#include "store/redis_script.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

static const char *on_connect, *on_load, *on_call; /* NULL: silence; "": closes */
static size_t on_call_bytes;
static useconds_t on_call_after;
static _Atomic(unsigned) *asked_for_master; /* times; it is shared with the fake */

static inline bool has(const char *p, size_t n, const char *word)
{
	return memmem(p, n, word, strlen(word)) != NULL;
}

static inline bool say(int fd, const char *text, size_t n)
{
	if (!text)
		return true;
	return n && write(fd, text, n) == (ssize_t)n;
}

static inline void serve(int fd)
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

static inline void run_fake(void)
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

static inline void fake_start(
	const char *connect, const char *load, const char *call, size_t call_bytes)
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

/* Before the first of them. */
static inline bool fakes_begin(void)
{
	asked_for_master = mmap(NULL, sizeof *asked_for_master, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return asked_for_master != MAP_FAILED;
}

#endif
