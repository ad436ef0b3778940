#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `registries:` list with real registries behind TLS: patterns, client certificates, proxies, logins of the node, repositories off the mesh (ORG-1..4, ACL-7, ACL-10)."""
import base64
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import it
import marks
import stub_registry as stub
from lab import Lab, Process, run
from pull import fetch
from images import INDEX, push_multi, push_runnable
from runtimes import MIRROR, PASSWORD, TOKEN_PORT, USER, Containerd, Sandbox, auth_file

TLS_PORT, PROXY_PORT = 5443, 3128
IDENTITY, REVOKED = f"eyJ.{marks.secret('identity')}+token/of=alice", marks.secret("revoked")
ACCEPT = f"Accept: {stub.MANIFEST}"


def ns(name: str) -> str:
    return f"?ns={name.replace(':', '%3A')}"


def make_certificate(directory: Path, name: str, *names: str) -> tuple[Path, Path]:
    """A certificate of its own authority for these names; (certificate, key)."""
    cert, key = directory / f"{name}.crt", directory / f"{name}.key"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", f"/CN={name}",
        "-addext", "subjectAltName=" + ",".join(f"DNS:{n}" for n in names))
    marks.know(f"key of {name}", marks.pem_secret(key))
    return cert, key


@contextmanager
def tls_registry(entries, nodes=1, extra=None, **tls):
    """A registry with an image lib/app, open in plain HTTP to the test and by TLS to the agents. `entries`: of the lab's certificate."""
    with Lab(nodes) as lab:
        cert, key = make_certificate(lab.dir, "registry", "registry.test", "*.pattern.test", "*.other.test")
        lab.start_registry()
        lab.start_registry(port=TLS_PORT, name="registry-tls", tls={"certificate": str(cert), "key": str(key), **tls})
        lab.image = lab.push_image("lib/app", [1 << 20, 3 << 20])
        lab.registries = entries(str(cert))
        lab.start_nodes(extra)
        if nodes > 1:
            lab.wait_members()
        yield lab


def pull(node, registry: str, image: dict, *args) -> int:
    """The image's manifest and blobs by this name, checked; the first status that is not 200, else 200."""
    status, _, body = fetch(node, f"/v2/lib/app/manifests/1{ns(registry)}", "-H", ACCEPT, *args)
    if status != 200:
        return status
    it.check(stub.digest_of(body) == image["digest"], f"{registry}: another manifest")
    for blob in (image["config"], *image["layers"]):
        status, _, body = fetch(node, f"/v2/lib/app/blobs/{blob['digest']}{ns(registry)}", *args)
        if status != 200:
            return status
        it.check(stub.digest_of(body) == blob["digest"], f"{registry}: wrong bytes of {blob['digest']}")
    return 200


def around(node) -> float:
    """Blobs that went around the mesh because the configuration says so."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in node.get("/metrics", admin=True).splitlines()
               if line.startswith("shoal_fallbacks_total{") and "configured" in line)


def test_org_1_patterns():
    """containerd's _default: names below a pattern are served each as itself; what no pattern fits is 404, and nobody is asked."""
    def entries(ca):
        return [{"name": f"*.pattern.test:{TLS_PORT}", "ca": ca, "allowPrivate": True}, {"name": "*", "ca": ca}]
    with tls_registry(entries) as lab:
        node = lab.nodes[0]
        for name in ("one", "two", "ONE"):
            status = pull(node, f"{name}.pattern.test:{TLS_PORT}", lab.image)
            it.check(status == 200, f"{name}: {status}")
        for name, wanted in ((f"one.other.test:{TLS_PORT}", 503), ("localhost", 404), (f"{lab.origin_address}:{lab.registry_port}", 404), ("%2A", 400)):
            status, _, body = fetch(node, f"/v2/lib/app/manifests/1{ns(name)}", "-H", ACCEPT)
            it.check(status == wanted, f"{name}: {status} {body[:200]}")
            it.check(status != 503 or b"not allowed" in body or b"refused" in body, f"{name}: {body[:300]}")


def test_containerds_default_mirror():
    """containerd with certs.d/_default alone: two registries that only a pattern knows, whose certificates containerd itself does not trust."""
    def entries(ca):
        return [{"name": f"*.pattern.test:{TLS_PORT}", "ca": ca, "allowPrivate": True}]
    with tls_registry(entries) as lab:
        node, image = lab.nodes[0], push_runnable(lab, "lib/run")
        node.sandbox = Sandbox(node)
        containerd = Containerd(node.sandbox)
        place = containerd.dir / "certs.d/_default"
        place.mkdir(parents=True)
        (place / "hosts.toml").write_text(f'[host."http://{MIRROR}"]\n  capabilities = ["pull", "resolve"]\n')
        for name in ("one", "two"):
            done = containerd.ctr("images", "pull", "--hosts-dir", place.parent, f"{name}.pattern.test:{TLS_PORT}/lib/run:1", check=False)
            it.check(done.returncode == 0, f"{name}: {done.stderr[-400:]}")
        blobs = {d["digest"]: d["size"] for d in (image, image["parts"]["config"], *image["parts"]["layers"])}
        it.check(containerd.blobs() == blobs, f"content store: {containerd.blobs()}")
        done = containerd.ctr("images", "pull", "--hosts-dir", place.parent, f"one.other.test:{TLS_PORT}/lib/run:1", check=False)
        it.check(done.returncode != 0, "a registry that no pattern knows was served")


