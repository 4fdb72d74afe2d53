/* The admin interface as the agent has it: its real routes, on control's loop, by a UNIX socket and
 * by TCP. Whatever comes: what goes back is HTTP, connections stay within their bound, and the next
 * one who asks is answered.
 * Input: a byte (bit 0: by TCP; the rest: after how many bytes the peer pauses), then what one
 * connection sends. */
#include "admin/admin.h"
#include "admin/http.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { REPLY_BYTES = 1 << 16, QUIET_TURNS = 4, CHANGES_KEPT = 40, ASK_EVERY = 64 };

static const char config[] =
	"agent: { listen = [ \"%s/spop\" ]; threads = 1; };\n"
	"admin: { listen = [ \"%s/admin\", \"127.0.0.1:0\" ]; token = \"fuzz-token-0123456789\"; };\n"
	"store: { max_keys = 1000; state_file = \"\"; };\n"
	"log: { target = \"/dev/null\"; level = \"info\"; };\n"
	"rules = ( { name = \"api\"; per = [ \"key|user|ip\" ]; match = { path = \"/api/*\"; };\n"
	"  rate = { free = \"10/minute\"; gold = [ \"50/minute\", \"1000/day\" ]; }; },\n"
	"  { name = \"login\"; per = [ \"ip\" ]; rate = \"5/minute\"; algorithm = \"fixed-window\";\n"
	"    penalty = { after = \"3/1m\"; ban = \"10m\"; }; } );\n";

static struct {
	char folder[32], file[64];
	struct listeners agent, admin_at;
	struct memory_store *store;
	struct control *control;
	struct admin *admin;
	struct sockaddr_un local;
	struct sockaddr_in remote;
	unsigned runs;
} world;

static void require(bool so)
{
	if (!so)
		abort();
}

static void end_world(void)
{
	admin_free(world.admin);
	control_free(world.control);
	store_close(memory_store_base(world.store));
	listeners_close(&world.agent);
	listeners_close(&world.admin_at);
	log_close();
	(void)unlink(world.file);
	(void)rmdir(world.folder);
}

static void write_config(void)
{
	strcpy(world.folder, "/tmp/fuzz-admin-XXXXXX");
	require(mkdtemp(world.folder));
	(void)snprintf(world.file, sizeof world.file, "%s/cfg", world.folder);
	FILE *f = fopen(world.file, "w");
	require(f && fprintf(f, config, world.folder, world.folder) > 0 && fclose(f) == 0);
}

static void begin_world(void)
{
	static const char *files[1];
	struct problems problems = { 0 };
	struct hash_key key = { .bytes = { 1 } };
	char err[512];

	require(hash_init());
	write_config();
	files[0] = world.file;
	struct snapshot *s = config_load(files, 1, &key, 1, &problems);
	require(s);
	problems_free(&problems);
	require(log_open(&s->settings.log, err, sizeof err) == 0);
	struct listen_plan agent = listen_plan_agent(&s->settings);
	struct listen_plan admin = listen_plan_admin(&s->settings);
	require(listeners_open(&world.agent, &agent, err, sizeof err));
	require(listeners_open(&world.admin_at, &admin, err, sizeof err));
	world.store = memory_store_new(1000, &key, clock_read());
	require(world.store);
	world.control = control_new(&(struct control_args){ .files = files,
					    .files_n = 1,
					    .snapshot = s,
					    .listeners = &world.agent,
					    .store = world.store,
					    .version = "fuzz" },
		err, sizeof err);
	require(world.control);
	world.admin = admin_new(world.control, &world.admin_at);
	require(world.admin);
	require(!snapshot_unref(s)); /* control has it */
	world.local.sun_family = AF_UNIX;
	(void)snprintf(world.local.sun_path, sizeof world.local.sun_path, "%s/admin", world.folder);
	socklen_t n = sizeof world.remote;
	require(getsockname(world.admin_at.at[1].fd, (struct sockaddr *)&world.remote, &n) == 0);
	(void)atexit(end_world);
}

