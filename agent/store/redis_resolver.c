#include "store/redis_resolver.h"

#include "base/thread.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct redis_resolver {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* under the lock */
	unsigned refs; /* the hub's, the thread's */
	bool stop, wanted;
	struct ev_loop *loop;
	ev_async *bell;
	unsigned entry_n; /* set once */
	struct entry {
		struct redis_host server;
		struct redis_resolved result;
	} entry[];
};

static void resolve(const struct redis_host *s, struct redis_resolved *out)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG
	};
	struct addrinfo *found = NULL;
	struct redis_addresses *a = &out->addresses;

	*out = (struct redis_resolved){ .server = *s };
	int rc = getaddrinfo(s->host, NULL, &hints, &found);
	if (rc) {
		snprintf(out->why, sizeof out->why, "%s",
			rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
		return;
	}
	for (struct addrinfo *i = found; i && a->n < REDIS_ADDRESSES_MAX; i = i->ai_next) {
		struct redis_address *next = &a->address[a->n];
		if (getnameinfo(i->ai_addr, i->ai_addrlen, next->host, sizeof next->host, NULL, 0,
			    NI_NUMERICHOST) != 0)
			continue;
		next->port = s->port;
		memcpy(next->name, s->host, sizeof next->name);
		a->n++;
	}
	freeaddrinfo(found);
	if (!a->n)
		snprintf(out->why, sizeof out->why, "it has no address");
}

static void unref(struct redis_resolver *r) /* with the lock held */
{
	bool last = --r->refs == 0;
	pthread_mutex_unlock(&r->lock);
	if (!last)
		return;
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static void *run(void *arg)
{
	struct redis_resolver *r = arg;
	struct redis_address plain;
	struct redis_resolved found;
	struct redis_host server;

	pthread_mutex_lock(&r->lock);
	while (!r->stop) {
		if (!r->wanted) {
			pthread_cond_wait(&r->wake, &r->lock);
			continue;
		}
		r->wanted = false;
		for (unsigned i = 0; i < r->entry_n && !r->stop; i++) {
			if (redis_address_of(&r->entry[i].server, &plain))
				continue;
			server = r->entry[i].server;
			pthread_mutex_unlock(&r->lock);
			resolve(&server, &found);
			pthread_mutex_lock(&r->lock);
			if (!redis_host_eq(&server, &r->entry[i].server))
				continue; /* changed meanwhile, and wanted again */
			found.answered = r->entry[i].result.answered + 1;
			r->entry[i].result = found;
			if (!r->stop)
				ev_async_send(r->loop, r->bell);
		}
	}
	unref(r);
	return NULL;
}

struct redis_resolver *redis_resolver_new(
	const struct redis_host *server, unsigned server_n, struct ev_loop *loop, ev_async *bell)
{
	struct redis_resolver *r = calloc(1, sizeof *r + server_n * sizeof r->entry[0]);
	if (!r)
		return NULL;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->wake, NULL);
	r->loop = loop;
	r->bell = bell;
	r->entry_n = server_n;
	for (unsigned i = 0; i < server_n; i++)
		r->entry[i].server = server[i];
	r->refs = 2;
	r->wanted = true;

	pthread_t thread;
	if (thread_start(&thread, "resolver", run, r)) {
		r->refs = 1;
		pthread_mutex_lock(&r->lock);
		unref(r);
		return NULL;
	}
	pthread_detach(thread);
	return r;
}

void redis_resolver_wake(struct redis_resolver *r)
{
	pthread_mutex_lock(&r->lock);
	r->wanted = true;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
}

void redis_resolver_change(struct redis_resolver *r, unsigned i, const struct redis_host *server)
{
	pthread_mutex_lock(&r->lock);
	r->entry[i].server = *server;
	r->entry[i].result = (struct redis_resolved){ .answered = r->entry[i].result.answered };
	r->wanted = true;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
}

struct redis_resolved redis_resolver_get(struct redis_resolver *r, unsigned i)
{
	pthread_mutex_lock(&r->lock);
	struct redis_resolved found = r->entry[i].result;
	pthread_mutex_unlock(&r->lock);
	return found;
}

void redis_resolver_free(struct redis_resolver *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_signal(&r->wake);
	unref(r);
}
