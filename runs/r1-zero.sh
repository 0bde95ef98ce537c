#!/usr/bin/env bash
# R1-Zero in small: a base pretrained on raw traces, then rewards alone, three seeds. Writes results/r1-zero.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf .runs/raw-base .runs/raw-model
node dist/src/cli/main.js pretrain --task countdown --task-option trace=raw --steps 3000 --warmup-steps 100 \
  --d-model 96 --out .runs/raw-base --save .runs/raw-model
node runs/seeds.mjs r1-zero "${SEEDS:-0,1,2}" grpo --model .runs/raw-model --task countdown --task-option trace=raw \
  --steps 100 --batch-size 512 --num-generations 8 --minibatches 2 --learning-rate 2e-4 --epsilon-high 0.28 \
  --max-completion-length 120 --eval-problems 500 "$@"
