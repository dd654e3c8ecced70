#!/usr/bin/env python3
"""The program with its CUDA plug-in, which here is the host shim: the answers of the CPU, and plain words where something is missing."""
import os
import subprocess

from e2e import PROGRAM, TINY, Skip, main, read_records, run, test, tokenmill, write_rows

SHIM = os.path.join(os.path.dirname(os.path.abspath(PROGRAM)), "tests/tokenmill-cuda-shim.so")


def shim(**settings):
    if not os.path.exists(SHIM):
        raise Skip("the shim's plug-in is not built (make tests)")
    return {**os.environ, "TOKENMILL_CUDA": SHIM, **{f"CUDA_SHIM_{k.upper()}": str(v) for k, v in settings.items()}}


def rows():
    return write_rows("in.jsonl", [{"custom_id": f"r{i}", "messages": [{"role": "user", "content": f"tell me of {i * 37}"}], "max_tokens": 10,
                                    "temperature": 0.9 * (i % 2), "seed": i} for i in range(8)])


OPTIONS = ["--math", "f32", "--kv-type", "f32", "--max-batch", "4", "--memory", "200M"]


def choices(out):
    return [r["response"]["body"]["choices"] for r in read_records(f"{out}/results.jsonl")]


@test
def same_answers_as_the_cpu():
    file = rows()
    run("cpu", file, options=OPTIONS)
    run("cuda", file, options=["--engine", "cuda", *OPTIONS], env=shim(seed=5))
    assert len(choices("cpu")) == 8 and choices("cpu") == choices("cuda")
    # Another batch, no cache, another order of threads: the same bytes.
    run("again", file, options=["--engine", "auto", "--no-prefix-cache", *OPTIONS, "--max-batch", "1"], env=shim(seed=9))
    assert choices("again") == choices("cuda")


@test
def the_supervisor_forks_before_cuda_begins():
    file = rows()
    run("out", file, options=["--engine", "auto", "--restarts", "1", *OPTIONS], env=shim())
    assert len(choices("out")) == 8


@test
def a_job_belongs_to_one_kind_of_engine():
    file = rows()
    run("out", file, options=["--engine", "cuda", *OPTIONS], env=shim())
    log = run("out", file, options=OPTIONS, env=shim(), expect=None)
    assert "belongs to" in log or "differs" in log, log
    with open("out/job.json", encoding="utf-8") as f:
        assert '"cuda:' in f.read()


@test
def what_is_missing_is_said():
    file = rows()
    cases = [
        (shim(driver=0), 70, "no NVIDIA driver is installed here"),
        (shim(driver=12040), 70, "the NVIDIA driver knows CUDA 12.4, this needs 13.0 or newer"),
        (shim(devices=0), 70, "sees no GPU"),
        ({**os.environ, "TOKENMILL_CUDA": "/nowhere/plug-in.so"}, 70, "/nowhere/plug-in.so"),
        ({**os.environ, "TOKENMILL_CUDA": TINY + "/config.json"}, 70, "cannot be opened"),
    ]
    for i, (env, status, words) in enumerate(cases):
        log = run(f"out{i}", file, options=["--engine", "cuda", *OPTIONS], env=env, expect=status)
        assert words in log, log
        # auto goes on without
        told = subprocess.run([PROGRAM, "bench", "--devices"], env=env, capture_output=True, text=True, check=True).stdout
        assert told.startswith("cpu: ") and words in told, told
    run("auto", file, options=["--engine", "auto", *OPTIONS], env=shim(devices=0))
    log = run("no7", file, options=["--engine", "cuda:7", *OPTIONS], env=shim(), expect=70)
    assert "there is no GPU 7: this machine shows 1" in log, log
    tokenmill("bench", "--model", TINY, "--device", "cuda:x", env=shim(), expect=1)


@test
def want_of_memory_and_faults():
    file = rows()
    log = run("small", file, options=["--engine", "cuda", *OPTIONS], env=shim(mib=5), expect=70)
    assert "the GPU has no room for" in log or "is too little" in log, log
    log = run("fault", file, options=["--engine", "cuda", *OPTIONS], env=shim(fail_at=60), expect=70)
    assert "unspecified launch failure (CUDA error 719)" in log, log
    run("fault", file, options=["--engine", "cuda", *OPTIONS], env=shim())  # and goes on
    assert len(choices("fault")) == 8


if __name__ == "__main__":
    main()
