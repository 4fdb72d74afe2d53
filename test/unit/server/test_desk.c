/* The operator's changes at work: what is served after each, what is refused, what survives. */
#include "server/desk.h"

#include "loaded.h"
#include "server/keeper.h"
#include "store/journal.h"
#include "store/state.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>
#include <ev.h>

/* In the place of libc's: what the clerk ends with. The disk can be stopped. */
static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t disk_goes_on = PTHREAD_COND_INITIALIZER;
static bool disk_hangs, save_hangs;
static atomic_bool disk_fails;

int fdatasync(int fd)
{
	(void)pthread_mutex_lock(&disk);
	while (disk_hangs)
		(void)pthread_cond_wait(&disk_goes_on, &disk);
	(void)pthread_mutex_unlock(&disk);
	if (!disk_fails)
		return (int)syscall(SYS_fdatasync, fd);
	errno = EIO;
	return -1;
}

/* The whole ends with this one, and so does a state file. */
int fsync(int fd)
{
	(void)pthread_mutex_lock(&disk);
	while (save_hangs)
		(void)pthread_cond_wait(&disk_goes_on, &disk);
	(void)pthread_mutex_unlock(&disk);
	if (!disk_fails)
		return (int)syscall(SYS_fsync, fd);
	errno = EIO;
	return -1;
}

/* In the place of jansson's: how many texts this thread has composed. */
static _Thread_local unsigned composed;

size_t json_dumpb(const json_t *json, char *buffer, size_t size, size_t flags)
{
	static size_t (*real)(const json_t *, char *, size_t, size_t);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "json_dumpb");
	composed += buffer != NULL;
	return real(json, buffer, size, flags);
}

static void set(bool *what, bool hangs)
{
	(void)pthread_mutex_lock(&disk);
	*what = hangs;
	(void)pthread_cond_broadcast(&disk_goes_on);
	(void)pthread_mutex_unlock(&disk);
}

static void hang(bool hangs)
{
	set(&disk_hangs, hangs);
}

static const struct hash_key test_key = { .bytes = { 1 } };
static const char config[] =
	"rules = ( { name = \"api\"; per = [ \"user\" ]; rate = \"10/minute\"; "
	"penalty = { after = \"3/1m\"; }; } );";
static const struct act by = { .who = "uid 0", .reason = "a test" };

#define WITHIN (1000000 * USEC_PER_SEC) /* Redis is waited for: longer than a test takes */

static usec_t within = WITHIN;

struct rig {
	struct memory_store *store;
	struct keeper *keeper;
	struct desk *desk;
	struct bans *bans;
	struct snapshot *served;
	bool busy;
	json_int_t told_epoch; /* of the ban that was told last */
	unsigned told_gone;    /* bans that are no more */
	uint64_t told;         /* the last number */
	unsigned told_bans;
	struct key erased[8];
	unsigned erased_n;
	bool is_mute;   /* there is no memory to tell anything */
	char said[512]; /* "NAME+" or, of one that is no more, "NAME-" of each, and a blank */
	struct redis_changes_state redis;
};

static struct snapshot *current(void *with)
{
	return ((struct rig *)with)->served;
}

static bool publish(void *with, struct snapshot *fresh)
{
	struct rig *r = with;
	if (r->busy)
		return false;
	drop(r->served);
	r->served = fresh;
	return true;
}

static uint64_t share(void *with, const char *name, const char *text)
{
	struct rig *r = with;
	bool is_ban = strncmp(name, "ban:", 4) == 0;
	size_t n = strlen(r->said);

	if (r->is_mute)
		return 0;
	json_t *value = text ? json_loads(text, 0, NULL) : NULL;
	(void)snprintf(r->said + n, sizeof r->said - n, "%s%s ", name, text ? "+" : "-");
	r->told_bans += is_ban;
	r->told_gone += is_ban && !text;
	if (is_ban)
		r->told_epoch = json_integer_value(json_object_get(value, "epoch"));
	json_decref(value);
	return ++r->told;
}

static struct redis_changes_state shared(void *with)
{
	return ((struct rig *)with)->redis;
}

static void erased(void *with, const struct key *key, unsigned n)
{
	struct rig *r = with;

	assert_true(n <= 8);
	memcpy(r->erased, key, n * sizeof *key);
	r->erased_n = n;
}

/* `store`: taken over; NULL: a new one. */
static void start(struct rig *r, struct memory_store *store, const char *state_file)
{
	char err[512];

	*r = (struct rig){ .store = store, .redis = { .had = UINT64_MAX } };
	if (!store)
		r->store = memory_store_new(100, &test_key, clock_read());
	r->keeper = keeper_start(r->store, state_file, 0);
	r->served = loaded(config, &test_key, 1);
	r->bans = bans_new();
	r->desk = desk_new(&(struct desk_args){ .store = r->store,
				   .bans = r->bans,
				   .keeper = r->keeper,
				   .state_file = state_file,
				   .loop = EV_DEFAULT,
				   .share = state_file[0] ? NULL : share,
				   .shared = state_file[0] ? NULL : shared,
				   .erased = erased,
				   .wait_within = within,
				   .current = current,
				   .publish = publish,
				   .with = r },
		err, sizeof err);
	if (!r->desk)
		fail_msg("%s", err);
	r->served = desk_apply(r->desk, r->served, NULL);
}

/* As after a kill: the state file is not written. */
static void finish(struct rig *r)
{
	desk_free(r->desk);
	bans_free(r->bans);
	keeper_free(r->keeper);
	drop(r->served);
	store_close(memory_store_base(r->store));
}

static bool put(struct rig *r, const char *name, const char *json, char *err)
{
	json_t *value = json_loads(json, 0, NULL);
	assert_non_null(value);
	err[0] = '\0';
	bool good = desk_put(r->desk, name, value, by, err, 256);
	json_decref(value);
	return good;
}

static enum rule_mode api_mode(const struct rig *r)
{
	return r->served->policy->rule[0].mode;
}

static void a_change_is_served_at_once(void **state)
{
	struct rig r;
	char err[256];
	(void)state;

	start(&r, NULL, "");
	assert_true(put(&r, "switch:api", "{\"mode\":\"shadow\"}", err));
	assert_int_equal(api_mode(&r), MODE_SHADOW);
	assert_int_equal(r.served->generation, 2);
	json_t *kept = changes_get(desk_changes(r.desk), "switch:api");
	assert_string_equal(json_string_value(json_object_get(kept, "who")), "uid 0");
	assert_string_equal(json_string_value(json_object_get(kept, "reason")), "a test");
	assert_true(json_integer_value(json_object_get(kept, "since")) > 1500000000);

	/* a reload keeps it */
	r.served = desk_apply(r.desk, (drop(r.served), loaded(config, &test_key, 3)), NULL);
	assert_int_equal(api_mode(&r), MODE_SHADOW);
	assert_int_equal(r.served->generation, 3);

	assert_true(desk_remove(r.desk, "switch:api", by, err, sizeof err));
	assert_int_equal(api_mode(&r), MODE_ENFORCE);
	assert_false(desk_remove(r.desk, "switch:api", by, err, sizeof err));
	assert_string_equal(err, "nothing is set under this name");
	finish(&r);
}

