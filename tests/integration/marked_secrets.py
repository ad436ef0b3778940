#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Marked secrets through successes and failures at the most talkative levels: not one is found in logs, metrics, status, answers, the
process's arguments and environment, or files (HRD-4).

Searched for as they are, in base64 at each alignment, in hex and percent-encoded. The search itself is tested: it must find all in a file
that holds them on purpose, and the registry's log must show that they were used. Files that hold a secret by order are named.
"""
import base64
import json
import os
import signal
import sys
import time
from pathlib import Path

import it
import marks
import stub_registry as stub
from lab import REGISTRY_NAME, Lab, Process, run
from marks import IDENTITY, forms, pem_secret
from pull import fetch

STORE_PORT, TLS_PORT, NODE_TLS_PORT = 5001, 5443, 65443
TLS_NAME = f"registry.test:{TLS_PORT}"
ACCEPT = f"Accept: {stub.MANIFEST}"
FAULTS = ("cut", "wrong", "wrong-range", "busy-silent", "busy-long", "broken", "stall", "denied", "denied-later", "manifest-wrong",
          "manifest-huge", "redirect-loop", "redirect-mesh",
          *(f"status-{n}" for n in (401, 403, 404, 429, 500)),
          *(f"signed{n}" for n in ("", "-absent", "-user", "-closed", "-metadata", "-file", "-broken", "-loop", "-long")))


def new_mark(name: str) -> str:
    return f"{name.upper()}mark{os.urandom(12).hex()}"


class Marks:
    """All secrets by name, and the search for them."""

    def __init__(self):
        self.texts = {name: new_mark(name) for name in ("basic", "bearer", "login", "token", "signature", "signed", "badproxy", "badendpoint", "badsecret",
                                                        "badlogin", "badkey", "badaccess")}
        self.secrets = {name: text.encode() for name, text in self.texts.items()}

    def __getitem__(self, name: str) -> str:
        return self.texts[name]

    def found(self, text: bytes) -> list[str]:
        return marks.found(text, self.secrets)


class Places:
    """What is searched: name of the place, its bytes."""

    def __init__(self, marks: Marks):
        self.marks, self.count, self.bytes, self.hits = marks, 0, 0, []

    def add(self, name: str, text, allowed=()):
        data = text if isinstance(text, bytes) else str(text).encode()
        self.count, self.bytes = self.count + 1, self.bytes + len(data)
        for mark in self.marks.found(data):
            if mark not in allowed:
                secret = next(form for form in forms(self.marks.secrets[mark]) if form in data)
                at = data.find(secret)
                self.hits.append(f"{mark} in {name}: ...{data[max(at - 60, 0):at]!r}<{mark}>")


class World(Lab):
    """Two nodes with every kind of secret in their configuration, and the registry."""

    def __init__(self, level: str):
        super().__init__(2)
        self.marks = own = Marks()
        self.places = Places(own)
        own.secrets["cluster"] = bytes.fromhex(self.secret.read_text())
        for name, hosts in (("registry", ("registry.test", "auth.test")), ("client", ("node.test",)), ("listen", ("mirror.test",))):
            cert, key = self.dir / f"{name}.crt", self.dir / f"{name}.key"
            run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", f"/CN={name}",
                "-addext", "subjectAltName=" + ",".join(f"DNS:{h}" for h in hosts))
            key.chmod(0o400)
            if name != "registry":
                own.secrets[f"{name}-key"] = pem_secret(key)
        login = self.private("login", f"user:{own['login']}\n")
        values = self.private("marks.json", json.dumps({"login": f"user:{own['login']}", "token": own["token"], "signature": own["signature"]}))
        self.registries = [
            {**self.registries[0], "default": True},
            {"name": TLS_NAME, "ca": str(self.dir / "registry.crt"), "allowPrivate": True, "credentials": str(login), "shared": True, "realmHosts": ["auth.test"],
             "clientCertificate": str(self.dir / "client.crt"), "clientKey": str(self.dir / "client.key"),
             "storage": [f"https://{TLS_NAME}/objects/"]},
            {"name": "mirror.test:5443", "endpoint": f"https://{TLS_NAME}", "allowPrivate": True},  # whose certificate nobody knows
        ]
        self.settings = {"log.level": level, "limits.transferTimeout": "1s", "limits.connectTimeout": "1s", "listen.tls": f"127.0.0.1:{NODE_TLS_PORT}",
                         "listen.tlsCertificate": [str(self.dir / "listen.crt")], "listen.tlsKey": [str(self.dir / "listen.key")]}
        script = Path(__file__).with_name("marked_registry.py")
        self.stub = Process(self.origin_exec(sys.executable, script, "--host", self.origin_address, "--port", self.registry_port, "--store-port", STORE_PORT,
                                             "--tls-port", TLS_PORT, "--cert", self.dir / "registry.crt", "--key", self.dir / "registry.key",
                                             "--client-ca", self.dir / "client.crt", "--marks", values), self.dir / "stub.log")
        self.processes.append(self.stub)
        self.asked("/v2/")
        self.start_nodes()
        self.wait_members()

    def private(self, name: str, text: str) -> Path:
        path = self.dir / name
        path.write_text(text)
        path.chmod(0o400)
        return path

    def asked(self, path="/log") -> str:
        return run(*self.origin_exec("curl", "-sf", "--retry", "5", "--retry-connrefused", f"{self.endpoint}{path}")).stdout

    def get(self, node, path: str, *args) -> int:
        """A client's request; head and body are searched."""
        status, headers, body = fetch(node, path, "-m", "3", *args)
        # A registry's words are passed on, and it may repeat what this client itself has just said; nobody else's.
        told = self.marks.found(" ".join((path, *args)).encode())
        self.places.add(f"the answer to {path.partition('?')[0][:90]} ({status})", json.dumps(headers).encode() + body, told)
        return status

    def pull(self, node, repository: str, name=REGISTRY_NAME, which="small", *args) -> int:
        ns = f"?ns={name.replace(':', '%3A')}"
        self.get(node, f"/v2/{repository}/manifests/1{ns}", "-H", ACCEPT, *args)
        return self.get(node, f"/v2/{repository}/blobs/{stub.digest_of(stub.blob(repository, which))}{ns}", *args)


