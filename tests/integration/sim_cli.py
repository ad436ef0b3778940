#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""shoal-sim from the command line: every command, its exit codes, its JSON, its files, its errors."""
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from it import check, figure, main

SIM = Path("build/shoal-sim")
# DESIGN 6: keys that `run --json` prints at least.
KEYS = ("scenario seed nodes zones bytes bound_s completion ratio origin_copies cross_zone_copies control_fraction upload_skew "
        "pulls_failed wrong_bytes no_mesh events wall_s rss_mib trace_hash").split()


def sim(*words, code=0, cwd=None, seconds=120):
    run = subprocess.run([str(SIM.resolve()), *words], capture_output=True, text=True, timeout=seconds, cwd=cwd)
    check(run.returncode == code, f"{' '.join(words)}: exit {run.returncode}, wanted {code}: {run.stderr[-300:]}")
    return run


def refused(text, *words):
    run = sim(*words, code=2)
    check(text in run.stderr, f"{' '.join(words)}: {run.stderr!r} lacks {text!r}")
    check(run.stdout == "", f"{' '.join(words)} printed {run.stdout[:80]!r}")
    check(run.stderr.count("\n") == 1, f"not one line: {run.stderr!r}")


def test_usage_and_exit_codes():
    check("usage:" in sim("--help").stdout, "no usage")
    for command in ("run", "plan", "faults", "example", "list"):
        check(f"usage: shoal-sim {command}" in sim(command, "--help").stdout, f"{command} --help")
    check("unknown command 'fly'" in sim("fly", code=2).stderr, "unknown command")
    sim(code=2)
    refused("takes a whole number", "run", "--nodes", "many")
    refused("takes a whole number", "run", "--nodes")
    refused("unknown option --node", "run", "--node", "3")
    refused("--set takes KEY=VALUE", "run", "--set")
    refused("no such file and no shipped scenario", "run", "nothing-such")
    refused("the scenario is", "run", "acr-300", "flash-5000")
    refused("--set nodes=0: nodes: \"0\" is not allowed; allowed: 1..16384", "run", "--set", "nodes=0")
    refused("did you mean \"nodes\"", "plan", "--sweep", "node=1,2")
    refused("write --sweep KEY=A,B,C", "plan", "--sweep", "nodes")
    refused("is no key with a number that matters", "plan", "--find", "seed", "--target-time", "5s")
    refused("is no key with a number that matters", "plan", "--find", "checks.p99", "--target-time", "5s")
    refused("--target-time: \"5\" is not allowed; allowed: 1ms..24h", "plan", "--find", "nic.up", "--target-time", "5")
    refused("--to: \"fast\" is not allowed; allowed: 8kbit/s..", "plan", "--find", "nic.up", "--target-time", "5s", "--to", "fast")
    refused("is swept twice", "plan", "--sweep", "nodes=1", "--sweep", "nodes=2")
    refused("needs either --target-time", "plan", "--find", "origin.rate")
    refused("is no key with a number", "plan", "--find", "copies", "--target-time", "5s")
    refused("no such metric", "plan", "--find", "origin.rate", "--target", "speed<=5")
    refused("swept and searched", "plan", "--sweep", "nodes=3", "--find", "nodes", "--target-time", "5s")
    refused("more than 4096 combinations", "plan", *[w for k in ("nodes", "seed", "vswitches")
                                                     for w in ("--sweep", f"{k}={','.join(map(str, range(1, 18)))}")])
    refused("nodes: \"0\" is not allowed", "plan", "--sweep", "nodes=4,0")
    refused("--seeds takes a whole number", "faults", "--seeds", "0")
    refused("unknown option", "faults", "--nodes", "3")


def test_a_file_is_refused_by_line():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.yaml"
        path.write_text("nodes: 10\nnic:\n  up: 10\n")
        refused(f"{path}:3: nic.up: \"10\" is not allowed", "run", str(path))
        path.write_text("seed: 1\nnodes: {3\n")
        refused("not valid YAML: did not find expected", "run", str(path))
        path.write_text("faults:\n- {kind: kill, at: 2s}\n- {at: 2s}\n")
        refused(f"{path}:3: faults.kind: is missing", "run", str(path))
        path.write_text("image: {manifest: m.json}\n")
        refused(f"{path}:1: image.manifest: {folder}/m.json: cannot be read: not found", "run", str(path))


