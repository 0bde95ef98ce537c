#!/usr/bin/env bash
# GRPO against PPO with a critic of the same size: the same policy, problems, samples and updates, three seeds each. Writes
# results/ppo-against-grpo. The seconds are measured by the second command alone: let nothing else run beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
node runs/ppo-against-grpo.mjs learn "${SEEDS:-0,1,2}"
node runs/ppo-against-grpo.mjs time "${SEEDS:-0,1,2}"
node runs/ppo-against-grpo.mjs table "${SEEDS:-0,1,2}"
