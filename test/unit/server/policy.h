/* What the kernel says of a worker's thread. */
#ifndef TEST_POLICY_H
#define TEST_POLICY_H

#include "server/worker.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* By its name, as the process has no other threads of it. 0: none. */
static inline pid_t thread_called(const char *name)
{
	pid_t found = 0;
	DIR *tasks = opendir("/proc/self/task");
	for (struct dirent *d; tasks && (d = readdir(tasks));) {
		char path[300], is[32] = "";
		(void)snprintf(path, sizeof path, "/proc/self/task/%s/comm", d->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? 0 : read(fd, is, sizeof is - 1);
		if (fd >= 0)
			(void)close(fd);
		is[n > 0 ? n - 1 : 0] = '\0';
		if (strcmp(is, name) == 0)
			found = (pid_t)strtol(d->d_name, NULL, 10);
	}
	if (tasks)
		(void)closedir(tasks);
	return found;
}

/* Its policy, once it has done what it was asked before; -1: there is no such thread. */
static inline int policy_of(struct worker *w, const char *name)
{
	worker_ping(w);
	while (!worker_has_answered(w))
		(void)poll(NULL, 0, 1);
	pid_t thread = thread_called(name);
	return thread ? sched_getscheduler(thread) : -1;
}

/* Neither a policy that the tests themselves have, nor a filter of system calls, is in the way. */
static inline bool policy_is_free(void)
{
	return sched_getscheduler(0) == SCHED_OTHER &&
	       sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 }) == 0 &&
	       sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){ 0 }) == 0;
}

#endif