def test_run_prints_the_contract():
    run = json.loads(sim("run", "--nodes", "12", "--zones", "3", "--mib", "32", "--layers", "2").stdout)
    for key in KEYS:
        check(key in run, f"no {key}")
    for key in ("p50_s", "p90_s", "p99_s", "p999_s", "last_s"):
        check(run["completion"][key] > 0, key)
    for key in ("p50", "p99", "p999", "last"):
        check(run["ratio"][key] >= 1, key)
    check((run["nodes"], run["zones"], run["bytes"], run["scenario"]) == (12, 3, 32 << 20, "run"), "not what was asked for")
    check(run["wrong_bytes"] == 0 and run["pulls_failed"] == 0, "bad pulls")


def test_each_image_has_its_object():
    run = json.loads(sim("run", "--nodes", "6", "--set", 'images=[{name: "a\\"b", layers: [4MiB]}, {layers: [8MiB], at: 3s}]').stdout)
    check([(i["name"], i["clients"], i["bytes"]) for i in run["images"]] == [('a"b', 6, 4 << 20), ("1", 6, 8 << 20)], str(run["images"]))
    check(run["per_client"]["clients"] == 12 and run["per_client"]["failed"] == 0, str(run["per_client"]))
    for image in run["images"]:
        check(0 < image["completion"]["p50_s"] <= image["completion"]["last_s"] < 3, str(image))
    check(sum(i["origin_bytes"] for i in run["images"]) == run["origin_bytes"], "bytes by image")
    one = json.loads(sim("run", "--nodes", "4", "--mib", "4").stdout)
    check("images" not in one and one["per_client"]["clients"] == 4, "one image")


def test_flags_and_keys_are_the_same_run():
    flags = json.loads(sim("run", "--nodes", "8", "--mbit", "200", "--mib", "16", "--arrival-ms", "500").stdout)
    keys = json.loads(sim("run", "--set", "nodes=8", "--set", "nic.up=200Mbit/s", "--set", "image.layers=16MiB",
                          "--set", "arrivals.within=0.5s").stdout)
    check(flags["trace_hash"] == keys["trace_hash"], "different runs")


def test_the_example_changes_nothing():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example.yaml"
        path.write_text(sim("example").stdout)
        example = json.loads(sim("run", str(path), "--nodes", "5").stdout)
        plain = json.loads(sim("run", "--nodes", "5").stdout)
        check(example["trace_hash"] == plain["trace_hash"], "the example is not the defaults")


def test_shipped_scenarios_run_by_name_from_anywhere():
    names = re.findall(r"^  (\S+) +\d+ nodes", sim("list", cwd="/").stdout, re.M)
    check(names == ["acr-300", "churn-300", "flash-10000", "flash-5000", "jobs-40", "kraken-2600", "late-300", "model-300", "rolling-300",
                    "rollout-1000", "small-1000", "zone-copies-300"], str(names))
    for name in names:
        small = "arrivals.for=9s" if name == "jobs-40" else "image.layers=4MiB,1MiB"
        run = json.loads(sim("run", name, "--set", "nodes=9", "--set", small, "--json", cwd="/").stdout)
        check(run["scenario"] == name and run["nodes"] == 9 and run["per_client"]["failed"] == run["nodes_incomplete"], f"{name}: {run}")


def checked(name, *sets):
    """A shipped scenario, made smaller, with its own checks."""
    words = [word for value in sets for word in ("--set", value)]
    return json.loads(sim("run", name, *words, "--json", "--check").stdout)


def test_copies_per_zone_cross_no_border():
    run = checked("zone-copies-300", "nodes=90", "image.layers=256MiB")
    check(run["cross_zone_bytes"] == 0 and 2.9 < run["origin_copies"] <= 3.3, str(run))
    mesh = checked("zone-copies-300", "nodes=90", "image.layers=256MiB", "copies=mesh", "checks.crossZoneCopies=2.2",
                   "checks.originCopies=1.1")
    check(mesh["cross_zone_copies"] > 1.9, "zones were not supplied")


