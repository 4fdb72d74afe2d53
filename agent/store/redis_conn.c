#include "store/redis_conn.h"

#include "store/redis_format.h"
#include "store/redis_handshake.h"
#include "store/redis_tls.h"

#include <assert.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#define BACKOFF_FIRST (50 * USEC_PER_MSEC)
#define BACKOFF_MOST  (2 * USEC_PER_SEC)

#define TOO_LARGE "a reply that is larger than any should be"

enum state {
	STATE_IDLE,    /* nowhere to go */
	STATE_OPENING, /* connecting, or in the handshake; `timer` is its deadline */
	STATE_READY,
	STATE_FALLEN,  /* closed; `work` will tell the owner */
	STATE_WAITING, /* until `timer` says to try again */
};

enum { CHANNELS_MAX = 4 };

struct redis_conn {
	struct redis_conn_settings settings;
	struct redis_conn_events events;
	void *owner;
	struct ev_loop *loop;
	enum state state;

	/* Ours while ac->data points back here; one that hiredis has still to free (it was given
	 * up inside one of its callbacks) no longer does. */
	redisAsyncContext *ac;
	struct ssl_st *ssl; /* of `ac`; NULL: no TLS */
	ev_io readable, writable;
	redisReplyObjectFunctions *plain, bounded;
	size_t budget;     /* of the reply that is being read */
	unsigned expected; /* replies that will come */
	bool subscribed;   /* what nobody asked for is welcome */
	bool too_large;    /* what came was, and ended it */
	char *command;     /* the last one, but for secrets; kept, for its room */
	size_t command_room;
	bool in_hiredis; /* its functions are on the stack: it must not be entered again */

	struct redis_handshake handshake;

	bool has_address, master_only, was_ready;
	struct redis_address address;
	/* `work`: events come from the loop, and from a turn of it that is still to come: what the
	 * owner does then is seen by whoever looks before the loop sleeps. */
	ev_timer timer, work;
	usec_t delay;
	uint64_t seed;
	char why[160];
	const char *hint;
};

usec_t redis_backoff(usec_t *last, uint64_t *seed)
{
	*last = *last < BACKOFF_FIRST / 2  ? BACKOFF_FIRST
		: *last < BACKOFF_MOST / 2 ? 2 * *last
					   : BACKOFF_MOST;
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *last / 2 + (usec_t)((*seed >> 33) % (uint64_t)(*last / 2));
}

/* ---- what hiredis wants from a loop ---- */

static void add_read(void *p)
{
	struct redis_conn *c = p;
	ev_io_start(c->loop, &c->readable);
}

static void del_read(void *p)
{
	struct redis_conn *c = p;
	ev_io_stop(c->loop, &c->readable);
}

static void add_write(void *p)
{
	struct redis_conn *c = p;
	ev_io_start(c->loop, &c->writable);
}

static void del_write(void *p)
{
	struct redis_conn *c = p;
	ev_io_stop(c->loop, &c->writable);
}

static void clean_up(void *p)
{
	del_read(p);
	del_write(p);
}

/* ---- replies of a bounded size ---- */

/* hiredis keeps a reply that is not whole in its buffer, and the elements that it has read of it
 * in objects: the one is looked at after every read, the other here. */
static bool spend(const redisReadTask *task, size_t bytes)
{
	struct redis_conn *c = task->privdata;
	size_t cost = bytes + sizeof(redisReply);

	if (bytes > c->settings.reply_max || cost > c->budget)
		return false;
	c->budget -= cost;
	return true;
}

static void *create_string(const redisReadTask *task, char *p, size_t n)
{
	struct redis_conn *c = task->privdata;
	return spend(task, n) ? c->plain->createString(task, p, n) : NULL;
}

#if HIREDIS_MAJOR >= 1
typedef size_t elements_t;
#else
typedef int elements_t;
#endif

static void *create_array(const redisReadTask *task, elements_t n)
{
	struct redis_conn *c = task->privdata;
	if ((size_t)n > c->settings.reply_max)
		return NULL;
	return spend(task, (size_t)n * sizeof(redisReply)) ? c->plain->createArray(task, n) : NULL;
}

static void bound_replies(struct redis_conn *c)
{
	redisReader *r = c->ac->c.reader;

	c->plain = r->fn;
	c->bounded = *r->fn;
	c->bounded.createString = create_string;
	c->bounded.createArray = create_array;
	c->budget = c->settings.reply_max;
	r->fn = &c->bounded;
	r->privdata = c;
}

