#!/usr/bin/env python3
"""submit and what follows it, against a small API server that fails on order (tests/rigs/fake_kube.py). What pods really do is another test's matter."""
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "rigs"))
from e2e import PROGRAM, ROOT, SEED, Skip, main, read_bytes, read_records, same_outcome, test, tokenmill  # noqa: E402
from fake_kube import Server  # noqa: E402

SUBMIT = ["submit", "in/a.jsonl", "--on-volume", "--model", "Qwen3-8B.gguf", "--workers", "4", "--name", "night"]
JOB = "/apis/batch/v1/namespaces/default/jobs"


def config(server, user=None, **cluster):
    """A kubeconfig for the server, as KUBECONFIG."""
    with open("kubeconfig", "w") as f:
        json.dump({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                   "clusters": [{"name": "k", "cluster": {"server": server.url, **cluster}}],
                   "users": [{"name": "u", "user": {"token": "secret"} if user is None else user}]}, f)
    os.environ["KUBECONFIG"] = os.path.abspath("kubeconfig")


def start(**options):
    s = Server(**options)
    config(s)
    return s


def out(*args, expect=0):
    r = subprocess.run([PROGRAM, *args], capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    assert r.returncode == expect, (args, r)
    assert b"Sanitizer" not in r.stderr, r.stderr
    return r.stdout.decode(), r.stderr.decode()


def pod(server, name, index, job="night", status=None, phase="Running"):
    uid = server.get("jobs", job)["metadata"]["uid"]
    return server.put("pods", {"kind": "Pod", "metadata": {"name": name, "labels": {"batch.kubernetes.io/controller-uid": uid},
                                                           "annotations": {"batch.kubernetes.io/job-completion-index": str(index)}},
                               "status": {"phase": phase, **(status or {})}})


@test
def submitting_twice_changes_nothing():
    s = start()
    name, log = out(*SUBMIT)
    assert name == "night\n" and "policy says hm" in log, log
    method, path, query, headers, body = s.asked("POST", JOB)[0]
    assert query == {"fieldManager": "tokenmill", "fieldValidation": "Strict"}, query
    assert headers["Authorization"] == "Bearer secret" and headers["Content-Type"] == "application/json"
    assert body["spec"]["completions"] == body["spec"]["parallelism"] == 4
    name, log = out(*SUBMIT)
    assert name == "night\n" and "there already, with the same content: Pending" in log, log
    name, log = out(*SUBMIT, "--cpu", "2", "--seed=7", expect=1)
    assert not name and "other content: cpu none, asked for is 2; run none, asked for is [\"--seed=7\"]" in log, log
    # Without a name the content makes one: other content is another job.
    a, b = out(*SUBMIT[:-2])[0], out(*SUBMIT[:-2], "--seed", "7")[0]
    assert a != b and a == out(*SUBMIT[:-2])[0] and a.startswith("qwen3-8b-"), (a, b)
    # A Job of somebody else under our name.
    s.put("jobs", {"kind": "Job", "metadata": {"name": "theirs"}, "spec": {}})
    assert "it was not made by tokenmill submit" in out(*SUBMIT[:-1], "theirs", expect=1)[1]
    assert "is not one of tokenmill's" in out("delete", "theirs", expect=1)[1]
    s.close()


@test
def what_may_pass_is_tried_again():
    s = start()
    for what in (429, 500, 503, "reset", "lost"):
        s.objects.clear()
        s.requests.clear()
        s.faults = [["POST", "jobs", 2, what]]
        name, log = out(*SUBMIT)
        # A lost reply: it was done the first time, and what is there is ours.
        assert name == "night\n" and (what != "lost" or "there already, with the same content" in log), (what, log)
        assert len(s.asked("POST", "jobs")) >= (2 if what == "lost" else 3), what
    s.faults = [["DELETE", "jobs", 1, "lost"]]
    out("delete", "night")
    assert not [k for k in s.objects if k[0] == "jobs"] and len(s.asked("DELETE", "jobs")) == 2
    s.close()
    t = time.monotonic()
    log = out("jobs", expect=1)[1]
    assert "does not answer" in log and "context 'c' of" in log and time.monotonic() - t < 12, log


@test
def refusals_are_told():
    s = start()
    s.forbidden = ("create", "jobs")
    log = out(*SUBMIT, expect=1)[1]
    assert log.count("\n") == 1 and 'cannot create jobs in namespace \'default\': jobs is forbidden: User "jane" cannot create resource "jobs"' in log and "(403 Forbidden)" in log, log
    s.forbidden = None
    log = out(*SUBMIT, "--set", "spec.unknownField=1", expect=1)[1]
    assert "strict decoding error; spec.unknownField: unknown field (422 Invalid)" in log, log
    s.token = "other"
    assert "does not accept the credentials of context 'c'" in out("jobs", expect=1)[1]
    s.token = "secret"
    out(*SUBMIT)
    assert "there is no job 'nigth' in namespace 'default' (there are: night)" in out("status", "nigth", expect=1)[1]
    for args, message in ((["submit", "a.jsonl", "--model", "m"], "--on-volume"), (["submit", "s3://b/a", "--model", "m"], "tokenmill plan --job s3://"),
                          ([*SUBMIT, "--seed", "x"], "--seed must be an integer"), ([*SUBMIT, "--deadline", "2h"], "point in time"),
                          ([*SUBMIT, "--set", "spec"], "PATH=VALUE"), ([*SUBMIT, "--label", "x"], "NAME=VALUE"), (["scale", "night", "0"], "tokenmill suspend"),
                          ([*SUBMIT, "--kube-context", "d"], "there is no context 'd' (there are: c)")):
        assert message in out(*args, expect=1)[1], args
    s.close()


@test
def dry_runs():
    s = start()
    text, _ = out(*SUBMIT, "--dry-run=client")
    assert json.loads(text)["kind"] == "Job" and not s.requests
    text, _ = out(*SUBMIT, "--dry-run=server")
    assert json.loads(text)["metadata"]["name"] == "night" and s.asked("POST", JOB)[0][2]["dryRun"] == "All" and not s.objects
    s.close()


@test
def manifests_are_valid():
    if not shutil.which("kubernetes-validate"):
        raise Skip("kubernetes-validate is not installed")
    with open("pod.yaml", "w") as f:
        f.write("spec: {containers: [{name: worker, env: [{name: A, value: '1'}]}, {name: side, image: x}], nodeName: n}\n")
    for i, options in enumerate(([], ["--gpu", "8", "--memory", "64Gi", "--cpu", "500m", "--queue", "q", "--min-workers", "2", "--volume", "c:/data:ro", "--secret", "s",
                                      "--toleration", "a=b:NoSchedule", "--toleration", "c", "--node-selector", "d=e", "--tag", "t=u", "--image-pull-secret", "r",
                                      "--priority-class", "low", "--node-type", "h100", "--suspend", "--env", "X=y", "--label", "f=g", "--annotation", "h=i"],
                                  ["--pod-template", "pod.yaml", "--set", "spec.ttlSecondsAfterFinished=null", "--set", "spec.template.spec.containers[side].args[-]=5x"])):
        with open(f"{i}.json", "w") as f:
            f.write(out(*SUBMIT, *options, "--dry-run=client")[0])
        r = subprocess.run(["kubernetes-validate", "--strict", f"{i}.json"], capture_output=True, text=True)
        assert r.returncode == 0, r


@test
def waiting_for_the_end():
    s = start()
    waiting = subprocess.Popen([PROGRAM, *SUBMIT, "--wait"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while ("jobs", "default", "night") not in s.objects:
        time.sleep(0.05)
    s.watch_limit = 1.0  # watches break off midway
    time.sleep(1.5)
    s.change("jobs", "night", {"status": {"ready": 4}})
    time.sleep(1)
    s.forget()           # and cannot go on from where they were
    time.sleep(1)
    s.faults = [["GET", "jobs$", 3, "reset"], ["GET", "jobs$", 2, 500]]
    s.change("jobs", "night", {"status": {"ready": 3, "succeeded": 1}})
    time.sleep(1)
    s.change("jobs", "night", {"status": {"conditions": [{"type": "Complete", "status": "True"}]}})
    _, log = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, log
    assert "Running, 4 of 4 workers run" in log and "is complete" in log, log
    versions = [r[2]["resourceVersion"] for r in s.requests if r[2].get("watch")]
    assert len(versions) > 2 and versions == sorted(versions, key=int), versions
    s.change("jobs", "night", {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit code 66 of pod night-1"}]}})
    pod(s, "night-1-x", 1, phase="Failed", status={"containerStatuses": [{"state": {"terminated": {
        "exitCode": 66, "reason": "Error", "message": json.dumps({"exit_code": 66, "message": "/models/x.gguf: no such file"})}}}]})
    s.change("jobs", "night", {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit code 66 of pod night-1"}]}})
    log = out("watch", "night", expect=1)[1]
    assert "job 'night' failed: PodFailurePolicy: exit code 66" in log and "night-1-x: exit status 66: /models/x.gguf: no such file" in log, log
    log = out("watch", "nobody", expect=1)[1]
    assert "there is no job 'nobody'" in log, log
    s.close()


@test
def a_watched_job_is_deleted():
    s = start()
    out(*SUBMIT)
    timer = threading.Timer(1, lambda: out("delete", "night"))
    timer.start()
    assert "job 'night' was deleted" in out("watch", "night", expect=1)[1]
    timer.join()
    s.close()


@test
def troubles_say_what_to_do():
    s = start()
    out(*SUBMIT)
    waiting = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\""}}}]}
    for i in range(3):
        pod(s, f"night-{i}-a", i, phase="Pending", status=waiting)
    text, _ = out("status", "night")
    assert text.count("ImagePullBackOff") == 1 and "and 2 more" in text and "-> check --image" in text, text
    pod(s, "night-3-a", 3, phase="Pending",
        status={"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "persistentvolumeclaim \"tokenmill-jobs\" not found"}]})
    assert "make the PersistentVolumeClaim" in out("status", "night")[0]
    pod(s, "night-0-a", 0, phase="Failed", status={"containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]})
    assert "exit status 137, OOMKilled -> give it more --memory" in out("status", "night")[0]
    # No pod can be made at all: events tell, of this job and of no other.
    s.objects = {k: v for k, v in s.objects.items() if k[0] != "pods"}
    for job, text in (("night", "exceeded quota: q, requested: pods=1"), ("nightly", "exceeded quota: other")):
        s.put("events", {"kind": "Event", "type": "Warning", "reason": "FailedCreate", "message": text, "involvedObject": {"name": job}, "metadata": {"name": f"e-{job}"}})
    status = json.loads(out("status", "night", "--format", "json")[0])
    assert len(status["troubles"]) == 1 and "exceeded quota: q" in status["troubles"][0] and "tokenmill scale" in status["troubles"][0], status
    assert status["state"] == "Pending" and status["place"] == "/jobs/night"
    s.forbidden = ("list", "events")
    assert not json.loads(out("status", "night", "--format", "json")[0])["troubles"]
    s.close()


@test
def lists_have_pages():
    s = start()
    for i in range(7):
        out(*SUBMIT[:-1], f"job-{i}")
    text, _ = out("jobs")
    assert [line.split()[0] for line in text.splitlines()[1:]] == [f"job-{i}" for i in range(7)], text
    assert [json.loads(line)["name"] for line in out("jobs", "--format", "json", "-A")[0].splitlines()] == [f"job-{i}" for i in range(7)]
    assert len(s.asked("GET", "jobs$")) == 8, "four pages of two for each list"
    s.close()


@test
def control():
    s = start()
    out(*SUBMIT)
    out("scale", "night", "1")
    assert s.get("jobs", "night")["spec"]["completions"] == s.get("jobs", "night")["spec"]["parallelism"] == s.get("jobs", "night")["spec"]["maxFailedIndexes"] == 1
    out("suspend", "night")
    assert json.loads(out("status", "night", "--format", "json")[0])["state"] == "Suspended"
    out("resume", "night")
    assert s.get("jobs", "night")["spec"]["suspend"] is False
    assert s.requests[-1][3]["Content-Type"] == "application/merge-patch+json"
    out("cancel", "night")
    assert s.get("jobs", "night")["spec"]["activeDeadlineSeconds"] == 1 and "Cancelled" in out("jobs")[0]
    assert "cannot be resumed: it is Cancelled" in out("resume", "night", expect=1)[1]
    out("cancel", "night")
    out("delete", "night")
    assert s.requests[-1][4]["preconditions"]["uid"] and not s.objects
    s.close()


@test
def logs():
    s = start()
    out(*SUBMIT)
    pod(s, "night-0-a", 0)
    pod(s, "night-1-a", 1)
    pod(s, "night-1-b", 1)
    pod(s, "night-2-a", 2, phase="Pending")
    s.logs = {"night-0-a": b"zero\nhalf", "night-1-a": b"old\n", "night-1-b": [b"ne", b"w\n"]}
    assert out("logs", "night", "--worker", "1")[0] == "new\n"
    assert out("logs", "night")[0].replace("\n", "") == "0| zero0| half1| old1| new", out("logs", "night")[0]
    assert "ContainerCreating" in out("logs", "night", "-w", "2", expect=1)[1]
    assert "no pod of worker 3" in out("logs", "night", "-w", "3", expect=1)[1]
    # -f goes on with the pod that takes its place, until the job has ended.
    s.logs["night-0-a"] = [b"one\n", 1.0, b"two\n"]
    following = subprocess.Popen([PROGRAM, "logs", "night", "-f"], stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    s.logs["night-0-b"] = b"three\n"
    later = s.get("pods", "night-0-a")
    later["metadata"].update(name="night-0-b", creationTimestamp="2026-02-01T00:00:00Z")
    time.sleep(2)
    s.put("pods", later)
    time.sleep(2)
    s.change("jobs", "night", {"status": {"conditions": [{"type": "Complete", "status": "True"}]}})
    assert following.communicate(timeout=30)[0] == "one\ntwo\nthree\n"
    s.close()


@test
def tokens_change():
    s = start()
    with open("token", "w") as f:
        f.write("secret\n")
    config(s, {"tokenFile": "token"})
    out(*SUBMIT)
    watching = subprocess.Popen([PROGRAM, "watch", "night"], stderr=subprocess.PIPE, text=True)
    time.sleep(1)
    s.watch_limit = 0.5
    with open("token.new", "w") as f:
        f.write("fresh")
    s.token = "fresh"
    os.rename("token.new", "token")
    time.sleep(12)
    s.change("jobs", "night", {"status": {"conditions": [{"type": "Complete", "status": "True"}]}})
    assert "is complete" in watching.communicate(timeout=60)[1] and watching.returncode == 0
    # A plugin whose token is refused is asked once more; one that is refused again is told.
    with open("plugin.sh", "w") as f:
        f.write('#!/bin/sh\necho x >> calls\necho "{\\"kind\\":\\"ExecCredential\\",\\"apiVersion\\":\\"client.authentication.k8s.io/v1\\",'
                '\\"status\\":{\\"token\\":\\"$(cat token)\\"}}"\n')
    os.chmod("plugin.sh", 0o755)
    config(s, {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin.sh", "interactiveMode": "Never"}})
    out("jobs")
    assert len(read_bytes("calls").split()) == 1
    s.token = "other"
    assert "does not accept the credentials" in out("jobs", expect=1)[1]
    assert len(read_bytes("calls").split()) == 3
    s.close()


@test
def certificates():
    if not shutil.which("openssl"):
        raise Skip("openssl is not installed")

    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=ca")
    for name, ext in (("server", "subjectAltName=DNS:kubernetes"), ("client", "extendedKeyUsage=clientAuth")):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        with open("ext", "w") as f:
            f.write(ext)
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.crt", "-days", "2", "-extfile", "ext")
    s = Server(token=None, tls={"cert": "server.crt", "key": "server.key", "client_ca": "ca.crt"})
    user = {"client-certificate": "client.crt", "client-key": "client.key"}
    config(s, user, **{"certificate-authority": "ca.crt", "tls-server-name": "kubernetes"})
    out("jobs")
    assert s.requests[-1][3]["Host"] == f"127.0.0.1:{s.port}"
    import base64

    def b64(path):
        return base64.b64encode(read_bytes(path)).decode()

    config(s, {"client-certificate-data": b64("client.crt"), "client-key-data": b64("client.key")},
           **{"certificate-authority-data": b64("ca.crt"), "tls-server-name": "kubernetes"})
    out("jobs")
    config(s, user, **{"insecure-skip-tls-verify": True})
    out("jobs")
    config(s, user, **{"certificate-authority": "ca.crt"})  # the certificate is for another name
    assert "127.0.0.1" in out("jobs", expect=1)[1]
    config(s, user, **{"tls-server-name": "kubernetes"})    # and of nobody that the system knows
    assert "certificate" in out("jobs", expect=1)[1]
    config(s, {}, **{"certificate-authority": "ca.crt", "tls-server-name": "kubernetes"})  # we show none
    out("jobs", expect=1)
    s.close()


def fake_rows(n):
    subprocess.run([sys.executable, os.path.join(ROOT, "scripts/make-rows.py"), str(n), "--seed", str(SEED)], stdout=open("rows.jsonl", "w"), check=True)


def children(pid):
    return [int(p) for p in read_bytes(f"/proc/{pid}/task/{pid}/children").split()]


@test
def local_workers_are_supervised():
    fake_rows(3000)
    tokenmill("run", "--engine", "fake", "-o", "alone", "rows.jsonl")
    args = [PROGRAM, "submit", "--local", "--workers", "3", "--engine", "fake:rate=20000", "--job", "together", "--publish-seconds", "0.2", "rows.jsonl"]
    p = subprocess.Popen(args, stderr=subprocess.PIPE, text=True)
    while len(children(p.pid)) < 3:
        time.sleep(0.05)
    time.sleep(1.5)
    killed = children(p.pid)[1]
    os.kill(killed, signal.SIGKILL)
    time.sleep(1)
    p.send_signal(signal.SIGTERM)  # a drain of all, and no worker is left behind
    log = p.communicate(timeout=60)[1]
    assert p.returncode == 143 and "was ended by signal 9: it is started again in 1.0 s" in log, (p.returncode, log[-3000:])
    assert not os.path.exists("together/results.jsonl")
    p = subprocess.Popen(args, stderr=subprocess.PIPE, text=True)
    log = p.communicate(timeout=120)[1]
    assert p.returncode == 0, log[-3000:]
    same_outcome("alone", "together", "three workers, one killed, all drained")
    assert "merged" in out("status", "together/")[0]
    # What no worker can do better stops all of them, with its exit status.
    with open("bad.jsonl", "w") as f:
        f.write("{\n")
    log = out("submit", "--local", "--workers", "2", "--engine", "fake", "--job", "bad", "--strict", "bad.jsonl", expect=64)[1]
    assert "failed the job (input)" in log, log


@test
def fetching():
    s = start()
    fake_rows(50)
    tokenmill("run", "--engine", "fake", "-o", "volume/night", "rows.jsonl")
    out("submit", "rows.jsonl", "--on-volume", "--engine", "fake", "--name", "night")
    assert "--jobs-dir" in out("fetch", "night", "-o", "here", expect=1)[1]
    out("fetch", "night", "-o", "here", "--jobs-dir", "volume")
    same_outcome("volume/night", "here", "fetched")
    assert len(read_records("here/results.jsonl")) == 50 and not [f for f in os.listdir("here") if f.endswith(".part")]
    out("submit", "rows.jsonl", "--on-volume", "--engine", "fake", "--name", "noon")
    os.mkdir("volume/noon")
    assert "has no results yet" in out("fetch", "noon", "-o", "there", "--jobs-dir", "volume", expect=1)[1]
    s.close()


if __name__ == "__main__":
    main()
