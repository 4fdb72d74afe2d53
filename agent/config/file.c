/* Reads files. Knows nothing of what they hold. */
#include "config/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool read_all(int fd, size_t max, struct file *out, char *why, size_t why_size)
{
	size_t cap = 0;

	for (;;) {
		if (cap - out->n < 2) {
			cap = cap ? 2 * cap : 16384;
			char *grown = realloc(out->bytes, cap);
			if (!grown) {
				snprintf(why, why_size, "out of memory");
				return false;
			}
			out->bytes = grown;
		}
		ssize_t got = read(fd, out->bytes + out->n, cap - out->n - 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			snprintf(why, why_size, "cannot be read: %s", strerror(errno));
			return false;
		}
		if (got == 0)
			break;
		out->n += (size_t)got;
		if (out->n > max) { /* also where it grows while it is read */
			snprintf(why, why_size, "is too large: want at most %zu bytes", max);
			return false;
		}
	}
	out->bytes[out->n] = '\0';
	return true;
}

bool file_read(const char *path, size_t max, struct file *out, char *why, size_t why_size)
{
	struct stat st;
	bool good = false;

	*out = (struct file){ 0 };
	/* O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever. */
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0) {
		snprintf(why, why_size, "cannot be opened: %s", strerror(errno));
		return false;
	}
	if (fstat(fd, &st) != 0)
		snprintf(why, why_size, "cannot be read: %s", strerror(errno));
	else if (S_ISDIR(st.st_mode))
		snprintf(why, why_size, "is a folder: want a file");
	else if (!S_ISREG(st.st_mode))
		snprintf(why, why_size, "is not a regular file (a pipe, socket or device)");
	else
		good = read_all(fd, max, out, why, why_size);
	close(fd);
	if (!good) {
		file_free(out);
		return false;
	}
	out->device = st.st_dev;
	out->inode = st.st_ino;
	return true;
}

void file_free(struct file *f)
{
	free(f->bytes);
	*f = (struct file){ 0 };
}

bool path_from(const char *from, const char *path, char *out, size_t size)
{
	const char *slash = strrchr(from, '/');
	int folder_n = slash && path[0] != '/' ? (int)(slash + 1 - from) : 0;
	int n = snprintf(out, size, "%.*s%s", folder_n, from, path);

	return n >= 0 && (size_t)n < size;
}
