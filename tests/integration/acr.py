#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ACR instances as registries: an agent that is told nothing but an instance's id pulls a real image through what a fake cloud says.

The fake checks every signature by itself (fake_cloud.py). At the end of each test no secret may be found outside the agent's memory (HRD-4).
"""
import base64
import contextlib
import hashlib
import json
import sys
import time
from email.utils import formatdate
from pathlib import Path

import it
import marks
from fake_cloud import INSTANCE, KEY_ID, KEY_SECRET, MARK, OSS_HOST, PASSWORD, PROVIDER, REGION, ROLE_A, ROLE_B, USER, VPC
from lab import Lab, Process, run
from pull import fetch

PORT = 7100
marks.know("cloud", MARK.encode())  # in everything the fake gives out
# Names in every node's hosts file, all of the real registry's address.
VPC_HOST, PUBLIC_HOST, USER_HOST = "registry.test:5000", "blob.test:5000", "auth.test:5000"
# The calls of one good round.
CALLS = ["ListInstanceEndpoint", "GetInstanceVpcEndpoint"]


class Cloud(Lab):
    """A lab whose nodes know no registry, but a cloud."""

    def __init__(self, nodes=1, **keys):
        super().__init__(nodes)
        self.registries = []
        base = f"http://{self.origin_address}"
        self.settings = {"log.level": "debug", "acrInstances": INSTANCE, "acr.metadataEndpoint": f"{base}:{PORT}", "acr.stsEndpoint": f"{base}:{PORT + 1}",
                         "acr.crEndpoint": f"{base}:{PORT + 2}", "acr.plainHttp": True, **keys}
        self.start_registry()
        self.image = self.push_image("lib/app", [1 << 20, 6 << 20])
        self.cloud = None
        self.start_cloud()
        self.set(domains=[VPC_HOST], public=[PUBLIC_HOST], user=[USER_HOST])

    def start_cloud(self):
        program = Path(__file__).resolve().parent / "fake_cloud.py"
        self.cloud = Process(self.origin_exec("/usr/bin/python3", program, "--address", self.origin_address, "--port", PORT,
                                              "--registry", self.endpoint, "--storage", self.dir / "registry/docker/registry/v2/blobs"), self.dir / "cloud.log")
        self.processes.append(self.cloud)
        end = time.monotonic() + 10
        while run(*self.control("/log"), check=False).returncode != 0:
            it.check(time.monotonic() < end and self.cloud.alive(), f"the fake cloud did not start: {self.cloud.text()[-500:]}")
            time.sleep(0.05)

    def control(self, path, *args):
        return self.origin_exec("curl", "-sf", "-m", "10", *args, f"http://{self.origin_address}:{PORT + 3}{path}")

    def set(self, **settings):
        run(*self.control("/set", "-d", json.dumps(settings)))

    def log(self, role: str) -> list[dict]:
        return [entry for entry in json.loads(run(*self.control("/log")).stdout) if entry["role"] == role]

    def codes(self, role="cr") -> list[str]:
        """What the fake found wrong with what was asked."""
        return [entry["code"] for entry in self.log(role) if entry.get("code")]

    def actions(self, role="cr", **like) -> list[str]:
        return [e["action"] for e in self.log(role) if "signed" in e and all(e.get(k) == v for k, v in like.items())]


@contextlib.contextmanager
def cloud(nodes=1, **keys):
    with Cloud(nodes, **keys) as lab:
        yield lab
        search_for_secrets(lab)


def search_for_secrets(lab):
    """HRD-4: logs, metrics, status, and every file of the node but those that hold a secret by order."""
    for node in lab.nodes:
        places = {"log": node.process.text()}
        if node.process.alive():
            places["metrics"], places["status"] = node.get("/metrics", admin=True), node.get("/status", admin=True)
        for file in (node.dir / "data").rglob("*"):
            if file.is_file() and file.stat().st_size < 1 << 20:
                places[str(file)] = file.read_bytes().decode(errors="replace")
        for place, text in places.items():
            it.check(MARK not in text, f"{node.name}: a secret in {place}: {text[max(text.find(MARK) - 80, 0):][:120]}")
        it.check("acr: " in places["log"], "the agent logged nothing about ACR: is the level debug?")
        it.check("Signature=" not in places["log"], "a signature in the log")


def instance(node) -> dict:
    return node.status()["acr"][0]


def wait_instance(node, seconds=15, **wanted):
    """Until the status of the instance is so; a value that is a function must hold for it."""
    end = time.monotonic() + seconds
    while True:
        now = instance(node)
        if all(v(now[k]) if callable(v) else now[k] == v for k, v in wanted.items()):
            return now
        it.check(time.monotonic() < end, f"{now}, wanted {wanted}")
        time.sleep(0.05)


def wait_answered(node, **more):
    return wait_instance(node, endpoint=f"http://{VPC_HOST}", error="", **more)


def forget(node):
    """Nothing from the start before."""
    (node.dir / "data" / "acr-endpoints").unlink(missing_ok=True)


def pull_all(lab, node, name=VPC_HOST):
    """The image through this name; every byte checked."""
    ns = "?ns=" + name.replace(":", "%3A")
    status, _, body = fetch(node, f"/v2/lib/app/manifests/1{ns}", "-H", f"Accept: {lab.image['mediaType']}")
    it.check(status == 200 and "sha256:" + hashlib.sha256(body).hexdigest() == lab.image["digest"], f"manifest as {name}: {status} {body[:200]}")
    for layer in lab.image["layers"]:
        status, _, body = fetch(node, f"/v2/lib/app/blobs/{layer['digest']}{ns}")
        it.check(status == 200 and "sha256:" + hashlib.sha256(body).hexdigest() == layer["digest"], f"layer as {name}: {status}")


def test_a_restart_while_the_cloud_is_away():
    """What was found is in dataDir: names and endpoints, no credentials. An agent that starts without metadata, STS and API serves as before; for a week."""
    with cloud() as lab:
        lab.start_nodes()
        node = lab.nodes[0]
        kept = node.dir / "data" / "acr-endpoints"
        wait_answered(node)
        end = time.monotonic() + 5
        while not kept.exists() and time.monotonic() < end:
            time.sleep(0.05)
        told = json.loads(kept.read_text())
        it.check(kept.stat().st_mode & 0o777 == 0o600 and [i["instance"] for i in told["instances"]] == [INSTANCE], f"{told}")
        it.check(MARK not in kept.read_text() and KEY_ID not in kept.read_text(), "credentials on disk")
        node.process.stop()
        lab.cloud.kill()
        node.start()
        for name in (VPC_HOST, USER_HOST):
            pull_all(lab, node, name)
        found = wait_instance(node, error=lambda e: e != "")
        it.check(found["endpoint"] == f"http://{VPC_HOST}" and found["vpc"] and found["hosts"] == 3, f"{found}")
        node.process.stop()
        for broken in (json.dumps({**told, "instances": [{**told["instances"][0], "answered": int(time.time()) - 8 * 24 * 3600}]}), kept.read_text()[:50], ""):
            kept.write_text(broken)
            node.start()
            it.check(fetch(node, f"/v2/lib/app/manifests/1?ns={VPC_HOST.replace(':', '%3A')}")[0] == 404, f"{broken[:60]} was believed")
            node.process.stop()
        lab.start_cloud()
        lab.set(domains=[VPC_HOST], public=[PUBLIC_HOST], user=[USER_HOST])
        node.start()
        wait_answered(node)
        pull_all(lab, node)


# ---- where the credentials come from ----

def test_an_instance_id_is_enough():
    with cloud(nodes=2) as lab:
        lab.start_nodes()
        lab.wait_members()
        for node in lab.nodes:
            found = wait_answered(node, vpc=True, hosts=3)
            it.check(found["answered_s_ago"] >= 0, f"{found}")
            node.count_sources()
            pull_all(lab, node)
        it.check(lab.codes() == [] and lab.codes("sts") == [], f"{lab.codes()}")
        it.check(lab.actions(signed="v3") == CALLS * 2 or sorted(lab.actions(signed="v3")) == sorted(CALLS * 2), f"{lab.actions()}")
        origin = [n.sources()["origin_bytes"] for n in lab.nodes]
        it.check(origin[1] < lab.image["size"] // 4 < origin[0], f"read from the registry: {origin}")
        node = lab.nodes[0]
        pull_all(lab, node, USER_HOST)
        pull_all(lab, node, PUBLIC_HOST)
        for name in ("evil.test:5000", "auth.test", "one.pattern.test:5000"):
            it.check(fetch(node, f"/v2/lib/app/manifests/1?ns={name.replace(':', '%3A')}")[0] == 404, f"{name} is known")
        metrics = node.get("/metrics", admin=True)
        it.check('shoal_acr_instances{through="vpc"} 1\n' in metrics and "shoal_acr_rounds_failed_total 0\n" in metrics, "metrics")


def test_metadata_services_of_every_kind():
    with cloud() as lab:
        node = lab.nodes[0]
        for mode, with_token in (("hardened", True), ("plain", False), ("slow", False)):
            lab.set(metadata=mode)
            node.start()
            wait_answered(node)
            asked = [e["token"] for e in lab.log("metadata") if e["method"] == "GET"]
            it.check(asked and all(t == with_token for t in asked), f"{mode}: {asked}")
            it.check(node.process.stop(10) == 0, f"{mode}: exit code")
        for mode, why in (("no_role", "no RAM role is attached"), ("failed", "the metadata service gave none")):
            lab.set(metadata=mode)
            forget(node)
            node.start()
            wait_instance(node, endpoint="", error=lambda text, why=why: why in text)
            status, _, body = fetch(node, f"/v2/lib/app/manifests/1?ns={VPC_HOST.replace(':', '%3A')}")
            it.check(status == 404, f"{mode}: {status} {body[:100]}")
            it.check(node.process.stop(10) == 0, f"{mode}: exit code")


def test_keys_from_a_file_signed_both_ways():
    with cloud() as lab:
        node = lab.nodes[0]
        keys = lab.dir / "keys"
        keys.write_text(f"{KEY_ID}\n{KEY_SECRET}\n")
        keys.chmod(0o400)
        lab.settings.update({"accessKeyFile": str(keys), "region": REGION, "vpcId": VPC})
        for signature in ("v3", "v1"):
            lab.set()
            node.start({"acr.signature": signature})
            wait_answered(node)
            it.check(lab.actions(signed=signature) == CALLS and lab.codes() == [], f"{lab.actions()} {lab.codes()}")
            it.check(lab.log("metadata") == [], "the metadata service was asked")
            it.check(node.process.stop(10) == 0, "exit code")
        keys.chmod(0o600)
        keys.write_text(f"{KEY_ID}\n{MARK}wrong\n")
        node.start()
        wait_instance(node, error=lambda text: "credentials are not accepted" in text and "SignatureDoesNotMatch" in text)
        it.check(node.process.stop(10) == 0, "exit code")
        keys.chmod(0o644)
        node.start(wait=False)
        node.process.popen.wait(timeout=10)
        it.check("others can read it" in node.process.text(), "a key file that others can read")


def test_rrsa_within_and_across_accounts():
    with cloud() as lab:
        node, token = lab.nodes[0], lab.dir / "token"
        token.write_text(f"eyJ{MARK}first\n")
        lab.set(jwt_file=str(token))
        rrsa = {"rrsa.enable": True, "rrsa.rrsaRoleARN": ROLE_A, "rrsa.rrsaOIDCProviderRoleARN": PROVIDER, "rrsa.tokenFile": str(token)}
        across = {**rrsa, "rrsa.assumeRoleARN": ROLE_B, "rrsa.expireDuration": "7200s"}
        for extra, steps in ((rrsa, ["AssumeRoleWithOIDC"]), (across, ["AssumeRoleWithOIDC", "AssumeRole"]),
                             ({**across, "acr.signature": "v1"}, ["AssumeRoleWithOIDC", "AssumeRole"])):
            lab.set(token_bytes=8192)
            node.start(extra)
            wait_answered(node)
            it.check(lab.actions("sts") == steps and lab.codes("sts") == [] and lab.codes() == [], f"{lab.actions('sts')} {lab.codes('sts')}")
            if len(steps) > 1:
                it.check([e["seconds"] for e in lab.log("sts") if "seconds" in e][-1] == 7200, "DurationSeconds")
            pull_all(lab, node)
            it.check(node.process.stop(10) == 0, "exit code")
        lab.set(role_b_max=3600)
        node.start(across)
        wait_instance(node, error=lambda text: "rrsa.expireDuration 7200 is more than the role's maximum" in text)
        it.check(node.process.stop(10) == 0, "exit code")
        node.start({**across, "rrsa.assumeRoleARN": ROLE_B + "x"})
        wait_instance(node, error=lambda text: "check that rrsa.assumeRoleARN trusts the first role" in text)


def test_losing_the_cloud_and_errors_of_sts():
    """Keys that cannot be renewed, a role that is refused, a pod's token that has ended, an STS that throttles: said, and over by itself half a minute later."""
    with cloud(nodes=4) as lab:
        loser, *nodes = lab.nodes
        current, stale = lab.dir / "token", lab.dir / "stale-token"
        current.write_text(f"eyJ{MARK}current\n")
        stale.write_text(f"eyJ{MARK}stale\n")
        rrsa = {"rrsa.enable": True, "rrsa.rrsaRoleARN": ROLE_A, "rrsa.rrsaOIDCProviderRoleARN": PROVIDER, "rrsa.tokenFile": str(current)}
        lab.set(life=14)
        loser.start()
        wait_answered(loser)
        lab.cloud.kill()
        end = time.monotonic() + 30
        while "the old ones are still valid" not in loser.process.text():
            it.check(time.monotonic() < end, "the credentials were not refreshed in time")
            time.sleep(0.2)
        pull_all(lab, loser)
        it.check(instance(loser)["endpoint"] == f"http://{VPC_HOST}", f"{instance(loser)}")
        lab.start_cloud()
        # A clock that is off is corrected on the way, for STS as for all else.
        lab.set(domains=[VPC_HOST], public=[PUBLIC_HOST], user=[USER_HOST], life=3600, jwt_file=str(current), clock=7200)
        nodes[0].start(rrsa)
        wait_answered(nodes[0])
        it.check(lab.codes("sts") == ["InvalidTimeStamp.Expired"] and "clock is off by" in nodes[0].process.text(), f"{lab.codes('sts')}")
        it.check(nodes[0].process.stop(10) == 0, "exit code")
        forget(nodes[0])
        cases = [(fault("AssumeRoleWithOIDC", status=403, code="NoPermission"), {}, "RRSA: check the role's trust policy"),
                 ({"faults": []}, {"rrsa.tokenFile": str(stale)}, "RRSA: the pod's token has ended"),
                 (fault("AssumeRoleWithOIDC", times=3, code="Throttling.User", headers={"x-acs-retry-after": "100"}), {}, "RRSA: AssumeRoleWithOIDC: 400 Throttling.User")]
        for node, (settings, extra, why) in zip(nodes, cases, strict=True):
            lab.set(clock=0, **settings)
            node.start({**rrsa, **extra})
            found = wait_instance(node, endpoint="", error=lambda text, why=why: text.startswith(why))
            it.check(found["answered_s_ago"] < 0, f"{found}")
        it.check(lab.actions("sts") == ["AssumeRoleWithOIDC"] * 3, f"throttled: asked {lab.actions('sts')}")
        stale.write_text(current.read_text())
        for node in nodes:
            wait_answered(node, seconds=40)
            pull_all(lab, node)
        end = time.monotonic() + 10
        while loser.metric('shoal_acr_refreshes_total{outcome="done"}') < 2:
            it.check(time.monotonic() < end, "no new credentials after the cloud came back")
            time.sleep(0.5)


