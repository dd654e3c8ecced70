#!/usr/bin/env python3
"""What `tokenmill status` says of jobs in every state, beside counts made with Python's sqlite3 out of the same files."""
import glob
import json
import os
import signal
import sqlite3
import subprocess
import time

from e2e import PROGRAM, main, test, tokenmill, write_rows
from s3_servers import start_moto


def status(place, *options, expect=0, env=None):
    r = subprocess.run([PROGRAM, "status", *options, place], stdin=subprocess.DEVNULL, capture_output=True, timeout=120, env=env)
    err = r.stderr.decode()
    assert r.returncode == expect and "Sanitizer" not in err and "runtime error" not in err, f"status {place}: {r.returncode}: {err[-2000:]}"
    return r.stdout.decode() if expect == 0 else err


def status_json(place, env=None):
    s = json.loads(status(place, "--format", "json", env=env))
    if s["state"] != "planning":
        assert s["rows"]["total"] == s["rows"]["at_fault"] + s["rows"]["folded"] + s["rows"]["to_run"], s
        assert s["rows"]["to_run"] == s["rows"]["done"] + s["rows"]["left"], s
        assert s["shards"]["total"] == sum(s["shards"][k] for k in ("done", "held", "orphaned", "unclaimed")), s
    return s


def newest(place):
    """job.json of the newest plan."""
    return json.load(open(sorted(glob.glob(f"{place}/job-*.json"))[-1] if glob.glob(f"{place}/job-*.json") else f"{place}/job.json", encoding="utf-8"))


def counted(place):
    """(done, failed, shards done), out of the segments alone: of a finished shard those that its mark names."""
    done = failed = shards = 0
    for directory in glob.glob(f"{place}/{newest(place)['base']}shards/*"):
        segments = sorted(os.path.basename(p) for p in glob.glob(f"{directory}/seg-*.db"))
        if os.path.exists(f"{directory}/done"):
            shards += 1
            segments = json.load(open(f"{directory}/done"))["segments"]
        rows = {}
        for name in segments:
            with sqlite3.connect(f"file:{os.path.abspath(directory)}/{name}?immutable=1", uri=True) as db:
                for row, is_error in db.execute("SELECT row, is_error FROM result"):
                    rows.setdefault(row, is_error)
        done += len(rows)
        failed += sum(rows.values())
    return done, failed, shards


def agrees(place):
    s = status_json(place)
    assert (s["rows"]["done"], s["rows"]["failed"], s["shards"]["done"]) == counted(place), (s, counted(place))
    assert s["rows"]["failed_is_exact"] is True
    job = newest(place)
    assert (s["rows"]["total"], s["rows"]["at_fault"], s["shards"]["total"]) == (job["rows"], job["bad_rows"], len(job["shards"])), s
    told = [json.load(open(p, encoding="utf-8")) for p in glob.glob(f"{place}/events/*.json")]
    assert len(told) == len(s["workers"])
    for name in ("prompt", "cached", "output", "reasoning", "recomputed"):
        assert s["tokens"][name] == sum(a[f"{name}_tokens"] for a in told), name
    return s


def dataset(n=600, bad=3, first=0):
    """n good rows and some at fault."""
    rows = [{"custom_id": f"r{i}", "prompt": f"Row number {i}", "max_tokens": 40} for i in range(first, first + n)]
    return write_rows("rows.jsonl", rows + [{"custom_id": f"bad{i}", "prompt": "x", "max_tokens": -1} for i in range(bad)])


def start(place, engine="fake:tokens=5-30,rate=3000,batch=8,fail=0.05", options=(), env=None):
    return subprocess.Popen([PROGRAM, "run", "--engine", engine, "-o", place, "--publish-seconds", "0.1", *options, "rows.jsonl"], stdin=subprocess.DEVNULL,
                            stderr=open("log", "ab"), env={**os.environ, **(env or {})})


def wait_for(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}: {open('log', encoding='utf-8', errors='replace').read()[-2000:]}"
        time.sleep(0.05)


def some_done(place):
    return bool(glob.glob(f"{place}/shards/*/seg-*.db"))


@test
def no_job():
    os.mkdir("empty")
    for place in ("empty", "./nowhere"):
        assert f"{place} is not a job" in status(place, expect=1)
    assert os.listdir("empty") == [] and not os.path.exists("nowhere")
    assert "give one job" in status("empty", "nowhere", expect=1)
    # A planner of another host, and one that died.
    os.mkdir("planning")
    claim = {"worker": 2, "attempt": "a", "job_uid": "", "host": "far", "boot": "b", "pid_namespace": "p", "pid": 12, "process_start": 1, "handle": "01", "time_ms": 1}
    json.dump(claim, open("planning/plan-claim-0001", "w"))
    s = status_json("planning")
    assert s == {"job": "planning", "state": "planning", "planner": {"worker": 2, "host": "far", "pid": 12, "gone": False}}, s
    assert "process 12 on far" in status("planning")


@test
def planned_only_and_not_to_be_written():
    dataset()
    tokenmill("plan", "--engine", "fake", "--job", "job", "--shards", "7", "rows.jsonl")
    before = sorted(os.walk("job"))
    subprocess.run(["chmod", "-R", "a-w", "job"], check=True)
    s = agrees("job")
    assert s["state"] == "planned" and s["rows"] == {"total": 603, "at_fault": 3, "folded": 0, "to_run": 600, "done": 0, "failed": 0,
                                                     "failed_is_exact": True, "left": 600}, s
    assert s["shards"]["unclaimed"] == 7 and s["workers"] == [] and s["left_s"] is None and s["merged"] == "no" and s["budget"] is None
    text = status("job")
    assert "603: 0 done, 600 left, 3 at fault" in text and text.rstrip().splitlines()[-1] == "next    `tokenmill run --job job` goes on", text
    subprocess.run(["chmod", "-R", "u+w", "job"], check=True)
    assert sorted(os.walk("job")) == before


