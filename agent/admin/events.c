/* /api/v1/events: lines of the log worth an operator's eye, to whoever listens, as server-sent
 * events. They come by the log's tap, so workers and control write nothing for it while nobody
 * listens. */
#include "admin/routes.h"
#include "base/log_tap.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LISTENERS_MAX = 16, BEAT_SECONDS = 15 };

#define LOOK_EVERY 0.1 /* seconds */

#define TYPES(X) X(denied) X(shadow) X(warning) X(reload) X(store) X(change) X(ban)

enum type {
#define X(name) TYPE_##name,
	TYPES(X)
#undef X
		TYPE_COUNT
};

static const char *const type_name[] = {
#define X(name) #name,
	TYPES(X)
#undef X
};

struct hearer {
	struct events *events;
	struct stream *stream; /* NULL: the place is free */
	unsigned types;        /* a bit each */
	uint64_t dropped;      /* not told yet */
};

struct events {
	struct ev_loop *loop;
	ev_timer look, beat;
	unsigned n, beats;
	struct hearer at[LISTENERS_MAX];
	char lines[LOG_TAP_BYTES];
};

/* ---- which lines ---- */

static bool begins(const char *event, const char *with)
{
	return strncmp(event, with, strlen(with)) == 0;
}

/* TYPE_COUNT: none of them. */
static enum type type_of(enum log_level level, const char *event)
{
	if (begins(event, "denied"))
		return TYPE_denied;
	if (begins(event, "shadow"))
		return TYPE_shadow;
	if (begins(event, "reload") || strcmp(event, "config_warning") == 0)
		return TYPE_reload;
	if (begins(event, "store_") || begins(event, "redis_"))
		return TYPE_store;
	if (strcmp(event, "audit") == 0)
		return TYPE_change;
	return level >= LOG_LEVEL_WARNING ? TYPE_warning : TYPE_COUNT;
}

static bool is_wanted(enum log_level level, const char *event)
{
	return level > LOG_LEVEL_DEBUG && type_of(level, event) != TYPE_COUNT;
}

/* The text of a member of a line that log_line.c made: `"level":"info"`, plain words. */
static void member(const char *line, const char *name, char *out, size_t size)
{
	const char *p = strstr(line, name);
	size_t n = 0;
	if (p)
		for (p += strlen(name); p[n] && p[n] != '"' && n < size - 1; n++)
			out[n] = p[n];
	out[n] = '\0';
}

static enum type type_of_line(const char *line)
{
	char level[16], event[64];
	member(line, "\"level\":\"", level, sizeof level);
	member(line, "\"event\":\"", event, sizeof event);
	/* A quote in a value is escaped, so this is a member. */
	if (strcmp(event, "audit") == 0 && strstr(line, "\"change\":\"ban:"))
		return TYPE_ban;
	if (strcmp(event, "audit") == 0 && strstr(line, "\"what\":\"reload\""))
		return TYPE_reload;
	bool grave = strcmp(level, "warning") == 0 || strcmp(level, "error") == 0;
	return type_of(grave ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, event);
}

/* ---- to whom ---- */

/* What is missing comes first, so that nobody takes what he has for all. */
static void tell(struct hearer *l, const char *text, size_t n)
{
	char gap[96];
	if (l->dropped) {
		size_t gap_n = (size_t)snprintf(gap, sizeof gap,
			"event: dropped\ndata: {\"count\":%" PRIu64 "}\n\n", l->dropped);
		if (stream_write(l->stream, gap, gap_n))
			l->dropped = 0;
	}
	if (l->dropped || !stream_write(l->stream, text, n))
		l->dropped++;
}

static void tell_line(struct events *e, const char *line)
{
	char text[LOG_TAP_BYTES + 64];
	enum type type = type_of_line(line);
	if (type == TYPE_COUNT)
		return;
	int n = snprintf(text, sizeof text, "event: %s\ndata: %s\n\n", type_name[type], line);
	for (unsigned i = 0; i < LISTENERS_MAX; i++)
		if (e->at[i].stream && e->at[i].types >> type & 1)
			tell(&e->at[i], text, (size_t)n);
}

static void on_look(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct events *e = timer->data;
	uint64_t lost;
	size_t n = log_tap_take(e->lines, &lost);
	for (char *p = e->lines, *end = p + n, *next; p < end; p = next + 1) {
		next = memchr(p, '\n', (size_t)(end - p));
		if (!next)
			break;
		*next = '\0';
		tell_line(e, p);
	}
	for (unsigned i = 0; i < LISTENERS_MAX; i++)
		e->at[i].dropped += e->at[i].stream ? lost : 0;
}

/* A comment: what closes silent connections lets this one be; who has gone is found out. */
static void on_beat(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct events *e = timer->data;
	bool all = ++e->beats % BEAT_SECONDS == 0;
	for (unsigned i = 0; i < LISTENERS_MAX; i++)
		if (e->at[i].stream && (all || stream_is_left(e->at[i].stream)))
			(void)stream_write(e->at[i].stream, ":\n\n", 3); /* or it has enough */
}

static void begin(struct events *e)
{
	log_tap(is_wanted);
	ev_timer_start(e->loop, &e->look);
	ev_timer_start(e->loop, &e->beat);
}

static void end(struct events *e)
{
	log_tap(NULL);
	ev_timer_stop(e->loop, &e->look);
	ev_timer_stop(e->loop, &e->beat);
}

static void on_ended(void *arg)
{
	struct hearer *l = arg;
	l->stream = NULL;
	if (--l->events->n == 0)
		end(l->events);
}

static struct events *events_new(struct ev_loop *loop)
{
	struct events *e = calloc(1, sizeof *e);
	if (!e)
		return NULL;
	e->loop = loop;
	ev_timer_init(&e->look, on_look, LOOK_EVERY, LOOK_EVERY);
	ev_timer_init(&e->beat, on_beat, 1., 1.);
	e->look.data = e->beat.data = e;
	return e;
}

void events_free(struct events *e)
{
	free(e);
}

/* 0: one of them is unknown. */
static unsigned types_of(const char *list)
{
	unsigned types = 0;
	if (!list)
		return (1u << TYPE_COUNT) - 1;
	for (const char *p = list; *p;) {
		size_t n = strcspn(p, ",");
		unsigned i = 0;
		while (i < TYPE_COUNT &&
			(strlen(type_name[i]) != n || memcmp(type_name[i], p, n) != 0))
			i++;
		if (i == TYPE_COUNT)
			return 0;
		types |= 1u << i;
		p += n;
		p += *p == ',';
	}
	return types;
}

void events_show(struct request *r)
{
	struct admin *a = request_context(r);
	unsigned types = types_of(request_query(r, "types")), i = 0;
	if (!a->events)
		a->events = events_new(control_loop(a->control));
	struct events *e = a->events;

	while (e && i < LISTENERS_MAX && e->at[i].stream)
		i++;
	if (!types) {
		request_problem(r, 400,
			"types: want some of denied,shadow,warning,reload,store,change,ban");
	} else if (!e || i == LISTENERS_MAX) {
		request_problem(r, 503, "no more than %d may listen at a time", LISTENERS_MAX);
	} else {
		struct hearer *l = &e->at[i];
		*l = (struct hearer){ .events = e, .types = types };
		l->stream = request_stream(r, "text/event-stream", on_ended, l);
		if (!l->stream)
			return;
		if (e->n++ == 0)
			begin(e);
		(void)stream_write(l->stream, ":\n\n", 3); /* it has begun */
	}
}
