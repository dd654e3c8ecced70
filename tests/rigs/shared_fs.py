"""Shared file systems for tests: each has `mounts`, the same directory as two hosts see it, and close().

    Plain(directory)                one directory twice: a local disk
    Tmpfs(directory, size)          the same on a disk of its own that full() makes full
    NfsSim(directory, seed, ...)    nfs_sim.h: two NFS clients, without locks, with stale caches and faults (libfuse3)
    Gluster(directory)              a GlusterFS volume of one brick, mounted twice (Debian: glusterfs-server, glusterfs-client)

Unavailable(reason) where this machine has no such thing. Standard library only.
"""
import collections
import contextlib
import os
import shutil
import socket
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NFS_SIM = os.environ.get("NFS_SIM", os.path.join(ROOT, "build/release/tests/nfs_sim"))


class Unavailable(Exception):
    pass


def quiet(*command, timeout=60):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)


def unmount(path):
    """Also while files on it are open."""
    if os.path.ismount(path) and quiet("umount", path).returncode != 0:
        quiet("umount", "-l", path)


def end(process):
    """One that was told to terminate."""
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Plain:
    def __init__(self, directory):
        self.mounts = [directory, directory]
        os.makedirs(directory, exist_ok=True)

    def close(self):
        pass


class Tmpfs:
    can_fill = True

    def __init__(self, directory, size=1 << 30):
        os.makedirs(directory, exist_ok=True)
        if quiet("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory).returncode != 0:
            raise Unavailable("mounting a tmpfs is not permitted here")
        self.directory, self.size = directory, size
        self.mounts = [directory, directory]

    def full(self, on):
        """The disk shrinks to what is used, for as long as it is on."""
        for _ in range(100):
            v = os.statvfs(self.directory)
            size = max(1, v.f_blocks - v.f_bfree) * v.f_frsize if on else self.size
            if quiet("mount", "-o", f"remount,size={size}", self.directory).returncode == 0:  # not when more was written meanwhile
                return
        raise OSError(f"{self.directory} cannot be given another size")

    def close(self):
        unmount(self.directory)


class NfsSim:
    can_fill = True

    def __init__(self, directory, seed=1, cache_seconds=3, fault_rate=0.01, read_fault_rate=0.0005):
        if not os.path.exists(NFS_SIM):
            raise Unavailable("libfuse3 is not here (make tests builds nfs_sim where it is)")
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise Unavailable("/dev/fuse cannot be used here")
        os.makedirs(directory, exist_ok=True)
        self.directory, self.servers = directory, []
        self.backing, self.control = os.path.join(directory, "server"), os.path.join(directory, "control")
        self.mounts = [os.path.join(directory, host) for host in "ab"]
        for path in (self.backing, self.control, *self.mounts):
            os.mkdir(path)
        for i, mount in enumerate(self.mounts):
            server = subprocess.Popen([NFS_SIM, "--seed", str(seed * 2 + i), "--cache-seconds", str(cache_seconds), "--fault-rate", str(fault_rate),
                                       "--read-fault-rate", str(read_fault_rate), "--control", self.control, "--log", f"{mount}.log", self.backing, mount],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(f"{mount}.err", "wb"))
            self.servers.append(server)
            if server.stdout.readline() != b"ready\n":
                self.close()
                with open(f"{mount}.err", encoding="utf-8") as f:
                    raise Unavailable(f"FUSE file systems cannot be mounted here ({f.read().strip()[-200:]})")

    def _set(self, name, on):
        path = os.path.join(self.control, name)
        if on:
            open(path, "wb").close()
        else:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)

    def faults(self, on):
        self._set("faults", on)

    def full(self, on):
        self._set("full", on)

    def counts(self):
        """(operation, kind) -> how often, over both hosts."""
        counts = collections.Counter()
        for mount in self.mounts:
            with contextlib.suppress(FileNotFoundError), open(f"{mount}.log", encoding="utf-8", errors="replace") as f:
                counts.update(tuple(line.split(" ")[:2]) for line in f)
        return counts

    def close(self):
        for server in self.servers:
            server.terminate()  # it unmounts, also where only it may
        for server, mount in zip(self.servers, self.mounts):
            end(server)
            server.stdout.close()
            unmount(mount)


def own_address():
    """One that GlusterFS accepts for a brick: not loopback. No packet is sent."""
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as s:
            s.connect((far, 9))
            return s.getsockname()[0]
    r = quiet("hostname", "-I")
    return (r.stdout.decode().split() or [None])[0]


class Gluster:
    """glusterd with its state below `directory`; one at a time on a machine, as its port is fixed."""

    PORT = 24007

    def __init__(self, directory):
        for program in ("glusterd", "gluster", "glusterfs"):
            if not shutil.which(program):
                raise Unavailable(f"{program} is not here (Debian's glusterfs-server and glusterfs-client)")
        if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
            raise Unavailable("GlusterFS needs root and /dev/fuse")
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", self.PORT)) == 0:
                raise Unavailable("another glusterd runs on this machine")
        self.directory, self.daemon, self.is_started = directory, None, False
        self.mounts = [os.path.join(directory, host) for host in "ab"]
        state = os.path.join(directory, "state")
        for path in (state, os.path.join(directory, "brick"), *self.mounts):
            os.makedirs(path)
        volfile = os.path.join(directory, "glusterd.vol")
        with open(volfile, "w", encoding="utf-8") as f:
            f.write(f"volume management\n type mgmt/glusterd\n option working-directory {state}\n option transport-type socket\n"
                    f" option transport.socket.listen-port {self.PORT}\n option ping-timeout 0\nend-volume\n")
        try:
            self._start(volfile)
        except Exception:
            self.close()
            raise

    def _gluster(self, *args):
        r = quiet("gluster", "--mode=script", *args)
        if r.returncode != 0:
            raise Unavailable(f"gluster {args[0]} {args[1]}: {r.stdout.decode('utf-8', 'replace').strip()[-300:]}")

    def _start(self, volfile):
        address = own_address()
        if not address:
            raise Unavailable("GlusterFS needs an address that is not loopback")
        self.daemon = subprocess.Popen(["glusterd", "-N", "-f", volfile, "-l", os.path.join(self.directory, "glusterd.log")], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while quiet("gluster", "--mode=script", "volume", "list").returncode != 0:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise Unavailable("glusterd does not start here")
            time.sleep(0.2)
        self._gluster("volume", "create", "chaos", f"{address}:{os.path.join(self.directory, 'brick')}", "force")
        self.is_started = True
        self._gluster("volume", "start", "chaos")
        for mount in self.mounts:
            r = quiet("mount", "-t", "glusterfs", "-o", f"log-file={mount}.log", "localhost:/chaos", mount)
            if r.returncode != 0:
                raise Unavailable(f"GlusterFS cannot be mounted here: {r.stdout.decode('utf-8', 'replace').strip()[-300:]}")

    def close(self):
        for mount in self.mounts:
            unmount(mount)
        if self.is_started:
            quiet("gluster", "--mode=script", "volume", "stop", "chaos", "force")
            quiet("gluster", "--mode=script", "volume", "delete", "chaos")
        if self.daemon:
            self.daemon.terminate()
            end(self.daemon)
