/* Whole files into memory, with care: what a path names may be anything. */
#ifndef CONFIG_FILE_H
#define CONFIG_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct file {
	char *bytes; /* owned; one NUL more than `n` */
	size_t n;
	dev_t device; /* with inode: what tells two names of one file */
	ino_t inode;
};

/* Regular files of at most `max` bytes: never waits on a FIFO or a device. On false `why` says
 * what is in the way. */
bool file_read(const char *path, size_t max, struct file *out, char *why, size_t why_size);
void file_free(struct file *);

/* `path` as seen from the file `from`: relative paths start at that file's folder. false: the
 * result does not fit. */
bool path_from(const char *from, const char *path, char *out, size_t size);

#endif
