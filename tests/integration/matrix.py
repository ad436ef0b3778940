#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Clients x authentication x faults (CLIENTS 8, SECURITY 4 rows O-3..O-8 and D-13): each pull ends right and in its time, and what the agent
adds to it is bounded. Beside it stands the same pull straight from the registry: of the same fault where that ends, else without one, then
`added` has in it what the fault itself takes.

A gate before each registry makes the fault; agent and client meet it alike, so what is right is not what a fallback could hide: blobs
must come through the agent where it promises them. Without ALL=1 each fault meets each client, with one authentication; with it all.
"""
import contextlib
import functools
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import it
from dockerhub import Dockerd, hub_certificate, know_hub
from conformance import CONFIG, LAYER, MANIFEST, Server
from lab import Lab, Process, gzip_stored, layer_tar, run
from oci_registry import digest_of
from runtimes import PASSWORD, PORTS, USER, Containerd, Libpod, Sandbox, directory_hashes, start_registries, upstream

BEHIND = 100
ALL = os.environ.get("ALL") == "1"
CLIENTS = ("skopeo", "podman", "ctr", "cri", "docker")  # cri: what the kubelet does
# registry, and whether there is a login
AUTHS = {"open": ("public", False), "basic": ("basic", True), "token": ("bearer", False), "token-login": ("bearer", True)}
SIZES = (100000, 9 << 20)  # what is verified before its first byte leaves, and what streams (INT-2)
STALL_SECONDS = 3          # limits.transferTimeout
FROZEN_SECONDS = 3
DOCKERD_TRIES, DOCKERD_PAUSE = 1, 5  # of a layer that broke off, and the seconds before it; by default 5 tries and 75 s in all


@dataclass
class Fault:
    name: str
    right: bool          # the pull succeeds; else as straight: it fails there, too
    seconds: float       # the pull's time, on a busy machine
    agent_only: bool = True  # no client asks the registry for a blob itself
    tries: int = 1           # of the client
    added: float = 0         # seconds over the same pull straight from the registry; 0: not bounded by that
    beside: str = "none"     # the fault of that pull


FAULTS = (
    Fault("none", True, 8, added=1.5),
    # Refusals are told as they are. Of a blob after 2 to 4 s: leases of it are tried again before the registry is asked for its own words.
    *(Fault(f"{how}-{what}", False, 12, added=added, beside="same") for how in ("gone", "refused", "denied") for what, added in (("manifest", 2.5), ("blob", 5))),
    # Two pauses of a second and a tenth, the client's or ours (O-4).
    Fault("busy-manifest", True, 15, False, added=5), Fault("busy-blob", True, 15, added=5),
    # Retries are a tenth of requests (RES-5): among so many errors one may be passed on, as straight the first one is. Up to 1 s and 2 s before them.
    Fault("broken-manifest", True, 15, False, 2, added=5), Fault("broken-blob", True, 15, True, 2, added=5),
    Fault("cut", True, 15, added=3),
    Fault("wrong", False, 30), Fault("wrong-once", True, 15, False, 2, added=5),  # what left already cannot be taken back: cut, then repaired (INT-3)
)

# The agent gives such a registry rest, and beside it passes on errors of other pulls that it would have repeated: these rows run by themselves.
BROKEN = (Fault("broken-always", False, 45),)

# Silence of one answer is taken as the registry's (O-2): who begins a pull in that second is sent there, who is in one is not.
SILENT = (
    Fault("slow", True, 25, False, added=6, beside="slow"),
    # Three blobs, one by one by skopeo: a silent body is given up after STALL_SECONDS, a question without an answer asked again after 7 s (HTTP-6).
    Fault("stall", True, 10 + 3 * 2 * STALL_SECONDS, False, added=3 * 2 * STALL_SECONDS), Fault("mute", True, 3 * 10, False, added=3 * 8.5),
)


class Node:
    """A node, its clients, and the registry whose name its agent takes for granted."""

    def __init__(self, lab, node, mode: str):
        self.lab, self.node, self.mode = lab, node, mode
        self.sandbox = Sandbox(node)
        self.containerd = Containerd(self.sandbox)
        self.libpods, self.numbers, self.lock = {}, itertools.count(), threading.RLock()

    def start(self):
        entries = [{**entry, "default": entry["name"] == upstream(self.mode)} for entry in self.lab.registries]
        self.node.start({"registries": entries, "limits.transferTimeout": f"{STALL_SECONDS}s"})

    def libpod(self, login: bool, mirror=True) -> Libpod:
        key = (login, mirror)
        if key not in self.libpods:
            self.libpods[key] = Libpod(self.sandbox, self.mode, mirror=mirror, user=USER if login else None)
        return self.libpods[key]

    @functools.cached_property
    def _dockerd(self) -> Dockerd:
        return Dockerd(self.containerd, settings={"max-download-attempts": DOCKERD_TRIES})

    def dockerd(self) -> Dockerd:
        """Started by the first row that is for it."""
        with self.lock:
            return self._dockerd

    def push(self, fault: str, login: bool) -> tuple[str, dict]:
        """An image of its own for this fault: (repository, manifest with its digest). Around gate and agents."""
        name = f"{'lib' if login or self.mode == 'public' else 'public'}/{self.mode}-{next(self.numbers)}/{fault}"
        server = Server(self.lab.origin_ns, (self.lab.origin_address, self.lab.registry_port), "registry.test")
        tars = [layer_tar(f"data/{i}.bin", size) for i, size in enumerate(SIZES)]
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]}, "rootfs": {"type": "layers", "diff_ids": [digest_of(t) for t in tars]}}
        parts = []
        for data, media_type in [(json.dumps(config).encode(), CONFIG), *((gzip_stored(t), LAYER) for t in tars)]:
            where = server.ask("POST", f"/v2/{name}/blobs/uploads/", body=b"").headers["location"].split("registry.test", 1)[-1]
            done = server.ask("PUT", f"{where}&digest={digest_of(data)}", [("Content-Type", "application/octet-stream")], data)
            it.check(done.status == 201, f"push: {done.status} {done.body[:200]}")
            parts.append({"mediaType": media_type, "digest": digest_of(data), "size": len(data)})
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
        body = json.dumps(manifest).encode()
        done = server.ask("PUT", f"/v2/{name}/manifests/1", [("Content-Type", MANIFEST)], body)
        it.check(done.status == 201, f"push: {done.status} {done.body[:200]}")
        return name, {**manifest, "digest": digest_of(body)}

    # ---- one pull ----

    def pull(self, client: str, name: str, login: bool, mirror=True):
        """The finished command. Which bytes it got is another question."""
        if client == "ctr":
            return self.containerd.pull(self.mode, f"{name}:1", mirror=mirror, user=None if not login else f"{USER}:{PASSWORD}", check=False)
        if client == "cri":
            return self.containerd.cri_pull(self.mode, f"{name}:1", mirror=mirror, user=USER if login else None)
        if client == "docker":
            return self.dockerd().pull(f"{name}:1", user=USER if login else None, mirror=mirror, check=False)
        pod = self.libpod(login, mirror)
        if client == "skopeo":
            return pod.skopeo(f"{name}:1", self.target(name, mirror), check=False)
        return (pod.podman if client == "podman" else pod.buildah)("pull", "-q", f"{upstream(self.mode)}/{name}:1", check=False)

    def target(self, name: str, mirror: bool) -> Path:
        return self.node.dir / f"copy-{name.replace('/', '-')}-{mirror}"

    def holds(self, client: str, name: str, image: dict, login: bool) -> bool:
        """The client has every byte of this image, and no others."""
        wanted = [image["digest"], *(part["digest"] for part in (image["config"], *image["layers"]))]
        if client in ("ctr", "cri"):
            store = self.containerd.dir / "root/io.containerd.content.v1.content/blobs/sha256"
            files = [store / digest.split(":")[1] for digest in wanted]
            return all(f.exists() and hashlib.sha256(f.read_bytes()).hexdigest() == f.name for f in files)
        if client == "skopeo":
            found = directory_hashes(self.target(name, True))
            return all(digest.split(":")[1] in found.values() for digest in wanted)
        if client == "docker":
            return self.dockerd().holds(f"{name}:1", image)
        pod, reference = self.libpod(login), f"{upstream(self.mode)}/{name}:1"
        if client == "buildah":
            return image["digest"] in pod.buildah("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", reference).stdout
        said = pod.podman("image", "inspect", "--format", "{{.Digest}} sha256:{{.Id}}", reference).stdout.split()
        return said == [image["digest"], image["config"]["digest"]]  # layers are checked against the config by podman


@contextmanager
def cluster():
    """A node for each authentication: clients that send no ?ns= get the registry of the node's own."""
    with Lab(len(AUTHS)) as lab:
        start_registries(lab, "basic", "bearer", behind=BEHIND)
        cert, key = hub_certificate(lab)
        hubs = []  # dockerd asks nobody else: for each node the Hub is what the node's registry is
        for node, (mode, _) in zip(lab.nodes, AUTHS.values()):
            address = f"{lab.subnet}.0.{10 + node.index}"
            run("ip", "-n", lab.origin_ns, "addr", "add", f"{address}/16", "dev", "e0")
            know_hub(node, address)
            hubs += ["--hub", address, PORTS[mode]]
        lab.processes.append(Process(lab.origin_exec(sys.executable, Path(__file__).with_name("fault_gate.py"), "--host", lab.origin_address,
                                                     "--behind", BEHIND, "--tls", cert, key, *hubs, "--", *PORTS.values()), lab.dir / "gate.log"))
        nodes = {auth: Node(lab, node, AUTHS[auth][0]) for node, auth in zip(lab.nodes, AUTHS)}
        for node in nodes.values():
            node.start()
        lab.wait_members()
        run(*lab.origin_exec("curl", "-sf", "--retry", "5", "--retry-connrefused", f"http://{lab.origin_address}:{PORTS['public']}/log"))
        yield nodes