# ---- what happens ----

def successes(world: World):
    first, second = world.nodes
    logins = ("-u", f"user:{world.marks['basic']}"), ("-H", f"Authorization: Bearer {world.marks['bearer']}")
    for node in world.nodes:
        for args in (*logins, ()):
            it.check(world.pull(node, "lib/fine", REGISTRY_NAME, "big", *args) == 200, f"{node.name}: lib/fine")
        it.check(world.pull(node, "lib/signed", REGISTRY_NAME, "small", *logins[0]) == 200, f"{node.name}: lib/signed")
        for repository in ("basic/fine", "token/fine"):
            it.check(world.pull(node, repository, TLS_NAME) == 200, f"{node.name}: {repository}: the node's login\n{node.process.text()[-1500:]}")
    digest = stub.digest_of(stub.blob("token/fine", "small")).partition(":")[2]
    for query, wanted in ((world.marks["signature"], 200), (world.marks["signed"], 403)):
        status = world.get(first, f"/accelerator/https://{TLS_NAME}/objects/sha256/{digest[:2]}/{digest}/data?Expires=1&Signature={query}")
        it.check(status == wanted, f"signed URL: {status}, wanted {wanted}\n{first.process.text()[-1500:]}")
    done = second.run("curl", "-s", "-m", "5", "--cacert", world.dir / "listen.crt", f"https://mirror.test:{NODE_TLS_PORT}/v2/", "-u", f"user:{world.marks['basic']}")
    world.places.add("answer by TLS", done.stdout)


