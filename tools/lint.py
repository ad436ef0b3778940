#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""House rules a compiler does not know: banned calls, lengths, doc comments, leftovers, layout (STYLE 3-10), README's metrics."""
import json
import re
import subprocess
import sys
from pathlib import Path

import metrics

FILE_LINES_MAX = 1000
FUNCTION_LINES_MAX = 70
SWITCH_LINES_MAX = 100
PARAMETERS_MAX = 6
# Longer parameter lists that a contract in include/ needs, each with its reason there.
PARAMETERS_ALLOWED = {"session_receive": 7, "session_seal": 8, "dgram_receive": 8, "transfer_read_start": 8, "hmac_sha256": 6,
                      "transfer_piece_progress": 6, "origin_start": 6}
BANNED = re.compile(
    r"(?<![\w.>])(sprintf|vsprintf|strcpy|strcat|strncat|strtok|strtok_r|gets|atoi|atol|atof|sscanf|rand|srand|random|time|localtime|"
    r"localtime_r|gmtime|system|popen|alloca|malloc|calloc|realloc|free)\s*\("
)
# The heap is touched in these wrappers only; tests, simulator host and fuzz drivers are programs of their own.
HEAP = re.compile(r"(malloc|calloc|realloc|free)\s*\(")
HEAP_WRAPPERS = ("src/daemon/", "src/base/digest.c", "src/registry/", "src/cache/store_", "src/http/", "src/runtime/state.c", "sim/", "bench/", "tests/")


def strip(text: str) -> str:
    """Blanks comments and string contents, keeping line numbers."""
    def blank(match: re.Match) -> str:
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def check_text(path: Path) -> list[str]:
    bad = []
    text = path.read_text()
    lines = text.splitlines()
    if not lines or "SPDX-License-Identifier: Apache-2.0" not in lines[0]:
        bad.append(f"{path}:1: no SPDX line")
    if len(lines) < 2 or not lines[1].startswith("/*"):
        bad.append(f"{path}:2: no paragraph that says what the file owns")
    if len(lines) > FILE_LINES_MAX:
        bad.append(f"{path}: {len(lines)} lines, limit {FILE_LINES_MAX}")
    for number, line in enumerate(lines, 1):
        if re.search(r"\b(FIXME|XXX|HACK)\b", line) or re.search(r"\bTODO\b(?!\(#\d+\))", line):
            bad.append(f"{path}:{number}: leftover: {line.strip()[:60]}")
    for number, line in enumerate(strip(text).splitlines(), 1):
        match = BANNED.search(line)
        if match and not (HEAP.match(line[match.start():]) and str(path).startswith(HEAP_WRAPPERS)):
            bad.append(f"{path}:{number}: banned call {match.group(1)}")
    return bad


def check_functions(files: list[Path]) -> list[str]:
    bad = []
    out = subprocess.run(["ctags", "--c-kinds=f", "--fields=+neS", "--output-format=json", "-f", "-", *map(str, files)],
                         capture_output=True, text=True, check=True).stdout
    for line in out.splitlines():
        tag = json.loads(line)
        length = tag.get("end", tag["line"]) - tag["line"] + 1
        body = Path(tag["path"]).read_text().splitlines()[tag["line"] - 1: tag.get("end", tag["line"])]
        limit = SWITCH_LINES_MAX if any(re.search(r"\bswitch \(", b) for b in body) else FUNCTION_LINES_MAX
        if length > limit and not tag["path"].startswith("tests/"):
            bad.append(f"{tag['path']}:{tag['line']}: {tag['name']} has {length} lines, limit {limit}")
        parameters = len([p for p in tag.get("signature", "()").strip("()").split(",") if p.strip()])
        if parameters > PARAMETERS_ALLOWED.get(tag["name"], PARAMETERS_MAX) and not tag["path"].startswith("tests/"):
            bad.append(f"{tag['path']}:{tag['line']}: {tag['name']} takes {parameters} parameters, limit {PARAMETERS_MAX}")
    return bad


def check_comments(path: Path) -> list[str]:
    """Every prototype in a header has a comment before it or on its line; a run of prototypes may share one."""
    bad = []
    lines = path.read_text().splitlines()
    code = strip(path.read_text()).splitlines()
    depth, statement = 0, None
    for number, line in enumerate(code):
        if depth == 0 and statement is None and re.match(r"^(?!typedef|#|extern|static_assert|struct \w+ \{|enum)[\w].*", line):
            statement = number
        depth += line.count("{") - line.count("}")
        if statement is not None and (";" in line or "{" in line):
            text = " ".join(code[statement: number + 1])
            is_prototype = "(" in text and ";" in text and "{" not in text and "=" not in text
            above = statement - 1
            while above > 0 and lines[above].startswith("#define"):  # a size that belongs to the prototype
                above -= 1
            before = lines[above].strip() if statement else ""
            own = "/*" in " ".join(lines[statement: number + 1])
            if is_prototype and not own and not before.endswith("*/") and not before.endswith(";") and not before.endswith(")"):
                bad.append(f"{path}:{statement + 1}: prototype without a comment: {text.strip()[:70]}")
            statement = None
    return bad


def check_layout(files: list[Path]) -> list[str]:
    run = subprocess.run(["clang-format", "--dry-run", "-Werror", "--ferror-limit=1", *map(str, files)], capture_output=True, text=True)
    return sorted({line.split(": error")[0] + ": layout differs: run make format" for line in run.stderr.splitlines() if ": error" in line})


def main() -> int:
    files = [p for d in ("include", "src", "sim", "tests", "bench") for p in sorted(Path(d).rglob("*.[ch]"))]
    bad = [b for p in files for b in check_text(p)]
    bad += check_functions([p for p in files if p.suffix == ".c"])
    bad += [b for p in files if p.suffix == ".h" for b in check_comments(p)]
    bad += check_layout(files)
    bad += metrics.check()
    for line in bad:
        print(f"lint: {line}")
    print(f"lint: {len(files)} files, {len(bad)} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
