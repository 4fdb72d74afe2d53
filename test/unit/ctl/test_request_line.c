/* Lines of request logs -> time and fields. */
#include "ctl/request_line.h"

#include "config/snapshot.h"

#include "../base/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char config[] =
	"identity: { default_tier = \"anonymous\"; };\n"
	"rules = ( { name = \"all\"; per = [ \"ip|user|key|host|path|method|app|tier\" ];\n"
	"            match = { cost = \"!x\"; flag = \"!x\"; message = \"!x\"; endpoint = \"!x:/\"; };\n"
	"            rate = \"1/day\"; } );\n";

/* What the lines of one log begin with: 2026-11-21 16:33:01.123 UTC. */
#define TIME    "[21/Nov/2026:16:33:01.123]"
#define HTTPLOG "web app/s1 0/0/1/2/3 200 150 - - ---- 1/1/0/0/0 0/0 "
enum { AT = 1795278781 };

struct world {
	struct snapshot *snapshot;
	struct request_line line;
};

static struct world begin(const char *captures)
{
	static const struct hash_key key = { .bytes = { 1 } };
	struct problems problems = { 0 };
	struct world w;
	char why[256];

	w.snapshot = config_load_text("t.cfg", config, sizeof config - 1, &key, 1, &problems);
	if (!w.snapshot && problems.n)
		print_message("%s\n", problems.message[0]);
	problems_free(&problems);
	assert_non_null(w.snapshot);
	assert_true(request_line_init(&w.line, w.snapshot->policy, captures, why, sizeof why));
	return w;
}

static void end(struct world *w)
{
	request_line_fini(&w->line);
	assert_true(snapshot_unref(w->snapshot));
	snapshot_free(w->snapshot);
}

/* "ip=… user=…": every field that is there, but for what it is derived from, in slot order. */
static const char *fields_of(const struct view *v)
{
	static char out[4096];
	size_t n = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < v->layout->n; i++) {
		char ip[ADDR_TEXT_MAX];
		struct str s = v->text[i];
		if (!view_has(v, i) || i == FIELD_ENDPOINT ||
			(i == FIELD_MESSAGE && str_eq(s, STR("check"))))
			continue;
		if (i == FIELD_IP)
			s = (struct str){ ip, addr_format(&v->ip, ip) };
		n += (size_t)snprintf(out + n, sizeof out - n, "%s%s=%.*s", n ? " " : "",
			v->layout->field[i].name, (int)s.n, s.p);
		assert_true(n < sizeof out);
	}
	return out;
}

struct row {
	const char *line;
	const char *want; /* NULL: it is no request */
};

static void check_rows(struct world *w, const struct row *row, size_t n)
{
	struct view v;
	usec_t utc;

	for (size_t i = 0; i < n; i++) {
		bool found = request_line_load(&w->line, str_of(row[i].line), &v, &utc);
		if (found != (row[i].want != NULL))
			print_message("%s\n", row[i].line);
		assert_int_equal(found, row[i].want != NULL);
		if (!found)
			continue;
		assert_string_equal(fields_of(&v), row[i].want);
		assert_int_equal(utc / USEC_PER_SEC, AT);
	}
}

