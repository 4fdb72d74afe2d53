#include "config/field.h"

static void set_text(struct view *v, const struct policy *p, unsigned slot, struct str s)
{
	bool secret = slot == FIELD_KEY && p->secret >> slot & 1;

	if (!secret || !view_set_hash(v, slot, s))
		view_set_text(v, slot, s);
}

void field_load_text(struct view *v, const struct policy *p, struct str name, struct str value)
{
	int slot = layout_find_arg(&p->layout, name);

	if (slot >= 0)
		set_text(v, p, (unsigned)slot, value);
}

bool field_load_json(struct view *v, const struct policy *p, struct str name, const json_t *value)
{
	int slot = layout_find_arg(&p->layout, name);
	unsigned to = slot < 0 ? 0 : (unsigned)slot;

	switch (json_typeof(value)) {
	case JSON_STRING:
		if (slot >= 0)
			set_text(v, p, to,
				(struct str){
					json_string_value(value), json_string_length(value) });
		return true;
	case JSON_INTEGER:
		if (slot >= 0)
			view_set_integer(v, to, json_integer_value(value));
		return true;
	case JSON_TRUE:
	case JSON_FALSE:
		if (slot >= 0)
			view_set_boolean(v, to, json_is_true(value));
		return true;
	case JSON_NULL:
		if (slot >= 0)
			view_set_null(v, to);
		return true;
	case JSON_OBJECT:
	case JSON_ARRAY:
	case JSON_REAL:
		break;
	}
	return false;
}
