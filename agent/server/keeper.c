#include "server/keeper.h"

#include "base/log.h"
#include "store/state.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SWEEP_EVERY USEC_PER_SEC

enum { SWEEP_BUDGET = 256 }; /* entries of a shard for each time its lock is held */

struct keeper {
	struct memory_store *store;
	char state_file[256];
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under the lock */
	bool stop, soon;
	usec_t interval;
	uint64_t begun, kept;
};

bool keeper_save(struct memory_store *store, const char *state_file)
{
	char err[512];
	struct now begin = clock_read();
	if (state_save(store, state_file, begin, err, sizeof err) < 0) {
		log_error("state_not_saved", KV_Z("file", state_file), KV_Z("why", err),
			KV_Z("hint", "counters will be lost at a restart until it can be written"));
		return false;
	}
	log_debug("state_saved", KV_Z("file", state_file),
		KV_INT("keys", memory_store_stats(store).keys),
		KV_INT("took_ms", (clock_read().steady - begin.steady) / USEC_PER_MSEC));
	return true;
}

/* One of those that are counted. */
static void save(struct keeper *k)
{
	(void)pthread_mutex_lock(&k->lock);
	uint64_t number = ++k->begun;
	(void)pthread_mutex_unlock(&k->lock);
	bool good = keeper_save(k->store, k->state_file);
	(void)pthread_mutex_lock(&k->lock);
	if (good)
		k->kept = number;
	(void)pthread_mutex_unlock(&k->lock);
}

/* Waits, with the lock held, for `length` or until something has changed. */
static void wait_for(struct keeper *k, usec_t length)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	usec_t usec = until.tv_nsec / 1000 + length;
	until.tv_sec += (time_t)(usec / USEC_PER_SEC);
	until.tv_nsec = (long)(usec % USEC_PER_SEC) * 1000;
	(void)pthread_cond_timedwait(&k->changed, &k->lock, &until);
}

static void *run(void *arg)
{
	struct keeper *k = arg;
	usec_t saved_at = clock_read().steady;
	(void)pthread_mutex_lock(&k->lock);
	while (!k->stop) {
		wait_for(k, SWEEP_EVERY);
		if (k->stop)
			break;
		usec_t interval = k->interval;
		bool soon = k->soon;
		k->soon = false;
		(void)pthread_mutex_unlock(&k->lock);
		struct now now = clock_read();
		(void)memory_store_sweep(k->store, now, SWEEP_BUDGET);
		bool due = interval > 0 && now.steady - saved_at >= interval;
		if (k->state_file[0] && (due || soon)) {
			save(k);
			saved_at = clock_read().steady;
		}
		(void)pthread_mutex_lock(&k->lock);
	}
	(void)pthread_mutex_unlock(&k->lock);
	return NULL;
}

static bool start_thread(struct keeper *k)
{
	sigset_t all, before;
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	int rc = pthread_create(&k->thread, NULL, run, k);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		return false;
	(void)pthread_setname_np(k->thread, "keeper");
	return true;
}

static void free_keeper(struct keeper *k)
{
	(void)pthread_cond_destroy(&k->changed);
	(void)pthread_mutex_destroy(&k->lock);
	free(k);
}

struct keeper *keeper_start(struct memory_store *store, const char *state_file, usec_t interval)
{
	struct keeper *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	k->store = store;
	k->interval = interval;
	(void)snprintf(k->state_file, sizeof k->state_file, "%s", state_file);
	pthread_condattr_t monotonic;
	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&k->changed, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
	(void)pthread_mutex_init(&k->lock, NULL);
	if (!start_thread(k)) {
		free_keeper(k);
		return NULL;
	}
	return k;
}

void keeper_change_interval(struct keeper *k, usec_t interval)
{
	(void)pthread_mutex_lock(&k->lock);
	k->interval = interval;
	(void)pthread_mutex_unlock(&k->lock);
}

void keeper_save_soon(struct keeper *k)
{
	(void)pthread_mutex_lock(&k->lock);
	k->soon = true;
	(void)pthread_cond_signal(&k->changed);
	(void)pthread_mutex_unlock(&k->lock);
}

void keeper_saves(struct keeper *k, uint64_t *begun, uint64_t *kept)
{
	(void)pthread_mutex_lock(&k->lock);
	*begun = k->begun;
	*kept = k->kept;
	(void)pthread_mutex_unlock(&k->lock);
}

static void stop(struct keeper *k)
{
	(void)pthread_mutex_lock(&k->lock);
	bool stopped = k->stop;
	k->stop = true;
	(void)pthread_cond_signal(&k->changed);
	(void)pthread_mutex_unlock(&k->lock);
	if (!stopped)
		(void)pthread_join(k->thread, NULL);
}

void keeper_finish(struct keeper *k)
{
	stop(k);
	if (k->state_file[0])
		save(k);
}

void keeper_free(struct keeper *k)
{
	if (!k)
		return;
	stop(k);
	free_keeper(k);
}
