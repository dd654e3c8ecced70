/* prices_sheet.c: a price sheet from YAML or JSON. libyaml parses it into a tree of nodes that know their lines; nothing here
 * recurses, and an alias is followed as often as the sheet's own form allows, which is three levels deep. */
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/mem.h"
#include "jobs/day.h"
#include "jobs/prices_private.h"

#define NAME_MAX_BYTES 256
#define GPUS_MAX 1024

struct sheet {
	yaml_document_t *doc;
	const char *name;
	struct err *err;
};

static int line_of(const yaml_node_t *n)
{
	return (int)n->start_mark.line + 1;
}

static int fault(const struct sheet *s, const yaml_node_t *at, const char *where, const char *key, const char *what)
{
	err_set(s->err, ERR_INPUT, "%s:%d: %s%s%s%s%s", s->name, line_of(at), where, where[0] && key[0] ? "." : "", key,
	        where[0] || key[0] ? ": " : "", what);
	return -1;
}

static const char *text_of(const yaml_node_t *n)
{
	return (const char *)n->data.scalar.value;
}

/* Keys of a mapping, in the order of the table below. */
struct member {
	const char *key;
	const yaml_node_t *value; /* NULL: not given */
};

static int read_mapping(const struct sheet *s, const yaml_node_t *n, const char *where, struct member *members,
                        size_t n_members)
{
	if (n->type != YAML_MAPPING_NODE)
		return fault(s, n, where, "", "must be a mapping of keys to values");
	for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
		const yaml_node_t *k = yaml_document_get_node(s->doc, p->key), *v = yaml_document_get_node(s->doc, p->value);
		struct member *m = NULL;

		if (!k || !v || k->type != YAML_SCALAR_NODE || strlen(text_of(k)) != k->data.scalar.length)
			return fault(s, k ? k : n, where, "", "a key must be plain text");
		for (size_t i = 0; i < n_members && !m; i++)
			if (strcmp(members[i].key, text_of(k)) == 0)
				m = &members[i];
		if (!m)
			return fault(s, k, where, text_of(k), "unknown key");
		if (m->value)
			return fault(s, k, where, m->key, "given twice");
		m->value = v;
	}
	return 0;
}

static int read_name(const struct sheet *s, const yaml_node_t *at, const char *where, const struct member *m, char **out)
{
	if (!m->value)
		return fault(s, at, where, m->key, "missing");
	if (m->value->type != YAML_SCALAR_NODE)
		return fault(s, m->value, where, m->key, "must be a name");
	if (m->value->data.scalar.length == 0 || m->value->data.scalar.length > NAME_MAX_BYTES ||
	    strlen(text_of(m->value)) != m->value->data.scalar.length)
		return fault(s, m->value, where, m->key, "must be a name of 1 to 256 bytes");
	*out = xstrdup(text_of(m->value));
	return 0;
}

/* Plain and not quoted: "0.5" in quotes is text in JSON and in YAML. */
static int read_decimal(const struct sheet *s, const yaml_node_t *at, const char *where, const struct member *m, int decimals,
                        int64_t max, int is_required, int64_t *out)
{
	char what[80];

	if (!m->value)
		return is_required ? fault(s, at, where, m->key, "missing") : 0;
	if (m->value->type != YAML_SCALAR_NODE || m->value->data.scalar.style != YAML_PLAIN_SCALAR_STYLE ||
	    strcmp((const char *)m->value->tag, YAML_STR_TAG) != 0)
		return fault(s, m->value, where, m->key, "must be a number");
	switch (decimal_parse(text_of(m->value), m->value->data.scalar.length, decimals, max, out)) {
	case DECIMAL_OK:
		return 0;
	case DECIMAL_NEGATIVE:
		return fault(s, m->value, where, m->key, "must not be negative");
	case DECIMAL_TOO_FINE:
		snprintf(what, sizeof(what), decimals ? "has more than %d decimals" : "must be a whole number", decimals);
		return fault(s, m->value, where, m->key, what);
	case DECIMAL_TOO_LARGE:
		snprintf(what, sizeof(what), "is more than %lld", (long long)max);
		return fault(s, m->value, where, m->key, what);
	case DECIMAL_NOT_PLAIN:
		break;
	}
	return fault(s, m->value, where, m->key, "must be a number such as 0.25");
}

