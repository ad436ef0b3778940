#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the named Debian packages that are missing. Says what it does; does nothing when all are there.
set -euo pipefail
missing=()
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "deps: missing packages: ${missing[*]}; run as root: apt-get install ${missing[*]}" >&2
        exit 1
    }
    as_root=(sudo)
fi
echo "deps: installing ${missing[*]}"
# Services that come with the packages must not start here: tests start their own.
policy=/usr/sbin/policy-rc.d
made_policy=0
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 0755 "$policy"
    made_policy=1
fi
trap '[ $made_policy -eq 0 ] || "${as_root[@]}" rm -f "$policy"' EXIT
export DEBIAN_FRONTEND=noninteractive
install() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; }
log=$(mktemp)
"${as_root[@]}" apt-get update -q >"$log" 2>&1 || { cat "$log"; exit 1; }
install >"$log" 2>&1 || { cat "$log"; exit 1; }
# Nor with the machine from now on, dockerd least of all. Packages that were there before stay as they were.
mapfile -t units < <(dpkg -L "${missing[@]}" | sed -nE 's#^(/usr)?/lib/systemd/system/([^/@]+\.(service|socket))$#\2#p')
if [ ${#units[@]} -gt 0 ] && command -v systemctl >/dev/null; then
    "${as_root[@]}" systemctl disable "${units[@]}" >"$log" 2>&1 || { cat "$log"; exit 1; }
fi
rm -f "$log"
