# SPDX-License-Identifier: Apache-2.0
"""A load of real pulls on all nodes of a lab, for suites that change the mesh under it: a client per node pulls one image after the other as
containerd does. Every byte is hashed. A node whose port is closed is passed by, and the registry asked; anything else that goes wrong is a
failed pull. Bytes that came straight from the registry are counted apart, so that the agents' own reading can be told."""
import ctypes
import hashlib
import http.client
import os
import random
import socket
import threading
import time

from lab import REGISTRY_NAME, Lab, Node, inside

NS = f"?ns={REGISTRY_NAME.replace(':', '%3A')}"
READ_BYTES = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The node's port is closed, or was while this was asked: nothing was answered."""


def _enter(netns: str):
    """This thread stays in the namespace: none of its own is left behind, since each client is a thread."""
    with open(f"/run/netns/{netns}") as there:
        if _libc.setns(there.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def get(host: str, port: int, path: str, headers: dict, digest: str, seconds=30.0) -> int:
    """Bytes of a body whose digest was checked. Refused if nobody answered."""
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
        except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected) as error:
            raise Refused(str(error)) from error
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {answer.read(200)!r}")
        whole, count = hashlib.sha256(), 0
        while chunk := answer.read(READ_BYTES):
            whole.update(chunk)
            count += len(chunk)
        if "sha256:" + whole.hexdigest() != digest:
            raise RuntimeError(f"{path}: {count} wrong or missing bytes")
        return count
    finally:
        connection.close()


class Client(threading.Thread):
    """Pulls images through its node until told to stop."""

    def __init__(self, load: "Load", node: Node):
        super().__init__(daemon=True)
        self.load, self.node = load, node
        self.rng = random.Random(os.getpid() * 100 + node.index)
        self.pulls = self.passed_by = self.straight_bytes = 0
        self.slowest = 0.0
        self.errors: list[str] = []

    def blob(self, path: str, headers: dict, digest: str):
        """By the agent; where that is not there, straight from the registry. A node that runs must answer."""
        node, lab = self.node, self.node.lab
        try:
            get("127.0.0.1", node.client_port, path + NS, headers, digest)
            return
        except Refused as error:
            if node not in self.load.away:
                raise RuntimeError(f"{path}: a node that runs refused: {error}") from error
        self.passed_by += 1
        self.straight_bytes += get(lab.origin_address, lab.registry_port, path, headers, digest)

    def pull(self, name: str, image: dict):
        self.blob(f"/v2/{name}/manifests/1", {"Accept": image["mediaType"]}, image["digest"])
        for layer in (image["config"], *image["layers"]):
            self.blob(f"/v2/{name}/blobs/{layer['digest']}", {}, layer["digest"])

    def run(self):
        _enter(self.node.netns)
        while not self.load.over.is_set():
            name, image = self.rng.choice(self.load.open_images())
            started = time.monotonic()
            try:
                self.pull(name, image)
                self.pulls += 1
            except Exception as error:  # noqa: BLE001: each is a failed pull, whatever its kind
                self.errors.append(f"{self.node.name} {time.monotonic() - self.load.started:.1f} s: {type(error).__name__}: {error}")
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.load.over.wait(self.load.pause_s)


class Load:
    """`images`: by repository. They come into play one after the other, one each `fresh_s`, so that there is always something that not all
    have. `away`: nodes that are being stopped or are not up yet, for whoever runs the test to keep."""

    def __init__(self, lab: Lab, images: dict[str, dict], fresh_s=1.0, pause_s=0.1):
        self.images, self.fresh_s, self.pause_s = list(images.items()), fresh_s, pause_s
        self.over = threading.Event()
        self.away: set[Node] = set()
        self.started = time.monotonic()
        self.clients = [Client(self, node) for node in lab.nodes]
        for node in lab.nodes:
            node.count_sources()

    def open_images(self) -> list:
        """The newest four: old ones are in every cache."""
        end = min(len(self.images), 1 + int((time.monotonic() - self.started) / self.fresh_s))
        return self.images[max(end - 4, 0):end]

    def __enter__(self):
        self.started = time.monotonic()
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for client in self.clients:
            client.join(timeout=60)

    def total(self, what: str) -> int:
        return sum(getattr(client, what) for client in self.clients)

    def errors(self) -> list[str]:
        return [error for client in self.clients for error in client.errors] + [f"{c.node.name} hangs" for c in self.clients if c.is_alive()]

    def seen_bytes(self) -> int:
        """Of all images that came into play."""
        end = min(len(self.images), 1 + int((time.monotonic() - self.started) / self.fresh_s))
        return sum(image["size"] for _, image in self.images[:end])


def agents_origin_bytes(load: Load) -> int:
    """What agents read from the registry: all that came from it, but what clients had straight."""
    return sum(client.node.sources()["origin_bytes"] for client in load.clients) - load.total("straight_bytes")


def free_port(node: Node) -> bool:
    """Does nobody listen at the client port?"""
    with inside(node.netns):
        try:
            socket.create_connection(("127.0.0.1", node.client_port), timeout=1).close()
        except ConnectionRefusedError:
            return True
    return False
