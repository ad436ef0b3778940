#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What operators do to a mesh that runs, under a load of pulls of which none may fail: upgrade node by node and back (C-3), rotate the
secret and deny a node (PEER-8, C-5), stop a node in the middle of a crowd, throw the kill switch (HRD-7), change the log level.

`shoal-next` (next.c) is the agent as its next minor version could be: it says so, and sends with everything what this one does not know.
"""
import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path

import it
import marks
from lab import ROOT, SHOAL, Lab, run
from load import Load, agents_origin_bytes, free_port
from race import Pull

NEXT = ROOT / "build" / "shoal-next"
MIB = 1 << 20
LIVE_S_MAX = 12.0  # file and node look every 5 s each


def push_many(lab, count: int, layers: list[int], name="app") -> dict[str, dict]:
    return {f"lib/{name}{number}": lab.push_image(f"lib/{name}{number}", layers) for number in range(count)}


def wait_for(what: str, question, seconds: float) -> float:
    """Until `question` is true; how long that took."""
    started = time.monotonic()
    while not question():
        it.check(time.monotonic() - started < seconds, f"{what}: not within {seconds} s")
        time.sleep(0.1)
    return time.monotonic() - started


def rejected(nodes, *reasons: str) -> int:
    """What nodes refused of others, by reason."""
    pages = [node.get("/metrics", admin=True) for node in nodes]
    return sum(int(float(value)) for page in pages for reason, value in re.findall(r'^shoal_rejected_total\{reason="(\w+)"\} (\S+)', page, re.M)
               if reason in reasons)


def no_failed_pull(load: Load):
    errors = load.errors()
    it.check(not errors, f"{len(errors)} failed pulls: {'; '.join(errors[:5])}")
    it.check(load.total("pulls") > 10, "hardly a pull: the test shows nothing")


@contextlib.contextmanager
def mesh(nodes: int, zones=2, mbit=0, settings: dict | None = None):
    with Lab(nodes, zones, mbit, settings=settings) as lab:
        lab.start_registry()
        yield lab


# ---- C-3 ----

def minors(lab) -> set[int]:
    """Protocol minors of all members, as every node sees them."""
    return {member["protocol_minor"] for node in lab.nodes for member in node.status()["members"]}


def upgrade(old: Path, new: Path, before: int, after: int):
    with mesh(8) as lab:
        images = push_many(lab, 24, [1 * MIB, 2 * MIB])
        for node in lab.nodes:
            node.start(binary=old, wait=False)
        for node in lab.nodes:
            node.wait_ready()
        lab.wait_members()
        it.check(minors(lab) == {before}, f"members say {minors(lab)}")
        kept, mixed, skipped = 0, set(), {"message": 0.0, "frame": 0.0}
        with Load(lab, images) as load:
            time.sleep(2)
            for node in lab.nodes:
                load.away.add(node)
                node.process.stop()
                node.start(binary=new)
                kept += node.status()["cache"]["bytes"]
                load.away.discard(node)
                lab.wait_members(10)
                mixed |= {tuple(sorted(minors(lab)))}
                for kind in skipped:
                    skipped[kind] = max(skipped[kind], sum(n.metric(f'shoal_skipped_total{{kind="{kind}"}}') for n in lab.nodes))
            time.sleep(2)
            done = load.seen_bytes()
        no_failed_pull(load)
        it.check(any(len(each) == 2 for each in mixed) and minors(lab) == {after}, f"no mixed mesh: {mixed}, now {minors(lab)}")
        it.check(kept > 8 * 3 * MIB, f"caches were not read by the other version: {kept} bytes in all")
        it.check(min(skipped.values()) > 0, f"nobody met what it does not know: {skipped}")
        wrong = {reason: rejected(lab.nodes, reason) for reason in ("session_protocol", "handshake_auth", "message", "datagram_malformed")}
        it.check(not any(wrong.values()), f"sessions or messages refused within a major version: {wrong}")
        copies = agents_origin_bytes(load) / done
        it.figure(f"{before} -> {after}: {load.total('pulls')} pulls, none failed, {load.total('passed_by')} objects straight from the registry while a "
                  f"node was away; agents read {copies:.2f} copies; slowest pull {max(c.slowest for c in load.clients):.2f} s")
        it.check(copies <= 1.6, f"the registry was read {copies:.2f} times")


def test_c_3_upgrade_under_load():
    upgrade(SHOAL, NEXT, 0, 1)


def test_c_3_and_back():
    upgrade(NEXT, SHOAL, 1, 0)


# ---- PEER-8 ----

def reloads(node) -> float:
    return node.metric('shoal_secret_reloads_total{outcome="ok"}')


def secrets(lab, *names: str):
    """The list of secrets in every node's configuration, as an operator would change it; waits until all have read it."""
    before = {node: reloads(node) for node in lab.nodes}
    for node in lab.nodes:
        node.config({"clusterSecretFile": [str(lab.dir / name) for name in names]})
    wait_for("secrets", lambda: all(reloads(node) > before[node] for node in lab.nodes), LIVE_S_MAX)


