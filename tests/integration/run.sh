#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# All integration tests, or those named (file names without .py). Real registry, real clients, real sockets.
cd "$(dirname "$0")/../.." || exit 1
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(pull prefetch operate terminal page conformance clients matrix registries runtime_config deploy install systemd day tls topology bad_input bad_origin crowd_bad_origin shapes lazy crowd kill liar restart lifecycle content_store datapath worse marked_secrets acr sim_cli sim_report)
passed=0 failed=0 failures=()
for name in "${names[@]}"; do
    echo "integration: $name"
    log=build/integration-$name.log
    timeout --kill-after=10 1200 /usr/bin/python3 "tests/integration/$name.py" 2>&1 | tee "$log"
    line=$(grep -E "^$name: [0-9]+ passed, [0-9]+ failed" "$log" | tail -n 1)
    if [ -z "$line" ]; then
        failed=$((failed + 1))
        failures+=("$name: ended without a result")
        continue
    fi
    passed=$((passed + $(sed -E 's/.*: ([0-9]+) passed.*/\1/' <<<"$line")))
    failed=$((failed + $(sed -E 's/.*, ([0-9]+) failed.*/\1/' <<<"$line")))
    mapfile -t -O ${#failures[@]} failures < <(grep -E '^ +FAIL ' "$log")
done
# Once more at the end: of a long log often only the end is kept.
[ ${#failures[@]} -eq 0 ] || printf '%s\n' "${failures[@]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