def test_metadata_changes_under_way():
    """Session tokens that the service forgets, and another role attached: the next keys come all the same, and nobody notices."""
    with cloud() as lab:
        node = lab.nodes[0]
        lab.set(metadata="hardened", life=8)
        node.start()
        wait_answered(node)
        lab.set(role="other-role", forget_tokens=True, life=3600)
        end = time.monotonic() + 15
        while node.metric('shoal_acr_refreshes_total{outcome="done"}') < 2:
            it.check(time.monotonic() < end, f"no new keys: {node.process.text()[-1000:]}")
            time.sleep(0.1)
        asked = lab.log("metadata")
        it.check([e["method"] for e in asked].count("PUT") == 1 and asked[-1]["path"].endswith("/other-role"), f"{asked}")
        it.check(instance(node)["error"] == "" and node.metric('shoal_acr_refreshes_total{outcome="failed"}') == 0, f"{instance(node)}")
        pull_all(lab, node)


# ---- the component's parameters ----

COMPONENT = {  # ACR.md 8, disk mode, as its users write them
    "blocksize": 256, "capacity": 4294967296, "optionBlockSize": 67108864, "memoryCacheCapacityGB": 1, "aio": 0, "DeployConfig": {"proxyFsParallels": 128},
    "AgentConfig": {"connectTimeout": 5, "transferTimeout": 15}, "p2p": {"v2": {"proxyConcurrencyLimit": 128}}, "throttleLimitMB": 512,
    "logDir": "/dadi-p2p/log", "logAudit": True, "logAuditMode": "file"}