/* As where there is no memory: a configuration that cannot be built again. */
static void a_reload_without_them_is_made_good(void **state)
{
	static const char text[] = "rules = ( { name = \"api\"; per = [ \"user\" ]; "
				   "rate = \"${DESK_TEST_RATE}\"; } );";
	struct rig r;
	char err[256];
	(void)state;

	start(&r, NULL, "");
	assert_true(put(&r, "switch:api", "{\"mode\":\"shadow\"}", err));
	assert_int_equal(setenv("DESK_TEST_RATE", "5/minute", 1), 0);
	struct snapshot *fresh = loaded(text, &test_key, 3);
	assert_int_equal(unsetenv("DESK_TEST_RATE"), 0);
	drop(r.served);
	r.served = desk_apply(r.desk, fresh, NULL);
	assert_ptr_equal(r.served, fresh);
	desk_tick(r.desk, clock_read());
	assert_int_equal(api_mode(&r), MODE_ENFORCE);
	assert_int_equal(setenv("DESK_TEST_RATE", "5/minute", 1), 0);
	desk_tick(r.desk, clock_read());
	assert_int_equal(api_mode(&r), MODE_SHADOW);
	assert_int_equal(unsetenv("DESK_TEST_RATE"), 0);
	finish(&r);
}

static void what_is_refused_changes_nothing(void **state)
{
	struct rig r;
	char err[256];
	(void)state;

	start(&r, NULL, "");
	assert_true(put(&r, "override:user:a", "{\"rates\":{\"api\":\"7/minute\"}}", err));
	struct snapshot *before = r.served;

	assert_false(put(&r, "override:user:a", "{\"rates\":{\"gone\":\"7/minute\"}}", err));
	assert_string_equal(err, "there is no rule \"gone\"");
	assert_false(put(&r, "switch:gone", "{\"mode\":\"off\"}", err));
	assert_string_equal(err, "there is no rule \"gone\"");
	assert_false(put(&r, "switch:api", "{\"mode\":\"on\"}", err));
	r.busy = true;
	assert_false(put(&r, "switch:api", "{\"mode\":\"off\"}", err));
	assert_non_null(strstr(err, "try again"));
	assert_false(desk_remove(r.desk, "override:user:a", by, err, sizeof err));
	assert_non_null(strstr(err, "try again"));
	assert_true(desk_asks_to_wait(r.desk));
	r.busy = false;
	assert_false(desk_remove(r.desk, "override:user:b", by, err, sizeof err));
	assert_false(put(&r, "switch:gone", "{\"mode\":\"off\"}", err));
	assert_false(desk_asks_to_wait(r.desk));

	assert_ptr_equal(r.served, before);
	assert_int_equal(changes_count(desk_changes(r.desk)), 1);
	json_t *kept = changes_get(desk_changes(r.desk), "override:user:a");
	assert_non_null(json_object_get(json_object_get(kept, "rates"), "api"));
	finish(&r);
}

static void each_reset_makes_other_counters(void **state)
{
	struct rig r;
	char err[256];
	struct key seen[4];
	(void)state;

	start(&r, NULL, "");
	for (unsigned i = 0; i < 4; i++) {
		seen[i] = r.served->policy->rule[0].other.limit->salt;
		for (unsigned k = 0; k < i; k++)
			assert_memory_not_equal(&seen[i], &seen[k], sizeof seen[i]);
		assert_true(desk_reset_rule(r.desk, i % 2 ? "api" : NULL, by, err, sizeof err));
	}
	assert_false(desk_reset_rule(r.desk, "gone", by, err, sizeof err));
	assert_string_equal(err, "there is no rule \"gone\"");
	finish(&r);
}

/* All of one client's counters, his denials too, are forgotten here and by those who hear of it. */
static void a_reset_of_one_client_is_told_with_all_its_counters(void **state)
{
	enum { RESETS_MAX = 1000 };
	struct plan plan = { .n = 2 }, strikes = { .n = 1 };
	struct rig r;
	char err[256];
	(void)state;

	plan.take[0].key = (struct key){ 1, 2 };
	plan.take[1].key = (struct key){ 3, 4 };
	strikes.take[0].key = (struct key){ 5, 6 };
	const struct key all[] = { { 1, 2 }, { 3, 4 }, { 5, 6 } };
	start(&r, NULL, "");
	for (uint64_t i = 0; i < RESETS_MAX; i++) {
		assert_true(desk_may_reset_client(r.desk, err, sizeof err));
		plan.take[0].key.a = 1 + i;
		r.told = 0;
		desk_reset_counters(r.desk, &plan, &strikes, by);
		assert_int_equal(r.told, 1);
		assert_int_equal(r.erased_n, 3);
		if (i == 0)
			assert_memory_equal(r.erased, all, sizeof all);
	}
	/* As many as have to be remembered at once. */
	assert_false(desk_may_reset_client(r.desk, err, sizeof err));
	assert_false(desk_asks_to_wait(r.desk));
	desk_tick(r.desk, (struct now){ .utc = clock_read().utc + 61 * USEC_PER_SEC });
	assert_true(desk_may_reset_client(r.desk, err, sizeof err));
	finish(&r);

	char name[CHANGE_NAME_MAX];
	json_t *value = change_reset(all, 3, clock_read().utc);
	char *text = json_dumps(value, JSON_COMPACT);
	change_reset_name(all, 3, name);
	start(&r, NULL, "");
	uint64_t generation = r.served->generation;
	desk_news(r.desk, &(struct str){ name, strlen(name) }, &(struct str){ text, strlen(text) },
		1);
	assert_int_equal(r.erased_n, 3);
	assert_memory_equal(r.erased, all, sizeof all);
	assert_int_equal(r.served->generation, generation); /* nothing else is by it */
	free(text);
	json_decref(value);
	finish(&r);
}

static void an_end_comes_by_itself(void **state)
{
	struct rig r;
	char err[256];
	(void)state;

	start(&r, NULL, "");
	assert_true(put(&r, "switch:api", "{\"mode\":\"off\",\"until\":2000000000}", err));
	desk_tick(r.desk, (struct now){ .utc = INT64_C(1999999999) * USEC_PER_SEC });
	assert_int_equal(api_mode(&r), MODE_OFF);
	r.busy = true; /* not now; then soon after */
	desk_tick(r.desk, (struct now){ .utc = INT64_C(2000000000) * USEC_PER_SEC });
	assert_int_equal(api_mode(&r), MODE_OFF);
	r.busy = false;
	desk_tick(r.desk, (struct now){ .utc = INT64_C(2000000001) * USEC_PER_SEC });
	assert_int_equal(api_mode(&r), MODE_ENFORCE);
	assert_int_equal(changes_count(desk_changes(r.desk)), 0);
	uint64_t generation = r.served->generation;
	desk_tick(r.desk, (struct now){ .utc = INT64_C(2000000002) * USEC_PER_SEC });
	assert_int_equal(r.served->generation, generation); /* nothing to do */
	finish(&r);
}

static const struct penalty penalty = {
	.ban = 3600 * USEC_PER_SEC, .max = 7200 * USEC_PER_SEC, .factor = 2
};
static const struct ban ban_of_x = {
	.key = { 0x1234, UINT64_MAX }, .rule = "api", .client = "user=x"
};

static void expect_said(struct rig *r, const char *want)
{
	assert_string_equal(r->said, want);
	r->said[0] = '\0';
}

/* The other agents hear of all that is done here, and once more when Redis has lost it. */
static void what_is_done_here_is_told(void **state)
{
	struct ban b = ban_of_x;
	usec_t utc = clock_read().utc;
	struct rig r;
	char err[256];
	(void)state;

	start(&r, NULL, "");
	assert_true(put(&r, "switch:api", "{\"mode\":\"off\",\"until\":32000000000}", err));
	expect_said(&r, "switch:api+ ");
	assert_true(put(&r, "override:user:a", "{\"bypass\":true}", err));
	assert_true(desk_remove(r.desk, "override:user:a", by, err, sizeof err));
	expect_said(&r, "override:user:a+ override:user:a- ");
	assert_true(desk_reset_rule(r.desk, "api", by, err, sizeof err));
	expect_said(&r, "epoch:api+ ");
	assert_false(put(&r, "switch:gone", "{\"mode\":\"off\"}", err));
	expect_said(&r, "");

	assert_true(bans_begin(r.bans, &penalty, &b, utc));
	desk_tick(r.desk, clock_read());
	expect_said(&r, "ban:0000000000001234ffffffffffffffff+ ");
	desk_tell_again(r.desk);
	expect_said(&r, "epoch:api+ switch:api+ ban:0000000000001234ffffffffffffffff+ ");

	r.redis.waiting = 1; /* so that the ban is not forgotten by then */
	desk_tick(r.desk, (struct now){ .utc = INT64_C(32000000000) * USEC_PER_SEC });
	expect_said(&r, "switch:api- ");
	finish(&r);
}

