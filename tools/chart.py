#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Renders deploy/chart without helm, which Debian does not have: the part of Go's templates, of sprig and of helm that the chart uses.

usage: tools/chart.py render [--set key=value]...    the manifests, to the terminal
       tools/chart.py write | check                  deploy/kubernetes made anew, or held against the chart

What it does not know it refuses, so a template cannot be rendered wrongly in silence. A test holds it against helm where that is installed.
"""
import base64
import copy
import hashlib
import json
import math
import re
import secrets
import string
import sys
from pathlib import Path

import yaml

CHART, PLAIN = Path("deploy/chart"), Path("deploy/kubernetes")
NAMESPACE = "shoal-system"
TOKEN = re.compile(r'\s*(?:(?P<string>"(?:\\.|[^"\\])*")|(?P<raw>`[^`]*`)|(?P<number>-?\d+)|(?P<punct>:=|[()|=,])|(?P<path>\$?\w*(?:\.\w+)+|\$\w*|\.)|(?P<word>\w+))')
ACTION = re.compile(r"\{\{(-?)\s*(/\*.*?\*/|.*?)\s*(-?)\}\}", re.S)


class Failed(Exception):
    """A template that cannot be rendered, or that refused its values."""


# ---- values as Go prints them ----

def text(value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def to_yaml(value) -> str:
    return yaml.safe_dump(value, default_flow_style=False, width=10**6, allow_unicode=True).removesuffix("\n").removesuffix("\n...")


def merge_overwrite(into: dict, over: dict) -> dict:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge_overwrite(into[key], value)
        else:
            into[key] = value
    return into


def fail(message):
    raise Failed(message)


def kind_is(kind: str, value) -> bool:
    kinds = {"map": dict, "slice": list, "string": str, "bool": bool, "invalid": type(None)}
    return isinstance(value, kinds[kind])


def printf(form: str, *args) -> str:
    if re.search(r"%[^sdq%]", form):
        raise Failed(f"printf: {form}")
    return form.replace("%q", '"%s"').replace("%d", "%s") % tuple(text(a) for a in args)


FUNCTIONS = {
    "quote": lambda value: json.dumps(text(value), ensure_ascii=False), "default": lambda other, value=None: value or other, "not": lambda value: not value,
    "eq": lambda a, *more: any(a == b for b in more), "ne": lambda a, b: a != b, "gt": lambda a, b: a > b,
    "and": lambda *all_: next((a for a in all_ if not a), all_[-1]), "or": lambda *all_: next((a for a in all_ if a), all_[-1]),
    "toYaml": to_yaml, "fromYaml": lambda value: yaml.safe_load(value) or {}, "toJson": lambda value: json.dumps(value, separators=(",", ":"), sort_keys=True),
    "indent": lambda width, value: "\n".join(" " * width + line for line in value.split("\n")),
    "nindent": lambda width, value: "\n" + "\n".join(" " * width + line for line in value.split("\n")),
    "printf": printf, "trunc": lambda count, value: value[:count], "trimSuffix": lambda end, value: value.removesuffix(end),
    "replace": lambda old, new, value: value.replace(old, new), "contains": lambda part, value: part in value,
    "int64": lambda value: int(value or 0), "min": lambda *all_: min(int(a) for a in all_), "mul": lambda *all_: math.prod(int(a) for a in all_), "div": lambda a, b: int(a) // int(b), "add": lambda *all_: sum(int(a) for a in all_),
    "dict": lambda *all_: dict(zip(all_[::2], all_[1::2])), "list": lambda *all_: list(all_), "append": lambda values, value: [*values, value],
    "get": lambda values, key: values.get(key, ""), "hasKey": lambda values, key: key in values, "kindIs": kind_is, "empty": lambda value: not value,
    "omit": lambda values, *keys: {k: v for k, v in values.items() if k not in keys}, "deepCopy": copy.deepcopy, "mergeOverwrite": merge_overwrite,
    "join": lambda between, values: between.join(text(v) for v in values), "has": lambda value, values: value in values,
    "required": lambda message, value=None: fail(message) if value in (None, "") else value, "fail": fail,
    "b64enc": lambda value: base64.b64encode(value.encode()).decode(), "sha256sum": lambda value: hashlib.sha256(value.encode()).hexdigest(),
    "randAlphaNum": lambda count: "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(count)),
}


# ---- expressions ----

def tokens(source: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while source[at:].strip():
        match = TOKEN.match(source, at)
        if match is None:
            raise Failed(f"cannot read {source[at:]!r}")
        found.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
        if source[at:at + 1] == "." and found[-1] == ("punct", ")"):  # (expression).field
            rest = re.compile(r"(?:\.\w+)+").match(source, at)
            found.append(("fields", rest.group()))
            at = rest.end()
    return found


class Expression:
    """One pipeline, evaluated while it is read."""

    def __init__(self, source: str, run: "Run", dot, variables: dict):
        self.tokens, self.at = tokens(source), 0
        self.run, self.dot, self.variables = run, dot, variables

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self) -> tuple[str, str]:
        self.at += 1
        return self.tokens[self.at - 1]

    def whole(self):
        value = self.pipeline()
        if self.peek()[0] != "end":
            raise Failed(f"left over: {self.tokens[self.at:]}")
        return value

    def pipeline(self):
        value = self.command(())
        while self.peek() == ("punct", "|"):
            self.take()
            value = self.command((value,))
        return value

    def command(self, piped: tuple):
        if self.peek()[0] == "word" and self.peek()[1] not in ("true", "false", "nil"):
            name, args = self.take()[1], []
            while self.peek()[0] != "end" and self.peek()[1] not in ("|", ")"):
                args.append(self.operand())
            return self.run.call(name, [*args, *piped])
        if piped:
            raise Failed("a value cannot be piped into a value")
        return self.operand()

    def operand(self):
        kind, word = self.take()
        if kind == "string":
            return json.loads(word)
        if kind == "raw":
            return word[1:-1]
        if kind == "number":
            return int(word)
        if kind == "word":
            return {"true": True, "false": False, "nil": None}[word] if word in ("true", "false", "nil") else self.run.call(word, [])
        if kind == "path":
            return self.path(word)
        if (kind, word) != ("punct", "("):
            raise Failed(f"not expected: {word}")
        value = self.pipeline()
        if self.take() != ("punct", ")"):
            raise Failed("a bracket is not closed")
        return self.fields(value, self.take()[1]) if self.peek()[0] == "fields" else value

    def path(self, word: str):
        head, dot, rest = word.partition(".")
        value = self.variables[head] if head else self.dot
        return self.fields(value, dot + rest) if rest else value

    @staticmethod
    def fields(value, names: str):
        for name in names.split(".")[1:]:
            if value is None or not isinstance(value, dict):
                raise Failed(f"nil pointer: {names}")  # as Go says it
            value = value.get(name)
        return value


# ---- templates ----

def parse(source: str) -> list:
    """Text and actions, white space trimmed as the marks say."""
    parts, at, trim = [], 0, False
    for match in ACTION.finditer(source):
        piece = source[at:match.start()]
        piece = piece.lstrip() if trim else piece
        parts.append(("text", piece.rstrip() if match.group(1) else piece))
        if not match.group(2).startswith("/*"):
            parts.append(("action", match.group(2)))
        at, trim = match.end(), bool(match.group(3))
    parts.append(("text", source[at:].lstrip() if trim else source[at:]))
    return parts


def conditional(kind: str, head: str, parts: list, at: int) -> tuple[tuple, int]:
    inside, at, end = block(parts, at)
    other = []
    if end.startswith("else if "):
        nested, at = conditional("if", end.removeprefix("else if "), parts, at)  # takes the end that closes both
        other = [nested]
    elif end == "else":
        other, at, end = block(parts, at)
    elif end != "end":
        raise Failed(f"{kind} {head}: not closed")
    return (kind, head, inside, other), at


def block(parts: list, at: int) -> tuple[list, int, str]:
    """Nodes up to the end or else of this block, and which it was."""
    nodes = []
    while at < len(parts):
        kind, body = parts[at]
        at += 1
        word = body.split(None, 1)[0] if kind == "action" else ""
        if word in ("end", "else"):
            return nodes, at, body
        if word in ("if", "with", "range", "define"):
            node, at = conditional(word, body[len(word):].strip(), parts, at)
            nodes.append(node)
        else:
            nodes.append((kind, body, None, None))
    return nodes, at, ""


class Run:
    """One rendering of the chart."""

    def __init__(self, values: dict, namespace: str, release="shoal", objects: dict | None = None):
        about = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.objects = objects or {}
        self.named: dict[str, list] = {}
        self.root = {"Values": values, "Release": {"Name": release, "Namespace": namespace, "Service": "Helm"},
                     "Chart": {"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]}}

    def call(self, name: str, args: list):
        if name in ("include", "template"):
            return self.nodes(self.named[args[0]], args[1], {"$": args[1]})
        if name == "lookup":  # API version, kind, namespace, name
            return self.objects.get((args[1], args[3]), {})
        if name not in FUNCTIONS:
            raise Failed(f"unknown function {name}")
        return FUNCTIONS[name](*args)

    def nodes(self, nodes: list, dot, variables: dict) -> str:
        return "".join(self.node(node, dot, variables) for node in nodes)

    def value(self, source: str, dot, variables: dict):
        return Expression(source, self, dot, variables).whole()

    def node(self, node: tuple, dot, variables: dict) -> str:
        kind, head, inside, other = node
        if kind == "text":
            return head
        if kind == "define":
            self.named[json.loads(head)] = inside
            return ""
        if kind == "if":
            return self.nodes(inside if self.value(head, dot, variables) else other, dot, dict(variables))
        if kind == "with":
            value = self.value(head, dot, variables)
            return self.nodes(inside, value, dict(variables)) if value else self.nodes(other, dot, dict(variables))
        if kind == "range":
            return self.range(head, inside, dot, variables)
        match = re.match(r"(\$\w+)\s*:=\s*(.*)", head, re.S)
        if match:
            variables[match.group(1)] = self.value(match.group(2), dot, variables)
            return ""
        return text(self.value(head, dot, variables))

    def range(self, head: str, inside: list, dot, variables: dict) -> str:
        match = re.match(r"(\$\w+)\s*,\s*(\$\w+)\s*:=\s*(.*)", head, re.S)
        values = self.value(match.group(3) if match else head, dot, variables) or []
        pairs = sorted(values.items()) if isinstance(values, dict) else list(enumerate(values))
        out = ""
        for key, value in pairs:
            own = {**variables, **({match.group(1): key, match.group(2): value} if match else {})}
            out += self.nodes(inside, value, own)
        return out

    def files(self) -> dict[str, str]:
        """Each template by its name, rendered; without those that say nothing."""
        sources = sorted((CHART / "templates").iterdir())
        parsed = {path.name: block(parse(path.read_text()), 0)[0] for path in sources}
        for nodes in parsed.values():
            self.nodes([node for node in nodes if node[0] == "define"], self.root, {"$": self.root})
        found = {}
        for name, nodes in parsed.items():
            try:
                out = self.nodes(nodes, self.root, {"$": self.root})
            except Failed as error:
                raise Failed(f"{name}: {error}") from error
            if out.strip() and not name.startswith("_"):
                found[name] = out.strip() + "\n"
        return found


def values_with(*over: dict) -> dict:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for each in over:
        merge_overwrite(values, copy.deepcopy(each))
    return values


def set_value(word: str) -> dict:
    path, _, value = word.partition("=")
    found = yaml.safe_load(value)
    for name in reversed(path.split(".")):
        found = {name: found}
    return found


def render(*over: dict, namespace=NAMESPACE, objects: dict | None = None) -> dict[str, str]:
    return Run(values_with(*over), namespace, objects=objects).files()


# ---- deploy/kubernetes ----

HEAD = "# SPDX-License-Identifier: Apache-2.0\n# Made by `make chart` from deploy/chart: change that, not this.\n"
SPACE = f"""apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: privileged  # host network, and host paths for the cache and the runtime's configuration
"""


def plain() -> dict[str, str]:
    """File below deploy/kubernetes to text. The secret is no file: README says how it is made."""
    base = {"clusterSecret": {"existingSecret": "shoal-cluster-secret"}}
    files = {"namespace.yaml": SPACE}
    files.update({name: body for name, body in render(base).items() if name != "NOTES.txt"})
    whole = render(base, {"exporter": {"enable": True}, "podMonitor": {"enable": True}, "networkPolicy": {"enable": True}})
    files.update({f"optional/{name}": whole[name] for name in ("podmonitor.yaml", "networkpolicy.yaml")})
    return {name: HEAD + body for name, body in files.items()}


def check() -> list[str]:
    wanted = plain()
    there = {str(path.relative_to(PLAIN)): path.read_text() for path in PLAIN.rglob("*.yaml")}
    return [f"{PLAIN}/{name}: not what the chart gives; run make chart" for name in sorted(wanted.keys() | there.keys()) if wanted.get(name) != there.get(name)]


def main(words: list[str]) -> int:
    if words[:1] == ["render"]:
        over = [set_value(word) for flag, word in zip(words[1::2], words[2::2]) if flag == "--set"]
        print("---\n".join(body for name, body in render(*over).items() if name != "NOTES.txt"), end="")
        return 0
    if words == ["write"]:
        for path in PLAIN.rglob("*.yaml"):
            path.unlink()
        for name, body in plain().items():
            (PLAIN / name).parent.mkdir(parents=True, exist_ok=True)
            (PLAIN / name).write_text(body)
    elif words != ["check"]:
        print(__doc__)
        return 2
    bad = check()
    print("\n".join(bad) or f"chart: {PLAIN} is what deploy/chart gives")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as error:
        sys.exit(f"chart: {error}")