def test_rolling_updates_and_late_joiners_are_served_by_the_mesh():
    for name in ("rolling-300", "late-300"):
        run = checked(name, "nodes=60", "image.layers=64MiB,64MiB")
        check(run["nodes_incomplete"] == 0 and run["origin_copies"] <= 1.05, f"{name}: {run}")


def test_churn_is_held_against_the_run_without_it():
    run = checked("churn-300", "nodes=90")
    check(run["pulls_failed"] > 0, "nobody died")
    check(run["ratio"]["p99"] > 5, "no card was slow")
    faultless = run["faultless"]
    check(0.8 < faultless["p99_against"] <= 1.5 and faultless["origin_against"] <= 1.2, str(faultless))
    alone = json.loads(sim("run", "churn-300", "--set", "nodes=90", "--set",
                           "checks.p99AgainstFaultless=0", "--set", "checks.originAgainstFaultless=0", "--json").stdout)
    check("faultless" not in alone and alone["trace_hash"] == run["trace_hash"], "the comparison changed the run")
    broken = sim("run", "churn-300", "--set", "nodes=30", "--set", "image.layers=4MiB", "--set",
                 "checks.p99AgainstFaultless=0.5", "--check", code=1)
    check("check: faultless.p99_against is" in broken.stderr, broken.stderr)


def test_an_image_passes_through_a_smaller_cache():
    run = checked("model-300", "nodes=30", "image.layers=500MB,500MB", "cache.capacity=512MiB", "arrivals.within=200ms",
                  "checks.p50=1.5", "checks.p99=1.6", "checks.last=1.6")
    check(run["evicted_bytes"] > 30 * (1e9 - 513 * 2**20), "nothing was evicted")


def test_disk_for_a_hit_ratio_is_found():
    words = ("jobs-40", "--set", "nodes=6", "--set", "arrivals.for=2min", "--set", "arrivals.rate=0.5", "--mbit", "40000", "--quiet")
    plan = json.loads(sim("plan", *words, "--find", "cache.capacity", "--target", "hit_ratio>=0.3").stdout)
    ratios = [row["hit_ratio"] for row in plan["rows"]]
    check(plan["answers"][0].startswith("least cache.capacity for hit_ratio >= 0.3: "), plan["answers"][0])
    check(min(ratios) < 0.3 <= max(ratios), str(ratios))
    check(all(row["completion_of"] == "clients" for row in plan["rows"]), "whose times")
    figure(plan["answers"][0])


def test_every_key_and_column_is_explained():
    """docs/simulator-model.md names every member of the JSON and every column of the CSV files."""
    page = Path("docs/simulator-model.md").read_text()
    named = set(re.findall(r"`([a-z0-9_.]+)`", page))

    def keys(value):
        for key, inner in value.items() if isinstance(value, dict) else ():
            yield key
            yield from keys(inner)
            for element in inner if isinstance(inner, list) else ():
                yield from keys(element)
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{name}" for name in ("a.csv", "s.csv", "p.csv")]
        run = json.loads(sim("run", "churn-300", "--set", "nodes=9", "--set", "image.layers=1MiB", "--csv", files[0], "--series", files[1]).stdout)
        mix = json.loads(sim("run", "jobs-40", "--set", "nodes=5", "--set", "arrivals.for=9s").stdout)
        plan = json.loads(sim("plan", "--nodes", "3", "--mib", "1", "--csv", files[2]).stdout)
        for row in plan["rows"]:
            row["values"] = {}
        found = {*keys(run), *keys(mix), *keys(plan)}
        for path in files:
            found |= set(Path(path).read_text().splitlines()[0].split(","))
    missing = sorted(found - named)
    check(not missing, f"not explained: {missing}")
    check("faultless" in found and "images" in found and "rows" in found, "not all were looked at")


