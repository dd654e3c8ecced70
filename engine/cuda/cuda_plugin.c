/* cuda_plugin.c: dlopen, the version check, and the words. */
#include "engine/cuda/cuda_plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLUGIN_NAME "tokenmill-cuda.so"

static const struct gpu_api *opened;
static char opened_path[PATH_MAX + 64];

/* The directory of the program, without the slash at its end; empty when the system does not tell. */
static void program_dir(char *dir, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", dir, size - 1);
	char *slash;

	dir[n > 0 ? n : 0] = '\0';
	slash = strrchr(dir, '/');
	if (slash)
		*slash = '\0';
}

static const struct gpu_api *open_at(const char *path, struct err *err)
{
	typedef const struct gpu_api *(*api_fn)(void);
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL), *symbol;
	const struct gpu_api *api;
	api_fn get;

	if (!handle) {
		err_set(err, ERR_ENGINE, "the CUDA plug-in cannot be opened: %s", dlerror());
		return NULL;
	}
	symbol = dlsym(handle, "tokenmill_gpu_api");
	if (!symbol) {
		err_set(err, ERR_ENGINE, "%s is no plug-in of tokenmill", path);
		return NULL;
	}
	memcpy(&get, &symbol,
	       sizeof(get)); /* C has no cast from an object's address to a function's; POSIX promises that they are alike */
	api = get();
	if (api->abi != GPU_ABI) {
		err_set(err, ERR_ENGINE,
		        "%s was built for another version of tokenmill (interface %d, this program has %d): build both from one source",
		        path, api->abi, GPU_ABI);
		return NULL;
	}
	snprintf(opened_path, sizeof(opened_path), "%s", path);
	opened = api;
	return api;
}

const struct gpu_api *cuda_plugin_open(struct err *err)
{
	const char *asked = getenv("TOKENMILL_CUDA");
	static const char *const places[] = {"", "/../lib"};
	char dir[PATH_MAX], path[PATH_MAX + 64];

	if (opened)
		return opened;
	if (asked && *asked)
		return open_at(asked, err);
	program_dir(dir, sizeof(dir));
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		snprintf(path, sizeof(path), "%s%s/" PLUGIN_NAME, dir, places[i]);
		if (access(path, F_OK) == 0)
			return open_at(path, err);
	}
	err_set(err, ERR_ENGINE,
	        "there is no CUDA plug-in: " PLUGIN_NAME
	        " is neither in %s nor in %s/../lib, and TOKENMILL_CUDA names no other place "
	        "(`make cuda` builds it)",
	        dir, dir);
	return NULL;
}

struct counted {
	int status, n;
	char why[256];
};

/* In a child of its own: a process that has asked CUDA anything must not fork and go on with CUDA in the child ("CUDA C++ Programming Guide",
 * initialization), and `run --restarts` forks after the choice of an engine. */
static int count_devices(const struct gpu_api *api, struct counted *c, struct err *err)
{
	int ends[2], status;
	ssize_t n;
	pid_t child;

	if (pipe(ends) < 0)
		return err_sys(err, ERR_ENGINE, "looking for GPUs: pipe");
	child = fork();
	if (child == 0) {
		memset(c, 0, sizeof(*c));
		c->status = api->count(&c->n, c->why, sizeof(c->why));
		_exit(write(ends[1], c, sizeof(*c)) == (ssize_t)sizeof(*c) ? 0 : 1);
	}
	close(ends[1]);
	if (child < 0) {
		close(ends[0]);
		return err_sys(err, ERR_ENGINE, "looking for GPUs: fork");
	}
	do /* one write of less than PIPE_BUF comes in one piece */
		n = read(ends[0], c, sizeof(*c));
	while (n < 0 && errno == EINTR);
	close(ends[0]);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return n == (ssize_t)sizeof(*c) ? 0 : err_set(err, ERR_ENGINE, "looking for GPUs: the NVIDIA driver crashed");
}

const struct gpu_api *cuda_plugin_open_device(int device, struct err *err)
{
	const struct gpu_api *api = cuda_plugin_open(err);
	struct counted c;

	if (!api || count_devices(api, &c, err) < 0)
		return NULL;
	if (c.status != GPU_OK) {
		err_set(err, ERR_ENGINE, "no GPU can be used: %s", c.why);
		return NULL;
	}
	if (device >= c.n) {
		err_set(err, ERR_ENGINE, "there is no GPU %d: this machine shows %d, counted from 0", device, c.n);
		return NULL;
	}
	return api;
}

void cuda_plugin_describe(struct buf *out)
{
	struct err err = {0};
	const struct gpu_api *api = cuda_plugin_open(&err);
	char why[256];
	int n;

	if (!api) {
		buf_addf(out, "cuda: %s\n", err.msg);
		return;
	}
	buf_addf(out, "cuda: plug-in %s\n", opened_path);
	if (api->count(&n, why, sizeof(why)) != GPU_OK) {
		buf_addf(out, "cuda: %s\n", why);
		return;
	}
	for (int i = 0; i < n; i++) {
		struct gpu_info info;

		if (api->describe(i, &info, why, sizeof(why)) != GPU_OK)
			buf_addf(out, "cuda:%d %s\n", i, why);
		else
			buf_addf(out, "cuda:%d %s, compute capability %d.%d, %d multiprocessors, %.1f GiB\n", i, info.name, info.major,
			         info.minor, info.n_processors, (double)info.total_bytes / (double)(1 << 30));
	}
}

int cuda_plugin_choose(const char *word, int *device, const struct gpu_api **api, struct err *err)
{
	struct err none = {0};
	char *end = NULL;
	long n;

	*device = -1;
	*api = NULL;
	if (!word || !*word || strcmp(word, "cpu") == 0)
		return 0;
	if (strcmp(word, "auto") == 0) {
		*api = cuda_plugin_open_device(0, &none);
		*device = *api ? 0 : -1;
		return 0;
	}
	if (strncmp(word, "cuda", 4) != 0 || (word[4] && word[4] != ':'))
		return err_set(err, ERR_USAGE, "device \"%.40s\": there are auto, cpu, cuda and cuda:N", word);
	n = word[4] ? strtol(word + 5, &end, 10) : 0;
	if (word[4] && (end == word + 5 || *end || n < 0 || n > 1023))
		return err_set(err, ERR_USAGE, "device \"%.40s\": behind cuda: stands the number of a GPU, counted from 0", word);
	*api = cuda_plugin_open_device((int)n, err);
	*device = (int)n;
	return *api ? 0 : -1;
}
