#!/usr/bin/env python3
"""Signatures of random S3 requests, made by base/sigv4.c (through tool_sigv4) and by botocore: both must agree byte for byte.
Usage: scripts/diff-sigv4.py [COUNT [SEED]]"""
import calendar
import json
import os
import random
import subprocess
import sys
import time
import urllib.parse

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOL = os.path.join(ROOT, "build/release/tests/tool_sigv4")
LETTERS = "abcXYZ019-._~/ +%&=?#*!'()$,;:@[]{}|\\^`\"<>\u00e4\u20ac\U0001f600\x01\x7f"


def text(rng, most):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randrange(most)))


def word(rng, letters, most):
    return "".join(rng.choice(letters) for _ in range(1 + rng.randrange(most)))


def case(rng):
    """A request for the tool, and what botocore makes of it."""
    names = "abcdefghijklmnopqrstuvwxyz0123456789"
    r = {
        "access_key": word(rng, names.upper(), 20), "secret_key": word(rng, names + "/+", 40), "region": word(rng, names + "-", 12),
        "token": word(rng, names + "/+=", 60) if rng.random() < 0.5 else None,
        "method": rng.choice(["GET", "PUT", "POST", "DELETE", "HEAD"]), "path": "/" + text(rng, 30),
        "query": [[k, text(rng, 12)] for k in sorted({word(rng, names + "-", 8) for _ in range(rng.randrange(5))})],
    }
    presigned = rng.random() < 0.3
    host = word(rng, names, 10) + rng.choice([".s3.amazonaws.com", ":9000", ".example"])
    url = f"https://{host}{urllib.parse.quote(r['path'], safe='/-._~')}"
    body = b"" if presigned else text(rng, 40).encode()
    fields = {} if presigned else {f"x-amz-meta-{word(rng, names, 5)}": word(rng, names + '"/=*', 20) for _ in range(rng.randrange(3))}
    if not presigned and rng.random() < 0.5:
        fields.update({"If-None-Match": "*", "Range": f"bytes={rng.randrange(1000)}-"})
    request = AWSRequest(method=r["method"], url=url, headers=fields, data=body, params=dict(r["query"]))
    # Over TLS botocore does not hash the body unless told to.
    request.context = {"client_config": None, "payload_signing_enabled": True, "has_streaming_input": False}
    credentials = Credentials(r["access_key"], r["secret_key"], r["token"])
    if presigned:
        r["valid_s"] = 1 + rng.randrange(600000)
        S3SigV4QueryAuth(credentials, "s3", r["region"], expires=r["valid_s"]).add_auth(request)
        expected = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(request.url).query, keep_blank_values=True, strict_parsing=True))
        date, r["sha256"], r["fields"] = expected["X-Amz-Date"], "UNSIGNED-PAYLOAD", [["host", host]]
    else:
        r["valid_s"] = 0
        S3SigV4Auth(credentials, "s3", r["region"]).add_auth(request)
        expected = request.headers["Authorization"]
        date, r["sha256"] = request.headers["X-Amz-Date"], request.headers["X-Amz-Content-SHA256"]
        r["fields"] = [["host", host], *([k.lower(), v] for k, v in request.headers.items() if k.lower() not in ("authorization", "host"))]
        rng.shuffle(r["fields"])
    rng.shuffle(r["query"])
    r["unix_s"] = calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    return r, expected


def main():
    count, seed = (int(a) for a in (sys.argv[1:] + ["2000", "1"][len(sys.argv) - 1:])[:2])
    rng = random.Random(seed)
    cases = [case(rng) for _ in range(count)]
    lines = "".join(json.dumps(r) + "\n" for r, _ in cases)
    out = subprocess.run([TOOL], input=lines.encode(), stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
    assert len(out) == count, f"{len(out)} answers to {count} requests"
    for (r, expected), got in zip(cases, out):
        if r["valid_s"]:
            got = dict(urllib.parse.parse_qsl(got, keep_blank_values=True, strict_parsing=True))
        if got != expected:
            print(f"FAIL sigv4\n{json.dumps(r)}\nbotocore: {expected}\nours:     {got}")
            sys.exit(1)
    kinds = sum(1 for r, _ in cases if r["valid_s"])
    print(f"ok sigv4 ({count - kinds} requests and {kinds} presigned URLs as botocore signs them)")


main()
