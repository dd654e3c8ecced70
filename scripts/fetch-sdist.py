#!/usr/bin/env python3
"""Fetch one archive from the package index that pip is configured with, without running anything from it.

    scripts/fetch-sdist.py NAME FILE SHA256 TARGET

`pip download --no-binary` would run the package's build system to learn its metadata, which for a large C++ project means a
configure run. So this asks the index for the list of files (the JSON form of the simple API, PEP 691), takes the one called FILE, checks its
SHA-256 and puts it at TARGET. A file that is already there with the right digest is kept.
"""
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request


def pip_setting(name):
    """A value as pip sees it: environment, then configuration files; None when unset."""
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if value:
        return value
    for section in ("global", "download", "install"):
        r = subprocess.run([sys.executable, "-m", "pip", "config", "get", f"{section}.{name}"], capture_output=True, text=True)
        if r.returncode == 0 and r.stdout.strip():
            return r.stdout.strip()
    return None


def index_url():
    url = pip_setting("index-url")
    if not url:  # pip's own default
        from pip._internal.models.index import PyPI
        url = PyPI.simple_url
    return url.rstrip("/") + "/"


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            h.update(block)
    return h.hexdigest()


def main():
    if len(sys.argv) != 5:
        sys.exit("usage: fetch-sdist.py NAME FILE SHA256 TARGET")
    name, file, sha256, target = sys.argv[1:]
    if os.path.exists(target) and digest(target) == sha256:
        return
    context = ssl.create_default_context(cafile=pip_setting("cert"))
    listing = index_url() + name + "/"
    request = urllib.request.Request(listing, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request, timeout=180, context=context) as r:
        files = json.load(r)["files"]
    urls = [f["url"] for f in files if f["filename"] == file]
    if not urls:
        sys.exit(f"fetch-sdist: {name} has no file {file}")
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    print(f"fetching {file}", file=sys.stderr)
    with urllib.request.urlopen(urllib.parse.urljoin(listing, urls[0]), timeout=180, context=context) as r, open(target + ".part", "wb") as f:
        shutil.copyfileobj(r, f, 1 << 20)
    if digest(target + ".part") != sha256:
        sys.exit(f"fetch-sdist: {file}: SHA-256 is {digest(target + '.part')}, expected {sha256}")
    os.replace(target + ".part", target)


if __name__ == "__main__":
    main()