static void turn(void)
{
	(void)ev_run(control_loop(world.control), EVRUN_NOWAIT);
}

static int dial(bool by_tcp)
{
	const struct sockaddr *to = by_tcp ? (const struct sockaddr *)&world.remote
					   : (const struct sockaddr *)&world.local;
	socklen_t n = by_tcp ? sizeof world.remote : sizeof world.local;
	struct linger at_once = { 1, 0 }; /* no port of ours waits */
	int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	require(fd >= 0);
	if (by_tcp)
		require(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
	while (connect(fd, to, n) < 0) { /* its queue is full: its connections are */
		require(errno == EAGAIN || errno == EINTR);
		turn();
	}
	return fd;
}

static void say(int fd, const uint8_t *bytes, size_t n)
{
	for (unsigned quiet = 0; n && quiet < QUIET_TURNS;) {
		ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno != EAGAIN)
			return;
		quiet = sent > 0 ? 0 : quiet + 1;
		bytes += sent > 0 ? sent : 0;
		n -= sent > 0 ? (size_t)sent : 0;
		turn();
	}
}

/* What has come when nothing more does; how much of it `out` has room for. */
static size_t hear(int fd, char *out, size_t size)
{
	static char rest[REPLY_BYTES];
	size_t n = 0;

	for (unsigned quiet = 0; quiet < QUIET_TURNS;) {
		bool full = n == size;
		ssize_t got = recv(
			fd, full ? rest : out + n, full ? sizeof rest : size - n, MSG_DONTWAIT);
		if (got == 0 || (got < 0 && errno != EAGAIN))
			return n;
		quiet = got > 0 ? 0 : quiet + 1;
		n += got > 0 && !full ? (size_t)got : 0;
		turn();
	}
	return n;
}

/* The first reply's head is one: a status, and no line that a name could have split. */
static void check_reply(const char *reply, size_t n)
{
	static const char version[] = "HTTP/1.";
	const char *end = memmem(reply, n, "\r\n\r\n", 4);

	if (n == 0)
		return;
	require(n > 12 && memcmp(reply, version, sizeof version - 1) == 0 && end);
	require(reply[9] >= '1' && reply[9] <= '5');
	for (const char *p = reply; p < end; p++)
		require((unsigned char)*p >= ' ' || (*p == '\r' && p[1] == '\n') ||
			(*p == '\n' && p[-1] == '\r'));
}

/* However many have come before. */
static void check_that_it_lives(void)
{
	static const char ask[] = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	char reply[4096];
	int fd = dial(false);

	say(fd, (const uint8_t *)ask, sizeof ask - 1);
	size_t n = hear(fd, reply, sizeof reply);
	require(n > 12 && memcmp(reply, "HTTP/1.1 200", 12) == 0);
	(void)close(fd);
	turn();
}

static void note_first(void *with, const char *name, json_t *value)
{
	char *first = with;
	(void)value;
	if (!*first)
		(void)snprintf(first, CHANGE_NAME_MAX, "%s", name);
}

/* So that the thousandth change is as quick as the first. */
static void forget_changes(void)
{
	struct desk *d = control_desk(world.control);
	char err[256];

	while (changes_count(desk_changes(d)) > CHANGES_KEPT) {
		char name[CHANGE_NAME_MAX] = "";
		changes_each(desk_changes(d), "", note_first, name);
		if (!desk_remove(d, name, (struct act){ "fuzz", NULL }, err, sizeof err))
			turn(); /* workers have not taken over the last ones yet */
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char reply[REPLY_BYTES];

	if (!world.admin)
		begin_world();
	if (size == 0)
		return 0;
	size_t pause = data[0] >> 1, n = size - 1;
	pause = pause < n ? pause : n;
	int fd = dial(data[0] & 1);
	say(fd, data + 1, pause);
	turn();
	say(fd, data + 1 + pause, n - pause);
	check_reply(reply, hear(fd, reply, sizeof reply));
	(void)close(fd);
	turn();
	forget_changes();
	if (++world.runs % ASK_EVERY == 0)
		check_that_it_lives();
	return 0;
}
