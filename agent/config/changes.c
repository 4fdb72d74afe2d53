#include "config/changes.h"

#include "base/err.h"
#include "base/hash.h"
#include "config/rate.h"
#include "limit/override.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static_assert((int)CHANGES_MAX <= (int)OVERRIDES_MAX, "all of them may be overrides");

/* By name, in order. */
struct change {
	char *name;    /* owned */
	json_t *value; /* a reference */
	int64_t until; /* INT64_MAX: it does not end */
};

struct changes {
	struct change *v; /* owned */
	size_t n, cap;
};

struct changes *changes_new(void)
{
	return calloc(1, sizeof(struct changes));
}

void changes_free(struct changes *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n; i++) {
		free(c->v[i].name);
		json_decref(c->v[i].value);
	}
	free(c->v);
	free(c);
}

/* ---- what a change may be ---- */

static const char *const mode_name[] = { "enforce", "shadow", "off" }; /* as enum rule_mode */

int change_mode(const char *text)
{
	for (int i = 0; text && i < 3; i++)
		if (strcmp(text, mode_name[i]) == 0)
			return i;
	return -1;
}

static bool is_rate(json_t *v, char *err, size_t err_size)
{
	char why[320];
	struct rate rate;

	if (!json_is_string(v))
		return err_say(err, err_size, "want a rate like \"100/minute\"");
	if (!rate_parse((struct str){ json_string_value(v), json_string_length(v) }, &rate, why,
		    sizeof why))
		return err_say(err, err_size, "rate \"%s\": %s", json_string_value(v), why);
	return true;
}

static bool rates_check(json_t *rates, char *err, size_t err_size)
{
	const char *rule;
	json_t *v, *one;
	size_t i;

	if (!json_is_object(rates) || json_object_size(rates) == 0)
		return err_say(err, err_size, "rates: want {\"RULE\": \"100/minute\"}");
	json_object_foreach(rates, rule, v)
	{
		if (!json_is_array(v)) {
			if (!is_rate(v, err, err_size))
				return false;
			continue;
		}
		if (json_array_size(v) < 1 || json_array_size(v) > PLAN_MAX)
			return err_say(err, err_size, "rule \"%s\": %zu rates, want 1 to %d", rule,
				json_array_size(v), PLAN_MAX);
		json_array_foreach(v, i, one)
		{
			if (!is_rate(one, err, err_size))
				return false;
		}
	}
	return true;
}

static bool is_clean(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 127)
			return false;
	return true;
}

/* Exactly one of what an override can say. */
static bool override_check(json_t *value, char *err, size_t err_size)
{
	static const char want[] =
		"want one of \"tier\": NAME, \"rates\": {RULE: RATE}, \"bypass\": true, \"block\": true";
	json_t *tier = json_object_get(value, "tier"), *rates = json_object_get(value, "rates");
	json_t *bypass = json_object_get(value, "bypass"), *block = json_object_get(value, "block");

	if (!!tier + !!rates + !!bypass + !!block != 1)
		return err_say(err, err_size, "%s", want);
	if (tier) {
		size_t n = json_is_string(tier) ? json_string_length(tier) : 0;
		if (n < 1 || n > TIER_NAME_MAX || strlen(json_string_value(tier)) != n)
			return err_say(
				err, err_size, "tier: want a name of 1 to %d bytes", TIER_NAME_MAX);
		if (!is_clean((struct str){ json_string_value(tier), n }))
			return err_say(err, err_size, "tier: control characters are not for names");
		return true;
	}
	if (rates)
		return rates_check(rates, err, err_size);
	if (!json_is_true(bypass ? bypass : block))
		return err_say(err, err_size, "%s", want);
	return true;
}

static bool rule_name_check(const char *rule, char *err, size_t err_size)
{
	if (strlen(rule) <= RULE_NAME_MAX)
		return true;
	return err_say(err, err_size, "no rule has a name of more than %d bytes", RULE_NAME_MAX);
}

static bool reset_check(json_t *value, char *err, size_t err_size)
{
	json_t *keys = json_object_get(value, "keys"), *v;
	size_t n = json_array_size(keys), i;
	struct key k;

	json_array_foreach(keys, i, v) n -= key_parse(json_string_value(v), &k);
	if (!i || i > RESET_KEYS_MAX || n || !json_is_integer(json_object_get(value, "at")))
		return err_say(err, err_size, "want \"keys\" of counters, and \"at\"");
	return true;
}

