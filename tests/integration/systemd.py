#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The units of deploy/systemd: judged by systemd-analyze, and run by a systemd (machine.py). What the agent tells a service manager is also read
from a bare socket."""
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import it
from lab import CLIENT_PORT, REGISTRY_NAME, SHOAL, Lab, Process, run
from machine import Machine

ROOT = Path(__file__).resolve().parent.parent.parent
EXPOSURE_MAX = {"shoal": 20, "shoal-containerd": 25}  # tenths, as systemd-analyze security has them
# What the unit of the agent must not let through, each with its directive; asked from inside by a probe in the agent's place.
PROBE = r"""
import ctypes, errno, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *words):
    if function(*words) < 0: raise OSError(ctypes.get_errno(), "")
def write(path):
    return lambda: open(path, "w").close()
def set_uid():
    open("/var/lib/shoal/x", "w").close()
    os.chmod("/var/lib/shoal/x", 0o4755)
tries = {
    "write /etc": write("/etc/shoal-probe"), "write /usr": write("/usr/shoal-probe"), "write /var": write("/var/shoal-probe"),
    "read /root": lambda: os.listdir("/root"), "unshare": lambda: call(libc.unshare, 0x10000000),
    "mount": lambda: call(libc.mount, b"none", b"/tmp", b"tmpfs", 0, None),
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
    "write and execute": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "set-uid file": set_uid, "chown": lambda: os.chown("/var/lib/shoal/ok", 1, 1), "host name": lambda: socket.sethostname("x"),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, 5), "tunable": write("/proc/sys/kernel/domainname"), "other's process": lambda: os.stat("/proc/1/comm"),
    "real-time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
}
open("/var/lib/shoal/ok", "w").write("the state directory is ours")
open("/tmp/ok", "w").write("and so is /tmp")
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
for name, attempt in tries.items():
    try:
        attempt()
        print("ALLOWED", name, flush=True)
    except OSError as error:
        print("refused", name, errno.errorcode.get(error.errno), flush=True)
print("tried", len(tries))
"""


class Installed(Machine):
    """With everything as `make install` leaves it, and settings as README says."""

    prepare = """systemd-sysusers --root=. shoal.conf
