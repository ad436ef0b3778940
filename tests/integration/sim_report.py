#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The simulator's pages in a real browser, without a network: no console errors, every plot has marks, nothing is wider than
a phone, dark mode is dark, hover reads out. Leaves screenshots in build/sim_report/ for people to look at.

Needs Chromium (Debian: chromium). Where there is none the browser tests are counted as skipped, never as passed.
"""
import csv
import io
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

from browser import DESKTOP, PHONE, Browser, Skip, chromium
from it import check

ROOT = Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "build" / "sim_report"
SIM = ROOT / "build" / "shoal-sim"
SCENARIO = """\
description: Two layers for 24 nodes in three zones
nodes: 24
zones: 3
nic: {up: 1Gbit/s}
origin: {rate: 2Gbit/s}
image: {layers: [24MiB, 40MiB]}
arrivals: {kind: crowd, within: 500ms}
"""
PLOTS = ["times", "completion", "throughput", "sums", "uploads", "swarm", "control", "crowd"]
SWEEP_PLOTS = ["last", "origin", "cross", "gain"]


_browser = None


def browser() -> Browser:
    global _browser
    chromium()
    if _browser is None:
        _browser = Browser()
    return _browser


def run_scenario() -> dict:
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "scenario.yaml").write_text(SCENARIO)
    done = subprocess.run([SIM, "run", OUT / "scenario.yaml", "--json", "--html", OUT / "cli.html", "--csv", OUT / "cli.csv"],
                          capture_output=True, text=True, timeout=120)
    check(done.returncode == 0, f"shoal-sim run ends with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def made_pages():
    """Pages of the test program: hostile strings, sweeps, a run in which nothing was pulled."""
    program = ROOT / "build" / "tests" / "sim" / "sim_report"
    OUT.mkdir(parents=True, exist_ok=True)
    subprocess.run(["make", "--no-print-directory", str(program.relative_to(ROOT))], cwd=ROOT, check=True, capture_output=True, timeout=280)
    done = subprocess.run([program], cwd=ROOT, env={**os.environ, "SIM_REPORT_DIR": str(OUT)}, capture_output=True, text=True, timeout=120)
    check(done.returncode == 0, f"{program.name}: {done.stderr[-500:]}")


def marks(plots: list[str]) -> dict:
    """Marks inside each plot that are really there: with a size on the screen, and inside the plot."""
    script = """(() => { const out = {}; for (const id of %s) {
        const svg = document.querySelector(`#${id} svg.plot`); if (!svg) { out[id] = -1; continue; }
        const frame = svg.getBoundingClientRect(); out[id] = 0;
        for (const mark of svg.querySelectorAll('.mark')) { const box = mark.getBoundingClientRect();
            if (box.width + box.height > 1 && box.left >= frame.left - 2 && box.right <= frame.right + 2 && box.top >= frame.top - 2
                && box.bottom <= frame.bottom + 2) out[id]++; } } return out; })()"""
    return browser().run(script % json.dumps(plots))


def check_page(page: Path, plots: list[str]):
    browser().open(page)
    check(browser().problems == [], f"{page.name}: {browser().problems}")
    empty = [plot for plot, count in marks(plots).items() if count < 1]
    check(not empty, f"{page.name}: no marks in {empty}")
    titles = browser().run("[...document.querySelectorAll('svg.plot')].every((s) => s.querySelector('title').textContent.length > 3 && "
                           "s.getAttribute('aria-labelledby').split(' ').every((id) => document.getElementById(id)))")
    check(titles, f"{page.name}: a plot without an accessible title")
    wide = browser().run("document.documentElement.scrollWidth")
    check(wide <= DESKTOP[0], f"{page.name} is {wide} wide at {DESKTOP[0]}")


def test_json_and_csv_agree():
    figures = run_scenario()
    for key in ("bound_s", "completion", "ratio", "origin_copies", "trace_hash", "rss_mib", "events_per_cpu_s"):
        check(key in figures, f"no {key} in the JSON object")
    rows = list(csv.DictReader(io.StringIO((OUT / "cli.csv").read_text())))
    check(len(rows) == 24, f"{len(rows)} lines for 24 nodes")
    last = max(float(row["completion_s"]) for row in rows)
    check(abs(last - figures["completion"]["last_s"]) < 0.002, f"last node {last} in CSV, {figures['completion']['last_s']} in JSON")
    origin = sum(int(row["from_origin_bytes"]) for row in rows)
    check(abs(origin - figures["origin_bytes"]) <= 0.02 * figures["origin_bytes"], f"origin {origin} and {figures['origin_bytes']}")


def test_the_run_page_is_whole():
    figures = run_scenario()
    check_page(OUT / "cli.html", PLOTS)
    text = browser().run("document.body.innerText")
    for part in ("24 nodes have the 64 MiB image", "origin.rate", "2Gbit/s", "shoal-sim run", figures["trace_hash"]):
        check(part in text, f"'{part}' is not on the page")
    browser().screenshot(OUT / "run-1280x900.png", whole=False)
    browser().screenshot(OUT / "run.png")


def test_dark_is_dark():
    run_scenario()
    colours = []
    for dark in (False, True):
        browser().open(OUT / "cli.html", dark=dark)
        colours.append(browser().run("getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(int(part) for part in colour[4:-1].split(",")) for colour in colours)
    check(light > 3 * 200 and dark < 3 * 60, f"light {colours[0]}, dark {colours[1]}")
    browser().screenshot(OUT / "run-dark.png")


def test_a_phone_shows_it():
    run_scenario()
    browser().open(OUT / "cli.html", size=PHONE)
    wide = browser().run("document.documentElement.scrollWidth")
    check(wide <= PHONE[0], f"{wide} wide on a phone of {PHONE[0]}")
    small = browser().run("(() => { const svg = document.querySelector('svg.plot'); const scale = svg.getBoundingClientRect().width / "
                          "svg.viewBox.baseVal.width; return Math.min(...[...document.querySelectorAll('svg text')].map((t) => "
                          "parseFloat(getComputedStyle(t).fontSize) * scale)); })()")
    check(small >= 9.5, f"letters of {small:.1f} px on a phone")
    browser().screenshot(OUT / "run-phone.png")
    browser().run("scrollTo(0, 700)")
    browser().screenshot(OUT / "run-phone-plots.png", whole=False)


def test_hover_reads_out():
    run_scenario()
    browser().open(OUT / "cli.html")
    for plot in ("completion", "throughput", "sums", "uploads", "control", "crowd"):
        script = """(() => { const svg = document.querySelector('#%s svg.plot'); svg.scrollIntoView({block: 'center'});
            const box = svg.getBoundingClientRect(); return [box.left + box.width * 0.6, box.top + box.height * 0.5]; })()"""
        x, y = browser().run(script % plot)
        browser().call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        time.sleep(0.05)
        text = browser().run(f"document.querySelector('#{plot} .tip')?.innerText ?? ''")
        check(len(text.splitlines()) >= 2, f"{plot}: hover says '{text}'")
    check(browser().problems == [], str(browser().problems))
    browser().screenshot(OUT / "run-hover.png", whole=False)


def test_the_page_is_whole_without_its_script():
    run_scenario()
    browser().call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser().open(OUT / "cli.html")
        check_marks = marks(PLOTS)
    finally:
        browser().call("Emulation.setScriptExecutionDisabled", value=False)
    check(min(check_marks.values()) >= 1, f"without script: {check_marks}")


def test_hostile_strings_stay_text():
    made_pages()
    check_page(OUT / "hostile.html", ["times", "completion", "throughput"])
    check(browser().run("document.querySelectorAll('script').length") == 1, "a string became a script")
    check("<script>alert(1)</script>" in browser().run("document.querySelector('pre').innerText"), "the string is not shown as it is")


def test_sweep_pages_are_whole():
    made_pages()
    for name in ("plan-one-key", "plan-two-keys", "plan-words"):
        check_page(OUT / f"{name}.html", SWEEP_PLOTS)
        browser().screenshot(OUT / f"{name}.png")
    browser().open(OUT / "plan-two-keys.html", size=PHONE)
    wide = browser().run("document.documentElement.scrollWidth")
    check(wide <= PHONE[0], f"the sweep is {wide} wide on a phone")


def test_an_empty_run_has_a_page():
    made_pages()
    browser().open(OUT / "empty.html")
    check(browser().problems == [], str(browser().problems))


def main() -> int:
    passed = failed = skipped = 0
    wanted = sys.argv[1:]
    for name, test in [(n, t) for n, t in globals().items() if n.startswith("test_") and (not wanted or n in wanted)]:
        started = time.monotonic()
        try:
            test()
            passed += 1
            print(f"  ok    sim_report.{name} ({time.monotonic() - started:.1f} s)", flush=True)
        except Skip as reason:
            skipped += 1
            print(f"  SKIPPED, NOT TESTED  sim_report.{name}: {reason}", flush=True)
        except Exception as error:  # noqa: BLE001: every failure is reported, none ends the run
            failed += 1
            print(f"  FAIL  sim_report.{name}: {error}", flush=True)
            if not isinstance(error, AssertionError):
                traceback.print_exc()
    if _browser is not None:
        _browser.close()
    print(f"sim_report: {passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
