#!/usr/bin/env python3
"""A job whose input has grown, or that is to have other shards, or whose failed rows are to run once more, is planned again and keeps what is finished:
its results are, byte for byte, those of a job that was so from the start."""
import glob
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time

from e2e import PROGRAM, ROOT, SEED, Skip, TINY, main, mixed_rows, models, read_bytes, run, run_args, same_outcome, test, tokenmill, write_rows
from s3_servers import start_moto

sys.path.insert(0, os.path.join(ROOT, "tests/rigs"))
from shared_fs import NfsSim, Unavailable  # noqa: E402

FAKE = "fake:tokens=5-60"


def fake_args(out, *inputs, engine=FAKE, options=()):
    return ["run", "--engine", engine, "-o", out, "--publish-seconds", "0", *options, *inputs]


def fake(out, *inputs, engine=FAKE, options=(), expect=0):
    return tokenmill(*fake_args(out, *inputs, engine=engine, options=options), expect=expect)


def prompts(n, first=0):
    """Every seventh row has no custom_id, so it is named by its place; every 40th is at fault."""
    rows = []
    for i in range(first, first + n):
        row = {"custom_id": f"r{i}", "prompt": f"Row {i}: tell something of {i * 7919 % 1000}", "max_tokens": 40}
        if i % 7 == 3:
            del row["custom_id"]
        if i % 40 == 5:
            row["max_tokens"] = "many"
        rows.append(row)
    return rows


def segments(out):
    return set(glob.glob(f"{out}/**/seg-000[1-9]-*.db", recursive=True))


