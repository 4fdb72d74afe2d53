/* The scan before libconfig: text of one -f file and all that it includes -> one text without
 * includes, comments and traps, and where each of its lines comes from.
 *
 * libconfig 1.5 ends the process on an @include of a folder, swallows what follows an unclosed
 * comment, wraps integers beyond 32 bits, stops at a NUL byte, and resolves nested includes
 * wrongly. So it never gets to see any of these. */
#ifndef CONFIG_PRESCAN_H
#define CONFIG_PRESCAN_H

#include "config/source.h"

enum {
	SOURCE_FILE_MAX = 4 << 20,  /* bytes of one file */
	SOURCE_TOTAL_MAX = 8 << 20, /* of all of them, as often as they are included */
	SOURCE_FILES_MAX = 256,
	INCLUDE_DEPTH_MAX = 10,
	SETTINGS_MAX = 200000, /* values of any kind */
};

/* false: it is no text that libconfig may get, and problems say why; `s` is to be freed all the
 * same. true: it is, with nothing in the place of what could not be included, which is a problem.
 */
bool source_read(struct source *s, const char *path, struct problems *);
/* The same with `text` for what the file `name` would hold. */
bool source_scan(struct source *s, const char *name, const char *text, size_t n, struct problems *);

#endif
