#!/usr/bin/env python3
"""Models that are missing or damaged, disks that are full, command lines that are wrong: one line that names it, the right exit status."""
import glob
import json
import os
import random
import resource
import shutil
import signal
import subprocess

from e2e import PROGRAM, ROOT, ROUNDS, SEED, TINY, Skip, main, mixed_rows, read_bytes, run, run_args, same_outcome, test, tokenmill, write_rows


def rows(n=8):
    return write_rows("rows.jsonl", mixed_rows(n, 11))


@test
def wrong_model():
    path = rows()
    log = run("out", path, model="no/such/model.gguf", expect=66)
    assert "no/such/model.gguf" in log, log
    os.mkdir("nothing")
    run("out", path, model="nothing", expect=66)
    write_rows("text.gguf", ["this is no model"])
    log = run("out", path, model="text.gguf", expect=66)
    assert "text.gguf" in log, log
    open("empty.gguf", "wb").close()
    run("out", path, model="empty.gguf", expect=66)
    assert not os.path.exists("out/job.json")


@test
def damaged_gguf():
    """Cut anywhere, or with bytes changed in its header: an error or a model, never a crash."""
    files = sorted(glob.glob(f"{ROOT}/tests/engine/goldens/*.gguf"))
    if not files:
        raise Skip("no small GGUF file among the goldens")
    r = random.Random(SEED)
    for k in range(15 * ROUNDS):
        data = bytearray(read_bytes(r.choice(files)))
        if k % 3 == 0:
            data = data[: r.randrange(len(data))]
        else:
            for _ in range(r.randrange(1, 6)):
                data[r.randrange(min(len(data), 6000))] = r.choice([0, 1, 127, 128, 255, r.randrange(256)])
        with open("damaged.gguf", "wb") as f:
            f.write(data)
        log = tokenmill("model", "info", "damaged.gguf", expect=None, preexec_fn=limit_memory)
        assert k % 3 != 0 or "damaged.gguf" in log, log


def limit_memory():
    if "asan" not in os.environ.get("TOKENMILL", ""):  # its shadow memory is terabytes of address space
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))


