#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the commands for operators say of a mesh that runs: status, explain, doctor. Asked as an operator would, over the control socket."""
import json
import re
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import it
from lab import CLIENT_PORT, REGISTRY_NAME, Lab, Process, run
from tls import Authority

NS = f"?ns={REGISTRY_NAME.replace(':', '%3A')}"


def shoal(node, *words, code=0) -> str:
    """What a command prints inside a node, with the agent's own configuration."""
    done = node.run("build/shoal", words[0], "--config", node.dir / "shoal.yaml", *words[1:], check=False)
    it.check(done.returncode == code, f"shoal {' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def pull(node, image):
    """The manifest by its tag, then every layer, checked."""
    node.run("curl", "-sf", "-o", "/dev/null", "-H", f"Accept: {image['mediaType']}", f"http://127.0.0.1:{CLIENT_PORT}/v2/lib/app/manifests/1{NS}")
    for layer in image["layers"]:
        path = f"/v2/lib/app/blobs/{layer['digest']}{NS}"
        done = node.run("sh", "-c", f"curl -s 'http://127.0.0.1:{CLIENT_PORT}{path}' | sha256sum")
        it.check(done.stdout.split()[0] == layer["digest"][7:], f"{node.name} pulled other bytes")


@contextmanager
def mesh(layers, nodes=3, zones=2):
    with Lab(nodes, zones=zones) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", layers)
        lab.start_nodes()
        lab.wait_members()
        yield lab, image


# What DESIGN's "Metrics" names, as an expression that a mesh in which a pull was done must show.
GROUPS = {
    "bytes by source": r'shoal_client_bytes_total{source="peer"} [1-9]', "bytes by distance": r'shoal_peer_bytes_total{distance="(zone|region)"} [1-9]',
    "pulls by outcome": r'shoal_blob_pulls_total{outcome="done"} 2$', "time to first byte": r"shoal_first_byte_seconds_count 2$", "pull duration": r"shoal_blob_pull_seconds_count 2$",
    "pull duration's sum": r"shoal_blob_pull_seconds_sum 0*\.?0*[1-9]", "origin bytes saved": r"shoal_origin_saved_bytes_total [1-9]", "leases": r'shoal_leases_total{answer="granted"} \d',
    "fallbacks by reason": r'shoal_fallbacks_total{reason="no_first_byte"} 0$', "members by state": r'shoal_members{state="alive"} 3$', "members by zone": r'shoal_zone_members{zone="zone-a",state="alive"} 2$',
    "members of the other zone": r'shoal_zone_members{zone="zone-b",state="alive"} 1$', "sessions": r"shoal_sessions [1-9]", "cache bytes": r"shoal_cache_bytes [1-9]",
    "cache hits": r"shoal_cache_hits_total \d", "cache evictions": r"shoal_cache_evictions_total 0$", "lookups": r"shoal_lookups_total \d", "hops": r"shoal_lookup_hops_total \d",
    "rejected by reason": r'shoal_rejected_total{reason="handshake_auth"} 0$',
}


def test_metrics_of_a_pull():
    """/metrics of a node that has pulled: promtool has nothing against it; each group is there, with what the pull did; nothing saved is counted that was read."""
    with mesh([6 << 20, 3 << 20]) as (lab, image):
        first, second, _ = lab.nodes
        pull(first, image)
        saved = first.metric("shoal_origin_saved_bytes_total")
        read = sum(line["size"] for line in image["layers"])
        it.check(first.metric("shoal_client_bytes_total") == read, "not all bytes were counted")
        pull(second, image)
        page = second.get("/metrics", admin=True).split(" ", 1)[1]
        done = second.run("promtool", "check", "metrics", input=page, check=False)
        it.check(done.returncode == 0 and not done.stdout.strip() and not done.stderr.strip(), f"promtool: {done.stdout}{done.stderr}")
        missing = [group for group, wanted in GROUPS.items() if not re.search(f"^{wanted}", page, re.M)]
        it.check(not missing, f"not as they should be: {missing}\n{page}")
        origin = sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith('shoal_piece_bytes_total{source="origin"}'))
        it.check(read - origin <= second.metric("shoal_origin_saved_bytes_total") <= read and saved < read / 2, f"first {saved:.0f}, second with {origin:.0f} of {read} from the registry")
        pull(second, image)  # from the cache: all of it is spared
        again = second.get("/metrics", admin=True)
        it.check(second.metric("shoal_origin_saved_bytes_total") >= 2 * read - origin and 'outcome="done"} 4' in again, again)


