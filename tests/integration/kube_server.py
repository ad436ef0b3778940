#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes API server with one node: GET, and PATCH by JSON patch (RFC 6902: test, remove), by TLS, for one bearer token. The first PATCH is
answered 409, as where somebody else wrote meanwhile. Each request is a line of the log."""
import argparse
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NODE = "/api/v1/nodes/node-7"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    patches = 0

    def answer(self, status: int, body: dict):
        text = json.dumps(body).encode()
        print(self.command, self.path, status, flush=True)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def refused(self) -> bool:
        token = self.headers.get("Authorization")
        if token != f"Bearer {args.token}" or self.path != NODE:
            self.answer(401 if token is None else 403, {"kind": "Status"})
            return True
        return False

    def do_GET(self):
        if not self.refused():
            self.answer(200, args.node)

    def do_PATCH(self):
        operations = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refused():
            return
        Handler.patches += 1
        if self.headers["Content-Type"] != "application/json-patch+json":
            return self.answer(415, {"kind": "Status"})
        if Handler.patches == 1:
            return self.answer(409, {"kind": "Status"})
        taints = args.node["spec"]["taints"]
        for each in operations:
            parts = each["path"].split("/")[1:]
            at = int(parts[2])
            if parts[:2] != ["spec", "taints"] or at >= len(taints) or (each["op"] == "test" and taints[at].get(parts[3]) != each["value"]):
                return self.answer(422, {"kind": "Status"})
            if each["op"] == "remove":
                del taints[at]
        self.answer(200, args.node)

    def log_message(self, *_):
        pass


parser = argparse.ArgumentParser()
parser.add_argument("--listen", default="127.0.0.1:6443")
parser.add_argument("--tls", nargs=2, required=True)
parser.add_argument("--token", required=True)
parser.add_argument("--node", type=json.loads, required=True)
args = parser.parse_args()
host, port = args.listen.rsplit(":", 1)
server = ThreadingHTTPServer((host, int(port)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*args.tls)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("listening", flush=True)
sys.exit(server.serve_forever())
