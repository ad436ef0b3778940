# SPDX-License-Identifier: Apache-2.0
"""Registries with and without authentication, and the real clients: skopeo, podman and containerd in a node's sandbox."""
import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import marks
from lab import CLIENT_PORT, Lab, Node, Process, run

USER, PASSWORD = "alice", marks.secret("login")
marks.secret("token")  # in every token of token_server.py
MIRROR = f"mirror.test:{CLIENT_PORT}"
# Registries over the same data: open, htpasswd, token service.
PORTS = {"public": 5000, "basic": 5001, "bearer": 5002}
TOKEN_PORT = 5099


def upstream(mode: str) -> str:
    """The registry's name, as in image references."""
    return f"registry.test:{PORTS[mode]}"


def start_registries(lab: Lab, *modes: str, behind=0):
    """Starts the registries of these modes and tells the agents of them; the last one answers requests without ?ns=.

    `behind`: they listen so many ports higher, and the caller puts something in front of them.
    """
    auth = {"public": None, "basic": None, "bearer": None}
    if "basic" in modes:
        passwords = lab.dir / "htpasswd"
        passwords.write_text(run("htpasswd", "-Bbn", USER, PASSWORD).stdout)
        auth["basic"] = {"htpasswd": {"realm": "basic-realm", "path": str(passwords)}}
    if "bearer" in modes:
        auth["bearer"] = start_token_server(lab)
    lab.registry_port = PORTS["public"] + behind
    lab.registries = []
    for mode in dict.fromkeys(("public", *modes)):
        lab.start_registry(auth[mode], PORTS[mode] + behind, f"registry-{mode}")
        lab.registries.append({"name": upstream(mode), "endpoint": f"http://{lab.origin_address}:{PORTS[mode]}", "plainHttp": True,
                               "allowPrivate": True, "default": mode == modes[-1]})


def start_token_server(lab: Lab, tls: tuple[Path, Path] | None = None, host="auth.test") -> dict:
    """Starts the token service, by HTTPS with this certificate and key; returns distribution's auth section."""
    scheme = "https" if tls else "http"
    key, cert = lab.dir / "token.key", lab.dir / "token.crt"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=token")
    server = Path(__file__).with_name("token_server.py")
    process = Process(lab.origin_exec(sys.executable, server, "--listen", f"{lab.origin_address}:{TOKEN_PORT}", "--key", key, "--cert", cert,
                                      "--issuer", "lab-issuer", "--user", f"{USER}:{PASSWORD}", "--log", lab.dir / "tokens",
                                      *(("--tls", *tls) if tls else ())), lab.dir / "token.log")
    lab.processes.append(process)
    end = time.monotonic() + 10
    while run(*lab.origin_exec("curl", "-sk", "-o", "/dev/null", f"{scheme}://{lab.origin_address}:{TOKEN_PORT}/token"), check=False).returncode != 0:
        if time.monotonic() > end or not process.alive():
            raise RuntimeError(f"token server did not start:\n{process.text()[-1000:]}")
        time.sleep(0.05)
    return {"token": {"realm": f"{scheme}://{host}:{TOKEN_PORT}/token", "service": "registry.test", "issuer": "lab-issuer", "rootcertbundle": str(cert)}}


def auth_file(path: Path, *hosts: str, user=USER, password=PASSWORD) -> Path:
    """A login file of containers/image: credentials are looked up by the host that is asked, the mirror's too."""
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": token} for host in hosts}}))
    return path


class Sandbox:
    """A node's network with mounts and processes of its own: runtimes and their containers vanish with it."""

    SETUP = """set -e
mount --make-rprivate /
for f in hosts resolv.conf; do mount --bind /etc/netns/$0/$f /etc/$f; done
for d in /run/containerd /run/containers /run/docker /var/lib/containers; do mkdir -p $d; mount -t tmpfs tmpfs $d; done
touch "$1"
exec sleep infinity"""

    def __init__(self, node: Node):
        self.node, self.dir = node, node.dir
        ready = node.dir / "sandbox-ready"
        # Without `ip netns exec`, which hides /sys/fs/cgroup, and runc with it (CLIENTS 3).
        self.process = Process(["nsenter", f"--net=/run/netns/{node.netns}", "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
                                "bash", "-c", self.SETUP, node.netns, ready], node.dir / "sandbox.log")
        self.cgroup = f"{node.lab.prefix}-{node.name}"
        node.lab.processes.append(self)
        end = time.monotonic() + 10
        while not ready.exists():
            if time.monotonic() > end or not self.process.alive():
                raise RuntimeError(f"sandbox did not start:\n{self.process.text()[-1000:]}")
            time.sleep(0.02)
        self.init = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0]

    def kill(self):
        """With its first process go all others and every mount; control groups stay, so they are removed."""
        self.process.kill()
        for place in Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}"):
            for path in sorted(place.rglob("*/"), reverse=True):
                path.rmdir()
            place.rmdir()

    def exec(self, *args) -> list[str]:
        return ["nsenter", "-t", self.init, "--mount", "--net", "--pid", "--", *[str(a) for a in args]]

    def run(self, *args, **kwargs):
        return run(*self.exec(*args), **{"timeout": 120, **kwargs})


