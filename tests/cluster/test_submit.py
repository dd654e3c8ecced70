#!/usr/bin/env python3
"""Jobs by `tokenmill submit` on the real Kubernetes of test_lifecycle.py: from submit to fetched results, what one does with a job while it runs, and the
line that says what is wrong. Where it runs, and when: as test_lifecycle.py."""
import json
import os
import re
import subprocess
import sys
import threading
import time

import test_lifecycle as lifecycle
from test_lifecycle import Unavailable, e2e, full, main, run, same_outcome, test, tokenmill, wait_until, write_rows

cluster = None
NOT_OURS = len(e2e.tests)
IMAGE = ["--image", "localhost/tokenmill:lab", "--image-pull-policy", "IfNotPresent", "-n", lifecycle.NAMESPACE]


def tm(*args, expect=0, timeout=300):
    r = subprocess.run([e2e.PROGRAM, *args, "--kubeconfig", cluster.lab.kubeconfig], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    assert r.returncode == expect, f"{args}: exit status {r.returncode}\n{r.stdout}\n{r.stderr}"
    return r.stdout, r.stderr


def on(command, name, *args, **options):
    return tm(command, name, *args, "-n", lifecycle.NAMESPACE, **options)


def submit(name, rows, *options, workers=2, engine="fake:tokens=20,rate=1500", expect=0):
    path = write_rows(f"{cluster.jobs}/inbox/{name}.jsonl", rows)
    return path, tm("submit", f"inbox/{name}.jsonl", "--on-volume", "--name", name, "--workers", str(workers), "--engine", engine, "--publish-seconds", "0.5",
                    *IMAGE, *options, expect=expect)


def slow_rows(n):
    return [{"custom_id": f"r{i}", "prompt": f"row {i}", "max_tokens": 20} for i in range(n)]


def check_results(name, rows):
    tokenmill("verify", f"{cluster.jobs}/{name}")
    on("fetch", name, "-o", "fetched", "--jobs-dir", cluster.jobs)
    tokenmill("run", "-o", "here", "--engine", "fake:tokens=20", rows)
    same_outcome("here", "fetched", "pods and this machine")


def status(name):
    return json.loads(on("status", name, "--format", "json")[0])


def troubles(name, pattern, seconds=60):
    """The first trouble that fits, once there is one."""
    return wait_until(f"a trouble of {name} like {pattern}", seconds, lambda: next((t for t in status(name)["troubles"] if re.search(pattern, t)), None), pause=1)


@test
def from_submit_to_fetched_results():
    started = time.monotonic()
    rows, (name, log) = submit("sub-1", slow_rows(1000), "--wait")
    print(f"   1,000 rows, two workers: submitted, Complete and told after {time.monotonic() - started:.1f} s")
    assert name == "sub-1\n" and "is complete" in log and "Warning" not in log, log
    check_results("sub-1", rows)
    assert "with the same content: Complete" in submit("sub-1", slow_rows(1000))[1][1]
    assert "workers 2, asked for is 3" in submit("sub-1", slow_rows(1000), workers=3, expect=1)[1][1]
    log = on("logs", "sub-1")[0]
    assert "0| " in log and "1| " in log and "rows ok" in log, log
    assert "Complete" in tm("jobs", "-n", lifecycle.NAMESPACE)[0]
    for p in cluster.pods("sub-1"):
        assert not any("projected" in v for v in p["spec"]["volumes"]), "a token is mounted"
    on("delete", "sub-1")
    assert os.path.exists(f"{cluster.jobs}/sub-1/results.jsonl")


@test
def the_server_checks_what_is_asked_for():
    for options in ([], ["--gpu", "8", "--memory", "1Gi", "--toleration", "a=b:NoSchedule", "--queue", "q", "--min-workers", "1", "--volume", "c:/data:ro", "--priority-class",
                         "system-node-critical", "--tag", "a=b", "--secret", "s"]):
        text, log = submit("dry", slow_rows(1), "--dry-run=server", *options)[1]
        job = json.loads(text)
        assert job["spec"]["podFailurePolicy"]["rules"][2]["action"] == "FailJob" and not log, log
    log = submit("dry", slow_rows(1), "--set", "spec.template.spec.containerz=1", "--dry-run=server", expect=1)[1][1]
    assert 'unknown field "spec.template.spec.containerz"' in log and log.count("\n") == 1, log
    log = submit("dry", slow_rows(1), "--set", "spec.completions=-1", expect=1)[1][1]
    assert "spec.completions" in log and "(422 Invalid)" in log and log.count("\n") == 1, log


@test
def what_keeps_pods_from_running_is_told():
    submit("no-image", slow_rows(1), "--image", "localhost/no-such-image:1")
    assert "-> check --image" in troubles("no-image", "ImagePull|ErrImage")
    submit("no-claim", slow_rows(1), "--jobs-claim", "nowhere")
    assert "-> make the PersistentVolumeClaim" in troubles("no-claim", "persistentvolumeclaim .nowhere. not found")
    submit("no-room", slow_rows(1), "--gpu", "4")
    assert "-> no node has room" in troubles("no-room", "Insufficient nvidia.com/gpu")
    submit("not-allowed", slow_rows(1), "--set", "spec.template.spec.hostNetwork=true")
    assert "-> the namespace forbids such pods" in troubles("not-allowed", "violates PodSecurity")
    submit("no-input", slow_rows(1), "--set", "spec.template.spec.containers[worker].args[-]=/jobs/inbox/nothing.jsonl")
    log = on("watch", "no-input", expect=1)[1]
    assert "PodFailurePolicy" in log and "exit status 64" in log and "nothing.jsonl" in log, log
    for name in ("no-image", "no-claim", "no-room", "not-allowed", "no-input"):
        on("delete", name)


@test
def a_quota_is_told():
    cluster.kubectl("create", "quota", "few", "--hard=pods=1")
    try:
        submit("quota", slow_rows(1000))
        assert "-> the namespace's quota" in troubles("quota", "exceeded quota")
    finally:
        cluster.kubectl("delete", "quota", "few")
        on("delete", "quota")


@full
def scaled_suspended_resumed():
    rows, _ = submit("moves", slow_rows(12000), workers=3)
    cluster.running("moves")
    on("scale", "moves", "4")
    cluster.running("moves", 4)
    on("scale", "moves", "1")  # also maxFailedIndexes follows
    wait_until("one pod", 90, lambda: len([p for p in cluster.pods("moves") if p["status"]["phase"] == "Running"]) == 1)
    on("suspend", "moves")
    wait_until("no pods", 90, lambda: not cluster.pods("moves"))
    assert status("moves")["state"] == "Suspended" and not os.path.exists(f"{cluster.jobs}/moves/results.jsonl")
    on("resume", "moves")
    on("watch", "moves")
    check_results("moves", rows)
    on("delete", "moves")


@full
def cancelled_and_gone_on_with():
    rows, _ = submit("ends", slow_rows(6000))
    cluster.running("ends")
    on("cancel", "ends")
    assert "was cancelled" in on("watch", "ends", expect=1)[1]
    wait_until("no running pods", 90, lambda: not [p for p in cluster.pods("ends") if p["status"]["phase"] == "Running"])
    on("delete", "ends")
    wait_until("no job", 60, lambda: "there is no job" in subprocess.run([e2e.PROGRAM, "status", "ends", "-n", lifecycle.NAMESPACE, "--kubeconfig", cluster.lab.kubeconfig],
                                                                       capture_output=True, text=True).stderr)
    submit("ends", slow_rows(6000), "--wait")
    check_results("ends", rows)
    on("delete", "ends")


@full
def the_api_server_restarts_in_the_middle_of_a_watch():
    rows, _ = submit("restart", slow_rows(8000))
    cluster.running("restart")
    result = {}
    watching = threading.Thread(target=lambda: result.update(log=on("watch", "restart")[1]))
    watching.start()
    time.sleep(2)
    cluster.lab.crash("apiserver")
    time.sleep(3)
    cluster.lab.start_control()
    watching.join(200)
    assert "is complete" in result["log"], result
    check_results("restart", rows)
    on("delete", "restart")


def run_all():
    global cluster
    del e2e.tests[:NOT_OURS]
    try:
        cluster = lifecycle.cluster = lifecycle.Cluster()
    except Unavailable as e:
        print(f"skip test_submit: {e}")
        return
    try:
        try:
            cluster.open()
        except Unavailable as e:
            print(f"skip test_submit: {e}")
            return
        main()
    finally:
        cluster.close()


if __name__ == "__main__":
    run_all()
