#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make calibrate: the same crowd for real and simulated, side by side; exit status 1 if they do not agree.

Real agents, clients and registry on shaped links (lab.py, shaped.py); then shoal-sim with the same nodes, image, order and
start of each client. What the scenario needs to know of the network is measured in the same lab beforehand, on links
without agents: what TCP carries, delays of idle and of full links, the registry's time to its first byte. Nothing is
taken from the crowd itself but the moment at which each client had its manifest and began with the layers.
A real run in which the machine was the limit says nothing: it is refused, and so is the comparison when all were.
"""
import argparse
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import probe
import shaped
from lab import ROOT, Node, run
from race import BUSY_CORES_MAX

SIMULATOR = ROOT / "build" / "shoal-sim"
OUT = ROOT / "build" / "bench"
SHAPES = "8x200x64,16x100x64"
LAST_PERCENT_MAX = 15.0
ORIGIN_POINTS_MAX = 10.0
FIRST_BYTE_TRIES = 9
CLIENT_LAYERS = 3  # at a time, as race.Pull asks for them


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=SHAPES, help="nodes x Mbit/s x MiB of the crowds")
    parser.add_argument("--runs", type=int, default=3, help="real runs of each; the median of the valid ones counts")
    parser.add_argument("--seeds", type=int, default=5, help="simulated runs of each; their mean counts")
    parser.add_argument("--patience", type=float, default=0, help="seconds to wait for an idle machine before each run")
    options = parser.parse_args()
    try:
        options.shapes = shaped.parse_shapes(options.shapes)
    except ValueError as error:
        parser.error(str(error))
    if options.runs < 1 or options.seeds < 1:
        parser.error("at least one run and one seed")
    return options


# ---- what the scenario needs to know ----

def first_byte_s(shape: shaped.Shape) -> float:
    """Median time from a request to the registry to the first byte of a layer's part, nothing else going on."""
    node: Node = shape.lab.nodes[0]
    url = f"{shape.lab.endpoint}/v2/{shaped.REPOSITORY}/blobs/{shape.image['layers'][0]['digest']}"
    times = []
    for number in range(FIRST_BYTE_TRIES):
        part = f"{number << 20}-{(number + 1 << 20) - 1}"
        done = node.run("curl", "-sSf", "-o", "/dev/null", "-m", "20", "-r", part, "-w", "%{time_pretransfer} %{time_starttransfer}", url)
        before, first = (float(word) for word in done.stdout.split())
        times.append(first - before)
    return statistics.median(times)


def scenario(shape: shaped.Shape, links: dict, trace: Path) -> dict:
    """The topology as keys of shoal-sim."""
    rate = f"{shape.mbit * links['share'] * 1000:.0f}kbit/s"
    idle = f"{max(round(links['idle_delay_s'] * 1e6), 1)}us"
    # Measured over two full links, a sender's and a receiver's.
    queue = f"{max(round((links['full_delay_s'] - links['idle_delay_s']) / 2 * 1e6), 0)}us"
    blobs = [shape.image["config"], *shape.image["layers"]]
    return {"nodes": shape.nodes, "zones": 1, "nic.up": rate, "origin.rate": rate, "latency.zone": idle, "latency.jitter": "0%",
            "latency.queue": queue, "origin.latency": idle, "origin.firstByte": f"{round(links['first_byte_s'] * 1e6)}us",
            "image.layers": ",".join(f"{blob['size']}B" for blob in blobs), "image.order": CLIENT_LAYERS, "cpu.loopThreads": 1,
            "arrivals.kind": "trace", "arrivals.trace": trace}


# ---- both runs ----

def simulate(keys: dict, seed: int, folder: Path) -> dict:
    """Time from the common start to the last node's end, and copies from the registry."""
    rows = folder / "nodes.csv"
    settings = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    done = run(SIMULATOR, "run", *settings, "--seed", seed, "--json", "--csv", rows, timeout=300)
    begins = min(float(line.split()[0]) for line in Path(keys["arrivals.trace"]).read_text().splitlines())
    with open(rows, newline="") as file:
        last = max(begins + float(row["arrival_s"]) + float(row["completion_s"]) for row in csv.DictReader(file))
    result = json.loads(done.stdout)
    if result["pulls_failed"] or result["nodes_incomplete"]:
        raise RuntimeError(f"simulation of seed {seed}: pulls failed")
    return {"last_s": last, "origin_copies": result["origin_copies"]}