def test_the_component_s_parameters():
    """All of them are taken; what changes nothing is said once; the audit log has each request, without its query."""
    with cloud() as lab:
        node = lab.nodes[0]
        node.start(COMPONENT)
        wait_answered(node)
        lab.image = lab.push_image("lib/app", [1 << 20, 24 << 20])  # more than sockets hold
        pull_all(lab, node)
        layer = lab.image["layers"][1]
        ns = "?ns=" + VPC_HOST.replace(":", "%3A")
        node.run("curl", "-s", "-m", "2", "--limit-rate", "100K", "-o", "/dev/null", f"http://127.0.0.1:{node.client_port}/v2/lib/app/blobs/{layer['digest']}{ns}", check=False)
        fetch(node, f"/accelerator/http://{VPC_HOST}/v2/lib/app/blobs/{layer['digest']}?Signature={MARK}", "-H", f"Authorization: Basic {MARK}")
        time.sleep(0.5)
        text = node.process.text()
        for note in ("memoryCacheCapacityGB is ignored: cache.mode is disk", "logDir and logAuditMode change nothing here"):
            it.check(text.count(note) == 1, f"{note}: {text.count(note)} times")
        lines = [dict(word.partition("=")[::2] for word in line.split("audit: ")[1].split()) for line in text.splitlines() if "audit: " in line]
        path = f"/v2/lib/app/blobs/{layer['digest']}"
        reads = [line for line in lines if line["path"] == path and line["registry"] == VPC_HOST.replace(":", "%3A")]
        it.check([line["status"] for line in reads] == ["200", "200"] and reads[0]["client"].startswith("127.0.0.1:") and reads[0]["method"] == "GET", f"{lines}")
        it.check([int(line["bytes"]) == layer["size"] for line in reads] == [True, False], f"{reads}")
        it.check(int(reads[1]["ms"]) >= 1000 and all(int(line["of"]) == layer["size"] for line in reads), f"{reads}")
        it.check(any(line["path"].startswith("/accelerator/") for line in lines) and any("/manifests/1" in line["path"] for line in lines), f"{lines}")
        node.process.stop()
        node.start()
        pull_all(lab, node)
        it.check("audit: " not in node.process.text().split("agent: ready")[-1], "an audit log that nobody asked for")


