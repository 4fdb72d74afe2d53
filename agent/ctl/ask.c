/* Where the agent is, and what it says. */
#include "config/snapshot.h"
#include "ctl/ctl.h"
#include "ctl/text.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int ctl_fail(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	char *clean = text_clean_format(format, args);
	va_end(args);
	(void)fprintf(stderr, "ratelimitctl: %s\n", clean ? clean : "out of memory");
	free(clean);
	return status;
}

int ctl_print_json(const json_t *v, bool one_line)
{
	/* In ASCII: what clients sent is escaped, and steers no terminal. */
	size_t flags = JSON_ENSURE_ASCII | JSON_ENCODE_ANY;

	(void)json_dumpf(v, stdout, flags | (one_line ? JSON_COMPACT : JSON_INDENT(2)));
	(void)putchar('\n');
	return CTL_DONE;
}

const char *ctl_text(const json_t *o, const char *name)
{
	const char *z = json_string_value(json_object_get(o, name));

	return z ? z : "";
}

int64_t ctl_int(const json_t *o, const char *name)
{
	return json_integer_value(json_object_get(o, name));
}

double ctl_real(const json_t *o, const char *name)
{
	return json_number_value(json_object_get(o, name));
}

/* ---- where ---- */

static bool somebody_listens(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof a.sun_path)
		return false;
	memcpy(a.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Who may not connect, or has to wait, is told so by the call that follows. */
	bool yes = fd >= 0 && (connect(fd, (struct sockaddr *)&a, sizeof a) == 0 ||
				      errno == EACCES || errno == EAGAIN);
	if (fd >= 0)
		(void)close(fd);
	return yes;
}

/* From the admin group: a socket rather than an address. NULL in `found`: there is none. */
static bool read_configuration(
	const char *const *file, size_t files, char found[128], struct problems *problems)
{
	struct hash_key key;

	hash_key_random(&key);
	struct snapshot *s = config_load(file, files, &key, 1, problems);
	found[0] = '\0';
	if (!s)
		return false;
	for (unsigned i = 0; i < s->settings.admin.listen_n; i++) {
		const struct listen_address *a = &s->settings.admin.listen[i];
		if (!found[0] || (a->is_unix && found[0] != '/'))
			(void)snprintf(found, 128, "%s", a->text);
	}
	if (snapshot_unref(s))
		snapshot_free(s);
	return true;
}

static bool find_by_files(struct ctl *c, const char *const *file, size_t files, bool named)
{
	struct problems problems = { 0 };
	char found[128];
	bool good = read_configuration(file, files, found, &problems);

	if (good && found[0]) {
		good = place_set(&c->place, found);
	} else if (named && good) {
		(void)ctl_fail(
			0, "%s has no admin group: this agent has no admin interface", file[0]);
		good = false;
	} else if (named) {
		for (size_t i = 0; i < problems.n; i++)
			(void)ctl_fail(0, "%s", problems.message[i]);
		(void)ctl_fail(0, "so where the agent is cannot be read: --socket or --url say it");
	} else { /* the message that nobody answers there says what to do */
		good = place_set(&c->place, DEFAULT_SOCKET);
	}
	problems_free(&problems);
	return good;
}

long ctl_read_line(FILE *f, char *out, size_t size)
{
	size_t n = 0;
	int byte;

	while ((byte = getc(f)) != EOF && byte != '\n') {
		if (!byte || n + 1 == size)
			return -1;
		out[n++] = (char)byte;
	}
	if (ferror(f) || (byte == EOF && !n))
		return -1;
	while (n && out[n - 1] == '\r')
		n--;
	out[n] = '\0';
	return (long)n;
}

static bool find_token(struct ctl *c)
{
	const char *file = c->o->value[CTL_TOKEN_FILE], *env = getenv("RATELIMIT_ADMIN_TOKEN");
	char *token = c->place.token;
	long n;

	if (file) {
		FILE *f = fopen(file, "re");
		if (!f) {
			(void)ctl_fail(0, "%s: %s", file, strerror(errno));
			return false;
		}
		n = ctl_read_line(f, token, sizeof c->place.token);
		(void)fclose(f);
	} else {
		n = snprintf(token, sizeof c->place.token, "%s", env ? env : "");
		file = "RATELIMIT_ADMIN_TOKEN";
		if (!n)
			return true;
	}
	bool good = n > 0 && n < (long)sizeof c->place.token;
	for (long i = 0; good && i < n; i++)
		good = isgraph((unsigned char)token[i]);
	if (!good)
		(void)ctl_fail(
			0, "%s: want a token: one line of printable ASCII without blanks", file);
	return good;
}