chown "$(sed -n 's/^shoal:[^:]*:\\([0-9]*\\):\\([0-9]*\\):.*/\\1:\\2/p' etc/passwd)" etc/shoal/secret"""

    def __init__(self, lab: Lab, drop_ins: dict[str, str] | None = None):
        self.drop_ins = drop_ins or {}
        super().__init__(lab)

    def seed(self, seed: Path):
        run("make", "-s", "install", f"DESTDIR={seed}", "PREFIX=/usr", cwd=ROOT)
        units = seed / "run/units"
        for unit in (seed / "usr/lib/systemd/system").iterdir():
            shutil.copy(unit, units)
        for name in ("shoal", "shoal-containerd", "probe"):
            place = units / f"{name}.service.d"
            place.mkdir()
            (place / "test.conf").write_text(f"[Service]\nStandardOutput=append:/run/{name}.out\nStandardError=append:/run/{name}.log\n{self.drop_ins.get(name, '')}")
        probe = re.sub(r"(?m)^(Type|ExecStart|WatchdogSec|Restart|NotifyAccess)=.*\n", "", (units / "shoal.service").read_text())
        (units / "probe.service").write_text(probe.replace("[Service]", "[Service]\nType=oneshot\nExecStart=/usr/bin/python3 /usr/share/shoal/probe.py"))
        (seed / "usr/share/shoal/probe.py").write_text(PROBE)
        shutil.copy(self.node.config({"dataDir": "/var/lib/shoal", "clusterSecretFile": ["/etc/shoal/secret"], "topology.detect": ["none"]}), seed / "etc/shoal/shoal.yaml")
        shutil.copy(self.node.lab.secret, seed / "etc/shoal/secret")
        (seed / "etc/shoal/shoal.yaml").chmod(0o644)
        (seed / "etc/containerd").mkdir()
        (seed / "etc/containerd/config.toml").write_text('version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n')


def test_units_are_sound():
    """systemd-analyze has nothing against them, and nobody made them weaker unseen."""
    with Lab(0) as lab:
        run("make", "-s", "install", f"DESTDIR={lab.dir}/root", "PREFIX=/opt", cwd=ROOT)
        for name, most in EXPOSURE_MAX.items():
            unit = lab.dir / f"root/opt/lib/systemd/system/{name}.service"
            text = unit.read_text()
            it.check("ExecStart=/opt/bin/shoal " in text and "/usr/bin" not in text, f"{name}: make install leaves another program's path")
            unit.write_text(text.replace("/opt/bin/shoal", str(SHOAL)))
            done = run("systemd-analyze", "verify", "--man=no", unit)
            it.check(not done.stderr.strip(), f"{name}: {done.stderr}")
            done = run("systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={most}", unit)
            it.figure(done.stdout.strip().splitlines()[-1].encode("ascii", "ignore").decode().strip())
        users = run("systemd-sysusers", "--dry-run", lab.dir / "root/opt/lib/sysusers.d/shoal.conf")
        it.check("Creating user 'shoal' (Shoal agent)" in users.stdout + users.stderr, f"{users}")


def test_agent_under_systemd():
    """HRD-1 without Kubernetes: started, asked, pulled through, stopped; its user, rights and files are the unit's."""
    with Lab(1) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", [24 << 20])
        machine, node = Installed(lab), lab.nodes[0]
        machine.systemctl("start", "shoal")  # returns when READY=1 came
        it.check(node.get("/readyz", admin=True).startswith("200"), "READY=1, and yet not ready")
        shown = machine.show("shoal")
        it.check((shown["ActiveState"], shown["User"], shown["Type"]) == ("active", "shoal", "notify"), f"{shown['ActiveState']} {machine.log()}")
        status = machine.run("cat", f"/proc/{shown['MainPID']}/status").stdout
        user = int(machine.run("id", "-u", "shoal").stdout)
        it.check(user != 0 and re.search(rf"^Uid:\t{user}\t{user}\t", status, re.M), status)
        it.check(all(re.search(rf"^{name}:\t0+$", status, re.M) for name in ("CapEff", "CapBnd", "CapPrm", "CapAmb")) and "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status, status)
        mode = machine.run("stat", "-c", "%a %U", "/var/lib/shoal", "/var/lib/shoal/identity").stdout.split()
        it.check(mode == ["700", "shoal", "400", "shoal"], f"{mode}")
        digest = image["layers"][0]["digest"]
        path = f"http://127.0.0.1:{CLIENT_PORT}/v2/lib/app/blobs/{digest}?ns={REGISTRY_NAME.replace(':', '%3A')}"
        it.check(node.run("sh", "-c", f"curl -s '{path}' | sha256sum").stdout.split()[0] == digest[7:], "other bytes")
        told = json.loads(machine.run("shoal", "status", "--json").stdout)
        it.check(told["cache"]["bytes"] >= 24 << 20 and not told["cache"]["degraded"], f"{told['cache']}")
        found = json.loads(machine.run("shoal", "doctor", "--json", check=False).stdout)
        it.check(found["errors"] == 0 and {"secret", "agent", "disk"} <= {each["check"] for each in found["findings"] if each["level"] == "ok"}, f"{found}")
        machine.systemctl("stop", "shoal")
        shown = machine.show("shoal")
        it.check((shown["ActiveState"], shown["Result"], shown["ExecMainStatus"]) == ("inactive", "success", "0"), f"{shown['Result']} {machine.log()}")
        it.check("agent: stopping" in machine.log() and not re.search(r"Z (warn|error)", machine.log()), machine.log())


def test_what_the_unit_refuses():
    """The unit's walls, tried from inside by a probe in the agent's place."""
    with Lab(1) as lab:
        machine = Installed(lab)
        machine.systemctl("start", "probe", check=False)
        it.check(machine.show("probe")["Result"] == "success", machine.log("probe"))
        *lines, tried = machine.path("/run/probe.out").read_text().splitlines()
        it.check(tried == f"tried {len(lines)}" and len(lines) > 10 and all(line.startswith("refused ") for line in lines), "\n".join(lines))
        it.check(not machine.path("/tmp/ok").exists() and machine.path("/var/lib/shoal/ok").exists(), "/tmp is not private, or the state directory is not the machine's")
        # By the unit, and not for want of rights alone.
        walls = {"write /etc EROFS", "write /usr EROFS", "write /var EROFS", "tunable EROFS", "unshare EPERM", "packet socket EAFNOSUPPORT", "write and execute EPERM",
                 "set-uid file EPERM", "priority EPERM", "other's process ENOENT"}
        it.check(walls <= {line.removeprefix("refused ") for line in lines}, "\n".join(lines))
        it.figure(f"{len(lines)} things refused")


def test_watchdog_and_crash():
    """RES-4: an agent that is stopped (SIGSTOP), which no watchdog of its own can see, is killed and started again; so is one that dies."""
    with Lab(1) as lab:
        machine, node = Installed(lab, {"shoal": "WatchdogSec=2\n"}), lab.nodes[0]
        machine.systemctl("start", "shoal")
        for count, number in enumerate((signal.SIGSTOP, signal.SIGKILL), 1):
            before = machine.show("shoal")["MainPID"]
            machine.run("kill", f"-{number.value}", before)
            machine.until(lambda: machine.show("shoal")["NRestarts"] == str(count) and machine.show("shoal")["ActiveState"] == "active", "not started again")
            it.check(machine.show("shoal")["MainPID"] != before and node.get("/readyz", admin=True).startswith("200"), "not a new agent")
        time.sleep(3)
        it.check(machine.show("shoal")["NRestarts"] == "2", "a healthy agent is killed: WATCHDOG=1 does not come in time")


def test_containerd_unit():
    """containerd is pointed at the agent while it is meant to run: after its crash, too, and not beyond its stop."""
    with Lab(1) as lab:
        machine = Installed(lab)
        machine.systemctl("start", "shoal", "shoal-containerd")
        hosts = "/etc/containerd/certs.d/registry.test:5000/hosts.toml"
        machine.until(lambda: f":{CLIENT_PORT}" in machine.path(hosts).read_text(), "containerd was not pointed at the agent")
        before = machine.show("shoal")["MainPID"]
        machine.run("kill", "-9", before)
        machine.until(lambda: machine.show("shoal")["MainPID"] not in (before, "0") and machine.show("shoal-containerd")["ActiveState"] == "active", "not both started again")
        machine.until(lambda: machine.path(hosts).exists(), "no longer pointed at the agent")
        machine.systemctl("stop", "shoal")
        shown = machine.show("shoal-containerd")
        it.check((shown["ActiveState"], shown["Result"]) == ("inactive", "success"), f"{shown['ActiveState']} {shown['Result']}: {machine.log('shoal-containerd')}")
        it.check(not machine.path("/etc/containerd/certs.d").exists(), "not reverted")


# ---- what is told, read from a bare socket ----

class Manager:
    """A service manager's socket."""

    def __init__(self, path: str):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)

    def next(self, seconds: float) -> str:
        """The next message, or "" if none comes in this time."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(4096).decode()
        except TimeoutError:
            return ""

    def drain(self):
        while self.next(0.001):
            pass


def test_notify_socket():
    """READY=1 from an agent that answers; WATCHDOG=1 at half of WATCHDOG_USEC, not while it is stopped; STOPPING=1 at SIGTERM with the time asked for."""
    with Lab(1) as lab:
        node, manager = lab.nodes[0], Manager(str(lab.dir / "notify"))
        told = {**os.environ, "NOTIFY_SOCKET": str(lab.dir / "notify"), "WATCHDOG_USEC": "1000000"}
        node.process = Process(node.exec(SHOAL, "agent", "--config", node.config({"limits.stopGrace": "7s"})), node.dir / "agent.log", env=told)
        it.check(manager.next(15) == "READY=1", node.process.text())
        it.check(node.get("/readyz", admin=True).startswith("200") and node.get("/healthz").startswith("200"), "READY=1, and yet not ready")
        manager.drain()
        it.check(manager.next(3) == "WATCHDOG=1", "no WATCHDOG=1")
        began = time.monotonic()
        it.check([manager.next(3) for _ in range(4)] == ["WATCHDOG=1"] * 4, "no WATCHDOG=1")
        it.check(1.5 <= time.monotonic() - began <= 4, f"4 intervals of 0.5 s took {time.monotonic() - began:.1f} s")
        os.kill(node.process.pid, signal.SIGSTOP)
        manager.drain()
        it.check(manager.next(2) == "", "a stopped agent is said to be well")
        os.kill(node.process.pid, signal.SIGCONT)
        it.check(manager.next(3) == "WATCHDOG=1", "nothing after SIGCONT")
        node.process.popen.send_signal(signal.SIGTERM)
        last = [manager.next(3) for _ in range(2)]
        it.check(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={(7 + 10) * 1000000}" in last, f"{last}")
        it.check(node.process.popen.wait(timeout=15) == 0, node.process.text())


def test_abstract_notify_socket_is_refused():
    """HRD-3: an abstract name could be anybody's on this machine."""
    with Lab(1) as lab:
        node, name = lab.nodes[0], f"shoal-test-{os.getpid()}"
        told = {**os.environ, "NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "200000"}
        with it.inside(node.netns):
            manager = Manager(f"\0{name}")
        node.process = Process(node.exec(SHOAL, "agent", "--config", node.config()), node.dir / "agent.log", env=told)
        node.wait_ready()
        it.check(manager.next(0.5) == "", "an abstract socket is written to")
        it.check("NOTIFY_SOCKET is no path" in node.process.text(), node.process.text())


if __name__ == "__main__":
    sys.exit(it.main(globals(), seconds=120))
