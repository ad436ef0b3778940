#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A registry's token service (distribution's "token authentication", CLIENTS 4): GET and POST, RS256 tokens.

Users get what they ask for; nobody in particular gets to read repositories below public/; wrong passwords get 401.
An identity token counts as its user; a POST with one must be just what distribution's OAuth2 specification says.
"""
import argparse
import base64
import json
import ssl
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt

import marks


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, help="address:port")
    parser.add_argument("--key", required=True, type=Path, help="PEM private key")
    parser.add_argument("--cert", required=True, type=Path, help="PEM certificate, as in the registry's rootcertbundle")
    parser.add_argument("--issuer", required=True)
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="answer by HTTPS")
    parser.add_argument("--life", type=int, default=300, help="of tokens, seconds")
    parser.add_argument("--log", type=Path, help="a line for each request: user, status, scope")
    parser.add_argument("--user", required=True, action="append", help="name:password")
    parser.add_argument("--identity", action="append", default=[], help="name:token, for grant_type=refresh_token")
    return parser.parse_args()


def certificate_der(pem: str) -> str:
    """The body of the PEM is the base64 of the DER that x5c wants."""
    return "".join(line for line in pem.splitlines() if not line.startswith("-----"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status: int, value: dict):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def give(self, query: dict, user: str, password: str, by="", allowed=None):
        allowed = (not user or self.server.users.get(user) == password) if allowed is None else allowed
        if self.server.log:
            with self.server.log.open("a") as log:
                log.write(f"{by}{user or '-'} {200 if allowed else 401} {' '.join(query.get('scope', ['-']))}\n")
        if not allowed:
            self.answer(401, {"details": "wrong user or password"})
            return
        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, name, actions = scope.split(":", 2)
            allowed = actions.split(",") if user else ["pull"] if name.startswith("public/") else []
            if allowed:
                access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {"iss": self.server.issuer, "sub": user, "aud": query.get("service", [""])[0], "exp": now + self.server.life, "nbf": now - 10, "iat": now,
                  "jti": f"{marks.secret('token')}{uuid.uuid4().hex}", "access": access}
        token = jwt.encode(claims, self.server.key, algorithm="RS256", headers={"x5c": [self.server.certificate]})
        self.answer(200, {"token": token, "access_token": token, "expires_in": self.server.life, "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))})

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(value).decode().partition(":") if scheme == "Basic" else ("", "", "")
        self.give(query, user, password)

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode())
        if form.get("grant_type") != ["refresh_token"]:
            self.give(form, form.get("username", [""])[0], form.get("password", [""])[0])
            return
        wrong = [name for name in ("client_id", "service", "scope", "refresh_token") if len(form.get(name, [])) != 1]
        if self.headers.get("Content-Type") != "application/x-www-form-urlencoded" or self.headers.get("Authorization") or "?" in self.path or wrong:
            self.give(form, "-", "", by="malformed:", allowed=False)
            return
        user = self.server.identities.get(form["refresh_token"][0])
        self.give(form, user or "", "", by="identity:", allowed=user is not None)


def main():
    options = parse()
    host, _, port = options.listen.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Handler)
    server.key, server.issuer = options.key.read_text(), options.issuer
    server.certificate = certificate_der(options.cert.read_text())
    server.life, server.log = options.life, options.log
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.users = dict(u.split(":", 1) for u in options.user)
    server.identities = {token: name for name, token in (i.split(":", 1) for i in options.identity)}
    server.serve_forever()


if __name__ == "__main__":
    main()
