/* jinja_call.c: calling things, and the functions that a template finds without being given them. */
#include <string.h>
#include <time.h>

#include "engine/text/jinja_eval.h"

static int name_is(const struct jstr *a, const char *s)
{
	return a->n == strlen(s) && memcmp(a->s, s, a->n) == 0;
}

int args_bind(struct render *r, const char *what, const struct jargs *args, int n_required, const char *const *names, int n,
              struct jval *out)
{
	if (args->n > (size_t)n) {
		render_fail(r, "%s takes at most %d arguments (%zu given)", what, n, args->n);
		return -1;
	}
	for (int i = 0; i < n; i++)
		out[i] = (size_t)i < args->n ? args->values[i] : (struct jval){.type = J_MISSING};
	for (size_t k = 0; k < args->n_keywords; k++) {
		const struct jkeyword *keyword = &args->keywords[k];
		int i = 0;

		while (i < n && !name_is(keyword->name, names[i]))
			i++;
		if (i == n || out[i].type != J_MISSING) {
			render_fail(r,
			            i == n ? "%s got an unexpected keyword argument '%.*s'" : "%s got multiple values for argument '%.*s'",
			            what, (int)(keyword->name->n < 100 ? keyword->name->n : 100), keyword->name->s);
			return -1;
		}
		out[i] = keyword->value;
	}
	for (int i = 0; i < n_required; i++)
		if (out[i].type == J_MISSING) {
			render_fail(r, "%s misses its argument '%s'", what, names[i] + (names[i][0] == '/'));
			return -1;
		}
	return 0;
}

int args_none(struct render *r, const char *what, const struct jargs *args)
{
	return args_bind(r, what, args, 0, NULL, 0, NULL);
}

int64_t arg_int(struct render *r, const char *what, struct jval v, int64_t otherwise)
{
	if (v.type == J_MISSING)
		return otherwise;
	if (v.type == J_UNDEFINED) {
		render_fail_undefined(r, v);
		return otherwise;
	}
	if (!jval_is_integer(v)) {
		render_fail(r, "%s: '%s' object cannot be interpreted as an integer", what, jval_type_name(v));
		return otherwise;
	}
	if (jval_as_int(v) > INT64_MAX || jval_as_int(v) < INT64_MIN) {
		render_fail(r, "%s: the integer is too large", what);
		return otherwise;
	}
	return (int64_t)jval_as_int(v);
}

const struct jstr *arg_str(struct render *r, const char *what, struct jval v)
{
	if (v.type == J_STR)
		return v.str;
	if (v.type == J_UNDEFINED)
		render_fail_undefined(r, v);
	else
		render_fail(r, "%s: a string is expected, not '%s'", what, jval_type_name(v));
	return NULL;
}

/* The arguments into the macro's frame, by the rules of jinja2.runtime.Macro.__call__. */
static int bind_macro(struct render *r, const struct node *n, struct frame *f, const struct jargs *args)
{
	size_t n_parameters = n->items.n, n_taken = args->n < n_parameters ? args->n : n_parameters;
	struct jdict *rest = dict_new(r);
	struct jval caller = {.type = J_MISSING};

	for (size_t i = 0; i < n_taken; i++)
		f->slots[n->items.nodes[i]->slot] = args->values[i];
	for (size_t k = 0; k < args->n_keywords; k++) {
		const struct jkeyword *keyword = &args->keywords[k];
		size_t i = n_taken;

		while (i < n_parameters && !(n->items.nodes[i]->name->n == keyword->name->n &&
		                             memcmp(n->items.nodes[i]->name->s, keyword->name->s, keyword->name->n) == 0))
			i++;
		if (i < n_parameters)
			f->slots[n->items.nodes[i]->slot] = keyword->value;
		else if (n->slot_caller >= 0 && name_is(keyword->name, "caller"))
			caller = keyword->value;
		else
			dict_set(r, rest, (struct jval){.type = J_STR, .str = keyword->name}, keyword->value);
	}
	if (n->slot_caller >= 0)
		f->slots[n->slot_caller] =
		    caller.type == J_MISSING || caller.type == J_NONE ? jval_undefined_hint(r, "No caller defined") : caller;
	if (n->slot_kwargs >= 0) {
		f->slots[n->slot_kwargs] = jval_dict(rest);
	} else if (rest->n) {
		const struct jstr *name = rest->entries[0].key.str;

		render_fail(r, "macro takes no keyword argument '%.*s'", (int)(name->n < 100 ? name->n : 100), name->s);
	}
	if (n->slot_varargs >= 0) {
		struct jlist *l = list_new(r, args->n - n_taken);

		for (size_t i = n_taken; i < args->n; i++)
			list_add(r, l, args->values[i]);
		f->slots[n->slot_varargs] = jval_tuple(l);
	} else if (args->n > n_parameters) {
		render_fail(r, "macro takes not more than %zu argument(s)", n_parameters);
	}
	return r->failed ? -1 : 0;
}