def make_login(path: Path, text: str) -> Path:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o400)
    return path


@contextmanager
def private_registry(mode: str, entry, life=300):
    """A registry that wants a login, by TLS, with an image lib/app; an open one beside it is for pushing. `entry(lab)`: what the agent is told more."""
    with Lab(1) as lab:
        cert, key = make_certificate(lab.dir, "registry", "registry.test", "auth.test", "*.pattern.test")
        if mode == "basic":
            passwords = lab.dir / "htpasswd"
            passwords.write_text(run("htpasswd", "-Bbn", USER, PASSWORD).stdout)
            auth = {"htpasswd": {"realm": "basic-realm", "path": str(passwords)}}
        else:
            lab.token_log = lab.dir / "tokens.log"
            lab.token_log.touch()
            token_key, token_cert = make_certificate(lab.dir, "token", "token.test")[::-1]
            server = Process(lab.origin_exec(sys.executable, Path(__file__).with_name("token_server.py"), "--listen", f"{lab.origin_address}:{TOKEN_PORT}",
                                             "--key", token_key, "--cert", token_cert, "--issuer", "lab-issuer", "--user", f"{USER}:{PASSWORD}", "--identity", f"{USER}:{IDENTITY}",
                                             "--tls", cert, key, "--life", life, "--log", lab.token_log), lab.dir / "token.log")
            lab.processes.append(server)
            auth = {"token": {"realm": f"https://auth.test:{TOKEN_PORT}/token", "service": "registry.test", "issuer": "lab-issuer", "rootcertbundle": str(token_cert)}}
        lab.start_registry()
        lab.auth, lab.tls = auth, {"certificate": str(cert), "key": str(key)}
        lab.tls_process = lab.start_registry(auth, port=TLS_PORT, name="registry-tls", tls=lab.tls)
        lab.image = lab.push_image("lib/app", [1 << 20, 3 << 20])
        lab.name = f"registry.test:{TLS_PORT}"
        lab.registries = [{"name": lab.name, "ca": str(cert), "allowPrivate": True, "realmHosts": ["auth.test"], **entry(lab)}]
        lab.start_nodes()
        yield lab


def no_secret_is_told(lab, *secrets):
    """HRD-4: in no log, metric, status or shown configuration."""
    node = lab.nodes[0]
    shown = node.run("build/shoal", "config", "show", "--config", node.dir / "shoal.yaml").stdout
    pages = node.get("/metrics", admin=True) + node.get("/status", admin=True) + node.process.text() + shown
    for secret in (PASSWORD, *secrets):
        it.check(secret not in pages, f"HRD-4: {secret[:12]} is in logs, metrics, status or configuration")


def shared_docker_config(lab) -> dict:
    path = auth_file(lab.dir / "login.json", f"registry.test:{TLS_PORT}")
    path.chmod(0o400)
    return {"credentials": str(path), "shared": True}


def test_acl_7_shared_login():
    """Clients without credentials read with the node's login where the entry shares it; those with their own with that."""
    for mode in ("basic", "bearer"):
        with private_registry(mode, shared_docker_config) as lab:
            node = lab.nodes[0]
            status = pull(node, lab.name, lab.image)
            it.check(status == 200, f"{mode}: without credentials: {status}\n{node.process.text()[-800:]}")
            for path in ("manifests/1", f"blobs/{lab.image['layers'][0]['digest']}"):
                status, _, _ = fetch(node, f"/v2/lib/app/{path}{ns(lab.name)}", "-H", ACCEPT, "-u", f"{USER}:wrong")
                it.check(status == 401, f"{mode}: {path} with a wrong password of its own: {status}")
            if mode == "basic":
                status, _, _ = fetch(node, f"/v2/lib/app/manifests/1{ns(lab.name)}", "-H", ACCEPT, "-u", f"{USER}:{PASSWORD}")
                it.check(status == 200, f"with a right one: {status}")
            else:
                asked = lab.token_log.read_text().splitlines()
                it.check(asked == [f"{USER} 200 repository:lib/app:pull"], f"tokens asked for: {asked}")
            no_secret_is_told(lab, "YWxpY2U6")


