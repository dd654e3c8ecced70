/* nfs_sim.c: mounts it and serves until it is unmounted or told to end (SIGTERM, SIGINT). See nfs_sim.h for what it does.
 *
 *     nfs_sim [--seed N] [--cache-seconds S] [--fault-rate P] [--read-fault-rate P] [--control DIR] [--log FILE] BACKING
 * MOUNTPOINT
 *
 * "ready" on standard output tells that it is mounted. */
#include "tests/rigs/nfs_sim.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct option options[] = {
    {"seed", required_argument, NULL, 's'},
    {"cache-seconds", required_argument, NULL, 'c'},
    {"fault-rate", required_argument, NULL, 'f'},
    {"read-fault-rate", required_argument, NULL, 'r'},
    {"control", required_argument, NULL, 'd'},
    {"log", required_argument, NULL, 'l'},
    {0},
};

static int usage(const char *what)
{
	fprintf(stderr,
	        "nfs_sim: %s\nusage: nfs_sim [--seed N] [--cache-seconds S] [--fault-rate P] [--read-fault-rate P] [--control DIR] "
	        "[--log FILE]"
	        " BACKING MOUNTPOINT\n",
	        what);
	return 1;
}

static int read_number(const char *text, double max, double *out)
{
	char *end;

	errno = 0;
	*out = strtod(text, &end);
	return errno || end == text || *end || !(*out >= 0 && *out <= max) ? -1 : 0;
}

/* 0, or an exit status. */
static int read_options(struct sim *s, int argc, char **argv, char **log)
{
	double number = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'd') {
			s->faults.control = optarg;
			continue;
		}
		if (c == 'l') {
			*log = optarg;
			continue;
		}
		if (c == '?' || read_number(optarg, c == 's' ? 0x1p53 : c == 'c' ? 3600 : 1, &number) < 0)
			return usage(c == '?' ? "an unknown option" : "an option's number is out of range");
		switch (c) {
		case 's':
			s->faults.random = (uint64_t)number;
			break;
		case 'c':
			s->cache_s = number;
			break;
		case 'f':
			s->faults.rate = number;
			break;
		default:
			s->faults.read_rate = number;
		}
	}
	return argc - optind == 2 ? 0 : usage("BACKING and MOUNTPOINT are expected");
}

/* The root's node. */
static int open_backing(struct sim *s, const char *path)
{
	struct stat st;

	s->root.fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s->root.fd < 0 || fstat(s->root.fd, &st) < 0)
		return -1;
	s->root.dev = st.st_dev;
	s->root.ino = st.st_ino;
	pthread_mutex_init(&s->root.lock, NULL);
	return 0;
}

static int serve(struct sim *s, const char *mountpoint)
{
	char *fuse_argv[] = {"nfs_sim", "-ofsname=nfs_sim", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(2, fuse_argv);
	struct fuse_loop_config config = {.max_idle_threads = 8};
	int rc = -1;

	s->session = fuse_session_new(&args, &nfs_sim_ops, sizeof(nfs_sim_ops), s);
	if (!s->session)
		return -1;
	if (fuse_set_signal_handlers(s->session) == 0 && fuse_session_mount(s->session, mountpoint) == 0) {
		puts("ready");
		fflush(stdout);
		rc = fuse_session_loop_mt(s->session, &config) < 0 ? -1 : 0;
		fuse_session_unmount(s->session);
	}
	fuse_remove_signal_handlers(s->session);
	fuse_session_destroy(s->session);
	fuse_opt_free_args(&args);
	return rc;
}

int main(int argc, char **argv)
{
	static struct sim s = {.cache_s = 3, .faults = {.rate = 0.01, .read_rate = 0.0005}};
	struct rlimit files = {0};
	char *log = NULL;
	int status = read_options(&s, argc, argv, &log);

	if (status)
		return status;
	umask(0); /* the kernel has applied the caller's */
	pthread_mutex_init(&s.lock, NULL);
	pthread_mutex_init(&s.faults.lock, NULL);
	/* One descriptor for each file that the kernel remembers. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (log && !(s.faults.log = fopen(log, "a"))) {
		fprintf(stderr, "nfs_sim: %s: %s\n", log, strerror(errno));
		return 1;
	}
	if (open_backing(&s, argv[optind]) < 0) {
		fprintf(stderr, "nfs_sim: %s: %s\n", argv[optind], strerror(errno));
		return 1;
	}
	if (serve(&s, argv[optind + 1]) < 0) {
		fprintf(stderr, "nfs_sim: %s: cannot be mounted or served\n", argv[optind + 1]);
		return 1;
	}
	if (s.faults.log)
		fclose(s.faults.log);
	return 0;
}
