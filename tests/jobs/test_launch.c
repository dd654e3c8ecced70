/* From a launch spec to a Job: the failure policy against the table of exit codes, names and hashes, templates and assignments.
 */
#include "jobs/json_edit.h"
#include "jobs/launch.h"
#include "jobs/yaml_json.h"
#include "tests/check.h"

static const char *const input_a[] = {"in/a.jsonl"}, *const input_b[] = {"in/b.jsonl"};

static struct launch_spec basic(void)
{
	struct launch_spec s;

	launch_spec_init(&s);
	s.model = "Qwen3-8B-Q4_K_M.gguf";
	s.inputs = (struct launch_list){input_a, 1};
	s.workers = 4;
	return s;
}

static yyjson_doc *manifest(const struct launch_spec *s, struct launch *l)
{
	struct err err = {0};

	if (launch_make(s, l, &err) < 0) {
		printf("launch_make: %s\n", err.msg);
		CHECK(0);
		return NULL;
	}
	return yyjson_read(l->manifest, strlen(l->manifest), 0);
}

static const char *text(yyjson_doc *d, const char *pointer)
{
	const char *s = yyjson_get_str(yyjson_doc_ptr_get(d, pointer));

	return s ? s : "(none)";
}

static long long number(yyjson_doc *d, const char *pointer)
{
	return yyjson_get_sint(yyjson_doc_ptr_get(d, pointer));
}

/* What Kubernetes does with a pod whose worker ended so: the first rule that fits
 * (https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy). */
static const char *action(yyjson_doc *d, int exit_code, int disrupted)
{
	size_t i, max, k, n;
	yyjson_val *rule, *v;

	yyjson_arr_foreach (yyjson_doc_ptr_get(d, "/spec/podFailurePolicy/rules"), i, max, rule) {
		yyjson_val *codes = yyjson_obj_get(rule, "onExitCodes"), *conditions = yyjson_obj_get(rule, "onPodConditions");
		const char *a = yyjson_get_str(yyjson_obj_get(rule, "action"));

		yyjson_arr_foreach (conditions, k, n, v)
			if (disrupted && yyjson_equals_str(yyjson_obj_get(v, "type"), "DisruptionTarget") &&
			    yyjson_equals_str(yyjson_obj_get(v, "status"), "True"))
				return a;
		yyjson_arr_foreach (yyjson_obj_get(codes, "values"), k, n, v)
			if (yyjson_equals_str(yyjson_obj_get(codes, "operator"), "In") && yyjson_get_int(v) == exit_code)
				return a;
	}
	return "Count";
}

/* The table of exit codes as the documentation has it. */
TEST(failure_policy)
{
	static const struct {
		int code;
		const char *action;
	} table[] = {{1, "Count"},  {64, "FailJob"}, {65, "FailJob"}, {66, "FailJob"}, {67, "FailJob"}, {70, "Count"},
	             {74, "Count"}, {75, "Ignore"},  {143, "Ignore"}, {137, "Count"},  {139, "Count"},  {134, "Count"}};
	struct launch_spec s = basic();
	struct launch l;
	yyjson_doc *d = manifest(&s, &l);
	yyjson_val *v;
	size_t i, max;
	int last = 0;

	for (int code = 1; code < 256; code++) {
		const char *expected = "Count";

		for (size_t t = 0; t < sizeof(table) / sizeof(*table); t++)
			if (table[t].code == code)
				expected = table[t].action;
		CHECK_STR(action(d, code, 0), expected);
		CHECK_STR(action(d, code, 1), "Ignore");
	}
	for (int c = 1; c < ERR_N_CODES; c++) { /* and every code of ours, whatever its number */
		enum err_pod_policy p = err_pod_policy((enum err_code)c);

		CHECK_STR(action(d, err_exit_code((enum err_code)c), 0), p == ERR_POD_FAIL_JOB ? "FailJob"
		                                                         : p == ERR_POD_IGNORE ? "Ignore"
		                                                                               : "Count");
	}
	yyjson_arr_foreach (yyjson_doc_ptr_get(d, "/spec/podFailurePolicy/rules/2/onExitCodes/values"), i, max, v) {
		CHECK(yyjson_get_int(v) > last); /* ordered, none twice, never 0 */
		last = yyjson_get_int(v);
	}
	CHECK_STR(text(d, "/spec/template/spec/restartPolicy"), "Never");
	CHECK_STR(text(d, "/spec/podReplacementPolicy"), "Failed");
	CHECK_STR(text(d, "/spec/podFailurePolicy/rules/1/onExitCodes/containerName"), "worker");
	yyjson_doc_free(d);
	launch_release(&l);
}

