#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The status page in a real browser, beside the agents it tells of: what a person reads after a pull, in the middle of one, at 1,000
nodes, with strings that would like to be markup, without scripts, and when the agent is gone. Leaves screenshots in build/page/."""
import copy
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import it
from browser import PHONE, Browser
from lab import ADMIN_PORT, CLIENT_PORT, REGISTRY_NAME, ROOT, Lab, inside

OUT = ROOT / "build" / "page"
NS = f"?ns={REGISTRY_NAME.replace(':', '%3A')}"
MIB = 1 << 20
PAGE = f"http://127.0.0.1:{ADMIN_PORT}/"
STUB_PORT = 8099
STUB = f"http://127.0.0.1:{STUB_PORT}/"
TEXT = "document.body.innerText"
DRAW_MS_MAX = 1000


def pulls(node, image) -> list[subprocess.Popen]:
    """The layers, all at once, as a runtime would; each prints its digest."""
    node.run("curl", "-sf", "-o", "/dev/null", "-H", f"Accept: {image['mediaType']}", f"http://127.0.0.1:{CLIENT_PORT}/v2/lib/app/manifests/1{NS}")
    paths = [f"http://127.0.0.1:{CLIENT_PORT}/v2/lib/app/blobs/{layer['digest']}{NS}" for layer in image["layers"]]
    return [subprocess.Popen(node.exec("sh", "-c", f"curl -s '{path}' | sha256sum"), stdout=subprocess.PIPE, text=True) for path in paths]


def done(running: list[subprocess.Popen], image):
    for process, layer in zip(running, image["layers"]):
        it.check(process.communicate(timeout=60)[0].split()[0] == layer["digest"][7:], "other bytes")


@contextmanager
def browser_in(node):
    OUT.mkdir(parents=True, exist_ok=True)
    browser = Browser(node.netns, (PAGE, STUB))
    try:
        yield browser
    finally:
        browser.close()


def no_problems(browser):
    it.check(browser.problems == [], f"{browser.problems}")


def sheet(browser, name: str, whole=True):
    browser.screenshot(OUT / f"{name}.png", whole)


def page_json(node, names=False) -> dict:
    if not names:
        return json.loads(node.get("/page.json", admin=True).split(" ", 1)[1])
    return json.loads(node.run("curl", "-s", "--unix-socket", node.dir / "data" / "control.sock", "http://shoal/page.json").stdout)


def test_the_page_tells_where_bytes_came_from():
    with Lab(5, zones=2, mbit=40) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", [28 * MIB, 12 * MIB, 5 * MIB])
        lab.start_nodes()
        lab.wait_members()
        first, far = lab.nodes[0], lab.nodes[4]
        with browser_in(far) as browser:
            browser.open(PAGE)
            browser.wait("document.body.dataset.drawn >= 1")
            it.check("No layer has been pulled" in browser.run(TEXT), "an idle node says something else")
            running = pulls(first, image)
            browser.wait("document.body.dataset.drawn >= 3")
            all_running = [pulls(node, image) for node in lab.nodes[1:]]
            browser.wait("[...document.querySelectorAll('.swarm .nowrap')].some((share) => parseFloat(share.innerText) > 25)", 30)
            sheet(browser, "pulling")
            live = browser.run("document.querySelector('#swarms').innerText")
            it.check(browser.run("document.querySelectorAll('.swarm .map path').length") > 0, "no map shows a piece")
            it.check("% of" in live and "other nodes" in live and "reader" in live, f"a swarm says: {live}")
            for processes in (running, *all_running):
                done(processes, image)
            browser.wait("document.querySelector('#swarms').innerText.trim() === 'None.'")
            time.sleep(2.5)
            no_problems(browser)
            check_words(lab, browser, image)
            check_looks(browser)


def check_words(lab, browser, image):
    """What the page says is what the agent counted."""
    far, text = lab.nodes[4], browser.run(TEXT)
    counted, page = far.status()["bytes"], page_json(far)
    it.check(page["arrived"]["registry"] == counted["origin"] and page["arrived"]["zone"] == counted["zone"], f"{page['arrived']} {counted}")
    for part in ("The registry", "Nodes of the same zone", "Nodes of other zones", "zone-a", "zone-b", "this node's", "5 members in 2 zones",
                 "Given to clients of this node", "Sent to other nodes", f"{far.address}:{far.mesh_port}"):
        it.check(part in text, f"'{part}' is not on the page:\n{text}")
    size = sum(layer["size"] for layer in image["layers"])
    it.check(sum(page["arrived"].values()) >= size == sum(page["given"].values()), f"{page['arrived']} {page['given']}")
    rows = browser.run("[...document.querySelectorAll('#pulls tbody tr')].map((row) => row.innerText)")
    it.check(len(rows) == 3, f"{rows}")
    senders = {f"{node.address}:{node.mesh_port}" for node in lab.nodes[:4]}
    for pull in page["pulls"]:
        row = next(r for r in rows if pull["digest"][7:] in r)
        it.check(len(pull["digest"]) == 7 + 12 and "repository" not in pull and "registry" not in pull, f"HTTP-7: {pull}")
        # A small layer may have come through this node's own leases alone.
        from_peers = sum(peer["bytes"] for peer in pull["peers"])
        it.check(pull["registry_bytes"] + from_peers >= pull["size"] and pull["other_peer_bytes"] == 0, f"{pull}")
        it.check({peer["addr"] for peer in pull["peers"]} <= senders, f"{pull['peers']}")
        it.check(all(peer["addr"] in row and peer["zone"] in row for peer in pull["peers"]), f"{row}")
        it.check(all(page["words"]["reads"][read["reason"]] in row for read in pull["reads"]), f"{row}")
    it.check(any(pull["peers"] for pull in page["pulls"]), f"no layer came from a node: {page['pulls']}")
    it.check("lib/app" not in json.dumps(page) + text and REGISTRY_NAME not in json.dumps(page) + text, "HTTP-7: the admin port names a repository")
    named = page_json(far, names=True)
    it.check({pull["repository"] for pull in named["pulls"]} == {"lib/app"} and named["names"], f"{named['pulls']}")
    it.check({pull["digest"] for pull in named["pulls"]} == {layer["digest"] for layer in image["layers"]}, "digests are cut on the control socket")
    head = far.run("curl", "-sI", PAGE).stdout.lower()
    for part in ("default-src 'none'", "frame-ancestors 'none'", "x-content-type-options: nosniff", "cache-control: no-store", "200 ok"):
        it.check(part in head, f"{part}: {head}")
    it.check("unsafe" not in head and far.get("/page.json?x", admin=True).startswith("404"), head)


def check_looks(browser):
    sheet(browser, "pulled")
    colours = []
    for dark in (False, True):
        browser.open(PAGE, dark=dark)
        browser.wait("document.body.dataset.drawn >= 3")
        colours.append(sum(int(part) for part in browser.run("getComputedStyle(document.body).backgroundColor")[4:-1].split(",")))
    it.check(colours[0] > 600 and colours[1] < 180, f"light and dark: {colours}")
    sheet(browser, "pulled-dark")
    browser.open(PAGE, size=PHONE)
    browser.wait("document.body.dataset.drawn >= 2")
    sheet(browser, "pulled-phone")
    wide = browser.run("document.documentElement.scrollWidth")
    it.check(wide <= PHONE[0], f"{wide} wide on a phone of {PHONE[0]}")
    headless = browser.run("[...document.querySelectorAll('table')].filter((t) => !t.caption || !t.querySelector('th[scope]')).length")
    unnamed = browser.run("[...document.querySelectorAll('svg[role=img]')].filter((s) => !s.getAttribute('aria-label')).length")
    it.check((headless, unnamed) == (0, 0), f"{headless} tables without headers, {unnamed} pictures without words")
    no_problems(browser)


def test_why_the_mesh_was_gone_around():
    with Lab(2, zones=1) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", [3 * MIB])
        first, second = lab.nodes
        first.start()
        done(pulls(first, image), image)
        with browser_in(first) as browser:
            browser.open(PAGE)
            browser.wait("document.body.dataset.drawn >= 1")
            text = browser.run(TEXT)
            it.check("(alone): no other member was known" in text and "all of it from the registry" in text, text)
            it.check("No other member is known, though the configuration names some" in text, text)
            no_problems(browser)
        second.start({"mode": "passthrough"})
        done(pulls(second, image), image)
        with browser_in(second) as browser:
            browser.open(PAGE)
            browser.wait("document.body.dataset.drawn >= 1")
            text = browser.run(TEXT)
            it.check("Around the mesh 1 time (passthrough): mode: passthrough sends everything to the registry" in text, text)
            size = image["layers"][0]["size"]
            it.check(second.metric("shoal_around_bytes_total") == size == page_json(second)["pulls"][0]["around_bytes"], "bytes around the mesh are not counted")
            sheet(browser, "around")
            browser.call("Emulation.setScriptExecutionDisabled", value=True)
            browser.open(PAGE)
            sheet(browser, "without-script", whole=False)
            tree = browser.call("Accessibility.getFullAXTree")["nodes"]
            words = " ".join(node.get("name", {}).get("value", "") for node in tree)
            it.check("script, which is off here" in words and "/status" in words, words[:2000])
            browser.call("Emulation.setScriptExecutionDisabled", value=False)
            browser.open(PAGE)
            browser.wait("document.body.dataset.drawn >= 1")
            second.process.stop()
            browser.wait("document.querySelector('#live').innerText.includes('no answer from the agent since')")


def test_other_sites_get_nothing_of_the_control_socket():
    with Lab(1) as lab:
        node = lab.nodes[0]
        lab.start_nodes()

        def status(host, path, *words) -> str:
            return node.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", node.dir / "data" / "control.sock", *words, f"http://{host}{path}").stdout

        it.check(status("localhost:8080", "/page.json", "-HSec-Fetch-Site: same-origin") == "200", "the page itself is refused")
        for refused in (("other.test", "/page.json"), ("localhost", "/page.json", "-HSec-Fetch-Site: cross-site"), ("localhost", "/status", "-HSec-Fetch-Site: same-site"),
                        ("localhost", "/prefetch", "-HOrigin: http://other.test", "-d", '{"image": "other.test/a:1"}')):
            it.check(status(*refused) == "403", f"{refused}: {status(*refused)}")


def test_the_demo_stays_with_its_pages():
    words = ["bench/demo.py", "--nodes", "3", "--layers", "3", "--stay"]
    demo = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        pages, lines, tries = [], [], []
        for line in demo.stdout:
            lines.append(line)
            pages += [line.split()[-1]] if "status page of" in line else []
            tries += [line.strip()] if line.startswith("    ") and ("$on" in line or "on=" in line) else []
            if tries and not line.strip():
                break
        it.check(len(pages) == 3, "".join(lines))
        for page in pages:
            html = subprocess.run(["curl", "-s", "-m", "5", page], capture_output=True, text=True).stdout
            figures = json.loads(subprocess.run(["curl", "-s", "-m", "5", f"{page}page.json"], capture_output=True, text=True).stdout)
            it.check(html.startswith("<!doctype html>") and figures["pulls"][0]["repository"] == "demo/app", f"{figures['pulls']}")
        said = []  # by the lines as they were printed, one after the other
        for i in range(1, len(tries)):
            done = subprocess.run(["bash", "-c", f"{tries[0]}\n{tries[i]}"], capture_output=True, text=True, timeout=60)
            said.append((done.returncode, done.stdout + done.stderr))
        it.check([code for code, _ in said] == [0, 0, 0, 0, 1, 0], f"{[(code, text[-300:]) for code, text in said]}")
        it.check("demo/app" in said[1][1] and "0 wrong" in said[2][1] and re.search(r"ERROR +peers", said[4][1]), f"{said[4][1]}")
        demo.send_signal(signal.SIGINT)
        it.check(demo.wait(30) in (0, 1), "the demo does not end by Ctrl-C")  # 1: so small an image is not in its figures
    finally:
        if demo.poll() is None:
            demo.terminate()  # it takes its lab down
            demo.wait(30)


class Stub:
    """The agent's own document with figures made here, in a node's namespace."""

    def __init__(self, node, page: dict, status: dict):
        html = node.run("curl", "-s", PAGE).stdout.encode()
        head = node.run("curl", "-sI", PAGE).stdout
        policy = next(line.split(": ", 1)[1] for line in head.splitlines() if line.lower().startswith("content-security-policy"))
        stub = self
        self.page, self.status = page, status

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = {"/": lambda: html, "/page.json": stub.next_page, "/status": lambda: json.dumps(stub.status).encode()}[self.path]()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8" if self.path == "/" else "application/json")
                self.send_header("Content-Security-Policy", policy)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        with inside(node.netns):
            self.server = ThreadingHTTPServer(("127.0.0.1", STUB_PORT), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next_page(self) -> bytes:
        """A second later, some more bytes."""
        self.page["uptime_us"] += 1000000
        for key, mib in (("registry", 3), ("zone", 60), ("region", 14)):
            self.page["arrived"][key] += mib * MIB + random.randrange(MIB)
        self.page["sent"] += 70 * MIB
        return json.dumps(self.page).encode()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def thousand_members(page: dict, draw) -> list[dict]:
    zones = [("cn-hangzhou-h", 334), ("cn-hangzhou-i", 333), ("cn-hangzhou-j", 333)]
    members = [{"id": f"{draw.randrange(1 << 32):08x}", "addr": f"10.{z}.{i >> 8}.{i & 255}:65002", "zone": name, "vswitch": "", "state": "alive"}
               for z, (name, count) in enumerate(zones) for i in range(count)]
    for one in draw.sample(members[1:], 9):
        one["state"] = draw.choice(["suspect", "dead", "leaving"])
    letters = {"alive": "a", "suspect": "s", "dead": "g", "leaving": "l"}
    page["members"] = {"known": 1000, "looked_at": 1000, "trouble_more": 0, "trouble": [m for m in members if m["state"] != "alive"], "zones": []}
    for name, _ in zones:
        text = "".join("*" if m is members[0] else letters[m["state"]] for m in members if m["zone"] == name)
        page["members"]["zones"].append({"region": "cn-hangzhou", "zone": name, "others": False, "self": "*" in text, "alive": sum(text.count(c) for c in "*a"),
                                         "suspect": text.count("s"), "leaving": text.count("l"), "gone": text.count("g"), "map": text})
    return members


def thousand(page: dict) -> tuple[dict, dict]:
    """Figures of a node among 1,000 in the middle of a rollout, with every list as long as it may be."""
    draw = random.Random(7)
    page = {**copy.deepcopy(page), "uptime_us": 7200 * 1000000, "names": True, "cluster": "prod"}
    page["topology"] = {"region": "cn-hangzhou", "zone": "cn-hangzhou-h", "vswitch": "vsw-bp1a"}
    members = thousand_members(page, draw)
    digests = [f"sha256:{draw.randrange(1 << 256):064x}" for _ in range(40)]

    def peer(most):
        one = draw.choice(members)
        return {"addr": one["addr"], "id": one["id"], "zone": one["zone"], "distance": "zone" if one["zone"].endswith("h") else "region",
                "bytes": draw.randrange(most), "pieces": draw.randrange(1, 90)}

    page["swarms"] = [{"digest": digests[i], "size": 700 * MIB, "have": 90 * MIB * (i % 7 + 1), "registry_bytes": 3 * MIB, "peer_bytes": 90 * MIB * (i % 7 + 1) - 3 * MIB,
                       "readers": 1, "fetches": i % 2, "map": "".join(draw.choices("ZNRz.", [40 + 8 * i, 12, 3, 6, 40], k=256))} for i in range(16)]
    page["pulls"] = []
    for i in range(32):
        peers = sorted((peer(40 * MIB) for _ in range(8)), key=lambda p: -p["bytes"])
        page["pulls"].append({"digest": digests[i], "size": 300 * MIB, "running": i < 16, "ahead": i % 5 == 4, "began": page["now"] - 40 * i, "took_ms": draw.randrange(90000),
                              "registry": "registry.example.com", "repository": f"team-{i % 4}/service-{i}", "registry_bytes": draw.randrange(9 * MIB), "around_bytes": 0,
                              "peers": peers, "other_peer_bytes": draw.randrange(90 * MIB), "given": {"peer": 300 * MIB},
                              "reads": [{"reason": "lease", "count": 3, "last": 0}] + ([{"reason": "no-progress", "count": 1, "last": 0}] if i % 6 == 0 else []), "around": []})
    page["sessions"] = {"open": 61, "rows": [{**peer(1 << 30), "in": draw.randrange(900 * MIB), "out": draw.randrange(900 * MIB)} for _ in range(24)]}
    page["cache"].update(bytes=61 << 30, capacity=100 << 30, blobs=913, pieces=120345)
    page["arrived"].update(registry=700 * MIB, zone=30 << 30, region=9 << 30)
    page["given"].update(peer=39 << 30, disk=21 << 30)
    page["sent"] = 41 << 30
    page["outsider"] = "10.9.9.9:65002"
    return page, {"members": members}


@contextmanager
def stubbed(change):
    with Lab(1) as lab:
        node = lab.nodes[0]
        lab.start_nodes()
        page, status = change(page_json(node))
        stub = Stub(node, page, status)
        try:
            with browser_in(node) as browser:
                yield browser, stub
        finally:
            stub.close()


def test_a_thousand_nodes():
    with stubbed(thousand) as (browser, stub):
        it.check(len(json.dumps(stub.page)) < 256 << 10, "more than the agent may answer")
        browser.open(STUB)
        browser.wait("document.body.dataset.drawn >= 8", 30)
        first, later = (float(browser.run(f"document.body.dataset.{key}")) for key in ("firstMs", "ms"))
        it.figure(f"1,000 nodes: drawn first in {first:.0f} ms, then in {later:.0f} ms")
        it.check(max(first, later) < DRAW_MS_MAX, f"{first} {later}")
        text = browser.run(TEXT)
        for part in ("1,000 members in 3 zones", "Something on 10.9.9.9:65002 keeps coming to the mesh port", "cn-hangzhou-i", "61 connections", "registry.example.com/team-1/service-1", "Not alive"):
            it.check(part in text, f"'{part}' is not on the page")
        sheet(browser, "thousand")
        browser.run("document.querySelector('#all summary').click()")
        browser.wait("document.querySelectorAll('#all-rows tbody tr').length === 1000")
        browser.run("(() => { const filter = document.querySelector('#filter'); filter.value = 'DEAD'; filter.dispatchEvent(new Event('input')); })()")
        dead = sum(member["state"] == "dead" for member in stub.status["members"])
        it.check(browser.run("document.querySelectorAll('#all-rows tbody tr').length") == dead, "the filter finds others")
        browser.open(STUB, size=PHONE)
        browser.wait("document.body.dataset.drawn >= 2")
        wide = browser.run("document.documentElement.scrollWidth")
        it.check(wide <= PHONE[0], f"{wide} wide on a phone of {PHONE[0]}")
        no_problems(browser)


def hostile(page: dict) -> tuple[dict, dict]:
    """Every text of the answer as bad as it can be."""
    page, status = thousand(page)
    bad = "\"'><img src=x onerror=document.title='owned'><script>document.title='owned'</script>\u202e"

    def spoil(value, key=""):
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v) for v in value]
        return bad + value[:8] if isinstance(value, str) and key != "map" else value

    return spoil(page), spoil(status)


def test_hostile_strings_stay_text():
    with stubbed(hostile) as (browser, _):
        browser.open(STUB)
        browser.wait("document.body.dataset.drawn >= 2")
        browser.run("document.querySelector('#all summary').click()")
        browser.wait("document.querySelectorAll('#all-rows tbody tr').length === 1000")
        it.check(browser.run("document.title") != "owned", "a string was run")
        it.check(browser.run("document.querySelectorAll('img, main script, header script').length") == 0, "a string became markup")
        it.check("<script>document.title='owned'</script>" in browser.run(TEXT), "the string is not shown as it is")
        no_problems(browser)
        blocked = browser.run("(() => { try { document.body.innerHTML = '<b>x</b>'; return false; } catch { return true; } })()")
        it.check(blocked, "the policy lets a script make markup of a string")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
