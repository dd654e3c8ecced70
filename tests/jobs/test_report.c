/* Tests of what reports are made of: dimensions, groups, fields and pages. Sums of whole ledgers are held against Python's in
 * tests/e2e/test_report.py. */
#include "tests/check.h"

#include "base/json.h"
#include "jobs/chart.h"
#include "jobs/day.h"
#include "jobs/groups.h"
#include "jobs/html.h"
#include "jobs/report.h"
#include "queue/database.h"
#include "queue/schema.h"

TEST(dimensions)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
	    {"tenat", "--by: 'tenat' is none of tenant, project, user, model, job, node, day, tag:NAME"},
	    {"tenant,", "--by: '' is none of"},
	    {"tag:", "--by: 'tag:' is none of"},
	    {"day,day", "--by: 'day' is given twice"},
	    {"tag:a,tag:b,tag:c,tag:d,tag:e,tag:f,tag:g,tag:h,tag:i,tag:j,tag:k,tag:l,tag:m,tag:n,tag:o,tag:p,tag:q",
	     "--by: more than 16 names"},
	};
	struct dimensions d;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct err err = {0};

		CHECK_INT(dimensions_parse(bad[i].text, &d, &err), -1);
		CHECK_INT(err.code, ERR_USAGE);
		CHECK_HAS(err.msg, bad[i].says);
	}
	struct err err = {0};

	CHECK_INT(dimensions_parse("", &d, &err), 0);
	CHECK_INT(d.n, 0);
	CHECK_INT(dimensions_parse("tenant,day,tag:team", &d, &err), 0);
	CHECK_INT(d.n, 3);
	CHECK_STR(dimension_tag(&d.list[0]), "tenant");
	CHECK_STR(dimension_tag(&d.list[2]), "team");
	CHECK_INT(dimensions_add(&d, "day", &err), 0);
	CHECK_INT(d.n, 3);
	CHECK_INT(dimensions_find(&d, "tag:team"), 2);
	CHECK_INT(dimensions_find(&d, "team"), -1);
}

/* Ten thousand groups met in turns; the row's tag overrides the job's. */
TEST(groups)
{
	yyjson_doc *job = yyjson_read("{\"tenant\":\"house\",\"team\":\"red\"}", 31, 0);
	struct group_facts f = {.model = "m", .job = "j", .node = "n", .job_tags = yyjson_doc_get_root(job)};
	struct measure one = {.count = {[COUNT_OK] = 1, [COUNT_INPUT] = 7}, .money = {[MONEY_LIST] = ATTO_ONE}}, sum;
	struct dimensions by;
	struct groups g;
	struct err err = {0};

	CHECK_INT(dimensions_parse("tenant,tag:team,day", &by, &err), 0);
	groups_init(&g, &by);
	for (int i = 0; i < 30000; i++) {
		char text[64];
		int n = snprintf(text, sizeof(text), "{\"tenant\":\"t%04d\"}", i % 5000);
		yyjson_doc *row = yyjson_read(text, (size_t)n, 0);

		f.row_tags = i % 3 ? yyjson_doc_get_root(row) : NULL;
		f.day = i % 2;
		CHECK_INT(groups_add(&g, &f, &one, &err), 0);
		yyjson_doc_free(row);
	}
	CHECK_INT(groups_total(&g, &sum, &err), 0);
	CHECK_INT(sum.count[COUNT_OK], 30000);
	CHECK_INT(sum.count[COUNT_INPUT], 210000);
	CHECK(sum.money[MONEY_LIST] == ATTO_ONE * 30000);
	groups_sort(&g);
	CHECK_INT(g.n, 5002); /* 2 of house; of t0000 ... t4999 each on one day: 5000 is even */
	CHECK_STR(g.list[0]->values[0], "house");
	CHECK_STR(g.list[0]->values[1], "red");
	CHECK_STR(g.list[0]->values[2], "1970-01-01");
	CHECK_INT(g.list[0]->m.count[COUNT_OK], 5000);
	for (size_t i = 1; i < g.n; i++)
		CHECK(strcmp(g.list[i - 1]->values[0], g.list[i]->values[0]) <= 0);
	groups_release(&g);
	groups_init(&g, &by);
	f.row_tags = NULL;
	CHECK_INT(groups_add(&g, &f, &one, &err), 0);
	one.count[COUNT_INPUT] = INT64_MAX;
	CHECK_INT(groups_add(&g, &f, &one, &err), -1);
	CHECK_INT(err.code, ERR_STORAGE);
	groups_release(&g);
	yyjson_doc_free(job);
}