class Libpod:
    """skopeo and podman: registries.conf with the agent as mirror, login file with the mirror's own host:port."""

    def __init__(self, sandbox: Sandbox, mode: str, mirror=True, user: str | None = USER, password=PASSWORD):
        self.sandbox, self.mode = sandbox, mode
        name = f"{mode}-{'mirror' if mirror else 'direct'}-{user}-{password}"
        text = f'[[registry]]\nprefix = "{upstream(mode)}"\nlocation = "{upstream(mode)}"\ninsecure = true\n'
        if mirror:
            text += f'[[registry.mirror]]\nlocation = "{MIRROR}"\ninsecure = true\n'
        self.conf = sandbox.dir / f"{name}.registries.conf"
        self.conf.write_text(text)
        hosts = () if mode == "public" or user is None else (MIRROR, upstream(mode))
        (sandbox.dir / "containers.conf").write_text('[engine]\nlock_type = "file"\n')  # not a name shared by the whole machine
        self.auth = auth_file(sandbox.dir / f"{name}.auth.json", *hosts, user=user, password=password)
        self.store = [f"/var/lib/containers/{name}", f"/run/containers/{mode[:2]}{'md'[mirror]}"]  # a run root has at most 50 characters

    def skopeo_args(self, repository: str, target: Path, *args) -> list:
        return ["skopeo", "--insecure-policy", "--registries-conf", self.conf, "copy", "-q", "--authfile", self.auth, *args,
                f"docker://{upstream(self.mode)}/{repository}", f"dir:{target}"]

    def skopeo(self, repository: str, target: Path, *args, check=True):
        return self.sandbox.run(*self.skopeo_args(repository, target, *args), check=check)

    def podman(self, *args, check=True):
        base = ["env", f"CONTAINERS_CONF={self.sandbox.dir}/containers.conf", f"CONTAINERS_REGISTRIES_CONF={self.conf}", f"REGISTRY_AUTH_FILE={self.auth}", "podman", "--root", self.store[0],
                "--runroot", self.store[1], "--tmpdir", f"{self.store[1]}/tmp", "--storage-driver", "overlay", "--cgroup-manager=cgroupfs",
                "--events-backend=file", "--runtime", "runc"]
        return self.sandbox.run(*base, *args, check=check)

    def buildah(self, *args, check=True):
        base = ["env", f"CONTAINERS_REGISTRIES_CONF={self.conf}", f"REGISTRY_AUTH_FILE={self.auth}", "buildah", "--root", f"{self.store[0]}-b",
                "--runroot", f"{self.store[1]}b", "--storage-driver", "overlay"]
        return self.sandbox.run(*base, *args, check=check)

    def run_container(self, repository: str) -> str:
        limits = [f"--ulimit={name}=1024:4096" for name in ("nofile", "nproc")]  # the defaults need CAP_SYS_RESOURCE
        return self.podman("run", "--rm", "--network=none", f"--cgroup-parent=/{self.sandbox.cgroup}", *limits, f"{upstream(self.mode)}/{repository}").stdout


