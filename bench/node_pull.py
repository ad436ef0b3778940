#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One node's client, as race.py runs it: an image's manifest, then its blobs several at a time, every byte hashed."""
import gc
import hashlib
import http.client
import json
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

SILENT_S_MAX = 120
READ_BYTES = 256 * 1024


def get(job: dict, path: str, accept: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    host = urllib.parse.urlsplit(job["base"])
    connection = http.client.HTTPConnection(host.hostname, host.port, timeout=SILENT_S_MAX)
    connection.request("GET", f"/v2/{job['repository']}/{path}{job['query']}", headers={"Accept": accept, "Connection": "close"})
    return connection, connection.getresponse()


def check(name: str, response: http.client.HTTPResponse, size: int, digest: str):
    """Reads the answer to its end; raises unless it has the digest's bytes."""
    if response.status != 200:
        raise ValueError(f"{name}: status {response.status}")
    sha, count, buffer = hashlib.sha256(), 0, bytearray(READ_BYTES)
    view = memoryview(buffer)
    while got := response.readinto(buffer):
        sha.update(view[:got])
        count += got
    if size and count != size:
        raise ValueError(f"{name}: {count} of {size} bytes")
    if "sha256:" + sha.hexdigest() != digest:
        raise ValueError(f"{name}: wrong bytes")


def blob(job: dict, descriptor: dict):
    connection, response = get(job, f"blobs/{descriptor['digest']}", "*/*")
    try:
        check(descriptor["digest"][:19], response, descriptor["size"], descriptor["digest"])
    finally:
        connection.close()


def pull(job: dict):
    connection, response = get(job, "manifests/1", job["mediaType"])
    try:
        check("manifest", response, 0, job["digest"])
    finally:
        connection.close()
    print(f"note manifest_s {time.monotonic():.6f}", flush=True)
    with ThreadPoolExecutor(job["parallel"]) as pool:
        list(pool.map(lambda descriptor: blob(job, descriptor), [job["config"], *job["layers"]]))


def main() -> int:
    job = json.loads(sys.argv[1])
    gc.disable()  # it would search all that was imported, which costs as much as a quarter of the hashing
    print("ready", flush=True)
    if sys.stdin.readline() != "go\n":
        return 1
    try:
        pull(job)
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"failed {type(error).__name__}: {error}", flush=True)
        return 1
    print(f"done {time.monotonic():.6f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
