#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""README's "A day with Shoal": every command of its blocks, as it stands, on a machine with its own systemd and containerd beside another node."""
import json
import re
import shutil
import sys
from pathlib import Path

import it
from lab import SHOAL, Lab, Process
from machine import Machine
from tls import Authority

ROOT = Path(__file__).resolve().parent.parent.parent
REGISTRY = "registry.example.com"
STEPS = ["install", "start", "point", "pull", "page", "prefetch", "plan", "upgrade", "remove"]
INSTALLED = "/usr/local/bin/shoal", "/usr/local/bin/shoal-sim", "/usr/local/lib/systemd/system/shoal.service", "/usr/local/share/man/man1/shoal.1"


def blocks() -> dict[str, str]:
    """The section's blocks by the word in their first line."""
    section = re.search(r"(?ms)^## A day with Shoal$(.*?)^## ", (ROOT / "README.md").read_text()).group(1)
    found = re.findall(r"(?ms)^```sh\n# (\w+)\n(.*?)^```$", section)
    it.check(section.count("```") == 2 * len(found), "a block of another form: its commands would not be run")
    return dict(found)


class Fresh(Machine):
    """As a distribution leaves it, with this tree to build from and names for the lab's addresses."""

    units = "/run/units:/usr/local/lib/systemd/system:/etc/systemd/system"
    # Over an overlay of its own: the tree may be on another file system than the root.
    prepare = f'mkdir -p "$0/box/tree-up" "$0/box/tree-work" ".{ROOT}"; mount -t overlay overlay -o "lowerdir={ROOT},upperdir=$0/box/tree-up,workdir=$0/box/tree-work" ".{ROOT}"'

    def seed(self, place: Path):
        lab = self.node.lab
        shutil.copy("/lib/systemd/system/containerd.service", place / "run/units")
        (place / "run/units/containerd.service.d").mkdir()
        (place / "run/units/containerd.service.d/lab.conf").write_text("[Service]\nExecStartPre=\n")
        (place / "etc/ssl/certs").mkdir(parents=True)
        bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        (place / "etc/ssl/certs/ca-certificates.crt").write_text((bundle.read_text() if bundle.exists() else "") + lab.ca.cert.read_text())
        (place / "etc/hosts").write_text(lab.names)
        (place / "etc/containerd").mkdir()
        (place / "etc/containerd/config.toml").write_text("# as it came\nversion = 2\n")

    def day(self, script: str, seconds=60) -> str:
        """A block as somebody types it: root, in the tree, stopping at what fails."""
        done = self.run("env", "-i", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                        "bash", "-ec", f"cd '{ROOT}'\n{script}", timeout=seconds, check=False)
        it.check(done.returncode == 0, f"{script}\n-> {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")
        return done.stdout


def other_node(lab, machine):
    """node2 has the machine's secret, and the image."""
    node = lab.nodes[1]
    shutil.copy(machine.path("/etc/shoal/secret"), lab.dir / "copied-secret")
    config = {"clusterSecretFile": [str(lab.dir / "copied-secret")], "dataDir": str(node.dir / "data"), "bootstrap": [lab.nodes[0].address], "topology": {"detect": ["none"]}, "log": {"level": "debug"},
              "registries": [{"name": REGISTRY, "ca": str(lab.ca.cert), "allowPrivate": True, "default": True}]}
    path = node.dir / "shoal.yaml"
    path.write_text(json.dumps(config))
    node.process = Process(node.exec(SHOAL, "agent", "--config", path), node.dir / "agent.log")
    lab.processes.append(node.process)
    node.wait_ready()
    node.run(SHOAL, "pull", f"{REGISTRY}/team/app:1", "--config", path)


def test_every_command_of_the_day():
    script = blocks()
    it.check(list(script) == STEPS, f"the day's steps: {list(script)}")
    with Lab(2) as lab:
        lab.ca = Authority(lab.dir)
        cert, key = lab.ca.sign("registry", REGISTRY)
        lab.names = f"127.0.0.1 localhost\n{lab.origin_address} {REGISTRY}\n{lab.nodes[0].address} node1.example.com\n{lab.nodes[1].address} node2.example.com\n"
        Path(f"/etc/netns/{lab.nodes[1].netns}/hosts").write_text(lab.names)
        lab.start_registry()
        images = {tag: lab.push_image("team/app", [8 << 20, 3 << 20], tag=tag) for tag in ("1", "2")}
        lab.start_registry(port=443, name="registry-tls", tls={"certificate": str(cert), "key": str(key)})
        machine = Fresh(lab)
        machine.systemctl("start", "containerd")
        before = machine.path("/etc/containerd/config.toml").read_bytes()

        machine.day(script["install"], 200)
        it.check(all(machine.path(f).exists() for f in INSTALLED), "not installed")
        other_node(lab, machine)
        doctor = machine.day(script["start"])
        it.check(machine.show("shoal")["ActiveState"] == "active" and "error" not in doctor, doctor)
        plan = machine.day(script["point"])
        it.check("config_path" in plan and machine.path(f"/etc/containerd/certs.d/{REGISTRY}/hosts.toml").exists(), plan)
        machine.until(lambda: lab.nodes[1].address in machine.run("shoal", "status", "--json").stdout, "node2 was not met")

        said = machine.day(script["pull"])
        explained = json.loads(machine.run("shoal", "explain", f"{REGISTRY}/team/app:1", "--json").stdout)
        it.check(lab.nodes[1].address in said and "alive" in said, said)
        it.check(len(machine.run("ctr", "images", "ls", "-q").stdout.split()) == 1, "containerd has no image")
        it.figure(f"explain: {[line for line in said.splitlines() if lab.nodes[1].address in line][:2]}")
        origin = [blob for blob in json.dumps(explained).split('"origin_bytes": ')[1:] if not blob.startswith("0")]
        it.check(len(origin) <= 1, f"layers came from the registry: {explained}")  # the configuration may: it is small

        page = machine.day(script["page"])
        it.check("shoal_client_bytes_total" in page and lab.nodes[1].address in page, page[:500])
        machine.day(script["prefetch"])
        held = json.loads(machine.run("shoal", "status", "--json").stdout)["cache"]["bytes"]
        size = sum(image["size"] for image in images.values())
        it.check(held >= size and lab.nodes[1].status()["cache"]["bytes"] >= size, f"{held} bytes kept here, {lab.nodes[1].status()['cache']['bytes']} on node2")
        planned = machine.day(script["plan"])
        it.check(machine.path(f"{ROOT}/plan.html").stat().st_size > 10000 and "nodes" in planned, planned)

        pid = machine.show("shoal")["MainPID"]
        machine.day(script["upgrade"], 120)
        it.check(machine.show("shoal")["MainPID"] != pid and machine.show("shoal")["ActiveState"] == "active", "not restarted")
        it.check(json.loads(machine.run("shoal", "status", "--json").stdout)["cache"]["bytes"] >= held, "the cache was lost")

        machine.day(script["remove"])
        it.check(machine.path("/etc/containerd/config.toml").read_bytes() == before and not machine.path("/etc/containerd/certs.d").exists(), "not as before")
        left = machine.run("find", "/usr/local", "/etc", "/var/lib", "-path", str(ROOT), "-prune", "-o", "-name", "*shoal*", "-print", check=False).stdout.split()
        it.check(left in ([], ["/etc/systemd/system/multi-user.target.wants"]), f"left behind: {left}")
        machine.run("ctr", "images", "pull", f"{REGISTRY}/team/app:2")  # and the registry still is there


if __name__ == "__main__":
    sys.exit(it.main(globals()))
