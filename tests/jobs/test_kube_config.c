/* kubeconfig files and YAML as kubectl reads them; credential plugins. */
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "jobs/kube_config.h"
#include "jobs/kube_plugin.h"
#include "jobs/yaml_json.h"
#include "tests/check.h"

/* ---- YAML ---- */

static void check_yaml(const char *yaml, const char *json)
{
	struct err err = {0};
	yyjson_doc *doc = yaml_to_json("t", yaml, strlen(yaml), ERR_INPUT, &err);
	struct buf out = {0};

	if (doc)
		json_write(&out, yyjson_doc_get_root(doc));
	else
		buf_adds(&out, err.msg);
	CHECK_STR(buf_str(&out), json);
	buf_release(&out);
	yyjson_doc_free(doc);
}

/* Values by gopkg.in/yaml.v2's resolve.go, which kubectl's sigs.k8s.io/yaml keeps. */
TEST(yaml_scalars)
{
	check_yaml("[0644, 0o17, 0x1F, 0b101, 1_000, -7, +5, 08, 0]", "[420,15,31,5,1000,-7,5,8.0,0]");
	check_yaml("[1.5, .5, 2., 1e3, -1.25e-2, 1.2.3, 1e, 0x, ., -, +]",
	           "[1.5,0.5,2.0,1000.0,-0.0125,\"1.2.3\",\"1e\",\"0x\",\".\",\"-\",\"+\"]");
	check_yaml("[yes, Off, TRUE, ~, null, '', y, n]", "[true,false,true,null,null,\"\",\"y\",\"n\"]");
	check_yaml("['5', \"true\", !!str 5, 2026-01-31, 4Gi, 100m]", "[\"5\",\"true\",\"5\",\"2026-01-31\",\"4Gi\",\"100m\"]");
	check_yaml("[18446744073709551615, -9223372036854775808]", "[18446744073709551615,-9223372036854775808]");
	check_yaml("a: |\n  x\n  y\nb: >-\n  x\n  y\n", "{\"a\":\"x\\ny\\n\",\"b\":\"x y\"}");
	check_yaml("", "null");
	check_yaml("a:\n", "{\"a\":null}");
	check_yaml("---\na: 1\n...\n", "{\"a\":1}");
	check_yaml("{\"a\": [1, {\"b\": \"\\u00e9\"}]}", "{\"a\":[1,{\"b\":\"é\"}]}");
}

TEST(yaml_aliases)
{
	check_yaml("a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  j: 2\n", "{\"a\":{\"k\":1},\"b\":{\"k\":1},\"c\":{\"j\":2,\"k\":1}}");
	check_yaml("a: &x {k: 1}\nb: &y {k: 2, l: 3}\nc:\n  <<: [*x, *y]\n",
	           "{\"a\":{\"k\":1},\"b\":{\"k\":2,\"l\":3},\"c\":{\"k\":1,\"l\":3}}");
	check_yaml("a: &x {k: 1}\nc:\n  k: 9\n  <<: *x\n", "{\"a\":{\"k\":1},\"c\":{\"k\":9}}");
	check_yaml("a: &x [*x]\n", "t:1: no complete value has the anchor x");
	check_yaml("a: *nobody\n", "t:1: no complete value has the anchor nobody");
}

