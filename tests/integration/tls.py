#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The TLS client port: pulls by P2P host names, certificates that change under load, clients that are silent, slow or speak no TLS."""
import hashlib
import json
import re
import socket
import ssl
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import it
import marks
from bad_input import refused, scratch
from lab import CLIENT_PORT, Lab, Process, run

PORT = 443
OWN, P2P = "demo.cr.test", "demo.distributed.cr.test"  # ACR.md: the second is the first's name on the nodes
MIB = 1 << 20


class Authority:
    """A CA of the test's own and what it signs."""

    def __init__(self, place: Path):
        self.dir = place
        self.cert, self.key = place / "ca.crt", place / "ca.key"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=test ca",
            "-keyout", self.key, "-out", self.cert)

    def sign(self, name: str, *hosts: str, rsa=False) -> tuple[Path, Path]:
        cert, key, request, extra = (self.dir / f"{name}.{end}" for end in ("crt", "key", "csr", "ext"))
        kind = ("rsa:2048",) if rsa else ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        extra.write_text("subjectAltName=" + ",".join(f"{'IP' if h.replace('.', '').isdigit() else 'DNS'}:{h}" for h in hosts) + "\n")
        run("openssl", "req", "-newkey", *kind, "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        run("openssl", "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", "2", "-extfile", extra, "-out", cert)
        key.chmod(0o400)
        marks.know(f"key of {name}", marks.pem_secret(key))
        return cert, key


@contextmanager
def tls_node(layers=(MIB, 24 * MIB)):
    """A node whose TLS port has two pairs: the first for the own name, the second (RSA) for the P2P one."""
    with Lab(1) as lab:
        lab.start_registry()
        lab.image = lab.push_image("lib/app", list(layers))
        lab.registries = [{**lab.registries[0], "default": False}, {**lab.registries[0], "name": OWN, "default": False}]
        node = lab.nodes[0]
        hosts = Path(f"/etc/netns/{node.netns}/hosts")
        hosts.write_text(hosts.read_text() + f"127.0.0.1 {OWN} {P2P} other.distributed.cr.test\n")
        node.ca = Authority(lab.dir)
        node.pairs = [node.ca.sign("own", OWN), node.ca.sign("p2p", "*.distributed.cr.test", "other.distributed.cr.test", rsa=True)]
        lab.settings = {"listen.tls": f"127.0.0.1:{PORT}", "listen.tlsCertificate": [str(c) for c, _ in node.pairs],
                        "listen.tlsKey": [str(k) for _, k in node.pairs]}
        node.start()
        yield lab, node


def fetch(node, path: str, *more, host=OWN, check=True):
    """(status, body's sha256, error's number) of a curl that trusts the test's CA alone."""
    out = node.dir / f"body-{threading.get_ident()}"
    done = node.run("curl", "-s", "-m", "60", "--cacert", node.ca.cert, "-o", out, "-w", "%{http_code}", *more, f"https://{host}{path}", check=False)
    it.check(not check or done.returncode == 0, f"curl {path} at {host}: exit {done.returncode}")
    return int(done.stdout or 0), hashlib.sha256(out.read_bytes()).hexdigest() if out.exists() else "", done.returncode


def pulled(node, layer: dict, host=OWN, *more):
    status, digest, _ = fetch(node, f"/v2/lib/app/blobs/{layer['digest']}", *more, host=host)
    it.check(status == 200 and f"sha256:{digest}" == layer["digest"], f"{host}: {status} {digest}")


def dial(node, server_name: str | None = OWN) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=node.ca.cert)
    context.check_hostname = server_name is not None
    return context.wrap_socket(it.connect(node, PORT), server_hostname=server_name)


def serial(node, server_name: str | None = OWN) -> str:
    with dial(node, server_name) as sock:
        return sock.getpeercert()["serialNumber"]


def serial_of(cert: Path) -> str:
    return run("openssl", "x509", "-in", cert, "-noout", "-serial").stdout.strip().partition("=")[2]


def closes_after(sock: socket.socket, seconds=20.0) -> float:
    """Seconds until the other side ends the connection."""
    started = time.monotonic()
    sock.settimeout(seconds)
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - started


# ---- pulls ----