static const struct row haproxy[] = {
	{ "10.0.1.2:33317 " TIME " " HTTPLOG "\"GET /index.html HTTP/1.1\"",
		"ip=10.0.1.2 method=GET path=/index.html" },
	{ "<134>Nov 21 16:33:01 lb1 haproxy[14389]: 10.0.1.2:33317 " TIME " " HTTPLOG
	  "\"GET / HTTP/1.1\"\r",
		"ip=10.0.1.2 method=GET path=/" },
	{ "2026-11-21T16:33:01+01:00 192.0.2.9 haproxy[1]: 10.0.1.2:33317 " TIME " " HTTPLOG
	  "\"GET / HTTP/1.1\"",
		"ip=10.0.1.2 method=GET path=/" },
	/* An address may have a colon and four digits at its end, and its port as well. */
	{ "2001:db8::1:3333 " TIME " web~ app/s1 0/0/1/2/3 200 150 - - ---- 1/1/0/0/0 0/0 \"PUT "
	  "/a?b=c HTTP/1.1\"",
		"ip=2001:db8::1 method=PUT path=/a" },
	{ "::ffff:10.0.1.2:80 " TIME " " HTTPLOG "\"GET / HTTP/1.1\"",
		"ip=10.0.1.2 method=GET path=/" },
	{ "unix:1 " TIME " " HTTPLOG "\"GET / HTTP/1.1\"", "method=GET path=/" },
	/* What HAProxy answers by itself, and what the agent had denied. */
	{ "10.0.1.2:3 " TIME " web web/<NOSRV> 0/-1/-1/-1/0 429 150 - - PR-- 1/1/0/0/0 0/0 "
	  "\"POST /login HTTP/1.1\"",
		"ip=10.0.1.2 method=POST path=/login" },
	/* `option httpslog` */
	{ "10.0.1.2:3 " TIME " web~ app/s1 0/0/1/2/3 200 150 - - ---- 1/1/0/0/0 0/0 "
	  "\"GET /x HTTP/1.1\" 0/0000000000000000/0/0/0 www.example/TLSv1.3/TLS_AES_128",
		"ip=10.0.1.2 method=GET path=/x" },
	/* HTTP/2 has the host in the request. */
	{ "10.0.1.2:3 " TIME " " HTTPLOG "\"GET https://WWW.Example:8443/a/../b?c HTTP/2.0\"",
		"ip=10.0.1.2 method=GET path=/b host=www.example" },
	{ "10.0.1.2:3 " TIME " " HTTPLOG "\"CONNECT www.example:443 HTTP/1.1\"",
		"ip=10.0.1.2 method=CONNECT" },
	{ "10.0.1.2:3 " TIME " " HTTPLOG "\"OPTIONS * HTTP/1.1\"", "ip=10.0.1.2 method=OPTIONS" },
	{ "10.0.1.2:3 " TIME " " HTTPLOG "\"GET /a#22b#7C#zz# HTTP/1.1\"",
		"ip=10.0.1.2 method=GET path=/a\"b|" }, /* the rest is a fragment */
	/* Methods of 32 letters at most. */
	{ "10.0.1.2:3 " TIME " " HTTPLOG "\"M_SEARCH-ABCDEFGHIJKLMNOPQRSTUVW / HTTP/1.1\"",
		"ip=10.0.1.2 method=M_SEARCH-ABCDEFGHIJKLMNOPQRSTUVW path=/" },
	{ "10.0.1.2:3 " TIME " " HTTPLOG "\"M_SEARCH-ABCDEFGHIJKLMNOPQRSTUVWX / HTTP/1.1\"", NULL },
	/* A line that was cut. */
	{ "10.0.1.2:3 " TIME " " HTTPLOG "\"GET /very/long",
		"ip=10.0.1.2 method=GET path=/very/long" },
	{ "10.0.1.2:3 " TIME " " HTTPLOG "\"GET ", NULL },
	{ "10.0.1.2:3 " TIME " " HTTPLOG "\"<BADREQ>\"", NULL },
	{ "10.0.1.2:3 " TIME " " HTTPLOG "\"\"", NULL },
	{ "10.0.1.2:3 " TIME " tcp app/s1 0/0/5007 212 -- 0/0/0/0/3 0/0", NULL },
	{ "10.0.1.2:3 " TIME " web/1: SSL handshake failure", NULL },
	{ "Server app/s1 is DOWN, reason: Layer4 connection problem.", NULL },
	{ "Proxy web started.", NULL },
	{ "", NULL },
	{ " ", NULL },
	{ "[", NULL },
	{ TIME, NULL },
	{ TIME " \"GET / HTTP/1.1\"", "method=GET path=/" },
	{ "10.0.1.2:3 [21/Nov/2026:16:33:01.123 " HTTPLOG "\"GET / HTTP/1.1\"", NULL },
};

