#!/usr/bin/env python3
"""An inbox and its firings: each row of each file exactly once over all batches, whatever overlaps, is missed, is killed or is being written."""
import collections
import glob
import json
import os
import random
import signal
import subprocess
import time

from e2e import PROGRAM, ROUNDS, SEED, main, test, tokenmill, write_rows

FAST = "fake"
SLOW = "fake:rate=6000,batch=8"


def drop(name, n=20, tokens=20):
    """A file as somebody who is careful drops it: written elsewhere, renamed into place."""
    os.makedirs(os.path.dirname(f"inbox/{name}"), exist_ok=True)
    write_rows("inbox/.new", [{"custom_id": f"{name}:{i}", "prompt": f"question {i} of {name}", "max_tokens": tokens} for i in range(n)])
    os.rename("inbox/.new", f"inbox/{name}")
    return [f"{name}:{i}" for i in range(n)]


def args(engine=FAST, jobs="jobs", settle=0.1, options=()):
    os.makedirs("inbox", exist_ok=True)
    return ["run", "--engine", engine, "--inbox", "inbox", "--jobs", jobs, "--settle", settle, *options]


def fire(engine=FAST, expect=0, **more):
    return tokenmill(*args(engine, **more), expect=expect)


def start(engine=SLOW, env=None, **more):
    return subprocess.Popen([PROGRAM, *map(str, args(engine, **more))], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=open("log", "ab"), env={**os.environ, **(env or {})})


def log():
    return open("log", encoding="utf-8", errors="replace").read()


