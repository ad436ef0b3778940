#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The pull side of the OCI distribution-spec (CLIENTS 11): every question is asked of the registry and of two agents, and the answers compared.

Asked of Debian's docker-registry and of a strict registry of spec 1.1 (oci_registry.py). The first agent is asked twice: what it
keeps must be as good as what it was told. The second has blobs from the first.
"""
import base64
import json
import os
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path

import it
from lab import Lab, Process, inside
from oci_registry import digest_of
from runtimes import PASSWORD, PORTS, USER, start_registries, upstream

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG, LAYER, EMPTY = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.empty.v1+json"
TYPES = (MANIFEST, INDEX, DOCKER, "application/vnd.docker.distribution.manifest.list.v2+json")
CODES = {"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN",
         "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS"}
ABSENT = "sha256:" + "0" * 64
REGISTRIES = {"docker": 5000, "strict": 5001}
NAMES = {kind: f"registry.test:{port}" for kind, port in REGISTRIES.items()}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """A place that answers /v2/: a registry, or an agent that stands for it."""
    netns: str
    address: tuple[str, int]
    host: str
    ns: str = ""  # of an agent that is told which registry

    def ask(self, method: str, path: str, headers=(), body=None) -> Answer:
        if self.ns and "ns=" not in path:
            path += ("&" if "?" in path else "?") + f"ns={self.ns.replace(':', '%3A')}"
        client = HTTPConnection(*self.address, timeout=20)
        with inside(self.netns):
            client.connect()
        client.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in (("Host", self.host), *headers):
            client.putheader(name, value)
        if body is not None:
            client.putheader("Content-Length", str(len(body)))
        client.endheaders(body)
        got = client.getresponse()
        try:
            sent = got.read()
        except IncompleteRead as short:  # docker-registry's 416 tells the blob's length (CLIENTS 4)
            it.check(got.status == 416, f"{method} {path}: {got.status} with a short body")
            sent = short.partial
        answer = Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, sent)
        client.close()
        return answer


class World:
    """Two registries with the same content, two agents."""

    def __init__(self, lab: Lab):
        self.lab = lab
        self.straight = {kind: Server(lab.origin_ns, (lab.origin_address, port), NAMES[kind]) for kind, port in REGISTRIES.items()}

    def through(self, kind: str) -> list[Server]:
        """The first agent cold and warm, the second one; the strict registry is their default and need not be named."""
        places = [Server(node.netns, ("127.0.0.1", node.client_port), "mirror.test", NAMES[kind]) for node in (*self.lab.nodes[:1], *self.lab.nodes)]
        if kind == "strict":
            places.append(Server(self.lab.nodes[0].netns, ("127.0.0.1", self.lab.nodes[0].client_port), "mirror.test"))
        return places

    # ---- push: around the agents ----

    def put_blob(self, kind: str, name: str, data: bytes, algorithm="sha256") -> dict:
        server, digest = self.straight[kind], digest_of(data, algorithm)
        where = server.ask("POST", f"/v2/{name}/blobs/uploads/", body=b"").headers["location"]
        where = re.sub(r"^https?://[^/]+", "", where)
        done = server.ask("PUT", f"{where}{'&' if '?' in where else '?'}digest={digest}", [("Content-Type", "application/octet-stream")], data)
        it.check(done.status == 201, f"push to {kind}: {done.status} {done.body[:200]}")
        return {"mediaType": LAYER, "digest": digest, "size": len(data)}

    def put_manifest(self, kind: str, name: str, value: dict, *tags: str, algorithm="sha256") -> dict:
        body = json.dumps(value).encode()
        for reference in tags or (digest_of(body, algorithm),):
            done = self.straight[kind].ask("PUT", f"/v2/{name}/manifests/{reference}", [("Content-Type", value["mediaType"])], body)
            it.check(done.status == 201, f"push to {kind}: {done.status} {done.body[:300]}")
        return {"mediaType": value["mediaType"], "digest": digest_of(body, algorithm), "size": len(body)}

    def image(self, kind: str, name: str, *tags: str, media_type=MANIFEST, layers=(2048,), **more) -> tuple[dict, dict]:
        """An image; (its descriptor, its manifest)."""
        docker = media_type == DOCKER
        config = {**self.put_blob(kind, name, json.dumps({"salt": os.urandom(8).hex(), "rootfs": {"type": "layers", "diff_ids": []}}).encode()),
                  "mediaType": "application/vnd.docker.container.image.v1+json" if docker else CONFIG}
        parts = [self.put_blob(kind, name, os.urandom(size)) for size in layers]
        for part in parts:
            part["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else LAYER
        value = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": parts, **more}
        return self.put_manifest(kind, name, value, *tags), value


@contextmanager
def world():
    with Lab(2) as lab:
        lab.start_registry(port=REGISTRIES["docker"])
        lab.processes.append(Process(lab.origin_exec(sys.executable, Path(__file__).with_name("oci_registry.py"), "--host", lab.origin_address,
                                                     "--port", REGISTRIES["strict"]), lab.dir / "strict.log"))
        lab.registries = [{"name": name, "endpoint": f"http://registry.test:{REGISTRIES[kind]}", "plainHttp": True, "allowPrivate": True, "default": kind == "strict"}
                          for kind, name in NAMES.items()]
        lab.start_nodes()
        lab.wait_members()
        made, end = World(lab), time.monotonic() + 10
        while True:
            try:
                made.straight["strict"].ask("GET", "/v2/")
                break
            except OSError:
                it.check(time.monotonic() < end, "the strict registry did not start")
                time.sleep(0.05)
        yield made


# ---- what two answers must have in common ----

@dataclass
class Question:
    path: str
    headers: tuple = ()
    statuses: tuple[int, ...] = ()  # () those of the registry
    digest: str = ""  # that Docker-Content-Digest must name
    code: str = ""    # of the error body; "" the registry's own
    methods: tuple[str, ...] = ("GET", "HEAD")
    same: tuple[str, ...] = field(default=("content-length", "content-range", "oci-filters-applied", "etag"))


def error_code(answer: Answer) -> str:
    try:
        return json.loads(answer.body)["errors"][0]["code"]
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def check_success(where: str, question: Question, method: str, direct: Answer, got: Answer):
    it.check(got.body == direct.body, f"{where}: {len(got.body)} bytes, the registry sent {len(direct.body)}, or others")
    it.check(method == "GET" or got.body == b"", f"{where}: HEAD with a body")
    it.check("content-encoding" not in got.headers and "transfer-encoding" not in got.headers, f"{where}: {got.headers}")
    it.check(method == "HEAD" or int(got.headers["content-length"]) == len(got.body), f"{where}: {got.headers}")
    for name in question.same:
        if name in direct.headers and not (name == "etag" and ":" in question.path):  # what has a digest needs no other validator
            it.check(got.headers.get(name) == direct.headers[name], f"{where}: {name}: {got.headers.get(name)!r}, the registry: {direct.headers[name]!r}")
    if "/blobs/" not in question.path:
        it.check(got.headers.get("content-type") == direct.headers.get("content-type"), f"{where}: {got.headers}, the registry: {direct.headers}")
    if question.digest:
        it.check(got.headers.get("docker-content-digest") == question.digest, f"{where}: digest {got.headers.get('docker-content-digest')}, not {question.digest}")


def check_error(where: str, question: Question, direct: Answer, got: Answer):
    code = error_code(got)
    if not error_code(direct) and got.status == direct.status and got.body == direct.body:
        return  # the registry's own words, for what it does not know at all
    it.check(got.headers.get("content-type", "").startswith("application/json"), f"{where}: {got.headers}")
    it.check(code in CODES, f"{where}: {got.status} with code {code!r}: {got.body[:200]}")
    wanted = question.code or error_code(direct)
    it.check(not wanted or code == wanted, f"{where}: code {code}, wanted {wanted}")


def compare(world: World, kind: str, question: Question):
    for method in question.methods:
        direct = world.straight[kind].ask(method, question.path, question.headers)
        for place, server in enumerate(world.through(kind)):
            got = server.ask(method, question.path, question.headers)
            where = f"{kind} {('cold', 'warm', 'second node', 'default')[place]} {method} {question.path} {question.headers}"
            allowed = question.statuses or (direct.status,)
            it.check(got.status in allowed, f"{where}: {got.status}, the registry: {direct.status} {got.body[:200]}")
            if got.status == direct.status and got.status < 300:
                check_success(where, question, method, direct, got)
            elif method == "GET" and got.status not in (304, 416):
                check_error(where, question, direct, got)


def accept(*types: str) -> tuple:
    """As two lines at least: a mirror that keeps the last one only would be found out."""
    return tuple(("Accept", t) for t in types)


def manifest_questions(name: str, descriptor: dict, *tags: str, types=TYPES) -> list[Question]:
    return [Question(f"/v2/{name}/manifests/{reference}", accept(*types), digest=descriptor["digest"]) for reference in (*tags, descriptor["digest"])]


# ---- the suite ----

def test_base():
    with world() as made:
        for kind in NAMES:
            compare(made, kind, Question("/v2/"))


def test_manifests_by_tag_and_digest():
    """Images of both kinds, an index, one in an index, an empty one: bytes, type, length, digest."""
    with world() as made:
        for kind in NAMES:
            first, _ = made.image(kind, "lib/app", "1", "latest", layers=(2048, 70000))
            docker, _ = made.image(kind, "lib/app", "docker", media_type=DOCKER)
            second, _ = made.image(kind, "lib/app")
            index = made.put_manifest(kind, "lib/app", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [
                {**first, "platform": {"architecture": "amd64", "os": "linux"}}, {**second, "platform": {"architecture": "arm64", "os": "linux"}}]}, "multi")
            for descriptor, *tags in ((first, "1", "latest"), (docker, "docker"), (second,), (index, "multi")):
                for question in manifest_questions("lib/app", descriptor, *tags):
                    compare(made, kind, question)
                    status = made.through(kind)[0].ask("GET", question.path, question.headers).status
                    it.check(status == 200, f"{question.path}: {status}: nothing was compared")


def test_heads_without_a_length():
    """A length that the registry did not tell is not made up: containerd takes none as a reason to GET, and 0 as the size."""
    with world() as made:
        image, _ = made.image("strict", "unsized/app", "1")
        got = made.through("strict")[0].ask("HEAD", "/v2/unsized/app/manifests/1", accept(*TYPES))
        it.check(got.status == 200 and "content-length" not in got.headers, f"{got.status} {got.headers}")
        for question in manifest_questions("unsized/app", image, "1"):
            compare(made, "strict", question)


def test_v2_with_authentication():
    """`/v2/` of a registry that wants a login: its own 401 and challenge for nobody and for a wrong login, 200 for a right one."""
    with Lab(1) as lab:
        start_registries(lab, "basic")
        lab.start_nodes()
        node, name = lab.nodes[0], upstream("basic")
        straight = Server(lab.origin_ns, (lab.origin_address, PORTS["basic"]), name)
        places = [Server(node.netns, ("127.0.0.1", node.client_port), "mirror.test", ns) for ns in (name, "")]  # named, and by default
        for login, wanted in (("", 401), (f"{USER}:wrong", 401), (f"{USER}:{PASSWORD}", 200)):
            headers = [("Authorization", "Basic " + base64.b64encode(login.encode()).decode())] if login else []
            for method in ("GET", "HEAD"):
                direct = straight.ask(method, "/v2/", headers)
                it.check(direct.status == wanted, f"the registry itself: {direct.status}")
                for place in places:
                    got = place.ask(method, "/v2/", headers)
                    where = f"{method} {login or 'nobody'} {place.ns}"
                    it.check(got.status == wanted, f"{where}: {got.status}, the registry: {wanted}")
                    it.check(got.headers.get("docker-distribution-api-version") == "registry/2.0", f"{where}: {got.headers}")
                    it.check(got.headers.get("www-authenticate") == direct.headers.get("www-authenticate"), f"{where}: {got.headers}")
                    it.check(wanted == 200 or method == "HEAD" or error_code(got) == "UNAUTHORIZED", f"{where}: {got.body[:200]}")


def passes_on(made: World, kind: str, name: str, value: dict, tag: str, **how) -> dict:
    """Pushes a manifest, and has it compared by tag and by digest, with 200 everywhere."""
    descriptor = made.put_manifest(kind, name, value, tag, **how)
    for question in manifest_questions(name, descriptor, tag):
        question.statuses = (200,)
        compare(made, kind, question)
    return descriptor


def test_large_manifest():
    """As in the spec's own suite: 390 annotations of 10,000 bytes, below the 4 MiB that registries take; and one just below that."""
    with world() as made:
        for kind in NAMES:
            blob = made.put_blob(kind, "lib/large", b"{}")
            for tag, count, size in (("390", 390, 10000), ("limit", 1, (4 << 20) - 1000)):
                value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {**blob, "mediaType": EMPTY}, "layers": [{**blob, "mediaType": EMPTY}],
                         "annotations": {f"large-annotation-{i}": "A" * size for i in range(count)}}
                it.check(3.9e6 < len(json.dumps(value)) < 4 << 20, f"{len(json.dumps(value))} bytes")
                passes_on(made, kind, "lib/large", value, tag)