def test_status_and_explain_of_a_pull():
    with mesh([6 << 20, 3 << 20]) as (lab, image):
        first, second, other = lab.nodes
        pull(first, image)
        pull(second, image)
        status = json.loads(shoal(other, "status", "--json"))
        it.check(len(status["members"]) == 3 and status["swarms"] == [], f"{status}")
        text = shoal(second, "status")
        it.check("zone-a                 2 alive of 2" in text or "zone-a                 1 alive of 1" in text, text)
        it.check("from peers" in text and "swarms    none" in text, text)
        took = json.loads(shoal(second, "status", "--json"))["bytes"]

        answer = json.loads(shoal(second, "explain", f"{REGISTRY_NAME}/lib/app:1", "--json"))
        it.check(answer["digest"] == image["digest"], "the tag means another manifest")
        pulled = {b["digest"]: b for b in answer["blobs"]}
        it.check(set(pulled) == {layer["digest"] for layer in image["layers"]}, f"{set(pulled)}")
        it.check(answer["not_pulled"] == 1, "the configuration was not asked for")
        peers = origin = 0
        for layer in image["layers"]:
            blob = pulled[layer["digest"]]
            one = blob["pulls"][0]
            it.check(blob["here"] == {"bytes": layer["size"], "verified": True}, f"{blob['here']}")
            it.check(one["registry"] == REGISTRY_NAME and one["repository"] == "lib/app", f"{one}")
            it.check(sum(one["given_bytes"].values()) == layer["size"], f"{one['given_bytes']}")
            sent = {p["addr"]: p["bytes"] for p in one["peers"]}
            it.check(sum(sent.values()) + one["other_peer_bytes"] + one["registry_bytes"] >= layer["size"], f"{one}")
            it.check(f"{first.address}:{first.mesh_port}" in sent, f"the one that had it is not named: {sent}")
            peers, origin = peers + sum(sent.values()), origin + one["registry_bytes"]
        it.check((peers, origin) == (took["peer"], took["origin"]), f"explained {peers}, {origin}, counted {took}")
        text = shoal(second, "explain", image["layers"][0]["digest"])
        it.check(f"{first.address}:{first.mesh_port}" in text and "digest verified" in text, text)
        it.check("pull" in shoal(second, "explain"), "the last pulls are not listed")
        for what in ("other.test/lib/app:1", "sha256:" + "0" * 64):
            it.check("nothing is known of it" in shoal(second, "explain", what, code=1), what)
        it.check("neither a digest" in shoal(second, "explain", "no name", code=2), "an odd name was taken")
        # HTTP-7: names of repositories are for the socket's owner alone
        it.check(second.get("/explain", admin=True).startswith("404"), "the admin port explains")
        it.check("lib/app" not in second.get("/status", admin=True), "the admin port names a repository")
        mode = second.run("stat", "-c", "%a", second.dir / "data" / "control.sock").stdout.strip()
        it.check(mode == "600", f"mode {mode}")
        denied = second.run("setpriv", "--reuid", "65534", "--clear-groups", "build/shoal", "status", "--set", f"dataDir={second.dir / 'data'}", check=False)
        it.check(denied.returncode == 1 and "only root" in denied.stderr, denied.stdout + denied.stderr)


