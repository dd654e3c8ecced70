#!/usr/bin/env python3
"""Make the archive of an image with one file: pause_image.py PROGRAM ARCHIVE. The form is that of `docker save`, which containerd imports."""
import hashlib
import io
import json
import platform
import sys
import tarfile

NAME = "localhost/pause:1"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def add(archive, name, data, mode=0o644):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    archive.addfile(info, io.BytesIO(data))


with open(sys.argv[1], "rb") as f:
    program = f.read()
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as archive:
    add(archive, "pause", program, 0o755)
layer = layer.getvalue()
config = json.dumps({"architecture": ARCHITECTURE, "os": "linux", "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
                     "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}}).encode()
name = f"{hashlib.sha256(config).hexdigest()}.json"
with tarfile.open(sys.argv[2], "w") as archive:
    add(archive, "layer.tar", layer)
    add(archive, name, config)
    add(archive, "manifest.json", json.dumps([{"Config": name, "RepoTags": [NAME], "Layers": ["layer.tar"]}]).encode())
