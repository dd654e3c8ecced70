/* cuda_fibers.cpp: CUDA threads as fibers. A thread runs until it ends or waits; whoever is not waiting is run in turn, in an
 * order that is shuffled anew in every round. All threads waiting, but not in one place, is a deadlock, and told. */
#include "cuda_fibers.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <vector>

enum { MAX_THREADS = 1024, STACK_BYTES = 256 << 10, WARP = 32 };
enum state { READY, AT_BLOCK, AT_WARP, DONE };

struct fiber {
	enum state state;
	char *stack;
	unsigned n_exchanges; /* their parity says which half of the exchange is in use */
#if defined(__x86_64__)
	void *sp;
#else
	ucontext_t context;
#endif
};

dim3 shim_thread, shim_block, shim_block_dim, shim_grid_dim;
char *shim_shared;

static struct fiber fibers[MAX_THREADS];
static unsigned current, n_threads, n_done, n_at_block, n_at_warp[MAX_THREADS / WARP];
static uint64_t exchange[2][MAX_THREADS];
static const std::function<void()> *body_now;

#if defined(__x86_64__)
/* void fiber_switch(void **from, void *to): saves what the System V ABI has a callee save, on the stack. */
extern "C" void fiber_switch(void **from, void *to);
asm(".text\n.globl fiber_switch\n.type fiber_switch,@function\nfiber_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
static void *scheduler_sp;
static void to_fiber(struct fiber *f)
{
	fiber_switch(&scheduler_sp, f->sp);
}
static void to_scheduler(struct fiber *f)
{
	fiber_switch(&f->sp, scheduler_sp);
}
#else
static ucontext_t scheduler_context;
static void to_fiber(struct fiber *f)
{
	swapcontext(&scheduler_context, &f->context);
}
static void to_scheduler(struct fiber *f)
{
	swapcontext(&f->context, &scheduler_context);
}
#endif

static void entry()
{
	(*body_now)();
	fibers[current].state = DONE;
	n_done++;
	to_scheduler(&fibers[current]);
	abort();
}

static void start(struct fiber *f)
{
	if (!f->stack) {
		f->stack = (char *)mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (f->stack == MAP_FAILED) {
			perror("cuda_shim: stack");
			abort();
		}
	}
	f->state = READY;
	f->n_exchanges = 0;
#if defined(__x86_64__)
	void **top = (void **)(f->stack + STACK_BYTES);

	*--top = NULL; /* where entry would return to; keeps its stack aligned as after a call */
	*--top = (void *)entry;
	for (int i = 0; i < 6; i++)
		*--top = NULL;
	f->sp = top;
#else
	getcontext(&f->context);
	f->context.uc_stack.ss_sp = f->stack;
	f->context.uc_stack.ss_size = STACK_BYTES;
	f->context.uc_link = NULL;
	makecontext(&f->context, entry, 0);
#endif
}

static unsigned warp_size(unsigned warp)
{
	return n_threads - warp * WARP < WARP ? n_threads - warp * WARP : (unsigned)WARP;
}

void shim_block_barrier()
{
	fibers[current].state = AT_BLOCK;
	if (++n_at_block == n_threads) {
		n_at_block = 0;
		for (unsigned i = 0; i < n_threads; i++)
			fibers[i].state = READY;
	}
	to_scheduler(&fibers[current]);
}

void shim_warp_barrier()
{
	unsigned warp = current / WARP;

	fibers[current].state = AT_WARP;
	if (++n_at_warp[warp] == warp_size(warp)) {
		n_at_warp[warp] = 0;
		for (unsigned i = 0; i < warp_size(warp); i++)
			fibers[warp * WARP + i].state = READY;
	}
	to_scheduler(&fibers[current]);
}

unsigned shim_lane()
{
	return current % WARP;
}

/* One barrier does: before anyone writes this half again, all have met for the other half, and so have read this one. */
uint64_t shim_exchange(uint64_t v, unsigned from)
{
	unsigned half = fibers[current].n_exchanges++ & 1, warp = current / WARP;

	exchange[half][current] = v;
	shim_warp_barrier();
	return exchange[half][from < warp_size(warp) ? warp * WARP + from : current];
}

static uint64_t random_state;
static unsigned random_below(unsigned n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)((random_state >> 33) % n);
}
static void shuffle(std::vector<unsigned> &order)
{
	for (size_t i = order.size(); i > 1; i--)
		std::swap(order[i - 1], order[random_below((unsigned)i)]);
}

static void deadlock(const char *what)
{
	fprintf(stderr,
	        "cuda_shim: kernel %s, block (%u %u %u): of %u threads %u have ended, %u wait at a barrier of the block, others in "
	        "their warp\n",
	        what, shim_block.x, shim_block.y, shim_block.z, n_threads, n_done, n_at_block);
	abort();
}

static void run_block(const char *what, std::vector<unsigned> &order, unsigned seed)
{
	n_done = n_at_block = 0;
	memset(n_at_warp, 0, sizeof(n_at_warp));
	for (unsigned t = 0; t < n_threads; t++)
		start(&fibers[t]);
	while (n_done < n_threads) {
		int any = 0;

		if (seed)
			shuffle(order);
		for (unsigned t : order) {
			if (fibers[t].state != READY)
				continue;
			any = 1;
			current = t;
			shim_thread = dim3(t, 0, 0);
			to_fiber(&fibers[t]);
		}
		if (!any)
			deadlock(what);
	}
}

void fibers_run(const char *what, dim3 grid, unsigned threads, size_t shared, unsigned seed, const std::function<void()> &body)
{
	size_t n_blocks = (size_t)grid.x * grid.y * grid.z;
	std::vector<unsigned> order(threads), blocks(n_blocks);

	body_now = &body;
	n_threads = threads;
	random_state = seed;
	shim_block_dim = dim3(threads);
	shim_grid_dim = grid;
	for (unsigned i = 0; i < threads; i++)
		order[i] = i;
	for (unsigned i = 0; i < n_blocks; i++)
		blocks[i] = i;
	if (seed)
		shuffle(blocks);
	for (unsigned b : blocks) {
		shim_block = dim3(b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y);
		shim_shared = (char *)malloc(shared ? shared : 1);
		memset(shim_shared, 0xFF, shared ? shared : 1);
		run_block(what, order, seed);
		free(shim_shared);
	}
}
