#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""CPU seconds of a race by who spent them: agents, clients, registry, the harness itself, and the rest.

Of processes it is the kernel's own count, user and system, of all threads; a packet's way through the shaped links is
system time of whoever it interrupts. The rest is what the machine was busy with besides: links served between processes,
kernel threads, and other programs.
"""
import os
from pathlib import Path

from lab import Lab, Process, cpu_seconds

HZ = os.sysconf("SC_CLK_TCK")
PARTS = ("agents", "clients", "registry", "harness")


def cpu_of(pid: int) -> tuple[float, float]:
    """User and system CPU seconds of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) / HZ, int(fields[12]) / HZ


class Spent:
    """CPU seconds from enter to exit by part, each as [user, system]; the rest as one figure. `clients`: PIDs of what runs in
    the nodes besides agents. Who has ended before exit counts nothing."""

    def __init__(self, lab: Lab, clients: list[int]):
        agents = [node.process.pid for node in lab.nodes if node.process and node.process.alive()]
        registry = [process.pid for process in lab.processes if isinstance(process, Process) and process.alive()]
        self.pids = dict(zip(PARTS, (agents, clients, registry, [os.getpid()])))
        self.parts: dict[str, list[float]] = {}
        self.rest_s = 0.0

    def _now(self) -> dict[int, tuple[float, float]]:
        now = {}
        for pid in (pid for pids in self.pids.values() for pid in pids):
            try:
                now[pid] = cpu_of(pid)
            except OSError:
                pass  # it has ended
        return now

    def __enter__(self):
        self.before, self.busy = self._now(), cpu_seconds()[0]
        return self

    def __exit__(self, *_):
        now, busy = self._now(), cpu_seconds()[0] - self.busy
        for part, pids in self.pids.items():
            spent = [[b - a for a, b in zip(self.before[pid], now[pid])] for pid in pids if pid in self.before and pid in now]
            self.parts[part] = [round(sum(column), 2) for column in zip(*spent)] or [0.0, 0.0]
        self.rest_s = round(busy - sum(map(sum, self.parts.values())), 2)

    def figures(self, size: int) -> dict:
        """For a result: seconds by part, and milliseconds per MiB delivered of the lab's own, the rest left out."""
        own = sum(map(sum, self.parts.values()))
        return {**self.parts, "rest": self.rest_s, "ms_per_mib": round(own * 1e3 / (size / (1 << 20)), 2)}


def text_of(figures: dict) -> str:
    """One line for people."""
    parts = [f"{part} {user + system:.2f} ({user:.2f} user)" for part, (user, system) in ((part, figures[part]) for part in PARTS)]
    return f"CPU s: {', '.join(parts)}, rest {figures['rest']:.2f}; {figures['ms_per_mib']:.2f} ms per MiB delivered"