static bool kind_check(const char *name, json_t *value, char *err, size_t err_size)
{
	if (strncmp(name, "switch:", 7) == 0) {
		const char *mode = json_string_value(json_object_get(value, "mode"));
		if (change_mode(mode) < 0)
			return err_say(err, err_size, "mode: want enforce, shadow or off");
		return rule_name_check(name + 7, err, err_size);
	}
	if (strncmp(name, "epoch:", 6) == 0) {
		json_t *epoch = json_object_get(value, "epoch");
		if (!json_is_integer(epoch) || json_integer_value(epoch) < 0 ||
			json_integer_value(epoch) > UINT32_MAX)
			return err_say(err, err_size, "epoch: want an integer");
		return rule_name_check(name + 6, err, err_size);
	}
	if (strncmp(name, "reset:", 6) == 0)
		return reset_check(value, err, err_size);
	if (strncmp(name, "override:", 9) == 0) {
		const char *by = name + 9, *colon = strchr(by, ':');
		char kind[8] = "", canonical[CHANGE_NAME_MAX];
		if (colon && (size_t)(colon - by) < sizeof kind)
			memcpy(kind, by, (size_t)(colon - by));
		if (!colon)
			return err_say(err, err_size,
				"want override:user:NAME, override:key:… or "
				"override:ip:CIDR");
		if (!change_subject(kind, str_of(colon + 1), false, canonical, err, err_size))
			return false;
		if (strcmp(canonical, by) != 0)
			return err_say(
				err, err_size, "\"%.300s\": want override:%s", name, canonical);
		return override_check(value, err, err_size);
	}
	return err_say(err, err_size, "\"%.64s\": no change is called so", name);
}

static bool text_member_check(
	json_t *value, const char *member, size_t max, char *err, size_t err_size)
{
	json_t *v = json_object_get(value, member);

	if (!v)
		return true;
	if (!json_is_string(v) || json_string_length(v) > max)
		return err_say(err, err_size, "%s: want a text of at most %zu bytes", member, max);
	return true;
}

/* Else it would hold, and neither be kept nor shown. */
static bool is_utf8(const char *name)
{
	json_t *as_json = json_string(name);

	json_decref(as_json);
	return as_json != NULL;
}

bool change_format_is_known(json_t *value, char *err, size_t err_size)
{
	json_t *format = json_object_get(value, "format");

	if (!format || (json_is_integer(format) && json_integer_value(format) == CHANGE_FORMAT))
		return true;
	return err_say(err, err_size,
		"its format is not %d, which is what this release knows: it is left as it is",
		CHANGE_FORMAT);
}

static bool check(const char *name, json_t *value, char *err, size_t err_size)
{
	json_t *until = json_object_get(value, "until");

	if (!json_is_object(value))
		return err_say(err, err_size, "want a JSON object");
	if (!change_format_is_known(value, err, err_size))
		return false;
	if (strlen(name) >= CHANGE_NAME_MAX)
		return err_say(err, err_size, "its name is too long");
	if (!is_utf8(name))
		return err_say(err, err_size, "its name is no UTF-8");
	if (json_dumpb(value, NULL, 0, JSON_COMPACT) > CHANGE_TEXT_MAX)
		return err_say(err, err_size, "more than %d bytes", CHANGE_TEXT_MAX);
	if (until && (!json_is_integer(until) || json_integer_value(until) <= 0))
		return err_say(err, err_size, "until: want an instant in Unix seconds");
	return text_member_check(value, "reason", CHANGE_REASON_MAX, err, err_size) &&
	       text_member_check(value, "who", 100, err, err_size) &&
	       kind_check(name, value, err, err_size);
}

/* "sha256:HEX" of what is said, or as it is said. false: it begins so, and is none. */
static bool put_hash(struct str value, char out[7 + SHA256_HEX_BYTES + 1])
{
	char hex[SHA256_HEX_BYTES];

	switch (hash_said(value, hex)) {
	case HASH_SAID_BADLY:
		return false;
	case HASH_NOT_SAID:
		hash_sha256_hex(value, hex);
		break;
	case HASH_SAID:
		break;
	}
	(void)snprintf(out, 7 + SHA256_HEX_BYTES + 1, "sha256:%.*s", SHA256_HEX_BYTES, hex);
	return true;
}

/* "sha256:HEX/24" */
static bool ip_hash_subject(struct str value, char out[CHANGE_NAME_MAX], char *err, size_t err_size)
{
	const char *slash = memchr(value.p, '/', value.n);
	char hex[SHA256_HEX_BYTES];
	size_t n = slash ? (size_t)(slash - value.p) : value.n, left = slash ? value.n - n - 1 : 0;
	unsigned v = 0;

	bool good = left && left <= 3 && /* digits */
		    hash_said((struct str){ value.p, n }, hex) == HASH_SAID;
	for (size_t i = 0; good && i < left; i++) {
		good = slash[1 + i] >= '0' && slash[1 + i] <= '9' && !(i && slash[1] == '0');
		v = 10 * v + (unsigned)(slash[1 + i] - '0');
	}
	if (!good || v > 128)
		return err_say(err, err_size,
			"ip: want 64 hex digits after sha256:, and the length of the prefix, as in "
			"sha256:HEX/32");
	(void)snprintf(out, CHANGE_NAME_MAX, "ip:sha256:%.*s/%u", SHA256_HEX_BYTES, hex, v);
	return true;
}