static const char with_secrets[] =
	"identity: { secret = [ \"user\", \"ip\" ]; };\n"
	"rules = ( { name = \"api\"; per = [ \"user\" ]; rate = \"10/minute\"; } );";
#define ALICE_HASHED \
	"override:user:" \
	"sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"

static void reload_with_secrets(struct rig *r)
{
	drop(r->served);
	r->served = desk_apply(r->desk, loaded(with_secrets, &test_key, 9), NULL);
}

/* What was set for one before he was a secret goes by his hash from then on, here and there. */
static void a_reload_hides_who_is_secret(void **state)
{
	struct rig r;
	char err[256];
	(void)state;

	start(&r, NULL, "");
	assert_true(put(&r, "override:user:alice", "{\"bypass\":true}", err));
	desk_news(r.desk, &STR("override:ip:192.0.2.1/32"), &STR("{\"bypass\":true}"), 1);
	r.said[0] = '\0';
	reload_with_secrets(&r);
	assert_non_null(strstr(r.said, ALICE_HASHED "+ override:user:alice- "));
	assert_non_null(strstr(r.said, " override:ip:192.0.2.1/32- "));
	assert_non_null(changes_get(desk_changes(r.desk), ALICE_HASHED));
	assert_null(changes_get(desk_changes(r.desk), "override:user:alice"));
	assert_null(changes_get(desk_changes(r.desk), "override:ip:192.0.2.1/32"));
	assert_int_equal(changes_count(desk_changes(r.desk)), 2);
	r.said[0] = '\0';
	reload_with_secrets(&r);
	expect_said(&r, "");
	finish(&r);
}

/* Set under both names: what was set last holds. */
static void of_two_names_of_a_secret_the_later_holds(void **state)
{
	static const struct str name[] = { { "override:user:alice", 19 },
		{ ALICE_HASHED, sizeof ALICE_HASHED - 1 } };
	static const char *const text[] = { "{\"bypass\":true,\"since\":%d}",
		"{\"block\":true,\"since\":%d}" };
	(void)state;

	for (int since = 1; since <= 3; since += 2) {
		struct rig r;
		char value[2][64];
		start(&r, NULL, "");
		snprintf(value[0], sizeof value[0], text[0], since);
		snprintf(value[1], sizeof value[1], text[1], 2);
		struct str told[] = { str_of(value[0]), str_of(value[1]) };
		desk_news(r.desk, name, told, 2);
		assert_int_equal(changes_count(desk_changes(r.desk)), 2);
		reload_with_secrets(&r);
		assert_int_equal(changes_count(desk_changes(r.desk)), 1);
		json_t *holds = changes_get(desk_changes(r.desk), ALICE_HASHED);
		assert_non_null(json_object_get(holds, since == 1 ? "block" : "bypass"));
		/* Told in clear by who does not know it yet. */
		desk_news(r.desk, name, told, 1);
		assert_null(changes_get(desk_changes(r.desk), "override:user:alice"));
		finish(&r);
	}
}

/* The state file is on disk before the rig starts, as main.c sees to it. */
static void start_kept(struct rig *r, const char *path)
{
	char message[512];
	struct memory_store *store = NULL;

	if (state_load(path, 100, clock_read(), &store, message, sizeof message) == STATE_NONE)
		assert_int_equal(state_save(store, path, clock_read(), message, sizeof message), 0);
	start(r, store, path);
}

struct folder {
	char name[32], state[64], changes[80];
};

static void folder_make(struct folder *f)
{
	snprintf(f->name, sizeof f->name, "/tmp/desk-test-XXXXXX");
	assert_non_null(mkdtemp(f->name));
	snprintf(f->state, sizeof f->state, "%s/state", f->name);
	snprintf(f->changes, sizeof f->changes, "%s/state.changes", f->name);
}

static void folder_remove(struct folder *f)
{
	assert_int_equal(unlink(f->state), 0);
	assert_int_equal(unlink(f->changes), 0);
	assert_int_equal(rmdir(f->name), 0);
}

static void changes_survive_a_restart(void **state)
{
	struct folder f;
	struct rig r;
	char err[256];
	(void)state;

	folder_make(&f);
	start_kept(&r, f.state);
	assert_true(put(&r, "switch:api", "{\"mode\":\"shadow\"}", err));
	assert_true(put(&r, "override:user:a", "{\"bypass\":true}", err));
	assert_true(put(&r, "override:user:b", "{\"bypass\":true}", err));
	assert_true(desk_remove(r.desk, "override:user:b", by, err, sizeof err));
	finish(&r);

	start_kept(&r, f.state);
	assert_int_equal(changes_count(desk_changes(r.desk)), 2);
	assert_non_null(changes_get(desk_changes(r.desk), "override:user:a"));
	assert_int_equal(api_mode(&r), MODE_SHADOW);
	finish(&r);
	folder_remove(&f);
}

struct waiting {
	struct desk_wait wait;
	unsigned kept;
	bool why;
	const char *file; /* what it is to hold by then */
	const char *name;
	char not_shared[64];
};

static bool holds(const char *file, const char *name)
{
	static char bytes[4 << 20];
	FILE *in = fopen(file, "rb");
	size_t n = in ? fread(bytes, 1, sizeof bytes, in) : 0;

	if (in)
		fclose(in);
	return memmem(bytes, n, name, strlen(name)) != NULL;
}

static void on_kept(struct desk_wait *w, const struct desk_kept *kept)
{
	struct waiting *x = (struct waiting *)w;
	const char *why = kept->not_shared;

	x->kept++;
	x->why = kept->not_on_disk != NULL;
	snprintf(x->not_shared, sizeof x->not_shared, "%s", why ? why : "");
	assert_true(x->why || !x->file || holds(x->file, x->name));
}

static void who_waits_is_told_when_it_is_on_disk(void **state)
{
	struct waiting w[4] = { { .wait.kept = on_kept } };
	struct folder f;
	struct rig r;
	char err[256], name[32];
	(void)state;

	folder_make(&f);
	start_kept(&r, f.state);
	desk_when_kept(r.desk, &w[0].wait);
	assert_int_equal(w[0].kept, 1); /* nothing has changed */
	for (unsigned i = 1; i < 4; i++) {
		snprintf(name, sizeof name, "override:user:%u", i);
		w[i] = (struct waiting){
			.wait.kept = on_kept, .file = f.changes, .name = strdup(name)
		};
		assert_true(put(&r, name, "{\"bypass\":true}", err));
		desk_when_kept(r.desk, &w[i].wait);
		if (i == 2)
			while (!w[2].kept)
				ev_run(EV_DEFAULT, EVRUN_ONCE);
	}
	(void)desk_settle(r.desk, clock_steady() + USEC_PER_DAY);
	for (unsigned i = 1; i < 4; i++) {
		assert_int_equal(w[i].kept, 1);
		assert_false(w[i].why);
		free((char *)(uintptr_t)w[i].name);
	}
	finish(&r);
	folder_remove(&f);
}

static void change_and_wait(struct rig *r, struct waiting *w)
{
	char err[256];

	*w = (struct waiting){ .wait.kept = on_kept };
	if (!put(r, "override:user:a", "{\"bypass\":true}", err))
		fail_msg("%s", err);
	desk_when_kept(r->desk, &w->wait);
}

