#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""N nodes on one machine: a network namespace each, links shaped with tc, a real registry behind its own link.

Used by the demo, the benchmarks and the integration tests. Everything a Lab makes carries its own prefix and is
removed by close(), also after a failure. Bytes are counted by nftables in each node's namespace, not by the agent.
Without root a Lab runs loopback processes instead: no shaping, and bytes by the agents' own counters.
"""
import atexit
import contextlib
import ctypes
import functools
import hashlib
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHOAL = ROOT / "build" / "shoal"
CLIENT_PORT, MESH_PORT, ADMIN_PORT = 65001, 65002, 65003
REGISTRY_PORT = 5000
REGISTRY_NAME = "registry.test:5000"
# Of a packet's bytes as nftables counts them: IPv4, TCP and its timestamps. Of datagrams it takes 24 too many.
HEADER_BYTES = 52
# HTB's switch for sending on into debt, of the whole machine, and the mark of who turned it on.
HTB_DEBT = Path("/sys/module/sch_htb/parameters/htb_hysteresis")
HTB_DEBT_MARK = Path("/run/shoal-lab-htb")
# Payload a node received, by where it came from.
SOURCES = ("origin_bytes", "same_zone_bytes", "other_zone_bytes")


def run(*args, check=True, **kwargs):
    """A command with captured output; raises with its stderr on failure."""
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, **kwargs)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(str(a) for a in args)}: exit {done.returncode}: {done.stderr.strip()[-800:]}")
    return done


@functools.cache
def build_tools():
    """The C programs of this folder, if they are older than their sources; once in a run."""
    run("make", "--no-print-directory", "-C", ROOT, "-f", "Makefile", "-f", "bench/tools.mk", "bench-tools")


def cpu_seconds() -> tuple[float, float]:
    """Busy and total CPU seconds of the machine so far."""
    ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"), sum(ticks) / os.sysconf("SC_CLK_TCK")


def warm_memory(size: int):
    """Touches so much memory, at most half of what is free, and gives it back. A virtual machine hands idle pages to its
    host, and the first touch of each costs 2 to 5 times as much then, up to 12 us per page: that is the machine's time, not
    that of who is measured, and comes and goes with what ran before."""
    size = max(min(size, os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE // 2), mmap.PAGESIZE)
    with mmap.mmap(-1, size) as memory:
        for offset in range(0, size, mmap.PAGESIZE):
            memory[offset] = 1


@contextlib.contextmanager
def inside(netns: str):
    """The calling thread is in a network namespace: a socket made there stays in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as home, open(f"/run/netns/{netns}") as there:
        if libc.setns(there.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(home.fileno(), 0)


def shape(netns: str, device: str, mbit: int):
    """What leaves by this device has so many Mbit/s, bursts of at most 128 KiB, and queues of 30 ms besides."""
    run("tc", "-n", netns, "qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "1")
    run("tc", "-n", netns, "class", "add", "dev", device, "parent", "1:", "classid", "1:1", "htb", "rate", f"{mbit}mbit", "ceil", f"{mbit}mbit",
        "burst", "64kb", "cburst", "64kb")
    run("tc", "-n", netns, "qdisc", "add", "dev", device, "parent", "1:1", "bfifo", "limit", mbit * 125 * 30 + (128 << 10))


def shape_in_bursts():
    """Shapers give 64 KiB at a time, 5 ms of 100 Mbit/s, instead of each packet by a timer of its own, which in a virtual machine costs
    more than the packet: a seventh of all CPU time of a crowd. As before, at most 128 KiB come in a row. Without the right to
    say so they work as they do elsewhere."""
    try:
        if HTB_DEBT.read_text().strip() == "0":
            HTB_DEBT_MARK.touch()
            HTB_DEBT.write_text("1")
    except OSError:
        pass


def shape_as_before():
    """What shape_in_bursts changed is as it was, once no lab is left."""
    if HTB_DEBT_MARK.exists() and not re.search(r"^sh\d+x\d+sw\b", run("ip", "netns", "list", check=False).stdout, re.M):
        HTB_DEBT.write_text("0")
        HTB_DEBT_MARK.unlink(missing_ok=True)


class BusyCores:
    """Mean number of busy cores between enter and exit."""

    def __enter__(self):
        self.busy, self.started = cpu_seconds()[0], time.monotonic()
        self.value = 0.0
        return self

    def __exit__(self, *_):
        self.value = (cpu_seconds()[0] - self.busy) / max(time.monotonic() - self.started, 1e-6)


class Process:
    """A child in its own session, with its output in a file; stopped by its PID."""

    def __init__(self, args, log: Path, env=None):
        self.log = log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen([str(a) for a in args], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                          env=env, start_new_session=True)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def alive(self) -> bool:
        return self.popen.poll() is None

    def kill(self):
        if self.alive():
            self.popen.kill()
        self.popen.wait(timeout=10)

    def stop(self, seconds=30) -> int:
        if self.alive():
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.popen.wait(timeout=10)

    def text(self) -> str:
        return self.log.read_text(errors="replace")


class Node:
    """One agent and the place it runs in."""

    def __init__(self, lab: "Lab", index: int, zone: int):
        self.lab, self.index, self.zone = lab, index, zone
        self.name = f"node{index}"
        self.netns = f"{lab.prefix}n{index}" if lab.netns else None
        self.address = f"{lab.subnet}.{zone + 1}.{10 + index}" if lab.netns else "127.0.0.1"
        shift = 0 if lab.netns else 10 * (index + 1)
        self.client_port, self.mesh_port, self.admin_port = CLIENT_PORT + shift, MESH_PORT + shift, ADMIN_PORT + shift
        self.dir = lab.dir / self.name
        self.dir.mkdir()
        self.process: Process | None = None

    def exec(self, *args) -> list[str]:
        """The command as it must be run to run inside this node."""
        return (["ip", "netns", "exec", self.netns] if self.netns else []) + [str(a) for a in args]

    def run(self, *args, **kwargs):
        return run(*self.exec(*args), **kwargs)

    def config(self, extra: dict | None = None) -> Path:
        lab = self.lab
        seeds = [n for n in lab.nodes if n is not self][:3]
        values = {
            "clusterId": "lab",
            "clusterSecretFile": [str(lab.secret)],
            "dataDir": str(self.dir / "data"),
            "listen": {"client": f"127.0.0.1:{self.client_port}", "mesh": f"{self.address}:{self.mesh_port}",
                       "admin": f"127.0.0.1:{self.admin_port}"},
            "bootstrap": [f"{n.address}:{n.mesh_port}" for n in seeds],
            "topology": {"region": "lab", "zone": f"zone-{'abcdefgh'[self.zone]}"},
            "builtinRegistries": False,
            "registries": lab.registries,
        }
        if not lab.netns:
            values["topology"]["detect"] = ["none"]  # on the machine's own network it would ask a cloud's metadata service
        for key, value in {**Lab.defaults, **lab.settings, **(extra or {})}.items():
            place = values
            *parents, last = key.split(".")
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        path = self.dir / "shoal.yaml"
        path.write_text(json.dumps(values, indent=1))  # JSON is YAML
        return path

    def start(self, extra: dict | None = None, binary: Path = SHOAL, wait=True):
        path = self.config(extra)
        self.process = Process(self.exec(binary, "agent", "--config", path), self.dir / "agent.log")
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds=15):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.process.alive():
                raise RuntimeError(f"{self.name} ended at start:\n{self.process.text()[-2000:]}")
            if self.get("/readyz", admin=True, check=False).startswith("200"):
                return
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} not ready in {seconds} s:\n{self.process.text()[-2000:]}")

    def get(self, path: str, admin=False, check=True, headers=()) -> str:
        """'<status> <body>' of a GET on the node."""
        port = self.admin_port if admin else self.client_port
        args = ["curl", "-s", "-m", "20", "-w", "\n%{http_code}", *[f"-H{h}" for h in headers], f"http://127.0.0.1:{port}{path}"]
        done = self.run(*args, check=check)
        body, _, code = done.stdout.rpartition("\n")
        return f"{code} {body}"

    def status(self) -> dict:
        return json.loads(self.get("/status", admin=True).split(" ", 1)[1])

    def metric(self, name: str) -> float:
        """Sum over the labels of a metric."""
        page = self.get("/metrics", admin=True)
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if re.match(rf"{re.escape(name)}(\{{|\s)", line))

    # ---- bytes by source, from nftables ----

    def count_sources(self):
        if not self.netns:
            return
        zones = sorted({n.zone for n in self.lab.nodes})
        rules = ["add table inet shoal", "add chain inet shoal in { type filter hook input priority 0; }",
                 f"add rule inet shoal in ip saddr {self.lab.origin_address} counter comment \"origin\""]
        for zone in zones:
            rules.append(f"add rule inet shoal in ip saddr {self.lab.subnet}.{zone + 1}.0/24 counter comment \"zone{zone}\"")
        run("ip", "netns", "exec", self.netns, "nft", "-f", "-", input="\n".join(["flush ruleset", *rules]) + "\n")

    def sources(self) -> dict[str, int]:
        """Payload received since count_sources: from origin, same zone, other zones."""
        if not self.netns:
            counts = self.status()["bytes"]
            return {"origin_bytes": counts["origin"], "same_zone_bytes": counts["vswitch"] + counts["zone"],
                    "other_zone_bytes": counts["region"] + counts["elsewhere"]}
        listing = json.loads(self.run("nft", "-j", "list", "table", "inet", "shoal").stdout)
        out = dict.fromkeys(SOURCES, 0)
        for item in listing["nftables"]:
            rule = item.get("rule")
            if not rule:
                continue
            counter = next(e["counter"] for e in rule["expr"] if "counter" in e)
            size = max(counter["bytes"] - HEADER_BYTES * counter["packets"], 0)
            comment = rule.get("comment", "")
            near = "same_zone_bytes" if comment == f"zone{self.zone}" else "other_zone_bytes"
            out["origin_bytes" if comment == "origin" else near] += size
        return out


