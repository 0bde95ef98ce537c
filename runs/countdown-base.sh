#!/usr/bin/env bash
# Makes models/countdown-base from nothing: SFT on synthetic, imperfect searches by novices and experts. As WebAssembly,
# so that any machine whose runtime has the fused multiply-add gets the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf .runs/countdown-base .runs/countdown-model
RETORT_TARGET=wasm node dist/src/cli/main.js sft --task countdown --steps 3000 --warmup-steps 100 --batch-tokens 1536 \
  --learning-rate 2e-3 --seed 0 --out .runs/countdown-base --save .runs/countdown-model "$@"
cp .runs/countdown-model/* models/countdown-base/
