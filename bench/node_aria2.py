#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One node of an aria2 swarm, as race.py runs it: aria2c with the torrent loaded and paused, let go by its RPC.

It uploads until our input is closed. Finished is when aria2 itself says so: all pieces there and hashed.
"""
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

RPC = "http://127.0.0.1:6800/jsonrpc"
START_S_MAX = 30

# Tuned for a swarm of few nodes that all want to end soon: everybody may be everybody's peer, nothing but the tracker
# finds them, no file is laid out beforehand, and nobody stops to seed.
OPTIONS = ["--no-conf", "--enable-rpc", "--rpc-listen-port=6800", "--enable-dht=false", "--enable-dht6=false", "--disable-ipv6",
           "--bt-enable-lpd=false", "--bt-max-peers=0", "--seed-ratio=0.0", "--file-allocation=none", "--listen-port=6881",
           "--allow-overwrite=true", "--auto-file-renaming=false", "--bt-request-peer-speed-limit=1000M", "--summary-interval=0",
           "--console-log-level=warn", "--show-console-readout=false", "--follow-torrent=mem", "--disk-cache=64M"]


def call(method: str, *parameters):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": f"aria2.{method}", "params": parameters}).encode()
    with urllib.request.urlopen(urllib.request.Request(RPC, body, {"Content-Type": "application/json"}), timeout=5) as answer:
        return json.load(answer)["result"]


def wait_for(process: subprocess.Popen, seeds: bool):
    """Until the torrent is loaded: paused, or seeding."""
    end = time.monotonic() + START_S_MAX
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"aria2c: exit {process.returncode}")
        try:
            rows = call("tellActive") if seeds else call("tellWaiting", 0, 1)
            if rows and (not seeds or rows[0].get("seeder") == "true"):
                return
        except (urllib.error.URLError, OSError, KeyError):
            pass
        time.sleep(0.05)
    raise RuntimeError("aria2c did not load the torrent")


def main() -> int:
    job = json.loads(sys.argv[1])
    here = Path(job["dir"])
    fifo, hook = here / "finished", here / "finished.sh"
    os.mkfifo(fifo)
    hook.write_text(f"#!/bin/sh\necho >{fifo}\n")
    hook.chmod(0o755)
    role = ["--bt-seed-unverified=true"] if job["seeds"] else ["--pause=true", f"--on-bt-download-complete={hook}"]
    process = subprocess.Popen(["aria2c", *OPTIONS, *role, f"--dir={here}", f"--stop-with-process={os.getpid()}", job["torrent"]],
                               stdin=subprocess.DEVNULL, stdout=sys.stderr)
    try:
        wait_for(process, job["seeds"])
        print("ready", flush=True)
        if sys.stdin.readline() == "go\n":
            call("unpauseAll")
            with open(fifo) as finished:
                finished.readline()
            print(f"done {time.monotonic():.6f}", flush=True)
            sys.stdin.readline()
    except (RuntimeError, OSError) as error:
        print(f"failed {error}", flush=True)
        return 1
    finally:
        process.kill()
        process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
