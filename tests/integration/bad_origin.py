#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A registry that cuts, lies, stalls, refuses and redirects (SECURITY 4, rows O-3..O-9; ORG-2, ORG-3, ORG-7): the pull is right or fails cleanly."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import it
import marks
import stub_registry as stub
from lab import REGISTRY_NAME, Lab, Process, run
from pull import fetch, wait_outcomes

NS = f"?ns={REGISTRY_NAME.replace(':', '%3A')}"
STORE_PORT = 5001
ACCEPT = f"Accept: {stub.MANIFEST}"


def start_stub(lab, port=None, store_port=STORE_PORT) -> Process:
    script = Path(__file__).with_name("stub_registry.py")
    return Process(lab.origin_exec(sys.executable, script, "--host", lab.origin_address, "--port", port or lab.registry_port, "--store-port", store_port),
                   lab.dir / f"stub-{store_port}.log")


@contextmanager
def bad_registry(nodes=1, extra=None, zones=1):
    with Lab(nodes, zones) as lab:
        lab.processes.append(start_stub(lab))
        ask_stub(lab, "/v2/")  # it answers: what a test measures is not its start
        lab.start_nodes(extra)
        if nodes > 1:
            lab.wait_members()
        yield lab


def ask_stub(lab, path: str) -> str:
    return run(*lab.origin_exec("curl", "-sf", "--retry", "5", "--retry-connrefused", f"{lab.endpoint}{path}")).stdout


def asked(lab, repository: str) -> list[dict]:
    """The requests for blobs of this repository, in order."""
    return [r for r in json.loads(ask_stub(lab, "/log")) if f"/{repository}/" in r["path"] and "manifests" not in r["path"]]


def read_blob(node, repository: str, which: str, *args):
    """(status, bytes right, bytes got, seconds) of a pull of the manifest, then of the whole blob."""
    started = time.monotonic()
    fetch(node, f"/v2/{repository}/manifests/1{NS}", "-H", ACCEPT, *args)
    wanted = stub.blob(repository, which)
    status, _, body = fetch(node, f"/v2/{repository}/blobs/{stub.digest_of(wanted)}{NS}", *args)
    it.check(status != 200 or len(body) < len(wanted) or body == wanted, f"INT-1: {repository}: a complete body with wrong bytes")
    return status, body == wanted, len(body), time.monotonic() - started


def pulls_right(node, repository: str, which: str, seconds=10.0, *args) -> float:
    status, right, got, took = read_blob(node, repository, which, *args)
    it.check(status == 200 and right, f"{repository} {which}: {status}, {got} bytes, {took:.1f} s")
    it.check(took < seconds, f"{repository} {which}: {took:.1f} s, allowed {seconds}")
    return took


def test_o_6_bodies_cut_anywhere():
    with bad_registry() as lab:
        for which in stub.SIZES:
            pulls_right(lab.nodes[0], "lib/cut", which)


def test_o_7_wrong_bytes():
    """Never a complete body, nothing kept; when the registry is right again, so are we, at the second try at the latest."""
    with bad_registry(2, {"transfer.prefetch": False}) as lab:  # what is counted below is what these three pulls read
        first, second = lab.nodes
        for node, which in ((first, "small"), (second, "small"), (first, "big")):
            status, right, got, took = read_blob(node, "lib/wrong", which)
            it.check(not right and (status in (502, 503) or got < stub.SIZES[which]), f"{which}: {status}, {got} bytes")
            it.check(which == "big" or status == 502, f"{which}: {status}: nothing of a small blob leaves unverified (INT-2)")
            it.check(took < 10, f"{which}: {took:.1f} s")
        reads = [r for r in asked(lab, "lib/wrong") if r["method"] == "GET"]
        it.check(len(reads) < 60, f"the registry was asked {len(reads)} times for three pulls")
        ask_stub(lab, "/heal")
        for node, which in ((first, "small"), (second, "small"), (first, "big")):
            if not read_blob(node, "lib/wrong", which)[1]:  # wrong pieces may still be about: cut once, then repaired (INT-3)
                pulls_right(node, "lib/wrong", which)


def test_o_7_wrong_bytes_with_layers_ahead():
    """Pulls of one layer that bring in a wrong one behind it: five reads of blobs instead of three, and no more for each than above."""
    with bad_registry(2) as lab:
        first, second = lab.nodes
        for node, which in ((first, "small"), (second, "small"), (first, "big")):
            it.check(not read_blob(node, "lib/wrong", which)[1], f"{which}: wrong bytes were let through")
        time.sleep(2)  # what runs on by itself would show
        reads = [r for r in asked(lab, "lib/wrong") if r["method"] == "GET"]
        it.check(len(reads) < 60 * 5 / 3, f"the registry was asked {len(reads)} times for three pulls and two layers ahead")


def test_int_7_wrong_once():
    with bad_registry() as lab:
        node = lab.nodes[0]
        pulls_right(node, "lib/wrong-once", "small")
        status, right, got, _ = read_blob(node, "lib/wrong-once", "big")
        if not right:  # its beginning had left already: the client's retry must succeed
            it.check(got < stub.SIZES["big"], f"{status}, {got} bytes")
            pulls_right(node, "lib/wrong-once", "big")


def test_o_8_ranges_ignored_or_wrong():
    with bad_registry() as lab:
        for which in stub.SIZES:
            pulls_right(lab.nodes[0], "lib/no-ranges", which, 15)
            for repository in ("lib/wrong-range", "lib/too-long"):
                status, right, got, took = read_blob(lab.nodes[0], repository, which)
                it.check(right or status >= 500 or got < stub.SIZES[which], f"{repository} {which}: {status}, {got} bytes")
                it.check(took < 20, f"{repository} {which}: {took:.1f} s")