# ---- the registry's storage ----

def test_blobs_come_from_oss():
    front = f"registry.test:{PORT + 4}"
    with cloud() as lab:
        node = lab.nodes[0]
        hosts = Path(f"/etc/netns/{node.netns}/hosts")
        hosts.write_text(hosts.read_text() + f"{lab.origin_address} {OSS_HOST} cri-other-registry.oss-{REGION}-internal.aliyuncs.com\n")
        lab.set(domains=[front])
        node.start()
        wait_instance(node, endpoint=f"http://{front}", error="")
        pull_all(lab, node, front)
        asked = lab.log("oss")
        it.check(asked and lab.codes("oss") == [], f"{asked}")
        # overlaybd: the signed URL, range by range, from what the mesh has or from OSS.
        url = asked[-1]["url"]
        digest = url.split("/")[-2]
        size = next(layer["size"] for layer in [*lab.image["layers"], lab.image["config"]] if layer["digest"].endswith(digest))
        status, headers, body = fetch(node, f"/accelerator/{url}", "-H", "Range: bytes=0-0")
        it.check(status == 206 and len(body) == 1 and headers["content-range"] == f"bytes 0-0/{size}", f"{status} {headers}")
        it.check(fetch(node, f"/accelerator/{url}x", "-H", "Range: bytes=0-0")[0] == 403, "a wrong signature")
        other = url.replace("cri-lab1-registry", "cri-other-registry")
        it.check(fetch(node, f"/accelerator/{other}", "-H", "Range: bytes=0-0")[0] == 404, "another bucket")
        it.check(lab.codes("oss") == ["SignatureDoesNotMatch"], f"{lab.codes('oss')}")
        # URLs that have ended already: refused as long as the registry gives no others, and no longer.
        lab.set(domains=[front], url_life=-5)
        image = lab.push_image("lib/late", [2 << 20])
        ns = "?ns=" + front.replace(":", "%3A")
        fetch(node, f"/v2/lib/late/manifests/1{ns}", "-H", f"Accept: {image['mediaType']}")
        status, _, _ = fetch(node, f"/v2/lib/late/blobs/{image['layers'][0]['digest']}{ns}")
        it.check(status in (403, 502, 503) and "AccessDenied" in lab.codes("oss"), f"{status} {lab.codes('oss')}")
        lab.set(domains=[front], url_life=1200)
        status, _, body = fetch(node, f"/v2/lib/late/blobs/{image['layers'][0]['digest']}{ns}")
        it.check(status == 200 and len(body) == image["layers"][0]["size"], f"{status}")


