/* kube_plugin.h: credentials from a program (aws, gke-gcloud-auth-plugin, kubelogin, ...), as client-go asks for them: the
 * request in KUBERNETES_EXEC_INFO, the answer, an ExecCredential, on its standard output. Its standard error is ours, so that
 * it can say what is wrong; its standard input too, where it may ask and somebody is there. */
#ifndef TOKENMILL_JOBS_KUBE_PLUGIN_H
#define TOKENMILL_JOBS_KUBE_PLUGIN_H

#include <stdint.h>

#include "jobs/kube_config.h"

struct kube_credential {
	char *token;                 /* NULL: none */
	struct kube_bytes cert, key; /* both or none */
	int64_t expires_unix_s;      /* 0: it does not say */
};

/* Run it and wait. ERR_USAGE: it is missing, failed, or what it printed is no credential. *c is then empty. */
int kube_plugin_run(const struct kube_plugin *x, struct kube_credential *c, struct err *err);
/* What it printed. */
int kube_credential_parse(const char *text, size_t n, const char *api_version, struct kube_credential *c, struct err *err);
void kube_credential_release(struct kube_credential *c);

/* "2026-01-31T02:03:04.5Z" or with +08:00: seconds since 1970; -1 when it is no time (RFC 3339). */
int64_t kube_time(const char *text);

#endif
