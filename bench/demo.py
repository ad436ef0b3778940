#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make demo: five nodes in two zones pull one image at once, first without the mesh, then with it.

A real registry, real clients, shaped links (as root). Prints where each byte came from and leaves build/demo.json. With
--stay the nodes stay, each with its status page in reach of this machine's browser, until Ctrl-C.
"""
import argparse
import json
import os
import signal
import sys
import time

from door import Door
from lab import Lab, MESH_PORT, REGISTRY_NAME, ROOT
from race import print_table, pull_all

ORIGIN_COPIES_MAX = 1.15
LAST_RATIO_MAX = 2.0
PAGE_PORT = 65013


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--zones", type=int, default=2)
    parser.add_argument("--mbit", type=int, default=200, help="link rate of each node and of the registry")
    parser.add_argument("--layers", default="96,80,64,32", help="layer sizes in MiB")
    parser.add_argument("--stay", action="store_true", help="keep the nodes and show their status pages until Ctrl-C")
    parser.add_argument("--loopback", action="store_true", help="no namespaces, no shaping")
    return parser.parse_args()


def main() -> int:
    options = parse()
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way the lab is taken down
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
        if options.stay:
            show_pages(lab)
        mesh = pull_all(lab, "demo/app", image)
        print_table("with the mesh", mesh)
        code = verdict(options, netns, plain, mesh, started)
        if options.stay:
            stay(lab)
        for node in lab.nodes:
            node.process.stop()
    return code


def show_pages(lab: Lab):
    """Status pages where a browser of this machine finds them. A node in a namespace is reached by its control socket, so its page names images."""
    print()
    for node in lab.nodes:
        port = PAGE_PORT + 10 * node.index if lab.netns else node.admin_port
        if lab.netns:
            Door(port, node.dir / "data" / "control.sock")
        print(f"  status page of {node.name}, zone-{'abcdefgh'[node.zone]}: http://127.0.0.1:{port}/", flush=True)


def stay(lab: Lab):
    """Until Ctrl-C; what can be asked and broken meanwhile, as lines for another terminal."""
    node = lab.nodes[1 % len(lab.nodes)]
    shoal = f"{ROOT / 'build' / 'shoal'}"
    print(f"\n  the nodes stay until Ctrl-C. In another terminal, on {node.name}:\n")
    print(f"    on='{' '.join(node.exec())}'; config=\"--config {node.dir}/shoal.yaml\"")
    print(f"    $on {shoal} status $config                                      # what it does now")
    print(f"    $on {shoal} explain {REGISTRY_NAME}/demo/app:1 $config    # where each byte came from, and why")
    print(f"    $on {shoal} doctor $config                                      # what is wrong: nothing")
    if lab.netns:
        wall = "add table inet wall; add chain inet wall in { type filter hook input priority 0; }; add rule inet wall in meta l4proto {tcp, udp} th"
        print(f"    $on nft '{wall} dport {MESH_PORT} drop; add rule inet wall in meta l4proto {{tcp, udp}} th sport {MESH_PORT} drop'    # a firewall before its port")
        print(f"    $on {shoal} doctor $config                                      # says so")
        print("    $on nft delete table inet wall")
    print("", flush=True)
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        print()


def verdict(options, netns: bool, plain: dict, mesh: dict, started: float) -> int:
    """Writes and prints the figures; 1 if they are over the allowed ones."""
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