def test_costs_of_this_machine_are_keys():
    made = subprocess.run(["make", "-s", "costs"], capture_output=True, text=True, timeout=300)
    check(made.returncode == 0, made.stderr[-300:])
    words = made.stdout.strip().splitlines()[-1].split()
    costs = dict(word.removeprefix("cpu.").split("=") for word in words[1::2])
    check(set(costs) == {"receive", "serve", "verify", "store", "client", "message", "handshake"}, made.stdout)
    for key, text in costs.items():
        check(0 < float(re.match(r"[0-9]+", text)[0]) < 100000, f"{key}: {text}")
    run = json.loads(sim("run", "--nodes", "4", "--mib", "4", *words).stdout)
    check(run["pulls_failed"] == 0, str(run))


def test_files_are_written():
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a.html", "a.csv", "s.csv")]
        sim("run", "--nodes", "6", "--html", str(paths[0]), "--csv", str(paths[1]), "--series", str(paths[2]))
        check("<svg" in paths[0].read_text(), "no plots")
        check(paths[1].read_text().count("\n") == 7, "not a line per node")
        check(paths[2].read_text().startswith("end_s,"), "no series")
        check("cannot be written" in sim("run", "--html", f"{folder}/none/a.html", code=1).stderr, "unwritable")


def test_checks_decide_the_exit_code_when_asked():
    words = ["run", "--nodes", "4", "--mib", "4", "--set", "checks.last=1"]
    check("check: ratio.last is" in sim(*words).stderr, "not said")
    sim(*words, "--check", code=1)


def test_failed_pulls_are_told():
    sim("run", "--nodes", "2", "--mib", "64", "--mbit", "1", "--set", "run.limit=5s", code=1)


def test_plan_sweeps():
    plan = json.loads(sim("plan", "--mib", "8", "--sweep", "nodes=3,6", "--sweep", "copies=mesh,zone").stdout)
    check(plan["keys"] == ["nodes", "copies"], str(plan["keys"]))
    rows = [(row["values"]["nodes"], row["values"]["copies"]) for row in plan["rows"]]
    check(rows == [("3", "mesh"), ("3", "zone"), ("6", "mesh"), ("6", "zone")], str(rows))
    for row in plan["rows"]:
        alone = json.loads(sim("run", "--mib", "8", "--nodes", row["values"]["nodes"],
                               "--set", f"copies={row['values']['copies']}").stdout)
        check(alone["trace_hash"] == row["trace_hash"], "a run of a sweep differs from the same run alone")
    answers = " ".join(plan["answers"])
    for words in ("last node after", "bytes over zone borders per roll-out", "as fast as without the mesh"):
        check(words in answers, words)
    text = sim("plan", "--mib", "8", "--sweep", "image.layers=[1MiB, 2MiB],[3MiB]", "--text", "--jobs", "1").stdout
    check("[1MiB, 2MiB]" in text and "[3MiB]" in text, text)


def test_pieces_of_another_size():
    words = ("plan", "--nodes", "12", "--mib", "40", "--layers", "3", "--set", "checks.invariants=true", "--sweep")
    rows = json.loads(sim(*words, "image.pieceSize=0,128KiB,512KiB,1MiB,4MiB").stdout)["rows"]
    hashes = {row["values"]["image.pieceSize"]: row["trace_hash"] for row in rows}
    check(all(row["pulls_failed"] == 0 and row["wrong_bytes"] == 0 and row["origin_copies"] < 1.1 for row in rows), str(rows))
    check(len(set(hashes.values())) == 4, f"13 MiB are cut into 128 KiB by themselves; others differ: {hashes}")
    check(hashes["0"] == hashes["128KiB"], "the agents' own size")
    control = [row["control_fraction"] for row in rows[1:]]
    check(control == sorted(control, reverse=True), f"more pieces are more messages: {control}")


def test_plan_finds_the_least_that_suffices():
    plan = json.loads(sim("plan", "--nodes", "10", "--mib", "64", "--find", "origin.rate", "--target-time", "3s").stdout)
    rows = plan["rows"]
    good = [i for i, row in enumerate(rows) if row["completion"]["last_s"] <= 3]
    check(good and good[0] > 0, "no value on either side")
    check(good == list(range(good[0], len(rows))), "the sides are mixed")
    best = rows[good[0]]["values"]["origin.rate"]
    check(f": {best} (" in plan["answers"][0], f"{best}: {plan['answers'][0]}")

    def mbit(text):
        number, unit = re.match(r"([\d.]+)([kMG])bit/s", text).groups()
        return float(number) * {"k": 0.001, "M": 1, "G": 1000}[unit]
    near = mbit(best) / mbit(rows[good[0] - 1]["values"]["origin.rate"])
    check(near < 1.06, f"{near:.3f} between the neighbours")
    figure(f"{plan['answers'][0]}; {len(rows)} runs")


