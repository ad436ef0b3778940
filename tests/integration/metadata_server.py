#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A cloud's metadata service and a Kubernetes API server for tests: `--kind` says which; what was asked goes to standard output."""
import argparse
import json
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NODE = "/api/v1/nodes/"
MAC = "02:00:00:00:00:01"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body: str, status=200, **headers):
        print(f"{self.command} {self.path} {status}", flush=True)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_PUT(self):
        name = {"ecs": "X-aliyun-ecs-metadata-token-ttl-seconds", "aws": "X-aws-ec2-metadata-token-ttl-seconds"}.get(options.kind)
        if name is None or self.path != "/latest/api/token":
            self.answer("", 404)
        elif not 1 <= int(self.headers.get(name, "0")) <= 21600:
            self.answer("", 400)
        else:
            self.answer("SECRETTOKEN")

    def do_GET(self):
        labels = dict(zip(("region", "zone", "vswitch"), options.labels))
        getattr(self, options.kind)(labels)

    def plain(self, values: dict, token: str):
        if self.headers.get(token) != "SECRETTOKEN":
            self.answer("", 401)
        else:
            value = values.get(self.path.removeprefix("/latest/meta-data/"))
            self.answer(value or "", 404 if value is None else 200)

    def ecs(self, labels):
        self.plain({f"{k}-id": v for k, v in labels.items()}, "X-aliyun-ecs-metadata-token")

    def aws(self, labels):
        self.plain({"placement/availability-zone": labels["zone"], "placement/region": labels["region"], "mac": MAC,
                    f"network/interfaces/macs/{MAC}/subnet-id": labels["vswitch"]}, "X-aws-ec2-metadata-token")

    def gcp(self, labels):
        good = self.headers.get("Metadata-Flavor") == "Google" and self.path == "/computeMetadata/v1/instance/zone"
        self.answer(f"projects/1/zones/{labels['zone']}" if good else "", 200 if good else 403, Metadata_Flavor="Google")

    def azure(self, labels):
        good = self.headers.get("Metadata") == "true" and self.path.startswith("/metadata/instance/compute?")
        body = json.dumps({"location": labels["region"], "zone": labels["zone"].rpartition("-")[2]})
        self.answer(body if good else "", 200 if good else 400)

    def kubernetes(self, labels):
        if self.headers.get("Authorization") != "Bearer SECRETTOKEN":
            self.answer("", 401)
        elif not self.path.startswith(NODE):
            self.answer("", 404)
        else:
            keys = {"region": "topology.kubernetes.io/region", "zone": "topology.kubernetes.io/zone", "vswitch": "example.com/vswitch"}
            self.answer(json.dumps({"metadata": {"name": self.path[len(NODE):], "labels": {keys[k]: v for k, v in labels.items()}}}))

    def log_message(self, *_):
        pass


parser = argparse.ArgumentParser()
parser.add_argument("--kind", choices=("ecs", "aws", "gcp", "azure", "kubernetes"), required=True)
parser.add_argument("--listen", default="127.0.0.1:8000")
parser.add_argument("--labels", nargs=3, metavar=("REGION", "ZONE", "VSWITCH"), required=True)
parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
options = parser.parse_args()
host, _, port = options.listen.rpartition(":")
server = ThreadingHTTPServer((host, int(port)), Handler)
if options.tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*options.tls)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("listening", flush=True)
server.serve_forever()