def test_acl_7_without_shared():
    """Without `shared` credentials serve no client; `shared` without them is refused at start."""
    with private_registry("basic", lambda lab: {}) as lab:
        node = lab.nodes[0]
        status = pull(node, lab.name, lab.image)
        it.check(status == 401, f"a registry without a login: {status}")
        login = make_login(lab.dir / "login", f"{USER}:{PASSWORD}")
        for more, wanted in (({"shared": True}, "needs credentials"),):
            lab.registries = [{**lab.registries[0], **more}]
            shown = node.run("build/shoal", "config", "check", "--config", node.config(), check=False)
            it.check(shown.returncode != 0 and wanted in shown.stderr + shown.stdout, f"{more}: {shown.stdout}{shown.stderr}")
            lab.registries = [{k: v for k, v in lab.registries[0].items() if k not in more}]
        login.chmod(0o444)
        lab.registries = [{**lab.registries[0], "credentials": str(login), "shared": True}]
        shown = node.run("build/shoal", "config", "check", "--config", node.config(), check=False)
        it.check(shown.returncode != 0 and "registries.credentials" in shown.stderr + shown.stdout, f"a login everybody may read: {shown.stderr}")


def test_org_4_tokens_are_renewed_and_rotated():
    """Tokens of 12 s outlive nobody's pull; a changed login counts at once, and a wrong one is not tried with every request."""
    with private_registry("bearer", lambda lab: {"credentials": str(make_login(lab.dir / "login", f"{USER}\n{PASSWORD}\n")), "shared": True}, life=12) as lab:
        node, end = lab.nodes[0], time.monotonic() + 16
        while time.monotonic() < end:  # tags go to the registry each time
            status, _, _ = fetch(node, f"/v2/lib/app/manifests/1{ns(lab.name)}", "-H", ACCEPT)
            it.check(status == 200, f"{status}: a token ended in use")
            time.sleep(0.25)
        asked = len(lab.token_log.read_text().splitlines())
        it.check(2 <= asked <= 4, f"{asked} tokens for 16 s")
        make_login(lab.dir / "login", f"{USER}\nwrong\n")
        for _ in range(10):
            status, headers, _ = fetch(node, f"/v2/lib/app/manifests/1{ns(lab.name)}", "-H", ACCEPT)
            it.check(status == 401 and headers.get("www-authenticate", "").startswith("Bearer realm="), f"a wrong login: {status}")
        refused = [line for line in lab.token_log.read_text().splitlines() if " 401 " in line]
        it.check(len(refused) == 1, f"a wrong login was tried {len(refused)} times in a moment")
        make_login(lab.dir / "login", json.dumps({"auths": {lab.name: {"username": USER, "password": PASSWORD}}}))
        it.check(pull(node, lab.name, lab.image) == 200, "a mended login does not count at once")
        no_secret_is_told(lab)


def auths(**entries) -> str:
    return json.dumps({"auths": entries})


def test_org_4_identity_tokens():
    """What docker login keeps instead of a password is exchanged at the realm, by POST; a revoked one is not tried with every request; a registry token is sent as it is."""
    name = f"registry.test:{TLS_PORT}"
    # as docker login writes it: a user without password beside the token
    login = {"auth": base64.b64encode(b"00000000-0000:").decode(), "identitytoken": IDENTITY}
    with private_registry("bearer", lambda lab: {"credentials": str(make_login(lab.dir / "login", auths(**{name: login}))), "shared": True}) as lab:
        node, path = lab.nodes[0], f"/v2/lib/app/manifests/1{ns(lab.name)}"
        it.check(pull(node, lab.name, lab.image) == 200, f"an identity token\n{node.process.text()[-800:]}")
        asked = lab.token_log.read_text().splitlines()
        it.check(asked == [f"identity:{USER} 200 repository:lib/app:pull"], f"tokens asked for: {asked}")
        make_login(lab.dir / "login", auths(**{name: {"identitytoken": REVOKED}}))
        for _ in range(5):
            it.check(fetch(node, path, "-H", ACCEPT)[0] == 401, "a revoked identity token was let in")
        asked = lab.token_log.read_text().splitlines()[1:]
        it.check(asked == ["identity:- 401 repository:lib/app:pull"], f"a revoked one: {asked}")
        answer = node.run("curl", "-sSk", "-u", f"{USER}:{PASSWORD}", f"https://auth.test:{TOKEN_PORT}/token?service=registry.test&scope=repository:lib/app:pull").stdout
        asked = len(lab.token_log.read_text().splitlines())
        make_login(lab.dir / "login", auths(**{name: {"registrytoken": json.loads(answer)["token"]}}))
        it.check(fetch(node, path, "-H", ACCEPT)[0] == 200, "a registry token")
        it.check(len(lab.token_log.read_text().splitlines()) == asked, "a token was asked for with a registry token")
        no_secret_is_told(lab, IDENTITY, json.loads(answer)["token"])


