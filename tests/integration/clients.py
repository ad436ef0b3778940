#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real clients through the agents: skopeo, podman and containerd from open, htpasswd and token registries, dockerd from a Hub; who may read what.

Every pull is compared with a direct one. That bytes came from the other node is read from nftables counters, not from the agent.
"""
import base64
import hashlib
import json
import random
import statistics
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import it
import pull
from dockerhub import Dockerd, start_hub
from images import MANIFEST, push_multi, push_runnable
from lab import CLIENT_PORT, Lab, Process, run
from runtimes import PASSWORD, PORTS, TOKEN_PORT, USER, Containerd, Libpod, Sandbox, directory_hashes, start_registries, upstream

BASIC = "Authorization: Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
WRONG = "Authorization: Basic " + base64.b64encode(f"{USER}:wrong".encode()).decode()
MIB = 1 << 20


@contextmanager
def cluster(*modes, nodes=2):
    """A lab with these registries, agents that see each other, and a sandbox on every node."""
    with Lab(nodes) as lab:
        start_registries(lab, *modes)
        lab.start_nodes()
        if nodes > 1:
            lab.wait_members()
        for node in lab.nodes:
            node.sandbox = Sandbox(node)
        yield lab


def image_bytes(image: dict) -> int:
    return sum(layer["size"] for layer in image["parts"]["layers"])


@contextmanager
def counted(node, size: int, source: str):
    """The body must make this node read `size` bytes of blobs, through its agent, from "origin" or from the "mesh"."""
    asked = node.metric("shoal_requests_total")
    node.count_sources()
    yield
    got = node.sources()
    wanted, other = ("origin_bytes", "same_zone_bytes") if source == "origin" else ("same_zone_bytes", "origin_bytes")
    it.check(node.metric("shoal_requests_total") >= asked + 4, f"{node.name}: the client went around the agent")
    it.check(got[wanted] > size, f"{node.name}: {got[wanted]} bytes from the {source}, expected {size}: {got}")
    it.check(got[other] < size // 10, f"{node.name}: {got[other]} bytes from elsewhere than the {source}, expected none: {got}")


def check_same_directory(direct, mirrored):
    wanted, got = directory_hashes(direct), directory_hashes(mirrored)
    it.check(wanted == got and len(wanted) > 3, f"copies differ: {sorted(set(wanted.items()) ^ set(got.items()))[:4]}")


# ---- the three clients, each on both nodes: first from the registry, then from the first node ----

def skopeo_pulls(lab, mode: str):
    image = push_runnable(lab, "lib/skopeo", 8 * MIB)
    direct = lab.nodes[0].dir / f"skopeo-{mode}"
    Libpod(lab.nodes[0].sandbox, mode, mirror=False).skopeo("lib/skopeo:1", direct)
    for node, source in zip(lab.nodes, ("origin", "mesh")):
        target = node.dir / f"skopeo-{mode}-mirrored"
        with counted(node, image_bytes(image), source):
            Libpod(node.sandbox, mode).skopeo("lib/skopeo:1", target)
        check_same_directory(direct, target)


def podman_pulls(lab, mode: str):
    image = push_runnable(lab, "lib/podman", 8 * MIB)
    name = f"{upstream(mode)}/lib/podman:1"
    for node, source in zip(lab.nodes, ("origin", "mesh")):
        podman = Libpod(node.sandbox, mode)
        with counted(node, image_bytes(image), source):
            podman.podman("pull", "-q", name)
        found = podman.podman("image", "inspect", "--format", "{{.Digest}} sha256:{{.Id}}", name).stdout.split()
        it.check(found == [image["digest"], image["parts"]["config"]["digest"]], f"podman on {node.name}: {found}")
        said = podman.run_container("lib/podman:1")
        it.check(said == "hello from the image\n", f"container of podman on {node.name} said {said!r}")


def containerd_pulls(lab, mode: str):
    image = push_runnable(lab, "lib/ctr", 8 * MIB)
    blobs = {d["digest"]: d["size"] for d in (image, image["parts"]["config"], *image["parts"]["layers"])}
    for node, source in zip(lab.nodes, ("origin", "mesh")):
        containerd = node.containerd = Containerd(node.sandbox)
        with counted(node, image_bytes(image), source):
            containerd.pull(mode, "lib/ctr:1")
        it.check(containerd.blobs() == blobs, f"content store on {node.name}: {containerd.blobs()}")
        said = containerd.run_container(mode, "lib/ctr:1", f"{lab.prefix}-{node.name}")
        it.check(said == "hello from the image\n", f"container of containerd on {node.name} said {said!r}")
    containerd.forget()
    it.check(containerd.blobs() == {}, "content store is not empty")
    containerd.pull(mode, "lib/ctr:1", mirror=False)
    it.check(containerd.blobs() == blobs, f"direct pull: {containerd.blobs()}")


def wrong_password_fails(lab, mode: str):
    node = lab.nodes[1]
    done = Libpod(node.sandbox, mode, password="wrong").skopeo("lib/skopeo:1", node.dir / "refused", check=False)
    it.check(done.returncode != 0, "skopeo got a private image with a wrong password")
    node.containerd.forget()
    for user in (f"{USER}:wrong", ""):
        done = node.containerd.pull(mode, "lib/ctr:1", user=user, check=False)
        it.check(done.returncode != 0, f"containerd got a private image as {user!r}")
    it.check(node.containerd.blobs() == {}, "containerd kept something of a refused pull")


def every_client(mode: str):
    with cluster(mode) as lab:
        skopeo_pulls(lab, mode)
        podman_pulls(lab, mode)
        containerd_pulls(lab, mode)
        if mode != "public":
            wrong_password_fails(lab, mode)


def test_public_registry():
    every_client("public")


def test_htpasswd_registry():
    every_client("basic")


def test_token_registry():
    every_client("bearer")


def test_anonymous_token():
    """A repository that the token service opens to everybody, as public images on a hub."""
    with cluster("bearer") as lab:
        image = push_runnable(lab, "public/app", 8 * MIB)
        private = push_runnable(lab, "lib/app", MIB)
        with counted(lab.nodes[0], image_bytes(image), "origin"):
            Libpod(lab.nodes[0].sandbox, "bearer", user=None).skopeo("public/app:1", lab.nodes[0].dir / "copy")
        node = lab.nodes[1]
        containerd = Containerd(node.sandbox)
        with counted(node, image_bytes(image), "mesh"):
            containerd.pull("bearer", "public/app:1", user="")
        it.check(image["digest"] in containerd.blobs(), "containerd has another image")
        done = containerd.pull("bearer", "lib/app:1", user="", check=False)
        it.check(done.returncode != 0 and private["digest"] not in containerd.blobs(), "a private image without credentials")


# ---- dockerd, whose mirrors are for Docker Hub alone ----

@contextmanager
def hub_cluster(nodes=2):
    with Lab(nodes) as lab:
        start_hub(lab)
        lab.start_nodes()
        if nodes > 1:
            lab.wait_members()
        for node in lab.nodes:
            node.sandbox = Sandbox(node)
            node.dockerd = Dockerd(Containerd(node.sandbox))
        yield lab


def dockerd_has(node, name: str, image: dict):
    it.check(node.dockerd.holds(name, {**image["parts"], "digest": image["digest"]}), f"dockerd on {node.name} has another {name}")
    it.check(node.dockerd.layers(name) == image["diff_ids"], f"layers of {name} on {node.name} are not {image['diff_ids']}")


def tokens_asked(lab) -> set[str]:
    """"user status scope" of every request of the token service so far."""
    return set((lab.dir / "tokens").read_text().splitlines())


def test_dockerd_pulls_from_a_hub():
    """Public images without a login, a private one with the Hub's: it is sent to the realm that the mirror names, and counts for that mirror."""
    with hub_cluster() as lab:
        public, private = push_runnable(lab, "public/app", 8 * MIB), push_runnable(lab, "library/app", 8 * MIB)
        for node, source in zip(lab.nodes, ("origin", "mesh")):
            for name, image, user in (("public/app:1", public, None), ("app:1", private, USER)):
                with counted(node, image_bytes(image), source):
                    node.dockerd.pull(name, user=user)
                dockerd_has(node, name, image)
            said = node.dockerd.docker("run", "--rm", "--network=none", "app:1").stdout
            it.check(said == "hello from the image\n", f"container of dockerd on {node.name} said {said!r}")
        asked = tokens_asked(lab)
        it.check({"- 200 repository:public/app:pull", f"{USER} 200 repository:library/app:pull"} <= asked, f"{asked}")
        it.check(not any(one.startswith(USER) and "public" in one for one in asked), f"a login where none is needed: {asked}")