static void default_log_of_haproxy(void **state)
{
	struct world w = begin(NULL);

	(void)state;
	check_rows(&w, haproxy, sizeof haproxy / sizeof *haproxy);
	end(&w);
}

static const struct row own[] = {
	/* haproxy/haproxy.cfg: the verified client comes first. */
	{ "192.0.2.7 10.0.1.2:33317 " TIME " web app/s1 200 150 0/0/1/2/3 ---- rl=ok/api left=4/5 "
	  "tier=gold user=alice shadow=- err=- check_ms=1 \"GET /x HTTP/1.1\"",
		"ip=192.0.2.7 user=alice tier=gold method=GET path=/x" },
	{ "192.0.2.7 10.0.1.2:33317 " TIME " web app/s1 200 150 0/0/1/2/3 ---- rl=ok/api left=4/5 "
	  "user=alice err=- \"GET /x HTTP/1.1\" host={WWW.Example:80}",
		"ip=192.0.2.7 user=alice method=GET path=/x host=www.example" },
	{ "- 10.0.1.2:33317 " TIME
	  " web app/s1 200 150 0/0/1/2/3 ---- rl=-/- left=-/- tier=- user=- key=sha256:- "
	  "shadow=- err=1 check_ms=- \"GET /x HTTP/1.1\" host={}",
		"ip=10.0.1.2 method=GET path=/x" },
	{ "lb haproxy[3]: 2001:db8::1 2001:db8::1:33317 " TIME
	  " web app/s1 200 150 0/0/1/2/3 ---- tier=anonymous \"GET /x HTTP/1.1\"",
		"ip=2001:db8::1 method=GET path=/x" }, /* the default tier: one may be set by now */
	/* Blanks may be tabs. */
	{ "192.0.2.7\t10.0.1.2:33317\t" TIME
	  "\tweb\tapp/s1\t200\tuser=al\t\"GET\t/x HTTP/1.1\"\thost={A}",
		"ip=192.0.2.7 user=al method=GET path=/x host=a" },
	/* conf/examples: nothing but the client, and no frontend. */
	{ "2001:db8::1:80 " TIME
	  " app/s1 200 3 rl=ok/api user=bob app=chat err=- \"GET / HTTP/1.1\"",
		"ip=2001:db8::1:80 user=bob method=GET path=/ app=chat" },
	{ "192.0.2.7 " TIME " app/s1 200 3 rl=ok/api err=- \"GET / HTTP/1.1\"",
		"ip=192.0.2.7 method=GET path=/" },
	/* In quotes, behind the request, of the same name as what the line has anyway. */
	{ "192.0.2.7:1 " TIME
	  " web a/b user=\"al ice\" \"GET /x HTTP/1.1\" ip=192.0.2.8 cost=3 =x y= z",
		"ip=192.0.2.8 user=al ice method=GET path=/x cost=3" },
	{ "192.0.2.7:1 " TIME " web a/b path=/y method=PUT \"GET /x HTTP/1.1\"",
		"ip=192.0.2.7 method=PUT path=/y" },
	/* The message that was asked with; no other text of that name, and the first counts. */
	{ "192.0.2.7 " TIME " a/b 200 message=check-grpc err=- \"POST /x HTTP/2.0\" message=check",
		"message=check-grpc ip=192.0.2.7 method=POST path=/x" },
	{ "192.0.2.7 " TIME " a/b 200 message=\"check-a b\" \"POST /x HTTP/2.0\"",
		"message=check-a b ip=192.0.2.7 method=POST path=/x" },
	{ "192.0.2.7 " TIME " a/b 200 message=- \"POST /x HTTP/2.0\"",
		"ip=192.0.2.7 method=POST path=/x" },
	{ "192.0.2.7 " TIME " a/b 200 message=checked message= \"POST /x HTTP/2.0\"",
		"ip=192.0.2.7 method=POST path=/x" },
	/* What a client wrote is one word, whatever it holds; what the line has comes before what
	 * the request has. */
	{ "192.0.2.7 " TIME
	  " a/b 200 \"GET https://other/x HTTP/2.0\" host={a b#22#7Bc#7D#7Cd#1B#2322 "
	  "user=mallory|user=mallory}",
		"ip=192.0.2.7 method=GET path=/x host=a b\"{c}|d\033#22 user=mallory" },
	{ "192.0.2.7 " TIME " a/b 200 user={al#20ice|x} \"GET https://other/x HTTP/2.0\" host={}",
		"ip=192.0.2.7 user=al ice method=GET path=/x" },
	{ "192.0.2.7 " TIME " a/b 200 \"GET /x HTTP/2.0\" host={cut off user=mallory",
		"ip=192.0.2.7 method=GET path=/x host=cut off user=mallory" },
	{ "192.0.2.7 " TIME " a/b 200 \"GET /x HTTP/2.0\" host={",
		"ip=192.0.2.7 method=GET path=/x" },
	/* Captured headers are the client's own words: only what is named counts. */
	{ "192.0.2.7:1 " TIME " web a/b {eve|x user=mallory \"GET|k|W.example:80|more} {r|user=x} "
	  "\"GET /x HTTP/1.1\"",
		"ip=192.0.2.7 user=eve method=GET path=/x host=w.example app=k" },
	{ "192.0.2.7:1 " TIME " web a/b {|} \"GET /x HTTP/1.1\" user=late",
		"ip=192.0.2.7 user=late method=GET path=/x" },
	{ "192.0.2.7:1 " TIME " web a/b {} {of the response} \"GET /x HTTP/1.1\"",
		"ip=192.0.2.7 method=GET path=/x" },
	{ "192.0.2.7:1 " TIME " web a/b {a#7Cb#7D} \"GET /x HTTP/1.1\"",
		"ip=192.0.2.7 user=a|b} method=GET path=/x" },
	{ "192.0.2.7:1 " TIME " web a/b {cut off", NULL },
	{ "192.0.2.7:1 " TIME " web a/b \"agent user=x\" \"GET /x HTTP/1.1\"",
		"ip=192.0.2.7 method=GET path=/x" },
	/* What stands behind the request is no other one, whatever it looks like. */
	{ "192.0.2.7:1 " TIME " web a/b \"GET /x HTTP/1.1\" \"agent/1.0 (x)\" \"\"",
		"ip=192.0.2.7 method=GET path=/x" },
	{ "192.0.2.7:1 " TIME " web a/b \"GET /x HTTP/1.1\" \"PUT /y HTTP/1.1\"",
		"ip=192.0.2.7 method=GET path=/x" },
	{ "192.0.2.7:1 " TIME " web a/b \"no slash\"", NULL },
	/* Who is called as the default tier is. */
	{ "192.0.2.7:1 " TIME " web a/b user=anonymous \"GET /x HTTP/1.1\"",
		"ip=192.0.2.7 user=anonymous method=GET path=/x" },
};