def gate_log(node: Node) -> list[dict]:
    return json.loads(run(*node.lab.origin_exec("curl", "-sf", f"http://{node.lab.origin_address}:{PORTS[node.mode]}/log")).stdout)


def blob_askers(node: Node, name: str) -> set[str]:
    """Who asked the gate for blobs of a repository."""
    return {entry["agent"].split("/")[0] for entry in gate_log(node) if entry["name"] == name and entry["kind"] == "blobs" and entry["method"] == "GET"}


def timed_pull(node: Node, where: str, seconds: float, *args, **kwargs):
    started = time.monotonic()
    try:
        done = node.pull(*args, **kwargs)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{where}: did not end") from None
    took = time.monotonic() - started
    it.check(took < seconds, f"{where}: {took:.1f} s, allowed {seconds}: {done.stderr[-300:]}")
    return done, took


class Late(AssertionError):
    """More was added than may be: told only when it comes twice, for a machine's other work does not."""


straight_took = {}  # seconds by (client, authentication, fault), for all tests of a run
over = {}           # what was added, by fault


def straight(node: Node, client: str, auth: str, fault: str) -> float:
    """Seconds of a pull straight from the registry, measured once in a run."""
    with node.lock:
        if (client, auth, fault) not in straight_took:
            name, _ = node.push(fault, AUTHS[auth][1])
            started = time.monotonic()
            done = node.pull(client, name, AUTHS[auth][1], mirror=False)
            it.check(done.returncode == 0, f"{client} {auth} {fault}: straight: {done.stderr[-300:]}")
            straight_took[client, auth, fault] = time.monotonic() - started
        return straight_took[client, auth, fault]


