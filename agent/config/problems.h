/* Messages for people: one line each, with the file and line that they are about. */
#ifndef CONFIG_PROBLEMS_H
#define CONFIG_PROBLEMS_H

#include "config/snapshot.h"

struct place {
	const char *file; /* borrowed; NULL: none is known */
	unsigned line;    /* from 1; 0: none is known */
};

enum { PROBLEMS_MAX = 4096 }; /* then one more line says that there are others */

/* "FILE:LINE: …"; control characters become '?'. Memory that runs out sets problems->lost. */
void problem_add(struct problems *, struct place, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* "FILE:LINE: warning: …" */
void problem_warn(struct problems *, struct place, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void problem_out_of_memory(struct problems *);
/* The messages of others, each as what it is. */
void problems_append(struct problems *, const struct problems *others);

/* Errors so far: what decides whether a configuration is refused. */
size_t problem_errors(const struct problems *);

#endif
