/* Tests of amounts, days and price sheets. */
#include "tests/check.h"

#include "base/file.h"
#include "jobs/day.h"
#include "jobs/prices.h"

static void check_amount(int line, atto a, const char *exact, int decimals, const char *rounded)
{
	struct buf b = {0};

	decimal_add_exact(&b, a);
	if (strcmp(b.data, exact) != 0)
		printf("%s:%d: %s, expected %s\n", __FILE__, line, b.data, exact), check_failed_now = 1;
	buf_reset(&b);
	decimal_add_rounded(&b, a, decimals);
	if (strcmp(b.data, rounded) != 0)
		printf("%s:%d: %s, expected %s\n", __FILE__, line, b.data, rounded), check_failed_now = 1;
	buf_release(&b);
}

TEST(amounts)
{
	check_amount(__LINE__, 0, "0", 2, "0.00");
	check_amount(__LINE__, 1, "0.000000000000000001", 2, "0.00");
	check_amount(__LINE__, -1, "-0.000000000000000001", 18, "-0.000000000000000001");
	check_amount(__LINE__, ATTO_ONE * 12 + ATTO_ONE / 2, "12.5", 0, "13");
	check_amount(__LINE__, -(ATTO_ONE * 12 + ATTO_ONE / 2), "-12.5", 0, "-13");
	check_amount(__LINE__, ATTO_ONE * 100, "100", 1, "100.0");
	check_amount(__LINE__, ATTO_ONE / 200, "0.005", 2, "0.01");
	check_amount(__LINE__, ATTO_ONE / 200 - 1, "0.004999999999999999", 2, "0.00");
	check_amount(__LINE__, ATTO_ONE * 1000000 * 1000000 * 1000000, "1000000000000000000", 3, "1000000000000000000.000");
}

