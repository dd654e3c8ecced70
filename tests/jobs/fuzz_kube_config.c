/* A kubeconfig from anywhere: it is read or refused with a message; what is read has a server, and nothing in it breaks out of
 * a header line. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/kube_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kube_text file = {"dir/config", (const char *)data, size};
	struct kube_config c = {0};
	struct err err = {0};

	if (kube_config_read(&c, &file, 1, NULL, &err) < 0) {
		if (err.code != ERR_USAGE || strncmp(err.msg, "dir/config:", 11) != 0)
			abort();
	} else if (!c.server || !c.source || (c.token && strpbrk(c.token, "\r\n")) || (c.plugin && !c.plugin->command) ||
	           (!c.cert.data && !c.cert_file) != (!c.key.data && !c.key_file)) {
		abort();
	}
	kube_config_release(&c);
	return 0;
}