static void who_waits_is_told_when_redis_has_it(void **state)
{
	struct waiting w[3];
	struct rig r;
	(void)state;

	start(&r, NULL, "");
	r.redis = (struct redis_changes_state){ .waiting = 1 };
	for (unsigned i = 0; i < 3; i++)
		change_and_wait(&r, &w[i]);
	assert_int_equal(r.told, 3);
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned k = 0; k < 3; k++)
			assert_int_equal(w[k].kept, k < i);
		r.redis.had = i + 1;
		desk_shared(r.desk);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(w[i].kept, 1);
		assert_string_equal(w[i].not_shared, "");
	}
	change_and_wait(&r, &w[0]); /* it was quicker */
	assert_int_equal(w[0].kept, 0);
	r.redis.had = 4;
	desk_when_kept(r.desk, &w[1].wait);
	assert_int_equal(w[0].kept, 1);
	assert_int_equal(w[1].kept, 2);
	finish(&r);
}

/* It holds all the same. */
static void who_waits_is_told_why_redis_has_it_not(void **state)
{
	struct waiting w, second;
	struct rig r;
	(void)state;

	start(&r, NULL, "");
	r.redis = (struct redis_changes_state){ .waiting = 1 };
	change_and_wait(&r, &w);
	r.redis.refused = "NOPERM";
	desk_shared(r.desk);
	assert_int_equal(w.kept, 1);
	assert_string_equal(w.not_shared, "NOPERM");
	change_and_wait(&r, &w); /* for as long as it refuses, nobody waits */
	assert_string_equal(w.not_shared, "NOPERM");

	/* away since just now: it may come back; for a while: nobody waits */
	r.redis = (struct redis_changes_state){ .waiting = 1, .away_since = clock_steady() };
	change_and_wait(&r, &w);
	desk_shared(r.desk);
	assert_int_equal(w.kept, 0);
	r.redis.away_since = clock_steady() - WITHIN;
	change_and_wait(&r, &second);
	assert_int_equal(w.kept, 0); /* in their order */
	assert_int_equal(second.kept, 0);
	r.redis.had = 3;
	desk_shared(r.desk);
	assert_string_equal(w.not_shared, "");
	assert_string_equal(second.not_shared, "Redis is away");
	assert_int_equal(changes_count(desk_changes(r.desk)), 1);

	r.redis.away_since = 0;
	change_and_wait(&r, &w);
	assert_int_equal(w.kept, 0);
	(void)desk_settle(r.desk, clock_steady() + USEC_PER_DAY);
	assert_string_equal(w.not_shared, "the agent stops");
	finish(&r);
}

/* Redis never hears of that one: only the next start, or who reads it here, does. */
static void who_waits_is_told_where_there_was_no_memory(void **state)
{
	struct waiting w;
	struct rig r;
	(void)state;

	start(&r, NULL, "");
	r.redis = (struct redis_changes_state){ .waiting = 1 };
	r.is_mute = true;
	change_and_wait(&r, &w);
	assert_int_equal(w.kept, 1);
	assert_string_equal(w.not_shared, "there was no memory to send it");
	r.is_mute = false;
	change_and_wait(&r, &w);
	assert_int_equal(w.kept, 0);
	r.redis.had = r.told;
	desk_shared(r.desk);
	assert_int_equal(w.kept, 1);
	assert_string_equal(w.not_shared, "");
	finish(&r);
}

static void nobody_waits_for_redis_for_ever(void **state)
{
	struct waiting w[2];
	struct rig r;
	(void)state;

	within = 1000; /* us */
	start(&r, NULL, "");
	within = WITHIN;
	r.redis = (struct redis_changes_state){ .waiting = 1 };
	change_and_wait(&r, &w[0]);
	change_and_wait(&r, &w[1]);
	while (!w[1].kept)
		ev_run(EV_DEFAULT, EVRUN_ONCE);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(w[i].kept, 1);
		assert_string_equal(w[i].not_shared, "Redis has not answered");
	}
	finish(&r);
}

/* Nor for a disk that hangs: their places are for others. */
static void nobody_waits_for_a_disk_for_ever(void **state)
{
	struct waiting w[2];
	struct folder f;
	struct rig r;
	(void)state;

	folder_make(&f);
	within = 1000; /* us */
	start_kept(&r, f.state);
	within = WITHIN;
	hang(true);
	change_and_wait(&r, &w[0]);
	change_and_wait(&r, &w[1]);
	while (!w[1].kept)
		ev_run(EV_DEFAULT, EVRUN_ONCE);
	assert_true(w[0].kept == 1 && w[0].why && w[1].kept == 1 && w[1].why);
	for (bool at_once = false; !at_once;) { /* as long as it hangs, nobody waits anew */
		change_and_wait(&r, &w[0]);
		at_once = w[0].kept;
		while (!w[0].kept)
			ev_run(EV_DEFAULT, EVRUN_ONCE);
		assert_true(w[0].kept == 1 && w[0].why);
	}
	hang(false);
	do { /* where this thread gets the core in time */
		change_and_wait(&r, &w[0]);
		(void)desk_settle(r.desk, clock_steady() + USEC_PER_DAY);
		assert_int_equal(w[0].kept, 1);
	} while (w[0].why);
	finish(&r);
	folder_remove(&f);
}

/* A stop does not, either; and what it could not wait for is told. */
static void a_stop_waits_for_a_disk_until_its_time_is_over(void **state)
{
	struct waiting w;
	struct folder f;
	struct rig r;
	(void)state;

	folder_make(&f);
	start_kept(&r, f.state);
	hang(true);
	change_and_wait(&r, &w);
	assert_int_equal(desk_settle(r.desk, clock_steady()), DESK_HANGS);
	assert_true(w.kept == 1 && w.why);
	hang(false);
	change_and_wait(&r, &w);
	assert_int_equal(desk_settle(r.desk, clock_steady() + USEC_PER_DAY), DESK_KEPT);
	assert_true(w.kept == 1 && !w.why);
	disk_fails = true;
	change_and_wait(&r, &w);
	assert_int_equal(desk_settle(r.desk, clock_steady() + USEC_PER_DAY), DESK_LOST);
	disk_fails = false;
	finish(&r);
	folder_remove(&f);
}

/* So that a start finds them. */
static void write_changes(const char *state_file, unsigned n)
{
	struct journal *j = journal_new(state_file, &test_key);
	char name[32], err[256];

	assert_non_null(j);
	assert_true(journal_begin(j, err, sizeof err));
	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof name, "override:user:u%05u", i);
		journal_put(j, str_of(name), STR("{\"bypass\":true}"));
	}
	assert_true(journal_replace(j, err, sizeof err));
	journal_free(j);
}

static bool is_changed(const struct rig *r, const char *name, const char *member)
{
	return json_object_get(changes_get(desk_changes(r->desk), name), member);
}

/* Where the disk had failed, only the whole can be kept. It is composed in pieces, and has what was
 * changed meanwhile, before or after the place that it has come to. */