def test_acl_7_logins_of_a_pattern():
    """A pattern's login goes to hosts that its file names, never to whichever one a client asks for; a plain file names none, and is refused."""
    def entry(lab):
        login = {"username": USER, "password": PASSWORD}
        return {"name": f"*.pattern.test:{TLS_PORT}", "credentials": str(make_login(lab.dir / "login", auths(**{f"one.pattern.test:{TLS_PORT}": login}))), "shared": True}
    with private_registry("basic", entry) as lab:
        node = lab.nodes[0]
        for host, wanted in (("one", 200), ("two", 401)):
            status = pull(node, f"{host}.pattern.test:{TLS_PORT}", lab.image)
            it.check(status == wanted, f"{host}: {status}\n{node.process.text()[-600:]}")
        make_login(lab.dir / "login", auths(**{f"*.pattern.test:{TLS_PORT}": {"username": USER, "password": PASSWORD}}))
        it.check(pull(node, f"two.pattern.test:{TLS_PORT}", lab.image) == 200, "a key that stands for the hosts below")
        make_login(lab.dir / "login", f"{USER}:{PASSWORD}")
        for host in ("one", "two"):
            status, _, _ = fetch(node, f"/v2/lib/app/manifests/1{ns(f'{host}.pattern.test:{TLS_PORT}')}", "-H", ACCEPT)
            it.check(status == 401, f"{host}, with a plain file: {status}")
        it.check("a pattern needs dockerconfigjson" in node.process.text(), "nothing is said of the plain file")
        shown = node.run("build/shoal", "config", "check", "--config", node.config(), check=False)
        it.check(shown.returncode != 0 and "a pattern needs dockerconfigjson" in shown.stderr + shown.stdout, f"at start: {shown.stderr}")
        no_secret_is_told(lab)


def test_org_4_realms_that_are_not_listed():
    """A registry that names another realm's host: the node's login stays here, the client hears the challenge."""
    with private_registry("bearer", lambda lab: {"credentials": str(make_login(lab.dir / "login", f"{USER}:{PASSWORD}")), "shared": True, "realmHosts": []}) as lab:
        status, headers, _ = fetch(lab.nodes[0], f"/v2/lib/app/manifests/1{ns(lab.name)}", "-H", ACCEPT)
        it.check(status == 401 and f"https://auth.test:{TOKEN_PORT}/token" in headers.get("www-authenticate", ""), f"{status} {headers}")
        it.check(lab.token_log.read_text() == "", f"ORG-4: {lab.token_log.read_text()}")


def digest_by_tag(node, name: str, *args) -> tuple[int, str, dict]:
    status, headers, body = fetch(node, f"/v2/lib/app/manifests/1{ns(name)}", "-H", ACCEPT, *args)
    it.check(status != 200 or stub.digest_of(body) == headers["docker-content-digest"], "the body is not what the head says")
    return status, headers.get("docker-content-digest", ""), headers


def test_int_9_a_tag_is_asked_for_each_time():
    """The registry sends only news (304), and a moved tag is served at once."""
    with private_registry("basic", lambda lab: {}) as lab:
        node, login = lab.nodes[0], ("-u", f"{USER}:{PASSWORD}")
        for _ in range(3):
            it.check(digest_by_tag(node, lab.name, *login)[:2] == (200, lab.image["digest"]), "lib/app:1")
        it.check(node.metric("shoal_tags_unchanged_total") == 2, f"{node.metric('shoal_tags_unchanged_total')} of 2 questions were conditional")
        head = node.run("curl", "-sI", "-H", ACCEPT, "-u", f"{USER}:{PASSWORD}", f"http://127.0.0.1:{node.client_port}/v2/lib/app/manifests/1{ns(lab.name)}").stdout.lower()
        it.check(lab.image["digest"] in head and "content-length: " in head and " 200 " in head, f"HEAD: {head}")
        it.check(digest_by_tag(node, lab.name, "-u", f"{USER}:wrong")[0] == 401, "ACL-1: a wrong password was answered from memory")
        it.check(digest_by_tag(node, lab.name)[0] == 401, "ACL-4: no password was answered from memory")
        moved = lab.push_image("lib/app", [2 << 20])
        it.check(digest_by_tag(node, lab.name, *login)[:2] == (200, moved["digest"]), "a moved tag")


