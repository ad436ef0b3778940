# SPDX-License-Identifier: Apache-2.0
"""Never worse than no agent (SECURITY-RELIABILITY §5): what a pull through the agent costs over the same pull straight from
the registry, in each state a mesh can be in.

One node pulls blobs that nobody has; each is read straight from the registry and through the agent in turns, over
connections of their own. The states: no mesh at all, peers that lack the blob, peers killed, frozen (SIGSTOP), the mesh's
port black-holed both ways, and a bootstrap list of addresses where nobody is (N-7). A mesh is broken anew for each round, so that
what is counted are the pulls of the first seconds, before the dead are known to be dead.
"""
import http.client
import signal
import statistics
import time

from lab import MESH_PORT, REGISTRY_NAME, Lab, Node, inside, run

# SECURITY-RELIABILITY §5, "added time to first byte" and "added total time", mesh dead.
FIRST_BYTE_P50_MS, FIRST_BYTE_P99_MS = 50, 250
TOTAL_SHARE, TOTAL_S = 0.05, 0.5

KIB, MIB = 1 << 10, 1 << 20
NS = f"?ns={REGISTRY_NAME.replace(':', '%3A')}"
REPOSITORY = "lib/worse"
SMALL_BYTES, LARGE_BYTES = 64 * KIB, 24 * MIB
MEMBERS, MBIT = 8, 400
PULL_S_MAX = 20
# Addresses in the lab's network where nobody answers.
NOBODY = [(1, 250), (1, 251), (1, 252)]


class Pull:
    """One GET of a blob with a connection of its own: milliseconds to the body's first byte and seconds to its last."""

    def __init__(self, node: Node, address: str, port: int, path: str, size: int):
        with inside(node.netns):
            started = time.monotonic()
            connection = http.client.HTTPConnection(address, port, timeout=PULL_S_MAX)
            connection.connect()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            got = len(response.read(1))
            self.first_ms = (time.monotonic() - started) * 1e3
            while part := response.read(MIB):
                got += len(part)
            self.total_s = time.monotonic() - started
        finally:
            connection.close()
        if response.status != 200 or got != size:
            raise RuntimeError(f"{address}:{port}{path}: {response.status}, {got} of {size} bytes")


# ---- states of the mesh: how each begins and how it ends ----

def start_alone(lab: Lab):
    lab.nodes[0].start({"bootstrap": []})


def start_with_nobody(lab: Lab):
    lab.nodes[0].start({"bootstrap": [f"{lab.subnet}.{net}.{host}:{MESH_PORT}" for net, host in NOBODY]})


def start_all(lab: Lab):
    lab.start_nodes()
    lab.wait_members()


def kill_peers(lab: Lab):
    for node in lab.nodes[1:]:
        node.process.popen.send_signal(signal.SIGKILL)


def freeze_peers(lab: Lab):
    for node in lab.nodes[1:]:
        node.process.popen.send_signal(signal.SIGSTOP)


def black_hole(lab: Lab):
    """Each node drops what arrives for the mesh or from it: senders see nothing of that, as in a network that swallows."""
    for node in lab.nodes:
        rules = "\n".join(["add table inet hole", "add chain inet hole in { type filter hook input priority -10; }",
                           *(f"add rule inet hole in {protocol} {port} {MESH_PORT} drop" for protocol in ("tcp", "udp") for port in ("sport", "dport"))])
        run("ip", "netns", "exec", node.netns, "nft", "-f", "-", input=rules + "\n")


def stop_all(lab: Lab):
    """Everybody ends, and the next state begins with empty caches."""
    for node in lab.nodes:
        if node.process:
            node.process.kill()
            node.process = None
        run("ip", "netns", "exec", node.netns, "nft", "flush", "ruleset")
        run("rm", "-rf", node.dir / "data")


STATES = {
    "no mesh": (start_alone, None),
    "nobody at the bootstrap addresses": (start_with_nobody, None),
    "peers lack the blob": (start_all, None),
    "peers killed": (start_all, kill_peers),
    "peers frozen": (start_all, freeze_peers),
    "mesh port black-holed": (start_all, black_hole),
}


# ---- measuring ----

def both(lab: Lab, layer: dict, agent_first: bool) -> tuple[Pull, Pull]:
    """The same blob straight from the registry and through the agent, in this order or the other."""
    node, path = lab.nodes[0], f"/v2/{REPOSITORY}/blobs/{layer['digest']}"

    def direct():
        return Pull(node, lab.origin_address, lab.registry_port, path, layer["size"])

    def through():
        return Pull(node, "127.0.0.1", node.client_port, path + NS, layer["size"])
    if agent_first:
        agent = through()
        return direct(), agent
    straight = direct()
    return straight, through()


