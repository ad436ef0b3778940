#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Bad configuration, bad surroundings and bad requests: each is refused at once, with one line that says what to do."""
import json
import os
import socket
import ssl
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import it
from lab import ADMIN_PORT, CLIENT_PORT, MESH_PORT, REGISTRY_NAME, SHOAL, Lab, Process, inside, run

NS = f"?ns={REGISTRY_NAME.replace(':', '%3A')}"
SO_RCVBUFFORCE = 33  # asm-generic/socket.h: beyond net.core.rmem_max
ABSENT = "sha256:" + "0" * 64


# ---- the agent does not start ----

@contextmanager
def scratch():
    with tempfile.TemporaryDirectory(prefix="shoal-bad-") as directory:
        yield Path(directory)


def refused(wanted: str, *args, before=(), env=None):
    """The agent must end with 1 and this last line, within two seconds."""
    started = time.monotonic()
    done = run(*before, SHOAL, "agent", *args, check=False, timeout=20, env=env)
    took = time.monotonic() - started
    last = done.stderr.strip().split("\n")[-1]
    it.check(done.returncode == 1, f"exit {done.returncode}, wanted 1 with: {wanted}")
    it.check(last == f"shoal agent: {wanted}", f"said:   {last}\n        wanted: shoal agent: {wanted}")
    it.check(took < 2, f"took {took:.1f} s")


def test_malformed_yaml():
    with scratch() as place:
        path = place / "shoal.yaml"
        for text, line, what in (
            ('cache:\n  mode: "disk\n', 3, "not valid YAML: found unexpected end of stream"),
            ("cache:\n\tmode: disk\n", 2, "not valid YAML: found character that cannot start any token"),
            ("mode: normal\n- x\n", 2, "not valid YAML: did not find expected key"),
            ("- mode\n- cache\n", 1, "the file must be a mapping of keys"),
            ("mode: &x normal\n", 1, "anchors, aliases and tags are not supported"),
            ("mode: normal\n---\nmode: normal\n", 2, "more than one document"),
            ("cache:\n  mode: disk\n  mode: memory\n", 3, "cache.mode: set twice, first on line 2"),
        ):
            path.write_text(text)
            refused(f"{path}:{line}: {what}", "--config", path)
        refused(f"{place}/none.yaml: cannot read: not found", "--config", place / "none.yaml")
        path.write_bytes(b"#" * (2 << 20))
        refused(f"{path}: cannot read: over the limit", "--config", path)


def test_unknown_key():
    with scratch() as place:
        path = place / "shoal.yaml"
        path.write_text("mode: normal\ncache:\n  capcity: 1GiB\n")
        refused(f'{path}:3: unknown key "cache.capcity"; did you mean "cache.capacity"?', "--config", path)
        path.write_text("frobnicate: 1\n")
        refused(f'{path}:1: unknown key "frobnicate"; `shoal config show` lists all keys', "--config", path)
        path.write_text('registries:\n  - name: "a.test"\n    plainhttp: true\n')
        refused(f'{path}:3: unknown key "registries.plainhttp"; known: name, endpoint, ca, clientCertificate, clientKey, credentials, shared, plainHttp, allowPrivate, proxy, connections, rateMbit, default, p2p, copies, tags, realmHosts, storage',
                "--config", path)
        refused('--set: unknown key "lisen.client"; did you mean "listen.client"?', "--set", "lisen.client=127.0.0.1:1")


def test_value_out_of_range():
    for key, value, allowed in (("cache.memory", "1MiB", "16MiB..4TiB"), ("limits.connections", "5", "16..65536"),
                                ("limits.connectTimeout", "0", "1s..300s"), ("transfer.trust", "everyone", "member | quorum | verified"),
                                ("p2p.port", "70000", "1..65535"), ("aio", "maybe", "true | false"), ("listen.client", "localhost:1", "IP address[:port]"),
                                ("cache.capacity", "99999999999999999999", "0 or 64MiB..1024TiB")):
        refused(f'--set: {key}: "{value}" is not allowed; allowed: {allowed}', "--set", f"{key}={value}")
    with scratch() as place:
        path = place / "shoal.yaml"
        path.write_text("log:\n  level: loud\n")
        refused(f'{path}:2: log.level: "loud" is not allowed; allowed: error | warn | info | debug | trace', "--config", path)
        path.write_text('registries:\n  - name: "a.test"\n    endpoint: "http://a.test"\n')
        refused(f'{path}:2: registries.endpoint: "http://a.test" is plain http; allowed only with plainHttp: true for this registry', "--config", path)
    refused('SHOAL_LOG_LEVEL: log.level: "loud" is not allowed; allowed: error | warn | info | debug | trace',
            env={**os.environ, "SHOAL_LOG_LEVEL": "loud"})
    refused("listen.client and listen.admin both use port 65003", "--set", "listen.client=127.0.0.1:65003")


