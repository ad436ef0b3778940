#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A registry that misbehaves: the repository's last part names the fault. Bytes follow from the repository's name.

Manifests and blobs of any repository exist; `GET /heal` ends all faults, `GET /expire` all tokens for lib/expires, `GET /break/503`
answers that to everything until healed, `GET /log` tells what was asked, and how much of a slow body was `sent`. A second port plays the storage host that redirects lead to.
Blobs are 3 MiB ("small") or 20 MiB ("big"); below layers/ there are ten of 1 MiB, below drip/ one of 400 KiB.
"""
import argparse
import base64
import hashlib
import json
import random
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import marks

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# What repositories below same/ call the same bytes.
TYPES = {"type-oci": MANIFEST, "type-docker": "application/vnd.docker.distribution.manifest.v2+json", "type-none": ""}
CHALLENGE = 'Basic realm="stub"'
GOOD = "Basic " + base64.b64encode(f"good:{marks.secret('stub-login')}".encode()).decode()
SIGNED = marks.secret("stub-signature")
LIED_TO, THROTTLED = marks.secret("lied-to"), marks.secret("throttled")
SIZES = {"small": 3 << 20, "big": 20 << 20}
LAYERS, TINY = {f"layer{i}": 1 << 20 for i in range(10)}, {"tiny": 400 << 10}


def sizes(repository: str) -> dict[str, int]:
    return LAYERS if repository.startswith("layers/") else TINY if repository.startswith("drip/") else SIZES


def blob(repository: str, which: str) -> bytes:
    return random.Random(f"{repository}/{which}").randbytes(sizes(repository)[which])


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def manifest(repository: str) -> bytes:
    """One for all repositories below same/."""
    repository = "same" if repository.startswith("same/") else repository
    layers = [{"mediaType": "application/octet-stream", "digest": digest_of(blob(repository, w)), "size": size} for w, size in sizes(repository).items()]
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": layers[0], "layers": layers}).encode()


class State:
    """What was asked, and what faults have done so far."""

    def __init__(self):
        self.lock, self.log, self.counts, self.healed, self.expired, self.broken, self.blobs = threading.Lock(), [], {}, False, False, 0, {}

    def count(self, what: str) -> int:
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1
            return self.counts[what]

    def blob(self, repository: str, digest: str) -> bytes | None:
        with self.lock:
            if repository not in self.blobs:
                self.blobs[repository] = {digest_of(d): d for d in (blob(repository, w) for w in sizes(repository))}
            return self.blobs[repository].get(digest)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state = State()

    def log_message(self, *_):
        pass

    def answer(self, status: int, body=b"", headers=(), length: int | None = None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        with self.state.lock:
            self.entry = {"port": self.server.server_address[1], "method": self.command, "path": self.path, "at": time.monotonic(),
                          "range": self.headers.get("Range", ""), "authorization": self.headers.get("Authorization", ""), "sent": 0}
            self.state.log.append(self.entry)
        if path == "/log":
            self.answer(200, json.dumps(self.state.log).encode())
        elif path == "/heal":
            self.state.healed, self.state.broken = True, 0
            self.answer(200)
        elif path == "/expire":
            self.state.expired = True
            self.answer(200)
        elif path.startswith("/break/"):
            self.state.broken = int(path.rpartition("/")[2])
            self.answer(200)
        elif self.state.broken:
            self.answer(self.state.broken, headers=[("WWW-Authenticate", CHALLENGE)] * (self.state.broken == 401))
        elif match := re.fullmatch(r"/v2/([a-z0-9/-]+)/(manifests|blobs)/([^/]+)", path):
            self.object(*match.groups())
        elif match := re.fullmatch(r"/store/([a-z0-9/-]+)/(sha256:[0-9a-f]+)", path):
            data = self.state.blob(*match.groups())
            if signature := re.search(r"signature=(\d+)", self.path):
                self.signed(data, int(signature[1]))
            else:
                self.ranged(data)
        else:
            self.answer(200 if path == "/v2/" else 404)

    def object(self, repository: str, kind: str, reference: str):
        fault = "" if self.state.healed else repository.rpartition("/")[2]
        special = getattr(self, "fault_" + fault.replace("-", "_"), None)
        if fault == "basic" and self.headers.get("Authorization", "") != GOOD:
            self.answer(401, headers=[("WWW-Authenticate", CHALLENGE)])
            return
        if fault == "expires" and self.state.expired:
            self.answer(401, headers=[("WWW-Authenticate", CHALLENGE)])
            return
        if kind == "manifests":
            body = manifest(repository)
            if fault == "slow-manifest":
                time.sleep(1)
            headers = [("Content-Type", MANIFEST), ("Docker-Content-Digest", digest_of(body))]
            if fault.startswith("type-"):
                headers = [("Content-Type", TYPES[fault])] * bool(TYPES[fault]) + headers[1:]
            if fault == "manifest-wrong":
                body = body.replace(b"{", b" ", 1)
            if fault == "manifest-huge":
                body += b" " * (5 << 20)
            if fault == "manifest-digest":
                headers[1] = ("Docker-Content-Digest", "sha256:" + "0" * 64)
            self.answer(200, body, headers)
            return
        data = self.state.blob(repository, reference)
        if data is None:
            self.answer(404)
        elif fault == "late" and self.command == "HEAD":
            time.sleep(7.8)
            self.ranged(data)
        elif fault == "mute":
            time.sleep(30)
        elif special and self.command == "GET":
            special(repository, reference, data)
        else:
            self.ranged(data)

    def wanted(self, data: bytes) -> tuple[int, int]:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        return (int(match[1]), min(int(match[2] or len(data)), len(data) - 1)) if match else (0, len(data) - 1)

    def ranged(self, data: bytes, body: bytes | None = None):
        """An honest answer, or one with another body of the same length."""
        first, last = self.wanted(data)
        part = data[first:last + 1] if body is None else body
        if self.headers.get("Range"):
            self.answer(206, part, [("Content-Range", f"bytes {first}-{last}/{len(data)}")])
        else:
            self.answer(200, part)

    # ---- faults of blobs ----

    def cut(self, data: bytes, share: float):
        first, last = self.wanted(data)
        part = data[first:last + 1]
        headers = [("Content-Range", f"bytes {first}-{last}/{len(data)}")] if self.headers.get("Range") else []
        self.answer(206 if headers else 200, part[:int(len(part) * share)], headers, len(part))
        self.close_connection = True

    def fault_cut(self, repository, reference, data):
        """Every second answer ends early."""
        if self.state.count(reference) % 2:
            self.cut(data, random.random())
        else:
            self.ranged(data)

    def fault_wrong(self, repository, reference, data):
        """One byte in every answer is not what it should be."""
        first, last = self.wanted(data)
        part = bytearray(data[first:last + 1])
        part[len(part) // 2] ^= 1
        self.ranged(data, bytes(part))

    def fault_wrong_once(self, repository, reference, data):
        if self.state.count(reference) == 1:
            self.fault_wrong(repository, reference, data)
        else:
            self.ranged(data)

    def fault_wrong_for_some(self, repository, reference, data):
        """One byte in every answer is wrong, for these credentials only."""
        if self.headers.get("Authorization", "") == f"Bearer {LIED_TO}":
            self.fault_wrong(repository, reference, data)
        else:
            self.ranged(data)

    def fault_no_ranges(self, repository, reference, data):
        self.answer(200, data)

    def fault_wrong_range(self, repository, reference, data):
        """206 of another part than the one asked for, and said so."""
        first, last = self.wanted(data)
        if first == 0:
            self.ranged(data)
            return
        self.answer(206, data[:last + 1 - first], [("Content-Range", f"bytes 0-{last - first}/{len(data)}")])

    def fault_too_long(self, repository, reference, data):
        first, last = self.wanted(data)
        self.answer(206, data[first:last + 1] + b"more", [("Content-Range", f"bytes {first}-{last}/{len(data) + 4}")])

    def fault_busy(self, repository, reference, data):
        """429 with Retry-After for the first two."""
        if self.state.count(repository) <= 2:
            self.answer(429, b"{}", [("Retry-After", "1")])
        else:
            self.ranged(data)

    def fault_broken(self, repository, reference, data):
        """503 for the first two."""
        if self.state.count(repository) <= 2:
            self.answer(503)
        else:
            self.ranged(data)

    def fault_slow(self, repository, reference, data, bytes_per_s=400000):
        """5 s to the first byte, then 400 KB/s."""
        first, last = self.wanted(data)
        time.sleep(5)
        self.send_response(206 if self.headers.get("Range") else 200)
        if self.headers.get("Range"):
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        step = bytes_per_s // 10
        for at in range(first, last + 1, step):
            self.wfile.write(data[at:min(at + step, last + 1)])
            self.entry["sent"] += min(step, last + 1 - at)
            time.sleep(0.1)

    def fault_drip(self, repository, reference, data):
        """5 s to the first byte, then 50 KB/s."""
        self.fault_slow(repository, reference, data, 50000)

    def fault_late_start(self, repository, reference, data):
        """5 s to the first byte, then 20 MB/s."""
        self.fault_slow(repository, reference, data, 20000000)

    def fault_mute_once(self, repository, reference, data):
        """The first question gets no answer."""
        if self.state.count(reference) == 1:
            time.sleep(30)
        else:
            self.ranged(data)

    def fault_late(self, repository, reference, data):
        """Confirms a blob at the last moment, then says nothing."""
        time.sleep(30)

    def fault_stall(self, repository, reference, data):
        """The first answer stops in its middle without closing."""
        if self.state.count(reference) > 1:
            self.ranged(data)
            return
        first, last = self.wanted(data)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:len(data) // 2])
        self.wfile.flush()
        time.sleep(60)

    def fault_redirect(self, repository, reference, data):
        self.answer(307, headers=[("Location", f"http://{self.server.server_address[0]}:{self.server.store_port}/store/{repository}/{reference}?secret={SIGNED}")])

    def fault_redirect_expires(self, repository, reference, data):
        """To a URL whose signature ends in the middle of its first body; the third one lasts."""
        number = self.state.count(reference)
        self.answer(307, headers=[("Location", f"http://{self.server.server_address[0]}:{self.server.store_port}/store/{repository}/{reference}?signature={number}&key={SIGNED}")])

    def signed(self, data: bytes, number: int):
        if number >= 3:
            self.ranged(data)
        elif self.state.count(f"{digest_of(data)} {number}") == 1:
            self.cut(data, 0.4)
        else:
            self.answer(403, b"<Error><Code>AccessDenied</Code><Message>Request has expired.</Message></Error>")

    def fault_busy_silent(self, repository, reference, data):
        """429 without Retry-After for the first two."""
        if self.state.count(repository) <= 2:
            self.answer(429, b"{}")
        else:
            self.ranged(data)

    def fault_busy_long(self, repository, reference, data):
        """429 that asks for an hour."""
        self.answer(429, b"{}", [("Retry-After", "3600")])

    def fault_busy_for_some(self, repository, reference, data):
        """429 for these credentials, in words that no client waits out."""
        if self.headers.get("Authorization", "") == f"Bearer {THROTTLED}":
            self.answer(429, b"{}", [("Retry-After", "30")])
        else:
            self.ranged(data)

    def fault_redirect_metadata(self, repository, reference, data):
        self.answer(307, headers=[("Location", "http://169.254.169.254/latest/meta-data/")])

    def fault_redirect_mesh(self, repository, reference, data):
        self.answer(307, headers=[("Location", "http://127.0.0.1:65002/")])

    def fault_redirect_loopback(self, repository, reference, data):
        self.answer(307, headers=[("Location", "http://127.0.0.1:5001/store")])

    def fault_redirect_file(self, repository, reference, data):
        self.answer(307, headers=[("Location", "file:///etc/passwd")])

    def fault_redirect_loop(self, repository, reference, data):
        self.answer(307, headers=[("Location", self.path)])

    def fault_denied(self, repository, reference, data):
        """A token that is good for HEAD, not for GET: it expired in between."""
        self.answer(401, headers=[("WWW-Authenticate", 'Bearer realm="https://auth.test/token",service="stub"')])

    def fault_denied_later(self, repository, reference, data):
        """The second and later ranges of a blob meet an expired token."""
        if self.state.count(reference + self.headers.get("Authorization", "")) > 1:
            self.answer(401, headers=[("WWW-Authenticate", 'Basic realm="x"')])
        else:
            self.ranged(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--store-port", type=int, required=True)
    options = parser.parse_args()
    servers = [ThreadingHTTPServer((options.host, port), Handler) for port in (options.port, options.store_port)]
    for server in servers:
        server.store_port, server.daemon_threads = options.store_port, True
        threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    main()
