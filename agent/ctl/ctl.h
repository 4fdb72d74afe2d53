/* ratelimitctl: one run of a command. */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "config/snapshot.h"
#include "ctl/http.h"
#include "ctl/options.h"

#include <stdio.h>

#define DEFAULT_CONFIG "/etc/spoa-ratelimit/ratelimit.cfg"
#define DEFAULT_SOCKET "/run/spoa-ratelimit/admin.sock"

struct ctl {
	const struct ctl_options *o;
	const char *version;
	struct place place; /* empty until the agent is asked the first time */
	bool guessed;       /* from the usual file, as nobody listens at the usual socket */
};

/* The commands. Each returns the exit status, and has said on stderr what was wrong. */
#define X(name, handler, options, words, least, most, help) int ctl_##handler(struct ctl *);
CTL_COMMANDS(X)
#undef X

/* Asks the agent. `body` is taken over; NULL: there is none. CTL_DONE: `*answer` is the caller's.
 * All else is said on stderr; with --json what the agent said is on stdout as well. */
int ctl_ask(struct ctl *, const char *method, const char *path, json_t *body, json_t **answer);
/* The configuration of -f, or else the usual one; what is wrong with it is said on stderr, and what
 * it warns of. NULL: it is refused. */
struct snapshot *ctl_load_config(const struct ctl_options *, const struct hash_key *);

/* What the agent warns of beside its answer, on stderr. */
void ctl_warn(const json_t *answer);
/* What it says of a configuration: the list `name`, each with its place, where it has one, and
 * `kind` before what it says. On stderr. */
void ctl_tell_problems(const json_t *answer, const char *name, const char *kind);
/* As ctl_ask(), and done with it: warnings are told, with --json the answer is printed. */
int ctl_do(struct ctl *, const char *method, const char *path, json_t *body);

/* Says on stderr what the agent says, and with --json on stdout. Drops reply->json. Returns
 * CTL_REFUSED. */
int ctl_refused(struct ctl *, struct reply *);

/* Says on stderr that nobody answers, and what may help. Returns CTL_AWAY. */
int ctl_away(struct ctl *, const char *why);

/* Where the agent is. false: said why. */
bool ctl_find(struct ctl *);

/* One line without its end, at most size - 1 bytes. Returns its length; -1: none, too long, or it
 * has a NUL, behind which nobody would look: what stands before it may be another's. */
long ctl_read_line(FILE *, char *out, size_t size);

/* "ratelimitctl: ..." on stderr. Returns `status`. */
int ctl_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The number that -n says, or `usual`. -1: it is not one from 1 to `most`, and that is said. */
long ctl_number(const struct ctl_options *, long usual, long most);
/* For --json: what there is, on a line of its own or laid out. Returns CTL_DONE. */
int ctl_print_json(const json_t *, bool one_line);

/* ---- reading answers: what is not there is "", 0, or NULL ---- */

const char *ctl_text(const json_t *, const char *name);
int64_t ctl_int(const json_t *, const char *name);
double ctl_real(const json_t *, const char *name);

/* "user=alice" and the like, from the words from `from` on, as an object of texts. `FIELD=-` reads
 * a line of standard input. `in_part`: of the hash of a key its first 12 digits will do. NULL: said
 * why (a key in clear is refused: CTL_USAGE). */
json_t *ctl_fields(const struct ctl_options *, unsigned from, bool in_part);
/* {"reason": ...} of --reason, with "for" or "until". NULL: said why. */
json_t *ctl_change_body(const struct ctl_options *);

#endif
