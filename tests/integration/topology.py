#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Nodes that find out where they stand: from clouds at their real addresses, from Kubernetes, from nobody; and what others see of it."""
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import it
from lab import CLIENT_PORT, Lab, Process, run
from tls import Authority

SERVER = Path(__file__).resolve().parent / "metadata_server.py"
ECS, LINK_LOCAL = "100.100.100.200", "169.254.169.254"


@contextmanager
def nodes(count=1, **settings):
    """Nodes without labels of their own."""
    with Lab(count, settings={"topology": {}, **settings}) as lab:
        yield lab


def serve(node, kind: str, address: str, *labels, tls=()) -> Process:
    """A metadata service at this address of the node's own network namespace; `tls`: certificate and key."""
    host = address.rpartition(":")[0]
    if not host.startswith("127."):
        node.run("ip", "addr", "add", f"{host}/32", "dev", "lo", check=False)
    process = Process(node.exec(sys.executable, SERVER, "--kind", kind, "--listen", address, "--labels", *labels,
                                *(("--tls", *tls) if tls else ())), node.dir / f"{kind}.log")
    node.lab.processes.append(process)
    end = time.monotonic() + 10
    while "listening" not in process.text() and time.monotonic() < end:
        time.sleep(0.02)
    return process


def own(node) -> dict:
    return {k: (v["value"], v["source"]) for k, v in node.status()["topology"].items()}


def wait_for(what, wanted, seconds=10.0):
    end = time.monotonic() + seconds
    while what() != wanted and time.monotonic() < end:
        time.sleep(0.05)
    it.check(what() == wanted, f"{what()}, wanted {wanted}")


def seen(node, other) -> tuple:
    """What a node knows of another's labels."""
    for member in node.status()["members"]:
        if member["addr"] == f"{other.address}:{other.mesh_port}":
            return member["zone"], member["vswitch"]
    return ()


def test_each_cloud_at_its_address():
    for kind, address, labels, wanted in (
        ("ecs", ECS, ("cn-hangzhou", "cn-hangzhou-i", "vsw-1"), ("cn-hangzhou", "cn-hangzhou-i", "vsw-1")),
        ("aws", LINK_LOCAL, ("us-east-1", "us-east-1a", "subnet-1"), ("us-east-1", "us-east-1a", "subnet-1")),
        ("gcp", LINK_LOCAL, ("-", "us-central1-a", "-"), ("us-central1", "us-central1-a", "")),
        ("azure", LINK_LOCAL, ("westeurope", "westeurope-2", "-"), ("westeurope", "westeurope-2", "")),
    ):
        with nodes() as lab:
            node = lab.nodes[0]
            service = serve(node, kind, f"{address}:80", *labels)
            node.start({"log": {"level": "trace"}})
            sources = [kind if value else "unknown" for value in wanted]
            wait_for(lambda: own(node), dict(zip(("region", "zone", "vswitch"), zip(wanted, sources))), 5)
            it.check("SECRETTOKEN" not in node.process.text(), "the session token is in the log")
            asked = service.text().count("\n")
            time.sleep(7)  # over the first pause: who has answered is not asked again
            it.check(service.text().count("\n") == asked, f"asked again:\n{service.text()}")


def test_zone_learnt_late_reaches_the_others():
    with nodes(3) as lab:
        late = lab.nodes[0]
        lab.start_registry()
        lab.start_nodes()
        lab.wait_members()
        image = lab.push_image("lib/app", [12 << 20])
        wait_for(lambda: late.process.text().count("no source knows the zone"), 1)
        it.check(seen(lab.nodes[2], late) == ("", ""), "labels from nowhere")
        serve(late, "ecs", f"{ECS}:80", "r", "zone-late", "vsw-late")
        began = time.monotonic()
        wait_for(lambda: own(late)["zone"], ("zone-late", "ecs"), 30)  # the pauses grow from 5 s
        for node in lab.nodes:
            wait_for(lambda: seen(node, late), ("zone-late", "vsw-late"), 3)  # noqa: B023
        it.figure(f"known to all {time.monotonic() - began:.1f} s after the service came up")
        for node in lab.nodes:
            path = f"/v2/lib/app/blobs/{image['layers'][0]['digest']}?ns=registry.test%3A5000"
            done = node.run("sh", "-c", f"curl -s 'http://127.0.0.1:{CLIENT_PORT}{path}' | sha256sum")
            it.check(done.stdout.split()[0] == image["layers"][0]["digest"][7:], f"{node.name} pulled other bytes")