class Containerd:
    """A containerd of its own, and ctr."""

    def __init__(self, sandbox: Sandbox):
        self.sandbox = sandbox
        self.dir = sandbox.dir / "containerd"
        self.dir.mkdir()
        self.socket = self.dir / "c.sock"
        config = self.dir / "config.toml"
        config.write_text(f'version = 2\nroot = "{self.dir}/root"\nstate = "{self.dir}/state"\n'
                          f'[grpc]\naddress = "{self.socket}"\n[ttrpc]\naddress = "{self.socket}.ttrpc"\n'
                          f'[plugins."io.containerd.internal.v1.opt"]\npath = "{self.dir}/opt"\n'
                          f'[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "{self.dir}/certs.d"\n')
        self.process = Process(sandbox.exec("containerd", "-c", config), self.dir / "log")
        sandbox.node.lab.processes.insert(0, self.process)
        end = time.monotonic() + 20
        while self.ctr("version", check=False).returncode != 0:
            if time.monotonic() > end or not self.process.alive():
                raise RuntimeError(f"containerd did not start:\n{self.process.text()[-1500:]}")
            time.sleep(0.1)

    def hosts(self, mode: str, mirror=True) -> Path:
        """certs.d for `ctr images pull --hosts-dir`."""
        directory = self.dir / ("certs.d" if mirror else "certs-direct.d")
        place = directory / upstream(mode)
        place.mkdir(parents=True, exist_ok=True)
        host = MIRROR if mirror else upstream(mode)
        (place / "hosts.toml").write_text(f'server = "http://{upstream(mode)}"\n[host."http://{host}"]\n  capabilities = ["pull", "resolve"]\n')
        return directory

    def ctr(self, *args, check=True):
        return self.sandbox.run("ctr", "-a", self.socket, *args, check=check)

    def pull(self, mode: str, repository: str, *args, mirror=True, user=f"{USER}:{PASSWORD}", check=True):
        login = [] if mode == "public" or not user else ["--user", user]
        return self.ctr("images", "pull", "--hosts-dir", self.hosts(mode, mirror), *login, *args, f"{upstream(mode)}/{repository}", check=check)

    def cri_pull(self, mode: str, repository: str, mirror=True, user: str | None = USER, password=PASSWORD):
        """As the kubelet pulls: ImageService.PullImage of CRI v1 on containerd's socket, its protobuf and gRPC frame made by hand (CLIENTS 5).
        The hosts are those of `hosts`; straight to the registry goes a reference by its address."""
        def field(number: int, text: str | bytes) -> bytes:
            data = text.encode() if isinstance(text, str) else text
            size, rest = b"", len(data)
            while rest > 127:
                size, rest = size + bytes([rest & 127 | 128]), rest >> 7
            return bytes([number << 3 | 2]) + size + bytes([rest]) + data
        host = upstream(mode) if mirror else f"{self.sandbox.node.lab.origin_address}:{PORTS[mode]}"
        if mirror:
            self.hosts(mode)
        else:
            place = self.dir / "certs.d" / host
            place.mkdir(parents=True, exist_ok=True)
            (place / "hosts.toml").write_text(f'server = "http://{host}"\n[host."http://{host}"]\n')
        message = field(1, field(1, f"{host}/{repository}"))
        if mode != "public" and user is not None:
            message += field(2, field(1, user) + field(2, password))
        with tempfile.NamedTemporaryFile(dir=self.dir) as request:
            request.write(b"\0" + len(message).to_bytes(4, "big") + message)
            request.flush()
            done = self.sandbox.run("curl", "-sS", "-o", "/dev/null", "-D", "-", "--http2-prior-knowledge", "--unix-socket", self.socket, "-H", "content-type: application/grpc", "-H", "te: trailers",
                                    "--data-binary", f"@{request.name}", "http://containerd/runtime.v1.ImageService/PullImage", check=False)
        said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
        return subprocess.CompletedProcess(done.args, 0 if said.get("grpc-status") == "0" else 1, done.stdout, said.get("grpc-message", done.stdout + done.stderr))

    def blobs(self) -> dict[str, int]:
        """Every digest of the content store with its size, each file hashed."""
        found = {}
        for path in (self.dir / "root/io.containerd.content.v1.content/blobs/sha256").iterdir():
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != path.name:
                raise AssertionError(f"containerd holds wrong bytes under {path.name}")
            found["sha256:" + path.name] = len(data)
        return found

    def forget(self):
        """Removes all images and their content."""
        for what in ("images", "content"):
            names = self.ctr(what, "ls", "-q").stdout.split()
            if names:
                self.ctr(what, "rm", *(["--sync"] if what == "images" else []), *names)

    def run_container(self, mode: str, repository: str, name: str) -> str:
        return self.ctr("run", "--rm", "--cgroup", f"/{self.sandbox.cgroup}/{name}", f"{upstream(mode)}/{repository}", name).stdout


def directory_hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of every file of a skopeo dir:, which names blobs by their digest."""
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()}
    for name, digest in found.items():
        if re.fullmatch("[0-9a-f]{64}", name) and name != digest:
            raise AssertionError(f"{directory}: wrong bytes in {name}")
    return found
