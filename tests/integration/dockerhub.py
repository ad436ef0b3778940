# SPDX-License-Identifier: Apache-2.0
"""dockerd, and a Docker Hub for it: registry-1.docker.io and its token service behind TLS, found by the sandbox's hosts file.

Docker asks mirrors for Docker Hub's names alone, and goes to the Hub by itself where they fail. `registry-1.docker.io/...` as an image's
name is no name of the Hub's to it: that is the straight way to the same registry.
"""
import base64
import hashlib
import json
import os
import tarfile
import time
from pathlib import Path

from lab import Lab, Process
from registries import make_certificate
from runtimes import MIRROR, PASSWORD, USER, Containerd, start_token_server

HUB, HUB_TOKENS = "registry-1.docker.io", "auth.docker.io"
LOGIN = "https://index.docker.io/v1/"  # as `docker login` calls the Hub
DOCKER = "/usr/bin/docker"  # Debian's, of dockerd's own version


def hub_certificate(lab: Lab) -> tuple[Path, Path]:
    lab.hub_cert, key = make_certificate(lab.dir, "hub", HUB, HUB_TOKENS)
    return lab.hub_cert, key


def know_hub(node, address: str):
    """From now on this address is the Hub's to programs of the node."""
    hosts = Path(f"/etc/netns/{node.netns}/hosts")
    hosts.write_text(hosts.read_text() + f"{address} {HUB} {HUB_TOKENS}\n")


def start_hub(lab: Lab):
    """A Hub: tokens for everybody for what is public, by login for the rest. Agents know it as docker.io, their default; tests push around it."""
    pair = hub_certificate(lab)
    lab.start_registry()
    lab.start_registry(start_token_server(lab, pair, HUB_TOKENS), 443, "hub", tls={"certificate": str(pair[0]), "key": str(pair[1])})
    lab.registries = [{"name": "docker.io", "endpoint": f"https://{HUB}", "ca": str(lab.hub_cert), "allowPrivate": True, "default": True}]
    for node in lab.nodes:
        know_hub(node, lab.origin_address)


def daemon_json(sandbox, containerd: Containerd) -> dict:
    """A configuration with places of its own and without a network for containers."""
    place = sandbox.dir / "docker"
    return {"hosts": [f"unix://{place}/d.sock"], "data-root": f"{place}/root", "exec-root": f"{place}/exec", "pidfile": f"{place}/pid",
            "containerd": str(containerd.socket), "deprecated-key-path": f"{place}/key.json", "storage-driver": "overlay2",
            "iptables": False, "ip6tables": False, "bridge": "none", "cgroup-parent": f"/{sandbox.cgroup}"}


class Dockerd:
    """A dockerd in a sandbox, with that one's containerd, and docker; its mounts and processes vanish with the sandbox."""

    def __init__(self, containerd: Containerd, config: Path | None = None, settings: dict | None = None):
        """`config`: a whole daemon.json, made from daemon_json(); without it the agent is the mirror."""
        self.sandbox = containerd.sandbox
        self.dir = self.sandbox.dir / "docker"
        self.dir.mkdir(exist_ok=True)
        if config is None:
            config = self.dir / "daemon.json"
            config.write_text(json.dumps({**daemon_json(self.sandbox, containerd), "registry-mirrors": [f"http://{MIRROR}"], **(settings or {})}))
        self.process = Process(self.sandbox.exec("dockerd", "--config-file", config), self.dir / "log",
                               env={**os.environ, "SSL_CERT_FILE": str(self.sandbox.node.lab.hub_cert)})
        self.sandbox.node.lab.processes.insert(0, self.process)
        end = time.monotonic() + 30
        while self.docker("version", check=False).returncode != 0:
            if time.monotonic() > end or not self.process.alive():
                raise RuntimeError(f"dockerd did not start:\n{self.process.text()[-1500:]}")
            time.sleep(0.1)

    def docker(self, *args, user: str | None = None, password=PASSWORD, check=True):
        """docker with this login, for the Hub and for the straight way to it."""
        config = self.dir / f"client-{user}-{password}"
        config.mkdir(exist_ok=True)
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        file = config / "config.json"
        if not file.exists():
            file.write_text(json.dumps({"auths": {host: {"auth": token} for host in (LOGIN, HUB) if user}}))
        return self.sandbox.run(DOCKER, "--config", config, "-H", f"unix://{self.dir}/d.sock", *args, check=check)

    def pull(self, name: str, user: str | None = USER, password=PASSWORD, mirror=True, check=True):
        return self.docker("pull", "-q", name if mirror else f"{HUB}/{name}", user=user, password=password, check=check)

    def holds(self, name: str, image: dict) -> bool:
        """The image of this manifest, and whatever its configuration says of the layers: dockerd has compared them with it."""
        said = self.docker("image", "inspect", "--format", "{{.Id}} {{.RepoDigests}}", name, check=False).stdout
        return said.startswith(image["config"]["digest"] + " ") and f"@{image['digest']}" in said

    def layers(self, name: str) -> list[str]:
        """SHA-256 of each layer as dockerd gives it out again, unpacked."""
        saved = self.dir / "saved.tar"
        self.docker("save", "-o", saved, name)
        with tarfile.open(saved) as tar:
            names = json.load(tar.extractfile("manifest.json"))[0]["Layers"]
            found = [f"sha256:{hashlib.sha256(tar.extractfile(one).read()).hexdigest()}" for one in names]
        saved.unlink()
        return found

    def mirrors(self) -> list[str]:
        return json.loads(self.docker("info", "--format", "{{json .RegistryConfig.Mirrors}}").stdout) or []

    def signal(self, name: str):
        self.sandbox.run("sh", "-c", f"kill -{name} $(cat {self.dir}/pid)")