def test_int_9_news_only():
    """A tag that has not moved costs the registry one question and a 304 without a body, whoever asks and by which method; a moved one a 200."""
    with Lab(1) as lab:
        lab.processes.append(Process(lab.origin_exec(sys.executable, Path(__file__).with_name("oci_registry.py"), "--host", lab.origin_address,
                                                     "--port", lab.registry_port, "--log", lab.dir / "asked"), lab.dir / "strict.log"))
        node, name = lab.nodes[0], lab.registries[0]["name"]
        path = f"/v2/lib/app/manifests/1{ns(name)}"
        node.start()

        def push(text: str) -> str:
            body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"a": text}})
            run(*lab.origin_exec("curl", "-sf", "--retry", "5", "--retry-connrefused", "-X", "PUT", "-H", f"Content-Type: {INDEX}", "--data-binary", body, f"{lab.endpoint}/v2/lib/app/manifests/1"))
            return stub.digest_of(body.encode())

        def asked() -> list[str]:
            return [line for line in (lab.dir / "asked").read_text().splitlines() if not line.startswith("PUT")]

        first = push("first")
        seen = 0
        for digest, statuses in ((first, ("200", "304", "304", "304")), (push, ("200", "304"))):
            digest = digest if isinstance(digest, str) else push("second")
            for i, wanted in enumerate(statuses):
                args = ("-I",) if i == len(statuses) - 1 else ()
                status, headers, body = fetch(node, path, "-H", f"Accept: {INDEX}", *args)
                it.check(status == 200 and headers.get("docker-content-digest") == digest, f"{i}: {status} {headers}")
                it.check(args or stub.digest_of(body) == digest, f"{i}: another body")
                news = asked()[seen:]
                seen += len(news)
                it.check(len(news) == 1 and news[0].split()[1] == wanted, f"question {i} of {statuses}: {news}")
        it.check(node.metric("shoal_tags_unchanged_total") == 4, f"{node.metric('shoal_tags_unchanged_total')} of 4 were counted")


def test_a_tag_is_what_the_client_accepts():
    """A client that accepts other types hears what the registry would tell it, not what was told to somebody else."""
    with private_registry("basic", lambda lab: {}) as lab:
        node = lab.nodes[0]
        push_multi(lab, "lib/multi")
        path = f"/v2/lib/multi/manifests/1{ns(lab.name)}"
        login = ("-u", f"{USER}:{PASSWORD}")
        for accept, wanted in ((INDEX, 200), (stub.MANIFEST, 404), (INDEX, 200)):
            status, headers, _ = fetch(node, path, "-H", f"Accept: {accept}", *login)
            it.check(status == wanted, f"{accept}: {status} {headers.get('content-type')}")


def test_acl_6_tags_while_the_registry_is_down():
    """Who was accepted before hears what the tag stood for, visibly stale; nobody else does; with access.offline: deny nobody at all."""
    with private_registry("basic", lambda lab: {}) as lab:
        node, login = lab.nodes[0], ("-u", f"{USER}:{PASSWORD}")
        for setting, wanted in (("same-credentials", 200), ("deny", 503)):
            if setting == "deny":
                node.process.stop()
                lab.tls_process = lab.start_registry(lab.auth, port=TLS_PORT, name="registry-tls", tls=lab.tls)
                node.start({"access.offline": "deny"})
            it.check(pull(node, lab.name, lab.image, *login) == 200, "while the registry was up")
            it.check(digest_by_tag(node, lab.name)[0] == 401, "without a login, registry up")
            lab.tls_process.kill()
            status, digest, headers = digest_by_tag(node, lab.name, *login)
            it.check(status == wanted, f"{setting}: {status}")
            if wanted == 200:
                it.check(digest == lab.image["digest"] and headers.get("shoal-stale", "").isdigit() and headers.get("warning", "").startswith("110 "), f"{headers}")
                it.check(pull(node, lab.name, lab.image, *login) == 200, "ACL-6: the image while the registry is down")
                it.check(node.metric("shoal_tags_stale_total") == 2, "stale tags are not counted")
                for accept, right in ((INDEX, 503), (f"{INDEX}, {stub.MANIFEST};q=0", 503), (f"{INDEX}, {stub.MANIFEST}", 200), ("application/*", 200)):
                    status, _, _ = fetch(node, f"/v2/lib/app/manifests/1{ns(lab.name)}", "-H", f"Accept: {accept}", *login)
                    it.check(status == right, f"a stale tag for a client that takes {accept}: {status}")
            it.check(digest_by_tag(node, lab.name, "-u", f"{USER}:other")[0] == 503, f"{setting}: another login, registry down")
            it.check(digest_by_tag(node, lab.name)[0] == 401, f"{setting}: no login, registry down: the challenge of before")