def test_o_4_and_o_5_too_many_requests_and_errors():
    """Two refusals are got over by an agent that has just started, whose three retries (RES-5) are for one pull: each has its own."""
    for repository in ("lib/busy", "lib/broken"):
        with bad_registry(extra={"transfer.prefetch": False}) as lab:
            took = pulls_right(lab.nodes[0], repository, "small", 10)
            it.figure(f"{repository}: {took:.1f} s")
            times = [r["at"] for r in asked(lab, repository) if r["method"] == "GET"]
            it.check(len(times) <= 5, f"{repository}: {len(times)} requests: two that failed, and one for each of three pieces at most")
            it.check(repository != "lib/busy" or times[1] - times[0] > 0.9 or len(times) > 3, f"Retry-After: 1 was not honoured: {[round(t - times[0], 2) for t in times]}")


def test_o_4_without_and_with_long_retry_after():
    """Without Retry-After a pause of our own; an hour is not waited out, the client hears it at once and decides itself. Without layers ahead, whose
    reads are no retries."""
    with bad_registry(extra={"transfer.prefetch": False}) as lab:
        node = lab.nodes[0]
        took = pulls_right(node, "lib/busy-silent", "small", 10)
        it.figure(f"429 without Retry-After: {took:.1f} s")
        gets = len([r for r in asked(lab, "lib/busy-silent") if r["method"] == "GET"])
        it.check(gets <= 4, f"{gets} requests for a blob of which two were refused")
        wanted, started = stub.digest_of(stub.blob("lib/busy-long", "small")), time.monotonic()
        status, headers, _ = fetch(node, f"/v2/lib/busy-long/blobs/{wanted}{NS}")
        took = time.monotonic() - started
        it.check(status == 429 and headers.get("retry-after") == "3600", f"{status} {headers}")
        it.check(took < 10, f"{took:.1f} s")
        it.figure(f"429 with Retry-After: 3600 is passed on after {took:.1f} s, {len([r for r in asked(lab, 'lib/busy-long') if r['method'] == 'GET'])} requests")


def test_o_4_peers_go_on_while_the_registry_is_busy():
    with bad_registry(2) as lab:
        first, second = lab.nodes
        pulls_right(first, "lib/busy-for-some", "big", 15)
        took = pulls_right(second, "lib/busy-for-some", "big", 15, "-H", f"Authorization: Bearer {stub.THROTTLED}")
        throttled = [r for r in asked(lab, "lib/busy-for-some") if r["method"] == "GET" and r["authorization"] == "Bearer throttled"]
        it.figure(f"20 MiB from a peer while the registry says 429: {took:.1f} s, {len(throttled)} requests for them at the registry")
        it.check(len(throttled) < 10, f"{len(throttled)} requests to a busy registry")


def test_o_9_a_signed_url_expires_in_mid_body():
    """The body is cut, its URL answers 403 from then on: resolved anew at the registry, and gone on where it was. Two URLs end, the third lasts."""
    with bad_registry(extra={"transfer.prefetch": False}) as lab:
        for which in stub.SIZES:
            took = pulls_right(lab.nodes[0], "lib/redirect-expires", which, 15)
            digest = stub.digest_of(stub.blob("lib/redirect-expires", which))
            log = [r for r in asked(lab, "lib/redirect-expires") if digest in r["path"] and r["method"] == "GET"]
            resolved = sum(r["port"] != STORE_PORT for r in log)
            it.figure(f"{which}: {took:.1f} s, {resolved} questions to the registry, {len(log) - resolved} to the storage host")
            it.check(resolved <= 3, f"O-9: {which}: resolved {resolved} times")
        it.check("signature=" not in lab.nodes[0].process.text(), "HRD-4: a signed URL in the log")


def test_o_3_slow_registry():
    with bad_registry() as lab:
        took = pulls_right(lab.nodes[0], "lib/slow", "small", 40)
        direct = 5 + stub.SIZES["small"] / 400e3
        it.figure(f"a registry that needs {direct:.0f} s took {took:.0f} s through the agent")
        gets = [r for r in asked(lab, "lib/slow") if r["method"] == "GET" and not r["range"]]
        it.check(len(gets) == 1, f"{len(gets)} whole reads of a slow registry")


def test_o_3_one_read_of_a_slow_registry():
    """5 s to the first byte, then 50 KB/s: two clients of one node, then one of another while they still read. The registry is read once, the mesh has the rest."""
    with bad_registry(2) as lab:
        first, second = lab.nodes
        wanted = stub.blob("drip/drip", "tiny")
        path = f"/v2/drip/drip/blobs/{stub.digest_of(wanted)}{NS}"
        for node in lab.nodes:
            fetch(node, f"/v2/drip/drip/manifests/1{NS}", "-H", ACCEPT)
        started = time.monotonic()
        pulls = [slow_pull(node, path, lab.dir / f"drip{i}") for i, node in enumerate((first, first))]
        time.sleep(max(0.0, started + 10.5 - time.monotonic()))  # the first piece is there, the second one is not
        it.check(all(pull.poll() is None for pull, _ in pulls), "the pulls are over: the test shows nothing")
        pulls.append(slow_pull(second, path, lab.dir / "drip2"))
        for pull, target in pulls:
            status, took = pull.communicate(timeout=40)[0].split()
            it.check(status == "200" and target.read_bytes() == wanted, f"{target.name}: {status} after {took} s")
        gets = [r for r in asked(lab, "drip/drip") if r["method"] == "GET"]
        it.figure(f"three clients of two nodes: {time.monotonic() - started:.1f} s, GETs at the registry: {[r['range'] or 'whole' for r in gets]}")
        read = sum(length_asked(r, len(wanted)) for r in gets)
        it.check(read == len(wanted), f"O-3: {read} bytes were asked of a slow registry for {len(wanted)}")
        it.check(mesh_bytes(second) == len(wanted), f"O-3: {mesh_bytes(second)} of {len(wanted)} bytes came from the other node")
        for node in lab.nodes:
            it.check(timed(node, path)[2] == wanted, f"{node.name}: again")
        it.check(len([r for r in asked(lab, "drip/drip") if r["method"] == "GET"]) == len(gets), "O-3: read again for who came later")


