/* A redis-server of a test's own: no port, a UNIX socket in a folder of its own, nothing on disk.
 * It ends with the test, however that ends. */
#ifndef TEST_REDIS_SERVER_H
#define TEST_REDIS_SERVER_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <sys/types.h>

struct redis_server {
	pid_t pid;
	char folder[64], socket[80];
	redisContext *redis; /* connected */
};

/* Says on stderr what is wrong and exits with status 2 if it cannot. One at a time. */
void redis_server_start(struct redis_server *);
void redis_server_stop(struct redis_server *);

/* Loads the agent's script; `sha` is what EVALSHA wants. With `stretched`, keys live REDIS_STRETCH
 * times as long as the script would have them: where the clock is virtual and stands still, that of
 * the server must not take a key away. */
#define REDIS_STRETCH 1000000LL
void redis_server_load(struct redis_server *, bool stretched, char sha[41]);

/* As redisCommandArgv(): never NULL, and an error is the caller's to look at. */
redisReply *redis_server_ask(
	struct redis_server *, unsigned argc, const char *argv[], const size_t argv_bytes[]);

#endif