def whole_image(state: str, layers: list[int]) -> tuple[float, float]:
    """Seconds of a pull by skopeo straight from the registry, and through the agent as it ships (layers ahead included), in a state of the mesh."""
    begin, break_it = STATES[state]
    with Lab(MEMBERS, mbit=MBIT) as lab:
        lab.start_registry()
        node = lab.nodes[0]
        lab.push_image(REPOSITORY, layers)

        def pull(address: str, port: int, name: str) -> float:
            started = time.monotonic()
            node.run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{address}:{port}/{REPOSITORY}:1", f"dir:{lab.dir}/{name}", timeout=120)
            took = time.monotonic() - started
            run("rm", "-rf", lab.dir / name)
            return took
        begin(lab)
        if break_it:
            break_it(lab)
        through = pull("127.0.0.1", node.client_port, "through")
        return pull(lab.origin_address, lab.registry_port, "direct"), through


def warm_up(lab: Lab, image: dict):
    """The manifest, as every runtime asks for it first: the blobs are known and may be read."""
    node = lab.nodes[0]
    answer = node.get(f"/v2/{REPOSITORY}/manifests/{image['tag']}{NS}", headers=(f"Accept: {image['mediaType']}",))
    if not answer.startswith("200"):
        raise RuntimeError(f"manifest: {answer[:200]}")


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def one_round(lab: Lab, state: str, image: dict, larges: list[dict]) -> dict:
    """The state from its beginning: the small blobs at once after it broke, then the large ones."""
    begin, break_it = STATES[state]
    begin(lab)
    try:
        warm_up(lab, image)
        if break_it:
            break_it(lab)
        small = [both(lab, layer, index % 2 == 0) for index, layer in enumerate(image["small"])]
        if break_it and larges:  # those are to meet a mesh that has just died, too
            stop_all(lab)
            begin(lab)
            warm_up(lab, image)
            break_it(lab)
        large = [both(lab, layer, index % 2 == 0) for index, layer in enumerate(larges)]
        return {"small": small, "large": large}
    finally:
        stop_all(lab)


def summary(state: str, rounds: list[dict]) -> dict:
    small = [pair for each in rounds for pair in each["small"]]
    large = [pair for each in rounds for pair in each["large"]]
    added = [agent.first_ms - direct.first_ms for direct, agent in small]
    over = [agent.total_s - (1 + TOTAL_SHARE) * direct.total_s for direct, agent in large]
    result = {"state": state, "pulls": len(small), "added_ms": {"p50": round(percentile(added, 0.5), 2), "p99": round(percentile(added, 0.99), 2), "max": round(max(added), 2)},
              "direct_first_ms": round(statistics.median(d.first_ms for d, _ in small), 2),
              "large": [{"direct_s": round(d.total_s, 3), "agent_s": round(a.total_s, 3), "direct_first_ms": round(d.first_ms, 1), "agent_first_ms": round(a.first_ms, 1)}
                        for d, a in large],
              "total_ratio": round(statistics.median(a.total_s / d.total_s for d, a in large), 3), "over_share_s": round(max(over), 3)}
    result["misses"] = misses(result)
    return result


def text_of(result: dict) -> str:
    """A line of a table: state, added to first byte, largest pull beside the direct one."""
    added, slowest = result["added_ms"], max(result["large"], key=lambda pull: pull["agent_s"])
    return (f"{result['state']:34} first byte p50 {added['p50']:+7.1f} ms, p99 {added['p99']:+7.1f} ms ({result['pulls']} pulls, direct {result['direct_first_ms']:.1f} ms);"
            f" {LARGE_BYTES >> 20} MiB {slowest['agent_s']:.2f} s, direct {slowest['direct_s']:.2f} s, median ratio {result['total_ratio']:.2f}")


def misses(result: dict) -> list[str]:
    wrong = []
    if result["added_ms"]["p50"] > FIRST_BYTE_P50_MS:
        wrong.append(f"first byte p50 {result['added_ms']['p50']} ms later, at most {FIRST_BYTE_P50_MS}")
    if result["added_ms"]["p99"] > FIRST_BYTE_P99_MS:
        wrong.append(f"first byte p99 {result['added_ms']['p99']} ms later, at most {FIRST_BYTE_P99_MS}")
    if result["over_share_s"] > TOTAL_S:
        wrong.append(f"whole pull {result['over_share_s']} s over {1 + TOTAL_SHARE} x the direct one, at most {TOTAL_S}")
    return wrong


def states(rounds=4, small=10, large=2, members=MEMBERS, wanted=None, tell=None) -> list[dict]:
    """Each state in so many rounds of so many small blobs and, in the first round, some large ones; tell(result) as they come."""
    results = []
    with Lab(members, mbit=MBIT) as lab:
        lab.start_registry()
        # Layers ahead of the client would hide what is measured: every blob is to be one that nobody has begun.
        lab.settings = {"transfer.prefetch": False}
        images = []
        for number in range(rounds):
            sizes = [SMALL_BYTES] * small + ([LARGE_BYTES] * large if number == 0 else [])
            image = lab.push_image(REPOSITORY, sizes, tag=str(number + 1))
            images.append({**image, "tag": str(number + 1), "small": image["layers"][:small], "large": image["layers"][small:]})
        for state in wanted or STATES:
            result = summary(state, [one_round(lab, state, image, image["large"]) for image in images])
            results.append(result)
            if tell:
                tell(result)
    return results
