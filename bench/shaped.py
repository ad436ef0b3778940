#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One image to N nodes at once over shaped links: through Shoal, by aria2 and libtorrent swarms, and without a mesh.

All of a shape run in the same lab, one after the other, each from nothing; all start at a line (race.py). A run in which
more than 1.7 cores were busy is repeated once and, if it was so again, refused: it says more about this machine than
about those who ran.
"""
import json
import os
import re
import shutil
import time

from lab import ROOT, BusyCores, Lab
from race import BUSY_CORES_MAX, pull_all
from rivals import KINDS, swarm_once
from spent import text_of

MIB = 1 << 20
OUT = ROOT / "build" / "bench"
# Nodes x Mbit/s is what two cores carry; the whole set takes about an hour, nearly all of it without a mesh.
FULL = [(nodes, mbit, mib) for mib in (64, 256) for nodes, mbit in ((8, 200), (16, 100), (32, 50))]
USUAL = [(8, 200, 64), (16, 100, 64)]
LAYER_PARTS = (2, 4, 8, 8)
# Busy cores that leave the machine idle enough to begin.
IDLE_CORES_MAX = 0.3
REPOSITORY = "bench/app"
LAST_RATIO_MAX = 1.25
ORIGIN_COPIES_MAX = 1.1
# What a swarm may take, in size / rate, before it counts as stuck. All over one link need N of them.
SWARM_BOUNDS_MAX = 12
# Pieces a swarm is given: small ones start it sooner, large ones cost it less. For large files the better is taken.
PIECE_BYTES = {64: (MIB // 4,), 256: (MIB // 4, MIB)}


def parse_shapes(text: str) -> list[tuple[int, int, int]]:
    """`16x100x64,8x200x256`: nodes, Mbit/s, MiB."""
    shapes = []
    for word in text.split(","):
        match = re.fullmatch(r"(\d{1,3})x(\d{1,5})x(\d{1,5})", word)
        if not match or not all(int(x) for x in match.groups()) or int(match[1]) > 200:
            raise ValueError(f"{word}: a shape is NODESxMBITxMIB, such as 16x100x64")
        shapes.append((int(match[1]), int(match[2]), int(match[3])))
    return shapes


class Shape:
    """A lab of one shape with the image in its registry, and the ways to bring it to all nodes."""

    def __init__(self, nodes: int, mbit: int, mib: int):
        self.nodes, self.mbit, self.mib = nodes, mbit, mib
        self.bound_s = mib * MIB * 8 / (mbit * 1e6)
        self.lab = Lab(nodes, 1, mbit, room=nodes * mib * MIB + (2 << 30))

    def __enter__(self):
        try:
            self.lab.start_registry()
            self.image = self.lab.push_image(REPOSITORY, [self.mib * MIB // part for part in LAYER_PARTS])
            self.payload = self.lab.dir / "payload"
            with open(self.payload, "wb") as file:
                for _ in range(self.mib):
                    file.write(os.urandom(MIB))
        except BaseException:
            self.lab.close()
            raise
        return self

    def __exit__(self, *_):
        self.lab.close()

    def no_mesh(self) -> dict:
        return pull_all(self.lab, REPOSITORY, self.image, base=self.lab.endpoint, seconds=60 + 2 * self.nodes * self.bound_s)

    def shoal(self) -> dict:
        lab = self.lab
        try:
            lab.start_nodes()
            lab.wait_members()
            return pull_all(lab, REPOSITORY, self.image, seconds=60 + SWARM_BOUNDS_MAX * self.bound_s)
        finally:
            for node in lab.nodes:
                if node.process:
                    node.process.kill()
                shutil.rmtree(node.dir / "data", ignore_errors=True)

    def swarm(self, kind: str, patience_s: float) -> dict:
        limit = 60 + SWARM_BOUNDS_MAX * self.bound_s
        pieces = PIECE_BYTES[256 if self.mib >= 256 else 64]
        runs = [twice(lambda size=size: swarm_once(self.lab, kind, self.payload, size, limit), patience_s) for size in pieces]
        return min(runs, key=lambda run: (not valid(run), run["last_s"]))


def valid(result: dict) -> bool:
    return result["busy_cores"] <= BUSY_CORES_MAX


def twice(run, patience_s=0.0) -> dict:
    """run(), and once more where the machine was the limit; each when it is idle, or after so long."""
    wait_idle(patience_s)
    result = run()
    if not valid(result):
        wait_idle(patience_s)
        result = min(result, run(), key=lambda r: (not valid(r), r["busy_cores"]))
    return result


def busy_before(seconds=1.0) -> float:
    """Busy cores while we do nothing: what others take."""
    with BusyCores() as busy:
        time.sleep(seconds)
    return busy.value


def wait_idle(seconds: float):
    """Until the machine is idle, at most so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and busy_before(0.5) > IDLE_CORES_MAX:
        pass


