#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Eight nodes at a registry that is slow or fails (SECURITY 4, rows O-3, O-4 and O-5; RES-5): each pull ends as it would for one node, and the registry is asked and read little more."""
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import it
import stub_registry as stub
from bad_origin import ACCEPT, NS, ask_stub, asked, bad_registry, everything, fetch
from lab import run

NODES = 8
CREDIT = 3  # retries that all nodes together have before any request earned one (RES-5)


def pulls_at_once(lab, repository: str, which: str) -> list[tuple[str, float, float]]:
    """(status, seconds to the head, seconds in all) of each node; bytes that are not right fail."""
    wanted = stub.blob(repository, which)
    path = f"/v2/{repository}/blobs/{stub.digest_of(wanted)}{NS}"
    for node in lab.nodes:
        it.check(fetch(node, f"/v2/{repository}/manifests/1{NS}", "-H", ACCEPT)[0] == 200, f"{repository}: no manifest")
    targets = [node.dir / "pulled" for node in lab.nodes]
    pulls = [subprocess.Popen(node.exec("curl", "-s", "-m", "60", "-o", target, "-w", "%{http_code} %{time_starttransfer} %{time_total}", f"http://127.0.0.1:{node.client_port}{path}"),
                              stdout=subprocess.PIPE, text=True) for node, target in zip(lab.nodes, targets)]
    found = []
    for pull, target in zip(pulls, targets):
        status, head, total = pull.communicate(timeout=70)[0].split()
        it.check(status != "200" or target.read_bytes() == wanted, f"{repository} {which}: other bytes")
        target.unlink(missing_ok=True)
        found.append((status, float(head), float(total)))
    return found


def slow_crowd(lab, repository: str, which: str, copies_max: float):
    """All at the same moment: each gets a head in time (HTTP-6), as it would straight from there, and the bytes leave the registry about once."""
    found = pulls_at_once(lab, repository, which)
    it.check(all(status == "200" for status, _, _ in found), f"O-3: {repository}: {found}")
    it.check(max(head for _, head, _ in found) < 10, f"HTTP-6: {repository}: {found}")
    gets = [r for r in asked(lab, repository) if r["method"] == "GET"]
    copies = sum(r["sent"] for r in gets) / stub.sizes(repository)[which]
    it.figure(f"{len(lab.nodes)} nodes, {repository} {which}: heads after {min(h for _, h, _ in found):.1f} to {max(h for _, h, _ in found):.1f} s, last byte after "
              f"{max(t for _, _, t in found):.1f} s, {len(gets)} questions, {copies:.2f} copies")
    it.check(copies <= copies_max, f"O-3: {repository}: {copies:.2f} copies left the registry")
    it.check(len(gets) <= 2 * len(lab.nodes), f"O-3: {repository}: {len(gets)} questions from {len(lab.nodes)} nodes")


def test_o_3_a_crowd_at_a_slow_registry():
    """5 s to the first byte, then 50 KB/s, 400 KB/s and 20 MB/s."""
    with bad_registry(NODES, {"transfer.prefetch": False}) as lab:
        slow_crowd(lab, "drip/drip", "tiny", 1.4)
        slow_crowd(lab, "lib/slow", "small", 1.4)
        slow_crowd(lab, "lib/late-start", "small", 1.4)


def test_o_3_a_crowd_in_two_zones():
    """What another zone reads is waited for, too."""
    with bad_registry(4, {"transfer.prefetch": False}, zones=2) as lab:
        slow_crowd(lab, "drip/drip", "tiny", 1.4)
        slow_crowd(lab, "lib/slow", "small", 1.4)


# ---- O-4, O-5: a registry that fails for all ----

def image_everywhere(lab, repository: str) -> list[str]:
    """The answers to each node's client that asks for each of ten layers, three at a time."""
    paths = [f"/v2/{repository}/blobs/{stub.digest_of(stub.blob(repository, which))}{NS}" for which in stub.LAYERS]

    def pull(node):
        def layer(path):
            return run(*node.exec("curl", "-s", "-m", "60", "-w", " %{http_code} %{size_download}", "-o", "/dev/null", f"http://127.0.0.1:{node.client_port}{path}"), check=False).stdout.split()
        with ThreadPoolExecutor(3) as clients:
            return list(clients.map(layer, paths))
    with ThreadPoolExecutor(len(lab.nodes)) as pool:
        answers = [answer for answers in pool.map(pull, lab.nodes) for answer in answers]
    it.check(all(status != "200" or int(size) == 1 << 20 for status, size in answers), f"{repository}: bodies that end early: {answers}")
    return [status for status, _ in answers]


def reached(lab, repository: str) -> int:
    return len([r for r in everything(lab) if f"/{repository}/" in r["path"]])


def retries(lab) -> int:
    return int(sum(node.metric("shoal_origin_retries_total") for node in lab.nodes))


def test_res_5_retries_of_a_cluster():
    """A registry that answers all blobs of an image with an error: what reaches it is what clients asked for, and a tenth more. Then it heals."""
    with bad_registry(NODES, {"transfer.prefetch": False}) as lab:
        firsts = 0
        for status in (503, 429, 500):
            repository = f"layers/broken{status}-for-all"
            for node in lab.nodes:
                fetch(node, f"/v2/{repository}/manifests/1{NS}", "-H", ACCEPT)
            before, retried = reached(lab, repository), retries(lab)
            ask_stub(lab, f"/break/{status}")
            answers = image_everywhere(lab, repository)
            came, retried = reached(lab, repository) - before, retries(lab) - retried
            ask_stub(lab, "/heal")
            it.figure(f"{status} for all: {len(answers)} requests of {NODES} nodes' clients, {came} at the registry ({came / len(answers):.2f} x), of which {retried} retries")
            it.check(set(answers) == {str(status)}, f"{status}: clients heard {sorted(set(answers))}")
            it.check(came <= len(answers) + retried, f"RES-5: {came - len(answers) - retried} of {came} requests are neither a client's nor counted as retries")
            firsts += before + len(answers)
            it.check(retries(lab) <= firsts / 10 + CREDIT, f"RES-5: {retries(lab)} retries for {firsts} requests")
            answers = image_everywhere(lab, repository)
            it.check(set(answers) == {"200"}, f"{status}, healed: clients heard {sorted(set(answers))}")
            firsts += reached(lab, repository) - before - came


def test_o_6_a_cluster_at_a_registry_that_cuts():
    """Every second body ends early: each is resumed where it was, by whoever has the lease."""
    with bad_registry(NODES, {"transfer.prefetch": False}) as lab:
        for node in lab.nodes:
            fetch(node, f"/v2/layers/cut/manifests/1{NS}", "-H", ACCEPT)
        answers = image_everywhere(lab, "layers/cut")
        gets = len([r for r in asked(lab, "layers/cut") if r["method"] == "GET"])
        it.figure(f"bodies cut: {len(answers)} requests of {NODES} nodes' clients, {gets} at the registry, {retries(lab)} retries")
        it.check(set(answers) == {"200"}, f"clients heard {sorted(set(answers))}")
        it.check(gets <= 4 * len(stub.LAYERS), f"O-6: {gets} requests for {len(stub.LAYERS)} layers")


if __name__ == "__main__":
    sys.exit(it.main(globals(), seconds=150))
