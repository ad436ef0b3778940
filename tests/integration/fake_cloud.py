#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Alibaba Cloud as an agent sees it (ACR.md 9): metadata service, STS, Container Registry's API; a port each, and one for the test. With
--registry also an instance's registry, which sends who asks it for blobs to OSS by a signed URL, and OSS, on port 80.

It does not only answer, it checks: signatures of both versions computed here from the rules, nonces, times, which credentials were issued,
the pod's token against its file. Every secret it gives out holds MARK. The test's port: POST /set changes settings, GET /log tells what was asked.
"""
import argparse
import base64
import hashlib
import hmac
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MARK = "SECRETMARK"
KEY_ID, KEY_SECRET = "LTAI5tLabKey0001", f"{MARK}keyabcdefghijklmnop"
ROLE_A, ROLE_B, PROVIDER = "acs:ram::1234:role/acr-a", "acs:ram::5678:role/acr-b", "acs:ram::1234:oidc-provider/ack-rrsa-lab"
INSTANCE, REGION, VPC = "cri-lab1", "cn-lab", "vpc-lab1"
TIME_WINDOW_S = 900


class Refused(Exception):
    def __init__(self, status, code, message="refused by the fake"):
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


def encode(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")


def canonical_query(params: dict) -> str:
    return "&".join(f"{encode(k)}={encode(v)}" for k, v in sorted(params.items(), key=lambda kv: kv[0].encode()))


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class State:
    def __init__(self):
        self.lock = threading.Lock()
        self.log, self.nonces, self.metadata_tokens = [], set(), set()
        self.tokens, self.ended = {}, set()  # the registry's: token -> end; signed URLs that ended before their time
        self.issued = {}  # temporary credentials: id -> secret, token, end
        self.settings = {
            "metadata": "normal",  # normal, hardened, plain, no_role, slow, failed
            "role": "worker-role", "clock": 0, "life": 3600, "token_bytes": 600, "jwt_file": "", "role_b_max": 43200,
            "domains": [], "public": [], "user": [], "vpc": VPC, "link": "RUNNING", "enable": True,
            "url_life": 1200, "auth": "", "token_life": 300, "blob": "redirect",  # auth: bearer, basic; blob: redirect, relative, direct
            # {"action", "times", "status", "code", "headers", "kind"}: of STS and CR json, xml, false, slow, cut, missing; the registry's actions
            # are manifest and blob; of OSS, action oss: short, stall, reset, expire, else the status
            "faults": [],
        }

    def now(self) -> float:
        return time.time() + self.settings["clock"]

    def issue(self) -> dict:
        """Temporary credentials, remembered."""
        key = "STS." + uuid.uuid4().hex[:16]
        filler = "aA+/=" * (self.settings["token_bytes"] // 5)
        keys = {"AccessKeyId": key, "AccessKeySecret": f"{MARK}{uuid.uuid4().hex}", "SecurityToken": f"CAIS{MARK}{uuid.uuid4().hex}{filler}",
                "Expiration": stamp(self.now() + self.settings["life"])}
        with self.lock:
            self.issued[key] = {**keys, "end": self.now() + self.settings["life"]}
        return keys

    def fault(self, action: str) -> dict | None:
        with self.lock:
            for fault in self.settings["faults"]:
                if fault["action"] == action and fault.get("times", 1) > 0:
                    fault["times"] = fault.get("times", 1) - 1
                    return fault
        return None

    def check_nonce(self, nonce: str, when: str):
        try:
            seconds = time.mktime(time.strptime(when, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
        except ValueError:
            raise Refused(400, "InvalidTimeStamp.Format") from None
        if abs(seconds - self.now()) > TIME_WINDOW_S:
            raise Refused(400, "InvalidTimeStamp.Expired")
        with self.lock:
            if not nonce or nonce in self.nonces:
                raise Refused(400, "SignatureNonceUsed")
            self.nonces.add(nonce)

    def secret_of(self, key: str, token: str) -> str:
        if key == KEY_ID and not token:
            return KEY_SECRET
        known = self.issued.get(key)
        if known is None:
            raise Refused(404, "InvalidAccessKeyId.NotFound")
        if not token:
            raise Refused(400, "MissingSecurityToken")
        if token != known["SecurityToken"]:
            raise Refused(400, "InvalidSecurityToken.MismatchWithAccessKey")
        if known["end"] < self.now():
            raise Refused(403, "InvalidSecurityToken.Expired")
        return known["AccessKeySecret"]


STATE = State()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    role = ""

    def log_message(self, *_):
        pass

    def date_time_string(self, timestamp=None):
        return formatdate(STATE.now(), usegmt=True)

    def answer(self, status: int, body, headers=None, kind="application/json"):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def note(self, **what):
        with STATE.lock:
            STATE.log.append({"role": self.role, "at": time.time(), **what})

    def give_range(self, data: bytes, fault=""):
        """One range; what is invalid or reaches past the end gets the whole object, as OSS does it. With a fault half of it, then what the fault is."""
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        low, high = int(first or -1), int(last or len(data) - 1)
        part = bool(first) and low <= high < len(data)
        body = data[low:high + 1] if part else data
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {low}-{high}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:len(body) // 2] if fault else body)
        self.wfile.flush()
        self.close_connection = bool(fault)
        if fault == "stall":
            time.sleep(8)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))


class Metadata(Handler):
    role = "metadata"

    def do_PUT(self):
        mode = STATE.settings["metadata"]
        self.body()
        ttl = self.headers.get("X-aliyun-ecs-metadata-token-ttl-seconds", "")
        self.note(path=self.path, method="PUT")
        if mode == "slow":
            time.sleep(2)
        if self.path != "/latest/api/token" or mode == "plain":
            self.answer(404, "", kind="text/plain")
        elif self.headers.get("X-Forwarded-For"):
            self.answer(403, "", kind="text/plain")
        elif not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
            self.answer(400, "", kind="text/plain")
        else:
            token = f"{MARK}{uuid.uuid4().hex}"
            STATE.metadata_tokens.add(token)
            self.answer(200, token + "\n", kind="text/plain")

    def do_GET(self):
        mode, settings = STATE.settings["metadata"], STATE.settings
        token = self.headers.get("X-aliyun-ecs-metadata-token")
        self.note(path=self.path, method="GET", token=token is not None)
        roles = "ram/security-credentials/"
        texts = {"region-id": REGION, "vpc-id": VPC, "zone-id": f"{REGION}-a", "vswitch-id": "vsw-lab1"}
        path = self.path.removeprefix("/latest/meta-data/")
        if token is not None and token not in STATE.metadata_tokens:
            self.answer(401, "", kind="text/plain")
        elif token is None and mode == "hardened":
            self.answer(403, "", kind="text/plain")
        elif path in texts:
            self.answer(200, texts[path] + "\n", kind="text/plain")
        elif path == roles and mode != "no_role":
            self.answer(200, settings["role"], kind="text/plain")
        elif path == roles + settings["role"]:
            keys = {"Code": "Failed"} if mode == "failed" else {**STATE.issue(), "Code": "Success"}
            self.answer(200, keys, kind="text/plain")
        else:
            self.answer(404, "", kind="text/plain")


class OpenApi(Handler):
    version = ""

    def do_GET(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def serve(self):
        raw = self.body()
        path, _, query = self.path.partition("?")
        params = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        action = self.headers.get("x-acs-action", "")
        doubled = [n for n in {k.lower() for k in self.headers} if len(self.headers.get_all(n)) > 1]
        try:
            if path != "/" or doubled:
                raise Refused(400, "BadRequest", f"path {path}, doubled headers {doubled}")
            if action:
                how = "v3"
                self.check_v3(action, params, raw)
            else:
                form = dict(urllib.parse.parse_qsl(raw.decode(), keep_blank_values=True))
                params.update(form)
                action = params.get("Action", "")
                how = "none" if action == "AssumeRoleWithOIDC" else "v1"
                self.check_v1(action, params)
            self.note(action=action, signed=how, code="")
            self.fault_or_answer(action, params)
        except Refused as refused:
            self.note(action=action or params.get("Action", ""), code=refused.code)
            self.refuse(refused)

    def refuse(self, refused: Refused):
        self.answer(refused.status, {"RequestId": str(uuid.uuid4()).upper(), "HostId": self.headers["Host"], "Code": refused.code, "Message": refused.message})

    def check_v3(self, action: str, params: dict, raw: bytes):
        authorization = self.headers.get("Authorization", "")
        scheme, _, rest = authorization.partition(" ")
        parts = dict(p.split("=", 1) for p in rest.split(",")) if rest else {}
        if scheme != "ACS3-HMAC-SHA256" or set(parts) != {"Credential", "SignedHeaders", "Signature"}:
            raise Refused(400, "IncompleteSignature")
        names = parts["SignedHeaders"].split(";")
        wanted = sorted(n.lower() for n in self.headers if n.lower().startswith("x-acs-") or n.lower() in ("host", "content-type"))
        if names != wanted:
            raise Refused(400, "IncompleteSignature", f"signed {names}, wanted {wanted}")
        body_hash = hashlib.sha256(raw).hexdigest()
        if self.headers.get("x-acs-content-sha256") != body_hash or self.headers.get("x-acs-version") != self.version:
            raise Refused(400, "SignatureDoesNotMatch", "hash of the body, or version")
        lines = "".join(f"{n}:{self.headers[n].strip()}\n" for n in names)
        request = f"{self.command}\n/\n{canonical_query(params)}\n{lines}\n{';'.join(names)}\n{body_hash}"
        to_sign = "ACS3-HMAC-SHA256\n" + hashlib.sha256(request.encode()).hexdigest()
        token = self.headers.get("x-acs-security-token", "")
        secret = STATE.secret_of(parts["Credential"], token)
        if token and self.headers.get("x-acs-accesskey-id") != parts["Credential"]:
            raise Refused(400, "IncompleteSignature", "x-acs-accesskey-id")
        if not hmac.compare_digest(hmac.new(secret.encode(), to_sign.encode(), "sha256").hexdigest(), parts["Signature"]):
            raise Refused(400, "SignatureDoesNotMatch", f"The server's string to sign is {to_sign.split()[1]}")
        STATE.check_nonce(self.headers.get("x-acs-signature-nonce", ""), self.headers.get("x-acs-date", ""))

    def check_v1(self, action: str, params: dict):
        if params.get("Version") != self.version or params.get("Format") != "JSON":
            raise Refused(400, "BadRequest", "Version or Format")
        if action == "AssumeRoleWithOIDC":
            if "AccessKeyId" in params or self.headers.get("Authorization"):
                raise Refused(400, "BadRequest", "signed, but must not be")
        else:
            given = dict(params)
            signature = given.pop("Signature", "")
            to_sign = f"{self.command}&%2F&{encode(canonical_query(given))}"
            secret = STATE.secret_of(params.get("AccessKeyId", ""), params.get("SecurityToken", ""))
            if params.get("SignatureMethod") != "HMAC-SHA1" or params.get("SignatureVersion") != "1.0":
                raise Refused(400, "IncompleteSignature")
            if signature != base64.b64encode(hmac.new((secret + "&").encode(), to_sign.encode(), "sha1").digest()).decode():
                raise Refused(400, "SignatureDoesNotMatch", "The server's string to sign is another")
        STATE.check_nonce(params.get("SignatureNonce", ""), params.get("Timestamp", ""))

    def fault_or_answer(self, action: str, params: dict):
        fault = STATE.fault(action)
        if fault is None:
            self.act(action, params)
            return
        self.note(action=action, fault=fault)
        kind, status, code = fault.get("kind", "json"), fault.get("status", 400), fault.get("code", "")
        if kind == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"Code\":")
            self.wfile.flush()
            self.close_connection = True
        elif kind == "slow":
            time.sleep(2)
            self.act(action, params)
        elif kind == "xml":
            self.answer(status, f"<Error><Code>{code}</Code><Message>in XML</Message></Error>", fault.get("headers"), "text/xml")
        elif kind == "false":
            self.answer(200, {"RequestId": "1", "IsSuccess": False, "Code": code})
        elif kind == "missing":
            self.answer(200, {"RequestId": "1", "IsSuccess": True, "Code": "success"})
        else:
            self.answer(status, {"RequestId": "1", "Code": code, "Message": f"{code} by order of the test"}, fault.get("headers"))


class Sts(OpenApi):
    role, version = "sts", "2015-04-01"

    def act(self, action: str, params: dict):
        seconds = int(params.get("DurationSeconds", "3600"))
        if action == "AssumeRoleWithOIDC":
            if params.get("RoleArn") != ROLE_A or params.get("OIDCProviderArn") != PROVIDER:
                raise Refused(404, "EntityNotExist.Role")
            if params.get("OIDCToken") != Path(STATE.settings["jwt_file"]).read_text().strip():
                raise Refused(400, "AuthenticationFail.OIDCToken.Expired")
        elif action == "AssumeRole":
            if params.get("RoleArn") != ROLE_B:
                raise Refused(403, "NoPermission")
            if not 900 <= seconds <= STATE.settings["role_b_max"]:
                raise Refused(400, "InvalidParameter.DurationSeconds")
        else:
            raise Refused(404, "InvalidAction.NotFound")
        self.note(action=action, seconds=seconds)
        self.answer(200, {"RequestId": "1", "Credentials": STATE.issue(), "AssumedRoleUser": {"Arn": params["RoleArn"]}})


class Cr(OpenApi):
    role, version = "cr", "2018-12-01"

    def act(self, action: str, params: dict):
        settings = STATE.settings
        if params.get("InstanceId") != INSTANCE:
            self.answer(200, {"RequestId": "1", "IsSuccess": False, "Code": "INSTANCE_NOT_EXIST"})
        elif params.get("ModuleName") != "Registry":
            raise Refused(400, "InvalidParameter")
        elif action == "ListInstanceEndpoint":
            endpoints = [
                {"EndpointType": "internet", "Enable": True, "Status": "RUNNING", "LinkedVpcs": [],
                 "Domains": [{"Domain": d, "Type": "SYSTEM"} for d in settings["public"]]},
                {"EndpointType": "vpc", "Enable": settings["enable"], "Status": "RUNNING", "LinkedVpcs": [{"VpcId": settings["vpc"]}],
                 "Domains": [{"Domain": d, "Type": "USER"} for d in settings["user"]] + [{"Domain": d, "Type": "SYSTEM"} for d in settings["domains"]]},
                {"EndpointType": "new-kind", "Unknown": [{}]}]
            self.answer(200, {"RequestId": "1", "Code": "success", "IsSuccess": True, "Endpoints": endpoints, "Unknown": {"x": [1]}})
        elif action == "GetInstanceVpcEndpoint":
            self.answer(200, {"RequestId": "1", "Code": "success", "IsSuccess": True, "Enable": settings["enable"], "ModuleName": "Registry",
                              "Domains": settings["domains"],
                              "LinkedVpcs": [{"VpcId": settings["vpc"], "VswitchId": "vsw-lab1", "Ip": "10.0.0.9", "Status": settings["link"], "Issue": ""}]})
        else:
            raise Refused(404, "InvalidAction.NotFound")


OSS_KEY, OSS_SECRET, BUCKET = "LTAI5tOss", f"{MARK}oss", f"{INSTANCE}-registry"
OSS_HOST = f"{BUCKET}.oss-{REGION}-internal.aliyuncs.com"


def oss_signature(secret: str, expires: str, bucket: str, key: str) -> str:
    text = f"GET\n\n\n{expires}\n/{bucket}/{key}"
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), "sha1").digest()).decode()


VECTOR = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of ACR.md 7
assert oss_signature("FakeOssSecret0001", "1767323045", "cri-abc123-registry",
                     f"docker/registry/v2/blobs/sha256/2c/{VECTOR}/data") == "jfoeOQtVu3qmPkpA1iBKEP2ztQY="


USER, PASSWORD = "cr_temp_user", f"{MARK}password"


class Registry(Handler):
    """Manifests and all else from the real registry; blobs by a redirect. Who may read: everybody, who has a token of /auth, or who says the password."""
    role, upstream, storage = "registry", "", Path("/")

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        kind = "blob" if "/blobs/sha256:" in path else "manifest" if "/manifests/" in path else path.split("/")[1]
        fault = STATE.fault(kind)
        refused = self.challenge(path) if path.startswith("/v2/") and not fault else ""
        self.note(path=path, method=self.command, kind=kind, status=401 if refused else fault.get("status", 400) if fault else 0)
        if kind == "auth":
            self.give_token()
        elif kind == "storage":
            self.give_range((self.storage / path.removeprefix("/storage/")).read_bytes())
        elif fault:
            self.answer(fault.get("status", 400), {"errors": [{"code": fault.get("code", ""), "message": "by order of the test"}]}, fault.get("headers"))
        elif refused:
            self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required", "detail": None}]}, {"Www-Authenticate": refused})
        elif kind == "blob":
            self.give_blob(path.rpartition("sha256:")[2])
        else:
            self.pass_on()

    def challenge(self, path: str) -> str:
        """As ACR words it; empty: this request may pass."""
        given = self.headers.get("Authorization", "")
        if STATE.settings["auth"] == "basic":
            return "" if given == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode() else 'Basic realm="cr-lab"'
        if STATE.settings["auth"] != "bearer" or STATE.tokens.get(given.removeprefix("Bearer "), 0) > STATE.now():
            return ""
        repository = path.removeprefix("/v2/").rpartition("/blobs/" if "/blobs/" in path else "/manifests/")[0]
        return (f'Bearer realm="http://{self.headers["Host"]}/auth",service="registry.aliyuncs.com:{REGION}:china:{INSTANCE}",scope="repository:{repository}:pull"' +
                (',error="invalid_token"' if given else ""))

    def give_token(self):
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
            self.answer(401, {"errors": [{"code": "UNAUTHORIZED"}]})
            return
        token, life = f"{MARK}{uuid.uuid4().hex}", STATE.settings["token_life"]
        STATE.tokens[token] = STATE.now() + life
        self.answer(200, {"token": token, "expires_in": life, "issued_at": stamp(STATE.now())})

    def give_blob(self, digest: str):
        name, expires = f"sha256/{digest[:2]}/{digest}/data", str(int(STATE.now()) + STATE.settings["url_life"])
        how, key = STATE.settings["blob"], f"docker/registry/v2/blobs/{name}"
        if how == "direct":
            self.give_range((self.storage / name).read_bytes())
            return
        signature = oss_signature(OSS_SECRET, expires, BUCKET, key)
        query = f"n={uuid.uuid4().hex[:8]}&Expires={expires}&OSSAccessKeyId={OSS_KEY}&Signature={encode(signature)}"
        self.answer(307, "", {"Location": f"/storage/{name}?{query}" if how == "relative" else f"http://{OSS_HOST}/{key}?{query}"})

    def pass_on(self):
        request = urllib.request.Request(self.upstream + self.path, headers={"Accept": ", ".join(self.headers.get_all("Accept") or ["*/*"])})
        try:
            with urllib.request.urlopen(request, timeout=10) as got:
                self.answer(got.status, got.read().decode(), {"Docker-Content-Digest": got.headers.get("Docker-Content-Digest", "")}, got.headers["Content-Type"])
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read().decode())


class Oss(Handler):
    role, storage = "oss", Path("/")

    def refuse(self, why: str, message: str):
        self.note(path=self.path, code=why)
        self.answer(403, f"<Error><Code>{why}</Code><Message>{message}</Message></Error>", kind="application/xml")

    def do_HEAD(self):
        self.note(path=self.path, code="HEAD")
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        path, _, query = self.path.partition("?")
        params = dict(urllib.parse.parse_qsl(query))
        extra = [n for n in self.headers if n.lower() in ("authorization", "cookie", "content-type") or n.lower().startswith("x-oss-")]
        wanted = oss_signature(OSS_SECRET, params.get("Expires", ""), BUCKET, path.lstrip("/"))
        if extra or self.headers["Host"] != OSS_HOST:
            self.refuse("BadRequest", f"sent {extra} to {self.headers['Host']}")
        elif params.get("Signature") != wanted:
            self.refuse("SignatureDoesNotMatch", "no")
        elif int(params["Expires"]) < STATE.now() or query in STATE.ended:
            self.refuse("AccessDenied", "Request has expired.")
        else:
            sizing = self.headers.get("Range") == "bytes=0-0"  # not what a fault is for
            fault = (not sizing and STATE.fault("oss")) or {}
            self.note(path=path, url=f"http://{OSS_HOST}{self.path}", range=self.headers.get("Range", ""), fault=fault.get("kind", ""))
            if fault.get("kind") == "status":
                self.answer(fault["status"], f"<Error><Code>{fault['code']}</Code><Message>no</Message></Error>", fault.get("headers"), "application/xml")
                return
            if fault.get("kind") == "expire":
                STATE.ended.add(query)
            self.give_range((self.storage / path.lstrip("/").removeprefix("docker/registry/v2/blobs/")).read_bytes(), fault.get("kind", ""))


class Test(Handler):
    role = "test"

    def do_POST(self):
        with STATE.lock:
            STATE.settings.update(json.loads(self.body()))
            if STATE.settings.pop("forget_tokens", False):
                STATE.metadata_tokens.clear()
            STATE.log.clear()
        self.answer(200, {})

    def do_GET(self):
        with STATE.lock:
            self.answer(200, STATE.log)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", required=True, type=int, help="of the metadata service; STS, CR and the test's have the next ones")
    parser.add_argument("--registry", help="URL of the real registry behind the instance's, whose own port follows the test's")
    parser.add_argument("--storage", type=Path, help="its directory of blobs")
    options = parser.parse_args()
    roles = [Metadata, Sts, Cr, Test]
    if options.registry:
        Registry.upstream, Registry.storage, Oss.storage = options.registry, options.storage, options.storage
        roles.append(Registry)
    servers = [ThreadingHTTPServer((options.address, options.port + i), h) for i, h in enumerate(roles)]
    if options.registry:
        servers.append(ThreadingHTTPServer((options.address, 80), Oss))
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
