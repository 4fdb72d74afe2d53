#include "server/keeper.h"

#include "base/log.h"
#include "base/thread.h"
#include "base/wait.h"
#include "store/state.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
	bool last;  /* written once more before it ends */
	bool ended; /* nothing of the thread's is left to be done */
	usec_t interval;
	uint64_t begun, kept;
	usec_t writes_since;           /* steady; 0: nothing is being written */
	usec_t kept_at;                /* as of when the counters in the file are */
	struct keeper_trouble trouble; /* since 0: none */
};

static bool write_file(struct keeper *k, char *err, size_t err_size)
{
	struct now begin = clock_read();
	if (state_save(k->store, k->state_file, begin, err, err_size) < 0)
		return false;
	log_debug("state_saved", KV_Z("file", k->state_file),
		KV_INT("keys", memory_store_stats(k->store).keys),
		KV_INT("took_ms", (clock_read().steady - begin.steady) / USEC_PER_MSEC));
	return true;
}

/* What was lost at the end is said by who waits for it. */
static void tell(const struct keeper *k, bool good, bool was_good, const char *why)
{
	if (!good && !k->last)
		log_error("state_not_saved", KV_Z("file", k->state_file), KV_Z("why", why),
			KV_Z("hint", "counters will be lost at a restart until it can be written"));
	else if (good && !was_good)
		log_warning("state_saved_again", KV_Z("file", k->state_file));
}

/* One of those that are counted. */
static void save(struct keeper *k)
{
	char err[sizeof k->trouble.why] = "";
	usec_t began = clock_steady();
	(void)pthread_mutex_lock(&k->lock);
	uint64_t number = ++k->begun;
	bool was_good = !k->trouble.since;
	k->writes_since = began;
	(void)pthread_mutex_unlock(&k->lock);
	bool good = write_file(k, err, sizeof err);
	(void)pthread_mutex_lock(&k->lock);
	k->writes_since = 0;
	if (good) {
		k->kept = number;
		k->kept_at = began;
		k->trouble.since = 0;
	} else {
		k->trouble.since = was_good ? began : k->trouble.since;
		memcpy(k->trouble.why, err, sizeof err);
	}
	tell(k, good, was_good, err);
	(void)pthread_mutex_unlock(&k->lock);
}

static void *run(void *arg)
{
	struct keeper *k = arg;
	usec_t saved_at = clock_read().steady;
	(void)pthread_mutex_lock(&k->lock);
	while (!k->stop) {
		cond_wait_for(&k->changed, &k->lock, SWEEP_EVERY);
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
	bool last = k->last && k->state_file[0];
	(void)pthread_mutex_unlock(&k->lock);
	if (last)
		save(k);
	(void)pthread_mutex_lock(&k->lock);
	k->ended = true;
	(void)pthread_cond_broadcast(&k->changed);
	(void)pthread_mutex_unlock(&k->lock);
	return NULL;
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
	k->kept_at = clock_steady(); /* as they were loaded */
	(void)snprintf(k->state_file, sizeof k->state_file, "%s", state_file);
	cond_init(&k->changed);
	(void)pthread_mutex_init(&k->lock, NULL);
	if (thread_start(&k->thread, "keeper", run, k)) {
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

bool keeper_is_in_trouble(struct keeper *k, usec_t steady, struct keeper_trouble *t)
{
	(void)pthread_mutex_lock(&k->lock);
	bool hangs = k->writes_since && steady - k->writes_since > KEEPER_HANGS_AFTER;
	*t = k->trouble;
	if (hangs && !t->since) {
		t->since = k->writes_since;
		(void)snprintf(
			t->why, sizeof t->why, "%s: the disk does not answer", k->state_file);
	}
	(void)pthread_mutex_unlock(&k->lock);
	return t->since;
}

/* Until the thread has ended, or `deadline`. */
static bool await_end(struct keeper *k, usec_t deadline)
{
	(void)pthread_mutex_lock(&k->lock);
	for (usec_t left; !k->ended && (left = deadline - clock_steady()) > 0;)
		cond_wait_for(&k->changed, &k->lock, left);
	bool ended = k->ended;
	(void)pthread_mutex_unlock(&k->lock);
	return ended;
}

static void stop(struct keeper *k, bool last)
{
	(void)pthread_mutex_lock(&k->lock);
	k->last |= last && !k->stop;
	k->stop = true;
	(void)pthread_cond_broadcast(&k->changed);
	(void)pthread_mutex_unlock(&k->lock);
}

/* With what is known without waiting for the thread. */
static enum keeper_end tell_lost(struct keeper *k, enum keeper_end end)
{
	struct keeper_trouble t;
	(void)pthread_mutex_lock(&k->lock);
	t = k->trouble;
	usec_t age = clock_steady() - k->kept_at;
	(void)pthread_mutex_unlock(&k->lock);
	log_error("state_lost", KV_Z("file", k->state_file),
		KV_Z("why", end == KEEPER_HANGS ? "the disk does not answer" : t.why),
		KV_INT("since_s", age / USEC_PER_SEC),
		KV_Z("hint",
			"what was counted since then is lost: the next start has the file as it "
			"was"));
	return end;
}

enum keeper_end keeper_finish(struct keeper *k, usec_t deadline)
{
	stop(k, true);
	if (!await_end(k, deadline))
		return tell_lost(k, KEEPER_HANGS);
	return k->trouble.since ? tell_lost(k, KEEPER_LOST) : KEEPER_KEPT;
}

void keeper_free(struct keeper *k)
{
	if (!k)
		return;
	stop(k, false);
	(void)pthread_join(k->thread, NULL);
	free_keeper(k);
}
