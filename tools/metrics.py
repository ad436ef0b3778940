#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What src/daemon/metrics.c prints, held against README's table (names, labels, meanings; `--write` makes it anew) and against what the
dashboard and the alert rules of deploy/ ask for (names, labels, values).

usage: tools/metrics.py [--write]
"""
import re
import sys
from pathlib import Path

SOURCE, README = Path("src/daemon/metrics.c"), Path("README.md")
ASKING = (Path("deploy/grafana/shoal.json"), Path("deploy/prometheus/rules.yaml"))
ASKED = re.compile(r"\bshoal_(\w+)(?:\{([^{}]*)\})?")
GIVEN_BY_PROMETHEUS = {"instance", "job", "node", "le"}
TEXT = r'(?:"(?:\\.|[^"\\])*"\s*)+'
FAMILY = re.compile(rf'\b(family|one)\(page,\s*"(\w+)",\s*"(counter|gauge|histogram)",\s*({TEXT})')
LINE = re.compile(r'\b(?:family|one)\(page,\s*"(\w+)"|\blabelled\(page,\s*"(\w+)"')
PUT = re.compile(r'\bput\(page,\s*"shoal_(\w+)(?:\{([^}]*)\})?')
HEAD = "| Metric | Meaning |\n|---|---|\n"


def joined(text: str) -> str:
    return "".join(re.findall(r'"((?:\\.|[^"\\])*)"', text))


def labels_of(source: str) -> dict[str, list[str]]:
    """Family to its labels; a histogram's own `le` goes without saying."""
    found: dict[str, list[str]] = {}
    family = ""
    for name, label in LINE.findall(source):
        family = name or family
        if label:
            found.setdefault(family, [label])
    for name, labels in PUT.findall(source):
        found.setdefault(name, [label for label in re.findall(r"(\w+)=", labels) if label != "le"])
    return found


def rows() -> list[str]:
    source = SOURCE.read_text()
    labels = labels_of(source)
    found = []
    for _, name, kind, meaning in FAMILY.findall(source):
        told = ",".join(labels.get(name, []))
        found.append(f"| `shoal_{name}{f'{{{told}}}' if told else ''}` | {joined(meaning)}{' Histogram.' if kind == 'histogram' else ''} |")
    return sorted(found)


def check_asking(path: Path, text: str) -> list[str]:
    """Metrics, labels and labels' values of one file that the agent does not have."""
    source = SOURCE.read_text()
    kinds = {name: kind for _, name, kind, _ in FAMILY.findall(source)}
    labels = labels_of(source)
    said = set(re.findall(r'"([\w-]+)"', "".join(p.read_text() for p in sorted(Path("src").rglob("*.c")))))
    bad = []
    for name, selector in ASKED.findall(text.replace('\\"', '"')):
        whole = re.sub(r"_(bucket|sum|count)$", "", name)
        family = whole if kinds.get(whole) == "histogram" else name
        if family not in kinds or (kinds[family] == "histogram") != (family != name):
            bad.append(f"{path}: the agent has no shoal_{name}")
            continue
        for label, values in re.findall(r'(\w+)\s*=~?\s*"([^"]*)"', selector):
            if label not in {*labels.get(family, []), *GIVEN_BY_PROMETHEUS}:
                bad.append(f"{path}: shoal_{name} has no label {label}")
            bad += [f"{path}: no {label} {value} of shoal_{name}" for value in values.split("|") if label not in GIVEN_BY_PROMETHEUS and value not in said]
    return bad


def check() -> list[str]:
    """One line for each difference."""
    wanted = set(rows())
    there = set(re.findall(r"^\| `shoal_.*\|$", README.read_text(), re.M))
    return [f"{README}: not in the table of metrics, or different there (tools/metrics.py --write): {row}" for row in sorted(wanted - there)] + \
           [f"{README}: no such metric in {SOURCE}: {row}" for row in sorted(there - wanted)] + \
           [line for path in ASKING for line in check_asking(path, path.read_text())]


def write():
    text = README.read_text()
    before, _, rest = text.partition(HEAD)
    after = re.sub(r"^(\| `shoal_.*\|\n)*", "", rest)
    README.write_text(before + HEAD + "".join(f"{row}\n" for row in rows()) + after)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write()
    found = check()
    print("\n".join(found) or "metrics: README names them all, and no others; deploy/ asks for none but these")
    sys.exit(1 if found else 0)