STORAGE_NS = f"?ns=registry.test%3A{PORT + 4}"


@contextlib.contextmanager
def stored(**keys):
    """A node whose instance has the fake's registry and OSS."""
    with cloud(**keys) as lab:
        node, front = lab.nodes[0], f"registry.test:{PORT + 4}"
        hosts = Path(f"/etc/netns/{node.netns}/hosts")
        hosts.write_text(hosts.read_text() + f"{lab.origin_address} {OSS_HOST}\n")
        lab.set(domains=[front])
        node.start()
        wait_instance(node, endpoint=f"http://{front}", error="")
        yield lab, node


def read(lab, node, name: str, *args) -> tuple[float, list[dict], list[dict]]:
    """A new image, whole and right; (seconds, questions for its layer to the registry, those to OSS). The settings must be made before."""
    image = lab.push_image(f"lib/{name}", [3 << 20])
    layer, started = image["layers"][0], time.monotonic()
    status, _, body = fetch(node, f"/v2/lib/{name}/manifests/1{STORAGE_NS}", "-H", f"Accept: {image['mediaType']}", *args)
    it.check(status == 200 and "sha256:" + hashlib.sha256(body).hexdigest() == image["digest"], f"{name}: manifest {status} {body[:200]}")
    status, _, body = fetch(node, f"/v2/lib/{name}/blobs/{layer['digest']}{STORAGE_NS}", *args)
    took = time.monotonic() - started
    it.check(status == 200 and "sha256:" + hashlib.sha256(body).hexdigest() == layer["digest"], f"{name}: layer {status}, {len(body)} bytes after {took:.1f} s")
    digest = layer["digest"].partition(":")[2]
    return took, [e for e in lab.log("registry") if e["path"].endswith(digest) and e["method"] == "GET"], [e for e in lab.log("oss") if digest in e["path"]]


