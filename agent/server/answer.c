#include "server/answer.h"

#include "spop/value.h"

#include <assert.h>
#include <math.h>

/* What the variables are taken from. */
struct source {
	const struct policy *policy;
	const struct plan *plan;
	const struct decision *d;
};

struct text {
	char bytes[8192]; /* PLAN_MAX limits with the longest labels, quoted, in `policy` fit */
	size_t n;
};

enum { TAG_BYTES_MAX = 255 };

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
	/* Of a quotient of doubles that ought to be whole; more than a millisecond is no noise. */
	const double noise = 1e-9, noise_max = 1e-3;
	const double longest = 999999999999999; /* RFC 9651: what an Integer can hold */
	usec_t start, end, length = q->window.length;

	if (q->window.kind == WINDOW_MONTH) {
		window_bounds(&q->window, now.utc + now.held, &start, &end);
		length = end - start;
	}
	double seconds = (double)q->capacity * (double)length / (double)q->units /
			 (double)USEC_PER_SEC;
	if (seconds > longest)
		return (int64_t)longest;
	return seconds < 1 ? 1 : (int64_t)ceil(seconds - fmin(seconds * noise, noise_max));
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
		say_number(t, seconds_to_fill(&l->quota, s->plan->now));
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

/* A short text in memory that may be read beyond its end, up to NAME_BLOCK: it is copied whole. */
struct name {
	const char *p;
	size_t n;
};

enum { NAME_BLOCK = 16 };

static struct name reason_text(enum reason reason)
{
	static const struct {
		char text[NAME_BLOCK];
		size_t n;
	} list[] = {
#define X(name, text) [REASON_##name] = { text, sizeof text - 1 },
		REASONS(X)
#undef X
	};
	return (struct name){ list[reason].text, list[reason].n };
}

static struct name rule_name(const struct rule *r)
{
	return (struct name){ r->name, r->name_length };
}

/* One function for each variable of the table. What ends in a header was cleaned where it came in:
 * names by the configuration, a tier by policy_plan(). */

static bool value_of_deny(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->deny;
}

static bool value_of_warn(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->warn;
}

static int64_t value_of_retry_after(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->retry_after;
}

static int64_t value_of_limit(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->limit;
}

static int64_t value_of_remaining(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->remaining;
}

static int64_t value_of_reset(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->reset;
}

static int64_t value_of_reset_at(const struct source *s, struct text *t)
{
	(void)t;
	return (s->d->reset_at + USEC_PER_SEC - 1) / USEC_PER_SEC;
}

static struct name value_of_reason(const struct source *s, struct text *t)
{
	(void)t;
	return reason_text(s->d->reason);
}

static struct name value_of_rule(const struct source *s, struct text *t)
{
	(void)t;
	return rule_name(s->d->reported->limit->rule);
}

static struct name value_of_tier(const struct source *s, struct text *t)
{
	(void)t;
	return (struct name){ s->plan->tier, s->plan->tier_length };
}

static struct name value_of_shadow(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->shadow ? rule_name(s->d->shadow) : (struct name){ 0 };
}

static struct str value_of_algorithm(const struct source *s, struct text *t)
{
	(void)t;
	return algorithm_text(s->d->reported->limit->quota.algorithm);
}

static struct str value_of_tag(const struct source *s, struct text *t)
{
	(void)t;
	struct str tag = s->d->tag ? str_of(s->d->tag->tag) : STR("");
	return (struct str){ tag.p, tag.n < TAG_BYTES_MAX ? tag.n : TAG_BYTES_MAX };
}

static struct str value_of_scope(const struct source *s, struct text *t)
{
	t->n = take_scope(s->policy, s->d->reported, t->bytes, sizeof t->bytes);
	return (struct str){ t->bytes, t->n };
}

static struct str value_of_policy(const struct source *s, struct text *t)
{
	t->n = 0;
	return policy_text(s, t);
}

static struct str value_of_ratelimit(const struct source *s, struct text *t)
{
	t->n = 0;
	return ratelimit_text(s, t);
}

/* Which there is something to say of. Without a reported limit only the decision itself, when a ban
 * ends, and what a rule in the shadows or a warning adds. */
