#!/usr/bin/env python3
"""The life of workers on one job: heartbeats, takeover, release, waiting. TOKENMILL_HOST makes processes take each other for processes of other
hosts, so that only the job's directory tells them of each other."""
import atexit
import glob
import json
import os
import re
import signal
import subprocess
import time

from e2e import PROGRAM, main, read_records, same_outcome, test, tokenmill, write_rows


def rows(n, tokens=40):
    return write_rows("in.jsonl", [{"custom_id": f"r{i}", "prompt": f"question {i} " + "word " * (i % 7), "max_tokens": tokens} for i in range(n)])


def args(out, *inputs, engine="fake", options=()):
    return ["run", "--engine", engine, "--job", out, *options, *inputs]


def run(out, *inputs, engine="fake", options=(), expect=0, **popen):
    return tokenmill(*args(out, *inputs, engine=engine, options=options), expect=expect, **popen)


class Worker:
    """A run in the background, on a host of its own unless host is None."""

    def __init__(self, name, out, *inputs, engine="fake", options=(), host="", env=None):
        env = {**os.environ, **(env or {})}
        if host is not None:
            env["TOKENMILL_HOST"] = host or f"host-{name}"
        self.log_name = f"log-{name}"
        self.process = subprocess.Popen([PROGRAM, *map(str, args(out, *inputs, engine=engine, options=options))], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=open(self.log_name, "ab"), env=env)
        atexit.register(self.process.kill)  # no test that fails leaves one behind; does nothing to one that was waited for

    def log(self):
        return open(self.log_name, encoding="utf-8", errors="replace").read()

    def wait(self, expect=0, timeout=120):
        status = self.process.wait(timeout=timeout)
        assert status == expect, f"exit status {status}, expected {expect}: {self.log()[-2000:]}"
        return self.log()

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)


def wait_for(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.01)


def has_segments(out, epoch=1):
    return lambda: bool(glob.glob(f"{out}/shards/*/seg-{epoch:04d}-*.db"))


def attempts(out):
    return [json.load(open(p, encoding="utf-8")) for p in glob.glob(f"{out}/events/*.json")]


SLOW = "fake:rate=4000,batch=8"


@test
def a_dead_worker_elsewhere_is_taken_over():
    """kill -9 on one host; a worker on another cannot know, watches the silence, takes over, and ends the job."""
    path = rows(400)
    run("plain", path)
    first = Worker("a", "out", path, engine=SLOW, options=["--publish-seconds", "0.1", "--worker", 0])
    wait_for(has_segments("out"), "a first segment")
    first.kill()
    first.process.wait()
    began = time.monotonic()
    second = Worker("b", "out", options=["--worker", 1, "--takeover-after", 2])
    log = second.wait()
    took = time.monotonic() - began
    assert took > 2, f"took over after {took:.1f} s of silence"
    assert "watching process" in log and "host-a (worker 0)" in log, log
    same_outcome("plain", "out", "after a takeover")
    assert glob.glob("out/shards/*/claim-0002")
    tokenmill("verify", "out")


@test
def a_live_worker_elsewhere_is_left_alone():
    """Its heartbeat moves: the other is done with nothing, at once after it saw that."""
    path = rows(300)
    first = Worker("a", "out", path, engine="fake:rate=1500,batch=8", options=["--worker", 0, "--takeover-after", 2])
    wait_for(lambda: glob.glob("out/shards/*/claim-0001"), "a claim")
    second = Worker("b", "out", options=["--worker", 1, "--takeover-after", 2])
    log = second.wait()
    assert first.process.poll() is None, "the first ended too early for this test"
    assert "other workers still run" in log, log
    first.wait()
    assert not glob.glob("out/shards/*/claim-0002")
    for a in attempts("out"):
        assert a["state"] == "ended" and a["end_code"] == "none", a
        assert a["beat"] > 3 or a["worker"] == 1, a


@test
def a_drained_worker_gives_its_shards_back():
    path = rows(400)
    run("plain", path)
    first = Worker("a", "out", path, engine=SLOW, options=["--publish-seconds", "0.1", "--worker", 0])
    wait_for(has_segments("out"), "a first segment")
    first.kill(signal.SIGTERM)
    first.wait(143)
    assert glob.glob("out/shards/*/release-0001")
    began = time.monotonic()
    Worker("b", "out", options=["--worker", 1]).wait()
    assert time.monotonic() - began < 5, "a released shard was not taken at once"
    same_outcome("plain", "out", "after a release")


