#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An HTTP proxy that knows CONNECT only and leads every name to its own address; each request's head is written to its output."""
import socket
import sys
import threading


def pump(source: socket.socket, target: socket.socket):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client: socket.socket):
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 65536:
        data = client.recv(4096)
        if not data:
            return
        head += data
    print(repr(head.decode()), flush=True)
    method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
    port = target.rpartition(":")[2]
    try:
        if method != "CONNECT":
            raise OSError("CONNECT only")
        upstream = socket.create_connection((sys.argv[1], int(port)), timeout=10)
    except OSError:
        client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        client.close()
        return
    upstream.settimeout(None)
    client.sendall(b"HTTP/1.1 200 Connection established\r\nX-Proxy: 1\r\n\r\n")
    threading.Thread(target=pump, args=(upstream, client), daemon=True).start()
    pump(client, upstream)


def main():
    listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main()