static bool ip_subject(
	struct str value, bool secret, char out[CHANGE_NAME_MAX], char *err, size_t err_size)
{
	char text[ADDR_TEXT_MAX + 4], hex[SHA256_HEX_BYTES];
	const char *why;
	struct cidr c;

	if (hash_said(value, hex) != HASH_NOT_SAID)
		return ip_hash_subject(value, out, err, err_size);
	if (!cidr_parse(value, &c, &why))
		return err_say(err, err_size, "ip: %s", why);
	if (secret) {
		override_ip_hash(&c, hex);
		(void)snprintf(out, CHANGE_NAME_MAX, "ip:sha256:%.*s/%u", SHA256_HEX_BYTES, hex,
			(unsigned)c.prefix);
		return true;
	}
	size_t n = addr_format(&c.addr, text);
	(void)snprintf(out, CHANGE_NAME_MAX, "ip:%.*s/%u", (int)n, text, (unsigned)c.prefix);
	return true;
}

bool change_subject(const char *by, struct str value, bool secret, char out[CHANGE_NAME_MAX],
	char *err, size_t err_size)
{
	char hash[7 + SHA256_HEX_BYTES + 1], digits[SHA256_HEX_BYTES];
	bool key = strcmp(by, "key") == 0;

	if (value.n == 0 || value.n > 255)
		return err_say(err, err_size, "%s: want 1 to 255 bytes", by);
	if (!key && !is_clean(value))
		return err_say(err, err_size, "%s: control characters are not for names", by);
	if (strcmp(by, "ip") == 0)
		return ip_subject(value, secret, out, err, err_size);
	if (!key && strcmp(by, "user") != 0)
		return err_say(err, err_size, "\"%.32s\": want user, key or ip", by);
	if (!key && !secret && hash_said(value, digits) != HASH_SAID) {
		(void)snprintf(out, CHANGE_NAME_MAX, "user:%.*s", (int)value.n, value.p);
		return true;
	}
	if (!put_hash(value, hash))
		return err_say(err, err_size, "%s: %s", by, HASH_SAID_WANTED);
	(void)snprintf(out, CHANGE_NAME_MAX, "%s:%s", by, hash);
	return true;
}

/* ---- resets ---- */

/* Of all of them: they are hashes already. Another reset that has only the first in common must not
 * take this one's place. */
void change_reset_name(const struct key *k, unsigned n, char out[CHANGE_NAME_MAX])
{
	char hex[KEY_HEX_BYTES + 1];
	struct key all = { 0 };

	for (unsigned i = 0; i < n; i++) {
		all.a += k[i].a;
		all.b += k[i].b;
	}
	key_format(&all, hex);
	(void)snprintf(out, CHANGE_NAME_MAX, "reset:%s", hex);
}

json_t *change_reset(const struct key *key, unsigned n, usec_t at)
{
	json_t *keys = json_array();
	char hex[KEY_HEX_BYTES + 1];
	bool all = keys;

	for (unsigned i = 0; i < n && all; i++) {
		key_format(&key[i], hex);
		all = json_array_append_new(keys, json_string(hex)) == 0;
	}
	if (!all) {
		json_decref(keys);
		return NULL;
	}
	return json_pack("{s:o, s:I}", "keys", keys, "at", (json_int_t)at);
}

unsigned change_reset_keys(json_t *value, struct key out[RESET_KEYS_MAX])
{
	json_t *keys = json_object_get(value, "keys"), *v;
	unsigned n = 0;
	size_t i;

	json_array_foreach(keys, i, v)
	{
		if (n < RESET_KEYS_MAX && key_parse(json_string_value(v), &out[n]))
			n++;
	}
	return n;
}

/* ---- the list ---- */