class Lab:
    """Namespaces, links, registry and nodes of one experiment. Use as a context manager."""

    count = 0
    defaults: dict = {}  # settings of every lab's agents, below its own
    # Called with a lab that is taken down: while its agents live, and when they are gone but their files are not.
    before_end: list = []
    at_end: list = []

    def __init__(self, nodes: int, zones: int = 1, mbit: int = 0, origin_mbit: int = 0, settings: dict | None = None, netns: bool | None = None,
                 room=4 << 30):
        """`room`: bytes that all nodes may hold at once; they are kept in memory where there is twice as much."""
        Lab.count += 1
        self.netns = os.geteuid() == 0 if netns is None else netns
        self.prefix = f"sh{os.getpid() % 100000}x{Lab.count}"
        self.subnet = f"10.{64 + (os.getpid() + Lab.count) % 128}"
        self.mbit, self.origin_mbit = mbit, origin_mbit or mbit
        self.settings = settings or {}
        memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        roomy = os.access("/dev/shm", os.W_OK) and min(shutil.disk_usage("/dev/shm").free, memory / 2) > room
        base = "/dev/shm" if roomy else None
        self.dir = Path(tempfile.mkdtemp(prefix="shoal-lab-", dir=base))
        self.processes: list[Process] = []
        self.made: list[str] = []
        self.origin_ns = f"{self.prefix}or"
        self.switch_ns = f"{self.prefix}sw"
        self.origin_address = f"{self.subnet}.0.2" if self.netns else "127.0.0.1"
        self.registry_port = REGISTRY_PORT if self.netns else 5000 + os.getpid() % 1000 + Lab.count
        self.endpoint = f"http://{self.origin_address}:{self.registry_port}"
        self.registries = [{"name": REGISTRY_NAME, "endpoint": self.endpoint, "plainHttp": True, "allowPrivate": True, "default": True}]
        self.secret = self.dir / "secret"
        self.secret.write_text(os.urandom(32).hex() + "\n")
        self.secret.chmod(0o400)
        self.nodes: list[Node] = []
        self.zones = zones
        atexit.register(self.close)  # who fails before the `with` leaves nothing either
        try:
            if self.netns:
                self._network()
            for index in range(nodes):
                self.nodes.append(Node(self, index, index * zones // nodes))
            for node in self.nodes:
                self._attach(node)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- network ----

    def _netns(self, name: str):
        run("ip", "netns", "add", name)
        self.made.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")

    def _network(self):
        self._netns(self.switch_ns)
        sw = self.switch_ns
        run("ip", "-n", sw, "link", "add", "core", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        run("ip", "-n", sw, "link", "set", "core", "up")
        for zone in range(self.zones):
            run("ip", "-n", sw, "link", "add", f"zone{zone}", "type", "bridge", "stp_state", "0", "forward_delay", "0")
            run("ip", "-n", sw, "link", "add", f"up{zone}", "type", "veth", "peer", "name", f"core{zone}")
            run("ip", "-n", sw, "link", "set", f"up{zone}", "master", f"zone{zone}", "up")
            run("ip", "-n", sw, "link", "set", f"core{zone}", "master", "core", "up")
            run("ip", "-n", sw, "link", "set", f"zone{zone}", "up")
        # Host-wide packet filters that are asked per bridged frame are none of a switch's work, and a twentieth of a run's CPU time.
        # Not there without the kernel's br_netfilter.
        for family in ("ip", "ip6", "arp"):
            run("ip", "netns", "exec", sw, "sysctl", "-q", "-w", f"net.bridge.bridge-nf-call-{family}tables=0", check=False)
        self._netns(self.origin_ns)
        self._veth(self.origin_ns, "porigin", "core", self.origin_address, self.origin_mbit)

    def _veth(self, netns: str, port: str, bridge: str, address: str, mbit: int):
        sw = self.switch_ns
        run("ip", "link", "add", "e0", "netns", netns, "type", "veth", "peer", "name", port, "netns", sw)
        run("ip", "-n", netns, "addr", "add", f"{address}/16", "dev", "e0")
        run("ip", "-n", netns, "link", "set", "e0", "up")
        run("ip", "-n", sw, "link", "set", port, "master", bridge, "up")
        # BBR, a usual default, starves on shaped veth: cubic, as a route may set it.
        run("ip", "-n", netns, "route", "change", f"{self.subnet}.0.0/16", "dev", "e0", "src", address, "congctl", "cubic")
        if mbit:
            shape(netns, "e0", mbit)
            shape(sw, port, mbit)
            shape_in_bursts()

    def _attach(self, node: Node):
        if not self.netns:
            return
        self._netns(node.netns)
        self._veth(node.netns, f"p{node.index}", f"zone{node.zone}", node.address, self.mbit)
        etc = Path(f"/etc/netns/{node.netns}")
        etc.mkdir(parents=True, exist_ok=True)
        (etc / "hosts").write_text(f"127.0.0.1 localhost mirror.test\n{self.origin_address} registry.test auth.test blob.test one.pattern.test two.pattern.test one.other.test\n")
        (etc / "resolv.conf").write_text("")

    def origin_exec(self, *args) -> list[str]:
        return (["ip", "netns", "exec", self.origin_ns] if self.netns else []) + [str(a) for a in args]

    # ---- registry ----

    def start_registry(self, auth: dict | None = None, port: int | None = None, name="registry", tls: dict | None = None, more: dict | None = None) -> Process:
        """Debian's docker-registry on the origin's address; several may share the data. `tls` as in its own configuration, `more` sections of it."""
        port = port or self.registry_port
        config = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.dir / "registry")}, "delete": {"enabled": True}},
            "http": {"addr": f"{self.origin_address}:{port}", "secret": "lab"},
        }
        if auth:
            config["auth"] = auth
        if tls:
            config["http"]["tls"] = tls
        for section, values in (more or {}).items():
            config[section] = {**config.get(section, {}), **values}
        path = self.dir / f"{name}.yml"
        path.write_text(json.dumps(config))
        process = Process(self.origin_exec("docker-registry", "serve", path), self.dir / f"{name}.log")
        self.processes.append(process)
        end = time.monotonic() + 15
        while time.monotonic() < end:
            probe = run(*self.origin_exec("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{self.origin_address}:{port}/v2/"), check=False)
            if probe.stdout in ("200", "401") or (tls and probe.stdout == "400"):  # it tells plain HTTP that it wants TLS
                return process
            time.sleep(0.05)
        raise RuntimeError(f"docker-registry did not start:\n{process.text()[-1000:]}")

    def push_image(self, repository: str, layers: list[int], tag="1") -> dict:
        """An image of random gzip layers (sizes in bytes), pushed through the registry's own API. Returns its manifest."""
        with tempfile.TemporaryDirectory(dir=self.dir) as scratch:
            layout = Path(scratch)
            blobs = layout / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            diff_ids, descriptors = [], []
            for number, size in enumerate(layers):
                data = layer_tar(f"data/layer{number}.bin", size)
                diff_ids.append("sha256:" + hashlib.sha256(data).hexdigest())
                packed = gzip_stored(data)
                descriptors.append(put_blob(blobs, packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
            config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]},
                      "rootfs": {"type": "layers", "diff_ids": diff_ids}}
            manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                        "config": put_blob(blobs, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
                        "layers": descriptors}
            body = json.dumps(manifest).encode()
            index = {"schemaVersion": 2, "manifests": [{**put_blob(blobs, body, manifest["mediaType"]),
                                                        "annotations": {"org.opencontainers.image.ref.name": tag}}]}
            (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
            (layout / "index.json").write_text(json.dumps(index))
            run(*self.origin_exec("skopeo", "copy", "-q", "--dest-tls-verify=false", "--preserve-digests", f"oci:{layout}:{tag}",
                                  f"docker://{self.origin_address}:{self.registry_port}/{repository}:{tag}"))
            return {**manifest, "digest": "sha256:" + hashlib.sha256(body).hexdigest(), "size": sum(d["size"] for d in descriptors)}

    # ---- mesh ----

    def start_nodes(self, extra: dict | None = None):
        for node in self.nodes:
            node.start(extra, wait=False)
        for node in self.nodes:
            node.wait_ready()

    def wait_members(self, seconds=20, nodes: list[Node] | None = None):
        """Until every node sees every other."""
        nodes = nodes or [n for n in self.nodes if n.process and n.process.alive()]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if all(n.metric("shoal_members") >= len(nodes) for n in nodes):
                return
            time.sleep(0.1)
        raise RuntimeError("members: " + ", ".join(f"{n.name}={n.metric('shoal_members'):.0f}" for n in nodes))

    # ---- end ----

    def _tell(self, watchers: list):
        """Whatever a watcher does, what the lab made is removed."""
        for watcher in watchers if self.dir.exists() else ():
            try:
                watcher(self)
            except Exception as error:  # noqa: BLE001: told to people; the next one and the clean-up go on
                print(f"lab: {watcher.__name__}: {error}", flush=True)

    def close(self):
        atexit.unregister(self.close)
        self._tell(Lab.before_end)
        for node in self.nodes:
            if node.process:
                try:
                    node.process.kill()
                except (OSError, subprocess.TimeoutExpired):
                    pass
        for process in self.processes:
            try:
                process.kill()
            except (OSError, subprocess.TimeoutExpired):
                pass
        self._tell(Lab.at_end)
        for name in self.made:
            run("ip", "netns", "del", name, check=False)
            shutil.rmtree(f"/etc/netns/{name}", ignore_errors=True)
        shape_as_before()
        if os.environ.get("SHOAL_LAB_KEEP"):
            print(f"lab: kept {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def layer_tar(name: str, size: int) -> bytes:
    """A tar archive of one file of random bytes."""
    import io
    import tarfile
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = size
        tar.addfile(info, io.BytesIO(os.urandom(size)))
    return out.getvalue()


def gzip_stored(data: bytes) -> bytes:
    """gzip without compression: random bytes do not shrink, and this is fast."""
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def put_blob(directory: Path, data: bytes, media_type: str) -> dict:
    digest = hashlib.sha256(data).hexdigest()
    (directory / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}
