/* Collects messages. Knows nothing of what they are about. */
#include "config/problems.h"

#include <stdarg.h>
#include <stdlib.h>

enum { MESSAGE_MAX = 6144 }; /* a path, and a sentence or two */

static bool grow(struct problems *p)
{
	size_t cap = p->cap ? 2 * p->cap : 16;
	char **message = realloc(p->message, cap * sizeof *message);

	if (!message)
		return false;
	p->message = message;
	bool *is_warning = realloc(p->is_warning, cap * sizeof *is_warning);
	if (!is_warning)
		return false;
	p->is_warning = is_warning;
	p->cap = cap;
	return true;
}

static bool append(struct problems *p, const char *text, bool warning)
{
	if (p->n == p->cap && !grow(p))
		return false;
	p->message[p->n] = strdup(text);
	if (!p->message[p->n])
		return false;
	p->is_warning[p->n++] = warning;
	p->warnings += warning;
	return true;
}

static void put(struct problems *p, struct place at, bool warning, const char *format, va_list args)
{
	char text[MESSAGE_MAX];
	size_t used = 0;

	/* Warnings leave room: an error must never be lost behind them. */
	if (p->n >= (warning ? PROBLEMS_MAX / 2 : PROBLEMS_MAX)) {
		if (p->n == PROBLEMS_MAX && !warning &&
			!append(p, "there are more problems than can be shown", false))
			p->lost = true;
		return;
	}
	if (at.file && at.line)
		used = (size_t)snprintf(text, sizeof text, "%s:%u: ", at.file, at.line);
	else if (at.file)
		used = (size_t)snprintf(text, sizeof text, "%s: ", at.file);
	if (used >= sizeof text)
		used = sizeof text - 1;
	if (warning)
		used += (size_t)snprintf(text + used, sizeof text - used, "warning: ");
	if (used >= sizeof text)
		used = sizeof text - 1;
	vsnprintf(text + used, sizeof text - used, format, args);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?'; /* a message is one line, whatever a file holds */
	if (!append(p, text, warning) && !warning)
		p->lost = true;
}

void problem_add(struct problems *p, struct place at, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	put(p, at, false, format, args);
	va_end(args);
}

void problem_warn(struct problems *p, struct place at, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	put(p, at, true, format, args);
	va_end(args);
}

void problem_out_of_memory(struct problems *p)
{
	problem_add(p, (struct place){ 0 }, "out of memory while reading the configuration");
}

void problems_append(struct problems *p, const struct problems *others)
{
	for (size_t i = 0; i < others->n; i++)
		if (!append(p, others->message[i], others->is_warning[i]) && !others->is_warning[i])
			p->lost = true;
}

size_t problem_errors(const struct problems *p)
{
	return p->n - p->warnings + p->lost;
}

void problems_free(struct problems *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->message[i]);
	free(p->message);
	free(p->is_warning);
	*p = (struct problems){ 0 };
}
