#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 in mid-pull and restart: what was on disk is verified and used again; a full cache does not delay the start (D-7, DSK-1)."""
import subprocess
import sys
import time

import it
from lab import ROOT, Lab
from race import Pull

PIECES = 100_000
READY_S_MAX = 2.0


def test_restart_in_mid_pull():
    with Lab(1, 1, 200) as lab:
        lab.start_registry()
        size = 96 << 20
        image = lab.push_image("lib/app", [size])
        node = lab.nodes[0]
        node.start()
        pull = Pull(node, "lib/app", image)
        pull.start()
        time.sleep(size * 8 / 200e6 / 2)
        node.process.kill()
        pull.join(timeout=30)
        it.check(pull.error is not None, "the pull ended before the kill: the test shows nothing")
        node.start()
        kept = node.status()["cache"]["bytes"]
        it.check(kept > size // 8, f"only {kept} bytes survived")
        node.count_sources()
        again = Pull(node, "lib/app", image)
        again.start()
        again.join(timeout=60)
        it.check(again.error is None, f"second pull: {again.error}")
        origin = node.sources()["origin_bytes"]
        it.check(origin < (size - kept) * 1.1 + (2 << 20), f"{origin} bytes read again, {size - kept} were missing")
        it.figure(f"killed in mid-pull: {kept >> 20} of {size >> 20} MiB kept, {origin >> 20} MiB read again")


def test_damaged_cache_is_never_served():
    with Lab(1) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", [24 << 20])
        node = lab.nodes[0]
        node.start()
        first = Pull(node, "lib/app", image)
        first.start()
        first.join(timeout=60)
        it.check(first.error is None, f"first pull: {first.error}")
        node.process.kill()
        files = [p for p in (node.dir / "data" / "cache").rglob("*") if p.is_file() and p.stat().st_size > (1 << 20)]
        it.check(len(files) > 0, "no data files in the cache")
        for path in files:
            with open(path, "r+b") as file:
                for offset in range(100_000, path.stat().st_size, 3 << 20):
                    file.seek(offset)
                    byte = file.read(1)
                    file.seek(offset)
                    file.write(bytes([byte[0] ^ 0xFF]))
        node.start()
        again = Pull(node, "lib/app", image)
        again.start()
        again.join(timeout=60)
        it.check(again.error is None, f"pull from a damaged cache: {again.error}")
        it.check(node.metric("shoal_cache_corrupt_total") > 0, "the damage was not noticed")


def test_start_with_a_full_cache():
    with Lab(1) as lab:
        lab.start_registry()
        node = lab.nodes[0]
        node.start()
        node.process.stop()
        cache = node.dir / "data" / "cache"
        subprocess.run([str(ROOT / "build" / "tests" / "integration" / "fill_cache"), str(cache), str(PIECES)], check=True)
        started = time.monotonic()
        node.start({"cache.capacity": "1TiB", "cache.reserve": "1MiB"})
        ready = time.monotonic() - started
        pieces = node.status()["cache"]["pieces"]
        it.check(pieces == PIECES, f"{pieces} pieces recovered")
        it.figure(f"ready in {ready:.2f} s with {pieces} cached pieces")
        it.check(ready <= READY_S_MAX, f"ready after {ready:.2f} s")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
