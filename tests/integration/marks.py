# SPDX-License-Identifier: Apache-2.0
"""Marked secrets, and the search for them (HRD-4): what a suite gives to agents as a credential is made here, so that it is known in every
form that it may be written in. Of each lab that is taken down the agents' logs, pages, files and refusals are searched; what is found fails
the test that had the lab. A suite without credentials still has the cluster's secret and the nodes' keys.

Programs that a test starts make the same secrets of the same names: the seed is in their environment.
"""
import base64
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

SEED = os.environ.setdefault("LAB_MARKS", os.urandom(8).hex())
# The only file of a node's folder that holds a secret by order, its own: cluster secret, keys and logins lie outside of it.
IDENTITY = "data/identity"  # src/session/identity.c: a seed from byte 8 on, a session key behind it
# Of a secret with bytes that a line cannot hold, grep is given the longest rest; so much of it stands for the whole.
PART_BYTES_MIN = 8

settings: dict[str, str] = {}  # of every agent, for the runner to pass on
_known: dict[str, bytes] = {}  # of the whole suite
_hits: list[str] = []
_swept = {"labs": 0, "places": 0, "bytes": 0, "debug": 0}


def forms(secret: bytes) -> list[bytes]:
    """How a secret may be written: itself; hex; percent-encoded; base64 wherever it stands in a longer text, without the ends that
    depend on its neighbours."""
    found = [secret, secret.hex().encode(), secret.hex().upper().encode(), "".join(f"%{b:02x}" for b in secret).encode(),
             "".join(f"%{b:02X}" for b in secret).encode()]
    for shift in range(3):
        for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
            text = alphabet(b"\0" * shift + secret)
            found.append(text[4 if shift else 0:(len(secret) + shift) // 3 * 4])
    return found


def pem_secret(path: Path) -> bytes:
    """A part of a PEM key's body that no public part of it has: a line of base64."""
    lines = path.read_text().splitlines()
    return lines[len(lines) // 3].encode()


def know(name: str, value: bytes):
    """A secret that something else made. From now on agents are started at debug level."""
    _known[name] = value
    settings["log.level"] = "debug"


def secret(name: str) -> str:
    """A login, token or signature of this name: letters and digits."""
    text = f"{name.upper()}mark{hashlib.sha256(f'{SEED} {name}'.encode()).hexdigest()[:24]}"
    know(name, text.encode())
    return text


def given() -> bool:
    """Does this suite give credentials to its agents?"""
    return bool(_known)


def found(text: bytes, secrets: dict[str, bytes]) -> list[str]:
    return [name for name, value in secrets.items() if any(form in text for form in forms(value))]


def _look(place: str, text: bytes, secrets: dict[str, bytes], allowed=()):
    _swept["places"] += 1
    _swept["bytes"] += len(text)
    for name in found(text, secrets):
        if name not in allowed:
            where = min(text.find(form) for form in forms(secrets[name]) if form in text)
            _hits.append(f"{name} in {place}: ...{text[max(where - 60, 0):where]!r}<{name}>")


def answered(path: str, asked, status: int, text: bytes):
    """A refusal. A registry's words are passed on, and it may repeat what this client itself has just said; nobody else's."""
    if status >= 400:
        _look(f"the answer to {path.partition('?')[0][:90]} ({status})", text, _known, found(" ".join((path, *map(str, asked))).encode(), _known))


# ---- a lab that is taken down ----

def secrets_of(lab) -> dict[str, bytes]:
    """The suite's, and the lab's own."""
    secrets = {**_known, "cluster": bytes.fromhex(lab.secret.read_text())}
    for node in lab.nodes:
        identity = node.dir / IDENTITY
        if identity.is_file() and len(key := identity.read_bytes()) >= 72:
            secrets[f"identity{node.index}"], secrets[f"session-key{node.index}"] = key[8:40], key[40:72]
    return secrets


def sweep_living(lab):
    """Pages of agents that answer; one that is stopped or frozen is looked at by its files alone."""
    secrets = secrets_of(lab)
    for node in lab.nodes:
        for page in ("/metrics", "/status", "/page.json") if node.process and node.process.alive() else ():
            done = subprocess.run(node.exec("curl", "-s", "-m", "1", f"http://127.0.0.1:{node.admin_port}{page}"), capture_output=True)
            if done.returncode != 0:
                break
            _look(f"{node.name} {page}", done.stdout, secrets)


def _patterns(secrets: dict[str, bytes]) -> bytes:
    lines = (max(form.split(b"\n"), key=len) for value in secrets.values() for form in forms(value))
    return b"\n".join({line for line in lines if len(line) >= PART_BYTES_MIN}) + b"\n"


def _without_holes(folders, dense: Path) -> set[str]:
    """Copies what is in files that are mostly holes, and in others of their names, to `dense`; their names. Reading GBs of zeros takes a minute."""
    paths = [path for folder in folders for path in folder.rglob("*.data") if path.is_file() and not path.is_symlink()]
    names = {path.name for path in paths if path.stat().st_blocks * 512 < path.stat().st_size // 2}
    for path in (path for path in paths if path.name in names):
        place = dense / path.parent.relative_to("/")
        place.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as file, (place / (path.name + ".dense")).open("wb") as out:
            at, end = 0, path.stat().st_size
            while at < end:
                try:
                    at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:  # nothing but a hole is left
                    break
                stop = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                out.write(os.pread(file.fileno(), stop - at, at))
                at = stop
    return names


def sweep_files(lab):
    """Logs, and where this suite has credentials the folders of cache and state."""
    secrets = secrets_of(lab)
    _swept["labs"] += 1
    for node in lab.nodes:
        for log in node.dir.glob("agent*.log"):
            text = log.read_bytes()
            _swept["debug"] += any(level in text.upper() for level in (b" DEBUG ", b" TRACE ", b'"DEBUG"', b'"TRACE"'))
            _look(f"{node.name}/{log.name}", text, secrets)
    folders = [folder for node in lab.nodes for folder in node.dir.glob("data*") if folder.is_dir()] if given() else []
    if not folders:
        return
    with tempfile.NamedTemporaryFile() as patterns, tempfile.TemporaryDirectory() as dense:
        patterns.write(_patterns(secrets))
        patterns.flush()
        sparse = _without_holes(folders, Path(dense))
        done = subprocess.run(["grep", "-rlaF", "-D", "skip", f"--exclude={Path(IDENTITY).name}", *(f"--exclude={name}" for name in sparse),
                               "-f", patterns.name, *map(str, folders), dense],
                              capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode > 1:
        _hits.append(f"the search in files failed: {done.stderr[-300:]}")
    _swept["places"] += len(folders)
    for file in done.stdout.splitlines():
        data = Path(file).read_bytes()
        names = found(data, secrets)
        _look(re.sub(r".*/(node\d+/)", r"\1", file), data, {name: secrets[name] for name in names})


# ---- for the runner ----

def take_hits() -> list[str]:
    """What was found since the last call."""
    hits = list(dict.fromkeys(_hits))
    _hits.clear()
    return hits


def summary() -> str:
    """For a suite with credentials: what was looked for, and where; AssertionError if that shows nothing."""
    if _swept["labs"] and not (_swept["places"] and _swept["debug"]):
        raise AssertionError(f"HRD-4: nothing was swept, or no agent logged at debug: {_swept}")
    return f"HRD-4: {len(_known)} marked secrets, looked for in {_swept['places']} places of {_swept['labs']} labs, {_swept['bytes'] >> 10} KiB of logs and answers, and the cache"
