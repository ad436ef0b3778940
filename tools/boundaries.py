#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Proves the one-way arrows of the house (DESIGN 1) on sources and on object files.

boundaries.py BUILD_DIR

1. Includes: each module includes only the public headers of what it may see; only named files include a library.
2. Arrows: each symbol an object needs is defined in its own module or in one it may see.
3. Cores: no symbol that reaches for sockets, files, clocks, randomness, threads or the heap; nothing in .data or .bss.
"""
import re
import subprocess
import sys
from pathlib import Path

BASE = {"err.h", "types.h", "limits.h", "env.h", "log.h", "bytes.h", "digest.h", "piece_map.h", "topology.h", "member.h", "directory.h",
        "nearest.h", "quantity.h", "yaml_items.h"}
PUBLIC = {
    "base": BASE,
    "wire": {"wire.h", "wire_gossip.h", "wire_dht.h", "wire_transfer.h", "wire_order.h"},
    "session": {"session.h"},
    "gossip": {"gossip.h"},
    "dht": {"dht.h"},
    "transfer": {"transfer.h", "prefetch.h"},
    "mesh": {"mesh.h"},
    "cache": {"cache.h"},
    "registry": {"registry.h", "acr.h"},
    "http": {"http.h"},
    "runtime": {"runtime.h"},
    "daemon": set(),
}
# What each module may see, itself apart.
SEES = {
    "base": [],
    "wire": ["base"],
    "session": ["base", "wire"],
    "gossip": ["base", "wire"],
    "dht": ["base", "wire"],
    "transfer": ["base", "wire"],
    "mesh": ["base", "wire", "gossip", "dht", "transfer"],
    "cache": ["base"],
    "registry": ["base"],
    "http": ["base", "registry"],
    "runtime": ["base"],
    "daemon": ["base", "wire", "session", "gossip", "dht", "transfer", "mesh", "cache", "registry", "http", "runtime"],
    "sim": ["base", "wire", "gossip", "dht", "transfer", "mesh", "cache"],
}
CORES = ["gossip", "dht", "transfer", "mesh"]
PURE = ["base", "wire"] + CORES  # .data and .bss empty here too
# Library headers and the only places that may include them (prefixes of paths).
LIBRARIES = {
    r"uv\.h": ["src/daemon/"],
    r"curl/": ["src/registry/fetch_curl"],
    r"openssl/": ["src/base/digest.c", "src/session/aead.c", "src/registry/acr_sign.c", "src/daemon/tls_"],
    r"gcrypt\.h": ["src/session/aead.c"],
    # In the registry: base64 of logins, and memory with keys or tokens that is wiped.
    r"sodium": ["src/session/", "src/daemon/", "src/registry/acr_", "src/registry/login.c", "src/registry/origin_auth.c", "src/registry/origin_token.c"],
    r"msgpack": ["src/wire/"],
    r"llhttp\.h": ["src/http/"],
    r"jansson\.h": ["src/registry/", "src/runtime/docker.c", "src/runtime/state.c", "src/daemon/", "sim/"],
    r"yaml\.h": ["src/base/yaml_items.c"],
    r"(sys/socket|netinet/|netdb)": ["src/daemon/", "src/registry/fetch_curl"],
    r"(fcntl|sys/stat|dirent)\.h": ["src/daemon/", "src/cache/store_disk", "src/cache/store_content", "src/runtime/", "sim/"],
    r"(time|sys/time|pthread)\.h": ["src/daemon/", "src/cache/", "src/registry/fetch_curl", "src/registry/origin_retry", "src/registry/acr_text", "sim/"],
}
FORBIDDEN = re.compile(
    r"^(uv_|curl_|pthread_|sodium_|randombytes|RAND_|crypto_|"
    r"(socket|connect|bind|listen|accept|accept4|send|sendto|sendmsg|recv|recvfrom|recvmsg|poll|select|epoll_\w+|"
    r"open|open64|openat|close|read|write|pread|pread64|pwrite|pwrite64|fopen|fopen64|fclose|fread|fwrite|printf|puts|stat|unlink|rename|"
    r"time|clock|clock_gettime|gettimeofday|localtime\w*|gmtime\w*|rand|random|srand\w*|getrandom|arc4random\w*|"
    r"getenv|malloc|calloc|realloc|free|strdup|exit|system)$)"
)


def module_of(path: Path) -> str:
    return path.parts[1] if path.parts[0] == "src" else path.parts[0]


def check_includes() -> list[str]:
    bad = []
    for path in sorted([*Path("src").rglob("*.[ch]"), *Path("sim").rglob("*.[ch]")]):
        module = module_of(path)
        allowed = set().union(*(PUBLIC.get(m, set()) for m in [module, *SEES[module]]))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
            if not match:
                continue
            name = match.group(2)
            where = f"{path}:{number}"
            if match.group(1) == '"':
                local = path.parent / name
                public = Path("include") / name
                if public.exists() and name not in allowed:
                    bad.append(f"{where}: {module} may not see {name}")
                elif not public.exists() and not local.exists():
                    bad.append(f"{where}: {name} is neither public nor of this module")
                elif not public.exists() and local.resolve().parent != path.parent.resolve():
                    bad.append(f"{where}: {name} is internal to another module")
                continue
            for pattern, places in LIBRARIES.items():
                if re.match(pattern, name) and not any(str(path).startswith(p) for p in places):
                    bad.append(f"{where}: <{name}> belongs to {', '.join(places)}")
    return bad


def symbols(objects: list[Path]) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Defined and needed global symbols of each object file."""
    defined: dict[str, set[str]] = {}
    needed: dict[str, set[str]] = {}
    for path in objects:
        out = subprocess.run(["nm", "-g", str(path)], capture_output=True, text=True, check=True).stdout
        for line in out.splitlines():
            parts = line.split()
            kind, name = parts[-2], parts[-1]
            (needed if kind in "Uwv" else defined).setdefault(str(path), set()).add(name)
    return defined, needed


def check_objects(build: Path) -> list[str]:
    bad = []
    objects = [p for m in SEES if m != "sim" for p in sorted((build / "src" / m).glob("*.o"))]
    objects += sorted((build / "sim").glob("*.o"))
    if not objects:
        return [f"no objects under {build}: build first"]
    owner: dict[str, str] = {}
    defined, needed = symbols(objects)
    module = {str(p): module_of(p.relative_to(build)) for p in objects}
    for path, names in defined.items():
        for name in names:
            owner[name] = module[path]
    for path, names in sorted(needed.items()):
        mine = module[path]
        for name in sorted(names):
            theirs = owner.get(name)
            if theirs is not None and theirs != mine and theirs not in SEES[mine]:
                bad.append(f"{path}: {mine} needs {name} of {theirs}, which it may not see")
            if mine in CORES and FORBIDDEN.match(name):
                bad.append(f"{path}: a core needs {name}")
    for path in objects:
        if module[str(path)] not in PURE:
            continue
        out = subprocess.run(["size", "-A", str(path)], capture_output=True, text=True, check=True).stdout
        for line in out.splitlines():
            parts = line.split()
            if len(parts) >= 2 and re.match(r"\.(data|bss)(?!\.rel\.ro)", parts[0]) and int(parts[1]) > 0:
                bad.append(f"{path}: {parts[0]} holds {parts[1]} bytes: mutable statics")
    return bad


def main() -> int:
    build = Path(sys.argv[1] if len(sys.argv) > 1 else "build")
    bad = check_includes() + check_objects(build)
    for line in bad:
        print(f"boundaries: {line}")
    if not bad:
        print("boundaries: every arrow points one way")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
