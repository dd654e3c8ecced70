#!/usr/bin/env python3
"""Jobs with kubectl alone, on a real Kubernetes of two nodes (lab.py) with our image: the template, its pods, what happens to them, and in the end the
bytes of a run on this machine.

By itself: the short form, and only where the cluster was built already (tests/cluster/build.sh). CLUSTER=1 builds it and runs all; so does a test's name.
IMAGE: one that is there already, otherwise scripts/image.sh builds it. KEEP_LAB=1 leaves the cluster running, and says where.
"""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../e2e")]
import e2e  # noqa: E402
from e2e import ROOT, SMOLLM2, TINY, Skip, main, outcome, read_records, same_outcome, test, tokenmill, write_rows  # noqa: E402
from lab import Lab, Unavailable, find_programs, run, wait_until  # noqa: E402

IS_FULL = bool(os.environ.get("CLUSTER")) or len(sys.argv) > 1
NAMESPACE = "tokenmill"
UID = 10001


def prepare():
    """What needs the network: the cluster's programs and the image. Then on in a network of our own, where nobody else's cluster has the addresses."""
    find_programs(build=bool(os.environ.get("CLUSTER")))
    if not os.environ.get("IMAGE"):
        os.environ["IMAGE"] = "localhost/tokenmill:test"
        r = subprocess.run([f"{ROOT}/scripts/image.sh", os.environ["IMAGE"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if r.returncode:
            raise (Unavailable if r.returncode == 2 else AssertionError)(r.stdout.strip()[-3000:])
    if "LAB_NETWORK" not in os.environ and not os.environ.get("KEEP_LAB") and subprocess.run(["unshare", "--net", "true"], stdin=subprocess.DEVNULL).returncode == 0:
        os.environ["LAB_NETWORK"] = "own"
        os.execvp("unshare", ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv])


class Cluster:
    """The lab, with our image in it and the overlay `local` applied to it."""

    def __init__(self):
        prepare()
        self.top = tempfile.mkdtemp(prefix="tokenmill-lab-")
        self.lab = Lab(os.path.join(self.top, "lab"))
        self.volume = os.path.join(self.top, "volume")
        self.jobs, self.models = os.path.join(self.volume, "jobs"), os.path.join(self.volume, "models")

    def open(self):
        archive = os.path.join(self.top, "image.tar")
        run("buildah", "push", "-q", os.environ["IMAGE"], f"docker-archive:{archive}:localhost/tokenmill:lab")
        for path in (os.path.join(self.jobs, "inbox"), self.models):
            os.makedirs(path)
            os.chmod(path, 0o755)
        for path in (self.jobs, os.path.join(self.jobs, "inbox")):
            os.chown(path, UID, UID)
        self.model = SMOLLM2 if os.path.exists(SMOLLM2) else TINY
        (shutil.copy if os.path.isfile(self.model) else shutil.copytree)(self.model, os.path.join(self.models, "model.gguf"))
        self.lab.start(2)
        self.lab.load_image(archive)
        os.remove(archive)
        self.write_overlay()
        self.apply()

    def write_overlay(self):
        """As a user has one: a directory beside ours that says where the volumes are."""
        self.overlay = os.path.join(self.top, "overlay")
        os.makedirs(self.overlay)
        patch = lambda name, path: {"target": {"kind": "PersistentVolume", "name": name}, "patch": json.dumps(  # noqa: E731
            [{"op": "replace", "path": "/spec/hostPath/path", "value": path}])}
        with open(os.path.join(self.overlay, "kustomization.yaml"), "w", encoding="utf-8") as f:
            json.dump({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": NAMESPACE,
                       "resources": [os.path.relpath(f"{ROOT}/manifests/overlays/local", os.path.realpath(self.overlay))],
                       "patches": [patch("tokenmill-jobs", self.jobs), patch("tokenmill-models", self.models)],
                       "images": [{"name": "localhost/tokenmill", "newTag": "lab"}],
                       "configMapGenerator": [{"name": "tokenmill-settings", "behavior": "merge", "literals": ["TOKENMILL_PUBLISH_SECONDS=0.5"]}]}, f)

    def apply(self):
        """Also takes away what `set_env` and `patch_job` did, and with the template its Jobs."""
        self.kubectl("delete", "cronjob", "--all", "--cascade=foreground")
        self.lab.kubectl("apply", "-k", self.overlay)

    def kubectl(self, *args, **options):
        return self.lab.kubectl("-n", NAMESPACE, *args, **options)

    def get(self, *args):
        return self.lab.get("-n", NAMESPACE, *args)

    def set_env(self, **settings):
        self.kubectl("set", "env", "cronjob/tokenmill", *[f"{k}={v}" for k, v in settings.items()])

    def patch_job(self, spec):
        self.kubectl("patch", "cronjob", "tokenmill", "--type=merge", "-p", json.dumps({"spec": {"jobTemplate": {"spec": spec}}}))

    def create(self, name):
        self.kubectl("create", "job", name, "--from=cronjob/tokenmill")

    def job(self, name):
        return self.get("job", name)

    def ended(self, name, seconds=180):
        """The condition that ended it: Complete or Failed."""
        def look():
            for c in self.job(name).get("status", {}).get("conditions", []):
                if c["type"] in ("Complete", "Failed") and c["status"] == "True":
                    return c
            return None
        try:
            return wait_until(f"the end of job {name}", seconds, look, pause=0.5)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.describe(name)}") from e

    def complete(self, name, seconds=180):
        condition = self.ended(name, seconds)
        assert condition["type"] == "Complete", f"{condition}\n{self.describe(name)}"

    def describe(self, name):
        return self.kubectl("describe", "job", name, check=False)[-2000:] + self.kubectl("get", "pods", "-o", "wide", check=False) + \
            self.kubectl("logs", "--prefix", "--tail=5", "-l", f"batch.kubernetes.io/job-name={name}", check=False)

    def pods(self, name):
        return self.get("pods", "-l", f"batch.kubernetes.io/job-name={name}")["items"]

    def running(self, name, n=2):
        """Pods that run, once there are so many; and that have published something."""
        def look():
            pods = [p for p in self.pods(name) if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]
                    and all("running" in c["state"] for c in p["status"].get("containerStatuses", [{"state": {}}]))]
            return pods if len(pods) >= n and glob.glob(f"{self.jobs}/{name}/shards/*/seg-*") else None
        return wait_until(f"{n} running pods of job {name} with something published", 90, look, pause=0.2)

    def delete(self, name):
        self.kubectl("delete", "job", name, "--cascade=foreground", "--timeout=90s", timeout=120)

    def close(self):
        if os.environ.get("KEEP_LAB"):
            print(f"the cluster still runs: KUBECONFIG={self.lab.kubeconfig}; tests/cluster/lab.py down {self.lab.directory}")
            return
        self.lab.stop()
        shutil.rmtree(self.top, ignore_errors=True)


