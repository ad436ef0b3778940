#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What people see on a terminal: `status --watch` draws over itself, `pull` shows bars that grow, both end by Ctrl-C."""
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import it
from lab import REGISTRY_NAME, SHOAL, Lab

REDRAW = "\x1b[H\x1b[J"


class Terminal:
    """A command on a node, with a terminal of its own as its standard output."""

    def __init__(self, node, *words):
        master, slave = pty.openpty()
        self.process = subprocess.Popen(node.exec(SHOAL, *words, "--config", node.dir / "shoal.yaml"), stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        node.lab.processes.insert(0, self)
        os.close(slave)
        self.master, self.text = master, ""

    def read(self, enough, seconds=20.0):
        """Until enough(text), or it ended."""
        end = time.monotonic() + seconds
        while not enough(self.text):
            it.check(time.monotonic() < end, f"not seen in {seconds} s: {self.text[-1500:]!r}")
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace")
                except OSError:  # the other side is closed
                    break
            elif self.process.poll() is not None:
                break
        return self.text

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)


def test_watch_and_bars():
    with Lab(2, mbit=100) as lab:
        lab.start_registry()
        image = lab.push_image("lib/app", [24 << 20, 6 << 20])
        lab.start_nodes()
        lab.wait_members()
        node = lab.nodes[0]
        watch = Terminal(node, "status", "--watch")
        watch.read(lambda text: text.count(REDRAW) >= 2)
        it.check("alive" in watch.text.split(REDRAW)[1], f"{watch.text!r}")

        pull = Terminal(node, "pull", f"{REGISTRY_NAME}/lib/app:1")
        pull.read(lambda text: False)  # to its end
        it.check(pull.process.wait(10) == 0, f"{pull.text[-1500:]!r}")
        drawn = re.split(r"\x1b\[\d+A\x1b\[J", pull.text)
        shares = [line.count("#") for each in drawn for line in each.splitlines() if line.strip().startswith("all")]
        it.check(len(drawn) >= 3 and shares == sorted(shares) and shares[0] < shares[-1], f"bars that do not grow: {shares} {drawn[-1]!r}")
        digests = [layer["digest"][7:15] for layer in image["layers"]]
        it.check(all(digest in pull.text for digest in digests), f"{digests}: {pull.text!r}")
        it.figure(f"bars drawn {len(drawn)} times; at the end: {drawn[-1].splitlines()[-2].strip()}")

        watch.read(lambda text: "swarm" in text.split(REDRAW)[-1] or "30" in text.split(REDRAW)[-1])
        watch.process.send_signal(signal.SIGINT)
        it.check(watch.process.wait(10) == 0, "Ctrl-C is no error of --watch")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
