#include "server/clerk.h"

#include "base/thread.h"
#include "base/wait.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { WAITING_BYTES_MAX = 1 << 20 }; /* of single texts; a whole is not counted */

struct order {
	struct order *next;
	uint64_t number;
	bool whole;
	struct pile pile;
};

struct clerk {
	struct clerk_args args;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wanted, done;
	ev_async bell;
	bool whole_is_missed; /* the thread's own: the last one could not be written */
	/* under the lock */
	struct order *first, *last;
	uint64_t handed; /* the last number */
	size_t waiting;  /* bytes, those that are being written included */
	bool stop;
	struct clerk_state state;
};

/* ---- piles ---- */

struct piece {
	size_t name_n, text_n; /* text_n SIZE_MAX: none */
};

static bool make_room(struct pile *p, size_t n)
{
	if (n <= p->room - p->n)
		return true;
	size_t room = p->n + n + p->room;
	char *grown = realloc(p->bytes, room);
	if (!grown)
		return false;
	p->bytes = grown;
	p->room = room;
	return true;
}

static void add(struct pile *p, const void *bytes, size_t n)
{
	if (n)
		memcpy(p->bytes + p->n, bytes, n);
	p->n += n;
}

void pile_put(struct pile *p, struct str name, struct str text)
{
	struct piece piece = { name.n, text.p ? text.n : SIZE_MAX };
	size_t text_n = text.p ? text.n : 0;

	if (!make_room(p, sizeof piece + name.n + text_n)) {
		p->bad = true;
		return;
	}
	add(p, &piece, sizeof piece);
	add(p, name.p, name.n);
	add(p, text.p, text_n);
}

void pile_fini(struct pile *p)
{
	free(p->bytes);
	*p = (struct pile){ 0 };
}

void pile_write(struct journal *j, const struct pile *p)
{
	struct piece piece;

	for (size_t at = 0; at < p->n;) {
		memcpy(&piece, p->bytes + at, sizeof piece);
		at += sizeof piece;
		struct str name = { p->bytes + at, piece.name_n }, text = { 0 };
		at += name.n;
		if (piece.text_n != SIZE_MAX) {
			text = (struct str){ p->bytes + at, piece.text_n };
			at += text.n;
		}
		journal_put(j, name, text);
	}
}

/* ---- the thread ---- */

static bool write_whole(struct clerk *c, const struct order *o, char *err, size_t err_size)
{
	struct journal *j = c->args.journal;

	if (!journal_begin(j, err, err_size))
		return false;
	pile_write(j, &o->pile);
	if (c->args.rest)
		c->args.rest(c->args.with, j);
	return journal_replace(j, err, err_size);
}

/* One whole, or all the single ones before the next whole: one sync for them. What a whole was to
 * have may be nowhere else: until there is one, nothing that comes after it counts as kept, and
 * `err` goes on saying why. */
static const struct order *write_some(
	struct clerk *c, const struct order *o, bool *good, char *err, size_t err_size)
{
	if (o->whole) {
		*good = write_whole(c, o, err, err_size);
		c->whole_is_missed = !*good;
		return o;
	}
	pile_write(c->args.journal, &o->pile);
	while (o->next && !o->next->whole) {
		o = o->next;
		pile_write(c->args.journal, &o->pile);
	}
	*good = journal_sync(c->args.journal, err, err_size) && !c->whole_is_missed;
	return o;
}

/* Those up to `last` were tried: they go, with the lock held. */
static void finish(
	struct clerk *c, struct order **all, const struct order *last, bool good, const char *why)
{
	uint64_t number = last->number;

	while (*all && (*all)->number <= number) {
		struct order *o = *all;
		*all = o->next;
		if (!o->whole)
			c->waiting -= o->pile.n;
		pile_fini(&o->pile);
		free(o);
	}
	c->state.tried = number;
	c->state.busy_since = 0;
	if (good)
		c->state.good = number;
	else
		memcpy(c->state.why, why, sizeof c->state.why);
	(void)pthread_cond_broadcast(&c->done);
	ev_async_send(c->args.loop, &c->bell);
}

