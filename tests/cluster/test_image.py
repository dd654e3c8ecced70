#!/usr/bin/env python3
"""The image, run by podman as a pod runs it: as uid 10001, read-only root, no capability. IMAGE names one that is there; otherwise scripts/image.sh builds
it, in `make check` only where the test cluster was built, too (CLUSTER=1: always). `reproducible` builds it a second time without any cache and runs only if asked for by name: minutes.
"""
import json
import os
import shutil
import subprocess
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from e2e import ROOT, Skip, main, read_records, same_outcome, test, tokenmill, write_rows  # noqa: E402

BUILT = "localhost/tokenmill:test"
# Where there is no systemd, no user session and no network of podman's own; crun and higher limits are refused in some sandboxes.
PODMAN = ("podman", "run", "--rm", "--runtime", "runc", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--network=host",
          "--read-only", "--read-only-tmpfs=false", "--user", "10001:10001", "--cap-drop=all", "--security-opt=no-new-privileges")


def image():
    """Its name; built once in a run."""
    if "IMAGE" not in os.environ:
        if not os.environ.get("CLUSTER") and len(sys.argv) == 1:
            find = subprocess.run([f"{ROOT}/tests/cluster/build.sh", "--find"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if find.returncode:
                raise Skip("images are built in minutes: CLUSTER=1 does it")
        r = subprocess.run([f"{ROOT}/scripts/image.sh", BUILT], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if r.returncode == 2:
            raise Skip(r.stdout.strip().splitlines()[-1])
        assert r.returncode == 0, r.stdout[-3000:]
        os.environ["IMAGE"] = BUILT
    return os.environ["IMAGE"]


def podman(*args, options=(), expect=0):
    """What it wrote to both outputs."""
    name = image()
    if not shutil.which("podman"):
        raise Skip("podman is not installed")
    if subprocess.run([*PODMAN, name, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).returncode in (125, 126, 127):
        raise Skip("podman cannot start containers here")
    r = subprocess.run([*PODMAN, *options, name, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert r.returncode == expect, f"podman: exit status {r.returncode}\n{r.stdout[-3000:]}"
    return r.stdout


def files_of(archive):
    """path -> member, over all layers of a `docker save` archive."""
    with tarfile.open(archive) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))[0]
        config = json.load(outer.extractfile(manifest["Config"]))
        found = {}
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
                found.update({m.name.lstrip("./"): m for m in inner})
        return found, config


def save(name, archive):
    subprocess.run(["buildah", "push", "-q", name, f"docker-archive:{os.path.abspath(archive)}:{name}"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return archive


@test
def it_holds_the_program_and_little_else():
    files, config = files_of(save(image(), "image.tar"))
    assert config["config"]["User"] == "10001:10001" and config["config"]["Entrypoint"] == ["/usr/bin/tokenmill"], config["config"]
    executables = {name for name, m in files.items() if m.isfile() and m.mode & 0o111 and ".so" not in name}
    assert executables == {"usr/bin/tokenmill"}, executables
    assert not [name for name, m in files.items() if m.mode & 0o6000], "a setuid file"
    assert "etc/ssl/certs/ca-certificates.crt" in files
    assert len({m.mtime for m in files.values()}) == 1, "files with times of their own cannot be made again"
    size = sum(m.size for m in files.values())
    assert size < 100 << 20, f"{size >> 20} MiB"
    libraries = {name for name in files if ".so" in name}
    assert any("libsqlite3.so" in name for name in libraries) and any("ld-linux" in name for name in libraries), libraries
    assert sum(name.endswith("/copyright") for name in files) >= 20, "each library's licence asks for its notice"


@test
def it_runs():
    assert podman("--version").startswith("tokenmill ")
    podman("run", "-o", "/tmp/out", "/nothing.jsonl", "--engine", "fake", expect=64)


@test
def a_job_on_a_mounted_directory_is_that_of_the_program_here():
    rows = write_rows("in.jsonl", [{"custom_id": f"r{i}", "prompt": f"row {i}", "max_tokens": 20} for i in range(500)])
    os.mkdir("jobs")
    shutil.copy(rows, "jobs/in.jsonl")
    os.chown("jobs", 10001, 10001)
    os.chmod(".", 0o755)
    mount = ("-v", f"{os.getcwd()}/jobs:/jobs", "--tmpfs", "/tmp:rw,mode=1777")
    podman("run", "--job", "/jobs/night", "--engine", "fake", "--progress", "none", "/jobs/in.jsonl", options=mount)
    podman("verify", "/jobs/night", options=mount)
    assert len(read_records("jobs/night/results.jsonl")) == 500
    assert os.stat("jobs/night").st_uid == 10001
    tokenmill("run", "-o", "here", "--engine", "fake", rows)
    same_outcome("jobs/night", "here", "container and host")


@test
def it_writes_nothing_beside_its_volumes():
    rows = write_rows("in.jsonl", [{"prompt": "x", "max_tokens": 5}])
    os.chmod(".", 0o755)
    said = podman("run", "--job", "/elsewhere", "--engine", "fake", "/in/in.jsonl", options=("-v", f"{os.path.dirname(os.path.abspath(rows))}:/in:ro"), expect=74)
    assert "Read-only file system" in said, said


@test
def reproducible():
    if "reproducible" not in sys.argv:
        raise Skip("minutes: tests/cluster/test_image.py reproducible")
    digests = []
    for name in (f"{BUILT}-1", f"{BUILT}-2"):
        subprocess.run([f"{ROOT}/scripts/image.sh", name], check=True, env={**os.environ, "IMAGE_CACHE": "no"}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        files, config = files_of(save(name, f"{len(digests)}.tar"))
        digests.append((config["rootfs"]["diff_ids"], sorted(files)))
        subprocess.run(["buildah", "rmi", name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert digests[0] == digests[1], "the same sources gave two images"


if __name__ == "__main__":
    main()
