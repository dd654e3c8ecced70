/* sorter.c: runs in one spill file, merged through a binary heap.
 *
 * A record in a block and in the file: u32 n_key, u64 n_data, u32 check (native order: the file is private to the process), key, data. Nothing is
 * synced, so a network file system whose disk is full may drop bytes that it took and say so to nobody: the check finds the hole. */
#include "queue/sorter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/mem.h"

#define HEAD_BYTES 16

struct entry {
	uint64_t start; /* first eight bytes of the key, big-endian: decides most comparisons without a cache miss */
	size_t at;      /* of the record in the block */
};

struct run {
	off_t begin;
	off_t next, end; /* part of the file that is not yet in buf */
	unsigned char *buf;
	size_t cap, len, pos; /* record at pos is the run's smallest */
	uint64_t start;
};

struct sorter {
	char *path;
	int fd; /* -1: nothing was spilled */
	off_t n_spilled;
	size_t memory_bytes;
	unsigned char *block;
	size_t block_cap, block_len;
	struct entry *entries;
	size_t n_entries, entries_cap, next_entry;
	struct run *runs;
	size_t n_runs, runs_cap;
	size_t *heap; /* run numbers */
	size_t n_heap;
	int taken; /* the heap's first run still stands at the record that was handed out */
};

struct sorter *sorter_new(const char *spill_path, size_t memory_bytes)
{
	struct sorter *s = xcalloc(1, sizeof(*s));

	s->path = xstrdup(spill_path);
	s->fd = -1;
	s->memory_bytes = memory_bytes;
	return s;
}

void sorter_free(struct sorter *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n_runs; i++)
		free(s->runs[i].buf);
	if (s->fd >= 0) {
		close(s->fd);
		unlink(s->path);
	}
	free(s->runs);
	free(s->heap);
	free(s->block);
	free(s->entries);
	free(s->path);
	free(s);
}

static void read_head(const unsigned char *p, uint32_t *n_key, uint64_t *n_data)
{
	memcpy(n_key, p, 4);
	memcpy(n_data, p + 4, 8);
}

static size_t record_bytes(const unsigned char *p)
{
	uint32_t n_key;
	uint64_t n_data;

	read_head(p, &n_key, &n_data);
	return HEAD_BYTES + n_key + (size_t)n_data;
}

static uint32_t record_check(const unsigned char *p)
{
	return (uint32_t)XXH3_64bits_withSeed(p + HEAD_BYTES, record_bytes(p) - HEAD_BYTES, 1);
}

static uint64_t key_start(const unsigned char *key, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < 8; i++)
		v = v << 8 | (i < n ? key[i] : 0);
	return v;
}

static int compare_keys(const unsigned char *a, const unsigned char *b)
{
	uint32_t na, nb;
	uint64_t unused;
	int c;

	read_head(a, &na, &unused);
	read_head(b, &nb, &unused);
	c = memcmp(a + HEAD_BYTES, b + HEAD_BYTES, na < nb ? na : nb);
	return c ? c : (na > nb) - (na < nb);
}

static int compare_entries(const void *pa, const void *pb, void *block)
{
	const struct entry *a = pa, *b = pb;
	int c;

	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	c = compare_keys((unsigned char *)block + a->at, (unsigned char *)block + b->at);
	return c ? c : (a->at > b->at) - (a->at < b->at);
}

static int write_spill(struct sorter *s, const unsigned char *p, size_t n, struct err *err)
{
	while (n > 0) {
		ssize_t k = pwrite(s->fd, p, n, s->n_spilled);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return err_sys(err, ERR_STORAGE, "%s", s->path);
		p += k;
		n -= (size_t)k;
		s->n_spilled += k;
	}
	return 0;
}