static bool find_place(struct ctl *c)
{
	static const char *const usual[] = { DEFAULT_CONFIG };
	const struct ctl_options *o = c->o;
	const char *env = getenv("RATELIMIT_ADMIN"), *said = o->value[CTL_SOCKET];

	if (said && o->value[CTL_URL]) {
		(void)ctl_fail(0, "--socket and --url: want one of them");
		return false;
	}
	if (!said)
		said = o->value[CTL_URL];
	if (!said && !o->files && env && *env)
		said = env;
	if (!said && o->files)
		return find_by_files(c, o->file, o->files, true);
	c->guessed = !said && !somebody_listens(DEFAULT_SOCKET);
	if (c->guessed)
		return find_by_files(c, usual, 1, false);
	char full[PATH_MAX];
	if (said && said == o->value[CTL_SOCKET] && said[0] != '/' && getcwd(full, sizeof full)) {
		size_t n = strlen(full);
		(void)snprintf(full + n, sizeof full - n, "/%s", said);
		said = full;
	}
	if (place_set(&c->place, said ? said : DEFAULT_SOCKET))
		return true;
	(void)ctl_fail(0, "%s: too long for an address", said);
	return false;
}

bool ctl_find(struct ctl *c)
{
	return c->place.url[0] || (find_place(c) && find_token(c));
}

/* ---- what it says ---- */

/* "FILE:LINE: MESSAGE"; not each has a line, or a file. */
static void tell_problem(const json_t *p, const char *kind)
{
	const char *file = ctl_text(p, "file"), *message = ctl_text(p, "message");

	if (*file && ctl_int(p, "line"))
		(void)ctl_fail(
			0, "%s:%lld: %s%s", file, (long long)ctl_int(p, "line"), kind, message);
	else
		(void)ctl_fail(0, "%s%s%s%s", file, *file ? ": " : "", kind, message);
}

void ctl_tell_problems(const json_t *answer, const char *name, const char *kind)
{
	const json_t *list = json_object_get(answer, name), *p;
	size_t i;

	json_array_foreach(list, i, p) tell_problem(p, kind);
}

int ctl_refused(struct ctl *c, struct reply *r)
{
	const char *detail = ctl_text(r->json, "detail");

	if (ctl_given(c->o, CTL_JSON) && r->json)
		(void)ctl_print_json(r->json, false);
	ctl_tell_problems(r->json, "errors", "");
	if (*detail)
		(void)ctl_fail(0, "%s", detail);
	else
		(void)ctl_fail(0, "%s answers with status %ld: is it an agent's admin interface?",
			place_text(&c->place), r->status);
	if (r->status == 401)
		(void)ctl_fail(0, "the token comes from $RATELIMIT_ADMIN_TOKEN, or --token-file");
	json_decref(r->json);
	r->json = NULL;
	return r->status == 400 ? CTL_USAGE : CTL_REFUSED;
}

int ctl_away(struct ctl *c, const char *why)
{
	(void)ctl_fail(0, "no agent answers at %s: %s", place_text(&c->place), why);
	/* What the file says may be for who has not the unit's environment. */
	if (c->guessed && strcmp(c->place.socket, DEFAULT_SOCKET) != 0)
		(void)ctl_fail(0, "nor at " DEFAULT_SOCKET ", where its unit has it");
	if (c->place.socket[0] && access(c->place.socket, W_OK) != 0 && errno == EACCES)
		(void)ctl_fail(0, "who may connect there: root, and owner and group of the socket");
	else if (!c->o->value[CTL_SOCKET] && !c->o->value[CTL_URL])
		(void)ctl_fail(
			0, "is it running, with an admin group? --socket or --url say where");
	return CTL_AWAY;
}

int ctl_ask(struct ctl *c, const char *method, const char *path, json_t *body, json_t **answer)
{
	struct reply reply;
	char why[512];

	*answer = NULL;
	if (!ctl_find(c)) {
		json_decref(body);
		return CTL_USAGE;
	}
	bool called = http_call(&c->place, method, path, body, &reply, why, sizeof why);
	json_decref(body);
	if (!called)
		return ctl_away(c, why);
	if (reply.status >= 200 && reply.status <= 299 && reply.json) {
		*answer = reply.json;
		return CTL_DONE;
	}
	return ctl_refused(c, &reply);
}

void ctl_warn(const json_t *answer)
{
	const json_t *list = json_object_get(answer, "warnings"), *warning;
	size_t i;

	json_array_foreach(list, i, warning)
	{
		(void)ctl_fail(0, "warning: %s", json_string_value(warning));
	}
}

int ctl_do(struct ctl *c, const char *method, const char *path, json_t *body)
{
	json_t *answer;
	int status = ctl_ask(c, method, path, body, &answer);

	if (status == CTL_DONE)
		ctl_warn(answer);
	if (status == CTL_DONE && ctl_given(c->o, CTL_JSON))
		(void)ctl_print_json(answer, false);
	json_decref(answer);
	return status;
}
