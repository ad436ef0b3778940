#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The demo of the README; see demo.py --help.
cd "$(dirname "$0")/.." && exec /usr/bin/python3 bench/demo.py "$@"