TEST(yaml_faults)
{
	struct buf b = {0};

	check_yaml("a: 1\na: 2\n", "t:2: given twice: a");
	check_yaml("a: 1\n---\nb: 2\n", "t:2: a second document begins here");
	check_yaml("a: .nan\n", "t:1: JSON has no number .nan");
	check_yaml("[a]: 1\n", "t:1: a key must be plain text");
	check_yaml("<<: 5\n", "t:1: << must have a mapping or a list of mappings");
	check_yaml("a: !mine 5\n", "t:1: unknown tag !mine");
	check_yaml("a: [1\n", "t:2: did not find expected ',' or ']' while parsing a flow sequence");
	for (int i = 0; i < 102; i++)
		buf_addc(&b, '[');
	check_yaml(b.data, "t:1: nested too deeply");
	buf_reset(&b);
	buf_adds(&b, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
	for (int i = 1; i < 9; i++) {
		buf_addf(&b, "a%d: &a%d [", i, i);
		for (int k = 0; k < 10; k++)
			buf_addf(&b, "*a%d,", i - 1);
		buf_adds(&b, "]\n");
	}
	check_yaml(b.data, "t:6: too many values, through alias *a4");
	buf_release(&b);
}

/* ---- kubeconfig ---- */

static int read_all(struct kube_config *c, const char *context, struct err *err, const char *a, const char *b)
{
	struct kube_text files[2] = {{"/home/u/.kube/config", a, strlen(a)}, {"/etc/k/more", b ? b : "", b ? strlen(b) : 0}};

	err_clear(err);
	kube_config_release(c);
	return kube_config_read(c, files, b ? 2 : 1, context, err);
}

static const char basic[] =
    "apiVersion: v1\n"
    "kind: Config\n"
    "current-context: lab\n"
    "clusters:\n"
    "- name: c\n"
    "  cluster: {server: 'https://h:6443/', certificate-authority: pki/ca.crt, tls-server-name: kubernetes, proxy-url: "
    "'socks5://p:1'}\n"
    "- {name: open, cluster: {server: 'http://h', insecure-skip-tls-verify: true}}\n"
    "users:\n"
    "- name: u\n"
    "  user: {client-certificate: /abs/a.crt, client-key-data: 'S0VZ', act-as: jane, act-as-groups: [dev]}\n"
    "- {name: t, user: {token: abc, tokenFile: tok}}\n"
    "contexts:\n"
    "- {name: lab, context: {cluster: c, user: u, namespace: team}}\n"
    "- {name: other, context: {cluster: open, user: t}}\n";

TEST(config_files)
{
	struct kube_config c = {0};
	struct err err = {0};

	CHECK_INT(read_all(&c, NULL, &err, basic, NULL), 0);
	CHECK_STR(c.server, "https://h:6443");
	CHECK_STR(c.ca_file, "/home/u/.kube/pki/ca.crt");
	CHECK_STR(c.server_name, "kubernetes");
	CHECK_STR(c.proxy, "socks5://p:1");
	CHECK_STR(c.cert_file, "/abs/a.crt");
	CHECK_STR(c.key.data, "KEY");
	CHECK_INT(c.key.n, 3);
	CHECK_STR(c.namespace_name, "team");
	CHECK_STR(c.act_as, "jane");
	CHECK_INT(c.n_act_as_groups, 1);
	CHECK_STR(c.source, "context 'lab' of /home/u/.kube/config");
	CHECK_INT(read_all(&c, "other", &err, basic, NULL), 0);
	CHECK_INT(c.insecure, 1);
	CHECK_STR(c.token, "abc");
	CHECK_STR(c.token_file, "/home/u/.kube/tok");
	CHECK(!c.namespace_name);
	kube_config_release(&c);
}

TEST(config_lists)
{
	static const char more[] =
	    "current-context: far\n"
	    "clusters: [{name: c, cluster: {server: 'https://not-this'}}, {name: d, cluster: {server: 'https://d', "
	    "certificate-authority: ca}}]\n"
	    "contexts: [{name: far, context: {cluster: d, user: u}}, {name: mixed, context: {cluster: c, user: t}}]\n";
	struct kube_config c = {0};
	struct err err = {0};

	CHECK_INT(read_all(&c, NULL, &err, basic, more), 0); /* the first file's current-context and entries count */
	CHECK_STR(c.server, "https://h:6443");
	CHECK_INT(read_all(&c, "far", &err, basic, more), 0);
	CHECK_STR(c.server, "https://d");
	CHECK_STR(c.ca_file, "/etc/k/ca");
	CHECK_INT(read_all(&c, "mixed", &err, basic, more), 0);
	CHECK_STR(c.server, "https://h:6443");
	CHECK_STR(c.token, "abc");
	kube_config_release(&c);
}

#define ONE(user)                                                                                                              \
	"current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: "       \
	"'https://h'}}]\nusers: [{name: u, user: " user "}]\n"

TEST(config_faults)
{
	static const struct {
		const char *text, *context, *message;
	} cases[] = {
	    {basic, "lba", "/home/u/.kube/config: there is no context 'lba' (there are: lab, other)"},
	    {"contexts: []", NULL, "/home/u/.kube/config: no current-context: choose one with --context (there are: none)"},
	    {"5", NULL, "/home/u/.kube/config: is not a kubeconfig: must be a mapping"},
	    {ONE("{token: 5}"), NULL, "/home/u/.kube/config: user 'u': token: must be a string"},
	    {ONE("{token: \"a\\nX-Evil: 1\"}"), NULL, "/home/u/.kube/config: user 'u': token: has a line break or NUL in it"},
	    {ONE("{client-certificate-data: '%%%', client-key: k}"), NULL,
	     "/home/u/.kube/config: user 'u': client-certificate-data: is not base64"},
	    {ONE("{client-certificate: c}"), NULL, "/home/u/.kube/config: user 'u': client-key: missing"},
	    {ONE("{auth-provider: {name: gcp}}"), NULL,
	     "/home/u/.kube/config: user 'u': auth-provider: is no longer part of Kubernetes: use an exec plugin"},
	    {ONE("{exec: {command: c, apiVersion: client.authentication.k8s.io/v1alpha1}}"), NULL,
	     "/home/u/.kube/config: user 'u': exec.apiVersion: must be client.authentication.k8s.io/v1 or v1beta1"},
	    {ONE("{exec: {apiVersion: client.authentication.k8s.io/v1}}"), NULL,
	     "/home/u/.kube/config: user 'u': exec.command: missing"},
	    {ONE("{exec: {command: c, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Perhaps}}"), NULL,
	     "/home/u/.kube/config: user 'u': exec.interactiveMode: must be Never, IfAvailable or Always"},
	    {"current-context: x\ncontexts: [{name: x, context: {cluster: none}}]", NULL,
	     "/home/u/.kube/config: context 'x': cluster: there is no such cluster"},
	    {"current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: h}}]", NULL,
	     "/home/u/.kube/config: cluster 'c': server: must begin with https://"},
	    {"current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
	     "clusters: [{name: c, cluster: {server: 'https://h', insecure-skip-tls-verify: true, certificate-authority: f}}]",
	     NULL, "/home/u/.kube/config: cluster 'c': insecure-skip-tls-verify: cannot be given with a certificate authority"},
	};
	struct kube_config c = {0};
	struct err err = {0};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		CHECK_INT(read_all(&c, cases[i].context, &err, cases[i].text, NULL), -1);
		CHECK_STR(err.msg, cases[i].message);
		CHECK_INT(err.code, ERR_USAGE);
	}
	kube_config_release(&c);
}