def test_dockerd_without_the_right_to_read():
    with hub_cluster(nodes=1) as lab:
        node, image = lab.nodes[0], push_runnable(lab, "library/app")
        node.dockerd.pull("app:1")  # the agent holds it all
        node.dockerd.docker("rmi", "app:1")
        for user, password in ((None, PASSWORD), (USER, "wrong")):
            asked = node.metric("shoal_requests_total")
            done = node.dockerd.pull("app:1", user=user, password=password, check=False)
            it.check(done.returncode != 0 and node.metric("shoal_requests_total") > asked, f"dockerd got a private image as {user}: {done.stderr}")
            it.check(node.dockerd.docker("images", "-q").stdout == "", "dockerd kept something of a refused pull")
        node.process.stop()
        node.dockerd.pull("app:1")
        dockerd_has(node, "app:1", image)  # from the Hub itself


def test_multi_arch_index():
    with cluster("public") as lab:
        index, images = push_multi(lab, "lib/multi")
        layers = {layer["digest"]: layer["size"] for image in images for layer in image["parts"]["layers"]}
        direct = lab.nodes[0].dir / "direct"
        Libpod(lab.nodes[0].sandbox, "public", mirror=False).skopeo("lib/multi:1", direct, "--all")
        for node, source in zip(lab.nodes, ("origin", "mesh")):
            with counted(node, sum(layers.values()), source):
                Libpod(node.sandbox, "public").skopeo("lib/multi:1", node.dir / "mirrored", "--all")
            check_same_directory(direct, node.dir / "mirrored")
        containerd = Containerd(lab.nodes[1].sandbox)
        containerd.pull("public", "lib/multi:1", "--platform", "linux/arm64")
        arm = next(i for i in images if i["platform"]["architecture"] == "arm64")
        blobs = {d["digest"]: d["size"] for d in (index, arm, arm["parts"]["config"], *arm["parts"]["layers"])}
        it.check(containerd.blobs() == blobs, f"arm64 alone: {containerd.blobs()}")


