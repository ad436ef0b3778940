#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The misbehaving registry (stub_registry.py) for marked secrets: behind TLS, too, with logins, tokens, signed URLs, and answers that
repeat what they were asked with.

Repositories below basic/ want the login as it is, below token/ a token for it from /token. The last part names the fault, as there.
"""
import argparse
import base64
import json
import re
import ssl
import threading
from http.server import ThreadingHTTPServer

import stub_registry as stub


class Handler(stub.Handler):
    """Its servers hold `login` (user:password), `token` and `signature`: the secrets in force."""

    def do_GET(self):
        path, given = self.path.partition("?")[0], self.headers.get("Authorization", "")
        login = "Basic " + base64.b64encode(self.server.login.encode()).decode()
        if path == "/token":
            with self.state.lock:
                self.state.log.append({"path": self.path, "method": self.command, "authorization": given, "port": self.server.server_address[1]})
            if given != login:
                return self.answer(401, json.dumps({"details": f"not a login: {given}"}).encode())
            return self.answer(200, json.dumps({"token": self.server.token, "expires_in": 300}).encode())
        if path.startswith("/v2/basic/") and given != login:
            return self.refuse('Basic realm="marked"', given)
        if path.startswith("/v2/token/") and given != f"Bearer {self.server.token}":
            return self.refuse(f'Bearer realm="https://auth.test:{self.server.tls_port}/token",service="marked",scope="repository:x:pull"', given)
        if match := re.fullmatch(r"/objects/sha256/[0-9a-f]{2}/([0-9a-f]{64})/data", path):
            return self.stored("sha256:" + match[1])
        return super().do_GET()

    def refuse(self, challenge: str, given: str):
        with self.state.lock:
            self.state.log.append({"path": self.path, "method": self.command, "authorization": given, "port": self.server.server_address[1]})
        self.answer(401, json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": f"refused: {given}"}]}).encode(), [("WWW-Authenticate", challenge)])

    def stored(self, digest: str):
        """An object behind a signed URL; errors repeat the URL, as storages do."""
        with self.state.lock:
            self.state.log.append({"path": self.path, "method": self.command, "authorization": self.headers.get("Authorization", ""), "port": 0})
        data = next((b for blobs in self.state.blobs.values() for d, b in blobs.items() if d == digest), None)
        if f"Signature={self.server.signature}" not in self.path:
            self.answer(403, f"<Error>{self.path}</Error>".encode())
        elif data is None:
            self.answer(404, f"<Error>{self.path}</Error>".encode())
        else:
            self.ranged(data)

    def to(self, place: str):
        """To a signed URL at this place."""
        self.answer(307, headers=[("Location", f"{place}?Expires=1&Signature={self.server.signature}")])

    def store(self, repository: str, reference: str, user="") -> str:
        return f"http://{user}{self.server.server_address[0]}:{self.server.store_port}/store/{repository}/{reference}"

    def echoed(self, status: int):
        """An error that repeats all it was told, and sets it as a cookie."""
        told = f"{self.path} {self.headers.get('Authorization', '')}"
        self.answer(status, json.dumps({"errors": [{"code": "X", "message": told}]}).encode(), [("Set-Cookie", f"told={told.replace(' ', '_')}")])

    def fault_status_401(self, *_):
        self.echoed(401)

    def fault_status_403(self, *_):
        self.echoed(403)

    def fault_status_404(self, *_):
        self.echoed(404)

    def fault_status_429(self, *_):
        self.echoed(429)

    def fault_status_500(self, *_):
        self.echoed(500)

    def fault_signed(self, repository, reference, data):
        self.to(self.store(repository, reference))

    def fault_signed_absent(self, repository, reference, data):
        self.to(self.store(repository, "sha256:" + "0" * 64))

    def fault_signed_user(self, repository, reference, data):
        self.to(self.store(repository, reference, f"user:{self.server.signature}@"))

    def fault_signed_closed(self, repository, reference, data):
        self.to(f"http://{self.server.server_address[0]}:9/store")

    def fault_signed_metadata(self, repository, reference, data):
        self.to("http://169.254.169.254/latest")

    def fault_signed_file(self, repository, reference, data):
        self.to("file:///etc/passwd")

    def fault_signed_broken(self, repository, reference, data):
        self.to("http://[broken/\x7f")

    def fault_signed_loop(self, repository, reference, data):
        self.to(self.path.partition("?")[0])

    def fault_signed_long(self, repository, reference, data):
        self.answer(307, headers=[("Location", f"{self.store(repository, reference)}?Signature={self.server.signature}{'x' * 20000}")])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    for name in ("port", "store-port", "tls-port"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("cert", "key", "client-ca", "marks"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    with open(options.marks, encoding="utf-8") as file:
        marks = json.load(file)
    for port in (options.port, options.store_port, options.tls_port):
        server = ThreadingHTTPServer((options.host, port), Handler)
        server.store_port, server.tls_port, server.daemon_threads = options.store_port, options.tls_port, True
        server.login, server.token, server.signature = marks["login"], marks["token"], marks["signature"]
        if port == options.tls_port:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=options.client_ca)
            context.load_cert_chain(options.cert, options.key)
            context.verify_mode = ssl.CERT_OPTIONAL
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    main()
