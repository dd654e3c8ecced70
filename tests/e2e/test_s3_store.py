#!/usr/bin/env python3
"""The store on S3 (queue/store_s3.c) against servers that others wrote, directly and through a proxy that loses requests and replies.
What is in the bucket is read by an S3 client of the test's own (s3_servers.py). TEST_ROUNDS makes the random tests longer."""
import hashlib
import http.client
import json
import os
import random
import shutil
import subprocess
import time

from e2e import ROOT, ROUNDS, SEED, Skip, main, test
from s3_servers import FAULTS, flaky_proxy, start_moto, start_versitygw

TOOL = os.environ.get("TOOL_STORE_S3", os.path.join(ROOT, "build/release/tests/tool_store_s3"))
BUCKET = "job-bucket"
PLACE = f"s3://{BUCKET}/team/job 1"
PREFIX = "team/job 1/"


class Store:
    """tool_store_s3 as a process: one operation a line."""

    def __init__(self, server, place=PLACE, **env):
        if not os.path.exists(TOOL):
            raise Skip(f"no {os.path.relpath(TOOL, ROOT)}; make tests")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        self.process = subprocess.Popen([TOOL, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env={**clean, **server.env, "HOME": os.getcwd(), **env})

    def send(self, *args):
        self.process.stdin.write("\t".join(map(str, args)).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"tool_store_s3 ended with {self.process.wait()}: {self.process.stderr.read().decode()[-3000:]}")
        return json.loads(line)

    def __call__(self, *args):
        self.send(*args)
        return self.receive()

    def fails(self, *args, says):
        got = self(*args)
        assert isinstance(got, dict) and "error" in got, f"{args}: should fail, gave {got!r}"
        for word in [says] if isinstance(says, str) else says:
            assert word in got["error"], f"{args}: {word!r} is not in: {got['error']}"
        return got

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.stdin.close()
        status = self.process.wait(60)
        log = self.process.stderr.read().decode()
        if kind is None:
            assert status == 0, f"tool_store_s3: exit status {status}: {log[-3000:]}"


def check(got, expected):
    assert got == expected, f"got {got!r:.1500}, expected {expected!r:.1500}"


def digest(data):
    return {"n_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def with_bucket(server):
    server.create_bucket(BUCKET)
    return server


def moto():
    return with_bucket(start_moto())


def versitygw():
    return with_bucket(start_versitygw("objects"))


# ---- one of each, directly ----

def operations(server):
    with Store(server) as store:
        check(store("prepare"), 0)
        check(server.keys(BUCKET), [])  # the probe is gone
        check(store("create", "shards/00001/claim-0001", "me"), 1)
        check(store("create", "shards/00001/claim-0001", "me"), 1)
        check(store("create", "shards/00001/claim-0001", "you"), 0)
        check(store("create", "shards/00001/claim-0001", "m"), 0)
        check(store("create", "shards/00001/claim-0001", "me too"), 0)
        check(store("get", "shards/00001/claim-0001", 100), "me")
        check(store("create", "empty", ""), 1)
        check(store("create", "empty", ""), 1)
        check(store("create", "empty", "x"), 0)
        check(store("get", "empty", 0), "")
        check(store("put", "events/a.json", "1"), 0)
        check(store("put", "events/a.json", "23"), 0)
        check(store("get", "events/a.json", 2), "23")
        store.fails("get", "events/a.json", 1, says=["events/a.json", "larger than 1 bytes"])
        check(store("get", "events/none", 100), None)
        check(store("exists", "events/a.json"), 1)
        check(store("exists", "events"), 0)
        check(store("fetch", "events/a.json"), digest(b"23"))
        check(store("fetch", "events/none"), None)
        check(server.request("GET", f"/{BUCKET}/{PREFIX}events/a.json")[2], b"23")
        odd = ["a b", "a+b", "a%2Bb", "100% ?&=;:@,$", "\u00e4\u20ac\U0001f600", "<x>&\"'", "~-_.", "[1](2)*!", "#"]
        for name in odd:
            check(store("create", "odd/" + name, name), 1)
            check(store("get", "odd/" + name, 100), name)
        check(store("list", "odd"), sorted(odd, key=str.encode))
        check(store("list", ""), ["empty", "events", "odd", "shards"])
        check(store("list", "shards"), ["00001"])
        check(store("list", "shard"), [])
        check(store("list-tree", "shards"), ["00001/claim-0001"])
        check(store("list", "nothing"), [])
        check(store("remove", "events/a.json"), 0)
        check(store("remove", "events/a.json"), 0)
        check(store("exists", "events/a.json"), 0)
        check(server.request("PUT", f"/{BUCKET}/{PREFIX}oddly", body=b"a neighbour")[0], 200)
        check(store("remove-tree", "odd"), 0)
        check(store("remove-tree", "odd"), 0)
        check(store("list-tree", ""), ["empty", "oddly", "shards/00001/claim-0001"])
        check(store("remove-tree", ""), 0)
        check(server.keys(BUCKET), [])


def large_files(server):
    """Below the limit, at it, and in parts."""
    with Store(server) as store:
        for n in (0, 1, 5_000_000, 16 << 20, (16 << 20) + 1, 40_000_000):
            data = random.Random(n).randbytes(n)
            with open("file", "wb") as f:
                f.write(data)
            check(store("put-file", "seg", "file"), 0)
            assert not os.path.exists("file"), "put-file leaves the file"
            status, fields, body = server.request("GET", f"/{BUCKET}/{PREFIX}seg")
            assert status == 200 and body == data, f"{n} bytes: the object has {len(body)}, status {status}"
            parts = fields.get("ETag", fields.get("Etag", "")).strip('"').partition("-")[2]
            check(int(parts or 1), -(-n // (16 << 20)) or 1)
            check(store("fetch", "seg"), digest(data))
            for start in (0, 1, n // 2, n):
                if start <= n:
                    check(store("stream", PREFIX + "seg", start), digest(data[start:]))
        check([f for f in os.listdir(".") if f.startswith("tokenmill-")], [])
        check(store("remove", "seg"), 0)
        check(uploads(server), 0)


def long_listing(server, n=2300):
    names = [f"{i:05}" for i in range(n)]
    for name in names:
        check(server.request("PUT", f"/{BUCKET}/{PREFIX}shards/{name}/done", body=b"x")[0], 200)
    with Store(server) as store:
        check(store("list", "shards"), names)
        check(store("list-tree", "shards"), [f"{name}/done" for name in names])
        check(store("list-tree", ""), [f"shards/{name}/done" for name in names])
        check(store("remove-tree", "shards"), 0)
        check(server.keys(BUCKET), [])


def race(servers, rounds=100):
    """Four processes create the same name at the same time: one has made it, and it has that one's bytes."""
    stores = [Store(server) for server in servers]
    try:
        for i in range(rounds):
            for k, store in enumerate(stores):
                store.send("create", f"claim-{i}", f"claimant {k}")
            won = [k for k, store in enumerate(stores) if check_number(store.receive())]
            assert len(won) == 1, f"round {i}: won by {won}"
            check(stores[0]("get", f"claim-{i}", 100), f"claimant {won[0]}")
            check(stores[1]("remove", f"claim-{i}"), 0)
    finally:
        for store in stores:
            store.__exit__(None)


def check_number(got):
    assert isinstance(got, int), f"failed: {got!r}"
    return got


def wrong_places(server):
    with Store(server, "s3://no-such-bucket/x") as store:
        store.fails("prepare", says=["PutObject s3://no-such-bucket/x/", "404", "NoSuchBucket", server.endpoint])
        store.fails("get", "a", 100, says=["GetObject", "NoSuchBucket"])
        store.fails("list", "", says=["ListObjectsV2", "NoSuchBucket"])
        store.fails("create", "a", "b", says=["PutObject", "NoSuchBucket"])
        with open("file", "wb") as f:
            f.truncate(20 << 20)
        store.fails("put-file", "a", "file", says=["CreateMultipartUpload", "NoSuchBucket"])
        assert os.path.exists("file"), "a failed put-file takes the file away"


def opening_fails(place, says, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    r = subprocess.run([TOOL, place], stdin=subprocess.DEVNULL, capture_output=True, env={**clean, "HOME": os.getcwd(), **env}, timeout=60)
    got = json.loads(r.stdout)
    assert r.returncode == 1 and says in got["error"] and got["code"] == "usage", f"{place}: {got}"


@test
def s3_moto():
    with moto() as server:
        operations(server)
        with flaky_proxy(server, SEED, 0, serial=True) as proxy:
            race([proxy] * 4)
        large_files(server)
        long_listing(server)
        wrong_places(server)


@test
def s3_versitygw():
    with versitygw() as server:
        operations(server)
        race([server] * 4)
        large_files(server)
        long_listing(server)
        wrong_places(server)


# ---- who we are ----

@test
def s3_credentials():
    with versitygw() as server, Store(server) as store:
        check(store("put", "a", "b"), 0)
        with Store(server, AWS_SECRET_ACCESS_KEY="wrong") as wrong:
            wrong.fails("prepare", says=["403", "SignatureDoesNotMatch", PLACE])
            wrong.fails("exists", "a", says=["HeadObject", "403"])
        with Store(server, AWS_ACCESS_KEY_ID="stranger") as wrong:
            wrong.fails("get", "a", 100, says=["GetObject", "access key"])
        os.makedirs(".aws")
        with open(".aws/credentials", "w", encoding="utf-8") as f:
            f.write("[default]\naws_access_key_id = x\naws_secret_access_key = y\n\n# ours\n[team]\n"
                    f"aws_access_key_id={server.env['AWS_ACCESS_KEY_ID']}\naws_secret_access_key = {server.env['AWS_SECRET_ACCESS_KEY']}\n")
        with open(".aws/config", "w", encoding="utf-8") as f:
            f.write(f"[default]\nregion = eu-west-1\n[profile team]\nregion = us-east-1\nendpoint_url = {server.endpoint}/\n")
        nothing = {k: "" for k in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL_S3")}
        with Store(server, **nothing, AWS_PROFILE="team") as profile:
            check(profile("get", "a", 100), "b")
        opening_fails(PLACE, "as [other]", AWS_PROFILE="other")


@test
def s3_other_region():
    """A bucket in another region than the one that is set: the reply says which."""
    with with_bucket(start_versitygw("elsewhere", "eu-central-1")) as server:
        for first in (("exists", "a"), ("put", "a", "b"), ("list", "")):
            with Store(server, AWS_REGION="us-east-1") as store:
                if first[0] == "exists":  # a reply to HEAD has no room for it
                    store.fails(*first, says=["HeadObject", "400"])
                else:
                    check(store(*first), 0 if first[0] == "put" else ["a"])
                    check(store("exists", "a"), 1)


@test
def s3_renewed_credentials():
    """Temporary credentials that have run out are read again from the profile; those of the environment are what they are."""
    def profile(token):
        with open(".aws/credentials", "w", encoding="utf-8") as f:
            f.write(f"[default]\naws_access_key_id = a\naws_secret_access_key = b\naws_session_token = {token}\n")

    def renew(method, path):
        calls.append(path)
        if len(calls) == 1:
            profile("new")
        return (400, "ExpiredToken") if len(calls) == 1 else None
    os.makedirs(".aws")
    calls = []
    profile("old")
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    with moto() as server:
        with flaky_proxy(server, SEED, 0, chooser=renew) as proxy, Store(proxy, **nothing) as store:
            check(store("create", "a", "b"), 1)
            check(len(calls), 2)
        for env in (nothing, {}):
            with flaky_proxy(server, SEED, 0, chooser=lambda *_: (400, "ExpiredToken")) as proxy, Store(proxy, **env) as store:
                store.fails("create", "a", "b", says=["400", "ExpiredToken"])
                check(proxy.counts, {(400, "ExpiredToken"): 1})


@test
def s3_tls():
    """Over TLS: with a certificate that AWS_CA_BUNDLE vouches for, and not without; a bad certificate is not tried again."""
    if not shutil.which("openssl"):
        raise Skip("no openssl")
    for name in ("ours", "other"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                        "subjectAltName=IP:127.0.0.1", "-keyout", f"{name}.key", "-out", f"{name}.crt"], check=True, capture_output=True)
    os.makedirs(f"objects/{BUCKET}")
    with start_versitygw("objects", tls=(os.path.abspath("ours.crt"), os.path.abspath("ours.key"))) as server:
        with Store(server, AWS_CA_BUNDLE="ours.crt") as store:
            check(store("prepare"), 0)
            check(store("create", "a", "b"), 1)
            check(store("get", "a", 100), "b")
        for env in ({"AWS_CA_BUNDLE": "other.crt"}, {}):
            with Store(server, **env) as store:
                began = time.monotonic()
                store.fails("get", "a", 100, says=[server.endpoint, "certificate"])
                assert time.monotonic() - began < 5, "a bad certificate was tried again"


@test
def s3_usage():
    if not os.path.exists(TOOL):
        raise Skip("no tool_store_s3; make tests")
    us = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    opening_fails(PLACE, "set AWS_ACCESS_KEY_ID")
    opening_fails(PLACE, "AWS_SECRET_ACCESS_KEY has white space", **{**us, "AWS_SECRET_ACCESS_KEY": "b\n"})
    opening_fails(PLACE, "AWS_ENDPOINT_URL", **us, AWS_ENDPOINT_URL="localhost:9000")
    opening_fails(PLACE, "AWS_REGION", **us, AWS_REGION="x/y")
    opening_fails("s3://", "not the name of a bucket", **us)
    opening_fails("s3:///key", "not the name of a bucket", **us)
    opening_fails("s3://user@host/key", "has no '@'", **us)


@test
def s3_presigned():
    """A URL that a plain client can use, at the server that checks signatures."""
    with versitygw() as server, Store(server) as store:
        check(store("put", "a b", "bytes"), 0)
        url = store("presign", "GET", PREFIX + "a b")
        host = server.endpoint.split("//")[1]
        for path, status in ((url.split(host)[1], 200), (url.split(host)[1].replace("a%20b", "a%20c"), 403)):
            connection = http.client.HTTPConnection(host, timeout=30)
            connection.request("GET", path)
            reply = connection.getresponse()
            body = reply.read()
            check(reply.status, status)
            connection.close()
            assert status != 200 or body == b"bytes"


# ---- through the proxy ----

@test
def s3_ignored_condition():
    """A store that does not know If-None-Match: every claim would win."""
    with moto() as server, flaky_proxy(server, SEED, 0, strip=["If-None-Match"]) as proxy:
        with Store(proxy) as store:
            store.fails("prepare", says=[PLACE, "ignores If-None-Match"])
        check(server.keys(BUCKET), [])


@test
def s3_leftover_probe():
    """A probe whose maker died is no part of a job."""
    with moto() as server, Store(server) as store:
        check(server.request("PUT", f"/{BUCKET}/{PREFIX}exclusive-probe-1", body=b"x")[0], 200)
        check(server.request("PUT", f"/{BUCKET}/{PREFIX}folder/", body=b"")[0], 200)
        check(store("list", ""), ["folder"])
        check(store("list-tree", ""), [])


def steady(fault, times, method, part=""):
    """A chooser: the first `times` requests of that method get the fault."""
    left = [times]

    def choose(m, path):
        if m == method and part in path and left[0] > 0:
            left[0] -= 1
            return fault
        return None
    return choose


@test
def s3_each_fault():
    """Every kind of fault, three times in a row, at every kind of request."""
    data = random.Random(SEED).randbytes(3_000_000)
    with moto() as server:
        for fault in FAULTS:
            def through(method, part, *args, expect):
                with flaky_proxy(server, SEED, 0, chooser=steady(fault, 3, method, part)) as proxy, Store(proxy) as store:
                    got = store(*args)
                    assert got == expect, f"{fault} at {method} {part}: {args} gave {got!r}"
                    check(proxy.counts[fault], 3)

            through("PUT", "", "create", f"claim-{fault}", "me", expect=1)
            through("PUT", "", "create", f"claim-{fault}", "my", expect=0)
            through("GET", "", "create", f"claim-{fault}", "my", expect=0)
            through("PUT", "", "put", "a", "b", expect=0)
            through("HEAD", "", "exists", "a", expect=1)
            through("GET", "", "get", "a", 100, expect="b")
            through("GET", "", "list", "", expect=sorted(["a", *[f"claim-{f}" for f in FAULTS[:FAULTS.index(fault) + 1]]]))
            through("DELETE", "", "remove", "a", expect=0)
            check(server.request("PUT", f"/{BUCKET}/{PREFIX}big", body=data)[0], 200)
            through("GET", "", "fetch", "big", expect=digest(data))
            check(server.request("DELETE", f"/{BUCKET}/{PREFIX}big")[0], 204)
            for method, part in (("POST", "?uploads="), ("PUT", "partNumber=2"), ("POST", "?uploadId=")):
                with open("file", "wb") as f:
                    f.write(data * 6)
                through(method, part, "put-file", "big", "file", expect=0)
                check(hashlib.sha256(server.request("GET", f"/{BUCKET}/{PREFIX}big")[2]).digest(), hashlib.sha256(data * 6).digest())
                check(server.request("DELETE", f"/{BUCKET}/{PREFIX}big")[0], 204)


def uploads(server):
    status, _, body = server.request("GET", f"/{BUCKET}", {"uploads": ""})
    check(status, 200)
    return body.count(b"<UploadId>")


@test
def s3_lost_completion():
    """The store has put the parts together, its reply is lost, and then it knows of no such upload: the object says whose it is. (Amazon,
    moto and versitygw remember completed uploads, not all stores do: the proxy says it for them.)"""
    data = random.Random(SEED).randbytes(17 << 20)
    with moto() as server:
        for fault, replaced in (("reset_after", False), ("lost_error", False), ("truncate", False), ("reset_after", True)):
            seen = []

            def lose(method, path):
                seen.append(f"{method} {path.partition('?')[2].partition('=')[0]}")
                if replaced and seen[-1] == "HEAD " and seen.count("HEAD ") == 1:
                    check(server.request("PUT", f"/{BUCKET}/{PREFIX}big", body=b"another's",
                                         headers={"x-amz-meta-tokenmill-upload": "another"})[0], 200)
                if seen[-1] != "POST uploadId" or seen.count("POST uploadId") > 2:
                    return None
                return fault if seen.count("POST uploadId") == 1 else (404, "NoSuchUpload")
            with open("file", "wb") as f:
                f.write(data)
            with flaky_proxy(server, SEED, 0, chooser=lose) as proxy, Store(proxy) as store:
                check(store("put-file", "big", "file"), 0)
                # Replaced by somebody else meanwhile: whether ours came first is unknown, so it is uploaded again.
                check((seen.count("POST uploads"), seen.count("POST uploadId"), seen.count("HEAD ")), (2, 3, 1) if replaced else (1, 2, 1))
                check(store("fetch", "big"), digest(data))
        check(uploads(server), 0)


@test
def s3_aborted_upload():
    """A part is refused: an error, nothing is left in the bucket, and the file stays."""
    def refuse(method, path):
        if "partNumber=2" in path:
            return (403, "AccessDenied")
        return "slow_down" if method == "DELETE" and not left.append(1) and len(left) < 3 else None
    with moto() as server:
        left = []
        with open("file", "wb") as f:
            f.truncate(40 << 20)
        with flaky_proxy(server, SEED, 0, chooser=refuse) as proxy, Store(proxy) as store:
            store.fails("put-file", "big", "file", says=[f"UploadPart {PLACE}/big", "403 AccessDenied: by the flaky proxy"])
        check(len(left), 3)
        check(uploads(server), 0)
        check(server.keys(BUCKET), [])
        assert os.path.exists("file"), "the file is gone"


@test
def s3_resumes_download():
    """Each reply is cut at half of what was left: whole downloads would need 2^n of them."""
    data = random.Random(SEED).randbytes(1 << 20)
    with moto() as server:
        check(server.request("PUT", f"/{BUCKET}/{PREFIX}big", body=data)[0], 200)
        with flaky_proxy(server, SEED, 0, chooser=steady("truncate", 12, "GET")) as proxy, Store(proxy) as store:
            check(store("fetch", "big"), digest(data))
            check(proxy.counts, {"truncate": 12, None: 1})
        # Replaced between two pieces: all of the new one, or none where what was given cannot be taken back.
        for op, says in ((("fetch", "big"), None), (("get", "big", 1 << 22), None), (("stream", PREFIX + "big", 0), "was replaced or removed")):
            text = [b"x" * 1_000_000, b"y" * 1_000_001]
            check(server.request("PUT", f"/{BUCKET}/{PREFIX}big", body=text[0])[0], 200)
            calls = []

            def replace(method, path):
                calls.append(path)
                if len(calls) == 1:
                    return "truncate"
                if len(calls) == 2:
                    server.request("PUT", f"/{BUCKET}/{PREFIX}big", body=text[1])
                return None
            with flaky_proxy(server, SEED, 0, chooser=replace) as proxy, Store(proxy) as store:
                if says:
                    store.fails(*op, says=says)
                else:
                    check(store(*op), digest(text[1]) if op[0] == "fetch" else text[1].decode())
                    check(len(calls), 3)


@test
def s3_stalled():
    """A connection on which nothing moves is given up after 20 s, and the request is made again."""
    with moto() as server, flaky_proxy(server, SEED, 0, chooser=steady("hang", 1, "PUT")) as proxy, Store(proxy) as store:
        began = time.monotonic()
        check(store("create", "a", "b"), 1)
        took = time.monotonic() - began
        assert 15 < took < 29, f"took {took:.1f} s"


@test
def s3_gives_up():
    """A store that is down: ten seconds, not for ever; the message has what the store said."""
    with moto() as server:
        for fault, says in (("slow_down", ["503", "SlowDown", "by the flaky proxy", "tries"]), ("reset_before", ["tries"])):
            with flaky_proxy(server, SEED, 1, faults=[fault]) as proxy, Store(proxy) as store:
                began = time.monotonic()
                store.fails("create", "a", "b", says=[*says, f"PutObject {PLACE}/a"])
                took = time.monotonic() - began
                assert 4 < took < 14, f"gave up after {took:.1f} s"
                assert proxy.counts[fault] >= 6, proxy.counts


def flaky(server, rate, serial=False):
    """Random operations by one process against a model of what must be there, and races of four, while `rate` of the requests go wrong."""
    rng = random.Random(SEED)
    expected = {}
    with flaky_proxy(server, SEED, rate, serial=serial) as proxy:
        with Store(proxy) as store:
            check(store("prepare"), 0)
            for i in range(100 * ROUNDS):
                name = f"d{rng.randrange(3)}/f{rng.randrange(5)}"
                text = f"{i} " + "x" * rng.randrange(3000)
                op = rng.choice(["create", "create", "put", "get", "exists", "list", "remove", "fetch"])
                if op == "create":
                    check(store("create", name, text), 0 if name in expected else 1)
                    expected.setdefault(name, text)
                elif op == "put":
                    check(store("put", name, text), 0)
                    expected[name] = text
                elif op == "get":
                    check(store("get", name, 10000), expected.get(name))
                elif op == "exists":
                    check(store("exists", name), int(name in expected))
                elif op == "list":
                    check(store("list-tree", ""), sorted(expected))
                elif op == "fetch":
                    check(store("fetch", name), digest(expected[name].encode()) if name in expected else None)
                else:
                    check(store("remove", name), 0)
                    expected.pop(name, None)
            check(server.keys(BUCKET), sorted(PREFIX + name for name in expected))
            for i in range(ROUNDS):
                data = rng.randbytes(34_000_000)
                with open("file", "wb") as f:
                    f.write(data)
                check(store("put-file", "d0/big", "file"), 0)
                check(hashlib.sha256(server.request("GET", f"/{BUCKET}/{PREFIX}d0/big")[2]).hexdigest(), digest(data)["sha256"])
                check(store("fetch", "d0/big"), digest(data))
            check(store("remove-tree", ""), 0)
            check(server.keys(BUCKET), [])
        race([proxy] * 4, 20 * ROUNDS)
        assert all(proxy.counts.get(fault) for fault in FAULTS), f"not every fault was drawn: {proxy.counts}"


@test
def s3_flaky_moto():
    with moto() as server:
        flaky(server, 0.2, serial=True)


@test
def s3_flaky_versitygw():
    with versitygw() as server:
        flaky(server, 0.2)


if __name__ == "__main__":
    main()