def wait_for(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen: {log()[-3000:]}"
        time.sleep(0.01)


def end(processes):
    """All of them well."""
    try:
        assert [p.wait(timeout=60) for p in processes] == [0] * len(processes), log()[-3000:]
    except subprocess.TimeoutExpired:
        raise AssertionError(f"no end: {log()[-3000:]}") from None
    finally:
        for p in processes:
            p.kill()


def results():
    found = []
    for path in sorted(glob.glob("jobs/batch-*/results.jsonl")) + sorted(glob.glob("jobs/batch-*/errors.jsonl")):
        with open(path, encoding="utf-8") as f:
            found += [json.loads(line)["custom_id"] for line in f]
    return found


def each_once(expected):
    n = collections.Counter(results())
    assert n == collections.Counter(expected), f"missing {sorted(set(expected) - set(n))[:5]}, more than once {[k for k, v in n.items() if v > 1][:5]}, extra {sorted(set(n) - set(expected))[:5]}"
    batches = glob.glob("jobs/inbox/batch-*.json")
    assert len(batches) == len(glob.glob("jobs/inbox/batch-*.done")), "a batch is not done"
    for b in glob.glob("jobs/batch-*"):
        tokenmill("verify", b)


@test
def a_firing_takes_what_is_new():
    assert "nothing new" in fire()
    assert not glob.glob("jobs/batch-*")
    rows = drop("a.jsonl") + drop("sub/b.jsonl")
    fire()
    each_once(rows)
    with open("jobs/inbox/batch-000001.json", encoding="utf-8") as f:
        batch = json.load(f)
    assert [x["name"] for x in batch["files"]] == ["a.jsonl", "sub/b.jsonl"] and all(x["bytes"] > 0 and len(x["sha256"]) == 64 for x in batch["files"])
    assert "nothing new" in fire()
    rows += drop("c.jsonl")
    os.utime("inbox/a.jsonl") # touched is not changed
    fire()
    each_once(rows)
    assert sorted(os.listdir("inbox")) == ["a.jsonl", "c.jsonl", "sub"]
    assert len(glob.glob("jobs/batch-*")) == 2


@test
def a_changed_file_is_a_new_one():
    rows = drop("a.jsonl", 10)
    fire()
    rows += drop("a.jsonl", 12) # other content under the same name, with some of the same ids
    fire()
    assert collections.Counter(results()) == collections.Counter(rows)
    before = os.stat("inbox/a.jsonl")
    text = open("inbox/a.jsonl", encoding="utf-8").read()
    with open("inbox/a.jsonl", "w", encoding="utf-8") as f: # same size, and the old time put back
        f.write(text.replace("question 1 ", "question 9 "))
    os.utime("inbox/a.jsonl", ns=(before.st_atime_ns, before.st_mtime_ns))
    fire()
    assert len(glob.glob("jobs/batch-*")) == 3


@test
def what_is_not_complete_waits():
    rows = drop("a.jsonl")
    for name in (".hidden.jsonl", "b.jsonl.tmp", "c.jsonl.part", "d.tmp", "empty.jsonl"):
        with open(f"inbox/{name}", "w", encoding="utf-8") as f:
            f.write("" if name == "empty.jsonl" else '{"prompt": "x"}\n')
    os.makedirs("inbox/x.part")
    write_rows("inbox/x.part/e.jsonl", [{"prompt": "x"}])
    grows = open("inbox/grows.jsonl", "w", encoding="utf-8")
    grows.write('{"custom_id": "g0", "prompt": "x", "max_tokens": 3}\n')
    grows.flush()
    p = start(FAST, settle=1.5)
    time.sleep(0.7)
    grows.write('{"custom_id": "g1", "prompt": "x", "max_tokens": 3}\n')
    grows.close()
    assert p.wait(timeout=60) == 0, log()
    assert "grows.jsonl is being written" in log()
    each_once(rows)
    fire()
    each_once(rows + ["g0", "g1"])


@test
def a_missed_firing_is_made_up_for():
    rows = []
    for day in range(4): # of which two are missed
        rows += drop(f"day-{day}.jsonl", 15)
        if day in (0, 3):
            fire()
    each_once(rows)
    assert len(glob.glob("jobs/batch-*")) == 2


@test
def equal_ids_in_several_files():
    """Files that all count from 0 go into one job each."""
    os.makedirs("inbox")
    for k in range(3):
        write_rows(f"inbox/{k}.jsonl", [{"custom_id": f"r{i}", "prompt": f"{k} {i}", "max_tokens": 5} for i in range(10)])
    fire(options=["--batch-files", 1])
    assert collections.Counter(results()) == {f"r{i}": 3 for i in range(10)}
    assert len(glob.glob("jobs/batch-*")) == 3 and not any(os.path.getsize(p) for p in glob.glob("jobs/batch-*/errors.jsonl"))


@test
def overlapping_firings_share_the_work():
    rows = drop("a.jsonl", 300, 40) + drop("b.jsonl", 300, 40)
    first = start(env={"TOKENMILL_HOST": "one"}, options=["--shards", 8, "--takeover-after", 3])
    wait_for(lambda: glob.glob("jobs/batch-000001/shards/*/claim-*"), "a claim")
    rows += drop("c.jsonl", 100, 40)
    second = start(env={"TOKENMILL_HOST": "two"}, options=["--takeover-after", 3])
    assert first.wait(timeout=120) == 0 and second.wait(timeout=25) == 0, log()
    fire()
    each_once(rows)
    assert len(glob.glob("jobs/batch-*")) == 2
    workers = {json.load(open(p, encoding="utf-8"))["host"] for p in glob.glob("jobs/batch-000001/events/*.json")}
    assert workers == {"one", "two"}, workers


@test
def workers_of_one_job_agree():
    """Started at once, as pods of an Indexed Job are."""
    rows = drop("a.jsonl", 400, 40) + drop("b.jsonl", 200, 40)
    pods = [start(env={"JOB_COMPLETION_INDEX": str(i), "TOKENMILL_HOST": f"pod-{i}"}, options=["--shards", 9, "--takeover-after", 3]) for i in range(3)]
    end(pods)
    each_once(rows)
    assert len(glob.glob("jobs/batch-*")) == 1
    assert len(glob.glob("jobs/batch-000001/events/*.json")) == 3


@test
def firings_that_are_killed():
    """Random files, firings that overlap and are killed at random moments; then one that is left alone."""
    for n in range(ROUNDS):
        r = random.Random(SEED * 1000 + n)
        for d in glob.glob("inbox") + glob.glob("jobs"):
            subprocess.run(["rm", "-rf", d], check=True)
        rows, k = [], 0
        for _ in range(6):
            for _ in range(r.randrange(3)):
                rows += drop(f"f{k}.jsonl", r.randrange(5, 120), 30)
                k += 1
            firings = [start(settle=0.02, env={"TOKENMILL_HOST": f"host-{i}"}, options=["--publish-seconds", "0.05", "--takeover-after", 1])
                       for i in range(r.randrange(1, 4))]
            time.sleep(r.random() * 0.8)
            for p in firings:
                p.send_signal(r.choice([signal.SIGKILL, signal.SIGTERM]))
            for p in firings:
                assert p.wait(timeout=60) in (0, -signal.SIGKILL, -signal.SIGTERM, 143), log()
        rows += drop("last.jsonl")
        fire(settle=0.02, options=["--takeover-after", 1])
        each_once(rows)


@test
def a_batch_that_cannot_run_does_not_block():
    os.makedirs("inbox")
    with open("inbox/bad.jsonl", "w", encoding="utf-8") as f:
        f.write("this is no row\n")
    strict = ["--strict"]
    said = fire(expect=64, options=strict)
    assert "batch 000001" in said, said
    rows = drop("good.jsonl")
    fire(expect=64, options=strict) # tells it again, and has done the other
    assert collections.Counter(results()) == collections.Counter(rows)
    open("jobs/inbox/batch-000001.dismissed", "w").close()
    assert "nothing new" in fire(options=strict)
    os.unlink("inbox/bad.jsonl") # gone before it was planned: nothing is left of the batch
    os.unlink("jobs/inbox/batch-000001.dismissed")
    assert "is gone or has changed" in fire(options=strict)
    assert os.path.exists("jobs/inbox/batch-000001.done")


@test
def done_files_are_moved():
    rows = drop("a.jsonl") + drop("sub/b.jsonl")
    fire(options=["--move-done", "done"])
    each_once(rows)
    assert os.path.exists("done/batch-000001/a.jsonl") and os.path.exists("done/batch-000001/sub/b.jsonl")
    assert not glob.glob("inbox/*.jsonl") and not glob.glob("inbox/sub/*")
    assert "nothing new" in fire(options=["--move-done", "done"])
    os.rename("done/batch-000001/a.jsonl", "inbox/a.jsonl") # the same again is not new
    assert "nothing new" in fire()


@test
def bad_command_lines():
    os.makedirs("inbox")
    for options, word in ((["--inbox", "inbox"], "--jobs"), (["--jobs", "jobs"], "--inbox"), (["--inbox", "inbox", "--jobs", "j", "-o", "out"], "neither"),
                          (["--inbox", "inbox", "--jobs", "j", "in.jsonl"], "neither"), (["--move-done", "d", "-o", "x"], "--inbox")):
        assert word in tokenmill("run", "--engine", "fake", *options, expect=1)
    assert "not a directory" in tokenmill("run", "--engine", "fake", "--inbox", "nowhere", "--jobs", "j", expect=64)


if __name__ == "__main__":
    main()