def test_clients_at_once_share_one_read():
    with cluster("public", nodes=1) as lab:
        node, image = lab.nodes[0], push_runnable(lab, "lib/app", 24 * MIB)
        skopeo = Libpod(node.sandbox, "public")
        node.count_sources()
        copies = [Process(node.sandbox.exec(*skopeo.skopeo_args("lib/app:1", node.dir / f"copy{i}")), node.dir / f"copy{i}.log") for i in range(6)]
        codes = [copy.popen.wait(timeout=60) for copy in copies]
        it.check(codes == [0] * 6, f"exit codes {codes}: {copies[0].text()[-300:]}")
        first = directory_hashes(node.dir / "copy0")
        it.check(all(directory_hashes(node.dir / f"copy{i}") == first for i in range(6)), "copies differ")
        read = node.sources()["origin_bytes"]
        it.check(read < 1.1 * image_bytes(image), f"six clients made the agent read {read} bytes for {image_bytes(image)}")


def test_a_client_that_goes_away_leaves_nothing():
    with cluster("public", nodes=1) as lab:
        node = lab.nodes[0]
        push_runnable(lab, "lib/app", 48 * MIB)
        skopeo = Libpod(node.sandbox, "public")
        for attempt in range(5):
            client = Process(node.sandbox.exec(*skopeo.skopeo_args("lib/app:1", node.dir / f"gone{attempt}")), node.dir / "gone.log")
            time.sleep(0.05 + 0.03 * attempt)
            client.kill()
        end = time.monotonic() + 10
        while node.metric("shoal_readers") + node.metric("shoal_client_connections") > 0 and time.monotonic() < end:
            time.sleep(0.1)
        it.check(node.metric("shoal_readers") == 0 and node.metric("shoal_client_connections") == 0, "readers or connections of killed clients are left")
        Libpod(node.sandbox, "public", mirror=False).skopeo("lib/app:1", node.dir / "direct")
        skopeo.skopeo("lib/app:1", node.dir / "copy")
        check_same_directory(node.dir / "direct", node.dir / "copy")


