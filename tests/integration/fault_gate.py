#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A gate before a registry: what passes it goes wrong as the repository's last part says. Everything else is the registry's own.

`GET /log` tells what was asked by whom. Faults of statuses meet every request of their kind that the registry would have answered;
faults of bodies meet GET of blobs.
"""
import argparse
import json
import re
import ssl
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERRORS = {401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS", 500: "UNKNOWN", 503: "UNAVAILABLE"}
# status, on what, how often for one repository; the seconds of Retry-After
STATUSES = {"gone-manifest": (404, "manifests", None), "gone-blob": (404, "blobs", None), "refused-manifest": (401, "manifests", None),
            "refused-blob": (401, "blobs", None), "denied-manifest": (403, "manifests", None), "denied-blob": (403, "blobs", None),
            "busy-manifest": (429, "manifests", 2), "busy-blob": (429, "blobs", 2), "busy-always": (429, "blobs", None),
            "broken-manifest": (500, "manifests", 2), "broken-blob": (500, "blobs", 2), "broken-always": (503, "blobs", None)}
RETRY_AFTER = {"busy-always": "30"}
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lock, counts, log = threading.Lock(), {}, []

    def log_message(self, *_):
        pass

    def count(self, *what) -> int:
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1
            return self.counts[what]

    def registry(self, method: str, path: str, headers: dict):
        client = HTTPConnection(*self.server.registry, timeout=30)
        client.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if name.lower() not in HOP:
                client.putheader(name, value)
        client.endheaders()
        got = client.getresponse()
        found = got.status, got.getheaders(), got.read()
        client.close()
        return found

    def answer(self, status: int, headers, body: bytes, stop: int | None = None):
        """`stop`: only so many bytes of the body are sent."""
        self.send_response(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value  # HEAD tells it without a body
            elif name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:stop])
            self.wfile.flush()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.path == "/log":
            self.answer(200, [], json.dumps(self.log).encode())
            return
        match = re.match(r"/v2/([a-z0-9/-]+)/(manifests|blobs)/([^/?]+)", self.path)
        name, kind, reference = match.groups() if match else ("", "", "")
        headers = {n: self.headers[n] for n in self.headers if n.lower() != "accept"}
        if self.headers.get_all("Accept"):
            headers["Accept"] = ", ".join(self.headers.get_all("Accept"))
        status, more, body = self.registry(self.command, self.path, headers)
        self.log.append({"name": name, "kind": kind, "reference": reference, "method": self.command, "agent": self.headers.get("User-Agent", ""), "status": status})
        fault = name.rpartition("/")[2]
        if status in (200, 206) and self.refuse(fault, name, kind):
            return
        special = getattr(self, "body_" + fault.replace("-", "_"), None)
        if special and kind == "blobs" and self.command == "GET" and status in (200, 206):
            special(reference, status, more, body)
        else:
            self.answer(status, more, body)

    def refuse(self, fault: str, name: str, kind: str) -> bool:
        status, what, times = STATUSES.get(fault, (0, "", 0))
        if kind != what or (times is not None and self.count(name) > times):
            return False
        headers = [("Content-Type", "application/json")]
        if status == 401:
            found = dict(self.registry("GET", "/v2/", {"Host": self.headers["Host"]})[1])
            headers.append(("WWW-Authenticate", found.get("Www-Authenticate", 'Basic realm="gate"')))
        if status == 429:
            headers.append(("Retry-After", RETRY_AFTER.get(fault, "1")))
        code = "BLOB_UNKNOWN" if (status, kind) == (404, "blobs") else ERRORS[status]
        self.answer(status, headers, json.dumps({"errors": [{"code": code, "message": "so says the gate"}]}).encode())
        return True

    # ---- bodies ----

    def body_slow(self, reference, status, headers, body):
        """3 s to the first byte."""
        time.sleep(3)
        self.answer(status, headers, body)

    def body_drip(self, reference, status, headers, body):
        """About 1 MB/s."""
        self.answer(status, headers, body, 0)
        for at in range(0, len(body), 100000):
            self.wfile.write(body[at:at + 100000])
            time.sleep(0.1)

    def body_cut(self, reference, status, headers, body):
        """Every second answer ends early."""
        odd = self.count(reference) % 2
        self.answer(status, headers, body, int(len(body) * 0.4) if odd else None)
        self.close_connection = bool(odd)

    def body_stall(self, reference, status, headers, body):
        """The first answer stops in its middle without an end."""
        first = self.count(reference) == 1
        self.answer(status, headers, body, len(body) // 2 if first else None)
        if first:
            time.sleep(90)
            self.close_connection = True

    def body_mute(self, reference, status, headers, body):
        """The first question gets no answer."""
        if self.count(reference) == 1:
            time.sleep(90)
            self.close_connection = True
            return
        self.answer(status, headers, body)

    def body_wrong(self, reference, status, headers, body):
        """One byte in every answer is not what it should be; of layers, which come last."""
        if len(body) < 10000:
            self.answer(status, headers, body)
            return
        middle = len(body) // 2
        self.answer(status, headers, body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1:])

    def body_wrong_once(self, reference, status, headers, body):
        if self.count(reference) == 1:
            self.body_wrong(reference, status, headers, body)
        else:
            self.answer(status, headers, body)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--behind", type=int, required=True, help="ports to the registry that a port stands for")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="for --hub")
    parser.add_argument("--hub", nargs=2, action="append", default=[], metavar=("ADDRESS", "PORT"), help="the gate of this port by HTTPS, at port 443 of an address")
    parser.add_argument("ports", type=int, nargs="+")
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if options.tls:
        context.load_cert_chain(*options.tls)
    for address, port in [*((options.host, port) for port in options.ports), *options.hub]:
        by_tls = [address, port] in options.hub
        server = ThreadingHTTPServer((address, 443 if by_tls else port), Handler)
        if by_tls:  # hands are shaken in the connection's own thread
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.daemon_threads, server.registry = True, (options.host, int(port) + options.behind)
        threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    main()