@test
def damaged_directory():
    path = rows()
    for name in ("config.json", "tokenizer.json", "model.safetensors", "tokenizer_config.json"):
        for what in ("cut", "missing", "garbage"):
            shutil.rmtree("model", ignore_errors=True)
            shutil.copytree(TINY, "model")
            file = f"model/{name}"
            data = read_bytes(file)
            os.remove(file)
            if what != "missing":
                with open(file, "wb") as f:
                    f.write(data[: len(data) * 2 // 3] if what == "cut" else b"\x00{\xff" * 50)
            if name == "tokenizer_config.json" and what == "missing":
                continue  # a model without it may run; its rows cannot be told in advance
            log = run(f"out-{name}-{what}", path, model="model", expect=66)
            assert "model" in log, log


@test
def not_enough_memory():
    log = tokenmill("run", "--model", TINY, "-o", "out", "--memory", "100K", rows(), expect=None)
    assert not os.path.exists("out/results.jsonl") and "memory" in log, log


def full_disk(directory, prepare):
    """The job on a file system with little room fails with 74, and goes on once there is room."""
    run("plain", "rows.jsonl", options=["--publish-seconds", "0.02"])
    r = subprocess.run([os.environ.get("TOKENMILL", f"{ROOT}/build/release/tokenmill"), *map(str, run_args(f"{directory}/out", "rows.jsonl"))],
                       stdin=subprocess.DEVNULL, capture_output=True, preexec_fn=prepare, timeout=600)
    assert r.returncode == 74, f"exit status {r.returncode}, expected 74: {r.stderr.decode('utf-8', 'replace')[-2000:]}"
    assert not os.path.exists(f"{directory}/out/results.jsonl")


@test
def full_disk_by_file_size_limit():
    rows(300)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
    full_disk(".", limit)
    run("out", "rows.jsonl")
    same_outcome("plain", "out", "after the limit was lifted")


@test
def full_disk_by_file_size_limit_as_a_shell_sets_it():
    """The signal of the limit, not ignored beforehand, must not kill."""
    rows(300)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
    full_disk(".", limit)


@test
def without_standard_files():
    """Nothing that is meant for standard error may get into a file of the job."""
    path = rows(100)
    run("plain", path)
    process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", PROGRAM, *map(str, run_args("out", path))])
    assert process.wait(timeout=600) == 0
    tokenmill("verify", "out")
    same_outcome("plain", "out", "without standard files")


@test
def full_disk_tmpfs():
    rows(300)
    os.mkdir("disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", "disk"], capture_output=True).returncode != 0:
        raise Skip("mounting a tmpfs is not permitted here")
    try:
        full_disk("disk", None)
        subprocess.run(["mount", "-o", "remount,size=64m", "disk"], check=True)
        run("disk/out", "rows.jsonl")
        same_outcome("plain", "disk/out", "after there was room")
    finally:
        subprocess.run(["umount", "disk"])


@test
def unwritable_output():
    path = rows()
    write_rows("file", ["here"])
    run("file/out", path, expect=None)
    run("file", path, expect=None)
    assert read_bytes("file") == b'here\n'


@test
def command_lines():
    path = rows()
    tokenmill(expect=1)
    tokenmill("fly", expect=1)
    log = tokenmill("run", "--modle", TINY, "-o", "out", path, expect=1)
    assert "--modle" in log and "--model" in log, log
    tokenmill("run", "--model", TINY, path, expect=1)
    tokenmill("run", "-o", "out", path, expect=1)
    tokenmill("run", "--model", TINY, "-o", "out", expect=1)
    for option, value in (("--threads", "0"), ("--threads", "x"), ("--max-batch", "-1"), ("--memory", "4Q"), ("--math", "f8"), ("--kv-type", "q4"),
                          ("--seed", "1e3"), ("--max-bad-rows", "-3"), ("--chunk", ""), ("--memory", "0"), ("--date", "tomorrow"), ("--date", "2026-02-30"),
                          ("--date", "2026-01-31x")):
        log = run("out", path, options=[option, value], expect=1)
        assert option in log, log
    log = tokenmill("run", "--model", TINY, "-o", "", path, expect=1)
    assert "-o OUT" in log, log
    log = tokenmill("run", "--model", "", "-o", "out", path, expect=1)
    assert "--model" in log, log
    for command in ("verify", "merge"):
        log = tokenmill(command, "out", expect=1)
        assert "out is not a job" in log, log
    run("out", path, options=["--defaults", "missing.json"], expect=1)
    write_rows("defaults.json", ['{"tempreature": 1}'])
    log = run("out", path, options=["--defaults", "defaults.json"], expect=1)
    assert "tempreature" in log, log
    assert not os.path.exists("out/results.jsonl")
    tokenmill("--help")
    tokenmill("run", "--help")
    tokenmill("--version")


@test
def defaults_fill_what_a_row_leaves_open():
    write_rows("a.jsonl", [{"custom_id": "a", "prompt": "the river", "ignore_eos": True}, {"custom_id": "b", "prompt": "the river", "max_tokens": 2, "ignore_eos": True}])
    write_rows("b.jsonl", [{"custom_id": "a", "prompt": "the river", "ignore_eos": True, "max_tokens": 5, "temperature": 0},
                           {"custom_id": "b", "prompt": "the river", "ignore_eos": True, "max_tokens": 2, "temperature": 0}])
    write_rows("defaults.json", ['{"max_tokens": 5, "temperature": 0}'])
    run("a", "a.jsonl", options=["--defaults", "defaults.json"])
    run("b", "b.jsonl")
    choices = [[json.loads(line)["response"]["body"]["choices"] for line in read_bytes(f"{o}/results.jsonl").splitlines()] for o in "ab"]
    assert choices[0] == choices[1], choices


if __name__ == "__main__":
    main()