@test
def two_hosts_without_an_index_do_not_fence_each_other():
    path = rows(600)
    run("plain", path)
    first = Worker("a", "out", path, engine=SLOW, options=["--takeover-after", 2])
    wait_for(lambda: glob.glob("out/shards/*/claim-0001"), "a claim")
    second = Worker("b", "out", engine=SLOW, options=["--takeover-after", 2])
    first.wait()
    second.wait()
    assert not glob.glob("out/shards/*/claim-0002")
    run("out")
    same_outcome("plain", "out", "two hosts at once")


@test
def the_same_index_elsewhere_takes_over_at_once():
    """A pod that was started again while its node was cut off: the old one is fenced and says so, exit 75."""
    path = rows(400)
    run("plain", path)
    first = Worker("a", "out", path, engine="fake:rate=1500,batch=8", options=["--publish-seconds", "0.2"], env={"JOB_COMPLETION_INDEX": "3"})
    wait_for(has_segments("out"), "a first segment")
    second = Worker("b", "out", options=["--publish-seconds", "0.2"], env={"JOB_COMPLETION_INDEX": "3"})
    second.wait()
    first.wait(75)
    same_outcome("plain", "out", "twins of one index")


@test
def a_watching_worker_can_be_stopped():
    path = rows(100)
    first = Worker("a", "out", path, engine=SLOW, options=["--worker", 0])
    wait_for(lambda: glob.glob("out/shards/*/claim-0001"), "a claim")
    first.kill()
    first.process.wait()
    second = Worker("b", "out", options=["--worker", 1])
    wait_for(lambda: "watching" in second.log(), "watching")
    began = time.monotonic()
    second.kill(signal.SIGTERM)
    second.wait(143)
    assert time.monotonic() - began < 2


@test
def one_plans_and_the_others_wait():
    """Eight workers on eight hosts start at once on nothing."""
    path = rows(3000, tokens=4)
    run("plain", path)
    workers = [Worker(str(i), "out", path, options=["--worker", i]) for i in range(8)]
    logs = [w.wait() for w in workers]
    assert sum("planned 3000 rows" in log for log in logs) == 1, logs
    assert len(glob.glob("out/plan*-*")) == 1 and not glob.glob("out/planning*")
    if not os.path.exists("out/results.jsonl"):
        run("out")
    same_outcome("plain", "out", "eight workers from nothing")


@test
def a_dead_planner_is_taken_over():
    """A planner that waits for its standard input is killed. Here that is known at once; elsewhere its beat stands still for a while."""
    path = rows(50)
    run("plain", path)
    for host, waits in ((None, False), ("", True)):
        out = f"out-{waits}"
        read_end, write_end = os.pipe()
        env = {**os.environ, "TOKENMILL_HOST": "far"} if host == "" else None
        planner = subprocess.Popen([PROGRAM, *args(out, "-")], stdin=read_end, stderr=subprocess.DEVNULL, env=env)
        wait_for(lambda: glob.glob(f"{out}/plan-claim-0001"), "a planning claim")
        second = Worker(f"b{waits}", out, path, options=["--takeover-after", 3, "--worker", 1], host=None)
        wait_for(lambda: "plans it" in second.log(), "waiting")
        began = time.monotonic()
        planner.kill()
        planner.wait()
        second.wait()
        took = time.monotonic() - began
        assert took > 2 if waits else took < 2, f"{took:.1f} s"
        os.close(read_end)
        os.close(write_end)
        same_outcome("plain", out, "after a dead planner")
        assert len(glob.glob(f"{out}/plan*-*")) == 1 and not glob.glob(f"{out}/planning*"), os.listdir(out)


@test
def a_planner_that_was_overtaken_goes_on_as_a_worker():
    path = rows(3000, tokens=4)
    run("plain", path)
    first = Worker("a", "out", path, options=["--worker", 0])
    wait_for(lambda: glob.glob("out/plan-claim-0001"), "a planning claim")
    first.kill(signal.SIGSTOP)
    Worker("b", "out", path, options=["--takeover-after", 1, "--worker", 1]).wait()
    first.kill(signal.SIGCONT)
    log = first.wait()
    same_outcome("plain", "out", f"after two planners: {log}")


