/* tool_exit_codes.c: the table of base/errors.c as lines "EXIT_STATUS NAME COUNT|FAIL_JOB|IGNORE", for tests that compare the manifests
 * of the Kubernetes Job with it. */
#include <stdio.h>

#include "base/errors.h"

int main(void)
{
	static const char *const policies[] = {[ERR_POD_COUNT] = "COUNT", [ERR_POD_FAIL_JOB] = "FAIL_JOB", [ERR_POD_IGNORE] = "IGNORE"};

	for (int code = ERR_NONE + 1; code < ERR_N_CODES; code++)
		printf("%d %s %s\n", err_exit_code(code), err_code_name(code), policies[err_pod_policy(code)]);
	return 0;
}
