"""S3 for tests: servers that others wrote, and a proxy that spoils what goes through it.

    start_moto()            moto_server (PyPI moto), all in memory
    start_versitygw(dir)    versitygw, objects are files below dir
    flaky_proxy(target, seed, rate, ...)    in front of one of them

Each gives a Server: endpoint, env (for programs that speak S3), create_bucket(), request() (signed here, by the standard library alone, so that
tests need not believe the client under test), stop(). Skip is raised where a server is not to be had.
"""
import contextlib
import datetime
import hashlib
import hmac
import http.client
import http.server
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse

from e2e import ROOT, Skip

ACCESS_KEY = "tokenmill-test"
SECRET_KEY = "tokenmill-test-secret"
REGION = "us-east-1"


class Server:
    def __init__(self, endpoint, stop, region=REGION):
        self.endpoint = endpoint
        self.stop = stop
        self.region = region
        self.env = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": region,
            "AWS_ENDPOINT_URL_S3": endpoint, "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1",
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def request(self, method, path, query=None, body=b"", headers=None):
        """(status, headers, body) of one signed request."""
        host = self.endpoint.split("//")[1]
        fields = sign(self.region, method, host, path, query or {}, body, headers or {})
        url = urllib.parse.quote(path, safe="/-._~") + ("?" + canonical_query(query) if query else "")
        connection = http.client.HTTPConnection(host, timeout=60)
        try:
            connection.request(method, url, body=body, headers=fields)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()

    def create_bucket(self, bucket):
        status, _, body = self.request("PUT", f"/{bucket}")
        assert status == 200, f"creating the bucket {bucket}: {status} {body!r}"

    def keys(self, bucket, prefix=""):
        """All keys, by a plain listing in pages."""
        found, token = [], None
        while True:
            query = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {})}
            status, _, body = self.request("GET", f"/{bucket}", query)
            assert status == 200, f"listing {bucket}: {status} {body!r}"
            text = body.decode()
            found += [part.split("</Key>")[0] for part in text.split("<Key>")[1:]]
            if "<IsTruncated>true" not in text:
                return found
            token = text.split("<NextContinuationToken>")[1].split("<")[0]


def canonical_query(query):
    quote = lambda s: urllib.parse.quote(s, safe="-._~")
    return "&".join(f"{quote(k)}={quote(v)}" for k, v in sorted(query.items()))