def test_cluster_secret():
    with scratch() as place:
        secret = place / "secret"
        data = ["--set", f"dataDir={place}/data"]
        use = ["--set", f"clusterSecretFile={secret}", *data]
        refused(f"clusterSecretFile: cannot open {secret}: No such file or directory", *use)
        run(SHOAL, "keygen", "--out", secret)
        it.check(secret.stat().st_mode & 0o777 == 0o400, "keygen's file is open to others")
        for mode in (0o644, 0o440 | 0o004, 0o600 | 0o020):
            secret.chmod(mode)
            refused(f"clusterSecretFile: {secret} has mode {mode:04o}: others can read it; run: chmod 0400 {secret}", *use)
        good = secret.read_text()
        for text in ("", "abc\n", good.upper(), good.strip() + "00\n", good[:-2] + "g\n", "0" * 10000):
            secret.unlink()
            secret.write_text(text)
            secret.chmod(0o400)
            refused(f"clusterSecretFile: {secret} does not hold a secret of 64 lower-case hex digits; make one with `shoal keygen`", *use)
        secret.unlink()
        secret.mkdir()
        refused(f"clusterSecretFile: {secret} is not a regular file", *use)
        refused("bootstrap is set but clusterSecretFile is not: make a secret with `shoal keygen` and give every node the same file",
                "--set", "bootstrap=192.0.2.9", *data)


def made(path: Path, mode=0o700, owner=0) -> Path:
    path.mkdir(parents=True)
    path.chmod(mode)
    os.chown(path, owner, owner)
    return path


def test_dsk_5_data_directory():
    with scratch() as place:
        place.chmod(0o755)
        use = lambda path: ("--set", f"dataDir={path}")  # noqa: E731
        made(place / "open", 0o755)
        refused(f"dataDir: {place}/open is open to others; run chmod 0700 on it", *use(place / "open"))
        made(place / "foreign", owner=1)
        refused(f"dataDir: {place}/foreign belongs to another user", *use(place / "foreign"))
        (place / "link").symlink_to(made(place / "real"))
        refused(f"dataDir: {place}/link is a symbolic link", *use(place / "link"))
        (place / "file").write_text("")
        refused(f"dataDir: {place}/file is not a directory", *use(place / "file"))
        refused(f"dataDir: cannot make {place}/mine: Permission denied", *use(place / "mine"),
                before=("setpriv", "--reuid", "65534", "--clear-groups"))
        made(place / "ro")
        mount = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro,mode=700 tmpfs "$0" && exec "$@"')
        refused(f"dataDir: cannot write to {place}/ro: Read-only file system", *use(place / "ro"), before=(*mount, place / "ro"))
        first = Process([SHOAL, "agent", *use(place / "twice"), "--set", "listen.client=127.0.0.1:64991", "--set", "listen.mesh=127.0.0.1:64992",
                         "--set", "listen.admin=127.0.0.1:64993", "--set", "topology.detect=none"], place / "log")
        try:
            end = time.monotonic() + 10
            while "agent: ready" not in first.text() and time.monotonic() < end:
                time.sleep(0.05)
            refused(f"dataDir: {place}/twice is in use by another agent", *use(place / "twice"))
        finally:
            first.kill()