def slow_pull(node, path: str, target: Path):
    """(process that tells status and seconds, file of the body)"""
    return subprocess.Popen(node.exec("curl", "-s", "-m", "60", "-o", target, "-w", "%{http_code} %{time_total}", f"http://127.0.0.1:{node.client_port}{path}"),
                            stdout=subprocess.PIPE, text=True), target


def length_asked(request: dict, size: int) -> int:
    first, _, last = request["range"].removeprefix("bytes=").partition("-")
    return min(int(last or size), size - 1) - int(first) + 1 if request["range"] else size


def mesh_bytes(node) -> int:
    """Bytes of blobs that this node has from others."""
    counts = node.status()["bytes"]
    return sum(counts[tier] for tier in ("vswitch", "zone", "region", "elsewhere"))


def test_o_5_a_registry_that_stays_broken():
    """Three tries in ten seconds at most, then its own status; what another node has is served all the while to who was accepted before."""
    with bad_registry(2, {"transfer.prefetch": False}) as lab:
        first, second = lab.nodes
        for status in (500, 502, 503):
            held, lost = f"lib/held{status}", f"lib/lost{status}"
            pulls_right(first, held, "big")
            for repository in (held, lost):
                fetch(second, f"/v2/{repository}/manifests/1{NS}", "-H", ACCEPT)
            ask_stub(lab, f"/break/{status}")
            for kind, path in (("blob", f"/v2/{lost}/blobs/{stub.digest_of(stub.blob(lost, 'small'))}"), ("manifest", f"/v2/lib/new{status}/manifests/1")):
                got, _, body, took = timed(second, path + NS, "-H", ACCEPT)
                it.check(got == status and took < 10, f"{kind}: {got} after {took:.1f} s, the registry says {status}")
                it.check(json.loads(body)["errors"], f"{kind}: {body[:200]}")
                tries = [r["at"] for r in everything(lab) if r["path"].startswith(path)]
                it.figure(f"{status} for a {kind}: passed on after {took:.1f} s and {len(tries)} tries")
                it.check(1 <= len(tries) <= 3, f"O-5: {kind}: {len(tries)} tries in {took:.1f} s")
            wanted = stub.blob(held, "big")
            got, _, body, took = timed(second, f"/v2/{held}/blobs/{stub.digest_of(wanted)}{NS}")
            it.check(got == 200 and body == wanted, f"what the mesh has, while the registry says {status}: {got}, {len(body)} bytes after {took:.1f} s")
            it.check(mesh_bytes(second) >= len(wanted), "nothing came from the mesh")
            ask_stub(lab, "/heal")


def everything(lab) -> list[dict]:
    """All requests so far, a broken registry's too."""
    return json.loads(ask_stub(lab, "/log"))


def test_http_6_the_head_comes_in_time():
    """Around the mesh, too: a small blob that takes longer than 10 s to arrive and be verified has its head before."""
    with bad_registry(extra={"mode": "passthrough"}) as lab:
        node, wanted, target = lab.nodes[0], stub.blob("lib/slow", "small"), lab.dir / "body"
        done = run(*node.exec("curl", "-s", "-o", target, "-w", "%{http_code} %{time_starttransfer}",
                              f"http://127.0.0.1:{node.client_port}/v2/lib/slow/blobs/{stub.digest_of(wanted)}{NS}")).stdout.split()
        it.check(done[0] == "200" and target.read_bytes() == wanted, f"{done}")
        it.check(float(done[1]) < 9.8, f"the head came after {done[1]} s")


def test_http_6_a_lost_question_is_asked_again():
    """Around the mesh: a question that stays without an answer is asked once more beside it, in time for the head; no third time, and not for ever."""
    with bad_registry(extra={"mode": "passthrough"}) as lab:
        node = lab.nodes[0]
        for which in stub.SIZES:
            took = pulls_right(node, "lib/mute-once", which, 9)
            it.check(took > 5, f"O-3: asked again after {took:.1f} s: that may only be slow")
        gets = [r for r in asked(lab, "lib/mute-once") if r["method"] == "GET"]
        it.check(len(gets) == 4 and node.metric("shoal_direct_repeated_total") == 2, f"{len(gets)} questions")
        fetch(node, f"/v2/lib/slow/manifests/1{NS}", "-H", ACCEPT)
        status, _, body, took = timed(node, f"/v2/lib/slow/blobs/{stub.digest_of(stub.blob('lib/slow', 'small'))}{NS}")
        it.check(status == 200 and len([r for r in asked(lab, "lib/slow") if r["method"] == "GET"]) == 1, f"O-3: slow is not silent: {status}")
        status, _, _, took = timed(node, f"/v2/lib/late/blobs/{stub.digest_of(stub.blob('lib/late', 'small'))}{NS}")
        it.check(status == 503 and took < 9.8, f"nobody answers: {status} after {took:.1f} s")
        it.check(len([r for r in asked(lab, "lib/late") if r["method"] == "GET"]) <= 2, "more than two questions")


def test_http_6_the_waits_add_up():
    """A registry that confirms a blob at the last moment and then stays silent: mesh and origin are tried in what is left."""
    with bad_registry() as lab:
        node, digest = lab.nodes[0], stub.digest_of(stub.blob("lib/late", "big"))
        done = run(*node.exec("curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{time_starttransfer}",
                              f"http://127.0.0.1:{node.client_port}/v2/lib/late/blobs/{digest}{NS}")).stdout.split()
        it.check(done[0] == "503" and float(done[1]) < 9.6, f"{done}")


