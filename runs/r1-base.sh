#!/usr/bin/env bash
# The base of the R1 runs: pretrained on raw working of four tasks, 3% of it in tags. Writes .runs/r1-base-model.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf .runs/r1-base .runs/r1-base-model
raw() { printf '{"task":"%s","options":{"trace":"raw"}}' "$1"; }
node dist/src/cli/main.js pretrain --task mix \
  --task-option "tasks=[$(raw countdown),$(raw chain-sum),$(raw number-sort),$(raw multiply)]" \
  --steps 5000 --warmup-steps 100 --d-model 96 --out .runs/r1-base --save .runs/r1-base-model "$@"