def test_o_9_faults_of_oss():
    """Short, silent, reset, busy, and a URL that ends in mid-body: the bytes are right, and the registry is asked once more for each, beside once for the size."""
    with stored(**{"limits.transferTimeout": "2s"}) as (lab, node):
        cases = [("short", {"kind": "short", "times": 2}, 3), ("stall", {"kind": "stall"}, 8), ("reset", {"kind": "reset", "times": 2}, 3), ("expire", {"kind": "expire"}, 3),
                 ("busy", {"kind": "status", "status": 503, "code": "SlowDown", "headers": {"Retry-After": "1"}}, 5)]
        for name, how, seconds in cases:
            lab.set(faults=[{"action": "oss", **how}])
            took, resolved, got = read(lab, node, name)
            refused, times = [e for e in got if e.get("code")], how.get("times", 1)
            it.figure(f"{name}: {took:.1f} s, {len(resolved)} resolutions, {len(got)} reads")
            it.check(len([e for e in got if e.get("fault")]) == times, f"{name}: {got}")
            it.check(len(resolved) <= 2 + times and len(got) <= 4 + times and took < seconds, f"{name}: {took:.1f} s, {len(resolved)} resolutions, {len(got)} reads")
            it.check({e["code"] for e in refused} <= {"HEAD", "AccessDenied"} and not (name != "expire" and "AccessDenied" in lab.codes("oss")), f"{name}: {refused}")


