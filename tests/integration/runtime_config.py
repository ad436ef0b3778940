#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`shoal containerd|podman|docker plan|apply|revert` with real containerd, podman and dockerd: what is written is read, what was there stays, and comes back."""
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path

import it
import marks
from dockerhub import Dockerd, daemon_json, start_hub
from images import push_runnable
from lab import CLIENT_PORT, SHOAL, Lab, Process, inside, run
from registries import TLS_PORT, make_certificate
from runtimes import Containerd, Sandbox, start_registries, upstream
from tls import Authority

MIRROR = f"http://127.0.0.1:{CLIENT_PORT}"
NAME = upstream("public")


@contextmanager
def one_node(agent=True):
    """A registry, a node, and a directory that stands for the host's / there."""
    with Lab(1) as lab:
        start_registries(lab, "public")
        lab.registries[0]["endpoint"] = f"http://{NAME}"  # as the runtime itself reaches it
        node = lab.nodes[0]
        node.host = node.dir / "host"
        node.host.mkdir(mode=0o755)
        node.config()
        if agent:
            node.start()
        yield node


def shoal(node, runtime: str, verb: str, *args, check=True, root=True):
    """The command on the node, with the agent's own configuration; its output is printed text."""
    where = ["--root", node.host] if root else []
    return node.run(SHOAL, runtime, verb, "--config", node.dir / "shoal.yaml", "--state", node.dir / "state", *where, *args, check=check)


def put(root: Path, path: str, text: str, mode=0o644) -> Path:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(text.encode())
    place.chmod(mode)
    return place


def picture(root: Path) -> dict:
    """Everything below a directory: type, mode, owner, bytes."""
    found = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        found[str(path.relative_to(root))] = (stat.filemode(info.st_mode), info.st_uid, info.st_gid, path.read_bytes() if path.is_file() else b"")
    return found


def check_same(before: dict, root: Path):
    after = picture(root)
    changed = sorted(set(before.items()) ^ set(after.items()))
    it.check(not changed, f"not as before: {changed[:4]}")


def counted_pull(node, containerd, hosts: Path, repository: str) -> int:
    """Pulls into an empty containerd; how many requests the agent got."""
    containerd.forget()
    asked = node.metric("shoal_requests_total")
    containerd.ctr("images", "pull", "--hosts-dir", hosts, f"{NAME}/{repository}:1")
    return int(node.metric("shoal_requests_total") - asked)


# ---- containerd ----

def test_containerd_reads_what_apply_wrote():
    """A hosts.toml of the house with a header, a comment and a dead mirror: pulls go through the agent after apply, around it after revert."""
    with one_node() as node:
        push_runnable(node.lab, "lib/run")
        hosts = put(node.host, f"/etc/containerd/certs.d/{NAME}/hosts.toml",
                    f'# the house rules\r\nserver = "http://{NAME}"\r\n\r\n# away today\r\n[host."http://127.0.0.1:9"]\r\n'
                    '  capabilities = ["pull"]\r\n[host."http://127.0.0.1:9".header]\r\n  x-node = ["n1"]\r\n', 0o640)
        certs = hosts.parent.parent
        before = picture(node.host)
        containerd = Containerd(Sandbox(node))
        it.check(counted_pull(node, containerd, certs, "lib/run") == 0, "the agent was asked before apply")
        planned = shoal(node, "containerd", "plan", "--hosts-dir", "/etc/containerd/certs.d").stdout
        check_same(before, node.host)
        applied = shoal(node, "containerd", "apply", "--hosts-dir", "/etc/containerd/certs.d").stdout
        it.check(applied.startswith(planned.split("note:")[0]), f"apply did other than planned:\n{applied}")
        it.check("then the 1 mirrors that are there" in applied, applied)
        it.check(hosts.stat().st_mode & 0o777 == 0o640, "the mode changed")
        it.check(counted_pull(node, containerd, certs, "lib/run") >= 4, "the pull went around the agent")
        it.check("x-node" in hosts.read_text() and "\n\n" not in hosts.read_bytes().decode(), "line ends or headers are gone")
        node.process.kill()
        containerd.forget()
        containerd.ctr("images", "pull", "--hosts-dir", certs, f"{NAME}/lib/run:1")  # around a dead agent
        done = shoal(node, "containerd", "revert").stdout
        it.check(done == f"restored /etc/containerd/certs.d/{NAME}/hosts.toml\n", done)
        check_same(before, node.host)
        containerd.forget()
        containerd.ctr("images", "pull", "--hosts-dir", certs, f"{NAME}/lib/run:1")