def part_of(node, name: str, image: dict, straight=False) -> str:
    """SHA-256 of the first half of a layer, read as lazy loading does. It is kept by segments of a MiB, some of whose keepers have it."""
    base = node.lab.endpoint if straight else f"http://127.0.0.1:{node.client_port}"
    url = f"{base}/v2/{name}/blobs/{image['layers'][0]['digest']}?ns=registry.test%3A5000"
    return node.run("sh", "-c", f"curl -sf -m 10 -r 0-{12 * MIB - 1} '{url}' | sha256sum").stdout.split()[0]


def whole(node, name: str, image: dict):
    pull = Pull(node, name, image)
    pull.start()
    pull.join(timeout=30)
    it.check(pull.error is None, f"{name} by {node.name}: {pull.error}")


def only_from_peers(node, name: str, image: dict):
    node.count_sources()
    whole(node, name, image)
    it.check(node.sources()["origin_bytes"] < MIB, f"{name}: {node.sources()['origin_bytes']} bytes from the registry though a node has it")


def test_peer_8_c_5_rotation_under_load():
    with mesh(4) as lab:
        images = push_many(lab, 20, [1 * MIB, 2 * MIB])
        warm = list(push_many(lab, 2, [4 * MIB], "warm").items())
        parted = next(iter(push_many(lab, 1, [24 * MIB], "part").items()))
        fresh = lab.dir / "fresh"
        fresh.write_text(os.urandom(32).hex() + "\n")
        fresh.chmod(0o400)
        lab.start_nodes()
        lab.wait_members()
        first, second, third, fourth = lab.nodes
        for name, image in warm:  # only one node has them
            whole(first, name, image)
        expected = part_of(first, *parted, straight=True)
        it.check(part_of(first, *parted) == part_of(second, *parted) == expected, "other bytes")
        with Load(lab, images, fresh_s=2.0) as load:
            time.sleep(1)
            for step in (("secret", "fresh"), ("fresh", "secret"), ("fresh",)):
                secrets(lab, *step)
                lab.wait_members()
            time.sleep(2)
            refused = rejected(lab.nodes, "datagram_auth", "handshake_auth", "session_protocol")
            time.sleep(3)
            later = rejected(lab.nodes, "datagram_auth", "handshake_auth", "session_protocol")
        no_failed_pull(load)
        it.check(later == refused, f"{later - refused} messages of members refused after the last step")
        copies = agents_origin_bytes(load) / load.seen_bytes()
        it.figure(f"rotation: {load.total('pulls')} pulls, none failed, agents read {copies:.2f} copies, {refused} messages refused on the way")

        # What was cached before has its new name in the mesh; also after a restart, when stored vouchers are for the old one
        wait_for("names of blobs", lambda: all("node: blobs renamed" in node.process.text() for node in lab.nodes), 20)
        only_from_peers(second, *warm[0])
        first.process.stop()
        # Half a blob of another's vouchers: no use to anybody now, and nobody is called a liar for it
        began = time.monotonic()
        it.check(part_of(fourth, *parted) == expected, "other bytes")
        it.check(time.monotonic() - began < 4, f"pieces that nobody vouches for held a client for {time.monotonic() - began:.1f} s")
        first.start({"clusterSecretFile": [str(fresh)]})
        lab.wait_members()
        only_from_peers(third, *warm[1])
        bad = sum(node.metric('shoal_pieces_refused_total{reason="voucher"}') for node in lab.nodes)
        it.check(bad == 0, f"{bad:.0f} vouchers that are for nobody")

        # The old secret opens nothing any more
        fourth.process.stop()
        fourth.start({"clusterSecretFile": [str(lab.secret)]})
        time.sleep(2)
        it.check(fourth.metric("shoal_members") <= 1, "a node with the old secret came in")