static void write_text(const char *path, const char *text)
{
	struct err err = {0};

	CHECK_INT(file_write_atomic(path, text, strlen(text), &err), 0);
}

TEST(config_places)
{
	struct kube_config c = {0};
	struct err err = {0};

	unsetenv("KUBERNETES_SERVICE_HOST");
	setenv("HOME", "nowhere", 1);
	unsetenv("KUBECONFIG");
	CHECK_INT(kube_config_load(&c, &(struct kube_choice){.account_dir = "account"}, &err), -1);
	CHECK(strstr(err.msg, "no cluster is known"));
	kube_config_release(&c);
	err_clear(&err);

	mkdir("account", 0755);
	write_text("account/token", "secret\n");
	write_text("account/ca.crt", "CA");
	write_text("account/namespace", "pod-space\n");
	setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
	setenv("KUBERNETES_SERVICE_PORT", "443", 1);
	CHECK_INT(kube_config_load(&c, &(struct kube_choice){.account_dir = "account"}, &err), 0);
	CHECK_STR(c.server, "https://[fd00::1]:443");
	CHECK_STR(c.token_file, "account/token");
	CHECK_STR(c.ca_file, "account/ca.crt");
	CHECK_STR(c.namespace_name, "pod-space");
	kube_config_release(&c);
	CHECK_INT(kube_config_load(&c, &(struct kube_choice){.account_dir = "account", .namespace_name = "mine"}, &err), 0);
	CHECK_STR(c.namespace_name, "mine");
	kube_config_release(&c);

	write_text("k1", ONE("{token: one}"));
	setenv("KUBECONFIG", "missing:k1:", 1);
	CHECK_INT(kube_config_load(&c, &(struct kube_choice){.account_dir = "account"}, &err), 0);
	CHECK_STR(c.token, "one");
	CHECK_STR(c.namespace_name, "default");
	kube_config_release(&c);
	CHECK_INT(kube_config_load(&c, &(struct kube_choice){.kubeconfig = "missing"}, &err), -1);
	CHECK(strstr(err.msg, "missing"));
	kube_config_release(&c);
}

