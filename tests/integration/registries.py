#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `registries:` list with real registries behind TLS: patterns, addresses (ORG-1, ORG-2, ORG-6)."""
import sys
from contextlib import contextmanager
from pathlib import Path

import it
import stub_registry as stub
from lab import Lab, run
from pull import fetch

TLS_PORT = 5443
ACCEPT = f"Accept: {stub.MANIFEST}"


def ns(name: str) -> str:
    return f"?ns={name.replace(':', '%3A')}"


def make_certificate(directory: Path, name: str, *names: str) -> tuple[Path, Path]:
    """A certificate of its own authority for these names; (certificate, key)."""
    cert, key = directory / f"{name}.crt", directory / f"{name}.key"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", f"/CN={name}",
        "-addext", "subjectAltName=" + ",".join(f"DNS:{n}" for n in names))
    return cert, key


@contextmanager
def tls_registry(entries, nodes=1, extra=None, **tls):
    """A registry with an image lib/app, open in plain HTTP to the test and by TLS to the agents. `entries`: of the lab's certificate."""
    with Lab(nodes) as lab:
        cert, key = make_certificate(lab.dir, "registry", "registry.test", "*.pattern.test", "*.other.test")
        lab.start_registry()
        lab.start_registry(port=TLS_PORT, name="registry-tls", tls={"certificate": str(cert), "key": str(key), **tls})
        lab.image = lab.push_image("lib/app", [1 << 20, 3 << 20])
        lab.registries = entries(str(cert))
        lab.start_nodes(extra)
        if nodes > 1:
            lab.wait_members()
        yield lab


def pull(node, registry: str, image: dict, *args) -> int:
    """The image's manifest and blobs by this name, checked; the first status that is not 200, else 200."""
    status, _, body = fetch(node, f"/v2/lib/app/manifests/1{ns(registry)}", "-H", ACCEPT, *args)
    if status != 200:
        return status
    it.check(stub.digest_of(body) == image["digest"], f"{registry}: another manifest")
    for blob in (image["config"], *image["layers"]):
        status, _, body = fetch(node, f"/v2/lib/app/blobs/{blob['digest']}{ns(registry)}", *args)
        if status != 200:
            return status
        it.check(stub.digest_of(body) == blob["digest"], f"{registry}: wrong bytes of {blob['digest']}")
    return 200


def test_org_1_patterns():
    """containerd's _default: names below a pattern are served each as itself; what no pattern fits is 404, and nobody is asked."""
    def entries(ca):
        return [{"name": f"*.pattern.test:{TLS_PORT}", "ca": ca, "allowPrivate": True}, {"name": "*", "ca": ca}]
    with tls_registry(entries) as lab:
        node = lab.nodes[0]
        for name in ("one", "two", "ONE"):
            status = pull(node, f"{name}.pattern.test:{TLS_PORT}", lab.image)
            it.check(status == 200, f"{name}: {status}")
        for name, wanted in ((f"one.other.test:{TLS_PORT}", 503), ("localhost", 404), (f"{lab.origin_address}:{lab.registry_port}", 404), ("%2A", 400)):
            status, _, body = fetch(node, f"/v2/lib/app/manifests/1{ns(name)}", "-H", ACCEPT)
            it.check(status == wanted, f"{name}: {status} {body[:200]}")
            it.check(status != 503 or b"not allowed" in body or b"refused" in body, f"{name}: {body[:300]}")


if __name__ == "__main__":
    sys.exit(it.main(globals()))
