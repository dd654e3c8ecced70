/* cuda_shim.cpp: the runtime of the GPU that is not there: devices, memory, one queue of work. See cuda_shim.h. */
#include "cuda_shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <deque>
#include <map>

#include "cuda_fibers.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum { ALIGNMENT = 256, MAX_GRID_Y = 65535, RUNTIME_VERSION = 13000 };

struct region { /* of device memory: [pages | data at their end] [guard page] */
	char *pages;
	size_t page_bytes, n_bytes;
};
struct shim_stream {
	int unused;
};
struct shim_event {
	uint64_t recorded; /* as many pieces of work had been enqueued */
};

static std::map<void *, region> regions; /* by address of the data */
static std::deque<std::function<void()>> work;
static uint64_t n_enqueued, n_run, n_launches;
static size_t used_bytes;
static cudaError_t sticky;
static cudaError_t last; /* of a call, until it is asked for */

static size_t number_of(const char *name, size_t otherwise)
{
	const char *s = getenv(name);

	return s && *s ? (size_t)strtoull(s, NULL, 10) : otherwise;
}

static struct cuda_shim_settings &settings()
{
	static struct cuda_shim_settings s = {(unsigned)number_of("CUDA_SHIM_SEED", 1), (int)number_of("CUDA_SHIM_DEVICES", 1),
	                                      (int)number_of("CUDA_SHIM_DRIVER", RUNTIME_VERSION),
	                                      number_of("CUDA_SHIM_MIB", 1024) << 20, number_of("CUDA_SHIM_FAIL_AT", 0)};
	return s;
}

void cuda_shim_set(const struct cuda_shim_settings *s)
{
	settings() = *s;
	sticky = last = cudaSuccess;
}

void cuda_shim_get(struct cuda_shim_settings *s)
{
	*s = settings();
}

uint64_t cuda_shim_n_launches(void)
{
	return n_launches;
}

size_t cuda_shim_used_bytes(void)
{
	return used_bytes;
}

static cudaError_t result(cudaError_t e)
{
	if (e != cudaSuccess)
		last = e;
	return e;
}

/* ---- devices ---- */

