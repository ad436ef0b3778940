#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What is in deploy/ and the image: reproducible, small, and running under podman as the DaemonSet runs it; manifests that Kubernetes takes."""
import base64
import copy
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import jsonschema
import yaml

import it
import marks
from lab import SHOAL, Lab, Process, run
from runtimes import Containerd, Sandbox, start_registries, upstream

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import chart  # noqa: E402: found only with the path above
import metrics  # noqa: E402

USER = 65532
SCHEMAS = json.loads((Path(__file__).parent / "kubernetes_schemas.json").read_text())
HELM = os.environ.get("HELM") or shutil.which("helm")


# ---- the image ----

def make_image(where: Path, **environment) -> str:
    """Its digest."""
    done = run("/usr/bin/python3", ROOT / "tools/image.py", SHOAL, where, cwd=ROOT, env={**os.environ, **environment})
    it.figure(done.stdout.splitlines()[1].split(";")[0].removeprefix("image: "))
    return done.stdout.split()[1]


def blob(layout: Path, descriptor: dict) -> bytes:
    data = (layout / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
    it.check(len(data) == descriptor["size"] and "sha256:" + hashlib.sha256(data).hexdigest() == descriptor["digest"], f"not its digest: {descriptor}")
    return data


def test_image():
    """Built twice, under another clock, umask and zone: one digest (reproducible). No shell, no set-uid, not root; an SBOM that names each library."""
    with Lab(1) as lab:
        first = make_image(lab.dir / "image", TZ="UTC")
        mask = os.umask(0o077)
        try:
            second = make_image(lab.dir / "again", TZ="Asia/Shanghai")
        finally:
            os.umask(mask)
        it.check(first == second, f"{first} and then {second}")
        it.check((lab.dir / "image/index.json").read_bytes() == (lab.dir / "again/index.json").read_bytes(), "SBOM or index differ")
        check_contents(lab.dir / "image", first)
        check_runs(lab, lab.dir / "image")


def wrong_entry(entry: tarfile.TarInfo, files: dict[str, tarfile.TarInfo]) -> str:
    """What no layer may have, beside the `files` of those below it; "" if nothing. Layers repeat the directories that they put something into."""
    if entry.name in files and not (entry.isdir() and files[entry.name].isdir()):
        return "twice"
    if not entry.issym() and entry.mode & 0o7022:  # a link's own mode counts nowhere
        return "set-uid, set-gid, sticky or open to write"
    return "" if entry.isreg() or entry.isdir() or entry.issym() else "a device, a pipe or a hard link"


def test_what_the_image_may_not_have():
    """The judge of the image's files itself: each thing that must not be there is found, on files, links and directories."""
    def entry(kind=tarfile.REGTYPE, mode=0o755, name="a") -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.mode = kind, mode
        return info
    file, link, directory = entry(), entry(tarfile.SYMTYPE, 0o777), entry(tarfile.DIRTYPE)
    it.check(not [each for each in (file, link, directory) if wrong_entry(each, {})] and not wrong_entry(directory, {"a": directory}), "what is right is refused")
    for each in (entry(mode=0o4755), entry(mode=0o777), entry(tarfile.DIRTYPE, 0o4755), entry(tarfile.DIRTYPE, 0o2755), entry(tarfile.DIRTYPE, 0o777), entry(tarfile.CHRTYPE), entry(tarfile.LNKTYPE)):
        it.check(wrong_entry(each, {}), f"{each.type} {each.mode:o} is taken")
    for each in (file, link, directory):
        it.check(wrong_entry(each, {"a": link}) == "twice" and wrong_entry(link, {"a": each}) == "twice", f"{each.type} over a link")


def check_contents(layout: Path, digest: str):
    index = json.loads((layout / "index.json").read_text())
    named, referrer = index["manifests"]
    it.check(named["digest"] == digest, "the index names another image")
    manifest = json.loads(blob(layout, named))
    config = json.loads(blob(layout, manifest["config"]))["config"]
    it.check(config["User"] == f"{USER}:{USER}" and config["Entrypoint"] == ["/usr/bin/shoal"], f"{config}")
    files = {}
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(layout, layer)))) as tar:
            names = [entry.name for entry in tar]
            it.check(len(set(names)) == len(names), f"twice in a layer: {sorted(name for name in names if names.count(name) > 1)}")
            for entry in tar:
                it.check(wrong_entry(entry, files) == "", f"{wrong_entry(entry, files)}: {entry.name}")
                files[entry.name] = entry
    programs = sorted(name for name, entry in files.items() if entry.isreg() and entry.mode & 0o111 and ".so" not in name)
    it.check(programs == ["usr/bin/shoal"], f"more programs than the agent: {programs}")
    it.check(files["var/lib/shoal"].uid == USER and files["var/lib/shoal"].mode & 0o777 == 0o700, "the data directory is not the agent's")
    it.check("etc/ssl/certs/ca-certificates.crt" in files, "no authorities")
    size = sum(layer["size"] for layer in manifest["layers"])
    it.check(size < 16 << 20, f"{size / 2**20:.1f} MiB is not small")
    artifact = json.loads(blob(layout, referrer))
    it.check(artifact["subject"]["digest"] == digest, "the SBOM refers to another image")
    bill = json.loads(blob(layout, artifact["layers"][0]))
    it.check(bill == json.loads(layout.with_name("image.spdx.json").read_text()), "the SBOM beside it is another one")
    versions = {p["name"]: p["versionInfo"] for p in bill["packages"]}
    for name in ("libc6", "libuv1", "libsodium23", "libssl3", "libgcrypt20", "libcurl4", "libyaml-0-2", "libjansson4", "node-llhttp", "ca-certificates"):
        here = run("dpkg-query", "-W", "-f", "${Version}", name).stdout
        it.check(versions.get(name) == here, f"SBOM: {name} is {versions.get(name)}, here {here}")