/* ---- letting go ---- */

/* hiredis may still have it on its stack: nothing of it points here any more. */
static redisAsyncContext *detach(struct redis_conn *c)
{
	redisAsyncContext *ac = c->ac;

	clean_up(c);
	if (ac) {
		memset(&ac->ev, 0, sizeof ac->ev);
		ac->data = NULL;
		if (ac->c.reader) {
			ac->c.reader->fn = c->plain;
			ac->c.reader->privdata = NULL;
		}
	}
	c->ac = NULL;
	c->ssl = NULL;
	c->expected = 0;
	return ac;
}

static void close_now(struct redis_conn *c)
{
	ev_timer_stop(c->loop, &c->timer);
	ev_timer_stop(c->loop, &c->work);
	redisAsyncContext *ac = detach(c);
	if (ac)
		redisAsyncFree(ac); /* by and by, if this is inside one of its callbacks */
	c->state = STATE_IDLE;
}

/* Its context is gone, or not ours any more. */
static void fall(struct redis_conn *c, const char *why, const char *hint)
{
	c->was_ready = c->state == STATE_READY;
	c->state = STATE_FALLEN;
	snprintf(c->why, sizeof c->why, "%s", why && *why ? why : "the connection was closed");
	c->hint = hint;
	ev_timer_stop(c->loop, &c->timer);
	ev_timer_start(c->loop, &c->work);
}

static void give_up(struct redis_conn *c, const char *why, const char *hint)
{
	bool was_ready = c->state == STATE_READY;

	close_now(c);
	if (was_ready)
		c->state = STATE_READY;
	fall(c, why, hint);
}

static void set_timer(struct redis_conn *c, usec_t after)
{
	ev_timer_stop(c->loop, &c->timer);
	ev_timer_set(&c->timer, (double)after / (double)USEC_PER_SEC, 0);
	ev_timer_start(c->loop, &c->timer);
}

/* What hiredis looks at is the first command. With none of its bytes sent, it expects one reply
 * more than will come: so one that nobody asked for comes to on_reply(), and not to its assertion
 * that there is no such thing; and the end of the connection is told in any case. */
static const char first_command[] = "*1\r\n$4\r\nPING\r\n";
enum { FIRST_COMMAND_BYTES = sizeof first_command - 1 };

static void on_reply(redisAsyncContext *ac, void *reply, void *unused);

static bool put_guard(struct redis_conn *c)
{
	return redisAsyncFormattedCommand(c->ac, on_reply, NULL, first_command, 0) == REDIS_OK;
}

/* ---- sending, and what comes back ---- */

static bool put(struct redis_conn *c, unsigned argc, const char *argv[], size_t argv_bytes[])
{
	size_t room = redis_format_room(argc, argv_bytes);

	if (room > c->command_room) {
		char *larger = realloc(c->command, room);
		if (!larger)
			return false;
		c->command = larger;
		c->command_room = room;
	}
	size_t n = redis_format(c->command, argc, argv, argv_bytes);
	int rc = redisAsyncFormattedCommand(c->ac, on_reply, NULL, c->command, n);
	if (c->state != STATE_READY)
		explicit_bzero(c->command, n); /* who we are */
	if (rc != REDIS_OK)
		return false;
	c->expected++;
	return true;
}

static bool put_handshake(struct redis_conn *c)
{
	struct redis_handshake *h = &c->handshake;
	struct handshake_command command;

	redis_handshake_begin(h, &c->settings, c->master_only);
	for (unsigned i = 0; i < h->n; i++) {
		redis_handshake_command(h, &c->settings, i, &command);
		if (!put(c, command.argc, command.argv, command.bytes))
			return false;
	}
	return true;
}

static void on_handshake_reply(struct redis_conn *c, const redisReply *r)
{
	char why[sizeof c->why];
	const char *hint;

	if (!redis_handshake_reply(&c->handshake, &c->settings, r, why, sizeof why, &hint)) {
		give_up(c, why, hint);
		return;
	}
	if (!redis_handshake_is_done(&c->handshake))
		return;
	c->state = STATE_READY;
	ev_timer_stop(c->loop, &c->timer);
	c->events.ready(c->owner);
}

