#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The pull path with a plain HTTP client: manifests, blobs, ranges, HEAD, ns, what a mirror must answer (OCI pull, CLIENTS 11)."""
import hashlib
import json
import sys

import it
from lab import REGISTRY_NAME, Lab

NS = f"?ns={REGISTRY_NAME.replace(':', '%3A')}"


def fetch(node, path, *args):
    """(status, headers, body bytes) of a GET on the client port."""
    import subprocess
    head = node.dir / "head"
    done = subprocess.run(node.exec("curl", "-s", "-m", "30", "-D", head, *args, f"http://127.0.0.1:{node.client_port}{path}"), capture_output=True)
    lines = head.read_text().replace("\r", "").strip().split("\n\n")[-1].split("\n") if head.exists() else [""]
    head.unlink(missing_ok=True)
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    return (int(lines[0].split()[1]) if lines[0] else 0), headers, done.stdout


def small_lab(nodes=1):
    lab = Lab(nodes)
    lab.start_registry()
    image = lab.push_image("lib/app", [3 << 20, 20 << 20])
    lab.start_nodes()
    if nodes > 1:
        lab.wait_members()
    return lab, image


def test_manifest_by_tag_and_digest():
    lab, image = small_lab()
    with lab:
        node = lab.nodes[0]
        for reference in ("1", image["digest"]):
            status, headers, body = fetch(node, f"/v2/lib/app/manifests/{reference}{NS}", "-H", f"Accept: {image['mediaType']}")
            it.check(status == 200, f"{reference}: {status}")
            it.check("sha256:" + hashlib.sha256(body).hexdigest() == image["digest"], "wrong bytes")
            it.check(headers["content-type"] == image["mediaType"], headers["content-type"])
            it.check(headers["docker-content-digest"] == image["digest"], "digest header")
            it.check(int(headers["content-length"]) == len(body), "length")
        status, headers, body = fetch(node, f"/v2/lib/app/manifests/1{NS}", "-I", "-H", f"Accept: {image['mediaType']}")
        it.check(status == 200 and not body.strip().startswith(b"{"), f"HEAD: {status}")
        it.check(headers["docker-content-digest"] == image["digest"], "HEAD digest")


def test_blob_whole_ranges_and_head():
    lab, image = small_lab()
    with lab:
        node, layer = lab.nodes[0], image["layers"][1]
        path, size = f"/v2/lib/app/blobs/{layer['digest']}{NS}", layer["size"]
        status, headers, whole = fetch(node, path)
        it.check(status == 200 and "sha256:" + hashlib.sha256(whole).hexdigest() == layer["digest"], f"whole: {status}")
        it.check(int(headers["content-length"]) == size, "length")
        it.check(headers["docker-content-digest"] == layer["digest"], "digest header")
        for spec, first, last in (("500-1499", 500, 1499), (f"{size - 5000}-", size - 5000, size - 1), ("-500", size - 500, size - 1),
                                  (f"{size - 48}-{size + 5000}", size - 48, size - 1), ("262000-263000", 262000, 263000)):
            status, headers, body = fetch(node, path, "-H", f"Range: bytes={spec}")
            it.check(status == 206 and body == whole[first:last + 1], f"range {spec}: {status}, {len(body)} bytes")
            it.check(headers["content-range"] == f"bytes {first}-{last}/{size}", headers["content-range"])
        for spec in ("500-0", f"{size}-{size + 5}"):
            status, headers, _ = fetch(node, path, "-H", f"Range: bytes={spec}")
            it.check(status == 416, f"range {spec}: {status}")
        status, headers, body = fetch(node, path, "-I")
        it.check(status == 200 and int(headers["content-length"]) == size, f"HEAD: {status}")


def test_missing_and_unknown():
    lab, image = small_lab()
    with lab:
        node = lab.nodes[0]
        absent = "sha256:" + "0" * 64
        for path, wanted in ((f"/v2/lib/app/blobs/{absent}{NS}", (404,)), (f"/v2/lib/app/manifests/{absent}{NS}", (404,)),
                             (f"/v2/lib/app/manifests/nope{NS}", (404,)), ("/v2/lib/app/blobs/sha256:xyz", (400, 404)),
                             (f"/v2/lib/app/blobs/{absent}?ns=evil.example", (404,)), ("/v2/../etc/passwd", (400, 404)),
                             (f"/v2/UPPER/manifests/1{NS}", (400, 404)), ("/nothing", (404,)), (f"/v2/lib/app/referrers/{absent}{NS}", (404,))):
            status, headers, body = fetch(node, path)
            it.check(status in wanted, f"{path}: {status}")
        status, headers, body = fetch(node, f"/v2/lib/app/tags/list{NS}")
        it.check(status == 200 and json.loads(body)["tags"] == ["1"], f"tags: {status} {body[:100]}")
        status, _, _ = fetch(node, f"/v2/{NS}")
        it.check(status == 200, f"base: {status}")
        status, _, _ = fetch(node, "/v2/", "-X", "POST", "-d", "x")
        it.check(status in (405, 413), f"POST: {status}")


def test_second_node_pulls_from_the_first():
    lab, image = small_lab(2)
    with lab:
        layer = image["layers"][1]
        path = f"/v2/lib/app/blobs/{layer['digest']}{NS}"
        for node in lab.nodes:
            node.count_sources()
            status, _, body = fetch(node, path)
            it.check(status == 200 and "sha256:" + hashlib.sha256(body).hexdigest() == layer["digest"], f"{node.name}: {status}")
        origin = [n.sources()["origin_bytes"] for n in lab.nodes]
        it.check(origin[0] > layer["size"], f"first node read {origin[0]} from the registry")
        it.check(origin[1] < layer["size"] // 10, f"second node read {origin[1]} from the registry")


def test_stop_is_orderly():
    lab, _ = small_lab(2)
    with lab:
        code = lab.nodes[0].process.stop(10)
        it.check(code == 0, f"exit {code}")
        import time
        end = time.monotonic() + 10
        while lab.nodes[1].metric("shoal_members") > 1 and time.monotonic() < end:
            time.sleep(0.1)
        it.check(lab.nodes[1].metric("shoal_members") == 1, "the other node was not told")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
