#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run-fuzz.sh DIR SECONDS: replays the stored corpus of each fuzz target, then fuzzes it for SECONDS.
# A finding is kept under build/fuzz/findings/<target>/ and fails the run.
set -u
dir=$1 seconds=$2 status=0 count=0 bad=0
for program in "$dir"/*; do
    [ -x "$program" ] && [ -f "$program" ] || continue
    name=$(basename "$program")
    corpus=tests/fuzz/corpus/$name
    grown=build/fuzz/grown/$name findings=build/fuzz/findings/$name
    mkdir -p "$grown" "$findings"
    seeds=("$grown")
    [ -d "$corpus" ] && seeds+=("$corpus")
    log=build/fuzz/$name.log
    if timeout $((seconds + 60)) "$program" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -artifact_prefix="$findings/" \
        -print_final_stats=1 "${seeds[@]}" >"$log" 2>&1; then
        echo "  ok    fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions"
        count=$((count + 1))
    else
        echo "  FAIL  fuzz $name"
        grep -E 'ERROR|SUMMARY|Test unit|runtime error|ASSERT' "$log" | head -n 12
        status=1 bad=$((bad + 1))
    fi
done
echo "$count passed, $bad failed"
[ $count -gt 0 ] && exit $status
