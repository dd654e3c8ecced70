#!/usr/bin/env python3
"""Whole jobs on the fake engine: many rows, kills, ordered faults, and that a job stays with the engine that began it."""
import json
import os
import random
import signal
import subprocess
import sys
import time

from e2e import (PROGRAM, ROOT, ROUNDS, SEED, SMOLLM2, TINY, Skip, lines_by_id, main, mixed_rows, outcome, read_records, run, same_outcome, test,
                 tokenmill, write_rows)

FAKE = "fake:tokens=5-60,fail=0.01"


def fake_args(out, *inputs, engine=FAKE, options=()):
    return ["run", "--engine", engine, "-o", out, *options, *inputs]


def dataset(n, path="rows.jsonl"):
    with open(path, "wb") as f:
        subprocess.run([sys.executable, os.path.join(ROOT, "scripts/make-rows.py"), str(n), "--bytes", "400", "--seed", str(SEED)], stdout=f, check=True)
    return path


@test
def twenty_thousand_rows_killed_and_resumed():
    path = dataset(20000)
    tokenmill(*fake_args("plain", path))
    records = read_records("plain/results.jsonl")
    errors = read_records("plain/errors.jsonl")
    assert len(records) + len(errors) == 20000 and 100 < len(errors) < 320, len(errors)
    assert errors[0]["response"]["body"]["error"]["code"] == "engine_error", errors[0]
    r = random.Random(SEED)
    for k in range(ROUNDS):
        out, killed = f"out-{k}", 0
        while True:
            # Another speed and batch for each attempt; partial tokens are checked by the engine itself.
            engine = f"{FAKE},batch={r.choice([1, 50, 400])},slow=0.1:{r.randrange(1, 40)},rate={r.randrange(500000, 1500000)}"
            process = subprocess.Popen([PROGRAM, *fake_args(out, path, engine=engine, options=["--publish-seconds", "0.05"])],
                                       stdin=subprocess.DEVNULL, stderr=open("log", "ab"))
            if killed < 12:
                try:
                    process.wait(timeout=0.05 + r.random() * 0.4)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
            status = process.wait(timeout=600)
            if status == 0:
                break
            assert status == -signal.SIGKILL, open("log", encoding="utf-8", errors="replace").read()[-2000:]
            killed += 1
        assert killed > 2, "the job is too short for this test"
        same_outcome("plain", out, f"after {killed} kills")


@test
def drained_with_partial_tokens():
    """Stopped in the middle of long answers, gone on with from their tokens."""
    path = write_rows("rows.jsonl", [{"custom_id": f"r{i}", "prompt": f"Row {i}", "max_tokens": 5000} for i in range(300)])
    engine = "fake:tokens=2000-4000"
    tokenmill(*fake_args("plain", path, engine=engine))
    process = subprocess.Popen([PROGRAM, *fake_args("out", path, engine=engine + ",rate=150000")], stdin=subprocess.DEVNULL, stderr=open("log", "ab"))
    while not os.path.exists("out/job.json"):
        time.sleep(0.01)
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143, open("log", encoding="utf-8", errors="replace").read()
    log = tokenmill("run", "-o", "out")
    same_outcome("plain", "out", "after a drain")
    usage = json.load(open("out/usage.json", encoding="utf-8"))
    assert usage["tokens"]["recomputed"] > 1000, f"nothing was gone on with: {usage} {log}"


@test
def every_kind_of_row():
    rows = mixed_rows(300, SEED, max_tokens=40)
    path = write_rows("rows.jsonl", rows)
    tokenmill(*fake_args("a", path))
    tokenmill(*fake_args("b", path, engine=FAKE + ",batch=3,slow=0.3:5"))
    same_outcome("a", "b", "another batch")
    assert len(lines_by_id("a/results.jsonl", "a/errors.jsonl")) == 300
    with_stop = [r for r in rows if "stop" in r.get("body", r)]
    assert with_stop
    for record in read_records("a/results.jsonl"):
        for choice in record["response"]["body"]["choices"]:
            assert choice["finish_reason"] in ("stop", "length"), record


