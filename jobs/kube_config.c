/* kube_config.c: kubeconfig files (YAML by yaml_json.h) and the service account of a pod. */
#include "jobs/kube_config.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "jobs/yaml_json.h"

enum { CONFIG_MAX_BYTES = 4 << 20 };

/* One file, parsed. */
struct source {
	const char *path;
	yyjson_doc *doc;
	yyjson_val *root;
};

/* A value within a file: where it is, for messages and relative paths. */
struct place {
	const struct source *source;
	const char *kind; /* "cluster", "user", "context", "" */
	const char *name;
	struct err *err;
};

static int fault(const struct place *p, const char *key, const char *what)
{
	if (p->kind[0])
		return err_set(p->err, ERR_USAGE, "%s: %s '%s': %s: %s", p->source->path, p->kind, p->name, key, what);
	return err_set(p->err, ERR_USAGE, "%s: %s: %s", p->source->path, key, what);
}

/* The member as a string: *out malloc'd, NULL where it is missing, null or empty (client-go writes empty strings for nothing).
 */
static int read_string(const struct place *p, yyjson_val *v, const char *key, char **out)
{
	yyjson_val *m = yyjson_obj_get(v, key);

	free(*out);
	*out = NULL;
	if (!m || yyjson_is_null(m) || (yyjson_is_str(m) && yyjson_get_len(m) == 0))
		return 0;
	if (!yyjson_is_str(m))
		return fault(p, key, "must be a string");
	if (strlen(yyjson_get_str(m)) != yyjson_get_len(m) || strpbrk(yyjson_get_str(m), "\r\n"))
		return fault(p, key, "has a line break or NUL in it");
	*out = xstrdup(yyjson_get_str(m));
	return 0;
}

static int read_path(const struct place *p, yyjson_val *v, const char *key, char **out)
{
	const char *slash = strrchr(p->source->path, '/');
	struct buf b = {0};

	if (read_string(p, v, key, out) < 0)
		return -1;
	if (!*out || **out == '/' || !slash)
		return 0;
	buf_add(&b, p->source->path, (size_t)(slash + 1 - p->source->path));
	buf_adds(&b, *out);
	free(*out);
	*out = buf_detach(&b);
	return 0;
}

static int read_flag(const struct place *p, yyjson_val *v, const char *key, int *out)
{
	yyjson_val *m = yyjson_obj_get(v, key);

	if (!m || yyjson_is_null(m))
		return 0;
	if (!yyjson_is_bool(m))
		return fault(p, key, "must be true or false");
	*out = yyjson_get_bool(m);
	return 0;
}

static int read_base64(const struct place *p, yyjson_val *v, const char *key, struct kube_bytes *out)
{
	yyjson_val *m = yyjson_obj_get(v, key);
	struct buf in = {0};
	unsigned char *bytes;
	int n;

	if (!m || yyjson_is_null(m) || (yyjson_is_str(m) && yyjson_get_len(m) == 0))
		return 0;
	if (!yyjson_is_str(m))
		return fault(p, key, "must be a string");
	for (const char *s = yyjson_get_str(m), *end = s + yyjson_get_len(m); s < end; s++)
		if (*s != '\n' && *s != '\r' && *s != ' ')
			buf_addc(&in, *s);
	bytes = xmalloc(in.len + 4);
	n = EVP_DecodeBlock(bytes, (const unsigned char *)buf_str(&in), (int)in.len);
	for (size_t i = in.len; n > 0 && i > 0 && i > in.len - 2 && in.data[i - 1] == '='; i--)
		n--;
	buf_release(&in);
	if (n <= 0) {
		free(bytes);
		return fault(p, key, "is not base64");
	}
	bytes[n] = '\0';
	free(out->data);
	*out = (struct kube_bytes){(char *)bytes, (size_t)n};
	return 0;
}

/* ---- plugin ---- */