def test_dsk_5_cache_directory():
    with scratch() as place:
        use = lambda name: ("--set", f"dataDir={place}/{name}")  # noqa: E731
        said = lambda name, why: f"cache directory {place}/{name}/cache: the cache directory {why}"  # noqa: E731
        for name in ("link", "file", "open", "foreign", "ro"):
            made(place / name)
        (place / "link/cache").symlink_to("/tmp")
        refused(said("link", "is a symbolic link or a file: name a real directory"), *use("link"))
        (place / "file/cache").write_text("")
        refused(said("file", "is a symbolic link or a file: name a real directory"), *use("file"))
        made(place / "open/cache", 0o750)
        refused(said("open", "is open to others: chmod 0700 it"), *use("open"))
        made(place / "foreign/cache", owner=1)
        refused(said("foreign", "belongs to another user: chown it to the agent's"), *use("foreign"))
        made(place / "ro/cache")
        mount = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro,mode=700 tmpfs "$0" && exec "$@"')
        refused(said("ro", "cannot be written: check mount options, space and what lies at sha256 and sha512 in it"), *use("ro"),
                before=(*mount, place / "ro/cache"))


LISTENER = """import socket, sys, time
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
s = socket.socket(socket.AF_INET, kind)
s.bind(("0.0.0.0", int(sys.argv[2])))
if kind == socket.SOCK_STREAM: s.listen()
print("listening", flush=True)
time.sleep(60)"""


def test_d_12_port_in_use():
    with Lab(1) as lab:
        node = lab.nodes[0]
        lab.start_registry()
        cases = (("tcp", CLIENT_PORT, f"listen.client 127.0.0.1:{CLIENT_PORT}: already in use by another program: stop it, or choose another port"),
                 ("tcp", ADMIN_PORT, f"listen.admin 127.0.0.1:{ADMIN_PORT}: already in use by another program: stop it, or choose another port"),
                 ("tcp", MESH_PORT, f"listen.mesh: cannot listen on {node.address}:{MESH_PORT} (TCP): address already in use"),
                 ("udp", MESH_PORT, f"listen.mesh: cannot listen on {node.address}:{MESH_PORT} (UDP): address already in use"))
        config = node.config()
        for kind, port, wanted in cases:
            other = Process(node.exec(sys.executable, "-c", LISTENER, kind, port), node.dir / f"{kind}-{port}.log")
            try:
                end = time.monotonic() + 10
                while "listening" not in other.text() and time.monotonic() < end:
                    time.sleep(0.02)
                refused(wanted, "--config", config, before=node.exec())
            finally:
                other.kill()
        refused(f"listen.client 192.0.2.77:{CLIENT_PORT}: this host has no such address", "--config", config, "--set", f"listen.client=192.0.2.77:{CLIENT_PORT}",
                before=node.exec())
        node.start()  # and with all ports free it starts


# ---- requests ----

@contextmanager
def one_node():
    with Lab(1) as lab:
        lab.start_registry()
        lab.image = lab.push_image("lib/app", [1 << 20, 24 << 20])
        lab.start_nodes()
        yield lab


def talk(node, data: bytes, port=CLIENT_PORT) -> bytes:
    """Everything the agent answers to these bytes, until it closes or has answered a whole request."""
    with it.connect(node, port) as sock:
        sock.sendall(data)
        answer = b""
        while True:
            part = sock.recv(65536)
            if not part:
                return answer
            answer += part
            head, end, body = answer.partition(b"\r\n\r\n")
            if end and b"connection: close" not in head.lower() and len(body) >= length_of(head):
                return answer


def length_of(head: bytes) -> int:
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(lengths[0]) if lengths else 0


def answered(node, data: bytes, status: int, code: str = "", message: str = "", closes=True, port=CLIENT_PORT):
    started = time.monotonic()
    answer = talk(node, data, port)
    took = time.monotonic() - started
    head, _, body = answer.partition(b"\r\n\r\n")
    what = data[:60] if isinstance(data, bytes) else data
    it.check(head.startswith(f"HTTP/1.1 {status} ".encode()), f"{what}...: {head[:80]}, wanted {status}")
    it.check(took < 1, f"{what}...: the answer took {took:.1f} s")
    it.check((b"connection: close" in head.lower()) == closes, f"{what}...: {head}")
    if code:
        error = json.loads(body)["errors"][0]
        it.check(error["code"] == code, f"{what}...: {error}")
        it.check(not message or error["message"] == message, f"{what}...: {error}")