cluster = None


def full(function):
    """Not in the short form."""
    if IS_FULL:
        test(function)
    return function


def terminated(pod):
    states = pod["status"].get("containerStatuses", [])
    return states[0]["state"].get("terminated") if states else None


def put_rows(name, rows):
    path = write_rows(f"{cluster.jobs}/inbox/{name}.jsonl", rows)
    cluster.set_env(TOKENMILL_INPUT=f"/jobs/inbox/{name}.jsonl")
    return path


def put_slow_rows(name, n=2000, rate=1500):
    """For the fake engine: n * 10 / rate seconds for two workers. Returns the path."""
    path = put_rows(name, [{"custom_id": f"r{i}", "prompt": f"row {i}", "max_tokens": 20} for i in range(n)])
    cluster.set_env(TOKENMILL_ENGINE=f"fake:tokens=20,rate={rate}")
    return path


def check_against_here(name, rows, *options):
    """Verified, and the bytes of an undisturbed run on this machine."""
    out = f"{cluster.jobs}/{name}"
    tokenmill("verify", out)
    tokenmill("run", "-o", "here", "--model", f"{cluster.models}/model.gguf", "--served-model-name", "model", "--memory", "600M", *options, rows)
    same_outcome(out, "here", "two nodes and this machine")


def fresh():
    """Every test begins with the template as it was applied."""
    cluster.apply()