def podman(sandbox: Sandbox, *args) -> list[str]:
    """As a list: the DaemonSet's containers run in the foreground."""
    (sandbox.dir / "containers.conf").write_text('[engine]\nlock_type = "file"\n')
    (sandbox.dir / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return sandbox.exec("env", f"CONTAINERS_CONF={sandbox.dir}/containers.conf", "podman", "--root", "/var/lib/containers/d", "--runroot", "/run/containers/d", "--tmpdir",
                        "/run/containers/d/tmp", "--storage-driver", "vfs", "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime", "runc", *args)


def as_pod(lab, sandbox: Sandbox, container: dict, pod: dict, places: dict[str, Path], *more) -> list[str]:
    """A container of the DaemonSet as podman is told of it: its user, capabilities, read-only root and mounts; paths of the host are `places`."""
    secure = {**pod["securityContext"], **container["securityContext"]}
    words = ["run", "--rm", "--network=host", f"--cgroup-parent=/{sandbox.cgroup}", "--ulimit=nofile=1024:4096", "--ulimit=nproc=1024:4096", f"--name={container['name']}",
             f"--user={secure['runAsUser']}:{secure['runAsGroup']}", "--cap-drop=all", "--security-opt=no-new-privileges", "--read-only", "--read-only-tmpfs=false"]
    words += [f"--cap-add={name}" for name in secure["capabilities"].get("add", [])]
    if "fsGroup" in secure:
        words.append(f"--group-add={secure['fsGroup']}")
    for mount in container["volumeMounts"]:
        if mount["name"] in places:
            words.append(f"--volume={places[mount['name']]}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}")
    return podman(sandbox, *words, *more, "localhost/shoal:test", *container["args"])


def check_runs(lab, layout: Path):
    """Data directory, agent, runtime: the pod's three containers by podman, with what the chart says of each."""
    node = lab.nodes[0]
    sandbox = Sandbox(node)
    version = json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    run("skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:{version}", f"oci-archive:{lab.dir}/image.tar:localhost/shoal:test")
    run(*podman(sandbox, "load", "-q", "-i", lab.dir / "image.tar"))
    start_registries(lab, "public")
    registry = upstream("public")
    lab.registries[0]["endpoint"] = f"http://{registry}"  # as the runtime itself reaches it
    image = lab.push_image("lib/app", [3 << 20, 1 << 20])
    files = chart.render({"clusterSecret": {"existingSecret": "s"}, "topology": {"nodeLabels": False}, "registries": lab.registries, "prefetch": {"enable": True, "existingSecret": "orders"}},
                         {"config": {"builtinRegistries": False, "log": {"format": "text", "level": "debug"}}})  # marks.py reads the log
    pod = yaml.safe_load(files["daemonset.yaml"])["spec"]["template"]["spec"]
    data = yaml.safe_load(files["configmap.yaml"])["data"]
    places = {name: node.dir / name for name in ("config", "runtime-config", "cluster-secret", "podinfo", "prefetch-token", "data", "runtime-0", "runtime-state")}
    for place in places.values():
        place.mkdir(mode=0o755)
        place.chmod(0o755)
    settings = yaml.safe_load(data["shoal.yaml"])
    settings["topology"]["detect"], settings["bootstrap"] = ["none"], []
    (places["config"] / "shoal.yaml").write_text(yaml.safe_dump(settings))
    (places["runtime-config"] / "runtime.yaml").write_text(data["runtime.yaml"])
    token = marks.secret("orders") + "0123456789abcdef0123456789abcdef"
    for secret, text in ((places["cluster-secret"] / "secret", lab.secret.read_text()), (places["prefetch-token"] / "token", token + "\n")):
        secret.write_text(text)  # as the kubelet leaves it with fsGroup and defaultMode
        secret.chmod(0o440)
        os.chown(secret, 0, USER)
    stock = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = ""\n'  # as containerd 1.x has it
    (places["runtime-0"] / "config.toml").write_text(stock)
    (init,), (agent, runtime) = pod["initContainers"], pod["containers"]
    for _ in "ab":  # the second time finds it right
        run(*as_pod(lab, sandbox, init, pod, places))
    told = places["data"].stat()
    it.check((told.st_uid, told.st_mode & 0o777) == (USER, 0o700), "the data directory is not the agent's")
    hosts = places["runtime-0"] / "certs.d" / registry / "hosts.toml"
    held = Process(as_pod(lab, sandbox, runtime, pod, places), node.dir / "runtime.log")
    node.process = Process(as_pod(lab, sandbox, agent, pod, places, f"--env=SHOAL_ADVERTISE={node.address}"), node.dir / "agent.log")
    node.wait_ready(30)
    it.check(node.get("/healthz") == "200 ok\n" and node.get("/healthz", admin=True) == "200 ok\n", "/healthz of the container does not answer")
    it.check(node.get("/v2/a/manifests/b?ns=nobody.example.com", check=False).startswith("404"), "a registry that nobody configured is asked")
    end = time.monotonic() + 15
    while "runtime.args: [--set-config-path]" not in held.text():
        it.check(held.alive() and time.monotonic() < end, f"the pod is not ready with a runtime as it is installed: {held.text()}")
        time.sleep(0.1)
    (places["runtime-0"] / "config.toml").write_text(stock.replace('""', '"/etc/containerd/certs.d"'))
    end = time.monotonic() + 15
    while not hosts.exists():
        it.check(held.alive() and time.monotonic() < end, f"the runtime was not configured: {held.text()}")
        time.sleep(0.1)
    pid = sandbox.run("pgrep", "-f", "shoal agent --config=/etc/shoal/shoal.yaml").stdout.split()[-1]
    status = sandbox.run("cat", f"/proc/{pid}/status").stdout
    it.check(re.search(rf"^Uid:\s+{USER}\s+{USER}", status, re.M) and re.search(r"^CapEff:\s+0+$", status, re.M), f"HRD-1: {status}")
    told = json.loads(run(*podman(sandbox, "exec", "agent", "shoal", "status", "--json")).stdout)  # as NOTES.txt says it
    it.check(told.keys() >= {"members", "cache"}, f"shoal status in the container: {sorted(told)}")
    check_orders(node, podman(sandbox, "exec", "agent", "shoal", "pull", "--json", f"{registry}/lib/app:1"), token, image)
    check_doctor(json.loads(run(*podman(sandbox, "exec", "agent", "shoal", "doctor", "--json")).stdout),
                 run(*podman(sandbox, "exec", "runtime", "shoal", "containerd", "plan", "--config", "/etc/shoal/runtime.yaml", "--root", "/host")).stdout)
    run(*podman(sandbox, "stop", "-t", "30", "agent"))
    it.check(node.process.popen.wait(timeout=30) == 0, node.process.text()[-500:])
    it.check(held.alive() and "127.0.0.1:65001" in hosts.read_text(), "the runtime's container ended with the agent")
    check_own_image(lab, sandbox, layout, hosts.parent.parent)
    run(*podman(sandbox, "stop", "-t", "20", "runtime"))
    it.check(held.popen.wait(timeout=20) == 0 and not hosts.exists(), f"not reverted: {held.text()}")
    it.check((places["data"] / "identity").exists(), "no identity was kept")


def check_orders(node, words: list[str], token: str, image: dict):
    """README's `kubectl exec ... shoal pull`, and the same by HTTP with the Secret's token."""
    done = json.loads(run(*words).stdout.splitlines()[-1])
    it.check(done["state"] == "done" and done["origin_bytes"] == image["size"] + image["config"]["size"], f"shoal pull in the container: {done}")
    for wrong, wanted in (("", 202), ("x", 401)):
        body = json.dumps({"image": f"{upstream('public')}/lib/app:1"})
        done = node.run("curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Authorization: Bearer {token}{wrong}", "-d", body, f"http://{node.address}:65004/prefetch")
        it.check(done.stdout == str(wanted), f"an order by HTTP: {done.stdout}, wanted {wanted}")


def check_doctor(report: dict, plan: str):
    """Nothing is wrong in the agent's container; of the runtime, which it cannot see, it says where to look, and there all is as it should be."""
    bad = [finding for finding in report["findings"] if finding["level"] != "ok"]
    it.check(not bad and report["errors"] + report["warnings"] == 0, f"doctor in the agent's container: {bad}")
    (runtime,) = [finding for finding in report["findings"] if finding["check"] == "runtime"]
    it.check("container `runtime`" in runtime["what"] and "containerd plan --config /etc/shoal/runtime.yaml --root /host" in runtime["what"], f"{runtime}")
    it.check(plan == "nothing to change\n", plan)


def check_own_image(lab, sandbox: Sandbox, layout: Path, certs: Path):
    """HRD-2: containerd, pointed at an agent that does not run, gets that agent's image from the registry at once."""
    version = json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    run(*lab.origin_exec("skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:{version}", f"docker://{lab.origin_address}:{lab.registry_port}/shoal:{version}"))
    containerd = Containerd(sandbox)
    started = time.monotonic()
    containerd.ctr("images", "pull", "--hosts-dir", certs, f"{upstream('public')}/shoal:{version}")
    took = time.monotonic() - started
    it.check(took < 2, f"{took:.1f} s for the agent's own image without an agent")
    it.figure(f"the agent's image pulled while no agent runs: {took:.2f} s")


# ---- chart and manifests ----

EVERYTHING = {
    "p2p": {"port": 6501, "v2": {"p2pPort": 6502, "cache": {"mode": "memory"}}}, "exporter": {"enable": True, "port": 6503}, "memoryCacheCapacityGB": 16,
    "podMonitor": {"enable": True, "labels": {"release": "prometheus"}}, "networkPolicy": {"enable": True, "meshFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "prefetchFrom": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]},
    "prefetch": {"enable": True, "port": 6504, "existingSecret": "orders", "key": "bearer"},
    "acrInstances": "cri-abc123, cri-def456", "region": "cn-hangzhou", "vpcId": "vpc-1", "accessKey": "LTAIexample", "accessKeySecret": "of-the-key",
    "registries": [{"name": "hub.example.com", "credentials": "/etc/shoal-secrets/hub/.dockerconfigjson", "shared": True, "default": True}],
    "secretMounts": {"hub": "hub-login"}, "config": {"limits": {"originMbit": 2000}, "topology": {"detect": ["kubernetes", "ecs"]}}, "contentStore": "/var/lib/containerd",
    "runtime": {"kind": "podman", "hostPaths": ["/etc/containers", "/opt/etc"], "args": ["--registry=hub.example.com"]}, "image": {"repository": "r.example.com/shoal"},
    "imagePullSecrets": [{"name": "pull"}], "affinity": {"nodeAffinity": {}}, "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"}, "env": [{"name": "A", "value": "b"}],
    "startupTaint": "example.com/starting", "throttleLimitMB": 512, "topology": {"vswitchLabel": "example.com/vswitch"}, "serviceAccount": {"annotations": {"e": "f"}}, "clusterSecret": {"existingSecret": "mine", "keys": ["new", "old"]},
}
LEAST = {"runtime": {"configure": False}, "topology": {"nodeLabels": False, "podLabels": True}, "podDisruptionBudget": {"enable": False}}
COMPONENT = {  # as the ACR component's users have it (ACR.md, Settings), keys without a meaning here included
    "acrInstances": "cri-abc123", "region": "", "vpcId": "", "accessKey": "", "accessKeySecret": "",
    "rrsa": {"enable": True, "rrsaRoleARN": "acs:ram::1:role/a", "rrsaOIDCProviderRoleARN": "acs:ram::1:oidc-provider/b", "assumeRoleARN": "", "expireDuration": 3600},
    "p2p": {"port": 65001, "plusMode": {"cacheTTL": "24h"}, "v2": {"p2pPort": 65002, "proxyConcurrencyLimit": 128, "cache": {"mode": "memory"}}},
    "exporter": {"enable": True, "port": 65003}, "blocksize": 256, "capacity": 0, "optionBlockSize": 8589934592, "memoryCacheCapacityGB": 8, "aio": 0,
    "DeployConfig": {"proxyFsParallels": 128}, "AgentConfig": {"connectTimeout": 5, "transferTimeout": 15}, "throttleLimitMB": 512, "logDir": "/dadi-p2p/log",
    "logAudit": True, "logAuditMode": "file",
}


def objects(files: dict[str, str]) -> list[dict]:
    return [each for name, body in files.items() if name != "NOTES.txt" for each in yaml.safe_load_all(body) if each]


def of_kind(found: list[dict], kind: str) -> dict:
    return next(each for each in found if each["kind"] == kind)


def takes(thing: dict) -> str:
    """Why Kubernetes would not take an object; empty if it would."""
    kind = thing.get("kind")
    if kind == "PodMonitor":  # not Kubernetes' own
        endpoints = thing["spec"]["podMetricsEndpoints"]
        return "" if thing["apiVersion"] == "monitoring.coreos.com/v1" and all(e.keys() <= {"port", "path", "interval", "relabelings"} for e in endpoints) else "PodMonitor"
    if kind not in SCHEMAS["definitions"]:
        return f"unknown kind {kind}"
    schema = {"$ref": f"#/definitions/{kind}", "definitions": SCHEMAS["definitions"]}
    errors = jsonschema.Draft202012Validator(schema).iter_errors(thing)
    return "; ".join(f"{kind} {'.'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in errors)


def refers(found: list[dict]) -> list[str]:
    """Mounts without a volume, selectors that select nothing, roles that are not there."""
    pod = of_kind(found, "DaemonSet")["spec"]["template"]
    volumes = {v["name"] for v in pod["spec"]["volumes"]}
    used = {m["name"] for c in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]) for m in c["volumeMounts"]}
    bad = [f"volumes and mounts differ: {volumes ^ used}"] if volumes != used else []
    for each in found:
        selector = each.get("spec", {}).get("selector") or each.get("spec", {}).get("podSelector") or {}
        wanted = selector.get("matchLabels", selector)
        if wanted and not wanted.items() <= pod["metadata"]["labels"].items():
            bad.append(f"{each['kind']} selects no agent: {wanted}")
    maps = {each["metadata"]["name"] for each in found if each["kind"] == "ConfigMap"}
    bad += [f"no ConfigMap {v['configMap']['name']}" for v in pod["spec"]["volumes"] if "configMap" in v and v["configMap"]["name"] not in maps]
    ports = {p["name"] for c in pod["spec"]["containers"] for p in c.get("ports", [])}
    bad += [f"Service: no port {p['targetPort']}" for each in found if each["kind"] == "Service" for p in each["spec"]["ports"] if p.get("targetPort", next(iter(ports))) not in ports]
    bad += [f"PodMonitor: no port {e['port']}" for each in found if each["kind"] == "PodMonitor" for e in each["spec"]["podMetricsEndpoints"] if e["port"] not in ports]
    return bad


