/* The option parser, sizes, and the spec that a job is compared by. */
#include "tests/check.h"

#include "base/mem.h"
#include "runner/options.h"
#include "runner/spec.h"

struct sample_options {
	int flag, choice;
	const char *name;
	int64_t count;
	double ratio;
	size_t memory;
};

static const struct option_spec specs[] = {
    {"flag", 'f', OPTION_FLAG, offsetof(struct sample_options, flag), NULL, "", 0, 0, NULL},
    {"math", 0, OPTION_CHOICE, offsetof(struct sample_options, choice), "a|b", "", 0, 0, "fast|f32"},
    {"name", 'n', OPTION_STRING, offsetof(struct sample_options, name), "NAME", "", 0, 0, NULL},
    {"count", 0, OPTION_INT, offsetof(struct sample_options, count), "N", "", 1, 10, NULL},
    {"ratio", 0, OPTION_NUMBER, offsetof(struct sample_options, ratio), "X", "", 0, 1, NULL},
    {"memory", 0, OPTION_SIZE, offsetof(struct sample_options, memory), "SIZE", "", 0, 0, NULL},
    {0},
};
static const struct command command = {.name = "test", .options = specs};

static int parse(struct sample_options *o, char **args, int *n_args, struct err *err, int argc, char **argv)
{
	*o = (struct sample_options){0};
	return options_parse(&command, o, argc, argv, args, n_args, err);
}

TEST(good_options)
{
	char *argv[] = {"in1",     "--flag", "--math=f32", "-n",   "x", "--count", "7",     "in2",
	                "--ratio", "0.5",    "--memory",   "1.5G", "-", "--",      "--name"};
	char *args[16];
	struct sample_options o;
	struct err err = {0};
	int n_args;

	CHECK_INT(parse(&o, args, &n_args, &err, 15, argv), 0);
	CHECK_INT(o.flag, 1);
	CHECK_INT(o.choice, 2);
	CHECK_STR(o.name, "x");
	CHECK_INT(o.count, 7);
	CHECK_NEAR(o.ratio, 0.5, 0);
	CHECK_INT(o.memory, 1610612736);
	CHECK_INT(n_args, 4);
	CHECK_STR(args[0], "in1");
	CHECK_STR(args[1], "in2");
	CHECK_STR(args[2], "-");
	CHECK_STR(args[3], "--name");
	argv[0] = "--help";
	CHECK_INT(parse(&o, args, &n_args, &err, 1, argv), 1);
}