static void on_reply(redisAsyncContext *ac, void *reply, void *unused)
{
	(void)unused;
	struct redis_conn *c = ac->data;
	const redisReply *r = reply;

	if (!c)
		return;
	if (!r) { /* hiredis has an error, and frees the context when this returns */
		char why[160];
		snprintf(why, sizeof why, "%s", ac->errstr ? ac->errstr : "");
		c->too_large = ac->err == REDIS_ERR_OOM;
		const char *hint = c->ssl ? redis_tls_explain(c->ssl, why, sizeof why) : NULL;
		(void)detach(c);
		fall(c, c->too_large ? TOO_LARGE : why, hint);
		return;
	}
	c->budget = c->settings.reply_max;
	if (c->expected) {
		c->expected--;
	} else if (!c->subscribed) {
		give_up(c, "a reply that nobody asked for", NULL);
		return;
	} else if (!put_guard(c)) {
		give_up(c, "out of memory", NULL);
		return;
	}
	if (c->state == STATE_READY)
		c->events.reply(c->owner, r);
	else
		on_handshake_reply(c, r);
}

/* ---- opening ---- */

static void begin_handshake(struct redis_conn *c)
{
	if (!put_handshake(c))
		give_up(c, "out of memory", NULL);
}

static void begin_tls(struct redis_conn *c)
{
	const char *hint;
	char why[160];

	c->ssl = redis_tls_begin(c->settings.tls, c->ac, &c->address, why, sizeof why, &hint);
	if (c->ssl)
		begin_handshake(c);
	else
		give_up(c, why, hint);
}

static void open_now(struct redis_conn *c)
{
	c->subscribed = c->too_large = false;
	c->state = STATE_OPENING;
	redisAsyncContext *ac = c->address.port
					? redisAsyncConnect(c->address.host, c->address.port)
					: redisAsyncConnectUnix(c->address.host);
	if (!ac || ac->err) {
		char why[160];
		snprintf(why, sizeof why, "%s", ac ? ac->errstr : "out of memory");
		if (ac)
			redisAsyncFree(ac);
		fall(c, why, NULL);
		return;
	}
	(void)fcntl(ac->c.fd, F_SETFD, FD_CLOEXEC);
	/* No pacing, as for HAProxy's connections (server/listener.c). */
	if (c->address.port)
		(void)setsockopt(ac->c.fd, IPPROTO_TCP, TCP_CONGESTION, "reno", strlen("reno"));
	c->ac = ac;
	ac->data = c;
	ac->ev.data = c;
	ac->ev.addRead = add_read;
	ac->ev.delRead = del_read;
	ac->ev.addWrite = add_write;
	ac->ev.delWrite = del_write;
	ac->ev.cleanup = clean_up;
	bound_replies(c);
	ev_io_set(&c->readable, ac->c.fd, EV_READ);
	ev_io_set(&c->writable, ac->c.fd, EV_WRITE);
	set_timer(c, c->settings.open_within);
	if (!put_guard(c))
		give_up(c, "out of memory", NULL);
	else if (!c->settings.tls)
		begin_handshake(c);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_conn *c = timer->data;
	if (c->state == STATE_OPENING)
		give_up(c, "it does not answer in time",
			c->ssl ? "does it speak TLS at that port?" : NULL);
	else if (c->state == STATE_WAITING)
		open_now(c);
}

static void on_work(struct ev_loop *loop, ev_timer *work, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_conn *c = work->data;
	if (c->state != STATE_FALLEN)
		return;
	c->state = STATE_WAITING;
	set_timer(c, redis_backoff(&c->delay, &c->seed));
	if (c->was_ready)
		c->events.lost(c->owner, c->why);
	else
		c->events.failed(c->owner, c->why, c->hint);
}

static void let_read(struct redis_conn *c)
{
	if (c->ssl)
		redis_tls_enter();
	c->in_hiredis = true;
	redisAsyncHandleRead(c->ac);
	c->in_hiredis = false;
}

static void let_write(struct redis_conn *c)
{
	if (c->ssl)
		redis_tls_enter();
	c->in_hiredis = true;
	redisAsyncHandleWrite(c->ac);
	c->in_hiredis = false;
}

static void on_readable(struct ev_loop *loop, ev_io *io, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_conn *c = io->data;
	redisAsyncContext *ac = c->ac;
	let_read(c);
	if (c->ac == ac && ac->c.reader->len - ac->c.reader->pos > c->settings.reply_max) {
		c->too_large = true;
		give_up(c, TOO_LARGE, NULL);
	}
}

