/* Who has changed something while the disk hangs, and leaves, or is there when the agent stops: the
 * real routes on control's loop, with a disk that is stopped and goes on. One thread, besides the
 * agent's own. */
#include "admin/keeping.h"

#include "admin/admin.h"
#include "server/keeper.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the disk ---- */

static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t disk_goes_on = PTHREAD_COND_INITIALIZER;
static bool disk_hangs;

/* In the place of libc's: what the clerk ends with. */
int fdatasync(int fd)
{
	(void)pthread_mutex_lock(&disk);
	while (disk_hangs)
		(void)pthread_cond_wait(&disk_goes_on, &disk);
	(void)pthread_mutex_unlock(&disk);
	return (int)syscall(SYS_fdatasync, fd);
}

static void hang(bool hangs)
{
	(void)pthread_mutex_lock(&disk);
	disk_hangs = hangs;
	(void)pthread_cond_broadcast(&disk_goes_on);
	(void)pthread_mutex_unlock(&disk);
}

/* ---- the agent ---- */

#define TOKEN "0123456789abcdef"
#define BOUND (20 * USEC_PER_SEC)

static const char config[] =
	"agent: { listen = [ \"%s/spop\" ]; threads = 1; };\n"
	"admin: { listen = [ \"%s/admin\", \"127.0.0.1:0\" ]; token = \"" TOKEN "\"; };\n"
	"store: { max_keys = 100; state_file = \"%s/state\"; };\n"
	"log: { target = \"/dev/null\"; };\n"
	"rules = ( { name = \"api\"; per = [ \"user\" ]; rate = \"10/minute\"; } );\n";

struct agent {
	char folder[32], file[64], state[64], changes[80];
	const char *files[1];
	struct listeners spop, http;
	struct memory_store *store;
	struct control *control;
	struct admin *admin;
	unsigned sockets; /* when nobody had asked anything */
};

/* Of sockets: threads open others when they first need them. */
static unsigned count_sockets(void)
{
	DIR *all = opendir("/proc/self/fd");
	const struct dirent *e;
	struct stat st;
	unsigned n = 0;

	assert_non_null(all);
	while ((e = readdir(all)))
		n += fstatat(dirfd(all), e->d_name, &st, 0) == 0 && S_ISSOCK(st.st_mode);
	(void)closedir(all);
	return n;
}

static void write_config(struct agent *a)
{
	strcpy(a->folder, "/tmp/keeping-XXXXXX");
	assert_non_null(mkdtemp(a->folder));
	(void)snprintf(a->file, sizeof a->file, "%s/cfg", a->folder);
	(void)snprintf(a->state, sizeof a->state, "%s/state", a->folder);
	(void)snprintf(a->changes, sizeof a->changes, "%s/state.changes", a->folder);
	FILE *f = fopen(a->file, "w");
	assert_non_null(f);
	assert_true(fprintf(f, config, a->folder, a->folder, a->folder) > 0);
	assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
	struct agent *a = calloc(1, sizeof *a);
	struct problems problems = { 0 };
	struct hash_key key = { .bytes = { 1 } };
	char err[512];

	assert_true(hash_init());
	write_config(a);
	a->files[0] = a->file;
	struct snapshot *s = config_load(a->files, 1, &key, 1, &problems);
	if (!s)
		fail_msg("%s", problems.message[0]);
	problems_free(&problems);
	assert_int_equal(log_open(&s->settings.log, err, sizeof err), 0);
	struct listen_plan spop = listen_plan_agent(&s->settings);
	struct listen_plan http = listen_plan_admin(&s->settings);
	assert_true(listeners_open(&a->spop, &spop, err, sizeof err));
	assert_true(listeners_open(&a->http, &http, err, sizeof err));
	a->store = memory_store_new(100, &key, clock_read());
	a->control = control_new(&(struct control_args){ .files = a->files,
					 .files_n = 1,
					 .snapshot = s,
					 .listeners = &a->spop,
					 .store = a->store,
					 .version = "test" },
		err, sizeof err);
	if (!a->control)
		fail_msg("%s", err);
	a->admin = admin_new(a->control, &a->http);
	assert_non_null(a->admin);
	assert_false(snapshot_unref(s)); /* control has it */
	a->sockets = count_sockets();
	*state = a;
	return 0;
}

