#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A registry's object storage for tests: files below a folder, behind signed URLs that are good for GET only.

usage: storage_server.py ADDRESS PORT FOLDER LOG. `?Signature=good...` is accepted until a file FOLDER/../revoked-<signature> exists.
Each request is a line in LOG: method, path without query, range, status, bytes, whether it carried credentials.
"""
import http.server
import re
import socketserver
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    log: Path

    def note(self, status: int, sent: int):
        with open(self.log, "a") as out:
            out.write(f"{self.command} {urlsplit(self.path).path} {self.headers.get('Range', '-')} {status} {sent} "
                      f"{'credentials' if self.headers.get('Authorization') else 'bare'}\n")

    def refuse(self, status: int):
        body = b"<Error><Code>AccessDenied</Code><Message>Request has expired.</Message></Error>"
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.note(status, 0)

    def do_HEAD(self):
        self.refuse(403)

    def do_GET(self):
        parts = urlsplit(self.path)
        signature = parse_qs(parts.query).get("Signature", [""])[0]
        file = self.folder / parts.path.lstrip("/")
        if self.headers.get("Authorization"):
            return self.refuse(400)
        if not signature.startswith("good") or (self.folder.parent / f"revoked-{signature}").exists():
            return self.refuse(403)
        if not file.is_file():
            return self.refuse(404)
        size = file.stat().st_size
        # As OSS: a range that is not inside the object gives all of it.
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        inside = wanted and int(wanted[1]) <= int(wanted[2]) < size
        with open(file, "rb") as source:
            source.seek(int(wanted[1]) if inside else 0)
            body = source.read(int(wanted[2]) - int(wanted[1]) + 1 if inside else size)
        self.send_response(206 if inside else 200)
        if inside:
            self.send_header("Content-Range", f"bytes {wanted[1]}-{wanted[2]}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.note(206 if inside else 200, len(body))
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    Handler.folder, Handler.log = Path(sys.argv[3]), Path(sys.argv[4])
    Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