@test
def a_waiting_worker_can_be_stopped():
    path = rows(50)
    read_end, write_end = os.pipe()
    planner = subprocess.Popen([PROGRAM, *args("out", "-")], stdin=read_end, stderr=subprocess.DEVNULL)
    wait_for(lambda: glob.glob("out/plan-claim-0001"), "a planning claim")
    second = Worker("b", "out", path)
    wait_for(lambda: "plans it" in second.log(), "waiting")
    began = time.monotonic()
    second.kill(signal.SIGTERM)
    second.wait(143)
    assert time.monotonic() - began < 2
    planner.terminate()
    assert planner.wait() == 143
    os.close(read_end)
    os.close(write_end)


def poisoned(out, n, poison):
    """Everything as in the undisturbed run, but for the rows that crash the engine, which have error records."""
    errors = [e for e in read_records(f"{out}/errors.jsonl")]
    assert sorted(e["custom_id"] for e in errors) == sorted(f"r{i}" for i in poison), errors
    for e in errors:
        assert e["response"] is None and e["error"]["code"] == "poison_row", e
    plain = {r["custom_id"]: r for r in read_records("plain/results.jsonl")}
    found = {r["custom_id"]: r for r in read_records(f"{out}/results.jsonl")}
    assert len(found) == n - len(poison)
    for key, record in found.items():
        assert record == plain[key], (record, plain[key])
    tokenmill("verify", out)


@test
def rows_that_crash_the_engine_are_set_aside():
    """2,000 rows, two of which end the process each time: started again and again by hand, and by the program itself. The undisturbed run
    is of the same rows; crash=WORD is no part of the job's identity."""
    n, poison = 2000, (411, 1500)
    path = write_rows("in.jsonl", [{"custom_id": f"r{i}", "prompt": f"question {i} {'arsenic' if i in poison else 'salt'}", "max_tokens": 20} for i in range(n)])
    run("plain", path)
    engine = "fake:batch=64,crash=arsenic"
    run("out", path, engine=engine, options=["--restarts", 60, "--publish-seconds", "0.05"])
    poisoned("out", n, poison)
    crashes = 0
    while True:
        p = subprocess.run([PROGRAM, *args("by-hand", path, engine=engine, options=["--publish-seconds", "0.05"])], stdin=subprocess.DEVNULL,
                           capture_output=True, timeout=120)
        if p.returncode == 0:
            break
        assert p.returncode == -signal.SIGSEGV, p.stderr.decode()
        crashes += 1
        assert crashes < 60
    poisoned("by-hand", n, poison)
    print(f"  {crashes} crashes until both were found")


@test
def a_crash_of_one_worker_does_not_convict_the_rows_of_others():
    n, poison = 1500, (700,)
    path = write_rows("in.jsonl", [{"custom_id": f"r{i}", "prompt": f"question {i} {'arsenic' if i in poison else 'salt'}", "max_tokens": 20} for i in range(n)])
    run("plain", path)
    workers = [Worker(str(i), "out", path, engine="fake:batch=16,rate=20000,crash=arsenic",
                      options=["--worker", i, "--restarts", 60, "--publish-seconds", "0.05", "--takeover-after", 2]) for i in range(3)]
    for w in workers:
        w.wait()
    if not os.path.exists("out/results.jsonl"):
        run("out")
    poisoned("out", n, poison)


@test
def kills_convict_nobody():
    """Thirty times kill -9 while rows run."""
    path = rows(300, tokens=100)
    run("plain", path)
    for i in range(30):
        w = Worker("a", "out", path, engine="fake:batch=4,rate=3000", options=["--publish-seconds", "0.1"], host=None)
        try:
            w.process.wait(timeout=0.15 + 0.02 * (i % 7))
        except subprocess.TimeoutExpired:
            w.kill()
            w.process.wait()
    run("out", options=["--publish-seconds", "0.1"])
    same_outcome("plain", "out", "after thirty kills")


@test
def a_supervised_run_ends_as_its_worker_does():
    path = rows(400)
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        w = Worker(f"s{status}", f"out-{status}", path, engine=SLOW, options=["--restarts", 5, "--publish-seconds", "0.1"])
        wait_for(has_segments(f"out-{status}"), "a first segment")
        began = time.monotonic()
        w.kill(number)
        w.wait(status)
        assert time.monotonic() - began < 3
    run("out-143", options=["--restarts", 5])
    log = run("crash", path, engine="fake:crash-after=20", options=["--restarts", 2], expect=128 + signal.SIGSEGV)
    assert "starting it again (2 of 2)" in log, log


