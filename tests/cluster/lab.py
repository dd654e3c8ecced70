"""A real Kubernetes on this machine: etcd, API server, controllers and scheduler, and for each node a kubelet with a containerd of its own. No VM, no
registry; pods are real containers. tests/cluster/build.sh has built the programs.

    lab = Lab(directory)       all of it is kept below this directory
    lab.start(n_nodes)         Ready after about ten seconds
    lab.load_image(archive)    into every node
    lab.kubectl("get", "pods") -> text
    lab.stop()                 ends what was started, by pid; unmounts what the nodes mounted; takes the addresses away again

One at a time in a network namespace: ports and addresses are fixed. The API server listens at 10.96.0.1, which is also the address of the service "kubernetes", so
pods reach it without kube-proxy; nodes are 10.96.1.N on the loopback device, since a kubelet refuses 127.x. There is no DNS for services.

Runs as a program, too, for a look by hand: lab.py up DIRECTORY [NODES], lab.py down DIRECTORY, lab.py image DIRECTORY ARCHIVE. Standard library only.
"""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
API = "10.96.0.1"
RUNC, CNI = "/usr/sbin/runc", "/usr/lib/cni"


class Unavailable(Exception):
    pass


def run(*command, check=True, timeout=120, **popen):
    r = subprocess.run([str(c) for c in command], stdin=popen.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, **popen)
    text = r.stdout.decode("utf-8", "replace")
    if check and r.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit status {r.returncode}\n{text[-3000:]}")
    return text


def wait_until(what, seconds, condition, pause=0.2):
    """What the condition returned once it is true."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"gave up after {seconds} s waiting for {what}")
        time.sleep(pause)


def find_kubectl():
    for path in (os.path.join(ROOT, "build/venv/bin/kubectl"), shutil.which("kubectl")):
        if path and os.path.exists(path):
            return path
    raise Unavailable("kubectl is not here (scripts/venv.sh installs it)")


def find_programs(build):
    """The directory of kubelab and containerd. Where this machine cannot run them: Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("the test cluster needs root")
    for path in (RUNC, os.path.join(CNI, "ptp"), os.path.join(CNI, "host-local")):
        if not os.path.exists(path):
            raise Unavailable(f"{path} is not here (Debian: runc, containernetworking-plugins)")
    for program in ("iptables", "openssl", "ip"):
        if not shutil.which(program):
            raise Unavailable(f"{program} is not here")
    r = subprocess.run([os.path.join(HERE, "build.sh"), *([] if build else ["--find"])], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=None if build else subprocess.PIPE)
    if r.returncode != 0:
        raise Unavailable((r.stderr or b"the cluster cannot be built here").decode().strip().splitlines()[-1])
    return r.stdout.decode().strip()