/* ---- plugins ---- */

#define V1 "client.authentication.k8s.io/v1"

static int plugin(const char *script, struct kube_credential *c, struct err *err)
{
	char *args[] = {"-c", (char *)script}, *env[] = {"GREETING=hello"};
	struct kube_plugin x = {.command = "sh",
	                        .args = args,
	                        .n_args = 2,
	                        .env = env,
	                        .n_env = 1,
	                        .api_version = V1,
	                        .cluster = "{\"server\":\"https://h\"}"};

	err_clear(err);
	return kube_plugin_run(&x, c, err);
}

TEST(plugins)
{
	struct kube_credential c;
	struct err err = {0};
	struct kube_plugin missing = {
	    .command = "no-such-program-here", .api_version = V1, .install_hint = "Get it from\nthe vendor."};

	CHECK_INT(plugin("printf '{\"kind\":\"ExecCredential\",\"apiVersion\":\"" V1
	                 "\",\"status\":{\"token\":\"%s\",\"expirationTimestamp\":\"2030-01-01T00:00:00Z\"}}' "
	                 "\"$GREETING-$(echo \"$KUBERNETES_EXEC_INFO\" | cksum | cut -d' ' -f2)\"",
	                 &c, &err),
	          0);
	CHECK_STR(c.token, "hello-135"); /* the length of what it was told, and a line end */
	CHECK_INT(c.expires_unix_s, 1893456000);
	kube_credential_release(&c);
	CHECK_INT(plugin("echo '{}'", &c, &err), -1);
	CHECK_STR(err.msg, "credential plugin sh: what it printed is no ExecCredential");
	CHECK_INT(plugin("exit 3", &c, &err), -1);
	CHECK_STR(err.msg, "credential plugin sh: ended with exit status 3");
	CHECK_INT(plugin("yes", &c, &err), -1);
	CHECK_STR(err.msg, "credential plugin sh: it prints more than 1048576 bytes");
	CHECK_INT(
	    plugin("echo '{\"kind\":\"ExecCredential\",\"apiVersion\":\"" V1 "\",\"status\":{\"clientKeyData\":\"k\"}}'", &c, &err),
	    -1);
	CHECK_STR(err.msg, "credential plugin sh: it gave a client certificate or its key, not both");
	err_clear(&err);
	CHECK_INT(kube_plugin_run(&missing, &c, &err), -1);
	CHECK_STR(err.msg, "credential plugin no-such-program-here: is not installed. Get it from the vendor.");
}

TEST(times)
{
	CHECK_INT(kube_time("2026-01-31T02:03:04Z"), 1769824984);
	CHECK_INT(kube_time("2026-01-31T02:03:04.123456Z"), 1769824984);
	CHECK_INT(kube_time("2026-01-31T10:03:04+08:00"), 1769824984);
	CHECK_INT(kube_time("2026-01-30T21:33:04-04:30"), 1769824984);
	CHECK_INT(kube_time("2026-01-31"), -1);
	CHECK_INT(kube_time("2026-01-31T02:03:04"), -1);
	CHECK_INT(kube_time("2026-01-31T02:03:04+08"), -1);
	CHECK_INT(kube_time(NULL), -1);
}

int main(void)
{
	RUN(yaml_scalars);
	RUN(yaml_aliases);
	RUN(yaml_faults);
	RUN(config_files);
	RUN(config_lists);
	RUN(config_faults);
	RUN(config_places);
	RUN(plugins);
	RUN(times);
	return TEST_RESULT();
}
