/* Who waits until what was changed is on disk, and in Redis: those who asked for it, and the log.
 */
#include "server/desk_inside.h"

#include "base/err.h"
#include "base/log.h"
#include "config/json.h"

#include <stdlib.h>
#include <string.h>

enum { WAITS_MAX = 1000 };

/* ---- how far it is ---- */

/* The disk has it, or will not, or nobody waits for that any longer. */
static bool is_tried(const struct desk_wait *w, const struct clerk_state *clerk, usec_t steady,
	struct desk_kept *kept)
{
	if (w->missing)
		kept->not_on_disk = w->missing;
	else if (clerk->tried < w->number && steady < w->until)
		return false;
	else if (clerk->tried < w->number)
		kept->not_on_disk = "the disk has not taken it yet";
	else if (clerk->good < w->number)
		kept->not_on_disk = clerk->why;
	return true;
}

/* Redis has it, or nobody waits for that any longer. */
static bool is_shared(const struct desk_wait *w, const struct redis_changes_state *redis,
	usec_t steady, struct desk_kept *kept)
{
	if (w->untold)
		kept->not_shared = "there was no memory to send it";
	else if (redis->had >= w->told)
		return true;
	else if (redis->refused)
		kept->not_shared = redis->refused;
	else if (steady < w->until)
		return false;
	else
		kept->not_shared = redis->away_since ? "Redis is away" : "Redis has not answered";
	return true;
}

struct far {
	struct clerk_state clerk;
	struct redis_changes_state redis;
	usec_t steady;
};

static void find_how_far(struct desk *d, struct far *f)
{
	f->clerk = (struct clerk_state){ .good = UINT64_MAX, .tried = UINT64_MAX };
	f->redis = (struct redis_changes_state){ .had = UINT64_MAX };
	f->steady = clock_steady();
	if (d->clerk)
		clerk_state(d->clerk, &f->clerk);
	if (d->args.shared)
		f->redis = d->args.shared(d->args.with);
}

/* ---- the list of them ---- */

static void on_late(struct ev_loop *loop, ev_timer *late, int revents)
{
	(void)loop;
	(void)revents;
	desk_look_at_waits(late->data);
}

void desk_init_waits(struct desk *d)
{
	ev_timer_init(&d->late, on_late, 0., 0.);
	d->late.data = d;
}

static void pop(struct desk *d, const struct desk_kept *kept)
{
	struct desk_wait *w = d->first;

	d->first = w->next;
	if (!d->first)
		d->last = NULL;
	d->waits--;
	w->kept(w, kept);
}

/* All numbers and instants rise along the list: the first one is ready first. */
void desk_look_at_waits(struct desk *d)
{
	struct far f;

	find_how_far(d, &f);
	while (d->first) {
		struct desk_kept kept = { 0 };
		if (!is_tried(d->first, &f.clerk, f.steady, &kept) ||
			!is_shared(d->first, &f.redis, f.steady, &kept))
			break;
		pop(d, &kept);
	}
	ev_timer_stop(d->args.loop, &d->late);
	if (d->first) {
		ev_timer_set(
			&d->late, (double)(d->first->until - f.steady) / (double)USEC_PER_SEC, 0.);
		ev_timer_start(d->args.loop, &d->late);
	}
}

void desk_miss_waits(struct desk *d)
{
	for (struct desk_wait *w = d->first; w; w = w->next)
		if (w->number > d->handed)
			w->missing = d->missing;
	desk_look_at_waits(d);
}

void desk_shared(struct desk *d)
{
	desk_look_at_waits(d);
}

void desk_end_waits(struct desk *d)
{
	struct far f;

	desk_look_at_waits(d);
	find_how_far(d, &f);
	while (d->first) {
		struct desk_kept kept = { 0 };
		(void)is_tried(d->first, &f.clerk, d->first->until, &kept);
		if (d->first->untold || d->first->told > f.redis.had)
			kept.not_shared = "the agent stops";
		pop(d, &kept);
	}
	ev_timer_stop(d->args.loop, &d->late);
}

/* Where Redis has been away for a while, or the disk hangs, nobody waits anew; so the instants
 * rise. (It is one of the two.) */
static usec_t patient_until(const struct desk *d, const struct far *f)
{
	usec_t since = d->args.shared ? f->redis.away_since : f->clerk.busy_since;

	return (since && since < f->steady ? since : f->steady) + d->args.wait_within;
}

void desk_when_kept(struct desk *d, struct desk_wait *w)
{
	struct far f;

	find_how_far(d, &f);
	w->next = NULL;
	w->number = d->handed + d->composed.has_alone;
	w->missing = d->missing;
	w->told = d->told;
	w->untold = d->untold;
	w->until = patient_until(d, &f);
	if (d->last)
		d->last->next = w;
	else
		d->first = w;
	d->last = w;
	d->waits++;
	desk_look_at_waits(d);
}

static bool has_room(struct desk *d, char *err, size_t err_size)
{
	if (!desk_keeps_up(d))
		return err_say(
			err, err_size, "the disk has not taken the last changes yet: try again");
	if (d->args.shared && d->args.shared(d->args.with).waiting >= REDIS_CHANGES_WAITING_MAX)
		return err_say(
			err, err_size, "Redis has not taken the last changes yet: try again");
	return d->waits < WAITS_MAX ||
	       err_say(err, err_size,
		       "too many changes wait for the disk, or for Redis: try again");
}

bool desk_may_change(struct desk *d, char *err, size_t err_size)
{
	bool may = has_room(d, err, err_size);

	d->asks_to_wait = !may;
	return may;
}

/* ---- the log ---- */

struct audit {
	struct desk_wait wait; /* first */
	char *what, *name, *who, *reason, *text;
};

static void free_audit(struct audit *a)
{
	free(a->what);
	free(a->name);
	free(a->who);
	free(a->reason);
	free(a->text);
	free(a);
}

static void log_audit(struct desk_wait *w, const struct desk_kept *kept)
{
	struct audit *a = (struct audit *)w;
	struct log_field field[8] = { KV_Z("what", a->what), KV_Z("change", a->name),
		KV_Z("who", a->who), KV_Z("reason", a->reason), KV_Z("value", a->text) };
	unsigned n = 5;

	if (kept->not_on_disk)
		field[n++] = (struct log_field)KV_Z("not_kept", kept->not_on_disk);
	if (kept->not_shared)
		field[n++] = (struct log_field)KV_Z("not_shared", kept->not_shared);
	log_put_always(LOG_LEVEL_WARNING, "audit", field);
	free_audit(a);
}

void desk_audit(struct desk *d, const char *what, const char *name, json_t *value, struct act act)
{
	struct audit *a = calloc(1, sizeof *a);

	if (a) {
		a->wait.kept = log_audit;
		a->what = strdup(what);
		a->name = strdup(name);
		a->who = strdup(act.who);
		a->reason = strdup(act.reason ? act.reason : "");
		a->text = value ? json_text(value, JSON_COMPACT) : strdup("");
	}
	if (a && a->what && a->name && a->who && a->reason && a->text) {
		desk_when_kept(d, &a->wait);
		return;
	}
	log_put_always(LOG_LEVEL_WARNING, "audit",
		LOG_FIELDS(KV_Z("what", what), KV_Z("change", name), KV_Z("who", act.who),
			KV_Z("reason", act.reason ? act.reason : "")));
	if (a)
		free_audit(a);
}
