#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Never worse than no agent (HTTP-6, N-7, P-1; SECURITY 5): pulls beside the same ones straight from the registry, the mesh in each state.

The short form of bench/worse.py, with its bounds: time to first byte at most 50 ms later (p50) and 250 ms (p99), the whole pull at
most 5 % and 0.5 s longer. A state that misses is measured once more: p99 of 40 pulls is the slowest one, and other load makes it.
"""
import sys

import it
import worse

PULLS, LARGE, ATTEMPTS = 40, 2, 2


def never_worse(*wanted: str):
    for state in wanted:
        for _ in range(ATTEMPTS):
            result, = worse.states(rounds=1, small=PULLS, large=LARGE, wanted=[state])
            it.figure(worse.text_of(result))
            if not result["misses"]:
                break
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


if __name__ == "__main__":
    sys.exit(it.main(globals(), seconds=90))