static void the_whole_is_composed_in_pieces(void **state)
{
	enum { MANY = CHANGES_MAX - 10, PIECE = 64, ELSE = 8 };
	struct waiting w[4];
	struct folder f;
	struct rig r;
	unsigned most, all, turns;
	char err[256];
	(void)state;

	folder_make(&f);
	start_kept(&r, f.state);
	finish(&r);
	write_changes(f.state, MANY);
	start_kept(&r, f.state);
	assert_int_equal(changes_count(desk_changes(r.desk)), MANY);

	disk_fails = true;
	change_and_wait(&r, &w[0]);
	while (!w[0].kept)
		ev_run(EV_DEFAULT, EVRUN_ONCE);
	assert_true(w[0].why);
	disk_fails = false;
	composed = 0;
	change_and_wait(&r, &w[0]);
	most = all = composed;
	for (turns = 0; !w[0].kept; turns++) {
		composed = 0;
		ev_run(EV_DEFAULT, EVRUN_ONCE);
		most = composed > most ? composed : most;
		all += composed;
		if (turns != 20)
			continue;
		assert_true(put(&r, "override:user:u00007", "{\"block\":true}", err));
		assert_true(put(&r, "override:user:u09007", "{\"block\":true}", err));
		assert_true(put(&r, "override:user:z", "{\"block\":true}", err));
		assert_true(desk_remove(r.desk, "override:user:u00008", by, err, sizeof err));
		assert_true(desk_remove(r.desk, "override:user:u09008", by, err, sizeof err));
		w[1] = (struct waiting){ .wait.kept = on_kept, .file = f.changes };
		w[1].name = "override:user:z";
		assert_false(holds(w[1].file, w[1].name));
		desk_when_kept(r.desk, &w[1].wait);
		assert_int_equal(w[1].kept, 0);
	}
	assert_in_range(most, PIECE, PIECE + ELSE);
	assert_in_range(all, MANY, MANY + PIECE);
	assert_in_range(turns, MANY / PIECE, MANY);
	assert_true(w[1].kept == 1 && !w[1].why && !w[0].why);
	finish(&r);

	start_kept(&r, f.state);
	assert_int_equal(changes_count(desk_changes(r.desk)), MANY);
	assert_true(is_changed(&r, "override:user:u00007", "block"));
	assert_true(is_changed(&r, "override:user:u09007", "block"));
	assert_true(is_changed(&r, "override:user:z", "block"));
	assert_true(is_changed(&r, "override:user:u00009", "bypass"));
	assert_null(changes_get(desk_changes(r.desk), "override:user:u00008"));
	assert_null(changes_get(desk_changes(r.desk), "override:user:u09008"));
	finish(&r);
	folder_remove(&f);
}

/* What of it is not composed yet is when nothing can wait any longer. `by_itself`: it was begun
 * before there was the change. */
static void a_stop_ends_a_whole(bool by_itself)
{
	enum { MANY = 1000 };
	struct now later = clock_read();
	struct waiting w;
	struct folder f;
	struct rig r;

	later.steady += 60 * USEC_PER_SEC;
	folder_make(&f);
	start_kept(&r, f.state);
	finish(&r);
	write_changes(f.state, MANY);
	start_kept(&r, f.state);
	disk_fails = true;
	change_and_wait(&r, &w);
	(void)desk_settle(r.desk, clock_steady() + USEC_PER_DAY);
	assert_true(w.why);
	disk_fails = false;
	if (by_itself)
		desk_tick(r.desk, later);
	change_and_wait(&r, &w);
	assert_int_equal(w.kept, 0);
	(void)desk_settle(r.desk, clock_steady() + USEC_PER_DAY);
	assert_true(w.kept == 1 && !w.why);
	finish(&r);
	start_kept(&r, f.state);
	assert_int_equal(changes_count(desk_changes(r.desk)), MANY + 1);
	finish(&r);
	folder_remove(&f);
}

static void a_stop_ends_a_whole_that_is_begun(void **state)
{
	(void)state;
	a_stop_ends_a_whole(false);
	a_stop_ends_a_whole(true);
}

static void bans_leave_room_for_the_operator(void **state)
{
	struct ban b = ban_of_x;
	usec_t utc = clock_read().utc;
	struct rig r;
	char err[256];
	(void)state;

	start(&r, NULL, "");
	for (unsigned full = 0; full < 2; full++) {
		r.redis.waiting = full ? REDIS_CHANGES_WAITING_MAX - 1 : 100;
		b.key.a += full;
		assert_true(bans_begin(r.bans, &penalty, &b, utc));
		desk_tick(r.desk, (struct now){ .utc = utc });
		assert_int_equal(r.told_bans, 1);
		assert_true(put(&r, "override:user:a", "{\"bypass\":true}", err));
	}
	r.redis.waiting++;
	assert_false(put(&r, "override:user:b", "{\"bypass\":true}", err));
	assert_non_null(strstr(err, "try again"));
	assert_int_equal(changes_count(desk_changes(r.desk)), 1);
	finish(&r);
}

/* Workers take a reload over a moment later: whom they ban till then is let in as well. */
static void a_ban_that_comes_after_its_penalty_has_gone_ends(void **state)
{
	struct ban b = ban_of_x;
	struct ban late = { .key = { 0x1235, UINT64_MAX }, .rule = "gone", .client = "user=y" };
	usec_t utc = clock_read().utc;
	struct rig r;
	struct ban now;
	(void)state;

	start(&r, NULL, "");
	assert_true(bans_begin(r.bans, &penalty, &b, utc));
	assert_true(bans_begin(r.bans, &penalty, &late, utc));
	desk_tick(r.desk, (struct now){ .utc = utc });
	assert_true(bans_get(r.bans, &b.key, &now) && now.until > utc);
	assert_true(bans_get(r.bans, &late.key, &now) && now.until <= utc);
	assert_int_equal(r.told_bans, 3); /* both, and the end of one */
	finish(&r);
}

/* What earlier releases left in the state file is newer than a changes file beside it: they do not
 * know of that. Then it is out of the state file. */
static void notes_of_an_earlier_release_are_taken_over(void **state)
{
	static const char notes[] = "{\"nonsense\":1,\"switch:api\":{\"mode\":\"off\"}}";
	struct memory_store *store;
	struct folder f;
	struct rig r;
	char err[256], message[512];
	(void)state;

	folder_make(&f);
	start_kept(&r, f.state);
	assert_true(put(&r, "override:user:old", "{\"bypass\":true}", err));
	finish(&r);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(
			state_load(f.state, 100, clock_read(), &store, message, sizeof message),
			STATE_LOADED);
		const char *text = i ? "{" : notes; /* of something else, what can be read counts */
		assert_true(memory_store_set_notes(store, text, strlen(text)));
		assert_int_equal(state_save(store, f.state, clock_read(), err, sizeof err), 0);
		store_close(memory_store_base(store));
		start_kept(&r, f.state);
		assert_int_equal(changes_count(desk_changes(r.desk)), i ? 0 : 1);
		assert_int_equal(api_mode(&r), i ? MODE_ENFORCE : MODE_OFF);
		assert_false(holds(f.state, "switch:api"));
		assert_int_equal(holds(f.changes, "switch:api"), !i);
		finish(&r);
	}
	start_kept(&r, f.state);
	assert_int_equal(changes_count(desk_changes(r.desk)), 0);
	finish(&r);
	folder_remove(&f);
}

/* However much was changed, the file is about as long as what there is of it. */
static void the_file_does_not_grow_for_ever(void **state)
{
	struct now later = clock_read();
	char err[256], rates[3000] = "", json[4000];
	struct folder f;
	struct stat st;
	struct rig r;
	(void)state;

	for (unsigned i = 0; i < 30; i++)
		sprintf(rates + strlen(rates), "%s\"%u/%05us\"", i ? "," : "", 7, i + 1);
	snprintf(json, sizeof json, "{\"rates\":{\"api\":[%s]}}", rates);
	folder_make(&f);
	start_kept(&r, f.state);
	for (unsigned i = 0; i < 3500; i++)
		while (!put(&r, "override:user:a", json, err)) {
			assert_non_null(strstr(err, "try again")); /* too many wait for the disk */
			(void)desk_settle(r.desk, clock_steady() + USEC_PER_DAY);
		}
	(void)desk_settle(r.desk, clock_steady() + USEC_PER_DAY);
	assert_int_equal(stat(f.changes, &st), 0);
	assert_true(st.st_size > 1 << 20);
	desk_tick(r.desk, later); /* not so soon again */
	(void)desk_settle(r.desk, clock_steady() + USEC_PER_DAY);
	assert_int_equal(stat(f.changes, &st), 0);
	assert_true(st.st_size > 1 << 20);
	later.steady += 60 * USEC_PER_SEC;
	desk_tick(r.desk, later);
	(void)desk_settle(r.desk, clock_steady() + USEC_PER_DAY);
	assert_int_equal(stat(f.changes, &st), 0);
	assert_in_range(st.st_size, 100, 1000);
	finish(&r);

	start_kept(&r, f.state);
	assert_int_equal(changes_count(desk_changes(r.desk)), 1);
	finish(&r);
	folder_remove(&f);
}

