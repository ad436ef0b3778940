#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Measured figures beside their baselines; see bench.py --help.
cd "$(dirname "$0")/.." && exec /usr/bin/python3 bench/bench.py "$@"
