#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Lazy and parallel readers: overlaybd, containerd with parallel ranges, SOCI, stargz and nydus as they ask, every byte compared."""
import base64
import hashlib
import http.client
import json
import random
import sys
import threading
import time
from pathlib import Path

import it
import marks
from lab import REGISTRY_NAME, Lab, Process, inside, run

PASSWORD, BEARER, SIGNED = marks.secret("password"), marks.secret("bearer"), marks.secret("signature")

KIB, MIB = 1 << 10, 1 << 20
REPOSITORY = "lib/lazy"


def put_blob(lab, data: bytes) -> str:
    """A blob in the registry's repository, without an image around it: a client that reads by ranges needs none."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    with inside(lab.origin_ns):
        link = http.client.HTTPConnection(lab.origin_address, lab.registry_port, timeout=30)
        link.connect()
    link.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
    answer = link.getresponse()
    answer.read()
    place = answer.headers["Location"]
    place += ("&" if "?" in place else "?") + "digest=" + digest
    link.request("PUT", place[place.index("/v2/"):], data, {"Content-Type": "application/octet-stream"})
    answer = link.getresponse()
    answer.read()
    it.check(answer.status == 201, f"push of a blob: {answer.status}")
    link.close()
    return digest


class Reader:
    """One keep-alive connection of a client on a node. Checks what overlaybd relies on in every answer."""

    def __init__(self, node, path: str, headers=None):
        self.path, self.headers = path, {"User-Agent": "overlaybd/1.0", **(headers or {})}
        with inside(node.netns):
            self.link = http.client.HTTPConnection("127.0.0.1", node.client_port, timeout=30)
            self.link.connect()

    def ask(self, spec: str | None, method="GET"):
        headers = dict(self.headers, **({"Range": f"bytes={spec}"} if spec else {}))
        self.link.request(method, self.path, headers=headers)
        answer = self.link.getresponse()
        body = answer.read()
        marks.answered(self.path, headers.values(), answer.status, bytes(answer.headers) + body)
        return answer, body

    def read(self, data: bytes, first: int, last: int):
        answer, body = self.ask(f"{first}-{last}")
        it.check(answer.status == 206, f"{first}-{last}: {answer.status} {body[:200]}")
        it.check(answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(data)}", f"Content-Range {answer.headers['Content-Range']}")
        it.check(answer.headers["Content-Length"] == str(last - first + 1), f"Content-Length {answer.headers['Content-Length']}")
        it.check(body == data[first:last + 1], f"{first}-{last}: wrong bytes")

    def close(self):
        self.link.close()


def union(ranges) -> int:
    """Distinct bytes of inclusive ranges."""
    total, end = 0, -1
    for first, last in sorted(ranges):
        total += max(0, last - max(first, end + 1) + 1)
        end = max(end, last)
    return total


def piece_bytes(size: int) -> int:
    """How the agent cuts blobs up to 512 MiB: the 256th part, a power of two from 128 KiB to 1 MiB."""
    it.check(size <= 512 * MIB, "larger ones are cut by another rule")
    piece = 128 * KIB
    while piece < MIB and 2 * piece <= size // 256:
        piece *= 2
    return piece


def rounded(ranges, size: int) -> list:
    unit = piece_bytes(size)
    return [(first // unit * unit, min((last // unit + 1) * unit, size) - 1) for first, last in ranges]


def together(jobs):
    """Runs callables in threads of their own; the first failure is raised."""
    errors = []

    def run(job):
        try:
            job()
        except Exception as error:  # noqa: BLE001: raised below
            errors.append(error)
    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def origin_bytes(lab) -> int:
    """Payload that left the registry towards the nodes, with its HTTP heads, by the nodes' own packet counters."""
    return sum(node.sources()["origin_bytes"] for node in lab.nodes)