def failures(world: World):
    first = world.nodes[0]
    args = (("-u", f"user:{world.marks['basic']}"), ("-H", f"Authorization: Bearer {world.marks['bearer']}"))
    for number, fault in enumerate(FAULTS):
        world.pull(first, f"lib/{fault}", REGISTRY_NAME, "small", *args[number % 2])
        if fault.startswith(("status", "signed")):
            world.pull(first, f"{('basic', 'token')[number % 2]}/{fault}", TLS_NAME)
    for header in args:
        world.pull(first, "basic/fine", TLS_NAME, "small", *header)  # another login than the node's: refused
        world.pull(first, "lib/fine", "mirror.test:5443", "small", *header)  # TLS that nobody trusts
        world.get(first, "/v2/lib/fine/manifests/..%2f", *header)
        world.get(first, f"/v2/lib/fine/blobs/nothing?ns=nowhere.test&token={world.marks['signed']}", *header)
    marked = f"?Signature={world.marks['signed']}"
    for url in (f"https://{TLS_NAME}/objects/nothing{marked}", f"https://{TLS_NAME}/elsewhere{marked}", f"https://user:{world.marks['signed']}@{TLS_NAME}/objects/x",
                f"http://169.254.169.254/{marked}", f"nonsense{marked}", f"https://{TLS_NAME}/objects/{marked}{'x' * 3000}"):
        world.get(first, f"/accelerate/{url}")
    with it.connect(first, first.client_port, 3) as sock:  # no request at all
        sock.sendall(f"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {world.marks['basic']}\r\nContent-Length: -1\r\n{world.marks['bearer']}\r\n\r\n".encode())
        world.places.add("answer to a malformed request", sock.recv(4096))


def bad_configuration(world: World):
    """What is wrong is named, never the value where it may be a secret."""
    marks, node = world.marks, world.nodes[0]
    entry = world.registries[1]
    cases = {
        "badproxy": {"registries": [{**entry, "proxy": f"http://user:{marks['badproxy']}@registry.test:3128"}]},
        "badendpoint": {"registries": [{**entry, "endpoint": f"https://user:{marks['badendpoint']}@registry.test"}]},
        "badsecret": {"clusterSecretFile": [str(world.private("badsecret", marks["badsecret"] + "\n"))]},
        "badlogin": {"registries": [{**entry, "credentials": str(world.private("badlogin", f'{{"auths": {{"{marks["badlogin"]}'))}]},
        "badkey": {"listen.tlsKey": [str(world.private("badkey", f"-----BEGIN PRIVATE KEY-----\n{marks['badkey']}\n-----END PRIVATE KEY-----\n"))]},
        "badaccess": {"accessKeyFile": str(world.private("badaccess", f"{marks['badaccess']}")), "acrInstances": "cri-x", "region": "x"},
    }
    for name, extra in cases.items():
        path = node.config(extra)
        for command in (("config", "check"), ("config", "show"), ("agent",)):
            done = run("timeout", "2", *node.exec("build/shoal", *command, "--config", path), check=False)
            world.places.add(f"shoal {' '.join(command)} with {name}", done.stdout + done.stderr)
    path = node.config()
    for command in (("config", "check"), ("config", "show")):
        done = node.run("build/shoal", *command, "--config", path, check=False)
        it.check(done.returncode == 0, f"{command}: {done.stderr}")
        world.places.add(f"shoal {' '.join(command)}", done.stdout + done.stderr)


def stopped_in_mid_pull(world: World):
    """SIGTERM, then SIGKILL of the other, while a slow body comes with credentials."""
    for node, how in zip(world.nodes, (signal.SIGTERM, signal.SIGKILL)):
        digest = stub.digest_of(stub.blob("lib/slow", "big"))
        client = Process(node.exec("curl", "-s", "-m", "10", "-u", f"user:{world.marks['basic']}",
                                   f"http://127.0.0.1:{node.client_port}/v2/lib/slow/blobs/{digest}?ns={REGISTRY_NAME}"), world.dir / f"client-{node.name}.log")
        world.processes.append(client)
        time.sleep(1)
        node.process.popen.send_signal(how)
        time.sleep(0.5)
        client.kill()
        node.process.stop(25)


# ---- the search ----

def look_at_the_living(world: World):
    for node in world.nodes:
        for page in ("/metrics", "/status", "/", "/page.json", "/healthz", "/readyz", f"/nothing?{world.marks['signed']}"):
            world.places.add(f"{node.name} {page.partition('?')[0]}", node.get(page, admin=True))
        for file in ("cmdline", "environ"):
            world.places.add(f"{node.name} /proc/{file}", Path(f"/proc/{node.process.pid}/{file}").read_bytes())


def look_at_files(world: World):
    for node in world.nodes:
        for file in node.dir.rglob("*"):
            if file.is_file() and file.name != "shoal.yaml":
                name = str(file.relative_to(node.dir))
                world.places.add(f"{node.name}/{name}", file.read_bytes(), (f"identity{node.index}", f"static{node.index}") if name == IDENTITY else ())