def test_certificates_beside_count_on():
    """A directory with ca.crt alone, registry behind TLS: the hosts.toml that apply makes names it, so the way around a dead agent stays trusted."""
    with Lab(1) as lab:
        cert, key = make_certificate(lab.dir, "registry", "registry.test")
        lab.start_registry()
        lab.start_registry(port=TLS_PORT, name="registry-tls", tls={"certificate": str(cert), "key": str(key)})
        push_runnable(lab, "lib/run")
        name = f"registry.test:{TLS_PORT}"
        lab.registries = [{"name": name, "ca": str(cert), "allowPrivate": True}]
        node = lab.nodes[0]
        node.host = node.dir / "host"
        certs = put(node.host, f"/etc/containerd/certs.d/{name}/ca.crt", cert.read_text()).parent.parent
        before = picture(node.host)
        containerd = Containerd(Sandbox(node))

        def pulls() -> bool:
            containerd.forget()
            return containerd.ctr("images", "pull", "--hosts-dir", certs, f"{name}/lib/run:1", check=False).returncode == 0
        it.check(pulls(), "the directory's certificate does not count to begin with")
        node.start()
        shoal(node, "containerd", "apply", "--hosts-dir", "/etc/containerd/certs.d")
        asked = node.metric("shoal_requests_total")
        it.check(pulls() and node.metric("shoal_requests_total") > asked, "not through the agent")
        node.process.kill()
        it.check(pulls(), "the certificate is lost")
        made = certs / name / "hosts.toml"
        made.write_text("\n".join(line for line in made.read_text().splitlines() if not line.startswith("ca =")) + "\n")
        it.check(not pulls(), "the check above cannot fail: containerd trusts the registry without the certificate")
        shoal(node, "containerd", "revert")
        check_same(before, node.host)


def cri_state(containerd) -> str:
    lines = [line.split() for line in containerd.ctr("plugins", "ls").stdout.splitlines()]
    return next(words[-1] for words in lines if words[:2] == ["io.containerd.grpc.v1", "cri"])


class WholeContainerd(Containerd):
    """containerd with its CRI plugin and a given configuration file."""

    def __init__(self, sandbox, config: Path, name: str):
        self.sandbox, self.dir = sandbox, sandbox.dir / name
        self.socket = self.dir / "c.sock"
        self.process = Process(sandbox.exec("containerd", "-c", config), self.dir / "log")
        sandbox.node.lab.processes.insert(0, self.process)
        end = time.monotonic() + 20
        while self.ctr("version", check=False).returncode != 0:
            it.check(time.monotonic() < end and self.process.alive(), f"containerd did not start:\n{self.process.text()[-1500:]}")
            time.sleep(0.1)


def private_config(node, name: str) -> str:
    """containerd's own default configuration, with places of its own."""
    place = node.dir / name
    place.mkdir()
    text = run("containerd", "config", "default").stdout
    for old, new in (("/var/lib/containerd", f"{place}/root"), ("/run/containerd/containerd.sock", f"{place}/c.sock"),
                     ("/run/containerd", f"{place}/state"), ("/opt/containerd", f"{place}/opt"),
                     ("disable_apparmor = false", "disable_apparmor = true")):
        it.check(old in text, f"{old} is not in the defaults")
        text = text.replace(old, new)
    return text


def test_config_path_in_containerds_own_default_file():
    """--set-config-path on `containerd config default`: containerd starts with the CRI plugin and that path; revert gives every byte back."""
    with one_node() as node:
        sandbox = Sandbox(node)
        config = put(node.host, "/etc/containerd/config.toml", private_config(node, "good"))
        before = picture(node.host)
        refused = shoal(node, "containerd", "apply", check=False)
        it.check(refused.returncode == 1 and "--set-config-path" in refused.stderr, refused.stderr)
        check_same(before, node.host)
        out = shoal(node, "containerd", "apply", "--set-config-path").stdout
        it.check("systemctl restart containerd" in out and out.endswith("2 files written\n"), out)
        dump = node.run("containerd", "-c", config, "config", "dump").stdout
        it.check('config_path = "/etc/containerd/certs.d"' in dump, "containerd does not see the path")
        it.check(cri_state(WholeContainerd(sandbox, config, "good")) == "ok", "the CRI plugin does not start")
        shoal(node, "containerd", "revert")
        check_same(before, node.host)