def identity_key(node) -> str:
    """As README says."""
    return "".join(run("od", "-An", "-vtx1", "-j72", "-N32", node.dir / "data" / "identity").stdout.split())


def test_peer_8_a_denied_node_is_let_go():
    deny = "deny"
    with mesh(3, 1) as lab:
        images = push_many(lab, 12, [1 * MIB])
        (lab.dir / deny).write_text("# nobody\n")
        lab.start_nodes({"denyFile": str(lab.dir / deny)})
        lab.wait_members()
        first, second, bad = lab.nodes
        address = f"{bad.address}:{bad.mesh_port}"

        def linked() -> bool:
            return any(link["addr"] == address and link["established"] for node in (first, second) for link in node.status()["links"])
        with Load(lab, images, fresh_s=2.0) as load:
            wait_for("a session with the node to be denied", linked, 15)
            (lab.dir / deny).write_text(f"{identity_key(bad)}  # {bad.name}\n")
            took = wait_for("sessions of a denied node", lambda: not linked(), 60)
            gone = took + wait_for("membership of a denied node", lambda: first.metric("shoal_members") == second.metric("shoal_members") == 2, 30)
            time.sleep(2)
            it.check(not linked(), "it came in again")
        no_failed_pull(load)
        it.figure(f"denied: no session after {took:.1f} s, no member after {gone:.1f} s; {load.total('pulls')} pulls, none failed, its own among them")


# ---- drain ----

def crowd(lab, name: str, image: dict, leaves: bool) -> tuple[float, float]:
    """All nodes pull at once; with `leaves` one of them is told to stop in the middle. Time of the last of the others, and until the one that
    left had ended; its own client, too, gets everything."""
    pulls = [Pull(node, name, image) for node in lab.nodes]
    for pull in pulls:
        pull.wait_ready()
    started = time.monotonic()
    for pull in pulls:
        pull.go(started)
    stopped = 0.0
    if leaves:
        time.sleep(image["size"] * 8 / (lab.mbit * 1e6) * 0.4)
        lab.nodes[0].process.popen.terminate()
        wait_for("the port of a node that leaves", lambda: free_port(lab.nodes[0]), 1)
        began = time.monotonic()
        lab.nodes[0].process.popen.wait(timeout=40)
        stopped = time.monotonic() - began
    for pull in pulls:
        pull.join(timeout=60)
    bad = [f"{p.node.name}: {p.error or 'still running'}" for p in pulls if p.error or p.is_alive()]
    it.check(not bad, "; ".join(bad))
    return max(p.seconds for p in pulls[1 if leaves else 0:]), stopped


def test_drain_in_the_middle_of_a_crowd():
    with mesh(6, 1, 100) as lab:
        images = {name: lab.push_image(f"lib/{name}", [48 * MIB]) for name in ("calm", "drain")}
        lab.start_nodes()
        lab.wait_members()
        calm, _ = crowd(lab, "lib/calm", images["calm"], False)
        last, stopped = crowd(lab, "lib/drain", images["drain"], True)
        text = lab.nodes[0].process.text()
        it.check(lab.nodes[0].process.popen.returncode == 0 and "leaving work behind" not in text, text[-500:])
        gone = wait_for("views without it", lambda: all(n.metric("shoal_members") == 5 for n in lab.nodes[1:]), 5)
        deaths = sum(n.metric("shoal_member_deaths_total") for n in lab.nodes[1:])
        it.figure(f"one of 6 nodes leaves in mid-crowd: others' last {last:.2f} s, {calm:.2f} s without; it ended after {stopped:.2f} s, "
                  f"no member {gone:.1f} s later, {deaths:.0f} deaths declared")
        it.check(last <= 1.1 * calm + 1, f"{last - calm:.1f} s later")
        it.check(deaths == 0, "it was thought dead instead of gone")


# ---- HRD-7 ----

def goes_around(node, path: str) -> bool:
    """Does this agent answer a blob that it has straight from the registry? Its counter tells."""
    before = node.metric('shoal_fallbacks_total{reason="configured"}')
    node.run("curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{node.client_port}{path}")
    return node.metric('shoal_fallbacks_total{reason="configured"}') > before