def test_answers_of_the_registry():
    """429 with each form of Retry-After and without; a redirect without a host; no redirect at all."""
    with stored() as (lab, node):
        busy = lambda headers: {"faults": [{"action": "blob", "status": 429, "code": "TOOMANYREQUESTS", "headers": headers}]}  # noqa: E731
        cases = [("busy-seconds", lambda: busy({"Retry-After": "1"}), 0.9), ("busy-date", lambda: busy({"Retry-After": formatdate(time.time() + 2.5, usegmt=True)}), 0.9),
                 ("busy-silent", lambda: busy({}), 0.3), ("relative", lambda: {"blob": "relative"}, 0), ("direct", lambda: {"blob": "direct"}, 0)]
        for name, make, least in cases:
            settings = make()
            lab.set(**{"faults": [], "blob": "redirect", **settings})
            took, resolved, got = read(lab, node, name)
            it.figure(f"{name}: {took:.1f} s, {len(resolved)} questions")
            it.check(least <= took < 8 and len(resolved) <= 4, f"{name}: {took:.1f} s, {resolved}")
            it.check(bool(got) == ("busy" in name) and [e["status"] for e in resolved].count(429) == len(settings.get("faults", [])), f"{name}: {resolved} {got}")
            it.check(set(lab.codes("oss")) <= {"HEAD"}, f"{name}: {lab.codes('oss')}")


def test_tokens_of_the_runtime():
    """Challenges and tokens pass through as they are: one of two seconds ends in mid-pull, and the runtime is told so in the registry's words."""
    with stored(**{"transfer.prefetch": False}) as (lab, node):
        image = lab.push_image("lib/private", [1 << 20, 2 << 20, 3 << 20])
        paths = [f"/v2/lib/private/manifests/{image['digest']}{STORAGE_NS}", *(f"/v2/lib/private/blobs/{d['digest']}{STORAGE_NS}" for d in image["layers"])]
        wanted = [image["digest"], *(d["digest"] for d in image["layers"])]

        def ask(i: int, *args) -> tuple[int, str]:
            status, headers, body = fetch(node, paths[i], "-H", f"Accept: {image['mediaType']}", *args)
            it.check(status != 200 or "sha256:" + hashlib.sha256(body).hexdigest() == wanted[i], f"{paths[i]}: wrong bytes")
            return status, headers.get("www-authenticate", "")

        def bearer() -> tuple[str, str]:
            answer = run(*lab.origin_exec("curl", "-sf", "-u", f"{USER}:{PASSWORD}", f"http://{lab.origin_address}:{PORT + 4}/auth?service=x&scope=repository:lib/private:pull"))
            return "-H", f"Authorization: Bearer {json.loads(answer.stdout)['token']}"
        challenge = (f'Bearer realm="http://registry.test:{PORT + 4}/auth",service="registry.aliyuncs.com:{REGION}:china:{INSTANCE}",'
                     'scope="repository:lib/private:pull"')
        lab.set(auth="bearer", token_life=2)
        it.check(ask(0) == (401, challenge), f"{ask(0)}")
        first = bearer()
        it.check([ask(i, *first) for i in (0, 1)] == [(200, "")] * 2, "a good token")
        time.sleep(2.3)
        it.check(ask(2, *first) == (401, challenge + ',error="invalid_token"'), f"{ask(2, *first)}")
        it.check(ask(2, *bearer()) == (200, "") and ask(0)[0] == 401, "a new token, and none")
        lab.set(auth="basic")
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        it.check(ask(3) == (401, 'Basic realm="cr-lab"') and ask(3, "-H", "Authorization: Basic d3Jvbmc6eA==")[0] == 401, "Basic: nobody, and somebody else")
        it.check([ask(i, "-H", f"Authorization: Basic {login}")[0] for i in (0, 1, 2, 3)] == [200] * 4, "Basic")
        lab.set(auth="")
        it.check(set(lab.codes("oss")) <= {"HEAD"}, f"credentials went to OSS: {lab.codes('oss')}")


# ---- faults ----

def fault(action, **how) -> dict:
    return {"faults": [{"action": action, **how}]}


