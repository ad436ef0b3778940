# SPDX-License-Identifier: Apache-2.0
"""What one agent does on this machine, measured: a cached blob beside nginx, a pull from a peer, idle memory, start.

Each function runs one measurement and returns a dict of figures; bench.py prints them and tests/integration/datapath.py
holds them to their bounds. Whoever compares does so within one run, interleaved, by medians: other load on the machine
moves absolute figures by a factor of two, ratios hardly. CPU seconds are those of the agent's process, of all threads.
"""
import json
import re
import shutil
import socket
import statistics
import subprocess
import time
from pathlib import Path

from lab import REGISTRY_NAME, ROOT, BusyCores, Lab, Node, Process, build_tools, inside, run, warm_memory
from spent import cpu_of

# Issue point 8; LIMITS says what binds.
CACHED_RATIO_MIN = 0.7
PEER_GB_PER_CORE_MIN = 0.45
IDLE_RSS_MIB_MAX = 32
LISTEN_MS_MAX = 100

MIB = 1 << 20
GIB = 1 << 30
GB = 1e9
NS = f"?ns={REGISTRY_NAME.replace(':', '%3A')}"
DRAIN = ROOT / "build" / "bench" / "drain"
STRAIGHT = ROOT / "build" / "bench" / "straight"
MEMBERS = ROOT / "build" / "bench" / "members"
NGINX_PORT = 8088


class Cpu:
    """CPU seconds a process spends between enter and exit."""

    def __init__(self, pid: int):
        self.pid = pid

    def __enter__(self):
        self.before = cpu_of(self.pid)
        self.user = self.system = 0.0
        return self

    def __exit__(self, *_):
        after = cpu_of(self.pid)
        self.user, self.system = after[0] - self.before[0], after[1] - self.before[1]

    @property
    def seconds(self) -> float:
        return self.user + self.system


def memory_mib(pid: int) -> dict[str, float]:
    """Resident memory of a process: whole, and its part that is not backed by files."""
    text = Path(f"/proc/{pid}/status").read_text()
    kib = {key: int(value) for key, value in re.findall(r"^(VmRSS|RssAnon|VmHWM):\s+(\d+) kB", text, re.M)}
    return {"rss_mib": round(kib["VmRSS"] / 1024, 1), "anonymous_mib": round(kib["RssAnon"] / 1024, 1), "peak_mib": round(kib["VmHWM"] / 1024, 1)}


def median(values) -> float:
    return round(statistics.median(values), 4)


def layer_path(layer: dict) -> str:
    return f"/v2/lib/app/blobs/{layer['digest']}{NS}"


def drain(node: Node, port: int, path: str) -> dict:
    """One GET by the cheapest client, inside the node."""
    return json.loads(node.run(DRAIN, "127.0.0.1", port, path).stdout)


def accepts(node: Node, port: int) -> bool:
    """Whether something takes connections on a loopback port inside the node."""
    try:
        with inside(node.netns):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def loopback_cubic(node: Node):
    """The namespace's loopback speaks cubic, as the agent does: nginx has no option for it, and BBR, a usual default, is
    2.5 times slower there."""
    for prefix in ("127.0.0.0/8", "127.0.0.1"):
        node.run("ip", "route", "replace", "local", prefix, "dev", "lo", "table", "local", "proto", "kernel", "scope", "host",
                 "src", "127.0.0.1", "congctl", "cubic")


def congestion(node: Node, port: int, path: str) -> str:
    """Congestion control of the server's sockets on a port, while it serves."""
    client = subprocess.Popen(node.exec(DRAIN, "127.0.0.1", port, path, "3"), stdout=subprocess.DEVNULL)
    seen = ""
    while client.poll() is None and not seen:
        words = node.run("ss", "-tinH", f"sport = :{port}").stdout.split()
        seen = next((w for w in words if w in ("cubic", "reno", "bbr", "dctcp")), "")
    client.wait()
    return seen


# ---- (1) a cached blob to one client, beside nginx ----