def carried(lab) -> int:
    """Piece bytes that nodes gave to each other, or got."""
    return sum(int(n.metric("shoal_upload_bytes_total")) + n.status()["bytes"]["peer"] for n in lab.nodes)


def test_hrd_7_kill_switch_under_load():
    with mesh(3, 1) as lab:
        images = push_many(lab, 12, [1 * MIB])
        name, image = next(iter(images.items()))
        path = f"/v2/{name}/blobs/{image['layers'][0]['digest']}?ns=registry.test%3A5000"
        lab.start_nodes()
        lab.wait_members()
        with Load(lab, images, fresh_s=3.0) as load:
            time.sleep(4)
            it.check(not any(goes_around(node, path) for node in lab.nodes), "it goes around the mesh before it is told to")
            took = {}
            for mode in ("passthrough", "normal"):
                for node in lab.nodes:
                    node.config({"mode": mode})
                took[mode] = wait_for(mode, lambda: all(goes_around(n, path) == (mode == "passthrough") for n in lab.nodes), 30)
                time.sleep(1)
                before = carried(lab)
                time.sleep(4)
                it.check((carried(lab) > before) == (mode == "normal"), f"{mode}: {carried(lab) - before} bytes between nodes")
        no_failed_pull(load)
        around = sum(node.metric('shoal_fallbacks_total{reason="configured"}') for node in lab.nodes)
        it.figure(f"kill switch: all nodes around the mesh after {took['passthrough']:.1f} s, back after {took['normal']:.1f} s; "
                  f"{load.total('pulls')} pulls, none failed, {around:.0f} answers around it")


# ---- logs ----

def test_hrd_5_log_level_changes_live():
    with mesh(1, 1) as lab:
        lab.push_image("lib/app", [MIB])
        node = lab.nodes[0]
        login, signature = marks.secret("lifecyclelogin"), marks.secret("lifecyclesignature")
        settings = {"log.format": "json", "log.level": "info"}
        node.start(settings)
        path = "/v2/lib/app/manifests/1?ns=registry.test%3A5000"  # each time a question to the registry, so that there is something to tell

        def lines() -> list[dict]:
            """Each line is a JSON object with these three, and nothing else is in the file."""
            found = [json.loads(line) for line in node.process.log.read_bytes().decode("ascii").splitlines()]
            it.check(all({"time", "level", "message"} <= set(line) and line["level"] in ("error", "warn", "info", "debug", "trace") for line in found), "an odd line")
            return found

        def ask():
            """A pull with a login, and a signed URL to a place that nobody may ask for."""
            for header, target in (("Authorization: Bearer", path), ("Cookie:", f"/accelerator/https://store.test/b?Expires=9&Signature={signature}")):
                node.run("curl", "-s", "-o", "/dev/null", "-H", f"{header} {login}", f"http://127.0.0.1:{node.client_port}{target}")

        def levels() -> set[str]:
            return {line["level"] for line in lines()}
        ask()
        it.check(levels() <= {"error", "warn", "info"}, f"{levels()} at level info")
        node.config({**settings, "log.level": "trace"})

        def talks() -> bool:
            ask()
            return bool(levels() & {"debug", "trace"})
        took = wait_for("level trace", talks, LIVE_S_MAX)

        # HRD-5: what somebody writes into a file cannot forge a line, nor turn a terminal's colours
        (node.dir / "shoal.yaml").write_text('"mo\\u001b[31mde\\nx\\r": normal\nlog: {level: error}\n')
        wait_for("word of a broken file", lambda: any("not read again" in line["message"] for line in lines()), LIVE_S_MAX)
        raw = node.process.log.read_bytes()
        it.check(not re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]", raw), "control bytes in the log")

        node.config({**settings, "log.level": "error"})
        wait_for("level error", lambda: node.process.log.stat().st_size == (time.sleep(2), ask(), node.process.log.stat().st_size)[2], 2 * LIVE_S_MAX)
        for name, secret in (("login", login), ("signature", signature)):
            it.check(secret.encode() not in node.process.log.read_bytes(), f"the {name} is in the log")
        it.figure(f"log level: {took:.1f} s from file to first debug line; {len(lines())} lines, all JSON")


if __name__ == "__main__":
    for binary in (SHOAL, NEXT):
        if not binary.exists():
            sys.exit(f"{binary} is missing: make all {NEXT.relative_to(ROOT)}")
    sys.exit(it.main(globals(), seconds=60))