def test_watch_prints_lines_without_a_terminal():
    with mesh([1 << 20], nodes=1, zones=1) as (lab, _):
        node = lab.nodes[0]
        done = node.run("timeout", "-s", "INT", "2.5", "build/shoal", "status", "--watch", "--config", node.dir / "shoal.yaml", check=False)
        lines = done.stdout.splitlines()
        it.check(2 <= len(lines) <= 4 and all(line.startswith("members 1 ") for line in lines), done.stdout)
        many = []
        for _ in range(17):
            many.append(socket.socket(socket.AF_UNIX))
            many[-1].connect(str(node.dir / "data" / "control.sock"))
        many[-1].settimeout(5)
        it.check(many[-1].recv(4096).startswith(b"HTTP/1.1 429"), "more connections than there may be")
        for one in many:
            one.close()
        long = node.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", node.dir / "data" / "control.sock",
                        "http://shoal/explain/" + "a" * 4000, check=False).stdout
        it.check(long == "414", f"a target of 4 KB: {long}")
        node.process.kill()
        it.check("is gone" in shoal(node, "status", code=1), "a dead agent answers")
        node.start()
        it.check("1 alive of 1" in shoal(node, "status"), "no socket after kill -9")
        node.process.stop()
        it.check("no agent runs" in shoal(node, "status", code=1), "the socket stays behind")


def test_explain_why_with_the_mesh_port_blocked():
    with mesh([4 << 20], zones=1) as (lab, image):
        first, _, cut = lab.nodes
        pull(first, image)
        port = cut.mesh_port
        block(cut, [f"tcp sport {port}", f"tcp dport {port}", f"udp sport {port}", f"udp dport {port}"])
        began = time.monotonic()
        pull(cut, image)
        blob = json.loads(shoal(cut, "explain", image["layers"][0]["digest"], "--json"))["blobs"][0]
        one = blob["pulls"][0]
        reasons = {r["reason"] for r in one["registry_reads"]}
        it.check(one["peers"] == [] and one["registry_bytes"] >= image["layers"][0]["size"], f"{one}")
        it.check(reasons & {"no-keeper", "no-progress", "alone"}, f"{one}")
        text = shoal(cut, "explain", image["layers"][0]["digest"])
        it.check("shoal doctor" in text, text)
        it.figure(f"with the mesh port blocked: {time.monotonic() - began:.1f} s, {sorted(reasons)}")


def doctor(node, code: int, *words) -> dict:
    """Findings by check that are no good, after a look at what people see."""
    report = json.loads(shoal(node, "doctor", "--json", "--root", str(node.lab.dir), *words, code=code))
    for finding in report["findings"]:
        it.check(finding["what"] and (finding["level"] == "ok" or finding["do"]), f"it does not say what to do: {finding}")
    bad = {}
    for finding in report["findings"]:
        if finding["level"] == "error":
            bad.setdefault(finding["check"], []).append(finding)
    it.check(report["errors"] == sum(map(len, bad.values())), f"{report}")
    return bad


def until(true, seconds: float, message: str):
    end = time.monotonic() + seconds
    while not true():
        it.check(time.monotonic() < end, message)
        time.sleep(0.5)


def page_outsider(node) -> str:
    return json.loads(node.get("/page.json", admin=True).split(" ", 1)[1])["outsider"]


def block(node, ports):
    rules = ["add table inet cut", "add chain inet cut in { type filter hook input priority 0; }"]
    rules += [f"add rule inet cut in {rule} drop" for rule in ports]
    node.run("nft", "-f", "-", input="\n".join(rules) + "\n")


def test_doctor_finds_nothing_wrong():
    with mesh([1 << 20]) as (lab, _):
        for node in lab.nodes:
            it.check(doctor(node, 0) == {}, "healthy, but something is wrong")
        text = shoal(lab.nodes[0], "doctor")
        it.check("has our secret, member: alive" in text and "clock" in text and "ERROR" not in text, text)
        it.check(lab.nodes[1].metric("shoal_members") == 3, "asking peers cost a member")


def test_doctor_finds_blocked_ports():
    with mesh([1 << 20], zones=1) as (lab, _):
        first, second, third = lab.nodes
        port = first.mesh_port
        block(third, [f"tcp sport {port}", f"tcp dport {port}", f"udp sport {port}", f"udp dport {port}"])
        bad = doctor(third, 1)
        it.check(set(bad) == {"peers"} and len(bad["peers"]) == 2, f"{bad}")
        it.check(all("blocked" in f["what"] and "TCP and UDP" in f["do"] for f in bad["peers"]), f"{bad}")
        third.run("nft", "flush", "ruleset")
        block(second, [f"udp dport {port}"])
        second.process.stop()
        second.start()  # only UDP is blocked: it finds nobody
        bad = doctor(second, 1)
        it.check(set(bad) == {"peers"} and all("UDP is blocked" in f["what"] for f in bad["peers"]), f"{bad}")


