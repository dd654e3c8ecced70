/* jinja_tests.c: what may follow `is`. */
#include <string.h>

#include "engine/text/jinja_eval.h"

static int no_arguments(struct render *r, const struct jargs *args)
{
	return args_none(r, "the test", args) == 0;
}

static int one_argument(struct render *r, const struct jargs *args, struct jval *out)
{
	static const char *const names[] = {"/other"};

	return args_bind(r, "the test", args, 1, names, 1, out) == 0;
}

static int t_defined(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && v.type != J_UNDEFINED;
}

static int t_undefined(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && v.type == J_UNDEFINED;
}

static int t_none(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && v.type == J_NONE;
}

static int t_boolean(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && v.type == J_BOOL;
}

static int t_true(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && v.type == J_BOOL && v.flag;
}

static int t_false(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && v.type == J_BOOL && !v.flag;
}

static int t_integer(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && v.type == J_INT;
}

static int t_float(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && v.type == J_FLOAT;
}

static int t_number(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && jval_is_number(v);
}

static int t_string(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && v.type == J_STR;
}

static int t_escaped(struct render *r, struct jval v, const struct jargs *args)
{
	if (v.type == J_UNDEFINED)
		return no_arguments(r, args) && 0;
	return no_arguments(r, args) && v.type == J_STR && v.flag;
}

static int t_mapping(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && v.type == J_DICT;
}

/* What has a length and subscripts; an undefined value has both, as far as Python can see. */
static int t_sequence(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && (v.type == J_UNDEFINED || v.type == J_STR || v.type == J_LIST || v.type == J_TUPLE ||
	                                 v.type == J_DICT || v.type == J_RANGE);
}

static int t_iterable(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && jval_is_iterable(v);
}

static int t_callable(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && (v.type == J_UNDEFINED || v.type == J_MACRO || v.type == J_FUNCTION || v.type == J_METHOD ||
	                                 v.type == J_JOINER || v.type == J_LOOP);
}

static int t_lower(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && str_is_lower(jval_to_str(r, v));
}

static int t_upper(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && str_is_upper(jval_to_str(r, v));
}

/* value % divisor == remainder, with whatever % means for the value. */
static int remainder_is(struct render *r, struct jval v, struct jval divisor, int remainder)
{
	v = op_binary(r, N_MOD, v, divisor);
	return !r->failed && jval_equal(r, v, jval_int(remainder));
}

static int t_odd(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && remainder_is(r, v, jval_int(2), 1);
}

static int t_even(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && remainder_is(r, v, jval_int(2), 0);
}

static int t_divisibleby(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"num"};
	struct jval by;

	return args_bind(r, "divisibleby", args, 1, names, 1, &by) == 0 && remainder_is(r, v, by, 0);
}

static int t_eq(struct render *r, struct jval v, const struct jargs *args)
{
	struct jval other;

	return one_argument(r, args, &other) && jval_equal(r, v, other);
}

static int t_ne(struct render *r, struct jval v, const struct jargs *args)
{
	struct jval other;

	return one_argument(r, args, &other) && !jval_equal(r, v, other);
}

static int t_lt(struct render *r, struct jval v, const struct jargs *args)
{
	struct jval other;

	return one_argument(r, args, &other) && jval_less(r, v, other);
}

static int t_gt(struct render *r, struct jval v, const struct jargs *args)
{
	struct jval other;

	return one_argument(r, args, &other) && jval_less(r, other, v);
}

static int t_le(struct render *r, struct jval v, const struct jargs *args)
{
	struct jval other;

	return one_argument(r, args, &other) && jval_at_most(r, v, other);
}

static int t_ge(struct render *r, struct jval v, const struct jargs *args)
{
	struct jval other;

	return one_argument(r, args, &other) && jval_at_most(r, other, v);
}

static int t_in(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"seq"};
	struct jval seq;

	return args_bind(r, "in", args, 1, names, 1, &seq) == 0 && jval_contains(r, seq, v);
}

static int t_sameas(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"other"};
	struct jval other;

	return args_bind(r, "sameas", args, 1, names, 1, &other) == 0 && jval_same(v, other);
}

/* The name is looked for in a dict: what cannot be a key is an error. */
static int may_be_name(struct render *r, struct jval v)
{
	if (!jval_is_hashable(v))
		render_fail(r, "unhashable type: '%s'", jval_type_name(v));
	return v.type == J_STR;
}

static int t_filter(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && may_be_name(r, v) && filter_find(v.str) != NULL;
}

static int t_test(struct render *r, struct jval v, const struct jargs *args)
{
	return no_arguments(r, args) && may_be_name(r, v) && test_find(v.str) != NULL;
}

const struct jtest *test_find(const struct jstr *name)
{
	static const struct jtest tests[] = {
	    {"defined", t_defined},
	    {"undefined", t_undefined},
	    {"none", t_none},
	    {"boolean", t_boolean},
	    {"true", t_true},
	    {"false", t_false},
	    {"integer", t_integer},
	    {"float", t_float},
	    {"number", t_number},
	    {"string", t_string},
	    {"escaped", t_escaped},
	    {"mapping", t_mapping},
	    {"sequence", t_sequence},
	    {"iterable", t_iterable},
	    {"callable", t_callable},
	    {"lower", t_lower},
	    {"upper", t_upper},
	    {"odd", t_odd},
	    {"even", t_even},
	    {"divisibleby", t_divisibleby},
	    {"in", t_in},
	    {"sameas", t_sameas},
	    {"filter", t_filter},
	    {"test", t_test},
	    {"eq", t_eq},
	    {"equalto", t_eq},
	    {"==", t_eq},
	    {"ne", t_ne},
	    {"!=", t_ne},
	    {"lt", t_lt},
	    {"lessthan", t_lt},
	    {"<", t_lt},
	    {"le", t_le},
	    {"<=", t_le},
	    {"gt", t_gt},
	    {"greaterthan", t_gt},
	    {">", t_gt},
	    {"ge", t_ge},
	    {">=", t_ge},
	};

	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		if (strlen(tests[i].name) == name->n && memcmp(tests[i].name, name->s, name->n) == 0)
			return &tests[i];
	return NULL;
}

int test_call_named(struct render *r, struct jval name, struct jval value, const struct jargs *args)
{
	const struct jtest *t = name.type == J_STR ? test_find(name.str) : NULL;
	const struct jstr *shown;

	if (t)
		return t->call(r, value, args);
	shown = jval_to_str(r, name);
	render_fail(r, "no test named '%.*s'", (int)(shown->n < 100 ? shown->n : 100), shown->s);
	return 0;
}
