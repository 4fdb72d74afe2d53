/* Stands in for libFuzzer where there is none: runs a target on the files and folders that are
 * named, each input in memory of just its size, so that gcc's sanitizers see the corpus too. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned runs;

static void run(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size);

	if (!exact && size)
		abort();
	if (size)
		memcpy(exact, data, size);
	(void)LLVMFuzzerTestOneInput(exact, size);
	free(exact);
	runs++;
}

static int run_file(const char *path)
{
	static uint8_t bytes[1 << 20];
	FILE *f = fopen(path, "rb");

	if (!f) {
		perror(path);
		return 1;
	}
	size_t n = fread(bytes, 1, sizeof bytes, f);
	int failed = ferror(f);
	(void)fclose(f);
	if (failed) {
		perror(path);
		return 1;
	}
	run(bytes, n);
	run(bytes, n / 2); /* and cut short */
	return 0;
}

static int run_path(const char *path)
{
	struct dirent *entry;
	struct stat st;
	int failed = 0;

	if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
		return run_file(path);
	DIR *folder = opendir(path);
	if (!folder) {
		perror(path);
		return 1;
	}
	while ((entry = readdir(folder))) {
		char name[4096];

		if (entry->d_name[0] == '.')
			continue;
		int n = snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
		failed |= n >= (int)sizeof name || run_path(name);
	}
	(void)closedir(folder);
	return failed;
}

int main(int argc, char **argv)
{
	int failed = 0;

	run(NULL, 0);
	for (int i = 1; i < argc; i++)
		failed |= run_path(argv[i]);
	printf("%u runs\n", runs);
	return failed || runs == 1;
}
