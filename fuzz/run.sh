#!/bin/sh
# Runs each fuzz target for so many seconds, and stops at the first finding. See README.md.
set -eu

seconds=${1:-600}
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 1; }

for target in $(cargo fuzz list); do
    # What is found goes into the first folder; the others are read alone.
    case $target in
        config) seeds="tests/golden conf" ;;
        *) seeds="fuzz/seeds/$target" ;;
    esac
    mkdir -p "fuzz/corpus/$target"
    echo "fuzz: $target for $seconds s"
    # shellcheck disable=SC2086 # several folders
    cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" $seeds -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1
done
