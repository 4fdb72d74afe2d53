/* What the words of a command say: fields of a request, whom a change is for, how long, how many.
 */
#include "base/hash.h"
#include "config/rate.h"
#include "ctl/ctl.h"
#include "ctl/text.h"

#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { VALUE_MAX = 16 * 1024 };

/* A line of standard input; from a person at a terminal, unseen. */
static bool read_secret(const char *name, char *out, size_t size)
{
	struct termios was, quiet;
	bool person = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &was) == 0;

	if (person) {
		quiet = was;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		(void)fprintf(stderr, "%s: ", name);
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
	}
	long n = ctl_read_line(stdin, out, size);
	if (person) {
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &was);
		(void)fputc('\n', stderr);
	}
	if (n < 0)
		(void)ctl_fail(0,
			"%s=-: want its value as a line of standard input, less than %d bytes and "
			"none of them NUL",
			name, VALUE_MAX);
	return n >= 0;
}

/* Words can be read by every user of this machine while this runs. */
static bool may_be_a_word(const char *name, const char *value, bool in_part)
{
	char hex[SHA256_HEX_BYTES];

	if (strcmp(name, "key") != 0)
		return true;
	switch (hash_said(str_of(value), hex)) {
	case HASH_SAID:
		return true;
	case HASH_SAID_BADLY:
		if (in_part && hash_said_in_part(str_of(value)).n)
			return true;
		(void)ctl_fail(0, "key: %s", HASH_SAID_WANTED);
		return false;
	case HASH_NOT_SAID:
		break;
	}
	(void)ctl_fail(0,
		"a key among the arguments can be read in the process list: write key=- and give it "
		"on standard input, or write key=sha256:HEX (printf %%s \"$KEY\" | sha256sum)");
	return false;
}

static bool add_field(json_t *fields, const char *word, bool in_part, bool *input)
{
	char name[64], value[VALUE_MAX];
	const char *equals = strchr(word, '=');
	size_t n = equals ? (size_t)(equals - word) : 0;

	if (!n || n >= sizeof name) {
		(void)ctl_fail(0, "\"%s\": want FIELD=VALUE, like ip=192.0.2.1", word);
		return false;
	}
	memcpy(name, word, n);
	name[n] = '\0';
	if (json_object_get(fields, name)) {
		(void)ctl_fail(0, "%s is given twice", name);
		return false;
	}
	if (strcmp(equals + 1, "-") == 0) {
		if (*input) {
			(void)ctl_fail(
				0, "%s=-: only one of them can come by standard input", name);
			return false;
		}
		*input = true;
		if (!read_secret(name, value, sizeof value))
			return false;
	} else if (!may_be_a_word(name, equals + 1, in_part)) {
		return false;
	} else if (snprintf(value, sizeof value, "%s", equals + 1) >= (int)sizeof value) {
		(void)ctl_fail(0, "%s: want less than %d bytes", name, VALUE_MAX);
		return false;
	}
	if (json_object_set_new(fields, name, json_string(value)) == 0)
		return true;
	(void)ctl_fail(0, "%s: want UTF-8", name);
	return false;
}

json_t *ctl_fields(const struct ctl_options *o, unsigned from, bool in_part)
{
	json_t *fields = json_object();
	bool input = false;

	for (unsigned i = from; i < o->words; i++)
		if (!add_field(fields, o->word[i], in_part, &input)) {
			json_decref(fields);
			return NULL;
		}
	return fields;
}

long ctl_number(const struct ctl_options *o, long usual, long most)
{
	const char *text = o->value[CTL_NUMBER];
	char *end = NULL;
	long n = text ? strtol(text, &end, 10) : usual;

	if (n >= 1 && n <= most && (!text || (end != text && !*end)))
		return n;
	(void)ctl_fail(0, "-n %s: want 1 to %ld", text, most);
	return -1;
}

/* A duration, or whole seconds. NULL: it is neither. */
static json_t *length_json(const char *text)
{
	int64_t seconds;
	usec_t length;

	if (integer_parse(str_of(text), &seconds))
		return seconds > 0 ? json_integer(seconds) : NULL;
	return duration_parse(str_of(text), &length) && length >= USEC_PER_SEC ? json_string(text)
									       : NULL;
}

json_t *ctl_change_body(const struct ctl_options *o)
{
	const char *reason = o->value[CTL_REASON], *length = o->value[CTL_FOR];
	const char *until = o->value[CTL_UNTIL];
	json_t *body = json_object();
	int64_t now = (int64_t)time(NULL), at;

	if (length && until) {
		(void)ctl_fail(0, "--for and --until: want one of them");
		goto fail;
	}
	if (reason && json_object_set_new(body, "reason", json_string(reason)) < 0) {
		(void)ctl_fail(0, "--reason: want UTF-8");
		goto fail;
	}
	if (length && json_object_set_new(body, "for", length_json(length)) < 0) {
		(void)ctl_fail(
			0, "--for %s: want a time of 1s at least, like 10m, or seconds", length);
		goto fail;
	}
	if (!until)
		return body;
	at = instant_parse(until, now);
	if (at <= now) {
		(void)ctl_fail(0,
			"--until %s: want an instant in the future: 18:30, 2026-11-30, \"2026-11-30 "
			"18:00\", or Unix seconds",
			until);
		goto fail;
	}
	(void)json_object_set_new(body, "until", json_integer(at));
	return body;
fail:
	json_decref(body);
	return NULL;
}