static int teardown(void **state)
{
	struct agent *a = *state;

	hang(false);
	admin_free(a->admin);
	control_free(a->control);
	store_close(memory_store_base(a->store));
	listeners_close(&a->spop);
	listeners_close(&a->http);
	log_close();
	(void)unlink(a->file);
	(void)unlink(a->state);
	(void)unlink(a->changes);
	(void)rmdir(a->folder);
	free(a);
	return 0;
}

static void turn(struct agent *a)
{
	(void)ev_run(control_loop(a->control), EVRUN_NOWAIT);
	(void)usleep(200);
}

/* Turns the loop until it is so. */
#define UNTIL(so) \
	for (usec_t end_ = clock_steady() + BOUND; !(so); turn(a)) \
		if (clock_steady() > end_) \
	fail_msg("waited in vain for " #so)

/* ---- who asks ---- */

static int dial(struct agent *a, bool by_tcp)
{
	struct sockaddr_un local = { .sun_family = AF_UNIX };
	struct sockaddr_in remote;
	socklen_t n = sizeof remote;
	int fd = socket(by_tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	(void)snprintf(local.sun_path, sizeof local.sun_path, "%s/admin", a->folder);
	assert_int_equal(getsockname(a->http.at[1].fd, (struct sockaddr *)&remote, &n), 0);
	while (connect(fd, by_tcp ? (struct sockaddr *)&remote : (struct sockaddr *)&local,
		       by_tcp ? sizeof remote : sizeof local) < 0) {
		assert_int_equal(errno, EAGAIN);
		turn(a);
	}
	return fd;
}

/* Asks something of /api/v1/overrides, and waits for no answer. */
static int ask(struct agent *a, const char *method, const char *body, bool by_tcp)
{
	char request[400];
	int fd = dial(a, by_tcp);
	int n = snprintf(request, sizeof request,
		"%s /api/v1/overrides HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " TOKEN
		"\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
		method, strlen(body), body);
	assert_int_equal(send(fd, request, (size_t)n, MSG_NOSIGNAL), n);
	return fd;
}

/* For override:user:uNUMBER. */
static int ask_for(struct agent *a, unsigned number)
{
	char body[64];

	(void)snprintf(body, sizeof body, "{\"user\":\"u%02u\",\"bypass\":true}", number);
	return ask(a, "PUT", body, number % 2);
}

/* What has come of an answer; "": none yet. */
static const char *heard(int fd)
{
	static char text[4096];
	ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT | MSG_PEEK);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static bool has_answer(int fd)
{
	return strstr(heard(fd), "\r\n\r\n{");
}

static bool is_warned(int fd)
{
	return strstr(heard(fd), "not on disk");
}

static bool is_on_disk(const struct agent *a, unsigned number)
{
	char bytes[65536], name[32];
	FILE *in = fopen(a->changes, "rb");
	size_t n = in ? fread(bytes, 1, sizeof bytes, in) : 0;

	if (in)
		(void)fclose(in);
	(void)snprintf(name, sizeof name, "override:user:u%02u", number);
	return memmem(bytes, n, name, strlen(name)) != NULL;
}

static void leave(int fd, unsigned how)
{
	static const struct linger at_once = { 1, 0 };

	if (how == 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	else if (how == 1)
		(void)shutdown(fd, SHUT_WR);
	(void)close(fd);
}

static unsigned changes(const struct agent *a)
{
	return (unsigned)changes_count(desk_changes(control_desk(a->control)));
}

/* Until it holds: it is refused while workers have not taken over the last ones. */
static int put(struct agent *a, unsigned number)
{
	unsigned before = changes(a);

	for (;;) {
		int fd = ask_for(a, number);
		UNTIL(changes(a) > before || has_answer(fd));
		if (changes(a) > before)
			return fd;
		assert_non_null(strstr(heard(fd), "try again"));
		(void)close(fd);
		turn(a);
	}
}

/* ---- what is to hold ---- */

enum { ASKING = 40 };

/* Three of four, in all ways there are. The others get their answer when it is on disk (or, on a
 * machine that took longer than anyone waits, hear that it is not). */
static void who_leaves_leaves_nothing_behind(void **state)
{
	struct agent *a = *state;
	int fd[ASKING];

	hang(true);
	for (unsigned i = 0; i < ASKING; i++)
		fd[i] = put(a, i);
	for (unsigned i = 0; i < ASKING; i++) {
		assert_true(!has_answer(fd[i]) || is_warned(fd[i]));
		if (i % 4)
			leave(fd[i], i % 4 - 1);
	}
	for (unsigned i = 0; i < 20; i++)
		turn(a);
	for (unsigned i = 0; i < ASKING; i += 4)
		assert_true(!has_answer(fd[i]) || is_warned(fd[i]));
	hang(false);
	for (unsigned i = 0; i < ASKING; i += 4) {
		UNTIL(has_answer(fd[i]));
		assert_true(is_on_disk(a, i) || is_warned(fd[i]));
		(void)close(fd[i]);
	}
	UNTIL(count_sockets() == a->sockets);
	for (unsigned i = 0; i < ASKING; i++)
		assert_true(is_on_disk(a, i));
}

/* All places there are have somebody who waits, and has left. */
static void the_next_one_is_answered(void **state)
{
	struct agent *a = *state;

	hang(true);
	for (unsigned i = 0; i < HTTP_CONNECTIONS_MAX; i++)
		leave(put(a, i), 2);
	int fd = ask_for(a, HTTP_CONNECTIONS_MAX);
	hang(false);
	UNTIL(has_answer(fd));
	(void)close(fd);
	UNTIL(count_sockets() == a->sockets);
}

/* What they wait for comes when they are gone. */
static void a_stop_answers_them(void **state)
{
	struct agent *a = *state;
	int fd[3];

	hang(true);
	for (unsigned i = 0; i < 3; i++)
		fd[i] = put(a, i);
	leave(fd[2], 0);
	admin_free(a->admin);
	a->admin = NULL;
	for (unsigned i = 0; i < 2; i++) {
		assert_true(strncmp(heard(fd[i]), "HTTP/1.1 503 ", 13) == 0 || is_warned(fd[i]));
		(void)close(fd[i]);
	}
	hang(false);
	(void)desk_settle(control_desk(a->control), clock_steady() + USEC_PER_DAY);
	for (unsigned i = 0; i < 3; i++)
		assert_true(is_on_disk(a, i));
}

static void expect(struct agent *a, const char *method, const char *body, const char *status)
{
	int fd = ask(a, method, body, false);

	UNTIL(has_answer(fd));
	if (strncmp(heard(fd) + 9, status, 3) != 0)
		fail_msg("%s %s: not %s: %s", method, body, status, heard(fd));
	(void)close(fd);
}

static void nothing(struct desk_wait *w, const struct desk_kept *kept)
{
	(void)w;
	(void)kept;
}

/* As many wait as may: to ask once more is no error of who asks. */
static void what_is_refused_for_now_is_503(void **state)
{
	enum { WAITS = 1000 };
	static struct desk_wait wait[WAITS];
	struct agent *a = *state;

	hang(true);
	(void)close(put(a, 0));
	for (unsigned i = 0; i < WAITS; i++) {
		wait[i].kept = nothing;
		desk_when_kept(control_desk(a->control), &wait[i]);
	}
	expect(a, "DELETE", "{\"user\":\"u00\"}", "503");
	expect(a, "PUT", "{\"user\":\"u00\",\"block\":true}", "503");
	expect(a, "PUT", "{\"user\":\"u00\",\"tier\":5}", "503");
	hang(false);
	(void)desk_settle(control_desk(a->control), clock_steady() + USEC_PER_DAY);
	expect(a, "PUT", "{\"user\":\"u00\",\"tier\":5}", "422");
	expect(a, "DELETE", "{\"user\":\"u01\"}", "404");
	expect(a, "DELETE", "{\"user\":\"u00\"}", "200");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(who_leaves_leaves_nothing_behind, setup, teardown),
		cmocka_unit_test_setup_teardown(the_next_one_is_answered, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stop_answers_them, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_refused_for_now_is_503, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
