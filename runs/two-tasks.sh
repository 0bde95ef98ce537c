#!/usr/bin/env bash
# number-sort and chain-sum from nothing: a base by one command, then GRPO, three seeds. Writes results/number-sort and results/chain-sum.
set -euo pipefail
cd "$(dirname "$0")/.."
for task in number-sort:1000 chain-sum:3000; do
  name="${task%:*}"
  rm -rf ".runs/$name-base" ".runs/$name-model"
  node dist/src/cli/main.js sft --task "$name" --steps "${task#*:}" --d-model 96 --out ".runs/$name-base" --save ".runs/$name-model"
  node runs/seeds.mjs "$name" "${SEEDS:-0,1,2}" grpo --model ".runs/$name-model" --task "$name" --steps 60 \
    --batch-size 512 --num-generations 8 --minibatches 2 --learning-rate 1e-4 --epsilon-high 0.28 \
    --max-completion-length 96 --eval-problems 500 "$@"
done