def test_plan_says_when_nothing_suffices():
    run = sim("plan", "--nodes", "4", "--mib", "64", "--mbit", "10", "--find", "origin.rate", "--target-time", "3s",
              "--to", "1Gbit/s", code=1)
    check("no value of origin.rate up to 1Gbit/s" in json.loads(run.stdout)["answers"][0], run.stdout)


def found(*words, code=0):
    """The first answer of a search, and the values it tried."""
    plan = json.loads(sim("plan", *words, code=code).stdout)
    return plan["answers"][0], [row["values"][plan["keys"][-1]] for row in plan["rows"]]


def test_plan_takes_a_scenario_as_it_is():
    plan = json.loads(sim("plan", "--nodes", "5", "--mib", "4", "--seed", "9").stdout)
    alone = json.loads(sim("run", "--nodes", "5", "--mib", "4", "--seed", "9").stdout)
    check([row["trace_hash"] for row in plan["rows"]] == [alone["trace_hash"]], str(plan["rows"]))
    check(any("over zone borders per roll-out" in answer for answer in plan["answers"]), str(plan["answers"]))


def test_plan_sees_which_way_a_key_leads():
    small = ("--nodes", "20", "--mib", "32")
    answer, _ = found(*small, "--find", "origin.rate", "--target", "gain>=4")
    check(answer.startswith("most origin.rate for gain >= 4"), answer)
    answer, _ = found(*small, "--find", "nodes", "--target", "gain>=2", "--to", "200")
    check(answer.startswith("least nodes for gain >= 2"), answer)
    answer, _ = found(*small, "--zones", "7", "--find", "nodes", "--target-time", "50ms", code=1)
    check(answer.startswith("no value of nodes from 7 to 20"), answer)
    answer, tried = found(*small, "--set", "arrivals.kind=poisson", "--find", "arrivals.rate", "--target-time", "10s", "--to", "30")
    check(answer.startswith("every value of arrivals.rate from ") and " to 30 meets" in answer, answer)
    answer, _ = found("--nodes", "6", "--mib", "32", "--find", "disk.write", "--target-time", "1s", "--jobs", "1")
    check(answer.startswith("least disk.write"), answer)


def test_plan_stops_where_nothing_changes():
    answer, tried = found("--nodes", "4", "--mib", "64", "--mbit", "10", "--find", "origin.rate", "--target-time", "3s", code=1)
    check("no other value changes it" in answer and len(tried) <= 3, f"{answer} {tried}")
    answer, tried = found("--nodes", "4", "--mib", "8", "--find", "cache.capacity", "--target", "hit_ratio>=0.5", code=1)
    check("no node pulls again what it had" in answer and len(tried) <= 3, f"{answer} {tried}")


