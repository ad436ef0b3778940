#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A small, strict registry of the OCI distribution-spec 1.1: what Debian's docker-registry (2.8) does not have yet.

SHA-512, pages of tags and referrers with Link, referrers with and without artifactType, manifests of any type, 404 for
types that were not asked for. Content comes in by the spec's own push; in repositories below absolute/ links are whole URLs,
and HEAD tells no length below unsized/.
"""
import argparse
import hashlib
import json
import re
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

INDEX = "application/vnd.oci.image.index.v1+json"
NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
REFERRERS_PER_PAGE = 2


def digest_of(data: bytes, algorithm="sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class Repository:
    def __init__(self):
        self.blobs, self.manifests, self.tags, self.referrers = {}, {}, {}, {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: dict[str, Repository] = {}

    def log_message(self, *_):
        pass

    log: Path | None = None

    def answer(self, status: int, body=b"", **headers):
        if self.log:
            with self.log.open("a") as log:
                log.write(f"{self.command} {status} {self.path}\n")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if not (self.command == "HEAD" and self.path.startswith("/v2/unsized/")):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str):
        self.answer(status, json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode(), Content_Type="application/json")

    def route(self):
        """(repository's name, kind, reference, query), or None after an answer."""
        url = urllib.parse.urlsplit(self.path)
        match = re.fullmatch(rf"/v2/({NAME})/(manifests|blobs|referrers|tags)/([^/]+|uploads/[^/]*)", url.path)
        if match:
            return (*match.groups(), dict(urllib.parse.parse_qsl(url.query)))
        if url.path == "/v2/":
            self.answer(200, b"{}", Content_Type="application/json")
        else:
            self.refuse(404, "NAME_INVALID")
        return None

    # ---- push ----

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.answer(202, Location=f"{self.path}1")

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name, kind, reference, query = self.route()
        repository = self.repositories.setdefault(name, Repository())
        if kind == "blobs":
            repository.blobs[query["digest"]] = body
        else:
            digest = reference if DIGEST.fullmatch(reference) else digest_of(body)
            self.keep(repository, digest, body)
            if digest != reference:
                repository.tags[reference] = digest
            if "tag" in query:  # of distribution-spec 1.2: tags beside a digest of any algorithm
                repository.tags[query["tag"]] = digest
        self.answer(201)

    def keep(self, repository: Repository, digest: str, body: bytes):
        value, media_type = json.loads(body), self.headers["Content-Type"]
        repository.manifests[digest] = (media_type, body)
        if "subject" in value:
            what = value.get("artifactType") or value.get("config", {}).get("mediaType", "")
            repository.referrers.setdefault(value["subject"]["digest"], []).append(
                {"mediaType": media_type, "digest": digest, "size": len(body), "artifactType": what})

    # ---- pull ----

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        found = self.route()
        if found is None:
            return
        name, kind, reference, query = found
        repository = self.repositories.get(name)
        if kind != "tags" and ":" in reference and not DIGEST.fullmatch(reference):
            self.refuse(400, "DIGEST_INVALID")
        elif repository is None:
            self.refuse(404, "NAME_UNKNOWN")
        else:
            getattr(self, f"get_{kind}")(name, repository, reference, query)

    def get_manifests(self, name, repository, reference, query):
        digest = repository.tags.get(reference, reference)
        media_type, body = repository.manifests.get(digest, (None, b""))
        wanted = {part.partition(";")[0].strip() for line in self.headers.get_all("Accept", ["*/*"]) for part in line.split(",")}
        if media_type is None or not wanted & {media_type, "*/*"}:
            self.refuse(404, "MANIFEST_UNKNOWN")
        elif self.headers.get("If-None-Match") == f'"{digest}"':
            self.answer(304, ETag=f'"{digest}"')
        else:
            self.answer(200, body, Content_Type=media_type, Docker_Content_Digest=digest, ETag=f'"{digest}"')

    def get_blobs(self, name, repository, reference, query):
        data = repository.blobs.get(reference)
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if data is None:
            self.refuse(404, "BLOB_UNKNOWN")
            return
        if not match:
            self.answer(200, data, Content_Type="application/octet-stream", Docker_Content_Digest=reference, Accept_Ranges="bytes")
            return
        first = int(match[1]) if match[1] else max(len(data) - int(match[2]), 0)
        last = min(int(match[2]), len(data) - 1) if match[1] and match[2] else len(data) - 1
        if first > last:
            self.answer(416, Content_Range=f"bytes */{len(data)}")
            return
        self.answer(206, data[first:last + 1], Content_Type="application/octet-stream", Docker_Content_Digest=reference, Accept_Ranges="bytes",
                    Content_Range=f"bytes {first}-{last}/{len(data)}")

    def link(self, name: str, path: str) -> dict[str, str]:
        base = f"http://{self.headers['Host']}" if name.startswith("absolute/") else ""
        return {"Link": f'<{base}{path}>; rel="next"'}

    def get_tags(self, name, repository, reference, query):
        tags = sorted(tag for tag in repository.tags if tag > query.get("last", ""))
        page = tags[:int(query.get("n", len(tags)))]
        more = {}
        if len(page) < len(tags) and page:
            more = self.link(name, f"/v2/{name}/tags/list?last={page[-1]}&n={query['n']}")
        self.answer(200, json.dumps({"name": name, "tags": page}).encode(), Content_Type="application/json", **more)

    def get_referrers(self, name, repository, reference, query):
        found = repository.referrers.get(reference, [])
        headers = {}
        if "artifactType" in query:
            found = [one for one in found if one["artifactType"] == query["artifactType"]]
            headers["OCI_Filters_Applied"] = "artifactType"
        at = int(query.get("from", "0"))
        page = found[at:at + REFERRERS_PER_PAGE]
        if at + len(page) < len(found):
            again = urllib.parse.urlencode({**query, "from": at + len(page)})
            headers.update(self.link(name, f"/v2/{name}/referrers/{reference}?{again}"))
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": page}).encode()
        self.answer(200, body, Content_Type=INDEX, **headers)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, help="a line for each request: method, status, path")
    options = parser.parse_args()
    Handler.log = options.log
    server = ThreadingHTTPServer((options.host, options.port), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