def check_agent_takes(found: list[dict], scratch: Path):
    """The configuration by the agent's own word, every file of it lying where the test has put it."""
    data = of_kind(found, "ConfigMap")["data"]
    secret = scratch / "secret"
    secret.write_text("ab" * 32)
    secret.chmod(0o400)
    for name, text in data.items():
        values = yaml.safe_load(text)
        if "accessKeyFile" in values:
            (scratch / "pair").write_text("LTAIexample\nof-the-key\n")
            (scratch / "pair").chmod(0o400)
            values["accessKeyFile"] = str(scratch / "pair")
        if "prefetch" in values:
            values["prefetch"]["tokenFile"] = str(secret)
        if "clusterSecretFile" in values:
            values["clusterSecretFile"] = [str(secret)]
        for entry in values.get("registries", []):
            entry.pop("credentials", None), entry.pop("shared", None)
        (scratch / name).write_text(yaml.safe_dump(values))
        done = run(SHOAL, "config", "check", "--config", scratch / name, check=False)
        it.check(done.returncode == 0, f"{name}: {done.stderr}")


def test_manifests_are_taken():
    """Every way to set the values that matters: taken by Kubernetes' schemas, whole in itself, and a configuration that the agent takes."""
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        for over in ({}, EVERYTHING, LEAST, COMPONENT):
            jsonschema.validate(chart.values_with(over), schema, cls=jsonschema.Draft7Validator)
            found = objects(chart.render(over))
            bad = [told for each in found if (told := takes(each))] + refers(found)
            it.check(not bad, f"{sorted(over)}: {bad}")
            check_agent_takes(found, Path(scratch))
        plain = [each for body in chart.plain().values() for each in yaml.safe_load_all(body)]
        it.check(not [told for each in plain if (told := takes(each))], "deploy/kubernetes")
    broken = copy.deepcopy(of_kind(plain, "DaemonSet"))
    for path, value in (("hostNetwrok", True), ("terminationGracePeriodSeconds", "30"), ("tolerations", None)):
        it.check(takes({**broken, "spec": {**broken["spec"], "template": {**broken["spec"]["template"], "spec": {**broken["spec"]["template"]["spec"], path: value}}}}), path)
    for over in ({"colour": 1}, {"p2p": {"port": 0}}, {"capacity": 5}, {"acrInstances": "abc"}, {"rrsa": {"enable": "yes"}}, {"runtime": {"kind": "rkt"}}):
        errors = list(jsonschema.Draft7Validator(schema).iter_errors(chart.values_with(over)))
        it.check(errors, f"values that make no sense are taken: {over}")


