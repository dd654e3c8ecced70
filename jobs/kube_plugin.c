/* kube_plugin.c: start a credential plugin and read what it prints. */
#include "jobs/kube_plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"

enum { CREDENTIAL_MAX_BYTES = 1 << 20 };

extern char **environ;

int64_t kube_time(const char *text)
{
	struct tm tm = {0};
	const char *p = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
	int hours, minutes, n = 0;
	int64_t t;

	if (!p)
		return -1;
	t = (int64_t)timegm(&tm);
	if (*p == '.')
		p += 1 + strspn(p + 1, "0123456789");
	if (strcmp(p, "Z") == 0 || strcmp(p, "z") == 0)
		return t;
	if ((*p != '+' && *p != '-') || sscanf(p + 1, "%2d:%2d%n", &hours, &minutes, &n) != 2 || p[1 + n] || hours < 0 ||
	    minutes < 0)
		return -1;
	return t - (*p == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
}

void kube_credential_release(struct kube_credential *c)
{
	free(c->token);
	free(c->cert.data);
	free(c->key.data);
	*c = (struct kube_credential){0};
}

static char *string_of(yyjson_val *v)
{
	return yyjson_is_str(v) && yyjson_get_len(v) ? xstrdup(yyjson_get_str(v)) : NULL;
}

int kube_credential_parse(const char *text, size_t n, const char *api_version, struct kube_credential *c, struct err *err)
{
	yyjson_doc *doc = json_parse(text, n, ERR_USAGE, err);
	yyjson_val *root = yyjson_doc_get_root(doc), *status = yyjson_obj_get(root, "status"), *expires;
	int rc = 0;

	*c = (struct kube_credential){0};
	if (!doc)
		return err_context(err, "what it printed");
	expires = yyjson_obj_get(status, "expirationTimestamp");
	c->token = string_of(yyjson_obj_get(status, "token"));
	c->cert.data = string_of(yyjson_obj_get(status, "clientCertificateData"));
	c->cert.n = c->cert.data ? strlen(c->cert.data) : 0;
	c->key.data = string_of(yyjson_obj_get(status, "clientKeyData"));
	c->key.n = c->key.data ? strlen(c->key.data) : 0;
	if (!yyjson_equals_str(yyjson_obj_get(root, "kind"), "ExecCredential"))
		rc = err_set(err, ERR_USAGE, "what it printed is no ExecCredential");
	else if (!yyjson_equals_str(yyjson_obj_get(root, "apiVersion"), api_version))
		rc = err_set(err, ERR_USAGE, "it was asked for %s and answered with another apiVersion", api_version);
	else if (!c->cert.data != !c->key.data)
		rc = err_set(err, ERR_USAGE, "it gave a client certificate or its key, not both");
	else if (!c->token && !c->cert.data)
		rc = err_set(err, ERR_USAGE, "it gave neither a token nor a client certificate");
	else if (c->token && strpbrk(c->token, "\r\n"))
		rc = err_set(err, ERR_USAGE, "its token has a line break in it");
	else if (expires && !yyjson_is_null(expires) && (c->expires_unix_s = kube_time(yyjson_get_str(expires))) < 0)
		rc = err_set(err, ERR_USAGE, "its expirationTimestamp is no time");
	yyjson_doc_free(doc);
	if (rc < 0)
		kube_credential_release(c);
	return rc;
}

/* "NAME=" of a is also that of b */
static int same_name(const char *a, const char *b)
{
	size_t n = strcspn(a, "=") + 1;

	return strncmp(a, b, n) == 0;
}

static char **environment(const struct kube_plugin *x, const char *info)
{
	size_t n = 0, used = 0;
	char **env;

	while (environ[n])
		n++;
	env = xcalloc(n + x->n_env + 2, sizeof(*env));
	for (size_t i = 0; i < n; i++) {
		int replaced = same_name(info, environ[i]);

		for (size_t k = 0; k < x->n_env && !replaced; k++)
			replaced = same_name(x->env[k], environ[i]);
		if (!replaced)
			env[used++] = environ[i];
	}
	for (size_t k = 0; k < x->n_env; k++)
		env[used++] = x->env[k];
	env[used] = (char *)info;
	return env;
}

static int collect(int fd, struct buf *out, struct err *err)
{
	char bytes[8192];
	ssize_t n;

	for (;;) {
		n = read(fd, bytes, sizeof(bytes));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, ERR_USAGE, "reading from it");
		if (n == 0)
			return 0;
		if (out->len + (size_t)n > CREDENTIAL_MAX_BYTES)
			return err_set(err, ERR_USAGE, "it prints more than %d bytes", (int)CREDENTIAL_MAX_BYTES);
		buf_add(out, bytes, (size_t)n);
	}
}

