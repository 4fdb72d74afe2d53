#include "admin/page.h"

#include "admin/routes.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	HASH_ROOM = sodium_base64_ENCODED_LEN(
		crypto_hash_sha256_BYTES, sodium_base64_VARIANT_ORIGINAL)
};

/* Of what stands between the only `open` and the `close` after it, as a browser takes it. */
static bool hash_of(struct str html, const char *open, const char *close, char out[HASH_ROOM])
{
	unsigned char hash[crypto_hash_sha256_BYTES];
	size_t open_n = strlen(open);
	const char *begin = memmem(html.p, html.n, open, open_n);
	if (!begin)
		return false;
	begin += open_n;
	size_t left = html.n - (size_t)(begin - html.p);
	const char *end = memmem(begin, left, close, strlen(close));
	if (!end || memmem(begin, left, open, open_n))
		return false;
	crypto_hash_sha256(hash, (const unsigned char *)begin, (size_t)(end - begin));
	sodium_bin2base64(out, HASH_ROOM, hash, sizeof hash, sodium_base64_VARIANT_ORIGINAL);
	return true;
}

bool page_policy(struct str html, char out[PAGE_POLICY_MAX])
{
	char style[HASH_ROOM], script[HASH_ROOM];
	if (!hash_of(html, "<style>", "</style>", style) ||
		!hash_of(html, "<script>", "</script>", script))
		return false;
	/* No string becomes HTML, whatever the script does: names come from clients. */
	int n = snprintf(out, PAGE_POLICY_MAX,
		"default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s'; "
		"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
		"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
		style, script);
	return n > 0 && n < PAGE_POLICY_MAX;
}

void page_show(struct request *r)
{
	struct str html = { page_html, page_html_bytes };
	char policy[PAGE_POLICY_MAX];
	char *copy = page_policy(html, policy) ? malloc(html.n) : NULL;
	if (copy)
		memcpy(copy, html.p, html.n);
	request_reply_page(r, copy, html.n, policy);
}
