#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Images brought in before they are asked for: `shoal pull` and orders over the control socket, by HTTP from CI systems and Harbor; with a real registry."""
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import it
import marks
from images import push_multi
from lab import REGISTRY_NAME, Lab, Process, run
from operate import pull as client_pull, shoal
from pull import fetch
from registries import ACCEPT, PASSWORD, USER, make_certificate, make_login, ns, private_registry, pull as private_pull


def order(node, image: str, *words, code=0) -> dict:
    """`shoal pull --json`: the last line, after a look at all of them."""
    done = node.run("build/shoal", "pull", "--config", node.dir / "shoal.yaml", image, "--json", *words, check=False)
    it.check(done.returncode == code, f"shoal pull {image} {words}: {done.returncode}\n{done.stdout}{done.stderr}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    it.check(all(a["have_bytes"] <= b["have_bytes"] for a, b in zip(lines, lines[1:])), done.stdout)
    return {**(lines[-1] if lines else {}), "stderr": done.stderr}


def control(node, path: str, body=None, method=None) -> tuple[int, str]:
    words = ["-X", method] if method else []
    words += ["-d", body if isinstance(body, str) else json.dumps(body)] if body is not None else []
    done = node.run("curl", "-s", "-m", "20", "-w", "\n%{http_code}", *words, "--unix-socket", node.dir / "data" / "control.sock", f"http://shoal{path}")
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def refused(node, image: str, *words) -> str:
    return order(node, image, *words, code=1)["stderr"]


def test_pull_then_a_client_reads_nothing_from_the_registry():
    with Lab(2) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", [6 << 20, 3 << 20, 200 << 10])
        lab.start_nodes()
        lab.wait_members()
        first, second = lab.nodes
        bytes_in_all = image["size"] + image["config"]["size"]
        done = order(first, f"{REGISTRY_NAME}/lib/app:1")
        it.check((done["state"], done["digest"], done["bytes"], done["have_bytes"]) == ("done", image["digest"], bytes_in_all, bytes_in_all), f"{done}")
        it.check(done["origin_bytes"] == bytes_in_all and done["peer_bytes"] == 0, f"{done}")
        it.check({b["digest"] for b in done["blobs"]} == {image["config"]["digest"]} | {layer["digest"] for layer in image["layers"]}, f"{done}")
        first.count_sources()
        read = first.status()["bytes"]["origin"]
        client_pull(first, image)
        it.check(first.status()["bytes"]["origin"] == read == bytes_in_all, "the client's blobs came from the registry")
        it.check(first.sources()["origin_bytes"] < 20000, f"{first.sources()}")  # the manifest is asked for: who may read is the registry's word
        done = order(second, f"{REGISTRY_NAME}/lib/app:1")
        it.check(done["peer_bytes"] == bytes_in_all and done["origin_bytes"] == 0, f"the second node's came from elsewhere: {done}")
        again = order(second, f"{REGISTRY_NAME}/lib/app@{image['digest']}")
        it.check(again["state"] == "done" and again["peer_bytes"] + again["origin_bytes"] == 0 and again["have_bytes"] == bytes_in_all, f"{again}")
        it.check("ahead" in shoal(second, "explain", f"{REGISTRY_NAME}/lib/app:1", "--json"), "explain does not know it")
        it.check(second.metric("shoal_orders_total") >= 4 and second.metric("shoal_orders_bytes_total") == bytes_in_all, "metrics")
        text = shoal(second, "pull", f"{REGISTRY_NAME}/lib/app:1")
        it.check("blobs 4 of 4" in text and f"{image['digest']}: here" in text, text)


def test_platforms():
    with Lab(1) as lab:
        lab.start_registry()
        index, (_, arm) = push_multi(lab, "lib/multi", 2 << 20)
        lab.start_nodes()
        node, name = lab.nodes[0], f"{REGISTRY_NAME}/lib/multi:1"
        one = order(node, name, "--platform", "linux/arm64")
        it.check(one["digest"] == index["digest"] and {b["digest"] for b in one["blobs"]} == {arm["parts"]["config"]["digest"]} | {d["digest"] for d in arm["parts"]["layers"]}, f"{one}")
        every = order(node, name, "--platform=all")
        it.check(len(every["blobs"]) == 5 and every["origin_bytes"] == every["bytes"] - one["bytes"], f"{every}")
        own = order(node, name)
        it.check(own["platform"].startswith("linux/") and own["state"] == "done" and own["origin_bytes"] == 0, f"{own}")
        text = refused(node, name, "--platform", "windows/amd64")
        it.check("lib/multi:1 has no image for windows/amd64; it has: linux/amd64, linux/arm64" in text, text)


def test_what_cannot_be_pulled_is_told():
    with Lab(1) as lab:
        process = lab.start_registry()
        for repository, layers in (("lib/app", [33 << 20, 33 << 20]), ("lib/half", [40 << 20]), ("off/app", [1 << 20])):
            lab.push_image(repository, layers)
        lab.registries[0]["p2p"] = ["off/* off", "* on"]
        lab.start_nodes({"cache.capacity": "64MiB"})
        node = lab.nodes[0]
        for image, wanted in ((f"{REGISTRY_NAME}/lib/app:no", "has no lib/app:no"), ("other.test/lib/app:1", "registry other.test is not configured"),
                              (f"{REGISTRY_NAME}/lib/app:1", "the cache holds 64.0 MiB: raise cache.capacity"), (f"{REGISTRY_NAME}/lib/half:1", "does not stay in the cache"),
                              (f"{REGISTRY_NAME}/lib/app@sha256:{'0' * 64}", "has no lib/app@sha256:0000"), (f"{REGISTRY_NAME}/off/app:1", "kept off the mesh")):
            text = refused(node, image)
            it.check(wanted in text, f"{image}: {text}")
        for words, wanted in (((), "which image"), (("a b",), "no image's name"), (("a", "b"), "unknown argument"), (("a", "--platform", "x"), "os/arch"),
                              (("a", "--on", "0"), "a number of nodes"), (("a", "--on"), "a number of nodes")):
            it.check(wanted in shoal(node, "pull", *words, code=2), f"{words}")
        process.kill()
        text = refused(node, f"{REGISTRY_NAME}/lib/app:2")
        it.check(f"registry {REGISTRY_NAME}: " in text, text)


def test_orders_over_the_control_socket():
    with Lab(1, origin_mbit=40) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", [20 << 20, 12 << 20])
        lab.start_nodes()
        node = lab.nodes[0]
        good = {"image": f"{REGISTRY_NAME}/lib/app:1"}
        for body, wanted in (("", 400), ("[]", 400), ("{", 400), ({"image": 1}, 400), ({"image": "a b"}, 400), ({**good, "platform": "x"}, 400), ({**good, "on": "some"}, 400), ({**good, "on": 0}, 400), ({**good, "on": True}, 400),
                             ({"image": "x.test/a"}, 404), ("[" * 60000, 413), ('{"image": "' + "a" * 70000 + '"}', 413), ({**good, "attached": 1}, 400)):
            status, text = control(node, "/prefetch", body)
            it.check(status == wanted and "error" in text, f"{str(body)[:60]}: {status} {text[:200]}")
        for path, method, wanted in (("/prefetch/0", "GET", 404), ("/prefetch/" + "0" * 16, "GET", 404), ("/prefetch", "DELETE", 405), ("/status", "POST", 405), ("/explain", "POST", 405)):
            it.check(control(node, path, method=method)[0] == wanted, f"{method} {path}: {control(node, path, method=method)}")
        status, text = control(node, "/prefetch", good)
        it.check(status == 202, f"{status} {text}")
        place = "/prefetch/" + json.loads(text)["id"]
        it.check(control(node, "/prefetch", good) == (202, text), "the same order again is another one")
        it.check(control(node, place + "/cancel")[0] == 405, "a GET cancels")
        # HTTP-2: the ports of clients and of the admin take no orders
        for port in (node.client_port, node.admin_port):
            done = node.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", json.dumps(good), f"http://127.0.0.1:{port}/prefetch")
            it.check(done.stdout == "405", f"port {port}: {done.stdout}")
        # An attached one ends with who gave it.
        shell = Process(node.exec("build/shoal", "pull", "--config", node.dir / "shoal.yaml", good["image"], "--platform", "linux/amd64"), node.dir / "pull.log")
        time.sleep(0.7)
        it.check(len(json.loads(control(node, "/prefetch")[1])["pulls"]) == 2, "the list")
        it.check(shell.stop() == 1 and "cancelled" in shell.text(), shell.text())
        states = [p["state"] for p in json.loads(control(node, "/prefetch")[1])["pulls"]]
        it.check(states == ["cancelled", "running"], f"{states}")
        status, text = control(node, place + "/cancel", method="POST")
        pull = json.loads(text)
        it.check(status == 200 and pull["state"] == "cancelled", f"{status} {text}")
        time.sleep(1)
        it.check(node.metric("shoal_readers_ahead") == 0, "a cancelled order reads on")
        done = order(node, good["image"])
        it.check(done["state"] == "done" and done["have_bytes"] == image["size"] + image["config"]["size"], f"{done}")


def test_too_many_orders():
    """Three at work, 61 wait; one more is refused, and there is room again when one is over."""
    with Lab(1) as lab:
        registry = lab.start_registry()
        lab.start_nodes()
        node = lab.nodes[0]
        os.kill(registry.pid, signal.SIGSTOP)  # it takes connections and says nothing
        ids = []
        for number in range(64):
            status, text = control(node, "/prefetch", {"image": f"{REGISTRY_NAME}/lib/app:{number}"})
            it.check(status == 202, f"{number}: {status} {text}")
            ids.append(json.loads(text)["id"])
        status, text = control(node, "/prefetch", {"image": f"{REGISTRY_NAME}/lib/app:more"})
        it.check(status == 429 and "too many images wait" in text, f"{status} {text}")
        states = [p["state"] for p in json.loads(control(node, "/prefetch")[1])["pulls"]]
        it.check(states.count("resolving") == 3 and states.count("waiting") == 61, f"{states}")
        it.check(control(node, f"/prefetch/{ids[5]}/cancel", method="POST")[0] == 200, "cancel")
        it.check(control(node, "/prefetch", {"image": f"{REGISTRY_NAME}/lib/app:more"})[0] == 202, "no room though one is over")
        it.check(control(node, f"/prefetch/{ids[5]}")[0] == 404, "the one that is over is still known")
        os.kill(registry.pid, signal.SIGCONT)
        it.check(node.process.stop() == 0, "orders keep the agent from stopping")


def test_acl_7_nodes_login_brings_in_and_lets_nobody_read():
    """The node's login, which is not `shared`: the order reads with it; a client without one still gets the registry's 401."""
    for mode in ("basic", "bearer"):
        with private_registry(mode, lambda lab: {"credentials": str(make_login(lab.dir / "login", f"{USER}:{PASSWORD}"))}) as lab:
            node, image = lab.nodes[0], f"{lab.name}/lib/app:1"
            it.check(private_pull(node, lab.name, lab.image) == 401, "anonymous before")
            done = order(node, image)
            it.check(done["state"] == "done" and done["origin_bytes"] == done["bytes"] > 4 << 20, f"{done}")
            it.check(private_pull(node, lab.name, lab.image) == 401, f"{mode}: a client without a login reads what the order brought in")
            for blob in (lab.image["config"], *lab.image["layers"]):
                status, _, _ = fetch(node, f"/v2/lib/app/blobs/{blob['digest']}{ns(lab.name)}")
                it.check(status == 401, f"{mode}: a blob without a login: {status}")
            status, _, _ = fetch(node, f"/v2/lib/app/manifests/{lab.image['digest']}{ns(lab.name)}", "-H", ACCEPT)
            it.check(status == 401, f"{mode}: the manifest without a login: {status}")
            if mode == "basic":
                read = node.status()["bytes"]["origin"]
                it.check(private_pull(node, lab.name, lab.image, "-u", f"{USER}:{PASSWORD}") == 200, "with its own login")
                it.check(node.status()["bytes"]["origin"] == read, "read again from the registry")
            make_login(lab.dir / "login", f"{USER}:wrong")
            text = refused(node, f"{lab.name}/lib/app:2")
            it.check("may not read it" in text or "has no lib/app:2" in text, text)
            it.check(PASSWORD not in text + node.process.text(), "the login is told")


def here(node, image) -> bool:
    """All of the image is in this node's cache, verified."""
    done = order(node, f"{REGISTRY_NAME}/lib/app:1")
    return done["origin_bytes"] + done["peer_bytes"] == 0


def origin_bytes(lab) -> float:
    return sum(node.status()["bytes"]["origin"] for node in lab.nodes)


def test_on_other_nodes():
    """They bring it in from the mesh: it leaves the registry once, and their clients read nothing of it."""
    with Lab(4, zones=2) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", [9 << 20, 5 << 20, 1 << 20, 300 << 10, 200 << 10, 100 << 10])
        lab.start_nodes()
        lab.wait_members()
        first, near, far, other = lab.nodes
        name, size = f"{REGISTRY_NAME}/lib/app:1", image["size"] + image["config"]["size"]
        done = order(first, name, "--on", "1")
        it.check(done["nodes"]["all"] == 0 and done["on"] == "1", f"{done}")
        it.check("has 4 nodes that are up, 5 are asked for" in refused(first, name, "--on", "5"), "five of four nodes")
        done = order(first, name, "--on", "zone")
        it.check(done["nodes"] == {"all": 1, "waiting": 0, "running": 0, "done": 1, "refused": 0, "failed": 0} and done["troubles"] == [], f"{done}")
        it.check(near.status()["bytes"]["peer"] == size and far.status()["bytes"]["peer"] == 0, "another zone")
        done = order(first, name, "--on=all")
        it.check(done["nodes"]["all"] == done["nodes"]["done"] == 3, f"{done}")
        it.check(origin_bytes(lab) == size, f"left the registry more than once: {origin_bytes(lab)}")
        for node in (near, far, other):
            it.check(node.metric("shoal_orders_total") == 0 and here(node, image), f"{node.name} does not have it")
            client_pull(node, image)
        it.check(origin_bytes(lab) == size, "clients read the registry")
        text = shoal(first, "pull", name, "--on", "2")
        it.check("1 of 1 have it" in text, text)
        it.check(control(first, "/prefetch", {"image": name, "on": 3})[0] == 202, "by hand")


def test_nodes_that_refuse_fail_or_are_gone():
    with Lab(4) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", [40 << 20])
        first, closed, small, gone = lab.nodes
        first.start(wait=False)
        gone.start(wait=False)
        closed.start({"prefetch.fromPeers": False}, wait=False)
        small.start({"cache.capacity": "64MiB"}, wait=False)
        for node in lab.nodes:
            node.wait_ready()
        lab.wait_members()
        text = refused(first, f"{REGISTRY_NAME}/lib/app:1", "--on", "all")
        pull = json.loads(control(first, "/prefetch")[1])["pulls"][0]
        pull = json.loads(control(first, f"/prefetch/{pull['id']}")[1])
        why = {t["addr"]: t["error"] for t in pull["troubles"]}
        it.check(pull["nodes"]["done"] == 1 and pull["nodes"]["refused"] == 2 and pull["state"] == "failed", f"{pull}")
        it.check("refuses orders of other nodes" in why[f"{closed.address}:{closed.mesh_port}"], f"{why}")
        it.check("half of its cache" in why[f"{small.address}:{small.mesh_port}"], f"{why}")
        it.check("2 of 3 other nodes do not have it" in text, text)
        it.check(closed.metric("shoal_orders_of_peers_total") >= 1 and closed.status()["bytes"]["peer"] == 0, "it was brought in all the same")
        it.check(here(gone, image), "the one that agreed does not have it")
        gone.process.kill()  # still a member for some seconds: silence ends it
        text = refused(first, f"{REGISTRY_NAME}/lib/app:1", "--on", "all")
        it.check("other nodes do not have it" in text, text)


def test_what_is_asked_no_more_is_forgotten():
    with Lab(2, mbit=10, origin_mbit=400) as lab:
        lab.start_registry()
        lab.push_image("lib/app", [17 << 20, 17 << 20])
        lab.start_nodes()
        lab.wait_members()
        first, second = lab.nodes
        place = "/prefetch/" + json.loads(control(first, "/prefetch", {"image": f"{REGISTRY_NAME}/lib/app:1", "on": "all"})[1])["id"]
        end = time.monotonic() + 60
        while json.loads(control(first, place)[1])["state"] != "spreading":
            it.check(time.monotonic() < end, control(first, place)[1])
            time.sleep(0.1)
        time.sleep(1.5)
        it.check(second.metric("shoal_readers_ahead") > 0, "nothing comes in")
        it.check(json.loads(control(first, place + "/cancel", method="POST")[1])["state"] == "cancelled", "cancel")
        end = time.monotonic() + 30
        while second.metric("shoal_readers_ahead") > 0:
            it.check(time.monotonic() < end, "it is brought in for nobody")
            time.sleep(0.5)
        page = second.get("/metrics", admin=True)
        counts = [line for line in page.splitlines() if line.startswith("shoal_orders_of_peers_total")]
        it.check('shoal_orders_of_peers_total{outcome="forgotten"} 0' not in counts, f"counted otherwise: {counts}")


def test_acl_1_other_nodes_get_no_right_with_it():
    """A private image on all nodes: they have no login, and their clients without one get the registry's 401."""
    with Lab(2) as lab:
        cert, key = make_certificate(lab.dir, "registry", "registry.test")
        passwords = lab.dir / "htpasswd"
        passwords.write_text(run("htpasswd", "-Bbn", USER, PASSWORD).stdout)
        lab.start_registry()
        lab.start_registry({"htpasswd": {"realm": "basic-realm", "path": str(passwords)}}, port=5443, name="registry-tls", tls={"certificate": str(cert), "key": str(key)})
        image = lab.push_image("lib/app", [3 << 20, 1 << 20])
        entry = {"name": "registry.test:5443", "ca": str(cert), "allowPrivate": True}
        first, second = lab.nodes
        lab.registries = [{**entry, "credentials": str(make_login(lab.dir / "login", f"{USER}:{PASSWORD}"))}]
        first.start()
        lab.registries = [entry]
        second.start()
        lab.wait_members()
        done = order(first, "registry.test:5443/lib/app:1", "--on", "all")
        it.check(done["nodes"]["done"] == 1 and second.status()["bytes"]["origin"] == 0, f"{done}")
        it.check(second.status()["bytes"]["peer"] == image["size"] + image["config"]["size"], "it did not come from the first node")
        it.check(private_pull(second, "registry.test:5443", image) == 401, "a client without a login reads what was brought in")
        it.check(private_pull(second, "registry.test:5443", image, "-u", f"{USER}:{PASSWORD}") == 200, "with its own login")
        it.check(second.status()["bytes"]["origin"] == 0, "read from the registry all the same")


KRAKEN = "application/vnd.docker.distribution.manifest.v2+json"


def by_http(node, path: str, *words, body=None, scheme="http") -> tuple[int, str]:
    words = [*words, *(["-d", body if isinstance(body, str) else json.dumps(body)] if body is not None else [])]
    done = node.run("curl", "-sk", "-m", "20", "-w", "\n%{http_code}", *words, f"{scheme}://{node.address}:65004{path}", check=False)
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def wait_over(node, place: str, *words) -> dict:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        pull = json.loads(by_http(node, place, *words)[1])
        if pull["state"] in ("done", "failed", "cancelled"):
            return pull
        time.sleep(0.1)
    raise AssertionError(f"not over: {pull}")


def pushed(lab, image, repository="lib/app", **more) -> dict:
    """As Harbor tells a provider of kind Kraken."""
    target = {"mediaType": KRAKEN, "size": 0, "digest": image["digest"], "repository": repository, "url": f"https://{REGISTRY_NAME}/v2/{repository}/manifests/1", "tag": "1"}
    return {"events": [{"id": "x1", "timestamp": "2026-11-23T00:00:00Z", "action": "push", "target": {**target, **more}, "request": None, "actor": None}]}


def with_token(lab, text: str) -> str:
    path = make_login(lab.dir / "token", text)
    return str(path)


def test_harbor_and_ci_by_http():
    with Lab(2) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", [5 << 20, 1 << 20])
        other = lab.push_image("lib/other", [2 << 20])
        token = marks.secret("prefetch-token") + "0123456789abcdef0123456789abcdef"
        node = lab.nodes[0]
        node.start({"listen.prefetch": node.address, "prefetch.tokenFile": with_token(lab, token + "\n"), "prefetch.pushedOn": "all"})
        lab.nodes[1].start()
        lab.wait_members()
        bearer, basic, wrong = ("-H", f"Authorization: Bearer {token}"), ("-u", f"harbor:{token}"), ("-u", "harbor:" + "x" * 32)
        good = pushed(lab, image)
        for words in ((), wrong, ("-H", f"Authorization: Bearer {token[:-1]}"), ("-H", f"X-Token: {token}")):
            for path, body in (("/health", None), ("/registry/notifications", good), ("/prefetch", {"image": f"{REGISTRY_NAME}/lib/app:1"}), ("/prefetch", None), ("/x", None)):
                status, text = by_http(node, path, *words, body=body)
                it.check(status == 401 and "error" in text, f"{words} {path}: {status} {text}")
        it.check(node.metric("shoal_orders_unauthorized_total") == 20 and node.metric("shoal_orders_total") == 0, "counted otherwise")
        for words in (bearer, basic):
            it.check(by_http(node, "/health", *words) == (200, '{"status":"ok"}'), "health")
        status, text = by_http(node, "/registry/notifications", *basic, body=good)
        orders = json.loads(text)["orders"]
        it.check(status == 202 and len(orders) == 1, f"{status} {text}")
        done = wait_over(node, f"/prefetch/{orders[0]['id']}", *bearer)
        it.check(done["state"] == "done" and done["digest"] == image["digest"] and done["origin_bytes"] == image["size"] + image["config"]["size"], f"{done}")
        it.check(done["on"] == "all" and done["nodes"]["done"] == 1 and lab.nodes[1].status()["bytes"]["peer"] == done["bytes"], f"{done}")
        status, text = by_http(node, "/registry/notifications", *basic, body=good)  # replayed: nothing comes again
        again = wait_over(node, f"/prefetch/{json.loads(text)['orders'][0]['id']}", *bearer)
        it.check(status == 202 and again["state"] == "done" and again["origin_bytes"] == 0, f"{again}")
        client_pull(lab.nodes[1], image)
        it.check(lab.nodes[1].status()["bytes"]["origin"] == 0, "another node's client read the registry")
        status, text = by_http(node, "/prefetch", *bearer, body={"image": f"{REGISTRY_NAME}/lib/other:1"})
        done = wait_over(node, "/prefetch/" + json.loads(text)["id"], *basic)
        it.check(status == 202 and done["state"] == "done" and done["digest"] == other["digest"], f"{done}")
        for body, wanted in (("", 400), ("{", 400), ({"events": 1}, 400), (pushed(lab, image, url="https://evil.test/v2/"), 404), (pushed(lab, image, repository="../x"), 400),
                             (pushed(lab, image, digest="sha256:1"), 400), ({"events": good["events"] * 33}, 413), ('{"events":' + "[" * 40, 413), ("x" * 70000, 413)):
            status, text = by_http(node, "/registry/notifications", *bearer, body=body)
            it.check(status == wanted and "error" in text, f"{str(body)[:80]}: {status} {text}")
        status, text = by_http(node, "/registry/notifications", *bearer, body={"events": [{**good["events"][0], "action": "pull"}]})
        it.check((status, text) == (202, '{"orders":[],"ignored":1}'), f"{status} {text}")
        status, text = by_http(node, "/registry/notifications", *bearer, "-H", "Transfer-Encoding: chunked", body=good)
        it.check(status == 413, f"chunked: {status}")
        it.check(by_http(node, "/metrics", *bearer)[0] == 404 and by_http(node, "/registry/notifications", *bearer)[0] == 404, "other paths")
        # A body that does not come is not waited for
        with it.inside(node.netns):
            silent = socket.create_connection((node.address, 65004), timeout=15)
        silent.sendall(b"POST /prefetch HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        it.check(silent.recv(100).startswith(b"HTTP/1.1 408"), "a body that does not come")
        silent.close()
        fresh = marks.secret("rotated-token") + "fedcba9876543210fedcba9876543210"
        with_token(lab, fresh)
        it.check(by_http(node, "/health", *bearer)[0] == 401 and by_http(node, "/health", "-u", f"x:{fresh}")[0] == 200, "a rotated token")
        shown = node.run("build/shoal", "config", "show", "--config", node.dir / "shoal.yaml").stdout
        it.check(fresh not in shown and token not in node.process.text(), "the token is shown")


def test_a_registry_tells_what_was_pushed():
    """docker-registry's own notifications: what is pushed to it comes to the node, and to others, before anybody asks; a wrong token orders nothing."""
    with Lab(2) as lab:
        token = marks.secret("notifications") + "0123456789abcdef0123456789abcdef"
        node, other = lab.nodes

        def endpoint(name: str, to, bearer: str) -> dict:
            return {"name": name, "url": f"http://{to.address}:65004/registry/notifications", "headers": {"Authorization": [f"Bearer {bearer}"]}, "timeout": "5s", "threshold": 3, "backoff": "1s"}
        etc = Path(f"/etc/netns/{lab.origin_ns}")  # a registry with an external name sends whoever pushes there
        etc.mkdir(parents=True)
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{lab.origin_address} registry.test\n")
        lab.start_registry(more={"http": {"host": f"http://{REGISTRY_NAME}"}, "notifications": {"endpoints": [endpoint("good", node, token), endpoint("bad", other, "x" * 40)]}})
        for each in lab.nodes:
            each.start({"listen.prefetch": each.address, "prefetch.tokenFile": with_token(lab, token + "\n"), "prefetch.pushedOn": "all"})
        lab.wait_members()
        image = lab.push_image("lib/app", [5 << 20, 1 << 20])
        bearer = ("-H", f"Authorization: Bearer {token}")
        end = time.monotonic() + 20
        while not (pulls := json.loads(by_http(node, "/prefetch", *bearer)[1])["pulls"]):
            it.check(time.monotonic() < end, "nothing was ordered")
            time.sleep(0.1)
        done = wait_over(node, f"/prefetch/{pulls[0]['id']}", *bearer)
        size = image["size"] + image["config"]["size"]
        it.check((done["state"], done["digest"], done["origin_bytes"], done["nodes"]["done"]) == ("done", image["digest"], size, 1), f"{done}")
        it.check(origin_bytes(lab) == size and other.status()["bytes"]["peer"] == size, "not once from the registry and then by the mesh")
        for each in lab.nodes:
            client_pull(each, image)
            it.check(origin_bytes(lab) == size, f"{each.name}'s client read the registry")
        it.check(node.metric("shoal_orders_unauthorized_total") == 0 and node.metric("shoal_orders_total") == 2, "not one order, begun and done")
        end = time.monotonic() + 10
        while other.metric("shoal_orders_unauthorized_total") == 0:
            it.check(time.monotonic() < end, "the wrong token was not refused, or never sent")
            time.sleep(0.1)
        it.check(other.metric("shoal_orders_total") == 0, "ordered with a wrong token")


def test_orders_by_tls():
    with Lab(1) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", [1 << 20])
        node, token = lab.nodes[0], "0123456789abcdef" * 3
        cert, key = make_certificate(lab.dir, "node", "mirror.test")
        key.chmod(0o400)
        node.start({"listen.prefetch": node.address, "prefetch.tokenFile": with_token(lab, token), "listen.tlsCertificate": [str(cert)], "listen.tlsKey": [str(key)]})
        status, text = by_http(node, "/registry/notifications", "-u", f"h:{token}", body=pushed(lab, image), scheme="https")
        it.check(status == 202, f"{status} {text}")
        it.check(wait_over_tls(node, json.loads(text)["orders"][0]["id"], token)["state"] == "done", "by TLS")
        it.check(by_http(node, "/health", "-u", f"h:{token}")[0] == 400, "plain HTTP to a TLS port")


def wait_over_tls(node, order_id: str, token: str) -> dict:
    for _ in range(100):
        pull = json.loads(by_http(node, f"/prefetch/{order_id}", "-u", f"h:{token}", scheme="https")[1])
        if pull["state"] not in ("waiting", "resolving", "running"):
            break
        time.sleep(0.1)
    return pull


if __name__ == "__main__":
    sys.exit(it.main(globals()))
