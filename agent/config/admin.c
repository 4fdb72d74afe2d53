/* The group `admin`: whether there is one, and what cannot be. */
#include "config/address.h"
#include "config/load.h"

#include <stdlib.h>

/* What an HTTP header can carry, and nobody guesses. */
static void check_token(struct loader *l)
{
	enum { TOKEN_SHORT = 16 };
	const char *token = l->values.settings.admin.token;
	struct place at = option_place(l, OPTION_ID_admin_token);
	char said[OPTION_SAID_MAX];

	option_said(l, OPTION_ID_admin_token, said);

	for (const char *p = token; *p; p++)
		if (*p <= ' ' || *p > '~') {
			problem_add(l->problems, at,
				"%s: want visible ASCII characters without blanks: `openssl rand "
				"-hex 32` makes a good one",
				said);
			return;
		}
	if (token[0] && strlen(token) < TOKEN_SHORT)
		problem_warn(l->problems, at,
			"%s is short: a guess may hit it; `openssl rand -hex 32` makes a good one",
			said);
}

/* At the start it would look as if another process had the address. */
static void check_clashes(struct loader *l)
{
	const struct settings *s = &l->values.settings;

	for (unsigned i = 0; i < s->admin.listen_n; i++)
		for (unsigned k = 0; k < s->agent.listen_n; k++)
			if (listen_clashes(&s->admin.listen[i], &s->agent.listen[k]))
				problem_add(l->problems, option_place(l, OPTION_ID_admin_listen),
					"admin.listen = \"%s\": agent.listen has \"%s\": want another "
					"port, or path",
					s->admin.listen[i].text, s->agent.listen[k].text);
}

/* There is an admin interface only where the configuration has the group. */
void admin_fill(struct loader *l)
{
	struct settings *s = &l->values.settings;

	if (!l->has_admin) {
		s->admin.listen_n = 0;
		free(l->option_text[OPTION_ID_admin_listen]);
		l->option_text[OPTION_ID_admin_listen] = NULL;
		return;
	}
	check_token(l);
	check_clashes(l);
	for (unsigned i = 0; i < s->admin.listen_n; i++)
		if (!s->admin.token[0] && !listen_is_local(&s->admin.listen[i]))
			problem_add(l->problems, option_place(l, OPTION_ID_admin_listen),
				"admin.listen = \"%s\": other machines can reach it: set admin.token, "
				"or listen on 127.0.0.1, [::1] or a UNIX socket",
				s->admin.listen[i].text);
}