def the_search_finds(world: World):
    """Each mark in each form in a file where they were planted; and what was used is in the registry's log."""
    for name, secret in world.marks.secrets.items():
        for number, form in enumerate(forms(secret)):
            control = Places(world.marks)
            planted = world.dir / "planted"
            planted.write_bytes(os.urandom(1000) + form + os.urandom(1000))
            control.add("planted", planted.read_bytes())
            it.check(len(control.hits) == 1 and control.hits[0].startswith(name), f"the search missed {name} in form {number}: {control.hits}")
    for shift in range(3):  # within a longer text
        hidden = base64.b64encode(b"user:xy"[:5 + shift] + world.marks.secrets["basic"] + b"tail")
        it.check(world.marks.found(hidden) == ["basic"], f"base64 at {shift}")
    seen = world.asked().encode()
    for name in ("basic", "bearer", "login", "token", "signature", "signed"):
        it.check(name in world.marks.found(seen), f"the registry never saw {name}: the test shows nothing")


def no_secret_is_told(level: str):
    with World(level) as world:
        for node in world.nodes:
            key = (node.dir / IDENTITY).read_bytes()
            world.marks.secrets[f"identity{node.index}"], world.marks.secrets[f"static{node.index}"] = key[8:40], key[40:72]
        successes(world)
        failures(world)
        bad_configuration(world)
        look_at_the_living(world)
        the_search_finds(world)
        stopped_in_mid_pull(world)
        look_at_files(world)
        places = world.places
        it.check(f" {level}" in world.nodes[0].process.text().lower(), f"no line at level {level}")
        it.figure(f"{level}: {len(world.marks.secrets)} secrets looked for in {places.count} places, {places.bytes >> 20} MiB: {len(places.hits)} found")
        it.check(not places.hits, "HRD-4: " + "\n    ".join(dict.fromkeys(places.hits[:20])))


def test_hrd_4():
    no_secret_is_told("trace")  # debug and more


def test_hrd_4_the_sweep_of_every_lab_finds():
    """marks.py, which all suites rely on: no hit in a lab as it is; one for each mark planted in a log, a page, a refusal and files of cache and state."""
    planted = {where: marks.secret(f"planted-{where}") for where in ("log", "page", "refusal", "cache", "state")}
    with Lab(1) as lab:
        lab.nodes[0].start()
        it.check(fetch(lab.nodes[0], f"/v2/lib/a/manifests/1?ns=nowhere.test&x={planted['refusal']}")[0] == 404, "what it said itself is no hit")
    hits = marks.take_hits()
    it.check(not hits, f"a lab without a planted mark: {hits}")
    with Lab(1) as lab:
        node, page = lab.nodes[0], lab.dir / "page"
        node.start()
        node.process.stop()
        data, secret = node.dir / "data", bytes.fromhex(lab.secret.read_text())
        (data / "blob").write_bytes(os.urandom(5000) + base64.b64encode(b"x:" + planted["cache"].encode()) + os.urandom(5000))
        (data / "deep").mkdir()
        (data / "deep" / "file").write_bytes(os.urandom(99) + planted["state"].encode().hex().encode() + secret + (data / "identity").read_bytes()[8:40])
        page.mkdir()
        (page / "metrics").write_text(f"shoal_x{{name=\"{planted['page']}\"}} 1\n")
        (page / "status").write_text("{}")
        node.process = Process(node.exec(sys.executable, "-m", "http.server", node.admin_port, "--bind", "127.0.0.1", "--directory", page), node.dir / "agent.log")
        node.process.log.write_text(f"... DEBUG Authorization: {planted['log']}\n")
        end = time.monotonic() + 10
        while not node.get("/status", admin=True, check=False).startswith("200") and time.monotonic() < end:
            time.sleep(0.05)
        marks.answered("/v2/x", (), 503, f"upstream said {planted['refusal']}".encode())
    hits = marks.take_hits()
    for name in (*(f"planted-{where} in " for where in planted), "cluster in node0/data/deep", "identity0 in node0/data/deep"):
        it.check(sum(hit.startswith(name) for hit in hits) == 1, f"{name}: {hits}")
    it.check(len(hits) == len(planted) + 2, f"{hits}")


if __name__ == "__main__":
    sys.exit(it.main(globals(), seconds=240))