TEST(csv_fields)
{
	static const struct {
		const char *text, *field;
	} cases[] = {{"", ""},
	             {"a b", "a b"},
	             {"a,b", "\"a,b\""},
	             {"a\"b", "\"a\"\"b\""},
	             {"\"", "\"\"\"\""},
	             {"a\nb", "\"a\nb\""},
	             {"a\rb", "\"a\rb\""},
	             {" a", "\" a\""},
	             {"a ", "\"a \""},
	             {" ", "\" \""},
	             {"é", "é"}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct buf b = {0};

		report_add_csv(&b, cases[i].text);
		CHECK_STR(buf_str(&b), cases[i].field);
		buf_release(&b);
	}
}

TEST(html_texts)
{
	static const struct {
		const char *text, *html;
	} cases[] = {
	    {"", ""},
	    {"a<b>&\"'", "a&lt;b&gt;&amp;&quot;&#39;"},
	    {"\x1b[0m\x7f", "\xEF\xBF\xBD[0m\xEF\xBF\xBD"},
	    {"a\u202Eb\u2067c\u200Fd", "a\xEF\xBF\xBD"
	                               "b\xEF\xBF\xBD"
	                               "c\xEF\xBF\xBD"
	                               "d"},
	    {"日本\n\t🙂", "日本\n\t🙂"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct buf b = {0};

		html_add_text(&b, cases[i].text);
		CHECK_STR(buf_str(&b), cases[i].html);
		buf_release(&b);
	}
}

TEST(chart_numbers)
{
	static const struct {
		double v;
		const char *text;
	} cases[] = {{0, "0"},     {0.00123, "0.00123"}, {1, "1"},        {999.9, "999.9"}, {999.96, "1k"},
	             {1000, "1k"}, {1234567, "1.235M"},  {2.5e9, "2.5G"}, {7e12, "7T"}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct buf b = {0};

		chart_add_number(&b, cases[i].v);
		CHECK_STR(b.data, cases[i].text);
		buf_release(&b);
	}
}

TEST(histograms)
{
	struct histogram h = {.first = 0.5};

	histogram_add(&h, -1);
	histogram_add(&h, 0.49);
	histogram_add(&h, 0.5);
	histogram_add(&h, 0.99);
	histogram_add(&h, 1);
	histogram_add(&h, 1e300);
	histogram_add(&h, NAN);
	CHECK_INT(h.count[0], 3);
	CHECK_INT(h.count[1], 2);
	CHECK_INT(h.count[2], 1);
	CHECK_INT(h.count[HISTOGRAM_BUCKETS - 1], 1);
	CHECK_INT(histogram_total(&h), 7);
	CHECK_NEAR(histogram_edge(&h, 0), 0, 0);
	CHECK_NEAR(histogram_edge(&h, 1), 0.5, 0);
	CHECK_NEAR(histogram_edge(&h, 3), 2, 0);
}

static int make_ledger(const char *path, const char *plan, int extra_tokens, struct err *err)
{
	struct database d;
	char sql[2000];
	int rc;

	if (database_create(&d, path, 4096, LEDGER_APPLICATION_ID, LEDGER_SCHEMA, err) < 0)
		return -1;
	snprintf(sql, sizeof(sql),
	         "INSERT INTO job VALUES('%s', 'night', 'qwen3-8b', 'f00', '{\"team\":\"red\"}', 1, 2);"
	         "INSERT INTO tag VALUES(0, '{\"tenant\":\"a\"}'), (1, '{\"tenant\":\"b\"}');"
	         "INSERT INTO charge VALUES(0, 0, 1, 0, 0, 1767225600000, 1000000, 400000, 300000, 100000, 5, 0, 1, 1),"
	         "(1, 0, 1, 0, 1, 1767225600000, 1000000, 0, 100000, 0, 0, 0, 1, 1);"
	         "INSERT INTO shard_total VALUES(0, 2, 0, 2000000, 400000, 400000, 100000, %d);"
	         "INSERT INTO claim VALUES(0, 1, 'x'), (0, 2, 'y');"
	         "INSERT INTO attempt VALUES('x', 0, 'h', 'cpu', 1767225600000, 1767225700000, 100, 10, 60, 5, 2, 0, 2000000, "
	         "400000, 450000, 0, 0, 1, 1, '');",
	         plan, 5 + extra_tokens);
	rc = database_exec(&d, sql, err);
	database_close(&d);
	return rc;
}

/* Small enough to be checked by hand. */
TEST(a_small_report)
{
	static const char sheet[] =
	    "currency: USD\nbatch_discount: 0.5\nmodels: [{model: '*', input: 1, cached_input: 0.1, output: 3}]\n"
	    "nodes: [{node: cpu, per_node_hour: 36}]\n";
	struct err err = {0};
	struct prices *p = prices_parse("sheet", sheet, strlen(sheet), &err);
	struct dimensions by;
	struct report r;
	struct buf b = {0};

	CHECK_INT(make_ledger("l.db", "p1", 0, &err), 0);
	CHECK_INT(dimensions_parse("tenant", &by, &err), 0);
	report_init(&r, &by, p, 0, DAY_MAX);
	CHECK_INT(report_add_ledger(&r, "l.db", "l.db", &err), 0);
	CHECK_INT(report_finish(&r, &err), 0);
	CHECK_STR(err.msg, "");
	/* a: 0.6 + 0.04 + 0.9 = 1.54 of 2.84; b: 1 + 0.3. A hundred seconds at a cent. */
	report_write_csv(&r, &b);
	CHECK_STR(buf_str(&b),
	          "tenant,currency,requests_ok,requests_failed,input_tokens,cached_input_tokens,output_tokens,reasoning_tokens,"
	          "recomputed_tokens,billed_tokens,"
	          "useful_tokens,wasted_tokens,node_seconds,load_seconds,busy_seconds,publish_seconds,idle_seconds,killed_seconds,"
	          "gpu_seconds,list_cost,"
	          "billed_cost,cache_saving,actual_cost,killed_cost,per_million_input,per_million_output,per_million_useful\r\n"
	          "a,USD,1,0,1000000,400000,300000,100000,5,1300000,1300000,27112,54.225,5.422,32.535,2.711,13.556,54.225,0.000,1."
	          "54,0.77,0.18,"
	          "0.542253521126760563,0.542253521126760563,0.225352112676,1.056338028169,0.417118093174\r\n"
	          "b,USD,1,0,1000000,0,100000,0,0,1100000,1100000,22888,45.775,4.578,27.465,2.289,11.444,45.775,0.000,1.3,0.65,0,"
	          "0.457746478873239437,0.457746478873239437,0.352112676056,1.056338028169,0.416133162612\r\n");
	CHECK_INT(report_add_ledger(&r, "l.db", "l.db", &err), -1);
	CHECK_INT(err.code, ERR_USAGE);
	CHECK_STR(err.msg, "l.db: job night is given twice (plan p1)");
	report_release(&r);
	buf_release(&b);
	prices_free(p);
}

TEST(out_of_balance)
{
	struct err err = {0};
	struct dimensions by = {0};
	struct report r;

	CHECK_INT(make_ledger("bad.db", "p2", 1, &err), 0);
	report_init(&r, &by, NULL, 0, DAY_MAX);
	CHECK_INT(report_add_ledger(&r, "bad.db", "the job", &err), -1);
	CHECK_INT(err_exit_code(err.code), 74);
	CHECK_STR(err.msg, "the job: out of balance: shard 0: recomputed_tokens is 5 over its rows, 6 in shard_total");
	report_release(&r);
}

int main(void)
{
	RUN(dimensions);
	RUN(groups);
	RUN(csv_fields);
	RUN(html_texts);
	RUN(chart_numbers);
	RUN(histograms);
	RUN(a_small_report);
	RUN(out_of_balance);
	return TEST_RESULT();
}
