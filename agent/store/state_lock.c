#include "store/state_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static long read_holder(int fd)
{
	char text[24] = "";
	ssize_t n = pread(fd, text, sizeof text - 1, 0);
	return n > 0 ? strtol(text, NULL, 10) : 0;
}

/* For people only: a lock without it is as good. */
static void write_holder(int fd)
{
	char text[24];
	int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) == 0)
		(void)!pwrite(fd, text, (size_t)n, 0);
}

enum state_lock_rc state_lock(const char *path, int *fd, char *message, size_t message_size)
{
	char name[PATH_BYTES];
	*fd = -1;
	int n = snprintf(name, sizeof name, "%s.lock", path);
	int lock = n < (int)sizeof name
			   ? open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
				     0600)
			   : -1;
	if (lock < 0) {
		(void)snprintf(message, message_size,
			"%s.lock: cannot open: %s; the state file's folder must be there and "
			"writable, and that file the agent's (store.state_file = \"\" runs "
			"without)",
			path, strerror(n < (int)sizeof name ? errno : ENAMETOOLONG));
		return STATE_LOCK_FAILED;
	}
	if (flock(lock, LOCK_EX | LOCK_NB) == 0) {
		write_holder(lock);
		*fd = lock;
		return STATE_LOCK_OURS;
	}
	int error = errno;
	if (error == EWOULDBLOCK || error == EINTR)
		(void)snprintf(message, message_size, "%s: in use by process %ld", path,
			read_holder(lock));
	else
		(void)snprintf(
			message, message_size, "%s.lock: cannot lock: %s", path, strerror(error));
	(void)close(lock);
	return error == EWOULDBLOCK || error == EINTR ? STATE_LOCK_BUSY : STATE_LOCK_CANNOT;
}

void state_unlock(int fd)
{
	if (fd >= 0)
		(void)close(fd);
}
