#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two measurements of a lab's links: what TCP carries when all are full both ways, and the delay from node to node.

All sockets belong to this process and were made in the nodes' namespaces, so one clock times both ends of a packet.
"""
import os
import select
import selectors
import socket
import statistics
import struct
import threading
import time

from lab import Lab, Node, inside

PORT = 7007
PERIOD_S = 0.05
CHUNK = 256 * 1024
# Streams out of each node and into it: about as many as an agent's neighbours that send at a time.
STREAMS = 6
FILL_S = 1.0


class Delays:
    """One-way delay of a small datagram from each node to the next and the one after, from enter to exit."""

    def __init__(self, lab: Lab):
        self.nodes, self.samples, self.stopping = lab.nodes, [], threading.Event()
        self.sockets = []
        for node in self.nodes:
            with inside(node.netns):
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.bind((node.address, PORT))
                sock.setblocking(False)
                self.sockets.append(sock)

    def _run(self):
        poll, turn, due = select.poll(), 0, time.monotonic()
        by_fd = {sock.fileno(): sock for sock in self.sockets}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        while not self.stopping.is_set():
            for fd, _ in poll.poll(max(due - time.monotonic(), 0) * 1000):
                sent = struct.unpack("d", by_fd[fd].recv(8))[0]
                now = time.monotonic()
                self.samples.append((now, now - sent))
            if time.monotonic() >= due:
                turn, due = turn + 1, due + PERIOD_S
                for index, sock in enumerate(self.sockets):
                    to = self.nodes[(index + 1 + turn % 2) % len(self.nodes)]
                    sock.sendto(struct.pack("d", time.monotonic()), (to.address, PORT))

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(timeout=5)
        for sock in self.sockets:
            sock.close()

    def seconds(self, since: float, until: float) -> list[float]:
        """Delays of what arrived in that time, in order of size."""
        return sorted(delay for at, delay in self.samples if since <= at <= until)


def connect(node: Node, to: Node) -> tuple[socket.socket, socket.socket]:
    """A connection between two nodes: its sending and its receiving end."""
    with inside(to.netns), socket.create_server((to.address, PORT)) as listener:
        with inside(node.netns):
            sender = socket.create_connection((to.address, PORT), timeout=5)
        return sender, listener.accept()[0]


def ring(lab: Lab) -> list[tuple[socket.socket, socket.socket]]:
    """Connections from each node to the next few: so many streams go out of each and come in."""
    count = len(lab.nodes)
    return [connect(node, lab.nodes[(index + step) % count]) for index, node in enumerate(lab.nodes) for step in range(1, min(STREAMS, count - 1) + 1)]


def pump(pairs: list[tuple[socket.socket, socket.socket]], seconds: float, warm_s: float) -> list[int]:
    """Every sender sends all it can for so long; bytes received by each after the first warm_s."""
    selector, counts = selectors.DefaultSelector(), [0] * len(pairs)
    payload, buffer = memoryview(os.urandom(CHUNK)), bytearray(CHUNK)
    for index, (sender, receiver) in enumerate(pairs):
        for sock, events, key in ((sender, selectors.EVENT_WRITE, -1), (receiver, selectors.EVENT_READ, index)):
            sock.setblocking(False)
            selector.register(sock, events, key)
    started = time.monotonic()
    while (now := time.monotonic()) < started + warm_s + seconds:
        for key, _ in selector.select(0.1):
            try:
                if key.data < 0:
                    key.fileobj.send(payload)
                    continue
                got = key.fileobj.recv_into(buffer)
                counts[key.data] += got if now >= started + warm_s else 0
            except BlockingIOError:
                pass
    selector.close()
    return counts


def carried(lab: Lab, seconds=2.0) -> dict:
    """The links when every node sends to some and receives from as many: payload they carry as a share of their rate, and
    the mean delay of a packet then, which waits at two full links, and when nothing else goes."""
    with Delays(lab) as delays:
        began = time.monotonic()
        time.sleep(0.5)
        idle = delays.seconds(began, time.monotonic())
        pairs = ring(lab)
        try:
            counts = pump(pairs, seconds, FILL_S)
            now = time.monotonic()
            full = delays.seconds(now - seconds, now)
        finally:
            for pair in pairs:
                for sock in pair:
                    sock.close()
    share = sum(counts) / len(lab.nodes) * 8 / seconds / (lab.mbit * 1e6)
    return {"share": round(share, 4), "idle_delay_s": round(statistics.mean(idle), 6), "full_delay_s": round(statistics.mean(full), 6)}