def stop_early(out, args, seconds=0.5):
    """Some of the rows are finished, others have partial states, and the process has ended. Its log."""
    before = segments(out)
    process = subprocess.Popen([PROGRAM, *map(str, args)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and not segments(out) - before:
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    log = process.communicate(timeout=60)[1].decode("utf-8", "replace")
    assert process.returncode == 143, f"exit status {process.returncode}: {log}"
    return log


def begin(out, path, rate=6000):
    stop_early(out, fake_args(out, path, engine=f"{FAKE},rate={rate},batch=16"))


def generation(out):
    return max([1] + [int(re.search(r"job-(\d+)\.json", f)[1]) for f in glob.glob(f"{out}/job-*.json")])


def kept(log):
    match = re.search(r"(\d+) finished rows kept", log)
    assert match, log
    return int(match[1])


def rows_run(log):
    match = re.search(r"(\d+) rows ok, (\d+) failed", log)
    assert match, log
    return int(match[1]) + int(match[2])


def usage(out):
    tokens = json.load(open(f"{out}/usage.json", encoding="utf-8"))["tokens"]
    return {k: tokens[k] for k in ("prompt", "output", "reasoning")}


def verified(out, reference, what):
    """Also that every row is charged once: what was dropped on the way is in the attempts' sums alone."""
    tokenmill("verify", out)
    same_outcome(reference, out, what)
    assert usage(reference) == usage(out), f"{what}: {usage(reference)} {usage(out)}"
    db = sqlite3.connect(f"file:{out}/merged/ledger.db?immutable=1", uri=True)
    charged = dict(zip(("prompt", "output", "reasoning"), db.execute("SELECT sum(prompt_tokens), sum(output_tokens), sum(reasoning_tokens) FROM charge").fetchone()))
    rows, shards = db.execute("SELECT count(*), count(distinct row) FROM charge").fetchone(), db.execute("SELECT sum(n_rows), sum(output_tokens) FROM shard_total").fetchone()
    spent = db.execute("SELECT sum(output_tokens) FROM attempt").fetchone()[0]
    db.close()
    n_rows = sum(len(read_bytes(f"{out}/{f}").splitlines()) for f in ("results.jsonl", "errors.jsonl"))
    assert charged == usage(out) and rows == (n_rows, n_rows) and shards[1] == charged["output"], f"{what}: {charged} {usage(out)} {rows} {shards}"
    tokenmill("report", out)
    return spent - charged["output"]


@test
def grown_input():
    half, whole = write_rows("half.jsonl", prompts(300)), write_rows("whole.jsonl", prompts(500))
    fake("reference", whole)
    begin("out", half)
    log = fake("out", whole)
    assert "200 rows more" in log and generation("out") == 2, log
    assert kept(log) >= 30, log
    n_bad = sum(i % 40 == 5 for i in range(500))
    assert kept(log) + rows_run(log) == 500 - n_bad, log
    verified("out", "reference", "half run, then grown")
    log = fake("out", whole)
    assert "finished already" in log and generation("out") == 2, log
    log = tokenmill("run", "-o", "out")
    assert "finished already" in log, log


@test
def with_a_model():
    for name, model in models():
        n = 300 if name == "tiny" else 10
        rows = mixed_rows(2 * n, SEED + 3, max_tokens=32 if name == "tiny" else 16)
        first, whole = write_rows(f"{name}-first.jsonl", rows[:n]), write_rows(f"{name}-whole.jsonl", rows)
        run(f"{name}-reference", whole, model=model)
        process = subprocess.Popen([PROGRAM, *map(str, run_args(f"{name}-out", first, model=model, options=["--publish-seconds", "0.02", "--threads", 1]))],
                                   stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None and not glob.glob(f"{name}-out/shards/*/seg-*.db"):
            time.sleep(0.002)
        time.sleep(0.1)
        process.kill()
        process.wait()
        log = run(f"{name}-out", whole, model=model)
        assert f"{n} rows more" in log, log
        verified(f"{name}-out", f"{name}-reference", name)


@test
def order_and_unfinished_rows_may_change():
    rows = [r for r in prompts(300) if "custom_id" in r]
    begin("out", write_rows("a.jsonl", rows))
    finished = set()
    for line in subprocess.run(["sh", "-c", "for f in out/shards/*/seg-*.db; do sqlite3 \"file:$f?immutable=1\" 'SELECT line FROM result'; done"],
                               capture_output=True, check=True).stdout.splitlines():
        finished.add(json.loads(line)["custom_id"])
    assert 30 <= len(finished) < len(rows), len(finished)
    for r in rows:
        if r["custom_id"] not in finished and r["max_tokens"] == 40:
            r["prompt"] += " Be short."
    random.Random(SEED).shuffle(rows)
    changed = write_rows("b.jsonl", rows)
    fake("reference", changed)
    log = fake("out", changed)
    assert kept(log) == len(finished) and "as before" in log, log
    verified("out", "reference", "reordered, and changed where nothing was finished")


@test
def finished_rows_are_not_dropped_unasked():
    rows = prompts(100)
    first = write_rows("a.jsonl", rows)
    fake("out", first)
    before = read_bytes("out/results.jsonl")
    rows[8]["prompt"] = "something else"
    changed = write_rows("b.jsonl", rows)
    log = fake("out", changed, expect=65)
    assert '"r8"' in log and "a.jsonl:9" in log and "--replan" in log, log
    log = fake("out", write_rows("c.jsonl", prompts(99)), expect=65)
    assert '"r99"' in log and "no longer" in log, log
    assert generation("out") == 1 and read_bytes("out/results.jsonl") == before
    fake("reference", changed)
    log = fake("out", changed, options=["--replan"])
    assert "1 dropped" in log and rows_run(log) == 1, log
    assert verified("out", "reference", "a finished row was changed") > 0, "what was dropped is not waste"
    # What is not the input's is refused as before.
    log = fake("out", changed, options=["--seed", 3, "--replan"], expect=65)
    assert "--seed" in log, log


@test
def other_shards():
    path = write_rows("a.jsonl", prompts(400))
    fake("reference", path)
    begin("out", path, rate=3000)
    for n in (40, 3, 1):
        args = ["run", "-o", "out", "--shards", n, "--publish-seconds", "0", "--engine", f"{FAKE},rate=3000,batch=8"]
        log = stop_early("out", args, 0.2)
        assert kept(log) >= 15 and f"in {n} shards" in log, log
        again = generation("out")
        log = stop_early("out", args, 0.1)
        assert generation("out") == again and "planned again" not in log, log
    tokenmill("run", "-o", "out")
    verified("out", "reference", "other shards")


@test
def standard_input():
    half, whole = write_rows("half.jsonl", prompts(100)), write_rows("whole.jsonl", prompts(200))
    fake("reference", whole)
    for path, n in ((half, 1), (half, 1), (whole, 2), (whole, 2)):
        with open(path, "rb") as f:
            tokenmill(*fake_args("out", "-"), stdin=f)
        assert generation("out") == n
    verified("out", "reference", "from standard input")


@test
def several_with_one_wish():
    half, whole = write_rows("half.jsonl", prompts(300)), write_rows("whole.jsonl", prompts(600))
    fake("reference", whole)
    for k in range(4):
        out = f"out-{k}"
        begin(out, half)
        processes = [subprocess.Popen([PROGRAM, *map(str, fake_args(out, whole, options=["--shards", 12]))], stdin=subprocess.DEVNULL,
                                      stderr=open(f"log-{k}-{i}", "wb"), env={**os.environ, "JOB_COMPLETION_INDEX": str(i)}) for i in range(4)]
        logs = []
        for i, p in enumerate(processes):
            status = p.wait(timeout=300)
            logs.append(open(f"log-{k}-{i}", encoding="utf-8", errors="replace").read())
            assert status == 0, f"exit status {status}: {logs[-1]}"
        assert generation(out) == 2, logs
        fake(out, whole)
        verified(out, "reference", f"four at once, round {k}")


@test
def old_workers_stop():
    """A worker of the plan that was replaced ends with 75 at its next publish, and nothing is lost."""
    half, whole = write_rows("half.jsonl", prompts(300)), write_rows("whole.jsonl", prompts(400))
    fake("reference", whole)
    slow = subprocess.Popen([PROGRAM, *map(str, fake_args("out", half, engine=f"{FAKE},rate=300,batch=4", options=["--publish-seconds", "0.1"]))],
                            stdin=subprocess.DEVNULL, stderr=open("log", "wb"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not glob.glob("out/shards/*/seg-*.db"):
        time.sleep(0.01)
    fake("out", whole)
    status = slow.wait(timeout=60)
    assert status == 75, f"exit status {status}: " + open("log", encoding="utf-8").read()
    verified("out", "reference", "with a worker of the old plan")


@test
def retry_failed():
    path = write_rows("a.jsonl", prompts(200))
    engine = "fake:tokens=5-20,fail=0.1"
    fake("out", path, engine=engine)
    fake("reference", path, engine=engine)
    errors = [json.loads(line) for line in read_bytes("out/errors.jsonl").splitlines()]
    codes = [e["response"]["body"]["error"]["code"] for e in errors]
    n_failed = codes.count("engine_error")
    n_bad = len(codes) - n_failed
    assert n_failed > 3 and n_bad == 5, codes
    log = tokenmill("retry-failed", "out", "--code", "poison_row")
    assert "nothing to run again" in log and f"{n_failed} rows failed with other errors" in log and generation("out") == 1, log
    log = tokenmill("retry-failed", "out", "--code", "poison_row,engine_error")
    assert f"{n_failed} rows run again" in log and f"{n_bad} rows are at fault" in log and generation("out") == 2, log
    log = tokenmill("retry-failed", "out")
    assert "nothing to run again" in log and generation("out") == 2, log
    log = tokenmill("verify", "out", expect=None)
    assert "an earlier plan of this job" in log, log
    log = tokenmill("run", "-o", "out")
    assert rows_run(log) == n_failed, log
    verified("out", "reference", "failed rows run again")
    fake("fine", path)
    log = tokenmill("retry-failed", "fine")
    assert "no row has failed" in log and f"{n_bad} rows are at fault" in log and generation("fine") == 1, log
    tokenmill("retry-failed", "nothing", expect=1)
    tokenmill("retry-failed", "out", "--code", "", expect=1)


@test
def retry_poison_rows():
    """Rows that crashed the engine run once it is another one; that they were suspects before does not matter any more."""
    rows = prompts(120)
    rows[21]["prompt"] = rows[77]["prompt"] = "arsenic"
    path = write_rows("a.jsonl", rows)
    fake("reference", path)
    fake("out", path, engine=f"{FAKE},batch=16,crash=arsenic", options=["--restarts", 60])
    errors = [json.loads(line) for line in read_bytes("out/errors.jsonl").splitlines()]
    codes = [(e["error"] or e["response"]["body"]["error"])["code"] for e in errors]
    assert codes.count("poison_row") == 2, codes
    log = tokenmill("retry-failed", "out", "--code", "poison_row")
    assert "2 rows run again" in log and not glob.glob("out/plan-*/shards/*/flight-*"), log
    log = tokenmill("run", "--job", "out")
    assert rows_run(log) == 2, log
    verified("out", "reference", "poison rows run again")


@test
def on_s3():
    half, whole = write_rows("half.jsonl", prompts(200)), write_rows("whole.jsonl", prompts(300))
    fake("reference", whole)
    server = start_moto()
    server.create_bucket("bucket")
    env = {**os.environ, **server.env}
    place = "s3://bucket/team/job"
    try:
        tokenmill(*fake_args(place, half, engine=f"{FAKE},rate=3000,crash-after=100"), env=env, expect=-signal.SIGSEGV)
        log = tokenmill(*fake_args(place, whole), env=env)
        assert "100 rows more" in log and kept(log) > 0, log
        tokenmill("verify", place, env=env)
        log = tokenmill("run", "-o", place, "--shards", 7, env=env)
        assert "in 7 shards" in log and kept(log) == 300 - sum(i % 40 == 5 for i in range(300)), log
        tokenmill("verify", place, env=env)
        for name, reference in (("results.jsonl", "reference/results.jsonl"), ("errors.jsonl", "reference/errors.jsonl")):
            status, _, body = server.request("GET", f"/bucket/team/job/merged/{name}")
            assert status == 200 and body == read_bytes(reference), f"{name} in the bucket differs"
    finally:
        server.stop()


@test
def on_nfs_with_faults():
    """Two hosts, stale caches, lost replies: whoever fails (74) or is told of another plan (75) starts again."""
    half, whole = (write_rows(os.path.abspath(f), prompts(n)) for f, n in (("half.jsonl", 150), ("whole.jsonl", 250)))
    fake("reference", whole)
    try:
        share = NfsSim(os.path.abspath("shared"), SEED, 1, fault_rate=0.02)
    except Unavailable as e:
        raise Skip(str(e))
    env = [{**os.environ, "TOKENMILL_HOST": host, "JOB_COMPLETION_INDEX": str(i)} for i, host in enumerate("ab")]
    options = ["--takeover-after", 4, "--publish-seconds", "0.2"]

    def until_done(path, engine, other):
        waiting, logs = [0, 1], ["", ""]
        for _ in range(40):
            started = [(i, subprocess.Popen([PROGRAM, *map(str, ["run", "--engine", engine, "-o", f"{share.mounts[i]}/job", *options, *other, path])], env=env[i],
                                            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)) for i in waiting]
            for i, process in started:
                logs[i] += process.communicate(timeout=300)[1].decode("utf-8", "replace")
                assert process.returncode in (0, 74, 75, -signal.SIGSEGV), f"exit status {process.returncode}: {logs[i][-3000:]}"
                if process.returncode == 0:
                    waiting.remove(i)
                elif process.returncode == -signal.SIGSEGV:
                    return logs
            if not waiting:
                return logs
        raise AssertionError(f"no end: {logs[0][-3000:]} {logs[1][-3000:]}")

    try:
        until_done(half, f"{FAKE},rate=2000,crash-after=60", [])
        logs = until_done(whole, FAKE, ["--shards", 9])
        assert any("finished rows kept" in log for log in logs), logs
        until_done(whole, FAKE, [])
        time.sleep(2)  # until no cache is stale any more
        for a, b in (("results.jsonl", "reference/results.jsonl"), ("errors.jsonl", "reference/errors.jsonl")):
            assert read_bytes(f"{share.backing}/job/{a}") == read_bytes(b), f"{a} differs"
    finally:
        share.close()


if __name__ == "__main__":
    main()