static int read_plugin_args(const struct place *p, yyjson_val *v, struct kube_plugin *x)
{
	yyjson_val *list = yyjson_obj_get(v, "args"), *m;
	size_t i, max;

	if (!list || yyjson_is_null(list))
		return 0;
	if (!yyjson_is_arr(list))
		return fault(p, "exec.args", "must be a list");
	x->args = xcalloc(yyjson_arr_size(list) + 1, sizeof(*x->args));
	yyjson_arr_foreach (list, i, max, m) {
		if (!yyjson_is_str(m) || strlen(yyjson_get_str(m)) != yyjson_get_len(m))
			return fault(p, "exec.args", "must be a list of strings");
		x->args[x->n_args++] = xstrdup(yyjson_get_str(m));
	}
	return 0;
}

static int read_plugin_env(const struct place *p, yyjson_val *v, struct kube_plugin *x)
{
	yyjson_val *list = yyjson_obj_get(v, "env"), *m;
	size_t i, max;

	if (!list || yyjson_is_null(list))
		return 0;
	if (!yyjson_is_arr(list))
		return fault(p, "exec.env", "must be a list");
	x->env = xcalloc(yyjson_arr_size(list) + 1, sizeof(*x->env));
	yyjson_arr_foreach (list, i, max, m) {
		const char *name = yyjson_get_str(yyjson_obj_get(m, "name")), *value = yyjson_get_str(yyjson_obj_get(m, "value"));
		struct buf b = {0};

		if (!name || !*name || strchr(name, '='))
			return fault(p, "exec.env", "each entry needs a name and a value");
		buf_addf(&b, "%s=%s", name, value ? value : "");
		x->env[x->n_env++] = buf_detach(&b);
	}
	return 0;
}

/* What a plugin is told of the cluster, from the cluster's own entry. */
static char *cluster_info(yyjson_val *cluster)
{
	static const char *const keys[] = {
	    "server",    "tls-server-name",    "insecure-skip-tls-verify", "certificate-authority-data",
	    "proxy-url", "disable-compression"};
	struct buf b = {0};

	buf_addc(&b, '{');
	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		yyjson_val *m = yyjson_obj_get(cluster, keys[i]);

		if (!m || yyjson_is_null(m))
			continue;
		if (b.len > 1)
			buf_addc(&b, ',');
		json_write_string(&b, keys[i], strlen(keys[i]));
		buf_addc(&b, ':');
		json_write(&b, m);
	}
	buf_addc(&b, '}');
	return buf_detach(&b);
}

static int read_plugin(const struct place *p, yyjson_val *v, yyjson_val *cluster, struct kube_config *c)
{
	struct kube_plugin *x = c->plugin = xcalloc(1, sizeof(*x));
	char *mode = NULL;
	int wants_info = 0, ok;

	if (!yyjson_is_obj(v))
		return fault(p, "exec", "must be a mapping");
	if (read_string(p, v, "apiVersion", &x->api_version) < 0 || read_string(p, v, "command", &x->command) < 0 ||
	    read_string(p, v, "interactiveMode", &mode) < 0 || read_flag(p, v, "provideClusterInfo", &wants_info) < 0) {
		free(mode);
		return -1;
	}
	x->must_ask = mode && strcmp(mode, "Always") == 0;
	x->may_ask = !mode || x->must_ask || strcmp(mode, "IfAvailable") == 0;
	ok = x->may_ask || strcmp(mode, "Never") == 0;
	free(mode);
	if (!ok)
		return fault(p, "exec.interactiveMode", "must be Never, IfAvailable or Always");
	if (!x->command)
		return fault(p, "exec.command", "missing");
	if (!x->api_version || (strcmp(x->api_version, "client.authentication.k8s.io/v1") != 0 &&
	                        strcmp(x->api_version, "client.authentication.k8s.io/v1beta1") != 0))
		return fault(p, "exec.apiVersion", "must be client.authentication.k8s.io/v1 or v1beta1");
	if (strchr(x->command, '/') && read_path(p, v, "command", &x->command) < 0)
		return -1;
	if (yyjson_is_str(yyjson_obj_get(v, "installHint")))
		x->install_hint = xstrdup(yyjson_get_str(yyjson_obj_get(v, "installHint")));
	if (wants_info)
		x->cluster = cluster_info(cluster);
	return read_plugin_args(p, v, x) < 0 ? -1 : read_plugin_env(p, v, x);
}

/* ---- entries ---- */