def print_row(name: str, result: dict):
    pieces = f"{result['piece_bytes'] // 1024} KiB" if "piece_bytes" in result else ""
    note = "" if valid(result) else f"   REFUSED: more than {BUSY_CORES_MAX} cores busy"
    print(f"    {name:11} {result['last_s']:8.2f} {result['ratio']['last']:6.2f} {result['ratio']['p50']:7.2f} {result['origin_copies']:9.3f}"
          f" {result['busy_cores']:6.2f} {pieces:>9}{note}\n                {text_of(result['cpu_s'])}", flush=True)


def misses(result: dict) -> list[str]:
    """What a shape's run should have shown and did not; nothing of a refused one."""
    wrong = []
    if result["ratio"]["last"] > LAST_RATIO_MAX:
        wrong.append(f"last node {result['ratio']['last']:.2f} x size/rate, at most {LAST_RATIO_MAX}")
    if result["origin_copies"] > ORIGIN_COPIES_MAX:
        wrong.append(f"{result['origin_copies']:.3f} copies from the registry, at most {ORIGIN_COPIES_MAX}")
    wrong += [f"slower than {name}" for name in (*KINDS, "no_mesh") if name in result and result[name]["last_s"] <= result["last_s"]]
    return wrong


def measure_shape(shape: Shape, wanted: list[str], patience_s: float) -> dict:
    """One shape, all of the wanted ways; prints rows as they come."""
    with shape:
        others = busy_before()
        print(f"\n  {shape.nodes} nodes x {shape.mbit} Mbit/s, {shape.mib} MiB, size/rate {shape.bound_s:.2f} s; {others:.2f} cores busy before", flush=True)
        print("                    last s  ratio  median  origin x  cores    pieces", flush=True)
        rows = {}
        for name in wanted:
            rows[name] = shape.swarm(name, patience_s) if name in KINDS else twice(getattr(shape, name), patience_s)
            print_row(name, rows[name])
    whole = {"scenario": f"shaped-{shape.nodes}x{shape.mbit}-{shape.mib}", "zones": 1, "mbit": shape.mbit, "others_cores": round(others, 2), **rows.pop("shoal"), **rows}
    whole["valid"] = valid(whole) and all(valid(row) for row in rows.values())
    whole["misses"] = misses(whole)
    return whole


def measure_all(shapes: list[tuple[int, int, int]], wanted: list[str], patience_s=0.0) -> bool:
    """All shapes with a table and JSON; false unless every run was valid and showed what it should."""
    print("\none image to N nodes at once, link of each node and of the registry shaped; all from the same start, each node's"
          "\nbytes checked; ratio in multiples of size/rate, origin in copies of the image", flush=True)
    good = True
    for shape in shapes:
        try:
            result = measure_shape(Shape(*shape), wanted, patience_s)
        except RuntimeError as error:
            print(f"    FAILED: {error}", flush=True)
            good = False
            continue
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / f"{result['scenario']}.json").write_text(json.dumps(result, indent=1) + "\n")
        if not result["valid"]:
            print(f"    REFUSED: this machine was the limit; repeat it when it is idle, or at half the rate"
                  f" (--shapes {shape[0]}x{max(shape[1] // 2, 1)}x{shape[2]})", flush=True)
        elif result["misses"]:
            print(f"    MISSED: {'; '.join(result['misses'])}", flush=True)
        else:
            print("    ok", flush=True)
        good = good and result["valid"] and not result["misses"]
    return good
