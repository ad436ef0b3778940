#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Never worse than no agent (HTTP-6, N-7, P-1; SECURITY 5): pulls beside the same ones straight from the registry, the mesh in each state.

The short form of bench/worse.py, with its bounds: time to first byte at most 50 ms later (p50) and 250 ms (p99), the whole pull at
most 5 % and 0.5 s longer.
"""
import sys

import it
import worse

PULLS, LARGE = 110, 2


def never_worse(*wanted: str):
    for state in wanted:
        result, = worse.states(rounds=1, small=PULLS, large=LARGE, wanted=[state])
        it.figure(worse.text_of(result))
        it.check(not result["misses"], f"{state}: {'; '.join(result['misses'])}")


def test_n_7_without_a_mesh():
    never_worse("no mesh", "nobody at the bootstrap addresses")


def test_http_6_peers_lack_the_blob():
    never_worse("peers lack the blob")


def test_p_1_peers_killed():
    never_worse("peers killed")


def test_p_1_peers_frozen():
    never_worse("peers frozen")


def test_http_6_mesh_black_holed():
    never_worse("mesh port black-holed")


def test_total_of_a_whole_image():
    """What 5 % are can be seen: 288 MiB in three layers by a real client, everything as it ships."""
    for state in ("mesh port black-holed", "peers killed"):
        direct, through = worse.whole_image(state, [96 << 20] * 3)
        it.figure(f"{state}: 288 MiB by skopeo {through:.2f} s, direct {direct:.2f} s, ratio {through / direct:.3f}")
        it.check(direct > 5, f"too quick to show anything: {direct:.2f} s")
        it.check(through <= (1 + worse.TOTAL_SHARE) * direct + worse.TOTAL_S, f"{state}: {through:.2f} s, direct {direct:.2f} s")


if __name__ == "__main__":
    sys.exit(it.main(globals(), seconds=90))