static int spill(struct sorter *s, struct err *err)
{
	enum { OUT_BYTES = 1 << 18 };
	struct run run = {.begin = s->n_spilled, .next = s->n_spilled};
	unsigned char *out;
	size_t n_out = 0;
	int rc = 0;

	if (s->fd < 0) {
		s->fd = open(s->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (s->fd < 0)
			return err_sys(err, ERR_STORAGE, "%s", s->path);
	}
	qsort_r(s->entries, s->n_entries, sizeof(*s->entries), compare_entries, s->block);
	out = xmalloc(OUT_BYTES);
	for (size_t i = 0; i < s->n_entries && rc == 0; i++) {
		unsigned char *p = s->block + s->entries[i].at;
		size_t n = record_bytes(p);
		uint32_t check = record_check(p);

		memcpy(p + 12, &check, 4);
		if (n_out + n > OUT_BYTES) {
			rc = write_spill(s, out, n_out, err);
			n_out = 0;
		}
		if (rc == 0 && n > OUT_BYTES) {
			rc = write_spill(s, p, n, err);
		} else if (rc == 0) {
			memcpy(out + n_out, p, n);
			n_out += n;
		}
	}
	if (rc == 0)
		rc = write_spill(s, out, n_out, err);
	free(out);
	run.end = s->n_spilled;
	MEM_GROW(s->runs, s->runs_cap, s->n_runs + 1);
	s->runs[s->n_runs++] = run;
	s->n_entries = s->block_len = 0;
	return rc;
}

int sorter_add(struct sorter *s, const void *key, size_t n_key, const struct sorter_part *parts, int n_parts, struct err *err)
{
	uint32_t head_key = (uint32_t)n_key;
	uint64_t n_data = 0;
	size_t n, used;
	unsigned char *p;

	for (int i = 0; i < n_parts; i++)
		n_data += parts[i].n;
	n = HEAD_BYTES + n_key + (size_t)n_data;
	used = s->block_len + s->n_entries * sizeof(struct entry);
	if (s->n_entries > 0 && used + n + sizeof(struct entry) > s->memory_bytes && spill(s, err) < 0)
		return -1;
	MEM_GROW(s->block, s->block_cap, s->block_len + n);
	MEM_GROW(s->entries, s->entries_cap, s->n_entries + 1);
	s->entries[s->n_entries++] = (struct entry){key_start(key, n_key), s->block_len};
	p = s->block + s->block_len;
	memcpy(p, &head_key, 4);
	memcpy(p + 4, &n_data, 8);
	p += HEAD_BYTES;
	if (n_key)
		memcpy(p, key, n_key);
	p += n_key;
	for (int i = 0; i < n_parts; i++) {
		if (parts[i].n)
			memcpy(p, parts[i].data, parts[i].n);
		p += parts[i].n;
	}
	s->block_len += n;
	return 0;
}

/* Have at least n bytes from pos in the buffer. The run must still hold them. */
static int run_fill(struct sorter *s, struct run *r, size_t n, struct err *err)
{
	if (r->len - r->pos >= n)
		return 0;
	memmove(r->buf, r->buf + r->pos, r->len - r->pos);
	r->len -= r->pos;
	r->pos = 0;
	if (n > r->cap) {
		r->cap = n;
		r->buf = xrealloc(r->buf, r->cap);
	}
	while (r->len < n) {
		size_t want = r->cap - r->len;
		ssize_t k;

		if ((off_t)want > r->end - r->next)
			want = (size_t)(r->end - r->next);
		k = pread(s->fd, r->buf + r->len, want, r->next);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return err_sys(err, ERR_STORAGE, "%s", s->path);
		if (k == 0)
			return err_set(err, ERR_STORAGE, "%s: shorter than what was written to it", s->path);
		r->len += (size_t)k;
		r->next += k;
	}
	return 0;
}

static int refuse_hole(const struct sorter *s, struct err *err)
{
	return err_set(err, ERR_STORAGE, "%s: does not hold what was written to it", s->path);
}

/* Bring the record at pos into the buffer. 1; 0 when the run is used up; -1. */
static int run_load(struct sorter *s, struct run *r, struct err *err)
{
	uint32_t n_key, check;
	uint64_t n_data, left;

	if (r->pos == r->len && r->next == r->end)
		return 0;
	if (run_fill(s, r, HEAD_BYTES, err) < 0)
		return -1;
	read_head(r->buf + r->pos, &n_key, &n_data);
	left = (uint64_t)(r->len - r->pos - HEAD_BYTES) + (uint64_t)(r->end - r->next);
	if (n_data > left || n_key > left - n_data)
		return refuse_hole(s, err);
	if (run_fill(s, r, record_bytes(r->buf + r->pos), err) < 0)
		return -1;
	memcpy(&check, r->buf + r->pos + 12, 4);
	if (check != record_check(r->buf + r->pos))
		return refuse_hole(s, err);
	read_head(r->buf + r->pos, &n_key, &n_data);
	r->start = key_start(r->buf + r->pos + HEAD_BYTES, n_key);
	return 1;
}

static int run_before(const struct sorter *s, size_t a, size_t b)
{
	const struct run *x = &s->runs[a], *y = &s->runs[b];
	int c;

	if (x->start != y->start)
		return x->start < y->start;
	c = compare_keys(x->buf + x->pos, y->buf + y->pos);
	return c ? c < 0 : a < b;
}

static void heap_down(struct sorter *s, size_t i)
{
	for (;;) {
		size_t least = i, t;

		for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < s->n_heap; child++)
			if (run_before(s, s->heap[child], s->heap[least]))
				least = child;
		if (least == i)
			return;
		t = s->heap[i];
		s->heap[i] = s->heap[least];
		s->heap[least] = t;
		i = least;
	}
}

