/* What is served: snapshots, published and retired by a reload or by the desk. */
#include "server/control_inside.h"

#include "base/log.h"
#include "config/problems.h"
#include "server/acceptor.h"
#include "server/keeper.h"
#include "server/known.h"
#include "server/notices.h"
#include "server/service.h"

#include <stdio.h>
#include <string.h>

/* As long an operator waits: Redis confirms a change in a fraction of a millisecond, a disk that is
 * busy takes a while. */
#define REDIS_CONFIRMS_WITHIN USEC_PER_SEC
#define DISK_WRITES_WITHIN    (10 * USEC_PER_SEC)

/* ---- snapshots ---- */

void control_drop_snapshot(struct snapshot *s)
{
	if (s && snapshot_unref(s))
		snapshot_free(s);
}

void control_free_retired(struct control *c)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < c->retired_n; i++) {
		struct snapshot *s = c->retired[i];
		/* Nobody can take a new reference: only control hands this one out, and it has
		 * stopped doing so. */
		if (atomic_load_explicit(&s->refs, memory_order_acquire) > 1)
			c->retired[kept++] = s;
		else
			control_drop_snapshot(s);
	}
	c->retired_n = kept;
}

static bool has_room_to_publish(struct control *c)
{
	control_free_retired(c);
	return c->retired_n < RETIRED_MAX;
}

static void publish(struct control *c, struct snapshot *fresh)
{
	tally_names_apply(c->tally_names, fresh->policy);
	double slower = snapshot_slower_by(c->snapshot, fresh);
	if (slower > 1.0)
		memory_store_stretch(c->args.store, slower, clock_read());
	crew_publish(&c->crew, fresh);
	acceptor_raise_limit(&fresh->settings, c->crew.n);
	if (c->acceptor) /* not yet, where Redis told of changes while it was waited for */
		acceptor_use(c->acceptor, fresh);
	backend_apply(&c->redis, &fresh->settings);
	keeper_change_interval(c->keeper, fresh->settings.store.state_interval);
	c->retired[c->retired_n++] = c->snapshot;
	c->snapshot = fresh;
}

/* ---- for the desk ---- */

static struct snapshot *current(void *with)
{
	return ((struct control *)with)->snapshot;
}

static uint64_t share(void *with, const char *name, const char *text)
{
	return backend_share(&((struct control *)with)->redis, name, text);
}

static struct redis_changes_state shared(void *with)
{
	return backend_shared(&((struct control *)with)->redis);
}

static void erased(void *with, const struct key *key, unsigned n)
{
	struct control *c = with;
	for (unsigned i = 0; i < n; i++)
		(void)memory_store_erase(c->args.store, &key[i]);
	if (!crew_erased(&c->crew, key, n))
		log_error("reset_not_everywhere",
			KV_Z("why", "out of memory: what workers remember holds for a while"));
}

static void on_told(void *owner, const struct str *name, const struct str *text, size_t n)
{
	struct control *c = owner;
	if (c->phase == CONTROL_RUN)
		desk_told(c->desk, name, text, n);
}

static void on_news(void *owner, const struct str *name, const struct str *text, size_t n)
{
	struct control *c = owner;
	if (c->phase == CONTROL_RUN)
		desk_news(c->desk, name, text, n);
}

static void on_missing(void *owner)
{
	struct control *c = owner;
	if (c->phase == CONTROL_RUN)
		desk_tell_again(c->desk);
}

static void on_moved(void *owner)
{
	desk_shared(((struct control *)owner)->desk);
}

static bool publish_change(void *with, struct snapshot *fresh)
{
	struct control *c = with;
	if (!has_room_to_publish(c))
		return false;
	publish(c, fresh);
	return true;
}

/* ---- reload ---- */

static void log_problems(const struct problems *p, bool refused)
{
	for (size_t i = 0; i < p->n; i++)
		if (refused && !p->is_warning[i])
			log_error("reload_refused", KV_Z("problem", p->message[i]));
		else
			log_warning("config_warning", KV_Z("problem", p->message[i]));
}