static cudaError_t driver_state(void)
{
	static pid_t begun_by;

	if (!begun_by)
		begun_by = getpid();
	if (begun_by != getpid())
		return cudaErrorInitializationError;
	if (settings().driver_version < RUNTIME_VERSION)
		return cudaErrorInsufficientDriver;
	return settings().n_devices ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaDriverGetVersion(int *version)
{
	*version = settings().driver_version;
	return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
	*version = RUNTIME_VERSION;
	return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n)
{
	*n = settings().n_devices;
	return result(driver_state());
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
	if (driver_state() != cudaSuccess)
		return result(driver_state());
	if (device < 0 || device >= settings().n_devices)
		return result(cudaErrorInvalidDevice);
	*p = cudaDeviceProp{};
	snprintf(p->name, sizeof(p->name), "host shim");
	p->totalGlobalMem = settings().total_bytes;
	p->major = 9;
	p->multiProcessorCount = 2;
	return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
	if (driver_state() != cudaSuccess)
		return result(driver_state());
	return result(device >= 0 && device < settings().n_devices ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetLastError(void)
{
	cudaError_t e = sticky != cudaSuccess ? sticky : last;

	last = cudaSuccess;
	return e;
}

const char *cudaGetErrorString(cudaError_t e)
{
	switch (e) {
	case cudaSuccess:
		return "no error";
	case cudaErrorInvalidValue:
		return "invalid argument";
	case cudaErrorMemoryAllocation:
		return "out of memory";
	case cudaErrorInitializationError:
		return "initialization error";
	case cudaErrorInsufficientDriver:
		return "CUDA driver version is insufficient for CUDA runtime version";
	case cudaErrorNoDevice:
		return "no CUDA-capable device is detected";
	case cudaErrorInvalidDevice:
		return "invalid device ordinal";
	case cudaErrorLaunchFailure:
		return "unspecified launch failure";
	}
	return "unknown error";
}

/* ---- memory ---- */

static void set_access(int protection)
{
	for (auto &r : regions)
		if (mprotect(r.second.pages, r.second.page_bytes, protection) < 0) {
			perror("cuda_shim: mprotect");
			abort();
		}
}

cudaError_t cudaMalloc(void **p, size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT,
	       page_bytes = (room + page - 1) / page * page;
	struct region r;
	char *data;

	if (sticky != cudaSuccess)
		return sticky;
	if (n > settings().total_bytes || used_bytes + room > settings().total_bytes)
		return result(cudaErrorMemoryAllocation);
	r.pages = (char *)mmap(NULL, page_bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r.pages == MAP_FAILED)
		return result(cudaErrorMemoryAllocation);
	r.page_bytes = page_bytes;
	r.n_bytes = n;
	data = r.pages + page_bytes - room;
	memset(data, 0xFF, n);
	mprotect(r.pages + page_bytes, page, PROT_NONE);
	ASAN_POISON_MEMORY_REGION(data + n, room - n);
	mprotect(r.pages, page_bytes, PROT_NONE);
	regions[data] = r;
	used_bytes += room;
	*p = data;
	return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
	auto r = regions.find(p);

	if (!p)
		return cudaSuccess;
	cudaStreamSynchronize(NULL);
	if (r == regions.end())
		return result(cudaErrorInvalidValue);
	size_t room = (r->second.n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;

	ASAN_UNPOISON_MEMORY_REGION((char *)p + r->second.n_bytes, room - r->second.n_bytes);
	munmap(r->second.pages, r->second.page_bytes + (size_t)sysconf(_SC_PAGESIZE));
	regions.erase(r);
	used_bytes -= room;
	return sticky;
}

cudaError_t cudaHostAlloc(void **p, size_t n, unsigned)
{
	if (sticky != cudaSuccess)
		return sticky;
	*p = malloc(n ? n : 1);
	if (!*p)
		return result(cudaErrorMemoryAllocation);
	memset(*p, 0xFF, n);
	return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
	cudaStreamSynchronize(NULL);
	free(p);
	return sticky;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
	*total_bytes = settings().total_bytes;
	*free_bytes = settings().total_bytes - used_bytes;
	return sticky;
}

/* ---- the queue ---- */

static void enqueue(std::function<void()> f)
{
	work.push_back(std::move(f));
	n_enqueued++;
}

static void run_until(uint64_t n)
{
	if (n_run >= n)
		return;
	set_access(PROT_READ | PROT_WRITE);
	while (n_run < n) {
		if (sticky == cudaSuccess)
			work.front()();
		work.pop_front();
		n_run++;
	}
	set_access(PROT_NONE);
}

static int is_device(const void *p, size_t n)
{
	auto r = regions.upper_bound((void *)p);

	if (r == regions.begin())
		return 0;
	--r;
	return (const char *)p + n <= (const char *)r->first + r->second.n_bytes;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind, cudaStream_t)
{
	if (sticky != cudaSuccess)
		return sticky;
	if (!is_device(kind == cudaMemcpyHostToDevice ? to : from, n) || is_device(kind == cudaMemcpyHostToDevice ? from : to, n))
		return result(cudaErrorInvalidValue);
	enqueue([=] { memcpy(to, from, n); });
	return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
	*s = new shim_stream{0};
	return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
	run_until(n_enqueued);
	return sticky;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
	cudaStreamSynchronize(s);
	delete s;
	return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
	*e = new shim_event{0};
	return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t)
{
	e->recorded = n_enqueued;
	return sticky;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
	run_until(e->recorded);
	return sticky;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
	delete e;
	return cudaSuccess;
}

void shim_enqueue(const char *what, dim3 grid, unsigned threads, size_t shared, std::function<void()> body)
{
	uint64_t number = ++n_launches;

	if (threads == 0 || threads > 1024 || shared > 48 * 1024 || !grid.x || !grid.y || !grid.z || grid.y > MAX_GRID_Y ||
	    grid.z > MAX_GRID_Y) {
		fprintf(stderr, "cuda_shim: kernel %s: grid %u %u %u of %u threads, %zu bytes shared\n", what, grid.x, grid.y, grid.z,
		        threads, shared);
		result(cudaErrorInvalidValue);
		return;
	}
	if (settings().fail_at_launch && --settings().fail_at_launch == 0) {
		enqueue([] { sticky = cudaErrorLaunchFailure; });
		return;
	}
	enqueue([=] { fibers_run(what, grid, threads, shared, settings().seed ? settings().seed + (unsigned)number : 0, body); });
}