static int read_cluster(const struct place *p, yyjson_val *v, struct kube_config *c)
{
	size_t n;

	if (read_string(p, v, "server", &c->server) < 0 || read_path(p, v, "certificate-authority", &c->ca_file) < 0 ||
	    read_base64(p, v, "certificate-authority-data", &c->ca) < 0 ||
	    read_string(p, v, "tls-server-name", &c->server_name) < 0 || read_string(p, v, "proxy-url", &c->proxy) < 0 ||
	    read_flag(p, v, "insecure-skip-tls-verify", &c->insecure) < 0)
		return -1;
	if (!c->server)
		return fault(p, "server", "missing");
	if (strncmp(c->server, "https://", 8) != 0 && strncmp(c->server, "http://", 7) != 0)
		return fault(p, "server", "must begin with https://");
	for (n = strlen(c->server); n && c->server[n - 1] == '/'; n--)
		c->server[n - 1] = '\0';
	if (c->insecure && (c->ca_file || c->ca.data))
		return fault(p, "insecure-skip-tls-verify", "cannot be given with a certificate authority");
	return 0;
}

static int read_user(const struct place *p, yyjson_val *v, yyjson_val *cluster, struct kube_config *c)
{
	yyjson_val *groups = yyjson_obj_get(v, "act-as-groups"), *extra = yyjson_obj_get(v, "act-as-user-extra"), *m;
	yyjson_val *provider = yyjson_obj_get(v, "auth-provider"), *exec = yyjson_obj_get(v, "exec");
	size_t i, max;

	if (read_path(p, v, "client-certificate", &c->cert_file) < 0 || read_path(p, v, "client-key", &c->key_file) < 0 ||
	    read_base64(p, v, "client-certificate-data", &c->cert) < 0 || read_base64(p, v, "client-key-data", &c->key) < 0 ||
	    read_string(p, v, "token", &c->token) < 0 || read_path(p, v, "tokenFile", &c->token_file) < 0 ||
	    read_string(p, v, "username", &c->user) < 0 || read_string(p, v, "password", &c->password) < 0 ||
	    read_string(p, v, "act-as", &c->act_as) < 0)
		return -1;
	if (provider && !yyjson_is_null(provider))
		return fault(p, "auth-provider", "is no longer part of Kubernetes: use an exec plugin");
	if (yyjson_obj_size(extra))
		return fault(p, "act-as-user-extra", "is not supported");
	if (groups && !yyjson_is_null(groups) && !yyjson_is_arr(groups))
		return fault(p, "act-as-groups", "must be a list");
	if (yyjson_arr_size(groups)) {
		c->act_as_groups = xcalloc(yyjson_arr_size(groups), sizeof(*c->act_as_groups));
		yyjson_arr_foreach (groups, i, max, m) {
			if (!yyjson_is_str(m) || strpbrk(yyjson_get_str(m), "\r\n"))
				return fault(p, "act-as-groups", "must be a list of names");
			c->act_as_groups[c->n_act_as_groups++] = xstrdup(yyjson_get_str(m));
		}
	}
	if ((c->cert_file || c->cert.data) != (c->key_file || c->key.data))
		return fault(p, c->key_file || c->key.data ? "client-certificate" : "client-key", "missing");
	if (exec && !yyjson_is_null(exec))
		return read_plugin(p, exec, cluster, c);
	return 0;
}

/* The entry `name` of "clusters" and so on: in the first file that has it. The place is filled in with it. */
static yyjson_val *find_entry(struct place *p, const struct source *sources, size_t n, const char *list_name, const char *kind,
                              const char *name)
{
	size_t i, max;
	yyjson_val *m;

	for (size_t f = 0; f < n; f++) {
		yyjson_arr_foreach (yyjson_obj_get(sources[f].root, list_name), i, max, m) {
			if (!yyjson_equals_str(yyjson_obj_get(m, "name"), name))
				continue;
			*p = (struct place){&sources[f], kind, name, p->err};
			m = yyjson_obj_get(m, kind);
			if (yyjson_is_obj(m))
				return m;
			fault(p, kind, "must be a mapping");
			return NULL;
		}
	}
	return NULL;
}

