"""A small Kubernetes API server for tests: stores jobs, pods and events, checks who asks, serves pages, watches and logs, and fails on order.

It is no model of Kubernetes: nothing runs. What a test wants to see happen (a pod that waits, a Job that ends) it puts there by itself. What the real one
does is seen on a real one; this one is for faults that a real one cannot be asked for. Standard library only.
"""
import copy
import http.server
import json
import re
import ssl
import threading
import time
import urllib.parse

PATH = re.compile(r"^/apis?/(?:batch/)?v1(?:/namespaces/([^/]+))?/([a-z]+)(?:/([^/]+))?(?:/([a-z]+))?$")
KINDS = {"jobs": "Job", "pods": "Pod", "events": "Event"}


class Server:
    def __init__(self, token="secret", page=2, tls=None):
        self.token, self.page = token, page
        self.lock = threading.Condition()
        self.objects = {}   # (resource, namespace, name) -> object
        self.history = []   # (version, resource, type, object)
        self.version = 100
        self.oldest = 0     # a watch from before this version gets 410
        self.requests = []  # (method, path, query, headers, body)
        self.faults = []    # [method, path pattern, how often left, what]: an HTTP status, "reset" (before it is done), "lost" (after)
        self.forbidden = None  # (verb, resource)
        self.logs = {}      # pod -> bytes, or a function that writes to a stream
        self.watch_limit = None  # seconds after which a watch is cut off midway
        handler = type("Handler", (Handler,), {"server_": self, "protocol_version": "HTTP/1.1"})
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *args: None  # a client that is killed hangs up
        scheme = "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls["cert"], tls["key"])
            if tls.get("client_ca"):
                context.load_verify_locations(tls["client_ca"])
                context.verify_mode = ssl.CERT_REQUIRED
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
            scheme = "https"
        self.port = self.http.server_address[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def put(self, resource, obj, kind="ADDED"):
        """Store an object (a test's, or a request's) and tell those who watch."""
        with self.lock:
            self.version += 1
            meta = obj.setdefault("metadata", {})
            meta.setdefault("namespace", "default")
            meta.setdefault("uid", f"uid-{self.version}")
            meta.setdefault("creationTimestamp", "2026-01-31T02:03:04Z")
            meta["resourceVersion"] = str(self.version)
            key = (resource, meta["namespace"], meta["name"])
            if kind == "DELETED":
                self.objects.pop(key, None)
            else:
                kind = "MODIFIED" if key in self.objects else "ADDED"
                self.objects[key] = obj
            self.history.append((self.version, resource, kind, copy.deepcopy(obj)))
            self.lock.notify_all()
            return obj

    def get(self, resource, name, namespace="default"):
        return copy.deepcopy(self.objects[(resource, namespace, name)])

    def change(self, resource, name, patch, namespace="default"):
        with self.lock:
            obj = self.get(resource, name, namespace)
            merge(obj, patch)
            return self.put(resource, obj)

    def forget(self):
        """As if the past had been compacted: watches must list again."""
        with self.lock:
            self.oldest = self.version + 1
            self.version += 1
            self.lock.notify_all()

    def asked(self, method, pattern):
        return [r for r in self.requests if r[0] == method and re.search(pattern, r[1])]


def merge(obj, patch):
    for k, v in patch.items():
        if v is None:
            obj.pop(k, None)
        elif isinstance(v, dict) and isinstance(obj.get(k), dict):
            merge(obj[k], v)
        else:
            obj[k] = v


def selected(obj, labels, fields):
    have = obj["metadata"].get("labels", {})
    for part in filter(None, (labels or "").split(",")):
        k, v = part.split("=")
        if have.get(k) != v:
            return False
    for part in filter(None, (fields or "").split(",")):
        k, v = part.split("=")
        value = obj
        for step in k.split("."):
            value = value.get(step, {}) if isinstance(value, dict) else {}
        if value != v:
            return False
    return True


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def send(self, status, body, headers=()):
        data = json.dumps(body).encode() if not isinstance(body, bytes) else body
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for k, v in headers:
            self.send_header(k, v)
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, code, reason, message, details=None, headers=()):
        self.send(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "details": details or {}, "code": code},
                  headers)

    def reset(self):
        self.close_connection = True
        self.connection.close()

    def fault(self, method, path):
        s = self.server_
        with s.lock:
            for f in s.faults:
                if f[2] > 0 and f[0] == method and re.search(f[1], path):
                    f[2] -= 1
                    return f[3]
        return None

    def handle_all(self):
        s = self.server_
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(body) if body else None
        with s.lock:
            s.requests.append((self.command, url.path, query, dict(self.headers), body))
        what = self.fault(self.command, url.path)
        if what == "reset":
            return self.reset()
        if isinstance(what, int):
            return self.refuse(what, "TooManyRequests" if what == 429 else "InternalError", "on order", headers=[("Retry-After", "1")] if what == 429 else [])
        if s.token and self.headers.get("Authorization") != f"Bearer {s.token}":
            return self.refuse(401, "Unauthorized", "Unauthorized")
        m = PATH.match(url.path)
        if not m:
            return self.refuse(404, "NotFound", "the server could not find the requested resource")
        namespace, resource, name, sub = m.groups()
        verb = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}[self.command]
        if s.forbidden == (verb, resource):
            return self.refuse(403, "Forbidden", f'{resource} is forbidden: User "jane" cannot {verb} resource "{resource}" in the namespace "{namespace}"')
        if sub == "log":
            return self.log(name, query)
        if verb == "list" and query.get("watch") == "true":
            return self.watch(resource, namespace, query)
        status, answer = getattr(self, verb)(resource, namespace, name, query, body)
        if what == "lost":
            return self.reset()
        headers = [("Warning", '299 - "policy says hm"')] if verb == "create" and resource == "jobs" else []
        if status >= 400:
            return self.refuse(status, *answer)
        return self.send(status, answer, headers)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_all

    def get(self, resource, namespace, name, query, body):
        with self.server_.lock:
            obj = self.server_.objects.get((resource, namespace, name))
            return (200, copy.deepcopy(obj)) if obj else (404, ("NotFound", f'{resource}.batch "{name}" not found'))

    def list(self, resource, namespace, name, query, body):
        s = self.server_
        with s.lock:
            found = [copy.deepcopy(o) for (r, n, _), o in sorted(s.objects.items())
                     if r == resource and (namespace is None or n == namespace) and selected(o, query.get("labelSelector"), query.get("fieldSelector"))]
            start = int(query.get("continue") or 0)
            size = min(s.page, int(query.get("limit") or s.page))
            meta = {"resourceVersion": str(s.version)}
            if start + size < len(found):
                meta["continue"] = str(start + size)
            return 200, {"kind": KINDS[resource] + "List", "apiVersion": "v1", "metadata": meta, "items": found[start:start + size]}

    def create(self, resource, namespace, name, query, body):
        s = self.server_
        with s.lock:
            if body["kind"] != KINDS[resource]:
                return 400, ("BadRequest", "the object provided is unrecognized")
            if (resource, namespace, body["metadata"]["name"]) in s.objects:
                return 409, ("AlreadyExists", f'{resource}.batch "{body["metadata"]["name"]}" already exists')
            if body["spec"].get("unknownField"):
                return 422, ("Invalid", "strict decoding error", {"causes": [{"reason": "FieldValueInvalid", "field": "spec.unknownField", "message": "unknown field"}]})
            body["metadata"]["namespace"] = namespace
            if query.get("dryRun") == "All":
                return 201, body
            return 201, s.put(resource, body)

    def patch(self, resource, namespace, name, query, body):
        s = self.server_
        with s.lock:
            if (resource, namespace, name) not in s.objects:
                return 404, ("NotFound", f'{resource}.batch "{name}" not found')
            return 200, s.change(resource, name, body, namespace)

    def delete(self, resource, namespace, name, query, body):
        s = self.server_
        with s.lock:
            obj = s.objects.get((resource, namespace, name))
            if not obj:
                return 404, ("NotFound", f'{resource}.batch "{name}" not found')
            uid = (body or {}).get("preconditions", {}).get("uid")
            if uid and uid != obj["metadata"]["uid"]:
                return 409, ("Conflict", "the UID in the precondition does not match")
            s.put(resource, obj, "DELETED")
            return 200, {"kind": "Status", "status": "Success"}

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def begin_stream(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def watch(self, resource, namespace, query):
        s = self.server_
        version = int(query["resourceVersion"])
        with s.lock:
            too_old = version < s.oldest
        end = time.monotonic() + min(float(query["timeoutSeconds"]), s.watch_limit or 1e9)
        self.begin_stream()
        while not too_old and time.monotonic() < end:
            with s.lock:
                if not any(h[0] > version for h in s.history):
                    s.lock.wait(0.2)
                if version < s.oldest and s.oldest > 0:
                    too_old = True
                    break
                events = [h for h in s.history if h[0] > version]
            for v, r, kind, obj in events:
                version = v
                if r == resource and obj["metadata"]["namespace"] == namespace and selected(obj, query.get("labelSelector"), query.get("fieldSelector")):
                    line = json.dumps({"type": kind, "object": obj}).encode() + b"\n"
                    self.chunk(line[:len(line) // 2])  # an event may come in pieces
                    self.chunk(line[len(line) // 2:])
            if not events:
                bookmark = {"type": "BOOKMARK", "object": {"kind": KINDS[resource], "metadata": {"resourceVersion": str(version)}}}
                self.chunk(json.dumps(bookmark).encode() + b"\n")
        if too_old:
            gone = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old resource version"}
            self.chunk(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
        elif s.watch_limit:
            return self.reset()
        self.wfile.write(b"0\r\n\r\n")

    def log(self, pod, query):
        content = self.server_.logs.get(pod)
        if content is None:
            return self.refuse(400, "BadRequest", f'container "worker" in pod "{pod}" is waiting to start: ContainerCreating')
        self.begin_stream()
        for piece in content if isinstance(content, list) else [content]:
            if isinstance(piece, float):
                time.sleep(piece)
            else:
                self.chunk(piece)
        self.wfile.write(b"0\r\n\r\n")
