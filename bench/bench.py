#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: measured figures beside their baselines, each pair in the same run. Leaves JSON in build/bench/.

One agent: a cached blob beside nginx, a pull from a peer per core, idle memory in a mesh of 1,000, time to listening.
Many: an image to N nodes at once over shaped links, with the mesh and without it. A shaped run in which more than 1.7
cores were busy says more about this machine than about the mesh: it is printed as invalid and repeated once at half rate.
"""
import argparse
import json
import os
import statistics
import sys
import time

import measure
from lab import ROOT, Lab, pull_all

BUSY_CORES_MAX = 1.7
OUT = ROOT / "build" / "bench"
# Nodes and Mbit/s of each: about what two cores carry (LIMITS 7), each with these image sizes.
SHAPED = ((8, 200), (16, 100))
SHAPED_MIB = (64, 256)
NO_MESH_S_MAX = 500
MIB = 1 << 20


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="comma-separated: cached, peer, idle, listening, shaped")
    parser.add_argument("--quick", action="store_true", help="fewer runs; of the shaped ones, only the small image")
    return parser.parse_args()


def save(name: str, result: dict):
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def verdict(good: bool) -> str:
    return "ok" if good else "MISSED"


# ---- one agent ----

def cached(quick: bool) -> bool:
    result = measure.cached_blob(runs=5 if quick else 9)
    save("cached_blob", result)
    good = result["ratio"] >= measure.CACHED_RATIO_MIN
    print(f"\ncached blob of {result['bytes'] / MIB:.0f} MiB to one local client, {result['runs']} runs in turns, medians"
          f" ({result['busy_cores']} cores busy)")
    for name in ("nginx", "shoal"):
        row = result[name]
        print(f"  {name:6} {row['gb_s']:6.2f} GB/s   server {row['cpu_s_gb']:.3f} s/GB   first byte {row['first_byte_ms']:.2f} ms   {row['congestion']}")
    print(f"  ratio {result['ratio']:.2f}   (at least {measure.CACHED_RATIO_MIN}: {verdict(good)})")
    return good


def peer(quick: bool) -> bool:
    result = measure.peer_pull(runs=3 if quick else 5)
    save("peer_pull", result)
    good = result["gb_per_core_s"] >= measure.PEER_GB_PER_CORE_MIN
    print(f"\npull of {result['bytes'] / MIB:.0f} MiB from one peer, cipher, hashes, cache ({result['file_system']}) and client;"
          f" {result['runs']} runs, medians ({result['busy_cores']:.2f} cores busy)")
    print(f"  node   {result['cpu_s_gb']:.2f} s/GB = {result['user_s_gb']:.2f} user + {result['system_s_gb']:.2f} system;"
          f" peer {result['peer_cpu_s_gb']:.2f}, client {result['client_cpu_s_gb']:.2f}; {result['gb_s']:.2f} GB/s in all")
    print(f"  {result['gb_per_core_s']:.2f} GB/s per core of the node, best run {result['best_gb_per_core_s']:.2f}"
          f"   (at least {measure.PEER_GB_PER_CORE_MIN}: {verdict(good)})")
    return good


def idle(quick: bool) -> bool:
    result = measure.idle_in_mesh(idle_s=20)
    save("idle", result)
    good = result["rss_mib"] <= measure.IDLE_RSS_MIB_MAX and result["members"] >= 1000
    print(f"\nagent in a mesh of {result['members']} members, {result['idle_s']} s idle after a pull")
    print(f"  RSS {result['rss_mib']} MiB, of it {result['anonymous_mib']} not file-backed; {result['rss_before_pull_mib']} before the pull,"
          f" {result['peak_mib']} at most; {result['idle_cpu_percent']} % of a core   (RSS at most {measure.IDLE_RSS_MIB_MAX}: {verdict(good)})")
    return good


def listening(quick: bool) -> bool:
    result = measure.listening(runs=5 if quick else 10)
    save("listening", result)
    good = result["median_ms"] <= measure.LISTEN_MS_MAX
    print(f"\nfrom exec to a client port that listens: median {result['median_ms']:.0f} ms, longest {result['max_ms']:.0f} ms of {result['runs']}"
          f"   (median at most {measure.LISTEN_MS_MAX}: {verdict(good)})")
    return good


# ---- many ----

def shaped_once(nodes: int, mbit: int, mib: int) -> dict:
    """The same image to the same nodes over the same links: first from the registry, then through the mesh."""
    with Lab(nodes, 1, mbit) as lab:
        lab.start_registry()
        image = lab.push_image("bench/app", [mib * MIB // part for part in (2, 4, 8, 8)])
        plain = pull_all(lab, "bench/app", image, base=lab.endpoint)
        lab.start_nodes()
        lab.wait_members()
        mesh = pull_all(lab, "bench/app", image)
        for node in lab.nodes:
            node.process.stop()
    for result in (plain, mesh):
        seconds = [p["seconds"] for p in result["per_node"]]
        result["completion"] = {"p50_s": round(statistics.median(seconds), 3), "last_s": max(seconds)}
        result["ratio"] = {"p50": round(statistics.median(seconds) / result["bound_s"], 3), **result["ratio"]}
    keep = ("completion", "ratio", "origin_copies", "busy_cores")
    busy = max(plain["busy_cores"], mesh["busy_cores"])
    return {"scenario": f"shaped-{nodes}x{mbit}-{mib}", "zones": 1, "mbit": mbit, **mesh, "no_mesh": {key: plain[key] for key in keep},
            "valid": busy <= BUSY_CORES_MAX}


def shaped_row(result: dict):
    mesh, plain = result, result["no_mesh"]
    mark = "" if result["valid"] else f"   INVALID: more than {BUSY_CORES_MAX} cores busy"
    print(f"  {result['nodes']:3} x {result['mbit']:3}  {result['bytes'] / MIB:4.0f} MiB {result['bound_s']:7.2f} s"
          f" | {mesh['ratio']['last']:6.2f} {mesh['ratio']['p50']:6.2f} {mesh['origin_copies']:7.2f} {mesh['busy_cores']:5.2f}"
          f" | {plain['ratio']['last']:6.2f} {plain['ratio']['p50']:6.2f} {plain['origin_copies']:7.2f}{mark}", flush=True)


def shaped_report(nodes: int, mbit: int, mib: int) -> dict:
    result = shaped_once(nodes, mbit, mib)
    shaped_row(result)
    save(result["scenario"], result)
    return result


def shaped(quick: bool) -> bool:
    print("\none image to N nodes at once, link of each node and of the registry shaped to R; times as multiples of size / R")
    print("  N x R Mbit/s, image, size/R    |        with the mesh         |   without it")
    print("                                 |   last median origin x  cores |   last median origin x", flush=True)
    good = True
    for nodes, mbit in SHAPED:
        for mib in SHAPED_MIB[:1] if quick else SHAPED_MIB:
            result = shaped_report(nodes, mbit, mib)
            if not result["valid"]:
                # Half the image, too, where every node reading the registry would take too long.
                long = nodes * result["bound_s"] * 2 > NO_MESH_S_MAX
                result = shaped_report(nodes, mbit // 2, mib // 2 if long else mib)
            good = good and result["valid"]
    return good


PARTS = {"listening": listening, "idle": idle, "cached": cached, "peer": peer, "shaped": shaped}


def main() -> int:
    options = parse()
    wanted = [name for name in options.only.split(",") if name] or list(PARTS)
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        print(f"bench: unknown part {unknown[0]}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("bench: needs root for network namespaces", file=sys.stderr)
        return 1
    started = time.monotonic()
    failed = [name for name in wanted if not PARTS[name](options.quick)]
    print(f"\nbench: {time.monotonic() - started:.0f} s; figures in build/bench/*.json")
    if failed:
        print(f"bench: over the allowed figures: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
