#!/usr/bin/env bash
# The server under load and under attack. Usage: runs/serve.sh [clients|decode|limits ...]; without a word all three.
#   clients  stories260K at 1, 8, 64 and 200 clients, the 200 for 60 seconds      results/serve/clients.txt
#   decode   the model of `retort bench decode` (256 wide) at 64 clients, beside it  results/serve/decode.txt
#   limits   1,000 schemas, 20,000 mutated requests, 20 kills during load         results/serve/limits.txt
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p results/serve
retort() { node dist/src/cli/main.js "$@"; }
head() { echo "commit $(git rev-parse --short HEAD), $(date -u +%F), $(nproc) x $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | sed -n 1p), node $(node --version)"; }
show() { echo "\$ $*"; "$@" 2>/dev/null; echo; }

clients() {
  local model=../shared/models/stories260K
  show retort bench serve --model $model --clients 1,8,64 --seconds 15
  show retort bench serve --model $model --clients 200 --seconds 60
}

decode() {
  show retort bench serve --clients 64 --seconds 30
  show retort bench decode
}

tests() {
  echo "\$ $*"
  env "$@" | grep -E '^(ok|not ok|# [0-9])' | grep -v '# SKIP'
  echo
}

limits() {
  tests RETORT_SCHEMAS=1000 node --test --test-reporter=tap --test-name-pattern='random schemas' dist/test/serve-json.test.js
  tests RETORT_REQUESTS=20000 node --test --test-reporter=tap dist/test/serve-fuzz.test.js
  tests RETORT_KILLS=20 node --test --test-reporter=tap dist/test/serve-kill.test.js
}

for part in "${@:-clients decode limits}"; do
  for name in $part; do
    { head; $name; } | tee "results/serve/$name.txt"
  done
done
