/* Settings that take one word out of a few: "memory|!redis", where `!` marks what is reserved. */
#ifndef CONFIG_WORDS_H
#define CONFIG_WORDS_H

#include "config/tree.h"

/* The word's number; -1: a problem was added that says what is wanted and perhaps meant. */
int word_load(const struct given *, const char *what, const char *words, struct problems *);

/* The word of that number, into `out` (of 32 bytes at least). Returns `out`. */
const char *word_at(const char *words, int number, char *out, size_t size);

#endif