def test_what_is_refused_would_break_containerd():
    """mirrors with config_path: apply writes nothing; done by hand, containerd's CRI plugin is gone."""
    with one_node() as node:
        sandbox = Sandbox(node)
        text = private_config(node, "bad")
        table = '[plugins."io.containerd.grpc.v1.cri".registry.mirrors]'
        text = text.replace(table, f'{table}\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = ["https://mirror.corp"]')
        config = put(node.host, "/etc/containerd/config.toml", text)
        before = picture(node.host)
        done = shoal(node, "containerd", "apply", "--set-config-path", check=False)
        it.check(done.returncode == 1 and "registry.mirrors: containerd's CRI plugin does not start" in done.stderr, done.stderr)
        check_same(before, node.host)
        it.check(cri_state(WholeContainerd(sandbox, config, "bad")) == "ok", "the file was bad to begin with")
        shutil.copytree(node.dir / "bad", node.dir / "worse", ignore=lambda *_: ["root", "state", "c.sock", "c.sock.ttrpc", "log"])
        worse = put(node.host, "/worse.toml", text.replace(f"{node.dir}/bad", f"{node.dir}/worse")
                    .replace('config_path = ""', 'config_path = "/etc/containerd/certs.d"', 1))
        it.check(cri_state(WholeContainerd(sandbox, worse, "worse")) == "error", "containerd takes both: the refusal is not needed")


# ---- who answers, who writes ----

class Stranger(threading.Thread):
    """Something else on the agent's port: answers every request with 200, or takes connections and stays silent."""

    def __init__(self, node, answer: bytes | None):
        super().__init__(daemon=True)
        self.answer = answer
        with inside(node.netns):
            self.server = socket.create_server(("127.0.0.1", CLIENT_PORT))
        self.held = []
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            self.held.append(connection)
            if self.answer:
                connection.recv(4096)
                connection.sendall(self.answer)
                connection.shutdown(socket.SHUT_WR)

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for connection in self.held:
            connection.close()