static void on_writable(struct ev_loop *loop, ev_io *io, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_conn *c = io->data;
	redisAsyncContext *ac = c->ac;
	let_write(c);
	/* Not before hiredis has seen that it is connected: it asks connect() once more, and that
	 * throws away what a server has said before it closed. */
	if (c->ac == ac && c->settings.tls && !c->ssl && (ac->c.flags & REDIS_CONNECTED))
		begin_tls(c);
}

/* ---- what others call ---- */

struct redis_conn *redis_conn_new(const struct redis_conn_settings *settings,
	const struct redis_conn_events *events, void *owner, struct ev_loop *loop)
{
	struct redis_conn *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->settings = *settings;
	c->events = *events;
	c->owner = owner;
	c->loop = loop;
	c->seed = (uint64_t)clock_steady() ^ (uint64_t)(uintptr_t)c;
	ev_init(&c->readable, on_readable);
	ev_init(&c->writable, on_writable);
	ev_init(&c->timer, on_timer);
	ev_timer_init(&c->work, on_work, 0, 0);
	c->readable.data = c->writable.data = c->timer.data = c->work.data = c;
	return c;
}

void redis_conn_free(struct redis_conn *c)
{
	if (!c)
		return;
	assert(!c->in_hiredis);
	close_now(c);
	explicit_bzero(&c->settings, sizeof c->settings);
	free(c->command);
	free(c);
}

bool redis_conn_use(struct redis_conn *c, const struct redis_address *address, bool master_only)
{
	if (!address) {
		bool was = c->has_address;
		close_now(c);
		c->has_address = false;
		return was;
	}
	if (c->has_address && redis_address_eq(&c->address, address) &&
		c->master_only == master_only)
		return false;
	close_now(c);
	c->has_address = true;
	c->handshake.asked_who = false;
	c->address = *address;
	c->master_only = master_only;
	open_now(c);
	return true;
}

void redis_conn_aim(struct redis_conn *c, const struct redis_address *address, bool master_only)
{
	assert(c->state == STATE_WAITING);
	if (!redis_address_eq(&c->address, address))
		c->handshake.asked_who = false;
	c->address = *address;
	c->master_only = master_only;
}

bool redis_conn_is_ready(const struct redis_conn *c)
{
	return c->state == STATE_READY;
}

bool redis_conn_was_too_large(const struct redis_conn *c)
{
	return c->too_large;
}

bool redis_conn_send(struct redis_conn *c, unsigned argc, const char *argv[], size_t argv_bytes[])
{
	if (c->state != STATE_READY)
		return false;
	if (put(c, argc, argv, argv_bytes))
		return true;
	give_up(c, "out of memory", NULL);
	return false;
}

/* hiredis must not know: it would keep what is said in the channels to itself. So it is shown a
 * PING, and SUBSCRIBE follows in the same bytes. */
static bool put_subscribe(struct redis_conn *c, unsigned argc, const char *argv[])
{
	char *command = NULL;
	int n = redisFormatCommandArgv(&command, (int)argc, argv, NULL);
	if (n < 0)
		return false;
	char *both = malloc(FIRST_COMMAND_BYTES + (size_t)n);
	bool ok = both != NULL;
	if (ok) {
		memcpy(both, first_command, FIRST_COMMAND_BYTES);
		memcpy(both + FIRST_COMMAND_BYTES, command, (size_t)n);
		ok = redisAsyncFormattedCommand(c->ac, on_reply, NULL, both,
			     FIRST_COMMAND_BYTES + (size_t)n) == REDIS_OK;
	}
	free(both);
	redisFreeCommand(command);
	return ok;
}

bool redis_conn_subscribe(struct redis_conn *c, unsigned channel_n, const char *channel[])
{
	const char *argv[1 + CHANNELS_MAX] = { "SUBSCRIBE" };

	assert(channel_n <= CHANNELS_MAX);
	if (c->state != STATE_READY)
		return false;
	for (unsigned i = 0; i < channel_n; i++)
		argv[1 + i] = channel[i];
	if (put_subscribe(c, 1 + channel_n, argv)) {
		c->subscribed = true;
		c->expected++;
		return true;
	}
	give_up(c, "out of memory", NULL);
	return false;
}

void redis_conn_flush(struct redis_conn *c)
{
	if (c->state != STATE_READY || c->in_hiredis || !ev_is_active(&c->writable))
		return;
	let_write(c);
}

void redis_conn_give_up(struct redis_conn *c, const char *why)
{
	if (c->state == STATE_OPENING || c->state == STATE_READY)
		give_up(c, why, NULL);
}

void redis_conn_is_good(struct redis_conn *c)
{
	c->delay = 0;
}
