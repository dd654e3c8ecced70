/* input_path.h: which file names are taken for row files when nobody named them one by one (in a directory, in an archive). */
#ifndef TOKENMILL_RUNNER_INPUT_PATH_H
#define TOKENMILL_RUNNER_INPUT_PATH_H

/* *.jsonl, *.ndjson, *.json, each also with .gz, .zst, .bz2, .xz; not hidden ("x/.y", and "._y" that some tars carry). */
int input_path_is_rows(const char *path);
/* A tar archive by its name: *.tar, *.tgz, *.tar.gz, *.tar.zst, ... */
int input_path_is_tar(const char *path);

#endif