def check_added(where: str, fault: Fault, took: float, beside: float):
    if took - beside > fault.added:
        raise Late(f"{where}: {took:.1f} s, straight {beside:.1f} s: {took - beside:.1f} s added, allowed {fault.added}")
    over.setdefault(fault.name, []).append(took - beside)


def origin_fault(node: Node, client: str, auth: str, fault: Fault) -> float:
    login, where = AUTHS[auth][1], f"{client} {auth} {fault.name}"
    name, image = node.push(fault.name, login)
    beside = straight(node, client, auth, fault.beside) if fault.added and fault.beside != "same" else 0
    asked = node.node.metric("shoal_requests_total")
    seconds = fault.seconds + (DOCKERD_PAUSE if client == "docker" and fault.name.startswith("wrong") else 0)
    done, took = timed_pull(node, where, seconds, client, name, login)
    for _ in range(1, fault.tries):
        if done.returncode != 0:
            done, _ = timed_pull(node, f"{where}, next try", seconds, client, name, login)
    it.check(node.node.metric("shoal_requests_total") > asked, f"{where}: the client went around the agent")
    if fault.right:
        if fault.added:
            check_added(where, fault, took - (seconds - fault.seconds), beside)
        it.check(done.returncode == 0, f"{where}: {done.stderr[-400:]}")
        it.check(node.holds(client, name, image, login), f"{where}: other bytes")
        it.check(not fault.agent_only or blob_askers(node, name) == {"shoal"}, f"{where}: blobs were asked for by {blob_askers(node, name)}")
        it.check(client in ("ctr", "cri", "docker") or fault not in SILENT or len(blob_askers(node, name)) == 1, f"{where}: it changed sides in mid-pull: {blob_askers(node, name)}")
    else:
        it.check(done.returncode != 0, f"{where}: a pull that cannot be right succeeded")
        if fault.seconds <= 12 or ALL:
            started = time.monotonic()
            done = node.pull(client, name, login, mirror=False)
            it.check(done.returncode != 0, f"{where}: straight it succeeds")
            if fault.added:
                check_added(where, fault, took, time.monotonic() - started)
    return took


# ---- the agent itself: stopped, frozen ----

def signal_agent(node: Node, number: signal.Signals):
    os.kill(node.node.process.pid, number)


def wait_under_way(node: Node, where: str, name: str, image: dict):
    """Until the layer that streams is being read; it takes seconds then."""
    wanted, end = image["layers"][-1]["digest"], time.monotonic() + 10
    while not any(entry["reference"] == wanted and entry["name"] == name for entry in gate_log(node)):
        it.check(time.monotonic() < end, f"{where}: nothing is under way")
        time.sleep(0.05)
    time.sleep(0.3)