static int enter_call(struct render *r)
{
	if (r->n_calls >= JINJA_MAX_CALLS) {
		render_fail(r, "calls nested more than %d deep", JINJA_MAX_CALLS);
		return 0;
	}
	r->n_calls++;
	return 1;
}

struct jval call_macro(struct render *r, const struct jmacro *m, const struct jargs *args)
{
	const struct node *n = m->node;
	struct frame *f = frame_new(r, n->scope, m->frame);
	struct buf text = {0}, *outer = r->out;
	size_t first_default = n->items.n - n->defaults.n;

	if (!f || !enter_call(r))
		return jval_none();
	if (bind_macro(r, n, f, args) == 0) {
		frame_enter(r, f);
		for (size_t i = 0; i < n->items.n && !r->failed; i++) {
			struct jval *slot = &f->slots[n->items.nodes[i]->slot];

			if (slot->type != J_MISSING)
				continue;
			if (i >= first_default)
				*slot = eval(r, f, n->defaults.nodes[i - first_default]);
			else
				*slot = jval_undefined_hint(r, "parameter '%.*s' was not provided", (int)n->items.nodes[i]->name->n,
				                            n->items.nodes[i]->name->s);
		}
		r->out = &text;
		exec_body(r, f, &n->body);
		r->out = outer;
	}
	r->n_calls--;
	return jval_text(r, &text);
}

static struct jval call_loop(struct render *r, struct jloop *l, const struct jargs *args)
{
	static const char *const names[] = {"iterable"};
	struct jval iterable, text;

	if (!l->node->recursive)
		return render_fail(r, "the loop must have the 'recursive' marker to be called recursively");
	if (args_bind(r, "loop()", args, 1, names, 1, &iterable) || !enter_call(r))
		return jval_none();
	text = run_loop(r, l->frame, l->node, iterable, l->depth0 + 1);
	r->n_calls--;
	return text;
}

struct jval call_value(struct render *r, struct jval callee, const struct jargs *args)
{
	switch (callee.type) {
	case J_MACRO:
		return call_macro(r, callee.macro, args);
	case J_FUNCTION:
		return callee.function->call(r, args);
	case J_METHOD:
		if (!callee.bound->method->call)
			return render_fail(r, "%s.%s() is not supported", jval_type_name(callee.bound->self), callee.bound->method->name);
		return callee.bound->method->call(r, callee.bound->self, args);
	case J_LOOP:
		return call_loop(r, callee.loop, args);
	case J_JOINER:
		if (args_none(r, "joiner()", args))
			return jval_none();
		if (callee.joiner->used)
			return callee.joiner->separator;
		callee.joiner->used = 1;
		return jval_strz(r, "");
	case J_UNDEFINED:
		return render_fail_undefined(r, callee);
	default:
		return render_fail(r, "'%s' object is not callable", jval_type_name(callee));
	}
}

static struct jval call_range(struct render *r, const struct jargs *args)
{
	static const char *const names[] = {"/a", "/b", "/c"};
	struct jval v[3];
	struct jrange *g;
	__int128 start = 0, stop, step, n;

	if (args_bind(r, "range()", args, 1, names, 3, v))
		return jval_none();
	stop = arg_int(r, "range()", v[0], 0);
	if (v[1].type != J_MISSING) {
		start = stop;
		stop = arg_int(r, "range()", v[1], 0);
	}
	step = arg_int(r, "range()", v[2], 1);
	if (r->failed)
		return jval_none();
	if (step == 0)
		return render_fail(r, "range() arg 3 must not be zero");
	n = step > 0 ? (stop - start + step - 1) / step : (start - stop - step - 1) / -step;
	if (n < 0)
		n = 0;
	if (n > 100000) /* jinja2.sandbox.MAX_RANGE */
		return render_fail(r, "range too big: the sandbox allows 100000 numbers");
	g = render_alloc(r, sizeof(*g));
	*g = (struct jrange){.start = (int64_t)start, .step = (int64_t)step, .n = (int64_t)n};
	return (struct jval){.type = J_RANGE, .range = g};
}

/* dict(mapping or pairs, **more) */
static struct jdict *make_dict(struct render *r, const char *what, const struct jargs *args)
{
	struct jdict *d = dict_new(r);

