#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

bool err_say(char *err, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(err, size, format, args);
	va_end(args);
	return false;
}