def test_http_7_pulls():
    with tls_node() as (lab, node):
        layers = lab.image["layers"]
        for host in (OWN, P2P):
            for layer in layers:
                pulled(node, layer, host)
            status, digest, _ = fetch(node, "/v2/lib/app/manifests/1", "-H", f"Accept: {lab.image['mediaType']}", host=host)
            it.check(status == 200 and f"sha256:{digest}" == lab.image["digest"], f"manifest by {host}: {status}")
            target = node.dir / f"copy-{host}"
            certs = node.dir / "certs"
            certs.mkdir(exist_ok=True)
            (certs / "ca.crt").write_text(node.ca.cert.read_text())
            node.run("skopeo", "--insecure-policy", "copy", "-q", "--src-cert-dir", certs, f"docker://{host}/lib/app:1", f"dir:{target}")
            for layer in layers:
                got = hashlib.sha256((target / layer["digest"].partition(":")[2]).read_bytes()).hexdigest()
                it.check(f"sha256:{got}" == layer["digest"], f"skopeo's layer by {host}")
        whole = node.dir / "range"
        node.run("curl", "-s", "--cacert", node.ca.cert, "-o", whole, "-r", "1000-1999999", f"https://{P2P}/v2/lib/app/blobs/{layers[1]['digest']}")
        it.check(whole.stat().st_size == 1999000, f"range of {whole.stat().st_size} bytes")
        node.process.stop()
        node.start()  # what comes now is from disk: the path that a plain socket does with sendfile
        origin = node.metric("shoal_origin_bytes_total")
        pulled(node, layers[1], P2P)
        pulled(node, layers[1], P2P, "--tls-max", "1.2")
        it.check(node.metric("shoal_origin_bytes_total") == origin, "read from the registry again")


def test_names_and_versions():
    with tls_node() as (_, node):
        first, second = (serial_of(cert) for cert, _ in node.pairs)
        it.check(serial(node) == first and serial(node, P2P) == second and serial(node, None) == first, "SNI chose another certificate")
        status, _, _ = fetch(node, "/v2/lib/app/manifests/1", host="other.distributed.cr.test")
        it.check(status == 404, f"a P2P name of no configured registry: {status}")
        answer = node.run("curl", "-s", "--cacert", node.ca.cert, f"https://{OWN}/v2/lib/app/manifests/1", "-H", "Host: evil.distributed.cr.test").stdout
        it.check(json.loads(answer)["errors"][0]["code"] == "NAME_UNKNOWN", answer)
        it.check(fetch(node, "/healthz", "--tls-max", "1.1", check=False)[2] == 35, "TLS 1.1 was spoken")
        it.check(fetch(node, "/healthz", "--tls-max", "1.2", "--ciphers", "AES128-SHA", check=False)[2] == 35, "a cipher without forward secrecy was spoken")
        version = node.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_version}", "--http2", "--cacert", node.ca.cert, f"https://{OWN}/healthz").stdout
        it.check(version == "1.1", f"HTTP {version}")
        it.check(fetch(node, "/healthz", host=f"127.0.0.1:{PORT}", check=False)[2] == 60, "curl liked a certificate for another name")


# ---- files ----

def test_hrd_4_files():
    with scratch() as place:
        ca = Authority(place)
        cert, key = ca.sign("one", "one.test")
        other, _ = ca.sign("two", "two.test")
        use = lambda c, k: ("--set", "listen.tls=127.0.0.1:64994", "--set", f"listen.tlsCertificate={c}", "--set", f"listen.tlsKey={k}",  # noqa: E731
                            "--set", f"dataDir={place}/data")
        for mode in (0o644, 0o640, 0o404):
            key.chmod(mode)
            refused(f"listen.tlsKey: {key} has mode {mode:04o}: others can read it; run: chmod 0400 {key}", *use(cert, key))
        key.chmod(0o400)
        refused(f"listen.tlsKey: {key} is not the key of {other}", *use(other, key))
        refused(f"listen.tlsCertificate: cannot read {place}/none: not found", *use(place / "none", key))
        refused("listen.tls needs listen.tlsCertificate and listen.tlsKey as well", "--set", "listen.tls=127.0.0.1:64994")
        refused("listen.tlsCertificate is set but listen.tls, the port, is not", "--set", f"listen.tlsCertificate={cert}")
        refused("listen.tlsCertificate has 2 files, listen.tlsKey 1: give each certificate its key, in the same order", *use(f"{cert},{other}", key))
        key.chmod(0o444)  # the same judge for a whole configuration
        done = run("build/shoal", "config", "check", *use(cert, key), check=False)
        it.check(done.returncode == 1 and "others can read it" in done.stderr, done.stderr)