def simulated(shape: shaped.Shape, links: dict, real: dict, seeds: int) -> tuple[dict, dict]:
    """Mean over seeds, and the keys of the scenario."""
    with tempfile.TemporaryDirectory(dir=shape.lab.dir) as scratch:
        folder = Path(scratch)
        trace = folder / "arrivals"
        trace.write_text("".join(f"{row['manifest_s']} {number}\n" for number, row in enumerate(real["per_node"])))
        keys = scenario(shape, links, trace)
        runs = [simulate(keys, seed, folder) for seed in range(1, seeds + 1)]
    mean = {key: statistics.mean(one[key] for one in runs) for key in runs[0]}
    keys = {**keys, "arrivals.trace": " ".join(str(row["manifest_s"]) for row in real["per_node"])}
    return {**mean, "last_s_range": [min(r["last_s"] for r in runs), max(r["last_s"] for r in runs)]}, keys


def compare(shape: shaped.Shape, options) -> dict:
    """One shape, for real and simulated."""
    shaped.wait_idle(options.patience)
    others = shaped.busy_before()
    links = {**probe.carried(shape.lab), "first_byte_s": first_byte_s(shape)}
    print(f"\n{shape.nodes} nodes x {shape.mbit} Mbit/s, {shape.mib} MiB in {len(shape.image['layers'])} layers, size/rate {shape.bound_s:.2f} s;"
          f" {others:.2f} cores busy before\n"
          f"  links: TCP carries {links['share'] * 100:.1f} %; delay {links['idle_delay_s'] * 1e3:.2f} ms idle, {links['full_delay_s'] * 1e3:.1f} ms over two"
          f" full ones; registry's first byte {links['first_byte_s'] * 1e3:.1f} ms", flush=True)
    runs = []
    for _ in range(options.runs):
        shaped.wait_idle(options.patience)
        runs.append(shape.shoal())
        note = "" if shaped.valid(runs[-1]) else f"   REFUSED: more than {BUSY_CORES_MAX} cores busy"
        print(f"  real run: last {runs[-1]['last_s']:.2f} s, {runs[-1]['origin_copies']:.3f} copies, {runs[-1]['busy_cores']:.2f} cores busy{note}", flush=True)
    valid = [one for one in runs if shaped.valid(one)]
    counted = sorted(valid or runs, key=lambda one: one["last_s"])
    real = counted[(len(counted) - 1) // 2]
    model, keys = simulated(shape, links, real, options.seeds)
    last = 100 * (model["last_s"] / real["last_s"] - 1)
    origin = 100 * (model["origin_copies"] - real["origin_copies"])
    return {"scenario": f"calibrate-{shape.nodes}x{shape.mbit}-{shape.mib}", "valid": bool(valid), "links": links, "keys": {k: str(v) for k, v in keys.items()},
            "real": real, "simulated": model, "last_percent": round(last, 1), "origin_points": round(origin, 1),
            "agrees": abs(last) <= LAST_PERCENT_MAX and abs(origin) <= ORIGIN_POINTS_MAX}


def verdict(result: dict) -> str:
    if not result["valid"]:
        return "REFUSED: this machine was the limit"
    return "ok" if result["agrees"] else "DOES NOT AGREE"


def print_comparison(results: list[dict]):
    print(f"\n  nodes x Mbit/s, MiB | last node, s: real simulated  difference | origin copies: real simulated  difference"
          f"   (allowed {LAST_PERCENT_MAX:.0f} %, {ORIGIN_POINTS_MAX:.0f} points)")
    for result in results:
        real, model = result["real"], result["simulated"]
        print(f"  {result['scenario'].removeprefix('calibrate-'):19} | {real['last_s']:18.2f} {model['last_s']:9.2f} {result['last_percent']:+9.1f} %"
              f" | {real['origin_copies']:19.3f} {model['origin_copies']:9.3f} {result['origin_points']:+9.1f}     {verdict(result)}")


def main() -> int:
    options = parse()
    if os.geteuid() != 0:
        print("calibrate: needs root for network namespaces", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("calibrate: stopped by a signal"))
    started, results = time.monotonic(), []
    for shape in options.shapes:
        try:
            with shaped.Shape(*shape) as lab_shape:
                results.append(compare(lab_shape, options))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"calibrate: {shape}: {error}", file=sys.stderr)
            return 1
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / f"{results[-1]['scenario']}.json").write_text(json.dumps(results[-1], indent=1) + "\n")
    print_comparison(results)
    print(f"\ncalibrate: {time.monotonic() - started:.0f} s; figures and scenarios in build/bench/calibrate-*.json")
    return 0 if all(result["valid"] and result["agrees"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