static uint32_t there_are(const struct decision *d)
{
	if (d->reported)
		return ~0u;
	return 1u << ANSWER_deny | 1u << ANSWER_reason | 1u << ANSWER_tier |
	       (uint32_t)(d->reason == REASON_BANNED) << ANSWER_retry_after |
	       (uint32_t)d->warn << ANSWER_warn | (uint32_t)(d->shadow != NULL) << ANSWER_shadow |
	       (uint32_t)(d->tag != NULL) << ANSWER_tag;
}

void answer_put_ack(struct wire_writer *w)
{
	action_set_bool(w, SCOPE_TXN, STR("ack"), true);
}

#define put_bool(p, name, v) action_put_bool(p, SCOPE_TXN, name, v)
#define put_int(p, name, v)  action_put_int(p, SCOPE_TXN, name, v)
#define put_str(p, name, v)  action_put_str(p, SCOPE_TXN, name, v)

/* A call of memcpy() for a few bytes takes longer than sixteen of them. */
static inline uint8_t *put_short(uint8_t *p, struct name v)
{
	static_assert(RULE_NAME_MAX < 240 && TIER_NAME_MAX < 240, "a varint of one byte");

	*p++ = (uint8_t)v.n;
	if (v.n > NAME_BLOCK)
		memcpy(p, v.p, v.n);
	else if (v.n)
		memcpy(p, v.p, NAME_BLOCK);
	return p + v.n;
}

static inline uint8_t *put_name(uint8_t *p, struct str name, struct name v)
{
	return put_short(action_put_head(p, SCOPE_TXN, name, VALUE_STRING), v);
}

/* Straight through the table, without looking at the end: `p` has room for all of it. ends[i] is
 * where the i-th that was put ends; returns how many were. */
static unsigned put_vars(
	uint8_t *p, uint32_t vars, const struct source *s, uint8_t *ends[ANSWER_COUNT])
{
	struct text t;
	unsigned n = 0;

#define X(name, type, by_default, meaning) \
	if (vars & 1u << ANSWER_##name) { \
		p = put_##type(p, STR(#name), value_of_##name(s, &t)); \
		ends[n++] = p; \
	}
	ANSWER_VARS(X)
#undef X
	return n;
}

/* ---- most answers: all is well, and a limit is told of ---- */

#define VAR(name)        (1u << ANSWER_##name)
#define BEFORE_REMAINING (VAR(deny) | VAR(reason) | VAR(retry_after) | VAR(limit))
#define AFTER_RESET      (VAR(rule) | VAR(tier) | VAR(scope) | VAR(warn) | VAR(shadow) | VAR(tag))
#define AFTER_FORM       (VAR(reset_at) | VAR(algorithm) | VAR(policy) | VAR(ratelimit))

static_assert(ANSWER_remaining == ANSWER_limit + 1 && ANSWER_reset == ANSWER_remaining + 1 &&
		      ANSWER_rule == ANSWER_reset + 1 && ANSWER_reset_at == ANSWER_tag + 1 &&
		      ANSWER_COUNT == ANSWER_reset_at + 4,
	"what form_make() and form_put() take for the table's order");

/* The longest that any of its pieces may come to. */
enum { FORM_BYTES_MAX = 2048 };
static_assert(FORM_BYTES_MAX > PER_MAX * (FIELD_NAME_MAX + 1) + 128 + RULE_NAME_MAX +
				       TIER_NAME_MAX + TAG_BYTES_MAX,
	"rule, tier, scope, tag");

static bool has_form(const struct decision *d)
{
	return d->reported && d->reason == REASON_OK && !d->warn && !d->shadow && !d->tag;
}

static __attribute__((noinline)) uint8_t *put_some(
	uint8_t *p, uint32_t vars, const struct source *s)
{
	uint8_t *ends[ANSWER_COUNT];
	unsigned n = put_vars(p, vars, s, ends);

	return n ? ends[n - 1] : p;
}

/* Piece by piece: up to the value of `remaining`, of `reset`, and what follows that. false: names
 * too long for it. */
static __attribute__((noinline)) bool form_make(
	struct answer_form *f, uint32_t vars, const struct source *s)
{
	uint8_t bytes[ANSWER_PIECES][FORM_BYTES_MAX];
	uint8_t *end[ANSWER_PIECES] = {
		put_some(bytes[0], vars & BEFORE_REMAINING, s),
		bytes[1],
		put_some(bytes[2], vars & AFTER_RESET, s),
	};
	if (vars & VAR(remaining))
		end[0] = action_put_head(end[0], SCOPE_TXN, STR("remaining"), VALUE_INT64);
	if (vars & VAR(reset))
		end[1] = action_put_head(end[1], SCOPE_TXN, STR("reset"), VALUE_INT64);

