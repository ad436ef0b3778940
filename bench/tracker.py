#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A BitTorrent tracker of the least kind (BEP 3, BEP 23), for the benchmark's swarms: tells each caller of all others.

It runs as a thread of the benchmark with its socket in a namespace of the lab, and is no program for a real network.
"""
import http.server
import socket
import struct
import threading
import urllib.parse

from lab import inside

INTERVAL_S = 10
PEERS_MAX = 1000


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query, encoding="latin-1")
        port = query.get("port", [""])[0]
        if not port.isdigit() or not 0 < int(port) < 65536:
            self.send_error(400)
            return
        peers = self.server.announce(self.client_address[0], int(port), query.get("event", [""])[0])
        body = b"d8:intervali%de5:peers%d:%se" % (INTERVAL_S, len(peers), peers)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Tracker(http.server.ThreadingHTTPServer):
    """Serves from enter to exit."""

    daemon_threads = True

    def __init__(self, netns: str, address: str, port: int):
        self.peers: dict[tuple[str, int], None] = {}
        self.lock = threading.Lock()
        with inside(netns):
            super().__init__((address, port), Handler)

    def announce(self, address: str, port: int, event: str) -> bytes:
        """Notes the caller; all the others in compact form."""
        with self.lock:
            others = [peer for peer in self.peers if peer != (address, port)]
            if event == "stopped":
                self.peers.pop((address, port), None)
            elif len(self.peers) < PEERS_MAX:
                self.peers[address, port] = None
        return b"".join(socket.inet_aton(host) + struct.pack("!H", number) for host, number in others)

    def known(self) -> int:
        with self.lock:
            return len(self.peers)

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.thread.join(timeout=5)
        self.server_close()