PRICES = "currency: USD\nmodels:\n  - {model: \"*\", input: 1, output: 1000}\nnodes:\n  - {node: small, per_node_hour: 3600}\n"


def prices():
    with open("prices.yaml", "w", encoding="utf-8") as f:
        f.write(PRICES)
    return "prices.yaml"


def spent(out):
    return sum(a["spent_usd"] for a in attempts(out))


@test
def a_budget_ends_the_run_and_a_higher_one_goes_on():
    """About 20 tokens a row at 1/1000 a token: 600 rows cost some 12."""
    path = rows(600, tokens=20)
    run("plain", path)
    log = run("out", path, engine="fake:batch=8", options=["--budget-usd", 3, "--prices", prices()], expect=67)
    assert "budget of 3.00 USD is used up" in log, log
    assert 2.5 < spent("out") <= 3, spent("out")
    assert not os.path.exists("out/results.jsonl")
    log = run("out", options=["--budget-usd", 3, "--prices", "prices.yaml"], expect=67)
    before = spent("out")
    assert before <= 3
    run("out", options=["--budget-usd", 50, "--prices", "prices.yaml"])
    assert before < spent("out") < 15, spent("out")
    same_outcome("plain", "out", "after the budget was raised")


@test
def eight_workers_share_a_budget():
    path = rows(3000, tokens=20)
    run("plain", path)
    options = ["--budget-usd", 20, "--prices", prices(), "--takeover-after", 4, "--publish-seconds", "0.2"]
    workers = [Worker(str(i), "out", path, engine="fake:batch=8,rate=6000", options=["--worker", i, *options]) for i in range(8)]
    ends = [w.process.wait(timeout=120) for w in workers]  # 0: one that found nothing left to claim
    assert set(ends) <= {0, 67} and 67 in ends, ends
    total = spent("out")
    assert 18 < total <= 20, total
    assert sum(a["rows"] for a in attempts("out")) < 3000
    run("out", options=["--budget-usd", 500, "--prices", "prices.yaml"])
    same_outcome("plain", "out", "after the budget was raised")


@test
def a_killed_worker_takes_no_budget_with_it():
    path = rows(600, tokens=20)
    w = Worker("a", "out", path, engine="fake:batch=8,rate=3000", options=["--budget-usd", 14, "--prices", prices(), "--publish-seconds", "0.1"], host=None)
    wait_for(has_segments("out"), "a first segment")
    w.kill()
    w.process.wait()
    run("out", options=["--budget-usd", 40, "--prices", "prices.yaml"])
    assert spent("out") < 15


@test
def a_budget_by_time():
    """3,600 an hour: one for each second."""
    path = rows(3000, tokens=20)
    began = time.monotonic()
    run("out", path, engine="fake:batch=8,rate=3000", options=["--budget-usd", 3, "--budget-by", "time", "--node-type", "small", "--prices", prices()], expect=67)
    assert 2 < time.monotonic() - began < 6
    run("other", path, options=["--budget-usd", 3], expect=1)
    run("other", path, options=["--budget-usd", 3, "--prices", "prices.yaml", "--budget-by", "time"], expect=1)


@test
def a_deadline_stops_in_time():
    """Rows of a second each; and one that would take minutes is stopped with its tokens."""
    path = rows(200, tokens=200)
    run("plain", path)
    began = time.monotonic()
    log = run("out", path, engine="fake:batch=4,rate=800", options=["--deadline", "3s", "--publish-seconds", "0.5"], expect=67)
    assert 1 < time.monotonic() - began < 4, log
    assert "deadline is reached" in log, log
    began = time.monotonic()
    run("out", engine="fake:batch=4,rate=20", options=["--deadline", "2s"], expect=67)
    assert 1.5 < time.monotonic() - began < 4
    run("out", options=["--deadline", "2001-01-01"], expect=67)
    run("out", options=["--deadline", "soon"], expect=1)
    run("out", options=["--deadline", "1h"])
    same_outcome("plain", "out", "after deadlines")


if __name__ == "__main__":
    main()