static int read_price(const struct sheet *s, const yaml_node_t *at, const char *where, const struct member *m, int is_required,
                      int64_t *out)
{
	return read_decimal(s, at, where, m, PRICE_DECIMALS, PRICE_MAX, is_required, out);
}

static int read_from(const struct sheet *s, const char *where, const struct member *m, int64_t *out)
{
	*out = PRICES_SINCE_EVER;
	if (!m->value)
		return 0;
	if (m->value->type != YAML_SCALAR_NODE || day_parse(text_of(m->value), m->value->data.scalar.length, out) < 0)
		return fault(s, m->value, where, m->key, "must be a day such as 2026-01-31");
	return 0;
}

static int read_model(const struct sheet *s, struct prices *p, const yaml_node_t *n, const char *where, int64_t discount)
{
	struct member k[] = {{"model", NULL},  {"from", NULL},      {"input", NULL},         {"cached_input", NULL},
	                     {"output", NULL}, {"reasoning", NULL}, {"batch_discount", NULL}};
	struct model_price *m;

	if (read_mapping(s, n, where, k, sizeof(k) / sizeof(*k)) < 0)
		return -1;
	MEM_GROW(p->models, p->cap_models, p->n_models + 1);
	m = &p->models[p->n_models++];
	*m = (struct model_price){.line = line_of(n), .discount = discount};
	if (read_name(s, n, where, &k[0], &m->model) < 0 || read_from(s, where, &k[1], &m->from) < 0 ||
	    read_price(s, n, where, &k[2], 1, &m->input) < 0 || read_price(s, n, where, &k[4], 1, &m->output) < 0)
		return -1;
	m->cached_input = m->input;
	m->reasoning = m->output;
	if (read_price(s, n, where, &k[3], 0, &m->cached_input) < 0 || read_price(s, n, where, &k[5], 0, &m->reasoning) < 0)
		return -1;
	return read_decimal(s, n, where, &k[6], SHARE_DECIMALS, 1, 0, &m->discount);
}

static int read_node(const struct sheet *s, struct prices *p, const yaml_node_t *n, const char *where, int64_t discount)
{
	struct member k[] = {{"node", NULL}, {"from", NULL},          {"gpu", NULL},
	                     {"gpus", NULL}, {"per_node_hour", NULL}, {"per_gpu_hour", NULL}};
	struct node_entry *e;

	(void)discount;
	if (read_mapping(s, n, where, k, sizeof(k) / sizeof(*k)) < 0)
		return -1;
	MEM_GROW(p->nodes, p->cap_nodes, p->n_nodes + 1);
	e = &p->nodes[p->n_nodes++];
	*e = (struct node_entry){.line = line_of(n), .per_node_hour = PRICE_NONE, .per_gpu_hour = PRICE_NONE};
	if (read_name(s, n, where, &k[0], &e->node) < 0 || read_from(s, where, &k[1], &e->from) < 0)
		return -1;
	if (k[2].value && read_name(s, n, where, &k[2], &e->gpu) < 0)
		return -1;
	if (k[2].value || k[5].value)
		e->n_gpus = 1;
	if (read_decimal(s, n, where, &k[3], 0, GPUS_MAX, 0, &e->n_gpus) < 0 ||
	    read_price(s, n, where, &k[4], 0, &e->per_node_hour) < 0 || read_price(s, n, where, &k[5], 0, &e->per_gpu_hour) < 0)
		return -1;
	if (k[4].value && k[5].value)
		return fault(s, k[5].value, where, k[5].key, "give per_node_hour or per_gpu_hour, not both");
	if (!k[4].value && !k[5].value && !k[2].value)
		return fault(s, n, where, k[4].key, "missing (or per_gpu_hour, or a gpu that is listed under gpus)");
	return 0;
}

static int read_gpu(const struct sheet *s, struct prices *p, const yaml_node_t *n, const char *where, int64_t discount)
{
	struct member k[] = {{"gpu", NULL}, {"from", NULL}, {"per_gpu_hour", NULL}};
	struct gpu_entry *e;

	(void)discount;
	if (read_mapping(s, n, where, k, sizeof(k) / sizeof(*k)) < 0)
		return -1;
	MEM_GROW(p->gpus, p->cap_gpus, p->n_gpus + 1);
	e = &p->gpus[p->n_gpus++];
	*e = (struct gpu_entry){.line = line_of(n)};
	if (read_name(s, n, where, &k[0], &e->gpu) < 0 || read_from(s, where, &k[1], &e->from) < 0)
		return -1;
	return read_price(s, n, where, &k[2], 1, &e->per_gpu_hour);
}

