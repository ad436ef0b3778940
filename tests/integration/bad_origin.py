#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A registry that cuts, lies, stalls, refuses and redirects (SECURITY 4, rows O-3..O-9; ORG-2, ORG-3, ORG-7): the pull is right or fails cleanly."""
import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import it
import stub_registry as stub
from lab import REGISTRY_NAME, Lab, Process, run
from pull import fetch

NS = f"?ns={REGISTRY_NAME.replace(':', '%3A')}"
STORE_PORT = 5001
ACCEPT = f"Accept: {stub.MANIFEST}"


@contextmanager
def bad_registry(nodes=1, extra=None):
    with Lab(nodes) as lab:
        script = Path(__file__).with_name("stub_registry.py")
        process = Process(lab.origin_exec(sys.executable, script, "--host", lab.origin_address, "--port", lab.registry_port, "--store-port", STORE_PORT),
                          lab.dir / "stub.log")
        lab.processes.append(process)
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
    with bad_registry(2) as lab:
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
    with bad_registry() as lab:
        for repository in ("lib/busy", "lib/broken"):
            took = pulls_right(lab.nodes[0], repository, "small", 10)
            it.figure(f"{repository}: {took:.1f} s")
            times = [r["at"] for r in asked(lab, repository) if r["method"] == "GET"]
            it.check(len(times) < 12, f"{repository}: {len(times)} requests")
        times = [r["at"] for r in asked(lab, "lib/busy") if r["method"] == "GET"]
        it.check(times[1] - times[0] > 0.9 or len(times) > 3, f"Retry-After: 1 was not honoured: {[round(t - times[0], 2) for t in times]}")


def test_o_3_slow_registry():
    with bad_registry() as lab:
        took = pulls_right(lab.nodes[0], "lib/slow", "small", 40)
        direct = 5 + stub.SIZES["small"] / 400e3
        it.figure(f"a registry that needs {direct:.0f} s took {took:.0f} s through the agent")
        gets = [r for r in asked(lab, "lib/slow") if r["method"] == "GET" and not r["range"]]
        it.check(len(gets) <= 2, f"{len(gets)} whole reads of a slow registry")


def test_stalled_body():
    with bad_registry(extra={"limits.transferTimeout": "2s"}) as lab:
        took = pulls_right(lab.nodes[0], "lib/stall", "small", 12)
        it.figure(f"a stalled body, transferTimeout 2 s: {took:.1f} s")


def test_org_3_redirects():
    with bad_registry() as lab:
        node = lab.nodes[0]
        for which in stub.SIZES:
            pulls_right(node, "lib/redirect", which, 10, "-H", "Authorization: Basic bWFya2VkOnNlY3JldA==")
        log = asked(lab, "lib/redirect")
        leaked = [r for r in log if r["port"] == STORE_PORT and r["authorization"]]
        it.check(not leaked, f"credentials went to the storage host: {leaked[:2]}")
        it.check(any(r["port"] == STORE_PORT for r in log) and any(r["port"] != STORE_PORT and r["authorization"] for r in log), "nothing was redirected")
        page = node.get("/metrics", admin=True) + node.get("/status", admin=True) + node.process.text()
        it.check("bWFya2VkOnNlY3JldA" not in page and "secret=1" not in page, "HRD-4: credentials or a signed URL in metrics, status or log")
        for repository in ("lib/redirect-metadata", "lib/redirect-mesh", "lib/redirect-file", "lib/redirect-loop"):
            status, right, got, took = read_blob(node, repository, "small")
            it.check(status in (502, 503) and not right, f"{repository}: {status}, {got} bytes")
            it.check(took < 10, f"{repository}: {took:.1f} s")


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
            status, headers, body = fetch(lab.nodes[0], path, "-H", "Authorization: Bearer old")
            it.check(status == 401 and headers.get("www-authenticate", "").startswith('Bearer realm="https://auth.test/token"'), f"{status} {headers}")
            it.check(json.loads(body)["errors"][0]["code"] == "UNAUTHORIZED", f"{body[:200]}")


def test_a_token_that_expires_in_mid_pull():
    """Ranges after the first meet 401: the next client, with a fresh token, is served, whoever came before."""
    with bad_registry() as lab:
        node = lab.nodes[0]
        for attempt in range(3):
            read_blob(node, "lib/denied-later", "big", "-H", f"Authorization: Bearer token{attempt}")
        ask_stub(lab, "/heal")
        pulls_right(node, "lib/denied-later", "big", 10, "-H", "Authorization: Bearer fresh")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