def test_hrd_2_only_our_agent_counts():
    """A foreign process on the port, a silent one, nobody: apply writes nothing and says which; --wait takes the agent when it comes."""
    with one_node(agent=False) as node:
        (node.host / "etc").mkdir()
        before = picture(node.host)
        answers = ((b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", "something that is not our agent answers there"),
                   (b"SSH-2.0-OpenSSH\r\n", "something that is not our agent answers there"),
                   (b"HTTP/1.1 500 No\r\nShoal-Health: ok\r\n\r\n", "something that is not our agent answers there"),
                   (b"x" * 5000, "something that is not our agent answers there"),
                   (None, "takes connections but does not answer"))
        for answer, message in answers:
            stranger = Stranger(node, answer)
            started = time.monotonic()
            done = shoal(node, "containerd", "apply", "--hosts-dir", "/etc/certs.d", check=False)
            stranger.close()
            it.check(done.returncode == 1 and "nothing was written" in done.stderr and message in done.stderr, f"{answer}: {done.stderr}")
            it.check(time.monotonic() - started < 5, "the question took too long")
            check_same(before, node.host)
        done = shoal(node, "containerd", "apply", "--hosts-dir", "/etc/certs.d", check=False)
        it.check(done.returncode == 1 and "nothing answers there" in done.stderr, done.stderr)
        check_same(before, node.host)
        waiting = Process(node.exec(SHOAL, "containerd", "apply", "--config", node.dir / "shoal.yaml", "--state", node.dir / "state", "--root", node.host,
                                    "--hosts-dir", "/etc/certs.d", "--wait", "30"), node.dir / "waiting.log")
        time.sleep(0.5)
        it.check(waiting.alive(), f"it did not wait: {waiting.text()}")
        node.start()
        it.check(waiting.popen.wait(timeout=20) == 0, waiting.text())
        it.check((node.host / f"etc/certs.d/{NAME}/hosts.toml").exists(), "nothing was written after the wait")
        shoal(node, "containerd", "revert")
        check_same(before, node.host)


def test_killed_for_real():
    """kill -9 at random moments of apply and revert: every file is old or new, never half, and the next apply and revert end as ever."""
    with one_node() as node:
        names = [f"r{i}.example.com" for i in range(40)]
        for name in names[::2]:
            put(node.host, f"/certs.d/{name}/hosts.toml", f'server = "https://{name}"\n# {name}\n')
        node.lab.registries += [{"name": name} for name in names]
        node.config()
        before = picture(node.host)
        args = ("--hosts-dir", "/certs.d")
        started = time.monotonic()
        shoal(node, "containerd", "apply", *args)
        whole = time.monotonic() - started
        new = picture(node.host)
        shoal(node, "containerd", "revert")
        check_same(before, node.host)
        seed = int(os.environ.get("SEED", time.time()))
        dice, cut = random.Random(seed), 0
        for turn in range(60):
            verb = "apply" if turn % 2 == 0 else "revert"
            words = [SHOAL, "containerd", verb, "--config", node.dir / "shoal.yaml", "--state", node.dir / "state", "--root", node.host,
                     *(args if verb == "apply" else ())]
            child = subprocess.Popen(node.exec(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(dice.uniform(0.1, 1) * whole)
            child.send_signal(signal.SIGKILL)
            cut += child.wait() == -signal.SIGKILL
            for path, what in picture(node.host).items():
                if path.endswith("hosts.toml"):
                    it.check(what in (before.get(path), new.get(path)), f"seed {seed}, turn {turn}: {path} is half: {what}")
        it.check(cut >= 10, f"only {cut} of 60 were killed in time")
        shoal(node, "containerd", "apply", *args)
        check_same(new, node.host)
        shoal(node, "containerd", "revert")
        check_same(before, node.host)
        it.figure(f"{cut} of 60 runs killed before their end (SEED={seed})")


def test_without_root():
    """A user of its own tree needs no right; on a tree of root's it is told so, and nothing changes."""
    with one_node() as node:
        os.chmod(node.lab.dir, 0o755)
        os.chmod(node.dir, 0o755)
        config = put(node.host, "/agent.yaml", json.dumps({"builtinRegistries": False, "registries": [{"name": "r.example.com"}]}))
        home = node.host / "home"
        put(home, "certs.d/r.example.com/hosts.toml", 'server = "https://r.example.com"\n')
        run("chown", "-R", "65534:65534", home)
        put(node.host, "/etc/certs.d/r.example.com/hosts.toml", 'server = "https://r.example.com"\n')
        before = picture(node.host / "etc"), picture(home / "certs.d")

        def user(verb, *args):
            return node.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "-i", f"HOME={home}", SHOAL, "containerd", verb,
                            "--config", config, *args, check=False)
        done = user("apply", "--hosts-dir", home / "certs.d")
        it.check(done.returncode == 0, done.stderr)
        it.check((home / ".local/state/shoal-runtime/containerd/manifest.json").exists(), "no manifest in the user's state")
        it.check(MIRROR in (home / "certs.d/r.example.com/hosts.toml").read_text(), "nothing was written")
        it.check(user("revert").returncode == 0, "revert failed")
        check_same(before[1], home / "certs.d")
        done = user("apply", "--hosts-dir", node.host / "etc/certs.d")
        it.check(done.returncode == 1 and "Permission denied" in done.stderr, done.stderr)
        check_same(before[0], node.host / "etc")


def test_a_full_disk():
    """Configuration on a disk without room: nothing changes, and one line says why."""
    with one_node() as node:
        run("mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", node.host)
        try:
            hosts = put(node.host, "/certs.d/r.example.com/hosts.toml", 'server = "https://r.example.com"\n')
            with open(node.host / "ballast", "wb", buffering=0) as ballast:
                try:
                    while True:
                        ballast.write(b"x" * 4096)
                except OSError:
                    pass
            before = picture(node.host)
            done = shoal(node, "containerd", "apply", "--hosts-dir", "/certs.d", "--registry", "r.example.com", check=False)
            it.check(done.returncode == 1 and "No space left on device" in done.stderr, done.stderr)
            check_same(before, node.host)
            (node.host / "ballast").unlink()
            shoal(node, "containerd", "apply", "--hosts-dir", "/certs.d", "--registry", "r.example.com")
            it.check(MIRROR in hosts.read_text(), "not written with room")
        finally:
            run("umount", node.host)


# ---- another reader of TOML as judge ----

SCALARS = ["true", "1_000", "-0x1", "0x1f", "1e3", "1979-05-27T07:32:00Z", "07:32:00", "'C:\\x'", '"a\\u00e9\\"b"', '""', "[1, 2,]", "[]", '["a", [\'b\']]', "{}",
           '{x = 1, "y z".w = [{}]}', '"""\nq\\\n  "r\\""""', "'''\n[host]\n'''", "nan", "[\n 1, # c\n\n 2\n]", "01", "1__0", "tru", "'a", "[1 2]", "{a = 1,}", "1979-13", '"\\x"']
KEYS = ["server", "ca", "client", "skip_verify", "capabilities", '"quoted key"', "'lit'", "dotted.key", "dotted.other", "header.x", "k1", "k2"]
TABLES = ['[host."https://a"]', "[host.'https://b']", '[host."https://a".header]', "[other]", "[other.deep]", "[[list]]", "[[list]]", "[list.sub]",
          "[ spaced . 'x' ]", "[header]", "[[list.inner]]", "[host]", "[other]"]


def random_toml(dice) -> str:
    """A file that is mostly right: tables and keys in any order, comments, blank lines, one kind of line end; a third of them mutated."""
    lines = []
    for _ in range(dice.randint(0, 9)):
        pick = dice.random()
        indent = dice.choice(["", "", "  ", "\t"])
        if pick < 0.35:
            lines.append(indent + dice.choice(TABLES) + dice.choice(["", "  # t", " "]))
        elif pick < 0.8:
            scalars = SCALARS if dice.random() < 0.2 else SCALARS[:19]
            lines.append(indent + dice.choice(KEYS) + dice.choice([" = ", "=", " =\t"]) + dice.choice(scalars) + dice.choice(["", " # v"]))
        else:
            lines.append(dice.choice(["", "# comment", "   # [host.x]", "  "]))
    text = "\n".join(lines) + dice.choice(["", "\n", "\n", "\n\n"])
    if dice.random() < 0.3:
        text = text.replace("\n", "\r\n")
    if text and dice.random() < 0.33:
        at = dice.randrange(len(text))
        text = text[:at] + dice.choice(["", "]", '"', "\n", "=", ".", "'", "\r", "\x01", "[", "#", ",", "{"]) + text[at + dice.randint(0, 2):]
    return text


def same_values(a, b) -> bool:
    return repr(a) == repr(b)  # nan is nan; order counts, as it does for containerd


def test_another_reader_agrees():
    """What we take Python's tomllib takes; it sees our host first, and everything else as it was. What is refused is left alone."""
    with one_node() as node:
        seed = int(os.environ.get("SEED", time.time()))
        dice, taken, refused, strict = random.Random(seed), 0, 0, 0
        place = put(node.host, "/certs.d/r/hosts.toml", "")
        for turn in range(400):
            text = random_toml(dice)
            place.write_bytes(text.encode())
            try:
                old = tomllib.loads(text)
            except (tomllib.TOMLDecodeError, RecursionError):
                old = None
            done = shoal(node, "containerd", "apply", "--hosts-dir", "/certs.d", "--registry", "r", check=False)
            where = f"SEED={seed} turn {turn}: {text!r}: {done.stderr}"
            if done.returncode != 0:
                it.check(done.returncode == 1 and "/certs.d/r/hosts.toml:" in done.stderr, where)
                it.check(place.read_bytes() == text.encode(), f"refused, but changed: {where}")
                refused += 1
                strict += old is not None and "a way that is not edited" not in done.stderr
                continue
            it.check(old is not None, f"taken, but it is no TOML: {where}")
            new = tomllib.loads(place.read_text())
            it.check(next(iter(new["host"])) == MIRROR, f"the agent is not the first host: {where}")
            del new["host"][MIRROR]
            if "host" not in old:
                del new["host"]
            it.check(sorted(new) == sorted(old) and all(same_values(new[k], old[k]) for k in old), f"it means something else: {where}")
            taken += 1
            shoal(node, "containerd", "revert")
            it.check(place.read_bytes() == text.encode(), f"not as before: {where}")
        it.check(taken > 60 and refused > 60, f"{taken} taken, {refused} refused: too few to tell")
        it.figure(f"{taken} files taken, {refused} refused, {strict} of them by a stricter reading than tomllib's (SEED={seed})")


def test_hold_waits_applies_and_reverts():
    """apply --hold, as the pod's container: waits for the agent, writes, stays; SIGTERM takes it back, and so does one that comes before the agent."""
    with one_node(agent=False) as node:
        put(node.host, "/etc/containerd/config.toml", 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n')
        (node.host / "var/lib").mkdir(parents=True)  # or the picture would show the state's parents, which stay
        state = node.dir / "state"
        before = picture(node.host)
        hosts = node.host / f"etc/containerd/certs.d/{NAME}/hosts.toml"

        def hold() -> Process:
            return Process(node.exec(SHOAL, "containerd", "apply", "--hold", "--wait", "60", "--config", node.dir / "shoal.yaml", "--root", node.host,
                                     "--state", state), node.dir / "hold.log")

        def wait_for(path: Path, process: Process):
            end = time.monotonic() + 15
            while not path.exists():
                it.check(process.alive() and time.monotonic() < end, f"not applied: {process.text()}")
                time.sleep(0.05)
        held = hold()
        time.sleep(0.7)
        it.check(held.alive() and not hosts.exists(), f"written without an agent: {held.text()}")
        it.check(held.stop() == 0, held.text())
        check_same(before, node.host)
        held = hold()
        node.start()
        wait_for(hosts, held)
        held.kill()  # the pod's container is killed and started again
        it.check(hosts.exists(), "killed, and yet reverted")
        held = hold()
        time.sleep(0.7)
        it.check(held.alive() and "nothing to change" in held.text(), held.text())
        it.check(held.stop() == 0 and f"certs.d/{NAME}/hosts.toml" in held.text(), held.text())
        check_same(before, node.host)


def test_hold_waits_for_what_can_be_applied():
    """containerd's own default file, without a config_path: --hold says so once, stays, and writes when there is one; a stop before that ends it with 0."""
    with one_node() as node:
        config = put(node.host, "/etc/containerd/config.toml", private_config(node, "stock"))
        (node.host / "var/lib").mkdir(parents=True)
        before = picture(node.host)
        words = node.exec(SHOAL, "containerd", "apply", "--hold", "--config", node.dir / "shoal.yaml", "--root", node.host, "--state", node.dir / "state")

        def hold(name: str) -> Process:
            held = Process(words, node.dir / f"{name}.log")
            node.lab.processes.append(held)
            end = time.monotonic() + 10
            while "looked at again" not in held.text():
                it.check(held.alive() and time.monotonic() < end, f"it did not stay: {held.text()}")
                time.sleep(0.05)
            return held
        held = hold("stopped")
        it.check(held.stop() == 0 and "nothing to revert" in held.text(), held.text())
        check_same(before, node.host)
        held = hold("held")
        time.sleep(11)  # one more look, and not one more line
        it.check(held.alive() and held.text().count("\n") == 1, held.text())
        it.check("/etc/containerd/config.toml: no config_path" in held.text() and "runtime.args: [--set-config-path]" in held.text(), held.text())
        check_same(before, node.host)
        node.process.kill()  # between two looks: said as well, and no end either
        config.write_text(config.read_text().replace('config_path = ""', 'config_path = "/etc/containerd/certs.d"', 1))
        end = time.monotonic() + 15
        while "nothing answers there" not in held.text():
            it.check(held.alive() and time.monotonic() < end, f"ended with the agent: {held.text()}")
            time.sleep(0.1)
        node.start()
        hosts = node.host / f"etc/containerd/certs.d/{NAME}/hosts.toml"
        end = time.monotonic() + 15
        while not hosts.exists():
            it.check(held.alive() and time.monotonic() < end, f"not applied: {held.text()}")
            time.sleep(0.1)
        it.check(held.stop() == 0 and not hosts.exists(), held.text())


# ---- CRI-O and podman, docker ----

def test_podman_reads_what_apply_wrote():
    """/etc/containers of this machine with an entry of the house added: podman pulls through the agent after apply, around it after revert."""
    with one_node() as node:
        push_runnable(node.lab, "lib/run")
        sandbox = Sandbox(node)
        tree = node.host / "etc/containers"
        shutil.copytree("/etc/containers", tree, symlinks=True)
        put(node.host, "/etc/containers/registries.conf.d/50-house.conf",
            f'# insecure, by decision of the house\n[[registry]]\nlocation = "{NAME}"\ninsecure = true\n\n[[registry.mirror]]\nlocation = "127.0.0.1:9"\ninsecure = true')
        put(tree, "policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}')
        sandbox.run("mount", "--bind", tree, "/etc/containers")
        before = picture(node.host)

        def pull() -> int:
            base = ["podman", "--root", "/var/lib/containers/p", "--runroot", "/run/containers/p", "--tmpdir", "/run/containers/p/tmp",
                    "--storage-driver", "vfs", "--cgroup-manager=cgroupfs", "--events-backend=file"]
            put(node.dir, "containers.conf", '[engine]\nlock_type = "file"\n')
            base = ["env", f"CONTAINERS_CONF={node.dir}/containers.conf", *base]
            asked = node.metric("shoal_requests_total")
            sandbox.run(*base, "pull", "-q", f"{NAME}/lib/run:1")
            sandbox.run(*base, "rmi", "-f", f"{NAME}/lib/run:1")
            return int(node.metric("shoal_requests_total") - asked)
        it.check(pull() == 0, "the agent was asked before apply")
        shoal(node, "podman", "apply")
        conf = (tree / "registries.conf.d/50-house.conf").read_text()
        it.check(conf.index("127.0.0.1:65001") < conf.index("127.0.0.1:9"), "the agent is not the first mirror")
        it.check(pull() >= 3, "podman went around the agent")
        it.check(shoal(node, "podman", "apply").stdout == "nothing to change\n", "apply again wrote again")
        shoal(node, "podman", "revert")
        check_same(before, node.host)
        it.check(pull() == 0, "the agent was asked after revert")
        (tree / "registries.conf.d/50-house.conf").unlink()  # now an entry of our own
        shoal(node, "podman", "apply")
        it.check(pull() >= 3, "podman went around the agent")


@contextmanager
def docker_node(mirrors: list[str] | None):
    """A node whose daemon.json is for a dockerd with these mirrors, which runs; the agent knows the Hub."""
    with Lab(1) as lab:
        start_hub(lab)
        push_runnable(lab, "public/run")
        node = lab.nodes[0]
        node.host = node.dir / "host"
        node.start()
        containerd = Containerd(Sandbox(node))
        settings = {**daemon_json(containerd.sandbox, containerd), **({} if mirrors is None else {"registry-mirrors": mirrors})}
        node.daemon_json = put(node.host, "/etc/docker/daemon.json", json.dumps(settings, indent=4) + "\n", 0o600)
        node.dockerd = Dockerd(containerd, node.daemon_json)
        yield node


def docker_asks(node) -> int:
    """Pulls anew; how many requests the agent got."""
    asked = node.metric("shoal_requests_total")
    node.dockerd.pull("public/run:1", user=None)
    node.dockerd.docker("rmi", "public/run:1")
    return int(node.metric("shoal_requests_total") - asked)


def docker_reload(node, wanted: list[str]):
    """As `systemctl reload docker` does it; dockerd has these mirrors then, in their order."""
    reloads = node.dockerd.process.text().count("Reloaded configuration")
    node.dockerd.signal("HUP")
    end = time.monotonic() + 10
    while node.dockerd.process.text().count("Reloaded configuration") == reloads and time.monotonic() < end:
        time.sleep(0.05)
    it.check(node.dockerd.mirrors() == [f"{one}/" for one in wanted], f"mirrors after the reload: {node.dockerd.mirrors()}, wanted {wanted}")


def test_dockerd_reads_what_apply_wrote():
    """A mirror of the house that is dead: after apply and a reload pulls go through the agent, which comes first; after revert and a reload around it."""
    house = "http://127.0.0.1:9"
    with docker_node([house]) as node:
        before = picture(node.host)
        it.check(docker_asks(node) == 0, "the agent was asked before apply")
        shoal(node, "docker", "plan")
        check_same(before, node.host)
        shoal(node, "docker", "apply")
        it.check(docker_asks(node) == 0, "dockerd reads its file without a reload: the README is wrong")
        docker_reload(node, [MIRROR, house])
        it.check(docker_asks(node) >= 5, "dockerd went around the agent")
        it.check(shoal(node, "docker", "apply").stdout == "nothing to change\n", "apply again wrote again")
        node.process.kill()
        node.dockerd.pull("public/run:1", user=None)  # around a dead agent
        node.dockerd.docker("rmi", "public/run:1")
        shoal(node, "docker", "revert")
        check_same(before, node.host)
        docker_reload(node, [house])
        node.start()
        it.check(docker_asks(node) == 0, "the agent was asked after revert")


def test_dockerd_without_mirrors_before():
    """What revert says: a reload reads a list only if there is one, so dockerd keeps the agent until a restart, or an empty list."""
    with docker_node(None) as node:
        before, place = picture(node.host), node.daemon_json
        shoal(node, "docker", "apply")
        docker_reload(node, [MIRROR])
        it.check(docker_asks(node) >= 5, "dockerd went around the agent")
        both = node.dockerd.sandbox.run("dockerd", "--config-file", place, "--registry-mirror", MIRROR, check=False)
        it.check(both.returncode != 0 and "registry-mirrors" in both.stderr, f"dockerd starts with a list and the flag: {both.stderr[-300:]}")
        out = shoal(node, "docker", "revert").stdout
        it.check(out.startswith("restored /etc/docker/daemon.json\nnote: ") and "else it takes a restart" in out, out)
        check_same(before, node.host)
        old = place.read_text()
        for text, wanted in ((old.replace("{", '{"debug": true,', 1), [MIRROR]), (old.replace("{", '{"registry-mirrors": [],', 1), [])):
            place.write_text(text)
            docker_reload(node, wanted)
        it.check(docker_asks(node) == 0, "the agent was asked after revert")


def test_docker_tree():
    """daemon.json edited, edited by another hand, reverted; with another default registry than docker.io refused."""
    with one_node() as node:
        text = '{\n\t"log-driver": "json-file",\n\t"registry-mirrors": ["https://mirror.corp"],\n\t"insecure-registries": []\n}'
        path = put(node.host, "/etc/docker/daemon.json", text, 0o600)
        before = picture(node.host)
        done = shoal(node, "docker", "apply", check=False)
        it.check(done.returncode == 1 and "docker.io must be the agent's default registry" in done.stderr, done.stderr)
        node.lab.registries = [{"name": "docker.io", "default": True}]
        node.config()
        shoal(node, "docker", "apply")
        it.check(json.loads(path.read_text())["registry-mirrors"] == [MIRROR, "https://mirror.corp"], path.read_text())
        it.check(path.stat().st_mode & 0o777 == 0o600, "the mode changed")
        shoal(node, "docker", "revert")
        check_same(before, node.host)
        shoal(node, "docker", "apply")
        path.write_text(path.read_text().replace("json-file", "journald"))
        out = shoal(node, "docker", "revert").stdout
        it.check("undone /etc/docker/daemon.json" in out, out)
        it.check(path.read_text() == text.replace("json-file", "journald"), path.read_text())


def test_start_up_taint():
    """apply --untaint: the node is asked for and patched by the API server's rules, once the runtime is pointed at the agent; other taints stay."""
    key, token = "shoal.example.com/starting", marks.secret("service-account")
    taints = [{"key": "a", "effect": "NoExecute"}, {"key": key, "effect": "NoSchedule"}, {"key": "b", "effect": "NoSchedule"}, {"key": key, "effect": "NoExecute"}]
    with one_node(agent=False) as node:
        put(node.host, "/etc/containerd/config.toml", 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n')
        authority, account = Authority(node.dir), node.dir / "account"
        account.mkdir()
        (account / "token").write_text(token + "\n")
        (account / "ca.crt").write_text(authority.cert.read_text())
        cert, signed = authority.sign("api", "localhost")
        server = Process(node.exec(sys.executable, Path(__file__).with_name("kube_server.py"), "--tls", cert, signed, "--token", token, "--node", json.dumps({"spec": {"taints": taints}})), node.dir / "kube.log")
        node.lab.processes.append(server)
        pod = ["env", "NODE_NAME=node-7", "KUBERNETES_SERVICE_HOST=localhost", "KUBERNETES_SERVICE_PORT=6443"]

        def apply(*args, environment=pod, **kwargs):
            return node.run(*environment, SHOAL, "containerd", "apply", "--config", node.dir / "shoal.yaml", "--set", f"topology.serviceAccount={account}", "--state", node.dir / "state",
                            "--root", node.host, "--untaint", key, *args, **kwargs)
        end = time.monotonic() + 10
        while node.run("curl", "-sk", "-o", "/dev/null", "--connect-timeout", "1", "telnet://localhost:6443", "--max-time", "0.2", check=False).returncode == 7:
            it.check(server.alive() and time.monotonic() < end, server.text())
            time.sleep(0.05)
        done = apply(check=False)
        it.check(done.returncode == 1 and "nothing was written" in done.stderr and "GET" not in server.text(), f"{done}")  # no agent yet
        node.start()
        done = apply("--untaint", "no key", check=False)
        it.check(done.returncode == 2 and '"no key" is no key of a taint' in done.stderr, f"{done}")
        done = apply(environment=["env"], check=False)
        it.check(done.returncode == 1 and "not in a pod" in done.stderr, f"{done}")
        (account / "token").write_text("another\n")
        done = apply(check=False)
        it.check(done.returncode == 1 and "answers 403 to reading this node: grant `get` and `patch` on nodes" in done.stderr, f"{done}")
        held = Process(node.exec(*pod, SHOAL, "containerd", "apply", "--hold", "--config", node.dir / "shoal.yaml", "--set", f"topology.serviceAccount={account}", "--state", node.dir / "state",
                                 "--root", node.host, "--untaint", key), node.dir / "hold.log")
        node.lab.processes.append(held)
        end = time.monotonic() + 10
        while "stays for now" not in held.text():
            it.check(time.monotonic() < end, held.text())
            time.sleep(0.1)
        (account / "token").write_text(token + "\n")
        while "no taint" not in held.text():
            it.check(time.monotonic() < end + 15, held.text())
            time.sleep(0.1)
        asked = [line.split()[0] + line.split()[-1] for line in server.text().splitlines() if line.endswith(("200", "409", "422"))]
        it.check(asked == ["GET200", "PATCH409", "GET200", "PATCH200", "GET200", "PATCH200", "GET200"], f"{asked}")
        it.check(held.stop() == 0 and token not in held.text(), held.text())
        it.check("no taint" in apply().stdout, "a second time")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