def test_manifests_say_what_was_meant():
    """HRD-1 container by container; secrets only where they are needed; the component's names reach the agent; secrets are kept over upgrades."""
    pod = of_kind(objects(chart.render()), "DaemonSet")["spec"]["template"]["spec"]
    (init,), (agent, runtime) = pod["initContainers"], pod["containers"]
    it.check(pod["securityContext"]["runAsUser"] == USER and pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "HRD-1: user or seccomp")
    it.check(not pod["automountServiceAccountToken"] and not pod.get("hostPID") and not pod.get("hostIPC"), "HRD-1: token, hostPID, hostIPC")
    for each in (init, agent, runtime):
        secure = each["securityContext"]
        it.check(secure["readOnlyRootFilesystem"] and not secure["allowPrivilegeEscalation"] and secure["capabilities"]["drop"] == ["ALL"], f"HRD-1: {each['name']}")
        it.check("memory" in each["resources"]["limits"], f"HRD-1: {each['name']} has no memory limit")
    it.check(agent["securityContext"]["runAsNonRoot"] and "add" not in agent["securityContext"]["capabilities"], "HRD-1: the agent")
    kinds = {v["name"]: next(k for k in v if k != "name") for v in pod["volumes"]}
    host = {name: {m["name"] for m in each["volumeMounts"] if kinds[m["name"]] == "hostPath"} for name, each in (("agent", agent), ("runtime", runtime))}
    it.check(host == {"agent": {"data"}, "runtime": {"runtime-state", "runtime-0"}}, f"HRD-1: host paths {host}")
    it.check(not [m for m in runtime["volumeMounts"] if kinds[m["name"]] in ("secret", "projected")], "the runtime's container sees secrets")

    data = of_kind(objects(chart.render(COMPONENT)), "ConfigMap")["data"]
    config = yaml.safe_load(data["shoal.yaml"])
    it.check(config["cache"] == {"mode": "memory", "memory": "8589934592"} and config["limits"]["uploadMbit"] == 4096 and config["rrsa"]["enable"], f"{config}")
    it.check(config["limits"]["parallelRequests"] == 128 and config["log"]["audit"], f"{config}")
    it.check(config["listen"]["admin"] == "0.0.0.0:65003" and config["acrInstances"] == "cri-abc123", f"{config}")
    notes = chart.render(COMPONENT)["NOTES.txt"]
    it.check(all(f"NOTE: {name} " in notes for name in ("logDir", "logAuditMode", "p2p.plusMode")) and "WARNING" not in notes and not [name for name in ("acrInstances", "logAudit ", "proxyConcurrencyLimit") if name in notes], notes)
    it.check(yaml.safe_load(of_kind(objects(chart.render(EVERYTHING)), "ConfigMap")["data"]["runtime.yaml"])["registries"] ==
             [{"name": "hub.example.com", "default": True}, {"name": "*.cr.aliyuncs.com"}], "the runtime's configuration names what it must not")

    for taint in ("", "example.com/starting"):
        found = objects(chart.render({"startupTaint": taint, "topology": {"nodeLabels": False}}))
        runtime = of_kind(found, "DaemonSet")["spec"]["template"]["spec"]["containers"][1]
        verbs = [rule["verbs"] for each in found if each["kind"] == "ClusterRole" for rule in each["rules"]]
        it.check(verbs == ([["get", "patch"]] if taint else []) and ("token" in [m["name"] for m in runtime["volumeMounts"]]) == bool(taint) and
                 ("--untaint=example.com/starting" in runtime["args"]) == bool(taint) and ("env" in runtime) == bool(taint), f"start-up taint {taint!r}: {verbs} {runtime}")

    found = objects(chart.render(EVERYTHING))
    pod = of_kind(found, "DaemonSet")["spec"]["template"]["spec"]
    config = yaml.safe_load(of_kind(found, "ConfigMap")["data"]["shoal.yaml"])
    (volume,) = [v["secret"] for v in pod["volumes"] if v["name"] == "prefetch-token"]
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "prefetch-token"]
    it.check(volume["secretName"] == "orders" and config["prefetch"]["tokenFile"] == f"{mount['mountPath']}/{volume['items'][0]['path']}" and volume["items"][0]["key"] == "bearer", f"{volume} {mount}")
    it.check(config["listen"]["prefetch"] == "[::]:6504" and {"name": "prefetch", "containerPort": 6504, "hostPort": 6504} in pod["containers"][0]["ports"], f"{config['listen']}")
    (service,) = [each["spec"] for each in found if each["kind"] == "Service" and each["metadata"]["name"] == "shoal-prefetch"]
    it.check(service["type"] == "ClusterIP" and service["sessionAffinity"] == "ClientIP" and service["ports"][0]["port"] == 6504, f"{service}")
    rule = of_kind(found, "NetworkPolicy")["spec"]["ingress"][-1]
    it.check(rule == {"ports": [{"port": 6504, "protocol": "TCP"}], "from": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}, f"{rule}")
    it.check("prefetch" not in "".join(body for name, body in chart.render({"networkPolicy": {"enable": True}}).items()), "orders without being enabled")

    def sum_of(*over) -> str:
        return of_kind(objects(chart.render(*over)), "DaemonSet")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
    it.check(sum_of() == sum_of({"config": {"mode": "passthrough", "log": {"level": "debug"}}}), "the kill switch restarts every agent (HRD-7)")
    it.check(sum_of() == sum_of({"clusterSecret": {"keys": ["next", "secret"]}}), "a step of a rotation restarts every agent (PEER-8)")
    it.check(sum_of() != sum_of({"config": {"log": {"format": "text"}}}) and sum_of() != sum_of({"clusterId": "x"}), "a change restarts nothing")

    made = of_kind(objects(chart.render()), "Secret")
    secret = base64.b64decode(made["data"]["secret"]).decode()
    it.check(re.fullmatch("[0-9a-f]{64}", secret) and made["data"] != of_kind(objects(chart.render()), "Secret")["data"], "not a fresh secret of 64 hex digits")
    kept = of_kind(objects(chart.render(objects={("Secret", made["metadata"]["name"]): made})), "Secret")
    it.check(kept["data"] == made["data"], "an upgrade makes another secret")
    it.check(not [each for each in objects(chart.render({"clusterSecret": {"existingSecret": "mine"}})) if each["kind"] == "Secret"], "existingSecret, and yet one is made")
    it.check(not [each for each in objects(chart.plain()) if each["kind"] == "Secret"], "a secret in deploy/kubernetes")
    memory = {"p2p": {"v2": {"cache": {"mode": "memory"}}}}

    def derived(*over) -> dict:
        return yaml.safe_load(of_kind(objects(chart.render(*over)), "ConfigMap")["data"]["shoal.yaml"])
    for over, wanted in (({}, {"mode": "disk", "capacity": "4294967296", "memory": "67108864"}), (memory, {"mode": "memory", "memory": "8589934592"}),
                         ({"capacity": 0, "memoryCacheCapacityGB": 9}, {"mode": "disk", "capacity": "0", "memory": "67108864"}),
                         ({**memory, "memoryCacheCapacityGB": 2, "optionBlockSize": 2 << 30}, {"mode": "memory", "memory": "2147483648"}),
                         ({**memory, "capacity": 1 << 30}, {"mode": "memory", "capacity": "1073741824", "memory": "8589934592"})):
        it.check(derived(over)["cache"] == wanted, f"{over}: {derived(over)['cache']}")
        it.check(("WARNING: capacity" in chart.render(over)["NOTES.txt"]) == (wanted.keys() == {"mode", "capacity", "memory"} and wanted["mode"] == "memory"), "NOTES")
    it.check(derived({"p2p": {"v2": {"proxyConcurrencyLimit": 9}}})["limits"]["parallelRequests"] == 9, "proxyConcurrencyLimit")
    for over, why in (({"podMonitor": {"enable": True}}, "podMonitor.enable needs exporter.enable"), ({"prefetch": {"enable": True}}, "prefetch.enable needs prefetch.existingSecret"),
                      ({"prefetch": {"enable": True, "existingSecret": "s", "port": 65002}}, "are both 65002"), ({"accessKey": "k"}, "accessKeySecret is not"),
                      ({"accessKeySecret": "k"}, "accessKey is not"), ({"accessKey": "k", "accessKeySecret": "s", "rrsa": {"enable": True}}, "choose one"),
                      ({"p2p": {"port": 65003}}, "exporter.port and p2p.port are both 65003"), ({"p2p": {"v2": {"p2pPort": 65001}}}, "are both 65001"),
                      ({**memory, "memoryCacheCapacityGB": 2, "optionBlockSize": 1 << 30}, "set one of them")):
        try:
            chart.render(over)
        except chart.Failed as failed:
            it.check(why in str(failed), f"{over}: {failed}")
            continue
        it.check(False, f"rendered, and would not work: {over}")