def off_the_mesh(extra):
    """Pulls on both nodes with this configuration read the registry, and are right."""
    with Lab(2) as lab:
        start_registries(lab, "public")
        lab.start_nodes(extra(lab))
        lab.wait_members()
        image = push_runnable(lab, "lib/app")
        for node in lab.nodes:
            node.sandbox = Sandbox(node)
            with counted(node, image_bytes(image), "origin"):
                Libpod(node.sandbox, "public").skopeo("lib/app:1", node.dir / "copy")
            Libpod(node.sandbox, "public", mirror=False).skopeo("lib/app:1", node.dir / "direct")
            check_same_directory(node.dir / "direct", node.dir / "copy")


def test_acl_10_registry_off_the_mesh():
    off_the_mesh(lambda lab: {"registries": [{**lab.registries[0], "p2p": False}]})


def test_tags_left_to_clients():
    """Tags that a rule leaves to clients: each asks the registry for them by itself, and is right; containerd reads all the rest through the agent."""
    with Lab(1) as lab:
        start_registries(lab, "public")
        lab.start_nodes({"registries": [{**lab.registries[0], "tags": ["lib/* off"]}]})
        image, node = push_runnable(lab, "lib/app"), lab.nodes[0]
        blobs = {d["digest"]: d["size"] for d in (image, image["parts"]["config"], *image["parts"]["layers"])}
        node.sandbox = Sandbox(node)
        Libpod(node.sandbox, "public", mirror=False).skopeo("lib/app:1", node.dir / "direct")
        Libpod(node.sandbox, "public").skopeo("lib/app:1", node.dir / "copy")
        check_same_directory(node.dir / "direct", node.dir / "copy")
        off = node.metric("shoal_tags_off_total")
        containerd = Containerd(node.sandbox)
        with counted(node, image_bytes(image), "origin"):
            containerd.pull("public", "lib/app:1")
        it.check(containerd.blobs() == blobs, f"content store: {containerd.blobs()}")
        it.check(off > 0 and node.metric("shoal_tags_off_total") > off, f"{off}, then {node.metric('shoal_tags_off_total')} tags were left to clients")


def test_hrd_7_passthrough():
    off_the_mesh(lambda lab: {"mode": "passthrough"})


def test_a_crowd_of_clients_around_the_mesh():
    """Sixty bodies, each kept whole until it is verified (INT-2), in an agent that has memory for a few at a time."""
    with Lab(1) as lab:
        start_registries(lab, "public")
        lab.start_nodes({"mode": "passthrough", "limits.buffers": "32MiB"})
        node, image = lab.nodes[0], push_runnable(lab, "lib/app", 7 * MIB)
        for layer in (image["parts"]["layers"][1], push_runnable(lab, "lib/big", 20 * MIB)["parts"]["layers"][1]):
            name = "lib/app" if layer["size"] < 8 * MIB else "lib/big"
            url = f"http://127.0.0.1:{CLIENT_PORT}/v2/{name}/blobs/{layer['digest']}"
            done = run(*node.exec("bash", "-c", 'seq 60 | xargs -P 60 -I{} sh -c "curl -sSf -m 60 $0 | sha256sum"', url), timeout=100)
            right = done.stdout.split().count(layer["digest"].split(":")[1])
            it.check(right == 60, f"{right} of 60 clients got {layer['size']} right bytes: {done.stderr[-300:]}")
        resident = int(run("ps", "-o", "rss=", "-p", node.process.pid).stdout) >> 10
        it.figure(f"60 clients at once in passthrough: {resident} MiB resident after it")


def test_origin_serves_when_the_agent_is_gone():
    with cluster("basic", nodes=1) as lab:
        node = lab.nodes[0]
        image = push_runnable(lab, "lib/app")
        containerd = Containerd(node.sandbox)
        it.check(node.process.stop() == 0, "the agent did not stop in order")
        started = time.monotonic()
        Libpod(node.sandbox, "basic").skopeo("lib/app:1", node.dir / "copy")
        Libpod(node.sandbox, "basic").podman("pull", "-q", f"{upstream('basic')}/lib/app:1")
        containerd.pull("basic", "lib/app:1")
        took = time.monotonic() - started
        it.check(image["digest"] in containerd.blobs(), "containerd has another image")
        it.check(took < 20, f"three pulls around a stopped agent took {took:.1f} s")
        it.figure(f"three pulls around a stopped agent: {took:.1f} s")