def test_http_6_waiting_for_a_turn_counts():
    """Who waited for its turn (limits.parallelRequests) behind a slow pull has no other ten seconds after it."""
    with bad_registry(extra={"mode": "passthrough", "limits.parallelRequests": 1}) as lab:
        node, digest = lab.nodes[0], stub.digest_of(stub.blob("lib/slow", "small"))
        command = node.exec("curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{time_starttransfer}", f"http://127.0.0.1:{node.client_port}/v2/lib/slow/blobs/{digest}{NS}")
        pulls = [subprocess.Popen([*command, "-r", "0-99"], stdout=subprocess.PIPE, text=True)]
        time.sleep(0.2)
        pulls.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        heads = [pull.communicate(timeout=60)[0].split() for pull in pulls]
        it.check(node.metric("shoal_client_requests_waited_total") == 1, "none waited: the test shows nothing")
        it.check(all(float(after) < 10 for _, after in heads), f"status and seconds to the head: {heads}")
        it.figure(f"two at a slow registry, one after the other: {heads}")


def test_stalled_body():
    with bad_registry(extra={"limits.transferTimeout": "2s"}) as lab:
        took = pulls_right(lab.nodes[0], "lib/stall", "small", 12)
        it.figure(f"a stalled body, transferTimeout 2 s: {took:.1f} s")


def test_org_3_redirects():
    with bad_registry() as lab:
        node = lab.nodes[0]
        for which in stub.SIZES:
            pulls_right(node, "lib/redirect", which, 10, "-H", f"Authorization: Bearer {marks.secret('redirected')}")
        log = asked(lab, "lib/redirect")
        leaked = [r for r in log if r["port"] == STORE_PORT and r["authorization"]]
        it.check(not leaked, f"credentials went to the storage host: {leaked[:2]}")
        it.check(any(r["port"] == STORE_PORT for r in log) and any(r["port"] != STORE_PORT and r["authorization"] for r in log), "nothing was redirected")
        page = node.get("/metrics", admin=True) + node.get("/status", admin=True) + node.process.text()
        it.check(marks.secret("redirected") not in page and stub.SIGNED not in page, "HRD-4: credentials or a signed URL in metrics, status or log")
        for repository in ("lib/redirect-metadata", "lib/redirect-mesh", "lib/redirect-file", "lib/redirect-loop"):
            status, right, got, took = read_blob(node, repository, "small")
            it.check(status in (502, 503) and not right, f"{repository}: {status}, {got} bytes")
            it.check(took < 10, f"{repository}: {took:.1f} s")


def test_org_2_private_addresses_are_listed():
    """`allowPrivate: true` is a network: what listens on the node itself is not reached by a redirect. A list is the blocks in it."""
    with bad_registry() as lab:
        node = lab.nodes[0]
        knocks = lab.dir / "knocks"
        lab.processes.append(Process(node.exec(sys.executable, "-c", "import socket, sys\ns = socket.create_server(('127.0.0.1', 5001))\nwhile True:\n    s.accept()\n    open(sys.argv[1], 'a').write('x')", knocks), lab.dir / "knocks.log"))
        time.sleep(0.5)
        status, right, got, _ = read_blob(node, "lib/redirect-loopback", "small")
        it.check(status in (502, 503) and not right and not knocks.exists(), f"a redirect led to the node's own port: {status}, {got} bytes")
        for blocks, good in (([f"{lab.origin_address}/32"], True), (["192.168.0.0/16"], False), ([f"{lab.origin_address}/32", "127.0.0.0/8"], True)):
            node.process.stop()
            lab.registries[0]["allowPrivate"] = blocks
            node.start()
            status, right, got, _ = read_blob(node, "lib/redirect", "small")
            it.check(right == good, f"{blocks}: {status}, {got} bytes")
        read_blob(node, "lib/redirect-loopback", "small")
        it.check(knocks.exists(), "nobody knocks at 5001 though it is listed: the test shows nothing")


def test_org_7_and_int_2_manifests():
    with bad_registry() as lab:
        node = lab.nodes[0]
        for fault in ("manifest-wrong", "manifest-huge", "manifest-digest"):
            digest = stub.digest_of(stub.manifest(f"lib/{fault}"))
            for reference in ("1", digest):
                status, _, body = fetch(node, f"/v2/lib/{fault}/manifests/{reference}{NS}", "-H", ACCEPT)
                good = fault == "manifest-digest" and reference == digest  # the bytes are right, only a header lies
                it.check(status == (200 if good else 502) or (fault == "manifest-huge" and status == 503), f"{fault} {reference[:12]}: {status}")
                it.check(good or len(body) < 1024, f"{fault}: {len(body)} bytes")
        ask_stub(lab, "/heal")
        status, _, body = fetch(node, f"/v2/lib/manifest-wrong/manifests/1{NS}", "-H", ACCEPT)
        it.check(status == 200 and body == stub.manifest("lib/manifest-wrong"), f"after the registry healed: {status}")


def test_acl_4_a_late_refusal_reaches_the_client():
    """A blob that the registry refuses after all: its status and challenge, so that the runtime fetches a new token."""
    with bad_registry() as lab:
        for which in stub.SIZES:
            path = f"/v2/lib/denied/blobs/{stub.digest_of(stub.blob('lib/denied', which))}{NS}"
            status, headers, body = fetch(lab.nodes[0], path, "-H", f"Authorization: Bearer {marks.secret('old')}")
            it.check(status == 401 and headers.get("www-authenticate", "").startswith('Bearer realm="https://auth.test/token"'), f"{status} {headers}")
            it.check(json.loads(body)["errors"][0]["code"] == "UNAUTHORIZED", f"{body[:200]}")