def test_plain_manifests_are_fresh():
    """deploy/kubernetes is what the chart gives; where helm is installed (HELM names it), helm gives the same as tools/chart.py."""
    it.check(not chart.check(), "; ".join(chart.check()))
    if HELM is None:
        it.figure("no helm here: the chart was rendered by tools/chart.py alone")
        return
    run(HELM, "lint", "--strict", chart.CHART)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as values:
        for over in ({}, EVERYTHING, LEAST, COMPONENT):
            values.seek(0)
            values.truncate()
            values.write(yaml.safe_dump(over))
            values.flush()
            done = run(HELM, "template", "shoal", chart.CHART, "--namespace", chart.NAMESPACE, "--kube-version", "1.31", "-f", values.name)
            theirs, ours = comparable(list(yaml.safe_load_all(done.stdout))), comparable(objects(chart.render(over)))
            it.check(theirs == ours, f"{sorted(over)}: helm gives something else for {[k for k in theirs.keys() | ours.keys() if theirs.get(k) != ours.get(k)]}")
    it.figure(run(HELM, "version", "--short").stdout.strip())


def comparable(found: list) -> dict:
    """By kind and name; embedded YAML parsed, the random secret left out."""
    out = {}
    for each in found:
        if each:
            if each["kind"] == "ConfigMap":
                each["data"] = {name: yaml.safe_load(text) for name, text in each["data"].items()}
            if each["kind"] == "Secret":
                each["data"].pop("secret", None)
            out[each["kind"], each["metadata"]["name"]] = each
    return out


