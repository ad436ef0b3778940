#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Manual pages, man(7), from what the programs say of themselves: `--help` of each command, `shoal config show --markdown` for the keys,
README's table for an entry of `registries`, and the example configuration. Nothing about a command or a key is written here.

usage: tools/man.py BUILD OUT    reads BUILD/shoal and BUILD/shoal-sim, writes OUT/shoal.1, OUT/shoal-COMMAND.1, OUT/shoal-sim.1, OUT/shoal.yaml.5
"""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "deploy/shoal.yaml.example"
ABOUT = ("Shoal brings container images to all nodes of a cluster at the speed of the nodes' own network cards. "
         "It is one agent per node: to the container runtime a registry mirror on the node, to the other nodes a peer.")
FILES = (("/etc/shoal/shoal.yaml", "The agent's configuration, see `shoal.yaml(5)`. Without it the agent works on one machine."),
         ("/var/lib/shoal", "Identity of the node, cache, `control.sock`. Not root: $XDG_DATA_HOME/shoal."),
         ("/var/lib/shoal-runtime", "What `shoal containerd revert` and its like put back."))


class Failed(Exception):
    pass


def said(*words) -> str:
    """What a program prints."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0 or not done.stdout.isascii():
        raise Failed(f"{' '.join(map(str, words))}: exit code {done.returncode}, or not ASCII: {done.stderr}")
    return done.stdout


# ---- roff ----

def escape(text: str) -> str:
    """Every character as it is to be read and copied: hyphens and quotes are no typography. Nothing begins a request."""
    for char, name in (("\\", r"\e"), ("-", r"\-"), ("'", r"\(aq"), ("`", r"\(ga"), ("^", r"\(ha"), ("~", r"\(ti")):
        text = text.replace(char, name)
    return r"\&" + text if text.startswith(".") else text


def prose(text: str) -> str:
    """A paragraph of help or of a table's cell: `words` become bold, a link its text."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text.replace(r"\|", "|"))
    parts = re.split(r"`([^`]*)`", " ".join(text.split()))
    line = "".join(rf"\fB{escape(part)}\fR" if i % 2 else escape(part).removeprefix(r"\&") for i, part in enumerate(parts))
    return r"\&" + line if line.startswith(".") else line


def head(name: str, section: int, version: str) -> list[str]:
    """No date: the same sources give the same bytes."""
    return [r'.\" SPDX-License-Identifier: Apache-2.0', r'.\" Made by tools/man.py.', f'.TH {escape(name)} {section} "" "shoal {version}" "Shoal"', ".nh"]


def tagged(tag: str, text: str) -> list[str]:
    return [".TP", rf"\fB{escape(tag)}\fR", prose(text) if text else r"\&"]


def verbatim(text: str) -> list[str]:
    return [".PP", ".RS 4", ".nf", *(escape(line) for line in text.rstrip("\n").split("\n")), ".fi", ".RE"]


def see(*pages: str) -> list[str]:
    return [".SH SEE ALSO", ",\n".join(f".BR {escape(page[:-3])} {page[-3:]}" for page in pages).replace(",\n", " ,\n")]


# ---- help texts ----

class Help:
    """`--help` of one command: a usage line, paragraphs at the margin, options indented by two columns. An option's text stands two columns
    or more behind it, or further in on the next lines."""

    def __init__(self, text: str):
        first, _, rest = text.partition("\n")
        if not first.startswith("usage: "):
            raise Failed(f"no usage line: {first}")
        self.usage = first.removeprefix("usage: ")
        self.blocks: list[tuple[str, list]] = []  # ("text", [lines]) or ("options", [[tag, text]...])
        for line in rest.splitlines():
            self._take(line)
        self.blocks = [block for block in self.blocks if block[1]]

    def _last(self, kind: str) -> list:
        if not self.blocks or self.blocks[-1][0] != kind:
            self.blocks.append((kind, []))
        return self.blocks[-1][1]

    def _take(self, line: str):
        if not line.strip():
            self.blocks.append(("text", []))
        elif not line.startswith(" "):
            self._last("text").append(line)
        elif re.match(r"  \S", line):
            tag, _, text = line.strip().partition("  ")
            self._last("options").append([tag, text.strip()])
        elif self.blocks and self.blocks[-1][0] == "options":
            self.blocks[-1][1][-1][1] += " " + line.strip()
        else:
            raise Failed(f"a line of help that belongs to no option: {line}")

    def body(self) -> list[str]:
        out = []
        for kind, items in self.blocks:
            if kind == "text":
                out += [".PP", prose(" ".join(items))]
            else:
                out += [line for tag, text in items for line in tagged(tag, text)]
        return out

    def beyond(self, summary: str) -> "Help":
        """Without its first paragraph, which repeats the page's name line, if there is more."""
        if len(self.blocks) > 1 and self.blocks[0] == ("text", [summary]):
            self.blocks.pop(0)
        return self

    def commands(self) -> list[list[str]]:
        """Of a program's own help: its commands, each with its summary."""
        return [item for kind, items in self.blocks if kind == "options" for item in items]

    def exit_status(self) -> list[str]:
        found = re.search(r"Exit codes: (.*)\.", " ".join(line for kind, items in self.blocks if kind == "text" for line in items))
        if not found:
            raise Failed("help names no exit codes")
        codes = [code.strip().split(" ", 1) for code in found[1].split(",")]
        return [".SH EXIT STATUS", *(line for code, meaning in codes for line in tagged(code, meaning + "."))]


