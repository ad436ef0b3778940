#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The same bytes to the same nodes over the same links by BitTorrent: a seeder behind the registry's link, N leechers.

Friendly to BitTorrent on purpose: the torrent is there beforehand, everybody learns of everybody at the start, no one leaves,
nothing is encrypted, and the time ends when the program itself has all pieces: the sha256 that a runtime would still
have to take, and that our own clients take within their time, is not counted.
"""
import hashlib
import json
import shutil
import sys
import time
from pathlib import Path

from lab import Lab, Node
from race import HERE, Runner, race
from tracker import Tracker

TRACKER_PORT = 6969
NAME = "payload"
KINDS = ("aria2", "libtorrent")


def bencode(value) -> bytes:
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"


def make_torrent(payload: Path, piece_bytes: int, announce: str) -> bytes:
    """Metainfo of one file (BEP 3)."""
    pieces = bytearray()
    with open(payload, "rb") as file:
        while chunk := file.read(piece_bytes):
            pieces += hashlib.sha1(chunk).digest()
    info = {"name": NAME, "length": payload.stat().st_size, "piece length": piece_bytes, "pieces": bytes(pieces)}
    return bencode({"announce": announce, "info": info})


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Swarm:
    """One swarm's files and processes, gone at exit."""

    def __init__(self, lab: Lab, kind: str, payload: Path, piece_bytes: int):
        self.lab, self.kind, self.payload = lab, kind, payload
        self.torrent = lab.dir / f"{kind}.torrent"
        self.torrent.write_bytes(make_torrent(payload, piece_bytes, f"http://{lab.origin_address}:{TRACKER_PORT}/announce"))
        self.runners: list[Runner] = []
        self.dirs: list[Path] = []

    def _start(self, place: Path, prefix: list[str], job: dict) -> Runner:
        directory = place / f"{self.kind}-files"
        directory.mkdir()
        self.dirs.append(directory)
        if job["seeds"]:
            (directory / NAME).hardlink_to(self.payload)
        job = {"dir": str(directory), "torrent": str(self.torrent), "peers": [], **job}
        script = HERE / f"node_{self.kind}.py"
        runner = Runner(self.lab, [*prefix, sys.executable, script, json.dumps(job)], self.lab.dir / f"{self.kind}-{place.name}.log")
        self.runners.append(runner)
        return runner

    def seeder(self) -> Runner:
        return self._start(self.lab.dir, self.lab.origin_exec(), {"seeds": True, "address": self.lab.origin_address})

    def leecher(self, node: Node) -> Runner:
        # One of two who know each other calls the other; the seeder is called by all.
        peers = [self.lab.origin_address, *(n.address for n in self.lab.nodes[:node.index])]
        return self._start(node.dir, node.exec(), {"seeds": False, "address": node.address, "peers": peers})

    def check(self):
        """Every node has the payload's bytes."""
        want = sha256_of(self.payload)
        for node in self.lab.nodes:
            if sha256_of(node.dir / f"{self.kind}-files" / NAME) != want:
                raise RuntimeError(f"{self.kind}: wrong bytes at {node.name}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for runner in self.runners:
            runner.hang_up()
        for runner in self.runners:
            runner.kill()
        for directory in self.dirs:
            shutil.rmtree(directory, ignore_errors=True)


def swarm_once(lab: Lab, kind: str, payload: Path, piece_bytes: int, seconds: float) -> dict:
    """All nodes fetch the payload at once by a program of KINDS; the figures of race.py."""
    with Tracker(lab.origin_ns, lab.origin_address, TRACKER_PORT) as tracker, Swarm(lab, kind, payload, piece_bytes) as swarm:
        swarm.seeder().wait_ready()
        end = time.monotonic() + 15
        while kind == "aria2" and tracker.known() == 0:
            if time.monotonic() > end:
                raise RuntimeError("the seeder did not announce itself")
            time.sleep(0.05)
        result = race(lab, {node: swarm.leecher(node) for node in lab.nodes}, payload.stat().st_size, seconds)
        swarm.check()
    return {**result, "piece_bytes": piece_bytes}
