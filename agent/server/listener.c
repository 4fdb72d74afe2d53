#include "server/listener.h"

#include "config/address.h"
#include "config/rate.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* A reload of HAProxy opens all its connections anew at once (one for each of its threads, engines
 * and waiting streams). The kernel cuts this to net.core.somaxconn. */
enum { BACKLOG = 4096 };

struct error {
	char *text;
	size_t size;
	const char *group; /* of the settings that it is about */
	bool is_in_use;    /* another process listens there */
};

static bool fail(const struct error *e, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static bool fail(const struct error *e, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	(void)vsnprintf(e->text, e->size, format, args);
	va_end(args);
	return false;
}

/* A %s stands for the group of the settings. */
static const char *advice(int error, bool is_unix)
{
	switch (error) {
	case EADDRINUSE:
		return "another process listens there: stop it, or change %s.listen";
	case EADDRNOTAVAIL:
		return "no interface of this machine has this address: change %s.listen";
	case EACCES:
	case EPERM:
		return is_unix ? "let the agent's user write to the folder, or change %s.listen"
			       : "ports below 1024 need the capability CAP_NET_BIND_SERVICE: use a "
				 "higher port";
	case ENOENT:
		return "its folder does not exist: create it, or change %s.listen";
	case EAFNOSUPPORT:
		return "this machine has no such kind of address: change %s.listen";
	case EMFILE:
	case ENFILE:
		return "raise the limit of open files (LimitNOFILE= of the service)";
	default:
		return "change %s.listen, or put right what stands in its way";
	}
}

static bool fail_listen(struct error *e, const char *text, int error, bool is_unix)
{
	char what[160];
	e->is_in_use = error == EADDRINUSE;
	const char *text_of = advice(error, is_unix), *mark = strstr(text_of, "%s");
	if (mark)
		(void)snprintf(what, sizeof what, "%.*s%s%s", (int)(mark - text_of), text_of,
			e->group, mark + 2);
	else
		(void)snprintf(what, sizeof what, "%s", text_of);
	return fail(e, "cannot listen on %s: %s: %s", text, strerror(error), what);
}

static bool is_any(const char *host, const char *any)
{
	return !host[0] || strcmp(host, "*") == 0 || strcmp(host, any) == 0;
}

/* "[::]" takes IPv4 too, as it does for HAProxy on Linux, unless the same port is also asked for
 * on all of IPv4: then each of the two takes its own. */
static bool wants_v6only(const struct listen_plan *plan, const struct listen_address *a)
{
	for (unsigned i = 0; i < plan->n; i++) {
		const struct listen_address *other = &plan->address[i];
		if (!other->is_unix && is_any(other->host, "0.0.0.0") &&
			strcmp(other->port, a->port) == 0)
			return true;
	}
	return false;
}

static void set_option(int fd, int level, int name, int value)
{
	/* Each of these only makes things better: without it the agent still works. */
	(void)setsockopt(fd, level, name, &value, sizeof value);
}

/* What is set here is inherited by the sockets that are accepted: no system call for each. */
static void set_tcp_options(int fd, bool v6only, int family)
{
	set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (family == AF_INET6)
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, v6only);
	/* Answers are small and awaited: Nagle and delayed ACKs together cost 40 ms. */
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	/* Short answers over a near network need no pacing, as BBR has it where it is the machine's
	 * default: a sixth fewer requests at depth 1. Every kernel has this one, for every user. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", strlen("reno"));
	/* Idle connections are never closed; this finds those whose other end is gone. */
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

static struct addrinfo *resolve(
	const struct listen_address *a, struct addrinfo **list, const struct error *e)
{
	struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
		.ai_socktype = SOCK_STREAM };
	bool any = !a->host[0] || strcmp(a->host, "*") == 0;
	if (any)
		hints.ai_family = AF_INET;
	int rc = getaddrinfo(any ? NULL : a->host, a->port, &hints, list);
	if (rc) {
		(void)fail(e,
			"cannot listen on %s: %s: write an address of this machine into %s.listen",
			a->text, rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc), e->group);
		*list = NULL;
		return NULL;
	}
	for (struct addrinfo *i = *list; i; i = i->ai_next)
		if (i->ai_family == AF_INET)
			return i; /* of a name that has both, as HAProxy does */
	return *list;
}

static struct addr addr_of_socket(const struct sockaddr_storage *s)
{
	if (s->ss_family == AF_INET)
		return addr_from_bytes(&((const struct sockaddr_in *)s)->sin_addr, 4);
	return addr_from_bytes(&((const struct sockaddr_in6 *)s)->sin6_addr, 16);
}

