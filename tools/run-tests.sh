#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs cmocka test programs, each bounded in time, prints those that fail in full, and ends with a count of tests.
set -u
limit=${TEST_SECONDS:-120}
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for program in "$@"; do
    start=$(date +%s%N)
    timeout --kill-after=5 "$limit" "$program" >"$log" 2>&1
    code=$?
    ms=$((($(date +%s%N) - start) / 1000000))
    p=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test(s).*/\1/p' "$log" | tail -n 1)
    f=$(grep -c '^\[  FAILED  \].*[^:]$' "$log")
    passed=$((passed + ${p:-0}))
    if [ $code -ne 0 ] || [ "${p:-0}" -eq 0 ]; then
        failed=$((failed + (f > 0 ? f : 1)))
        echo "  FAIL  $program (exit $code, $ms ms)"
        tail -n 60 "$log"
    else
        echo "  ok    $program: $p tests, $ms ms"
        grep -E '^(figure|seed):' "$log" || true
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