static void formats_of_ones_own(void **state)
{
	struct world w = begin("user,-,app,host");

	(void)state;
	check_rows(&w, own, sizeof own / sizeof *own);
	end(&w);
}

static const struct row clf[] = {
	{ "10.0.1.2 - - [21/Nov/2026:16:33:01 +0000] \"GET /x HTTP/1.1\" 200 12",
		"ip=10.0.1.2 method=GET path=/x" },
	{ "www:443 10.0.1.2 - alice [21/Nov/2026:17:33:01 +0100] \"POST /x?y HTTP/2.0\" 200 12 "
	  "\"http://a/\" \"agent user=mallory\"",
		"ip=10.0.1.2 user=alice method=POST path=/x" },
	{ "10.0.1.2 - - [21/Nov/2026:16:33:01 +0000] \"GET /a\\x22\\\"b\\\\c#23 HTTP/1.1\" 200 1",
		"ip=10.0.1.2 method=GET path=/a\"\"b\\c" },
	{ "10.0.1.2 - - [21/Nov/2026:16:33:01 +0000] \"GET http://bob:p@w@shop:80/x@y HTTP/1.1\" 200 12",
		"ip=10.0.1.2 method=GET path=/x@y host=shop" }, /* no password */
	{ "host.example - - [21/Nov/2026:16:33:01 +0000] \"GET / HTTP/1.1\" 200 12",
		"method=GET path=/" },
	{ "10.0.1.2 - - [21/Nov/2026:16:33:01 +0000] \"\\x16\\x03\\x01\" 400 0", NULL },
	{ "10.0.1.2 - - [21/Nov/2026:16:33:01 +0000] \"-\" 408 0", NULL },
	{ "10.0.1.2 - - [21/Nov/2026:16:33:01 +0000] GET / 200 12", NULL },
	{ "10.0.1.2 - - [21/Nov/2026:16:33:01 +0000]", NULL },
};

