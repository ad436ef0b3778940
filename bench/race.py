#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Work that many nodes begin at the same moment: processes that wait at a line, who was done when, bytes by source.

A runner is a process inside a node. It says "ready" when all it needs is loaded, waits for "go", and says "done T" (T on
the machine's monotonic clock) or "failed WHY"; then it stays, as a swarm's member must, until its input is closed. Before,
it may say "note NAME T" of a moment. So no one's time counts the start of an interpreter, and all count from the same
moment.
"""
import statistics
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path

from lab import REGISTRY_NAME, ROOT, SOURCES, BusyCores, Lab, Node, build_tools, warm_memory
from spent import Spent

HERE = Path(__file__).resolve().parent
PULL = ROOT / "build" / "bench" / "pull"
READY_S_MAX = 60
CLOSE_S_MAX = 5
# Of two cores: beyond, the machine and not the links was the limit, and a run says nothing.
BUSY_CORES_MAX = 1.7
PULL_S_MAX = 900
# What a race takes besides the nodes' copies: the registry's, sockets, programs.
WARM_MORE_BYTES = 512 << 20


class Runner:
    """One process at the line. `seconds` counts from go(); `error` is None after a right end."""

    def __init__(self, lab: Lab, command: list, log: Path):
        self.seconds = 0.0
        self.error: str | None = None
        self.started = 0.0
        self.notes: dict[str, float] = {}
        self.ready, self.ended = threading.Event(), threading.Event()
        with open(log, "ab") as out:
            self.popen = subprocess.Popen([str(a) for a in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out,
                                          text=True, start_new_session=True)
        lab.processes.append(self)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.popen.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "ready":
                self.ready.set()
            elif word == "note":
                name, _, moment = rest.partition(" ")
                self.notes[name] = float(moment) - self.started
            elif word == "done":
                self.seconds = float(rest) - self.started
                self.ended.set()
            elif word == "failed":
                self.error = rest
                self.ended.set()
        if not self.ended.is_set():
            self.error = "ended without a word"
        self.ready.set()
        self.ended.set()

    def wait_ready(self, seconds=READY_S_MAX):
        if not self.ready.wait(seconds):
            raise RuntimeError(f"not ready within {seconds} s: {' '.join(self.popen.args)[-200:]}")
        if self.ended.is_set() and self.error:
            raise RuntimeError(f"{self.error}: {' '.join(self.popen.args)[-200:]}")

    def go(self, started: float):
        self.started = started
        try:
            self.popen.stdin.write("go\n")
            self.popen.stdin.flush()
        except OSError:
            pass  # it has ended, and _listen says so

    def join(self, timeout: float):
        self.ended.wait(timeout)

    def is_alive(self) -> bool:
        return not self.ended.is_set()

    def hang_up(self):
        """Closes its input, which ends it."""
        try:
            self.popen.stdin.close()
        except OSError:
            pass

    def kill(self):
        """Ends it and waits; by force if need be."""
        self.hang_up()
        try:
            self.popen.wait(timeout=CLOSE_S_MAX)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(timeout=CLOSE_S_MAX)


class Pull(Runner):
    """Pulls every blob of an image like a runtime: manifest by tag, then `parallel` layers at a time, each hashed."""

    def __init__(self, node: Node, repository: str, manifest: dict, base: str | None = None, parallel=3):
        self.node = node
        host = urllib.parse.urlsplit(base or f"http://127.0.0.1:{node.client_port}")
        prefix, query = f"/v2/{repository}", "" if base else f"?ns={REGISTRY_NAME.replace(':', '%3A')}"
        objects = [(f"{prefix}/manifests/1{query}", 0, manifest["digest"])]
        objects += [(f"{prefix}/blobs/{blob['digest']}{query}", blob["size"], blob["digest"]) for blob in (manifest["config"], *manifest["layers"])]
        words = [word for path, size, digest in objects for word in (path, size, digest.removeprefix("sha256:"))]
        build_tools()
        super().__init__(node.lab, node.exec(PULL, host.hostname, host.port, manifest["mediaType"], parallel, *words), node.dir / "pull.log")

    def start(self):
        self.wait_ready()
        self.go(time.monotonic())


def race(lab: Lab, runners: dict[Node, Runner], size: int, seconds: float, counts=Node.sources) -> dict:
    """Lets them all go at once and waits. Times, bytes by source, busy cores and CPU seconds; raises on the first failure.
    `counts` gives a node's bytes by source so far."""
    nodes = list(runners)
    for runner in runners.values():
        runner.wait_ready()
    # Each node holds the bytes twice, in its program's memory and in its files.
    if lab.mbit:
        warm_memory(2 * size * len(nodes) + WARM_MORE_BYTES)
    for node in nodes:
        node.count_sources()
    before = {node: counts(node) for node in nodes}
    clients = [p.popen.pid for p in lab.processes if isinstance(p, Runner) and p.popen.poll() is None]
    with BusyCores() as busy, Spent(lab, clients) as spent:
        started = time.monotonic()
        for runner in runners.values():
            runner.go(started)
        for runner in runners.values():
            runner.join(max(started + seconds - time.monotonic(), 0))
    failed = [f"{n.name}: {r.error or 'still running'}" for n, r in runners.items() if r.error or r.is_alive()]
    if failed:
        raise RuntimeError("; ".join(failed[:4]))
    per_node = []
    for node, runner in runners.items():
        now = counts(node)
        per_node.append({"node": node.name, "zone": node.zone, "seconds": round(runner.seconds, 3),
                         **{name: round(moment, 4) for name, moment in runner.notes.items()}, **{key: now[key] - before[node][key] for key in now}})
    return {**figures(lab, size, per_node, busy.value), "cpu_s": spent.figures(size * len(nodes))}


def figures(lab: Lab, size: int, per_node: list[dict], busy_cores: float) -> dict:
    """What all tools print of a race: times, their ratios to size / rate, copies of the image by source."""
    bound = size * 8 / (lab.mbit * 1e6) if lab.mbit else 0.0
    times = [p["seconds"] for p in per_node]
    half, last = statistics.median(times), max(times)
    ratio = {"p50": round(half / bound, 3), "last": round(last / bound, 3)} if bound else {"p50": None, "last": None}
    return {"nodes": len(per_node), "bytes": size, "bound_s": round(bound, 3), "last_s": last,
            "completion": {"p50_s": round(half, 3), "last_s": last}, "ratio": ratio,
            "origin_copies": round(sum(p["origin_bytes"] for p in per_node) / size, 3),
            "cross_zone_copies": round(sum(p["other_zone_bytes"] for p in per_node) / size, 3),
            "busy_cores": round(busy_cores, 2), "per_node": per_node}


def pull_all(lab: Lab, repository: str, manifest: dict, base: str | None = None, seconds=PULL_S_MAX) -> dict:
    """All nodes pull an image at once, through their agents or from `base`."""
    pulls = {node: Pull(node, repository, manifest, base) for node in lab.nodes}
    counts = Node.sources
    if base and not lab.netns:
        # Nobody counts bytes on loopback: all of them come from there.
        counts = lambda node: {**dict.fromkeys(SOURCES, 0), "origin_bytes": 0 if pulls[node].is_alive() else manifest["size"]}  # noqa: E731
    return race(lab, pulls, manifest["size"], seconds, counts)


def print_table(title: str, result: dict):
    mib = 1 << 20
    print(f"\n{title}")
    print(f"  {'node':8} {'zone':>5} {'origin MiB':>11} {'same zone':>10} {'other zone':>11} {'seconds':>8}")
    for p in result["per_node"]:
        origin, near, far = (p[key] / mib for key in SOURCES)
        print(f"  {p['node']:8} {'abcdefgh'[p['zone']]:>5} {origin:>11.1f} {near:>10.1f} {far:>11.1f} {p['seconds']:>8.2f}")
