#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The pull path with a plain HTTP client: manifests, blobs, ranges, HEAD, ns, what a mirror must answer (OCI pull, CLIENTS 11)."""
import base64
import hashlib
import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import it
import marks
import measure
from lab import REGISTRY_NAME, ROOT, Lab, run

PASSWORD = marks.secret("password")

NS = f"?ns={REGISTRY_NAME.replace(':', '%3A')}"


def fetch(node, path, *args):
    """(status, headers, body bytes) of a GET on the client port."""
    import subprocess
    head = node.dir / "head"
    done = subprocess.run(node.exec("curl", "-s", "-m", "30", "-D", head, *args, f"http://127.0.0.1:{node.client_port}{path}"), capture_output=True)
    lines = head.read_text().replace("\r", "").strip().split("\n\n")[-1].split("\n") if head.exists() else [""]
    head.unlink(missing_ok=True)
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    status = int(lines[0].split()[1]) if lines[0] else 0
    marks.answered(path, args, status, "\n".join(lines).encode() + done.stdout)
    return status, headers, done.stdout


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


def test_a_host_that_forbids_our_nonces():
    """In FIPS mode libgcrypt seals under no nonce of ours: such a node does without it, and pulls from one that may use it."""
    lab, image = small_lab(2)
    with lab:
        first, second = lab.nodes
        second.process.stop()
        os.environ["LIBGCRYPT_FORCE_FIPS_MODE"] = "1"
        try:
            second.start()
        finally:
            del os.environ["LIBGCRYPT_FORCE_FIPS_MODE"]
        lab.wait_members()
        chosen = re.findall(r"node: listening .*cipher=(\S+)", second.process.text())
        it.figure(f"cipher of the first: {re.findall(r'node: listening .*cipher=(.+)', first.process.text())}, of the second: {chosen}")
        it.check(len(chosen) > 0 and "libgcrypt" not in chosen[-1], f"{chosen}")
        layer = image["layers"][1]
        for node in (first, second):
            _, _, body = fetch(node, f"/v2/lib/app/blobs/{layer['digest']}{NS}")
            it.check("sha256:" + hashlib.sha256(body).hexdigest() == layer["digest"], f"{node.name}: wrong bytes")
        it.check(second.status()["bytes"]["origin"] == 0, "the second read the registry")


def test_many_blobs_at_once_with_few_buffers():
    """Blobs that wait for their next pieces leave buffers for those to arrive in."""
    with Lab(4) as lab:
        lab.start_registry()
        layers = lab.push_image("lib/app", [40 << 20] * 8)["layers"]
        lab.start_nodes({"limits.buffers": "32MiB"})
        lab.wait_members()
        holder, others = lab.nodes[0], lab.nodes[1:]
        measure.build_tools()
        for layer in layers:
            measure.drain(holder, holder.client_port, measure.layer_path(layer))
        with ThreadPoolExecutor(len(others) * len(layers)) as pool:
            pulls = [pool.submit(measure.drain, node, node.client_port, measure.layer_path(layer)) for node in others for layer in layers]
            last = max(pull.result()["seconds"] for pull in pulls)
        origin = sum(node.status()["bytes"]["origin"] for node in others)
        it.figure(f"3 x 8 blobs of 40 MiB through 32 MiB of buffers each: {last:.1f} s, {origin} bytes from the registry")
        it.check(origin == 0, f"{origin} bytes were read from the registry, which the first node had")