TEST(decimals)
{
	static const struct {
		const char *text;
		int decimals;
		int64_t max;
		enum decimal_fault fault;
		int64_t value;
	} cases[] = {
	    {"0", 8, 10, DECIMAL_OK, 0},
	    {"1", 8, 10, DECIMAL_OK, 100000000},
	    {"0.00000001", 8, 10, DECIMAL_OK, 1},
	    {"10", 8, 10, DECIMAL_OK, 1000000000},
	    {"1.5", 4, 2, DECIMAL_OK, 15000},
	    {".5", 4, 1, DECIMAL_OK, 5000},
	    {"1.", 4, 1, DECIMAL_OK, 10000},
	    {"0.50000000000000", 4, 1, DECIMAL_OK, 5000},
	    {"000.1", 1, 1, DECIMAL_OK, 1},
	    {"-1", 8, 10, DECIMAL_NEGATIVE, 0},
	    {"-.5", 8, 10, DECIMAL_NEGATIVE, 0},
	    {"-x", 8, 10, DECIMAL_NOT_PLAIN, 0},
	    {"0.000000001", 8, 10, DECIMAL_TOO_FINE, 0},
	    {"10.00000001", 8, 10, DECIMAL_TOO_LARGE, 0},
	    {"11", 8, 10, DECIMAL_TOO_LARGE, 0},
	    {"99999999999999999999999999", 8, 10, DECIMAL_TOO_LARGE, 0},
	    {"", 8, 10, DECIMAL_NOT_PLAIN, 0},
	    {".", 8, 10, DECIMAL_NOT_PLAIN, 0},
	    {"1e1", 8, 10, DECIMAL_NOT_PLAIN, 0},
	    {"+1", 8, 10, DECIMAL_NOT_PLAIN, 0},
	    {"1 ", 8, 10, DECIMAL_NOT_PLAIN, 0},
	    {"inf", 8, 10, DECIMAL_NOT_PLAIN, 0},
	    {"1.2.3", 8, 10, DECIMAL_NOT_PLAIN, 0},
	    {"0x1", 8, 10, DECIMAL_NOT_PLAIN, 0},
	    {"1_0", 8, 10, DECIMAL_NOT_PLAIN, 0},
	    {"1,0", 8, 10, DECIMAL_NOT_PLAIN, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int64_t v = 0;

		CHECK_INT(decimal_parse(cases[i].text, strlen(cases[i].text), cases[i].decimals, cases[i].max, &v), cases[i].fault);
		if (cases[i].fault == DECIMAL_OK)
			CHECK_INT(v, cases[i].value);
	}
}

static uint64_t random_u64(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

TEST(shares)
{
	atto large = (atto)1 << 120, sum = large, given = 0, upto;
	uint64_t x = 88172645463325252u;

	CHECK(decimal_share(100, 1, 3) == 33);
	CHECK(decimal_share(-100, 1, 3) == -34);
	CHECK(decimal_share(0, 1, 3) == 0);
	CHECK(decimal_share(7, 3, 3) == 7);
	CHECK(decimal_share(large, large, large) == large);
	CHECK(decimal_share(large, large / 2, large) == large / 2);
	CHECK(decimal_share(large - 1, large - 1, large) == large - 2); /* (n - 1)^2 / n = n - 2 + 1 / n */
	CHECK(decimal_divide(7, 2) == 4);
	CHECK(decimal_divide(-7, 2) == -4);
	CHECK(decimal_divide(-6, 4) == -2);
	CHECK(decimal_divide(5, 4) == 1);
	CHECK(decimal_divide(0, 4) == 0);
	/* Beside plain arithmetic where 128 bits hold the product. */
	for (int i = 0; i < 20000; i++) {
		int64_t total = (int64_t)(random_u64(&x) >> (i % 40 + 2)), whole = (int64_t)(random_u64(&x) >> (i % 50 + 2)) + 1;
		int64_t part = whole / (i % 7 + 1);

		CHECK(decimal_share(total, part, whole) == (atto)total * part / whole);
	}
	/* Cut in a thousand pieces, nothing is lost. */
	for (int i = 1; i <= 1000; i++) {
		upto = decimal_share(sum, i, 1000);
		CHECK(upto >= given);
		given = upto;
	}
	CHECK(given == sum);
	CHECK_INT(decimal_add(&sum, ((atto)1 << 126) + (((atto)1 << 126) - 1)), -1);
	CHECK(sum == large);
}

TEST(days)
{
	static const struct {
		const char *text;
		int64_t day;
	} cases[] = {{"1970-01-01", 0}, {"1972-02-29", 789}, {"2000-02-29", 11016}, {"2026-01-01", 20454}, {"9999-12-31", DAY_MAX}};
	static const char *const bad[] = {"2026-02-29", "2026-13-01", "2026-00-01", "2026-01-00", "2026-01-32", "1969-12-31",
	                                  "2026-1-1",   "2026/01/01", "2026-01-0x", "",           "2100-02-29"};
	char text[DAY_TEXT_BYTES];
	int64_t day;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		CHECK_INT(day_parse(cases[i].text, 10, &day), 0);
		CHECK_INT(day, cases[i].day);
		day_format(day, text);
		CHECK_STR(text, cases[i].text);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK_INT(day_parse(bad[i], strlen(bad[i]), &day), -1);
	for (int64_t d = 0, month = 0; d < 200000; d++) {
		CHECK_INT(day_month_start(d), month);
		if (day_next_month_start(d) == d + 1)
			month = d + 1;
		day_format(d, text);
		CHECK_INT(day_parse(text, 10, &day), 0);
		CHECK_INT(day, d);
	}
	CHECK_INT(day_of_ms(DAY_MS - 1), 0);
	CHECK_INT(day_of_ms(DAY_MS), 1);
}

static const char sheet[] =
    "currency: EUR\n"
    "batch_discount: 0.5\n"
    "models:\n"
    "  - {model: '*', input: 1, output: 3}\n"
    "  - {model: 'qwen3-*', input: 0.3, output: 0.9, batch_discount: 0}\n"
    "  - {model: 'qwen3-?b', input: 0.25, output: 0.8}\n"
    "  - {model: qwen3-8b, from: 2026-07-01, input: 0.18, cached_input: 0.04, output: 0.55, reasoning: 0.66}\n"
    "  - {model: qwen3-8b, from: 2026-01-01, input: 0.2, output: 0.6}\n"
    "nodes:\n"
    "  - {node: h100x8, gpu: h100, gpus: 8}\n"
    "  - {node: l4, gpu: l4, per_gpu_hour: 0.71}\n"
    "  - {node: cpu-*, per_node_hour: 1.6}\n"
    "gpus:\n"
    "  - {gpu: h100, per_gpu_hour: 2.99}\n"
    "  - {gpu: h100, from: 2026-10-01, per_gpu_hour: 2.5}\n";

static struct prices *parse(const char *text)
{
	struct err err = {0};
	struct prices *p = prices_parse("p.yaml", text, strlen(text), &err);

	if (!p)
		printf("%s\n", err.msg);
	CHECK(p != NULL);
	return p;
}

static int64_t input_price(const struct prices *p, const char *model, const char *day_text)
{
	const struct model_price *m;
	int64_t day;

	day_parse(day_text, 10, &day);
	m = prices_model(p, model, day);
	return m ? m->input : -1;
}

TEST(which_entry)
{
	struct prices *p = parse(sheet);
	struct node_price n;
	struct err err = {0};
	struct token_counts t = {.prompt = 1, .output = 1};
	struct token_cost c;
	int64_t day;

	if (!p)
		return;
	CHECK_STR(prices_currency(p), "EUR");
	CHECK_INT(prices_has_models(p), 1);
	CHECK_INT(prices_has_nodes(p), 1);
	CHECK_INT(input_price(p, "qwen3-8b", "2026-12-31"), 18000000);
	CHECK_INT(input_price(p, "qwen3-8b", "2026-07-01"), 18000000);
	CHECK_INT(input_price(p, "qwen3-8b", "2026-06-30"), 20000000);
	CHECK_INT(input_price(p, "qwen3-8b", "2026-01-01"), 20000000);
	CHECK_INT(input_price(p, "qwen3-8b", "2025-12-31"), -1); /* not the pattern's */
	CHECK_INT(input_price(p, "qwen3-4b", "2026-01-01"), 25000000);
	CHECK_INT(input_price(p, "qwen3-32b", "2026-01-01"), 30000000);
	CHECK_INT(input_price(p, "qwen3", "2026-01-01"), 100000000);
	CHECK_INT(input_price(p, "", "2026-01-01"), 100000000);
	CHECK_INT(prices_model(p, "qwen3-32b", 0)->discount, 0);
	CHECK_INT(prices_model(p, "other", 0)->discount, 5000);
	day_parse("2026-09-30", 10, &day);
	CHECK_INT(prices_node(p, "h100x8", day, &n), 1);
	CHECK_INT(n.hour, 2392000000);
	CHECK_INT(n.n_gpus, 8);
	CHECK_STR(n.gpu, "h100");
	CHECK_INT(prices_node(p, "h100x8", day + 1, &n), 1);
	CHECK_INT(n.hour, 2000000000);
	CHECK_INT(prices_node(p, "l4", 0, &n), 1);
	CHECK_INT(n.hour, 71000000);
	CHECK_INT(n.n_gpus, 1);
	CHECK_INT(prices_node(p, "cpu-8", 0, &n), 1);
	CHECK_INT(n.n_gpus, 0);
	CHECK_INT(prices_node(p, "", 0, &n), 0);
	CHECK_INT(prices_tokens_cost(p, "qwen3-8b", 0, &t, &c, &err), -1);
	CHECK_INT(err.code, ERR_INPUT);
	CHECK_STR(err.msg, "p.yaml: no price for model 'qwen3-8b' on 1970-01-01; an entry `model: \"*\"` is the default");
	prices_free(p);
}

TEST(costs)
{
	struct prices *p = parse(sheet);
	struct token_counts t = {.prompt = 1000, .cached = 400, .output = 300, .reasoning = 100};
	struct token_cost c;
	struct err err = {0};
	int64_t day;
	atto cost;

	if (!p)
		return;
	day_parse("2026-08-01", 10, &day);
	CHECK_INT(prices_tokens_cost(p, "qwen3-8b", day, &t, &c, &err), 0);
	check_amount(__LINE__, c.input, "0.000108", 6, "0.000108");        /* 600 x 0.18 */
	check_amount(__LINE__, c.cached_input, "0.000016", 6, "0.000016"); /* 400 x 0.04 */
	check_amount(__LINE__, c.output, "0.00011", 6, "0.000110");        /* 200 x 0.55 */
	check_amount(__LINE__, c.reasoning, "0.000066", 6, "0.000066");    /* 100 x 0.66 */
	check_amount(__LINE__, c.list, "0.0003", 6, "0.000300");
	check_amount(__LINE__, c.billed, "0.00015", 6, "0.000150");
	check_amount(__LINE__, c.cache_saving, "0.000028", 6, "0.000028"); /* 400 x 0.14 x 0.5 */
	/* Without a price of its own cached input costs what input does, and reasoning what output does. */
	CHECK_INT(prices_tokens_cost(p, "qwen3-8b", day - 60, &t, &c, &err), 0);
	check_amount(__LINE__, c.list, "0.00038", 6, "0.000380");
	check_amount(__LINE__, c.cache_saving, "0", 6, "0.000000");
	CHECK_INT(prices_node_cost(p, "cpu-1", day, 3600000, &cost, &err), 0);
	check_amount(__LINE__, cost, "1.6", 2, "1.60");
	CHECK_INT(prices_node_cost(p, "cpu-1", day, 1, &cost, &err), 0);
	check_amount(__LINE__, cost, "0.000000444444444444", 9, "0.000000444");
	CHECK_INT(prices_node_cost(p, "tpu", day, 1, &cost, &err), -1);
	CHECK_STR(err.msg, "p.yaml: no price for node type 'tpu' on 2026-08-01; an entry `node: \"*\"` is the default");
	prices_free(p);
}

TEST(json_is_a_sheet)
{
	struct prices *p = parse(
	    "{\n\t\"currency\": \"USD\",\n\t\"models\": [{\"model\": \"m\\/\\u00e9\", \"from\": \"2026-01-01\", \"input\": 0.25,"
	    " \"output\": 1}]\n}\n");

	if (!p)
		return;
	CHECK_INT(input_price(p, "m/é", "2026-01-01"), 25000000);
	CHECK_INT(prices_has_nodes(p), 0);
	prices_free(p);
}

#define MODEL_A "currency: USD\nmodels:\n  - model: a\n"

TEST(faults_are_named)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
	    {"", "s.yaml: nothing in it"},
	    {"# only\n", "s.yaml: nothing in it"},
	    {"- a\n", "s.yaml:1: must be a mapping of keys to values"},
	    {"models: []\n", "s.yaml:1: currency: missing"},
	    {"currency: usd\n", "s.yaml:1: currency: must be a code of three capital letters such as USD"},
	    {"currency: [USD]\n", "s.yaml:1: currency: must be a name"},
	    {"currency: USD\ncurrency: EUR\n", "s.yaml:2: currency: given twice"},
	    {"currency: USD\nmodel:\n", "s.yaml:2: model: unknown key"},
	    {"currency: USD\nmodels: {}\n", "s.yaml:2: models: must be a list"},
	    {"currency: USD\nmodels:\n  - qwen\n", "s.yaml:3: models[0]: must be a mapping of keys to values"},
	    {MODEL_A "    input: 1\n    output: 1\n  - {model: b, input: 1}\n", "s.yaml:6: models[1].output: missing"},
	    {"currency: USD\nmodels:\n  - input: 1\n    output: 1\n", "s.yaml:3: models[0].model: missing"},
	    {MODEL_A "    input: 1\n    outputs: 1\n", "s.yaml:5: models[0].outputs: unknown key"},
	    {MODEL_A "    input: -1\n    output: 1\n", "s.yaml:4: models[0].input: must not be negative"},
	    {MODEL_A "    input: \"1\"\n    output: 1\n", "s.yaml:4: models[0].input: must be a number"},
	    {MODEL_A "    input: !!int 1\n    output: 1\n", "s.yaml:4: models[0].input: must be a number"},
	    {MODEL_A "    input: 1e3\n    output: 1\n", "s.yaml:4: models[0].input: must be a number such as 0.25"},
	    {MODEL_A "    input: true\n    output: 1\n", "s.yaml:4: models[0].input: must be a number such as 0.25"},
	    {MODEL_A "    input:\n    output: 1\n", "s.yaml:4: models[0].input: must be a number such as 0.25"},
	    {MODEL_A "    input: [1]\n    output: 1\n", "s.yaml:4: models[0].input: must be a number"},
	    {MODEL_A "    input: 0.123456789\n    output: 1\n", "s.yaml:4: models[0].input: has more than 8 decimals"},
	    {MODEL_A "    input: 1000001\n    output: 1\n", "s.yaml:4: models[0].input: is more than 1000000"},
	    {MODEL_A "    input: 1\n    output: 1\n    batch_discount: 1.5\n",
	     "s.yaml:6: models[0].batch_discount: is more than 1"},
	    {MODEL_A "    from: 2026-02-30\n    input: 1\n    output: 1\n",
	     "s.yaml:4: models[0].from: must be a day such as 2026-01-31"},
	    {MODEL_A "    input: 1\n    output: 1\n  - {model: b, input: 1, output: 1}\n  - {model: a, input: 2, output: 1}\n",
	     "s.yaml:7: model: 'a' has a price without `from` already (line 3)"},
	    {MODEL_A "    from: 2026-01-01\n    input: 1\n    output: 1\n  - {model: a, from: 2026-01-01, input: 2, output: 1}\n",
	     "s.yaml:7: model: 'a' has a price from 2026-01-01 already (line 3)"},
	    {"currency: USD\nmodels:\n  - {model: \"\", input: 1, output: 1}\n",
	     "s.yaml:3: models[0].model: must be a name of 1 to 256 bytes"},
	    {"currency: USD\nnodes:\n  - {node: a}\n",
	     "s.yaml:3: nodes[0].per_node_hour: missing (or per_gpu_hour, or a gpu that is listed under gpus)"},
	    {"currency: USD\nnodes:\n  - {node: a, gpu: h, gpus: 2}\n",
	     "s.yaml:3: node 'a': gpu 'h' is not under gpus, and there is no per_node_hour or per_gpu_hour"},
	    {"currency: USD\nnodes:\n  - {node: a, per_node_hour: 1, per_gpu_hour: 1}\n",
	     "s.yaml:3: nodes[0].per_gpu_hour: give per_node_hour or per_gpu_hour, not both"},
	    {"currency: USD\nnodes:\n  - {node: a, per_node_hour: 1, gpus: 1.5}\n",
	     "s.yaml:3: nodes[0].gpus: must be a whole number"},
	    {"currency: USD\nnodes:\n  - {node: a, per_node_hour: 1}\n  - {node: a, per_node_hour: 1}\n",
	     "s.yaml:4: node: 'a' has a price without `from` already (line 3)"},
	    {"currency: USD\n---\ncurrency: EUR\n", "s.yaml:2: a second document begins here"},
	    {"currency: USD\nmodels: *x\n", "s.yaml:2: found undefined alias"},
	    {"currency: USD\nmodels: [\n", "s.yaml:3: did not find expected node content while parsing a flow node"},
	    {"currency: USD\n\tmodels: 1\n",
	     "s.yaml:2: found a tab character that violates indentation while scanning a plain scalar"},
	    {"currency: USD\nmodels:\n  - &x {model: a, from: 2026-01-01, input: 1, output: 1}\n  - {model: b, input: 1, output: "
	     "1}\n",
	     NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct err err = {0};
		struct prices *p = prices_parse("s.yaml", cases[i].text, strlen(cases[i].text), &err);

		CHECK((p == NULL) == (cases[i].says != NULL));
		CHECK_STR(err.msg, cases[i].says ? cases[i].says : "");
		prices_free(p);
	}
}

TEST(files)
{
	struct err err = {0};
	struct prices *p;

	CHECK(prices_load("nowhere.yaml", &err) == NULL);
	CHECK_INT(err.code, ERR_INPUT);
	CHECK(strstr(err.msg, "nowhere.yaml") != NULL);
	err_clear(&err);
	CHECK_INT(file_write_atomic("p.yaml", sheet, strlen(sheet), &err), 0);
	p = prices_load("p.yaml", &err);
	CHECK(p != NULL);
	prices_free(p);
}

int main(void)
{
	RUN(amounts);
	RUN(decimals);
	RUN(shares);
	RUN(days);
	RUN(which_entry);
	RUN(costs);
	RUN(json_is_a_sheet);
	RUN(faults_are_named);
	RUN(files);
	return TEST_RESULT();
}
