#include "server/crew.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WATCHES_EACH = 2 }; /* of a loop, at least */

unsigned crew_cores(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n > 0 ? (unsigned)n : 1;
}

static unsigned usable_cores(void)
{
	cpu_set_t set;
	if (sched_getaffinity(0, sizeof set, &set) == 0)
		return (unsigned)CPU_COUNT(&set);
	return crew_cores();
}

unsigned crew_size(const struct settings *s)
{
	unsigned n = s->agent.threads > 0 ? (unsigned)s->agent.threads : usable_cores();
	return n > WORKERS_MAX ? WORKERS_MAX : n;
}

bool crew_has_descriptors(unsigned loops)
{
	enum { EACH = 4, OTHERWISE = 8 };
	int fd[EACH * (WORKERS_MAX + 1) + OTHERWISE];
	unsigned want = EACH * loops + OTHERWISE, n = 0;
	while (n < want && (fd[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		n++;
	for (unsigned i = 0; i < n; i++)
		(void)close(fd[i]);
	return n == want;
}

/* An epoll descriptor can watch one file under each of its descriptors. */
static bool can_watch(int epoll, int file, unsigned want)
{
	int fd[WATCHES_EACH * (WORKERS_MAX + 1)];
	unsigned n = 0;
	for (bool good = true; good && n < want; n += good) {
		struct epoll_event none = { 0 };
		fd[n] = fcntl(file, F_DUPFD_CLOEXEC, 0);
		good = fd[n] >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd[n], &none) == 0;
		if (!good && fd[n] >= 0)
			(void)close(fd[n]);
	}
	for (unsigned i = 0; i < n; i++)
		(void)close(fd[i]);
	return n == want;
}

bool crew_has_watches(unsigned loops)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC), file = eventfd(0, EFD_CLOEXEC);
	bool has = epoll >= 0 && file >= 0 && can_watch(epoll, file, WATCHES_EACH * loops);
	int why = errno;
	if (file >= 0)
		(void)close(file);
	if (epoll >= 0)
		(void)close(epoll);
	errno = why;
	return has;
}

bool crew_make(struct crew *c, unsigned n, const struct worker_args *args)
{
	for (c->n = 0; c->n < n; c->n++) {
		struct worker_args one = *args;
		one.number = c->n + 1;
		c->worker[c->n] = worker_new(&one);
		if (!c->worker[c->n])
			return false;
	}
	return true;
}

bool crew_start(struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		if (!worker_start(c->worker[i]))
			return false;
	return true;
}

void crew_free(struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		worker_free(c->worker[i]);
	c->n = 0;
}

void crew_publish(struct crew *c, struct snapshot *s)
{
	for (unsigned i = 0; i < c->n; i++)
		worker_publish(c->worker[i], s);
}

bool crew_erased(struct crew *c, const struct key *key, unsigned n)
{
	bool all = true;

	for (unsigned i = 0; i < c->n; i++)
		all &= worker_erased(c->worker[i], key, n);
	return all;
}

void crew_drain(struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		worker_drain(c->worker[i]);
}

void crew_stop(struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		worker_stop(c->worker[i]);
}

void crew_stop_now(struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		worker_stop_now(c->worker[i]);
}

bool crew_ping(struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		if (!worker_has_answered(c->worker[i]) && !worker_is_done(c->worker[i])) {
			log_warning_every(
				10 * USEC_PER_SEC, "worker_late", KV_INT("worker", i + 1));
			return false;
		}
	for (unsigned i = 0; i < c->n; i++)
		worker_ping(c->worker[i]);
	return true;
}

bool crew_is_done(const struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		if (!worker_is_done(c->worker[i]))
			return false;
	return true;
}

bool crew_has_redis(const struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		if (atomic_load_explicit(
			    &worker_redis(c->worker[i])->degraded, memory_order_relaxed))
			return false;
	return true;
}

uint64_t crew_metric(const struct crew *c, enum metric id)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < c->n; i++)
		sum += atomic_load_explicit(
			&worker_metrics(c->worker[i])->value[id], memory_order_relaxed);
	return sum;
}

bool crew_tally(const struct crew *c, const struct tally_names *names, struct tally_sum *sum)
{
	const struct tally *of[WORKERS_MAX];
	for (unsigned i = 0; i < c->n; i++)
		of[i] = worker_tally(c->worker[i]);
	return tally_sum(names, of, c->n, sum);
}

bool crew_top(const struct crew *c, enum top_kind kind, usec_t now, struct top_list *list)
{
	const struct top *of[WORKERS_MAX];
	for (unsigned i = 0; i < c->n; i++)
		of[i] = worker_top(c->worker[i]);
	return top_list(of, c->n, kind, now, list);
}
