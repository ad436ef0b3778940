#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The agent's OCI image, made of the program and the Debian libraries it is linked with: no shell, no package manager, no base image.

usage: tools/image.py PROGRAM OUT

OUT becomes an OCI layout with two manifests: the image, named by the program's version, and its SBOM as a referrer. OUT.spdx.json is the SBOM
once more. The same program and libraries give the same digest: names are sorted, times are SOURCE_DATE_EPOCH (the last commit's), owners are
numbers.
"""
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

USER = 65532  # deploy/chart's runAsUser is the same
BUILT_IN = ("node-llhttp", "uthash-dev")  # packages whose code is inside the program itself
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MANIFEST, CONFIG = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"
LAYER, SPDX = "application/vnd.oci.image.layer.v1.tar+gzip", "application/spdx+json"
TEXTS = {
    "etc/passwd": f"root:x:0:0:root:/:/nonexistent\nshoal:x:{USER}:{USER}:shoal:/:/nonexistent\n",
    "etc/group": f"root:x:0:\nshoal:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def run(*args) -> str:
    return subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout


def epoch() -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], capture_output=True, text=True)
    return int(done.stdout or 0) if done.returncode == 0 else 0


def libraries(program: Path) -> dict[str, Path]:
    """Place in the image to file here, the program interpreter included."""
    found = {}
    for line in run("ldd", program).splitlines():
        match = re.match(r"\s+(?:\S+ => )?(/\S+) \(0x", line)
        if match:
            found[match.group(1).lstrip("/").removeprefix("usr/")] = Path(match.group(1))
        elif "not found" in line:
            sys.exit(f"image: {line.strip()}; install it first (make deps)")
    interpreter = re.search(r"interpreter: (/[^\]]+)\]", run("readelf", "-l", program))
    if interpreter is None or interpreter.group(1).lstrip("/") not in found:
        sys.exit(f"image: {program} is not linked dynamically")
    return found


def packages_of(paths: list[Path]) -> set[str]:
    """Debian packages of files: dpkg knows some by their name from before /lib moved into /usr."""
    names = {path: [path, path.resolve(), Path("/" + str(path.resolve()).removeprefix("/usr/"))] for path in paths}
    asked = sorted({str(name) for each in names.values() for name in each})
    listing = subprocess.run(["dpkg-query", "-S", *asked], capture_output=True, text=True).stdout
    owners = {line.partition(": ")[2]: line.partition(": ")[0].split(",")[0] for line in listing.splitlines()}
    found = {path: next((owners[str(name)] for name in each if str(name) in owners), None) for path, each in names.items()}
    strays = [str(path) for path, owner in found.items() if owner is None]
    if strays:
        sys.exit(f"image: of no Debian package, so the SBOM could not name it: {', '.join(strays)}")
    return set(found.values())


def package(name: str) -> dict:
    form = "${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\t${Maintainer}\n"
    fields = run("dpkg-query", "-W", "-f", form, name).splitlines()[0].split("\t")
    return dict(zip(("name", "version", "architecture", "source", "source_version", "supplier"), fields))


# ---- layers ----

class Layer:
    """A tar whose bytes follow from its contents alone."""

    def __init__(self, when: int):
        self.when, self.entries = when, {}

    def file(self, name: str, data: bytes, mode=0o644):
        self.entries[name] = (tarfile.REGTYPE, data, mode, 0)

    def directory(self, name: str, mode=0o755, owner=0):
        self.entries[name] = (tarfile.DIRTYPE, b"", mode, owner)

    def link(self, name: str, target: str):
        self.entries[name] = (tarfile.SYMTYPE, target.encode(), 0o777, 0)

    def tar(self) -> bytes:
        for name in list(self.entries):
            for parent in list(Path(name).parents)[:-1]:
                self.entries.setdefault(str(parent), (tarfile.DIRTYPE, b"", 0o755, 0))
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, (kind, data, mode, owner) in sorted(self.entries.items()):
                info = tarfile.TarInfo(name)
                info.type, info.mode, info.mtime, info.uid, info.gid = kind, mode, self.when, owner, owner
                if kind == tarfile.SYMTYPE:
                    info.linkname = data.decode()
                info.size = len(data) if kind == tarfile.REGTYPE else 0
                tar.addfile(info, io.BytesIO(data))
        return out.getvalue()


def system_layer(found: dict[str, Path], packages: list[dict], when: int) -> Layer:
    """All that changes with Debian's updates only."""
    layer = Layer(when)
    for top in sorted({name.split("/")[0] for name in found}):
        layer.link(top, f"usr/{top}")
        layer.directory(f"usr/{top}")
    for name, path in found.items():
        layer.file(f"usr/{name}", path.read_bytes(), 0o755)
    layer.file(AUTHORITIES.lstrip("/"), Path(AUTHORITIES).read_bytes())
    for name, text in TEXTS.items():
        layer.file(name, text.encode())
    for each in packages:
        terms = Path("/usr/share/doc") / each["name"] / "copyright"
        if terms.is_file():
            layer.file(str(terms).lstrip("/"), terms.read_bytes())
    return layer


def program_layer(program: Path, when: int) -> Layer:
    layer = Layer(when)
    with tempfile.TemporaryDirectory() as scratch:
        stripped = Path(scratch) / "shoal"
        run("strip", "-o", stripped, program)
        layer.file("usr/bin/shoal", stripped.read_bytes(), 0o755)
    layer.file("usr/share/doc/shoal/copyright", Path("LICENSE").read_bytes())
    layer.directory("etc/shoal")
    layer.directory("var/lib/shoal", 0o700, USER)
    return layer


# ---- what is in it ----

def sbom(version: str, packages: list[dict], digest: str, when: int) -> dict:
    """SPDX 2.3: the agent, and each Debian package that a file of the image is from."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
    entries = [{"SPDXID": "SPDXRef-shoal", "name": "shoal", "versionInfo": version, "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
                "licenseConcluded": "Apache-2.0", "licenseDeclared": "Apache-2.0", "copyrightText": "NOASSERTION", "primaryPackagePurpose": "APPLICATION"}]
    relations = [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-shoal"}]
    for each in packages:
        ident = "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"deb-{each['name']}")
        purl = f"pkg:deb/debian/{each['name'].replace('+', '%2B')}@{each['version'].replace('+', '%2B').replace(':', '%3A')}?arch={each['architecture']}"
        entries.append({
            "SPDXID": ident, "name": each["name"], "versionInfo": each["version"], "supplier": f"Organization: {each['supplier']}", "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False, "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
            "sourceInfo": f"Debian source package {each['source']} {each['source_version']}",
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}]})
        kind = "STATIC_LINK" if each["name"] in BUILT_IN else "OTHER" if each["name"] == "ca-certificates" else "DYNAMIC_LINK"
        relations.append({"spdxElementId": "SPDXRef-shoal", "relationshipType": kind, "relatedSpdxElement": ident})
    return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"shoal-{version}",
            "documentNamespace": f"https://spdx.org/spdxdocs/shoal-{version}-{digest}",
            "creationInfo": {"created": stamp, "creators": ["Tool: tools/image.py"]}, "packages": entries, "relationships": relations}


# ---- the layout ----

class Layout:
    def __init__(self, where: Path):
        self.where = where
        (where / "blobs/sha256").mkdir(parents=True)
        (where / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def put(self, data: bytes, media_type: str) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        (self.where / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def put_json(self, value: dict, media_type: str) -> dict:
        return self.put(json.dumps(value, sort_keys=True, separators=(",", ":")).encode(), media_type)


def image_config(version: str, tars: list[bytes], when: int, architecture: str) -> dict:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
    return {
        "architecture": architecture, "os": "linux", "created": stamp,
        "config": {
            # Not SHOAL_DATA_DIR, which would win over a configuration file.
            "User": f"{USER}:{USER}", "Entrypoint": ["/usr/bin/shoal"], "Cmd": ["agent"], "WorkingDir": "/", "StopSignal": "SIGTERM",
            "Env": ["PATH=/usr/bin", "XDG_DATA_HOME=/var/lib"],
            "Labels": {"org.opencontainers.image.title": "shoal", "org.opencontainers.image.version": version,
                       "org.opencontainers.image.licenses": "Apache-2.0",
                       "org.opencontainers.image.description": "Node agent that brings container images to all nodes of a cluster peer to peer"},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]},
        "history": [{"created": stamp, "created_by": "tools/image.py"} for _ in tars],
    }


def build(program: Path, where: Path) -> tuple[dict, int, int, int]:
    """The image's descriptor, bytes packed and unpacked, number of packages."""
    when, architecture = epoch(), ARCHITECTURES.get(platform.machine())
    if architecture is None:
        sys.exit(f"image: no OCI name known for {platform.machine()}")
    version = run(program, "version").split()[1]
    found = libraries(program)
    names = packages_of(list(found.values())) | {"ca-certificates"} | set(BUILT_IN)
    packages = sorted((package(name) for name in names), key=lambda each: each["name"])
    tars = [system_layer(found, packages, when).tar(), program_layer(program, when).tar()]
    layout = Layout(where)
    layers = [layout.put(gzip.compress(tar, 6, mtime=0), LAYER) for tar in tars]
    config = layout.put_json(image_config(version, tars, when, architecture), CONFIG)
    image = layout.put_json({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}, MANIFEST)
    bill = json.dumps(sbom(version, packages, image["digest"].partition(":")[2], when), indent=1, sort_keys=True).encode()
    empty = layout.put(b"{}", "application/vnd.oci.empty.v1+json")
    referrer = layout.put_json({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": SPDX, "config": empty, "layers": [layout.put(bill, SPDX)],
                                "subject": image}, MANIFEST)
    named = {**image, "annotations": {"org.opencontainers.image.ref.name": version}, "platform": {"architecture": architecture, "os": "linux"}}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [named, {**referrer, "artifactType": SPDX}]}
    (where / "index.json").write_text(json.dumps(index, sort_keys=True))
    where.with_name(where.name + ".spdx.json").write_bytes(bill)
    return image, sum(layer["size"] for layer in layers), sum(map(len, tars)), len(packages)


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    program, where = Path(sys.argv[1]), Path(sys.argv[2])
    fresh = where.with_name(where.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    image, packed, unpacked, count = build(program, fresh)
    shutil.rmtree(where, ignore_errors=True)
    fresh.rename(where)
    fresh.with_name(fresh.name + ".spdx.json").rename(where.with_name(where.name + ".spdx.json"))
    print(f"image: {image['digest']}\nimage: {packed / 2**20:.1f} MiB packed, {unpacked / 2**20:.1f} MiB unpacked, from {count} Debian packages; {where}, {where}.spdx.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
