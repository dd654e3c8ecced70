#!/usr/bin/env python3
"""Killed at any moment and started again with the same command, a job ends with the bytes of an undisturbed run."""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time

from e2e import (PROGRAM, ROUNDS, SEED, TINY, main, mixed_rows, models, read_records, run, run_args, same_outcome, test, tokenmill, write_rows)


def start(args):
    return subprocess.Popen([PROGRAM, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open("log", "ab"))


def job(name, n_tiny=400, n_smollm2=16):
    rows = mixed_rows(n_tiny if name == "tiny" else n_smollm2, SEED + 7, max_tokens=64 if name == "tiny" else 24)
    rows[3] = {"custom_id": "bad", "prompt": "x", "max_tokens": "many"}  # an error record must survive as well
    return write_rows(f"{name}.jsonl", rows)


def kill_until_done(args, r, wall_s, n_kills=12):
    """Returns how many attempts were killed."""
    killed = 0
    while True:
        process = start(args)
        if killed < n_kills:
            try:
                process.wait(timeout=r.random() ** 2 * wall_s * 1.3)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        status = process.wait(timeout=900)
        if status == 0:
            return killed
        assert status == -signal.SIGKILL, f"exit status {status}: " + open("log", encoding="utf-8", errors="replace").read()[-2000:]
        killed += 1


@test
def kill_9_at_random_times():
    for name, model in models():
        path = job(name)
        options = ["--publish-seconds", "0.05"]
        began = time.monotonic()
        run(f"{name}-plain", path, model=model, options=options)
        wall_s = time.monotonic() - began
        n_killed = 0
        for k in range(ROUNDS if name == "tiny" else max(1, ROUNDS // 5)):
            out = f"{name}-{k}"
            n_killed += kill_until_done(run_args(out, path, model=model, options=options), random.Random(SEED * 100 + k), wall_s)
            same_outcome(f"{name}-plain", out, f"{name}, round {k}")
            for what in ("rows", "tokens"):
                x, y = ({k: v for k, v in json.load(open(f"{d}/usage.json", encoding="utf-8"))[what].items() if k not in ("cached", "recomputed")}
                        for d in (f"{name}-plain", out))
                assert x == y, f"usage.json: {x} {y}"  # a kill does not change what was asked for and delivered
        assert n_killed > 0, "no attempt was killed: the job is too short for this test"


@test
def finished_rows_are_not_run_again():
    path = job("tiny", n_tiny=1600)
    options = ["--publish-seconds", "0.02", "--threads", 1]
    run("plain", path, options=options)
    process = start(run_args("out", path, options=options))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and not any("seg-" in f for _, _, files in os.walk("out/shards") for f in files):
        time.sleep(0.002)
    time.sleep(0.05)
    assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    process.wait()
    log = run("out", path, options=options)
    match = re.search(r"(\d+) of (\d+) rows are done", log)
    assert match and 0 < int(match[1]) < int(match[2]) == 1600, log
    again = re.search(r"(\d+) rows ok", log)
    assert again and int(again[1]) + int(match[1]) <= 1600, log
    same_outcome("plain", "out", "after a kill with published rows")


@test
def other_limits_may_finish_a_job():
    """Threads, batch and chunk do not change bytes, so a resume may change them."""
    path = job("tiny")
    run("plain", path)
    process = start(run_args("out", path, options=["--publish-seconds", "0.02", "--threads", 1]))
    time.sleep(0.3)
    process.kill()
    process.wait()
    run("out", path, options=["--max-batch", 5, "--chunk", 64, "--no-prefix-cache"])
    same_outcome("plain", "out", "finished with other limits")


@test
def drain_on_sigterm_and_ctrl_c():
    path = job("tiny", n_tiny=1600)
    run("plain", path)
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        out = f"out-{status}"
        process = start(run_args(out, path, options=["--threads", 1, "--publish-seconds", "30"]))
        deadline = time.monotonic() + 60
        while not os.path.exists(f"{out}/job.json") and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.2)
        assert process.poll() is None, "the run ended before it could be stopped"
        began = time.monotonic()
        process.send_signal(number)
        got = process.wait(timeout=60)
        assert got == status, f"{number}: exit status {got}, expected {status}"
        assert time.monotonic() - began < 10, "the drain took too long"
        assert not os.path.exists(f"{out}/results.jsonl")
        log = run(out, path)
        match = re.search(r"(\d+) of (\d+) rows are done", log)
        assert match and int(match[1]) > 0, f"the drain published nothing: {log}"
        same_outcome("plain", out, f"after signal {number}")


@test
def a_signal_while_standard_input_is_silent():
    """A pipe whose other end neither writes nor closes: one signal is enough."""
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        read_end, write_end = os.pipe()
        process = subprocess.Popen([PROGRAM, *map(str, run_args(f"out-{status}", "-"))], stdin=read_end, stderr=open("log", "ab"))
        deadline = time.monotonic() + 60
        while not os.path.exists(f"out-{status}/planning-0001") and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(number)
        got = process.wait(timeout=30)
        os.close(read_end)
        os.close(write_end)
        assert got == status, f"{number}: exit status {got}, expected {status}"


@test
def the_job_alone_is_enough():
    """OUT knows its model, also from another directory; where the model has moved, the error says what to do."""
    path = job("tiny", n_tiny=20)
    shutil.copytree(TINY, "model")
    run("plain", path, model="model")
    run("out", path, model="model")
    os.remove("out/results.jsonl")
    out = os.path.abspath("out")
    os.mkdir("elsewhere")
    tokenmill("run", "-o", out, cwd="elsewhere")
    same_outcome("plain", "out", "after the link was made again")
    os.rename("model", "moved")
    os.remove("out/results.jsonl")
    log = tokenmill("run", "-o", out, expect=66)
    assert "--model" in log, log
    tokenmill("run", "--model", "moved", "-o", out)
    same_outcome("plain", "out", "with a model that has moved")


@test
def a_finished_job_is_left_alone():
    path = job("tiny", n_tiny=20)
    run("out", path)
    before = {f: os.stat(f"out/{f}").st_mtime_ns for f in ("results.jsonl", "errors.jsonl", "usage.json")}
    log = run("out", path)
    assert "finished already" in log, log
    assert before == {f: os.stat(f"out/{f}").st_mtime_ns for f in before}


@test
def other_requests_are_refused():
    """What changes bytes must be as it was: exit status 65, the difference named, the job unharmed."""
    path = job("tiny", n_tiny=20)
    run("out", path)
    run("plain", path)
    defaults = "defaults.json"
    with open(defaults, "w", encoding="utf-8") as f:
        f.write('{"temperature": 0.5}')
    rows = read_records(path)
    rows[5]["max_tokens"] = 3
    other = write_rows("other.jsonl", rows)
    for args, word in ((["--seed", 9], "seed"), (["--math", "f32"], "math"), (["--kv-type", "bf16"], "kv-type"), (["--defaults", defaults], "defaults")):
        log = run("out", path, options=args, expect=65)
        assert word in log, f"{args} must be named: {log}"
    log = run("out", other, expect=65)
    assert '"r5"' in log and "--replan" in log, log
    for name, model in models():
        if model != TINY:
            log = run("out", path, model=model, expect=65)
            assert "model" in log, log
    same_outcome("plain", "out", "after refusals")
    os.mkdir("taken")
    write_rows("taken/letter.txt", ["mine"])
    tokenmill(*run_args("taken", path), expect=64)
    assert os.listdir("taken") == ["letter.txt"]


if __name__ == "__main__":
    main()