def lazy_lab(nodes: int, size: int, settings=None, zones=1, private=False):
    """Nodes before a registry with one blob; `private`: for a login only."""
    lab = Lab(nodes, zones=zones, settings=settings)
    lab.start_registry()
    rng = random.Random(size)
    data = b"".join(rng.randbytes(MIB) for _ in range(size // MIB))
    digest = put_blob(lab, data)
    if private:
        passwords = lab.dir / "htpasswd"
        passwords.write_text(run("htpasswd", "-Bbn", "user", PASSWORD).stdout)
        lab.processes.pop().kill()
        lab.start_registry({"htpasswd": {"realm": "lab", "path": str(passwords)}})
    lab.start_nodes()
    if nodes > 1:
        lab.wait_members()
    for node in lab.nodes:
        node.count_sources()
    return lab, data, digest


def blob_path(digest):
    return f"/v2/{REPOSITORY}/blobs/{digest}?ns=registry.test%3A5000"


def accelerator(digest, scheme="http"):
    return f"/accelerator/{scheme}://{REGISTRY_NAME}/v2/{REPOSITORY}/blobs/{digest}"


def hot_regions(size: int, count: int, seed: int) -> list:
    """What containers of one image read at their start: some stretches of 1 to 3 MiB, here and there."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        length = rng.randrange(1 * MIB, 3 * MIB, 4 * KIB)
        first = rng.randrange(0, size - length, 4 * KIB)
        out.append((first, first + length - 1))
    return out


def random_range(rng, regions) -> tuple:
    """4 KiB to 1 MiB inside one of the regions, as likely in each octave."""
    first, last = rng.choice(regions)
    length = min(int(2 ** rng.uniform(12, 20)), last - first + 1)
    start = rng.randrange(first, last - length + 2)
    return start, start + length - 1


def replay(lab, path_of, data, ranges_of, threads=4, stagger=0.0):
    """Each node reads its ranges by some threads with a connection each, as overlaybd does: the first question is for the size."""
    def job(node, part):
        time.sleep(stagger * node.index)
        reader = Reader(node, path_of(node))
        reader.read(data, 0, 0)
        for first, last in part:
            reader.read(data, first, last)
        reader.close()
    jobs = [lambda n=node, p=ranges_of(node)[part::threads]: job(n, p) for node in lab.nodes for part in range(threads)]
    started = time.monotonic()
    together(jobs)
    return time.monotonic() - started


def measure(lab, ranges, data, seconds, what) -> tuple[float, float]:
    """Bytes from the registry as a multiple of the distinct bytes that all clients together read, and of the pieces these lie in."""
    distinct, touched = union(ranges), union(rounded(ranges, len(data)))
    got = origin_bytes(lab)
    it.figure(f"{what}: {len(ranges)} ranges, {sum(l - f + 1 for f, l in ranges) / MIB:.0f} MiB in all, by {len(lab.nodes)} nodes in {seconds:.1f} s; "
              f"distinct {distinct / MIB:.1f} MiB, their pieces {touched / MIB:.1f}; from the registry {got / MIB:.1f} MiB: "
              f"{got / distinct:.3f} x distinct, {got / touched:.3f} x pieces")
    return got / distinct, got / touched


# ---- overlaybd ----

def overlaybd_on_8_nodes(zones: int):
    lab, data, digest = lazy_lab(8, 60 * MIB, zones=zones)
    with lab:
        regions = hot_regions(len(data), 12, 1)
        ranges = {}
        for node in lab.nodes:
            rng = random.Random(node.index)
            ranges[node] = [random_range(rng, regions) for _ in range(160)]
        seconds = replay(lab, lambda node: accelerator(digest), data, ranges.get)
        every = [(0, 0), *(r for part in ranges.values() for r in part)]
        by_distinct, _ = measure(lab, every, data, seconds, f"overlaybd, hot set, zones: {zones}")
        it.check(by_distinct <= 1.15, f"the registry gave {by_distinct:.3f} times the distinct bytes")
        it.check(by_distinct > 0.99, f"counted too little: {by_distinct:.3f}")


def test_overlaybd_on_8_nodes():
    """Random ranges of 4 KiB to 1 MiB inside the same hot set on all nodes: the registry gives it once."""
    overlaybd_on_8_nodes(1)


def test_overlaybd_in_two_zones():
    overlaybd_on_8_nodes(2)


# ---- scattered reads of large layers ----

def scattered(lab, size: int, count: int, seed=5) -> dict:
    """Per node so many ranges anywhere in the layer; every third of them is one that all nodes read."""
    common = random.Random(seed)
    shared = [random_range(common, [(0, size - 1)]) for _ in range(count // 3)]
    ranges = {}
    for node in lab.nodes:
        rng = random.Random(1000 * seed + node.index)
        ranges[node] = [*shared, *(random_range(rng, [(0, size - 1)]) for _ in range(count - len(shared)))]
        rng.shuffle(ranges[node])
    return ranges


def flat(ranges: dict) -> list:
    return [(0, 0), *(r for part in ranges.values() for r in part)]


def scattered_on_8_nodes(size: int, count: int, zones: int):
    lab, data, digest = lazy_lab(8, size, zones=zones)
    with lab:
        ranges = scattered(lab, size, count)
        seconds = replay(lab, lambda node: accelerator(digest), data, ranges.get)
        by_distinct, _ = measure(lab, flat(ranges), data, seconds, f"scattered in {size // MIB} MiB, zones: {zones}")
        it.check(by_distinct <= 1.15, f"the registry gave {by_distinct:.3f} times the distinct bytes")
        it.check(by_distinct > 0.99, f"counted too little: {by_distinct:.3f}")


def test_scattered_reads_of_a_large_layer():
    """Random ranges of 4 KiB to 1 MiB all over a layer whose pieces are 1 MiB: the registry gives little more than what is asked for."""
    scattered_on_8_nodes(256 * MIB, 80, 1)


def test_scattered_reads_in_two_zones():
    scattered_on_8_nodes(256 * MIB, 60, 2)


def whole(node, digest, data: bytes):
    """A pull of all of the layer, as containerd's without ranges."""
    reader = Reader(node, blob_path(digest), {"User-Agent": "containerd/1.7.0"})
    answer, body = reader.ask(None)
    it.check(answer.status == 200 and body == data, f"{node.name}: {answer.status}, {len(body)} bytes of the whole")
    reader.close()


def test_small_reads_of_what_a_node_has():
    """One node has the whole layer: nobody reads any of it from the registry again, whatever the pieces of the reads."""
    lab, data, digest = lazy_lab(4, 96 * MIB)
    with lab:
        whole(lab.nodes[0], digest, data)
        time.sleep(1)
        before = origin_bytes(lab)
        ranges = scattered(lab, len(data), 30)
        replay(lab, lambda node: accelerator(digest), data, ranges.get)
        got = origin_bytes(lab) - before
        it.figure(f"scattered reads of what one node has: {union(flat(ranges)) / MIB:.1f} MiB distinct, from the registry {got / KIB:.0f} KiB")
        it.check(got < 256 * KIB, f"{got} bytes from the registry of what the mesh has")


def test_whole_pull_beside_scattered_reads():
    """Small reads and a pull of all of it at the same time, each with the right bytes; then the pull serves everybody's reads."""
    lab, data, digest = lazy_lab(4, 96 * MIB)
    with lab:
        ranges = scattered(lab, len(data), 40)
        first = {node: part[:25] for node, part in ranges.items()}
        errors = []

        def pull():
            try:
                whole(lab.nodes[3], digest, data)
            except Exception as error:  # noqa: BLE001: raised below
                errors.append(error)
        pulls = threading.Timer(0.2, pull)
        pulls.start()
        replay(lab, lambda node: accelerator(digest), data, first.get)
        pulls.join()
        if errors:
            raise errors[0]
        got, distinct = origin_bytes(lab), union(flat(first))
        it.figure(f"scattered reads beside a whole pull: {distinct / MIB:.1f} MiB distinct of {len(data) / MIB:.0f}; from the registry {got / MIB:.1f} MiB")
        it.check(got <= 1.1 * len(data) + 1.15 * distinct, f"{got} bytes from the registry")
        time.sleep(11)  # nodes ask anew who has it
        for node in lab.nodes[:3]:
            Reader(node, accelerator(digest)).read(data, 0, 0)
        time.sleep(0.5)
        before = origin_bytes(lab)
        replay(lab, lambda node: accelerator(digest), data, lambda node: ranges[node][25:])
        together([lambda n=node: whole(n, digest, data) for node in lab.nodes])
        got = origin_bytes(lab) - before
        it.check(got < 512 * KIB, f"{got} bytes from the registry of what the mesh has")


def test_what_small_reads_brought_in_survives_a_restart():
    """What is on disk of it serves this node and, vouched for, others."""
    lab, data, digest = lazy_lab(2, 96 * MIB)
    with lab:
        first, second = lab.nodes
        ranges = scattered(lab, len(data), 12)[first]

        def read(node):
            reader = Reader(node, accelerator(digest))
            for begin, last in ranges:
                reader.read(data, begin, last)
            reader.close()
        read(first)
        time.sleep(1)
        it.check(first.process.stop() == 0, "not stopped in order")
        first.start()
        first.wait_ready()
        lab.wait_members()
        time.sleep(1)
        before = origin_bytes(lab)
        read(first)
        read(second)
        got = origin_bytes(lab) - before
        it.check(got < 128 * KIB, f"{got} bytes from the registry of what was on disk")


def test_acl_1_private_blobs():
    """The registry decides who may read, by the credentials in the request; what is cached is nobody's right (ACL-1, ACL-4)."""
    lab, data, digest = lazy_lab(2, 9 * MIB, private=True)
    with lab:
        login = {"Authorization": "Basic " + base64.b64encode(f"user:{PASSWORD}".encode()).decode()}
        for node in lab.nodes:
            Reader(node, accelerator(digest), login).read(data, 4 * MIB, 4 * MIB + 99)
            for headers in ({}, {"Authorization": "Basic " + base64.b64encode(b"user:wrong").decode()}):
                answer, body = Reader(node, accelerator(digest), headers).ask(f"{4 * MIB}-{4 * MIB + 99}")
                it.check(answer.status == 401 and "Basic" in answer.headers["WWW-Authenticate"], f"{headers}: {answer.status}")
                it.check(data[4 * MIB:4 * MIB + 10] not in body, "private bytes")


def test_strict_trust_goes_around_the_mesh():
    """Of a range nobody sees the layer's digest match: with trust `verified` it comes from the registry, exactly; a whole layer is shared."""
    lab, data, digest = lazy_lab(2, 9 * MIB, {"transfer.trust": "verified"})
    with lab:
        node = lab.nodes[0]
        started = time.monotonic()
        Reader(node, accelerator(digest)).read(data, 4 * MIB, 5 * MIB)
        it.check(time.monotonic() - started < 1, "a range waited for a digest that does not come")
        it.check(node.metric("shoal_piece_bytes_total") == 0, "pieces came")
        it.check(Reader(node, accelerator(digest)).ask(None)[1] == data, "whole")
        before = node.sources()["origin_bytes"]
        Reader(node, accelerator(digest)).read(data, 4 * MIB, 5 * MIB)
        it.check(node.sources()["origin_bytes"] - before < 64 * KIB, "a verified layer was read again")


def test_scattered_reads_bring_in_blocks_alone():
    """A few KiB here and there: no more than the blocks they lie in, also when clients are gone and when nodes come late."""
    block = piece_bytes(60 * MIB)
    lab, data, digest = lazy_lab(4, 60 * MIB)
    with lab:
        rng = random.Random(2)
        ranges = [(start, start + 4 * KIB - 1) for start in (rng.randrange(0, len(data) - 4 * KIB) for _ in range(24))]
        seconds = replay(lab, lambda node: accelerator(digest, "https"), data, lambda node: ranges, stagger=1.5)
        blocks = union((f // block * block, min((l // block + 1) * block, len(data)) - 1) for f, l in [(0, 0), *ranges])
        time.sleep(2)
        got = origin_bytes(lab)
        it.figure(f"4 KiB at {len(ranges)} places on 4 nodes, one after the other, {seconds:.1f} s: registry {got / MIB:.2f} MiB, blocks {blocks / MIB:.2f} MiB")
        it.check(got <= 1.15 * blocks, f"{got} bytes from the registry for {blocks} in blocks")


def test_ranges_bring_in_the_rest_if_asked_to():
    """`transfer.prefetchRanges`: one small range, and the whole layer comes behind it, once; without it none of that does."""
    lab, data, digest = lazy_lab(2, 24 * MIB, {"transfer.prefetchRanges": True})
    with lab:
        def held(node):
            return json.loads(node.get("/status", admin=True).split(" ", 1)[1])["cache"]["bytes"]
        for node in lab.nodes:
            started = time.monotonic()
            Reader(node, accelerator(digest)).read(data, 9 * MIB, 9 * MIB + 4095)
            while held(node) < len(data):
                it.check(time.monotonic() < started + 10, f"{node.name}: {held(node)} of {len(data)} bytes after 10 s")
                time.sleep(0.1)
            it.check(node.metric("shoal_range_prefetches_total") == 1, "not counted")
        got = origin_bytes(lab)
        it.check(got <= 1.1 * len(data), f"{got} bytes from the registry")
        it.figure(f"24 MiB behind a range of 4 KiB, on two nodes one after the other: registry {got / len(data):.2f} copies")
        tiny = {"transfer.prefetchRanges": True, "cache.capacity": "64MiB"}  # an eighth of it is less than the layer
    lab, data, digest = lazy_lab(1, 24 * MIB, tiny)
    with lab:
        Reader(lab.nodes[0], accelerator(digest)).read(data, 9 * MIB, 9 * MIB + 4095)
        time.sleep(2)
        it.check(lab.nodes[0].metric("shoal_range_prefetches_total") == 0 and origin_bytes(lab) < MIB, "a layer too large for this cache was brought in")


def test_block_size():
    """`blocksize` is what a small read brings in, but no less than a piece."""
    for size, block, settings in ((20 * MIB, 128 * KIB, None), (20 * MIB, 128 * KIB, {"blocksize": 64}), (20 * MIB, 2 * MIB, {"blocksize": "2MiB"}),
                                  (64 * MIB, 16 * KIB, None), (64 * MIB, 64 * KIB, {"blocksize": 64}), (64 * MIB, 2 * MIB, {"blocksize": "2MiB"})):
        lab, data, digest = lazy_lab(1, size, settings)
        with lab:
            reader = Reader(lab.nodes[0], accelerator(digest))
            reader.read(data, 9 * MIB + 5, 9 * MIB + 10)
            time.sleep(1)
            got = lab.nodes[0].metric("shoal_piece_bytes_total")
            it.check(got == block, f"blocksize {settings}: {got} bytes came, wanted {block}")


def test_answers_of_the_accelerator():
    lab, data, digest = lazy_lab(1, 3 * MIB)
    with lab:
        node, size = lab.nodes[0], len(data)
        for prefix in ("accelerator", "accelerate"):
            reader = Reader(node, accelerator(digest).replace("accelerator", prefix))
            for spec, first, last in (("0-0", 0, 0), (f"0-{size - 1}", 0, size - 1), ("0-", 0, size - 1), ("-5", size - 5, size - 1),
                                      (f"{size - 5}-{size + 5}", size - 5, size - 1), ("131071-131072", 131071, 131072)):
                answer, body = reader.ask(spec)
                it.check(answer.status == 206 and body == data[first:last + 1], f"{spec}: {answer.status}, {len(body)} bytes")
                it.check(answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}", f"{spec}: {answer.headers['Content-Range']}")
            for spec in ("5-4", f"{size}-", f"{size + 1}-{size + 2}", "-0"):
                answer, body = reader.ask(spec)
                it.check(answer.status == 416 and answer.headers["Content-Range"] == f"bytes */{size}", f"{spec}: {answer.status}")
            answer, body = reader.ask(None)
            it.check(answer.status == 200 and body == data and "Content-Range" not in answer.headers, f"whole: {answer.status}")
            answer, body = reader.ask(None, "HEAD")
            it.check(answer.status == 200 and answer.headers["Content-Length"] == str(size) and not body, f"HEAD: {answer.status}")
            reader.close()
        missing = "sha256:" + "0" * 64
        for target, wanted in ((accelerator(missing), 404), ("/accelerator/http://evil.example/v2/a/blobs/" + digest, 404),
                               ("/accelerator/http://169.254.169.254/latest/meta-data/", 404), (f"/accelerator/http://{REGISTRY_NAME}/v2/_catalog", 404),
                               (f"/accelerator/http://{REGISTRY_NAME}/v2/../x", 400), ("/accelerator/ftp://a/b", 400), ("/accelerator/x", 400)):
            reader = Reader(node, target)
            it.check(reader.ask("0-0")[0].status == wanted, f"{target}: not {wanted}")
            reader.close()


# ---- a registry's storage ----

STORAGE_PORT = 9000


def storage_lab(nodes: int, size: int):
    lab = Lab(nodes)
    lab.start_registry()
    rng = random.Random(size)
    data = b"".join(rng.randbytes(MIB) for _ in range(size // MIB))
    digest = put_blob(lab, data)
    folder = lab.dir / "registry"
    (folder / "other").mkdir()
    (folder / "other" / "file.bin").write_bytes(data[:3 * MIB])
    server = Process(lab.origin_exec("/usr/bin/python3", Path(__file__).with_name("storage_server.py"), lab.origin_address, STORAGE_PORT, folder,
                                     lab.dir / "storage.requests"), lab.dir / "storage.log")
    lab.processes.append(server)
    lab.registries[0]["storage"] = [f"http://{lab.origin_address}:{STORAGE_PORT}/docker/registry/v2/blobs/"]
    lab.registries[0]["storage"].append(f"http://{lab.origin_address}:{STORAGE_PORT}/other/")
    lab.start_nodes({"log.level": "trace"})
    if nodes > 1:
        lab.wait_members()
    for node in lab.nodes:
        node.count_sources()
    return lab, data, digest


def stored(lab, digest: str, signature: str) -> str:
    name = digest.split(":")[1]
    return f"/accelerator/http://{lab.origin_address}:{STORAGE_PORT}/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data?Expires=1&Signature={signature}&Key={SIGNED}"


def requests(lab) -> list[str]:
    log = lab.dir / "storage.requests"
    return log.read_text().splitlines() if log.exists() else []


def test_signed_urls_of_storage():
    """Each caller's URL is asked itself; the blob behind different ones is shared, and is the registry's own."""
    lab, data, digest = storage_lab(4, 40 * MIB)
    with lab:
        regions = hot_regions(len(data), 6, 3)
        ranges = {n: [random_range(random.Random(1000 * n.index + i), regions) for i in range(160)] for n in lab.nodes}
        seconds = replay(lab, lambda node: stored(lab, digest, f"good{node.index}"), data, ranges.get)
        by_distinct, _ = measure(lab, [(0, 0), *(r for part in ranges.values() for r in part)], data, seconds, "signed URLs")
        it.check(by_distinct <= 1.15, f"the storage gave {by_distinct:.3f} times the distinct bytes")
        # The same content by the registry's name: nothing new comes from anywhere.
        before = origin_bytes(lab)
        reader = Reader(lab.nodes[0], blob_path(digest))
        for first, last in ranges[lab.nodes[0]][:20]:
            reader.read(data, first, last)
        it.check(origin_bytes(lab) - before < 64 * KIB, "the registry was read for what the storage gave before")
        # What is cached is given to nobody whose URL the storage refuses, and the refusal is passed on (ACL-1, ACL-4).
        for signature, wanted in (("bad", 403), ("", 403)):
            answer, body = Reader(lab.nodes[0], stored(lab, digest, signature)).ask("0-9")
            it.check(answer.status == wanted and data[:10] not in body, f"{signature}: {answer.status}")
        absent = Reader(lab.nodes[1], stored(lab, "sha256:" + "0" * 64, "good")).ask("0-9")[0]
        it.check(absent.status == 404, f"absent: {absent.status}")
        # Credentials that come along are the registry's, not the storage's.
        Reader(lab.nodes[0], stored(lab, digest, "good9"), {"Authorization": f"Bearer {BEARER}"}).read(data, 5, 9)
        it.check(all(line.endswith(" bare") for line in requests(lab)), "the storage saw credentials")
        logs = "".join(node.process.text() for node in lab.nodes)
        it.check("Signature=" not in logs and BEARER not in logs and "good0" not in logs, "a signed URL is in a log (HRD-4)")


def test_url_that_ends_in_mid_read():
    """A refused URL ends there: no 5xx, and what comes after it is asked again."""
    lab, data, digest = storage_lab(1, 20 * MIB)
    with lab:
        reader = Reader(lab.nodes[0], stored(lab, digest, "good"))
        reader.read(data, 0, 99)
        (lab.dir / "revoked-good").write_text("")
        answer, _ = reader.ask(f"{10 * MIB}-{10 * MIB + 99}")
        it.check(answer.status == 403, f"ended URL: {answer.status}")
        answer, _ = reader.ask("0-9")
        it.check(answer.status == 403, f"ended URL, cached bytes: {answer.status}")
        Reader(lab.nodes[0], stored(lab, digest, "good2")).read(data, 10 * MIB, 10 * MIB + 99)


def test_other_files_of_storage_are_passed_on():
    lab, data, digest = storage_lab(1, 4 * MIB)
    with lab:
        node, size = lab.nodes[0], 3 * MIB
        base = f"/accelerator/http://{lab.origin_address}:{STORAGE_PORT}/"
        reader = Reader(node, base + "other/file.bin?Signature=good")
        for first, last in ((0, 0), (5, 4999), (2 * MIB, size - 1), (0, size - 1)):
            reader.read(data[:size], first, last)
        answer, _ = reader.ask(f"{size}-{size + 1}")
        it.check(answer.status == 416, f"behind its end: {answer.status}")
        it.check(node.metric("shoal_piece_bytes_total") == 0, "a file without digest was kept")
        for target, wanted in ((base + "other/file.bin?Signature=bad", 403), (base + "other/none?Signature=good", 404), (base + "x?Signature=good", 404),
                               (base + "other/../x?Signature=good", 400)):
            answer, _ = Reader(node, target).ask("0-0")
            it.check(answer.status == wanted, f"{target}: {answer.status}")
        it.check(not any(" /x " in line for line in requests(lab)), "a place that nobody configured was asked")


def test_http_1_long_signed_urls():
    """A URL with a security token of 7 KiB is read as any other; the target's limit is 8 KiB, and 2 KiB for everything else."""
    lab, data, digest = storage_lab(1, 4 * MIB)
    with lab:
        node = lab.nodes[0]
        def long_url(bytes_: int) -> str:
            plain = stored(lab, digest, "good").replace("?", "?token=&", 1)
            return plain.replace("?token=", "?token=" + "t" * (bytes_ - len(plain)), 1)

        for bytes_ in (7000, 8192):
            Reader(node, long_url(bytes_)).read(data, MIB, MIB + 99)
        for target in (long_url(8193), "/v2/lib/a/manifests/1?x=" + "t" * 2048):
            answer, _ = Reader(node, target).ask("0-0")
            it.check(answer.status == 414, f"{len(target)} bytes: {answer.status}")


# ---- others ----

def test_parallel_ranges_of_containerd():
    """containerd >= 2.1: eight requests for 8 MiB each at once, also open-ended ones that are dropped after their part."""
    lab, data, digest = lazy_lab(4, 64 * MIB)
    with lab:
        part = 8 * MIB

        def bounded(node, index):
            reader = Reader(node, blob_path(digest), {"User-Agent": "containerd/2.1.0"})
            reader.read(data, index * part, (index + 1) * part - 1)
            reader.close()

        def open_ended(node, index):
            reader = Reader(node, blob_path(digest), {"User-Agent": "containerd/2.1.0"})
            reader.link.request("GET", reader.path, headers=dict(reader.headers, Range=f"bytes={index * part}-"))
            answer = reader.link.getresponse()
            it.check(answer.status == 206 and answer.headers["Content-Range"] == f"bytes {index * part}-{len(data) - 1}/{len(data)}", f"open: {answer.status}")
            it.check(answer.read(part) == data[index * part:(index + 1) * part], f"part {index}: wrong bytes")
            reader.close()
        started = time.monotonic()
        together([lambda n=node, i=index: (bounded if n.index % 2 else open_ended)(n, i) for node in lab.nodes for index in range(8)])
        seconds = time.monotonic() - started
        by_distinct, _ = measure(lab, [(0, len(data) - 1)], data, seconds, "containerd, 8 x 8 MiB")
        it.check(by_distinct <= 1.15, f"the registry gave {by_distinct:.3f} times the layer")


def test_soci_stargz_nydus():
    """SOCI: spans of 4 MiB, several at once, then the whole behind them. stargz: the footer, then chunks. nydus: HEAD, then chunks merged to 1 MiB."""
    lab, data, digest = lazy_lab(3, 40 * MIB)
    with lab:
        size, path = len(data), blob_path(digest)

        def soci(node):
            def span(index):
                reader = Reader(node, path)
                reader.read(data, index * 4 * MIB + 123, min((index + 1) * 4 * MIB + 122, size - 1))
                reader.close()
            together([lambda i=i: span(i) for i in (0, 3, 4, 7)])

        def stargz(node):
            reader = Reader(node, path)
            answer, body = reader.ask("-51")
            it.check(answer.status == 206 and body == data[-51:], f"footer: {answer.status}")
            reader.read(data, size - 300 * KIB, size - 52)
            for index in (3, 17, 4):
                reader.read(data, index * MIB + 77, index * MIB + 77 + 50 * KIB)
            reader.close()

        def nydus(node):
            reader = Reader(node, path)
            answer, _ = reader.ask(None, "HEAD")
            it.check(answer.headers["Content-Length"] == str(size), f"HEAD: {answer.headers['Content-Length']}")
            for index in range(12, 20):
                reader.read(data, index * MIB, (index + 1) * MIB - 1)
            reader.close()
        started = time.monotonic()
        together([lambda c=client, n=node: c(n) for client in (soci, stargz, nydus) for node in lab.nodes])
        seconds = time.monotonic() - started
        ranges = [(i * 4 * MIB + 123, min((i + 1) * 4 * MIB + 122, size - 1)) for i in (0, 3, 4, 7)]
        ranges += [(size - 300 * KIB, size - 1), (12 * MIB, 20 * MIB - 1), *((i * MIB + 77, i * MIB + 77 + 50 * KIB) for i in (3, 17, 4))]
        by_distinct, _ = measure(lab, ranges, data, seconds, "SOCI, stargz and nydus on 3 nodes")
        it.check(by_distinct <= 1.15, f"the registry gave {by_distinct:.3f} times the distinct bytes")


# ---- limits ----

def state_of_requests(node) -> tuple[int, int]:
    """(running, waiting) of the clients' requests."""
    lines = [line for line in node.get("/metrics", admin=True).splitlines() if line.startswith("shoal_client_requests{")]
    values = {line.split('"')[1]: int(line.rsplit(" ", 1)[1]) for line in lines}
    return values["running"], values["waiting"]


def test_requests_at_once():
    """limits.parallelRequests: two that do not end keep a third waiting; it is served when one ends, or told after transferTimeout."""
    lab, data, digest = lazy_lab(1, 48 * MIB, {"proxyFsParallels": 2, "transferTimeout": "2s"})
    with lab:
        node = lab.nodes[0]
        slow = []
        for _ in range(2):
            reader = Reader(node, blob_path(digest))
            reader.link.request("GET", reader.path, headers=dict(reader.headers, Range="bytes=1-"))
            reader.link.getresponse().read(10)  # and no more: it stays in the middle of its answer
            slow.append(reader)
        started = time.monotonic()
        answer, _ = Reader(node, blob_path(digest)).ask("0-9")
        took = time.monotonic() - started
        it.check(answer.status == 503 and answer.headers["Retry-After"] == "1", f"third: {answer.status}")
        it.check(1.9 < took < 4, f"told after {took:.1f} s")
        it.check(state_of_requests(node) == (2, 0), f"{state_of_requests(node)}")

        def wait_for_turn():
            Reader(node, blob_path(digest)).read(data, 0, 9)

        def make_room():
            end = time.monotonic() + 1.5
            while state_of_requests(node)[1] < 3 and time.monotonic() < end:
                time.sleep(0.02)
            it.check(state_of_requests(node) == (2, 3), f"{state_of_requests(node)}")
            slow.pop().close()
        together([wait_for_turn, wait_for_turn, wait_for_turn, make_room])
        it.check(node.metric("shoal_client_requests_late_total") == 1, "late")
        it.check(node.metric("shoal_client_requests_waited_total") == 4, "waited")
        slow.pop().close()


if __name__ == "__main__":
    sys.exit(it.main(globals(), 60))
