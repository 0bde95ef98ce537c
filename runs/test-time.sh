#!/usr/bin/env bash
# Thinking longer at test time on the base model that ships: accuracy against tokens. Writes results/test-time.
set -euo pipefail
cd "$(dirname "$0")/.."
node runs/test-time.mjs