	if (args->n > 1)
		render_fail(r, "%s expected at most 1 argument, got %zu", what, args->n);
	if (args->n == 1 && args->values[0].type == J_DICT) {
		for (size_t i = 0; i < args->values[0].dict->n; i++)
			dict_set(r, d, args->values[0].dict->entries[i].key, args->values[0].dict->entries[i].value);
	} else if (args->n == 1) {
		struct jiter *it = iter_open(r, args->values[0]);
		struct jval v;

		while (it && iter_next(r, it, &v)) {
			struct jlist *pair = list_of(r, v);

			if (!r->failed && pair->n != 2)
				render_fail(r, "%s: an element of length %zu where 2 is required", what, pair->n);
			if (!r->failed)
				dict_set(r, d, pair->items[0], pair->items[1]);
		}
	}
	for (size_t i = 0; i < args->n_keywords; i++)
		dict_set(r, d, (struct jval){.type = J_STR, .str = args->keywords[i].name}, args->keywords[i].value);
	return d;
}

static struct jval call_dict(struct render *r, const struct jargs *args)
{
	return jval_dict(make_dict(r, "dict()", args));
}

static struct jval call_namespace(struct render *r, const struct jargs *args)
{
	struct jdict *d = make_dict(r, "namespace()", args);

	for (size_t i = 0; i < d->n; i++)
		if (d->entries[i].key.type == J_STR && d->entries[i].key.str->n && d->entries[i].key.str->s[0] == '_')
			return render_fail(r, "a namespace cannot have the attribute '%.*s': it starts with an underscore",
			                   (int)d->entries[i].key.str->n, d->entries[i].key.str->s);
	return (struct jval){.type = J_NAMESPACE, .dict = d};
}

static struct jval call_cycler(struct render *r, const struct jargs *args)
{
	struct jcycler *c = render_alloc(r, sizeof(*c));

	if (args->n_keywords)
		return render_fail(r, "cycler() takes no keyword arguments");
	if (args->n == 0)
		return render_fail(r, "cycler(): at least one item has to be provided");
	*c = (struct jcycler){.items = list_new(r, args->n)};
	for (size_t i = 0; i < args->n; i++)
		list_add(r, c->items, args->values[i]);
	return (struct jval){.type = J_CYCLER, .cycler = c};
}

static struct jval call_joiner(struct render *r, const struct jargs *args)
{
	static const char *const names[] = {"sep"};
	struct jjoiner *j = render_alloc(r, sizeof(*j));
	struct jval v;

	if (args_bind(r, "joiner()", args, 0, names, 1, &v))
		return jval_none();
	*j = (struct jjoiner){.separator = v.type == J_MISSING ? jval_strz(r, ", ") : v};
	return (struct jval){.type = J_JOINER, .joiner = j};
}

static struct jval call_raise_exception(struct render *r, const struct jargs *args)
{
	static const char *const names[] = {"message"};
	const struct jstr *s;
	struct jval v;

	if (args_bind(r, "raise_exception()", args, 1, names, 1, &v))
		return jval_none();
	s = jval_to_str(r, v);
	return render_fail_plain(r, s->s, s->n);
}

static struct jval call_strftime_now(struct render *r, const struct jargs *args)
{
	static const char *const names[] = {"format"};
	time_t now = (time_t)r->now_unix_s;
	char text[4096];
	const struct jstr *s;
	struct buf format = {0};
	struct jval v;
	struct tm tm;
	size_t n;

	if (args_bind(r, "strftime_now()", args, 1, names, 1, &v))
		return jval_none();
	s = arg_str(r, "strftime_now()", v);
	if (!s)
		return jval_none();
	if (!gmtime_r(&now, &tm))
		return render_fail(r, "strftime_now(): no such time");
	/* datetime.strftime knows %f (microseconds) and leaves %z and %Z of a time without zone empty. */
	for (size_t i = 0; i < s->n; i++) {
		if (s->s[i] == '%' && i + 1 < s->n && strchr("fzZ%", s->s[i + 1]) && s->s[i + 1]) {
			buf_adds(&format, s->s[i + 1] == 'f' ? "000000" : s->s[i + 1] == '%' ? "%%" : "");
			i++;
		} else {
			buf_addc(&format, s->s[i]);
		}
	}
	n = strftime(text, sizeof(text), buf_str(&format), &tm);
	if (n == 0 && format.len > 0 && format.len >= sizeof(text))
		render_fail(r, "strftime_now(): the format is too long");
	buf_release(&format);
	return jval_str(r, text, n);
}

struct jval global_find(struct render *r, const struct jstr *name)
{
	static const struct jfunction functions[] = {
	    {"range", call_range},
	    {"dict", call_dict},
	    {"namespace", call_namespace},
	    {"cycler", call_cycler},
	    {"joiner", call_joiner},
	    {"raise_exception", call_raise_exception},
	    {"strftime_now", call_strftime_now},
	};

	for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++)
		if (name_is(name, functions[i].name))
			return (struct jval){.type = J_FUNCTION, .function = &functions[i]};
	return (struct jval){.type = J_MISSING};
}