@test
def from_apply_to_a_verified_result():
    fresh()
    rows = put_rows("prompts", [{"custom_id": f"q{i}", "messages": [{"role": "user", "content": f"Write {i} words about rivers."}], "max_tokens": 24,
                                 "temperature": 0.8, "seed": i} for i in range(60)])
    started = time.monotonic()
    cluster.create("nightly-1")
    cluster.complete("nightly-1")
    print(f"   two workers, {os.path.basename(cluster.model)}, 60 rows: Complete after {time.monotonic() - started:.1f} s")
    check_against_here("nightly-1", rows)
    assert len(read_records(f"{cluster.jobs}/nightly-1/results.jsonl")) == 60
    report = json.loads(tokenmill_stdout("report", "--format", "json", "--prices", f"{ROOT}/manifests/prices.example.yaml", f"{cluster.jobs}/nightly-1"))
    assert report["total"]["requests_ok"] == 60 and float(report["total"]["billed_cost"]) > 0 and report["jobs"][0]["complete"], report["total"]
    logs = cluster.kubectl("logs", "--tail=-1", "-l", "batch.kubernetes.io/job-name=nightly-1")
    assert "rows ok" in logs, logs
    pods = cluster.pods("nightly-1")
    assert len(pods) == 2 and {p["spec"]["nodeName"] for p in pods} == {"node-1", "node-2"}, "the workers spread over the nodes"
    for p in pods:
        assert not any("projected" in v for v in p["spec"]["volumes"]), "a token is mounted"
        assert p["metadata"]["labels"]["llm-d.ai/model"] == "model"
        summary = json.loads(terminated(p)["message"])
        assert terminated(p)["exitCode"] == 0 and summary, terminated(p)
    assert {a["attempt"][:36] for a in attempts("nightly-1")} == {p["metadata"]["uid"] for p in pods}, "an attempt is named after its pod"
    assert cluster.job("nightly-1")["status"]["completedIndexes"] == "0,1"