static void common_log_format(void **state)
{
	struct world w = begin(NULL);

	(void)state;
	check_rows(&w, clf, sizeof clf / sizeof *clf);
	end(&w);
}

static const struct row json[] = {
	{ "{\"time\":1795278781.5,\"ip\":\"10.0.1.2\",\"method\":\"GET\",\"path\":\"//x\",\"host\":\"A\"}",
		"ip=10.0.1.2 method=GET path=/x host=a" },
	{ "Nov 21 lb haproxy[3]: {\"time\": 1795278781, \"user\": \"al\\u0069ce\", \"cost\": 5, "
	  "\"flag\": true, \"other\": {\"a\": [1]}}",
		"user=alice cost=5 flag=true" },
	{ "{\"time\":\"2026-11-21T16:33:01.25Z\",\"ip\":null,\"user\":\"u\",\"cost\":1.5}\r",
		"user=u" },
	{ "{\"time\":\"2026-11-21T18:33:01+02:00\",\"path\":\"/[21/Nov/2026:00:00:00] \\\"GET / \"}",
		"path=/[21/Nov/2026:00:00:00] \"GET / " },
	/* A client may say a NUL (behind it this test's text ends). */
	{ "{\"time\":1795278781,\"user\":\"a\\u0000b\",\"cost\":5}", "user=a cost=5" },
	/* `message` is often a sentence. */
	{ "{\"time\":1795278781,\"user\":\"u\",\"message\":\"check-login\"}",
		"message=check-login user=u" },
	{ "{\"time\":1795278781,\"user\":\"u\",\"message\":3}", "user=u" },
	{ "{\"time\":1795278781,\"user\":\"u\",\"message\":\"GET / by u\"}", "user=u" },
	{ "{\"time\":1795278781,\"user\":\"u\",\"endpoint\":\"GET:/x\",\"tier\":\"anonymous\"}",
		"user=u tier=anonymous" },
	/* What is not there, by log formats that are written by hand. */
	{ "{\"time\":1795278781,\"user\":\"u\",\"key\":\"sha256:-\",\"host\":\"-\"}", "user=u" },
	/* No field that a rule looks at: a rule that counts all counts it. */
	{ "{\"time\":1795278781}", "" },
	{ "{\"time\":1795278781,\"bytes\":5,\"client\":\"x\"}", "" },
	{ "{\"time\":1795278781,\"user\":\"-\"}", "" },
	{ "{\"time\":1795278781,\"user\":\"\"}", "" },
	{ "{\"time\":1795278781,\"message\":\"check-login\"}", "message=check-login" },
	/* Programs' own messages have a time, too, and no field; one has. */
	{ "{\"time\":1795278781.472,\"level\":\"info\",\"event\":\"start\"}", NULL },
	{ "{\"time\":\"2026-11-21T16:33:01Z\",\"severity\":\"INFO\"}", NULL },
	{ "{\"time\":\"2026-11-21T16:33:01Z\",\"msg\":\"listening\"}", NULL },
	{ "{\"time\":\"2026-11-21T16:33:01Z\",\"message\":\"listening\"}", NULL },
	{ "{\"log\":\"GET /\",\"stream\":\"stdout\",\"time\":\"2026-11-21T16:33:01Z\"}", NULL },
	{ "{\"time\":1795278781,\"level\":\"info\",\"user\":\"u\"}", "user=u" },
	{ "{\"time\":1795278781,\"level\":\"info\",\"cost\":5}", "cost=5" },
	{ "{\"user\":\"u\"}", NULL },
	{ "{\"time\":\"yesterday\",\"user\":\"u\"}", NULL },
	{ "{\"time\":\"2026-11-21T16:33:01Z \",\"user\":\"u\"}", NULL },
	{ "{\"time\":-1,\"user\":\"u\"}", NULL },
	{ "{\"time\":\"1970-01-01T00:00:00+00:01\",\"user\":\"u\"}", NULL },
	{ "{\"time\":1e300,\"user\":\"u\"}", NULL },
	{ "{\"time\":253402300800,\"user\":\"u\"}", NULL },
	{ "{\"time\":9223372036854775807,\"user\":\"u\"}", NULL },
	{ "{\"time\":true,\"user\":\"u\"}", NULL },
	{ "{\"time\":1795278781,\"user\":\"u\"", NULL },
	{ "{\"time\":1795278781,\"user\":\"u\"} x", NULL },
	{ "{\"time\":1795278781,\"user\":\"\xff\"}", NULL },
	{ "{}", NULL },
	{ "{", NULL },
};

