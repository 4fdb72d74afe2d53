/* ratelimitctl: the operator's command for spoa-ratelimit. */
#include "base/hash.h"
#include "ctl/ctl.h"
#include "ctl/text.h"

/* A table that nobody got is not done; nor is help. */
static int finish(int status)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		return ctl_fail(CTL_REFUSED, "standard output cannot be written");
	return status;
}

int main(int argc, char **argv)
{
	struct ctl_options o;

	text_init();
	if (!ctl_options_load(&o, argc, argv))
		return CTL_USAGE;
	if (ctl_given(&o, CTL_HELP)) {
		ctl_help(o.command);
		return finish(CTL_DONE);
	}
	if (!hash_init() || !http_start())
		return ctl_fail(CTL_REFUSED, "a library cannot start: does this system give random "
					     "numbers and memory?");
	struct ctl c = { .o = &o, .version = VERSION };
	int status = o.command->run(&c);
	http_stop();
	return finish(status);
}