static void *run(void *arg)
{
	struct clerk *c = arg;
	char why[sizeof c->state.why];

	(void)pthread_mutex_lock(&c->lock);
	for (;;) {
		while (!c->first && !c->stop)
			(void)pthread_cond_wait(&c->wanted, &c->lock);
		struct order *all = c->first;
		if (!all)
			break;
		c->first = c->last = NULL;
		while (all) {
			bool good;
			c->state.busy_since = clock_steady();
			(void)pthread_mutex_unlock(&c->lock);
			const struct order *last = write_some(c, all, &good, why, sizeof why);
			(void)pthread_mutex_lock(&c->lock);
			finish(c, &all, last, good, why);
		}
	}
	(void)pthread_mutex_unlock(&c->lock);
	return NULL;
}

static void on_bell(struct ev_loop *loop, ev_async *bell, int revents)
{
	(void)loop;
	(void)revents;
	struct clerk *c = bell->data;
	c->args.kept(c->args.with);
}

/* ---- creation and end ---- */

static void end(struct clerk *c)
{
	ev_async_stop(c->args.loop, &c->bell);
	(void)pthread_cond_destroy(&c->wanted);
	(void)pthread_cond_destroy(&c->done);
	(void)pthread_mutex_destroy(&c->lock);
	free(c);
}

struct clerk *clerk_new(const struct clerk_args *args)
{
	struct clerk *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->args = *args;
	(void)pthread_mutex_init(&c->lock, NULL);
	(void)pthread_cond_init(&c->wanted, NULL);
	cond_init(&c->done);
	ev_async_init(&c->bell, on_bell);
	c->bell.data = c;
	ev_async_start(c->args.loop, &c->bell);
	if (thread_start(&c->thread, "clerk", run, c)) {
		end(c);
		return NULL;
	}
	return c;
}

void clerk_free(struct clerk *c)
{
	if (!c)
		return;
	(void)pthread_mutex_lock(&c->lock);
	c->stop = true;
	(void)pthread_cond_signal(&c->wanted);
	(void)pthread_mutex_unlock(&c->lock);
	(void)pthread_join(c->thread, NULL);
	end(c);
}

/* ---- handing over ---- */

static uint64_t hand_over(struct clerk *c, struct pile *pile, bool whole)
{
	struct order *o = pile->bad ? NULL : calloc(1, sizeof *o);
	if (!o) {
		pile_fini(pile);
		return 0;
	}
	o->pile = *pile;
	o->whole = whole;
	*pile = (struct pile){ 0 };
	(void)pthread_mutex_lock(&c->lock);
	uint64_t number = o->number = ++c->handed;
	if (!whole)
		c->waiting += o->pile.n;
	if (c->last)
		c->last->next = o;
	else
		c->first = o;
	c->last = o;
	(void)pthread_cond_signal(&c->wanted);
	(void)pthread_mutex_unlock(&c->lock);
	return number;
}

bool clerk_is_behind(struct clerk *c)
{
	(void)pthread_mutex_lock(&c->lock);
	bool behind = c->waiting > WAITING_BYTES_MAX;
	(void)pthread_mutex_unlock(&c->lock);
	return behind;
}

uint64_t clerk_put(struct clerk *c, struct str name, struct str text)
{
	struct pile pile = { 0 };

	if (clerk_is_behind(c))
		return 0;
	pile_put(&pile, name, text);
	return hand_over(c, &pile, false);
}

uint64_t clerk_replace(struct clerk *c, struct pile *pile)
{
	return hand_over(c, pile, true);
}

void clerk_state(struct clerk *c, struct clerk_state *state)
{
	(void)pthread_mutex_lock(&c->lock);
	*state = c->state;
	(void)pthread_mutex_unlock(&c->lock);
}

bool clerk_settle(struct clerk *c, usec_t deadline)
{
	(void)pthread_mutex_lock(&c->lock);
	for (usec_t left; c->state.tried < c->handed && (left = deadline - clock_steady()) > 0;)
		cond_wait_for(&c->done, &c->lock, left);
	bool settled = c->state.tried >= c->handed;
	(void)pthread_mutex_unlock(&c->lock);
	return settled;
}