static void json_lines(void **state)
{
	struct world w = begin(NULL);

	(void)state;
	check_rows(&w, json, sizeof json / sizeof *json);
	end(&w);
}

static void a_key_may_be_there_as_its_hash(void **state)
{
	static const char hash[] =
		"0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef";
	struct world w = begin(NULL);
	struct view v;
	usec_t utc;
	char line[512];

	(void)state;
	(void)snprintf(line, sizeof line,
		"192.0.2.7:1 " TIME " web a/b key=sha256:%s \"GET /x HTTP/1.1\"", hash);
	assert_true(request_line_load(&w.line, str_of(line), &v, &utc));
	assert_true(view_has(&v, FIELD_KEY) && v.hashed == 1ull << FIELD_KEY);
	assert_int_equal(v.text[FIELD_KEY].n, SHA256_HEX_BYTES);
	assert_memory_equal(v.text[FIELD_KEY].p, "0123456789abcdef01", 18);
	(void)snprintf(line, sizeof line,
		"192.0.2.7:1 " TIME " web a/b key=sha256:%.63s user=sha256:%s \"GET /x HTTP/1.1\"",
		hash, hash);
	assert_true(request_line_load(&w.line, str_of(line), &v, &utc));
	assert_true(view_has(&v, FIELD_KEY) && !v.hashed);
	assert_int_equal(v.text[FIELD_USER].n, 7 + SHA256_HEX_BYTES);
	end(&w);
}

/* What is read of it lies in the line, in what the parser owns, or in JSON's memory. */
static void look_at(const struct view *v)
{
	const volatile char *p;

	for (unsigned i = 0; i < v->layout->n; i++)
		for (size_t k = 0; view_has(v, i) && i != FIELD_IP && k < v->text[i].n; k++) {
			p = v->text[i].p + k;
			(void)*p;
		}
}

