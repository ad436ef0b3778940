#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`contentStore`: what a real containerd holds is served from its files and not stored twice; damage, removal and private content."""
import contextlib
import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import it
from images import push_runnable
from lab import SHOAL, Lab
from runtimes import Containerd, Sandbox, start_registries, upstream

MIB = 1 << 20


@contextlib.contextmanager
def cluster(settings=None, mbit=0):
    """Two nodes; the first one's agent may read its containerd's content store."""
    with Lab(2, 1, mbit) as lab:
        start_registries(lab, "public")
        lab.registries[0].update(settings or {})
        lab.registry = lab.processes[-1]
        first, second = lab.nodes
        for node in lab.nodes:
            node.sandbox = Sandbox(node)
        first.containerd = Containerd(first.sandbox)
        first.extra = {"contentStore": str(first.containerd.dir / "root")}
        first.start(first.extra)
        second.start()
        lab.wait_members()
        yield lab, first, second


def blobs_of(image: dict) -> dict[str, int]:
    return {d["digest"]: d["size"] for d in (image["parts"]["config"], *image["parts"]["layers"])}


def labelled(node, name: str, label: str) -> float:
    page = node.get("/metrics", admin=True)
    return sum(float(v) for v in re.findall(rf'^{name}{{[a-z]+="{label}"}} (\S+)$', page, re.M))