static void count_ban(void *with, const struct ban *b)
{
	char id[BAN_ID_BYTES + 1];
	ban_id(b, id);
	memcpy(with, id, sizeof id);
}

static void a_ban_survives(const char *client)
{
	struct ban b = { .key = { 0x1234, UINT64_MAX }, .rule = "api" };
	char id[BAN_ID_BYTES + 1] = "";
	struct folder f;
	struct rig r;
	usec_t utc = clock_read().utc;

	snprintf(b.client, sizeof b.client, "%s", client);
	folder_make(&f);
	start_kept(&r, f.state);
	assert_true(bans_begin(r.bans, &penalty, &b, utc));
	desk_tick(r.desk, (struct now){ .utc = utc });
	finish(&r);

	start_kept(&r, f.state);
	desk_bans(r.desk, utc, count_ban, id);
	assert_string_equal(id, "0000000000001234ffffffffffffffff");
	assert_false(bans_begin(r.bans, &penalty, &b, utc)); /* it holds still */
	assert_false(desk_lift(r.desk, "0000000000001234fffffffffffffff", by));
	assert_false(desk_lift(r.desk, "0000000000001234ffffffffffffff+f", by));
	assert_true(desk_lift(r.desk, id, by));
	assert_false(desk_lift(r.desk, id, by));
	finish(&r);

	start_kept(&r, f.state);
	id[0] = '\0';
	desk_bans(r.desk, utc, count_ban, id);
	assert_string_equal(id, "");
	finish(&r);
	folder_remove(&f);
}

/* jansson has no memory, on any thread. */
static atomic_bool starves;

static void *starved_malloc(size_t n)
{
	return atomic_load(&starves) ? NULL : malloc(n);
}

/* What could not be put into words, on this thread or on the clerk's, is told, and with the whole.
 */
static void a_ban_without_memory_is_kept_later(void **state)
{
	struct ban b = ban_of_x;
	struct waiting w = { .wait.kept = on_kept };
	struct folder f;
	struct rig r;
	usec_t utc = clock_read().utc;
	(void)state;

	json_set_alloc_funcs(starved_malloc, free);
	folder_make(&f);
	start_kept(&r, f.state);
	assert_true(bans_begin(r.bans, &penalty, &b, utc));
	atomic_store(&starves, true);
	desk_tell_bans(r.desk);
	desk_when_kept(r.desk, &w.wait);
	assert_int_equal(w.kept, 1);
	assert_true(w.why);
	assert_int_equal(desk_settle(r.desk, clock_steady() + USEC_PER_DAY), DESK_LOST);
	atomic_store(&starves, false);
	assert_int_equal(desk_settle(r.desk, clock_steady() + USEC_PER_DAY), DESK_KEPT);
	finish(&r);

	start_kept(&r, f.state);
	assert_false(bans_begin(r.bans, &penalty, &b, utc)); /* it holds still */
	finish(&r);
	folder_remove(&f);
	json_set_alloc_funcs(malloc, free);
}

/* A reset that lacked a counter would bring that one back. */
static void a_reset_without_memory_is_told_of(void **state)
{
	const struct plan plan = { .n = 1, .take[0].key = { 1, 2 } }, strikes = { 0 };
	struct waiting w = { .wait.kept = on_kept };
	struct rig r;
	(void)state;

	json_set_alloc_funcs(starved_malloc, free);
	start(&r, NULL, "");
	atomic_store(&starves, true);
	desk_reset_counters(r.desk, &plan, &strikes, by);
	desk_when_kept(r.desk, &w.wait);
	atomic_store(&starves, false);
	assert_int_equal(w.kept, 1);
	assert_string_equal(w.not_shared, "there was no memory to send it");
	finish(&r);
	json_set_alloc_funcs(malloc, free);
}

/* From the n-th time on. */
static unsigned starves_after; /* 0: never */

static void *later_starved_malloc(size_t n)
{
	if (!starves_after)
		return malloc(n);
	return starves_after == 1 || --starves_after == 0 ? NULL : malloc(n);
}

/* Whenever the memory ends, who is told that it did not work finds all as it was. */
static void what_failed_for_want_of_memory_has_changed_nothing(void **state)
{
	char err[256];
	struct rig r;
	(void)state;

	json_set_alloc_funcs(later_starved_malloc, free);
	start(&r, NULL, "");
	assert_true(put(&r, "switch:api", "{\"mode\":\"shadow\"}", err));
	json_t *before = json_deep_copy(changes_get(desk_changes(r.desk), "switch:api"));
	for (unsigned n = 1, is_put = 0; n < 100 && is_put < 2; n++) {
		json_t *value = json_pack("{s:s}", "mode", "off");
		starves_after = n + 1;
		bool good = is_put ? desk_put(r.desk, "switch:api", value, by, err, sizeof err)
				   : desk_remove(r.desk, "switch:api", by, err, sizeof err);
		starves_after = 0;
		json_decref(value);
		if (!good) {
			json_t *now = changes_get(desk_changes(r.desk), "switch:api");
			assert_true(json_equal(now, before));
			assert_int_equal(api_mode(&r), MODE_SHADOW);
			continue;
		}
		assert_int_equal(api_mode(&r), is_put ? MODE_OFF : MODE_ENFORCE);
		if (!is_put++) {
			assert_true(put(&r, "switch:api", "{\"mode\":\"shadow\"}", err));
			json_decref(before);
			before = json_deep_copy(changes_get(desk_changes(r.desk), "switch:api"));
			n = 0;
		}
	}
	json_decref(before);
	finish(&r);
	json_set_alloc_funcs(malloc, free);
}

/* The next time. */
static atomic_bool starves_once;

static void *once_starved_malloc(size_t n)
{
	return atomic_exchange(&starves_once, false) ? NULL : malloc(n);
}

static unsigned set_aside(const struct folder *f, char path[300])
{
	DIR *d = opendir(f->name);
	unsigned n = 0;

	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		if (strstr(e->d_name, ".bad-")) {
			snprintf(path, 300, "%s/%s", f->name, e->d_name);
			n++;
		}
	closedir(d);
	return n;
}

/* The file is written anew at once: what the start could not take of it, for want of memory or
 * because a later release wrote it, is in another one. */
static void what_a_start_cannot_take_is_not_lost(void **state)
{
	static const char *const kept[][2] = {
		{ "override:user:a", "{\"block\":true}" },
		{ "ban:0000000000001234ffffffffffffffff",
			"{\"rule\":\"api\",\"client\":\"user=x\",\"level\":1,\"epoch\":1,\"since\":1,"
			"\"until\":9007199254740000,\"forget_at\":9007199254740000}" },
		{ "switch:api", "{\"format\":2,\"mode\":\"off\"}" }, /* nobody starves */
	};
	(void)state;

	json_set_alloc_funcs(once_starved_malloc, free);
	for (unsigned i = 0; i < 3; i++) {
		char path[300], err[256];
		struct folder f;
		struct rig r;

		folder_make(&f);
		start_kept(&r, f.state);
		struct hash_key counters = *memory_store_key(r.store);
		finish(&r);
		struct journal *j = journal_new(f.state, &counters);
		assert_true(journal_begin(j, err, sizeof err));
		journal_put(j, str_of(kept[i][0]), str_of(kept[i][1]));
		assert_true(journal_replace(j, err, sizeof err));
		journal_free(j);

		atomic_store(&starves_once, i < 2);
		start_kept(&r, f.state);
		finish(&r);
		assert_false(holds(f.changes, kept[i][0]));
		assert_int_equal(set_aside(&f, path), 1);
		assert_true(holds(path, kept[i][0]));
		assert_int_equal(rename(path, f.changes), 0);
		folder_remove(&f);
	}
	json_set_alloc_funcs(malloc, free);
}