def test_black_hole_does_not_delay():
    """Addresses that swallow packets: ready as fast as ever, prefixes after the sources' time, pulls unharmed."""
    with nodes(1, **{"topology.prefixes": ["10.0.0.0/8=r/by-prefix/v"]}) as lab:
        node = lab.nodes[0]
        lab.start_registry()
        image = lab.push_image("lib/app", [2 << 20])
        node.run("ip", "route", "add", "default", "dev", "e0")
        rules = ["add table inet hole", "add chain inet hole out { type filter hook output priority 0; }",
                 f"add rule inet hole out ip daddr {{ {ECS}, {LINK_LOCAL} }} counter drop"]
        run("ip", "netns", "exec", node.netns, "nft", "-f", "-", input="\n".join(rules) + "\n")
        config = node.config()
        began = time.monotonic()
        node.process = Process(node.exec("build/shoal", "agent", "--config", config), node.dir / "agent.log")
        node.wait_ready()
        ready = time.monotonic() - began
        it.check(ready < 1, f"ready after {ready:.2f} s")
        it.check(own(node)["zone"] == ("", "unknown"), f"{own(node)}")
        path = f"/v2/lib/app/blobs/{image['layers'][0]['digest']}?ns=registry.test%3A5000"
        done = node.run("sh", "-c", f"curl -s 'http://127.0.0.1:{CLIENT_PORT}{path}' | sha256sum")
        it.check(done.stdout.split()[0] == image["layers"][0]["digest"][7:], "a pull was harmed")
        wait_for(lambda: own(node)["zone"], ("by-prefix", "prefixes"), 8)
        took = time.monotonic() - began
        it.check(took < 6, f"prefixes after {took:.1f} s")
        dropped = node.run("nft", "list", "table", "inet", "hole").stdout
        it.check("packets 0 " not in dropped, "nothing was sent into the hole: the test tests nothing")
        it.figure(f"metadata swallowed: ready after {ready:.2f} s, zone by prefix after {took:.1f} s")


def test_kubernetes_node_and_file():
    with nodes() as lab:
        node = lab.nodes[0]
        account = lab.dir / "account"
        account.mkdir()
        (account / "token").write_text("SECRETTOKEN\n")
        serve(node, "kubernetes", "127.0.0.1:8001", "eu-1", "eu-1a", "vsw-k")
        settings = {"topology.kubernetesUrl": "http://127.0.0.1:8001", "topology.serviceAccount": str(account),
                    "topology.vswitchLabel": "example.com/vswitch", "log": {"level": "trace"}}
        config = node.config(settings)
        node.process = Process(node.exec("env", "NODE_NAME=node-7", "build/shoal", "agent", "--config", config), node.dir / "agent.log")
        node.wait_ready()
        wait_for(lambda: own(node), {"region": ("eu-1", "kubernetes"), "zone": ("eu-1a", "kubernetes"), "vswitch": ("vsw-k", "kubernetes")}, 5)
        it.check("GET /api/v1/nodes/node-7 200" in (node.dir / "kubernetes.log").read_text(), "asked for another node")
        it.check("SECRETTOKEN" not in node.process.text(), "the account's token is in the log")
        node.process.stop()
        labels = lab.dir / "labels"
        labels.write_text('app="shoal"\ntopology.kubernetes.io/zone="from-file"\n')
        node.start({**settings, "topology.labelsFile": str(labels), "topology.region": "mine"})
        wait_for(lambda: own(node), {"region": ("mine", "configuration"), "zone": ("from-file", "kubernetes"), "vswitch": ("", "unknown")}, 5)


def test_kubernetes_by_tls():
    """As a cluster has it: https under the CA of the service account. A CA that did not sign it, another name, no CA at all: the next source is asked."""
    with nodes() as lab:
        node, account = lab.nodes[0], lab.dir / "account"
        places = [account, lab.dir / "ca", lab.dir / "other"]
        for place in places:
            place.mkdir()
        (account / "token").write_text("SECRETTOKEN\n")
        signer, other = Authority(places[1]), Authority(places[2])
        serve(node, "kubernetes", "127.0.0.1:8443", "eu-1", "eu-1a", "vsw-k", tls=signer.sign("api", "127.0.0.1"))
        serve(node, "ecs", f"{ECS}:80", "by-ecs", "by-ecs-a", "vsw-e")
        asked = lambda: (node.dir / "kubernetes.log").read_text().count("GET /api/v1/nodes/node-7 200")  # noqa: E731
        for ca, host, source in ((signer.cert, "127.0.0.1", "kubernetes"), (other.cert, "127.0.0.1", "ecs"), (signer.cert, "localhost", "ecs"), (None, "127.0.0.1", "ecs")):
            (account / "ca.crt").unlink(missing_ok=True)
            if ca is not None:
                (account / "ca.crt").write_text(ca.read_text())
            before = asked()
            config = node.config({"topology.kubernetesUrl": f"https://{host}:8443", "topology.serviceAccount": str(account), "log": {"level": "trace"}})
            node.process = Process(node.exec("env", "NODE_NAME=node-7", "build/shoal", "agent", "--config", config), node.dir / f"agent-{source}.log")
            node.wait_ready()
            zone = "eu-1a" if source == "kubernetes" else "by-ecs-a"
            wait_for(lambda: own(node)["zone"], (zone, source), 5)  # noqa: B023
            it.check(asked() - before == (source == "kubernetes"), f"{host} with {ca}: the token went to a server that was not proven")
            it.check("SECRETTOKEN" not in node.process.text(), "the account's token is in the log")
            it.check(node.process.stop() == 0, "exit code")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