TEST(workers_and_limits)
{
	struct launch_spec s = basic();
	struct launch l;
	struct err err = {0};
	yyjson_doc *d = manifest(&s, &l);

	CHECK_STR(text(d, "/spec/completionMode"), "Indexed");
	CHECK_INT(number(d, "/spec/completions"), 4);
	CHECK_INT(number(d, "/spec/parallelism"), 4);
	CHECK_INT(number(d, "/spec/backoffLimitPerIndex"), 6);
	CHECK_INT(number(d, "/spec/maxFailedIndexes"), 2);
	CHECK(!yyjson_doc_ptr_get(d, "/spec/suspend"));
	CHECK_STR(text(d, "/spec/template/spec/containers/0/args/2"), l.place);
	CHECK_STR(text(d, "/spec/template/spec/containers/0/args/4"), "/models/Qwen3-8B-Q4_K_M.gguf");
	yyjson_doc_free(d);
	launch_release(&l);
	s.max_failed = 5;
	CHECK_INT(launch_make(&s, &l, &err), -1);
	CHECK_STR(err.msg, "--max-failed 5 is more than there are workers (4)");
	s = basic();
	s.min_workers = 2;
	err_clear(&err);
	CHECK_INT(launch_make(&s, &l, &err), -1);
	CHECK_STR(err.msg, "--min-workers is for Kueue: give --queue as well");
	s.queue = "q";
	d = manifest(&s, &l);
	CHECK(yyjson_is_true(yyjson_doc_ptr_get(d, "/spec/suspend")));
	CHECK_STR(text(d, "/metadata/labels/kueue.x-k8s.io~1queue-name"), "q");
	CHECK_STR(text(d, "/metadata/annotations/kueue.x-k8s.io~1job-min-parallelism"), "2");
	yyjson_doc_free(d);
	launch_release(&l);
}

/* What Pod Security "restricted" asks for (https://kubernetes.io/docs/concepts/security/pod-security-standards/), and no token.
 */
TEST(restricted)
{
	struct launch_spec s = basic();
	struct launch l;
	yyjson_doc *d = manifest(&s, &l);

	CHECK(yyjson_is_true(yyjson_doc_ptr_get(d, "/spec/template/spec/securityContext/runAsNonRoot")));
	CHECK_STR(text(d, "/spec/template/spec/securityContext/seccompProfile/type"), "RuntimeDefault");
	CHECK(yyjson_is_false(yyjson_doc_ptr_get(d, "/spec/template/spec/automountServiceAccountToken")));
	CHECK(yyjson_is_false(yyjson_doc_ptr_get(d, "/spec/template/spec/containers/0/securityContext/allowPrivilegeEscalation")));
	CHECK(yyjson_is_true(yyjson_doc_ptr_get(d, "/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem")));
	CHECK_STR(text(d, "/spec/template/spec/containers/0/securityContext/capabilities/drop/0"), "ALL");
	CHECK_STR(text(d, "/spec/template/spec/volumes/1/emptyDir/medium"), "Memory");
	CHECK_STR(text(d, "/spec/template/spec/volumes/2/persistentVolumeClaim/claimName"), "tokenmill-jobs");
	CHECK(yyjson_is_true(yyjson_doc_ptr_get(d, "/spec/template/spec/volumes/3/persistentVolumeClaim/readOnly")));
	CHECK(!yyjson_doc_ptr_get(d, "/spec/template/spec/volumes/4"));
	yyjson_doc_free(d);
	launch_release(&l);
	s.job = "s3://bucket/jobs/a"; /* needs no jobs volume */
	s.inputs.n = 0;
	d = manifest(&s, &l);
	CHECK_STR(text(d, "/spec/template/spec/volumes/2/persistentVolumeClaim/claimName"), "tokenmill-models");
	CHECK(!yyjson_doc_ptr_get(d, "/spec/template/spec/volumes/3"));
	CHECK_STR(l.place, "s3://bucket/jobs/a");
	yyjson_doc_free(d);
	launch_release(&l);
}