class Lab:
    def __init__(self, directory, build=False):
        self.directory = os.path.abspath(directory)
        self.bin = find_programs(build)
        self.kubectl_program = find_kubectl()
        self.kubeconfig = os.path.join(self.directory, "kubeconfig")
        os.makedirs(self.directory, exist_ok=True)

    # ---- processes ----

    def _path(self, *names):
        return os.path.join(self.directory, *names)

    def _pid(self, name):
        """None: never started, or ended."""
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            with open(self._path(f"{name}.pid"), encoding="ascii") as f:
                pid = int(f.read())
            with open(f"/proc/{pid}/stat", encoding="utf-8") as f: # a zombie of ours has ended, too
                return None if f.read().rpartition(")")[2].split()[0] == "Z" else pid
        return None

    def _start(self, name, *command, **environment):
        if self._pid(name):
            return
        with open(self._path(f"{name}.log"), "ab") as log:
            process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, start_new_session=True,
                                       env={**os.environ, **environment})
        with open(self._path(f"{name}.pid"), "w", encoding="ascii") as f:
            f.write(str(process.pid))

    def _end(self, names, sig=signal.SIGTERM, patience=8):
        """All at once, then SIGKILL for those that still run: an API server waits long for its watchers."""
        pids = {name: self._pid(name) for name in names}
        for deadline, s in ((time.monotonic() + patience, sig), (time.monotonic() + patience + 10, signal.SIGKILL)):
            for name in names:
                if self._pid(name):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pids[name], s)
            while any(self._pid(name) for name in names) and time.monotonic() < deadline:
                self._reap(pids.values())
                time.sleep(0.1)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._path(f"{name}.pid"))

    @staticmethod
    def _reap(pids):
        for pid in pids:
            with contextlib.suppress(ChildProcessError, TypeError):
                os.waitpid(pid, os.WNOHANG)

    def crash(self, name):
        """etcd, apiserver, controllers, scheduler, node-N.kubelet, node-N.containerd: SIGKILL. start() starts it again."""
        self._end([name], signal.SIGKILL)

    def pause(self, name, on):
        os.kill(self._pid(name), signal.SIGSTOP if on else signal.SIGCONT)

    def _take_address(self, address):
        """For stop() to know which are ours: another lab's must stay."""
        open(self._path(f"address-{address}"), "wb").close()
        run("ip", "addr", "replace", f"{address}/32", "dev", "lo")

    # ---- the control plane ----

    def _certificates(self):
        if os.path.exists(self._path("admin.crt")):
            return
        openssl = lambda *args: run("openssl", *args, cwd=self.directory)  # noqa: E731
        openssl("genrsa", "-out", "sa.key", "2048")
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "30", "-subj", "/CN=lab", "-addext",
                "basicConstraints=critical,CA:TRUE")
        with open(self._path("names"), "w", encoding="ascii") as f:
            f.write(f"subjectAltName=IP:{API},DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc\n")
        for name, subject, extra in (("api", "/CN=kube-apiserver", ("-extfile", "names")), ("admin", "/O=system:masters/CN=admin", ())):
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.crt", "-days", "30", *extra)

    def _write_kubeconfig(self):
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "lab",
                  "clusters": [{"name": "lab", "cluster": {"server": f"https://{API}", "certificate-authority": self._path("ca.crt")}}],
                  "users": [{"name": "admin", "user": {"client-certificate": self._path("admin.crt"), "client-key": self._path("admin.key")}}],
                  "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}]}
        with open(self.kubeconfig, "w", encoding="utf-8") as f:
            json.dump(config, f)

    def _is_ready(self):
        return subprocess.run([self.kubectl_program, "--kubeconfig", self.kubeconfig, "get", "--raw", "/readyz"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0

    def start_control(self):
        """What does not run of it, so also after crash()."""
        if not os.path.exists(self._path(f"address-{API}")) and f" {API}/" in run("ip", "-o", "addr", "show", "dev", "lo"):
            raise Unavailable(f"another test cluster runs here: {API} is taken")
        self._take_address(API)
        self._certificates()
        self._write_kubeconfig()
        kubelab, etcd = os.path.join(self.bin, "kubelab"), "http://127.0.0.1:12379"
        self._start("etcd", kubelab, "etcd", "--name", "lab", "--data-dir", "etcd", "--unsafe-no-fsync", "--log-level", "warn", "--listen-client-urls", etcd,
                    "--advertise-client-urls", etcd, "--listen-peer-urls", "http://127.0.0.1:12380", "--initial-advertise-peer-urls", "http://127.0.0.1:12380",
                    "--initial-cluster", "lab=http://127.0.0.1:12380")
        self._start("apiserver", kubelab, "apiserver", "--etcd-servers", etcd, "--bind-address", API, "--advertise-address", API, "--secure-port", "443",
                    "--tls-cert-file", "api.crt", "--tls-private-key-file", "api.key", "--client-ca-file", "ca.crt", "--authorization-mode", "Node,RBAC",
                    "--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", "sa.key",
                    "--service-account-signing-key-file", "sa.key", "--service-cluster-ip-range", "10.96.0.0/24", "--endpoint-reconciler-type", "none",
                    "--allow-privileged", "--kubelet-preferred-address-types", "InternalIP")
        wait_until(f"the API server ({self._path('apiserver.log')})", 120, self._is_ready)
        # Both end when there is no API server yet.
        clients = ("--kubeconfig", "kubeconfig", "--authentication-kubeconfig", "kubeconfig", "--authorization-kubeconfig", "kubeconfig", "--leader-elect=false",
                   "--bind-address", "127.0.0.1")
        self._start("controllers", kubelab, "controllers", *clients, "--service-account-private-key-file", "sa.key", "--root-ca-file", "ca.crt",
                    "--node-monitor-grace-period", "10s")
        self._start("scheduler", kubelab, "scheduler", *clients)

    # ---- nodes ----

    def _node_files(self, n):
        node = self._path(f"node-{n}")
        for name in ("cni", "kubelet"):
            os.makedirs(os.path.join(node, name), exist_ok=True)
        network = {"cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": "ptp", "ipam": {
            "type": "host-local", "dataDir": f"{node}/ipam", "subnet": f"10.244.{n}.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}]}
        # Without a systemd, with cgroups of version 1, and where CAP_SYS_RESOURCE is missing: so it runs inside a container, too.
        # Network namespaces below the state directory: stop() finds them there.
        containerd = f'''version = 3
root = "{node}/root"
state = "{node}/state"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{node}/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "localhost/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  disable_hugetlb_controller = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{CNI}"]
    conf_dir = "{node}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{RUNC}"
      SystemdCgroup = false
'''
        kubelet = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failCgroupV1": False, "cgroupDriver": "cgroupfs",
                   "cgroupsPerQOS": False, "enforceNodeAllocatable": [], "failSwapOn": False, "containerRuntimeEndpoint": f"unix://{node}/containerd.sock",
                   "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}}, "authorization": {"mode": "AlwaysAllow"},
                   "address": f"10.96.1.{n}", "port": 10250, "healthzPort": 0, "readOnlyPort": 0, "localStorageCapacityIsolation": False,
                   "evictionHard": {"memory.available": "100Mi"}, "maxPods": 60, "makeIPTablesUtilChains": False, "podLogsDir": f"{node}/podlogs",
                   "nodeStatusUpdateFrequency": "2s", "volumePluginDir": f"{node}/plugins"}
        for name, text in (("cni/10-lab.conflist", json.dumps(network)), ("containerd.toml", containerd), ("kubelet.json", json.dumps(kubelet))):
            with open(os.path.join(node, name), "w", encoding="utf-8") as f:
                f.write(text)
        return node

    def ctr(self, n, *args, **options):
        return run(os.path.join(self.bin, "ctr"), "-a", self._path(f"node-{n}", "containerd.sock"), "-n", "k8s.io", *args, **options)

    def start_node(self, n):
        node = self._node_files(n)
        self._take_address(f"10.96.1.{n}")
        with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as f:
            f.write("1")
        self._start(f"node-{n}.containerd", os.path.join(self.bin, "containerd"), "-c", f"{node}/containerd.toml", PATH=f"{self.bin}:{os.environ['PATH']}")
        wait_until(f"containerd of node {n}", 60, lambda: "Server:" in self.ctr(n, "version", check=False))
        self.ctr(n, "images", "import", os.path.join(self.bin, "pause.tar"))
        self._start(f"node-{n}.kubelet", os.path.join(self.bin, "kubelab"), "kubelet", "--config", f"{node}/kubelet.json", "--kubeconfig", "kubeconfig",
                    "--root-dir", f"{node}/kubelet", "--cert-dir", f"{node}/kubelet/pki", "--hostname-override", f"node-{n}", "--node-ip", f"10.96.1.{n}")

    def nodes(self):
        return sorted(int(name[5:]) for name in os.listdir(self.directory) if name.startswith("node-") and name[5:].isdigit())

    def start(self, n_nodes=2):
        self.start_control()
        for n in range(1, n_nodes + 1):
            self.start_node(n)
        self.kubectl("wait", "--for=condition=Ready", "--timeout=90s", *[f"node/node-{n}" for n in range(1, n_nodes + 1)], tries=30)

    def load_image(self, archive):
        for n in self.nodes():
            self.ctr(n, "images", "import", archive, timeout=300)

    def stop(self):
        names = {name[:-4] for name in os.listdir(self.directory) if name.endswith(".pid")}
        kubelets = [name for name in names if name.endswith(".kubelet")]
        self._end(kubelets)
        for n in self.nodes():
            if self._pid(f"node-{n}.containerd"):
                for task in self.ctr(n, "tasks", "ls", "-q", check=False).split():
                    self.ctr(n, "tasks", "rm", "-f", task, check=False)
        self._end(names - set(kubelets))
        with open("/proc/mounts", encoding="utf-8") as f:
            mounts = [line.split()[1] for line in f]
        for mount in sorted((m for m in mounts if m.startswith(self.directory + "/")), reverse=True):
            run("umount", "-l", mount, check=False)
        for name in os.listdir(self.directory):
            if name.startswith("address-"):  # never those of another lab that runs here
                run("ip", "addr", "del", f"{name[8:]}/32", "dev", "lo", check=False)
                os.remove(self._path(name))

    # ---- kubectl ----

    def kubectl(self, *args, check=True, tries=1, **options):
        """`tries`: what is asked for may not be there yet."""
        for left in reversed(range(tries)):
            try:
                return run(self.kubectl_program, "--kubeconfig", self.kubeconfig, *args, check=check, **options)
            except AssertionError:
                if not left:
                    raise
                time.sleep(1)

    def get(self, *args):
        return json.loads(self.kubectl("get", *args, "-o", "json"))


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("up", "down", "image"):
        print(__doc__)
        return 2
    lab = Lab(sys.argv[2], build=True)
    if sys.argv[1] == "up":
        lab.start(int(sys.argv[3]) if len(sys.argv) > 3 else 2)
        print(f"export KUBECONFIG={lab.kubeconfig}")
    elif sys.argv[1] == "image":
        lab.load_image(sys.argv[3])
    else:
        lab.stop()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unavailable as e:
        sys.exit(f"lab: {e}")