@test
def live_then_killed_then_merged():
    dataset()
    worker = start("job", options=["--shards", "6"])
    wait_for(lambda: some_done("job"), "rows")
    s = status_json("job")
    assert s["state"] == "running" and s["shards"]["held"] >= 1 and 0 < s["rows"]["done"] < 600, s
    assert [w["state"] for w in s["workers"]] == ["running"] and s["workers"][0]["pid"] == worker.pid and s["workers"][0]["shards_held"] == s["shards"]["held"]
    assert "1 worker is at it" in status("job")
    seen = s["rows"]["done"]
    for _ in range(20):  # beside a worker that publishes and compacts
        s = status_json("job")
        assert s["rows"]["done"] >= seen, (s, seen)
        seen = s["rows"]["done"]
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    s = agrees("job")
    assert s["state"] == "stopped" and s["shards"]["held"] == 0 and s["shards"]["orphaned"] >= 1 and s["workers"][0]["state"] == "gone", s
    assert s["next"] == "`tokenmill run --job job` goes on"
    tokenmill("run", "-o", "job", "--quiet")
    s = agrees("job")
    assert s["state"] == s["merged"].replace("complete", "merged") and s["rows"]["left"] == 0 and s["rows"]["failed"] > 5 and s["left_s"] == 0, s
    assert sorted(w["state"] for w in s["workers"]) == ["ended", "gone"]
    assert s["next"].startswith(f"{s['rows']['failed']} rows failed: `tokenmill retry-failed job`"), s["next"]
    tokenmill("retry-failed", "job")
    t = agrees("job")
    assert t["plan"] == 2 and t["merged"] == "older_plan" and t["rows"]["left"] == s["rows"]["failed"] and t["rows"]["failed"] == 0, t


@test
def drained_and_merged_in_part():
    dataset()
    worker = start("job", options=["--shards", "6"])
    wait_for(lambda: some_done("job"), "rows")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 143
    s = agrees("job")
    assert s["state"] == "stopped" and s["shards"]["orphaned"] >= 1 and s["workers"][0]["end_code"] == "drained", s
    assert "drained" in status("job")
    tokenmill("merge", "--partial", "job")
    assert agrees("job")["merged"] == "partial"
    tokenmill("merge", "--close", "batch_cancelled", "job")
    assert agrees("job")["merged"] == "closed"


@test
def another_host():
    dataset()
    worker = start("job", options=["--shards", "6"], env={"TOKENMILL_HOST": "far"})
    wait_for(lambda: some_done("job"), "rows")
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    s = agrees("job")  # nobody can know
    assert s["state"] == "running" and s["shards"]["held"] >= 1 and s["workers"][0]["host"] == "far", s
    path = glob.glob("job/events/*.json")[0]
    event = json.load(open(path))
    event["updated_unix_ms"] -= 3600 * 1000
    json.dump(event, open(path, "w"))
    s = agrees("job")
    assert s["state"] == "silent" and s["shards"]["held_silent"] == s["shards"]["held"] and 3600 <= s["workers"][0]["heartbeat_age_s"] < 3900, s
    open(path, "w").write("torn")
    s = status_json("job")
    assert s["unreadable_heartbeats"] == 1 and s["workers"] == []


@test
def ended_by_a_budget():
    dataset()
    with open("prices.yaml", "w") as f:
        f.write("currency: USD\nmodels:\n- {model: \"*\", input: 1, output: 100}\n")
    worker = start("job", engine="fake:tokens=5-30,batch=8", options=["--shards", "6", "--budget-usd", "0.3", "--prices", "prices.yaml"])
    assert worker.wait(60) == 67, open("log").read()
    s = agrees("job")
    in_flight = 8 * 40 * 100e-6  # what eight rows may cost above their estimate
    assert 0.2 < s["budget"]["spent_usd"] <= s["budget"]["ceiling_usd"] <= 0.3 + in_flight and s["workers"][0]["end_code"] == "budget", s
    assert "--budget-usd" in s["next"] and 0 < s["rows"]["left"], s


@test
def in_object_storage():
    with start_moto() as server:
        server.create_bucket("jobs")
        env = {**{k: v for k, v in os.environ.items() if not k.startswith("AWS_")}, **server.env}
        dataset(200)
        assert "is not a job" in status("s3://jobs/job", expect=1, env=env)
        worker = start("s3://jobs/job", options=["--shards", "3"], engine="fake:tokens=5-30,rate=1500,batch=8,fail=0.05", env=server.env)
        wait_for(lambda: any("/seg-" in k for k in server.keys("jobs", "job/")), "rows")
        s = status_json("s3://jobs/job", env=env)
        assert s["state"] == "running" and s["rows"]["total"] == 203 and s["rows"]["done"] > 0, s
        assert worker.wait(120) == 0
        before = server.keys("jobs")
        s = status_json("s3://jobs/job", env=env)
        usage = json.loads(server.request("GET", "/jobs/job/merged/usage.json")[2])
        assert s["state"] == "merged" and s["rows"]["done"] == 200 and s["rows"]["failed"] == usage["rows"]["failed"] - 3, (s, usage)
        assert server.keys("jobs") == before


if __name__ == "__main__":
    main()