def test_faults_that_a_round_survives():
    cases = [
        ("throttled", fault("ListInstanceEndpoint", code="Throttling.User", times=2, headers={"x-acs-retry-after": "200"})),
        ("throttled in XML", fault("GetInstanceVpcEndpoint", kind="xml", code="Throttling", headers={"x-acs-retry-after": "200"})),
        ("5xx", fault("GetInstanceVpcEndpoint", status=503, code="ServiceUnavailable")),
        ("nonce used", fault("ListInstanceEndpoint", code="SignatureNonceUsed")),
        ("token ended", fault("GetInstanceVpcEndpoint", status=403, code="InvalidSecurityToken.Expired")),
        ("cut", fault("ListInstanceEndpoint", kind="cut")),
        ("slow", fault("ListInstanceEndpoint", kind="slow")),
        ("clock two hours ahead", {"clock": 7200}),
        ("clock a day behind", {"clock": -86400}),
    ]
    with cloud() as lab:
        node = lab.nodes[0]
        for name, settings in cases:
            lab.set(**{"clock": 0, "faults": [], **settings})
            node.start()
            wait_answered(node)
            hit = [e for e in lab.log("cr") if "fault" in e]
            it.check(len(hit) == sum(f.get("times", 1) for f in settings.get("faults", [])), f"{name}: {hit}")
            clocks = ["InvalidTimeStamp.Expired"] if "clock" in settings else []
            it.check(lab.codes() == clocks, f"{name}: {lab.codes()}")
            it.check(("clock is off by" in node.process.text()) == bool(clocks), f"{name}: log")
            it.check(node.process.stop(10) == 0, f"{name}: exit code")
            node.process.log.rename(node.dir / f"agent-{name.replace(' ', '-')}.log")
            it.check(MARK not in (node.dir / f"agent-{name.replace(' ', '-')}.log").read_text(), f"{name}: a secret in the log")
        lab.set(clock=0, faults=[])
        node.start()
        wait_answered(node)


def test_faults_that_are_explained():
    cases = [
        ("second permission", fault("GetInstanceVpcEndpoint", status=403, code="NoPermission"), "the permission cr:GetInstanceVpcEndpoint is missing", VPC_HOST),
        ("first permission", fault("ListInstanceEndpoint", status=403, code="Forbidden.RAM"), "the permission cr:ListInstanceEndpoint is missing", None),
        ("IsSuccess false", fault("ListInstanceEndpoint", kind="false", code="INSTANCE_NOT_EXIST"), f"does not exist in region {REGION}", None),
        ("missing fields", fault("ListInstanceEndpoint", kind="missing"), "ListInstanceEndpoint: malformed", None),
        ("another error", fault("ListInstanceEndpoint", code="Odd.Code"), "400 Odd.Code", None),
        ("throttled for good", fault("ListInstanceEndpoint", times=3, code="Throttling", headers={"x-acs-retry-after": "100"}), "400 Throttling", None),
        ("not linked", {"vpc": "vpc-other"}, "", PUBLIC_HOST),
        ("link not ready", {"link": "CREATING"}, "", PUBLIC_HOST),
        ("no way", {"vpc": "vpc-other", "public": []}, "cannot be reached from here: vpc-lab1 is not linked to it (linked: vpc-other)", None),
    ]
    with cloud() as lab:
        node = lab.nodes[0]
        for name, settings, why, host in cases:
            lab.set(**{"faults": [], "vpc": VPC, "link": "RUNNING", "public": [PUBLIC_HOST], **settings})
            forget(node)
            node.start()
            endpoint = f"http://{host}" if host else ""
            wait_instance(node, endpoint=endpoint, error=lambda text, why=why: text == "" if why == "" else why in text,
                          answered_s_ago=lambda age, host=host: age >= 0 or host is None)
            if host == VPC_HOST:
                pull_all(lab, node)
            elif host == PUBLIC_HOST:  # ORG-2: a public endpoint has no private address
                status, _, body = fetch(node, f"/v2/lib/app/manifests/1?ns={VPC_HOST.replace(':', '%3A')}")
                it.check(status == 503, f"{name}: {status} {body[:200]}")
            it.check(node.process.stop(10) == 0, f"{name}: exit code")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