def get(path: str, *headers: str, method="GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: mirror.test", *headers, "", ""]).encode()


def test_names_digests_and_paths():
    with one_node() as lab:
        node = lab.nodes[0]
        malformed = "malformed name, tag, digest or path"
        for path, status, code, message in (
            (f"/v2/lib/app/blobs/{ABSENT}?ns=evil.example", 404, "NAME_UNKNOWN", "this registry is not configured: add it to registries"),
            ("/v2/?ns=localhost%3A65003", 404, "NAME_UNKNOWN", "this registry is not configured: add it to registries"),
            ("/v2/lib/app/manifests/1?ns=", 200, "", ""),
            ("/v2/lib/app/manifests/1?ns=a&ns=b", 400, "NAME_INVALID", malformed),
            ("/v2/lib/app/manifests/1?ns=..%2F..", 400, "NAME_INVALID", malformed),
            (f"/v2/lib/app/blobs/sha256:xyz{NS}", 400, "DIGEST_INVALID", malformed),
            (f"/v2/lib/app/blobs/sha256:{'A' * 64}{NS}", 400, "DIGEST_INVALID", malformed),
            (f"/v2/lib/app/blobs/md5:{'a' * 32}{NS}", 400, "DIGEST_INVALID", malformed),
            (f"/v2/lib/app/blobs/sha256:{'0' * 65}{NS}", 400, "DIGEST_INVALID", malformed),
            (f"/v2/lib/app/manifests/sha256:00{NS}", 400, "DIGEST_INVALID", malformed),
            (f"/v2/lib/app/manifests/-tag{NS}", 400, "MANIFEST_INVALID", malformed),
            (f"/v2/lib/app/manifests/{'t' * 129}{NS}", 400, "MANIFEST_INVALID", malformed),
            (f"/v2/LIB/app/manifests/1{NS}", 400, "NAME_INVALID", malformed),
            (f"/v2/{'a/' * 200}manifests/1{NS}", 400, "NAME_INVALID", malformed),
            ("/v2/lib/../app/manifests/1", 400, "NAME_INVALID", malformed),
            ("/v2/lib%2fapp/manifests/1", 400, "NAME_INVALID", malformed),
            ("/v2/%2e%2e/manifests/1", 400, "NAME_INVALID", malformed),
            ("/v2/lib//app/manifests/1", 400, "NAME_INVALID", malformed),
            ("/v2/lib/app%00/manifests/1", 400, "NAME_INVALID", malformed),
            ("/etc/passwd", 404, "UNSUPPORTED", "no such path on this mirror"),
            (f"/v2/lib/app/blobs/{ABSENT}{NS}", 404, "BLOB_UNKNOWN", ""),
            (f"/v2/lib/app/manifests/none{NS}", 404, "MANIFEST_UNKNOWN", ""),
        ):
            answered(node, get(path, "Accept: application/vnd.oci.image.manifest.v1+json"), status, code, message, closes=False)
        node.process.stop()
        node.start({"registries": [{**lab.registries[0], "default": False}]})
        answered(node, get("/v2/lib/app/manifests/1"), 404, "NAME_UNKNOWN",
                 "no ?ns= in the request, its Host is no configured registry, and there is no default one: set registries[].default", closes=False)


def test_ranges():
    with one_node() as lab:
        node, layer = lab.nodes[0], lab.image["layers"][0]
        path, size = f"/v2/lib/app/blobs/{layer['digest']}{NS}", layer["size"]
        whole = talk(node, get(path)).partition(b"\r\n\r\n")[2]
        it.check(len(whole) == size, f"{len(whole)} bytes of {size}")
        for spec in ("5-4", f"{size}-", f"{size + 1}-{size + 9}", "-0"):
            answer = talk(node, get(path, f"Range: bytes={spec}"))
            it.check(answer.startswith(b"HTTP/1.1 416 ") and f"Content-Range: bytes */{size}".encode() in answer, f"{spec}: {answer[:200]}")
        for spec in ("bytes=abc", "bytes=", "lines=1-2", "bytes=0-1,3-4", "bytes=1-2x", "bytes=99999999999999999999999-", "-5"):
            head, _, body = talk(node, get(path, f"Range: {spec}")).partition(b"\r\n\r\n")
            status = head.split()[1]
            it.check((status == b"200" and body == whole) or (status == b"416" and not body), f"{spec}: {head}, {len(body)} bytes")
        head, _, body = talk(node, get(path, "Range: bytes=10-99999999999999999999999")).partition(b"\r\n\r\n")
        it.check(head.split()[1] in (b"200", b"206") and body == whole[0 if head.split()[1] == b"200" else 10:], f"end beyond 2^64: {head}")