static int start(const struct kube_plugin *x, int asks, const char *info, int out_fd, pid_t *pid, struct err *err)
{
	char **argv = xcalloc(x->n_args + 2, sizeof(*argv)), **env = environment(x, info);
	posix_spawn_file_actions_t actions;
	int rc;

	argv[0] = x->command;
	for (size_t i = 0; i < x->n_args; i++)
		argv[i + 1] = x->args[i];
	posix_spawn_file_actions_init(&actions);
	if (!asks)
		posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out_fd, STDOUT_FILENO);
	rc = posix_spawnp(pid, x->command, &actions, NULL, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	free(argv);
	free(env);
	if (rc == 0)
		return 0;
	errno = rc;
	err_sys(err, ERR_USAGE, "cannot be started");
	if (rc == ENOENT && x->install_hint) {
		char hint[600];

		snprintf(hint, sizeof(hint), "%s", x->install_hint);
		err_clear(err);
		err_set(err, ERR_USAGE, "is not installed. %s", hint);
	}
	return -1;
}

static int run(const struct kube_plugin *x, struct buf *out, struct err *err)
{
	int asks = x->may_ask && isatty(STDIN_FILENO), fds[2], status, rc;
	struct buf info = {0};
	pid_t pid;

	if (x->must_ask && !asks)
		return err_set(err, ERR_USAGE, "wants to ask somebody, and standard input is no terminal");
	buf_addf(&info, "KUBERNETES_EXEC_INFO={\"kind\":\"ExecCredential\",\"apiVersion\":\"%s\",\"spec\":{\"interactive\":%s",
	         x->api_version, asks ? "true" : "false");
	if (x->cluster)
		buf_addf(&info, ",\"cluster\":%s", x->cluster);
	buf_adds(&info, "}}");
	if (pipe2(fds, O_CLOEXEC) < 0) {
		buf_release(&info);
		return err_sys(err, ERR_USAGE, "pipe");
	}
	rc = start(x, asks, info.data, fds[1], &pid, err);
	buf_release(&info);
	close(fds[1]);
	if (rc == 0) {
		rc = collect(fds[0], out, err);
		close(fds[0]); /* one that prints on ends by SIGPIPE */
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (rc == 0 && WIFEXITED(status) && WEXITSTATUS(status) != 0)
			rc = err_set(err, ERR_USAGE, "ended with exit status %d", WEXITSTATUS(status));
		else if (rc == 0 && WIFSIGNALED(status))
			rc = err_set(err, ERR_USAGE, "was ended by signal %d", WTERMSIG(status));
	} else {
		close(fds[0]);
	}
	return rc;
}

int kube_plugin_run(const struct kube_plugin *x, struct kube_credential *c, struct err *err)
{
	struct buf out = {0};
	int rc;

	*c = (struct kube_credential){0};
	rc = run(x, &out, err);
	if (rc == 0)
		rc = kube_credential_parse(buf_str(&out), out.len, x->api_version, c, err);
	if (rc < 0)
		err_context(err, "credential plugin %s", x->command);
	buf_release(&out);
	return rc;
}