/* Everything that can fail, before anything has changed. NULL: `problems` says why. */
static struct snapshot *load_fresh(
	struct control *c, struct problems *problems, struct problems *idle)
{
	struct snapshot *fresh = config_load(c->args.files, c->args.files_n,
		memory_store_key(c->args.store), c->snapshot->generation + 1, problems);
	if (fresh && snapshot_can_replace(c->snapshot, fresh, problems)) {
		char err[512];
		struct log_settings log = log_settings_for(&fresh->settings, c->args.verbosity);
		const char *about = "redis.tls";
		bool good = backend_reload_tls(&c->redis, err, sizeof err);
		if (good) {
			about = "log.target";
			good = log_change(&log, err, sizeof err) == 0;
		}
		if (good)
			return desk_apply(c->desk, fresh, idle);
		problem_add(
			problems, (struct place){ snapshot_option_at(fresh, about), 0 }, "%s", err);
	}
	control_drop_snapshot(fresh);
	return NULL;
}

static const char *cannot_reload(struct control *c)
{
	if (c->phase != CONTROL_RUN)
		return "the agent is stopping";
	if (!has_room_to_publish(c))
		return "workers have not taken over the last ones yet: try again";
	return NULL;
}

/* Through the interface: always. A signal is of who has the machine and its log's level: for -q,
 * only what fails is said. */
static void audit(struct act act, bool done, uint64_t generation)
{
	struct log_field field[7] = { KV_Z("what", "reload"), KV_Z("change", "configuration"),
		KV_Z("who", act.who), KV_Z("result", done ? "ok" : "refused"),
		KV_INT("generation", generation) };

	if (act.reason)
		field[5] = (struct log_field)KV_Z("reason", act.reason);
	(strcmp(act.who, "SIGHUP") == 0 ? log_put : log_put_always)(
		LOG_LEVEL_WARNING, "audit", field);
}

bool control_reload(struct control *c, struct act act, struct reload *r)
{
	*r = (struct reload){ 0 };
	struct snapshot *fresh = NULL;
	struct problems idle = { 0 }; /* the desk logs them */
	const char *why = cannot_reload(c);
	if (why) {
		problem_add(&r->problems, (struct place){ 0 }, "%s", why);
	} else {
		service_reloading();
		fresh = load_fresh(c, &r->problems, &idle);
	}
	log_problems(&r->problems, !fresh);
	problems_append(&r->problems, &idle);
	problems_free(&idle);
	metric_add(&c->metrics, fresh ? METRIC_reloads : METRIC_reloads_refused, 1);
	if (fresh) {
		size_t n = snapshot_describe_changes(
			c->snapshot, fresh, r->changed, sizeof r->changed);
		const struct policy *before = c->snapshot->policy;
		publish(c, fresh); /* which keeps the one before until later */
		desk_end_unknown_bans(c->desk, fresh->policy, before, act.who);
		log_info("reloaded", KV_INT("generation", fresh->generation),
			KV_STR("changed", ((struct str){ r->changed, n })));
		notices_tell_disabled(fresh->policy);
	}
	if (!why)
		service_ready(fresh ? "serving" : "serving; the last reload was refused");
	r->generation = c->snapshot->generation;
	audit(act, fresh, r->generation);
	return fresh;
}

void reload_fini(struct reload *r)
{
	problems_free(&r->problems);
}

/* ---- at the beginning and the end ---- */

struct backend_ears control_ears(struct control *c)
{
	return (struct backend_ears){ on_told, on_news, on_missing, on_moved, c };
}

bool control_open_desk(struct control *c, char *err, size_t err_size)
{
	const struct settings *s = &c->snapshot->settings;
	bool redis = s->store.backend == BACKEND_REDIS;
	c->keeper = keeper_start(c->args.store, s->store.state_file, s->store.state_interval);
	c->bans = bans_new();
	c->known = known_new();
	(void)snprintf(err, err_size, "%s", CONTROL_NOTHING_LEFT);
	if (!c->keeper || !c->bans || !c->known)
		return false;
	c->desk = desk_new(
		&(struct desk_args){
			.store = c->args.store,
			.bans = c->bans,
			.keeper = c->keeper,
			.state_file = s->store.state_file,
			.loop = c->loop,
			.share = redis ? share : NULL,
			.shared = redis ? shared : NULL,
			.wait_within = redis ? REDIS_CONFIRMS_WITHIN : DISK_WRITES_WITHIN,
			.erased = erased,
			.current = current,
			.publish = publish_change,
			.with = c,
		},
		err, err_size);
	if (!c->desk)
		return false;
	c->snapshot = desk_apply(c->desk, c->snapshot, NULL);
	desk_end_unknown_bans(c->desk, c->snapshot->policy, NULL, "configuration");
	return true;
}

void control_drop_served(struct control *c)
{
	for (unsigned i = 0; i < c->retired_n; i++)
		control_drop_snapshot(c->retired[i]);
	control_drop_snapshot(c->snapshot);
}