def test_http_1_and_2_heads_and_bodies():
    with one_node() as lab:
        node, path = lab.nodes[0], f"/v2/lib/app/manifests/1{NS}"
        for data, status in (
            (get(path, f"X-Long: {'x' * 20000}"), 431),
            (get(path, *[f"X-{i}: y" for i in range(70)]), 431),
            (get("/v2/" + "a" * 3000), 414),
            (get(path, "Content-Length: 5") + b"hello", 413),
            (get(path, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n", 413),
            (get(path, "Content-Length: 1000000000000"), 413),
            (get(path, "Content-Length: 5", method="POST") + b"hello", 405),
            (get(path, "Content-Length: 1", method="PUT") + b"x", 405),
            (get(path, "Content-Length: 0", "Transfer-Encoding: chunked"), 400),
            (get(path, "Content-Length: 3", "Content-Length: 3") + b"abc", 400),
            (get(path, "Content-Length: -1"), 400),
            (get(path, "Host: other"), 400),
            (get(path, "Authorization: Basic YTpi", "Authorization: Basic YzpkCg=="), 400),
            (f"GET {path} HTTP/1.1\r\n\r\n".encode(), 400),
            (f"GET {path} HTTP/1.1\nHost: a\n\n".encode(), 400),
            (get(path, "X-A: b\r\n folded"), 400),
            (get(path, "X-A : b"), 400),
            (get(path, "X-A: b\0c"), 400),
            (get("http://127.0.0.1:65003/status"), 400),
            (f"GET {path} HTTP/3.0\r\nHost: a\r\n\r\n".encode(), 505),
            (get(path, method="BREW"), 501),
            (b"\r\n\r\n", 400),
            (os.urandom(64) + b"\xff", 400),
        ):
            answered(node, data, status)
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            answered(node, get(path, method=method), 405, "UNSUPPORTED", "this mirror serves GET and HEAD only", closes=False)
        answered(node, b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 405)
        answered(node, get("/nothing"), 404, port=ADMIN_PORT, closes=False)
        answered(node, get("/status", "Content-Length: 5") + b"hello", 413, port=ADMIN_PORT)
        answered(node, get("/healthz"), 200, closes=False)
        # Many requests in one packet: all answered, in order, without a stack that grows with them.
        run("prlimit", "--pid", node.process.pid, f"--stack={256 << 10}")
        with it.connect(node, CLIENT_PORT) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost:a\r\n\r\n" * 480 + b"GET /healthz HTTP/1.0\r\n\r\n")
            answer = b""
            while part := sock.recv(65536):
                answer += part
        it.check(answer.count(b"HTTP/1.1 200 ") == 481, f"{answer.count(b'HTTP/1.1 200 ')} of 481 pipelined answers")


def test_tls_client_hello_on_the_plain_port():
    with one_node() as lab:
        node = lab.nodes[0]
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for port in (CLIENT_PORT, ADMIN_PORT):
            started = time.monotonic()
            try:
                context.wrap_socket(it.connect(node, port), server_hostname="mirror.test")
                it.check(False, "TLS on the plain port")
            except ssl.SSLError as error:
                it.check("WRONG_VERSION_NUMBER" in str(error) or "HTTP_REQUEST" in str(error) or "RECORD" in str(error), f"{error}")
            hello = ssl.MemoryBIO()
            try:
                context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="mirror.test").do_handshake()
            except ssl.SSLWantReadError:
                pass
            answer = talk(node, hello.read(), port)
            it.check(answer.startswith(b"HTTP/1.1 400 "), f"ClientHello: {answer[:60]}")
            took = time.monotonic() - started
            it.check(took < 0.5, f"two ClientHellos took {took:.2f} s")


# ---- HTTP-4: deadlines and limits ----

def test_http_4_slow_header():
    with one_node() as lab:
        node = lab.nodes[0]
        with it.connect(node, CLIENT_PORT) as sock, it.connect(node, CLIENT_PORT) as idle:
            started = time.monotonic()
            answer = b""
            sock.sendall(b"GET /v2/ HTTP/1.1\r\n")
            sock.settimeout(0.5)
            while time.monotonic() - started < 15:
                try:
                    part = sock.recv(4096)
                    answer += part
                    if not part:
                        break
                except TimeoutError:
                    sock.sendall(b"X")
            took = time.monotonic() - started
            it.check(answer.startswith(b"HTTP/1.1 408 ") and took < 8, f"a dripping header: {answer[:60]} after {took:.1f} s")
            it.check(took > 4, f"a header was given only {took:.1f} s")
            idle.sendall(get("/healthz"))
            it.check(idle.recv(4096).startswith(b"HTTP/1.1 200 "), "an idle connection was closed too early")


def test_http_4_slow_reader():
    with one_node() as lab:
        node, layer = lab.nodes[0], lab.image["layers"][1]
        with it.connect(node, CLIENT_PORT) as sock:
            sock.sendall(get(f"/v2/lib/app/blobs/{layer['digest']}{NS}"))
            started = time.monotonic()
            it.check(sock.recv(100).startswith(b"HTTP/1.1 200 "), "no answer")
            while node.metric("shoal_client_connections") > 0 and time.monotonic() - started < 60:
                time.sleep(1)
            took = time.monotonic() - started
            it.check(20 < took < 45, f"a client that reads nothing was kept for {took:.0f} s")


def test_http_4_slow_but_reading_on():
    """Two requests at once, whose answers are taken at 20 KB/s for longer than a slow client has: it moves, so it is served to the end."""
    with one_node() as lab:
        node, layer = lab.nodes[0], lab.image["layers"][1]
        path = f"/v2/lib/app/blobs/{layer['digest']}{NS}"
        node.run("curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{CLIENT_PORT}{path}")  # from the cache then
        sizes, got = (2_000_000, 6_000_000), 0
        with inside(node.netns), socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.settimeout(20)
            sock.connect(("127.0.0.1", CLIENT_PORT))
            sock.sendall(b"".join(get(path, f"Range: bytes=0-{size - 1}") for size in sizes))
            end = time.monotonic() + 40
            while time.monotonic() < end:
                got += len(sock.recv(10000))
                time.sleep(0.5)
            while got < sum(sizes) and (data := sock.recv(1 << 20)):
                got += len(data)
        it.check(got >= sum(sizes), f"cut after {got} bytes")


def test_http_4_a_large_buffer_hides_the_reader():
    """A client's kernel that took megabytes opens its window again after a sixteenth of them is read, a minute later here: who reads on
    is served to the end, on this host and from another, and so is who reads in gulps; who does not read is dropped."""
    with Lab(1) as lab:
        lab.start_registry()
        lab.image = lab.push_image("lib/app", [1 << 20, 32 << 20])
        node, layer = lab.nodes[0], lab.image["layers"][1]
        lab.start_nodes({"listen.client": f"0.0.0.0:{CLIENT_PORT}"})
        path = f"/v2/lib/app/blobs/{layer['digest']}{NS}"
        node.run("curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{CLIENT_PORT}{path}")  # from the cache then

        def asking(netns: str, host: str, buffer: int) -> socket.socket:
            with inside(netns):
                sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer)
            sock.settimeout(20)
            sock.connect((host, CLIENT_PORT))
            sock.sendall(get(path))
            return sock

        homes = ((node.netns, "127.0.0.1"), (lab.origin_ns, node.address))
        gulper = asking(*homes[0], 65536)  # as curl --limit-rate: much at once, then nothing until the average is right
        readers = [asking(*home, 8 << 20) for home in homes]
        stuck = asking(*homes[0], 8 << 20), asking(*homes[1], 2304)
        got, started, gulped = [0, 0], time.monotonic(), 0
        while gulped < 1 << 20:
            gulped += len(gulper.recv(65536))
        while time.monotonic() - started < 45:
            for i, sock in enumerate(readers):
                got[i] += len(sock.recv(8000))
            time.sleep(0.5)
        for end in (60, 75, 90):
            it.check(node.metric("shoal_client_connections") >= 3, f"readers were dropped: {got}")
            if node.metric("shoal_client_connections") == 3:
                break
            time.sleep(max(0.0, started + end - time.monotonic()))
        it.figure(f"who reads nothing was dropped within {time.monotonic() - started:.0f} s; a reader of 16 KB/s had a window shut for 45 s")
        it.check(node.metric("shoal_client_connections") == 3, "who reads nothing is kept")
        while gulped < layer["size"] and (data := gulper.recv(1 << 20)):
            gulped += len(data)
        it.check(gulped > layer["size"], f"who reads in gulps: cut after {gulped} bytes")
        gulper.close()
        for i, sock in enumerate(readers):
            while got[i] < layer["size"] and (data := sock.recv(1 << 20)):
                got[i] += len(data)
            sock.close()
            it.check(got[i] > layer["size"], f"{homes[i][1]}: cut after {got[i]} bytes")
        for sock in stuck:
            sock.close()