static void bans_survive_a_restart_and_are_lifted(void **state)
{
	(void)state;
	a_ban_survives("user=\"x\" ");
	/* It is the client who says what he is called. */
	a_ban_survives("user=J\xf6rg");
	a_ban_survives("user=\xe2\x82");
	a_ban_survives("user=J\xc3\xb6rg");
}

static void get_ban(void *with, const struct ban *b)
{
	*(struct ban *)with = *b;
}

/* The clock was far off when it began, and is right now. */
static void a_ban_of_the_future_begins_at_the_start(void **state)
{
	struct ban b = ban_of_x;
	usec_t utc = clock_read().utc, off = 1000 * 86400 * USEC_PER_SEC;
	struct folder f;
	struct rig r;
	(void)state;

	folder_make(&f);
	start_kept(&r, f.state);
	assert_true(bans_begin(r.bans, &penalty, &b, utc + off));
	usec_t remembered = b.forget_at - b.since;
	desk_tick(r.desk, (struct now){ .utc = utc + off });
	finish(&r);

	/* Twice: the second time finds it as the first has kept it. */
	usec_t since[2];
	for (unsigned i = 0; i < 2; i++) {
		usec_t before = clock_read().utc;
		start_kept(&r, f.state);
		desk_bans(r.desk, clock_read().utc, get_ban, &b);
		since[i] = b.since;
		assert_true(b.since >= utc && (i || b.since >= before));
		assert_true(b.since <= clock_read().utc);
		assert_int_equal(b.until - b.since, penalty.ban);
		assert_int_equal(b.forget_at - b.since, remembered);
		finish(&r);
	}
	assert_int_equal(since[0], since[1]);
	folder_remove(&f);
}

/* What is kept of it is its epoch: it has no end that could be moved. */
static void a_lifted_ban_of_the_future_stays_lifted(void **state)
{
	static const char name[] = "ban:0000000000001234ffffffffffffffff";
	usec_t future = clock_read().utc + 1000 * 86400 * USEC_PER_SEC;
	char text[320], err[256];
	struct ban b = { 0 };
	struct folder f;
	struct rig r;
	(void)state;

	folder_make(&f);
	start_kept(&r, f.state);
	struct hash_key counters = *memory_store_key(r.store);
	finish(&r);
	snprintf(text, sizeof text,
		"{\"rule\":\"api\",\"client\":\"user=x\",\"level\":3,\"epoch\":7,\"since\":%" PRId64
		",\"until\":1,\"forget_at\":%" PRId64 "}",
		future, future + 3600 * USEC_PER_SEC);
	struct journal *j = journal_new(f.state, &counters);
	assert_true(journal_begin(j, err, sizeof err));
	journal_put(j, STR(name), str_of(text));
	assert_true(journal_replace(j, err, sizeof err));
	journal_free(j);

	start_kept(&r, f.state);
	struct key key = { 0x1234, UINT64_MAX };
	assert_true(bans_get(r.bans, &key, &b));
	assert_int_equal(b.until, 1);
	assert_int_equal(b.epoch, 7);
	assert_true(b.forget_at < future);
	finish(&r);
	folder_remove(&f);
}

/* Within the second in which a ban that begins is told. */
static void a_lift_is_the_last_word(void **state)
{
	struct ban b = ban_of_x;
	usec_t utc = clock_read().utc;
	struct rig r;
	(void)state;

	start(&r, NULL, "");
	assert_true(bans_begin(r.bans, &penalty, &b, utc));
	assert_true(desk_lift(r.desk, "0000000000001234ffffffffffffffff", by));
	assert_int_equal(r.told_epoch, 2);
	desk_tick(r.desk, (struct now){ .utc = utc });
	assert_int_equal(r.told_epoch, 2);
	finish(&r);
}

/* Others write there, too. */
static void a_ban_of_no_time_is_none(void **state)
{
	/* since, until, forget_at */
	static const char *const instant[][3] = {
		{ "1", "9223372036854775807", "9007199254740000" },
		{ "1", "0", "9007199254740000" },
		{ "1", "-1", "9007199254740000" },
		{ "-1", "9007199254740000", "9007199254740000" },
		{ "9223372036854775807", "9007199254740000", "9007199254740000" },
		{ "1", "9007199254740000", "9223372036854775807" },
	};
	char text[320], id[BAN_ID_BYTES + 1] = "";
	struct rig r;
	(void)state;

	start(&r, NULL, "");
	for (unsigned i = 0; i < sizeof instant / sizeof *instant; i++) {
		struct str name = str_of("ban:0000000000001234ffffffffffffffff");
		snprintf(text, sizeof text,
			"{\"rule\":\"api\",\"client\":\"x\",\"level\":0,\"epoch\":1,\"since\":%s,"
			"\"until\":%s,\"forget_at\":%s}",
			instant[i][0], instant[i][1], instant[i][2]);
		struct str value = str_of(text);
		desk_told(r.desk, &name, &value, 1);
	}
	assert_int_equal(bans_count(r.bans), 0);
	desk_bans(r.desk, clock_read().utc, count_ban, id);
	assert_string_equal(id, "");
	finish(&r);
}

/* While others hear nothing it is not told: what waits for them is bounded. And what they forget
 * before it is due here stays. */
static void a_ban_that_is_forgotten_is_told(void **state)
{
	enum { ROUND = 10 }; /* ticks, after which all of the table was looked at */
	struct now now = clock_read();
	struct str name = str_of("ban:0000000000001234ffffffffffffffff"), gone = { NULL, 0 };
	char text[320];
	struct rig r;
	(void)state;

	start(&r, NULL, "");
	r.redis.away_since = 1;
	snprintf(text, sizeof text,
		"{\"rule\":\"api\",\"client\":\"x\",\"level\":0,\"epoch\":1,\"since\":1,"
		"\"until\":%lld,\"forget_at\":%lld}",
		(long long)(now.utc + 100 * USEC_PER_SEC),
		(long long)(now.utc + 1000 * USEC_PER_SEC));
	struct str value = str_of(text);
	desk_news(r.desk, &name, &value, 1);
	r.told_epoch = 0;
	desk_news(r.desk, &name, &gone, 1);
	assert_int_equal(bans_count(r.bans), 1);
	assert_int_equal(r.told_epoch, 1); /* it is told again: who starts hears of it, too */
	struct now later = now;
	later.utc += 1001 * USEC_PER_SEC;
	for (unsigned i = 0; i < ROUND; i++)
		desk_tick(r.desk, later);
	assert_int_equal(r.told_gone, 0);
	r.redis.away_since = 0;
	for (unsigned i = 0; i < ROUND; i++)
		desk_tick(r.desk, now);
	assert_int_equal(r.told_gone, 0);
	for (unsigned i = 0; i < 2 * ROUND; i++)
		desk_tick(r.desk, later);
	assert_int_equal(r.told_gone, 1);
	assert_int_equal(bans_count(r.bans), 0);
	finish(&r);
}

/* Whose clock is far ahead forgets a ban that holds here, and what it hears of it is old to it: if
 * each told the other so, they would do it until their clocks agree. */
