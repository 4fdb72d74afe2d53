/* The page at /: one file (page.html) in the binary, and what a browser may do with it. */
#ifndef ADMIN_PAGE_H
#define ADMIN_PAGE_H

#include "base/str.h"

extern const char page_html[]; /* made by CMake from page.html */
extern const size_t page_html_bytes;

enum { PAGE_POLICY_MAX = 1024 };

/* Its Content-Security-Policy: nothing but its own <style> and <script>, by their hashes, and
 * requests to where it came from. false: it has not one of each, or `out` is too small. */
bool page_policy(struct str html, char out[PAGE_POLICY_MAX]);

#endif
