#include "config/words.h"

#include "config/nearest.h"

enum { WORDS_MAX = 8, WORD_BYTES = 32 };

struct word {
	char text[WORD_BYTES];
	bool reserved;
};

static unsigned split(const char *words, struct word out[WORDS_MAX])
{
	unsigned n = 0;

	while (*words && n < WORDS_MAX) {
		size_t length = strcspn(words, "|");
		out[n].reserved = *words == '!';
		size_t skip = out[n].reserved ? 1 : 0;
		snprintf(out[n].text, WORD_BYTES, "%.*s", (int)(length - skip), words + skip);
		n++;
		words += length + (words[length] == '|');
	}
	return n;
}

const char *word_at(const char *words, int number, char *out, size_t size)
{
	struct word word[WORDS_MAX];
	unsigned n = split(words, word);

	snprintf(out, size, "%s", number >= 0 && (unsigned)number < n ? word[number].text : "");
	return out;
}

int word_load(const struct given *g, const char *what, const char *words, struct problems *problems)
{
	struct word word[WORDS_MAX];
	unsigned n = split(words, word), names_n = 0;
	const char *names[WORDS_MAX];
	char shown[SHOWN_MAX], want[256] = "", hint[HINT_MAX];

	for (unsigned i = 0; i < n; i++) {
		if (g->type == GIVEN_STRING && strcmp(g->text, word[i].text) == 0) {
			if (!word[i].reserved)
				return (int)i;
			problem_add(problems, g->at,
				"%s = \"%s\" is reserved for a later version: this one does not know it",
				what, g->text);
			return -1;
		}
		if (!word[i].reserved)
			names[names_n++] = word[i].text;
	}
	for (unsigned i = 0; i < names_n; i++) {
		size_t used = strlen(want);
		snprintf(want + used, sizeof want - used, "%s\"%s\"",
			i == 0             ? ""
			: i + 1 == names_n ? " or "
					   : ", ",
			names[i]);
	}
	problem_add(problems, g->at, "%s = %s: want %s%s", what, given_show(g, shown), want,
		g->type == GIVEN_STRING ? nearest_hint(g->text, names, names_n, hint) : "");
	return -1;
}