def test_subjects_and_artifact_indexes():
    """The spec's own suite: an index with subject, a manifest whose subject does not exist, an index of artifacts; referrers of both subjects."""
    with world() as made:
        for kind in NAMES:
            name, artifact = "lib/subjects", "application/vnd.example.oci.conformance.one"
            empty = {**made.put_blob(kind, name, b"{}"), "mediaType": EMPTY}
            image, _ = made.image(kind, name, "image")
            part = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact, "config": empty, "layers": [empty]}
            parts = [made.put_manifest(kind, name, {**part, "annotations": {"n": str(i)}}) for i in range(2)]
            nowhere = {"mediaType": MANIFEST, "digest": digest_of(b"no such subject"), "size": 123}
            made_of = [passes_on(made, kind, name, value, tag) for tag, value in (
                ("index-subject", {"schemaVersion": 2, "mediaType": INDEX, "artifactType": artifact, "manifests": [image], "subject": image}),
                ("no-subject", {**part, "subject": nowhere}),
                ("artifact-index", {"schemaVersion": 2, "mediaType": INDEX, "artifactType": artifact, "manifests": parts}))]
            compare(made, kind, Question(f"/v2/{name}/manifests/{nowhere['digest']}", accept(*TYPES), statuses=(404,), code="MANIFEST_UNKNOWN"))
            for subject, wanted in ((image, made_of[:1]), (nowhere, made_of[1:2])):
                path = f"/v2/{name}/referrers/{subject['digest']}"
                compare(made, kind, Question(path, statuses=(200,) if kind == "strict" else (404,)))
                for server in made.through(kind) if kind == "strict" else ():
                    found = [(one["digest"], one["mediaType"]) for page in follow(server, path) for one in page["manifests"]]
                    it.check(found == [(one["digest"], one["mediaType"]) for one in wanted], f"{path}: {found}")