def test_http_4_too_many_connections():
    with one_node() as lab:
        node = lab.nodes[0]
        held = [it.connect(node, CLIENT_PORT) for _ in range(64)]
        try:
            held[0].sendall(get("/healthz"))
            it.check(held[0].recv(4096).startswith(b"HTTP/1.1 200 "), "a connection within the limit")
            for _ in range(3):
                answer = talk(node, get("/healthz"))
                it.check(answer.startswith(b"HTTP/1.1 429 ") and b"Retry-After: 1" in answer, f"over the limit: {answer[:200]}")
                error = json.loads(answer.partition(b"\r\n\r\n")[2])["errors"][0]
                it.check(error["code"] == "TOOMANYREQUESTS" and "limits.connections" in error["message"], f"{error}")
            it.check(node.get("/healthz", admin=True).startswith("200"), "the admin port suffers")
            held.pop().close()
            time.sleep(0.2)
            answered(node, get("/healthz"), 200, closes=False)
        finally:
            for sock in held:
                sock.close()


def test_d_10_out_of_descriptors():
    """RES-3: on no port does accepting spin, each tells of it, and all go on when there are descriptors again."""
    with one_node() as lab:
        node = lab.nodes[0]
        node.process.stop()
        node.start({"limits.connectionsPerAddress": 1000})
        used = len(list(Path(f"/proc/{node.process.pid}/fd").iterdir()))
        run("prlimit", "--pid", node.process.pid, f"--nofile={used + 20}:{used + 20}")
        held = []
        try:
            while len(held) < 60:
                held.append(it.connect(node, CLIENT_PORT))
            with inside(node.netns):
                held += [socket.create_connection((node.address, MESH_PORT), 5) for _ in range(3)]
            held.append(it.connect(node, ADMIN_PORT))
            before = cpu_ticks(node.process.pid)
            time.sleep(2)
            spent = (cpu_ticks(node.process.pid) - before) / os.sysconf("SC_CLK_TCK")
            it.check(spent < 0.2, f"RES-3: {spent:.1f} s of CPU in 2 s without descriptors")
            it.check(node.process.alive(), "the agent ended")
        finally:
            for sock in held:
                sock.close()
        time.sleep(1.5)
        answered(node, get("/healthz"), 200, closes=False)
        page = node.get("/metrics", admin=True)
        for port in ("client", "mesh", "admin"):
            pauses = [float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(f'shoal_accepts_failed_total{{port="{port}"')]
            # A pause ends when a descriptor is given back, which each connection does once, or after a second; spinning makes thousands.
            it.check(len(pauses) == 1 and 1 <= pauses[0] <= len(held) + 6, f"{port}: {pauses} pauses, {len(held)} connections")
        with inside(node.netns), socket.create_connection((node.address, MESH_PORT), 5) as sock:
            sock.settimeout(5)  # a handshake that does not come is ended after 3 s (PEER-7): it was accepted
            it.check(sock.recv(1) == b"", "the mesh port said something")


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    sys.exit(it.main(globals()))
