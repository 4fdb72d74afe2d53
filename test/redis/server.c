#include "redis/server.h"

#include "store/redis_script.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static struct redis_server *running;

__attribute__((format(printf, 1, 2))) static _Noreturn void give_up(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fputs("redis-server: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(2);
}

static void stop_running(void)
{
	if (running)
		redis_server_stop(running);
}

static _Noreturn void become_server(const struct redis_server *s, pid_t parent)
{
	int null = open("/dev/null", O_RDWR);
	dup2(null, 0);
	dup2(null, 1);
	/* Also where the test is killed. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", s->socket, "--dir",
		s->folder, "--save", "", "--appendonly", "no", "--daemonize", "no", (char *)NULL);
	fprintf(stderr, "redis-server: %s\n", strerror(errno));
	_exit(127);
}

void redis_server_start(struct redis_server *s)
{
	static bool registered;
	pid_t parent = getpid();
	int status;

	*s = (struct redis_server){ .folder = "/tmp/test-redis-XXXXXX" };
	if (!mkdtemp(s->folder))
		give_up("%s: %s", s->folder, strerror(errno));
	snprintf(s->socket, sizeof s->socket, "%s/socket", s->folder);
	s->pid = fork();
	if (s->pid < 0)
		give_up("fork: %s", strerror(errno));
	if (s->pid == 0)
		become_server(s, parent);
	running = s;
	if (!registered)
		atexit(stop_running);
	registered = true;
	for (unsigned i = 0; i < 3000; i++) {
		if (waitpid(s->pid, &status, WNOHANG) == s->pid) {
			s->pid = 0;
			give_up("it does not start");
		}
		s->redis = redisConnectUnix(s->socket);
		if (s->redis && !s->redis->err)
			return;
		redisFree(s->redis);
		s->redis = NULL;
		usleep(10000);
	}
	give_up("nobody listens on %s", s->socket);
}

void redis_server_stop(struct redis_server *s)
{
	if (s->redis)
		redisFree(s->redis);
	if (s->pid > 0) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
	}
	unlink(s->socket);
	rmdir(s->folder);
	*s = (struct redis_server){ 0 };
	running = NULL;
}

redisReply *redis_server_ask(
	struct redis_server *s, unsigned argc, const char *argv[], const size_t argv_bytes[])
{
	redisReply *reply = redisCommandArgv(s->redis, (int)argc, argv, argv_bytes);
	if (!reply)
		give_up("%s", s->redis->errstr);
	return reply;
}

/* The script with every TTL a million times as long: virtual time may pass then as it likes. */
static char *stretched_script(void)
{
	static const char ttl[] = "'PX', ms)\n", stretch[] = " * 1000000";
	const char *from = redis_script, *at;
	char *text = malloc(2 * redis_script_bytes + 1), *end = text;

	if (!text)
		give_up("out of memory");
	while ((at = strstr(from, ttl))) {
		at += sizeof ttl - 3;
		end += sprintf(end, "%.*s%s", (int)(at - from), from, stretch);
		from = at;
	}
	if (end == text)
		give_up("the script sets no TTL where it is looked for");
	strcpy(end, from);
	return text;
}

void redis_server_load(struct redis_server *s, bool stretched, char sha[41])
{
	const char *argv[] = { "SCRIPT", "LOAD", redis_script };
	size_t bytes[] = { 6, 4, redis_script_bytes };
	char *text = stretched ? stretched_script() : NULL;

	if (text) {
		argv[2] = text;
		bytes[2] = strlen(text);
	}
	redisReply *reply = redis_server_ask(s, 3, argv, bytes);
	free(text);
	if (reply->type != REDIS_REPLY_STRING || reply->len != 40)
		give_up("SCRIPT LOAD: %s", reply->str ? reply->str : "no string");
	if (!stretched && strcmp(reply->str, redis_script_sha1) != 0)
		give_up("SCRIPT LOAD: %s, and the build says %s", reply->str, redis_script_sha1);
	memcpy(sha, reply->str, 41);
	freeReplyObject(reply);
}