def test_tags_are_asked_for_together():
    """Twenty clients at once make one question for a tag; with tags.ttl the next ones make none for a while."""
    from bad_origin import ask_stub, start_stub
    with Lab(1) as lab:
        lab.processes.append(start_stub(lab))
        ask_stub(lab, "/v2/")
        node = lab.nodes[0]
        name = lab.registries[0]["name"]
        url = f"http://127.0.0.1:{node.client_port}/v2/lib/slow-manifest/manifests/1{ns(name)}"
        for ttl, more in (("0", 1), ("5s", 0)):
            node.start({"tags.ttl": ttl})
            before = questions(lab)
            done = run(*node.exec("bash", "-c", f"seq 20 | xargs -P 20 -I{{}} sh -c \"curl -sSf -m 20 -H '{ACCEPT}' '{url}' | sha256sum\""))
            it.check(done.stdout.count(stub.digest_of(stub.manifest("lib/slow-manifest")).split(":")[1]) == 20, f"{done.stdout[:200]} {done.stderr[-200:]}")
            it.check(questions(lab) - before == 1, f"twenty clients made {questions(lab) - before} questions")
            it.check(node.metric("shoal_tags_joined_total") == 19, f"{node.metric('shoal_tags_joined_total')} waited for another one's")
            fetch(node, f"/v2/lib/slow-manifest/manifests/1{ns(name)}", "-H", ACCEPT)
            it.check(questions(lab) - before == 1 + more, f"tags.ttl {ttl}: {questions(lab) - before} questions")
            fetch(node, f"/v2/lib/slow-manifest/manifests/1{ns(name)}", "-H", ACCEPT, "-H", f"Authorization: Bearer {marks.secret('other')}")
            it.check(questions(lab) - before == 2 + more, "ACL-1: other credentials were answered without asking")
            node.process.stop()


def questions(lab) -> int:
    from bad_origin import ask_stub
    return sum("/lib/slow-manifest/manifests/" in entry["path"] for entry in json.loads(ask_stub(lab, "/log")))


