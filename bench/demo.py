#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make demo: five nodes in two zones pull one image at once, first without the mesh, then with it.

A real registry, real clients, shaped links (as root). Prints where each byte came from and leaves build/demo.json.
"""
import argparse
import json
import os
import sys
import time

from lab import ROOT, Lab
from race import print_table, pull_all

ORIGIN_COPIES_MAX = 1.15
LAST_RATIO_MAX = 2.0


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--zones", type=int, default=2)
    parser.add_argument("--mbit", type=int, default=200, help="link rate of each node and of the registry")
    parser.add_argument("--layers", default="96,80,64,32", help="layer sizes in MiB")
    parser.add_argument("--loopback", action="store_true", help="no namespaces, no shaping")
    return parser.parse_args()


def main() -> int:
    options = parse()
    started = time.monotonic()
    layers = [int(float(x) * (1 << 20)) for x in options.layers.split(",")]
    netns = os.geteuid() == 0 and not options.loopback
    if not netns:
        print("demo: not root: nodes are loopback processes; links are not shaped, so times say nothing about a network")
    with Lab(options.nodes, options.zones, options.mbit if netns else 0, netns=netns) as lab:
        print(f"demo: {options.nodes} nodes in {options.zones} zones, {options.mbit} Mbit/s each" if netns else f"demo: {options.nodes} nodes")
        lab.start_registry()
        image = lab.push_image("demo/app", layers)
        print(f"demo: image of {len(layers)} layers, {image['size'] / (1 << 20):.0f} MiB, in docker-registry at {lab.endpoint}")
        plain = pull_all(lab, "demo/app", image, base=lab.endpoint)
        print_table("without the mesh: every node reads the registry", plain)
        lab.start_nodes()
        lab.wait_members()
        mesh = pull_all(lab, "demo/app", image)
        print_table("with the mesh", mesh)
        for node in lab.nodes:
            node.process.stop()
    result = {"scenario": "demo", "zones": options.zones, "mbit": options.mbit if netns else None, **mesh,
              "no_mesh": {"last_s": plain["last_s"], "origin_copies": plain["origin_copies"]}}
    (ROOT / "build" / "demo.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n  image read from the registry  {mesh['origin_copies']:.2f} times   (without the mesh {plain['origin_copies']:.2f}; allowed {ORIGIN_COPIES_MAX})")
    if mesh["bound_s"]:
        print(f"  last node                     {mesh['last_s']:.2f} s        (without the mesh {plain['last_s']:.2f} s;"
              f" size / link rate {mesh['bound_s']:.2f} s, ratio {mesh['ratio']['last']:.2f}, allowed {LAST_RATIO_MAX})")
    print(f"  every digest right; build/demo.json written; {time.monotonic() - started:.0f} s in all")
    good = mesh["origin_copies"] <= ORIGIN_COPIES_MAX and (not mesh["bound_s"] or mesh["ratio"]["last"] <= LAST_RATIO_MAX)
    if not good:
        print("demo: FAILED: over the allowed figures", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