# ---- dashboard and rules ----

def test_dashboard_and_rules():
    """Alert rules checked and run by promtool; every question of the dashboard is PromQL; each metric that they ask for is one of the agent's."""
    it.check(not metrics.check(), "; ".join(metrics.check()))
    board = json.loads((ROOT / "deploy/grafana/shoal.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    it.check(len(asked) > 50 and len({panel["id"] for panel in board["panels"]}) == len(board["panels"]), "the dashboard is not whole")
    with tempfile.TemporaryDirectory() as scratch:
        for source in (ROOT / "deploy/prometheus/rules.yaml", ROOT / "tests/integration/prometheus_rules_test.yaml"):
            shutil.copy(source, scratch)
        run("promtool", "check", "rules", "rules.yaml", cwd=scratch)
        run("promtool", "test", "rules", "prometheus_rules_test.yaml", cwd=scratch)
        rules = [{"record": f"panel:{i}", "expr": re.sub(r"\$__\w+", "5m", expr)} for i, expr in enumerate(asked)]
        Path(scratch, "board.yaml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
        run("promtool", "check", "rules", "board.yaml", cwd=scratch)
        it.figure(f"{len(asked)} questions of the dashboard, {Path(scratch, 'rules.yaml').read_text().count('- alert:')} alerts")


if __name__ == "__main__":
    sys.exit(it.main(globals(), seconds=120))
