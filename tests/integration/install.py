#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What `make install` leaves: programs, manual pages, example configuration. The pages are read by man(1), and hold what the programs say."""
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import it
from lab import SHOAL, run

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import man  # noqa: E402: found only with the path above

READ = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "200", "MANROFFSEQ": ""}


@contextmanager
def installed(**variables):
    """A folder with what make installs."""
    with tempfile.TemporaryDirectory() as folder:
        run("make", "-s", "install", f"DESTDIR={folder}", *(f"{name}={value}" for name, value in variables.items()), cwd=ROOT)
        yield Path(folder)


def read(page: Path) -> str:
    """A page as a terminal shows it, without its line breaks; man and groff must have nothing to say against it."""
    run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page, env=READ)
    strict = subprocess.run(["groff", "-ww", "-man", "-Tutf8", "-z", page], capture_output=True, text=True, check=False)
    it.check(strict.returncode == 0 and not strict.stderr, f"{page.name}: {strict.stderr}")
    shown = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", page], capture_output=True, text=True, check=True, env=READ)
    it.check(not shown.stderr, f"{page.name}: {shown.stderr}")
    return " ".join(shown.stdout.split())


def test_every_command_and_key_has_its_page():
    """Each command of `shoal help` and `shoal-sim help`, each option of their help, each key of the configuration."""
    with installed() as folder:
        pages = {path.name: path for kind in ("man1", "man5") for path in (folder / "usr/local/share/man" / kind).iterdir()}
        text = {name: read(path) for name, path in pages.items()}
        wanted = {"shoal.1", "shoal-sim.1", "shoal.yaml.5"}
        for name, summary in man.Help(run(SHOAL, "help").stdout).commands():
            wanted.add(f"shoal-{name}.1")
            it.check(f"{name} {summary}." in text["shoal.1"], f"shoal(1) lacks {name}")
            check_page(text[f"shoal-{name}.1"], run(SHOAL, name, "--help").stdout)
            it.check(f"shoal-{name} - {summary} " in text[f"shoal-{name}.1"], f"whatis finds no shoal-{name}")
        it.check(set(pages) == wanted, f"other pages than commands: {set(pages) ^ wanted}")
        sim = ROOT / "build/shoal-sim"
        for name, _ in man.Help(run(sim, "help").stdout).commands():
            check_page(text["shoal-sim.1"], run(sim, name, "--help").stdout)
        keys = run(SHOAL, "config", "show", "--markdown").stdout
        for cells in man.rows(keys):
            name, meaning = cells[0].strip("`"), " ".join(re.sub(r"[`\\]", "", cells[3]).split())
            it.check(f" {name} {meaning}" in text["shoal.yaml.5"], f"shoal.yaml(5) lacks {name}: {meaning}")
        it.check("credentials File with the node's own login" in text["shoal.yaml.5"], "shoal.yaml(5) lacks the keys of a registry's entry")
        it.figure(f"{len(pages)} pages, {len(man.rows(keys))} keys")


def check_page(shown: str, told: str):
    """Every word of a command's help is on its page, options with their texts."""
    help_ = man.Help(told)
    it.check(" ".join(help_.usage.split()) in shown, f"no synopsis: {help_.usage}")
    for kind, items in help_.blocks:
        for item in items if kind == "options" else []:
            line = " ".join(" ".join(item).replace("`", "").split())
            it.check(line in shown, f"not on the page: {line}")


def test_hard_words_survive():
    """Leading dots, quotes, backslashes and hyphens of a help text come out as they went in."""
    hard = ".start 'here' C:\\new -- `--flag=a-b` ~ ^ \\fBnot bold\\fR | 50 %"
    text = f"usage: x\n\n{hard}\n\n  --opt'ion .dot  {hard}\n                  'second' line\n"
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "x.1")
        page.write_text("\n".join(man.head("x", 1, "1") + [".SH NAME", r"x \- y", ".SH DESCRIPTION", *man.Help(text).body(), *man.verbatim(f"{hard}\n.so /etc/passwd\n'br\n")]) + "\n")
        shown = read(page)
    plain = hard.replace("`", "")
    it.check(shown.count(plain) == 2 and shown.count(hard) == 1, f"changed on its way: {shown}")
    it.check("--opt'ion .dot" in shown and "'second' line" in shown and ".so /etc/passwd 'br" in shown, shown)
    for wrong in ("no usage", "usage: x\n\n      text of no option\n"):
        try:
            man.Help(wrong)
        except man.Failed:
            continue
        it.check(False, f"taken for help: {wrong!r}")


def test_prefix_and_example():
    """PREFIX moves everything but the configuration; the programs run from there; the example is a configuration, as it is and with every line in use."""
    with installed(PREFIX="/usr") as folder:
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        it.check(files >= {"usr/bin/shoal", "usr/bin/shoal-sim", "usr/share/man/man1/shoal.1", "usr/share/man/man5/shoal.yaml.5", "etc/shoal/shoal.yaml.example"}, f"{sorted(files)}")
        it.check(all(name.startswith(("usr/", "etc/shoal/")) for name in files), f"elsewhere: {sorted(files)}")
        it.check(run(folder / "usr/bin/shoal", "version").stdout.startswith("shoal "), "the installed agent does not run")
        example = folder / "etc/shoal/shoal.yaml.example"
        run(SHOAL, "config", "check", "--config", example)
        every = re.sub(r"^#(?=\S)", "", example.read_text(), flags=re.M)
        it.check(every != example.read_text(), "no lines to take in")
        secret = folder / "secret"
        run(SHOAL, "keygen", "--out", secret)
        whole = folder / "whole.yaml"
        whole.write_text(every.replace("/etc/shoal/secret", str(secret)))
        run(SHOAL, "config", "check", "--config", whole)


if __name__ == "__main__":
    sys.exit(it.main(globals(), seconds=180))
