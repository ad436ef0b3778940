# SPDX-License-Identifier: Apache-2.0
"""A whole machine in namespaces: systemd as its first process, this machine's files below an overlay in memory, a lab's network.
What is installed, configured or removed there is gone with it; nothing outside sees it."""
import os
import subprocess
import tempfile
import time
from pathlib import Path

from lab import Process, run

# Units that belong to real hardware or to the kernel, which all machines here share, and timers that would only disturb.
MASKED = ("systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service systemd-sysctl.service "
          "systemd-modules-load.service modprobe@.service systemd-remount-fs.service systemd-random-seed.service systemd-binfmt.service "
          "systemd-tmpfiles-setup-dev.service systemd-update-utmp.service dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount "
          "sys-kernel-tracing.mount sys-fs-fuse-connections.mount sys-kernel-config.mount proc-sys-fs-binfmt_misc.automount timers.target "
          "podman.socket podman.service avahi-daemon.socket apparmor.service").split()

BOOT = r"""
set -e
top=$1; shift
mount --make-rprivate /
mount -t tmpfs tmpfs "$top"
mkdir "$top"/upper "$top"/work "$top"/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$top/root"
cat /etc/hosts >"$top/hosts"
cd "$top/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
for node in null zero full random urandom tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for d in dev/shm tmp var/tmp; do mount -t tmpfs -o mode=1777 tmpfs "$d"; done
mount -t tmpfs -o mode=755 tmpfs run
mount -t cgroup2 cgroup2 sys/fs/cgroup
cat "$top/hosts" >etc/hosts
for unit in "$@"; do ln -sf /dev/null "etc/systemd/system/$unit"; done
ln -sf /lib/systemd/system/basic.target etc/systemd/system/default.target
mkdir old
pivot_root . old
umount -l old
rmdir old
exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --show-status=0 --log-target=null
"""


class Machine:
    """Booted in the network namespace of a lab's node, and taken down with the lab."""

    def __init__(self, lab, node, seconds=30):
        top = Path(tempfile.mkdtemp(prefix="machine-", dir=lab.dir))
        # --kill-child: its first process dies with this one, and all others with that.
        self.process = Process(node.exec("unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--cgroup",
                                         "bash", "-c", BOOT, "boot", top, *MASKED), lab.dir / "machine.log")
        lab.processes.append(self.process)
        end = time.monotonic() + seconds
        while not (state := self.state()) in ("running", "degraded"):
            if not self.process.alive() or time.monotonic() > end:
                raise RuntimeError(f"the machine did not start ({state}):\n{self.process.text()[-2000:]}")
            time.sleep(0.2)

    def _first(self) -> int:
        """PID of its systemd, as seen from here."""
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid:
                return int(entry.parent.name)
        return 0

    def state(self) -> str:
        first = self._first()
        if first == 0 or os.readlink(f"/proc/{first}/exe") == "/usr/bin/bash":
            return "booting"
        return self.run("systemctl is-system-running", check=False).stdout.strip()

    def run(self, script: str, cwd="/root", check=True, seconds=120):
        """A bash script inside, as root; its standard output and error together where it fails."""
        inside = ["nsenter", "--all", f"--target={self._first()}", "env", "-i", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                  "bash", "-c", f"cd {cwd} || exit 1\n{script}"]
        return run(*inside, check=check, timeout=seconds)