	f->limit = NULL;
	for (unsigned i = 0; i < ANSWER_PIECES; i++) {
		f->n[i] = (uint32_t)(end[i] - bytes[i]);
		if (f->n[i] > PIECE_BYTES)
			return false;
		memcpy(f->piece[i], bytes[i], f->n[i]);
	}
	f->limit = s->d->reported->limit;
	f->per_found = s->d->reported->per_found;
	f->vars = vars;
	f->tier_number = s->plan->tier_number;
	f->tier_length = s->plan->tier_length;
	memcpy(f->tier, s->plan->tier, f->tier_length);
	return true;
}

static inline struct answer_form *form_of(struct answer_forms *forms, const struct limit *l)
{
	return &forms->form[(uintptr_t)l / sizeof *l % ANSWER_FORMS];
}

static inline bool form_is_for(const struct answer_form *f, uint32_t vars, const struct source *s)
{
	const struct take *t = s->d->reported;

	return f->limit == t->limit && f->per_found == t->per_found && f->vars == vars &&
	       f->tier_number == s->plan->tier_number &&
	       (f->tier_number >= 0 ||
		       str_eq((struct str){ f->tier, f->tier_length },
			       (struct str){ s->plan->tier, s->plan->tier_length }));
}

/* By blocks, the last of which may go beyond its end: a call of memcpy() for a few bytes takes
 * longer than copying thirty-two. */
static inline uint8_t *put_piece(uint8_t *p, const uint8_t *piece, uint32_t n)
{
	enum { BLOCK = 32 };
	static_assert(PIECE_BYTES % BLOCK == 0, "read in whole blocks");
	uint8_t *end = p + n;

	do {
		memcpy(p, piece, BLOCK);
		p += BLOCK;
		piece += BLOCK;
	} while (p < end);
	return end;
}

static inline uint8_t *form_put(
	uint8_t *p, const struct answer_form *f, uint32_t vars, const struct decision *d)
{
	p = put_piece(p, f->piece[0], f->n[0]);
	if (vars & VAR(remaining))
		p = varint_put(p, (uint64_t)d->remaining);
	p = put_piece(p, f->piece[1], f->n[1]);
	if (vars & VAR(reset))
		p = varint_put(p, (uint64_t)d->reset);
	return put_piece(p, f->piece[2], f->n[2]);
}

/* Where there is room for all of them, or for some. Returns how many had none. */
static __attribute__((noinline)) unsigned put_each(
	struct wire_writer *w, uint32_t vars, const struct source *s)
{
	const size_t room = wire_room(w);
	uint8_t *ends[ANSWER_COUNT], bytes[ANSWER_BYTES_MAX];
	uint8_t *begin = room < ANSWER_BYTES_MAX ? bytes : w->p;
	unsigned n = put_vars(begin, vars, s, ends), dropped = 0;

	while (n && (size_t)(ends[n - 1] - begin) > room) {
		n--;
		dropped++;
	}
	if (!n)
		answer_put_ack(w);
	else if (begin == bytes)
		wire_put_bytes(w, bytes, (size_t)(ends[n - 1] - bytes));
	else
		w->p = ends[n - 1];
	return dropped;
}

unsigned answer_put(struct wire_writer *w, struct answer_forms *forms, uint32_t wanted,
	const struct policy *policy, const struct plan *plan, const struct decision *d)
{
	const struct source s = { policy, plan, d };
	uint32_t vars = wanted & there_are(d);

	if (wire_room(w) < ANSWER_BYTES_MAX || !vars || !has_form(d))
		return put_each(w, vars, &s);
	struct answer_form *f = form_of(forms, d->reported->limit);
	if (!form_is_for(f, vars, &s) && !form_make(f, vars, &s))
		return put_each(w, vars, &s);
	w->p = form_put(w->p, f, vars, d);
	if (vars & AFTER_FORM)
		w->p = put_some(w->p, vars & AFTER_FORM, &s);
	return 0;
}
