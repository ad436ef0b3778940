# SPDX-License-Identifier: Apache-2.0
"""A machine in namespaces: a systemd that is the first process of a PID namespace, over a copy of this machine's root that is thrown away."""
import time
from pathlib import Path

import it
from lab import Lab, Process, run


class Machine:
    """systemd in a node's network, with no units but those in its `units`. Every place that it writes to is a file system of its own: root is an
    overlay, /run, /tmp, /dev and /var/lib are empty, kernel settings are read-only. Everything vanishes with its first process; control groups
    stay, so they are removed. `seed` says what is laid over the root before it starts, `prepare` is run there."""

    units = "/run/units"
    prepare = ":"

    SETUP = """set -e
mount --make-rprivate /
mkdir -p "$0/box"; mount -t tmpfs tmpfs "$0/box"; cd "$0/box"; mkdir up work root
mount -t overlay overlay -o "lowerdir=/,upperdir=up,workdir=work" root
cd root
mount -t proc proc proc; mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys; mount -t cgroup2 cgroup2 sys/fs/cgroup
for d in run tmp dev var/lib var/tmp etc/containerd; do mkdir -p $d; mount -t tmpfs -o mode=0755 tmpfs $d; done
chmod 1777 tmp var/tmp
mknod -m 666 dev/null c 1 3; mknod -m 666 dev/zero c 1 5; mknod -m 666 dev/full c 1 7; mknod -m 666 dev/random c 1 8; mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0; ln -s /proc/self/fd dev/fd; ln -s pts/ptmx dev/ptmx
mkdir dev/pts dev/shm; mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts; mount -t tmpfs tmpfs dev/shm
cp -a "$0/seed/." .
eval "$PREPARE"
pivot_root . mnt
umount -l /mnt
exec env -i PATH=/usr/sbin:/usr/bin container=shoal-test SYSTEMD_UNIT_PATH="$UNITS" /lib/systemd/systemd --system --unit=basic.target --log-target=null --show-status=no"""

    def __init__(self, lab: Lab):
        self.node, self.dir = lab.nodes[0], lab.nodes[0].dir
        units = self.dir / "seed/run/units"
        units.mkdir(parents=True)
        for target in ("basic", "sysinit", "shutdown", "network-online", "multi-user"):
            (units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        self.seed(self.dir / "seed")
        top = Path("/sys/fs/cgroup/unified")
        self.cgroup = (top if top.is_dir() else top.parent) / f"{lab.prefix}-systemd"
        self.cgroup.mkdir()
        lab.processes.append(self)
        self.process = Process(["bash", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', self.cgroup, "nsenter", f"--net=/run/netns/{self.node.netns}",
                                "env", f"PREPARE={self.prepare}", f"UNITS={self.units}", "unshare", "--pid", "--fork",
                                "--mount", "--cgroup", "--uts", "--ipc", "--kill-child", "bash", "-c", self.SETUP, self.dir], self.dir / "systemd.log")
        self.until(lambda: self.systemctl("is-system-running", check=False).stdout.strip() in ("running", "degraded", "starting"), "systemd did not start")

    def seed(self, place: Path):
        """To be overridden."""

    @property
    def init(self) -> str:
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0]

    def run(self, *args, **kwargs):
        return run("nsenter", "-t", self.init, "--mount", "--net", "--pid", "--cgroup", "--uts", "--ipc", "--root", "--wd", "--", *args, **{"timeout": 60, **kwargs})

    def systemctl(self, *args, **kwargs):
        """Never this machine's own systemd: the first process must be the one that was started here."""
        it.check(Path(f"/proc/{self.init}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink(), "no PID namespace of its own")
        return self.run("systemctl", *args, **kwargs)

    def show(self, unit: str) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.systemctl("show", unit).stdout.splitlines() if "=" in line)

    def path(self, inside: str) -> Path:
        return Path(f"/proc/{self.init}/root{inside}")

    def log(self, unit="shoal") -> str:
        return self.path(f"/run/{unit}.log").read_text() if self.path(f"/run/{unit}.log").exists() else ""

    def until(self, condition, message: str, seconds=20.0):
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except (OSError, IndexError, RuntimeError):  # not yet there
                pass
            if time.monotonic() > end or not self.process.alive():
                states = [(unit, *(self.show(unit).get(key) for key in ("ActiveState", "SubState", "Result", "NRestarts"))) for unit in ("shoal", "shoal-containerd")] if self.process.alive() else []
                raise AssertionError(f"{message}: {states}\n{self.process.text()[-800:]}")
            time.sleep(0.1)

    def kill(self):
        self.process.kill()
        for _ in range(100):  # until the last process is gone
            try:
                for path in [*sorted(self.cgroup.rglob("*/"), reverse=True), self.cgroup]:
                    path.rmdir()
                return
            except OSError:
                time.sleep(0.05)