static int no_context(const struct source *sources, size_t n, const char *name, struct err *err)
{
	struct buf names = {0};
	size_t i, max;
	yyjson_val *m;
	int rc;

	for (size_t f = 0; f < n; f++)
		yyjson_arr_foreach (yyjson_obj_get(sources[f].root, "contexts"), i, max, m)
			if (yyjson_is_str(yyjson_obj_get(m, "name")))
				buf_addf(&names, "%s%s", names.len ? ", " : "", yyjson_get_str(yyjson_obj_get(m, "name")));
	if (name)
		rc = err_set(err, ERR_USAGE, "%s: there is no context '%s' (there are: %s)", sources[0].path, name,
		             names.len ? names.data : "none");
	else
		rc = err_set(err, ERR_USAGE, "%s: no current-context: choose one with --context (there are: %s)", sources[0].path,
		             names.len ? names.data : "none");
	buf_release(&names);
	return rc;
}

static int choose(struct kube_config *c, const struct source *sources, size_t n, const char *context, struct err *err)
{
	struct place p = {.err = err}, cp = {.err = err}, up = {.err = err};
	yyjson_val *v, *cluster, *user = NULL;
	char *cluster_name = NULL, *user_name = NULL;
	struct buf text = {0};
	int rc = -1;

	for (size_t i = 0; i < n && !context; i++) {
		context = yyjson_get_str(yyjson_obj_get(sources[i].root, "current-context"));
		if (context && !*context)
			context = NULL;
	}
	v = context ? find_entry(&p, sources, n, "contexts", "context", context) : NULL;
	if (!v)
		return err->code ? -1 : no_context(sources, n, context, err);
	buf_addf(&text, "context '%s' of %s", context, p.source->path);
	free(c->source);
	c->source = buf_detach(&text);
	if (read_string(&p, v, "namespace", &c->namespace_name) < 0 || read_string(&p, v, "cluster", &cluster_name) < 0 ||
	    read_string(&p, v, "user", &user_name) < 0)
		goto out;
	cluster = cluster_name ? find_entry(&cp, sources, n, "clusters", "cluster", cluster_name) : NULL;
	if (!cluster) {
		rc = err->code ? -1 : fault(&p, "cluster", cluster_name ? "there is no such cluster" : "missing");
		goto out;
	}
	if (read_cluster(&cp, cluster, c) < 0)
		goto out;
	if (user_name) {
		user = find_entry(&up, sources, n, "users", "user", user_name);
		if (!user && !err->code)
			fault(&p, "user", "there is no such user");
		if (!user || read_user(&up, user, cluster, c) < 0)
			goto out;
	}
	rc = 0;
out:
	free(cluster_name);
	free(user_name);
	return rc;
}

int kube_config_read(struct kube_config *c, const struct kube_text *files, size_t n_files, const char *context, struct err *err)
{
	struct source *sources = xcalloc(n_files + 1, sizeof(*sources));
	int rc = 0;

	for (size_t i = 0; i < n_files && rc == 0; i++) {
		sources[i].path = files[i].path;
		sources[i].doc = yaml_to_json(files[i].path, files[i].text, files[i].n, ERR_USAGE, err);
		sources[i].root = yyjson_doc_get_root(sources[i].doc);
		if (!sources[i].doc)
			rc = -1;
		else if (!yyjson_is_obj(sources[i].root) && !yyjson_is_null(sources[i].root))
			rc = err_set(err, ERR_USAGE, "%s: is not a kubeconfig: must be a mapping", files[i].path);
	}
	if (rc == 0)
		rc = choose(c, sources, n_files, context, err);
	for (size_t i = 0; i < n_files; i++)
		yyjson_doc_free(sources[i].doc);
	free(sources);
	return rc;
}

/* ---- where it is ---- */

static int load_files(struct kube_config *c, char **paths, size_t n_paths, const char *context, struct err *err)
{
	struct kube_text *files = xcalloc(n_paths, sizeof(*files));
	struct buf *texts = xcalloc(n_paths, sizeof(*texts));
	int rc = 0;

	for (size_t i = 0; i < n_paths && rc == 0; i++) {
		rc = file_read(paths[i], CONFIG_MAX_BYTES, &texts[i], ERR_USAGE, err);
		files[i] = (struct kube_text){paths[i], buf_str(&texts[i]), texts[i].len};
	}
	if (rc == 0)
		rc = kube_config_read(c, files, n_paths, context, err);
	for (size_t i = 0; i < n_paths; i++)
		buf_release(&texts[i]);
	free(texts);
	free(files);
	return rc;
}