TEST(names)
{
	struct launch_spec s = basic();
	struct launch a, b;
	struct err err = {0};
	char name[70];

	CHECK_INT(launch_make(&s, &a, &err), 0);
	CHECK_INT(launch_make(&s, &b, &err), 0);
	CHECK_STR(a.name, b.name);
	CHECK_STR(a.manifest, b.manifest);
	CHECK(strncmp(a.name, "qwen3-8b-q4-k-m-", 16) == 0);
	CHECK_INT(strlen(a.name), 24);
	launch_release(&b);
	s.inputs = (struct launch_list){input_b, 1};
	CHECK_INT(launch_make(&s, &b, &err), 0);
	CHECK(strcmp(a.name, b.name) != 0);
	launch_release(&a);
	launch_release(&b);
	s.name = "Night";
	CHECK_INT(launch_make(&s, &a, &err), -1);
	CHECK(strstr(err.msg, "--name: 'Night' must be of small letters"));
	/* "NAME-3" is a host name of at most 63 characters. */
	memset(name, 'a', sizeof(name));
	name[61] = '\0';
	s.name = name;
	err_clear(&err);
	CHECK_INT(launch_make(&s, &a, &err), 0);
	launch_release(&a);
	s.workers = 11;
	CHECK_INT(launch_make(&s, &a, &err), -1);
	CHECK(strstr(err.msg, "there is room for 60"));
	s.workers = 10;
	err_clear(&err);
	CHECK_INT(launch_make(&s, &a, &err), 0);
	launch_release(&a);
}

TEST(compare)
{
	struct launch_spec s = basic();
	struct launch a, b;
	struct err err = {0};
	struct buf how = {0};
	yyjson_doc *d;
	const char *note;
	char *place;

	s.name = "night";
	d = manifest(&s, &a);
	note = text(d, "/metadata/annotations/tokenmill.dev~1spec");
	CHECK_INT(launch_compare(&a, note, &how), 0);
	CHECK_INT(how.len, 0);
	place = launch_submitted(note, "place");
	CHECK_STR(place, "/jobs/night");
	free(place);
	s.workers = 8;
	s.image = "tokenmill:2";
	s.cpu = "4";
	CHECK_INT(launch_make(&s, &b, &err), 0);
	CHECK_INT(launch_compare(&b, note, &how), 1);
	CHECK_STR(buf_str(&how), "cpu none, asked for is 4; image tokenmill, asked for is tokenmill:2; workers 4, asked for is 8");
	buf_reset(&how);
	CHECK_INT(launch_compare(&b, NULL, &how), 1);
	CHECK_STR(buf_str(&how), "it was not made by tokenmill submit");
	buf_reset(&how);
	CHECK_INT(launch_compare(&b, "{broken", &how), 1);
	CHECK_STR(buf_str(&how), "it was not made by tokenmill submit");
	buf_release(&how);
	yyjson_doc_free(d);
	launch_release(&a);
	launch_release(&b);
}

static void check_template(const char *yaml, const char *message)
{
	struct launch_spec s = basic();
	struct launch l;
	struct err err = {0};
	yyjson_doc *t = yaml_to_json("t", yaml, strlen(yaml), ERR_USAGE, &err), *d = NULL;

	s.pod_template = yyjson_doc_get_root(t);
	if (message) {
		CHECK_INT(launch_make(&s, &l, &err), -1);
		CHECK_STR(err.msg, message);
	} else {
		d = manifest(&s, &l);
		CHECK_STR(text(d, "/spec/template/spec/containers/0/image"), "other");
		CHECK_STR(text(d, "/spec/template/spec/containers/0/command/0"), "tokenmill");
		CHECK_STR(text(d, "/spec/template/spec/containers/0/env/4/value"), "/home");
		CHECK_STR(text(d, "/spec/template/spec/containers/0/env/5/name"), "NEW");
		CHECK_STR(text(d, "/spec/template/spec/containers/1/name"), "side");
		CHECK_STR(text(d, "/spec/template/spec/volumes/0/emptyDir/sizeLimit"), "1Gi");
		CHECK(!yyjson_doc_ptr_get(d, "/spec/template/spec/enableServiceLinks"));
		yyjson_doc_free(d);
		launch_release(&l);
	}
	yyjson_doc_free(t);
}

#define CONTAINERS                                                                                                             \
	"{enableServiceLinks: null, volumes: [{name: tmp, emptyDir: {sizeLimit: 1Gi}}], containers: [{name: side, image: s}, "     \
	"{name: worker, image: other, "                                                                                            \
	"env: [{name: NEW, value: x}, {name: HOME, value: /home}]}]}"