def start_nginx(lab: Lab, node: Node, layer: dict) -> int:
    """nginx as one process with sendfile inside the node, with the same blob on the same file system. Its PID."""
    root = lab.dir / "www"
    root.mkdir()
    hexdigest = layer["digest"].split(":")[1]
    shutil.copy(lab.dir / "registry/docker/registry/v2/blobs/sha256" / hexdigest[:2] / hexdigest / "data", root / "blob")
    config = lab.dir / "nginx.conf"
    config.write_text(f"daemon off; master_process off; pid {lab.dir}/nginx.pid; error_log {lab.dir}/nginx.error;\n"
                      "events { worker_connections 64; }\n"
                      f"http {{ access_log off; sendfile on; tcp_nopush on; server {{ listen 127.0.0.1:{NGINX_PORT}; root {root}; }} }}\n")
    process = Process(node.exec("/usr/sbin/nginx", "-c", config), lab.dir / "nginx.log")
    lab.processes.append(process)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if process.alive() and accepts(node, NGINX_PORT):
            return process.pid
        time.sleep(0.02)
    raise RuntimeError(f"nginx did not start:\n{process.text()[-500:]}")


def cached_blob(runs=9, size=512 * MIB) -> dict:
    """A blob that is in the cache, to one local client: the agent and nginx in turns."""
    build_tools()
    with Lab(1) as lab:
        lab.start_registry()
        layer = lab.push_image("lib/app", [size])["layers"][0]
        node = lab.nodes[0]
        loopback_cubic(node)
        node.start()
        path = layer_path(layer)
        drain(node, node.client_port, path)
        servers = {"nginx": (start_nginx(lab, node, layer), NGINX_PORT, "/blob"), "shoal": (node.process.pid, node.client_port, path)}
        rows = {name: [] for name in servers}
        with BusyCores() as busy:
            for turn in range(runs):
                for name in sorted(servers, reverse=turn % 2 == 0):
                    pid, port, url = servers[name]
                    with Cpu(pid) as cpu:
                        answer = drain(node, port, url)
                    rows[name].append({"gb_s": answer["bytes"] / GB / answer["seconds"], "cpu_s_gb": cpu.seconds / (answer["bytes"] / GB),
                                       "first_byte_ms": answer["first_byte_s"] * 1e3})
        result = {"measure": "cached_blob", "bytes": layer["size"], "runs": runs, "busy_cores": round(busy.value, 2)}
        for name, (_, port, url) in servers.items():
            result[name] = {key: median(row[key] for row in rows[name]) for key in rows[name][0]}
            result[name]["congestion"] = congestion(node, port, url)
        result["ratio"] = median(s["gb_s"] / n["gb_s"] for s, n in zip(rows["shoal"], rows["nginx"]))
        return result


# ---- (2) peer -> node, with cipher, hash, cache and client ----