def test_a_token_that_expires_in_mid_pull():
    """Ranges after the first meet 401: the body ends soon, the old token hears 401, a fresh one is served, whoever came before (ACL-2)."""
    for nodes in (1, 2):
        with bad_registry(nodes) as lab:
            node = lab.nodes[0]
            for attempt in range(3):
                status, right, got, took = read_blob(node, "lib/denied-later", "big", "-H", f"Authorization: Bearer {marks.secret(f'token{attempt}')}")
                it.figure(f"{nodes} nodes, token {attempt} expires: {status}, {got} bytes after {took:.1f} s")
                it.check(right or took < 4, f"{nodes} nodes: the client waited {took:.1f} s for the end of {got} bytes")
            wanted = stub.blob("lib/denied-later", "big")
            path = f"/v2/lib/denied-later/blobs/{stub.digest_of(wanted)}{NS}"
            last = f"Range: bytes={len(wanted) - 1000}-"
            started = time.monotonic()
            status, headers, body = fetch(node, path, "-H", f"Authorization: Bearer {marks.secret('token0')}", "-H", last)
            took = time.monotonic() - started
            it.check((status == 401 and headers.get("www-authenticate") == 'Basic realm="x"') or body == wanted[-1000:], f"{status} {headers}")
            it.check(took < 4, f"{nodes} nodes: {took:.1f} s for a refusal")
            ask_stub(lab, "/heal")
            pulls_right(node, "lib/denied-later", "big", 10, "-H", f"Authorization: Bearer {marks.secret('fresh')}")


