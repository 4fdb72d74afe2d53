#include "server/answer.h"

#include "spop/value.h"

#include <math.h>

/* What the variables are taken from. */
struct source {
	const struct policy *policy;
	const struct plan *plan;
	const struct decision *d;
	struct now now;
};

struct text {
	char bytes[8192]; /* PLAN_MAX limits with the longest labels, quoted, in `policy` fit */
	size_t n;
};

static void say(struct text *t, const char *p, size_t n)
{
	if (n > sizeof t->bytes - t->n)
		n = sizeof t->bytes - t->n;
	memcpy(t->bytes + t->n, p, n);
	t->n += n;
}

static void say_number(struct text *t, int64_t v)
{
	char digits[20], *p = digits + sizeof digits;
	do
		*--p = (char)('0' + v % 10);
	while (v /= 10);
	say(t, p, (size_t)(digits + sizeof digits - p));
}

/* RFC 9651 section 3.3.3 */
static void say_quoted(struct text *t, const char *z)
{
	say(t, "\"", 1);
	for (; *z; z++) {
		if (*z == '"' || *z == '\\')
			say(t, "\\", 1);
		say(t, z, 1);
	}
	say(t, "\"", 1);
}

/* Seconds from empty to full: capacity / rate, rounded up; of a window its own length. */
static int64_t seconds_to_fill(const struct quota *q, struct now now)
{
	const double noise = 1e-9; /* of a quotient of doubles that ought to be whole */
	usec_t start, end, length = q->window.length;

	if (q->window.kind == WINDOW_MONTH) {
		window_bounds(&q->window, now.utc, &start, &end);
		length = end - start;
	}
	double seconds = (double)q->capacity * (double)length / (double)q->units /
			 (double)USEC_PER_SEC;
	return seconds < 1 ? 1 : (int64_t)ceil(seconds * (1 - noise));
}

/* RateLimit-Policy, draft-ietf-httpapi-ratelimit-headers-11: all limits that apply. */
static struct str policy_text(const struct source *s, struct text *t)
{
	for (unsigned i = 0; i < s->plan->n; i++) {
		const struct limit *l = s->plan->take[i].limit;
		if (l->rule->mode == MODE_SHADOW || l->quota.capacity == 0)
			continue;
		if (t->n)
			say(t, ", ", 2);
		say_quoted(t, l->label);
		say(t, ";q=", 3);
		say_number(t, l->quota.capacity);
		say(t, ";w=", 3);
		say_number(t, seconds_to_fill(&l->quota, s->now));
	}
	return (struct str){ t->bytes, t->n };
}

/* RateLimit of the same draft: the reported limit. */
static struct str ratelimit_text(const struct source *s, struct text *t)
{
	say_quoted(t, s->d->reported->limit->label);
	say(t, ";r=", 3);
	say_number(t, s->d->remaining);
	say(t, ";t=", 3);
	say_number(t, s->d->reset);
	return (struct str){ t->bytes, t->n };
}

static struct str algorithm_text(enum algorithm a)
{
	switch (a) {
	case ALGORITHM_TOKEN_BUCKET:
		return STR("token-bucket");
	case ALGORITHM_SLIDING_WINDOW:
		return STR("sliding-window");
	case ALGORITHM_FIXED_WINDOW:
		return STR("fixed-window");
	}
	return STR("");
}

static struct str scope_text(const struct source *s, struct text *t)
{
	t->n = take_scope(s->policy, s->d->reported, t->bytes, sizeof t->bytes);
	return (struct str){ t->bytes, t->n };
}

/* Is there something to say? Without a reported limit only the decision itself, and what a rule in
 * the shadows or a warning adds. */
static bool has_var(const struct source *s, enum answer_var var)
{
	switch (var) {
	case ANSWER_deny:
	case ANSWER_reason:
	case ANSWER_tier:
		return true;
	case ANSWER_warn:
		return s->d->reported || s->d->warn;
	case ANSWER_shadow:
		return s->d->reported || s->d->shadow;
	case ANSWER_tag:
		return s->d->reported || s->d->tag;
	default:
		return s->d->reported;
	}
}

static void put_var(struct wire_writer *w, const struct source *s, enum answer_var var)
{
	const struct decision *d = s->d;
	struct text t;

	t.n = 0;
#define PUT(kind, name, value) action_set_##kind(w, SCOPE_TXN, STR(#name), value)
	switch (var) {
	case ANSWER_deny:
		PUT(bool, deny, d->deny);
		return;
	case ANSWER_reason:
		PUT(str, reason, str_of(reason_name(d->reason)));
		return;
	case ANSWER_retry_after:
		PUT(int, retry_after, d->retry_after);
		return;
	case ANSWER_limit:
		PUT(int, limit, d->limit);
		return;
	case ANSWER_remaining:
		PUT(int, remaining, d->remaining);
		return;
	case ANSWER_reset:
		PUT(int, reset, d->reset);
		return;
	case ANSWER_rule:
		PUT(str, rule, str_of(d->reported->limit->rule->name));
		return;
	case ANSWER_tier:
		PUT(str, tier, ((struct str){ s->plan->tier, s->plan->tier_length }));
		return;
	case ANSWER_scope:
		PUT(str, scope, scope_text(s, &t));
		return;
	case ANSWER_warn:
		PUT(bool, warn, d->warn);
		return;
	case ANSWER_shadow:
		PUT(str, shadow, d->shadow ? str_of(d->shadow->name) : STR(""));
		return;
	case ANSWER_tag:
		PUT(str, tag, d->tag ? str_of(d->tag->tag) : STR(""));
		return;
	case ANSWER_reset_at:
		PUT(int, reset_at, d->reset_at);
		return;
	case ANSWER_algorithm:
		PUT(str, algorithm, algorithm_text(d->reported->limit->quota.algorithm));
		return;
	case ANSWER_policy:
		PUT(str, policy, policy_text(s, &t));
		return;
	case ANSWER_ratelimit:
		PUT(str, ratelimit, ratelimit_text(s, &t));
		return;
	case ANSWER_COUNT:
		return;
	}
#undef PUT
}

void answer_put_ack(struct wire_writer *w)
{
	action_set_bool(w, SCOPE_TXN, STR("ack"), true);
}

unsigned answer_put(struct wire_writer *w, uint32_t wanted, const struct policy *policy,
	const struct plan *plan, const struct decision *d, struct now now)
{
	struct source s = { policy, plan, d, now };
	const uint8_t *begin = w->p;
	unsigned dropped = 0;

	for (unsigned var = 0; var < ANSWER_COUNT; var++) {
		if (!(wanted >> var & 1) || !has_var(&s, var))
			continue;
		uint8_t *back = w->p;
		if (!dropped)
			put_var(w, &s, var);
		if (dropped || w->bad) {
			w->p = back;
			w->bad = false;
			dropped++;
		}
	}
	if (w->p == begin)
		answer_put_ack(w);
	return dropped;
}
