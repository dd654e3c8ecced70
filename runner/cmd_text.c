/* cmd_text.c: tokenize, detokenize, render: what the model's text side makes of lines, for looking and for tests. Needs no
 * weights. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/mem.h"
#include "engine/text/text.h"
#include "runner/commands.h"
#include "runner/input.h"
#include "runner/prompt.h"

struct text_options {
	const char *model;
	int whole, json, no_special, no_parse, skip_special, ids;
};

#define TEXT_FIELD(name) offsetof(struct text_options, name)
#define MODEL_OPTION                                                                                                           \
	{                                                                                                                          \
		"model", 'm', OPTION_STRING, TEXT_FIELD(model), "MODEL", "the model: .gguf file or directory", 0, 0, NULL              \
	}

static const struct option_spec tokenize_options[] = {
    MODEL_OPTION,
    {"whole", 0, OPTION_FLAG, TEXT_FIELD(whole), NULL, "the file as one text", 0, 0, NULL},
    {"json", 0, OPTION_FLAG, TEXT_FIELD(json), NULL, "each line is a JSON string", 0, 0, NULL},
    {"no-special", 0, OPTION_FLAG, TEXT_FIELD(no_special), NULL, "without what the tokenizer adds (BOS)", 0, 0, NULL},
    {"no-parse", 0, OPTION_FLAG, TEXT_FIELD(no_parse), NULL, "special tokens written in the text are plain text", 0, 0, NULL},
    {0},
};
static const struct option_spec detokenize_options[] = {
    MODEL_OPTION,
    {"json", 0, OPTION_FLAG, TEXT_FIELD(json), NULL, "write each text as a JSON string", 0, 0, NULL},
    {"skip-special", 0, OPTION_FLAG, TEXT_FIELD(skip_special), NULL, "leave special tokens out", 0, 0, NULL},
    {0},
};
static const struct option_spec render_options[] = {
    MODEL_OPTION,
    {"json", 0, OPTION_FLAG, TEXT_FIELD(json), NULL, "write each prompt as a JSON string", 0, 0, NULL},
    {"ids", 0, OPTION_FLAG, TEXT_FIELD(ids), NULL, "write the prompt's token ids instead", 0, 0, NULL},
    {0},
};

static struct text *open_text(const struct text_options *o, int n_args, struct err *err)
{
	if (!o->model) {
		err_set(err, ERR_USAGE, "--model is missing");
		return NULL;
	}
	if (n_args > 1) {
		err_set(err, ERR_USAGE, "give one file, or - for standard input");
		return NULL;
	}
	return text_open(o->model, err);
}

static FILE *open_file(char **args, int n_args, struct err *err)
{
	FILE *f;

	if (n_args == 0 || strcmp(args[0], "-") == 0)
		return stdin;
	f = fopen(args[0], "rbe");
	if (!f)
		err_sys(err, ERR_INPUT, "cannot open %s", args[0]);
	return f;
}

/* One line without its newline; every other byte counts. 1, 0 at the end. */
static int read_line(FILE *f, char **line, size_t *cap, size_t *n)
{
	ssize_t got = getline(line, cap, f);

	if (got < 0)
		return 0;
	*n = (size_t)got;
	if (*n && (*line)[*n - 1] == '\n')
		(*n)--;
	return 1;
}

static int end_output(struct err *err)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		return err_sys(err, ERR_OTHER, "cannot write to standard output");
	return 0;
}

static void print_ids(const struct token_list *ids)
{
	putchar('[');
	for (size_t i = 0; i < ids->n; i++)
		printf(i ? ",%d" : "%d", ids->ids[i]);
	puts("]");
}

static int tokenize_line(struct encoder *e, const struct text_options *o, const char *text, size_t n, struct token_list *ids,
                         struct err *err)
{
	unsigned flags = (o->no_special ? 0 : ENCODE_ADD_SPECIAL) | (o->no_parse ? ENCODE_NO_PARSE : 0);
	yyjson_doc *doc = NULL;
	int r = 0;

	if (o->json) {
		doc = json_parse(text, n, ERR_INPUT, err);
		if (!yyjson_is_str(yyjson_doc_get_root(doc)))
			r = err_set(err, ERR_INPUT, "a line must be a JSON string");
		text = yyjson_get_str(yyjson_doc_get_root(doc));
		n = yyjson_get_len(yyjson_doc_get_root(doc));
	}
	ids->n = 0;
	if (r == 0)
		r = encoder_encode(e, text, n, flags, ids, err);
	if (r == 0)
		print_ids(ids);
	yyjson_doc_free(doc);
	return r;
}

static int run_tokenize(const void *options, char **args, int n_args, struct err *err)
{
	const struct text_options *o = options;
	struct text *text = open_text(o, n_args, err);
	FILE *f = text ? open_file(args, n_args, err) : NULL;
	struct token_list ids = {0};
	struct encoder *e;
	char *line = NULL;
	size_t cap = 0, n;
	int64_t number = 0;
	int r = 0;

	if (!f) {
		text_free(text);
		return -1;
	}
	e = encoder_new(text->tokenizer);
	if (o->whole) {
		struct buf all = {0};
		char block[65536];

		while ((n = fread(block, 1, sizeof(block), f)) > 0)
			buf_add(&all, block, n);
		r = tokenize_line(e, o, buf_str(&all), all.len, &ids, err);
		buf_release(&all);
	} else {
		while (r == 0 && read_line(f, &line, &cap, &n)) {
			number++;
			r = tokenize_line(e, o, line, n, &ids, err);
		}
		if (r < 0)
			err_context(err, "line %lld", (long long)number);
	}
	if (ferror(f) && r == 0)
		r = err_sys(err, ERR_INPUT, "cannot read %s", n_args ? args[0] : "standard input");
	if (r == 0)
		r = end_output(err);
	free(line);
	token_list_release(&ids);
	encoder_free(e);
	if (f != stdin)
		fclose(f);
	text_free(text);
	return r;
}