def synopsis(usage: str, program: str) -> list[str]:
    rest = usage.removeprefix(program).strip()
    return [".SH SYNOPSIS", rf"\fB{escape(program)}\fR {escape(rest)}".rstrip()]


# ---- pages ----

def page_shoal(top: Help, version: str) -> list[str]:
    names = [name for name, _ in top.commands()]
    out = head("shoal", 1, version) + [".SH NAME", r"shoal \- peer\-to\-peer container images for the nodes of a cluster"]
    out += synopsis(top.usage, "shoal") + [".SH DESCRIPTION", prose(ABOUT), ".PP", prose("Each command has a page of its own, as `shoal-agent(1)`."), ".SH COMMANDS"]
    out += [line for name, summary in top.commands() for line in tagged(name, summary + ".")]
    out += top.exit_status() + [".SH ENVIRONMENT"] + tagged("SHOAL_...", "A key of the configuration, see `shoal.yaml(5)`.")
    out += [".SH FILES"] + [line for name, text in FILES for line in tagged(name, text)]
    return out + see(*(f"shoal-{name}(1)" for name in names), "shoal.yaml(5)", "shoal-sim(1)")


def page_command(name: str, summary: str, text: Help, top: Help, version: str) -> list[str]:
    out = head(f"shoal-{name}", 1, version) + [".SH NAME", rf"shoal\-{escape(name)} \- {escape(summary)}"]
    out += synopsis(text.usage, f"shoal {name}") + [".SH DESCRIPTION"] + text.beyond(summary).body() + top.exit_status()
    return out + see("shoal(1)", "shoal.yaml(5)")


def page_sim(top: Help, helps: dict[str, Help], version: str) -> list[str]:
    out = head("shoal-sim", 1, version) + [".SH NAME", r"shoal\-sim \- simulate a cluster that pulls images"]
    out += synopsis(top.usage, "shoal-sim") + [".SH DESCRIPTION"] + top.body() + [".SH COMMANDS"]
    for name, text in helps.items():
        out += [f".SS {escape(name)}", rf"\fB{escape(text.usage)}\fR"] + text.body()
    out += [".SH ENVIRONMENT"] + tagged("SHOAL_SCENARIOS", "Folder of shipped scenarios, instead of the one that was installed.")
    return out + top.exit_status() + see("shoal(1)")


def rows(markdown: str) -> list[list[str]]:
    """Cells of a table's rows, without its head."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def key(cells: list[str]) -> list[str]:
    name, default, allowed, meaning = cells
    facts = ([f"Default: {default}."] if default else []) + [f"Allowed: {allowed}."]
    return [".TP", prose(name), prose(meaning), ".br", prose(" ".join(facts))]


def page_yaml(build: Path, version: str) -> list[str]:
    entries = re.search(r"^\| Key of an entry \|(?:.*\n\|)*.*\n", (ROOT / "README.md").read_text(), re.M)
    if not entries:
        raise Failed("README.md has no table of an entry's keys")
    out = head("shoal.yaml", 5, version) + [".SH NAME", r"shoal.yaml \- configuration of the Shoal agent", ".SH SYNOPSIS", "/etc/shoal/shoal.yaml", ".SH DESCRIPTION"]
    out += [prose("One YAML file. Keys may be written with dots or as nested maps; each may also be given by `shoal agent --set key=value` and by the environment, "
                  "as SHOAL_LOG_LEVEL for `log.level`. The command line wins over the environment, that over the file. Secrets are files, never values. "
                  "`shoal config show` prints what counts and where it came from, `shoal config check` says what is wrong.")]
    out += [".SH KEYS"] + [line for cells in rows(said(build / "shoal", "config", "show", "--markdown")) for line in key(cells)]
    out += [".SH REGISTRIES", prose("Keys of an entry of `registries`.")]
    out += [line for name, default, meaning in rows(entries[0]) for line in [".TP", prose(name), prose(meaning), ".br", prose(f"Default: {default}.")]]
    return out + [".SH EXAMPLE"] + verbatim(EXAMPLE.read_text()) + see("shoal-agent(1)", "shoal-config(1)")


def pages(build: Path) -> dict[str, str]:
    """File name to text."""
    shoal, sim = build / "shoal", build / "shoal-sim"
    version = said(shoal, "version").split()[1]
    top, sim_top = Help(said(shoal, "help")), Help(said(sim, "help"))
    found = {"shoal.1": page_shoal(top, version), "shoal.yaml.5": page_yaml(build, version)}
    for name, summary in top.commands():
        text = Help(said(shoal, name, "--help"))
        found[f"shoal-{name}.1"] = page_command(name, summary, text, top, version)
    found["shoal-sim.1"] = page_sim(sim_top, {name: Help(said(sim, name, "--help")) for name, _ in sim_top.commands()}, version)
    # A heading begins a paragraph by itself.
    return {name: re.sub(r"(?m)^(\.S[HS] .*\n)\.PP\n", r"\1", "\n".join(lines) + "\n") for name, lines in found.items()}


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__.strip().splitlines()[-1], file=sys.stderr)
        return 2
    out = Path(sys.argv[2])
    try:
        made = pages(Path(sys.argv[1]))
    except (Failed, OSError) as error:
        print(f"man: {error}", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (out / name).write_text(text)
    print(f"man: {len(made)} pages in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