def test_plan_shows_what_is_done_when_interrupted():
    words = [SIM, "plan", "--mib", "1", "--sweep", "nodes=2,3,4,5,2000", "--jobs", "1"]
    run = subprocess.Popen([*words, "--set", "run.warmFrom=0", "--set", "name=interrupted-plan"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    run.send_signal(signal.SIGINT)
    printed, said = run.communicate(timeout=20)
    check(run.returncode == 130, f"{run.returncode}: {said}")
    check([row["values"]["nodes"] for row in json.loads(printed)["rows"]] == ["2", "3", "4", "5"], printed[-300:])
    alive = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"name=interrupted-plan" in path.read_bytes()]
    check(alive == [], f"a child lives on: {alive}")


def test_faults_sum_up_when_interrupted():
    run = subprocess.Popen([SIM, "faults", "--seeds", "100000", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    run.send_signal(signal.SIGINT)
    printed, said = run.communicate(timeout=20)
    check(run.returncode == 130, f"{run.returncode}: {said[-200:]}")
    sums = json.loads(printed)
    check(sums["failed"] == [] and "FAILED" not in said and 0 < sums["seeds"] < 100000, printed)


def on_a_terminal(*words):
    """What a command shows on stderr when that is a terminal, and what it prints."""
    reader, writer = pty.openpty()
    run = subprocess.Popen([SIM, *words], stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    seen = b""
    while select.select([reader], [], [], 30)[0]:
        try:
            part = os.read(reader, 4096)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(reader)
    printed = run.stdout.read()
    check(run.wait(30) == 0, "exit code")
    return seen, printed


def test_plan_shows_progress_on_a_terminal_only():
    quiet = sim("plan", "--mib", "4", "--sweep", "nodes=2,3")
    check(quiet.stderr == "", quiet.stderr)
    seen, _ = on_a_terminal("plan", "--mib", "4", "--sweep", "nodes=2,3,4,5")
    searched, _ = on_a_terminal("plan", "--nodes", "4", "--mib", "16", "--find", "nic.up", "--target-time", "1s")
    check(re.search(rb"\[#+\.+\] \d+/about \d+ runs", searched), str(searched[-200:]))
    check(b"4/4 runs" in seen and b"[########################]" in seen, str(seen[-200:]))


def test_run_shows_progress_on_a_terminal_only():
    words = ["run", "--nodes", "60", "--zones", "3", "--mib", "256", "--json"]
    quiet = sim(*words)
    check(quiet.stderr == "", quiet.stderr)
    seen, printed = on_a_terminal(*words)
    lines = re.findall(rb"\[[#.]{24}\] (\d+) % of nodes done, ([\d.]+) s simulated, \d+:\d\d gone, ", seen)
    check(lines, str(seen[-200:]))
    check([float(line[1]) for line in lines] == sorted(float(line[1]) for line in lines), "time goes back")
    check(json.loads(printed)["trace_hash"] == json.loads(quiet.stdout)["trace_hash"], "who watches changes the run")
    check(seen.endswith(b"\r\x1b[K"), "the line stays")


def test_installed_scenarios_are_found():
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(["make", "-s", "install", f"DESTDIR={folder}", "PREFIX=/opt/shoal"], capture_output=True, text=True)
        check(run.returncode == 0, run.stderr[-300:])
        program = f"{folder}/opt/shoal/bin/shoal-sim"
        check(os.access(program, os.X_OK) and os.access(f"{folder}/opt/shoal/bin/shoal", os.X_OK), "no programs")
        shipped = sorted(path.stem for path in Path("sim/scenarios").glob("*.yaml"))
        listed = subprocess.run([program, "list"], capture_output=True, text=True, cwd="/").stdout
        check(listed.splitlines()[0] == f"{folder}/opt/shoal/bin/../share/shoal/scenarios", listed[:120])
        check(re.findall(r"^  (\S+) +\d+ nodes", listed, re.M) == shipped, listed)
        run = subprocess.run([program, "run", "acr-300", "--set", "nodes=6", "--set", "image.layers=2MiB", "--json"],
                             capture_output=True, text=True, cwd="/")
        check(json.loads(run.stdout)["scenario"] == "acr-300", run.stderr)


def test_faults_replay():
    once = json.loads(sim("faults", "--seeds", "6", "--seed", "40", "--json").stdout)
    again = json.loads(sim("faults", "--seeds", "6", "--seed", "40", "--json", "--jobs", "1").stdout)
    check(once["failed"] == [] and once["seeds"] == 6, str(once))
    check(once["trace_hash"] == again["trace_hash"], "the same seeds gave other runs")
    text = sim("faults", "--seeds", "2", "--seed", "7", "--jobs", "1").stdout
    check(text.index("seeds 7..8") < text.index("seed: 7: ") < text.index("seed: 8: "), "seed and options come first")
    build = re.match(r"shoal-sim (\d+\.\d+\.\d+(-g[0-9a-f]+(-dirty)?)?): seeds", text)
    check(build is not None and build[1] == once["build"], f"the build comes first: {text[:80]}")


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent.parent)
    sys.exit(main(globals()))