TEST(bad_options)
{
	static const struct {
		const char *first, *second, *message;
	} cases[] = {
	    {"--mat", "f32", "unknown option --mat (did you mean --math?); see tokenmill test --help"},
	    {"--nmae=x", NULL, "unknown option --nmae=x (did you mean --name?); see tokenmill test --help"},
	    {"--zzz", NULL, "unknown option --zzz; see tokenmill test --help"},
	    {"-x", NULL, "unknown option -x; see tokenmill test --help"},
	    {"--math", "f16", "--math must be one of fast|f32, it is 'f16'"},
	    {"--math", "f", "--math must be one of fast|f32, it is 'f'"},
	    {"--count", "11", "--count must be an integer from 1 to 10, it is '11'"},
	    {"--count", "1x", "--count must be an integer from 1 to 10, it is '1x'"},
	    {"--count", "", "--count must be an integer from 1 to 10, it is ''"},
	    {"--count", NULL, "--count needs a value (N)"},
	    {"--ratio", "nan", "--ratio must be a number from 0 to 1, it is 'nan'"},
	    {"--memory", "4X", "--memory must be a size like 512M or 4G, it is '4X'"},
	    {"--memory", "0", "--memory must be a size like 512M or 4G, it is '0'"},
	    {"--memory", "-4G", "--memory must be a size like 512M or 4G, it is '-4G'"},
	    {"--flag=1", NULL, "--flag takes no value"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *argv[] = {(char *)cases[i].first, (char *)cases[i].second}, *args[4];
		struct sample_options o;
		struct err err = {0};
		int n_args;

		CHECK_INT(parse(&o, args, &n_args, &err, cases[i].second ? 2 : 1, argv), -1);
		CHECK_INT(err.code, ERR_USAGE);
		CHECK_STR(err.msg, cases[i].message);
	}
}

TEST(sizes)
{
	size_t n;

	CHECK(options_read_size("1000", &n) == 0 && n == 1000);
	CHECK(options_read_size("4K", &n) == 0 && n == 4096);
	CHECK(options_read_size("4GiB", &n) == 0 && n == (size_t)4 << 30);
	CHECK(options_read_size("512MB", &n) == 0 && n == (size_t)512 << 20);
	CHECK(options_read_size("2t", &n) == 0 && n == (size_t)2 << 40);
	CHECK(options_read_size("", &n) < 0);
	CHECK(options_read_size("G", &n) < 0);
	CHECK(options_read_size("1e30G", &n) < 0);
	CHECK(options_read_size("1GG", &n) < 0);
}

static struct job_spec make_spec(void)
{
	struct job_spec s = {.setup = {.model_path = xstrdup("/m/\"x\".gguf"),
	                               .model_name = xstrdup("x"),
	                               .model_fingerprint = xstrdup("aaaa"),
	                               .text_fingerprint = xstrdup("bbbb"),
	                               .math = 2,
	                               .kv_type = 3,
	                               .seed = 18446744073709551615ULL,
	                               .n_context = 2048,
	                               .now_unix_s = 86400,
	                               .defaults = xstrdup("{\"temperature\":0}")}};
	struct job_input *in = inputs_add(&s.inputs, "a.jsonl");

	sha256_hex("x", 1, in->sha256);
	in->n_bytes = 1;
	in->n_rows = 2;
	return s;
}

TEST(spec_round_trip)
{
	struct job_spec a = make_spec(), b;
	struct buf text = {0}, again = {0};
	struct err err = {0};

	spec_write(&a, &text);
	CHECK_INT(spec_read(text.data, &b, &err), 0);
	CHECK_STR(err.msg, "");
	spec_write(&b, &again);
	CHECK_STR(again.data, text.data);
	CHECK_INT(setup_compare(&a.setup, &b.setup, &err), 0);
	CHECK_INT(inputs_are_same(&a.inputs, &b.inputs), 1);
	spec_release(&b);
	CHECK_INT(spec_read("{\"spec_version\":1}", &b, &err), -1);
	CHECK_INT(err.code, ERR_FINGERPRINT);
	spec_release(&a);
	buf_release(&text);
	buf_release(&again);
}

static void replace(char **s, const char *with)
{
	free(*s);
	*s = xstrdup(with);
}

/* Each thing that can change a result is named when it differs, and changes the hash that is in every line. */
TEST(spec_differences)
{
	static const char *const named[] = {"the model differs",
	                                    "tokenizer or chat template differs",
	                                    "--math differs (the job has f32, asked for fast)",
	                                    "--kv-type differs (the job has f32, asked for f16)",
	                                    "--seed differs",
	                                    "--context differs",
	                                    "--date differs",
	                                    "the model's name differs (the job has 'x', asked for 'y')",
	                                    "--defaults differs"};

	for (size_t i = 0; i < sizeof(named) / sizeof(*named); i++) {
		struct job_spec a = make_spec(), b = make_spec();
		struct job_setup *s = &b.setup;
		char before[SHA256_HEX_BYTES], after[SHA256_HEX_BYTES];
		struct err err = {0};

		switch (i) {
		case 0:
			replace(&s->model_fingerprint, "c");
			break;
		case 1:
			replace(&s->text_fingerprint, "c");
			break;
		case 2:
			s->math = 1;
			break;
		case 3:
			s->kv_type = 1;
			break;
		case 4:
			s->seed = 1;
			break;
		case 5:
			s->n_context = 1;
			break;
		case 6:
			s->now_unix_s = 0;
			break;
		case 7:
			replace(&s->model_name, "y");
			break;
		case 8:
			replace(&s->defaults, "{}");
			break;
		}
		CHECK_INT(setup_compare(&a.setup, s, &err), -1);
		CHECK_INT(err.code, ERR_FINGERPRINT);
		if (!strstr(err.msg, named[i]))
			CHECK_STR(err.msg, named[i]);
		CHECK(!strstr(err.msg, ";"));
		setup_hash(&a.setup, before);
		setup_hash(s, after);
		CHECK(strcmp(before, after) != 0);
		spec_release(&a);
		spec_release(&b);
	}
}

TEST(input_differences)
{
	struct job_spec a = make_spec(), b = make_spec();

	/* Moved is not changed. */
	replace(&b.inputs.items[0].name, "elsewhere/b.jsonl");
	CHECK_INT(inputs_are_same(&a.inputs, &b.inputs), 1);
	b.inputs.items[0].sha256[0] ^= 1;
	CHECK_INT(inputs_are_same(&a.inputs, &b.inputs), 0);
	b.inputs.items[0].sha256[0] ^= 1;
	CHECK_INT(inputs_are_same(&a.inputs, &b.inputs), 1);
	inputs_add(&b.inputs, "more.jsonl");
	CHECK_INT(inputs_are_same(&a.inputs, &b.inputs), 0);
	spec_release(&a);
	spec_release(&b);
}

int main(void)
{
	RUN(good_options);
	RUN(bad_options);
	RUN(sizes);
	RUN(spec_round_trip);
	RUN(spec_differences);
	RUN(input_differences);
	return TEST_RESULT();
}