def test_doctor_finds_a_firewall_of_its_own():
    """One that lets pass what belongs to the node's own connections, and drops what others begin: the mesh looks well from there."""
    with mesh([1 << 20], zones=1) as (lab, _):
        third = lab.nodes[2]
        text = shoal(third, "doctor")
        it.check("other nodes can connect to it (tcp): 2 of 2 asked did" in text, text)
        third.run("nft", "-f", "-", input=f"""add table inet own
add chain inet own in {{ type filter hook input priority 0; }}
add rule inet own in ct state established,related accept
add rule inet own in tcp dport {third.mesh_port} drop
add rule inet own in udp dport {third.mesh_port} drop
""")
        time.sleep(5.5)  # the answers of the last round are kept for 5 s
        bad = doctor(third, 1)
        it.check(set(bad) == {"ports"} and len(bad["ports"]) == 1, f"{bad}")
        finding = bad["ports"][0]
        it.check(finding["where"] == f"{third.address}:{third.mesh_port}" and "no other node can connect" in finding["what"] and "TCP and UDP" in finding["do"], f"{finding}")
        third.run("nft", "flush", "ruleset")
        time.sleep(5.5)
        it.check(doctor(third, 0) == {}, "the filter is gone")


def test_doctor_asks_registries_by_tls():
    """The right CA, none, another one; a clock that is off; a proxy that is there and one that is not; an address that may not be asked."""
    with Lab(1) as lab:
        node = lab.nodes[0]
        ca, other = (Authority(lab.dir / name) for name in ("ca", "other-ca") if not (lab.dir / name).mkdir())
        cert, key = ca.sign("registry", "registry.test")
        here = Path(__file__).parent
        for port, off in ((7443, 0), (7444, 3600)):
            lab.processes.append(Process(lab.origin_exec(sys.executable, here / "dated_registry.py", lab.origin_address, port, cert, key, off), lab.dir / f"tls-{port}.log"))
        odd = [lab.dir / f"odd.{end}" for end in ("crt", "key", "csr")]  # names go to the operator's terminal
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8", "-subj", "/CN=odd\x1b[31m\u00e4", "-keyout", odd[1], "-out", odd[2])
        run("openssl", "x509", "-req", "-in", odd[2], "-CA", ca.cert, "-CAkey", ca.key, "-CAcreateserial", "-days", "2", "-out", odd[0])
        lab.processes.append(Process(lab.origin_exec(sys.executable, here / "dated_registry.py", lab.origin_address, 7446, *odd[:2], 0), lab.dir / "tls-odd.log"))
        lab.processes.append(Process(lab.origin_exec(sys.executable, here / "connect_proxy.py", lab.origin_address, "7445"), lab.dir / "proxy.log"))
        for port in (7443, 7444, 7445, 7446):
            until(lambda: node.run("bash", "-c", f"exec 3<>/dev/tcp/{lab.origin_address}/{port}", check=False).returncode == 0, 10, f"nothing listens on {port}")

        def ask(port=7443, code=1, **entry) -> dict:
            node.config({"registries": [{"name": "registry.test", "endpoint": f"https://registry.test:{port}", "allowPrivate": True, **entry}]})
            return doctor(node, code)

        good = {"ca": str(ca.cert)}
        node.start()
        it.check(ask(code=0, **good) == {}, "a good one")
        text = shoal(node, "doctor")
        it.check("https://registry.test:7443 answers with 401" in text and "clock     registry.test" in text, text)
        for entry in ({}, {"ca": str(other.cert)}):
            bad = ask(**entry)
            what = str(bad.get("registry"))
            it.check(set(bad) == {"registry"} and "TLS verification failed: SSL certificate problem" in what and "registries[].ca" in what, f"{entry}: {bad}")
        what = ask(7446, **good)["registry"][0]["what"]
        it.check("odd?[31m" in what and what.isascii() and what.isprintable(), what)
        bad = ask(7444, **good)
        it.check(set(bad) == {"clock"} and re.search(r"3(599|600|601) s behind", bad["clock"][0]["what"]), f"{bad}")
        it.check(ask(code=0, proxy=f"http://{lab.origin_address}:7445", **good) == {}, "by a proxy")
        it.check("CONNECT registry.test:7443" in (lab.dir / "proxy.log").read_text(), "the proxy was not asked")
        bad = ask(proxy=f"http://{lab.origin_address}:1", **good)
        it.check(set(bad) == {"registry"} and "check registries[].proxy" in bad["registry"][0]["do"], f"{bad}")
        bad = ask(allowPrivate=False, **good)
        it.check(set(bad) == {"registry"} and "allowPrivate" in bad["registry"][0]["do"], f"{bad}")


def test_doctor_finds_secret_disk_registry_and_dead_agents():
    with mesh([1 << 20], zones=1) as (lab, _):
        first, second, third = lab.nodes
        other = lab.dir / "other-secret"
        third.run("build/shoal", "keygen", "--out", other)
        third.process.stop()
        third.start({"clusterSecretFile": [str(other)]})
        bad = doctor(third, 1)
        it.check(set(bad) == {"peers"} and all("its secret or clusterId differs" in f["what"] for f in bad["peers"]), f"{bad}")
        it.check(other.read_text().strip() not in shoal(third, "doctor", code=1), "the secret is shown")
        said = [line for line in (first.dir / "agent.log").read_text().splitlines() if "speaks with another secret" in line]
        it.check(len(said) == 1 and third.address in said[0] and "warn" in said[0].lower(), f"{said}")
        until(lambda: page_outsider(first).startswith(third.address + ":"), 60, "nobody keeps coming")
        weak = lab.dir / "weak"
        weak.write_text("ab" * 32)
        weak.chmod(0o644)
        it.check("secret" in doctor(third, 1, "--set", f"clusterSecretFile={weak}"), "a secret for all to read")
        weak.chmod(0o400)
        it.check("not drawn at random" in str(doctor(third, 1, "--set", f"clusterSecretFile={weak}")["secret"]), "a weak secret")
        third.process.stop()

        registry = [{"name": REGISTRY_NAME, "endpoint": f"http://{lab.origin_address}:1", "plainHttp": True, "allowPrivate": True}]
        first.config({"registries": registry})
        bad = doctor(first, 1)
        it.check(set(bad) == {"registry", "peers"} and "unreachable" in bad["registry"][0]["what"] and "connect" in bad["registry"][0]["what"], f"{bad}")
        it.check([f["where"] for f in bad["peers"]] == [f"{third.address}:{third.mesh_port}"] and "nobody listens" in str(bad["peers"]), f"{bad}")
        first.config()

        small = lab.dir / "small"
        small.mkdir(mode=0o700)
        run("mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", small)
        try:
            (small / "full").write_bytes(b"x" * (1 << 20))
            bad = doctor(third, 1, "--set", f"dataDir={small}")
            it.check({"disk", "agent"} <= set(bad) and "cannot be written" in bad["disk"][0]["what"], f"{bad}")
            it.check("are to stay free" in bad["disk"][1]["what"], f"{bad}")
            run("mount", "-o", "remount,ro", small)
            it.check("ead-only" in str(doctor(third, 1, "--set", f"dataDir={small}")["disk"]), "a read-only disk")
        finally:
            run("umount", small)

        # Nobody answers: what it can, it finds by itself
        bad = doctor(third, 1)
        it.check("no agent runs" in str(bad["agent"]) and "ports" not in bad, f"{bad}")
        listener = Process(third.exec(sys.executable, "-m", "http.server", str(third.client_port), "--bind", "127.0.0.1"), third.dir / "other.log")
        lab.processes.append(listener)
        time.sleep(0.5)
        ports = str(doctor(third, 1)["ports"])
        it.check("another program has the port: python3" in ports and f"(pid {listener.pid})" in ports, ports)
        (third.dir / "shoal.yaml").write_text("no: such key\n")
        it.check(set(doctor(third, 1)) == {"config"}, "a broken configuration")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
