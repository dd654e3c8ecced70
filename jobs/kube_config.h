/* kube_config.h: which cluster, and who we are there, as kubectl finds it:
 *
 *     --kubeconfig FILE  ->  $KUBECONFIG, a list with ':' (a name's first entry counts, files that are missing do not)
 *                        ->  ~/.kube/config  ->  the service account of the pod that this runs in
 *
 * A context names cluster, user and namespace. Paths in a file are relative to it. What cannot be done (auth-provider, removed
 * from Kubernetes in 1.26) is refused by name. Nothing is asked here: tokens are read and plugins run when a request needs them
 * (kube.h).
 *
 * One thread. A struct kube_config is zero-initialised and released in any case. */
#ifndef TOKENMILL_JOBS_KUBE_CONFIG_H
#define TOKENMILL_JOBS_KUBE_CONFIG_H

#include <stddef.h>

#include "base/errors.h"

#define KUBE_ACCOUNT_DIR "/var/run/secrets/kubernetes.io/serviceaccount"

/* Bytes that a file or its base64 in the configuration gives. NULL: not given. */
struct kube_bytes {
	char *data;
	size_t n;
};

/* A program that prints an ExecCredential (client.authentication.k8s.io). */
struct kube_plugin {
	char *command; /* a name to be found in PATH, or a path */
	char **args;   /* n_args */
	size_t n_args;
	char **env; /* n_env "NAME=VALUE" beside our own */
	size_t n_env;
	char *api_version;
	char *install_hint;
	char *cluster; /* JSON of "spec.cluster" where provideClusterInfo asks for it, else NULL */
	int may_ask;   /* interactiveMode is not Never */
	int must_ask;  /* ... is Always */
};

struct kube_config {
	char *source; /* for messages: "context 'lab' of /home/a/.kube/config" */
	char *server; /* "https://10.0.0.1:6443", without a slash at the end */
	char *namespace_name;
	char *ca_file;
	struct kube_bytes ca; /* goes before ca_file */
	char *server_name;    /* in the server's certificate, where it is not the host's */
	char *proxy;
	int insecure;
	char *cert_file, *key_file;
	struct kube_bytes cert, key; /* go before the files */
	char *token;
	char *token_file; /* goes before token; is read again when it changes */
	char *user, *password;
	char *act_as; /* impersonation */
	char **act_as_groups;
	size_t n_act_as_groups;
	struct kube_plugin *plugin; /* NULL: none */
};

struct kube_choice {
	const char *kubeconfig;     /* NULL: KUBECONFIG and so on */
	const char *context;        /* NULL: current-context */
	const char *namespace_name; /* NULL: the context's, else "default" */
	const char *account_dir;    /* NULL: KUBE_ACCOUNT_DIR */
};

/* ERR_USAGE: nothing is there, or what is there cannot be used; the message names file and member. */
int kube_config_load(struct kube_config *c, const struct kube_choice *choice, struct err *err);

struct kube_text {
	const char *path; /* for messages and relative paths */
	const char *text; /* YAML or JSON */
	size_t n;
};
/* The part of it without files and environment. context NULL: the first current-context. */
int kube_config_read(struct kube_config *c, const struct kube_text *files, size_t n_files, const char *context,
                     struct err *err);
void kube_config_release(struct kube_config *c);

#endif