TEST(templates)
{
	check_template("spec: " CONTAINERS, NULL);
	check_template("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: " CONTAINERS, NULL);
	check_template("kind: PodTemplate\ntemplate: {spec: " CONTAINERS "}", NULL);
	check_template("kind: Job\nspec: {template: {spec: " CONTAINERS "}}", NULL);
	check_template("spec: {restartPolicy: OnFailure}",
	               "spec.template.spec.restartPolicy must be Never: the failure policy needs it");
	check_template("[]", "--pod-template: is no pod template: an object with spec or metadata");
	check_template("spec: {containers: null}", "the pod has no container 'worker' any more");
}

/* ---- assignments ---- */

static void check_set(const char *json, const char *assignment, const char *expected)
{
	yyjson_doc *d = yyjson_read(json, strlen(json), 0), *fixed;
	yyjson_mut_doc *m = yyjson_doc_mut_copy(d, NULL);
	struct err err = {0};
	struct buf out = {0};

	if (json_edit_set(m, assignment, &err) == 0) {
		fixed = yyjson_mut_doc_imut_copy(m, NULL);
		json_write(&out, yyjson_doc_get_root(fixed));
		yyjson_doc_free(fixed);
	} else {
		buf_adds(&out, err.msg);
	}
	CHECK_STR(buf_str(&out), expected);
	buf_release(&out);
	yyjson_mut_doc_free(m);
	yyjson_doc_free(d);
}

TEST(assignments)
{
	check_set("{}", "a=5", "{\"a\":5}");
	check_set("{}", "a=\"5\"", "{\"a\":\"5\"}");
	check_set("{}", "a=true", "{\"a\":true}");
	check_set("{}", "a=x=y", "{\"a\":\"x=y\"}");
	check_set("{}", "a=", "{\"a\":\"\"}");
	check_set("{}", "a={\"b\":[1]}", "{\"a\":{\"b\":[1]}}");
	check_set("{\"a\":1,\"b\":2}", "a=null", "{\"b\":2}");
	check_set("{\"b\":2}", "a.c=null", "{\"b\":2}");
	check_set("{}", "a.b.c=1", "{\"a\":{\"b\":{\"c\":1}}}");
	check_set("{}", "a.x\\.y/z=1", "{\"a\":{\"x.y/z\":1}}");
	check_set("{}", "a[\"x.y/z\"]=1", "{\"a\":{\"x.y/z\":1}}");
	check_set("{\"a\":[1,2]}", "a[1]=9", "{\"a\":[1,9]}");
	check_set("{\"a\":[1,2]}", "a[-]=9", "{\"a\":[1,2,9]}");
	check_set("{\"a\":[1,2]}", "a[0]=null", "{\"a\":[2]}");
	check_set("{}", "a[-].b=9", "{\"a\":[{\"b\":9}]}");
	check_set("{\"c\":[{\"name\":\"w\",\"v\":1}]}", "c[w].v=2", "{\"c\":[{\"name\":\"w\",\"v\":2}]}");
	check_set("{\"c\":[{\"name\":\"w\"}]}", "c[x].v=2", "c is a list that has no such element");
	check_set("{\"a\":[1]}", "a[7]=2", "a is a list that has no such element");
	check_set("{\"a\":[1]}", "a.b=2", "a is a list: say which element, as [0] or [NAME]");
	check_set("{\"a\":{}}", "a[0]=2", "a is an object, not a list");
	check_set("{\"a\":5}", "a.b=2", "a is neither an object nor a list");
	check_set("{}", "a", "'a' is not PATH=VALUE, such as spec.ttlSecondsAfterFinished=600");
	check_set("{}", "=5", "'=5' is not PATH=VALUE, such as spec.ttlSecondsAfterFinished=600");
	check_set("{}", "a..b=5", "'a..b=5' is not PATH=VALUE, such as spec.ttlSecondsAfterFinished=600");
	check_set("{}", "a.=5", "'a.=5' is not PATH=VALUE, such as spec.ttlSecondsAfterFinished=600");
	check_set("{}", "a[=5", "'a[=5' is not PATH=VALUE, such as spec.ttlSecondsAfterFinished=600");
}

int main(void)
{
	RUN(failure_policy);
	RUN(workers_and_limits);
	RUN(restricted);
	RUN(names);
	RUN(compare);
	RUN(templates);
	RUN(assignments);
	return TEST_RESULT();
}
