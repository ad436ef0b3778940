#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: measured figures beside their baselines, each pair in the same run. Leaves JSON in build/bench/.

One agent: a cached blob beside nginx, a pull from a peer per core, idle memory in a mesh of 1,000, time to listening; what
pulls cost over none of us when the mesh is dead, silent or of no use (worse.py).
Many: an image to N nodes at once over shaped links, by Shoal, by aria2, by libtorrent, and without a mesh (shaped.py).
"""
import argparse
import json
import os
import signal
import sys
import time

import measure
import shaped
import worse
from lab import ROOT

OUT = ROOT / "build" / "bench"
MIB = 1 << 20
WAYS = ("shoal", "aria2", "libtorrent", "no_mesh")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="comma-separated: cached, peer, idle, listening, worse, shaped")
    parser.add_argument("--quick", action="store_true", help="fewer runs; of the shapes, only the first")
    parser.add_argument("--shapes", default="", help="nodes x Mbit/s x MiB of the shaped runs, such as 16x100x64,8x200x256")
    parser.add_argument("--full", action="store_true", help="all six shapes: 8x200, 16x100, 32x50, with 64 and with 256 MiB; about an hour")
    parser.add_argument("--ways", default=",".join(WAYS), help="who runs in the shapes, besides shoal")
    parser.add_argument("--patience", type=float, default=0, help="seconds to wait for an idle machine before each shaped run")
    options = parser.parse_args()
    ways = [name for name in options.ways.split(",") if name]
    if set(ways) - set(WAYS):
        parser.error(f"--ways takes {', '.join(WAYS)}")
    options.ways = [name for name in WAYS if name == "shoal" or name in ways]
    try:
        options.shapes = shaped.parse_shapes(options.shapes) if options.shapes else shaped.FULL if options.full else shaped.USUAL
    except ValueError as error:
        parser.error(str(error))
    return options


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
          f"   (at least {measure.PEER_GB_PER_CORE_MIN}: {verdict(good)}; a straight implementation {result['straight_gb_per_core_s']:.2f})")
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


def never_worse(quick: bool) -> bool:
    print(f"\npulls of blobs that nobody has, through the agent and straight from the registry in turns; allowed: first byte"
          f" p50 +{worse.FIRST_BYTE_P50_MS} ms, p99 +{worse.FIRST_BYTE_P99_MS} ms; the whole {worse.TOTAL_SHARE:.0%} + {worse.TOTAL_S} s")

    def tell(result: dict):
        print(f"  {worse.text_of(result)}   {'MISSED: ' + '; '.join(result['misses']) if result['misses'] else 'ok'}", flush=True)
    results = worse.states(rounds=1 if quick else 5, small=40 if quick else 20, tell=tell)
    save("worse", {"measure": "worse", "states": results})
    return not any(result["misses"] for result in results)


# ---- many ----

def many(options) -> bool:
    return shaped.measure_all(options.shapes[:1] if options.quick else options.shapes, options.ways, options.patience)


PARTS = {"listening": listening, "idle": idle, "cached": cached, "peer": peer, "worse": never_worse}


def main() -> int:
    options = parse()
    parts = [*PARTS, "shaped"]
    wanted = [name for name in options.only.split(",") if name] or parts
    unknown = [name for name in wanted if name not in parts]
    if unknown:
        print(f"bench: unknown part {unknown[0]}; there are {', '.join(parts)}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("bench: needs root for network namespaces", file=sys.stderr)
        return 1
    started = time.monotonic()
    # As an exception, so that a stopped run takes down its namespaces and processes, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped by a signal"))
    failed = [name for name in wanted if not (PARTS[name](options.quick) if name in PARTS else many(options))]
    print(f"\nbench: {time.monotonic() - started:.0f} s; figures in build/bench/*.json")
    if failed:
        print(f"bench: over the allowed figures: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