/* Files that are there, of a list with ':'. */
static char **existing_files(const char *list, size_t *n)
{
	char **paths = NULL;
	size_t cap = 0;

	*n = 0;
	while (*list) {
		size_t len = strcspn(list, ":");
		char *path = xmemdup(list, len);

		if (len && file_exists(path)) {
			MEM_GROW(paths, cap, *n + 1);
			paths[(*n)++] = path;
		} else {
			free(path);
		}
		list += len + (list[len] == ':');
	}
	return paths;
}

/* 1, 0: this is no pod, -1. */
static int load_account(struct kube_config *c, const char *dir, struct err *err)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
	struct buf b = {0};
	char *path;

	c->token_file = file_join(dir, "token");
	if (!host || !*host || !port || !*port || !file_exists(c->token_file)) {
		free(c->token_file);
		c->token_file = NULL;
		return 0;
	}
	buf_addf(&b, strchr(host, ':') ? "https://[%s]:%s" : "https://%s:%s", host, port);
	c->server = buf_detach(&b);
	c->source = xstrdup("this pod's service account");
	c->ca_file = file_join(dir, "ca.crt");
	path = file_join(dir, "namespace");
	if (file_exists(path)) {
		if (file_read(path, 1000, &b, ERR_USAGE, err) < 0) {
			free(path);
			return -1;
		}
		buf_truncate(&b, strcspn(b.data ? b.data : "", "\r\n"));
		if (b.len)
			c->namespace_name = buf_detach(&b);
	}
	free(path);
	buf_release(&b);
	return 1;
}

static int load(struct kube_config *c, const struct kube_choice *choice, struct err *err)
{
	const char *list = getenv("KUBECONFIG"), *home = getenv("HOME");
	const char *dir = choice->account_dir ? choice->account_dir : KUBE_ACCOUNT_DIR;
	char *standard = NULL, **paths;
	size_t n = 0;
	int rc;

	if (choice->kubeconfig) {
		char *one = (char *)choice->kubeconfig;

		return load_files(c, &one, 1, choice->context, err);
	}
	if (!list || !*list)
		list = standard = file_join(home && *home ? home : "", ".kube/config");
	paths = existing_files(list, &n);
	if (n) {
		rc = load_files(c, paths, n, choice->context, err);
	} else {
		rc = load_account(c, dir, err);
		if (rc == 0)
			rc = err_set(
			    err, ERR_USAGE,
			    "no cluster is known: %s is not there, and this is no pod with a service account; give --kubeconfig FILE",
			    list);
		else if (rc > 0)
			rc = choice->context
			         ? err_set(err, ERR_USAGE, "--context '%s': there is no kubeconfig, only this pod's service account",
			                   choice->context)
			         : 0;
	}
	for (size_t i = 0; i < n; i++)
		free(paths[i]);
	free(paths);
	free(standard);
	return rc;
}

int kube_config_load(struct kube_config *c, const struct kube_choice *choice, struct err *err)
{
	if (load(c, choice, err) < 0)
		return -1;
	if (choice->namespace_name || !c->namespace_name) {
		free(c->namespace_name);
		c->namespace_name = xstrdup(choice->namespace_name ? choice->namespace_name : "default");
	}
	return 0;
}

static void strings_free(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

void kube_config_release(struct kube_config *c)
{
	struct kube_plugin *x = c->plugin;

	if (x) {
		strings_free(x->args, x->n_args);
		strings_free(x->env, x->n_env);
		free(x->command);
		free(x->api_version);
		free(x->install_hint);
		free(x->cluster);
		free(x);
	}
	free(c->source);
	free(c->server);
	free(c->namespace_name);
	free(c->ca_file);
	free(c->ca.data);
	free(c->server_name);
	free(c->proxy);
	free(c->cert_file);
	free(c->key_file);
	free(c->cert.data);
	free(c->key.data);
	free(c->token);
	free(c->token_file);
	free(c->user);
	free(c->password);
	free(c->act_as);
	strings_free(c->act_as_groups, c->n_act_as_groups);
	*c = (struct kube_config){0};
}
