#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# All tests, one kind after the other; a closing line counts them all. FUZZ_SECONDS bounds each fuzz target.
set -u
cd "$(dirname "$0")/.." || exit 1
: "${FUZZ_SECONDS:=10}"
jobs=$(nproc)
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# stage NAME COMMAND...: runs it, shows it, and adds up its closing "N passed, N failed".
stage() {
    local name=$1
    shift
    echo "== $name"
    "$@" 2>&1 | tee "$log"
    local code=${PIPESTATUS[0]} line
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
    if [ -n "$line" ]; then
        passed=$((passed + ${line%% *}))
        failed=$((failed + $(sed -E 's/.*, ([0-9]+) failed/\1/' <<<"$line")))
        [ "$code" -eq 0 ] || [ "$(sed -E 's/.*, ([0-9]+) failed/\1/' <<<"$line")" -gt 0 ] || failed=$((failed + 1))
    else
        failed=$((failed + 1))
        echo "  FAIL  $name (exit $code)"
    fi
}

stage "unit and property tests" make --no-print-directory -j"$jobs" check-unit
stage "the same under address and undefined sanitizers" env TEST_SECONDS=300 make --no-print-directory -j"$jobs" SAN=address,undefined check-unit
stage "simulated scenarios" env TEST_SECONDS=600 make --no-print-directory -j"$jobs" check-sim
stage "fuzz targets, $FUZZ_SECONDS s each" make --no-print-directory -j"$jobs" FUZZ_SECONDS="$FUZZ_SECONDS" fuzz
stage "real registry, real clients" make --no-print-directory -j"$jobs" check-integration
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
