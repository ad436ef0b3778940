# SPDX-License-Identifier: Apache-2.0
"""OCI layouts made by hand: random images, an image that really runs (busybox), a multi-arch index; pushed with skopeo."""
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from lab import gzip_stored, layer_tar, put_blob, run

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
BUSYBOX = Path("/bin/busybox")


def busybox_tar() -> bytes:
    """A root file system of busybox and links to it, with a file that makes each image's own."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(directory("bin"))
        tar.add(BUSYBOX, "bin/busybox")
        for name in ("sh", "echo", "sha256sum", "cat"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        salt = tarfile.TarInfo("salt")
        salt.size = 4096
        tar.addfile(salt, io.BytesIO(os.urandom(salt.size)))
    return out.getvalue()


def directory(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


class Layout:
    """An OCI image layout in a directory of its own, removed with it."""

    def __init__(self, scratch: Path):
        self.dir = Path(tempfile.mkdtemp(dir=scratch))
        self.blobs = self.dir / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        (self.dir / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def image(self, tars: list[bytes], architecture="amd64", command: list[str] | None = None) -> dict:
        """Descriptor of an image of these layers; in the extra keys parts (config and layers of its manifest) and diff_ids."""
        packed = [gzip_stored(t) if len(t) > (4 << 20) else gzip.compress(t, 1, mtime=0) for t in tars]
        layers = [put_blob(self.blobs, p, LAYER) for p in packed]
        config = {"architecture": architecture, "os": "linux", "config": {"Cmd": command or ["/bin/true"], "Env": ["PATH=/bin"]},
                  "rootfs": {"type": "layers", "diff_ids": [put_digest(t) for t in tars]}}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": put_blob(self.blobs, json.dumps(config).encode(), CONFIG), "layers": layers}
        descriptor = put_blob(self.blobs, json.dumps(manifest).encode(), MANIFEST)
        return {**descriptor, "platform": {"architecture": architecture, "os": "linux"}, "parts": manifest, "diff_ids": config["rootfs"]["diff_ids"]}

    def index(self, images: list[dict]) -> dict:
        manifests = [{k: v for k, v in image.items() if k not in ("parts", "diff_ids")} for image in images]
        return put_blob(self.blobs, json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode(), INDEX)

    def push(self, lab, repository: str, descriptor: dict, tag="1"):
        entry = {k: descriptor[k] for k in ("mediaType", "digest", "size")}
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
        (self.dir / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        run(*lab.origin_exec("skopeo", "--insecure-policy", "copy", "-q", "--all", "--preserve-digests", "--dest-tls-verify=false",
                             f"oci:{self.dir}:{tag}", f"docker://{lab.origin_address}:{lab.registry_port}/{repository}:{tag}"))
        shutil.rmtree(self.dir)


def put_digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def push_runnable(lab, repository: str, pad_bytes=6 << 20) -> dict:
    """An image that runs `echo` in busybox, with a layer of random bytes so that a pull is worth counting."""
    layout = Layout(lab.dir)
    image = layout.image([busybox_tar(), layer_tar("pad.bin", pad_bytes)], command=["/bin/sh", "-c", "echo hello from the image"])
    layout.push(lab, repository, image)
    return image


def push_multi(lab, repository: str, layer_bytes=5 << 20) -> tuple[dict, list[dict]]:
    """An index over two architectures with a common layer and one of their own: (index descriptor, images)."""
    layout = Layout(lab.dir)
    common = layer_tar("common.bin", layer_bytes)
    images = [layout.image([common, layer_tar(f"{arch}.bin", layer_bytes)], arch) for arch in ("amd64", "arm64")]
    index = layout.index(images)
    layout.push(lab, repository, index)
    return index, images