def test_sha512_indexes_and_tags():
    """An index and its manifests by SHA-512, by digest and by a tag that was pushed beside it (?tag=)."""
    with world() as made:
        name = "lib/long"
        blob = made.put_blob("strict", name, os.urandom(1000), "sha512")
        image = made.put_manifest("strict", name, {"schemaVersion": 2, "mediaType": MANIFEST, "config": blob, "layers": [blob]}, algorithm="sha512")
        value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [image], "subject": image}
        body = json.dumps(value).encode()
        digest = digest_of(body, "sha512")
        done = made.straight["strict"].ask("PUT", f"/v2/{name}/manifests/{digest}?tag=tagged", [("Content-Type", INDEX)], body)
        it.check(done.status == 201, f"{done.status}")
        for reference in ("tagged", digest, image["digest"]):
            compare(made, "strict", Question(f"/v2/{name}/manifests/{reference}", accept(*TYPES), statuses=(200,), digest=digest if reference != image["digest"] else reference))
        compare(made, "strict", Question(f"/v2/{name}/referrers/{image['digest']}", statuses=(200,)))


def test_artifacts_and_odd_manifests():
    """What a mirror need not understand: it passes bytes on. Large annotations, inline data, artifacts, nested and empty indexes, own fields."""
    with world() as made:
        for kind in NAMES:
            name = "odd/things"
            blob = made.put_blob(kind, name, b"{}")
            empty = {**blob, "mediaType": EMPTY, "data": "e30="}
            subject, _ = made.image(kind, name, "subject")
            nested = [{"schemaVersion": 2, "mediaType": INDEX, "manifests": [subject]}, {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}]
            values = [{"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example", "config": empty, "layers": [empty], "subject": subject},
                      {"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [], "org.example.own": {"a": [1, None, "\u00e9\n"]}},
                      {"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [empty],
                       "annotations": {f"org.example.{i}": "x" * 1000 for i in range(700)}}, *nested]
            if kind == "strict":  # docker-registry does not take them: it wants an index's members, and layers that are there
                values += [{"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": MANIFEST, "digest": ABSENT, "size": 7}]},
                           {"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [
                               {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": ABSENT, "size": 9, "urls": ["https://evil.test/x"]}]}]
            for i, value in enumerate(values):
                descriptor = made.put_manifest(kind, name, value, f"odd{i}")
                for question in manifest_questions(name, descriptor, f"odd{i}"):
                    compare(made, kind, question)


def test_accept():
    """Types that the client does not take get the registry's verdict, whoever was answered what before; forms of Accept; news only."""
    with world() as made:
        for kind in NAMES:
            image, _ = made.image(kind, "lib/app", "1")
            index = made.put_manifest(kind, "lib/app", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [image]}, "multi")
            for tag, descriptor, other in (("1", image, INDEX), ("multi", index, MANIFEST)):
                path = f"/v2/lib/app/manifests/{tag}"
                compare(made, kind, Question(path, accept(*TYPES), digest=descriptor["digest"]))
                compare(made, kind, Question(path, accept(other)))
                compare(made, kind, Question(path, (("Accept", ", ".join(TYPES)),), digest=descriptor["digest"]))
                compare(made, kind, Question(path, accept(*TYPES, "*/*"), digest=descriptor["digest"]))
                compare(made, kind, Question(path, (*accept(*TYPES), ("If-None-Match", f'"{descriptor["digest"]}"')), statuses=(304,), methods=("GET",)))
                compare(made, kind, Question(path, (*accept(*TYPES), ("If-None-Match", '"sha256:other"')), digest=descriptor["digest"], methods=("GET",)))


def test_blobs_and_ranges():
    """Whole and in part; of no byte, of two, of many; ranges at every edge."""
    with world() as made:
        for kind in NAMES:
            blobs = {size: made.put_blob(kind, "lib/app", os.urandom(size) if size != 2 else b"{}") for size in (0, 2, 2048, 300000, 9 << 20)}
            for size, descriptor in blobs.items():
                path = f"/v2/lib/app/blobs/{descriptor['digest']}"
                compare(made, kind, Question(path, digest=descriptor["digest"], statuses=(200,)))
                compare(made, kind, Question(path, (("Accept", "*/*"), ("Accept-Encoding", "gzip")), digest=descriptor["digest"], methods=("GET",)))
                if size < 2048:
                    continue
                for part in ("500-1499", "500-", "-500", f"{size - 48}-{size + 3000}", "0-0", f"{size - 1}-", f"0-{size - 1}"):
                    compare(made, kind, Question(path, (("Range", f"bytes={part}"),), statuses=(206,), digest=descriptor["digest"], methods=("GET",)))
                for part in ("500-0", f"{size}-", f"{size + 5000}-{size + 10000}"):
                    compare(made, kind, Question(path, (("Range", f"bytes={part}"),), statuses=(416,), methods=("GET",)))
                for part in ("bytes=abc", "lines=1-2", "bytes=0-1,4-5"):  # RFC 9110 14.2: may be ignored
                    got = made.through(kind)[0].ask("GET", path, [("Range", part)])
                    it.check(got.status == 200 and len(got.body) == size, f"{part}: {got.status}")


def test_sha512():
    with world() as made:
        data = os.urandom(100000)
        blob = made.put_blob("strict", "lib/long", data, "sha512")
        compare(made, "strict", Question(f"/v2/lib/long/blobs/{blob['digest']}", digest=blob["digest"], statuses=(200,)))
        compare(made, "strict", Question(f"/v2/lib/long/blobs/{blob['digest']}", (("Range", "bytes=7-70007"),), digest=blob["digest"], statuses=(206,), methods=("GET",)))
        value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": blob, "layers": [blob]}
        manifest = made.put_manifest("strict", "lib/long", value, algorithm="sha512")
        for question in manifest_questions("lib/long", manifest):
            question.statuses = (200,)
            compare(made, "strict", question)


def test_errors():
    """What is not there, and what has no name: the spec's codes, never a path on the registry that it does not mean."""
    with world() as made:
        for kind in NAMES:
            image, value = made.image(kind, "lib/app", "1")
            made.image(kind, "lib/other", "1")
            unknown = ((f"/v2/lib/app/manifests/{ABSENT}", "MANIFEST_UNKNOWN"), ("/v2/lib/app/manifests/nope", "MANIFEST_UNKNOWN"),
                       (f"/v2/lib/app/blobs/{ABSENT}", "BLOB_UNKNOWN"), (f"/v2/lib/other/blobs/{value['layers'][0]['digest']}", "BLOB_UNKNOWN"),
                       (f"/v2/lib/other/manifests/{image['digest']}", "MANIFEST_UNKNOWN"), ("/v2/no/such/tags/list", "NAME_UNKNOWN"))
            for path, code in unknown:
                compare(made, kind, Question(path, accept(*TYPES), statuses=(404,), code=code, methods=("GET",) if "tags" in path else ("GET", "HEAD")))
            for path in ("/v2/no/such/manifests/1", f"/v2/no/such/blobs/{ABSENT}"):
                compare(made, kind, Question(path, accept(*TYPES), statuses=(404,), code="" if "manifests" in path else "BLOB_UNKNOWN"))
            short, upper = "sha256:" + "0" * 63, "sha256:" + "A" * 64
            malformed = [(f"/v2/lib/app/{what}/{digest}", "DIGEST_INVALID") for what in ("blobs", "manifests", "referrers") for digest in (short, upper, "md5:00", "sha256:")]
            malformed += [(f"/v2/{name}/manifests/1", "NAME_INVALID") for name in ("Lib/app", "lib/-app", "lib//app", "lib/app_", "%2e%2e/app", "lib%2fapp", "a" * 256)]
            malformed += [(f"/v2/lib/app/manifests/{tag}", "MANIFEST_INVALID") for tag in (".hidden", "-x", "a" * 129, "a%20b", "%40")]
            asked = made.straight[kind]
            for path, code in malformed:
                got = made.through(kind)[0].ask("GET", path)
                it.check(got.status in (400, 404) and error_code(got) in (code, "NAME_INVALID"), f"{path}: {got.status} {got.body[:200]}")
                it.check(asked.ask("GET", path).status >= 300, f"{path}: the registry has it")
        got = made.through("docker")[0].ask("GET", "/v2/lib/app/manifests/1?ns=unknown.test")
        it.check(got.status == 404 and error_code(got) == "NAME_UNKNOWN", f"a registry that is not configured: {got.status} {got.body[:200]}")


def test_methods():
    """This port reads only. Each refusal says what it would take, and nothing reaches the registry."""
    with world() as made:
        for kind in NAMES:
            image, value = made.image(kind, "lib/app", "1")
            blob = f"/v2/lib/app/blobs/{value['layers'][0]['digest']}"
            for method, path in (("PUT", "/v2/lib/app/manifests/1"), ("DELETE", f"/v2/lib/app/manifests/{image['digest']}"), ("DELETE", blob),
                                 ("POST", "/v2/lib/app/blobs/uploads/"), ("PATCH", "/v2/lib/app/blobs/uploads/1"), ("OPTIONS", "/v2/")):
                got = made.through(kind)[0].ask(method, path)
                it.check(got.status == 405 and error_code(got) == "UNSUPPORTED", f"{method} {path}: {got.status} {got.body[:200]}")
                it.check(got.headers.get("allow") == "GET, HEAD", f"{method} {path}: {got.headers}")
            compare(made, kind, Question(blob, statuses=(200,)))
            compare(made, kind, Question(f"/v2/lib/app/manifests/{image['digest']}", accept(*TYPES), statuses=(200,)))


def follow(server: Server, path: str, most=20) -> list[dict]:
    """All pages of a list, as a client follows them: Link's target against the URL asked."""
    pages = []
    while path:
        got = server.ask("GET", path)
        it.check(got.status == 200, f"{path}: {got.status} {got.body[:200]}")
        pages.append(json.loads(got.body))
        link = re.match(r'<([^>]+)>; *rel="?next"?', got.headers.get("link", ""))
        path = link[1] if link else ""
        it.check(not path or path.startswith("/"), f"the next page is elsewhere: {path}")
        if server.ns:
            it.check(not path or "ns=" in path, f"the next page is nobody's: {path}")
        it.check(len(pages) < most, "pages without end")
    return pages


def test_tags():
    """n and last, and pages that a client can follow through the mirror, whether links are paths or whole URLs."""
    with world() as made:
        tags = [f"v{i}" for i in range(7)]
        for kind in NAMES:
            made.image(kind, "lib/app", *tags)
            for query in ("", "?n=3", "?n=3&last=v1", "?last=v4", "?n=0", "?n=100"):
                compare(made, kind, Question(f"/v2/lib/app/tags/list{query}", statuses=(200,), methods=("GET",)))
        made.image("strict", "absolute/app", *tags)
        for name in ("lib/app", "absolute/app"):
            for server in made.through("strict"):
                pages = follow(server, f"/v2/{name}/tags/list?n=3")
                it.check([page["tags"] for page in pages] == [tags[:3], tags[3:6], tags[6:]], f"{name}: {pages}")
                it.check(all(page["name"] == name for page in pages), f"{pages}")


def test_referrers():
    """All, by type, of what nobody refers to; page by page; and the tag that stands in where there is no such API."""
    with world() as made:
        kinds = ("application/vnd.example.sbom", "application/vnd.example.signature")
        for name in ("lib/app", "absolute/app"):
            image, _ = made.image("strict", name, "1")
            empty = {**made.put_blob("strict", name, b"{}"), "mediaType": EMPTY}
            referrers = [made.put_manifest("strict", name, {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kinds[i % 2], "config": empty,
                                                            "layers": [empty], "subject": image, "annotations": {"n": str(i)}}) for i in range(5)]
            path = f"/v2/{name}/referrers/{image['digest']}"
            for query in ("", *(f"?artifactType={kind.replace('/', '%2F')}" for kind in kinds), "?artifactType=none"):
                compare(made, "strict", Question(path + query, statuses=(200,)))
            compare(made, "strict", Question(f"/v2/{name}/referrers/{ABSENT}", statuses=(200,)))
            for server in made.through("strict"):
                for query, wanted in (("", referrers), (f"?artifactType={kinds[0]}", referrers[::2])):
                    pages = follow(server, path + query)
                    found = [one["digest"] for page in pages for one in page["manifests"]]
                    it.check(found == [one["digest"] for one in wanted], f"{name} {query}: {len(found)} of {len(wanted)}")
                got = server.ask("GET", f"{path}?artifactType={kinds[1]}")
                it.check(got.headers.get("oci-filters-applied") == "artifactType", f"{got.headers}")
            for one in referrers:
                for question in manifest_questions(name, one):
                    compare(made, "strict", question)
        image, _ = made.image("docker", "lib/app", "1")
        signature, _ = made.image("docker", "lib/app")
        compare(made, "docker", Question(f"/v2/lib/app/referrers/{image['digest']}", statuses=(404,)))
        fallback = image["digest"].replace(":", "-")
        compare(made, "docker", Question(f"/v2/lib/app/manifests/{fallback}", accept(INDEX), statuses=(404,), code="MANIFEST_UNKNOWN"))
        index = made.put_manifest("docker", "lib/app", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**signature, "artifactType": kinds[1]}]}, fallback)
        for question in manifest_questions("lib/app", index, fallback, types=(INDEX, MANIFEST)):
            question.statuses = (200,)
            compare(made, "docker", question)


if __name__ == "__main__":
    sys.exit(it.main(globals()))