static void write_bound_text(struct listener *l, const struct listen_address *a)
{
	struct sockaddr_storage address;
	socklen_t n = sizeof address;
	char host[NI_MAXHOST], port[NI_MAXSERV];
	(void)snprintf(l->text, sizeof l->text, "%s", a->text);
	if (getsockname(l->fd, (struct sockaddr *)&address, &n) < 0)
		return;
	struct addr addr = addr_of_socket(&address);
	l->is_local = addr_is_loopback(&addr);
	if (getnameinfo((struct sockaddr *)&address, n, host, sizeof host, port, sizeof port,
		    NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	(void)snprintf(l->text, sizeof l->text,
		address.ss_family == AF_INET6 ? "[%.60s]:%s" : "%.60s:%s", host, port);
}

/* As if it were ours; mode and owner of a UNIX socket are of who has opened it. */
static bool use_inherited(
	struct listener *l, int fd, const struct listen_address *a, struct error *e)
{
	l->fd = fd;
	l->is_inherited = true;
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || listen(fd, BACKLOG) < 0)
		return fail_listen(e, a->text, errno, a->is_unix);
	return true;
}

/* One before it in the same list that takes its place: "[::]:1" is all of IPv4 at that port, too.
 * NULL: none that can be told. */
static const struct listen_address *taken_by(
	const struct listen_plan *s, const struct listen_address *a)
{
	for (const struct listen_address *b = s->address; b < a; b++)
		if (listen_clashes_surely(b, a) || (listen_clashes(b, a) && !wants_v6only(s, a)))
			return b;
	return NULL;
}

static bool fail_tcp(
	struct error *e, const struct listen_plan *s, const struct listen_address *a, int error)
{
	const struct listen_address *by = error == EADDRINUSE ? taken_by(s, a) : NULL;
	if (!by)
		return fail_listen(e, a->text, error, false);
	return fail(e,
		"cannot listen on %s: %s before it has this port: leave one of them out of %s.listen",
		a->text, by->text, e->group);
}

static bool open_tcp(struct listener *l, const struct listen_plan *s,
	const struct listen_address *a, struct error *e)
{
	struct addrinfo *list;
	struct addrinfo *use = resolve(a, &list, e);
	if (!use)
		return false;
	int fd = s->inherited ? inherited_take_tcp(s->inherited, use->ai_addr, use->ai_addrlen)
			      : -1;
	if (fd >= 0) {
		/* Its family is not asked for: what IPv6 takes was settled when it was bound. */
		set_tcp_options(fd, false, AF_UNSPEC);
		freeaddrinfo(list);
		if (!use_inherited(l, fd, a, e))
			return false;
		write_bound_text(l, a);
		return true;
	}
	l->fd = socket(use->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		goto fail;
	set_tcp_options(l->fd, wants_v6only(s, a), use->ai_family);
	if (bind(l->fd, use->ai_addr, use->ai_addrlen) < 0 || listen(l->fd, BACKLOG) < 0)
		goto fail;
	freeaddrinfo(list);
	write_bound_text(l, a);
	return true;
fail:;
	int error = errno;
	freeaddrinfo(list);
	return fail_tcp(e, s, a, error);
}

/* true: a file of that name is there, is a socket, and nobody listens on it any more. */
static bool is_stale(const struct sockaddr_un *address)
{
	struct stat st;
	if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	bool refused = connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 &&
		       errno == ECONNREFUSED;
	(void)close(fd);
	return refused;
}

/* A number, as in an image without /etc/passwd. */
static bool is_id(const char *text, uint32_t *id)
{
	int64_t v;
	if (text[0] < '0' || text[0] > '9' || !integer_parse(str_of(text), &v) || v < 0 ||
		v >= UINT32_MAX)
		return false;
	*id = (uint32_t)v;
	return true;
}

static bool find_owner(const struct listen_plan *s, uid_t *uid, gid_t *gid, const struct error *e)
{
	*uid = (uid_t)-1;
	*gid = (gid_t)-1;
	errno = 0;
	if (s->socket_owner[0]) {
		struct passwd *p = getpwnam(s->socket_owner);
		if (!p && !is_id(s->socket_owner, uid))
			return fail(e,
				"%s.socket_owner: this machine has no user \"%s\": create it, or change that",
				e->group, s->socket_owner);
		if (p)
			*uid = p->pw_uid;
	}
	if (s->socket_group[0]) {
		struct group *g = getgrnam(s->socket_group);
		if (!g && !is_id(s->socket_group, gid))
			return fail(e,
				"%s.socket_group: this machine has no group \"%s\": create it, or change that",
				e->group, s->socket_group);
		if (g)
			*gid = g->gr_gid;
	}
	return true;
}

/* Takes the place of the file that a process left behind, of nothing else. */
static bool bind_unix(int fd, const struct sockaddr_un *address, struct error *e)
{
	const char *path = address->sun_path;
	struct stat st;
	if (bind(fd, (const struct sockaddr *)address, sizeof *address) == 0)
		return true;
	if (errno != EADDRINUSE)
		return fail_listen(e, path, errno, true);
	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return fail(e,
			"cannot listen on %s: a file is there that is no socket: move it away, or "
			"change %s.listen",
			path, e->group);
	if (!is_stale(address))
		return fail_listen(e, path, EADDRINUSE, true);
	if (unlink(path) == 0 && bind(fd, (const struct sockaddr *)address, sizeof *address) == 0)
		return true;
	return fail_listen(e, path, errno, true);
}

static bool open_unix(struct listener *l, const struct listen_plan *s,
	const struct listen_address *a, struct error *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t n = strlen(a->text);
	if (n >= sizeof address.sun_path)
		return fail(e,
			"cannot listen on %s: the path has %zu bytes, and %zu are the most for a "
			"UNIX socket: choose a shorter one in %s.listen",
			a->text, n, sizeof address.sun_path - 1, e->group);
	memcpy(address.sun_path, a->text, n + 1);
	int fd = s->inherited ? inherited_take_unix(s->inherited, a->text) : -1;
	if (fd >= 0) {
		memcpy(l->path, address.sun_path, n + 1);
		(void)snprintf(l->text, sizeof l->text, "%s", a->text);
		l->is_local = true;
		return use_inherited(l, fd, a, e);
	}
	uid_t uid;
	gid_t gid;
	if (!find_owner(s, &uid, &gid, e))
		return false;
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		return fail_listen(e, a->text, errno, true);
	if (!bind_unix(l->fd, &address, e))
		return false;
	struct stat st;
	if (lstat(address.sun_path, &st) == 0) {
		memcpy(l->path, address.sun_path, n + 1);
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
	(void)snprintf(l->text, sizeof l->text, "%s", a->text);
	l->is_local = true;
	/* Until listen() nobody can connect: there is no moment with a wrong owner or mode. */
	if ((uid != (uid_t)-1 || gid != (gid_t)-1) && chown(address.sun_path, uid, gid) < 0)
		return fail(e,
			"cannot give %s to \"%s:%s\": %s: run the agent as root or as a member of that "
			"group, or change %s.socket_owner and %s.socket_group",
			a->text, s->socket_owner, s->socket_group, strerror(errno), e->group,
			e->group);
	if (chmod(address.sun_path, s->mode) < 0 || listen(l->fd, BACKLOG) < 0)
		return fail_listen(e, a->text, errno, true);
	return true;
}

struct listen_plan listen_plan_agent(const struct settings *s)
{
	return (struct listen_plan){ "agent", s->agent.listen, s->agent.listen_n,
		s->agent.socket_mode, s->agent.socket_owner, s->agent.socket_group, NULL, false };
}

struct listen_plan listen_plan_admin(const struct settings *s)
{
	return (struct listen_plan){ "admin", s->admin.listen, s->admin.listen_n,
		s->admin.socket_mode, s->admin.socket_owner, s->admin.socket_group, NULL, false };
}

static void listener_close(struct listener *l)
{
	struct stat st;
	if (l->path[0] && !l->is_inherited && lstat(l->path, &st) == 0 && st.st_dev == l->dev &&
		st.st_ino == l->ino)
		(void)unlink(l->path);
	if (l->fd >= 0)
		(void)close(l->fd);
	*l = (struct listener){ .fd = -1 };
}

static bool open_one(struct listener *l, const struct listen_plan *plan,
	const struct listen_address *a, struct error *e)
{
	*l = (struct listener){ .fd = -1 };
	return a->is_unix ? open_unix(l, plan, a, e) : open_tcp(l, plan, a, e);
}

bool listeners_open(
	struct listeners *ls, const struct listen_plan *plan, char *err, size_t err_size)
{
	struct error e = { err, err_size, plan->group, false };
	*ls = (struct listeners){ 0 };
	for (unsigned i = 0; i < plan->n; i++) {
		struct listener *l = &ls->at[ls->n++];
		e.is_in_use = false;
		if (open_one(l, plan, &plan->address[i], &e))
			continue;
		if (!plan->may_wait || !e.is_in_use) {
			listeners_close(ls);
			return false;
		}
		listener_close(l);
		l->is_awaited = true;
	}
	return true;
}

bool listeners_open_rest(
	struct listeners *ls, const struct listen_plan *plan, char *err, size_t err_size)
{
	struct error e = { err, err_size, plan->group, false };
	for (unsigned i = 0; i < ls->n; i++) {
		struct listener *l = &ls->at[i];
		if (!l->is_awaited || open_one(l, plan, &plan->address[i], &e))
			continue;
		listeners_close(ls);
		return false;
	}
	return true;
}

bool listeners_are_inherited(const struct listeners *ls)
{
	for (unsigned i = 0; i < ls->n; i++)
		if (!ls->at[i].is_inherited)
			return false;
	return true;
}

void listeners_close(struct listeners *ls)
{
	for (unsigned i = 0; i < ls->n; i++)
		listener_close(&ls->at[i]);
	ls->n = 0;
}