def tokenmill_stdout(*args):
    return subprocess.run([e2e.PROGRAM, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout


@test
def exit_statuses_that_no_pod_can_mend_fail_the_job_at_once():
    fresh()
    rows = put_rows("prompts", [{"prompt": "x", "max_tokens": 3}])
    cluster.set_env(TOKENMILL_ENGINE="fake")
    other = f"{cluster.jobs}/other-seed"
    tokenmill("run", "-o", other, "--model", f"{cluster.models}/model.gguf", "--engine", "fake", "--seed", "7", rows)
    run("chown", "-R", f"{UID}:{UID}", other)
    before = outcome(other)
    cluster.create("other-seed")
    cluster.set_env(TOKENMILL_INPUT="/jobs/inbox/nothing.jsonl")
    cluster.create("no-input")
    cluster.set_env(TOKENMILL_MODEL="/models/nothing.gguf", TOKENMILL_ENGINE="cpu", TOKENMILL_INPUT="/jobs/inbox/prompts.jsonl")
    cluster.create("no-model")
    for name, status, word in (("other-seed", 65, "seed"), ("no-input", 64, "nothing.jsonl"), ("no-model", 66, "nothing.gguf")):
        condition = cluster.ended(name, 60)
        assert condition["type"] == "Failed" and condition["reason"] == "PodFailurePolicy", f"{condition}\n{cluster.describe(name)}"
        assert f"exit code {status}" in condition["message"], condition
        pods = [p for p in cluster.pods(name) if terminated(p) and terminated(p)["exitCode"] == status]
        assert pods and any(word in terminated(p).get("message", "") for p in pods), [terminated(p) for p in pods]
        assert len(cluster.pods(name)) <= 2, "a pod was tried again"
    assert outcome(other) == before


@test
def the_namespace_is_restricted_and_accounts_can_do_little():
    for extra, word in ((["--privileged"], "privileged"), ([], "runAsNonRoot")):
        said = cluster.kubectl("run", "intruder", "--image=localhost/tokenmill:lab", *extra, check=False)
        assert "violates PodSecurity" in said and word in said, said
    def may(account, *what):
        return cluster.kubectl("auth", "can-i", "--as", f"system:serviceaccount:{NAMESPACE}:{account}", *what, check=False).strip().splitlines()[-1] == "yes"
    for what in (("create", "jobs"), ("delete", "jobs"), ("get", "cronjobs"), ("get", "pods", "--subresource=log"), ("patch", "jobs")):
        assert may("tokenmill-submitter", *what), what
        assert not may("tokenmill-worker", *what), what
    for what in (("get", "secrets"), ("create", "pods"), ("create", "pods", "--subresource=exec"), ("get", "nodes"), ("create", "jobs", "--namespace=default")):
        assert not may("tokenmill-submitter", *what), what


@test
def the_api_server_takes_every_overlay():
    for path in sorted(glob.glob(f"{ROOT}/manifests/overlays/*")):
        objects = run(cluster.lab.kubectl_program, "kustomize", path)
        # Volumes of the same name are there already, and what they are made of cannot be changed: ask for those of another name.
        objects = objects.replace("name: tokenmill-jobs", "name: dry-jobs").replace("name: tokenmill-models", "name: dry-models") \
            .replace("volumeName: tokenmill-", "volumeName: dry-")
        file = f"{os.path.basename(path)}.yaml"
        with open(file, "w", encoding="utf-8") as f:
            f.write(objects)
        said = cluster.lab.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", file)
        assert said.count("(server dry run)") >= 12 and "Warning" not in said, said


@full
def deleted_and_created_again_it_goes_on():
    fresh()
    rows = put_slow_rows("again")
    cluster.create("again")
    cluster.running("again")
    cluster.delete("again")
    assert not os.path.exists(f"{cluster.jobs}/again/results.jsonl"), "the job was done before it could be deleted"
    ends = [a["end_code"] for a in attempts("again")]
    assert ends == ["drained", "drained"], ends
    cluster.create("again")
    cluster.complete("again")
    check_against_here("again", rows, "--engine", "fake:tokens=20")
    finished = [a["rows"] for a in attempts("again")]
    assert len(finished) == 4 and sum(finished) == 2000 and sum(a["rows"] for a in attempts("again") if a["end_code"] == "drained") > 0, finished


def attempts(name):
    found = []
    for path in glob.glob(f"{cluster.jobs}/{name}/**/*.json", recursive=True):
        with open(path, encoding="utf-8") as f:
            a = json.load(f)
        if isinstance(a, dict) and "attempt" in a and "end_code" in a:
            found.append(a)
    return found


def process_of(pod):
    """The pid of its worker, as this machine sees it."""
    container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    for line in cluster.lab.ctr(int(pod["spec"]["nodeName"][5:]), "tasks", "ls").splitlines():
        if line.startswith(container):
            return int(line.split()[1])
    raise AssertionError(f"no task of container {container}")


@full
def a_worker_that_is_killed_is_started_again():
    fresh()
    rows = put_slow_rows("killed", 4000)
    cluster.create("killed")
    os.kill(process_of(cluster.running("killed")[0]), signal.SIGKILL)
    failed = wait_until("a failed pod", 30, lambda: [p for p in cluster.pods("killed") if p["status"]["phase"] == "Failed"])
    assert terminated(failed[0])["exitCode"] == 137
    cluster.complete("killed")
    assert cluster.job("killed")["status"]["failed"] == 1
    check_against_here("killed", rows, "--engine", "fake:tokens=20")


@full
def a_deleted_pod_drains_and_counts_for_nothing():
    fresh()
    rows = put_slow_rows("evicted", 4000)
    cluster.create("evicted")
    cluster.kubectl("delete", "pod", cluster.running("evicted")[0]["metadata"]["name"], timeout=150)
    cluster.complete("evicted")
    assert cluster.job("evicted")["status"].get("failed", 0) == 0
    assert "drained" in [a["end_code"] for a in attempts("evicted")]
    check_against_here("evicted", rows, "--engine", "fake:tokens=20")


@full
def a_drained_node():
    fresh()
    rows = put_slow_rows("drain", 4000)
    cluster.create("drain")
    cluster.running("drain")
    try:
        cluster.lab.kubectl("drain", "node-1", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=100s", timeout=130)
        cluster.complete("drain")
    finally:
        cluster.lab.kubectl("uncordon", "node-1")
    job = cluster.job("drain")
    assert job["status"].get("failed", 0) == 0 and job["status"]["completedIndexes"] == "0,1", job["status"]
    assert "drained" in [a["end_code"] for a in attempts("drain")]
    check_against_here("drain", rows, "--engine", "fake:tokens=20")


@full
def a_container_over_its_memory_counts():
    fresh()
    if cluster.model == TINY:
        raise Skip("the model is too small to run out of memory with")
    put_rows("oom", [{"prompt": "x", "max_tokens": 3}])
    cluster.patch_job({"backoffLimitPerIndex": 0})
    cluster.kubectl("set", "resources", "cronjob/tokenmill", "--limits=memory=64Mi", "--requests=memory=64Mi")
    cluster.create("oom")
    condition = cluster.ended("oom", 90)
    assert condition["type"] == "Failed" and "ndexes" in condition["reason"], condition
    ends = [terminated(p) for p in cluster.pods("oom")]
    assert any(e and e["exitCode"] == 137 and e["reason"] == "OOMKilled" for e in ends), ends
    assert cluster.job("oom")["status"]["failed"] >= 1


@full
def scaled_while_it_runs():
    fresh()
    rows = put_slow_rows("scaled", 4000)
    cluster.create("scaled")
    cluster.running("scaled")
    cluster.kubectl("patch", "job", "scaled", "-p", '{"spec":{"completions":3,"parallelism":3}}')
    cluster.running("scaled", 3)
    cluster.complete("scaled")
    assert cluster.job("scaled")["status"]["completedIndexes"] == "0-2"
    check_against_here("scaled", rows, "--engine", "fake:tokens=20")


@full
def suspended_and_resumed():
    fresh()
    rows = put_slow_rows("paused")
    cluster.create("paused")
    cluster.running("paused")
    cluster.kubectl("patch", "job", "paused", "-p", '{"spec":{"suspend":true}}')
    wait_until("the pods of a suspended job to end", 60, lambda: not cluster.pods("paused"))
    assert [a["end_code"] for a in attempts("paused")] == ["drained", "drained"]
    cluster.kubectl("patch", "job", "paused", "-p", '{"spec":{"suspend":false}}')
    cluster.complete("paused")
    assert cluster.job("paused")["status"].get("failed", 0) == 0
    check_against_here("paused", rows, "--engine", "fake:tokens=20")


@full
def the_api_server_dies_while_a_job_runs():
    """Workers have no need of it."""
    fresh()
    rows = put_slow_rows("headless", 4000)
    cluster.create("headless")
    cluster.running("headless")
    cluster.lab.crash("apiserver")
    time.sleep(5)
    cluster.lab.start_control()
    cluster.complete("headless")
    assert cluster.job("headless")["status"].get("failed", 0) == 0
    check_against_here("headless", rows, "--engine", "fake:tokens=20")


@full
def a_node_that_is_cut_off_leaves_two_workers_of_one_index():
    """Its kubelet says nothing more, its pod goes on: Kubernetes starts another with the same index when the node is declared out of service."""
    fresh()
    rows = put_slow_rows("cut", 4000, rate=400)
    cluster.create("cut")
    lost = next(p for p in cluster.running("cut") if p["spec"]["nodeName"] == "node-1")
    index = lost["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
    process = process_of(lost)
    taint = "node.kubernetes.io/out-of-service=lost:NoExecute"
    cluster.lab.pause("node-1.kubelet", True)
    try:
        wait_until("node 1 to be missed", 90, lambda: not is_ready("node-1"), pause=1)
        cluster.lab.kubectl("taint", "node", "node-1", taint)
        wait_until("a second worker of the index", 90, lambda: [p for p in cluster.pods("cut") if p["status"]["phase"] == "Running"
                   and p["spec"]["nodeName"] == "node-2" and p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == index], pause=0.5)
        os.kill(process, 0)  # the first one lives: ProcessLookupError otherwise
        cluster.complete("cut")
    finally:
        cluster.lab.pause("node-1.kubelet", False)
        cluster.lab.kubectl("taint", "node", "node-1", f"{taint}-", check=False)
        wait_until("node 1 to be back", 60, lambda: is_ready("node-1"), pause=1)
    assert cluster.job("cut")["status"]["completedIndexes"] == "0,1"
    assert len({a["attempt"] for a in attempts("cut") if str(a["worker"]) == index}) == 2
    check_against_here("cut", rows, "--engine", "fake:tokens=20")


def is_ready(node):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in cluster.lab.get("node", node)["status"]["conditions"])


def run_all():
    global cluster
    try:
        cluster = Cluster()
    except Unavailable as e:
        print(f"skip test_lifecycle: {e}")
        return
    try:
        try:
            cluster.open()
        except Unavailable as e:
            print(f"skip test_lifecycle: {e}")
            return
        main()
    finally:
        cluster.close()


if __name__ == "__main__":
    run_all()