def agent_fault(node: Node, client: str, auth: str, what: str) -> float:
    login, where = AUTHS[auth][1], f"{client} {auth} agent {what}"
    midway = "midway" in what
    name, image = node.push("drip" if midway else "none", login)
    process, result = node.node.process, []
    if what == "stopped":
        it.check(process.stop() == 0, f"{where}: it did not stop in order")
    elif not midway:
        signal_agent(node, signal.SIGSTOP)
    started = time.monotonic()
    thread = threading.Thread(target=lambda: result.append(node.pull(client, name, login)))
    thread.start()
    if midway:
        wait_under_way(node, where, name, image)
    if what == "frozen midway":
        signal_agent(node, signal.SIGSTOP)
    if "frozen" in what:
        time.sleep(FROZEN_SECONDS)
        it.check(not result, f"{where}: it ended while nobody answered: {result and result[0].stderr[-300:]}")
    if "killed" in what:
        it.check(not result, f"{where}: it was over before")
        process.kill()
    elif "frozen" in what:
        signal_agent(node, signal.SIGCONT)
    thread.join(50)
    took, pause = time.monotonic() - started, DOCKERD_PAUSE if client == "docker" and what == "killed midway" else 0
    it.check(not thread.is_alive() and took < 20 + pause, f"{where}: {took:.1f} s")
    if result[0].returncode != 0:  # a body that broke off ends a pull of containers/image (CLIENTS 8); the next try is served
        it.check(what == "killed midway" and client not in ("ctr", "cri", "docker"), f"{where}: {result[0].stderr[-400:]}")
        done, _ = timed_pull(node, where, 20, client, name, login)
        it.check(done.returncode == 0, f"{where}, second try: {done.stderr[-400:]}")
    it.check(node.holds(client, name, image, login), f"{where}: other bytes")
    if not process.alive():
        node.start()
    return took


AGENT_FAULTS = ("stopped", "frozen, then continued", "frozen, then killed", "frozen midway", "killed midway")


# ---- the table ----

def plan(faults, clients=CLIENTS) -> list[tuple]:
    """(client, authentication, fault): the whole product, or each pair of client and fault once."""
    auths = list(AUTHS)
    return [(client, auth, fault) for i, fault in enumerate(faults) for j, client in enumerate(clients)
            for k, auth in enumerate(auths) if ALL or k == (i + j) % len(auths)]


def run_table(table: list[tuple], one, at_once: int):
    """The nodes at once, with so many rows each. Every row is run, whatever the others did."""
    took, wrong, again, again_rows = {}, [], threading.Lock(), []
    def work(node: Node, client: str, auth: str, fault):
        name = getattr(fault, "name", fault)
        try:
            try:
                took.setdefault(name, []).append(one(node, client, auth, fault))
            except Late as late:
                with again:
                    again_rows.append(str(late))
                    took[name].append(one(node, client, auth, fault))
        except Exception as error:  # noqa: BLE001: told below
            wrong.append(f"{client} {auth} {name}: {error}")
            if not node.node.process.alive():
                node.start()
    with cluster() as nodes, contextlib.ExitStack() as pools:
        for own, node in nodes.items():
            pool = pools.enter_context(ThreadPoolExecutor(at_once))
            for client, auth, fault in table:
                if auth == own:
                    pool.submit(work, node, client, auth, fault)
    for name, values in took.items():
        added = over.pop(name, [])
        it.figure(f"{name}: {len(values)} pulls" + (f", {min(values):.1f} to {max(values):.1f} s" if values else "") +
                  (f"; {min(added):+.1f} to {max(added):+.1f} s beside the pull straight from the registry" if added else ""))
    it.check(not wrong, f"{len(wrong)} of {len(table)} wrong:\n    " + "\n    ".join(wrong))
    it.check(sum(len(values) for values in took.values()) == len(table), "not every row was run")
    it.figure(f"{len(table)} combinations" + (f", {len(again_rows)} measured twice" if again_rows else ""))


def test_every_client_and_authentication():
    run_table([(client, auth, FAULTS[0]) for client in (*CLIENTS, "buildah") for auth in AUTHS], origin_fault, 1)


def test_faults_of_the_registry():
    run_table(plan(FAULTS[1:]), origin_fault, 3)


def test_a_registry_that_stays_broken():
    run_table(plan(BROKEN), origin_fault, 1)


def test_slow_and_silent_registries():
    run_table(plan(SILENT, CLIENTS if ALL else CLIENTS[1:]), origin_fault, 3)


def test_faults_of_the_agent():
    run_table(plan(AGENT_FAULTS), agent_fault, 1)


if __name__ == "__main__":
    sys.exit(it.main(globals(), seconds=1200))
