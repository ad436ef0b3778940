#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A real browser for tests of pages: headless Chromium over its DevTools pipe. Used by sim_report.py and page.py."""
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from it import check

DESKTOP = (1280, 900)
PHONE = (390, 844)


class Skip(Exception):
    pass


def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        path = shutil.which(name)
        if path:
            return path
    raise Skip("no Chromium on this machine (Debian: apt-get install chromium)")


class Browser:
    """Headless Chromium, spoken to over its DevTools pipe (descriptors 3 and 4): in a network namespace of its own, without a
    network, or in `netns`, where it may ask what begins with `allowed` alone."""

    def __init__(self, netns: str | None = None, allowed: tuple[str, ...] = ()):
        self.allowed = ("file:", "data:", *allowed)
        self.profile = tempfile.mkdtemp(prefix="shoal-chromium-")
        to_browser, self.write_fd = os.pipe()
        self.read_fd, from_browser = os.pipe()
        command = ["ip", "netns", "exec", netns] if netns else ["unshare", "--net"] if os.geteuid() == 0 else []
        command += [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                    "--disable-background-networking", f"--user-data-dir={self.profile}", "--remote-debugging-pipe", "about:blank"]
        # Descriptors 3 and 4 of the browser, whatever ours are called.
        script = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'
        self.process = subprocess.Popen(["bash", "-c", script, "bash", *command], pass_fds=(to_browser, from_browser),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.number, self.problems, self.loaded, self.session = b"", 0, [], False, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _message(self) -> dict:
        while b"\0" not in self.buffer:
            part = os.read(self.read_fd, 1 << 20)
            check(part, "the browser went away")
            self.buffer += part
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def _event(self, message: dict):
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            self.problems.append(f"exception: {params['exceptionDetails'].get('text')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(f"console: {params['args']}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"log: {params['entry']['text']}")
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(self.allowed):
            self.problems.append(f"asked the network for {params['request']['url']}")

    def call(self, method: str, **params) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_fd, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self.number:
                check("error" not in answer, f"{method}: {answer.get('error')}")
                return answer["result"]
            self._event(answer)

    def open(self, page: Path | str, size=DESKTOP, dark=False):
        self.problems, self.loaded = [], False
        self.call("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=size == PHONE)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not self.loaded:
            self._event(self._message())

    def wait(self, condition: str, seconds=15.0):
        """Until a condition in the page's own language holds."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            check(time.monotonic() < end, f"in {seconds} s it never held: {condition}; {self.problems}")
            time.sleep(0.05)

    def run(self, script: str):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        check("exceptionDetails" not in answer, f"{script}: {answer}")
        return answer["result"].get("value")

    def screenshot(self, path: Path, whole=True):
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))
        check(path.stat().st_size > 10000, f"{path} is nearly empty")

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        os.close(self.write_fd)
        os.close(self.read_fd)
        shutil.rmtree(self.profile, ignore_errors=True)
