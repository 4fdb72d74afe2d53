/* Configuration: libconfig text -> checked struct -> immutable snapshot, every problem as
 * FILE:LINE: message, all of them in one run. Knows no sockets and no threads. */
#ifndef CONFIG_SNAPSHOT_H
#define CONFIG_SNAPSHOT_H

#include "base/addr.h"
#include "base/log.h"
#include "limit/policy.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/types.h>

enum { LISTEN_MAX = 16, ADMIN_LISTEN_MAX = 4, SERVERS_MAX = 64, CONFIG_FILES_MAX = 32 };

struct changes; /* config/changes.h */

enum backend { BACKEND_MEMORY, BACKEND_REDIS };

enum redis_kind { REDIS_KIND_SINGLE, REDIS_KIND_SENTINEL, REDIS_KIND_CLUSTER };

struct listen_address {
	char text[128]; /* as written, for messages: host:port, [v6]:port, /absolute/path */
	bool is_unix;
	char host[128]; /* without brackets; "": all of IPv4 ("*:9600", ":9600") */
	char port[8];   /* decimal, without leading zeros */
};

/* What the options table (config/options.h) fills. */
struct settings {
	struct {
		struct listen_address listen[LISTEN_MAX];
		unsigned listen_n;
		int64_t threads; /* 0: one for each core */
		int64_t max_connections;
		int64_t max_frame_size;
		struct cidr_set *allow_from; /* NULL: all */
		mode_t socket_mode;
		char socket_owner[64], socket_group[64]; /* "": as the process */
		usec_t drain;
		usec_t busy_poll; /* 0: never */
		bool batch_scheduling;
		uint32_t variables; /* bit i: the i-th of answer.h's ANSWER_VARS */
	} agent;
	struct {
		enum backend backend;
		int64_t max_keys;
		char state_file[256];  /* "": none; always with redis */
		usec_t state_interval; /* how often it is written while running */
	} store;
	struct { /* checked with either backend */
		enum redis_kind mode;
		/* Where to connect to: as for listening, but always with a host and a port. */
		struct listen_address server[SERVERS_MAX];
		unsigned server_n;                             /* REDIS_KIND_SINGLE: 1 */
		char master[64], username[128], password[256]; /* "": none */
		bool tls;
		char tls_ca[256], tls_cert[256], tls_key[256], tls_name[256]; /* ditto */
		int64_t db;
		char prefix[64];
		usec_t timeout;
		char hash_secret[256];      /* "": of the prefix */
		enum on_failure on_failure; /* of rules that do not say; policy has it in each */
		int64_t instances;          /* ditto */
		usec_t tiers_age;
		int64_t tiers_cache;
	} redis;
	struct log_settings log;
	struct {
		struct listen_address listen[ADMIN_LISTEN_MAX];
		unsigned listen_n; /* 0: there is no admin interface */
		char token[256];   /* "": only the UNIX socket may change anything */
		mode_t socket_mode;
		char socket_owner[64], socket_group[64]; /* "": as the process */
	} admin;
};

struct snapshot {
	_Atomic(unsigned) refs;
	uint64_t generation;
	struct settings settings;
	struct policy *policy;
	char **line;    /* the effective configuration as sorted lines "agent.threads = 0", secrets
			 * redacted: for what changed at a reload, and for people */
	char **line_at; /* for each line the FILE:LINE that it comes from; NULL: a default */
	size_t line_n;
	char *admin_at;        /* owned; "FILE:LINE" of the group `admin`; NULL: there is none */
	struct inputs *inputs; /* what it was read from; config_rebuild() builds from it */
};

/* Collects messages; each is one line without its newline. */
struct problems {
	char **message;
	bool *is_warning; /* of each message: what its text holds may be anything */
	size_t n, cap;
	size_t warnings; /* of which are warnings ("FILE:LINE: warning: …"): they refuse nothing */
	bool lost;       /* memory ran out before an error could be kept here */
};

void problems_free(struct problems *);

/* What descriptors are hashed with when they go to Redis: the same for all agents that have the
 * same redis.hash_secret or, where that is empty, redis.prefix. */
void redis_hash_key(const struct settings *, struct hash_key *);

/* Reads, checks and builds. The policy's key is the one given here with the backend memory, and
 * that of redis_hash_key() with redis. NULL: problems says why (warnings may be there on success
 * too). The same function serves the start, -c and every reload. Control thread. */
struct snapshot *config_load(const char *const *files, size_t files_n, const struct hash_key *,
	uint64_t generation, struct problems *);

/* Text of one file instead (fuzzing, tests); includes and relative paths start from `name`. */
struct snapshot *config_load_text(const char *name, const char *text, size_t n,
	const struct hash_key *, uint64_t generation, struct problems *);

/* What `old` was read from, built again with what the operator has changed since: no file is read,
 * and the environment is as it was. NULL: problems says why; `old` is as it was in any case.
 * `idle`, an object, gets the changes that do not do what they say with this configuration: by name
 * an array of texts (NULL: nobody asks). Control thread. */
struct snapshot *config_rebuild(const struct snapshot *old, const struct changes *,
	uint64_t generation, struct problems *, json_t *idle);

struct snapshot *snapshot_ref(struct snapshot *);
/* Drops a reference; true: that was the last one, and the caller owns it for snapshot_free()
 * (which may take a while for a large tiers file: on the control thread, never on a worker). */
bool snapshot_unref(struct snapshot *);
void snapshot_free(struct snapshot *);

/* What cannot change while running (listeners, threads, store): each difference adds a problem
 * that says so. true: there was none. */
bool snapshot_can_replace(
	const struct snapshot *old, const struct snapshot *fresh, struct problems *);

/* "FILE:LINE" of an option; NULL: it stands nowhere. */
const char *snapshot_option_at(const struct snapshot *, const char *name);

/* One sentence on what `fresh` changes: "rules: api changed (rate.free 10/minute -> 20/minute),
 * +uploads; agent.drain 2s -> 3s", or "nothing". Returns its length, cut at `size`. */
size_t snapshot_describe_changes(
	const struct snapshot *old, const struct snapshot *fresh, char *out, size_t size);

/* By how much the slowest refill of a counter that both know has become slower; 1.0: by nothing. */
double snapshot_slower_by(const struct snapshot *old, const struct snapshot *fresh);

/* Does only this machine reach what listens there: a UNIX socket, or an address of loopback? Looks
 * nothing up: of names only "localhost" is. */
bool listen_is_local(const struct listen_address *);

/* The rules in words, one line each, for the start-up log: "login: 5 per 5m and 10 per hour for
 * each ip, on endpoint POST:/auth/...". Returns its length. */
size_t snapshot_describe_rule(const struct snapshot *, const struct rule *, char *out, size_t size);

/* The commented full configuration, from the options table, to stdout or any stream. */
void config_write_full(FILE *);

#endif