static int read_list(const struct sheet *s, struct prices *p, const struct member *m, int64_t discount,
                     int (*read)(const struct sheet *, struct prices *, const yaml_node_t *, const char *, int64_t))
{
	const yaml_node_t *n = m->value;
	char where[40];

	if (!n)
		return 0;
	if (n->type != YAML_SEQUENCE_NODE)
		return fault(s, n, "", m->key, "must be a list");
	for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
		snprintf(where, sizeof(where), "%s[%lld]", m->key, (long long)(i - n->data.sequence.items.start));
		if (read(s, p, yaml_document_get_node(s->doc, *i), where, discount) < 0)
			return -1;
	}
	return 0;
}

static int read_sheet(const struct sheet *s, struct prices *p)
{
	struct member k[] = {{"currency", NULL}, {"batch_discount", NULL}, {"models", NULL}, {"nodes", NULL}, {"gpus", NULL}};
	const yaml_node_t *root = yaml_document_get_root_node(s->doc);
	int64_t discount = 0;
	char *currency = NULL;
	int ok;

	if (!root)
		return err_set(s->err, ERR_INPUT, "%s: nothing in it", s->name);
	if (read_mapping(s, root, "", k, sizeof(k) / sizeof(*k)) < 0 || read_name(s, root, "", &k[0], &currency) < 0)
		return -1;
	ok = strlen(currency) == 3 && strspn(currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 3;
	if (ok)
		memcpy(p->currency, currency, 4);
	free(currency);
	if (!ok)
		return fault(s, k[0].value, "", k[0].key, "must be a code of three capital letters such as USD");
	if (read_decimal(s, root, "", &k[1], SHARE_DECIMALS, 1, 0, &discount) < 0 ||
	    read_list(s, p, &k[2], discount, read_model) < 0 || read_list(s, p, &k[3], discount, read_node) < 0 ||
	    read_list(s, p, &k[4], discount, read_gpu) < 0 || prices_arrange(p, s->err) < 0)
		return -1;
	for (size_t i = 0; i < p->n_nodes; i++) {
		const struct node_entry *e = &p->nodes[i];
		int found = e->per_node_hour != PRICE_NONE || e->per_gpu_hour != PRICE_NONE;

		for (size_t g = 0; g < p->n_gpus && !found; g++)
			found = strcmp(p->gpus[g].gpu, e->gpu) == 0 || prices_matches(p->gpus[g].gpu, e->gpu);
		if (!found)
			return err_set(s->err, ERR_INPUT,
			               "%s:%d: node '%s': gpu '%s' is not under gpus, and there is no per_node_hour or per_gpu_hour",
			               s->name, e->line, e->node, e->gpu);
	}
	return 0;
}

struct prices *prices_parse(const char *name, const char *text, size_t n, struct err *err)
{
	struct prices *p = xcalloc(1, sizeof(*p));
	yaml_parser_t parser;
	yaml_document_t doc, more;
	struct sheet s = {.doc = &doc, .name = name, .err = err};
	int ok = 0;

	p->name = xstrdup(name);
	if (!yaml_parser_initialize(&parser)) {
		err_set(err, ERR_INPUT, "%s: out of memory", name);
		prices_free(p);
		return NULL;
	}
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
	if (yaml_parser_load(&parser, &doc)) {
		ok = read_sheet(&s, p) == 0;
		if (ok && yaml_parser_load(&parser, &more)) {
			if (yaml_document_get_root_node(&more))
				ok = err_set(err, ERR_INPUT, "%s:%d: a second document begins here", name, (int)more.start_mark.line + 1) == 0;
			yaml_document_delete(&more);
		} else if (ok) {
			ok = 0;
		}
		yaml_document_delete(&doc);
	}
	if (!ok) /* nothing happens to an error that is told already */
		err_set(err, ERR_INPUT, "%s:%d: %s%s%s", name, (int)parser.problem_mark.line + 1,
		        parser.problem ? parser.problem : "cannot be read", parser.context ? " " : "",
		        parser.context ? parser.context : "");
	yaml_parser_delete(&parser);
	if (!ok) {
		prices_free(p);
		p = NULL;
	}
	return p;
}
