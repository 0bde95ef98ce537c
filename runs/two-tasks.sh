#!/usr/bin/env bash
# number-sort and chain-sum from nothing: a base by one command, then GRPO, three seeds. Writes results/number-sort and results/chain-sum.
set -euo pipefail
cd "$(dirname "$0")/.."
for task in number-sort chain-sum; do
  rm -rf ".runs/$task-base" ".runs/$task-model"
  node dist/src/cli/main.js sft --task "$task" --steps 1000 --d-model 96 --out ".runs/$task-base" --save ".runs/$task-model"
  node runs/seeds.mjs "$task" "${SEEDS:-0,1,2}" grpo --model ".runs/$task-model" --task "$task" --steps 30 \
    --batch-size 512 --num-generations 8 --minibatches 2 --learning-rate 2e-4 --epsilon-high 0.28 \
    --max-completion-length 96 --eval-problems 500 "$@"
done
