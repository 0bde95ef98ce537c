#!/usr/bin/env bash
# R1-Zero and R1's four stages from the same base on a mix of tasks, three seeds each. Writes results/r1.
set -euo pipefail
cd "$(dirname "$0")/.."
bash runs/r1-base.sh
mkdir -p results/r1
for seed in ${SEEDS:-0 1 2}; do
  for arm in zero r1; do
    rm -rf ".runs/r1/$arm-$seed"
    flag=""
    if [ "$arm" = zero ]; then flag="--zero"; fi
    node dist/src/cli/main.js r1 --config runs/r1.json $flag --seed "$seed" --out ".runs/r1/$arm-$seed" "$@"
    cp ".runs/r1/$arm-$seed/stages.json" "results/r1/$arm-$seed.json"
  done
done
node runs/r1-table.mjs | tee results/r1/summary.txt
