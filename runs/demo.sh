#!/usr/bin/env bash
# The demo with three seeds: what `npm run demo` does, measured. Writes results/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
node runs/seeds.mjs demo "${SEEDS:-0,1,2}" demo "$@"