# ---- who may read ----

def fetch(node, path: str, *args):
    """As a client that takes OCI manifests: distribution answers 404 to others."""
    return pull.fetch(node, path, "-H", f"Accept: {MANIFEST}", *args)


def ns(mode: str) -> str:
    return f"?ns={upstream(mode).replace(':', '%3A')}"


def bearer(lab, repository: str, user=f"{USER}:{PASSWORD}") -> str:
    login = ["-u", user] if user else []
    url = f"http://{lab.origin_address}:{TOKEN_PORT}/token?service=registry.test&scope=repository:{repository}:pull"
    return "Authorization: Bearer " + json.loads(run(*lab.origin_exec("curl", "-sf", *login, url)).stdout)["token"]


def registry_says(lab, mode: str, path: str, *args) -> tuple[int, str]:
    """Status and challenge of the registry itself."""
    head = run(*lab.origin_exec("curl", "-s", "-I", *args, f"http://{lab.origin_address}:{PORTS[mode]}{path}")).stdout
    challenge = [line.partition(":")[2].strip() for line in head.splitlines() if line.lower().startswith("www-authenticate:")]
    return int(head.split()[1]), challenge[0] if challenge else ""


def refused_like_the_registry(lab, mode: str, path: str, *args):
    """Without right credentials: the registry's own status and challenge, for GET and HEAD, cached or not (ACL-1, ACL-4)."""
    wanted, challenge = registry_says(lab, mode, path, *args)
    it.check(wanted in (401, 403) and challenge, f"the registry itself lets {args} read {path}: {wanted}")
    for method in ((), ("-I",)):
        status, headers, body = fetch(lab.nodes[0], path + ns(mode), *method, *args)
        it.check(status == wanted, f"{path} {method} {args}: {status}, the registry says {wanted}")
        it.check(headers.get("www-authenticate") == challenge, f"{path} {args}: challenge {headers.get('www-authenticate')!r}, not {challenge!r}")
        it.check(len(body) < 4096, "a refusal with content")


def private_content_is_private(mode: str):
    with cluster(mode, nodes=1) as lab:
        node, image = lab.nodes[0], push_runnable(lab, "lib/app")
        good = BASIC if mode == "basic" else bearer(lab, "lib/app")
        manifest = f"/v2/lib/app/manifests/{image['digest']}"
        blobs = [f"/v2/lib/app/blobs/{d['digest']}" for d in (image["parts"]["config"], *image["parts"]["layers"])]
        for path in (manifest, *blobs):
            status, _, body = fetch(node, path + ns(mode), "-H", good)
            it.check(status == 200 and "sha256:" + hashlib.sha256(body).hexdigest() == path.rsplit("/", 1)[1], f"{path}: {status}")
        bad = [(), ("-H", WRONG)] if mode == "basic" else [(), ("-H", bearer(lab, "lib/app", "")), ("-H", bearer(lab, "lib/other")), ("-H", good + "x")]
        for path in (manifest, "/v2/lib/app/manifests/1", *blobs):
            for args in bad:
                refused_like_the_registry(lab, mode, path, *args)
        # The same blob through a repository that does not have it counts for nothing (ACL-3).
        other = BASIC if mode == "basic" else bearer(lab, "lib/other")
        status, _, _ = fetch(node, f"/v2/lib/other/blobs/{image['parts']['config']['digest']}{ns(mode)}", "-H", other)
        it.check(status == 404, f"a blob through another repository: {status}")
        status, _, _ = fetch(node, blobs[0] + ns(mode), "-H", good)
        it.check(status == 200, f"refusals of others ended a caller's own grant: {status}")


def test_acl_4_cached_content_without_credentials_htpasswd():
    private_content_is_private("basic")


def test_acl_4_cached_content_without_credentials_token():
    private_content_is_private("bearer")


