/* Why something cannot be done, in words, for who has asked for it. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>

/* Writes it, cut where `size` bytes do not hold it. Always false: what a caller returns then. */
bool err_say(char *err, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
