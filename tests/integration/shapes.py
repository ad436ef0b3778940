#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The judge of the shaped benchmarks: what it refuses, what it calls missed, whom a swarm's tracker names, and that a
race fails when one of its runners does; and of the calibration: what it simulates, what it calls agreed. No rival has to be installed for it."""
import contextlib
import hashlib
import io
import os
import sys
import types
import urllib.request

import it
import calibrate
import race
import rivals
import shaped
from lab import Lab, inside
from tracker import Tracker


def row(last=1.2, origin=1.02, cores=1.0, bound=10.0):
    return {"last_s": last * bound, "ratio": {"p50": last, "last": last}, "origin_copies": origin, "busy_cores": cores}


def test_shapes_are_read():
    it.check(shaped.parse_shapes("16x100x64,8x200x256") == [(16, 100, 64), (8, 200, 256)], "two shapes")
    for wrong in ("", "16x100", "0x100x64", "16x0x64", "16 x 100 x 64", "999x1x1", "16x100x64,", "-1x2x3"):
        try:
            shaped.parse_shapes(wrong)
        except ValueError:
            continue
        raise AssertionError(f"{wrong!r} was taken")


def test_a_busy_machine_is_refused():
    it.check(shaped.valid(row(cores=1.7)) and not shaped.valid(row(cores=1.71)), "the limit is 1.7 busy cores")
    runs = iter([row(cores=1.9), row(cores=1.2)])
    it.check(shaped.twice(lambda: next(runs))["busy_cores"] == 1.2, "a refused run is repeated, and the valid one taken")
    runs = iter([row(cores=1.9), row(cores=1.8)])
    it.check(not shaped.valid(shaped.twice(lambda: next(runs))), "refused twice stays refused")
    runs = iter([row(last=1.3), row(last=1.1)])
    it.check(shaped.twice(lambda: next(runs))["ratio"]["last"] == 1.3, "a valid run is not repeated for a better one")


def test_what_counts_as_missed():
    rivals_rows = {"aria2": row(last=2.5), "libtorrent": row(last=2.4), "no_mesh": row(last=16)}
    it.check(not shaped.misses({**row(), **rivals_rows}), "a good run")
    it.check("size/rate" in shaped.misses({**row(last=1.26), **rivals_rows})[0], "a late last node")
    it.check("copies" in shaped.misses({**row(origin=1.11), **rivals_rows})[0], "too much from the registry")
    for name in rivals_rows:
        it.check(shaped.misses({**row(), **rivals_rows, name: row(last=1.1)}) == [f"slower than {name}"], f"slower than {name}")


def test_torrent_and_tracker():
    it.check(rivals.bencode({"b": 1, "a": {"x": b"y"}}) == b"d1:ad1:x1:ye1:bi1ee", "keys in order")
    with Lab(1) as lab:
        payload = lab.dir / "payload"
        payload.write_bytes(os.urandom(100_000))
        text = rivals.make_torrent(payload, 65536, "http://t/announce")
        pieces = b"".join(hashlib.sha1(payload.read_bytes()[at:at + 65536]).digest() for at in (0, 65536))
        it.check(b"6:pieces40:" + pieces in text and b"6:lengthi100000e" in text, "the torrent's pieces")
        with Tracker(lab.origin_ns, lab.origin_address, 6969) as tracker:
            def announce(port, event=""):
                url = f"http://{lab.origin_address}:6969/announce?port={port}&event={event}"
                with inside(lab.nodes[0].netns):
                    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).read()
            it.check(announce(1000).endswith(b"5:peers0:e"), "the first is alone")
            it.check(b"5:peers6:" in announce(1001), "the second hears of the first")
            it.check(tracker.known() == 2, "two are known")
            announce(1000, "stopped")
            it.check(tracker.known() == 1, "who stops is forgotten")


def test_a_race_ends_when_a_runner_fails():
    with Lab(2, 1, 100) as lab:
        good = "import time; print('ready', flush=True); input(); time.sleep(0.1); print('done', time.monotonic(), flush=True)"
        fates = {"failed WHY": "print('ready', flush=True); input(); print('failed WHY', flush=True)",
                 "ended without a word": "print('ready', flush=True); input()",
                 "still running": "import time; print('ready', flush=True); input(); time.sleep(60)"}
        for fate, script in fates.items():
            runners = {node: race.Runner(lab, [*node.exec(), sys.executable, "-c", text], lab.dir / "log")
                       for node, text in zip(lab.nodes, (good, script))}
            try:
                race.race(lab, runners, 1000, 2)
            except RuntimeError as error:
                it.check(fate.removeprefix("failed ") in str(error), str(error))
                continue
            raise AssertionError(f"a race with one that {fate} passed")
        both = {node: race.Runner(lab, [*node.exec(), sys.executable, "-c", good], lab.dir / "log") for node in lab.nodes}
        with contextlib.redirect_stdout(io.StringIO()):
            result = race.race(lab, both, 1000, 5)
        it.check(result["nodes"] == 2 and 0.1 <= result["last_s"] < 5, str(result))


def test_the_simulation_starts_as_the_clients_did():
    with Lab(1) as lab:
        image = {"config": {"size": 500}, "layers": [{"size": 4 << 20}] * 4}
        shape = types.SimpleNamespace(nodes=2, mbit=100, mib=16, lab=lab, image=image)
        links = {"share": 0.9, "idle_delay_s": 0.0001, "full_delay_s": 0.0301, "first_byte_s": 0.004}
        lasts = []
        for begins in (0.02, 2.02):
            real = {"per_node": [{"manifest_s": begins}, {"manifest_s": begins + 0.5}]}
            model, keys = calibrate.simulated(shape, links, real, 2)
            lasts.append(model["last_s"])
            it.check(keys["nic.up"] == "90000kbit/s" and keys["latency.queue"] == "15000us", str(keys))
            it.check(keys["image.layers"] == "500B" + ",4194304B" * 4, str(keys))
        bound = (16 << 20) * 8 / 90e6
        it.check(bound + 0.02 < lasts[0] < 2 * bound, f"last node after {lasts[0]} s")
        it.check(abs(lasts[1] - lasts[0] - 2) < 0.01, f"clients that begin 2 s later end 2 s later: {lasts}")


def test_what_agrees():
    agreed = {"valid": True, "agrees": True}
    it.check(calibrate.verdict(agreed) == "ok", "ok")
    it.check("NOT" in calibrate.verdict({**agreed, "agrees": False}), "not agreed")
    it.check("REFUSED" in calibrate.verdict({"valid": False, "agrees": True}), "a busy machine agrees with nothing")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