def test_privileged_port():
    """Who may not bind 443 is told what to do."""
    with scratch() as place:
        place.chmod(0o755)
        cert, key = Authority(place).sign("one", "one.test")
        for path in (cert, key, place):
            run("chown", "65534", path)
        data = ("--set", f"dataDir={place}/data", "--set", "listen.client=127.0.0.1:64991", "--set", "listen.mesh=127.0.0.1:64992",
                "--set", "listen.admin=127.0.0.1:64993")
        unprivileged = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec setpriv --reuid 65534 --clear-groups "$@"', "sh")
        refused("listen.tls 127.0.0.1:443: permission denied: a port below 1024 needs CAP_NET_BIND_SERVICE or sysctl net.ipv4.ip_unprivileged_port_start",
                "--set", "listen.tls=127.0.0.1", "--set", f"listen.tlsCertificate={cert}", "--set", f"listen.tlsKey={key}", *data, before=unprivileged)


def replace(node, index: int, cert: Path, key: Path):
    """As a Secret's update does: a file that is complete takes the place of the old one."""
    for new, old in ((cert, node.pairs[index][0]), (key, node.pairs[index][1])):
        new.rename(old)


def test_reload_under_load():
    with tls_node(layers=(MIB, 8 * MIB)) as (lab, node):
        small, big = sorted(lab.image["layers"], key=lambda d: d["size"])
        pulled(node, big)
        end, pulls, wrong = threading.Event(), [], []

        def load():
            while not end.is_set():
                try:
                    pulled(node, small)
                    pulls.append(1)
                except AssertionError as error:
                    wrong.append(str(error))
                time.sleep(0.05)

        slow = Process(node.exec("curl", "-s", "--limit-rate", "400K", "--cacert", node.ca.cert, "-o", node.dir / "slow",
                                 f"https://{OWN}/v2/lib/app/blobs/{big['digest']}"), node.dir / "slow.log")
        with dial(node) as kept:  # opened before the reload, used after it
            threads = [threading.Thread(target=load) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                before = serial(node)
                for number in range(2):
                    replace(node, 0, *node.ca.sign(f"new{number}", OWN))
                    wanted, limit = serial_of(node.pairs[0][0]), time.monotonic() + 12
                    while serial(node) != wanted and time.monotonic() < limit:
                        time.sleep(0.2)
                    it.check(serial(node) == wanted != before, "the new certificate is not in use")
                node.pairs[0][0].write_text("broken")
                time.sleep(6)
                it.check(serial(node) == wanted, "a broken file replaced a good certificate")
                it.check(node.process.text().count("tls: the old certificates stay in use") == 1, "the agent did not say so once")
            finally:
                end.set()
                for thread in threads:
                    thread.join()
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            it.check(kept.recv(100).startswith(b"HTTP/1.1 200"), "a connection did not outlive the reload")
        it.check(not wrong and len(pulls) > 20, f"{len(pulls)} pulls, wrong: {wrong[:3]}")
        it.check(slow.popen.wait(timeout=60) == 0, "the slow pull was cut")
        got = hashlib.sha256((node.dir / "slow").read_bytes()).hexdigest()
        it.check(f"sha256:{got}" == big["digest"], "the slow pull's bytes are wrong")
        it.check(node.metric("shoal_tls_reloads_total") == 3, "reloads are not counted")
        it.figure(f"{len(pulls)} pulls over 2 reloads and a broken file, none failed")


# ---- clients that are no friends ----

HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(64)  # of a hello of 200 bytes


def test_http_4_handshakes():
    with tls_node() as (_, node):
        with it.connect(node, PORT) as plain:
            plain.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = plain.recv(4096)
            it.check(answer.startswith(b"HTTP/1.1 400 ") and b"this port speaks TLS: use https" in answer, f"plain HTTP was answered with {answer}")
        with it.connect(node, PORT) as garbage:
            garbage.sendall(b"\x00" * 400)
            it.check(closes_after(garbage) < 3, "bytes that are no handshake kept their connection")
        silent, cut = it.connect(node, PORT), it.connect(node, PORT)
        cut.sendall(HELLO)
        took = [closes_after(silent), closes_after(cut)]
        it.check(4 < took[0] < 7.5 and took[1] < 7.5, f"silent clients were dropped after {took}")
        drip, started = it.connect(node, PORT), time.monotonic()
        try:
            for byte in HELLO:
                drip.sendall(bytes([byte]))
                time.sleep(0.2)
            it.check(False, "a dripping handshake was waited for")
        except (BrokenPipeError, ConnectionResetError):
            it.check(4 < time.monotonic() - started < 8, f"dropped after {time.monotonic() - started:.1f} s")
        quitter = it.connect(node, PORT)
        quitter.sendall(HELLO)
        quitter.close()
        page = node.get("/metrics", admin=True)
        count = lambda what: int(re.search(rf'shoal_tls_handshakes_total{{outcome="{what}"}} (\d+)', page)[1])  # noqa: E731
        it.check(count("plain_http") == 1 and count("timeout") == 3 and count("failed") >= 1, page)
        with dial(node) as idle:  # after the handshake the plain port's deadlines hold
            idle.sendall(b"GET /healthz HT")
            it.check(4 < closes_after(idle) < 8.5, "half a head was waited for")


def test_http_4_hoarding():
    """Silent connections of one address take at most half of its room, and give way after a second."""
    with tls_node() as (_, node):
        hoard = [it.connect(node, PORT) for _ in range(60)]
        it.check(node.metric("shoal_tls_connections") <= 33, f"{node.metric('shoal_tls_connections')} connections")
        time.sleep(1.1)
        started = time.monotonic()
        it.check(fetch(node, "/healthz")[0] == 200, "an honest client found no room")
        it.check(time.monotonic() - started < 1, "an honest client waited")
        for sock in hoard:
            sock.close()
        kept = []
        for _ in range(64):  # limits.connectionsPerAddress
            kept.append(dial(node))
        it.check(fetch(node, "/healthz", check=False)[2] in (35, 56), "one connection too many was served")
        kept.pop().close()
        time.sleep(0.3)
        it.check(fetch(node, "/healthz")[0] == 200, "no room after one went")
        for sock in kept:
            sock.close()


def test_http_4_slow_reader():
    """A client that takes less than 4 KiB in 30 s is dropped, inside TLS as well; one that is merely slow is not, on either port."""
    with tls_node() as (lab, node):
        layer = max(lab.image["layers"], key=lambda d: d["size"])
        pulled(node, layer)
        asked = f"GET /v2/lib/app/blobs/{layer['digest']} HTTP/1.1\r\nHost: {OWN}\r\n\r\n".encode()
        with dial(node) as stuck, dial(node) as slow, it.connect(node, CLIENT_PORT) as plain:
            for sock in (stuck, slow, plain):
                sock.sendall(asked)
            end, taken = time.monotonic() + 45, 0
            while time.monotonic() < end:
                parts = [len(slow.recv(16384)), len(plain.recv(16384))]
                it.check(min(parts) > 0, f"slow readers were cut after {taken} bytes: {parts}")
                taken += sum(parts)
                time.sleep(0.5)
            it.check(node.metric("shoal_client_connections") == 1, "the slow reader of the plain port was dropped")
            it.check(node.metric("shoal_tls_connections") == 1, f"{node.metric('shoal_tls_connections')} connections: a stuck reader was kept")
            got = 0
            try:
                while part := stuck.recv(1 << 20):
                    got += len(part)
            except (ssl.SSLError, OSError):
                pass
            it.check(0 < got < layer["size"], f"the stuck reader got {got} of {layer['size']} bytes")


def test_throughput():
    with tls_node(layers=(256 * MIB,)) as (lab, node):
        layer = lab.image["layers"][0]
        pulled(node, layer)
        for scheme, host in (("https", OWN), ("http", f"{OWN}:65001")):
            cpu = lambda: sum(int(x) for x in Path(f"/proc/{node.process.pid}/stat").read_text().split()[13:15]) / 100  # noqa: E731
            before = cpu()
            done = node.run("curl", "-s", "--cacert", node.ca.cert, "-o", "/dev/null", "-w", "%{speed_download} %{http_code}",
                            f"{scheme}://{host}/v2/lib/app/blobs/{layer['digest']}")
            speed, code = done.stdout.split()
            it.check(code == "200", f"{scheme}: {code}")
            it.figure(f"{scheme}: {float(speed) / 1e9:.2f} GB/s to one curl, {(cpu() - before) / (layer['size'] / 1e9):.2f} CPU s/GB of the agent")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
