#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A peer that sends wrong pieces (build/shoal-liar): no client gets a complete wrong body, the liar is dropped, pulls finish (P-5, INT-1, INT-3, INT-7)."""
import hashlib
import os
import sys

import it
from lab import REGISTRY_NAME, ROOT, Lab, Process
from race import Pull

LIAR = ROOT / "build" / "shoal-liar"


def lab_with_liar(mode, nodes=6, layers=(24 << 20, 24 << 20), settings=None):
    """The first of the nodes has the whole image and lies about it."""
    lab = Lab(nodes, 1, 200, settings=settings)
    lab.start_registry()
    image = lab.push_image("lib/app", list(layers))
    liar = lab.nodes[0]
    environment = {**os.environ, "SHOAL_LIAR": mode}
    for node in lab.nodes[1:]:
        node.start(wait=False)
    liar.process = Process(liar.exec(LIAR, "agent", "--config", liar.config()), liar.dir / "agent.log", env=environment)
    for node in lab.nodes:
        node.wait_ready()
    lab.wait_members()
    return lab, image


def pull_everywhere(nodes, image):
    pulls = [Pull(n, "lib/app", image) for n in nodes]
    for pull in pulls:
        pull.start()
    for pull in pulls:
        pull.join(timeout=100)
    return pulls


def test_wrong_bytes_under_a_true_voucher():
    lab, image = lab_with_liar("flip")
    with lab:
        seed = pull_everywhere(lab.nodes[:1], image)[0]
        it.check(seed.error is None, f"the liar's own pull: {seed.error}")
        pulls = pull_everywhere(lab.nodes[1:], image)
        bad = [f"{p.node.name}: {p.error}" for p in pulls if p.error or p.is_alive()]
        it.check(not bad, "; ".join(bad))
        refused = sum(n.metric('shoal_pieces_refused_total') for n in lab.nodes[1:])
        it.check(refused > 0, "nobody was lied to: the test shows nothing")
        it.figure(f"liar with true vouchers: {refused:.0f} pieces refused, 5 of 5 pulls right at the first try")


def test_wrong_bytes_under_its_own_voucher():
    lab, image = lab_with_liar("sign")
    with lab:
        seed = pull_everywhere(lab.nodes[:1], image)[0]
        it.check(seed.error is None, f"the liar's own pull: {seed.error}")
        tries, cut = {n.name: 0 for n in lab.nodes[1:]}, 0
        waiting = lab.nodes[1:]
        while waiting:
            pulls = pull_everywhere(waiting, image)
            wrong = [p.node.name for p in pulls if p.error and "wrong bytes" in p.error and "curl" not in p.error]
            it.check(not wrong, f"complete wrong bodies at {wrong}")
            again = [p.node for p in pulls if p.error or p.is_alive()]
            cut += len(again)
            for node in waiting:
                tries[node.name] += 1
            it.check(max(tries.values()) <= 3, f"no right pull in three tries: {[p.error for p in pulls if p.error][:2]}")
            waiting = again
        mismatches = sum(n.metric("shoal_blob_mismatches_total") for n in lab.nodes[1:])
        it.check(mismatches > 0, "nobody was lied to: the test shows nothing")
        it.figure(f"liar with its own vouchers: {mismatches:.0f} mismatches found, {cut} answers cut short, all pulls right within {max(tries.values())} tries")
        text = "".join(n.process.text() for n in lab.nodes[1:])
        it.check("vouched for false bytes" in text, "no node found out who lied")


def test_wrong_bytes_for_what_was_right_once():
    """A blob whose digest matched, and of which a part is evicted, takes no other bytes for that part (INT-1, INT-7)."""
    lab, image = lab_with_liar("sign", 2, [48 << 20], {"cache.capacity": "64MiB", "cache.memory": "16MiB"})
    with lab:
        liar, node = lab.nodes
        pulls = pull_everywhere([node], image) + pull_everywhere([liar], image)
        pulls.append(Pull(node, "lib/other", lab.push_image("lib/other", [40 << 20])))
        pulls[-1].start()
        pulls[-1].join(timeout=60)
        bad = [f"{p.node.name}: {p.error}" for p in pulls if p.error or p.is_alive()]
        it.check(not bad, "; ".join(bad))
        it.check(node.metric("shoal_cache_evictions_total") > 0, "nothing was evicted: the test shows nothing")
        lab.processes.pop(0).kill()  # the registry: now only the liar has the rest
        digest = image["layers"][0]["digest"]
        target = node.dir / "body"
        for _ in range(3):
            done = node.run("curl", "-sf", "-m", "20", "-o", target, f"http://127.0.0.1:{node.client_port}/v2/lib/app/blobs/{digest}?ns={REGISTRY_NAME}", check=False)
            got = hashlib.sha256(target.read_bytes()).hexdigest() if done.returncode == 0 else None
            it.check(got in (None, digest[7:]), "a complete wrong body")
            if node.metric("shoal_pieces_refused_total") > 0:
                break
        refused = node.metric("shoal_pieces_refused_total")
        it.check(refused > 0, "nobody was lied to: the test shows nothing")
        it.figure(f"blob that was right once: {refused:.0f} other pieces refused, no wrong body")


def test_wrong_bytes_for_a_piece_that_rotted():
    """A blob that a restart found whole, of which a piece proves damaged under a reader, is hashed anew with what comes for it (INT-1, D-5)."""
    lab, image = lab_with_liar("sign", 2, [24 << 20])
    with lab:
        liar, node = lab.nodes
        bad = [f"{p.node.name}: {p.error}" for p in pull_everywhere([node], image) + pull_everywhere([liar], image) if p.error or p.is_alive()]
        it.check(not bad, "; ".join(bad))
        node.process.stop()
        for path in (node.dir / "data" / "cache").rglob("*"):
            if path.is_file() and path.stat().st_size > (1 << 20):
                with open(path, "r+b") as file:
                    file.seek(path.stat().st_size * 2 // 3)
                    file.write(bytes(4096))
        node.start()
        lab.wait_members()
        digest = image["layers"][0]["digest"]
        target = node.dir / "body"
        right = 0
        for _ in range(4):
            done = node.run("curl", "-sf", "-m", "20", "-o", target, f"http://127.0.0.1:{node.client_port}/v2/lib/app/blobs/{digest}?ns={REGISTRY_NAME}", check=False)
            got = hashlib.sha256(target.read_bytes()).hexdigest() if done.returncode == 0 else None
            it.check(got in (None, digest[7:]), "a complete wrong body")
            right += got is not None
        it.check(node.metric("shoal_cache_corrupt_total") > 0, "no damage was met: the test shows nothing")
        it.check(node.metric("shoal_blob_mismatches_total") > 0, "nobody was lied to: the test shows nothing")
        it.check(right > 0, "no right body in four tries")
        it.figure(f"piece that rotted: {right} of 4 bodies right, none wrong")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
