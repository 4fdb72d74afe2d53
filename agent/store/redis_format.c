#include "store/redis_format.h"

#include <string.h>

enum { DIGITS_MAX = 20, HEAD_MAX = 1 + DIGITS_MAX + 2 }; /* "$123\r\n" */

size_t redis_format_room(unsigned argc, const size_t argv_bytes[])
{
	size_t n = HEAD_MAX + 1;

	for (unsigned i = 0; i < argc; i++)
		n += HEAD_MAX + argv_bytes[i] + 2;
	return n;
}

static char *put_head(char *p, char kind, size_t n)
{
	char digits[DIGITS_MAX];
	unsigned i = DIGITS_MAX;

	do
		digits[--i] = (char)('0' + n % 10);
	while (n /= 10);
	*p++ = kind;
	while (i < DIGITS_MAX)
		*p++ = digits[i++];
	*p++ = '\r';
	*p++ = '\n';
	return p;
}

size_t redis_format(char *out, unsigned argc, const char *const argv[], const size_t argv_bytes[])
{
	char *p = put_head(out, '*', argc);

	for (unsigned i = 0; i < argc; i++) {
		p = put_head(p, '$', argv_bytes[i]);
		memcpy(p, argv[i], argv_bytes[i]);
		p += argv_bytes[i];
		*p++ = '\r';
		*p++ = '\n';
	}
	*p = '\0';
	return (size_t)(p - out);
}