def test_int_9_tags_by_rule():
    """What a rule makes of a tag: fixed ones are not asked for again, others for a while, always, or not here at all; nobody hears more than before."""
    rules = ["lib/app:v* fixed", "lib/app:t* 3s", "lib/*:off off", "*:now origin"]
    with private_registry("basic", lambda lab: {"tags": rules}) as lab:
        node, login = lab.nodes[0], ("-u", f"{USER}:{PASSWORD}")
        node.process.stop()
        node.start({"tags.ttl": "60s"})
        other_login = ("-H", "Authorization: basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())  # same right, another credential

        def ask(tag, *args):
            status, headers, _ = fetch(node, f"/v2/lib/app/manifests/{tag}{ns(lab.name)}", "-H", ACCEPT, *args)
            return status, headers.get("docker-content-digest", "")

        tags = ("v1", "t1", "now", "free", "off")
        old = {tag: lab.push_image("lib/app", [1 << 20], tag)["digest"] for tag in tags}
        for tag in tags[:4]:
            it.check(ask(tag, *login) == (200, old[tag]), f"{tag}: {ask(tag, *login)}")
        asked = time.monotonic()
        new = {tag: lab.push_image("lib/app", [2 << 20], tag)["digest"] for tag in tags}
        for tag, wanted in (("v1", old), ("now", new), ("free", old)):  # no rule: tags.ttl
            it.check(ask(tag, *login) == (200, wanted[tag]), f"{tag} moved: {ask(tag, *login)}")
        heard = ask("t1", *login)
        it.check(heard == (200, old["t1"]) or time.monotonic() - asked > 3, f"t1 within its time: {heard}")
        time.sleep(max(0, asked + 3.2 - time.monotonic()))
        it.check(ask("t1", *login) == (200, new["t1"]), "t1 after its time")
        for tag in tags[:4]:  # ACL-1, ACL-4: nobody else hears it from memory
            it.check(ask(tag, "-u", f"{USER}:wrong")[0] == 401 and ask(tag)[0] == 401, f"{tag} without a right")
        missing = fetch(node, f"/v2/lib/none/manifests/off{ns(lab.name)}", "-H", ACCEPT)
        for args in (login, (), ("-u", f"{USER}:wrong")):
            got = fetch(node, f"/v2/lib/app/manifests/off{ns(lab.name)}", "-H", ACCEPT, *args)
            it.check(got[0] == 404 and got[2] == missing[2] and b"MANIFEST_UNKNOWN" in got[2], f"off: {got}")
        it.check(node.metric("shoal_tags_off_total") == 4, "tags left to clients are not counted")
        it.check(fetch(node, f"/v2/lib/app/manifests/{new['off']}{ns(lab.name)}", "-H", ACCEPT, *login)[0] == 200, "by digest")
        lab.tls_process.kill()
        for tag, stale in (("v1", False), ("t1", True)):
            if stale:
                time.sleep(3.2)
            status, headers, _ = fetch(node, f"/v2/lib/app/manifests/{tag}{ns(lab.name)}", "-H", ACCEPT, *login)
            it.check(status == 200 and ("shoal-stale" in headers) == stale, f"{tag}, registry down: {status} {headers}")
        lab.tls_process = lab.start_registry(lab.auth, port=TLS_PORT, name="registry-tls", tls=lab.tls)
        end = time.monotonic() + 10  # a host that was silent rests for a moment
        while (heard := ask("v1", *other_login))[0] != 200 and time.monotonic() < end:
            time.sleep(0.3)
        it.check(heard == (200, new["v1"]), f"another credential asks the registry, whose word counts: {heard}")
        it.check(node.metric("shoal_tags_moved_total") == 1 and "registries.tags says is fixed" in node.process.text(), "nothing is said of a fixed tag that moved")


def test_client_certificate():
    """A registry that asks who is there: with the entry's certificate it is served, without one it is not."""
    with Lab(1) as lab:
        cert, key = make_certificate(lab.dir, "registry", "registry.test")
        own, own_key = make_certificate(lab.dir, "node", "node.test")
        own_key.chmod(0o400)
        lab.start_registry()
        lab.start_registry(port=TLS_PORT, name="registry-tls", tls={"certificate": str(cert), "key": str(key), "clientcas": [str(own)]})
        lab.image = lab.push_image("lib/app", [1 << 20, 3 << 20])
        entry = {"name": f"registry.test:{TLS_PORT}", "ca": str(cert), "allowPrivate": True}
        lab.registries = [{**entry, "clientCertificate": str(own), "clientKey": str(own_key)}]
        node = lab.nodes[0]
        node.start()
        status = pull(node, entry["name"], lab.image)
        it.check(status == 200, f"with a certificate: {status}")
        node.process.stop()
        lab.registries = [entry]
        node.start()
        status = pull(node, entry["name"], lab.image)
        it.check(status == 503, f"without one: {status}")
        node.process.stop()
        own_key.chmod(0o444)
        lab.registries = [{**entry, "clientCertificate": str(own), "clientKey": str(own_key)}]
        shown = node.run("build/shoal", "config", "check", "--config", node.config(), check=False)
        it.check(shown.returncode != 0 and "registries.clientKey" in shown.stderr + shown.stdout, f"a key everybody may read: {shown.stderr}")


def test_proxy():
    """All of a registry's requests go through its proxy, with credentials inside the tunnel only (ORG-3)."""
    def entries(ca):
        return [{"name": f"registry.test:{TLS_PORT}", "ca": ca, "proxy": "http://registry.test:3128"}]  # a private address, but the proxy's
    with tls_registry(entries) as lab:
        node, secret = lab.nodes[0], marks.secret("proxied")
        status = pull(node, f"registry.test:{TLS_PORT}", lab.image)
        it.check(status == 503, f"without its proxy: {status}")
        proxy = Process(lab.origin_exec(sys.executable, Path(__file__).with_name("connect_proxy.py"), lab.origin_address, PROXY_PORT), lab.dir / "proxy.log")
        lab.processes.append(proxy)
        end = time.monotonic() + 15  # the dead proxy rests for a moment
        while (status := pull(node, f"registry.test:{TLS_PORT}", lab.image, "-H", f"Authorization: Bearer {secret}")) != 200 and time.monotonic() < end:
            time.sleep(0.3)
        it.check(status == 200, f"through the proxy: {status}")
        seen = proxy.text()
        it.check(f"CONNECT registry.test:{TLS_PORT}" in seen and "GET" not in seen, f"the proxy saw {seen[:500]}")
        it.check("uthorization" not in seen and secret not in seen, "ORG-3: credentials were shown to the proxy")


def test_rates_and_connections():
    """A registry's rate and the node's hold for all its bodies together; one connection serves six clients one after the other."""
    name = f"registry.test:{TLS_PORT}"
    def entries(ca):
        return [{"name": name, "ca": ca, "allowPrivate": True, "rateMbit": 40}]
    size = 10 << 20
    for extra in ({}, {"limits.originMbit": 40, "registries": None}):
        with tls_registry(entries) as lab:
            node = lab.nodes[0]
            if extra:
                node.process.stop()
                entry = {k: v for k, v in lab.registries[0].items() if k != "rateMbit"}
                node.start({**extra, "registries": [{**entry, "connections": 1}]})
            layers = lab.push_image("lib/big", [size // 2, size // 2])["layers"]
            fetch(node, f"/v2/lib/big/manifests/1{ns(name)}", "-H", ACCEPT)
            started = time.monotonic()
            urls = [f"http://127.0.0.1:{node.client_port}/v2/lib/big/blobs/{layer['digest']}{ns(name)}" for layer in layers] * 3
            done = run(*node.exec("bash", "-c", 'printf "%s\\n" "$@" | xargs -P 6 -I{} sh -c "curl -sSf -m 60 \'{}\' | sha256sum"', "-", *urls), timeout=100)
            took = time.monotonic() - started
            right = sum(done.stdout.count(layer["digest"].split(":")[1]) for layer in layers)
            it.check(right == 6, f"{right} of 6 clients got right bytes: {done.stderr[-300:]}")
            least = size * 8 / 40e6
            it.figure(f"{extra or 'rateMbit'}: {size >> 20} MiB in {took:.1f} s, at 40 Mbit/s {least:.1f} s")
            it.check(0.85 * least < took < 2 * least + 1, f"{took:.1f} s")
            it.check(node.metric("shoal_origin_throttled_total") > 5, "nothing was throttled")


def sockets_at(lab, port: int) -> int:
    """Established connections to this port of the registry's host."""
    return len(run(*lab.origin_exec("ss", "-Htn", "state", "established", f"( sport = :{port} )")).stdout.splitlines())


def test_connections_of_a_registry():
    """`connections` bounds the sockets at the registry while six clients pull six images; without it there are more."""
    seen = {}
    for most in (2, 0):
        with Lab(1, origin_mbit=200) as lab:
            lab.start_registry()
            lab.registries[0]["connections"] = most
            node = lab.nodes[0]
            node.start({"transfer.prefetch": False})
            name = lab.registries[0]["name"]
            layers = [(i, lab.push_image(f"lib/c{i}", [4 << 20])["layers"][0]["digest"]) for i in range(6)]
            urls = [f"http://127.0.0.1:{node.client_port}/v2/lib/c{i}/blobs/{digest}{ns(name)}" for i, digest in layers]
            pulls = [subprocess.Popen(node.exec("curl", "-sSf", "-m", "60", "-o", lab.dir / f"c{i}", url), stderr=subprocess.PIPE) for i, url in enumerate(urls)]
            samples = []
            while any(pull.poll() is None for pull in pulls):
                samples.append(sockets_at(lab, lab.registry_port))
                time.sleep(0.02)
            for i, (pull, (_, digest)) in enumerate(zip(pulls, layers)):
                it.check(pull.returncode == 0 and stub.digest_of((lab.dir / f"c{i}").read_bytes()) == digest, f"{i}: {pull.returncode} {pull.stderr.read()}")
            seen[most] = max(samples)
            it.figure(f"connections: {most}: at most {max(samples)} sockets at the registry, {len(samples)} looks, {node.metric('shoal_origin_queued_total'):.0f} waited")
            it.check(len(samples) >= 5, f"{len(samples)} looks: the test shows nothing")
            it.check(most == 0 or node.metric("shoal_origin_queued_total") > 0, "nothing waited")
    it.check(seen[2] <= 2, f"{seen[2]} sockets where 2 are allowed")
    it.check(seen[0] > 2, f"{seen[0]} sockets without a limit: the test shows nothing")


def test_acl_10_repositories_off_the_mesh():
    """What a rule keeps off the mesh is read from the registry by each node; its neighbour repository is not."""
    def entries(ca):
        return [{"name": f"registry.test:{TLS_PORT}", "ca": ca, "allowPrivate": True, "p2p": ["lib/app off", "* on"]}]
    with tls_registry(entries, nodes=2) as lab:
        other = lab.push_image("lib/shared", [3 << 20])
        for node in lab.nodes:
            before = around(node)
            it.check(pull(node, f"registry.test:{TLS_PORT}", lab.image) == 200, f"{node.name}: lib/app")
            it.check(around(node) == before + 3, f"{node.name}: not all of lib/app went around the mesh")
        for node, source in zip(lab.nodes, ("origin", "peer")):
            layer = other["layers"][0]["digest"]
            fetch(node, f"/v2/lib/shared/manifests/1{ns(f'registry.test:{TLS_PORT}')}", "-H", ACCEPT)
            status, headers, _ = fetch(node, f"/v2/lib/shared/blobs/{layer}{ns(f'registry.test:{TLS_PORT}')}")
            it.check(status == 200 and headers.get("shoal-source") == source, f"{node.name}: {status} from {headers.get('shoal-source')}")


def test_copies_of_a_registry():
    """What is read of a registry with `copies: zone` crosses no zone's border; of another one on the same mesh it does, once."""
    with Lab(4, zones=2) as lab:
        lab.start_registry()
        images = {name: lab.push_image(f"lib/{name}", [3 << 20]) for name in ("zone", "mesh")}
        mesh = lab.registries[0]
        lab.registries = [mesh, {**mesh, "name": "zones.test", "endpoint": f"http://{mesh['name']}", "copies": "zone", "default": False}]
        lab.start_nodes()
        lab.wait_members()
        for registry, name in (("zones.test", "zone"), (mesh["name"], "mesh")):
            layer, seen, sources = images[name]["layers"][0]["digest"], set(), []
            for node in lab.nodes:
                fetch(node, f"/v2/lib/{name}/manifests/1{ns(registry)}", "-H", ACCEPT)
                status, headers, body = fetch(node, f"/v2/lib/{name}/blobs/{layer}{ns(registry)}")
                it.check(status == 200 and stub.digest_of(body) == layer, f"{node.name}: {status}")
                first = node.zone not in seen if name == "zone" else not seen
                sources.append((node.name, node.zone, headers.get("shoal-source"), "origin" if first else "peer"))
                seen.add(node.zone)
            it.check(all(got == wanted for _, _, got, wanted in sources), f"{name}: {sources}")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
