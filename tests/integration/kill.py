#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a third of the nodes in the middle of a pull: lease holders and keepers among them (P-1)."""
import sys
import threading
import time

import it
from lab import Lab
from race import Pull

NODES, MBIT, MIB, KILLED = 8, 100, 96, 3
LATER_S_MAX = 5.0


def pull_with(lab, repository, image, kill):
    pulls = [Pull(n, repository, image) for n in lab.nodes]
    for pull in pulls:
        pull.start()
    if kill:
        # In the middle of the pull every node holds leases and is keeper of an eighth of the segments.
        threading.Event().wait(MIB * (1 << 20) * 8 / (MBIT * 1e6) / 2)
        for node in lab.nodes[:KILLED]:
            node.process.kill()
    for pull in pulls:
        pull.join(timeout=120)
    survivors = pulls[KILLED:] if kill else pulls
    bad = [f"{p.node.name}: {p.error or 'still running'}" for p in survivors if p.error or p.is_alive()]
    it.check(not bad, "; ".join(bad))
    return max(p.seconds for p in survivors)


def test_a_third_dies_in_mid_pull():
    with Lab(NODES, 2, MBIT) as lab:
        lab.start_registry()
        images = {name: lab.push_image(f"lib/{name}", [MIB * (1 << 20) // 3] * 3) for name in ("calm", "storm")}
        lab.start_nodes()
        lab.wait_members()
        calm = pull_with(lab, "lib/calm", images["calm"], kill=False)
        storm = pull_with(lab, "lib/storm", images["storm"], kill=True)
        it.figure(f"{KILLED} of {NODES} nodes killed in mid-pull: survivors' last {storm:.2f} s, without the fault {calm:.2f} s")
        it.check(storm <= calm + LATER_S_MAX, f"{storm - calm:.1f} s later")
        leases = sum(n.metric("shoal_leases_total") for n in lab.nodes[KILLED:])
        it.check(leases > 0, "no survivor was a keeper")
        end = time.monotonic() + 15
        while time.monotonic() < end and any(n.metric("shoal_members") > NODES - KILLED for n in lab.nodes[KILLED:]):
            time.sleep(0.2)
        views = [n.metric("shoal_members") for n in lab.nodes[KILLED:]]
        it.check(max(views) == NODES - KILLED, f"the dead are still members: {views}")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