def sign(region, method, host, path, query, body, headers):
    """Header fields with AWS Signature Version 4."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    fields = {**{k.lower(): v for k, v in headers.items()}, "host": host, "x-amz-date": now,
              "x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
    names = ";".join(sorted(fields))
    canonical = "\n".join([method, urllib.parse.quote(path, safe="/-._~"), canonical_query(query),
                           *(f"{k}:{fields[k]}" for k in sorted(fields)), "", names, fields["x-amz-content-sha256"]])
    scope = f"{now[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = ("AWS4" + SECRET_KEY).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return {**fields, "authorization": f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(command, port, **popen):
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **popen)

    def stop():
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return stop
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                stop()
                raise AssertionError(f"{command[0]} does not answer on port {port}")
            time.sleep(0.05)


def start_moto():
    venv = os.path.join(ROOT, "build/venv/bin/moto_server")
    beside = os.path.join(os.path.dirname(sys.executable), "moto_server")
    program = next((p for p in (venv, beside) if os.path.exists(p)), shutil.which("moto_server"))
    if not program:
        raise Skip("no moto_server (scripts/venv.sh makes build/venv with it)")
    port = free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return Server(f"http://127.0.0.1:{port}", start([program, "-H", "127.0.0.1", "-p", str(port)], port, env=env))


def start_versitygw(directory, region=REGION, tls=None):
    """tls: (certificate, key) files; then buckets are made beforehand, as directories below `directory`."""
    r = subprocess.run([os.path.join(ROOT, "scripts/versitygw.sh")], capture_output=True, text=True)
    if r.returncode:
        raise Skip((r.stderr.strip().splitlines() or ["versitygw.sh failed"])[-1])
    port = free_port()
    os.makedirs(directory, exist_ok=True)
    directory = os.path.abspath(directory)
    sidecar = os.path.join(os.path.dirname(directory), "meta-of-" + os.path.basename(directory))  # not every file system has extended attributes
    os.makedirs(sidecar, exist_ok=True)
    env = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    command = [r.stdout.strip(), "--port", f"127.0.0.1:{port}", "--region", region, "--quiet", "--keep-alive",
               *(["--cert", tls[0], "--key", tls[1]] if tls else []), "posix", "--sidecar", sidecar, directory]
    return Server(f"{'https' if tls else 'http'}://127.0.0.1:{port}", start(command, port, env=env), region)


# What the proxy does to a request that was drawn: the first three before the store sees it, the others after the store has done it.
FAULTS = ("error", "slow_down", "reset_before", "reset_after", "lost_error", "truncate")


def flaky_proxy(target, seed, rate, faults=FAULTS, strip=(), chooser=None, serial=False):
    """A proxy in front of target (a Server or an endpoint) that spoils a share `rate` of requests. strip: header fields it removes. chooser, if
    given, says for each (method, path) the fault or None instead of chance; beside FAULTS it may say "hang" (no answer, for 30 s) or (STATUS, CODE).
    serial: PUTs reach the target one at a time. moto looks for the key and stores it in two steps on many threads, so that If-None-Match has two
    winners now and then, which no store does that is worth its name. The Server has counts, a dict of faults done."""
    region = getattr(target, "region", REGION)
    target = getattr(target, "endpoint", target).split("//")[1]
    rng, lock, put_lock, counts = random.Random(seed), threading.Lock(), threading.Lock(), {}
    strip = {s.lower() for s in strip}

    def draw(method, path):
        with lock:
            fault = chooser(method, path) if chooser else rng.choice(faults) if rng.random() < rate else None
            counts[fault] = counts.get(fault, 0) + 1
            return fault

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_):
            pass

        def reset(self):
            """Close with RST: unread data and unsent data are lost."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def say(self, status, fields, body, n_body=None):
            lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '-')}", *(f"{k}: {v}" for k, v in fields)]
            head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
            self.wfile.write(head + (b"" if self.command == "HEAD" else body[:n_body]))

        def error(self, status, code):
            body = f"<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by the flaky proxy</Message></Error>".encode()
            self.say(status, [("Content-Length", len(body)), ("Content-Type", "application/xml")], body)

        def forward(self, body):
            if not hasattr(self.server.local, "connection"):
                self.server.local.connection = http.client.HTTPConnection(target, timeout=60)
            connection = self.server.local.connection
            fields = {k: v for k, v in self.headers.items() if k.lower() not in strip and k.lower() != "connection"}
            for last in (False, True):
                try:
                    connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for k, v in fields.items():
                        connection.putheader(k, v)
                    connection.endheaders(body or None)
                    reply = connection.getresponse()
                    return reply, reply.read()
                except (http.client.HTTPException, OSError):
                    connection.close()
                    # A kept connection may have been closed meanwhile; nothing else goes wrong behind the proxy.
                    if last:
                        raise

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = draw(self.command, self.path)
            if fault == "error":
                return self.error(500, "InternalError")
            if fault == "slow_down":
                return self.error(503, "SlowDown")
            if isinstance(fault, tuple):
                return self.error(*fault)
            if fault == "hang":
                time.sleep(30)
            if fault in ("reset_before", "hang"):
                return self.reset()
            with put_lock if serial and self.command == "PUT" else contextlib.nullcontext():
                reply, got = self.forward(body)
            if fault == "reset_after":
                return self.reset()
            if fault == "lost_error":
                return self.error(502, "")
            fields = [(k, v) for k, v in reply.getheaders() if k.lower() not in ("transfer-encoding", "connection", "content-length")]
            n = reply.headers.get("Content-Length") if self.command == "HEAD" else len(got)
            if n is not None and reply.status != 204:
                fields.append(("Content-Length", n))
            if fault == "truncate":
                if len(got) > 1:
                    self.say(reply.status, fields, got, len(got) // 2)
                self.close_connection = True
                return None
            return self.say(reply.status, fields, got)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    class ProxyServer(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64
        local = threading.local()

        def handle_error(self, *_):
            pass  # the client went away

    proxy = ProxyServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()

    def stop():
        proxy.shutdown()
        proxy.server_close()

    server = Server(f"http://127.0.0.1:{proxy.server_address[1]}", stop, region)
    server.counts = counts
    return server