/* Where it is, or belongs. */
static size_t place_of(const struct changes *c, const char *name, bool *found)
{
	size_t low = 0, high = c->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(c->v[middle].name, name);
		if (order == 0) {
			*found = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*found = false;
	return low;
}

/* There is room. */
static void insert_at(struct changes *c, size_t at, struct change change)
{
	memmove(&c->v[at + 1], &c->v[at], (c->n - at) * sizeof *c->v);
	c->v[at] = change;
	c->n++;
}

static int64_t until_of(json_t *value)
{
	json_t *until = json_object_get(value, "until");

	return until ? json_integer_value(until) : INT64_MAX;
}

static bool insert(struct changes *c, size_t at, const char *name)
{
	if (c->n == c->cap) {
		size_t cap = c->cap ? 2 * c->cap : 16;
		struct change *grown = realloc(c->v, cap * sizeof *grown);
		if (!grown)
			return false;
		c->v = grown;
		c->cap = cap;
	}
	char *kept = strdup(name);
	if (!kept)
		return false;
	insert_at(c, at, (struct change){ .name = kept });
	return true;
}

bool changes_put(struct changes *c, const char *name, json_t *value, char *err, size_t err_size)
{
	bool found;

	if (!check(name, value, err, err_size))
		return false;
	size_t at = place_of(c, name, &found);
	if (!found && c->n == CHANGES_MAX)
		return err_say(
			err, err_size, "there are %d changes already: remove some", CHANGES_MAX);
	if (!found && !insert(c, at, name))
		return err_say(err, err_size, "out of memory");
	json_decref(c->v[at].value);
	c->v[at].value = json_incref(value);
	c->v[at].until = until_of(value);
	return true;
}

bool changes_put_text(
	struct changes *c, const char *name, struct str json, char *err, size_t err_size)
{
	json_error_t e;

	if (json.n > 2 * CHANGE_TEXT_MAX) /* written as wide as can be */
		return err_say(err, err_size, "more than %d bytes", CHANGE_TEXT_MAX);
	json_t *value = json_loadb(json.p, json.n, JSON_REJECT_DUPLICATES, &e);
	if (!value)
		return err_say(err, err_size, "no JSON: %s (byte %d)", e.text, e.position);
	bool put = changes_put(c, name, value, err, err_size);
	json_decref(value);
	return put;
}

static struct change_out take_at(struct changes *c, size_t at)
{
	struct change_out out = { c->v[at].name, c->v[at].value };

	memmove(&c->v[at], &c->v[at + 1], (c->n - at - 1) * sizeof *c->v);
	c->n--;
	return out;
}

static void remove_at(struct changes *c, size_t at)
{
	struct change_out out = take_at(c, at);

	change_out_fini(&out);
}

void change_out_fini(struct change_out *out)
{
	free(out->name);
	json_decref(out->value);
	*out = (struct change_out){ 0 };
}

void changes_take(struct changes *c, const char *name, struct change_out *out)
{
	bool found;
	size_t at = place_of(c, name, &found);

	*out = found ? take_at(c, at) : (struct change_out){ 0 };
}

void changes_put_back(struct changes *c, const char *name, struct change_out *out)
{
	bool found;

	(void)changes_remove(c, name);
	if (!out->name)
		return;
	insert_at(c, place_of(c, name, &found),
		(struct change){ out->name, out->value, until_of(out->value) });
	*out = (struct change_out){ 0 };
}

bool changes_remove(struct changes *c, const char *name)
{
	bool found;
	size_t at = place_of(c, name, &found);

	if (found)
		remove_at(c, at);
	return found;
}

void changes_each(const struct changes *c, const char *prefix,
	void (*each)(void *with, const char *name, json_t *value), void *with)
{
	bool found;
	size_t n = strlen(prefix);

	for (size_t i = place_of(c, prefix, &found);
		i < c->n && strncmp(c->v[i].name, prefix, n) == 0; i++)
		each(with, c->v[i].name, c->v[i].value);
}

size_t changes_after(const struct changes *c, const char *name, size_t n,
	void (*each)(void *with, const char *name, json_t *value), void *with)
{
	bool found;
	size_t from = place_of(c, name, &found) + found;
	size_t to = n < c->n - from ? from + n : c->n;

	for (size_t i = from; i < to; i++)
		each(with, c->v[i].name, c->v[i].value);
	return to - from;
}

json_t *changes_get(const struct changes *c, const char *name)
{
	bool found;
	size_t at = place_of(c, name, &found);

	return found ? c->v[at].value : NULL;
}

size_t changes_count(const struct changes *c)
{
	return c->n;
}

int64_t changes_next_end(const struct changes *c)
{
	int64_t next = INT64_MAX;

	for (size_t i = 0; i < c->n; i++)
		next = c->v[i].until < next ? c->v[i].until : next;
	return next;
}

size_t changes_end(struct changes *c, int64_t now,
	void (*ended)(void *with, const char *name, json_t *value), void *with)
{
	size_t before = c->n;

	for (size_t i = c->n; i-- > 0;) {
		if (c->v[i].until > now)
			continue;
		if (ended)
			ended(with, c->v[i].name, c->v[i].value);
		remove_at(c, i);
	}
	return before - c->n;
}