static void two_clocks_do_not_tell_each_other_for_ever(void **state)
{
	static const struct {
		const char *title;
		int64_t forget_in; /* seconds */
		unsigned told, gone;
	} row[] = {
		{ "forgotten elsewhere, and not due here: told again, once", 600, 1, 0 },
		{ "what is old by this clock may not be by another one", -600, 0, 0 },
		{ "nor after an hour", -3600, 0, 0 },
		{ "left by nobody knows whom, a day ago: taken out, each time", -90000, 0, 5 },
	};
	struct str name = str_of("ban:0000000000001234ffffffffffffffff"), gone = { NULL, 0 };
	usec_t utc = clock_read().utc;
	char text[320];
	struct rig r;
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		start(&r, NULL, "");
		snprintf(text, sizeof text,
			"{\"rule\":\"api\",\"client\":\"x\",\"level\":0,\"epoch\":1,\"since\":1,"
			"\"until\":%lld,\"forget_at\":%lld}",
			(long long)(utc - 100000 * USEC_PER_SEC),
			(long long)(utc + row[i].forget_in * USEC_PER_SEC));
		struct str value = str_of(text);
		for (unsigned turn = 0; turn < 5; turn++) {
			desk_news(r.desk, &name, &value, 1);
			desk_news(r.desk, &name, &gone, 1);
		}
		if (r.told_bans - r.told_gone != row[i].told || r.told_gone != row[i].gone)
			fail_msg("%s: told %u, gone %u", row[i].title, r.told_bans, r.told_gone);
		finish(&r);
	}
}

/* Those that others have, all of them each time; what is no name is none. */
static void what_is_told_is_all_there_is(void **state)
{
	static const struct str name[] = {
		{ "override:user:b", 15 },
		{ "override:user:a", 15 },
		{ "override:user:a\0b", 17 },
		{ "override:user:J\xf6rg", 18 },
		{ "override:user:aa", 16 },
		{ NULL, 0 },
		{ "switch:api", 10 },
	};
	struct str text[] = { STR("{\"bypass\":true}"), STR("{\"bypass\":true}"),
		STR("{\"block\":true}"), STR("{\"block\":true}"), STR("{\"block\":true}"),
		{ NULL, 0 }, STR("{\"mode\":\"off\"}") };
	struct rig r;
	char err[256];
	(void)state;

	start(&r, NULL, "");
	assert_true(put(&r, "override:user:c", "{\"block\":true}", err));
	desk_told(r.desk, name, text, 7);
	assert_int_equal(changes_count(desk_changes(r.desk)), 4);
	assert_null(changes_get(desk_changes(r.desk), "override:user:c"));
	assert_true(json_is_true(
		json_object_get(changes_get(desk_changes(r.desk), "override:user:a"), "bypass")));
	uint64_t generation = r.served->generation;
	desk_told(r.desk, name, text, 7);
	assert_int_equal(r.served->generation, generation); /* nothing new in it */
	desk_told(r.desk, name + 1, text + 1, 4);
	assert_int_equal(changes_count(desk_changes(r.desk)), 2);
	assert_null(changes_get(desk_changes(r.desk), "override:user:b"));
	assert_int_equal(api_mode(&r), MODE_ENFORCE);
	desk_told(r.desk, NULL, NULL, 0);
	assert_int_equal(changes_count(desk_changes(r.desk)), 0);
	finish(&r);
}

static void count_name(void *with, const char *name, json_t *value)
{
	(void)name;
	(void)value;
	++*(unsigned *)with;
}

static unsigned resets(const struct rig *r)
{
	unsigned n = 0;

	changes_each(desk_changes(r->desk), "reset:", count_name, &n);
	return n;
}

static void wait_for_saves(struct rig *r, uint64_t want_begun, uint64_t want_kept)
{
	uint64_t begun = 0, kept = 0;

	while (begun < want_begun || kept < want_kept) {
		(void)sched_yield();
		keeper_saves(r->keeper, &begun, &kept);
	}
	assert_int_equal(begun, want_begun);
	assert_int_equal(kept, want_kept);
}

/* The state file that is being written may have these counters as they were: only the next one
 * cannot. */
static void a_reset_while_counters_are_written_is_kept(void **state)
{
	static struct plan plan = { .n = 1, .take = { { .key = { 2, 3 } } } }, none;
	struct folder f;
	struct rig r;
	(void)state;

	folder_make(&f);
	start_kept(&r, f.state);
	wait_for_saves(&r, 0, 0);
	set(&save_hangs, true);
	keeper_save_soon(r.keeper);
	wait_for_saves(&r, 1, 0);
	desk_reset_counters(r.desk, &plan, &none, by);
	assert_int_equal(resets(&r), 1);
	set(&save_hangs, false);
	wait_for_saves(&r, 1, 1);
	desk_tick(r.desk, clock_read());
	assert_int_equal(resets(&r), 1);
	keeper_save_soon(r.keeper);
	wait_for_saves(&r, 2, 2);
	desk_tick(r.desk, clock_read());
	assert_int_equal(resets(&r), 0);
	finish(&r);
	folder_remove(&f);
}

static int setup(void **state)
{
	(void)state;
	return hash_init() ? 0 : -1;
}

static int disk_is_well(void **state)
{
	(void)state;
	hang(false);
	set(&save_hangs, false);
	disk_fails = false;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_change_is_served_at_once),
		cmocka_unit_test(a_reload_without_them_is_made_good),
		cmocka_unit_test(what_is_refused_changes_nothing),
		cmocka_unit_test(each_reset_makes_other_counters),
		cmocka_unit_test(a_reset_of_one_client_is_told_with_all_its_counters),
		cmocka_unit_test(an_end_comes_by_itself),
		cmocka_unit_test(what_is_done_here_is_told),
		cmocka_unit_test(a_reload_hides_who_is_secret),
		cmocka_unit_test(of_two_names_of_a_secret_the_later_holds),
		cmocka_unit_test(changes_survive_a_restart),
		cmocka_unit_test(who_waits_is_told_when_it_is_on_disk),
		cmocka_unit_test(who_waits_is_told_when_redis_has_it),
		cmocka_unit_test(who_waits_is_told_why_redis_has_it_not),
		cmocka_unit_test(who_waits_is_told_where_there_was_no_memory),
		cmocka_unit_test(nobody_waits_for_redis_for_ever),
		cmocka_unit_test_teardown(nobody_waits_for_a_disk_for_ever, disk_is_well),
		cmocka_unit_test_teardown(
			a_stop_waits_for_a_disk_until_its_time_is_over, disk_is_well),
		cmocka_unit_test_teardown(the_whole_is_composed_in_pieces, disk_is_well),
		cmocka_unit_test_teardown(a_stop_ends_a_whole_that_is_begun, disk_is_well),
		cmocka_unit_test(bans_leave_room_for_the_operator),
		cmocka_unit_test(a_ban_that_comes_after_its_penalty_has_gone_ends),
		cmocka_unit_test(notes_of_an_earlier_release_are_taken_over),
		cmocka_unit_test(the_file_does_not_grow_for_ever),
		cmocka_unit_test(a_ban_without_memory_is_kept_later),
		cmocka_unit_test(what_a_start_cannot_take_is_not_lost),
		cmocka_unit_test(a_reset_without_memory_is_told_of),
		cmocka_unit_test(what_failed_for_want_of_memory_has_changed_nothing),
		cmocka_unit_test(bans_survive_a_restart_and_are_lifted),
		cmocka_unit_test(a_ban_of_the_future_begins_at_the_start),
		cmocka_unit_test(a_lifted_ban_of_the_future_stays_lifted),
		cmocka_unit_test(a_ban_of_no_time_is_none),
		cmocka_unit_test(a_lift_is_the_last_word),
		cmocka_unit_test(a_ban_that_is_forgotten_is_told),
		cmocka_unit_test(two_clocks_do_not_tell_each_other_for_ever),
		cmocka_unit_test(what_is_told_is_all_there_is),
		cmocka_unit_test_teardown(a_reset_while_counters_are_written_is_kept, disk_is_well),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