static void cut_everywhere(struct world *w, const struct row *row, size_t n)
{
	struct guard g = guard_new(REQUEST_LINE_MAX);
	struct view v;
	usec_t utc;

	for (size_t i = 0; i < n; i++) {
		size_t length = strlen(row[i].line);
		for (size_t cut = 0; cut <= length; cut++) {
			struct str s = { (char *)guard_copy(&g, row[i].line, cut), cut };
			if (request_line_load(&w->line, s, &v, &utc))
				look_at(&v);
			/* And at its other end. */
			s.p = (char *)guard_copy(&g, row[i].line + cut, length - cut);
			s.n = length - cut;
			if (request_line_load(&w->line, s, &v, &utc))
				look_at(&v);
		}
	}
	guard_free(&g);
}

static void any_part_of_a_line_may_come(void **state)
{
	struct world w = begin("user,-,app,host");

	(void)state;
	cut_everywhere(&w, haproxy, sizeof haproxy / sizeof *haproxy);
	cut_everywhere(&w, own, sizeof own / sizeof *own);
	cut_everywhere(&w, clf, sizeof clf / sizeof *clf);
	cut_everywhere(&w, json, sizeof json / sizeof *json);
	end(&w);
}

/* All of it is path, and each byte an escape. */
static void the_longest_line_fits(void **state)
{
	static const char before[] = "192.0.2.7:1 " TIME " web a/b \"GET /";
	struct world w = begin(NULL);
	char *line = malloc(REQUEST_LINE_MAX);
	struct view v;
	usec_t utc;

	(void)state;
	assert_non_null(line);
	memcpy(line, before, sizeof before - 1);
	for (size_t i = sizeof before - 1; i < REQUEST_LINE_MAX; i++)
		line[i] = "#2A"[(i - sizeof before + 1) % 3];
	struct str s = { line, REQUEST_LINE_MAX };
	assert_true(request_line_load(&w.line, s, &v, &utc));
	assert_true(v.text[FIELD_PATH].n > REQUEST_LINE_MAX / 3 - 32);
	assert_true(view_has(&v, FIELD_PATH));
	for (size_t i = sizeof before - 1; i < REQUEST_LINE_MAX; i++)
		line[i] = 'a';
	assert_true(request_line_load(&w.line, s, &v, &utc));
	assert_int_equal(v.text[FIELD_PATH].n, REQUEST_LINE_MAX - sizeof before + 2);
	assert_true(view_has(&v, FIELD_ENDPOINT)); /* which is as long again */
	assert_int_equal(v.text[FIELD_ENDPOINT].n, sizeof "GET:" - 1 + v.text[FIELD_PATH].n);
	free(line);
	end(&w);
}

static void names_of_captures(void **state)
{
	struct world w = begin("");
	struct request_line l;
	char why[256], many[4 * CAPTURES_MAX] = "";

	(void)state;
	assert_int_equal(w.line.captures, 0);
	assert_false(request_line_init(&l, w.snapshot->policy, "user,uesr", why, sizeof why));
	assert_non_null(strstr(why, "\"uesr\""));
	request_line_fini(&l);
	assert_false(request_line_init(&l, w.snapshot->policy, ",user", why, sizeof why));
	request_line_fini(&l);
	assert_false(request_line_init(&l, w.snapshot->policy, "endpoint", why, sizeof why));
	request_line_fini(&l);
	for (unsigned i = 0; i <= CAPTURES_MAX; i++)
		(void)strcat(many, "-,");
	assert_false(request_line_init(&l, w.snapshot->policy, many, why, sizeof why));
	request_line_fini(&l);
	assert_true(request_line_init(&l, w.snapshot->policy, many + 2, why, sizeof why));
	request_line_fini(&l);
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(default_log_of_haproxy),
		cmocka_unit_test(formats_of_ones_own),
		cmocka_unit_test(common_log_format),
		cmocka_unit_test(json_lines),
		cmocka_unit_test(a_key_may_be_there_as_its_hash),
		cmocka_unit_test(any_part_of_a_line_may_come),
		cmocka_unit_test(the_longest_line_fits),
		cmocka_unit_test(names_of_captures),
	};

	(void)setenv("TZ", "UTC", 1);
	(void)hash_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
