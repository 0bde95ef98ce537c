#!/usr/bin/env bash
# A longer run on countdown from the base that ships, aiming at 0.60 and more. Writes results/countdown-long.
set -euo pipefail
cd "$(dirname "$0")/.."
node runs/seeds.mjs countdown-long "${SEEDS:-0,1,2}" grpo --model models/countdown-base --task countdown --steps 60 \
  --batch-size 512 --num-generations 8 --minibatches 2 --learning-rate 1.5e-4 --epsilon-high 0.28 \
  --max-completion-length 170 --eval-problems 1000 --eval-every 20 "$@"