def wait(what: str, condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


def fetch(node, repository: str, what: str, check=True) -> tuple[str, bytes | None]:
    """Shoal-Source and body; None if the answer did not complete well."""
    target, head = node.dir / "body", node.dir / "head"
    done = node.run("curl", "-sf", "-m", "60", "-D", head, "-o", target, "-H", "Accept: application/vnd.oci.image.manifest.v1+json",
                    f"http://127.0.0.1:{node.client_port}/v2/{repository}/{what}?ns={upstream('public')}", check=False)
    if done.returncode != 0:
        it.check(not check, f"{what} on {node.name}: curl ended with {done.returncode}: {head.read_text() if head.exists() else ''}")
        return "", None
    source = re.search(r"(?i)^shoal-source: (\S+)", head.read_text(), re.M)
    return source.group(1) if source else "", target.read_bytes()


def fetch_blobs(node, repository: str, blobs: dict[str, int]) -> set[str]:
    """Every blob, hashed; where their first bytes came from."""
    sources = set()
    for digest, size in blobs.items():
        source, body = fetch(node, repository, f"blobs/{digest}")
        it.check(len(body) == size and "sha256:" + hashlib.sha256(body).hexdigest() == digest, f"wrong bytes of {digest} on {node.name}")
        sources.add(source)
    return sources


def disk_bytes(node) -> int:
    return sum(p.stat().st_blocks * 512 for p in (node.dir / "data" / "cache").rglob("*") if p.is_file())


def file_of(node, digest: str) -> Path:
    return node.containerd.dir / "root/io.containerd.content.v1.content/blobs/sha256" / digest[7:]


def wait_offered(node, count: int):
    wait(f"{count} blobs offered from the content store", lambda: node.metric("shoal_content_blobs") == count)


def flip(path: Path, offset: int, secretly: bool):
    """One bit of a file, with or without the time stamp of a write."""
    before = path.stat()
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    if secretly:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_served_from_the_content_store():
    with cluster() as (lab, first, second):
        image = push_runnable(lab, "lib/app", 24 * MIB)
        blobs, size = blobs_of(image), sum(blobs_of(image).values())
        first.containerd.pull("public", "lib/app:1")
        wait_offered(first, len(blobs))
        wait("our own copy given up", lambda: first.status()["cache"]["bytes"] == 0)
        given_up = first.metric("shoal_content_given_up_bytes_total")
        it.check(given_up == size, f"{given_up:.0f} of {size} bytes were given up")
        wait("room given back", lambda: disk_bytes(first) == 0, 10)

        # The list of what was seen survives the agent: nothing has to be asked for again.
        first.process.stop()
        first.start(first.extra)
        wait_offered(first, len(blobs))
        lab.wait_members()

        # The other node, without the registry: all of it is in the first one's content store.
        for node in (first, second):
            it.check(fetch(node, "lib/app", f"manifests/{image['digest']}")[1] is not None, "manifest")
        lab.registry.kill()
        second.count_sources()
        second.containerd = Containerd(second.sandbox)
        second.containerd.pull("public", f"lib/app@{image['digest']}")
        it.check(set(blobs) < set(second.containerd.blobs()), "the second containerd has not got everything")
        sources = second.sources()
        it.check(sources["same_zone_bytes"] >= size, f"bytes by source on the second node: {sources}")
        read = labelled(first, "shoal_piece_bytes_total", "content-store")
        it.check(read == size, f"{read:.0f} of {size} bytes read from the content store")

        # A local client: authorised as for any blob.
        it.check(fetch_blobs(first, "lib/app", blobs) == {"content-store"}, "the local client was served from elsewhere")
        it.check(labelled(first, "shoal_client_bytes_total", "content-store") == size, "bytes by source")
        it.check(first.status()["cache"]["bytes"] == 0 and disk_bytes(first) == 0, "the blobs are stored twice")
        it.figure(f"{size >> 20} MiB for another node from the content store, each piece read once, 0 bytes in the first node's cache")


def test_removed_by_containerd():
    with cluster(mbit=200) as (lab, first, second):
        image = push_runnable(lab, "lib/app", 48 * MIB)
        blobs = blobs_of(image)
        first.containerd.pull("public", "lib/app:1")
        wait_offered(first, len(blobs))
        wait("our own copy given up", lambda: first.status()["cache"]["bytes"] == 0)

        # While it is being served: what is left comes from the registry, in the same answer.
        large = max(blobs, key=blobs.get)
        started = labelled(first, "shoal_piece_bytes_total", "content-store")
        body = second.dir / "large"
        fetch(second, "lib/app", "manifests/1")
        client = subprocess.Popen(second.exec("curl", "-sf", "-m", "60", "-o", body,
                                              f"http://127.0.0.1:{second.client_port}/v2/lib/app/blobs/{large}?ns={upstream('public')}"))
        wait("half of it sent", lambda: labelled(first, "shoal_piece_bytes_total", "content-store") - started > blobs[large] / 4, 20)
        first.containerd.forget()
        it.check(client.wait(60) == 0, "the pull did not survive the removal")
        it.check("sha256:" + hashlib.sha256(body.read_bytes()).hexdigest() == large, "wrong bytes")
        wait_offered(first, 0)
        it.check(first.metric("shoal_content_gone_total") == len(blobs), "offers that ended")

        # Afterwards: as if containerd had never had it.
        it.check("content-store" not in fetch_blobs(first, "lib/app", blobs), "served from a file that is gone")

        # And it may come back.
        first.containerd.pull("public", "lib/app:1")
        wait_offered(first, len(blobs))


def test_damaged_file_is_never_delivered():
    with cluster() as (lab, first, second):
        images = [push_runnable(lab, f"lib/app{i}", 8 * MIB) for i in range(3)]
        larges = [max(blobs_of(i), key=blobs_of(i).get) for i in images]
        for i in range(3):
            first.containerd.pull("public", f"lib/app{i}:1")
        wait_offered(first, 3 * 3)
        wait("our own copies given up", lambda: first.status()["cache"]["bytes"] == 0)
        offset = 5 * MIB + 77

        # Rot: no time stamp tells, the hash of the piece does. Both a neighbour and a local client.
        flip(file_of(first, larges[0]), offset, True)
        fetch(second, "lib/app0", "manifests/1")
        fetch_blobs(second, "lib/app0", blobs_of(images[0]))
        wait("damage noticed", lambda: first.metric("shoal_content_damaged_total") == 1, 10)
        flip(file_of(first, larges[1]), offset, True)
        fetch_blobs(first, "lib/app1", blobs_of(images[1]))
        wait("damage noticed", lambda: first.metric("shoal_content_damaged_total") == 2, 10)

        # Somebody wrote to the file: it is hashed anew, and found wrong.
        flip(file_of(first, larges[2]), offset, False)
        wait("damage noticed", lambda: first.metric("shoal_content_damaged_total") == 3, 20)
        fetch(second, "lib/app2", "manifests/1")
        fetch_blobs(second, "lib/app2", blobs_of(images[2]))
        fetch_blobs(first, "lib/app2", blobs_of(images[2]))
        it.check("damaged file in the content store" in first.process.text(), "nobody was told")

        # Damaged before the agent ever looked.
        first.process.stop()
        (first.dir / "data" / "content-seen").unlink()
        first.start(first.extra)
        fetch(first, "lib/app0", "manifests/1")
        fetch_blobs(first, "lib/app0", blobs_of(images[0]))
        it.check(first.metric("shoal_content_damaged_total") == 1, "a damaged file was taken")


def test_acl_10_private_content_stays_off_the_mesh():
    with cluster({"p2p": ["secret/* off", "* on"]}) as (lab, first, second):
        image = push_runnable(lab, "secret/app", 6 * MIB)
        blobs = blobs_of(image)
        first.containerd.pull("public", "secret/app:1")
        wait("containerd has it", lambda: set(blobs) < set(first.containerd.blobs()))
        other = push_runnable(lab, "lib/other", 6 * MIB)  # how long the mesh takes to hear of what it may
        first.containerd.pull("public", "lib/other:1")
        wait_offered(first, 3)
        first.process.stop()
        first.start(first.extra)
        wait_offered(first, 3)
        it.check(not any(d[7:] in (first.dir / "data" / "content-seen").read_text() for d in blobs), "private digests are on the list")
        lab.wait_members()
        # Another node that may read the repository and knows the digests gets them from the registry alone.
        second.process.stop()
        second.start({"registries": [{k: v for k, v in lab.registries[0].items() if k != "p2p"}]})
        lab.wait_members()
        fetch(second, "secret/app", "manifests/1")
        sent = first.metric("shoal_upload_bytes_total")
        fetch_blobs(second, "secret/app", blobs)
        it.check(first.metric("shoal_upload_bytes_total") == sent, "private content went over the mesh")
        fetch(second, "lib/other", "manifests/1")
        fetch_blobs(second, "lib/other", blobs_of(other))
        it.check(first.metric("shoal_upload_bytes_total") > sent, "nothing goes over the mesh: the test shows nothing")


def test_without_a_content_store():
    """A folder that is not there, or not containerd's, is one line in the log."""
    with cluster() as (lab, first, _):
        image = push_runnable(lab, "lib/app", 2 * MIB)
        wait("said", lambda: "no blobs/sha256 in contentStore" in first.process.text(), 10)
        fetch_blobs(first, "lib/app", blobs_of(image))
        time.sleep(6)
        it.check(first.process.text().count("no blobs/sha256") == 1, "said more than once")
        first.process.stop()
        junk = first.dir / "junk"
        (junk / "blobs").mkdir(parents=True)
        (junk / "blobs" / "sha256").symlink_to("/etc")
        first.start({"contentStore": str(junk)})
        fetch(first, "lib/app", "manifests/1")
        fetch_blobs(first, "lib/app", blobs_of(image))
        it.check(first.metric("shoal_content_blobs") == 0, "a link was followed")


def test_found_by_scan_where_nothing_can_be_watched():
    """Without a single inotify watch for the agent (a user namespace of its own has none left): scans find what comes."""
    with cluster() as (lab, first, second):
        image = push_runnable(lab, "lib/app", 8 * MIB)
        blobs = blobs_of(image)
        unwatched = first.dir / "unwatched"
        unwatched.write_text(f"#!/bin/sh\nexec unshare --user --map-root-user sh -c 'echo 0 >/proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"' {SHOAL} \"$@\"\n")
        unwatched.chmod(0o755)
        first.process.stop()
        first.start(first.extra, binary=unwatched)
        lab.wait_members()
        fetch(first, "lib/app", "manifests/1")
        fetch_blobs(first, "lib/app", blobs)  # seen, and not there: the store's folder comes with containerd's first image
        it.check(first.metric("shoal_content_blobs") == 0, "offered before it was there")
        first.containerd.pull("public", "lib/app:1")
        started = time.monotonic()
        wait_offered(first, len(blobs))
        it.figure(f"found by a scan {time.monotonic() - started:.1f} s after the pull")
        it.check("content: cannot watch" in first.process.text(), "the folder was watched: the test shows nothing")
        fetch(second, "lib/app", "manifests/1")
        fetch_blobs(second, "lib/app", blobs)
        it.check(mesh_bytes(second) >= sum(blobs.values()), "not from the first node")

        # There before the agent starts: the first scan finds it.
        first.process.stop()
        first.start(first.extra, binary=unwatched)
        wait_offered(first, len(blobs))
        it.check("content: cannot watch" in first.process.text(), "the folder was watched: the test shows nothing")


def mesh_bytes(node) -> int:
    counts = node.status()["bytes"]
    return sum(counts[tier] for tier in ("vswitch", "zone", "region", "elsewhere"))


if __name__ == "__main__":
    sys.exit(it.main(globals()))
