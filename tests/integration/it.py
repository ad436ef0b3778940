#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runner of integration tests: every test_* function of a module, bounded in time, with a closing count. After each one the labs that it
took down are searched for secrets (marks.py)."""
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "bench"))

import marks  # noqa: E402: found only with the path above
from lab import Lab, inside  # noqa: E402

Lab.defaults = marks.settings
Lab.before_end.append(marks.sweep_living)
Lab.at_end.append(marks.sweep_files)


class Timeout(Exception):
    pass


def _alarm(*_):
    raise Timeout("the test took too long")


def _terminated(*_):
    """As an exception, so that a stopped run takes down its namespaces and processes, too."""
    sys.exit("stopped by a signal")


def need_root():
    """Network namespaces need root: without it the module says so and fails, never passes unseen."""
    if os.geteuid() != 0:
        sys.exit("integration tests need root for network namespaces")


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def figure(text: str):
    print(f"    figure: {text}", flush=True)


def connect(node, port: int, seconds=15.0) -> socket.socket:
    """A TCP connection inside a node's namespace: a socket stays in the one it was made in."""
    with inside(node.netns):
        return socket.create_connection(("127.0.0.1", port), timeout=seconds)


def main(module: dict, seconds=300) -> int:
    need_root()
    wanted = sys.argv[1:]
    signal.signal(signal.SIGALRM, _alarm)
    signal.signal(signal.SIGTERM, _terminated)
    passed = failed = 0
    name = Path(module["__file__"]).stem
    for test, function in list(module.items()):
        if not test.startswith("test_") or not callable(function) or (wanted and test not in wanted):
            continue
        started = time.monotonic()
        signal.alarm(seconds)
        try:
            function()
            hits = marks.take_hits()
            check(not hits, "HRD-4: " + "\n    ".join(hits[:20]))
            passed += 1
            print(f"  ok    {name}.{test} ({time.monotonic() - started:.1f} s)", flush=True)
        except Exception as error:  # noqa: BLE001: every failure is reported, none ends the run
            failed += 1
            print(f"  FAIL  {name}.{test}: {error}", flush=True)
            if not isinstance(error, AssertionError):
                traceback.print_exc()
        finally:
            signal.alarm(0)
            marks.take_hits()  # of a test that failed for another reason
    if marks.given() and passed:
        figure(marks.summary())
    print(f"{name}: {passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0