def straight(lab: Lab, size: int) -> float:
    """CPU seconds per GB of a program that only does what a pull from a peer cannot do without, on the same file system."""
    answer = json.loads(run(STRAIGHT, lab.dir, size // MIB).stdout)
    return (answer["user_s"] + answer["system_s"]) / (answer["bytes"] / GB)


def peer_pull(runs=5, size=1024 * MIB) -> dict:
    """A blob that one peer holds, pulled over an unshaped link and drained by a local client: what the receiving agent
    spends on deciphering, both hashes, the cache and the client. Each run begins with an empty cache. In turns with it the
    straight implementation, which says what the machine allows; either finds the memory as warm."""
    build_tools()
    with Lab(2) as lab:
        lab.start_registry()
        layer = lab.push_image("lib/app", [size])["layers"][0]
        path, gigabytes = layer_path(layer), layer["size"] / GB
        lab.start_nodes()
        lab.wait_members()
        holder, node = lab.nodes
        drain(holder, holder.client_port, path)
        rows = []
        for turn in range(runs):
            if turn > 0:
                node.process.stop()
                shutil.rmtree(node.dir / "data")
                node.start()
                lab.wait_members()
            warm_memory(3 * GIB)
            plain_s_gb = straight(lab, size)
            warm_memory(3 * GIB)
            with BusyCores() as busy, Cpu(holder.process.pid) as serving, Cpu(node.process.pid) as cpu:
                answer = drain(node, node.client_port, path)
            from_origin = node.status()["bytes"]["origin"]
            if from_origin > 0:
                raise RuntimeError(f"{from_origin} bytes came from the registry, not from the peer")
            rows.append({"gb_s": gigabytes / answer["seconds"], "user_s_gb": cpu.user / gigabytes, "system_s_gb": cpu.system / gigabytes,
                         "cpu_s_gb": cpu.seconds / gigabytes, "gb_per_core_s": gigabytes / cpu.seconds,
                         "peer_cpu_s_gb": serving.seconds / gigabytes, "client_cpu_s_gb": answer["cpu_s"] / gigabytes,
                         "straight_s_gb": plain_s_gb, "straight_gb_per_core_s": 1 / plain_s_gb, "busy_cores": busy.value})
        result = {"measure": "peer_pull", "bytes": layer["size"], "runs": runs, "file_system": "tmpfs" if str(lab.dir).startswith("/dev/shm") else "disk"}
        result.update({key: median(row[key] for row in rows) for key in rows[0]})
        result["best_gb_per_core_s"] = round(max(row["gb_per_core_s"] for row in rows), 4)
        return result


# ---- (3) idle memory in a large mesh ----

def start_members(lab: Lab, node: Node, count: int) -> subprocess.Popen:
    """So many simulated members inside the node's namespace, complete among themselves (members.c)."""
    node.run("ip", "route", "add", "local", "10.250.0.0/16", "dev", "lo")
    process = subprocess.Popen(node.exec(MEMBERS, lab.secret, "lab", count, "10.250.0.1", 65102), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    if not process.stdout.readline().startswith("ready"):
        process.wait()
        raise RuntimeError("the simulated members did not start")
    return process


def idle_in_mesh(members=1000, idle_s=20, size=256 * MIB) -> dict:
    """Resident memory of an agent that is one of so many members, has pulled a blob, and has been idle for a while."""
    build_tools()
    with Lab(1) as lab:
        lab.start_registry()
        layer = lab.push_image("lib/app", [size])["layers"][0]
        node = lab.nodes[0]
        others = start_members(lab, node, members - 1)
        try:
            node.start({"bootstrap": ["10.250.0.1:65102", "10.250.0.2:65102", "10.250.0.3:65102"]})
            started = time.monotonic()
            while node.metric("shoal_members") < members and time.monotonic() < started + 60:
                time.sleep(0.05)
            view_s = time.monotonic() - started
            fresh = memory_mib(node.process.pid)
            # Every one of them asks the agent something, so that it holds keys for all.
            others.stdin.write(f"greet {node.address} {node.mesh_port}\n")
            others.stdin.flush()
            drain(node, node.client_port, layer_path(layer))
            time.sleep(max(members / 200, 1))
            with Cpu(node.process.pid) as cpu:
                time.sleep(idle_s)
            result = {"measure": "idle_in_mesh", "members": int(node.metric("shoal_members")), "idle_s": idle_s, "full_view_s": round(view_s, 2),
                      **memory_mib(node.process.pid), "rss_before_pull_mib": fresh["rss_mib"], "idle_cpu_percent": round(100 * cpu.seconds / idle_s, 2),
                      "suspicions": int(node.metric("shoal_suspicions_total"))}
            if node.process.stop() != 0:
                raise RuntimeError("the agent did not stop in order")
            return result
        finally:
            others.stdin.close()
            try:
                others.wait(timeout=10)
            except subprocess.TimeoutExpired:
                others.kill()
                others.wait()


# ---- (4) from exec to listening ----

def listening(runs=10) -> dict:
    """Time from starting the program until its client port takes a connection."""
    with Lab(1) as lab:
        node = lab.nodes[0]
        times = []
        for _ in range(runs):
            started = time.monotonic()
            node.start(wait=False)
            while not accepts(node, node.client_port):
                if time.monotonic() > started + 10 or not node.process.alive():
                    raise RuntimeError(f"the client port does not listen:\n{node.process.text()[-500:]}")
                time.sleep(0.0005)
            times.append((time.monotonic() - started) * 1e3)
            node.process.stop()
        return {"measure": "listening", "runs": runs, "median_ms": median(times), "max_ms": round(max(times), 1)}
