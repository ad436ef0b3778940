#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""README's table of configuration keys, held against `shoal config show --markdown`; `--write` makes it anew.

usage: tools/config_table.py [--write]
"""
import subprocess
import sys
from pathlib import Path

README = Path("README.md")
HEAD = "| Key | Default | Allowed | Meaning |\n|---|---|---|---|\n"


def main() -> int:
    wanted = subprocess.run(["build/shoal", "config", "show", "--markdown"], check=True, capture_output=True, text=True).stdout
    wanted = wanted[wanted.index(HEAD):].rstrip("\n") + "\n"
    text = README.read_text()
    start = text.index(HEAD)
    end = text.index("\n\n", start) + 1
    if text[start:end] == wanted:
        return 0
    if sys.argv[1:] == ["--write"]:
        README.write_text(text[:start] + wanted + text[end:])
        return 0
    print("config_table: README's table of keys is not what `shoal config show --markdown` prints; run tools/config_table.py --write", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
