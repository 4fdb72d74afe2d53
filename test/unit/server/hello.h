/* What the tests of server/ share that speak as HAProxy: how it begins. */
#ifndef HELLO_H
#define HELLO_H

#include "spop/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A HELLO as HAProxy sends it (without engine-id), with its capabilities; how long it is. */
static inline size_t put_hello_of(
	uint8_t *out, size_t size, uint32_t frame_max, bool healthcheck, struct str capabilities)
{
	struct wire_writer w = { out, out + size, false };
	uint8_t *at = frame_begin(&w, FRAME_HAPROXY_HELLO, 0, 0);
	wire_put_str(&w, STR("supported-versions"));
	wire_put_u8(&w, 8);
	wire_put_str(&w, STR("2.0"));
	wire_put_str(&w, STR("max-frame-size"));
	wire_put_u8(&w, 3);
	wire_put_varint(&w, frame_max);
	wire_put_str(&w, STR("capabilities"));
	wire_put_u8(&w, 8);
	wire_put_str(&w, capabilities);
	if (healthcheck) {
		wire_put_str(&w, STR("healthcheck"));
		wire_put_u8(&w, 0x11);
	}
	frame_end(&w, at);
	assert_false(w.bad);
	return (size_t)(w.p - out);
}

/* As of HAProxy 3.1. Up to 3.0 it is "pipelining,async". */
static inline size_t put_hello(uint8_t *out, size_t size, uint32_t frame_max, bool healthcheck)
{
	return put_hello_of(out, size, frame_max, healthcheck, STR("pipelining"));
}

#endif
