/* cmd_model.c: what a model is, how it will run here, what memory it takes. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "engine/model/model.h"
#include "runner/commands.h"
#include "runner/spec.h"

struct info_options {
	int math, kv_type;
	size_t memory;
	int64_t threads, max_batch, chunk;
};

static const struct option_spec info_options[] = {
    {"math", 0, OPTION_CHOICE, offsetof(struct info_options, math), "f32|fast", "arithmetic (default fast)", 0, 0, "fast|f32"},
    {"kv-type", 0, OPTION_CHOICE, offsetof(struct info_options, kv_type), "f16|bf16|f32",
     "type of keys and values (default f16)", 0, 0, "f16|bf16|f32"},
    {"memory", 0, OPTION_SIZE, offsetof(struct info_options, memory), "SIZE",
     "all of the engine's memory (default: half of what is free)", 0, 0, NULL},
    {"threads", 0, OPTION_INT, offsetof(struct info_options, threads), "N", "threads (default: all processors)", 1, 4096, NULL},
    {"max-batch", 0, OPTION_INT, offsetof(struct info_options, max_batch), "N", "most sequences at once", 1, 4096, NULL},
    {"chunk", 0, OPTION_INT, offsetof(struct info_options, chunk), "N", "most tokens in a step (default 512)", 1, 65536, NULL},
    {0},
};

static void print_token(const char *name, const char *token)
{
	struct buf b = {0};

	if (!token)
		return;
	json_write_string(&b, token, strlen(token));
	printf("%-16s %s\n", name, b.data);
	buf_release(&b);
}

static void print_text(const struct text *t)
{
	printf("%-16s %s\n", "tokenizer", tokenizer_describe(t->tokenizer));
	print_token("bos token", t->bos_token);
	print_token("eos token", t->eos_token);
	printf("%-16s", "stop tokens");
	for (int i = 0; i < t->n_stop_ids; i++) {
		size_t n;
		const char *s = tokenizer_token(t->tokenizer, t->stop_ids[i], &n);

		printf(" %d %.*s", t->stop_ids[i], s ? (int)n : 1, s ? s : "?");
	}
	printf("\n%-16s %s\n", "bare prompts", t->add_bos ? "begin with the bos token" : "are taken as they are");
	if (t->chat_template)
		printf("%-16s yes (tools: %s, enable_thinking: %s)\n", "chat template",
		       template_uses(t->chat_template, "tools") ? "yes" : "no",
		       template_uses(t->chat_template, "enable_thinking") ? "yes" : "no");
	else
		printf("%-16s none: chat rows cannot be run\n", "chat template");
	if (!isnan(t->default_temperature))
		printf("%-16s temperature %g", "made for", t->default_temperature);
	if (!isnan(t->default_temperature) && !isnan(t->default_top_p))
		printf(", top_p %g", t->default_top_p);
	if (!isnan(t->default_temperature) && t->default_top_k > 0)
		printf(", top_k %d", t->default_top_k);
	if (!isnan(t->default_temperature))
		printf(" (use --defaults to run so)\n");
	printf("%-16s %s\n", "text fingerprint", t->fingerprint);
}

static int run_info(const void *options, char **args, int n_args, struct err *err)
{
	const struct info_options *o = options;
	struct engine_options eo = {.math = o->math,
	                            .kv_type = o->kv_type,
	                            .memory_bytes = o->memory,
	                            .n_threads = (int)o->threads,
	                            .max_batch = (int32_t)o->max_batch,
	                            .chunk_tokens = (int32_t)o->chunk};
	struct buf description = {0}, first = {0}, second = {0};
	struct text *text = NULL;
	struct engine *engine = NULL;
	struct model *model;

	if (n_args != 1)
		return err_set(err, ERR_USAGE, "give one model: a .gguf file or a Hugging Face directory");
	model = model_open(args[0], err);
	if (!model)
		return -1;
	model_describe(model, &description);
	fputs(buf_str(&description), stdout);
	model_free(model);
	text = text_open(args[0], err);
	if (text) {
		print_text(text);
		fflush(stdout);
		engine = engine_open(args[0], text, &eo, err);
	}
	if (engine) {
		command_describe_plan(engine_plan(engine), eo.kv_type ? eo.kv_type : KV_F16, eo.math ? eo.math : MATH_FAST, &first,
		                      &second);
		printf("%-16s %s\n%-16s %s\n", "runs here on", first.data, "takes", second.data);
	}
	engine_close(engine);
	text_free(text);
	buf_release(&description);
	buf_release(&first);
	buf_release(&second);
	return engine ? 0 : -1;
}

const struct command command_model_info = {
    "model info",
    "[options] MODEL",
    "Say what a model is, how it will run here, and what memory it takes.",
    "MODEL is a .gguf file or a Hugging Face directory with safetensors.",
    info_options,
    sizeof(struct info_options),
    NULL,
    run_info,
};