@test
def a_job_stays_with_its_engine():
    path = write_rows("rows.jsonl", [{"prompt": [i, i + 1], "max_tokens": 3} for i in range(20)])
    tokenmill(*fake_args("faked", path))
    run("real", path)
    before = outcome("real")
    for out in ("faked", "real"):  # an unfinished job
        os.remove(f"{out}/results.jsonl")
    for args in (["--model", TINY], ["--engine", "cpu", "--model", TINY], ["--engine", "fake:tokens=5-61,fail=0.01"], ["--engine", "fake", "--model", TINY]):
        log = tokenmill("run", *args, "-o", "faked", path, expect=65)
        assert "--engine differs" in log and "fake:tokens=5-60" in log, log
    tokenmill("run", "--engine", "cpu", "--model", TINY, "-o", "faked", expect=65)
    for args in (["--engine", FAKE], ["--engine", FAKE, "--model", TINY]):
        log = tokenmill("run", *args, "-o", "real", path, expect=65)
        assert "--engine differs" in log, log
    tokenmill("run", "--engine", FAKE, "-o", "real", expect=65)
    run("real", path)
    assert outcome("real") == before
    tokenmill("run", "-o", "faked")  # named alone: by the engine that began it
    tokenmill(*fake_args("again", path))
    same_outcome("again", "faked", "named alone")
    # What does not change bytes may be otherwise.
    os.remove("faked/results.jsonl")
    tokenmill(*fake_args("faked", path, engine=FAKE + ",rate=100000,batch=2,crash=xyz"))
    same_outcome("again", "faked", "with other limits")


@test
def with_the_text_of_a_model():
    path = write_rows("rows.jsonl", [{"messages": [{"role": "user", "content": f"Number {i}"}]} for i in range(100)])
    for model in [TINY] + ([SMOLLM2] if os.path.exists(SMOLLM2) else []):
        out = "out-" + os.path.basename(model)
        tokenmill("run", "--engine", "fake:tokens=30", "--model", model, "-o", out, path)
        records = read_records(f"{out}/results.jsonl")
        assert len(records) == 100 and all(r["response"]["body"]["usage"]["completion_tokens"] == 30 for r in records)
        texts = [r["response"]["body"]["choices"][0]["message"]["content"] for r in records]
        assert len(set(texts)) == 100 and all(t.isascii() and t.isprintable() for t in texts), texts[:3]


@test
def ordered_faults():
    rows = [{"custom_id": f"r{i}", "prompt": f"Row {i}" + (" poison" if i == 50 else "")} for i in range(100)]
    path = write_rows("rows.jsonl", rows)
    tokenmill(*fake_args("plain", path))
    tokenmill(*fake_args("out", path, engine=FAKE + ",crash=poison"), expect=-signal.SIGSEGV)
    assert not os.path.exists("out/results.jsonl")
    process = subprocess.Popen([PROGRAM, *fake_args("out", path, engine=FAKE + ",hang=poison")], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=2)
        raise AssertionError("hang= did not hang")
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    tokenmill(*fake_args("out", path, engine=FAKE + ",crash-after=20,batch=5"), expect=-signal.SIGSEGV)
    tokenmill("run", "-o", "out")
    same_outcome("plain", "out", "after ordered faults")


@test
def the_option():
    path = write_rows("rows.jsonl", [{"prompt": "x"}])
    for engine, words in (("cuda9", ["cuda9", "cpu", "fake"]), ("fakes", ["cpu"]), ("fake:tempo=1", ["tempo", "tokens", "crash-after"]), ("fake:fail=2", ["fail", "0 to 1"]),
                          ("cpu:x", ["cpu:x"])):
        log = tokenmill(*fake_args("out", path, engine=engine), expect=1)
        assert all(w in log for w in words), log
    assert "--model MODEL is missing" in tokenmill("run", "--engine", "cpu", "-o", "out", path, expect=1)
    assert not os.path.exists("out")
    help_text = subprocess.run([PROGRAM, "run", "--help"], capture_output=True, check=True, text=True).stdout
    for key in ("tokens=", "fail=", "rate=", "batch=", "load=", "slow=", "crash=", "hang=", "crash-after="):
        assert key in help_text, key


if __name__ == "__main__":
    main()