SAMPLES = 1000


class Refusals:
    """Refused requests over one kept connection, by what they ask for: their looks must be the same, and their medians."""

    def __init__(self, node, mode: str, image: dict, absent: dict):
        self.node, self.ns = node, ns(mode)
        unknown = "sha256:" + "5" * 64
        first = {"cached": image["parts"]["layers"][0]["digest"], "absent": image["parts"]["layers"][1]["digest"], "unknown": unknown}
        self.paths = {"blobs": first, "manifests": {"cached": image["digest"], "absent": absent["digest"], "unknown": unknown}}

    def compare(self, who: str, headers: dict, method: str, kind: str, wanted=401, samples=SAMPLES, probes=0):
        """`wanted`: the status of all. `probes`: answers that may differ, because a request found out that the registry is still down."""
        paths, seen = self.paths[kind], {}
        times = {name: [] for name in paths}
        client = HTTPConnection("mirror.test")
        client.sock = it.connect(self.node, CLIENT_PORT)
        for _ in range(samples):
            for name in random.sample(sorted(paths), len(paths)):
                started = time.monotonic()
                client.request(method, f"/v2/lib/app/{kind}/{paths[name]}{self.ns}", headers={"Accept": MANIFEST, **headers})
                answer = client.getresponse()
                body = answer.read()
                times[name].append(time.monotonic() - started)
                look = seen.setdefault((answer.status, str(answer.getheaders()), len(body)), dict.fromkeys(paths, 0))
                look[name] += 1
        client.close()
        what = f"{who} {method} {kind}"
        it.check({look[0] for look in seen} == {wanted}, f"ACL-8: {what}: {seen}, not {wanted}")
        for counts in seen.values():  # what of a registry that is down differs, by the moment, must not differ by what is asked for
            it.check(max(counts.values()) - min(counts.values()) <= probes, f"ACL-8: {what}: answers differ: {seen}")
        medians = {name: statistics.median(values) * 1000 for name, values in times.items()}
        spread = max(medians.values()) - min(medians.values())
        it.check(spread < max(1.0, 0.1 * max(medians.values())), f"ACL-8: {what}: medians in ms: {medians}")
        it.figure(f"{what}: {wanted} in {max(medians.values()):.2f} ms, spread of {len(paths)} medians of {samples}: {spread:.2f} ms")


def refusals_look_alike(mode: str, callers):
    """`callers(lab)`: headers of callers without a right, by name. What is cached, what only the registry has, and what does not exist."""
    with cluster(mode, nodes=1) as lab:
        node = lab.nodes[0]
        image = push_runnable(lab, "lib/app")
        good = BASIC if mode == "basic" else bearer(lab, "lib/app")
        for path in (f"manifests/{image['digest']}", f"blobs/{image['parts']['layers'][0]['digest']}"):
            status, _, _ = fetch(node, f"/v2/lib/app/{path}{ns(mode)}", "-H", good)
            it.check(status == 200, f"first read: {status}")
        other = push_runnable(lab, "lib/app")
        it.check(other["digest"] != image["digest"], "both images are one")
        refusals = Refusals(node, mode, image, other)
        for who, headers in callers(lab).items():
            for method, kind in (("GET", "blobs"), ("HEAD", "manifests")):
                refusals.compare(f"{mode}, {who}:", headers, method, kind)
            refusals.compare(f"{mode}, {who}:", headers, "HEAD", "blobs", samples=200)
            refusals.compare(f"{mode}, {who}:", headers, "GET", "manifests", samples=200)
        stop_registries(lab)
        time.sleep(0.5)
        for who, headers in callers(lab).items():  # the token service is still there
            fetch(node, f"/v2/lib/app/manifests/1{ns(mode)}", *[f"-H{k}: {v}" for k, v in headers.items()])  # waits until it is known to be down
            for method, kind in (("GET", "blobs"), ("HEAD", "manifests")):
                refusals.compare(f"{mode}, registry down, {who}:", headers, method, kind, 503 if headers else 401, probes=5)


def header(line: str) -> dict:
    name, _, value = line.partition(": ")
    return {name: value}


def test_acl_8_refusals_look_alike_htpasswd():
    refusals_look_alike("basic", lambda lab: {"anonymous": {}, "wrong login": header(WRONG)})


