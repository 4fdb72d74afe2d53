/* What a call of the script costs Redis, by how many requests share it, and what a key takes of its
 * memory. A few seconds:
 *
 *   redis_bench            calls of 1, 8, 32 and 64 requests of three limits each
 *   redis_bench --memory   a million keys
 *
 * The server's time is its own count of it (INFO commandstats), so that a busy machine shows in the
 * requests a second only. */
#include "redis/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { IN_FLIGHT = 16, CLIENTS = 100000 };

static struct redis_server server;
static char sha[41];

static struct rule rules[3];
static struct limit limits[3] = {
	{ .quota = { ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, 60 * USEC_PER_SEC }, 1000, 1000 } },
	{ .quota = { ALGORITHM_SLIDING_WINDOW, { WINDOW_LENGTH, 3600 * USEC_PER_SEC }, 10000,
		  10000 } },
	{ .quota = { ALGORITHM_FIXED_WINDOW, { WINDOW_LENGTH, 60 * USEC_PER_SEC }, 1000000000,
		  1000000000 } },
};

static uint64_t state = 1;

static uint64_t draw(void)
{
	uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static uint64_t mixed(uint64_t n)
{
	state = n;
	return draw();
}

static redisReply *good(redisReply *r)
{
	if (r && r->type != REDIS_REPLY_ERROR)
		return r;
	fprintf(stderr, "redis: %s\n", r ? r->str : server.redis->errstr);
	exit(2);
}

/* The number after `name` in what INFO says. */
static double info(const char *section, const char *name)
{
	redisReply *r = good(redisCommand(server.redis, "INFO %s", section));
	const char *at = strstr(r->str, name);
	double value = at ? strtod(at + strlen(name), NULL) : 0;
	freeReplyObject(r);
	return value;
}

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct redis_call call[IN_FLIGHT];
static struct plan plans[IN_FLIGHT][REDIS_CALL_PLANS];

static void send_call(unsigned slot)
{
	static struct redis_args args;
	redis_call_args(&call[slot], &args, "rl:", sha, NULL);
	redisAppendCommandArgv(server.redis, (int)args.n, args.argv, args.bytes);
}

static void read_call(unsigned slot)
{
	void *reply = NULL;
	redisGetReply(server.redis, &reply);
	redisReply *r = good(reply);
	if (!redis_call_read(&call[slot], r->str, r->len)) {
		fputs("not the script's reply\n", stderr);
		exit(2);
	}
	freeReplyObject(r);
}

static void three_limits(struct redis_call *c, struct plan *p)
{
	struct key client[3] = { { mixed(draw() % CLIENTS), 2 }, { mixed(draw() % CLIENTS), 3 },
		{ 1, 1 } };

	p->n = 3;
	for (unsigned i = 0; i < 3; i++)
		p->take[i] = (struct take){ .limit = &limits[i], .key = client[i], .cost = 1 };
	redis_call_add(c, p);
}

/* `alone`: what one a call gave; 0: this is it; below: nothing is said. */
static double measure_calls(unsigned requests, double alone)
{
	unsigned calls = 400000 / (requests + 3);
	uint64_t at = 1;

	freeReplyObject(good(redisCommand(server.redis, "CONFIG RESETSTAT")));
	double began = seconds();
	for (unsigned i = 0; i < calls + IN_FLIGHT; i++) {
		unsigned slot = i % IN_FLIGHT;
		if (i >= IN_FLIGHT)
			read_call(slot);
		if (i >= calls)
			continue;
		redis_call_clear(&call[slot]);
		for (unsigned k = 0; k < requests; k++) {
			state = at++ * UINT64_C(0x2545f4914f6cdd1d);
			three_limits(&call[slot], &plans[slot][k]);
		}
		send_call(slot);
	}
	double took = seconds() - began;
	redisReply *r = good(redisCommand(server.redis, "INFO commandstats"));
	const char *line = strstr(r->str, "cmdstat_evalsha:");
	const char *usec = line ? strstr(line, "usec_per_call=") : NULL;
	double per_call = usec ? strtod(usec + 14, NULL) : 0;
	freeReplyObject(r);
	double rate = calls * (double)requests / took;
	if (alone >= 0)
		printf("%2u requests a call: %7.0f requests/s (%.2f of one a call); in Redis "
		       "%.1f us a call, %.2f us a request\n",
			requests, rate, alone > 0 ? rate / alone : 1, per_call,
			per_call / requests);
	return rate;
}

static void measure_memory(void)
{
	enum { KEYS = 1000000, A_CALL = 64 };
	double before = info("memory", "used_memory:");

	for (unsigned i = 0; i < KEYS; i += A_CALL) {
		redis_call_clear(&call[0]);
		for (unsigned k = 0; k < A_CALL && i + k < KEYS; k++) {
			struct plan *p = &plans[0][k];
			p->n = 1;
			p->take[0] = (struct take){ .limit = &limits[1],
				.key = { mixed(i + k), mixed(~(uint64_t)(i + k)) },
				.cost = 1 };
			redis_call_add(&call[0], p);
		}
		send_call(0);
		read_call(0);
	}
	redisReply *r = good(redisCommand(server.redis, "DBSIZE"));
	double bytes = info("memory", "used_memory:") - before;
	printf("%lld keys: %.1f bytes each\n", r->integer, bytes / (double)r->integer);
	freeReplyObject(r);
}

int main(int argc, char **argv)
{
	for (unsigned i = 0; i < 3; i++) {
		const struct quota *q = &limits[i].quota;
		limits[i].rule = &rules[i];
		limits[i].slowest_interval = (double)q->window.length / (double)q->units;
		limits[i].slowest_refill = (double)q->window.length;
	}
	redis_server_start(&server);
	redis_server_load(&server, false, sha);
	if (argc > 1 && strcmp(argv[1], "--memory") == 0) {
		measure_memory();
	} else {
		(void)measure_calls(8, -1); /* most clients are known then */
		double alone = measure_calls(1, 0);
		measure_calls(8, alone);
		measure_calls(32, alone);
		measure_calls(64, alone);
	}
	redis_server_stop(&server);
	return 0;
}
