/* What a body says of a request's fields, also without memory. */
#include "admin/body.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* In the place of jansson's: without memory. */
static bool no_memory;

json_t *json_copy(json_t *value)
{
	static json_t *(*real)(json_t *);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "json_copy");
	return no_memory ? NULL : real(value);
}

static const char *const known[] = { "rule", "reason" };

static json_t *fields_of(const char *text)
{
	json_t *body = json_loads(text, 0, NULL);
	assert_non_null(body);
	json_t *fields = body_fields(body, known, 2);
	json_decref(body);
	return fields;
}

static void fields_are_what_is_not_known(void **state)
{
	(void)state;
	no_memory = false;
	assert_null(fields_of("{\"rule\":\"api\"}"));
	json_t *fields = fields_of("{\"rule\":\"api\",\"user\":\"alice\"}");
	assert_int_equal(json_object_size(fields), 1);
	assert_string_equal(json_string_value(json_object_get(fields, "user")), "alice");
	json_decref(fields);
	fields = fields_of("{\"rule\":\"api\",\"fields\":{}}");
	assert_true(json_is_object(fields));
	json_decref(fields);
}

/* Else a reset of alice's counters would be one of everybody's. */
static void without_memory_they_are_no_object(void **state)
{
	(void)state;
	no_memory = true;
	assert_true(json_is_null(fields_of("{\"rule\":\"api\",\"user\":\"alice\"}")));
	no_memory = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_what_is_not_known),
		cmocka_unit_test(without_memory_they_are_no_object),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