/* All runs at their beginning, in a heap. */
static int start_merge(struct sorter *s, struct err *err)
{
	s->n_heap = 0;
	s->taken = 0;
	for (size_t i = 0; i < s->n_runs; i++) {
		struct run *r = &s->runs[i];

		r->next = r->begin;
		r->len = r->pos = 0;
		if (run_load(s, r, err) < 0)
			return -1;
		s->heap[s->n_heap++] = i;
	}
	for (size_t i = s->n_heap; i-- > 0;)
		heap_down(s, i);
	return 0;
}

int sorter_finish(struct sorter *s, struct err *err)
{
	size_t buf_bytes;

	if (s->n_runs == 0) {
		if (s->n_entries > 1)
			qsort_r(s->entries, s->n_entries, sizeof(*s->entries), compare_entries, s->block);
		return 0;
	}
	if (s->n_entries > 0 && spill(s, err) < 0)
		return -1;
	free(s->block);
	free(s->entries);
	s->block = NULL;
	s->entries = NULL;
	s->block_cap = s->entries_cap = 0;
	buf_bytes = s->memory_bytes / s->n_runs;
	buf_bytes = buf_bytes < 1 << 14 ? 1 << 14 : buf_bytes > 1 << 20 ? 1 << 20 : buf_bytes;
	s->heap = xcalloc(s->n_runs, sizeof(*s->heap));
	for (size_t i = 0; i < s->n_runs; i++) {
		s->runs[i].cap = buf_bytes;
		s->runs[i].buf = xmalloc(buf_bytes);
	}
	return start_merge(s, err);
}

int sorter_rewind(struct sorter *s, struct err *err)
{
	s->next_entry = 0;
	return s->n_runs ? start_merge(s, err) : 0;
}

static void give(const unsigned char *p, struct sorter_part *key, struct sorter_part *record)
{
	uint32_t n_key;
	uint64_t n_data;

	read_head(p, &n_key, &n_data);
	if (key)
		*key = (struct sorter_part){p + HEAD_BYTES, n_key};
	*record = (struct sorter_part){p + HEAD_BYTES + n_key, (size_t)n_data};
}

int sorter_next(struct sorter *s, struct sorter_part *key, struct sorter_part *record, struct err *err)
{
	struct run *r;

	if (s->n_runs == 0) {
		if (s->next_entry == s->n_entries)
			return 0;
		give(s->block + s->entries[s->next_entry++].at, key, record);
		return 1;
	}
	if (s->taken) {
		int rc;

		r = &s->runs[s->heap[0]];
		r->pos += record_bytes(r->buf + r->pos);
		rc = run_load(s, r, err);
		if (rc < 0)
			return -1;
		if (rc == 0)
			s->heap[0] = s->heap[--s->n_heap];
		heap_down(s, 0);
	}
	s->taken = s->n_heap > 0;
	if (!s->taken)
		return 0;
	r = &s->runs[s->heap[0]];
	give(r->buf + r->pos, key, record);
	return 1;
}
