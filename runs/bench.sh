#!/usr/bin/env bash
# What this machine reaches with each target it has, and where the time goes. Writes results/bench/TARGET.txt and profile.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p results/bench
for target in wasm avx2 avx512; do
  if ! RETORT_TARGET=$target node dist/src/cli/main.js bench all > results/bench/next.txt; then continue; fi
  (echo "RETORT_TARGET=$target retort bench all, node $(node --version), $(nproc) x$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2)" && cat results/bench/next.txt) \
    > "results/bench/$target.txt"
done
rm -f results/bench/next.txt
node dist/src/cli/main.js bench --profile > results/bench/profile.txt