static int detokenize_line(const struct text *t, const struct text_options *o, const char *line, size_t n, struct err *err)
{
	yyjson_doc *doc = json_parse(line, n, ERR_INPUT, err);
	yyjson_val *root = yyjson_doc_get_root(doc), *v;
	struct token_list ids = {0};
	struct buf out = {0};
	size_t i, max;
	int r = 0;

	if (!yyjson_is_arr(root))
		r = err_set(err, ERR_INPUT, "a line must be a JSON array of token ids");
	yyjson_arr_foreach (root, i, max, v) {
		if (r == 0 && (!yyjson_is_uint(v) || yyjson_get_uint(v) >= (uint64_t)tokenizer_n_vocab(t->tokenizer)))
			r = err_set(err, ERR_INPUT, "element %zu is not a token id from 0 to %d", i, tokenizer_n_vocab(t->tokenizer) - 1);
		else
			token_list_add(&ids, (int32_t)yyjson_get_uint(v));
	}
	if (r == 0) {
		struct buf text = {0};

		tokenizer_decode(t->tokenizer, ids.ids, ids.n, o->skip_special, &text);
		if (o->json)
			json_write_string(&out, buf_str(&text), text.len);
		else
			buf_add(&out, buf_str(&text), text.len);
		buf_addc(&out, '\n');
		fwrite(out.data, 1, out.len, stdout);
		buf_release(&text);
	}
	buf_release(&out);
	token_list_release(&ids);
	yyjson_doc_free(doc);
	return r;
}

static int run_detokenize(const void *options, char **args, int n_args, struct err *err)
{
	const struct text_options *o = options;
	struct text *text = open_text(o, n_args, err);
	FILE *f = text ? open_file(args, n_args, err) : NULL;
	char *line = NULL;
	size_t cap = 0, n;
	int64_t number = 0;
	int r = 0;

	while (f && r == 0 && read_line(f, &line, &cap, &n)) {
		number++;
		r = n ? detokenize_line(text, o, line, n, err) : 0;
	}
	if (r < 0)
		err_context(err, "line %lld", (long long)number);
	if (f && r == 0)
		r = ferror(f) ? err_sys(err, ERR_INPUT, "cannot read %s", n_args ? args[0] : "standard input") : end_output(err);
	free(line);
	if (f && f != stdin)
		fclose(f);
	text_free(text);
	return f ? r : -1;
}

static int render_row(struct prompt_maker *m, const struct text_options *o, const struct row_rules *rules,
                      const struct input_line *l, struct err *err)
{
	struct row_request row;
	struct row_fault f = {0};
	int r = l->too_long ? row_fault_set(&f, NULL, NULL, "the line is too long") : 0;

	row = (struct row_request){0};
	if (r == 0)
		r = row_parse(l->text, l->n, rules, &row, &f);
	if (r == 0)
		r = o->ids ? prompt_make(m, &row, &f) : prompt_render(m, &row, &f);
	if (r < 0) {
		err_set(err, ERR_INPUT, "%s:%lld: %s", l->source, (long long)l->line, f.message);
	} else if (o->ids) {
		print_ids(&m->ids);
	} else if (o->json) {
		struct buf out = {0};

		json_write_string(&out, buf_str(&m->rendered), m->rendered.len);
		buf_addc(&out, '\n');
		fwrite(out.data, 1, out.len, stdout);
		buf_release(&out);
	} else {
		fwrite(buf_str(&m->rendered), 1, m->rendered.len, stdout);
		putchar('\n');
	}
	row_release(&row);
	return r;
}

static int run_render(const void *options, char **args, int n_args, struct err *err)
{
	const struct text_options *o = options;
	struct text *text = open_text(o, n_args, err);
	struct input *in = text ? input_open(n_args ? args[0] : "-", 0, err) : NULL;
	struct row_rules rules = {0};
	struct prompt_maker m = {0};
	struct input_line l;
	int r = -1;

	if (in) {
		rules.n_vocab = tokenizer_n_vocab(text->tokenizer);
		rules.developer_is_system = !prompt_knows_developer(text);
		prompt_maker_init(&m, text, (int64_t)time(NULL), INT32_MAX);
		while ((r = input_next(in, &l, err)) > 0)
			if (render_row(&m, o, &rules, &l, err) < 0) {
				r = -1;
				break;
			}
		prompt_maker_release(&m);
	}
	if (r == 0)
		r = end_output(err);
	input_close(in);
	text_free(text);
	return r;
}

const struct command command_tokenize = {
    "tokenize",
    "--model MODEL [options] [FILE|-]",
    "Write the token ids of each line as a JSON array.",
    "Special tokens are added as for a bare prompt (Hugging Face's add_special_tokens=True).",
    tokenize_options,
    sizeof(struct text_options),
    NULL,
    run_tokenize,
};

const struct command command_detokenize = {
    "detokenize",
    "--model MODEL [options] [FILE|-]",
    "Write the text of each line's JSON array of token ids.",
    NULL,
    detokenize_options,
    sizeof(struct text_options),
    NULL,
    run_detokenize,
};

const struct command command_render = {
    "render",
    "--model MODEL [options] [FILE|-]",
    "Write the prompt text of each row, after the chat template.",
    NULL,
    render_options,
    sizeof(struct text_options),
    NULL,
    run_render,
};