def read_slowly(node, path: str, seconds: float, *headers) -> tuple[int, bytes]:
    """(status, body), read evenly over so long by a client with a small buffer: the body is under way all the while."""
    with it.connect(node, node.client_port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall("".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: localhost", *headers, "")).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            part = sock.recv(4096)
            it.check(part, "no answer")
            head += part
        head, _, rest = head.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        body, started = bytearray(rest), time.monotonic()
        while len(body) < length:
            time.sleep(max(0.0, started + seconds * len(body) / length - time.monotonic()))
            part = sock.recv(65536)
            if not part:
                break
            body += part
        return int(head.split()[1]), bytes(body)


def test_acl_2_a_long_body_keeps_the_grant():
    """One body for three times a grant's life, nothing beside it; then the token is over: the rest of the pull is served (HTTP-6), by the mesh and around it."""
    life, token = 3, f"Authorization: Bearer {marks.secret('short-lived')}"
    for mode in ("normal", "passthrough"):
        with bad_registry(extra={"access.grants": f"{life}s", "mode": mode}) as lab:
            node, digest = lab.nodes[0], stub.digest_of(stub.manifest("lib/expires"))
            paths = {w: f"/v2/lib/expires/blobs/{stub.digest_of(stub.blob('lib/expires', w))}{NS}" for w in stub.SIZES}
            manifest = f"/v2/lib/expires/manifests/{digest}{NS}"
            for w in stub.SIZES:  # in the cache, for somebody else
                pulls_right(node, "lib/expires", w, 10, "-H", "Authorization: Bearer other")
            it.check(fetch(node, manifest, "-H", ACCEPT, "-H", token)[0] == 200, "no manifest")
            status, body = read_slowly(node, paths["big"], 3 * life, token)
            it.check(status == 200 and body == stub.blob("lib/expires", "big"), f"{mode}: {status}, {len(body)} bytes")
            ask_stub(lab, "/expire")
            status = fetch(node, manifest, "-H", ACCEPT, "-H", token)[0]
            it.check(status == 200, f"{mode}: {status}: the grant was lost half-way")
            if mode == "normal":  # around the mesh the bytes themselves are the registry's to give
                status, _, body = fetch(node, paths["small"], "-H", token)
                it.check(status == 200 and body == stub.blob("lib/expires", "small"), f"the next blob: {status}")
            time.sleep(life + 0.5)
            status = fetch(node, manifest, "-H", ACCEPT, "-H", token)[0]
            it.check(status == 401, f"{mode}: {status}: a grant without a pull lives on")


def test_acl_2_layers_ahead_end_with_the_credentials():
    """The next layer's second range meets 401: it is left to the client, who has a fresh token then."""
    with bad_registry() as lab:
        node = lab.nodes[0]
        old, fresh = ("-H", f"Authorization: Bearer {marks.secret('token0')}"), ("-H", f"Authorization: Bearer {marks.secret('fresh')}")
        pulls_right(node, "lib/denied-later", "small", 10, *old)
        wait_outcomes(node, begun=1, failed=1, used=0)
        before = len(asked(lab, "lib/denied-later"))
        time.sleep(2)
        it.check(len(asked(lab, "lib/denied-later")) == before, "the registry is asked again with credentials that it refused")
        ask_stub(lab, "/heal")
        pulls_right(node, "lib/denied-later", "big", 10, *fresh)


# ---- O-1, O-2: a registry that says nothing ----

@contextmanager
def no_route(lab):
    """Packets to the registry are dropped: connections hang."""
    rules = f"add table inet hole\nadd chain inet hole in {{ type filter hook input priority 0; }}\nadd rule inet hole in iifname e0 tcp dport {lab.registry_port} drop\n"
    run(*lab.origin_exec("nft", "-f", "-"), input=rules)
    yield
    run(*lab.origin_exec("nft", "delete", "table", "inet", "hole"))


@contextmanager
def mute(lab):
    """The registry's host accepts connections, and nobody answers."""
    stopped = lab.processes[0].pid
    os.kill(stopped, signal.SIGSTOP)
    yield
    os.kill(stopped, signal.SIGCONT)


def timed(node, path, *args):
    started = time.monotonic()
    status, headers, body = fetch(node, path, *args)
    return status, headers, body, time.monotonic() - started


def black_hole(lab, silence):
    node = lab.nodes[0]
    pulls_right(node, "lib/held", "big")
    held = f"/v2/lib/held/blobs/{stub.digest_of(stub.blob('lib/held', 'big'))}{NS}"
    paths = ["/v2/lib/{}/manifests/1", "/v2/lib/{}/tags/list", "/v2/lib/{}/blobs/" + stub.digest_of(b"nowhere")]
    with silence(lab):
        first = [timed(node, paths[0].format("first") + NS), timed(node, paths[2].format("first") + NS)]
        for (status, _, _, took), limit in zip(first, (9.5, 1.0)):
            it.check(status == 503 and took < limit, f"{silence.__name__}: {status} after {took:.1f} s")
        slow = 0
        for i in range(12):
            status, _, body, took = timed(node, paths[i % 3].format(f"later{i}") + NS)
            it.check(status == 503 and "does not answer" in body.decode(), f"{silence.__name__}: {status} {body[:200]}")
            it.check(took < 9.5, f"{silence.__name__}: {took:.1f} s")
            slow += took > 0.3
            time.sleep(0.1)
        it.check(slow <= 2, f"{silence.__name__}: {slow} of 12 further requests waited: more than single probes")
        status, _, body, took = timed(node, held)
        it.check(status == 200 and len(body) == stub.SIZES["big"] and took < 2, f"what is here was not served: {status} after {took:.1f} s")
        it.figure(f"{silence.__name__}: first 503 after {first[0][3]:.1f} s, second {first[1][3]:.2f} s, {slow} of 12 further ones waited")
    started = time.monotonic()
    while timed(node, f"/v2/lib/held/manifests/1{NS}", "-H", ACCEPT)[0] != 200:
        it.check(time.monotonic() - started < 8, "the registry is back and was not found")
        time.sleep(0.2)
    took = time.monotonic() - started
    it.figure(f"{silence.__name__}: found again after {took:.1f} s")
    it.check(took <= 5.0, f"O-2: held against it for {took:.2f} s")


def layers_pulled(node, repository: str) -> float:
    """Seconds for a pull by digest of ten layers, one after the other."""
    started = time.monotonic()
    status, _, body = fetch(node, f"/v2/{repository}/manifests/{stub.digest_of(stub.manifest(repository))}{NS}", "-H", ACCEPT)
    it.check(status == 200 and body == stub.manifest(repository), f"{repository}: manifest: {status}")
    for which in stub.LAYERS:
        wanted = stub.blob(repository, which)
        status, _, body = fetch(node, f"/v2/{repository}/blobs/{stub.digest_of(wanted)}{NS}")
        it.check(status == 200 and body == wanted, f"{repository} {which}: {status}, {len(body)} bytes")
    return time.monotonic() - started


def held_elsewhere(silence):
    """What the other node holds, while the registry is silent and every grant is over: a pull loses a second by it, not one with each blob."""
    life = 3
    with bad_registry(2, {"access.grants": f"{life}s", "transfer.prefetch": False}) as lab:
        first, second = lab.nodes
        for repository in ("layers/fresh", "layers/stale"):
            layers_pulled(first, repository)
        for which in stub.SIZES:
            pulls_right(first, "lib/held", which)
        asked_for = [f"/v2/{r}/manifests/{stub.digest_of(stub.manifest(r))}{NS}" for r in ("layers/stale", "lib/held", "layers/fresh")]
        it.check(all(fetch(second, path, "-H", ACCEPT)[0] == 200 for path in asked_for), "no grants")
        with silence(lab):
            fresh = layers_pulled(second, "layers/fresh")
            time.sleep(life + 0.5)
            unasked = second.metric("shoal_registry_unasked_total")
            late, again = layers_pulled(second, "layers/stale"), layers_pulled(second, "layers/stale")
            it.check(late - fresh <= 1 and again - fresh <= 0.3, f"O-1: {silence.__name__}: {late:.2f} s and {again:.2f} s, with a fresh grant {fresh:.2f} s")
            it.check(second.metric("shoal_registry_unasked_total") >= unasked + 20, "the registry was asked")
            # A body that takes longer than its silence is remembered: it is looked after meanwhile.
            held = {w: f"/v2/lib/held/blobs/{stub.digest_of(stub.blob('lib/held', w))}{NS}" for w in stub.SIZES}
            status, body = read_slowly(second, held["big"], 7)
            it.check(status == 200 and body == stub.blob("lib/held", "big"), f"{status}, {len(body)} bytes")
            status, _, body, took = timed(second, held["small"])
            it.check(status == 200 and body == stub.blob("lib/held", "small") and took < 0.7, f"O-1: the next blob: {status} after {took:.2f} s")
            status, _, _, _ = timed(second, f"/v2/lib/held/blobs/{stub.digest_of(b'absent')}{NS}")
            it.check(status == 503, f"something that no grant is for: {status}")
        it.figure(f"{silence.__name__}: ten layers, grants over: {late:.2f} s, again {again:.2f} s; grants fresh {fresh:.2f} s")
        started, asked_before = time.monotonic(), len(asked(lab, "lib/held"))
        while len(asked(lab, "lib/held")) == asked_before:
            it.check(time.monotonic() - started < 5, "O-2: the registry is back and is not asked")
            it.check(timed(second, held["small"])[0] == 200, "the registry is back")
            time.sleep(0.2)
        it.figure(f"{silence.__name__}: asked again {time.monotonic() - started:.1f} s after it was back")


def test_o_1_no_route():
    held_elsewhere(no_route)


def test_o_1_mute():
    held_elsewhere(mute)


def test_o_2_no_route():
    with bad_registry() as lab:
        black_hole(lab, no_route)


def test_o_2_mute():
    with bad_registry() as lab:
        black_hole(lab, mute)


def test_o_2_a_rest_costs_no_pull():
    """One question that is left without an answer begins a rest. Who has a manifest from us is bound to us (CLIENTS 8) and is served; others go elsewhere."""
    with bad_registry() as lab:
        node = lab.nodes[0]
        fetch(node, f"/v2/lib/plain/manifests/1{NS}", "-H", ACCEPT)
        silent = f"/v2/lib/mute/blobs/{stub.digest_of(stub.blob('lib/mute', 'big'))}{NS}"
        wanted = {which: stub.blob("lib/plain", which) for which in stub.SIZES}
        status, _, _, took = timed(node, silent)
        it.check(status == 503 and took < 9.6, f"{status} after {took:.1f} s")
        status, _, body, took = timed(node, f"/v2/lib/other/manifests/1{NS}", "-H", ACCEPT)
        it.check(status == 503 and took < 0.5 and b"does not answer" in body, f"no rest began, so nothing is shown: {status} after {took:.1f} s")
        for which, bytes_ in wanted.items():
            status, _, body, took = timed(node, f"/v2/lib/plain/blobs/{stub.digest_of(bytes_)}{NS}")
            it.check(status == 200 and body == bytes_ and took < 3, f"{which}: {status}, {len(body)} bytes after {took:.1f} s")
        status, _, _, _ = timed(node, f"/v2/lib/other/manifests/1{NS}", "-H", ACCEPT)
        it.check(status == 200, f"it answered others: {status}")


def test_o_2_a_silent_registry_slows_no_other():
    """Eight blobs of a registry that stays silent are awaited: what another registry has comes all the same."""
    name, port = "silent.test:5002", 5002
    ns = f"?ns={name.replace(':', '%3A')}"
    with Lab(2) as lab:
        lab.processes.append(start_stub(lab))
        silent = start_stub(lab, port, STORE_PORT + 2)
        lab.processes.append(silent)
        for endpoint in (lab.endpoint, f"http://{lab.origin_address}:{port}"):
            run(*lab.origin_exec("curl", "-sf", "--retry", "5", "--retry-connrefused", f"{endpoint}/v2/"))
        lab.registries.append({"name": name, "endpoint": f"http://{lab.origin_address}:{port}", "plainHttp": True, "allowPrivate": True})
        lab.start_nodes()
        lab.wait_members()
        node = lab.nodes[0]
        alone = pulls_right(node, "lib/alone", "big")
        for i in range(4):
            fetch(node, f"/v2/lib/s{i}/manifests/1{ns}", "-H", ACCEPT)
        os.kill(silent.pid, signal.SIGSTOP)
        waiting = [subprocess.Popen(node.exec("curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{time_total}",
                                              f"http://127.0.0.1:{node.client_port}/v2/lib/s{i}/blobs/{stub.digest_of(stub.blob(f'lib/s{i}', which))}{ns}"),
                                    stdout=subprocess.PIPE, text=True) for i in range(4) for which in stub.SIZES]
        time.sleep(0.3)
        took = [pulls_right(node, f"lib/beside{i}", "big", 3) for i in range(3)]
        it.check(all(pull.poll() is None for pull in waiting), "they ended before: the test shows nothing")
        it.figure(f"20 MiB beside eight blobs of a silent registry: {', '.join(f'{t:.1f}' for t in took)} s, alone {alone:.1f} s")
        os.kill(silent.pid, signal.SIGCONT)
        for pull in waiting:
            status, seconds = pull.communicate(timeout=30)[0].split()
            it.check(status in ("200", "503") and float(seconds) < 12, f"{status} after {seconds} s")


def test_o_2_a_restart_costs_no_pull():
    """A registry that refuses for a moment: no rest begins, and whoever comes next is served."""
    with bad_registry() as lab:
        node, registry = lab.nodes[0], lab.processes[0]
        fetch(node, f"/v2/lib/a/manifests/1{NS}", "-H", ACCEPT)
        registry.kill()
        results = []
        threads = [threading.Thread(target=lambda i=i: results.append(run(*node.exec(
            "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{node.client_port}/v2/lib/b{i}/manifests/1{NS}")).stdout)) for i in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        lab.processes.append(start_stub(lab))
        for thread in threads:
            thread.join()
        it.check("resting" not in node.process.text(), "a rest began after one moment")
        status, _, _, took = timed(node, f"/v2/lib/c/manifests/1{NS}", "-H", ACCEPT)
        it.check(status == 200 and took < 1, f"{status} after {took:.1f} s")
        it.figure(f"requests during a restart: {results}")


# ---- ACL-5: what everybody may read ----

def test_acl_5_a_registry_turns_private():
    """That a repository is open ends two lives after the registry last said so (here 6 s, else 10 min), however busy it is; at once after a refusal."""
    with bad_registry(extra={"access.grants": "3s"}) as lab:
        node = lab.nodes[0]
        paths = {name: f"/v2/{name}/blobs/{stub.digest_of(stub.blob(name, 'small'))}{NS}" for name in ("lib/open", "lib/other")}

        def status_of(name: str, method="GET") -> int:
            return timed(node, paths[name], *(["-I"] if method == "HEAD" else []))[0]

        for name in paths:
            pulls_right(node, name, "small")
        fetch(node, f"/v2/lib/open/manifests/1{NS}", "-H", ACCEPT)
        learnt = time.monotonic()
        ask_stub(lab, "/break/401")
        it.check(status_of("lib/open") == 200, "nothing is remembered: the test shows nothing")
        while status_of("lib/open", "HEAD") == 200 and time.monotonic() < learnt + 12:
            time.sleep(0.1)
        took = time.monotonic() - learnt
        it.check(took < 6.5, f"ACL-5: readable by everybody {took:.1f} s after the registry's word")
        it.figure(f"a busy repository that turned private, access.grants 3s: closed after {took:.1f} s")
        status, headers, _, _ = timed(node, paths["lib/open"])
        it.check(status == 401 and headers.get("www-authenticate") == stub.CHALLENGE, f"{status} {headers}")

        ask_stub(lab, "/heal")
        for name in paths:
            fetch(node, f"/v2/{name}/manifests/1{NS}", "-H", ACCEPT)
        ask_stub(lab, "/break/401")
        it.check(timed(node, f"/v2/lib/open/manifests/1{NS}", "-H", ACCEPT)[0] == 401, "a tag is the registry's to answer")
        it.check(status_of("lib/open") == 401, "ACL-5: served to everybody after a refusal was heard")
        it.check(status_of("lib/other") == 200, "a refusal of one repository closed another")


# ---- ACL-4, ACL-6: a private registry that is down ----

def test_acl_6_private_registry_down():
    """Without credentials: the challenge of before, for whatever is asked. With those that were good: what node and mesh hold. Nothing else."""
    good, bad = f"Authorization: {stub.GOOD}", "Authorization: Basic YmFkOmJhZA=="
    with bad_registry(2) as lab:
        first, second = lab.nodes
        for node in lab.nodes:
            status, headers, _ = fetch(node, f"/v2/lib/basic/manifests/1{NS}", "-H", ACCEPT)
            it.check(status == 401 and headers.get("www-authenticate") == stub.CHALLENGE, f"{status} {headers}")
        pulls_right(first, "lib/basic", "big", 10, "-H", good)
        digest = stub.digest_of(stub.manifest("lib/basic"))
        fetch(second, f"/v2/lib/basic/manifests/{digest}{NS}", "-H", ACCEPT, "-H", good)
        lab.processes[0].kill()
        blobs = {w: f"/v2/lib/basic/blobs/{stub.digest_of(stub.blob('lib/basic', w))}{NS}" for w in stub.SIZES}
        absent = f"/v2/lib/basic/blobs/{stub.digest_of(b'absent')}{NS}"
        for node in lab.nodes:
            for path in (blobs["big"], absent, f"/v2/lib/basic/manifests/1{NS}", f"/v2/lib/basic/manifests/{digest}{NS}"):
                status, headers, body, took = timed(node, path)
                it.check(status == 401 and headers.get("www-authenticate") == stub.CHALLENGE, f"{node.name} {path}: {status} {headers}")
                it.check(json.loads(body)["errors"][0]["code"] == "UNAUTHORIZED" and took < 9.5, f"{body[:200]} {took:.1f} s")
                status, _, _, took = timed(node, path, "-H", bad)
                it.check(status == 503 and took < 9.5, f"{node.name} {path} with other credentials: {status}")
            status, _, body, took = timed(node, blobs["big"], "-H", good)
            it.check(status == 200 and body == stub.blob("lib/basic", "big"), f"{node.name}: {status}, {len(body)} bytes after {took:.1f} s")
            status, headers, body, _ = timed(node, f"/v2/lib/basic/manifests/{digest}{NS}", "-H", good)
            it.check(status == 200 and body == stub.manifest("lib/basic"), f"{node.name}: manifest: {status}")
        status, headers, _, _ = timed(first, f"/v2/lib/unseen/manifests/1{NS}")
        it.check(status == 503, f"a challenge for a repository that never had one: {status}")


def test_int_7_a_lying_registry_bans_nobody():
    """Wrong bytes from the registry beside true vouchers of a node: that node is not banned."""
    lied_to, honest = ("-H", f"Authorization: Bearer {stub.LIED_TO}"), ("-H", f"Authorization: Bearer {marks.secret('honest')}")
    with bad_registry(2) as lab:
        first, second = lab.nodes
        wanted = stub.blob("lib/wrong-for-some", "big")
        path = f"/v2/lib/wrong-for-some/blobs/{stub.digest_of(wanted)}{NS}"
        pulls_right(first, "lib/wrong-for-some", "big", 10, *honest)
        first.process.stop()
        second.process.stop()
        second.start()  # alone: what it reads now is the registry's
        fetch(second, f"/v2/lib/wrong-for-some/manifests/1{NS}", "-H", ACCEPT, *lied_to)
        status, _, body = fetch(second, path, "-H", "Range: bytes=0-99999", *lied_to)
        it.check(status == 206, f"{status}")
        first.start()
        lab.wait_members()
        for _ in range(3):
            read_blob(second, "lib/wrong-for-some", "big", *lied_to)
        it.check(second.metric("shoal_blob_mismatches_total") > 0, "nobody was lied to: the test shows nothing")
        it.check("vouched for false bytes" not in second.process.text(), "an honest node was banned for the registry's lie")
        ask_stub(lab, "/heal")
        if not read_blob(second, "lib/wrong-for-some", "big", *lied_to)[1]:
            pulls_right(second, "lib/wrong-for-some", "big", 10, *lied_to)
        it.check("vouched for false bytes" not in second.process.text(), "an honest node was banned for the registry's lie of before")


def test_manifest_types_are_each_repositorys_own():
    """The same bytes under different names: each answer, cached or not, has the type its own registry gave, else the document's."""
    with bad_registry() as lab:
        digest = stub.digest_of(stub.manifest("same/x"))
        for _ in range(2):
            for name, media_type in stub.TYPES.items():
                for reference in ("1", digest):
                    status, headers, body = fetch(lab.nodes[0], f"/v2/same/{name}/manifests/{reference}{NS}")
                    it.check(status == 200 and body == stub.manifest("same/x"), f"{name} {reference}: {status}")
                    it.check(headers.get("content-type") == (media_type or stub.MANIFEST), f"{name} {reference}: {headers}")
        it.check(lab.nodes[0].metric("shoal_requests_total") >= 12, "asked around the agent")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