def test_metrics_page():
    """Prometheus' text format: each family once, with its lines together; all are in README's table (make lint checks the sources)."""
    lab, _ = small_lab()
    with lab:
        page, seen, now, kind = lab.nodes[0].get("/metrics", admin=True).split(" ", 1)[1].splitlines(), [], "", ""
        for number, line in enumerate(page):
            if line.startswith("# HELP "):
                now = line.split()[2]
                it.check(now not in seen, f"{now} comes twice")
                it.check(page[number + 1].split()[:3] == ["#", "TYPE", now], f"{now}: {page[number + 1]}")
                kind = page[number + 1].split()[3]
                seen.append(now)
            elif not line.startswith("# TYPE "):
                name = line.partition(" ")[0].partition("{")[0]
                name = re.sub(r"_(bucket|sum|count)$", "", name) if kind == "histogram" else name
                it.check(name == now, f"{line} in {now}")
        readme = (ROOT / "README.md").read_text()
        missing = [name for name in seen if f"| `{name}`" not in readme and f"| `{name}{{" not in readme]
        it.check(not missing and len(seen) > 50, f"not in README: {missing} of {len(seen)}")


# ---- layers before they are asked for ----

def outcomes(node) -> dict[str, int]:
    """Layers begun ahead of the client, and what became of them."""
    prefix = 'shoal_prefetched_layers_total{outcome="'
    page = node.get("/metrics", admin=True)
    return {line[len(prefix):].split('"')[0]: int(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(prefix)}


def wait_outcomes(node, seconds=5, **wanted):
    end = time.monotonic() + seconds
    while any(outcomes(node)[k] != v for k, v in wanted.items()) and time.monotonic() < end:
        time.sleep(0.05)
    it.check(all(outcomes(node)[k] == v for k, v in wanted.items()), f"{outcomes(node)}, wanted {wanted}")


def wait_origin_bytes(node, wanted, seconds=15):
    """Until so many pieces' bytes came from the registry; then no more may come for a moment."""
    name = 'shoal_piece_bytes_total{source="origin"}'

    def value():
        return sum(float(line.rsplit(" ", 1)[1]) for line in node.get("/metrics", admin=True).splitlines() if line.startswith(name))
    end = time.monotonic() + seconds
    while value() < wanted and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    it.check(value() == wanted, f"{value():.0f} bytes from the registry, wanted {wanted}")


def ahead_lab(settings=None, private=False, nodes=1):
    lab = Lab(nodes, settings=settings)
    lab.start_registry()
    image = lab.push_image("lib/ahead", [12 << 20] * 5)
    if private:
        passwords = lab.dir / "htpasswd"
        passwords.write_text(run("htpasswd", "-Bbn", "user", PASSWORD).stdout)
        lab.processes.pop().kill()
        lab.start_registry({"htpasswd": {"realm": "lab", "path": str(passwords)}})
    lab.start_nodes()
    return lab, image


def get_manifest(node, image, *args):
    return fetch(node, f"/v2/lib/ahead/manifests/1{NS}", "-H", f"Accept: {image['mediaType']}", *args)[0]


def get_layer(node, image, layer, *args):
    status, _, body = fetch(node, f"/v2/lib/ahead/blobs/{image['layers'][layer]['digest']}{NS}", *args)
    right = status != 200 or "sha256:" + hashlib.sha256(body).hexdigest() == image["layers"][layer]["digest"]
    it.check(right, f"layer {layer}: wrong bytes")
    return status


def test_next_layers_are_here_before_they_are_asked_for():
    lab, image = ahead_lab()
    with lab:
        node, layers = lab.nodes[0], image["layers"]
        it.check(get_layer(node, image, 0) == 200, "layer 0")
        wait_outcomes(node, begun=0)  # no manifest: nobody knows what comes next
        it.check(get_manifest(node, image) == 200, "manifest")
        it.check(get_layer(node, image, 1) == 200, "layer 1")
        wait_outcomes(node, begun=3, used=0)
        wait_origin_bytes(node, sum(layer["size"] for layer in layers))
        node.count_sources()
        for layer in (2, 3, 4):
            it.check(get_layer(node, image, layer) == 200, f"layer {layer}")
        wait_outcomes(node, begun=3, used=3, unused=0, failed=0)
        it.check(node.sources()["origin_bytes"] < 64 << 10, f"read again: {node.sources()}")
        it.check(node.metric("shoal_readers_ahead") == 0, "still reading ahead")


def test_next_layers_come_from_peers_too():
    lab, image = ahead_lab(nodes=2)
    with lab:
        lab.wait_members()
        for node in lab.nodes:
            node.count_sources()
            get_manifest(node, image)
            it.check(get_layer(node, image, 0) == 200, "layer 0")
            wait_outcomes(node, begun=4)
            for layer in (1, 2, 3, 4):
                it.check(get_layer(node, image, layer) == 200, f"layer {layer}")
            wait_outcomes(node, begun=4, used=4)
        origin = [n.sources()["origin_bytes"] for n in lab.nodes]
        it.check(origin[1] < image["size"] // 20, f"second node read {origin[1]} from the registry, the first {origin[0]}")


def test_layers_that_a_client_passes_over_are_let_go_of():
    lab, image = ahead_lab()
    with lab:
        node = lab.nodes[0]
        get_manifest(node, image)
        it.check(get_layer(node, image, 0) == 200, "layer 0")
        wait_outcomes(node, begun=4)
        it.check(get_layer(node, image, 4) == 200, "layer 4")
        wait_outcomes(node, begun=4, used=1, unused=3)
        it.check(lab.nodes[0].process.stop(10) == 0, "exit code")


def test_ranges_and_heads_bring_in_nothing_else():
    lab, image = ahead_lab()
    with lab:
        node = lab.nodes[0]
        get_manifest(node, image)
        for args in (("-H", "Range: bytes=0-1023"), ("-H", f"Range: bytes=0-{image['layers'][0]['size'] - 1}"), ("-I",)):
            status, _, _ = fetch(node, f"/v2/lib/ahead/blobs/{image['layers'][0]['digest']}{NS}", *args)
            it.check(status in (200, 206), f"{args}: {status}")
        fetch(node, f"/v2/lib/ahead/blobs/{image['config']['digest']}{NS}")  # as `skopeo inspect` does
        time.sleep(0.5)
        wait_outcomes(node, begun=0)


def test_nothing_is_brought_in_when_switched_off():
    lab, image = ahead_lab({"transfer.prefetch": False})
    with lab:
        node = lab.nodes[0]
        get_manifest(node, image)
        it.check(get_layer(node, image, 0) == 200, "layer 0")
        wait_origin_bytes(node, image["layers"][0]["size"])
        wait_outcomes(node, begun=0)


def test_small_caches_bring_in_little():
    lab, image = ahead_lab({"cache.capacity": "64MiB"})
    with lab:
        node = lab.nodes[0]
        get_manifest(node, image)
        it.check(get_layer(node, image, 0) == 200, "layer 0")
        wait_outcomes(node, begun=1)  # an eighth of the cache: 8 MiB of the next layer
        wait_origin_bytes(node, image["layers"][0]["size"] + (8 << 20))
        it.check(get_layer(node, image, 1) == 200, "layer 1")
        wait_outcomes(node, used=1)


def basic(password: str) -> tuple[str, str]:
    return "-H", "Authorization: Basic " + base64.b64encode(f"user:{password}".encode()).decode()


def test_acl_1_layers_ahead_need_a_right():
    lab, image = ahead_lab(private=True)
    with lab:
        node, good = lab.nodes[0], basic(PASSWORD)
        it.check(get_manifest(node, image, *good) == 200, "manifest")
        for bad in ((), basic("wrong")):
            it.check(get_manifest(node, image, *bad) == 401, "manifest without a right")
            it.check(get_layer(node, image, 0, *bad) == 401, "layer without a right")
        wait_outcomes(node, begun=0)
        it.check(get_layer(node, image, 0, *good) == 200, "layer 0")
        wait_outcomes(node, begun=4)
        it.check(get_layer(node, image, 1) == 401, "what was brought in for one is not for all")
        wait_outcomes(node, begun=4, used=0)


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
