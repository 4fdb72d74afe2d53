#include "store/redis_handshake.h"

#include "store/redis_conn.h"
#include "store/redis_hints.h"

#include <hiredis/hiredis.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum step { STEP_AUTH, STEP_SELECT, STEP_ROLE, STEP_SCRIPT, STEP_PING };

static void add(struct redis_handshake *h, enum step step)
{
	h->step[h->n++] = (unsigned char)step;
}

void redis_handshake_begin(
	struct redis_handshake *h, const struct redis_conn_settings *s, bool master_only)
{
	bool has_password = s->password[0] || s->username[0];

	h->n = h->at = 0;
	if (has_password && (!s->auth_if_asked || h->asked_who))
		add(h, STEP_AUTH);
	if (s->db)
		add(h, STEP_SELECT);
	if (master_only)
		add(h, STEP_ROLE);
	add(h, s->script ? STEP_SCRIPT : STEP_PING);
}

static void arg(struct handshake_command *c, const char *p, size_t n)
{
	c->argv[c->argc] = p;
	c->bytes[c->argc++] = n;
}

void redis_handshake_command(const struct redis_handshake *h, const struct redis_conn_settings *s,
	unsigned i, struct handshake_command *c)
{
	c->argc = 0;
	switch ((enum step)h->step[i]) {
	case STEP_AUTH:
		arg(c, "AUTH", 4);
		if (s->username[0])
			arg(c, s->username, strlen(s->username));
		arg(c, s->password, strlen(s->password));
		return;
	case STEP_SELECT:
		snprintf(c->db, sizeof c->db, "%d", s->db);
		arg(c, "SELECT", 6);
		arg(c, c->db, strlen(c->db));
		return;
	case STEP_ROLE:
		arg(c, "ROLE", 4);
		return;
	case STEP_SCRIPT:
		arg(c, "SCRIPT", 6);
		arg(c, "LOAD", 4);
		arg(c, s->script, s->script_bytes);
		return;
	case STEP_PING:
		arg(c, "PING", 4);
		return;
	}
}

static bool is_text(const redisReply *r, const char *text)
{
	return (r->type == REDIS_REPLY_STATUS || r->type == REDIS_REPLY_STRING) &&
	       (size_t)r->len == strlen(text) && memcmp(r->str, text, (size_t)r->len) == 0;
}

static bool is_refused(struct redis_handshake *h, const struct redis_conn_settings *s,
	enum step step, const redisReply *r, char *why, size_t why_size, const char **hint)
{
	if (s->auth_if_asked && !h->asked_who && strncmp(r->str, "NOAUTH", 6) == 0)
		h->asked_who = true;
	/* What does not know AUTH repeats what came with it, after a comma. */
	int n = step == STEP_AUTH ? (int)strcspn(r->str, ",`'\"") : INT_MAX;
	snprintf(why, why_size, "%.*s", n, r->str);
	*hint = redis_error_hint(why);
	if (!*hint)
		*hint = REDIS_SEE_LOG;
	return false;
}

static bool is_good(const struct redis_conn_settings *s, enum step step, const redisReply *r)
{
	switch (step) {
	case STEP_AUTH:
	case STEP_SELECT:
		return is_text(r, "OK");
	case STEP_ROLE:
		return r->type == REDIS_REPLY_ARRAY && r->elements > 0;
	case STEP_SCRIPT:
		return is_text(r, s->sha1);
	case STEP_PING:
		return is_text(r, "PONG");
	}
	return false;
}

bool redis_handshake_reply(struct redis_handshake *h, const struct redis_conn_settings *s,
	const redisReply *r, char *why, size_t why_size, const char **hint)
{
	enum step step = (enum step)h->step[h->at++];

	if (r->type == REDIS_REPLY_ERROR)
		return is_refused(h, s, step, r, why, why_size, hint);
	if (!is_good(s, step, r)) {
		snprintf(why, why_size, "it does not answer as Redis does");
		*hint = "is it Redis that listens at redis.servers?";
		return false;
	}
	if (step == STEP_ROLE && !is_text(r->element[0], "master")) {
		snprintf(why, why_size, "it is no master");
		*hint = "a failover may be under way";
		return false;
	}
	return true;
}

bool redis_handshake_is_done(const struct redis_handshake *h)
{
	return h->at == h->n;
}