def test_acl_8_refusals_look_alike_token():
    refusals_look_alike("bearer", lambda lab: {"another repository's token": header(bearer(lab, "lib/other")), "nobody's token": header(bearer(lab, "lib/app", ""))})


# ---- the registry is gone ----

def stop_registries(lab):
    for process in lab.processes:
        if "docker-registry" in process_args(process):
            process.kill()


def process_args(process) -> list[str]:
    popen = getattr(process, "popen", None)
    return popen.args if popen else []


def test_acl_6_registry_stopped_after_the_first_pull():
    with cluster("basic") as lab:
        first, second = lab.nodes
        image = push_runnable(lab, "lib/app")
        Libpod(first.sandbox, "basic").skopeo("lib/app:1", first.dir / "copy")
        manifest = f"/v2/lib/app/manifests/{image['digest']}{ns('basic')}"
        status, _, _ = fetch(second, manifest, "-H", BASIC)
        it.check(status == 200, f"manifest on the second node: {status}")
        stop_registries(lab)
        with counted(second, image_bytes(image), "mesh"):
            for descriptor in (image["parts"]["config"], *image["parts"]["layers"]):
                status, _, body = fetch(second, f"/v2/lib/app/blobs/{descriptor['digest']}{ns('basic')}", "-H", BASIC)
                it.check(status == 200 and "sha256:" + hashlib.sha256(body).hexdigest() == descriptor["digest"],
                         f"{descriptor['digest'][:15]} without the registry: {status}, {len(body)} of {descriptor['size']} bytes")
            status, _, _ = fetch(second, manifest, "-H", BASIC)
            it.check(status == 200, f"manifest without the registry: {status}")
        for node in lab.nodes:
            for path in (manifest, f"/v2/lib/app/blobs/{image['parts']['layers'][0]['digest']}{ns('basic')}"):
                for args in ((), ("-H", WRONG)):
                    started = time.monotonic()
                    status, headers, body = fetch(node, path, *args)
                    took = time.monotonic() - started
                    asked = node is first and not args  # skopeo heard the challenge through this node, and nobody through the other one
                    it.check(status == (401 if asked else 503), f"{node.name} {path} {args}: {status} with the registry gone")
                    it.check(headers.get("www-authenticate", "").startswith("Basic ") == asked, f"{node.name} {path} {args}: {headers}")
                    it.check(took < 10 and len(body) < 1024, f"the refusal took {took:.1f} s, {len(body)} bytes")  # O-2


def test_acl_6_a_client_logs_in_while_the_registry_is_down():
    """skopeo sends credentials only where it was challenged: the challenge of before is repeated, and the grant of before holds."""
    with cluster("basic", nodes=1) as lab:
        node = lab.nodes[0]
        image = push_runnable(lab, "lib/app")
        Libpod(node.sandbox, "basic").skopeo("lib/app:1", node.dir / "copy")
        stop_registries(lab)
        Libpod(node.sandbox, "basic").skopeo(f"lib/app@{image['digest']}", node.dir / "again")
        check_same_directory(node.dir / "copy", node.dir / "again")
        done = Libpod(node.sandbox, "basic", password="wrong").skopeo(f"lib/app@{image['digest']}", node.dir / "refused", check=False)
        it.check(done.returncode != 0, "a wrong password was good enough while the registry was down")


def test_o_1_containerd_pulls_by_digest_without_the_registry():
    with cluster("public") as lab:
        first, second = lab.nodes
        image = push_runnable(lab, "lib/app")
        Libpod(first.sandbox, "public").skopeo("lib/app:1", first.dir / "copy")
        status, _, _ = fetch(second, f"/v2/lib/app/manifests/{image['digest']}{ns('public')}")
        it.check(status == 200, f"manifest on the second node: {status}")
        containerd = Containerd(second.sandbox)
        stop_registries(lab)
        started = time.monotonic()
        with counted(second, image_bytes(image), "mesh"):
            containerd.pull("public", f"lib/app@{image['digest']}")
        it.check(image["digest"] in containerd.blobs() and len(containerd.blobs()) == 4, f"content store: {containerd.blobs()}")
        it.figure(f"pull by digest without the registry: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
