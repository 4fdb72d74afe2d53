#include "server/turn.h"

#include "base/log.h"
#include "store/state_lock.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

#define ASK_EVERY (2 * USEC_PER_MSEC)

static bool is_told_to_stop(void)
{
	sigset_t set;
	return sigpending(&set) == 0 && (sigismember(&set, SIGTERM) || sigismember(&set, SIGINT));
}

static void sleep_for(usec_t length)
{
	struct timespec t = { (time_t)(length / USEC_PER_SEC),
		(long)(length % USEC_PER_SEC) * 1000 };
	(void)nanosleep(&t, NULL);
}

enum turn turn_await(const char *state_file, usec_t within, int *lock, char *err, size_t err_size)
{
	char message[512];
	usec_t began = clock_steady();
	bool waits = false;
	for (;;) {
		switch (state_lock(state_file, lock, message, sizeof message)) {
		case STATE_LOCK_OURS:
			if (waits)
				log_info("state_free", KV_Z("file", state_file),
					KV_INT("waited_ms",
						(clock_steady() - began) / USEC_PER_MSEC));
			return TURN_OURS;
		case STATE_LOCK_CANNOT:
			log_warning("state_not_locked", KV_Z("why", message),
				KV_Z("hint", "two agents with this file would double every limit"));
			return TURN_OURS;
		case STATE_LOCK_FAILED:
			(void)snprintf(err, err_size, "%s", message);
			return TURN_NEVER;
		case STATE_LOCK_BUSY:
			break;
		}
		if (is_told_to_stop())
			return TURN_STOPPED;
		if (clock_steady() - began >= within) {
			(void)snprintf(err, err_size,
				"%s: stop that agent, or give this one a store.state_file of its own",
				message);
			return TURN_NEVER;
		}
		if (!waits)
			log_info("state_awaited", KV_Z("why", message),
				KV_INT("within_ms", within / USEC_PER_MSEC));
		waits = true;
		sleep_for(ASK_EVERY);
	}
}
